"""Room tokens as an ODIN server checks them (wire reference, section 3)."""

from enum import StrEnum
from typing import Final

import msgspec

from odingw.errors import NOT_JSON, OdingwError
from odingw.tokens import SecretKey, TokenError, check_signature, parse

CLOCK_SKEW: Final = 1.0
"""Seconds by which the gateway's clock and the server's may differ."""


class JoinFault(StrEnum):
    """Why a server does not let a client in."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    AUDIENCE = "audience"
    ADDRESS = "address"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    CUSTOMER = "customer"
    ROOM_BANNED = "room_banned"
    USER_BANNED = "user_banned"
    NOT_RUNNING = "not_running"
    UNKNOWN_SERVER = "unknown_server"

    @property
    def is_expected(self) -> bool:
        """Whether this can happen though the gateway and the client did everything right."""
        return self in _EXPECTED


_EXPECTED: Final = frozenset(
    {
        JoinFault.ROOM_BANNED,
        JoinFault.USER_BANNED,
        JoinFault.NOT_RUNNING,
        JoinFault.UNKNOWN_SERVER,
    }
)


class JoinRefused(OdingwError):  # noqa: N818  -- it reads as what happened
    """A server does not let a client in.

    Attributes:
        reason: why.
    """

    def __init__(self, reason: JoinFault, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class RoomClaims(msgspec.Struct, frozen=True):
    """The claims of a room token.

    Attributes:
        uid: the user's id, which may be empty.
        cid: the customer.
        rid: the room or rooms that the token is for, as the client's own token names them.
        nsp: namespace of the rooms.
        adr: address of the server that the token is for.
        sub: what the token is for: ``connect``.
        aud: who the token is for: ``sfu``.
        nbf: unix seconds from which it holds.
        exp: unix seconds until which it holds.
    """

    uid: str
    cid: str
    rid: str | tuple[str, ...]
    nsp: str
    adr: str
    sub: str
    aud: str
    nbf: int
    exp: int

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms that the token is for; the last one is the room that was placed."""
        return (self.rid,) if isinstance(self.rid, str) else self.rid


_claims: Final = msgspec.json.Decoder(RoomClaims)


def check_room_token(token: str, key: SecretKey, address: str, now: float) -> RoomClaims:
    """Return the claims of a good room token.

    Args:
        token: a compact JWS.
        key: the key of the server that checks.
        address: the address of that server.
        now: unix seconds.

    Raises:
        JoinRefused: the token is not good for this server at this time.
    """
    try:
        jws = parse(token)
    except TokenError as wrong:
        raise JoinRefused(JoinFault.MALFORMED, wrong.message) from None
    if jws.header.kid != key.kid:
        raise JoinRefused(JoinFault.UNKNOWN_KEY, "the token is signed with another key")
    if not check_signature(key.public_key, jws):
        raise JoinRefused(JoinFault.SIGNATURE, "the token's signature is wrong")
    claims = read_claims(jws.payload)
    if claims.aud != "sfu":
        raise JoinRefused(JoinFault.AUDIENCE, f"the token is for {claims.aud!r}, not for a server")
    if claims.adr != address:
        raise JoinRefused(JoinFault.ADDRESS, f"the token is for {claims.adr!r}, not {address!r}")
    if now >= claims.exp + CLOCK_SKEW:
        raise JoinRefused(JoinFault.EXPIRED, f"the token expired {now - claims.exp:.0f} s ago")
    if now < claims.nbf - CLOCK_SKEW:
        raise JoinRefused(
            JoinFault.NOT_YET_VALID, f"the token holds in {claims.nbf - now:.0f} s only"
        )
    return claims


def read_claims(payload: bytes) -> RoomClaims:
    """Read the claims of a room token whose signature is somebody else's business.

    Raises:
        JoinRefused: the claims are not those of a room token.
    """
    try:
        claims = _claims.decode(payload.decode())
    except NOT_JSON as wrong:
        raise JoinRefused(JoinFault.CLAIMS, f"the token's claims: {wrong}") from None
    if claims.sub != "connect":
        raise JoinRefused(JoinFault.CLAIMS, f"sub is {claims.sub!r}, not 'connect'")
    if not claims.rooms:
        raise JoinRefused(JoinFault.CLAIMS, "the token is for no room")
    return claims
