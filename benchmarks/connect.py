"""Connect under load, beside the bare cryptography and a naive server."""

import tempfile
from pathlib import Path
from typing import Final

from benchmarks.crypto import bare_crypto
from benchmarks.customers import KEYS, ROOMS, SERVERS, TOKENS, Customers, write_tokens
from benchmarks.gateway import Gateway, measured, module, resident, state_url
from benchmarks.load import CONNECT, Connection, Load, post, wrk
from benchmarks.options import NotAvailable, Options
from benchmarks.tables import Table
from tests.process import free_port

CONNECTIONS: Final = 32

_WARM_UP: Final = 5
_CHECKED: Final = 100
_SODIUM: Final = "libsodium (PyNaCl)"

Row = tuple[str, float, Load, int]
"""Name, CPU microseconds of a request, what wrk saw, bytes of memory at the end."""


def run(options: Options) -> Table:
    """Measure."""
    table = Table(
        f"Connect: {TOKENS:,} tokens, {ROOMS:,} rooms, {KEYS:,} access keys, {SERVERS} servers, "
        f"{CONNECTIONS} connections",
        (
            "what",
            "CPU µs",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "RSS MB",
            "errors",
            "CPU / libsodium",
            "rate / naive",
        ),
    )
    bare = bare_crypto(options.count(5_000))
    customers = Customers()
    with tempfile.TemporaryDirectory(prefix="odingw-benchmark-") as folder:
        tokens = write_tokens(Path(folder) / "tokens", customers.tokens(TOKENS, ROOMS))
        naive = [
            _naive(name, arguments, tokens, options)
            for name, arguments in (
                ("naive Klein + PyJWT + json", ()),
                ("the same with Klein's access log", ("--log",)),
            )
        ]
        rows: list[Row | tuple[str, str]] = []
        for state in options.states:
            try:
                rows.append(_gateway(state, customers, tokens, options))
            except NotAvailable as error:
                rows.append((f"odingw, {state}", str(error)))
    for library, cost in bare.items():
        table.add(f"bare crypto, {library}", cost, *[None] * 5, cost / bare[_SODIUM])
    for row in (*naive, *rows):
        if len(row) == 2:
            table.not_available(*row)
        else:
            name, cpu, load, memory = row
            figures = (cpu, load.rate, load.p50, load.p99, memory / 1e6, load.cell())
            table.add(name, *figures, cpu / bare[_SODIUM], load.rate / naive[0][2].rate)
    table.notes.append(
        "Bare crypto: one Ed25519 signature verified and one made. CPU µs: user and system time of "
        "the server per request, as the kernel counts it. Every answer was looked at."
    )
    return table


def _gateway(state: str, customers: Customers, tokens: Path, options: Options) -> Row:
    with state_url(state) as url, Gateway(url, customers) as gateway:
        gateway.greet(SERVERS)
        return _load(f"odingw, {state}", gateway.port, gateway.pid, tokens, options)


def _naive(name: str, arguments: tuple[str, ...], tokens: Path, options: Options) -> Row:
    port = free_port()
    with module("benchmarks.naive", str(port), *arguments, port=port) as pid:
        return _load(name, port, pid, tokens, options)


def _load(name: str, port: int, pid: int, tokens: Path, options: Options) -> Row:
    """Measure a server that is running; first see that it answers with tokens."""
    lines = tokens.read_text("ascii").split()
    with Connection(port) as connection:
        for token in lines[:: len(lines) // _CHECKED]:
            connection.ask(post("/", CONNECT, token), b'"token"')
    url = f"http://127.0.0.1:{port}"
    wrk(url, tokens, "connect", CONNECTIONS, _WARM_UP)
    with measured(pid) as used:
        load = wrk(url, tokens, "connect", CONNECTIONS, options.seconds)
    return name, used.cpu / load.requests * 1e6, load, resident(pid)
