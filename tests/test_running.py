"""How the tests themselves run: side by side, without what goes outside, and to an end."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.ports import free_port, free_range
from tests.sim_stub import temporary_folder
from tests.terminal import PATIENCE, ROOT, environment

_OWN: Final = "from tests.conftest import *\n"


class RunCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        (self.folder / "conftest.py").write_text(_OWN)
        (self.folder / "pytest.ini").touch()

    def pytest(self, tests: str, *options: str, **variables: str) -> tuple[int, str]:
        """Return the status of a run, and what it says."""
        (self.folder / "test_it.py").write_text(tests)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "."],
            cwd=self.folder,
            env=environment(PYTHONPATH=str(ROOT), **{"CI": "", **variables}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=5 * PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout


class SkipTests(RunCase):
    TESTS = (
        "import pytest\ndef test_one(): pass\ndef test_two(): pytest.skip('a part is missing')\n"
    )

    def test_it_fails_the_run_where_every_part_must_be_present(self) -> None:
        for processes in ("0", "2"):
            status, said = self.pytest(self.TESTS, "-n", processes, CI="true")
            self.assertEqual(1, status, said)
            self.assertIn("CI: 1 tests were skipped, which fails the run", said)

    def test_elsewhere_it_does_not(self) -> None:
        status, said = self.pytest(self.TESTS, "-n", "2")
        self.assertEqual(0, status, said)


class HangTests(RunCase):
    def test_it_fails_and_the_others_run(self) -> None:
        """Even where no signal or exception gets through to it; what it has started ends, too."""
        status, said = self.pytest(
            "import subprocess, threading\n"
            "def test_one(): pass\n"
            "def test_two():\n"
            "    with open('pid', 'w') as file:\n"
            "        print(subprocess.Popen(['sleep', '1000']).pid, file=file)\n"
            "    while True:\n"
            "        try: threading.Event().wait()\n"
            "        except BaseException: pass\n"
            "def test_three(): pass\n",
            *("-n", "1", "--dist", "worksteal", "--timeout", "2", "--timeout-method", "thread"),
        )
        self.assertEqual(1, status, said)
        self.assertIn("1 failed, 2 passed", said)
        self.assertIn("crashed while running 'test_it.py::test_two", said)
        started = Path("/proc", (self.folder / "pid").read_text().strip(), "cmdline")
        end = time.monotonic() + PATIENCE
        # Empty: it has ended, and nobody has asked for its status yet.
        while started.exists() and started.read_bytes():
            self.assertLess(time.monotonic(), end, "it lives on")
            time.sleep(0.05)


class QuickTests(RunCase):
    def test_what_goes_outside_is_left_out(self) -> None:
        """However it does, and whatever it makes of being held back."""
        status, said = self.pytest(
            "import os, socket, subprocess, sys\n"
            "from twisted.internet import reactor, utils\n"
            "from twisted.internet.protocol import Factory\n"
            "from twisted.trial.unittest import TestCase\n"
            "def test_pure(): os.pipe()\n"
            "def test_process(): subprocess.run([sys.executable, '-V'])\n"
            "def test_socket():\n"
            "    try: socket.create_connection(('127.0.0.1', 9))\n"
            "    except Exception: assert False\n"
            "class LoopTests(TestCase):\n"
            "    async def test_pure(self): pass\n"
            "    async def test_listens(self):\n"
            "        port = reactor.listenTCP(0, Factory(), interface='127.0.0.1')\n"
            "        await port.stopListening()\n"
            "    async def test_spawns(self):\n"
            "        await utils.getProcessOutput(sys.executable, ['-V'])\n",
            "--quick",
        )
        self.assertEqual(0, status, said)
        self.assertIn("2 passed, 4 skipped", said)

    def test_what_fails_inside_fails(self) -> None:
        status, said = self.pytest("def test_it(): assert False\n", "--quick", "-n", "1")
        self.assertEqual(1, status, said)


class PortTests(SynchronousTestCase):
    def test_two_processes_have_none_in_common(self) -> None:
        script = (
            "from tests.ports import free_port, free_range\n"
            "print(*(free_port() for _ in range(150)), *free_range(100))\n"
            "input()\n"
        )
        found: list[int] = [*(free_port() for _ in range(150)), *free_range(100)]
        others = [
            subprocess.Popen(
                [sys.executable, "-c", script],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for other in others:
            self.addCleanup(other.communicate, "\n")
            assert other.stdout is not None
            found += map(int, other.stdout.readline().split())
        self.assertEqual(750, len(set(found)))

    def test_no_outgoing_connection_gets_one(self) -> None:
        first = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
        self.assertLess(free_port(), int(first))
