"""Access keys, key ids, JWKs and derived keys."""

import base64
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jwt.algorithms
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import KeyMaterialError
from odingw.tokens import (
    AccessKey,
    KeyType,
    PublicJwk,
    SecretKey,
    TokenGenerator,
    decode_master_key,
    is_key_id,
    key_id,
    load_public_jwk,
    server_key,
)

DATA: Final = Path(__file__).parent / "data"

TEXT: Final = "AcIbjUrHA8EV62TAGYcwDtHhQ8wN3lXmcKtFtN/SvdMA"
SEED: Final = base64.b64decode("whuNSscDwRXrZMAZhzAO0eFDzA3eVeZwq0W039K90wA=")
PUBLIC_KEY: Final = base64.b64decode("ZGYe/vBZVNkzQ6fD8BmkJUb6o0p8wfKt3PqFVx6+be4=")
KID: Final = "AQ7aVmK+pI1l"
X: Final = "ZGYe_vBZVNkzQ6fD8BmkJUb6o0p8wfKt3PqFVx6-be4"
JWK: Final = {"kid": KID, "kty": "OKP", "crv": "Ed25519", "x": X}

seeds = st.binary(min_size=32, max_size=32)


def refusal(load: Callable[[Any], object], value: object) -> str:
    """What is said about a value that is refused; empty if it is not.

    Raises:
        AssertionError: a traceback would show a secret.
    """
    try:
        load(value)
    except KeyMaterialError as error:
        shown = "".join(traceback.format_exception(error))
        if isinstance(value, str) and len(value) > 20 and value[4:20] in shown:
            raise AssertionError("a secret is shown") from None
        return str(error)
    return ""


class AccessKeyTests(SynchronousTestCase):
    def test_vector(self) -> None:
        """The wire reference's access key holds the seed, key and id that it names."""
        key = AccessKey(TEXT)
        self.assertEqual(key.text, TEXT)
        self.assertEqual(key.kid, KID)
        self.assertEqual(key.secret_key.seed, SEED)
        self.assertEqual(key.secret_key.public_key, PUBLIC_KEY)
        self.assertEqual(key.secret_key.key_type, KeyType.CUSTOMER)
        self.assertEqual(key.public_jwk(), load_public_jwk(JWK))

    def test_every_flipped_bit_is_noticed(self) -> None:
        """The version and the checksum leave no single wrong bit unnoticed."""
        raw = int.from_bytes(base64.b64decode(TEXT), "big")
        for bit in range(33 * 8):
            text = base64.b64encode((raw ^ 1 << bit).to_bytes(33, "big")).decode()
            self.assertIn("access key: ", refusal(AccessKey, text), f"bit {bit}")

    def test_what_is_wrong_is_said(self) -> None:
        """A refused text gets one line that says why, and does not show the text."""
        old = base64.b64encode(b"\x02" + base64.b64decode(TEXT)[1:]).decode()
        cases = {
            "": "access key: 33 bytes in base64 expected, got 0",
            TEXT[:-4]: "access key: 33 bytes in base64 expected, got 30",
            TEXT + "AAAA": "access key: 33 bytes in base64 expected, got 36",
            f"{TEXT[:4]} {TEXT[4:]}": "access key: not base64",
            TEXT.replace("/", "_"): "access key: not base64",
            TEXT[:-1]: "access key: not base64",
            TEXT[:-1] + "é": "access key: not base64",
            old: "access key: version 2 is not supported",
            TEXT[:-1] + "B": "access key: wrong checksum, it was not copied correctly",
        }
        for text, message in cases.items():
            self.assertEqual(refusal(AccessKey, text), message)

    def test_white_space_around_it(self) -> None:
        """As a file has it that was read whole."""
        for text in (f"{TEXT}\n", f" {TEXT}\r\n", f"\ufeff\t{TEXT}".removeprefix("\ufeff")):
            self.assertEqual(TEXT, AccessKey(text).text)

    @given(st.binary(min_size=31, max_size=31))
    def test_generated_keys_are_accepted(self, body: bytes) -> None:
        """A new key is made of the random bytes, and its text reads as the same key."""
        asked: list[int] = []

        def random_bytes(count: int) -> bytes:
            asked.append(count)
            return body

        key = AccessKey.generate(random_bytes)
        self.assertEqual(asked, [31])
        self.assertEqual(key.secret_key.seed[:31], body)
        self.assertEqual(AccessKey(key.text), key)
        self.assertEqual(len(key.text), 44)

    def test_short_random_source_is_refused(self) -> None:
        """A source of too few random bytes makes no key."""
        with self.assertRaises(KeyMaterialError):
            AccessKey.generate(lambda count: bytes(count - 1))

    @given(st.text() | st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode()))
    def test_any_text(self, text: str) -> None:
        """Any text is an access key or a ``KeyMaterialError``."""
        try:
            self.assertEqual(AccessKey(text).text, text)
        except KeyMaterialError as error:
            self.assertTrue(str(error).startswith("access key: "))


