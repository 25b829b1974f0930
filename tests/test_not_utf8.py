"""Bytes that are not UTF-8 get one answer everywhere, whichever error msgspec raises about them."""

import ast
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from click.testing import CliRunner
from msgspec import Raw, Struct
from twisted.internet.defer import execute
from twisted.trial.unittest import SynchronousTestCase

from odingw.cli.keys import decode
from odingw.client.wire import Call, read_reply
from odingw.customers.sources import FileSource
from odingw.errors import OdingwError
from odingw.rpc.jsonrpc import Engine, Method, Reply
from odingw.rpc.report_rooms import ReportedRooms
from odingw.sim.roomtokens import read_claims
from odingw.tokens import jws
from odingw.tokens.claims import decode_claims
from odingw.turn.auth import TurnAuthenticator
from odingw.turn.keys import jwk, jwk_set
from odingw.turn.settings import from_turnrest_json
from tests.sources import PACKAGE, trees
from tests.turn_auth_case import NOW, compact, raw_token, settings

BROKEN: Final = (b"\xff", b"\xc3", b"a\x80b", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80")
"""Never there, cut off, without a beginning, too long, half a pair, beyond what Unicode has."""

PARSE_ERROR: Final = b'{"error":{"code":-32700,"message":"Parse error"},"id":%b,"jsonrpc":"2.0"}'


class Params(Struct):
    name: str


METHOD: Final[Method[None]] = Method(Params, lambda *_: None)


def handled(body: bytes) -> bytes | None:
    """Return the body of the answer to a call."""
    engine = Engine({"m": METHOD}, 3, lambda *_: None, lambda *_: None)
    reply = engine.handle(body, None)
    assert isinstance(reply, Reply)
    return reply.body


def turn_user(token: str) -> object:
    return TurnAuthenticator(settings("Ed25519")).authenticate(token, NOW)


def refusal(read: Callable[[bytes], object], document: bytes) -> str:
    """Return what is said about a document."""
    try:
        read(document)
    except OdingwError as error:
        return str(error)
    raise AssertionError(f"{document!r} was taken")


REFUSALS: Final[tuple[tuple[Callable[[bytes], object], bytes, str], ...]] = (
    (lambda text: METHOD.read(Raw(text)), b'{"name":"%b"}', "Parse error"),
    (lambda text: list(ReportedRooms(Raw(text), 9)), b'[{"id":["a","%b"]}]', "Parse error"),
    (
        lambda text: jws.parse(compact(text, b"{}")),
        b'{"alg":"EdDSA","kid":"%b"}',
        "token header is not a JSON object in base64url",
    ),
    (decode_claims, b'{"rid":"%b"}', "token claim rid must be a string or an array of strings"),
    (decode_claims, b'{"x":"%b"}', "token claims are not a JSON object"),
    (decode_claims, b'{"%b":1}', "token claims are not a JSON object"),
    (
        lambda text: turn_user(compact(text, b"{}")),
        b'{"alg":"EdDSA","kid":"%b"}',
        "token header must be a JSON object in base64url with texts as alg and kid",
    ),
    (
        lambda text: turn_user(raw_token({"alg": "EdDSA"}, text)),
        b'{"sub":"%b"}',
        "token claims are not a JSON object",
    ),
    (
        lambda text: jwk(text, "a"),
        b'{"kty":"%b"}',
        "a JSON object expected, with a text as kty, texts as kid, alg, use, crv, n, e, x and "
        "y, and a list of texts as key_ops, where it has them",
    ),
    (
        lambda text: jwk_set(text, "a"),
        b'{"%b":[]}',
        "it is not a JSON object with a list of keys",
    ),
    (
        lambda text: from_turnrest_json(text, "t.json"),
        b'{"ttl": "%b"}',
        "t.json: line 1: invalid JSON: not UTF-8",
    ),
    (
        lambda text: from_turnrest_json(text, "t.json"),
        b'{"%b": 1}',
        "t.json: line 1: invalid JSON: not UTF-8",
    ),
    (
        lambda text: read_reply(Call("Info", 7, b""), 200, None, text, [], object),
        b'{"jsonrpc":"2.0","id":7,"result":"%b"}',
        "the reply is not a gateway's: HTTP status 200, another result than Info has",
    ),
    (
        lambda text: read_reply(Call("Info", 7, b""), 502, None, text, [], object),
        b'{"jsonrpc":"%b"}',
        "the reply is not a gateway's: HTTP status 502, no JSON-RPC answer",
    ),
)


class AnswerTests(SynchronousTestCase):
    def test_refusals(self) -> None:
        for read, document, expected in REFUSALS:
            for broken in BROKEN:
                self.assertEqual(expected, refusal(read, document % broken), document)

    def test_replies(self) -> None:
        for broken in BROKEN:
            for body, call_id in (
                (b'{"jsonrpc":"2.0","id":1,"method":"m%b"}', b"null"),
                (b'{"jsonrpc":"2.0","id":"%b","method":"m"}', b"null"),
                (b'"%b"', b"null"),
                (b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"%b"}}', b"1"),
            ):
                self.assertEqual(PARSE_ERROR % call_id, handled(body % broken), body)

    def test_what_is_shown_tells_the_place(self) -> None:
        self.assertIn("invalid start byte", refusal(read_claims, b'{"rid":"\xff"}'))
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(b'[{"id":\n"\xff"}]')
            source = FileSource(Path(file.name), defer_to_thread=execute)
            failed = self.failureResultOf(source.fetch())
        self.assertEqual("it is not JSON: line 2: not UTF-8", str(failed.value))

    def test_the_command_says_so(self) -> None:
        for broken in BROKEN:
            token = compact({"alg": "EdDSA", "kid": "a"}, b'{"uid":"%b"}' % broken)
            done = CliRunner().invoke(decode, [token])
            self.assertEqual(1, done.exit_code)
            self.assertIn("its payload is not a JSON object", done.output)


class OnePlaceTests(SynchronousTestCase):
    """Which errors they are stands in ``odingw.errors`` alone."""

    def test_whoever_reads_json_catches_them_all(self) -> None:
        wrong = []
        for path, module in trees().items():
            for node in ast.walk(module):
                if not isinstance(node, ast.Try):
                    continue
                body = "".join(map(ast.unparse, node.body))
                caught = " ".join(ast.unparse(one.type) for one in node.handlers if one.type)
                reads = "json.decode(" in body or "_decoder.decode(" in body
                if reads and "NOT_JSON" not in caught and "DecodeError" not in caught:
                    wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
        self.assertEqual([], wrong)
