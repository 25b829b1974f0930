"""Which key a server was given is known to every store, over restarts, outages and upgrades."""

import sqlite3
from typing import Any, Final

from msgspec import json
from twisted.trial.unittest import SynchronousTestCase

from odingw.grid import registry
from odingw.grid.values import GridSettings, Placed
from tests.grids import Room, admission, report
from tests.local_file import FaultCase
from tests.redis_fleet import A, B, C, FleetCase, TwoGatewaysCase, grid
from tests.redis_link import DirectStore
from tests.redis_server import RedisServer, require_redis
from tests.stores import LocalWorld, MemoryWorld, RedisWorld, World

SETTINGS: Final = GridSettings(remove_timeout=20)
POOLS: Final = ("", "eu")


class KeyContract:
    """The promises; a subclass says of which store."""

    world: World

    def do(self, method: str, *args: Any, pool: str = "") -> Any:
        """Make a call and return what it is answered with."""
        return self.world.answer(getattr(self.world.pool(pool), method)(*args))

    def kid(self, now: float, room: str = "room", *, pool: str = "") -> str:
        """Return which key the server of a room is taken to have."""
        placed: Placed = self.do("connect", admission(room), now, pool=pool)
        assert placed.address == A
        return placed.kid

    def test_what_a_server_was_given_counts(self) -> None:
        """Whatever is thought of it when it reports, and over restarts."""
        assert self.do("give_key", A, "given", 1) == "given"
        self.do("report", report(A), 2)
        assert self.kid(2) == "given"
        self.world.restart(3)
        assert self.kid(3) == "given"
        self.do("report", report(A), 4)
        assert self.kid(4) == "given"
        assert self.do("give_key", A, "later", 5) == "later"
        assert self.kid(5) == "later"
        self.world.restart(6)
        assert self.kid(6) == "later"

    def test_what_was_given_before_the_first_report(self) -> None:
        """A gateway that starts between the two knows of it."""
        self.do("give_key", A, "given", 1)
        self.world.restart(2)
        self.do("report", report(A), 3)
        assert self.kid(3) == "given"

    def test_what_nobody_knows(self) -> None:
        """A server that was never given a key has that of its first report; that stays so."""
        self.do("report", report(A), 1)
        assert self.kid(1) == f"kid-{A}"
        self.world.restart(2)
        assert self.kid(2) == f"kid-{A}"

    def test_a_server_that_was_forgotten(self) -> None:
        """It may come back, and have its key still."""
        self.do("give_key", A, "given", 1)
        self.do("report", report(A), 2)
        for now in range(3, 30):
            self.world.store.tick(now)
        self.world.settle()
        assert list(self.world.pool().servers()) == []
        assert self.world.pool().address_of_key("given") is None
        self.world.restart(30)
        self.do("report", report(A), 31)
        assert self.kid(31) == "given"
        assert self.world.pool().address_of_key("given") == A

    def test_whose_key_it_is(self) -> None:
        """Only of servers that are there, and of what they have now."""
        self.do("give_key", A, "given", 1)
        assert self.world.pool().address_of_key("given") is None
        assert set(self.world.pool().addresses()) == set()
        self.do("report", report(A), 1)
        assert self.world.pool().address_of_key("given") == A
        assert set(self.world.pool().addresses()) == {A}
        self.do("give_key", A, "later", 1)
        assert self.world.pool().address_of_key("given") is None
        assert self.world.pool().address_of_key("later") == A

    def test_the_last_word_counts_whatever_the_clock_says(self) -> None:
        self.do("report", report(A), 1)
        self.do("give_key", A, "first", 100)
        self.do("give_key", A, "last", 50)
        assert self.kid(50) == "last"
        self.world.restart(51)
        assert self.kid(51) == "last"

    def test_pools_are_apart(self) -> None:
        self.do("give_key", A, "given", 1, pool="eu")
        for pool, kid in (("", f"kid-{A}"), ("eu", "given")):
            self.do("report", report(A), 1, pool=pool)
            assert self.kid(1, pool=pool) == kid

    def test_keys_of_others_are_bounded(self) -> None:
        """Those of servers that are there are kept, and of the others the last ones."""
        self.patch(registry, "KEYS_OF_OTHERS", 2)  # type: ignore[attr-defined]  # of TestCase
        self.world.restart(0)
        self.do("give_key", A, "given", 1)
        self.do("report", report(A), 1)
        for number in range(4):
            self.do("give_key", f"{number}.test:1", f"kid-{number}", 2 + number)
        self.world.restart(7)
        for number, kid in enumerate(("unknown", "unknown", "kid-2", "kid-3")):
            address = f"{number}.test:1"
            said = report(address)
            self.do("report", type(said)(address, "unknown", "1", 0.0, 0, ()), 8)
            kids = {view.address: view.kid for view in self.world.pool().servers()}
            assert kids[address] == kid, number
        assert kids[A] == "given"


