"""What typed methods return: frozen values."""

from datetime import datetime

from msgspec import Struct


class Connection(Struct, frozen=True):
    """Where a client is to go. It shows its token to nobody who prints it.

    Attributes:
        address: of the voice server.
        token: the room token, a secret of that client.
    """

    address: str
    token: str

    def __repr__(self) -> str:
        return f"Connection(address={self.address!r})"


class ReportedRoom(Struct, frozen=True):
    """A room in a server's last report.

    Attributes:
        id: namespace and name.
        customer: the customer's id.
        peers: how many are in it.
    """

    id: tuple[str, str]
    customer: str
    peers: int


class Report(Struct, frozen=True):
    """A server's last report.

    Attributes:
        load: a fraction, 0 to 1.
        clients: how many clients it carries.
        rooms: the rooms that it carries.
    """

    load: float
    clients: float
    rooms: tuple[ReportedRoom, ...]


class Server(Struct, frozen=True, rename="camel"):
    """A voice server that the gateway knows.

    Attributes:
        hostname: its address without the port.
        address: its address, which names it.
        version: its program's version.
        disabled: whether it has not reported for too long.
        key_id: id of its key.
        report: what it last reported.
        first_seen: when it was first heard of.
        last_seen: when it last reported.
        tasks: how many tasks wait for it.
        drained: whether it gets no new rooms.
    """

    hostname: str
    address: str
    version: str
    disabled: bool
    key_id: str
    report: Report
    first_seen: datetime
    last_seen: datetime
    tasks: int
    drained: bool = False


class Room(Struct, frozen=True):
    """A room that is placed.

    Attributes:
        hash: of its namespace and base.
        id: namespace and name.
        customer: the customer's id.
        server: address of the server that carries it.
        updated: when it was placed or last reported.
    """

    hash: str
    id: tuple[str, str]
    customer: str
    server: str
    updated: datetime


class CallCounts(Struct, frozen=True):
    """How often a method was called, by outcome, since the gateway started."""

    name: str
    success: int
    failure: int
    rejected: int


class Stats(Struct, frozen=True, rename="camel"):
    """Counts of this gateway process."""

    api_calls: tuple[CallCounts, ...]


class Info(Struct, frozen=True):
    """One pool: its servers, its rooms, and the gateway's counts."""

    servers: tuple[Server, ...]
    rooms: tuple[Room, ...]
    stats: Stats
