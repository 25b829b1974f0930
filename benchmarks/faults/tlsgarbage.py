"""What is no TLS at a TLS port, and handshakes that never end."""

import asyncio
import contextlib
import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from benchmarks.faults.alone import Alone, dial, reset
from benchmarks.faults.client import HOST, Pool
from benchmarks.faults.findings import Findings
from benchmarks.faults.gateways import Folder
from benchmarks.faults.ports import certificate
from benchmarks.faults.traffic import chance

_IDLE: Final = 2.0


class Plan(Struct, frozen=True, kw_only=True):
    """How hard it is.

    Attributes:
        connections: how many of each kind.
        seed: of all chance.
    """

    connections: int = 500
    seed: int = 1


async def run(plan: Plan, write: Callable[[str], object] | None = None) -> Findings:
    """Send garbage of many kinds, and good requests in between."""
    findings = Findings(f"tlsgarbage: {plan.connections} connections of each kind", (), write)
    with Folder() as folder:
        before, context = certificate(folder)
        async with Alone(scheme="ssl", before=before, limits=f"idle_timeout = {_IDLE}") as alone:
            hello = client_hello(context)
            rng = chance(plan.seed)
            served, sent = 0, 0
            for name, make in _kinds(hello, rng).items():
                began = time.monotonic()
                await asyncio.to_thread(_send, alone.port, plan.connections, make)
                sent += plan.connections
                served += await _served(alone, context)
                findings.note(f"  {name}: sent in {time.monotonic() - began:.1f} s")
            stalled = await asyncio.to_thread(_stall, alone.port, plan.connections, hello)
            served += await _served(alone, context)
            seconds = await alone.idle(_IDLE + 20)
            for wire in stalled:
                wire.close()
            served += await _served(alone, context)
            total = len(_kinds(hello, rng)) + 2
            findings.promise(
                "good requests are served in between", served == total, f"{served} of {total}"
            )
            findings.promise(
                f"handshakes that stop are closed after idle_timeout ({_IDLE:g} s)",
                seconds >= 0,
                f"{len(stalled)} stalled ones, all gone after {seconds:.1f} s",
            )
            errors = alone.gateway.errors()
            lines = len(alone.gateway.lines())
            findings.promise(
                "garbage leaves no error in the log",
                not errors,
                f"{len(errors)} lines {errors[:2]}; {lines} lines in all for {sent} connections",
            )
    return findings


def client_hello(context: ssl.SSLContext) -> bytes:
    """Return the first message of a handshake."""
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST)
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def _kinds(hello: bytes, rng: random.Random) -> dict[str, Callable[[], bytes]]:
    def flipped() -> bytes:
        data = bytearray(hello)
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)

    return {
        "noise": lambda: os.urandom(rng.randrange(1, 600)),
        "plain HTTP": lambda: b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
        "cut hellos": lambda: hello[: rng.randrange(len(hello))],
        "changed hellos": flipped,
        "noise after a hello": lambda: hello + os.urandom(200),
        "an SSL 2 hello": lambda: b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + os.urandom(35),
    }


def _send(port: int, count: int, make: Callable[[], bytes]) -> None:
    for index in range(count):
        wire = dial(port)
        with contextlib.suppress(OSError):
            wire.sendall(make())
            if index % 4 == 0:
                wire.settimeout(0.2)
                wire.recv(1000)
        if index % 2:
            reset(wire)
        else:
            wire.close()


def _stall(port: int, count: int, hello: bytes) -> list[socket.socket]:
    wires = []
    for index in range(count):
        wire = dial(port)
        wire.sendall(hello[: (index * 7) % len(hello)])
        wires.append(wire)
    return wires


async def _served(alone: Alone, context: ssl.SSLContext) -> bool:
    async with Pool(alone.port, 1, timeout=10.0, context=context) as pool:
        outcome = await pool.call(alone.caller.connect("room", "user"))
    # No server has reported, so a refusal with a reason is a good answer.
    return outcome.status == 200
