"""What a hostile server of a JWK set can do: little."""

from gzip import compress
from typing import Any

import trustme
from treq.client import HTTPClient
from twisted.internet import ssl
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS

from odingw.errors import FetchError
from odingw.turn.jwks_fetch import MAX_BYTES, TIMEOUT, fetch, jwk_client
from tests.jwk_server import (
    Answer,
    JwkServer,
    cut,
    endless,
    head,
    reactor,
    start,
    whole,
)

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 80)


class RealServerTests(TestCase):
    """Fetches from a server on the loopback interface."""

    def setUp(self) -> None:
        self.server = JwkServer(self)
        self.clock = Clock()
        self.client = jwk_client(reactor)

    async def cause(self, path: str = "/keys?token=secret") -> str:
        error = await self.assertFailure(
            fetch(self.server.origin + path, self.client, self.clock), FetchError
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])
        text = str(error)
        self.assertEqual(text.splitlines(), [text])
        self.assertNotIn("secret", text)
        return text

    async def test_what_is_sent(self) -> None:
        self.server.answer = whole(b"{}", set_cookie="a=b")
        for _ in range(2):
            await fetch(f"{self.server.origin}/keys?token=secret", self.client, self.clock)
        for connection in self.server.connections:
            first, *headers = connection.request.decode().lower().split("\r\n")
            self.assertEqual(first, "get /keys?token=secret http/1.1")
            self.assertIn("accept-encoding: identity", headers)
            self.assertIn("connection: close", headers)
            self.assertFalse([header for header in headers if header.startswith("cookie")])
            await connection.lost

    async def test_bodies(self) -> None:
        answers: list[Answer] = [
            whole(b"{}"),
            whole(b"{}", content_encoding="identity"),
            start(head(transfer_encoding="chunked") + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"),
            cut(head() + b"{}"),
        ]
        for answer in answers:
            self.server.answer = answer
            url = f"{self.server.origin}/"
            self.assertEqual(await fetch(url, self.client, self.clock), b"{}")
        self.server.answer = whole(b" " * MAX_BYTES)
        self.assertEqual(len(await fetch(url, self.client, self.clock)), MAX_BYTES)

    async def test_statuses(self) -> None:
        for status in (
            "201 Created",
            "204 No Content",
            "304 Not Modified",
            "404 Not Found",
            "500 x",
        ):
            self.server.answer = whole(b"", status)
            self.assertEqual(await self.cause(), f"HTTP status {status[:3]}")
            await self.server.connections[-1].lost

    async def test_an_error_whose_body_does_not_end(self) -> None:
        self.server.answer = start(head("500 x") + b"wait")
        self.assertEqual(await self.cause(), "HTTP status 500")
        await self.server.connections[-1].lost

    async def test_redirects_are_not_followed(self) -> None:
        """Neither to itself nor elsewhere."""
        for status in (301, 302, 303, 307, 308):
            for location in ("/keys", "http://127.0.0.1:1/", "file:///etc/passwd"):
                self.server.answer = whole(b"", f"{status} x", location=location)
                self.assertEqual(await self.cause(), f"HTTP status {status}")
        self.assertEqual(len(self.server.connections), 15)

    async def test_an_answer_that_does_not_come(self) -> None:
        pieces: list[bytes] = [b"", b"HTTP/1.1 200 OK\r\n", head(), head(content_length=9) + b"{"]
        for piece in pieces:
            self.server.answer = start(piece)
            requested = self.server.next_request()
            waiting = Deferred.fromCoroutine(self.cause())
            connection = await requested
            self.clock.advance(TIMEOUT - 1)
            self.assertNoResult(waiting)
            self.clock.advance(1)
            self.assertEqual(await waiting, "no whole answer within 10 s")
            await connection.lost

    async def test_an_answer_that_drips(self) -> None:
        """Each byte comes in time, all of them do not."""
        self.server.answer = start(head(content_length=100))
        requested = self.server.next_request()
        waiting = Deferred.fromCoroutine(self.cause())
        connection = await requested
        for _ in range(int(TIMEOUT)):
            self.assertNoResult(waiting)
            connection.write(b" ")
            self.clock.advance(1)
        self.assertEqual(await waiting, "no whole answer within 10 s")
        await connection.lost

    async def test_a_body_without_end(self) -> None:
        self.server.answer = endless(head(), b" " * 10_000)
        self.assertEqual(await self.cause(), f"it is larger than {MAX_BYTES} bytes")
        await self.server.connections[0].lost

    async def test_headers_without_end(self) -> None:
        self.server.answer = endless(b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n" * 1000)
        self.assertIn("ConnectionAborted: ", await self.cause())
        await self.server.connections[0].lost

    async def test_bodies_that_unpack_to_more(self) -> None:
        for encoding in ("gzip", "gzip, gzip", "x-gzip", "br", "identity, gzip"):
            packed = compress(compress(b" " * 10_000_000))
            self.server.answer = whole(packed, content_encoding=encoding)
            self.assertEqual(await self.cause(), "the body is compressed, which was not asked for")
            await self.server.connections[-1].lost

    async def test_what_is_not_http(self) -> None:
        for answer in (
            b"\0" * 1000,
            b"SSH-2.0-secret\r\n",
            b"HTTP/1.1 secret\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nsecret\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: secret\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nsecret\r\n",
        ):
            self.server.answer = cut(answer)
            await self.cause()
            await self.server.connections[-1].lost

    async def test_a_connection_that_breaks(self) -> None:
        for piece in (b"", b"HTTP/1.1 200 OK\r\n", head(content_length=9) + b"{"):
            self.server.answer = cut(piece)
            await self.cause()

    async def test_nobody_listens(self) -> None:
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.server.origin = f"http://127.0.0.1:{port.getHost().port}"
        await port.stopListening()
        self.assertTrue((await self.cause()).startswith("ConnectionRefusedError: "))

    async def test_cancelling_closes_the_connection(self) -> None:
        for piece in (b"", head()):
            self.server.answer = start(piece)
            requested = self.server.next_request()
            fetching = fetch(f"{self.server.origin}/", self.client, self.clock)
            connection = await requested
            fetching.cancel()
            await self.assertFailure(fetching, CancelledError)
            await connection.lost


class TlsTests(TestCase):
    """Fetches over https."""

    def setUp(self) -> None:
        self.authority = trustme.CA()

    def serve(self, *names: str) -> JwkServer:
        certificate = self.authority.issue_cert(*names)
        context = ssl.PrivateCertificate.loadPEM(certificate.private_key_and_cert_chain_pem.bytes())
        server = JwkServer(self, context.options())
        server.answer = whole(b"{}")
        return server

    def client(self) -> HTTPClient:
        root = ssl.Certificate.loadPEM(self.authority.cert_pem.bytes())
        policy: Any = BrowserLikePolicyForHTTPS
        return jwk_client(reactor, policy(ssl.trustRootFromCertificates([root])))

    async def test_a_trusted_certificate(self) -> None:
        server = self.serve("127.0.0.1")
        self.assertEqual(await fetch(f"{server.origin}/", self.client(), reactor), b"{}")
        await server.connections[0].lost

    async def test_other_certificates(self) -> None:
        for names, client in ((("127.0.0.1",), jwk_client(reactor)), (("a.test",), self.client())):
            server = self.serve(*names)
            error = await self.assertFailure(
                fetch(f"{server.origin}/", client, reactor), FetchError
            )
            self.assertRegex(str(error), "certificate verify failed|VerificationError")
            self.assertEqual(server.connections, [])

    async def test_a_body_without_end(self) -> None:
        """The peer need not agree to the end of the connection."""
        server = self.serve("127.0.0.1")
        server.answer = endless(head(), b" " * 10_000)
        error = await self.assertFailure(
            fetch(f"{server.origin}/", self.client(), reactor), FetchError
        )
        self.assertEqual(str(error), f"it is larger than {MAX_BYTES} bytes")
        await server.connections[0].lost


class ConnectionTests(SynchronousTestCase):
    """What the client does with its connection, seen from below."""

    def setUp(self) -> None:
        self.memory: Any = MemoryReactorClock()
        self.transport = StringTransport()

    def fetch(self, url: str, address: IPv4Address | IPv6Address = LOOPBACK) -> Deferred[bytes]:
        """Fetch a URL whose host has that address, and let the connection be made."""
        self.memory.installNameResolver(Resolver(address))
        fetching = fetch(url, jwk_client(self.memory), self.memory)
        factory = self.memory.tcpClients[-1][2]
        self.protocol = factory.buildProtocol(address)
        if self.protocol is not None:
            self.protocol.makeConnection(self.transport)
        self.memory.advance(1)
        return fetching

    def test_http_goes_to_this_host_only(self) -> None:
        """Whatever the name leads to."""
        for address, good in (
            (LOOPBACK, True),
            (IPv4Address("TCP", "127.0.0.2", 80), True),
            (IPv6Address("TCP", "::1", 80), True),
            (IPv4Address("TCP", "192.0.2.1", 80), False),
            (IPv6Address("TCP", "2001:db8::1", 80), False),
        ):
            self.transport.clear()
            fetching = self.fetch("http://issuer.localhost/", address)
            if good:
                self.assertNoResult(fetching)
                self.assertTrue(self.transport.value().startswith(b"GET / HTTP/1.1"))
            else:
                error = self.failureResultOf(fetching, FetchError).value
                self.assertIn("keys that come over http can be forged", str(error))
                self.assertEqual(self.transport.value(), b"")

    def test_it_is_closed_when_no_more_is_wanted(self) -> None:
        for answer in (
            head("500 x"),
            head(content_encoding="gzip"),
            head() + b" " * (MAX_BYTES + 1),
        ):
            self.transport = StringTransport()
            fetching = self.fetch("http://localhost/")
            self.protocol.dataReceived(answer)
            self.failureResultOf(fetching, FetchError)
            self.assertTrue(self.transport.disconnecting, answer[:50])

    def test_it_is_closed_when_the_fetch_is_cancelled(self) -> None:
        for answer in (b"", b"HTTP/1.1 200 OK\r\n", head(), head(content_length=9) + b"{"):
            self.transport = StringTransport()
            fetching = self.fetch("http://localhost/")
            self.protocol.dataReceived(answer)
            fetching.cancel()
            self.failureResultOf(fetching, CancelledError)
            self.assertTrue(self.transport.disconnecting, answer)

    def test_it_is_cut_after_too_many_bytes(self) -> None:
        """Of whatever kind."""
        self.fetch("http://localhost/").addErrback(lambda _: b"")
        self.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n")
        lines = b"x-header: value\r\n" * 4096
        for _ in range(MAX_BYTES // len(lines)):
            self.protocol.dataReceived(lines)
        self.assertFalse(self.transport.disconnected)
        for _ in range(3):
            self.protocol.dataReceived(lines)
        self.assertTrue(self.transport.disconnected)

    def test_it_is_cut_after_some_seconds(self) -> None:
        """To close it takes the peer's consent, with TLS for one."""
        fetching = self.fetch("http://localhost/")
        self.protocol.dataReceived(head("500 x"))
        self.failureResultOf(fetching, FetchError)
        self.memory.advance(13)
        self.assertFalse(self.transport.disconnected)
        self.memory.advance(1)
        self.assertTrue(self.transport.disconnected)

    def test_nothing_is_left_of_it(self) -> None:
        fetching = self.fetch("http://localhost/")
        self.protocol.dataReceived(head(content_length=2) + b"{}")
        self.assertEqual(self.successResultOf(fetching), b"{}")
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.memory.getDelayedCalls(), [])


class Resolver:
    """Finds one address for all names."""

    def __init__(self, address: IPv4Address | IPv6Address) -> None:
        self._address = address

    def resolveHostName(self, receiver: Any, *_: object, **__: object) -> object:  # noqa: N802  # IHostnameResolver's name
        receiver.resolutionBegan(self)
        receiver.addressResolved(self._address)
        receiver.resolutionComplete()
        return self
