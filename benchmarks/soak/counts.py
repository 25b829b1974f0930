"""What both sides counted: the loads here, and the gateways in their metrics."""

import re
from collections import Counter
from typing import Final

from msgspec import Struct

_SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.e+-]+)$")
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')

MANAGEMENT: Final = frozenset(("RoomUpdate", "RoomSendMessage", "RoomBanClient", "RoomClose"))


class Counts(Struct):
    """Numbers that must be the same on both sides.

    Attributes:
        granted: Connects answered with a token.
        refused: Connects that were answered with an error.
        accepted: management calls that were accepted.
        queued: tasks that were queued; the loads count accepted calls, each of which makes one.
        received: tasks that arrived at servers, repeated ones too.
        reports: answered reports.
        drains: answered calls of Drain and Undrain.
        credentials: TURN credentials.
    """

    granted: int = 0
    refused: int = 0
    accepted: int = 0
    queued: int = 0
    received: int = 0
    reports: int = 0
    drains: int = 0
    credentials: int = 0

    def differences(self, gateways: "Counts") -> list[str]:
        """Return what differs, given that these are the loads' own counts."""
        return [
            f"{name}: the loads counted {mine}, the gateways {theirs}"
            for name in self.__struct_fields__
            if (mine := getattr(self, name)) != (theirs := getattr(gateways, name))
        ]


class Ledger:
    """Adds up the metrics of processes that end and begin anew."""

    def __init__(self) -> None:
        self._ended: Counter[tuple[str, ...]] = Counter()
        self._running: dict[str, Counter[tuple[str, ...]]] = {}

    def scraped(self, gateway: str, page: str) -> None:
        """Take in the metrics page of a running process."""
        self._running[gateway] = read(page)

    def ended(self, gateway: str) -> None:
        """Take note that a process has ended after it was scraped last."""
        self._ended.update(self._running.pop(gateway, Counter()))

    def counts(self) -> Counts:
        """Return the sums over all processes."""
        total = self._ended.copy()
        for counter in self._running.values():
            total.update(counter)
        connects = {
            key[3]: value
            for key, value in total.items()
            if key[:3] == ("call", "client", "Connect")
        }
        granted = connects.get("success", 0)
        return Counts(
            granted=granted,
            refused=sum(connects.values()) - granted,
            accepted=sum(total["call", "client", name, "success"] for name in MANAGEMENT),
            queued=total["task", "queued"],
            received=total["task", "delivered"],
            reports=total["call", "server", "sfu.Report", "success"],
            drains=total["call", "server", "Drain", "success"]
            + total["call", "server", "Undrain", "success"],
            credentials=total["credentials",],
        )


def read(page: str) -> Counter[tuple[str, ...]]:
    """Read the counters that are compared from a metrics page."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in page.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            continue
        name, labels = match[1], dict(_LABEL.findall(match[2] or ""))
        value = int(float(match[3]))
        if name == "odingw_requests_total":
            found["call", labels["api"], labels["method"], labels["outcome"]] = value
        elif name == "odingw_tasks_total":
            found["task", labels["fate"]] = value
        elif name == "odingw_turn_credentials_issued_total":
            found["credentials",] = value
    return found
