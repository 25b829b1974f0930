"""What the simulation needs of HTTP beyond Twisted's ``Agent``, with types."""

from typing import Any, Final, Protocol

from twisted.internet import error, protocol
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.python.failure import Failure
from twisted.web.client import (  # type: ignore[attr-defined]  # it does not list RequestNotSent
    URI,
    Agent,
    HTTPConnectionPool,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.client.http import policy

# Kept shorter than the gateway keeps an idle connection (60 s), so that it never hangs up on a
# request that is just being sent.
_IDLE_CONNECTION: Final = 45

_CONNECTIONS: Final = 1000

TRANSPORT_ERRORS: Final[tuple[type[Exception], ...]] = (
    error.ConnectError,
    error.ConnectingCancelledError,
    error.ConnectionClosed,
    error.DNSLookupError,
    PotentialDataLoss,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
)
"""What Twisted's ``Agent`` and ``read_body`` fail with when there is no whole reply."""


class Requester(Protocol):
    """What makes HTTP requests: Twisted's ``Agent``, or anything else that is an ``IAgent``."""

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: Any = None,  # noqa: N803  -- Twisted's name
    ) -> Deferred[IResponse]:
        """Make a request; fires when the head of the response has come."""


@implementer(IBodyProducer)
class Body:
    """A request's body, which is written in one piece: an ``IBodyProducer``.

    Args:
        body: the bytes.

    Attributes:
        length: their number.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:  # noqa: N802  -- Twisted's name
        """Write it."""
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:  # noqa: N802  -- Twisted's name
        """Nothing is left to pause."""

    def resumeProducing(self) -> None:  # noqa: N802  -- Twisted's name
        """Nothing is left to resume."""

    def stopProducing(self) -> None:  # noqa: N802  -- Twisted's name
        """Nothing is left to stop."""


class _BodyReader(protocol.Protocol):
    """Collects the body of a response."""

    def __init__(self) -> None:
        self.body = Deferred[bytes](self._hang_up)
        self._parts: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  -- Twisted's name
        self._parts.append(data)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:  # noqa: N802  -- likewise
        if self.body.called:
            return
        if isinstance(reason.value, ResponseDone):
            self.body.callback(b"".join(self._parts))
        else:
            self.body.errback(reason)

    def _hang_up(self, _body: Deferred[bytes]) -> None:
        # An ITransport, but for a response that is over by now.
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()


def read_body(response: Any) -> Deferred[bytes]:
    """Read the body of an ``IResponse``; cancelled, hang up.

    Twisted's ``readBody`` warns of the very transport that Twisted's ``Agent`` gives it.
    """
    reader = _BodyReader()
    response.deliverBody(reader)
    return reader.body


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """How to connect: as Twisted's ``Agent`` does, but straight on to an IP address.

    ``Agent`` has a thread resolve each address anew, which costs more than all the rest and
    would show in the latencies.
    """

    def __init__(self, reactor: Any, timeout: float, verify: bool | str) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._policy = policy(verify)

    def endpointForURI(self, uri: URI) -> Any:  # noqa: N802  -- Twisted's name
        host = uri.host.decode("ascii")
        if isIPAddress(host):
            kind: Any = TCP4ClientEndpoint
        else:
            kind = TCP6ClientEndpoint if isIPv6Address(host) else HostnameEndpoint
        endpoint = kind(self._reactor, host, uri.port, timeout=self._timeout)
        if uri.scheme == b"https":
            return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return endpoint


def new_agent(
    reactor: Any, *, persistent: bool, timeout: float, verify: bool | str
) -> tuple[Requester, HTTPConnectionPool]:
    """Return an agent for one host, and its pool, which is to be closed in the end.

    Args:
        reactor: a Twisted reactor.
        persistent: keep connections and use them again; else every request gets a new one.
        timeout: seconds in which a connection must be made.
        verify: how certificates are judged, as :func:`odingw.client.http.policy` takes it.
    """
    pool = HTTPConnectionPool(reactor, persistent)
    pool.cachedConnectionTimeout = _IDLE_CONNECTION
    pool.maxPersistentPerHost = _CONNECTIONS
    return Agent.usingEndpointFactory(reactor, _Endpoints(reactor, timeout, verify), pool), pool
