"""Which well-signed JWTs get TURN credentials, and what is remembered of them."""

import json
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred

from odingw.errors import TokenError, TokenFault
from odingw.tokens import AccessKey, TokenGenerator, server_key
from odingw.turn import auth
from odingw.turn.auth import CACHE_SECONDS, TurnAuthenticator
from odingw.turn.settings import TurnSettings
from tests.jwk_server import (
    public_jwk,
    sign,
)
from tests.turn_auth_case import (
    CLAIMS,
    NOW,
    SETTINGS,
    AuthTestCase,
    Keys,
    hmac_token,
    keys_of,
    raw_token,
    settings,
)


class ClaimTests(AuthTestCase):
    def check(self, claims: Mapping[str, object], fault: TokenFault | None, **members: Any) -> None:
        """Claims of a well-signed token must be accepted, or refused for that."""
        authenticator = TurnAuthenticator(settings("Ed25519", **members))
        token = raw_token({"alg": "EdDSA"}, claims)
        if fault is None:
            self.assertEqual(self.accepted(authenticator, token), claims)
        else:
            self.refused(authenticator, token, fault, about=claims)

    def test_times(self) -> None:
        largest = 2**53 - 1
        for name, value, fault in (
            ("exp", NOW + 1, None),
            ("exp", NOW - 59, None),
            ("exp", NOW - 59.5, None),
            ("exp", float(NOW), None),
            ("exp", NOW - 60, TokenFault.EXPIRED),
            ("exp", 0, TokenFault.EXPIRED),
            ("exp", -1, TokenFault.EXPIRED),
            ("exp", -largest, TokenFault.EXPIRED),
            ("exp", largest, None),
            ("exp", largest + 1, TokenFault.CLAIMS),
            ("exp", 2**64, TokenFault.CLAIMS),
            ("exp", 10**30, TokenFault.CLAIMS),
            ("exp", 1e300, TokenFault.CLAIMS),
            ("exp", f"{NOW + 1}", TokenFault.CLAIMS),
            ("exp", True, TokenFault.CLAIMS),
            ("exp", None, TokenFault.CLAIMS),
            ("exp", [NOW + 1], TokenFault.CLAIMS),
            ("exp", {}, TokenFault.CLAIMS),
            ("nbf", NOW, None),
            ("nbf", NOW + 60, None),
            ("nbf", NOW + 60.5, TokenFault.NOT_YET_VALID),
            ("nbf", NOW + 61, TokenFault.NOT_YET_VALID),
            ("nbf", 0, None),
            ("nbf", largest + 1, TokenFault.CLAIMS),
            ("nbf", -largest - 1, TokenFault.CLAIMS),
            ("nbf", f"{NOW}", TokenFault.CLAIMS),
            ("nbf", False, TokenFault.CLAIMS),
            ("nbf", None, TokenFault.CLAIMS),
            ("iat", NOW + 1000, None),
            ("iat", "yesterday", None),
        ):
            self.check({**CLAIMS, name: value}, fault)

    def test_a_token_without_an_expiry_would_be_good_for_ever(self) -> None:
        self.check({"sub": "alice"}, TokenFault.EXPIRED)

    def test_leeway(self) -> None:
        for leeway in (0, 300):
            self.check({"exp": NOW - leeway + 1}, None, leeway=leeway)
            self.check({"exp": NOW - leeway}, TokenFault.EXPIRED, leeway=leeway)
            self.check({**CLAIMS, "nbf": NOW + leeway}, None, leeway=leeway)
            nbf = NOW + leeway + 1
            self.check({**CLAIMS, "nbf": nbf}, TokenFault.NOT_YET_VALID, leeway=leeway)

    def test_issuer(self) -> None:
        for value, fault in (
            ("https://issuer.test", None),
            ("https://issuer.test/", TokenFault.CLAIMS),
            ("https://ISSUER.test", TokenFault.CLAIMS),
            (["https://issuer.test"], TokenFault.CLAIMS),
            (None, TokenFault.CLAIMS),
        ):
            self.check({**CLAIMS, "iss": value}, fault, issuer="https://issuer.test")
            self.check({**CLAIMS, "iss": value}, None)
        self.check(CLAIMS, TokenFault.CLAIMS, issuer="https://issuer.test")

    def test_audience(self) -> None:
        for value, fault in (
            ("turn", None),
            (["turn"], None),
            (["other", 5, "turn"], None),
            ("other", TokenFault.AUDIENCE),
            ("turns", TokenFault.AUDIENCE),
            ([], TokenFault.AUDIENCE),
            (["other"], TokenFault.AUDIENCE),
            ([["turn"]], TokenFault.AUDIENCE),
            ({"turn": 1}, TokenFault.AUDIENCE),
            (None, TokenFault.AUDIENCE),
        ):
            self.check({**CLAIMS, "aud": value}, fault, audience="turn")
            self.check({**CLAIMS, "aud": value}, None)
        self.check(CLAIMS, TokenFault.AUDIENCE, audience="turn")

    def test_required_scopes(self) -> None:
        for value, fault in (
            (["turn"], None),
            (["x", "relay"], None),
            ("x turn", None),
            ("turns Turn", TokenFault.CLAIMS),
            ([], TokenFault.CLAIMS),
            (None, TokenFault.CLAIMS),
        ):
            for name in ("scp", "scopes", "scope"):
                self.check({**CLAIMS, name: value}, fault, required_scopes=("turn", "relay"))
        self.check(CLAIMS, TokenFault.CLAIMS, required_scopes=("turn",))
        self.check(CLAIMS, None)

    def test_scopes_of_other_claims(self) -> None:
        roles = {"required_scopes": ("turn",), "scope_claims": ("realm_access.roles",)}
        self.check({**CLAIMS, "realm_access": {"roles": ["turn"]}}, None, **roles)
        self.check({**CLAIMS, "scope": "turn"}, TokenFault.CLAIMS, **roles)


