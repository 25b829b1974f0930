"""Connections cut after each byte of a request, and of a reply."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from benchmarks.faults.alone import SERVER, Alone, dial, read_reply, report, reset
from benchmarks.faults.findings import Findings

_DELIVERY: Final = 5.0
"""Seconds within which a task whose reply was cut is sent again."""


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        step: cut after every so many bytes.
    """

    step: int = 1


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Cut connections, and count what was done all the same and what was lost."""
    findings = Findings(f"cut: connections end after every {plan.step} bytes", (), write)
    async with Alone(limits="header_timeout = 5") as alone:
        await alone.report(("room", 1))
        await asyncio.to_thread(_requests, plan, alone, findings)
        answer = await alone.report(("room", 1))
        done = _values(answer)
        findings.promise(
            "a request of which a byte is missing is not carried out",
            done == [255],
            f"{len(done) - done.count(255)} of them were",
        )
        offsets, lost, twice = await _replies(plan, alone)
        findings.promise(
            "a task whose reply was cut is sent again",
            not lost,
            f"{offsets} cuts, {len(lost)} tasks lost, {twice} sent again",
        )
        seconds = await alone.idle()
        findings.promise("no connection is left over", seconds >= 0, f"none after {seconds:.1f} s")
        errors = alone.gateway.errors()
        findings.promise("no error is logged", not errors, f"{len(errors)} lines {errors[:2]}")
        findings.promise("it serves as before", await alone.serves(), "Connect answered")
    return findings


def _requests(plan: Plan, alone: Alone, findings: Findings) -> None:
    """Send more and more of a management call; cut by a reset, and by a plain close."""
    request = alone.caller.manage("RoomUpdate", "room", user_data=[1])
    cuts = 0
    for size in range(0, len(request), plan.step):
        for end in (reset, lambda wire: wire.close()):
            wire = dial(alone.port)
            wire.sendall(request[:size])
            end(wire)
            cuts += 1
    whole = dial(alone.port)
    whole.sendall(alone.caller.manage("RoomUpdate", "room", user_data=[255]))
    reply = read_reply(whole)
    whole.close()
    findings.promise(
        "requests in between are answered", b'"result":{}' in reply, f"after {cuts} cuts"
    )


async def _replies(plan: Plan, alone: Alone) -> tuple[int, list[int], int]:
    """Read more and more of a reply that carries a task, then cut.

    Returns:
        How many cuts there were, the tasks that were lost, and how many came again.
    """
    length = len(await asyncio.to_thread(_reply_with_task, alone, 0, None))
    lost, twice, offsets = [], 0, range(0, length, plan.step)
    for number, size in enumerate(offsets, 1):
        await asyncio.to_thread(_reply_with_task, alone, number, size)
        end = asyncio.get_running_loop().time() + _DELIVERY
        while True:
            answer = await alone.report(("room", 1))
            if number % 200 in _values(answer):
                twice += 1
                break
            if asyncio.get_running_loop().time() > end:
                lost.append(number)
                break
    return len(offsets), lost, twice


def _reply_with_task(alone: Alone, number: int, size: int | None) -> bytes:
    """Queue a task, report, and read so much of the reply before a cut; None: all, and no cut."""
    manage = dial(alone.port)
    manage.sendall(alone.caller.manage("RoomUpdate", "room", user_data=[number % 200]))
    read_reply(manage)
    manage.close()
    wire = dial(alone.port)
    wire.sendall(report(SERVER, ("room", 1)))
    data = b""
    if size is None:
        data = read_reply(wire)
        wire.close()
        return data
    while len(data) < size and (chunk := wire.recv(size - len(data))):
        data += chunk
    if not size:
        # The reply must be on its way, else there is nothing to be cut.
        wire.recv(1, 2)  # MSG_PEEK
    reset(wire)
    return data


def _values(answer: Any) -> list[int]:
    tasks = json.loads(json.dumps(answer)).get("result", {}).get("tasks", [])
    return [task["user_data"][0] for task in tasks]
