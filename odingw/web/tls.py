"""The server side of TLS, with certificates that may be renewed while the process runs.

TLS 1.2 and newer, with the ciphers and settings that Twisted considers safe. A connection keeps the
certificate it was opened with; whoever connects after a renewal is shown the new one.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509 import (
    Certificate,
    load_der_x509_certificate,
    load_pem_x509_certificates,
)
from msgspec import Struct
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import CertificateOptions, DiffieHellmanParameters, TLSVersion
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
)
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.documents import MARK
from odingw.errors import ConfigError
from odingw.file_state import FileState, file_state
from odingw.files import read_file
from odingw.secret_files import UnsafeFileError, read_secret

_MINIMUM: Final = TLSVersion.TLSv1_2


class TlsTransport(BufferingTLSTransport):
    """A TLS connection that remembers how the TCP connection below it ended.

    Many peers close without TLS's goodbye. Twisted reports that as a lost connection, as it does a
    reset; only the connection below tells the two apart.

    Attributes:
        tcp_reason: why the TCP connection ended; None while it has not.
    """

    tcp_reason: Failure | None = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  -- Twisted's
        """Take note of the end of the TCP connection."""
        self.tcp_reason = reason
        super().connectionLost(reason)


class TlsFactory(TLSMemoryBIOFactory):
    """Puts TLS around the connections of another factory."""

    protocol = TlsTransport


class CertificateFiles(Struct, frozen=True):
    """Where a server's certificate is read from; all are PEM files.

    Attributes:
        private_key: the private key, not encrypted.
        certificate: the server's own certificate, and behind it any number of intermediate ones; it
            may be the same file as ``private_key``.
        chain: further intermediate certificates, or None.
        dh_parameters: parameters for the finite-field Diffie-Hellman ciphers of TLS 1.2 (``openssl
            dhparam``), or None: OpenSSL chooses them or, in its older versions, goes without these
            ciphers.
    """

    private_key: Path
    certificate: Path
    chain: Path | None = None
    dh_parameters: Path | None = None


class _Material(Struct, frozen=True):
    """What the files hold. The key is left out of comparisons: it follows from the certificate."""

    certificates: tuple[Certificate, ...]
    dh_parameters: bytes


@implementer(IOpenSSLContextFactory, IOpenSSLServerConnectionCreator)
class ReloadingContextFactory:
    """What Twisted asks for the TLS settings of every new connection.

    Files are read in the calling thread: they are small, and nothing in a reload takes longer than
    a few milliseconds.

    Attributes:
        files: where the certificate comes from.

    Raises:
        ConfigError: the files cannot be used; as ``reload``.
    """

    def __init__(self, files: CertificateFiles) -> None:
        self.files = files
        self._read_at: tuple[FileState, ...] | None = self._state()
        self._material, self._options = _load(files)

    @property
    def not_after(self) -> datetime:
        """When the server's own certificate expires, in UTC. An expired one is served all the same.

        Clients refuse it, but that is for them to say: the process that renews it may be late.
        """
        return self._material.certificates[0].not_valid_after_utc

    def getContext(self) -> SSL.Context:  # noqa: N802  -- IOpenSSLContextFactory names it
        """The settings for a new connection, for callers of the older of Twisted's interfaces."""
        return self._options.getContext()

    def serverConnectionForTLS(  # noqa: N802  -- IOpenSSLServerConnectionCreator names it
        self, protocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """A TLS connection with the certificate that is in force now."""
        return self._options.serverConnectionForTLS(protocol)

    def reload(self) -> bool:
        """Read the files again, whether they have changed or not.

        Returns:
            Whether another certificate, chain or set of parameters came in force.

        Raises:
            ConfigError: the files cannot be used; the text is one line that begins with the file's
                name. What was in force stays in force.
        """
        # The state is taken before the contents, so that a change in between is seen by the next
        # poll; a failed try leaves none, so that the next poll tries again.
        state = self._state()
        self._read_at = None
        material, options = _load(self.files)
        self._read_at = state
        if material == self._material:
            return False
        self._material, self._options = material, options
        return True

    def poll(self) -> bool:
        """Reload if a file has changed since the last try, or if the last try failed.

        Where nothing has changed this costs a ``stat`` per file. Symbolic links are followed, since
        some ACME clients renew by pointing a link elsewhere.

        Returns:
            As ``reload``.

        Raises:
            ConfigError: as ``reload``; again at every call until the files can be used.
        """
        return self._read_at != self._state() and self.reload()

    def _state(self) -> tuple[FileState, ...]:
        files = self.files
        paths = (files.private_key, files.certificate, files.chain, files.dh_parameters)
        return tuple(file_state(path) for path in paths if path is not None)


def _load(files: CertificateFiles) -> tuple[_Material, CertificateOptions]:
    """Read the files and make sure that OpenSSL can use them.

    Raises:
        ConfigError: as ``ReloadingContextFactory.reload``.
    """
    key = _private_key(files.private_key)
    certificates = _certificates(files.certificate)
    if not _fits(key, certificates[0]):
        raise ConfigError(
            f"{_shown(files.private_key)}: the key does not fit the first certificate in "
            f"{_shown(files.certificate)}; that must be the server's own, made for this key"
        )
    if files.chain is not None:
        certificates += _certificates(files.chain)
    # A chain file often repeats what the certificate's file has.
    certificates = list(dict.fromkeys(certificates))
    dh_parameters = b"" if files.dh_parameters is None else _dh_parameters(files.dh_parameters)
    options = _options(key, certificates, files.dh_parameters)
    try:
        options.getContext()
    except (SSL.Error, TypeError) as error:
        raise ConfigError(
            f"{_shown(files.certificate)}: OpenSSL refuses the certificate or its key"
            f"{_openssl_reason(error)}; have a new one issued"
        ) from None
    return _Material(tuple(certificates), dh_parameters), options


def _options(
    key: PrivateKeyTypes, certificates: list[Certificate], dh_parameters: Path | None
) -> CertificateOptions:
    # pyOpenSSL takes cryptography's objects and calls its own deprecated; Twisted hands on what it
    # is given, though its annotations still name pyOpenSSL's.
    own: Any = certificates[0]
    chain: Any = certificates[1:]
    private_key: Any = key
    dh = None
    if dh_parameters is not None:
        path = FilePath(str(dh_parameters))
        dh = DiffieHellmanParameters.fromFile(path)
    return CertificateOptions(
        privateKey=private_key,
        certificate=own,
        extraCertChain=chain,
        dhParameters=dh,
        raiseMinimumTo=_MINIMUM,
    )


def _private_key(path: Path) -> PrivateKeyTypes:
    data = _read(path, read_secret)
    try:
        # Checking that an RSA key is made of primes takes half a second for 4096 bits, at every
        # renewal; what counts is that it fits the certificate.
        return load_pem_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise ConfigError(
            f"{_shown(path)}: the private key is encrypted; store it without a passphrase, "
            "readable by this server only"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            f'{_shown(path)}: no usable private key in it; a PEM file with a "PRIVATE KEY" block '
            f"is wanted{_of_der(data, lambda der: load_der_private_key(der, None), 'pkey')}"
        ) from None


def _certificates(path: Path) -> list[Certificate]:
    data = _read(path)
    try:
        certificates = load_pem_x509_certificates(data)
    except ValueError:
        raise ConfigError(
            f'{_shown(path)}: no usable certificate in it; a PEM file with "CERTIFICATE" blocks is '
            f"wanted{_of_der(data, load_der_x509_certificate, 'x509')}"
        ) from None
    # A last block without its end is passed over in silence, and clients would lack it.
    if len(certificates) < data.count(b"-----BEGIN CERTIFICATE-----"):
        raise ConfigError(f"{_shown(path)}: a certificate in it is cut off; write the file anew")
    return certificates


def _of_der(data: bytes, load: Callable[[bytes], object], command: str) -> str:
    """Return how to make PEM of DER; empty: it is none."""
    try:
        load(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return ""
    return f"; make it of this DER with: openssl {command} -inform DER -in FILE"


def _fits(key: PrivateKeyTypes, certificate: Certificate) -> bool:
    try:
        return key.public_key() == certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False


def _dh_parameters(path: Path) -> bytes:
    # OpenSSL opens it once more, and again with each new context.
    data = _read(path, partial(read_file, pipes=False))
    try:
        SSL.Context(SSL.TLS_METHOD).load_tmp_dh(bytes(path))
    except SSL.Error:
        raise ConfigError(
            f"{_shown(path)}: no usable Diffie-Hellman parameters in it; make them with "
            '"openssl dhparam", or leave them out'
        ) from None
    return data


def _read(path: Path, read: Callable[[Path], bytes] = read_file) -> bytes:
    try:
        # Files that were put together have byte order marks in the middle.
        return read(path).replace(MARK, b"")
    except UnsafeFileError as error:
        raise ConfigError(f"{_shown(path)}: {error}") from None
    except OSError as error:
        raise ConfigError(
            f"{_shown(path)}: {error.strerror}; a PEM file that this server may read is wanted"
        ) from None
    except ValueError:
        raise ConfigError(f"{_shown(path)}: this cannot be a file's name") from None


def _openssl_reason(error: Exception) -> str:
    """What OpenSSL's last word was, with a colon before it; nothing if it gave none."""
    queue = error.args[0] if error.args else None
    return f": {queue[-1][2]}" if isinstance(queue, list) and queue else ""


def _shown(path: Path) -> str:
    """A path on one line, whatever is in it."""
    return repr(str(path))
