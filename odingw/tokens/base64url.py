"""Base64url without padding, as JOSE uses it (RFC 7515, section 2), decoded strictly.

Every byte string has exactly one accepted spelling: no padding, no other characters, and the
bits that the last character has to spare are zero. A token can thus not be respelled. Keys from
elsewhere may have padding and ends of lines, which Java's and Python's encoders write, and byte
order marks.
"""

import base64
import binascii
from typing import Final

from odingw.documents import without_marks

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
# By length modulo 4. A remainder of 1 is no whole number of bytes, which the decoder reports.
_PADDING: Final = (b"", b"", b"==", b"=")
_ANY: Final = frozenset(range(256))
_LAST: Final = (_ANY, _ANY, frozenset(b"AQgw"), frozenset(b"AEIMQUYcgkosw048"))


def encode(data: bytes) -> bytes:
    """Return the base64url text of ``data`` as ASCII bytes, without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """Return the bytes that base64url text stands for.

    Raises:
        ValueError: ``text`` is not base64url without padding, in its one canonical spelling.
    """
    remainder = len(text) & 3
    if remainder and text[-1] not in _LAST[remainder]:
        raise ValueError("not canonical base64url")
    return binascii.a2b_base64(text.translate(_FROM_URL) + _PADDING[remainder], strict_mode=True)


def decode_key(text: str) -> bytes:
    """Return the bytes of a key's number in base64url, with or without padding, in lines or not.

    Raises:
        ValueError: it is anything else.
    """
    return decode(_unpadded("".join(text.split())).encode())


def decode_standard(text: str) -> bytes:
    """Return the bytes of a key in standard base64 (RFC 4648, section 4), padded or not.

    Raises:
        ValueError: it is anything else.
    """
    bare = _unpadded(text)
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def _unpadded(text: str) -> str:
    text = without_marks(text)
    bare = text.rstrip("=")
    if len(text) - len(bare) > -len(bare) % 4:
        raise ValueError("more padding than base64 has")
    return bare
