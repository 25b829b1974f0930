"""Takes over the state of a fleet of the version before, whose gateways are stopped.

Its keys are read and left as they are. A gateway that is killed amid this has the next one begin
anew; what is there already stays, and nothing is placed or sent before all is there.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from msgspec import DecodeError, json

from odingw.grid.bans import BanKey
from odingw.grid.ledger import BanRow, KeyRow, PlaceRow, RoomRow, ServerRow
from odingw.grid.records import ReservationKey
from odingw.grid.rooms import RoomId, base_of
from odingw.grid.tasks import TaskBody, size_of
from odingw.state.redis.errors import RedisAwayError
from odingw.state.redis.rows import ban_key, room_key, user_key
from odingw.state.redis.scripts import SCRIPTS, Execute

_REFUSED_LAYOUT: Final = "5"
"""What the version before finds in place of its layout: it works beside 4, and does not then."""

_PAGE: Final = 200

_server: Final = json.Decoder(ServerRow).decode
_key: Final = json.Decoder(KeyRow).decode
_room: Final = json.Decoder(RoomRow).decode
_room_id: Final[Callable[[Any], RoomId]] = json.Decoder(RoomId).decode
_place: Final = json.Decoder(PlaceRow).decode
_place_key: Final = json.Decoder(tuple[RoomId, ReservationKey]).decode
_ban: Final = json.Decoder(BanRow).decode
_ban_key: Final[Callable[[Any], BanKey]] = json.Decoder(tuple[RoomId, str | None]).decode
_task: Final = json.Decoder(tuple[str, str, TaskBody]).decode

Put = Callable[[str, Sequence[Any]], Awaitable[object]]
"""Puts items of a kind into the new layout (``restore.lua``)."""


class TakeOver:
    """The state of one pool of the version before.

    Args:
        execute: carries out commands.
        prefix: how the names of keys begin.
        main: the key of the pool's ``main``.
        claim: arguments of ``takeover.lua``: gateway, time, lease.
        prints: fingerprints of the master keys that this gateway has.
        skip: told of what cannot be read.
    """

    def __init__(
        self,
        execute: Execute,
        prefix: str,
        main: str,
        claim: Sequence[str],
        prints: Sequence[str],
        skip: Callable[[str], None],
    ) -> None:
        self._execute = execute
        self._fleet = f"{{{prefix}}}:fleet"
        self._tag = main.removesuffix("main")
        self._main = main
        self._claim = claim
        self._prints = prints
        self._skip = skip

    async def begin(self) -> bool:
        """Claim the work; False if there is none.

        Raises:
            RedisAwayError: it is not the time for it yet.
        """
        # Their keys are derived from the master key that this fleet has.
        fingerprint = await self._execute("HGET", self._fleet, "fingerprint")
        if fingerprint:
            await self._execute("HSETNX", self._main, "key", fingerprint)
            if fingerprint.decode() not in self._prints:
                return False
        old = (self._main, f"{self._tag}meta", f"{self._tag}members")
        said = (await SCRIPTS["takeover"](self._execute, old, *self._claim, "")).decode()
        if said in _WAITS:
            raise RedisAwayError(_WAITS[said])
        await self._execute("HSET", self._fleet, "layout", _REFUSED_LAYOUT)
        return bool(said == "go")

    async def run(self, put: Put) -> None:
        """Put everything into the new layout.

        Raises:
            RedisAwayError: Redis is away, or another gateway has taken over.
        """
        for kind, items in (
            ("facts", self._facts()),
            ("servers", self._servers()),
            ("rooms", self._rooms()),
            ("places", self._places()),
            ("tasks", self._tasks()),
        ):
            page: list[Any] = []
            async for item in items:
                page.append(item)
                if len(page) >= _PAGE:
                    await self.begin()
                    await put(kind, page)
                    page = []
            await put(kind, page)
        old = (self._main, f"{self._tag}meta", f"{self._tag}members")
        await SCRIPTS["takeover"](self._execute, old, *self._claim, "1")

    async def _all(self, name: str) -> AsyncIterator[tuple[bytes, bytes]]:
        cursor = b"0"
        while True:
            cursor, found = await self._execute("HSCAN", self._tag + name, cursor, "COUNT", "500")
            for item in zip(found[::2], found[1::2], strict=True):
                yield item
            if cursor == b"0":
                return

    async def _read(
        self, name: str, read: Callable[[bytes, bytes], Any]
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Yield what can be read of a hash."""
        async for field, value in self._all(name):
            try:
                item = read(field, value)
            except (DecodeError, ValueError, IndexError) as error:
                self._skip(f"{name} of layout 3: {error}")
            else:
                yield item

    async def _facts(self) -> AsyncIterator[Any]:
        number = 0
        async for key, row in self._read("bans", lambda k, v: (_ban_key(k), _ban(_after(v)))):
            number += 1
            yield ban_key(key), [number, row.until, row.customer]
        for address in await self._execute("SMEMBERS", f"{self._tag}drained"):
            number += 1
            yield f"d{address.decode()}", [number, True]
        async for address, row in self._read("keys", lambda k, v: (k.decode(), _key(_after(v)))):
            number += 1
            yield f"g{address}", [number, row.kid, row.at]

    async def _servers(self) -> AsyncIterator[Any]:
        rows = dict(
            [item async for item in self._read("servers", lambda k, v: (k.decode(), _server(v)))]
        )
        disabled = set(await self._execute("SMEMBERS", f"{self._tag}disabled"))
        load = sum(row.load_seen for row in rows.values())
        clients = sum(row.clients_seen for row in rows.values())
        fleet = load / clients if clients > 1e-9 else 1 / 500
        for address, row in rows.items():
            cost = (row.load_seen + 20 * fleet) / (row.clients_seen + 20)
            state = int(address.encode() in disabled)
            # Nobody hears it yet, so it waits as one does whose gateway is gone.
            of_grid = [row.kid, state, False, True, row.estimate, cost, 0, ""]
            of_report = [row.version, row.load, row.load_seen, row.clients_seen, row.clients]
            yield address, [*of_grid, *of_report, row.first_seen, row.last_seen, -1]

    async def _rooms(self) -> AsyncIterator[Any]:
        async for room, value in self._read("rooms", lambda k, v: (_room_id(k), _split(v))):
            server, row = value
            yield room_key(*room), server, row.customer, row.peers, row.placed

    async def _places(self) -> AsyncIterator[Any]:
        bases = {key: value[2:].decode() async for key, value in self._all("bases")}
        async for key, row in self._read("places", lambda k, v: (_place_key(k), _place(_after(v)))):
            (namespace, name), client = key
            server = bases.get(json.encode((namespace, base_of(name))))
            if server is not None:
                room, owner = room_key(namespace, name), row.room_customer or row.customer
                ends = row.ends
                yield room, user_key(client), row.customer, server, ends, row.placed, owner

    async def _tasks(self) -> AsyncIterator[Any]:
        at = {key: value.decode() async for key, value in self._all("at")}
        returned = {key: int(value) async for key, value in self._all("returned")}
        async for number, found in self._read("tasks", lambda k, v: (k, _task(v))):
            _, customer, body = found
            namespace, name = body.id
            base, text = room_key(namespace, base_of(name)), json.encode(body).decode()
            row = [at.get(number, ""), base, customer, size_of(body), returned.get(number, 0), 0]
            yield f"{int(number):016d} 0", [*row, text]


_WAITS: Final = {
    "busy": "another gateway takes over the state of the version before",
    "runs": "gateways of the version before still run over this Redis; stop them all first",
}


def _after(value: bytes) -> bytes:
    return value[value.index(b" ") + 1 :]


def _split(value: bytes) -> tuple[str, RoomRow]:
    server, _, row = value.partition(b"\n")
    return server.decode(), _room(row)
