"""Which JWTs get TURN credentials."""

import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import KeyMaterialError, TokenError, TokenFault
from odingw.tokens import AccessKey, TokenGenerator, base64url, server_key
from odingw.turn.auth import CACHE_SECONDS, MAX_CACHED, MAX_TRIES, TurnAuthenticator, scopes
from odingw.turn.keys import VerifyingKey, jwk_set, static_key
from odingw.turn.settings import TurnSettings
from tests.jwk_server import (
    TYPES,
    Jwk,
    document,
    private_key,
    public_jwk,
    sign,
    spki,
    spki_text,
)

NOW = 1_700_000_000
CLAIMS = {"sub": "alice", "exp": NOW + 3600}
SETTINGS = TurnSettings(turn_uris=("turn:turn.test",), leeway=60)

KINDS = {algorithm: kind for kind, algorithms in TYPES.items() for algorithm in algorithms}


def settings(*kinds: str, **members: Any) -> TurnSettings:
    """Settings with a static key of each of these types."""
    return replace(SETTINGS, public_keys=tuple(map(spki_text, kinds)), **members)


def keys_of(*jwks: Jwk) -> tuple[VerifyingKey, ...]:
    return jwk_set(document(jwks), "a set").keys


def compact(header: object, payload: object, signature: bytes = b"") -> str:
    """A JWS of anything."""
    segments = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    ]
    return b".".join(map(base64url.encode, (*segments, signature))).decode()


def hmac_token(secret: bytes, algorithm: str = "HS256", **header: object) -> str:
    """A token that is signed with a secret."""
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    unsigned = compact({"alg": algorithm, **header}, CLAIMS).rpartition(".")[0]
    signature = hmac.digest(secret, unsigned.encode(), digest)
    return f"{unsigned}.{base64url.encode(signature).decode()}"


def raw_token(header: Mapping[str, object], payload: object, number: int = 0) -> str:
    """A token with any header, signed as EdDSA."""
    unsigned = compact(header, payload).rpartition(".")[0]
    signature = private_key("Ed25519", number).sign(unsigned.encode())
    return f"{unsigned}.{base64url.encode(signature).decode()}"


class Keys:
    """A JWK set whose changes the test makes."""

    def __init__(self, *jwks: Jwk) -> None:
        self.keys = keys_of(*jwks)
        self.asked: list[str | None] = []
        self.fetches: list[Deferred[float]] = []
        self.resting = False

    def lookup(self, kid: str | None) -> Deferred[float] | None:
        self.asked.append(kid)
        if self.resting:
            return None
        self.fetches.append(Deferred())
        return self.fetches[-1]

    def fetched(self, *jwks: Jwk, seconds: float = 0) -> None:
        """End the oldest fetch."""
        self.keys = keys_of(*jwks)
        self.fetches.pop(0).callback(seconds)


class AuthTestCase(SynchronousTestCase):
    def accepted(
        self, authenticator: TurnAuthenticator, token: str, now: float = NOW
    ) -> Mapping[str, Any]:
        claims = authenticator.authenticate(token, now)
        self.assertNotIsInstance(claims, Deferred)
        return claims  # type: ignore[return-value]  # just checked

    def refused(
        self,
        authenticator: TurnAuthenticator,
        token: str,
        fault: TokenFault,
        now: float = NOW,
        about: object = None,
    ) -> str:
        """The message of the refusal, which must repeat no part of the token."""
        error = self.assertRaises(TokenError, authenticator.authenticate, token, now)
        self.assertEqual(error.fault, fault, f"{about}: {error.message}")
        for part in token.split("."):
            self.assertFalse(part and part in error.message, about)
        return str(error.message)

    def waiting(self, authenticator: TurnAuthenticator, token: str) -> Deferred[Any]:
        outcome = authenticator.authenticate(token, NOW)
        assert isinstance(outcome, Deferred)
        self.assertNoResult(outcome)
        return outcome


