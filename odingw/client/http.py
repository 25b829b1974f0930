"""What the clients for Twisted need of HTTP beyond treq: bounded bodies, and what TLS trusts."""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types


class ReplyTooLong(Exception):  # noqa: N818  -- it reads as what happened
    """A body does not end."""


class _Body(Protocol):
    """Collects a body."""

    def __init__(self, most: int) -> None:
        self.received = Deferred[bytes](self._hang_up)
        self._most = most
        self._parts = bytearray()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  -- Twisted's name
        if self.received.called:
            return
        self._parts += data
        if len(self._parts) > self._most:
            self.received.errback(ReplyTooLong())
            self._hang_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  -- likewise
        if self.received.called:
            return
        # PotentialDataLoss: the body ends where the connection does. JSON tells if that is the end.
        if isinstance(reason.value, ResponseDone | PotentialDataLoss):
            self.received.callback(bytes(self._parts))
        else:
            self.received.errback(reason)

    def _hang_up(self, _: object = None) -> None:
        # An ITransport, but for a response that is over by now.
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()


def read_body(response: Any, most: int) -> Deferred[bytes]:
    """Read the body of an ``IResponse``, at most so many bytes; cancelled, hang up."""
    body = _Body(most)
    response.deliverBody(body)
    return body.received


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Makes TLS connections to whoever answers."""

    def __init__(self, hostname: bytes) -> None:
        self._hostname = hostname
        self._context = ssl.CertificateOptions(verify=False).getContext()

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:  # noqa: N802  -- Twisted's
        connection = SSL.Connection(self._context, None)
        name = self._hostname.decode("ascii")
        if not (isIPAddress(name) or isIPv6Address(name)):
            connection.set_tlsext_host_name(self._hostname)
        return connection


@implementer(IPolicyForHTTPS)
class _UnverifiedPolicy:
    def creatorForNetloc(self, hostname: bytes, port: int) -> _Unverified:  # noqa: N802  -- Twisted's
        return _Unverified(hostname)


def policy(verify: bool | str) -> Any:
    """Return an ``IPolicyForHTTPS``.

    Args:
        verify: True, trust what the system trusts; False, check nothing; or the path of a file
            with the certificates to trust, PEM.

    Raises:
        ValueError: there is no such file, or no certificate in it.
    """
    if verify is False:
        return _UnverifiedPolicy()
    if verify is True:
        return BrowserLikePolicyForHTTPS()
    try:
        certificates = load_pem_x509_certificates(Path(verify).read_bytes())
    except (OSError, ValueError):
        raise ValueError("verify: there is no such file, or no certificate in it") from None
    trusted = [
        ssl.Certificate.loadPEM(certificate.public_bytes(Encoding.PEM))
        for certificate in certificates
    ]
    return BrowserLikePolicyForHTTPS(trustRoot=ssl.trustRootFromCertificates(trusted))
