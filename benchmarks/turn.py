"""``/turn`` with tokens of two kinds, new ones and ones that come again."""

import base64
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.crypto import SCALED_NOTE, Pace
from benchmarks.customers import write_tokens
from benchmarks.gateway import Gateway, measured, resident
from benchmarks.load import Load, errors_cell, wrk
from benchmarks.options import Options
from benchmarks.tables import Table

_CONNECTIONS: Final = 32
_LIFETIME: Final = 86_400
_RSA_BITS: Final = 2_048
_WARM_UP: Final = 4
_ROUNDS: Final = 5
_SECONDS: Final = 3

# More than the gateway remembers, so that with new tokens each signature is verified.
_NEW: Final = 11_000
_AGAIN: Final = 1_000

Key = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def run(options: Options) -> Table:
    """Measure."""
    rounds, pace = options.count(_ROUNDS), Pace()
    table = Table(
        f"TURN credentials over {_CONNECTIONS} connections",
        ("token", "CPU µs", "scaled", "requests/s", "p50 ms", "p99 ms", "RSS MB", "errors"),
    )
    keys: dict[str, Key] = {
        "RS256": rsa.generate_private_key(65_537, _RSA_BITS),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    public = [
        base64.b64encode(
            key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).decode()
        for key in keys.values()
    ]
    turn = (
        f'[turn]\nsecret_keys = ["a benchmark\'s secret"]\npublic_keys = {json.dumps(public)}\n'
        'turn_uris = ["turn:turn.example.com", "turns:turn.example.com?transport=tcp"]\n'
        'stun_uris = ["stun:turn.example.com"]\nuser_claim = "sub"\nwatch_servers = false\n'
    )
    with tempfile.TemporaryDirectory(prefix="odingw-benchmark-") as folder:
        for algorithm, key in keys.items():
            for name, count in (("new", _NEW), ("again", _AGAIN)):
                path = write_tokens(
                    Path(folder) / f"{algorithm}-{name}", _tokens(key, algorithm, count)
                )
                with Gateway("memory:", tables=turn) as gateway:
                    url = f"http://127.0.0.1:{gateway.port}"
                    wrk(url, path, "turn", _CONNECTIONS, _WARM_UP)
                    costs, scaled, loads = list[float](), list[float](), list[Load]()
                    pace.begin()
                    for _ in range(rounds):
                        with measured(gateway.pid) as used:
                            loads.append(wrk(url, path, "turn", _CONNECTIONS, _SECONDS))
                        costs.append(used.cpu / loads[-1].requests * 1e6)
                        scaled.append(pace.scaled(costs[-1]))
                    table.add(
                        f"{algorithm}, {name}",
                        statistics.median(costs),
                        statistics.median(scaled),
                        statistics.median(load.rate for load in loads),
                        statistics.median(load.p50 for load in loads),
                        statistics.median(load.p99 for load in loads),
                        resident(gateway.pid) / 1e6,
                        errors_cell(sum(load.errors for load in loads)),
                    )
    table.notes.append(
        f"new: {_NEW:,} tokens in turn, more than the gateway remembers; again: {_AGAIN:,} tokens, "
        f"whose signatures it has verified before. The RSA key has {_RSA_BITS:,} bits."
    )
    table.notes.append(SCALED_NOTE.format(rounds=rounds))
    return table


def _tokens(key: Key, algorithm: str, count: int) -> Iterator[str]:
    now = int(time.time())
    for number in range(count):
        claims = {"sub": f"user-{number}", "iat": now, "exp": now + _LIFETIME, "scope": "turn"}
        yield jwt.encode(claims, key, algorithm, headers={"typ": "JWT"})
