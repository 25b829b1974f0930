"""The rules of the grid once more, the slow and obvious way, to hold the grid against.

Nothing here is counted along: what the rules ask for (usage, the server of a base, what may be
sent) is worked out each time from plain facts: who reported what, which reservations run, which
tasks are not done.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, TypeAlias

from odingw.errors import Reason
from odingw.grid.bans import TEN_YEARS
from odingw.grid.rooms import BaseId, RoomId, base_of
from odingw.grid.tasks import MAX_RETURNS, Delivery, TaskBody
from odingw.grid.values import (
    Admission,
    Command,
    Event,
    GridSettings,
    Paused,
    ServerAttached,
    ServerDisabled,
    ServerRemoved,
)
from tests.grids import Room

Place: TypeAlias = tuple[RoomId, tuple[str, str]]
"""A room, and the user or token that a place in it is reserved for."""

Contest: TypeAlias = tuple[BaseId, str, str]
"""A base, who keeps it, and who must close its room of that base."""

LIFTED: Final = "lifted"
QUEUED: Final = "queued"


def base_id(room: RoomId) -> BaseId:
    """Return the base that a room belongs to."""
    return room[0], base_of(room[1])


@dataclass
class ModelServer:
    """A server: what it said last, and when."""

    first_seen: float
    last_seen: float = 0.0
    heard: float = 0.0
    disabled: bool = False
    drained: bool = False
    load: float = 0.0
    clients: int = 0
    rooms: dict[RoomId, Room] = field(default_factory=dict)
    contested: frozenset[RoomId] = frozenset()
    since: float = inf
    named: dict[BaseId, float] = field(default_factory=dict)

    def unheard(self) -> None:
        """Nobody may have heard it meanwhile: its next report is its first."""
        self.since = inf


@dataclass
class ModelReservation:
    """A place that is kept until a time."""

    ends: float
    customer: str
    made: float


@dataclass
class ModelTask:
    """A task that is not done, numbered in the order in which tasks were accepted."""

    number: int
    body: TaskBody
    customer: str
    base: BaseId
    server: str
    in_flight: bool = False
    returned: int = 0


class ModelPool:
    """One pool."""

    def __init__(self, settings: GridSettings) -> None:
        self.settings = settings
        self.servers: dict[str, ModelServer] = {}
        self.owner: dict[BaseId, str] = {}
        self.reported: set[BaseId] = set()
        self.reservations: dict[Place, ModelReservation] = {}
        self.bans: dict[tuple[RoomId, str | None], tuple[float, str]] = {}
        self.tasks: list[ModelTask] = []
        self.flights: dict[str, Delivery] = {}
        self.customers: dict[RoomId, str] = {}
        self.made: dict[RoomId, float] = {}
        self.accepted = 0

    def rooms(self) -> set[RoomId]:
        """Return the rooms on record: those reported, and those with a reservation."""
        reported = {room for server in self.servers.values() for room in server.rooms}
        return reported | {room for room, _ in self.reservations}

    def forget(self) -> None:
        """Forget what nobody reports and no reservation keeps."""
        bases = {base_id(room) for room in self.rooms()}
        self.owner = {base: server for base, server in self.owner.items() if base in bases}
        self.reported &= bases
        self._forget_rooms()

    def _forget_rooms(self) -> None:
        rooms = self.rooms()
        self.customers = {room: c for room, c in self.customers.items() if room in rooms}
        self.made = {room: time for room, time in self.made.items() if room in rooms}

    def expire(self, now: float) -> None:
        """End reservations whose time is over."""
        running = {p: r for p, r in self.reservations.items() if r.ends > now}
        if len(running) < len(self.reservations):
            self.reservations = running
            self.forget()

    def put(self, base: BaseId, address: str) -> None:
        """Put a base on a server; the room is closed on any other, and waiting tasks follow."""
        for server in self.servers.values():
            server.rooms = {r: item for r, item in server.rooms.items() if base_id(r) != base}
        self._forget_rooms()
        self.owner[base] = address
        self.reported.discard(base)
        for task in self.tasks:
            if task.base == base and not task.in_flight:
                task.server = address

    def banned(self, admission: Admission, now: float) -> tuple[Reason, float] | None:
        """Return why and for how long a client is kept out."""
        for name in admission.rooms:
            for user, reason in ((None, Reason.ROOM_BANNED), (admission.user, Reason.USER_BANNED)):
                until, _ = self.bans.get(((admission.namespace, name), user), (0.0, ""))
                if until > now:
                    return reason, until - now
        return None

    def is_open(self, address: str) -> bool:
        """Whether a server takes new rooms."""
        server = self.servers.get(address)
        return server is not None and not server.disabled and not server.drained

    def connected(self, admission: Admission, address: str, now: float) -> None:
        """Take in that a client was sent to a server."""
        room = (admission.namespace, admission.rooms[-1])
        owner = self.owner.get(base_id(room))
        if owner is None or self.servers[owner].disabled:
            assert self.is_open(address), f"{address} takes no new rooms"
            assert admission.server in (None, address), f"{address} was not asked for"
            self.put(base_id(room), address)
        else:
            assert address == owner, f"{room} is on {owner}, not on {address}"
        if room not in self.rooms():
            self.customers[room] = admission.customer
            self.made[room] = now
        place = (room, (admission.user, "" if admission.user else admission.token_id))
        held = self.reservations.pop(place, None)
        ends = now + self.settings.reservation_lifetime
        self.reservations[place] = ModelReservation(
            ends, held.customer if held else admission.customer, held.made if held else now
        )

    def report(
        self, address: str, items: Sequence[Room], now: float
    ) -> tuple[set[RoomId], set[Contest], bool | None]:
        """Take in a report.

        Returns:
            The rooms to close, who contests what as far as it is news, and whether the server
            returned (True), is new (False), or neither (None).
        """
        self.expire(now)
        server = self.servers.get(address)
        attached = False if server is None else True if server.disabled else None
        if server is None:
            server = self.servers[address] = ModelServer(first_seen=now)
        server.last_seen = server.heard = now
        server.disabled = False
        closes: set[RoomId] = set()
        contests: set[Contest] = set()
        foreign: dict[BaseId, float] = {}
        named: dict[RoomId, Room] = {}
        for base in dict.fromkeys(base_id(item.id) for item in items):
            rooms = [item for item in items if base_id(item.id) == base]
            owner = self.owner.get(base)
            if owner is None:
                self.put(base, address)
            elif owner == address:
                pass
            elif (first := self._claim(server, base, rooms, now)) is not None:
                contests.add((base, address, owner))
                self.put(base, address)
                rooms = rooms[first:] + rooms[:first]
            else:
                ids = {item.id for item in rooms}
                closes |= ids
                contests |= {(base, owner, address) for room in ids - server.contested}
                foreign[base] = server.named.get(base, now)
                continue
            # Of a room that is named twice, the first entry counts.
            for item in rooms:
                named.setdefault(item.id, item)
        server.contested, server.named = frozenset(closes), foreign
        server.since = min(server.since, now)
        for item in named.values():
            before = server.rooms[item.id].peers if item.id in server.rooms else 0
            places = [place for place in self.reservations if place[0] == item.id]
            for place in places[: max(0, item.peers - before)]:
                del self.reservations[place]
            self.reported.add(base_id(item.id))
            self.customers[item.id] = item.customer
            self.made.setdefault(item.id, now)
        server.rooms = named
        self.forget()
        return closes, contests, attached

    def _claim(
        self, server: ModelServer, base: BaseId, rooms: Sequence[Room], now: float
    ) -> int | None:
        """Return which of a server's rooms takes the base away from its owner, if any does."""
        if self.servers[self.owner[base]].disabled:
            return 0
        if base in self.reported:
            return None
        places = [held for (room, _), held in self.reservations.items() if base_id(room) == base]
        before = server.named.get(base, now)
        if any(server.since < held.made <= before for held in places):
            return None
        return next((index for index, item in enumerate(rooms) if item.peers), None)

    def command(self, command: Command, now: float) -> Reason | str:
        """Take in a management call; return what comes of it."""
        self.expire(now)
        self.bans = {key: ban for key, ban in self.bans.items() if ban[0] > now}
        key = (command.room, command.user)
        owner = self.owner.get(command.base)
        if owner is None:
            lifts = command.ban == 0 and self.bans.pop(key, None) is not None
            return LIFTED if lifts else Reason.ROOM_NOT_FOUND
        queued = Counter(task.customer for task in self.tasks if task.server == owner)
        if queued[command.customer] >= self.settings.queued_tasks:
            return Reason.TOO_MANY_TASKS
        if command.ban:
            others = Counter(customer for k, (_, customer) in self.bans.items() if k != key)
            if others[command.customer] >= self.settings.bans_per_customer:
                return Reason.TOO_MANY_BANS
            self.bans[key] = (now + min(command.ban, TEN_YEARS), command.customer)
        elif command.ban is not None:
            self.bans.pop(key, None)
        self.accepted += 1
        task = ModelTask(self.accepted, command.body, command.customer, command.base, owner)
        self.tasks.append(task)
        return QUEUED

    def taken(self, address: str, delivery: Delivery | None) -> None:
        """Check what is sent to a server, and take in that it is in flight."""
        mine = sorted((task for task in self.tasks if task.server == address), key=_number)
        waiting = [task for task in mine if not task.in_flight]
        ready = waiting[: 0 if address in self.flights else None]
        alone = next((n for n, task in enumerate(ready) if task.returned == MAX_RETURNS), None)
        if alone is not None:
            ready = ready[: alone or 1]
        sent = delivery.tasks if delivery else ()
        assert [task.body for task in ready] == [task.body for task in sent]
        assert (delivery is None) == (not ready)
        for task in ready:
            assert self.owner.get(task.base, address) == address, f"{address} has not {task.base}"
            earlier = [t for t in self.tasks if t.base == task.base and t.number < task.number]
            assert all(t.in_flight or t in ready for t in earlier), f"{task} overtakes"
            task.in_flight = True
        if delivery is not None:
            self.flights[address] = delivery

    def settled(self, delivery: Delivery, *, arrived: bool) -> list[TaskBody]:
        """Take in how a delivery ended; return the tasks that are given up."""
        address = delivery.address
        if self.flights.get(address) is not delivery:
            return []
        del self.flights[address]
        ended = [task for task in self.tasks if task.in_flight and task.server == address]
        if not arrived:
            self._land(ended)
        for task in ended:
            task.returned += 1
        over = [task for task in ended if arrived or task.returned > MAX_RETURNS]
        self.tasks = [task for task in self.tasks if task not in over]
        return [] if arrived else [task.body for task in over]

    def resume(self, now: float) -> None:
        """Take up what another process has stored."""
        self.servers = dict(sorted(self.servers.items()))
        for server in self.servers.values():
            server.heard = now
            server.contested, server.named = frozenset(), {}
            server.unheard()
        in_order = sorted(self.reservations.items(), key=lambda item: (item[1].ends, item[0]))
        ends = now + self.settings.reservation_lifetime
        self.reservations = {
            place: ModelReservation(ends, held.customer, 0.0) for place, held in in_order
        }
        self.flights.clear()
        self._land(self.tasks)

    def _land(self, ended: Iterable[ModelTask]) -> None:
        """Let tasks wait again: with their base or, if it is gone, where its newest task is."""
        newest = {task.base: task.server for task in sorted(self.tasks, key=_number)}
        for task in ended:
            task.in_flight = False
        for base in {task.base for task in ended}:
            for task in self.tasks:
                if task.base == base and not task.in_flight:
                    task.server = self.owner.get(base, newest[base])

    def tick(self, now: float) -> Iterable[Event]:
        """Do the periodic work; yield what is worth a line in the log."""
        self.expire(now)
        for address, server in list(self.servers.items()):
            silent = now - server.heard
            if silent > self.settings.remove_timeout:
                tasks = [task for task in self.tasks if task.server == address]
                self.tasks = [task for task in self.tasks if task not in tasks]
                self.flights.pop(address, None)
                del self.servers[address]
                lost = {base for base, owner in self.owner.items() if owner == address}
                places = self.reservations.items()
                self.reservations = {p: r for p, r in places if base_id(p[0]) not in lost}
                self.forget()
                yield ServerRemoved(address, len(tasks))
            elif silent > self.settings.disable_timeout and not server.disabled:
                server.disabled = True
                server.unheard()
                yield ServerDisabled(address, silent)


