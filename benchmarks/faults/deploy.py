"""Gateways of a fleet are replaced one by one under load: no request may fail."""

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from msgspec import Struct

from benchmarks.faults.client import Pool
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import Gateway
from benchmarks.faults.scene import Scene, numbers, until
from benchmarks.faults.traffic import MANAGE, chance, open_loop
from tests.redis_server import RedisServer
from tests.tcp_proxy import Balancer

COLUMNS: Final = (
    "restart",
    "of",
    "connects",
    "acked",
    "failed",
    "report faults",
    "stopped s",
    "started s",
    "back s",
)
SHUTDOWN_DELAY: Final = 1.0


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is; rates are per second.

    Attributes:
        state: the state URL; empty: a Redis that is made for this.
        rounds: how often each gateway is restarted.
        gateways: how many.
        servers: how many.
        rooms: how many.
        connects: rate of Connects.
        calls: rate of management calls.
        connections: to the balancer.
        pause: seconds of load between two restarts.
        seed: of all chance.
    """

    state: str = ""
    rounds: int = 3
    gateways: int = 2
    servers: int = 4
    rooms: int = 200
    connects: float = 300
    calls: float = 50
    connections: int = 32
    pause: float = 1.0
    seed: int = 1


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Restart each gateway in turn.

    Raises:
        SkipTest: Redis is not installed.
    """
    findings = Findings(
        f"deploy: {plan.gateways} gateways behind a balancer, SIGTERM and start", COLUMNS, write
    )
    redis = RedisServer()
    try:
        redis.start()
        scene = Scene(
            plan.state or redis.url(),
            plan.gateways,
            plan.servers,
            listen=f"shutdown_delay = {SHUTDOWN_DELAY}",
            balanced=True,
            # Shorter than the delay: each connection must hear that it is to be closed.
            interval=SHUTDOWN_DELAY / 2,
        )
        async with scene:
            if scene.balancer is not None:
                await _Deploy(plan, scene, scene.balancer, findings).run()
    finally:
        redis.close()
    return findings


class _Deploy:
    def __init__(self, plan: Plan, scene: Scene, balancer: Balancer, findings: Findings) -> None:
        self.balancer = balancer
        self.plan = plan
        self.scene = scene
        self.findings = findings
        self.rng = chance(plan.seed)
        self._over = False
        self._new = 0

    async def run(self) -> None:
        """Load by way of the balancer, restart, compare."""
        scene, expect = self.scene, self.findings.expect
        rooms = [f"room-{index}" for index in range(self.plan.rooms)]
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(Pool(self.balancer.port, self.plan.connections))
            await scene.traffic.connect_all(pool, ((room, "user-0") for room in rooms))
            for room in rooms:
                for user in range(3):
                    scene.traffic.caller.connect(room, f"user-{user}")
            load = asyncio.gather(
                open_loop(
                    self.plan.connects,
                    lambda: self._connect(pool, rooms),
                    lambda: self._over,
                    lambda: len(pool) < 500,
                ),
                open_loop(
                    self.plan.calls,
                    lambda: self._manage(pool, rooms),
                    lambda: self._over,
                    lambda: len(pool) < 500,
                ),
            )
            for number in range(1, self.plan.rounds + 1):
                for gateway in scene.gateways:
                    await asyncio.sleep(self.plan.pause)
                    await self._restart(number, gateway)
            self._over = True
            await load
            await scene.traffic.settle()
        outcome, seconds = await scene.delivered(15)
        self.findings.note(f"all tasks had arrived {seconds:.1f} s after the last restart")
        expect("an acknowledged task arrives", numbers(outcome.lost))
        expect("a task goes to the room's server", numbers(outcome.strayed))
        expect("tasks arrive in order", numbers(outcome.disordered))
        wrong = await scene.disagreements(scene.gateways, sorted(scene.book.placed))
        expect("rooms stay where they are", wrong)
        for gateway in scene.gateways:
            async with scene.pool(gateway, 16) as pool:
                bans = await scene.traffic.check_bans(pool, scene.book.bans)
                expect(f"a ban holds at {gateway.name}", bans)
        expect("no room is told to be another server's", scene.contested())
        expect("the gateways log no error", scene.errors())

    def _connect(self, pool: Pool, rooms: list[str]) -> None:
        room = self.rng.choice(rooms)
        if self.rng.random() < 0.05:
            self._new += 1
            room = f"new-{self._new}"
        self.scene.traffic.connect(pool, room, f"user-{self.rng.randrange(3)}")

    def _manage(self, pool: Pool, rooms: list[str]) -> None:
        self.scene.traffic.manage(pool, self.rng.choice(MANAGE[:3]), self.rng.choice(rooms))

    async def _restart(self, number: int, gateway: Gateway) -> None:
        scene, balancer = self.scene, self.balancer
        before = scene.book.connects, len(scene.book.acknowledged()), self._failed()
        faults = self._report_faults()
        began = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        status = await gateway.ended()
        stopped = time.monotonic() - began
        self.findings.expect("SIGTERM ends with status 0", [] if status == 0 else [status])
        # Else it would live on beside its successor.
        await gateway.kill()
        started = await gateway.spawn().ready()
        await until(lambda: len(balancer.ready) == len(scene.gateways), 30, "the balancer sees it")
        back = time.monotonic() - began
        failed = self._failed() - before[2]
        faults = self._report_faults() - faults
        self.findings.row(
            number,
            gateway.name.removeprefix("gateway-"),
            scene.book.connects - before[0],
            len(scene.book.acknowledged()) - before[1],
            failed,
            faults,
            stopped,
            started,
            back,
        )
        samples = scene.book.samples if failed else {}
        self.findings.expect(f"no request fails {samples or ''}", failed)
        self.findings.expect("no report fails", faults)

    def _failed(self) -> int:
        return sum(self.scene.book.refused.values()) + sum(self.scene.book.calls_refused.values())

    def _report_faults(self) -> int:
        return sum(sum(server.faults.values()) for server in self.scene.servers.values())
