"""The HTTP side, against a real process: statuses, headers, bodies, guards, limits."""

import atexit
import contextlib
import json
import socket
from base64 import b64encode
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from odingw.tokens import AccessKey
from tests.process import GatewayProcess, customer, report_params, token

SERVER = "sfu.test:4433"
ACCESS_KEY_2 = AccessKey.generate(lambda count: b"2" * count)


def call_body(method: str = "Info", **params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


_shared: dict[str, Any] = {}


@atexit.register
def stop_shared() -> None:
    """Stop the gateway that the tests of a class share."""
    gateway = _shared.pop("gateway", None)
    if gateway is not None:
        gateway.stop()


class ProcessCase(SynchronousTestCase):
    """Tests that share a gateway."""

    configuration: ClassVar[str] = customer()
    before: ClassVar[str] = ""
    gateway: GatewayProcess

    def setUp(self) -> None:
        # Trial has no setUpClass: the gateway of a class runs until another class needs one.
        if _shared.get("class") is not type(self):
            stop_shared()
            _shared["gateway"] = GatewayProcess(self.configuration, self.before).start()
            _shared["class"] = type(self)
        self.gateway = _shared["gateway"]

    def check_error(
        self,
        expected: tuple[int, int],
        method: str,
        path: str,
        body: str | bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        cors: bool = True,
    ) -> dict[str, Any]:
        """Send a request that is refused; every refusal has a JSON body and the right headers."""
        status, got, reply = self.gateway.request(method, path, body, headers)
        answer: dict[str, Any] = json.loads(reply)
        self.assertEqual(expected, (status, answer["error"]["code"]), answer)
        self.assertEqual("application/json", got["Content-Type"])
        self.assertEqual("*" if cors else None, got["Access-Control-Allow-Origin"])
        self.assertEqual("no-store", got["Cache-Control"])
        error: dict[str, Any] = answer["error"]
        return error


class ErrorTests(ProcessCase):
    def test_every_refusal_is_json_with_the_right_headers(self) -> None:
        bearer = {"Authorization": f"Bearer {token('room')}"}
        no_subject = {"Authorization": f"Bearer {token('room', subject=[])}"}
        for expected, method, path, body, headers in (
            ((400, -32700), "POST", "/", "{", bearer),
            ((401, -32001), "POST", "/", call_body("Connect"), {}),
            ((401, -32001), "POST", "/", call_body("Connect"), {"Authorization": "Bearer x y"}),
            ((401, -32001), "POST", "/", None, {"Authorization": "Bearer " + "x" * 9000}),
            ((403, -32003), "POST", "/", call_body("Connect"), no_subject),
            ((404, -32004), "POST", "/nope", call_body(), bearer),
            ((404, -32004), "GET", "//", None, {}),
            ((404, -32004), "GET", "/%ff", None, {}),
            ((404, -32004), "GET", "/ping/", None, {}),
            ((404, -32004), "GET", "/monitor", None, {}),
            ((405, -32005), "GET", "/", None, {}),
            ((405, -32005), "DELETE", "/", None, {}),
            ((405, -32005), "BREW", "/", None, {}),
            ((405, -32005), "POST", "/ping", None, {}),
            ((413, -32013), "POST", "/", "x" * 65537, bearer),
            ((413, -32013), "POST", "/", json.dumps([1] * 51), bearer),
        ):
            self.check_error(expected, method, path, body, headers)

    def test_trailing_words_are_no_part_of_a_token(self) -> None:
        headers = {"Authorization": f"Bearer {token('room')} more"}
        self.check_error((401, -32001), "POST", "/", call_body("Connect"), headers)

    def test_405_names_the_methods_that_work(self) -> None:
        _, headers, _ = self.gateway.request("GET", "/")
        self.assertEqual("OPTIONS, POST", headers["Allow"])
        _, headers, _ = self.gateway.request("POST", "/ping")
        self.assertEqual("GET", headers["Allow"])

    def test_options_for_browsers(self) -> None:
        status, headers, body = self.gateway.request("OPTIONS", "/")
        self.assertEqual((200, b""), (status, body))
        self.assertEqual("POST, OPTIONS", headers["Access-Control-Allow-Methods"])
        self.assertEqual("Authorization,Content-Type", headers["Access-Control-Allow-Headers"])

    def test_ping(self) -> None:
        status, _, body = self.gateway.request("GET", "/ping")
        self.assertEqual((200, b"pong"), (status, body))

    def test_no_server_header_tells_versions(self) -> None:
        _, headers, _ = self.gateway.request("GET", "/ping")
        self.assertNotIn("Twisted", str(headers))

    def test_wrong_params_name_the_field(self) -> None:
        answer = self.gateway.call(
            "RoomClose", {"room_id": 1}, token=token("room", subject="RoomClose")
        )
        self.assertEqual(
            "room_id: expected text, got an integer", answer["error"]["data"]["detail"]
        )


class BodyTests(ProcessCase):
    def exchange(self, *parts: bytes) -> bytes:
        """Send bytes over a raw connection and return all that comes back until it closes."""
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=30) as raw:
            for part in parts:
                raw.sendall(part)
            raw.shutdown(socket.SHUT_WR)
            data = b""
            while chunk := raw.recv(65536):
                data += chunk
            return data

    def test_a_chunked_body_is_read(self) -> None:
        body = call_body("sfu.Report", **report_params(SERVER)).encode()
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=30) as raw:
            raw.sendall(
                b"POST /internal HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for index in range(0, len(body), 10):
                chunk = body[index : index + 10]
                raw.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            raw.sendall(b"0\r\n\r\n")
            data = b""
            while piece := raw.recv(65536):
                data += piece
        self.assertIn(b'"tasks":[]', data)

    def test_a_body_that_is_too_large_is_refused_before_it_is_read(self) -> None:
        reply = self.exchange(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        self.assertTrue(reply.startswith(b"HTTP/1.1 413 "), reply)
        self.assertIn(b'"code":-32013', reply)
        self.assertNotIn(b"100 Continue", reply)

    def test_a_chunked_body_that_grows_too_large(self) -> None:
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        reply = self.exchange(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunk,
            chunk,
        )
        self.assertTrue(reply.startswith(b"HTTP/1.1 413 "), reply)

    def test_headers_that_are_too_long(self) -> None:
        reply = self.exchange(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20000 + b"\r\n\r\n"
        )
        self.assertTrue(reply.startswith(b"HTTP/1.1 431 "), reply)
        self.assertIn(b'"code":-32031', reply)
        self.assertIn(b"16384 bytes (limits.header_bytes)", reply)

    def test_a_head_that_does_not_end(self) -> None:
        for sent, status in (
            (b"GET /" + b"x" * 40_000, b"414"),
            (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000, b"431"),
            (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000, b"431"),
        ):
            reply = self.exchange(sent)
            self.assertTrue(reply.startswith(b"HTTP/1.1 " + status), reply)
            self.assertIn(b"limits.header_bytes", reply)

    def test_a_large_report(self) -> None:
        rooms = [(f"room-{number}", 1) for number in range(20_000)]
        answer = self.gateway.report(SERVER, *rooms)
        self.assertEqual({"tasks": []}, answer["result"])
        info = self.gateway.call("Info", path="/internal")["result"]
        self.assertEqual(20_000, len(info["rooms"]))
        self.gateway.report(SERVER)


class SlowTests(ProcessCase):
    before = (
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
        "[limits]\nheader_timeout = 0.3\nidle_timeout = 1\nconnections_per_address = 3\n"
    )

    def test_a_slow_header_ends_the_connection(self) -> None:
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=30) as raw:
            raw.sendall(b"GET /ping HTTP/1.1\r\n")
            self.assertRaises(ConnectionResetError, raw.recv, 1)

    def test_an_idle_connection_is_closed(self) -> None:
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=30) as raw:
            self.assertEqual(b"", raw.recv(1))

    def test_too_many_connections(self) -> None:
        def connect() -> socket.socket:
            raw = socket.create_connection(("127.0.0.1", self.gateway.port), timeout=30)
            self.addCleanup(raw.close)
            raw.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return raw

        first = [connect() for _ in range(3)]
        for raw in first:
            self.assertIn(b"200 OK", raw.recv(65536))
        # The reset may come before the request has gone, too.
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(b"", connect().recv(1))
        for raw in first:
            raw.close()


