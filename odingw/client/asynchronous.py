"""Clients for Twisted: every method returns a Deferred, which can be awaited and cancelled."""

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from http.cookiejar import DefaultCookiePolicy
from inspect import isawaitable
from typing import Any, Self, TypeAlias, TypeVar

from OpenSSL import SSL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from odingw.client.calls import (
    CLIENT_PATH,
    CONNECT,
    INFO,
    INTERNAL_PATH,
    TIMEOUT,
    Request,
    ban_client,
    close_room,
    disable,
    drain,
    find_token,
    send_message,
    update_room,
)
from odingw.client.errors import GatewayError, InsecureConnection, TransportError
from odingw.client.http import ReplyTooLong, policy, read_body
from odingw.client.retry import Retry
from odingw.client.tokens import AccessKeyTokens
from odingw.client.values import Connection, Info
from odingw.client.wire import (
    MAX_REPLY,
    Call,
    Target,
    basic,
    bearer,
    headers,
    make_call,
    read_reply,
    target,
    tls_hint,
    too_long,
)

T = TypeVar("T")

AsyncToken: TypeAlias = str | Callable[[], str | Awaitable[str]] | AccessKeyTokens
"""A token, a function that returns or awaits one for each request, or tokens from an access key."""

# The gateway closes an idle connection after 60 s; a request on its way just then would be lost.
_IDLE_CONNECTION = 45


