"""Single keys from a terminal."""

import os
import select
import sys
import termios
import time
import tty
from typing import Any, Self


class Keyboard:
    """Reads keys as they are pressed, without showing them; the terminal is as before afterwards.

    Where standard input is no terminal there are no keys.
    """

    def __init__(self) -> None:
        self._file = sys.stdin if sys.stdin is not None and sys.stdin.isatty() else None
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        if self._file is not None:
            self._before = termios.tcgetattr(self._file)
            # Ctrl-C stays what it is.
            tty.setcbreak(self._file)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> str:
        """Wait for keys; return those that were pressed, none when the time is over."""
        if self._file is None:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self._file], [], [], seconds)
        if not ready:
            return ""
        # Not by the file, whose buffer select does not see.
        keys = os.read(self._file.fileno(), 64)
        if not keys:
            # The other end of the terminal is closed; there will be no more keys.
            raise KeyboardInterrupt
        # Arrows and their like are several letters behind an Escape.
        return "" if keys.startswith(b"\x1b") else keys.decode("ascii", "replace").lower()
