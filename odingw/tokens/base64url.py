"""Base64url without padding, as JOSE uses it (RFC 7515, section 2), decoded strictly.

Every byte string has exactly one accepted spelling: no padding, no other characters, and the
bits that the last character has to spare are zero. A token can thus not be respelled.
"""

import binascii
from typing import Final

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
