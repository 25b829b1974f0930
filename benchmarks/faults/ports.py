"""Two processes on one port: how evenly the kernel spreads connections over them."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trustme
from msgspec import Struct

from benchmarks.faults.client import HOST, Pool, get
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import Folder, Gateway
from benchmarks.faults.scene import until
from tests.process import free_port

COLUMNS: Final = ("endpoint", "opened", "first", "second", "share %", "answered")
_METRIC: Final = b"odingw_open_connections"


class Plan(Struct, frozen=True, kw_only=True):
    """What is tried.

    Attributes:
        connections: how many are opened.
        most: the larger share may be no more than this.
        schemes: kinds of endpoints.
    """

    connections: int = 256
    most: float = 0.6
    schemes: tuple[str, ...] = ("tcp", "ssl")


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Open connections anew and count how many each process got."""
    findings = Findings("ports: two processes with listen.reuse_port", COLUMNS, write)
    with Folder() as folder:
        for scheme in plan.schemes:
            await _try(plan, folder, scheme, findings)
    return findings


def certificate(folder: Path) -> tuple[str, ssl.SSLContext]:
    """Make a certificate; return the TOML that names it and the context that trusts it."""
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return f'[tls]\ncertificate = "{chain}"\nprivate_key = "{key}"\n', context


async def _try(plan: Plan, folder: Path, scheme: str, findings: Findings) -> None:
    before, context = certificate(folder) if scheme == "ssl" else ("", None)
    port = free_port()
    cores = sorted(os.sched_getaffinity(0))
    gateways = [
        Gateway(
            folder,
            "memory:",
            name=f"{scheme}-{index}",
            port=port,
            listen="reuse_port = true",
            before=before,
            scheme=scheme,
        )
        for index in range(2)
    ]
    for index, gateway in enumerate(gateways):
        gateway.cores = {cores[index % len(cores)]}
    try:
        for gateway in gateways:
            gateway.spawn()
        for gateway in gateways:
            await gateway.ready()
        async with Pool(port, plan.connections, context=context) as pool:
            await until(lambda: pool.connections == plan.connections, 30, "connections are open")
            answered = 0
            for _ in range(plan.connections):
                answered += (await pool.call(get("/ping"))).status == 200
            shares = [await _open_connections(gateway) for gateway in gateways]
    finally:
        for gateway in gateways:
            await gateway.kill()
    total = sum(shares)
    share = max(shares) / total if total else 1.0
    findings.row(f"{scheme}:", plan.connections, *shares, 100 * share, answered)
    findings.expect("all connections are with one of them", plan.connections - total)
    findings.expect("every connection is served", plan.connections - answered)
    if share > plan.most:
        findings.expect(f"the larger share is at most {plan.most:.0%}", [f"{share:.1%}"])


async def _open_connections(gateway: Gateway) -> int:
    """Return how many connections a gateway has, without the one that asks."""
    page = (await gateway.admin_page("/metrics")).body
    for line in page.splitlines():
        if line.startswith(_METRIC):
            return int(float(line.split()[-1])) - 1
    raise RuntimeError(f"{gateway.name}: no {_METRIC.decode()} in its metrics")
