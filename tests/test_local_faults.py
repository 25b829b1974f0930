"""The local store when its file or its disk fails: what is refused, what goes on, what comes back.

The files are real. A full disk is SQLite's own refusal to let the file grow, or the system's.
"""

from pathlib import Path
from random import Random
from typing import Any, Final

from twisted.logger import capturedLogs

from odingw.errors import Reason, Refused
from odingw.state.journal_file import JournalFile
from odingw.state.local import LocalStore
from odingw.state.rows import encode
from tests.grids import Room, admission, ban, close, report, update
from tests.local_file import FaultCase, WatchedFile, messages

A, B = "a.test:4433", "b.test:4433"
NO_LIMIT: Final = 2**30
PAGE: Final = 4096


class FullDiskTests(FaultCase):
    def test_full_file(self) -> None:
        """SQLITE_FULL: what must be stored is refused, the rest is served, and nothing is lost."""
        store = self.open()
        grid = store.pool("")
        grid.report(report(A, Room(("acme", "reported"), peers=2)), 0)
        self.answer(grid.connect(admission("stored"), 0))
        self.file.limit()
        # Too long for the pages that there are.
        self.assert_unavailable(lambda: grid.connect(admission("large", user="u" * 3 * PAGE), 0))
        self.assertIn("full", store.trouble)
        self.assert_unavailable(lambda: grid.connect(admission("new"), 1))
        self.assert_unavailable(lambda: grid.connect(admission("large"), 1))
        self.assert_unavailable(lambda: grid.command(close("stored"), 1))
        self.assert_unavailable(lambda: grid.command(ban("stored", "eve", 60), 1))
        for room in ("stored", "reported"):
            placed = self.answer(grid.connect(admission(room), 1))
            self.assertEqual((A, "existing"), (placed.address, placed.how))
        rooms = [Room(("acme", name), peers=3) for name in ("reported", "stored", "came")]
        self.assertEqual(((), ()), _parts(grid.report(report(A, *rooms), 2)))
        self.clock.advance(5)
        self.assertIn("full", store.trouble)

        self.file.limit(NO_LIMIT)
        self.clock.advance(1)
        self.assertEqual("", store.trouble)
        placed = {n: self.answer(grid.connect(admission(n), 3)).how for n in ("large", "new")}
        self.assertEqual({"large": "existing", "new": "new"}, placed)
        self.answer(grid.command(update("stored", 1), 3))
        store = self.reopen(4)
        grid = store.pool("")
        peers = {view.id[1]: view.peers for view in grid._grid.rooms()}
        self.assertEqual({"reported": 3, "stored": 3, "came": 3, "large": 0, "new": 0}, peers)
        delivery = grid.take(A)
        assert delivery is not None
        self.assertEqual(["RoomUpdate"], [type(task.body).__name__ for task in delivery.tasks])

    def test_trouble_is_said_once_and_so_is_its_end(self) -> None:
        store = self.open()
        grid = store.pool("")
        grid.report(report(A), 0)
        self.clock.advance(1)
        self.disk_full = True
        with capturedLogs() as events:
            self.assert_unavailable(lambda: grid.connect(admission("room"), 0))
            for _ in range(5):
                self.clock.advance(1)
        self.assertEqual(1, messages(events).count("the state cannot be stored"))
        self.disk_full = False
        with capturedLogs() as events:
            self.clock.advance(1)
        self.assertEqual("the state can be stored again", messages(events))

    def test_groups_that_fail_in_part_are_written_again_as_a_whole(self) -> None:
        """The first slices of a large report go to the file, and a later one finds no room."""
        store = self.open()
        grid = store.pool("")
        grid.report(report(A), 0)
        self.clock.advance(1)
        self.file.limit(60)
        rooms = [Room(("acme", f"room-{n}"), peers=n) for n in range(3000)]
        self.answer(grid.report(report(A, *rooms), 0))
        self.clock.advance(1)
        self.assertIn("full", store.trouble)
        self.assertGreater(len(self.file.sizes), 10)
        self.assertEqual(1, self.count_rows())
        self.file.limit(NO_LIMIT)
        self.clock.advance(1)
        store = self.reopen(2)
        peers = {view.id[1]: view.peers for view in store.pool("")._grid.rooms()}
        self.assertEqual({room.id[1]: room.peers for room in rooms}, peers)

    def count_rows(self) -> int:
        """Return how many records are stored."""
        return len(list(self.file.rows()))


def _parts(reported: Any) -> tuple[Any, Any]:
    return reported.closes, reported.events


