"""The status page over HTTP, against a real process: its numbers, its files, who may drain."""

import json
from base64 import b64encode
from typing import Any, ClassVar

from tests.process import GatewayProcess, customer
from tests.test_gateway import metric
from tests.test_http import ProcessCase

SERVER = "sfu.test:4433"
LISTEN = (
    '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
    'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
)
USERS = f'{LISTEN}[admin]\nusers = {{ ops = "secret" }}\n'
SIGNED_IN = {"Authorization": f"Basic {b64encode(b'ops:secret').decode()}"}
LASTING = "disable_timeout = 3600\nremove_timeout = 7200\n"


def get(gateway: GatewayProcess, path: str, headers: dict[str, str] | None = None) -> Any:
    """Return the JSON of an admin page."""
    status, _, body = gateway.request("GET", path, headers=headers, port=gateway.admin)
    assert status == 200, (path, status, body)
    return json.loads(body)


class StateTests(ProcessCase):
    before: ClassVar[str] = (
        LISTEN + '[turn]\nsecret_keys = ["0123456789abcdef0123"]\nignore_jwt = true\n'
        'turn_uris = ["turn:127.0.0.1:9"]\nwatch_interval = 3600\n'
    )
    configuration = (
        LASTING
        + 'pools = { available = ["eu", "us"], default = "eu" }\n'
        + customer(max_peers=9)
        + '[[gateway.customers]]\nid = "idle"\nmax_rooms = 3\n'
    )

    def setUp(self) -> None:
        super().setUp()
        self.gateway.report(SERVER, ("lobby", 3), ("raid", 2))
        self.gateway.report("b.test:1", ("far", 1), path="/us/internal")
        self.gateway.connect("lobby", "alice")

    def test_the_members_that_programs_read(self) -> None:
        state = get(self.gateway, "/monitor/state")
        self.assertEqual({"eu", "us"}, set(state["pools"]))
        (server,) = state["pools"]["eu"]["servers"]
        self.assertEqual(
            (SERVER, "1.5.0", 5, 2, 5, 1, False, False),
            tuple(
                server[name]
                for name in (
                    "address",
                    "version",
                    "clients",
                    "rooms",
                    "peers",
                    "reservations",
                    "disabled",
                    "drained",
                )
            ),
        )
        self.assertAlmostEqual(state["now"] - server["last_seen"], server["age"])
        rooms = {room["id"][1]: room["peers"] for room in state["pools"]["eu"]["rooms"]}
        self.assertEqual({"lobby": 3, "raid": 2}, rooms)
        self.assertEqual(
            [{"customer": "acme", "peers": 6, "reservations": 1, "rooms": 3}], state["usage"]
        )
        self.assertEqual("0.1.0", state["version"])
        self.assertTrue(state["ready"])
        self.assertEqual({"customers", "state", "shutdown"}, set(state["checks"]))
        self.assertLess(0, state["uptime"])

    def test_customers_with_their_limits_and_what_they_use_over_all_pools(self) -> None:
        self.assertEqual(
            [
                {
                    "id": "acme",
                    "configured": True,
                    "max_peers": 9,
                    "max_rooms": None,
                    "peers": 6,
                    "reservations": 1,
                    "rooms": 3,
                },
                {
                    "id": "idle",
                    "configured": True,
                    "max_peers": None,
                    "max_rooms": 3,
                    "peers": 0,
                    "reservations": 0,
                    "rooms": 0,
                },
            ],
            get(self.gateway, "/monitor/state")["customers"],
        )

    def test_requests_are_those_that_prometheus_is_told(self) -> None:
        requests = get(self.gateway, "/monitor/state")["requests"]
        self.assertIn(("client", "Connect"), {(row["api"], row["method"]) for row in requests})
        for row in requests:
            labels = ",".join(f'{name}="{row[name]}"' for name in ("api", "method", "outcome"))
            self.assertEqual(
                metric(self.gateway, f"odingw_requests_total{{{labels}}}"), row["count"]
            )

    def test_turn(self) -> None:
        self.gateway.request("GET", "/turn")
        turn = get(self.gateway, "/monitor/state")["turn"]
        self.assertEqual(
            metric(self.gateway, "odingw_turn_credentials_issued_total"), turn["credentials"]
        )
        self.assertTrue(turn["enabled"])
        self.assertTrue(turn["watched"])
        (server,) = turn["servers"]
        self.assertEqual("turn:127.0.0.1:9", server["uri"])
        self.assertIn(server["up"], (True, False))

    def test_the_summary_is_the_same_without_rooms(self) -> None:
        state, summary = (get(self.gateway, f"/monitor/{name}") for name in ("state", "summary"))
        for name in ("version", "ready", "checks", "customers"):
            self.assertEqual(state[name], summary[name], name)
        self.assertEqual(len(state["customers"]), summary["customer_count"])
        for pool, found in state["pools"].items():
            self.assertEqual({"servers"}, set(summary["pools"][pool]))
            for one, other in zip(found["servers"], summary["pools"][pool]["servers"], strict=True):
                ages = ("age", "expected_load")
                self.assertEqual(
                    {name: value for name, value in one.items() if name not in ages},
                    {name: value for name, value in other.items() if name not in ages},
                )
        self.assertFalse(summary["can_drain"])

    def test_rooms(self) -> None:
        page = get(self.gateway, "/monitor/rooms?search=LOB&pool=eu")
        self.assertEqual((2, 1), (page["total"], page["matches"]))
        (room,) = page["rooms"]
        self.assertEqual(
            (["acme", "lobby"], "eu", SERVER, 3, 1),
            tuple(room[name] for name in ("id", "pool", "server", "peers", "reservations")),
        )
        status, _, body = self.gateway.request(
            "GET", "/monitor/rooms?limit=100000", port=self.gateway.admin
        )
        self.assertEqual(400, status)
        self.assertIn(b"limit: expected a whole number from 1 to 200", body)

    def test_history(self) -> None:
        history = get(self.gateway, "/monitor/history")
        self.assertEqual((5, 181), (history["interval"], history["length"]))
        self.assertGreaterEqual(len(history["times"]), 1)
        self.assertEqual(len(history["times"]), len(history["gauges"]["clients"]))

    def test_without_users_nobody_can_drain(self) -> None:
        origin = f"http://127.0.0.1:{self.gateway.admin}"
        status, _, body = self.gateway.request(
            "POST",
            "/monitor/drain",
            json.dumps({"pool": "eu", "server": SERVER}),
            {"Content-Type": "application/json", "Origin": origin},
            port=self.gateway.admin,
        )
        self.assertEqual(403, status)
        self.assertIn(b"admin.users", body)


