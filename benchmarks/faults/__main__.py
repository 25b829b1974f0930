"""Faults on purpose: ``python -m benchmarks.faults crash|fleet|outage|deploy|ports``.

Exit status 1 if a promise was broken.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from benchmarks.faults import crash, deploy, fleet, outage, ports
from benchmarks.faults.findings import Findings

SQLITE: Final = "sqlite:odingw.sqlite"


def main(arguments: Sequence[str]) -> int:
    """Run one kind of fault and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("kind", choices=("crash", "fleet", "outage", "deploy", "ports"))
    parser.add_argument("--rounds", type=int, help="of crash and deploy: how many")
    parser.add_argument("--quick", action="store_true", help="a short run")
    parser.add_argument("--state", help="a state URL, instead of the usual one")
    parser.add_argument("--variant", action="append", choices=outage.VARIANTS, help="of outage")
    parser.add_argument("--seed", type=int, default=1, help="of all chance")
    options = parser.parse_args(arguments)
    found = asyncio.run(_run(options))
    broken = [line for findings in found for line in findings.broken]
    sys.stdout.write("\nall promises were kept\n" if not broken else f"\n{len(broken)} broken\n")
    return 1 if broken else 0


async def _run(options: argparse.Namespace) -> list[Findings]:
    quick, seed = options.quick, options.seed
    match options.kind:
        case "crash":
            plan = crash.Plan(
                state=options.state or SQLITE,
                rounds=options.rounds or (3 if quick else 20),
                seed=seed,
            )
            return [await crash.run(plan)]
        case "fleet":
            small = {"connects": 1000, "rooms": 100, "tasks": 500} if quick else {}
            return [
                await fleet.run(
                    fleet.Plan(state=options.state or "", gateways=count, seed=seed, **small)
                )
                for count in (2, 3)
            ]
        case "outage":
            variants = tuple(options.variant or outage.VARIANTS)
            seconds = 8.0 if quick else 60.0
            return [await outage.run(outage.Plan(variants=variants, seconds=seconds, seed=seed))]
        case "deploy":
            rounds = options.rounds or (1 if quick else 5)
            fleet_plan = deploy.Plan(state=options.state or "", rounds=rounds, seed=seed)
            alone = crash.Plan(state=SQLITE, rounds=rounds, graceful=True, seed=seed)
            return [await deploy.run(fleet_plan), await crash.run(alone)]
        case _:
            return [await ports.run(ports.Plan())]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
