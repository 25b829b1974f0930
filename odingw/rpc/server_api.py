"""The server API: settings, reports, tasks and drains (wire reference, section 4)."""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw, Struct
from msgspec.json import Encoder

from odingw.errors import (
    FORBIDDEN,
    INVALID_REQUEST,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    RpcError,
    invalid_params,
)
from odingw.grid.rooms import room_hash
from odingw.grid.store import PAGE, GridStore
from odingw.grid.values import Event, Reported, ReportsElsewhere, RoomView, ServerReport
from odingw.hosts import is_host
from odingw.rpc.grid_config import extend, reports_elsewhere
from odingw.rpc.openrpc import NoParams
from odingw.rpc.report_rooms import ReportedRooms
from odingw.rpc.server_keys import ServerKeys
from odingw.rpc.server_methods import (
    SERVER_API,
    Caller,
    CallInfo,
    Config,
    ConfigParams,
    DrainParams,
    Info,
    ReportedRoom,
    ReportInfo,
    ReportText,
    RoomInfo,
    ServerInfo,
    Stats,
    Tasks,
    TypedConfigParams,
    TypedReportText,
)
from odingw.tokens import SecretKey

if TYPE_CHECKING:
    from odingw.grid.tasks import Delivery
    from odingw.rpc.jsonrpc import Method

DEFAULT_PORT: Final = 4433
"""Port of a server that does not name its public endpoint."""

# What is allowed is matched against the whole text, so that must be what clients connect to.
_ADDRESS: Final = re.compile(r"(.+):([1-9][0-9]{0,4})", re.DOTALL)
_MAX_PORT: Final = 65535

_MOST_CLIENTS: Final = 2.0**31

LONGEST_VERSION: Final = 100
"""Characters of a server's version that are kept."""

MOST_SERVERS: Final = 10_000
"""How many servers a pool has at most; each is kept, and in metrics, until it is forgotten."""

_RETRY_AFTER: Final = 60
"""Seconds."""

