"""The rooms of a report, read piece by piece."""

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Raw, Struct, ValidationError
from msgspec.json import Decoder

from odingw.errors import NOT_JSON, PARSE_ERROR, TOO_LARGE, RpcError, invalid_params
from odingw.rpc.details import readable
from odingw.rpc.server_methods import Room

PIECE: Final = 8_000
"""Bytes of a piece: some 80 rooms."""

_BETWEEN: Final = re.compile(rb"\}\s*,\s*\{")
_ITEM: Final = re.compile(r"^rooms\[(\d+)\]")


class _Rooms(Struct, frozen=True):
    rooms: list[Room]


_decode: Final = Decoder(list[Room]).decode
_decode_member: Final = Decoder(_Rooms).decode


class ReportedRooms:
    """Iterates over lists of rooms.

    Whoever forgets a list before taking the next one works in memory that the processor has at
    hand: a report of thousands of rooms is read in half the time that it takes as a whole, and
    others can be served in between.

    Args:
        text: an array of rooms, JSON.
        most: how many rooms there may be.
    """

    def __init__(self, text: Raw, most: int) -> None:
        self._text = bytes(text)
        self._most = most

    def __iter__(self) -> Iterator[list[Room]]:
        """Read the pieces.

        Raises:
            RpcError: a room is wrong, or there are too many.
        """
        text, begin, count = self._text, 1, 0
        if not text.startswith(b"["):
            self._read(text, 0)
        while begin < len(text):
            between = _BETWEEN.search(text, begin + PIECE)
            end = between.start() + 1 if between else len(text) - 1
            try:
                rooms = _decode(b"[%b]" % text[begin:end])
            except NOT_JSON:
                # A room is wrong, or what has been found was not between two rooms: then there is
                # a bracket or a quotation mark too few, and as a whole the text is good.
                rooms = self._read(b"[%b" % text[begin:], count)
                between = None
            count += len(rooms)
            if count > self._most:
                raise RpcError(TOO_LARGE, f"a report names at most {self._most} rooms")
            yield rooms
            if between is None:
                return
            begin = between.end() - 1

    def _read(self, text: bytes, before: int) -> list[Room]:
        try:
            return _decode_member(b'{"rooms":%b}' % text).rooms
        except ValidationError as error:
            detail = _ITEM.sub(
                lambda item: f"rooms[{int(item[1]) + before}]", readable(error, "params")
            )
            raise invalid_params(detail) from None
        except NOT_JSON:
            raise RpcError(PARSE_ERROR, "Parse error") from None
