"""What a call can end with other than a result: one class by each kind of trouble.

Catch :class:`GatewayError` for all of them, a class of trouble (:class:`RateLimited`,
:class:`Refused`, …) for some, or the class of one ``data.reason`` (:class:`RoomNotFound`, …). New
reasons of newer gateways are plain :class:`Refused`: look at ``reason``.
"""

# ruff: noqa: N818  -- they read as what happened: except RoomNotFound
from typing import ClassVar, Final

from odingw.errors import (
    FORBIDDEN,
    HEADERS_TOO_LARGE,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_ALLOWED,
    METHOD_NOT_FOUND,
    NOT_FOUND,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    UNAVAILABLE,
    URI_TOO_LONG,
    OdingwError,
    Reason,
)


class GatewayError(OdingwError):
    """A call did not end with a result.

    Its text is one line, and never shows a token, a password or a body that is not JSON-RPC.

    Attributes:
        code: the JSON-RPC code; None: there was no JSON-RPC reply.
        message: for people.
        reason: ``error.data.reason``, which never changes; None: it has none.
        detail: ``error.data.detail``, one line about what is wrong with the params; or None.
        retry_after: seconds after which another try may succeed; None: not known.
        status: the HTTP status; None: there was no HTTP reply.
    """

    always_temporary: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        reason: str | None = None,
        detail: str | None = None,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{message} ({detail})" if detail else message)
        self.code = code
        self.message = message
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after
        self.status = status

    @property
    def temporary(self) -> bool:
        """Whether the same call may succeed later, without anybody changing anything."""
        return self.always_temporary or self.retry_after is not None


class TransportError(GatewayError):
    """No whole reply came: refused, reset, or too late. The call may have been carried out."""

    always_temporary = True


class InsecureConnection(TransportError):
    """The gateway's certificate is not trusted, or TLS failed otherwise; nothing was sent."""

    always_temporary = False


class UnexpectedReply(GatewayError):
    """The reply is not one of the gateway's: a proxy's page, a redirect, another program."""

    @property
    def temporary(self) -> bool:
        """Whether a proxy says that it could not reach the gateway just now."""
        return self.status in (502, 503, 504)


class Unauthorized(GatewayError):
    """The token, or the user and password, are missing or not good."""


class Forbidden(GatewayError):
    """Whoever calls is known, but may not."""


class NotFound(GatewayError):
    """There is no such path, room or server."""


class MethodNotFound(NotFound):
    """There is no such method, or the token's ``sub`` does not name it."""


class MethodNotAllowed(GatewayError):
    """The path is no JSON-RPC API: the URL is another one of the gateway's."""


class InvalidParams(GatewayError):
    """The params are wrong; ``detail`` names the field."""


class TooLarge(GatewayError):
    """The request is larger than the gateway allows."""


class RateLimited(GatewayError):
    """Too many requests; nothing was done."""

    always_temporary = True


class InternalError(GatewayError):
    """The gateway failed; its log says how."""


class Unavailable(GatewayError):
    """The gateway cannot do this now."""

    always_temporary = True


class Refused(GatewayError):
    """The grid's rules refuse the call: ``reason`` says which one."""


class PeerLimitExceeded(Refused):
    """The customer's licence allows no more peers."""


class RoomLimitExceeded(Refused):
    """The customer's licence allows no more rooms."""


class NoServer(Refused):
    """No voice server can take a new room now."""


class ServerNotFound(Refused, NotFound):
    """The gateway does not know that voice server."""


class RoomNotFound(Refused, NotFound):
    """The room is on no voice server."""


class RoomBanned(Refused):
    """The room is closed; ``retry_after`` says for how long."""


class UserBanned(Refused):
    """The user is banned from the room; ``retry_after`` says for how long."""


class RoomMismatch(Refused):
    """The token does not speak for the room that ``room_id`` names."""


class RidBaseMismatch(Refused):
    """The token names several rooms that do not have the same base."""


class RidEmpty(Refused):
    """The token names no room."""


class TooManyTasks(Refused):
    """Too many calls wait for the room's server, or too many of the customer's."""


class TooManyBans(Refused):
    """The customer has as many bans as it may have."""


class StoreUnavailable(Refused, Unavailable):
    """The gateway cannot store anything now; known rooms still get tokens."""


BY_REASON: Final[dict[str, type[Refused]]] = {
    Reason.PEER_LIMIT_EXCEEDED: PeerLimitExceeded,
    Reason.ROOM_LIMIT_EXCEEDED: RoomLimitExceeded,
    Reason.NO_SERVER: NoServer,
    Reason.SERVER_NOT_FOUND: ServerNotFound,
    Reason.ROOM_NOT_FOUND: RoomNotFound,
    Reason.ROOM_BANNED: RoomBanned,
    Reason.USER_BANNED: UserBanned,
    Reason.ROOM_MISMATCH: RoomMismatch,
    Reason.RID_BASE_MISMATCH: RidBaseMismatch,
    Reason.RID_EMPTY: RidEmpty,
    Reason.TOO_MANY_TASKS: TooManyTasks,
    Reason.TOO_MANY_BANS: TooManyBans,
    Reason.STORE_UNAVAILABLE: StoreUnavailable,
}
"""The class of each reason."""

BY_CODE: Final[dict[int, type[GatewayError]]] = {
    METHOD_NOT_FOUND: MethodNotFound,
    INVALID_PARAMS: InvalidParams,
    INTERNAL_ERROR: InternalError,
    UNAUTHORIZED: Unauthorized,
    FORBIDDEN: Forbidden,
    NOT_FOUND: NotFound,
    METHOD_NOT_ALLOWED: MethodNotAllowed,
    TOO_LARGE: TooLarge,
    URI_TOO_LONG: TooLarge,
    HEADERS_TOO_LARGE: TooLarge,
    TOO_MANY_REQUESTS: RateLimited,
    UNAVAILABLE: Unavailable,
}
"""The class of each code where there is no reason; others are plain :class:`GatewayError`."""


def error_class(code: int, reason: str | None) -> type[GatewayError]:
    """Return the class of an error object."""
    if reason is not None:
        return BY_REASON.get(reason, Refused)
    return BY_CODE.get(code, GatewayError)
