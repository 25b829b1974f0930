"""OpenRPC documents: valid, whole, served, and true of what the gateway really answers."""

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from odingw import errors
from odingw.errors import METHOD_NOT_FOUND, Reason, Refused
from odingw.rpc.client_api import CLIENT_API, ClientApi
from odingw.rpc.openrpc import DISCOVER, ERROR_CODES, Interface, NoParams, Signature, refusal
from odingw.rpc.server_api import ServerApi
from odingw.rpc.server_methods import SERVER_API
from tests.process import DATA, token
from tests.recordings import send
from tests.schemas import wrong, wrong_openrpc
from tests.test_gateway import metric
from tests.test_http import ProcessCase
from tests.test_recordings import COMMON, CUSTOMERS

CLIENT: Any = json.loads(CLIENT_API.document)
SERVER: Any = json.loads(SERVER_API.document)
UNUSED: Any = None
CALLS = (("POST", "/"), ("POST", "/internal"))


def method_of(document: Any, name: str) -> Any:
    """Return the description of a method, or None."""
    return next((method for method in document["methods"] if method["name"] == name), None)


def codes_of(document: Any, method: Any) -> dict[int, Any]:
    """Return the errors of a method by code, references followed."""
    found = {}
    for error in method["errors"]:
        if "$ref" in error:
            error = document["components"]["errors"][error["$ref"].rpartition("/")[2]]
        found[error["code"]] = error
    return found


class DocumentTests(SynchronousTestCase):
    def test_both_are_valid(self) -> None:
        self.assertEqual([], wrong_openrpc(CLIENT))
        self.assertEqual([], wrong_openrpc(SERVER))

    def test_the_meta_schema_finds_faults(self) -> None:
        for fault in (
            {"methods": None},
            {"methods": [{"name": "x"}]},
            {"methods": [{"name": "x", "params": [{"name": "p", "schema": {"type": 1}}]}]},
            {"more": 1},
        ):
            self.assertNotEqual([], wrong_openrpc({**CLIENT, **fault}), fault)

    def test_every_method_of_the_engines_is_described_and_no_other(self) -> None:
        apis = (
            (CLIENT, ClientApi(UNUSED, UNUSED, 0, "", UNUSED).methods),
            (SERVER, ServerApi(UNUSED, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED).methods),
        )
        for document, methods in apis:
            self.assertEqual([method["name"] for method in document["methods"]], list(methods))

    def test_a_method_cannot_be_left_out(self) -> None:
        signature = Signature(params=NoParams, result=NoParams, summary="Nothing.")
        interface = Interface("t", "d", "/", {"One": signature})
        table: Any = interface.bind({"One": lambda context, params, answered: {}})
        self.assertEqual(list(table), ["One", DISCOVER])
        self.assertRaises(ValueError, interface.bind, {})
        two: Any = {"One": table["One"].run, "Two": table["One"].run}
        self.assertRaises(ValueError, interface.bind, two)

    def test_every_reason_is_some_methods(self) -> None:
        described = {
            tuple(sorted(item.items()))
            for document in (CLIENT, SERVER)
            for method in document["methods"]
            for item in method.get("x-reasons", ())
        }
        self.assertEqual({tuple(sorted(refusal(reason).items())) for reason in Reason}, described)

    def test_every_error_code_is_described(self) -> None:
        codes = {
            value for name, value in vars(errors).items() if name.isupper() and type(value) is int
        }
        self.assertEqual(codes, set(ERROR_CODES))
        for document in (CLIENT, SERVER):
            found = {error["code"] for error in document["components"]["errors"].values()}
            self.assertEqual(codes, found)

    def test_codes_are_unique_within_a_method(self) -> None:
        for document in (CLIENT, SERVER):
            for method in document["methods"]:
                codes = codes_of(document, method)
                self.assertEqual(len(codes), len(method["errors"]))
                for item in method.get("x-reasons", ()):
                    reasons = codes[item["code"]]["data"]["properties"]["reason"]["enum"]
                    self.assertIn(item["reason"], reasons)

    def test_no_private_names(self) -> None:
        for document in (CLIENT, SERVER):
            text = json.dumps(document)
            self.assertNotIn('"_', text)
            self.assertNotIn("/_", text)

    def test_what_a_caller_must_give(self) -> None:
        params = {param["name"]: param for param in method_of(CLIENT, "RoomBanClient")["params"]}
        self.assertEqual(
            {name: param["required"] for name, param in params.items()},
            {"room_id": True, "user_id": True, "ban_time": False},
        )
        self.assertEqual(params["ban_time"]["schema"], {"type": "number", "minimum": 0})


