"""The ``odingw`` command for tests: called in this process, or at a real pseudo-terminal."""

import atexit
import contextlib
import fcntl
import functools
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from unittest import mock

import pyte

from odingw.cli import main
from tests.process import GatewayProcess

ROOT: Final = Path(__file__).parent.parent
PATIENCE: Final = 60.0
"""Seconds after which a test gives up on what it waits for."""


@dataclass(frozen=True)
class Ended:
    """What a command has done.

    Attributes:
        status: its exit status.
        out: its standard output.
        err: its standard error.
    """

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


def environment(**variables: str) -> dict[str, str]:
    """Return the environment without what a developer's own gateway has put there."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ODINGW_", "_ODINGW")) and name not in ("NO_COLOR", "FORCE_COLOR")
    }
    return {**kept, **variables}


def odingw(*arguments: str, stdin: str | bytes = b"", **variables: str) -> Ended:
    """Call a command in this process, which is quicker than another one.

    Args:
        arguments: of ``odingw``.
        stdin: its standard input.
        variables: of its environment.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    given = io.TextIOWrapper(io.BytesIO(data), "utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n") for _ in range(2))
    with (
        mock.patch.dict(os.environ, environment(**variables), clear=True),
        mock.patch.object(sys, "stdin", given),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main.run(arguments)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return Ended(status, *texts)


@functools.cache
def shared_gateway(configuration: str) -> GatewayProcess:
    """Return a gateway that runs for as long as this process, for tests that only look at it.

    trial calls no ``setUpClass``.

    Args:
        configuration: TOML, as `GatewayProcess` takes it.
    """
    gateway = GatewayProcess(configuration)
    # Also where it does not start.
    atexit.register(gateway.stop)
    return gateway.start()


def command(*arguments: str) -> list[str]:
    """Return the command line of ``odingw`` in this environment."""
    return [sys.executable, "-m", "odingw.cli", *arguments]


class Terminal:
    """A program at a pseudo-terminal of its own, which is its controlling one.

    Args:
        arguments: the program and its arguments.
        columns: of the terminal.
        rows: of the terminal.
        variables: of the environment.
    """

    def __init__(
        self, *arguments: str, columns: int = 80, rows: int = 24, **variables: str
    ) -> None:
        self._arguments = arguments
        self._variables = {"TERM": "xterm-256color", **variables}
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self._ended = False
        self._master = -1
        self.raw = b""

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        self._set_size()
        self._before = termios.tcgetattr(slave)
        self._slave = slave

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self._process = subprocess.Popen(
            self._arguments,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env=environment(**self._variables),
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """What can be read on the screen."""
        with self._changed:
            return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def settings_kept(self) -> bool:
        """Whether the terminal's modes, when the program had ended, were as before."""
        return self._after == self._before

    @property
    def is_left(self) -> bool:
        """Whether what was there before is on the screen again, with a cursor."""
        return all(
            self.raw.rfind(begin) <= self.raw.rfind(end)
            for begin, end in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"))
        )

    def wait_for(self, wanted: str | Callable[[str], bool]) -> str:
        """Wait until a text, or what a function is looking for, is on the screen; return it all."""
        end = time.monotonic() + PATIENCE
        with self._changed:
            while True:
                text = self.text
                if wanted in text if isinstance(wanted, str) else wanted(text):
                    return text
                left = end - time.monotonic()
                if self._closed or left <= 0:
                    raise AssertionError(f"{wanted!r} is not on the screen:\n{text}")
                self._changed.wait(left)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.type("\x03")

    def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size."""
        with self._changed:
            self._screen.resize(rows, columns)
        self._set_size()

    def wait(self) -> int:
        """Wait for the program's end, and for all that it has written; return its exit status."""
        status = self._process.wait(PATIENCE)
        if not self._ended:
            self._ended = True
            self._after = termios.tcgetattr(self._slave)
            # The last one that was open: what is left is read, and then the end.
            os.close(self._slave)
            self._reader.join(PATIENCE)
        return status

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def _set_size(self) -> None:
        size = struct.pack("HHHH", self._screen.lines, self._screen.columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65536):
                with self._changed:
                    self.raw += data
                    self._stream.feed(data)
                    self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def assert_one_line(ended: Ended) -> None:
    """Fail unless a command has said one line of complaint, and nothing else."""
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended
    assert lines[0].startswith("odingw: "), ended
    assert "Traceback" not in ended.err, ended
