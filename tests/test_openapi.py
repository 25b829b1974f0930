"""OpenAPI documents: valid, whole, served, and true of what the gateway really answers."""

import json
from typing import Any

from msgspec.json import encode
from openapi_spec_validator import OpenAPIV31SpecValidator
from twisted.internet.task import Clock

from odingw.customers import refresher
from odingw.gateway import Gateway
from odingw.web.openapi import Route, document, routes_of
from odingw.web.openapi_parts import Apis
from tests.config_case import ConfigCase
from tests.process import customer, token
from tests.schemas import wrong
from tests.test_http import ProcessCase

POOLS = 'pools = { available = ["eu", "us"], default = "eu" }\n'
BASIC = {"Authorization": "Basic b3BzOnNlY3JldA=="}
TURN = (
    '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
    'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[state]\nurl = "memory:"\n'
    '[admin]\nusers = { ops = "secret" }\n'
    '[turn]\nsecret_keys = ["north is a good place"]\nturn_uris = ["turn:127.0.0.1:3478"]\n'
    'stun_uris = ["stun:127.0.0.1:3478"]\naccess_keys = true\nwatch_servers = false\n'
)
ROLES = (
    ("public",),
    ("internal",),
    ("admin",),
    ("public", "internal"),
    ("public", "internal", "admin"),
)


def faults(document: Any) -> list[str]:
    """Return what the OpenAPI meta-schema, and the rules beyond it, have against a document."""
    plain = json.loads(encode(document))
    return [error.message for error in OpenAPIV31SpecValidator(plain).iter_errors()]


class RouteTests(ConfigCase):
    """The documents against the routes of endpoints that serve the roles."""

    def roots(self) -> Any:
        """Yield what is served to each combination of roles."""
        for users in ("", '[admin]\nusers = { ops = "secret" }\n'):
            config = self.load_text(f'[state]\nurl = "memory:"\n{users}[gateway]\n{POOLS}')
            clock: Any = Clock()
            gateway = Gateway(
                config,
                [b"k" * 32],
                refresher(config.gateway, clock),
                "odingw.toml",
                clock,
                clock.seconds,
                self.fail,
            )
            for roles in ROLES:
                yield roles, gateway.root(roles)

    def test_every_route_is_described_and_no_other(self) -> None:
        for roles, root in self.roots():
            # Klein tells nobody else which app a resource is of.
            routes = routes_of(root._klein._app.url_map)
            apis = apis_of(roles)
            made = document("t", routes, apis)
            described = [
                Route(path, method.upper())
                for path, item in made["paths"].items()
                for method in item
            ]
            self.assertEqual(described, routes, roles)

    def test_a_route_that_nobody_described_is_seen(self) -> None:
        made = document("t", [Route("/new", "GET"), Route("/ping", "GET")], Apis())
        self.assertEqual(list(made["paths"]), ["/ping"])

    def test_faults_are_found(self) -> None:
        made = document("t", [Route("/ping", "GET")], Apis())
        self.assertEqual(faults(made), [])
        del made["paths"]["/ping"]["get"]["responses"]["200"]["description"]
        self.assertNotEqual(faults(made), [])

    def test_only_what_is_used_is_defined(self) -> None:
        made = document("t", [Route("/turn", "GET")], Apis())
        self.assertEqual(set(made["components"]["schemas"]), {"Error", "TurnCredentials"})


def apis_of(roles: Any) -> Apis:
    """Return where a gateway with the pools of these tests serves its APIs."""
    paths = ["/", "/eu/", "/us/"]
    return Apis(
        paths if "public" in roles else (),
        [f"{path}internal" for path in paths] if "internal" in roles else (),
    )


