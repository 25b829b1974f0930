"""Writes what grids change to a file, in groups and in another thread.

While a group is being written the next one gathers, so that a group is as large as the disk is
slow. If writing fails, nothing is lost: the changes stay noted, the grids place no rooms and accept
no tasks until they could be written after all, and everything else goes on.
"""

import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from odingw.errors import OdingwError
from odingw.grid.changes import Changes
from odingw.grid.grid import Grid
from odingw.state.journal_file import (
    JournalBrokenError,
    JournalError,
    JournalFile,
    JournalLostError,
)
from odingw.state.places import PlaceLog
from odingw.state.rows import PLACES, Change, changed, encode, in_slices
from odingw.state.slices import Slices, Timer
from odingw.state.steps import Steps

SLICE: Final = 50
"""Records that are made into rows in one reactor step, and given to the file in one go: about half
a millisecond each, for on one core a Connect waits for either."""

TOLD: Final = 20
"""Calls that are answered in one reactor step, when what they wait for is stored."""

IDLE_DELAY: Final = 0.25
"""Seconds that changes nobody waits for may gather, such as reservations in known rooms."""

_RETRY: Final = 1.0

_BACKUP_PAUSE: Final = 0.001
"""Seconds between two steps of a backup: it takes a core to a third at most."""

InThread: TypeAlias = Callable[..., Deferred[Any]]
"""Runs a function in the one thread that works on the file."""

_log = Logger("odingw.state")


class StoreUnavailableError(OdingwError):
    """What was changed could not be stored."""


