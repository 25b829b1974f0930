"""Thousands of connections whose requests never end."""

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from benchmarks.faults.alone import CONNECTIONS, Alone, Steady, dial
from benchmarks.faults.findings import Findings

_SPARE: Final = 200
"""Descriptors that are kept for other things."""

_HEAD: Final = b"POST / HTTP/1.1\r\nHost: slow\r\n"
_LONGEST_STEP: Final = 250.0
"""Milliseconds: many connections that end at the same time may not hold others up longer."""


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        connections: how many are opened, as far as the system lets one process.
        header_timeout: seconds within which headers must be there.
        per_address: the limit of connections from one address, in the second part.
    """

    connections: int = 10_000
    header_timeout: float = 10.0
    per_address: int = 50


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Open slow connections, from many addresses and then from one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(plan.connections, hard - _SPARE)
    findings = Findings(f"slow: {count} connections that send a byte now and then", (), write)
    try:
        await _many(plan, count, findings)
        await _from_one_address(plan, min(count, 1000), findings)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return findings


async def _many(plan: Plan, count: int, findings: Findings) -> None:
    limits = f"connections = {count + 100}\nheader_timeout = {plan.header_timeout}\n"
    async with Alone(limits=limits) as alone:
        await alone.report()
        before = alone.gateway.rss()
        async with Steady(alone) as steady:
            began = time.monotonic()
            wires = await asyncio.to_thread(_open, alone.port, count)
            opened = time.monotonic() - began
            held = await alone.connections()
            memory = (alone.gateway.rss() - before) / max(1, held)
            await asyncio.to_thread(_dribble, wires, plan.header_timeout)
            left = await _until_few(alone, plan.header_timeout + 10)
        step = await alone.longest_step()
        findings.note(
            f"  {len(wires)} opened in {opened:.1f} s, {held} open at once, "
            f"{memory:.1f} KiB of memory each"
        )
        findings.promise("good Connects are answered meanwhile", not steady.failed, steady.figure())
        findings.promise(
            f"headers that are not there after {plan.header_timeout:g} s end the connection",
            not left,
            f"{left} of {len(wires)} are left",
        )
        findings.promise(
            "their end does not hold the others up", step <= _LONGEST_STEP, f"{step:.0f} ms at most"
        )
        for wire in wires:
            wire.close()
        errors = alone.gateway.errors()
        findings.promise("no error is logged", not errors, f"{len(errors)} lines {errors[:2]}")


async def _from_one_address(plan: Plan, count: int, findings: Findings) -> None:
    limits = f"connections_per_address = {plan.per_address}\n"
    async with Alone(limits=limits) as alone:
        await alone.report()
        wires = await asyncio.to_thread(_open, alone.port, count, "127.0.0.66")
        held = await alone.connections()
        findings.promise(
            f"one address gets {plan.per_address} connections",
            held <= plan.per_address,
            f"{held} of {count} are open",
        )
        findings.promise("another address is served", await alone.serves(), "Connect answered")
        for wire in wires:
            wire.close()


def _open(port: int, count: int, source: str = "") -> list[socket.socket]:
    wires = []
    for index in range(count):
        # So many do not find a free port each at one address.
        with contextlib.suppress(OSError):
            wire = dial(port, source or f"127.0.{1 + index // 2000}.1")
            wire.setblocking(False)
            wire.send(_HEAD)
            wires.append(wire)
    return wires


def _dribble(wires: list[socket.socket], seconds: float) -> None:
    """Send a byte on each connection, again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        round_began = time.monotonic()
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.send(b"x")
        time.sleep(max(0.0, min(end, round_began + 2) - time.monotonic()))


async def _until_few(alone: Alone, timeout: float) -> int:
    end = time.monotonic() + timeout
    while (left := await alone.connections()) > CONNECTIONS and time.monotonic() < end:
        await asyncio.sleep(0.2)
    return max(0, left - CONNECTIONS)
