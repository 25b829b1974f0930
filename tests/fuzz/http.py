"""HTTP: the Site against h11, on one connection, in pieces of any size."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, TypeAlias
from zlib import crc32

import h11
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from odingw.web.host import split_target
from tests.fuzz.site import TOKEN, Endpoint, Talk

_BASIC: Final = b"c2Z1OnBhc3N3b3Jk"
_LARGEST: Final = 20_000

Reply: TypeAlias = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers and body."""

# h11 wants printable ASCII, and sizes of few digits. The Site does not mind, and where a request
# ends is the same.
_ASCII: Final = bytes(
    byte if byte in b"\0\t\n\r" or 32 <= byte < 127 else 126 for byte in range(256)
)
_ZEROS: Final = re.compile(r"illegal chunk header: .*'0{12}")
_TRAILERS: Final = "trailers"
# h11 insists on good trailers, which are thrown away here. An empty line ahead of a request is
# ignored, as it should be (RFC 9112, section 2.2).
_BENIGN: Final = ("no request line received", _TRAILERS)
_IN_CHUNKS: Final = ("illegal chunk header", "malformed chunk footer", "peer unexpectedly")


@cache
def _endpoint(*roles: str) -> Endpoint:
    return Endpoint(roles)


def public(data: bytes) -> None:
    """All that a peer sends to the public endpoint; ``@T`` is a token, ``@B`` a password."""
    _exchange(_endpoint("public", "internal"), data, same_length=True)


def admin(data: bytes) -> None:
    """All that a peer sends to the admin endpoint."""
    # Its pages tell times and counts.
    _exchange(_endpoint("admin"), data, same_length=False)


def _exchange(endpoint: Endpoint, data: bytes, *, same_length: bool) -> None:
    data = data.replace(b"@T", TOKEN.encode()).replace(b"@B", _BASIC)[:_LARGEST]
    events: list[LogEvent] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    try:
        whole = endpoint.talk([data])
        cut = endpoint.talk(_pieces(data))
    except BaseException:
        # What it left behind is not the fault of the next input.
        _endpoint.cache_clear()
        raise
    finally:
        globalLogPublisher.removeObserver(observer)
    for event in events:
        assert event["log_level"] < LogLevel.error, formatEvent(event)
    heads = b"HEAD " in data
    replies, others = _replies(whole, heads=heads), _replies(cut, heads=heads)
    assert whole.seen == cut.seen, "it matters how requests are cut"
    for one, other in zip(replies, others, strict=True):
        assert _outline(one, same_length) == _outline(other, same_length), "replies differ"
    _check_bounds(whole, endpoint)
    _check_seen(whole, *_requests(data))


def _pieces(data: bytes) -> Iterator[bytes]:
    """Cut in some dozens of pieces, or into bytes, in a way that the input itself decides."""
    size = 1 + crc32(data) % 50 if len(data) > 60 else 1
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _requests(data: bytes) -> tuple[list[tuple[bytes, bytes, bytes]], str]:
    """What h11 makes of it: whole requests, and what it finds wrong with the next."""
    peer = h11.Connection(h11.SERVER)
    found: list[tuple[bytes, bytes, bytes]] = []
    request, body = None, b""
    try:
        peer.receive_data(data.removeprefix(b"\r\n").translate(_ASCII))
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                found.append((request.method, request.target, body))
                peer.send(h11.Response(status_code=404, headers=[(b"content-length", b"0")]))
                peer.send(h11.EndOfMessage())
                if peer.our_state is not h11.DONE:
                    return found, ""
                peer.start_next_cycle()
                request = None
            else:
                return found, ""
    except h11.RemoteProtocolError as error:
        fault = str(error) or "malformed"
    if request is not None and not fault.startswith(_IN_CHUNKS):
        found.append((request.method, request.target, body))
        return found, _TRAILERS
    return found, fault


def _check_seen(talk: Talk, theirs: list[tuple[bytes, bytes, bytes]], fault: str) -> None:
    """Nothing is carried out that h11 does not see just so: no request hides in another."""
    if fault.startswith(_BENIGN) or _ZEROS.match(fault):
        return
    assert len(talk.seen) <= len(theirs), f"carried out, while h11 says: {fault}"
    for (method, target, body), other in zip(talk.seen, theirs, strict=False):
        assert method == other[0]
        assert target.translate(_ASCII) == split_target(other[0], other[1])[0]
        body = body.translate(_ASCII)
        assert body == other[2], f"body {body!r} instead of {other[2]!r}"


def _check_bounds(talk: Talk, endpoint: Endpoint) -> None:
    limits = endpoint.limits
    for _, target, body in talk.seen:
        internal = target.partition(b"?")[0].endswith(b"nternal")
        assert len(body) <= (limits.report_body if internal else limits.body)
        assert len(target) <= limits.header_bytes


def _outline(reply: Reply, same_length: bool) -> object:
    """Status and headers; bodies, and some headers, hold times."""
    counts = not same_length or b"apiCalls" in reply[2]
    names = [b"date", b"content-length", b"etag"] if counts else [b"date"]
    return reply[0], sorted(header for header in reply[1] if header[0] not in names)


def _replies(talk: Talk, *, heads: bool) -> list[Reply]:
    """The replies, each well-formed by h11's word, one for a request and one for an end.

    What a request was that is refused before it is carried out is not known here; only where there
    are ``heads`` its reply may lack a body.
    """
    peer = h11.Connection(h11.CLIENT)
    peer.receive_data(talk.reply)
    peer.receive_data(b"")
    found: list[Reply] = []
    while peer.trailing_data[0] and peer.our_state is h11.IDLE:
        bare = heads and peer.trailing_data[0].endswith(b"\r\n\r\n")
        refused = b"HEAD" if bare else b"GET"
        asked = talk.seen[len(found)][0] if len(found) < len(talk.seen) else refused
        method = b"HEAD" if asked == b"HEAD" else b"GET"
        peer.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"x")]))
        peer.send(h11.EndOfMessage())
        reply = _reply(peer)
        if reply is None:
            break
        found.append(reply)
        if {peer.our_state, peer.their_state} == {h11.DONE}:
            peer.start_next_cycle()
    assert not peer.trailing_data[0], f"more is sent after an end: {talk.reply!r}"
    assert len(talk.seen) <= len(found) <= len(talk.seen) + 1, "a reply too few or too many"
    for status, headers, body in found:
        _check_reply(status, headers, body)
    return found


def _reply(peer: h11.Connection) -> Reply | None:
    """Read a reply; None: the peer is asked to go on, and does not."""
    body, response = b"", None
    while True:
        event = peer.next_event()
        if isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and response is not None:
            return response.status_code, list(response.headers), body
        else:
            assert isinstance(event, h11.InformationalResponse), f"a reply that is cut: {event}"
            if not peer.trailing_data[0]:
                return None


def _check_reply(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Every error has a JSON-RPC body; no header is given twice."""
    names = [name for name, _ in headers]
    assert len(names) == len(set(names)), names
    told = dict(headers)
    assert status < 500 or status == 503, status
    if body and told.get(b"content-type") == b"application/json":
        json.loads(body)
    if status >= 400:
        assert not body or json.loads(body)["error"]["message"]
        assert told[b"content-type"] == b"application/json"
    assert re.fullmatch(rb"[0-9]+", told.get(b"content-length", b"0"))
