"""What the servers that report to this gateway say, and how Redis is told.

Redis is told the difference to what it was told before. A stamp says whether it still has that:
another gateway may have heard the server since, or a room may have moved. If not, its rooms are
read back, and it is told the difference to these.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from odingw.grid.reports import MOST_CONTESTS, READ, customer_of, peers_of
from odingw.grid.rooms import RoomId
from odingw.grid.tasks import Duration, RoomClose
from odingw.grid.values import (
    Event,
    MoreContested,
    Reported,
    RoomContested,
    ServerAttached,
    ServerReport,
)
from odingw.state.redis.copies import Heard
from odingw.state.redis.errors import RedisAwayError
from odingw.state.redis.rows import read_room_key, room_key
from odingw.state.slices import Slices

if TYPE_CHECKING:
    from odingw.state.redis.pool import RedisGrid

CHANGES: Final = 500
"""Rooms in one call: Redis does nothing else meanwhile."""

_TRIES: Final = 5
"""How often rooms are read back, if something changes them all the time."""

_UNKNOWN: Final = (-1, "")
"""What Redis has of a room of which it was told several things."""

Rooms = dict[RoomId, tuple[int, str]]


class Reports:
    """Takes in the reports of one pool's servers.

    Args:
        pool: the pool.
        gateway: this gateway's id.
        report_interval: seconds for which a room that is another server's stays closed.
        slices: lets others have their turn.
    """

    def __init__(
        self, pool: "RedisGrid", gateway: str, report_interval: float, slices: Slices
    ) -> None:
        self._pool = pool
        self._gateway = gateway
        self._report_interval = report_interval
        self._slices = slices
        self._stamps = 0

    async def take_in(self, report: ServerReport, now: float, *, take: bool) -> Reported:
        """Take in a report, after those of the same server that came before."""
        heard = self._pool.copies.heard.setdefault(report.address, Heard())
        while heard.busy:
            await self._slices.pause()
        heard.busy = True
        try:
            heard.said, heard.twice = await self._read(report, heard.said)
            heard.row = (report.kid, report.version, report.load, report.clients)
            heard.at = now
            if self._pool.up:
                try:
                    return await self.write(report.address, heard, take=take)
                except RedisAwayError:
                    pass
            self._pool.copies.know(report.address, heard, self._own(heard))
            return Reported(self._closes(room for room in heard.said if room in heard.foreign))
        finally:
            heard.busy = False

    async def _read(self, report: ServerReport, before: Rooms) -> tuple[Rooms, Rooms]:
        """Read the rooms.

        Of one that is named twice, the first entry counts; with another one that has clients the
        server may take the room from another server.
        """
        said: Rooms = {}
        twice: Rooms = {}
        for number, piece in enumerate(report.rooms, 1):
            for item in piece:
                room, what = item.id, before.get(item.id)
                if what is None or what[0] != item.peers or what[1] != item.customer:
                    what = (peers_of(item), customer_of(item))
                if said.setdefault(room, what) is not what and what[0] and not said[room][0]:
                    twice.setdefault(room, what)
            if not number % READ:
                await self._slices.pause()
        return said, twice

    async def write_again(self, address: str, heard: Heard) -> None:
        """Tell Redis what a server said last, if it does not have that.

        Raises:
            RedisAwayError: Redis does not answer.
        """
        while heard.busy:
            await self._slices.pause()
        heard.busy = True
        try:
            await self.write(address, heard)
        finally:
            heard.busy = False

    async def write(self, address: str, heard: Heard, *, take: bool = False) -> Reported:
        """Tell Redis what a server said last.

        Raises:
            RedisAwayError: Redis does not answer.
        """
        outcome = _Outcome()
        for _ in range(_TRIES):
            if await self._try(address, heard, outcome, take=take):
                break
            await self._read_back(address, heard)
        else:
            raise RedisAwayError(f"the rooms of {address} change all the time")
        heard.foreign = set(outcome.foreign)
        heard.written = self._own(heard)
        self._pool.copies.know(address, heard, heard.written)
        return Reported(
            self._closes(outcome.foreign), tuple(outcome.events(address, heard)), outcome.delivery
        )

    async def _try(self, address: str, heard: Heard, outcome: "_Outcome", *, take: bool) -> bool:
        """Tell the difference to what was written; False if Redis does not have that."""
        written, said = heard.written, heard.said
        changes = [(room, known) for room, known in said.items() if written.get(room) != known]
        # Those that are known come first, as in odingw.grid.reports.
        changes.sort(key=lambda change: change[0] not in written)
        twice = [entry for entry in heard.twice.items() if entry[0] not in written]
        gone = [room_key(*room) for room in written.keys() - said.keys()]
        # Without a stamp nobody knows what was written.
        expected, heard.stamp = heard.stamp or "?" * bool(written), ""
        again: list[Any] = []
        starts = range(0, max(1, len(changes)), CHANGES)
        for start in starts:
            self._stamps += 1
            is_end = start == starts[-1]
            stamp = f"{self._gateway} {self._stamps}{'' if is_end else ' …'}"
            known = self._pool.flights(address)
            token = self._pool.new_token(address) if take and is_end else ""
            asked = (
                "report",
                address,
                expected,
                stamp,
                start == 0 and not outcome.begun,
                is_end,
                heard.row,
                _flat(changes[start : start + CHANGES]),
                _flat(twice) if is_end else [],
                again if is_end else [],
                gone if is_end else [],
                outcome.is_first,
                token,
                known,
            )
            try:
                answer = await self._pool.run(*asked)
            except RedisAwayError:
                self._pool.end_flight(token)
                raise
            if answer[0] == "whole":
                self._pool.end_flight(token)
                heard.stamp = stamp
                return False
            attached, foreign, outcome.is_first, contests, contested, tasks = answer
            outcome.begun = True
            outcome.attached = attached or outcome.attached
            outcome.contests += contests
            outcome.contested += contested
            expected = stamp
            again = foreign if is_end else again + foreign
        heard.stamp = expected
        outcome.foreign = [read_room_key(room) for room in again[::2]]
        if take:
            outcome.delivery = self._pool.delivery(address, token, tasks)
        return True

    @staticmethod
    def _own(heard: Heard) -> Rooms:
        """Return what a server said of rooms that are not another one's."""
        if not heard.foreign and not heard.twice:
            return heard.said
        return {
            room: _UNKNOWN if room in heard.twice else what
            for room, what in heard.said.items()
            if room not in heard.foreign
        }

    async def _read_back(self, address: str, heard: Heard) -> None:
        """Read which rooms of a server Redis has."""
        written: Rooms = {}
        async for page in self._pool.rooms_of(address):
            for view in page:
                if view.reported:
                    written[view.id] = (view.peers, view.customer)
            await self._slices.pause()
        heard.written = written

    def _closes(self, rooms: Iterable[RoomId]) -> tuple[RoomClose, ...]:
        return tuple(
            RoomClose(room, Duration.of(self._report_interval)) for room in dict.fromkeys(rooms)
        )


class _Outcome:
    """What a report has led to so far."""

    def __init__(self) -> None:
        self.begun = False
        self.is_first = False
        self.attached = ""
        self.foreign: Sequence[RoomId] = ()
        self.contests: list[str] = []
        self.contested = 0
        self.delivery: Any = None

    def events(self, address: str, heard: Heard) -> Iterator[Event]:
        """Yield what has happened."""
        if self.attached:
            yield ServerAttached(address, heard.row[1], self.attached == "returned")
        named = self.contests[: 3 * MOST_CONTESTS]
        for room, keeper, loser in zip(named[::3], named[1::3], named[2::3], strict=True):
            yield RoomContested(read_room_key(room), keeper, loser)
        if self.contested > len(named) // 3:
            yield MoreContested(address, self.contested - len(named) // 3)


def _flat(rooms: Iterable[tuple[RoomId, tuple[int, str]]]) -> list[Any]:
    flat: list[Any] = []
    for room, (peers, customer) in rooms:
        flat += (room_key(*room), customer, peers)
    return flat
