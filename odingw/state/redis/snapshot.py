"""Reads what Redis holds of a pool into the pool's grid.

Other gateways go on meanwhile. What they commit is told and put in after this; a row says what a
record is, not how it changed, so the last word on each is right whatever was read before it.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted.internet.defer import Deferred

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

_COUNT = "500"

Execute = Callable[..., Deferred[Any]]
"""Carries out a Redis command."""


async def load(keys: Keys, replica: Replica, execute: Execute) -> None:
    """Make a pool's grid a copy of what Redis holds.

    Raises:
        RedisAwayError: Redis did not answer.
    """
    seen = Snapshot()
    heard = dict([item async for item in _items(keys, "heard", execute)])
    disabled = await _members(keys, "disabled", execute)
    drained = await _members(keys, "drained", execute)
    async for address, row in _items(keys, "servers", execute):
        seen.servers.add(address)
        replica.put_server(address, row, heard.get(address, "0"))
        replica.put_flags(address, disabled=address in disabled, drained=address in drained)
    async for address, value in _items(keys, "keys", execute):
        seen.keys.add(address)
        replica.put_key(address, value)
    async for key, value in _items(keys, "bases", execute):
        replica.put_base(read_base_key(key), read_base(value))
    async for key, value in _items(keys, "rooms", execute):
        seen.rooms.add(read_room_key(key))
        replica.put_room(key, *split_room(value))
    places = [item async for item in _items(keys, "places", execute)]
    places.sort(key=lambda item: (read_place(item[1]).ends, read_place_key(item[0])))
    for key, value in places:
        seen.places.add(read_place_key(key))
        replica.put_place(key, value, None)
    async for key, value in _items(keys, "bans", execute):
        seen.bans.add(read_ban_key(key))
        replica.put_ban(key, value)
    at = dict([item async for item in _items(keys, "at", execute)])
    returned = dict([item async for item in _items(keys, "returned", execute)])
    async for number, value in _items(keys, "tasks", execute):
        if number in at:
            seen.tasks.add(int(number))
            replica.put_task(int(number), at[number], int(returned.get(number, 0)), value)
    replica.sweep(seen)


async def _members(keys: Keys, name: str, execute: Execute) -> set[str]:
    return {member.decode() for member in await execute("SMEMBERS", keys[name])}


async def _items(keys: Keys, name: str, execute: Execute) -> AsyncIterator[tuple[str, str]]:
    """Yield fields and values of a hash, some of them perhaps twice."""
    cursor = b"0"
    while True:
        cursor, found = await execute("HSCAN", keys[name], cursor, "COUNT", _COUNT)
        for field, value in zip(found[::2], found[1::2], strict=True):
            yield field.decode(), value.decode()
        if cursor == b"0":
            return
