"""What depends on more than one message: answers that come early, old versions, upgrades."""

from collections.abc import Iterator
from typing import Final

from tests.smuggling.variants import (
    CHUNKED,
    HIDDEN,
    HIDDEN_SEEN,
    HIDING,
    LAST_CHUNK,
    PING,
    POSTED,
    Then,
    Variant,
    chunk,
    get,
    length,
    post,
)


def _old_versions() -> Iterator[Variant]:
    """HTTP/1.0 knows no chunks, and no second request here (6.1 and 9.3)."""
    old = [b"POST / HTTP/1.0", b"Host: localhost"]
    keep = b"Connection: keep-alive"
    chunks = chunk(HIDDEN) + LAST_CHUNK
    for name, lines, body in (
        ("a length", [length(HIDDEN)], HIDDEN),
        ("a length, keep-alive", [length(HIDDEN), keep], HIDDEN),
        ("chunks", [CHUNKED], chunks),
        ("chunks, keep-alive", [CHUNKED, keep], chunks),
    ):
        data = b"\r\n".join([*old, *lines, b"", b""]) + body + HIDDEN
        yield Variant(f"HTTP/1.0 with {name}", data, (HIDING,), Then.END)
    data = b"\r\n".join([*old, CHUNKED, length(chunks), b"", b""]) + chunks
    yield Variant("HTTP/1.0 with chunks and a length", data)
    data = b"\r\n".join([*old, b"", b""]) + HIDDEN
    yield Variant("HTTP/1.0 without a length", data, (POSTED,), Then.END)


