"""Rates: who asks too often is told when to come back, and nobody pays for others."""

from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import TOO_MANY_REQUESTS, RpcError
from odingw.web.rate import RateLimit, check_rate


class CheckRateTests(SynchronousTestCase):
    def ask(self, limit: RateLimit, who: object, times: int, now: float = 0.0) -> int:
        """Ask several times; return how often it was too much."""
        refused = 0
        for _ in range(times):
            try:
                check_rate(limit, who, now)
            except RpcError as error:
                self.assertEqual(TOO_MANY_REQUESTS, error.code)
                self.assertGreaterEqual(int(error.headers["Retry-After"]), 1)
                refused += 1
        return refused

    def test_a_burst_of_a_second_and_then_a_steady_rate(self) -> None:
        limit = RateLimit(4)
        self.assertEqual(2, self.ask(limit, "a", 6))
        self.assertEqual(0, self.ask(limit, "b", 4))
        self.assertEqual(1, self.ask(limit, "a", 3, now=0.5))

    def test_without_a_rate_everybody_may(self) -> None:
        self.assertEqual(0, self.ask(RateLimit(0), "a", 100))

    def test_those_of_whom_nothing_is_known_do_not_share_a_bucket(self) -> None:
        self.assertEqual(0, self.ask(RateLimit(1), None, 100))
