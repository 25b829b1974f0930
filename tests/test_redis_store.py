"""Two gateways over one Redis: one grid, wherever a client, a server or a backend comes in."""

from typing import Any

from odingw.errors import Reason, Refused
from odingw.grid.values import (
    GridSettings,
    ServerAttached,
    ServerDisabled,
    ServerRemoved,
)
from tests.grids import Room, admission, ban, close, report, update
from tests.redis_fleet import A, B, C, TwoGatewaysCase, address_of, grid
from tests.redis_link import DirectStore


class PlacementTests(TwoGatewaysCase):
    def test_race(self) -> None:
        """Two that place one base at the same time answer with one server."""
        eventual = [
            grid(gateway).connect(admission("{room}" + user, user=user), self.now)
            for gateway, user in ((self.one, "ann"), (self.two, "bob"))
        ]
        thought = [next(iter(grid(each).rooms())).server for each in (self.one, self.two)]
        self.assertEqual([A, B], thought)
        placed = [
            gateway.answer(each) for gateway, each in zip(self.gateways, eventual, strict=True)
        ]
        self.assertEqual(1, len({each.address for each in placed}))
        self.settle()
        self.assert_agreed()
        self.assertEqual(["0 " + placed[0].address], self.hash_values("bases"))
        self.assertEqual([2], [usage.reservations for usage in self.one.store.usage()])

    def hash_values(self, name: str) -> list[str]:
        """Return what the fields of a hash hold."""
        return [value.decode() for value in self.server.command("HVALS", self.mine(name))]

    def test_race_of_many(self) -> None:
        """So they do where each is the quicker one for some of the bases."""
        rooms = [f"room{number}" for number in range(20)]
        started = [
            (gateway, room, grid(gateway).connect(admission(room, user=name), self.now))
            for room in rooms
            for name, gateway in (("ann", self.one), ("bob", self.two))
        ]
        found: dict[str, set[str]] = {}
        for number, (gateway, room, eventual) in enumerate(started):
            found.setdefault(room, set()).add(address_of(gateway.answer(eventual)))
            if number % 7 == 0:
                self.settle()
        self.settle()
        self.assertEqual({1}, {len(servers) for servers in found.values()})
        self.assertEqual({A, B}, set.union(*found.values()))
        self.assert_agreed()

    def test_report_against_connect(self) -> None:
        """A server that carries a room with peers has it, whatever another gateway thinks."""
        eventual = grid(self.one).connect(admission("room"), self.now)
        self.reports(self.two, B, Room(("acme", "room")))
        self.assertEqual(B, address_of(self.one.answer(eventual)))
        self.settle()
        self.assert_agreed()

    def test_room_that_ends_as_a_client_comes(self) -> None:
        """Who saw the room's end learns nevertheless of the client, who keeps it placed."""
        self.reports(self.one, A, Room(("acme", "room")))
        self.connect(self.two)
        grid(self.one).report(report(A), self.now)
        self.settle()
        self.assert_agreed()
        self.assertEqual([1], [usage.reservations for usage in self.one.store.usage()])

    def test_own_word_that_is_heard_late(self) -> None:
        """What a gateway hears of its own older commit does not undo a newer one."""
        self.connect(self.one, server=B)
        self.command(self.one, update("room", 1))
        self.settle()
        for peers in (3, 2):
            grid(self.two).report(report(A, Room(("acme", "room"), peers)), self.now)
            self.two.clock.advance(0)
        self.settle()
        self.assert_agreed()
        self.assertEqual([2], [view.peers for view in grid(self.two).rooms()])

    def test_two_servers_with_one_room(self) -> None:
        """The one that Redis knew first keeps it; the other is told to close it."""
        room = Room(("acme", "room"), peers=2)
        for gateway, address in ((self.one, A), (self.two, B)):
            grid(gateway).report(report(address, room), self.now)
        self.settle()
        self.assert_agreed()
        closes = {
            (address, close.id)
            for gateway, address in ((self.one, A), (self.two, B))
            for close in self.reports(gateway, address, room).closes
        }
        self.assertEqual({(B, ("acme", "room"))}, closes)
        self.assertEqual([2], [usage.peers for usage in self.two.store.usage()])

    def test_a_room_that_another_gateway_has_just_placed_is_not_taken(self) -> None:
        """The gateway that its second server reports to has not heard of the place yet."""
        room = Room(("acme", "room"), peers=2)
        self.now += 1
        self.assertEqual(A, self.connect(self.one, server=A))
        grid(self.two).report(report(B, room), self.now + 1)
        self.settle()
        self.assert_agreed()
        self.assertEqual([A], [view.server for view in grid(self.two).rooms()])
        self.now += 5
        told = self.reports(self.two, B, room)
        self.assertEqual([room.id], [task.id for task in told.closes])
        self.assert_agreed()

    def test_a_room_that_a_new_server_brings_is_its_own(self) -> None:
        """Another gateway has just placed it elsewhere."""
        self.now += 1
        self.assertEqual(A, self.connect(self.one, server=A))
        grid(self.two).report(report(C, Room(("acme", "room"), peers=2)), self.now + 1)
        self.settle()
        self.assert_agreed()
        self.assertEqual([C], [view.server for view in grid(self.one).rooms()])

    def test_a_server_that_reports_to_two_gateways_is_known_to_both(self) -> None:
        """What it reported to one tells the other that it did not have the room."""
        self.now += 1
        self.assertEqual(A, self.connect(self.one, server=A))
        self.settle()
        self.now += 1
        told = self.reports(self.one, B, Room(("acme", "room"), peers=2))
        self.assertEqual(1, len(told.closes))
        self.assert_agreed()

    def test_no_server_for_a_room_that_another_has_placed(self) -> None:
        """A room that another gateway has placed needs no server that is open."""
        self.connect(self.one)
        self.settle()
        for address in (A, B):
            self.one.answer(grid(self.one).drain(address, True))
        self.settle()
        self.assertEqual(A, self.connect(self.two, user="bob"))
        self.refused(
            Reason.NO_SERVER, self.two, lambda: grid(self.two).connect(admission("new"), self.now)
        )


