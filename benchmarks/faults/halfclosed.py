"""Half-closed sockets: peers that send no more, but still listen, or only seem to."""

import asyncio
import socket
from collections.abc import Callable

from msgspec import Struct

from benchmarks.faults.alone import CONNECTIONS, Alone, Steady, dial, read_all
from benchmarks.faults.findings import Findings


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        connections: how many stay half-closed at a time.
    """

    connections: int = 2000


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Half-close connections at every point of a request."""
    findings = Findings("halfclosed: peers that send no more and do not close", (), write)
    async with Alone() as alone:
        await alone.report()
        request = alone.caller.connect("room", "user")
        answered = await asyncio.to_thread(_after_the_request, alone, request)
        findings.promise(
            "a whole request is answered though nothing more will come",
            answered == 20,
            f"{answered} of 20",
        )
        async with Steady(alone) as steady:
            wires = await asyncio.to_thread(_within_requests, alone, request, plan.connections)
            seconds = await _left(alone, CONNECTIONS)
        findings.promise(
            "one that ends within a request is closed, though its peer does not close",
            seconds >= 0,
            f"{len(wires)} connections, all gone after {seconds:.1f} s",
        )
        findings.promise("others are served meanwhile", not steady.failed, steady.figure())
        for wire in wires:
            wire.close()
        errors = alone.gateway.errors()
        findings.promise("no error is logged", not errors, f"{len(errors)} lines {errors[:2]}")
    return findings


async def _left(alone: Alone, most: int) -> float:
    """Wait until no more than so many connections are open; return how long, -1 for never."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + 20:
        if await alone.connections() <= most:
            return loop.time() - began
        await asyncio.sleep(0.05)
    return -1.0


def _after_the_request(alone: Alone, request: bytes) -> int:
    answered = 0
    for _ in range(20):
        with dial(alone.port) as wire:
            wire.sendall(request)
            wire.shutdown(socket.SHUT_WR)
            answered += b'"token"' in read_all(wire)
    return answered


def _within_requests(alone: Alone, request: bytes, count: int) -> list[socket.socket]:
    wires = []
    for index in range(count):
        wire = dial(alone.port)
        wire.sendall(request[: index % len(request)])
        wire.shutdown(socket.SHUT_WR)
        wires.append(wire)
    return wires
