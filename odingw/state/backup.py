"""Backups: the records of a store in one file, a journal that nobody uses.

A gateway has its journal for itself, so it makes the backup, asked for by an empty file beside the
journal that becomes the backup. Whoever may do that may read and write the journal as well.
"""

import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from odingw.errors import ConfigError
from odingw.state.file_place import is_used, move_aside
from odingw.state.journal_file import APPLICATION, MIGRATIONS
from odingw.state.journal_request import part, request
from odingw.state.known_key import copied

PATIENCE: Final = 10.0
"""Seconds in which a gateway must begin with a backup: it looks for requests each second or two."""

_POLL: Final = 0.02
_SQLITE: Final = b"SQLite format 3\0"


def back_up(journal: Path, target: Path) -> int:
    """Copy a journal, which a gateway may be using, to a new file.

    Args:
        journal: the journal's file.
        target: where the backup goes.

    Returns:
        How many records it holds.

    Raises:
        ConfigError: it cannot be made; the text says why. Nothing is left of it then.
    """
    if target.exists():
        raise ConfigError(f"{target}: the file exists; name another one, backups are not replaced")
    try:
        if not journal.exists():
            raise ConfigError(f"{journal}: there is no such file to back up")
        with _new_file(target) as new:
            if not _copy_unused(journal, new):
                _ask(journal, new)
            return check(new)
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"{journal}: cannot be backed up to {target}: {_text(error)}") from None


def restore(journal: Path, source: Path) -> tuple[int, Path | None]:
    """Put a backup in the place of a journal that no gateway uses.

    Args:
        journal: the journal's file; what is there is kept beside.
        source: the backup.

    Returns:
        How many records it holds, and where the files went that were there.

    Raises:
        ConfigError: it cannot be done; the text says why. All is as it was then, unless a gateway
            was started in the same moment: then the text says where the files went.
    """
    wal = Path(f"{source}-wal")
    if wal.exists() and wal.stat().st_size:
        raise ConfigError(
            f"{source}: {wal.name} beside it holds more of it; let odingw backup copy both"
        )
    count = check(source)
    replaced = _Replaced(journal)
    try:
        _check_unused(journal)
        with _new_file(journal, replaced) as new:
            shutil.copyfile(source, new)
            _own_like(new, journal)
    except ConfigError as error:
        if replaced.moved is None:
            raise
        raise ConfigError(f"{error}; what was there before is now {replaced.moved}") from None
    except OSError as error:
        raise ConfigError(f"{journal}: cannot be restored: {_text(error)}") from None
    return count, replaced.moved


def check(path: Path) -> int:
    """Look whether a file is a backup, and return how many records it holds.

    Raises:
        ConfigError: it is none that this version can read, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(_SQLITE))
        if begins != _SQLITE:
            raise ConfigError(f"{path}: it is no backup of odingw")
        uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION,):
                raise ConfigError(f"{path}: it is no backup of odingw")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise ConfigError(f"{path}: a newer version of odingw made it; install that one")
            (trouble,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if trouble != "ok":
                raise ConfigError(f"{path}: it is damaged: {' '.join(trouble.split())}")
            count: int = connection.execute("SELECT count(*) FROM record").fetchone()[0]
            return count
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"{path}: it cannot be read: {_text(error)}") from None


def _check_unused(journal: Path) -> None:
    if journal.exists() and is_used(journal):
        raise ConfigError(f"{journal}: a gateway uses it; stop it first")


class _Replaced:
    """Moves what is in the place of a journal aside.

    Attributes:
        moved: where it went; None: nothing was there.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self.moved: Path | None = None

    def __call__(self) -> None:
        _check_unused(self._journal)
        self.moved = move_aside(self._journal, "replaced")


@contextmanager
def _new_file(target: Path, before: Any = lambda: None) -> Iterator[Path]:
    """Make a file for this user alone under another name, which it loses when it is complete.

    Args:
        target: its name.
        before: called when all is well, before it gets the name.

    Raises:
        ConfigError: somebody else has made a file of that name meanwhile.
        OSError: it cannot be made.
    """
    number, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(number)
    new = Path(name)
    try:
        yield new
        _sync(new)
        before()
        _name(new, target)
        _sync(target.absolute().parent)
    finally:
        new.unlink(missing_ok=True)


def _name(new: Path, target: Path) -> None:
    """Give a file its name, if nobody has it."""
    try:
        # Unlike a rename, it replaces nothing.
        os.link(new, target)
    except FileExistsError:
        raise ConfigError(f"{target}: somebody has made that file meanwhile") from None
    except OSError:
        # There are file systems without links.
        if target.exists():
            raise
        new.rename(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _own_like(new: Path, journal: Path) -> None:
    """Give a file to whom the journal belongs, or its folder."""
    like = journal if journal.exists() else journal.absolute().parent
    owner = like.stat()
    if os.geteuid() == 0:
        os.chown(new, owner.st_uid, owner.st_gid)


def _copy_unused(journal: Path, new: Path) -> bool:
    """Copy a journal that no gateway uses; return whether none does."""
    if is_used(journal):
        return False
    with copied(journal) as copy, closing(sqlite3.connect(copy)) as source:
        fold(source, new)
    # One that has started meanwhile may have written while the files were copied.
    return not is_used(journal)


def fold(source: sqlite3.Connection, new: Path) -> None:
    """Copy a database to a file, all of it in that one."""
    with closing(sqlite3.connect(new, isolation_level=None)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")


def _ask(journal: Path, new: Path) -> None:
    """Let the gateway that uses a journal make the copy."""
    folder = os.open(journal.absolute().parent, os.O_RDONLY)
    try:
        try:
            # One at a time; what another one has left behind is nobody's then.
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{journal}: another backup of it is being made") from None
        wish = request(journal)
        wish.unlink(missing_ok=True)
        try:
            wish.touch(0o600, exist_ok=False)
            _wait(journal, wish)
            with wish.open("rb") as made:
                if made.read(len(_SQLITE)) != _SQLITE:
                    made.seek(0)
                    reason = made.read(1000).decode(errors="replace")
                    raise ConfigError(f"{journal}: the gateway cannot back it up: {reason}")
            shutil.copyfile(wish, new)
        finally:
            wish.unlink(missing_ok=True)
    finally:
        os.close(folder)


def _wait(journal: Path, wish: Path) -> None:
    """Wait until another file is in the place of the request."""
    own = wish.stat().st_ino
    end = time.monotonic() + PATIENCE
    while wish.stat().st_ino == own:
        if part(journal).exists():
            end = time.monotonic() + PATIENCE
        elif time.monotonic() > end:
            raise ConfigError(
                f"{journal}: the gateway that uses it does not answer; it hangs, has no right to "
                "write in that folder, or is of an older version, which must be stopped first"
            )
        time.sleep(_POLL)


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
