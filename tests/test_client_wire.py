"""``odingw.client`` without a network: URLs, tokens, replies as bytes, errors, retries."""

import json
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import odingw.client
from odingw.client import (
    AccessKeyTokens,
    GatewayClient,
    GatewayError,
    InternalClient,
    InvalidParams,
    NoServer,
    NotFound,
    RateLimited,
    Refused,
    Retry,
    RoomMismatch,
    RoomNotFound,
    StoreUnavailable,
    TransportError,
    Unauthorized,
    Unavailable,
    UnexpectedReply,
)
from odingw.client.errors import BY_CODE, BY_REASON
from odingw.client.retry import IDEMPOTENT
from odingw.client.values import Connection
from odingw.client.wire import Call, basic, bearer, make_call, read_reply, target
from odingw.errors import (
    HTTP_STATUS,
    INVALID_REQUEST,
    PARSE_ERROR,
    Reason,
)
from odingw.errors import (
    Refused as ServerRefused,
)
from odingw.tokens import Policy, verify
from tests.process import ACCESS_KEY

SECRET = "eyJhbGciOi.very.secret"


def read(
    body: object, status: int = 200, retry_after: str | None = None, kind: Any = object
) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_reply(Call("Connect", 7, b""), status, retry_after, raw, [SECRET], kind)


def answer(**members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, **members}


class WireTests(SynchronousTestCase):
    def error(
        self, body: object, status: int = 200, retry_after: str | None = None
    ) -> GatewayError:
        error: GatewayError = self.assertRaises(GatewayError, read, body, status, retry_after)
        return error

    def test_a_call(self) -> None:
        call = make_call("RoomClose", {"room_id": "é"})
        self.assertEqual(
            json.loads(call.body),
            {"jsonrpc": "2.0", "id": call.id, "method": "RoomClose", "params": {"room_id": "é"}},
        )
        self.assertNotEqual(make_call("Connect", None).id, call.id)
        self.assertEqual(json.loads(make_call("Connect", None).body)["params"], {})

    def test_results(self) -> None:
        self.assertEqual(read(answer(result={"a": [1]})), {"a": [1]})
        self.assertIs(read(answer(result=None)), None)
        self.assertEqual(read(answer(result=1, error=None)), 1)
        got = read(answer(result={"address": "a:1", "token": "t", "more": 1}), kind=Connection)
        self.assertEqual(got, Connection("a:1", "t"))

    def test_every_reason_has_a_class_of_its_own(self) -> None:
        self.assertEqual(set(BY_REASON), set(Reason))
        for reason, kind in BY_REASON.items():
            name = "".join(part.title() for part in reason.split("_"))
            self.assertEqual(kind.__name__, name)
            self.assertIn(name, odingw.client.__all__)
            server = ServerRefused(Reason(reason), 2.5)
            error = self.error(
                answer(error={"code": server.code, "message": server.message, "data": server.data}),
                server.status,
            )
            self.assertIs(type(error), kind)
            self.assertIsInstance(error, Refused)
            self.assertEqual(
                (error.reason, error.message, error.code, error.retry_after, error.temporary),
                (reason, server.message, server.code, 2.5, True),
            )

    def test_every_code_has_a_class(self) -> None:
        # What is no JSON or no call cannot come from this client: it has no class.
        self.assertEqual(set(HTTP_STATUS) - {PARSE_ERROR}, set(BY_CODE) & set(HTTP_STATUS))
        for code, kind in BY_CODE.items():
            self.assertIn(kind.__name__, odingw.client.__all__)
            error = self.error(
                answer(error={"code": code, "message": "m"}), HTTP_STATUS.get(code, 200)
            )
            self.assertIs(type(error), kind)
            self.assertEqual((error.code, error.reason), (code, None))

    def test_what_is_new_falls_back(self) -> None:
        new = {"code": INVALID_REQUEST, "message": "new", "data": {"reason": "brand_new"}}
        error = self.error(answer(error=new))
        self.assertIs(type(error), Refused)
        self.assertEqual((error.reason, error.temporary), ("brand_new", False))
        error = self.error(answer(error={"code": -31999, "message": "new"}))
        self.assertIs(type(error), GatewayError)

    def test_temporary_errors(self) -> None:
        limited = self.error(answer(id=None, error={"code": -32029, "message": "m"}), 429, "3")
        self.assertIsInstance(limited, RateLimited)
        self.assertEqual((limited.temporary, limited.retry_after, limited.status), (True, 3.0, 429))
        self.assertTrue(TransportError("m").temporary)
        self.assertTrue(Unavailable("m").temporary)
        self.assertTrue(StoreUnavailable("m").temporary)
        self.assertTrue(NoServer("m", retry_after=5).temporary)
        self.assertFalse(NoServer("m").temporary)
        self.assertFalse(Unauthorized("m").temporary)
        self.assertIsInstance(RoomNotFound("m"), NotFound)

    def test_the_text_has_the_detail(self) -> None:
        data = {"detail": "room_id: expected text"}
        error = self.error(
            answer(error={"code": -32602, "message": "Invalid params", "data": data})
        )
        self.assertIsInstance(error, InvalidParams)
        self.assertEqual(str(error), "Invalid params (room_id: expected text)")
        self.assertEqual(error.detail, "room_id: expected text")

    def test_times_that_are_none(self) -> None:
        for wait in (-1, "5", True, None, [1], 10**400, 1e300):
            error = answer(error={"code": -32600, "message": "m", "data": {"retry_after": wait}})
            self.assertIs(self.error(error).retry_after, None, wait)
        for header in ("", "-1", "1.5", "²", "9" * 5000, "Wed, 21 Oct 2026 07:28:00 GMT"):
            error = answer(error={"code": -32029, "message": "m"})
            self.assertIs(self.error(error, 429, header).retry_after, None, header[:20])

    def test_what_the_other_side_says_is_one_short_line_without_secrets(self) -> None:
        said = f"bad\r\n\x1b[31m{SECRET}\u202e" + "x" * 5000
        data = {"detail": said, "reason": SECRET}
        error = self.error(answer(error={"code": -32001, "message": said, "data": data}), 401)
        self.assertLess(len(str(error)), 700)
        for text in (
            str(error),
            repr(error),
            error.message,
            error.detail or "",
            error.reason or "",
        ):
            self.assertNotIn("secret", text)
            self.assertTrue(text.isprintable(), text)

    def test_replies_of_others(self) -> None:
        bodies: list[object] = [
            b"",
            b"<html><h1>502 Bad Gateway</h1></html>",
            b"\xff\xfe",
            b"[" * 100_000,
            b"null",
            [],
            [answer(result={})],
            {},
            {"jsonrpc": "1.0", "id": 7, "result": {}},
            {"jsonrpc": "2.0", "id": 7},
            answer(result={}, error={"code": 1, "message": "m"}),
            answer(id=8, result={}),
            answer(id=None, result={}),
            answer(id=8, error={"code": 1, "message": "m"}),
            answer(error="no object"),
            answer(error={"code": "1", "message": "m"}),
            answer(error={"code": 1}),
        ]
        for body in bodies:
            error = self.error(body)
            self.assertIs(type(error), UnexpectedReply, body)
            self.assertIn("HTTP status 200", str(error))
            self.assertNotIn("Bad Gateway", str(error))
            self.assertFalse(error.temporary)
        self.assertIs(type(self.error(answer(result={}), 500)), UnexpectedReply)
        self.assertTrue(self.error(b"<html>", 502).temporary)
        self.assertFalse(self.error(b"<html>", 404).temporary)
        self.assertIn("redirects", str(self.error(b"", 302)))

    def test_results_of_another_type(self) -> None:
        for result in ({}, {"address": 1, "token": "t"}, None, "x"):
            error = self.assertRaises(UnexpectedReply, read, answer(result=result), kind=Connection)
            self.assertIn("Connect", str(error))

    @given(
        st.one_of(
            st.binary(),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.text()
                | st.sampled_from(["2.0", 7, -32600, "no_server"]),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(
                            [
                                "jsonrpc",
                                "id",
                                "result",
                                "error",
                                "code",
                                "message",
                                "data",
                                "reason",
                                "detail",
                                "retry_after",
                            ]
                        ),
                        inner,
                    )
                ),
                max_leaves=12,
            ).map(lambda value: json.dumps(value).encode()),
        )
    )
    def test_no_reply_does_anything_else(self, body: bytes) -> None:
        try:
            read(body)
        except GatewayError as error:
            self.assertTrue(str(error).isprintable())
            self.assertIsInstance(error.temporary, bool)


