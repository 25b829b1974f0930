"""How a port closes without cutting anybody.

The system completes handshakes by itself, and resets what waits to be accepted when a socket is
closed, together with a request that has come along. So the last handshakes are let to end first,
and nobody may begin a new one: a SYN that is dropped comes again, and is refused or finds another
process on the port.
"""

import ctypes
import socket
import struct
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.task import deferLater

_HANDSHAKE: Final = 0.02
"""Seconds in which handshakes that have begun end."""

_BACKLOG: Final = 1024
"""Connections that are accepted at most when a port closes."""

_ATTACH_FILTER: Final = 26
"""``SO_ATTACH_FILTER`` of Linux, which Python does not name."""

_DROP_SYN: Final = (
    (0x30, 0, 0, 13),  # the byte with the flags
    (0x54, 0, 0, 0x12),  # of them SYN and ACK
    (0x15, 0, 1, 0x02),  # is it SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # take
)
"""A classic BPF program on the TCP header: code, jumps if true and if false, operand (bpf(4))."""


def close_ports(ports: list[Any], reactor: Any) -> Deferred[Any]:
    """Let nobody in any more, after all who have come; fires when the ports are closed.

    Args:
        ports: listening ports of Twisted's reactor.
        reactor: the reactor.
    """
    for port in ports:
        if getattr(port, "socket", None) is not None:
            drop_new(port.socket)

    def close(_: Any) -> Deferred[Any]:
        return DeferredList([maybeDeferred(_close, port) for port in ports])

    return deferLater(reactor, _HANDSHAKE, lambda: None).addCallback(close)


def drop_new(listening: socket.socket) -> None:
    """Let no handshake begin on a TCP socket, where the system can do that."""
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return
    program = b"".join(struct.pack("=HBBI", *step) for step in _DROP_SYN)
    held = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(_DROP_SYN), ctypes.addressof(held))
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)


def _close(port: Any) -> Any:
    if hasattr(port, "numberAccepts"):
        port.numberAccepts = _BACKLOG
        port.reactor.callLater(0, port.doRead)
    # It closes in the next turn of the reactor, right after that.
    return port.stopListening()