class SecretKeyTests(SynchronousTestCase):
    def test_rfc_8037(self) -> None:
        """The signature of RFC 8037, appendix A.4, with the key of A.1."""
        seed = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
        message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
        signature = (
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt"
            "9g7sVvpAr_MuM0KAg=="
        )
        self.assertEqual(SecretKey(seed).sign(message), base64.urlsafe_b64decode(signature))

    @given(seeds, st.binary())
    @settings(deadline=None)
    def test_same_as_cryptography(self, seed: bytes, message: bytes) -> None:
        """Public key and signature are those that OpenSSL makes of the seed."""
        ours, theirs = SecretKey(seed), Ed25519PrivateKey.from_private_bytes(seed)
        self.assertEqual(ours.public_key, theirs.public_key().public_bytes_raw())
        self.assertEqual(ours.sign(message), theirs.sign(message))

    def test_wrong_length(self) -> None:
        """A seed or a public key of another length is refused."""
        for length in (0, 31, 33, 64):
            told = f"32 bytes expected, got {length}"
            self.assertEqual(refusal(SecretKey, bytes(length)), f"secret key: {told}")
            self.assertEqual(refusal(key_id, bytes(length)), f"public key: {told}")

    def test_equal_by_value(self) -> None:
        """Keys are equal if seed and type are; their texts and ids hash alike."""
        key = SecretKey(SEED)
        self.assertEqual(key, SecretKey(SEED))
        self.assertEqual(hash(key), hash(SecretKey(SEED)))
        self.assertNotEqual(key, SecretKey(SEED, KeyType.DERIVED))
        self.assertNotEqual(key, SecretKey(bytes(32)))
        self.assertNotEqual(key, SEED)
        self.assertEqual(AccessKey(TEXT), AccessKey(TEXT))
        self.assertEqual(hash(AccessKey(TEXT)), hash(AccessKey(TEXT)))
        self.assertNotEqual(AccessKey(TEXT), AccessKey.generate(bytes))
        self.assertNotEqual(AccessKey(TEXT), TEXT)

    def test_secrets_are_not_shown(self) -> None:
        """No repr and no text of an object shows its secret in any usual spelling."""
        key = AccessKey(TEXT)
        d = key.secret_key.private_jwk().d
        secrets = (
            TEXT,
            d,
            SEED.hex(),
            repr(SEED),
            str(list(SEED)),
            base64.b64encode(SEED).decode(),
        )
        holders = (key, key.secret_key, key.secret_key.private_jwk(), TokenGenerator(key))
        for holder in holders:
            for shown in (repr(holder), str(holder), f"{holder}", f"{[holder]}"):
                self.assertIn(KID, shown)
                for secret in secrets:
                    self.assertNotIn(secret, shown)
                    self.assertNotIn(secret[4:-4], shown)


