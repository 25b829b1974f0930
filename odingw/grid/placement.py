"""Where a new room goes: to the server with the lowest expected load.

The expected load is what the server's reports say, smoothed, plus what was sent there since, in
units of what one client costs that server::

    score = estimate + (pending + headroom) * cost

``cost`` is learnt from the server's own reports and, where those say little, from the fleet's.
``pending`` counts the clients under way and the growth that a new room is expected to have;
``headroom`` makes small servers keep room for a large room.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

PRIOR_COST: Final = 1 / 500
"""Load per client that is assumed while no server has shown any."""

_DECAY: Final = 0.8
_FLEET_WEIGHT: Final = 20.0
_LEARN_LOAD: Final = 0.05
_LEARN_CLIENTS: Final = 20
_SMOOTHING: Final = 0.2

GROWTH_TIME: Final = 45.0
"""Seconds after its first Connect in which a room's growth is foreseen, and learnt."""

_GROWTH_PRIOR: Final = 2.0
_GROWTH_LEARNING: Final = 0.02
HEADROOM: Final = 9.0
"""For how many mean rooms there must be room everywhere."""


class Load:
    """What is known and expected of one server's load.

    Attributes:
        reported: the load of the last report, 0 to 1.
        estimate: the smoothed load; above 1 where counts say so.
        pending: clients under way, and growth foreseen.
        cost: load per client.
    """

    __slots__ = ("clients_seen", "cost", "estimate", "load_seen", "pending", "reported")

    def __init__(self) -> None:
        self.reported = 0.0
        self.estimate = 0.0
        self.pending = 0
        self.cost = PRIOR_COST
        self.load_seen = 0.0
        self.clients_seen = 0.0


class Loaded(Protocol):
    """Something that carries load."""

    @property
    def load(self) -> Load:
        """Its load."""


S = TypeVar("S", bound=Loaded)


class CostModel:
    """Learns from reports what a client costs, on each server and over the whole fleet."""

    def __init__(self) -> None:
        self._load_seen = 0.0
        self._clients_seen = 0.0

    def join(self, load: Load, reported: float) -> None:
        """Take in a server's first report, or its first after it was written off."""
        load.reported = reported
        load.estimate = reported
        self._price(load)

    def report(self, load: Load, reported: float, clients: int, before: int) -> None:
        """Take in a report.

        Args:
            load: the server's load, which is brought up to date.
            reported: fraction of its capacity, 0 to 1.
            clients: its clients now.
            before: its clients at the report before.
        """
        # A busy server's figures say what a client costs; an idle one's are noise.
        if reported >= _LEARN_LOAD and clients >= _LEARN_CLIENTS:
            self._load_seen -= load.load_seen
            self._clients_seen -= load.clients_seen
            load.load_seen = _DECAY * load.load_seen + reported
            load.clients_seen = _DECAY * load.clients_seen + clients
            self._load_seen += load.load_seen
            self._clients_seen += load.clients_seen
        self._price(load)
        estimate = max(0.0, load.estimate + load.cost * (clients - before))
        # A full server reports 1 however far above it is: that is a bound, not a value.
        if reported < 1 or estimate < 1:
            estimate += _SMOOTHING * (reported - estimate)
        load.estimate = estimate
        load.reported = reported

    def restore(
        self, load: Load, reported: float, estimate: float, load_seen: float, clients_seen: float
    ) -> None:
        """Take over what was known of a server's load."""
        self.forget(load)
        load.load_seen = load_seen
        load.clients_seen = clients_seen
        self._load_seen += load_seen
        self._clients_seen += clients_seen
        load.reported = reported
        load.estimate = estimate
        self._price(load)

    def forget(self, load: Load) -> None:
        """Take a server out of the fleet's figures."""
        self._load_seen -= load.load_seen
        self._clients_seen -= load.clients_seen

    def _price(self, load: Load) -> None:
        fleet = self._load_seen / self._clients_seen if self._clients_seen > 1e-9 else PRIOR_COST
        load.cost = (load.load_seen + _FLEET_WEIGHT * fleet) / (load.clients_seen + _FLEET_WEIGHT)


class Growth:
    """The growth that is foreseen for one new room."""

    __slots__ = ("ends", "joins", "left", "load")

    def __init__(self, load: Load, left: int, ends: float) -> None:
        self.load = load
        self.left = left
        self.joins = 1
        self.ends = ends


class GrowthModel:
    """Foresees how a new room grows in its first seconds, and learns from how rooms did."""

    def __init__(self) -> None:
        self.mean = _GROWTH_PRIOR
        self._running: deque[Growth] = deque()

    @property
    def headroom(self) -> float:
        """Places that count as taken everywhere, so that a large room finds room."""
        return HEADROOM * self.mean

    def begin(self, load: Load, now: float) -> Growth:
        """Reserve what a new room on this server is expected to need beyond its first client."""
        growth = Growth(load, max(0, round(self.mean) - 1), now + GROWTH_TIME)
        load.pending += growth.left
        self._running.append(growth)
        return growth

    def join(self, growth: Growth, now: float) -> None:
        """Count a further client that was sent to the room; it uses up a foreseen place."""
        if now >= growth.ends:
            return
        growth.joins += 1
        if growth.left:
            growth.left -= 1
            growth.load.pending -= 1

    def move(self, growth: Growth, load: Load) -> None:
        """Foresee the growth at another server, where the room goes."""
        growth.load.pending -= growth.left
        load.pending += growth.left
        growth.load = load

    def sweep(self, now: float, most: int) -> None:
        """End what has run its time, at most so many."""
        while most and self._running and self._running[0].ends <= now:
            most -= 1
            growth = self._running.popleft()
            growth.load.pending -= growth.left
            growth.left = 0
            self.mean += _GROWTH_LEARNING * (growth.joins - self.mean)


def choose(servers: Sequence[S], headroom: float, pick: Callable[[int], int]) -> S | None:
    """Return the server with the lowest expected load; None if there is none.

    Args:
        servers: those that take new rooms.
        headroom: places that count as taken everywhere.
        pick: given n, a number from 0 to n - 1; it breaks ties, so that gateways that know the
            same do not all choose the same.
    """
    scores = [
        load.estimate + (load.pending + headroom) * load.cost
        for load in [server.load for server in servers]
    ]
    if not scores:
        return None
    lowest = min(scores)
    if scores.count(lowest) == 1:
        return servers[scores.index(lowest)]
    ties = [index for index, score in enumerate(scores) if score == lowest]
    return servers[ties[pick(len(ties))]]
