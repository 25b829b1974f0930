"""Customers kept fresh."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import AccessKeyConfig, CustomerConfig, CustomerSource, FunctionReference
from odingw.config import Gateway as GatewayConfig
from odingw.customers import (
    CustomerRefresher,
    Directory,
    FileSource,
    FunctionSource,
    SourceError,
    UrlSource,
    directory,
    refresher,
)
from odingw.customers.refresher import FETCH_TIMEOUT, PROBLEMS_LOGGED
from tests.customer_documents import SECRET, access_key, document, jwk, without

Answer: TypeAlias = Callable[[], Any]


def logger(events: list[LogEvent]) -> Logger:
    observer: Any = events.append
    return Logger("test", observer=observer)


class FakeSource:
    """A source whose fetches are ended by the test."""

    name = "the fake"

    def __init__(self) -> None:
        self.fetches: list[Deferred[list[object]]] = []
        self.cancelled = 0
        self.answer: Answer | None = None

    def fetch(self) -> Deferred[list[object]]:
        fetch = self.answer() if self.answer is not None else Deferred(self._cancel)
        self.fetches.append(fetch)
        return fetch

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


class RefresherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.source = FakeSource()
        self.events: list[LogEvent] = []
        self.changes: list[Directory] = []
        self.refresher = self.new()

    def new(self, *static: object) -> CustomerRefresher:
        return CustomerRefresher(
            directory(static),
            self.source,
            300,
            self.clock,
            logger(self.events),
            on_change=self.changes.append,
        )

    def lines(self, level: LogLevel = LogLevel.warn) -> list[str]:
        """The log lines of that level since the last call."""
        lines = [formatEvent(event) for event in self.events if event["log_level"] is level]
        self.events.clear()
        return lines

    def names(self) -> list[str]:
        return list(self.refresher.directory.customers)

    def succeed(self, *documents: object) -> None:
        self.source.answer = lambda: succeed(list(documents))
        self.assertTrue(self.successResultOf(self.refresher.refresh()))

    def test_nobody_is_let_in_before_the_first_list(self) -> None:
        first = self.refresher.start()
        self.assertEqual(self.refresher.directory, Directory())
        self.assertFalse(self.refresher.loaded)
        self.assertNoResult(first)

    def test_the_first_list(self) -> None:
        first = self.refresher.start()
        self.clock.advance(2)
        self.source.fetches[0].callback([document("acme", access_key())])
        self.assertIsNone(self.successResultOf(first))
        self.assertEqual(self.refresher.directory, directory([document("acme", access_key())]))
        self.assertTrue(self.refresher.loaded)
        self.assertEqual((self.refresher.failures, self.refresher.last_success), (0, 1002))
        self.assertEqual(self.changes, [self.refresher.directory])
        self.assertEqual(self.lines(LogLevel.info), ["1 customers with 1 access keys are let in"])

    def test_a_list_at_every_interval(self) -> None:
        self.refresher.start()
        self.source.fetches[0].callback([document("a")])
        self.clock.advance(299)
        self.assertEqual(len(self.source.fetches), 1)
        self.clock.advance(1)
        self.source.fetches[1].callback([document("b")])
        self.assertEqual(self.names(), ["b"])
        self.clock.advance(300)
        self.assertEqual(len(self.source.fetches), 3)

    def test_a_source_that_answers_at_once_is_asked_once(self) -> None:
        self.source.answer = lambda: succeed([document("a")])
        self.assertIsNone(self.successResultOf(self.refresher.start()))
        self.assertEqual(len(self.source.fetches), 1)
        self.refresher.stop()

    def test_a_first_failure_is_not_the_last_word(self) -> None:
        first = self.refresher.start()
        self.source.fetches[0].errback(SourceError("gone"))
        self.assertIsNone(self.successResultOf(first))
        self.clock.advance(300)
        self.source.fetches[1].callback([document("a")])
        self.assertEqual(self.names(), ["a"])

    def test_failures_keep_the_last_good_list(self) -> None:
        def breaks() -> Deferred[list[object]]:
            raise RuntimeError(SECRET)

        self.succeed(document("a"))
        self.lines()
        good = self.refresher.directory
        answers: list[tuple[Answer, str]] = [
            (lambda: fail(SourceError("HTTP status 500")), "HTTP status 500"),
            (lambda: fail(ValueError(SECRET)), "ValueError"),
            (lambda: fail(SystemExit(SECRET)), "SystemExit"),
            (lambda: fail(CancelledError()), "CancelledError"),
            (breaks, "RuntimeError"),
            (lambda: succeed(5), "TypeError"),
            (lambda: succeed([]), "the list is empty"),
            (
                lambda: succeed([without("maxPeers"), 5]),
                "no customer of the list can be used; customer 'acme' is refused: maxPeers is "
                "absent (null is no limit)",
            ),
        ]
        for number, (answer, cause) in enumerate(answers, 1):
            self.clock.advance(1)
            self.source.answer = answer
            self.assertFalse(self.successResultOf(self.refresher.refresh()), cause)
            self.assertEqual(
                self.lines(),
                [f"customers were not refreshed from the fake, the last good list stays: {cause}"],
            )
            self.assertIs(self.refresher.directory, good)
            self.assertEqual((self.refresher.failures, self.refresher.last_success), (number, 1000))
        self.assertEqual(len(self.changes), 1)

    def test_a_slow_fetch_is_a_failure(self) -> None:
        outcome = self.refresher.refresh()
        self.clock.advance(FETCH_TIMEOUT - 1)
        self.assertNoResult(outcome)
        self.clock.advance(1)
        self.assertFalse(self.successResultOf(outcome))
        self.assertEqual((self.source.cancelled, self.refresher.failures), (1, 1))
        self.assertIn("no answer within 60 s", self.lines()[0])

    def test_a_fetch_that_cannot_be_cancelled_does_not_block_the_next(self) -> None:
        async def stubborn() -> list[object]:
            while True:
                try:
                    await waits.pop()
                except CancelledError:
                    continue

        waits: list[Deferred[None]] = [Deferred(), Deferred()]
        last = waits[0]
        self.source.answer = lambda: Deferred.fromCoroutine(stubborn())
        self.refresher.start()
        self.clock.advance(FETCH_TIMEOUT)
        self.succeed(document("a"))
        # It ends after all, badly, and nobody cares.
        last.callback(None)
        self.assertEqual((self.names(), self.refresher.failures), (["a"], 1))

    def test_one_fetch_at_a_time(self) -> None:
        outcomes = [self.refresher.refresh(), self.refresher.refresh()]
        self.assertEqual(len(self.source.fetches), 1)
        self.source.fetches[0].callback([document("a")])
        self.assertEqual([self.successResultOf(outcome) for outcome in outcomes], [True, True])
        self.refresher.refresh()
        self.assertEqual(len(self.source.fetches), 2)

    def test_a_fetch_that_is_asked_for_anew_follows_the_present_one(self) -> None:
        outcomes = [self.refresher.refresh()]
        outcomes += [self.refresher.refresh(again=True) for _ in range(3)]
        self.source.fetches[0].callback([document("old")])
        self.assertEqual((2, ["old"]), (len(self.source.fetches), self.names()))
        self.source.fetches[1].callback([document("new")])
        self.assertEqual([True] * 4, [self.successResultOf(one) for one in outcomes])
        self.assertEqual((2, ["new"]), (len(self.source.fetches), self.names()))

    def test_the_end_while_a_fetch_is_asked_for_anew(self) -> None:
        outcomes = [self.refresher.refresh(), self.refresher.refresh(again=True)]
        self.refresher.stop()
        self.assertEqual([False] * 2, [self.successResultOf(one) for one in outcomes])
        self.assertEqual(1, len(self.source.fetches))

    def test_who_joined_and_gave_up_disturbs_nobody(self) -> None:
        first, second = self.refresher.refresh(), self.refresher.refresh()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.source.fetches[0].callback([document("a")])
        self.assertTrue(self.successResultOf(second))

    def test_an_interval_during_a_fetch_joins_it(self) -> None:
        self.refresher = CustomerRefresher(Directory(), self.source, 10, self.clock, logger([]))
        first = self.refresher.start()
        self.clock.advance(10)
        self.assertEqual(len(self.source.fetches), 1)
        self.source.fetches[0].callback([document("a")])
        self.successResultOf(first)
        self.clock.advance(10)
        self.assertEqual(len(self.source.fetches), 2)

    def test_a_change_is_told_once(self) -> None:
        self.succeed(document("a", access_key()))
        self.succeed(document("a", access_key()), 5)
        self.assertEqual(len(self.changes), 1)
        self.succeed(document("a", access_key(), maxPeers=1))
        self.succeed(document("a"))
        self.assertEqual(len(self.changes), 3)
        self.assertIs(self.changes[-1], self.refresher.directory)

    def test_a_hook_that_raises_ends_nothing(self) -> None:
        def hook(_: Directory) -> None:
            raise RuntimeError("made up")

        self.refresher.on_change = hook
        self.refresher.start()
        self.source.fetches[0].callback([document("a")])
        self.assertEqual(len(self.lines(LogLevel.critical)), 1)
        self.clock.advance(300)
        self.assertEqual((self.names(), len(self.source.fetches)), (["a"], 2))

    def test_a_hook_may_ask_for_a_refresh(self) -> None:
        self.refresher.on_change = lambda _: joined.append(self.refresher.refresh())
        joined: list[Deferred[bool]] = []
        self.succeed(document("a"))
        self.assertEqual([self.successResultOf(outcome) for outcome in joined], [True])
        self.assertEqual(len(self.source.fetches), 1)

    def test_problems_are_logged_when_they_are_new(self) -> None:
        self.succeed(document("a"), 5)
        self.assertEqual(self.lines(), ["customer 2 of the list is refused: it is not an object"])
        self.succeed(document("a"), 5)
        self.assertEqual(self.lines(), [])
        self.succeed(document("a"), 5, without("maxPeers"))
        self.assertEqual(len(self.lines()), 1)
        self.succeed(document("a"))
        self.succeed(document("a"), 5)
        self.assertEqual(len(self.lines()), 1)

    def test_a_flood_of_problems_is_cut_short(self) -> None:
        self.succeed(document("a"), *range(100))
        lines = self.lines()
        self.assertEqual(len(lines), PROBLEMS_LOGGED + 1)
        self.assertEqual(lines[-1], "80 more problems")

    def test_the_configurations_customers_are_there_from_the_start(self) -> None:
        self.refresher = self.new(document("s", access_key()), 5)
        self.assertEqual(self.names(), ["s"])
        self.refresher.start()
        self.assertEqual(self.lines(), ["customer 2 of the list is refused: it is not an object"])
        self.source.fetches[0].callback([document("a")])
        self.assertEqual(self.names(), ["s", "a"])

    def test_other_customers_of_the_configuration(self) -> None:
        self.refresher = self.new(document("s"))
        self.succeed(document("a"))
        self.refresher.set_static(directory([document("t")]))
        self.assertEqual(self.names(), ["t", "a"])
        self.assertEqual(len(self.changes), 2)
        self.refresher.set_static(directory([document("t")]))
        self.assertEqual(len(self.changes), 2)

    def test_without_a_source(self) -> None:
        self.refresher = CustomerRefresher(
            directory([document("s"), 5]),
            None,
            0,
            self.clock,
            logger(self.events),
        )
        self.assertIsNone(self.successResultOf(self.refresher.start()))
        self.assertTrue(self.successResultOf(self.refresher.refresh()))
        self.assertTrue(self.refresher.loaded)
        self.assertEqual((self.names(), len(self.lines())), (["s"], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.refresher.stop()

    def test_stop(self) -> None:
        first = self.refresher.start()
        self.refresher.stop()
        self.assertEqual(self.source.cancelled, 1)
        self.assertIsNone(self.successResultOf(first))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.refresher.failures, self.lines()), (0, []))
        self.refresher.stop()

    def test_start_after_stop(self) -> None:
        self.refresher.start()
        self.refresher.stop()
        self.refresher.start()
        self.source.fetches[1].errback(Failure(SourceError("gone")))
        self.clock.advance(300)
        self.source.fetches[2].callback([document("a")])
        self.assertEqual((self.names(), self.refresher.failures), (["a"], 1))


class ConfiguredTests(SynchronousTestCase):
    """From the configuration to a refresher."""

    def configured(self, source: CustomerSource | None) -> CustomerRefresher:
        customers = (CustomerConfig(id="s", access_keys=(AccessKeyConfig(public_key=jwk()),)),)
        return refresher(GatewayConfig(customers=customers, customer_source=source), Clock())

    def test_without_a_source(self) -> None:
        got = self.configured(None)
        self.assertEqual(list(got.directory.keys), ["k1"])
        self.assertTrue(got.loaded)

    def test_each_source(self) -> None:
        function = FunctionReference(name="loads", module="json")
        for config, kind, name in (
            (CustomerSource(url="https://u:p@h/c?k=s"), UrlSource, "https://h/c"),
            (CustomerSource(file=Path("a.json")), FileSource, "a.json"),
            (CustomerSource(function=function, interval=7), FunctionSource, "json:loads"),
        ):
            got = self.configured(config)
            self.assertFalse(got.loaded)
            self.assertIsInstance(got.source, kind)
            assert got.source is not None
            self.assertEqual(got.source.name, name)
            self.assertEqual(got.interval, config.interval)
