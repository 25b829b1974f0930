"""``python -m benchmarks [NAME …]``: measure, and print a table for each benchmark."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.gateway import LOAD_CORE
from benchmarks.options import STATES, BenchmarkError, Options
from benchmarks.tables import Disturbance, Table, heading

NAMES: Final = (
    "connect",
    "report",
    "mixed",
    "turn",
    "tls",
    "idle",
    "start",
    "processes",
    "growth",
)

_QUIET: Final = 0.05


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="How fast odingw is.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all")
    parser.add_argument("--quick", action="store_true", help="shorter, and less steady")
    parser.add_argument(
        "--state",
        action="append",
        metavar="URL",
        help=f"to measure with, may be repeated; default: {' '.join(STATES)}",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.rst", help="write the tables here too")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw plots of growth here")
    parsed = parser.parse_args(arguments)
    unknown = set(parsed.names) - set(NAMES)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    return parsed


def main(arguments: Sequence[str]) -> int:
    """Run benchmarks and return the exit status: 1 if one could not be run, or had errors."""
    parsed = _arguments(arguments)
    options = Options(quick=parsed.quick, states=tuple(parsed.state or STATES), plot=parsed.plot)
    # Whatever makes load, wrk and Redis included, stays away from the server's core.
    os.sched_setaffinity(0, {LOAD_CORE})
    written = _write(list(heading("Benchmarks")))
    status = 0
    for name in [name for name in NAMES if not parsed.names or name in parsed.names]:
        sys.stderr.write(f"measuring {name} ...\n")
        disturbance = Disturbance()
        try:
            table: Table = importlib.import_module(f"benchmarks.{name}").run(options)
        except BenchmarkError as error:
            sys.stderr.write(f"{name}: {error}\n")
            status = 1
            continue
        others = disturbance.share()
        if others > _QUIET:
            table.notes.append(
                f"BEWARE: other programs used {others:.0%} of the machine meanwhile; the figures "
                "are worse than they should be."
            )
        written += _write(list(table.lines()))
        if any("WRONG" in cell for row in table.rows for cell in row if isinstance(cell, str)):
            status = 1
    if parsed.output:
        parsed.output.write_text("\n".join(written).rstrip() + "\n", "utf-8")
    return status


def _write(lines: list[str]) -> list[str]:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    return lines


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
