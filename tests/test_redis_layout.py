"""How the state lies in Redis: who may share it, what stands where, and that nothing is left."""

import binascii
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Refused
from odingw.state.redis import exchange
from odingw.state.redis.exchange import MOST
from odingw.state.redis.layout import LAYOUT, OLDEST, Keys, read_place, read_server
from tests.grids import Room, admission, ban, update
from tests.redis_fleet import A, B, FleetCase, address_of, grid, last
from tests.redis_link import DirectStore

SLOTS: Final = 16384


class KeyTests(SynchronousTestCase):
    def test_one_slot(self) -> None:
        """All that one commit touches is on one node of a Redis Cluster."""
        for prefix in ("odingw", "a:b", ""):
            slots: list[int] = []
            for pool in ("", "eu", "{x", "a}b", "}", "ü"):
                keys = Keys(prefix, pool)
                found = {slot(key) for key in (*keys.all, keys.channel)}
                self.assertEqual(1, len(found), keys.all)
                slots += found
            self.assertGreater(len(set(slots)), 1)

    def test_slot(self) -> None:
        """The examples of the Redis Cluster specification."""
        self.assertEqual(0x31C3 % SLOTS, slot("123456789"))
        self.assertEqual(slot("user1000"), slot("{user1000}.following"))
        self.assertNotEqual(slot(""), slot("foo{}{bar}"))
        self.assertEqual(slot("{bar"), slot("foo{{bar}}zap"))

    def test_pools_have_their_own_keys(self) -> None:
        pools = ("", "eu", "eu:meta", "meta")
        every = [key for pool in pools for key in (*Keys("p", pool).all, Keys("p", pool).channel)]
        self.assertEqual(len(every), len(set(every)))

    def test_rows_of_a_later_layout(self) -> None:
        """Members that are not known yet are passed over."""
        self.assertEqual("acme", read_place('5.0 [5.0,"acme","other",1.0,["new"]]').customer)
        row = '["kid","1.5.0",0,0,0,0,3,1.5,2.5,false,true,"new"]'
        self.assertEqual((3, True), (read_server(row).clients, read_server(row).drained))


def slot(key: str) -> int:
    """Return the slot of a key in a Redis Cluster."""
    start = key.find("{")
    end = key.find("}", start + 1) if start >= 0 else -1
    return binascii.crc_hqx((key[start + 1 : end] if end > start + 1 else key).encode(), 0) % SLOTS


