"""Every status, code, reason and message that a caller can be given.

HTTP statuses and JSON-RPC codes are those of the wire reference; a domain error is known by its
``reason``, which never changes, while its message is meant for people.
"""

from enum import StrEnum
from typing import Any, Final

from msgspec import DecodeError

NOT_JSON: Final = (DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises about bytes that are not JSON of the wanted type, or are nested too deeply.

Which of the first two tells that bytes are not UTF-8, and whether ``DecodeError`` is a
``ValueError``, depends on its version. If the types alone are wrong, it is a ``ValidationError``,
which is a ``DecodeError`` too.
"""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

UNAUTHORIZED: Final = -32001
FORBIDDEN: Final = -32003
NOT_FOUND: Final = -32004
METHOD_NOT_ALLOWED: Final = -32005
TOO_LARGE: Final = -32013
URI_TOO_LONG: Final = -32014
TOO_MANY_REQUESTS: Final = -32029
HEADERS_TOO_LARGE: Final = -32031
UNAVAILABLE: Final = -32053

HTTP_STATUS: Final[dict[int, int]] = {
    PARSE_ERROR: 400,
    UNAUTHORIZED: 401,
    FORBIDDEN: 403,
    NOT_FOUND: 404,
    METHOD_NOT_ALLOWED: 405,
    TOO_LARGE: 413,
    URI_TOO_LONG: 414,
    TOO_MANY_REQUESTS: 429,
    HEADERS_TOO_LARGE: 431,
    INTERNAL_ERROR: 500,
    UNAVAILABLE: 503,
}
"""The HTTP status of a reply that carries this error alone; 200 where a code is not listed."""


class OdingwError(Exception):
    """Root of all errors that odingw raises on purpose."""


class ConfigError(OdingwError):
    """The configuration cannot be used; the text is one line: file, key and what is wanted."""


class FetchError(OdingwError):
    """A document could not be had over HTTP; the text is one line without secrets."""


class KeyMaterialError(OdingwError, ValueError):
    """An access key, key id, JWK or master key is malformed; the text never shows the key."""


class TokenFault(StrEnum):
    """Why a token is refused; also the label of the metric that counts verifications."""

    MISSING = "missing"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"


class TokenError(OdingwError):
    """A token is refused.

    Attributes:
        fault: the kind of fault.
        message: for the caller; it never repeats any part of the token.
        detail: one line more, where the message does not say what is missing; else empty.
    """

    def __init__(self, fault: TokenFault, message: str, detail: str = "") -> None:
        super().__init__(f"{message}: {detail}" if detail else message)
        self.fault = fault
        self.message = message
        self.detail = detail


class RpcError(OdingwError):
    """An error object of JSON-RPC 2.0 (section 5.1), and the HTTP reply it makes on its own.

    Attributes:
        code: the JSON-RPC code.
        message: for people.
        data: more about it, or None.
        headers: HTTP headers that the reply must carry (``WWW-Authenticate``, ``Allow``, …).
    """

    def __init__(
        self,
        code: int,
        message: str,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.headers = headers or {}

    @property
    def status(self) -> int:
        """The HTTP status of a reply that carries this error alone."""
        return HTTP_STATUS.get(self.code, 200)

    @property
    def rejects(self) -> bool:
        """Whether a rule or a missing right is behind it, not a fault."""
        return self.code in (UNAUTHORIZED, FORBIDDEN)


def invalid_params(detail: str) -> RpcError:
    """Wrong parameters; ``detail`` is one line that names the field."""
    return RpcError(INVALID_PARAMS, "Invalid params", {"detail": detail})


class Reason(StrEnum):
    """What stands in ``error.data.reason`` of a domain error."""

    PEER_LIMIT_EXCEEDED = "peer_limit_exceeded"
    ROOM_LIMIT_EXCEEDED = "room_limit_exceeded"
    NO_SERVER = "no_server"
    SERVER_NOT_FOUND = "server_not_found"
    ROOM_NOT_FOUND = "room_not_found"
    ROOM_BANNED = "room_banned"
    USER_BANNED = "user_banned"
    ROOM_MISMATCH = "room_mismatch"
    RID_BASE_MISMATCH = "rid_base_mismatch"
    RID_EMPTY = "rid_empty"
    TOO_MANY_TASKS = "too_many_tasks"
    TOO_MANY_BANS = "too_many_bans"
    STORE_UNAVAILABLE = "store_unavailable"


_DOMAIN: Final[dict[Reason, tuple[int, str]]] = {
    Reason.PEER_LIMIT_EXCEEDED: (INVALID_REQUEST, "peer limit exceeded"),
    Reason.ROOM_LIMIT_EXCEEDED: (INVALID_REQUEST, "room limit exceeded"),
    Reason.NO_SERVER: (INVALID_REQUEST, "no server to assign room too"),
    Reason.SERVER_NOT_FOUND: (INVALID_REQUEST, "server not found"),
    Reason.ROOM_NOT_FOUND: (INVALID_REQUEST, "no server for room found"),
    Reason.ROOM_BANNED: (INVALID_REQUEST, "room is banned"),
    Reason.USER_BANNED: (INVALID_REQUEST, "user is banned from room"),
    Reason.ROOM_MISMATCH: (
        INVALID_REQUEST,
        "room_id param does not match rid in authorization token",
    ),
    Reason.RID_BASE_MISMATCH: (400, "all values in rid must have the same base"),
    Reason.RID_EMPTY: (400, "rid in authorization token must not be empty"),
    Reason.TOO_MANY_TASKS: (INVALID_REQUEST, "too many tasks queued"),
    Reason.TOO_MANY_BANS: (INVALID_REQUEST, "too many bans"),
    Reason.STORE_UNAVAILABLE: (INVALID_REQUEST, "state store unavailable"),
}
# "assign room too" is how the existing gateway spells it, and clients compare messages.


class Refused(RpcError):  # noqa: N818  -- it reads as what happened: raise Refused(reason)
    """The grid's rules refuse a call.

    Attributes:
        reason: which rule.
    """

    def __init__(self, reason: Reason, retry_after: float | None = None) -> None:
        """Build the error for a reason.

        Args:
            reason: which rule refuses.
            retry_after: seconds after which another try may succeed; None: it will not by itself.
        """
        code, message = _DOMAIN[reason]
        data: dict[str, Any] = {"reason": str(reason)}
        if retry_after is not None:
            data["retry_after"] = round(retry_after, 3)
        super().__init__(code, message, data)
        self.reason = reason

    @property
    def rejects(self) -> bool:
        """Always: a rule is behind it."""
        return True
