"""Helpers for tests of the grid: short ways to report, connect and command."""

from typing import NamedTuple

import msgspec

from odingw.grid.rooms import RoomId
from odingw.grid.tasks import Duration, RoomBanClient, RoomClose, RoomUpdate, byte_list
from odingw.grid.values import Admission, Command, GridSettings, ServerReport
from odingw.state.memory import MemoryStore


class Room(NamedTuple):
    """A room in a report."""

    id: RoomId
    peers: int = 1
    customer: str = "acme"


def store(**settings: float) -> MemoryStore:
    """Return an empty store that breaks ties in favour of the first server."""
    return MemoryStore(GridSettings(**settings), lambda n: 0)  # type: ignore[arg-type]  # ints too


def report(
    address: str, *rooms: Room, load: float = 0.0, clients: int | None = None
) -> ServerReport:
    """Return a report of a server."""
    count = sum(room.peers for room in rooms) if clients is None else clients
    return ServerReport(address, f"kid-{address}", "1.5.0", load, count, [rooms])


def admission(
    *rooms: str,
    user: str = "user",
    customer: str = "acme",
    namespace: str = "acme",
    token_id: str = "token",
    max_peers: int | None = None,
    max_rooms: int | None = None,
    demo_peers: int | None = None,
    server: str | None = None,
) -> Admission:
    """Return a Connect."""
    return Admission(
        customer, namespace, rooms, user, token_id, max_peers, max_rooms, demo_peers, server
    )


def close(room: str, ban: float | None = None, customer: str = "acme") -> Command:
    """Return a RoomClose."""
    return Command(customer, RoomClose(("acme", room), Duration.of(ban or 0)), ban)


def ban(room: str, user: str, seconds: float | None, customer: str = "acme") -> Command:
    """Return a RoomBanClient."""
    body = RoomBanClient(("acme", room), user, Duration.of(seconds or 0))
    return Command(customer, body, seconds, user)


def update(room: str, *data: int, customer: str = "acme") -> Command:
    """Return a RoomUpdate."""
    return Command(customer, RoomUpdate(("acme", room), byte_list(data)))


def data_of(body: RoomUpdate) -> tuple[int, ...]:
    """Return the data of a RoomUpdate."""
    return msgspec.json.decode(body.user_data, type=tuple[int, ...])
