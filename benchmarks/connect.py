"""Connect under load, beside the bare cryptography and a naive server.

A machine may be faster in one minute than in the next. So all servers run side by side, each is
measured for a few seconds in every round, the bare cryptography before and after each, and what is
compared was measured in the same round.
"""

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs

from benchmarks.crypto import OPENSSL, SODIUM, BareCrypto
from benchmarks.customers import KEYS, ROOMS, SERVERS, TOKENS, Customers, write_tokens
from benchmarks.gateway import Gateway, measured, module, resident, state_url
from benchmarks.load import CONNECT, Connection, Load, errors_cell, median_ratio, post, wrk
from benchmarks.options import NotAvailable, Options
from benchmarks.tables import Table
from tests.process import free_port

CONNECTIONS: Final = 32

_ROUNDS: Final = 16
_SECONDS: Final = 2
_LEAD_IN: Final = 2
_WARM_UP: Final = 4
_CHECKED: Final = 100
_NAIVE: Final = {
    "naive Klein + PyJWT + json": (),
    "the same with Klein's access log": ("--log",),
}


@attrs.define
class Server:
    """A server that runs.

    Attributes:
        name: in the table.
        port: where it listens.
        pid: its process.
        costs: CPU microseconds of a request, by round.
        ratios: the same over what libsodium needs just before and after, by round.
        loads: what wrk saw, by round.
    """

    name: str
    port: int
    pid: int
    costs: list[float] = attrs.field(factory=list)
    ratios: list[float] = attrs.field(factory=list)
    loads: list[Load] = attrs.field(factory=list)

    def warm_up(self, tokens: Path) -> None:
        """See that it answers with tokens, and let it come to full speed."""
        lines = tokens.read_text("ascii").split()
        with Connection(self.port) as connection:
            for token in lines[:: len(lines) // _CHECKED]:
                connection.ask(post("/", CONNECT, token), b'"token"')
        self._ask(tokens, _WARM_UP)

    def measure(self, tokens: Path) -> None:
        """Measure for one round.

        While others had their turn all reservations have ended, and with them the rooms, for nobody
        joins any. So the load runs for a while before it is measured, as if it had never stopped.
        """
        self._ask(tokens, _LEAD_IN)
        with measured(self.pid) as used:
            load = self._ask(tokens, _SECONDS)
        self.costs.append(used.cpu / load.requests * 1e6)
        self.loads.append(load)

    def _ask(self, tokens: Path, seconds: int) -> Load:
        return wrk(f"http://127.0.0.1:{self.port}", tokens, "connect", CONNECTIONS, seconds)


def run(options: Options) -> Table:
    """Measure."""
    rounds = options.count(_ROUNDS)
    table = Table(
        f"Connect: {TOKENS:,} tokens, {ROOMS:,} rooms, {KEYS:,} access keys, {SERVERS} servers, "
        f"{CONNECTIONS} connections; medians of {rounds} rounds",
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
    crypto, bare = BareCrypto(), list[dict[str, float]]()
    customers = Customers()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="odingw-benchmark-"))
        tokens = write_tokens(Path(folder) / "tokens", customers.tokens(TOKENS, ROOMS))
        naive = list(_naive(stack))
        servers = [*naive, *_gateways(stack, customers, options, table)]
        for server in servers:
            server.warm_up(tokens)
        bare.append(crypto.measure())
        for _ in range(rounds):
            for server in servers:
                server.measure(tokens)
                bare.append(crypto.measure())
                around = statistics.fmean(costs[SODIUM] for costs in bare[-2:])
                server.ratios.append(server.costs[-1] / around)
        memory = [resident(server.pid) / 1e6 for server in servers]
    sodium = [costs[SODIUM] for costs in bare]
    for library in (SODIUM, OPENSSL):
        costs = [each[library] for each in bare]
        table.add(
            f"bare crypto, {library}",
            statistics.median(costs),
            *[None] * 5,
            median_ratio(costs, sodium),
        )
    naive_rates = [load.rate for load in naive[0].loads]
    for server, used in zip(servers, memory, strict=True):
        rates = [load.rate for load in server.loads]
        table.add(
            server.name,
            statistics.median(server.costs),
            statistics.median(rates),
            statistics.median(load.p50 for load in server.loads),
            statistics.median(load.p99 for load in server.loads),
            used,
            errors_cell(sum(load.errors for load in server.loads)),
            statistics.median(server.ratios),
            median_ratio(rates, naive_rates),
        )
    table.notes.append(
        "Bare crypto: one Ed25519 signature verified and one made. CPU µs: user and system time of "
        "the server per request, as the kernel counts it. Every answer was looked at. All servers "
        "ran side by side and took turns, with the bare cryptography in between; the ratios are "
        "medians too, each of what was measured at the same time. In every turn the load has run "
        f"for {_LEAD_IN} s before: nearly all rooms are placed then, as they are when it does not "
        "stop. What a new room costs is in the table of growth."
    )
    return table


def _naive(stack: ExitStack) -> Iterator[Server]:
    for name, arguments in _NAIVE.items():
        port = free_port()
        pid = stack.enter_context(module("benchmarks.naive", str(port), *arguments, port=port))
        yield Server(name, port, pid)


def _gateways(
    stack: ExitStack, customers: Customers, options: Options, table: Table
) -> Iterator[Server]:
    for state in options.states:
        try:
            url = stack.enter_context(state_url(state))
            gateway = stack.enter_context(Gateway(url, customers))
            gateway.greet(SERVERS)
        except NotAvailable as error:
            table.not_available(f"odingw, {state}", str(error))
        else:
            yield Server(f"odingw, {state}", gateway.port, gateway.pid)
