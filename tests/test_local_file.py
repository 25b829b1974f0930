"""The journal's file and the thread that works on it: versions, durability, groups and slices."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from odingw.errors import ConfigError
from odingw.grid.values import GridSettings
from odingw.state.journal import SLICE
from odingw.state.journal_file import MIGRATIONS, JournalError, JournalFile
from odingw.state.local import LocalStore
from odingw.state.places import PlacesRow
from odingw.state.rows import decode, encode
from odingw.state.thread import OneThread
from tests.grids import Room, admission, report
from tests.local_file import FaultCase

A = "a.test:4433"
LARGE: Final = 8_000


class SchemaTests(FaultCase):
    ROW: Final = ["room", "", ["acme", "room"], [1]]

    def first(self) -> None:
        """Make a file of the present version with one record."""
        file = JournalFile(self.path, "normal", MIGRATIONS)
        file.write(encode([self.ROW]), b"[]")
        file.close()

    def look(self) -> tuple[int, list[str]]:
        """Return the file's version, and the pools of its records."""
        connection = sqlite3.connect(self.path)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        pools = [row[0] for row in connection.execute("SELECT pool FROM record")]
        connection.close()
        return version, pools

    def test_an_older_file_is_migrated(self) -> None:
        self.first()
        renamed = "UPDATE record SET pool = 'renamed'"
        for _ in range(2):
            file = JournalFile(self.path, "normal", (*MIGRATIONS, renamed))
            rows = list(file.rows())
            self.assertEqual([("room", "renamed", '["acme","room"]', "[1]")], rows)
            file.close()
            self.assertEqual((len(MIGRATIONS) + 1, ["renamed"]), self.look())

    def test_reservations_with_records_of_their_own_are_gathered(self) -> None:
        file = JournalFile(self.path, "normal", MIGRATIONS[:1])
        places = {
            ("", "alice"): [["acme", "lobby"], ["alice", ""]],
            ("", "bob"): [["acme", "lobby"], ["bob", ""]],
            ("eu", "eve"): [["acme", "hall"], ["eve", ""]],
        }
        rows = [["place", pool, key, [20.0, "acme"]] for (pool, _), key in places.items()]
        file.write(encode(rows), b"[]")
        file.close()
        file = JournalFile(self.path, "normal")
        found = {(kind, pool): decode(kind, key, row) for kind, pool, key, row in file.rows()}
        file.close()
        self.assertEqual({("places", ""), ("places", "eu")}, found.keys())
        for pool in ("", "eu"):
            (number,), row = found["places", pool]
            assert isinstance(row, PlacesRow)
            self.assertEqual((0, 20.0), (number, row.until))
            keys = {key[1][0]: place and place.customer for key, place in row.places}
            self.assertEqual({user: "acme" for at, user in places if at == pool}, keys)

    def test_a_migration_that_fails_changes_nothing(self) -> None:
        self.first()
        steps = (*MIGRATIONS, "UPDATE record SET pool = 'renamed'", "DELETE FROM nowhere")
        error = self.assertRaises(ConfigError, JournalFile, self.path, "normal", steps)
        self.assertIn("nowhere", str(error))
        self.assertEqual((len(MIGRATIONS), [""]), self.look())
        self.assertEqual([], self.moved())
        file = JournalFile(self.path, "normal", steps[:-1])
        file.close()
        self.assertEqual((len(MIGRATIONS) + 1, ["renamed"]), self.look())

    def test_durability_and_mode(self) -> None:
        for synchronous, number in (("full", 2), ("normal", 1)):
            path = self.folder / f"{synchronous}.sqlite"
            file = JournalFile(path, synchronous)
            found = file._connection.execute("PRAGMA synchronous").fetchone()[0]
            self.assertEqual(number, found)
            for made in (path, Path(f"{path}-wal")):
                self.assertEqual(0o600, made.stat().st_mode & 0o777)
            moved = file.start_anew()
            assert moved is not None
            found = file._connection.execute("PRAGMA synchronous").fetchone()[0]
            self.assertEqual(number, found)
            for made in (path, moved):
                self.assertEqual(0o600, made.stat().st_mode & 0o777)
            file.close()


