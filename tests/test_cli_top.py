"""``odingw top`` at a pseudo-terminal, with a real gateway that comes and goes."""

import re
import signal

from twisted.trial.unittest import SynchronousTestCase

from odingw.cli.dashboard import Rates, View, dashboard
from odingw.cli.state import Pool, Requests, Room, Server, Snapshot, State, Turn, TurnServer, Usage
from odingw.cli.tables import console
from tests.process import GatewayProcess, customer
from tests.terminal import Terminal, command, shared_gateway

LEAVE = b"\x1b[?1049l"
"""What brings a terminal back to what was there before (xterm)."""


class TopCase(SynchronousTestCase):
    """Something with a gateway."""

    gateway: GatewayProcess

    def top(self, *options: str) -> Terminal:
        admin = f"http://127.0.0.1:{self.gateway.admin}"
        return Terminal(*command("top", "-i", "0.2", "--admin", admin, *options))

    def report(self) -> None:
        self.gateway.report("sfu1.test:4433", ("lobby", 7))
        self.gateway.report("sfu2.test:4433", ("hall", 3), ("tower", 1))


class LifeTests(TopCase):
    """The gateway changes, goes and comes back."""

    def setUp(self) -> None:
        self.gateway = GatewayProcess(customer(max_peers=50))
        self.addCleanup(self.gateway.stop)
        self.gateway.start()

    def test_life(self) -> None:
        with self.top() as terminal:
            terminal.wait_for("none has reported yet")
            self.report()
            text = terminal.wait_for("11 peers")
            self.assertRegex(text, r"(?m)^sfu1\.test:4433 +live .* 0% ")
            self.assertIn("2 servers · 3 rooms · 11 peers", text)
            self.assertIn("q quit", text)
            terminal.type("s")
            terminal.wait_for("now by peers")
            terminal.type("x")
            terminal.type("s")
            text = terminal.wait_for("now by rooms")
            self.assertEqual(["sfu2", "sfu1"], re.findall(r"(?m)^sfu\d", text))
            self.gateway.connect("lobby")
            terminal.wait_for(lambda text: bool(re.search(r"(?m)^Connect +\d+\.\d +1 ", text)))
            terminal.resize(120, 40)
            terminal.wait_for("BUSIEST ROOMS")
            terminal.type("q")
            self.assertEqual(0, terminal.wait())
            self.assertIn(LEAVE, terminal.raw)
            self.assertTrue(terminal.settings_kept)
        process = self.gateway.process
        assert process is not None
        with self.top() as terminal:
            terminal.wait_for("sfu1.test:4433")
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            text = terminal.wait_for("unreachable, retrying")
            self.assertIn("sfu1.test:4433", text, "what was known stays")
            # Another one finds nobody either, and waits too.
            with self.top() as second:
                second.wait_for("unreachable, retrying")
                second.terminate()
                self.assertEqual(143, second.wait())
                self.assertTrue(second.settings_kept)
            self.gateway.start()
            terminal.wait_for(lambda text: "unreachable" not in text and "none has" in text)
            self.report()
            terminal.wait_for("sfu1.test:4433")
            terminal.interrupt()
            self.assertEqual(130, terminal.wait())
            self.assertIn(LEAVE, terminal.raw)
            self.assertTrue(terminal.settings_kept)


class PictureTests(TopCase):
    """What it looks like."""

    def setUp(self) -> None:
        self.gateway = shared_gateway(customer(max_peers=51))

    def test_everything_fits(self) -> None:
        """On the smallest usual terminal no line is broken and the last one is there."""
        for number in range(40):
            self.gateway.report(f"sfu{number}.a-rather-long-name.example:4433", ("{r}" + "x", 1))
        with self.top() as terminal:
            text = terminal.wait_for("q quit")
            lines = text.splitlines()
            self.assertTrue(lines[0].startswith("odingw "))
            self.assertTrue(any(line.startswith("acme ") for line in lines), text)
            self.assertGreater(sum(line.startswith("sfu") for line in lines), 5)

    def test_what_no_waiting_mends(self) -> None:
        with Terminal(
            *command("top", "--admin", f"http://127.0.0.1:{self.gateway.port}")
        ) as terminal:
            self.assertEqual(1, terminal.wait())
            terminal.wait_for("odingw: http://127.0.0.1")

    def test_colour(self) -> None:
        self.report()
        for no_color, coloured in (("", True), ("1", False)):
            with Terminal(
                *command("top", "--once", "--admin", f"http://127.0.0.1:{self.gateway.admin}"),
                NO_COLOR=no_color,
            ) as terminal:
                self.assertEqual(0, terminal.wait())
                terminal.wait_for("BUSIEST ROOMS")
                self.assertEqual(coloured, b"\x1b[32mlive" in terminal.raw)