class MemoryKeyTests(KeyContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.world = MemoryWorld(SETTINGS, POOLS)


class LocalKeyTests(KeyContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.world = LocalWorld(SETTINGS, POOLS)
        self.addCleanup(self.world.close)


class RedisKeyTests(KeyContract, SynchronousTestCase):
    def setUp(self) -> None:
        require_redis(self)
        server = RedisServer(persistent=False).start()
        self.addCleanup(server.close)
        self.world = RedisWorld(server, SETTINGS, POOLS)
        self.addCleanup(self.world.close)


class JournalTests(FaultCase):
    """A journal that fails, and one of the version before."""

    def kid(self, store: Any) -> str:
        """Return which key the server is taken to have."""
        (server,) = store.pool("").servers()
        found: str = server.kid
        return found

    def test_a_key_that_cannot_be_stored_is_not_given(self) -> None:
        """The server goes on with the one before, with which every later gateway signs."""
        store = self.open()
        grid = store.pool("")
        self.assertEqual("old", self.answer(grid.give_key(A, "old", 0)))
        grid.report(report(A), 0)
        self.clock.advance(1)
        self.disk_full = True
        for now in (1, 2):
            self.assertEqual("old", self.answer(grid.give_key(A, "new", now)))
            self.assertEqual("old", self.kid(store))
            self.assertNotEqual("", store.trouble)
        self.disk_full = False
        self.clock.advance(2)
        self.assertEqual("old", self.kid(self.reopen(3)))

    def test_a_first_key_is_given_all_the_same(self) -> None:
        """A server must be able to start; nobody had another key in mind for it."""
        store = self.open()
        self.disk_full = True
        self.assertEqual("new", self.answer(store.pool("").give_key(A, "new", 0)))
        self.assertEqual("new", self.answer(store.pool("").give_key(A, "new", 0)))
        self.disk_full = False
        self.clock.advance(2)
        store = self.reopen(3)
        store.pool("").report(report(A), 3)
        self.assertEqual("new", self.kid(store))

    def test_a_journal_of_the_version_before(self) -> None:
        """Its servers have the key that their rows name: there was but one master key."""
        store = self.open()
        store.pool("").report(report(A, Room(("acme", "room"))), 0)
        self.clock.advance(1)
        self.file.close()
        with sqlite3.connect(self.path) as connection:
            rows = dict(connection.execute("SELECT kind, row FROM record"))
            self.assertEqual({"server", "base", "room"}, set(rows))
            self.assertEqual(11, len(json.decode(rows["server"])))
        connection.close()
        store = self.open(1)
        self.assertEqual(f"kid-{A}", self.kid(store))
        store.pool("").report(
            type(report(A))(A, "new", "1.5.0", 0.0, 1, [[Room(("acme", "room"))]]), 2
        )
        self.assertEqual(f"kid-{A}", self.kid(store))


class SharedKeyTests(TwoGatewaysCase):
    """Gateways that share a Redis know what each of them has given."""

    def kids(self, address: str = A) -> list[str]:
        """Return which key each gateway takes a server to have."""
        return [
            view.kid
            for gateway in self.gateways
            for view in grid(gateway).servers()
            if view.address == address
        ]

    def give(self, gateway: DirectStore, kid: str, address: str = A) -> Any:
        """Give a server a key, and let all hear of it."""
        given = gateway.answer(grid(gateway).give_key(address, kid, self.now))
        self.settle()
        return given

    def cut(self, gateway: DirectStore) -> None:
        """Let a gateway lose Redis."""
        gateway.cut()

    def back(self, gateway: DirectStore) -> None:
        """Let it find Redis again."""
        gateway.now = self.now
        gateway.back()
        self.settle()

    def test_all_know(self) -> None:
        for gateway, kid in ((self.one, "old"), (self.two, "new"), (self.one, "old")):
            self.assertEqual(kid, self.give(gateway, kid))
            self.assertEqual([kid, kid], self.kids())
        self.give(self.two, "new", C)
        self.reports(self.one, C)
        self.gateway()
        self.assertEqual(["new"] * 3, self.kids(C))
        self.assertEqual(["old"] * 3, self.kids())
        self.assert_agreed()

    def test_it_is_given_when_all_can_know(self) -> None:
        self.give(self.one, "new")
        self.assertEqual("new", self.books().rows("facts")[f"g{A}"][1])

    def test_the_key_before_is_given_while_redis_is_away(self) -> None:
        self.give(self.one, "old")
        self.cut(self.one)
        self.assertEqual("old", self.give(self.one, "new"))
        self.assertEqual(["old", "old"], self.kids())
        self.assertEqual("new", self.give(self.two, "new"))
        self.back(self.one)
        self.assertEqual(["new", "new"], self.kids())

    def test_a_first_key_is_given_while_redis_is_away(self) -> None:
        """It is told when Redis is back, unless somebody has given another one since."""
        for address in (C, "d.test:1"):
            self.cut(self.one)
            self.assertEqual("old", self.give(self.one, "old", address))
            self.now += 1
            if address != C:
                self.give(self.two, "new", address)
            self.back(self.one)
            self.reports(self.two, address)
            self.assertEqual(["old" if address == C else "new"] * 2, self.kids(address))

    def test_redis_that_goes_away_in_between(self) -> None:
        """Whether it took note, nobody knows: the server keeps its key, and Redis is told so."""
        self.give(self.one, "old")
        for ends in ("before", "after"):
            self.now += 1
            self.one.link.ends = ends
            self.one.away = True
            given = grid(self.one).give_key(A, "new", self.now)
            self.assertEqual("old", self.successResultOf(given))
            self.back(self.one)
            self.assertEqual(["old", "old"], self.kids())

    def test_a_first_key_when_redis_goes_away_in_between(self) -> None:
        self.one.link.ends = "before"
        self.one.away = True
        given = grid(self.one).give_key(C, "new", self.now)
        self.assertEqual("new", self.successResultOf(given))
        self.back(self.one)
        self.reports(self.two, C)
        self.assertEqual(["new", "new"], self.kids(C))

    def test_an_empty_redis_is_told_again(self) -> None:
        self.give(self.one, "given")
        for gateway in self.gateways:
            self.cut(gateway)
        self.server.command("FLUSHALL")
        self.back(self.one)
        self.back(self.two)
        self.gateway()
        self.assertEqual(["given"] * 3, self.kids())

    def test_what_is_forgotten_is_gone_everywhere(self) -> None:
        self.patch(registry, "KEYS_OF_OTHERS", 1)
        one = self.gateway()
        for address in (A, B, C):
            self.give(one, "given", address)
        self.cut(self.two)
        self.give(one, "d", "d.test:1")
        self.assertEqual({f"g{A}", f"g{B}", "gd.test:1"}, set(self.books().rows("facts")))
        self.back(self.two)
        self.reports(self.two, C)
        self.assertEqual([f"kid-{C}"] * 3, self.kids(C))


class FleetKeyTests(FleetCase):
    """Whose master keys fit to those of the fleet."""

    def fingerprint(self) -> Any:
        """Return what Redis knows of the fleet's master key."""
        return self.server.command("HGET", "{test:}:main", "key")

    def joins(self, master_key: bytes, *older: bytes) -> bool:
        """Tell whether a gateway with these master keys is let in."""
        gateway = self.gateway(master_keys=(master_key, *older))
        return not gateway.refused and not gateway.store.trouble

    def test_the_safe_order(self) -> None:
        """Two gateways, restarted one by one at every step; nobody is refused at any time."""
        prints = []
        for keys in ((b"old",), (b"old", b"new"), (b"new", b"old"), (b"new",)):
            for _ in range(2):
                self.assertTrue(self.joins(*keys), keys)
            prints.append(self.fingerprint())
        self.assertEqual(prints[0], prints[1])
        self.assertNotEqual(prints[1], prints[2])
        self.assertEqual(prints[2], prints[3])

    def test_those_who_come_back_in_the_middle(self) -> None:
        """A gateway of the step before or after may lose its connection at any time."""
        for keys in ((b"old", b"new"), (b"new", b"old"), (b"old", b"new"), (b"new", b"old")):
            self.assertTrue(self.joins(*keys))

    def test_strangers_are_refused(self) -> None:
        """Who does not know the fleet's master key is no part of it, and changes nothing."""
        self.assertTrue(self.joins(b"old"))
        before = self.fingerprint()
        for keys in ((b"new",), (b"new", b"other"), (b"old ",)):
            self.assertFalse(self.joins(*keys), keys)
        self.assertEqual(before, self.fingerprint())
        self.assertTrue(self.joins(b"new", b"old"))
        self.assertFalse(self.joins(b"old"), "it would sign with a key that servers do not have")
        self.assertNotIn(b"new", self.fingerprint())