def _upgrades() -> Iterator[Variant]:
    """Upgrade (RFC 9110, 7.8) changes nothing here: what follows is HTTP/1.1."""
    for lines in (
        (
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ),
        (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 777"),
        (
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQAAP__",
        ),
        (b"Connection: Upgrade", b"Upgrade: h2c"),
        (b"Upgrade: h2c",),
        (b"Connection: upgrade", b"Upgrade: HTTP/1.1"),
        (b"Connection: Upgrade", b"Upgrade: TLS/1.0"),
        (b"Connection: Upgrade", b"Upgrade: websocket, h2c"),
    ):
        name = b"; ".join(lines[-2:]).decode()
        yield Variant(f"{name}, pipelined", get(*lines) + HIDDEN, (PING, HIDDEN_SEEN), Then.MORE)
        data = post(*lines, length(HIDDEN), body=HIDDEN)
        yield Variant(f"{name}, with a body", data, (HIDING,), Then.MORE)


def _expectations() -> Iterator[Variant]:
    """Expect (RFC 9110, 10.1.1): the body comes whatever is expected, or the request is refused."""
    for value in (
        b"100-continue",
        b"100-Continue",
        b"100-CONTINUE",
        b" 100-continue ",
        b"100-continue, x",
        b"x 100-continue",
        b"x,100-continue",
        b"100-continue\r\nExpect: 100-continue",
        b"100-continue;a=b",
        b'"100-continue"',
        b"200-ok",
        b"",
        b"x",
    ):
        data = post(b"Expect: " + value, length(HIDDEN), body=HIDDEN)
        yield Variant(f"Expect: {value!r}", data, (HIDING,), Then.EITHER)
        data = post(b"Expect: " + value, CHUNKED, body=chunk(HIDDEN) + LAST_CHUNK)
        yield Variant(f"Expect: {value!r}, in chunks", data, (HIDING,), Then.EITHER)
    yield Variant(
        "Expect without a body", get(b"Expect: 100-continue") + get(), (PING, PING), Then.EITHER
    )
    head = get(b"Expect: 100-continue", length(HIDDEN), method=b"HEAD")
    yield Variant(
        "Expect of a HEAD with a body", head + HIDDEN, ((b"HEAD", b"/ping", HIDDEN),), Then.EITHER
    )


def _hop_by_hop() -> Iterator[Variant]:
    """Connection names headers for a proxy to drop (RFC 9110, 7.6.1); never those of the frame."""
    for value in (
        b"Content-Length",
        b"keep-alive, Content-Length",
        b"Host",
        b"Authorization",
        b"X-Forwarded-For",
        b"Expect",
        b"keep-alive",
        b"TE",
        b"x" * 300,
        b",,,",
        b"Connection",
        b"\x00",
    ):
        then = Then.REFUSAL if value == b"\x00" else Then.MORE
        seen = () if value == b"\x00" else (HIDING,)
        data = post(b"Connection: " + value, length(HIDDEN), body=HIDDEN)
        yield Variant(f"Connection: {value[:30]!r}", data, seen, then)
    for value in (b"Transfer-Encoding", b"keep-alive, transfer-encoding"):
        data = post(b"Connection: " + value, CHUNKED, body=chunk(HIDDEN) + LAST_CHUNK)
        yield Variant(f"Connection: {value!r}", data, (HIDING,), Then.MORE)
    yield Variant(
        "Connection: close, then another", get(b"Connection: close") + HIDDEN, (PING,), Then.END
    )
    yield Variant(
        "TE: trailers", get(b"TE: trailers", b"Connection: TE") + get(), (PING, PING), Then.MORE
    )
    for line in (
        b"Trailer: Content-Length",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: close",
        b"Max-Forwards: 0",
    ):
        data = post(line, length(HIDDEN), body=HIDDEN)
        yield Variant(line.decode(), data, (HIDING,), Then.MORE)


def _bodies() -> Iterator[Variant]:
    """A body where few have one: of GET, HEAD, OPTIONS, of a 304, 404 or 405."""
    script = b"/clients/turnRestClient-1.1.0.js"
    for method, target in (
        (b"GET", b"/ping"),
        (b"GET", b"/"),
        (b"GET", b"/nowhere"),
        (b"GET", script),
        (b"HEAD", b"/ping"),
        (b"HEAD", b"/"),
        (b"HEAD", b"/nowhere"),
        (b"HEAD", b"/internal"),
        (b"HEAD", script),
        (b"OPTIONS", b"/"),
        (b"OPTIONS", b"/turn"),
        (b"OPTIONS", b"*"),
        (b"DELETE", b"/"),
        (b"PUT", b"/ping"),
        (b"PATCH", b"/"),
        (b"TRACE", b"/ping"),
        (b"BREW", b"/ping"),
        (b"get", b"/ping"),
        (b"POST", b"/ping"),
        (b"POST", b"/nowhere"),
        (b"POST", b"/turn"),
        (b"POST", b"/internal"),
    ):
        name = f"{method.decode()} {target.decode()}"
        seen_target = b"/" if target == b"*" else target
        seen = ((method, seen_target, HIDDEN),)
        data = get(length(HIDDEN), target=target, method=method) + HIDDEN
        yield Variant(f"{name} with a body", data, seen, Then.MORE)
        data = get(CHUNKED, target=target, method=method) + chunk(HIDDEN) + LAST_CHUNK
        yield Variant(f"{name} with chunks", data, seen, Then.MORE)
        data = get(target=target, method=method)
        yield Variant(
            f"{name}, then another", data + get(), ((method, seen_target, b""), PING), Then.MORE
        )
    known = get(b"If-None-Match: *", length(HIDDEN), target=script)
    yield Variant("304 with a body", known + HIDDEN, ((b"GET", script, HIDDEN),), Then.MORE)
    known = get(b"If-None-Match: *", target=script)
    yield Variant("304, then another", known + get(), ((b"GET", script, b""), PING), Then.MORE)
    part = get(b"Range: bytes=0-3", target=script)
    yield Variant("a range, then another", part + get(), ((b"GET", script, b""), PING), Then.MORE)


LARGE: Final = 9_000_000
"""Bytes: more than any body may have, a report's included."""


def _early() -> Iterator[Variant]:
    """Answers that come before the body is read: the rest of it must not be read as a request."""
    large = HIDDEN * (LARGE // 1000)
    room = b" " * 70000
    yield Variant("a body that is too large", post(length(room + large), body=room + HIDDEN * 20))
    yield Variant(
        "chunks that are too large",
        post(CHUNKED, body=chunk(room) + chunk(HIDDEN * 20) + LAST_CHUNK + HIDDEN),
    )
    yield Variant(
        "a chunk that says it is too large", post(CHUNKED, body=b"%x\r\n" % LARGE + HIDDEN * 20)
    )
    yield Variant(
        "a large body for /nowhere",
        post(length(room + HIDDEN), target=b"/nowhere", body=room + HIDDEN),
    )
    yield Variant(
        "a large body for /ping", get(length(room + HIDDEN), method=b"POST") + room + HIDDEN
    )
    yield Variant(
        "a large body that waits to be asked for",
        post(length(room), b"Expect: 100-continue") + HIDDEN,
    )
    yield Variant(
        "wrong credentials before a large body",
        post(
            b"Authorization: Basic eDp5",
            length(room + large),
            target=b"/internal",
            body=HIDDEN * 20,
        ),
    )


def _pipelined() -> Iterator[Variant]:
    """Errors in the middle of pipelined requests: nothing behind one is read."""
    bad = b"GARBAGE\r\n\r\n"
    two = post(b"Content-Length: 1", b"Content-Length: 2", body=b"xy")
    for name, wrong in (
        ("no request", bad),
        ("two lengths", two),
        ("no Host", b"GET /ping HTTP/1.1\r\n\r\n"),
        ("a header without a colon", get(b"X")),
        ("a wrong chunk", post(CHUNKED, body=b"x\r\n")),
        ("a wrong end of a chunk", post(CHUNKED, body=b"1\r\nabc")),
        ("an unknown version", b"GET /ping HTTP/1.9\r\nHost: localhost\r\n\r\n"),
    ):
        yield Variant(f"{name}, then another", wrong + HIDDEN)
        yield Variant(f"another, {name}, then another", get() + wrong + HIDDEN, (PING,))
        yield Variant(
            f"a body, {name}, then another",
            post(length(HIDDEN), body=HIDDEN) + wrong + HIDDEN,
            (HIDING,),
        )
    yield Variant("many at once", get() * 40, (PING,) * 40, Then.MORE)
    yield Variant(
        "a chunked one, then another",
        post(CHUNKED, body=LAST_CHUNK) + get(),
        (POSTED, PING),
        Then.MORE,
    )


KINDS: Final = (
    _old_versions,
    _upgrades,
    _expectations,
    _hop_by_hop,
    _bodies,
    _early,
    _pipelined,
)
