"""What a Connect and a report cost in a small grid and in a large one."""

import itertools
from pathlib import Path
from typing import Final

import attrs

from benchmarks.customers import Customers
from benchmarks.gateway import Gateway, address, measured, report, state_url
from benchmarks.load import CONNECT, Connection, post
from benchmarks.options import NotAvailable, Options
from benchmarks.tables import Table

_CONNECTS: Final = 1_500
_REPORTS: Final = 20
_REPORTED: Final = 100
_ROOMS_CONNECTED: Final = 10
_REPORTER: Final = "reporter.example:4433"

COSTS: Final = (
    "Connect, known room: CPU µs",
    "Connect, new room: CPU µs",
    "report, unchanged: CPU ms",
    "report, all changed: CPU ms",
)


@attrs.frozen
class Grid:
    """How large a grid is.

    Attributes:
        rooms: that servers report.
        servers: that report them.
        keys: access keys.
    """

    rooms: int = 1_000
    servers: int = 50
    keys: int = 100


Costs = tuple[float, float, float, float]
"""As ``COSTS`` names them."""


def steps(options: Options) -> dict[str, list[Grid]]:
    """Return the grids to measure, by what grows in them."""
    few = slice(None, None, 2) if options.quick else slice(None)
    powers = [10, 100, 1_000, 10_000, 100_000]
    return {
        "rooms": [Grid(rooms=count) for count in powers[few]],
        "servers": [Grid(servers=count) for count in [5, 50, 200, 1_000][few]],
        "keys": [Grid(keys=count) for count in powers[few]],
    }


def run(options: Options) -> Table:
    """Measure."""
    table = Table(
        "Growth: CPU time in small and large grids",
        ("state, what grows", "rooms", "servers", "access keys", *COSTS),
    )
    found: dict[tuple[str, str], list[tuple[int, Costs]]] = {}
    for state in options.states:
        try:
            for name, grids in steps(options).items():
                curve = found[state, name] = []
                for grid in grids:
                    costs = _measure(state, grid, options)
                    curve.append((getattr(grid, name), costs))
                    table.add(f"{state} {name}", grid.rooms, grid.servers, grid.keys, *costs)
        except NotAvailable as error:
            table.not_available(state, str(error))
    table.notes.append(
        f"A report is one of {_REPORTED} rooms, by a server of its own. Requests come one after "
        "the other over one connection, so each costs more than under load."
    )
    if options.plot:
        table.notes.append(_plot(found, options.plot))
    return table


def _measure(state: str, grid: Grid, options: Options) -> Costs:
    customers = Customers(grid.keys)
    connects = options.count(_CONNECTS)
    reports = options.count(_REPORTS)
    known, new = (
        [post("/", CONNECT, token) for token in customers.tokens(connects, rooms, prefix)]
        for rooms, prefix in ((_ROOMS_CONNECTED, "known"), (connects, "new"))
    )
    with state_url(state) as url, Gateway(url, customers) as gateway:
        pid = gateway.pid
        with gateway.connection() as connection:
            _fill(connection, grid)
            # What came into being while the grid was filled is not what a request costs.
            for request in known[:_ROOMS_CONNECTED]:
                connection.ask(request, b'"token"')
            with measured(pid) as known_used:
                for request in known:
                    connection.ask(request, b'"token"')
            with measured(pid) as new_used:
                for request in new:
                    connection.ask(request, b'"token"')
            report_costs = []
            for change in (0, 1):
                bodies = [_report(turn * change) for turn in range(2)]
                for body in bodies:
                    connection.ask(body, b'"tasks"')
                with measured(pid) as used:
                    for body in itertools.islice(itertools.cycle(bodies), reports):
                        connection.ask(body, b'"tasks"')
                report_costs.append(used.cpu / reports * 1e3)
    return (
        known_used.cpu / connects * 1e6,
        new_used.cpu / connects * 1e6,
        report_costs[0],
        report_costs[1],
    )


def _fill(connection: Connection, grid: Grid) -> None:
    for number in range(grid.servers):
        rooms = [(f"filling-{room}", 4) for room in range(number, grid.rooms, grid.servers)]
        connection.ask(post("/internal", report(address(number), rooms)), b'"tasks"')


def _report(turn: int) -> bytes:
    rooms = [(f"reported-{number}", 4 + turn) for number in range(_REPORTED)]
    return post("/internal", report(_REPORTER, rooms))


def _plot(found: dict[tuple[str, str], list[tuple[int, Costs]]], folder: Path) -> str:
    """Draw a picture for each cost, and return what became of it."""
    try:
        import matplotlib as mpl  # type: ignore[import-not-found]  # optional
    except ImportError:
        return "No plots: matplotlib is not installed."
    mpl.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for number, (cost, axis) in enumerate(zip(COSTS, axes.flat, strict=True)):
        for (state, name), curve in found.items():
            xs, ys = [x for x, _ in curve], [costs[number] for _, costs in curve]
            axis.plot(xs, ys, marker="o", label=f"{name}, {state}")
        axis.set(xscale="log", title=cost)
        axis.set_ylim(bottom=0)
        axis.legend()
    for kind in ("svg", "png"):
        figure.savefig(folder / f"growth.{kind}")
    pyplot.close(figure)
    return f"Plots: growth.svg and growth.png in {folder}."
