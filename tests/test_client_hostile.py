"""``odingw.client`` over real sockets, against peers that answer badly, late or not at all."""

import socket
import subprocess
import threading
from gzip import compress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import requests
import trustme
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from odingw.client import (
    AsyncGatewayClient,
    AsyncInternalClient,
    GatewayClient,
    GatewayError,
    InsecureConnection,
    InternalClient,
    RateLimited,
    Retry,
    TransportError,
    Unauthorized,
    UnexpectedReply,
)
from odingw.client.values import Connection
from tests.client_peer import Answer, Peer, http_reply, in_turn, rpc
from tests.jwk_server import reactor
from tests.process import free_port
from tests.terminal import command, environment, odingw

TOKEN = "eyJhbGciOi.very.secret"
CONNECTED = {"address": "sfu:4433", "token": "room token"}
BUSY: dict[str, Any] = {"code": -32029, "message": "too many requests", "data": {"retry_after": 0}}
SHORT = 0.3

GOOD = rpc(result=CONNECTED)
KEY = ("--rate", "0")
LIMITED = rpc("429 Too Many Requests", error=BUSY)


def says(reply: bytes) -> Answer:
    """Return what answers so whatever is asked."""
    return lambda request: reply


def body_of(reply: bytes | None) -> bytes:
    """Return what stands behind the headers."""
    return (reply or b"").partition(b"\r\n\r\n")[2]


