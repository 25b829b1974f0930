"""Compact JWS: taking tokens apart, and their signatures."""

import base64
import json
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import KeyMaterialError, TokenError, TokenFault
from odingw.tokens import AccessKey, SecretKey, base64url, check_signature, parse

ACCESS_KEY: Final = AccessKey("AcIbjUrHA8EV62TAGYcwDtHhQ8wN3lXmcKtFtN/SvdMA")
KEY: Final = ACCESS_KEY.secret_key
VECTOR: Final = (
    "eyJhbGciOiJFZERTQSIsImtpZCI6IkFRN2FWbUsrcEkxbCJ9."
    "eyJyaWQiOiJ0ZXN0LXJvb20iLCJ1aWQiOiJ0ZXN0LXVzZXIiLCJzdWIiOiJjb25uZWN0IiwiZXhwIjozMjUwMzY4MDMw"
    "MCwibmJmIjozMjUwMzY4MDAwMH0."
    "HZHRcFZ-DsdTTWE0gqbG1ZAc1YFb81OiGGwB5MeD2zA87TOKzCCpsxPIfUF4XHBVx50xvZxEM3nsrzMBS1ScCA"
)
PAYLOAD: Final = (
    b'{"rid":"test-room","uid":"test-user","sub":"connect","exp":32503680300,"nbf":32503680000}'
)


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def with_header(header: object) -> str:
    """A token with a valid signature and any header; text and bytes are taken as they are."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    signing_input = f"{segment(raw)}.{segment(PAYLOAD)}"
    return f"{signing_input}.{segment(KEY.sign(signing_input.encode()))}"


def header(**members: Any) -> dict[str, Any]:
    return {"alg": "EdDSA", "kid": KEY.kid, **members}


class Base64UrlTests(SynchronousTestCase):
    @given(st.binary())
    def test_same_as_the_standard_library(self, data: bytes) -> None:
        """What is written is what Python writes, without padding, and is read back."""
        text = base64url.encode(data)
        self.assertEqual(text, base64.urlsafe_b64encode(data).rstrip(b"="))
        self.assertEqual(base64url.decode(text), data)

    @given(st.binary() | st.text("AEIMQUYcgkosw048Bb-_+/=\n").map(str.encode))
    @example(b"+A")
    @example(b"/A")
    @example(b"AA==")
    @example(b"AB")
    @example(b"AAB")
    @example(b"AAAA\n")
    def test_one_spelling(self, text: bytes) -> None:
        """Any other text than the one that ``encode`` makes is refused."""
        try:
            data = base64url.decode(text)
        except ValueError:
            self.assertNotEqual(base64.urlsafe_b64encode(_lenient(text)).rstrip(b"="), text)
        else:
            self.assertEqual(base64url.encode(data), text)


def _lenient(text: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + b"==")
    except ValueError:
        return b""


class ParseTests(SynchronousTestCase):
    def refuse(self, token: str | bytes, fault: TokenFault = TokenFault.MALFORMED) -> None:
        try:
            parse(token)
        except TokenError as error:
            self.assertEqual(error.fault, fault, token)
            self.assertEqual(len(error.message.splitlines()), 1)
        else:
            self.fail(f"not refused: {token!r}")

    def test_vector(self) -> None:
        """The wire reference's token, taken apart."""
        for token in (VECTOR, VECTOR.encode()):
            jws = parse(token)
            self.assertEqual(jws.header.alg, "EdDSA")
            self.assertEqual(jws.header.kid, KEY.kid)
            self.assertEqual(jws.payload, PAYLOAD)
            self.assertEqual(jws.signing_input.decode(), VECTOR.rpartition(".")[0])
            self.assertEqual(segment(jws.signature), VECTOR.rpartition(".")[2])
            self.assertTrue(check_signature(KEY.public_key, jws))

    def test_segments(self) -> None:
        """Three segments, not more and not fewer, of nothing but base64url."""
        first, second, third = VECTOR.split(".")
        for token in (
            "",
            ".",
            "..",
            "...",
            "abc",
            "abc.def",
            f"{first}.{second}",
            f"{VECTOR}.",
            f"{VECTOR}.x",
            f".{VECTOR}",
            f".{second}.{third}",
            f" {VECTOR}",
            f"{VECTOR} ",
            f"{VECTOR}\n",
            f"{VECTOR}\0",
            f"{VECTOR}==",
            f"{first}=.{second}.{third}",
            f"{first}.{second}=.{third}",
            f"{first}.{second[:8]}\n{second[8:]}.{third}",
            f"{first}.{second}AA.{third}",
            f"{first}.{second}.{third.replace('-', '+')}",
            f"{first}.{second}.{third[:-3]}/AA",
            f"{first}.{second}.!!!not*base64!!!",
            f"{first}.{second}.é",
            f"{first}.{second}.\ud800",
            f"\ufeff{VECTOR}",
        ):
            self.refuse(token)
        self.refuse(VECTOR.encode() + b"\xff")
        self.refuse(b"\xff" + VECTOR.encode())

    def test_number_of_segments_is_told(self) -> None:
        """Of a token with too few or too many segments, that is what is said."""
        for token in ("", "abc", VECTOR.rpartition(".")[0], f"{VECTOR}.x"):
            with self.assertRaises(TokenError) as caught:
                parse(token)
            self.assertEqual(caught.exception.message, "token must have three segments")

    def test_one_spelling(self) -> None:
        """The spare bits of a segment's last character cannot be used to respell a token."""
        self.assertTrue(VECTOR.endswith("CA"))
        for last in "BCDEFGHIJKLMNOP":
            self.refuse(VECTOR[:-1] + last)

    def test_empty_segments(self) -> None:
        """An empty payload or signature is form enough; it is refused later."""
        first, second, _ = VECTOR.split(".")
        self.assertEqual(parse(f"{first}..").payload, b"")
        jws = parse(f"{first}.{second}.")
        self.assertEqual(jws.signature, b"")
        self.assertFalse(check_signature(KEY.public_key, jws))

    def test_headers(self) -> None:
        """Headers that are refused, though the signature is right."""
        not_text: tuple[Any, ...] = (None, True, 5, 1.5, {}, [KEY.kid])
        wrong_headers: tuple[Any, ...] = (
            b"",
            b"{",
            b"{}",
            b"[]",
            b"null",
            b"1",
            b'"x"',
            b"\xef\xbb\xbf" + json.dumps(header()).encode(),
            json.dumps(header()).encode() + b"x",
            b'{"alg":"EdDSA","kid":"\xff"}',
            b'{"alg":"EdDSA","kid":"\\ud800"}',
            b'{"alg":"EdDSA","kid":"a","\xff":1}',
            b'{"alg":"EdDSA","kid":' + b"9" * 5000 + b"}",
            b'{"alg":"EdDSA","kid":"a","x":' + b"[" * 100_000 + b"}",
            {"alg": "EdDSA"},
            {"kid": KEY.kid},
            *(header(kid=kid) for kid in not_text),
            *(header(alg=alg) for alg in not_text),
            *(header(crv=crv) for crv in (None, "", "ed25519", "Ed448", 5, ["Ed25519"])),
            *(header(crit=crit) for crit in (None, [], ["exp"], ["b64"], "b64")),
        )
        for wrong in wrong_headers:
            self.refuse(with_header(wrong))

    def test_algorithms(self) -> None:
        """Any algorithm but EdDSA, in this spelling, is refused."""
        for alg in (
            "none",
            "None",
            "",
            "eddsa",
            "EDDSA",
            "ed25519",
            "Ed448",
            "HS256",
            "RS256",
            "ES256",
        ):
            self.refuse(with_header(header(alg=alg)), TokenFault.ALGORITHM)

    def test_missing_members_are_named(self) -> None:
        for name in ("alg", "kid"):
            members = header()
            del members[name]
            error = self.assertRaises(TokenError, parse, with_header(members))
            self.assertEqual(f"token header {name} is missing", error.message)

    def test_harmless_headers(self) -> None:
        """White space, other members and any text as ``kid`` are fine."""
        for fine in (
            b' {"alg" : "EdDSA",\r\n"kid": "AQ7aVmK+pI1l" } ',
            header(crv="Ed25519"),
            header(alg="Ed25519"),
            header(typ="JWT", cty=None, jku="https://example.net", x=[1, {"crit": 2}]),
            header(b64=False),
        ):
            self.assertEqual(parse(with_header(fine)).header.kid, KEY.kid)
        for kid in ("", "__proto__", "ключ", "a b\n"):
            self.assertEqual(parse(with_header(header(kid=kid))).header.kid, kid)

    def test_long_headers(self) -> None:
        """A header that is too long to be kept is judged like any other, every time."""
        padding = "p" * 4000
        for _ in range(2):
            jws = parse(with_header(header(typ=padding)))
            self.assertTrue(check_signature(KEY.public_key, jws))
            self.refuse(with_header(header(typ=padding, crit=["exp"])))

    def test_judged_alike_every_time(self) -> None:
        """A kept header does not save the rest of a token from being checked."""
        first, second, _ = VECTOR.split(".")
        for _ in range(2):
            self.assertEqual(parse(VECTOR).payload, PAYLOAD)
            self.refuse(f"{first}.{second}.!")
            self.refuse(with_header(header(alg="none")), TokenFault.ALGORITHM)
            self.refuse(with_header(header(crit=[])))

    def test_allow_list(self) -> None:
        """The allow-list decides; a name that is not supported is a mistake of the caller."""
        self.assertEqual(parse(VECTOR, ["EdDSA"]).payload, PAYLOAD)
        with self.assertRaises(TokenError) as caught:
            parse(VECTOR, ())
        self.assertEqual(caught.exception.fault, TokenFault.ALGORITHM)
        with self.assertRaises(ValueError) as unsupported:
            parse(VECTOR, ("EdDSA", "RS256"))
        self.assertEqual(
            str(unsupported.exception), "algorithm 'RS256' is not supported, only EdDSA, Ed25519"
        )

    @given(st.text() | st.text("eyJhbGciOiJFZERTQSJ9._-", max_size=200) | st.binary())
    def test_any_token(self, token: str | bytes) -> None:
        """Any text is a token or a ``TokenError``."""
        try:
            parse(token)
        except TokenError as error:
            self.assertIn(error.fault, (TokenFault.MALFORMED, TokenFault.ALGORITHM))

    @given(st.binary())
    def test_any_header(self, raw: bytes) -> None:
        """Any bytes in the header's place are a header or a ``TokenError``."""
        try:
            parse(with_header(raw))
        except TokenError as error:
            self.assertIn(error.fault, (TokenFault.MALFORMED, TokenFault.ALGORITHM))


