"""The Site: what all connections of one role share, and the limits they are held to."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import LoopingCall
from twisted.web.resource import Resource
from twisted.web.server import Site

from odingw.config import Limits
from odingw.errors import RpcError
from odingw.web.channel import GatewayChannel, GatewayRequest
from odingw.web.delivery import Timer

_SWEEP: Final = 1.0


class GatewaySite(Site):
    """Serves one resource under the configured limits.

    Args:
        resource: the root.
        limits: ``[limits]`` of the configuration.
        reactor: for time-outs.
        proxied: whether connections come through a PROXY line.
        public: whether browsers may call from any origin; not so for admin and servers.
        check_server: raises ``RpcError`` if a request (and whether it came through a PROXY line)
            may not call the server API; None: that API is not served.

    Attributes:
        closing: set to answer every request with ``Connection: close``.
        linger: seconds to wait for a peer to close.
    """

    protocol = GatewayChannel  # type: ignore[assignment]  # Twisted names its own wrapper there
    requestFactory = GatewayRequest  # noqa: N815  -- Twisted's name
    linger = 2.0

    def __init__(
        self,
        resource: Resource,
        limits: Limits,
        reactor: Timer,
        *,
        proxied: bool = False,
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
        self._public = public
        self._check_server = check_server
        self.closing = False
        self.channels: set[GatewayChannel] = set()
        self.busy: set[GatewayChannel] = set()
        self._by_address: Counter[str] = Counter()
        self._headers_since: dict[GatewayChannel, float] = {}
        self._waiting: Deferred[None] | None = None
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = self.reactor

    def startFactory(self) -> None:  # noqa: N802  -- Twisted's name
        """Begin to serve."""
        super().startFactory()
        self._sweeper.start(_SWEEP, now=False)

    def stopFactory(self) -> None:  # noqa: N802  -- Twisted's name
        """End to serve."""
        if self._sweeper.running:
            self._sweeper.stop()
        super().stopFactory()

    def log(self, request: Any) -> None:
        """Write no access log: metrics count requests, notable calls have lines of their own."""

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: N802  -- Twisted's name
        """Take a connection, or turn it away if there are too many."""
        # Behind a proxy, and on a unix socket, all connections come from one place.
        host = "" if self.proxied else getattr(addr, "host", "")
        most = self.limits.connections_per_address
        if len(self.channels) >= self.limits.connections or (
            host and most and self._by_address[host] >= most
        ):
            return None
        channel = super().buildProtocol(addr)
        channel.host = host
        self.channels.add(channel)
        self._by_address[host] += 1
        return channel

    def connection_ended(self, channel: GatewayChannel) -> None:
        """Take note that a connection is gone."""
        self.channels.discard(channel)
        self._by_address[channel.host] -= 1
        if not self._by_address[channel.host]:
            del self._by_address[channel.host]
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

    def headers_begin(self, channel: GatewayChannel) -> None:
        """Take note that a request has begun to come in."""
        self._headers_since[channel] = self.timer.seconds()

    def headers_end(self, channel: GatewayChannel) -> None:
        """Take note that a request's headers are complete."""
        self._headers_since.pop(channel, None)

    def finish(self) -> Deferred[None]:
        """Close idle connections now, the others after their replies; fires when all are gone."""
        self.closing = True
        for channel in [channel for channel in self.channels if channel.idle]:
            channel.loseConnection()
        finished = self._waiting = Deferred()
        self._check_idle()
        return finished

    def abort(self) -> None:
        """Cut all connections."""
        for channel in list(self.channels):
            channel.abort()

    def _check_idle(self) -> None:
        if self._waiting is not None and not self.channels:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def _sweep(self) -> None:
        late = self.timer.seconds() - self.limits.header_timeout
        while self._headers_since:
            channel, since = next(iter(self._headers_since.items()))
            if since > late:
                return
            del self._headers_since[channel]
            channel.abort()


def _is_server_api(path: bytes) -> bool:
    return unquote_to_bytes(path).endswith(b"/internal")
