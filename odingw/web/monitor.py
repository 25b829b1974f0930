"""What the status page shows, as values; the same numbers for programs in ``/monitor/state``."""

from collections.abc import Awaitable, Callable, Iterable
from heapq import nsmallest
from typing import Any, Final, Protocol

from msgspec import Raw, Struct
from msgspec.json import encode
from msgspec.structs import asdict

from odingw import __version__
from odingw.grid.store import PAGE, GridStore, Store
from odingw.grid.values import ServerView
from odingw.ops.health import Health
from odingw.ops.metrics import Metrics
from odingw.rpc.callers import Licence
from odingw.turn.watch import ServerHealth

MOST_CUSTOMERS: Final = 200
"""How many customers the summary names, those nearest to their limits first."""

_MANY_CUSTOMERS: Final = 1000
"""From how many on the summary's are kept for a while: a page that is open asks every second."""

_KEPT: Final = 5.0
"""Seconds for which they are kept."""


class CustomerView(Struct, frozen=True):
    """A customer's licence and what it uses of it.

    Attributes:
        id: the customer's id.
        configured: whether it is a customer; else there is use on its account all the same: it was
            one, or it is a user of the demo mode.
        max_peers: how many peers at a time; None: no limit.
        max_rooms: how many rooms at a time; None: no limit.
        peers: peers that live servers report.
        reservations: clients under way.
        rooms: rooms on live servers.
    """

    id: str
    configured: bool
    max_peers: int | None
    max_rooms: int | None
    peers: int
    reservations: int
    rooms: int

    @property
    def fullness(self) -> float:
        """The larger part of its two limits that is in use; 0 without limits."""
        parts = ((self.peers + self.reservations, self.max_peers), (self.rooms, self.max_rooms))
        return max((used / max(1, limit) for used, limit in parts if limit is not None), default=0)


class RequestCount(Struct, frozen=True):
    """How many calls of a method had an outcome, since the start."""

    api: str
    method: str
    outcome: str
    count: int


class TurnServer(Struct, frozen=True):
    """A TURN or STUN server as the watch sees it.

    Attributes:
        uri: as it is handed out.
        up: whether it is handed out.
        age: seconds for which that has been so.
        rtt: seconds that its latest answer took; None: there is none.
    """

    uri: str
    up: bool
    age: float
    rtt: float | None


class TurnView(Struct, frozen=True):
    """TURN as a whole.

    Attributes:
        enabled: whether it is configured.
        watched: whether its servers are looked at.
        credentials: how many were handed out since the start.
        servers: those that are watched.
    """

    enabled: bool
    watched: bool
    credentials: int
    servers: list[TurnServer]


class TurnState(Protocol):
    """What TURN serves with now."""

    @property
    def watch(self) -> object | None:
        """What looks at its servers; None: nothing does."""


class TurnService(Protocol):
    """The TURN service, as far as it is shown."""

    @property
    def current(self) -> TurnState | None:
        """What serves now; None: TURN is not configured."""

    def health(self) -> Iterable[ServerHealth]:
        """Return how its servers fare."""


class Monitor:
    """Reads what is shown.

    Args:
        store: the grids.
        metrics: has counted what happened.
        health: decides over readiness.
        customers: returns the customers' licences.
        turn: the TURN service.
        now: the steady clock.
        timer_seconds: the reactor's clock, by which TURN servers are watched.
        pause: lets others get their turn before what it returns is done.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        health: Health,
        customers: Callable[[], Iterable[Licence]],
        turn: TurnService,
        now: Callable[[], float],
        timer_seconds: Callable[[], float],
        pause: Callable[[], Awaitable[object]],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._health = health
        self._customers = customers
        self._turn = turn
        self._now = now
        self._timer_seconds = timer_seconds
        self._pause = pause
        self._began = now()
        self._kept: tuple[float, list[CustomerView], int] | None = None

    async def state(self) -> dict[str, Any]:
        """Return everything, each room too, as JSON already: rooms may be many."""
        rooms = {name: await self._rooms(grid) for name, grid in list(self._store.pools())}
        now = self._now()
        return {
            "pools": {
                name: {
                    "servers": [_server(view, now) for view in self._store.pool(name).servers()],
                    "rooms": found,
                }
                for name, found in rooms.items()
            },
            "usage": list(self._store.usage()),
            "customers": self._customer_views(),
            **self._common(now),
        }

    async def _rooms(self, grid: GridStore) -> Raw:
        parts: list[bytes] = []
        async for page in grid.pages():
            parts += map(encode, page)
            if len(page) >= PAGE:
                await self._pause()
        return Raw(b"[%b]" % b",".join(parts))

    def summary(self) -> dict[str, Any]:
        """Return everything but rooms, in a size that does not grow with them.

        Where customers are many, theirs may be some seconds old.
        """
        now = self._now()
        customers, customer_count = self._fullest_customers(now)
        return {
            "pools": {
                name: {"servers": [_server(view, now) for view in grid.servers()]}
                for name, grid in self._store.pools()
            },
            "customers": customers,
            "customer_count": customer_count,
            **self._common(now),
        }

    def _common(self, now: float) -> dict[str, Any]:
        checks = self._health.results()
        return {
            "version": __version__,
            "now": now,
            "uptime": now - self._began,
            "ready": all(check.healthy for check in checks.values()),
            "checks": checks,
            "requests": [RequestCount(*counts) for counts in sorted(self._metrics.requests())],
            "turn": self._turn_view(),
        }

    def _fullest_customers(self, now: float) -> tuple[list[CustomerView], int]:
        """Return the customers that the summary names, and how many there are."""
        if self._kept is not None and now - self._kept[0] < _KEPT:
            return self._kept[1:]
        views = self._customer_views()
        fullest = nsmallest(MOST_CUSTOMERS, views, _fullest_first)
        self._kept = (now, fullest, len(views)) if len(views) >= _MANY_CUSTOMERS else None
        return fullest, len(views)

    def _customer_views(self) -> list[CustomerView]:
        used = {usage.customer: usage for usage in self._store.usage()}
        views = []
        for licence in self._customers():
            usage = used.pop(licence.id, None)
            counts = (usage.peers, usage.reservations, usage.rooms) if usage else (0, 0, 0)
            views.append(
                CustomerView(licence.id, True, licence.max_peers, licence.max_rooms, *counts)
            )
        for name, usage in used.items():
            views.append(
                CustomerView(name, False, None, None, usage.peers, usage.reservations, usage.rooms)
            )
        return views

    def _turn_view(self) -> TurnView:
        current, seconds = self._turn.current, self._timer_seconds()
        return TurnView(
            enabled=current is not None,
            watched=current is not None and current.watch is not None,
            credentials=self._metrics.credentials_issued(),
            servers=[
                TurnServer(server.uri, server.up, max(0.0, seconds - server.since), server.rtt)
                for server in self._turn.health()
            ],
        )


def _server(view: ServerView, now: float) -> dict[str, Any]:
    """Return a server with the age of its last report, in seconds."""
    return {**asdict(view), "age": max(0.0, now - view.last_seen)}


def _fullest_first(customer: CustomerView) -> tuple[float, int, str]:
    return -customer.fullness, -(customer.peers + customer.reservations), customer.id