class _AsyncClient(ABC):
    """What both clients have in common; see :class:`odingw.client.blocking._Client`."""

    def __init__(
        self,
        reactor: Any,
        where: Target,
        timeout: float,
        verify: bool | str,
        retry: Retry | None,
    ) -> None:
        self._reactor = reactor
        self._url = where.url
        self._timeout = timeout
        self._retry = retry
        self._pool = HTTPConnectionPool(reactor)
        self._pool.cachedConnectionTimeout = _IDLE_CONNECTION
        # A POST that may have been carried out must not be sent again unasked.
        self._pool.retryAutomatically = False
        agent: Any = Agent(reactor, policy(verify), connectTimeout=timeout, pool=self._pool)
        cookies = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._http = HTTPClient(agent, cookies)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r})"

    def close(self) -> Deferred[None]:
        """Close the connections that are kept open; fires when they are."""
        closing: Deferred[Any] = self._pool.closeCachedConnections()
        return closing.addCallback(lambda _: None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def call(self, method: str, params: Mapping[str, object] | None = None) -> Deferred[Any]:
        """Call any method.

        Args:
            method: its name.
            params: its params.

        Returns:
            The result, as JSON says it. It fails with a ``GatewayError``, or with ``ValueError``
            if the token source returned no token.
        """
        return self._typed(Request(method, dict(params or {}), object))

    @abstractmethod
    async def _authorization(self, method: str, params: dict[str, Any]) -> str | None:
        """Return the header ``Authorization`` of a call."""

    def _typed(self, request: Request[T]) -> Deferred[T]:
        """Begin a call; cancelled, it ends as such, whatever Twisted makes of that underneath."""
        cancelled: list[bool] = []

        def cancel(_: object) -> None:
            cancelled.append(True)
            work.cancel()

        def settle(result: Any) -> None:
            if not outer.called:
                outer.callback(result)

        outer: Deferred[T] = Deferred(cancel)
        work = Deferred.fromCoroutine(self._attempts(request, cancelled))
        work.addBoth(settle)
        return outer

    def _emptied(self, request: Request[Any]) -> Deferred[None]:
        return self._typed(request).addCallback(lambda _: None)

    async def _attempts(self, request: Request[T], cancelled: list[bool]) -> T:
        attempt = 1
        while True:
            answer = await self._attempt(request)
            if cancelled:
                raise CancelledError
            if not isinstance(answer, GatewayError):
                return answer
            wait = self._retry.wait(request.method, attempt, answer) if self._retry else None
            if wait is None:
                raise answer
            await deferLater(self._reactor, wait)
            attempt += 1

    async def _attempt(self, request: Request[T]) -> T | GatewayError:
        authorization = await self._authorization(request.method, request.params)
        call = make_call(request.method, request.params)
        exchange = Deferred.fromCoroutine(self._exchange(call, authorization))
        reply = await exchange.addTimeout(self._timeout, self._reactor, self._late)
        if isinstance(reply, GatewayError):
            return reply
        secrets = authorization.split(" ") if authorization else ()
        try:
            return read_reply(call, *reply, secrets[1:], request.result)
        except GatewayError as error:
            return error

    async def _exchange(
        self, call: Call, authorization: str | None
    ) -> tuple[int, str | None, bytes] | GatewayError:
        """Send a call; an error is returned, so that it does not drag that of Twisted along."""
        try:
            response: Any = await self._http.post(
                self._url,
                data=call.body,
                headers=Headers({name: [text] for name, text in headers(authorization).items()}),
                allow_redirects=False,
                unbuffered=True,
            )
            body = await read_body(response, MAX_REPLY)
        except ReplyTooLong:
            return too_long(response.code)
        except CancelledError:
            raise
        except Exception as error:
            if _is_tls(error):
                return InsecureConnection(f"no TLS with {self._url}: is its certificate trusted?")
            return TransportError(_trouble(self._url, error))
        waits = response.headers.getRawHeaders("retry-after", [None])
        return response.code, waits[0], body

    def _late(self, *_: object) -> TransportError:
        return TransportError(f"no whole reply from {self._url} within {self._timeout:g} s")


def _reasons(error: BaseException) -> list[BaseException]:
    """Return what is behind an error of Twisted's ``Agent``, and the error itself."""
    reasons = [failure.value for failure in getattr(error, "reasons", None) or ()]
    return [error, *(inner for reason in reasons for inner in _reasons(reason))]


def _is_tls(error: BaseException) -> bool:
    return any(isinstance(reason, SSL.Error) for reason in _reasons(error)) or any(
        type(reason).__module__.startswith("service_identity") for reason in _reasons(error)
    )


def _trouble(url: str, error: BaseException) -> str:
    """Say what kind of error it is; the texts of errors may repeat what was sent or received."""
    cause = _reasons(error)[-1]
    if isinstance(cause, DNSLookupError):
        return f"cannot reach {url}: its name is not known"
    if isinstance(cause, ConnectError) and isinstance(cause.osError, int):
        return f"cannot reach {url}: {os.strerror(cause.osError).lower()}"
    return f"no reply from {url}: {type(cause).__name__}{tls_hint(url)}"


class AsyncGatewayClient(_AsyncClient):
    """Calls the client API, in the name of a customer.

    Args:
        reactor: Twisted's.
        url: of the client API: the gateway's, or a pool's such as ``https://gateway/pool/``.
        token: a client token, or a function that returns or awaits one for each request, or
            :class:`odingw.client.AccessKeyTokens`.
        timeout: seconds that a call may take.
        verify: check the gateway's certificate: True, with what the system trusts; False, not at
            all; or the path of a file with the certificates to trust.
        retry: how often to try again; None: never.

    Raises:
        ValueError: the URL is not one, or has a user and password.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        token: AsyncToken,
        *,
        timeout: float = TIMEOUT,
        verify: bool | str = True,
        retry: Retry | None = None,
    ) -> None:
        where = target(url, CLIENT_PATH)
        if where.auth is not None:
            raise ValueError("url: the client API takes a token, no user and password")
        super().__init__(reactor, where, timeout, verify, retry)
        self._token = token

    async def _authorization(self, method: str, params: dict[str, Any]) -> str:
        token: Any = find_token(self._token, method, params)
        return bearer(await token if isawaitable(token) else token)

    def connect(self) -> Deferred[Connection]:
        """Ask which voice server the token's user is to join the token's room on."""
        return self._typed(CONNECT)

    def close_room(self, room: str, ban_time: float | None = None) -> Deferred[None]:
        """Close a room, and throw everybody out.

        Args:
            room: its name.
            ban_time: seconds for which nobody can join it; 0 ends that; None changes nothing.
        """
        return self._emptied(close_room(room, ban_time))

    def update_room(self, room: str, user_data: bytes) -> Deferred[None]:
        """Replace a room's user data."""
        return self._emptied(update_room(room, user_data))

    def ban_client(self, room: str, user: str, ban_time: float) -> Deferred[None]:
        """Throw a user out of a room, and keep them out.

        Args:
            room: its name.
            user: the user's id.
            ban_time: seconds for which they stay out; 0 lets them in again.
        """
        return self._emptied(ban_client(room, user, ban_time))

    def kick_client(self, room: str, user: str) -> Deferred[None]:
        """Throw a user out of a room, who may come back at once."""
        return self._emptied(ban_client(room, user, None))

    def send_message(self, room: str, user: str, message: bytes) -> Deferred[None]:
        """Send a message to a user in a room. It is never sent again by itself."""
        return self._emptied(send_message(room, user, message))


class AsyncInternalClient(_AsyncClient):
    """Calls the server API, as operators' tools do.

    Args:
        reactor: Twisted's.
        url: the gateway's, or the whole URL of the server API such as
            ``https://gateway/pool/internal``; may have a user and password.
        auth: user and password; they win over those of the URL.
        timeout: seconds that a call may take.
        verify: check the gateway's certificate: True, with what the system trusts; False, not at
            all; or the path of a file with the certificates to trust.
        retry: how often to try again; None: never.

    Raises:
        ValueError: the URL is not one.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        *,
        auth: tuple[str, str] | None = None,
        timeout: float = TIMEOUT,
        verify: bool | str = True,
        retry: Retry | None = None,
    ) -> None:
        where = target(url, INTERNAL_PATH)
        super().__init__(reactor, where, timeout, verify, retry)
        auth = auth or where.auth
        self._basic = basic(auth) if auth else None

    async def _authorization(self, method: str, params: dict[str, Any]) -> str | None:
        return self._basic

    def info(self) -> Deferred[Info]:
        """Return the pool's servers and rooms."""
        return self._typed(INFO)

    def drain(self, server: str) -> Deferred[None]:
        """Place no new rooms on a server, by its address; it keeps those that it has."""
        return self._emptied(drain(server, True))

    def undrain(self, server: str) -> Deferred[None]:
        """Place new rooms on a server again."""
        return self._emptied(drain(server, False))

    def disable(self, server: str) -> Deferred[None]:
        """Take a server for dead until it reports again; its rooms may move."""
        return self._emptied(disable(server))
