"""The way to the Redis that serves a key: by sentinels, and in a cluster."""

from typing import Any, Final

from odingw.state.redis.link import Link
from tests.link_case import LinkCase
from tests.process import free_port
from tests.redis_server import HOST, RedisServer
from tests.redis_sets import MASTER, Cluster, Sentinels

PASSWORD: Final = "s3cret"
CLOSED: Final = f"{HOST}:{free_port()}"


class SentinelTests(LinkCase):
    def sentinels(self, password: str | None = None) -> Sentinels:
        """Return sentinels that run until the test's end."""
        sentinels = Sentinels(password)
        self.addCleanup(sentinels.close)
        return sentinels.start()

    async def test_follows_a_failover(self) -> None:
        """The master dies; the next one is found, by another sentinel if the first is gone too."""
        sentinels = self.sentinels()
        connector = self.connector_of(sentinels.url())
        link = await self.link(connector)
        self.assertEqual(sentinels.redis[0].address, link.node)
        sentinels.redis[0].kill()
        sentinels.sentinels[0].kill()
        await self.failure(link.execute("PING"))
        await self.until(lambda: sentinels.master(1) == sentinels.redis[1].address)
        found: list[Link] = []
        await self.until_made(connector, found)
        self.assertEqual(sentinels.redis[1].address, found[0].node)
        self.assertEqual(b"master", (await found[0].execute("ROLE"))[0])

    async def until_made(self, connector: Any, found: list[Link]) -> None:
        """Try again and again, as a gateway does: a sentinel may be ahead of the new master."""
        while not found:
            try:
                found.append(await self.link(connector))
            except Exception as error:
                self.assertIn("is said to be the master", str(error))

    async def test_password_of_the_sentinels(self) -> None:
        """It is another one than that of Redis, and must be right."""
        sentinels = self.sentinels(PASSWORD)
        await self.link(self.connector_of(sentinels.url(sentinel_password=PASSWORD)))
        await self.refusal(self.connector_of(sentinels.url()), "auth")
        wrong = self.connector_of(sentinels.url(sentinel_password="wrong"))
        self.assertIn("WRONGPASS", await self.refusal(wrong, "auth"))

    async def test_a_password_of_redis_is_not_for_sentinels(self) -> None:
        """Sentinels that want none would refuse it."""
        master = self.server(password=PASSWORD)
        url = self.sentinel_url(master).replace("//", f"//:{PASSWORD}@")
        link = await self.link(self.connector_of(url))
        self.assertEqual(master.address, link.node)

    async def test_tls(self) -> None:
        """It is verified at the sentinel as at the master, each by its own authority."""
        master = self.server(tls=True)
        monitor = f"sentinel monitor {MASTER} {HOST} {master.port} 1"
        sentinel = self.server(tls=True, sentinel=True, options=("tls-replication yes", monitor))
        url = f"rediss+sentinel://{HOST}:{sentinel.port}/{MASTER}"
        both = master.ca_path.with_name("both.pem")
        both.write_bytes(master.ca_path.read_bytes() + sentinel.ca_path.read_bytes())
        link = await self.link(self.connector_of(url, both))
        self.assertEqual(master.address, link.node)
        for one in (master, sentinel):
            reason = await self.refusal(self.connector_of(url, one.ca_path))
            self.assertIn("certificate verify failed", reason)

    async def test_a_master_that_is_none(self) -> None:
        """A sentinel may be late: what it names is asked for its role."""
        master = self.server()
        replica = self.server(options=(f"replicaof {HOST} {master.port}",))
        url = self.sentinel_url(replica)
        reason = await self.refusal(self.connector_of(url), "readonly")
        self.assertIn(f"{HOST}:{replica.port} is said to be the master, but is a slave", reason)

    async def test_a_name_that_no_sentinel_knows(self) -> None:
        url = self.sentinel_url(self.server()).replace(f"master={MASTER}", "master=other")
        reason = await self.refusal(self.connector_of(url))
        self.assertIn("knows no master other", reason)
        self.assertIn(f"cannot connect to {CLOSED}", reason)

    def sentinel_url(self, master: RedisServer) -> str:
        """Return the URL of a closed port and of one sentinel, which knows a master."""
        sentinel = self.server(
            sentinel=True, options=(f"sentinel monitor {MASTER} {HOST} {master.port} 1",)
        )
        return f"redis+sentinel://{CLOSED},{HOST}:{sentinel.port}/0?master={MASTER}"


