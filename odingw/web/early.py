"""TCP endpoints whose port is taken before anybody is let in.

A port that is bound and does not listen yet refuses connections, so that a balancer goes elsewhere
at once, and gets no share of those that come to a port with ``SO_REUSEPORT``.
"""

import socket
from typing import Any

import attrs
from twisted.internet import defer
from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.tcp import makeBinding
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types


@implementer(IStreamServerEndpoint)
@attrs.define(eq=False)
class TcpEndpoint:
    """A port of an interface.

    Args:
        reactor: an ``IReactorTCP``, and for ``bind`` an ``IReactorSocket``.
        interface: an address or a name; empty: all of IPv4.
        port: its number; 0: any free one.
        backlog: connections that may wait to be accepted.
        reuse_port: whether other processes may listen there too.
    """

    reactor: Any
    interface: str
    port: int
    backlog: int
    reuse_port: bool
    _bound: socket.socket | None = None

    def bind(self) -> None:
        """Take the port, and let nobody in before ``listen``.

        Raises:
            CannotListenError: it cannot be had.
        """
        family = socket.AF_INET6 if isIPv6Address(self.interface) else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.reuse_port:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind((self.interface, self.port))
        except OSError as error:
            bound.close()
            raise CannotListenError(self.interface, self.port, error) from None
        self._bound = bound

    def unbind(self) -> None:
        """Let go of a port that is taken."""
        bound, self._bound = self._bound, None
        if bound is not None:
            bound.close()

    def listen(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IListeningPort]:  # noqa: N803  -- the interface names it
        """Listen."""
        if self._bound is None:
            return self._listen_at_once(protocolFactory)
        try:
            self._bound.listen(self.backlog)
            # It makes a descriptor of its own.
            port = self.reactor.adoptStreamPort(
                self._bound.fileno(), self._bound.family, protocolFactory
            )
        except OSError as error:
            return defer.fail(CannotListenError(self.interface, self.port, error))
        finally:
            self.unbind()
        return defer.succeed(port)

    def _listen_at_once(self, factory: IProtocolFactory) -> defer.Deferred[IListeningPort]:
        port: Any = self.port
        if self.reuse_port:
            port = makeBinding(self.interface, port, reuseAddress=True, reusePort=True)
        version_6 = isIPv6Address(self.interface)
        make = TCP6ServerEndpoint if version_6 else TCP4ServerEndpoint
        endpoint = make(self.reactor, port, self.backlog, self.interface)
        listening: defer.Deferred[IListeningPort] = endpoint.listen(factory)
        return listening
