"""A client of the gateway: one JSON-RPC call per HTTP request, and a strict eye on the reply.

It knows of the gateway what the wire reference says (sections 3 and 4) and no more.
"""

import itertools
from base64 import b64encode
from typing import Any, Final, NoReturn, Self
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import UNSET, UnsetType
from twisted.internet.defer import Deferred, succeed
from twisted.web.client import HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from odingw.errors import (
    HTTP_STATUS,
    INVALID_PARAMS,
    METHOD_NOT_ALLOWED,
    METHOD_NOT_FOUND,
    NOT_JSON,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    OdingwError,
)
from odingw.sim.clock import Clock
from odingw.sim.http import TRANSPORT_ERRORS, Body, Requester, new_agent, read_body

INTERNAL: Final = "internal"
"""The path of the server API, relative to the gateway's URL."""

CALL_TIMEOUT: Final = 30.0
"""Seconds after which a call is given up."""

_PROXY_STATUS: Final = frozenset({502, 503, 504})

_REQUIRED_HEADER: Final = {
    UNAUTHORIZED: b"www-authenticate",
    METHOD_NOT_ALLOWED: b"allow",
    TOO_MANY_REQUESTS: b"retry-after",
}

_CLIENT_API_HEADERS: Final = {
    b"access-control-allow-origin": b"*",
    b"access-control-allow-headers": b"Authorization,Content-Type",
    b"access-control-request-method": b"POST",
    b"cache-control": b"no-store",
}


class GatewayError(OdingwError):
    """The gateway answered a call with a JSON-RPC error.

    Attributes:
        code: the JSON-RPC code.
        message: for people.
        reason: ``data.reason`` of a domain error, else None.
        retry_after: ``data.retry_after`` in seconds, or None.
        status: the HTTP status.
    """

    def __init__(
        self,
        code: int,
        message: str,
        status: int,
        reason: str | None = None,
        retry_after: float | None = None,
        detail: str | None = None,
    ) -> None:
        text = f"{message} ({detail})" if detail else message
        super().__init__(f"{text} [{reason or code}, HTTP {status}]")
        self.code = code
        self.message = message
        self.status = status
        self.reason = reason
        self.retry_after = retry_after

    @property
    def permanent(self) -> bool:
        """Whether the same call cannot succeed until somebody changes something."""
        return self.code in (METHOD_NOT_FOUND, INVALID_PARAMS) or self.status in (
            401,
            403,
            404,
            405,
        )


class Unreachable(OdingwError):  # noqa: N818  -- what is the case, not what is wrong
    """No reply came: the gateway is not there, does not answer in time, or hung up."""


class Misbehaviour(OdingwError):  # noqa: N818  -- what the gateway is guilty of
    """The gateway broke the wire reference; the text says how."""