HOSTILE: dict[str, tuple[Answer, type[GatewayError], bool]] = {
    "a proxy's page": (
        says(http_reply("<h1>Bad Gateway</h1>", "502 Bad Gateway", "Content-Type: text/html")),
        UnexpectedReply,
        True,
    ),
    "a redirect": (
        says(http_reply("", "307 Temporary Redirect", "Location: http://127.0.0.1:1/")),
        UnexpectedReply,
        False,
    ),
    "nothing": (says(http_reply("")), UnexpectedReply, False),
    "no content": (says(b"HTTP/1.1 204 No Content\r\n\r\n"), UnexpectedReply, False),
    "packed": (
        says(http_reply(compress(bytes(10_000_000)), "200 OK", "Content-Encoding: gzip")),
        UnexpectedReply,
        False,
    ),
    "too large a length": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"),
        TransportError,
        True,
    ),
    "no chunks": (
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
        TransportError,
        True,
    ),
    "no HTTP": (says(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"), TransportError, True),
    "hung up": (says(b""), TransportError, True),
}


class BlockingTests(SynchronousTestCase):
    def peer(self, answer: Answer, *, end: bool = True) -> Peer:
        peer = Peer(answer, end=end)
        self.addCleanup(peer.stop)
        return peer

    def client(self, url: str, **options: Any) -> GatewayClient:
        client = GatewayClient(url, TOKEN, **{"timeout": 10.0, **options})
        self.addCleanup(client.close)
        return client

    def error(self, url: str, **options: Any) -> GatewayError:
        error: GatewayError = self.assertRaises(GatewayError, self.client(url, **options).connect)
        for text in (str(error), repr(error)):
            self.assertNotIn("secret", text)
            self.assertTrue(text.isprintable())
        self.assertIs(error.__cause__, None)
        # Not even hidden behind it: requests' error holds the request, and so the token.
        self.assertNotIsInstance(error.__context__, requests.RequestException | OSError)
        return error

    def test_hostile_replies(self) -> None:
        for name, (answer, kind, temporary) in HOSTILE.items():
            error = self.error(self.peer(answer).url)
            self.assertIs(type(error), kind, f"{name}: {error!r}")
            self.assertEqual(error.temporary, temporary, name)

    def test_nobody_listens(self) -> None:
        error = self.error(f"http://127.0.0.1:{free_port()}")
        self.assertIs(type(error), TransportError)
        self.assertIn("refused", str(error))
        self.assertIn("http://127.0.0.1", str(error))

    def test_no_such_name(self) -> None:
        error = self.error("http://gateway.invalid:7000")
        self.assertIs(type(error), TransportError)

    def test_too_late(self) -> None:
        self.assertIn("within", str(self.error(self.peer(lambda _: None).url, timeout=SHORT)))

    def test_a_body_that_drips(self) -> None:
        """Each byte comes in time, the whole does not."""
        stop = threading.Event()
        self.addCleanup(stop.set)
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.wait(SHORT / 10):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        threading.Thread(target=drip, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.assertIn("within", str(self.error(url, timeout=SHORT)))

    def test_a_body_that_does_not_end(self) -> None:
        with patch("odingw.client.blocking.MAX_REPLY", 1000):
            error = self.error(self.peer(says(http_reply(b" " * 1001))).url)
        self.assertIs(type(error), UnexpectedReply)

    def test_chunks_are_fine(self) -> None:
        answer: Answer = lambda request: (  # noqa: E731  -- one of a kind
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"".join(b"1\r\n%c\r\n" % byte for byte in body_of(GOOD(request)))
            + b"0\r\n\r\n"
        )
        self.assertEqual(self.client(self.peer(answer).url).connect(), Connection(**CONNECTED))

    def test_what_is_sent(self) -> None:
        peer = self.peer(GOOD, end=False)
        client = self.client(peer.url)
        client.connect()
        client.connect()
        for request in peer.requests:
            head = request.partition(b"\r\n\r\n")[0].decode().lower()
            self.assertTrue(head.startswith("post / http/1.1\r\n"))
            self.assertIn(f"authorization: bearer {TOKEN.lower()}", head)
            self.assertIn("content-type: application/json", head)
            self.assertNotIn("cookie", head)

    def test_cookies_are_not_kept(self) -> None:
        peer = self.peer(rpc("200 OK", "Set-Cookie: a=b", result=CONNECTED), end=False)
        client = self.client(peer.url)
        client.connect()
        client.connect()
        self.assertNotIn(b"Cookie: a=b", peer.requests[1])

    def test_netrc_is_not_asked(self) -> None:
        netrc = Path(self.mktemp())
        netrc.write_text("machine 127.0.0.1 login a password b\n")
        peer = self.peer(rpc(result={}))
        with patch.dict("os.environ", NETRC=str(netrc)), InternalClient(peer.url) as client:
            client.drain("sfu:4433")
        self.assertNotIn(b"authorization", peer.requests[0].lower())

    def test_a_function_is_asked_for_each_token(self) -> None:
        tokens = iter(("one", "two"))
        peer = self.peer(GOOD, end=False)
        with GatewayClient(peer.url, lambda: next(tokens)) as client:
            client.connect()
            client.connect()
        self.assertIn(b"Bearer one\r\n", peer.requests[0])
        self.assertIn(b"Bearer two\r\n", peer.requests[1])

    def test_a_function_that_returns_no_token(self) -> None:
        source: Any = lambda: None  # noqa: E731  -- one of a kind
        with GatewayClient(f"http://127.0.0.1:{free_port()}", source) as client:
            self.assertRaises(ValueError, client.connect)

    def test_nothing_is_tried_again_unasked(self) -> None:
        peer = self.peer(LIMITED, end=False)
        self.assertIs(type(self.error(peer.url)), RateLimited)
        self.assertEqual(len(peer.requests), 1)

    def test_tried_again_where_asked_for(self) -> None:
        peer = self.peer(in_turn(LIMITED, LIMITED, GOOD), end=False)
        client = self.client(peer.url, retry=Retry(attempts=3))
        self.assertEqual(client.connect(), Connection(**CONNECTED))
        self.assertEqual(len(peer.requests), 3)

    def test_tried_again_only_so_often(self) -> None:
        peer = self.peer(LIMITED, end=False)
        self.assertIs(type(self.error(peer.url, retry=Retry(attempts=2))), RateLimited)
        self.assertEqual(len(peer.requests), 2)

    def test_a_message_is_never_sent_again(self) -> None:
        peer = self.peer(LIMITED, end=False)
        client = self.client(peer.url, retry=Retry(attempts=5))
        self.assertRaises(RateLimited, client.send_message, "room", "user", b"hello")
        self.assertEqual(len(peer.requests), 1)

    def test_a_new_token_for_each_attempt(self) -> None:
        tokens = iter(("one", "two"))
        peer = self.peer(in_turn(LIMITED, GOOD), end=False)
        with GatewayClient(peer.url, lambda: next(tokens), retry=Retry()) as client:
            client.connect()
        self.assertIn(b"Bearer two\r\n", peer.requests[1])


class AsyncTests(TestCase):
    def peer(self, answer: Answer, *, end: bool = True) -> Peer:
        peer = Peer(answer, end=end)
        self.addCleanup(peer.stop)
        return peer

    def client(self, url: str, token: Any = TOKEN, **options: Any) -> AsyncGatewayClient:
        client = AsyncGatewayClient(reactor, url, token, **{"timeout": 10.0, **options})
        self.addCleanup(client.close)
        return client

    async def error(self, url: str, **options: Any) -> GatewayError:
        error = await self.assertFailure(self.client(url, **options).connect(), GatewayError)
        assert isinstance(error, GatewayError)
        for text in (str(error), repr(error)):
            self.assertNotIn("secret", text)
            self.assertTrue(text.isprintable())
        return error

    async def test_hostile_replies(self) -> None:
        for name, (answer, kind, temporary) in HOSTILE.items():
            error = await self.error(self.peer(answer).url)
            self.assertIs(type(error), kind, f"{name}: {error!r}")
            self.assertEqual(error.temporary, temporary, name)

    async def test_nobody_listens(self) -> None:
        error = await self.error(f"http://127.0.0.1:{free_port()}")
        self.assertIs(type(error), TransportError)
        self.assertRegex(str(error), r"^cannot reach http://127\.0\.0\.1:\d+/: connection refused$")

    async def test_too_late(self) -> None:
        error = await self.error(self.peer(lambda _: None).url, timeout=SHORT)
        self.assertIs(type(error), TransportError)
        self.assertIn("within", str(error))

    async def test_a_body_that_stops(self) -> None:
        peer = self.peer(says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), end=False)
        error = await self.error(peer.url, timeout=SHORT)
        self.assertIn("within", str(error))
        await deferToThread(peer.wait_for_end)

    async def test_a_body_that_does_not_end(self) -> None:
        with patch("odingw.client.asynchronous.MAX_REPLY", 1000):
            peer = self.peer(says(http_reply(b" " * 100_000)), end=False)
            error = await self.error(peer.url)
        self.assertIs(type(error), UnexpectedReply)
        await deferToThread(peer.wait_for_end)

    async def test_cancelled(self) -> None:
        """At once, or while a reply is waited for; nothing is tried again then."""
        heard = threading.Event()

        def hear(_: bytes) -> None:
            heard.set()

        peer = self.peer(hear, end=False)
        client = self.client(peer.url, retry=Retry())
        calling = client.connect()
        calling.cancel()
        await self.assertFailure(calling, CancelledError)
        calling = client.connect()
        self.assertTrue(await deferToThread(heard.wait, 10))
        calling.cancel()
        await self.assertFailure(calling, CancelledError)
        await deferToThread(peer.wait_for_end)
        self.assertEqual(len(peer.requests), 1)

    async def test_cancelled_while_the_token_comes(self) -> None:
        never: Deferred[str] = Deferred()
        calling = self.client("http://127.0.0.1:1", lambda: never).connect()
        calling.cancel()
        await self.assertFailure(calling, CancelledError)

    async def test_connections_are_kept(self) -> None:
        peer = self.peer(GOOD, end=False)
        client = self.client(peer.url)
        for _ in range(3):
            self.assertEqual(await client.connect(), Connection(**CONNECTED))
        self.assertEqual(len(peer.connections), 1)

    async def test_tokens(self) -> None:
        """A function may return a token, or what a token can be awaited from."""
        peer = self.peer(GOOD, end=False)

        def later() -> Deferred[str]:
            token: Deferred[str] = Deferred()
            reactor.callLater(0, token.callback, "later")
            return token

        sources: list[Any] = [lambda: "now", later]
        for source in sources:
            await self.client(peer.url, source).connect()
        self.assertIn(b"Bearer now\r\n", peer.requests[0])
        self.assertIn(b"Bearer later\r\n", peer.requests[1])
        source = lambda: "a b"  # noqa: E731  -- one of a kind
        await self.assertFailure(self.client(peer.url, source).connect(), ValueError)

    async def test_tried_again_where_asked_for(self) -> None:
        peer = self.peer(in_turn(LIMITED, GOOD), end=False)
        self.assertIs(type(await self.error(peer.url)), RateLimited)
        peer = self.peer(in_turn(LIMITED, GOOD), end=False)
        client = self.client(peer.url, retry=Retry())
        self.assertEqual(await client.connect(), Connection(**CONNECTED))
        self.assertEqual(len(peer.requests), 2)

    async def test_a_message_is_never_sent_again(self) -> None:
        peer = self.peer(LIMITED, end=False)
        client = self.client(peer.url, retry=Retry())
        await self.assertFailure(client.send_message("room", "user", b"hello"), RateLimited)
        self.assertEqual(len(peer.requests), 1)

    async def test_a_dead_connection_is_not_used_to_call_again(self) -> None:
        """What may have been carried out is an error, not a second call."""
        peer = self.peer(in_turn(GOOD, says(b"")), end=False)
        client = self.client(peer.url)
        await client.connect()
        await self.assertFailure(client.send_message("r", "u", b""), TransportError)
        self.assertEqual(len(peer.requests), 2)

    async def test_basic(self) -> None:
        peer = self.peer(rpc("401 Unauthorized", error={"code": -32001, "message": "secret"}))
        url = peer.url.replace("http://", "http://odin:secret@")
        client = AsyncInternalClient(reactor, url, timeout=10)
        self.addCleanup(client.close)
        self.assertNotIn("secret", repr(client))
        await self.assertFailure(client.info(), Unauthorized)
        self.assertIn(b"Basic b2RpbjpzZWNyZXQ=", peer.requests[0])
        self.assertIn(b"POST /internal ", peer.requests[0])


class TlsTests(TestCase):
    def setUp(self) -> None:
        authority = trustme.CA()
        self.certificate = authority.issue_cert("127.0.0.1", "localhost")
        self.peer = Peer(GOOD, certificate=self.certificate)
        self.addCleanup(self.peer.stop)
        self.trusted = self.mktemp()
        authority.cert_pem.write_to_path(self.trusted)

    def test_blocking(self) -> None:
        for verify in (self.trusted, False):
            with GatewayClient(self.peer.url, TOKEN, verify=verify) as client:
                if verify is False:
                    with self.assertWarnsRegex(Warning, "Unverified"):
                        client.connect()
                else:
                    client.connect()
        with GatewayClient(self.peer.url, TOKEN) as client:
            error = self.assertRaises(InsecureConnection, client.connect)
        self.assertFalse(error.temporary)
        self.assertEqual(len(self.peer.requests), 2)

    async def test_twisted(self) -> None:
        for verify in (self.trusted, False):
            async with AsyncGatewayClient(reactor, self.peer.url, TOKEN, verify=verify) as client:
                await client.connect()
        named = self.peer.url.replace("127.0.0.1", "localhost")
        async with AsyncGatewayClient(reactor, named, TOKEN, verify=False) as client:
            await client.connect()
        async with AsyncGatewayClient(reactor, self.peer.url, TOKEN) as client:
            error: Any = await self.assertFailure(client.connect(), InsecureConnection)
        self.assertFalse(error.temporary)
        self.assertEqual(len(self.peer.requests), 3)

    def test_files_without_certificates(self) -> None:
        for path in ("/no/such/file", __file__):
            self.assertRaises(
                ValueError, AsyncGatewayClient, reactor, self.peer.url, TOKEN, verify=path
            )

    def test_plain_http(self) -> None:
        """A port that wants TLS says nothing that could be read."""
        url = self.peer.url.replace("https:", "http:")
        with GatewayClient(url, TOKEN) as client:
            error = self.assertRaises(TransportError, client.connect)
        self.assertIn("does it want https?", str(error))

    def test_commands(self) -> None:
        options = ("--token", TOKEN, "--url", self.peer.url)
        ended = odingw("call", "Connect", *options, "--insecure")
        self.assertNotIn("InsecureRequestWarning", ended.err)
        self.assertEqual(0, ended.status, ended)
        peer = Peer(says(http_reply("{}")), certificate=self.certificate)
        self.addCleanup(peer.stop)
        for ended in (odingw("customers", peer.url), odingw("simulate", "--url", peer.url, *KEY)):
            self.assertEqual(3, ended.status)
            self.assertIn("see --ca-file", ended.err)
        for more in (("--insecure",), ("--ca-file", self.trusted)):
            ended = odingw("customers", peer.url, *more)
            self.assertEqual(1, ended.status, "it has no customers, but it is spoken to")
        # In a process of its own, as its reactor runs but once.
        arguments = ("simulate", "--url", peer.url, "--insecure", "--spread", "0", *KEY)
        done = subprocess.run(
            command(*arguments), env=environment(), capture_output=True, text=True, check=False
        )
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertIn("could not start", done.stderr)
        self.assertNotIn("see --ca-file", done.stderr)
