"""A grid's state as rows: what a store keeps, and what it gives back.

Reading a row tells what a record is now; None stands for one that is gone. Putting a row makes the
record so, and takes no note of it as a change: the row comes from the store. Rows may come in any
order that keeps servers before bases, and bases before what belongs to them; what belongs to a base
that is not known is left out.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from odingw.grid.bans import BanKey, Bans
from odingw.grid.changes import Changes, PlaceKey
from odingw.grid.placement import CostModel
from odingw.grid.records import MOST_PEERS, MOST_TIME, Base, GivenKey, Reservation, Room, Server
from odingw.grid.registry import Registry
from odingw.grid.rooms import BaseId, RoomId, base_of
from odingw.grid.tasks import Task, TaskBody

Time: TypeAlias = Annotated[float, Meta(ge=-MOST_TIME, le=MOST_TIME)]
"""Seconds since the epoch, of which a date can be made."""


class ServerRow(Struct, frozen=True, array_like=True, gc=False):
    """A server (:class:`odingw.grid.records.Server`, :class:`odingw.grid.placement.Load`)."""

    kid: str
    version: str
    load: float
    estimate: float
    load_seen: float
    clients_seen: float
    clients: Annotated[int, Meta(ge=0, le=MOST_PEERS)]
    first_seen: Time
    last_seen: Time
    disabled: bool = False
    drained: bool = False


class KeyRow(Struct, frozen=True, array_like=True, gc=False):
    """Which key a server was given, and when (:class:`odingw.grid.records.GivenKey`)."""

    kid: str
    at: float


class BaseRow(Struct, frozen=True, array_like=True, gc=False):
    """Where a base lives, and whether that server has ever reported a room of it."""

    server: str
    reported: bool


class RoomRow(Struct, frozen=True, array_like=True, gc=False):
    """What a room's server reports of it; a room that only reservations keep has no such row."""

    customer: str
    peers: Annotated[int, Meta(ge=0, le=MOST_PEERS)]
    placed: Time


class PlaceRow(Struct, frozen=True, array_like=True, gc=False):
    """A reservation, and what it keeps of a room that is not reported yet."""

    ends: Time
    customer: str
    room_customer: str = ""
    placed: Time = 0.0


class BanRow(Struct, frozen=True, array_like=True, gc=False):
    """A ban."""

    until: Time
    customer: str


class TaskRow(Struct, frozen=True, array_like=True, gc=False):
    """A task that is not done, and the server in whose queue it is."""

    server: str
    customer: str
    returned: int
    body: TaskBody


class _Unrecorded:
    """While entered, once or several times, no note is taken of what changes."""

    __slots__ = ("_before", "_changes", "_depth")

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._before = False
        self._depth = 0

    def __enter__(self) -> None:
        if not self._depth:
            self._before = self._changes.recording
            self._changes.recording = False
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._changes.recording = self._before


