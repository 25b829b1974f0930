"""The grid of one pool, shared by all gateways of a fleet.

A call is carried out on this gateway's own grid first. What it changed goes to Redis together with
everything else of the same reactor step, and the answer says where Redis decided otherwise; the
call is then carried out again on the corrected grid. While Redis is away, changes gather and what
is known is served on.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Final

from twisted.internet.defer import Deferred

from odingw.errors import Reason, Refused
from odingw.grid.bans import end_of
from odingw.grid.changes import PlaceKey
from odingw.grid.grid import Grid
from odingw.grid.ledger import BanRow
from odingw.grid.rooms import BaseId, base_of
from odingw.grid.store import Eventual
from odingw.grid.tasks import Delivery, Task
from odingw.grid.values import (
    Admission,
    Command,
    Event,
    Placed,
    Reported,
    RoomView,
    ServerReport,
    ServerView,
    TasksDropped,
)
from odingw.state.redis.exchange import LEASE, Exchange, RedisAwayError, failed
from odingw.state.redis.layout import (
    ban_value,
    base_key,
    encode,
    read_task,
    task_value,
)
from odingw.state.redis.replica import Replica
from odingw.state.slices import Slices

_TRIES: Final = 4
"""How often a Connect is carried out again because another gateway was quicker."""


class SharedDelivery(Delivery, frozen=True, eq=False):
    """Tasks on their way in one reply.

    Attributes:
        token: tells this flight from any other to the same server.
    """

    token: str = ""


class RedisGrid:
    """The grid of one pool; an :class:`odingw.grid.store.GridStore`.

    Args:
        grid: the rules, and this gateway's picture of the state.
        replica: that picture as a copy of what Redis holds.
        exchange: with Redis.
        gateway: this gateway's id.
        slices: runs what takes long.
        retry_after: seconds, told to those who are refused because Redis is away.
    """

    def __init__(
        self,
        grid: Grid,
        replica: Replica,
        exchange: Exchange,
        gateway: str,
        slices: Slices,
        retry_after: float,
    ) -> None:
        self.replica = replica
        self.exchange = exchange
        self._grid = grid
        self._gateway = gateway
        self._slices = slices
        self._retry_after = retry_after
        self._tokens = 0

    def connect(self, admission: Admission, now: float) -> Eventual[Placed]:
        """Admit a client; which server has its room is for Redis to say."""
        place = _place_of(admission)
        held = place is not None and self._grid.ledger.place(place) is not None
        try:
            placed = self._grid.connect(admission, self.exchange.set_time(now))
        except Refused:
            # What was over by then has been ended all the same.
            self.exchange.soon()
            raise
        if not self.exchange.up:
            return placed
        return self._confirm(admission, placed, None if held else place)

    async def _confirm(
        self, admission: Admission, placed: Placed, taken: PlaceKey | None
    ) -> Placed:
        base = (admission.namespace, base_of(admission.rooms[-1]))
        checks = [("c", encode(key)) for key in _ban_keys(admission)]
        for _ in range(_TRIES):
            try:
                outcome = await self.exchange.send(checks)
            except RedisAwayError:
                return self._alone(base, placed)
            try:
                self._check_bans(admission, outcome.results)
            except Refused:
                if taken is not None:
                    self._grid.ledger.cancel(taken)
                    self.exchange.soon()
                raise
            # Not what Redis said of this commit alone: another one may have come in between.
            if self._grid.ledger.server_of_base(base) == placed.address:
                return placed
            placed = self._grid.connect(admission, self.exchange.now)
        raise self._unavailable()

    def _alone(self, base: BaseId, placed: Placed) -> Placed:
        """Decide on a Connect that Redis did not answer."""
        if placed.how != "existing":
            # Nobody has been told of it; whoever asks again must not find it.
            self._grid.ledger.drop_base(base)
        elif self._grid.ledger.base(base) is not None:
            return placed
        raise self._unavailable()

    def _check_bans(self, admission: Admission, results: Sequence[str]) -> None:
        reasons = (Reason.ROOM_BANNED, Reason.USER_BANNED)
        for index, until in enumerate(results):
            if until and float(until) > self.exchange.now:
                raise Refused(reasons[index % 2], float(until) - self.exchange.now)

    def report(self, report: ServerReport, now: float) -> Eventual[Reported]:
        """Take in a report; it is answered whether or not Redis is there."""
        now = self.exchange.set_time(now)

        def stepped() -> None:
            self.replica.reported.add(report.address)
            self._grid.ledger.note_server(report.address)
            self.exchange.soon()

        return self._slices.run(self._grid.report_in_steps(report, now), stepped)

    def command(self, command: Command, now: float) -> Eventual[None]:
        """Queue a task for whichever server has the room."""
        try:
            self._grid.judge(command, self.exchange.set_time(now))
        except Refused:
            self.exchange.soon()
            raise
        if not self.exchange.up:
            raise self._unavailable()
        return self._queue(command)

    async def _queue(self, command: Command) -> None:
        ban, ban_row = b"", b""
        row = None
        if command.ban is not None:
            ban = encode((command.room, command.user))
            if command.ban:
                row = BanRow(end_of(command.ban, self.exchange.now), command.customer)
                ban_row = ban_value(row)
        value = task_value(command.body, command.customer)
        operation = ("T", base_key(command.room), value, ban, ban_row)
        try:
            outcome = await self.exchange.send([operation])
        except RedisAwayError:
            raise self._unavailable() from None
        result = outcome.results[0]
        if not result:
            raise Refused(Reason.ROOM_NOT_FOUND)
        if self.exchange.seq >= outcome.seq:
            # It was told already, and may have changed since.
            return
        if row is not None:
            self.replica.put_ban(ban.decode(), ban_row.decode())
        elif ban:
            self.replica.drop_ban((command.room, command.user))
        if result != "lifted":
            number, server = result
            self.replica.put_task(int(number), server, 0, value.decode())

    def take(self, address: str) -> Eventual[Delivery | None]:
        """Put the tasks that may be sent to a server now in flight."""
        if not self.exchange.up or not self._grid.has_tasks(address):
            return None
        return self._take(address)

    async def _take(self, address: str) -> Delivery | None:
        self._tokens += 1
        token = f"{self._gateway}-{self._tokens}"
        try:
            outcome = await self.exchange.send([("K", address, token, str(LEASE))])
        except RedisAwayError:
            # Redis may have done it all the same, or do it yet.
            self.exchange.unsettled.append(("A", address, token, "-"))
            return None
        tasks = [self._taken(address, *found) for found in outcome.results[0]]
        return SharedDelivery(address, tuple(tasks), token) if tasks else None

    def _taken(self, address: str, number: str, value: str, returned: str) -> Task:
        task = self.replica.tasks.get(int(number))
        if task is None:
            # It has not been told yet, or is done by now; that is for others to say.
            row = read_task(value, address, int(returned))
            namespace, name = row.body.id
            task = Task(row.body, row.customer, (namespace, base_of(name)), int(number))
        task.returned = int(returned)
        return task

    def acknowledge(self, delivery: Delivery) -> None:
        """Forget tasks that arrived; if Redis is away, as soon as it is back."""
        Deferred.fromCoroutine(self._settle(delivery, arrived=True)).addErrback(failed)

    def give_back(self, delivery: Delivery) -> Eventual[tuple[Event, ...]]:
        """Queue tasks that did not arrive again."""
        return self._settle(delivery, arrived=False)

    async def _settle(self, delivery: Delivery, *, arrived: bool) -> tuple[Event, ...]:
        assert isinstance(delivery, SharedDelivery)  # noqa: S101  -- take() makes no others
        operation = ("A", delivery.address, delivery.token, "1" if arrived else "0")
        known = {task.number: task for task in delivery.tasks}
        try:
            if not self.exchange.up:
                raise RedisAwayError
            outcome = await self.exchange.send([operation])
        except RedisAwayError:
            self.exchange.unsettled.append(operation)
            return ()
        dropped = tuple(known[int(n)] for n in outcome.results[0] if int(n) in known)
        for task in dropped:
            task.returned += 1
        return (TasksDropped(delivery.address, dropped),) if dropped else ()

    def drain(self, address: str, drained: bool) -> Eventual[None]:
        """Let a server take no new rooms, or take them again."""
        if not self.exchange.up:
            raise self._unavailable()
        return self._drain(address, drained)

    async def _drain(self, address: str, drained: bool) -> None:
        try:
            outcome = await self.exchange.send([("D", address, "1" if drained else "0")])
        except RedisAwayError:
            raise self._unavailable() from None
        if not outcome.results[0]:
            raise Refused(Reason.SERVER_NOT_FOUND)

    def give_key(self, address: str, kid: str, now: float) -> Eventual[str]:
        """Remember which key a server is given; it is, when all gateways can know."""
        before = self._grid.key_of(address)
        if not self.exchange.up and before is not None:
            return before
        if not self._grid.note_key(address, kid, self.exchange.set_time(now)):
            self.exchange.soon()
            return kid
        return self._given(address, kid, before) if self.exchange.up else kid

    async def _given(self, address: str, kid: str, before: str | None) -> str:
        try:
            await self.exchange.send(())
        except RedisAwayError:
            # What other gateways sign with must not be wrong; this is told when Redis is back.
            if before is not None and self._grid.key_of(address) == kid:
                self._grid.note_key(address, before, self.exchange.now)
                return before
        return kid

    def address_of_key(self, kid: str) -> str | None:
        """Return the address of the attached server that was given the key with this id."""
        return self._grid.address_of_key(kid)

    def addresses(self) -> Set[str]:
        """Return the addresses of all servers."""
        return self._grid.addresses()

    def servers(self) -> Iterable[ServerView]:
        """Yield all servers."""
        return self._grid.servers()

    def rooms(self) -> Iterable[RoomView]:
        """Yield all rooms that are reported or reserved."""
        return self._grid.rooms()

    def tick(self, now: float) -> tuple[Event, ...]:
        """Do the periodic work. While Redis is away nobody is written off: others may hear them."""
        now = self.exchange.set_time(now)
        self.replica.drop_empty_bases()
        if not self.exchange.up:
            self._grid.sweep(now)
            self.replica.forget_places()
            return ()
        events = self._grid.tick(now)
        self.exchange.soon()
        return events

    def excuse(self, now: float) -> None:
        """Count every server as just heard, here and at all gateways."""
        self._grid.excuse(self.exchange.set_time(now))
        if self.exchange.up:
            self.exchange.send([("E",)]).addErrback(failed)

    def _unavailable(self) -> Refused:
        return Refused(Reason.STORE_UNAVAILABLE, self._retry_after)


def _place_of(admission: Admission) -> PlaceKey | None:
    if not admission.rooms:
        return None
    client = (admission.user, "" if admission.user else admission.token_id)
    return (admission.namespace, admission.rooms[-1]), client


def _ban_keys(admission: Admission) -> Iterator[tuple[tuple[str, str], str | None]]:
    for name in admission.rooms:
        yield (admission.namespace, name), None
        yield (admission.namespace, name), admission.user
