"""Which connections have been waited for too long.

Connections are many and begin to wait at every request, so none has a timer of its own.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

C = TypeVar("C")


class Deadlines(Generic[C]):
    """Who is waited for, since when and for how long.

    Args:
        seconds: tells the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        # Those with one period become late in the order in which they began.
        self._since: defaultdict[float, dict[C, float]] = defaultdict(dict)

    def begin(self, waiting: C, period: float) -> None:
        """Wait for somebody from now on, for this many seconds."""
        since = self._since[period]
        since.pop(waiting, None)
        since[waiting] = self._seconds()

    def end(self, waiting: C, period: float) -> None:
        """Wait no longer."""
        self._since[period].pop(waiting, None)

    def overdue(self) -> Iterator[C]:
        """Yield those who are late; they are not waited for any more."""
        now = self._seconds()
        for period, since in list(self._since.items()):
            while since:
                waiting = next(iter(since))
                if since[waiting] + period > now:
                    break
                del since[waiting]
                yield waiting