class StaticKeyTests(SynchronousTestCase):
    def cause(self, text: str) -> str:
        error = self.assertRaises(KeyMaterialError, static_key, text, "here")
        self.assertNotIn(text[:20] or "\n", str(error))
        return str(error)

    def test_each_type(self) -> None:
        for kind, algorithms in TYPES.items():
            key = static_key(spki_text(kind), "here")
            self.assertEqual(key.algorithms, set(algorithms))
            self.assertEqual((key.kid, key.source), (None, "here"))

    def test_white_space_in_it(self) -> None:
        text = spki_text("P-256")
        self.assertEqual(static_key(f" {text[:64]}\n{text[64:]}\n", ""), static_key(text, ""))

    def test_other_types(self) -> None:
        for key in (
            ec.generate_private_key(ec.SECP521R1()),
            ec.generate_private_key(ec.SECP256K1()),
            ed448.Ed448PrivateKey.generate(),
            x25519.X25519PrivateKey.generate(),
            dsa.generate_private_key(2048),
        ):
            cause = self.cause(b64encode(spki(key)).decode())
            self.assertIn("must be an RSA, EC (P-256, P-384) or Ed25519 key", cause)

    def test_rsa_sizes(self) -> None:
        for bits in (1024, 2047):
            key = rsa.generate_private_key(65537, bits)
            cause = self.cause(b64encode(spki(key)).decode())
            self.assertEqual(cause, "an RSA key must have 2048 to 8192 bits")
        for modulus, exponent in (((1 << 8192) + 1, 65537), ((1 << 2047) + 1, (1 << 64) + 1)):
            public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
            der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self.cause(b64encode(der).decode())

    def test_an_ed25519_key_that_anybody_can_sign_for(self) -> None:
        """Points of small order verify made-up signatures."""
        der = spki(private_key("Ed25519"))[:-32] + b"\x01" + bytes(31)
        self.assertEqual(self.cause(b64encode(der).decode()), "its numbers make no key")

    def test_what_is_no_key(self) -> None:
        der = spki(private_key("P-256"))
        for text in (
            "",
            "?",
            "secret",
            b64encode(der[:-1]).decode(),
            b64encode(der + b"\0").decode(),
            b64encode(bytes(100)).decode(),
            f"-----BEGIN PUBLIC KEY-----\n{b64encode(der).decode()}\n-----END PUBLIC KEY-----",
        ):
            self.assertIn("base64", self.cause(text))

    def test_the_authenticator_wants_good_ones(self) -> None:
        wrong = replace(SETTINGS, public_keys=("secret",))
        self.assertRaises(KeyMaterialError, TurnAuthenticator, wrong)


