"""The short form of ``benchmarks.soak``, and how it judges."""

import asyncio
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.soak.counts import Counts, Ledger
from benchmarks.soak.samples import MEASURES, Sample, longest_lives, slope, trends, write_csv
from benchmarks.soak.side import Rates
from benchmarks.soak.soak import Plan, run
from tests.redis_server import require_redis


def sample(at: float, rss: int, pid: int = 1, descriptors: int = 20) -> Sample:
    return Sample(at, "one", pid, rss, descriptors, 10, 5, 3, at / 10)


class JudgementTests(SynchronousTestCase):
    def test_a_leak_is_seen_through_noise(self) -> None:
        noise = (0, 700, -500, 300, -900, 100)
        flat = [sample(at, 70_000 + noise[at % 6]) for at in range(100)]
        leaky = [sample(at, 70_000 + 60 * at + noise[at % 6]) for at in range(100)]
        self.assertTrue(all(trend.flat for trend in trends(flat, 3000)))
        grown = {trend.measure: trend for trend in trends(leaky, 3000)}["rss_kib"]
        self.assertFalse(grown.flat)
        # The warm-up, a fifth, does not count.
        self.assertAlmostEqual(60 * 79, grown.growth, delta=500)

    def test_descriptors_that_are_not_given_back(self) -> None:
        leaky = [sample(at, 70_000, descriptors=20 + at // 10) for at in range(100)]
        self.assertEqual(
            ["descriptors"], [trend.measure for trend in trends(leaky, 3000) if not trend.flat]
        )

    def test_one_jump_is_no_slope(self) -> None:
        points = [(float(at), 5.0 if at != 50 else 9000.0) for at in range(100)]
        self.assertEqual(0.0, slope(points))

    def test_the_longest_life_is_judged(self) -> None:
        first = [sample(at, 1, pid=1) for at in range(3)]
        second = [sample(at, 1, pid=2) for at in range(3, 20)]
        self.assertEqual({"one": second}, longest_lives([*first, *second]))

    def test_samples_are_written_for_other_programs(self) -> None:
        path = Path(self.mktemp())
        write_csv(path, [sample(1.5, 70_000)])
        header, row = path.read_text().splitlines()
        self.assertLessEqual(set(MEASURES), set(header.split(",")))
        self.assertTrue(row.startswith("1.5,one,1,70000,"), row)


class CountTests(SynchronousTestCase):
    PAGE = (
        "# HELP odingw_requests_total Calls\n"
        'odingw_requests_total{api="client",method="Connect",outcome="success"} 7.0\n'
        'odingw_requests_total{api="client",method="Connect",outcome="failure"} 2.0\n'
        'odingw_requests_total{api="client",method="RoomUpdate",outcome="success"} 3.0\n'
        'odingw_tasks_total{fate="queued"} 3.0\n'
        'odingw_tasks_total{fate="delivered"} 3.0\n'
        "odingw_turn_credentials_issued_total 4.0\n"
    )

    def test_processes_that_ended_count_too(self) -> None:
        ledger = Ledger()
        ledger.scraped("one", self.PAGE)
        ledger.ended("one")
        ledger.scraped("one", self.PAGE)
        ledger.scraped("one", self.PAGE)
        found = ledger.counts()
        self.assertEqual(
            (14, 4, 6, 8), (found.granted, found.refused, found.queued, found.credentials)
        )

    def test_what_differs_is_named(self) -> None:
        mine, theirs = Counts(granted=7, reports=5), Counts(granted=7, reports=4)
        self.assertEqual(["reports: the loads counted 5, the gateways 4"], mine.differences(theirs))


class SoakTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_redis(self)

    @pytest.mark.long
    def test_all_loads_together(self) -> None:
        """Restarts, drains, deaths and reloads: all counts agree, and no error is logged."""
        rates = Rates(
            connects=60, rooms=60, room_life=15, reload=2, drain=3, death=4, close=2, ban_time=20
        )
        plan = Plan(seconds=9, rates=rates, interval=0.5, memory_slack_kib=16_384)
        text: list[str] = []
        outcome = asyncio.run(run(plan, text.append))
        self.assertEqual([], outcome.findings.broken, "".join(text))
        self.assertEqual(3, len(outcome.findings.rows), "".join(text))
        for side, counts in outcome.counts.items():
            for name in ("granted", "accepted", "received", "reports", "credentials"):
                self.assertGreater(getattr(counts, name), 0, f"{side}: {name}")
