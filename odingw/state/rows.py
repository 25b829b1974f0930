"""Rows of records as stores write them: kind, key and row, the latter two as lists in JSON."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeAlias

from msgspec.json import Decoder, Encoder

from odingw.grid.changes import Changes
from odingw.grid.ledger import (
    BanRow,
    BaseRow,
    Ledger,
    PlaceRow,
    RoomRow,
    ServerRow,
    TaskRow,
)
from odingw.grid.rooms import RoomId

SERVER: Final = "server"
BASE: Final = "base"
ROOM: Final = "room"
PLACE: Final = "place"
BAN: Final = "ban"
TASK: Final = "task"

KINDS: Final = (SERVER, BASE, ROOM, PLACE, BAN, TASK)
"""All kinds, in an order in which their rows can be put into a grid."""

encode: Final = Encoder().encode

Row: TypeAlias = ServerRow | BaseRow | RoomRow | PlaceRow | BanRow | TaskRow
"""What a record is."""

Change: TypeAlias = tuple[str, Any, Row | None]
"""Kind, key (a list in JSON), and what the record is now; None: it is gone."""

_DECODERS: Final[dict[str, tuple[Decoder[Any], Decoder[Any]]]] = {
    SERVER: (Decoder(tuple[str]), Decoder(ServerRow)),
    BASE: (Decoder(RoomId), Decoder(BaseRow)),
    ROOM: (Decoder(RoomId), Decoder(RoomRow)),
    PLACE: (Decoder(tuple[RoomId, tuple[str, str]]), Decoder(PlaceRow)),
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


def changed(ledger: Ledger, changes: Changes) -> Iterator[Change]:
    """Yield what has become of changed records, in an order in which they can be put again."""
    for address in changes.servers:
        yield SERVER, (address,), ledger.server(address)
    kinds: tuple[tuple[str, Iterable[Any], Callable[[Any], Row | None]], ...] = (
        (BASE, changes.bases, ledger.base),
        (ROOM, changes.rooms, ledger.room),
        (PLACE, changes.places, ledger.place),
        (BAN, changes.bans, ledger.ban),
    )
    for kind, keys, read in kinds:
        for key in keys:
            yield kind, key, read(key)
    for number, task in changes.tasks.items():
        yield TASK, (number,), ledger.task(task)


def in_slices(changes: Iterator[Change], most: int) -> Iterator[list[Change]]:
    """Yield the changes in lists of at most so many."""
    while part := list(islice(changes, most)):
        yield part


def put(ledger: Ledger, kind: str, key: Any, row: Any) -> None:
    """Put a row into a grid."""
    if kind == SERVER:
        ledger.put_server(key[0], row)
    elif kind == BASE:
        ledger.put_base(key, row)
    elif kind == ROOM:
        ledger.put_room(key, row)
    elif kind == PLACE:
        ledger.put_place(key, row)
    elif kind == BAN:
        ledger.put_ban(key, row)
    else:
        ledger.put_task(key[0], row)
