"""Certificates of TURN servers, judged as a browser judges them.

A connection is made whatever they are like, since clients that are no browsers may not mind.
"""

from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from cryptography import x509
from msgspec import Struct
from OpenSSL import SSL
from service_identity import CertificateError
from service_identity.hazmat import DNS_ID, DNSPattern
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

_FAULTS: Final = {9: "is not valid yet", 10: "has expired"}
"""What some of OpenSSL's errors mean (``X509_V_ERR_…`` in ``x509_vfy.h``)."""

_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21})


class Certificate(Struct, frozen=True):
    """A server's certificate.

    Attributes:
        ends: when it expires, in unix seconds.
        refusal: why a browser refuses it, for people; empty: it does not.
    """

    ends: float
    refusal: str = ""

    @property
    def last_day(self) -> str:
        """The day on which it expires, in UTC."""
        return datetime.fromtimestamp(self.ends, UTC).date().isoformat()


@implementer(IOpenSSLClientConnectionCreator)
class JudgingTls:
    """Makes one connection, and says what a browser would think of the certificate.

    The authorities that count are this machine's (``SSL_CERT_FILE``, ``SSL_CERT_DIR``, or the
    system's).

    Args:
        host: the server's name or IP address, as its URI has it.
    """

    def __init__(self, host: str) -> None:
        self._host = host.rstrip(".")
        self._address = _address(self._host)
        self._faults: dict[str, None] = {}
        self._connection: SSL.Connection | None = None

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: N802  -- Twisted's
        """Begin TLS, naming the server, for the sake of those who share an address."""
        self._connection = connection = SSL.Connection(_context(), None)
        connection.set_verify(SSL.VERIFY_PEER, self._judge)
        if self._address is None:
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection

    def certificate(self) -> Certificate | None:
        """Return the certificate, once the connection is made; None: there is none."""
        found = self._connection and self._connection.get_peer_certificate(as_cryptography=True)
        if not found:
            return None
        faults = list(self._faults)
        if not self._is_named(found):
            faults.append(f"it is not for {self._host}")
        return Certificate(found.not_valid_after_utc.timestamp(), ", ".join(faults))

    def _judge(self, _: SSL.Connection, __: object, error: int, depth: int, ok: int) -> bool:
        """Record what OpenSSL finds at a depth of the chain; 0 is the server's own certificate."""
        if not ok:
            which = "an issuer's" if depth else "it"
            fault = _FAULTS.get(error, f"fails check {error} of OpenSSL")
            text = "its issuer is not known" if error in _UNKNOWN_ISSUER else f"{which} {fault}"
            self._faults[text] = None
        # The others are to be found too, and the connection is to be made.
        return True

    def _is_named(self, certificate: x509.Certificate) -> bool:
        """Tell whether a certificate is for this server (RFC 9525, section 6)."""
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            if self._address is not None:
                return self._address in names.value.get_values_for_type(x509.IPAddress)
            wanted = DNS_ID(self._host)
        except (x509.ExtensionNotFound, ValueError):
            return False
        for name in names.value.get_values_for_type(x509.DNSName):
            with suppress(CertificateError, ValueError):  # a name that matches nothing
                if wanted.verify(DNSPattern.from_bytes(name.encode())):
                    return True
        return False


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


@cache
def _context() -> SSL.Context:
    context: SSL.Context = CertificateOptions().getContext()
    context.set_default_verify_paths()
    return context
