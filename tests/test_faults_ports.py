"""A short form of ``benchmarks.faults ports``: two processes on one port."""

import asyncio

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.faults import ports


class PortsTests(SynchronousTestCase):
    def test_the_kernel_spreads_connections_over_both(self) -> None:
        """With ``listen.reuse_port`` each of two processes gets its share, and serves it."""
        text: list[str] = []
        findings = asyncio.run(ports.run(ports.Plan(schemes=("tcp",)), text.append))
        self.assertEqual([], findings.broken, "".join(text))
        self.assertEqual(1, len(findings.rows))
