"""The Site: what all connections of one role share, and the limits they are held to."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.server import Site

from odingw.config import Limits, Trusted
from odingw.errors import RpcError
from odingw.web.address import block_of, parse_address, within
from odingw.web.app import Root
from odingw.web.channel import GatewayChannel, GatewayRequest
from odingw.web.deadlines import Deadlines
from odingw.web.delivery import Timer

_SWEEP: Final = 1.0

_FIRST_REQUEST: Final = 1.0
"""Seconds that a new connection is given for its first request when the gateway ends."""

_log = Logger()

_AT_ONCE: Final = 200
"""How many connections are dropped in one step of the reactor, which others wait for."""


class _TurnedAway(Protocol):
    """A connection that is one too many."""

    def connectionMade(self) -> None:  # noqa: N802  -- Twisted's name
        """Cut it."""
        transport: Any = self.transport
        transport.abortConnection()


class GatewaySite(Site):
    """Serves one resource under the configured limits.

    Args:
        resource: the root.
        limits: ``[limits]`` of the configuration.
        reactor: for time-outs.
        proxied: whether connections come through a PROXY line.
        trusted: proxies, whose connections are not counted by address.
        public: whether browsers may call from any origin; not so for admin and servers.
        check_server: raises ``RpcError`` if a request (and whether it came through a PROXY line)
            may not call the server API; None: that API is not served.

    Attributes:
        closing: set to answer every request with ``Connection: close``.
        head, body: what a connection waits in, and how long: for the head or the body of a request.
        counts_late: whether a proxy tells after the connection is made whose it is.
        linger: seconds to wait for a peer to close.
        short_cuts: what answers which method and path without a search among the routes.
        silence: connections that may not be silent for ever.
    """

    protocol = GatewayChannel  # type: ignore[assignment]  # Twisted names its own wrapper there
    requestFactory = GatewayRequest  # noqa: N815  -- Twisted's name
    linger = 2.0

    def __init__(
        self,
        resource: Root,
        limits: Limits,
        reactor: Timer,
        *,
        proxied: bool = False,
        trusted: Sequence[Trusted] = (),
        public: bool = True,
        check_server: Callable[[GatewayRequest, bool], object] | None = None,
    ) -> None:
        super().__init__(
            resource,
            timeout=limits.idle_timeout,
            reactor=reactor,
            parsePOSTFormSubmission=False,
        )
        self.timer = reactor
        self.limits = limits
        self.proxied = proxied
        self._trusted = trusted
        self.counts_late = proxied and limits.connections_per_address > 0
        self._public = public
        self._check_server = check_server
        self.closing = False
        self.channels: set[GatewayChannel] = set()
        self._by_address: Counter[str] = Counter()
        self.short_cuts = resource.short_cuts
        self.silence: Deadlines[GatewayChannel] = Deadlines(reactor.seconds)
        late: Deadlines[GatewayChannel] = Deadlines(reactor.seconds)
        self._late = late
        self.head = (late, limits.header_timeout)
        self.body = (late, limits.body_timeout)
        self._held = 0
        self._holders: dict[GatewayChannel, None] = {}
        self._sweep_on: Any = None
        self._last_call: Any = None
        self._turns: deque[Callable[[], object]] = deque()
        self._waiting: Deferred[None] | None = None
        self._serving = False
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = self.reactor

    def startFactory(self) -> None:  # noqa: N802  -- Twisted's name
        """Begin to serve."""
        super().startFactory()
        self._serving = True
        self._sweeper.start(_SWEEP, now=False)

    def stopFactory(self) -> None:  # noqa: N802  -- Twisted's name
        """Take no more connections; those that are there end as they would have."""
        self._serving = False
        self._check_idle()
        super().stopFactory()

    def log(self, request: Any) -> None:
        """Write no access log: metrics count requests, notable calls have lines of their own."""

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: N802  -- Twisted's name
        """Take a connection, or turn it away if there are too many."""
        host = self._counted(addr)
        if len(self.channels) >= self.limits.connections or self._is_full(host):
            # None would do, but not within TLS or behind a PROXY line.
            return _TurnedAway()
        channel = super().buildProtocol(addr)
        self.channels.add(channel)
        self._count(channel, host)
        return channel

    def connection_ended(self, channel: GatewayChannel) -> None:
        """Take note that a connection is gone."""
        self.channels.discard(channel)
        host = channel.host
        if host:
            self._by_address[host] -= 1
            if not self._by_address[host]:
                del self._by_address[host]
        self._check_idle()

    def body_limit(self, request: GatewayRequest, target: bytes, length: int | None) -> int:
        """Return how many bytes a request may hold; large reports are for those who may report.

        Args:
            request: its headers are known.
            target: path and query.
            length: of the body, if it is known already.
        """
        small = self.limits.body
        if length is not None and length <= small:
            return small
        if self._check_server is None or not _is_server_api(target.partition(b"?")[0]):
            return small
        try:
            self._check_server(request, self.proxied)
        except RpcError:
            return small
        return self.limits.report_body

    def is_internal(self, path: bytes) -> bool:
        """Tell whether web pages of other origins have no business with a path."""
        return not self._public or _is_server_api(path)

    def hold(self, channel: GatewayChannel, size: int) -> None:
        """Take note of how much a connection holds, and make room if that is too much.

        Who has held something for longest must go. Those who mean well send all in a moment, so it
        is hardly ever one of them, however much others send.
        """
        self._held += size - channel.held
        channel.held = size
        if not size:
            del self._holders[channel]
            return
        self._holders[channel] = None
        while self._held > self.limits.unfinished_bytes:
            next(iter(self._holders)).give_up()

    def in_turn(self, work: Callable[[], object]) -> None:
        """Do something that may take long, one such thing in each turn of the reactor."""
        self._turns.append(work)
        if len(self._turns) == 1:
            self.timer.callLater(0, self._next_turn)

    def finish(self) -> Deferred[None]:
        """Close idle connections now, the others after their replies; fires when all are gone.

        Whoever has just come may have sent a request that is not here yet, and is given time.
        """
        self.closing = True
        self._close_idle([channel for channel in self.channels if not channel.fresh])
        if self.channels:
            self._last_call = self.timer.callLater(
                _FIRST_REQUEST, lambda: self._close_idle(list(self.channels))
            )
        finished = self._waiting = Deferred()
        self._check_idle()
        return finished

    def _close_idle(self, channels: Iterable[GatewayChannel]) -> None:
        for channel in channels:
            if channel.idle:
                channel.loseConnection()

    def abort(self) -> None:
        """Cut all connections."""
        for channel in list(self.channels):
            channel.abort()

    def _next_turn(self) -> None:
        try:
            self._turns[0]()
        finally:
            self._turns.popleft()
            if self._turns:
                self.timer.callLater(0, self._next_turn)

    def _check_idle(self) -> None:
        if self.channels:
            return
        if not self._serving and self._sweeper.running:
            self._sweeper.stop()
            if self._sweep_on is not None:
                self._sweep_on.cancel()
                self._sweep_on = None
        if self._last_call is not None and self._last_call.active():
            self._last_call.cancel()
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def _counted(self, addr: IAddress | None) -> str:
        """Return by what a connection is counted; empty: it is not.

        All connections of a proxy's clients come from the proxy, those to a unix socket from here.
        """
        host = getattr(addr, "host", "")
        if not host or within(parse_address(host), self._trusted):
            return ""
        return block_of(host)

    def _is_full(self, host: str) -> bool:
        most = self.limits.connections_per_address
        return bool(host and most) and self._by_address[host] >= most

    def _count(self, channel: GatewayChannel, host: str) -> None:
        channel.host = host
        if host:
            self._by_address[host] += 1

    def count_late(self, channel: GatewayChannel) -> None:
        """Count a connection by the address that a trusted proxy's PROXY line has told by now."""
        host = self._counted(channel.transport.getPeer())
        if self._is_full(host):
            channel.refused = True
            channel.abort()
        else:
            self._count(channel, host)

    def _sweep(self) -> None:
        if self._sweep_on is not None:
            if self._sweep_on.active():
                self._sweep_on.cancel()
            self._sweep_on = None
        late = list(islice(self._overdue(), _AT_ONCE))
        for channel, give_up in late:
            self._end(channel, give_up)
        if len(late) == _AT_ONCE:
            self._sweep_on = self.timer.callLater(0, self._sweep)

    def _end(self, channel: GatewayChannel, give_up: Callable[[GatewayChannel], None]) -> None:
        try:
            give_up(channel)
        except Exception:
            # A LoopingCall ends at its first exception; watching the others must not.
            _log.failure("a connection that is too late could not be ended")

    def _overdue(self) -> Iterator[tuple[GatewayChannel, Callable[[GatewayChannel], None]]]:
        for channel in self._late.overdue():
            yield channel, GatewayChannel.abort
        for channel in self.silence.overdue():
            if channel.timeOut is not None:
                yield channel, GatewayChannel.timeoutConnection


def _is_server_api(path: bytes) -> bool:
    """Tell whether a path may be one of the server API. With ``%`` in it there is none."""
    return path.endswith(b"/internal") and b"%" not in path
