"""One thread of its own for work that blocks, so that nothing else can keep it waiting."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

_NICENESS: Final = 10


class OneThread:
    """Runs functions one after the other; the thread is started when it is first needed.

    Where both have one core, the reactor's thread comes first, as far as the system allows it.

    Args:
        reactor: where the outcomes are told.
        name: of the thread, as debuggers show it.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._pool: Any = ThreadPool(minthreads=0, maxthreads=1, name=name)

    def __call__(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Run a function; the Deferred fires with what it returns or raises."""
        if not self._pool.started:
            self._pool.start()
            self._pool.callInThread(_step_back)
        running: Deferred[Any] = deferToThreadPool(self._reactor, self._pool, call, *args)
        return running

    def stop(self) -> None:
        """End the thread, after what it has been given to do."""
        if self._pool.started:
            self._pool.stop()


def _step_back() -> None:
    # Elsewhere than on Linux a thread has no niceness of its own.
    if sys.platform == "linux":
        with suppress(OSError):
            thread = threading.get_native_id()
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
