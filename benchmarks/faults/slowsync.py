"""A disk that is slow to sync, with ``state.synchronous = "full"``: how long a new room waits."""

import asyncio
import shutil
import time
import unittest
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

from msgspec import Struct

from benchmarks.faults.client import Outcome, Pool
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import REPORT_INTERVAL, Folder, Gateway
from benchmarks.faults.servers import Server
from benchmarks.faults.traffic import Caller, open_loop

COLUMNS: Final = ("synchronous", "new rooms", "failed", "p50 ms", "p99 ms", "max ms")


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        delay: seconds that each sync takes longer.
        servers: how many; each reports every second, and each time all its rooms have changed.
        rooms: of each server.
        rate: new rooms per second.
        seconds: how long.
        longest: seconds for which all but one in a hundred wait at most.
    """

    delay: float = 0.01
    servers: int = 5
    rooms: int = 200
    rate: float = 50
    seconds: float = 20.0
    longest: float = 0.2


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Place rooms while servers report.

    Raises:
        SkipTest: strace is not installed.
    """
    if shutil.which("strace") is None:
        raise unittest.SkipTest("strace is not installed")
    title = f"slowsync: {plan.delay * 1000:g} ms more for each sync, {plan.servers} servers"
    findings = Findings(f"{title} with {plan.rooms} rooms that change", COLUMNS, write)
    for synchronous in ("normal", "full"):
        with Folder() as folder:
            inject = f"fsync,fdatasync:delay_exit={int(plan.delay * 1e6)}"
            gateway = Gateway(
                folder,
                "sqlite:odingw.sqlite",
                before=f'synchronous = "{synchronous}"',
                command=[
                    *("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"),
                    *("-e", "trace=fsync,fdatasync", "-e", f"inject={inject}"),
                ],
            )
            try:
                await gateway.spawn().ready()
                waits, failed = await _place(plan, gateway)
            finally:
                await gateway.kill()
        waits.sort()
        p50, p99 = (waits[int(len(waits) * share)] for share in (0.5, 0.99))
        findings.row(synchronous, len(waits), failed, p50 * 1000, p99 * 1000, waits[-1] * 1000)
        findings.expect(f"no new room is refused ({synchronous})", failed)
        slow = [f"{p99 * 1000:.0f} ms"] if p99 > plan.longest else []
        findings.expect(f"99 of 100 wait {plan.longest:g} s at most ({synchronous})", slow)
    return findings


async def _place(plan: Plan, gateway: Gateway) -> tuple[list[float], int]:
    servers = [
        Server(f"sfu{index}.test:4433", [gateway.port], REPORT_INTERVAL)
        for index in range(plan.servers)
    ]
    for number, server in enumerate(servers):
        for room in range(plan.rooms):
            server.join("acme", f"known-{number}-{room}", "user")
        server.start()
    change = asyncio.create_task(_change(servers))
    waits: list[float] = []
    failed = 0

    def done(outcome: Outcome) -> None:
        nonlocal failed
        if outcome.answer().result is None:
            failed += 1
        else:
            waits.append(outcome.done - outcome.sent)

    try:
        while any(not server.reports for server in servers):
            await asyncio.sleep(0.05)
        requests = _requests(int(plan.rate * plan.seconds))
        async with Pool(gateway.port, 64) as pool:
            await pool.connected()
            end = time.monotonic() + plan.seconds
            await open_loop(
                plan.rate,
                lambda: pool.submit(next(requests), done),
                lambda: time.monotonic() >= end,
                lambda: len(pool) < 500,
            )
            while len(pool):
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
    finally:
        change.cancel()
        for server in servers:
            await server.stop()
    return waits, failed


def _requests(ready: int) -> Iterator[bytes]:
    """Yield Connects to new rooms, most of whose tokens are signed before."""
    caller = Caller()
    made = [caller.connect(f"new-{number}", "user") for number in range(ready)]
    yield from made
    for number in count(ready):
        yield caller.connect(f"new-{number}", "user")


async def _change(servers: list[Server]) -> None:
    """Let a peer come or go in every room, between two reports."""
    for turn in count():
        await asyncio.sleep(REPORT_INTERVAL / 2)
        for server in servers:
            for users in server.rooms.values():
                if turn % 2:
                    users.add("other")
                else:
                    users.discard("other")
