"""Whom a request is for: request targets (RFC 9112, section 3.2) and ``Host`` (RFC 9110, 7.2)."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from odingw.web.address import Address, parse_address

_LONGEST: Final = 300
"""Bytes of what is kept; a name of the DNS has at most 255 characters."""

_AUTHORITY: Final = re.compile(
    rb"(?P<name>\[[0-9A-Fa-f:.]+\]"
    # An underscore is no letter of host names, but it is one of a URI's (RFC 3986, 3.2.2), and
    # containers have names with it.
    rb"|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)"
    rb"(?::(?P<port>[0-9]*))?"
)
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*)([/?][^#]*)?")


class Host(NamedTuple):
    """Host and port as a URI has them.

    Attributes:
        name: in lower case; an IPv6 address has no brackets. Empty: the one that there is.
        port: its digits; empty where none is given.
    """

    name: str
    port: str

    @property
    def address(self) -> Address | None:
        """The IP address that the name is, if any."""
        return None if "%" in self.name else parse_address(self.name)


def parse_host(value: bytes) -> Host | None:
    """Read the value of ``Host``, or the authority of a URI without user; None if it is malformed.

    An empty value is a good ``Host``: the target has no authority (RFC 9112, section 3.2). One that
    is a port alone is not: an ``http`` URI has a host (RFC 9110, section 4.2.1).
    """
    return (_parse_host if len(value) <= _LONGEST else _parse_host.__wrapped__)(value)


@lru_cache(1000)
def _parse_host(value: bytes) -> Host | None:
    if not value:
        return Host("", "")
    match = _AUTHORITY.fullmatch(value)
    if match is None:
        return None
    name = match["name"].decode().lower()
    if name.startswith("["):
        name = name[1:-1]
        if ":" not in name or parse_address(name) is None:
            return None
    return Host(name, (match["port"] or b"").decode())


def check_host(values: Sequence[bytes], version: bytes) -> None:
    """See that a request has the ``Host`` that RFC 9112, section 3.2, demands.

    Args:
        values: of its ``Host`` headers.
        version: ``HTTP/1.0``, which needs none, or ``HTTP/1.1``.

    Raises:
        ValueError: it is missing, doubled or malformed.
    """
    if len(values) != 1:
        if values:
            raise ValueError("the request has more than one Host")
        if version != b"HTTP/1.0":
            raise ValueError("the request has no Host")
    elif parse_host(values[0]) is None:
        raise ValueError("the Host of the request is malformed")


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """Return path and query of a request target, and the authority where it has one.

    ``*`` becomes a path: the root where OPTIONS asks for the server as a whole, else one that is
    not there. A target in a form that is not served is returned as it is, and begins with no slash.

    Raises:
        ValueError: it is an ``http`` or ``https`` URI that is malformed.
    """
    if target.startswith(b"/"):
        return target, None
    if target == b"*":
        return (b"/" if method == b"OPTIONS" else b"/*"), None
    if target[:7].lower() != b"http://" and target[:8].lower() != b"https://":
        return target, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not match[1] or parse_host(match[1]) is None:
        raise ValueError("the URI of the request is malformed")
    rest: bytes = match[2] or b""
    return (rest if rest.startswith(b"/") else b"/" + rest), match[1]
