"""Tokens as a game backend makes them, and the examples that show how."""

import base64
import doctest
import json
import tomllib
from collections import deque
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import odingw.tokens
from odingw.errors import KeyMaterialError
from odingw.tokens import AccessKey, Policy, TokenGenerator, load_public_jwk, verify

NOW: Final = 32503680000
KEY: Final = AccessKey("AcIbjUrHA8EV62TAGYcwDtHhQ8wN3lXmcKtFtN/SvdMA")
VECTOR: Final = (
    "eyJhbGciOiJFZERTQSIsImtpZCI6IkFRN2FWbUsrcEkxbCJ9."
    "eyJyaWQiOiJ0ZXN0LXJvb20iLCJ1aWQiOiJ0ZXN0LXVzZXIiLCJzdWIiOiJjb25uZWN0IiwiZXhwIjozMjUwMzY4MDMw"
    "MCwibmJmIjozMjUwMzY4MDAwMH0."
    "HZHRcFZ-DsdTTWE0gqbG1ZAc1YFb81OiGGwB5MeD2zA87TOKzCCpsxPIfUF4XHBVx50xvZxEM3nsrzMBS1ScCA"
)
DOCS: Final = Path(__file__).parent.parent / "docs" / "tokens.rst"

names = st.text() | st.lists(st.text())


def payload_of(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.split(".")[1] + "==")


class TokenGeneratorTests(SynchronousTestCase):
    def test_vector(self) -> None:
        """The wire reference's token, byte for byte, from any form of its key."""
        for key in (KEY, KEY.secret_key, KEY.text):
            token = TokenGenerator(key).create_token("test-room", "test-user", now=NOW)
            self.assertEqual(token, VECTOR)

    def test_all_claims(self) -> None:
        """Claims come in the order of the wire reference."""
        token = TokenGenerator(KEY).create_token(
            ["{a}1", "{a}2"],
            "",
            now=NOW,
            lifetime=60,
            customer="acme",
            audience=("gateway", "sfu"),
            subject=["connect", "RoomClose"],
            address="voice.example:4433",
            tags=["blue"],
            upstream="up",
            internal={"server": "voice.example:4433"},
        )
        self.assertEqual(
            payload_of(token).decode(),
            '{"rid":["{a}1","{a}2"],"uid":"","adr":"voice.example:4433","tgs":["blue"],"ups":"up",'
            '"cid":"acme","sub":["connect","RoomClose"],"aud":["gateway","sfu"],'
            '"exp":32503680060,"nbf":32503680000,"internal":{"server":"voice.example:4433"}}',
        )

    def test_any_sequence_and_mapping(self) -> None:
        """Names may come in any sequence, and ``internal`` in any mapping."""
        make = TokenGenerator(KEY).create_token
        plain = make(["a", "b"], "u", now=NOW, internal={"server": "s"})
        other = make(deque("ab"), "u", now=NOW, internal=MappingProxyType({"server": "s"}))
        self.assertEqual(plain, other)

    def test_fraction_of_a_second(self) -> None:
        """What ``time.time()`` returns will do; times in the token are integers."""
        token = TokenGenerator(KEY).create_token("test-room", "test-user", now=NOW + 0.75)
        self.assertEqual(token, VECTOR)

    @given(names, st.text(), st.none() | st.text(), st.none() | names)
    @settings(deadline=None)
    def test_round_trip(
        self,
        room: str | list[str],
        user: str,
        customer: str | None,
        tags: str | list[str] | None,
    ) -> None:
        """What goes in comes out of ``verify`` and of PyJWT, and the JSON is compact UTF-8."""
        token = TokenGenerator(KEY).create_token(
            room, user, now=NOW, customer=customer, tags=tags, audience="gateway"
        )
        found: dict[str, Any] = json.loads(payload_of(token))
        compact = json.dumps(found, separators=(",", ":"), ensure_ascii=False)
        self.assertEqual(payload_of(token), compact.encode())
        self.assertEqual((found["rid"], found["uid"]), (room, user))
        self.assertEqual((found.get("cid"), found.get("tgs")), (customer, tags))

        keys = {KEY.kid: KEY.public_jwk()}
        claims = verify(token, keys.get, now=NOW, policy=Policy()).claims
        self.assertEqual(claims.rid, room if isinstance(room, str) else tuple(room))
        self.assertEqual(claims.uid, user)

        public_key = Ed25519PublicKey.from_public_bytes(KEY.secret_key.public_key)
        # PyJWT has no parameter for the time, and these tokens begin in the year 3000.
        options: Any = {"verify_nbf": False}
        theirs = jwt.decode(token, public_key, ["EdDSA"], audience="gateway", options=options)
        self.assertEqual(theirs, found)

    def test_bad_input(self) -> None:
        """A text that is no key, and one that is no Unicode text, are refused."""
        with self.assertRaises(KeyMaterialError):
            TokenGenerator(KEY.text[:-1])
        with self.assertRaises(ValueError):
            TokenGenerator(KEY).create_token("\ud800", "user", now=NOW)


class ExampleTests(SynchronousTestCase):
    def test_package(self) -> None:
        """The example in the package's docstring works."""
        failed, attempted = doctest.testmod(odingw.tokens)
        self.assertEqual(failed, 0)
        self.assertGreater(attempted, 0)

    def test_page(self) -> None:
        """The examples in the documentation work."""
        failed, attempted = doctest.testfile(str(DOCS), module_relative=False, encoding="utf-8")
        self.assertEqual(failed, 0)
        self.assertGreater(attempted, 0)

    def test_page_configuration(self) -> None:
        """The configuration in the documentation has a key's members, and no key that works."""
        lines = DOCS.read_text(encoding="utf-8").split(".. code-block:: toml\n")[1].splitlines()
        end = next(at for at, line in enumerate(lines) if line and not line.startswith(" "))
        document = tomllib.loads("\n".join(line.strip() for line in lines[:end]))
        (customer,) = document["gateway"]["customers"]
        (access_key,) = customer["access_keys"]
        jwk = access_key["public_key"]
        self.assertEqual(jwk.keys(), msgspec.to_builtins(KEY.public_jwk()).keys())
        self.assertRaises(KeyMaterialError, load_public_jwk, jwk)
