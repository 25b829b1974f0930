"""The server API's methods: what they take and return (wire reference, section 4)."""

from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Raw, Struct

from odingw.errors import Reason
from odingw.grid.rooms import RoomId
from odingw.grid.tasks import TaskBody
from odingw.rpc.openrpc import Interface, NoParams, Signature

Address: TypeAlias = Annotated[str, Meta(max_length=300)]


class Caller(Struct, frozen=True, kw_only=True):
    """What every server says of itself; without public_endpoint it is known by its IP address."""

    public_endpoint: Address | None = None
    version: str


class ConfigParams(Caller, frozen=True, kw_only=True):
    """A server's own settings, TOML."""

    config: str
    server: str | None = None


class TypedConfigParams(Caller, frozen=True, kw_only=True):
    """Likewise, with the kind of server."""

    config: str
    server: Literal["grid", "saga"]


class Age(Struct, frozen=True, gc=False):
    """How long a room has been open."""

    secs: float
    nanos: float


class Room(Struct, frozen=True, gc=False):
    """A room in a report; its id is namespace and name."""

    id: RoomId
    customer: str
    age: Age
    peers: float


class ReportParams(Caller, frozen=True, kw_only=True):
    """What a server carries."""

    load: float
    clients: float
    rooms: list[Room]
    server: str | None = None


class TypedReportParams(Caller, frozen=True, kw_only=True):
    """Likewise, with the kind of server."""

    load: float
    clients: float
    rooms: list[Room]
    server: Literal["grid", "saga"]


class ReportText(Caller, frozen=True, kw_only=True):
    """A report whose rooms have not been read."""

    load: float
    clients: float
    rooms: Raw
    server: str | None = None


class TypedReportText(Caller, frozen=True, kw_only=True):
    """Likewise, with the kind of server."""

    load: float
    clients: float
    rooms: Raw
    server: Literal["grid", "saga"]


class DrainParams(Struct, frozen=True):
    """The server's address."""

    server: Address


class Config(Struct, frozen=True):
    """Settings, TOML."""

    config: str


class Tasks(Struct, frozen=True):
    """What the server is to do, in this order."""

    tasks: tuple[TaskBody, ...]


class ReportedRoom(Struct, frozen=True):
    """A room in a server's last report."""

    id: RoomId
    customer: str
    peers: int


class ReportInfo(Struct, frozen=True):
    """A server's last report."""

    load: float
    clients: int
    rooms: list[ReportedRoom]


class ServerInfo(Struct, frozen=True, rename="camel"):
    """A server, and how many tasks wait for it."""

    hostname: str
    address: str
    version: str
    disabled: bool
    drained: bool
    key_id: str
    report: ReportInfo
    first_seen: datetime
    last_seen: datetime
    tasks: int


class RoomInfo(Struct, frozen=True):
    """A room that is placed."""

    hash: str
    id: RoomId
    customer: str
    server: str
    updated: datetime


class CallInfo(Struct, frozen=True):
    """How often a method was called, by outcome."""

    name: str
    success: int
    failure: int
    rejected: int


class Stats(Struct, frozen=True, rename="camel"):
    """Counts since the gateway's start."""

    api_calls: list[CallInfo]


class Info(Struct, frozen=True):
    """A pool's servers and rooms."""

    servers: list[ServerInfo]
    rooms: list[RoomInfo]
    stats: Stats


class Nothing(Struct, frozen=True):
    """The result of what only changes something."""


_DRAINS: Final = (Reason.SERVER_NOT_FOUND, Reason.STORE_UNAVAILABLE)

SERVER_API: Final = Interface(
    "odingw server API",
    "What ODIN servers and operators' tools call. With pools, each is also served under its name: "
    "/pool/internal.",
    "/internal",
    {
        "sfu.GridConfig": Signature(
            params=ConfigParams,
            result=Config,
            summary="Extend a server's settings with the recommended ones and its private key.",
            reasons=(Reason.STORE_UNAVAILABLE,),
        ),
        "sfu.Report": Signature(
            params=ReportParams,
            read_as=ReportText,
            result=Tasks,
            summary="Take in what a server carries, and return the tasks that wait for it.",
        ),
        "GetConfig": Signature(
            params=TypedConfigParams,
            result=Config,
            summary="As sfu.GridConfig, with the kind of server; only grid is supported.",
            reasons=(Reason.STORE_UNAVAILABLE,),
        ),
        "SubmitReport": Signature(
            params=TypedReportParams,
            read_as=TypedReportText,
            result=Tasks,
            summary="As sfu.Report, with the kind of server; only grid is supported.",
        ),
        "Info": Signature(
            params=NoParams,
            result=Info,
            summary="Return the pool's servers and rooms, and counts of calls.",
        ),
        "Drain": Signature(
            params=DrainParams,
            result=Nothing,
            summary="Place no new rooms on a server; it keeps those that it has.",
            reasons=_DRAINS,
        ),
        "Undrain": Signature(
            params=DrainParams,
            result=Nothing,
            summary="Place new rooms on a server again.",
            reasons=_DRAINS,
        ),
        "Disable": Signature(
            params=DrainParams,
            result=Nothing,
            summary="Take a server for dead until it reports again; its rooms may move.",
            reasons=_DRAINS,
        ),
    },
)
