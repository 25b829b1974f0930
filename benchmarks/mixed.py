"""How long a Connect takes at half the peak rate while servers report."""

import tempfile
from pathlib import Path
from typing import Final

from benchmarks.connect import CONNECTIONS
from benchmarks.customers import ROOMS, SERVERS, TOKENS, Customers, write_tokens
from benchmarks.gateway import Gateway, address, measured, report, state_url
from benchmarks.load import CONNECT, post, wrk
from benchmarks.options import NotAvailable, Options
from benchmarks.paced import OpenLoop, Stream
from benchmarks.tables import Table

_REPORTED: Final = 500
_CHANGING: Final = 10
_INTERVAL: Final = 5.0
_PEAK_TIME: Final = 5


def run(options: Options) -> Table:
    """Measure."""
    table = Table(
        f"Connect at half the peak rate, while {SERVERS} servers report {_REPORTED} rooms each "
        f"every {_INTERVAL:g} s",
        (
            "state, reports",
            "Connects/s",
            "p50 ms",
            "p99 ms",
            "longest ms",
            "report p99 ms",
            "longest silence ms",
            "share of a core",
            "errors",
        ),
    )
    for state in options.states:
        try:
            _measure(state, table, options)
        except NotAvailable as error:
            table.not_available(state, str(error))
    table.notes += [
        "Times count from when a request was planned, not from when it could be sent. Peers change "
        "in one of ten rooms of each report.",
        "Longest silence: the longest time without any answer while at least one request was out. "
        "The longest step of the gateway's reactor was no longer than that.",
    ]
    return table


def _measure(state: str, table: Table, options: Options) -> None:
    customers = Customers()
    tokens = list(customers.tokens(TOKENS, ROOMS))
    connects = [post("/", CONNECT, token) for token in tokens]
    with (
        tempfile.TemporaryDirectory(prefix="odingw-benchmark-") as folder,
        state_url(state) as url,
        Gateway(url, customers) as gateway,
    ):
        gateway.greet(SERVERS)
        path = write_tokens(Path(folder) / "tokens", iter(tokens))
        peak = wrk(
            f"http://127.0.0.1:{gateway.port}", path, "connect", CONNECTIONS, _PEAK_TIME
        ).rate
        for name, with_reports in (("none", False), ("all", True)):
            streams = [Stream(connects, peak / 2, b'"token"', CONNECTIONS)]
            if with_reports:
                # Servers that report their rooms for the first time are not what is measured.
                OpenLoop(gateway.port, [_reporting((0,))]).run(_INTERVAL)
                streams.append(_reporting((1, 0)))
            loop = OpenLoop(gateway.port, streams)
            seconds = max(2 * _INTERVAL, options.seconds) if with_reports else options.seconds
            with measured(gateway.pid) as used:
                loop.run(seconds)
            errors = sum(stream.errors for stream in streams)
            table.add(
                f"{state} {name}",
                peak / 2,
                streams[0].percentile(0.5),
                streams[0].percentile(0.99),
                max(streams[0].times) * 1e3,
                streams[1].percentile(0.99) if with_reports else None,
                loop.longest_silence * 1e3,
                f"{used.cpu / seconds:.0%}",
                f"{errors:,} WRONG" if errors else "0",
            )


def _reporting(turns: tuple[int, ...]) -> Stream:
    """Return the reports of all servers, in turns that differ in some rooms' peers."""
    requests = [
        post("/internal", report(address(number), _rooms(number, turn)))
        for turn in turns
        for number in range(SERVERS)
    ]
    return Stream(requests, SERVERS / _INTERVAL, b'"tasks"', SERVERS)


def _rooms(number: int, turn: int) -> list[tuple[str, int]]:
    changing = range(0, _REPORTED, _CHANGING)
    return [
        (f"reported-{number}-{room}", 4 + turn * (room in changing)) for room in range(_REPORTED)
    ]
