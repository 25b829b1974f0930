"""One gateway process, and two on one port, over Redis."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.customers import ROOMS, SERVERS, TOKENS, Customers, write_tokens
from benchmarks.gateway import CORES, Gateway, cpu_seconds, measured, redis, redis_pid
from benchmarks.load import wrk
from benchmarks.options import NotAvailable, Options
from benchmarks.tables import Table

_CONNECTIONS: Final = 256
_WARM_UP: Final = 5
_ENOUGH_CORES: Final = 4


def run(options: Options) -> Table:
    """Measure."""
    table = Table(
        f"Processes on one port over Redis, {_CONNECTIONS} connections",
        (
            "processes",
            "requests/s",
            "CPU µs",
            "Redis CPU µs",
            "p50 ms",
            "p99 ms",
            "share of each",
            "errors",
        ),
    )
    for count in (1, 2):
        try:
            _measure(count, table, options)
        except NotAvailable as error:
            table.not_available(str(count), str(error))
    if len(CORES) < _ENOUGH_CORES:
        table.notes.append(
            f"With {len(CORES)} cores the second process shares its core with Redis and the load: "
            "see CPU µs, not requests/s."
        )
    table.notes.append("Share of each: of the CPU time of all gateway processes.")
    return table


def _measure(count: int, table: Table, options: Options) -> None:
    customers = Customers()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="odingw-benchmark-")))
        store = stack.enter_context(redis())
        path = write_tokens(folder / "tokens", customers.tokens(TOKENS, ROOMS))
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
        url = f"http://127.0.0.1:{gateways[0].port}"
        wrk(url, path, "connect", _CONNECTIONS, _WARM_UP)
        pids = [gateway.pid for gateway in gateways]
        redis_process = redis_pid(store)
        redis_before = cpu_seconds(redis_process)
        each_before = [cpu_seconds(pid) for pid in pids]
        with measured(*pids) as used:
            load = wrk(url, path, "connect", _CONNECTIONS, options.seconds)
        redis_cpu = cpu_seconds(redis_process) - redis_before
        each = [cpu_seconds(pid) - before for pid, before in zip(pids, each_before, strict=True)]
        table.add(
            str(count),
            load.rate,
            used.cpu / load.requests * 1e6,
            redis_cpu / load.requests * 1e6,
            load.p50,
            load.p99,
            ", ".join(f"{cpu / sum(each):.0%}" for cpu in each),
            load.cell(),
        )
