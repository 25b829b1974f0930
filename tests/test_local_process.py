"""The real process on a file that cannot be used, or no longer be written."""

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from tests import forks
from tests.process import BIN, CONSENT, MASTER_KEY, START_TIME, GatewayProcess, customer, free_port

SERVER: Final = "sfu.test:4433"
STATE: Final = (
    '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
    'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[state]\nurl = "sqlite:odingw.sqlite"\n'
)

REMEDY: Final = 'name a file that odingw can read and write, or "memory:" to keep nothing'


def bound_by_modes() -> list[str]:
    """Return the words before a command that has it obey files' modes, even for root."""
    if os.geteuid():
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


class RefusedStartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.config = self.folder / "odingw.toml"
        self.guarded = False

    def run_gateway(self, path: str | Path, *options: str) -> forks.Done:
        """Run a gateway on a state file to its end."""
        self.config.write_text(
            f'[listen]\npublic = ["tcp:{free_port()}:interface=127.0.0.1"]\n'
            f'admin = ["tcp:{free_port()}:interface=127.0.0.1"]\n[state]\n'
            f'url = "sqlite:{path}"\n[gateway]\nmaster_key = "{MASTER_KEY}"\n{CONSENT}{customer()}'
        )
        command = ["-n", "--pidfile=", "odingw", "--config", str(self.config), *options]
        if not self.guarded:
            return forks.run(command, self.folder)
        return subprocess.run(
            [*bound_by_modes(), BIN / "twistd", *command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=START_TIME,
            check=False,
        )

    def assert_refused(self, path: str | Path, *words: str) -> str:
        """Assert that the start ends in a line with the path and these words; return the line."""
        done = self.run_gateway(path)
        self.assertEqual(1, done.returncode, done.stdout)
        said = done.stdout + done.stderr
        self.assertNotIn("Traceback", said)
        self.assertNotIn("has started", said)
        lines = [line for line in said.splitlines() if "state.url" in line]
        self.assertTrue(lines, said)
        for word in (str(self.folder / path), *words):
            self.assertIn(word, lines[0])
        return lines[0]

    def assert_checked(self, path: str | Path, *words: str) -> None:
        """Assert that ``--check`` says so too, in one line."""
        done = self.run_gateway(path, "--check")
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        lines = done.stderr.splitlines()
        self.assertEqual(1, len(lines), done.stderr)
        for word in ("state.url", str(self.folder / path), *words):
            self.assertIn(word, lines[0])

    def make(self, path: str, mode: int) -> Path:
        """Make an empty file of a mode, in a folder of that mode if the path names one."""
        self.guarded = True
        file = self.folder / path
        if file.parent == self.folder:
            file.touch()
            file.chmod(mode)
        else:
            file.parent.mkdir()
            file.touch()
            file.parent.chmod(mode)
            self.addCleanup(file.parent.chmod, 0o700)
        return file

    def test_missing_folder(self) -> None:
        self.assert_refused("none/odingw.sqlite", "No such file or directory", REMEDY)
        self.assert_checked("none/odingw.sqlite", "No such file or directory", REMEDY)
        self.assertEqual([self.config], list(self.folder.iterdir()))

    def test_folder_in_place_of_the_file(self) -> None:
        (self.folder / "state").mkdir()
        self.assert_refused("state", "Is a directory", REMEDY)
        self.assert_checked("state", "it is no file", REMEDY)
        self.assertEqual([], list((self.folder / "state").iterdir()))

    def test_path_that_cannot_be_made(self) -> None:
        self.assert_refused("/proc/odingw.sqlite", REMEDY)

    def test_file_that_may_not_be_written(self) -> None:
        self.make("odingw.sqlite", 0o400)
        self.assert_refused("odingw.sqlite", "Permission denied", REMEDY)
        self.assert_checked("odingw.sqlite", "Permission denied", REMEDY)

    def test_folder_that_may_not_be_written(self) -> None:
        self.make("state/other", 0o500)
        self.assert_refused("state/odingw.sqlite", "Permission denied", REMEDY)
        self.assert_checked("state/odingw.sqlite", "Permission denied", REMEDY)

    def test_file_in_a_folder_that_may_not_be_written(self) -> None:
        """SQLite must be able to make a second file beside it."""
        self.make("state/odingw.sqlite", 0o500)
        self.assert_refused("state/odingw.sqlite", REMEDY)
        self.assert_checked("state/odingw.sqlite", REMEDY)

    def test_folder_that_may_not_be_entered(self) -> None:
        self.make("state/odingw.sqlite", 0o600)
        self.assert_refused("state/odingw.sqlite", "Permission denied", REMEDY)
        self.assert_checked("state/odingw.sqlite", "Permission denied", REMEDY)

    def test_name_that_is_too_long(self) -> None:
        self.assert_refused("x" * 300, "File name too long", REMEDY)
        self.assert_checked("x" * 300, "File name too long", REMEDY)

    def test_file_that_another_process_uses(self) -> None:
        # However long the other one's start takes, the server counts as live.
        first = GatewayProcess("disable_timeout = 300\n" + customer(), STATE).start()
        self.addCleanup(first.stop)
        first.report(SERVER)
        self.assert_refused(
            first.folder / "odingw.sqlite",
            "another process uses it",
            "give each gateway a file of its own, or let them share a Redis",
        )
        # On a busy machine the other one took longer than a server may be silent.
        first.report(SERVER)
        self.assertEqual(SERVER, first.connect("room")["result"]["address"])
        # The file is still the first one's.
        self.assert_refused(first.folder / "odingw.sqlite", "another process uses it")

    def test_file_of_another_program(self) -> None:
        file = self.make("odingw.sqlite", 0o600)
        file.write_bytes(_other_database())
        self.assert_refused("odingw.sqlite", "another program", "name another file")
        self.assertEqual(_other_database(), file.read_bytes())

    def test_said_once(self) -> None:
        done = self.run_gateway("none/odingw.sqlite")
        said = [line for line in (done.stdout + done.stderr).splitlines() if "state.url" in line]
        self.assertEqual(1, len(said), done.stdout)


def _other_database() -> bytes:
    """Return a database with an application id that is not odingw's."""
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA application_id = 7")
    connection.execute("CREATE TABLE theirs (x)")
    data: bytes = connection.serialize()
    connection.close()
    return data


class FaultTests(SynchronousTestCase):
    def start(self, gateway: GatewayProcess | None = None) -> GatewayProcess:
        """Start a gateway on a file; one that was killed again."""
        if gateway is None:
            gateway = GatewayProcess(customer(), STATE)
            self.addCleanup(gateway.stop)
        return gateway.start()

    def kill(self, gateway: GatewayProcess) -> None:
        """End a gateway without a word."""
        assert gateway.process is not None
        gateway.process.kill()
        gateway.process.wait()
        gateway.wait_for("<end>")
        gateway._lines.clear()

    def ready(self, gateway: GatewayProcess) -> int:
        """Return the status of ``/readyz``."""
        return gateway.request("GET", "/readyz", port=gateway.admin)[0]

    def wait_until_ready(self, gateway: GatewayProcess) -> None:
        """Wait until ``/readyz`` says 200."""
        end = time.monotonic() + START_TIME
        while self.ready(gateway) != 200:
            self.assertLess(time.monotonic(), end, gateway.log)
            time.sleep(0.05)

    def limit(self, gateway: GatewayProcess, size: int) -> None:
        """Let no file of the process grow beyond a size."""
        assert gateway.process is not None
        hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def assert_unavailable(self, answer: Any) -> None:
        """Assert that an answer says to come again later."""
        data = answer["error"]["data"]
        self.assertEqual("store_unavailable", data["reason"])
        self.assertGreater(data["retry_after"], 0)

    def test_disk_fills_up_and_is_cleared(self) -> None:
        gateway = self.start()
        gateway.report(SERVER, ("reported", 2))
        self.assertEqual(SERVER, gateway.connect("stored")["result"]["address"])
        self.assertEqual(200, self.ready(gateway))

        self.limit(gateway, 16)
        # The first of these is under way when the disk is found full.
        self.assert_unavailable(gateway.manage("RoomUpdate", room_id="stored", user_data=[1]))
        self.assert_unavailable(gateway.connect("new"))
        self.assert_unavailable(gateway.manage("RoomClose", room_id="stored"))
        self.assertEqual(503, self.ready(gateway))
        self.assertEqual(200, gateway.request("GET", "/healthz", port=gateway.admin)[0])
        for room in ("stored", "reported"):
            self.assertEqual(SERVER, gateway.connect(room)["result"]["address"])
        self.assertIn("result", gateway.report(SERVER, ("reported", 3), ("came", 1)))
        self.assertIn("the state cannot be stored", gateway.log)
        self.assertEqual(503, self.ready(gateway))

        self.limit(gateway, resource.RLIM_INFINITY)
        self.wait_until_ready(gateway)
        gateway.wait_for("the state can be stored again")
        self.assertNotIn("Traceback", gateway.log)
        self.assertEqual(SERVER, gateway.connect("new")["result"]["address"])
        self.kill(gateway)
        self.start(gateway)
        state = json.loads(gateway.request("GET", "/monitor/state", port=gateway.admin)[2])
        peers = {room["id"][1]: room["peers"] for room in state["pools"][""]["rooms"]}
        self.assertEqual({"reported": 3, "came": 1, "stored": 0, "new": 0}, peers)

    def test_disk_is_full_at_the_end(self) -> None:
        """It ends all the same, and what was stored before is there."""
        gateway = self.start()
        gateway.report(SERVER)
        self.assertEqual(SERVER, gateway.connect("stored")["result"]["address"])
        self.limit(gateway, 16)
        self.assert_unavailable(gateway.connect("new"))
        assert gateway.process is not None
        gateway.process.terminate()
        self.assertEqual(0, gateway.process.wait(START_TIME), gateway.log)
        gateway.wait_for("<end>")
        self.assertNotIn("Traceback", gateway.log)
        gateway._lines.clear()
        self.start(gateway)
        self.assertEqual(SERVER, gateway.connect("stored")["result"]["address"])

    def test_damaged_while_it_was_down(self) -> None:
        gateway = self.start()
        gateway.report(SERVER, *[(f"room-{number}", 1) for number in range(500)])
        self.assertEqual(SERVER, gateway.connect("stored")["result"]["address"])
        assert gateway.process is not None
        gateway.process.terminate()
        gateway.process.wait(START_TIME)
        gateway.wait_for("<end>")
        gateway._lines.clear()
        path = gateway.folder / "odingw.sqlite"
        damaged = bytearray(path.read_bytes())
        size = len(damaged)
        damaged[size // 3 : size // 2] = Random(1).randbytes(size // 2 - size // 3)  # noqa: S311  -- noise
        path.write_bytes(damaged)
        self.start(gateway)
        (aside,) = gateway.folder.glob("odingw.sqlite.broken-*")
        self.assertEqual(bytes(damaged), aside.read_bytes())
        self.assertIn(f"the journal was damaged; it is now {aside}", gateway.log)
        self.assertEqual(200, self.ready(gateway))
        answer = gateway.connect("stored")
        self.assertEqual("no_server", answer["error"]["data"]["reason"])
        gateway.report("new.test:4433")
        self.assertEqual("new.test:4433", gateway.connect("stored")["result"]["address"])
