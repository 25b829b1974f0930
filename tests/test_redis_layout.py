"""How the state lies in Redis: who may share it, what stands where, and what nobody has written."""

import binascii
import contextlib
from typing import Any, Final

from msgspec import msgpack
from twisted.logger import capturedLogs, formatEvent

from odingw.errors import Refused
from odingw.state.redis import line
from odingw.state.redis.reports import CHANGES
from odingw.state.redis.rows import LAYOUT
from tests.grids import Room, admission, ban, update
from tests.redis_fleet import A, B, FleetCase, TwoGatewaysCase, address_of, grid, rooms
from tests.redis_link import DirectStore

SLOTS: Final = 16384

JUNK: Final = (
    b"",
    b"junk",
    b"\xc1",
    b"\xff" * 1000,
    b"\x91" * 1000,
    b"0 x",
    msgpack.encode(1),
    msgpack.encode([]),
    msgpack.encode({"seq": 1}),
    msgpack.encode(["1", "other", "1", []]),
    msgpack.encode([None] * 30),
    msgpack.encode(["\0"] * 30),
    msgpack.encode([1e308] * 30),
)


def slot(key: str) -> int:
    """Return the slot of a key in a Redis Cluster."""
    start = key.find("{")
    end = key.find("}", start + 1) if start >= 0 else -1
    return binascii.crc_hqx((key[start + 1 : end] if end > start + 1 else key).encode(), 0) % SLOTS


class KeyTests(FleetCase):
    pools = ("", "eu", "{x", "a}b", "}", "ü", "eu:meta", "meta")

    def test_one_slot(self) -> None:
        """All keys of a pool are on one node of a Redis Cluster, and not all pools on the same."""
        gateway = self.gateway()
        for pool in self.pools:
            self.reports(gateway, A, Room(("acme", "{b}1")), pool=pool)
            for wanted in (admission("{b}2"), admission("other")):
                gateway.answer(grid(gateway, pool).connect(wanted, self.now))
            gateway.answer(grid(gateway, pool).command(update("{b}1", 1), self.now))
            gateway.answer(grid(gateway, pool).command(ban("{b}1", "eve", 9), self.now))
        slots: dict[str, set[int]] = {pool: set() for pool in self.pools}
        for key in self.server.command("KEYS", "*"):
            name = key.decode()
            if name == "{test}:fleet":
                # It keeps gateways of the version before out, which know no clusters.
                continue
            # The longest pool that fits, for one may begin as another does.
            pool = max((p for p in self.pools if name.startswith(f"{{test:{p}}}:")), key=len)
            slots[pool].add(slot(name))
        self.assertEqual({1}, {len(found) for found in slots.values()}, slots)
        self.assertGreater(len(set.union(*slots.values())), 1)
        for pool in self.pools:
            self.books(pool).check()

    def test_slot(self) -> None:
        """The examples of the Redis Cluster specification."""
        self.assertEqual(0x31C3 % SLOTS, slot("123456789"))
        self.assertEqual(slot("user1000"), slot("{user1000}.following"))
        self.assertNotEqual(slot(""), slot("foo{}{bar}"))
        self.assertEqual(slot("{bar"), slot("foo{{bar}}zap"))


class FleetTests(FleetCase):
    def setUp(self) -> None:
        super().setUp()
        self.one = self.gateway()
        self.reports(self.one, A, Room(("acme", "room")))

    def meta(self) -> list[bytes]:
        """Return what is known of the fleet."""
        found: list[bytes] = self.server.command("HGETALL", "{test:}:main")
        return found

    def test_another_master_key(self) -> None:
        """A gateway of another fleet is told so, and touches nothing."""
        before = self.meta()
        stranger = self.gateway(master_keys=(b"other",))
        self.assertIn("have another master key", stranger.refused)
        self.assertIn("state.prefix", stranger.refused)
        self.assertNotIn("other key", stranger.refused)
        self.assertNotEqual("", stranger.store.trouble)
        self.assertEqual(before, self.meta())
        self.assertEqual([], list(grid(stranger).servers()))
        self.assertEqual("", self.one.store.trouble)
        links = len(stranger.links)
        stranger.clock.pump([60.0] * 3)
        self.assertEqual(links, len(stranger.links))

    def test_other_layouts(self) -> None:
        for layout in (LAYOUT + 1, LAYOUT - 1, 99):
            self.server.command("HSET", "{test:}:main", "layout", str(layout))
            stranger = self.gateway()
            self.assertIn(f"the state in Redis has layout {layout}", stranger.refused)
            found = self.server.command("HGET", "{test:}:main", "layout")
            self.assertEqual(str(layout), found.decode())

    def test_a_report_in_several_calls(self) -> None:
        """What is too much for one call is carried out in several."""
        many = [Room(("acme", f"room{number}")) for number in range(2 * CHANGES + 10)]
        self.reports(self.one, A, *many)
        two = self.gateway()
        self.assert_agreed()
        self.assertEqual(len(many), len(rooms(two)))
        self.reports(two, A)
        self.assert_agreed()
        self.assertEqual([], rooms(self.one))

    def test_rooms_of_others_in_several_calls(self) -> None:
        """A room may win its base after the call that named the others of it."""
        many = [Room(("acme", f"{{b}}{number}"), 0) for number in range(2 * CHANGES)]
        self.reports(self.one, B)
        wanted = admission("{b}0", server=B)
        self.one.answer(grid(self.one).connect(wanted, self.now))
        self.now += 11
        self.reports(self.one, A, *many, Room(("acme", "{b}x"), 1))
        self.assert_agreed()
        self.assertEqual({A}, {view.server for view in rooms(self.one)})

    def test_others_write_in_between(self) -> None:
        """A server that reports to two gateways at a time is as it said to either."""
        two = self.gateway()
        for number in range(6):
            gateway = (self.one, two)[number % 2]
            said = [Room(("acme", f"r{n}"), n) for n in range(number % 3 + 1)]
            self.reports(gateway, A, *said)
            self.assert_agreed()
            self.assertEqual(
                {room.id: room.peers for room in said}, {v.id: v.peers for v in rooms(two)}
            )


