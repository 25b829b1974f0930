"""Rolling restarts behind the balancers that the documentation shows: no request may fail.

The balancers run with the very files of ``operations.rst``.
"""

import asyncio
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from msgspec import Struct

from benchmarks.faults.client import HOST, Outcome, Pool
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import Folder, Gateway
from benchmarks.faults.ports import certificate
from benchmarks.faults.servers import Server
from benchmarks.faults.traffic import Caller, chance, open_loop
from tests.process import free_port
from tests.proxies import Haproxy, Nginx, Proxy, documented
from tests.redis_server import RedisServer

COLUMNS: Final = (
    "front",
    "rooms",
    "restarts",
    "requests",
    "failed",
    "p99 ms",
    "max ms",
    "stopped s",
    "started s",
)
INTERVAL: Final = 5.0
"""Seconds between two reports of a server, as it is by default."""

FRONTS: Final = ("reuse_port", "haproxy", "nginx")


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        fronts: what is in front.
        rounds: how often all gateways are restarted.
        gateways: how many; two where the documentation's file names two.
        servers: how many.
        rooms: how many they report, all together.
        rate: Connects per second.
        connections: that clients keep.
        hurry: how many times faster than documented checks, delays and pauses are.
        seed: of all chance.
    """

    fronts: tuple[str, ...] = FRONTS
    rounds: int = 4
    gateways: int = 2
    servers: int = 10
    rooms: int = 60_000
    rate: float = 200
    connections: int = 32
    hurry: float = 1.0
    seed: int = 1


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Restart all gateways, one after the other, behind each front.

    Raises:
        SkipTest: Redis or a balancer is not installed.
    """
    findings = Findings("rolling: restarts behind the documented balancers", COLUMNS, write)
    for front in plan.fronts:
        redis = RedisServer()
        try:
            redis.start()
            with Folder() as folder:
                await _Rolling(plan, front, folder, redis.url(), findings).run()
        finally:
            redis.close()
    return findings


