"""The same through HTTP/2 (RFC 9113), which a proxy rewrites as HTTP/1.1 from parts of its own.

Frames are written by hand: a library writes nothing that is wrong.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from tests.smuggling.variants import HIDDEN, LAST_CHUNK, chunk

Fields = Sequence[tuple[bytes, bytes]]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS = 1, 4
_FRAME_HEAD: Final = 9


class Downgrade(NamedTuple):
    """A request of HTTP/2.

    Attributes:
        name: says what is odd.
        data: all that a client sends.
    """

    name: str
    data: bytes


def is_over(data: bytes) -> bool:
    """Tell whether a server has said its last of stream 1."""
    while len(data) >= _FRAME_HEAD:
        size, kind, flags = int.from_bytes(data[:3]), data[3], data[4]
        if len(data) < _FRAME_HEAD + size:
            return False
        if kind in (_RESET, _GOAWAY) or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            return True
        data = data[_FRAME_HEAD + size :]
    return False


def talk(lines: Fields, body: bytes = b"", trailers: Fields = ()) -> bytes:
    """Return a connection with one request; an empty body is left out."""
    ends = _END_STREAM if not (body or trailers) else 0
    frames = [
        _PREFACE,
        _frame(_SETTINGS, 0, 0, b""),
        _frame(_HEADERS, _END_HEADERS | ends, 1, _packed(lines)),
    ]
    if body:
        frames.append(_frame(_DATA, 0 if trailers else _END_STREAM, 1, body))
    if trailers:
        frames.append(_frame(_HEADERS, _END_HEADERS | _END_STREAM, 1, _packed(trailers)))
    return b"".join(frames)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)
    return head + payload


def _packed(fields: Fields) -> bytes:
    """Return fields as literals that no table remembers (RFC 7541, 6.2.2)."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def _text(value: bytes) -> bytes:
    size = len(value)
    if size < 127:
        return bytes((size,)) + value
    head, size = b"\x7f", size - 127
    while size >= 128:
        head += bytes((size % 128 + 128,))
        size //= 128
    return head + bytes((size,)) + value


def fields(
    method: bytes = b"POST",
    path: bytes = b"/",
    authority: bytes = b"localhost",
    scheme: bytes = b"http",
) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", method),
        (b":scheme", scheme),
        (b":path", path),
        (b":authority", authority),
    ]


_INJECTED: Final = b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + HIDDEN + b"GET /"
"""Ends a request where it is copied into one, and begins others."""

_IN_FIELDS: Final = b"x\r\n\r\n" + HIDDEN + b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nx: "


def _lengths() -> Iterator[tuple[str, bytes]]:
    for name, value in (
        ("0", b"0"),
        ("too short", b"3"),
        ("too long", b"999"),
        ("with a sign", b"+%d" % len(HIDDEN)),
        ("twice in one", b"%d, %d" % (len(HIDDEN), len(HIDDEN))),
        ("empty", b""),
        ("in hexadecimal", b"0x%x" % len(HIDDEN)),
        ("that overflows", b"%d" % (2**64 + len(HIDDEN))),
        ("that ends a line", b"0\r\n\r\n"),
    ):
        yield f"content-length {name}", talk([*fields(), (b"content-length", value)], HIDDEN)
    two = [(b"content-length", b"0"), (b"content-length", b"%d" % len(HIDDEN))]
    yield "two lengths", talk([*fields(), *two], HIDDEN)
    yield "two lengths, the other way round", talk([*fields(), *two[::-1]], HIDDEN)
    yield "no length", talk(fields(), HIDDEN)
    yield "a length without a body", talk([*fields(), (b"content-length", b"50")])
    yield "GET with a body", talk(fields(b"GET", b"/ping"), HIDDEN)
    yield "HEAD with a body", talk(fields(b"HEAD", b"/ping"), HIDDEN)


