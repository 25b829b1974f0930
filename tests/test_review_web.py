"""What a review of the gateway's borders found, one test for each."""

import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from base64 import b64encode
from io import StringIO
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import click
import msgspec
from prometheus_client import Gauge
from treq.testing import StubTreq
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from odingw.cli import state as cli_state
from odingw.cli.options import Address
from odingw.cli.output import emit
from odingw.cli.state import Pool, Room, State, open_session, summary
from odingw.config import CustomerSource, InternalUser, Networks, load
from odingw.config import Gateway as GatewayConfig
from odingw.config.parts import is_forgeable, is_within_reach
from odingw.customers import Customer, refresher
from odingw.errors import FORBIDDEN, TOO_MANY_REQUESTS, UNAUTHORIZED, ConfigError, RpcError
from odingw.master_key import MasterKeys
from odingw.ops import logs
from odingw.ops.metrics import Metrics
from odingw.tap import GatewayService
from odingw.turn.jwks import MOST_WAITING, JwkSet
from odingw.web import address
from odingw.web.attempts import Attempts
from odingw.web.guard import BasicUsers, InternalGuard
from odingw.web.monitor import MOST_CUSTOMERS, Monitor
from tests import grids as grid_helpers
from tests.jwk_server import reactor
from tests.process import customer
from tests.test_http import ProcessCase, call_body

UNPACK = Path(__file__).parent.parent / "packaging" / "unpack.sh"
ODD = (
    "a\x9b31m\x7f\u202eb\u2066c\u2028d\u061ce\u200ef\u200fg\u200bh\ufeffi\xadj\u180ek\u2063l"
    "\U000e0041m\U0001d173n\ue000o\u0378p\u2029q\u3000r\x85s"
)
"""A name with a terminal's command, and marks that turn and break lines."""


def asked(peer: str = "127.0.0.1", proto: bytes = b"HTTP/1.1", **headers: str) -> Any:
    """Return a request, as far as guards look at it."""
    found = Headers({"host": ["127.0.0.1:7000"]})
    for name, value in headers.items():
        found.setRawHeaders(name.replace("_", "-"), [value])
    transport = SimpleNamespace(getPeer=lambda: IPv4Address("TCP", peer, 1))
    return SimpleNamespace(transport=transport, clientproto=proto, requestHeaders=found)


