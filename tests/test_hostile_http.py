"""What hostile or careless peers send, against a real process."""

import json
import socket
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.process import ACCESS_KEY, GatewayProcess, customer, report_params, token

SERVER = "sfu.test:4433"
LIVE = "disable_timeout = 3600\nremove_timeout = 7200\n"


def call_body(method: str = "Info", **params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


def request(body: bytes, *lines: str, target: str = "/") -> bytes:
    """Return a POST with these header lines as it goes over the wire."""
    head = [f"POST {target} HTTP/1.1", "Host: localhost", *lines]
    return ("\r\n".join([*head, "", ""])).encode() + body


def read_all(wire: socket.socket) -> bytes:
    """Read until the peer closes, whether cleanly or not."""
    data = b""
    try:
        while chunk := wire.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return data


class ProcessCase(SynchronousTestCase):
    """A gateway for each test: trial calls no setUpClass."""

    configuration: ClassVar[str] = customer()
    before: ClassVar[str] = ""

    def setUp(self) -> None:
        self.gateway = GatewayProcess(self.configuration, self.before).start()
        self.addCleanup(self.gateway.stop)


class ProxyLineTests(SynchronousTestCase):
    def test_case_of_the_endpoint_type_opens_nothing(self) -> None:
        """Twisted takes endpoint types in any case; what came by a PROXY line is proxied."""
        before = (
            '[listen]\npublic = ["HAProxy:tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[state]\nurl = "memory:"\n'
        )
        gateway = GatewayProcess(customer(), before).start()
        self.addCleanup(gateway.stop)
        body = call_body(
            "sfu.GridConfig", version="1.5.0", config="", public_endpoint=SERVER
        ).encode()
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as wire:
            wire.sendall(
                b"PROXY TCP4 203.0.113.9 127.0.0.1 50000 7000\r\n"
                + request(
                    body, f"Content-Length: {len(body)}", "Connection: close", target="/internal"
                )
            )
            reply = read_all(wire)
        self.assertEqual(b"HTTP/1.1 403 Forbidden", reply.partition(b"\r\n")[0])
        self.assertNotIn(b"authorization", reply.partition(b"\r\n\r\n")[2])


class ForwardedTests(ProcessCase):
    configuration = (
        '[gateway.internal]\nusers = { name = "password" }\nallow = ["127.0.0.0/8"]\n' + customer()
    )
    before = (
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{admin}:interface=127.0.0.1"]\ntrusted_proxies = ["127.0.0.1/32"]\n'
        '[state]\nurl = "memory:"\n'
    )

    def test_an_unreadable_client_address_is_not_the_proxys(self) -> None:
        """Some proxies append a port; a client from outside must not pass as the proxy itself."""
        for hop in ("203.0.113.9:4711", "[2001:db8::1]:4711", "unknown", "203.0.113.9, unknown"):
            headers = {
                "Authorization": "Basic bmFtZTpwYXNzd29yZA==",
                "X-Forwarded-For": hop,
            }
            status, _, reply = self.gateway.request("POST", "/internal", call_body(), headers)
            self.assertEqual(403, status, (hop, reply))


class RefusedRequestTests(ProcessCase):
    """What has been refused must not be carried out all the same."""

    configuration = LIVE + customer()

    def tasks(self) -> list[Any]:
        answer = self.gateway.report(SERVER, ("room", 1))
        tasks: list[Any] = answer["result"]["tasks"]
        return tasks

    def test_a_chunked_body_that_was_too_large_is_not_carried_out(self) -> None:
        self.gateway.report(SERVER, ("room", 1))
        body = json.dumps(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "RoomUpdate",
                "params": {"room_id": "room", "user_data": [66]},
            }
        ).encode()
        bearer = token("room", subject="RoomUpdate")
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=30) as wire:
            wire.sendall(
                request(
                    b"%x\r\n" % 65000 + b" " * 65000 + b"\r\n",
                    f"Authorization: Bearer {bearer}",
                    "Transfer-Encoding: chunked",
                )
                # One chunk too many, then one that would fit again, and the end.
                + b"%x\r\n" % 60000
                + b" " * 60000
                + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            )
            reply = read_all(wire)
        self.assertIn(b"413", reply.partition(b"\r\n")[0])
        self.assertEqual(1, reply.count(b"HTTP/1.1 "), reply)
        self.assertEqual([], self.tasks())

    def test_nothing_follows_a_400_while_tasks_are_under_way(self) -> None:
        self.gateway.report(SERVER, ("room", 1))
        self.gateway.manage("RoomUpdate", room_id="room", user_data=[1])
        report = json.dumps(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "sfu.Report",
                "params": report_params(SERVER, ("room", 1)),
            }
        ).encode()
        first = request(report, f"Content-Length: {len(report)}", target="/internal")
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=30) as wire:
            wire.sendall(
                first + request(b"12345", "Content-Length: 5", "Content-Length: 6", "X-More: 1")
            )
            reply = read_all(wire)
        self.assertEqual(2, reply.count(b"HTTP/1.1 "), reply)

    def test_a_request_line_that_is_none_does_not_crash_while_tasks_are_under_way(self) -> None:
        self.gateway.report(SERVER, ("room", 1))
        self.gateway.manage("RoomUpdate", room_id="room", user_data=[1])
        report = json.dumps(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "sfu.Report",
                "params": report_params(SERVER, ("room", 1)),
            }
        ).encode()
        first = request(report, f"Content-Length: {len(report)}", target="/internal")
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=30) as wire:
            wire.sendall(first + b"GARBAGE\r\n\r\n")
            reply = read_all(wire)
        self.assertEqual(2, reply.count(b"HTTP/1.1 "), reply)
        self.assertNotIn("Traceback", self.gateway.log)


