"""What the simulation needs of a reactor, or of a test's ``Clock``: the time, and to be called.

Twisted's own ``IReactorTime`` is a zope interface, which a type checker cannot compare with.
"""

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred


class Clock(Protocol):
    """The time in unix seconds, and calls at a later time; a reactor is one."""

    def seconds(self) -> float:
        """Return the time."""

    def callLater(  # noqa: N802  -- Twisted's name
        self, delay: float, function: Callable[..., Any], /, *args: object
    ) -> Any:
        """Call a function after a number of seconds; returns an ``IDelayedCall``."""


def sleep(clock: Clock, seconds: float) -> Deferred[None]:
    """Return a Deferred that fires after a time, at once in the next turn if that is over."""
    done = Deferred[None](lambda _: call.cancel())
    call = clock.callLater(max(0.0, seconds), done.callback, None)
    return done
