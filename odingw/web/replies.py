"""HTTP headers and bodies of replies, in the one place that knows them all."""

import time
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from twisted.web.http import datetimeToString

from odingw.errors import RpcError
from odingw.rpc.jsonrpc import Reply, error_reply

if TYPE_CHECKING:
    from odingw.web.request import GatewayRequest

CORS: Final[dict[str, str]] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Authorization,Content-Type",
    "Access-Control-Allow-Methods": "POST, OPTIONS",
    # A request header in truth; the existing gateway sends it, so it stays.
    "Access-Control-Request-Method": "POST",
}
"""What lets browsers call from any origin. The tokens decide, not the origin."""

_COMMON: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_JSON: Final = "application/json"
_CLOSE: Final = b"Connection: close\r\n"

_PUBLIC_RAW: Final = [(name.encode(), [value.encode()]) for name, value in (CORS | _COMMON).items()]
_INTERNAL_RAW: Final = [(name.encode(), [value.encode()]) for name, value in _COMMON.items()]
_JSON_RAW: Final = [_JSON.encode()]


def prepare(request: "GatewayRequest", reply: Reply, *, internal: bool) -> bytes:
    """Set a reply's status and headers, and return its body.

    Args:
        request: the request.
        reply: what to say.
        internal: whether the path is one that browsers have no business with.
    """
    request.setResponseCode(reply.status)
    if request.site.closing:
        request.setHeader(b"connection", b"close")
    headers = request.responseHeaders
    headers.removeHeader(b"server")
    for raw_name, raw_values in _INTERNAL_RAW if internal else _PUBLIC_RAW:
        headers.setRawHeaders(raw_name, raw_values)
    for name, value in reply.headers.items():
        headers.setRawHeaders(name.encode(), [value.encode()])
    if reply.body is None:
        if reply.status != HTTPStatus.NO_CONTENT:
            headers.setRawHeaders(b"content-length", [b"0"])
        return b""
    headers.setRawHeaders(b"content-type", _JSON_RAW)
    headers.setRawHeaders(b"content-length", [b"%d" % len(reply.body)])
    return reply.body


def whole(reply: Reply, *, internal: bool, close: bool, head: bool = False) -> bytes:
    """Return a whole HTTP/1.1 reply, for requests that need nothing of Twisted's ``Request``.

    Args:
        reply: what to say.
        internal: whether the path is one that browsers have no business with.
        close: whether the connection ends with this reply.
        head: whether the request is a HEAD, whose reply says what the body would be and has none.
    """
    body = reply.body
    lines = _head(reply.status, internal, int(time.time()), tuple(reply.headers.items()))
    if close:
        lines += _CLOSE
    if body is not None:
        return b"%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            lines,
            len(body),
            b"" if head else body,
        )
    if reply.status == HTTPStatus.NO_CONTENT:
        return lines + b"\r\n"
    return lines + b"Content-Length: 0\r\n\r\n"


@lru_cache(maxsize=32)
def _head(status: int, internal: bool, second: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return the lines with which all replies of one kind begin in a second."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [
        f"{name}: {value}" for name, value in (_COMMON if internal else CORS | _COMMON).items()
    ]
    lines.append(f"Date: {datetimeToString(second).decode()}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "".join(f"{line}\r\n" for line in lines).encode()


def raw_error(error: RpcError, *, internal: bool, head: bool) -> bytes:
    """Return a whole HTTP reply for an error that comes before the request is complete."""
    return whole(error_reply(error), internal=internal, close=True, head=head)
