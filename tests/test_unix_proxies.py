"""A proxy on a unix socket: what it tells of its clients, and what is warned of."""

import json
import socket
from typing import Any, ClassVar

from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from odingw.config.parts import UNIX, Networks, Proxies, Trusted
from odingw.config.place import addressless, is_unix
from odingw.errors import RpcError
from odingw.web.address import UNKNOWN, client_address
from odingw.web.guard import InternalGuard
from tests.process import customer
from tests.proxies import NGINX_DEFAULTS, Nginx
from tests.test_http import ProcessCase, call_body
from tests.test_internal import config_of
from tests.test_proxies import USERS, Request, basic
from tests.test_security import from_address

_PATIENCE = 30.0


class ClientAddressTests(SynchronousTestCase):
    """Whose a request is that came over a unix socket."""

    def address(self, trusted: tuple[Trusted, ...], forwarded: str = "") -> str:
        request: Any = from_address("")
        request.getClientAddress = lambda: UNIXAddress(None)
        if forwarded:
            request.requestHeaders.setRawHeaders("x-forwarded-for", [forwarded])
        return str(client_address(request, trusted))

    def test_it_tells_nothing_unless_it_is_trusted(self) -> None:
        for trusted in ((), Networks.parse(("127.0.0.1", "0.0.0.0/0", "::/0"))):
            for forwarded in ("", "203.0.113.5", "nonsense"):
                self.assertEqual("None", self.address(trusted, forwarded))

    def test_what_it_tells_counts(self) -> None:
        trusted = Proxies.parse(("10.0.0.0/8", UNIX))
        for forwarded, address in (
            ("203.0.113.5", "203.0.113.5"),
            ("198.51.100.1, 203.0.113.5", "203.0.113.5"),
            ("198.51.100.1,203.0.113.5, 10.1.1.1", "203.0.113.5"),
            ("203.0.113.5, unix:", "203.0.113.5"),
            ("[2001:db8::1]:99", "2001:db8::1"),
            ("unknown", str(UNKNOWN)),
            ("", "127.0.0.1"),
            ("unix:", "127.0.0.1"),
        ):
            self.assertEqual(address, self.address(trusted, forwarded), forwarded)


class GuardTests(SynchronousTestCase):
    """``/internal`` without users."""

    def test_a_trusted_proxy_is_refused(self) -> None:
        allow = Networks.parse(("127.0.0.0/8",))
        for trusted in ((UNIX,), Proxies.parse(("10.0.0.0/8", UNIX))):
            guard = InternalGuard({}, allow, trusted, lambda _: None)
            self.assertIsNone(guard.check(from_address("127.0.0.1"), proxied=False))
            self.assertRaises(RpcError, guard.check, from_address(""), proxied=False)
        guard = InternalGuard({}, allow, (), lambda _: None)
        self.assertIsNone(guard.check(from_address(""), proxied=False))


class NginxTests(ProcessCase):
    """A real nginx before a unix socket."""

    before: ClassVar[str] = (
        '[listen]\npublic = ["unix:{folder}/web.sock"]\ntrusted_proxies = ["unix"]\n'
        'admin = ["unix:{folder}/admin.sock"]\n[state]\nurl = "memory:"\n'
        "[limits]\nrequests_per_second = 4\n"
    )
    configuration = f"{customer()}{USERS}allow = ['127.0.0.2', '127.0.0.5']\n"

    def setUp(self) -> None:
        super().setUp()
        self.nginx = Nginx(
            "server { listen {front}; location / {"
            f"{NGINX_DEFAULTS} proxy_set_header Host $host;"
            " proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
            f" proxy_pass http://unix:{self.gateway.folder}/web.sock:; }} }}"
        ).start()
        self.addCleanup(self.nginx.stop)

    def ask(self, request: Request, source: str) -> tuple[int, str]:
        reply = b""
        address = ("127.0.0.1", self.nginx.ports["front"])
        with socket.create_connection(address, _PATIENCE, (source, 0)) as wire:
            wire.sendall(request.http1())
            while piece := wire.recv(65536):
                reply += piece
        return int(reply[9:12]), reply.decode()

    def test_rates(self) -> None:
        call = Request(call_body("Connect").encode(), b"/")
        statuses = {self.ask(call, "127.0.0.3")[0] for _ in range(40)}
        self.assertEqual({401, 429}, statuses)
        self.assertEqual(401, self.ask(call, "127.0.0.4")[0])

    def test_wrong_passwords(self) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "sfu.GridConfig"}).encode()
        wrong = Request(body, b"/internal", b"gateway", basic("odin", "a wrong password"))
        good = Request(body, b"/internal", b"gateway", basic("odin", "a long password"))
        statuses = [self.ask(wrong, "127.0.0.5")[0] for _ in range(20)]
        self.assertEqual({401, 429}, set(statuses))
        self.assertNotIn(self.ask(good, "127.0.0.2")[0], (401, 403, 429))
        self.gateway.wait_for("wrong internal credentials from 127.0.0.5")

    def test_allow(self) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "sfu.GridConfig"}).encode()
        for lines in ((), ((b"X-Forwarded-For", b"127.0.0.2"),)):
            request = Request(
                body, b"/internal", b"gateway", basic("odin", "a long password"), *lines
            )
            status, reply = self.ask(request, "127.0.0.9")
            self.assertEqual(403, status)
            self.assertIn("127.0.0.9 is not in gateway.internal.allow", reply)

    def test_nothing_is_warned_of(self) -> None:
        self.assertNotIn("has no address", self.gateway.log)


class WarningTests(SynchronousTestCase):
    """Limits by address that meet a unix socket whose peers are not trusted."""

    def test_which_endpoints(self) -> None:
        for text in ("unix:x", "UNIX:x", "haproxy:unix:x", "systemd:domain=UNIX:name=x"):
            self.assertTrue(is_unix(text), text)
        for text in ("tcp:1:interface=unix", "haproxy:tcp:1", "systemd:domain=INET:name=unix"):
            self.assertFalse(is_unix(text), text)

    def test_what_is_warned_of(self) -> None:
        public, internal = 'listen.public = ["unix:x"]\n', 'listen.internal = ["haproxy:unix:y"]\n'
        allow = 'gateway.internal.allow = ["10.0.0.0/8"]\n'
        rate, connections = (
            "limits.requests_per_second = 1\n",
            "limits.connections_per_address = 1\n",
        )
        for text, said in (
            (public, ""),
            (rate + connections + allow, ""),
            (public + rate, "limits.requests_per_second cannot tell callers apart on unix:x"),
            (public + connections, "limits.connections_per_address cannot"),
            (public + allow, "gateway.internal.allow cannot tell callers apart on unix:x"),
            (
                internal + allow,
                "gateway.internal.allow cannot tell callers apart on haproxy:unix:y",
            ),
            ('listen.internal = ["tcp:1"]\n' + public + allow, ""),
            (internal + rate + allow, "limits.requests_per_second and gateway.internal.allow"),
            ('listen.admin = ["unix:z"]\n' + rate, "on unix:z;"),
            (public + rate + allow + 'listen.trusted_proxies = ["unix"]\n', ""),
            (public + rate + 'listen.trusted_proxies = ["0.0.0.0/0"]\n', "on unix:x;"),
        ):
            found = addressless(config_of(self, text))
            self.assertEqual(bool(said), found is not None, text)
            self.assertIn(said, found or "")
