"""Documents that are fetched through the HTTP proxies that the environment names."""

import json
import os
from base64 import b64encode
from typing import Any

import trustme
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import URI, BrowserLikePolicyForHTTPS

from odingw.config import CustomerSource, Gateway
from odingw.customers import refresher
from odingw.errors import FetchError
from odingw.fetch import get, http_client
from odingw.http_proxies import HttpProxies, HttpProxy
from odingw.turn.jwks_fetch import fetch, jwk_client
from tests.customer_documents import document
from tests.jwk_server import JwkServer, cut, endless, reactor, start, whole
from tests.proxies import Proxy


class Tinyproxy(Proxy):
    """tinyproxy; ``text`` are further lines of its configuration."""

    name = "tinyproxy"

    def _whole(self, text: str) -> str:
        return f"Port {self.ports['front']}\nListen 127.0.0.1\nLogLevel Connect\n{text}"

    def _command(self) -> list[str]:
        return [self._program, "-d", "-c", f"{self._file}"]

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.ports['front']}"


class FindTests(SynchronousTestCase):
    """Which proxy is taken, if any."""

    def find(self, url: str, **settings: str) -> HttpProxy | None:
        return HttpProxies(settings).find(URI.fromBytes(url.encode()))

    def test_by_scheme(self) -> None:
        settings = {"http": "http://one:1", "https": "http://two:2", "all": "http://three:3"}
        self.assertEqual(HttpProxy("one", 1), self.find("http://a.test/", **settings))
        self.assertEqual(HttpProxy("two", 2), self.find("https://a.test/", **settings))
        self.assertIsNone(self.find("https://a.test/", http="http://one:1"))

    def test_how_it_may_be_written(self) -> None:
        secret = f"Basic {b64encode(b'u@r:p:w').decode()}"
        for text, host, port, authorization in (
            ("proxy.test:3128", "proxy.test", 3128, ""),
            ("http://proxy.test:3128/", "proxy.test", 3128, ""),
            ("http://proxy.test", "proxy.test", 80, ""),
            ("HTTP://[::1]:8080", "::1", 8080, ""),
            ("http://[fe80::1%eth0]:1", "fe80::1%eth0", 1, ""),
            ("a_proxy", "a_proxy", 80, ""),
            ("http://u%40r:p%3Aw@proxy.test:1", "proxy.test", 1, secret),
        ):
            found = self.find("https://a.test/", https=text)
            self.assertEqual(HttpProxy(host, port, authorization), found, text)

    def test_what_is_no_proxy(self) -> None:
        for text in (
            *("socks5://u:secret@h:1", "http://", "http://h:secret", "http://[secret", "x secret"),
            *("http://secret:99999", "secret:0", "secret.1", "http://sécret:1", "-secret"),
        ):
            error = self.assertRaises(FetchError, self.find, "https://a.test/", https=text)
            self.assertEqual("HTTPS_PROXY names no proxy; write http://host:port", str(error))

    def test_what_cannot_be_fetched(self) -> None:
        proxies = HttpProxies({"https": "x y", "no": "direct.test"})
        said = (
            "HTTPS_PROXY names no proxy; write http://host:port; until then nothing is fetched "
            "through it",
        )
        self.assertEqual(said, proxies.problems(["https://a.test/", "https://b.test/"]))
        self.assertEqual((), proxies.problems(["https://direct.test/", "http://a.test/"]))

    def test_what_is_reached_without(self) -> None:
        for no, url, direct in (
            ("*", "https://a.test/", True),
            ("a.test", "https://a.test/", True),
            ("a.test", "https://A.TEST/", True),
            (".test", "https://a.test/", True),
            ("test", "https://a.test/", True),
            ("b.test, a.test", "https://a.test/", True),
            ("a.test:443", "https://a.test/", True),
            ("a.test:8443", "https://a.test/", False),
            ("a.test", "https://ba.test/", False),
            ("", "https://a.test/", False),
            ("127.0.0.1", "https://127.0.0.1:1/", True),
            ("10.0.0.0/8", "https://10.1.2.3/", True),
            ("10.0.0.0/8", "https://11.1.2.3/", False),
            ("10.0.0.0/8", "https://10.test/", False),
            ("fd00::/8", "https://[fd00::1]:1/", True),
            ("::1", "https://[::1]/", True),
            ("[::1]", "https://[::1]/", True),
        ):
            found = self.find(url, https="http://proxy.test:1", no=no)
            self.assertEqual(direct, found is None, (no, url))

    def test_the_environment(self) -> None:
        self.patch(os, "environ", {"HTTPS_PROXY": "http://p.test:1", "NO_PROXY": ".test"})
        proxies = HttpProxies.from_environment()
        self.assertIsNone(proxies.find(URI.fromBytes(b"https://a.test/")))
        found = proxies.find(URI.fromBytes(b"https://a.example/"))
        self.assertEqual(HttpProxy("p.test", 1), found)


