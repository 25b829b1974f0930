"""Where ``/internal`` is served, to whom, and what is said where it is not."""

import signal
import socket
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import Config, load
from odingw.config.place import (
    DEFAULT_INTERNAL,
    contradiction,
    is_turn_alone,
    of_known_servers,
    served,
    trusted,
    trusts_unix_sockets,
)
from odingw.errors import FORBIDDEN, ConfigError, RpcError
from odingw.listeners import Origin, listeners
from odingw.web.elsewhere import Elsewhere
from tests import forks
from tests.process import CONSENT, GatewayProcess, customer, free_port, report_params
from tests.sim_stub import temporary_folder
from tests.terminal import odingw
from tests.test_http import ProcessCase, call_body
from tests.test_review_web import asked

TURN = '[turn]\nsecret_keys = ["a secret"]\nturn_uris = ["turn:t.example"]\nwatch_servers = false\n'
LISTEN = (
    '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
    'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
)
SERVER = "sfu.test:4433"
PUBLIC = "tcp:7000"
ADMIN = "tcp:7001:interface=127.0.0.1"


def config_of(case: SynchronousTestCase, text: str) -> Config:
    """Return the configuration that a file with this text has."""
    path = temporary_folder(case) / "odingw.toml"
    path.write_text(text)
    return load(path)


class DefaultProcess(GatewayProcess):
    """A gateway whose default endpoint for ``/internal`` has a port of its own.

    Args:
        gateway: as for ``GatewayProcess``; nothing is added.
        before: likewise.
        options: likewise.
    """

    def __init__(self, gateway: str = "", before: str = LISTEN, *options: str) -> None:
        super().__init__(gateway, f"# /internal is where it is by default.\n{before}", *options)
        self.internal = free_port()
        changed = (
            "import odingw.config.place as place\n"
            f"place.INTERNAL_PORT = {self.internal}\n"
            f'place.DEFAULT_INTERNAL = "{self.endpoint}"\n'
            "from twisted.scripts.twistd import run\nrun()\n"
        )
        self.twistd = (sys.executable, "-c", changed)

    @property
    def endpoint(self) -> str:
        """The endpoint."""
        return f"tcp:{self.internal}:interface=127.0.0.1"


