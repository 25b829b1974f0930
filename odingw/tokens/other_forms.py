"""Certificates, private keys and PEM texts that are written where a public key is wanted."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key
from cryptography.x509 import load_der_x509_certificate

from odingw.documents import unmarked_text
from odingw.tokens import base64url

AS_DER: Final = "-outform DER | base64 -w0"
"""The end of a command that makes base64 of a public key's DER form."""

AS_X: Final = "-outform DER | tail -c 32 | base64 -w0 | tr +/ -_"
"""The end of a command that makes ``x`` of an Ed25519 key's JWK."""

_PEM: Final = "-inform PEM"
_DER: Final = "-inform DER"
_CERTIFICATE: Final = "openssl x509 {} -in FILE -noout -pubkey | openssl pkey -pubin"
_PRIVATE: Final = "openssl pkey {} -in FILE -pubout"
_PUBLIC: Final = "openssl pkey -pubin {} -in FILE"
_PKCS1: Final = "openssl rsa -RSAPublicKey_in {} -in FILE -pubout"
_REQUEST: Final = "openssl req {} -in FILE -noout -pubkey | openssl pkey -pubin"
_KEY_PAIR: Final = "a private key, which must stay with whoever signs"
_SSH: Final = "ssh-keygen -e -m PKCS8 -f FILE | openssl pkey -pubin"
_SSH_RAW: Final = "cut -d' ' -f2 FILE | base64 -d | tail -c 32"
_SSH_ED25519: Final = {
    # OpenSSH writes such keys in no form that OpenSSL reads. In front: RFC 8410, section 4.
    AS_DER: rf"(printf '0*0\005\006\003+ep\003!\000'; {_SSH_RAW}) | base64 -w0",
    AS_X: f"{_SSH_RAW} | base64 -w0 | tr +/ -_",
}

_BLOCKS: Final = {
    "CERTIFICATE": ("a certificate", _CERTIFICATE),
    "X509 CERTIFICATE": ("a certificate", _CERTIFICATE),
    "TRUSTED CERTIFICATE": ("a certificate", _CERTIFICATE),
    "CERTIFICATE REQUEST": ("a certificate request", _REQUEST),
    "NEW CERTIFICATE REQUEST": ("a certificate request", _REQUEST),
    "PUBLIC KEY": ("a public key as PEM text", _PUBLIC),
    "RSA PUBLIC KEY": ("an RSA public key in the form of PKCS #1", _PKCS1),
}
_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_SSH_KEY: Final = re.compile(r"(?:ssh|ecdsa|sk)-[a-z0-9@.-]+ ")


def pem_or_der(text: str, ending: str) -> str:
    """Say what a text is that has the form of PEM, DER or SSH, and how to make a public key of it.

    Args:
        text: what is written.
        ending: the end of the command: ``AS_DER`` or ``AS_X``.

    Returns:
        One line without anything of the text; empty: it is none that is known.
    """
    text = unmarked_text(text).strip()
    kinds = [block[1] for block in _BLOCK.finditer(text)]
    if "OPENSSH PRIVATE KEY" in kinds:
        return f"{_KEY_PAIR}; print the public key in the form of SSH with: ssh-keygen -y -f FILE"
    if any(kind.endswith("PRIVATE KEY") for kind in kinds):
        return _with_command(_KEY_PAIR, _PRIVATE, _PEM, ending)
    if known := [kind for kind in kinds if kind in _BLOCKS]:
        return _with_command(*_BLOCKS[known[0]], _PEM, ending)
    if kinds:
        return "PEM text, but of no public key"
    if text.startswith("ssh-ed25519 "):
        what = "a public key in the form of SSH"
        return f"{what}; make the public key with: {_SSH_ED25519[ending]}"
    if _SSH_KEY.match(text):
        return _with_command("a public key in the form of SSH", _SSH, "", ending)
    with suppress(ValueError):
        return _der(base64url.decode_standard("".join(text.split())), ending)
    return ""


def _der(data: bytes, ending: str) -> str:
    if _loads(data, load_der_x509_certificate):
        return _with_command("a certificate", _CERTIFICATE, _DER, ending)
    if _loads(data, lambda der: load_der_private_key(der, None)):
        return _with_command(_KEY_PAIR, _PRIVATE, _DER, ending)
    if _loads(data, load_der_public_key):
        return _with_command("a public key in DER (SubjectPublicKeyInfo)", _PUBLIC, _DER, ending)
    # PEM text that was put into base64 once more, as Kubernetes shows its secrets.
    pem = data.decode("latin-1")
    return f"base64 of PEM text: of {pem_or_der(pem, ending)}" if _BLOCK.search(pem) else ""


def _loads(data: bytes, load: Callable[[bytes], object]) -> bool:
    try:
        load(data)
    except TypeError:
        return True  # a private key with a passphrase
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _with_command(what: str, command: str, form: str, ending: str) -> str:
    return f"{what}; make the public key with: {command.format(form)} {ending}"