class Ledger:
    """Reads and puts the rows of one grid.

    Args:
        registry: its servers, bases, rooms and reservations.
        bans: its bans.
        costs: what it has learnt of load.
        changes: takes note of what changes, but for what is put here.
    """

    def __init__(self, registry: Registry, bans: Bans, costs: CostModel, changes: Changes) -> None:
        self._registry = registry
        self._bans = bans
        self._costs = costs
        self._changes = changes
        self._unrecorded = _Unrecorded(changes)
        self._last_task = 0

    def next_task(self) -> int:
        """Return the number of a task that is newer than all others."""
        self._last_task += 1
        return self._last_task

    def server(self, address: str) -> ServerRow | None:
        """Return the row of a server."""
        server = self._registry.servers.get(address)
        if server is None:
            return None
        load = server.load
        return ServerRow(
            server.kid,
            server.version,
            load.reported,
            load.estimate,
            load.load_seen,
            load.clients_seen,
            server.clients,
            server.first_seen,
            server.last_seen,
            server.disabled,
            server.drained,
        )

    def key(self, address: str) -> KeyRow | None:
        """Return the row of the key that a server was given."""
        given = self._registry.keys.get(address)
        return KeyRow(given.kid, given.at) if given else None

    def base(self, base_id: BaseId) -> BaseRow | None:
        """Return the row of a base."""
        base = self._registry.bases.get(base_id)
        return BaseRow(base.server.address, base.reported) if base else None

    def room(self, room_id: RoomId) -> RoomRow | None:
        """Return the row of a room; None too if it is not reported."""
        room = self._room(room_id)
        return RoomRow(room.customer, room.peers, room.placed) if room and room.round else None

    def place(self, key: PlaceKey) -> PlaceRow | None:
        """Return the row of a reservation."""
        room = self._room(key[0])
        reservation = room.reserved.get(key[1]) if room else None
        if room is None or reservation is None:
            return None
        return _place_row(reservation)

    def last_place(self, key: PlaceKey, last: Reservation) -> PlaceRow | None:
        """Return what ``place`` does, quickly if the last reservation that was noted still runs."""
        if last.room.reserved.get(last.key) is last:
            return _place_row(last)
        return self.place(key)

    def oldest_place(self) -> float | None:
        """Return when the reservation that ends first does so by itself; None: there is none."""
        return self._registry.next_end

    def ban(self, key: BanKey) -> BanRow | None:
        """Return the row of a ban."""
        ban = self._bans.get(key)
        return BanRow(*ban) if ban else None

    def task(self, task: Task) -> TaskRow | None:
        """Return the row of a task."""
        if not task.server:
            return None
        return TaskRow(task.server, task.customer, task.returned, task.body)

    def everything(self) -> Changes:
        """Return the keys of all records, as if each had just changed."""
        all_of = Changes()
        for part in self.everything_in_parts():
            all_of.add(part)
        return all_of

    def everything_in_parts(self, most: int = 1000) -> Iterator[Changes]:
        """Yield the keys of all records, so many bases at a time; calls in between note their own.

        Args:
            most: bases in a part, with all their rooms.
        """
        registry, part = self._registry, Changes()
        part.servers.update(registry.servers)
        part.keys.update(registry.keys)
        part.bans.update(self._bans.keys())
        for server in registry.servers.values():
            for task in server.tasks.tasks():
                part.task(task)
        yield part
        bases = iter(list(registry.bases.items()))
        while some := list(islice(bases, most)):
            part = Changes()
            for key, base in some:
                part.base(key)
                for room in base.rooms.values():
                    if room.round:
                        part.room(room)
                    for reservation in room.reserved.values():
                        part.place(reservation)
            yield part

    def put_server(self, address: str, row: ServerRow, *, keep_flags: bool = False) -> None:
        """Make a server as its row says; it counts as heard when it was last seen.

        Args:
            address: the server's.
            row: the server.
            keep_flags: leave it disabled or drained as it is, whatever the row says.
        """
        with self._unrecorded:
            registry = self._registry
            server = registry.servers.get(address)
            if server is None:
                server = registry.add_server(address, row.kid, row.first_seen)
            else:
                registry.set_kid(server, row.kid)
            server.version = row.version
            server.clients = row.clients
            server.first_seen = row.first_seen
            server.last_seen = row.last_seen
            server.heard = max(server.heard, row.last_seen)
            self._costs.restore(
                server.load, row.load, row.estimate, row.load_seen, row.clients_seen
            )
            if not keep_flags:
                self._set_flags(server, disabled=row.disabled, drained=row.drained)

    def hear_server(self, address: str, row: ServerRow, heard: float) -> None:
        """Take in that a server has reported elsewhere, which also enables it again.

        Args:
            address: the server's.
            row: the server.
            heard: when that was.
        """
        with self._unrecorded:
            before = self._registry.servers.get(address)
            is_news = before is None or heard >= before.heard
            self.put_server(address, row, keep_flags=True)
            self.revive(address, heard)
            server = self._registry.servers[address]
            if is_news:
                server.reporting_since = min(server.reporting_since, heard)

    def put_flags(self, address: str, *, disabled: bool, drained: bool) -> None:
        """Write a server off or drain it, or undo that."""
        with self._unrecorded:
            server = self._registry.servers.get(address)
            if server is not None:
                self._set_flags(server, disabled=disabled, drained=drained)

    def revive(self, address: str, heard: float) -> None:
        """Take back that a server is written off: it was heard of at this time."""
        with self._unrecorded:
            server = self._registry.servers.get(address)
            if server is not None:
                server.heard = max(server.heard, heard)
                self._set_flags(server, disabled=False, drained=server.drained)

    def drop_server(self, address: str) -> None:
        """Forget a server and all that is on it."""
        with self._unrecorded:
            server = self._registry.servers.get(address)
            if server is not None:
                self._costs.forget(server.load)
                self._registry.remove_server(server)
                self._registry.clear(server, len(server.bases))

    def put_key(self, address: str, row: KeyRow) -> None:
        """Take in which key a server was given, unless a later one is known."""
        with self._unrecorded:
            before = self._registry.keys.get(address)
            if before is None or before.at <= row.at:
                self._registry.give_key(address, GivenKey(row.kid, row.at))

    def drop_key(self, address: str) -> None:
        """Forget which key a server was given."""
        with self._unrecorded:
            self._registry.forget_key(address)

    def put_base(self, base_id: BaseId, row: BaseRow) -> None:
        """Put a base on its server; nothing happens if that is not known."""
        base = self._registry.bases.get(base_id)
        server = self._registry.servers.get(row.server)
        if server is None:
            return
        if base is not None and base.server is server:
            base.reported = row.reported
            return
        with self._unrecorded:
            if base is None:
                base = self._registry.place(base_id, server)
            else:
                self._registry.move(base, server)
            base.reported = row.reported

    def drop_base(self, base_id: BaseId) -> None:
        """Forget a base and all that is in it."""
        with self._unrecorded:
            base = self._registry.bases.get(base_id)
            if base is not None:
                self._registry.forget(base)

    def put_room(self, room_id: RoomId, row: RoomRow) -> None:
        """Make a reported room as its row says; reservations have rows of their own."""
        with self._unrecorded:
            base = self._base(room_id)
            if base is None:
                return
            room = base.rooms.get(room_id[1])
            if room is None:
                room = self._registry.add_room(base, room_id[1], row.customer, row.placed)
            self._registry.count_report(room, row.customer, row.peers)
            base.server.round = room.round = max(1, base.server.round)

    def drop_room(self, room_id: RoomId) -> None:
        """Make a room one that is not reported."""
        with self._unrecorded:
            room = self._room(room_id)
            if room is not None and room.round:
                self._registry.unreport(room)

    def put_place(self, key: PlaceKey, row: PlaceRow, now: float | None = None) -> None:
        """Make a reservation as its row says.

        Args:
            key: whose, and where.
            row: the reservation.
            now: the time, if it has just been made, so that a new room's growth is foreseen; None:
                it is old.
        """
        with self._unrecorded:
            room_id, client = key
            base = self._base(room_id)
            if base is None:
                return
            registry = self._registry
            room = base.rooms.get(room_id[1])
            held = room.reserved.get(client) if room else None
            if held is not None and held.ends == row.ends:
                # It is known, and keeps its place in the order of those that end together.
                return
            if room is None:
                room = registry.add_room(
                    base, room_id[1], row.room_customer or row.customer, row.placed
                )
                if now is not None:
                    room.growth = registry.growth.begin(base.server.load, now)
                registry.reserve(room, client, row.customer, row.ends, row.placed)
            elif (
                registry.reserve(room, client, row.customer, row.ends, row.placed)
                and room.growth
                and now
            ):
                registry.growth.join(room.growth, now)

    def drop_place(self, key: PlaceKey) -> None:
        """End a reservation."""
        with self._unrecorded:
            room = self._room(key[0])
            reservation = room.reserved.get(key[1]) if room else None
            if reservation is not None:
                self._registry.cancel(reservation)

    def note_server(self, address: str) -> None:
        """Take note of a server, though it may be as it was."""
        self._changes.server(address)

    def cancel(self, key: PlaceKey) -> None:
        """End a reservation, and take note of it: nobody has stored that yet."""
        room = self._room(key[0])
        reservation = room.reserved.get(key[1]) if room else None
        if reservation is not None:
            self._registry.cancel(reservation)

    def server_of(self, room_id: RoomId) -> str | None:
        """Return the address of the server that has a room's base."""
        namespace, name = room_id
        return self.server_of_base((namespace, base_of(name)))

    def server_of_base(self, base_id: BaseId) -> str | None:
        """Return the address of the server that has a base."""
        base = self._registry.bases.get(base_id)
        return base.server.address if base else None

    def is_claimed(self, base_id: BaseId) -> bool:
        """Tell whether a base's server has it because it reports clients there."""
        base = self._registry.bases.get(base_id)
        return base is not None and base.claimed

    def heard(self, address: str) -> float:
        """Return when a server last gave a sign of life, or was excused from one."""
        server = self._registry.servers.get(address)
        return server.heard if server else 0.0

    def put_ban(self, key: BanKey, row: BanRow) -> None:
        """Keep a ban."""
        with self._unrecorded:
            self._bans.put(key, row.until, row.customer)

    def drop_ban(self, key: BanKey) -> None:
        """Lift a ban."""
        with self._unrecorded:
            self._bans.lift(*key)

    def put_task(self, number: int, row: TaskRow) -> Task | None:
        """Queue a task; None if its server is not known."""
        with self._unrecorded:
            self._last_task = max(self._last_task, number)
            server = self._registry.servers.get(row.server)
            if server is None:
                return None
            namespace, name = row.body.id
            base = (namespace, base_of(name))
            task = Task(row.body, row.customer, base, number, row.returned)
            server.tasks.put(task)
            return task

    def drop_task(self, task: Task) -> None:
        """Take a task that waits out of its queue."""
        with self._unrecorded:
            server = self._registry.servers.get(task.server)
            if server is not None:
                server.tasks.drop(task.number)

    def move_task(self, task: Task, address: str) -> None:
        """Put a waiting task into another server's queue."""
        with self._unrecorded:
            server = self._registry.servers.get(address)
            if server is not None:
                self.drop_task(task)
                server.tasks.put(task)

    def drop_base_if_empty(self, base_id: BaseId) -> None:
        """Forget a base if no room has come for it."""
        base = self._registry.bases.get(base_id)
        if base is not None and not base.rooms:
            self.drop_base(base_id)

    def drop_empty_bases(self) -> None:
        """Forget bases that no room has come for."""
        with self._unrecorded:
            for base in [base for base in self._registry.bases.values() if not base.rooms]:
                self._registry.forget(base)

    def _set_flags(self, server: Server, *, disabled: bool, drained: bool) -> None:
        server.drained = drained
        if server.disabled != disabled:
            self._registry.disable(server, disabled)
        else:
            self._registry.list_open_servers()

    def _base(self, room_id: RoomId) -> Base | None:
        namespace, name = room_id
        return self._registry.bases.get((namespace, base_of(name)))

    def _room(self, room_id: RoomId) -> Room | None:
        base = self._base(room_id)
        return base.rooms.get(room_id[1]) if base else None


def _place_row(reservation: Reservation) -> PlaceRow:
    room = reservation.room
    return PlaceRow(reservation.ends, reservation.customer, room.customer, room.placed)