class PlaceTests(SynchronousTestCase):
    """Which configuration has it where."""

    def roles(self, text: str) -> dict[str, set[str]]:
        reactor: Any = Clock()
        config = config_of(self, text)
        found = listeners(config, reactor, Origin("", Path(), frozenset()))
        return {description: entry.roles for description, entry in found.items()}

    def test_roles_of_endpoints(self) -> None:
        alone = {PUBLIC: {"public"}, ADMIN: {"admin"}}
        shared = {**alone, PUBLIC: {"public", "internal"}}
        own = {**alone, "tcp:7005": {"internal"}}
        written = 'listen.internal = ["tcp:7005"]\n'
        allow = 'gateway.internal.allow = ["10.0.0.0/8"]\n'
        users = 'gateway.internal.users = { odin = "secret" }\n'
        default = {**alone, DEFAULT_INTERNAL: {"internal"}}
        for text, wanted in (
            ("", default),
            ("listen.internal = []\ngateway.internal.allow = []\n", default),
            ("gateway.internal.server_tokens = false\n", default),
            ('gateway.internal.servers = ["a:1"]\n', default),
            ('listen.trusted_proxies = ["127.0.0.1"]\n', default),
            (allow, shared),
            ('gateway.internal.allow = ["127.0.0.0/8", "::1/128"]\n', shared),
            (users, shared),
            (allow + users, shared),
            (written, own),
            (written + allow, own),
            (written + users, own),
            (TURN, alone),
            (written + TURN, own),
            (users + TURN, shared),
            (allow + TURN, shared),
            (customer() + TURN, default),
        ):
            self.assertEqual(wanted, self.roles(text), text)

    def test_turn_alone(self) -> None:
        """Nobody could be let into a room, so no server is waited for."""
        demo = "gateway.unknown_customers = { max_peers = 1, max_rooms = 1, total_peers = 1 }\n"
        for text, alone in (
            ("", False),
            (TURN, True),
            ("[turn]\naccess_keys = true\n" + TURN.partition("\n")[2], True),
            (customer(), False),
            (customer() + TURN, False),
            ('gateway.customer_source.file = "customers.json"\n' + TURN, False),
            (demo + TURN, False),
        ):
            self.assertEqual(alone, is_turn_alone(config_of(self, text)), text)

    def test_another_endpoint_in_its_place(self) -> None:
        """It is not shared unasked, nor left to the system with ``SO_REUSEPORT``."""
        for key in ("public", "admin"):
            for endpoint, refused in (
                (DEFAULT_INTERNAL, True),
                ("tcp:7002", True),
                ("tcp:port=7002:interface=127.0.0.1", True),
                ("tcp:interface=127.0.0.1:port=7002", True),
                ("tcp:07002:interface=localhost", True),
                ("tcp:7002:interface=0.0.0.0", True),
                ("tcp6:7002", True),
                ("tcp6:7002:interface=\\\\:\\\\:ffff\\\\:127.0.0.1", True),
                ("haproxy:tcp:7002", True),
                ("tcp:7002:interface=10.0.0.1", False),
                ("tcp6:7002:interface=\\\\:\\\\:1", False),
                ("tcp:7003", False),
                ("unix:7002", False),
            ):
                text = f'listen.{key} = ["tcp:1", "{endpoint}"]\n'
                if refused:
                    error = str(self.assertRaises(ConfigError, self.roles, text))
                    self.assertIn(f"listen.{key}[1]: /internal is served on ", error, endpoint)
                    self.assertIn("listen.internal", error)
                else:
                    self.assertIn(DEFAULT_INTERNAL, self.roles(text), endpoint)
                # Where somebody says where it is, or that it is public, nothing is in the way.
                self.roles(text + 'gateway.internal.allow = ["::1"]\n')
                self.roles(text + 'listen.internal = ["tcp:5"]\n')

    def test_unix_sockets_are_on_this_host(self) -> None:
        for text, wanted in (
            ("", True),
            ('listen.internal = ["unix:x"]\ngateway.internal.allow = ["10.0.0.0/8"]\n', True),
            ('gateway.internal.allow = ["10.0.0.0/8"]\n', False),
            ('gateway.internal.allow = ["10.0.0.0/8", "127.0.0.0/8"]\n', True),
            ('gateway.internal.allow = ["::1"]\n', True),
            ('gateway.internal.allow = ["::/0"]\n', True),
            ('gateway.internal.allow = ["127.0.0.2"]\n', False),
        ):
            self.assertEqual(wanted, trusts_unix_sockets(config_of(self, text)), text)

    def test_whom_the_start_warns_of(self) -> None:
        listen = 'listen.public = ["tcp:7000", "unix:x", "haproxy:tcp:7003"]\n'
        for networks, said in (
            ('"127.0.0.0/8"', "endpoints tcp:7000, unix:x without users"),
            ('"10.0.0.0/8"', "endpoints tcp:7000 without users"),
        ):
            text = f"{listen}gateway.internal.allow = [{networks}]\n"
            self.assertIn(said, trusted(config_of(self, text)) or "", text)
        text = 'listen.public = ["unix:x"]\ngateway.internal.allow = ["10.0.0.0/8"]\n'
        self.assertIsNone(trusted(config_of(self, text)))

    def test_servers_beside_a_trusted_proxy(self) -> None:
        """They have its address, and without users what a trusted proxy sends is refused."""
        own = 'listen.internal = ["tcp:7002:interface=127.0.0.1"]\n'
        users = 'gateway.internal.users = { a = "b" }\n'
        unix = 'listen.internal = ["unix:x"]\n'
        for text, proxies, refused in (
            ("", "127.0.0.1", "127.0.0.1/32"),
            ("", "127.0.0.0/8", "127.0.0.0/8"),
            ("", "::1", "::1/128"),
            ("", "0.0.0.0/0", "0.0.0.0/0"),
            ("", "10.0.0.1", ""),
            ("", "unix", ""),
            (own, "127.0.0.1", "127.0.0.1/32"),
            (own + users, "127.0.0.1", ""),
            (users, "127.0.0.1", ""),
            (unix, "127.0.0.1", ""),
            (unix, "unix", "unix"),
            (TURN, "127.0.0.1", ""),
            ('gateway.internal.allow = ["10.0.0.0/8"]\n', "10.0.0.1", ""),
            ('gateway.internal.allow = ["10.0.0.0/8"]\n', "10.0.0.0/8", "10.0.0.0/8"),
            ('gateway.internal.allow = ["10.0.0.0/8"]\n', "127.0.0.1", ""),
            ('gateway.internal.allow = ["10.0.0.1"]\n', "10.0.0.0/8", "10.0.0.0/8"),
        ):
            found = contradiction(
                config_of(self, f'listen.trusted_proxies = ["{proxies}"]\n{text}')
            )
            self.assertEqual(bool(refused), found is not None, (text, proxies))
            self.assertIn(f"at {refused}," if refused else "", found or "")

    def test_the_start_says_where_it_is_not(self) -> None:
        for text, said in (
            ("", False),
            ('gateway.internal.users = { a = "b" }\n', True),
            ('gateway.internal.allow = ["10.0.0.0/8"]\n', True),
            ('listen.internal = ["tcp:7005"]\n', True),
            ('listen.internal = ["tcp:7002:interface=10.0.0.1"]\n', False),
        ):
            self.assertEqual(said, ", not on port 7002" in served(config_of(self, text)), text)

    def test_known_servers(self) -> None:
        """They are warned of where nobody has said that they may go on."""
        for text, said in (
            ("", "is served on tcp:7002:interface=127.0.0.1 alone"),
            (TURN, "only TURN is configured"),
            (CONSENT.replace("internal", "gateway.internal"), ""),
            ('gateway.internal.users = { a = "b" }\n', ""),
            ('listen.internal = ["tcp:7002:interface=127.0.0.1"]\n', ""),
            ('listen.internal = ["haproxy:tcp:1"]\n', "expects PROXY lines"),
            ('listen.internal = ["haproxy:tcp:1", "tcp:2"]\n', ""),
            ('listen.public = ["haproxy:tcp:1"]\ngateway.internal.allow = ["::1"]\n', "PROXY"),
            ('listen.public = ["haproxy:tcp:1"]\ngateway.internal.users = { a = "b" }\n', ""),
        ):
            config = config_of(self, text)
            self.assertIsNone(of_known_servers(config, 0))
            before = of_known_servers(config, 1, DEFAULT_INTERNAL)
            self.assertEqual(
                said in ("only TURN is configured", "expects PROXY lines", "PROXY"),
                before is not None,
                text,
            )
            for count, servers in ((1, "one ODIN server"), (3, "3 ODIN servers")):
                found = of_known_servers(config, count)
                self.assertEqual(bool(said), found is not None, text)
                self.assertIn(said, found or "")
                self.assertIn(servers if said else "", found or "")


