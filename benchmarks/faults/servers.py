"""Simulated ODIN servers: they report, keep the rooms that clients were sent to, and do tasks."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct
from msgspec.json import encode

from benchmarks.faults.book import Delivered, number_of
from benchmarks.faults.client import Pool, TaskBody, post

REPORT_TIMEOUT = 5.0
_RETRY = 0.25


class _Age(Struct):
    secs: int
    nanos: int = 0


class _Room(Struct):
    id: tuple[str, str]
    customer: str
    age: _Age
    peers: int


class _Report(Struct):
    public_endpoint: str
    version: str
    load: float
    clients: int
    rooms: list[_Room]


class _Call(Struct):
    params: _Report
    jsonrpc: str = "2.0"
    id: int = 1
    method: str = "sfu.Report"


class Server:
    """A server.

    Args:
        address: its identity.
        ports: of the gateways that it may report to; when one does not answer, it takes the next.
        interval: seconds between reports.
        first: index of the gateway that it begins with.

    Attributes:
        ports: as given; may be changed before the start.
        rooms: users by the room's customer and name.
        received: the tasks that it was given, in order.
        contested: rooms that it was told to close because they are another server's.
        held: while it is set, the server does not report.
        dead: likewise; for loads that hold servers and let them die independently.
        reports: answered reports.
        faults: reports that were not answered well, by reason.
        gap: the longest time between two answered reports, seconds, outside of ``held``.
        reporting: whether a report is under way.
        timeout: seconds after which a report is given up.
    """

    def __init__(
        self, address: str, ports: Sequence[int], interval: float, *, first: int = 0
    ) -> None:
        self.address = address
        self.rooms: dict[tuple[str, str], set[str]] = {}
        self.received: list[Delivered] = []
        self.contested: list[str] = []
        self.held = False
        self.dead = False
        self.reports = 0
        self.faults: Counter[str] = Counter()
        self.gap = 0.0
        self.reporting = False
        self.timeout = REPORT_TIMEOUT
        self.ports = list(ports)
        self._index = first % len(self.ports)
        self._interval = interval
        self._pool: Pool | None = None
        self._work: asyncio.Task[None] | None = None
        self._answered = 0.0
        self._closed: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Begin to report."""
        self._work = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Report no more."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        await self._drop_pool()

    def join(self, customer: str, room: str, user: str) -> None:
        """Let a client in, unless the room was closed."""
        key = (customer, room)
        if key not in self._closed:
            self.rooms.setdefault(key, set()).add(user)

    def end(self, customer: str, room: str) -> None:
        """End a room, as a server does that its last peer has left."""
        self.rooms.pop((customer, room), None)

    def crash(self) -> list[str]:
        """Lose all rooms, as a server does that ends; return their names."""
        names = [name for _, name in self.rooms]
        self.rooms.clear()
        return names

    def restart_clock(self) -> None:
        """Count the gap between reports from now on."""
        self._answered = time.monotonic()
        self.gap = 0.0

    async def _run(self) -> None:
        while True:
            started = time.monotonic()
            if self.held or self.dead:
                self._answered = 0.0
                await asyncio.sleep(0.02)
                continue
            self.reporting = True
            answered = await self.report()
            self.reporting = False
            if answered:
                await asyncio.sleep(max(0.0, started + self._interval - time.monotonic()))
            else:
                await self._drop_pool()
                self._index = (self._index + 1) % len(self.ports)
                await asyncio.sleep(_RETRY)

    async def _drop_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def report(self) -> bool:
        """Report once, to the gateway of the moment; False if it did not answer well."""
        if self._pool is None:
            self._pool = Pool(self.ports[self._index % len(self.ports)], 1, timeout=self.timeout)
            self._pool.start()
        port = self._pool.port
        rooms = [
            _Room(key, key[0], _Age(1), len(users)) for key, users in self.rooms.items() if users
        ]
        clients = sum(room.peers for room in rooms)
        report = _Report(self.address, "1.5.0", min(1.0, clients / 10_000), clients, rooms)
        outcome = await self._pool.call(post("/internal", encode(_Call(report))))
        answer = outcome.answer()
        if answer.error is not None or answer.result is None:
            error = answer.error
            self.faults[(error.data.reason or error.message) if error else "no result"] += 1
            return False
        now = time.monotonic()
        if self._answered:
            self.gap = max(self.gap, now - self._answered)
        self._answered = now
        self.reports += 1
        for task in answer.result.tasks:
            self._perform(task, port)
        return True

    def _perform(self, task: TaskBody, port: int) -> None:
        number = number_of(task)
        if number is None:
            self.contested.append(task.id[1])
        else:
            self.received.append(Delivered(self.address, number, port))
        if task.task == "RoomClose":
            self.rooms.pop(task.id, None)
            if number is not None:
                self._closed.add(task.id)
        elif task.task == "RoomBanClient":
            self.rooms.get(task.id, set()).discard(task.user_id)