def basic(user: str, password: str) -> str:
    """Return credentials."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


class TraceTests(SynchronousTestCase):
    """What shows that a request came through something, without users and with them."""

    requests: ClassVar[dict[str, Any]] = {
        "HTTP/1.0": asked(proto=b"HTTP/1.0", authorization=basic("odin", "secret")),
        "X-Real-IP": asked(x_real_ip="192.0.2.1", authorization=basic("odin", "secret")),
    }

    def guard(self, users: dict[str, InternalUser], trusted: str = "192.0.2.0/24") -> InternalGuard:
        allow = Networks.parse(("127.0.0.0/8",))
        return InternalGuard(users, allow, (ip_network(trusted),), lambda _: None)

    def test_without_users_it_is_refused(self) -> None:
        guard = self.guard({})
        self.assertIsNone(guard.check(asked(), proxied=False))
        for name, request in self.requests.items():
            error = self.assertRaises(RpcError, guard.check, request, proxied=False)
            self.assertEqual(FORBIDDEN, error.code, name)

    def test_what_the_operator_calls_a_proxy_is_one(self) -> None:
        guard = self.guard({}, "127.0.0.1/32")
        self.assertIsNone(guard.check(asked("127.0.0.2"), proxied=False))
        error = self.assertRaises(RpcError, guard.check, asked(), proxied=False)
        self.assertIn("127.0.0.1 is in listen.trusted_proxies; ", error.message)

    def test_who_is_elsewhere_is_told_to_add_its_network(self) -> None:
        for users in ({}, {"odin": InternalUser(password="secret")}):
            error = self.assertRaises(
                RpcError, self.guard(users).check, asked("10.1.2.3"), proxied=False
            )
            self.assertEqual(
                "10.1.2.3 is not in gateway.internal.allow; add its network there", error.message
            )

    def test_users_may_come_that_way(self) -> None:
        guard = self.guard({"odin": InternalUser(password="secret")})
        for request in self.requests.values():
            self.assertIsNone(guard.check(request, proxied=False))

    def test_the_address_comes_before_the_host(self) -> None:
        request = asked("192.0.2.77", host="evil.example")
        error = self.assertRaises(RpcError, self.guard({}).check, request, proxied=False)
        self.assertNotIn("Host", error.message)


class SharedPortTests(ProcessCase):
    """A gateway whose admin endpoint shares the public port."""

    before = (
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{port}:interface=127.0.0.1", "tcp:{admin}:interface=127.0.0.1"]\n'
        'trusted_proxies = ["192.0.2.1"]\n'
    )
    configuration = customer()

    def test_an_old_version_of_http_is_a_proxys(self) -> None:
        body = call_body().encode()
        for version, status in (("1.0", b" 403 "), ("1.1", b" 200 ")):
            request = (
                f"POST /internal HTTP/{version}\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=30) as raw:
                raw.sendall(request.encode() + body)
                reply = raw.recv(65536)
            self.assertIn(status, reply.partition(b"\r\n")[0], version)

    def test_readiness_gives_no_reasons_to_the_public(self) -> None:
        ready = json.loads(self.gateway.request("GET", "/readyz")[2])
        self.assertEqual({"ready": True}, ready)
        ready = json.loads(self.gateway.request("GET", "/readyz", port=self.gateway.admin)[2])
        self.assertIn("checks", ready)

    def test_top_asks_for_few_rooms(self) -> None:
        rooms = [(f"room{number}", number) for number in range(12)]
        self.gateway.report("sfu.test:4433", *rooms)
        place = Address(f"http://127.0.0.1:{self.gateway.admin}", None, 10.0, True)
        with open_session(place) as session:
            shot = summary(place, session, 3)
        self.assertEqual(12, shot.state.count_rooms())
        names = {room.id[1] for room in shot.state.all_rooms()}
        self.assertEqual({"room11", "room10", "room9"}, names)
        self.assertEqual([12], [server.rooms for server in shot.state.all_servers()])


class OldGatewayTests(SynchronousTestCase):
    def test_a_gateway_without_a_summary_is_asked_for_everything(self) -> None:
        asked_for = []

        class Session:
            def get(self, url: str, **_: object) -> Any:
                page = url.rpartition("/")[2]
                asked_for.append(page)
                found = page == "state"
                return SimpleNamespace(
                    status_code=200 if found else 404,
                    content=b'{"pools": {"": {"rooms": [{"id": ["a", "b"]}]}}}' if found else b"",
                    headers={},
                )

        session: Any = Session()
        shot = summary(Address("http://old.test", None, 1.0, True), session, 3)
        self.assertEqual(["summary", "state"], asked_for)
        self.assertEqual(1, shot.state.count_rooms())


class AtTheStartTests(SynchronousTestCase):
    """What is said at the start."""

    def warnings(self, text: str) -> str:
        file = Path(tempfile.mkdtemp()) / "odingw.toml"
        self.addCleanup(file.parent.rmdir)
        self.addCleanup(file.unlink)
        file.write_text(text)
        events: list[LogEvent] = []
        observer: Any = events.append
        service = GatewayService.__new__(GatewayService)
        service._config = load(file)
        service.keys = MasterKeys((b"key",), "a file", ())
        globalLogPublisher.addObserver(observer)
        try:
            service.explain()
        finally:
            globalLogPublisher.removeObserver(observer)
        return "\n".join(
            str(formatEvent(event)) for event in events if event["log_level"] is LogLevel.warn
        )

    def test_internal_on_endpoints_that_others_reach(self) -> None:
        users = 'internal.users = { odin = "secret" }\n'
        allow = 'internal.allow = ["127.0.0.0/8"]\n'
        for listen, gateway, warned in (
            ('public = ["tcp:7000"]', allow, True),
            ('public = ["tcp:7000:interface=127.0.0.1"]', allow, True),
            ('public = ["unix:/run/odingw.sock"]', allow, True),
            ('public = ["haproxy:tcp:7000"]', allow, False),
            ('public = ["haproxy:tcp:1", "tcp:2"]', allow, True),
            ('public = ["tcp:7000"]', 'internal.allow = ["10.0.0.0/8"]\n', True),
            ('public = ["tcp:7000"]', allow + users, False),
            ('public = ["tcp:7000"]', users, False),
            ('public = ["tcp:7000"]', "", False),
            ('public = ["tcp:7000"]\ninternal = ["tcp:7002"]', allow, False),
            ('public = ["tcp:7000"]\ninternal = ["tcp:7000"]', "", True),
        ):
            found = self.warnings(f"[listen]\n{listen}\n[gateway]\n{gateway}")
            self.assertEqual(warned, "leaves no trace" in found, (listen, gateway))

    def test_customers_over_plain_http(self) -> None:
        for url, warned in (
            ("http://customers.example/", True),
            ("HTTP://customers.example/", True),
            ("https://customers.example/", False),
            ("http://127.0.0.1:8080/", False),
        ):
            found = self.warnings(f'gateway.customer_source.url = "{url}"\n')
            self.assertEqual(warned, "PLAIN HTTP" in found, url)
            self.assertEqual(warned, is_forgeable(url))

    def test_reach(self) -> None:
        for endpoint, reached in (
            ("tcp6:7000:interface=\\:\\:1", False),
            ("tcp6:7000:interface=\\:\\:", True),
            ("ssl:443:interface=localhost", False),
            ("tcp:7000:10.0.0.1", True),
            ("systemd:domain=INET:name=odingw", True),
        ):
            self.assertEqual(reached, is_within_reach(endpoint), endpoint)


class UserNameTests(SynchronousTestCase):
    def test_the_first_colon_ends_a_name_so_none_may_hold_one(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "odingw.toml"
            for section in ("gateway.internal", "admin"):
                file.write_text(f'[{section}.users]\n"a:b" = "c"\n')
                error = self.assertRaises(ConfigError, load, file)
                self.assertIn("no colon or control character", str(error), section)


class AddressTests(SynchronousTestCase):
    def test_what_strangers_write_is_not_kept(self) -> None:
        kept = address._parse_address.cache_info().currsize
        blocks = address._block_of.cache_info().currsize
        for number in range(100):
            text = f"{number}" + "1" * 14_000
            self.assertIsNone(address.parse_address(text))
            self.assertEqual(text, address.block_of(text))
        self.assertEqual(kept, address._parse_address.cache_info().currsize)
        self.assertEqual(blocks, address._block_of.cache_info().currsize)
        longest = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%veth0123456789a"
        self.assertIsNotNone(address.parse_address(longest))


class AttemptTests(SynchronousTestCase):
    """Wrong passwords."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.counts: list[str] = []
        self.lines: list[tuple[str, str]] = []

    def users(self, rate: float) -> BasicUsers:
        attempts = Attempts(
            rate,
            (),
            self.clock.seconds,
            self.counts.append,
            lambda realm, who: self.lines.append((realm, who)),
        )
        return BasicUsers({"odin": "secret"}, "internal", attempts)

    def code(self, users: BasicUsers, password: str, host: str = "127.0.0.1") -> int:
        try:
            users.check(asked(host, authorization=basic("odin", password)))
        except RpcError as error:
            return error.code
        return 0

    def test_they_are_counted_and_logged_once_for_an_address(self) -> None:
        users = self.users(0)
        for _ in range(5):
            self.assertEqual(UNAUTHORIZED, self.code(users, "wrong"))
        self.assertRaises(RpcError, users.check, asked(authorization="Basic ?"))
        self.assertRaises(RpcError, users.check, asked())
        self.assertEqual(0, self.code(users, "secret"))
        self.assertEqual(["internal"] * 6, self.counts, "none at all is no attempt")
        self.assertEqual([("internal", "127.0.0.1")], self.lines)
        self.clock.advance(600)
        self.code(users, "wrong")
        self.assertEqual(2, len(self.lines))

    def test_lines_are_few_however_many_addresses_there_are(self) -> None:
        users = self.users(0)
        for number in range(300):
            self.code(users, "wrong", f"10.0.{number // 256}.{number % 256}")
        self.assertEqual((300, 100), (len(self.counts), len(self.lines)))

    def test_too_many_are_not_looked_at(self) -> None:
        users = self.users(2)
        for _ in range(10):
            self.assertEqual(0, self.code(users, "secret"), "right ones do not count")
        codes = [self.code(users, "wrong") for _ in range(3)]
        self.assertEqual([UNAUTHORIZED, UNAUTHORIZED, TOO_MANY_REQUESTS], codes)
        self.assertEqual(TOO_MANY_REQUESTS, self.code(users, "secret"))
        self.assertEqual(0, self.code(users, "secret", "127.0.0.2"))
        self.clock.advance(0.5)
        self.assertEqual(0, self.code(users, "secret"))