class Model:
    """All pools."""

    def __init__(self, settings: GridSettings, pools: Iterable[str]) -> None:
        self.settings = settings
        self.pools = {name: ModelPool(settings) for name in pools}
        self._ticked: float | None = None

    def usage(self) -> dict[str, tuple[int, int, int]]:
        """Return each customer's peers, reservations and rooms."""
        peers: Counter[str] = Counter()
        reservations: Counter[str] = Counter()
        rooms: Counter[str] = Counter()
        for pool in self.pools.values():
            idle = pool.rooms()
            for server in pool.servers.values():
                idle -= server.rooms.keys()
                for item in server.rooms.values() if not server.disabled else ():
                    peers[item.customer] += item.peers
                    rooms[item.customer] += 1
            rooms.update(pool.customers[room] for room in idle)
            reservations.update(held.customer for held in pool.reservations.values())
        customers = peers.keys() | reservations.keys() | rooms.keys()
        return {c: (peers[c], reservations[c], rooms[c]) for c in customers}

    def judge(self, name: str, admission: Admission, now: float) -> tuple[Reason | str, float]:
        """Say whether a Connect is refused, or else what becomes of the room.

        Returns:
            The reason or the kind of placement, and the seconds that a ban still lasts.
        """
        pool = self.pools[name]
        # Ends of reservations in other pools are noticed at the next tick.
        pool.expire(now)
        room = (admission.namespace, admission.rooms[-1] if admission.rooms else "")
        place = (room, (admission.user, "" if admission.user else admission.token_id))
        held = pool.reservations.get(place)
        renewed = held is not None and held.customer == admission.customer
        usage = self.usage()
        peers, reservations, rooms = usage.get(admission.customer, (0, 0, 0))
        demo = sum(sum(counts[:2]) for c, counts in usage.items() if c.startswith("demo_"))
        if (
            admission.max_peers is not None
            and peers + reservations - renewed >= admission.max_peers
        ):
            return Reason.PEER_LIMIT_EXCEEDED, 0
        if admission.demo_peers is not None and demo - renewed >= admission.demo_peers:
            return Reason.PEER_LIMIT_EXCEEDED, 0
        is_new = room not in pool.rooms()
        if is_new and admission.max_rooms is not None and rooms >= admission.max_rooms:
            return Reason.ROOM_LIMIT_EXCEEDED, 0
        if not admission.rooms:
            return Reason.RID_EMPTY, 0
        if len({base_of(each) for each in admission.rooms}) > 1:
            return Reason.RID_BASE_MISMATCH, 0
        if banned := pool.banned(admission, now):
            return banned
        owner = pool.owner.get(base_id(room))
        if owner is not None and not pool.servers[owner].disabled:
            return "existing", 0
        asked = [admission.server] if admission.server is not None else list(pool.servers)
        if not any(pool.is_open(address) for address in asked):
            return Reason.NO_SERVER, 0
        return ("new" if owner is None else "moved"), 0

    def resume(self, now: float) -> None:
        """Take up what another process has stored."""
        self._ticked = None
        for pool in self.pools.values():
            pool.resume(now)

    def tick(self, now: float) -> list[Event]:
        """Do the periodic work; return what is worth a line in the log."""
        events: list[Event] = []
        gap = 0.0 if self._ticked is None else now - self._ticked
        self._ticked = now
        if gap > 2.5 * self.settings.tick:
            events.append(Paused(gap))
            for pool in self.pools.values():
                for server in pool.servers.values():
                    server.heard = now
                    server.unheard()
        for pool in self.pools.values():
            events.extend(pool.tick(now))
        return events


def attached(address: str, version: str, returned: bool | None) -> list[Event]:
    """Return the event of a server that came, or came back."""
    return [] if returned is None else [ServerAttached(address, version, returned)]


def _number(task: ModelTask) -> int:
    return task.number
