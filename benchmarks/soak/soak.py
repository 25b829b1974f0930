"""The soak: deployments under all loads, looked at all the time, and judged in the end."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from msgspec import Struct

from benchmarks.faults.findings import Findings
from benchmarks.soak.counts import Counts
from benchmarks.soak.samples import Sample, longest_lives, look, plot, trends, write_csv
from benchmarks.soak.side import Rates, Side
from tests.redis_server import RedisServer

COLUMNS: Final = (
    "gateway",
    "minutes",
    "MiB",
    "gained MiB",
    "fds",
    "fds more",
    "delayed",
    "delayed more",
    "deferreds",
    "deferreds more",
    "CPU %",
)


class Plan(Struct, frozen=True, kw_only=True):
    """How long and how hard.

    Attributes:
        seconds: how long.
        rates: what happens how often, at each deployment.
        interval: seconds between two looks at the processes.
        redis: whether two gateways over Redis run beside the one with SQLite.
        memory_slack_kib: growth of memory that counts as flat.
        output: a folder for the samples and the plot; None: they are not kept.
        seed: of all chance.
    """

    seconds: float = 3600.0
    rates: Rates = Rates()
    interval: float = 5.0
    redis: bool = True
    memory_slack_kib: int = 3072
    output: Path | None = None
    seed: int = 1


class Outcome(Struct):
    """What a soak found: a table of its findings, and what both sides counted."""

    findings: Findings
    samples: list[Sample]
    counts: dict[str, Counts]


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Outcome:
    """Soak.

    Raises:
        SkipTest: Redis is not installed, and asked for.
    """
    say = write or sys.stdout.write
    samples: list[Sample] = []
    wrong: list[str] = []
    broken: list[str] = []
    async with AsyncExitStack() as stack:
        sides = [Side("sqlite", "sqlite:soak.sqlite", 1, plan.rates, plan.seed)]
        if plan.redis:
            redis = RedisServer()
            stack.callback(redis.close)
            await asyncio.to_thread(redis.start)
            sides.append(Side("redis", redis.url(), 2, plan.rates, plan.seed + 1))
        for side in sides:
            await stack.enter_async_context(side)
            side.begin()
        looking = asyncio.create_task(_look_again(plan, sides, samples))
        try:
            wrong = await _disturb(plan, sides, say)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        for side in sides:
            differing, lost = await side.finish()
            wrong += [f"{side.name}: {text}" for text in differing]
            broken += [f"{side.name}: {text}" for text in lost]
        severe = [line for side in sides for line in side.severe()]
    return Outcome(
        _judge(plan, sides, samples, (wrong, broken, severe), say),
        samples,
        {side.name: side.own_counts() for side in sides},
    )


async def _look_again(plan: Plan, sides: list[Side], samples: list[Sample]) -> None:
    began = time.monotonic()
    while True:
        for side in sides:
            for gateway in side.scene.gateways:
                sample = await look(gateway, time.monotonic() - began)
                if sample is not None:
                    samples.append(sample)
        if plan.output is not None:
            # So that a soak that is under way, or was cut short, can be judged.
            write_csv(plan.output / "soak.csv", samples)
        await asyncio.sleep(plan.interval)


async def _disturb(plan: Plan, sides: list[Side], say: Callable[[str], object]) -> list[str]:
    """Restart gateways early and at the end: a process must live long to show that it grows.

    Returns:
        What both sides disagreed about meanwhile.
    """
    began = time.monotonic()
    wrong: list[str] = []
    for share, how in (
        (0.06, signal.SIGTERM),
        (0.12, signal.SIGKILL),
        (0.94, signal.SIGTERM),
    ):
        await asyncio.sleep(max(0.0, began + share * plan.seconds - time.monotonic()))
        for side in sides:
            for gateway in side.scene.gateways:
                found = await side.restart(gateway, how)
                wrong += [f"{side.name}: {text}" for text in found]
                say(
                    f"{time.monotonic() - began:6.0f} s: {gateway.name} after {how.name}; "
                    f"counts {found or 'agree'}\n"
                )
    await asyncio.sleep(max(0.0, began + plan.seconds - time.monotonic()))
    return wrong


def _judge(
    plan: Plan,
    sides: list[Side],
    samples: list[Sample],
    faults: tuple[list[str], list[str], list[str]],
    say: Callable[[str], object],
) -> Findings:
    wrong, broken, severe = faults
    findings = Findings(f"soak: {plan.seconds:g} s", COLUMNS, say)
    growing: list[str] = []
    for name, life in sorted(longest_lives(samples).items()):
        found = {trend.measure: trend for trend in trends(life, plan.memory_slack_kib)}
        seconds = max(1.0, life[-1].at - life[0].at)
        rss, files = found["rss_kib"], found["descriptors"]
        delayed, deferreds = found["delayed"], found["deferreds"]
        findings.row(
            name,
            seconds / 60,
            rss.middle / 1024,
            rss.growth / 1024,
            files.middle,
            files.growth,
            delayed.middle,
            delayed.growth,
            deferreds.middle,
            deferreds.growth,
            (life[-1].cpu - life[0].cpu) / seconds * 100,
        )
        growing += [
            f"{name}: {trend.measure} gained {trend.growth:.0f}, {trend.allowed:.0f} is allowed"
            for trend in found.values()
            if not trend.flat
        ]
    for side in sides:
        counts = side.own_counts()
        figures = ", ".join(
            f"{label} {getattr(counts, label)}" for label in Counts.__struct_fields__
        )
        events = ", ".join(f"{label} {count}" for label, count in side.events.items())
        findings.note(f"{side.name}: {figures}; {events}")
        findings.note(f"{side.name}: refusals {dict(side.scene.book.refused)}")
    findings.expect("memory, descriptors, delayed calls and Deferreds are flat", growing)
    findings.expect("no error is logged", severe)
    findings.expect("both sides count the same", wrong)
    findings.expect("what was accepted arrives, and bans hold", broken)
    if plan.output is not None:
        write_csv(plan.output / "soak.csv", samples)
        drawn = plot(plan.output / "soak.png", samples)
        findings.note(
            f"samples: {plan.output / 'soak.csv'}; "
            + (f"plot: {plan.output / 'soak.png'}" if drawn else "no plot: no matplotlib")
        )
    return findings
