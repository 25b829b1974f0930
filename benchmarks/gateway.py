"""Processes to measure: started, pinned to a core, and accounted for by the kernel."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self
from unittest import SkipTest

import attrs

from benchmarks.customers import Customers
from benchmarks.load import Connection, post
from benchmarks.options import BenchmarkError, NotAvailable
from tests.process import GatewayProcess
from tests.redis_server import RedisServer

CORES: Final = sorted(os.sched_getaffinity(0))
SERVER_CORE: Final = CORES[0]
LOAD_CORE: Final = CORES[-1]

_START_TIME: Final = 60.0
_LOOK: Final = 0.05
_QUIET: Final = 0.02
_SETTLE_TIME: Final = 5.0
_CPUCLOCK_SCHED: Final = 2

# Servers stay enabled between reports, however long a benchmark takes.
_PATIENCE: Final = "disable_timeout = 36000\nremove_timeout = 72000\n"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, user and system, of all its threads.

    It is the kernel's account behind utime and stime of /proc/PID/stat, which shows it in steps of
    10 ms; the process's CPU clock (clock_getcpuclockid) shows it in nanoseconds.
    """
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def resident(pid: int) -> int:
    """Return the resident memory of a process, bytes."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise BenchmarkError(f"process {pid} is gone")


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on one core, and so does what is started meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@attrs.define
class Used:
    """What processes used while something was done.

    Attributes:
        cpu: CPU seconds, of all of them.
        wall: seconds.
    """

    cpu: float = 0.0
    wall: float = 0.0


@contextmanager
def measured(*pids: int) -> Iterator[Used]:
    """Measure what processes use, until they have finished what they were made to do."""
    used = Used()
    cpu, wall = _settled(pids), time.perf_counter()
    yield used
    used.wall = time.perf_counter() - wall
    used.cpu = _settled(pids) - cpu


def _settled(pids: tuple[int, ...]) -> float:
    """Return the CPU seconds of processes once they have come to rest."""
    end = time.monotonic() + _SETTLE_TIME
    now = sum(map(cpu_seconds, pids))
    while time.monotonic() < end:
        time.sleep(_LOOK)
        before, now = now, sum(map(cpu_seconds, pids))
        if now - before < _QUIET * _LOOK:
            break
    return now


class Gateway(GatewayProcess):
    """A ``twistd odingw`` on a core of its own.

    Args:
        state: a state URL.
        customers: who is let in.
        gateway: more TOML of the ``[gateway]`` table.
        tables: TOML of more tables.
        endpoint: the public endpoint; ``{port}`` is filled in.
        listen: more TOML of the ``[listen]`` table.
        port: to listen on; None: a free one.
        core: to run on.
    """

    def __init__(
        self,
        state: str,
        customers: Customers | None = None,
        *,
        gateway: str = "",
        tables: str = "",
        endpoint: str = "tcp:{port}:interface=127.0.0.1",
        listen: str = "",
        port: int | None = None,
        core: int = SERVER_CORE,
    ) -> None:
        source = '[gateway.customer_source]\nfile = "customers.json"\n' if customers else ""
        before = (
            f'[listen]\npublic = ["{endpoint}"]\nadmin = ["tcp:{{admin}}:interface=127.0.0.1"]\n'
            f'{listen}[state]\nurl = "{state}"\n'
        )
        text = f"{_PATIENCE}{gateway}{source}{tables}"
        super().__init__(text, before)
        if port is not None:
            self.port = port
            self.configure(text)
        self._core = core
        self._customers = customers
        self._shares = state.startswith("redis")
        if customers:
            (self.folder / "customers.json").write_bytes(customers.documents())

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop; it must end in time, and does not outlive the benchmark if it does not."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            if self.process is not None:
                self.process.kill()
                self.process.wait(_START_TIME)
            raise BenchmarkError(f"the gateway did not end on SIGTERM:\n{self.log}") from None

    @property
    def pid(self) -> int:
        """The process."""
        if self.process is None:
            raise BenchmarkError("the gateway has not been started")
        return self.process.pid

    def start(self, until: str = "has started") -> Self:
        """Start, and wait until it serves, knows its customers and shares its state.

        Raises:
            NotAvailable: it refuses the state URL.
            BenchmarkError: it does not start for another reason.
        """
        try:
            with on_core(self._core):
                super().start(until)
            if self._customers:
                self.wait_for("access keys are let in")
            if self._shares:
                self.wait_for("the state is shared by Redis")
        except AssertionError as error:
            self.stop()
            lines = [line for line in self.log.splitlines() if line and line != "<end>"]
            reason = lines[-1] if lines else str(error)
            kind = NotAvailable if "state" in reason else BenchmarkError
            raise kind(reason.removeprefix(f"odingw: {self.config}: ")) from None
        return self

    def connection(self) -> Connection:
        """Return a connection that stays open."""
        return Connection(self.port)

    def greet(self, servers: int) -> None:
        """Let servers report for the first time, without rooms."""
        with self.connection() as connection:
            for number in range(servers):
                connection.ask(post("/internal", report(address(number), [])), b'"tasks"')


def address(number: int) -> str:
    """Return the address of a server."""
    return f"sfu{number}.example:4433"


def report(server: str, rooms: list[tuple[str, int]], customer: str = "customer-0") -> bytes:
    """Return the body of a report.

    Args:
        server: whose report it is, an address.
        rooms: names and peers.
        customer: whose rooms they are.
    """
    parts = ",".join(
        f'{{"id":["{customer}","{name}"],"customer":"{customer}",'
        f'"age":{{"secs":60,"nanos":0}},"peers":{peers}}}'
        for name, peers in rooms
    )
    clients = sum(peers for _, peers in rooms)
    return (
        '{"jsonrpc":"2.0","id":1,"method":"sfu.Report","params":{'
        f'"public_endpoint":"{server}","version":"1.5.0","load":0.1,"clients":{clients},'
        f'"rooms":[{parts}]}}}}'
    ).encode()


@contextmanager
def redis() -> Iterator[RedisServer]:
    """Run a ``redis-server`` that keeps nothing, on the core of the load.

    Raises:
        NotAvailable: it is not installed.
    """
    try:
        server = RedisServer(persistent=False)
    except SkipTest as error:
        raise NotAvailable(str(error)) from None
    try:
        yield server.start()
    finally:
        server.close()


def redis_pid(server: RedisServer) -> int:
    """Return the process of a ``redis-server``."""
    lines: bytes = server.command("INFO", "server")
    return int(lines.partition(b"process_id:")[2].split()[0])


@contextmanager
def state_url(state: str) -> Iterator[str]:
    """Yield the URL that a state's short name stands for, with what it needs running.

    Raises:
        NotAvailable: what it needs is not installed.
    """
    if state == "sqlite:":
        yield "sqlite:benchmark.sqlite"
    elif state in ("redis:", "redis://"):
        with redis() as server:
            yield server.url()
    else:
        yield state


@contextmanager
def module(name: str, *arguments: str, port: int) -> Iterator[int]:
    """Run a Python module on the server's core, and yield its process id once it listens."""
    with on_core(SERVER_CORE):
        process = subprocess.Popen(  # noqa: S603  -- a module of this package
            [sys.executable, "-m", name, *arguments],
            stdout=subprocess.DEVNULL,
        )
    try:
        wait_for_port(port, process)
        yield process.pid
    finally:
        process.terminate()
        process.wait(_START_TIME)


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a process takes connections.

    Raises:
        BenchmarkError: it does not.
    """
    end = time.monotonic() + _START_TIME
    while time.monotonic() < end and process.poll() is None:
        try:
            Connection(port).close()
        except ConnectionRefusedError:
            time.sleep(_LOOK)
        else:
            return
    raise BenchmarkError(f"nothing listens on port {port}")
