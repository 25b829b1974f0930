"""The rules of one grid: who is admitted, where rooms go, what servers are told."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence, Set
from itertools import islice
from math import inf
from typing import Final

from msgspec.structs import replace

from odingw.errors import Reason, Refused
from odingw.grid.bans import Bans
from odingw.grid.changes import Changes
from odingw.grid.ledger import Ledger
from odingw.grid.placement import CostModel, choose
from odingw.grid.records import Base, GivenKey, Room, Server
from odingw.grid.registry import Registry
from odingw.grid.reports import Reports
from odingw.grid.rooms import RoomId, base_of, common_base
from odingw.grid.store import PAGE
from odingw.grid.tasks import MAX_BYTES, Delivery, Task, size_of
from odingw.grid.usage import Usage
from odingw.grid.values import (
    Admission,
    Command,
    Event,
    GridSettings,
    Placed,
    Reported,
    RoomView,
    ServerDisabled,
    ServerRemoved,
    ServerReport,
    ServerView,
    TasksDropped,
)

_SWEEP: Final = 1000
"""How many records one step of periodic work looks at."""


class Grid:
    """The state of one pool, in memory, and the rules that change it.

    Args:
        settings: the numbers that the rules depend on.
        usage: the customers' usage, shared by all pools.
        pick: given n, a random number from 0 to n - 1.
        changes: takes note of what changes; None: nobody wants to know.

    Attributes:
        may_place: whether rooms can be placed and tasks accepted; if not, that is refused with
            ``store_unavailable``, and what is known goes on.
        ledger: the state as rows.
    """

    def __init__(
        self,
        settings: GridSettings,
        usage: Usage,
        pick: Callable[[int], int],
        changes: Changes | None = None,
    ) -> None:
        self._settings = settings
        self._usage = usage
        self._pick = pick
        self._changes = Changes(recording=False) if changes is None else changes
        self._registry = Registry(usage, self._changes)
        self._costs = CostModel()
        self._reports = Reports(
            self._registry, self._costs, self._changes, settings.report_interval
        )
        self._bans = Bans(settings.bans_per_customer, self._changes.ban)
        self.may_place = True
        self.ledger = Ledger(self._registry, self._bans, self._costs, self._changes)

    def connect(self, admission: Admission, now: float) -> Placed:
        """Admit a client and find the server for its room.

        Raises:
            Refused: with the reason, in this order: a limit, a fault of ``rid``, a ban, no server.
        """
        self._registry.expire(now, _SWEEP)
        self._registry.growth.sweep(now, _SWEEP)
        names = admission.rooms
        name = names[-1] if names else ""
        base_id = (admission.namespace, base_of(name))
        base = self._registry.bases.get(base_id)
        room = base.rooms.get(name) if base else None
        key = (admission.user, "" if admission.user else admission.token_id)
        held = room.reserved.get(key) if room else None
        # The same user may be waited for on another customer's account.
        own = held is not None and held.customer == admission.customer
        self._usage.check_peers(admission, held=int(own))
        if room is None:
            self._usage.check_rooms(admission)
        common_base(names)
        self._check_bans(admission, now)
        if base is None:
            base, how = self._registry.place(base_id, self._choose(admission.server)), "new"
        elif base.server.disabled:
            self._registry.move(base, self._choose(admission.server))
            room = base.rooms.get(name)
            how = "moved"
        else:
            how = "existing"
        self._reserve(base, room, admission, now)
        return Placed(base.server.address, how, base.server.kid)

    def report(self, report: ServerReport, now: float, *, take: bool = False) -> Reported:
        """Take in what a server says of itself and its rooms.

        Args:
            report: what it says.
            now: the time.
            take: also put the tasks that may be sent to it now in flight.
        """
        steps = self.report_in_steps(report, now, take=take)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                reported: Reported = end.value
                return reported

    def report_in_steps(
        self, report: ServerReport, now: float, *, take: bool = False
    ) -> Generator[None, None, Reported]:
        """Take in a report bit by bit; between two steps the grid serves everybody else."""
        self._registry.expire(now, _SWEEP)
        reported = yield from self._reports.take_in(report, now)
        delivery = self.take(report.address) if take else None
        return replace(reported, delivery=delivery) if delivery is not None else reported

    def command(self, command: Command, now: float) -> None:
        """Queue a task for the room's server and keep the ban that comes with it.

        Raises:
            Refused: the room is nowhere, or the queue or the bans are full.
        """
        base = self.judge(command, now)
        if base is None:
            # A room that is gone has no server to tell, yet its ban can be lifted.
            if command.ban == 0 and self._bans.lift(command.room, command.user):
                return
            raise Refused(Reason.ROOM_NOT_FOUND)
        if command.ban is not None:
            self._bans.set(command.room, command.user, command.ban, command.customer, now)
        number = self.ledger.next_task()
        base.server.tasks.append(Task(command.body, command.customer, base.id, number))

    def judge(self, command: Command, now: float) -> Base | None:
        """Return the base that a command is for; None: it is not known.

        Raises:
            Refused: the queue or the bans are full, or the store is unavailable.
        """
        self._registry.expire(now, _SWEEP)
        self._bans.sweep(now, _SWEEP)
        base = self._registry.bases.get(command.base)
        if base is None or base.server.removed:
            return None
        if not self.may_place:
            raise Refused(Reason.STORE_UNAVAILABLE, self._settings.report_interval)
        tasks, customer = base.server.tasks, command.customer
        if (
            tasks.of_customer(customer) >= self._settings.queued_tasks
            or tasks.bytes_of_customer(customer) + size_of(command.body) > MAX_BYTES
        ):
            raise Refused(Reason.TOO_MANY_TASKS, self._settings.report_interval)
        if command.ban:
            self._bans.check((command.room, command.user), command.customer)
        return base

    def take(self, address: str) -> Delivery | None:
        """Put the tasks that may be sent to a server now in flight; None if there are none."""
        server = self._registry.servers.get(address)
        return server.tasks.take() if server else None

    def has_tasks(self, address: str) -> bool:
        """Tell whether there are tasks for a server."""
        server = self._registry.servers.get(address)
        return server is not None and len(server.tasks) > 0

    def acknowledge(self, delivery: Delivery) -> None:
        """Forget tasks that arrived."""
        server = self._registry.servers.get(delivery.address)
        if server is not None:
            server.tasks.acknowledge(delivery)

    def give_back(self, delivery: Delivery) -> tuple[Event, ...]:
        """Queue tasks that did not arrive again, in the order in which all were accepted."""
        server = self._registry.servers.get(delivery.address)
        homes = self._registry.task_homes({task.base for task in delivery.tasks})
        ended = server.tasks.give_back(delivery) if server else None
        if server is None or ended is None:
            return ()
        again, dropped = ended
        server.tasks.merge(again)
        self._registry.bring_tasks(homes)
        return (TasksDropped(delivery.address, dropped),) if dropped else ()

    def drain(self, address: str, drained: bool) -> None:
        """Let a server take no new rooms, or take them again.

        Raises:
            Refused: there is no such server (``server_not_found``).
        """
        server = self._registry.servers.get(address)
        if server is None:
            raise Refused(Reason.SERVER_NOT_FOUND)
        server.drained = drained
        self._changes.server(address)
        self._registry.list_open_servers()

    def disable(self, address: str) -> None:
        """Write a server off until it reports again.

        Raises:
            Refused: there is no such server (``server_not_found``).
        """
        server = self._registry.servers.get(address)
        if server is None:
            raise Refused(Reason.SERVER_NOT_FOUND)
        if not server.disabled:
            self._registry.disable(server, True)

    def excuse(self, now: float) -> None:
        """Count every server as just heard: the gateway itself was not there to listen."""
        for server in self._registry.servers.values():
            server.heard = now
            server.reporting_since = inf

    def resume(self, now: float) -> None:
        """Take up work after nobody was there.

        No server is blamed for it, tasks whose delivery nobody saw the end of are sent again, and
        who was sent to a server meanwhile may still come: every reservation begins anew.
        """
        self.excuse(now)
        self._registry.renew(now + self._settings.reservation_lifetime)
        for server in self._registry.servers.values():
            server.tasks.recall()
        self._registry.bring_all_tasks()

    def tick(self, now: float) -> tuple[Event, ...]:
        """Do the periodic work: servers that fell silent, reservations and bans that ended."""
        self.sweep(now)
        events: list[Event] = []
        for server in list(self._registry.servers.values()):
            silent = now - server.heard
            if silent > self._settings.remove_timeout:
                self._costs.forget(server.load)
                events.append(ServerRemoved(server.address, len(server.tasks)))
                self._registry.remove_server(server)
            elif silent > self._settings.disable_timeout and not server.disabled:
                self._registry.disable(server, True)
                events.append(ServerDisabled(server.address, silent))
        self._registry.tidy(_SWEEP)
        return tuple(events)

    def sweep(self, now: float) -> None:
        """End the reservations and bans whose time is over."""
        self._registry.expire(now, _SWEEP)
        self._registry.growth.sweep(now, _SWEEP)
        self._bans.sweep(now, _SWEEP)

    def give_key(self, address: str, kid: str, now: float) -> str:
        """Take note of which key a server is given, and return that."""
        self.note_key(address, kid, now)
        return kid

    def note_key(self, address: str, kid: str, now: float) -> bool:
        """Take note of which key a server is given; False if it was given that one before."""
        before = self._registry.keys.get(address)
        # The last word counts, also where the clock was set back.
        at = max(now, before.at) if before else now
        self._registry.give_key(address, GivenKey(kid, at))
        return before is None or before.kid != kid

    def key_of(self, address: str) -> str | None:
        """Return the id of the key that a server has; None if nobody knows."""
        given = self._registry.keys.get(address)
        if given is not None:
            return given.kid
        server = self._registry.servers.get(address)
        return server.kid if server else None

    def address_of_key(self, kid: str) -> str | None:
        """Return the address of the attached server that was given the key with this id."""
        server = self._registry.by_kid.get(kid)
        return server.address if server else None

    def refresh(self) -> None:
        """Learn nothing: nobody else changes this grid."""

    def addresses(self) -> Set[str]:
        """Return the addresses of all servers."""
        return self._registry.servers.keys()

    def servers(self) -> Iterator[ServerView]:
        """Yield all servers."""
        headroom = self._registry.growth.headroom
        for server in self._registry.servers.values():
            load = server.load
            yield ServerView(
                address=server.address,
                kid=server.kid,
                version=server.version,
                load=load.reported,
                expected_load=load.estimate + (load.pending + headroom) * load.cost,
                clients=server.clients,
                rooms=len(server.rooms),
                peers=server.peers,
                reservations=server.reservations,
                disabled=server.disabled,
                drained=server.drained,
                first_seen=server.first_seen,
                last_seen=server.last_seen,
                tasks=len(server.tasks),
            )

    def rooms(self) -> Iterator[RoomView]:
        """Yield all rooms that are reported or reserved; they may change meanwhile."""
        for base in list(self._registry.bases.values()):
            for room in list(base.rooms.values()):
                yield RoomView(
                    id=room.id,
                    customer=room.customer,
                    server=base.server.address,
                    peers=room.peers,
                    reservations=len(room.reserved),
                    reported=room.round > 0,
                    updated=base.server.last_seen if room.round else room.placed,
                )

    async def pages(self) -> AsyncIterator[Sequence[RoomView]]:
        """Yield all rooms, page by page."""
        views = self.rooms()
        while page := list(islice(views, PAGE)):
            yield page

    def _check_bans(self, admission: Admission, now: float) -> None:
        if not len(self._bans):
            return
        for name in admission.rooms:
            room: RoomId = (admission.namespace, name)
            if remaining := self._bans.remaining(room, None, now):
                raise Refused(Reason.ROOM_BANNED, remaining)
            if remaining := self._bans.remaining(room, admission.user, now):
                raise Refused(Reason.USER_BANNED, remaining)

    def _choose(self, forced: str | None) -> Server:
        if not self.may_place:
            raise Refused(Reason.STORE_UNAVAILABLE, self._settings.report_interval)
        if forced is not None:
            server = self._registry.servers.get(forced)
            if server is None or not server.open:
                raise Refused(Reason.NO_SERVER, self._settings.report_interval)
            return server
        chosen = choose(self._registry.open_servers, self._registry.growth.headroom, self._pick)
        if chosen is None:
            raise Refused(Reason.NO_SERVER, self._settings.report_interval)
        return chosen

    def _reserve(self, base: Base, room: Room | None, admission: Admission, now: float) -> None:
        registry, growth = self._registry, self._registry.growth
        key = (admission.user, "" if admission.user else admission.token_id)
        ends = now + self._settings.reservation_lifetime
        if room is None:
            room = registry.add_room(base, admission.rooms[-1], admission.customer, now)
            room.growth = growth.begin(base.server.load, now)
            registry.reserve(room, key, admission.customer, ends, now)
        elif registry.reserve(room, key, admission.customer, ends, now) and room.growth is not None:
            growth.join(room.growth, now)
