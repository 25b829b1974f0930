"""The local store on a real file: what it answered for is there when it is opened again."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import ConfigError, Reason, Refused
from odingw.grid.values import GridSettings
from odingw.state.journal_file import MIGRATIONS, JournalFile
from odingw.state.local import LocalStore
from tests.grids import Room, admission, ban, close, report, update

A, B = "a.test:4433", "b.test:4433"


def at_once(call: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Run in this thread."""
    return maybeDeferred(call, *args)


class LocalStoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "odingw.sqlite"
        self.clock = Clock()

    def open(self, now: float = 0.0) -> LocalStore:
        store = LocalStore(
            GridSettings(),
            lambda _: 0,
            lambda: JournalFile(self.path, "normal"),
            at_once,
            self.clock,
        )
        store.pool("")
        store.start(now)
        return store

    def answer(self, eventual: Any) -> Any:
        """Return what a call is answered with once it is stored."""
        if not hasattr(eventual, "__await__"):
            return eventual
        deferred = ensureDeferred(eventual)
        self.clock.advance(0)
        return self.successResultOf(deferred)

    def crash(self, store: LocalStore) -> None:
        """Let go of the file without a word, as the system does with a killed process."""
        file = store._journal._file
        assert file is not None
        file._connection.close()

    def test_everything_answered_is_there_after_a_crash(self) -> None:
        store = self.open()
        grid = store.pool("")
        grid.report(report(A, Room(("acme", "old"), peers=2)), 0)
        grid.report(report(B), 0)
        placed = {n: self.answer(grid.connect(admission(f"r{n}"), 0)).address for n in range(6)}
        self.assertEqual({A, B}, set(placed.values()))
        self.answer(grid.command(update("old", 1), 0))
        self.answer(grid.command(ban("old", "eve", 60), 0))
        self.answer(grid.drain(B, True))
        self.crash(store)
        store = self.open(5.0)
        grid = store.pool("")
        for number, address in placed.items():
            found = self.answer(grid.connect(admission(f"r{number}"), 5))
            self.assertEqual((address, "existing"), (found.address, found.how))
        delivery = grid.take(A)
        assert delivery is not None
        self.assertEqual(
            ["RoomUpdate", "RoomBanClient"], [type(t.body).__name__ for t in delivery.tasks]
        )
        refused = self.assertRaises(Refused, grid.connect, admission("old", user="eve"), 5)
        self.assertEqual(Reason.USER_BANNED, refused.reason)
        self.assertEqual([False, True], [view.drained for view in grid.servers()])
        self.assertEqual([2], [usage.peers for usage in store.usage()])
        self.crash(store)

    def test_a_delivered_task_does_not_come_back(self) -> None:
        store = self.open()
        grid = store.pool("")
        grid.report(report(A, Room(("acme", "room"))), 0)
        self.answer(grid.command(close("room"), 0))
        delivery = grid.take(A)
        assert delivery is not None
        grid.acknowledge(delivery)
        self.clock.advance(1)
        self.crash(store)
        store = self.open(1.0)
        self.assertIsNone(store.pool("").take(A))
        self.crash(store)

    def test_reservations_are_renewed_ended_and_leave_nothing_behind(self) -> None:
        store = self.open()
        grid = store.pool("")
        for second in range(60):
            grid.report(report(A, Room(("acme", "room"))), second)
            self.answer(grid.connect(admission("room", user=f"user-{second % 40}"), second))
            self.answer(grid.connect(admission("room", user="again"), second))
            store.tick(second)
            self.clock.advance(1)
        file = store._journal._file
        assert file is not None
        records = [row for kind, _, _, row in file.rows() if kind == "places"]
        self.assertGreaterEqual(12, len(records))
        users = {view.reservations for view in grid.servers()}
        self.crash(store)
        store = self.open(60)
        grid = store.pool("")
        self.assertEqual(users, {view.reservations for view in grid.servers()})
        self.assertEqual({11}, users)
        self.clock.advance(1)
        file = store._journal._file
        assert file is not None
        # Those that run, and until when others have ended.
        self.assertEqual(2, sum(kind == "places" for kind, _, _, _ in file.rows()))
        store.tick(100)
        self.clock.advance(1)
        self.crash(store)
        store = self.open(101)
        self.assertEqual([0], [view.reservations for view in store.pool("").servers()])
        self.crash(store)

    def reservations(self, store: LocalStore) -> int:
        """Count what is reserved on the one server there is."""
        (server,) = store.pool("").servers()
        return server.reservations

    def test_a_reservation_that_has_ended_does_not_come_back(self) -> None:
        """Nothing else has changed since, and the record with it is still there."""
        store = self.open()
        grid = store.pool("")
        for now in (0, 5, 10, 15):
            grid.report(report(A, Room(("acme", "room"))), now)
            if now == 0:
                self.answer(grid.connect(admission("room"), now))
            store.tick(now)
            self.clock.advance(1)
        self.assertEqual(0, self.reservations(store))
        self.crash(store)
        self.assertEqual(0, self.reservations(store := self.open(16)))
        self.crash(store)

    def test_reservations_when_the_clock_was_set_back_over_a_restart(self) -> None:
        """What had ended by the clock of before says nothing of what begins after it."""
        store = self.open(1_000)
        grid = store.pool("")
        grid.report(report(A, Room(("acme", "room"))), 1_000)
        self.answer(grid.connect(admission("room"), 1_000))
        grid.report(report(A, Room(("acme", "room"))), 1_010)
        store.tick(1_011)
        self.clock.advance(1)
        self.crash(store)
        store = self.open(500)
        self.answer(store.pool("").connect(admission("room"), 500))
        self.clock.advance(1)
        self.crash(store)
        self.assertEqual(1, self.reservations(store := self.open(501)))
        self.crash(store)

    def test_a_repeated_report_writes_nothing(self) -> None:
        store = self.open()
        grid = store.pool("")
        grid.report(report(A, Room(("acme", "room"))), 0)
        self.clock.advance(1)
        file = store._journal._file
        assert file is not None
        before = file._connection.total_changes
        grid.report(report(A, Room(("acme", "room"))), 5)
        self.clock.advance(1)
        self.assertEqual(before, file._connection.total_changes)
        self.crash(store)

    def test_a_second_process_is_refused(self) -> None:
        store = self.open()
        error = self.assertRaises(ConfigError, JournalFile, self.path, "normal")
        self.assertIn("another process uses it", str(error))
        self.crash(store)

    def test_a_damaged_file_is_moved_aside(self) -> None:
        self.path.write_bytes(b"this is no database " * 100)
        store = self.open()
        self.assertEqual(1, len(list(self.folder.glob("*.broken-*"))))
        self.crash(store)

    def test_a_database_of_another_program_is_left_alone(self) -> None:
        other = sqlite3.connect(self.path)
        other.execute("CREATE TABLE theirs (x)")
        other.commit()
        other.close()
        error = self.assertRaises(ConfigError, JournalFile, self.path, "normal")
        self.assertIn("another program", str(error))

    def test_a_newer_schema_is_refused(self) -> None:
        JournalFile(self.path, "normal", (*MIGRATIONS, "SELECT 1")).close()
        error = self.assertRaises(ConfigError, JournalFile, self.path, "normal")
        self.assertIn("newer version", str(error))
