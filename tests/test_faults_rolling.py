"""Short forms of ``benchmarks.faults rolling``: restarts behind what the pages show."""

import asyncio

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.faults import rolling


class RollingTests(SynchronousTestCase):
    def run_front(self, front: str) -> None:
        text: list[str] = []
        plan = rolling.Plan(
            fronts=(front,), rounds=1, servers=2, rooms=600, rate=60, connections=16, hurry=5
        )
        findings = asyncio.run(rolling.run(plan, text.append))
        self.assertEqual([], findings.broken, "".join(text))
        found = dict(zip(rolling.COLUMNS, findings.rows[0], strict=True))
        self.assertEqual(2, found["restarts"])
        self.assertGreater(int(str(found["requests"])), 100, "".join(text))

    def test_one_port(self) -> None:
        self.run_front("reuse_port")

    def test_haproxy(self) -> None:
        self.run_front("haproxy")

    def test_nginx(self) -> None:
        self.run_front("nginx")
