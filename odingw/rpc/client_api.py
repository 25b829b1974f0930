"""The client API: Connect, and the management calls of backends (wire reference, section 3)."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Encoder

from odingw.errors import TOO_MANY_REQUESTS, Reason, Refused, invalid_params
from odingw.grid.bans import TEN_YEARS
from odingw.grid.store import GridStore
from odingw.grid.tasks import (
    NO_TIME,
    Duration,
    RoomBanClient,
    RoomClose,
    RoomSendMessage,
    RoomUpdate,
    TaskBody,
    byte_list,
)
from odingw.grid.values import Admission, Command, Placed
from odingw.rpc.callers import Caller, match_room
from odingw.rpc.jsonrpc import is_eventual
from odingw.rpc.openrpc import Interface, NoParams, Signature
from odingw.rpc.server_keys import ServerKeys

if TYPE_CHECKING:
    from odingw.rpc.jsonrpc import Method

_BYTE: Final = Meta(ge=0, le=255)
Bytes: TypeAlias = tuple[Annotated[int, _BYTE] | Annotated[float, _BYTE], ...]
"""Values of bytes; ``1.0`` is one too, for JSON has one type of numbers."""

Seconds: TypeAlias = Annotated[float, Meta(ge=0)]


LONGEST_BANNED: Final = 1024
"""Characters of a user's or room's name that is banned: that is kept for years."""


class ClientCall(Struct, frozen=True, gc=False):
    """One request to the client API.

    Attributes:
        caller: who calls.
        now: by the gateway's steady clock, seconds.
        wall: by the wall clock, unix seconds, for the token that is issued.
    """

    caller: Caller
    now: float
    wall: float


class _CloseParams(Struct, frozen=True):
    room_id: str
    ban_time: Seconds | UnsetType = UNSET


class _UpdateParams(Struct, frozen=True):
    room_id: str
    user_data: Bytes


class _BanParams(Struct, frozen=True):
    room_id: str
    user_id: Annotated[str, Meta(max_length=LONGEST_BANNED)]
    ban_time: Seconds | UnsetType = UNSET


class _MessageParams(Struct, frozen=True):
    room_id: str
    user_id: str
    message: Bytes


class _RoomClaims(Struct, frozen=True, gc=False):
    """Claims of a room token."""

    uid: str
    cid: str
    rid: str | tuple[str, ...] | UnsetType
    nsp: str
    adr: str
    exp: int
    nbf: int
    tgs: Any = UNSET
    sub: str = "connect"
    aud: str = "sfu"


class _Connected(Struct, frozen=True, gc=False):
    address: str
    token: str


class _Empty(Struct, frozen=True):
    pass


_EMPTY: Final = _Empty()
_encode: Final = Encoder().encode


_CHANGES: Final = (
    Reason.ROOM_MISMATCH,
    Reason.ROOM_NOT_FOUND,
    Reason.TOO_MANY_TASKS,
    Reason.STORE_UNAVAILABLE,
)

CLIENT_API: Final = Interface(
    "odingw client API",
    "What game clients and game backends call, with a client token. With pools, each is also "
    "served under its name: /pool/.",
    "/",
    {
        "Connect": Signature(
            params=NoParams,
            result=_Connected,
            summary="Return the server that carries the token's room, and a room token for it.",
            reasons=(
                Reason.PEER_LIMIT_EXCEEDED,
                Reason.ROOM_LIMIT_EXCEEDED,
                Reason.NO_SERVER,
                Reason.ROOM_BANNED,
                Reason.USER_BANNED,
                Reason.RID_BASE_MISMATCH,
                Reason.RID_EMPTY,
                Reason.STORE_UNAVAILABLE,
            ),
        ),
        "RoomClose": Signature(
            params=_CloseParams,
            result=_Empty,
            summary="Close a room, and keep it closed for ban_time seconds.",
            reasons=(*_CHANGES, Reason.TOO_MANY_BANS),
        ),
        "RoomUpdate": Signature(
            params=_UpdateParams,
            result=_Empty,
            summary="Replace a room's user data, given as byte values.",
            reasons=_CHANGES,
        ),
        "RoomBanClient": Signature(
            params=_BanParams,
            result=_Empty,
            summary="Throw a user out of a room, and keep them out for ban_time seconds.",
            reasons=(*_CHANGES, Reason.TOO_MANY_BANS),
        ),
        "RoomSendMessage": Signature(
            params=_MessageParams,
            result=_Empty,
            summary="Send a message, given as byte values, to a user in a room.",
            reasons=_CHANGES,
        ),
    },
    codes=(TOO_MANY_REQUESTS,),
)


class ClientHooks(Struct, frozen=True):
    """Whom the client API tells of what it did.

    Attributes:
        placed: how a Connect was placed (``Placed.how``).
        refused: why a Connect was refused, a ``Reason``.
        managed: a management call: caller, method, room id, user id or None, and None or the error.
        relaxed: a strict rule that a call broke and the configuration let pass.
    """

    placed: Callable[[str], None]
    refused: Callable[[str], None]
    managed: Callable[[Caller, str, str, str | None, Exception | None], None]
    relaxed: Callable[[str], None]


class ClientApi:
    """Carries out the client API on one pool's grid.

    Args:
        store: the grid.
        keys: the servers' keys, which sign room tokens.
        token_lifetime: of a room token, seconds.
        room_match: ``exact`` or ``prefix``, see :func:`odingw.rpc.callers.match_room`.
        hooks: whom to tell.
    """

    def __init__(
        self,
        store: GridStore,
        keys: ServerKeys,
        token_lifetime: int,
        room_match: str,
        hooks: ClientHooks,
    ) -> None:
        self._store = store
        self._keys = keys
        self._token_lifetime = token_lifetime
        self._room_match = room_match
        self._hooks = hooks
        self.methods: dict[str, Method[ClientCall]] = CLIENT_API.bind(
            {
                "Connect": self._connect,
                "RoomClose": self._close,
                "RoomUpdate": self._update,
                "RoomBanClient": self._ban,
                "RoomSendMessage": self._message,
            }
        )

    def _connect(
        self, call: ClientCall, params: NoParams, answered: bool
    ) -> _Connected | Awaitable[_Connected]:
        caller = call.caller
        internal = caller.claims.internal
        admission = Admission(
            caller.customer,
            caller.namespace,
            caller.rooms,
            caller.user,
            caller.token_id,
            caller.max_peers,
            caller.max_rooms,
            caller.demo_peers,
            internal.server or None if internal else None,
        )
        try:
            placed = self._store.connect(admission, call.now)
        except Refused as error:
            self._hooks.refused(error.reason)
            raise
        if isinstance(placed, Placed):
            return self._connected(call, placed)
        return self._connected_later(call, placed)

    async def _connected_later(self, call: ClientCall, placed: Awaitable[Placed]) -> _Connected:
        try:
            found = await placed
        except Refused as error:
            self._hooks.refused(error.reason)
            raise
        return self._connected(call, found)

    def _connected(self, call: ClientCall, placed: Placed) -> _Connected:
        self._hooks.placed(placed.how)
        caller, now = call.caller, int(call.wall)
        token = self._keys.signing(placed.address, placed.kid).sign_jwt(
            _encode(
                _RoomClaims(
                    caller.user,
                    caller.customer,
                    caller.claims.rid,
                    caller.namespace,
                    placed.address,
                    now + self._token_lifetime,
                    now,
                    caller.claims.tgs,
                )
            )
        )
        return _Connected(placed.address, token)

    def _close(self, call: ClientCall, params: _CloseParams, answered: bool) -> Any:
        room = (call.caller.namespace, params.room_id)
        ban = _ban(params)
        body = RoomClose(room, NO_TIME if ban is None else Duration.of(ban))
        return self._manage("RoomClose", call, body, ban, None)

    def _update(self, call: ClientCall, params: _UpdateParams, answered: bool) -> Any:
        data = _bytes("user_data", params.user_data)
        body = RoomUpdate((call.caller.namespace, params.room_id), data)
        return self._manage("RoomUpdate", call, body, None, None)

    def _ban(self, call: ClientCall, params: _BanParams, answered: bool) -> Any:
        room = (call.caller.namespace, params.room_id)
        ban = _ban(params)
        body = RoomBanClient(room, params.user_id, NO_TIME if ban is None else Duration.of(ban))
        return self._manage("RoomBanClient", call, body, ban, params.user_id)

    def _message(self, call: ClientCall, params: _MessageParams, answered: bool) -> Any:
        room = (call.caller.namespace, params.room_id)
        body = RoomSendMessage(room, params.user_id, _bytes("message", params.message))
        return self._manage("RoomSendMessage", call, body, None, params.user_id)

    def _manage(
        self, method: str, call: ClientCall, body: TaskBody, ban: float | None, user: str | None
    ) -> _Empty | Awaitable[_Empty]:
        name = body.id[1]
        try:
            if match_room(call.caller, name, self._room_match):
                self._hooks.relaxed("room_match")
            banned = user if isinstance(body, RoomBanClient) else None
            queued = self._store.command(Command(call.caller.customer, body, ban, banned), call.now)
        except Exception as error:
            self._hooks.managed(call.caller, method, name, user, error)
            raise
        if is_eventual(queued):
            return self._managed_later(method, call, name, user, queued)
        self._hooks.managed(call.caller, method, name, user, None)
        return _EMPTY

    async def _managed_later(
        self,
        method: str,
        call: ClientCall,
        room: str,
        user: str | None,
        queued: Awaitable[None],
    ) -> _Empty:
        try:
            await queued
        except Exception as error:
            self._hooks.managed(call.caller, method, room, user, error)
            raise
        self._hooks.managed(call.caller, method, room, user, None)
        return _EMPTY


def _bytes(field: str, values: Bytes) -> Raw:
    for index, value in enumerate(values):
        if type(value) is float and not value.is_integer():
            raise invalid_params(f"{field}[{index}]: expected an integer from 0 to 255")
    return byte_list(map(int, values))


def _ban(params: _CloseParams | _BanParams) -> float | None:
    if params.ban_time is UNSET:
        return None
    if params.ban_time and len(params.room_id) > LONGEST_BANNED:
        raise invalid_params(f"room_id: expected {LONGEST_BANNED} characters or less for a ban")
    return min(float(params.ban_time), TEN_YEARS)
