"""Fetching a JWK set from a server that may be slow, broken or hostile.

Whatever it answers costs a bounded time and memory, and nothing that it sent gets into the text of
an error.
"""

from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any, Final, Protocol

from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionLost, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web import client as web_client
from twisted.web.client import URI, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.errors import OdingwError
from odingw.plain_agent import Discard, EncodedBodyError, PlainAgent

TIMEOUT: Final = 10.0
"""Seconds that a whole fetch may take."""

MAX_BYTES: Final = 1024 * 1024
"""The longest body that is read."""

# On top of the body come headers and what frames it; a connection given up may still say goodbye.
_CONNECTION_BYTES: Final = MAX_BYTES + 128 * 1024
_CONNECTION_SECONDS: Final = TIMEOUT + 5.0
_LONGEST_CAUSE: Final = 200

# The texts of other errors, of a parser's for one, may repeat what was received.
_TELLING: Final = (
    OSError,
    ConnectError,
    ConnectionLost,
    DNSLookupError,
    SSL.Error,
    VerificationError,
)

_web: Final[Any] = web_client
"""twisted.web has few types, and its interfaces, of zope, are none to a checker."""


class FetchError(OdingwError):
    """A JWK set could not be had; the text is one line without secrets."""


class Clock(Protocol):
    """What is needed of ``IReactorTime``, a zope interface, which is no type to a checker."""

    def seconds(self) -> float:
        """Return the time."""

    def callLater(  # noqa: N802  # Twisted's name
        self, delay: float, call: Callable[[], object], /
    ) -> Any:
        """Call after so many seconds."""


def fetch(url: str, client: HTTPClient, clock: Clock) -> Deferred[bytes]:
    """Get the body of a URL.

    Redirects are not followed: a key's origin is the URL that the operator wrote.

    Args:
        url: an http or https URL.
        client: as from ``jwk_client``.
        clock: for the time limit.

    Returns:
        The body. It fails with a ``FetchError``; cancelling it closes the connection.
    """

    def too_late(*_: object) -> bytes:
        raise FetchError(f"no whole answer within {TIMEOUT:g} s")

    return Deferred.fromCoroutine(_get(url, client)).addTimeout(
        TIMEOUT,
        clock,  # type: ignore[arg-type]  # an IReactorTime in all but name
        too_late,
    )


async def _get(url: str, client: HTTPClient) -> bytes:
    try:
        response = await client.get(
            url,
            headers=Headers({"Accept": ["application/jwk-set+json, application/json"]}),
            allow_redirects=False,
            unbuffered=True,
        )
        if response.code != 200:
            response.deliverBody(Discard())
            raise FetchError(f"HTTP status {response.code}")
        body = _Body()
        response.deliverBody(body)
        return await body.received
    except FetchError:
        raise
    except EncodedBodyError as error:
        raise FetchError(str(error)) from None
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, CancelledError):
            raise cause from None
        raise FetchError(_text(cause)) from None


class _Body(TwistedProtocol):
    """Collects a body that is not too long.

    Attributes:
        received: fires with the body; cancelling it closes the connection.
    """

    def __init__(self) -> None:
        self.received: Deferred[bytes] = Deferred(lambda _: self._close())
        self._data = bytearray()

    def _close(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        """Take a piece."""
        if self.received.called:
            return
        self._data += data
        if len(self._data) > MAX_BYTES:
            self._close()
            self.received.errback(FetchError(f"it is larger than {MAX_BYTES} bytes"))

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
    if not isinstance(error, _TELLING):
        return name
    return f"{name}: {' '.join(str(error).split())}"[:_LONGEST_CAUSE]


def jwk_client(reactor: Any, policy: Any = None) -> HTTPClient:
    """Make a client that is safe with any server.

    It keeps no cookies, takes no compressed bodies, and its connections end after a number of
    bytes and seconds, whatever they carry.

    Args:
        reactor: connects.
        policy: which certificates are good, an ``IPolicyForHTTPS``; None: what the system trusts.
    """
    endpoints = _Endpoints(reactor, policy or _web.BrowserLikePolicyForHTTPS())
    agent: Any = PlainAgent(_web.Agent.usingEndpointFactory(reactor, endpoints))
    cookies: Any = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return HTTPClient(agent, cookies)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Endpoints for bounded connections: with TLS for https, and to this host only for http."""

    def __init__(self, reactor: Any, policy: Any) -> None:
        self._reactor = reactor
        self._policy = policy

    def endpointForURI(self, uri: URI) -> Any:  # noqa: N802  # IAgentEndpointFactory's name
        """Return the endpoint for a URL."""
        host = HostnameEndpoint(self._reactor, uri.host.decode("ascii"), uri.port, timeout=TIMEOUT)
        secure = uri.scheme == b"https"
        endpoint: Any = _BoundedEndpoint(host, self._reactor, anywhere=secure)
        if not secure:
            return endpoint
        creator = self._policy.creatorForNetloc(uri.host, uri.port)
        return wrapClientTLS(creator, endpoint, self._reactor)


@implementer(IStreamClientEndpoint)
class _BoundedEndpoint:
    def __init__(self, endpoint: Any, clock: Clock, *, anywhere: bool) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._anywhere = anywhere

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect (``IStreamClientEndpoint``)."""
        bounded = _BoundedFactory(factory, self._clock, self._anywhere)
        connecting: Deferred[Any] = self._endpoint.connect(bounded)
        return connecting.addCallback(lambda connection: connection.wrappedProtocol)


class _Bounded(ProtocolWrapper):
    """A connection that receives so many bytes, and lives so long, at most."""

    factory: "_BoundedFactory"
    _left = _CONNECTION_BYTES

    def makeConnection(self, transport: Any) -> None:  # noqa: N802  # Twisted's name
        """Begin."""
        self._end = self.factory.clock.callLater(_CONNECTION_SECONDS, transport.abortConnection)
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

    def __init__(self, factory: Any, clock: Clock, anywhere: bool) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]  # ProtocolWrapper has few types
        self.clock = clock
        self._anywhere = anywhere

    def buildProtocol(self, addr: Any) -> _Bounded:  # noqa: N802  # Twisted's name
        """Begin, if the server may be at that address: names say little about it."""
        if not self._anywhere and not ip_address(addr.host).is_loopback:
            raise FetchError("keys that come over http can be forged, unless from this host")
        return super().buildProtocol(addr)
