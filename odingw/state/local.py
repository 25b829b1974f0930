"""State on this machine: grids in memory, with a journal in a file.

What others must be able to rely on is answered when it is stored: the place of a new room, a task,
a ban, a drain. Killed at any moment and started again, the gateway knows all that it has answered
for.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence, Set
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from odingw.errors import NOT_JSON, ConfigError, Reason, Refused
from odingw.grid.changes import Changes
from odingw.grid.grid import Grid
from odingw.grid.rooms import BaseId, base_of
from odingw.grid.store import Eventual
from odingw.grid.tasks import Delivery
from odingw.grid.usage import Usage
from odingw.grid.values import (
    Admission,
    Command,
    Event,
    GridSettings,
    Placed,
    Reported,
    RoomView,
    ServerReport,
    ServerView,
    UsageView,
)
from odingw.state.journal import InThread, Journal, StoreUnavailableError
from odingw.state.journal_file import JournalBrokenError, JournalError, JournalFile
from odingw.state.memory import Grids
from odingw.state.places import PlacesRow, latest
from odingw.state.rows import KINDS, PLACES, TASK, decode, put
from odingw.state.slices import Slices, Timer

_log = Logger("odingw.state")


class LocalGrid:
    """The grid of one pool; an :class:`odingw.grid.store.GridStore`.

    Args:
        grid: the rules and the state.
        journal: what stores its changes.
        slices: runs what takes long.
        retry_after: seconds, told to those who are refused because nothing can be stored.
    """

    def __init__(self, grid: Grid, journal: Journal, slices: Slices, retry_after: float) -> None:
        self._grid = grid
        self._journal = journal
        self._slices = slices
        self._retry_after = retry_after
        # In which group the journal stores the place of a base.
        self._unsaved: dict[BaseId, int] = {}

    def connect(self, admission: Admission, now: float) -> Eventual[Placed]:
        """Admit a client; one whose room's place is not stored yet waits until it is."""
        try:
            placed = self._grid.connect(admission, now)
        except Refused:
            # What was over by then has been ended all the same.
            self._journal.changed()
            raise
        if placed.how != "existing":
            base = (admission.namespace, base_of(admission.rooms[-1]))
            self._unsaved[base] = self._journal.gathering
            return self._when_stored(base, placed)
        if self._unsaved:
            base = (admission.namespace, base_of(admission.rooms[-1]))
            if self._unsaved.get(base, 0) > self._journal.stored:
                return self._when_stored(base, placed)
        self._journal.changed()
        return placed

    async def _when_stored(self, base: BaseId, placed: Placed) -> Placed:
        await self._saved()
        if self._unsaved.get(base, 0) <= self._journal.stored:
            self._unsaved.pop(base, None)
        return placed

    def tidy(self) -> None:
        """Forget which bases were not stored and are now, though nobody has asked for them."""
        stored = self._journal.stored
        for base in [base for base, group in self._unsaved.items() if group <= stored]:
            del self._unsaved[base]

    def report(self, report: ServerReport, now: float, *, take: bool = False) -> Eventual[Reported]:
        """Take in a report; what is lost of it, the next one says again."""
        steps = self._grid.report_in_steps(report, now, take=take)
        return self._slices.run(steps, self._journal.changed)

    def command(self, command: Command, now: float) -> Eventual[None]:
        """Queue a task; accepted when it is stored."""
        self._check_trouble()
        try:
            self._grid.command(command, now)
        except Refused:
            self._journal.changed()
            raise
        return self._saved()

    def take(self, address: str) -> Delivery | None:
        """Put the tasks that may be sent to a server now in flight."""
        return self._grid.take(address)

    def acknowledge(self, delivery: Delivery) -> None:
        """Forget tasks that arrived."""
        self._grid.acknowledge(delivery)
        self._journal.changed()

    def give_back(self, delivery: Delivery) -> tuple[Event, ...]:
        """Queue tasks that did not arrive again."""
        events = self._grid.give_back(delivery)
        self._journal.changed()
        return events

    def drain(self, address: str, drained: bool) -> Eventual[None]:
        """Let a server take no new rooms, or take them again."""
        self._check_trouble()
        self._grid.drain(address, drained)
        return self._saved()

    def disable(self, address: str) -> Eventual[None]:
        """Write a server off until it reports again."""
        self._check_trouble()
        self._grid.disable(address)
        return self._saved()

    def give_key(self, address: str, kid: str, now: float) -> Eventual[str]:
        """Remember which key a server is given; it is, when that is stored."""
        before = self._grid.key_of(address)
        if self._journal.trouble and before is not None:
            return before
        if not self._grid.note_key(address, kid, now):
            self._journal.changed()
            return kid
        return self._given(address, kid, before, now)

    async def _given(self, address: str, kid: str, before: str | None, now: float) -> str:
        try:
            await self._journal.saved()
        except StoreUnavailableError:
            # A gateway that starts with what is stored must not be wrong about it.
            if before is not None and self._grid.key_of(address) == kid:
                self._grid.note_key(address, before, now)
                return before
        return kid

    def address_of_key(self, kid: str) -> str | None:
        """Return the address of the attached server that was given the key with this id."""
        return self._grid.address_of_key(kid)

    def refresh(self) -> None:
        """Learn nothing: nobody else changes this grid."""

    def addresses(self) -> Set[str]:
        """Return the addresses of all servers."""
        return self._grid.addresses()

    def servers(self) -> Iterable[ServerView]:
        """Yield all servers."""
        return self._grid.servers()

    def pages(self) -> AsyncIterator[Sequence[RoomView]]:
        """Yield all rooms that are reported or reserved, page by page."""
        return self._grid.pages()

    def _check_trouble(self) -> None:
        if self._journal.trouble:
            raise Refused(Reason.STORE_UNAVAILABLE, self._retry_after)

    async def _saved(self) -> None:
        self._check_trouble()
        try:
            await self._journal.saved()
        except StoreUnavailableError:
            raise Refused(Reason.STORE_UNAVAILABLE, self._retry_after) from None


