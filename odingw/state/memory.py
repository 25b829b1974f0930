"""State in this process's memory alone: it forgets everything when the process ends."""

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, succeed

from odingw.grid.grid import Grid
from odingw.grid.store import Eventual
from odingw.grid.usage import Usage
from odingw.grid.values import (
    Event,
    GridSettings,
    Paused,
    Reported,
    ServerReport,
    UsageView,
)
from odingw.state.slices import Slices


class Grids:
    """All pools' grids in this process.

    Args:
        settings: the numbers that the rules depend on.
        new_grid: makes the grid of a pool, given its name and the usage that all pools share.
    """

    def __init__(self, settings: GridSettings, new_grid: Callable[[str, Usage], Grid]) -> None:
        self._settings = settings
        self._new_grid = new_grid
        self._usage = Usage(retry_after=settings.report_interval)
        self._grids: dict[str, Grid] = {}
        self._ticked: float | None = None

    def pool(self, name: str) -> Grid:
        """Return the grid of a pool, always the same one."""
        grid = self._grids.get(name)
        if grid is None:
            grid = self._grids[name] = self._new_grid(name, self._usage)
        return grid

    def pools(self) -> Iterable[tuple[str, Grid]]:
        """Yield the pools that are in use, by name."""
        return self._grids.items()

    def usage(self) -> Iterable[UsageView]:
        """Yield every customer that uses anything."""
        return self._usage.views()

    def resume(self, now: float) -> None:
        """Take up work after nobody was there."""
        for grid in self._grids.values():
            grid.resume(now)

    def tick(self, now: float) -> tuple[Event, ...]:
        """Do the periodic work.

        If far more time than one tick has gone by, the process was stopped or starved: servers may
        have reported in vain, so each counts as just heard.
        """
        events: list[Event] = []
        gap = now - self._ticked if self._ticked is not None else 0.0
        self._ticked = now
        if gap > 2.5 * self._settings.tick:
            events.append(Paused(gap))
            for grid in self._grids.values():
                grid.excuse(now)
        for grid in self._grids.values():
            events.extend(grid.tick(now))
        return tuple(events)


class _MemoryGrid(Grid):
    """A grid that takes in large reports step by step.

    Args:
        settings: the numbers that the rules depend on.
        usage: the customers' usage, shared by all pools.
        pick: given n, a random number from 0 to n - 1.
        slices: runs the steps; None: they are all done at once.
    """

    def __init__(
        self,
        settings: GridSettings,
        usage: Usage,
        pick: Callable[[int], int],
        slices: Slices | None,
    ) -> None:
        super().__init__(settings, usage, pick)
        self._slices = slices

    def report(  # type: ignore[override]  # stores' callers expect either
        self, report: ServerReport, now: float, *, take: bool = False
    ) -> Eventual[Reported]:
        """Take in what a server says of itself and its rooms."""
        if self._slices is None:
            return super().report(report, now, take=take)
        return self._slices.run(self.report_in_steps(report, now, take=take))


class MemoryStore(Grids):
    """State in memory alone; an :class:`odingw.grid.store.Store`.

    Args:
        settings: the numbers that the rules depend on.
        pick: given n, a random number from 0 to n - 1.
        slices: runs what takes long; None: it is done at once.
    """

    trouble = ""
    longest_step = 0.0
    skipped = 0

    def __init__(
        self, settings: GridSettings, pick: Callable[[int], int], slices: Slices | None = None
    ) -> None:
        super().__init__(settings, lambda _, usage: _MemoryGrid(settings, usage, pick, slices))

    def start(self, now: float) -> None:
        """Begin; there is nothing to do."""

    def ready(self) -> Deferred[None]:
        """Wait for nothing."""
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """End; there is nothing to do."""
        return succeed(None)
