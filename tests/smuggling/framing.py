"""Where a body ends: Content-Length and Transfer-Encoding in all spellings."""

from collections.abc import Iterator
from typing import Final

from tests.smuggling.variants import (
    CHUNKED,
    HIDDEN,
    HIDDEN_SEEN,
    HIDING,
    LAST_CHUNK,
    POSTED,
    Then,
    Variant,
    chunk,
    length,
    post,
)


def _two_lengths() -> Iterator[Variant]:
    """Content-Length beside Transfer-Encoding (6.1), in both orders, the hidden one in either."""
    body = LAST_CHUNK + HIDDEN
    yield Variant("CL.TE", post(length(body), CHUNKED, body=body))
    yield Variant("TE.CL", post(CHUNKED, length(body), body=body))
    hiding = chunk(HIDDEN) + LAST_CHUNK
    short = b"Content-Length: %d" % (hiding.index(b"\r\n") + 2)
    yield Variant("TE.CL, the length ends within a chunk", post(CHUNKED, short, body=hiding))
    yield Variant("CL.TE, the length ends within a chunk", post(short, CHUNKED, body=hiding))
    yield Variant("CL.0 beside chunks", post(b"Content-Length: 0", CHUNKED, body=hiding))
    yield Variant("lengths twice around chunks", post(short, CHUNKED, length(hiding), body=hiding))


_NOT_CHUNKED: Final = (
    b"Transfer_Encoding: chunked",
    b"Content-Encoding: chunked",
    b"TE: chunked",
    b"X-Transfer-Encoding: chunked",
    b"Transfer-Encodings: chunked",
)
"""Names that mean nothing for the length."""

_AS_CHUNKED: Final = (
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding:chunked",
    b"Transfer-Encoding:   chunked   ",
    b"Transfer-Encoding: chunked\t",
    b"Transfer-Encoding: Chunked",
    b"TRANSFER-ENCODING: CHUNKED",
    b"tRANSFER-eNCODING: chunkeD",
)
"""Spellings that are the coding (RFC 9110, 5.5 and 5.6.3; RFC 9112, 7)."""

_FOLDED: Final = (
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding:\r\n\tchunked",
    b"Transfer-Encoding: \r\n \r\n chunked",
)
"""The same on several lines (5.2): to be refused or joined."""

_FAULTY: Final = (
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding\x0b: chunked",
    b"Transfer-Encoding\xa0: chunked",
    b"Transfer-Encoding\x00: chunked",
    b"Transfer Encoding: chunked",
    b"Transfer-Encoding",
    b"Transfer-Encoding chunked",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: x chunked",
    b"Transfer-Encoding: chunked x",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: IDENTITY",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: chunked;q=1",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: 'chunked'",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: \x0cchunked",
    b"Transfer-Encoding: chunked\x0b",
    b"Transfer-Encoding: chunked\xa0",
    b"Transfer-Encoding: \xc2\xa0chunked",
    b"Transfer-Encoding: chun\xe2\x84\xaaed",
    b"Transfer-Encoding: chunked\x00",
    b"Transfer-Encoding: \x00chunked",
    b"Transfer-Encoding: chunked\r",
    b"Transfer-Encoding: \rchunked",
    b"Transfer-Encoding: \nchunked",
    b"Transfer-Encoding\r\n : chunked",
    b"Transfer-Encoding: x\r\n chunked",
    b"Transfer-Encoding: chunked\r\n x",
    b"Transfer-Encoding: chun\r\n ked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\r\n\rTransfer-Encoding: chunked",
    b"X: y\x00\r\nTransfer-Encoding: chunked",
    b": y\r\nTransfer-Encoding: chunked",
    b"\x00Transfer-Encoding: chunked",
    b"\xefTransfer-Encoding: chunked",
    b"\x0bTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-encoding:",
    b"Transfer-Encoding:\r\nTransfer-Encoding: chunked",
)
"""What no parser may take for either."""


def _codings() -> Iterator[Variant]:
    """Each spelling of the coding with a length (CL.TE, TE.CL, TE.TE) and without one."""
    body = LAST_CHUNK + HIDDEN
    for line in _NOT_CHUNKED:
        seen = (b"POST", b"/", body)
        yield Variant(
            f"{line!r} with a length", post(line, length(body), body=body), (seen,), Then.MORE
        )
        # The "0" of the body is no request then.
        yield Variant(f"{line!r} alone", post(line, body=body), (POSTED,))
    for line in (*_AS_CHUNKED, *_FOLDED, *_FAULTY):
        yield Variant(f"{line!r} before a length", post(line, length(body), body=body))
        yield Variant(f"{line!r} behind a length", post(length(body), line, body=body))
    for line in _AS_CHUNKED:
        data = post(line, body=chunk(HIDDEN) + LAST_CHUNK)
        yield Variant(f"{line!r} alone", data, (HIDING,), Then.MORE)
    for line in _FOLDED:
        data = post(line, body=chunk(HIDDEN) + LAST_CHUNK)
        yield Variant(f"{line!r} alone", data, (HIDING,), Then.EITHER)
    for line in _FAULTY:
        yield Variant(f"{line!r} alone", post(line, body=chunk(HIDDEN) + LAST_CHUNK))
    yield Variant(
        "a folded first line of headers",
        b"POST / HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: localhost\r\n\r\n" + body,
    )


