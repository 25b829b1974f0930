"""A fast HTTP/1.1 client for loads: keep-alive, one request at a time on each connection.

Requests are whole byte strings made in advance, outcomes go to callbacks, nothing is tried again.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias, cast

from msgspec import Struct
from msgspec.json import Decoder

HOST: Final = "127.0.0.1"
_SWEEP: Final = 0.1
_RETRY: Final = 0.02


class Failure(Struct, frozen=True, gc=False):
    """``error.data`` of a refusal."""

    reason: str = ""
    retry_after: float | None = None


class Refusal(Struct, frozen=True, gc=False):
    """The error object of a reply."""

    code: int
    message: str
    data: Failure = Failure()


class Span(Struct, frozen=True, gc=False):
    """A duration as servers read it."""

    secs: int = 0
    nanos: int = 0


class TaskBody(Struct, frozen=True):
    """A task in the reply to a report, of any kind."""

    task: str
    id: tuple[str, str]
    user_id: str = ""
    user_data: tuple[int, ...] = ()
    message: tuple[int, ...] = ()
    ban_time: Span = Span()


class RoomInfo(Struct, frozen=True, gc=False):
    """A room in the reply to ``Info``."""

    id: tuple[str, str]
    server: str


class ServerInfo(Struct, frozen=True, gc=False):
    """A server in the reply to ``Info``."""

    address: str
    disabled: bool = False
    drained: bool = False
    tasks: int = 0


class Result(Struct, frozen=True):
    """The result of any method that a load calls; what is not there is empty."""

    address: str = ""
    tasks: tuple[TaskBody, ...] = ()
    rooms: tuple[RoomInfo, ...] = ()
    servers: tuple[ServerInfo, ...] = ()


class Answer(Struct, frozen=True):
    """A JSON-RPC reply."""

    result: Result | None = None
    error: Refusal | None = None


_decode: Final = Decoder(Answer).decode


class Outcome(NamedTuple):
    """What became of a request; times are those of ``time.monotonic``.

    Attributes:
        status: the HTTP status; 0 if there was no reply.
        body: of the reply.
        sent: when it was written; 0 if it never was.
        done: when the reply was complete, or there could be none any more.
        fault: why there was no reply; empty if there was one.
    """

    status: int
    body: bytes
    sent: float
    done: float
    fault: str = ""

    def answer(self) -> Answer:
        """Decode the reply; one that is none is an error with code 0."""
        if not self.status:
            return Answer(error=Refusal(0, self.fault, Failure("no_reply")))
        try:
            return _decode(self.body)
        except ValueError as wrong:
            text = f"HTTP {self.status}: {wrong}"
            return Answer(error=Refusal(0, text, Failure("not_json_rpc")))


Done: TypeAlias = Callable[[Outcome], None]


class _Request:
    __slots__ = ("data", "done", "queued", "sent")

    def __init__(self, data: bytes, done: Done) -> None:
        self.data = data
        self.done = done
        self.queued = time.monotonic()
        self.sent = 0.0

    def fail(self, fault: str) -> None:
        self.done(Outcome(0, b"", self.sent, time.monotonic(), fault))


class _Connection(asyncio.Protocol):
    """One connection of a pool."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._close = False
        self.request: _Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._pool.opened(self)

    def send(self, request: _Request) -> None:
        """Send a request; there must be none under way."""
        self.request = request
        request.sent = time.monotonic()
        if self._transport is not None:
            self._transport.write(request.data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        status = int(head[9:12])
        length = 0
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        elif status != 204:
            self.abort("a reply without Content-Length")
            return
        if len(self._buffer) < end + 4 + length:
            return
        body = self._buffer[end + 4 : end + 4 + length]
        self._buffer = b""
        request, self.request = self.request, None
        if b"\r\nconnection: close" in head:
            self._close = True
            self.close()
        else:
            self._pool.free(self)
        if request is not None:
            request.done(Outcome(status, body, request.sent, time.monotonic()))

    def connection_lost(self, exc: Exception | None) -> None:
        request, self.request = self.request, None
        self._pool.lost(self)
        if request is not None:
            reply = "in the middle of" if self._buffer else "instead of"
            kind = type(exc).__name__ if exc else "end"
            request.fail(f"connection lost ({kind}) {reply} the reply")

    def close(self) -> None:
        """Close in peace."""
        if self._transport is not None:
            self._transport.close()

    def abort(self, fault: str) -> None:
        """Give up the connection and the request on it."""
        request, self.request = self.request, None
        if self._transport is not None:
            self._transport.abort()
        if request is not None:
            request.fail(fault)


class Pool:
    """Connections to one port of this host, which are opened again when they end.

    Args:
        port: the port.
        size: how many connections.
        timeout: seconds after which a request is given up that is not answered, or for which there
            is no connection at all.
        context: for TLS.
    """

    def __init__(
        self, port: int, size: int, *, timeout: float = 10.0, context: ssl.SSLContext | None = None
    ) -> None:
        self.port: Final = port
        self._size = size
        self._timeout = timeout
        self._context = context
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[_Request] = deque()
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> "Pool":
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to connect."""
        for _ in range(self._size):
            self._spawn(self._connect())
        self._spawn(self._sweep())

    async def connected(self) -> None:
        """Wait until all connections are open."""
        while len(self._open) < self._size:
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Close all connections; requests that are under way or waiting fail."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._open):
            connection.abort("closed here")
        while self._waiting:
            self._waiting.popleft().fail("closed here")
        # The transports' own ends are called soon, not now.
        await asyncio.sleep(0)

    def __len__(self) -> int:
        """Count the requests that wait for a connection."""
        return len(self._waiting)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def submit(self, data: bytes, done: Done) -> None:
        """Send a request as soon as a connection is free."""
        request = _Request(data, done)
        if self._idle:
            self._idle.popleft().send(request)
        else:
            self._waiting.append(request)

    async def call(self, data: bytes) -> Outcome:
        """Send a request and wait for what becomes of it."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        self.submit(data, done)
        return await future

    def opened(self, connection: _Connection) -> None:
        """Take note of a new connection."""
        self._open.add(connection)
        self.free(connection)

    def free(self, connection: _Connection) -> None:
        """Take note of a connection on which nothing is under way."""
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        """Take note of a connection that has ended."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._closed:
            self._spawn(self._connect())

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closed:
            try:
                await loop.create_connection(
                    lambda: _Connection(self), HOST, self.port, ssl=self._context
                )
            except OSError:
                await asyncio.sleep(_RETRY)
            else:
                return

    async def _sweep(self) -> None:
        while not self._closed:
            await asyncio.sleep(_SWEEP)
            before = time.monotonic() - self._timeout
            for connection in list(self._open):
                if connection.request is not None and connection.request.sent < before:
                    connection.abort(f"no reply in {self._timeout:g} s")
            # To wait for others to be answered is no fault, to wait for a connection is one.
            while self._waiting and not self._open and self._waiting[0].queued < before:
                self._waiting.popleft().fail(f"no connection in {self._timeout:g} s")


def post(path: str, body: bytes, token: str = "") -> bytes:
    """Return a POST request."""
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"{bearer}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
