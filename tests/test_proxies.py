"""Real nginx and haproxy before a gateway: nobody gets a private key through them."""

import atexit
import json
import socket
import ssl
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import trustme
from twisted.trial.unittest import SynchronousTestCase

from tests.process import ACCESS_KEY, GatewayProcess, customer, free_port, token
from tests.proxies import NGINX_DEFAULTS, Haproxy, Nginx, Proxy, documented, program
from tests.smuggling.http2 import fields, is_over, talk
from tests.test_internal import DefaultProcess
from tests.test_smuggling import KEY, statuses

_PATIENCE: Final = 30.0

USERS: Final = '[gateway.internal]\nusers = { odin = "a long password" }\n'
CONSENT: Final = '[gateway.internal]\nallow = ["127.0.0.0/8"]\n'
_POOLS: Final = 'pools = { available = ["eu"], default = "eu" }\n'

_TARGETS: Final = {"tcp": "127.0.0.1:{gateway}", "unix": "unix:{socket}:"}
_HOSTS: Final = {
    "": "",
    "_host": "proxy_set_header Host $host;",
    "_http_host": "proxy_set_header Host $http_host;",
    "_fixed": "proxy_set_header Host localhost;",
}
_NGINX: Final = {
    f"{kind}{name}": f"location / {{ {NGINX_DEFAULTS} {host} proxy_pass http://{target}; }}"
    for kind, target in _TARGETS.items()
    for name, host in _HOSTS.items()
}
"""Servers of nginx, as it comes from 1.29.7 on, by the name of their port."""

_HAPROXY: Final = {
    "http": "server gateway 127.0.0.1:{gateway}",
    "http_unix": "server gateway unix@{socket}",
    "http_reused": "http-reuse always\n    server gateway 127.0.0.1:{gateway}",
    "raw": "mode tcp\n    server gateway 127.0.0.1:{gateway}",
    "raw_unix": "mode tcp\n    server gateway unix@{socket}",
    "proxy": "server gateway 127.0.0.1:{proxied} send-proxy",
    "proxy_v2": "server gateway 127.0.0.1:{proxied} send-proxy-v2",
    "raw_proxy_v2": "mode tcp\n    server gateway 127.0.0.1:{proxied} send-proxy-v2",
    "h2": "server gateway 127.0.0.1:{gateway}",
}
"""Parts of haproxy that leave no trace but PROXY lines, by the name of their port."""

_LEAVE_A_TRACE: Final = frozenset(("proxy", "proxy_v2", "raw_proxy_v2"))


def listen(proxied: int) -> str:
    """Return ``[listen]`` with a TCP port, a unix socket and an endpoint with PROXY lines."""
    return (
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1", "unix:{folder}/public", '
        f'"haproxy:tcp:{proxied}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[state]\nurl = "memory:"\n'
    )


class Fronts:
    """A gateway with every kind of proxy before it.

    Args:
        make: a gateway that is not started, from ``[gateway]`` and what stands before.
        gateway: TOML of the ``[gateway]`` table.
    """

    def __init__(self, make: Callable[[str, str], GatewayProcess], gateway: str) -> None:
        for kind in (Nginx, Haproxy):
            program(kind.name)
        proxied = free_port()
        self.gateway = make(_POOLS + gateway + customer(), listen(proxied))
        atexit.register(self.gateway.stop)
        self.gateway.start()
        where = {
            "{gateway}": str(self.gateway.port),
            "{proxied}": str(proxied),
            "{socket}": str(self.gateway.folder / "public"),
        }
        self.ports: dict[str, int] = {}
        for kind_of, parts, text in (
            (Nginx, _NGINX, "server {{ listen 127.0.0.1:{{{name}}}; {part} }}\n"),
            (
                Haproxy,
                _HAPROXY,
                "listen {name}\n    bind 127.0.0.1:{{{name}}}{more}\n    {part}\n",
            ),
        ):
            whole = "".join(
                text.format(name=name, part=part, more=" proto h2" if name == "h2" else "")
                for name, part in parts.items()
            )
            for mark, value in where.items():
                whole = whole.replace(mark, value)
            self._start(kind_of, whole, tuple(parts))

    def _start(self, kind: type[Proxy], text: str, ports: tuple[str, ...]) -> None:
        proxy = kind(text, ports)
        atexit.register(proxy.stop)
        self.ports.update(proxy.start().ports)

    def ask(self, name: str, request: "Request") -> bytes:
        """Send a request to a proxy and return all that comes back."""
        if name == "h2":
            return exchange(self.ports[name], request.http2(), is_over)
        return exchange(self.ports[name], request.http1())


