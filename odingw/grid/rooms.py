"""Room names, their bases and hashes (wire reference, section 5)."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import TypeAlias

from odingw.errors import Reason, Refused

RoomId: TypeAlias = tuple[str, str]
"""Namespace and full name of a room."""

BaseId: TypeAlias = tuple[str, str]
"""Namespace and base of a room: what lives on one server."""


def base_of(name: str) -> str:
    """Return the part of a room name that decides where the room lives.

    It runs from the first ``{`` up to, not including, the next ``}``; a name without such a pair
    is its own base.
    """
    start = name.find("{")
    if start < 0:
        return name
    end = name.find("}", start)
    return name if end < 0 else name[start:end]


def common_base(names: Sequence[str]) -> str:
    """Return the base that all names share.

    Raises:
        Refused: there is no name (``rid_empty``), or the bases differ (``rid_base_mismatch``).
    """
    if not names:
        raise Refused(Reason.RID_EMPTY)
    base = base_of(names[0])
    for name in names[1:]:
        if base_of(name) != base:
            raise Refused(Reason.RID_BASE_MISMATCH)
    return base


def room_hash(namespace: str, name: str) -> str:
    """Return the hash by which the existing gateway's tools know a room, base64 of SHA-256.

    Each part is led by its length in one byte. Where a part is longer than 255 bytes, so that the
    byte wraps, both lengths follow in full and no two rooms share a hash.
    """
    parts = (namespace.encode(), base_of(name).encode())
    text = b"".join(bytes((len(part) % 256,)) + part for part in parts)
    if any(len(part) > 255 for part in parts):
        text += b"".join(len(part).to_bytes(8, "big") for part in parts)
    return b64encode(sha256(text).digest()).decode()
