"""A local store on a real file that a test can let fail."""

import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from msgspec import json
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Reason, Refused
from odingw.grid.values import GridSettings
from odingw.state.journal import InThread
from odingw.state.journal_file import JournalBrokenError, JournalFile
from odingw.state.local import LocalStore
from tests.stores import at_once


class WatchedFile(JournalFile):
    """A journal's file that counts what is written, and can be told to be damaged.

    Attributes:
        broken: the next write finds the file damaged.
        sizes: how many records each write was given.
    """

    broken = False

    def __init__(self, path: Path, synchronous: str = "normal") -> None:
        self.sizes: list[int] = []
        super().__init__(path, synchronous)

    def write(self, upserts: bytes, deletes: bytes, more: bool = False) -> None:
        """Write, unless it is damaged."""
        self.sizes.append(len(json.decode(upserts)) + len(json.decode(deletes)))
        if self.broken:
            self.broken = False
            raise JournalBrokenError("database disk image is malformed")
        super().write(upserts, deletes, more)

    def limit(self, pages: int | None = None) -> None:
        """Let the file have so many pages at most; None: those it has."""
        if pages is None:
            pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
        self._connection.execute(f"PRAGMA max_page_count = {pages}")


class FaultCase(SynchronousTestCase):
    """A store on a file of its own, driven step by step.

    Attributes:
        disk_full: the system lets no file of the store grow.
    """

    disk_full = False

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "odingw.sqlite"
        self.clock = Clock()

    def open(self, now: float = 0.0, in_thread: InThread | None = None) -> LocalStore:
        """Open the file, and start a store on it."""
        self.clock = Clock()
        store = LocalStore(
            GridSettings(), lambda _: 0, self._open, in_thread or self._work, self.clock
        )
        store.pool("")
        store.start(now)
        return store

    def _work(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        # For no longer than that: the test run has files of its own to write.
        with no_room_on_disk() if self.disk_full else nullcontext():
            return at_once(call, *args)

    def _open(self) -> JournalFile:
        self.file = WatchedFile(self.path)
        self.addCleanup(self.file.close)
        return self.file

    def reopen(self, now: float) -> LocalStore:
        """Let go of the file without a word, as in a crash, and start again."""
        self.file.close()
        return self.open(now)

    def answer(self, eventual: Any) -> Any:
        """Return what a call comes to; raise what it fails with."""
        if not hasattr(eventual, "__await__"):
            return eventual
        result: list[Any] = []

        async def wait() -> Any:
            return await eventual

        Deferred.fromCoroutine(wait()).addBoth(result.append)
        self.clock.advance(0)
        if isinstance(result[0], Failure):
            result[0].raiseException()
        return result[0]

    def assert_unavailable(self, call: Callable[[], Any]) -> None:
        """Assert that a call is refused for now."""
        refused = self.assertRaises(Refused, lambda: self.answer(call()))
        self.assertEqual(Reason.STORE_UNAVAILABLE, refused.reason)
        self.assertEqual({"reason": "store_unavailable", "retry_after": 5.0}, refused.data)

    def moved(self) -> list[Path]:
        """Return the damaged files that were moved aside."""
        return sorted(
            path
            for path in self.folder.glob("odingw.sqlite.broken-*")
            if not path.name.endswith(("-wal", "-shm"))
        )


@contextmanager
def no_room_on_disk() -> Iterator[None]:
    """Let this process make no file larger than a few bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def messages(events: Sequence[dict[str, Any]]) -> str:
    """Return what log events say."""
    return "\n".join(event["log_format"].format(**event) for event in events)
