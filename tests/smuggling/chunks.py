"""Chunks, their sizes and extensions, and trailers."""

from collections.abc import Iterator
from typing import Final

from tests.smuggling.variants import (
    CHUNKED,
    HIDDEN,
    HIDDEN_SEEN,
    HIDING,
    LAST_CHUNK,
    Then,
    Variant,
    chunk,
    post,
)

_SIZES: Final = (
    b"0x{x}",
    b"-{x}",
    b"+{x}",
    b" {x}",
    b"{x}h",
    b"{x}g",
    b"g",
    b"",
    b";a",
    b"{x},{x}",
    b"{x} {x}",
    b"{x}.0",
    b"{x}_0",
    b'"{x}"',
    b"{x}\x00",
    b"\x00{x}",
    b"{x}\x0b",
    b"{x}\xa0",
    b"\xef\xbc\x95",
    b"\r\n{x}",
    b"\n{x}",
    b"\r{x}",
    b"{x}\r",
    b"{x}\n",
    b"{x}\n0",
    b"{x};\n",
    b"{x};a\nb",
    b"{x};\x00",
    b"{x};a=\x0b",
    b'{x};a="b\nc"',
    b"-1",
)
"""Chunk sizes that are none (7.1)."""

_HUGE_SIZES: Final = (
    b"FFFFFFFFFFFFFFFF0",
    b"10000000000000000",
    b"{wrapped}",
    b"7FFFFFFFFFFFFFFF",
    b"FFFFFFFF",
    b"f" * 400,
)
"""Sizes that overflow where numbers have 32 or 64 bits."""

_SIZES_OF_EITHER: Final = (
    b"{x} ",
    b"{x}\t",
    b"{x} ;a",
    b"{x};",
    b"{x};;",
    b"{x};a=",
    b"{x};a\\b",
    b'{x};a="b\\"c"',
    b'{x};a="b',
    b"{x};a=\xff",
    b"{x};a=\x7f",
    b"{x};\r",
    b"{x};a\rb",
    b"{x};" + b"a" * 1100,
)
"""Those with what a recipient may refuse, and must skip if it does not."""

_GOOD_SIZES: Final = (
    b"{x};a",
    b"{x};a=b",
    b"{x}; a = b",
    b'{x};a="b;c"',
    b"{x};a=0",
    b"000{x}",
    b"0000000000000000000{x}",
)


def _wrapped(size: int) -> bytes:
    return b"%x" % (2**64 + size)


def _sized(text: bytes, body: bytes) -> bytes:
    return text.replace(b"{x}", b"%x" % len(body)).replace(b"{wrapped}", _wrapped(len(body)))


def _chunks() -> Iterator[Variant]:
    """Chunk sizes, extensions, and what stands between chunks."""
    for sizes, seen, then in (
        (_SIZES, (), Then.REFUSAL),
        (_HUGE_SIZES, (), Then.BODY),
        (_SIZES_OF_EITHER, (HIDING,), Then.EITHER),
        (_GOOD_SIZES, (HIDING,), Then.MORE),
    ):
        for size in sizes:
            body = _sized(size, HIDDEN) + b"\r\n" + HIDDEN + b"\r\n" + LAST_CHUNK
            yield Variant(f"chunk size {size[:40]!r}", post(CHUNKED, body=body), seen, then)
    upper = (b"%X" % len(HIDDEN)) + b"\r\n" + HIDDEN + b"\r\n"
    yield Variant(
        "a size in capitals", post(CHUNKED, body=upper + LAST_CHUNK), (HIDING,), Then.MORE
    )
    # A quoted string cannot hold the end of the line (RFC 9110, 5.6.4).
    length = len(HIDDEN)
    for name, body in (
        ("an extension's quotes around the end of a line", b'3;a="\r\nabc\r\n%s"\r\n' % HIDDEN),
        (
            "an extension that ends with LF, two readings",
            b"2;\nxx\r\n%x\r\n%s\r\n" % (length, HIDDEN),
        ),
        ("a size that ends with LF", b"%x\n%s\r\n" % (length, HIDDEN)),
        ("a size that ends with CR", b"%x\r%s\r\n" % (length, HIDDEN)),
        ("a chunk that ends with LF", b"3\r\nabc\n" + chunk(HIDDEN)),
        ("a chunk that ends with CR", b"3\r\nabc\r" + chunk(HIDDEN)),
        ("a chunk that ends with LF CR", b"3\r\nabc\n\r" + chunk(HIDDEN)),
        ("a chunk without an end", b"3\r\nabc" + chunk(HIDDEN)),
        ("a chunk that is longer than its size", b"3\r\nabcde\r\n" + chunk(HIDDEN)),
        ("a chunk that swallows two bytes", b"5\r\nabcXX" + chunk(HIDDEN)),
        ("a chunk that is shorter than its size", b"5\r\nabc\r\n" + chunk(HIDDEN)),
        ("an empty line behind a chunk", b"3\r\nabc\r\n\r\n" + chunk(HIDDEN)),
    ):
        yield Variant(name, post(CHUNKED, body=body + LAST_CHUNK))


def _last_chunks() -> Iterator[Variant]:
    """Spellings of the last chunk, and trailers (7.1.2); the hidden request follows."""
    for last in (b"00", b"0" * 16, b"0;a", b"0;a=b"):
        data = post(CHUNKED, body=chunk(b"x") + last + b"\r\n\r\n" + HIDDEN)
        yield Variant(f"last chunk {last!r}", data, ((b"POST", b"/", b"x"), HIDDEN_SEEN), Then.MORE)
    for last in (b"0x0", b"-0", b"+0", b"0\n", b"0\r", b"0 0", b"0h", b"0;\n", b"o"):
        data = post(CHUNKED, body=chunk(b"x") + last + b"\r\n\r\n" + HIDDEN)
        yield Variant(f"last chunk {last!r}", data)
    for trailer in (
        b"X: y",
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Authorization: Basic c2Z1OnBhc3N3b3Jk",
        b"Host: 127.0.0.1",
        b"Connection: close",
        b"Expect: 100-continue",
        b"X: " + b"y" * 400,
        b"\r\n".join([b"X: y"] * 20),
    ):
        data = post(CHUNKED, body=chunk(b"x") + b"0\r\n" + trailer + b"\r\n\r\n" + HIDDEN)
        seen = ((b"POST", b"/", b"x"), HIDDEN_SEEN)
        yield Variant(f"trailer {trailer[:40]!r}", data, seen, Then.EITHER)
    # Not header lines: refused, or skipped up to the empty line.
    for trailer in (
        b"no colon",
        b": no name",
        b" folded",
        b"X : y",
        b"X: y\r\n folded",
        b"X: a\x00b",
        b"X: a\rb",
        b"\x00",
        b"\r",
    ):
        data = post(CHUNKED, body=chunk(b"x") + b"0\r\n" + trailer + b"\r\n\r\n" + HIDDEN)
        seen = ((b"POST", b"/", b"x"), HIDDEN_SEEN)
        yield Variant(f"trailer {trailer!r}", data, seen, Then.EITHER)
    # A line that ends with LF alone ends the trailers for some: no reading may carry on from there.
    for trailer in (b"\n", b"X: y\n", b"X: y\n\n"):
        data = post(CHUNKED, body=chunk(b"x") + b"0\r\n" + trailer + HIDDEN)
        yield Variant(f"trailer {trailer!r}, then another request", data, ((b"POST", b"/", b"x"),))


KINDS: Final = (
    _chunks,
    _last_chunks,
)
