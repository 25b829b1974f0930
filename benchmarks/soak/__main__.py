"""A long run of all loads together: ``python -m benchmarks.soak``.

Exit status 1 if something grew, an error was logged, or counts disagree.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.soak.side import Rates
from benchmarks.soak.soak import Plan, run


def main(arguments: Sequence[str]) -> int:
    """Soak and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long (3600)")
    parser.add_argument("--rate", type=float, default=100.0, help="Connects a second (100)")
    parser.add_argument("--output", type=Path, default=Path("var/soak"), help="folder (var/soak)")
    parser.add_argument("--no-redis", action="store_true", help="only the gateway with SQLite")
    parser.add_argument("--seed", type=int, default=1, help="of all chance")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        seconds=options.seconds,
        rates=Rates(connects=options.rate),
        interval=max(0.5, min(5.0, options.seconds / 100)),
        redis=not options.no_redis,
        output=options.output,
        seed=options.seed,
    )
    outcome = asyncio.run(run(plan))
    broken = outcome.findings.broken
    sys.stdout.write("\nall is flat and agrees\n" if not broken else f"\n{len(broken)} broken\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