class RequestFormTests(ProcessCase):
    configuration = LIVE + customer()

    def exchange(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=5) as wire:
            wire.sendall(data)
            return read_all(wire)

    def connect(self, *lines: str, target: str = "/") -> bytes:
        self.gateway.report(SERVER)
        body = call_body("Connect").encode()
        bearer = token("room", key=ACCESS_KEY)
        return self.exchange(
            request(
                body,
                f"Authorization: Bearer {bearer}",
                f"Content-Length: {len(body)}",
                *lines,
                target=target,
            )
        )

    def test_absolute_form(self) -> None:
        """A server must accept it (RFC 9112, section 3.2.2)."""
        reply = self.connect("Connection: close", target="http://localhost/")
        self.assertEqual(b"HTTP/1.1 200 OK", reply.partition(b"\r\n")[0])

    def test_close_among_other_connection_options(self) -> None:
        """The header is a list with commas, on one line or several (RFC 9110, section 7.6.1)."""
        for lines in (("Connection: close, TE",), ("Connection: TE", "Connection: close")):
            try:
                reply = self.connect(*lines)
            except TimeoutError:
                self.fail(f"{lines}: the connection stays open")
            self.assertIn(b"200 OK", reply)

    def test_a_content_length_that_no_int_holds(self) -> None:
        reply = self.exchange(request(b"", "Content-Length: " + "9" * 5000))
        self.assertIn(reply.partition(b"\r\n")[0][9:12], (b"400", b"413"))
        self.assertNotIn("Traceback", self.gateway.log)

    def test_a_host_that_is_no_name_is_not_our_fault(self) -> None:
        """Klein's URL map cannot be bound to such a name; nobody may fill the log with that."""
        for host in ("x" * 64, "a..b", ".".join(["x" * 60] * 5)):
            status, _, _ = self.gateway.request("GET", "/ping", headers={"Host": host})
            self.assertLess(status, 500, host)
        self.assertNotIn("Traceback", self.gateway.log)

    def test_star_is_answered_in_json(self) -> None:
        for method in ("OPTIONS", "POST"):
            reply = self.exchange(
                f"{method} * HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            head, _, body = reply.partition(b"\r\n\r\n")
            self.assertIn(b"Access-Control-Allow-Origin", head, reply)
            if method == "POST":
                self.assertIn("error", json.loads(body or b"{}"))

    def test_an_integer_may_be_written_with_a_fraction_of_zero(self) -> None:
        """JSON has one type of numbers: 1.0 is the byte 1."""
        self.gateway.report(SERVER, ("room", 1))
        answer = self.gateway.manage("RoomUpdate", room_id="room", user_data=[1.0])
        self.assertEqual({}, answer.get("result"), answer)


class AdminTests(ProcessCase):
    def test_errors_on_the_admin_endpoint_carry_no_cross_origin_headers(self) -> None:
        for method, path in (("GET", "/nix"), ("POST", "/metrics"), ("GET", "//metrics")):
            _, headers, _ = self.gateway.request(method, path, port=self.gateway.admin)
            self.assertEqual(None, headers["Access-Control-Allow-Origin"], path)

    def test_an_encoded_internal_path_is_no_path(self) -> None:
        for method, size, wanted in (("GET", 0, 404), ("POST", 100, 404), ("POST", 100_000, 413)):
            status, headers, _ = self.gateway.request(method, "/%69nternal", b" " * size or None)
            self.assertEqual(wanted, status, "the limit of reports does not hold here")
            self.assertEqual("*", headers["Access-Control-Allow-Origin"], "as anywhere else")


class LogTests(ProcessCase):
    configuration = LIVE + customer()

    def test_a_servers_version_cannot_forge_a_log_line(self) -> None:
        params = report_params(SERVER)
        params["version"] = "1\n2026-01-01T00:00:00.000Z error    forged"
        self.gateway.call("sfu.Report", params, path="/internal")
        self.gateway.request("GET", "/ping")
        self.assertFalse(
            [line for line in self.gateway.log.splitlines() if line.startswith("2026-01-01T00")]
        )