class BanTests(TwoGatewaysCase):
    def setUp(self) -> None:
        super().setUp()
        self.reports(self.one, A, Room(("acme", "room")))

    def try_to_connect(self, reason: Reason, user: str = "user") -> Refused:
        """Connect at the second gateway, and be refused."""
        return self.refused_entry(reason, self.two, admission("room", user=user))

    def test_room(self) -> None:
        """A ban holds everywhere from the moment at which it is answered."""
        self.command(self.one, close("room", 60))
        self.assertEqual({}, grid(self.two).replica.bans)
        error = self.try_to_connect(Reason.ROOM_BANNED)
        assert error.data is not None
        self.assertEqual(60, round(error.data["retry_after"]))
        self.settle()
        self.try_to_connect(Reason.ROOM_BANNED)

    def test_user(self) -> None:
        self.command(self.one, ban("room", "eve", 60))
        self.assertEqual({}, grid(self.two).replica.bans)
        self.assertEqual(A, self.connect(self.two, user="ann"))
        self.command(self.one, ban("room", "eve", 30))
        self.try_to_connect(Reason.USER_BANNED, user="eve")
        self.settle()
        self.assert_agreed()

    def test_user_of_another_room_of_the_token(self) -> None:
        """A ban in any of the token's rooms counts."""
        self.reports(self.one, A, Room(("acme", "{room}a")))
        self.command(self.one, ban("{room}a", "eve", 60))
        adm = admission("{room}a", "{room}b", user="eve")
        self.refused(Reason.USER_BANNED, self.two, lambda: grid(self.two).connect(adm, self.now))

    def test_who_is_refused_has_no_place(self) -> None:
        """A banned client's try counts for no limit."""
        self.command(self.one, ban("room", "eve", 60))
        self.try_to_connect(Reason.USER_BANNED, user="eve")
        self.settle()
        self.assertEqual([0], [usage.reservations for usage in self.two.store.usage()])

    def test_lifted(self) -> None:
        self.command(self.one, ban("room", "eve", 60))
        self.settle()
        self.try_to_connect(Reason.USER_BANNED, user="eve")
        self.command(self.two, ban("room", "eve", 0))
        self.assertEqual(A, self.connect(self.two, user="eve"))
        self.settle()
        self.assertEqual(A, self.connect(self.one, user="eve"))

    def test_over(self) -> None:
        """A ban that is over is taken out of Redis, by whichever gateway."""
        self.command(self.one, ban("room", "eve", 3))
        self.settle()
        self.wait(4)
        self.assertEqual(A, self.connect(self.two, user="eve"))
        self.assertEqual(0, self.server.command("EXISTS", self.mine("bans")))

    def test_replaced_as_it_ends(self) -> None:
        """A gateway that has not heard of a longer ban does not end it with the shorter one."""
        self.command(self.one, ban("room", "eve", 3))
        self.settle()
        self.now += 4
        self.command(self.two, ban("room", "eve", 60))
        self.one.now = self.now
        self.one.store.tick(self.now)
        self.settle()
        self.try_to_connect(Reason.USER_BANNED, user="eve")
        self.refused(
            Reason.USER_BANNED,
            self.one,
            lambda: grid(self.one).connect(admission("room", user="eve"), self.now),
        )


