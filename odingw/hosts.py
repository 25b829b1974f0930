"""What names a host: a name (RFC 1123, section 2.1) or an IP address (RFC 3986, section 3.2.2)."""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

_LONGEST: Final = 253
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


def is_host(text: str) -> bool:
    """Tell whether it is a name, an IPv4 address, or an IPv6 address in brackets."""
    if text.startswith("[") and text.endswith("]"):
        return is_ipv6(text[1:-1])
    return is_name(text)


def is_name(text: str) -> bool:
    """Tell whether it is a name or an IPv4 address.

    Names may have ``_``, as those of containers do, and a dot at the end.
    """
    if ends_in_number(text):
        return is_ipv4(text)
    name = text.removesuffix(".")
    return len(name) <= _LONGEST and all(map(_LABEL.fullmatch, name.split(".")))


def ends_in_number(text: str) -> bool:
    """Tell whether a host is taken for an IPv4 address (URL Standard, section 3.5)."""
    return _NUMBER.fullmatch(text.removesuffix(".").rpartition(".")[2]) is not None


def is_ipv4(text: str) -> bool:
    """Tell whether it is an IPv4 address: four numbers without zeros in front."""
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def is_ipv6(text: str) -> bool:
    """Tell whether it is an IPv6 address (RFC 4291, section 2.2), without brackets."""
    try:
        # A zone means something on one host only.
        return IPv6Address(text).scope_id is None
    except ValueError:
        return False
