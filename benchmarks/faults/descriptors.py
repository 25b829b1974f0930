"""No file descriptors left: more connections than the process may open."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from benchmarks.faults.alone import Alone, dial, read_reply
from benchmarks.faults.findings import Findings

_PING: Final = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        descriptors: how many the process may have.
        connections: how many come.
        seconds: for how long they stay.
    """

    descriptors: int = 64
    connections: int = 400
    seconds: float = 3.0


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Use the descriptors up, and give them back."""
    findings = Findings(
        f"descriptors: {plan.connections} connections to a process with {plan.descriptors} "
        "descriptors",
        (),
        write,
    )
    limit = f"--nofile={plan.descriptors}:{plan.descriptors}"
    async with Alone("sqlite:odingw.sqlite", command=("prlimit", limit)) as alone:
        await alone.report()
        placed = await alone.serves("before")
        early = await asyncio.to_thread(_open, alone.port, 5)
        late = await asyncio.to_thread(_open, alone.port, plan.connections)
        cpu = alone.gateway.cpu()
        await asyncio.sleep(plan.seconds)
        cpu = alone.gateway.cpu() - cpu
        answered = await asyncio.to_thread(_ping, early)
        findings.promise(
            "who was connected before is served", answered == len(early), f"{answered} of 5"
        )
        findings.promise(
            "the process does not spin meanwhile",
            cpu < plan.seconds / 2,
            f"{cpu / plan.seconds:.0%} of a core",
        )
        for wire in (*early, *late):
            wire.close()
        seconds = await _serves_again(alone)
        findings.promise(
            "when they are gone it serves again, stores too",
            placed and seconds >= 0,
            f"a new room is placed after {seconds:.1f} s",
        )
        status = alone.gateway.process.poll() if alone.gateway.process else -1
        findings.promise(
            "the process lives", status is None, "no end" if status is None else status
        )
        lines = alone.gateway.lines()
        told = [line for line in lines if "EMFILE" in line or "descriptor" in line]
        findings.promise("the log says why", bool(told), (told or ["nothing"])[0][26:120])
        findings.promise(
            "the log does not overflow",
            len(lines) < 50,
            f"{len(lines)} lines for {plan.connections} connections",
        )
        errors = [line for line in alone.gateway.errors() if "EMFILE" not in line]
        findings.promise("no other error is logged", not errors, f"{len(errors)} {errors[:2]}")
    return findings


def _open(port: int, count: int) -> list[socket.socket]:
    wires = []
    for _ in range(count):
        wire = dial(port, timeout=5)
        with contextlib.suppress(OSError):
            wire.sendall(_PING)
        wires.append(wire)
    if count <= 5:
        for wire in wires:
            read_reply(wire)
    return wires


def _ping(wires: list[socket.socket]) -> int:
    answered = 0
    for wire in wires:
        with contextlib.suppress(OSError):
            wire.sendall(_PING)
            answered += b"pong" in read_reply(wire)
    return answered


async def _serves_again(alone: Alone) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    attempt = 0
    while loop.time() < began + 20:
        attempt += 1
        if await alone.serves(f"after-{attempt}"):
            return loop.time() - began
        await asyncio.sleep(0.1)
    return -1.0
