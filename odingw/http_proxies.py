"""HTTP proxies on the way out, as the environment names them."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit
from urllib.request import (  # type: ignore[attr-defined]  # typeshed lacks the second
    getproxies_environment,
    proxy_bypass_environment,
)

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.errors import FetchError
from odingw.hosts import is_ipv6, is_name

_LONGEST_HEAD: Final = 16384
"""Bytes of a proxy's answer to CONNECT."""

# Twisted does not say so itself.
_uri: Callable[[bytes], URI] = URI.fromBytes

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class HttpProxy(Struct, frozen=True):
    """A proxy that speaks HTTP.

    Attributes:
        host: name or address.
        port: TCP port.
        authorization: value of ``Proxy-Authorization``; empty: none is needed.
    """

    host: str
    port: int
    authorization: str = ""

    @property
    def name(self) -> str:
        """What the log calls it; no secrets."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, variable: str) -> Self:
        """Read ``[http://][user:password@]host[:port]``.

        Raises:
            FetchError: it is none; the text names the variable alone, as there may be a password.
        """
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        # A zone means something here: proxies are this host's own matter.
        known = is_ipv6(host.partition("%")[0]) or is_name(host)
        if not known or port == 0 or parts.scheme != "http":
            raise FetchError(f"{variable} names no proxy; write http://host:port")
        user = ""
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            user = f"Basic {b64encode(credentials.encode()).decode()}"
        return cls(host, port or 80, user)


class HttpProxies:
    """Which URLs are fetched through which proxy.

    Args:
        settings: proxies by scheme and, as ``no``, what is reached without one: ``*``, or names
            (with all that end in them), ``name:port``, addresses and networks between commas.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = dict(settings)
        self._networks = []
        for text in self._settings.get("no", "").split(","):
            try:
                self._networks.append(ip_network(text.strip().strip("[]"), strict=False))
            except ValueError:
                continue

    @classmethod
    def from_environment(cls) -> Self:
        """Read ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``; in small letters they win."""
        return cls(getproxies_environment())

    def problems(self, urls: Iterable[str]) -> tuple[str, ...]:
        """Say which of the proxies that URLs are to be fetched through are none."""
        found: dict[str, None] = {}
        for url in urls:
            try:
                self.find(_uri(url.encode()))
            except FetchError as error:
                found[f"{error}; until then nothing is fetched through it"] = None
        return tuple(found)

    def find(self, uri: URI) -> HttpProxy | None:
        """Return the proxy for a URL.

        Raises:
            FetchError: the environment names something else.
        """
        scheme, host = uri.scheme.decode("ascii"), uri.host.decode("ascii").strip("[]").lower()
        proxy = self._settings.get(scheme)
        if not proxy or proxy_bypass_environment(f"{host}:{uri.port}", self._settings):
            return None
        try:
            address = ip_address(host)
        except ValueError:
            pass
        else:
            if any(address in network for network in self._networks):
                return None
        return HttpProxy.parse(proxy, f"{scheme.upper()}_PROXY")


@implementer(IStreamClientEndpoint)
class Tunnel:
    """An endpoint behind a proxy, which CONNECT (RFC 9110, section 9.3.6) leads to.

    Args:
        endpoint: the proxy's.
        proxy: the proxy.
        host: where it leads: name or address.
        port: its port.
    """

    def __init__(self, endpoint: Any, proxy: HttpProxy, host: str, port: int) -> None:
        bare = host.strip("[]")
        target = f"{f'[{bare}]' if ':' in bare else bare}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        self._request = "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")
        self._endpoint = endpoint
        self._name = proxy.name

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect (``IStreamClientEndpoint``)."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: Any) -> Any:
        def make() -> Any:
            return _TunnelProtocol(self._request, self._name, factory)

        tunnels = Factory.forProtocol(make)
        tunnels.noisy = False
        connection = await self._endpoint.connect(tunnels)
        return await connection.established


class _TunnelProtocol(Protocol):
    """Asks a proxy for a tunnel, and then carries another protocol.

    Attributes:
        established: fires with that protocol.
    """

    def __init__(self, request: bytes, name: str, factory: Any) -> None:
        self._request = request
        self._name = name
        self._inner_factory = factory
        self._inner: Any = None
        self._head = b""
        self.established: Deferred[Any] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:  # noqa: N802  # Twisted's name
        """Ask."""
        transport: Any = self.transport
        transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # likewise
        """Take a piece of the proxy's answer, or of what it carries."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self.established.called:
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > _LONGEST_HEAD:
                self._fail("its answer is too long")
            return
        self._head = b""
        status = _STATUS.match(head + end)
        if status is None:
            self._fail("its answer is not HTTP")
        elif not status[1].startswith(b"2"):
            self._fail(f"HTTP status {status[1].decode()}")
        else:
            self._carry(rest)

    def _carry(self, rest: bytes) -> None:
        transport: Any = self.transport
        self._inner = self._inner_factory.buildProtocol(transport.getPeer())
        self._inner.makeConnection(transport)
        self.established.callback(self._inner)
        if rest:
            self._inner.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  # likewise
        """End."""
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.established.called:
            self.established.errback(FetchError(f"the proxy {self._name} closed the connection"))

    def _fail(self, cause: str) -> None:
        self._abort()
        self.established.errback(FetchError(f"the proxy {self._name}: {cause}"))

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
