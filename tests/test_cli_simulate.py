"""``odingw simulate``: at a pseudo-terminal with a real gateway, and against a stub."""

import json
import re
import sys
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Site

from odingw.cli.simulate import _servers_url, simulate
from tests.process import ACCESS_KEY, customer
from tests.sim_stub import RpcFault, StubGateway
from tests.terminal import ROOT, Terminal, command, environment, shared_gateway


class TerminalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gateway = shared_gateway(customer(max_peers=20))

    def simulate(self, *options: str) -> Terminal:
        return Terminal(
            *command("simulate", "--servers", "2", "--spread", "0", *options),
            ODINGW_URL=f"http://127.0.0.1:{self.gateway.port}",
            ODINGW_ACCESS_KEY=ACCESS_KEY.text,
        )

    def test_to_the_end(self) -> None:
        with self.simulate("--rate", "100", "-d", "1s", "--address-format", "end-{}:1") as terminal:
            terminal.wait_for(lambda text: bool(re.search(r"clients .*/1 s +\d+ granted", text)))
            text = terminal.wait_for("LATENCY")
            self.assertEqual(0, terminal.wait())
            text = terminal.wait_for("ms   ")
        self.assertIn("1/1 s", text)
        self.assertRegex(text, r"(?m)^2 +2 +\d+ +\d+ +\d+ +\d+% to \d+%$")
        self.assertRegex(text, r"REFUSED BECAUSE +COUNT\n *peer_limit_exceeded +\d+\n")
        self.assertRegex(text, r"(?m)^LATENCY +p50 +p95 +p99 +max\n *ms( +\d+\.\d\d){4}$")

    def test_interrupted(self) -> None:
        """Ctrl-C ends it long before its time, with the summary."""
        with self.simulate("--rate", "50", "-d", "1h", "--address-format", "int-{}:1") as terminal:
            terminal.wait_for(lambda text: bool(re.search(r"clients .*/3600 s", text)))
            terminal.interrupt()
            self.assertEqual(130, terminal.wait())
            terminal.wait_for("CALLS")
            self.assertTrue(terminal.settings_kept)


class AddressTests(SynchronousTestCase):
    """Where servers report, if nothing or only some of it is said."""

    def test_server_api(self) -> None:
        url = "http://gateway.test/eu/"
        for internal, arguments, wanted in (
            (None, [], "http://127.0.0.1:7002/"),
            (None, ["--url", url], url),
            ("http://h:1/eu/internal", ["--url", url], "http://h:1/eu/"),
            ("http://u:p@h:1/internal", [], "http://u:p@h:1/"),
            ("http://h:1", [], "http://h:1"),
            ("http://h:1/", [], "http://h:1/"),
        ):
            with simulate.make_context("simulate", [*arguments]) as context:
                found = _servers_url(internal, context.params["url"])
            self.assertEqual(wanted, found, (internal, arguments))


class StubTests(TestCase):
    """Gateways that do what no real one does."""

    def setUp(self) -> None:
        self.reactor = cast("Any", reactor)
        self.stub = StubGateway()
        self.stub.report_interval = 200
        self.stub.address = "sfu-2.sim:4433"
        port = self.reactor.listenTCP(0, Site(self.stub), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}/"

    def simulate(self, *arguments: str) -> Deferred[tuple[bytes, bytes, int]]:
        common = ["-m", "odingw.cli", "simulate", "--url", self.url, "--servers", "2"]
        ended: Deferred[tuple[bytes, bytes, int]]
        ended = getProcessOutputAndValue(
            sys.executable,
            [*common, "--spread", "0", "--json", *arguments],
            env=environment(ODINGW_ACCESS_KEY=ACCESS_KEY.text),
            path=str(ROOT),
        )
        return ended

    async def test_servers_and_clients(self) -> None:
        out, err, status = await self.simulate("--rate", "50", "-d", "1", "--seed", "1")
        self.assertEqual((b"", 0), (err, status))
        document = json.loads(out)
        self.assertEqual(
            {"sfu-1.sim:4433", "sfu-2.sim:4433"},
            {report["public_endpoint"] for report in self.stub.reports},
        )
        self.assertEqual((2, 2), tuple(document["servers"][name] for name in ("total", "running")))
        clients, latency = document["clients"], document["latency"]
        self.assertGreater(clients["calls"], 10)
        self.assertEqual(clients["granted"], clients["joined"])
        self.assertLessEqual(0, latency["p50"])
        self.assertLessEqual(latency["p50"], latency["p95"])
        self.assertLessEqual(latency["p99"], latency["max"])

    async def test_servers_alone(self) -> None:
        out, err, status = await self.simulate("-d", "0.3", "--rate", "0")
        self.assertEqual((b"", 0), (err, status))
        self.assertIsNone(json.loads(out)["clients"])
        self.assertEqual([], self.stub.of("Connect"))

    async def test_servers_elsewhere(self) -> None:
        """Servers report where ``--internal`` says, with its user, and clients call ``--url``."""
        servers = StubGateway()
        servers.report_interval, servers.address = 200, self.stub.address
        port = self.reactor.listenTCP(0, Site(servers), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        internal = f"http://odin:secret@127.0.0.1:{port.getHost().port}/internal"
        out, err, status = await self.simulate(
            "--internal", internal, "--rate", "50", "-d", "1", "--seed", "1"
        )
        self.assertEqual((b"", 0), (err, status))
        self.assertEqual([], self.stub.reports)
        self.assertEqual([], servers.of("Connect"))
        self.assertTrue(servers.reports)
        self.assertGreater(json.loads(out)["clients"]["granted"], 0)

    async def test_no_server_api(self) -> None:
        out, err, status = await self.simulate("--internal", f"{self.url}eu/", "--rate", "0")
        self.assertEqual((b"", 2), (out, status))
        self.assertIn(b"does not end with /internal", err)

    async def test_too_short(self) -> None:
        """For a client to come."""
        out, err, status = await self.simulate("-d", "0.001", "--rate", "0.001")
        self.assertEqual(1, status)
        self.assertEqual(0, json.loads(out)["clients"]["calls"])
        self.assertTrue(err.startswith(b"odingw: no client came; "), err)

    async def test_not_let_in(self) -> None:
        """One line says so, and no other."""
        self.stub.overrides["sfu.GridConfig"] = RpcFault(-32003, "no authorization", 403)
        out, err, status = await self.simulate("--rate", "0")
        self.assertEqual((b"", 1), (out, status))
        self.assertEqual(1, len(err.splitlines()), err)
        self.assertIn(b"odingw: the servers could not start: no authorization", err)

    async def test_misbehaviour(self) -> None:
        self.stub.overrides["Connect"] = {"address": "nowhere"}
        out, err, status = await self.simulate("--rate", "50", "-d", "0.5")
        self.assertEqual(1, status)
        self.assertGreater(json.loads(out)["misbehaviours"], 0)
        self.assertIn(b"missing required field `token`", err)
        self.assertIn(b"odingw: the gateway broke the wire reference", err)

    async def test_refused(self) -> None:
        self.stub.overrides["sfu.GridConfig"] = {"config": ""}
        out, err, status = await self.simulate("--rate", "0")
        self.assertEqual((b"", 1), (out, status))
        self.assertIn(
            b"odingw: the servers could not start: the server's own setting log was dropped", err
        )
