"""The disk is full, and then it is not."""

import asyncio
import contextlib
import errno
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from benchmarks.faults.alone import LASTING, Alone
from benchmarks.faults.client import Pool
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import Folder
from benchmarks.faults.namespaces import mounts
from tests.process import customer

_BLOCK: Final = 4096


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        size: of the disk, MiB.
        seconds: for how long it is full.
        rooms: how many are placed before.
    """

    size: int = 8
    seconds: float = 5.0
    rooms: int = 200


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Fill the disk that the state is on, look what goes on, and make room again.

    Raises:
        SkipTest: the system lets us mount nothing.
    """
    findings = Findings(f"disk: full for {plan.seconds:g} s", (), write)
    with (
        Folder() as disk,
        mounts('mount -t tmpfs -o "size=$2" tmpfs "$1"', str(disk), f"{plan.size}m") as space,
    ):
        state = f"sqlite:{disk}/odingw.sqlite"
        lasting = LASTING + customer()
        async with Alone(state, command=space.command, customers=lasting) as alone:
            await _full(plan, alone, space.inside(disk) / "filler", findings)
    return findings


async def _full(plan: Plan, alone: Alone, filler: Path, findings: Findings) -> None:
    gateway = alone.gateway
    await alone.report()
    rooms = [f"room-{index}" for index in range(plan.rooms)]
    await _connect(alone, rooms)
    await alone.report(*((room, 1) for room in rooms))
    filled = _fill(filler)
    refusals: dict[str, int] = {}
    known, reports, unready, taken = 0, 0, 0, []
    loop = asyncio.get_running_loop()
    end, attempt = loop.time() + plan.seconds, 0
    while loop.time() < end:
        attempt += 1
        name = f"new-{attempt}"
        reason = await _reason(alone, name)
        refusals[reason] = refusals.get(reason, 0) + 1
        if not reason:
            taken.append(name)
        known += not await _reason(alone, rooms[attempt % len(rooms)])
        reports += "result" in await alone.report(*((room, 1) for room in rooms))
        unready += (await gateway.admin_page("/readyz")).status == 503
        await asyncio.sleep(0.05)
    findings.note(f"  {filled} KiB filled it; new rooms meanwhile: {refusals}")
    findings.promise("known rooms are served", known == attempt, f"{known} of {attempt} Connects")
    findings.promise("reports are answered", reports == attempt, f"{reports} of {attempt}")
    findings.promise(
        "new rooms are refused as store_unavailable, once the journal is full",
        refusals.get("store_unavailable", 0) > 0
        and not refusals.keys() - {"", "store_unavailable"},
        f"{refusals.get('store_unavailable', 0)} of {attempt}",
    )
    findings.promise("/readyz says 503", unready > 0, f"{unready} of {attempt} times")
    healthy = (await gateway.admin_page("/healthz")).status
    findings.promise("/healthz says 200", healthy == 200, healthy)
    filler.unlink()
    began = loop.time()
    while await _reason(alone, "again") and loop.time() < began + 20:
        await asyncio.sleep(0.05)
    recovered = loop.time() - began
    ready = (await gateway.admin_page("/readyz")).status
    findings.promise(
        "it recovers by itself", recovered < 20 and ready == 200, f"after {recovered:.1f} s"
    )
    gateway.send_signal(signal.SIGKILL)
    await gateway.ended()
    await gateway.spawn().ready()
    answered = {*rooms, *taken, "again"}
    lost = answered - await _rooms(alone)
    findings.promise(
        "killed with -9 afterwards, it knows every room that it answered for",
        not lost,
        f"{len(answered) - len(lost)} of {len(answered)}",
    )
    bugs = [line for line in gateway.lines() if "Traceback" in line]
    findings.promise(
        "the log says why, without tracebacks", not bugs, (gateway.errors() or [""])[0]
    )


def _fill(path: Path) -> int:
    """Write until there is no room for a block more; return how many KiB that were."""
    size = 0
    with path.open("wb", buffering=0) as file:
        for block in (1 << 16, _BLOCK):
            with contextlib.suppress(OSError):
                try:
                    while True:
                        size += file.write(bytes(block))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
    return size // 1024


async def _reason(alone: Alone, room: str) -> str:
    """Connect to a room; return why that was refused, empty if it was not."""
    async with Pool(alone.port, 1, timeout=60.0) as pool:
        error = (await pool.call(alone.caller.connect(room, "user"))).answer().error
    return (error.data.reason or error.message) if error else ""


async def _connect(alone: Alone, rooms: list[str]) -> None:
    async with Pool(alone.port, 8, timeout=60.0) as pool:
        await asyncio.gather(*(pool.call(alone.caller.connect(room, "user")) for room in rooms))


async def _rooms(alone: Alone) -> set[str]:
    result = await alone.info()
    return {room.id[1] for room in result.rooms}
