"""TLS: what a handshake costs, and Connect over connections that stay open."""

import ssl
import tempfile
from pathlib import Path
from typing import Final

import trustme

from benchmarks.connect import CONNECTIONS
from benchmarks.customers import ROOMS, SERVERS, TOKENS, Customers, write_tokens
from benchmarks.gateway import Gateway, address, measured, report
from benchmarks.load import Connection, post, wrk
from benchmarks.options import BenchmarkError, Options
from benchmarks.tables import Table

_HANDSHAKES: Final = 1_000
_WARM_UP: Final = 5
_ENDPOINT: Final = "ssl:{port}:interface=127.0.0.1"

KEY_TYPES: Final = {"ECDSA P-256": trustme.KeyType.ECDSA, "RSA 2048": trustme.KeyType.RSA}


def run(options: Options) -> Table:
    """Measure."""
    table = Table(
        "TLS",
        ("certificate, what", "CPU µs", "per CPU second", "per second", "p99 ms", "errors"),
    )
    customers = Customers()
    count = options.count(_HANDSHAKES)
    with tempfile.TemporaryDirectory(prefix="odingw-benchmark-") as folder:
        path = write_tokens(Path(folder) / "tokens", customers.tokens(TOKENS, ROOMS))
        for name, key_type in KEY_TYPES.items():
            gateway = Gateway("memory:", customers, endpoint=_ENDPOINT)
            context = certify(gateway, key_type)
            with gateway:
                shake(gateway, context, count // 10)
                with measured(gateway.pid) as used:
                    version = shake(gateway, context, count)
                cost = used.cpu / count
                table.add(
                    f"{name}, {version} handshake",
                    cost * 1e6,
                    1 / cost,
                    count / used.wall,
                    None,
                    "0",
                )
                with Connection(gateway.port, context) as connection:
                    for number in range(SERVERS):
                        connection.ask(post("/internal", report(address(number), [])), b'"tasks"')
                url = f"https://127.0.0.1:{gateway.port}"
                wrk(url, path, "connect", CONNECTIONS, _WARM_UP)
                with measured(gateway.pid) as used:
                    load = wrk(url, path, "connect", CONNECTIONS, options.seconds)
                cost = used.cpu / load.requests
                table.add(
                    f"{name}, Connect", cost * 1e6, 1 / cost, load.rate, load.p99, load.cell()
                )
    table.notes.append(
        "Handshake: a full one, on a connection that is opened for it and closed after it, by one "
        f"client. Connect: over {CONNECTIONS} connections that stay open."
    )
    return table


def certify(gateway: Gateway, key_type: trustme.KeyType) -> ssl.SSLContext:
    """Give a gateway a certificate, and return a client's context that trusts it."""
    authority = trustme.CA(key_type=key_type)
    leaf = authority.issue_cert("localhost", key_type=key_type)
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    (gateway.folder / "fullchain.pem").write_bytes(chain)
    leaf.private_key_pem.write_to_path(gateway.folder / "privkey.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def shake(gateway: Gateway, context: ssl.SSLContext, count: int) -> str:
    """Make full handshakes, and return the version of TLS."""
    version = ""
    for _ in range(count):
        with Connection(gateway.port, context) as connection:
            secured = connection.socket
            if not isinstance(secured, ssl.SSLSocket) or secured.session_reused:
                raise BenchmarkError("not a full handshake")
            version = secured.version() or ""
    return version