class GuessingTests(ProcessCase):
    """The same in a gateway."""

    configuration = '[gateway.internal.users]\nodin = "secret"\n[admin.users]\nops = "secret"\n'

    def test_the_metric_and_the_log(self) -> None:
        wrong = {"Authorization": basic("odin", "wrong")}
        right = {"Authorization": basic("ops", "secret")}
        port = self.gateway.admin
        self.assertEqual(401, self.gateway.request("POST", "/internal", call_body(), wrong)[0])
        self.assertEqual(401, self.gateway.request("GET", "/metrics", headers=wrong, port=port)[0])
        page = self.gateway.request("GET", "/metrics", headers=right, port=port)[2].decode()
        for realm in ("internal", "admin"):
            self.assertIn(f'odingw_basic_auth_refused_total{{realm="{realm}"}} 1.0', page)
            self.gateway.wait_for(f"wrong {realm} credentials from 127.0.0.1")


class EscapeTests(SynchronousTestCase):
    """Names that strangers chose, on terminals."""

    def line(self, form: str, **more: object) -> str:
        file = StringIO()
        event: LogEvent = {
            "log_time": 0.0,
            "log_level": LogLevel.info,
            "log_namespace": "test",
            "log_format": "room {odingw_room}",
            "odingw_room": ODD + "\ud800",
            **more,
        }
        observer: Any = logs.observer(file, "info", form)
        observer(event)
        return file.getvalue()

    def check(self, text: str) -> None:
        self.assertEqual([], [char for char in text if not char.isprintable() and char != "\n"])

    def test_log_lines(self) -> None:
        for form in ("json", "pretty"):
            line = self.line(form)
            self.check(line)
            self.assertEqual(1, line.count("\n"))
        self.assertEqual(ODD + "\ud800", json.loads(self.line("json"))["room"])

    def test_tracebacks(self) -> None:
        failure = Failure(ValueError(ODD + "\x1b[2J"))
        line = self.line("pretty", log_failure=failure)
        self.check(line)
        self.assertNotIn("\x1b", line)
        self.assertIn("ValueError: a\\x9b31m", line)

    def test_json_of_the_command(self) -> None:
        printed: list[str] = []
        self.patch(click, "echo", printed.append)
        emit({"room": ODD})
        self.check(printed[0])
        self.assertEqual({"room": ODD}, json.loads(printed[0]))

    def test_completion_offers_no_traps(self) -> None:
        names = ["lobby", "base{1}", "a b", "$(id)", "`id`", "a;b", "a\nb", "für", "sfu.test:4433"]
        rooms = [Room(id=("acme", name)) for name in names]
        known = State(pools={"": Pool(rooms=rooms)})
        self.patch(cli_state, "_known", lambda _context, rooms: known)
        nothing: Any = None
        self.assertEqual(
            ["base{1}", "lobby", "sfu.test:4433"], cli_state.complete_rooms(nothing, nothing, "")
        )


