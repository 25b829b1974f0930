"""The server API: settings, reports, tasks and drains (wire reference, section 4)."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from inspect import isawaitable
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from odingw.errors import FORBIDDEN, INVALID_REQUEST, TOO_LARGE, RpcError, invalid_params
from odingw.grid.rooms import RoomId, room_hash
from odingw.grid.store import GridStore
from odingw.grid.tasks import Delivery, TaskBody
from odingw.grid.values import Event, Reported, ServerReport
from odingw.rpc.grid_config import extend
from odingw.rpc.jsonrpc import Method
from odingw.rpc.server_keys import ServerKeys

DEFAULT_PORT: Final = 4433
"""Port of a server that does not name its public endpoint."""

_MOST_CLIENTS: Final = 2.0**31

InThread = Callable[[Callable[[], str]], Awaitable[str]]
"""Runs a slow function elsewhere."""


class ServerCall:
    """One request to the server API.

    Attributes:
        peer: IP address of the caller; None where it has none: a unix socket, or not known.
        allowed: address patterns of the servers that this caller may speak for; None: any.
        now: by the gateway's steady clock, seconds.
        deliveries: tasks that go out with the reply, to be acknowledged or given back by whoever
            sends it.
    """

    __slots__ = ("allowed", "deliveries", "now", "peer")

    def __init__(self, peer: str | None, allowed: Sequence[str] | None, now: float) -> None:
        self.peer = peer
        self.allowed = allowed
        self.now = now
        self.deliveries: list[Delivery] = []


class _Caller(Struct, frozen=True, kw_only=True):
    public_endpoint: Annotated[str, Meta(max_length=300)] | None = None
    version: str


class _ConfigParams(_Caller, frozen=True, kw_only=True):
    config: str
    server: str | None = None


class _TypedConfigParams(_Caller, frozen=True, kw_only=True):
    config: str
    server: Literal["grid", "saga"]


class _Age(Struct, frozen=True, gc=False):
    secs: float
    nanos: float


class _Room(Struct, frozen=True, gc=False):
    id: RoomId
    customer: str
    age: _Age
    peers: float


class _ReportParams(_Caller, frozen=True, kw_only=True):
    load: float
    clients: float
    rooms: list[_Room]
    server: str | None = None


class _TypedReportParams(_Caller, frozen=True, kw_only=True):
    load: float
    clients: float
    rooms: list[_Room]
    server: Literal["grid", "saga"]


class _DrainParams(Struct, frozen=True):
    server: str


class _NoParams(Struct, frozen=True):
    pass


class _Config(Struct, frozen=True):
    config: str


class _Tasks(Struct, frozen=True):
    tasks: tuple[TaskBody, ...]


class _ReportedRoom(Struct, frozen=True):
    id: RoomId
    customer: str
    peers: int


class _ReportInfo(Struct, frozen=True):
    load: float
    clients: int
    rooms: list[_ReportedRoom]


class _ServerInfo(Struct, frozen=True, rename="camel"):
    hostname: str
    address: str
    version: str
    disabled: bool
    drained: bool
    key_id: str
    report: _ReportInfo
    first_seen: datetime
    last_seen: datetime
    tasks: int


class _RoomInfo(Struct, frozen=True):
    hash: str
    id: RoomId
    customer: str
    server: str
    updated: datetime


class _CallInfo(Struct, frozen=True):
    name: str
    success: int
    failure: int
    rejected: int


class _Stats(Struct, frozen=True, rename="camel"):
    api_calls: list[_CallInfo]


class _Info(Struct, frozen=True):
    servers: list[_ServerInfo]
    rooms: list[_RoomInfo]
    stats: _Stats


class ServerRules(Struct, frozen=True, kw_only=True):
    """What the server API depends on.

    Attributes:
        settings: the recommended settings that GridConfig merges into a server's own.
        servers: address patterns; if there are any, no other server may get settings or report.
        rooms_per_report: how many rooms one report may name.
        config_size: how many characters of configuration a server may send.
    """

    settings: dict[str, object]
    servers: Sequence[str] = ()
    rooms_per_report: int = 50_000
    config_size: int = 65_536


class ServerApi:
    """Carries out the server API on one pool's grid.

    Args:
        store: the grid.
        keys: the servers' keys.
        rules: what is allowed and recommended.
        in_thread: runs a slow function elsewhere.
        on_event: told of what operators want to know.
        call_counts: yields name, and counts of success, failure and rejection, of every method.
    """

    def __init__(
        self,
        store: GridStore,
        keys: ServerKeys,
        rules: ServerRules,
        in_thread: InThread,
        on_event: Callable[[Event], None],
        call_counts: Callable[[], Sequence[tuple[str, int, int, int]]],
    ) -> None:
        self._store = store
        self._keys = keys
        self._rules = rules
        self._in_thread = in_thread
        self._on_event = on_event
        self._call_counts = call_counts
        self.methods: dict[str, Method[ServerCall]] = {
            "sfu.GridConfig": Method(_ConfigParams, self._config),
            "sfu.Report": Method(_ReportParams, self._report),
            "GetConfig": Method(_TypedConfigParams, self._typed_config),
            "SubmitReport": Method(_TypedReportParams, self._typed_report),
            "Info": Method(_NoParams, self._info),
            "Drain": Method(_DrainParams, self._drain),
            "Undrain": Method(_DrainParams, self._undrain),
        }

    def _typed_config(
        self, call: ServerCall, params: _TypedConfigParams, answered: bool
    ) -> Awaitable[_Config]:
        _only_grid(params.server)
        return self._settings(call, params, params.config)

    def _config(
        self, call: ServerCall, params: _ConfigParams, answered: bool
    ) -> Awaitable[_Config]:
        _grid_api(params.server)
        return self._settings(call, params, params.config)

    async def _settings(self, call: ServerCall, params: _Caller, config: str) -> _Config:
        address = self._address(call, params)
        if len(config) > self._rules.config_size:
            most = self._rules.config_size
            raise RpcError(TOO_LARGE, f"a server's config holds at most {most} characters")
        jwk = self._keys[address].private_jwk()
        members = {"kid": jwk.kid, "kty": jwk.kty, "crv": jwk.crv, "x": jwk.x, "d": jwk.d}
        return _Config(await self._in_thread(lambda: extend(config, self._rules.settings, members)))

    def _typed_report(
        self, call: ServerCall, params: _TypedReportParams, answered: bool
    ) -> _Tasks | Awaitable[_Tasks]:
        _only_grid(params.server)
        return self._take_report(call, params, answered)

    def _report(
        self, call: ServerCall, params: _ReportParams, answered: bool
    ) -> _Tasks | Awaitable[_Tasks]:
        _grid_api(params.server)
        return self._take_report(call, params, answered)

    def _take_report(
        self, call: ServerCall, params: _ReportParams | _TypedReportParams, answered: bool
    ) -> _Tasks | Awaitable[_Tasks]:
        address = self._address(call, params)
        if len(params.rooms) > self._rules.rooms_per_report:
            most = self._rules.rooms_per_report
            raise RpcError(TOO_LARGE, f"a report names at most {most} rooms")
        report = ServerReport(
            address,
            self._keys[address].kid,
            params.version,
            min(1.0, max(0.0, params.load)),
            int(min(max(0.0, params.clients), _MOST_CLIENTS)),
            params.rooms,
        )
        reported = self._store.report(report, call.now)
        if isinstance(reported, Reported):
            for event in reported.events:
                self._on_event(event)
            delivery = self._store.take(address) if answered else None
            if not isawaitable(delivery):
                return _tasks(call, reported, delivery)
            return self._taken_later(call, reported, delivery)
        return self._reported_later(call, address, reported, answered)

    async def _taken_later(
        self, call: ServerCall, reported: Reported, delivery: Awaitable[Delivery | None]
    ) -> _Tasks:
        return _tasks(call, reported, await delivery)

    async def _reported_later(
        self, call: ServerCall, address: str, reported: Awaitable[Reported], answered: bool
    ) -> _Tasks:
        outcome = await reported
        for event in outcome.events:
            self._on_event(event)
        delivery = self._store.take(address) if answered else None
        if isawaitable(delivery):
            delivery = await delivery
        return _tasks(call, outcome, delivery)

    def _info(self, call: ServerCall, params: _NoParams, answered: bool) -> _Info:
        views = list(self._store.rooms())
        reported: dict[str, list[_ReportedRoom]] = {}
        for room in views:
            if room.reported:
                rooms_of = reported.setdefault(room.server, [])
                rooms_of.append(_ReportedRoom(room.id, room.customer, room.peers))
        servers = [
            _ServerInfo(
                hostname=view.address.rpartition(":")[0] or view.address,
                address=view.address,
                version=view.version,
                disabled=view.disabled,
                drained=view.drained,
                key_id=view.kid,
                report=_ReportInfo(view.load, view.clients, reported.get(view.address, [])),
                first_seen=_date(view.first_seen),
                last_seen=_date(view.last_seen),
                tasks=view.tasks,
            )
            for view in self._store.servers()
        ]
        rooms = [
            _RoomInfo(room_hash(*view.id), view.id, view.customer, view.server, _date(view.updated))
            for view in views
        ]
        counts = [_CallInfo(*counts) for counts in self._call_counts()]
        return _Info(servers, rooms, _Stats(counts))

    def _drain(self, call: ServerCall, params: _DrainParams, answered: bool) -> Any:
        return self._set_drained(call, params.server, True)

    def _undrain(self, call: ServerCall, params: _DrainParams, answered: bool) -> Any:
        return self._set_drained(call, params.server, False)

    def _set_drained(self, call: ServerCall, address: str, drained: bool) -> Any:
        self._check_allowed(call, address)
        done = self._store.drain(address, drained)
        return _nothing_later(done) if isawaitable(done) else {}

    def _address(self, call: ServerCall, params: _Caller) -> str:
        address = params.public_endpoint
        if not address:
            if call.peer is None:
                raise invalid_params("public_endpoint: needed, the caller's address is not known")
            host = f"[{call.peer}]" if ":" in call.peer else call.peer
            address = f"{host}:{DEFAULT_PORT}"
        elif not address.isprintable():
            raise invalid_params("public_endpoint: expected a host and a port, as host:port")
        self._check_allowed(call, address)
        return address

    def _check_allowed(self, call: ServerCall, address: str) -> None:
        for patterns in (self._rules.servers, call.allowed):
            if patterns and not any(fnmatchcase(address, pattern) for pattern in patterns):
                raise RpcError(
                    FORBIDDEN,
                    f"the server {address} is not allowed here; see gateway.internal.servers",
                )


async def _nothing_later(done: Awaitable[None]) -> dict[str, object]:
    await done
    return {}


def _tasks(call: ServerCall, reported: Reported, delivery: Delivery | None) -> _Tasks:
    if delivery is None:
        return _Tasks(reported.closes)
    call.deliveries.append(delivery)
    return _Tasks((*reported.closes, *(task.body for task in delivery.tasks)))


def _grid_api(server: str | None) -> None:
    if server not in (None, "grid"):
        raise RpcError(INVALID_REQUEST, "api must be used for grid servers only")


def _only_grid(server: str) -> None:
    if server != "grid":
        raise RpcError(INVALID_REQUEST, "only grid is supported")


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
