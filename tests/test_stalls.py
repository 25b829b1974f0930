"""The watch over the reactor."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from odingw.ops.stalls import INTERVAL, StallWatch


class StallWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.worked = 0.0
        self.watch = StallWatch(self.clock, self.clock.seconds, lambda: self.worked)
        self.watch.start()
        self.clock.advance(5)

    def test_calls_on_time_are_no_stall(self) -> None:
        for _ in range(10):
            self.clock.advance(INTERVAL)
        self.assertAlmostEqual(self.watch.longest, 0)

    def test_the_longest_delay_is_kept(self) -> None:
        self.clock.advance(INTERVAL + 0.3)
        self.clock.advance(INTERVAL + 0.1)
        self.assertAlmostEqual(self.watch.longest, 0.3)
        self.assertEqual(self.watch.longest_busy, 0, "others had the processor")

    def test_work_is_told_from_waiting(self) -> None:
        self.worked += 0.2
        self.clock.advance(INTERVAL + 0.3)
        self.assertAlmostEqual(self.watch.longest_busy, 0.2)

    def test_stop(self) -> None:
        self.watch.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
