"""The name of the customer source is not found any more, or nobody answers for names at all."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from msgspec import Struct

from benchmarks.faults.alone import Alone, Steady
from benchmarks.faults.client import HOST
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import Folder
from benchmarks.faults.namespaces import Mounts, mounts
from tests.process import ACCESS_KEY

_NAME: Final = "customers.test"
_STEP: Final = 100.0


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        seconds: for how long the name is not found, and for how long nobody answers.
    """

    seconds: float = 5.0


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Take the name of the customer source away, and give it back.

    Raises:
        SkipTest: the system lets us mount nothing.
    """
    findings = Findings(
        f"dns: the customer source has no address for {plan.seconds:g} s", (), write
    )
    with Folder() as folder, _source() as port:
        hosts, resolver = folder / "hosts", folder / "resolv.conf"
        hosts.write_text(f"{HOST} {_NAME}\n")
        # Nothing listens there, so a name that is not in the file is an error at once.
        resolver.write_text("nameserver 127.0.0.98\noptions timeout:5 attempts:2\n")
        script = 'mount --bind "$1" /etc/hosts; mount --bind "$2" /etc/resolv.conf'
        customers = f'[gateway.customer_source]\nurl = "http://{_NAME}:{port}/"\ninterval = 1\n'
        with mounts(script, str(hosts), str(resolver)) as space:
            await _lose_the_name(plan, space, customers, hosts, findings)
            await _start_without(plan, space, customers, hosts, findings)
    return findings


async def _lose_the_name(
    plan: Plan, space: Mounts, customers: str, hosts: Path, findings: Findings
) -> None:
    async with Alone(command=space.command, customers=customers) as alone:
        await alone.report()
        loaded = await _until_serves(alone, 10)
        findings.promise("customers are fetched", loaded >= 0, f"after {loaded:.1f} s")
        hosts.write_text("")
        before = await alone.gateway.metric("odingw_customer_refresh_failures_total")
        async with Steady(alone) as steady:
            await asyncio.sleep(plan.seconds)
        after = await alone.gateway.metric("odingw_customer_refresh_failures_total")
        findings.promise(
            "while the name is not found, the last good list stays",
            not steady.failed and after > before,
            f"{after - before:.0f} refreshes failed; Connects: {steady.figure()}",
        )
        with _silent_resolver() as silent:
            async with Steady(alone) as steady:
                await asyncio.sleep(plan.seconds)
        step = await alone.longest_step()
        findings.promise(
            "while name servers do not answer, nothing waits for them",
            not steady.failed and step < _STEP,
            f"{steady.figure()}; longest step of the reactor {step:.0f} ms"
            + ("" if silent else " (port 53 may not be had here: refused, not silent)"),
        )
        lines = [line for line in alone.gateway.lines() if _NAME in line or "customer" in line]
        findings.promise(
            "the log says so, a line per failure at most",
            0 < len(lines) <= after + plan.seconds + 5,
            f"{len(lines)} lines",
        )
        hosts.write_text(f"{HOST} {_NAME}\n")
        failures = -1.0
        for _ in range(300):
            now = await alone.gateway.metric("odingw_customer_refresh_age_seconds")
            if now < 1.5:
                failures = now
                break
            await asyncio.sleep(0.1)
        findings.promise(
            "when the name is back, so are refreshes",
            failures >= 0,
            "yes" if failures >= 0 else "not within 30 s",
        )
        bugs = [line for line in alone.gateway.lines() if "Traceback" in line]
        findings.promise("no traceback is logged", not bugs, len(bugs))


async def _start_without(
    plan: Plan, space: Mounts, customers: str, hosts: Path, findings: Findings
) -> None:
    hosts.write_text("")
    async with Alone(command=space.command, customers=customers) as alone:
        ready = (await alone.gateway.admin_page("/readyz")).status
        healthy = (await alone.gateway.admin_page("/healthz")).status
        await alone.report()
        findings.promise(
            "a start without the name gives a gateway that lives and is not ready",
            (healthy, ready) == (200, 503),
            f"/healthz {healthy}, /readyz {ready}, reports answered",
        )
        hosts.write_text(f"{HOST} {_NAME}\n")
        seconds = await _until_serves(alone, 30)
        findings.promise(
            "and begins to serve when the name is there", seconds >= 0, f"after {seconds:.1f} s"
        )


async def _until_serves(alone: Alone, timeout: float) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + timeout:
        if await alone.serves():
            return loop.time() - began
        await asyncio.sleep(0.1)
    return -1.0


@contextmanager
def _source() -> Iterator[int]:
    """Serve a customer; yield the port."""
    jwk = ACCESS_KEY.public_jwk()
    key = {"kid": jwk.kid, "kty": jwk.kty, "crv": jwk.crv, "x": jwk.x}
    customers = [
        {"id": "acme", "maxPeers": None, "maxRooms": None, "accessKeys": [{"publicKey": key}]}
    ]
    body = json.dumps(customers).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _silent_resolver() -> Iterator[bool]:
    """Take in queries for names and answer none; yield whether that may be done here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        bound = False
        with suppress(OSError):
            listener.bind(("127.0.0.98", 53))
            bound = True
        yield bound