class TornWriteTests(FaultCase):
    def test_whole_groups_survive_whatever_is_cut_off(self) -> None:
        file = WatchedFile(self.path)
        self.addCleanup(file.close)
        wal = Path(f"{self.path}-wal")
        ends = [wal.stat().st_size]
        for group in range(8):
            rows = [["room", "", ["acme", f"{group}-{n}"], [group, n]] for n in range(100)]
            file.write(encode(rows), b"[]")
            ends.append(wal.stat().st_size)
        copies = self.folder / "copy.sqlite", self.folder / "copy.sqlite-wal"
        data, log = self.path.read_bytes(), wal.read_bytes()
        for groups, end in enumerate(ends):
            after = ends[groups + 1] if groups + 1 < len(ends) else end + 1
            for cut in {end, end + 1, end + 24, (end + after) // 2, after - 1}:
                if not end <= cut < after:
                    continue
                copies[0].write_bytes(data)
                copies[1].write_bytes(log[:cut])
                copy = JournalFile(copies[0], "normal")
                found = {key for _, _, key, _ in copy.rows()}
                copy.close()
                self.assertIsNone(copy.moved_to)
                known = {f'["acme","{g}-{n}"]' for g in range(groups) for n in range(100)}
                self.assertEqual(known, found, f"{cut} of {ends}")

    def test_log_of_a_file_that_was_never_finished(self) -> None:
        """Cut off before the schema was there."""
        file = WatchedFile(self.path)
        data, log = self.path.read_bytes(), Path(f"{self.path}-wal").read_bytes()
        file.close()
        for cut in (0, 10, 32, len(log) // 2, len(log) - 1):
            self.path.write_bytes(data)
            Path(f"{self.path}-wal").write_bytes(log[:cut])
            again = JournalFile(self.path, "normal")
            self.assertEqual(([], None), (list(again.rows()), again.moved_to))
            again.close()


class DamageTests(FaultCase):
    def test_damage_while_closed(self) -> None:
        store = self.open()
        rooms = [Room(("acme", f"room-{n}")) for n in range(2000)]
        self.answer(store.pool("").report(report(A, *rooms), 0))
        self.clock.advance(1)
        self.file.close()
        damaged = bytearray(self.path.read_bytes())
        pages = len(damaged) // PAGE
        self.assertGreater(pages, 20)
        first, last = pages // 3 * PAGE, pages // 2 * PAGE
        damaged[first:last] = Random(1).randbytes(last - first)  # noqa: S311  -- noise that is the same each time
        self.path.write_bytes(damaged)
        with capturedLogs() as events:
            store = self.open(1)
        (aside,) = self.moved()
        self.assertEqual(bytes(damaged), aside.read_bytes())
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)
        self.assertIn(f"the journal was damaged; it is now {aside}", messages(events))
        grid = store.pool("")
        self.assertEqual(([], []), (list(grid.servers()), list(grid._grid.rooms())))
        grid.report(report(B), 1)
        self.assertEqual(B, self.answer(grid.connect(admission("room-1"), 1)).address)
        store = self.reopen(2)
        self.assertEqual([B], [view.address for view in store.pool("").servers()])
        self.assertEqual([aside], self.moved())

    def test_each_damaged_file_is_kept(self) -> None:
        for count in (1, 2, 3):
            self.path.write_bytes(b"this is no database " * 100)
            self.open()
            self.file.close()
            self.assertEqual(count, len(self.moved()))

    def fill(self, store: LocalStore) -> None:
        """Store a record of each kind."""
        grid = store.pool("")
        rooms = [Room(("acme", f"room-{n}"), peers=n) for n in range(50)]
        self.answer(grid.report(report(A, *rooms), 0))
        grid.report(report(B), 0)
        self.answer(grid.connect(admission("waiting"), 0))
        self.answer(grid.command(ban("room-1", "eve", 600), 0))
        self.answer(grid.drain(B, True))

    def assert_filled(self, store: LocalStore, *more: str) -> None:
        """Assert that all that ``fill`` stored is known."""
        grid = store.pool("")
        names = {view.id[1] for view in grid._grid.rooms()}
        self.assertEqual({f"room-{n}" for n in range(50)} | {"waiting", *more}, names)
        refused = self.assertRaises(Refused, grid.connect, admission("room-1", user="eve"), 2)
        self.assertEqual(Reason.USER_BANNED, refused.reason)
        self.assertEqual([False, True], [view.drained for view in grid.servers()])
        delivery = grid.take(A)
        assert delivery is not None
        self.assertEqual(["RoomBanClient"], [type(task.body).__name__ for task in delivery.tasks])

    def test_damage_while_running(self) -> None:
        """The new file holds all that is known, what was being written included."""
        store = self.open()
        self.fill(store)
        self.file.broken = True
        with capturedLogs() as events:
            self.assert_unavailable(lambda: store.pool("").connect(admission("new"), 1))
        self.assertEqual(1, len(self.moved()))
        self.assertIn(f"the journal was damaged; it is now {self.moved()[0]}", messages(events))
        self.assertNotEqual("", store.trouble)
        self.clock.advance(1)
        self.assertEqual("", store.trouble)
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)
        self.assert_filled(self.reopen(2), "new")

    def test_damage_while_running_on_a_full_disk(self) -> None:
        """The new file cannot be made at first; it is when there is room again."""
        store = self.open()
        self.fill(store)
        self.file.broken = True
        self.disk_full = True
        self.assert_unavailable(lambda: store.pool("").connect(admission("new"), 1))
        self.clock.advance(1)
        self.clock.advance(1)
        self.disk_full = False
        self.assertNotEqual("", store.trouble)
        for _ in range(3):
            self.clock.advance(1)
        self.assertEqual("", store.trouble)
        self.assert_filled(self.reopen(2), "new")