class KeyIdTests(SynchronousTestCase):
    def test_vector(self) -> None:
        """The id of the wire reference's key; the first byte tells whose key it is."""
        self.assertEqual(key_id(PUBLIC_KEY), KID)
        derived = base64.b64decode(key_id(PUBLIC_KEY, KeyType.DERIVED))
        self.assertEqual(derived, b"\x02" + base64.b64decode(KID)[1:])

    def test_form(self) -> None:
        """Texts that have the form of an id, and others."""
        self.assertTrue(is_key_id(KID))
        self.assertTrue(is_key_id(key_id(PUBLIC_KEY, KeyType.DERIVED)))
        others = (
            "",
            KID[:-1],
            KID + "AAAA",
            KID + "\n",
            "AAAAAAAAAAAA",
            "A" * 11 + "é",
            "my-key-00001",
        )
        for text in others:
            self.assertFalse(is_key_id(text), text)

    @given(seeds, st.sampled_from(KeyType))
    def test_every_id_has_the_form(self, seed: bytes, key_type: KeyType) -> None:
        """What ``key_id`` makes, ``is_key_id`` knows."""
        self.assertTrue(is_key_id(SecretKey(seed, key_type).kid))


class JwkTests(SynchronousTestCase):
    def test_json(self) -> None:
        """The JSON of both halves, byte for byte."""
        key = SecretKey(SEED)
        public = (
            b'{"kid":"AQ7aVmK+pI1l","kty":"OKP","crv":"Ed25519",'
            b'"x":"ZGYe_vBZVNkzQ6fD8BmkJUb6o0p8wfKt3PqFVx6-be4"'
        )
        private = public + b',"d":"whuNSscDwRXrZMAZhzAO0eFDzA3eVeZwq0W039K90wA"}'
        self.assertEqual(msgspec.json.encode(key.public_jwk()), public + b"}")
        self.assertEqual(msgspec.json.encode(key.private_jwk()), private)

    @given(seeds)
    @settings(deadline=None)
    def test_pyjwt_reads_them(self, seed: bytes) -> None:
        """PyJWT loads both halves and finds the same keys in them."""
        key = SecretKey(seed)
        load = jwt.algorithms.OKPAlgorithm.from_jwk
        public = load(msgspec.to_builtins(key.public_jwk()))
        private = load(msgspec.to_builtins(key.private_jwk()))
        assert isinstance(public, Ed25519PublicKey)
        assert isinstance(private, Ed25519PrivateKey)
        self.assertEqual(public.public_bytes_raw(), key.public_key)
        self.assertEqual(private.private_bytes_raw(), seed)

    @given(seeds)
    def test_round_trip(self, seed: bytes) -> None:
        """A public JWK that was written is read back, with its raw key."""
        key = SecretKey(seed)
        loaded = load_public_jwk(json.loads(msgspec.json.encode(key.public_jwk())))
        self.assertEqual(loaded, key.public_jwk())
        self.assertEqual(loaded.public_key, key.public_key)

    def test_what_is_not_needed_is_ignored(self) -> None:
        """Other members, ones that say nothing, and a freely chosen id do no harm."""
        cases: tuple[dict[str, Any], ...] = (
            {"use": "sig", "key_ops": None, "d": "", "x5c": ["a"], "n": 5},
            {"use": None, "alg": "", "key_ops": [], "d": None},
            {"alg": "EdDSA", "key_ops": ["verify"]},
            {"alg": "Ed25519", "key_ops": ["sign", "verify", None]},
        )
        for more in cases:
            loaded = load_public_jwk({**JWK, "kid": "our first key", **more})
            self.assertEqual(loaded, PublicJwk("our first key", "OKP", "Ed25519", X), more)

    def test_a_key_for_something_else(self) -> None:
        for member, value, cause in (
            ("d", "secret", "it holds a private key"),
            ("d", 5, "it holds a private key"),
            ("use", "enc", "its use is not sig"),
            ("use", "SIG", 'its use must be "sig"'),
            ("use", 5, "use must be a text"),
            ("alg", "RS256", "alg must be EdDSA or Ed25519, or absent"),
            ("alg", "none", "alg must be EdDSA or Ed25519, or absent"),
            ("alg", "ECDH-ES", "its alg is none that is accepted"),
            ("alg", ["EdDSA"], "alg must be a text"),
            ("key_ops", ["sign"], 'its key_ops must be ["verify"]'),
            ("key_ops", ["deriveKey"], "verify is not among its key_ops"),
            ("key_ops", "verify", "key_ops must be a list of texts"),
            ("key_ops", [5], "key_ops must be a list of texts"),
        ):
            message = refusal(load_public_jwk, {**JWK, member: value})
            self.assertTrue(message.startswith(f"public key: {cause}"), (member, value, message))

    def test_what_is_wrong_is_said(self) -> None:
        """A refused JWK gets one line that names the member."""
        cases: list[tuple[str, Any]] = [
            ("a JWK expected", value) for value in (None, 5, "text", b"bytes", [], [("kid", KID)])
        ]
        cases += [("kid ", {**JWK, "kid": kid}) for kid in (None, 5, "", True, [KID])]
        cases += [("kty ", {**JWK, "kty": kty}) for kty in (None, "okp", "RSA", ["OKP"])]
        cases += [("crv ", {**JWK, "crv": crv}) for crv in (None, "ed25519", "Ed448", 5)]
        wrong_x = (
            None,
            5,
            "",
            X + "==",
            X + "A",
            X[:-1],
            X[:-1] + "5",
            X.replace("_", "/"),
            " " + X[1:],
            X[:-1] + "é",
            "\ud800" * 43,
            PUBLIC_KEY,
        )
        cases += [("x ", {**JWK, "x": x}) for x in wrong_x]
        cases += [
            (f"{name} ", {other: JWK[other] for other in JWK if other != name}) for name in JWK
        ]
        for start, value in cases:
            message = refusal(load_public_jwk, value)
            self.assertTrue(message.startswith(f"public key: {start}"), (value, message))
            self.assertNotIn("\n", message)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(sorted(JWK)), inner),
        )
    )
    def test_any_value(self, value: object) -> None:
        """Any value is a JWK or a ``KeyMaterialError``."""
        try:
            load_public_jwk(value)
        except KeyMaterialError as error:
            self.assertTrue(str(error).startswith("public key: "))


