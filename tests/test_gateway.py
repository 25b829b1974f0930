"""What the rules do over HTTP, against a real process: limits, bans, presets, keys."""

import json
import time
from base64 import urlsafe_b64decode
from typing import Any

from odingw.tokens import SecretKey, check_signature, decode_master_key, parse, server_key
from tests.process import (
    ACCESS_KEY,
    CONSENT,
    MASTER_KEY,
    GatewayProcess,
    customer,
    token,
)
from tests.test_http import ProcessCase

SERVER = "sfu.test:4433"


def reason(answer: Any) -> str | None:
    """Return why a call was refused, or None."""
    found: str | None = answer.get("error", {}).get("data", {}).get("reason")
    return found


def claims_of(room_token: str) -> dict[str, Any]:
    payload = room_token.split(".")[1]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=="))
    return found


def metric(gateway: GatewayProcess, name: str) -> float:
    """Return a metric's value, given its name with labels."""
    _, _, page = gateway.request("GET", "/metrics", port=gateway.admin)
    for line in page.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    return 0.0


def bare_token(**claims: object) -> str:
    """Return a token with exactly these claims."""
    return ACCESS_KEY.secret_key.sign_jwt(json.dumps(claims).encode())


class RoomTokenTests(ProcessCase):
    def test_it_verifies_under_the_key_of_its_server(self) -> None:
        self.gateway.report(SERVER)
        before = int(time.time())
        answer = self.gateway.connect("room", "alice", tags=["vip"], address="x", upstream="y")
        room_token = answer["result"]["token"]
        key: SecretKey = server_key(decode_master_key(MASTER_KEY), SERVER)
        jws = parse(room_token)
        self.assertTrue(check_signature(key.public_key, jws))
        self.assertEqual(key.kid, jws.header.kid)
        claims = claims_of(room_token)
        self.assertEqual(300, claims["exp"] - claims["nbf"])
        self.assertTrue(before <= claims["nbf"] <= time.time())
        self.assertEqual(
            {
                "uid": "alice",
                "cid": "acme",
                "rid": "room",
                "nsp": "acme",
                "adr": SERVER,
                "sub": "connect",
                "aud": "sfu",
                "tgs": ["vip"],
            },
            {name: value for name, value in claims.items() if name not in ("exp", "nbf")},
        )


class LimitTests(ProcessCase):
    configuration = customer(max_peers=3, max_rooms=1)

    def test_ten_connects_give_three_tokens_and_a_full_house_can_be_joined_again(self) -> None:
        self.gateway.report(SERVER)
        answers = [self.gateway.connect("room", f"user-{number}") for number in range(10)]
        self.assertEqual(3, sum("result" in answer for answer in answers))
        self.assertEqual({None, "peer_limit_exceeded"}, {reason(answer) for answer in answers})
        self.gateway.report(SERVER, ("room", 1))
        self.assertEqual("peer_limit_exceeded", reason(self.gateway.connect("other", "new")))
        self.gateway.report(SERVER, ("room", 0))
        self.assertEqual("room_limit_exceeded", reason(self.gateway.connect("other", "new")))
        self.assertIn("result", self.gateway.connect("room", "user-2"))


class BanTests(ProcessCase):
    def test_a_ban_is_refused_with_its_reason_and_ends_on_time(self) -> None:
        self.gateway.report(SERVER, ("room", 1))
        self.gateway.manage("RoomBanClient", room_id="room", user_id="bob", ban_time=1.5)
        before = time.monotonic()
        answer = self.gateway.connect("room", "bob")
        self.assertEqual("user_banned", reason(answer))
        self.assertIn("result", self.gateway.connect("room", "alice"))
        end = before + answer["error"]["data"]["retry_after"]
        while reason(answer := self.gateway.connect("room", "bob")):
            self.assertLess(time.monotonic(), end + 1)
        self.assertGreaterEqual(time.monotonic(), end)

    def test_a_banned_room_stays_closed_when_it_is_gone(self) -> None:
        self.gateway.report(SERVER, ("closed", 1))
        self.gateway.manage("RoomClose", room_id="closed", ban_time=60)
        (task,) = self.gateway.report(SERVER)["result"]["tasks"]
        self.assertEqual(
            {"task": "RoomClose", "id": ["acme", "closed"], "ban_time": {"secs": 60, "nanos": 0}},
            task,
        )
        self.assertEqual("room_banned", reason(self.gateway.connect("closed")))


class DrainTests(ProcessCase):
    def test_drain(self) -> None:
        self.gateway.report("a.test:1")
        self.gateway.report("b.test:1", ("busy", 100))
        self.assertEqual(
            {}, self.gateway.call("Drain", {"server": "a.test:1"}, path="/internal")["result"]
        )
        self.assertEqual("b.test:1", self.gateway.connect("new")["result"]["address"])
        self.gateway.call("Undrain", {"server": "a.test:1"}, path="/internal")
        self.assertEqual("a.test:1", self.gateway.connect("newer")["result"]["address"])
        nobody = self.gateway.call("Drain", {"server": "nobody:1"}, path="/internal")
        self.assertEqual("server_not_found", reason(nobody))