class _Rolling:
    def __init__(
        self, plan: Plan, front: str, folder: Path, state: str, findings: Findings
    ) -> None:
        self.plan = plan
        self.front = front
        self.folder = folder
        self.findings = findings
        self._delay, self._pause = {
            "haproxy": (6.0, 5.0),
            "nginx": (3.0, 0.0),
            "reuse_port": (3.0, 0.0),
        }[front]
        self._tls, self._context = certificate(folder)
        shared = free_port() if front == "reuse_port" else 0
        self.internal = [free_port() for _ in range(plan.gateways)]
        self.gateways = [
            Gateway(
                folder,
                state,
                name=f"{front}-{index}",
                port=shared,
                listen=self._listen(port),
                scheme="haproxy:tcp" if front == "haproxy" else "tcp",
            )
            for index, port in enumerate(self.internal)
        ]
        self.servers = [
            Server(f"sfu{index}.test:4433", self.internal, INTERVAL, first=index)
            for index in range(plan.servers)
        ]
        self.names = [f"room-{index}" for index in range(plan.rooms)]
        for index, name in enumerate(self.names):
            self.servers[index % plan.servers].join("acme", name, "user")
        self.failed: Counter[str] = Counter()
        self.seconds: list[float] = []

    def _listen(self, internal: int) -> str:
        lines = [
            f'internal = ["tcp:{internal}:interface={HOST}"]',
            f"shutdown_delay = {self._delay / self.plan.hurry}",
            f"reuse_port = {'true' if self.front == 'reuse_port' else 'false'}",
        ]
        return "\n".join(lines)

    def _proxy(self) -> Proxy:
        one, two = self.gateways
        if self.front == "nginx":
            changes = {
                "10.0.0.11:7000": f"{HOST}:{one.port}",
                "10.0.0.12:7000": f"{HOST}:{two.port}",
                "keepalive_timeout 2s": f"keepalive_timeout {2000 / self.plan.hurry:.0f}ms",
                "listen 443": f"listen {HOST}:{{front}}",
                "/etc/nginx/gateway.pem": str(self.folder / "chain.pem"),
                "/etc/nginx/gateway.key": str(self.folder / "key.pem"),
            }
            return Nginx(documented("nginx, before a fleet", changes))
        both = self.folder / "both.pem"
        parts = [(self.folder / name).read_bytes() for name in ("key.pem", "chain.pem")]
        both.write_bytes(b"".join(parts))
        changes = {
            "bind :443": f"bind {HOST}:{{front}}",
            "/etc/haproxy/gateway.pem": str(both),
            "10.0.0.11:7000 port 7001": f"{HOST}:{one.port} port {one.admin}",
            "10.0.0.12:7000 port 7001": f"{HOST}:{two.port} port {two.admin}",
            "inter 2s": f"inter {2000 / self.plan.hurry:.0f}ms",
        }
        return Haproxy(documented("HAProxy, before a fleet", changes))

    async def run(self) -> None:
        """Restart under load, and count."""
        async with AsyncExitStack() as stack:
            port, context = self.gateways[0].port, None
            if self.front != "reuse_port":
                proxy = self._proxy()
                stack.callback(proxy.stop)
            for gateway in self.gateways:
                stack.push_async_callback(gateway.kill)
                await gateway.spawn().ready("/readyz")
            for server in self.servers:
                stack.push_async_callback(server.stop)
                server.start()
            while any(not server.reports for server in self.servers):
                await asyncio.sleep(0.05)
            if self.front != "reuse_port":
                port, context = proxy.start().ports["front"], self._context
            stopped, started = await self._restart_all(port, context)
        self._judge(stopped, started)

    async def _restart_all(
        self, port: int, context: ssl.SSLContext | None
    ) -> tuple[list[float], list[float]]:
        stopped, started = [], []
        over = False
        async with Pool(port, self.plan.connections, context=context) as pool:
            await pool.connected()
            requests = self._requests()
            load = asyncio.create_task(
                open_loop(
                    self.plan.rate,
                    lambda: pool.submit(next(requests), self._done),
                    lambda: over,
                    lambda: len(pool) < 500,
                )
            )
            for _ in range(self.plan.rounds):
                for gateway in self.gateways:
                    await asyncio.sleep((1.0 + self._pause) / self.plan.hurry)
                    began = time.monotonic()
                    gateway.send_signal(signal.SIGTERM)
                    status = await gateway.ended()
                    self.findings.expect("SIGTERM ends with status 0", 0 if status == 0 else 1)
                    stopped.append(time.monotonic() - began)
                    started.append(await gateway.spawn().ready("/readyz"))
            await asyncio.sleep(1.0 / self.plan.hurry)
            over = True
            await load
            while len(self.seconds) + self.failed.total() < self.sent:
                await asyncio.sleep(0.01)
        return stopped, started

    def _requests(self) -> Iterator[bytes]:
        """Yield Connects to rooms that are known; their tokens are signed before."""
        rng, caller = chance(self.plan.seed), Caller()
        made = [caller.connect(name, "user") for name in rng.sample(self.names, 500)]
        self.sent = 0
        while True:
            self.sent += 1
            yield rng.choice(made)

    def _done(self, outcome: Outcome) -> None:
        answer = outcome.answer()
        if answer.error is not None:
            text = f"{outcome.status} {answer.error.data.reason} {answer.error.message[:100]}"
            self.failed[text] += 1
        else:
            self.seconds.append(outcome.done - outcome.sent)

    def _judge(self, stopped: list[float], started: list[float]) -> None:
        count = self.failed.total()
        times = sorted(self.seconds) or [0.0]
        self.findings.row(
            self.front,
            self.plan.rooms,
            len(stopped),
            len(times) + count,
            count,
            times[int(len(times) * 0.99)] * 1000,
            times[-1] * 1000,
            max(stopped),
            max(started),
        )
        expect = self.findings.expect
        expect(f"no request fails behind {self.front} {dict(self.failed) or ''}", count)
        faults: Counter[str] = sum((server.faults for server in self.servers), Counter())
        # A server that reports to a gateway that has gone takes the next.
        if other := {text: n for text, n in faults.items() if "no_reply" not in text}:
            self.findings.note(f"reports: {other}")
        expect(
            "the gateways log no error", [line for one in self.gateways for line in one.errors()]
        )
