"""What a grid has changed and nobody has stored yet: keys of records, each once.

A store that keeps more than this process's memory gives its grid a :class:`Changes`, takes it away
when it is time to write, and asks the grid for the rows as they are then
(:meth:`odingw.grid.grid.Grid.rows`).
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from odingw.grid.bans import BanKey
from odingw.grid.records import Reservation, ReservationKey, Room
from odingw.grid.rooms import BaseId, RoomId
from odingw.grid.tasks import Task

PlaceKey: TypeAlias = tuple[RoomId, ReservationKey]
"""A room, and who has a place reserved in it."""

_PLACES: Final = 10_000
"""Changed reservations that are kept at least, before those that are over are looked for."""

_KINDS: Final = ("servers", "keys", "bases", "rooms", "moved", "places", "ended", "bans", "tasks")


class Changes:
    """Keys of changed records.

    Attributes:
        recording: whether note is taken; not so for a grid that lives in memory alone, and while
            rows are put in that somebody else has stored.
        endings: whether note is taken of each reservation that ends by itself; if not, of the last.
        servers: addresses.
        keys: addresses of servers that were given a key, or whose key was forgotten.
        bases: bases that were placed, moved, reported for the first time or forgotten.
        rooms: rooms whose report changed.
        moved: rooms whose report was dropped because their base went to another server.
        places: reservations that were made, renewed or ended, each the last one of its key.
        ended: when the last reservation ended that did so by itself, and with it all before it;
            None: it is not noted, or none has since.
        bans: bans that were made or lifted.
        tasks: tasks that were queued, moved, returned or done, by number.
    """

    __slots__ = (
        "_many_places",
        "bans",
        "bases",
        "ended",
        "endings",
        "keys",
        "moved",
        "places",
        "recording",
        "rooms",
        "servers",
        "tasks",
    )

    def __init__(self, *, recording: bool = True, endings: bool = True) -> None:
        self.recording = recording
        self.endings = endings
        self.servers: set[str] = set()
        self.keys: set[str] = set()
        self.bases: set[BaseId] = set()
        self.rooms: set[RoomId] = set()
        self.moved: set[RoomId] = set()
        self.places: dict[PlaceKey, Reservation] = {}
        self.ended: float | None = None
        self.bans: set[BanKey] = set()
        self.tasks: dict[int, Task] = {}
        self._many_places = _PLACES

    def __bool__(self) -> bool:
        """Whether anything has changed."""
        return bool(
            self.places
            or self.ended is not None
            or self.rooms
            or self.bases
            or self.servers
            or self.tasks
            or self.bans
            or self.keys
        )

    def server(self, address: str) -> None:
        """Take note of a server."""
        if self.recording:
            self.servers.add(address)

    def key(self, address: str) -> None:
        """Take note of which key a server was given."""
        if self.recording:
            self.keys.add(address)

    def base(self, base: BaseId) -> None:
        """Take note of a base."""
        if self.recording:
            self.bases.add(base)

    def room(self, room: Room) -> None:
        """Take note of what is reported of a room."""
        if self.recording:
            self.rooms.add(room.id)

    def move(self, room: Room) -> None:
        """Take note of a room whose base went to another server."""
        if self.recording:
            self.moved.add(room.id)

    def place(self, reservation: Reservation) -> None:
        """Take note of a reservation."""
        if self.recording:
            key = (reservation.room.id, reservation.key)
            self.places.pop(key, None)
            self.places[key] = reservation

    def place_over(self, reservation: Reservation) -> None:
        """Take note of a reservation whose time is over."""
        if self.endings:
            self.place(reservation)
        else:
            self.ended = reservation.ends

    def ban(self, key: BanKey) -> None:
        """Take note of a ban."""
        if self.recording:
            self.bans.add(key)

    def task(self, task: Task) -> None:
        """Take note of a task."""
        if self.recording:
            self.tasks[task.number] = task

    def add(self, other: "Changes") -> None:
        """Take in the changes of another one, as when it could not be written."""
        self.servers |= other.servers
        self.keys |= other.keys
        self.bases |= other.bases
        self.rooms |= other.rooms
        self.moved |= other.moved
        if len(other.places) < len(self.places):
            for key, last in other.places.items():
                self.places.setdefault(key, last)
        else:
            self.places = other.places | self.places
        if self.ended is None:
            self.ended = other.ended
        self.bans |= other.bans
        self.tasks = other.tasks | self.tasks

    def forget_places(self, matters: Callable[[PlaceKey], bool]) -> None:
        """Forget reservations that came and went while nothing could be stored.

        They are looked for whenever there are twice as many as the last time.

        Args:
            matters: tells whether a reservation runs or may be stored.
        """
        if len(self.places) >= self._many_places:
            self.places = {key: last for key, last in self.places.items() if matters(key)}
            self._many_places = max(_PLACES, 2 * len(self.places))

    def take(self) -> "Changes":
        """Take all away, and return it."""
        taken = Changes()
        for name in _KINDS:
            kept = getattr(self, name)
            setattr(self, name, getattr(taken, name))
            setattr(taken, name, kept)
        return taken
