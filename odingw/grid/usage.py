"""How much of its licence each customer uses, over all pools."""

from collections.abc import Iterator
from typing import Final

from odingw.errors import Reason, Refused
from odingw.grid.values import Admission, UsageView

DEMO_PREFIX: Final = "demo_"
"""How the ids of demo users begin; their peers are also limited all together."""

ALL_DEMO: Final = DEMO_PREFIX + "*"
"""Stands for all demo users together; there may be any number of them."""

LONGEST_CUSTOMER: Final = 256
"""Characters of a customer's id; of one that a server reports, no more are kept."""


class Counts:
    """Peers that live servers report, places reserved, and rooms, of one customer."""

    __slots__ = ("peers", "reservations", "rooms")

    def __init__(self) -> None:
        self.peers = 0
        self.reservations = 0
        self.rooms = 0


class Usage:
    """Counts by customer.

    Args:
        retry_after: seconds after which usage may have changed, told to those who are refused.
    """

    def __init__(self, retry_after: float) -> None:
        self._retry_after = retry_after
        self._counts: dict[str, Counts] = {}
        self._demo_peers = 0

    def add(self, customer: str, *, peers: int = 0, reservations: int = 0, rooms: int = 0) -> None:
        """Change a customer's counts by these amounts."""
        counts = self._counts.get(customer)
        if counts is None:
            counts = self._counts[customer] = Counts()
        counts.peers += peers
        counts.reservations += reservations
        counts.rooms += rooms
        if not (counts.peers or counts.reservations or counts.rooms):
            del self._counts[customer]
        if customer.startswith(DEMO_PREFIX):
            self._demo_peers += peers + reservations

    def check_peers(self, admission: Admission, held: int) -> None:
        """Raise ``Refused`` if one more peer is too many.

        Args:
            admission: who wants in.
            held: 1 if a reservation of theirs is running, which then is not counted again.
        """
        limit = admission.max_peers
        if limit is not None:
            counts = self._counts.get(admission.customer)
            used = counts.peers + counts.reservations - held if counts else 0
            if used >= limit:
                raise Refused(Reason.PEER_LIMIT_EXCEEDED, self._retry_after)
        if admission.demo_peers is not None and self._demo_peers - held >= admission.demo_peers:
            raise Refused(Reason.PEER_LIMIT_EXCEEDED, self._retry_after)

    def check_rooms(self, admission: Admission) -> None:
        """Raise ``Refused`` if one more room is too many."""
        limit = admission.max_rooms
        if limit is not None:
            counts = self._counts.get(admission.customer)
            if (counts.rooms if counts else 0) >= limit:
                raise Refused(Reason.ROOM_LIMIT_EXCEEDED, self._retry_after)

    def views(self) -> Iterator[UsageView]:
        """Yield every customer that uses anything, demo users as one."""
        demo = Counts()
        for customer, counts in self._counts.items():
            if customer.startswith(DEMO_PREFIX):
                demo.peers += counts.peers
                demo.reservations += counts.reservations
                demo.rooms += counts.rooms
            else:
                yield _view(customer, counts)
        if demo.rooms or demo.peers or demo.reservations:
            yield _view(ALL_DEMO, demo)


def _view(customer: str, counts: Counts) -> UsageView:
    return UsageView(
        customer=customer,
        peers=counts.peers,
        reservations=counts.reservations,
        rooms=counts.rooms,
    )