class LimitTests(TwoGatewaysCase):
    def test_peers(self) -> None:
        """More get in than the limit allows, but only by what is not yet heard."""
        for user in ("u1", "u2"):
            self.connect(self.one, user=user, max_peers=4)
        self.settle()
        self.connect(self.one, user="u3", max_peers=4)
        wanted = [admission("room", user=f"v{n}", max_peers=4) for n in range(3)]
        started = [grid(self.two).connect(each, self.now) for each in wanted[:2]]
        self.refused(
            Reason.PEER_LIMIT_EXCEEDED, self.two, lambda: grid(self.two).connect(wanted[2], 0)
        )
        for eventual in started:
            self.two.answer(eventual)
        self.settle()
        self.assertEqual([5], [usage.reservations for usage in self.one.store.usage()])
        self.assert_agreed()
        for gateway in (self.one, self.two):
            adm = admission("room", user="w", max_peers=5)
            self.refused_entry(Reason.PEER_LIMIT_EXCEEDED, gateway, adm)

    def test_one_client_counts_once(self) -> None:
        """A client that comes to both gateways has one place."""
        for gateway in (self.one, self.two, self.one):
            self.connect(gateway, user="ann", max_peers=1)
            self.settle()
        self.assertEqual([1], [usage.reservations for usage in self.two.store.usage()])

    def test_rooms(self) -> None:
        self.connect(self.one, "first", max_rooms=1)
        self.connect(self.two, "second", max_rooms=2)
        self.settle()
        for gateway in (self.one, self.two):
            adm = admission("third", max_rooms=2)
            self.refused_entry(Reason.ROOM_LIMIT_EXCEEDED, gateway, adm)

    def test_reported_peers(self) -> None:
        """Who has come is counted once, whichever gateway is told."""
        self.connect(self.one, user="ann")
        self.settle()
        self.reports(self.two, A, Room(("acme", "room"), peers=1))
        for gateway in (self.one, self.two):
            usage = next(iter(gateway.store.usage()))
            self.assertEqual((1, 0, 1), (usage.peers, usage.reservations, usage.rooms))


