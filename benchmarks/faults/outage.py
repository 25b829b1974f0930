"""Redis goes away and comes back, whole, empty, late or elsewhere: what goes on, what is left."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from msgspec import Struct

from benchmarks.faults.client import Outcome, Pool, get
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import LONGEST_STEP, Gateway
from benchmarks.faults.scene import Scene, numbers
from benchmarks.faults.traffic import MANAGE, Caller, Traffic, chance, open_loop
from tests.redis_server import RedisServer
from tests.tcp_proxy import TcpProxy

COLUMNS: Final = (
    "variant",
    "seconds",
    "known",
    "failed",
    "new ok",
    "refused",
    "reports",
    "faults",
    "gap s",
    "unready s",
    "ready s",
    "serves s",
    "moved",
    "tasks",
    "lost",
    "bans lost",
    "step ms",
)
VARIANTS: Final = ("kept", "empty", "paused", "slow", "failover")
DELAY: Final = 0.05
"""Seconds that each direction takes in the slow variant."""

LONGEST_GAP: Final = 5.0
"""Seconds between two answered reports that are still fine: servers report each second."""


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is; rates are per second.

    Attributes:
        variants: what happens to Redis.
        seconds: how long it is away.
        gateways: how many.
        servers: how many.
        rooms: how many are known before.
        connects: rate of Connects to known rooms.
        news: rate of Connects to new rooms.
        calls: rate of management calls.
        waiting: how many tasks wait for delivery when Redis goes away.
        recovery: seconds that a recovery may take.
        seed: of all chance.
    """

    variants: tuple[str, ...] = VARIANTS
    seconds: float = 60.0
    gateways: int = 2
    servers: int = 4
    rooms: int = 300
    connects: float = 200
    news: float = 20
    calls: float = 20
    waiting: int = 200
    recovery: float = 30.0
    seed: int = 1


class _Parts:
    """Redis, a proxy in front of it, and what to do to them."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.redis = RedisServer(persistent=variant != "empty").start()
        self.spare = RedisServer()
        self.proxy = TcpProxy(self.redis.address).start()
        if variant == "failover":
            self.spare.start()

    @property
    def url(self) -> str:
        return self.redis.url(port=self.proxy.port)

    def begin(self) -> None:
        match self.variant:
            case "paused":
                self.redis.pause()
            case "slow":
                self.proxy.delay = DELAY
            case _:
                self.redis.stop()

    def end(self) -> None:
        match self.variant:
            case "paused":
                self.redis.resume()
            case "slow":
                self.proxy.delay = 0.0
            case "failover":
                self.proxy.target = self.spare.address
            case _:
                self.redis.start()

    def close(self) -> None:
        self.proxy.close()
        self.redis.close()
        self.spare.close()


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Take Redis away in each of the ways.

    Raises:
        SkipTest: Redis is not installed.
    """
    findings = Findings(f"outage: Redis is away for {plan.seconds:g} s", COLUMNS, write)
    for variant in plan.variants:
        parts = await asyncio.to_thread(_Parts, variant)
        try:
            async with Scene(parts.url, plan.gateways, plan.servers) as scene:
                await _Outage(plan, parts, scene, findings).run()
        finally:
            await asyncio.to_thread(parts.close)
    return findings


class _Watch(Struct):
    """What a gateway's health pages said."""

    unready: float = 0.0
    ready: float = 0.0
    dead: int = 0
    flaps: int = 0