class FileTests(ProcessCase):
    def test_types_tags_and_policy(self) -> None:
        for path, kind in (
            ("/monitor", "text/html; charset=utf-8"),
            ("/monitor/monitor.css", "text/css; charset=utf-8"),
            ("/monitor/monitor.js", "text/javascript; charset=utf-8"),
        ):
            status, headers, body = self.gateway.request("GET", path, port=self.gateway.admin)
            self.assertEqual((200, kind), (status, headers["Content-Type"]), path)
            self.assertEqual("nosniff", headers["X-Content-Type-Options"])
            policy = headers["Content-Security-Policy"].split("; ")
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", headers["Content-Security-Policy"])
            self.assertTrue(body)
            status, again, body = self.gateway.request(
                "GET", path, headers={"If-None-Match": headers["ETag"]}, port=self.gateway.admin
            )
            self.assertEqual(
                (304, b"", headers["ETag"], None),
                (status, body, again["ETag"], again["Content-Type"]),
            )

    def test_a_slash_too_many_leads_to_the_page(self) -> None:
        status, headers, _ = self.gateway.request("GET", "/monitor/", port=self.gateway.admin)
        self.assertEqual((308, "../monitor"), (status, headers["Location"]))


class DrainTests(ProcessCase):
    before: ClassVar[str] = USERS
    configuration = LASTING + customer()

    def post(
        self,
        path: str = "/monitor/drain",
        body: object = None,
        *,
        server: str = SERVER,
        drop: tuple[str, ...] = (),
        **headers: str,
    ) -> tuple[int, Any]:
        sent = {
            **SIGNED_IN,
            "Content-Type": "application/json",
            "Origin": f"http://127.0.0.1:{self.gateway.admin}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        for name in drop:
            del sent[name]
        text = body if isinstance(body, str) else json.dumps(body or {"pool": "", "server": server})
        status, _, reply = self.gateway.request("POST", path, text, sent, port=self.gateway.admin)
        return status, json.loads(reply)

    def drained(self) -> bool:
        summary = get(self.gateway, "/monitor/summary", SIGNED_IN)
        self.assertTrue(summary["can_drain"])
        (found,) = (
            server["drained"]
            for server in summary["pools"][""]["servers"]
            if server["address"] == SERVER
        )
        return bool(found)

    def setUp(self) -> None:
        super().setUp()
        self.gateway.report(SERVER)

    def test_drain_and_undrain_leave_an_audit_line(self) -> None:
        self.assertEqual((200, {"server": SERVER, "drained": True}), self.post())
        self.assertTrue(self.drained())
        self.assertEqual(200, self.post("/monitor/undrain")[0])
        self.assertFalse(self.drained())
        for method in ("Drain", "Undrain"):
            self.gateway.wait_for(f"{method} of server '{SERVER}' by admin user 'ops': accepted")
        name = 'odingw_requests_total{api="admin",method="Drain",outcome="success"}'
        _, _, page = self.gateway.request(
            "GET", "/metrics", headers=SIGNED_IN, port=self.gateway.admin
        )
        self.assertIn(name, page.decode())

    def test_a_server_that_is_not_known(self) -> None:
        status, answer = self.post(server="nobody:1")
        self.assertEqual((404, "server_not_found"), (status, answer["error"]["data"]["reason"]))
        self.gateway.wait_for("Drain of server 'nobody:1' by admin user 'ops': server_not_found")

    def test_only_the_page_itself_may_ask(self) -> None:
        """A page elsewhere can post a form or a fetch; the browser adds the credentials to it."""
        port = self.gateway.admin
        for expected, drop, headers in (
            (401, ("Authorization",), {}),
            (401, (), {"Authorization": f"Basic {b64encode(b'ops:wrong').decode()}"}),
            (403, ("Origin",), {}),
            (403, (), {"Origin": "null"}),
            (403, (), {"Origin": "http://evil.example"}),
            (403, (), {"Origin": f"http://127.0.0.1:{port + 1}"}),
            (403, (), {"Origin": f"http://127.0.0.1:{port}.evil.example"}),
            (403, (), {"Sec_Fetch_Site": "same-site"}),
            (403, (), {"Sec_Fetch_Site": "cross-site"}),
            (415, (), {"Content_Type": "text/plain"}),
            (415, (), {"Content_Type": "application/x-www-form-urlencoded"}),
            (415, ("Content-Type",), {}),
        ):
            status, answer = self.post(drop=drop, **headers)
            self.assertEqual(expected, status, (drop, headers, answer))
            self.assertIn("error", answer)
        self.assertFalse(self.drained())

    def test_what_makes_no_sense(self) -> None:
        for expected, body in (
            (400, "{"),
            (400, "[]"),
            (400, '{"pool": ""}'),
            (400, '{"pool": "nowhere", "server": "sfu.test:4433"}'),
            (400, '{"pool": "", "server": ["sfu.test:4433"]}'),
        ):
            status, answer = self.post(body=body)
            self.assertEqual(expected, status, (body, answer))
        self.assertEqual(
            405,
            self.gateway.request(
                "GET", "/monitor/drain", headers=SIGNED_IN, port=self.gateway.admin
            )[0],
        )
        self.assertFalse(self.drained())

    def test_everything_but_health_asks_who_is_there(self) -> None:
        for path in ("", "/state", "/summary", "/rooms", "/history", "/monitor.js", "/threads"):
            status, headers, _ = self.gateway.request(
                "GET", f"/monitor{path}", port=self.gateway.admin
            )
            self.assertEqual(401, status, path)
            self.assertIn("Basic", headers["WWW-Authenticate"])


class SharedTests(ProcessCase):
    """Admin on a public port, without users."""

    before: ClassVar[str] = (
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{port}:interface=127.0.0.1"]\n'
    )

    def test_nothing_of_it_is_shown(self) -> None:
        names = ("", "/", "/state", "/summary", "/rooms", "/history", "/monitor.js", "/monitor.css")
        for path in names:
            self.check_error((404, -32004), "GET", f"/monitor{path}")
        for path in ("/monitor/drain", "/monitor/undrain"):
            body = json.dumps({"pool": "", "server": SERVER})
            headers = {"Content-Type": "application/json"}
            self.check_error((404, -32004), "POST", path, body, headers)
