"""Load: many requests at a time by wrk, or one after the other over one connection."""

import re
import shutil
import socket
import ssl
import statistics
import subprocess
from pathlib import Path
from typing import Final, Self

import attrs

from benchmarks.options import BenchmarkError

CONNECT: Final = b'{"jsonrpc":"2.0","method":"Connect","params":{},"id":1}'

_SCRIPT: Final = Path(__file__).parent / "wrk.lua"
_RESULT: Final = re.compile(r"^RESULT (.*)$", re.MULTILINE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_LAST_CHUNK: Final = b"0\r\n\r\n"
_GRACE: Final = 60
_TIMEOUT: Final = 120.0
_CHUNK: Final = 65_536


@attrs.frozen
class Load:
    """What wrk saw.

    Attributes:
        requests: that were answered.
        seconds: that it took.
        p50: milliseconds within which half of them were answered.
        p99: milliseconds within which 99 of 100 were answered.
        errors: broken connections, time-outs and answers without what was asked for.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    def cell(self) -> str:
        """Return the errors as a table shows them."""
        return errors_cell(self.errors)


def errors_cell(count: int) -> str:
    """Return a number of errors as a table shows it."""
    return f"{count:,} WRONG" if count else "0"


def median_ratio(what: list[float], by: list[float]) -> float:
    """Return the median of what was measured over what was measured beside it."""
    return statistics.median(one / other for one, other in zip(what, by, strict=True))


def wrk(
    url: str, tokens: Path, kind: str, connections: int, seconds: int, *, read: bool = True
) -> Load:
    """Ask for as long as wanted, as fast as answers come.

    Args:
        url: of the server.
        tokens: file with a token a line.
        kind: ``connect`` or ``turn``: what is asked for.
        connections: how many requests are under way at a time.
        seconds: how long.
        read: look at every answer; otherwise at its status alone, which costs the load less.

    Raises:
        BenchmarkError: wrk is not installed, or fails.
    """
    program = shutil.which("wrk")
    if program is None:
        raise BenchmarkError("wrk is not installed (Debian: apt-get install wrk)")
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(_SCRIPT), url]
    done = subprocess.run(  # noqa: S603  -- wrk, with arguments from here
        [*command, "--", str(tokens), kind, *([] if read else ["unread"])],
        capture_output=True,
        text=True,
        timeout=seconds + _GRACE,
        check=False,
    )
    found = _RESULT.search(done.stdout)
    if found is None:
        raise BenchmarkError(f"wrk failed: {done.stdout}{done.stderr}")
    numbers = [float(number) for number in found[1].split()]
    return Load(int(numbers[0]), numbers[1], numbers[2], numbers[3], int(numbers[4]))


def post(path: str, body: bytes, token: str | None = None) -> bytes:
    """Return a POST request with JSON."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def split_answer(buffer: bytes) -> tuple[bytes, bytes] | None:
    """Return an answer's head and body; None: it is not complete.

    Of an answer without Content-Length, the chunks are taken as they are.
    """
    head, end, body = buffer.partition(b"\r\n\r\n")
    if not end:
        return None
    length = _LENGTH.search(head + b"\r\n")
    if length is None:
        return (head, body) if body.endswith(_LAST_CHUNK) else None
    return (head, body) if len(body) >= int(length[1]) else None


def is_good(answer: tuple[bytes, bytes], wanted: bytes) -> bool:
    """Tell whether an answer has status 200 and holds what is wanted."""
    head, body = answer
    return head.startswith(b"HTTP/1.1 200 ") and wanted in body


class Connection:
    """A connection to a server on this host, which stays open.

    Args:
        port: of the server.
        context: for TLS; None: none is used.
    """

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def ask(self, request: bytes, wanted: bytes) -> bytes:
        """Send a request, and return the body of the answer.

        Raises:
            BenchmarkError: the answer does not hold what is wanted.
        """
        self.socket.sendall(request)
        buffer = b""
        while (answer := split_answer(buffer)) is None:
            data = self.socket.recv(_CHUNK)
            if not data:
                raise BenchmarkError("the server has closed the connection")
            buffer += data
        if not is_good(answer, wanted):
            raise BenchmarkError(f"not what was asked for: {answer[0]!r} {answer[1][:300]!r}")
        return answer[1]
