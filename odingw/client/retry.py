"""Trying again: only where asked for, only what may be done twice, and only so often."""

from secrets import SystemRandom
from typing import Final

from attrs import field, frozen
from attrs.validators import ge

from odingw.client.errors import GatewayError

IDEMPOTENT: Final = frozenset(
    ("Connect", "RoomClose", "RoomUpdate", "RoomBanClient", "Info", "Drain", "Undrain", "Disable")
)
"""Methods whose effect is the same if a call is carried out twice; no other is tried again."""

_random: Final = SystemRandom()


@frozen
class Retry:
    """How often to try again after a temporary error.

    Attributes:
        attempts: how often to call at most, the first time counted.
        longest: seconds to wait before one attempt at most; where the gateway asks for more, the
            error is raised at once.
        first: seconds before the second attempt, where the gateway asks for nothing; it doubles
            with each further one.
    """

    attempts: int = field(default=3, validator=ge(1))
    longest: float = field(default=5.0, validator=ge(0))
    first: float = field(default=0.2, validator=ge(0))

    def wait(self, method: str, attempt: int, error: GatewayError) -> float | None:
        """Return the seconds after which to try again; None: do not.

        Args:
            method: what was called.
            attempt: which attempt failed; the first is 1.
            error: how it failed.
        """
        if attempt >= self.attempts or not error.temporary or method not in IDEMPOTENT:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.longest else None
        # Random, so that many callers do not come back at the same moment.
        most = min(self.longest, self.first * 2.0 ** min(attempt - 1, 32))
        return most * _random.uniform(0.5, 1.0)