class ServedTests(ProcessCase):
    def get(self, path: str, **headers: str) -> tuple[int, Any, bytes]:
        return self.gateway.request("GET", path, headers=headers)

    def test_the_client_api(self) -> None:
        status, headers, body = self.get("/openrpc.json")
        self.assertEqual((status, json.loads(body)), (200, CLIENT))
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(headers["Access-Control-Allow-Origin"], "*")
        self.assertIn("max-age", headers["Cache-Control"])
        status, kept, body = self.get("/openrpc.json", **{"If-None-Match": headers["ETag"]})
        self.assertEqual((status, body, kept["ETag"]), (304, b"", headers["ETag"]))
        status, _, _ = self.get("/openrpc.json", **{"If-None-Match": '"another"'})
        self.assertEqual(status, 200)
        status, headers, body = self.gateway.request("OPTIONS", "/openrpc.json")
        self.assertEqual((status, body), (200, b""))
        self.assertIn("GET", headers["Access-Control-Allow-Methods"])
        self.check_error((405, -32005), "POST", "/openrpc.json")

    def test_the_server_api(self) -> None:
        path = "/internal/openrpc.json"
        status, headers, body = self.get(path)
        self.assertEqual((status, json.loads(body)), (200, SERVER))
        self.assertIs(headers["Access-Control-Allow-Origin"], None)
        self.assertEqual(headers["Cache-Control"], "no-cache")
        for header in ("Origin", "X-Forwarded-For", "Via"):
            self.check_error((403, -32003), "GET", path, headers={header: "1.2.3.4"}, cors=False)
        self.check_error((405, -32005), "POST", path, cors=False)

    def test_discover(self) -> None:
        for subject in ("connect", ["RoomClose"], DISCOVER):
            answer = self.gateway.call(DISCOVER, token=token("room", subject=subject))
            self.assertEqual(answer["result"], CLIENT)
        self.assertEqual(self.gateway.call(DISCOVER, path="/internal")["result"], SERVER)

    def test_who_may_not_discover(self) -> None:
        self.assertEqual(self.gateway.call(DISCOVER)["error"]["code"], -32001)
        nothing = token("room", subject="nothing")
        self.assertEqual(self.gateway.call(DISCOVER, token=nothing)["error"]["code"], -32003)
        via = self.gateway.call(DISCOVER, path="/internal", headers={"Via": "1.1 proxy"})
        self.assertEqual(via["error"]["code"], -32003)

    def test_discovery_gives_no_other_right(self) -> None:
        only = token("room", subject=DISCOVER)
        self.assertEqual(
            self.gateway.call("Connect", token=only)["error"]["code"], METHOD_NOT_FOUND
        )

    def test_every_described_method_exists_and_no_other(self) -> None:
        subjects = [method["name"] for method in CLIENT["methods"]]
        everything = token("room", subject=subjects)
        for document, path, bearer in ((CLIENT, "/", everything), (SERVER, "/internal", None)):
            for method in document["methods"]:
                answer = self.gateway.call(method["name"], path=path, token=bearer)
                code = answer.get("error", {}).get("code")
                self.assertNotEqual(code, METHOD_NOT_FOUND, method["name"])
            for name in ("rpc.describe", "rpc.Discover", "", "connect", "_connect"):
                answer = self.gateway.call(name, path=path, token=bearer)
                self.assertEqual(answer["error"]["code"], METHOD_NOT_FOUND, name)

    def test_only_known_methods_are_labels(self) -> None:
        self.gateway.call(DISCOVER, token=token("room"))
        self.gateway.call("rpc.made_up", token=token("room"))
        self.gateway.call("rpc.made_up", path="/internal")
        counted = f'odingw_requests_total{{api="client",method="{DISCOVER}",outcome="success"}}'
        self.assertGreater(metric(self.gateway, counted), 0)
        _, _, page = self.gateway.request("GET", "/metrics", port=self.gateway.admin)
        self.assertNotIn(b"made_up", page)


