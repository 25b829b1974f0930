"""What the command line tools share: output, logging, and an orderly end."""

import gc
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
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


def run(main: Callable[[Any], Coroutine[Deferred[Any], Any, None]]) -> NoReturn:
    """Run a coroutine in the reactor, then exit.

    SIGINT, SIGTERM and SIGHUP cancel it, and the reactor stops once it has ended: what it must
    clean up stands in ``finally``. The exit status is 0, or that of a ``SystemExit`` it raises.

    Args:
        main: takes the reactor.
    """

    def start(reactor: Any) -> Deferred[None]:
        work = Deferred.fromCoroutine(main(reactor))
        ended = Deferred[None]()

        def end() -> Deferred[None]:
            work.cancel()
            return ended

        def note(outcome: object) -> object:
            ended.callback(None)
            return outcome

        reactor.addSystemEventTrigger("before", "shutdown", end)
        # A terminal that is closed ends a command, whatever SIGHUP means to its children.
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reactor.stop))
        return work.addBoth(note)

    # Thousands of simulated clients are a lot to walk through; pauses would count as latencies.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)
    react(start)
