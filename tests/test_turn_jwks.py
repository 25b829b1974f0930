"""JWK sets: how they are read, when they are fetched, and what a hostile server can do."""

import contextlib
import json
from collections.abc import Callable
from gzip import compress
from typing import Any

import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet import ssl
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from odingw.errors import KeyMaterialError, TokenError
from odingw.tokens import base64url
from odingw.turn.auth import TurnAuthenticator
from odingw.turn.jwks import MAX_AGE, PAUSE, PROBLEMS_LOGGED, REFRESH, JwkSet
from odingw.turn.jwks_fetch import MAX_BYTES, TIMEOUT, FetchError, fetch, jwk_client
from odingw.turn.keys import MAX_JWKS, jwk, jwk_set
from odingw.turn.settings import TurnSettings
from tests.jwk_server import (
    TYPES,
    Answer,
    Jwk,
    JwkServer,
    cut,
    document,
    endless,
    head,
    private_key,
    public_jwk,
    reactor,
    sign,
    start,
    whole,
)


def logger(events: list[LogEvent]) -> Logger:
    observer: Any = events.append
    return Logger("test", observer=observer)


class JwkTests(SynchronousTestCase):
    def cause(self, value: object) -> str:
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        return str(self.assertRaises(KeyMaterialError, jwk, text, "here"))

    def test_each_type(self) -> None:
        for kind, algorithms in TYPES.items():
            key = jwk(json.dumps(public_jwk(kind, kid="a", x5t="b", more={})).encode(), "here")
            self.assertEqual(key.algorithms, set(algorithms))
            self.assertEqual((key.kid, key.source), ("a", "here"))
            self.assertEqual(key, jwk(json.dumps(public_jwk(kind, kid="a")).encode(), "here"))

    def test_its_own_members_narrow_it(self) -> None:
        for members, algorithms in (
            ({}, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
            ({"alg": "RS256"}, {"RS256"}),
            ({"alg": "PS512", "use": "sig", "key_ops": ["verify"]}, {"PS512"}),
            ({"key_ops": ["sign", "verify"]}, set(TYPES["RSA"])),
        ):
            key = jwk(json.dumps(public_jwk("RSA", **members)).encode(), "")
            self.assertEqual(key.algorithms, algorithms, members)

    def test_for_something_else(self) -> None:
        for kind, members, cause in (
            ("RSA", {"alg": "RSA-OAEP"}, "its alg is none that is accepted"),
            ("RSA", {"alg": "HS256"}, "its alg is none that is accepted"),
            ("RSA", {"alg": "none"}, "its alg is none that is accepted"),
            ("RSA", {"alg": "ES256"}, "its alg is none that is accepted"),
            ("P-256", {"alg": "ES384"}, "its alg is none that is accepted"),
            ("RSA", {"use": "enc"}, "its use is not sig"),
            ("RSA", {"key_ops": ["encrypt"]}, "verify is not among its key_ops"),
            ("RSA", {"key_ops": []}, "verify is not among its key_ops"),
            ("RSA", {"kty": "EC"}, "crv must be one of P-256, P-384"),
            ("RSA", {"kty": "oct"}, "must be an RSA, EC (P-256, P-384) or Ed25519 key"),
            ("P-256", {"crv": "P-384"}, "its numbers make no key"),
            ("Ed25519", {"crv": "X25519"}, "crv must be Ed25519"),
        ):
            self.assertIn(cause, self.cause(public_jwk(kind, **members)), members)

    def test_other_types(self) -> None:
        algorithms: list[tuple[Any, Any]] = [
            (ECAlgorithm, ec.generate_private_key(ec.SECP521R1())),
            (ECAlgorithm, ec.generate_private_key(ec.SECP256K1())),
            (OKPAlgorithm, ed448.Ed448PrivateKey.generate()),
        ]
        for algorithm, key in algorithms:
            self.assertIn("crv must be", self.cause(algorithm.to_jwk(key.public_key()).encode()))
        self.assertIn("must be an RSA", self.cause({"kty": "oct", "k": "c2VjcmV0"}))

    def test_private_keys(self) -> None:
        algorithms: list[tuple[str, Any]] = [
            ("RSA", RSAAlgorithm),
            ("P-256", ECAlgorithm),
            ("Ed25519", OKPAlgorithm),
        ]
        for kind, algorithm in algorithms:
            text = algorithm.to_jwk(private_key(kind))
            cause = self.cause({**json.loads(text), "key_ops": ["verify"]})
            self.assertEqual(cause, "it holds a private key, so anybody who can read it can sign")

    def test_rsa_numbers(self) -> None:
        def number(value: int) -> str:
            return base64url.encode(value.to_bytes((value.bit_length() + 7) // 8)).decode()

        good = public_jwk("RSA")
        for members, cause in (
            ({"n": ""}, "must have 2048 to 8192 bits"),
            ({"n": number(1 << 2046)}, "must have 2048 to 8192 bits"),
            ({"n": number(1 << 8192)}, "must have 2048 to 8192 bits"),
            ({"n": "A" * 500_000}, "must have 2048 to 8192 bits"),
            ({"n": "AAAA" + "x" * 500_000}, "must have 2048 to 8192 bits"),
            ({"n": "?"}, "base64url"),
            ({"n": "é"}, "base64url"),
            ({"e": ""}, "make no key"),
            ({"e": number(1)}, "make no key"),
            ({"e": number(65536)}, "make no key"),
            ({"e": number(1 << 64)}, "64 bits or less"),
        ):
            self.assertIn(cause, self.cause({**good, **members}), members)

    def test_numbers_as_some_encoders_write_them(self) -> None:
        """With padding, and with a zero in front, as Java's signed numbers have it."""
        good = public_jwk("RSA", kid="a")
        raw = b"\0" + base64url.decode(good["n"].encode())
        padded = base64url.encode(raw).decode() + "=" * (-len(raw) % 3)
        for n in (padded, base64url.encode(raw).decode()):
            self.assertEqual(
                jwk(json.dumps({**good, "n": n}).encode(), ""), jwk(json.dumps(good).encode(), "")
            )

    def test_points(self) -> None:
        good = public_jwk("P-256")
        for members in (
            {"x": ""},
            {"x": good["y"]},
            {"x": "AA", "y": "AA"},
            {"x": good["x"] + "AAAA"},
            {"y": "A" * 100_000},
        ):
            self.assertEqual(self.cause({**good, **members}), "its numbers make no key", members)
        good = public_jwk("Ed25519")
        small = base64url.encode(b"\x01" + bytes(31)).decode()
        for x in ("", "AA", good["x"] + "AA", small, base64url.encode(bytes(32)).decode()):
            self.assertEqual(self.cause({**good, "x": x}), "its numbers make no key", x)

    def test_wrong_types(self) -> None:
        for value in (
            b"",
            b"{",
            b"[]",
            b"null",
            b"5",
            b"\xff",
            b'{"kty": ' * 5000,
            {},
            {"kty": 5},
            {**public_jwk("RSA"), "kid": 5},
            {**public_jwk("RSA"), "kid": None},
            {**public_jwk("RSA"), "alg": ["RS256"]},
            {**public_jwk("RSA"), "use": {}},
            {**public_jwk("RSA"), "key_ops": "verify"},
            {**public_jwk("RSA"), "n": 5},
        ):
            self.assertIn("a JSON object expected", self.cause(value), value)


class SetTests(SynchronousTestCase):
    def test_good_keys(self) -> None:
        found = jwk_set(document([public_jwk(kind, kid=kind) for kind in TYPES]), "a set")
        self.assertEqual([key.kid for key in found.keys], list(TYPES))
        self.assertEqual(found.problems, ())
        self.assertEqual(jwk_set(b'{"more": 1, "keys": []}', "a set").keys, ())

    def test_broken_keys_are_left_out_and_named(self) -> None:
        found = jwk_set(
            document(
                [
                    public_jwk("RSA", kid="good"),
                    public_jwk("RSA", kid="for encryption", use="enc"),
                    public_jwk("RSA", kid=5),
                    {"kty": "oct", "kid": "x" * 1000, "k": "secret"},
                    public_jwk("P-256", kid="good too"),
                ]
            ),
            "the set",
        )
        self.assertEqual([key.kid for key in found.keys], ["good", "good too"])
        self.assertEqual(
            [problem.partition(" is skipped: ")[0] for problem in found.problems],
            [
                "key 2 ('for encryption') of the set",
                "key 3 of the set",
                f"key 4 ({'x' * 80!r}) of the set",
            ],
        )
        self.assertNotIn("secret", "".join(found.problems))

    def test_what_is_no_set(self) -> None:
        for text in (
            b"",
            b"<html>",
            b"[]",
            b"null",
            b"{}",
            b'{"keys": null}',
            b'{"keys": {}}',
            b'{"keys": "x"}',
            b'{"keys": [}',
            b'{"keys": []',
            b'{"keys": []} x',
            json.dumps(public_jwk("RSA")).encode(),
            b"[" * MAX_BYTES,
            b'{"keys": ' + b"[" * MAX_BYTES,
            b'{"keys": [' + b'{"a": ' * 100_000,
        ):
            error = self.assertRaises(KeyMaterialError, jwk_set, text, "a set")
            self.assertEqual(str(error), "it is not a JSON object with a list of keys", text[:50])

    def test_many_keys(self) -> None:
        key = public_jwk("Ed25519")
        self.assertEqual(jwk_set(document([key] * MAX_JWKS), "a set").problems, ())
        found = jwk_set(document([key] * (MAX_JWKS + 1)), "a set")
        self.assertEqual(len(found.keys), MAX_JWKS)
        self.assertEqual(found.problems, ("the keys of a set after the first 100 are skipped",))
        found = jwk_set(b'{"keys": [' + b"{}," * 300_000 + b"{}]}", "a set")
        self.assertEqual((len(found.keys), len(found.problems)), (0, MAX_JWKS + 1))

    @given(
        st.binary()
        | st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "sig"]),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(
                        ["keys", "kty", "crv", "n", "e", "x", "y", "kid", "alg", "use", "d"]
                    ),
                    inner,
                )
            ),
        )
    )
    def test_anything(self, value: object) -> None:
        """It is read, or refused in one way."""
        text = value if isinstance(value, bytes) else json.dumps({"keys": [value]}).encode()
        with contextlib.suppress(KeyMaterialError):
            jwk_set(text, "a set")


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
        self.changes = 0
        self.web = Web()
        self.treq: Any = StubTreq(self.web)
        self.set = self.make()

    def make(self, on_change: Callable[[], None] | None = None) -> JwkSet:
        def changed() -> None:
            self.changes += 1

        url = "https://issuer.test/keys?token=secret#x"
        return JwkSet(url, self.treq, self.clock, logger(self.events), on_change or changed)

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
        self.assertEqual((self.kids, self.changes, self.set.age), (["a"], 1, 0))
        self.assertEqual((self.set.fetches_ok, self.set.fetches_failed), (1, 0))
        [request] = self.web.requests
        self.assertEqual((request.method, request.uri), (b"GET", b"/keys?token=secret"))
        self.assertEqual(
            self.lines(), ["info: JWK set https://issuer.test/keys has 1 keys that can be used"]
        )

    def test_it_is_kept_for_a_while(self) -> None:
        self.set.start()
        self.clock.advance(REFRESH - 1)
        self.assertEqual((self.fetches, self.set.age), (1, REFRESH - 1))
        self.serve(public_jwk("P-256", kid="a"))
        self.clock.advance(1)
        self.assertEqual((self.fetches, self.kids, self.set.age), (2, ["a"], 0))
        self.clock.advance(REFRESH)
        self.assertEqual((self.fetches, self.changes), (3, 1))

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
        self.assertEqual((self.changes, self.set.fetches_ok, len(self.lines())), (1, 2, 1))
        self.serve(public_jwk("P-256", 1, kid="a"), public_jwk("RSA"), public_jwk("Ed25519"))
        self.clock.advance(REFRESH)
        self.assertEqual(self.changes, 2)

    def test_an_unknown_key_id(self) -> None:
        """It fetches at once, but for those of the last seconds."""
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.assertIsNone(self.set.lookup("b"))
        self.clock.advance(PAUSE - 1)
        self.assertIsNone(self.set.lookup("b"))
        self.assertIsNone(self.set.lookup(None))
        self.assertEqual(self.fetches, 1)
        self.clock.advance(1)
        self.assertIsNone(self.set.lookup("a"))
        self.assertEqual(self.fetches, 1)
        self.serve(public_jwk("P-256", kid="b"))
        lookup = self.set.lookup("b")
        assert lookup is not None
        self.assertEqual(self.successResultOf(lookup), 0)
        self.assertEqual((self.fetches, self.kids), (2, ["b"]))
        self.assertIsNone(self.set.lookup("c"))
        self.clock.advance(REFRESH - 1)
        self.assertEqual(self.fetches, 2)
        self.clock.advance(1)
        self.assertEqual(self.fetches, 3)

    def test_any_key_may_be_asked_for(self) -> None:
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.clock.advance(PAUSE)
        self.assertIsNotNone(self.set.lookup(None))
        self.assertEqual(self.fetches, 2)

    def test_a_thousand_tokens_make_one_fetch(self) -> None:
        self.set.start()
        self.clock.advance(PAUSE)
        self.hold()
        lookups = [self.set.lookup(f"{number}") for number in range(1000)]
        self.assertEqual(self.fetches, 2)
        self.clock.advance(3)
        self.release(public_jwk("P-256", kid="a"))
        for lookup in lookups:
            assert lookup is not None
            self.assertEqual(self.successResultOf(lookup), 3)
        self.assertEqual([self.set.lookup(f"{number}") for number in range(1000)], [None] * 1000)
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
            lookup = self.set.lookup("a")
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
        lookup = self.set.lookup("a")
        assert lookup is not None
        self.clock.advance(1)
        self.assertNoResult(lookup)
        self.release()
        self.assertEqual((self.successResultOf(lookup), self.fetches), (1, 1))

    def test_a_lookup_may_be_cancelled(self) -> None:
        self.hold()
        self.set.start()
        one, two = self.set.lookup("a"), self.set.lookup("a")
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
        lookup = self.set.lookup("a")
        assert lookup is not None
        self.clock.advance(TIMEOUT - 1)
        self.assertNoResult(lookup)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(lookup), TIMEOUT)
        self.assertEqual((self.set.fetches_ok, self.set.fetches_failed), (0, 1))
        self.assertEqual(
            self.lines(),
            [
                "warn: JWK set https://issuer.test/keys was not fetched, the last 0 keys stay: "
                "no whole answer within 10 s"
            ],
        )

    def test_a_failed_fetch_keeps_the_last_set(self) -> None:
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        for status, body in ((500, b""), (404, document([])), (200, b"<html>"), (200, b"{}")):
            self.web.status, self.web.body = status, body
            self.clock.advance(REFRESH)
            self.assertEqual(self.kids, ["a"], body)
        self.assertEqual((self.changes, self.set.fetches_ok), (1, 1))

    def test_an_empty_set_is_taken_at_its_word(self) -> None:
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.serve()
        self.clock.advance(REFRESH)
        self.assertEqual((self.kids, self.changes), ([], 2))
        self.assertEqual(
            self.lines("warn"),
            ["warn: JWK set https://issuer.test/keys has 0 keys that can be used"],
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
                "info: JWK set https://issuer.test/keys has 1 keys that can be used",
            ],
        )
        self.clock.advance(REFRESH - 1)
        self.assertEqual(self.fetches, 8)

    def test_keys_are_given_up_in_the_end(self) -> None:
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.web.status = 500
        self.clock.advance(REFRESH)
        self.clock.pump([PAUSE] * int((MAX_AGE - REFRESH) / PAUSE - 1))
        self.assertEqual((self.kids, self.changes), (["a"], 1))
        self.clock.advance(PAUSE)
        self.assertEqual((self.kids, self.changes), ([], 2))
        self.web.status = 200
        self.clock.advance(PAUSE)
        self.assertEqual((self.kids, self.changes), (["a"], 3))

    def test_problems_are_logged_once(self) -> None:
        broken = [public_jwk("RSA", kid=f"{number}", use="enc") for number in range(12)]
        self.serve(*broken)
        self.set.start()
        lines = self.lines("warn")
        self.assertEqual(len(lines), PROBLEMS_LOGGED + 1)
        self.assertEqual(
            lines[0],
            "warn: key 1 ('0') of https://issuer.test/keys is skipped: its use is not sig",
        )
        self.assertEqual(lines[-1], "warn: 2 more problems")
        self.serve(*broken, {"kty": "oct"})
        self.clock.advance(REFRESH)
        self.assertEqual(len(self.lines("warn")), len(lines) + 1)

    def test_a_callback_that_fails(self) -> None:
        def on_change() -> None:
            raise RuntimeError("broken")

        self.set = self.make(on_change)
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.clock.advance(REFRESH)
        self.assertEqual((self.kids, self.fetches), (["a"], 2))
        self.assertEqual(len(self.lines("critical")), 1)

    def test_before_the_start_and_after_the_end(self) -> None:
        self.assertIsNone(self.set.lookup("a"))
        self.serve(public_jwk("P-256", kid="a"))
        self.set.start()
        self.set.start()
        self.set.stop()
        self.clock.advance(REFRESH)
        self.assertIsNone(self.set.lookup("b"))
        self.assertEqual((self.fetches, self.kids), (1, ["a"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.set.stop()
        self.set.start()
        self.assertEqual(self.fetches, 2)

    def test_the_end_of_a_fetch_under_way(self) -> None:
        self.hold()
        self.set.start()
        lookup = self.set.lookup("a")
        assert lookup is not None
        self.set.stop()
        self.assertEqual(self.successResultOf(lookup), 0)
        self.assertEqual((self.set.fetches_failed, self.lines()), (0, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_clock_that_is_set_back(self) -> None:
        self.set.start()
        self.clock.rightNow -= 3600
        self.assertIsNotNone(self.set.lookup("a"))
        self.assertEqual(self.fetches, 2)


class RealServerTests(TestCase):
    """Fetches from a server on the loopback interface."""

    def setUp(self) -> None:
        self.server = JwkServer(self)
        self.clock = Clock()
        self.client = jwk_client(reactor)

    async def cause(self, path: str = "/keys?token=secret") -> str:
        error = await self.assertFailure(
            fetch(self.server.origin + path, self.client, self.clock), FetchError
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])
        text = str(error)
        self.assertEqual(text.splitlines(), [text])
        self.assertNotIn("secret", text)
        return text

    async def test_rotating_keys(self) -> None:
        """As the authenticator sees it: tokens of the new key are accepted, of the old one not."""
        changes: list[int] = []
        events: list[LogEvent] = []
        keys = JwkSet(
            f"{self.server.origin}/keys",
            self.client,
            self.clock,
            logger(events),
            lambda: changes.append(1),
        )
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
        self.assertEqual((keys.fetches_ok, len(changes)), (2, 2))

    async def test_what_is_sent(self) -> None:
        self.server.answer = whole(b"{}", set_cookie="a=b")
        for _ in range(2):
            await fetch(f"{self.server.origin}/keys?token=secret", self.client, self.clock)
        for connection in self.server.connections:
            first, *headers = connection.request.decode().lower().split("\r\n")
            self.assertEqual(first, "get /keys?token=secret http/1.1")
            self.assertIn("accept-encoding: identity", headers)
            self.assertIn("connection: close", headers)
            self.assertFalse([header for header in headers if header.startswith("cookie")])
            await connection.lost

    async def test_bodies(self) -> None:
        answers: list[Answer] = [
            whole(b"{}"),
            whole(b"{}", content_encoding="identity"),
            start(head(transfer_encoding="chunked") + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"),
            cut(head() + b"{}"),
        ]
        for answer in answers:
            self.server.answer = answer
            url = f"{self.server.origin}/"
            self.assertEqual(await fetch(url, self.client, self.clock), b"{}")
        self.server.answer = whole(b" " * MAX_BYTES)
        self.assertEqual(len(await fetch(url, self.client, self.clock)), MAX_BYTES)

    async def test_statuses(self) -> None:
        for status in (
            "201 Created",
            "204 No Content",
            "304 Not Modified",
            "404 Not Found",
            "500 x",
        ):
            self.server.answer = whole(b"", status)
            self.assertEqual(await self.cause(), f"HTTP status {status[:3]}")
            await self.server.connections[-1].lost

    async def test_an_error_whose_body_does_not_end(self) -> None:
        self.server.answer = start(head("500 x") + b"wait")
        self.assertEqual(await self.cause(), "HTTP status 500")
        await self.server.connections[-1].lost

    async def test_redirects_are_not_followed(self) -> None:
        """Neither to itself nor elsewhere."""
        for status in (301, 302, 303, 307, 308):
            for location in ("/keys", "http://127.0.0.1:1/", "file:///etc/passwd"):
                self.server.answer = whole(b"", f"{status} x", location=location)
                self.assertEqual(await self.cause(), f"HTTP status {status}")
        self.assertEqual(len(self.server.connections), 15)

    async def test_an_answer_that_does_not_come(self) -> None:
        pieces: list[bytes] = [b"", b"HTTP/1.1 200 OK\r\n", head(), head(content_length=9) + b"{"]
        for piece in pieces:
            self.server.answer = start(piece)
            requested = self.server.next_request()
            waiting = Deferred.fromCoroutine(self.cause())
            connection = await requested
            self.clock.advance(TIMEOUT - 1)
            self.assertNoResult(waiting)
            self.clock.advance(1)
            self.assertEqual(await waiting, "no whole answer within 10 s")
            await connection.lost

    async def test_an_answer_that_drips(self) -> None:
        """Each byte comes in time, all of them do not."""
        self.server.answer = start(head(content_length=100))
        requested = self.server.next_request()
        waiting = Deferred.fromCoroutine(self.cause())
        connection = await requested
        for _ in range(int(TIMEOUT)):
            self.assertNoResult(waiting)
            connection.write(b" ")
            self.clock.advance(1)
        self.assertEqual(await waiting, "no whole answer within 10 s")
        await connection.lost

    async def test_a_body_without_end(self) -> None:
        self.server.answer = endless(head(), b" " * 10_000)
        self.assertEqual(await self.cause(), f"it is larger than {MAX_BYTES} bytes")
        await self.server.connections[0].lost

    async def test_headers_without_end(self) -> None:
        self.server.answer = endless(b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n" * 1000)
        self.assertEqual(await self.cause(), "ConnectionAborted: Connection was aborted locally")
        await self.server.connections[0].lost

    async def test_bodies_that_unpack_to_more(self) -> None:
        for encoding in ("gzip", "gzip, gzip", "x-gzip", "br", "identity, gzip"):
            packed = compress(compress(b" " * 10_000_000))
            self.server.answer = whole(packed, content_encoding=encoding)
            self.assertEqual(await self.cause(), "the body is compressed, which was not asked for")
            await self.server.connections[-1].lost

    async def test_what_is_not_http(self) -> None:
        for answer in (
            b"\0" * 1000,
            b"SSH-2.0-secret\r\n",
            b"HTTP/1.1 secret\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nsecret\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: secret\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nsecret\r\n",
        ):
            self.server.answer = cut(answer)
            await self.cause()
            await self.server.connections[-1].lost

    async def test_a_connection_that_breaks(self) -> None:
        for piece in (b"", b"HTTP/1.1 200 OK\r\n", head(content_length=9) + b"{"):
            self.server.answer = cut(piece)
            await self.cause()

    async def test_nobody_listens(self) -> None:
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.server.origin = f"http://127.0.0.1:{port.getHost().port}"
        await port.stopListening()
        self.assertTrue((await self.cause()).startswith("ConnectionRefusedError: "))

    async def test_cancelling_closes_the_connection(self) -> None:
        for piece in (b"", head()):
            self.server.answer = start(piece)
            requested = self.server.next_request()
            fetching = fetch(f"{self.server.origin}/", self.client, self.clock)
            connection = await requested
            fetching.cancel()
            await self.assertFailure(fetching, CancelledError)
            await connection.lost

    async def test_stopping_a_set(self) -> None:
        keys = JwkSet(f"{self.server.origin}/", self.client, self.clock, logger([]))
        self.server.answer = lambda _: None
        requested = self.server.next_request()
        keys.start()
        connection = await requested
        keys.stop()
        await connection.lost
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TlsTests(TestCase):
    """Fetches over https."""

    def setUp(self) -> None:
        self.authority = trustme.CA()

    def serve(self, *names: str) -> JwkServer:
        certificate = self.authority.issue_cert(*names)
        context = ssl.PrivateCertificate.loadPEM(certificate.private_key_and_cert_chain_pem.bytes())
        server = JwkServer(self, context.options())
        server.answer = whole(b"{}")
        return server

    def client(self) -> HTTPClient:
        root = ssl.Certificate.loadPEM(self.authority.cert_pem.bytes())
        policy: Any = BrowserLikePolicyForHTTPS
        return jwk_client(reactor, policy(ssl.trustRootFromCertificates([root])))

    async def test_a_trusted_certificate(self) -> None:
        server = self.serve("127.0.0.1")
        self.assertEqual(await fetch(f"{server.origin}/", self.client(), reactor), b"{}")
        await server.connections[0].lost

    async def test_other_certificates(self) -> None:
        for names, client in ((("127.0.0.1",), jwk_client(reactor)), (("a.test",), self.client())):
            server = self.serve(*names)
            error = await self.assertFailure(
                fetch(f"{server.origin}/", client, reactor), FetchError
            )
            self.assertRegex(str(error), "certificate verify failed|VerificationError")
            self.assertEqual(server.connections, [])

    async def test_a_body_without_end(self) -> None:
        """The peer need not agree to the end of the connection."""
        server = self.serve("127.0.0.1")
        server.answer = endless(head(), b" " * 10_000)
        error = await self.assertFailure(
            fetch(f"{server.origin}/", self.client(), reactor), FetchError
        )
        self.assertEqual(str(error), f"it is larger than {MAX_BYTES} bytes")
        await server.connections[0].lost


class AddressTests(SynchronousTestCase):
    def test_http_goes_to_this_host_only(self) -> None:
        """Whatever the name leads to."""
        for address, kind, good in (
            ("127.0.0.2", IPv4Address, True),
            ("::1", IPv6Address, True),
            ("192.0.2.1", IPv4Address, False),
            ("2001:db8::1", IPv6Address, False),
        ):
            memory: Any = MemoryReactorClock()
            memory.installNameResolver(Resolver(kind("TCP", address, 80)))
            url = "http://issuer.localhost/"
            fetching = fetch(url, jwk_client(memory), memory)
            [(_, _, factory, _, _)] = memory.tcpClients
            protocol = factory.buildProtocol(kind("TCP", address, 80))
            if good:
                self.assertIsNotNone(protocol, address)
                self.assertNoResult(fetching)
            else:
                error = self.failureResultOf(fetching, FetchError).value
                self.assertIn("keys that come over http can be forged", str(error))


class Resolver:
    """Finds one address for all names."""

    def __init__(self, address: IPv4Address | IPv6Address) -> None:
        self._address = address

    def resolveHostName(self, receiver: Any, *_: object, **__: object) -> object:  # noqa: N802  # IHostnameResolver's name
        receiver.resolutionBegan(self)
        receiver.addressResolved(self._address)
        receiver.resolutionComplete()
        return self
