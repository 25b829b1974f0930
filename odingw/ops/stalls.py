"""How long the reactor is held up: nobody is answered while one of its steps lasts."""

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

INTERVAL: Final = 0.02
"""Seconds between two looks; a step is seen to last so much shorter at the most."""


class Timer(Protocol):
    """What of a reactor calls later."""

    def callLater(self, delay: float, callable: Callable[..., object]) -> Any:  # noqa: A002, N802  -- Twisted's
        """Call later."""


class StallWatch:
    """Asks to be called again and again, and looks how late the calls come.

    Args:
        timer: the reactor.
        clock: the time, in seconds.
        cpu: the time that this thread has worked, in seconds.

    Attributes:
        longest: the longest delay until now, in seconds. Other programs that keep the processor
            busy cause delays too.
        longest_busy: the longest delay, as far as this thread worked meanwhile.
    """

    def __init__(
        self,
        timer: Timer,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self.longest = 0.0
        self.longest_busy = 0.0
        self._timer = timer
        self._clock = clock
        self._cpu = cpu
        self._due = 0.0
        self._worked = 0.0
        self._call: Any = None

    def start(self) -> None:
        """Begin to look, when the reactor has come round for the first time."""
        self._call = self._timer.callLater(0, self._again)

    def _again(self) -> None:
        self._due = self._clock() + INTERVAL
        self._worked = self._cpu()
        self._call = self._timer.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        """End to look."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        late, worked = self._clock() - self._due, self._cpu() - self._worked
        self.longest = max(self.longest, late)
        self.longest_busy = max(self.longest_busy, min(late, worked))
        self._again()
