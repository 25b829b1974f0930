"""Wrong passwords: counted, logged, and answered late."""

from collections.abc import Callable, Sequence
from typing import Final

from twisted.web.http import Request

from odingw.config import Trusted
from odingw.web.address import block_of, client_address
from odingw.web.rate import RateLimit, too_many

_WINDOW: Final = 600.0
"""Seconds in which an address gets one log line."""

_MOST_LINES: Final = 100
"""How many lines there are in that time: addresses are cheap."""


class Attempts:
    """Takes note of credentials that were wrong, wherever they are asked for.

    Args:
        rate: wrong ones a second that an address may give; what follows is not looked at. 0 allows
            any number.
        trusted: proxies that are believed about addresses.
        now: seconds by any steady clock.
        count: called with the realm.
        log: called with realm and address, once in a while for each.
    """

    def __init__(
        self,
        rate: float,
        trusted: Sequence[Trusted],
        now: Callable[[], float],
        count: Callable[[str], None],
        log: Callable[[str, str], None],
    ) -> None:
        self._limit = RateLimit(rate, block_of)
        self._trusted = trusted
        self._now = now
        self._count = count
        self._log = log
        self._told: set[tuple[str, str]] = set()
        self._since = now()

    def check(self, request: Request) -> None:
        """Look whether an address may try.

        Raises:
            RpcError: it has been wrong too often (429).
        """
        address = client_address(request, self._trusted) if self._limit.active else None
        if address is None:
            return
        wait = self._limit.left_to_wait(str(address), self._now())
        if wait:
            raise too_many(wait)

    def failed(self, request: Request, realm: str) -> None:
        """Take note that an address was wrong."""
        now = self._now()
        address = client_address(request, self._trusted)
        self._count(realm)
        if address is not None:
            self._limit.wait(str(address), now)
        if now - self._since >= _WINDOW:
            self._told.clear()
            self._since = now
        who = "a unix socket" if address is None else block_of(str(address))
        if (realm, who) not in self._told and len(self._told) < _MOST_LINES:
            self._told.add((realm, who))
            self._log(realm, who)