class JunkTests(TwoGatewaysCase):
    """Rows that no gateway has written, under names that gateways use."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(line, "MOST_HEALS", 1000)
        self.fill()

    def fill(self) -> None:
        """Put one of everything into Redis."""
        self.reports(self.one, A, Room(("acme", "room"), 2), Room(("acme", "{b}1"), 1))
        self.connect(self.two, "placed")
        self.command(self.one, update("room", 1))
        self.command(self.two, ban("room", "eve", 600))
        self.one.answer(grid(self.one).give_key(A, "given", self.now))
        self.one.answer(grid(self.one).take(A))
        self.settle()

    def live(self) -> None:
        """Let everything be touched, some time go by, and everything end."""
        for gateway, user in ((self.one, "ann"), (self.two, "bob")):
            for room in ("room", "{b}2", "placed", "new"):
                self.attempt(gateway, "connect", admission(room, user=user), self.now)
            self.attempt(gateway, "command", update("room", 2), self.now)
            self.attempt(gateway, "command", ban("room", "eve", 0), self.now)
            self.attempt(gateway, "take", A)
        for _ in range(3):
            self.reports(self.one, A, Room(("acme", "room"), 3), Room(("acme", "{b}1"), 1))
            self.reports(self.two, B)
            self.wait(4)

    def attempt(self, gateway: DirectStore, method: str, *args: Any) -> None:
        """Make a call that may be refused."""
        with contextlib.suppress(Refused):
            gateway.answer(getattr(grid(gateway), method)(*args))

    def test_rows(self) -> None:
        """They are skipped, counted and named, and end nothing."""
        for name in ("servers", "bases", "places", "growth", "facts", "tasks", "flights", "rooms"):
            for junk in JUNK:
                key = self.books().key(f"rooms:{A}" if name == "rooms" else name)
                fields = [f for f in self.server.command("HKEYS", key) if f]
                for field in (*fields, b"\xff\xfe", b"7:"):
                    self.server.command("HSET", key, field, junk)
                with capturedLogs() as events:
                    self.live()
                    lines = [text for event in events if (text := formatEvent(event))]
                self.assertNotIn("Traceback", "".join(lines))
                for gateway in self.gateways:
                    self.assertEqual("", gateway.store.trouble, (name, junk))
                self.assertEqual(A, self.connect(self.two), (name, junk))
        self.assertGreater(self.one.store.skipped, 0)
        self.assertEqual([1, 1], [len(gateway.links) for gateway in self.gateways])

    def test_counts(self) -> None:
        for name in ("usage", "demo", "owes", "bans_of", "counts", f"uses:{A}"):
            for junk in (b"", b"junk", b"1.5", b"9" * 400, b"nan"):
                key = self.books().key(name)
                for field in self.server.command("HKEYS", key):
                    if field:
                        self.server.command("HSET", key, field, junk)
                self.live()
                for gateway in self.gateways:
                    self.assertEqual("", gateway.store.trouble, (name, junk))
                self.assertEqual(A, self.connect(self.two), (name, junk))

    def test_keys_of_another_kind(self) -> None:
        """Such a key is as good as gone."""
        start = self.books().key("")
        for name in ("bases", "servers", "heard", "usage", "queue", "facts", f"rooms:{A}"):
            key = self.books().key(name)
            self.server.command("DEL", key)
            self.server.command("SET", key, "junk")
            self.live()
            self.assertEqual(A, self.connect(self.two), name)
            self.assert_agreed()
        self.assertNotEqual(start, self.books().key(""))


class DeletedTests(JunkTests):
    """Keys that somebody deletes, or that Redis evicts."""

    def test_rows(self) -> None:
        """Within seconds everything is there again, and no room has moved."""
        names = {key.decode() for key in self.server.command("KEYS", "*")}
        for number, name in enumerate(sorted(names)):
            short = name.rpartition(":")[2] if ":rooms:" not in name else name
            self.now += 20
            self.fill()
            start = self.books().key("")
            key = name.replace(name[: len(start)], start) if len(name) > len(start) else name
            self.server.command("DEL", key)
            self.live()
            for gateway in self.gateways:
                self.assertEqual("", gateway.store.trouble, short)
            self.assert_agreed()
            where = {view.id[1]: view.server for view in rooms(self.one)}
            self.assertEqual((A, A), (where["room"], where["{b}1"]), (short, number))
        now = self.books().key("").encode()
        kept = {b"{test}:fleet", b"{test:}:main", b"{test:}:gateways"}
        left = set(self.server.command("KEYS", "*")) - kept
        self.assertEqual([], [key for key in left if not key.startswith(now)])

    def test_counts(self) -> None:
        """Of many keys at once it is the same."""
        self.server.command("FLUSHALL")
        self.live()
        self.assert_agreed()
        self.assertEqual(A, address_of(self.one.answer(self.again())))

    def again(self) -> Any:
        """Connect to a room that there was before."""
        return grid(self.one).connect(admission("room", user="new"), self.now)
