"""Gateways need no more than the user of ``etc/redis-users.acl`` may do."""

from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.process import GatewayProcess, customer
from tests.redis_server import GATEWAY, RedisClient, RedisServer, require_redis

ACL_FILE: Final = Path(__file__).parent.parent / "etc/redis-users.acl"
SERVER: Final = "sfu.test:4433"


class UserTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_redis(self)

    def redis(self, *options: str) -> RedisServer:
        """Return a Redis that runs until the test's end."""
        redis = RedisServer(persistent=False, options=options)
        self.addCleanup(redis.close)
        return redis.start()

    def gateway(self, url: str) -> GatewayProcess:
        """Return a gateway that shares its state by Redis, until the test's end."""
        before = (
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
            f'[state]\nurl = "{url}"\n'
        )
        gateway = GatewayProcess(customer(), before)
        self.addCleanup(gateway.stop)
        gateway.start().wait_for("the state is shared by Redis")
        return gateway

    def test_gateways_need_nothing_else(self) -> None:
        """Redis keeps a log of what it did not allow."""
        redis = self.redis()
        url = redis.let_gateways_in()
        one, two = self.gateway(url), self.gateway(url)
        one.report(SERVER, ("lobby", 1))
        self.assertEqual(SERVER, one.connect("lobby")["result"]["address"])
        self.assertEqual({}, two.manage("RoomUpdate", room_id="lobby", user_data=[7])["result"])
        self.assertEqual({}, two.manage("RoomClose", room_id="lobby", ban_time=60)["result"])
        two.call("Drain", {"server": SERVER}, path="/internal")
        for gateway in (one, two):
            gateway.report(SERVER, ("lobby", 1), ("new", 1))
            gateway.stop()
        self.assertEqual([], redis.command("ACL", "LOG"))

    def test_it_may_do_nothing_else(self) -> None:
        redis = self.redis()
        address, _, password = self.login(redis)
        with RedisClient(address, username=GATEWAY, password=password) as client:
            client.call("HSET", "{odingw:pool}:meta", "field", "value")
            for command in (
                ("HSET", "{odingw2:pool}:meta", "field", "value"),
                ("HGET", "other", "field"),
                ("FLUSHALL",),
                ("CONFIG", "GET", "maxmemory-policy"),
                ("KEYS", "*"),
            ):
                with self.assertRaisesRegex(RuntimeError, "NOPERM"):
                    client.call(*command)

    def login(self, redis: RedisServer) -> tuple[tuple[str, int], str, str]:
        """Make the user; return address, name and password."""
        login = redis.let_gateways_in().partition("//")[2].partition("@")[0]
        name, _, password = login.partition(":")
        return redis.address, name, password

    def test_the_file_is_one_for_redis(self) -> None:
        """Its ``aclfile`` may be this file as it is."""
        redis = self.redis(f'aclfile "{ACL_FILE}"')
        self.assertIn(GATEWAY, [name.decode() for name in redis.command("ACL", "USERS")])
