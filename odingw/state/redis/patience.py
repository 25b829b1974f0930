"""Time-outs in which the time that this process stood still does not count."""

from collections.abc import Callable
from typing import Any, Final

WAITS: Final = 8
"""How many waits make a time-out."""


class PatientCall:
    """Calls a function after so many seconds, divided into several waits.

    A process that gets no processor, or that was stopped, finds one wait over when it goes on, not
    all of them; and it hears whom it has waited for before the next one ends.

    Args:
        reactor: calls later.
        delay: seconds.
        function: what is called.
    """

    def __init__(self, reactor: Any, delay: float, function: Callable[[], Any]) -> None:
        self._reactor = reactor
        self._wait = delay / WAITS
        self._left = WAITS
        self._function = function
        self._call: Any = None
        self._go_on()

    def _go_on(self) -> None:
        if self._left:
            self._left -= 1
            self._call = self._reactor.callLater(self._wait, self._go_on)
        else:
            self._function()

    def active(self) -> bool:
        """Return whether the function is still to be called."""
        active: bool = self._call.active()
        return active

    def cancel(self) -> None:
        """Do not call the function.

        Raises:
            twisted.internet.error.AlreadyCalled: it has been called.
            twisted.internet.error.AlreadyCancelled: it will not be called anyway.
        """
        self._call.cancel()
