"""A clock that no correction of the wall clock moves."""

import time


class SteadyClock:
    """Seconds since the epoch as they were at the start, counted on monotonically from there."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Return the time in seconds."""
        return time.monotonic() + self._offset
