"""Killed with -9 under load and started again: what was promised must still be there."""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from msgspec import Struct

from benchmarks.faults.book import CLOSING, Book, Rooms, compare, judge
from benchmarks.faults.client import Pool
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import LONGEST_STEP, REPORT_INTERVAL, Folder, Gateway
from benchmarks.faults.servers import Server
from benchmarks.faults.traffic import Caller, Traffic, chance, open_loop

COLUMNS: Final = (
    "round",
    "load s",
    "connects",
    "acked",
    "bans",
    "found",
    "lost",
    "misplaced",
    "undelivered",
    "strayed",
    "disordered",
    "repeated",
    "bans lost",
    "start s",
    "step ms",
)


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is; rates are per second.

    Attributes:
        state: the state URL.
        rounds: how many kills.
        servers: how many servers.
        connects: rate of Connects.
        calls: rate of management calls.
        load: seconds of load before a kill, at least and at most.
        keep: rooms that are kept from one round to the next.
        delivery: seconds that tasks may take to arrive after a start.
        graceful: SIGTERM instead of kill -9.
        seed: of all chance.
    """

    state: str = "sqlite:odingw.sqlite"
    rounds: int = 20
    servers: int = 5
    connects: float = 2000
    calls: float = 500
    load: tuple[float, float] = (0.5, 3.0)
    keep: int = 1500
    delivery: float = 15.0
    graceful: bool = False
    seed: int = 1


class _Load:
    """What is sent in a round; all tokens are made before it begins."""

    def __init__(self, traffic: Traffic, plan: Plan, rng: random.Random, number: int) -> None:
        self.traffic = traffic
        self._rng = rng
        rooms = sorted(traffic.book.placed)
        self._targets = [room for room in rooms if not room.startswith(CLOSING)]
        count = int(plan.connects * plan.load[1]) + 1
        # A tenth are rooms that nobody knows yet; others come to them while they are placed.
        news = [f"room-{number}-{index}" for index in range(count // 10)]
        names = self._targets + news
        self._connects = [(room, "user-0") for room in news]
        self._connects += [
            (rng.choice(names), f"user-{rng.randrange(3)}") for _ in range(count - len(news))
        ]
        rng.shuffle(self._connects)
        for room, user in self._connects:
            traffic.caller.connect(room, user)
        self._closing = [
            traffic.closing_room() for _ in range(int(plan.calls * plan.load[1] * 0.15) + 1)
        ]

    async def place_closing_rooms(self, pool: Pool) -> None:
        """Place the rooms that are to be closed."""
        await self.traffic.connect_all(pool, ((name, "user-0") for name, _ in self._closing))

    def connect(self, pool: Pool) -> None:
        """Send a Connect."""
        if self._connects:
            self.traffic.connect(pool, *self._connects.pop())

    def manage(self, pool: Pool) -> None:
        """Send a management call."""
        share = self._rng.random()
        if share < 0.15 and self._closing:
            room, number = self._closing.pop()
            if room in self.traffic.book.placed:
                self.traffic.manage(pool, "RoomClose", room, number=number)
        elif self._targets:
            method = (
                "RoomUpdate"
                if share < 0.5
                else "RoomSendMessage"
                if share < 0.75
                else "RoomBanClient"
            )
            self.traffic.manage(pool, method, self._rng.choice(self._targets))


class _Crash:
    """The gateway, its servers and the load."""

    def __init__(self, plan: Plan, gateway: Gateway, findings: Findings) -> None:
        self.plan = plan
        self.gateway = gateway
        self.findings = findings
        self.rng = chance(plan.seed)
        self.book = Book()
        self.servers = {
            f"sfu{index}.test:4433": Server(
                f"sfu{index}.test:4433", [gateway.port], REPORT_INTERVAL
            )
            for index in range(plan.servers)
        }
        self.step = 0.0
        self.traffic = Traffic(self.book, self.servers, Caller())

    async def place_first_rooms(self) -> None:
        """Place rooms for the first round's calls."""
        async with Pool(self.gateway.port, 16) as pool:
            rooms = ((f"room-0-{index}", "user-0") for index in range(self.plan.keep // 3))
            await self.traffic.connect_all(pool, rooms)

    async def round(self, number: int) -> None:
        """Load, kill, start and check."""
        before = self.book.connects, len(self.book.acknowledged()), len(self.book.bans)
        async with AsyncExitStack() as stack:
            clients = await stack.enter_async_context(Pool(self.gateway.port, 64))
            backends = await stack.enter_async_context(Pool(self.gateway.port, 32))
            load = _Load(self.traffic, self.plan, self.rng, number)
            await load.place_closing_rooms(clients)
            seconds = self.rng.uniform(*self.plan.load)
            await self._load(load, clients, backends, seconds)
        await self.traffic.settle()
        step = self.step
        bans = dict(self.book.bans)
        connects = self.book.connects - before[0]
        started = await self._restart()
        async with Pool(self.gateway.port, 64) as pool:
            rooms = await self._check_rooms(pool)
            broken_bans = await self.traffic.check_bans(pool, bans)
            for server in self.servers.values():
                server.held = False
            await self._deliver(pool)
        outcome = judge(
            self.book.calls,
            [item for server in self.servers.values() for item in server.received],
        )
        acked = self.book.acknowledged()
        self.findings.row(
            number,
            seconds,
            connects,
            len(acked) - before[1],
            len(bans) - before[2],
            rooms.found,
            len(rooms.lost),
            len(rooms.misplaced),
            len(outcome.lost),
            len(outcome.strayed),
            len(outcome.disordered),
            outcome.repeated,
            len(broken_bans),
            started,
            step,
        )
        expect = self.findings.expect
        expect("the store does not hold the reactor up", [step] if step > LONGEST_STEP else [])
        expect("a room is found again", rooms.lost)
        expect("a room is where it was", rooms.misplaced)
        expect("a Connect leads to the room's server", self.book.moved)
        expect("an acknowledged task arrives", outcome.lost)
        expect("a task goes to the room's server", outcome.strayed)
        expect("tasks arrive in order", outcome.disordered)
        expect("no task comes from nowhere", outcome.unknown)
        expect("a ban holds, as long as it should", broken_bans)
        expect("a Connect is not refused", self._unexpected(self.book.refused))
        expect("a management call is not refused", self._unexpected(self.book.calls_refused))
        contested = [room for server in self.servers.values() for room in server.contested]
        expect("no room is told to be another server's", contested)
        self._tidy()

    def _unexpected(self, counts: "dict[str, int]") -> list[str]:
        return [
            f"{reason} ({count}): {self.book.samples[reason]}"
            for reason, count in counts.items()
            if reason != "no_reply"
        ]

    async def _load(self, load: _Load, connects: Pool, calls: Pool, seconds: float) -> None:
        end = time.monotonic() + seconds

        def over() -> bool:
            return time.monotonic() >= end

        loops = asyncio.gather(
            open_loop(
                self.plan.connects,
                lambda: load.connect(connects),
                over,
                lambda: len(connects) < 200,
            ),
            open_loop(self.plan.calls, lambda: load.manage(calls), over, lambda: len(calls) < 100),
        )
        await loops
        self.step = await self.gateway.longest_step()
        # What is under way now is what the signal comes upon.
        self.gateway.send_signal(signal.SIGTERM if self.plan.graceful else signal.SIGKILL)
        for server in self.servers.values():
            server.held = True
        status = await self.gateway.ended()
        if self.plan.graceful:
            self.findings.expect("SIGTERM ends with status 0", [] if status == 0 else [status])
            # Else it would live on beside its successor.
            await self.gateway.kill()

    async def _restart(self) -> float:
        if not self.plan.graceful and self.rng.random() < 0.25:
            # It must also bear to be killed while it reads what the last one left.
            self.gateway.spawn()
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))
            await self.gateway.kill()
        return await self.gateway.spawn().ready()

    async def _check_rooms(self, pool: Pool) -> Rooms:
        """Ask where all rooms are, first by Info and then by Connects, before any report comes."""
        doubtful = {
            f"{CLOSING}{call.number}"
            for call in self.book.calls.values()
            if call.kind == "RoomClose" and not call.acked
        }
        placed = {
            room: address
            for room, address in self.book.placed.items()
            if room not in doubtful and ("acme", room) in self.servers[address].rooms
        }
        rooms = compare(placed, (await self.traffic.info(pool)).rooms)
        await self.traffic.connect_all(pool, ((room, "user-0") for room in placed))
        return rooms

    async def _deliver(self, pool: Pool) -> None:
        """Wait until all acknowledged tasks have arrived, or none come any more."""
        end = time.monotonic() + self.plan.delivery
        reports = {server: server.reports + 3 for server in self.servers.values()}
        while time.monotonic() < end:
            received = {item.number for server in self.servers.values() for item in server.received}
            missing = [call for call in self.book.acknowledged() if call.number not in received]
            if not missing and all(server.reports >= count for server, count in reports.items()):
                return
            await asyncio.sleep(0.1)

    def _tidy(self) -> None:
        """Let most rooms end, and forget what was judged."""
        surplus = sorted(self.book.placed)
        self.rng.shuffle(surplus)
        surplus = surplus[self.plan.keep :] + [
            room for room in self.book.placed if room.startswith(CLOSING)
        ]
        for room in surplus:
            server = self.servers.get(self.book.placed.get(room, ""))
            if server is not None:
                server.end("acme", room)
        self.book.forget(surplus)
        self.book.calls.clear()
        self.book.refused.clear()
        self.book.calls_refused.clear()
        self.book.moved.clear()
        for server in self.servers.values():
            server.received.clear()
            server.contested.clear()
        recent = list(self.book.bans)[-2000:]
        self.book.bans = {key: self.book.bans[key] for key in recent}
        self.traffic.caller.forget()


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Kill a gateway again and again.

    Args:
        plan: how hard it is.
        write: takes what is printed; None: standard output.
    """
    what = "SIGTERM and start" if plan.graceful else "kill -9 and start"
    findings = Findings(f"{what}: {plan.rounds} rounds, state {plan.state}", COLUMNS, write)
    with Folder() as folder:
        gateway = Gateway(folder, plan.state)
        crash = _Crash(plan, gateway, findings)
        try:
            await gateway.spawn().ready()
            for server in crash.servers.values():
                server.start()
            while any(not server.reports for server in crash.servers.values()):
                await asyncio.sleep(0.05)
            await crash.place_first_rooms()
            for number in range(1, plan.rounds + 1):
                await crash.round(number)
            findings.expect("the gateway logs no error", gateway.errors())
        finally:
            for server in crash.servers.values():
                await server.stop()
            await gateway.kill()
    return findings
