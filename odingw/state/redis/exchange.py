"""What one gateway and Redis tell each other of one pool: commits, and words of commits.

Changes of the grid, and operations that somebody waits for, gather while Redis works on those
before them, and then go there together. Where Redis decides otherwise than the grid had it, the
grid is corrected before anybody is answered. While Redis is away, changes gather.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import chain
from typing import Any, Final, TypeAlias

from msgspec import Struct, msgpack
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from odingw.grid.changes import Changes
from odingw.grid.grid import Grid
from odingw.grid.ledger import BaseRow
from odingw.state.redis.errors import RedisAwayError as RedisAwayError
from odingw.state.redis.layout import Group, Keys, Message, Operation, read_base_key
from odingw.state.redis.replica import Replica
from odingw.state.slices import Slices, Timer
from odingw.state.steps import Steps

MOST: Final = 300
"""Operations in one commit: Redis, and who hears of it, does nothing else meanwhile."""

STEP: Final = 0.005
"""Seconds in which operations are gathered, after which those that there are go out."""

TOLD: Final = 20
"""Calls that are answered in one reactor step, when what they wait for is committed."""

LEASE: Final = 5.0
"""Seconds after a gateway's last sign of life in which its deliveries are still its own."""

_LONGEST_REASON: Final = 200

_log = Logger("odingw.state")

_read_message: Final = msgpack.Decoder(Message).decode

_ANSWERED: Final = frozenset({"X", "R", "D", "B", "p", "c", "T", "t", "K", "A", "H"})
"""Codes of the operations that have a result."""

_IN_THE_GRID: Final = frozenset({"S", "k", "-k", "B", "r", "-r", "p", "-p", "-b", "c", "H"})
"""Codes of the operations that say what the grid has done already."""


Commit: TypeAlias = Callable[[Keys, Sequence[str | bytes]], Deferred[Any]]
"""Sends a commit; fails with ``RedisAwayError``."""


class Loss(Enum):
    """Whether Redis has lost what it was told."""

    NONE = 0
    POSSIBLE = 1
    CERTAIN = 2


class Outcome(Struct):
    """What Redis decided on operations: their results, and under which number it told of them."""

    results: list[Any]
    seq: int