class VerdictTests(AuthTestCase):
    """What is remembered of a token, seen by removing its key behind the authenticator's back."""

    def setUp(self) -> None:
        self.access_key = AccessKey("AcIbjUrHA8EV62TAGYcwDtHhQ8wN3lXmcKtFtN/SvdMA")
        self.customers = {self.access_key.kid: self.access_key.public_jwk()}
        self.authenticator = TurnAuthenticator(
            settings(access_keys=True), customer_key=lambda kid: self.customers.get(kid)
        )

    def token(self, lifetime: int, user: str = "alice") -> str:
        generator = TokenGenerator(self.access_key)
        return generator.create_token("room", user, now=NOW, lifetime=lifetime, subject="turn")

    def test_it_ends_with_the_token(self) -> None:
        """Leeway is for tokens that are looked at, not for verdicts that are kept."""
        token = self.token(100)
        self.accepted(self.authenticator, token)
        self.customers.clear()
        self.accepted(self.authenticator, token, NOW + 99)
        self.refused(self.authenticator, token, TokenFault.UNKNOWN_KEY, NOW + 100)

    def test_leeway_holds_for_a_known_token(self) -> None:
        token = self.token(100)
        for now in (NOW, NOW + 100, NOW + 159):
            self.accepted(self.authenticator, token, now)
        self.refused(self.authenticator, token, TokenFault.EXPIRED, NOW + 161)

    def test_it_ends_after_some_time(self) -> None:
        token = self.token(3600)
        self.accepted(self.authenticator, token)
        self.customers.clear()
        self.accepted(self.authenticator, token, NOW + CACHE_SECONDS - 1)
        self.refused(self.authenticator, token, TokenFault.UNKNOWN_KEY, NOW + CACHE_SECONDS)

    def test_it_ends_when_keys_change(self) -> None:
        token = self.token(3600)
        self.accepted(self.authenticator, token)
        self.customers.clear()
        self.authenticator.keys_changed()
        self.refused(self.authenticator, token, TokenFault.UNKNOWN_KEY)

    def test_it_ends_when_a_set_changes(self) -> None:
        keys = Keys(public_jwk("P-256", kid="a"))
        authenticator = TurnAuthenticator(SETTINGS, [Keys(), keys])
        token = sign(CLAIMS, "ES256", kid="a")
        self.accepted(authenticator, token)
        keys.keys = keys_of(public_jwk("P-256", 1, kid="a"))
        keys.resting = True
        self.refused(authenticator, token, TokenFault.SIGNATURE)

    def test_its_claims_are_the_callers_own(self) -> None:
        token = self.token(100)
        claims: Any = self.accepted(self.authenticator, token)
        claims.clear()
        self.assertEqual(self.accepted(self.authenticator, token)["uid"], "alice")

    def test_refusals_are_not_kept(self) -> None:
        customers, self.customers = self.customers, {}
        token = self.token(100)
        self.refused(self.authenticator, token, TokenFault.UNKNOWN_KEY)
        self.customers = customers
        self.accepted(self.authenticator, token)

    def test_their_number_is_bounded(self) -> None:
        self.patch(auth, "MAX_CACHED", 100)
        tokens = [self.token(3600, f"{number}") for number in range(101)]
        for token in tokens:
            self.accepted(self.authenticator, token)
        self.customers.clear()
        self.refused(self.authenticator, tokens[0], TokenFault.UNKNOWN_KEY)
        for token in tokens[1:]:
            self.accepted(self.authenticator, token)


