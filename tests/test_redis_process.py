"""Real gateways over a real Redis."""

import json
import time
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from odingw.tokens import decode_master_key, server_key
from tests.process import MASTER_KEY, GatewayProcess, customer
from tests.redis_server import RedisServer, require_redis
from tests.test_internal import DefaultProcess

SERVER: Final = "sfu.test:4433"
OTHER_KEY: Final = "YW5vdGhlciBtYXN0ZXIga2V5IGFsdG9nZXRoZXIhISE="


class FleetTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_redis(self)
        self.redis = RedisServer(persistent=False).start()
        self.addCleanup(self.redis.close)

    def gateway(self, kind: type[GatewayProcess] = GatewayProcess) -> GatewayProcess:
        before = (
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
            f'[state]\nurl = "{self.redis.url()}"\n'
        )
        gateway = kind(customer(), before)
        self.addCleanup(gateway.stop)
        return gateway

    def test_what_one_is_told_the_other_knows(self) -> None:
        one, two = self.gateway().start(), self.gateway().start()
        for gateway in (one, two):
            gateway.wait_for("the state is shared by Redis")
        one.report(SERVER, ("lobby", 1))
        end = time.monotonic() + 10
        while not two.call("Info", path="/internal")["result"]["rooms"]:
            self.assertLess(time.monotonic(), end, "the other gateway hears nothing")
        self.assertEqual(SERVER, two.connect("lobby")["result"]["address"])
        self.assertEqual({}, two.manage("RoomUpdate", room_id="lobby", user_data=[7])["result"])
        (task,) = one.report(SERVER, ("lobby", 1))["result"]["tasks"]
        self.assertEqual(("RoomUpdate", [7]), (task["task"], task["user_data"]))

    def test_servers_that_a_gateway_lets_nobody_report_from(self) -> None:
        one = self.gateway().start()
        one.wait_for("the state is shared by Redis")
        one.report(SERVER, ("lobby", 1))
        one.connect("lobby")
        log = self.gateway(DefaultProcess).start().wait_for("the state knows")
        self.assertIn("the state knows one ODIN server from before", log)
        self.assertNotIn("the state knows", one.log)

    def test_a_redis_that_evicts_keys(self) -> None:
        """It is refused at the start, and makes gateways not ready later."""
        one = self.gateway().start()
        one.wait_for("the state is shared by Redis")
        self.redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        self.assertIn("evicts keys", one.wait_for("Redis may throw the state away"))
        self.assertEqual(503, one.request("GET", "/readyz", port=one.admin)[0])
        other = self.gateway().start("evicts keys")
        assert other.process is not None
        self.assertEqual(1, other.process.wait(30))

    def test_another_master_key_is_refused(self) -> None:
        self.gateway().start().wait_for("the state is shared by Redis")
        other = self.gateway()
        other.config.write_text(other.config.read_text().replace(MASTER_KEY, OTHER_KEY))
        log = other.start("another master key").log
        self.assertIn("gateway.master_key", log)
        assert other.process is not None
        self.assertEqual(1, other.process.wait(30))
        for key in (MASTER_KEY, OTHER_KEY):
            self.assertNotIn(key, log)

    def test_a_server_that_has_just_come_to_another_gateway(self) -> None:
        """Its token is good at once at a gateway that has not heard of it yet."""
        one, two = self.gateway().start(), self.gateway().start()
        for gateway in (one, two):
            gateway.wait_for("the state is shared by Redis")
        for number in range(10):
            address = f"sfu{number}.test:4433"
            one.report(address, (f"room{number}", 1))
            key = server_key(decode_master_key(MASTER_KEY), address)
            now = int(time.time())
            claims: dict[str, object] = {
                "cid": "acme",
                "nsp": "acme",
                "rid": f"room{number}",
                "uid": "u",
            }
            claims |= {"sub": "Connect", "aud": "gateway", "nbf": now, "exp": now + 60}
            answer = two.call("Connect", token=key.sign_jwt(json.dumps(claims).encode()))
            self.assertEqual(address, answer["result"]["address"], answer)
