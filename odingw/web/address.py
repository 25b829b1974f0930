"""Whose address a request comes from, when proxies in front of the gateway tell theirs."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_address,
    ip_network,
)
from typing import Any, Final, TypeAlias

from twisted.web.http import Request

from odingw.config.parts import UNIX, Trusted

Address: TypeAlias = IPv4Address | IPv6Address


UNKNOWN: Final = IPv4Address(0)
"""The address of somebody of whom a proxy tells nothing that can be read."""

_THIS_HOST: Final = IPv4Address("127.0.0.1")

_UNIX_HOP: Final = "unix:"
"""What nginx calls a client of its own on a unix socket."""

_LONGEST: Final = 64
"""Characters of an address with its zone. What is kept must not be as long as strangers like."""


def parse_address(text: str) -> Address | None:
    """Read an IP address; one that is IPv4 in IPv6 clothes becomes plain. None if it is none."""
    return _parse_address(text) if len(text) <= _LONGEST else None


@lru_cache(10_000)
def _parse_address(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def block_of(text: str) -> str:
    """Return what one household has: an IPv4 address, or the 2^64 addresses of an IPv6 network.

    Limits by address count these as one. What is no address is returned as it is.
    """
    return _block_of(text) if len(text) <= _LONGEST else text


@lru_cache(10_000)
def _block_of(text: str) -> str:
    address = parse_address(text)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return text if address is None else str(address)


def within(address: Address | None, networks: Sequence[Trusted]) -> bool:
    """Tell whether an address is in one of the networks; None never is."""
    return address is not None and any(
        not isinstance(network, str) and address.version == network.version and address in network
        for network in networks
    )


def is_trusted(peer: Address | None, trusted: Sequence[Trusted]) -> bool:
    """Tell whether a peer, None on a unix socket, is a proxy that is trusted."""
    return UNIX in trusted if peer is None else within(peer, trusted)


def socket_peer(request: Request) -> Address | None:
    """Return the address at the other end of the request's own socket; None: a unix socket."""
    transport: Any = request.transport
    while (inner := getattr(transport, "transport", None)) is not None:
        transport = inner
    return parse_address(getattr(transport.getPeer(), "host", ""))


def client_address(request: Request, trusted: Sequence[Trusted]) -> Address | None:
    """Return the address that the request comes from; None: a unix socket.

    Args:
        request: the request.
        trusted: proxies whose PROXY line, or else ``X-Forwarded-For``, is believed. What stands
            left of the first address that is not theirs may be anybody's invention.

    Returns:
        The address; ``UNKNOWN`` where a proxy tells one that cannot be read. A trusted proxy that
        tells none is the client itself; on a unix socket it is this host.
    """
    peer = socket_peer(request)
    if not trusted or not is_trusted(peer, trusted):
        return peer
    told = parse_address(getattr(request.getClientAddress(), "host", ""))
    if told != peer:
        # A proxy's own client may have come over a unix socket; it has not come over ours.
        return UNKNOWN if told is None else told
    headers = request.requestHeaders.getRawHeaders(b"x-forwarded-for", [])
    hops = b",".join(headers).decode("latin-1").split(",") if headers else []
    for hop in reversed(hops):
        text = hop.strip()
        if text == _UNIX_HOP and UNIX in trusted:
            continue
        address = _parse_hop(text)
        if address is None:
            return UNKNOWN
        if not within(address, trusted):
            return address
        peer = address
    return _THIS_HOST if peer is None else peer


def _parse_hop(text: str) -> Address | None:
    """Read an address to which a proxy may have added brackets and a port."""
    if text.startswith("["):
        return parse_address(text[1:].partition("]")[0])
    host, colon, _ = text.partition(":")
    if colon and text.count(":") == 1:
        return parse_address(host)
    return parse_address(text)