class LookupTests(AuthTestCase):
    """Tokens for whose key a set must be fetched first."""

    def setUp(self) -> None:
        self.one, self.two = Keys(public_jwk("RSA", kid="old")), Keys()
        self.authenticator = TurnAuthenticator(settings("Ed25519"), [self.one, self.two])
        self.token = sign(CLAIMS, "ES256", kid="new")

    def test_the_set_brings_the_key(self) -> None:
        outcome = self.waiting(self.authenticator, self.token)
        self.assertEqual((self.one.asked, self.two.asked), (1, 1))
        self.one.fetched(public_jwk("P-256", kid="new"))
        self.assertEqual(self.successResultOf(outcome), CLAIMS)
        self.two.fetched()
        self.accepted(self.authenticator, self.token)

    def test_the_second_set_brings_it(self) -> None:
        outcome = self.waiting(self.authenticator, self.token)
        self.one.fetched()
        self.assertNoResult(outcome)
        self.two.fetched(public_jwk("P-256", kid="new"))
        self.assertEqual(self.successResultOf(outcome), CLAIMS)

    def test_no_set_brings_it(self) -> None:
        outcome = self.waiting(self.authenticator, self.token)
        self.one.fetched(public_jwk("RSA", kid="other"))
        self.two.fetched()
        error: Any = self.failureResultOf(outcome, TokenError).value
        self.assertEqual(error.fault, TokenFault.UNKNOWN_KEY)

    def test_the_key_is_another(self) -> None:
        outcome = self.waiting(self.authenticator, self.token)
        self.one.fetched(public_jwk("P-256", 1, kid="new"))
        self.two.fetched()
        error: Any = self.failureResultOf(outcome, TokenError).value
        self.assertEqual(error.fault, TokenFault.SIGNATURE)

    def test_time_passes_meanwhile(self) -> None:
        for seconds, good in ((9, True), (10, False)):
            authenticator = TurnAuthenticator(replace(SETTINGS, leeway=0), [self.two])
            token = sign({"exp": NOW + 10}, "ES256", kid="new")
            self.two.keys = ()
            outcome = self.waiting(authenticator, token)
            self.two.fetched(public_jwk("P-256", kid="new"), seconds=seconds)
            if good:
                self.successResultOf(outcome)
            else:
                error: Any = self.failureResultOf(outcome, TokenError).value
                self.assertEqual(error.fault, TokenFault.EXPIRED)

    def test_a_caller_who_goes_away(self) -> None:
        outcome = self.waiting(self.authenticator, self.token)
        outcome.cancel()
        self.failureResultOf(outcome, CancelledError)
        self.one.fetched(public_jwk("P-256", kid="new"))
        self.two.fetched()
        self.accepted(self.authenticator, self.token)

    def test_sets_that_were_just_fetched(self) -> None:
        self.one.resting = self.two.resting = True
        self.refused(self.authenticator, self.token, TokenFault.UNKNOWN_KEY)

    def test_one_that_was_just_fetched(self) -> None:
        self.one.resting = True
        outcome = self.waiting(self.authenticator, self.token)
        self.two.fetched(public_jwk("P-256", kid="new"))
        self.assertEqual(self.successResultOf(outcome), CLAIMS)

    def test_a_token_without_a_key_id(self) -> None:
        """Its key may be new, too."""
        outcome = self.waiting(self.authenticator, sign(CLAIMS, "RS256", 1))
        self.assertEqual((self.one.asked, self.two.asked), (1, 1))
        self.one.fetched(public_jwk("RSA", 1, kid="old"))
        self.assertEqual(self.successResultOf(outcome), CLAIMS)

    def test_another_key_under_a_known_id(self) -> None:
        """Its issuer was set up anew; the set that has the id is asked, and no other."""
        for kind, algorithm in (("RSA", "RS256"), ("P-256", "ES256")):
            self.one.keys = keys_of(public_jwk("RSA", kid="old"))
            token = sign(CLAIMS, algorithm, 1, kid="old")
            outcome = self.waiting(self.authenticator, token)
            self.one.fetched(public_jwk(kind, 1, kid="old"))
            self.assertEqual(self.successResultOf(outcome), CLAIMS)
            self.accepted(self.authenticator, token)
            replaced = sign(CLAIMS, "RS256", kid="old")
            self.assertIsInstance(self.authenticator.authenticate(replaced, NOW), Deferred)
            self.one.fetches.clear()
        self.assertEqual(self.two.asked, 0)

    def test_a_wrong_signature_under_a_known_id(self) -> None:
        outcome = self.waiting(self.authenticator, sign(CLAIMS, "RS256", 1, kid="old"))
        self.one.fetched(public_jwk("RSA", kid="old"))
        error: Any = self.failureResultOf(outcome, TokenError).value
        self.assertEqual(error.fault, TokenFault.SIGNATURE)
        self.one.resting = True
        forged = sign(CLAIMS, "RS256", 1, kid="old")
        self.refused(self.authenticator, forged, TokenFault.SIGNATURE)

    def test_what_needs_no_fetch(self) -> None:
        """Good tokens, and those that no new key can make good."""
        self.accepted(self.authenticator, sign(CLAIMS, "EdDSA", kid="new"))
        self.accepted(self.authenticator, sign(CLAIMS, "RS256"))
        expired = sign({"exp": 0}, "EdDSA", kid="new")
        self.refused(self.authenticator, expired, TokenFault.EXPIRED)
        self.refused(self.authenticator, hmac_token(b"", kid="new"), TokenFault.ALGORITHM)
        self.refused(self.authenticator, f"{self.token}.", TokenFault.MALFORMED)
        self.assertEqual((self.one.asked, self.two.asked), (0, 0))


