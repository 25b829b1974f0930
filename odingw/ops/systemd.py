"""Tells systemd how the service is doing, over ``$NOTIFY_SOCKET`` (see ``sd_notify(3)``)."""

import os
import re
import socket
import time
from collections.abc import Mapping
from typing import Final, Self

from twisted.logger import Logger

_log = Logger("odingw.systemd")

_SEND_TIME: Final = 0.1
"""Seconds to wait for a full queue: a lost READY ends the service, a long wait delays clients."""

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Sends notifications to systemd; without a socket it does nothing.

    No method raises. What goes wrong with the socket is logged once, and again only after something
    has been sent in between.

    Args:
        address: of systemd's socket, as in ``$NOTIFY_SOCKET``: an absolute path, or ``@`` and the
            name of an abstract socket; empty: nobody listens.
        watchdog_interval: see the attribute.

    Attributes:
        watchdog_interval: seconds between two calls of ``watchdog``, half of what systemd waits for
            one; None: it expects none.
    """

    def __init__(self, address: str = "", watchdog_interval: float | None = None) -> None:
        self.watchdog_interval = watchdog_interval
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._failed = False
        if address and not address.startswith(("/", "@")):
            _log.warn(
                "NOTIFY_SOCKET is {address!r}, which is neither a path nor an abstract socket; "
                "systemd is not notified",
                address=address,
            )
            self._address = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Return the notifier that systemd asks this process for.

        The variables stay as they are.

        Args:
            environ: the environment, of which ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and
                ``WATCHDOG_PID`` count. A watchdog that is meant for another process does not.
        """
        return cls(environ.get("NOTIFY_SOCKET", ""), _watchdog_interval(environ))

    def ready(self) -> None:
        """Say that the service has started, or has finished a reload."""
        self._send("READY=1")

    def stopping(self, timeout: float | None = None) -> None:
        """Say that the service has begun to stop.

        Args:
            timeout: how many seconds it may take, where that can exceed the unit's
                ``TimeoutStopSec=``; None: as the unit says.
        """
        if timeout is None:
            self._send("STOPPING=1")
        else:
            self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(timeout * _MICROSECONDS)}")

    def reloading(self) -> None:
        """Say that a reload has begun; ``ready`` ends it."""
        # Not time.monotonic(): systemd compares with this very clock of the system.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows.

        Args:
            text: for people; line breaks become spaces.
        """
        self._send(f"STATUS={' '.join(text.split())}")

    def watchdog(self) -> None:
        """Say that the service is alive."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_TIME)
                sender.connect(self._address)
                sender.send(message.encode(errors="replace"))
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.warn(
                    "cannot notify systemd: {reason}; if that lasts, it takes the service for dead",
                    reason=error.strerror or str(error),
                )
        else:
            self._failed = False


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID") not in {None, str(os.getpid())}:
        return None
    text = environ.get("WATCHDOG_USEC")
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,18}", text):
        _log.warn("WATCHDOG_USEC is {text!r}, not a number of microseconds; ignored", text=text)
        return None
    return int(text) / _MICROSECONDS / 2
