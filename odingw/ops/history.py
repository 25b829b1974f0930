"""The last 15 minutes, as the status page plots them: a sample every 5 seconds, kept in memory."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, pairwise
from typing import Any, Final, TypeAlias

from msgspec import Struct
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from odingw.grid.store import Store
from odingw.ops.metrics import Metrics

INTERVAL: Final = 5.0
"""Seconds between two samples."""

LENGTH: Final = 181
"""How many samples are kept: 15 minutes, both ends included."""

SERVERS: Final = 32
"""How many servers a sample holds the load of; the highest and the mean are those of all."""

_DIGITS: Final = 4

_log = Logger("odingw")

ServerKey: TypeAlias = tuple[str, str]
"""A pool and the address of a server in it."""


class _Sample(Struct, frozen=True):
    """What was the case at one moment.

    Attributes:
        at: when, by the steady clock.
        totals: what only rises, by name.
        refusals: how many calls each reason had refused until then.
        gauges: what goes up and down, by name; None: there was nothing to measure.
        loads: of servers, those that were disabled excepted.
    """

    at: float
    totals: dict[str, int]
    refusals: dict[str, int]
    gauges: dict[str, float | None]
    loads: dict[ServerKey, float]


class ServerSeries(Struct, frozen=True):
    """The load of one server over time; None while it was away or disabled."""

    pool: str
    server: str
    load: list[float | None]


class HistoryView(Struct, frozen=True):
    """The samples, a column for each thing measured; all columns are equally long.

    Attributes:
        interval: seconds between two samples.
        length: how many samples are kept at most.
        now: the time by the steady clock.
        times: of the samples, by that clock.
        rates: events per second since the sample before; None in the first.
        gauges: numbers at that time; None where there was nothing to measure.
        refusals: calls refused per second, by reason.
        servers: loads of single servers, :data:`SERVERS` at most.
    """

    interval: float
    length: int
    now: float
    times: list[float]
    rates: dict[str, list[float | None]]
    gauges: dict[str, list[float | None]]
    refusals: dict[str, list[float | None]]
    servers: list[ServerSeries]


class History:
    """Takes samples.

    Args:
        store: the grids.
        metrics: has counted what happened.
        now: the steady clock.
        timer: the reactor, which says when the next sample is due.
    """

    def __init__(
        self, store: Store, metrics: Metrics, now: Callable[[], float], timer: Any
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._now = now
        self._samples: deque[_Sample] = deque(maxlen=LENGTH)
        self._loop = LoopingCall(self._take)
        self._loop.clock = timer

    def start(self) -> None:
        """Take the first sample, and one at every interval from then on."""
        self._loop.start(INTERVAL)

    def stop(self) -> None:
        """Take no more."""
        if self._loop.running:
            self._loop.stop()

    def view(self) -> HistoryView:
        """Return all samples."""
        samples = list(self._samples)
        reasons = dict.fromkeys(reason for sample in samples for reason in sample.refusals)
        return HistoryView(
            interval=INTERVAL,
            length=LENGTH,
            now=self._now(),
            times=[round(sample.at, 3) for sample in samples],
            rates=_rates(samples, samples[-1].totals if samples else (), lambda one: one.totals),
            gauges={
                name: [_rounded(sample.gauges[name]) for sample in samples]
                for name in (samples[-1].gauges if samples else ())
            },
            refusals=_rates(samples, reasons, lambda one: one.refusals),
            servers=[
                ServerSeries(*key, [_rounded(sample.loads.get(key)) for sample in samples])
                for key in self._servers()
            ],
        )

    def _servers(self) -> list[ServerKey]:
        """Return the servers to show, those that were seen last before others."""
        keys: dict[ServerKey, None] = {}
        for sample in reversed(self._samples):
            keys |= dict.fromkeys(sample.loads)
        return sorted(islice(keys, SERVERS))

    def _take(self) -> None:
        try:
            at = self._now()
            if not self._samples or at > self._samples[-1].at:
                self._samples.append(self._sample(at))
        except Exception:
            # A LoopingCall ends at its first exception.
            _log.failure("taking a sample for the status page failed")

    def _sample(self, at: float) -> _Sample:
        loads: dict[ServerKey, float] = {}
        clients = rooms = 0
        for pool, grid in self._store.pools():
            for server in grid.servers():
                if not server.disabled:
                    loads[pool, server.address] = server.load
                    clients += server.clients
                    rooms += server.rooms
        return _Sample(
            at=at,
            totals=self._totals(),
            refusals=self._metrics.refusals(),
            gauges={
                "clients": clients,
                "rooms": rooms,
                "highest_load": max(loads.values(), default=None),
                "mean_load": sum(loads.values()) / len(loads) if loads else None,
            },
            loads=dict(self._chosen(loads)),
        )

    def _totals(self) -> dict[str, int]:
        totals = dict.fromkeys(
            ("connects", "connects_refused", "success", "rejected", "failure"), 0
        )
        for _, method, outcome, count in self._metrics.requests():
            totals[outcome] = totals.get(outcome, 0) + count
            if method == "Connect":
                totals["connects" if outcome == "success" else "connects_refused"] += count
        totals["tokens_rejected"] = self._metrics.rejected_tokens()
        totals["credentials"] = self._metrics.credentials_issued()
        return totals

    def _chosen(self, loads: Mapping[ServerKey, float]) -> Iterator[tuple[ServerKey, float]]:
        """Yield the loads to keep; a server that was chosen once stays so."""
        before = self._samples[-1].loads if self._samples else {}
        keys = dict.fromkeys(key for key in before if key in loads) | dict.fromkeys(loads)
        for key in islice(keys, SERVERS):
            yield key, loads[key]


def _rates(
    samples: list[_Sample],
    names: Mapping[str, object] | tuple[()],
    read: Callable[[_Sample], Mapping[str, int]],
) -> dict[str, list[float | None]]:
    """Return by how much a second each of the named totals has risen, from sample to sample."""
    rates: dict[str, list[float | None]] = {name: [None] for name in names} if samples else {}
    for before, after in pairwise(samples):
        old, new, seconds = read(before), read(after), after.at - before.at
        for name, column in rates.items():
            column.append(_rounded((new.get(name, 0) - old.get(name, 0)) / seconds))
    return rates


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, _DIGITS)
