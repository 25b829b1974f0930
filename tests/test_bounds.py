"""What strangers and ODIN servers choose is bounded where it stays."""

import json
import math
import socket
import time
from base64 import urlsafe_b64encode
from typing import Any, Final

from msgspec import Raw
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import RpcError, TokenError, TokenFault
from odingw.grid.reports import MOST_CONTESTS
from odingw.grid.usage import LONGEST_CUSTOMER
from odingw.grid.values import MoreContested
from odingw.ops.events import EventLog
from odingw.ops.metrics import Metrics
from odingw.rpc import client_api, server_api
from odingw.rpc.callers import AccessRules, Authenticator, DemoLimits
from odingw.tokens import TokenGenerator
from odingw.web.rate import LONGEST_KEY, RateLimit
from tests.grids import Room, report, store
from tests.process import ACCESS_KEY
from tests.test_http import ProcessCase, call_body
from tests.test_limits import LISTEN, MEMORY
from tests.test_review_rpc import ServerApiCase

NOW: Final = 1_700_000_000.0
SERVER: Final = "sfu.test:4433"


class DemoRateTests(ProcessCase):
    """Demo users make up their key ids."""

    before = LISTEN + MEMORY + "[limits]\nrequests_per_second_per_key = 2\n"
    configuration = "unknown_customers = { max_peers = 25, max_rooms = 5, total_peers = 100 }\n"

    def status(self, kid: str, source: str = "127.0.0.1") -> int:
        """Return the status of a Connect with a made-up key id from an address."""
        header = json.dumps({"alg": "EdDSA", "kid": kid}).encode()
        claims = {"rid": "room", "uid": "u", "sub": "Connect", "exp": int(time.time()) + 60}
        parts = (header, json.dumps(claims).encode(), b"x" * 64)
        text = ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
        body = call_body("Connect")
        with socket.create_connection(("127.0.0.1", self.gateway.port), 30, (source, 0)) as wire:
            wire.sendall(
                f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {text}"
                f"\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            return int(wire.makefile("rb").readline().split()[1])

    def test_another_key_id_is_no_other_caller(self) -> None:
        found = [self.status(f"{number}") for number in range(6)]
        self.assertEqual(200, found[0])
        self.assertIn(429, found)
        self.assertEqual(200, self.status("0", "127.0.0.2"), "nobody pays for others")


class DemoNameTests(SynchronousTestCase):
    def test_a_long_key_id_is_nobodys(self) -> None:
        """It would be kept as a customer and a namespace."""
        rules = AccessRules(unknown_customers=DemoLimits(25, 5, 100))
        judge = Authenticator(("Connect",), rules, lambda _: None, lambda _: None, lambda _: False)
        _, payload, signature = (
            TokenGenerator(ACCESS_KEY).create_token("r", "u", now=NOW).split(".")
        )
        for length, good in ((12, True), (200, True), (252, False), (6000, False)):
            header = json.dumps({"alg": "EdDSA", "kid": "k" * length}).encode()
            text = f"{urlsafe_b64encode(header).rstrip(b'=').decode()}.{payload}.{signature}"
            if good:
                self.assertTrue(judge.authenticate(text, NOW).is_demo)
            else:
                error = self.assertRaises(TokenError, judge.authenticate, text, NOW)
                self.assertEqual(TokenFault.UNKNOWN_KEY, error.fault)

    def test_names_that_a_server_signs(self) -> None:
        """Servers' tokens have no limits, and what they name is kept with each reservation."""
        key = ACCESS_KEY.secret_key
        judge = Authenticator(
            ("Connect",), AccessRules(), lambda _: None, lambda _: key, lambda _: False
        )
        claims = {"rid": "r", "uid": "u", "sub": "Connect", "exp": int(NOW) + 60}
        for cid, nsp, good in (
            ("c" * 256, "n" * 256, True),
            ("c" * 257, "n", False),
            ("c", "n" * 5000, False),
        ):
            text = key.sign_jwt(json.dumps({**claims, "cid": cid, "nsp": nsp}).encode())
            if good:
                self.assertEqual(cid, judge.authenticate(text, NOW).customer)
            else:
                error = self.assertRaises(TokenError, judge.authenticate, text, NOW)
                self.assertEqual(TokenFault.CLAIMS, error.fault)
                self.assertIn("at most 256 characters", error.message)


class RateTableTests(SynchronousTestCase):
    def test_what_is_kept_of_a_key_is_small(self) -> None:
        limit = RateLimit(1.0)
        for number in range(500):
            self.assertEqual(0.0, limit.wait(f"{number}" * 2000, 0.0))
        self.assertLessEqual(max(map(len, limit._buckets)), LONGEST_KEY)
        self.assertEqual(500, len(limit._buckets))

    def test_long_keys_are_told_apart(self) -> None:
        limit = RateLimit(1.0)
        one, other = "k" * 5000 + "1", "k" * 5000 + "2"
        self.assertEqual(0.0, limit.wait(one, 0.0))
        self.assertGreater(limit.wait(one, 0.0), 0.0)
        self.assertGreater(limit.left_to_wait(one, 0.0), 0.0)
        self.assertEqual(0.0, limit.wait(other, 0.0))

    def test_no_wait_is_endless(self) -> None:
        limit = RateLimit(5e-324)
        limit.wait("a", 0.0)
        self.assertTrue(math.isfinite(limit.wait("a", 0.0)))
        self.assertTrue(math.isfinite(limit.left_to_wait("a", 0.0)))


class ReportTests(ServerApiCase):
    """A server with odd values is served all the same."""

    def report(self, address: str = SERVER, **more: object) -> Any:
        params = {"version": "1", "load": 0, "clients": 0, "rooms": [], **more}
        return self.run_call(self.api(), "sfu.Report", {"public_endpoint": address, **params})

    def room(self, name: str = "room", **more: object) -> dict[str, object]:
        return {
            "id": ["acme", name],
            "customer": "acme",
            "age": {"secs": 1, "nanos": 0},
            "peers": 1,
            **more,
        }

    def test_a_version_is_cut(self) -> None:
        for version in ("v" * 5_000_000, "\0\n\u202e" * 1000, ""):
            self.report(version=version)
            (view,) = self.grid.servers()
            self.assertEqual(version[: server_api.LONGEST_VERSION], view.version)

    def test_a_customer_is_cut(self) -> None:
        long = "c" * 1_000_000
        for peers in (2, 2, 3):
            self.report(rooms=[self.room(customer=long, peers=peers), self.room("other")])
        views = {view.customer: view.peers for view in self.grid.rooms()}
        self.assertEqual({"c" * LONGEST_CUSTOMER: 3, "acme": 1}, views)

    def test_numbers_at_the_ends_of_their_range(self) -> None:
        for peers in (1e308, -1e308, 2**31 + 1, 2**63, 10**300, 0.5, -0.0):
            self.report(clients=peers, load=peers, rooms=[self.room(peers=peers)])
            (view,) = self.grid.servers()
            self.assertTrue(0 <= view.load <= 1)
            self.assertTrue(0 <= view.clients <= 2**31)
            self.assertTrue(0 <= view.peers <= 2**31)

    def test_the_number_of_servers(self) -> None:
        self.patch(server_api, "MOST_SERVERS", 3)
        for number in range(3):
            self.report(f"sfu{number}.test:4433")
        error = self.assertRaises(RpcError, self.report, "sfu3.test:4433")
        self.assertEqual(429, error.status)
        self.assertIn("Retry-After", error.headers)
        self.report("sfu0.test:4433")
        self.assertEqual(3, len(self.grid.addresses()))

    def test_a_drained_address_is_short(self) -> None:
        method = self.api().methods["Drain"]
        error = self.assertRaises(
            RpcError, method.read, Raw(json.dumps({"server": "x" * 301}).encode())
        )
        self.assertIn("server: ", (error.data or {})["detail"])


class ContestedTests(SynchronousTestCase):
    def test_lines_about_contested_rooms(self) -> None:
        """A server that names others' rooms by thousands does not fill the log."""
        grid = store().pool("")
        rooms = [Room(("acme", f"{number}-" + "r" * 5000)) for number in range(500)]
        grid.report(report("a.test:4433", *rooms), 1)
        told = grid.report(report("b.test:4433", *rooms), 2)
        self.assertEqual(500, len(told.closes))
        self.assertEqual(MoreContested("b.test:4433", 500 - MOST_CONTESTS), told.events[-1])
        log = EventLog(Metrics(lambda: 0.0))
        with capturedLogs() as events:
            for event in told.events:
                log.event(event)
        lines = [formatEvent(event) for event in events]
        self.assertLess(len(lines), MOST_CONTESTS + 5)
        self.assertLess(max(len(line or "") for line in lines), 1000)


class BanNameTests(SynchronousTestCase):
    def test_names_that_are_kept_for_years(self) -> None:

        for length, ban, good in (
            (1024, 5, True),
            (1025, 5, False),
            (1025, 0, True),
            (60_000, 1, False),
        ):
            params = client_api._CloseParams("x" * length, ban)
            if good:
                client_api._ban(params)
            else:
                error = self.assertRaises(RpcError, client_api._ban, params)
                self.assertIn("room_id: ", (error.data or {})["detail"])
