"""STUN (RFC 8489) and as much of TURN (RFC 8656) as a small client needs: bytes to values and back.

What comes from the network is untrusted: whatever is not exactly a message raises ``ValueError``,
and nothing else.
"""

import hashlib
import hmac
import struct
from collections.abc import Iterator
from enum import IntEnum
from ipaddress import ip_address
from typing import Final, TypeAlias
from zlib import crc32

from msgspec import Struct

MAGIC_COOKIE: Final = 0x2112A442
HEADER_BYTES: Final = 20
TRANSACTION_BYTES: Final = 12
UDP: Final = 17
"""The protocol number of UDP, which `REQUESTED_TRANSPORT` carries (RFC 8656, 18.6)."""

CHANNELS: Final = range(0x4000, 0x5000)
"""The channel numbers (RFC 8656, 12)."""

Address: TypeAlias = tuple[str, int]
"""An IP address in its canonical text, and a port."""

_COOKIE: Final = MAGIC_COOKIE.to_bytes(4)
_HEADER: Final = struct.Struct(">HHI12s")
_PAIR: Final = struct.Struct(">HH")
_FAMILIES: Final = {1: 4, 2: 16}
_MAX_LENGTH: Final = 0xFFFC
_INTEGRITY_BYTES: Final = 20
_FINGERPRINT_XOR: Final = 0x5354554E


class Kind(IntEnum):
    """What RFC 8489 calls the class of a message."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


class Method(IntEnum):
    """The methods of STUN and TURN (RFC 8489, 18.2; RFC 8656, 17)."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009


class Attribute(IntEnum):
    """Attribute types (RFC 8489, 18.3; RFC 8656, 18)."""

    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_TRANSPORT = 0x0019
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    XOR_MAPPED_ADDRESS = 0x0020
    ALTERNATE_DOMAIN = 0x8003
    SOFTWARE = 0x8022
    ALTERNATE_SERVER = 0x8023
    FINGERPRINT = 0x8028


# Everything else behind MESSAGE-INTEGRITY is not covered by it and is ignored (RFC 8489, 14.5).
_BEHIND_INTEGRITY: Final = (Attribute.MESSAGE_INTEGRITY_SHA256, Attribute.FINGERPRINT)


class Message(Struct, frozen=True):
    """A STUN message.

    Attributes:
        kind: request, indication, success or error.
        method: one of `Method`; a message from the network may have any from 0 to 4095.
        transaction: the 12 bytes that tie a response to its request.
        attributes: types and values in their order, values without padding.
    """

    kind: Kind
    method: int
    transaction: bytes
    attributes: tuple[tuple[int, bytes], ...] = ()

    def get(self, attribute: Attribute) -> bytes | None:
        """Return an attribute's value; of several, the first one counts (RFC 8489, 14)."""
        return next((value for number, value in self.attributes if number == attribute), None)

    def need(self, attribute: Attribute) -> bytes:
        """Return an attribute's value.

        Raises:
            ValueError: there is none.
        """
        value = self.get(attribute)
        if value is None:
            raise ValueError(f"STUN message has no {attribute.name}")
        return value

    def answers(self, request: "Message") -> bool:
        """Tell whether this is a response, good or bad, to a request."""
        return (
            self.kind in (Kind.SUCCESS, Kind.ERROR)
            and self.method == request.method
            and self.transaction == request.transaction
        )


def encode(message: Message, *, key: bytes | None = None, fingerprint: bool = False) -> bytes:
    """Return a message's bytes.

    Args:
        message: what to encode, without MESSAGE-INTEGRITY and FINGERPRINT.
        key: adds MESSAGE-INTEGRITY (HMAC-SHA1) with this key.
        fingerprint: adds FINGERPRINT.

    Raises:
        ValueError: a value does not fit its field.
    """
    if len(message.transaction) != TRANSACTION_BYTES or message.method not in range(0x1000):
        raise ValueError("STUN message has a wrong transaction id or method")
    body = b"".join(_attribute(kind, value) for kind, value in message.attributes)
    if key is not None:
        digest = hmac.digest(key, _head(message, len(body) + 4 + _INTEGRITY_BYTES) + body, "sha1")
        body += _attribute(Attribute.MESSAGE_INTEGRITY, digest)
    if fingerprint:
        value = _fingerprint(_head(message, len(body) + 8) + body)
        body += _attribute(Attribute.FINGERPRINT, value)
    return _head(message, len(body)) + body


