"""What the simulation asks of a gateway, and the gateways that the product's is compared with."""

import random
from collections.abc import Sequence
from typing import Final, Protocol

DISABLE_TIMEOUT: Final = 7.5
"""Seconds of silence after which a gateway takes a server for dead."""

_UNKNOWN_COST: Final = 1 / 500
_FEWEST_CLIENTS: Final = 20
_LEAST_LOAD: Final = 0.05


class Presence:
    """A room on a server, as reports show it.

    Attributes:
        id: namespace and name.
        customer: the customer's id.
        peers: clients in it.
    """

    __slots__ = ("customer", "id", "peers")

    def __init__(self, room: int) -> None:
        self.id = ("simulated", str(room))
        self.customer = "simulated"
        self.peers = 0


class Server:
    """A simulated server.

    Attributes:
        index: its number.
        address: its address.
        capacity: clients that it carries at load 1.
        clients: clients that are on it.
        under_way: clients that were sent to it and are not there yet.
        unseen: clients that came since its last report.
        rooms: the rooms that are on it, by number.
        there: whether it runs.
        drained: whether it is to take no new rooms.
    """

    __slots__ = (
        "address",
        "capacity",
        "clients",
        "drained",
        "index",
        "rooms",
        "there",
        "under_way",
        "unseen",
    )

    def __init__(self, index: int, capacity: float) -> None:
        self.index = index
        self.address = f"server-{index}:4433"
        self.capacity = capacity
        self.clients = 0
        self.under_way = 0
        self.unseen = 0
        self.rooms: dict[int, Presence] = {}
        self.there = False
        self.drained = False

    @property
    def fill(self) -> float:
        """Clients as a fraction of the capacity."""
        return self.clients / self.capacity


class Policy(Protocol):
    """A gateway, or several that share their state. Times are seconds."""

    def connect(self, client: int, room: int, now: float) -> int | None:
        """Return the number of the server that the client is sent to; None if it is refused."""

    def report(self, server: Server, load: float, now: float) -> None:
        """Take in a report: the load, 0 to 1, and the clients and rooms that the server has."""

    def drain(self, server: Server) -> None:
        """Let a server take no new rooms."""

    def tick(self, now: float) -> None:
        """Do what is to be done every second."""


class Comparison:
    """A gateway that keeps rooms where they are and asks :meth:`choose` about new ones.

    Args:
        servers: all servers.
        rng: for its random choices.
    """

    def __init__(self, servers: Sequence[Server], rng: random.Random) -> None:
        self.servers = servers
        self.rng = rng
        self.open: list[Server] = []
        self.loads = [0.0] * len(servers)
        self.seen = [0] * len(servers)
        self._heard: dict[int, float] = {}
        self._places: dict[int, Server] = {}
        self._sent: dict[int, float] = {}

    def choose(self) -> Server:
        """Return the server for a new room; there is one at least."""
        raise NotImplementedError

    def usable(self, server: Server) -> bool:
        """Whether the gateway takes this server to be alive."""
        return server.index in self._heard

    def connect(self, client: int, room: int, now: float) -> int | None:
        """Return the number of the server that the client is sent to; None if it is refused."""
        server = self._places.get(room)
        if server is None or not self.usable(server) or self._empty(server, room, now):
            if not self.open:
                return None
            server = self._places[room] = self.choose()
        self._sent[room] = now
        return server.index

    def report(self, server: Server, load: float, now: float) -> None:
        """Take in a report: the load, 0 to 1, and the clients and rooms that the server has."""
        self.loads[server.index] = load
        self.seen[server.index] = server.clients
        known = server.index in self._heard
        self._heard[server.index] = now
        if not known:
            self.list_open()

    def drain(self, server: Server) -> None:
        """Let a server take no new rooms."""
        self.list_open()

    def tick(self, now: float) -> None:
        """Take servers that are silent for dead."""
        silent = [index for index, at in self._heard.items() if now - at > DISABLE_TIMEOUT]
        for index in silent:
            del self._heard[index]
        if silent:
            self.list_open()

    def list_open(self) -> None:
        """Bring the list of servers that take new rooms up to date."""
        self.open = [s for s in self.servers if self.usable(s) and not s.drained]

    def _empty(self, server: Server, room: int, now: float) -> bool:
        # A room that nobody is in or on the way to is a new one.
        return room not in server.rooms and now - self._sent[room] > 10


class Existing(Comparison):
    """The existing gateway's rule: random by weight, 1 less the last reported load."""

    def choose(self) -> Server:
        """Return the server for a new room; the last one if all weights are zero."""
        weights = [1 - self.loads[server.index] for server in self.open]
        if not any(weights):
            return self.open[-1]
        return self.rng.choices(self.open, weights)[0]


class TwoChoices(Comparison):
    """The better of two random servers, by the last reported load and the clients sent since."""

    def choose(self) -> Server:
        """Return the server for a new room."""
        two = self.rng.sample(self.open, min(2, len(self.open)))
        return min(two, key=self._score)

    def _score(self, server: Server) -> float:
        load, clients = self.loads[server.index], self.seen[server.index]
        known = load >= _LEAST_LOAD and clients >= _FEWEST_CLIENTS
        cost = load / clients if known else _UNKNOWN_COST
        return load + (server.under_way + server.unseen) * cost


class Ideal(Comparison):
    """The server that is least loaded at this instant, clients under way included.

    It knows servers as they are, not as they were reported, but not what will come.
    """

    def choose(self) -> Server:
        """Return the server for a new room."""
        # What a client costs grows with the load in the same way on all servers, so the order by
        # clients is the order by load.
        fills = [(server.clients + server.under_way) / server.capacity for server in self.open]
        least = min(fills)
        return self.rng.choice(
            [s for s, fill in zip(self.open, fills, strict=True) if fill == least]
        )

    def usable(self, server: Server) -> bool:
        """Whether the server is alive."""
        return server.there

    def tick(self, now: float) -> None:
        """Look who is alive."""
        self.list_open()

    def connect(self, client: int, room: int, now: float) -> int | None:
        """Return the number of the server that the client is sent to; None if it is refused."""
        if any(not server.there for server in self.open):
            self.list_open()
        return super().connect(client, room, now)