class SilenceTests(TwoGatewaysCase):
    settings = GridSettings(remove_timeout=20.0)

    def test_silent_for_all(self) -> None:
        """A server that nobody hears is disabled once, and removed once, with what is on it."""
        self.reports(self.one, A, Room(("acme", "room")))
        self.command(self.two, update("room", 1))
        self.settle()
        events = self.wait(30)
        for kind in (ServerDisabled, ServerRemoved):
            found = [event.address for event in events if isinstance(event, kind)]
            self.assertEqual([A, B], sorted(found))
        self.assert_agreed()
        self.assertEqual([], list(grid(self.one).servers()))
        self.assertEqual(set(), self.left())
        for name in ("servers", "heard", "disabled", "drained"):
            self.assertEqual(0, self.server.command("EXISTS", self.mine(name)), name)

    def test_both_notice_at_once(self) -> None:
        for seconds, left in ((8, 2), (21, 0)):
            self.now += seconds
            for gateway in self.gateways:
                gateway.now = self.now
                gateway.store._ticked = self.now
                gateway.store.tick(self.now)
            self.settle()
            self.assert_agreed()
            views = list(grid(self.one).servers())
            self.assertEqual([True] * left, [view.disabled for view in views])

    def test_heard_by_one(self) -> None:
        """A server that talks to one gateway alone is there for all."""
        for _ in range(8):
            self.assertEqual([], self.wait(5))
            self.reports(self.one, A)
            self.reports(self.two, B)
        self.assert_agreed()

    def test_heard_by_one_and_the_other_does_not_know_yet(self) -> None:
        """Redis knows better, and who was wrong finds out before a room moves."""
        self.reports(self.one, A, Room(("acme", "room")))
        self.now += 6
        self.one.now = self.two.now = self.now
        self.reports(self.two, B)
        grid(self.one).report(report(A, Room(("acme", "room"))), self.now)
        self.one.clock.advance(0)
        self.now += 2
        self.two.store._ticked = self.now
        self.two.store.tick(self.now)
        self.assertEqual(A, self.connect(self.two))
        self.settle()
        by_address = {view.address: view for view in grid(self.two).servers()}
        self.assertFalse(by_address[A].disabled)
        self.assertFalse(by_address[B].disabled)
        self.assert_agreed()

    def test_back_and_the_other_does_not_know_yet(self) -> None:
        """The rooms of a server that is back stay there, for whichever gateway clients ask."""
        for rooms in ((Room(("acme", "room"), peers=3),), ()):
            self.reports(self.one, A, *rooms)
            if not rooms:
                self.connect(self.one, server=A)
                self.settle()
            self.now += 8
            self.reports(self.two, B)
            for gateway in self.gateways:
                gateway.store._ticked = self.now
                self.tick(gateway)
            self.assertEqual([True, False], [v.disabled for v in sorted_servers(self.two)])
            grid(self.one).report(report(A, *rooms), self.now)
            self.one.clock.advance(0)
            self.assertEqual(A, self.connect(self.two, user="bob"), rooms)
            self.settle()
            self.assert_agreed()
            self.reports(self.one, A)
            self.wait(5)

    def test_back_again(self) -> None:
        self.wait(9)
        events = self.reports(self.two, A).events
        self.assertEqual([ServerAttached(A, "1.5.0", returned=True)], list(events))
        self.assert_agreed()
        self.assertEqual(A, self.connect(self.one))

    def test_drained(self) -> None:
        """Drained through one gateway, it takes no rooms from the other, until undrained."""
        self.one.answer(grid(self.one).drain(A, True))
        self.settle()
        self.assertEqual(B, self.connect(self.two, "first"))
        self.assertEqual(B, self.connect(self.one, "second"))
        self.assertEqual([True, False], [view.drained for view in sorted_servers(self.two)])
        self.two.answer(grid(self.two).drain(A, False))
        self.settle()
        self.assertEqual(A, self.connect(self.one, "third"))
        self.settle()
        self.assert_agreed()
        self.refused(
            Reason.SERVER_NOT_FOUND, self.two, lambda: grid(self.two).drain("no.test:1", True)
        )

    def test_drained_survives_reports_and_silence(self) -> None:
        self.one.answer(grid(self.one).drain(A, True))
        self.settle()
        self.wait(9)
        self.reports(self.two, A)
        self.assertEqual([True, False], [view.drained for view in sorted_servers(self.one)])
        self.assertEqual([False, True], [view.disabled for view in sorted_servers(self.one)])


def sorted_servers(gateway: DirectStore) -> list[Any]:
    """Return a gateway's servers by address."""
    return sorted(grid(gateway).servers(), key=lambda view: view.address)


class PoolTests(TwoGatewaysCase):
    pools = ("", "eu")

    def test_apart(self) -> None:
        """Each pool has its own servers, rooms, bans and tasks; usage is counted over all."""
        self.reports(self.two, B, pool="eu")
        self.assertEqual(A, self.connect(self.one))
        self.assertEqual(B, self.connect(self.one, pool="eu"))
        self.settle()
        self.assertEqual(B, self.connect(self.two, pool="eu"))
        self.command(self.two, close("room", 60), "eu")
        self.settle()
        self.assertEqual(A, self.connect(self.one, user="bob"))
        adm = admission("room")
        self.refused(
            Reason.ROOM_BANNED, self.one, lambda: grid(self.one, "eu").connect(adm, self.now)
        )
        self.assertIsNone(self.one.answer(grid(self.one).take(B)))
        self.assertIsNotNone(self.one.answer(grid(self.one, "eu").take(B)))
        self.one.answer(grid(self.one, "eu").drain(B, True))
        self.settle()
        self.assertEqual([False, False], [view.drained for view in grid(self.two).servers()])
        self.assertEqual([True], [view.drained for view in grid(self.two, "eu").servers()])
        for gateway in (self.one, self.two):
            self.assertEqual([2], [usage.rooms for usage in gateway.store.usage()])
        self.assert_agreed()
