"""TURN and STUN URIs (RFC 7065, RFC 7064): read, completed and put into one form."""

import re
from typing import Final, Literal

from msgspec import Struct

from odingw.hosts import ends_in_number, is_ipv6, is_name

Scheme = Literal["turn", "turns", "stun", "stuns"]
Transport = Literal["udp", "tcp"]

MAX_PORT: Final = 65535

_DEFAULTS: Final[dict[Scheme, tuple[int, Transport]]] = {
    "stun": (3478, "udp"),
    "stuns": (5349, "tcp"),
    "turn": (3478, "udp"),
    "turns": (5349, "tcp"),
}
"""Port and transport where a URI has none; RFC 7064 section 3.2, RFC 7065 section 3.2, RFC 5928."""

_SCHEME = re.compile(r"(turns?|stuns?):", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?![0-9]*(?:\?|\Z))")
_PARTS = re.compile(
    r"(?P<host>\[[^\]]*\]|[^:?\[\]]*)(?::(?P<port>[^:?]*))?(?:\?(?P<query>.*))?", re.DOTALL
)
_TRANSPORT = re.compile(r"transport=(udp|tcp)", re.IGNORECASE)
_SHOWN: Final = 80


class TurnUri(Struct, frozen=True):
    """Where a TURN or STUN server is.

    Attributes:
        scheme: which kind of server, and whether it is spoken to over TLS (or DTLS).
        host: host name or IP address; an IPv6 address has no brackets here.
        port: port, the scheme's default where the URI names none.
        transport: transport protocol, the scheme's default where the URI names none.
        text: the URI as it is handed out: with its scheme, and no part added or left out otherwise.
    """

    scheme: Scheme
    host: str
    port: int
    transport: Transport
    text: str


def parse_uri(text: str, default_scheme: Scheme) -> TurnUri:
    """Read a URI such as ``turn:turn.example.com:3478?transport=udp``.

    Args:
        text: the URI; one that begins with the host gets the default scheme.
        default_scheme: ``turn`` or ``stun``.

    Raises:
        ValueError: it is malformed; the text is one line that names the URI and what to write. A
            URI with a user, which may have a password too, is not repeated.
    """
    if "@" in text:
        raise ValueError(
            f'a user has no place in a URI; write "{default_scheme}:" and the host alone'
        )
    found = _SCHEME.match(text)
    rest = text[found.end() :] if found else text
    scheme: Scheme = _scheme(found[1]) if found else default_scheme
    if not found and _OTHER_SCHEME.match(text) and not is_ipv6(text):
        raise _malformed(text, f'unknown scheme; write "{default_scheme}:" and the host')
    if rest.startswith("//"):
        plain = _shown(f"{scheme}:{rest.lstrip('/')}")
        raise _malformed(text, f'"//" has no place in it; write {plain}')
    if is_ipv6(rest):
        raise _malformed(text, f'an IPv6 address needs brackets; write "{scheme}:[address]:port"')
    parts = _PARTS.fullmatch(rest)
    if parts is None:
        raise _malformed(text, f'write it as "{scheme}:host:port"')
    host = _host(text, parts["host"])
    default_port, default_transport = _DEFAULTS[scheme]
    port = default_port if parts["port"] is None else _port(text, parts["port"])
    transport = default_transport
    normal = f"{scheme}:{parts['host']}"
    if parts["port"] is not None:
        normal += f":{port}"
    if parts["query"] is not None:
        transport = _transport(text, scheme, parts["query"])
        normal += f"?transport={transport}"
    return TurnUri(scheme, host, port, transport, normal)


def _scheme(text: str) -> Scheme:
    return next(scheme for scheme in _DEFAULTS if scheme == text.lower())


def _host(uri: str, text: str) -> str:
    """The host without brackets, once it is one (RFC 3986, section 3.2.2, and DNS's limits)."""
    if not text:
        raise _malformed(uri, "it names no host; write one")
    if text.startswith("["):
        if not is_ipv6(text[1:-1]):
            raise _malformed(uri, "what is in brackets is no IPv6 address; write one, or a name")
        return text[1:-1]
    if not text.isascii():
        raise _malformed(uri, 'the host is not ASCII; write it in its "xn--" form')
    if not is_name(text):
        number = ends_in_number(text)
        what = "not an IPv4 address, nor a name" if number else "neither a name nor an address"
        raise _malformed(uri, f"the host is {what}; write one of these")
    return text


def _port(uri: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= MAX_PORT:
        raise _malformed(uri, f"the port is not a number from 1 to {MAX_PORT}; write one")
    return int(text)


def _transport(uri: str, scheme: Scheme, query: str) -> Transport:
    # RFC 7064 has no query, and browsers throw at one.
    if scheme.startswith("stun"):
        raise _malformed(uri, "a STUN URI ends with host or port; leave out what follows")
    found = _TRANSPORT.fullmatch(query)
    if found is None:
        raise _malformed(
            uri, 'nothing but "?transport=udp" or "?transport=tcp" may follow; write one of these'
        )
    return "udp" if found[1].lower() == "udp" else "tcp"


def _malformed(uri: str, remedy: str) -> ValueError:
    return ValueError(f"{_shown(uri)} cannot be handed out: {remedy}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
