"""What every thread is doing, what the reactor will do later, and how much is waited for."""

import gc
import sys
import threading
import traceback
from collections.abc import Iterable
from typing import Protocol

from twisted.internet.defer import Deferred


class DelayedCall(Protocol):
    """A call that the reactor will make."""

    func: object

    def getTime(self) -> float:  # noqa: N802  -- Twisted's name
        """Return when, in the reactor's seconds."""


def dump(delayed: Iterable[DelayedCall], now: float) -> str:
    """Return the stack of every thread, the reactor's delayed calls and open Deferreds, as text.

    Args:
        delayed: the delayed calls.
        now: the reactor's time in seconds.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        parts.append(f"thread {names.get(ident, '?')} ({ident})\n{stack}")
    calls = sorted((call.getTime() - now, _name(call.func)) for call in delayed)
    lines = [f"{seconds:10.3f} s  {name}" for seconds, name in calls]
    parts.append("\n".join([f"{len(lines)} delayed calls", *lines]))
    parts.append(f"{_open_deferreds()} open Deferreds")
    return "\n".join(parts) + "\n"


def _open_deferreds() -> int:
    """Count the Deferreds made since the start that have not fired."""
    # What was made before gc.freeze() is not looked at, which keeps this at a few milliseconds.
    # isinstance() would ask each object for its class, which some proxies answer with a fault.
    return sum(issubclass(type(one), Deferred) and not one.called for one in gc.get_objects())


def _name(function: object) -> str:
    module = getattr(function, "__module__", "?")
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
