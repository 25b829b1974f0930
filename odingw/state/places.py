"""How reservations are stored: each group of changes in one record.

Reservations are by far the most of what changes, and none lives long. So the file gets a record of
what became of them in each group, and loses it again when nothing in it can be running any more.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from msgspec import Struct

from odingw.grid.changes import PlaceKey
from odingw.grid.ledger import Ledger, PlaceRow
from odingw.grid.records import Reservation

ENDED: Final = 0
"""Number of the record that holds no reservations, and tells until when all have ended."""

BATCH: Final = 300
"""How many reservations a record holds at most."""


class PlacesRow(Struct, frozen=True, array_like=True, gc=False):
    """What became of reservations.

    Attributes:
        until: when the last of them, and of those in the records before, ends by itself.
        places: each with its row, or None if it has ended.
    """

    until: float
    places: tuple[tuple[PlaceKey, PlaceRow | None], ...]


class PlaceLog:
    """The records of one pool's reservations in the file.

    Attributes:
        until: when the last reservation that was written ends by itself.
    """

    def __init__(self) -> None:
        self._last = 0
        self.until = 0.0
        self._kept: deque[tuple[int, float]] = deque()
        self._ended_before = False

    def found(self, number: int) -> None:
        """Take note of a record in the file, which is to go once all has been written again."""
        self._last = max(self._last, number)
        if number == ENDED:
            self._ended_before = True
        else:
            self._kept.append((number, 0.0))

    def write(
        self, ledger: Ledger, places: Mapping[PlaceKey, Reservation], ended: float | None
    ) -> Iterator[tuple[int, PlacesRow]]:
        """Yield numbers and rows of new records.

        Args:
            ledger: knows the reservations.
            places: those that have changed.
            ended: until when all have ended by themselves; None: no more than before.
        """
        if ended is None and self._ended_before:
            # That was by the clock of an earlier time, which may have been set back since.
            ended = 0.0
        if ended is not None:
            yield ENDED, PlacesRow(ended, ())
        changed = iter(places.items())
        while batch := tuple(
            (key, ledger.last_place(key, last)) for key, last in islice(changed, BATCH)
        ):
            self.until = max(self.until, *(row.ends for _, row in batch if row), 0.0)
            self._last += 1
            self._kept.append((self._last, self.until))
            yield self._last, PlacesRow(self.until, batch)

    def outdated(self, ledger: Ledger) -> list[int]:
        """Return the numbers of the records that nothing running depends on."""
        oldest = ledger.oldest_place()
        return [number for number, until in self._kept if oldest is None or until < oldest]

    def forget(self, numbers: Iterable[int]) -> None:
        """Take note that the new records are stored, and these have been deleted."""
        self._ended_before = False
        gone = set(numbers)
        self._kept = deque(item for item in self._kept if item[0] not in gone)


def latest(rows: Iterable[PlacesRow]) -> Iterator[tuple[PlaceKey, PlaceRow]]:
    """Yield the running reservations that records tell of, given in their order."""
    found: dict[PlaceKey, PlaceRow | None] = {}
    ended = 0.0
    for row in rows:
        for key, place in row.places:
            # Those that end together keep the order in which they were made or renewed.
            found.pop(key, None)
            found[key] = place
        if not row.places:
            ended = row.until
    for key, place in found.items():
        if place is not None and place.ends > ended:
            yield key, place
