"""Getting a document from an HTTP server that may be slow, broken or hostile.

Whatever it answers costs a bounded time and memory, and nothing that it sent gets into the text of
an error. ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` of the environment count.
"""

from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any, Final, Protocol
from urllib.parse import urljoin, urlsplit

from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web import client as web_client
from twisted.web.client import URI, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IResponse
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.errors import FetchError
from odingw.http_proxies import HttpProxies, HttpProxy, Tunnel

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LONGEST_CAUSE: Final = 200

# On top of the body come headers and what frames it; a connection given up may still say goodbye.
_MORE_BYTES: Final = 128 * 1024
_MORE_SECONDS: Final = 5.0

# The texts of other errors, of a parser's for one, may repeat what was received.
_TELLING: Final = (
    OSError,
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
    SSL.Error,
    VerificationError,
)

_web: Final[Any] = web_client
"""twisted.web has few types, and its interfaces, of zope, are none to a checker."""


class EncodedBodyError(FetchError):
    """A server sent an encoded body all the same."""


class Clock(Protocol):
    """What is needed of ``IReactorTime``, a zope interface, which is no type to a checker."""

    def seconds(self) -> float:
        """Return the time."""

    def callLater(  # noqa: N802  # Twisted's name
        self, delay: float, call: Callable[[], object], /
    ) -> Any:
        """Call after so many seconds."""


async def get(
    url: str,
    client: HTTPClient,
    *,
    accept: str,
    max_bytes: int,
    auth: tuple[str, str] | None = None,
    redirects: int = 0,
) -> bytes:
    """Get the body of a URL.

    Args:
        url: an http or https URL without user and password.
        client: as from ``http_client``.
        accept: media types, for the header.
        max_bytes: the longest body that is read.
        auth: user and password for HTTP Basic.
        redirects: how many are followed, on the same origin only, so that credentials go nowhere
            else; with 0 they are statuses like any other.

    Returns:
        The body of an answer with status 200. Cancelling closes the connection.

    Raises:
        FetchError: there is none.
    """
    origin = origin_of(url)
    try:
        for _ in range(redirects + 1):
            response = await client.get(
                url,
                auth=auth,
                headers=Headers({"Accept": [accept]}),
                allow_redirects=False,
                unbuffered=True,
            )
            if response.code == 200:
                body = _Body(max_bytes)
                response.deliverBody(body)
                return await body.received
            response.deliverBody(_Discard())
            if not redirects or response.code not in _REDIRECTS:
                raise FetchError(f"HTTP status {response.code}")
            url = _redirected(url, origin, response)
    except FetchError:
        raise
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, CancelledError | FetchError):
            raise cause from None
        raise FetchError(_text(cause)) from None
    raise FetchError("too many redirects")


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port (RFC 6454).

    Raises:
        ValueError: it is no URL.
    """
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, default if parts.port is None else parts.port


def without_user(url: str) -> str:
    """A URL without credentials, and without the fragment, which is not sent."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def _redirected(url: str, origin: tuple[str, str | None, int | None], response: IResponse) -> str:
    [location, *_] = response.headers.getRawHeaders("location") or [""]
    try:
        target = urljoin(url, str(location))
        if origin_of(target) == origin:
            return without_user(target)
    except ValueError:
        pass
    raise FetchError("it redirects to another server")


def http_client(
    reactor: Any,
    *,
    seconds: float,
    max_bytes: int,
    http_anywhere: bool,
    policy: Any = None,
    proxies: HttpProxies | None = None,
) -> HTTPClient:
    """Make a client that is safe with any server.

    It keeps no cookies, takes no compressed bodies, and its connections end after a number of
    bytes and seconds, whatever they carry.

    Args:
        reactor: connects.
        seconds: what a whole fetch may take; connections live a little longer.
        max_bytes: the longest body that is wanted.
        http_anywhere: whether http may leave this host; where not, it goes through no proxy.
        policy: which certificates are good, an ``IPolicyForHTTPS``; None: what the system trusts.
        proxies: None: those of the environment.
    """
    agent: Any = _PlainAgent(
        _Agent(
            reactor,
            _Connector(reactor, seconds, max_bytes),
            policy or _web.BrowserLikePolicyForHTTPS(),
            HttpProxies.from_environment() if proxies is None else proxies,
            http_anywhere=http_anywhere,
        )
    )
    cookies: Any = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return HTTPClient(agent, cookies)


