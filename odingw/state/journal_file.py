"""The file that the local store keeps its journal in: an SQLite database in WAL mode.

One table holds every record, by kind, pool and key, with its row as JSON. A group of changes is one
transaction of at most two statements, each of which takes all its rows as one JSON text: SQLite
then works through them without coming back to Python, whose other threads go on meanwhile.
"""

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from odingw.errors import ConfigError

APPLICATION: Final = 0x6F64696E
"""Marks an SQLite file as one of odingw's (``PRAGMA application_id``)."""

MIGRATIONS: Final = (
    "CREATE TABLE record (kind TEXT NOT NULL, pool TEXT NOT NULL, key TEXT NOT NULL, "
    "row TEXT NOT NULL, PRIMARY KEY (kind, pool, key)) WITHOUT ROWID",
    # Reservations, which had a record each, in one record for all of a pool.
    "INSERT INTO record SELECT 'places', pool, '[0]', json_array(max(json_extract(row, '$[0]')), "
    "json_group_array(json_array(json(key), json(row)))) FROM record WHERE kind = 'place' "
    "GROUP BY pool",
    "DELETE FROM record WHERE kind = 'place'",
    # Of the master key that servers are given keys of; at most one row.
    "CREATE TABLE master_key (fingerprint TEXT NOT NULL)",
    # Where servers could report; at most one row.
    "CREATE TABLE internal (endpoints TEXT NOT NULL)",
)
"""What makes version n of the schema of version n - 1; a file's version is its ``user_version``."""

_KEY: Final = ", ".join(f"json_extract(value, '$[{index}]')" for index in range(3))
_UPSERT: Final = (
    f"INSERT INTO record SELECT {_KEY}, json_extract(value, '$[3]') "  # noqa: S608  -- constants
    "FROM json_each(?) WHERE true ON CONFLICT DO UPDATE SET row = excluded.row"
)
_DELETE: Final = f"DELETE FROM record WHERE (kind, pool, key) IN (SELECT {_KEY} FROM json_each(?))"  # noqa: S608  -- constants

_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SIDE_FILES: Final = ("-wal", "-shm", "-journal")


