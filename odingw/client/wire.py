"""JSON-RPC 2.0 over HTTP from the caller's side: values in, bytes out, and back; no I/O."""

import itertools
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from odingw.client.errors import GatewayError, UnexpectedReply, error_class
from odingw.documents import unmarked
from odingw.errors import NOT_JSON

T = TypeVar("T")

MAX_REPLY: Final = 64 * 1024 * 1024
"""The longest reply that is read, bytes; ``Info`` of a large grid has some millions."""

_LONGEST_TEXT: Final = 300
_LONGEST_WAIT: Final = 1e9
# The date that may stand there too (RFC 9110, section 10.2.3) is nothing that a gateway sends.
_SECONDS: Final = re.compile("[0-9]{1,12}")
_IDS: Final = itertools.count(1)


class Target(Struct, frozen=True):
    """Where calls go. It shows no password.

    Attributes:
        url: without user and password.
        auth: user and password that the URL had, or None.
    """

    url: str
    auth: tuple[str, str] | None

    def __repr__(self) -> str:
        return f"Target({self.url!r})"


def target(url: str, default_path: str) -> Target:
    """Read a gateway's URL.

    Args:
        url: http or https, maybe with user and password.
        default_path: what stands for a missing path.

    Raises:
        ValueError: it is no such URL; the text does not repeat it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("url: expected http://host:port/… or https://…") from None
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise ValueError("url: expected http://host:port/… or https://…")
    if parts.query or parts.fragment:
        raise ValueError("url: a gateway's URL has no query and no fragment")
    auth = None
    if parts.username is not None:
        auth = (unquote(parts.username), unquote(parts.password or ""))
    netloc = f"[{host}]" if ":" in host else host
    if port is not None:
        netloc += f":{port}"
    path = parts.path if parts.path not in ("", "/") else default_path
    return Target(urlunsplit((parts.scheme, netloc, path, "", "")), auth)


class Call(Struct, frozen=True):
    """A request to send.

    Attributes:
        method: the method's name.
        id: tells its reply from others.
        body: JSON.
    """

    method: str
    id: int
    body: bytes


def make_call(method: str, params: Mapping[str, object] | None) -> Call:
    """Write a call.

    Raises:
        TypeError: the params hold what JSON cannot.
    """
    number = next(_IDS)
    request = {
        "jsonrpc": "2.0",
        "id": number,
        "method": method,
        "params": {} if params is None else dict(params),
    }
    return Call(method, number, msgspec.json.encode(request))


def basic(auth: tuple[str, str]) -> str:
    """Return the ``Authorization`` of a user and a password (RFC 7617).

    Raises:
        ValueError: the user's name holds a colon.
    """
    user, password = auth
    if ":" in user:
        raise ValueError("auth: a user name holds no colon")
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def bearer(token: object) -> str:
    """Return the ``Authorization`` of a token.

    Raises:
        ValueError: it cannot be a token; the text does not repeat it.
    """
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ValueError("token: expected a JWT, as text")
    token = token.strip()
    if not token or " " in token:
        raise ValueError("token: expected a JWT, as text")
    return f"Bearer {token}"


def headers(authorization: str | None) -> dict[str, str]:
    """Return the headers of every request."""
    fields = {
        "Accept": "application/json",
        # A body that needs no unpacking cannot unpack to something huge.
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    if authorization is not None:
        fields["Authorization"] = authorization
    return fields


class _Error(Struct, frozen=True):
    code: int
    message: str
    data: Any = None


class _Answer(Struct, frozen=True):
    jsonrpc: str
    result: Raw | UnsetType = UNSET
    error: _Error | UnsetType | None = UNSET
    id: Any = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


def read_reply(
    call: Call,
    status: int,
    retry_after: str | None,
    body: bytes,
    secrets: Iterable[str],
    result_type: type[T],
) -> T:
    """Return a call's result.

    Args:
        call: what was sent.
        status: the HTTP status.
        retry_after: the HTTP header of that name.
        body: the reply's.
        secrets: what no error's text may show, whatever the reply says.
        result_type: what the result must be.

    Raises:
        GatewayError: there is no result, or the reply is not one of a gateway's.
    """
    try:
        answer = _ANSWER.decode(unmarked(body))
    except NOT_JSON:
        raise _unexpected(status, "no JSON-RPC answer") from None
    error = answer.error
    has_result = not isinstance(answer.result, UnsetType)
    if answer.jsonrpc != "2.0" or has_result is isinstance(error, _Error):
        raise _unexpected(status, "no JSON-RPC 2.0 answer")
    # An error that comes before the call was read cannot name it.
    if answer.id != call.id and (has_result or answer.id is not None):
        raise _unexpected(status, "the answer to another call")
    if isinstance(error, _Error):
        raise _gateway_error(error, status, retry_after, secrets)
    if not 200 <= status < 300:
        raise _unexpected(status, "a result all the same")
    try:
        return msgspec.json.decode(cast("Raw", answer.result), type=result_type)
    except NOT_JSON:
        raise _unexpected(status, f"another result than {call.method} has") from None


def tls_hint(url: str) -> str:
    """Return what to add where a connection ended without a reply."""
    return "; does it want https?" if url.startswith("http:") else ""


def too_long(status: int) -> UnexpectedReply:
    """Return the error for a reply that does not end."""
    return _unexpected(status, f"more than {MAX_REPLY} bytes")


def _unexpected(status: int, what: str) -> UnexpectedReply:
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    return UnexpectedReply(
        f"the reply is not a gateway's: HTTP status {status}, {what}{hint}", status=status
    )


def _gateway_error(
    error: _Error, status: int, retry_after: str | None, secrets: Iterable[str]
) -> GatewayError:
    data = error.data if isinstance(error.data, dict) else {}
    reason = _text(data.get("reason"), secrets)
    wait = _seconds(data.get("retry_after"))
    if wait is None and retry_after is not None and _SECONDS.fullmatch(retry_after):
        wait = _seconds(int(retry_after))
    return error_class(error.code, reason)(
        _text(error.message, secrets) or "no message",
        code=error.code,
        reason=reason,
        detail=_text(data.get("detail"), secrets),
        retry_after=wait,
        status=status,
    )


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Also false for what is no number, and for what no float can hold.
    return float(value) if 0 <= value <= _LONGEST_WAIT else None


def _text(value: object, secrets: Iterable[str]) -> str | None:
    """Make one short line of what the other side says."""
    if not isinstance(value, str) or not value:
        return None
    for secret in secrets:
        if secret:
            value = value.replace(secret, "…")
    value = "".join(char if char.isprintable() else " " for char in value)
    return value if len(value) <= _LONGEST_TEXT else value[: _LONGEST_TEXT - 1] + "…"