class LocalStore:
    """All pools; an :class:`odingw.grid.store.Store`.

    Args:
        settings: the numbers that the rules depend on.
        pick: given n, a random number from 0 to n - 1.
        open_file: opens the journal's file.
        in_thread: runs what works on that file.
        timer: for delays.
        measured: told how many seconds each group took to write, or of None if it failed.
        end_thread: called when nothing will be run any more.
    """

    def __init__(
        self,
        settings: GridSettings,
        pick: Callable[[int], int],
        open_file: Callable[[], JournalFile],
        in_thread: InThread,
        timer: Timer,
        measured: Callable[[float | None], None] = lambda _: None,
        end_thread: Callable[[], None] = lambda: None,
    ) -> None:
        self._end_thread = end_thread
        self._settings = settings
        self._pick = pick
        self._open_file = open_file
        self._changes: dict[str, Changes] = {}
        self._grids = Grids(settings, self._new_grid)
        self._pools: dict[str, LocalGrid] = {}
        self._slices = Slices(timer)
        self._journal = Journal(in_thread, timer, measured)

    def start(self, now: float) -> None:
        """Open the file and take up what it holds.

        Raises:
            ConfigError: it cannot be used.
        """
        file = self._open_file()
        try:
            try:
                rows = list(file.rows())
            except JournalBrokenError:
                rows = []
                file.start_anew()
        except JournalError as error:
            raise ConfigError(f"state.url: {error}") from None
        if file.moved_to is not None:
            _log.error(
                "the journal was damaged; it is now {path}, and a new one is made: rooms are "
                "learnt from reports again, while bans, drains and queued tasks are lost",
                path=file.moved_to,
            )
        self._put(rows)
        self._grids.resume(now)
        self._journal.open(file)

    def ready(self) -> Deferred[None]:
        """Wait for nothing: the file is read at the start."""
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Store what is left, and close the file."""
        return self._journal.close().addBoth(self._stopped)

    def _stopped(self, result: Any) -> Any:
        self._end_thread()
        return result

    skipped = 0

    @property
    def trouble(self) -> str:
        """Why nothing can be stored at present; empty: all is well."""
        return self._journal.trouble

    @property
    def longest_step(self) -> float:
        """The longest time for which storing held the reactor up, in seconds."""
        return self._journal.steps.longest

    def pool(self, name: str) -> LocalGrid:
        """Return the grid of a pool, always the same one."""
        pool = self._pools.get(name)
        if pool is None:
            grid = self._grids.pool(name)
            pool = LocalGrid(grid, self._journal, self._slices, self._settings.report_interval)
            self._pools[name] = pool
        return pool

    def pools(self) -> Iterable[tuple[str, LocalGrid]]:
        """Yield the pools that are in use, by name."""
        return self._pools.items()

    def usage(self) -> Iterable[UsageView]:
        """Yield every customer that uses anything."""
        return self._grids.usage()

    def tick(self, now: float) -> tuple[Event, ...]:
        """Do the periodic work."""
        events = self._grids.tick(now)
        for pool in self._pools.values():
            pool.tidy()
        self._journal.look()
        return events

    def _new_grid(self, name: str, usage: Usage) -> Grid:
        changes = Changes(endings=False)
        grid = Grid(self._settings, usage, self._pick, changes)
        self._journal.add(name, grid, changes)
        return grid

    def _put(self, rows: Iterable[tuple[str, str, str, str]]) -> None:
        found: dict[str, list[tuple[str, Any, Any]]] = {kind: [] for kind in KINDS}
        unknown = 0
        for kind, pool, key, row in rows:
            try:
                found[kind].append((pool, *decode(kind, key, row)))
            except (KeyError, *NOT_JSON):
                unknown += 1
        if unknown:
            _log.error("{count} records of the journal cannot be read", count=unknown)
        places = found.pop(PLACES)
        found[TASK].sort(key=lambda item: item[1])
        for kind, items in found.items():
            for pool, key, row in items:
                self.pool(pool)
                put(self._grids.pool(pool).ledger, kind, key, row)
        self._put_places(places)
        for pool in self._pools:
            self._grids.pool(pool).ledger.drop_empty_bases()

    def _put_places(self, found: list[tuple[str, Any, Any]]) -> None:
        pools: dict[str, list[PlacesRow]] = {}
        for pool, (number,), row in sorted(found, key=lambda item: item[1]):
            self.pool(pool)
            self._journal.places(pool).found(number)
            pools.setdefault(pool, []).append(row)
        for pool, rows in pools.items():
            ledger = self._grids.pool(pool).ledger
            for key, place in sorted(latest(rows), key=lambda item: item[1].ends):
                ledger.put_place(key, place)
