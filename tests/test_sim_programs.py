"""The command line tools: against a stub on loopback, and the demo with a real gateway."""

import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Site

from odingw.sim import __main__ as program
from odingw.sim import demo
from odingw.tokens import AccessKey, parse
from tests.sim_stub import ACCESS_KEY, StubGateway, temporary_folder

ROOT = Path(demo.__file__).parent.parent.parent


class SimTests(TestCase):
    """``python -m odingw.sim`` against a stub."""

    def setUp(self) -> None:
        self.reactor = cast("Any", reactor)
        self.stub = StubGateway()
        self.stub.report_interval = 200
        self.stub.address = "sfu-2.sim:4433"
        port = self.reactor.listenTCP(0, Site(self.stub), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}/"

    def run_program(self, *arguments: str) -> Deferred[tuple[bytes, bytes, int]]:
        common = ["-m", "odingw.sim", "--gateway", self.url, "--servers", "2", "--spread", "0"]
        ended: Deferred[tuple[bytes, bytes, int]]
        ended = getProcessOutputAndValue(sys.executable, [*common, *arguments], path=str(ROOT))
        return ended

    async def test_servers_and_clients(self) -> None:
        out, err, status = await self.run_program(
            "--access-key", ACCESS_KEY.text, "--rate", "50", "--duration", "1", "--status", "0.4"
        )
        self.assertEqual((err, status), (b"", 0))
        lines = out.decode().splitlines()
        self.assertGreater(len(lines), 1)
        self.assertTrue(lines[-1].startswith("in all: "))
        for line in lines:
            self.assertRegex(line, r"2/2 servers, \d+ rooms; .* \d+ clients, \d+ granted")
        self.assertEqual(
            {report["public_endpoint"] for report in self.stub.reports},
            {"sfu-1.sim:4433", "sfu-2.sim:4433"},
        )
        self.assertGreater(len(self.stub.of("Connect")), 10)

    async def test_servers_alone(self) -> None:
        out, err, status = await self.run_program("--duration", "0.3", "--keep-alive")
        self.assertEqual((err, status), (b"", 0))
        self.assertNotIn(b"clients", out)
        self.assertEqual(self.stub.of("Connect"), [])

    async def test_misbehaviour(self) -> None:
        """A gateway that breaks the rules is reported with the exit status."""
        self.stub.overrides["Connect"] = {"address": "nowhere"}
        out, err, status = await self.run_program(
            "--access-key", ACCESS_KEY.text, "--rate", "50", "--duration", "0.5"
        )
        self.assertEqual(status, 1)
        self.assertIn(b"MISBEHAVIOURS", out)
        self.assertIn(b"missing required field `token`", err)

    async def test_refused(self) -> None:
        self.stub.overrides["sfu.GridConfig"] = {"config": ""}
        out, _, status = await self.run_program()
        self.assertEqual(status, 1)
        self.assertIn(b"the servers could not start: the server's own setting log was dropped", out)


class CommandLineTests(SynchronousTestCase):
    """What cannot be meant is refused with a line that says so."""

    def test_refused(self) -> None:
        for arguments, said in (
            ([], "--gateway"),
            (["--gateway", "x", "--servers", "0"], "--servers must be above 0"),
            (["--gateway", "x", "--address-format", "sfu"], "needs one {}"),
            (["--gateway", "x", "--address-format", "sfu-{name}"], "needs one {}"),
            (["--gateway", "x", "--access-key", "AAAA"], "access key"),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "odingw.sim", *arguments],
                capture_output=True,
                text=True,
                cwd=ROOT,
                timeout=60,
                check=False,
            )
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn(said, done.stderr.splitlines()[-1])
            self.assertNotIn("Traceback", done.stderr)

    def test_key_from_file(self) -> None:
        """Where no process list shows it."""
        path = temporary_folder(self) / "arguments"
        path.write_text(f"--access-key\n{ACCESS_KEY.text}\n")
        options = program.parse(["--gateway", "http://gateway.test/", f"@{path}"])
        self.assertEqual(options.access_key, ACCESS_KEY)


