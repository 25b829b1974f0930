"""Real ``twistd odingw`` processes that may be killed and started again on the same state."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from benchmarks.faults.client import HOST, Outcome, Pool, get
from tests.forks import Fork
from tests.process import BIN, CONSENT, MASTER_KEY, customer, free_port

LONGEST_STEP: Final = 20.0
"""Milliseconds for which a store may hold the reactor up."""

START_TIME: Final = 120.0
"""Seconds that a start or an end may take: other programs may need the machine more."""

_SEVERE: Final = re.compile(r"^\S+ (error|critical) ")
REPORT_INTERVAL: Final = 1.0


class Folder:
    """A temporary folder for gateways and what they keep."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="odingw-faults-"))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Gateway:
    """A gateway with ports of its own.

    Args:
        folder: where its files go.
        state: the state URL.
        name: tells it from others in the folder.
        port: its public port; 0: any that is free.
        listen: TOML lines for ``[listen]``.
        before: further TOML tables.
        customers: TOML of the customers.
        scheme: the kind of its public endpoint, ``tcp`` or ``ssl``.
        disable_timeout: of silent servers, seconds.
        limits: TOML lines for ``[limits]``.
        command: what starts the program, if not the system: ``prlimit …``, ``nsenter …``.
        environment: further variables.
    """

    def __init__(
        self,
        folder: Path,
        state: str,
        *,
        name: str = "gateway",
        port: int = 0,
        listen: str = "",
        before: str = "",
        customers: str = "",
        scheme: str = "tcp",
        disable_timeout: float = 10.0,
        limits: str = "",
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment or {})
        self.folder = folder
        self.name = name
        self.port, self.admin = port or free_port(), free_port()
        self.process: Fork | subprocess.Popen[bytes] | None = None
        self.log = folder / f"{name}.log"
        self.cores: set[int] | None = None
        self._config = folder / f"{name}.toml"
        self._config.write_text(
            f'[listen]\npublic = ["{scheme}:{self.port}:interface={HOST}"]\n'
            f'admin = ["tcp:{self.admin}:interface={HOST}"]\n{listen}\n'
            f'[state]\nurl = "{state}"\n{before}\n[limits]\nqueued_tasks = 50000\n{limits}\n'
            f'[gateway]\nmaster_key = "{MASTER_KEY}"\n{CONSENT}'
            f"report_interval = {REPORT_INTERVAL}\n"
            f"disable_timeout = {disable_timeout}\nbans_per_customer = 1000000\n"
            f"{customers or customer()}"
        )

    def spawn(self) -> Self:
        """Start the process."""
        arguments = ("-n", "--pidfile=", "odingw", "--config", self._config)
        with self.log.open("ab") as log:
            if self._command or self._environment:
                self.process = subprocess.Popen(  # noqa: S603  -- the project's own program
                    [*self._command, BIN / "twistd", *arguments],
                    cwd=self.folder,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environment},
                    stdout=log,
                    stderr=log,
                )
            else:
                self.process = Fork(arguments, self.folder, stdout=log.fileno())
        if self.cores is not None:
            os.sched_setaffinity(self.process.pid, self.cores)
        return self

    async def ready(self, page: str = "/healthz") -> float:
        """Wait until a page of its admin port says 200; return for how many seconds.

        Raises:
            RuntimeError: it ended, or does not answer in time.
        """
        started = time.monotonic()
        async with Pool(self.admin, 1, timeout=5.0) as pool:
            while time.monotonic() < started + START_TIME:
                if self.process is None or self.process.poll() is not None:
                    raise RuntimeError(f"{self.name} ended:\n{self.tail()}")
                outcome = await pool.call(get(page))
                if outcome.status == 200:
                    return time.monotonic() - started
                await asyncio.sleep(0.02)
        raise RuntimeError(f"{self.name} does not answer:\n{self.tail()}")

    async def admin_page(self, path: str) -> Outcome:
        """Get a page of the admin endpoint."""
        async with Pool(self.admin, 1, timeout=60.0) as pool:
            return await pool.call(get(path))

    async def longest_step(self) -> float:
        """Return the longest time for which its store held its reactor up, in ms."""
        return await self.metric("odingw_store_longest_step_seconds") * 1000

    async def metric(self, name: str) -> float:
        """Return the value of a metric without labels, or the sum over its series."""
        page = (await self.admin_page("/metrics")).body.decode()
        values = [
            float(line.rpartition(" ")[2])
            for line in page.splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        ]
        return sum(values) if values else float("nan")

    def cpu(self) -> float:
        """Return the seconds of processor time that the process has used."""
        if self.process is None:
            return 0.0
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> int:
        """Return the memory of the process, KiB."""
        if self.process is None:
            return 0
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    async def ended(self, timeout: float = START_TIME) -> int | None:
        """Wait until the process has ended; return its status, None if it has not."""
        end = time.monotonic() + timeout
        while self.process is not None and time.monotonic() < end:
            status = self.process.poll()
            if status is not None:
                return status
            await asyncio.sleep(0.02)
        return None

    async def kill(self) -> None:
        """Kill it with -9."""
        self.send_signal(signal.SIGKILL)
        await self.ended()

    def tail(self, lines: int = 15) -> str:
        """Return the end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def errors(self) -> list[str]:
        """Return the lines of its log that tell of a bug."""
        return [
            line
            for line in self.lines()
            if "Traceback" in line or "Error:" in line or _SEVERE.match(line)
        ]

    def lines(self) -> list[str]:
        """Return the lines of its log."""
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
