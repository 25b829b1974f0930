"""Origins whose pages may ask for credentials, as browsers write them (RFC 6454, section 6.1)."""

import re
import socket
from ipaddress import IPv6Address
from typing import Final

from odingw.documents import unseen
from odingw.hosts import ends_in_number
from odingw.turn.uris import MAX_PORT

ANY_ORIGIN: Final = ("*",)
"""The pages of all origins."""

_WITHOUT_HOST: Final = ("null", "file://")
"""What a page without an origin of its own sends, and one from a file in an app's web view."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_NAME: Final = re.compile(r"(?=.{1,254}\Z)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
"""Browsers take more than RFC 1123 does, and DNS can carry it; apps name hosts as they like."""

_OF_NO_PAGE: Final = frozenset({"ws", "wss", "ftp", "blob", "data", "about", "javascript"})
"""Schemes of what is no page, or has no origin of its own."""

_WANTED: Final = 'write an origin such as "https://app.example.com"'


def check_origin(text: str) -> str:
    """Return an origin in the form that browsers send, which is compared byte by byte.

    Args:
        text: the origin; capital letters are made small.

    Raises:
        ValueError: no browser would send it; the text says why, and what to write.
    """
    origin = text.lower()
    if char := unseen(origin):
        raise ValueError(f"it holds {char}, which nobody sees; {_WANTED}")
    if origin in _WITHOUT_HOST:
        return origin
    if "*" in origin:
        raise ValueError(f"browsers know no patterns, only whole origins; {_WANTED}")
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        raise ValueError(f"not a scheme, a host in ASCII, perhaps a port, and no more; {_WANTED}")
    scheme, host, port = found["scheme"], found["host"], found["port"]
    if scheme in _OF_NO_PAGE:
        raise ValueError(f"no page has its scheme; {_WANTED}")
    sent = f"{scheme}://{_host(host) if scheme in _DEFAULT_PORTS else host}"
    if port is not None:
        if int(port) not in range(1, MAX_PORT + 1):
            raise ValueError(f"the port is not a number from 1 to {MAX_PORT}; {_WANTED}")
        if int(port) != _DEFAULT_PORTS.get(scheme):
            sent += f":{int(port)}"
    if sent != origin:
        raise ValueError(f'browsers call it otherwise; write "{sent}"')
    return origin


def _host(text: str) -> str:
    """Return a host as browsers write it (URL Standard, host serializing).

    Raises:
        ValueError: it is no host.
    """
    try:
        if text.startswith("["):
            return f"[{_ipv6(IPv6Address(text[1:-1]))}]"
        if ends_in_number(text):
            # They read it as BSD did: in one to four parts, octal with 0 in front, hex with 0x.
            return socket.inet_ntoa(socket.inet_aton(text.removesuffix(".")))
    except (ValueError, OSError):
        pass
    else:
        if _NAME.fullmatch(text):
            return text
    raise ValueError(f"its host is no IP address, nor a name; {_WANTED}")


def _ipv6(address: IPv6Address) -> str:
    """Return an address as browsers write it: none of its parts is an IPv4 address."""
    if address.ipv4_mapped is None:
        return address.compressed
    high, low = divmod(int(address.ipv4_mapped), 2**16)
    return f"::ffff:{high:x}:{low:x}"