class RateTests(ProcessCase):
    before = (
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[limits]\nrequests_per_second = 5\n'
    )

    def test_too_many_requests(self) -> None:
        statuses = []
        for _ in range(12):
            status, headers, reply = self.gateway.request("POST", "/", call_body("Connect"))
            statuses.append(status)
            if status == 429:
                self.assertGreaterEqual(int(headers["Retry-After"]), 1)
                self.assertIn("retry_after", json.loads(reply)["error"]["data"])
        self.assertIn(429, statuses)
        self.assertEqual(401, statuses[0])


class OpenInternalTests(ProcessCase):
    """``/internal`` without users: from this host alone, and not through anything."""

    def refuse(self, headers: dict[str, str]) -> str:
        error = self.check_error(
            (403, -32003), "POST", "/internal", call_body(), headers, cors=False
        )
        message: str = error["message"]
        return message

    def test_from_loopback(self) -> None:
        status, headers, _ = self.gateway.request("POST", "/internal", call_body())
        self.assertEqual((200, None), (status, headers["Access-Control-Allow-Origin"]))

    def test_traces_of_a_proxy_or_a_browser_are_refused(self) -> None:
        for header in (
            *("Origin", "Sec-Fetch-Site", "Sec-CH-UA", "Forwarded", "Via", "X-Forwarded"),
            *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-FORWARDED-FOR"),
            *("X-Original-Forwarded-For", "X-Real-IP", "X-Client-IP", "Client-IP", "Upgrade"),
            *("X-Cluster-Client-IP", "True-Client-IP", "CF-Connecting-IP", "CF-Ray", "CDN-Loop"),
            *("Fastly-Client-IP", "X-Azure-FDID", "X-Envoy-External-Address", "HTTP2-Settings"),
        ):
            self.assertIn(
                "gateway.internal.users", self.refuse({header: "http://localhost"}), header
            )

    def test_a_name_that_may_be_rebound_is_refused(self) -> None:
        self.assertIn("Host", self.refuse({"Host": "evil.example:7000"}))
        for host in ("localhost:1", "localhost.", "LOCALHOST.:7000", "127.0.0.1", "[::1]:7000"):
            status, _, _ = self.gateway.request("POST", "/internal", call_body(), {"Host": host})
            self.assertEqual(200, status, host)

    def test_the_log_says_once_what_to_configure(self) -> None:
        self.refuse({"Via": "1.1 proxy"})
        self.refuse({"Via": "1.1 proxy"})
        self.gateway.wait_for("a call of /internal was refused")
        lines = [line for line in self.gateway.log.splitlines() if "through proxies" in line]
        self.assertEqual(1, len(lines))

    def test_the_start_says_whom_it_trusts(self) -> None:
        self.assertIn(
            "is served on the public endpoints "
            f"tcp:{self.gateway.port}:interface=127.0.0.1 without users, as gateway.internal.allow "
            "says: that trusts every program at 127.0.0.0/8, ::1/128",
            self.gateway.log,
        )

    def test_the_start_says_what_a_remote_operator_must_configure(self) -> None:
        self.assertIn(
            "for ODIN servers elsewhere add their networks to gateway.internal.allow, and set "
            "gateway.internal.users",
            self.gateway.log,
        )


