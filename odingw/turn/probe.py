"""Asking a STUN or TURN server whether it is there (RFC 8489, RFC 8656).

The question is a Binding request. A TURN server that did not answer the last one gets an Allocate
request beside it, since it may serve nothing else (``coturn --no-stun``). That names no transport:
it can only be refused, and no server allocates anything.

Any response shows that the server is alive, an error too: some want credentials even for Binding.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, Literal, TypeAlias, TypeVar

from msgspec import Struct
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.turn import stun
from odingw.turn.certificates import Certificate, JudgingTls
from odingw.turn.stun import TRANSACTION_BYTES, Address, Framer, Kind, Message, Method

T = TypeVar("T")

Answer: TypeAlias = tuple[int, Certificate | None]
"""The method that was answered, and the server's certificate."""

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
        binds: whether a Binding request was answered, and not just Allocate.
        certificate: what it showed; None: it speaks no TLS, or there was no answer.
    """

    rtt: float | None
    cause: str = ""
    binds: bool = True
    certificate: Certificate | None = None


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
        self._unbound: set[Place] = set()

    async def ask(self, place: Place, *, turn: bool = False) -> Outcome:
        """Ask at all addresses of a server; the first answer counts.

        Args:
            place: the server.
            turn: whether it is a TURN server, for which an answer to Allocate is enough.
        """
        try:
            hosts = await self._bounded(self._resolver.look_up(place.host))
        except TimeoutError:
            return Outcome(None, "looking up its name takes too long")
        if not hosts:
            return Outcome(None, "its name has no address")
        ask = self._ask_datagram if place.transport == "udp" else self._ask_stream
        started = self._reactor.seconds()
        asked = [self._bounded(Deferred.fromCoroutine(ask(place, host, turn))) for host in hosts]
        first = await DeferredList(asked, fireOnOneCallback=True)
        rtt = max(0.0, self._reactor.seconds() - started)
        for one in asked:
            one.cancel()
        every = await DeferredList(asked, consumeErrors=True)
        if isinstance(first, tuple):
            method, certificate = first[0]
            if method == Method.BINDING:
                self._unbound.discard(place)
                return Outcome(rtt, certificate=certificate)
            return Outcome(rtt, binds=False, certificate=certificate)
        self._unbound.add(place)
        return Outcome(None, _cause(every[0][1]))

    async def close(self) -> None:
        """Close the sockets; what was asked must have ended."""
        closed = [socket.close() for socket in self._sockets.values() if socket.open]
        self._sockets.clear()
        await DeferredList(closed)

    def _bounded(self, deferred: Deferred[T]) -> Deferred[T]:
        return deferred.addTimeout(TRIES * self._timeout, self._reactor, _too_late)

    def _requests(self, place: Place, turn: bool) -> list[Message]:
        both = turn and place in self._unbound
        methods = (Method.BINDING, Method.ALLOCATE) if both else (Method.BINDING,)
        return [
            Message(Kind.REQUEST, method, self._random_bytes(TRANSACTION_BYTES))
            for method in methods
        ]

    async def _ask_datagram(self, place: Place, host: str, turn: bool) -> Answer:
        requests, address = self._requests(place, turn), (host, place.port)
        socket = self._socket("::" if ":" in host else "0.0.0.0")  # noqa: S104  -- see `_socket`
        answered = socket.ask(requests, address)
        again = self._reactor.callLater(self._timeout, socket.send, requests, address)
        try:
            return await answered, None
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

    async def _ask_stream(self, place: Place, host: str, turn: bool) -> Answer:
        conversation = _Conversation(self._requests(place, turn))
        inner: Any = Factory.forProtocol(lambda: conversation)
        inner.noisy = False
        factory, tls = inner, None
        if place.transport == "tls":
            tls = JudgingTls(place.host)
            creator: Any = tls
            factory = TLSMemoryBIOFactory(creator, True, inner, self._reactor)
        endpoint = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        outer = await endpoint(self._reactor, host, place.port).connect(factory)
        try:
            method = await conversation.answered
            certificate = tls.certificate() if tls else None
            # TLS says goodbye, but the peer's goodbye is not waited for.
            conversation.transport.loseConnection()
            outer.transport.loseConnection()
        except Exception:
            conversation.abort()
            raise
        finally:
            await conversation.closed
        return method, certificate


class _Question(Struct, frozen=True):
    """A request that waits for its answer, and those that need none once it has one."""

    requests: Sequence[Message]
    request: Message
    address: Address
    answered: Deferred[int]


class _Datagrams(DatagramProtocol):
    """A UDP socket over which servers are asked.

    Attributes:
        open: whether it can be used.
    """

    noisy = False
    transport: Any

    def __init__(self) -> None:
        self.open = True
        self._asked: dict[bytes, _Question] = {}

    def ask(self, requests: Sequence[Message], address: Address) -> Deferred[int]:
        """Send requests, and fire with the method of the first that is answered."""
        answered: Deferred[int] = Deferred(lambda _: self._forget(requests))
        for request in requests:
            self._asked[request.transaction] = _Question(requests, request, address, answered)
        self.send(requests, address)
        return answered

    def send(self, requests: Sequence[Message], address: Address) -> None:
        """Send requests."""
        for request in requests:
            with suppress(OSError):  # what cannot be reached now may be in a moment
                self.transport.write(stun.encode(request), address)

    def _forget(self, requests: Sequence[Message]) -> None:
        for request in requests:
            del self._asked[request.transaction]

    def close(self) -> Deferred[object]:
        """Close it."""
        return maybeDeferred(self.transport.stopListening)

    def datagramReceived(self, data: bytes, address: Address) -> None:  # noqa: N802  -- Twisted's
        """Take an answer, if it is one."""
        with suppress(ValueError):
            message = stun.decode(data)
            asked = self._asked.get(message.transaction)
            if asked and address == asked.address and _answers(message, asked.request):
                self._forget(asked.requests)
                asked.answered.callback(message.method)

    def stopProtocol(self) -> None:  # noqa: N802  -- Twisted's name
        """Take note of the end, which may also come by itself."""
        self.open = False


class _Conversation(Protocol):
    """A connection on which a server is asked.

    Attributes:
        answered: fires with the method of the first answer, or fails when the connection ends
            without one.
        closed: fires when the connection has ended; cancelling it aborts the connection.
    """

    transport: Any

    def __init__(self, requests: Sequence[Message]) -> None:
        self._requests = requests
        self._framer = Framer()
        self.answered: Deferred[int] = Deferred()
        self.closed: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:  # noqa: N802  -- Twisted's name
        """Ask."""
        self.transport.write(b"".join(map(stun.encode, self._requests)))

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  -- likewise
        """Look for the answer."""
        try:
            for frame in self._framer.feed(data):
                message = stun.decode(frame)
                answers = any(_answers(message, request) for request in self._requests)
                if answers and not self.answered.called:
                    self.answered.callback(message.method)
        except ValueError:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  -- likewise
        """Take the end."""
        if not self.answered.called:
            self.answered.errback(reason)
        if not self.closed.called:  # as it is when it was cancelled
            self.closed.callback(None)

    def abort(self) -> None:
        """Close the connection, if it is not closed yet, without any goodbye."""
        if not self.closed.called:
            self.transport.abortConnection()


def _answers(message: Message, request: Message) -> bool:
    """Tell whether this is a response to a request; what cannot be granted must be refused."""
    plausible = request.method == Method.BINDING or message.kind == Kind.ERROR
    return plausible and message.answers(request)


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
