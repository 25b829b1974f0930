"""Request lines, targets, header lines, and how lines end."""

from collections.abc import Iterator
from typing import Final

from tests.smuggling.variants import (
    CHUNKED,
    HIDDEN,
    HIDDEN_CALL,
    HIDDEN_SEEN,
    HIDING,
    LAST_CHUNK,
    PING,
    Then,
    Variant,
    chunk,
    get,
    length,
    post,
)


def _line_ends() -> Iterator[Variant]:
    """LF and CR alone as ends of lines (2.2), and empty lines before a request."""
    body = chunk(HIDDEN) + LAST_CHUNK
    good = post(CHUNKED, body=body)
    head = good[: good.index(b"\r\n\r\n") + 4]
    for name, end in (("LF", b"\n"), ("CR", b"\r"), ("CR CR LF", b"\r\r\n"), ("LF CR", b"\n\r")):
        yield Variant(f"{name} ends all lines", head.replace(b"\r\n", end) + body)
        yield Variant(f"{name} ends the request line", head.replace(b"\r\n", end, 1) + body)
        yield Variant(
            f"{name} ends Host", head.replace(b"localhost\r\n", b"localhost" + end) + body
        )
        yield Variant(f"{name} ends the headers", head[:-2] + end + body)
        yield Variant(f"{name} ends a last header and the headers", head[:-4] + end + end + body)
    yield Variant("an empty line first", b"\r\n" + good, (HIDING,), Then.MORE)
    for first in (b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b"\r\r\n", b"\n\r\n"):
        yield Variant(f"{first!r} first", first + good, (HIDING,), Then.EITHER)
    ping = get()
    yield Variant("an empty line between requests", ping + b"\r\n" + ping, (PING, PING), Then.MORE)
    counted = post(length(HIDDEN), body=HIDDEN)
    yield Variant(
        "an empty line that the length does not count",
        counted + b"\r\n" + ping,
        (HIDING, PING),
        Then.MORE,
    )


def _headers() -> Iterator[Variant]:
    """Header lines that are none (5), before the hidden request's frame."""
    for line in (
        b"X",
        b"X y",
        b": y",
        b"X\x00: y",
        b"X: y\x00z",
        b"X\r: y",
        b"X: y\rz",
        b"X: y\nz",
        b"X: y\nZ: z",
        b"X Y: z",
        b"X : y",
        b"(X): y",
        b"X\xff: y",
        b"X\x7f: y",
        b"[X]: y",
        b"X/Y: z",
        b"X: " + b"y" * 70000,
        b"\r\n".join([b"X: y"] * 600),
        b"POST /internal HTTP/1.1",
    ):
        yield Variant(f"header {line[:30]!r}", post(line, length(HIDDEN), body=HIDDEN))
    for line in (b"X: y\r\n z", b"X:\r\n\ty", b"X: y\r\n Content-Length: 0"):
        data = post(line, length(HIDDEN), body=HIDDEN)
        yield Variant(f"header {line!r}", data, (HIDING,), Then.EITHER)


