"""Work in Twisted's reactor, from a command that goes on afterwards."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from odingw.cli.signals import ENDING
from odingw.errors import OdingwError
from odingw.sim.console import log_warnings, run

T = TypeVar("T")


def in_reactor(work: Callable[[Any], Coroutine[Deferred[Any], Any, T]]) -> T:
    """Run a coroutine in the reactor and return its result.

    Ctrl-C and SIGTERM cancel it; it may return a result all the same.

    Args:
        work: takes the reactor.

    Raises:
        OdingwError: the coroutine raised it.
        KeyboardInterrupt: it was cancelled and said no more.
    """
    results: list[T] = []
    errors: list[OdingwError] = []

    async def main(reactor: Any) -> None:
        try:
            results.append(await work(reactor))
        except OdingwError as error:
            errors.append(error)

    log_warnings()
    ENDING.suspend()
    try:
        run(main, ENDING.hear, ENDING.force)
    except SystemExit as end:
        ENDING.resume()
        if errors:
            raise errors[0] from None
        if not results:
            # Something unforeseen, which the reactor has logged; or the end before a beginning.
            if end.code:
                raise
            raise KeyboardInterrupt from None
    return results[0]
