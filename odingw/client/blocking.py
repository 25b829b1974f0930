"""Clients that block: for scripts, threads, and frameworks such as Django."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from socket import gaierror
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

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

Token: TypeAlias = str | Callable[[], str] | AccessKeyTokens
"""A token, a function that returns one for each request, or tokens from an access key."""

_CHUNK: Final = 65536
_BROKEN: Final = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
_DEEPEST: Final = 8


class _NoNetrc(AuthBase):
    """Leaves a request as it is: without any, requests would put in what ``~/.netrc`` says."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Client(ABC):
    """What both clients have in common. One client may be used by several threads.

    Args:
        where: where calls go.
        timeout: seconds that a call may take.
        verify: check the gateway's certificate: True, with what the system trusts; False, not at
            all; or the path of a file with the certificates to trust.
        retry: how often to try again; None: never.
    """

    def __init__(
        self, where: Target, timeout: float, verify: bool | str, retry: Retry | None
    ) -> None:
        if isinstance(verify, str) and not Path(verify).exists():
            raise ValueError("verify: there is no such file")
        self._url = where.url
        self._timeout = timeout
        self._verify = verify
        self._retry = retry
        self._session = requests.Session()
        self._session.auth = _NoNetrc()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._session.close()

    def call(self, method: str, params: Mapping[str, object] | None = None) -> Any:
        """Call any method.

        Args:
            method: its name.
            params: its params.

        Returns:
            The result, as JSON says it.

        Raises:
            GatewayError: there is no result.
            ValueError: the token source returned no token.
        """
        return self._typed(Request(method, dict(params or {}), object))

    @abstractmethod
    def _authorization(self, method: str, params: dict[str, Any]) -> str | None:
        """Return the header ``Authorization`` of a call."""

    def _typed(self, request: Request[T]) -> T:
        attempt = 1
        while True:
            error = self._attempt(request)
            if not isinstance(error, GatewayError):
                return error
            wait = self._retry.wait(request.method, attempt, error) if self._retry else None
            if wait is None:
                raise error
            time.sleep(wait)
            attempt += 1

    def _attempt(self, request: Request[T]) -> T | GatewayError:
        authorization = self._authorization(request.method, request.params)
        call = make_call(request.method, request.params)
        reply = self._exchange(call, authorization)
        if isinstance(reply, GatewayError):
            return reply
        secrets = authorization.split(" ") if authorization else ()
        try:
            return read_reply(call, *reply, secrets[1:], request.result)
        except GatewayError as error:
            return error

    def _exchange(
        self, call: Call, authorization: str | None
    ) -> tuple[int, str | None, bytes] | GatewayError:
        """Send a call; an error is returned, so that it does not drag requests' own along.

        That one holds the request, and so the token.
        """
        end = time.monotonic() + self._timeout
        try:
            with self._session.post(
                self._url,
                data=call.body,
                headers=headers(authorization),
                timeout=self._timeout,
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = bytearray()
                while chunk := response.raw.read1(_CHUNK):
                    body += chunk
                    if len(body) > MAX_REPLY:
                        return too_long(response.status_code)
                    if time.monotonic() > end:
                        return self._late()
                return response.status_code, response.headers.get("Retry-After"), bytes(body)
        except requests.exceptions.SSLError:
            return InsecureConnection(f"no TLS with {self._url}: is its certificate trusted?")
        except (requests.Timeout, TimeoutError):
            return self._late()
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # ValueError: what some malformed replies lead to.
            return TransportError(_trouble(self._url, error))

    def _late(self) -> TransportError:
        return TransportError(f"no whole reply from {self._url} within {self._timeout:g} s")


def _trouble(url: str, error: BaseException) -> str:
    """Say what kind of error it is; the texts of errors may repeat what was sent or received."""
    names: list[str] = []
    cause: object = error
    while isinstance(cause, BaseException) and len(names) < _DEEPEST:
        if isinstance(cause, gaierror):
            return f"cannot reach {url}: its name is not known"
        if isinstance(cause, OSError) and cause.errno:
            what = "no reply from" if isinstance(cause, _BROKEN) else "cannot reach"
            hint = tls_hint(url) if isinstance(cause, _BROKEN) else ""
            return f"{what} {url}: {os.strerror(cause.errno).lower()}{hint}"
        names.append(type(cause).__name__)
        inner = (cause.__cause__, getattr(cause, "reason", None), *cause.args)
        cause = next((part for part in inner if isinstance(part, BaseException)), None)
    return f"no reply from {url}: {names[-1]}{tls_hint(url)}"


class GatewayClient(_Client):
    """Calls the client API, in the name of a customer.

    Args:
        url: of the client API: the gateway's, or a pool's such as ``https://gateway/pool/``.
        token: a client token, or a function that returns one for each request, or
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
        url: str,
        token: Token,
        *,
        timeout: float = TIMEOUT,
        verify: bool | str = True,
        retry: Retry | None = None,
    ) -> None:
        where = target(url, CLIENT_PATH)
        if where.auth is not None:
            raise ValueError("url: the client API takes a token, no user and password")
        super().__init__(where, timeout, verify, retry)
        self._token = token

    def _authorization(self, method: str, params: dict[str, Any]) -> str:
        return bearer(find_token(self._token, method, params))

    def connect(self) -> Connection:
        """Ask which voice server the token's user is to join the token's room on.

        Raises:
            GatewayError: :class:`PeerLimitExceeded`, :class:`NoServer`, :class:`UserBanned`, …
        """
        return self._typed(CONNECT)

    def close_room(self, room: str, ban_time: float | None = None) -> None:
        """Close a room, and throw everybody out.

        Args:
            room: its name.
            ban_time: seconds for which nobody can join it; 0 ends that; None changes nothing.

        Raises:
            GatewayError: :class:`RoomNotFound`, :class:`RoomMismatch`, …
        """
        self._typed(close_room(room, ban_time))

    def update_room(self, room: str, user_data: bytes) -> None:
        """Replace a room's user data.

        Raises:
            GatewayError: :class:`RoomNotFound`, :class:`RoomMismatch`, …
        """
        self._typed(update_room(room, user_data))

    def ban_client(self, room: str, user: str, ban_time: float) -> None:
        """Throw a user out of a room, and keep them out.

        Args:
            room: its name.
            user: the user's id.
            ban_time: seconds for which they stay out; 0 lets them in again.

        Raises:
            GatewayError: :class:`RoomNotFound`, :class:`RoomMismatch`, …
        """
        self._typed(ban_client(room, user, ban_time))

    def kick_client(self, room: str, user: str) -> None:
        """Throw a user out of a room, who may come back at once.

        Raises:
            GatewayError: :class:`RoomNotFound`, :class:`RoomMismatch`, …
        """
        self._typed(ban_client(room, user, None))

    def send_message(self, room: str, user: str, message: bytes) -> None:
        """Send a message to a user in a room. It is never sent again by itself.

        Raises:
            GatewayError: :class:`RoomNotFound`, :class:`RoomMismatch`, …
        """
        self._typed(send_message(room, user, message))


class InternalClient(_Client):
    """Calls the server API, as operators' tools do.

    Args:
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
        url: str,
        *,
        auth: tuple[str, str] | None = None,
        timeout: float = TIMEOUT,
        verify: bool | str = True,
        retry: Retry | None = None,
    ) -> None:
        where = target(url, INTERNAL_PATH)
        super().__init__(where, timeout, verify, retry)
        auth = auth or where.auth
        self._basic = basic(auth) if auth else None

    def _authorization(self, method: str, params: dict[str, Any]) -> str | None:
        return self._basic

    def info(self) -> Info:
        """Return the pool's servers and rooms.

        Raises:
            GatewayError: there is no result.
        """
        return self._typed(INFO)

    def drain(self, server: str) -> None:
        """Place no new rooms on a server, by its address; it keeps those that it has.

        Raises:
            GatewayError: :class:`ServerNotFound`, …
        """
        self._typed(drain(server, True))

    def undrain(self, server: str) -> None:
        """Place new rooms on a server again.

        Raises:
            GatewayError: :class:`ServerNotFound`, …
        """
        self._typed(drain(server, False))

    def disable(self, server: str) -> None:
        """Take a server for dead until it reports again; its rooms may move.

        Raises:
            GatewayError: :class:`ServerNotFound`, …
        """
        self._typed(disable(server))
