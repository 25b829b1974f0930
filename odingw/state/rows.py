"""Rows of records as stores write them: kind, key and row, the latter two as lists in JSON."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from msgspec.json import Decoder, Encoder

from odingw.grid.changes import Changes
from odingw.grid.ledger import (
    BanRow,
    BaseRow,
    KeyRow,
    Ledger,
    RoomRow,
    ServerRow,
    TaskRow,
)
from odingw.grid.rooms import RoomId
from odingw.state.places import PlaceLog, PlacesRow

SERVER: Final = "server"
KEY: Final = "key"
BASE: Final = "base"
ROOM: Final = "room"
PLACES: Final = "places"
BAN: Final = "ban"
TASK: Final = "task"

KINDS: Final = (SERVER, KEY, BASE, ROOM, PLACES, BAN, TASK)
"""All kinds, in an order in which their rows can be put into a grid."""

encode: Final = Encoder().encode

Row: TypeAlias = ServerRow | KeyRow | BaseRow | RoomRow | PlacesRow | BanRow | TaskRow
"""What a record is."""

Change: TypeAlias = tuple[str, Any, Row | None]
"""Kind, key (a list in JSON), and what the record is now; None: it is gone."""

_DECODERS: Final[dict[str, tuple[Decoder[Any], Decoder[Any]]]] = {
    SERVER: (Decoder(tuple[str]), Decoder(ServerRow)),
    KEY: (Decoder(tuple[str]), Decoder(KeyRow)),
    BASE: (Decoder(RoomId), Decoder(BaseRow)),
    ROOM: (Decoder(RoomId), Decoder(RoomRow)),
    PLACES: (Decoder(tuple[int]), Decoder(PlacesRow)),
    BAN: (Decoder(tuple[RoomId, str | None]), Decoder(BanRow)),
    TASK: (Decoder(tuple[int]), Decoder(TaskRow)),
}


def decode(kind: str, key: str | bytes, row: str | bytes) -> tuple[Any, Row]:
    """Read a stored key and row.

    Raises:
        msgspec.DecodeError: they are not what is stored under this kind.
        KeyError: there is no such kind.
    """
    of_key, of_row = _DECODERS[kind]
    return of_key.decode(key), of_row.decode(row)


def changed(ledger: Ledger, changes: Changes, places: PlaceLog) -> Iterator[Change]:
    """Yield what has become of changed records, in an order in which they can be put again."""
    for address in changes.servers:
        yield SERVER, (address,), ledger.server(address)
    for address in changes.keys:
        yield KEY, (address,), ledger.key(address)
    kinds: tuple[tuple[str, Iterable[Any], Callable[[Any], Row | None]], ...] = (
        (BASE, changes.bases, ledger.base),
        (ROOM, changes.rooms, ledger.room),
        (BAN, changes.bans, ledger.ban),
    )
    for kind, keys, read in kinds:
        for key in keys:
            yield kind, key, read(key)
    for number, task in changes.tasks.items():
        yield TASK, (number,), ledger.task(task)
    for number, row in places.write(ledger, changes.places, changes.ended):
        yield PLACES, (number,), row


def in_slices(changes: Iterable[Change], most: int) -> Iterator[list[Change]]:
    """Yield the changes in lists that hold about so many records, reservations counted singly."""
    part: list[Change] = []
    left = most
    for change in changes:
        part.append(change)
        left -= len(change[2].places) if isinstance(change[2], PlacesRow) else 1
        if left <= 0:
            yield part
            part, left = [], most
    if part:
        yield part


def put(ledger: Ledger, kind: str, key: Any, row: Any) -> None:
    """Put a row into a grid."""
    if kind == SERVER:
        ledger.put_server(key[0], row)
    elif kind == KEY:
        ledger.put_key(key[0], row)
    elif kind == BASE:
        ledger.put_base(key, row)
    elif kind == ROOM:
        ledger.put_room(key, row)
    elif kind == BAN:
        ledger.put_ban(key, row)
    else:
        ledger.put_task(key[0], row)
