"""What fuzzing found: each was a fault once."""

import json

from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import (
    PARSE_ERROR,
    ConfigError,
    KeyMaterialError,
    RpcError,
    TokenError,
    TokenFault,
)
from odingw.rpc.report_rooms import PIECE, ReportedRooms
from odingw.tokens import AccessKey, Policy, is_key_id, verify
from odingw.turn.auth import TurnAuthenticator
from odingw.turn.keys import jwk_set
from odingw.turn.settings import TurnSettings, from_turnrest_json
from tests.fuzz.site import Endpoint
from tests.fuzz.tokens import KEY, NOW, compact

RSA = {"kty": "RSA", "n": "x" * 341 + "w", "e": "AQAB"}
CLAIMS = b'{"rid":"r","uid":"u","exp":1700000060,"sub":"turn"%b}'


class KeyTests(SynchronousTestCase):
    def test_a_jwk_with_any_private_part_is_refused(self) -> None:
        """Whoever knows a factor can sign, also where the exponent is left out."""
        self.assertEqual(1, len(jwk_set(json.dumps({"keys": [RSA]}).encode(), "a set").keys))
        for name in ("d", "p", "q", "dp", "dq", "qi", "oth"):
            found = jwk_set(json.dumps({"keys": [{**RSA, name: "AQAB"}]}).encode(), "a set")
            self.assertEqual((), found.keys, name)
            self.assertIn("private", found.problems[0])

    def test_padding_that_is_not_needed(self) -> None:
        """Python's decoder takes it, and then two texts would be one key."""
        text = AccessKey.generate(lambda count: bytes(range(count))).text
        kid = AccessKey(text).kid
        self.assertTrue(is_key_id(kid))
        for more in ("=", "==", "===="):
            self.assertRaises(KeyMaterialError, AccessKey, text + more)
            self.assertFalse(is_key_id(kid + more))


class TokenTests(SynchronousTestCase):
    """A token is UTF-8 throughout, also where nothing is read (RFC 7515, 5.2; RFC 7519, 7.2)."""

    def tokens(self) -> list[str]:
        header = b'{"alg":"EdDSA","kid":"%b"%%b}' % KEY.kid.encode()
        return [
            compact(header % b"", CLAIMS % b',"x":"\xff"', KEY.sign),
            compact(header % b"", CLAIMS % b',"e\xffp":1', KEY.sign),
            compact(header % b',"x":"\xff"', CLAIMS % b"", KEY.sign),
        ]

    def test_client_api(self) -> None:
        faults = []
        for token in self.tokens():
            error = self.assertRaises(
                TokenError, verify, token, lambda _: KEY, now=NOW, policy=Policy()
            )
            faults.append(error.fault)
        self.assertEqual([TokenFault.CLAIMS, TokenFault.CLAIMS, TokenFault.MALFORMED], faults)

    def test_turn(self) -> None:
        settings = TurnSettings(turn_uris=("turn:a.test",), access_keys=True)
        authenticator = TurnAuthenticator(settings, (), lambda _: KEY)
        for token in self.tokens():
            self.assertRaises(TokenError, authenticator.authenticate, token, NOW)


class HttpTests(SynchronousTestCase):
    def test_identity_is_no_transfer_coding(self) -> None:
        """Who takes it for none, while a proxy does not, sees other requests than the proxy."""
        endpoint = Endpoint(("public", "internal"))
        for value in ("identity", "chunked\r\nTransfer-Encoding: identity", "chunked, identity"):
            head = f"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {value}\r\n"
            talk = endpoint.talk([f"{head}Content-Length: 4\r\n\r\nbody".encode()])
            self.assertEqual((), talk.seen)
            self.assertTrue(talk.reply.startswith(b"HTTP/1.1 400 "), talk.reply)


class ReportTests(SynchronousTestCase):
    def test_rooms_that_are_no_utf8_are_no_json(self) -> None:
        for name in (b"\xff", b"\xed\xa0\x80"):
            room = b'{"id":["a","%b"],"customer":"a","age":{"secs":1,"nanos":0},"peers":1}' % name
            for rooms in (b"[%b]" % room, b"[%b, %b]" % (room, b'{"x":"%b"}' % (b"x" * PIECE))):
                error = self.assertRaises(RpcError, list, ReportedRooms(Raw(rooms), 10))
                self.assertEqual(PARSE_ERROR, error.code)


class SettingsTests(SynchronousTestCase):
    def test_one_short_line_for_a_deep_file(self) -> None:
        document = b'{"ttl":' + b"[" * 500 + b"1e999" + b"]" * 500 + b"}"
        error = self.assertRaises(ConfigError, from_turnrest_json, document, "turnrest.json", None)
        self.assertLess(len(str(error)), 300)
