"""Watching TURN servers over real sockets on loopback."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trustme
from OpenSSL import SSL
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import DeferredQueue
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.turn.stun import Address, Attribute, Framer, Kind, Message, Method, decode, encode
from odingw.turn.watch import ServerWatch
from tests.turn_net import Log, answer, uris

reactor: Any = global_reactor


class TcpServer(Protocol):
    """A STUN server over TCP that does as its factory says."""

    transport: Any
    factory: Any

    def connectionMade(self) -> None:  # noqa: N802  -- Twisted's name
        self.factory.connections.add(self)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  -- likewise
        for piece in self.factory.reply(data):
            self.transport.write(piece)
        if self.factory.hangs_up:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  -- likewise
        self.factory.connections.remove(self)
        self.factory.lost.put(reason.value)


@implementer(IOpenSSLContextFactory)
class Certified:
    """The TLS settings of a server with a certificate that nobody trusts."""

    def __init__(self, host: str) -> None:
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        trustme.CA().issue_cert(host).configure_cert(self.context)

    def getContext(self) -> SSL.Context:  # noqa: N802  -- Twisted's name
        return self.context


def honest(data: bytes) -> Sequence[bytes]:
    return [answer(decode(frame)) for frame in Framer().feed(data)]


class UdpServer(DatagramProtocol):
    """A STUN server over UDP."""

    transport: Any

    def __init__(self) -> None:
        self.asked: DeferredQueue[Address] = DeferredQueue()

    def datagramReceived(self, data: bytes, address: Address) -> None:  # noqa: N802  -- likewise
        self.transport.write(b"garbage", address)
        self.transport.write(answer(decode(data)), address)
        self.asked.put(address)


class SocketTests(TestCase):
    """Real sockets on loopback, and rounds that follow each other closely."""

    timeout = 60

    def setUp(self) -> None:
        self.log = Log()
        self.changes: DeferredQueue[list[bool]] = DeferredQueue()

    def watch(self, *texts: str, timeout: float = 1.0) -> ServerWatch:
        watch = ServerWatch(
            uris(*texts),
            reactor,
            interval=0.01,
            timeout=timeout,
            failures=1,
            random_bytes=os.urandom,
            log=self.log.logger,
            on_change=lambda: self.changes.put([one.up for one in watch.health()]),
        )
        watch.start()
        self.addCleanup(watch.stop)
        return watch

    def listen(
        self,
        reply: Callable[[bytes], Sequence[bytes]] = honest,
        *,
        hangs_up: bool = False,
        tls: Any = None,
        interface: str = "127.0.0.1",
    ) -> tuple[int, Any]:
        """Start a TCP server, and return its port and its factory.

        Args:
            reply: what it sends, piece by piece, for what it is sent.
            hangs_up: whether it closes the connection then.
            tls: the settings of TLS, or None.
            interface: where it listens.
        """
        factory: Any = Factory.forProtocol(TcpServer)
        factory.reply, factory.hangs_up = reply, hangs_up
        factory.connections, factory.lost = set(), DeferredQueue()
        if tls is None:
            port = reactor.listenTCP(0, factory, interface=interface)
        else:
            port = reactor.listenSSL(0, factory, tls, interface=interface)
        self.addCleanup(port.stopListening)
        return port.getHost().port, factory

    async def test_udp(self) -> None:
        server = UdpServer()
        port = reactor.listenUDP(0, server, interface="127.0.0.1")
        number = port.getHost().port
        watch = self.watch(f"turn:127.0.0.1:{number}", f"turn:localhost:{number}")
        clients = {await server.asked.get() for _ in range(10)}
        self.assertEqual(len(clients), 1)
        self.assertEqual([one.up for one in watch.health()], [True, True])
        await port.stopListening()
        self.assertEqual(sorted(await self.changes.get()), [False, True])
        self.assertEqual(await self.changes.get(), [False, False])
        port = reactor.listenUDP(number, server, interface="127.0.0.1")
        self.addCleanup(lambda: port.stopListening())
        await self.changes.get()
        self.assertEqual(await self.changes.get(), [True, True])

    async def test_udp_over_ipv6(self) -> None:
        server = UdpServer()
        port = reactor.listenUDP(0, server, interface="::1")
        watch = self.watch(f"turn:[::1]:{port.getHost().port}")
        for _ in range(3):
            await server.asked.get()
        self.assertEqual([one.up for one in watch.health()], [True])
        self.assertIsNotNone(watch.health()[0].rtt)
        await port.stopListening()
        self.assertEqual(await self.changes.get(), [False])

    async def test_tcp(self) -> None:
        for interface, host in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
            port, factory = self.listen(interface=interface)
            watch = self.watch(f"turn:{host}:{port}?transport=tcp")
            for _ in range(3):
                self.assertIsInstance(await factory.lost.get(), ConnectionDone)
            await watch.stop()
            self.assertEqual([one.up for one in watch.health()], [True])
            self.assertIsNotNone(watch.health()[0].rtt)
            self.assertEqual(self.changes.pending, [])

    async def test_tcp_in_pieces_and_with_other_messages_first(self) -> None:
        def reply(data: bytes) -> Sequence[bytes]:
            other = encode(Message(Kind.SUCCESS, Method.BINDING, bytes(12)))
            software = ((Attribute.SOFTWARE, b"x" * 100),)
            id_ = decode(data).transaction
            right = encode(Message(Kind.SUCCESS, Method.BINDING, id_, software), fingerprint=True)
            stream = other + right + right
            return [stream[start : start + 7] for start in range(0, len(stream), 7)]

        port, factory = self.listen(reply)
        watch = self.watch(f"turn:127.0.0.1:{port}?transport=tcp")
        await factory.lost.get()
        await watch.stop()
        self.assertEqual([one.up for one in watch.health()], [True])

    async def test_tcp_servers_that_do_not_answer(self) -> None:
        def other(data: bytes) -> Sequence[bytes]:
            return [encode(Message(Kind.SUCCESS, Method.BINDING, decode(data).transaction[::-1]))]

        for reply, hangs_up, cause in (
            (lambda _: [], False, "no answer within 0.2 s"),
            (other, False, "no answer within 0.2 s"),
            (lambda data: [honest(data)[0][:-1]], False, "no answer within 0.2 s"),
            (lambda _: [b"HTTP/1.1 400 Bad Request"], True, "Connection was closed cleanly"),
            (lambda _: [b"\xff" * 100_000], False, "Connection was aborted locally using"),
        ):
            port, factory = self.listen(reply, hangs_up=hangs_up)
            uri = f"turn:127.0.0.1:{port}?transport=tcp"
            watch = self.watch(uri, timeout=0.1)
            self.assertEqual(await self.changes.get(), [False])
            await watch.stop()
            await factory.lost.get()
            self.assertEqual(factory.connections, set())
            [line] = self.log.lines()
            self.assertTrue(line.startswith(f"warn: {uri} does not answer: {cause}"), line)

    async def test_a_closed_port(self) -> None:
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        self.watch(f"turn:127.0.0.1:{number}?transport=tcp")
        self.assertEqual(await self.changes.get(), [False])
        self.assertIn("Connection was refused by other side", self.log.lines()[0])

    async def test_tls_with_a_certificate_that_nobody_trusts(self) -> None:
        names: list[bytes | None] = []
        tls = Certified("elsewhere.example")
        tls.context.set_tlsext_servername_callback(
            lambda connection: names.append(connection.get_servername())
        )
        port, factory = self.listen(tls=tls)
        for host, name in (("localhost", b"localhost"), ("127.0.0.1", None)):
            names.clear()
            watch = self.watch(f"turns:{host}:{port}")
            for _ in range(3):
                await factory.lost.get()
            await watch.stop()
            self.assertEqual([one.up for one in watch.health()], [True])
            self.assertEqual(set(names), {name} if name else {None})

    async def test_tls_servers_that_do_not_answer(self) -> None:
        options = Certified("127.0.0.1")
        for reply, tls, cause in (
            (lambda _: [], options, "no answer within 0.2 s"),
            (lambda _: [], None, "no answer within 0.2 s"),
            (lambda _: [b"HTTP/1.1 400 Bad Request"], None, "[('SSL routines'"),
        ):
            port, factory = self.listen(reply, tls=tls)
            uri = f"turns:127.0.0.1:{port}"
            watch = self.watch(uri, timeout=0.1)
            self.assertEqual(await self.changes.get(), [False])
            await watch.stop()
            await factory.lost.get()
            self.assertEqual(factory.connections, set())
            [line] = self.log.lines()
            self.assertTrue(line.startswith(f"warn: {uri} does not answer: {cause}"), line)

    async def test_no_sockets_are_left_behind(self) -> None:
        """Whatever the servers do, the number of open sockets does not grow with the rounds."""
        silent, silent_factory = self.listen(lambda _: [])
        tcp, tcp_factory = self.listen()
        server = UdpServer()
        port = reactor.listenUDP(0, server, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        before = open_sockets()
        watch = self.watch(
            f"turn:127.0.0.1:{port.getHost().port}",
            f"turn:127.0.0.1:{tcp}?transport=tcp",
            f"turn:127.0.0.1:{silent}?transport=tcp",
            f"turns:127.0.0.1:{silent}",
            timeout=0.01,
        )
        for _ in range(20):
            await silent_factory.lost.get()
            await tcp_factory.lost.get()
        await watch.stop()
        while open_sockets() > before:  # the servers' sides end a little later
            await deferLater(reactor, 0)


def open_sockets() -> int:
    """Return how many sockets this process has open."""
    return sum(path.is_socket() for path in Path("/proc/self/fd").iterdir())
