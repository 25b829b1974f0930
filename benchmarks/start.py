"""How long a start takes: from exec to the first answer."""

import statistics
import time
from typing import Final

from benchmarks.customers import KEYS, Customers
from benchmarks.gateway import Gateway, cpu_seconds, resident, state_url
from benchmarks.load import get
from benchmarks.options import NotAvailable, Options
from benchmarks.tables import Table

_STARTS: Final = 9


def run(options: Options) -> Table:
    """Measure."""
    table = Table(
        "Start: from exec to the first answer",
        ("state, access keys", "CPU s", "s", "RSS MB"),
    )
    for state in options.states:
        for keys in (0, KEYS):
            try:
                _measure(state, keys, table, options.count(_STARTS))
            except NotAvailable as error:
                table.not_available(state, str(error))
                break
    table.notes.append(
        "Medians. The first answer is that of /ping; with access keys, when they are known too."
    )
    return table


def _measure(state: str, keys: int, table: Table, count: int) -> None:
    cpu, wall, memory = [], [], []
    for _ in range(count):
        with state_url(state) as url:
            gateway = Gateway(url, Customers(keys) if keys else None)
            began = time.perf_counter()
            with gateway:
                with gateway.connection() as connection:
                    connection.ask(get("/ping"), b"pong")
                wall.append(time.perf_counter() - began)
                cpu.append(cpu_seconds(gateway.pid))
                memory.append(resident(gateway.pid) / 1e6)
    table.add(f"{state} {keys:,}", *map(statistics.median, (cpu, wall, memory)))
