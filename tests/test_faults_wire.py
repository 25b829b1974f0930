"""Short forms of ``benchmarks.faults`` for what peers do on the wire, against real processes."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.faults import badtokens, cut, halfclosed, slow, storm, tlsgarbage
from benchmarks.faults.findings import Findings

Run = Coroutine[Any, Any, Findings]


class WireTests(SynchronousTestCase):
    def check(self, run: Run, promises: int) -> None:
        findings = asyncio.run(run)
        self.assertEqual([], findings.broken)
        # A run that ends early promises nothing.
        self.assertEqual(promises, len(findings.promises), findings.promises)

    def quiet(self, _text: str) -> None:
        """Take what is printed."""

    def test_connections_cut_in_requests_and_replies(self) -> None:
        """Nothing half is carried out, no task is lost, no connection stays."""
        self.check(cut.run(cut.Plan(step=37), self.quiet), 6)

    def test_half_closed_sockets(self) -> None:
        """They are answered if they have asked, and closed if they have not."""
        self.check(halfclosed.run(halfclosed.Plan(connections=60), self.quiet), 4)

    def test_slow_connections(self) -> None:
        """They are dropped in time, bounded by address, and others are served meanwhile."""
        plan = slow.Plan(connections=300, header_timeout=1.5, per_address=20)
        self.check(slow.run(plan, self.quiet), 6)

    def test_all_servers_report_at_once(self) -> None:
        """All are answered, none is written off."""
        self.check(storm.run(storm.Plan(servers=12, rooms=100, waves=2), self.quiet), 5)

    def test_what_is_no_tls(self) -> None:
        """It ends, and leaves no line in the log."""
        self.check(tlsgarbage.run(tlsgarbage.Plan(connections=8), self.quiet), 3)

    def test_bad_tokens(self) -> None:
        """They are refused, cost no more than good ones, and leave nothing behind."""
        self.check(badtokens.run(badtokens.Plan(tokens=400, connections=8), self.quiet), 8)