class AccessKeyTests(AuthTestCase):
    """Tokens of customers of the gateway."""

    def setUp(self) -> None:
        self.key = AccessKey("AcIbjUrHA8EV62TAGYcwDtHhQ8wN3lXmcKtFtN/SvdMA")
        self.set = Keys()
        self.authenticator = self.make(settings("RSA", access_keys=True))

    def make(self, chosen: TurnSettings) -> TurnAuthenticator:
        customers = {self.key.kid: self.key.public_jwk()}
        return TurnAuthenticator(chosen, [self.set], customers.get)

    def token(self, **members: Any) -> str:
        return TokenGenerator(self.key).create_token(
            "room", "alice", now=NOW, **{"subject": "turn", **members}
        )

    def test_a_token_for_turn(self) -> None:
        for subject in ("turn", "Turn", ["turn"], ["connect", "TURN"]):
            claims = self.accepted(self.authenticator, self.token(subject=subject))
            self.assertEqual((claims["uid"], claims["sub"]), ("alice", subject))
        self.assertEqual(self.set.asked, 0)

    def test_a_token_for_something_else(self) -> None:
        for subject in ("connect", "", "turns", "turn connect", [], ["connect", "RoomClose"]):
            token = self.token(subject=subject)
            self.refused(self.authenticator, token, TokenFault.CLAIMS, about=subject)

    def test_a_token_for_anything(self) -> None:
        claims = {"rid": "room", "uid": "alice", "exp": NOW + 60}
        token = self.key.secret_key.sign_jwt(json.dumps(claims).encode())
        self.refused(self.authenticator, token, TokenFault.CLAIMS)

    def test_audiences(self) -> None:
        for audience, fault in (
            (None, None),
            ("gateway", None),
            (["sfu", "gateway"], None),
            ("sfu", TokenFault.AUDIENCE),
            ("turn", TokenFault.AUDIENCE),
        ):
            token = self.token(audience=audience)
            if fault is None:
                self.accepted(self.authenticator, token)
            else:
                self.refused(self.authenticator, token, fault, about=audience)

    def test_times(self) -> None:
        self.refused(self.authenticator, self.token(lifetime=-61), TokenFault.EXPIRED)
        self.accepted(self.authenticator, self.token(lifetime=-59))
        claims = {"rid": "room", "uid": "alice", "sub": "turn"}
        token = self.key.secret_key.sign_jwt(json.dumps(claims).encode())
        self.refused(self.authenticator, token, TokenFault.EXPIRED)
        self.refused(self.authenticator, self.token(), TokenFault.NOT_YET_VALID, NOW - 61)

    def test_what_is_for_issuers_does_not_count(self) -> None:
        chosen = settings("RSA", access_keys=True, required_scopes=("x",), issuer="x", audience="x")
        self.accepted(self.make(chosen), self.token())

    def test_they_must_be_allowed(self) -> None:
        self.set.resting = True
        self.refused(self.make(settings()), self.token(), TokenFault.UNKNOWN_KEY)

    def test_other_signers(self) -> None:
        """Unknown customers, whom the client API lets in for demonstrations, and servers."""
        self.set.resting = True
        server = server_key(b"master", "voice.test:4433")
        for key in (AccessKey.generate(lambda count: b"1" * count).secret_key, server):
            token = TokenGenerator(key).create_token("room", "a", now=NOW, subject="turn")
            authenticator = self.make(settings(access_keys=True))
            self.refused(authenticator, token, TokenFault.UNKNOWN_KEY)

    def test_forgeries(self) -> None:
        self.set.resting = True
        for token, fault in (
            (sign(CLAIMS, "EdDSA", kid=self.key.kid), TokenFault.SIGNATURE),
            (sign(CLAIMS, "ES256", kid=self.key.kid), TokenFault.ALGORITHM),
            (f"{self.token()[:-4]}AAAA", TokenFault.SIGNATURE),
        ):
            self.refused(self.authenticator, token, fault)

    def test_other_keys_beside_them(self) -> None:
        self.accepted(self.authenticator, sign(CLAIMS, "RS256"))
        self.accepted(self.authenticator, sign(CLAIMS, "RS256", kid=self.key.kid))