class FleetTests(FleetCase):
    def setUp(self) -> None:
        super().setUp()
        self.one = self.gateway()
        self.reports(self.one, A, Room(("acme", "room")))

    def connect(self, gateway: DirectStore, room: str, user: str = "user") -> str:
        """Let a client connect, and all hear of it."""
        eventual = grid(gateway).connect(admission(room, user=user), self.now)
        address = address_of(gateway.answer(eventual))
        self.settle()
        return address

    def test_another_master_key(self) -> None:
        """A gateway of another fleet is told so, and touches nothing."""
        before = self.server.command("HGETALL", "{test}:fleet")
        stranger = self.gateway(master_key=b"other")
        self.assertIn("have another master key", stranger.refused)
        self.assertIn("state.prefix", stranger.refused)
        self.assertNotIn("other key", stranger.refused)
        self.assertNotEqual("", stranger.store.trouble)
        self.assertEqual(before, self.server.command("HGETALL", "{test}:fleet"))
        self.assertEqual([], list(grid(stranger).servers()))
        self.assertEqual("", self.one.store.trouble)
        stranger.link = None
        stranger.clock.pump([60.0] * 3)
        self.assertIsNone(stranger.link)

    def test_layouts_that_are_too_far(self) -> None:
        for layout in (LAYOUT + 2, 9, OLDEST - 1):
            self.server.command("HSET", "{test}:fleet", "layout", str(layout))
            stranger = self.gateway()
            self.assertIn(f"the state in Redis has layout {layout}", stranger.refused)
            found = self.server.command("HGET", "{test}:fleet", "layout")
            self.assertEqual(str(layout), found.decode())

    def test_next_layout(self) -> None:
        """This version goes on beside the next one, and does not take its layout back."""
        self.server.command("HSET", "{test}:fleet", "layout", str(LAYOUT + 1))
        two = self.gateway()
        self.assertEqual("", two.refused)
        self.assertEqual(A, self.connect(two, "room"))
        found = self.server.command("HGET", "{test}:fleet", "layout")
        self.assertEqual(str(LAYOUT + 1), found.decode())

    def test_the_layout_before(self) -> None:
        """A gateway of the version before joins, works and leaves; nothing is lost."""
        self.connect(self.one, "new")
        old = self.gateway(last, layout=OLDEST)
        self.assertEqual("", old.refused)
        self.assert_agreed()
        self.reports(old, B, Room(("acme", "of old"), peers=2))
        self.connect(old, "new", "bob")
        self.assertEqual(A, self.connect(self.one, "room", "ann"))
        placed = self.connect(old, "placed by old")
        self.assertEqual(placed, self.connect(self.one, "placed by old", "ann"))
        self.assertEqual(
            self.connect(self.one, "placed by new"), self.connect(old, "placed by new", "bob")
        )
        for number, gateway in enumerate((old, self.one, old), 1):
            gateway.answer(grid(gateway).command(update("of old", number), self.now))
        old.answer(grid(old).command(ban("room", "eve", 60), self.now))
        self.settle()
        self.assert_agreed()
        self.successResultOf(_stop(old))
        self.gateways.remove(old)
        newcomer = self.gateway()
        self.assert_agreed()
        self.assertEqual([1, 2, 3], self.taken(newcomer, B))
        wanted = admission("room", user="eve")
        self.assertRaises(
            Refused, lambda: newcomer.answer(grid(newcomer).connect(wanted, self.now))
        )
        self.assertEqual(placed, self.connect(newcomer, "placed by old"))
        layout = self.server.command("HGET", "{test}:fleet", "layout")
        self.assertEqual(str(LAYOUT), layout.decode())

    def test_upgrade(self) -> None:
        """A fleet of the layout before becomes one of this layout."""
        self.server.command("FLUSHALL")
        self.one.kill()
        self.gateways.clear()
        old = self.gateway(layout=OLDEST)
        self.reports(old, A, Room(("acme", "room"), peers=3))
        self.connect(old, "placed")
        old.answer(grid(old).command(update("room", 1), self.now))
        self.settle()
        self.successResultOf(_stop(old))
        self.gateways.clear()
        new = self.gateway()
        self.assertEqual(
            [(3, 1, 2)], [(u.peers, u.reservations, u.rooms) for u in new.store.usage()]
        )
        self.assertEqual([1], self.taken(new, A))

    def test_a_base_that_goes_on_is_there_between_two_commits(self) -> None:
        """Its last reserved place is taken in the report that names its room for the first time."""
        self.patch(exchange, "MOST", 1)
        self.connect(self.one, "fresh")
        self.assertIn('["acme","fresh"]', self.fields("bases"))
        seen: list[bool] = []
        commit = exchange.Exchange._commit_slice

        def watched(one: exchange.Exchange, operations: Any) -> Any:
            return commit(one, operations).addCallback(note)

        def note(answer: Any) -> Any:
            seen.append('["acme","fresh"]' in self.fields("bases"))
            return answer

        self.patch(exchange.Exchange, "_commit_slice", watched)
        self.reports(self.one, A, Room(("acme", "fresh"), peers=3))
        self.assertEqual([(3, 0)], [(u.peers, u.reservations) for u in self.one.store.usage()])
        self.assertGreater(len(seen), 1)
        self.assertNotIn(False, seen)

    def test_large_commit(self) -> None:
        """What is too much for one commit is carried out in several."""
        rooms = [Room(("acme", f"room{number}")) for number in range(2 * MOST + 10)]
        self.reports(self.one, A, *rooms)
        two = self.gateway()
        self.assert_agreed()
        self.assertEqual(len(rooms), len(list(grid(two).rooms())))
        self.reports(two, A)
        self.assert_agreed()
        self.assertEqual(set(), self.left())


def _stop(gateway: DirectStore) -> Any:
    ended = gateway.store.stop()
    gateway.cut()
    return ended
