"""The methods of both APIs as values: what is called, with which params, and what comes back."""

from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from odingw.client.tokens import AccessKeyTokens
from odingw.client.values import Connection, Info

T = TypeVar("T")

TIMEOUT: Final = 10.0
"""Seconds that a call may take."""

CLIENT_PATH: Final = "/"
INTERNAL_PATH: Final = "/internal"


class Nothing(Struct, frozen=True):
    """The result ``{}``."""


class Request(Struct, Generic[T], frozen=True):
    """A call with its result's type.

    Attributes:
        method: the method's name.
        params: its params.
        result: the type of its result.
    """

    method: str
    params: dict[str, Any]
    result: type[T]


CONNECT: Final = Request("Connect", {}, Connection)
INFO: Final = Request("Info", {}, Info)


def close_room(room: str, ban_time: float | None) -> Request[Nothing]:
    """Return the call that closes a room."""
    return Request("RoomClose", _with_ban({"room_id": room}, ban_time), Nothing)


def update_room(room: str, user_data: bytes) -> Request[Nothing]:
    """Return the call that replaces a room's user data."""
    return Request("RoomUpdate", {"room_id": room, "user_data": list(user_data)}, Nothing)


def ban_client(room: str, user: str, ban_time: float | None) -> Request[Nothing]:
    """Return the call that throws a user out."""
    params = _with_ban({"room_id": room, "user_id": user}, ban_time)
    return Request("RoomBanClient", params, Nothing)


def send_message(room: str, user: str, message: bytes) -> Request[Nothing]:
    """Return the call that sends a message to a user."""
    params = {"room_id": room, "user_id": user, "message": list(message)}
    return Request("RoomSendMessage", params, Nothing)


def drain(server: str, drained: bool) -> Request[Nothing]:
    """Return the call that drains a server, or ends that."""
    return Request("Drain" if drained else "Undrain", {"server": server}, Nothing)


def disable(server: str) -> Request[Nothing]:
    """Return the call that disables a server."""
    return Request("Disable", {"server": server}, Nothing)


def _with_ban(params: dict[str, Any], ban_time: float | None) -> dict[str, Any]:
    return params if ban_time is None else {**params, "ban_time": ban_time}


def find_token(source: object, method: str, params: dict[str, Any]) -> object:
    """Ask a source for the token of a call.

    Args:
        source: a token, a function that returns one, or tokens from an access key.
        method: what is to be called.
        params: its params.
    """
    if isinstance(source, AccessKeyTokens):
        return source.token_for(method, params)
    return source() if callable(source) else source
