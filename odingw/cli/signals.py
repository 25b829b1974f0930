"""How Ctrl-C and SIGTERM end a command, at whatever moment they come.

They raise ``KeyboardInterrupt``, which leaves a terminal as it was. That may be lost: in a
finalizer, in what catches everything, behind a call that no signal interrupts (a name that is
looked up). So a thread hears of the signal too, and ends a command that goes on all the same.
"""

import os
import select
import signal
import sys
import termios
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NoReturn

from odingw.cli.output import ended_by

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_GRACE: Final = 2.0
"""Seconds in which a command ends by itself."""

_SHOW_CURSOR: Final = b"\x1b[?25h"
LEAVE_SCREEN: Final = b"\x1b[?1049l"


class Ending:
    """Ends this process when a signal says so.

    Attributes:
        received: the first signal that came; None: none.
        restoring: what brings a terminal back, besides its settings, if the command cannot.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.restoring = _SHOW_CURSOR
        self._settings: dict[int, list[Any]] = {}
        self._heard, self._told = -1, -1

    def begin(self) -> None:
        """Take the signals over. Called once, by the main thread, and by nobody who lives on."""
        for number in (0, 1, 2):
            with suppress(termios.error):
                self._settings[number] = termios.tcgetattr(number)
        sys.unraisablehook = self._note_lost
        self._heard, self._told = os.pipe()
        os.set_blocking(self._told, False)
        threading.Thread(target=self._listen, daemon=True, name="signals").start()
        self.resume()

    def resume(self) -> None:
        """Take the signals again, after somebody else had them."""
        if self._told < 0:
            return
        signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        for number in SIGNALS:
            # What nohup has turned off stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)

    def suspend(self) -> None:
        """Let somebody else take the signals, who may take his time to end."""
        if self._told >= 0:
            signal.set_wakeup_fd(-1)

    def hear(self, number: int) -> None:
        """Note a signal that somebody else has taken."""
        if self.received is None:
            self.received = number

    def finish(self, status: int) -> NoReturn:
        """Exit; a signal that comes only now does so at once."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda which, _: os._exit(ended_by(which)))
        if self.received is None:
            sys.exit(status)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        self._restore()
        # Not by way of what waits for threads that wait for a server.
        os._exit(status)

    def force(self, number: int) -> NoReturn:
        """Leave the terminal as it was, and exit; from any thread, whatever the others do."""
        self._restore()
        os._exit(ended_by(number))

    def _restore(self) -> None:
        for file, settings in self._settings.items():
            with suppress(termios.error):
                termios.tcsetattr(file, termios.TCSANOW, settings)
        for file in (2, 1):
            # A terminal that has been stopped takes nothing.
            if file in self._settings and select.select([], [file], [], 0)[1]:
                os.write(file, self.restoring)
                break

    def _note_lost(self, lost: "sys.UnraisableHookArgs") -> None:
        # The thread sees to the end of this one.
        if self.received is None or lost.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(lost)

    def _interrupt(self, number: int, _frame: FrameType | None) -> NoReturn:
        self.hear(number)
        raise KeyboardInterrupt

    def _listen(self) -> None:
        number = self._next()
        while number not in SIGNALS:
            number = self._next()
        # Whoever insists does not wait.
        select.select([self._heard], [], [], _GRACE)
        self.force(number)

    def _next(self) -> int:
        (number,) = os.read(self._heard, 1)
        return number


ENDING: Final = Ending()
"""That of this process, which has begun only where the command is all that it runs."""
