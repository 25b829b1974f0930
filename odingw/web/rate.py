"""Token buckets: so many requests a second, for each of many callers."""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from odingw.errors import TOO_MANY_REQUESTS, RpcError

_KEPT: Final = 100_000
"""How many keys are counted at a time."""

LONGEST_KEY: Final = 64
"""Characters of a key that is kept as it is; of a longer one, its hash is kept."""

_LONGEST_WAIT: Final = 86_400.0
"""Seconds that somebody is told to wait at most."""


class RateLimit:
    """Allows each key ``rate`` requests a second, and bursts of a second's worth.

    Args:
        rate: requests a second; 0 allows any number.
        group: tells by which key those of one key are counted.

    Attributes:
        active: whether there is a limit at all.
    """

    def __init__(self, rate: float, group: Callable[[str], str] = str) -> None:
        self.active = rate > 0
        self._rate = rate
        self._group = group
        self._burst = max(1.0, rate)
        # A plain dict takes ever longer to find its first key when first keys are deleted.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Count a request; return 0 if it may go on, else the seconds after which one may.

        Args:
            key: who asks.
            now: seconds by any steady clock.
        """
        if not self._rate:
            return 0.0
        key = self._key(key)
        left, since = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1
        if allowed:
            left -= 1
        # The one seen longest ago goes first: its bucket is the fullest.
        if len(self._buckets) >= _KEPT:
            self._buckets.popitem(last=False)
        self._buckets[key] = (left, now)
        return 0.0 if allowed else min(_LONGEST_WAIT, (1 - left) / self._rate)

    def left_to_wait(self, key: str, now: float) -> float:
        """Return what ``wait`` would, without counting a request."""
        if not self._rate:
            return 0.0
        left, since = self._buckets.get(self._key(key), (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        return min(_LONGEST_WAIT, max(0.0, (1 - left) / self._rate))

    def _key(self, key: str) -> str:
        key = self._group(key)
        # Whoever chooses it must not choose how much is kept.
        return key if len(key) <= LONGEST_KEY else sha256(key.encode()).hexdigest()


def check_rate(limit: RateLimit, who: object, now: float) -> None:
    """Count a request.

    Args:
        limit: the limit.
        who: who asks; None if that cannot be told, as on a unix socket.
        now: seconds by any steady clock.

    Raises:
        RpcError: it is one too many (429).
    """
    wait = limit.wait(str(who), now) if who is not None else 0.0
    if wait:
        raise too_many(wait)


def too_many(wait: float) -> RpcError:
    """Return the error for a request that is too early by so many seconds (429)."""
    return RpcError(
        TOO_MANY_REQUESTS,
        "too many requests",
        {"retry_after": round(wait, 3)},
        {"Retry-After": str(int(wait) + 1)},
    )