class SignatureTests(SynchronousTestCase):
    @given(st.binary(min_size=32, max_size=32), st.binary())
    @settings(deadline=None)
    def test_both_ways_with_pyjwt(self, seed: bytes, payload: bytes) -> None:
        """PyJWT reads what is signed here, makes the same token, and its tokens are read here."""
        ours, theirs = SecretKey(seed), Ed25519PrivateKey.from_private_bytes(seed)
        token = ours.sign_jwt(payload)
        pyjws = jwt.PyJWS()
        self.assertEqual(pyjws.decode(token, theirs.public_key(), ["EdDSA"]), payload)
        header = {"alg": "EdDSA", "kid": ours.kid}
        self.assertEqual(jwt.get_unverified_header(token), header)
        jws = parse(pyjws.encode(payload, theirs, "EdDSA", headers=header))
        self.assertEqual(jws.payload, payload)
        self.assertTrue(check_signature(ours.public_key, jws))

    def test_header(self) -> None:
        """A signed token's header is exactly this."""
        first = KEY.sign_jwt(b"{}").partition(".")[0]
        self.assertEqual(
            base64.urlsafe_b64decode(first + "=="), b'{"alg":"EdDSA","kid":"AQ7aVmK+pI1l"}'
        )
        self.assertEqual(KEY.sign_jwt(PAYLOAD), VECTOR)

    def test_wrong_signatures(self) -> None:
        """A signature of another length, key or message is no signature."""
        jws = parse(VECTOR)
        first, second, _ = VECTOR.split(".")
        other = SecretKey(bytes(32))
        for signature in (
            b"",
            bytes(64),
            jws.signature[:63],
            jws.signature + b"\0",
            bytes(64) + jws.signature,
            other.sign(jws.signing_input),
            KEY.sign(jws.payload),
        ):
            wrong = parse(f"{first}.{second}.{segment(signature)}")
            self.assertFalse(check_signature(KEY.public_key, wrong), signature)
        self.assertFalse(check_signature(other.public_key, jws))
        self.assertFalse(check_signature(bytes(32), jws))

    def test_signature_of_a_longer_message(self) -> None:
        """Bytes after a signature do not count as the beginning of what is signed."""
        jws = parse(VECTOR)
        signature = KEY.sign(b"more" + jws.signing_input) + b"more"
        longer = parse(f"{jws.signing_input.decode()}.{segment(signature)}")
        self.assertFalse(check_signature(KEY.public_key, longer))

    def test_added_group_order(self) -> None:
        """A signature cannot be respelled by adding the group's order to S (RFC 8032, 5.1.7)."""
        order = 2**252 + 27742317777372353535851937790883648493
        jws = parse(VECTOR)
        s = int.from_bytes(jws.signature[32:], "little") + order
        signature = jws.signature[:32] + s.to_bytes(32, "little")
        respelled = parse(f"{jws.signing_input.decode()}.{segment(signature)}")
        self.assertFalse(check_signature(KEY.public_key, respelled))

    def test_every_bit_counts(self) -> None:
        """No bit of a signature can be another."""
        jws = parse(VECTOR)
        number = int.from_bytes(jws.signature, "big")
        for bit in range(512):
            signature = (number ^ 1 << bit).to_bytes(64, "big")
            changed = parse(f"{jws.signing_input.decode()}.{segment(signature)}")
            self.assertFalse(check_signature(KEY.public_key, changed), bit)

    def test_key_of_wrong_length(self) -> None:
        """A public key of another length is a mistake of the caller, not of the token."""
        for length in (0, 31, 33):
            with self.assertRaises(KeyMaterialError):
                check_signature(bytes(length), parse(VECTOR))
