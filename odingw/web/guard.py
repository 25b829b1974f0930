"""Who may use the paths that hand out keys and change state: ``/internal`` and admin."""

import hmac
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final

from twisted.web.http import Request

from odingw.config import InternalUser, Network, Trusted
from odingw.errors import FORBIDDEN, UNAUTHORIZED, RpcError
from odingw.web.address import client_address, is_trusted, socket_peer, within
from odingw.web.attempts import Attempts
from odingw.web.host import Host, parse_host

_PROXY_TRACES: Final = frozenset(
    (
        # Proxies and content delivery networks.
        *(b"forwarded", b"via", b"cdn-loop", b"client-ip", b"x-real-ip", b"x-client-ip"),
        *(b"x-cluster-client-ip", b"true-client-ip", b"fastly-client-ip", b"fly-client-ip"),
        *(
            b"proxy-client-ip",
            b"proxy-connection",
            b"wl-proxy-client-ip",
            b"x-original-for",
            b"x-original-host",
        ),
        # Browsers, and who would change the protocol behind a proxy's back (RFC 7540, 3.2).
        *(b"origin", b"upgrade", b"http2-settings"),
    )
)
"""What ODIN servers do not send, in small letters."""

_TRACES_BEGIN: Final = (
    *(b"x-forwarded", b"x-original-forwarded", b"x-envoy-", b"x-amzn-", b"x-azure-"),
    *(b"cf-", b"sec-fetch-", b"sec-ch-"),
)

_DIRECT: Final = (b"HTTP/1.1", Request.clientproto)
"""What ODIN servers speak, and what a request says whose headers alone are known.

nginx before 1.29.7 spoke HTTP/1.0 to what is behind it; from then on, like others, HTTP/1.1.
"""

HOW_TO_OPEN: Final = "set gateway.internal.users"


def _header(request: Request, name: bytes) -> str | None:
    values = request.requestHeaders.getRawHeaders(name)
    return values[0].decode("latin-1") if values else None


def _host(request: Request) -> Host | None:
    return parse_host((_header(request, b"host") or "").encode("latin-1"))


def is_foreign(request: Request) -> bool:
    """Tell whether a browser sent the request from a page of another origin."""
    origin = _header(request, b"origin")
    if origin is None:
        return False
    authority = origin.partition("://")[2]
    return not authority or parse_host(authority.encode("latin-1")) != _host(request)


def shows_proxy(request: Request, trusted: Sequence[Trusted]) -> bool:
    """Tell whether a request shows that it came through something; it need not show that."""
    if request.clientproto not in _DIRECT or is_trusted(socket_peer(request), trusted):
        return True
    names = (name.lower() for name, _ in request.requestHeaders.getAllRawHeaders())
    return any(name in _PROXY_TRACES or name.startswith(_TRACES_BEGIN) for name in names)


def is_local_name(request: Request, names: Iterable[str] = ()) -> bool:
    """Tell whether the request names the gateway by an IP address, ``localhost`` or one of names.

    A page whose name was rebound to this address would give that name.

    Args:
        request: the request.
        names: further names, and patterns of them, in lower case.
    """
    host = _host(request)
    if host is None:
        return False
    name = host.name.removesuffix(".")
    if not host.name or name == "localhost" or host.address is not None:
        return True
    return any(fnmatchcase(name, pattern) for pattern in names)


class BasicUsers:
    """Users with passwords, checked in constant time.

    Args:
        passwords: by user name.
        realm: named in the challenge.
        attempts: takes note of wrong credentials; None: nobody does.
    """

    def __init__(
        self, passwords: Mapping[str, str], realm: str, attempts: Attempts | None = None
    ) -> None:
        self._realm = realm
        self._attempts = attempts
        self._digests = [
            (name, sha256(f"{name}:{password}".encode()).digest())
            for name, password in passwords.items()
        ]
        self._challenge = {"WWW-Authenticate": f'Basic realm="{realm}", charset="UTF-8"'}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._digests)

    def check(self, request: Request) -> str:
        """Return the name of the user whose credentials the request carries.

        Raises:
            RpcError: they are missing or wrong (401), or too many were wrong (429).
        """
        scheme, _, text = (_header(request, b"authorization") or "").partition(" ")
        if scheme.lower() != "basic":
            raise self._refuse("invalid or missing authorization")
        if self._attempts is not None:
            self._attempts.check(request)
        try:
            given = sha256(b64decode(text.strip(), validate=True)).digest()
        except ValueError:
            raise self._wrong(request) from None
        found = None
        for name, digest in self._digests:
            if hmac.compare_digest(given, digest):
                found = name
        if found is None:
            raise self._wrong(request)
        return found

    def _wrong(self, request: Request) -> RpcError:
        if self._attempts is not None:
            self._attempts.failed(request, self._realm)
        return self._refuse("invalid credentials")

    def _refuse(self, message: str) -> RpcError:
        return RpcError(UNAUTHORIZED, message, headers=self._challenge)


class InternalGuard:
    """Decides who may call the server API, which hands out private keys.

    Args:
        users: by name; if there are any, callers need the credentials of one.
        allow: networks that callers must be in.
        trusted: proxies that are believed about addresses.
        on_refused: told what to configure, when a caller was turned away for its address or way.
        attempts: takes note of wrong credentials; None: nobody does.
        unix: whether peers on unix sockets, which have no address, need no users.
    """

    def __init__(
        self,
        users: Mapping[str, InternalUser],
        allow: Sequence[Network],
        trusted: Sequence[Trusted],
        on_refused: Callable[[str], None],
        attempts: Attempts | None = None,
        *,
        unix: bool = True,
    ) -> None:
        self._users = users
        self._unix = unix
        passwords = {name: user.password for name, user in users.items()}
        self._basic = BasicUsers(passwords, "internal", attempts)
        self._allow = allow
        self._trusted = trusted
        self._on_refused = on_refused

    def check(self, request: Request, *, proxied: bool) -> Sequence[str] | None:
        """Let a caller in, or not.

        Args:
            request: the request.
            proxied: whether its connection came through a PROXY line.

        Returns:
            Address patterns of the servers that the caller may speak for; None: any.

        Raises:
            RpcError: the caller may not (401, 403, 429).
        """
        if self._users:
            address = client_address(request, self._trusted)
            if is_foreign(request):
                raise self._refuse("requests from web pages are not accepted")
        else:
            address = socket_peer(request)
            if proxied or shows_proxy(request, self._trusted):
                proxy = ""
                if within(address, self._trusted):
                    proxy = f"{address} is in listen.trusted_proxies; "
                raise self._refuse(
                    f"{proxy}without users, requests from browsers and through proxies are not "
                    f"accepted; {HOW_TO_OPEN}"
                )
        if address is None:
            if not self._users and not self._unix:
                raise self._refuse(
                    f"no unix socket counts as in gateway.internal.allow; {HOW_TO_OPEN}"
                )
        elif not within(address, self._allow):
            raise self._refuse(f"{address} is not in gateway.internal.allow; add its network there")
        if not self._users:
            if not is_local_name(request):
                raise self._refuse(
                    f"without users, Host must be an IP address or localhost; {HOW_TO_OPEN}"
                )
            return None
        return self._users[self._basic.check(request)].servers or None

    def _refuse(self, message: str) -> RpcError:
        self._on_refused(message)
        return RpcError(FORBIDDEN, message)