class LargeReportTests(FaultCase):
    def setUp(self) -> None:
        super().setUp()
        self.rooms = [Room(("acme", f"room-{n}"), peers=n % 7) for n in range(LARGE)]
        self.peers = {room.id[1]: room.peers for room in self.rooms}
        self.steps: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def found(self, store: LocalStore) -> dict[str, int]:
        """Return the peers of each room."""
        return {view.id[1]: view.peers for view in store.pool("")._grid.rooms()}

    def later(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Keep a call until ``step``, like a thread that has not come to it yet."""
        outcome: Deferred[Any] = Deferred()
        self.steps.append((outcome, call, args))
        return outcome

    def step(self) -> None:
        """Carry out the next call."""
        outcome, call, args = self.steps.pop(0)
        maybeDeferred(call, *args).chainDeferred(outcome)

    def test_written_in_slices_and_complete(self) -> None:
        store = self.open()
        self.answer(store.pool("").report(report(A, *self.rooms), 0))
        self.clock.advance(1)
        sizes = self.file.sizes
        self.assertLessEqual(max(sizes), SLICE)
        # A server, and a base and a room for each.
        self.assertEqual(2 * LARGE + 1, sum(sizes))
        store = self.reopen(1)
        self.assertEqual(self.peers, self.found(store))

    def test_a_connect_between_two_slices(self) -> None:
        """It is answered with the next group, while the slices go on."""
        store = self.open(in_thread=self.later)
        grid = store.pool("")
        self.clock.advance(0)
        self.step()
        self.answer(grid.report(report(A, *self.rooms), 0))
        self.clock.advance(1)
        for _ in range(5):
            self.step()
        answers: list[Any] = []
        Deferred.fromCoroutine(self.connect(store)).addCallback(answers.append)
        self.clock.advance(0)
        while len(self.file.sizes) <= 2 * LARGE // SLICE:
            self.assertEqual([], answers)
            self.step()
        self.assertEqual([], answers)
        self.clock.advance(0)
        while self.steps and not answers:
            self.step()
        self.assertEqual(["new"], [placed.how for placed in answers])
        # Let go of in the moment of the answer: what was answered is there.
        self.assertEqual({**self.peers, "between": 0}, self.found(self.reopen(1)))

    async def connect(self, store: LocalStore) -> Any:
        """Place a room."""
        eventual: Any = store.pool("").connect(admission("between"), 0)
        return await eventual

    def test_killed_between_two_slices(self) -> None:
        """A group is there as a whole or not at all; the next report says the rest."""
        store = self.open(in_thread=self.later)
        self.clock.advance(0)
        self.step()
        self.answer(store.pool("").report(report(A, Room(("acme", "before"), peers=1)), 0))
        self.clock.advance(1)
        while self.steps:
            self.step()
        self.answer(store.pool("").report(report(A, *self.rooms), 0))
        self.clock.advance(1)
        while len(self.file.sizes) < 1.5 * LARGE // SLICE:
            self.step()
        store = self.reopen(1)
        self.assertEqual({"before": 1}, self.found(store))
        self.answer(store.pool("").report(report(A, *self.rooms), 1))
        self.clock.advance(1)
        self.assertEqual(self.peers, self.found(self.reopen(2)))


class ThreadedFile(JournalFile):
    """A file that notes the threads it is worked on in, and its statements."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "normal")
        self.threads: set[str] = set()
        self.closed_in = ""
        self.statements: list[str] = []
        self._connection.set_trace_callback(self.statements.append)

    def write(self, upserts: bytes, deletes: bytes, more: bool = False) -> None:
        """Note the thread, and write."""
        self.threads.add(threading.current_thread().name)
        super().write(upserts, deletes, more)

    def close(self) -> None:
        """Note the thread, and close."""
        self.closed_in = threading.current_thread().name
        super().close()


class ThreadTests(TestCase):
    async def test_a_group_is_one_transaction_in_the_other_thread(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, folder)
        path = folder / "odingw.sqlite"
        thread = OneThread(reactor, "journal")
        files: list[ThreadedFile] = []

        def open_file() -> JournalFile:
            files.append(ThreadedFile(path))
            return files[-1]

        store = LocalStore(
            GridSettings(),
            lambda _: 0,
            open_file,
            thread,
            reactor,
            end_thread=thread.stop,
        )
        store.start(0)
        (file,) = files
        grid = store.pool("")
        grid.report(report(A), 0)

        async def connect(room: str) -> Any:
            eventual: Any = grid.connect(admission(room), 0)
            return await eventual

        try:
            placed = await gatherResults(
                [Deferred.fromCoroutine(connect(f"room-{n}")) for n in range(20)]
            )
            self.assertEqual({"new"}, {place.how for place in placed})
            # The first one is the reading at the start.
            words = [statement.split()[0] for statement in file.statements[1:]]
            # One statement outside of any transaction is one by itself.
            self.assertEqual(["INSERT"], words)
            here = threading.current_thread().name
            (there,) = file.threads
            self.assertNotEqual(here, there)
            self.assertIn(there, [other.name for other in threading.enumerate()])

            grid.report(report(A, Room(("acme", "late"))), 0)
        finally:
            # Else the thread would keep the test run from ending.
            await store.stop()
        self.assertEqual(there, file.closed_in)
        self.assertNotIn(there, [other.name for other in threading.enumerate()])
        self.assertFalse(Path(f"{path}-wal").exists())
        again = JournalFile(path, "normal")
        rooms = {key for kind, _, key, _ in again.rows() if kind in ("room", "base")}
        again.close()
        self.assertEqual({f'["acme","{n}"]' for n in ("late", *_names(20))}, rooms)

    def test_a_group_of_both_kinds_is_one_transaction(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, folder)
        file = ThreadedFile(folder / "odingw.sqlite")
        self.addCleanup(file.close)
        old, new = SchemaTests.ROW, ["room", "", ["acme", "other"], [2]]
        file.write(encode([old]), b"[]")
        file.statements.clear()
        file.write(encode([new]), encode([old[:3]]))
        words = [statement.split()[0] for statement in file.statements]
        self.assertEqual(["BEGIN", "DELETE", "INSERT", "COMMIT"], words)
        self.assertEqual([("room", "", '["acme","other"]', "[2]")], list(file.rows()))
        self.assertRaises(JournalError, file.write, b"[[]]", encode([new[:3]]))
        self.assertEqual([("room", "", '["acme","other"]', "[2]")], list(file.rows()))

    async def test_calls_come_one_after_the_other(self) -> None:
        thread = OneThread(reactor, "journal")
        self.addCleanup(thread.stop)
        seen: list[tuple[int, int]] = []

        def work(number: int) -> int:
            seen.append((number, threading.get_ident()))
            return number

        numbers = await gatherResults([thread(work, number) for number in range(100)])
        self.assertEqual(list(range(100)), numbers)
        self.assertEqual(list(range(100)), [number for number, _ in seen])
        self.assertEqual(1, len({ident for _, ident in seen} - {threading.get_ident()}))
        await self.assertFailure(thread(lambda: 1 // 0), ZeroDivisionError)

    async def test_the_reactor_comes_first(self) -> None:
        def niceness() -> int:
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

        thread = OneThread(reactor, "journal")
        self.addCleanup(thread.stop)
        here = niceness()
        self.assertEqual(min(here + 10, 19), await thread(niceness))
        self.assertEqual(here, niceness())

    async def test_a_system_that_does_not_allow_that(self) -> None:
        self.patch(os, "setpriority", _refuse)
        thread = OneThread(reactor, "journal")
        self.addCleanup(thread.stop)
        self.assertEqual(1, await thread(lambda: 1))

    def test_a_thread_that_was_never_needed_stops(self) -> None:
        before = threading.active_count()
        OneThread(reactor, "journal").stop()
        self.assertEqual(before, threading.active_count())


SYNCS: Final = """
import sys
from pathlib import Path
from odingw.state.journal_file import JournalFile
from odingw.state.rows import encode
path, groups = Path(sys.argv[1]), int(sys.argv[2])
file = JournalFile(path, "full")
for group in range(groups):
    for piece in range(40):
        rows = [["room", "", ["acme", f"{group}-{piece}-{n}"], [1]] for n in range(5)]
        file.write(encode(rows), encode([["room", "", ["acme", "none"]]]), piece < 39)
print(len(list(file.rows())), flush=True)
# As kill -9 does, without what closing syncs.
import os
os._exit(0)
"""


class SyncTests(SynchronousTestCase):
    """With ``full``, a group costs one sync, however many pieces it comes in."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def count(self, groups: int) -> int:
        """Return how often a process that writes so many groups has the system sync a file."""
        log = self.folder / f"{groups}.log"
        command = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(log)]
        command += [sys.executable, "-c", SYNCS, str(self.folder / f"{groups}.sqlite"), str(groups)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "ptrace" in done.stderr:
            self.skipTest("strace may not trace here")
        self.assertEqual(f"{200 * groups}\n", done.stdout, done.stderr)
        return len(re.findall(r"\b(?:fsync|fdatasync)\(", log.read_text()))

    def test_one_sync_a_group(self) -> None:
        """As the system sees it."""
        if shutil.which("strace") is None:
            self.skipTest("strace is not installed")
        start = self.count(0)
        self.assertEqual(10, self.count(10) - start)

    def test_one_transaction_a_group(self) -> None:
        """As SQLite sees it, whose manual says that each is one sync."""
        file = ThreadedFile(self.folder / "odingw.sqlite")
        self.addCleanup(file.close)
        rows = [["room", "", ["acme", str(n)], [n]] for n in range(100)]
        for more in (True, True, False):
            file.write(encode(rows), encode([rows[0][:3]]), more)
        words = [statement.split()[0] for statement in file.statements]
        self.assertEqual(["BEGIN", *["DELETE", "INSERT"] * 3, "COMMIT"], words)

    def test_a_group_that_fails_leaves_nothing(self) -> None:
        file = ThreadedFile(self.folder / "odingw.sqlite")
        self.addCleanup(file.close)
        row = ["room", "", ["acme", "room"], [1]]
        file.write(encode([row]), b"[]", True)
        self.assertRaises(JournalError, file.write, b"[[]]", b"[]", True)
        self.assertEqual([], list(file.rows()))
        file.write(encode([row]), b"[]")
        self.assertEqual(1, len(list(file.rows())))


def _refuse(*_: int) -> None:
    raise PermissionError


def _names(count: int) -> list[str]:
    return [f"room-{number}" for number in range(count)]