def fact(connection: sqlite3.Connection, table: str, column: str) -> str:
    """Return what a table of at most one row says; empty: nothing, or there is no such table."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    if table not in tables:
        return ""
    found = connection.execute(f"SELECT {column} FROM {table}").fetchone()  # noqa: S608  -- constants
    return str(found[0]) if found else ""


def check_path(path: Path) -> None:
    """Look whether a file can be a journal, without making it.

    Raises:
        ConfigError: it cannot.
    """
    try:
        if path.exists():
            if not path.is_file():
                raise _unusable(path, "it is no file")
            if not os.access(path, os.R_OK | os.W_OK):
                raise _unusable(path, os.strerror(errno.EACCES))
        elif not path.parent.is_dir():
            raise _unusable(path, os.strerror(errno.ENOENT))
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    # SQLite makes a second file beside it.
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise _unusable(path, os.strerror(errno.EACCES))


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"state.url: {path}: cannot use it: {reason}; name a file that odingw can read "
        'and write, or "memory:" to keep nothing'
    )


class JournalBrokenError(Exception):
    """The file is not, or no longer, a database that can be read."""


class JournalError(Exception):
    """A group could not be written; the text says why, and another try may succeed."""


class JournalFile:
    """The journal's file, open; for one thread at a time.

    Args:
        path: the file; it is made if it is missing, with mode 0600.
        synchronous: ``normal``, or ``full``, with which a power cut costs nothing either.
        migrations: what makes one version of the schema of the one before.
        fingerprint: of the master key that servers are given keys of from now on; empty: what the
            file says stays.
        internal: the endpoints that serve ``/internal`` from now on; empty: what the file says
            stays.

    Attributes:
        moved_to: where a damaged file was moved; None: there was none.

    Raises:
        ConfigError: the file cannot be used, in one line that says why and what to do.
    """

    def __init__(
        self,
        path: Path,
        synchronous: str,
        migrations: tuple[str, ...] = MIGRATIONS,
        fingerprint: str = "",
        internal: str = "",
    ) -> None:
        self.path = path
        self.moved_to: Path | None = None
        # Closed, and not replaced yet; and whether it has been moved aside.
        self._lost = self._moved = False
        self._synchronous = synchronous
        self._migrations = migrations
        self._facts = {
            ("master_key", "fingerprint"): fingerprint,
            ("internal", "endpoints"): internal,
        }
        try:
            self._connection = self._open()
        except JournalBrokenError:
            self.moved_to = self._move_aside()
            self._connection = self._open()

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield kind, pool, key and row of all records, the latter two in JSON.

        Raises:
            JournalBrokenError: the file is damaged.
        """
        try:
            yield from self._connection.execute("SELECT kind, pool, key, row FROM record")
        except sqlite3.DatabaseError as error:
            raise _read_error(error) from None

    def write(self, upserts: bytes, deletes: bytes) -> None:
        """Write a group of changes, all or nothing.

        Args:
            upserts: a JSON list of lists of kind, pool, key and row; the latter two are lists.
            deletes: a JSON list of lists of kind, pool and key.

        Raises:
            JournalError: it could not be written: a full disk, say.
            JournalBrokenError: the file is damaged.
        """
        if self._lost:
            raise JournalBrokenError(f"{self.path}: it was damaged and is not replaced yet")
        work = [(_DELETE, deletes), (_UPSERT, upserts)]
        statements = [(statement, rows.decode()) for statement, rows in work if rows != b"[]"]
        try:
            if len(statements) == 1:
                # It is a transaction by itself, and each statement competes for the interpreter.
                self._connection.execute(statements[0][0], statements[0][1:])
            elif statements:
                self._write_all(statements)
        except sqlite3.Error as error:
            if _code(error) in _BROKEN:
                raise JournalBrokenError(str(error)) from None
            raise JournalError(f"{self.path}: {error}") from None

    def _write_all(self, statements: list[tuple[str, str]]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in statements:
                connection.execute(statement, (rows,))
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def start_anew(self) -> Path:
        """Move a damaged file aside and go on with an empty one; return where it went.

        Raises:
            JournalError: that does not work either.
        """
        try:
            self._lost = True
            self._connection.close()
            if not self._moved:
                self.moved_to = self._move_aside()
                self._moved = True
            self._connection = self._open()
        except (ConfigError, JournalBrokenError, sqlite3.Error) as error:
            raise JournalError(str(error)) from None
        self._lost = self._moved = False
        return self.moved_to or self.path

    def close(self) -> None:
        """Close the file; what was written is folded into it."""
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise _unusable(self.path, error.strerror or str(error)) from None
        connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            if _code(error) in _BROKEN:
                raise JournalBrokenError(str(error)) from None
            if _code(error) == sqlite3.SQLITE_BUSY:
                raise ConfigError(
                    f"state.url: {self.path}: another process uses it; "
                    "give each gateway a file of its own, or let them share a Redis"
                ) from None
            raise _unusable(self.path, str(error)) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Take the file for this process alone, check it and bring its schema up to date."""
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        found = _number(connection, "application_id")
        version = _number(connection, "user_version")
        newest = len(self._migrations)
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if found != APPLICATION and (found or version or tables):
            raise ConfigError(
                f"state.url: {self.path}: it is a database of another program; name another file"
            )
        if version > newest:
            raise ConfigError(
                f"state.url: {self.path}: a newer version of odingw made it (its schema is "
                f"version {version}, this one knows {newest}); install that one, or name another "
                "file"
            )
        # Not earlier: it writes to the file, which may be another program's.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        trouble = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if trouble != "ok":
            raise JournalBrokenError(trouble)
        if version < newest:
            connection.execute("BEGIN IMMEDIATE")
            for statement in self._migrations[version:]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {newest}")
            connection.execute("COMMIT")
        for (table, column), value in self._facts.items():
            if value and fact(connection, table, column) != value:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"DELETE FROM {table}")  # noqa: S608  -- constants
                connection.execute(f"INSERT INTO {table} VALUES (?)", (value,))  # noqa: S608
                connection.execute("COMMIT")

    def _move_aside(self) -> Path:
        """Rename the file and those beside it; return the new name."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        target = self.path.with_name(f"{self.path.name}.broken-{stamp}")
        number = 1
        while target.exists():
            number += 1
            target = self.path.with_name(f"{self.path.name}.broken-{stamp}-{number}")
        try:
            self.path.rename(target)
            for end in _SIDE_FILES:
                side = Path(f"{self.path}{end}")
                if side.exists():
                    side.rename(f"{target}{end}")
        except OSError as error:
            raise _unusable(
                self.path, f"it is damaged and cannot be moved: {error.strerror}"
            ) from None
        return target


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    number: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return number


def _code(error: sqlite3.Error) -> int:
    """The primary result code (https://sqlite.org/rescode.html)."""
    code: Any = getattr(error, "sqlite_errorcode", None)
    return int(code) & 0xFF if code is not None else 0


def _read_error(error: sqlite3.DatabaseError) -> Exception:
    return JournalBrokenError(str(error)) if _code(error) in _BROKEN else JournalError(str(error))
