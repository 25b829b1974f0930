"""Reports' rooms are read in pieces, and come to the same as when they are read as a whole."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.json import Decoder
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import TOO_LARGE, RpcError
from odingw.rpc import report_rooms
from odingw.rpc.report_rooms import PIECE, ReportedRooms
from odingw.rpc.server_methods import Room

AGE = {"secs": 1, "nanos": 0}

AWKWARD = st.text(alphabet='ab{}[]," \\:\n', max_size=12)
VALUES = st.recursive(
    st.none() | AWKWARD | st.integers(-5, 5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(AWKWARD, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def described(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a room as a server may describe it, with members nobody knows."""
    room = {
        "id": [draw(AWKWARD), draw(AWKWARD)],
        "customer": draw(AWKWARD),
        "age": AGE,
        "peers": draw(st.integers(0, 9)),
        **{f"x-{name}": value for name, value in draw(st.dictionaries(AWKWARD, VALUES)).items()},
    }
    return {name: room[name] for name in draw(st.permutations(sorted(room)))}


def room(number: int) -> dict[str, Any]:
    return {"id": ["acme", f"room-{number}"], "customer": "acme", "age": AGE, "peers": 2}


def read(text: bytes, most: int = 10_000) -> list[Room]:
    """Return all rooms of a text."""
    return [room for piece in ReportedRooms(Raw(text), most) for room in piece]


class PiecesTests(SynchronousTestCase):
    def refusal(self, rooms: Any, most: int = 10_000) -> RpcError:
        """Return why rooms are not taken."""
        error: RpcError = self.assertRaises(RpcError, read, json.dumps(rooms).encode(), most)
        return error

    def test_a_long_report_has_many_pieces(self) -> None:
        rooms = [room(number) for number in range(1000)]
        for separators in ((",", ":"), (", ", ": "), (" ,\r\n", ":")):
            text = json.dumps(rooms, separators=separators).encode()
            pieces = list(ReportedRooms(Raw(text), 1000))
            self.assertTrue(all(len(piece) * 80 <= PIECE for piece in pieces))
            self.assertTrue(len(text) / PIECE - 2 < len(pieces) <= len(text) / PIECE + 1)
            names = [room.id[1] for piece in pieces for room in piece]
            self.assertEqual([f"room-{number}" for number in range(1000)], names)

    @given(
        st.lists(described(), max_size=6),
        st.sampled_from([",", " , ", ",\n"]),
        st.integers(0, 300),
        st.booleans(),
    )
    def test_wherever_pieces_may_end(
        self, rooms: list[Any], comma: str, piece: int, ascii_only: bool
    ) -> None:
        text = json.dumps(rooms, separators=(comma, ":"), ensure_ascii=ascii_only).encode()
        self.patch(report_rooms, "PIECE", piece)
        self.assertEqual(Decoder(list[Room]).decode(text), read(text))

    def test_none(self) -> None:
        self.assertEqual([], read(b"[]"))
        self.assertEqual([], read(b"[ ]"))

    def test_no_array(self) -> None:
        for value, name in ((None, "null"), ({}, "an object"), ("[]", "text"), (1, "an integer")):
            data = self.refusal(value).data
            self.assertEqual({"detail": f"rooms: expected an array, got {name}"}, data)

    def test_the_room_that_is_wrong_is_named(self) -> None:
        for wrong in (0, 1, 500, 999):
            rooms = [room(number) for number in range(1000)]
            rooms[wrong]["peers"] = "2"
            data = self.refusal(rooms).data or {}
            self.assertEqual(f"rooms[{wrong}].peers: expected a number, got text", data["detail"])

    def test_too_many(self) -> None:
        rooms = [room(number) for number in range(1000)]
        self.assertEqual(1000, len(read(json.dumps(rooms).encode(), 1000)))
        error = self.refusal(rooms, 999)
        self.assertEqual(TOO_LARGE, error.code)
        self.assertEqual("a report names at most 999 rooms", str(error))
