"""Ports for tests that run side by side, on one machine, in any number of processes.

They lie below those that the system gives to outgoing connections, so that none of these takes one
that is free for a moment. Blocks of them belong to one process each, for as long as it lives.
"""

import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

_BLOCK: Final = 64
_FIRST: Final = 10_240
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")

_owned: Final[list[int]] = []
"""Open files, whose locks end with the process, however it ends."""

_left: Final[list[int]] = []
"""Ports of this process that were not asked for yet."""


def free_port() -> int:
    """Return a port of loopback that nobody else is given, and that nothing uses over TCP or UDP.

    Raises:
        RuntimeError: there is none.
    """
    while True:
        if not _left:
            _left.extend(_own(1))
        port = _left.pop()
        if _is_free(port):
            return port


def free_range(length: int) -> range:
    """Return so many adjacent ports that nobody else is given.

    The first is free as that of :func:`free_port`; nobody looks whether the others are.

    Raises:
        RuntimeError: there are none.
    """
    while True:
        found = _own(-(-length // _BLOCK))[:length]
        if _is_free(found[0]):
            return found


def _own(count: int) -> range:
    """Return the ports of adjacent blocks that are this process's from now on."""
    starts = range(_FIRST, _end() - count * _BLOCK + 1, _BLOCK)
    # SystemRandom, for hypothesis and tests seed the other one.
    for start in random.SystemRandom().sample(starts, len(starts)):
        locks: list[int] = []
        for block in range(start, start + count * _BLOCK, _BLOCK):
            lock = _lock(block)
            if lock is None:
                break
            locks.append(lock)
        else:
            _owned.extend(locks)
            return range(start, start + count * _BLOCK)
        for lock in locks:
            os.close(lock)
    raise RuntimeError(f"no {count} blocks of ports are left; see {_folder()}")


def _lock(block: int) -> int | None:
    """Return an open file that says whose a block is, or None if it is somebody else's."""
    file = os.open(_folder() / str(block), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"odingw-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@functools.cache
def _end() -> int:
    """The first port that outgoing connections get."""
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except FileNotFoundError:
        return 32_768


def _is_free(port: int) -> bool:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        try:
            for one in (tcp, udp):
                one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
