"""Ctrl-C and SIGTERM end what lives long, whatever it is doing when they come."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.examples import THOROUGH
from tests.ports import free_range
from tests.process import ACCESS_KEY, GatewayProcess, customer
from tests.sim_stub import temporary_folder
from tests.terminal import PATIENCE, ROOT, Terminal, command, environment, shared_gateway

MOMENTS: Final = (
    [round(100 * 1.2**step) for step in range(40)] if THOROUGH else [200, 3_000, 25_000, 120_000]
)
"""Calls of functions after which a signal comes: while it imports, begins, works."""

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
    """A server that takes requests and says nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE)
        self._taken: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def take_request(self) -> None:
        """Wait until one comes."""
        connection, _ = self._socket.accept()
        self._taken.append(connection)
        connection.settimeout(PATIENCE)
        connection.recv(1)

    def close(self) -> None:
        for one in (self._socket, *self._taken):
            one.close()


@pytest.mark.thorough
class MomentsTests(SynchronousTestCase):
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

    def test_simulate(self) -> None:
        for number, statuses in STATUS.items():
            for calls in MOMENTS:
                options = ("--rate", "20", "--servers", "2", "--spread", "0.1", "-d", "1h")
                status, said = self.run_interrupted(number, calls, "simulate", *options)
                self.assertIn(status, statuses, (calls, said))
                self.assertLessEqual(said.count("SERVERS"), 1, said)

    def test_demo(self) -> None:
        """It leaves no gateway behind, and has come to its usual end once it has begun."""
        folder = temporary_folder(self) / "var" / "demo"
        for number, statuses in STATUS.items():
            for calls in MOMENTS:
                port = free_range(2)[0]
                status, said = self.run_interrupted(
                    number, calls, "demo", "--folder", str(folder), "--port", str(port)
                )
                begun = said.count("odingw demo: stopped")
                self.assertLessEqual(begun, 1, said)
                self.assertIn(status, {0} if begun else statuses, (calls, said))
                with self.assertRaises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port))

    def test_top(self) -> None:
        """The terminal is as it was before."""
        admin = f"http://127.0.0.1:{self.gateway.admin}"
        for number, statuses in STATUS.items():
            for calls in MOMENTS:
                options = ("top", "-i", "0.1", "--admin", admin)
                with Terminal(*interrupted(number, calls, *options)) as terminal:
                    self.assertIn(terminal.wait(), statuses, (calls, terminal.text))
                    self.assertTrue(terminal.settings_kept, calls)
                    self.assertTrue(terminal.is_left, calls)
                    self.assertNotIn(b"Traceback", terminal.raw, calls)

    def test_gateway(self) -> None:
        """What ``odingw run`` becomes; once it has started, SIGTERM is its usual end."""
        for number, statuses in STATUS.items():
            for calls in MOMENTS:
                gateway = Interrupted(number, calls)
                self.addCleanup(gateway.remove)
                status, said = gateway.life()
                usual = {0} if number == signal.SIGTERM and "has started" in said else set()
                self.assertIn(status, statuses | usual, (calls, said))
                self.assertNotIn("Traceback", said, calls)


class WaitingTests(SynchronousTestCase):
    def test_for_an_answer(self) -> None:
        mute = Mute()
        self.addCleanup(mute.close)
        here = ("--timeout", "1h", "--url", mute.url)
        for number, arguments in (
            (signal.SIGINT, ("where", "lobby", "--timeout", "1h", "--admin", mute.url)),
            (signal.SIGTERM, ("call", "Connect", "--room", "lobby", "--user", "me", *here)),
            (signal.SIGINT, ("turn-test", *here)),
            (signal.SIGTERM, ("simulate", "--url", mute.url)),
        ):
            process = subprocess.Popen(
                command(*arguments),
                cwd=ROOT,
                env=environment(ODINGW_ACCESS_KEY=ACCESS_KEY.text),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.addCleanup(process.wait, PATIENCE)
            self.addCleanup(process.kill)
            mute.take_request()
            process.send_signal(number)
            said, _ = process.communicate(timeout=PATIENCE)
            self.assertEqual((128 + number, ""), (process.returncode, said.strip()), arguments)

    def test_who_does_not_listen_is_ended(self) -> None:
        """Where the exception is lost, and with a terminal that is not as it was."""
        script = (
            "import signal, time, tty\n"
            "from odingw.cli.signals import ENDING\n"
            "ENDING.begin()\n"
            "signal.signal(signal.SIGINT, lambda *_: None)\n"
            "tty.setcbreak(0)\n"
            "print('\\x1b[?25l', 'it begins', flush=True)\n"
            "while True: time.sleep(3600)\n"
        )
        for presses in (1, 2):
            with Terminal(sys.executable, "-c", script) as terminal:
                terminal.wait_for("it begins")
                for _ in range(presses):
                    terminal.interrupt()
                self.assertEqual(130, terminal.wait())
                self.assertTrue(terminal.settings_kept)
                self.assertTrue(terminal.is_left)


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
