"""One gateway process, and two on one port, over Redis.

Both fleets run side by side, each with a Redis of its own, and take turns: the machine may be
faster in one minute than in the next.
"""

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.customers import ROOMS, SERVERS, TOKENS, Customers, write_tokens
from benchmarks.gateway import CORES, Gateway, cpu_seconds, measured, redis, redis_pid
from benchmarks.load import Load, errors_cell, median_ratio, wrk
from benchmarks.options import NotAvailable, Options
from benchmarks.tables import Table

_CONNECTIONS: Final = 256
_FLEETS: Final = (1, 2)
_ROUNDS: Final = 8
_LEAD_IN: Final = 2
_SECONDS: Final = 3
_WARM_UP: Final = 5
_ENOUGH_CORES: Final = 4


class _Fleet:
    """Gateways that share a port and a Redis.

    Args:
        count: how many.
        customers: who is let in.
        tokens: file with a token a line.
        stack: ends them.

    Attributes:
        costs: CPU microseconds of all of them for a request, by round.
        redis_costs: the same of Redis.
        loads: what wrk saw, by round.
    """

    def __init__(self, count: int, customers: Customers, tokens: Path, stack: ExitStack) -> None:
        store = stack.enter_context(redis())
        gateways: list[Gateway] = []
        for number in range(count):
            gateway = Gateway(
                store.url(),
                customers,
                listen="reuse_port = true\n",
                port=gateways[0].port if gateways else None,
                core=CORES[number % len(CORES)],
            )
            gateways.append(stack.enter_context(gateway))
        gateways[0].greet(SERVERS)
        self._tokens = tokens
        self._url = f"http://127.0.0.1:{gateways[0].port}"
        self._redis = redis_pid(store)
        self._cpu = dict.fromkeys((gateway.pid for gateway in gateways), 0.0)
        self.costs: list[float] = []
        self.redis_costs: list[float] = []
        self.loads: list[Load] = []
        self._ask(_WARM_UP, read=True)

    def measure(self) -> None:
        """Measure for one round, when the rooms are placed again that have ended meanwhile."""
        self._ask(_LEAD_IN, read=True)
        redis_before = cpu_seconds(self._redis)
        each_before = {pid: cpu_seconds(pid) for pid in self._cpu}
        with measured(*self._cpu) as used:
            load = self._ask(_SECONDS, read=False)
        self.redis_costs.append((cpu_seconds(self._redis) - redis_before) / load.requests * 1e6)
        for pid, before in each_before.items():
            self._cpu[pid] += cpu_seconds(pid) - before
        self.costs.append(used.cpu / load.requests * 1e6)
        self.loads.append(load)

    def shares(self) -> str:
        """Return what part of the work each gateway did."""
        return ", ".join(f"{cpu / sum(self._cpu.values()):.0%}" for cpu in self._cpu.values())

    def _ask(self, seconds: int, *, read: bool) -> Load:
        return wrk(self._url, self._tokens, "connect", _CONNECTIONS, seconds, read=read)


def run(options: Options) -> Table:
    """Measure."""
    rounds = options.count(_ROUNDS)
    table = Table(
        f"Processes on one port over Redis, {_CONNECTIONS} connections; medians of {rounds} rounds",
        (
            "processes",
            "requests/s",
            "rate / one",
            "CPU µs",
            "Redis CPU µs",
            "p50 ms",
            "p99 ms",
            "share of each",
            "errors",
        ),
    )
    customers = Customers()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="odingw-benchmark-")))
        tokens = write_tokens(folder / "tokens", customers.tokens(TOKENS, ROOMS))
        try:
            fleets = {count: _Fleet(count, customers, tokens, stack) for count in _FLEETS}
        except NotAvailable as error:
            table.not_available("1, 2", str(error))
            return table
        for _ in range(rounds):
            for fleet in fleets.values():
                fleet.measure()
    alone = [load.rate for load in fleets[1].loads]
    for count, fleet in fleets.items():
        rates = [load.rate for load in fleet.loads]
        table.add(
            str(count),
            statistics.median(rates),
            median_ratio(rates, alone),
            statistics.median(fleet.costs),
            statistics.median(fleet.redis_costs),
            statistics.median(load.p50 for load in fleet.loads),
            statistics.median(load.p99 for load in fleet.loads),
            fleet.shares(),
            errors_cell(sum(load.errors for load in fleet.loads)),
        )
    if len(CORES) < _ENOUGH_CORES:
        table.notes.append(
            f"With {len(CORES)} cores the second process shares its core with Redis and the load: "
            "see CPU µs, not requests/s."
        )
    table.notes.append(
        "Share of each: of the CPU time of all gateway processes. Every answer was looked at in "
        f"the {_LEAD_IN} s before each measurement; in it each answer's status, which leaves more "
        "of the cores to those who are measured."
    )
    return table