class ProxyLineTests(ProcessCase):
    before = (
        '[listen]\npublic = ["haproxy:tcp:{port}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
    )

    def exchange(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=30) as raw:
            raw.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 1111 2222\r\n" + request)
            data = b""
            while chunk := raw.recv(65536):
                data += chunk
            return data

    def test_internal_over_a_proxy_line_is_refused(self) -> None:
        body = call_body().encode()
        reply = self.exchange(
            b"POST /internal HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.assertTrue(reply.startswith(b"HTTP/1.1 403 "), reply)

    def test_the_client_api_is_served(self) -> None:
        reply = self.exchange(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertTrue(reply.endswith(b"pong"), reply)


class UserTests(ProcessCase):
    configuration = (
        customer() + "[gateway.internal]\n"
        'users = { all = "a:b", one = { password = "p", servers = ["one.test:*"] } }\n'
    )

    def basic(self, user: str, password: str) -> dict[str, str]:
        return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}

    def test_credentials_are_needed(self) -> None:
        for headers in ({}, self.basic("all", "b"), self.basic("nobody", "a:b")):
            self.check_error((401, -32001), "POST", "/internal", call_body(), headers, cors=False)

    def test_a_customers_token_is_no_credential(self) -> None:
        headers = {"Authorization": f"Bearer {token('room', subject='info')}"}
        self.check_error((401, -32001), "POST", "/internal", call_body(), headers, cors=False)

    def test_a_foreign_page_is_refused_even_with_credentials(self) -> None:
        headers = {**self.basic("all", "a:b"), "Origin": "https://evil.example"}
        self.check_error((403, -32003), "POST", "/internal", call_body(), headers, cors=False)

    def test_a_user_speaks_for_its_own_servers(self) -> None:
        for user, password, server, status in (
            ("all", "a:b", "two.test:1", 200),
            ("one", "p", "one.test:1", 200),
            ("one", "p", "two.test:1", 403),
        ):
            body = call_body("sfu.Report", **report_params(server))
            got, _, _ = self.gateway.request("POST", "/internal", body, self.basic(user, password))
            self.assertEqual(status, got, server)

    def test_forwarded_requests_are_taken_from_users(self) -> None:
        headers = {**self.basic("all", "a:b"), "X-Forwarded-For": "203.0.113.1"}
        status, _, _ = self.gateway.request("POST", "/internal", call_body(), headers)
        self.assertEqual(200, status)


class PoolTests(ProcessCase):
    configuration = 'pools = { available = ["eu", "us"], default = "eu" }\n' + customer()

    def test_pools_are_separate_and_the_default_has_two_names(self) -> None:
        self.gateway.report("eu.test:1", path="/eu/internal")
        self.gateway.report("us.test:1", path="/us/internal")
        for path, address in (("/", "eu.test:1"), ("/eu/", "eu.test:1"), ("/us/", "us.test:1")):
            answer = self.gateway.call("Connect", path=path, token=token("room"))
            self.assertEqual(address, answer["result"]["address"], path)
        self.assertEqual(404, self.gateway.request("POST", "/asia/", call_body())[0])
        info = self.gateway.call("Info", path="/internal")["result"]
        self.assertEqual(["eu.test:1"], [server["address"] for server in info["servers"]])


class SeparateInternalTests(ProcessCase):
    before = (
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
        'internal = ["unix:{folder}/internal.sock"]\n'
        'admin = ["tcp:{port}:interface=127.0.0.1"]\n'
    )

    def test_the_public_endpoint_has_no_internal(self) -> None:
        error = self.check_error((403, -32003), "POST", "/internal", call_body(), cors=False)
        self.assertIn("on the endpoints of listen.internal", error["message"])
        self.check_error((404, -32004), "POST", "/nosuch/internal", call_body(), cors=False)

    def test_over_a_unix_socket(self) -> None:
        for params, expected in (
            (report_params(SERVER), b'"tasks":[]'),
            ({**report_params(SERVER), "public_endpoint": None}, b"public_endpoint: needed"),
        ):
            body = call_body("sfu.Report", **params).encode()
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(self.gateway.folder / "internal.sock"))
                raw.sendall(
                    b"POST /internal HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                data = b""
                while chunk := raw.recv(65536):
                    data += chunk
            self.assertIn(expected, data)

    def test_a_shared_admin_endpoint_shows_little(self) -> None:
        for path in ("/healthz", "/readyz", "/monitor/ping", "/metrics"):
            self.assertEqual(200, self.gateway.request("GET", path)[0], path)
        for path in ("/monitor", "/monitor/state"):
            self.check_error((404, -32004), "GET", path)


class AdminTests(ProcessCase):
    before = (
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[state]\nurl = "memory:"\n'
        '[admin]\nhosts = ["Gateway", "*.svc.cluster.local"]\n'
    )

    def test_pages(self) -> None:
        pages = ("", "/state", "/threads", "/healthcheck", "/metrics", "/ping")
        for path in (*(f"/monitor{page}" for page in pages), "/metrics", "/healthz", "/readyz"):
            status, headers, body = self.gateway.request("GET", path, port=self.gateway.admin)
            self.assertEqual((200, None), (status, headers["Access-Control-Allow-Origin"]), path)
            self.assertTrue(body)

    def ask(self, path: str, **headers: str) -> int:
        status, _, _ = self.gateway.request("GET", path, headers=headers, port=self.gateway.admin)
        return status

    def test_a_rebound_name_is_refused(self) -> None:
        for path in ("/monitor/state", "/monitor/metrics", "/metrics", "/monitor"):
            for name in ("evil.example", "svc.cluster.local", "gateway2", "xsvc.cluster.local"):
                self.assertEqual(403, self.ask(path, Host=name), (path, name))

    def test_addresses_and_names_of_admin_hosts_are_answered(self) -> None:
        for name in (
            "127.0.0.1",
            "[::1]:7001",
            "LOCALHOST:7001",
            "gateway:7001",
            "odingw.voice.svc.cluster.local:7001",
            "ODINGW.voice.svc.cluster.local.",
        ):
            self.assertEqual(200, self.ask("/metrics", Host=name), name)

    def test_health_and_ping_answer_to_any_host(self) -> None:
        for path in ("/healthz", "/readyz", "/monitor/ping", "/monitor/healthcheck"):
            for name in ("10.1.2.3:7001", "pod_1", "odingw.example"):
                self.assertEqual(200, self.ask(path, Host=name), (path, name))
            self.assertEqual(400, self.ask(path, Host="a b"), path)
            self.assertEqual(403, self.ask(path, Host="a.example", Origin="http://b.example"))

    def test_a_balancer_that_speaks_http_1_0_names_no_host(self) -> None:
        for path in ("/healthz", "/readyz", "/monitor/ping", "/monitor/healthcheck"):
            with socket.create_connection(("127.0.0.1", self.gateway.admin), 10) as raw:
                raw.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                self.assertEqual(b"HTTP/1.0 200", raw.recv(12), path)

    def test_admin_is_not_on_the_public_port(self) -> None:
        self.check_error((404, -32004), "GET", "/metrics")


class LongTokenTests(ProcessCase):
    """Where more is allowed, one line may hold all of it."""

    before = (
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\nadmin = []\n'
        '[state]\nurl = "memory:"\n[limits]\nheader_bytes = 200000\ntoken = 100000\n'
    )

    def test_one_long_line(self) -> None:
        for length, said in (
            (100_000, "three segments"),
            (100_001, "100000 characters (limits.token)"),
        ):
            headers = {"Authorization": "Bearer " + "x" * length}
            status, _, reply = self.gateway.request("POST", "/", call_body("Connect"), headers)
            self.assertEqual(401, status)
            self.assertIn(said, str(reply))
        status, _, reply = self.gateway.request("GET", "/ping", headers={"X": "x" * 200_000})
        self.assertEqual(431, status)
        self.assertEqual(200, self.gateway.request("GET", "/ping?" + "x" * 199_000)[0])
        self.assertEqual(414, self.gateway.request("GET", "/ping?" + "x" * 200_000)[0])


class DemoModeTests(ProcessCase):
    configuration = (
        "unknown_customers = { max_peers = 2, max_rooms = 1, total_peers = 3 }\n" + customer()
    )

    def test_anybody_is_let_in_within_limits(self) -> None:
        self.gateway.report(SERVER)
        self.assertIn("DEMO MODE", self.gateway.log)
        keys = [AccessKey.generate(lambda count: bytes(count)), ACCESS_KEY_2]
        users = [(keys[0], "a"), (keys[0], "b"), (keys[0], "c"), (keys[1], "a"), (keys[1], "b")]
        reasons = []
        for key, user in users:
            answer = self.gateway.connect("room", user, key=key)
            reasons.append(answer.get("error", {}).get("data", {}).get("reason", "in"))
        self.assertEqual(["in", "in", "peer_limit_exceeded", "in", "peer_limit_exceeded"], reasons)
        refused = self.gateway.call(
            "RoomClose",
            {"room_id": "room"},
            token=token("room", subject=["Connect", "RoomClose"], key=keys[0]),
        )
        self.assertEqual(-32601, refused["error"]["code"])
