"""Answers that are overdue, in time in which this process did not stand still."""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

_LOOKS: Final = 8
"""How many looks in a row make a time-out."""


class Patience:
    """Calls a function when what was asked is not answered in so many seconds.

    It looks several times in that time whether answers have come. A process that gets no processor,
    or that was stopped, finds one look due when it goes on, not all of them, and hears whom it has
    waited for before the next one.

    Args:
        reactor: calls later.
        seconds: that an answer may take.
        overdue: what is called.
    """

    def __init__(self, reactor: Any, seconds: float, overdue: Callable[[], None]) -> None:
        self._reactor = reactor
        self._pause = seconds / _LOOKS
        self._overdue = overdue
        self._asked = 0
        self._answered = 0
        self._seen: deque[int] = deque(maxlen=_LOOKS)
        self._call: Any = None

    def asked(self) -> None:
        """Wait for one more answer; answers come in the order of the questions."""
        self._asked += 1
        if self._call is None:
            self._look()

    def answered(self) -> None:
        """Wait for one answer less."""
        self._answered += 1

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        if self._answered == self._asked:
            self._seen.clear()
        elif len(self._seen) == _LOOKS and self._answered < self._seen[0]:
            self._overdue()
        else:
            self._seen.append(self._asked)
            self._call = self._reactor.callLater(self._pause, self._look)