def decode(data: bytes) -> Message:
    """Return the message that these bytes are, no more and no less.

    A FINGERPRINT is checked; MESSAGE-INTEGRITY takes the key, see `verify`. Attributes that
    MESSAGE-INTEGRITY does not cover are left out.

    Raises:
        ValueError: they are no STUN message.
    """
    if len(data) < HEADER_BYTES:
        raise ValueError("STUN message is shorter than its header")
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind & 0xC000 or cookie != MAGIC_COOKIE:
        raise ValueError("not a STUN message")
    if length % 4 or length != len(data) - HEADER_BYTES:
        raise ValueError("STUN message has a wrong length")
    attributes = []
    sealed = False
    for start, attribute, value in _walk(data):
        if attribute == Attribute.FINGERPRINT:
            if start + 8 != len(data) or value != _fingerprint(data[:start]):
                raise ValueError("STUN message has a wrong FINGERPRINT")
        elif sealed and attribute not in _BEHIND_INTEGRITY:
            continue
        sealed = sealed or attribute == Attribute.MESSAGE_INTEGRITY
        attributes.append((attribute, value))
    return Message(
        kind=Kind(kind >> 7 & 2 | kind >> 4 & 1),
        method=kind & 0x000F | kind >> 1 & 0x0070 | kind >> 2 & 0x0F80,
        transaction=transaction,
        attributes=tuple(attributes),
    )


def verify(data: bytes, key: bytes) -> bool:
    """Tell whether a message that `decode` accepts has a MESSAGE-INTEGRITY made with a key."""
    for start, attribute, value in _walk(data):
        if attribute == Attribute.MESSAGE_INTEGRITY:
            length = start + 4 + _INTEGRITY_BYTES - HEADER_BYTES
            signed = data[:2] + length.to_bytes(2) + data[4:start]
            return hmac.compare_digest(value, hmac.digest(key, signed, "sha1"))
    return False


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """Return the key of the long-term credential mechanism (RFC 8489, 9.2.2).

    Args:
        username: as it is sent.
        realm: the server's.
        password: the secret. None of the three is prepared (RFC 8265); plain ASCII needs it not.
    """
    text = f"{username}:{realm}:{password}".encode()
    return hashlib.md5(text, usedforsecurity=False).digest()  # what the RFC prescribes


def _head(message: Message, length: int) -> bytes:
    if length > _MAX_LENGTH:
        raise ValueError("STUN message is too long")
    method, kind = message.method, message.kind
    bits = method & 0x000F | (method & 0x0070) << 1 | (method & 0x0F80) << 2
    bits |= (kind & 1) << 4 | (kind & 2) << 7
    return _HEADER.pack(bits, length, MAGIC_COOKIE, message.transaction)


