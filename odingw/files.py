"""Reading whole files without ever waiting for long, whatever stands at their path."""

import errno
import os
import select
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final

MAX_BYTES: Final = 16 * 1024 * 1024
"""The largest file that is read, in bytes."""

LONGEST_WAIT: Final = 30.0
"""Seconds for which a pipe or terminal is waited for."""

_PIECE: Final = 65536


def read_file(
    path: Path,
    *,
    max_bytes: int = MAX_BYTES,
    pipes: bool = True,
    check: Callable[[os.stat_result], None] | None = None,
) -> bytes:
    """Return what a file holds.

    Opening a pipe waits for a writer, for ever by default. Here it ends after ``LONGEST_WAIT``; and
    while the reactor runs, which nobody may stop, pipes are refused and nothing is waited for.

    Args:
        path: where it is.
        max_bytes: the largest file that is read.
        pipes: whether a pipe may be read; what is read again later cannot be one.
        check: called with the status of the open file; raises what it will.

    Raises:
        OSError: it cannot be read, or not in time, or is larger; ``strerror`` says why.
        ValueError: this cannot be a file's name.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if check is not None:
            check(status)
        patience = 0.0 if _is_reactor_running() else LONGEST_WAIT
        if stat.S_ISFIFO(status.st_mode) and not (pipes and patience):
            raise OSError(errno.EINVAL, "it is a pipe, which can be read only once, at the start")
        return _read(descriptor, max_bytes, monotonic() + patience)
    finally:
        os.close(descriptor)


def _is_reactor_running() -> bool:
    # To import it would install one, which not every command needs.
    return bool(getattr(sys.modules.get("twisted.internet.reactor"), "running", False))


def _read(descriptor: int, max_bytes: int, until: float) -> bytes:
    # A pipe without a writer reads as an empty file; poll() waits for the first one.
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    data = bytearray()
    while len(data) <= max_bytes:
        if not ready.poll(max(0.0, until - monotonic()) * 1000):
            raise OSError(errno.ETIMEDOUT, "nobody writes to it")
        try:
            piece = os.read(descriptor, _PIECE)
        except BlockingIOError:
            continue
        if not piece:
            return bytes(data)
        data += piece
    raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes")