class ServedTests(ProcessCase):
    """The documents against what a gateway answers."""

    configuration = POOLS + customer()
    before = TURN

    def described(self, port: int) -> Any:
        status, headers, body = self.gateway.request("GET", "/openapi.json", None, BASIC, port=port)
        self.assertEqual((status, headers["Content-Type"]), (200, "application/json"))
        return json.loads(body)

    def check(
        self,
        method: str,
        path: str,
        status: int,
        *,
        query: str = "",
        body: Any = None,
        headers: dict[str, str] | None = None,
        port: int | None = None,
    ) -> Any:
        """Make a request, and compare its reply with what is described."""
        raw = None if body is None else json.dumps(body)
        got, fields, reply = self.gateway.request(
            method, path + query, raw, headers or {}, port=port or self.gateway.port
        )
        self.assertEqual(got, status, reply)
        made = self.described(port or self.gateway.port)
        answer = made["paths"][path][method.lower()]["responses"][str(got)]
        if "$ref" in answer:
            answer = made["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        if not reply:
            self.assertNotIn("content", answer)
            return None
        kind = fields["Content-Type"].partition(";")[0]
        self.assertIn(kind, answer["content"])
        if kind != "application/json":
            return reply
        value = json.loads(reply)
        self.assertEqual([], wrong(made, answer["content"][kind]["schema"], value))
        return value

    def test_valid(self) -> None:
        for port in (self.gateway.port, self.gateway.admin):
            self.assertEqual(faults(self.described(port)), [])

    def test_each_endpoint_describes_itself(self) -> None:
        public = set(self.described(self.gateway.port)["paths"])
        admin = set(self.described(self.gateway.admin)["paths"])
        self.assertEqual(public & admin, {"/openapi.json"})
        self.assertLessEqual({"/", "/us/", "/us/internal", "/turn", "/clients/", "/ping"}, public)
        self.assertLessEqual({"/metrics", "/readyz", "/monitor/rooms", "/monitor/drain"}, admin)

    def test_headers(self) -> None:
        _, headers, _ = self.gateway.request("GET", "/openapi.json")
        self.assertEqual(headers["Access-Control-Allow-Origin"], "*")
        self.assertIn("max-age", headers["Cache-Control"])
        again = {"If-None-Match": headers["ETag"]}
        status, _, body = self.gateway.request("GET", "/openapi.json", None, again)
        self.assertEqual((status, body), (304, b""))

    def test_the_admin_endpoint_asks_who_it_is(self) -> None:
        port = self.gateway.admin
        status, headers, _ = self.gateway.request("GET", "/openapi.json", port=port)
        self.assertEqual(status, 401)
        self.assertIs(headers["Access-Control-Allow-Origin"], None)
        foreign = {**BASIC, "Origin": "https://elsewhere.example"}
        status, _, _ = self.gateway.request("GET", "/openapi.json", None, foreign, port=port)
        self.assertEqual(status, 403)

    def test_turn(self) -> None:
        good = {"Authorization": f"Bearer {token('room', subject='turn')}"}
        for method in ("GET", "POST"):
            for path in ("/turn", "/turn/"):
                self.check(method, path, 200, headers=good)
        self.check("GET", "/turn", 200, query="?ttl=60", headers=good)
        self.check("GET", "/turn", 400, query="?ttl=x", headers=good)
        self.check("GET", "/turn", 401)
        self.check("OPTIONS", "/turn", 200)
        self.check("GET", "/", 200, query="?service=turn", headers=good)
        self.check("GET", "/", 405)

    def test_json_rpc(self) -> None:
        call = {"jsonrpc": "2.0", "id": 1, "method": "Connect"}
        good = {"Authorization": f"Bearer {token('room')}"}
        self.check("POST", "/", 200, body=call, headers=good)
        self.check("POST", "/us/", 200, body=[call, call], headers=good)
        self.check("POST", "/", 204, body={"jsonrpc": "2.0", "method": "Connect"}, headers=good)
        self.check("POST", "/", 401, body=call)
        self.check("POST", "/", 403, headers={"Authorization": f"Bearer {token('r', subject='x')}"})
        self.check("POST", "/", 400, headers=good)
        self.check("POST", "/us/internal", 200, body={**call, "method": "Info"})
        self.check("POST", "/internal", 403, body=call, headers={"Via": "1.1 proxy"})
        self.check("OPTIONS", "/", 200)
        self.check("OPTIONS", "/internal", 200)

    def test_files(self) -> None:
        self.check("GET", "/ping", 200)
        self.check("GET", "/clients/", 200)
        self.check("GET", "/clients/", 200, headers={"Accept": "application/json"})
        for path in self.described(self.gateway.port)["paths"]:
            if path.startswith("/clients/"):
                self.check("GET", path, 200)
        for path in ("/openapi.json", "/openrpc.json", "/internal/openrpc.json"):
            status, _, body = self.gateway.request("GET", path)
            self.assertEqual((status, type(json.loads(body))), (200, dict))

    def test_admin(self) -> None:
        """Every page that is described is there, and is as described."""
        self.gateway.report("sfu.test:4433", ("room", 1), path="/us/internal")
        port = self.gateway.admin
        odd = {"/monitor/": 308, "/openapi.json": 200}
        for path, item in self.described(port)["paths"].items():
            if "get" in item and path != "/openapi.json":
                self.check("GET", path, odd.get(path, 200), headers=BASIC, port=port)
            if "get" in item and path not in ("/healthz", "/readyz"):
                status, _, _ = self.gateway.request("GET", path, port=port)
                self.assertEqual(status, 401, path)
        found = self.check("GET", "/monitor/rooms", 200, headers=BASIC, port=port)
        self.assertEqual(found["rooms"][0]["id"], ["acme", "room"])
        state = self.check("GET", "/monitor/state", 200, headers=BASIC, port=port)
        self.assertEqual(len(state["pools"]["us"]["servers"]), 1)
        self.assertEqual(len(state["pools"]["us"]["rooms"]), 1)
        metrics = {**BASIC, "Accept": "application/openmetrics-text"}
        self.check("GET", "/metrics", 200, headers=metrics, port=port)
        self.check("GET", "/monitor/rooms", 400, query="?sort=x", headers=BASIC, port=port)

    def test_draining(self) -> None:
        self.gateway.report("sfu.test:4433", path="/us/internal")
        port = self.gateway.admin
        page = {
            **BASIC,
            "Origin": f"http://127.0.0.1:{port}",
            "Host": f"127.0.0.1:{port}",
            "Content-Type": "application/json",
        }
        body = {"pool": "us", "server": "sfu.test:4433"}
        for path in ("/monitor/drain", "/monitor/undrain"):
            self.check("POST", path, 200, body=body, headers=page, port=port)
            unknown = {**body, "server": "nobody:1"}
            self.check("POST", path, 404, body=unknown, headers=page, port=port)
            self.check("POST", path, 400, body={}, headers=page, port=port)
            plain = {**page, "Content-Type": "text/plain"}
            self.check("POST", path, 415, body=body, headers=plain, port=port)
            self.check("POST", path, 403, body=body, headers=BASIC, port=port)
            self.check("POST", path, 401, body=body, port=port)
