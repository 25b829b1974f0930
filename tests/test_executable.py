"""``make executable``: one file, which needs no Python, is a gateway and the command."""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from odingw.sim.fleet import Fleet
from tests.executable import ROOT, ExecutableGateway, executable, setting
from tests.process import MASTER_KEY, customer, free_port, token

LISTEN = (
    '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
    'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
)
TURN = (
    '[turn]\nsecret_keys = ["between us"]\nturn_uris = ["turn:127.0.0.1:3478"]\n'
    'access_keys = true\nuser_claim = "uid"\nwatch_servers = false\n'
)
ADDRESS = "sfu-1.sim:4433"
GLIBC = re.compile(
    r"(ld-linux[-\w]*|lib(c|m|dl|rt|util|pthread|resolv|nss_\w+|crypt|mvec|anl))(-[\d.]+)?\.so[.\d]*"
)
"""What every machine with glibc has."""

WAIT = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def foreign_libraries(pid: int, own: Path) -> set[str]:
    """Return what a process has in memory of files that are neither its own nor the C library's."""
    mapped = {line.split(None, 5)[5] for line in _maps(pid) if len(line.split(None, 5)) == 6}
    return {
        path
        for path in (name.strip() for name in mapped)
        if path.startswith("/")
        and not Path(path).is_relative_to(own)
        and not GLIBC.fullmatch(Path(path).name)
        and not path.endswith(("locale-archive", "gconv-modules.cache"))
    }


