"""Where ``/internal`` is served, which hands out private keys; and what follows from that.

By default on an endpoint of its own that only this host reaches. A proxy on this host that leaves
no trace makes its clients look like this host, so the public endpoints serve it by consent alone:
where users are named, or somebody wrote whom to trust.
"""

import re
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from odingw.config.parts import UNIX, Network, Networks
from odingw.config.sections import Config

INTERNAL_PORT: Final = 7002

DEFAULT_INTERNAL: Final = f"tcp:{INTERNAL_PORT}:interface=127.0.0.1"
"""Where ``/internal`` is served if nobody says otherwise."""

_ADD_NETWORKS: Final = "for ODIN servers elsewhere add their networks to gateway.internal.allow"
_FOR_OTHERS: Final = f"{_ADD_NETWORKS}, and set gateway.internal.users"

LOOPBACK: Final = Networks.parse(("127.0.0.0/8", "::1/128"))


class Place(Enum):
    """Where ``/internal`` is served.

    Attributes:
        OWN: on the endpoints of ``listen.internal``, and nowhere else.
        PUBLIC: on the public endpoints, as ``gateway.internal`` names users or networks.
        DEFAULT: on ``DEFAULT_INTERNAL`` alone.
        NOWHERE: only TURN is configured.
    """

    OWN = "own"
    PUBLIC = "public"
    DEFAULT = "default"
    NOWHERE = "nowhere"


def internal_place(config: Config) -> Place:
    """Return where ``/internal`` is served."""
    internal = config.gateway.internal
    if config.listen.internal:
        return Place.OWN
    if internal.users or internal.allow:
        return Place.PUBLIC
    return Place.NOWHERE if is_turn_alone(config) else Place.DEFAULT


def is_turn_alone(config: Config) -> bool:
    """Tell whether TURN is configured, and nobody who could ever be let into a room."""
    gateway = config.gateway
    return config.turn is not None and not (
        gateway.customers
        or gateway.customer_source is not None
        or gateway.unknown_customers != "forbidden"
    )


def internal_endpoints(config: Config) -> tuple[str, ...]:
    """Return the endpoints that serve ``/internal``; an empty tuple: none does."""
    return {
        Place.OWN: config.listen.internal,
        Place.PUBLIC: config.listen.public,
        Place.DEFAULT: (DEFAULT_INTERNAL,),
        Place.NOWHERE: (),
    }[internal_place(config)]


def internal_networks(config: Config) -> Networks:
    """Return the networks whose calls ``/internal`` takes."""
    return config.gateway.internal.allow or LOOPBACK


def takes_reports(config: Config) -> bool:
    """Tell whether ODIN servers that are known from before may go on to report where they did.

    On the default endpoint they may, if they happen to call it; nobody has said so.
    """
    if internal_place(config) in (Place.DEFAULT, Place.NOWHERE):
        return False
    # Without users nothing that came through a PROXY line is taken.
    return bool(config.gateway.internal.users) or not all(
        is_proxied(endpoint) for endpoint in internal_endpoints(config)
    )


def is_proxied(endpoint: str) -> bool:
    """Tell whether connections to an endpoint begin with a PROXY line."""
    return endpoint.lower().startswith("haproxy:")


def trusts_unix_sockets(config: Config) -> bool:
    """Tell whether peers on unix sockets, which are on this host, may call without users.

    On a public endpoint that takes somebody's word that this host is trusted.
    """
    allow = config.gateway.internal.allow
    return internal_place(config) is not Place.PUBLIC or any(
        address in network
        for network in allow
        for address in (IPv4Address("127.0.0.1"), IPv6Address("::1"))
        if address.version == network.version
    )


def served(config: Config) -> str:
    """Return where ``/internal`` is served and for whom, for the log."""
    place, users = internal_place(config), config.gateway.internal.users
    if place is Place.NOWHERE:
        return (
            "/internal is not served: only TURN is configured. To serve it anyway, set "
            "listen.internal"
        )
    alone = " alone" if place is not Place.PUBLIC else ""
    networks = ", ".join(map(str, internal_networks(config)))
    if users:
        whom = f"callers from {networks} that have a password of gateway.internal.users"
    else:
        whom = f"callers from {networks} only, and none that show a proxy's traces"
    others = ""
    if all(network.is_loopback for network in internal_networks(config)):
        others = f"; {_ADD_NETWORKS if users else _FOR_OTHERS}"
    endpoints = ", ".join(internal_endpoints(config))
    if str(INTERNAL_PORT) not in endpoints:
        alone += f", not on port {INTERNAL_PORT}"
    return f"/internal is served on {endpoints}{alone}, and accepts {whom}{others}"


def trusted(config: Config) -> str | None:
    """Return what to warn of where public endpoints serve ``/internal`` without users."""
    internal = config.gateway.internal
    shared = [
        endpoint
        for endpoint in internal_endpoints(config)
        if endpoint in config.listen.public
        and not is_proxied(endpoint)
        and (trusts_unix_sockets(config) or not is_unix(endpoint))
    ]
    if internal.users or not shared:
        return None
    who = ", ".join(map(str, internal_networks(config)))
    if trusts_unix_sockets(config):
        who += " or on unix sockets"
    key = "listen.internal" if config.listen.internal else "gateway.internal.allow"
    return (
        f"/internal, which hands out private keys, is served on the public endpoints "
        f"{', '.join(shared)} without users, as {key} says: that trusts every program at {who}, "
        "and opens it to whoever comes through a proxy (nginx 1.29.7 or newer, as it comes), "
        "forwarder or tunnel there that leaves no trace; set gateway.internal.users, or name "
        "endpoints for it alone in listen.internal"
    )


