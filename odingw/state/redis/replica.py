"""A grid as a copy of what Redis holds: puts in what is told, and makes operations of what changed.

What Redis holds of the records is kept by key, for two reasons: what is gone from the grid must be
taken out of Redis by what stands there, and after a break what is gone from Redis must be taken out
of the grid.
"""

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, TypeAlias

from odingw.grid.bans import BanKey
from odingw.grid.changes import Changes, PlaceKey
from odingw.grid.grid import Grid
from odingw.grid.ledger import BaseRow
from odingw.grid.records import Reservation
from odingw.grid.rooms import BaseId, RoomId, base_of
from odingw.state.redis.layout import (
    LAYOUT,
    Group,
    Operation,
    ban_value,
    base_key,
    encode,
    key_value,
    place_value,
    read_ban,
    read_ban_key,
    read_base,
    read_base_key,
    read_key,
    read_place,
    read_place_key,
    read_room,
    read_room_key,
    read_server,
    read_task,
    read_time,
    task_value,
)

if TYPE_CHECKING:
    from odingw.grid.tasks import Task

Place: TypeAlias = tuple[PlaceKey, Reservation]
"""A changed reservation."""


_ALWAYS: Final = "1e300"
"""A time that is later than any."""


class Replica:
    """One pool's grid beside what Redis holds of it.

    Args:
        grid: the grid.
        changes: what takes note of its changes.
        layout: in which rows are written.
    """

    def __init__(self, grid: Grid, changes: Changes, layout: int) -> None:
        self._grid = grid
        self._ledger = grid.ledger
        self._changes = changes
        self._layout = layout
        self.rooms: dict[RoomId, str] = {}
        self.places: dict[PlaceKey, float] = {}
        self.bans: dict[BanKey, float] = {}
        self.tasks: dict[int, Task] = {}
        self.heard: dict[str, float] = {}
        self.keys: dict[str, float] = {}
        self.reported: set[str] = set()
        # What is in a base may be told later than the base.
        self._fresh: set[BaseId] = set()
        self._stale: set[BaseId] = set()

    # From Redis into the grid

    def apply(self, parts: tuple[str, ...], now: float | None) -> None:
        """Put in what a commit is told as.

        Args:
            parts: what is told.
            now: the time, so that the growth of rooms is foreseen for which others have reserved
                places; None: they are this gateway's own, who has foreseen it already.
        """
        found = iter(parts)
        for code in found:
            match code:
                case "p":
                    self.put_place(next(found), next(found), now)
                case "-p":
                    self.drop_place(read_place_key(next(found)))
                case "B":
                    key = read_base_key(next(found))
                    self._fresh.add(key)
                    self.put_base(key, read_base(next(found)))
                case "r":
                    self.put_room(next(found), next(found), next(found))
                case "-r":
                    self.drop_room(read_room_key(next(found)), next(found))
                case "S":
                    self.hear_server(next(found), next(found), next(found))
                case "-S":
                    self.drop_server(next(found))
                case "k" if self._layout >= LAYOUT:
                    self.put_key(next(found), next(found))
                case "-k" if self._layout >= LAYOUT:
                    self.drop_key(next(found))
                case "F":
                    address, disabled, drained = next(found), next(found), next(found)
                    self.put_flags(address, disabled=disabled == "1", drained=drained == "1")
                case "E":
                    self.excuse(read_time(next(found)))
                case "b":
                    self.put_ban(next(found), next(found))
                case "-b":
                    self.drop_ban(read_ban_key(next(found)))
                case "T":
                    number, server, returned, row = (next(found) for _ in range(4))
                    self.put_task(int(number), server, int(returned), row)
                case "-T":
                    self.drop_task(int(next(found)))
                case "t":
                    self.move_task(int(next(found)), next(found))
                case "V":
                    self.returned(int(next(found)), int(next(found)))
                case _:
                    # A later layout may tell more; how much of it belongs to this, nobody knows.
                    break

    def forget_places(self) -> None:
        """Forget reservations that are over, and of which Redis has never been told."""
        self._changes.forget_places(
            lambda place: place in self.places or self._ledger.place(place) is not None
        )

    def drop_empty_bases(self) -> None:
        """Forget bases for which no room has come since before the last call of this."""
        for base in self._stale:
            self._ledger.drop_base_if_empty(base)
        self._stale, self._fresh = self._fresh, set()

    def hear_server(self, address: str, row: str, heard: str) -> None:
        """Take in that a server has reported, which also enables it again."""
        self.heard[address] = read_time(heard)
        self._ledger.hear_server(address, read_server(row), self.heard[address])

    def put_server(self, address: str, row: str, heard: str) -> None:
        """Put in a server's row; whether it is disabled or drained is told apart from it."""
        self.heard[address] = read_time(heard)
        self._ledger.put_server(address, read_server(row), keep_flags=True)

    def excuse(self, now: float) -> None:
        """Count every server as just heard."""
        self._grid.excuse(now)
        self.heard = dict.fromkeys(self.heard, now)

    def drop_server(self, address: str) -> None:
        """Take a server out."""
        self.heard.pop(address, None)
        self._ledger.drop_server(address)

    def put_flags(self, address: str, *, disabled: bool, drained: bool) -> None:
        """Put in whether a server is disabled or drained."""
        self._ledger.put_flags(address, disabled=disabled, drained=drained)

    def put_key(self, address: str, value: str) -> None:
        """Put in which key a server was given."""
        row = read_key(value)
        self.keys[address] = max(row.at, self.keys.get(address, 0.0))
        self._ledger.put_key(address, row)

    def drop_key(self, address: str) -> None:
        """Take out which key a server was given."""
        if self.keys.pop(address, None) is not None:
            self._ledger.drop_key(address)

    def put_base(self, base_id: BaseId, row: BaseRow) -> None:
        """Put in where a base lives."""
        self._ledger.put_base(base_id, row)

    def put_room(self, key: str, server: str, row: str) -> None:
        """Put in what a server reports of a room."""
        room = read_room_key(key)
        self.rooms[room] = server
        if self._ledger.server_of(room) is None:
            # It has just been forgotten here, by who did not know that it goes on.
            self._ledger.put_base((room[0], base_of(room[1])), BaseRow(server, True))
        if self._ledger.server_of(room) == server:
            self._ledger.put_room(room, read_room(row))

    def drop_room(self, room: RoomId, server: str) -> None:
        """Take out what a server reported of a room."""
        if self.rooms.get(room) == server:
            del self.rooms[room]
            if self._ledger.server_of(room) == server:
                self._ledger.drop_room(room)

    def put_place(self, key: str, value: str, now: float | None) -> None:
        """Put in a reservation."""
        place, row = read_place_key(key), read_place(value)
        self.places[place] = row.ends
        self._ledger.put_place(place, row, now)

    def drop_place(self, place: PlaceKey) -> None:
        """Take a reservation out."""
        if self.places.pop(place, None) is not None:
            self._ledger.drop_place(place)

    def put_ban(self, key: str, value: str) -> None:
        """Put in a ban."""
        ban, row = read_ban_key(key), read_ban(value)
        self.bans[ban] = row.until
        self._ledger.put_ban(ban, row)

    def drop_ban(self, ban: BanKey) -> None:
        """Take a ban out."""
        self.bans.pop(ban, None)
        self._ledger.drop_ban(ban)

    def put_task(self, number: int, server: str, returned: int, row: str) -> None:
        """Put in a task."""
        if number in self.tasks:
            self.move_task(number, server)
            return
        task = self._ledger.put_task(number, read_task(row, server, returned))
        if task is not None:
            self.tasks[number] = task

    def drop_task(self, number: int) -> None:
        """Take a task out."""
        task = self.tasks.pop(number, None)
        if task is not None:
            self._ledger.drop_task(task)

    def move_task(self, number: int, server: str) -> None:
        """Put a task into another server's queue."""
        task = self.tasks.get(number)
        if task is not None and task.server != server:
            self._ledger.move_task(task, server)

    def returned(self, number: int, times: int) -> None:
        """Take note that a task came back."""
        if number in self.tasks:
            self.tasks[number].returned = times

    # From the grid to Redis

    def operations(self, changes: Changes, *, apart: bool = False) -> Iterator[Group]:
        """Yield what commits these changes.

        Args:
            changes: of the grid.
            apart: Redis was away; who reports a room has a claim to it, whoever was sent where.
        """
        for address in changes.servers:
            yield tuple(self._server(address))
        for base_id, (rooms, places) in _by_base(changes).items():
            yield from self._of_base(base_id, rooms, places, changes, apart=apart)
        for ban in changes.bans:
            if self._ledger.ban(ban) is None and (until := self.bans.pop(ban, None)) is not None:
                yield (("-b", encode(ban), repr(until)),)
        for number in changes.tasks:
            yield (("t", str(number)),)
        if self._layout >= LAYOUT:
            for address in changes.keys:
                yield tuple(self._key(address))

    def _of_base(
        self,
        base_id: BaseId,
        rooms: list[RoomId],
        places: list[Place],
        changes: Changes,
        *,
        apart: bool,
    ) -> Iterator[Group]:
        """Yield what commits changes in one base.

        What is gone comes first: a base that was forgotten and placed anew is free only then. The
        first of what is there comes with it: Redis forgets a base that has nothing in it.
        """
        placed = base_id in changes.bases
        name = encode(base_id)
        first: list[Operation] = []
        for room in rooms:
            if room not in changes.moved:
                first += self._room_gone(room)
        for place in places:
            first += self._place_gone(name, place, placed=placed)
        base = self._ledger.base(base_id) if placed else None
        if base is not None:
            claims = base.reported and (apart or self._ledger.is_claimed(base_id))
            first.append(("B", name, base.server, "1" if base.reported else "0", "01"[claims]))
        for room in rooms:
            if room in changes.moved:
                first += self._room_moved(room)
        all_places = (self._place(base_id, name, place) for place in places)
        there = chain.from_iterable(chain(map(self._room, rooms), all_places))
        yield (*first, *islice(there, 1))
        for operation in there:
            yield (operation,)

    def _key(self, address: str) -> Iterator[Operation]:
        row = self._ledger.key(address)
        if row is not None:
            self.keys[address] = row.at
            yield "k", address, key_value(row)
        elif (at := self.keys.pop(address, None)) is not None:
            yield "-k", address, repr(at)

    def _server(self, address: str) -> Iterator[Operation]:
        row = self._ledger.server(address)
        if row is None:
            if (heard := self.heard.pop(address, None)) is not None:
                self.reported.discard(address)
                yield "R", address, repr(heard)
        elif address in self.reported:
            self.reported.discard(address)
            self.heard[address] = row.last_seen
            yield "S", address, encode(row), repr(row.last_seen)
        elif row.disabled and address in self.heard:
            yield "X", address, repr(self._ledger.heard(address))

    def _room_gone(self, room_id: RoomId) -> Iterator[Operation]:
        row, server = self._ledger.room(room_id), self._ledger.server_of(room_id)
        before = self.rooms.get(room_id)
        if before is not None and (row is None or before != server):
            del self.rooms[room_id]
            yield "-r", base_key(room_id), before, encode(room_id)

    def _room_moved(self, room_id: RoomId) -> Iterator[Operation]:
        before = self.rooms.get(room_id)
        if before is not None and before != self._ledger.server_of(room_id):
            del self.rooms[room_id]
            yield "m", base_key(room_id), before, encode(room_id)

    def _room(self, room_id: RoomId) -> Iterator[Operation]:
        row, server = self._ledger.room(room_id), self._ledger.server_of(room_id)
        if row is not None and server is not None:
            self.rooms[room_id] = server
            yield "r", base_key(room_id), server, encode(room_id), encode(row)

    def _place_gone(self, base: bytes, place: Place, *, placed: bool) -> Iterator[Operation]:
        key, last = place
        # A place, and with it perhaps its base, may have been given up and then taken anew.
        if placed or self._ledger.last_place(key, last) is None:
            ends = self.places.pop(key, None)
            if ends is not None:
                yield "-p", base, encode(key), repr(ends)

    def _place(self, base_id: BaseId, base: bytes, place: Place) -> Iterator[Operation]:
        key, last = place
        row, server = self._ledger.last_place(key, last), self._ledger.server_of_base(base_id)
        if row is not None and server is not None:
            self.places[key] = row.ends
            yield "p", base, server, encode(key), place_value(row)

    def everything(self, *, overwrite: bool) -> Iterator[Group]:
        """Yield what puts all that is known into a Redis that has lost it.

        Args:
            overwrite: what Redis holds of bans and drains is older than what is known here; if not,
                another gateway may have told it something newer already.
        """
        everything = self._ledger.everything()
        for address in everything.servers:
            row = self._ledger.server(address)
            if row is not None:
                if row.drained and not overwrite:
                    yield (("Dn", address),)
                yield (("S", address, encode(row), repr(self._ledger.heard(address))),)
                if overwrite:
                    yield (("D", address, "1" if row.drained else "0"),)
                if row.disabled:
                    yield (("X", address, _ALWAYS),)
        everything.servers.clear()
        for ban in everything.bans:
            row_of_ban = self._ledger.ban(ban)
            if row_of_ban is not None:
                self.bans[ban] = row_of_ban.until
                yield (("b" if overwrite else "bn", encode(ban), ban_value(row_of_ban)),)
        everything.bans.clear()
        tasks, everything.tasks = everything.tasks, {}
        yield from self.operations(everything, apart=True)
        for number, task in sorted(tasks.items()):
            value = task_value(task.body, task.customer)
            yield (("U", str(number), task.server, str(task.returned), value),)

    # After a break

    def sweep(self, seen: "Snapshot") -> Iterator[None]:
        """Take out of the grid what Redis has no more, one thing at a time."""
        for place in [place for place in self.places if place not in seen.places]:
            self.drop_place(place)
            yield
        for room, server in [item for item in self.rooms.items() if item[0] not in seen.rooms]:
            self.drop_room(room, server)
            yield
        for ban in [ban for ban in self.bans if ban not in seen.bans]:
            self.drop_ban(ban)
        for number in [number for number in self.tasks if number not in seen.tasks]:
            self.drop_task(number)
        for address in [address for address in self.heard if address not in seen.servers]:
            self.drop_server(address)
        for address in [address for address in self.keys if address not in seen.keys]:
            self.drop_key(address)
        self._ledger.drop_empty_bases()


def _by_base(changes: Changes) -> dict[BaseId, tuple[list[RoomId], list[Place]]]:
    """Return the changed rooms and places of each base in which something has changed."""
    found: dict[BaseId, tuple[list[RoomId], list[Place]]] = {}
    for base_id in changes.bases:
        found[base_id] = ([], [])
    for room in changes.rooms:
        found.setdefault((room[0], base_of(room[1])), ([], []))[0].append(room)
    for place in changes.places.items():
        namespace, name = place[0][0]
        found.setdefault((namespace, base_of(name)), ([], []))[1].append(place)
    return found


class Snapshot:
    """The keys of what was read from Redis."""

    def __init__(self) -> None:
        self.servers: set[str] = set()
        self.keys: set[str] = set()
        self.rooms: set[RoomId] = set()
        self.places: set[PlaceKey] = set()
        self.bans: set[BanKey] = set()
        self.tasks: set[int] = set()
