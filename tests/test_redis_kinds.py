"""The store over a Redis Cluster and under Sentinel, with real links and Redis's own time."""

import time
from typing import Any

from odingw.config import State
from odingw.errors import Reason, Refused
from odingw.grid.values import GridSettings
from odingw.state.redis.connector import Connector
from odingw.state.redis.pool import RedisGrid
from odingw.state.redis.store import RedisStore
from tests.grids import Room, admission, report, update
from tests.link_case import LinkCase, pause, reactor
from tests.redis_fleet import A, numbers
from tests.redis_link import Meter
from tests.redis_server import require_redis
from tests.redis_sets import Cluster, Sentinels


class KindCase(LinkCase):
    pools: tuple[str, ...] = ("",)

    def setUp(self) -> None:
        require_redis(self)

    async def gateway(self, url: str, name: str) -> RedisStore:
        """Return a gateway's store that has found its Redis."""
        state = State(url=url)
        store = RedisStore(
            GridSettings(),
            lambda _: 0,
            "test",
            (b"key",),
            name,
            Connector(state, reactor),
            reactor,
            time.time,
            self.fail,
            Meter(),
            spread=state.address.kind == "cluster",
        )
        for pool in self.pools:
            store.pool(pool)
        store.start(time.time())
        self.addCleanup(store.stop)
        await store.ready()
        return store

    def connect(self, grid: RedisGrid, room: str, user: str, **limits: Any) -> Any:
        """Let a client connect."""
        return grid.connect(admission(room, user=user, **limits), time.time())

    async def again(self, grid: RedisGrid, room: str) -> str:
        """Connect as soon as that is granted again, and return the server."""
        while True:
            try:
                placed = self.connect(grid, room, "again")
                return str((placed if hasattr(placed, "address") else await placed).address)
            except Refused as error:
                self.assertEqual(Reason.STORE_UNAVAILABLE, error.reason)
            await pause(0.05)


class ClusterTests(KindCase):
    pools = ("", "eu", "us")

    async def test_pools_in_several_slots(self) -> None:
        """Each works, and what others use counts as it was at the last look."""
        cluster = Cluster()
        self.addCleanup(cluster.close)
        cluster.start()
        one = await self.gateway(cluster.url(), "one")
        two = await self.gateway(cluster.url(0), "two")
        owners = {cluster.owner(f"{{test:{pool}}}:main") for pool in self.pools}
        self.assertGreater(len(owners), 1)
        for pool in self.pools:
            await one.pool(pool).report(report(A, Room(("acme", "room"))), time.time())
            self.assertEqual(A, (await self.connect(two.pool(pool), "room", "ann")).address)
        for pool in self.pools:
            await two.pool(pool).look()
        # Three peers and three reservations; exactly one more.
        for pool, user, granted in (("", "bob", True), ("", "eve", False), ("eu", "eve", True)):
            wanted: Any = self.connect(two.pool(pool), "room", user, max_peers=7)
            if granted:
                await wanted
            else:
                error = (await self.assertFailure(wanted, Refused)).reason
                self.assertEqual(Reason.PEER_LIMIT_EXCEEDED, error)
        for pool in self.pools:
            await two.pool(pool).look()
        refused = self.connect(two.pool("us"), "room", "eve", max_peers=7)
        await self.assertFailure(refused, Refused)
        await two.pool("eu").command(update("room", 7), time.time())
        told = await one.pool("eu").report(report(A), time.time(), take=True)
        self.assertEqual([7], numbers(told.delivery))

    async def test_a_slot_that_moves(self) -> None:
        cluster = Cluster()
        self.addCleanup(cluster.close)
        cluster.start()
        store = await self.gateway(cluster.url(), "one")
        grid = store.pool("")
        await grid.report(report(A, Room(("acme", "room"))), time.time())
        key = "{test:}:main"
        cluster.move(key, (cluster.owner(key) + 1) % 3)
        self.assertEqual(A, await self.again(grid, "room"))
        self.assertEqual(A, await self.again(grid, "new"))


class SentinelTests(KindCase):
    async def test_a_failover(self) -> None:
        """What was known is known at the new master, and new rooms are placed again."""
        sentinels = Sentinels()
        self.addCleanup(sentinels.close)
        sentinels.start()
        store = await self.gateway(sentinels.url(), "one")
        grid = store.pool("")
        await grid.report(report(A, Room(("acme", "room"))), time.time())
        await grid.command(update("room", 7), time.time())
        sentinels.redis[0].kill()
        self.assertEqual(A, await self.again(grid, "room"))
        self.assertEqual(A, await self.again(grid, "new"))
        told = await grid.report(report(A, Room(("acme", "room"))), time.time(), take=True)
        self.assertEqual([7], numbers(told.delivery))