def _request_lines() -> Iterator[Variant]:
    """Request lines that are none (3), HTTP/0.9, and versions that are unknown."""
    rest = b"\r\nHost: localhost\r\n\r\n"
    for line in (
        b"GET /ping",
        b"GET",
        b"",
        b"GET /ping HTTP/0.9",
        b"GET /ping HTTP/1.2",
        b"GET /ping HTTP/2",
        b"GET /ping HTTP/2.0",
        b"GET /ping HTTP/3.0",
        b"GET /ping http/1.1",
        b"GET /ping Http/1.1",
        b"GET /ping HTTP/1",
        b"GET /ping HTTP/11",
        b"GET /ping HTTP/1,1",
        b"GET /ping HTTP/01.1",
        b"GET /ping HTTP/1.10",
        b"GET /ping HTTP/1.1x",
        b"GET /ping HTTP /1.1",
        b"GET /ping HTTP/ 1.1",
        b"GET /ping HTTP/1.1\x00",
        b"GET /ping HTTP/1.1 ",
        b"GET /ping HTTP/1.1\t",
        b"GET /ping HTTP/1.1 HTTP/1.0",
        b"GET /ping XTTP/1.1",
        b"GET /ping ICY/1.1",
        b"GET  /ping HTTP/1.1",
        b"GET /ping  HTTP/1.1",
        b"GET\t/ping\tHTTP/1.1",
        b"GET\x0b/ping HTTP/1.1",
        b"GET /ping\x00 HTTP/1.1",
        b"GET /pi\x00ng HTTP/1.1",
        b"GET /pi\x0bng HTTP/1.1",
        b"GET /pi\rng HTTP/1.1",
        b"GET /pi\nng HTTP/1.1",
        b"GET /pi ng HTTP/1.1",
        b"GET /internal HTTP/1.1\r HTTP/1.1",
        b"G\x00T /ping HTTP/1.1",
        b"G(T /ping HTTP/1.1",
        b"G\xc3\xa9T /ping HTTP/1.1",
        b"GET: /ping HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x0cx",
    ):
        yield Variant(f"request line {line!r}", line + rest + HIDDEN)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    yield Variant("HTTP/2 with prior knowledge", preface + HIDDEN)
    yield Variant("a PROXY line", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + HIDDEN)
    yield Variant("a PROXY header", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" + HIDDEN)


def _targets() -> Iterator[Variant]:
    """Forms of the target (3.2), and a target that differs from Host."""
    for target in (
        b"http://localhost/ping",
        b"http://127.0.0.1/ping",
        b"http://other.test:81/ping",
        b"https://localhost/ping",
        b"HTTP://LOCALHOST/ping",
    ):
        yield Variant(
            f"target {target!r}", get(target=target), ((b"GET", b"/ping", b""),), Then.EITHER
        )
    for target in (
        b"http:///ping",
        b"http://",
        b"http://user@localhost/ping",
        b"http://localhost:99999/ping",
        b"http://local host/ping",
        b"ftp://localhost/ping",
        b"//localhost/ping",
        b"/\\localhost/ping",
        b"ping",
        b"*",
        b"?x",
        b"#x",
        b"/ping#x",
        b"/ping?x#y",
        b"127.0.0.1:7000",
        b"/%0d%0aX:%20y",
        b"/ping%20HTTP/1.1%0d%0aX:%20y",
        b"/ping%00",
        b"/\xff",
    ):
        # What the answer is does not matter; that it is one does.
        seen = ((b"GET", b"", b""), PING)
        yield Variant(f"target {target!r}", get(target=target) + get(), seen, Then.EITHER)
    for target in (
        b"http://127.0.0.1/internal",
        b"http://h?/internal",
        b"/internal#",
        b"//internal",
    ):
        data = post(length(HIDDEN_CALL), target=target, body=HIDDEN_CALL)
        yield Variant(f"target {target!r}", data, ((b"POST", b"", HIDDEN_CALL),), Then.EITHER)
    tunnel = get(target=b"127.0.0.1:7000", method=b"CONNECT")
    yield Variant(
        "CONNECT, and a request within the tunnel",
        tunnel + HIDDEN,
        ((b"CONNECT", b"", b""), HIDDEN_SEEN),
        Then.EITHER,
    )
    tunnel = get(length(HIDDEN), target=b"127.0.0.1:7000", method=b"CONNECT")
    yield Variant("CONNECT with a body", tunnel + HIDDEN, ((b"CONNECT", b"", HIDDEN),), Then.EITHER)


def _hosts() -> Iterator[Variant]:
    """Host (3.2, and RFC 9110, 7.2)."""
    for lines in (
        b"",
        b"Host: localhost\r\nHost: localhost\r\n",
        b"Host: localhost\r\nHost: 127.0.0.1\r\n",
        b"Host: localhost\r\nhOST : 127.0.0.1\r\n",
        b"Host: evil@127.0.0.1\r\n",
        b"Host: 127.0.0.1/internal\r\n",
        b"Host: 127.0.0.1?x\r\n",
        b"Host: 127.0.0.1#x\r\n",
        b"Host: 127.0.0.1:x\r\n",
        b"Host: 127.0.0.1:80:80\r\n",
        b"Host: a b\r\n",
        b"Host: a\x00b\r\n",
        b"Host: [::1\r\n",
        b"Host: ::1]\r\n",
        b"Host: a\\b\r\n",
        b"Host: a\tb\r\n",
        b"Host : localhost\r\n",
        b"Host\t: localhost\r\n",
        b"Host: http://localhost\r\n",
        b"Host: \xff\r\n",
    ):
        data = b"POST / HTTP/1.1\r\n" + lines + length(HIDDEN) + b"\r\n\r\n" + HIDDEN
        yield Variant(f"host {lines!r}", data)


KINDS: Final = (
    _line_ends,
    _headers,
    _request_lines,
    _targets,
    _hosts,
)
