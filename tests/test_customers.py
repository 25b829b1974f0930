"""Customers: lists read, put together and kept fresh."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import AccessKeyConfig, CustomerConfig, CustomerSource, FunctionReference
from odingw.config import Gateway as GatewayConfig
from odingw.customers import (
    FETCH_TIMEOUT,
    PROBLEMS_LOGGED,
    Customer,
    CustomerKey,
    CustomerRefresher,
    Directory,
    FileSource,
    FunctionSource,
    SourceError,
    UrlSource,
    combined,
    directory,
    refresher,
    static_directory,
)
from odingw.tokens import load_public_jwk

X: Final = "ZGYe_vBZVNkzQ6fD8BmkJUb6o0p8wfKt3PqFVx6-be4"
OTHER_X: Final = "utKRAF8mh4CApmckdVkkpJ3Y6rwijbPfX8SC3N8zW6k"
SECRET: Final = "whuNSscDwRXrZMAZhzAO0eFDzA3eVeZwq0W039K90wA"


def jwk(kid: str = "k1", x: str = X) -> dict[str, Any]:
    return {"kid": kid, "kty": "OKP", "crv": "Ed25519", "x": x}


def access_key(kid: str = "k1", x: str = X, **more: object) -> dict[str, Any]:
    return {"publicKey": jwk(kid, x), **more}


def document(name: str = "acme", *keys: object, **more: object) -> dict[str, Any]:
    return {"id": name, "maxPeers": 100, "maxRooms": None, "accessKeys": list(keys), **more}


def without(member: str) -> dict[str, Any]:
    return {key: value for key, value in document().items() if key != member}


Answer: TypeAlias = Callable[[], Any]

RAW: Final = load_public_jwk(jwk()).public_key
ACME: Final = Customer("acme", 100, None)


class DirectoryTests(SynchronousTestCase):
    def test_a_good_list(self) -> None:
        got = directory(
            [
                document("acme", access_key("k1"), access_key("k2", OTHER_X, namespace="other")),
                document("bare", maxPeers=0, maxRooms=3, plan="gold"),
            ]
        )
        other = load_public_jwk(jwk("k2", OTHER_X)).public_key
        self.assertEqual(
            got,
            Directory(
                {
                    "k1": CustomerKey("k1", RAW, "acme", ACME),
                    "k2": CustomerKey("k2", other, "other", ACME),
                },
                {"acme": ACME, "bare": Customer("bare", 0, 3)},
            ),
        )

    def test_a_namespace_of_null_is_the_customers_id(self) -> None:
        got = directory([document("acme", access_key(namespace=None))])
        self.assertEqual(got.keys["k1"].namespace, "acme")

    def test_customers_that_are_refused(self) -> None:
        limit = "must be a whole number, 0 or more, or null"
        for wrong, problem in (
            ("acme", "customer 1 of the list is refused: it is not an object"),
            ({}, "customer 1 of the list is refused: id must be a text that is not empty"),
            (
                document(""),
                "customer 1 of the list is refused: id must be a text that is not empty",
            ),
            ({**document(), "id": 7}, "customer 1 of the list is refused: id must be a text"),
            (
                without("maxPeers"),
                "customer 'acme' is refused: maxPeers is absent (null is no limit)",
            ),
            (
                without("maxRooms"),
                "customer 'acme' is refused: maxRooms is absent (null is no limit)",
            ),
            (without("accessKeys"), "customer 'acme' is refused: accessKeys must be a list"),
            (document(maxPeers=-1), f"customer 'acme' is refused: maxPeers {limit}"),
            (document(maxPeers=1.0), f"customer 'acme' is refused: maxPeers {limit}"),
            (document(maxPeers=True), f"customer 'acme' is refused: maxPeers {limit}"),
            (document(maxRooms="5"), f"customer 'acme' is refused: maxRooms {limit}"),
            (document(accessKeys={}), "customer 'acme' is refused: accessKeys must be a list"),
            (
                document("x" * 500, maxRooms=[]),
                f"customer '{'x' * 80}…' is refused: maxRooms {limit}",
            ),
        ):
            got = directory([wrong, document("good", access_key())])
            self.assertEqual((list(got.customers), list(got.keys)), (["good"], ["k1"]), wrong)
            self.assertEqual(len(got.problems), 1)
            self.assertTrue(got.problems[0].startswith(problem), got.problems)

    def test_the_later_of_two_customers_with_one_id_is_refused(self) -> None:
        got = directory([document("acme", access_key()), document("acme", access_key("k2"))])
        self.assertEqual(list(got.keys), ["k1"])
        self.assertEqual(
            got.problems, ("customer 'acme' is refused: an earlier customer has that id",)
        )

    def test_a_broken_key_is_skipped_and_named(self) -> None:
        for wrong, name, cause in (
            (None, "access key 1", "it is not an object"),
            ({}, "access key 1", "public key: a JWK expected"),
            (access_key(namespace=""), "access key 1 ('k1')", "namespace must be a text"),
            (access_key(namespace=5), "access key 1 ('k1')", "namespace must be a text"),
            ({"publicKey": {**jwk(), "kid": 5}}, "access key 1", "public key: kid must be"),
            (
                {"publicKey": {**jwk(), "x": SECRET[:-1]}},
                "access key 1 ('k1')",
                "public key: x must",
            ),
            (
                {"publicKey": {**jwk(), "kty": SECRET}},
                "access key 1 ('k1')",
                "public key: kty must",
            ),
        ):
            got = directory([document("acme", wrong, access_key("good"))])
            self.assertEqual(list(got.keys), ["good"], wrong)
            [problem] = got.problems
            self.assertTrue(
                problem.startswith(f"{name} of customer 'acme' is skipped: {cause}"), problem
            )
            self.assertNotIn(SECRET[:-1], problem)

    def test_a_key_id_that_two_customers_claim_is_refused_for_both(self) -> None:
        got = directory(
            [
                document("a", access_key("k1"), access_key("mine")),
                document("b", access_key("k1"), access_key("k1")),
                document("c", access_key("k1", OTHER_X)),
            ]
        )
        self.assertEqual(list(got.keys), ["mine"])
        self.assertEqual(list(got.customers), ["a", "b", "c"])
        self.assertEqual(got.refused, frozenset({"k1"}))
        self.assertEqual(
            got.problems, ("key id 'k1' is refused: customers 'a' and 'b' and 'c' claim it",)
        )

    def test_a_key_id_twice_in_one_customer(self) -> None:
        same = directory([document("acme", access_key(), access_key(namespace="acme"))])
        self.assertEqual((list(same.keys), same.problems), (["k1"], ()))
        for second in (access_key(x=OTHER_X), access_key(namespace="other")):
            got = directory([document("acme", access_key(), second)])
            self.assertEqual((got.keys, got.refused), ({}, frozenset({"k1"})))
            self.assertEqual(
                got.problems,
                (
                    "key id 'k1' is refused: customer 'acme' has it for two different keys or "
                    "namespaces",
                ),
            )

    @settings(deadline=None)
    @given(
        st.lists(
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=3),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(("id", "maxPeers", "maxRooms", "accessKeys", "publicKey")),
                        inner,
                    )
                ),
            )
        )
    )
    def test_any_list_is_read(self, documents: list[object]) -> None:
        """Each document is a customer or has a problem."""
        got = directory(documents)
        self.assertGreaterEqual(len(got.customers) + len(got.problems), len(documents))

    def test_the_configurations_customers(self) -> None:
        got = static_directory(
            [
                CustomerConfig(
                    id="acme",
                    max_peers=100,
                    access_keys=(AccessKeyConfig(public_key=jwk()),),
                ),
                CustomerConfig(
                    id="b",
                    max_rooms=0,
                    access_keys=(
                        AccessKeyConfig(namespace="n", public_key=jwk("k2")),
                        AccessKeyConfig(public_key={}),
                    ),
                ),
            ]
        )
        customer = Customer("b", None, 0)
        self.assertEqual(got.customers, {"acme": ACME, "b": customer})
        self.assertEqual(
            got.keys,
            {
                "k1": CustomerKey("k1", RAW, "acme", ACME),
                "k2": CustomerKey("k2", RAW, "n", customer),
            },
        )
        self.assertEqual(len(got.problems), 1)


class CombinedTests(SynchronousTestCase):
    def test_both_are_let_in(self) -> None:
        got = combined(
            directory([document("a", access_key("k1")), 1]),
            directory([document("b", access_key("k2")), 2]),
        )
        self.assertEqual((list(got.keys), list(got.customers)), (["k1", "k2"], ["a", "b"]))
        self.assertEqual(len(got.problems), 2)

    def test_the_configurations_customer_wins(self) -> None:
        static = directory([document("a", access_key("k1"))])
        fetched = directory([document("a", access_key("k2"), maxPeers=5), document("b")])
        got = combined(static, fetched)
        self.assertEqual((got.keys, list(got.customers)), (static.keys, ["a", "b"]))
        self.assertEqual(got.customers["a"].max_peers, 100)
        [problem] = got.problems
        self.assertIn("customer 'a' of the source is refused", problem)

    def test_the_configurations_key_wins(self) -> None:
        static = directory([document("a", access_key("k1"))])
        fetched = directory([document("b", access_key("k1", OTHER_X), access_key("k2"))])
        got = combined(static, fetched)
        self.assertEqual(list(got.keys), ["k1", "k2"])
        self.assertEqual(got.keys["k1"].customer.id, "a")
        [problem] = got.problems
        self.assertIn("key id 'k1' of customer 'b' of the source is refused", problem)

    def test_a_key_that_the_configuration_refuses_is_not_the_sources(self) -> None:
        static = directory([document("a", access_key("k1")), document("b", access_key("k1"))])
        got = combined(static, directory([document("c", access_key("k1"))]))
        self.assertEqual((got.keys, got.refused), ({}, frozenset({"k1"})))

    def test_a_key_that_the_source_refuses_stays_the_configurations(self) -> None:
        static = directory([document("a", access_key("k1"))])
        fetched = directory([document("b", access_key("k1")), document("c", access_key("k1"))])
        got = combined(static, fetched)
        self.assertEqual((got.keys, got.refused), (static.keys, frozenset()))


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