class TruthTests(ProcessCase):
    """The documents against what a gateway answers."""

    configuration = COMMON + CUSTOMERS

    def check(self, request: Any, answer: Any, document: Any) -> str:
        """Compare one exchange with its description, and return what kind it was."""
        method = method_of(document, request["method"])
        if "result" in answer:
            params = {
                "type": "object",
                "properties": {item["name"]: item["schema"] for item in method["params"]},
                "required": [item["name"] for item in method["params"] if item["required"]],
            }
            given = request.get("params", {})
            self.assertEqual([], wrong(document, params, given, strict=False), request)
            schema = method["result"]["schema"]
            self.assertEqual([], wrong(document, schema, answer["result"]), request)
            return f"{request['method']} result"
        error = answer["error"]
        described = codes_of(document, method).get(error["code"])
        self.assertIsNot(described, None, (request, error))
        assert described is not None
        if "reason" in error.get("data", {}):
            self.assertEqual([], wrong(document, described["data"], error["data"]), request)
            self.assertIn(
                {name: error[name] for name in ("code", "message")}
                | {"reason": error["data"]["reason"]},
                method["x-reasons"],
            )
            return f"{request['method']} {error['data']['reason']}"
        return f"{request['method']} {error['code']}"

    def test_recorded_exchanges(self) -> None:
        seen = set()
        for file in ("client_api.jsonl", "grid_config.jsonl"):
            for line in (DATA / file).read_text("utf-8").splitlines():
                for step in json.loads(line)["steps"]:
                    if (step["send"]["method"], step["send"]["path"]) not in CALLS:
                        continue
                    _, _, body = send(self.gateway.port, step["send"], None)
                    document = SERVER if step["send"]["path"].endswith("/internal") else CLIENT
                    for request, answer in exchanges(step["send"].get("body"), body):
                        if method_of(document, request["method"]) is not None:
                            seen.add(self.check(request, answer, document))
        for method in ("Connect", "RoomClose", "sfu.GridConfig", "sfu.Report"):
            self.assertIn(f"{method} result", seen)
        self.assertIn("Connect rid_base_mismatch", seen)
        self.assertGreater(len(seen), 15, seen)

    def test_other_exchanges(self) -> None:
        self.gateway.report("sfu.test:4433", ("room", 1))
        self.gateway.manage("RoomUpdate", room_id="room", user_data=[1])
        self.gateway.manage("RoomSendMessage", room_id="room", user_id="u", message=[2])
        self.gateway.manage("RoomBanClient", room_id="room", user_id="u", ban_time=1.5)
        self.gateway.manage("RoomClose", room_id="room", ban_time=1)
        server = {"server": "sfu.test:4433"}
        report = {"version": "1", "load": 0, "clients": 0, "rooms": []}
        calls: list[tuple[str, dict[str, Any]]] = [
            ("SubmitReport", {**report, "public_endpoint": "sfu.test:4433", "server": "grid"}),
            ("SubmitReport", {**report, "server": "saga"}),
            ("GetConfig", {"version": "1", "config": "", "server": "grid"}),
            ("Drain", server),
            ("Info", {}),
            ("Undrain", server),
            ("Drain", {"server": "nobody:1"}),
            ("Drain", {}),
            (DISCOVER, {}),
        ]
        kinds = []
        for method, params in calls:
            answer = self.gateway.call(method, params, path="/internal")
            kinds.append(self.check({"method": method, "params": params}, answer, SERVER))
            if method == "SubmitReport" and "result" in answer:
                self.assertEqual(len(answer["result"]["tasks"]), 4)
        self.assertEqual(
            kinds,
            [
                "SubmitReport result",
                "SubmitReport -32600",
                "GetConfig result",
                "Drain result",
                "Info result",
                "Undrain result",
                f"Drain {Reason.SERVER_NOT_FOUND}",
                "Drain -32602",
                f"{DISCOVER} result",
            ],
        )

    def test_an_undescribed_member_is_found(self) -> None:
        schema = method_of(CLIENT, "Connect")["result"]["schema"]
        good = {"address": "a", "token": "t"}
        self.assertEqual([], wrong(CLIENT, schema, good))
        self.assertNotEqual([], wrong(CLIENT, schema, {**good, "more": 1}))
        self.assertNotEqual([], wrong(CLIENT, schema, {"address": "a"}))


def exchanges(sent: str | None, body: bytes) -> Any:
    """Yield each call of a request with its answer, where there are such."""
    try:
        request, answer = json.loads(sent or ""), json.loads(body)
    except ValueError:
        return
    pairs = [(request, answer)]
    if isinstance(request, list) and isinstance(answer, list):
        by_id = {item["id"]: item for item in answer if isinstance(item.get("id"), str | int)}
        pairs = [
            (item, by_id.get(item.get("id")))
            for item in request
            if isinstance(item, dict) and isinstance(item.get("id"), str | int)
        ]
    for call, reply in pairs:
        if (
            isinstance(call, dict)
            and isinstance(call.get("method"), str)
            and isinstance(reply, dict)
        ):
            yield call, reply


class RefusedTests(SynchronousTestCase):
    def test_what_is_described_is_what_is_raised(self) -> None:
        for reason in Reason:
            error = Refused(reason)
            self.assertEqual(
                refusal(reason),
                {"reason": reason, "code": error.code, "message": error.message},
            )
