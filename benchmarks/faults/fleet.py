"""Several gateways on one Redis: one grid, however the calls fall, and also when one is killed."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from msgspec import Struct

from benchmarks.faults.book import Book
from benchmarks.faults.client import Outcome, Pool
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import LONGEST_STEP, Gateway
from benchmarks.faults.scene import Scene, numbers, until
from benchmarks.faults.traffic import MANAGE, Caller, Traffic, chance
from odingw.tokens import AccessKey
from tests.process import customer
from tests.redis_server import RedisServer

COLUMNS: Final = (
    "gateways",
    "connects",
    "rooms",
    "split",
    "limit",
    "granted",
    "excess",
    "bound",
    "tasks",
    "elsewhere",
    "lost",
    "disordered",
    "repeated",
    "arrived s",
    "step ms",
)
LIMITED_KEY: Final = AccessKey.generate(lambda count: b"l" * count)


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        state: the state URL; empty: a Redis that is made for this.
        gateways: how many.
        servers: how many.
        connects: how many Connects there are for the same rooms.
        rooms: how many rooms.
        connections: to each gateway.
        limit: ``max_peers`` of the customer that has one.
        tasks: how many management calls, half of them before a gateway is killed.
        delivery: seconds that tasks may take to arrive.
        seed: of all chance.
    """

    state: str = ""
    gateways: int = 2
    servers: int = 5
    connects: int = 10_000
    rooms: int = 500
    connections: int = 32
    limit: int = 300
    tasks: int = 2000
    delivery: float = 40.0
    seed: int = 1


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Let a fleet work, and kill one gateway of it.

    Raises:
        SkipTest: Redis is not installed.
    """
    findings = Findings(f"fleet: {plan.gateways} gateways on one Redis", COLUMNS, write)
    redis = RedisServer()
    try:
        redis.start()
        customers = customer() + customer("limited", LIMITED_KEY, max_peers=plan.limit)
        scene = Scene(plan.state or redis.url(), plan.gateways, plan.servers, customers=customers)
        async with scene:
            await _Fleet(plan, scene, findings).run()
    finally:
        redis.close()
    return findings


class _Fleet:
    def __init__(self, plan: Plan, scene: Scene, findings: Findings) -> None:
        self.plan = plan
        self.scene = scene
        self.findings = findings
        self.rng = chance(plan.seed)

    async def run(self) -> None:
        """Fill an empty grid, pass a limit, manage, kill."""
        scene, book, expect = self.scene, self.scene.book, self.findings.expect
        async with AsyncExitStack() as stack:
            pools = [
                await stack.enter_async_context(scene.pool(gateway, self.plan.connections))
                for gateway in scene.gateways
            ]
            for pool in pools:
                await pool.connected()
            await self._fill(pools)
            split = len(book.moved)
            expect("no room is on two servers", book.moved)
            expect("a Connect is not refused", [*book.refused.items()])
            granted = await self._pass_limit(pools)
            await scene.reported(1)
            await self._manage_and_kill(pools)
        outcome, seconds = await scene.delivered(self.plan.delivery)
        wrong = await self._look_around(scene.gateways[1:])
        bound = self.plan.gateways * self.plan.connections
        excess = max(0, granted - self.plan.limit)
        step = max([await gateway.longest_step() for gateway in scene.gateways[1:]])
        self.findings.row(
            self.plan.gateways,
            self.plan.connects,
            len(self._rooms()),
            split,
            self.plan.limit,
            granted,
            excess,
            bound,
            len(book.acknowledged()),
            self._elsewhere(),
            len(outcome.lost),
            len(outcome.disordered),
            outcome.repeated,
            seconds,
            step,
        )
        self.findings.expect(
            "the store does not hold the reactor up", [step] if step > LONGEST_STEP else []
        )
        expect("a limit is exceeded by no more than the bound", max(0, excess - bound))
        expect("a limit can be used up", max(0, self.plan.limit - granted))
        expect("rooms stay where they are when a gateway dies", wrong)
        expect("an acknowledged task arrives", numbers(outcome.lost))
        expect("a task goes to the room's server", numbers(outcome.strayed))
        expect("tasks arrive in order", numbers(outcome.disordered))
        expect("no task comes from nowhere", outcome.unknown)
        expect("tasks arrive by way of other gateways too", int(not self._elsewhere()))
        expect("no room is told to be another server's", scene.contested())
        refused = [case for case in book.calls_refused.items() if case[0] != "no_reply"]
        expect("a management call is not refused", refused)
        expect("the gateways log no error", scene.errors())

    async def _fill(self, pools: list[Pool]) -> None:
        """Send all Connects for the same rooms to all gateways at once."""
        traffic = self.scene.traffic
        # The first Connects of a room come together, one to each gateway.
        jobs = [
            (f"room-{index % self.plan.rooms}", f"user-{index // self.plan.rooms}")
            for index in range(self.plan.connects)
        ]
        jobs.sort(key=lambda job: int(job[0].removeprefix("room-")))
        for job in jobs:
            traffic.caller.connect(*job)
        for index, job in enumerate(jobs):
            traffic.connect(pools[index % len(pools)], *job)
        await traffic.settle()

    async def _pass_limit(self, pools: list[Pool]) -> int:
        """Connect more clients than a customer may have; return how many were let in."""
        granted = 0
        others: Counter[str] = Counter()

        def count(_room: str, _outcome: Outcome, reason: str) -> None:
            nonlocal granted
            granted += not reason
            if reason and reason != "peer_limit_exceeded":
                others[reason] += 1

        traffic = Traffic(Book(), self.scene.servers, Caller("limited", LIMITED_KEY))
        traffic.on_connect = count
        jobs = [(f"limited-{index % 20}", f"user-{index}") for index in range(3 * self.plan.limit)]
        for job in jobs:
            traffic.caller.connect(*job)
        for index, job in enumerate(jobs):
            traffic.connect(pools[index % len(pools)], *job)
        await traffic.settle()
        self.findings.expect("only the limit refuses", [*others.items()])
        return granted

    async def _manage_and_kill(self, pools: list[Pool]) -> None:
        """Manage by way of all gateways, and kill the first one in the middle of it."""
        traffic, book = self.scene.traffic, self.scene.book
        rooms = self._rooms()
        for index in range(self.plan.tasks):
            method = MANAGE[index % 3]
            traffic.manage(pools[index % len(pools)], method, self.rng.choice(rooms))
        half = self.plan.tasks // 2
        await until(
            lambda: len(book.acknowledged()) >= half or not traffic.under_way, 60, "half is done"
        )
        await self.scene.gateways[0].kill()
        await pools[0].close()
        await traffic.settle()

    async def _look_around(self, survivors: Sequence[Gateway]) -> list[str]:
        """Ask the survivors for all rooms and for some new ones; return what was wrong."""
        scene = self.scene
        async with scene.pool(survivors[0], 8) as pool:
            news = [(f"room-{self.plan.rooms + index}", "user-0") for index in range(20)]
            await scene.traffic.connect_all(pool, news)
        wrong = await scene.disagreements(survivors, self._rooms())
        async with scene.pool(survivors[-1], 16) as pool:
            wrong += await scene.traffic.check_bans(pool, scene.book.bans)
        return wrong

    def _rooms(self) -> list[str]:
        return sorted(self.scene.book.placed)

    def _elsewhere(self) -> int:
        """Count the tasks that came by way of another gateway than the one that took them."""
        calls = self.scene.book.calls
        return sum(
            calls[item.number].port != item.port
            for server in self.scene.servers.values()
            for item in server.received
            if item.number in calls
        )
