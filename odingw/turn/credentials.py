"""Credentials that a TURN server checks with nothing but a shared secret.

draft-uberti-behave-turn-rest-00: the user name begins with the time at which it expires, and the
password is its HMAC. coturn (``use-auth-secret``), eturnal and others take them until then.

What coturn refuses in a user name is percent-encoded here, byte by byte of its UTF-8. So is the
percent sign, so that no two users get the same name. A name that would be too long becomes
``%sha256.`` and the SHA-256 of the user in hexadecimal digits, which is nothing that the encoding
yields: there, two hexadecimal digits follow each percent sign.
"""

import hashlib
import hmac
import re
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.json import Encoder

from odingw.errors import UNAVAILABLE, RpcError
from odingw.turn.settings import MAX_USERNAME, TurnSettings

LAST_EXPIRY: Final = 2**32 - 1
"""The last expiry that coturn takes, in unix seconds: in the year 2106."""

LAST_SIGNED_EXPIRY: Final = 2**31 - 1
"""The last one that it takes before that time, in 2038: it compares them as signed numbers."""

# The expiry has up to ten digits, and a colon follows it.
_MAX_USER: Final = MAX_USERNAME - len(f"{LAST_EXPIRY}:")

# Controls (C0, DEL, C1), what coturn refuses, line separators, surrogates (not valid in UTF-8).
_ENCODED: Final = re.compile("[\x00-\x20\"%'\\\\\x7f-\xa0\u2028\u2029\ud800-\udfff]+")
_PLAIN: Final = re.compile(f"[A-Za-z0-9._@:+/=-]{{0,{_MAX_USER}}}")
_UNION: Final = re.compile("u(?=nion)", re.ASCII | re.IGNORECASE)
_SELECT: Final = re.compile("select", re.ASCII | re.IGNORECASE)


class Credentials(Struct, frozen=True):
    """What a client logs in to a TURN server with.

    Attributes:
        username: the TURN user name.
        password: the TURN password.
        ttl: seconds for which they are good.
    """

    username: str
    password: str
    ttl: int

    def __repr__(self) -> str:
        """Show everything but the password."""
        return f"Credentials(username={self.username!r}, password=…, ttl={self.ttl})"


class _TurnServers(Struct, frozen=True):
    urls: Sequence[str]
    username: str
    credential: str


class _StunServers(Struct, frozen=True):
    urls: Sequence[str]


class _Reply(Struct, frozen=True, rename={"ice_servers": "iceServers"}):
    username: str
    password: str
    ttl: int
    uris: Sequence[str]
    ice_servers: list[_TurnServers | _StunServers]


_encode: Final = Encoder().encode


def issue(
    settings: TurnSettings,
    user: str | None,
    now: int,
    ttl: int | None,
    random_name: Callable[[], str],
) -> Credentials:
    """Make credentials.

    With a forced password they are a static pair: the password as it is, and the user without an
    expiry. A forced user is whose they are, whatever the token says; beside a forced password it is
    handed out as written, since it must be the TURN server's own.
    Otherwise the ttl is cut where the expiry would be one that TURN servers do not take.

    Args:
        settings: the settings in force.
        user: whom the caller names, where no user is forced; None or empty: a random one.
        now: unix seconds.
        ttl: seconds that the caller asks for; None: what is configured.
        random_name: returns 16 random letters and digits.

    Raises:
        ValueError: ``ttl`` is below 1 or above the configured one; the text is one line.
        RpcError: the clock has passed the last expiry that TURN servers take.
    """
    if ttl is None:
        ttl = settings.ttl
    elif not 1 <= ttl <= settings.ttl:
        raise ValueError(f"ttl: {ttl} is not a number of seconds from 1 to {settings.ttl}")
    if settings.forced_password is not None:
        name = settings.forced_user or _name(user, random_name)
        return Credentials(name, settings.forced_password, ttl)
    if now >= LAST_EXPIRY:
        raise RpcError(UNAVAILABLE, "the clock is past the last expiry that TURN servers take")
    expiry = min(now + ttl, LAST_SIGNED_EXPIRY if now < LAST_SIGNED_EXPIRY else LAST_EXPIRY)
    username = f"{expiry}:{_name(settings.forced_user or user, random_name)}"
    digest = hmac.digest(settings.secret_keys[0].encode(), username.encode(), "sha1")
    password = b2a_base64(digest, newline=False).decode("ascii")
    return Credentials(username, password, expiry - now)


def _name(user: str | None, random_name: Callable[[], str]) -> str:
    return clean_user(user) if user else f"user-{random_name()}"


def clean_user(user: str) -> str:
    """Return the user as it stands in a TURN user name; the module says how.

    No two users give the same text, and it has at most 497 bytes.
    """
    if _PLAIN.fullmatch(user) and "select" not in user.lower():
        return user
    # Encoding makes nothing shorter.
    if len(user) > _MAX_USER:
        return _hash(user)
    cleaned = _ENCODED.sub(_percent, user)
    # coturn takes a user name that has both words for an attack on its database.
    if _UNION.search(cleaned) and _SELECT.search(cleaned):
        cleaned = _UNION.sub(_percent, cleaned)
    return cleaned if len(cleaned.encode()) <= _MAX_USER else _hash(user)


def _percent(found: re.Match[str]) -> str:
    return "%" + found[0].encode("utf-8", "surrogatepass").hex("%").upper()


def _hash(user: str) -> str:
    return f"%sha256.{hashlib.sha256(user.encode('utf-8', 'surrogatepass')).hexdigest()}"


def reply_body(
    settings: TurnSettings,
    credentials: Credentials,
    turn_uris: Sequence[str],
    stun_uris: Sequence[str],
) -> bytes:
    """The JSON that clients get: the draft's members, and ``iceServers`` for WebRTC.

    Args:
        settings: the settings in force.
        credentials: what ``issue`` returned.
        turn_uris: the TURN URIs to hand out; empty: all that are configured, since a server that
            seems to be down may not be, and without any the credentials are good for nothing.
        stun_uris: the STUN URIs to hand out; empty: there is no entry for them.
    """
    uris = turn_uris or settings.turn_uris
    servers: list[_TurnServers | _StunServers] = [
        _TurnServers(uris, credentials.username, credentials.password)
    ]
    if stun_uris:
        servers.append(_StunServers(stun_uris))
    return _encode(
        _Reply(credentials.username, credentials.password, credentials.ttl, uris, servers)
    )
