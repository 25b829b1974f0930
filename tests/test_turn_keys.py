"""Public keys and JWK sets as they are read."""

import contextlib
import json
from base64 import b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import KeyMaterialError
from odingw.tokens import base64url
from odingw.turn.auth import TurnAuthenticator
from odingw.turn.jwks_fetch import MAX_BYTES
from odingw.turn.keys import LONGEST_KID, MAX_JWKS, jwk, jwk_set, static_key
from tests.jwk_server import (
    TYPES,
    document,
    private_key,
    public_jwk,
    spki,
    spki_text,
)
from tests.turn_auth_case import SETTINGS


class StaticKeyTests(SynchronousTestCase):
    def cause(self, text: str) -> str:
        error = self.assertRaises(KeyMaterialError, static_key, text, "here")
        self.assertNotIn(text[:20] or "\n", str(error))
        return str(error)

    def test_each_type(self) -> None:
        for kind, algorithms in TYPES.items():
            key = static_key(spki_text(kind), "here")
            self.assertEqual(key.algorithms - {"Ed25519"}, set(algorithms))
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
        ):
            self.assertIn("base64", self.cause(text))

    def test_the_authenticator_wants_good_ones(self) -> None:
        wrong = replace(SETTINGS, public_keys=("secret",))
        self.assertRaises(KeyMaterialError, TurnAuthenticator, wrong)


class JwkTests(SynchronousTestCase):
    def cause(self, value: object) -> str:
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        return str(self.assertRaises(KeyMaterialError, jwk, text, "here"))

    def test_each_type(self) -> None:
        for kind, algorithms in TYPES.items():
            key = jwk(json.dumps(public_jwk(kind, kid="a", x5t="b", more={})).encode(), "here")
            self.assertEqual(key.algorithms - {"Ed25519"}, set(algorithms))
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
            ("RSA", {"kty": "EC"}, "crv must be one of P-256, P-384"),
            ("RSA", {"kty": "oct"}, "must be an RSA, EC (P-256, P-384) or Ed25519 key"),
            ("P-256", {"crv": "P-384"}, "its numbers make no key"),
            ("Ed25519", {"crv": "X25519"}, "its curve has no signatures"),
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
            ({"e": number(1 << 32)}, "32 bits or less"),
            ({"e": number((1 << 33) + 1)}, "32 bits or less"),
            ({"e": number((1 << 64) - 1)}, "32 bits or less"),
            ({"e": number((1 << 2040) + 1)}, "32 bits or less"),
            ({"e": "AAAA" + "x" * 500_000}, "32 bits or less"),
            ({"n": number((1 << 2048) - 2)}, "make no key"),
            ({"kid": "k" * (LONGEST_KID + 1)}, "1024 characters or less"),
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
        for x in ("", "AA", good["x"] + "AAAA", small, base64url.encode(bytes(32)).decode()):
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
            {**public_jwk("RSA"), "kty": None},
            {**public_jwk("RSA"), "alg": ["RS256"]},
            {**public_jwk("RSA"), "use": {}},
            {**public_jwk("RSA"), "key_ops": "verify"},
            {**public_jwk("RSA"), "n": 5},
        ):
            self.assertIn("a JSON object expected", self.cause(value), value)

    def test_the_member_of_a_wrong_type_is_named(self) -> None:
        for name, value in (
            *(("kty", 5), ("kid", 5), ("alg", ["RS256"]), ("use", {}), ("n", True)),
            *(("e", 65537), ("key_ops", "verify"), ("key_ops", [5]), ("key_ops", [["verify"]])),
        ):
            cause = self.cause({**public_jwk("RSA"), name: value})
            self.assertTrue(cause.endswith(f"; its {name} is something else"), cause)
        for lacking in ({}, {"kty": ""}):
            self.assertTrue(self.cause(lacking).endswith("; its kty is absent"))


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
                    public_jwk("RSA", kid="for nothing", alg="none"),
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
                "key 2 ('for nothing') of the set",
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
            b"[" * MAX_BYTES,
            b'{"keys": ' + b"[" * MAX_BYTES,
            b'{"keys": [' + b'{"a": ' * 100_000,
        ):
            error = self.assertRaises(KeyMaterialError, jwk_set, text, "a set")
            self.assertEqual(str(error), "it is not a JSON object with a list of keys", text[:50])
        for document_, what in (
            (public_jwk("RSA"), "a JWK as JSON text"),
            ({"issuer": "https://a", "jwks_uri": "https://a/jwks"}, "an OpenID configuration"),
        ):
            error = self.assertRaises(
                KeyMaterialError, jwk_set, json.dumps(document_).encode(), "a set"
            )
            self.assertIn(f"a list of keys, but {what}; name the URL", str(error))

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
