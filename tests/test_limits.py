"""Limits of what peers may send and hold, against a real process and real sockets."""

import contextlib
import json
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme
from twisted.trial.unittest import SynchronousTestCase

from odingw.tokens import AccessKey
from tests.process import GatewayProcess, customer, token
from tests.test_hostile_http import read_all
from tests.test_http import ProcessCase, call_body

PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"GET /clients/turnRestClient-latest.js HTTP/1.1\r\nHost: x\r\n\r\n"
LISTEN = (
    '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
    'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
)
MEMORY = '[state]\nurl = "memory:"\n'
DEADLINE = 30.0
BROKEN = (ConnectionResetError, BrokenPipeError, ssl.SSLError)


def dial(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), DEADLINE, (source, 0))


def read_reply(wire: socket.socket) -> bytes:
    """Read one reply; what there is of it if the connection ends."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := wire.recv(65536):
            data += chunk
            head, end, body = data.partition(b"\r\n\r\n")
            if end:
                length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                if len(body) >= int(length or 0):
                    break
    return data


def ends(wire: socket.socket, feed: bytes, feeds: int = 2000) -> bool:
    """Send something again and again; tell whether the peer ends the connection meanwhile."""
    wire.settimeout(0.05)
    for _ in range(feeds):
        try:
            wire.sendall(feed)
            if not wire.recv(65536):
                return True
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return True
    return False


class SlowTests(ProcessCase):
    """Each byte comes in good time, and the whole never does."""

    before = LISTEN + MEMORY + "[limits]\nheader_timeout = 0.5\nbody_timeout = 0.5\n"

    def test_headers(self) -> None:
        with dial(self.gateway.port) as wire:
            wire.sendall(b"GET /ping HTTP/1.1\r\nX: ")
            self.assertTrue(ends(wire, b"x"))

    def test_a_body(self) -> None:
        for lines in (b"Content-Length: 60000", b"Transfer-Encoding: chunked"):
            with dial(self.gateway.port) as wire:
                wire.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n\r\nffff\r\n")
                self.assertTrue(ends(wire, b"x"), lines)

    def test_a_body_that_comes_in_parts_but_in_time(self) -> None:
        body = call_body("Connect").encode()
        with dial(self.gateway.port) as wire:
            for _ in range(3):
                wire.sendall(
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
                )
                wire.sendall(body[:10])
                wire.sendall(body[10:])
                self.assertIn(b" 401 ", read_reply(wire))

    def test_an_answer_that_is_not_read(self) -> None:
        """A peer that asks on and on and reads nothing is not read from any more."""
        with socket.socket() as wire, dial(self.gateway.port) as other:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.connect(("127.0.0.1", self.gateway.port))
            wire.settimeout(0.2)
            sent = 0
            with contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
                while sent < 64 << 20:
                    sent += wire.send(LARGE * 1000)
            self.assertLess(sent, 64 << 20)
            other.sendall(PING)
            self.assertIn(b"pong", read_reply(other))


class FormTests(ProcessCase):
    """Requests that are large in unusual ways."""

    before = LISTEN + MEMORY + "[limits]\nrooms_per_report = 5\nbatch = 3\n"

    def exchange(self, data: bytes) -> bytes:
        with dial(self.gateway.port) as wire:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                wire.sendall(data)
                wire.shutdown(socket.SHUT_WR)
            return read_all(wire)

    def chunked(self, data: bytes) -> bytes:
        return self.exchange(
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + data
        )

    def test_an_announced_chunk_is_refused_when_it_passes_the_limit(self) -> None:
        """Whatever it says of its size; and the refusal does not wait for its end."""
        reply = self.chunked(b"ffffffff\r\n" + b" " * 70_000)
        self.assertIn(b" 413 ", reply.partition(b"\r\n")[0])
        self.assertIn(b'"code":-32013', reply)

    def test_chunk_sizes_that_are_none(self) -> None:
        for size in (b"-1", b"0x10", b"fffffffffffffffffffffffff", b"", b" 5", b"5 5", b"+5"):
            reply = self.chunked(size + b"\r\nhello\r\n0\r\n\r\n")
            self.assertIn(reply.partition(b"\r\n")[0][9:12], (b"400", b"413", b"401", b""), size)
            self.assertNotIn(b" 200 ", reply)
        self.assertNotIn("Traceback", self.gateway.log)

    def test_a_chunk_extension_that_does_not_end(self) -> None:
        self.assertIn(b" 400 ", self.chunked(b"5;" + b"x" * 5000).partition(b"\r\n")[0])

    def test_trailers_that_do_not_end(self) -> None:
        reply = self.chunked(b"0\r\n" + b"X-Trailer: y\r\n" * 10_000)
        self.assertIn(b" 400 ", reply.partition(b"\r\n")[0])

    def test_many_headers(self) -> None:
        reply = self.exchange(b"GET /ping HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 600 + b"\r\n")
        self.assertIn(b" 400 ", reply.partition(b"\r\n")[0])

    def test_all_headers_together(self) -> None:
        line = b"X: " + b"y" * 1000 + b"\r\n"
        for count, status in ((10, b" 200 "), (20, b" 431 ")):
            reply = self.exchange(
                b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + line * count + b"\r\n"
            )
            self.assertIn(status, reply.partition(b"\r\n")[0], count)

    def test_many_requests_at_once_keep_nobody_waiting(self) -> None:
        """All of them are answered, in order, and others in between."""
        count = 3000
        with dial(self.gateway.port) as flood, dial(self.gateway.port) as other:
            flood.sendall(PING * count)
            other.sendall(PING)
            self.assertIn(b"pong", read_reply(other))
            answers = b""
            while answers.count(b"pong") < count:
                chunk = flood.recv(1 << 20)
                self.assertTrue(chunk, f"{answers.count(b'pong')} of {count}")
                answers += chunk
        self.assertEqual(count, answers.count(b"HTTP/1.1 200"))

    def test_more_rooms_than_a_report_may_name(self) -> None:
        for count, key in ((5, "result"), (6, "error")):
            answer = self.gateway.report("sfu.test:1", *((f"room-{n}", 1) for n in range(count)))
            self.assertIn(key, answer)
        self.assertEqual(-32013, answer["error"]["code"])
        info = self.gateway.call("Info", path="/internal")["result"]
        self.assertEqual(5, len(info["rooms"]), "nothing of it is taken in")

    def test_more_calls_than_a_batch_may_hold(self) -> None:
        call = json.loads(call_body("Connect"))
        bearer = {"Authorization": f"Bearer {token('room')}"}
        for count, status in ((3, 200), (4, 413)):
            body = json.dumps([call] * count)
            self.assertEqual(status, self.gateway.request("POST", "/", body, bearer)[0])

    def test_a_token_at_the_limit_and_beyond(self) -> None:
        for length, wanted in ((8192, "malformed"), (8193, "longer than 8192")):
            answer = self.gateway.call("Connect", token="x" * length)
            self.assertEqual(-32001, answer["error"]["code"], wanted)

    def test_nothing_that_callers_choose_becomes_a_metric(self) -> None:
        def series() -> set[str]:
            _, _, page = self.gateway.request("GET", "/metrics", port=self.gateway.admin)
            lines = page.decode().splitlines()
            return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

        def annoy(name: str) -> None:
            bearer = token("room", name, subject=["Connect", name])
            self.gateway.call(name, token=bearer)
            self.gateway.call("Connect", token=bearer[:-4] + "AAAA")
            header = b64encode(json.dumps({"alg": "EdDSA", "kid": name}).encode()).decode()
            self.gateway.call("Connect", token=header.rstrip("=") + "." + bearer.partition(".")[2])
            self.gateway.call(name, path="/internal")
            self.gateway.request("GET", f"/{name}", headers={"Host": name, "Origin": name})
            self.gateway.request("GET", f"/clients/{name}.js")
            self.gateway.request(name.upper(), "/")

        annoy("first")
        before = series()
        for index in range(10):
            annoy(f"name{index}")
        self.assertEqual(set(), series() - before)


class ConnectionTests(SynchronousTestCase):
    """One connection too many is cut, on endpoints of every kind, and costs no log line."""

    def start(self, endpoint: str, extra: str = "", limits: str = "connections = 3\n") -> None:
        before = (
            f'[listen]\npublic = ["{endpoint}:interface=127.0.0.1"]\n'
            f'admin = ["tcp:{{admin}}:interface=127.0.0.1"]\n{extra}{MEMORY}[limits]\n{limits}'
        )
        self.gateway = GatewayProcess(customer(), before).start()
        self.addCleanup(self.gateway.stop)

    def check(self, connect: Callable[[], socket.socket]) -> None:
        held = [connect() for _ in range(3)]
        try:
            for wire in held:
                wire.sendall(PING)
                self.assertIn(b"pong", read_reply(wire))
            with contextlib.suppress(*BROKEN), connect() as fourth:
                fourth.sendall(PING)
                self.assertEqual(b"", read_reply(fourth))
        finally:
            for wire in held:
                wire.close()
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            with contextlib.suppress(*BROKEN), connect() as again:
                again.sendall(PING)
                if b"pong" in read_reply(again):
                    break
        else:
            self.fail("it serves nobody any more")
        self.assertNotIn("Traceback", self.gateway.log)

    def test_tcp(self) -> None:
        self.start("tcp:{port}")
        self.check(lambda: dial(self.gateway.port))

    def test_behind_a_proxy(self) -> None:
        self.start("haproxy:tcp:{port}")

        def connect() -> socket.socket:
            wire = dial(self.gateway.port)
            wire.sendall(b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\n")
            return wire

        self.check(connect)

    def test_tls(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        for name, blob in (
            ("chain", certificate.cert_chain_pems[0]),
            ("key", certificate.private_key_pem),
        ):
            blob.write_to_path(str(folder / name))
        self.start(f"ssl:{{port}}:privateKey={folder}/key:certKey={folder}/chain")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        self.check(
            lambda: context.wrap_socket(dial(self.gateway.port), server_hostname="127.0.0.1")
        )


class Proxied(ProcessCase):
    """Requests over ``haproxy:``; 127.0.0.1 is the balancer, other addresses are strangers."""

    before = (
        '[listen]\npublic = ["haproxy:tcp:{port}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{admin}:interface=127.0.0.1"]\ntrusted_proxies = ["127.0.0.1/32"]\n'
        + MEMORY
        + "[limits]\nconnections_per_address = 3\nrequests_per_second = 4\n"
    )

    def status(self, line: bytes, source: str = "127.0.0.1", *headers: str) -> int:
        """Send a Connect with a header of the PROXY protocol; return the status, 0 for none."""
        body = call_body("Connect").encode()
        head = "\r\n".join(
            ["POST / HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
        )
        with dial(self.gateway.port, source) as wire:
            wire.sendall(line + head.encode() + body)
            reply = read_reply(wire)
        return int(reply[9:12] or 0)

    def statuses(self, lines: list[bytes], source: str = "127.0.0.1", *headers: str) -> set[int]:
        return {self.status(line, source, *headers) for line in lines}


def line_1(address: str) -> bytes:
    family = b"TCP6" if ":" in address else b"TCP4"
    here = b"::1" if ":" in address else b"127.0.0.1"
    return b"PROXY %s %s %s 1111 2222\r\n" % (family, address.encode(), here)


def line_2(address: str) -> bytes:
    version_6 = ":" in address
    family = socket.AF_INET6 if version_6 else socket.AF_INET
    here = socket.inet_pton(family, "::1" if version_6 else "127.0.0.1")
    addresses = socket.inet_pton(family, address) + here + b"\0\1\0\2"
    kind = b"\x21" if version_6 else b"\x11"
    length = len(addresses).to_bytes(2, "big")
    return b"\r\n\r\n\0\r\nQUIT\n\x21" + kind + length + addresses


class ProxyTests(Proxied):
    def test_clients_behind_a_balancer_are_told_apart(self) -> None:
        for line, net in ((line_1, "203.0.113"), (line_2, "198.51.100")):
            self.assertEqual({401}, self.statuses([line(f"{net}.{host}") for host in range(20)]))
            self.assertIn(429, self.statuses([line(f"{net}.99")] * 20))

    def test_an_ipv6_network_counts_as_one_client(self) -> None:
        """A household has 2^64 addresses, and may use another one each time."""
        for line, net in ((line_1, "2001:db8:0:1"), (line_2, "2001:db8:0:2")):
            self.assertIn(429, self.statuses([line(f"{net}::{host:x}") for host in range(20)]))
        self.assertEqual({401}, self.statuses([line_1(f"2001:db8:1:{net}::1") for net in range(9)]))

    def test_a_strangers_line_is_not_believed(self) -> None:
        """Whoever is no trusted proxy cannot choose an address, in no version of the protocol."""
        for line, source in ((line_1, "127.0.0.21"), (line_2, "127.0.0.22")):
            lines = [line(f"192.0.2.{host}") for host in range(20)]
            self.assertIn(429, self.statuses(lines, source))

    def test_a_line_beats_a_forwarded_header(self) -> None:
        """The balancer passes on what its client wrote, who may have written anything."""
        statuses = {
            self.status(line_1("192.0.2.77"), "127.0.0.1", f"X-Forwarded-For: 10.0.0.{host}")
            for host in range(20)
        }
        self.assertIn(429, statuses)

    def test_connections_are_counted_by_the_address_told(self) -> None:
        def hold(address: str, source: str = "127.0.0.1") -> bytes:
            try:
                wire = dial(self.gateway.port, source)
                self.addCleanup(wire.close)
                wire.sendall(line_1(address) + PING)
                return read_reply(wire)
            except (ConnectionResetError, BrokenPipeError):
                return b""

        for address in ("192.0.2.1", "192.0.2.2"):
            answers = [b"pong" in hold(address) for _ in range(5)]
            self.assertEqual([True] * 3 + [False] * 2, answers)
        # A stranger's connections count as the stranger's, whatever their lines say.
        answers = [b"pong" in hold(f"192.0.2.{9 + n}", "127.0.0.33") for n in range(5)]
        self.assertEqual([True] * 3 + [False] * 2, answers)

    def test_lines_that_are_none(self) -> None:
        """They end the connection, and leave nothing in the log."""
        version_2 = b"\r\n\r\n\0\r\nQUIT\n"
        for line in (
            PING,
            b"PROXY TCP4 203.0.113.1\r\n" + PING,
            b"PROXY TCP9 a b c d\r\n" + PING,
            b"PROXY TCP4 203.0.113.1 127.0.0.1 x y\r\n" + PING,
            b"PROXY " + b"x" * 500,
            b"PROXY \xff\xff\r\n" + PING,
            version_2 + b"\x21\x11\0\3abc" + PING,
            version_2 + b"\x21\x99\0\x0cabcdefghijkl" + PING,
            version_2 + b"\x2f\x11\0\x0cabcdefghijkl" + PING,
            version_2 + b"\x21\x31\0\3abc" + PING,
            version_2 + b"\x21\x11\xff\xff" + b"x" * 100,
        ):
            with dial(self.gateway.port) as wire:
                wire.sendall(line)
                wire.shutdown(socket.SHUT_WR)
                read_all(wire)
        self.assertIn("pong", self.get_ping())
        self.assertNotIn("Traceback", self.gateway.log)

    def get_ping(self) -> str:
        with dial(self.gateway.port) as wire:
            wire.sendall(line_1("192.0.2.250") + PING)
            return read_reply(wire).decode()


class ForwardedTests(ProcessCase):
    """``X-Forwarded-For`` counts from the right, as far as trusted proxies go."""

    before = (
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
        'trusted_proxies = ["127.0.0.1/32", "10.0.0.0/8"]\n'
        + MEMORY
        + "[limits]\nconnections_per_address = 2\nrequests_per_second = 4\n"
    )

    def statuses(self, hops: list[str], source: str = "127.0.0.1") -> set[int]:
        found = set()
        body = call_body("Connect").encode()
        for hop in hops:
            with dial(self.gateway.port, source) as wire:
                wire.sendall(
                    b"POST / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (hop.encode(), len(body), body)
                )
                found.add(int(read_reply(wire)[9:12] or 0))
        return found

    def test_what_the_trusted_proxy_appended_counts(self) -> None:
        invented = [f"198.51.100.{host}, 203.0.113.5, 10.1.1.1" for host in range(20)]
        self.assertIn(429, self.statuses(invented))
        apart = [f"198.51.100.1, 203.0.113.{100 + host}, 10.1.1.1" for host in range(20)]
        self.assertEqual({401}, self.statuses(apart))

    def test_a_strangers_header_is_not_believed(self) -> None:
        hops = [f"198.51.100.{host}" for host in range(20)]
        self.assertIn(429, self.statuses(hops, "127.0.0.44"))

    def test_a_trusted_proxys_connections_are_not_counted(self) -> None:
        wires = [dial(self.gateway.port) for _ in range(6)]
        for wire in wires:
            self.addCleanup(wire.close)
            wire.sendall(PING)
            self.assertIn(b"pong", read_reply(wire))


class KeyRateTests(ProcessCase):
    other = AccessKey.generate(lambda count: b"7" * count)
    configuration = customer() + customer("other", other)
    before = LISTEN + MEMORY + "[limits]\nrequests_per_second_per_key = 3\n"

    def test_a_key_that_calls_too_often_does_not_disturb_others(self) -> None:
        statuses: list[int] = []
        retry: Any = None
        for _ in range(15):
            status, headers, reply = self.gateway.request(
                "POST", "/", call_body("Connect"), {"Authorization": f"Bearer {token('room')}"}
            )
            statuses.append(status)
            if status == 429:
                retry = headers["Retry-After"]
                error = json.loads(reply)["error"]
                self.assertEqual(-32029, error["code"])
                self.assertEqual("*", headers["Access-Control-Allow-Origin"])
                self.assertLessEqual(error["data"]["retry_after"], int(retry))
        self.assertIn(429, statuses)
        self.assertGreaterEqual(int(retry), 1)
        bearer = {"Authorization": f"Bearer {token('room', key=self.other)}"}
        status, _, _ = self.gateway.request("POST", "/", call_body("Connect"), bearer)
        self.assertEqual(200, status)
