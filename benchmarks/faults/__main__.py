"""Faults on purpose: ``python -m benchmarks.faults KIND …``.

Exit status 1 if a promise was broken.
"""

import argparse
import asyncio
import sys
import time
import unittest
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from benchmarks.faults import (
    badtokens,
    clock,
    crash,
    cut,
    deploy,
    descriptors,
    disk,
    dns,
    fleet,
    halfclosed,
    oom,
    outage,
    ports,
    rolling,
    slow,
    slowsync,
    storm,
    tlsgarbage,
)
from benchmarks.faults.findings import Findings
from benchmarks.tables import heading

SQLITE: Final = "sqlite:odingw.sqlite"

Found: TypeAlias = Coroutine[Any, Any, Findings]


def main(arguments: Sequence[str]) -> int:
    """Run kinds of faults and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("kinds", nargs="+", metavar="KIND", help=f"all, or of {', '.join(KINDS)}")
    parser.add_argument("--rounds", type=int, help="of crash and deploy: how many")
    parser.add_argument("--quick", action="store_true", help="a short run")
    parser.add_argument("--state", help="a state URL, instead of the usual one")
    parser.add_argument("--variant", action="append", choices=outage.VARIANTS, help="of outage")
    parser.add_argument("--seed", type=int, default=1, help="of all chance")
    parser.add_argument("--output", type=Path, metavar="FILE.rst", help="write the table here too")
    options = parser.parse_args(arguments)
    unknown = set(options.kinds) - KINDS.keys() - {"all"}
    if unknown:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    kinds = list(KINDS) if "all" in options.kinds else options.kinds
    table: list[tuple[str, ...]] = [("fault", "promise", "figure", "verdict")]
    broken = 0
    for kind in kinds:
        broken += _run(kind, options, table)
    lines = [*heading("Faults"), *_lines(table)]
    sys.stdout.write("\n".join(["", *lines]) + "\n")
    if options.output:
        options.output.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    sys.stdout.write("all promises were kept\n" if not broken else f"{broken} broken\n")
    return 1 if broken else 0


def _run(kind: str, options: argparse.Namespace, table: list[tuple[str, ...]]) -> int:
    """Run one kind; return how many promises were broken."""
    broken = 0
    began = time.monotonic()
    for coroutine in KINDS[kind](options):
        try:
            findings = asyncio.run(coroutine)
        except unittest.SkipTest as reason:
            sys.stdout.write(f"\n{kind}: skipped: {reason}\n")
            table.append((kind, "not tried", str(reason), "-"))
            continue
        table += [(kind, *promise) for promise in findings.promises]
        if not findings.promises:
            # Its own table is above.
            verdict = "NOT kept" if findings.broken else "kept"
            table.append((kind, findings.title, f"{len(findings.rows)} rows", verdict))
        broken += len(findings.broken)
    sys.stdout.write(f"{kind}: {time.monotonic() - began:.0f} s\n")
    sys.stdout.flush()
    return broken


def _lines(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a simple table of reStructuredText."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    border = "  ".join("=" * width for width in widths)
    yield border
    for number, row in enumerate(table):
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()
        if not number:
            yield border
    yield border


def _crash(options: argparse.Namespace) -> list[Found]:
    rounds = options.rounds or (3 if options.quick else 20)
    state = options.state or SQLITE
    return [crash.run(crash.Plan(state=state, rounds=rounds, seed=options.seed))]


def _fleet(options: argparse.Namespace) -> list[Found]:
    small = {"connects": 1000, "rooms": 100, "tasks": 500} if options.quick else {}
    return [
        fleet.run(fleet.Plan(state=options.state or "", gateways=count, seed=options.seed, **small))
        for count in (2, 3)
    ]


def _outage(options: argparse.Namespace) -> list[Found]:
    variants = tuple(options.variant or outage.VARIANTS)
    seconds = 8.0 if options.quick else 60.0
    return [outage.run(outage.Plan(variants=variants, seconds=seconds, seed=options.seed))]


def _deploy(options: argparse.Namespace) -> list[Found]:
    rounds = options.rounds or (1 if options.quick else 5)
    plan = deploy.Plan(state=options.state or "", rounds=rounds, seed=options.seed)
    alone = crash.Plan(state=SQLITE, rounds=rounds, graceful=True, seed=options.seed)
    return [deploy.run(plan), crash.run(alone)]


def _rolling(options: argparse.Namespace) -> list[Found]:
    plan = rolling.Plan(rounds=options.rounds or 4, seed=options.seed)
    if options.quick:
        plan = rolling.Plan(rounds=options.rounds or 1, rooms=1000, hurry=5, seed=options.seed)
    return [rolling.run(plan)]


def _slow(options: argparse.Namespace) -> list[Found]:
    plan = slow.Plan(connections=1000, header_timeout=3) if options.quick else slow.Plan()
    return [slow.run(plan)]


def _storm(options: argparse.Namespace) -> list[Found]:
    plan = storm.Plan(servers=30, rooms=200, waves=2) if options.quick else storm.Plan()
    return [storm.run(plan)]


def _tlsgarbage(options: argparse.Namespace) -> list[Found]:
    count = 50 if options.quick else 500
    return [tlsgarbage.run(tlsgarbage.Plan(connections=count, seed=options.seed))]


KINDS: Final[dict[str, Callable[[argparse.Namespace], list[Found]]]] = {
    "cut": lambda options: [cut.run(cut.Plan(step=7 if options.quick else 1))],
    "halfclosed": lambda options: [
        halfclosed.run(halfclosed.Plan(connections=200 if options.quick else 2000))
    ],
    "slow": _slow,
    "storm": _storm,
    "clock": lambda options: [clock.run(clock.Plan(seconds=1.5 if options.quick else 5))],
    "disk": lambda options: [disk.run(disk.Plan(seconds=2 if options.quick else 20))],
    "slowsync": lambda options: [slowsync.run(slowsync.Plan(seconds=4 if options.quick else 20))],
    "descriptors": lambda options: [
        descriptors.run(descriptors.Plan(seconds=1 if options.quick else 5))
    ],
    "oom": lambda options: [oom.run(oom.Plan(rooms=100 if options.quick else 500))],
    "dns": lambda options: [dns.run(dns.Plan(seconds=2 if options.quick else 15))],
    "tlsgarbage": _tlsgarbage,
    "badtokens": lambda options: [
        badtokens.run(badtokens.Plan(tokens=2000 if options.quick else 100_000))
    ],
    "crash": _crash,
    "fleet": _fleet,
    "outage": _outage,
    "deploy": _deploy,
    "rolling": _rolling,
    "ports": lambda _: [ports.run(ports.Plan())],
}
"""What each kind runs, given the options."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