class MetricsPageTests(SynchronousTestCase):
    def test_a_large_page_is_kept_for_a_second_and_a_small_one_is_not(self) -> None:
        clock = Clock()
        metrics = Metrics(clock.seconds)
        gauge = Gauge("size", "For the test.", ("name",), registry=metrics.registry)
        gauge.labels("a").set(1)
        gauge.labels("a").set(2)
        self.assertIn(b'size{name="a"} 2.0', metrics.page("")[0])
        for number in range(5000):
            gauge.labels("x" * 60 + str(number)).set(1)
        metrics.page("")
        gauge.labels("a").set(3)
        self.assertIn(b'size{name="a"} 2.0', metrics.page("")[0])
        self.assertIn(b'size{name="a"} 3.0', metrics.page("application/openmetrics-text")[0])
        clock.advance(1)
        self.assertIn(b'size{name="a"} 3.0', metrics.page("")[0])


class SummaryTests(SynchronousTestCase):
    def test_many_customers_are_not_walked_every_second(self) -> None:
        clock, walks = Clock(), []
        licences = [Customer(f"c{number}", 5, None) for number in range(5)]

        def customers() -> list[Customer]:
            walks.append(len(licences))
            return licences

        health: Any = SimpleNamespace(results=dict)
        metrics: Any = SimpleNamespace(requests=list, credentials_issued=lambda: 0)
        store: Any = SimpleNamespace(pools=list, usage=list)
        turn: Any = SimpleNamespace(current=None, health=list)
        monitor = Monitor(
            store, metrics, health, customers, turn, clock.seconds, clock.seconds, Deferred
        )
        for _ in range(2):
            self.assertEqual(5, monitor.summary()["customer_count"])
        licences += [Customer(f"d{number}", 5, None) for number in range(2000)]
        for _ in range(3):
            found = monitor.summary()
            self.assertEqual(
                (2005, MOST_CUSTOMERS), (found["customer_count"], len(found["customers"]))
            )
        self.assertEqual([5, 5, 2005], walks)
        clock.advance(5)
        monitor.summary()
        self.assertEqual([5, 5, 2005, 2005], walks)

    def test_many_rooms_are_not_listed_in_one_step(self) -> None:
        pauses: list[Deferred[None]] = []

        def pause() -> Deferred[None]:
            pauses.append(Deferred())
            return pauses[-1]

        clock = Clock()
        health: Any = SimpleNamespace(results=dict)
        metrics: Any = SimpleNamespace(requests=list, credentials_issued=lambda: 0)
        turn: Any = SimpleNamespace(current=None, health=list)
        grids = grid_helpers.store()
        rooms = [grid_helpers.Room(("acme", f"room-{number}")) for number in range(1200)]
        grids.pool("").report(grid_helpers.report("sfu.test:4433", *rooms), 0)
        monitor = Monitor(grids, metrics, health, list, turn, clock.seconds, clock.seconds, pause)
        answer = Deferred.fromCoroutine(monitor.state())
        while not answer.called:
            pauses[-1].callback(None)
        self.assertEqual(2, len(pauses))
        state = json.loads(msgspec.json.encode(self.successResultOf(answer)))
        names = [room["id"][1] for room in state["pools"][""]["rooms"]]
        self.assertEqual([f"room-{number}" for number in range(1200)], names)


