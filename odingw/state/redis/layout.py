"""How a grid lies in Redis: the names of keys, and operations of ``commit.lua``.

Rows are JSON lists (:mod:`odingw.grid.ledger`). A reader takes the members that it knows and gives
those that are missing their defaults, so gateways of one layout and the next can work side by side.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.json import Decoder, Encoder

from odingw.grid.bans import BanKey
from odingw.grid.changes import PlaceKey
from odingw.grid.ledger import BanRow, BaseRow, KeyRow, PlaceRow, RoomRow, ServerRow, TaskRow
from odingw.grid.records import MOST_TIME
from odingw.grid.rooms import BaseId, RoomId, base_of
from odingw.grid.tasks import TaskBody

LAYOUT: Final = 3
"""The layout that this version writes; it also reads the one before."""

OLDEST: Final = 2
"""The oldest layout that this version works side by side with. It knows no ``keys``."""

COMMIT: Final = files("odingw.state.redis").joinpath("commit.lua").read_text("utf-8")

_NAMES: Final = (
    "meta",
    "servers",
    "heard",
    "disabled",
    "drained",
    "bases",
    "refs",
    "rooms",
    "places",
    "bans",
    "tasks",
    "at",
    "returned",
    "queue",
    "flights",
    "flying",
    "members",
    "keys",
    "tasks_of",
)

Text: TypeAlias = str | bytes
Operation: TypeAlias = tuple[Text, ...]
"""A code and its arguments."""

Group: TypeAlias = Sequence[Operation]
"""Operations that are committed in one go."""

encode: Final = Encoder().encode


class Keys:
    """The names of one pool's keys, which a Redis Cluster keeps in one slot.

    Attributes:
        all: in the order in which ``commit.lua`` takes them.
        channel: where commits are told.
    """

    def __init__(self, prefix: str, pool: str) -> None:
        self._tag = f"{{{prefix}:{pool}}}"
        self.all = tuple(f"{self._tag}:{name}" for name in _NAMES)
        self.channel = f"{self._tag}:meta:changes"

    def __getitem__(self, name: str) -> str:
        """Return the key of a name."""
        return f"{self._tag}:{name}"


class Message(Struct, frozen=True, array_like=True):
    """What a commit is told as."""

    seq: int
    gateway: str
    commit: str
    parts: tuple[str, ...]


class _StoredTask(Struct, frozen=True, array_like=True):
    base: str
    customer: str
    body: TaskBody


_SERVER: Final = Decoder(ServerRow)
_KEY: Final = Decoder(KeyRow)
_ROOM: Final = Decoder(RoomRow)
_PLACE: Final = Decoder(PlaceRow)
_BAN: Final = Decoder(BanRow)
_TASK: Final = Decoder(_StoredTask)
_ROOM_ID: Final[Decoder[RoomId]] = Decoder(RoomId)
_PLACE_KEY: Final[Decoder[PlaceKey]] = Decoder(tuple[RoomId, tuple[str, str]])
_BAN_KEY: Final[Decoder[BanKey]] = Decoder(tuple[RoomId, str | None])


def base_key(room: RoomId) -> bytes:
    """Return the key of the base that a room belongs to."""
    return encode((room[0], base_of(room[1])))


def read_base_key(key: Text) -> BaseId:
    """Read a base's key."""
    return _ROOM_ID.decode(key)


def read_room_key(key: Text) -> RoomId:
    """Read a room's key."""
    return _ROOM_ID.decode(key)


def read_place_key(key: Text) -> PlaceKey:
    """Read a reservation's key."""
    return _PLACE_KEY.decode(key)


def read_ban_key(key: Text) -> BanKey:
    """Read a ban's key."""
    return _BAN_KEY.decode(key)


def read_server(row: Text) -> ServerRow:
    """Read a server's row."""
    return _SERVER.decode(row)


def key_value(row: KeyRow) -> bytes:
    """Return what is stored of the key that a server was given; Lua reads the time in front."""
    return b"%r %s" % (row.at, encode(row))


def read_key(value: str) -> KeyRow:
    """Read what is stored of the key that a server was given."""
    return _KEY.decode(value[value.index(" ") + 1 :])


def read_time(text: str) -> float:
    """Read a time.

    Raises:
        ValueError: it is none.
    """
    time = float(text)
    if not -MOST_TIME <= time <= MOST_TIME:
        raise ValueError("no time that there is")
    return time


def read_base(value: str) -> BaseRow:
    """Read where a base lives."""
    return BaseRow(value[2:], value[:1] == "1")


def read_room(row: Text) -> RoomRow:
    """Read a room's row."""
    return _ROOM.decode(row)


def split_room(value: str) -> tuple[str, str]:
    """Take apart what is stored of a room: its server, and its row."""
    server, _, row = value.partition("\n")
    return server, row


def place_value(row: PlaceRow) -> bytes:
    """Return what is stored of a reservation; Lua reads its end in front."""
    return b"%r %s" % (row.ends, encode(row))


def read_place(value: str) -> PlaceRow:
    """Read what is stored of a reservation."""
    return _PLACE.decode(value[value.index(" ") + 1 :])


def ban_value(row: BanRow) -> bytes:
    """Return what is stored of a ban; Lua reads its end in front."""
    return b"%r %s" % (row.until, encode(row))


def read_ban(value: str) -> BanRow:
    """Read what is stored of a ban."""
    return _BAN.decode(value[value.index(" ") + 1 :])


def task_value(body: TaskBody, customer: str) -> bytes:
    """Return what is stored of a task."""
    return encode((base_key(body.id).decode(), customer, body))


def read_task(value: Text, server: str, returned: int) -> TaskRow:
    """Read what is stored of a task."""
    stored = _TASK.decode(value)
    return TaskRow(server, stored.customer, returned, stored.body)
