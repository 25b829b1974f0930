"""TCP proxies on loopback that are slow, hang or fail over as a test wants, and a load balancer.

A proxy works in a thread of its own; its attributes may be set from any thread at any time.
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final, Self, TypeAlias, TypeVar

HOST: Final = "127.0.0.1"

PATIENCE: Final = 30.0
"""Seconds that a start, a cut or a close may take."""

CHECK_INTERVAL: Final = 0.2
"""Seconds between two health checks of a target."""

CHECK_TIME: Final = 2.0
"""Seconds after which a health check without an answer has failed."""

_CHUNK: Final = 65536
_CHUNKS_UNDER_WAY: Final = 256
_STALL_POLL: Final = 0.01

Address: TypeAlias = tuple[str, int]
Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Result = TypeVar("_Result")


class _Proxy:
    """What the proxies share: everything but where a connection goes.

    Attributes:
        port: where it listens.
        delay: seconds that each chunk is late, in each direction.
        refuse: close new connections at once.
        stall: take bytes (and the end of a connection) and pass nothing on, until this is False.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay = 0.0
        self.refuse = False
        self.stall = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return HOST, self.port

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def start(self) -> Self:
        """Serve; connections that were made before are served too."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._open())
        return self

    def cut(self) -> None:
        """Close all connections, on both sides, and drop what is under way."""
        self._run(self._cut())

    def close(self) -> None:
        """Close all connections and listen no more; a second time does nothing."""
        if self._loop is not None and self._thread is not None:
            self._run(self._shut())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            self._loop.close()
            self._loop = None
        self._listener.close()

    def _run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the proxy does not run")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._listener)

    async def _cut(self) -> None:
        await _cancel(self._connections)

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
        await _cancel(asyncio.all_tasks() - {asyncio.current_task()})

    def _targets(self) -> Sequence[Address]:
        """Where the next connection may go, the best first."""
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            target = None if self.refuse else await self._connect()
            if target is not None:
                writers.append(target[1])
                async with asyncio.TaskGroup() as group:
                    self._pump(group, reader, target[1])
                    self._pump(group, target[0], writer)
                for one in writers:
                    one.close()
                    await one.wait_closed()
        except* (OSError, asyncio.CancelledError):
            pass  # One side has reset its connection, or both are cut.
        finally:
            for one in writers:
                one.transport.abort()
            self._connections.discard(task)

    async def _connect(self) -> Stream | None:
        for target in self._targets():
            try:
                return await asyncio.open_connection(*target)
            except OSError:
                continue
        return None

    def _pump(
        self,
        group: asyncio.TaskGroup,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        # Chunks are read while earlier ones wait, so that a delay does not become a rate.
        queue = asyncio.Queue[tuple[float, bytes | None]](_CHUNKS_UNDER_WAY)
        group.create_task(self._read(reader, queue))
        group.create_task(self._write(writer, queue))

    async def _read(
        self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes | None]]
    ) -> None:
        """Queue chunks with when they are due; at the end b"", or None for a reset."""
        loop = asyncio.get_running_loop()
        chunk: bytes | None = None
        while True:
            try:
                chunk = await reader.read(_CHUNK)
            except OSError:
                chunk = None
            await queue.put((loop.time() + self.delay, chunk))
            if not chunk:
                return

    async def _write(
        self, writer: asyncio.StreamWriter, queue: asyncio.Queue[tuple[float, bytes | None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            while self.stall:
                await asyncio.sleep(_STALL_POLL)
            if chunk is None:
                raise ConnectionResetError
            if not chunk:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()


class TcpProxy(_Proxy):
    """A proxy to one target at a time.

    Args:
        target: host and port to connect to.

    Attributes:
        target: where new connections go; those that exist stay where they are.
    """

    def __init__(self, target: Address) -> None:
        super().__init__()
        self.target = target

    def _targets(self) -> Sequence[Address]:
        return (self.target,)


class Balancer(_Proxy):
    """A load balancer: new connections go round robin to the targets that are ready.

    A target is ready while its admin address has answered the last ``GET /readyz`` with 200. One
    that does not take the connection is passed over; with none left, the client's is closed.

    Args:
        targets: for each, host and port to connect to and host and port to ask.
    """

    def __init__(self, targets: Sequence[tuple[Address, Address]]) -> None:
        super().__init__()
        self._all = tuple(targets)
        self._ready: frozenset[Address] = frozenset()
        self._turn = 0
        self._checks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> tuple[Address, ...]:
        """The targets that are ready, in the order given."""
        ready = self._ready
        return tuple(target for target, _ in self._all if target in ready)

    def _targets(self) -> Sequence[Address]:
        ready = self.ready
        if not ready:
            return ()
        self._turn += 1
        first = self._turn % len(ready)
        return ready[first:] + ready[:first]

    async def _open(self) -> None:
        """Ask all targets once, then serve."""
        await asyncio.gather(*(self._check(*pair) for pair in self._all))
        self._checks = {asyncio.create_task(self._keep_checking(*pair)) for pair in self._all}
        await super()._open()

    async def _keep_checking(self, target: Address, admin: Address) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            await self._check(target, admin)

    async def _check(self, target: Address, admin: Address) -> None:
        if await _is_ready(admin):
            self._ready |= {target}
        else:
            self._ready -= {target}


async def _is_ready(admin: Address) -> bool:
    """Whether it answers ``GET /readyz`` with 200 in time."""
    host, port = admin
    request = f"GET /readyz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(CHECK_TIME):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request.encode())
                answer = await reader.read()
            finally:
                writer.transport.abort()
    except OSError:
        return False
    return answer.split(maxsplit=2)[1:2] == [b"200"]


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    ended = list(tasks)
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)