def _maps(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/maps").read_text().splitlines()


@pytest.mark.long
class AloneTests(TestCase):
    """In an empty folder, with nothing in the environment."""

    # The build may be among it.
    timeout = 600

    def setUp(self) -> None:
        # Where it goes without any variable. It may be there from a use of this very build.
        self.place = Path(f"/var/tmp/odingw-{os.getuid()}")  # noqa: S108  -- it is unpacked there
        self.unpacked = self.place / setting(executable(), "id")
        if not self.unpacked.exists():
            self.addCleanup(shutil.rmtree, self.unpacked, ignore_errors=True)
        self.gateway = ExecutableGateway(customer(), LISTEN + TURN, {})
        self.addCleanup(self.gateway.stop)

    async def test_a_real_server_and_clients_are_served_and_state_is_kept(self) -> None:
        gateway = self.gateway
        await deferToThread(gateway.start)
        fleet = Fleet(
            cast("Any", reactor), f"http://127.0.0.1:{gateway.port}/", [ADDRESS], capacity=100
        )
        try:
            await fleet.start(0)
            granted = await deferToThread(gateway.connect, "lobby", "alice")
            again = await deferToThread(gateway.connect, "lobby", "bob")
            turn = await deferToThread(self.turn_credentials)
        finally:
            await fleet.stop()
        self.assertEqual(ADDRESS, granted["result"]["address"])
        self.assertEqual(ADDRESS, again["result"]["address"])
        self.assertIn("alice", turn["username"])
        self.assertEqual(["turn:127.0.0.1:3478"], turn["uris"])
        assert gateway.process is not None
        self.assertEqual(set(), foreign_libraries(gateway.process.pid, self.unpacked))
        gateway.process.send_signal(signal.SIGTERM)
        self.assertEqual(0, await deferToThread(gateway.process.wait, WAIT))
        self.assertIn("stopped", gateway.log)
        self.assertEqual(
            {"odingw", "odingw.sqlite"},
            {path.name for path in gateway.home.iterdir()} - {"odingw.sqlite.lock"},
        )
        await deferToThread(gateway.start)
        # No server has reported to this process: it is the room that it knows.
        kept = await deferToThread(gateway.connect, "lobby", "carol")
        self.assertEqual(ADDRESS, kept["result"]["address"])
        files = sum(path.is_file() and not path.is_symlink() for path in self.unpacked.rglob("*"))
        self.assertEqual(setting(gateway.program, "files"), str(files))

    def turn_credentials(self) -> Any:
        headers = {"Authorization": f"Bearer {token('lobby', 'alice', subject='turn')}"}
        status, _, body = self.gateway.request("GET", "/turn", headers=headers)
        self.assertEqual(200, status, body)
        return json.loads(body)


@pytest.mark.long
class UnpackedCase(SynchronousTestCase):
    """With a folder to unpack in that all tests of the class share."""

    place: Path
    environment: dict[str, str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.place = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        cls.environment = {"ODINGW_UNPACK": str(cls.place)}

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.place)

    def run_program(
        self, *arguments: str, program: Path | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [program or executable(), *arguments],
            cwd=self.place,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT,
        )


@pytest.mark.long
class ProcessTests(UnpackedCase):
    def gateway(self, gateway: str = "", before: str = "") -> ExecutableGateway:
        made = ExecutableGateway(gateway, before, self.environment)
        self.addCleanup(shutil.rmtree, made.folder, ignore_errors=True)
        return made

    def test_it_goes_to_the_background_and_runs_functions_of_customers(self) -> None:
        """Of the standard library and of other folders, they may import what they like."""
        gateway = self.gateway(
            '[gateway.customer_source]\nfunction = "mine.py:customers"\n',
            '[listen]\npublic = ["haproxy:tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n',
        )
        more = gateway.folder / "more"
        more.mkdir()
        (more / "elsewhere.py").write_text("LIMIT = 7\n")
        (gateway.folder / "mine.py").write_text(
            "import asyncio, csv, ctypes, decimal, multiprocessing, smtplib, sqlite3, ssl, uuid\n"
            "import xml.etree.ElementTree, zoneinfo\n"
            "from elsewhere import LIMIT\n"
            "def customers():\n"
            "    return [{'id': 'acme', 'maxPeers': LIMIT, 'maxRooms': None, 'accessKeys': []}]\n"
        )
        done = subprocess.run(
            [
                *(gateway.program, "twistd", "--pidfile=gateway.pid", "--logfile=gateway.log"),
                *("odingw", "--config", gateway.config),
            ],
            cwd=gateway.home,
            env={**self.environment, "PYTHONPATH": str(more)},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((0, "", ""), (done.returncode, done.stdout, done.stderr))
        log = gateway.home / "gateway.log"
        until(lambda: log.exists() and "has started" in log.read_text(), "it does not start")
        pid = int((gateway.home / "gateway.pid").read_text())
        self.addCleanup(_kill, pid)
        limit = 'odingw_customer_peers_limit{customer="acme"} 7.0'
        until(lambda: limit in self.metrics(gateway), log.read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not (gateway.home / "gateway.pid").exists(), "it does not end")

    def metrics(self, gateway: ExecutableGateway) -> str:
        return gateway.request("GET", "/metrics", port=gateway.admin)[2].decode()

    def test_systemd_deals_with_the_very_process_that_it_started(self) -> None:
        """Its socket is used; notifications come from its process; signals reach the gateway."""
        tool = shutil.which("systemd-socket-activate")
        if tool is None:
            raise SkipTest("systemd-socket-activate is not installed (package systemd)")
        gateway = self.gateway(
            "", '[listen]\npublic = ["systemd:domain=INET:name=public"]\nadmin = []\n'
        )
        # The published one is refused: a socket from elsewhere may be anywhere.
        own = b64encode(os.urandom(32)).decode()
        gateway.config.write_text(gateway.config.read_text().replace(MASTER_KEY, own))
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(heard.close)
        heard.settimeout(WAIT)
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        heard.bind(str(gateway.folder / "notify"))
        gateway.start(
            *(tool, "-l", f"127.0.0.1:{gateway.port}", "--fdname=public"),
            *("-E", f"NOTIFY_SOCKET={gateway.folder / 'notify'}"),
            *("-E", f"ODINGW_UNPACK={self.place}"),
            wait=False,
        )
        self.addCleanup(gateway.stop)
        gateway.wait_for("Listening on")
        self.assertEqual(200, gateway.request("GET", "/ping")[0])
        process = gateway.process
        assert process is not None
        for expected, signals in (
            ("READY=1", ()),
            ("RELOADING=1", (signal.SIGHUP,)),
            ("READY=1", ()),
            ("STOPPING=1", (signal.SIGTERM,)),
        ):
            for number in signals:
                process.send_signal(number)
            message, credentials, _, _ = heard.recvmsg(4096, socket.CMSG_SPACE(12))
            self.assertEqual(expected, message.decode().partition("\n")[0])
            self.assertEqual(process.pid, struct.unpack("3i", credentials[0][2])[0])
        self.assertEqual(0, process.wait(WAIT))

    def test_the_demo_finds_the_gateway_in_it(self) -> None:
        done = self.run_program("demo", "--port", str(free_port()), "--duration", "1s")
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.assertIn("odingw demo: stopped", done.stdout + done.stderr)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.mark.long
class CommandTests(UnpackedCase):
    def test_it_makes_access_keys(self) -> None:
        done = self.run_program("access-key", "new", "--json")
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        self.assertIn("public_key", done.stdout)

    def test_commands_find_their_libraries(self) -> None:
        for name in ("call", "simulate", "top", "turn-test"):
            done = self.run_program(name, "--help")
            self.assertEqual((0, ""), (done.returncode, done.stderr), name)

    def test_every_module_is_in_it(self) -> None:
        self.run_program("--version")
        from PyInstaller.archive.readers import (  # type: ignore[import-untyped]  # it has none
            CArchiveReader,
        )

        archive = CArchiveReader(str(self.place / setting(executable(), "id") / "odingw"))
        packed = set(archive.open_embedded_archive("PYZ.pyz").toc)
        written = {
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for path in (ROOT / "odingw").rglob("*.py")
        }
        self.assertEqual(set(), written - packed)

    def test_its_first_step_needs_no_library_of_the_machine_either(self) -> None:
        done = self.run_program("--version", LD_DEBUG="libs")
        loaded = set(re.findall(r"calling init: (/\S+)", done.stderr))
        own = {Path(path).name for path in loaded if Path(path).is_relative_to(self.place)}
        self.assertIn("libz.so.1", own)
        twice = {path for path in loaded if not Path(path).is_relative_to(self.place)}
        self.assertEqual(set(), own & {Path(path).name for path in twice})

    def test_twistd_offers_the_gateway_alone(self) -> None:
        done = self.run_program("twistd", "--help")
        _, _, commands = done.stdout.partition("\nCommands:\n")
        self.assertEqual(["odingw"], [line.split()[0] for line in commands.strip().splitlines()])
        self.assertEqual("", done.stderr)


@pytest.mark.long
class UnpackTests(UnpackedCase):
    def test_what_a_cleaner_took_away_comes_back(self) -> None:
        self.run_program("--version")
        unpacked = self.place / setting(executable(), "id")
        shutil.rmtree(unpacked / "lib" / "odingw")
        self.assertEqual(0, self.run_program("--version").returncode)
        self.assertTrue((unpacked / "lib" / "odingw" / "turn" / "clients").is_dir())

    def test_several_may_start_for_the_first_time_together(self) -> None:
        place = self.place / "together"
        starts = [
            subprocess.Popen(
                [executable(), "--version"],
                env={"ODINGW_UNPACK": str(place)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(3)
        ]
        said = [start.communicate(timeout=WAIT)[0] for start in starts]
        self.assertEqual(1, len(set(said)), said)
        self.assertEqual([0, 0, 0], [start.returncode for start in starts])
        self.assertEqual([setting(executable(), "id")], [path.name for path in place.iterdir()])

    def test_a_file_that_is_cut_off_leaves_nothing_behind(self) -> None:
        cut = self.place / "cut"
        with executable().open("rb") as whole:
            cut.write_bytes(whole.read(5_000_000))
        cut.chmod(0o755)
        place = self.place / "for-cut"
        # All other places are out of the question: not absolute, or not a folder.
        text = (
            cut.read_bytes().replace(b"/var/tmp/", b"/dev/null/").replace(b"/tmp/", b"/dev/null/")
        )
        cut.write_bytes(text)
        done = self.run_program("--version", program=cut, ODINGW_UNPACK=str(place))
        self.assertEqual(1, done.returncode)
        self.assertIn("odingw: nowhere to unpack", done.stderr)
        self.assertEqual([], list(place.iterdir()))

    def test_a_folder_that_others_could_write_to_is_passed_over(self) -> None:
        """A link in a shared folder, or a folder of another user."""
        target = self.place / "target"
        target.mkdir()
        link = self.place / "link"
        link.symlink_to(target)
        taken = [link]
        if os.getuid() == 0:
            foreign = self.place / "foreign"
            foreign.mkdir()
            os.chown(foreign, 12345, 12345)
            taken.append(foreign)
        for place in taken:
            home = self.place / "home"
            home.mkdir(exist_ok=True)
            done = self.run_program("--version", ODINGW_UNPACK=str(place), HOME=str(home))
            self.assertEqual(0, done.returncode, done.stderr)
            self.assertEqual([], list(place.iterdir()))
            self.assertTrue((home / ".cache" / "odingw" / setting(executable(), "id")).is_dir())