_encode: Final = Encoder().encode

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
        pause: lets others get their turn before what it returns is done; None: there are none.
    """

    def __init__(
        self,
        store: GridStore,
        keys: ServerKeys,
        rules: ServerRules,
        in_thread: InThread,
        on_event: Callable[[Event], None],
        call_counts: Callable[[], Sequence[tuple[str, int, int, int]]],
        pause: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._rules = rules
        self._in_thread = in_thread
        self._on_event = on_event
        self._call_counts = call_counts
        self._pause = pause
        self.methods: dict[str, Method[ServerCall]] = SERVER_API.bind(
            {
                "sfu.GridConfig": self._config,
                "sfu.Report": self._report,
                "GetConfig": self._typed_config,
                "SubmitReport": self._typed_report,
                "Info": self._info,
                "Drain": self._drain,
                "Undrain": self._undrain,
                "Disable": self._disable,
            }
        )

    def _typed_config(
        self, call: ServerCall, params: TypedConfigParams, answered: bool
    ) -> Awaitable[Config]:
        _only_grid(params.server)
        return self._settings(call, params, params.config, answered)

    def _config(self, call: ServerCall, params: ConfigParams, answered: bool) -> Awaitable[Config]:
        _grid_api(params.server)
        return self._settings(call, params, params.config, answered)

    async def _settings(
        self, call: ServerCall, params: Caller, config: str, answered: bool
    ) -> Config:
        address = self._address(call, params)
        if len(config) > self._rules.config_size:
            most = self._rules.config_size
            raise RpcError(TOO_LARGE, f"a server's config holds at most {most} characters")
        key = self._keys[address]
        extended = await self._extended(config, key)
        if answered:
            # From here on it is signed with this key, so nothing may go wrong after this.
            given = self._store.give_key(address, key.kid, call.now)
            kid = await given if isawaitable(given) else given
            if kid != key.kid:
                extended = await self._extended(config, self._keys.signing(address, kid))
        section = await self._in_thread(lambda: reports_elsewhere(config))
        if section:
            self._on_event(ReportsElsewhere(address, params.version, section))
        return Config(extended)

    def _extended(self, config: str, key: SecretKey) -> Awaitable[str]:
        jwk = key.private_jwk()
        members = {"kid": jwk.kid, "kty": jwk.kty, "crv": jwk.crv, "x": jwk.x, "d": jwk.d}
        return self._in_thread(lambda: extend(config, self._rules.settings, members))

    def _typed_report(
        self, call: ServerCall, params: TypedReportText, answered: bool
    ) -> Tasks | Awaitable[Tasks]:
        _only_grid(params.server)
        return self._take_report(call, params, answered)

    def _report(
        self, call: ServerCall, params: ReportText, answered: bool
    ) -> Tasks | Awaitable[Tasks]:
        _grid_api(params.server)
        return self._take_report(call, params, answered)

    def _take_report(
        self, call: ServerCall, params: ReportText | TypedReportText, answered: bool
    ) -> Tasks | Awaitable[Tasks]:
        address = self._address(call, params)
        known = self._store.addresses()
        if len(known) >= MOST_SERVERS and address not in known:
            raise RpcError(
                TOO_MANY_REQUESTS,
                f"{len(known)} servers report here; no more are taken until one is forgotten",
                {"retry_after": _RETRY_AFTER},
                {"Retry-After": str(_RETRY_AFTER)},
            )
        report = ServerReport(
            address,
            self._keys[address].kid,
            params.version[:LONGEST_VERSION],
            min(1.0, max(0.0, params.load)),
            int(min(max(0.0, params.clients), _MOST_CLIENTS)),
            ReportedRooms(params.rooms, self._rules.rooms_per_report),
        )
        reported = self._store.report(report, call.now, take=answered)
        if isinstance(reported, Reported):
            return self._tasks(call, reported)
        return self._tasks_later(call, reported)

    async def _tasks_later(self, call: ServerCall, reported: Awaitable[Reported]) -> Tasks:
        return self._tasks(call, await reported)

    def _tasks(self, call: ServerCall, reported: Reported) -> Tasks:
        for event in reported.events:
            self._on_event(event)
        delivery = reported.delivery
        if delivery is None:
            return Tasks(reported.closes)
        call.deliveries.append(delivery)
        return Tasks((*reported.closes, *(task.body for task in delivery.tasks)))

    async def _info(self, call: ServerCall, params: NoParams, answered: bool) -> Info:
        found = _Rooms()
        async for page in self._store.pages():
            found.add(page)
            if self._pause is not None and len(page) >= PAGE:
                await self._pause()
        return self._info_of(found)

    def _info_of(self, found: "_Rooms") -> Info:
        servers = [
            ServerInfo(
                hostname=view.address.rpartition(":")[0] or view.address,
                address=view.address,
                version=view.version,
                disabled=view.disabled,
                drained=view.drained,
                key_id=view.kid,
                report=ReportInfo(view.load, view.clients, found.reported(view.address)),
                first_seen=_date(view.first_seen),
                last_seen=_date(view.last_seen),
                tasks=view.tasks,
            )
            for view in self._store.servers()
        ]
        counts = [CallInfo(*counts) for counts in self._call_counts()]
        return Info(servers, found.rooms, Stats(counts))

    def _drain(self, call: ServerCall, params: DrainParams, answered: bool) -> Any:
        return self._set_drained(call, params.server, True)

    def _undrain(self, call: ServerCall, params: DrainParams, answered: bool) -> Any:
        return self._set_drained(call, params.server, False)

    def _disable(self, call: ServerCall, params: DrainParams, answered: bool) -> Any:
        self._check_allowed(call, params.server)
        done = self._store.disable(params.server)
        return _nothing_later(done) if isawaitable(done) else {}

    def _set_drained(self, call: ServerCall, address: str, drained: bool) -> Any:
        self._check_allowed(call, address)
        done = self._store.drain(address, drained)
        return _nothing_later(done) if isawaitable(done) else {}

    def _address(self, call: ServerCall, params: Caller) -> str:
        address = params.public_endpoint
        if not address:
            if call.peer is None:
                raise invalid_params("public_endpoint: needed, the caller's address is not known")
            host = f"[{call.peer}]" if ":" in call.peer else call.peer
            address = f"{host}:{DEFAULT_PORT}"
        elif not _is_address(address):
            raise invalid_params(
                "public_endpoint: expected a host and a port from 1 to 65535, as host:port"
            )
        self._check_allowed(call, address)
        return address

    def _check_allowed(self, call: ServerCall, address: str) -> None:
        # A final dot only says that a name is complete (RFC 1034, section 3.1).
        spellings = {address, address.replace(".:", ":")}
        for patterns in (self._rules.servers, call.allowed):
            if patterns and not any(
                fnmatchcase(name, pattern) for pattern in patterns for name in spellings
            ):
                raise RpcError(
                    FORBIDDEN,
                    f"the server {address} is not allowed here; see gateway.internal.servers",
                )


def _is_address(text: str) -> bool:
    found = _ADDRESS.fullmatch(text)
    return found is not None and is_host(found[1]) and int(found[2]) <= _MAX_PORT


class _Rooms:
    """What Info says of rooms, as JSON: encoded all at once, 50,000 would stop everybody."""

    def __init__(self) -> None:
        self._rooms: list[bytes] = []
        self._reported: dict[str, list[bytes]] = {}

    def add(self, views: Iterable[RoomView]) -> None:
        """Describe rooms."""
        rooms: list[RoomInfo] = []
        reported: dict[str, list[ReportedRoom]] = {}
        for view in views:
            if view.reported:
                room = ReportedRoom(view.id, view.customer, view.peers)
                reported.setdefault(view.server, []).append(room)
            updated = _date(view.updated)
            rooms.append(
                RoomInfo(room_hash(*view.id), view.id, view.customer, view.server, updated)
            )
        if rooms:
            self._rooms.append(_encode(rooms)[1:-1])
        for server, found in reported.items():
            self._reported.setdefault(server, []).append(_encode(found)[1:-1])

    @property
    def rooms(self) -> Any:
        """All rooms."""
        return Raw(b"[%b]" % b",".join(self._rooms))

    def reported(self, server: str) -> Any:
        """The rooms that a server reports."""
        return Raw(b"[%b]" % b",".join(self._reported.get(server, ())))


async def _nothing_later(done: Awaitable[None]) -> dict[str, object]:
    await done
    return {}


def _grid_api(server: str | None) -> None:
    if server not in (None, "grid"):
        raise RpcError(INVALID_REQUEST, "api must be used for grid servers only")


def _only_grid(server: str) -> None:
    if server != "grid":
        raise RpcError(INVALID_REQUEST, "only grid is supported")


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