class SignatureTests(AuthTestCase):
    def test_every_algorithm(self) -> None:
        for algorithm, kind in KINDS.items():
            authenticator = TurnAuthenticator(settings(kind))
            token = sign(CLAIMS, algorithm)
            self.assertEqual(self.accepted(authenticator, token), CLAIMS)
            self.refused(
                authenticator, sign(CLAIMS, algorithm, 1), TokenFault.SIGNATURE, about=algorithm
            )

    def test_examples_of_the_rfcs(self) -> None:
        """RFC 7515, A.2 and A.3; RFC 8037, A.4."""
        payload = (
            b"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
            b"cGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        )
        for algorithm, jwk, message, signature in (
            (
                "RS256",
                {
                    "kty": "RSA",
                    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-"
                    "4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47"
                    "soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R"
                    "2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8N"
                    "Aco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
                    "e": "AQAB",
                },
                b"eyJhbGciOiJSUzI1NiJ9." + payload,
                b"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc"
                b"_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO"
                b"75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eO"
                b"kHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkW"
                b"ywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                "ES256",
                {
                    "kty": "EC",
                    "crv": "P-256",
                    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
                },
                b"eyJhbGciOiJFUzI1NiJ9." + payload,
                b"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP"
                b"3-Kg6NU1Q",
            ),
            (
                "EdDSA",
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                },
                b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
                b"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpA"
                b"r_MuM0KAg",
            ),
        ):
            [key] = keys_of(jwk)
            raw = base64url.decode(signature)
            self.assertTrue(key.verify(algorithm, message, raw), algorithm)
            self.assertFalse(key.verify(algorithm, message + b".", raw), algorithm)

    def test_a_key_verifies_nothing_else(self) -> None:
        """Whatever a caller asks of it."""
        for kind, algorithms in TYPES.items():
            key = static_key(spki_text(kind), "")
            for algorithm in ("none", "HS256", "ES512", "ES256K", "", *KINDS):
                if algorithm not in algorithms:
                    self.assertFalse(key.verify(algorithm, b"", b""), (kind, algorithm))

    def test_changed_tokens(self) -> None:
        for algorithm, kind in KINDS.items():
            authenticator = TurnAuthenticator(settings(kind))
            first, second, third = sign(CLAIMS, algorithm).split(".")
            other = compact({}, {**CLAIMS, "sub": "mallory"}).split(".")[1]
            signature = base64url.decode(third.encode())
            for changed in (
                b"",
                b"\0",
                bytes(len(signature)),
                b"\xff" * len(signature),
                signature[:-1],
                signature + b"\0",
                signature[::-1],
                signature[:10] + bytes([signature[10] ^ 1]) + signature[11:],
            ):
                token = f"{first}.{second}.{base64url.encode(changed).decode()}"
                self.refused(authenticator, token, TokenFault.SIGNATURE, about=(algorithm, changed))
            self.refused(authenticator, f"{first}.{other}.{third}", TokenFault.SIGNATURE)

    def test_several_keys_side_by_side(self) -> None:
        authenticator = TurnAuthenticator(
            replace(
                SETTINGS,
                public_keys=tuple(
                    spki_text(kind, number) for kind in ("RSA", "P-256") for number in (0, 1)
                ),
            ),
            [Keys(public_jwk("RSA", 2), public_jwk("P-256", 2, kid="a"))],
        )
        for algorithm in ("RS256", "PS512", "ES256"):
            for number in (0, 1, 2):
                self.accepted(authenticator, sign(CLAIMS, algorithm, number))

    def test_a_key_id_narrows_the_choice_among_jwks(self) -> None:
        """Keys without an id always count, as those of the configuration have none."""
        keys = Keys(
            public_jwk("P-256", 0, kid="a"),
            public_jwk("P-256", 1, kid="b"),
            public_jwk("P-256", 2),
        )
        keys.resting = True
        authenticator = TurnAuthenticator(
            replace(SETTINGS, public_keys=(spki_text("P-256", 3),)), [keys]
        )
        for number, kid, good in (
            (0, "a", True),
            (0, "b", False),
            (0, "c", False),
            (1, "b", True),
            (1, "a", False),
            (2, "a", True),
            (2, "c", True),
            (3, "a", True),
            (3, "c", True),
        ):
            token = sign(CLAIMS, "ES256", number, kid=kid)
            if good:
                self.accepted(authenticator, token)
            else:
                self.refused(authenticator, token, TokenFault.SIGNATURE, about=(number, kid))

    def test_two_keys_of_the_same_id(self) -> None:
        """Of several sets, or of one."""
        sets = [
            Keys(public_jwk("P-256", 0, kid="a"), public_jwk("RSA", 0, kid="a")),
            Keys(public_jwk("P-256", 1, kid="a")),
        ]
        authenticator = TurnAuthenticator(SETTINGS, sets)
        for algorithm, number in (("ES256", 0), ("RS256", 0), ("ES256", 1)):
            self.accepted(authenticator, sign(CLAIMS, algorithm, number, kid="a"))

    def test_a_token_is_not_tried_with_any_number_of_keys(self) -> None:
        jwks = [public_jwk("Ed25519", number, kid=f"{number}") for number in range(MAX_TRIES + 1)]
        keys = Keys(*jwks)
        keys.resting = True
        authenticator = TurnAuthenticator(settings("Ed25519"), [keys])
        self.accepted(authenticator, sign(CLAIMS, "EdDSA", MAX_TRIES - 1))
        self.refused(authenticator, sign(CLAIMS, "EdDSA", MAX_TRIES), TokenFault.SIGNATURE)
        self.accepted(authenticator, sign(CLAIMS, "EdDSA", MAX_TRIES, kid=f"{MAX_TRIES}"))
        keys.keys = keys_of(*jwks[1:])
        self.accepted(authenticator, sign(CLAIMS, "EdDSA", 0))

    def test_no_keys(self) -> None:
        authenticator = TurnAuthenticator(SETTINGS)
        message = self.refused(authenticator, sign(CLAIMS, "RS256"), TokenFault.UNKNOWN_KEY)
        self.assertEqual(message, "not authorized")


