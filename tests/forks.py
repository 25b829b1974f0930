"""Starts of ``twistd odingw`` that need not import everything again.

Most of a start's processor time goes into imports. So a process beside the tests imports what a
gateway needs, and each start forks it: what runs then is ``twistd``, from its command line on.
Started by its path, this file is that process.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

_STATUS: Final = "%d\n"
_MESSAGE: Final = 1 << 20
"""More bytes than the arguments and the environment of a process have."""


Command: TypeAlias = Sequence[str | Path]
Done: TypeAlias = "subprocess.CompletedProcess[str]"


class Fork:
    """A process of ``twistd``, as far as tests use ``subprocess.Popen``.

    Args:
        arguments: of ``twistd``.
        cwd: its folder.
        env: its environment; None: this process's. What acts while a program is loaded, such as
            ``LD_PRELOAD``, does not.
        stdout: descriptor of a file for what it writes; None: a pipe.
        stderr: likewise; None: where ``stdout`` goes.

    Attributes:
        stdout: the pipe, if there is one.
    """

    def __init__(
        self,
        arguments: Command,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        *,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.args = ["twistd", *map(str, arguments)]
        self._ended = threading.Lock()
        self._answers, theirs = socket.socketpair()
        output, ours = (None, stdout) if stdout is not None else os.pipe()
        message = json.dumps(
            {"argv": self.args, "cwd": str(cwd), "env": dict(os.environ if env is None else env)}
        )
        errors = ours if stderr is None else stderr
        try:
            _server().send(message.encode(), theirs.fileno(), ours, errors)
        finally:
            theirs.close()
            if output is not None:
                os.close(ours)
        self._lines = self._answers.makefile()
        self.stdout: IO[str] | None = (
            None if output is None else os.fdopen(output, encoding="utf-8")
        )
        told = self._lines.readline()
        if not told:
            raise RuntimeError("the process that forks gateways has ended")
        self.pid = int(told)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, minus the number of a signal; None: it runs."""
        with self._ended:
            if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
                self.returncode = os.waitstatus_to_exitcode(int(self._lines.readline()))
                self._lines.close()
                self._answers.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, ``timeout`` seconds at most."""
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            with contextlib.suppress(OSError, ValueError):  # another thread has seen the end
                select.select([self._answers], [], [], left)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Command,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    *,
    timeout: float = 60.0,
) -> Done:
    """Run ``twistd`` to its end, as ``subprocess.run`` does."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = Fork(arguments, cwd, env, stdout=out.fileno(), stderr=err.fileno())
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read())
    return subprocess.CompletedProcess(process.args, status, *said)


class _Server:
    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=theirs.fileno(),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        theirs.close()

    def send(self, message: bytes, *descriptors: int) -> None:
        socket.send_fds(self._control, [message], descriptors)


_servers: Final[dict[int, _Server]] = {}


def _server() -> _Server:
    """Return this process's own: it ends when this process does."""
    if os.getpid() not in _servers:
        _servers.clear()
        _servers[os.getpid()] = _Server()
    return _servers[os.getpid()]


def serve(control: socket.socket) -> None:
    """Fork a process for each message, until nobody can send one any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_all()
    # What the forks share stays shared.
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE, 3)
        if not message:
            return
        if (keeper := os.fork()) == 0:
            control.close()
            _keep(json.loads(message), *descriptors)
        # It has passed on what it must: no zombie of it is left.
        os.waitpid(keeper, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(what: dict[str, Any], answers: int, output: int, errors: int) -> None:
    """Start the process, tell its id and, from a process of its own, its status."""
    if os.fork():
        os._exit(0)
    if (process := os.fork()) == 0:
        os.close(answers)
        _become(what, output, errors)
    os.close(output)
    os.close(errors)
    os.write(answers, (_STATUS % process).encode())
    os.write(answers, (_STATUS % os.waitpid(process, 0)[1]).encode())
    os._exit(0)


def _become(what: dict[str, Any], output: int, errors: int) -> None:
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    given = (os.open(os.devnull, os.O_RDONLY), output, errors)
    for number, descriptor in enumerate(given):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(what["cwd"])
    os.environ.clear()
    os.environ.update(what["env"])
    sys.argv = what["argv"]
    # Its descriptors are those of the process that this one was forked from.
    reactor.__init__()  # type: ignore[misc]  # see above
    run()
    sys.exit()


def _import_all() -> None:
    from twisted.scripts import twistd

    import odingw.gateway
    import odingw.state.redis.store
    import odingw.tap
    import twisted.plugins

    del odingw, twisted, twistd


if __name__ == "__main__":
    serve(socket.socket(fileno=os.dup(0)))
