"""What the command line tools share: output, logging, and an orderly end."""

import gc
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import react
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    formatEventAsClassicLogText,
    globalLogBeginner,
)

from odingw.escapes import in_text
from odingw.sim.child import kill_children

_GC_THRESHOLD: Final = (100_000, 50, 100)


def say(text: str) -> None:
    """Print text to standard output at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def log_warnings() -> None:
    """Send what is logged as a warning or worse to standard error."""
    # Any: what these take are zope interfaces, which are no types to a type checker.
    wanted: Any = LogLevelFilterPredicate(LogLevel.warn)
    to_stderr: Any = FileLogObserver(
        sys.stderr, lambda event: in_text(formatEventAsClassicLogText(event) or "", keep="\n\t")
    )
    observer: Any = FilteringLogObserver(to_stderr, [wanted])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def run(
    main: Callable[[Any], Coroutine[Deferred[Any], Any, None]],
    heard: Callable[[int], None],
    at_once: Callable[[int], NoReturn],
) -> NoReturn:
    """Run a coroutine in the reactor, then exit.

    SIGINT, SIGTERM and SIGHUP cancel it, and the reactor stops once it has ended: what it must
    clean up stands in ``finally``. The exit status is 0, or that of a ``SystemExit`` it raises.

    Args:
        main: takes the reactor.
        heard: takes the number of a signal, from its handler.
        at_once: ends the process, when another signal comes meanwhile.
    """
    seen = False
    stop: Callable[[], None] | None = None

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            kill_children()
            at_once(number)
        seen = True
        heard(number)
        if stop is not None:
            stop()

    def take_signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, end)

    def start(reactor: Any) -> Deferred[None]:
        nonlocal stop
        # Not before it runs: until then, the reactor would take an exception of a handler for one
        # of its own, log it and go on.
        running = Deferred[None]()
        reactor.callWhenRunning(running.callback, None)
        ended = Deferred[None]()

        def stop_reactor() -> None:
            with suppress(ReactorNotRunning):
                reactor.stop()

        async def work() -> None:
            await running
            # The reactor has put its own in their place.
            take_signals()
            if not seen:
                await main(reactor)

        def cancel() -> Deferred[None]:
            working.cancel()
            return ended

        def note(outcome: object) -> object:
            ended.callback(None)
            return outcome

        reactor.addSystemEventTrigger("before", "shutdown", cancel)
        stop = partial(reactor.callFromThread, stop_reactor)
        working = Deferred.fromCoroutine(work())
        return working.addBoth(note)

    take_signals()
    # Thousands of simulated clients are a lot to walk through; pauses would count as latencies.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)
    react(start)
