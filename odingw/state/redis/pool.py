"""The grid of one pool, shared by all gateways of a fleet.

A call is carried out on this gateway's own grid first. What it changed goes to Redis together with
everything else of the same reactor step, and the answer says where Redis decided otherwise; the
call is then carried out again on the corrected grid. While Redis is away, changes gather and what
is known is served on.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import chain, islice
from typing import Any, Final, Protocol, TypeAlias

from msgspec import Struct, msgpack
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from odingw.errors import OdingwError, Reason, Refused
from odingw.grid.bans import end_of
from odingw.grid.changes import Changes, PlaceKey
from odingw.grid.grid import Grid
from odingw.grid.ledger import BanRow, BaseRow
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
from odingw.state.redis.layout import (
    Keys,
    Message,
    Operation,
    ban_value,
    base_key,
    encode,
    read_base_key,
    read_task,
    task_value,
)
from odingw.state.redis.replica import Replica
from odingw.state.steps import Steps

MOST: Final = 300
"""Operations in one commit: Redis, and who hears of it, does nothing else meanwhile."""

TOLD: Final = 20
"""Calls that are answered in one reactor step, when what they wait for is committed."""

LEASE: Final = 5.0
"""Seconds after a gateway's last sign of life in which its deliveries are still its own."""

_TRIES: Final = 4
"""How often a Connect is carried out again because another gateway was quicker."""

_log = Logger("odingw.state")

_read_message: Final = msgpack.Decoder(Message).decode


class RedisAwayError(OdingwError):
    """Redis did not answer."""


Commit: TypeAlias = Callable[[Keys, Sequence[str | bytes]], Deferred[Any]]
"""Sends a commit; fails with ``RedisAwayError``."""


class Timer(Protocol):
    """What of a reactor calls later."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any) -> Any:  # noqa: A002, N802  -- Twisted's
        """Call later."""


class SharedDelivery(Delivery, frozen=True, eq=False):
    """Tasks on their way in one reply.

    Attributes:
        token: tells this flight from any other to the same server.
    """

    token: str = ""


class Loss(Enum):
    """Whether Redis has lost what it was told."""

    NONE = 0
    POSSIBLE = 1
    CERTAIN = 2


class _Outcome(Struct):
    """What Redis decided on operations: their results, and under which number it told of them."""

    results: list[Any]
    seq: int


class _Batch:
    """What goes into the next commit beside the changes."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.waiting: list[tuple[Deferred[_Outcome], int, int]] = []


