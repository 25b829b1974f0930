"""Reports of servers: what they cost by size and by what has changed."""

import itertools
import statistics
import time
from collections.abc import Callable
from itertools import islice
from typing import Final

from benchmarks.crypto import SCALED_NOTE, Pace
from benchmarks.customers import SERVERS, Customers
from benchmarks.gateway import Gateway, address, measured, report, state_url
from benchmarks.load import post
from benchmarks.options import NotAvailable, Options
from benchmarks.tables import Table

_REPEATS: Final = {0: 200, 1_000: 30, 5_000: 10}
"""How often a report is sent in one round, by its rooms."""

_ROUNDS: Final = 5

_PEERS: Final = 4

Rooms = list[tuple[str, int]]


def unchanged(size: int, number: int) -> Rooms:
    """Return the rooms of a report: always the same."""
    return [(f"room-{room}", _PEERS) for room in range(size)]


def one_per_cent(size: int, number: int) -> Rooms:
    """Return the rooms of a report: in one of a hundred, peers have come or gone."""
    return [(f"room-{room}", _PEERS + (number % 2) * (room % 100 == 0)) for room in range(size)]


def all_changed(size: int, number: int) -> Rooms:
    """Return the rooms of a report: peers have come or gone in all of them."""
    return [(f"room-{room}", _PEERS + number % 2) for room in range(size)]


def all_new(size: int, number: int) -> Rooms:
    """Return the rooms of a report: all opened since the last one, whose rooms are gone."""
    return [(f"room-{number}-{room}", _PEERS) for room in range(size)]


_KINDS: Final[dict[str, Callable[[int, int], Rooms]]] = {
    "unchanged": unchanged,
    "1 % changed": one_per_cent,
    "all changed": all_changed,
    "all new": all_new,
}


def run(options: Options) -> Table:
    """Measure."""
    table = Table(
        f"Reports of one of {SERVERS} servers, over one connection",
        ("state, rooms, peers", "KB", "CPU ms", "scaled", "median ms", "longest ms"),
    )
    for state in options.states:
        try:
            _measure(state, table, options)
        except NotAvailable as error:
            table.not_available(state, str(error))
    table.notes.append(
        "CPU ms: of the gateway per report; median and longest: until the client has its reply. "
        + SCALED_NOTE.format(rounds=_ROUNDS)
    )
    return table


def _measure(state: str, table: Table, options: Options) -> None:
    with state_url(state) as url, Gateway(url, Customers()) as gateway:
        gateway.greet(SERVERS)
        pace = Pace()
        with gateway.connection() as connection:
            for size, repeats in _REPEATS.items():
                count = options.count(repeats)
                for name, rooms in _KINDS.items() if size else (("no rooms", unchanged),):
                    requests = (
                        post("/internal", report(address(0), rooms(size, number)))
                        for number in itertools.count()
                    )
                    for request in islice(requests, 2):
                        connection.ask(request, b'"tasks"')
                    costs, scaled, times = list[float](), list[float](), list[float]()
                    pace.begin()
                    for _ in range(_ROUNDS):
                        batch = list(islice(requests, count))
                        with measured(gateway.pid) as used:
                            for request in batch:
                                began = time.perf_counter()
                                connection.ask(request, b'"tasks"')
                                times.append((time.perf_counter() - began) * 1e3)
                        costs.append(used.cpu / count * 1e3)
                        scaled.append(pace.scaled(costs[-1]))
                    table.add(
                        f"{state} {size:,}, {name}",
                        len(request) / 1e3,
                        statistics.median(costs),
                        statistics.median(scaled),
                        statistics.median(times),
                        max(times),
                    )
