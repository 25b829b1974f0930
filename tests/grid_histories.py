"""What random histories of grids are made of, and how a grid is taken up by another process."""

from typing import Any, Final

from hypothesis import strategies as st

from odingw.grid.ledger import Ledger
from odingw.grid.rooms import RoomId
from odingw.grid.tasks import (
    Duration,
    RoomBanClient,
    RoomClose,
    RoomUpdate,
    TaskBody,
    byte_list,
)
from odingw.grid.values import Admission, GridSettings
from tests.grids import Room

SETTINGS: Final = GridSettings(remove_timeout=20.0, queued_tasks=4, bans_per_customer=2)

POOLS: Final = ("", "eu")
SERVERS: Final = ("a.test:4433", "b.test:4433", "c.test:4433")
FOREIGN: Final = "eu-b.test:4433"
"""A server that is in the other pool only."""

# Few values, and some drawn more often: the steps of a history must have to do with each other.
pools = st.sampled_from(("", "", "", "", "", "eu"))
servers = st.sampled_from(SERVERS)
customers = st.sampled_from(("acme", "acme", "beta", "demo_1", "demo_2"))
names = st.sampled_from(("{b}1", "{b}2", "solo"))
room_ids = st.tuples(st.sampled_from(("acme", "acme", "acme", "acme", "beta")), names)
users = st.sampled_from(("bob", "bob", "eve", ""))
tokens = st.sampled_from(("t1", "t2"))
reported = st.lists(st.builds(Room, room_ids, st.integers(0, 3), customers), max_size=4)
loads = st.sampled_from((0.0, 0.3, 1.0))
limits = st.sampled_from((None, None, None, 0, 1, 2, 3, 5))
bans = st.sampled_from((None, 0.0, 0.25, 3.0, 30.0, 1e15))
forced = st.sampled_from((None, None, None, *SERVERS, FOREIGN, "nowhere.test:1"))
jumps = st.sampled_from((0.0, 0.5, 9.0, 3600.0, -0.5, -9.0, -3600.0))


def at_home(name: str, address: str) -> str:
    """Return the address that a server has in a pool: the first is in all, the others in one."""
    return address if not name or address == SERVERS[0] else f"{name}-{address}"


@st.composite
def admissions(draw: st.DrawFn, room: RoomId) -> Admission:
    """Connects of several customers, who may share a namespace."""
    namespace, name = room
    customer = draw(customers)
    return Admission(
        customer,
        namespace,
        draw(st.sampled_from(((name,), (name,), ("{b}1", name), ("{b", "{b}2", name), ()))),
        draw(users),
        draw(tokens),
        draw(limits),
        draw(limits),
        draw(limits) if customer.startswith("demo_") else None,
        draw(forced),
    )


@st.composite
def bodies(draw: st.DrawFn, room: RoomId, number: int) -> TaskBody:
    """Tasks with a number in them, by which they can be told apart."""
    kind = draw(st.sampled_from((RoomUpdate, RoomClose, RoomBanClient)))
    if kind is RoomUpdate:
        return RoomUpdate(room, byte_list((number,)))
    if kind is RoomClose:
        return RoomClose(room, Duration(0, number))
    return RoomBanClient(room, draw(users), Duration(0, number))


def copy(old: Ledger, new: Ledger) -> None:
    """Put the rows of one grid into another, in an order that keeps what they hang on before them.

    The grid has all of them: nothing that it names itself is gone.
    """
    of: Any = old
    everything = old.everything()
    for address in sorted(everything.servers):
        new.put_server(address, of.server(address))
    for base in everything.bases:
        new.put_base(base, of.base(base))
    for room in everything.rooms:
        new.put_room(room, of.room(room))
    places = [(key, of.place(key)) for key in everything.places]
    for key, row in sorted(places, key=lambda place: (place[1].ends, place[0])):
        new.put_place(key, row)
    for ban in everything.bans:
        new.put_ban(ban, of.ban(ban))
    for number, task in sorted(everything.tasks.items()):
        new.put_task(number, of.task(task))
    new.drop_empty_bases()
