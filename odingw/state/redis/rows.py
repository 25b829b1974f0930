"""How a grid lies in Redis: names of rooms, and rows, which the scripts read and write.

A room's key is ``LENGTH:namespace/name``, with the length of the namespace in bytes. A base's is
the same with the base in place of the name.
"""

from typing import Annotated, Final

from msgspec import Meta, Raw, Struct, json, msgpack

from odingw.grid.bans import BanKey
from odingw.grid.ledger import Time
from odingw.grid.records import MOST_PEERS, ReservationKey
from odingw.grid.rooms import RoomId, base_of
from odingw.grid.tasks import Task, TaskBody

LAYOUT: Final = 4
"""The layout that this version writes, and the only one that it works with."""


class ServerRow(Struct, array_like=True):
    """A server (``FIELDS`` in ``books.lua``)."""

    kid: str
    state: int
    drained: bool
    unheard: bool
    estimate: float
    cost: float
    born: int
    via: str
    version: str
    load: float
    load_seen: float
    clients_seen: float
    clients: int
    first: Time
    seen: Time
    since: float


LIVE: Final = 0
REMOVED: Final = 2
"""States of a server; between these, it is disabled."""


class RoomRow(Struct, frozen=True, array_like=True, gc=False):
    """A room on a server; its peers are -1 if it is not reported."""

    customer: str
    peers: Annotated[int, Meta(ge=-1, le=MOST_PEERS)]
    placed: Time
    reservations: int


read_room: Final = msgpack.Decoder(RoomRow).decode
read_server: Final = msgpack.Decoder(ServerRow).decode
_read_body: Final[json.Decoder[TaskBody]] = json.Decoder(TaskBody)


def room_key(namespace: str, name: str) -> str:
    """Return the key of a room, or of a base; no key has a null, which stands between two."""
    if "\0" in name or "\1" in name:
        name = _escape(name)
    if "\0" in namespace or "\1" in namespace:
        namespace = _escape(namespace)
    size = len(namespace) if namespace.isascii() else len(namespace.encode())
    return f"{size}:{namespace}/{name}"


def _escape(text: str) -> str:
    return text.replace("\1", "\1\2").replace("\0", "\1\1")


def _plain(text: bytes) -> str:
    return text.replace(b"\1\1", b"\0").replace(b"\1\2", b"\1").decode()


def read_room_key(key: str) -> RoomId:
    """Read the key of a room.

    Raises:
        ValueError: it is none.
    """
    size, _, rest = key.partition(":")
    text = rest.encode()
    namespace, slash, name = (
        text[: int(size)],
        text[int(size) : int(size) + 1],
        text[int(size) + 1 :],
    )
    if slash != b"/":
        raise ValueError(f"not the key of a room: {key}")
    return _plain(namespace), _plain(name)


def user_key(client: ReservationKey) -> str:
    """Return the key of a client in a room."""
    user, token_id = client
    return f"u{user}" if user else f"t{token_id}"


def ban_key(ban: BanKey) -> str:
    """Return the key of a ban."""
    room, user = ban
    return f"b{room_key(*room)}" if user is None else f"b{room_key(*room)}\0{user}"


def read_task(name: str, returned: int, customer: str, body: str) -> Task:
    """Read a task that was taken."""
    read = _read_body.decode(body)
    namespace, room = read.id
    return Task(read, customer, (namespace, base_of(room)), int(name[:16]), returned)


def text_of(raw: Raw) -> bytes:
    """Return the bytes of a text, which need not be Unicode, from its MessagePack."""
    data = bytes(raw)
    if data[0] & 0xE0 == 0xA0:
        return data[1:]
    return data[1 + {0xD9: 1, 0xDA: 2, 0xDB: 4}[data[0]] :]
