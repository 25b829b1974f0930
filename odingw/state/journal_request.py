"""How a gateway fulfils the wish for a backup of its journal."""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

PAGES: Final = 100
"""Pages that are copied in one step, which a group waits for: 400 kB, less than a millisecond."""


_COMPLETE: Final = 101
"""``SQLITE_DONE`` (https://sqlite.org/rescode.html)."""


def request(journal: Path) -> Path:
    """Return the file that asks for a backup of a journal, and is then replaced by it."""
    return Path(f"{journal}-backup-wanted")


def part(journal: Path) -> Path:
    """Return the file in which the backup grows."""
    return Path(f"{journal}-backup-part")


class _AbandonedError(Exception):
    """The copy is not wanted any more."""


class StepByStep:
    """Copies a database that is being written to, some pages at a time.

    SQLite keeps the copy in step with what the same connection writes in between
    (https://sqlite.org/backup.html). ``sqlite3`` has a loop for it alone, which runs here in a
    thread that stands still between the steps: never do two threads use the connection.

    Args:
        source: the connection.
        target: the file to make.
    """

    def __init__(self, source: sqlite3.Connection, target: Path) -> None:
        self._source = source
        self._target = target
        self._go = threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._ended = self._abandoned = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="backup", daemon=True)
        self._thread.start()

    def step(self) -> bool:
        """Go on; return whether the copy is complete.

        Raises:
            sqlite3.Error: it cannot be made.
        """
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._ended

    def abandon(self) -> None:
        """End without a copy."""
        self._abandoned = True
        self._go.release()
        self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._abandoned:
                self._copy()
        except Exception as error:
            self._error = error
        finally:
            self._ended = True
            self._done.release()

    def _copy(self) -> None:
        with closing(sqlite3.connect(self._target, isolation_level=None)) as target:
            # Whoever asked for it syncs it.
            target.execute("PRAGMA synchronous = OFF")
            self._source.backup(target, pages=PAGES, progress=self._stand_still, sleep=0)
            # No other files beside it.
            target.execute("PRAGMA journal_mode = DELETE")

    def _stand_still(self, status: int, *_: int) -> None:
        if status == _COMPLETE:
            # What is written from now on is not in the copy.
            return
        self._done.release()
        self._go.acquire()
        if self._abandoned:
            raise _AbandonedError


class Backup:
    """A backup that is asked for.

    Args:
        connection: to the journal; it must outlive this, or ``abandon`` be called before.
        journal: its file.
        report: told in one line what became of the backup.
    """

    def __init__(
        self, connection: sqlite3.Connection, journal: Path, report: Callable[[str], object]
    ) -> None:
        self._connection = connection
        self._request = request(journal)
        self._part = part(journal)
        self._report = report
        self._copy: StepByStep | None = None

    def step(self) -> bool:
        """Go on; return whether there is nothing more to do."""
        if not self._request.exists():
            self.abandon()
            return True
        if self._connection.in_transaction:
            return False
        try:
            if self._copy is None:
                self._part.unlink(missing_ok=True)
                os.close(os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
                self._copy = StepByStep(self._connection, self._part)
            if not self._copy.step():
                return False
            self._part.rename(self._request)
            self._report("made")
        except (sqlite3.Error, OSError) as error:
            self._refuse(getattr(error, "strerror", None) or str(error))
        self._copy = None
        return True

    def _refuse(self, reason: str) -> None:
        self._report(f"not made: {reason}")
        try:
            self._part.write_text(reason, "utf-8")
            self._part.rename(self._request)
        except OSError:
            # Who asked sees that nothing comes.
            with suppress(OSError):
                self._part.unlink()

    def abandon(self) -> None:
        """End, and leave nothing behind."""
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.abandon()
            self._part.unlink(missing_ok=True)
