"""How long a store holds the reactor up at a time."""

import time
from types import TracebackType


class Steps:
    """Measures the steps of a store's work in the reactor's thread, each a ``with`` block.

    Attributes:
        longest: the processor time of the longest one, in seconds.
    """

    __slots__ = ("_began", "_depth", "longest")

    def __init__(self) -> None:
        self.longest = 0.0
        self._began = 0.0
        self._depth = 0

    def __enter__(self) -> None:
        """Begin a step, or a part of the one that has begun."""
        if not self._depth:
            self._began = time.thread_time()
        self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self._depth -= 1
        if not self._depth:
            self.longest = max(self.longest, time.thread_time() - self._began)
