"""State in this process's memory alone: it forgets everything when the process ends."""

from collections.abc import Callable, Iterable

from odingw.grid.grid import Grid
from odingw.grid.usage import Usage
from odingw.grid.values import Event, GridSettings, Paused, UsageView


class MemoryStore:
    """All pools' grids in memory; an :class:`odingw.grid.store.Store`.

    Args:
        settings: the numbers that the rules depend on.
        pick: given n, a random number from 0 to n - 1.
    """

    def __init__(self, settings: GridSettings, pick: Callable[[int], int]) -> None:
        self._settings = settings
        self._pick = pick
        self._usage = Usage(retry_after=settings.report_interval)
        self._grids: dict[str, Grid] = {}
        self._ticked: float | None = None

    def pool(self, name: str) -> Grid:
        """Return the grid of a pool, always the same one."""
        grid = self._grids.get(name)
        if grid is None:
            grid = self._grids[name] = Grid(self._settings, self._usage, self._pick)
        return grid

    def pools(self) -> Iterable[tuple[str, Grid]]:
        """Yield the pools that are in use, by name."""
        return self._grids.items()

    def usage(self) -> Iterable[UsageView]:
        """Yield every customer that uses anything."""
        return self._usage.views()

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