class WaitingTests(SynchronousTestCase):
    def test_not_any_number_of_tokens_waits_for_a_set(self) -> None:
        class Web(Resource):
            isLeaf = True  # noqa: N815  -- Twisted's name

            def render(self, request: Request) -> int:
                return NOT_DONE_YET

        client: Any = StubTreq(Web())
        keys = JwkSet("https://issuer.test/keys", client, Clock(), Logger("test"))
        keys.start()
        waiting = [keys.lookup() for _ in range(MOST_WAITING)]
        self.assertNotIn(None, waiting)
        self.assertIsNone(keys.lookup())
        keys.stop()
        for one in waiting:
            assert one is not None
            self.successResultOf(one)


class CustomerUrlTests(TestCase):
    """A customer list from a URL."""

    document = json.dumps([{"id": "acme", "maxPeers": 1, "maxRooms": 1, "accessKeys": []}]).encode()

    def serve(self, encoding: str, body: bytes) -> str:
        class Web(Resource):
            isLeaf = True  # noqa: N815  -- Twisted's name
            accepted: ClassVar[list[str | None]] = []

            def render(self, request: Request) -> bytes:
                self.accepted.append(request.getHeader("accept-encoding"))
                request.setHeader("content-encoding", encoding)
                return body

        self.accepted = Web.accepted
        port = reactor.listenTCP(0, Site(Web()), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}/"

    async def test_a_compressed_one_is_not_unpacked(self) -> None:
        url = self.serve("gzip", gzip.compress(self.document))
        config = GatewayConfig(customer_source=CustomerSource(url=url))
        found = refresher(config, reactor)
        self.assertFalse(await found.refresh())
        self.assertEqual(["identity"], self.accepted)

    async def test_it_is_read_in_a_thread(self) -> None:
        url = self.serve("identity", self.document)
        module = sys.modules[refresher.__module__]
        original, threads = module._usable, []

        def usable(documents: list[object]) -> object:
            threads.append(threading.current_thread())
            return original(documents)

        self.patch(module, "_usable", usable)
        found = refresher(GatewayConfig(customer_source=CustomerSource(url=url)), reactor)
        self.assertTrue(await found.refresh())
        self.assertEqual(["acme"], list(found.directory.customers))
        self.assertNotIn(threading.main_thread(), threads)
        self.assertEqual(1, len(threads))