class Request:
    """A POST.

    Args:
        body: its body.
        path: what it asks for.
        host: by what name.
        lines: further headers.
    """

    def __init__(
        self,
        body: bytes,
        path: bytes = b"/internal",
        host: bytes = b"127.0.0.1",
        *lines: tuple[bytes, bytes],
    ) -> None:
        self._body, self._path, self._host, self._lines = body, path, host, lines

    def http1(self) -> bytes:
        """Return it as HTTP/1.1."""
        lines = [
            (b"Host", self._host),
            (b"Connection", b"close"),
            (b"Content-Length", b"%d" % len(self._body)),
            *self._lines,
        ]
        head = b"".join(b"%s: %s\r\n" % line for line in lines)
        return b"POST %s HTTP/1.1\r\n%s\r\n%s" % (self._path, head, self._body)

    def http2(self) -> bytes:
        """Return it as HTTP/2."""
        lines = [(name.lower(), value) for name, value in self._lines]
        return talk([*fields(path=self._path, authority=self._host), *lines], self._body)


def exchange(port: int, data: bytes, is_over: Callable[[bytes], bool] = lambda _: False) -> bytes:
    """Send bytes and return what comes back until the peer closes."""
    reply = b""
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as wire:
        wire.sendall(data)
        while not is_over(reply) and (piece := wire.recv(65536)):
            reply += piece
    return reply


def call(method: str, **params: str) -> bytes:
    """Return a call for a server."""
    params = {"version": "1.5.0", "public_endpoint": "sfu.test:4433", **params}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def basic(user: str, password: str) -> tuple[bytes, bytes]:
    """Return the header with credentials."""
    return b"Authorization", b"Basic " + b64encode(f"{user}:{password}".encode())


GRID_CONFIG: Final = call("sfu.GridConfig", config="")


def attempts() -> Iterator[Request]:
    """Yield what a stranger may try."""
    for path in (
        b"/internal",
        b"/eu/internal",
        b"//internal",
        b"/internal/",
        b"/./internal",
        b"/eu/../internal",
        b"/internal?x",
        b"/internal;x",
        b"/Internal",
        b"/%69nternal",
        b"/%2Finternal",
        b"/%2finternal",
        b"/eu%2Finternal",
        b"/eu/%69nternal",
        b"/x/%2e%2e/internal",
        b"/internal%00",
        b"/internal%20",
        b"/internal%3Fx",
        b"/",
        b"/eu/",
    ):
        for host in (b"127.0.0.1", b"localhost", b"voice.example", b"x@127.0.0.1"):
            yield Request(GRID_CONFIG, path, host)
    for target in (b"http://127.0.0.1/internal", b"http://h?/internal", b"http://h/internal"):
        yield Request(GRID_CONFIG, target)
    yield Request(call("GetConfig"))
    for line in (
        (b"X-Forwarded-For", b"127.0.0.1"),
        (b"X-Real-IP", b"127.0.0.1"),
        (b"Forwarded", b"for=127.0.0.1"),
        (b"X-Forwarded-Host", b"127.0.0.1"),
        (b"Origin", b"http://127.0.0.1"),
        (b"Authorization", f"Bearer {token('room', key=ACCESS_KEY)}".encode()),
        (b"Authorization", b"Basic"),
        basic("odin", ""),
        basic("odin", "a wrong password"),
        basic("", "a long password"),
    ):
        yield Request(GRID_CONFIG, b"/internal", b"127.0.0.1", line)


@cache
def defaults() -> Fronts:
    """Return the proxies before a gateway that says nothing of ``/internal``."""
    return Fronts(DefaultProcess, "")


@cache
def with_users() -> Fronts:
    """Return the proxies before a gateway that asks for passwords."""
    return Fronts(GatewayProcess, USERS)


@cache
def with_consent() -> Fronts:
    """Return the proxies before a gateway that trusts whoever is on this host."""
    return Fronts(GatewayProcess, CONSENT)


class PrivateKeyTests(SynchronousTestCase):
    """Through proxies on the gateway's host that leave no trace."""

    def status(self, reply: bytes) -> int:
        """Return the status of an answer over HTTP/1.1."""
        return statuses(reply)[0]

    def check_none(self, fronts: Fronts, status: int) -> None:
        """See that nobody gets a key, and that ``/internal`` itself is answered with a status."""
        plain = Request(GRID_CONFIG)
        for name in fronts.ports:
            reply = fronts.ask(name, plain)
            if name != "h2":
                self.assertEqual(status, self.status(reply), (name, reply))
            for request in attempts():
                reply = fronts.ask(name, request)
                self.assertNotIn(KEY, reply, (name, request.http1()))
                self.assertTrue(reply, (name, request.http1()))

    def test_none_by_default(self) -> None:
        self.check_none(defaults(), 403)

    def test_none_for_those_without_a_password(self) -> None:
        self.check_none(with_users(), 401)

    def test_a_password_opens_it(self) -> None:
        """So the proxies do lead there."""
        for name in with_users().ports:
            request = Request(GRID_CONFIG, b"/internal", b"x", basic("odin", "a long password"))
            self.assertIn(KEY, with_users().ask(name, request), name)

    def test_this_host_is_served_by_default(self) -> None:
        gateway = defaults().gateway
        assert isinstance(gateway, DefaultProcess)
        self.assertIn(KEY, exchange(gateway.internal, Request(GRID_CONFIG).http1()))

    def test_consent_opens_it_to_whoever_leaves_no_trace(self) -> None:
        """What the start warns of, and why it is not so by default; a PROXY line is a trace."""
        for name in with_consent().ports:
            reply = with_consent().ask(name, Request(GRID_CONFIG))
            self.assertEqual(name not in _LEAVE_A_TRACE, KEY in reply, (name, reply))


