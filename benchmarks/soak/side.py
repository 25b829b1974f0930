"""One deployment under all loads: its gateways, servers, clients, backends and operators."""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final, Self

from msgspec import Struct

from benchmarks.faults.book import Ban
from benchmarks.faults.client import Outcome, Pool, post
from benchmarks.faults.gateways import Gateway
from benchmarks.faults.scene import Scene, numbers, until
from benchmarks.faults.traffic import MANAGE, chance, open_loop
from benchmarks.soak.counts import Counts, Ledger
from odingw.tokens import TokenGenerator
from tests.process import ACCESS_KEY

DISABLE_TIMEOUT: Final = 3.0
TURN: Final = (
    '[turn]\nsecret_keys = ["soak"]\nturn_uris = ["turn:turn.test"]\naccess_keys = true\n'
    "watch_servers = false\n"
)
_PATIENCE: Final = 120.0
"""Seconds until a request is given up: one that is answered later would be counted on one side."""

_GRACE: Final = 1.5
"""Seconds after which a reply that left counts as arrived, with some to spare."""


class Rates(Struct, frozen=True, kw_only=True):
    """What happens how often.

    Attributes:
        connects: Connects a second.
        calls: management calls a second.
        credentials: TURN credentials a second.
        rooms: how many rooms there are at a time.
        room_life: seconds that a room lives.
        ban_time: seconds that a ban lasts.
        reload: seconds between two SIGHUPs.
        drain: seconds between two drains, each of which lasts for half of that.
        death: seconds between two deaths of servers.
        close: seconds between two closings of rooms.
    """

    connects: float = 100.0
    calls: float = 4.0
    credentials: float = 10.0
    rooms: int = 200
    room_life: float = 120.0
    ban_time: int = 60
    reload: float = 30.0
    drain: float = 20.0
    death: float = 45.0
    close: float = 10.0