class UnpackTests(SynchronousTestCase):
    """The shell that unpacks the one file."""

    def run_shell(self, text: str, path: str | None = None) -> str:
        functions = UNPACK.read_text().partition("\nplace=$(find_place)")[0]
        done = subprocess.run(
            ["/bin/sh", "-c", f"{functions.replace('@FILES@', '1')}\n{text}"],
            capture_output=True,
            text=True,
            check=False,
            env={} if path is None else {"PATH": path},
        )
        self.assertEqual("", done.stderr)
        return done.stdout

    def test_a_folder_where_others_may_write_is_not_used(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for mode, used in ((0o700, True), (0o755, True), (0o775, False), (0o777, False)):
                Path(folder).chmod(mode)
                found = self.run_shell(f"own '{folder}' && echo used", "/usr/bin:/bin")
                self.assertEqual("used\n" if used else "", found, oct(mode))
            # Others may write in a folder further down for all that this one says.
            Path(folder).chmod(0o700)
            (Path(folder) / "inner").mkdir()
            (Path(folder) / "inner").chmod(0o777)
            self.assertEqual("used\n", self.run_shell(f"own '{folder}' && echo used", "/bin"))

    def test_the_working_directory_is_not_in_the_path(self) -> None:
        shown = 'own() { echo "$PATH" >&3; false; }; find_place 3>&1 2>/dev/null'
        for path, wanted in (("", "/usr/bin:/bin"), ("/x", "/x:/usr/bin:/bin")):
            self.assertEqual({wanted}, set(self.run_shell(shown, path).split()))

    def test_what_belongs_to_others_is_not_complete(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "odingw"
            program.write_text("")
            program.chmod(0o755)
            self.assertEqual("yes\n", self.run_shell(f"complete '{folder}' && echo yes", "/bin"))
            if os.getuid():
                raise SkipTest("only root can give a file to somebody else")
            os.chown(program, 65534, -1)
            self.assertEqual("", self.run_shell(f"complete '{folder}' && echo yes", "/bin"))
