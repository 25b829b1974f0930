"""Asking a STUN server whether it is there: one Binding request (RFC 8489) and its response.

Any response shows that the server is alive, an error too: some want credentials even for Binding.
Certificates are not judged. Whether a client trusts one depends on the client, and clients that do
not will say so; what counts here is that somebody answers.
"""

from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, Literal, TypeVar

from msgspec import Struct
from OpenSSL import SSL
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IOpenSSLClientConnectionCreator,
    IResolutionReceiver,
)
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.turn import stun
from odingw.turn.stun import TRANSACTION_BYTES, Address, Framer, Kind, Message, Method

T = TypeVar("T")

TRIES: Final = 2
"""How often UDP is asked; streams get the time of as many tries."""


class Place(Struct, frozen=True):
    """Where a server is asked.

    Attributes:
        host: a name or an IP address.
        port: the port.
        transport: how; ``tls`` is over TCP.
    """

    host: str
    port: int
    transport: Literal["udp", "tcp", "tls"]


class Outcome(Struct, frozen=True):
    """What came of asking.

    Attributes:
        rtt: seconds from the question to the answer, the connection and repetitions included; None:
            there was no answer.
        cause: why not, for people.
    """

    rtt: float | None
    cause: str = ""


class Resolver:
    """Looks up names, with one lookup for each name at a time.

    A lookup that hangs occupies a thread until it ends, and nothing can stop it; so it must not be
    followed by others.

    Args:
        reactor: has the name resolver.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: dict[str, list[Deferred[tuple[str, ...]]]] = {}

    def look_up(self, host: str) -> Deferred[tuple[str, ...]]:
        """Return the addresses that a name has; none where it is unknown or cannot be resolved."""
        address = _literal(host)
        if address is not None:
            return succeed((address,))
        waiting: Deferred[tuple[str, ...]] = Deferred(lambda one: self._forget(host, one))
        if host in self._waiting:
            self._waiting[host].append(waiting)
        else:
            self._waiting[host] = [waiting]
            receiver = _Addresses(lambda found: self._found(host, found))
            self._reactor.nameResolver.resolveHostName(receiver, host)
        return waiting

    def _forget(self, host: str, waiting: Deferred[tuple[str, ...]]) -> None:
        self._waiting[host].remove(waiting)

    def _found(self, host: str, addresses: tuple[str, ...]) -> None:
        for waiting in self._waiting.pop(host):
            waiting.callback(addresses)


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects the addresses of one lookup."""

    def __init__(self, done: Callable[[tuple[str, ...]], None]) -> None:
        self._done = done
        self._found: list[str] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:  # noqa: N802  -- Twisted's name
        """Nothing has been found yet."""

    def addressResolved(self, address: IAddress) -> None:  # noqa: N802  -- likewise
        """Take an address."""
        host: str = address.host  # IPv4Address or IPv6Address
        self._found.append(host)

    def resolutionComplete(self) -> None:  # noqa: N802  -- likewise
        """Take the end."""
        self._done(tuple(dict.fromkeys(self._found)))


class Prober:
    """Asks any number of servers, also at the same time.

    Its UDP sockets, one for each address family, are opened when first needed and stay open:
    Twisted logs every opening and closing. Each stream is a new connection, as a new client's is.

    Args:
        reactor: for sockets, names and timers.
        timeout: seconds after which a UDP request is repeated; there is no answer after `TRIES`
            times as much, which is also what a stream and a lookup get.
        random_bytes: makes transaction ids, which nobody must be able to guess.
    """

    def __init__(self, reactor: Any, timeout: float, random_bytes: Callable[[int], bytes]) -> None:
        self._reactor = reactor
        self._resolver = Resolver(reactor)
        self._timeout = timeout
        self._random_bytes = random_bytes
        self._sockets: dict[str, _Datagrams] = {}

    async def ask(self, place: Place) -> Outcome:
        """Ask at all addresses of a server; the first answer counts."""
        try:
            hosts = await self._bounded(self._resolver.look_up(place.host))
        except TimeoutError:
            return Outcome(None, "looking up its name takes too long")
        if not hosts:
            return Outcome(None, "its name has no address")
        ask = self._ask_datagram if place.transport == "udp" else self._ask_stream
        started = self._reactor.seconds()
        asked = [self._bounded(Deferred.fromCoroutine(ask(place, host))) for host in hosts]
        first = await DeferredList(asked, fireOnOneCallback=True)
        rtt = max(0.0, self._reactor.seconds() - started)
        for one in asked:
            one.cancel()
        every = await DeferredList(asked, consumeErrors=True)
        if isinstance(first, tuple):
            return Outcome(rtt)
        return Outcome(None, _cause(every[0][1]))

    async def close(self) -> None:
        """Close the sockets; what was asked must have ended."""
        closed = [socket.close() for socket in self._sockets.values() if socket.open]
        self._sockets.clear()
        await DeferredList(closed)

    def _bounded(self, deferred: Deferred[T]) -> Deferred[T]:
        return deferred.addTimeout(TRIES * self._timeout, self._reactor, _too_late)

    def _request(self) -> Message:
        return Message(Kind.REQUEST, Method.BINDING, self._random_bytes(TRANSACTION_BYTES))

    async def _ask_datagram(self, place: Place, host: str) -> None:
        request, address = self._request(), (host, place.port)
        socket = self._socket("::" if ":" in host else "0.0.0.0")  # noqa: S104  -- see `_socket`
        answered = socket.ask(request, address)
        again = self._reactor.callLater(self._timeout, socket.send, request, address)
        try:
            await answered
        finally:
            if again.active():
                again.cancel()

    def _socket(self, interface: str) -> "_Datagrams":
        """Return the socket of an address family; only answers of whom it has asked get through."""
        socket = self._sockets.get(interface)
        if socket is None or not socket.open:
            socket = _Datagrams()
            self._reactor.listenUDP(0, socket, interface)
            self._sockets[interface] = socket
        return socket

    async def _ask_stream(self, place: Place, host: str) -> None:
        conversation = _Conversation(self._request())
        inner: Any = Factory.forProtocol(lambda: conversation)
        inner.noisy = False
        factory = inner
        if place.transport == "tls":
            tls: Any = _Tls(place.host)
            factory = TLSMemoryBIOFactory(tls, True, inner, self._reactor)
        endpoint = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        outer = await endpoint(self._reactor, host, place.port).connect(factory)
        try:
            await conversation.answered
            # TLS says goodbye, but the peer's goodbye is not waited for.
            conversation.transport.loseConnection()
            outer.transport.loseConnection()
        except Exception:
            conversation.abort()
            raise
        finally:
            await conversation.closed


