"""Keys of ODIN servers, derived from a gateway's master key (wire reference, section 1)."""

import base64
import hashlib
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from odingw.errors import KeyMaterialError
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
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise KeyMaterialError("master key: not base64") from None
    if not key:
        raise KeyMaterialError("master key: empty")
    return key


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
