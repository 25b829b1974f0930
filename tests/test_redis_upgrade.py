"""A fleet of the version before is upgraded by a stop: what it has in Redis is taken over."""

from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec import json

from odingw.errors import Reason
from tests.grids import Room, admission
from tests.redis_fleet import A, B, FleetCase, grid, numbers, rooms
from tests.redis_link import DirectStore

BEFORE: Final[dict[str, list[str]]] = json.decode(
    (Path(__file__).parent / "data/redis-layout-3.json").read_bytes()
)
"""The command that makes each key, as a gateway of layout 3 left it."""


class UpgradeTests(FleetCase):
    pools = ("", "eu")

    def setUp(self) -> None:
        super().setUp()
        self.now += 60
        for key, (command, *members) in BEFORE.items():
            self.server.command(command, key, *members)
        self.before = self.copy()

    def copy(self) -> dict[str, Any]:
        """Return what the keys of layout 3 hold, but for the layout that is written there."""
        return {key: self.server.command("DUMP", key) for key in BEFORE if key != "{test}:fleet"}

    def check(self, gateway: DirectStore) -> None:
        """Check that all is there, and layout 3's keys are as they were."""
        self.assertEqual("", gateway.store.trouble)
        self.assert_agreed()
        self.assertEqual(self.before, self.copy())
        found = {view.id: view for view in rooms(gateway)}
        # Reported: 30 rooms, two of one base, one of odd letters, one of B; and one placed.
        self.assertEqual(35, len(found))
        self.assertEqual((A, 3), (found["acme", "room3"].server, found["acme", "room3"].peers))
        self.assertEqual("beta", found["acme", 'quo"te\n\\é'].customer)
        self.assertEqual([1, 1], [found["acme", name].reservations for name in ("placed", "room1")])
        views = {view.address: view for view in grid(gateway).servers()}
        self.assertEqual(
            {A: (False, "given-a"), B: (True, f"kid-{B}")},
            {address: (view.drained, view.kid) for address, view in views.items()},
        )
        self.assertEqual([True, True], [view.unheard for view in views.values()])
        self.assertEqual((0.6, 100), (views[A].load, views[A].clients))
        self.assertGreater(views[A].expected_load, 0.4)

    def use(self, gateway: DirectStore) -> None:
        """Check that bans hold, tasks arrive once, and servers are heard again."""
        for reason, room, user, pool in (
            (Reason.USER_BANNED, "room2", "eve", ""),
            (Reason.ROOM_BANNED, "of b", "ann", ""),
            (Reason.USER_BANNED, "euroom", "eve", "eu"),
        ):
            wanted = admission(room, user=user)
            of_pool = grid(gateway, pool)
            self.refused(reason, gateway, partial(of_pool.connect, wanted, self.now))
        placed = gateway.answer(grid(gateway).connect(admission("room3"), self.now))
        self.assertEqual((A, "existing", "given-a"), (placed.address, placed.how, placed.kid))
        delivery = gateway.answer(grid(gateway).take(A))
        self.assertEqual([1, 2, 3], numbers(delivery))
        self.assertEqual([1, 1, 1, 1], [task.returned for task in delivery.tasks])
        grid(gateway).acknowledge(delivery)
        self.assertEqual([], self.taken(gateway, A))
        told = self.reports(gateway, A, Room(("acme", "room3"), 3))
        self.assertEqual((), told.events, "it was known")
        self.assertEqual("given-c", self.books().rows("facts")["gc.test:4433"][1])
        self.assert_agreed()

    def test_all_comes_over(self) -> None:
        gateway = self.gateway()
        self.check(gateway)
        self.use(gateway)
        other = self.gateway()
        self.assertEqual([], self.taken(other, A), "it comes over once")

    def test_killed_in_between(self) -> None:
        """After each of its calls; another one takes over when the lease of that one is over."""
        calls = 0
        while True:
            calls += 1
            self.server.command("FLUSHALL")
            for key, (command, *members) in BEFORE.items():
                self.server.command(command, key, *members)
            first = self.killed_after(calls)
            if not first.store.trouble:
                break
            early = self.gateway()
            if early.store.trouble:
                self.assertIn("another gateway takes over", early.store.trouble)
                self.now += 6
                early.now = self.now
                for _, pool in early.store.pools():
                    pool.now = self.now
                early.back()
            self.check(early)
            self.use(early)
            early.kill()
            self.gateways.clear()
        self.assertGreater(calls, 15)

    def killed_after(self, calls: int) -> DirectStore:
        """Return a gateway that ended after so many commands."""
        left = calls
        gateway = DirectStore(self.server, (), self.now, name="gateway-killed")
        for pool in self.pools:
            gateway.store.pool(pool)
        connect = gateway._connect

        async def counted(key: str) -> Any:
            link: Any = await connect(key)
            execute = link.execute

            def count(*command: str | bytes) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    gateway.away = True
                    link.close()
                return execute(*command)

            link.execute = count
            return link

        gateway._connect = counted  # type: ignore[method-assign]  # to end it in between
        gateway.store.start(self.now)
        gateway.settle()
        gateway.kill()
        return gateway

    def test_gateways_that_still_run(self) -> None:
        """Nothing is taken over beside them."""
        self.server.command("HSET", "{test:}:members", "gateway-old", str(self.now - 1))
        gateway = self.gateway()
        self.assertIn("still run", gateway.store.trouble)
        self.assertEqual(0, self.server.command("HEXISTS", "{test:}:main", "epoch"))
        self.now += 6
        for _, pool in gateway.store.pools():
            pool.now = self.now
        gateway.back()
        self.check(gateway)

    def test_they_are_kept_out_afterwards(self) -> None:
        """Layout 3 works beside 2 to 4, and says what it found."""
        self.gateway()
        self.assertEqual(b"5", self.server.command("HGET", "{test}:fleet", "layout"))

    def test_another_master_key(self) -> None:
        stranger = self.gateway(master_keys=(b"other",))
        self.assertIn("have another master key", stranger.refused)
        self.gateways.clear()
        self.check(self.gateway())

    def test_rows_that_cannot_be_read(self) -> None:
        for name in ("servers", "rooms", "places", "bans", "tasks", "keys", "at", "bases"):
            self.server.command("HSET", f"{{test:}}:{name}", "junk", "junk")
        self.before = self.copy()
        gateway = self.gateway()
        self.check(gateway)
        self.assertGreater(gateway.store.skipped, 4)
