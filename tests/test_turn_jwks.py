"""When JWK sets are fetched, and how they serve the authenticator."""

from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from odingw.config import Turn
from odingw.errors import TokenError
from odingw.turn.auth import TurnAuthenticator
from odingw.turn.jwks import MAX_AGE, PAUSE, PROBLEMS_LOGGED, REFRESH, JwkSet
from odingw.turn.jwks_fetch import TIMEOUT, jwk_client
from odingw.turn.service import TurnService
from odingw.turn.settings import TurnSettings
from tests.jwk_server import (
    Jwk,
    JwkServer,
    document,
    public_jwk,
    reactor,
    sign,
)


def logger(events: list[LogEvent]) -> Logger:
    observer: Any = events.append
    return Logger("test", observer=observer)


class Web(Resource):
    """The server of a set in memory; what it answers can be held back."""

    isLeaf = True  # noqa: N815  # Twisted's name

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.body: bytes | None = document([])
        self.status = 200

    def render(self, request: Request) -> bytes | int:
        self.requests.append(request)
        request.setResponseCode(self.status)
        return NOT_DONE_YET if self.body is None else self.body


class TimingTests(SynchronousTestCase):
    """When a set is fetched, by a clock that the test moves."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.events: list[LogEvent] = []
        self.web = Web()
        self.treq = StubTreq(self.web)
        client: Any = self.treq
        url = "https://issuer.test/keys?token=secret#x"
        self.set = JwkSet(url, client, self.clock, logger(self.events))

    def serve(self, *jwks: Jwk) -> None:
        self.web.body = document(jwks)

    def hold(self) -> None:
        """Answer nothing until ``release``."""
        self.web.body = None

    def release(self, *jwks: Jwk) -> None:
        """Answer the last request."""
        self.web.requests[-1].write(document(jwks))
        self.web.requests[-1].finish()
        self.treq.flush()

    @property
    def fetches(self) -> int:
        return len(self.web.requests)

    @property
    def kids(self) -> list[str | None]:
        return [key.kid for key in self.set.keys]

    def lines(self, level: str | None = None) -> list[str]:
        """The log, which must never show the URL's query."""
        lines = [
            f"{event['log_level'].name}: {formatEvent(event)}"
            for event in self.events
            if level in (None, event["log_level"].name)
        ]
        self.assertNotIn("secret", "".join(lines))
        return lines

    def test_the_first_fetch(self) -> None:
        self.assertEqual((self.fetches, self.set.age), (0, None))
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.assertEqual((self.kids, self.set.age), (["a"], 0))
        self.assertEqual((self.set.fetches_ok, self.set.fetches_failed), (1, 0))
        [request] = self.web.requests
        self.assertEqual((request.method, request.uri), (b"GET", b"/keys?token=secret"))
        self.assertEqual(
            self.lines(), ["info: JWK set https://issuer.test/keys has one key that can be used"]
        )

    def test_it_is_kept_for_a_while(self) -> None:
        self.set.start()
        self.clock.advance(REFRESH - 1)
        self.assertEqual((self.fetches, self.set.age), (1, REFRESH - 1))
        self.serve(public_jwk("P-256", kid="a"))
        self.clock.advance(1)
        self.assertEqual((self.fetches, self.kids, self.set.age), (2, ["a"], 0))
        self.clock.advance(REFRESH)
        self.assertEqual(self.fetches, 3)

    def test_a_set_that_says_the_same_has_not_changed(self) -> None:
        self.serve(public_jwk("P-256", kid="a"), public_jwk("RSA"), public_jwk("Ed25519"))
        self.set.start()
        before = self.set.keys
        self.serve(
            public_jwk("P-256", kid="a", more=1),
            public_jwk("RSA", more=2),
            public_jwk("Ed25519", more=3),
        )
        self.clock.advance(REFRESH)
        self.assertIs(self.set.keys, before)
        self.assertEqual((self.set.fetches_ok, len(self.lines())), (2, 1))
        self.serve(public_jwk("P-256", 1, kid="a"), public_jwk("RSA"), public_jwk("Ed25519"))
        self.clock.advance(REFRESH)
        self.assertIsNot(self.set.keys, before)

    def test_an_unknown_key_id(self) -> None:
        """It fetches at once, but for those of the last seconds."""
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.assertIsNone(self.set.lookup())
        self.clock.advance(PAUSE - 1)
        self.assertIsNone(self.set.lookup())
        self.assertEqual(self.fetches, 1)
        self.clock.advance(1)
        self.serve(public_jwk("P-256", kid="b"))
        lookup = self.set.lookup()
        assert lookup is not None
        self.assertEqual(self.successResultOf(lookup), 0)
        self.assertEqual((self.fetches, self.kids), (2, ["b"]))
        self.assertIsNone(self.set.lookup())
        self.clock.advance(REFRESH - 1)
        self.assertEqual(self.fetches, 2)
        self.clock.advance(1)
        self.assertEqual(self.fetches, 3)

    def test_an_operator_may_ask_at_any_time(self) -> None:
        self.set.refresh()
        self.assertEqual(self.fetches, 0)
        self.set.start()
        self.serve(public_jwk("P-256", kid="a"))
        self.set.refresh()
        self.assertEqual((self.fetches, self.kids), (2, ["a"]))
        self.hold()
        self.set.refresh()
        self.assertEqual(self.fetches, 3)

    def test_an_operator_may_ask_while_a_fetch_runs(self) -> None:
        self.set.start()
        self.hold()
        self.set.refresh()
        self.set.refresh()
        self.set.refresh()
        self.assertEqual(self.fetches, 2)
        before = self.web.requests[-1]
        self.serve(public_jwk("P-256", kid="new"))
        before.write(document([public_jwk("P-256", kid="old")]))
        before.finish()
        self.treq.flush()
        self.assertEqual(["old"], self.kids)
        self.clock.advance(0)
        self.assertEqual((3, ["new"]), (self.fetches, self.kids))
        self.clock.advance(REFRESH - 1)
        self.assertEqual(3, self.fetches)

    def test_nobody_fetches_again_after_the_end(self) -> None:
        self.hold()
        self.set.start()
        self.set.refresh()
        self.set.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(1, self.fetches)

    def test_a_set_without_a_usable_key_says_so(self) -> None:
        self.set.start()
        said = ["warn: JWK set https://issuer.test/keys has no keys that can be used"]
        self.assertEqual(said, self.lines())
        self.clock.advance(REFRESH)
        self.assertEqual((2, said), (self.fetches, self.lines()))

    def test_a_thousand_tokens_make_one_fetch(self) -> None:
        self.set.start()
        self.clock.advance(PAUSE)
        self.hold()
        lookups = [self.set.lookup() for number in range(1000)]
        self.assertEqual(self.fetches, 2)
        self.clock.advance(3)
        self.release(public_jwk("P-256", kid="a"))
        for lookup in lookups:
            assert lookup is not None
            self.assertEqual(self.successResultOf(lookup), 3)
        self.assertEqual([self.set.lookup() for number in range(1000)], [None] * 1000)
        self.assertEqual(self.fetches, 2)

    def test_they_go_on_in_several_steps(self) -> None:
        """Whoever waited works for 2 ms each; others get their turn in between."""
        self.hold()
        self.set.start()
        turns: list[str] = []

        def work(_: float) -> None:
            turns.append("waiting")
            self.clock.rightNow += 0.002

        for _ in range(20):
            lookup = self.set.lookup()
            assert lookup is not None
            lookup.addCallback(work)
        self.release()
        self.assertEqual(turns, ["waiting"] * 3)
        self.clock.callLater(0, turns.append, "other")
        self.clock.advance(0)
        self.assertEqual(turns.count("waiting"), 20)
        self.assertLessEqual(turns.index("other"), 6)

    def test_whoever_comes_during_a_fetch_waits_for_it(self) -> None:
        self.hold()
        self.set.start()
        self.clock.advance(2)
        lookup = self.set.lookup()
        assert lookup is not None
        self.clock.advance(1)
        self.assertNoResult(lookup)
        self.release()
        self.assertEqual((self.successResultOf(lookup), self.fetches), (1, 1))

    def test_a_lookup_may_be_cancelled(self) -> None:
        self.hold()
        self.set.start()
        one, two = self.set.lookup(), self.set.lookup()
        assert one is not None
        assert two is not None
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.release(public_jwk("P-256", kid="a"))
        self.successResultOf(two)
        self.assertEqual(self.kids, ["a"])

    def test_no_answer(self) -> None:
        self.hold()
        self.set.start()
        lookup = self.set.lookup()
        assert lookup is not None
        self.clock.advance(TIMEOUT - 1)
        self.assertNoResult(lookup)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(lookup), TIMEOUT)
        self.assertEqual((self.set.fetches_ok, self.set.fetches_failed), (0, 1))
        self.assertEqual(
            self.lines(),
            [
                "warn: JWK set https://issuer.test/keys was not fetched, and no key of it is known"
                ": no whole answer within 10 s"
            ],
        )

    def test_a_failed_fetch_keeps_the_last_set(self) -> None:
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        for status, body in ((500, b""), (404, document([])), (200, b"<html>"), (200, b"{}")):
            self.web.status, self.web.body = status, body
            self.clock.advance(REFRESH)
            self.assertEqual(self.kids, ["a"], body)
        self.assertEqual(self.set.fetches_ok, 1)

    def test_an_empty_set_is_taken_at_its_word(self) -> None:
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.serve()
        self.clock.advance(REFRESH)
        self.assertEqual(self.kids, [])
        self.assertEqual(
            self.lines("warn"),
            ["warn: JWK set https://issuer.test/keys has no keys that can be used"],
        )

    def test_failures_are_tried_again_sooner_and_logged_once(self) -> None:
        self.web.status = 500
        self.set.start()
        self.clock.pump([PAUSE] * 5)
        self.assertEqual((self.fetches, self.set.fetches_failed), (6, 6))
        self.web.status = 503
        self.clock.advance(PAUSE)
        self.web.status = 200
        self.serve(public_jwk("P-256"))
        self.clock.advance(PAUSE)
        self.assertEqual(
            [line.rpartition(": ")[2] for line in self.lines("warn")],
            ["HTTP status 500", "HTTP status 503"],
        )
        self.assertEqual(
            self.lines("info"),
            [
                "info: JWK set https://issuer.test/keys is fetched again",
                "info: JWK set https://issuer.test/keys has one key that can be used",
            ],
        )
        self.clock.advance(REFRESH - 1)
        self.assertEqual(self.fetches, 8)

    def test_keys_are_given_up_in_the_end(self) -> None:
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.web.status = 500
        self.clock.advance(REFRESH)
        self.clock.advance(MAX_AGE - REFRESH - 1)
        self.assertEqual((self.kids, self.set.age), (["a"], MAX_AGE - 1))
        self.clock.advance(PAUSE)
        self.assertEqual(self.kids, [])
        self.web.status = 200
        self.clock.advance(PAUSE)
        self.assertEqual((self.kids, self.set.fetches_failed), (["a"], 3))

    def test_problems_are_logged_once(self) -> None:
        broken = [public_jwk("RSA", kid=f"{number}", alg="none") for number in range(12)]
        self.serve(*broken)
        self.set.start()
        lines = self.lines("warn")
        self.assertEqual(len(lines), PROBLEMS_LOGGED + 2)
        self.assertEqual(
            lines[0],
            "warn: key 1 ('0') of https://issuer.test/keys is skipped: its alg is none "
            "that is accepted for a key of its type",
        )
        self.assertEqual(lines[-2], "warn: 2 more problems")
        self.serve(*broken, {"kty": "oct"})
        self.clock.advance(REFRESH)
        self.assertEqual(len(self.lines("warn")), len(lines) + 1)

    def test_before_the_start_and_after_the_end(self) -> None:
        self.assertIsNone(self.set.lookup())
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.set.start()
        self.set.stop()
        self.clock.advance(REFRESH)
        self.assertIsNone(self.set.lookup())
        self.assertEqual((self.fetches, self.kids), (1, ["a"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.set.stop()
        self.set.start()
        self.assertEqual(self.fetches, 2)

    def test_the_end_of_a_fetch_under_way(self) -> None:
        self.hold()
        self.set.start()
        for count in (1, 2):
            lookup = self.set.lookup()
            assert lookup is not None
            self.set.stop()
            self.assertEqual(self.successResultOf(lookup), 0)
            self.assertEqual((self.fetches, self.set.fetches_failed), (count, 0))
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.set.start()
        self.release()
        self.assertEqual(self.set.fetches_ok, 1)
        self.clock.advance(REFRESH)
        self.set.stop()
        self.assertEqual((self.fetches, len(self.lines())), (4, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_clock_that_is_set_back(self) -> None:
        self.set.start()
        self.clock.rightNow -= 3600
        self.assertIsNotNone(self.set.lookup())
        self.assertEqual(self.fetches, 2)


class RealServerTests(TestCase):
    """With a server on the loopback interface."""

    def setUp(self) -> None:
        self.server = JwkServer(self)
        self.clock = Clock()
        self.client = jwk_client(reactor)

    async def test_rotating_keys(self) -> None:
        """As the authenticator sees it: tokens of the new key are accepted, of the old one not."""
        keys = JwkSet(f"{self.server.origin}/keys", self.client, self.clock, logger([]))
        authenticator = TurnAuthenticator(TurnSettings(turn_uris=("turn:a",)), [keys])
        old, new = (sign({"exp": 2000}, "RS256", number, kid=f"{number}") for number in (0, 1))
        self.server.serve(public_jwk("RSA", 0, kid="0"))
        keys.start()
        self.addCleanup(keys.stop)
        self.assertEqual(await maybeDeferred(authenticator.authenticate, old, 1000), {"exp": 2000})
        self.clock.advance(PAUSE)
        self.server.serve(public_jwk("RSA", 1, kid="1"))
        outcomes = [maybeDeferred(authenticator.authenticate, new, 1000) for _ in range(100)]
        for outcome in outcomes:
            self.assertEqual(await outcome, {"exp": 2000})
        self.assertEqual(len(self.server.connections), 2)
        self.assertRaises(TokenError, authenticator.authenticate, old, 1000)
        self.assertEqual(keys.fetches_ok, 2)

    async def test_an_issuer_that_was_set_up_anew(self) -> None:
        """It has another key under the old id; a reload asks at once, a token when it may."""
        config = Turn(
            secret_keys=("hunter2hunter2hunter2",),
            turn_uris=("turn:a",),
            jwk_urls=(f"{self.server.origin}/keys",),
            watch_servers=False,
        )
        service = TurnService(config, "", reactor, lambda _: None)
        self.addCleanup(service.stop)
        tokens = [sign({"exp": 2000}, "RS256", number, kid="a") for number in range(2)]
        self.server.serve(public_jwk("RSA", 0, kid="a"))
        service.start()
        assert service.current is not None
        authenticate = service.current.authenticator.authenticate
        self.assertEqual(await maybeDeferred(authenticate, tokens[0], 1000), {"exp": 2000})
        self.assertRaises(TokenError, authenticate, tokens[1], 1000)
        self.server.serve(public_jwk("RSA", 1, kid="a"))
        service.reload(config)
        self.assertEqual(await maybeDeferred(authenticate, tokens[1], 1000), {"exp": 2000})
        self.assertRaises(TokenError, authenticate, tokens[0], 1000)
        self.assertEqual(len(self.server.connections), 2)

    async def test_stopping_a_set(self) -> None:
        keys = JwkSet(f"{self.server.origin}/", self.client, self.clock, logger([]))
        self.server.answer = lambda _: None
        requested = self.server.next_request()
        keys.start()
        connection = await requested
        keys.stop()
        await connection.lost
        self.assertEqual(self.clock.getDelayedCalls(), [])
