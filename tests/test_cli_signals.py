"""Ctrl-C and SIGTERM end what lives long, whatever it is doing when they come."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.ports import free_range
from tests.process import ACCESS_KEY, GatewayProcess, customer
from tests.sim_stub import temporary_folder
from tests.terminal import PATIENCE, ROOT, Terminal, environment, shared_gateway

SOME: Final = [200, 3_000, 25_000, 120_000]
"""Calls of functions after which a signal comes: while it imports, begins, works."""

MANY: Final = [round(100 * 1.2**step) for step in range(50)]

STATUS: Final = {signal.SIGINT: {130, -signal.SIGINT}, signal.SIGTERM: {143, -signal.SIGTERM}}
"""The same for shells, whether a program exits so or the signal itself has ended it."""


def interrupted(
    number: int, calls: int, *arguments: str, module: str = "odingw.cli", after: str = ""
) -> list[str]:
    """Return a command line: a program to which a signal comes after so many calls."""
    script = Path(__file__).parent / "interrupting.py"
    after = after or "odingw.cli.main"
    return [sys.executable, str(script), str(int(number)), str(calls), after, module, *arguments]


class Mute:
    """A server that takes connections and says nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        self._socket.close()


class MomentsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.gateway = shared_gateway(customer(max_peers=20))

    def run_interrupted(self, number: int, calls: int, *arguments: str) -> tuple[int, str]:
        """Return the status and all output of a command."""
        done = subprocess.run(
            interrupted(number, calls, *arguments),
            cwd=ROOT,
            env=environment(
                ODINGW_URL=f"http://127.0.0.1:{self.gateway.port}",
                ODINGW_ACCESS_KEY=ACCESS_KEY.text,
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertNotIn("Traceback", done.stdout, calls)
        self.assertNotIn("Unhandled", done.stdout, calls)
        return done.returncode, done.stdout

    def simulate(self, moments: list[int]) -> None:
        for number, statuses in STATUS.items():
            for calls in moments:
                options = ("--rate", "20", "--servers", "2", "--spread", "0.1", "-d", "1h")
                status, said = self.run_interrupted(number, calls, "simulate", *options)
                self.assertIn(status, statuses, (calls, said))
                self.assertLessEqual(said.count("SERVERS"), 1, said)

    def wait_for_an_answer(self, moments: list[int]) -> None:
        mute = Mute()
        self.addCleanup(mute.close)
        for number, statuses in STATUS.items():
            for calls in moments:
                # More than it makes: it waits by now.
                if calls > 10_000:
                    continue
                status, said = self.run_interrupted(
                    number, calls, "where", "lobby", "--admin", mute.url, "--timeout", "1h"
                )
                self.assertIn(status, statuses, (calls, said))

    def demo(self, moments: list[int]) -> None:
        """It leaves no gateway behind, and has come to its usual end once it has begun."""
        folder = temporary_folder(self) / "var" / "demo"
        for number, statuses in STATUS.items():
            for calls in moments:
                port = free_range(2)[0]
                status, said = self.run_interrupted(
                    number, calls, "demo", "--folder", str(folder), "--port", str(port)
                )
                begun = said.count("odingw demo: stopped")
                self.assertLessEqual(begun, 1, said)
                self.assertIn(status, {0} if begun else statuses, (calls, said))
                with self.assertRaises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port))

    def top(self, moments: list[int]) -> None:
        """The terminal is as it was before."""
        admin = f"http://127.0.0.1:{self.gateway.admin}"
        for number, statuses in STATUS.items():
            for calls in moments:
                options = ("top", "-i", "0.1", "--admin", admin)
                with Terminal(*interrupted(number, calls, *options)) as terminal:
                    self.assertIn(terminal.wait(), statuses, (calls, terminal.text))
                    self.assertTrue(terminal.settings_kept, calls)
                    self.assertTrue(terminal.is_left, calls)
                    self.assertNotIn(b"Traceback", terminal.raw, calls)

    def gateway_process(self, moments: list[int]) -> None:
        """What ``odingw run`` becomes; once it has started, SIGTERM is its usual end."""
        for number, statuses in STATUS.items():
            for calls in moments:
                gateway = Interrupted(number, calls)
                self.addCleanup(gateway.remove)
                status, said = gateway.life()
                usual = {0} if number == signal.SIGTERM and "has started" in said else set()
                self.assertIn(status, statuses | usual, (calls, said))
                self.assertNotIn("Traceback", said, calls)


class Interrupted(GatewayProcess):
    """A gateway to which a signal comes after so many calls, or when it has started."""

    def __init__(self, number: int, calls: int) -> None:
        super().__init__(customer())
        self._number = number
        self._command = interrupted(
            *(number, calls, "-n", "--pidfile=", "odingw", "--config", str(self.config)),
            module="odingw.sim.foreground",
            after="twisted.scripts.twistd",
        )

    def life(self) -> tuple[int, str]:
        """Return its status, and what it has said."""
        process = self.process = subprocess.Popen(
            self._command,
            cwd=self.folder,
            env=environment(PYTHONUNBUFFERED="1", PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._hear(process)
        if "has started" in self.wait_for("has started", "<end>"):
            process.send_signal(self._number)
        return process.wait(PATIENCE), self.log

    def remove(self) -> None:
        """Kill it, if it is still there."""
        assert self.process is not None
        self.process.kill()
        self.stop()


class MomentsTests(MomentsCase):
    def test_simulate(self) -> None:
        self.simulate(SOME)

    def test_where_waits_for_an_answer(self) -> None:
        self.wait_for_an_answer(SOME)

    def test_demo(self) -> None:
        self.demo(SOME)

    def test_top(self) -> None:
        self.top(SOME)

    def test_gateway(self) -> None:
        self.gateway_process(SOME)


@pytest.mark.long
class AllMomentsTests(MomentsCase):
    def test_simulate(self) -> None:
        self.simulate(MANY)

    def test_where_waits_for_an_answer(self) -> None:
        self.wait_for_an_answer(MANY)

    def test_demo(self) -> None:
        self.demo(MANY)

    def test_top(self) -> None:
        self.top(MANY)

    def test_gateway(self) -> None:
        self.gateway_process(MANY)
