"""One gateway with a simulated server or more, raw sockets to it, and a look at how it does."""

import asyncio
import contextlib
import json
import socket
import struct
import time
from typing import Any, Final, Self

from benchmarks.faults.client import HOST, Outcome, Pool, Result, get, post
from benchmarks.faults.gateways import Folder, Gateway
from benchmarks.faults.traffic import Caller
from tests.process import report_params

SERVER: Final = "sfu0.test:4433"
LASTING: Final = "reservation_lifetime = 600\n"
"""For ``[gateway]``: rooms that no server reports are not forgotten while a run lasts."""

CONNECTIONS: Final = 8
"""Over how many connections good Connects come."""

_RESET: Final = struct.pack("ii", 1, 0)


class Alone:
    """A gateway that ends with its context, and that a server has reported to.

    Args:
        state: the state URL.
        server_timeout: seconds of silence after which a server is written off.
        arguments: of the ``Gateway``.

    Attributes:
        gateway: the gateway.
        caller: makes the requests of a customer.
    """

    def __init__(
        self,
        state: str = "memory:",
        *,
        server_timeout: float = 590.0,
        **arguments: Any,
    ) -> None:
        self._state = state
        self._timeout = server_timeout
        self._arguments = arguments
        self._stack = contextlib.ExitStack()
        self.caller = Caller()

    async def __aenter__(self) -> Self:
        folder = self._stack.enter_context(Folder())
        self.gateway = Gateway(
            folder, self._state, disable_timeout=self._timeout, **self._arguments
        )
        try:
            await self.gateway.spawn().ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gateway.kill()
        self._stack.close()

    @property
    def port(self) -> int:
        """The public port."""
        return self.gateway.port

    async def report(self, *rooms: tuple[str, int], server: str = SERVER) -> Any:
        """Report as a server over a connection of its own; return the answer."""
        async with Pool(self.port, 1, timeout=60.0) as pool:
            outcome = await pool.call(report(server, *rooms))
        return json.loads(outcome.body or b"{}")

    async def connections(self) -> int:
        """Return how many connections are open, without the one that asks."""
        return int(await self.gateway.metric("odingw_open_connections")) - 1

    async def idle(self, timeout: float = 20.0) -> float:
        """Wait until no connection is open; return for how many seconds, -1 if some stay."""
        began = time.monotonic()
        while time.monotonic() < began + timeout:
            if not await self.connections():
                return time.monotonic() - began
            await asyncio.sleep(0.05)
        return -1.0

    async def longest_step(self) -> float:
        """Return the longest time for which its own work held its reactor up, ms."""
        return await self.gateway.metric("odingw_reactor_longest_step_seconds") * 1000

    async def info(self) -> Result:
        """Return what the gateway knows of rooms and servers."""
        call = b'{"jsonrpc": "2.0", "id": 1, "method": "Info", "params": {}}'
        async with Pool(self.port, 1, timeout=60.0) as pool:
            return (await pool.call(post("/internal", call))).answer().result or Result()

    async def get(self, path: str) -> tuple[int, bytes]:
        """Get something; return status and body."""
        async with Pool(self.port, 1) as pool:
            outcome = await pool.call(get(path))
        return outcome.status, outcome.body

    async def serves(self, room: str = "probe") -> bool:
        """Tell whether a Connect over a new connection is answered with a token."""
        async with Pool(self.port, 1, timeout=30.0) as pool:
            outcome = await pool.call(self.caller.connect(room, "probe"))
        return outcome.answer().result is not None


def report(server: str, *rooms: tuple[str, int]) -> bytes:
    """Return a report."""
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "sfu.Report",
        "params": report_params(server, *rooms),
    }
    return post("/internal", json.dumps(body).encode())


def dial(port: int, source: str = "", timeout: float = 20.0) -> socket.socket:
    """Open a connection, from an address of this host."""
    return socket.create_connection(
        (HOST, port), timeout, source_address=(source, 0) if source else None
    )


def reset(wire: socket.socket) -> None:
    """Cut a connection: the peer gets a reset."""
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    wire.close()


def read_all(wire: socket.socket) -> bytes:
    """Read until the peer closes, cleanly or not."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := wire.recv(65536):
            data += chunk
    return data


def read_reply(wire: socket.socket) -> bytes:
    """Read one whole reply; shorter where the connection ends."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := wire.recv(65536):
            data += chunk
            head, end, body = data.partition(b"\r\n\r\n")
            if end and len(body) >= _length(head):
                break
    return data


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


class Steady:
    """Sends good Connects at a steady rate, and keeps how long their answers took.

    Args:
        alone: the gateway.
        rate: a second.
        rooms: over how many rooms.
    """

    def __init__(self, alone: Alone, rate: float = 20.0, rooms: int = 20) -> None:
        self._alone = alone
        self._rate = rate
        self._requests = [alone.caller.connect(f"steady-{index}", "user") for index in range(rooms)]
        self._work: asyncio.Task[None] | None = None
        self._over = False
        self.seconds: list[float] = []
        self.failed: list[str] = []

    async def __aenter__(self) -> Self:
        self._work = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        if self._work is not None:
            await self._work

    async def _run(self) -> None:
        async with Pool(self._alone.port, CONNECTIONS, timeout=60.0) as pool:
            began, sent, waiting = time.monotonic(), 0, 0

            def done(outcome: Outcome) -> None:
                nonlocal waiting
                waiting -= 1
                answer = outcome.answer()
                if answer.result is None:
                    self.failed.append(answer.error.message if answer.error else "?")
                self.seconds.append(outcome.done - outcome.sent)

            while not self._over:
                while sent < (time.monotonic() - began) * self._rate:
                    waiting += 1
                    pool.submit(self._requests[sent % len(self._requests)], done)
                    sent += 1
                await asyncio.sleep(0.005)
            while waiting:
                await asyncio.sleep(0.01)

    def percentile(self, share: float) -> float:
        """Return the time in ms in which this share of the answers came."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else -1.0

    def figure(self) -> str:
        """Return what became of them, for people."""
        return (
            f"{len(self.seconds) - len(self.failed)} of {len(self.seconds)} answered, "
            f"p50 {self.percentile(0.5):.1f} ms, p99 {self.percentile(0.99):.1f} ms, "
            f"max {self.percentile(1.0):.0f} ms"
        )