class ProxyCase(TestCase):
    """A server, perhaps with TLS, and a client that is told of proxies."""

    def serve(self, *, tls: bool) -> JwkServer:
        options = None
        if tls:
            self.authority = trustme.CA()
            certificate = self.authority.issue_cert("127.0.0.1")
            pem = certificate.private_key_and_cert_chain_pem.bytes()
            options = ssl.PrivateCertificate.loadPEM(pem).options()
        server = JwkServer(self, options)
        server.answer = whole(b"{}")
        return server

    def get(self, server: JwkServer, proxy: str) -> Deferred[bytes]:
        policy = None
        if server.origin.startswith("https"):
            kind: Any = BrowserLikePolicyForHTTPS
            root = ssl.Certificate.loadPEM(self.authority.cert_pem.bytes())
            policy = kind(ssl.trustRootFromCertificates([root]))
        client = http_client(
            reactor,
            seconds=10,
            max_bytes=1000,
            http_anywhere=True,
            policy=policy,
            proxies=HttpProxies({"http": proxy, "https": proxy}),
        )
        url = f"{server.origin}/list?key=secret"
        return Deferred.fromCoroutine(get(url, client, accept="text/plain", max_bytes=1000))

    async def cause(self, server: JwkServer, proxy: str) -> str:
        error = await self.assertFailure(self.get(server, proxy), FetchError)
        self.assertNotIn("secret", str(error))
        return str(error)


