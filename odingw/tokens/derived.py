"""Keys of ODIN servers, derived from a gateway's master key (wire reference, section 1)."""

import hashlib
from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from odingw.documents import lines
from odingw.errors import KeyMaterialError
from odingw.tokens import base64url
from odingw.tokens.keys import KeyType, SecretKey

_INFO: Final = b"grid-connection-key"
_OKM_BYTES: Final = 512


def decode_master_key(text: str) -> bytes:
    """Return the bytes of a master key.

    Args:
        text: standard base64, with or without padding.

    Raises:
        KeyMaterialError: the text is empty or no base64.
    """
    try:
        key = base64url.decode_standard(text)
    except ValueError:
        raise KeyMaterialError("master key: not base64") from None
    if not key:
        raise KeyMaterialError("master key: empty")
    return key


def master_key_lines(text: str) -> tuple[str, ...]:
    """Return the master keys of a file that has one on each line."""
    return lines(text)


def decode_master_keys(texts: Iterable[str]) -> tuple[bytes, ...]:
    """Return the bytes of a list of master keys; the first one derives what servers are given.

    Args:
        texts: as ``decode_master_key`` takes them.

    Raises:
        KeyMaterialError: one is malformed or there twice; the message tells its position, from 1.
    """
    keys: list[bytes] = []
    for number, text in enumerate(texts, 1):
        try:
            key = decode_master_key(text)
        except KeyMaterialError as error:
            what = str(error).removeprefix("master key: ")
            raise KeyMaterialError(f"master key {number}: {what}") from None
        if key in keys:
            raise KeyMaterialError(f"master key {number}: the same as number {keys.index(key) + 1}")
        keys.append(key)
    return tuple(keys)


def server_key(master_key: bytes, address: str) -> SecretKey:
    """Derive the key of one server: HKDF-SHA-512 (RFC 5869), then SHA-256.

    Args:
        master_key: as ``decode_master_key`` returns it.
        address: the server's address as it reports it, such as ``voice.example:4433``.

    Raises:
        KeyMaterialError: the master key is empty.
    """
    if not master_key:
        raise KeyMaterialError("master key: empty")
    okm = HKDF(SHA512(), _OKM_BYTES, salt=address.encode(), info=_INFO).derive(master_key)
    return SecretKey(hashlib.sha256(okm).digest(), KeyType.DERIVED)
