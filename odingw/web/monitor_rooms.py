"""Finds rooms for the status page, however many there are, without holding the reactor up."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final

from msgspec import Struct
from twisted.internet.defer import Deferred

from odingw.errors import invalid_params
from odingw.grid.store import PAGE, Store
from odingw.grid.values import RoomView

MOST_ROOMS: Final = 200
"""How many rooms one answer holds."""

DEEPEST: Final = 2000
"""How many rooms may be passed over."""

LONGEST_SEARCH: Final = 200
"""How many characters may be searched for."""

LONGEST_NAME: Final = 500
"""How many characters of a name are shown."""

MOST_READ: Final = 100_000
"""How many rooms are looked at."""

_STEP: Final = 0.002
"""Seconds after which others have their turn."""

_SORT_KEYS: Final[Mapping[str, Callable[["RoomEntry"], Any]]] = {
    "room": lambda room: room.id[1],
    "customer": lambda room: room.customer,
    "server": lambda room: room.server,
    "peers": lambda room: room.peers,
    "reservations": lambda room: room.reservations,
}


class RoomQuery(Struct, frozen=True, kw_only=True):
    """What rooms are wanted.

    Attributes:
        pool: only those of this pool; None: of any.
        server: only those on this server; None: on any.
        search: only those with this in namespace, name or customer, whatever the case.
        sort: what they are ordered by.
        descending: whether the order is reversed.
        limit: how many to return.
        offset: how many to pass over.
    """

    pool: str | None = None
    server: str | None = None
    search: str = ""
    sort: str = "peers"
    descending: bool = True
    limit: int = 50
    offset: int = 0


class RoomEntry(Struct, frozen=True):
    """A room, and the pool it is in."""

    pool: str
    id: tuple[str, str]
    customer: str
    server: str
    peers: int
    reservations: int
    reported: bool


class RoomsPage(Struct):
    """Rooms that were found.

    Attributes:
        total: how many rooms were looked at.
        matches: how many of them were wanted.
        rooms: the part asked for.
        complete: whether all rooms were looked at, and not the first only.
    """

    total: int = 0
    matches: int = 0
    rooms: Sequence[RoomEntry] = ()
    complete: bool = True


def read_query(args: Mapping[bytes, Sequence[bytes]]) -> RoomQuery:
    """Read the query of a URL.

    Raises:
        RpcError: it cannot be used ("Invalid params").
    """
    text = {
        name.decode("latin-1"): values[0].decode("utf-8", "replace")
        for name, values in args.items()
    }
    search = text.get("search", "").strip()
    if len(search) > LONGEST_SEARCH:
        raise invalid_params(f"search: expected at most {LONGEST_SEARCH} characters")
    sort = text.get("sort", "peers")
    if sort not in _SORT_KEYS:
        raise invalid_params(f"sort: expected one of {', '.join(_SORT_KEYS)}")
    order = text.get("order", "descending")
    if order not in ("ascending", "descending"):
        raise invalid_params("order: expected ascending or descending")
    return RoomQuery(
        pool=text.get("pool"),
        server=text.get("server") or None,
        search=search.casefold(),
        sort=sort,
        descending=order == "descending",
        limit=_number(text, "limit", 50, 1, MOST_ROOMS),
        offset=_number(text, "offset", 0, 0, DEEPEST),
    )


class RoomSearch:
    """Walks all rooms, a few milliseconds at a time.

    Args:
        store: the grids.
        later: given a function, calls it when the reactor has served everybody else; returns
            something with a ``cancel`` method.
        clock: seconds.
    """

    def __init__(
        self,
        store: Store,
        later: Callable[[Callable[[], None]], Any],
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._store = store
        self._later = later
        self._clock = clock

    async def find(self, query: RoomQuery) -> RoomsPage:
        """Return the rooms that are wanted, of the first :data:`MOST_READ`."""
        page, found = RoomsPage(), _Found(query)
        over = _over(self._clock)
        async for pool, rooms in self._pages(query):
            if page.total >= MOST_READ:
                page.complete = False
                break
            page.total += len(rooms)
            page.matches += found.add(pool, rooms)
            if over():
                await self._pause()
                over = _over(self._clock)
        page.rooms = found.rooms()
        return page

    async def _pages(self, query: RoomQuery) -> AsyncIterator[tuple[str, Sequence[RoomView]]]:
        for pool, grid in list(self._store.pools()):
            if query.pool in (None, pool):
                async for rooms in grid.pages():
                    yield pool, rooms

    def _pause(self) -> Deferred[None]:
        paused: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._later(lambda: paused.callback(None))
        return paused


class _Found:
    """The rooms that come first of those that are wanted."""

    def __init__(self, query: RoomQuery) -> None:
        self._query = query
        self._most = query.offset + query.limit
        self._found: list[RoomEntry] = []

    def add(self, pool: str, rooms: Sequence[RoomView]) -> int:
        """Take in rooms, and return how many of them are wanted."""
        matching = [_entry(pool, room) for room in rooms if _fits(room, self._query)]
        self._found += matching
        if len(self._found) > 2 * self._most + PAGE:
            self._trim()
        return len(matching)

    def rooms(self) -> list[RoomEntry]:
        """Return the part that is asked for."""
        self._trim()
        return self._found[self._query.offset :]

    def _trim(self) -> None:
        # Sorting keeps the order of equals, so the second key goes first.
        self._found.sort(key=lambda room: room.id)
        self._found.sort(key=_SORT_KEYS[self._query.sort], reverse=self._query.descending)
        del self._found[self._most :]


def _over(clock: Callable[[], float]) -> Callable[[], bool]:
    end = clock() + _STEP
    return lambda: clock() > end


def _fits(room: RoomView, query: RoomQuery) -> bool:
    if query.server is not None and room.server != query.server:
        return False
    if not query.search:
        return True
    namespace, name = room.id
    return query.search in f"{namespace}/{name}\n{room.customer}".casefold()


def _entry(pool: str, room: RoomView) -> RoomEntry:
    namespace, name = room.id
    return RoomEntry(
        pool,
        (_cut(namespace), _cut(name)),
        _cut(room.customer),
        room.server,
        room.peers,
        room.reservations,
        room.reported,
    )


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"


def _number(text: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = text.get(name)
    if value is None:
        return default
    if value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most:
        return int(value)
    raise invalid_params(f"{name}: expected a whole number from {least} to {most}")