class RealProxyTests(ProxyCase):
    """A real tinyproxy."""

    def proxy(self, text: str = "") -> Tinyproxy:
        proxy = Tinyproxy(text)
        self.addCleanup(proxy.stop)
        return proxy.start()

    async def test_http(self) -> None:
        server, proxy = self.serve(tls=False), self.proxy()
        self.assertEqual(b"{}", await self.get(server, proxy.address))
        request = server.connections[0].request.lower()
        self.assertTrue(request.startswith(b"get /list?key=secret http/1."), request)
        self.assertIn(b"\r\nvia: ", request)

    async def test_https(self) -> None:
        server, proxy = self.serve(tls=True), self.proxy()
        self.assertEqual(b"{}", await self.get(server, f"http://{proxy.address}"))
        self.assertIn(f"CONNECT {server.origin.removeprefix('https://')} ", proxy.output)
        self.assertNotIn(b"\r\nvia: ", server.connections[0].request.lower())

    async def test_a_password(self) -> None:
        proxy = self.proxy("BasicAuth user secret\n")
        for tls in (False, True):
            server = self.serve(tls=tls)
            self.assertEqual(b"{}", await self.get(server, f"http://user:secret@{proxy.address}"))
            self.assertNotIn(b"proxy-authorization", server.connections[0].request.lower())
            for wrong in (proxy.address, f"user:secret2@{proxy.address}"):
                self.assertIn("HTTP status 40", await self.cause(server, wrong))
            self.assertEqual(1, len(server.connections))

    async def test_a_certificate_is_the_servers_own(self) -> None:
        server, proxy = self.serve(tls=True), self.proxy()
        self.authority = trustme.CA()
        self.assertIn("certificate verify failed", await self.cause(server, proxy.address))

    async def test_a_server_that_is_not_there(self) -> None:
        server, proxy = self.serve(tls=True), self.proxy()
        server.origin = "https://127.0.0.1:1"
        text = await self.cause(server, proxy.address)
        self.assertEqual(f"the proxy {proxy.address}: HTTP status 500", text)

    async def test_customers(self) -> None:
        server, proxy = self.serve(tls=False), self.proxy()
        server.answer = whole(json.dumps([document()]).encode())
        source = CustomerSource(url=f"{server.origin}/list")
        for no_proxy in ("", "127.0.0.1"):
            self.patch(os, "environ", {"HTTP_PROXY": proxy.address, "NO_PROXY": no_proxy})
            customers = refresher(Gateway(customer_source=source), reactor)
            self.assertTrue(await customers.refresh())
            self.assertIn("acme", customers.directory.customers)
            by_proxy = b"\r\nvia: " in server.connections[-1].request.lower()
            self.assertEqual(not no_proxy, by_proxy)

    async def test_keys_over_http_take_no_detour(self) -> None:
        server = self.serve(tls=False)
        self.patch(os, "environ", {"HTTP_PROXY": "127.0.0.1:1"})
        self.assertEqual(b"{}", await fetch(f"{server.origin}/", jwk_client(reactor), reactor))

    async def test_keys_over_https(self) -> None:
        server, proxy = self.serve(tls=True), self.proxy()
        self.patch(os, "environ", {"HTTPS_PROXY": f"http://{proxy.address}"})
        kind: Any = BrowserLikePolicyForHTTPS
        root = ssl.Certificate.loadPEM(self.authority.cert_pem.bytes())
        client = jwk_client(reactor, kind(ssl.trustRootFromCertificates([root])))
        self.assertEqual(b"{}", await fetch(f"{server.origin}/", client, reactor))
        self.assertIn("CONNECT ", proxy.output)


class HostileProxyTests(ProxyCase):
    """What a proxy that is broken can do: little."""

    def setUp(self) -> None:
        self.server = self.serve(tls=True)
        self.proxy = JwkServer(self)
        self.address = self.proxy.origin.removeprefix("http://")

    async def test_other_answers(self) -> None:
        for answer, text in (
            (start(b"HTTP/1.1 403 secret\r\n\r\n"), "HTTP status 403"),
            (start(b"SSH-2.0-secret\r\n\r\n"), "its answer is not HTTP"),
            (start(b"HTTP/2 200 secret\r\n\r\n"), "its answer is not HTTP"),
            (endless(b"HTTP/1.1 200 OK\r\n", b"X: secret\r\n"), "its answer is too long"),
        ):
            self.proxy.answer = answer
            found = await self.cause(self.server, self.address)
            self.assertEqual(f"the proxy {self.address}: {text}", found)
            await self.proxy.connections[-1].lost

    async def test_it_closes(self) -> None:
        for piece in (b"", b"HTTP/1.1 200"):
            self.proxy.answer = cut(piece)
            found = await self.cause(self.server, self.address)
            self.assertEqual(f"the proxy {self.address} closed the connection", found)

    async def test_it_does_not_listen(self) -> None:
        for server in (self.server, self.serve(tls=False)):
            found = await self.cause(server, "127.0.0.1:1")
            self.assertIn("the proxy 127.0.0.1:1: ConnectionRefusedError", found)

    async def test_cancelling_closes_the_connection(self) -> None:
        self.proxy.answer = start(b"HTTP/1.1 200")
        requested = self.proxy.next_request()
        getting = self.get(self.server, self.address)
        connection = await requested
        getting.cancel()
        await self.assertFailure(getting, CancelledError)
        await connection.lost
