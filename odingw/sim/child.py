"""A gateway as a child process, from the same Python environment."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import odingw

_KILL_AFTER: Final = 15.0


class GatewayProcess(ProcessProtocol):
    """``twistd odingw``, whose output goes where that of this process goes.

    Args:
        reactor: a Twisted reactor.
        config: the configuration file; the process runs in its folder.
        on_death: called with one line when the process ends without having been stopped.
        quiet: its output goes to standard error, and nothing to standard output.

    Attributes:
        running: whether it has not ended yet.
        interrupted: whether it ended by SIGINT: Ctrl-C at a terminal reaches it, too.
    """

    def __init__(
        self, reactor: Any, config: Path, on_death: Callable[[str], None], quiet: bool = False
    ) -> None:
        self._reactor = reactor
        self._on_death = on_death
        self._stopping = False
        self._ended: Deferred[None] | None = None
        self.running = True
        self.interrupted = False
        command = gateway_command("--config", str(config))
        self._process: Any = reactor.spawnProcess(
            self,
            command[0],
            command,
            env=gateway_environment(),
            path=str(config.parent),
            childFDs={0: "w", 1: 2 if quiet else 1, 2: 2},
        )
        # The terminal's input stays with this process.
        self._process.closeStdin()
        _children.add(self)

    def processEnded(self, reason: Failure) -> None:  # noqa: N802  -- Twisted's name
        """Take note of the end."""
        self.running = False
        _children.discard(self)
        how = reason.value
        self.interrupted = isinstance(how, ProcessTerminated) and how.signal == signal.SIGINT
        if self._ended is not None:
            self._ended.callback(None)
        if not self._stopping:
            self._on_death(f"the gateway ended by itself: {_how(how)}")

    def stop(self, patience: float) -> Deferred[None]:
        """End the process and wait for it.

        Args:
            patience: seconds in which it may end by itself: Ctrl-C at a terminal reaches it, too,
                and a second signal would only disturb it.
        """
        self._stopping = True
        return Deferred.fromCoroutine(self._stop(patience))

    async def _stop(self, patience: float) -> None:
        if not self.running:
            return
        ended = self._ended = Deferred[None]()
        calls = [
            self._reactor.callLater(patience, self._signal, signal.SIGTERM),
            self._reactor.callLater(patience + _KILL_AFTER, self._signal, signal.SIGKILL),
        ]
        await ended
        for call in calls:
            if call.active():
                call.cancel()

    def kill(self) -> None:
        """Kill the process, and wait for nothing."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            self._process.signalProcess(number)


_children: Final[set[GatewayProcess]] = set()


def kill_children() -> None:
    """Kill all gateways that run, when this process is to end at once."""
    for child in tuple(_children):
        child.kill()


def gateway_command(*options: str) -> list[str]:
    """Return the command line of a gateway that stays in the foreground and writes no pid file.

    Args:
        options: of ``twistd odingw``.
    """
    # The one-file program is a twistd as well.
    frozen = getattr(sys, "frozen", False)
    # -P: as a script's, its path is without the working directory.
    twistd = ["twistd"] if frozen else ["-P", "-m", "odingw.sim.foreground"]
    return [sys.executable, *twistd, "-n", "--pidfile=", "odingw", *options]


def gateway_environment() -> dict[str, str]:
    """Return the environment, with which this very odingw is found even if it is not installed."""
    root = str(Path(odingw.__file__).parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def _how(reason: BaseException | None) -> str:
    if isinstance(reason, ProcessTerminated) and reason.signal is not None:
        return f"signal {signal.Signals(reason.signal).name}"
    if isinstance(reason, ProcessDone | ProcessTerminated):
        return f"exit status {reason.exitCode}"
    return str(reason)
