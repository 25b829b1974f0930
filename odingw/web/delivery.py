"""Did the reply arrive? What TCP and HTTP can say about that, for tasks that must not be lost.

A reply counts as arrived when all of it has been handed to the kernel and then the connection ends
cleanly, carries another request, or lives on for a second without a reset. If the connection breaks
before, it counts as lost.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from msgspec import Struct
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from odingw.web.twisted_private import is_sent

GRACE: Final = 1.0
"""Seconds without a reset after which a reply that the kernel has counts as arrived."""


class Timer(Protocol):
    """What of a reactor tells and measures time."""

    def seconds(self) -> float:
        """Return the time in seconds."""

    def callLater(self, delay: float, call: Callable[..., object]) -> Any:  # noqa: N802  -- Twisted's
        """Call later."""


class Parcel(Struct, frozen=True, eq=False):
    """Something that travels in a reply.

    Attributes:
        arrived: called if the reply arrived.
        lost: called if it did not.
    """

    arrived: Callable[[], None]
    lost: Callable[[], None]


class Outbox:
    """The parcels under way on one connection.

    Args:
        transport: the connection.
        clock: measures the grace period.
    """

    __slots__ = ("_clock", "_parcels", "_timer", "_transport", "on_settled")

    def __init__(self, transport: Any, clock: Timer) -> None:
        self._transport = transport
        self._clock = clock
        self._parcels: list[Parcel] = []
        self._timer: Any = None
        self.on_settled: Callable[[], None] | None = None

    def __bool__(self) -> bool:
        """Whether anything is under way."""
        return bool(self._parcels)

    def send(self, parcel: Parcel) -> None:
        """Take charge of a parcel whose reply is being written."""
        self._parcels.append(parcel)
        if self._timer is None:
            self._timer = self._clock.callLater(GRACE, self._grace_over)
        else:
            self._timer.reset(GRACE)

    def next_request(self) -> None:
        """Take note that the peer has sent another request after the reply."""
        if self._parcels and is_sent(self._transport):
            self._settle(arrived=True)

    def peer_finished(self) -> None:
        """Take note that the peer will send no more, and did not reset the connection."""
        if self._parcels and is_sent(self._transport):
            self._settle(arrived=True)

    def connection_lost(self, reason: Failure) -> None:
        """Take note that the connection is gone."""
        if self._parcels:
            tcp_reason = getattr(self._transport, "tcp_reason", None) or reason
            clean = tcp_reason.check(ConnectionDone) is not None
            self._settle(arrived=clean and is_sent(self._transport))

    def _grace_over(self) -> None:
        self._timer = None
        if not is_sent(self._transport):
            self._timer = self._clock.callLater(GRACE, self._grace_over)
        else:
            self._settle(arrived=True)

    def _settle(self, *, arrived: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        parcels, self._parcels = self._parcels, []
        for parcel in parcels:
            if arrived:
                parcel.arrived()
            else:
                parcel.lost()
        if self.on_settled is not None:
            self.on_settled()
