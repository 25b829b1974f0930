"""The wall clock steps forward and back, as when somebody sets it."""

import asyncio
import re
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from benchmarks.faults.alone import Alone, Steady
from benchmarks.faults.client import Pool
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import Folder
from benchmarks.faults.traffic import Caller

_LIBRARIES: Final = "/usr/lib/*/faketime/libfaketime.so.1"
_BAN: Final = 600
_TIMEOUT: Final = 5.0
_TURN: Final = '[turn]\nsecret_keys = ["0123456789abcdef"]\nturn_uris = ["turn:turn.test"]\n' + (
    "ignore_jwt = true\nwatch_servers = false\nttl = 1000\n"
)


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        steps: by how many seconds the clock is off, one after the other.
        seconds: how long it stays so.
    """

    steps: tuple[int, ...] = (3600, -3600, 40_000, 0)
    seconds: float = 3.0


def library() -> Path:
    """Return the library that fakes the wall clock for a program.

    Raises:
        SkipTest: it is not installed.
    """
    found = sorted(Path("/").glob(_LIBRARIES.lstrip("/")))
    if not found:
        raise unittest.SkipTest("libfaketime is not installed (package libfaketime)")
    return found[0]


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Set the gateway's wall clock while it runs; the monotonic one goes on, as in the kernel.

    Raises:
        SkipTest: libfaketime is not installed.
    """
    findings = Findings(f"clock: off by {', '.join(map(str, plan.steps))} s in turn", (), write)
    preload = library()
    with Folder() as folder:
        setting = folder / "faketime"
        setting.write_text("+0")
        environment = {
            "LD_PRELOAD": str(preload),
            "FAKETIME_TIMESTAMP_FILE": str(setting),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }
        async with Alone(server_timeout=_TIMEOUT, before=_TURN, environment=environment) as alone:
            # A client's token is good or not by the wall clock; these are good at all steps.
            alone.caller = Caller(age=-min(plan.steps) + 60)
            await _step(plan, alone, setting, findings)
    return findings


async def _step(plan: Plan, alone: Alone, setting: Path, findings: Findings) -> None:
    over = False

    async def report() -> None:
        while not over:
            await alone.report(("room", 1))
            await asyncio.sleep(1)

    await alone.report(("room", 1))
    reporting = asyncio.create_task(report())
    async with Pool(alone.port, 1) as pool:
        banned = await pool.call(
            alone.caller.manage("RoomBanClient", "room", user_id="villain", ban_time=_BAN)
        )
        began = asyncio.get_running_loop().time()
        off: list[str] = []
        expiries: list[float] = []
        async with Steady(alone) as steady:
            for step in plan.steps:
                # Whole, or not at all: the library reads it at any time.
                setting.with_suffix(".new").write_text(f"{step:+d}")
                setting.with_suffix(".new").replace(setting)
                await asyncio.sleep(plan.seconds)
                error = (await pool.call(alone.caller.connect("room", "villain"))).answer().error
                left = (error.data.retry_after if error else None) or 0.0
                should = _BAN - (asyncio.get_running_loop().time() - began)
                if abs(left - should) > 5:
                    off.append(f"{left:.0f} s left instead of {should:.0f}")
                expiries.append(await _expiry(alone, step))
    over = True
    await reporting
    written_off = [line for line in alone.gateway.lines() if "is disabled" in line]
    findings.promise("the ban is made", banned.answer().result is not None, "accepted")
    findings.promise("Connects are answered", not steady.failed, steady.figure())
    findings.promise(
        f"no server is written off (after {_TIMEOUT:g} s of silence)",
        not written_off,
        f"{len(written_off)} times",
    )
    findings.promise(
        "a ban lasts as long as it was made for",
        not off,
        f"at most 5 s off after {len(plan.steps)} steps" if not off else off[0],
    )
    worst = max(map(abs, expiries))
    findings.promise(
        "TURN credentials expire by the clock that TURN servers have too",
        worst < 30,
        f"{worst:.0f} s off",
    )
    errors = alone.gateway.errors()
    findings.promise("no error is logged", not errors, f"{len(errors)} lines {errors[:2]}")


async def _expiry(alone: Alone, step: int) -> float:
    """Return by how many seconds a TURN credential expires other than its ttl from the set time."""
    status, body = await alone.get("/turn")
    if status != 200:
        return float("inf")
    name = re.search(rb'"username": ?"(\d+)', body)
    return float(name[1]) - (time.time() + step + 1000) if name else float("inf")
