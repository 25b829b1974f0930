"""What peers send over HTTP connections, the hostile ones too."""

from tests.fuzz.rpc import SERVER
from tests.fuzz.seed_parts import Seeds, as_json, call, report_call


def _request(method: str, target: str, *lines: str, body: bytes = b"") -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: x", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def _chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def http_exchanges() -> Seeds:
    """What goes over connections to the public endpoint."""
    bearer, basic = "Authorization: Bearer @T", "Authorization: Basic @B"
    connect = as_json(call("Connect"))
    one = _request("POST", "/", bearer, body=connect)
    yield one
    yield one + _request("GET", "/turn?ttl=60", bearer) + _request("HEAD", "/ping")
    chunked = "Transfer-Encoding: chunked"
    yield _request("POST", "/", bearer, chunked) + _chunked(connect[:9], connect[9:]) + one
    report = as_json([report_call(("a", 1)), call("Info"), call("Drain", server=SERVER)])
    yield _request("POST", "/internal", basic, body=report)
    yield _request("POST", "/%69nternal", basic, body=b" " * 3000)
    yield _request("POST", "/internal", basic, chunked) + _chunked(b" " * 3000, report)
    yield _request("POST", "/", bearer, chunked) + _chunked(b" " * 1990, b" " * 20, connect)
    update = as_json(call("RoomUpdate", room_id="room", user_data=[1]))
    tell = _request("POST", "/internal", basic, body=as_json(report_call(("room", 1))))
    yield _request("POST", "/", bearer, body=update) + tell + tell + b"GARBAGE\r\n\r\n"
    for line in (
        "OPTIONS * HTTP/1.1",
        "POST http://x/ HTTP/1.1",
        "GET / HTTP/1.0",
        "BREW / HTTP/1.1",
    ):
        yield f"{line}\r\nHost: x\r\nConnection: TE, close\r\n\r\n".encode()
    for target in ("/clients/", "/%ff", "//", "/turn?service=turn&key=@T&username=u%00", "/a b"):
        yield _request("GET", target)
    for hops in (
        "127.0.0.1",
        "203.0.113.9, 127.0.0.1",
        "[::1%eth0]:1,",
        "unknown, ::ffff:127.0.0.1",
    ):
        forwarded = f"X-Forwarded-For: {hops}"
        yield _request("POST", "/internal", basic, forwarded, body=as_json(call("Info")))
    yield from _smuggled(connect)


def _smuggled(body: bytes) -> Seeds:
    """Messages of which two parsers may think differently (RFC 9112, sections 2.2, 5 and 6)."""
    chunked, length = "Transfer-Encoding: chunked", f"Content-Length: {len(body)}"
    for lines in (
        (chunked, length),
        (length, chunked),
        ("Content-Length: 3", length),
        (length, length),
        (f"{length}, {len(body)}",),
        ("Content-Length: +5",),
        ("Content-Length: 0x5",),
        ("Content-Length: -1",),
        ("Content-Length: " + "9" * 400,),
        ("Content-Length : 5",),
        ("Transfer-Encoding: identity", length),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding:\tchunked",),
        ("Transfer-Encoding: xchunked",),
        ("X: a", " Transfer-Encoding: chunked", length),
        ("Transfer-Encoding:", " chunked"),
        (" X: folded at first", length),
        ("X: a\rTransfer-Encoding: chunked", length),
        ("X: a\nTransfer-Encoding: chunked", length),
        ("X: a\0b", length),
        ("Expect: 100-continue", length),
        ("Expect: 100-continue", "Content-Length: 99999"),
        ("X: " + "x" * 1600,),
        ("Host: y", length),
        ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", length),
    ):
        yield _request("POST", "/", *lines) + body + _request("GET", "/ping")
    for sizes in (b"5;a=b\r\n", b"5 \r\n", b"0x5\r\n", b"5\n", b"+5\r\n", b"00000000000000005\r\n"):
        tail = b"hello\r\n0\r\n\r\n"
        yield _request("POST", "/", chunked) + sizes + tail + _request("GET", "/ping")
    yield _request("POST", "/", chunked) + b"0\r\nContent-Length: 5\r\nX: y\r\n\r\n" + body
    yield _request("POST", "/", chunked) + b"5\r\nhelloX\r\n0\r\n\r\n"
    yield b"POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello"
    yield b"\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"GET /ping HTTP/1.1 \r\nHost: x\r\n\r\n"
    yield b"GET  /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def admin_exchanges() -> Seeds:
    """What goes over connections to the admin endpoint."""
    accepts = ("text/html", "application/openmetrics-text; version=1.0.0; q=x", ",;=", "\xe9")
    paths = ("/metrics", "/monitor", "/monitor/state", "/readyz", "/healthz", "/nope", "/%2e/")
    for number, path in enumerate(paths):
        yield _request("GET", path, f"Accept: {accepts[number % 4]}", "Origin: http://x").replace(
            b"Host: x", b"Host: localhost:7001"
        )
    for host in ("", "a..b", "[::1", "127.0.0.1:x", "x" * 64, "localhost"):
        yield f"GET /monitor HTTP/1.1\r\nHost: {host}\r\nOrigin: null\r\n\r\n".encode()
    for query in ("q=a%00&after=x", "pool=&room=%ff", "limit=-1&offset=1e9", "a=" * 200):
        for path in ("/monitor/rooms", "/monitor/state"):
            yield f"GET {path}?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    yield _request("POST", "/monitor/drain", "Origin: http://localhost", body=b"server=a&pool=")
