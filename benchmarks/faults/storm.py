"""All servers report at the same moment, as after an outage, and again and again."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from msgspec import Struct

from benchmarks.faults.alone import Alone, Steady, report
from benchmarks.faults.client import Pool
from benchmarks.faults.findings import Findings

_LONGEST_WAIT: Final = 30.0
"""Seconds: servers report every few seconds, and end themselves after 300 without an answer."""


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        servers: how many.
        rooms: how many each has.
        waves: how often all report at once.
    """

    servers: int = 200
    rooms: int = 500
    waves: int = 5


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Let all servers report at once, while clients connect."""
    findings = Findings(
        f"storm: {plan.servers} servers with {plan.rooms} rooms report at once, {plan.waves} times",
        (),
        write,
    )
    async with Alone(server_timeout=7.5) as alone, AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(Pool(alone.port, 1, timeout=60))
            for _ in range(plan.servers)
        ]
        for pool in pools:
            await pool.connected()
        # Made before: here is one thread, whose work would delay what is measured.
        variants = [_requests(plan, peers) for peers in (1, 2, 3)]
        longest, answered = 0.0, 0
        cpu = alone.gateway.cpu()
        await alone.report()
        steady = await stack.enter_async_context(Steady(alone))
        for wave in range(plan.waves):
            requests = variants[wave % len(variants)]
            began = time.monotonic()
            outcomes = await asyncio.gather(
                *(pool.call(request) for pool, request in zip(pools, requests, strict=True))
            )
            longest = max(longest, max(outcome.done for outcome in outcomes) - began)
            answered += sum(outcome.answer().result is not None for outcome in outcomes)
        cpu = alone.gateway.cpu() - cpu
        step = await alone.longest_step()
        known = await alone.info()
        disabled = [server.address for server in known.servers if server.disabled]
    wanted = plan.servers * plan.waves
    findings.promise("every report is answered", answered == wanted, f"{answered} of {wanted}")
    findings.promise(
        f"a wave is answered within {_LONGEST_WAIT:g} s",
        longest <= _LONGEST_WAIT,
        f"{longest:.2f} s at most, {cpu / wanted * 1000:.1f} ms of CPU per report",
    )
    findings.promise(
        "no server is written off", not disabled, f"{len(disabled)} of {len(known.servers)} are"
    )
    findings.promise(
        "every room is known",
        len(known.rooms) >= plan.servers * plan.rooms,
        f"{len(known.rooms)} rooms",
    )
    findings.promise("Connects in between are answered", not steady.failed, steady.figure())
    findings.note(f"  longest step of the reactor: {step:.0f} ms")
    return findings


def _requests(plan: Plan, peers: int) -> list[bytes]:
    return [
        report(
            f"sfu{index}.test:4433",
            *((f"room-{index}-{room}", peers) for room in range(plan.rooms)),
        )
        for index in range(plan.servers)
    ]
