"""Origins whose pages may ask for credentials, as browsers write them (RFC 6454, section 6.1)."""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from odingw.turn.uris import MAX_PORT

ANY_ORIGIN: Final = ("*",)
"""The pages of all origins."""

_OPAQUE: Final = "null"
"""What a page without an origin of its own sends, such as one from a file."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_WANTED: Final = 'write an origin such as "https://app.example.com"'


def check_origin(text: str) -> str:
    """Return an origin in the form that browsers send, which is compared byte by byte.

    Args:
        text: the origin; capital letters are made small.

    Raises:
        ValueError: no browser would send it; the text says why, and what to write.
    """
    origin = text.lower()
    if origin == _OPAQUE:
        return origin
    if "*" in origin:
        raise ValueError(f"browsers know no patterns, only whole origins; {_WANTED}")
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        raise ValueError(f"not a scheme, a host in ASCII, perhaps a port, and no more; {_WANTED}")
    scheme, host, port = found["scheme"], found["host"], found["port"]
    sent = f"{scheme}://{_host(host)}"
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
            return f"[{IPv6Address(text[1:-1]).compressed}]"
        if text.rstrip(".").rpartition(".")[2].isdigit():
            return str(IPv4Address(text))
    except ValueError:
        raise ValueError(f"its host is no IP address, nor a name; {_WANTED}") from None
    return text