def contradiction(config: Config) -> str | None:
    """Return what to warn of where ``/internal`` takes nobody from a network that it is open to.

    Without users, a trusted proxy may not call it; ODIN servers beside one have its address.
    """
    if config.gateway.internal.users:
        return None
    proxies = config.listen.trusted_proxies
    endpoints = [one for one in internal_endpoints(config) if not is_proxied(one)]
    refused = [UNIX] if UNIX in proxies and any(map(is_unix, endpoints)) else []
    if not all(map(is_unix, endpoints)):
        refused += [
            str(proxy)
            for proxy in proxies
            if not isinstance(proxy, str)
            and any(_meet(proxy, network) for network in internal_networks(config))
        ]
    if not refused:
        return None
    return (
        f"/internal refuses ODIN servers at {', '.join(refused)}, as listen.trusted_proxies has "
        "that and there are no users; set gateway.internal.users (to keep /internal where it is, "
        "set listen.internal too), or let the proxy come another way, over a unix socket say"
    )


def _meet(proxy: Network, network: Network) -> bool:
    """Tell whether a proxy's network takes all of another one, or this host's part of it."""
    if proxy.version != network.version or not proxy.overlaps(network):
        return False
    return network.prefixlen >= proxy.prefixlen or proxy.is_loopback


def is_unix(endpoint: str) -> bool:
    """Tell whether the peers at an endpoint come over a unix socket."""
    inner = endpoint.lower().removeprefix("haproxy:")
    return inner.startswith("unix:") or (
        inner.startswith("systemd:") and re.search(r":(domain=)?unix(:|$)", inner) is not None
    )


def addressless(config: Config) -> str | None:
    """Return what to warn of where limits by address meet peers that have none; None: nothing."""
    listen, limits = config.listen, config.limits
    if UNIX in listen.trusted_proxies:
        return None
    keys = [
        f"limits.{key}"
        for key in ("connections_per_address", "requests_per_second")
        if getattr(limits, key)
    ]
    served = internal_endpoints(config)
    if keys:
        served += (*listen.public, *listen.admin)
    if config.gateway.internal.allow:
        keys.append("gateway.internal.allow")
    endpoints = dict.fromkeys(filter(is_unix, served))
    if not keys or not endpoints:
        return None
    return (
        f"who comes over a unix socket has no address, so {' and '.join(keys)} cannot tell callers "
        f"apart on {', '.join(endpoints)}; if a proxy there sets X-Forwarded-For, add "
        f'"{UNIX}" to listen.trusted_proxies'
    )


def ways_out(config: Config) -> str:
    """Return what a caller is told on an endpoint that does not serve ``/internal``."""
    if internal_place(config) is Place.OWN:
        return "/internal is not served here, but on the endpoints of listen.internal"
    where = f"on port {INTERNAL_PORT} of 127.0.0.1, for callers on that host"
    if internal_place(config) is Place.NOWHERE:
        where = "nowhere, as only TURN is configured"
    return (
        f"/internal is not served here, but {where}; to have it here set gateway.internal.users "
        "and gateway.internal.allow, or name endpoints for it in listen.internal"
    )


def remedies(config: Config, path: str) -> str:
    """Return what lets a server on this host report that was refused on a public endpoint.

    Args:
        config: the configuration.
        path: what it called.
    """
    if internal_place(config) is Place.OWN:
        return f"let it call {path} on an endpoint of listen.internal: " + ", ".join(
            config.listen.internal
        )
    allow = (
        'set gateway.internal.allow = ["127.0.0.0/8"], which opens /internal, and with it the '
        "private keys of all ODIN servers, to whoever reaches a public endpoint through a proxy, "
        "forwarder or tunnel on this host that leaves no trace"
    )
    if internal_place(config) is Place.NOWHERE:
        return f'write listen.internal = ["{DEFAULT_INTERNAL}"] and {_moved(path)}, or {allow}'
    return f"{_moved(path)}, or {allow}"


def _moved(path: str) -> str:
    return f"change its URL to http://127.0.0.1:{INTERNAL_PORT}{path}"


def of_known_servers(config: Config, count: int, before: str = "") -> str | None:
    """Return what to warn of if servers are known from before; None: nothing.

    Args:
        config: the configuration.
        count: how many are known.
        before: the endpoints that served ``/internal`` when they last reported, as far as is known.
    """
    if not count or takes_reports(config):
        return None
    if before == DEFAULT_INTERNAL and internal_place(config) is Place.DEFAULT:
        return None
    servers = "one ODIN server" if count == 1 else f"{count} ODIN servers"
    known = f"the state knows {servers} from before, "
    place = internal_place(config)
    if place is Place.DEFAULT:
        return (
            f"{known}and /internal is served on {DEFAULT_INTERNAL} alone: those that call another "
            f"port or come from another host are refused; let them call port {INTERNAL_PORT}, and "
            f'write listen.internal = ["{DEFAULT_INTERNAL}"] to end this warning, or set '
            "gateway.internal.users and gateway.internal.allow"
        )
    if place is Place.NOWHERE:
        return (
            f"{known}but only TURN is configured, so /internal is served nowhere and they cannot "
            "report; add a customer, or set gateway.internal.users or listen.internal"
        )
    return (
        f"{known}but every endpoint of /internal expects PROXY lines, and without users nothing "
        "that came through one is taken, so they cannot report; set gateway.internal.users, or "
        "name an endpoint without haproxy: in listen.internal"
    )
