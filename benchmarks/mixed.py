"""How long a Connect takes at half the peak rate while servers report."""

import tempfile
from pathlib import Path
from statistics import median
from typing import Final

import attrs

from benchmarks.connect import CONNECTIONS
from benchmarks.customers import ROOMS, SERVERS, TOKENS, Customers, write_tokens
from benchmarks.gateway import Gateway, address, measured, report, state_url
from benchmarks.load import CONNECT, errors_cell, post, wrk
from benchmarks.options import NotAvailable, Options
from benchmarks.paced import OpenLoop, Stream
from benchmarks.tables import Table

_REPORTED: Final = 500
_CHANGING: Final = 10
_INTERVAL: Final = 5.0
_PEAK_TIME: Final = 3
_ROUNDS: Final = 5


@attrs.frozen
class Round:
    """What one round showed.

    Attributes:
        rate: Connects a second.
        p50: milliseconds within which half of the Connects were answered.
        p99: milliseconds within which 99 of 100 were answered.
        longest: milliseconds that the last one took.
        report_p99: milliseconds within which 99 of 100 reports were answered.
        silence: the longest time without any answer, milliseconds.
        share: CPU seconds of the gateway in a second.
        errors: answers that were not good.
    """

    rate: float
    p50: float
    p99: float
    longest: float
    report_p99: float | None
    silence: float
    share: float
    errors: int


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
        "in one of ten rooms of each report. Medians of the rounds, each of which finds the peak "
        "anew, for the machine may be faster in one minute than in the next; longest of them all.",
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
        alone, beside = list[Round](), list[Round]()
        for _ in range(options.count(_ROUNDS)):
            peak = wrk(
                f"http://127.0.0.1:{gateway.port}", path, "connect", CONNECTIONS, _PEAK_TIME
            ).rate
            alone.append(_round(gateway, connects, peak / 2, with_reports=False))
            beside.append(_round(gateway, connects, peak / 2, with_reports=True))
        _add(table, f"{state} none", alone)
        _add(table, f"{state} all", beside)


def _round(gateway: Gateway, connects: list[bytes], rate: float, *, with_reports: bool) -> Round:
    streams = [Stream(connects, rate, b'"token"', CONNECTIONS)]
    seconds = _INTERVAL
    if with_reports:
        # Servers that report their rooms for the first time are not what is measured.
        OpenLoop(gateway.port, [_reporting((0,))]).run(_INTERVAL)
        streams.append(_reporting((1, 0)))
        seconds = 2 * _INTERVAL
    loop = OpenLoop(gateway.port, streams)
    with measured(gateway.pid) as used:
        loop.run(seconds)
    return Round(
        rate=rate,
        p50=streams[0].percentile(0.5),
        p99=streams[0].percentile(0.99),
        longest=max(streams[0].times) * 1e3,
        report_p99=streams[1].percentile(0.99) if with_reports else None,
        silence=loop.longest_silence * 1e3,
        share=used.cpu / seconds,
        errors=sum(stream.errors for stream in streams),
    )


def _add(table: Table, name: str, rounds: list[Round]) -> None:
    reports = [each.report_p99 for each in rounds if each.report_p99 is not None]
    table.add(
        name,
        median(each.rate for each in rounds),
        median(each.p50 for each in rounds),
        median(each.p99 for each in rounds),
        max(each.longest for each in rounds),
        median(reports) if reports else None,
        max(each.silence for each in rounds),
        f"{median(each.share for each in rounds):.0%}",
        errors_cell(sum(each.errors for each in rounds)),
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
