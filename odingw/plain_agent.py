"""An HTTP client's agent for servers that are not trusted to be small."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.errors import OdingwError


class EncodedBodyError(OdingwError):
    """A server sent an encoded body all the same."""


class Discard(Protocol):
    """Wants no body, and closes the connection."""

    def connectionMade(self) -> None:  # noqa: N802  # Twisted's name
        """Begin, and end."""
        transport: Any = self.transport
        transport.loseConnection()


@implementer(IAgent)
class PlainAgent:
    """An agent that accepts no encoded bodies.

    A compressed body is unpacked a received piece at a time, and what becomes of 64 KiB is up to
    the sender: 64 MiB, or, compressed twice, 64 GiB.

    Args:
        agent: what sends requests, an ``IAgent``.
    """

    def __init__(self, agent: Any) -> None:
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
        response: Deferred[Any] = self._agent.request(method, uri, headers, bodyProducer)
        return response.addCallback(_refuse_encoded)


def _refuse_encoded(response: Any) -> Any:
    encodings = response.headers.getRawHeaders("Content-Encoding", [])
    if all(encoding.strip().lower() == "identity" for encoding in encodings):
        return response
    response.deliverBody(Discard())
    raise EncodedBodyError("the body is compressed, which was not asked for")