class DemoTests(SynchronousTestCase):
    """``python -m odingw.sim.demo`` with a gateway of its own."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self) / "var" / "demo"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "odingw.sim.demo", "--folder", str(self.folder)]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process

    def until(self, process: subprocess.Popen[str], wanted: str) -> str:
        """Read its output up to a line."""
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if wanted in line:
                return "".join(lines)
        raise self.failureException(f"{wanted!r} is not in {''.join(lines)}")

    def test_pasted_commands(self) -> None:
        """The printed commands do what is said of them, and SIGTERM ends everything."""
        process = self.start("--rate", "20")
        printed = self.until(process, "Ctrl-C stops everything")
        self.assertIn("has joined", printed, "the gateway's log is visible")
        commands = [line.strip() for line in printed.splitlines() if line.startswith("    ")]
        connect, turn = (command for command in commands if command.startswith("curl "))
        (decode,) = (command for command in commands if command.startswith("| "))
        if shutil.which("curl") is None:
            self.skipTest("curl is not installed")
        shown = subprocess.run(  # noqa: S602  -- the command is meant to be pasted into a shell
            f"{connect} {decode}",
            shell=True,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        self.assertRegex(shown.stdout, r'^sfu-[123]\.demo:4433 \{.*"rid":"lobby"')
        issued = subprocess.run(  # noqa: S602  -- likewise
            turn, shell=True, capture_output=True, text=True, timeout=60, check=True
        )
        self.assertRegex(
            issued.stdout, r'"username":"\d+:you".*"urls":\["turn:127\.0\.0\.1:3478"\]'
        )
        for page in [command for command in commands if re.search(r"/(monitor|metrics)$", command)]:
            subprocess.run(["curl", "-fsS", page], capture_output=True, timeout=60, check=True)
        process.send_signal(signal.SIGTERM)
        self.assertIn("demo: stopped", self.until(process, "demo: stopped"))
        self.assertEqual(process.wait(60), 0)

    def test_duration(self) -> None:
        process = self.start("--duration", "0.5")
        self.until(process, "demo: stopped")
        self.assertEqual(process.wait(60), 0)
        self.assertEqual(self.folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual((self.folder / "odingw.toml").stat().st_mode & 0o777, 0o600)

    def test_dead_gateway(self) -> None:
        """A gateway that cannot start is not waited for."""
        first = self.start()
        printed = self.until(first, "Ctrl-C stops everything")
        found = re.search(r"http://127\.0\.0\.1:(\d+)/$", printed, re.MULTILINE)
        assert found is not None
        second = self.start("--port", found[1])
        self.until(second, "the gateway ended by itself: exit status 1")
        self.assertEqual(second.wait(60), 1)
        first.terminate()
        self.assertEqual(first.wait(60), 0)


class DemoPartsTests(SynchronousTestCase):
    """The parts of the demo that start nothing."""

    def test_configuration(self) -> None:
        """Loopback alone, a new master key each time, and no secret of the customer."""
        key = AccessKey.generate(bytes)
        folder = temporary_folder(self) / "var" / "demo"
        documents = []
        for _ in range(2):
            text = demo.write_config(folder, 7000, key).read_text()
            self.assertNotIn(key.text, text)
            documents.append(tomllib.loads(text))
        self.assertEqual(
            documents[0]["listen"],
            {
                "public": ["tcp:7000:interface=127.0.0.1"],
                "admin": ["tcp:7001:interface=127.0.0.1"],
            },
        )
        (customer,) = documents[0]["gateway"]["customers"]
        self.assertEqual(customer["access_keys"][0]["public_key"]["kid"], key.kid)
        first, second = (document["gateway"]["master_key"] for document in documents)
        self.assertNotEqual(first, second)

    def test_token_of_a_day(self) -> None:
        found = demo.entries(7000, ACCESS_KEY, 1_700_000_000.0)
        commands = [entry.text for entry in found if entry.text.startswith("curl")]
        self.assertEqual(2, len(commands))
        for command in commands:
            (header,) = (word for word in shlex.split(command) if word.startswith("Authorization"))
            payload = parse(header.removeprefix("Authorization: Bearer ")).payload
            self.assertIn(b'"exp":1700086400', payload)

    def test_next_free_ports(self) -> None:
        """A port counts as free only together with the next one."""
        first = demo.free_ports(20_000)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", first + 1))
            taken.listen()
            self.assertEqual(demo.free_ports(first), demo.free_ports(first + 2))
        with self.assertRaises(OSError):
            demo.free_ports(65535)
