"""Which master key a journal belongs to, found without opening the journal for writing."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Set
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from msgspec import DecodeError, Struct

from odingw.state.journal_file import APPLICATION, JournalBrokenError, fact
from odingw.state.rows import KEY, SERVER, decode


class KnownKey(Struct, frozen=True):
    """What a journal knows of the master key, and of servers.

    Attributes:
        fingerprint: of the key that signed last; empty: nothing is known of it.
        given: the ids of the keys that servers have, by the servers' addresses.
        servers: the addresses of those that are attached.
        internal: the endpoints that served ``/internal``; empty: nothing is known of it.
    """

    fingerprint: str = ""
    given: Mapping[str, str] = {}
    servers: Set[str] = frozenset()
    internal: str = ""


def fingerprint(master_key: bytes) -> str:
    """Return what tells a master key from others, and does not give one of 32 random bytes away."""
    return sha256(b"odingw fleet\0" + master_key).hexdigest()[:32]


def known_key(path: Path) -> KnownKey:
    """Look into a journal, which another process may be using.

    Not this one: the system drops a process's locks on a file when it closes it anywhere.

    Raises:
        JournalBrokenError: it cannot be read; the text says why.
    """
    wal = Path(f"{path}-wal")
    try:
        if not path.exists() or not path.stat().st_size + _size(wal):
            return KnownKey()
        if not _size(wal):
            return _read(path)
        with copied(path) as copy:
            return _read(copy, "mode=rw")
    except sqlite3.Error as error:
        raise JournalBrokenError(f"{path}: {error}") from None
    except OSError as error:
        raise JournalBrokenError(f"{path}: {error.strerror}") from None


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """Copy a journal with what is not folded into it yet, which SQLite reads only from its own.

    Raises:
        OSError: it cannot be copied.
    """
    wal = Path(f"{path}-wal")
    with tempfile.TemporaryDirectory(prefix="odingw-check-") as folder:
        copy = Path(folder) / "journal"
        shutil.copyfile(path, copy)
        if _size(wal):
            shutil.copyfile(wal, f"{copy}-wal")
        yield copy


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read(path: Path, how: str = "mode=ro&immutable=1") -> KnownKey:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)) as connection:
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            return KnownKey()
        kids: dict[str, dict[str, str]] = {}
        for kind in (SERVER, KEY):
            select = "SELECT key, row FROM record WHERE kind = ?"
            kids[kind] = _kids(kind, connection.execute(select, (kind,)).fetchall())
        return KnownKey(
            fact(connection, "master_key", "fingerprint"),
            # Where it is known what a server was given, that counts.
            kids[SERVER] | kids[KEY],
            frozenset(kids[SERVER]),
            fact(connection, "internal", "endpoints"),
        )


def _kids(kind: str, rows: list[tuple[str, str]]) -> dict[str, str]:
    kids = {}
    for key_text, row_text in rows:
        try:
            (address,), row = decode(kind, key_text, row_text)
        except DecodeError:
            # The start counts and names them.
            continue
        kids[address] = row.kid  # type: ignore[union-attr]  # both kinds have one
    return kids