class _Batch:
    """What goes into the next commit beside the changes."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.waiting: list[tuple[Deferred[Outcome], int, int]] = []


class Exchange:
    """The exchange of one gateway with Redis about one pool.

    Args:
        grid: this gateway's picture of the pool.
        changes: takes note of the grid's changes.
        replica: the grid as a copy of what Redis holds.
        keys: the pool's keys.
        gateway: this gateway's id.
        commit: sends a commit.
        timer: for delays.
        read_anew: called if the grid must be read from Redis again.
        steps: measures how long work here holds the reactor up.

    Attributes:
        up: whether commits can be sent.
        ahead: seconds that Redis's clock is ahead of this gateway's.
        now: the fleet's time, when it was last told.
        seq: number of the last commit up to which all have been heard of.
        epoch: tells this Redis from one that begins anew.
        run: tells this Redis from one that has taken its place.
        lost: whether it has lost what it was told, and has not been told again yet.
        expected: number of a commit that should have been heard of by the next look.
        skipped: how many messages could not be read.
        keys: as given.
        unsettled: operations that must be carried out when Redis is back.
    """

    def __init__(
        self,
        grid: Grid,
        changes: Changes,
        replica: Replica,
        keys: Keys,
        gateway: str,
        commit: Commit,
        timer: Timer,
        read_anew: Callable[[], None],
        steps: Steps,
    ) -> None:
        self.up = False
        self.ahead = 0.0
        self.now = 0.0
        self.seq = 0
        self.epoch = ""
        self.run = ""
        self.lost = Loss.NONE
        self.expected = 0
        self.skipped = 0
        self.keys = keys
        self.unsettled: list[Operation] = []
        self._grid = grid
        self._changes = changes
        self._replica = replica
        self._gateway = gateway
        self._commit = commit
        self._timer = timer
        self._slices = Slices(timer)
        self._read_anew = read_anew
        self._steps = steps
        self._batch = _Batch()
        self._scheduled: Any = None
        self._committing = False
        self._commits = 0
        self._foreign = 0
        self._sent: dict[str, int] = {}
        self._held: deque[bytes] | None = None
        grid.may_place = False

    def set_time(self, now: float) -> float:
        """Take note of this gateway's time, and return the fleet's."""
        self.now = now + self.ahead
        return self.now

    def send(self, operations: Sequence[Operation]) -> Deferred[Outcome]:
        """Commit what has changed, and these operations; all that have results are of one code."""
        outcome: Deferred[Outcome] = Deferred()
        if not self.up:
            outcome.errback(RedisAwayError())
            return outcome
        batch = self._batch
        first = len(batch.operations)
        batch.operations.extend(operations)
        batch.waiting.append((outcome, first, len(batch.operations)))
        self.soon()
        return outcome

    def soon(self) -> None:
        """Commit what has changed in the next reactor step, if nothing is under way."""
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
            failed(failure)
        if self._changes or self._batch.waiting:
            self.soon()

    async def _commit_batch(self, changes: Changes, batch: _Batch) -> None:
        try:
            groups = ((operation,) for operation in batch.operations)
            everything = chain(self._replica.operations(changes), groups)
            results, seq = await self.commit(everything)
        except Exception as error:
            self._changes.add(changes)
            for waiter, _, _ in batch.waiting:
                waiter.errback(error)
            if isinstance(error, RedisAwayError):
                return
            raise
        own = results[len(results) - len(batch.operations) :]
        for start in range(0, len(batch.waiting), TOLD):
            # Each of them has work to do then.
            if start:
                await self._slices.pause()
            with self._steps:
                for waiter, first, last in batch.waiting[start : start + TOLD]:
                    waiter.callback(Outcome(own[first:last], seq))

    async def commit(self, groups: Iterable[Group]) -> tuple[list[Any], int]:
        """Commit groups of operations, few at a time, so that neither this process nor Redis waits.

        The grid is corrected where Redis decided otherwise.

        Returns:
            The result of each operation, or None, and the number of the last thing that was told.

        Raises:
            RedisAwayError: Redis did not answer.
        """
        rest = iter(groups)
        results: list[Any] = []
        seq = 0
        while True:
            with self._steps:
                part = _part(rest)
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
                self._replica.move_task(int(operation[1]), result)
            elif code == "R" and result:
                # It reported to another gateway in that moment; what was on it is forgotten here.
                self._timer.callLater(0, self._read_anew)
            elif code == "X" and result:
                self._grid.ledger.revive(str(operation[1]), float(result))

    def hear(self, message: bytes) -> None:
        """Take in what a commit is told as, or keep it for after the snapshot."""
        if self._held is not None:
            self._held.append(message)
            return
        with self._steps:
            self._take_in(message)

    def _take_in(self, message: bytes) -> None:
        """Take in a message; one that cannot be read is skipped, for anybody may have sent it.

        If a commit was told by it, ``seq`` stays behind from then on, and the next look notices.
        """
        try:
            told = _read_message(message)
            self._put_in(told)
        except Exception as error:
            self.skipped += 1
            if self.skipped == 1:
                _log.error(
                    "a message on {channel} in Redis cannot be read ({reason}); it and all further "
                    "ones are skipped and counted",
                    channel=self.keys.channel,
                    reason=f"{type(error).__name__}: {error}"[:_LONGEST_REASON],
                )
            return
        # Whoever may publish can tell of any number; only Redis knows which there are.
        if told.seq == self.seq + 1:
            self.seq = told.seq

    def _put_in(self, told: Message) -> None:
        own = told.gateway == self._gateway
        if own and self._sent.pop(told.commit, None) == self._foreign:
            # The grid has it already, for nobody else's word came in between.
            return
        # What is put in now may be older than what was sent meanwhile, which then has to follow.
        self._foreign += 1
        self._replica.apply(told.parts, None if own else self.now)

    def hold(self) -> None:
        """Keep what is told until :meth:`release`."""
        self._held = deque()

    async def release(self) -> None:
        """Take in what was kept, and what comes meanwhile."""
        # What was sent before the break is not known to have been carried out.
        self._foreign += 1
        while self._held:
            with self._steps:
                self._take_in(self._held.popleft())
            await self._slices.pause()
        self._held = None

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
        await self.commit([(("E",),)])
        await self.catch_up()

    def went_up(self) -> None:
        """Begin to commit."""
        self.up = self._grid.may_place = True
        unsettled, self.unsettled = self.unsettled, []
        if unsettled:
            self.send(unsettled).addErrback(self._keep, unsettled)
        self.soon()

    def _keep(self, failure: Any, operations: list[Operation]) -> None:
        failure.trap(RedisAwayError)
        self.unsettled = operations + self.unsettled

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
            operations = self._replica.operations(changes, apart=True)
        else:
            operations = self._replica.everything(overwrite=self.lost is Loss.CERTAIN)
        try:
            await self.commit(operations)
        except RedisAwayError:
            self._changes.add(changes)
            raise
        if self.lost is not Loss.NONE:
            # Redis may have given their numbers to others; what it has is read next.
            for number in list(self._replica.tasks):
                self._replica.drop_task(number)
        self.lost = Loss.NONE


def _part(groups: Iterator[Group]) -> list[Operation]:
    """Take as many operations as one commit has, and as there is time to gather."""
    part: list[Operation] = []
    late = time.perf_counter() + STEP
    for group in groups:
        part += group
        if len(part) >= MOST or (part and time.perf_counter() > late):
            break
    return part


def failed(failure: Any) -> None:
    """Log what nobody waits for and should not have failed; that Redis is away is known."""
    if failure.check(RedisAwayError) is None:
        _log.failure("work with Redis failed", failure)
