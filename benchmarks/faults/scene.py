"""A fleet of gateways over one state, its servers, and ways to look at them all."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Self

from benchmarks.faults.book import Book, Call, Deliveries, judge
from benchmarks.faults.client import HOST, Pool
from benchmarks.faults.gateways import REPORT_INTERVAL, Folder, Gateway
from benchmarks.faults.servers import Server
from benchmarks.faults.traffic import Caller, Traffic
from tests.tcp_proxy import Balancer


class Scene:
    """Gateways and servers that end with it.

    Args:
        state: the state URL of all gateways.
        gateways: how many.
        servers: how many.
        customers: TOML of the customers; empty: the usual one.
        listen: TOML lines for ``[listen]``.
        before: further TOML tables.
        name: how the gateways' names begin.
        balanced: whether servers report by way of a load balancer, which is made for that.
        interval: seconds between reports.
        disable_timeout: of silent servers, seconds.
    """

    def __init__(
        self,
        state: str,
        gateways: int,
        servers: int,
        *,
        customers: str = "",
        listen: str = "",
        before: str = "",
        name: str = "gateway",
        balanced: bool = False,
        interval: float = REPORT_INTERVAL,
        disable_timeout: float = 10.0,
    ) -> None:
        self.balancer: Balancer | None = None
        self._balanced = balanced
        self._stack = AsyncExitStack()
        folder = self._stack.enter_context(Folder())
        self.gateways = [
            Gateway(
                folder,
                state,
                name=f"{name}-{index}",
                customers=customers,
                listen=listen,
                before=before,
                disable_timeout=disable_timeout,
            )
            for index in range(gateways)
        ]
        self.book = Book()
        self.servers: dict[str, Server] = {}
        for index in range(servers):
            address = f"sfu{index}.test:4433"
            self.servers[address] = Server(
                address,
                [gateway.port for gateway in self.gateways],
                interval,
                first=index,
            )
        self.traffic = Traffic(self.book, self.servers, Caller())

    async def __aenter__(self) -> Self:
        try:
            for gateway in self.gateways:
                gateway.spawn()
                # One after the other: the first one makes the layout of an empty store.
                await gateway.ready()
            if self._balanced:
                self.balancer = Balancer(
                    [((HOST, one.port), (HOST, one.admin)) for one in self.gateways]
                ).start()
            for server in self.servers.values():
                if self.balancer is not None:
                    server.ports = [self.balancer.port]
                server.start()
            await self.reported(1)
            await self.attached()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for server in self.servers.values():
                await server.stop()
            for gateway in self.gateways:
                await gateway.kill()
            if self.balancer is not None:
                self.balancer.close()
        finally:
            await self._stack.aclose()

    def pool(self, gateway: Gateway, size: int, *, timeout: float = 10.0) -> Pool:
        """Return a pool of connections to a gateway, which is to be entered."""
        return Pool(gateway.port, size, timeout=timeout)

    async def reported(self, times: int, timeout: float = 30.0) -> None:
        """Wait until every server has reported some more times."""
        wanted = {server: server.reports + times for server in self.servers.values()}
        await until(
            lambda: all(server.reports >= count for server, count in wanted.items()),
            timeout,
            "every server has reported",
        )

    async def attached(self, timeout: float = 10.0) -> None:
        """Wait until every gateway knows all servers."""
        end = time.monotonic() + timeout
        for gateway in self.gateways:
            async with self.pool(gateway, 1) as pool:
                while time.monotonic() < end:
                    known = (await self.traffic.info(pool)).servers
                    if len(known) == len(self.servers):
                        break
                    await asyncio.sleep(0.05)

    async def delivered(self, timeout: float) -> tuple[Deliveries, float]:
        """Wait until all acknowledged tasks have arrived, at most so long.

        Returns:
            What became of them, and how many seconds it took.
        """
        started = time.monotonic()

        def all_arrived() -> bool:
            received = {item.number for server in self.servers.values() for item in server.received}
            return all(call.number in received for call in self.book.acknowledged())

        with suppress(TimeoutError):
            await until(all_arrived, timeout, "", pause=0.1)
        seconds = time.monotonic() - started
        return self.judge(), seconds

    def judge(self) -> Deliveries:
        """Compare what was asked for with what has arrived so far."""
        return judge(
            self.book.calls,
            [item for server in self.servers.values() for item in server.received],
        )

    def contested(self) -> list[str]:
        """Return the rooms that servers were told to close because another one has them."""
        return [room for server in self.servers.values() for room in server.contested]

    async def disagreements(
        self, gateways: Sequence[Gateway], rooms: Sequence[str], user: str = "user-0"
    ) -> list[str]:
        """Connect to all rooms by way of each gateway; return what is not where it was promised."""
        wrong: list[str] = []
        for gateway in gateways:
            async with self.pool(gateway, 16) as pool:
                moved, refused = len(self.book.moved), dict(self.book.refused)
                await self.traffic.connect_all(pool, ((room, user) for room in rooms))
                wrong += [f"{gateway.name}: {case}" for case in self.book.moved[moved:]]
                for reason, count in self.book.refused.items():
                    if more := count - refused.get(reason, 0):
                        wrong.append(f"{gateway.name}: {more} times {reason}")
        return wrong

    def errors(self) -> list[str]:
        """Return what in the gateways' logs tells of bugs."""
        return [f"{one.name}: {line}" for one in self.gateways for line in one.errors()]


async def until(
    condition: Callable[[], bool], timeout: float, what: str, *, pause: float = 0.02
) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it does not come true in time.
    """
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(pause)


def numbers(calls: Sequence[Call]) -> list[str]:
    """Return calls as short text."""
    return [f"{call.kind} {call.number} for {call.server}" for call in calls]