class Journal:
    """Keeps a file in step with grids, once it is open.

    Args:
        in_thread: runs what works on the file.
        timer: for delays.
        measured: told how many seconds a group took, or of None if it failed.

    Attributes:
        trouble: why nothing can be written at present; empty: all is well.
        steps: how long it holds the reactor up.
        gathering: number of the group that takes in what changes now.
        stored: number of the last group that is stored, and all before it.
    """

    def __init__(
        self,
        in_thread: InThread,
        timer: Timer,
        measured: Callable[[float | None], None],
    ) -> None:
        self.trouble = ""
        self.steps = Steps()
        self.gathering = 1
        self.stored = 0
        self._file: JournalFile | None = None
        self._in_thread = in_thread
        self._timer = timer
        self._slices = Slices(timer)
        self._measured = measured
        self._pools: dict[str, _Pool] = {}
        self._waiting: list[Deferred[None]] = []
        self._scheduled: Any = None
        self._urgent = False
        self._writing: Deferred[None] | None = None
        self._closed = False
        self._looking = self._backing_up = False
        self._broken: JournalBrokenError | None = None

    def open(self, file: JournalFile) -> None:
        """Begin to write to a file."""
        self._file = file
        self._soon(0)

    def add(self, pool: str, grid: Grid, changes: Changes) -> None:
        """Write what this grid changes from now on."""
        self._pools[pool] = _Pool(pool, grid, changes)

    def places(self, pool: str) -> PlaceLog:
        """Return what is known of a pool's reservations in the file."""
        return self._pools[pool].places

    def look(self) -> None:
        """Look at the file, and whether somebody wants a backup of it; with the next group."""
        self._looking = True
        self.changed()

    def changed(self) -> None:
        """Take note that grids may have changed, which nobody waits for."""
        if self._scheduled is None and self._writing is None and not self._closed:
            self._scheduled = self._timer.callLater(IDLE_DELAY, self._begin)

    def saved(self) -> Deferred[None]:
        """Return a Deferred that fires when what has changed until now is stored.

        It fails with ``StoreUnavailableError`` if that fails.
        """
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        if self._writing is None and not self._urgent:
            # In the next reactor step, so that what came in together is written together.
            self._soon(0)
        return waiter

    def close(self) -> Deferred[None]:
        """Write what is left, and close the file."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._closed = True
        if self._writing is not None:
            await self._writing
        if self._scheduled is not None:
            self._scheduled.cancel()
        if self._file is not None:
            await self._write_group(self._file)
            if self.trouble:
                _log.error("the last changes are lost: {reason}", reason=self.trouble)
            await self._in_thread(self._file.close)

    def _soon(self, delay: float) -> None:
        self._urgent = True
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._scheduled = self._timer.callLater(delay, self._begin)

    def _begin(self) -> None:
        self._scheduled = None
        self._urgent = False
        if self._writing is not None or self._file is None:
            return
        # Not the coroutine's own Deferred, which close() would take the result from.
        self._writing = Deferred()
        Deferred.fromCoroutine(self._write_group(self._file)).addBoth(self._written)

    def _written(self, result: object) -> None:
        if isinstance(result, Failure):
            _log.failure("writing the journal failed", result)
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.callback(None)
        if self._closed:
            return
        if self.trouble:
            self._soon(_RETRY)
        elif self._waiting:
            self._soon(0)
        elif any(pool.changes for pool in self._pools.values()):
            self.changed()

    async def _write_group(self, file: JournalFile) -> None:
        waiting, self._waiting = self._waiting, []
        number = self.gathering
        self.gathering += 1
        group = [(pool, pool.changes.take()) for pool in self._pools.values() if pool.changes]
        try:
            await self._write(file, group)
        except Exception as error:
            self._measured(None)
            for pool, changes in group:
                pool.changes.add(changes)
            anew = isinstance(error, JournalBrokenError) and await self._start_anew(file, error)
            if not anew and not self._broken:
                self._complain(str(error))
            self._stop_placing()
            await self._tell(waiting, StoreUnavailableError(str(error)))
            if anew:
                await self._note_everything()
            if not isinstance(error, JournalError | JournalBrokenError):
                raise
        else:
            self.stored = number
            self._succeeded()
            await self._tell(waiting, None)
            await self._look_for_wish(file)

    async def _look_for_wish(self, file: JournalFile) -> None:
        if not self._looking or self._backing_up or self._closed:
            return
        self._looking = False
        if await self._in_thread(file.is_backup_wanted):
            self._backing_up = True
            Deferred.fromCoroutine(self._back_up(file)).addErrback(
                lambda failure: _log.failure("the backup failed", failure)
            )

    async def _back_up(self, file: JournalFile) -> None:
        """Make a backup, a step at a time: groups are written in between."""
        told: list[str] = []
        try:
            while not self._closed and not await self._in_thread(file.back_up, told.append):
                await self._rest()
        finally:
            self._backing_up = False
        for what in told:
            _log.info("a backup of the journal was {what}", what=what)

    def _rest(self) -> Deferred[None]:
        rested: Deferred[None] = Deferred()
        self._timer.callLater(_BACKUP_PAUSE, lambda: rested.callback(None))
        return rested

    async def _tell(self, waiting: list[Deferred[None]], error: Exception | None) -> None:
        """Tell those who wait, few at a time: each of them has work to do then."""
        for first in range(0, len(waiting), TOLD):
            if first:
                await self._slices.pause()
            with self.steps:
                for waiter in waiting[first : first + TOLD]:
                    if error is None:
                        waiter.callback(None)
                    else:
                        waiter.errback(error)

    async def _write(self, file: JournalFile, group: list[tuple["_Pool", Changes]]) -> None:
        outdated = [(pool, pool.places.outdated(pool.grid.ledger)) for pool, _ in group]
        parts = chain.from_iterable(
            _parts(pool, changes, numbers)
            for (pool, changes), (_, numbers) in zip(group, outdated, strict=True)
        )
        taken = 0.0
        part = self._next(parts)
        while part is not None:
            following = self._next(parts)
            taken += await self._in_thread(_timed, file.write, *part, following is not None)
            part = following
        if group:
            self._measured(taken)
        else:
            await self._in_thread(file.check)
        for pool, numbers in outdated:
            pool.places.forget(numbers)

    def _next(self, parts: Iterator[tuple[bytes, bytes]]) -> tuple[bytes, bytes] | None:
        with self.steps:
            return next(parts, None)

    def _complain(self, reason: str) -> None:
        if self.trouble != reason:
            self.trouble = reason
            _log.error(
                "the state cannot be stored: {reason}; what is known is served on, but no rooms "
                "are placed and no tasks accepted until it can be",
                reason=reason,
            )

    def _stop_placing(self) -> None:
        for pool in self._pools.values():
            if pool.grid.may_place:
                pool.stored_until = pool.places.until
            pool.forget_places()
        self._allow(False)

    def _succeeded(self) -> None:
        self._broken = None
        if self.trouble:
            self.trouble = ""
            _log.info("the state can be stored again")
            self._allow(True)

    def _allow(self, allowed: bool) -> None:
        for pool in self._pools.values():
            pool.grid.may_place = allowed

    async def _start_anew(self, file: JournalFile, error: JournalBrokenError) -> bool:
        """Replace a file by one that is empty; return whether that worked."""
        self._broken = self._broken or error
        lost = isinstance(self._broken, JournalLostError)
        what = str(self._broken) if lost else "the journal was damaged"
        try:
            moved = await self._in_thread(file.start_anew)
        except JournalError as reason:
            self._complain(f"{what}, and cannot be replaced: {reason}")
            return False
        self._broken, self.trouble = None, what
        where = f"{'what was there' if lost else 'it'} is now {moved}, and " if moved else ""
        _log.error(
            "{what}; {where}a new one is made of all that is known; until that is stored, no rooms "
            "are placed and no tasks accepted",
            what=what,
            where=where,
        )
        return True

    async def _note_everything(self) -> None:
        for pool in list(self._pools.values()):
            parts = pool.grid.ledger.everything_in_parts()
            while True:
                with self.steps:
                    part = next(parts, None)
                    if part is None:
                        break
                    pool.changes.add(part)
                await self._slices.pause()


class _Pool:
    """A pool whose grid is written.

    Args:
        name: of the pool.
        grid: its grid.
        changes: what the grid has changed and is not written yet.

    Attributes:
        places: its reservations in the file.
        stored_until: when the last of them that had been written ends by itself, as the trouble
            began.
    """

    def __init__(self, name: str, grid: Grid, changes: Changes) -> None:
        self.name = name
        self.grid = grid
        self.changes = changes
        self.places = PlaceLog()
        self.stored_until = 0.0

    def forget_places(self) -> None:
        """Forget reservations that came and went while nothing could be stored."""
        ledger = self.grid.ledger
        oldest = ledger.oldest_place()
        # What is stored of others is over as well by then, and goes with the next group.
        if oldest is None or oldest > self.stored_until:
            self.changes.forget_places(lambda place: ledger.place(place) is not None)


def _parts(pool: _Pool, changes: Changes, outdated: list[int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield what to write and what to delete; the latter last, when all is written that stays."""
    name, gone = pool.name, ((PLACES, (number,), None) for number in outdated)
    everything: Iterator[Change] = chain(changed(pool.grid.ledger, changes, pool.places), gone)
    for part in in_slices(everything, SLICE):
        upserts = [(kind, name, key, row) for kind, key, row in part if row is not None]
        deletes = [(kind, name, key) for kind, key, row in part if row is None]
        yield encode(upserts), encode(deletes)


def _timed(call: Callable[..., object], *args: object) -> float:
    began = time.perf_counter()
    call(*args)
    return time.perf_counter() - began
