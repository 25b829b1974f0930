"""``odingw demo``, with a gateway of its own."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import tomllib
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from odingw.sim import demo
from odingw.tokens import AccessKey, parse
from tests.sim_stub import ACCESS_KEY, temporary_folder
from tests.terminal import ROOT, command, environment


def gateway_of(process: subprocess.Popen[str]) -> int:
    """Wait for the one child of a demo and return its process id."""
    place = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not place.exists():
        raise SkipTest("this system does not list the children of a process in /proc")
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if found := place.read_text().split():
            return int(found[0])
    raise AssertionError("the demo has started no gateway")


class DemoTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = temporary_folder(self) / "var" / "demo"

    def start(self, *arguments: str, err: int = subprocess.STDOUT) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*command("demo", "--folder", str(self.folder)), *arguments],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait, 60)
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

    def shell(self, text: str) -> str:
        """Run what was printed to be pasted into a shell."""
        done = subprocess.run(  # noqa: S602  -- it is meant to be pasted into a shell
            text, shell=True, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
        )
        return done.stdout

    def test_pasted_commands(self) -> None:
        """The printed commands do what is said of them, and SIGTERM ends everything."""
        process = self.start("--rate", "20")
        printed = self.until(process, "Ctrl-C stops everything")
        self.assertIn("has joined", printed, "the gateway's log is visible")
        commands = [line.strip() for line in printed.splitlines() if line.startswith("    ")]
        (top,) = (one for one in commands if " top --admin " in one)
        self.assertIn("sfu-1.demo:4433", self.shell(f"{top} --once"))
        (call,) = (one for one in commands if " call Connect " in one)
        self.assertIn(".demo:4433", self.shell(call))
        if shutil.which("curl") is None:
            self.skipTest("curl is not installed")
        connect, turn = (one for one in commands if one.startswith("curl "))
        (decode,) = (one for one in commands if one.startswith("| "))
        shown = self.shell(f"{connect} {decode}")
        self.assertRegex(shown, r'^sfu-[123]\.demo:4433 \{.*"rid":"lobby"')
        self.assertRegex(
            self.shell(turn), r'"username":"\d+:you".*"urls":\["turn:127\.0\.0\.1:3478"\]'
        )
        for page in [one for one in commands if re.search(r"/(monitor|metrics)$", one)]:
            subprocess.run(["curl", "-fsS", page], capture_output=True, timeout=60, check=True)
        process.send_signal(signal.SIGTERM)
        self.assertIn("demo: stopped", self.until(process, "demo: stopped"))
        self.assertEqual(process.wait(60), 0)

    def test_duration(self) -> None:
        """And what there is to try out as JSON."""
        process = self.start("--duration", "0.5", "--json", err=subprocess.DEVNULL)
        out, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        document = json.loads(out)
        self.assertRegex(document["url"], r"^http://127\.0\.0\.1:\d+/$")
        self.assertEqual(44, len(document["access_key"]))
        (config,) = self.folder.glob("*/odingw.toml")
        self.assertIn(f":{config.parent.name}/", document["url"])
        self.assertEqual(config.parent.stat().st_mode & 0o777, 0o700)
        self.assertEqual(config.stat().st_mode & 0o777, 0o600)

    def test_dead_gateway(self) -> None:
        """A gateway that does not come up is not waited for."""
        process = self.start()
        os.kill(gateway_of(process), signal.SIGKILL)
        printed = self.until(process, "odingw: demo: the gateway ended by itself: signal SIGKILL")
        self.assertNotIn("Traceback", printed)
        self.assertEqual(process.wait(60), 1)

    def test_taken_port(self) -> None:
        """Whoever listens there is left alone, also on the ports of the other endpoints."""
        port = demo.free_ports(21_000) + 2
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            for given in (port, port - 1, port - 2):
                process = self.start("--port", str(given))
                self.until(
                    process,
                    f"odingw: demo: port {port} is taken; leave --port out, or choose another",
                )
                self.assertEqual(process.wait(60), 1)
            self.assertFalse(self.folder.exists())

    def test_interrupted_gateway(self) -> None:
        """Ctrl-C that reaches the gateway alone, or first, ends the demo as it ends by itself."""
        process = self.start()
        self.until(process, "Ctrl-C stops everything")
        os.kill(gateway_of(process), signal.SIGINT)
        self.assertNotIn("ended by itself", self.until(process, "demo: stopped"))
        self.assertEqual(process.wait(60), 0)


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
                "internal": ["tcp:7002:interface=127.0.0.1"],
            },
        )
        (customer,) = documents[0]["gateway"]["customers"]
        self.assertEqual(customer["access_keys"][0]["public_key"]["kid"], key.kid)
        first, second = (document["gateway"]["master_key"] for document in documents)
        self.assertNotEqual(first, second)

    def test_token_of_a_day(self) -> None:
        found = demo.entries(7000, ACCESS_KEY, 1_700_000_000.0, "odingw")
        commands = [entry.text for entry in found if entry.text.startswith("curl")]
        self.assertEqual(2, len(commands))
        for one in commands:
            (header,) = (word for word in shlex.split(one) if word.startswith("Authorization"))
            payload = parse(header.removeprefix("Authorization: Bearer ")).payload
            self.assertIn(b'"exp":1700086400', payload)

    def test_first_port_is_taken(self) -> None:
        """Without a wish another one is taken, and said."""
        said: list[str] = []
        first = demo.free_ports(20_000)
        self.patch(demo, "FIRST_PORT", first)
        self.assertEqual(first, demo.choose_port(None, said.append))
        self.assertEqual([], said)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", first))
            taken.listen()
            port = demo.choose_port(None, said.append)
            self.assertGreaterEqual(port, first + demo.PORTS)
            self.assertEqual([f"{first} is taken, so this one listens on {port}"], said)

    def test_next_free_ports(self) -> None:
        """A port counts as free only together with the next ones."""
        first = demo.free_ports(20_000)
        for number in range(demo.PORTS):
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", first + number))
                taken.listen()
                self.assertEqual(demo.free_ports(first), demo.free_ports(first + demo.PORTS))
        for port in (65534, 65535):
            with self.assertRaises(OSError):
                demo.free_ports(port)