class _Error(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: dict[str, Any] | UnsetType = UNSET


class _Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    jsonrpc: str
    id: int | None
    result: Any = UNSET
    error: _Error | UnsetType = UNSET


_reply: Final = msgspec.json.Decoder(_Reply)


class Gateway:
    """The gateway as its clients and servers see it.

    Args:
        url: where it is: ``http(s)://[user:password@]host[:port]/[pool/]``.
        agent: makes the HTTP requests.
        clock: for time limits.
        username: of HTTP Basic authentication, for calls without a token; beats the URL's.
        password: likewise.
        timeout: seconds after which a call is given up.

    Raises:
        ValueError: the URL is none that a gateway can have.
    """

    def __init__(
        self,
        url: str,
        agent: Requester,
        clock: Clock,
        *,
        username: str | None = None,
        password: str | None = None,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("gateway URL: http://host:port/ or https://host:port/ expected")
        if username is None and parts.username is not None:
            username, password = unquote(parts.username), unquote(parts.password or "")
        netloc = parts.netloc.rpartition("@")[2]
        self.url: Final = f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}/"
        self._agent = agent
        self._pool: HTTPConnectionPool | None = None
        self._clock = clock
        self._timeout = timeout
        self._ids = itertools.count(1)
        self._basic = None
        if username is not None:
            self._basic = b"Basic " + b64encode(f"{username}:{password or ''}".encode())

    @classmethod
    def over(
        cls,
        reactor: Any,
        url: str,
        *,
        persistent: bool = True,
        username: str | None = None,
        password: str | None = None,
        timeout: float = CALL_TIMEOUT,
        verify: bool | str = True,
    ) -> Self:
        """Make a gateway that is reached over real connections of its own; ``close`` ends them.

        Args:
            reactor: a Twisted reactor.
            url: as above.
            persistent: keep connections and use them again; else every call gets a new one.
            username: as above.
            password: as above.
            timeout: as above.
            verify: how certificates are judged, as :func:`odingw.client.http.policy` takes it.
        """
        agent, pool = new_agent(reactor, persistent=persistent, timeout=timeout, verify=verify)
        gateway = cls(url, agent, reactor, username=username, password=password, timeout=timeout)
        gateway._pool = pool
        return gateway

    def __repr__(self) -> str:
        return f"Gateway({self.url!r})"

    def call(
        self, method: str, params: object, *, token: str | None = None, path: str = ""
    ) -> Deferred[Any]:
        """Call a method.

        Args:
            method: its name.
            params: anything that msgspec can write as JSON.
            token: a client token for ``Authorization: Bearer``; without it, Basic is used if there
                are a username and password.
            path: relative to the gateway's URL; ``INTERNAL`` for the server API.

        Returns:
            A Deferred with the result as plain Python values. It fails with ``GatewayError``,
            ``Unreachable`` or ``Misbehaviour``, and can be cancelled.
        """
        return Deferred.fromCoroutine(self._call(method, params, token, path))

    async def _call(self, method: str, params: object, token: str | None, path: str) -> Any:
        number = next(self._ids)
        body = msgspec.json.encode(
            {"jsonrpc": "2.0", "method": method, "params": params, "id": number}
        )
        headers = Headers({b"content-type": [b"application/json"]})
        if token is not None:
            headers.setRawHeaders(b"authorization", [b"Bearer " + token.encode()])
        elif self._basic is not None:
            headers.setRawHeaders(b"authorization", [self._basic])
        uri = (self.url + path).encode()
        exchange = Deferred.fromCoroutine(self._exchange(uri, headers, body))
        try:
            response, text = await exchange.addTimeout(
                self._timeout,
                self._clock,  # type: ignore[arg-type]  # an IReactorTime, see odingw.sim.clock
                _too_late,
            )
        except TRANSPORT_ERRORS as failure:
            raise Unreachable(_describe(failure)) from None
        return _result_of(response, text, number, path)

    async def _exchange(self, uri: bytes, headers: Headers, body: bytes) -> tuple[IResponse, bytes]:
        response = await self._agent.request(b"POST", uri, headers, Body(body))
        return response, await read_body(response)

    def close(self) -> Deferred[None]:
        """Close the connections that are kept; fires when they are closed."""
        if self._pool is None:
            return succeed(None)
        return Deferred.fromCoroutine(_close(self._pool))


async def _close(pool: HTTPConnectionPool) -> None:
    await pool.closeCachedConnections()


def _too_late(_outcome: object, seconds: float) -> NoReturn:
    raise Unreachable(f"no reply within {seconds:g} s")


def _describe(failure: Exception) -> str:
    """One line about a transport error."""
    reasons = getattr(failure, "reasons", None)
    cause = reasons[0].value if reasons else failure
    return f"{type(cause).__name__}: {cause}"


def _result_of(response: IResponse, text: bytes, number: int, path: str) -> Any:
    """Return the result in a reply.

    Raises:
        GatewayError: the reply is an error.
        Unreachable: a proxy answered in the gateway's place.
        Misbehaviour: the reply breaks the wire reference.
    """
    status = response.code
    try:
        reply = _reply.decode(text.decode())
    except NOT_JSON as wrong:
        if status in _PROXY_STATUS:
            raise Unreachable(f"HTTP {status} from something in front of the gateway") from None
        raise Misbehaviour(f"HTTP {status} without a JSON-RPC reply: {wrong}") from None
    if reply.jsonrpc != "2.0":
        raise Misbehaviour(f"jsonrpc is {reply.jsonrpc!r}")
    if (reply.result is UNSET) == (reply.error is UNSET):
        raise Misbehaviour("a reply must have either a result or an error")
    _check_headers(response.headers, path)
    if reply.error is UNSET:
        if reply.id != number:
            raise Misbehaviour(f"reply to call {reply.id}, not {number}")
        if status != 200:
            raise Misbehaviour(f"HTTP {status} with a result")
        return reply.result
    refusal = reply.error
    if reply.id not in (number, None):
        raise Misbehaviour(f"reply to call {reply.id}, not {number}: {refusal.message}")
    expected = HTTP_STATUS.get(refusal.code, 200)
    if status != expected:
        raise Misbehaviour(f"HTTP {status} with {refusal.code}, {expected} expected")
    required = _REQUIRED_HEADER.get(refusal.code)
    if required is not None and not response.headers.hasHeader(required):
        raise Misbehaviour(f"HTTP {status} without {required.decode()}")
    raise _error_of(refusal, status)


def _error_of(refusal: _Error, status: int) -> GatewayError:
    data = refusal.data or {}
    reason, detail, retry_after = (data.get(key) for key in ("reason", "detail", "retry_after"))
    for name, value in (("reason", reason), ("detail", detail)):
        if value is not None and not isinstance(value, str):
            raise Misbehaviour(f"error.data.{name} is not a string")
    if retry_after is not None and not isinstance(retry_after, int | float):
        raise Misbehaviour("error.data.retry_after is not a number")
    return GatewayError(refusal.code, refusal.message, status, reason, retry_after, detail)


def _check_headers(headers: Headers, path: str) -> None:
    """Check what every reply of an API must carry, and must not."""
    if not (headers.getRawHeaders(b"content-type") or [b""])[0].startswith(b"application/json"):
        raise Misbehaviour("Content-Type is not application/json")
    if path.rpartition("/")[2] == INTERNAL:
        if headers.hasHeader(b"access-control-allow-origin"):
            raise Misbehaviour("the server API lets web pages in (CORS)")
        return
    for name, value in _CLIENT_API_HEADERS.items():
        if headers.getRawHeaders(name) != [value]:
            raise Misbehaviour(f"header {name.decode()} of the client API is missing or wrong")