def _attribute(kind: int, value: bytes) -> bytes:
    if len(value) > _MAX_LENGTH:
        raise ValueError("STUN attribute is too long")
    return _PAIR.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def _walk(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the offset, type and value of each attribute.

    Raises:
        ValueError: one is longer than the message.
    """
    start = HEADER_BYTES
    while start < len(data):
        kind, length = _PAIR.unpack_from(data, start)
        end = start + 4 + length
        if end > len(data):
            raise ValueError("STUN attribute is longer than its message")
        yield start, kind, data[start + 4 : end]
        start = end + -length % 4


def _fingerprint(data: bytes) -> bytes:
    return (crc32(data) ^ _FINGERPRINT_XOR).to_bytes(4)


def pack_address(address: Address, transaction: bytes) -> bytes:
    """Return the value of an XOR-…-ADDRESS attribute (RFC 8489, 14.2).

    Raises:
        ValueError: the address is no IP address, or the port out of range.
    """
    host, port = address
    if port not in range(0x10000):
        raise ValueError("port is out of range")
    raw = ip_address(host).packed
    family = next(family for family, size in _FAMILIES.items() if size == len(raw))
    return _PAIR.pack(family, port ^ MAGIC_COOKIE >> 16) + _xor(raw, transaction)


def unpack_address(value: bytes, transaction: bytes) -> Address:
    """Return what an XOR-…-ADDRESS attribute holds.

    Raises:
        ValueError: it is malformed.
    """
    host, port = unpack_plain_address(value)
    raw = _xor(ip_address(host).packed, transaction)
    return str(ip_address(raw)), port ^ MAGIC_COOKIE >> 16


def unpack_plain_address(value: bytes) -> Address:
    """Return what an attribute holds that is as MAPPED-ADDRESS (RFC 8489, 14.1).

    Raises:
        ValueError: it is malformed.
    """
    # The first byte is reserved and ignored.
    if len(value) < 4 or _FAMILIES.get(value[1]) != len(value) - 4:
        raise ValueError("STUN address is malformed")
    return str(ip_address(value[4:])), int.from_bytes(value[2:4])


def unpack_text(value: bytes) -> str:
    """Return a text for people, such as a reason phrase or SOFTWARE.

    Some servers count the padding behind it as part of it.
    """
    return value.decode("utf-8", "replace").rstrip("\0 ")


def _xor(raw: bytes, transaction: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(raw, _COOKIE + transaction, strict=False))


def unpack_error(value: bytes) -> tuple[int, str]:
    """Return the number (300 to 699) and text of an ERROR-CODE attribute (RFC 8489, 14.8).

    Raises:
        ValueError: it is malformed.
    """
    if len(value) < 4 or value[2] & 7 not in range(3, 7) or value[3] > 99:
        raise ValueError("STUN error code is malformed")
    return (value[2] & 7) * 100 + value[3], unpack_text(value[4:])


def pack_channel(number: int, data: bytes, *, padded: bool) -> bytes:
    """Return a ChannelData message (RFC 8656, 12.4).

    Args:
        number: the channel.
        data: what to send.
        padded: fill up to a multiple of 4 bytes, as streams need it.

    Raises:
        ValueError: the number is no channel's, or the data too long.
    """
    if number not in CHANNELS or len(data) > 0xFFFF:
        raise ValueError("channel number or data is out of range")
    return _PAIR.pack(number, len(data)) + data + bytes(-len(data) % 4 if padded else 0)


def unpack_channel(data: bytes) -> tuple[int, bytes]:
    """Return the channel number and data of a ChannelData message, padded or not.

    Raises:
        ValueError: it is none.
    """
    if len(data) < 4:
        raise ValueError("channel message is shorter than its header")
    number, length = _PAIR.unpack_from(data)
    if number not in CHANNELS or len(data) not in (4 + length, 4 + length + -length % 4):
        raise ValueError("channel message is malformed")
    return number, data[4 : 4 + length]


class Framer:
    """Cuts a stream (TCP, TLS) into STUN and ChannelData messages.

    It holds less than one message, so at most 64 KiB.
    """

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take a piece of the stream.

        Yields:
            The messages that it completes; ChannelData keeps its padding, see `unpack_channel`.

        Raises:
            ValueError: what comes next is neither; the stream cannot be read any further.
        """
        self._data += data
        return self._frames()

    def _frames(self) -> Iterator[bytes]:
        while len(self._data) >= 4:
            kind, length = _PAIR.unpack_from(self._data)
            if kind in CHANNELS:
                size = 4 + length + -length % 4
            elif kind < CHANNELS.start and _COOKIE.startswith(bytes(self._data[4:8])):
                size = HEADER_BYTES + length
            else:
                raise ValueError("stream holds neither STUN nor channel messages")
            if len(self._data) < size:
                return
            frame = bytes(self._data[:size])
            del self._data[:size]
            yield frame