class TargetTests(SynchronousTestCase):
    def test_good_urls(self) -> None:
        for url, want in {
            "http://h": "http://h/x",
            "https://h:7000/": "https://h:7000/x",
            "http://h/pool/": "http://h/pool/",
            "http://[::1]:7000": "http://[::1]:7000/x",
        }.items():
            self.assertEqual(target(url, "/x").url, want)
            self.assertIs(target(url, "/x").auth, None)
        where = target("http://odin:p%40ss:w@h/internal", "/x")
        self.assertEqual((where.url, where.auth), ("http://h/internal", ("odin", "p@ss:w")))
        self.assertNotIn("p@ss", repr(where))

    def test_bad_urls(self) -> None:
        for url in (
            "",
            "h",
            "h:7000",
            "ftp://h",
            "http://",
            "http://h:port",
            "http://h/?a=secret",
            "http://h/#secret",
            "http://h/\nsecret",
            "http://h h/",
            "http://[::1/",
            "file:///secret",
        ):
            error = self.assertRaises(ValueError, target, url, "/")
            self.assertNotIn("secret", str(error), url)

    def test_what_clients_show(self) -> None:
        gateway = GatewayClient("http://h", SECRET)
        self.assertEqual(repr(gateway), "GatewayClient('http://h/')")
        internal = InternalClient("http://odin:secret@h", auth=("a", "secret"))
        self.assertEqual(repr(internal), "InternalClient('http://h/internal')")
        error = self.assertRaises(ValueError, GatewayClient, "http://a:secret@h", "t")
        self.assertNotIn("secret", str(error))
        self.assertRaises(ValueError, GatewayClient, "http://h", "t", verify="/no/such/file")
        self.assertNotIn("secret", repr(Connection("a:1", SECRET)))

    def test_credentials(self) -> None:
        self.assertEqual(basic(("Aladdin", "open sesame")), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        self.assertRaises(ValueError, basic, ("a:b", "c"))
        self.assertEqual(bearer(" a.b.c\t".strip()), "Bearer a.b.c")
        for token in ("", " ", "a b", "a\r\nX: secret", "sécret", None, 7, b"secret"):
            error = self.assertRaises(ValueError, bearer, token)
            self.assertNotIn("secret", str(error))


class TokenTests(SynchronousTestCase):
    def claims(self, token: str) -> Any:
        keys = {ACCESS_KEY.kid: ACCESS_KEY.public_jwk()}
        return verify(token, keys.get, now=1_700_000_000, policy=Policy()).claims

    def test_a_token_is_good_for_one_method_and_room(self) -> None:
        tokens = AccessKeyTokens(ACCESS_KEY, "lobby", "alice", now=lambda: 1_700_000_000.5)
        claims = self.claims(tokens.token_for("Connect", {}))
        self.assertEqual(
            (claims.rid, claims.uid, claims.sub, claims.aud, claims.exp - claims.nbf),
            ("lobby", "alice", "Connect", "gateway", 60),
        )
        claims = self.claims(tokens.token_for("RoomClose", {"room_id": "other"}))
        self.assertEqual((claims.rid, claims.sub), ("other", "RoomClose"))

    def test_without_a_room(self) -> None:
        tokens = AccessKeyTokens(ACCESS_KEY.text)
        self.assertRaises(ValueError, tokens.token_for, "Connect", {})
        self.assertRaises(ValueError, tokens.token_for, "RoomClose", {"room_id": 7})

    def test_the_key_is_not_shown(self) -> None:
        self.assertNotIn(ACCESS_KEY.text, repr(AccessKeyTokens(ACCESS_KEY.text, "lobby")))
        self.assertIn(ACCESS_KEY.kid, repr(AccessKeyTokens(ACCESS_KEY.text, "lobby")))


class RetryTests(SynchronousTestCase):
    def test_what_the_gateway_asks_for(self) -> None:
        retry = Retry(attempts=3, longest=5)
        error = NoServer("m", retry_after=4.5)
        self.assertEqual(retry.wait("Connect", 1, error), 4.5)
        self.assertIs(retry.wait("Connect", 3, error), None)
        self.assertIs(retry.wait("Connect", 1, NoServer("m", retry_after=5.5)), None)

    def test_what_may_be_done_twice(self) -> None:
        self.assertNotIn("RoomSendMessage", IDEMPOTENT)
        for method in ("RoomSendMessage", "sfu.Report", "Unknown"):
            self.assertIs(Retry().wait(method, 1, RateLimited("m", retry_after=0)), None)

    def test_permanent_errors(self) -> None:
        self.assertIs(Retry().wait("Connect", 1, RoomMismatch("m")), None)

    def test_waits_grow_up_to_the_longest(self) -> None:
        retry = Retry(attempts=2000, longest=1, first=0.25)
        for attempt, most in {1: 0.25, 2: 0.5, 3: 1.0, 4: 1.0, 1500: 1.0}.items():
            wait = retry.wait("Connect", attempt, TransportError("m")) or 0
            self.assertTrue(most / 2 <= wait <= most, (attempt, wait))

    def test_numbers_that_make_no_sense(self) -> None:
        self.assertRaises(ValueError, Retry, attempts=0)
        self.assertRaises(ValueError, Retry, longest=-1)


class ImportTests(SynchronousTestCase):
    def modules(self, code: str) -> set[str]:
        code += "\nimport sys\nprint(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        return set(done.stdout.split())

    def test_the_blocking_client_needs_no_twisted_and_no_server(self) -> None:
        modules = self.modules("import odingw.client as c\nc.GatewayClient('http://h', 't')")
        self.assertEqual([], [name for name in modules if name.partition(".")[0] == "twisted"])
        parts = {name.split(".")[1] for name in modules if name.startswith("odingw.")}
        self.assertEqual(parts, {"client", "documents", "errors", "tokens"})

    def test_the_client_for_twisted_installs_no_reactor(self) -> None:
        modules = self.modules("from odingw.client import AsyncGatewayClient")
        self.assertIn("twisted.web.client", modules)
        self.assertNotIn("twisted.internet.reactor", modules)

    def test_every_name_is_there(self) -> None:
        for name in odingw.client.__all__:
            self.assertTrue(hasattr(odingw.client, name), name)
        self.assertFalse(hasattr(odingw.client, "nothing"))
