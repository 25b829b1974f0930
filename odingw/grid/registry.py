"""Which base is on which server, and the books that hang on it.

Every change of a room, a reservation or a server's liveness goes through here, so that usage,
expected load and the indexes always agree.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping, Set
from itertools import islice
from math import inf
from typing import Final

from odingw.grid.changes import Changes
from odingw.grid.placement import GrowthModel
from odingw.grid.records import Base, GivenKey, Reservation, ReservationKey, Room, Server
from odingw.grid.rooms import BaseId
from odingw.grid.tasks import Task, TaskQueue
from odingw.grid.usage import Usage

KEYS_OF_OTHERS: Final = 10_000
"""For how many servers that are not attached it is remembered which key they were given."""


class Registry:
    """Servers, bases, rooms and reservations of one pool.

    Args:
        usage: the customers' usage, shared by all pools.
        changes: takes note of what changes.
    """

    def __init__(self, usage: Usage, changes: Changes) -> None:
        self.servers: dict[str, Server] = {}
        self.by_kid: dict[str, Server] = {}
        # In the order in which they were given.
        self.keys: dict[str, GivenKey] = {}
        self.bases: dict[BaseId, Base] = {}
        self.growth = GrowthModel()
        self.open_servers: list[Server] = []
        self._usage = usage
        self._changes = changes
        self._tasks_of: dict[BaseId, int] = {}
        # All reservations last equally long, so the order of this is the order of their ends.
        self._reservations: OrderedDict[Reservation, None] = OrderedDict()
        self._removed: deque[Server] = deque()

    def add_server(self, address: str, kid: str, now: float) -> Server:
        """Make the record of a new server; ``kid`` counts if it is not known what it was given."""
        given = self.keys.get(address)
        kid = given.kid if given else kid
        server = Server(address, kid, now, TaskQueue(address, self._tasks_of, self._changes.task))
        self.servers[address] = server
        self.by_kid[kid] = server
        self._changes.server(address)
        self.list_open_servers()
        return server

    def remove_server(self, server: Server) -> None:
        """Forget a server and its tasks; :meth:`tidy` forgets what is on it."""
        del self.servers[server.address]
        server.removed = server.disabled = True
        self._changes.server(server.address)
        server.tasks.clear()
        self.by_kid.pop(server.kid, None)
        self._removed.append(server)
        self.list_open_servers()

    def tidy(self, most: int) -> None:
        """Forget bases of servers that have been removed, at most so many."""
        while self._removed and most:
            server = self._removed[0]
            most -= self.clear(server, most)
            if not server.bases:
                self._removed.popleft()

    def clear(self, server: Server, most: int) -> int:
        """Forget bases of a server, at most so many, and return how many."""
        bases = list(islice(server.bases.values(), most))
        for base in bases:
            self.forget(base)
        return len(bases)

    def set_kid(self, server: Server, kid: str) -> None:
        """Take note of which key a server has, unless it is known that it was given another."""
        given = self.keys.get(server.address)
        kid = given.kid if given else kid
        if server.kid != kid:
            self.by_kid.pop(server.kid, None)
            self.by_kid[kid] = server
            server.kid = kid

    def give_key(self, address: str, given: GivenKey) -> None:
        """Take note of which key a server is given."""
        self.keys.pop(address, None)
        self.keys[address] = given
        self._changes.key(address)
        server = self.servers.get(address)
        if server is not None:
            self.set_kid(server, given.kid)
        if len(self.keys) > len(self.servers) + KEYS_OF_OTHERS:
            self.forget_key(next(other for other in self.keys if other not in self.servers))

    def forget_key(self, address: str) -> None:
        """Forget which key a server was given."""
        if self.keys.pop(address, None) is not None:
            self._changes.key(address)

    def list_open_servers(self) -> None:
        """Bring the list of servers that take new rooms up to date."""
        # In an order that does not depend on who joined when, so that all gateways have the same.
        self.open_servers = [server for _, server in sorted(self.servers.items()) if server.open]

    def disable(self, server: Server, disabled: bool) -> None:
        """Write a server off, or on again; only live servers' rooms count as usage."""
        server.disabled = disabled
        if disabled:
            server.reporting_since = inf
        self._changes.server(server.address)
        for room in server.rooms.values():
            self._count(room, not disabled)
        self.list_open_servers()

    def place(self, base_id: BaseId, server: Server) -> Base:
        """Put a new base on a server; tasks from before it was forgotten follow."""
        base = self.bases[base_id] = server.bases[base_id] = Base(base_id, server)
        self._changes.base(base_id)
        if base_id in self._tasks_of:
            self.bring_tasks({base_id: server})
        return base

    def move(self, base: Base, server: Server) -> None:
        """Put a base on another server; its queued tasks and reservations follow."""
        old = base.server
        server.tasks.merge(old.tasks.remove({base.id}))
        del old.bases[base.id]
        base.server = server
        server.bases[base.id] = base
        base.reported = base.claimed = False
        self._changes.base(base.id)
        for room in list(base.rooms.values()):
            places = len(room.reserved)
            old.reservations -= places
            old.load.pending -= places
            server.reservations += places
            server.load.pending += places
            if room.growth is not None:
                self.growth.move(room.growth, server.load)
            if room.round:
                del old.rooms[room.id]
                old.peers -= room.peers
                self._count(room, False)
                self._changes.move(room)
                self._drop_report(room)
                if not room.reserved:
                    del base.rooms[room.id[1]]

    def task_homes(self, bases: Set[BaseId]) -> dict[BaseId, Server]:
        """Return the server at which the tasks of each base have to wait.

        It is the base's. The tasks of a base that is gone wait where the newest of them is, in
        flight or not, for if they were at several servers, one could overtake another.
        """
        homes = {}
        gone = set()
        for base_id in bases:
            base = self.bases.get(base_id)
            if base is not None and not base.server.removed:
                homes[base_id] = base.server
            else:
                gone.add(base_id)
        newest: dict[BaseId, int] = {}
        for server in self.servers.values() if gone else ():
            for task in server.tasks.tasks():
                if task.base in gone and task.number > newest.get(task.base, 0):
                    newest[task.base] = task.number
                    homes[task.base] = server
        return homes

    def bring_tasks(self, homes: Mapping[BaseId, Server]) -> None:
        """Queue the waiting tasks of these bases at the servers at which they have to wait."""
        coming: dict[Server, list[Task]] = {}
        for server in self.servers.values():
            bases = {task.base for task in server.tasks.tasks()}
            away = {base for base in bases if homes.get(base, server) is not server}
            for task in server.tasks.remove(away):
                coming.setdefault(homes[task.base], []).append(task)
        for server, tasks in coming.items():
            server.tasks.merge(tasks)

    def bring_all_tasks(self) -> None:
        """Queue all waiting tasks at the servers at which they have to wait."""
        self.bring_tasks(self.task_homes(self._tasks_of.keys()))

    def add_room(self, base: Base, name: str, customer: str, now: float) -> Room:
        """Make the record of a room."""
        room = Room((base.id[0], name), base, customer, now)
        base.rooms[name] = room
        self._count(room, True)
        return room

    def report(self, room: Room, customer: str, peers: int) -> None:
        """Take in what the room's server says of it; each peer more ends the oldest reservation."""
        rise = self.count_report(room, customer, peers)
        while rise > 0 and room.reserved:
            rise -= 1
            self.end_reservation(next(iter(room.reserved.values())))

    def count_report(self, room: Room, customer: str, peers: int) -> int:
        """Take in what the room's server says of it, and return how many peers have come."""
        server = room.base.server
        if not room.round:
            server.rooms[room.id] = room
            if not room.base.reported:
                room.base.reported = True
                self._changes.base(room.base.id)
        self._changes.room(room)
        rise = peers - room.peers
        server.peers += rise
        if room.counted and room.customer == customer and not server.disabled:
            room.peers = peers
            self._usage.add(customer, peers=rise)
            return rise
        self._count(room, False)
        room.peers = peers
        room.customer = customer
        self._count(room, not server.disabled)
        return rise

    def unreport(self, room: Room) -> None:
        """Take note that the room's server no longer names it."""
        server = room.base.server
        if room.round:
            del server.rooms[room.id]
            server.peers -= room.peers
            self._count(room, False)
            self._drop_report(room)
        self._forget_if_idle(room)

    def reserve(
        self, room: Room, key: ReservationKey, customer: str, ends: float, made: float
    ) -> bool:
        """Reserve a place, or renew the one that this client has; False if it was renewed."""
        reservation = room.reserved.pop(key, None)
        if reservation is not None:
            del self._reservations[reservation]
            reservation.ends = ends
            room.reserved[key] = reservation
            self._reservations[reservation] = None
            self._changes.place(reservation)
            return False
        reservation = Reservation(room, key, customer, ends, made)
        room.reserved[key] = reservation
        self._reservations[reservation] = None
        room.base.server.reservations += 1
        room.base.server.load.pending += 1
        self._usage.add(customer, reservations=1)
        self._changes.place(reservation)
        return True

    def end_reservation(self, reservation: Reservation) -> None:
        """End a reservation before its time."""
        self._end(reservation)
        self._changes.place(reservation)

    def _end(self, reservation: Reservation) -> None:
        room = reservation.room
        del room.reserved[reservation.key]
        del self._reservations[reservation]
        room.base.server.reservations -= 1
        room.base.server.load.pending -= 1
        self._usage.add(reservation.customer, reservations=-1)

    def expire(self, now: float, most: int) -> None:
        """End the reservations whose time is over, and forget rooms that only they kept.

        Args:
            now: the time.
            most: how many to end in one go; the others end a little later.
        """
        while self._reservations and most:
            reservation = next(iter(self._reservations))
            if reservation.ends > now:
                return
            most -= 1
            self._end(reservation)
            self._changes.place_over(reservation)
            self._forget_if_idle(reservation.room)

    @property
    def next_end(self) -> float | None:
        """When the reservation that ends first does so by itself; None: there is none."""
        first = next(iter(self._reservations), None)
        return first.ends if first else None

    def cancel(self, reservation: Reservation) -> None:
        """End a reservation, and forget the room if only that kept it."""
        self.end_reservation(reservation)
        self._forget_if_idle(reservation.room)

    def forget(self, base: Base) -> None:
        """Forget a base and all that is in it."""
        for room in list(base.rooms.values()):
            for reservation in list(room.reserved.values()):
                self.end_reservation(reservation)
            self.unreport(room)
        # A base without rooms has nothing that would take it along.
        if self.bases.get(base.id) is base:
            self._drop(base)

    def renew(self, ends: float) -> None:
        """Let every reservation end at this time, and say nothing of when it was made."""
        for reservation in self._reservations:
            reservation.ends = ends
            reservation.made = 0.0
            self._changes.place(reservation)

    def _drop_report(self, room: Room) -> None:
        """Forget what was reported of a room; what is reserved in it then stands for it."""
        room.peers = 0
        room.round = 0
        self._changes.room(room)
        if room.reserved:
            self._count(room, True)
            for reservation in room.reserved.values():
                self._changes.place(reservation)

    def _forget_if_idle(self, room: Room) -> None:
        if room.round or room.reserved:
            return
        self._count(room, False)
        base = room.base
        del base.rooms[room.id[1]]
        if not base.rooms:
            self._drop(base)

    def _drop(self, base: Base) -> None:
        del self.bases[base.id]
        del base.server.bases[base.id]
        self._changes.base(base.id)

    def _count(self, room: Room, counted: bool) -> None:
        if room.counted is counted:
            return
        room.counted = counted
        sign = 1 if counted else -1
        self._usage.add(room.customer, peers=sign * room.peers, rooms=sign)
