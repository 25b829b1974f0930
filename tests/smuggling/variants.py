"""Requests that two parsers may read differently (request smuggling), and how they are to be read.

Each carries a second request, :data:`HIDDEN`, that only a wrong reading finds, or one that a proxy
is to see too. They come from what is publicly known of this class of faults; sections are those of
RFC 9112.
"""

import json
from enum import Enum
from typing import Final, NamedTuple

Seen = tuple[bytes, bytes, bytes]
"""Method, target and body of a request; an empty target is any."""


class Then(Enum):
    """What follows the requests of a variant."""

    MORE = "the connection goes on"
    REFUSAL = "what comes next is refused and the connection ends"
    EITHER = "the first request is refused, or all are answered and the connection goes on"
    END = "the last request is answered and the connection ends"
    BODY = "all that follows is body: no answer until there is too much, or for too long"


class Variant(NamedTuple):
    """Bytes on a connection.

    Attributes:
        name: says what is odd.
        data: the bytes.
        requests: those in it, as RFC 9112 reads them, before anything that is refused.
        then: what follows them.
    """

    name: str
    data: bytes
    requests: tuple[Seen, ...] = ()
    then: Then = Then.REFUSAL


HIDDEN_CALL: Final = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "sfu.GridConfig",
        "params": {"version": "1.5.0", "config": "", "public_endpoint": "hidden.test:4433"},
    }
).encode()

HIDDEN: Final = b"POST /internal HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (
    len(HIDDEN_CALL),
    HIDDEN_CALL,
)
"""Asks for a private key, and gets it where whoever is on this host may call ``/internal``."""

HIDDEN_SEEN: Final = (b"POST", b"/internal", HIDDEN_CALL)
CHUNKED: Final = b"Transfer-Encoding: chunked"


def post(*lines: bytes, body: bytes = b"", target: bytes = b"/") -> bytes:
    """Return a POST with these header lines."""
    head = [b"POST " + target + b" HTTP/1.1", b"Host: localhost", *lines]
    return b"\r\n".join([*head, b"", b""]) + body


def get(*lines: bytes, target: bytes = b"/ping", method: bytes = b"GET") -> bytes:
    """Return a GET with these header lines."""
    return b"\r\n".join(
        [method + b" " + target + b" HTTP/1.1", b"Host: localhost", *lines, b"", b""]
    )


def length(data: bytes) -> bytes:
    """Return the header line."""
    return b"Content-Length: %d" % len(data)


def chunk(data: bytes) -> bytes:
    """Return data as one chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
POSTED: Final = (b"POST", b"/", b"")
HIDING: Final = (b"POST", b"/", HIDDEN)
PING: Final = (b"GET", b"/ping", b"")
