"""TLS to Redis: whom it trusts, and the certificate that it shows."""

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import ssl

from odingw.config import State
from odingw.errors import ConfigError
from odingw.files import read_file
from odingw.secret_files import UnsafeFileError, read_secret


def client_options(state: State, host: str) -> Any:
    """Return what makes a TLS connection to a host; the files are read anew.

    Args:
        state: the section ``[state]``.
        host: the host name or IP address that the certificate of Redis must have.

    Raises:
        ConfigError: a file cannot be used.
    """
    extra = {} if state.certificate is None else _own(state.certificate, state.private_key)
    return ssl.optionsForClientTLS(
        host, trustRoot=_trust(state.ca_file), extraCertificateOptions=extra
    )


def _own(certificate: Path, private_key: Path | None) -> dict[str, Any]:
    own, *chain = _certificates("certificate", certificate)
    path = certificate if private_key is None else private_key
    name = "certificate" if private_key is None else "private_key"
    try:
        key = load_pem_private_key(read_secret(path), None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise _unusable(name, path, "the key is encrypted; store it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable(name, path, "it holds no private key in PEM") from None
    except (OSError, UnsafeFileError) as error:
        raise _unusable(name, path, str(error)) from None
    extra: dict[str, Any] = {"privateKey": key, "certificate": own, "extraCertChain": chain}
    try:
        ssl.CertificateOptions(**extra).getContext()
    except SSL.Error:
        raise _unusable(name, path, f"it does not fit the first one in {certificate}") from None
    return extra


def _trust(ca_file: Path | None) -> Any:
    if ca_file is None:
        return ssl.platformTrust()  # type: ignore[no-untyped-call]  # Twisted has no types here
    twisted: Any = ssl
    return twisted.trustRootFromCertificates(
        twisted.Certificate(X509.from_cryptography(one))
        for one in _certificates("ca_file", ca_file)
    )


def _certificates(name: str, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(read_file(path))
    except ValueError:
        raise _unusable(name, path, "it holds no certificate in PEM") from None
    except OSError as error:
        raise _unusable(name, path, str(error)) from None


def _unusable(name: str, path: Path, reason: str) -> ConfigError:
    return ConfigError(f"state.{name}: cannot use {path}: {reason}")