class DocumentedTests(SynchronousTestCase):
    """The configurations that ``operations.rst`` shows."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="odingw-tls-")
        self.addCleanup(folder.cleanup)
        authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.context)
        certificate = authority.issue_cert("voice.example")
        self.chain, self.key = (Path(folder.name) / name for name in ("chain.pem", "key.pem"))
        self.both = Path(folder.name) / "both.pem"
        self.chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(self.key)
        certificate.private_key_and_cert_chain_pem.write_to_path(self.both)

    def serve(self, listen: str, needs: str) -> GatewayProcess:
        """Start a gateway that trusts this host, so that all depends on the proxy's traces."""
        before = listen + 'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[state]\nurl = "memory:"\n'
        gateway = GatewayProcess(CONSENT + customer(), before)
        self.addCleanup(gateway.stop)
        return gateway.start()

    def ask(self, proxy: Proxy, request: bytes) -> bytes:
        """Send a request to a proxy that has been started, over TLS."""
        reply = b""
        with (
            socket.create_connection(("127.0.0.1", proxy.ports["front"]), _PATIENCE) as raw,
            self.context.wrap_socket(raw, server_hostname="voice.example") as wire,
        ):
            wire.sendall(request)
            while piece := wire.recv(65536):
                reply += piece
        return reply

    def check(self, proxy: Proxy, status: int) -> None:
        """See that clients get through, and nobody gets a key."""
        self.addCleanup(proxy.stop)
        proxy.start()
        ping = b"GET /ping HTTP/1.1\r\nHost: voice.example\r\nConnection: close\r\n\r\n"
        for _ in range(3):
            self.assertTrue(self.ask(proxy, ping).endswith(b"\r\n\r\npong"), proxy.output)
        connect = Request(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "Connect"}).encode(),
            b"/",
            b"voice.example",
            (b"Authorization", f"Bearer {token('room')}".encode()),
        )
        self.assertIn(b'"no_server"', self.ask(proxy, connect.http1()))
        reply = self.ask(proxy, Request(GRID_CONFIG).http1())
        self.assertEqual([status], statuses(reply))
        for request in attempts():
            self.assertNotIn(KEY, self.ask(proxy, request.http1()), request.http1())

    def nginx(self, gateway: GatewayProcess) -> Nginx:
        """Return nginx before a gateway."""
        text = documented(
            "nginx, on the gateway's host",
            {
                "127.0.0.1:7000": f"127.0.0.1:{gateway.port}",
                "listen 443 ssl": "listen 127.0.0.1:{front} ssl",
                "/etc/ssl/voice.example.pem": str(self.chain),
                "/etc/ssl/voice.example.key": str(self.key),
            },
        )
        return Nginx(text)

    def test_nginx(self) -> None:
        gateway = self.serve(
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'trusted_proxies = ["127.0.0.1"]\n',
            "nginx",
        )
        self.check(self.nginx(gateway), 403)

    def test_the_gateway_behind_nginx(self) -> None:
        """Clients come through nginx, and ODIN servers with a password beside it."""
        internal = free_port()
        text = documented(
            "odingw.toml, behind nginx",
            {
                "tcp:7000:": "tcp:{port}:",
                "tcp:7002:interface=10.0.0.11": f"tcp:{internal}:interface=127.0.0.1",
                '"…"': '"a long password"',
                "10.0.0.0/8": "127.0.0.0/8",
            },
        )
        gateway = GatewayProcess(customer(), f'{text}[state]\nurl = "memory:"\n')
        gateway.options = ("--admin", f"tcp:{gateway.admin}:interface=127.0.0.1")
        self.addCleanup(gateway.stop)
        self.check(self.nginx(gateway.start()), 403)
        server = Request(GRID_CONFIG, b"/internal", b"127.0.0.1", basic("odin", "a long password"))
        self.assertIn(KEY, exchange(internal, server.http1()))
        self.assertEqual([401], statuses(exchange(internal, Request(GRID_CONFIG).http1())))

    def test_haproxy(self) -> None:
        gateway = self.serve(
            '[listen]\npublic = ["haproxy:tcp:{port}:interface=127.0.0.1"]\n'
            'trusted_proxies = ["127.0.0.1"]\n',
            "haproxy",
        )
        text = documented(
            "HAProxy, before a fleet",
            {
                "bind :443": "bind 127.0.0.1:{front}",
                "/etc/haproxy/gateway.pem": str(self.both),
                "10.0.0.11:7000 port 7001": f"127.0.0.1:{gateway.port} port {gateway.admin}",
                "10.0.0.12:7000 port 7001": f"127.0.0.1:{gateway.port} port {gateway.admin}",
            },
        )
        self.check(Haproxy(text), 403)
