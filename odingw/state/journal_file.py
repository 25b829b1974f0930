"""The file that the local store keeps its journal in: an SQLite database in WAL mode.

One table holds every record, by kind, pool and key, with its row as JSON. A group of changes is one
transaction. It comes in pieces of at most two statements, each of which takes all its rows as one
JSON text: SQLite then works through them without coming back to Python, whose other threads go on
meanwhile.

In WAL mode a commit with ``synchronous = FULL`` is one sync of the write-ahead file, and with
``NORMAL`` none: that file is synced before a checkpoint alone
(https://sqlite.org/pragma.html#pragma_synchronous).
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from odingw.errors import ConfigError
from odingw.state.file_place import Watch, is_used, move_aside
from odingw.state.journal_request import Backup, request

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


class JournalLostError(JournalBrokenError):
    """Others have deleted, moved, replaced or overwritten the file while it was open."""


class JournalError(Exception):
    """A group could not be written; the text says why, and another try may succeed."""


class JournalFile:
    """The journal's file, open; for one thread at a time.

    Args:
        path: the file; it is made if it is missing, with mode 0600.
        synchronous: ``normal``, with which a power cut may cost all since the last checkpoint; or
            ``full``, with which it costs nothing that was written.
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
        # What is open is given up, and what was at the path moved away.
        self._replacing = False
        # It is new, and what is known is not written to it yet.
        self._empty = False
        self._synchronous = synchronous
        self._migrations = migrations
        self._facts = {
            ("master_key", "fingerprint"): fingerprint,
            ("internal", "endpoints"): internal,
        }
        self._watches: tuple[Watch, ...] = ()
        self._backup: Backup | None = None
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

    def write(self, upserts: bytes, deletes: bytes, more: bool = False) -> None:
        """Write a piece of a group of changes; the group is written as a whole, or not at all.

        Args:
            upserts: a JSON list of lists of kind, pool, key and row; the latter two are lists.
            deletes: a JSON list of lists of kind, pool and key.
            more: whether the group has more pieces; after an error it has not.

        Raises:
            JournalError: it could not be written: a full disk, say.
            JournalBrokenError: the file is damaged.
            JournalLostError: it is not there as it was left.
        """
        connection = self._connection
        begun = not self._replacing and connection.in_transaction
        if not begun:
            self.check()
        work = [(_DELETE, deletes), (_UPSERT, upserts)]
        statements = [(statement, rows.decode()) for statement, rows in work if rows != b"[]"]
        try:
            # One statement is a transaction by itself, and each competes for the interpreter.
            if not begun and (more or len(statements) > 1):
                connection.execute("BEGIN IMMEDIATE")
            for statement, rows in statements:
                connection.execute(statement, (rows,))
            if connection.in_transaction and not more:
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._write_error(error) from None
        if not more:
            self._written()

    def _roll_back(self) -> None:
        # SQLite may have done so already, and a broken file may not let it.
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._written()

    def _write_error(self, error: sqlite3.Error) -> Exception:
        if _code(error) in _BROKEN:
            return JournalBrokenError(str(error))
        return JournalError(f"{self.path}: {error}")

    def check(self) -> None:
        """Look whether the file and its write-ahead file are there as they were left.

        Raises:
            JournalLostError: they are not.
        """
        if self._replacing:
            raise JournalBrokenError(f"{self.path}: it is not replaced yet")
        for watch, what in zip(self._watches, ("", "-wal"), strict=False):
            if fate := watch.lost():
                raise JournalLostError(f"{self.path}{what} {fate} while it was open")
        self._empty = False

    def _written(self) -> None:
        for watch in self._watches:
            watch.written()

    def start_anew(self) -> Path | None:
        """Go on with an empty file, and move aside what is at the path.

        Returns:
            Where that went; None: there was nothing.

        Raises:
            JournalError: that does not work.
        """
        try:
            if not self._replacing:
                self.moved_to = self._move_aside()
                self._replacing = True
                # SQLite sees that it was moved, and leaves alone what has its name.
                self.close()
            self._connection = self._open()
        except (ConfigError, JournalBrokenError, sqlite3.Error) as error:
            raise JournalError(str(error)) from None
        self._replacing, self._empty = False, True
        return self.moved_to

    def is_backup_wanted(self) -> bool:
        """Tell whether somebody has asked for a backup that is not made yet."""
        try:
            return not request(self.path).stat().st_size
        except OSError:
            return False

    def back_up(self, report: Callable[[str], object]) -> bool:
        """Go on with the backup that somebody has asked for, between two pieces of groups.

        Args:
            report: told in one line what became of it.

        Returns:
            Whether there is nothing more to do.
        """
        if self._replacing or self._empty:
            return False
        if self._backup is None:
            self._backup = Backup(self._connection, self.path, report)
        if not self._backup.step():
            return False
        self._backup = None
        return True

    def close(self) -> None:
        """Close the file; what was written is folded into it."""
        if self._backup is not None:
            self._backup.abandon()
            self._backup = None
        self._connection.close()
        for watch in self._watches:
            watch.close()
        self._watches = ()

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
            self._watches = (Watch(self.path), Watch(Path(f"{self.path}-wal")))
        except OSError as error:
            connection.close()
            raise _unusable(self.path, error.strerror or str(error)) from None
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

    def _move_aside(self) -> Path | None:
        """Rename what is at the path; return the new name, or None if nothing was there."""
        try:
            if not self.path.parent.is_dir():
                raise _unusable(self.path, os.strerror(errno.ENOENT))
            if any(watch.is_replaced() for watch in self._watches[:1]) and is_used(self.path):
                raise ConfigError(f"state.url: {self.path}: another process uses what is there now")
            return move_aside(self.path, "broken")
        except OSError as error:
            raise _unusable(self.path, f"it cannot be moved aside: {error.strerror}") from None


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    number: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return number


def _code(error: sqlite3.Error) -> int:
    """The primary result code (https://sqlite.org/rescode.html)."""
    code: Any = getattr(error, "sqlite_errorcode", None)
    return int(code) & 0xFF if code is not None else 0


def _read_error(error: sqlite3.DatabaseError) -> Exception:
    return JournalBrokenError(str(error)) if _code(error) in _BROKEN else JournalError(str(error))
