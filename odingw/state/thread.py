"""One thread of its own for work that blocks, so that nothing else can keep it waiting."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool


class OneThread:
    """Runs functions one after the other; the thread is started when it is first needed.

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
        running: Deferred[Any] = deferToThreadPool(self._reactor, self._pool, call, *args)
        return running

    def stop(self) -> None:
        """End the thread, after what it has been given to do."""
        if self._pool.started:
            self._pool.stop()
