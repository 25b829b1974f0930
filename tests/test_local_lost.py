"""The local store when others delete, move, replace or overwrite its file while it is open."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Reason, Refused
from odingw.state.file_place import is_used, move_aside
from odingw.state.journal_file import JournalFile
from odingw.state.local import LocalStore
from tests.grids import Room, admission, ban, report
from tests.local_file import FaultCase, messages
from tests.process import GatewayProcess, customer
from tests.test_local_process import SERVER, STATE

A, B = "a.test:4433", "b.test:4433"
ROOMS = 200


def other_database(path: Path) -> None:
    """Make a database of another program."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()


class LostTests(FaultCase):
    def setUp(self) -> None:
        super().setUp()
        self.wal = Path(f"{self.path}-wal")

    def filled(self) -> LocalStore:
        """Open a store with a record of most kinds."""
        store = self.open()
        grid = store.pool("")
        rooms = [Room(("acme", f"room-{n}"), peers=n) for n in range(ROOMS)]
        self.answer(grid.report(report(A, *rooms), 0))
        grid.report(report(B), 0)
        self.answer(grid.connect(admission("waiting"), 0))
        self.answer(grid.command(ban("room-1", "eve", 600), 0))
        self.answer(grid.drain(B, True))
        return store

    def assert_whole(self, store: LocalStore, *more: str) -> None:
        """Assert that all is known after a crash."""
        self.file._connection.close()
        store = self.open(2)
        grid = store.pool("")
        names = {view.id[1] for view in grid._grid.rooms()}
        self.assertEqual({f"room-{n}" for n in range(ROOMS)} | {"waiting", *more}, names)
        refused = self.assertRaises(Refused, grid.connect, admission("room-1", user="eve"), 2)
        self.assertEqual(Reason.USER_BANNED, refused.reason)
        self.assertEqual([False, True], [view.drained for view in grid.servers()])
        delivery = grid.take(A)
        assert delivery is not None
        self.assertEqual(["RoomBanClient"], [type(task.body).__name__ for task in delivery.tasks])

    def check(self, harm: Callable[[], object], *words: str, moved: int = 1) -> list[Path]:
        """See that harm to an idle store is noticed in a tick, said once and made good."""
        store = self.filled()
        self.clock.advance(1)
        with capturedLogs() as events:
            harm()
            store.tick(1)
            self.clock.advance(0.3)
            said = messages(events).splitlines()
            self.assertEqual(1, len(said), said)
            for word in (*words, "while it was open", "a new one is made"):
                self.assertIn(word, said[0])
            self.assertNotEqual("", store.trouble)
            self.clock.advance(1)
        self.assertEqual("", store.trouble)
        self.assertEqual("the state can be stored again", messages(events).splitlines()[1])
        self.answer(store.pool("").connect(admission("new"), 1))
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)
        aside = [path for path in self.folder.glob("*.broken-*") if path.suffix != ".x"]
        for path in aside:
            self.assertIn(str(path).removesuffix("-wal"), said[0])
        self.assertEqual(moved, len(aside), aside)
        for _ in range(3):
            store.tick(2)
            self.clock.advance(1)
        self.assertEqual(2, len(messages(events).splitlines()))
        self.assert_whole(store, "new")
        return aside

    def test_deleted(self) -> None:
        """Its write-ahead file is left over, and is not taken for the new one's."""
        (aside,) = self.check(self.path.unlink, str(self.path), "was deleted or moved")
        self.assertTrue(aside.name.endswith("-wal"))

    def test_deleted_with_all_beside_it(self) -> None:
        def harm() -> None:
            self.path.unlink()
            self.wal.unlink()

        self.check(harm, "was deleted or moved", moved=0)

    def test_write_ahead_file_deleted(self) -> None:
        self.check(self.wal.unlink, f"{self.wal} was deleted or moved")

    def test_write_ahead_file_replaced(self) -> None:
        def harm() -> None:
            self.wal.unlink()
            self.wal.write_bytes(b"theirs")

        aside = self.check(harm, f"{self.wal} was replaced", moved=2)
        self.assertEqual(b"theirs", sorted(aside)[1].read_bytes())

    def test_replaced_by_what_is_no_database(self) -> None:
        def harm() -> None:
            (self.folder / "other").write_bytes(b"this is no database " * 1000)
            (self.folder / "other").rename(self.path)

        aside = self.check(harm, "was replaced by another file", moved=2)
        self.assertTrue(min(aside).read_bytes().startswith(b"this is no database"))

    def test_replaced_by_a_database_of_another_program(self) -> None:
        def harm() -> None:
            other_database(self.folder / "other")
            (self.folder / "other").rename(self.path)

        aside = self.check(harm, "was replaced by another file", moved=2)
        self.assertIn(b"theirs", min(aside).read_bytes())

    def test_replaced_by_a_folder(self) -> None:
        def harm() -> None:
            self.path.unlink()
            self.path.mkdir()

        self.check(harm, "was replaced by another file", moved=2)

    def test_replaced_by_an_older_copy_of_itself(self) -> None:
        """What was deleted since does not come back: it is not read."""
        copy = self.folder / "copy"
        JournalFile(copy, "normal").close()
        self.check(lambda: copy.rename(self.path), "was replaced by another file", moved=2)

    def test_overwritten(self) -> None:
        """By cp, which leaves the inode."""
        copy = self.folder / "copy"
        JournalFile(copy, "normal").close()
        self.check(lambda: shutil.copyfile(copy, self.path), "was overwritten", moved=2)

    def test_emptied(self) -> None:
        self.check(lambda: os.truncate(self.path, 0), "was overwritten", moved=2)

    def test_write_ahead_file_emptied(self) -> None:
        self.check(lambda: os.truncate(self.wal, 0), f"{self.wal} was overwritten", moved=2)

    def test_noticed_by_the_group_that_comes_first(self) -> None:
        store = self.filled()
        self.clock.advance(1)
        self.path.unlink()
        self.assert_unavailable(lambda: store.pool("").connect(admission("new"), 1))
        self.clock.advance(1)
        self.answer(store.pool("").connect(admission("new"), 1))
        self.assert_whole(store, "new")

    def test_folder_moved_away_and_back(self) -> None:
        """Nothing can be stored meanwhile; then it goes on with the file it had."""
        store = self.filled()
        self.clock.advance(1)
        away = self.folder.with_name(f"{self.folder.name}-away")
        with capturedLogs() as events:
            self.folder.rename(away)
            self.assert_unavailable(lambda: store.pool("").connect(admission("new"), 1))
            self.clock.advance(5)
            self.assertIn("No such file or directory", store.trouble)
            self.assertIn("was deleted or moved while it was open", store.trouble)
            placed = self.answer(store.pool("").connect(admission("room-3"), 1))
            self.assertEqual("existing", placed.how)
            away.rename(self.folder)
            self.clock.advance(1)
        self.assertEqual(2, len(messages(events).splitlines()), messages(events))
        self.assertEqual("", store.trouble)
        self.assertEqual([], self.moved())
        self.answer(store.pool("").connect(admission("late"), 1))
        self.assert_whole(store, "new", "late")

    def test_another_folder_in_its_place(self) -> None:
        store = self.filled()
        self.clock.advance(1)
        away = self.folder.with_name(f"{self.folder.name}-away")
        self.addCleanup(shutil.rmtree, away)
        self.folder.rename(away)
        self.assert_unavailable(lambda: store.pool("").connect(admission("new"), 1))
        self.folder.mkdir()
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual("", store.trouble)
        self.assert_whole(store, "new")

    def test_new_file_that_cannot_be_made_at_first(self) -> None:
        """On a full disk, say; half a file is not moved aside again and again."""
        store = self.filled()
        self.clock.advance(1)
        self.path.unlink()
        self.wal.unlink()
        self.disk_full = True
        self.assert_unavailable(lambda: store.pool("").connect(admission("new"), 1))
        for _ in range(5):
            self.clock.advance(1)
        self.assertIn("was deleted or moved while it was open, and cannot be", store.trouble)
        self.disk_full = False
        for _ in range(3):
            self.clock.advance(1)
        self.assertEqual("", store.trouble)
        self.assertEqual([], self.moved())
        self.assert_whole(store, "new")

    def test_file_of_another_gateway_is_left_alone(self) -> None:
        store = self.filled()
        self.clock.advance(1)
        self.path.unlink()
        self.wal.unlink()
        hold = "import sys; from pathlib import Path; from odingw.state.journal_file import *\n"
        hold += (
            "file = JournalFile(Path(sys.argv[1]), 'normal'); print('open', flush=True); input()"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", hold, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(other.kill)
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        inode = self.path.stat().st_ino
        self.assert_unavailable(lambda: store.pool("").connect(admission("new"), 1))
        for _ in range(3):
            self.clock.advance(1)
        self.assertIn("another process uses what is there now", store.trouble)
        self.assertEqual(inode, self.path.stat().st_ino)
        other.communicate(b"\n")
        other.wait()
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual("", store.trouble)
        self.assert_whole(store, "new")


class PlaceTests(FaultCase):
    def test_names_are_not_taken_twice(self) -> None:
        found = set()
        for _ in range(3):
            self.path.write_bytes(b"x")
            found.add(move_aside(self.path, "broken"))
        self.assertEqual(3, len(found))
        self.assertIsNone(move_aside(self.path, "broken"))

    def test_used_is_what_another_process_has_locked(self) -> None:
        other_database(self.path)
        self.assertFalse(is_used(self.path))
        lock = "import fcntl, sys; file = open(sys.argv[1], 'r+b')\n"
        lock += "fcntl.lockf(file, fcntl.LOCK_SH, 1, 0x40000002); print(1, flush=True); input()"
        other = subprocess.Popen(
            [sys.executable, "-c", lock, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(other.kill)
        assert other.stdout is not None
        other.stdout.readline()
        self.assertTrue(is_used(self.path))
        other.communicate(b"\n")
        self.assertFalse(is_used(self.path))

    def test_locks_of_sqlite_are_kept(self) -> None:
        """The file that is watched stays locked, whatever is looked at meanwhile."""
        file = JournalFile(self.path, "normal")
        self.addCleanup(file.close)
        file.check()
        look = "import sys; from pathlib import Path; from odingw.state.file_place import is_used\n"
        look += "print(is_used(Path(sys.argv[1])))"
        command = [sys.executable, "-c", look, str(self.path)]
        self.assertEqual("True\n", subprocess.check_output(command, text=True))


class ProcessTests(SynchronousTestCase):
    """A real gateway, and what people do to its file."""

    def test_file_deleted_replaced_and_overwritten(self) -> None:
        gateway = GatewayProcess(customer(), STATE).start()
        self.addCleanup(gateway.stop)
        path = gateway.folder / "odingw.sqlite"
        gateway.report(SERVER, *[(f"room-{n}", 1) for n in range(100)])
        self.assertEqual(SERVER, gateway.connect("stored")["result"]["address"])
        self.assertIn("result", gateway.manage("RoomUpdate", room_id="stored", user_data=[1]))
        other = gateway.folder / "other"
        harms: list[tuple[str, Callable[[], object]]] = [
            ("was deleted or moved", path.unlink),
            ("-wal was deleted or moved", Path(f"{path}-wal").unlink),
            ("was replaced by another file", lambda: other.rename(path)),
            ("was overwritten", lambda: path.write_bytes(b"this is no database")),
        ]
        for number, (fate, harm) in enumerate(harms):
            other_database(other)
            gateway._begin = len(gateway._lines)
            harm()
            gateway.wait_for(f"{fate} while it was open")
            gateway.wait_for("the state can be stored again")
            self.assertEqual(SERVER, gateway.connect(f"after-{number}")["result"]["address"])
            other.unlink(missing_ok=True)
        self.assertNotIn("Traceback", gateway.log)
        assert gateway.process is not None
        gateway.process.kill()
        gateway.process.wait()
        gateway.wait_for("<end>")
        gateway.start()
        state = json.loads(gateway.request("GET", "/monitor/state", port=gateway.admin)[2])
        names = {room["id"][1] for room in state["pools"][""]["rooms"]}
        wanted = {f"room-{n}" for n in range(100)} | {f"after-{n}" for n in range(len(harms))}
        self.assertEqual(wanted | {"stored"}, names)
        self.assertEqual(1, len(gateway.report(SERVER)["result"]["tasks"]))
