"""A gateway without its sockets, for one connection at a time; each has a grid of its own."""

import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from odingw.config import load
from odingw.customers import CustomerRefresher
from odingw.customers.directory import static_directory
from odingw.gateway import Gateway
from odingw.tokens import TokenGenerator
from odingw.web.channel import GatewayChannel, GatewayRequest
from odingw.web.site import GatewaySite
from tests.fuzz.rpc import MASTER_KEY, METHODS, ignore, new_store
from tests.grid_books import check_books, check_usage
from tests.process import ACCESS_KEY, customer

TOKEN: Final = TokenGenerator(ACCESS_KEY).create_token(
    "room", "user", now=1_700_000_000, lifetime=2**31, subject=(*METHODS, "turn")
)
"""Good for a lifetime; an input says ``@T`` for it."""

_CONFIG: Final = f"""
[listen]
trusted_proxies = ["127.0.0.1/32"]
[state]
url = "memory:"
[limits]
body = 2000
report_body = 6000
header_bytes = 1500
batch = 8
token = 600
rooms_per_report = 40
[turn]
secret_keys = ["a secret of twenty characters"]
turn_uris = ["turn:turn.test"]
access_keys = true
watch_servers = false
[gateway.internal]
users = {{ sfu = "password" }}
{customer(max_peers=5, max_rooms=3)}
"""

_NOW: Final = 5.0
_PEER: Final = IPv4Address("TCP", "127.0.0.1", 50000)

Seen = tuple[bytes, bytes, bytes]
"""Method, target and body of a request."""


class _Request(GatewayRequest):
    """A request that is kept before it is answered."""

    def process(self) -> None:
        """Keep what is asked."""
        site: Any = self.channel and self.channel.site
        site.seen.append((self.method, self.uri, self.content.getvalue()))
        super().process()


class _Site(GatewaySite):
    requestFactory = _Request  # noqa: N815  -- Twisted's name
    seen: list[Seen]


class Talk(NamedTuple):
    """What went over a connection.

    Attributes:
        reply: all that came back.
        seen: the requests that were carried out.
    """

    reply: bytes
    seen: tuple[Seen, ...]


class Endpoint:
    """An endpoint of a gateway.

    Args:
        roles: what it serves, as `Gateway.root` names it.
    """

    def __init__(self, roles: Collection[str]) -> None:
        self._clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "odingw.toml"
            path.write_text(_CONFIG)
            config = load(path)
        clock: Any = self._clock
        static = static_directory(config.gateway.customers)
        refresher = CustomerRefresher(static, None, 0, clock, Logger("test"))
        self._gateway = Gateway(config, [MASTER_KEY], refresher, "", clock, lambda: _NOW, ignore)
        self.limits = config.limits
        for server in self._gateway._servers.values():
            # They wait for a thread, and have a target of their own.
            for name in ("sfu.GridConfig", "GetConfig"):
                del server._engine._methods[name]
        self._site = _Site(
            self._gateway.root(roles),
            config.limits,
            clock,
            public="public" in roles,
            check_server=self._gateway.server_check(("public", "internal")),
        )

    def talk(self, pieces: Iterable[bytes]) -> Talk:
        """Send pieces over a new connection, with a new grid behind it, then end it."""
        self._renew()
        self._site.seen = []
        peer: Any = _PEER
        channel: Any = self._site.buildProtocol(peer)
        wire = _Wire(channel)
        for piece in pieces:
            wire.receive(piece)
            self._go_on()
        wire.end()
        self._go_on()
        left = self._clock.getDelayedCalls()
        assert not left, f"{left} outlive the connection"
        assert not self._site.channels
        assert not channel.busy
        store: Any = self._gateway.store
        check_usage(store)
        check_books(store.pool(""))
        return Talk(wire.value(), tuple(self._site.seen))

    def _renew(self) -> None:
        """Put new records into the store and the grid that everything holds on to."""
        fresh, store = new_store(), self._gateway.store
        for old, new in ((store.pool(""), fresh.pool("")), (store, fresh)):
            grids = vars(old).get("_grids")
            vars(old).clear()
            vars(old).update(vars(new))
            if grids is not None:
                vars(old)["_grids"] = grids

    def _go_on(self) -> None:
        """Do what has been put off to the reactor's next turns."""
        for _ in range(100):
            calls: Any = self._clock.getDelayedCalls()
            if not any(call.getTime() <= 0 for call in calls):
                return
            self._clock.advance(0)
        raise AssertionError("the work does not end")


class _Wire(StringTransport):
    """A connection that ends when it is told to, but never within a call of the protocol."""

    def __init__(self, channel: GatewayChannel) -> None:
        super().__init__(peerAddress=_PEER)
        self._channel = channel
        self._wanted = self._ended = False
        self._writes = True
        channel.makeConnection(self)

    def write(self, data: bytes) -> None:
        """Send, if that is still possible."""
        if self._writes and not self._ended:
            super().write(data)

    def receive(self, piece: bytes) -> None:
        """Hand over a piece, unless the connection is gone."""
        if not self._ended:
            self._channel.dataReceived(piece)
        if self._wanted:
            self.end()

    def end(self) -> None:
        """End, once."""
        if not self._ended:
            self._ended = True
            self._channel.connectionLost(Failure(ConnectionDone()))

    def loseConnection(self) -> None:  # noqa: N802  -- Twisted's name
        """Take note of the wish to end, after what has been written."""
        self._wanted = True

    def abortConnection(self) -> None:  # noqa: N802  -- Twisted's name
        """Take note of the wish to end at once."""
        self._wanted = True

    def unregisterProducer(self) -> None:  # noqa: N802  -- Twisted's name
        """Forget the producer; a socket does not mind if there is none."""
        if self.producer is not None:
            super().unregisterProducer()

    def loseWriteConnection(self) -> None:  # noqa: N802  -- Twisted's name
        """Send no more."""
        self._writes = False