class _Datagrams(DatagramProtocol):
    """A UDP socket over which servers are asked.

    Attributes:
        open: whether it can be used.
    """

    noisy = False
    transport: Any

    def __init__(self) -> None:
        self.open = True
        self._asked: dict[bytes, tuple[Message, Address, Deferred[None]]] = {}

    def ask(self, request: Message, address: Address) -> Deferred[None]:
        """Send a request, and fire when it is answered."""
        answered: Deferred[None] = Deferred(lambda _: self._forget(request))
        self._asked[request.transaction] = request, address, answered
        self.send(request, address)
        return answered

    def send(self, request: Message, address: Address) -> None:
        """Send a request."""
        with suppress(OSError):  # what cannot be reached now may be in a moment
            self.transport.write(stun.encode(request), address)

    def _forget(self, request: Message) -> None:
        del self._asked[request.transaction]

    def close(self) -> Deferred[object]:
        """Close it."""
        return maybeDeferred(self.transport.stopListening)

    def datagramReceived(self, data: bytes, address: Address) -> None:  # noqa: N802  -- Twisted's
        """Take an answer, if it is one."""
        with suppress(ValueError):
            message = stun.decode(data)
            asked = self._asked.get(message.transaction)
            if asked is not None and address == asked[1] and message.answers(asked[0]):
                self._forget(message)
                asked[2].callback(None)

    def stopProtocol(self) -> None:  # noqa: N802  -- Twisted's name
        """Take note of the end, which may also come by itself."""
        self.open = False


class _Conversation(Protocol):
    """A connection on which a server is asked once.

    Attributes:
        answered: fires with the answer, or fails when the connection ends without one.
        closed: fires when the connection has ended; cancelling it aborts the connection.
    """

    transport: Any

    def __init__(self, request: Message) -> None:
        self._request = request
        self._framer = Framer()
        self.answered: Deferred[None] = Deferred()
        self.closed: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:  # noqa: N802  -- Twisted's name
        """Ask."""
        self.transport.write(stun.encode(self._request))

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  -- likewise
        """Look for the answer."""
        try:
            for frame in self._framer.feed(data):
                if stun.decode(frame).answers(self._request) and not self.answered.called:
                    self.answered.callback(None)
        except ValueError:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  -- likewise
        """Take the end."""
        if not self.answered.called:
            self.answered.errback(reason)
        self.closed.callback(None)

    def abort(self) -> None:
        """Close the connection, if it is not closed yet, without any goodbye."""
        if not self.closed.called:
            self.transport.abortConnection()


@implementer(IOpenSSLClientConnectionCreator)
class _Tls:
    """TLS without a look at the certificate."""

    _options: Final = CertificateOptions()

    def __init__(self, host: str) -> None:
        self._name = None if _literal(host) else host.rstrip(".").encode("ascii")

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: N802  -- Twisted's
        """Begin TLS, naming the server, for the sake of those who share an address."""
        connection = SSL.Connection(self._options.getContext(), None)
        if self._name is not None:
            connection.set_tlsext_host_name(self._name)
        return connection


def _literal(host: str) -> str | None:
    """An IP address in its canonical text; None for a name."""
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def _too_late(result: object, seconds: float) -> Any:
    if isinstance(result, Failure):
        raise TimeoutError(f"no answer within {seconds:g} s")
    return result


def _cause(failure: Failure) -> str:
    return str(failure.value).rstrip(".") or type(failure.value).__name__
