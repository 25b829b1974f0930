"""Work that is done a step at a time, so that everybody else is served meanwhile."""

from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred

from odingw.grid.store import Eventual

T = TypeVar("T")


class Timer(Protocol):
    """What of a reactor calls later."""

    def callLater(self, delay: float, callable: Callable[..., object]) -> Any:  # noqa: A002, N802  -- Twisted's
        """Call later."""


class Slices:
    """Runs generators, a step in each turn of the reactor.

    Args:
        timer: a reactor.
    """

    def __init__(self, timer: Timer) -> None:
        self._timer = timer

    def run(
        self, steps: Generator[None, None, T], after: Callable[[], object] = lambda: None
    ) -> Eventual[T]:
        """Run a generator to its end, and return what it returned; at once if it has one step.

        Args:
            steps: yields where others may come in between.
            after: called after each step.
        """
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            after()
            return result
        after()
        return self._go_on(steps, after)

    async def _go_on(self, steps: Generator[None, None, T], after: Callable[[], object]) -> T:
        while True:
            await self.pause()
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                after()

    def pause(self) -> Deferred[None]:
        """Let the reactor do other things."""
        paused: Deferred[None] = Deferred()
        self._timer.callLater(0, lambda: paused.callback(None))
        return paused
