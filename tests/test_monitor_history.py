"""The last 15 minutes: samples, rates, and bounds."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from odingw.ops.history import INTERVAL, LENGTH, SERVERS, History
from odingw.ops.metrics import Metrics
from tests.grids import Room, report, store


class HistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = store(disable_timeout=7.5)
        self.metrics = Metrics(self.clock.seconds)
        self.history = History(self.store, self.metrics, self.clock.seconds, self.clock)
        self.addCleanup(self.history.stop)

    def report(self, address: str, load: float = 0.0, clients: int = 0) -> None:
        rooms = [Room(("acme", f"{address} {clients}"), clients)] if clients else []
        self.store.pool("").report(report(address, *rooms, load=load), self.clock.seconds())

    def test_nothing_before_the_start(self) -> None:
        view = self.history.view()
        self.assertEqual(([], {}, {}, []), (view.times, view.rates, view.gauges, view.servers))

    def test_rates_are_per_second_between_two_samples(self) -> None:
        self.metrics.call("client", "Connect", "success")
        self.history.start()
        for _ in range(10):
            self.metrics.call("client", "Connect", "success")
        self.metrics.call("client", "Connect", "rejected")
        self.metrics.call("server", "sfu.Report", "failure")
        self.metrics.refused("no_server")
        self.metrics.verified("ok")
        self.metrics.verified("expired")
        self.metrics.issued()
        self.clock.advance(INTERVAL)
        self.clock.advance(INTERVAL)
        view = self.history.view()
        self.assertEqual([1000, 1005, 1010], view.times)
        self.assertEqual(
            {
                "connects": [None, 2, 0],
                "connects_refused": [None, 0.2, 0],
                "success": [None, 2, 0],
                "rejected": [None, 0.2, 0],
                "failure": [None, 0.2, 0],
                "tokens_rejected": [None, 0.2, 0],
                "credentials": [None, 0.2, 0],
            },
            view.rates,
        )
        self.assertEqual({"no_server": [None, 0.2, 0]}, view.refusals)

    def test_a_late_sample_counts_for_the_time_it_stands_for(self) -> None:
        self.history.start()
        self.metrics.issued()
        self.clock.advance(4 * INTERVAL)
        self.assertEqual([None, 0.05], self.history.view().rates["credentials"])

    def test_gauges_are_those_of_live_servers(self) -> None:
        self.history.start()
        self.report("a:1", load=0.5, clients=4)
        self.report("b:1", load=0.25, clients=2)
        self.clock.advance(INTERVAL)
        self.report("b:1", load=0.75, clients=3)
        for _ in range(int(INTERVAL)):
            self.store.tick(self.clock.seconds())
            self.clock.advance(1)
        view = self.history.view()
        self.assertEqual([0, 6, 3], view.gauges["clients"])
        self.assertEqual([0, 2, 1], view.gauges["rooms"])
        self.assertEqual([None, 0.5, 0.75], view.gauges["highest_load"])
        self.assertEqual([None, 0.375, 0.75], view.gauges["mean_load"])
        self.assertEqual(
            {"a:1": [None, 0.5, None], "b:1": [None, 0.25, 0.75]},
            {series.server: series.load for series in view.servers},
        )

    def test_it_holds_15_minutes_and_no_more(self) -> None:
        self.history.start()
        for _ in range(LENGTH + 20):
            self.clock.advance(INTERVAL)
        view = self.history.view()
        self.assertEqual(LENGTH, len(view.times))
        self.assertEqual(15 * 60, view.times[-1] - view.times[0])
        self.assertEqual(self.clock.seconds(), view.times[-1])
        self.assertEqual({LENGTH}, {len(column) for column in view.rates.values()})

    def test_of_many_servers_some_are_followed_and_stay_so(self) -> None:
        for number in range(SERVERS + 10):
            self.report(f"server-{number}:1", load=0.1)
        self.report("full:1", load=1.0)
        self.history.start()
        followed = {series.server for series in self.history.view().servers}
        self.assertEqual(SERVERS, len(followed))
        self.clock.advance(INTERVAL)
        view = self.history.view()
        self.assertEqual(followed, {series.server for series in view.servers})
        self.assertEqual([1, 1], view.gauges["highest_load"])

    def test_a_failure_is_logged_and_not_the_end(self) -> None:
        self.history.start()
        real, self.metrics.refusals = self.metrics.refusals, None  # type: ignore[assignment,method-assign]  # to break it
        self.clock.advance(INTERVAL)
        self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))
        self.metrics.refusals = real  # type: ignore[method-assign]  # as it was
        self.clock.advance(INTERVAL)
        self.assertEqual([1000, 1010], self.history.view().times)

    def test_a_clock_that_stands_still_gives_no_sample(self) -> None:
        history = History(self.store, self.metrics, lambda: 5.0, self.clock)
        self.addCleanup(history.stop)
        history.start()
        self.clock.advance(INTERVAL)
        self.assertEqual([5.0], history.view().times)
