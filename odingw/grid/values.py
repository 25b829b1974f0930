"""What goes into the grid's rules and what comes out, as plain values.

All times are seconds since the epoch by the gateway's steady clock, all durations seconds.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from odingw.grid.rooms import BaseId, RoomId, base_of
from odingw.grid.tasks import Delivery, Task, TaskBody


class GridSettings(Struct, frozen=True, kw_only=True):
    """The numbers that the grid's rules depend on; the names are those of the configuration."""

    report_interval: float = 5.0
    disable_timeout: float = 7.5
    remove_timeout: float = 600.0
    unheard_timeout: float = 300.0
    reservation_lifetime: float = 10.0
    queued_tasks: int = 1000
    bans_per_customer: int = 10_000

    @property
    def tick(self) -> float:
        """Seconds between two rounds of periodic work, short against a server's grace."""
        return min(1.0, max(0.1, (self.disable_timeout - self.report_interval) / 2.5))


class Admission(Struct, frozen=True, gc=False):
    """One ``Connect``: who wants into which rooms.

    Attributes:
        customer: the customer's id, whose usage counts.
        namespace: namespace of the rooms.
        rooms: the token's ``rid`` values; the last one is the room that is placed.
        user: the user id, possibly empty.
        token_id: tells one token from another; it stands for the user where the id is empty.
        max_peers: how many peers the customer's licence allows; None: any number.
        max_rooms: how many rooms the customer's licence allows; None: any number.
        demo_peers: limit of the peers of all demo users together, for a demo user; or None.
        server: address of the one server to place a new room on, or None.
    """

    customer: str
    namespace: str
    rooms: tuple[str, ...]
    user: str
    token_id: str
    max_peers: int | None = None
    max_rooms: int | None = None
    demo_peers: int | None = None
    server: str | None = None


class Placed(Struct, frozen=True, gc=False):
    """Where an admitted client goes.

    Attributes:
        address: the server that carries the room.
        how: ``existing`` room, ``new`` room, or a room ``moved`` from a disabled server.
        kid: id of the key that the server has.
    """

    address: str
    how: str
    kid: str


class RoomReport(Protocol):
    """A room as its server reports it."""

    @property
    def id(self) -> RoomId:
        """Namespace and name."""

    @property
    def customer(self) -> str:
        """Id of the customer whose room it is."""

    @property
    def peers(self) -> float:
        """How many clients are in it, whatever number the server writes for that."""


class ServerReport(Struct, frozen=True, gc=False):
    """One report of one server.

    Attributes:
        address: the server's address, its identity.
        kid: id of the key that it is taken to have if nobody knows which one it was given.
        load: fraction of the server's capacity in use, 0 to 1.
        clients: how many clients are connected.
        rooms: all rooms that the server carries, in pieces that are forgotten when they are read.
    """

    address: str
    kid: str
    version: str
    load: float
    clients: int
    rooms: Iterable[Sequence[RoomReport]]


class Command(Struct, frozen=True, gc=False):
    """A management call, as it goes to the grid.

    Attributes:
        customer: whose queue limits and ban limits count.
        body: the task for the room's server.
        ban: seconds that the ban lasts; 0 lifts it; None: no word of a ban.
        user: the user whose ban it is; None: it is the room's.
    """

    customer: str
    body: TaskBody
    ban: float | None = None
    user: str | None = None

    @property
    def room(self) -> RoomId:
        """The room that the command is for."""
        return self.body.id

    @property
    def base(self) -> BaseId:
        """The base by which the room's server is found."""
        namespace, name = self.body.id
        return namespace, base_of(name)


class ServerAttached(Struct, frozen=True, tag=True):
    """A server reported for the first time, or again after it was disabled."""

    address: str
    version: str
    returned: bool


class ServerDisabled(Struct, frozen=True, tag=True):
    """A server has been silent for too long; its rooms may move."""

    address: str
    silent: float


class ServerRemoved(Struct, frozen=True, tag=True):
    """A server has been silent for so long that it is forgotten, its queued tasks with it."""

    address: str
    tasks: int


class RoomContested(Struct, frozen=True, tag=True):
    """Two servers carry rooms of one base; ``loser`` is told to close its room."""

    room: RoomId
    keeper: str
    loser: str


class MoreContested(Struct, frozen=True, tag=True):
    """A server reports more rooms of that kind than are told one by one."""

    address: str
    rooms: int


class TasksDropped(Struct, frozen=True, tag=True):
    """Tasks that came back too often are given up."""

    address: str
    tasks: tuple[Task, ...]


class ReportsElsewhere(Struct, frozen=True, tag=True):
    """A server took its settings and will never report: ``section`` of its own says to whom."""

    address: str
    version: str
    section: str


class Paused(Struct, frozen=True, tag=True):
    """The gateway itself stood still; no server is blamed for the time."""

    seconds: float


Event: TypeAlias = (
    ServerAttached
    | ServerDisabled
    | ServerRemoved
    | RoomContested
    | MoreContested
    | TasksDropped
    | ReportsElsewhere
    | Paused
)
"""Something that operators want to know of."""


class Reported(Struct, frozen=True):
    """What a report led to.

    Attributes:
        closes: tasks that tell the server to close rooms which belong to another one; they go
            into the reply ahead of the queue and are made anew by each report that names the room.
        events: for the log.
        delivery: the tasks that were taken with it, if that was asked for and there are any.
    """

    closes: tuple[TaskBody, ...] = ()
    events: tuple[Event, ...] = ()
    delivery: Delivery | None = None


class ServerView(Struct, frozen=True, kw_only=True):
    """A server, for people and metrics.

    Attributes:
        unheard: the gateway that it reported to is gone, so it gets no new rooms and keeps those
            that it has.
    """

    address: str
    kid: str
    version: str
    load: float
    expected_load: float
    clients: int
    rooms: int
    peers: int
    reservations: int
    disabled: bool
    drained: bool
    first_seen: float
    last_seen: float
    tasks: int
    unheard: bool = False


class RoomView(Struct, frozen=True, kw_only=True):
    """A room, for people and metrics."""

    id: RoomId
    customer: str
    server: str
    peers: int
    reservations: int
    reported: bool
    updated: float


class UsageView(Struct, frozen=True, kw_only=True):
    """What a customer uses over all live servers and pools."""

    customer: str
    peers: int
    reservations: int
    rooms: int