class Side:
    """A deployment.

    Args:
        name: of the deployment, which begins its gateways' names.
        state: the state URL.
        gateways: how many.
        rates: what happens how often.
        seed: of all chance.

    Attributes:
        scene: its processes and simulated servers.
        ledger: what the gateways counted.
        counted: what the loads counted beyond the scene's book.
        events: how often what was done.
    """

    def __init__(self, name: str, state: str, gateways: int, rates: Rates, seed: int) -> None:
        self.name = name
        self.rates = rates
        self.scene = Scene(
            state, gateways, 5, before=TURN, name=name, disable_timeout=DISABLE_TIMEOUT
        )
        self.ledger = Ledger()
        self.counted = Counts()
        self.events: dict[str, int] = dict.fromkeys(
            ("reloads", "drains", "drains refused", "deaths", "closed rooms", "restarts", "kills"),
            0,
        )
        self._rng = chance(seed)
        self._stack = AsyncExitStack()
        self._pools: list[Pool] = []
        self._work: list[asyncio.Task[Any]] = []
        self._held = False
        self._over = False
        self._turn_under_way = 0
        self._room = 0
        self._window: list[str] = []
        self._turn_calls: list[bytes] = []
        self._faults: list[str] = []

    async def __aenter__(self) -> Self:
        for server in self.scene.servers.values():
            server.timeout = _PATIENCE
        await self._stack.enter_async_context(self.scene)
        for gateway in self.scene.gateways:
            self._pools.append(
                await self._stack.enter_async_context(
                    self.scene.pool(gateway, 16, timeout=_PATIENCE)
                )
            )
        self.scene.traffic.ban_time = self.rates.ban_time
        tokens = TokenGenerator(ACCESS_KEY)
        self._turn_calls = [
            post(
                "/turn",
                b"",
                tokens.create_token(
                    "room", f"user-{index}", now=time.time(), lifetime=86_400, subject="turn"
                ),
            )
            for index in range(300)
        ]
        for _ in range(self.rates.rooms):
            self._open_room()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._over = True
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._stack.aclose()

    def begin(self) -> None:
        """Begin all loads."""
        rates = self.rates
        loops = (
            open_loop(rates.connects, self._connect, self._is_over, self._has_room),
            open_loop(rates.calls, self._manage, self._is_over, self._has_room),
            open_loop(rates.credentials, self._ask_turn, self._is_over, self._has_room),
            self._every(rates.room_life / rates.rooms, self._renew_room),
            self._every(rates.reload, self._reload),
            self._every(30.0, self._forget),
            self._drain_again(),
            self._die_again(),
            self._close_again(),
        )
        self._work = [asyncio.get_running_loop().create_task(loop) for loop in loops]

    async def restart(self, gateway: Gateway, how: signal.Signals) -> list[str]:
        """End a gateway and start it again; return what both sides disagree about."""
        wrong = await self.compare()
        try:
            gateway.send_signal(how)
            status = await gateway.ended()
            wanted = 0 if how is signal.SIGTERM else -how
            if status != wanted:
                wrong.append(f"{gateway.name} ended with status {status}")
            self.ledger.ended(gateway.name)
            self.events["restarts" if how is signal.SIGTERM else "kills"] += 1
            await gateway.spawn().ready("/readyz")
        finally:
            self._go_on()
        return wrong

    async def finish(self) -> tuple[list[str], list[str]]:
        """End the loads and wait for what is still to be delivered.

        Returns:
            What both sides disagree about, and which promises were broken.
        """
        self._held = True
        await self._settled()
        broken: list[str] = []
        outcome, _ = await self.scene.delivered(60.0)
        broken += [f"lost: {text}" for text in numbers(outcome.lost)]
        if outcome.unknown:
            broken.append(f"{outcome.unknown} tasks that nobody asked for")
        broken += await self._check_bans()
        wrong = await self.compare()
        self._over = True
        return wrong, broken + self._faults

    def severe(self) -> list[str]:
        """Return the lines of errors in the gateways' logs."""
        return self.scene.errors()

    def own_counts(self) -> Counts:
        """Return what the loads counted."""
        book, counted = self.scene.book, self.counted
        servers = self.scene.servers.values()
        accepted = len(book.acknowledged())
        return Counts(
            granted=book.connects,
            refused=sum(book.refused.values()) - book.refused["no_reply"] + counted.refused,
            accepted=accepted,
            queued=accepted,
            received=sum(len(server.received) for server in servers),
            reports=sum(server.reports for server in servers),
            drains=counted.drains,
            credentials=counted.credentials,
        )

    async def compare(self) -> list[str]:
        """Let everything come to rest, and return what both sides disagree about.

        Loads rest until ``_go_on``.
        """
        self._held = True
        await self._settled()
        for server in self.scene.servers.values():
            server.held = True
        await until(self._no_report, _PATIENCE, "no report is under way")
        await asyncio.sleep(_GRACE)
        for gateway in self.scene.gateways:
            page = (await gateway.admin_page("/metrics")).body.decode()
            self.ledger.scraped(gateway.name, page)
        return self.own_counts().differences(self.ledger.counts())

    def _no_report(self) -> bool:
        return not any(server.reporting for server in self.scene.servers.values())

    def _go_on(self) -> None:
        for server in self.scene.servers.values():
            server.held = False
        self._held = False

    def _is_over(self) -> bool:
        return self._over

    def _has_room(self) -> bool:
        return not self._held and all(len(pool) < 200 for pool in self._pools)

    async def _settled(self) -> None:
        await self.scene.traffic.settle()
        await until(lambda: not self._turn_under_way, _PATIENCE, "TURN calls are answered")

    async def _every(self, seconds: float, act: Callable[[], object]) -> None:
        due = time.monotonic() + seconds
        while not self._over:
            await asyncio.sleep(min(0.2, max(0.01, due - time.monotonic())))
            if time.monotonic() >= due:
                due += seconds
                if not self._held:
                    act()

    def _open_room(self) -> None:
        self._room += 1
        self._window.append(f"room-{self._room}")

    def _renew_room(self) -> None:
        """End the oldest room, and let peers leave others."""
        name = self._window.pop(0)
        for server in self.scene.servers.values():
            server.end("acme", name)
            for users in server.rooms.values():
                if len(users) > 4:
                    users.discard(self._rng.choice(sorted(users)))
        self.scene.book.forget([name])
        self._open_room()

    def _connect(self) -> None:
        room, user = self._rng.choice(self._window), f"user-{self._rng.randrange(8)}"
        self.scene.traffic.connect(self._rng.choice(self._pools), room, user)

    def _manage(self) -> None:
        pool, room = self._rng.choice(self._pools), self._rng.choice(self._window)
        if room in self.scene.book.placed:
            self.scene.traffic.manage(pool, self._rng.choice(MANAGE[:3]), room)

    def _ask_turn(self) -> None:
        def done(outcome: Outcome) -> None:
            self._turn_under_way -= 1
            if outcome.status == 200:
                self.counted.credentials += 1
            elif outcome.status:
                self._faults.append(f"/turn answered {outcome.status}")

        self._turn_under_way += 1
        self._rng.choice(self._pools).submit(self._rng.choice(self._turn_calls), done)

    def _reload(self) -> None:
        for gateway in self.scene.gateways:
            gateway.send_signal(signal.SIGHUP)
        self.events["reloads"] += 1

    def _forget(self) -> None:
        """Let the loads' own memory not grow."""
        book = self.scene.book
        self.scene.traffic.caller.forget()
        book.moved.clear()
        now = time.monotonic()
        book.bans = {key: ban for key, ban in book.bans.items() if _left(ban, now) > 0}

    async def _drain_again(self) -> None:
        while await self._pause(self.rates.drain / 2):
            address = self._rng.choice(sorted(self.scene.servers))
            await self._drain("Drain", address)
            self.events["drains"] += 1
            await self._pause(self.rates.drain / 2)
            await self._drain("Undrain", address)

    async def _drain(self, method: str, address: str) -> None:
        while self._held and not self._over:
            await asyncio.sleep(0.05)
        if self._over:
            return
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"server": address}}
        while not self._over:
            self._turn_under_way += 1
            outcome = await self._rng.choice(self._pools).call(
                post("/internal", json.dumps(body).encode())
            )
            self._turn_under_way -= 1
            error = outcome.answer().error
            if error is None:
                self.counted.drains += 1
                return
            if error.data.reason != "store_unavailable":
                self._faults.append(f"{method}: {error}")
                return
            self.events["drains refused"] += 1
            await self._pause(1.0)

    async def _die_again(self) -> None:
        """Let a server die with all its rooms, and come back."""
        while await self._pause(self.rates.death):
            server = self._rng.choice(list(self.scene.servers.values()))
            if self._held:
                continue
            server.dead = True
            await until(lambda one=server: not one.reporting, _PATIENCE, "the server's report")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            self.scene.book.forget(server.crash())
            self.events["deaths"] += 1
            await self._pause(2 * DISABLE_TIMEOUT)
            server.crash()
            server.dead = False

    async def _close_again(self) -> None:
        """Place a room and close it."""
        traffic = self.scene.traffic
        while await self._pause(self.rates.close):
            if self._held:
                continue
            room, number = traffic.closing_room()
            traffic.connect(self._rng.choice(self._pools), room, "user-0")
            await self._pause(1.0)
            if not self._held and room in self.scene.book.placed:
                traffic.manage(self._rng.choice(self._pools), "RoomClose", room, number=number)
                self.events["closed rooms"] += 1

    async def _pause(self, seconds: float) -> bool:
        """Wait; False if the soak is over."""
        end = time.monotonic() + seconds
        while not self._over and time.monotonic() < end:
            await asyncio.sleep(0.1)
        return not self._over

    async def _check_bans(self) -> list[str]:
        now = time.monotonic()
        bans = {key: ban for key, ban in self.scene.book.bans.items() if _left(ban, now) > 10}
        self.events["bans checked"] = len(bans)
        broken = await self.scene.traffic.check_bans(self._pools[0], bans)
        self.counted.refused += len(bans) - len(broken)
        return broken


def _left(ban: Ban, now: float) -> float:
    return ban.seconds - (now - ban.since)
