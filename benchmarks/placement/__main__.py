"""``python -m benchmarks.placement``: prints how well rooms are spread over servers."""

import argparse
import sys

from benchmarks.placement.comparison import Ratio, Summary, compare
from benchmarks.placement.plot import plot
from benchmarks.placement.scenarios import FLEETS, SCENARIOS

_INTRODUCTION = """\
{seeds} seeds, {gateways} gateway(s). Load of the hottest server over the ideal's, excess over the
existing rule's, joins that found their server above 100 %: the existing rule's and the product's.

"""

_HEADER = (
    f"{'scenario':18} {'servers':>7} | {'existing':>8} {'two ch.':>8} | "
    f"{'product':>14} {'want':>5} {'(peak)':>7} | {'excess':>12} {'want':>5} | "
    f"{'above 100 %':>16} | target"
)


def main() -> None:
    """Read the command line, run, and print the table."""
    options = _options()
    if options.plot is not None:
        crowd = next(each for each in SCENARIOS if each.crowd)
        plot(options.plot, crowd, FLEETS[0])
        return
    seeds = options.seeds if not options.quick else 2
    scenarios = [
        each for each in SCENARIOS if not options.scenario or each.name in options.scenario
    ]
    fleets = [each for each in FLEETS if options.servers in (None, each.servers)]
    sys.stdout.write(_INTRODUCTION.format(seeds=seeds, gateways=options.gateways))
    sys.stdout.write(f"{_HEADER}\n{'-' * len(_HEADER)}\n")
    summaries = compare(
        scenarios, fleets, seeds=seeds, gateways=options.gateways, workers=options.workers
    )
    for summary in summaries:
        sys.stdout.write(f"{line(summary)}\n")
        sys.stdout.flush()


def line(summary: Summary) -> str:
    """Return a summary as a line of the table."""
    full = summary.overloaded
    return (
        f"{summary.scenario.name:18} {summary.fleet.servers:7} | "
        f"{summary.existing.value:8.2f} {summary.two.value:8.2f} | "
        f"{_text(summary.hottest, 3):>14} {_want(summary.most_hottest)} "
        f"{f'({summary.peak.value:.2f})':>7} | "
        f"{_text(summary.excess, 2):>12} {_want(summary.most_excess)} | "
        f"{full['existing']:6.1%} to {full['product']:6.1%} | "
        f"{'missed: ' + ', '.join(summary.missed()) if summary.missed() else 'met'}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.placement", description=__doc__)
    parser.add_argument("--seeds", type=int, default=16, help="how many seeds (16)")
    parser.add_argument("--quick", action="store_true", help="2 seeds: too few to judge by")
    parser.add_argument("--gateways", type=int, default=1, help="gateways that share state (1)")
    parser.add_argument("--workers", type=int, default=2, choices=(1, 2), help="processes (2)")
    parser.add_argument(
        "--scenario", action="append", choices=[each.name for each in SCENARIOS], help="only this"
    )
    parser.add_argument("--servers", type=int, choices=[each.servers for each in FLEETS])
    parser.add_argument("--plot", metavar="FILE", help="draw the flash crowd instead")
    options = parser.parse_args()
    if options.seeds < 1 or options.gateways < 1:
        parser.error("--seeds and --gateways take 1 or more")
    return options


def _text(ratio: Ratio, digits: int) -> str:
    return f"{ratio.value:.{digits}f} ± {ratio.error:.{digits}f}"


def _want(most: float | None) -> str:
    return f"{most:5.2f}" if most is not None else "    -"


if __name__ == "__main__":
    main()
