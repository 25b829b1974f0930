"""Token buckets: so many requests a second, for each of many callers."""

from typing import Final

_KEPT: Final = 100_000


class RateLimit:
    """Allows each key ``rate`` requests a second, and bursts of a second's worth.

    Args:
        rate: requests a second; 0 allows any number.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._burst = max(1.0, rate)
        self._buckets: dict[str, tuple[float, float]] = {}

    @property
    def active(self) -> bool:
        """Whether there is a limit at all."""
        return self._rate > 0

    def wait(self, key: str, now: float) -> float:
        """Count a request; return 0 if it may go on, else the seconds after which one may.

        Args:
            key: who asks.
            now: seconds by any steady clock.
        """
        if not self._rate:
            return 0.0
        left, since = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1
        if allowed:
            left -= 1
        # The one seen longest ago goes first: its bucket is the fullest.
        if len(self._buckets) >= _KEPT:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = (left, now)
        return 0.0 if allowed else (1 - left) / self._rate