class RedisGrid:
    """The grid of one pool; an :class:`odingw.grid.store.GridStore`.

    Args:
        grid: the rules, and this gateway's picture of the state.
        changes: takes note of the grid's changes.
        keys: the pool's keys.
        gateway: this gateway's id.
        commit: sends a commit.
        timer: for delays.
        read_anew: called if the grid must be read from Redis again.
        layout: in which rows are written.
        steps: measures how long work here holds the reactor up.
        retry_after: seconds, told to those who are refused because Redis is away.

    Attributes:
        up: whether commits can be sent.
        ahead: seconds that Redis's clock is ahead of this gateway's.
        seq: number of the last commit that was heard of.
        epoch: tells this Redis from one that begins anew.
        run: tells this Redis from one that has taken its place.
        lost: whether it has lost what it was told, and has not been told again yet.
        expected: number of a commit that should have been heard of by the next look.
        replica: the grid as a copy of what Redis holds.
    """

    def __init__(
        self,
        grid: Grid,
        changes: Changes,
        keys: Keys,
        gateway: str,
        commit: Commit,
        timer: Timer,
        read_anew: Callable[[], None],
        layout: int,
        steps: Steps,
        retry_after: float,
    ) -> None:
        self.up = False
        self.ahead = 0.0
        self.seq = 0
        self.epoch = ""
        self.expected = 0
        self.run = ""
        self.lost = Loss.NONE
        self.now = 0.0
        self.keys = keys
        self.replica = Replica(grid, changes, layout)
        self._grid = grid
        self._changes = changes
        self._gateway = gateway
        self._commit = commit
        self._timer = timer
        self._read_anew = read_anew
        self._steps = steps
        self._retry_after = retry_after
        self._batch = _Batch()
        self._scheduled: Any = None
        self._committing = False
        self._tokens = 0
        self._commits = 0
        self._foreign = 0
        self._sent: dict[str, int] = {}
        self._held: deque[bytes] | None = None
        self._unsettled: list[Operation] = []
        grid.may_place = False

    # Calls of the gateway

    def connect(self, admission: Admission, now: float) -> Eventual[Placed]:
        """Admit a client; which server has its room is for Redis to say."""
        place = _place_of(admission)
        held = place is not None and self._grid.ledger.place(place) is not None
        try:
            placed = self._grid.connect(admission, self.set_time(now))
        except Refused:
            # What was over by then has been ended all the same.
            self._soon()
            raise
        if not self.up:
            return placed
        return self._confirm(admission, placed, None if held else place)

    async def _confirm(
        self, admission: Admission, placed: Placed, taken: PlaceKey | None
    ) -> Placed:
        base = (admission.namespace, base_of(admission.rooms[-1]))
        checks = [("c", encode(key)) for key in _ban_keys(admission)]
        for _ in range(_TRIES):
            try:
                outcome = await self._send(checks)
            except RedisAwayError:
                return self._alone(base, placed)
            try:
                self._check_bans(admission, outcome.results)
            except Refused:
                if taken is not None:
                    self._grid.ledger.cancel(taken)
                    self._soon()
                raise
            # Not what Redis said of this commit alone: another one may have come in between.
            if self._grid.ledger.server_of((base[0], admission.rooms[-1])) == placed.address:
                return placed
            placed = self._grid.connect(admission, self.now)
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
            if until and float(until) > self.now:
                raise Refused(reasons[index % 2], float(until) - self.now)

    def report(self, report: ServerReport, now: float) -> Reported:
        """Take in a report; it is answered whether or not Redis is there."""
        reported = self._grid.report(report, self.set_time(now))
        self.replica.reported.add(report.address)
        self._changes.server(report.address)
        self._soon()
        return reported

    def command(self, command: Command, now: float) -> Eventual[None]:
        """Queue a task for whichever server has the room."""
        try:
            self._grid.judge(command, self.set_time(now))
        except Refused:
            self._soon()
            raise
        if not self.up:
            raise self._unavailable()
        return self._queue(command)

    async def _queue(self, command: Command) -> None:
        ban, ban_row = b"", b""
        row = None
        if command.ban is not None:
            ban = encode((command.room, command.user))
            if command.ban:
                row = BanRow(end_of(command.ban, self.now), command.customer)
                ban_row = ban_value(row)
        value = task_value(command.body, command.customer)
        operation = ("T", base_key(command.room), value, ban, ban_row)
        try:
            outcome = await self._send([operation])
        except RedisAwayError:
            raise self._unavailable() from None
        result = outcome.results[0]
        if not result:
            raise Refused(Reason.ROOM_NOT_FOUND)
        if self.seq >= outcome.seq:
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
        if not self.up or not self._grid.has_tasks(address):
            return None
        return self._take(address)

    async def _take(self, address: str) -> Delivery | None:
        self._tokens += 1
        token = f"{self._gateway}-{self._tokens}"
        try:
            outcome = await self._send([("K", address, token, str(LEASE))])
        except RedisAwayError:
            # Redis may have done it all the same, or do it yet.
            self._unsettled.append(("A", address, token, "-"))
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
        Deferred.fromCoroutine(self._settle(delivery, arrived=True)).addErrback(_failed)

    def give_back(self, delivery: Delivery) -> Eventual[tuple[Event, ...]]:
        """Queue tasks that did not arrive again."""
        return self._settle(delivery, arrived=False)

    async def _settle(self, delivery: Delivery, *, arrived: bool) -> tuple[Event, ...]:
        assert isinstance(delivery, SharedDelivery)  # noqa: S101  -- take() makes no others
        operation = ("A", delivery.address, delivery.token, "1" if arrived else "0")
        known = {task.number: task for task in delivery.tasks}
        try:
            if not self.up:
                raise RedisAwayError
            outcome = await self._send([operation])
        except RedisAwayError:
            self._unsettled.append(operation)
            return ()
        dropped = tuple(known[int(n)] for n in outcome.results[0] if int(n) in known)
        for task in dropped:
            task.returned += 1
        return (TasksDropped(delivery.address, dropped),) if dropped else ()

    def drain(self, address: str, drained: bool) -> Eventual[None]:
        """Let a server take no new rooms, or take them again."""
        if not self.up:
            raise self._unavailable()
        return self._drain(address, drained)

    async def _drain(self, address: str, drained: bool) -> None:
        try:
            outcome = await self._send([("D", address, "1" if drained else "0")])
        except RedisAwayError:
            raise self._unavailable() from None
        if not outcome.results[0]:
            raise Refused(Reason.SERVER_NOT_FOUND)

    def address_of_key(self, kid: str) -> str | None:
        """Return the address of the attached server whose derived key has this id."""
        return self._grid.address_of_key(kid)

    def servers(self) -> Iterable[ServerView]:
        """Yield all servers."""
        return self._grid.servers()

    def rooms(self) -> Iterable[RoomView]:
        """Yield all rooms that are reported or reserved."""
        return self._grid.rooms()

    def tick(self, now: float) -> tuple[Event, ...]:
        """Do the periodic work. While Redis is away nobody is written off: others may hear them."""
        now = self.set_time(now)
        self.replica.drop_empty_bases()
        if not self.up:
            self._grid.sweep(now)
            return ()
        events = self._grid.tick(now)
        self._soon()
        return events

    def excuse(self, now: float) -> None:
        """Count every server as just heard, here and at all gateways."""
        self._grid.excuse(self.set_time(now))
        if self.up:
            self._send([("E",)]).addErrback(_failed)

    def put_flags(self, address: str, *, disabled: bool, drained: bool) -> None:
        """Take over whether a server is disabled or drained."""
        self._grid.ledger.put_flags(address, disabled=disabled, drained=drained)

    def put_base(self, base_id: BaseId, row: BaseRow) -> None:
        """Take over where a base lives."""
        self._grid.ledger.put_base(base_id, row)

    # Commits

    def set_time(self, now: float) -> float:
        """Take note of this gateway's time, and return the fleet's."""
        self.now = now + self.ahead
        return self.now

    def _unavailable(self) -> Refused:
        return Refused(Reason.STORE_UNAVAILABLE, self._retry_after)

    def _send(self, operations: Sequence[Operation]) -> Deferred[_Outcome]:
        """Commit what has changed, and these operations; all that have results are of one code."""
        outcome: Deferred[_Outcome] = Deferred()
        if not self.up:
            outcome.errback(RedisAwayError())
            return outcome
        batch = self._batch
        first = len(batch.operations)
        batch.operations.extend(operations)
        batch.waiting.append((outcome, first, len(batch.operations)))
        self._soon()
        return outcome

    def _soon(self) -> None:
        if self.up and self._scheduled is None:
            self._scheduled = self._timer.callLater(0, self._flush)

    def _flush(self) -> None:
        self._scheduled = None
        if self._committing or not self.up:
            return
        changes, batch = self._changes.take(), self._batch
        self._batch = _Batch()
        if not changes and not batch.waiting:
            return
        self._committing = True
        Deferred.fromCoroutine(self._commit_batch(changes, batch)).addBoth(self._committed)

    def _committed(self, failure: Any) -> None:
        """Go on with what has gathered while Redis was at work."""
        self._committing = False
        if failure is not None:
            _failed(failure)
        if self._changes or self._batch.waiting:
            self._soon()

    async def _commit_batch(self, changes: Changes, batch: _Batch) -> None:
        try:
            everything = chain(self.replica.operations(changes), batch.operations)
            results, seq = await self.commit(everything)
        except Exception as error:
            self._changes.add(changes)
            for waiter, _, _ in batch.waiting:
                waiter.errback(error)
            if isinstance(error, RedisAwayError):
                return
            raise
        own = results[len(results) - len(batch.operations) :]
        for index, (waiter, first, last) in enumerate(batch.waiting):
            # Each of them has work to do then.
            if index and not index % TOLD:
                await self._pause()
            with self._steps:
                waiter.callback(_Outcome(own[first:last], seq))

    def _pause(self) -> Deferred[None]:
        """Let the reactor do other things."""
        paused: Deferred[None] = Deferred()
        self._timer.callLater(0, paused.callback, None)
        return paused

    async def commit(self, operations: Iterable[Operation]) -> tuple[list[Any], int]:
        """Commit operations, few at a time, so that neither this process nor Redis is held up.

        The grid is corrected where Redis decided otherwise.

        Returns:
            The result of each operation, or None, and the number of the last thing that was told.

        Raises:
            RedisAwayError: Redis did not answer.
        """
        rest = iter(operations)
        results: list[Any] = []
        seq = 0
        while True:
            with self._steps:
                part = list(islice(rest, MOST))
            if not part:
                return results, seq
            told, given = await self._commit_slice(part)
            seq = told or seq
            with self._steps:
                answers = iter(given)
                found = [next(answers) if each[0] in _ANSWERED else None for each in part]
                self._correct(part, found)
            results += found

    def _commit_slice(self, operations: Sequence[Operation]) -> Deferred[Any]:
        self._commits += 1
        commit = str(self._commits)
        # What is told of it need not be put in again if the grid was the first to have it.
        if all(operation[0] in _IN_THE_GRID for operation in operations):
            self._sent[commit] = self._foreign
        arguments: list[str | bytes] = [self._gateway, commit, repr(self.now)]
        for operation in operations:
            arguments += operation
        return self._commit(self.keys, arguments).addBoth(self._answered, commit)

    def _answered(self, answer: Any, commit: str) -> Any:
        if not isinstance(answer, list) or not answer[0]:
            # Nothing was published, or nobody knows.
            self._sent.pop(commit, None)
        return answer

    def _correct(self, operations: Sequence[Operation], results: Sequence[Any]) -> None:
        """Bring the grid in line with what Redis decided."""
        for operation, result in zip(operations, results, strict=True):
            code = operation[0]
            if code in ("B", "p") and result != operation[2]:
                base_id = read_base_key(operation[1])
                known = self._grid.ledger.base(base_id)
                if known is None or known.server != result:
                    self._grid.ledger.put_base(base_id, BaseRow(result, False))
                if code == "B":
                    # Redis would have let it go from a server that is written off.
                    self._grid.ledger.revive(result, self.now)
            elif code == "t" and result:
                self.replica.move_task(int(operation[1]), result)
            elif code == "R" and result:
                # It reported to another gateway in that moment; what was on it is forgotten here.
                self._timer.callLater(0, self._read_anew)
            elif code == "X" and result:
                self._grid.ledger.revive(str(operation[1]), float(result))

    # What is told by Redis

    def hear(self, message: bytes) -> None:
        """Take in what a commit is told as, or keep it for after the snapshot."""
        if self._held is not None:
            self._held.append(message)
            return
        with self._steps:
            self._take_in(message)

    def _take_in(self, message: bytes) -> None:
        told = _read_message(message)
        self.seq = max(self.seq, told.seq)
        own = told.gateway == self._gateway
        if own and self._sent.pop(told.commit, None) == self._foreign:
            # The grid has it already, for nobody else's word came in between.
            return
        # What is put in now may be older than what was sent meanwhile, which then has to follow.
        self._foreign += 1
        self.replica.apply(told.parts, self.now)

    def hold(self) -> None:
        """Keep what is told until :meth:`release`."""
        self._held = deque()

    def release(self) -> None:
        """Take in what was kept."""
        held, self._held = self._held or deque(), None
        # What was sent before the break is not known to have been carried out.
        self._foreign += 1
        for message in held:
            self.hear(message)

    async def resume(self, *, first: bool, others: bool) -> None:
        """Take up work after a break.

        Args:
            first: it is the first time that this gateway does.
            others: other gateways were there all the time.

        Raises:
            RedisAwayError: it is away again.
        """
        if others:
            self._grid.excuse(self.now)
            return
        if first:
            self._grid.resume(self.now)
        else:
            self._grid.excuse(self.now)
        await self.commit([("E",)])
        await self.catch_up()

    def went_up(self) -> None:
        """Begin to commit."""
        self.up = self._grid.may_place = True
        unsettled, self._unsettled = self._unsettled, []
        if unsettled:
            self._send(unsettled).addErrback(self._keep, unsettled)
        self._soon()

    def _keep(self, failure: Any, operations: list[Operation]) -> None:
        failure.trap(RedisAwayError)
        self._unsettled = operations + self._unsettled

    def went_down(self) -> None:
        """Let changes gather."""
        self._held = None
        self.up = self._grid.may_place = False
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        batch, self._batch = self._batch, _Batch()
        for waiter, _, _ in batch.waiting:
            waiter.errback(RedisAwayError())
        self._sent.clear()

    async def catch_up(self) -> None:
        """Commit what has gathered while Redis was away; all that is known if it has lost that.

        Raises:
            RedisAwayError: it is away again.
        """
        changes = self._changes.take()
        if self.lost is Loss.NONE:
            operations = self.replica.operations(changes)
        else:
            operations = self.replica.everything(overwrite=self.lost is Loss.CERTAIN)
        try:
            await self.commit(operations)
        except RedisAwayError:
            self._changes.add(changes)
            raise
        if self.lost is not Loss.NONE:
            # Redis may have given their numbers to others; what it has is read next.
            for number in list(self.replica.tasks):
                self.replica.drop_task(number)
        self.lost = Loss.NONE


_ANSWERED: Final = frozenset({"X", "R", "D", "B", "p", "c", "T", "t", "K", "A", "H"})
"""Codes of the operations that have a result."""


_IN_THE_GRID: Final = frozenset({"S", "B", "r", "-r", "p", "-p", "-b", "c", "H"})
"""Codes of the operations that say what the grid has done already."""


def _place_of(admission: Admission) -> PlaceKey | None:
    if not admission.rooms:
        return None
    client = (admission.user, "" if admission.user else admission.token_id)
    return (admission.namespace, admission.rooms[-1]), client


def _ban_keys(admission: Admission) -> Iterator[tuple[tuple[str, str], str | None]]:
    for name in admission.rooms:
        yield (admission.namespace, name), None
        yield (admission.namespace, name), admission.user


def _failed(failure: Any) -> None:
    _log.failure("work with Redis failed", failure)