class ElsewhereTests(SynchronousTestCase):
    """Callers of an endpoint that does not serve it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.local: list[str] = []
        self.others: list[str] = []
        self.elsewhere = Elsewhere(
            ["/internal", "/eu/internal"],
            "elsewhere",
            (),
            self.clock.seconds,
            self.local.append,
            self.others.append,
        )

    def refuse(self, request: Any, path: bytes = b"/internal", *, proxied: bool = False) -> None:
        request.path = path
        error = self.assertRaises(RpcError, self.elsewhere.check, request, proxied)
        self.assertEqual((FORBIDDEN, "elsewhere"), (error.code, error.message))

    def test_programs_on_this_host_once_a_minute(self) -> None:
        for _ in range(3):
            self.refuse(asked())
        self.clock.advance(59)
        self.refuse(asked("::1"))
        self.assertEqual(["/internal"], self.local)
        self.clock.advance(1)
        self.refuse(asked("::ffff:127.0.0.1"), b"/eu/internal")
        self.refuse(asked())
        self.assertEqual(["/internal", "/eu/internal"], self.local)
        self.assertEqual([], self.others)

    def test_a_path_that_strangers_write_is_not_repeated(self) -> None:
        self.refuse(asked(), b"/x\n/internal")
        self.assertEqual(["/internal"], self.local)

    def test_others_are_told_of_as_all_that_is_refused(self) -> None:
        self.refuse(asked("192.0.2.1"))
        self.refuse(asked(via="1.1 proxy"))
        self.refuse(asked(proto=b"HTTP/1.0"))
        self.refuse(asked(), proxied=True)
        unix = asked()
        unix.transport.getPeer = lambda: UNIXAddress(b"")
        self.refuse(unix)
        self.assertEqual((5, []), (len(self.others), self.local))


class DefaultTests(SynchronousTestCase):
    """A gateway that nobody has told anything about ``/internal``."""

    def setUp(self) -> None:
        self.gateway = DefaultProcess(
            'pools = { available = ["eu", "us"], default = "eu" }\n' + customer()
        ).start()
        self.addCleanup(self.gateway.stop)

    def test_on_its_own_endpoint_alone(self) -> None:
        gateway = self.gateway
        self.assertIn(f"listening on {gateway.endpoint} for internal", gateway.log)
        self.assertIn(f"/internal is served on {gateway.endpoint} alone", gateway.log)
        self.assertNotIn("leaves no trace", gateway.log)
        self.assertNotIn("the state knows", gateway.log)
        for path in ("/internal", "/eu/internal", "/us/internal"):
            for method in ("POST", "GET", "HEAD", "PUT", "OPTIONS"):
                status, headers, reply = gateway.request(method, path, call_body())
                self.assertEqual(
                    (403, None), (status, headers["Access-Control-Allow-Origin"]), (method, path)
                )
                if method != "HEAD":
                    for out in (str(gateway.internal), "users", "allow", "listen.internal"):
                        self.assertIn(out, reply.decode())
            status, _, _ = gateway.request("POST", path, call_body(), port=gateway.internal)
            self.assertEqual(200, status, path)
        self.assertEqual(404, gateway.request("POST", "/asia/internal", call_body())[0])
        for path in ("/internal", "/eu/internal"):
            status, _, _ = gateway.request("POST", path, call_body(), port=gateway.admin)
            self.assertEqual(404, status, "the admin endpoint has other paths")
        self.assertEqual(200, gateway.request("GET", "/ping", port=gateway.internal)[0])
        self.assertEqual(404, gateway.request("POST", "/", "{}", port=gateway.internal)[0])

    def test_nothing_that_shows_a_proxy(self) -> None:
        for header in ("Via", "Forwarded", "X-Forwarded-For", "X-Real-IP", "Origin"):
            status, _, reply = self.gateway.request(
                "POST", "/internal", call_body(), {header: "x"}, port=self.gateway.internal
            )
            self.assertEqual(403, status, header)
            self.assertIn(b"gateway.internal.users", reply)

    def test_a_server_on_this_host_is_told_both_remedies(self) -> None:
        large = call_body("sfu.Report", **report_params(SERVER), more="x" * 70_000)
        for body in (call_body(), large, call_body()):
            self.assertIn(self.gateway.request("POST", "/us/internal", body)[0], (403, 413))
        self.gateway.wait_for("a program on this host called /us/internal")
        lines = [line for line in self.gateway.log.splitlines() if "a program on this" in line]
        self.assertEqual(1, len(lines))
        for text in (
            " error ",
            f"http://127.0.0.1:{self.gateway.internal}/us/internal",
            'gateway.internal.allow = ["127.0.0.0/8"]',
            "private keys of all ODIN servers",
        ):
            self.assertIn(text, lines[0])

    def test_a_large_report_is_told_of_too(self) -> None:
        body = call_body("sfu.Report", **report_params(SERVER), more="x" * 70_000)
        status, _, _ = self.gateway.request("POST", "/internal", body)
        self.assertIn(status, (403, 413))
        self.gateway.wait_for("a program on this host called /internal")


class StartTests(SynchronousTestCase):
    def run_to_the_end(self, gateway: GatewayProcess) -> str:
        self.addCleanup(gateway.stop)
        self.assertRaises(AssertionError, gateway.start)
        assert gateway.process is not None
        self.assertEqual(1, gateway.process.wait(30))
        return gateway.log

    def test_its_port_is_taken(self) -> None:
        gateway = DefaultProcess(customer())
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", gateway.internal))
            taken.listen()
            log = self.run_to_the_end(gateway)
        self.assertIn(f"cannot listen on {gateway.endpoint}: ", log)
        self.assertIn("free the address or name another one in listen.internal", log)

    def test_several_processes_share_it(self) -> None:
        before = f"{LISTEN}reuse_port = true\n"
        one = DefaultProcess(customer(), before)
        other = DefaultProcess(customer(), before)
        other.twistd = one.twistd
        for gateway in (one, other):
            gateway.start()
            self.addCleanup(gateway.stop)
            self.assertIn(f"listening on {one.endpoint} for internal", gateway.log)

    def test_turn_alone_and_a_first_customer(self) -> None:
        gateway = DefaultProcess(TURN).start()
        self.addCleanup(gateway.stop)
        self.assertIn("/internal is not served: only TURN is configured", gateway.log)
        self.assertNotIn("no customer is configured", gateway.log)
        self.assertNotIn("for internal", gateway.log)
        status, _, reply = gateway.request("POST", "/internal", call_body())
        self.assertEqual(403, status)
        self.assertIn(b"nowhere, as only TURN is configured", reply)
        gateway.configure(customer() + TURN)
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for(f"served elsewhere ({gateway.endpoint}); that counts from the next start")

    def test_users_are_trusted(self) -> None:
        gateway = GatewayProcess('internal.users = { odin = "secret" }\n' + customer()).start()
        self.addCleanup(gateway.stop)
        self.assertIn("accepts callers from 127.0.0.0/8, ::1/128 that have a password", gateway.log)
        self.assertIn("add their networks to gateway.internal.allow", gateway.log)
        self.assertNotIn("leaves no trace", gateway.log)


class UnixTests(ProcessCase):
    """A public unix socket, behind which a proxy stands, and servers in another network."""

    before = '[listen]\npublic = ["unix:{folder}/web.sock"]\nadmin = []\n'
    configuration = 'internal.allow = ["10.0.0.0/8"]\n' + customer()

    def ask(self) -> bytes:
        body = call_body("sfu.Report", **report_params(SERVER)).encode()
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(self.gateway.folder / "web.sock"))
            raw.sendall(
                b"POST /internal HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            data = b""
            while chunk := raw.recv(65536):
                data += chunk
        return data

    def test_its_peers_are_not_those_that_are_trusted(self) -> None:
        reply = self.ask()
        self.assertTrue(reply.startswith(b"HTTP/1.1 403 "), reply)
        self.assertIn(b"gateway.internal.allow", reply)


class TrustedUnixTests(UnixTests):
    """The same where somebody trusts this host."""

    configuration = CONSENT + customer()

    def test_its_peers_are_not_those_that_are_trusted(self) -> None:
        self.assertTrue(self.ask().startswith(b"HTTP/1.1 200 "))


class KnownServerTests(SynchronousTestCase):
    """Servers that a journal knows from before, and that nobody lets report any more."""

    STATE = f'{LISTEN}[state]\nurl = "sqlite:odingw.sqlite"\n'
    SAID = "the state knows one ODIN server from before"

    def setUp(self) -> None:
        self.gateway = DefaultProcess(CONSENT + customer(), self.STATE)
        self.addCleanup(self.gateway.stop)
        self.gateway.start().report(SERVER, ("room", 1))
        # Who is sent to a new room waits until it, and all before it, is written.
        self.gateway.connect("new room")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        process = self.gateway.process
        assert process is not None
        process.send_signal(number)
        process.wait(30)
        self.gateway.wait_for("<end>")

    def restart(self, gateway: str) -> str:
        self.gateway.configure(gateway + customer())
        self.gateway._lines.clear()
        return self.gateway.start().log

    def check(self, gateway: str) -> tuple[str, str]:
        """Return what both kinds of check warn of."""
        self.gateway.configure(gateway + customer())
        folder = self.gateway.folder
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        ended = odingw("check", str(self.gateway.config))
        self.assertEqual(0, ended.status, ended)
        options: forks.Command = ["--check", "--config", self.gateway.config]
        done = forks.run(["-n", "--pidfile=", "odingw", *options], folder)
        self.assertEqual(0, done.returncode, done)
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.assertEqual(before.keys(), after.keys(), "nothing is made")
        return ended.err, done.stderr

    def warned(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.assertIn(self.SAID, text)

    def test_start_and_check_warn_and_consent_ends_it(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.end(number)
            self.warned(self.check(""))
            self.warned([self.restart("")])
            self.end()
            # Where servers may report has not changed since.
            self.assertNotIn("the state knows", self.restart(""))
            self.end()
            for text in (*self.check(CONSENT), self.restart(CONSENT)):
                self.assertNotIn("the state knows", text)

    def test_check_beside_a_gateway_that_runs(self) -> None:
        self.warned(self.check(""))
        self.gateway.report("sfu.test:2")
        self.assertIn("result", self.gateway.connect("room"))

    def test_check_of_what_is_no_journal(self) -> None:
        self.end()
        path = self.gateway.folder / "odingw.sqlite"
        for data in (b"", b"no database", path.read_bytes()[:5000]):
            path.write_bytes(data)
            for text in self.check(""):
                self.assertNotIn("the state knows", text)
        self.assertEqual([], list(Path(tempfile.gettempdir()).glob("odingw-check-*")))
