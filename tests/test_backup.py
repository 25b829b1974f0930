"""Backups of the local store: made while it works, put back, and whole or not there."""

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import ConfigError
from odingw.state import backup
from odingw.state.journal_file import MIGRATIONS, JournalFile
from odingw.state.journal_request import PAGES, StepByStep, part, request
from odingw.state.local import LocalStore
from odingw.state.rows import encode
from tests.grids import Room, admission, ban, report
from tests.local_file import FaultCase
from tests.process import BIN, START_TIME, GatewayProcess, customer
from tests.test_local_lost import other_database
from tests.test_local_process import SERVER, STATE

A = "a.test:4433"
ROOMS = 10_000


def rows(path: Path) -> set[tuple[str, ...]]:
    """Return all records of a journal that nobody uses."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        return set(connection.execute("SELECT kind, pool, key, row FROM record"))


class StepTests(FaultCase):
    """The copying itself."""

    def setUp(self) -> None:
        super().setUp()
        self.journal = JournalFile(self.path, "normal")
        self.addCleanup(self.journal.close)
        self.copy = self.folder / "copy.sqlite"
        for group in range(40):
            self.write(*range(group * 100, group * 100 + 100))

    def write(self, *numbers: int, value: int = 0) -> None:
        text = "x" * 300
        records = [["room", "", ["acme", f"{n}"], [value, text]] for n in numbers]
        self.journal.write(encode(records), b"[]")

    def test_what_is_written_in_between_is_in_it(self) -> None:
        copying = StepByStep(self.journal._connection, self.copy)
        steps = 1
        while not copying.step():
            # Pages that are copied already, and others.
            self.write(steps, 3999 - steps, 10_000 + steps, value=steps)
            steps += 1
        self.assertGreater(steps, 3)
        found = rows(self.copy)
        self.assertEqual(set(self.journal.rows()), found)
        self.assertEqual(4000 + steps - 1, len(found))
        self.assertEqual([self.copy.name], [p.name for p in self.folder.glob("copy*")])
        self.assertEqual(len(found), backup.check(self.copy))

    def test_abandoned(self) -> None:
        before = threading.active_count()
        for steps in (0, 1, 2):
            copying = StepByStep(self.journal._connection, self.copy)
            for _ in range(steps):
                self.assertFalse(copying.step())
            copying.abandon()
            self.write(1)
        self.assertEqual(before, threading.active_count())

    def test_a_step_is_small(self) -> None:
        self.assertLessEqual(PAGES * 4096, 500_000)


class StoreBackupTests(FaultCase):
    """What a gateway does when somebody asks."""

    def filled(self) -> LocalStore:
        store = self.open()
        rooms = [Room(("acme", f"room-{n}"), peers=n) for n in range(ROOMS)]
        self.answer(store.pool("").report(report(A, *rooms), 0))
        self.answer(store.pool("").command(ban("room-1", "eve", 600), 0))
        self.clock.advance(1)
        return store

    def ask(self, store: LocalStore) -> Path:
        wish = request(self.path)
        wish.touch(0o600)
        store.tick(1)
        self.clock.advance(0.3)
        return wish

    def test_made_between_groups(self) -> None:
        store = self.filled()
        wish = self.ask(store)
        answered = 0
        while not wish.stat().st_size:
            self.answer(store.pool("").connect(admission(f"new-{answered}"), 1))
            answered += 1
            self.clock.advance(0.001)
        self.assertGreater(answered, 1)
        self.assertEqual(0o600, wish.stat().st_mode & 0o777)
        self.assertGreater(backup.check(wish), 2 * ROOMS)
        self.assertFalse(part(self.path).exists())
        wish.rename(self.path.with_name("other.sqlite"))
        self.file.close()
        self.path = self.folder / "other.sqlite"
        names = {view.id[1] for view in self.open(2).pool("")._grid.rooms()}
        self.assertLessEqual({f"room-{n}" for n in range(ROOMS)}, names)
        # The last ones may have come when the copy was complete.
        self.assertLessEqual({f"new-{n}" for n in range(answered - 1)}, names)

    def test_not_wanted_any_more(self) -> None:
        store = self.filled()
        wish = self.ask(store)
        self.assertTrue(part(self.path).exists())
        wish.unlink()
        self.clock.advance(0.1)
        self.assertEqual((False, False), (part(self.path).exists(), wish.exists()))
        self.answer(store.pool("").connect(admission("new"), 1))

    def test_stopped_meanwhile(self) -> None:
        store = self.filled()
        self.ask(store)
        self.successResultOf(store.stop())
        self.clock.advance(1)
        self.assertFalse(part(self.path).exists())
        self.assertFalse(Path(f"{self.path}-wal").exists())

    def test_file_lost_meanwhile(self) -> None:
        """The copy is of what is no more; a new one is made of the new file."""
        store = self.filled()
        wish = self.ask(store)
        self.path.unlink()
        self.assert_unavailable(lambda: store.pool("").connect(admission("new"), 1))
        for _ in range(20):
            store.tick(2)
            self.clock.advance(0.3)
        self.assertGreater(backup.check(wish), 2 * ROOMS)

    def test_no_room_for_it(self) -> None:
        store = self.filled()
        wish = self.ask(store)
        self.disk_full = True
        for _ in range(20):
            self.clock.advance(0.1)
        self.disk_full = False
        self.assertEqual("disk I/O error", wish.read_text())
        self.assertEqual(("", False), (store.trouble, part(self.path).exists()))


class FileTests(SynchronousTestCase):
    """Backing up and restoring where no gateway runs."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "odingw.sqlite"
        self.file = self.folder / "monday.sqlite"

    def make(self, path: Path, *names: str, killed: bool = False) -> None:
        """Make a journal with rooms; of a process that was killed, or that ended well."""
        journal = JournalFile(path, "normal")
        records = [["room", "", ["acme", name], [1]] for name in names]
        journal.write(encode(records), b"[]")
        if killed:
            for end in ("", "-wal"):
                shutil.copyfile(f"{path}{end}", f"{path}.copy{end}")
        journal.close()
        if killed:
            for end in ("", "-wal"):
                Path(f"{path}.copy{end}").rename(f"{path}{end}")

    def refused(self, *words: str, restore: bool = False) -> None:
        """See that it cannot be done, for a reason, and that nothing has changed."""
        before = self.contents()
        work = backup.restore if restore else backup.back_up
        error = self.assertRaises(ConfigError, work, self.path, self.file)
        for word in words:
            self.assertIn(word, str(error))
        self.assertEqual(1, len(str(error).splitlines()))
        self.assertEqual(before, self.contents())

    def contents(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in self.folder.iterdir() if p.is_file()}

    def test_of_a_gateway_that_has_ended(self) -> None:
        for killed in (False, True):
            self.make(self.path, "a", "b", killed=killed)
            self.assertEqual(2, backup.back_up(self.path, self.file))
            self.assertEqual(0o600, self.file.stat().st_mode & 0o777)
            self.assertEqual(
                ["a", "b"], [json.loads(key)[1] for *_, key, _ in sorted(rows(self.file))]
            )
            self.file.unlink()

    def test_backups_are_not_replaced(self) -> None:
        self.make(self.path, "a")
        self.file.write_bytes(b"mine")
        self.refused("the file exists")

    def test_nothing_to_back_up(self) -> None:
        self.refused(str(self.path), "no such file")

    def test_a_folder_that_is_not_there(self) -> None:
        self.make(self.path, "a")
        self.file = self.folder / "none" / "monday.sqlite"
        self.refused("No such file or directory")

    def test_a_journal_of_another_program(self) -> None:
        other_database(self.path)
        self.refused("no backup of odingw")
        self.path.write_bytes(b"this is no database")
        self.refused("not a database")

    def test_restored(self) -> None:
        self.make(self.file, "old")
        self.assertEqual((1, None), backup.restore(self.path, self.file))
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)
        self.path.unlink()
        self.make(self.path, "new", killed=True)
        before = {p.name: p.read_bytes() for p in self.folder.glob("odingw*")}
        count, moved = backup.restore(self.path, self.file)
        assert moved is not None
        self.assertTrue(moved.name.startswith("odingw.sqlite.replaced-"), moved)
        for name, data in before.items():
            end = name.removeprefix("odingw.sqlite")
            self.assertEqual(data, Path(f"{moved}{end}").read_bytes())
        self.assertFalse(Path(f"{self.path}-wal").exists())
        self.assertEqual(rows(self.file), rows(self.path))
        self.assertEqual(1, count)
        journal = JournalFile(self.path, "normal")
        self.assertEqual(1, len(list(journal.rows())))
        journal.close()

    def test_an_older_backup_is_migrated_by_the_start(self) -> None:
        JournalFile(self.file, "normal", MIGRATIONS[:1]).close()
        self.assertEqual((0, None), backup.restore(self.path, self.file))
        JournalFile(self.path, "normal").close()

    def test_what_is_no_backup(self) -> None:
        self.make(self.path, "kept")
        self.refused("No such file", restore=True)
        self.file.write_bytes(b"")
        self.refused("no backup of odingw", restore=True)
        self.file.write_bytes(b"[gateway]\n" * 100)
        self.refused("no backup of odingw", restore=True)
        self.file.unlink()
        other_database(self.file)
        self.refused("no backup of odingw", restore=True)
        self.file.unlink()
        self.file.mkdir()
        self.refused("Is a directory", restore=True)

    def test_a_backup_of_a_newer_version(self) -> None:
        JournalFile(self.file, "normal", (*MIGRATIONS, "SELECT 1")).close()
        self.refused("newer version", restore=True)

    def test_a_damaged_backup(self) -> None:
        self.make(self.file, *(f"room-{n}" for n in range(2000)))
        data = bytearray(self.file.read_bytes())
        data[8192 : len(data) // 2] = bytes(len(data) // 2 - 8192)
        self.file.write_bytes(data)
        self.refused(str(self.file), restore=True)

    def test_a_copy_of_a_file_in_use(self) -> None:
        """Its write-ahead file holds the rest."""
        self.make(self.file, "a", killed=True)
        self.refused("monday.sqlite-wal", restore=True)


class ProcessTests(SynchronousTestCase):
    """The command beside real gateways."""

    def setUp(self) -> None:
        self.gateway = GatewayProcess(customer(), STATE)
        self.addCleanup(self.gateway.stop)
        self.journal = self.gateway.folder / "odingw.sqlite"
        folder = tempfile.TemporaryDirectory(prefix="odingw-test-")
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "backup.sqlite"

    def run_command(self, *words: str | Path, status: int = 0) -> Any:
        command = [BIN / "odingw", *words, "--config", self.gateway.config, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(status, done.returncode, done.stderr)
        return json.loads(done.stdout) if not status else done.stderr

    def end(self) -> None:
        process = self.gateway.process
        assert process is not None
        process.terminate()
        self.assertEqual(0, process.wait(START_TIME))
        self.gateway.wait_for("<end>")

    def test_backup_under_load_and_restore(self) -> None:
        gateway = self.gateway.start()
        gateway.report(SERVER, *[(f"room-{n}", 1) for n in range(2000)])
        self.assertIn("result", gateway.manage("RoomUpdate", room_id="room-1", user_data=[1]))
        answered: list[str] = []
        over = threading.Event()

        def load() -> None:
            while not over.is_set():
                name = f"new-{len(answered)}"
                if gateway.connect(name).get("result"):
                    answered.append(name)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            while not answered:
                time.sleep(0.01)
            before = set(answered)
            found = self.run_command("backup", self.file)
        finally:
            over.set()
            thread.join()
        self.assertEqual({"file": str(self.file), "records": len(rows(self.file))}, found)
        self.assertEqual(0o600, self.file.stat().st_mode & 0o777)
        names = {json.loads(key)[1] for kind, _, key, _ in rows(self.file) if kind == "base"}
        self.assertLessEqual(before | {f"room-{n}" for n in range(2000)}, names)
        self.assertIn("a backup of the journal was made", gateway.log)
        kinds = {"odingw.sqlite", "odingw.sqlite-wal"}
        self.assertEqual(kinds, {p.name for p in gateway.folder.glob("odingw.sqlite*")})
        self.assertIn("a gateway uses it", self.run_command("restore", self.file, status=1))
        self.assertIn("the file exists", self.run_command("backup", self.file, status=1))

        gateway.connect("after")
        self.end()
        found = self.run_command("restore", self.file)
        self.assertTrue(Path(found["before"]).exists())
        gateway.start()
        self.assertEqual(SERVER, gateway.connect("room-1")["result"]["address"])
        (task,) = gateway.report(SERVER)["result"]["tasks"]
        self.assertEqual("RoomUpdate", task["task"])
        state = json.loads(gateway.request("GET", "/monitor/state", port=gateway.admin)[2])
        known = {room["id"][1] for room in state["pools"][""]["rooms"]}
        self.assertNotIn("after", known)
        self.assertNotIn("Traceback", gateway.log)

    def test_a_gateway_that_hangs(self) -> None:
        gateway = self.gateway.start()
        assert gateway.process is not None
        os.kill(gateway.process.pid, 19)
        try:
            said = self.run_command("backup", self.file, status=1)
        finally:
            os.kill(gateway.process.pid, 18)
        self.assertIn("does not answer", said)
        self.assertFalse(self.file.exists())
        self.assertFalse(request(self.journal).exists())

    def test_beside_another_backup(self) -> None:
        """One at a time, and what a killed one has left is no hindrance."""
        import fcntl

        gateway = self.gateway.start()
        request(self.journal).write_bytes(b"left over")
        folder = os.open(gateway.folder, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        self.assertIn("another backup", self.run_command("backup", self.file, status=1))
        os.close(folder)
        self.run_command("backup", self.file)
