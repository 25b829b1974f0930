"""What servers report, and what that changes.

A report may name tens of thousands of rooms, so it is taken in step by step.
"""

from collections.abc import Generator, Iterable, Sequence
from math import inf
from typing import Final

from odingw.grid.changes import Changes
from odingw.grid.placement import CostModel
from odingw.grid.records import MOST_PEERS, Base, Room, Server
from odingw.grid.registry import Registry
from odingw.grid.rooms import BaseId, RoomId, base_of
from odingw.grid.tasks import Duration, RoomClose
from odingw.grid.usage import LONGEST_CUSTOMER
from odingw.grid.values import (
    Event,
    MoreContested,
    Reported,
    RoomContested,
    RoomReport,
    ServerAttached,
    ServerReport,
)

STEP: Final = 500
"""How many rooms that have changed one step takes in: about 5 ms."""

READ: Final = 25
"""How many pieces of a report one step reads: about 5 ms."""

MOST_CONTESTS: Final = 20
"""How many contested rooms of a report are told one by one."""

_AT_REST: Final = 1e-9


class _Intake:
    """A report that is taken in.

    Attributes:
        server: whose it is.
        now: when it came.
        is_first: whether it is the server's first since nobody heard it: it may well name rooms
            that the server had all the time.
        events: what has happened.
        kept: bases that other servers keep for the places that are reserved there; a base may have
            many of either, rooms and places, so it is looked at once.
    """

    __slots__ = ("contests", "events", "is_first", "kept", "now", "server")

    def __init__(self, server: Server, now: float) -> None:
        self.server = server
        self.now = now
        self.is_first = server.disabled or server.reporting_since == inf
        self.events: list[Event] = []
        self.kept: set[BaseId] = set()
        self.contests = 0

    def contest(self, room: RoomId, keeper: Server, loser: Server) -> None:
        """Take note of a room that is on two servers."""
        self.contests += 1
        if self.contests <= MOST_CONTESTS:
            self.events.append(RoomContested(room, keeper.address, loser.address))

    def all_events(self) -> tuple[Event, ...]:
        """Return what has happened."""
        more = self.contests - MOST_CONTESTS
        return (*self.events, *([MoreContested(self.server.address, more)] if more > 0 else ()))