class ClusterTests(LinkCase):
    cluster: Cluster

    @classmethod
    def setUpClass(cls) -> None:
        cls.cluster = Cluster()
        cls.cluster.start()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.cluster.close()

    def keys(self) -> list[str]:
        """Return a key for each node, in their order."""
        found: dict[int, str] = {}
        number = 0
        while len(found) < len(self.cluster.nodes):
            key = f"{{odingw:pool-{number}}}:meta"
            found.setdefault(self.cluster.owner(key), key)
            number += 1
        return [found[number] for number in sorted(found)]

    async def test_each_key_has_its_node(self) -> None:
        """Whichever node is asked first, and although one of those named is away."""
        for first in range(3):
            url = f"redis+cluster://{CLOSED},{self.cluster.url(first).partition('//')[2]}"
            connector = self.connector_of(url)
            for node, key in zip(self.cluster.nodes, self.keys(), strict=True):
                link = await self.link(connector, key)
                self.assertEqual(node.address, link.node)
                await link.execute("SET", key, "value")

    async def test_follows_a_slot_that_moves(self) -> None:
        """A link to its old node says so, and the next one leads to the new node."""
        key = self.keys()[0]
        connector = self.connector_of(self.cluster.url(0))
        link = await self.link(connector, key)
        await link.execute("SET", key, "value")
        self.cluster.move(key, 2)
        try:
            self.assertIn("MOVED", await self.refused("moved", link.execute("GET", key)))
            moved = await self.link(connector, key)
            self.assertEqual(self.cluster.nodes[2].address, moved.node)
            self.assertEqual(b"value", await moved.execute("GET", key))
        finally:
            self.cluster.move(key, 0)

    async def test_nodes_announced_by_name_or_not_at_all(self) -> None:
        """Without an address, the new node is on the host that was asked (another port)."""
        key = self.keys()[1]
        connector = self.connector_of(self.cluster.url(0))
        kind = "cluster-preferred-endpoint-type"
        try:
            for name, value in (
                (kind, "unknown-endpoint"),
                ("cluster-announce-hostname", "localhost"),
                (kind, "hostname"),
            ):
                self.cluster.command_all("CONFIG", "SET", name, value)
            await self.until(lambda: "localhost" in self.moved(key))
            link = await self.link(connector, key)
            self.assertEqual(("localhost", self.cluster.nodes[1].port), link.node)
            self.cluster.command_all("CONFIG", "SET", kind, "unknown-endpoint")
            self.assertIn(" :", self.moved(key))
            link = await self.link(connector, key)
            self.assertEqual(self.cluster.nodes[1].address, link.node)
            self.cluster.command_all("CONFIG", "SET", "cluster-announce-hostname", "")
            self.cluster.command_all("CONFIG", "SET", kind, "hostname")
            await self.until(lambda: "?" in self.moved(key))
            self.assertIn("announce", await self.refusal(connector, "moved", key))
        finally:
            self.cluster.command_all("CONFIG", "SET", kind, "ip")

    def moved(self, key: str) -> str:
        """Return what the first node says of a key of another one."""
        try:
            self.cluster.nodes[0].command("GET", key)
        except RuntimeError as error:
            return str(error)
        return self.fail("not moved")

    async def test_a_slot_that_nobody_serves(self) -> None:
        node = self.server(options=("cluster-enabled yes", f"cluster-port {free_port()}"))
        connector = self.connector_of(f"redis+cluster://{HOST}:{node.port}")
        self.assertIn("CLUSTERDOWN", await self.refusal(connector, "moved", "key"))

    async def test_a_redis_that_is_no_cluster(self) -> None:
        """It serves all keys."""
        server = self.server()
        link = await self.link(self.connector_of(f"redis+cluster://{HOST}:{server.port}"), "key")
        self.assertEqual(server.address, link.node)
