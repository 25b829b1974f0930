"""Certificates, private keys and other texts that are written where a public key is wanted."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key
from cryptography.x509 import load_der_x509_certificate, load_der_x509_csr

from odingw.documents import without_marks
from odingw.tokens import base64url

AS_DER: Final = "-outform DER | base64 -w0"
"""The end of a command that makes base64 of a public key's DER form."""

AS_X: Final = "-outform DER | tail -c 32 | base64 -w0 | tr +/ -_"
"""The end of a command that makes ``x`` of an Ed25519 key's JWK."""

_FILE: Final = ""
"""The command reads FILE as it is; else this is what turns FILE into what the command reads."""

_FROM_BASE64: Final = "grep -v -e -- FILE | base64 -d | "
"""Also where FILE is the PEM file out of whose middle the text was taken."""

_FROM_BASE64URL: Final = "tr -- -_ +/ < FILE | base64 -d | "
_FROM_HEX: Final = "tr a-f A-F < FILE | basenc --base16 -d | "

_PEM: Final = "-inform PEM"
_DER: Final = "-inform DER"
_CERTIFICATE: Final = "openssl x509 {} -noout -pubkey | openssl pkey -pubin"
_PRIVATE: Final = "openssl pkey {} -pubout"
_PUBLIC: Final = "openssl pkey -pubin {}"
_PKCS1: Final = "openssl rsa -RSAPublicKey_in {} -pubout"
_PKCS7: Final = "openssl pkcs7 {} -print_certs | openssl x509 -noout -pubkey | openssl pkey -pubin"
_REQUEST: Final = "openssl req {} -noout -pubkey | openssl pkey -pubin"
_KEY_PAIR: Final = "a private key, which must stay with whoever signs"
_MAKE: Final = "; make the public key with: "

_BLOCKS: Final = {
    "CERTIFICATE": ("a certificate", _CERTIFICATE),
    "X509 CERTIFICATE": ("a certificate", _CERTIFICATE),
    "TRUSTED CERTIFICATE": ("a certificate", _CERTIFICATE),
    "CERTIFICATE REQUEST": ("a certificate request", _REQUEST),
    "NEW CERTIFICATE REQUEST": ("a certificate request", _REQUEST),
    "PKCS7": ("a certificate in the form of PKCS #7", _PKCS7),
    "PUBLIC KEY": ("a public key as PEM text", _PUBLIC),
    "RSA PUBLIC KEY": ("an RSA public key in the form of PKCS #1", _PKCS1),
}
_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")

_SSH_LINE: Final = re.compile(r"(?:ssh|ecdsa|sk)-[a-z0-9@.-]+ ")
_SSH2: Final = "---- BEGIN SSH2 PUBLIC KEY ----"
_SSH_BLOB: Final = re.compile(rb"\0\0\0.((?:ssh|ecdsa)-[a-z0-9-]+)\0\0\0", re.DOTALL)
_ED25519_BLOB: Final = "AAAAC3NzaC1lZDI1NTE5"
"""How the key of an Ed25519 begins in base64 (RFC 8709, section 4)."""

_URL: Final = re.compile(r"https?://", re.IGNORECASE)
_PATH: Final = re.compile(
    r"file:\S+|[^\s:{}]+\.(?:json|jwks?|pem|pub|der|crt|cer|key|txt)", re.IGNORECASE
)
_HEX_KEY: Final = re.compile(r"[0-9A-Fa-f]{64}")
_RAW_BYTES: Final = 32
_RAW: Final = {
    # In front: RFC 8410, section 4.
    AS_DER: r"(printf '0*0\005\006\003+ep\003!\000'; {}) | base64 -w0",
    AS_X: "{} | base64 -w0 | tr +/ -_",
}
_JWK: Final = {
    AS_DER: "make the public key with: python3 -c 'import base64, json; from jwt import PyJWK; "
    "from cryptography.hazmat.primitives.serialization import *; "
    'jwk = {n: v for n, v in json.load(open("FILE")).items() if n in "kty crv n e x y".split()}; '
    "print(base64.b64encode(PyJWK(jwk).key.public_bytes(Encoding.DER, "
    "PublicFormat.SubjectPublicKeyInfo)).decode())'",
    AS_X: "write its kid, kty, crv and x themselves, not their text",
}


def pem_or_der(text: str, ending: str) -> str:
    """Say what a text is that is a key in another form, and how to make a public key of it.

    PEM, DER, SSH, JWKs as text, and bare keys are known.

    Args:
        text: what is written.
        ending: the end of the command: ``AS_DER`` or ``AS_X``.

    Returns:
        One line without anything of the text; empty: it is none that is known.
    """
    text = without_marks(text).strip()
    if _URL.match(text):
        return "a URL; that of a JWK set belongs among those of JWK sets"
    if _PATH.fullmatch(text):
        return "the path of a file; write the key that is in it"
    return (
        _pem(text, _FILE, ending)
        or _ssh(text, ending)
        or _jwk(text, ending)
        or _base64(text, ending)
    )


