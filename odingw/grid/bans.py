"""Bans of rooms and of users in rooms, which outlive the room on its server."""

import heapq
from collections.abc import Callable, Collection
from typing import Final, TypeAlias

from odingw.errors import Reason, Refused
from odingw.grid.rooms import RoomId

TEN_YEARS: Final = 10 * 365.25 * 86400
"""The longest ban, in seconds."""

_SLACK: Final = 64
"""How many ends of bans that hold no more are kept at least, before the list is made anew."""

BanKey: TypeAlias = tuple[RoomId, str | None]
"""A room, and the banned user in it; None: the room itself."""

_End: TypeAlias = tuple[float, RoomId, bool, str]
"""When a ban ends, its room, and whether it is a user's and whose."""


class Bans:
    """Who may not connect where, and until when.

    Args:
        per_customer: how many bans one customer may have at a time.
        changed: told of each ban that is made, replaced or gone.
    """

    def __init__(self, per_customer: int, changed: Callable[[BanKey], None]) -> None:
        self._per_customer = per_customer
        self._changed = changed
        self._until: dict[BanKey, tuple[float, str]] = {}
        self._ends: list[_End] = []
        self._of_customer: dict[str, int] = {}

    def __len__(self) -> int:
        """Count the bans, some of which may have ended."""
        return len(self._until)

    def remaining(self, room: RoomId, user: str | None, now: float) -> float:
        """Return the seconds for which a ban still holds; 0 if there is none."""
        ban = self._until.get((room, user))
        return max(0.0, ban[0] - now) if ban else 0.0

    def set(
        self, room: RoomId, user: str | None, seconds: float, customer: str, now: float
    ) -> None:
        """Ban for a time; this replaces an earlier ban of the same, and 0 lifts it.

        Raises:
            Refused: the customer has too many bans (``too_many_bans``).
        """
        key = (room, user)
        if not seconds:
            self.lift(room, user)
            return
        self.check(key, customer)
        self.put(key, end_of(seconds, now), customer)

    def check(self, key: BanKey, customer: str) -> None:
        """Raise ``Refused`` if one more ban is too many for a customer."""
        before = self._until.get(key)
        is_new = before is None or before[1] != customer
        if is_new and self._of_customer.get(customer, 0) >= self._per_customer:
            raise Refused(Reason.TOO_MANY_BANS)

    def put(self, key: BanKey, until: float, customer: str) -> None:
        """Keep a ban until a time, whatever the customer's number of bans."""
        self.lift(*key)
        self._until[key] = (until, customer)
        self._changed(key)
        self._of_customer[customer] = self._of_customer.get(customer, 0) + 1
        heapq.heappush(self._ends, _end(key, until))
        # Bans that were lifted or replaced leave their ends behind.
        if len(self._ends) > 2 * len(self._until) + _SLACK:
            self._ends = [_end(each, ban[0]) for each, ban in self._until.items()]
            heapq.heapify(self._ends)

    def lift(self, room: RoomId, user: str | None) -> bool:
        """End a ban; False if there was none."""
        ban = self._until.pop((room, user), None)
        if ban is None:
            return False
        customer = ban[1]
        self._of_customer[customer] -= 1
        if not self._of_customer[customer]:
            del self._of_customer[customer]
        self._changed((room, user))
        return True

    def get(self, key: BanKey) -> tuple[float, str] | None:
        """Return until when a ban holds and whose it is; None: there is no such ban."""
        return self._until.get(key)

    def keys(self) -> Collection[BanKey]:
        """Return who is banned where."""
        return self._until.keys()

    def sweep(self, now: float, most: int) -> None:
        """Forget bans that have ended, looking at no more than ``most`` of them."""
        while most and self._ends and self._ends[0][0] <= now:
            most -= 1
            until, room, of_user, name = heapq.heappop(self._ends)
            user = name if of_user else None
            ban = self._until.get((room, user))
            if ban is not None and ban[0] == until:
                self.lift(room, user)


def end_of(seconds: float, now: float) -> float:
    """Return when a ban of this length ends."""
    return now + min(seconds, TEN_YEARS)


def _end(key: BanKey, until: float) -> _End:
    # A heap cannot order None against str; the empty user is a user like any other.
    room, user = key
    return until, room, user is not None, user or ""
