"""Values of the configuration that are written as text: networks, functions, endpoints, URLs.

Every function here raises ``ValueError`` with a text that fits behind ``<file>: <key>: ``; a text
that may hold a secret is never repeated in it.
"""

import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX: Final = "unix"
"""Names the peers on unix sockets among proxies that are trusted; they have no address."""

Trusted: TypeAlias = Network | Literal["unix"]
"""Proxies that are trusted: a network of them, or those on unix sockets."""

MAX_PORT: Final = 65535

RESERVED_POOLS: Final = frozenset(
    {
        "clients",
        "healthz",
        "internal",
        "metrics",
        "monitor",
        "openapi.json",
        "openrpc.json",
        "ping",
        "readyz",
        "rpc.discover",
        "turn",
    }
)
"""Paths of the gateway itself, which a pool of that name would hide."""

_ENDPOINT = re.compile(r"[A-Za-z][A-Za-z0-9_-]*:.", re.DOTALL)
_ENDPOINT_PORT = re.compile(r"(?:haproxy:)*(?:tcp6?|ssl):(?:port=)?([^:=]*)(?::|\Z)")
_INTERFACE_AT: Final = {"tcp": 1, "tcp6": 2, "ssl": 4}
"""Types that listen on an interface, and its place among arguments without names."""

_POOL = re.compile(r"[A-Za-z0-9._-]+")


class Networks(tuple[Network, ...]):
    """IP networks in the order in which they were written."""

    __slots__ = ()

    @classmethod
    def parse(cls, texts: Iterable[object]) -> Self:
        """Read networks or single addresses; bits behind the prefix may be set (``127.0.0.1/8``).

        Raises:
            ValueError: the text begins with the index of the item that is none.
        """
        return cls(_network(index, text) for index, text in enumerate(texts))


class Proxies(tuple[Trusted, ...]):
    """Networks of proxies and, as ``"unix"``, proxies on unix sockets, as they were written."""

    __slots__ = ()

    @classmethod
    def parse(cls, texts: Iterable[object]) -> Self:
        """Read networks as `Networks.parse` does, and ``"unix"``.

        Raises:
            ValueError: the text begins with the index of the item that is neither.
        """
        return cls(
            UNIX if text == UNIX else _network(index, text, f', or "{UNIX}"')
            for index, text in enumerate(texts)
        )


def _network(index: int, text: object, others: str = "") -> Network:
    try:
        if not isinstance(text, str):
            raise ValueError
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"[{index}]: {shown(text)} is not a network; "
            f'write an address or a network such as "10.0.0.0/8" or "::1/128"{others}'
        ) from None


class FunctionReference(Struct, frozen=True, kw_only=True):
    """Where a Python function is found: in a module on ``sys.path`` or in a file.

    Attributes:
        name: the function's name.
        module: dotted name of its module, or None.
        path: its file, or None; exactly one of the two is given.
    """

    name: str
    module: str | None = None
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``package.module:name`` or ``file.py:name``.

        Raises:
            ValueError: it is neither.
        """
        where, _, name = text.rpartition(":")
        if name.isidentifier() and "\0" not in where:
            if where.endswith(".py"):
                return cls(name=name, path=Path(where))
            if all(part.isidentifier() for part in where.split(".")):
                return cls(name=name, module=where)
        raise ValueError(
            f'{shown(text)} names no function; write "package.module:name" or "file.py:name"'
        )


def state_folder() -> Path:
    """Return the folder for what must survive a restart: systemd's, else the working directory."""
    return Path(os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or ".").resolve()


def check_endpoints(texts: Iterable[str]) -> None:
    """Refuse what cannot be a Twisted endpoint string; its arguments are the endpoint's affair.

    Raises:
        ValueError: the text begins with the index of the item.
    """
    wanted = 'write an endpoint such as "tcp:7000" or "unix:/run/odingw.sock"'
    for index, text in enumerate(texts):
        if not _ENDPOINT.match(text):
            raise ValueError(f"[{index}]: {shown(text)} is not an endpoint string; {wanted}")
        port = _ENDPOINT_PORT.match(text)
        if port and not is_port(port[1]):
            raise ValueError(f"[{index}]: {shown(port[1])} is not a port; write 0 to {MAX_PORT}")


def is_port(text: str) -> bool:
    """Whether it is a TCP port in decimal digits; 0 stands for any free one."""
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and int(text) <= MAX_PORT


def check_pool(name: str) -> None:
    """Refuse a pool name that cannot be the first segment of a path, or is one of ours.

    Raises:
        ValueError: says which.
    """
    if not _POOL.fullmatch(name) or name in {".", ".."}:
        raise ValueError(
            f"{shown(name)} cannot be a pool; write letters, digits, dots, dashes, underscores"
        )
    if name in RESERVED_POOLS:
        raise ValueError(f"{shown(name)} is a path of the gateway itself; choose another name")


def check_http_url(url: str) -> None:
    """Refuse what is not an absolute ``http`` or ``https`` URL.

    Raises:
        ValueError: the URL is not repeated, as it may hold a password.
    """
    wanted = 'write a URL such as "https://example.com/customers.json"'
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"the scheme is neither http nor https; {wanted}")
    split_url(url, wanted)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this very host (RFC 6761, section 6.3)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_forgeable(url: str) -> bool:
    """Whether what an http or https URL answers can be changed on the way."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def is_within_reach(endpoint: str) -> bool:
    """Whether other hosts may reach an endpoint, as far as its string tells."""
    kind, _, text = re.sub("^haproxy:", "", endpoint, flags=re.IGNORECASE).partition(":")
    kind = kind.lower()
    if kind == "unix":
        return False
    if kind not in _INTERFACE_AT:
        # Of a socket from elsewhere, or another type's endpoint, the string tells nothing.
        return True
    # As Twisted reads it: a backslash stands before a colon that is part of a value.
    values = [re.sub(r"\\(.)", r"\1", one) for one in re.split(r"(?<!\\):", text)]
    named = [value.partition("=")[2] for value in values if value.startswith("interface=")]
    unnamed = [value for value in values if "=" not in value]
    at = _INTERFACE_AT[kind]
    return not is_loopback((named or unnamed[at : at + 1] or [""])[0])


def split_url(url: str, wanted: str) -> tuple[SplitResult, str, int | None]:
    """Split a URL; return its parts, its host, and its port if there is one.

    Args:
        url: the URL, of one host.
        wanted: says what to write instead, for the error.

    Raises:
        ValueError: no host is named, or something is malformed; the URL is not repeated.
    """
    check_characters(url, wanted)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Its text may repeat the part with the password.
        raise ValueError(f"malformed host or port; {wanted}") from None
    if not host:
        raise ValueError(f"no host is named; {wanted}")
    return parts, host, port


def check_characters(url: str, wanted: str) -> None:
    """Refuse characters that no URL has; urlsplit drops some of them without a word.

    Raises:
        ValueError: there are some.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"it holds a character that must be percent-encoded; {wanted}")


def shown(value: object) -> str:
    """Return a value as it is written, cut, on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"