class ServerApiTests(ProcessCase):
    def test_a_server_without_an_endpoint_is_known_by_its_address(self) -> None:
        params = {"version": "1", "load": 0, "clients": 0, "rooms": []}
        self.gateway.call("sfu.Report", params, path="/internal")
        self.assertIn("127.0.0.1:4433", self.addresses())

    def addresses(self) -> list[str]:
        info = self.gateway.call("Info", path="/internal")["result"]
        return [server["address"] for server in info["servers"]]

    def test_info(self) -> None:
        self.gateway.report("info.test:4433", ("{b}1", 3))
        info = self.gateway.call("Info", path="/internal")["result"]
        (server,) = [view for view in info["servers"] if view["address"] == "info.test:4433"]
        self.assertEqual("info.test", server["hostname"])
        room = {"id": ["acme", "{b}1"], "customer": "acme", "peers": 3}
        self.assertEqual({"load": 0.0, "clients": 3, "rooms": [room]}, server["report"])
        self.assertEqual(12, len(server["keyId"]))
        (room,) = [view for view in info["rooms"] if view["server"] == "info.test:4433"]
        self.assertEqual((["acme", "{b}1"], "acme"), (room["id"], room["customer"]))
        names = {call["name"]: call for call in info["stats"]["apiCalls"]}
        self.assertGreaterEqual(names["sfu.Report"]["success"], 1)
        self.gateway.report("info.test:4433")

    def test_grid_config_keeps_the_callers_text(self) -> None:
        text = "# mine\n[quic]\nidle_timeout = 0x10 # sixteen\n"
        params = {"public_endpoint": SERVER, "version": "1", "config": text}
        result = self.gateway.call("sfu.GridConfig", params, path="/internal")["result"]
        for line in text.splitlines():
            self.assertIn(line, result["config"])


class ServerTokenTests(ProcessCase):
    configuration = f"{CONSENT}internal.server_tokens = false\n{customer()}"

    def test_they_can_be_switched_off(self) -> None:
        self.gateway.report(SERVER)
        key = server_key(decode_master_key(MASTER_KEY), SERVER)
        now = int(time.time())
        claims = {"rid": "r", "uid": "u", "sub": "connect", "exp": now + 9, "cid": "c", "nsp": "c"}
        answer = self.gateway.call("Connect", token=key.sign_jwt(json.dumps(claims).encode()))
        self.assertEqual("not authorized", answer["error"]["message"])


class StrictTests(ProcessCase):
    def test_what_strict_settings_refuse(self) -> None:
        now = int(time.time())
        good = {"rid": "room", "uid": "user", "sub": "connect", "exp": now + 60}
        self.gateway.report(SERVER)
        self.assertIn("result", self.gateway.call("Connect", token=bare_token(**good)))
        for change, code in (
            ({"sub": None}, -32003),
            ({"exp": None}, -32001),
            ({"exp": now - 90}, -32001),
            ({"nbf": now + 90}, -32001),
        ):
            claims = {k: v for k, v in {**good, **change}.items() if v is not None}
            answer = self.gateway.call("Connect", token=bare_token(**claims))
            self.assertEqual(code, answer["error"]["code"], change)
        answer = self.gateway.call(
            "RoomClose", {"room_id": "room-2"}, token=token("room", subject="RoomClose")
        )
        self.assertEqual("room_mismatch", reason(answer))


class CompatibleTests(ProcessCase):
    configuration = 'compatibility = "0.18"\n' + customer()

    def count(self, rule: str) -> float:
        return metric(self.gateway, f'odingw_compat_accepted_total{{rule="{rule}"}}')

    def test_what_the_preset_lets_pass_is_counted(self) -> None:
        now = int(time.time())
        self.gateway.report(SERVER)
        good = {"rid": "room", "uid": "user", "sub": "connect", "exp": now + 60}
        self.gateway.call("Connect", token=bare_token(**good))
        for rule, change in (
            ("require_subject", {"sub": None}),
            ("require_expiry", {"exp": None}),
            ("leeway", {"exp": now - 90}),
        ):
            self.assertEqual(0, self.count(rule), rule)
            claims = {k: v for k, v in {**good, **change}.items() if v is not None}
            self.assertIn("result", self.gateway.call("Connect", token=bare_token(**claims)))
            self.assertEqual(1, self.count(rule), rule)
        self.assertEqual(0, self.count("room_match"))
        self.gateway.connect("room-2")
        answer = self.gateway.call(
            "RoomUpdate",
            {"room_id": "room-2", "user_data": []},
            token=token("room", subject="RoomUpdate"),
        )
        self.assertEqual({}, answer["result"])
        self.assertEqual(1, self.count("room_match"))
