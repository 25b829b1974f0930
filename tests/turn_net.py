"""A made-up network with STUN servers, and what else the tests of watching them share."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, Logger, formatEvent

from odingw.turn.stun import Address, Kind, Message, decode, encode
from odingw.turn.uris import TurnUri, parse_uri

STEP = 0.25
IPV4, IPV6 = "0.0.0.0", "::"  # noqa: S104  -- what is made up has no interfaces

Server = Callable[[Message, Address], Sequence[tuple[bytes, Address]]]
"""What a made-up server sends for a request to its address: datagrams, and where from."""


def answer(request: Message, kind: Kind = Kind.SUCCESS) -> bytes:
    """Return a response to a request."""
    return encode(Message(kind, request.method, request.transaction))


def alive(request: Message, address: Address) -> Sequence[tuple[bytes, Address]]:
    return [(answer(request), address)]


def dead(_: Message, __: Address) -> Sequence[tuple[bytes, Address]]:
    return []


class Names:
    """A name resolver that answers at once, or when told to."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.held: list[Callable[[], None]] | None = None
        self.asked: list[str] = []

    def resolveHostName(  # noqa: N802  -- Twisted's name
        self, receiver: Any, host: str
    ) -> None:
        self.asked.append(host)

        def resolve() -> None:
            for text in self.known.get(host, ()):
                kind = IPv6Address if ":" in text else IPv4Address
                receiver.addressResolved(kind("TCP", text, 0))
            receiver.resolutionComplete()

        if self.held is None:
            resolve()
        else:
            self.held.append(resolve)


class Socket:
    """A UDP socket of the made-up network."""

    def __init__(self, net: "Net", protocol: DatagramProtocol) -> None:
        self.net = net
        self.protocol = protocol
        self.open = True

    def write(self, data: bytes, address: Address) -> None:
        if not self.open:
            raise AssertionError("the socket is closed")
        self.net.sent.append((decode(data), address))
        if address in self.net.unreachable:
            raise OSError(101, "Network is unreachable")
        server = self.net.servers.get(address, dead)
        for reply, source in server(decode(data), address):
            self.net.callLater(self.net.latency, self._receive, reply, source)

    def _receive(self, data: bytes, source: Address) -> None:
        if self.open:
            self.protocol.datagramReceived(data, source)

    def stopListening(self) -> Deferred[None]:  # noqa: N802  -- Twisted's name
        closed: Deferred[None] = Deferred()
        self.net.callLater(0, self.close)
        self.net.callLater(0, closed.callback, None)
        return closed

    def close(self) -> None:
        self.open = False
        self.protocol.doStop()


class Net(MemoryReactorClock):
    """A reactor with a made-up network of UDP servers."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[Address, Server] = {}
        self.unreachable: set[Address] = set()
        self.latency = STEP
        self.sent: list[tuple[Message, Address]] = []
        self.sockets: list[Socket] = []
        self.families = [IPV4, IPV6]
        self.names = Names()
        resolver: Any = self.names
        self.nameResolver = resolver

    def listenUDP(  # noqa: N802  -- Twisted's name
        self, port: int, protocol: DatagramProtocol, interface: str
    ) -> Socket:
        if interface not in self.families:
            raise CannotListenError(interface, port, OSError("no such family"))
        socket = Socket(self, protocol)
        self.sockets.append(socket)
        transport: Any = socket
        protocol.makeConnection(transport)
        return socket

    def go_on(self, seconds: float) -> None:
        """Let time pass, in steps that show what happens when."""
        self.pump([STEP] * round(seconds / STEP))

    def count(self) -> int:
        """Return how many datagrams have been sent since the last call."""
        sent = len(self.sent)
        self.sent.clear()
        return sent


def uris(*texts: str) -> list[TurnUri]:
    return [parse_uri(text, "turn") for text in texts]


class Log:
    """A log that keeps what it is given.

    Attributes:
        events: what it was given.
        logger: who gives.
    """

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        self.logger = Logger("test", observer=observer)

    def lines(self) -> list[str]:
        """Return the lines with their levels, and forget them."""
        text = [f"{event['log_level'].name}: {formatEvent(event)}" for event in self.events]
        self.events.clear()
        return text
