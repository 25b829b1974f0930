"""The grid's records of servers and rooms: mutable, and changed by the grid's rules alone."""

from math import inf
from typing import Final

from msgspec import Struct

from odingw.grid.placement import Growth, Load
from odingw.grid.rooms import BaseId, RoomId
from odingw.grid.tasks import TaskQueue

MOST_PEERS: Final = 2**31
"""How many clients a server, or a room, can be said to have."""


MOST_TIME: Final = 2e11
"""The last time there is, in seconds since the epoch: in the year 8307."""


class Server:
    """A server that has reported.

    Attributes:
        rooms: the rooms that it reported last and that are its own.
        reservations: places reserved in rooms that are on it.
        bases: those that live on it.
        removed: whether it counts for nothing any more; its bases are forgotten one by one.
        heard: when it last gave a sign of life, or was excused from one.
        round: number of its latest report, which marks the rooms that the report names.
        kid: id of the key that it has, as far as is known.
        reporting_since: when it reported first since it is new, or back, or nobody was there to
            hear it; infinite: it has not yet.
        contested: rooms of other servers that its latest report named.
        named: their bases, and since when each report has named a room of them.
    """

    __slots__ = (
        "address",
        "bases",
        "clients",
        "contested",
        "disabled",
        "drained",
        "first_seen",
        "heard",
        "kid",
        "last_seen",
        "load",
        "named",
        "peers",
        "removed",
        "reporting_since",
        "reservations",
        "rooms",
        "round",
        "tasks",
        "version",
    )

    def __init__(self, address: str, kid: str, now: float, tasks: TaskQueue) -> None:
        self.address = address
        self.kid = kid
        self.version = ""
        self.load = Load()
        self.clients = 0
        self.peers = 0
        self.rooms: dict[RoomId, Room] = {}
        self.reservations = 0
        self.bases: dict[BaseId, Base] = {}
        self.disabled = False
        self.drained = False
        self.removed = False
        self.first_seen = now
        self.last_seen = now
        self.heard = now
        self.round = 0
        self.reporting_since = inf
        self.contested: frozenset[RoomId] = frozenset()
        self.named: dict[BaseId, float] = {}
        self.tasks = tasks

    @property
    def open(self) -> bool:
        """Whether new rooms may go there."""
        return not (self.disabled or self.drained)


class GivenKey(Struct, frozen=True, gc=False):
    """Which key a server was given when it last asked, and when that was.

    A server learns its key once, when it starts, and can have asked long before it first reports,
    or before the gateway was given a new master key; so this is kept apart from :class:`Server`.
    """

    kid: str
    at: float


# Of the following there are many, and nothing that is forgotten holds on to anything in a circle.
# The garbage collector need not look at them: it would hold everybody up for long.


class Base(Struct, eq=False, gc=False):
    """A base and the server it lives on.

    Attributes:
        reported: whether that server has ever reported a room of it.
        claimed: whether that server has it because it reports clients there, even if another one
            should turn out to have it on which places are reserved.
        rooms: its rooms by name.
    """

    id: BaseId
    server: Server
    reported: bool = False
    claimed: bool = False
    rooms: "dict[str, Room]" = {}


class Room(Struct, eq=False, gc=False):
    """A room that is reported, or for which places are reserved.

    Attributes:
        customer: whose usage it counts for.
        placed: when it was sent its first client.
        peers: as last reported; 0 while it is not.
        round: the server's report that last named it; 0: none did.
        counted: whether its peers, and the room, are in the customer's usage.
        reserved: the running reservations, in the order in which they will end.
        growth: what is foreseen for it in its first seconds.
    """

    id: RoomId
    base: Base
    customer: str
    placed: float
    peers: int = 0
    round: int = 0
    counted: bool = False
    reserved: "dict[ReservationKey, Reservation]" = {}
    growth: "Growth | None" = None


ReservationKey = tuple[str, str]
"""User id and, where that is empty, the token's id."""


class Reservation(Struct, eq=False, gc=False):
    """A place for a client that was sent to a room and is not there yet.

    Attributes:
        customer: whose usage it counts for.
        ends: when it ends by itself.
        made: when the client was sent there first, or the room's first client if another gateway
            made it; 0: before this gateway was there.
    """

    room: Room
    key: ReservationKey
    customer: str
    ends: float
    made: float