class DerivedKeyTests(SynchronousTestCase):
    def test_recorded(self) -> None:
        """The recorded keys of all recorded addresses, to the byte."""
        recorded = json.loads((DATA / "derived_keys.json").read_bytes())
        master_key = decode_master_key(recorded["masterKey"])
        self.assertTrue(recorded["keys"])
        for entry in recorded["keys"]:
            key = server_key(master_key, entry["identifier"])
            jwk = json.loads(msgspec.json.encode(key.private_jwk()))
            self.assertEqual(jwk, entry["jwk"], entry["identifier"])
            self.assertEqual(key.key_type, KeyType.DERIVED)

    @given(st.binary(min_size=1))
    def test_master_key_with_and_without_padding(self, raw: bytes) -> None:
        """Padding may be left out."""
        text = base64.b64encode(raw).decode()
        self.assertEqual(decode_master_key(text), raw)
        self.assertEqual(decode_master_key(text.rstrip("=")), raw)

    def test_bad_master_keys(self) -> None:
        """An empty master key, or one that is no base64, is refused without being shown."""
        cases = {
            "": "master key: empty",
            "=": "master key: not base64",
            "====": "master key: not base64",
            "hunter2hunter2 ": "master key: not base64",
            "hunter2_hunter2-": "master key: not base64",
            "hunter2hunter2é!": "master key: not base64",
            "hunte": "master key: not base64",
            "aHVudGVyMg======": "master key: not base64",
        }
        for text, message in cases.items():
            self.assertEqual(refusal(decode_master_key, text), message)
        with self.assertRaises(KeyMaterialError):
            server_key(b"", "localhost:4433")
