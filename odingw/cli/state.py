"""What the admin endpoint's ``/monitor/state`` says, read so that older and newer gateways do."""

import email.utils
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click
import msgspec
import requests
from msgspec import Struct, field
from msgspec.structs import replace

from odingw.cli.options import ADMIN_VARIABLE, DEFAULT_ADMIN, Address, Url, address
from odingw.cli.output import UNREACHABLE, Failed
from odingw.errors import NOT_JSON

T = TypeVar("T")

_COMPLETION_TIMEOUT: Final = 1.0
_HARMLESS: Final = re.compile(r"[\w.:@{}/+-]+", re.ASCII)
_SKEW: Final = 2.0
"""Seconds; the ``Date`` header knows no fractions."""


class Server(Struct, frozen=True, kw_only=True):
    """An ODIN server; the names are the gateway's."""

    address: str
    version: str = ""
    load: float = 0.0
    expected_load: float = 0.0
    clients: int = 0
    rooms: int = 0
    peers: int = 0
    reservations: int = 0
    disabled: bool = False
    drained: bool = False
    unheard: bool = False
    last_seen: float = 0.0
    tasks: int = 0

    @property
    def state(self) -> str:
        """One word."""
        states = {"disabled": self.disabled, "unheard": self.unheard, "drained": self.drained}
        return next((name for name, holds in states.items() if holds), "ready")


class Room(Struct, frozen=True, kw_only=True):
    """A room; ``id`` is its namespace and name."""

    id: tuple[str, str]
    server: str = ""
    customer: str = ""
    peers: int = 0
    reservations: int = 0
    reported: bool = True
    updated: float = 0.0


class PlacedRoom(Room, frozen=True, kw_only=True):
    """A room, and the pool it is in."""

    pool: str = ""


class _RoomsPage(Struct, frozen=True):
    total: int
    rooms: list[PlacedRoom]


class Pool(Struct, frozen=True):
    """A grid."""

    servers: list[Server] = []
    rooms: list[Room] = []


class Usage(Struct, frozen=True, kw_only=True):
    """What a customer uses, and may use; a limit of None is none."""

    customer: str = ""
    id: str = ""
    max_peers: int | None = None
    max_rooms: int | None = None
    peers: int = 0
    reservations: int = 0
    rooms: int = 0

    @property
    def name(self) -> str:
        """The customer's id."""
        return self.id or self.customer


class Requests(Struct, frozen=True):
    """How many calls had an outcome since the gateway started."""

    method: str
    outcome: str
    count: int


class TurnServer(Struct, frozen=True):
    """A TURN server; ``up`` is None where nobody looks."""

    uri: str
    up: bool | None = None


class Turn(Struct, frozen=True):
    """What there is of TURN."""

    enabled: bool = False
    credentials: int = 0
    servers: list[TurnServer] = []


class State(Struct, frozen=True):
    """All of it; what a gateway does not tell is None or empty.

    Attributes:
        room_count: how many rooms there are, where not all of them are in ``pools``.
    """

    pools: dict[str, Pool] = field(default_factory=dict)
    usage: list[Usage] = []
    version: str | None = None
    uptime: float | None = None
    ready: bool | None = None
    customers: list[Usage] | None = None
    requests: list[Requests] = []
    turn: Turn | None = None
    room_count: int | None = None

    def all_servers(self) -> Iterator[Server]:
        """Yield the servers of all pools."""
        for pool in self.pools.values():
            yield from pool.servers

    def all_rooms(self) -> Iterator[Room]:
        """Yield the rooms of all pools."""
        for pool in self.pools.values():
            yield from pool.rooms

    def count_rooms(self) -> int:
        """Return how many rooms there are."""
        if self.room_count is not None:
            return self.room_count
        return sum(len(pool.rooms) for pool in self.pools.values())

    def limits(self) -> list[Usage]:
        """Return the customers with their limits, or, of an older gateway, without."""
        return self.usage if self.customers is None else self.customers

    def calls(self) -> Counter[tuple[str, str]]:
        """Return the numbers of calls by method and outcome."""
        counts: Counter[tuple[str, str]] = Counter()
        for one in self.requests:
            counts[one.method, one.outcome] += one.count
        return counts


class Snapshot(Struct, frozen=True):
    """The state at one time.

    Attributes:
        state: the state.
        document: the same as it came, if it has every room.
        now: the gateway's time, unix seconds.
        taken: when it came, by a clock that only goes forward.
    """

    state: State
    document: Any
    now: float
    taken: float