class _Outage:
    def __init__(self, plan: Plan, parts: _Parts, scene: Scene, findings: Findings) -> None:
        self.plan = plan
        self.parts = parts
        self.scene = scene
        self.findings = findings
        self.rng = chance(plan.seed)
        self.rooms = [f"room-{index}" for index in range(plan.rooms)]
        self.news = Traffic(scene.book, scene.servers, Caller())
        self.new_rooms = 0
        self.new_outcomes: Counter[str] = Counter()
        self.without_retry = 0
        self.watches = [_Watch() for _ in scene.gateways]
        self._over = False
        self._began = self._ended = 0.0

    @property
    def slow(self) -> bool:
        """Whether Redis is there all the time."""
        return self.parts.variant == "slow"

    async def run(self) -> None:
        """Place rooms, let tasks wait, take Redis away, give it back, compare."""
        scene, expect = self.scene, self.findings.expect
        self.news.on_connect = self._note_new
        async with AsyncExitStack() as stack:
            pools = [
                await stack.enter_async_context(scene.pool(gateway, 16))
                for gateway in scene.gateways
            ]
            # A gateway serves what it has answered for, or its own servers report.
            for pool in pools:
                await scene.traffic.connect_all(pool, ((room, "user-0") for room in self.rooms))
            for room in self.rooms:
                scene.traffic.caller.connect(room, "user-1")
            await scene.reported(2)
            for server in scene.servers.values():
                server.held = True
            await self._let_tasks_wait(pools)
            bans = dict(scene.book.bans)
            watching = asyncio.gather(
                *(self._watch(*pair) for pair in zip(scene.gateways, self.watches, strict=True))
            )
            load = asyncio.gather(*self._loads(pools))
            placed = scene.book.connects
            self._began = time.monotonic()
            await asyncio.to_thread(self.parts.begin)
            for server in scene.servers.values():
                server.held = False
                server.restart_clock()
            reports = sum(server.reports for server in scene.servers.values())
            await asyncio.sleep(self.plan.seconds)
            during = dict(self.new_outcomes)
            known = scene.book.connects - placed - during.get("", 0)
            reports = sum(server.reports for server in scene.servers.values()) - reports
            await asyncio.to_thread(self.parts.end)
            self._ended = time.monotonic()
            serves = await self._serves_again()
            self._over = True
            await load
            await watching
            await scene.traffic.settle()
            await self.news.settle()
        failed = [*scene.book.refused.items()]
        gap = max(server.gap for server in scene.servers.values())
        outcome, _ = await scene.delivered(self.plan.recovery)
        wrong = await scene.disagreements(scene.gateways, sorted(scene.book.placed))
        bans_lost: list[str] = []
        for gateway in scene.gateways:
            async with scene.pool(gateway, 16) as pool:
                bans_lost += await scene.traffic.check_bans(pool, bans)
        faults = [
            f"{server.address}: {fault} ({count})"
            for server in scene.servers.values()
            for fault, count in server.faults.items()
        ]
        unready = max(watch.unready for watch in self.watches)
        step = max([await gateway.longest_step() for gateway in scene.gateways])
        self.findings.row(
            self.parts.variant,
            self.plan.seconds,
            known,
            sum(count for _, count in failed),
            during.get("", 0),
            during.get("store_unavailable", 0),
            reports,
            len(faults),
            gap,
            unready,
            max(watch.ready for watch in self.watches),
            serves,
            len(wrong),
            len(scene.book.acknowledged()),
            len(outcome.lost),
            len(bans_lost),
            step,
        )
        expect("the store does not hold the reactor up", [step] if step > LONGEST_STEP else [])
        self._judge_new_rooms(during)
        self._judge_health()
        expect("Connects to known rooms are served", failed)
        expect("reports are answered", faults)
        expect(f"reports are answered in {LONGEST_GAP:g} s", int(gap > LONGEST_GAP))
        expect("all gateways serve new rooms again", int(serves < 0))
        expect("rooms are where they were, at all gateways", wrong)
        expect("a task that was accepted arrives", numbers(outcome.lost))
        expect("a task goes to the room's server", numbers(outcome.strayed))
        expect("tasks arrive in order", numbers(outcome.disordered))
        expect("a ban from before holds", bans_lost)
        expect("no room is told to be another server's", scene.contested())
        calls = [
            case for case in scene.book.calls_refused.items() if case[0] != "store_unavailable"
        ]
        expect("management calls are refused as store_unavailable or not at all", calls)
        logged = [line for line in scene.errors() if "Redis is away" not in line]
        expect("the gateways log no error but that Redis is away", logged)

    async def _let_tasks_wait(self, pools: Sequence[Pool]) -> None:
        traffic = self.scene.traffic
        for index in range(self.plan.waiting):
            traffic.manage(
                pools[index % len(pools)], MANAGE[index % 3], self.rng.choice(self.rooms)
            )
        await traffic.settle()
        accepted = len(self.scene.book.acknowledged())
        self.findings.expect("all tasks are accepted before", self.plan.waiting - accepted)

    def _loads(self, pools: Sequence[Pool]) -> "list[asyncio._CoroutineLike[tuple[int, int]]]":
        traffic, plan = self.scene.traffic, self.plan

        def is_over() -> bool:
            return self._over

        def has_room() -> bool:
            return all(len(pool) < 200 for pool in pools)

        def known() -> None:
            traffic.connect(self.rng.choice(pools), self.rng.choice(self.rooms), "user-1")

        def new() -> None:
            self.new_rooms += 1
            self.news.connect(self.rng.choice(pools), f"new-{self.new_rooms}", "user-0")

        def manage() -> None:
            traffic.manage(
                self.rng.choice(pools), self.rng.choice(MANAGE[:3]), self.rng.choice(self.rooms)
            )

        return [
            open_loop(plan.connects, known, is_over, has_room),
            open_loop(plan.news, new, is_over, has_room),
            open_loop(plan.calls, manage, is_over, has_room),
        ]

    def _note_new(self, _room: str, outcome: Outcome, reason: str) -> None:
        self.new_outcomes[reason] += 1
        if reason:
            # It is no failure of a known room.
            self.scene.book.refused[reason] -= 1
            if not self.scene.book.refused[reason]:
                del self.scene.book.refused[reason]
            error = outcome.answer().error
            if error is not None and error.data.retry_after is None:
                self.without_retry += 1

    async def _watch(self, gateway: Gateway, watch: _Watch) -> None:
        """Look at the health pages five times a second."""
        async with Pool(gateway.admin, 1, timeout=2.0) as pool:
            was_ready = True
            while not self._over:
                healthy = (await pool.call(get("/healthz"))).status == 200
                ready = (await pool.call(get("/readyz"))).status == 200
                now = time.monotonic()
                if self._began:
                    watch.dead += not healthy
                    if was_ready and not ready:
                        watch.unready = watch.unready or now - self._began
                        watch.flaps += bool(self._ended)
                    elif ready and not was_ready:
                        watch.ready = now - (self._ended or self._began)
                        watch.flaps += not self._ended
                    was_ready = ready
                await asyncio.sleep(0.2)

    async def _serves_again(self) -> float:
        """Wait until each gateway places new rooms and is ready; return how long, -1 for never."""
        deadline = self._ended + self.plan.recovery
        for index, gateway in enumerate(self.scene.gateways):
            async with self.scene.pool(gateway, 1) as pool:
                attempt = 0
                while True:
                    attempt += 1
                    room = f"again-{index}-{attempt}"
                    outcome = await pool.call(self.scene.traffic.caller.connect(room, "user-0"))
                    ready = (await gateway.admin_page("/readyz")).status == 200
                    if outcome.answer().result is not None and ready:
                        break
                    if time.monotonic() > deadline:
                        return -1.0
                    await asyncio.sleep(0.05)
        return time.monotonic() - self._ended

    def _judge_new_rooms(self, during: dict[str, int]) -> None:
        expect = self.findings.expect
        if self.slow:
            others = [case for case in self.new_outcomes.items() if case[0]]
            expect("new rooms are placed while Redis is slow", others)
            return
        expect("new rooms are refused meanwhile", int(not during.get("store_unavailable")))
        others = [
            case for case in self.new_outcomes.items() if case[0] not in ("", "store_unavailable")
        ]
        expect("new rooms are refused for no other reason", others)
        expect("a refusal says when to try again", self.without_retry)

    def _judge_health(self) -> None:
        expect = self.findings.expect
        expect("/healthz says 200 throughout", sum(watch.dead for watch in self.watches))
        if self.slow:
            expect("/readyz says 200 throughout", sum(bool(one.unready) for one in self.watches))
        else:
            expect("/readyz says 503 meanwhile", sum(not one.unready for one in self.watches))
            expect("/readyz does not waver", sum(one.flaps for one in self.watches))