def _pem(text: str, source: str, ending: str) -> str:
    kinds = [block[1] for block in _BLOCK.finditer(text)]
    if "OPENSSH PRIVATE KEY" in kinds:
        return f"{_KEY_PAIR}; print the public key in the form of SSH with: ssh-keygen -y -f FILE"
    if any(kind.endswith("PRIVATE KEY") for kind in kinds):
        return _with_command(_KEY_PAIR, _PRIVATE, _PEM, source, ending)
    if known := [kind for kind in kinds if kind in _BLOCKS]:
        return _with_command(*_BLOCKS[known[0]], _PEM, source, ending)
    return "PEM text, but of no public key" if kinds else ""


def _ssh(text: str, ending: str) -> str:
    if text.startswith("PuTTY-User-Key-File-"):
        return f"{_KEY_PAIR}; print the public key with: puttygen -O public-openssh FILE"
    if text.startswith(_SSH2):
        what, source = "a public key in the form of SSH2 (RFC 4716)", "ssh-keygen -i -f FILE | "
    elif _SSH_LINE.match(text):
        what, source = "a public key in the form of SSH", _FILE
    else:
        return ""
    return f"{what}{_MAKE}{_from_ssh(source, ending, is_ed25519=_ED25519_BLOB in text)}"


def _from_ssh(source: str, ending: str, *, is_ed25519: bool) -> str:
    """Return a command that makes a public key of a line as OpenSSH writes it."""
    if is_ed25519:
        # OpenSSH writes such keys in no form that OpenSSL reads.
        file = "" if source else " FILE"
        raw = f"{source}cut -d' ' -f2{file} | base64 -d | tail -c {_RAW_BYTES}"
        return _RAW[ending].format(raw)
    file = "/dev/stdin" if source else "FILE"
    return f"{source}ssh-keygen -e -m PKCS8 -f {file} | openssl pkey -pubin {ending}"


def _jwk(text: str, ending: str) -> str:
    document: Any = None
    if text.startswith("{"):
        with suppress(ValueError, RecursionError):
            document = json.loads(text)
    if not isinstance(document, dict):
        return ""
    if isinstance(document.get("keys"), list):
        return "a JWK set; write one key, or name the set's URL"
    if "kty" not in document:
        return ""
    return f"{_KEY_PAIR if document.get('d') else 'a JWK as JSON text'}; {_JWK[ending]}"


def _base64(text: str, ending: str) -> str:
    text = "".join(text.split())
    if _HEX_KEY.fullmatch(text):
        return _bare_key(f"{_RAW_BYTES} bytes in hex", _FROM_HEX, ending)
    in_url = "-" in text or "_" in text
    source, name = (_FROM_BASE64URL, "base64url") if in_url else (_FROM_BASE64, "base64")
    try:
        data = base64url.decode_standard(text.translate(str.maketrans("-_", "+/")))
    except ValueError:
        return ""
    if len(data) == _RAW_BYTES:
        return _bare_key(f"{_RAW_BYTES} bytes in {name}", source, ending)
    if blob := _SSH_BLOB.match(data):
        kind = blob[1].decode()
        line = f"(printf '{kind} '; cat FILE) | "
        command = _from_ssh(line, ending, is_ed25519=kind == "ssh-ed25519")
        return f"{name} of a public key in the form of SSH{_MAKE}{command}"
    if _loads(data, load_der_x509_certificate):
        return _with_command("a certificate", _CERTIFICATE, _DER, source, ending)
    if _loads(data, load_der_x509_csr):
        return _with_command("a certificate request", _REQUEST, _DER, source, ending)
    if _loads(data, lambda der: load_der_private_key(der, None)):
        return _with_command(_KEY_PAIR, _PRIVATE, _DER, source, ending)
    if _loads(data, load_der_public_key):
        what = f"a public key in DER (SubjectPublicKeyInfo) as {name}"
        return _with_command(what, _PUBLIC, _DER, source, ending)
    # PEM text that was put into base64 once more, as Kubernetes shows its secrets.
    inner = _pem(data.decode("latin-1"), source, ending)
    return f"base64 of PEM text: of {inner}" if inner else ""


def _bare_key(what: str, source: str, ending: str) -> str:
    command = _RAW[ending].format(source.removesuffix(" | "))
    return f"{what}, as of an Ed25519 key; if that is the public key, write it with: {command}"


def _loads(data: bytes, load: Callable[[bytes], object]) -> bool:
    try:
        load(data)
    except TypeError:
        return True  # a private key with a passphrase
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _with_command(what: str, command: str, form: str, source: str, ending: str) -> str:
    reads = form if source else f"{form} -in FILE"
    return f"{what}{_MAKE}{source}{command.format(reads)} {ending}"