_LENGTHS: Final = (
    b"+{n}",
    b"-{n}",
    b"-0",
    b"+0",
    b"0x{x}",
    b"{x}h",
    b"{n}.0",
    b"{n}e0",
    b"{n},{n}",
    b"{n}, {n}",
    b"0, {n}",
    b"{n},",
    b",{n}",
    b"{n} {n}",
    b"{n};",
    b"{n};q=1",
    b'"{n}"',
    b"{n}_0",
    b"1_0",
    b"{n}\x00",
    b"\x00{n}",
    b"{n}\x0b",
    b"\x0b{n}",
    b"\x0c{n}",
    b"{n}\xa0",
    b"\xd9\xa5",
    b"\xef\xbc\x95",
    b"\xb2",
    b"{n}\r",
    b"\r{n}",
    b"{n}\nX: y",
    b"{n}\rX: y",
    b"",
    b" ",
    b"x",
    b"{n}x",
    b"NaN",
    b"Infinity",
    b"18446744073709551616",
    b"{wrapped}",
    b"-18446744073709551616",
    b"9223372036854775808",
    b"9" * 400,
)
"""Values that are no length (RFC 9110, 8.6), or one that no request here may have."""

_LENGTH_LINES: Final = (
    b"Content-Length : {n}",
    b"Content-Length\t: {n}",
    b"Content-Length\x00: {n}",
    b"Content-Length\x0b: {n}",
    b"Content-Length {n}",
    b"Content-Length",
    b"Content Length: {n}",
    b"\x00Content-Length: {n}",
    b"Content-Length: {n}\r\nContent-Length: 0",
    b"Content-Length: 0\r\nContent-Length: {n}",
    b"Content-Length: {n}\r\ncontent-length: {n}",
    b"Content-Length: {n}\r\nContent-Length: x",
    b"Content-Length:\r\nContent-Length: {n}",
    b"Content-Length: {n}\r\nContent-Length :0",
    b"X: y\nContent-Length: {n}",
    b"X: y\rContent-Length: {n}",
    b"X: y\r\n\rContent-Length: {n}",
)
"""Header lines that must be refused."""


def _filled(text: bytes, body: bytes) -> bytes:
    size = len(body)
    for name, value in (
        (b"n", b"%d" % size),
        (b"x", b"%x" % size),
        (b"wrapped", b"%d" % (2**64 + size)),
    ):
        text = text.replace(b"{" + name + b"}", value)
    return text


def _lengths() -> Iterator[Variant]:
    """Odd, doubled and missing lengths, the hidden request in the body."""
    for value in _LENGTHS:
        line = b"Content-Length: " + _filled(value, HIDDEN)
        yield Variant(f"length {value[:40]!r}", post(line, body=HIDDEN))
    for line in _LENGTH_LINES:
        yield Variant(f"{line!r}", post(_filled(line, HIDDEN), body=HIDDEN))
    for line in (
        b"Content-Length:{n}",
        b"Content-Length:\t{n}\t",
        b"Content-Length:   {n}  ",
        b"CONTENT-LENGTH: {n}",
        b"Content-Length: 000{n}",
    ):
        data = post(_filled(line, HIDDEN), body=HIDDEN)
        yield Variant(f"{line!r}", data, (HIDING,), Then.MORE)
    for line in (b"Content-Length:\r\n {n}", b"Content-Length: \r\n\t{n}"):
        data = post(_filled(line, HIDDEN), body=HIDDEN)
        yield Variant(f"{line!r}", data, (HIDING,), Then.EITHER)
    # Nothing says that these have a body: the hidden request is one of its own.
    both = (POSTED, HIDDEN_SEEN)
    yield Variant("no length", post(body=HIDDEN), both, Then.MORE)
    yield Variant("length 0", post(b"Content-Length: 0", body=HIDDEN), both, Then.MORE)
    for line in (b"Content_Length: {n}", b"X-Content-Length: {n}", b"Content-Lengths: {n}"):
        yield Variant(f"{line!r}", post(_filled(line, HIDDEN), body=HIDDEN), both, Then.MORE)


KINDS: Final = (
    _two_lengths,
    _codings,
    _lengths,
)
