"""A burst of tokens with bad signatures: what each costs, and what good ones feel."""

import asyncio
import json
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from benchmarks.faults.alone import Alone, Steady
from benchmarks.faults.client import Outcome, Pool, post
from benchmarks.faults.findings import Findings
from tests.process import token

_BODY: Final = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "Connect", "params": {}}).encode()
_MOST: Final = 1.5
"""A refusal must not cost more than so many Connects."""


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        tokens: how many bad ones there are of each kind.
        connections: over how many connections they come.
    """

    tokens: int = 100_000
    connections: int = 64


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Send bad tokens as fast as they are answered, and good ones at a steady rate."""
    findings = Findings(f"badtokens: {plan.tokens} bad signatures", (), write)
    async with Alone() as alone:
        await alone.report()
        good = min(plan.tokens, 5000)
        cpu, seconds, _ = await _burst(alone, plan.connections, good, _good_tokens())
        cost = cpu / good
        findings.note(f"  a good Connect costs {cost * 1e6:.0f} us, {good / seconds:.0f} a second")
        before = alone.gateway.rss()
        for kind, make in (("signature", _bad_signature()), ("key id", _unknown_key())):
            async with Steady(alone) as steady:
                cpu, seconds, refused = await _burst(alone, plan.connections, plan.tokens, make)
            cpu -= cost * len(steady.seconds)
            each = cpu / plan.tokens
            findings.promise(
                f"each bad {kind} is refused (401)", refused == plan.tokens, f"{refused}"
            )
            findings.promise(
                f"a bad {kind} costs at most {_MOST:g} Connects",
                each <= _MOST * cost,
                f"{each * 1e6:.0f} us of CPU each, {plan.tokens / seconds:.0f} a second",
            )
            findings.promise(
                "no good token is starved meanwhile", not steady.failed, steady.figure()
            )
        grown = alone.gateway.rss() - before
        findings.promise(
            "bad tokens leave nothing behind",
            grown < 8192,
            f"{grown / 1024:.1f} MiB more after {2 * plan.tokens} of them",
        )
        errors = alone.gateway.errors()
        findings.promise("no error is logged", not errors, f"{len(errors)} lines {errors[:2]}")
    return findings


def _good_tokens() -> Callable[[], bytes]:
    requests = [
        post("/", _BODY, token(f"room-{index % 50}", f"user-{index}")) for index in range(500)
    ]
    state = iter(range(10**9))
    return lambda: requests[next(state) % len(requests)]


def _bad_signature() -> Callable[[], bytes]:
    """Make tokens of a known key, each of which differs, whose signatures are noise."""
    start = token("room", "user").rpartition(".")[0]

    def make() -> bytes:
        noise = urlsafe_b64encode(os.urandom(64)).rstrip(b"=").decode()
        return post("/", _BODY, f"{start}.{noise}")

    return make


def _unknown_key() -> Callable[[], bytes]:
    """Make tokens whose key nobody knows, each of another key."""
    _, payload, signature = token("room", "user").split(".")

    def make() -> bytes:
        kid = urlsafe_b64encode(os.urandom(9)).decode()
        header = json.dumps({"alg": "EdDSA", "kid": kid}).encode()
        return post("/", _BODY, f"{_base64(header)}.{payload}.{signature}")

    return make


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


async def _burst(
    alone: Alone, connections: int, count: int, make: Callable[[], bytes]
) -> tuple[float, float, int]:
    """Send requests, one after the other on each connection.

    Returns:
        The gateway's CPU seconds, how long it took, and how many were refused with 401.
    """
    refused = sent = answered = 0
    finished = asyncio.Event()
    async with Pool(alone.port, connections, timeout=30) as pool:
        await pool.connected()
        cpu, began = alone.gateway.cpu(), time.monotonic()

        def done(outcome: Outcome) -> None:
            nonlocal refused, answered
            answered += 1
            refused += outcome.status == 401
            if answered == count:
                finished.set()
            else:
                send()

        def send() -> None:
            nonlocal sent
            if sent < count:
                sent += 1
                pool.submit(make(), done)

        for _ in range(min(count, connections)):
            send()
        await finished.wait()
    return alone.gateway.cpu() - cpu, time.monotonic() - began, refused