class ConfusionTests(AuthTestCase):
    """Attacks on the choice of algorithm and key (RFC 8725, section 2)."""

    def test_no_signature_at_all(self) -> None:
        keys = Keys(public_jwk("RSA", kid="a"))
        authenticator = TurnAuthenticator(settings(*TYPES), [keys])
        for name in ("none", "None", "NONE", "nOnE", "", "null"):
            for signature in (b"", b"\0" * 64):
                for header in ({"alg": name}, {"alg": name, "kid": "a"}, {"alg": name, "kid": "b"}):
                    token = compact(header, CLAIMS, signature)
                    self.refused(authenticator, token, TokenFault.ALGORITHM, about=header)
        self.assertEqual(keys.asked, [])

    def test_a_public_key_as_secret(self) -> None:
        for kind in TYPES:
            keys = Keys(public_jwk(kind, kid="a"))
            authenticator = TurnAuthenticator(settings(kind), [keys])
            key = private_key(kind).public_key()
            pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            der = spki(private_key(kind))
            jwk = json.dumps(public_jwk(kind, kid="a")).encode()
            secrets = (pem, pem.strip(), der, b64encode(der), jwk, b"")
            for secret in secrets:
                for algorithm in ("HS256", "HS384", "HS512"):
                    for header in ({}, {"kid": "a"}):
                        token = hmac_token(secret, algorithm, **header)
                        self.refused(authenticator, token, TokenFault.ALGORITHM, about=kind)

    def test_an_algorithm_of_another_type_of_key(self) -> None:
        names = ("ES512", "ES256K", "Ed25519", "Ed448", "RS1", "RSA-OAEP", "A128KW", *KINDS)
        for kind, algorithms in TYPES.items():
            for authenticator in (
                TurnAuthenticator(settings(kind)),
                TurnAuthenticator(SETTINGS, [Keys(public_jwk(kind, kid="a"))]),
            ):
                [own, *_] = algorithms
                signature = base64url.decode(sign(CLAIMS, own).rpartition(".")[2].encode())
                for name in names:
                    if name not in algorithms:
                        token = compact({"alg": name, "kid": "a"}, CLAIMS, signature)
                        self.refused(authenticator, token, TokenFault.ALGORITHM, about=(kind, name))

    def test_an_algorithm_that_the_jwk_excludes(self) -> None:
        authenticator = TurnAuthenticator(SETTINGS, [Keys(public_jwk("RSA", kid="a", alg="RS256"))])
        self.accepted(authenticator, sign(CLAIMS, "RS256", kid="a"))
        for algorithm in ("RS512", "PS256"):
            token = sign(CLAIMS, algorithm, kid="a")
            self.refused(authenticator, token, TokenFault.ALGORITHM, about=algorithm)

    def test_a_key_that_the_token_brings_along(self) -> None:
        own = public_jwk("RSA", 1)
        keys = Keys(public_jwk("RSA", kid="a"))
        authenticator = TurnAuthenticator(settings("P-256"), [keys])
        certificate = b64encode(spki(private_key("RSA", 1))).decode()
        headers: list[dict[str, Any]] = [
            {"jwk": own},
            {"jwk": {**own, "kid": "a"}},
            {"jku": "http://127.0.0.1:1/keys"},
            {"x5u": "http://127.0.0.1:1/certificate"},
            {"x5c": [certificate]},
            {"kid": json.dumps(own)},
            {"kid": "../../dev/null"},
        ]
        for header in headers:
            token = sign(CLAIMS, "RS256", 1, **{"kid": "a", **header})
            if "kid" in header:
                waiting = self.waiting(authenticator, token)
                keys.fetched(public_jwk("RSA", kid="a"))
                self.failureResultOf(waiting, TokenError)
            else:
                self.refused(authenticator, token, TokenFault.SIGNATURE, about=header)

    def test_such_members_are_not_read(self) -> None:
        """Some issuers put the URL of their keys into each token."""
        keys = Keys(public_jwk("RSA", kid="a"))
        authenticator = TurnAuthenticator(SETTINGS, [keys])
        headers: dict[str, Any] = {
            "jku": "https://issuer.test/keys",
            "x5t": "abc",
            "x5c": ["abc"],
            "cty": "JWT",
        }
        self.accepted(authenticator, sign(CLAIMS, "RS256", kid="a", **headers))
        self.assertEqual(keys.asked, [])

    def test_critical_extensions(self) -> None:
        authenticator = TurnAuthenticator(settings("Ed25519"))
        self.accepted(authenticator, raw_token({"alg": "EdDSA", "b64": True}, CLAIMS))
        headers: list[dict[str, Any]] = [
            {"crit": ["exp"], "exp": 1},
            {"crit": ["b64"], "b64": False},
            {"crit": ["b64"], "b64": True},
            {"crit": []},
            {"crit": None},
            {"b64": False},
        ]
        for header in headers:
            token = raw_token({"alg": "EdDSA", **header}, CLAIMS)
            self.refused(authenticator, token, TokenFault.MALFORMED, about=header)


