"""Strangers who pipeline, read slowly or stop halfway, and what a real process holds and logs."""

import contextlib
import select
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trustme

from tests.process import GatewayProcess, customer
from tests.test_hostile_http import read_all
from tests.test_http import ProcessCase

FILE: Final = b"GET /clients/turnRestClient-2.0.0.js HTTP/1.1\r\nHost: x\r\n\r\n"
PING: Final = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
STATE: Final = b"GET /monitor/state HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST: Final = b"POST / HTTP/1.1\r\nHost: x\r\n"
PEERS: Final = 20
MOST_SENT: Final = 6_000_000
"""Bytes over one connection: more than the kernel holds of it."""

LISTEN: Final = (
    '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1", "ssl:0:interface=127.0.0.1"]\n'
    'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[state]\nurl = "memory:"\n'
    '[tls]\nprivate_key = "key"\ncertificate = "chain"\n'
)


def resident(gateway: GatewayProcess) -> int:
    """Return how many bytes of memory the process holds."""
    assert gateway.process is not None
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


class SlowReaderTests(ProcessCase):
    """What a connection costs is bounded, though its peer asks on and on and reads little."""

    def setUp(self) -> None:
        self.gateway = GatewayProcess(customer(), LISTEN)
        self.addCleanup(self.gateway.stop)
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(str(self.gateway.folder / "key"))
        issued.cert_chain_pems[0].write_to_path(str(self.gateway.folder / "chain"))
        self.gateway.start()

    def dial(self, port: int, context: ssl.SSLContext | None = None) -> socket.socket:
        wire = socket.socket()
        self.addCleanup(wire.close)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.settimeout(30)
        wire.connect(("127.0.0.1", port))
        if context is not None:
            wire = context.wrap_socket(wire, server_hostname="localhost")
            self.addCleanup(wire.close)
        wire.setblocking(False)
        return wire

    def flood(self, wires: list[socket.socket], data: bytes) -> int:
        """Send until nothing more is read, a little being read meanwhile; return the most."""
        stream = data * (1_000_000 // len(data))
        sent = dict.fromkeys(wires, 0)
        idle = 0
        while idle < 20:
            _, ready, _ = select.select([], wires, [], 0.05)
            ready = [wire for wire in ready if sent[wire] < MOST_SENT]
            idle = 0 if ready else idle + 1
            for wire in ready:
                start = sent[wire] % len(stream)
                with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
                    sent[wire] += wire.send(stream[start : start + 65536])
                with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                    wire.recv(1000)
        return max(sent.values())

    def check(
        self, port: int, data: bytes, each: int, context: ssl.SSLContext | None = None
    ) -> None:
        wires = [self.dial(port, context) for _ in range(PEERS)]
        before = resident(self.gateway)
        sent = self.flood(wires, data)
        grown = (resident(self.gateway) - before) // PEERS
        self.assertLess(grown, each, f"{data[:30]!r}: of {sent} bytes sent")
        for wire in wires:
            wire.close()
        self.assertIn(b"pong", self.gateway.request("GET", "/ping")[2])

    def test_plain(self) -> None:
        for data in (FILE, PING, PING.replace(b"GET", b"HEAD")):
            self.check(self.gateway.port, data, 400_000)
        self.check(self.gateway.admin, STATE, 400_000)

    def test_tls(self) -> None:
        port = self.tls_port()
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        for data in (FILE, PING):
            self.check(port, data, 600_000, context)

    def test_half_sent_requests(self) -> None:
        """They take about as much as has been sent of them."""
        for data in (
            POST + b"Content-Length: 65536\r\n\r\n" + b"x" * 65_000,
            b"GET / HTTP/1.1\r\n" + b"A: bcdefghijklmnopqrstuvwxyz\r\n" * 500,
            POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:\r\n" * 3_000,
        ):
            self.check_half(data)

    def check_half(self, data: bytes) -> None:
        before = resident(self.gateway)
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                wire = stack.enter_context(
                    socket.create_connection(("127.0.0.1", self.gateway.port), 30)
                )
                wire.sendall(data)
            # It has read them when it answers: it reads connections in turn.
            for _ in range(3):
                self.gateway.request("GET", "/ping")
            grown = (resident(self.gateway) - before) / 100
        self.assertLess(grown, len(data) * 1.3 + 20_000, data[:60])

    def tls_port(self) -> int:
        """Return the port that the TLS endpoint has got."""
        assert self.gateway.process is not None
        pid = self.gateway.process.pid
        inodes = {
            str(link.readlink())[8:-1]
            for link in Path(f"/proc/{pid}/fd").iterdir()
            if str(link.readlink()).startswith("socket:")
        }
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            known = (self.gateway.port, self.gateway.admin)
            if fields[3] == "0A" and fields[9] in inodes and port not in known:
                return port
        raise AssertionError("no other port")


def hostile(secret: str) -> Iterator[bytes]:
    """Yield requests that something might log, with a token in their query."""
    query = f"?jwt={secret}".encode()
    long = b"x" * 7000
    for method in (b"HEAD", b"GET", b"POST", b"OPTIONS", b"CONNECT", b"TRACE", b"BREW"):
        for path in (
            b"//turn",
            b"/turn",
            b"/\x97",
            b"/\xa9",
            b"/%97",
            b"/%2fturn",
            b"*",
            b"turn",
            b"http://x",
            b"http://@/",
            b"/" + long,
            b"/%" + long,
            b"/clients/",
            b"/metrics",
        ):
            for host in (b"Host: x\r\n", b"", b"Host: a..b\r\n", b"Host: " + long + b"\r\n"):
                yield b"%s %s HTTP/1.1\r\n%s\r\n" % (method, path + query + long, host)
    for line in (
        b"Content-Length: x",
        b"Content-Length: 999999",
        b"Transfer-Encoding: gzip",
        b"Expect: " + long,
        b"Authorization: Basic " + long,
        b"Authorization: Bearer " + long,
        b"Authorization: Basic \xff",
        b"Cookie: a=" + long,
        b"Connection: upgrade\r\nUpgrade: websocket",
        b"Origin: http://" + long,
        b"X-Forwarded-For: " + long,
        b"If-None-Match: " + long,
        b": " + long,
        b" folded " + long,
        b"\x00: x",
    ):
        for start in (b"POST /turn", b"POST /", b"HEAD /internal", b"GET /clients/"):
            yield start + query + b" HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01" + long + b"\r\n\r\n"
    yield b"GARBAGE " + query + long + b"\r\n\r\n"
    yield POST + b"Transfer-Encoding: chunked\r\n\r\nzz;" + query + b"\r\n"
    yield POST + b"Content-Length: 8000\r\n\r\n" + query + long


class LogTests(ProcessCase):
    def test_a_request_adds_little_to_the_log_and_no_query(self) -> None:
        self.gateway.request("GET", "/ping")
        logged = len(self.gateway.log.encode())
        for number, data in enumerate(hostile("secret-token")):
            with socket.create_connection(("127.0.0.1", self.gateway.port), 30) as wire:
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    wire.sendall(data)
                    wire.shutdown(socket.SHUT_WR)
                read_all(wire)
            before, logged = logged, len(self.gateway.log.encode())
            self.assertLessEqual(logged - before, 2048, (number, data[:60]))
        self.gateway.stop()
        self.assertNotIn("secret", self.gateway.log)
        self.assertNotIn("Traceback", self.gateway.log)
