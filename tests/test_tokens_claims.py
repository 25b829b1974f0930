"""Client tokens: what their claims may be, and which tokens are good."""

import itertools
import json
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import TokenError, TokenFault
from odingw.tokens import (
    Claims,
    Internal,
    Policy,
    PublicJwk,
    SecretKey,
    Verified,
    check_claims,
    decode_claims,
    verify,
)

NOW: Final = 1_700_000_000
KEY: Final = SecretKey(bytes(range(32)))
STRICT: Final = Policy()
OLD: Final = Policy(leeway=300, require_expiry=False)
GOOD: Final[dict[str, Any]] = {"rid": "room", "uid": "user", "exp": NOW + 300, "nbf": NOW}
LARGEST: Final = 2**53 - 1

names = st.text(max_size=10) | st.lists(st.text(max_size=10), max_size=3)
times = st.integers(-LARGEST, LARGEST)
claim_values: Final = {
    "rid": names,
    "uid": st.text(),
    "sub": names,
    "aud": names,
    "exp": times,
    "nbf": times,
    "internal": st.fixed_dictionaries({}, optional={"server": st.text(), "else": st.none()}),
    "adr": st.text(),
    "tgs": names,
    "ups": st.text(),
    "cid": st.text(),
    "nsp": st.text(),
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def sign(claims: object, key: SecretKey = KEY) -> str:
    """A token; bytes are taken for the payload as they are."""
    return key.sign_jwt(claims if isinstance(claims, bytes) else json.dumps(claims).encode())


def find_key(kid: str) -> PublicJwk | None:
    return KEY.public_jwk() if kid == KEY.kid else None


def check(claims: object, policy: Policy = STRICT, now: float = NOW) -> Verified[PublicJwk]:
    return verify(sign(claims), find_key, now=now, policy=policy)


def fault_of(claims: object, policy: Policy = STRICT, now: float = NOW) -> tuple[str, str]:
    """Fault and message of a signed token; empty if it is good."""
    try:
        check(claims, policy, now)
    except TokenError as error:
        return str(error.fault), error.message
    return "", ""


class DecodeTests(SynchronousTestCase):
    def test_absent_claims(self) -> None:
        """A claim that is absent is ``UNSET``, and unknown ones are ignored."""
        claims = decode_claims(b'{"__proto__": {"rid": "a"}, "iss": null, "RID": 5}')
        for name in claim_values:
            self.assertIs(getattr(claims, name), UNSET, name)

    @given(st.fixed_dictionaries({}, optional=claim_values))
    def test_right_types(self, claims: dict[str, Any]) -> None:
        """Claims of the right types are read as they are; arrays become tuples."""
        decoded = decode_claims(json.dumps(claims).encode())
        for name, value in claims.items():
            if name == "internal":
                expected: object = Internal(value.get("server", UNSET))
            else:
                expected = tuple(value) if isinstance(value, list) else value
            self.assertEqual(getattr(decoded, name), expected)

    def test_wrong_types(self) -> None:
        """A claim of a wrong type is refused by name, and its value is not shown."""
        secret = "hunter2"
        not_text: list[Any] = [None, True, 7007007, 1.5, {"a": secret}, {}]
        not_name = [*not_text, [secret, 5], [None], [[secret]], [secret, None]]
        not_time: list[Any] = [
            None,
            True,
            1.5,
            7007007.5,
            secret,
            "1",
            [],
            {},
            LARGEST + 1,
            -LARGEST - 1,
        ]
        not_time += [10**30, 1e300]
        not_internal: list[Any] = [None, True, 7007007, secret, [], [secret], {"server": None}]
        not_internal += [{"server": 7007007}, {"server": [secret]}]
        wrong: list[tuple[tuple[str, ...], list[Any]]] = [
            (("rid", "sub", "aud", "tgs"), not_name),
            (("uid", "adr", "ups", "cid", "nsp"), [*not_text, [], [secret]]),
            (("exp", "nbf"), not_time),
            (("internal",), not_internal),
        ]
        self.assertEqual({name for names, _ in wrong for name in names}, set(claim_values))
        for claims, values in wrong:
            for name, value in itertools.product(claims, values):
                fault, message = fault_of({**GOOD, name: value})
                self.assertEqual(fault, "claims", (name, value))
                self.assertTrue(message.startswith(f"token claim {name} must be "), message)
                self.assertNotIn(secret, message)
                self.assertNotIn("7007007", message)

    def test_numbers_in_other_spellings(self) -> None:
        """A time is an integer, in whatever spelling JSON has for it."""
        for number in ("1e9", "1700000000.0", "17E8", "-0.0"):
            self.assertEqual(decode_claims(b'{"exp":%s}' % number.encode()).exp, float(number))
        for number in ("1700000000.5", "1e-1", "1e300", "9007199254740992.0", "1e400", "9" * 5000):
            raw = f'{{"rid":"a","uid":"b","exp":{number}}}'.encode()
            self.assertEqual(fault_of(raw)[1][:15], "token claim exp", number)
        for largest in (LARGEST, -LARGEST):
            self.assertEqual(decode_claims(b'{"exp":%d}' % largest).exp, largest)

    def test_no_claims(self) -> None:
        """A payload that is no JSON object is refused."""
        for raw in (
            b"",
            b"{",
            b"[]",
            b"null",
            b"5",
            b'"x"',
            b"{}{}",
            b'{"rid":"a",}',
            b'{"rid":"\xff"}',
            b'{"rid":"\\ud800"}',
            b'{"x":NaN}',
            b'{"x":' + b"[" * 100_000 + b"}",
            b"\xef\xbb\xbf{}",
            "{}".encode("utf-16"),
        ):
            self.assertEqual(fault_of(raw)[0], "claims", raw)

    @given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
    def test_any_payload(self, payload: bytes) -> None:
        """Any bytes are claims or a ``TokenError``."""
        try:
            decode_claims(payload)
        except TokenError as error:
            self.assertEqual(error.fault, TokenFault.CLAIMS)

    @given(st.dictionaries(st.sampled_from(sorted(claim_values)), json_values))
    def test_any_values(self, claims: dict[str, Any]) -> None:
        """Any values of the known claims are claims or a ``TokenError`` with one of the names."""
        try:
            decode_claims(json.dumps(claims).encode())
        except TokenError as error:
            self.assertIn(error.message.split()[2], {*claims, "are"})


class VerifyTests(SynchronousTestCase):
    def test_good(self) -> None:
        """A good token gives the key that was found and what it claims."""
        verified = check(GOOD)
        self.assertEqual(verified.key, KEY.public_jwk())
        self.assertEqual(verified.claims, Claims(rid="room", uid="user", exp=NOW + 300, nbf=NOW))
        self.assertEqual(verified.relaxed, ())

    def test_any_holder_of_a_key(self) -> None:
        """What ``find_key`` returns comes back, whatever else it is; it is asked once."""
        asked: list[str] = []

        def find(kid: str) -> SecretKey:
            asked.append(kid)
            return KEY

        self.assertIs(verify(sign(GOOD), find, now=NOW, policy=STRICT).key, KEY)
        self.assertEqual(asked, [KEY.kid])

    def test_key_is_not_sought_for_a_malformed_token(self) -> None:
        """A token that is no JWS gets nowhere near the keys."""

        def find(kid: str) -> SecretKey:
            raise AssertionError(kid)

        for token in ("", "a.b.c", sign(GOOD) + "=", sign(GOOD).encode() + b".x"):
            with self.assertRaises(TokenError) as caught:
                verify(token, find, now=NOW, policy=STRICT)
            self.assertEqual(caught.exception.fault, TokenFault.MALFORMED)

    def test_unknown_key(self) -> None:
        """The signature of a key that is not known does not matter."""
        with self.assertRaises(TokenError) as caught:
            verify(sign(GOOD, SecretKey(bytes(32))), find_key, now=NOW, policy=STRICT)
        self.assertEqual(caught.exception.fault, TokenFault.UNKNOWN_KEY)
        self.assertEqual(caught.exception.message, "not authorized")

    def test_wrong_signature_comes_before_the_claims(self) -> None:
        """Nothing is said about the claims of a token that the key did not sign."""
        other = SecretKey(bytes(32))
        for claims in (GOOD, {}, {"exp": 0}, b"{", {**GOOD, "aud": "sfu"}):
            with self.assertRaises(TokenError) as caught:
                verify(sign(claims), lambda _: other, now=NOW, policy=STRICT)
            self.assertEqual(caught.exception.fault, TokenFault.SIGNATURE)
            self.assertEqual(caught.exception.message, "invalid signature in token")

    def test_order_and_messages(self) -> None:
        """Of several faults the first in this order is told: types, aud, exp, nbf, rid, uid."""
        claims: dict[str, Any] = {"sub": 5, "aud": "sfu", "exp": NOW - 999, "nbf": NOW + 999}
        expected = [
            ("sub", "claims", "token claim sub must be a string or an array of strings"),
            ("aud", "audience", "token audience does not match"),
            ("exp", "expired", "token has expired"),
            ("nbf", "not_yet_valid", "token not yet valid"),
        ]
        for name, fault, message in expected:
            self.assertEqual(fault_of(claims, OLD), (fault, message))
            del claims[name]
        missing = ("claims", "missing required claims in token")
        self.assertEqual(fault_of(claims, OLD), missing)
        self.assertEqual(fault_of({"rid": "a"}, OLD), missing)
        self.assertEqual(fault_of({"uid": "b"}, OLD), missing)
        self.assertEqual(fault_of({"rid": [], "uid": ""}, OLD), ("", ""))

    def test_audience(self) -> None:
        """``aud``, where there is one, must be or contain the audience, to the letter."""
        for aud in ("gateway", ["gateway"], ["sfu", "gateway"]):
            self.assertEqual(fault_of({**GOOD, "aud": aud}), ("", ""), aud)
        for aud in ("", "Gateway", "gateway2", "gate", [], ["sfu"], ["Gateway", "gate"]):
            self.assertEqual(fault_of({**GOOD, "aud": aud})[0], "audience", aud)
        turn = Policy(audience="turn")
        self.assertEqual(fault_of({**GOOD, "aud": "turn"}, turn), ("", ""))
        self.assertEqual(fault_of({**GOOD, "aud": "gateway"}, turn)[0], "audience")

    def test_times(self) -> None:
        """``exp`` and ``nbf`` hold up to the leeway, to the fraction of a second."""
        for policy in (STRICT, OLD, Policy(leeway=0)):
            late, early = NOW - policy.leeway, NOW + policy.leeway
            self.assertEqual(fault_of({**GOOD, "exp": late}, policy), ("", ""))
            self.assertEqual(fault_of({**GOOD, "nbf": early}, policy), ("", ""))
            self.assertEqual(fault_of({**GOOD, "exp": late}, policy, NOW + 0.25)[0], "expired")
            self.assertEqual(fault_of({**GOOD, "exp": late - 1}, policy)[0], "expired")
            self.assertEqual(
                fault_of({**GOOD, "nbf": early}, policy, NOW - 0.25)[0], "not_yet_valid"
            )
            self.assertEqual(fault_of({**GOOD, "nbf": early + 1}, policy)[0], "not_yet_valid")
        self.assertEqual(fault_of({**GOOD, "exp": NOW - 50, "nbf": NOW + 50}), ("", ""))
        self.assertEqual(fault_of({**GOOD, "exp": LARGEST, "nbf": -LARGEST}), ("", ""))
        self.assertEqual(fault_of({**GOOD, "exp": -LARGEST})[0], "expired")
        self.assertEqual(fault_of({**GOOD, "nbf": LARGEST})[0], "not_yet_valid")

    def test_expiry_is_required(self) -> None:
        """A token without ``exp`` is refused, unless the policy says otherwise."""
        for_ever = {"rid": "room", "uid": "user"}
        self.assertEqual(fault_of(for_ever), ("expired", "token has no expiry"))
        self.assertEqual(check(for_ever, OLD).relaxed, ("require_expiry",))

    def test_relaxed_rules(self) -> None:
        """What a strict policy would have refused is named."""
        cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
            ({}, ()),
            ({"exp": NOW - 60}, ()),
            ({"nbf": NOW + 60}, ()),
            ({"exp": NOW - 61}, ("leeway",)),
            ({"exp": NOW - 300}, ("leeway",)),
            ({"nbf": NOW + 61}, ("leeway",)),
            ({"nbf": NOW + 300}, ("leeway",)),
            ({"exp": NOW - 61, "nbf": NOW + 61}, ("leeway",)),
        ]
        for changes, relaxed in cases:
            self.assertEqual(check({**GOOD, **changes}, OLD).relaxed, relaxed, changes)
        both = {"rid": "room", "uid": "user", "nbf": NOW + 61}
        self.assertEqual(check(both, OLD).relaxed, ("leeway", "require_expiry"))

    def test_unsupported_algorithm(self) -> None:
        """A policy cannot ask for what the library cannot check."""
        with self.assertRaises(ValueError) as caught:
            Policy(algorithms=("EdDSA", "none"))
        self.assertEqual(
            str(caught.exception), "algorithm 'none' is not supported, only EdDSA, Ed25519"
        )

    def test_every_character_counts(self) -> None:
        """No character of a token can be changed, left out or doubled."""
        token = sign(GOOD)
        for at, character in enumerate(token):
            for other in ("A" if character != "A" else "B", "", character * 2, "."):
                changed = token[:at] + other + token[at + 1 :]
                if changed == token:
                    continue
                with self.assertRaises(TokenError):
                    verify(changed, find_key, now=NOW, policy=OLD)

    def test_swapped_parts(self) -> None:
        """Parts of good tokens do not make another good token."""
        one, two = sign(GOOD).split("."), sign({**GOOD, "rid": "other"}).split(".")
        with self.assertRaises(TokenError) as caught:
            verify(".".join((one[0], two[1], one[2])), find_key, now=NOW, policy=STRICT)
        self.assertEqual(caught.exception.fault, TokenFault.SIGNATURE)

    @given(st.fixed_dictionaries({"rid": names, "uid": st.text()}), st.integers(0, 10**6))
    @settings(deadline=None)
    def test_pyjwt_tokens(self, claims: dict[str, Any], lifetime: int) -> None:
        """Tokens that PyJWT made are good."""
        theirs = Ed25519PrivateKey.from_private_bytes(KEY.seed)
        claims |= {"aud": "gateway", "nbf": NOW, "exp": NOW + lifetime}
        token = jwt.encode(claims, theirs, "EdDSA", {"kid": KEY.kid})
        verified = verify(token, find_key, now=NOW, policy=STRICT)
        rid = claims["rid"]
        self.assertEqual(verified.claims.rid, tuple(rid) if isinstance(rid, list) else rid)
        self.assertEqual(verified.claims.uid, claims["uid"])

    @given(st.text() | st.binary() | st.integers(1, 200).map(lambda cut: sign(GOOD)[:-cut]))
    def test_any_token(self, token: str | bytes) -> None:
        """Any text is refused with a ``TokenError`` that repeats no part of it."""
        with self.assertRaises(TokenError) as caught:
            verify(token, find_key, now=NOW, policy=OLD)
        self.assertEqual(len(caught.exception.message.splitlines()), 1)

    @given(st.dictionaries(st.sampled_from(sorted(claim_values)), json_values))
    def test_any_claims(self, claims: dict[str, Any]) -> None:
        """Any claims of a known key are good or a ``TokenError``."""
        try:
            verified = check(claims, OLD)
        except TokenError:
            return
        self.assertIsInstance(verified.claims.uid, str)
        self.assertIsInstance(verified.claims.rid, str | tuple)


class CheckClaimsTests(SynchronousTestCase):
    def test_same_as_verify(self) -> None:
        """Claims on their own are judged as they are in a signed token."""
        late = {"exp": NOW - 61}
        for policy in (STRICT, OLD):
            for changes in ({}, {"aud": "sfu"}, {"exp": 0}, {"nbf": NOW + 61}, late):
                claims = {**GOOD, **changes}
                told: tuple[str, str] = ("", "")
                try:
                    relaxed = check_claims(
                        decode_claims(json.dumps(claims).encode()), now=NOW, policy=policy
                    )
                except TokenError as error:
                    told = (str(error.fault), error.message)
                else:
                    self.assertEqual(relaxed, check(claims, policy).relaxed)
                self.assertEqual(told, fault_of(claims, policy))

    def test_required(self) -> None:
        """``rid`` and ``uid`` are required here, too."""
        for claims in (Claims(exp=NOW), Claims(exp=NOW, rid="a"), Claims(exp=NOW, uid="b")):
            with self.assertRaises(TokenError) as caught:
                check_claims(claims, now=NOW, policy=STRICT)
            self.assertEqual(caught.exception.message, "missing required claims in token")
