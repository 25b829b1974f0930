"""Headers of the PROXY protocol, as they come through networks and from a real haproxy."""

import socket
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from odingw.web.endpoints import listener
from tests.process import GatewayProcess
from tests.proxies import Haproxy
from tests.test_limits import line_1, line_2

_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0"
_LONG = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\x00" + line_2("192.0.2.7")[16:] + bytes(4096 - 12)

HEADERS = {
    line_1("192.0.2.7"): "192.0.2.7",
    line_1("2001:db8::7"): "2001:db8::7",
    line_2("192.0.2.7"): "192.0.2.7",
    b"PROXY UNKNOWN\r\n": "192.168.1.1",
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n": "192.168.1.1",
    _LOCAL: "192.168.1.1",
}
"""Headers, and whose connection it is then; the balancer is 192.168.1.1."""


class Talk(Protocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.got = b""

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        self.got += data


class PieceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.memory: Any = MemoryReactorClock()
        endpoint: Any = listener(self.memory, "haproxy:tcp:1", tls=None, header_timeout=7).endpoint
        endpoint.listen(Factory.forProtocol(Talk))
        self.factory: Any = self.memory.tcpServers[0][1]

    def connect(self) -> Any:
        self.wrapper: Any = self.factory.buildProtocol(None)
        self.transport: Any = StringTransportWithDisconnection()
        self.transport.protocol = self.wrapper
        self.wrapper.makeConnection(self.transport)
        return self.wrapper.wrappedProtocol

    def peer(self, talk: Any) -> str:
        host: str = talk.transport.getPeer().host
        return host

    def test_cut_anywhere(self) -> None:
        for header, peer in HEADERS.items():
            for at in range(len(header) + 1):
                talk = self.connect()
                for piece in (header[:at], header[at:] + b"GET", b" /"):
                    if piece:
                        self.wrapper.dataReceived(piece)
                self.assertEqual((b"GET /", peer), (talk.got, self.peer(talk)), (header, at))
                self.assertEqual([], self.memory.getDelayedCalls())

    def test_byte_by_byte(self) -> None:
        for header, peer in (*HEADERS.items(), (_LONG, "192.0.2.7")):
            talk = self.connect()
            for byte in header + b"GET /":
                self.wrapper.dataReceived(bytes((byte,)))
            self.assertEqual((b"GET /", peer), (talk.got, self.peer(talk)), header[:50])

    def test_one_that_does_not_end_in_time(self) -> None:
        for header in HEADERS:
            talk = self.connect()
            self.memory.advance(100)
            for piece in (header[:1], header[1:5], header[5:-1]):
                self.wrapper.dataReceived(piece)
                self.assertTrue(self.transport.connected)
                self.memory.advance(2)
            self.memory.advance(1)
            self.assertFalse(self.transport.connected, header)
            self.assertEqual((b"", []), (talk.got, self.memory.getDelayedCalls()))

    def test_a_peer_that_goes_in_the_middle(self) -> None:
        self.connect()
        self.wrapper.dataReceived(b"PROXY")
        self.transport.loseConnection()
        self.assertEqual([], self.memory.getDelayedCalls())

    def test_what_is_none_ends_at_once(self) -> None:
        for data in (
            b"G",
            b"PROXI",
            b"PROXY\t",
            b"\r\n\r\nG",
            b"PROXY " + b"x" * 101,
            b"PROXY TCP4\r\n",
            _LOCAL[:14] + b"\xff\xff",
            _LOCAL[:14] + b"\x10\x01",
        ):
            talk = self.connect()
            self.wrapper.dataReceived(data)
            self.assertFalse(self.transport.connected, data)
            self.assertEqual((b"", []), (talk.got, self.memory.getDelayedCalls()))


class HaproxyTests(SynchronousTestCase):
    """A real haproxy, whose clients come over TCP and over a unix socket."""

    def ask(self, wire: socket.socket) -> bytes:
        reply = b""
        with wire:
            wire.settimeout(30)
            wire.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while piece := wire.recv(65536):
                reply += piece
        return reply

    def test_clients_of_all_kinds(self) -> None:
        gateway = GatewayProcess(
            "",
            '[listen]\npublic = ["haproxy:tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\ntrusted_proxies = ["127.0.0.1"]\n'
            '[state]\nurl = "memory:"\n',
        ).start()
        self.addCleanup(gateway.stop)
        for version in ("send-proxy", "send-proxy-v2"):
            haproxy = Haproxy(
                "listen all\n    bind 127.0.0.1:{front}\n    bind unix@{folder}/front\n"
                f"    server gateway 127.0.0.1:{gateway.port} {version}\n"
            ).start()
            self.addCleanup(haproxy.stop)
            tcp = socket.create_connection(("127.0.0.1", haproxy.ports["front"]))
            self.assertIn(b"pong", self.ask(tcp), version)
            unix = socket.socket(socket.AF_UNIX)
            unix.connect(str(haproxy.folder / "front"))
            self.assertIn(b"pong", self.ask(unix), version)
