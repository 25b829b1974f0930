"""Killed by the kernel because the memory is used up."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from benchmarks.faults.alone import LASTING, Alone, dial
from benchmarks.faults.client import Pool
from benchmarks.faults.findings import Findings
from tests.process import customer

_GROUPS: Final = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)
_HUNGRY: Final = b"POST /internal HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 8000000\r\n\r\n"


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        memory: the limit, MiB above what the process has.
        rooms: how many are placed before.
    """

    memory: int = 24
    rooms: int = 500


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Let a gateway run out of memory, start it again and look what is left."""
    findings = Findings("oom: out of memory", (), write)
    async with Alone("sqlite:odingw.sqlite", customers=LASTING + customer()) as alone:
        gateway = alone.gateway
        await alone.report()
        rooms = [f"room-{index}" for index in range(plan.rooms)]
        async with Pool(alone.port, 8, timeout=60.0) as pool:
            outcomes = await asyncio.gather(
                *(pool.call(alone.caller.connect(room, "user")) for room in rooms)
            )
            placed = {
                room
                for room, outcome in zip(rooms, outcomes, strict=True)
                if outcome.answer().result
            }
            accepted = 0
            for index in range(50):
                call = alone.caller.manage("RoomUpdate", rooms[index], user_data=[index])
                accepted += (await pool.call(call)).answer().result is not None
        how = await _exhaust(alone, plan)
        status = await gateway.ended(10)
        findings.note(f"  {how}")
        findings.promise(
            "the process ends at once, and does not go on damaged",
            status == -signal.SIGKILL,
            f"status {status}",
        )
        started = await gateway.spawn().ready()
        known = {room.id[1] for room in (await alone.info()).rooms}
        findings.promise(
            "started again it knows every room that it answered for",
            placed <= known,
            f"{len(placed & known)} of {len(placed)}, {started:.1f} s after the start",
        )
        tasks = len((await alone.report())["result"]["tasks"])
        findings.promise(
            "tasks that were accepted are delivered", tasks == accepted, f"{tasks} of {accepted}"
        )
        findings.promise("it serves", await alone.serves("new"), "a new room is placed")
    return findings


async def _exhaust(alone: Alone, plan: Plan) -> str:
    """Make the process use more memory than it may have; return how."""
    process = alone.gateway.process
    if process is None:
        return "there is no process"
    limit = alone.gateway.rss() * 1024 + plan.memory * 1024 * 1024
    with _group(process.pid, limit) as group:
        if group is None:
            process.kill()
            return "no cgroup may be made here: killed with -9 instead"
        wires = await asyncio.to_thread(_eat, alone.port)
        await alone.gateway.ended(20)
        for wire in wires:
            wire.close()
    return f"limit {limit >> 20} MiB, eaten up by bodies of large reports that do not end"


def _eat(port: int) -> list[Any]:
    """Send as much of large reports as the gateway takes."""
    wires = []
    for _ in range(40):
        with contextlib.suppress(OSError):
            wire = dial(port, timeout=5)
            wires.append(wire)
            wire.sendall(_HUNGRY + b" " * 7_900_000)
    return wires


@contextlib.contextmanager
def _group(pid: int, limit: int) -> Iterator[Path | None]:
    """Put a process into a control group with a memory limit; None where that may not be."""
    for root, name in _GROUPS:
        folder = root / f"odingw-fault-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            try:
                (folder / name).write_text(str(limit))
                (folder / "cgroup.procs").write_text(str(pid))
            except OSError:
                yield None
            else:
                yield folder
        finally:
            # What is still in it goes back, else it cannot be removed.
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(str(pid))
            with contextlib.suppress(OSError):
                folder.rmdir()
        return
    yield None
