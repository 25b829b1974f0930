"""Reads what Redis holds of a pool into the pool's grid.

Other gateways go on meanwhile. What they commit is told and put in after this; a row says what a
record is, not how it changed, so the last word on each is right whatever was read before it.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from odingw.errors import NOT_JSON
from odingw.state.redis.layout import (
    Keys,
    read_ban_key,
    read_base,
    read_base_key,
    read_place,
    read_place_key,
    read_room_key,
    split_room,
)
from odingw.state.redis.replica import Replica, Snapshot

if TYPE_CHECKING:
    from odingw.grid.changes import PlaceKey

_COUNT: Final = 200
"""Records that are put in at a time: about 4 ms."""

_log = Logger("odingw.state")

Execute = Callable[..., Deferred[Any]]
"""Carries out a Redis command."""


async def load(
    keys: Keys, replica: Replica, execute: Execute, pause: Callable[[], Awaitable[object]]
) -> None:
    """Make a pool's grid a copy of what Redis holds; what cannot be read is left out.

    Args:
        keys: of the pool.
        replica: puts into the grid.
        execute: carries out a Redis command.
        pause: lets others get their turn before what it returns is done.

    Raises:
        RedisAwayError: Redis did not answer.
    """
    reader = _Reader(keys, execute)
    seen = Snapshot()

    def put_server(address: str, row: str) -> None:
        replica.put_server(address, row, heard.get(address, "0"))
        replica.put_flags(address, disabled=address in disabled, drained=address in drained)
        seen.servers.add(address)

    def put_key(address: str, value: str) -> None:
        replica.put_key(address, value)
        seen.keys.add(address)

    def put_base(key: str, value: str) -> None:
        replica.put_base(read_base_key(key), read_base(value))

    def put_room(key: str, value: str) -> None:
        replica.put_room(key, *split_room(value))
        seen.rooms.add(read_room_key(key))

    def put_place(key: str, value: str) -> None:
        places.append((read_place(value).ends, read_place_key(key), key, value))

    def put_ban(key: str, value: str) -> None:
        replica.put_ban(key, value)
        seen.bans.add(read_ban_key(key))

    def put_task(number: str, value: str) -> None:
        if number in at:
            replica.put_task(int(number), at[number], int(returned.get(number, 0)), value)
            seen.tasks.add(int(number))

    heard = await reader.all("heard")
    disabled = await reader.members("disabled")
    drained = await reader.members("drained")
    places: list[tuple[float, PlaceKey, str, str]] = []
    await reader.each("servers", put_server)
    await reader.each("keys", put_key)
    await reader.each("bases", put_base)
    await reader.each("rooms", put_room)
    await reader.each("places", put_place)
    for number, (_, place, key, value) in enumerate(sorted(places), 1):
        seen.places.add(place)
        replica.put_place(key, value, None)
        if not number % _COUNT:
            await pause()
    await reader.each("bans", put_ban)
    at = await reader.all("at")
    returned = await reader.all("returned")
    await reader.each("tasks", put_task)
    for number, _ in enumerate(replica.sweep(seen), 1):
        if not number % _COUNT:
            await pause()
    if reader.unreadable:
        _log.error(
            "records in Redis cannot be read and are left out: {kinds}",
            kinds=", ".join(f"{count} of {name}" for name, count in reader.unreadable.items()),
        )


class _Reader:
    """Reads what Redis holds of a pool.

    Attributes:
        unreadable: how many records of each key were left out.
    """

    def __init__(self, keys: Keys, execute: Execute) -> None:
        self.unreadable: dict[str, int] = {}
        self._keys = keys
        self._execute = execute

    async def members(self, name: str) -> set[str]:
        """Return the members of a set."""
        found: set[str] = set()
        for member in await self._execute("SMEMBERS", self._keys[name]):
            self._try(name, found.add, member)
        return found

    async def all(self, name: str) -> dict[str, str]:
        """Return a hash."""
        found: dict[str, str] = {}
        await self.each(name, found.__setitem__)
        return found

    async def each(self, name: str, put: Callable[[str, str], object]) -> None:
        """Call with fields and values of a hash, some of them perhaps twice."""
        cursor = b"0"
        while True:
            command = ("HSCAN", self._keys[name], cursor, "COUNT", str(_COUNT))
            cursor, found = await self._execute(*command)
            for field, value in zip(found[::2], found[1::2], strict=True):
                self._try(name, put, field, value)
            if cursor == b"0":
                return

    def _try(self, name: str, put: Callable[..., object], *texts: bytes) -> None:
        try:
            put(*(text.decode() for text in texts))
        except (KeyError, ValueError, *NOT_JSON):
            self.unreadable[name] = self.unreadable.get(name, 0) + 1
