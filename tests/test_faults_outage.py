"""Short forms of ``benchmarks.faults outage``: Redis goes away and comes back."""

import asyncio

import pytest
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.faults import outage
from tests.redis_server import require_redis


class OutageTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_redis(self)

    def run_variant(self, variant: str) -> None:
        text: list[str] = []
        plan = outage.Plan(
            variants=(variant,),
            seconds=4,
            servers=2,
            rooms=60,
            connects=60,
            news=10,
            calls=10,
            waiting=60,
            recovery=10,
        )
        findings = asyncio.run(outage.run(plan, text.append))
        self.assertEqual([], findings.broken, "".join(text))
        found = dict(zip(outage.COLUMNS, findings.rows[0], strict=True))
        for column in ("known", "reports", "tasks"):
            self.assertGreater(int(str(found[column])), 0, "".join(text))

    @pytest.mark.long
    def test_redis_comes_back_with_its_data(self) -> None:
        """Known rooms and reports are served meanwhile, and all is as before afterwards."""
        self.run_variant("kept")

    def test_redis_comes_back_empty(self) -> None:
        """Gateways fill it again from what they know."""
        self.run_variant("empty")

    def test_redis_hangs(self) -> None:
        """A Redis that takes requests and does not answer is as good as none."""
        self.run_variant("paused")

    @pytest.mark.long
    def test_redis_is_slow(self) -> None:
        """Slow is not away: all requests are served."""
        self.run_variant("slow")

    @pytest.mark.long
    def test_another_redis_takes_its_place(self) -> None:
        """The name leads to an empty one now, and gateways fill it from what they know."""
        self.run_variant("failover")