def _codings() -> Iterator[tuple[str, bytes]]:
    chunks = LAST_CHUNK + HIDDEN
    for value in (b"chunked", b"Chunked", b"identity", b"x, chunked", b""):
        with_coding = [*fields(), (b"transfer-encoding", value)]
        yield f"transfer-encoding {value!r}", talk(with_coding, chunks)
        with_coding.append((b"content-length", b"%d" % len(chunks)))
        yield f"transfer-encoding {value!r} with a length", talk(with_coding, chunks)
    for field in (
        (b"transfer-encoding ", b"chunked"),
        (b" transfer-encoding", b"chunked"),
        (b"Transfer-Encoding", b"chunked"),
        (b"transfer_encoding", b"chunked"),
        (b"x", b"y\r\ntransfer-encoding: chunked"),
        (b"x", b"y\ntransfer-encoding: chunked"),
        (b"x", b"y\rtransfer-encoding: chunked"),
        (b"x: y\r\ntransfer-encoding", b"chunked"),
        (b"x:y\ntransfer-encoding", b"chunked"),
        (b"x\x00", b"y"),
        (b"x", b"y\x00z"),
        (b"te", b"chunked"),
        (b"connection", b"transfer-encoding"),
        (b"connection", b"content-length"),
        (b"upgrade", b"h2c"),
        (b"keep-alive", b"timeout=5"),
        (b"expect", b"100-continue"),
    ):
        yield f"field {field!r}", talk([*fields(), field], chunks)
    for trailer in (
        (b"content-length", b"0"),
        (b"transfer-encoding", b"chunked"),
        (b"x", b"y\r\n\r\n" + HIDDEN),
        (b":path", b"/internal"),
        (b"host", b"127.0.0.1"),
    ):
        trailers = talk(fields(), chunk(HIDDEN), [trailer])
        yield f"trailer {trailer[0]!r}: {trailer[1][:20]!r}", trailers


def _parts() -> Iterator[tuple[str, bytes]]:
    yield "a method with a request", talk(fields(method=b"GET /" + _INJECTED))
    yield "a method with a space", talk(fields(method=b"GET /ping"))
    yield "an empty method", talk(fields(method=b""))
    yield "a path with a request", talk(fields(path=b"/ping" + _INJECTED))
    yield "a path with a version", talk(fields(path=b"/ping HTTP/1.1"))
    yield "a path with LF", talk(fields(path=b"/ping\nx: y"))
    yield "a path without a slash", talk(fields(path=b"ping"))
    yield "an empty path", talk(fields(path=b""))
    yield "a path with a host", talk(fields(path=b"http://127.0.0.1/ping"))
    yield "an authority with a request", talk(fields(authority=_IN_FIELDS))
    yield "an authority with a user", talk(fields(authority=b"x@127.0.0.1"))
    yield "an authority with a path", talk(fields(authority=b"127.0.0.1/internal?"))
    yield "a scheme with a request", talk(fields(scheme=b"http://x/ HTTP/1.1\r\n\r\n"))
    yield "an authority and a host", talk([*fields(), (b"host", b"127.0.0.1")])
    yield "a host with a request", talk([*fields(), (b"host", _IN_FIELDS)])
    yield "two paths", talk([*fields(), (b":path", b"/internal")])
    yield "a pseudo-field behind others", talk([(b"x", b"y"), *fields()])
    yield "an unknown pseudo-field", talk([*fields(), (b":x", b"y")])
    yield "no pseudo-field", talk([(b"host", b"localhost")])
    yield "a value with a request", talk([*fields(), (b"x", _IN_FIELDS)])
    yield "a name with a request", talk([*fields(), (_IN_FIELDS, b"y")])
    yield "an empty name", talk([*fields(), (b"", b"y")])
    yield "a name with a colon", talk([*fields(), (b"x: y", b"z")])
    yield "a cookie with a line", talk([*fields(), (b"cookie", b"a=b"), (b"cookie", b"\r\nx: y")])
    yield "CONNECT", talk([(b":method", b"CONNECT"), (b":authority", b"127.0.0.1:7000")], HIDDEN)
    yield "an empty body of one frame", talk(fields(), b"", [(b"x", b"y")])


DOWNGRADES: Final = tuple(
    Downgrade(f"HTTP/2: {name}", data)
    for kind in (_lengths, _codings, _parts)
    for name, data in kind()
)