class _Discard(TwistedProtocol):
    """Wants no body, and closes the connection."""

    def connectionMade(self) -> None:  # noqa: N802  # Twisted's name
        """Begin, and end."""
        transport: Any = self.transport
        transport.loseConnection()


class _Body(TwistedProtocol):
    """Collects a body that is not too long.

    Attributes:
        received: fires with the body; cancelling it closes the connection.
    """

    def __init__(self, max_bytes: int) -> None:
        self.received: Deferred[bytes] = Deferred(lambda _: self._close())
        self._max_bytes = max_bytes
        self._data = bytearray()

    def _close(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        """Take a piece."""
        if self.received.called:
            return
        self._data += data
        if len(self._data) > self._max_bytes:
            self._close()
            self.received.errback(FetchError(f"it is larger than {self._max_bytes} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  # likewise
        """Take the end."""
        if self.received.called:
            return
        # Without a length, a body that was cut off looks like a whole one; as JSON it does not.
        if isinstance(reason.value, ResponseDone | PotentialDataLoss):
            self.received.callback(bytes(self._data))
        else:
            self.received.errback(reason)


def _cause(error: BaseException) -> BaseException:
    """What went wrong with a request; a failed one wraps its reasons."""
    while reasons := getattr(error, "reasons", None):
        error = reasons[0].value
    return error


def _text(error: BaseException) -> str:
    name = type(error).__name__
    text = " ".join(str(error).split())
    if not text or not isinstance(error, _TELLING):
        return name
    text = f"{name}: {text}"
    return text if len(text) <= _LONGEST_CAUSE else f"{text[:_LONGEST_CAUSE]}…"


@implementer(IAgent)
class _PlainAgent:
    """An agent that accepts no encoded bodies.

    A compressed body is unpacked a received piece at a time, and what becomes of 64 KiB is up to
    the sender: 64 MiB, or, compressed twice, 64 GiB.
    """

    def __init__(self, agent: "_Agent") -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: object = None,  # noqa: N803  # IAgent's name
    ) -> Deferred[Any]:
        """Send a request that accepts no encoding (``IAgent``).

        Returns:
            The response. It fails with an ``EncodedBodyError`` if its body is encoded.
        """
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(_refuse_encoded)


def _refuse_encoded(response: Any) -> Any:
    encodings = response.headers.getRawHeaders("Content-Encoding", [])
    if all(encoding.strip().lower() == "identity" for encoding in encodings):
        return response
    response.deliverBody(_Discard())
    raise EncodedBodyError("the body is compressed, which was not asked for")


@implementer(IAgentEndpointFactory)
class _Agent:
    """Sends requests to servers, or over http to a proxy; and finds the way to servers."""

    def __init__(
        self,
        reactor: Any,
        connector: "_Connector",
        policy: Any,
        proxies: HttpProxies,
        *,
        http_anywhere: bool,
    ) -> None:
        self._reactor = reactor
        self._connector = connector
        self._policy = policy
        self._proxies = proxies
        self._http_anywhere = http_anywhere
        self._direct = _web.Agent.usingEndpointFactory(reactor, self)

    def request(
        self, method: bytes, uri: bytes, headers: Headers, producer: object
    ) -> Deferred[Any]:
        """Send a request."""
        agent = self._direct
        target = _web.URI.fromBytes(uri)
        if target.scheme == b"http" and self._http_anywhere:
            proxy = self._proxies.find(target)
            if proxy is not None:
                if proxy.authorization:
                    headers.setRawHeaders("Proxy-Authorization", [proxy.authorization])
                agent = _web.ProxyAgent(self._to_proxy(proxy), self._reactor)
        response: Deferred[Any] = agent.request(method, uri, headers, producer)
        return response

    def endpointForURI(self, uri: URI) -> Any:  # noqa: N802  # IAgentEndpointFactory's name
        """Return the endpoint for a URL; for https with TLS, through a proxy where there is one."""
        host = uri.host.decode("ascii")
        if uri.scheme != b"https":
            return self._connector.endpoint(host, uri.port, anywhere=self._http_anywhere)
        creator = self._policy.creatorForNetloc(uri.host, uri.port)
        proxy = self._proxies.find(uri)
        endpoint: Any = (
            self._connector.endpoint(host, uri.port)
            if proxy is None
            else Tunnel(self._to_proxy(proxy), proxy, host, uri.port)
        )
        return wrapClientTLS(creator, endpoint, self._reactor)

    def _to_proxy(self, proxy: HttpProxy) -> Any:
        return _ToProxy(self._connector.endpoint(proxy.host, proxy.port), proxy)


@implementer(IStreamClientEndpoint)
class _ToProxy:
    """An endpoint whose failures say that it is the proxy's."""

    def __init__(self, endpoint: Any, proxy: HttpProxy) -> None:
        self._endpoint = endpoint
        self._proxy = proxy

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect (``IStreamClientEndpoint``)."""
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        error = failure.value
        if not isinstance(error, _TELLING):
            return failure
        raise FetchError(f"the proxy {self._proxy.name}: {_text(error)}") from None


class _Connector:
    """Makes endpoints for bounded connections."""

    def __init__(self, reactor: Any, seconds: float, max_bytes: int) -> None:
        self.reactor = reactor
        self.connect_seconds = seconds
        self.seconds = seconds + _MORE_SECONDS
        self.max_bytes = max_bytes + _MORE_BYTES

    def endpoint(self, host: str, port: int, *, anywhere: bool = True) -> Any:
        """Return an endpoint; unless ``anywhere``, it leads to this host only."""
        found = HostnameEndpoint(self.reactor, host, port, timeout=self.connect_seconds)
        return _BoundedEndpoint(found, self, anywhere=anywhere)


@implementer(IStreamClientEndpoint)
class _BoundedEndpoint:
    def __init__(self, endpoint: Any, bounds: _Connector, *, anywhere: bool) -> None:
        self._endpoint = endpoint
        self._bounds = bounds
        self._anywhere = anywhere

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect (``IStreamClientEndpoint``)."""
        bounded = _BoundedFactory(factory, self._bounds, self._anywhere)
        connecting: Deferred[Any] = self._endpoint.connect(bounded)
        return connecting.addCallback(lambda connection: connection.wrappedProtocol)


class _Bounded(ProtocolWrapper):
    """A connection that receives so many bytes, and lives so long, at most."""

    factory: "_BoundedFactory"

    def makeConnection(self, transport: Any) -> None:  # noqa: N802  # Twisted's name
        """Begin."""
        bounds = self.factory.bounds
        self._left = bounds.max_bytes
        self._end = bounds.reactor.callLater(bounds.seconds, transport.abortConnection)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]  # ProtocolWrapper has few types

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # likewise
        """Take a piece."""
        self._left -= len(data)
        if self._left >= 0:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # ProtocolWrapper has few types
        else:
            transport: Any = self.transport
            transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  # likewise
        """End."""
        if self._end.active():
            self._end.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # ProtocolWrapper has few types


class _BoundedFactory(WrappingFactory[_Bounded]):
    protocol = _Bounded

    def __init__(self, factory: Any, bounds: _Connector, anywhere: bool) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]  # ProtocolWrapper has few types
        self.bounds = bounds
        self._anywhere = anywhere

    def buildProtocol(self, addr: Any) -> _Bounded:  # noqa: N802  # Twisted's name
        """Begin, if the server may be at that address: names say little about it."""
        if not self._anywhere and not ip_address(addr.host).is_loopback:
            raise FetchError("keys that come over http can be forged, unless from this host")
        return super().buildProtocol(addr)