class DashboardTests(SynchronousTestCase):
    """What is made of states that the real gateway seldom has."""

    def shown(self, *states: State, **view: object) -> str:
        picture = View("http://admin.test", None, Rates())
        for name, value in view.items():
            setattr(picture, name, value)
        for number, state in enumerate(states):
            picture.take(Snapshot(state, None, 1000.0, 2.0 * number))
        out = console()
        with out.capture() as captured:
            out.print(dashboard(picture))
        return captured.get()

    def calls(self, *counts: int) -> State:
        outcomes = ("success", "rejected", "failure")
        return State(
            requests=[
                Requests("Connect", outcome, count)
                for outcome, count in zip(outcomes, counts, strict=True)
            ]
        )

    def test_rates(self) -> None:
        first, second = self.calls(10, 2, 0), self.calls(30, 2, 1)
        self.assertRegex(self.shown(first), r"(?m)^Connect +- +10 +2 +0 *$")
        self.assertRegex(self.shown(first, second), r"(?m)^Connect +10\.5 +30 +2 +1 *$")
        self.assertIn("10.5 calls/s", self.shown(first, second))
        self.assertRegex(self.shown(first, second, first), r"(?m)^Connect +- ", "a restart")
        self.assertRegex(self.shown(*[first] * 9, second), r"(?m)^Connect +2\.1 ", "ten seconds")

    def test_an_older_gateway(self) -> None:
        state = State(usage=[Usage(customer="acme", peers=3, rooms=1)])
        text = self.shown(state)
        self.assertTrue(text.startswith("odingw · http://admin.test"), text)
        self.assertRegex(text, r"(?m)^acme +3 +0 +1 *$")

    def test_limits_states_and_pools(self) -> None:
        servers = [
            Server(address="full:1", load=1.0, expected_load=1.5, last_seen=997.0, peers=9),
            Server(address="off:1", disabled=True, drained=True, last_seen=100.0),
            Server(address="out:1", drained=True, load=0.5, reservations=2, tasks=3),
        ]
        state = State(
            {"eu": Pool(servers, [Room(id=("ns", "a\x1b[2Jb"), server="full:1", peers=9)])},
            customers=[Usage(id="acme", max_peers=9, max_rooms=None, peers=9)],
            version="1.0",
            uptime=11000.0,
            ready=False,
            turn=Turn(True, 7, [TurnServer("turn:a", True), TurnServer("turn:b", False)]),
        )
        state.pools["us"] = Pool()
        text = self.shown(state)
        self.assertTrue(text.startswith("odingw 1.0 · up 3h03m · NOT READY · "), text)
        self.assertIn("3 servers (1 disabled, 1 drained) · 1 rooms · 9 peers, 2 expected", text)
        self.assertRegex(text, r"(?m)^full:1 +eu +live +█+ +100% +150% +9 +0 +0 +3s *$")
        self.assertRegex(text, r"(?m)^off:1 +eu +disabled +0% .* 15m *$")
        self.assertRegex(text, r"(?m)^out:1 +eu +drained +█+ +50% +0% +0\+2 +0 +3 +- *$")
        self.assertRegex(text, r"(?m)^acme +9/9 ")
        self.assertIn("TURN: 7 credentials issued, 1 of 2 servers up, down: turn:b", text)
        self.assertIn(r"a\x1b[2Jb", text)
        self.assertLess(text.index("out:1"), text.index("off:1"))
