"""What every thread is doing, and what the reactor will do later."""

import sys
import threading
import traceback
from collections.abc import Iterable
from typing import Protocol


class DelayedCall(Protocol):
    """A call that the reactor will make."""

    func: object

    def getTime(self) -> float:  # noqa: N802  -- Twisted's name
        """Return when, in the reactor's seconds."""


def dump(delayed: Iterable[DelayedCall], now: float) -> str:
    """Return the stack of every thread, and the reactor's delayed calls, as text.

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
    return "\n".join(parts) + "\n"


def _name(function: object) -> str:
    module = getattr(function, "__module__", "?")
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
