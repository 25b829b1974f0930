"""How long JWK sources of every kind hold up the reactor: ``python benchmarks/jwks_reactor.py``.

Each source is asked for the keys of 1,000 tokens with unknown key ids, while a watchdog in the same
reactor measures the longest time between two of its turns. Prints a table.
"""

import contextlib
import http.server
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.logger import Logger

from odingw.turn.jwks import JwkSet
from odingw.turn.jwks_fetch import jwk_client

LOOKUPS = 1_000
SECONDS = 5.0
SOURCES = ("idle", "good", "stall", "drip", "garbage", "huge", "error", "loop")


class Source(http.server.BaseHTTPRequestHandler):
    """Answers well or badly, as the path says."""

    def do_GET(self) -> None:
        """Answer."""
        kind = self.path.strip("/")
        if kind == "stall":
            time.sleep(SECONDS * 3)
            return
        self.send_response({"error": 500, "loop": 302}.get(kind, 200))
        self.send_header("Location", self.path)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.send_body(kind)

    def send_body(self, kind: str) -> None:
        """Send what the kind of source sends."""
        if kind == "good":
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
            jwk = ECAlgorithm.to_jwk(key, as_dict=True)
            keys = [{**jwk, "kid": f"key-{number}"} for number in range(100)]
            self.wfile.write(json.dumps({"keys": keys}).encode())
        elif kind == "garbage":
            self.wfile.write(b"[" * 500_000)
        elif kind == "huge":
            for _ in range(1024):
                self.wfile.write(b" " * 2**20)
        elif kind == "drip":
            for _ in range(int(SECONDS * 30)):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(port: Any) -> None:
    """Run the sources in a process of their own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Source)
    port.value = server.server_address[1]
    server.serve_forever()


class Watchdog:
    """Measures the longest time between two turns of the reactor."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.longest = 0.0
        self._last = time.perf_counter()
        self._turn()

    def restart(self) -> None:
        """Forget what was measured."""
        self.longest, self._last = 0.0, time.perf_counter()

    def _turn(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._reactor.callLater(0.001, self._turn)


async def main(reactor: Any, write: Callable[[str], object]) -> None:
    """Ask every source and print what was measured."""
    port = multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    process.start()
    while not port.value:
        await deferLater(reactor, 0.05)
    client, watchdog = jwk_client(reactor), Watchdog(reactor)
    write(f"{'source':<10}{'lookups':>9}{'fetches':>9}{'longest step, ms':>18}\n")
    for kind in SOURCES:
        jwk_set = JwkSet(f"http://127.0.0.1:{port.value}/{kind}", client, reactor, Logger())
        watchdog.restart()
        if kind != "idle":
            jwk_set.start()
            for _ in range(LOOKUPS):
                waiting = jwk_set.lookup()
                if waiting is not None:
                    waiting.addErrback(lambda _: None)
        await deferLater(reactor, SECONDS)
        jwk_set.stop()
        fetches = jwk_set.fetches_ok + jwk_set.fetches_failed
        lookups = 0 if kind == "idle" else LOOKUPS
        write(f"{kind:<10}{lookups:>9}{fetches:>9}{watchdog.longest * 1000:>18.1f}\n")
    process.terminate()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.stdout.write)))
