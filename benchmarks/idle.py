"""What connections cost that are open and do nothing."""

import resource
import ssl
from contextlib import ExitStack
from typing import Final

from benchmarks.gateway import Gateway, measured, resident
from benchmarks.load import Connection, get
from benchmarks.options import Options
from benchmarks.tables import Table
from benchmarks.tls import KEY_TYPES, certify

_CONNECTIONS: Final = 10_000
_TLS_CONNECTIONS: Final = 2_000
_SPARE: Final = 500
_ROUNDS: Final = 10
_PING: Final = get("/ping")
_LIMITS: Final = "[limits]\nconnections = 20000\nidle_timeout = 3600\n"
_TLS: Final = "ssl:{port}:interface=127.0.0.1"


def run(options: Options) -> Table:
    """Measure."""
    table = Table(
        "Idle connections that stay open after a request",
        ("connections", "RSS MB before", "RSS MB with them", "KB each", "CPU µs to open each"),
    )
    possible = _raise_limit() - _SPARE
    count = min(options.count(_CONNECTIONS), possible)
    gateway = Gateway("memory:", tables=_LIMITS)
    with gateway:
        _measure(f"{count:,}", table, gateway, count, None)
    tls = Gateway("memory:", tables=_LIMITS, endpoint=_TLS)
    context = certify(tls, KEY_TYPES["ECDSA P-256"])
    with tls:
        count_tls = min(options.count(_TLS_CONNECTIONS), possible)
        _measure(f"{count_tls:,} with TLS", table, tls, count_tls, context)
    if count < options.count(_CONNECTIONS):
        table.notes.append(f"No more than {count:,}: the hard limit on open files (ulimit -H -n).")
    table.notes.append("Each has asked for /ping once. CPU µs includes that.")
    return table


def _raise_limit() -> int:
    """Allow as many open files as may be, here and in processes to come."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _measure(
    name: str, table: Table, gateway: Gateway, count: int, context: ssl.SSLContext | None
) -> None:
    for _ in range(_ROUNDS):
        with Connection(gateway.port, context) as connection:
            connection.ask(_PING, b"pong")
    with ExitStack() as stack:
        before = resident(gateway.pid)
        with measured(gateway.pid) as used:
            for _ in range(count):
                connection = stack.enter_context(Connection(gateway.port, context))
                connection.ask(_PING, b"pong")
        after = resident(gateway.pid)
        each = (after - before) / count / 1024
        table.add(name, before / 1e6, after / 1e6, each, used.cpu / count * 1e6)
