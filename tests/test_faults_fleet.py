"""Short forms of ``benchmarks.faults fleet`` and ``deploy``: real gateways on one real Redis."""

import asyncio

import pytest
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.faults import deploy, fleet
from tests.redis_server import require_redis


class FleetTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_redis(self)

    def test_one_grid_that_outlives_a_gateway(self) -> None:
        """No room is split, limits hold, and tasks arrive though a gateway is killed."""
        text: list[str] = []
        plan = fleet.Plan(
            servers=3, connects=1000, rooms=100, connections=16, limit=60, tasks=300, delivery=10
        )
        findings = asyncio.run(fleet.run(plan, text.append))
        self.assertEqual([], findings.broken, "".join(text))
        found = dict(zip(fleet.COLUMNS, findings.rows[0], strict=True))
        for column in ("rooms", "granted", "tasks", "elsewhere"):
            self.assertGreater(int(str(found[column])), 0, "".join(text))


@pytest.mark.long
class DeployTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_redis(self)

    def test_no_request_fails_while_gateways_are_replaced(self) -> None:
        """Behind a balancer that asks /readyz, one gateway at a time ends and starts again."""
        text: list[str] = []
        plan = deploy.Plan(
            rounds=1, servers=2, rooms=60, connects=150, calls=30, connections=16, pause=0.2
        )
        findings = asyncio.run(deploy.run(plan, text.append))
        self.assertEqual([], findings.broken, "".join(text))
        self.assertEqual(plan.gateways, len(findings.rows))
        for row in findings.rows:
            found = dict(zip(deploy.COLUMNS, row, strict=True))
            for column in ("connects", "acked"):
                self.assertGreater(int(str(found[column])), 0, "".join(text))