def open_session(place: Address) -> requests.Session:
    """Return a session for GETs that finds its way to this very machine without a proxy."""
    session = requests.Session()
    session.auth = place.auth
    session.verify = place.verify
    session.headers["Accept"] = "application/json"
    with suppress(ValueError):
        host = urlsplit(place.url).hostname or ""
        if host == "localhost" or ip_address(host).is_loopback:
            session.trust_env = False
    return session


def unreachable(url: str, error: requests.RequestException) -> Failed:
    """Return the error for a GET that had no answer."""
    if isinstance(error, requests.Timeout):
        cause = "no answer in time"
    elif isinstance(error, requests.exceptions.SSLError):
        cause = "its certificate is not trusted, or TLS failed; see --ca-file"
    else:
        cause = "nothing answers there" + (
            ", or it wants https" if url.lower().startswith("http:") else ""
        )
        inner: Any = error
        while inner is not None:
            if isinstance(inner, OSError) and inner.strerror and inner.errno:
                cause = inner.strerror.lower()
            reason = getattr(inner, "reason", None)
            inner = inner.__cause__ or (
                reason if isinstance(reason, BaseException) else inner.__context__
            )
    return Failed(f"cannot reach {url}: {cause}", UNREACHABLE)


def snapshot(admin: Address, session: requests.Session) -> Snapshot:
    """Get the state, with every room.

    Raises:
        Failed: it cannot be had; the exit status tells whether the gateway was reached.
    """
    response = _ask(admin, session, "state")
    state, document = _read(admin, response, State), _read(admin, response, object)
    return Snapshot(state, document, _now(response), time.monotonic())


def summary(admin: Address, session: requests.Session, rooms: int = 0) -> Snapshot:
    """Get the state with those rooms alone that have the most peers.

    Of a gateway that is too old for that, all rooms.

    Args:
        admin: the admin endpoint.
        session: as from ``open_session``.
        rooms: how many.

    Raises:
        Failed: it cannot be had; the exit status tells whether the gateway was reached.
    """
    response = _ask(admin, session, "summary")
    if response.status_code == 404:
        return snapshot(admin, session)
    state = _read(admin, response, State)
    if rooms:
        page = _read(admin, _ask(admin, session, f"rooms?limit={rooms}"), _RoomsPage)
        for room in page.rooms:
            if room.pool in state.pools:
                state.pools[room.pool].rooms.append(room)
        state = replace(state, room_count=page.total)
    return Snapshot(state, None, _now(response), time.monotonic())


def _ask(admin: Address, session: requests.Session, page: str) -> requests.Response:
    """Get a page under ``/monitor``, whatever its status."""
    url = f"{admin.url.rstrip('/')}/monitor/{page}"
    try:
        response = session.get(url, timeout=admin.timeout, allow_redirects=False)
    except requests.RequestException as error:
        raise unreachable(admin.url, error) from None
    if response.status_code == 401:
        raise Failed(f"{admin.url} wants a user and password, or others: see --user")
    return response


def _read(admin: Address, response: requests.Response, wanted: type[T]) -> T:
    """Read what was answered."""
    try:
        if response.status_code != 200:
            raise ValueError
        return msgspec.json.decode(response.content, type=wanted)
    except (ValueError, *NOT_JSON):
        raise Failed(
            f"{admin.url.rstrip('/')}/monitor/state is not the state of a gateway (HTTP status "
            f"{response.status_code}); --admin must name the admin endpoint"
        ) from None


def fetch(admin: Address, *, rooms: bool) -> State:
    """Get the state once, with all rooms or none."""
    with open_session(admin) as session:
        return (snapshot if rooms else summary)(admin, session).state


def _now(response: requests.Response) -> float:
    """The gateway's time: this machine's, unless the two differ."""
    now = time.time()
    with suppress(KeyError, TypeError, ValueError):
        theirs = email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp()
        if abs(theirs - now) > _SKEW:
            return theirs
    return now


def _known(context: click.Context, *, rooms: bool) -> State:
    """The state, for completion: quickly or not at all."""
    url = context.params.get("admin_url") or os.environ.get(ADMIN_VARIABLE) or DEFAULT_ADMIN
    with suppress(click.ClickException):
        place = address(Url().convert(url, None, None), None, _COMPLETION_TIMEOUT, verify=True)
        return fetch(place, rooms=rooms)
    return State()


def complete_servers(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete a server's address."""
    return _offered((one.address for one in _known(context, rooms=False).all_servers()), incomplete)


def complete_rooms(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete a room's name."""
    return _offered((one.id[1] for one in _known(context, rooms=True).all_rooms()), incomplete)


def _offered(names: Iterable[str], incomplete: str) -> list[str]:
    """Return the names that a shell may be told: strangers choose them, and it may expand them."""
    found = {one for one in names if one.startswith(incomplete) and _HARMLESS.fullmatch(one)}
    return sorted(found)