class Reports:
    """Takes in the reports of one pool's servers.

    Args:
        registry: what is where.
        costs: learns what clients cost.
        changes: takes note of what changes.
        report_interval: seconds for which a room that is another server's stays closed.
    """

    def __init__(
        self, registry: Registry, costs: CostModel, changes: Changes, report_interval: float
    ) -> None:
        self._registry = registry
        self._costs = costs
        self._changes = changes
        self._report_interval = report_interval
        self._busy: set[str] = set()

    def take_in(self, report: ServerReport, now: float) -> Generator[None, None, Reported]:
        """Take in a report, after those of the same server that came before.

        What reading its rooms raises comes before anything has changed.
        """
        while report.address in self._busy:
            yield
        self._busy.add(report.address)
        try:
            return (yield from self._take_in(report, now))
        finally:
            self._busy.remove(report.address)

    def _take_in(self, report: ServerReport, now: float) -> Generator[None, None, Reported]:
        while True:
            known = self._registry.servers.get(report.address)
            changed, new = yield from self._read(known, report.rooms)
            if self._registry.servers.get(report.address) is known:
                break
        server = known or self._registry.add_server(report.address, report.kid, now)
        intake = _Intake(server, now)
        events = intake.events
        if known is None:
            self._attach(server, report, events)
        else:
            self._hear_again(server, report, events)
        if server.version != report.version:
            server.version = report.version
            self._changes.server(report.address)
        server.clients = report.clients
        server.last_seen = server.heard = now
        yield from self._change(server, changed)
        foreign = yield from self._add(intake, new)
        if foreign:
            # A room of the same base that came later may have won the base.
            foreign = yield from self._add(intake, foreign)
        yield from self._drop_others(server)
        if not self._is_there(server):
            return Reported((), intake.all_events())
        if intake.is_first:
            server.reporting_since = now
        closes = self._close_foreign(intake, foreign)
        return Reported(closes, intake.all_events())

    def _is_there(self, server: Server) -> bool:
        """Tell whether a server has not been removed meanwhile."""
        return self._registry.servers.get(server.address) is server

    def _attach(self, server: Server, report: ServerReport, events: list[Event]) -> None:
        server.round = 1
        self._costs.join(server.load, report.load)
        events.append(ServerAttached(report.address, report.version, returned=False))

    def _hear_again(self, server: Server, report: ServerReport, events: list[Event]) -> None:
        load = server.load
        before = (load.estimate, load.cost)
        self._costs.report(load, report.load, report.clients, server.clients)
        if server.clients != report.clients or _moved(before, (load.estimate, load.cost)):
            self._changes.server(report.address)
        if server.disabled:
            self._registry.disable(server, False)
            events.append(ServerAttached(report.address, report.version, returned=True))

    def _read(
        self, server: Server | None, pieces: Iterable[Sequence[RoomReport]]
    ) -> Generator[None, None, tuple[list[RoomReport], list[RoomReport]]]:
        """Read the rooms of a report; return those that have changed, and those that are new.

        Those known to be the server's are marked. Of a room that is named twice, the first entry
        counts, or each report would count the difference as clients that came.
        """
        rooms: dict[RoomId, Room] = {}
        mark = 0
        if server is not None:
            server.round += 1
            rooms, mark = server.rooms, server.round
        changed: list[RoomReport] = []
        new: list[RoomReport] = []
        for number, piece in enumerate(pieces, 1):
            for item in piece:
                room = rooms.get(item.id)
                if room is None:
                    new.append(item)
                elif room.round != mark:
                    room.round = mark
                    if room.peers != item.peers or room.customer != item.customer:
                        changed.append(item)
            if not number % READ:
                yield
        return changed, new

    def _change(self, server: Server, items: Sequence[RoomReport]) -> Generator[None, None, None]:
        """Take in what is new about the server's rooms."""
        for number, item in enumerate(items):
            if number and not number % STEP:
                yield
                if not self._is_there(server):
                    return
            room = server.rooms.get(item.id)
            if room is not None:
                customer, peers = customer_of(item), peers_of(item)
                # It may be what is kept of it that is the same.
                if (customer, peers) != (room.customer, room.peers):
                    self._registry.report(room, customer, peers)

    def _add(
        self, intake: _Intake, items: Sequence[RoomReport]
    ) -> Generator[None, None, list[RoomReport]]:
        """Take in the server's new rooms; return those that belong to other servers."""
        foreign: list[RoomReport] = []
        server = intake.server
        rooms = server.rooms
        for number, item in enumerate(items):
            if number and not number % STEP:
                yield
                if not self._is_there(server):
                    return []
            if item.id in rooms:
                continue
            room = self._find_room(intake, item)
            if room is None:
                foreign.append(item)
                continue
            self._registry.report(room, customer_of(item), peers_of(item))
            room.round = server.round
        return foreign

    def _drop_others(self, server: Server) -> Generator[None, None, None]:
        """Take note of the rooms that a report no longer names."""
        gone = [room for room in server.rooms.values() if room.round != server.round]
        for start in range(0, len(gone), STEP):
            if start:
                yield
            if not self._is_there(server):
                return
            for room in gone[start : start + STEP]:
                if server.rooms.get(room.id) is room:
                    self._registry.unreport(room)

    def _find_room(self, intake: _Intake, item: RoomReport) -> Room | None:
        """Return the record of a room that is new in a report; None if it is another server's."""
        namespace, name = item.id
        base_id = (namespace, base_of(name))
        server, base = intake.server, self._registry.bases.get(base_id)
        if base is None:
            base = self._registry.place(base_id, server)
            base.claimed = intake.is_first or base_id in server.named
        elif base.server is not server:
            other = base.server
            if not other.disabled and (base.reported or not _is_claim(intake, base, item)):
                return None
            intake.contest(item.id, server, other)
            self._registry.move(base, server)
            base.claimed = True
        room = base.rooms.get(name)
        return room or self._registry.add_room(base, name, customer_of(item), intake.now)

    def _close_foreign(
        self, intake: _Intake, foreign: Sequence[RoomReport]
    ) -> tuple[RoomClose, ...]:
        """Return the tasks that tell a server to close rooms of others; those new are an event."""
        server = intake.server
        closes: dict[RoomId, RoomClose] = {}
        named: dict[BaseId, float] = {}
        for item in foreign:
            base = self._registry.bases.get((item.id[0], base_of(item.id[1])))
            if item.id in closes or base is None or base.server is server:
                continue
            closes[item.id] = RoomClose(item.id, Duration.of(self._report_interval))
            named[base.id] = server.named.get(base.id, intake.now)
            if item.id not in server.contested:
                intake.contest(item.id, base.server, server)
        server.contested = frozenset(closes)
        server.named = named
        return tuple(closes.values())


def _is_claim(intake: _Intake, base: Base, item: RoomReport) -> bool:
    """Tell whether a reported room takes its base from a live server that has never reported it.

    It does if there are clients in it. A place that is reserved there counts as reported against a
    server that has reported since before it was reserved, and had not named a room of the base by
    then.
    """
    if not peers_of(item) or base.id in intake.kept:
        return False
    server = intake.server
    named = server.named.get(base.id, intake.now)
    if not intake.is_first and any(
        server.reporting_since < reservation.made <= named and reservation.ends > intake.now
        for room in base.rooms.values()
        for reservation in room.reserved.values()
    ):
        intake.kept.add(base.id)
        return False
    return True


def _moved(before: tuple[float, float], now: tuple[float, float]) -> bool:
    """Tell whether learning goes on; it comes to rest where report after report is the same."""
    return abs(before[0] - now[0]) > _AT_REST or abs(before[1] - now[1]) > _AT_REST


def customer_of(room: RoomReport) -> str:
    """Return whose a reported room is, no longer than a name may be."""
    return room.customer[:LONGEST_CUSTOMER]


def peers_of(room: RoomReport) -> int:
    """Return how many peers a reported room has, within what can be."""
    return int(min(max(0, room.peers), MOST_PEERS))