class FormTests(AuthTestCase):
    def setUp(self) -> None:
        self.authenticator = TurnAuthenticator(settings("Ed25519"))

    def test_segments(self) -> None:
        token = sign(CLAIMS, "EdDSA")
        first, second, third = token.split(".")
        for text in (
            "",
            ".",
            "..",
            "...",
            first,
            f"{first}.{second}",
            f"{token}.",
            f".{token}",
            f"{token}.{third}",
            f"{token} ",
            f" {token}",
            f"{token}=",
            f"{first}=.{second}.{third}",
            f"{first}\n.{second}.{third}",
            f"{first}.{second}==.{third}",
            f"{first}.{second}.{third[:-1]}",
            f"{first}.{second}.{third[:-2]}B",
            f"{first}.{second}.+{third[1:]}",
            f"é{token}",
            f"{token}\ud800",
        ):
            self.refused(self.authenticator, text, TokenFault.MALFORMED, about=text)

    def test_headers(self) -> None:
        for header in (
            b"",
            b"{",
            b"[]",
            b"null",
            b'"EdDSA"',
            b"{}",
            b'{"kid": "a"}',
            b'{"alg": null}',
            b'{"alg": ["EdDSA"]}',
            b'{"alg": "EdDSA", "kid": 1}',
            b'{"alg": "EdDSA", "kid": null}',
            b'{"alg": "EdDSA"} {}',
            b'{"alg": "EdDSA", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        ):
            self.refused(self.authenticator, compact(header, CLAIMS), TokenFault.MALFORMED)

    def test_claims_that_are_no_object(self) -> None:
        for payload in (b"", b"{", b"[]", b"null", b"5", b'{"exp": NaN}', b"[" * 5000, b"\xff"):
            token = raw_token({"alg": "EdDSA"}, payload)
            self.refused(self.authenticator, token, TokenFault.CLAIMS, about=payload)


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

    def test_where_scopes_are_read(self) -> None:
        for claims, found in (
            ({}, set()),
            ({"scp": ["a", "b"]}, {"a", "b"}),
            ({"scp": "a b"}, {"a", "b"}),
            ({"scopes": ["a"]}, {"a"}),
            ({"scopes": " a  b "}, {"a", "b"}),
            ({"scope": "a b"}, {"a", "b"}),
            ({"scope": ["a", "b c"]}, {"a", "b c"}),
            ({"scp": ["a"], "scopes": ["b"], "scope": "c"}, {"a", "b", "c"}),
            ({"scp": None, "scopes": 5, "scope": {"a": 1}}, set()),
            ({"scp": [None, 5, ["a"], "b"]}, {"b"}),
            ({"Scope": "a", "roles": ["a"]}, set()),
        ):
            self.assertEqual(scopes(claims), found, claims)

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
        tokens = [self.token(3600, f"{number}") for number in range(MAX_CACHED + 1)]
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
        self.assertEqual((self.one.asked, self.two.asked), (["new"], ["new"]))
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
        self.assertEqual((self.one.asked, self.two.asked), ([None], [None]))
        self.one.fetched(public_jwk("RSA", 1, kid="old"))
        self.assertEqual(self.successResultOf(outcome), CLAIMS)

    def test_what_needs_no_fetch(self) -> None:
        """Good tokens, and those that no new key can make good."""
        self.accepted(self.authenticator, sign(CLAIMS, "EdDSA", kid="new"))
        self.accepted(self.authenticator, sign(CLAIMS, "RS256"))
        expired = sign({"exp": 0}, "EdDSA", kid="new")
        self.refused(self.authenticator, expired, TokenFault.EXPIRED)
        forged = sign(CLAIMS, "RS256", 1, kid="old")
        self.refused(self.authenticator, forged, TokenFault.SIGNATURE)
        other_type = sign(CLAIMS, "ES256", kid="old")
        self.refused(self.authenticator, other_type, TokenFault.ALGORITHM)
        self.refused(self.authenticator, hmac_token(b"", kid="new"), TokenFault.ALGORITHM)
        self.refused(self.authenticator, f"{self.token}.", TokenFault.MALFORMED)
        self.assertEqual((self.one.asked, self.two.asked), ([], []))


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
        self.assertEqual(self.set.asked, [])

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
