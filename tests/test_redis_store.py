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
from tests.redis_fleet import A, B, C, TwoGatewaysCase, address_of, grid, rooms
from tests.redis_link import DirectStore


class PlacementTests(TwoGatewaysCase):
    def test_race(self) -> None:
        """Two that place one base at the same time answer with one server."""
        eventual = [
            grid(gateway).connect(admission("{room}" + user, user=user), self.now)
            for gateway, user in ((self.one, "ann"), (self.two, "bob"))
        ]
        placed = [
            gateway.answer(each) for gateway, each in zip(self.gateways, eventual, strict=True)
        ]
        self.assertEqual(1, len({each.address for each in placed}))
        self.settle()
        self.assert_agreed()
        self.assertEqual({"4:acme/{room": (False, 2, placed[0].address)}, self.books().bases())
        self.assertEqual([2], [usage.reservations for usage in self.one.store.usage()])

    def test_race_of_many(self) -> None:
        """So they do where each is the quicker one for some of the bases."""
        names = [f"room{number}" for number in range(20)]
        started = [
            (gateway, room, grid(gateway).connect(admission(room, user=name), self.now))
            for room in names
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
        self.assertEqual([2], [view.peers for view in rooms(self.two)])

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
        self.assertEqual([A], [view.server for view in rooms(self.two)])
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
        self.assertEqual([C], [view.server for view in rooms(self.one)])

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
        error = self.try_to_connect(Reason.ROOM_BANNED)
        assert error.data is not None
        self.assertEqual(60, round(error.data["retry_after"]))
        self.settle()
        self.try_to_connect(Reason.ROOM_BANNED)

    def test_user(self) -> None:
        self.command(self.one, ban("room", "eve", 60))
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
        self.assertEqual({}, self.books().rows("facts"))

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
        """As many get in as the limit allows, wherever they come at the same time."""
        started = [
            (gateway, grid(gateway).connect(admission("room", user=f"u{n}", max_peers=4), self.now))
            for n in range(4)
            for gateway in self.gateways
        ]
        started += [
            (gateway, grid(gateway).connect(admission("room", user=f"v{n}", max_peers=4), self.now))
            for n in range(4)
            for gateway in self.gateways
        ]
        let_in = 0
        for gateway, eventual in started:
            try:
                gateway.answer(eventual)
                let_in += 1
            except Refused as error:
                self.assertEqual(Reason.PEER_LIMIT_EXCEEDED, error.reason)
        # Each user comes to both gateways, and has one place.
        self.assertEqual(8, let_in)
        self.assert_agreed()
        self.assertEqual([4], [usage.reservations for usage in self.one.store.usage()])
        for gateway in self.gateways:
            adm = admission("room", user="w", max_peers=4)
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
        for name in ("heard", "open"):
            self.assertEqual([], self.books().members(name))
        self.assertEqual({}, self.books().servers())

    def test_heard_by_one(self) -> None:
        """A server that talks to one gateway alone is there for all."""
        for _ in range(8):
            self.assertEqual([], self.wait(5))
            self.reports(self.one, A)
            self.reports(self.two, B)
        self.assert_agreed()

    def test_the_rooms_of_a_server_that_is_back_stay(self) -> None:
        """So they do for whichever gateway clients ask."""
        for named in ((Room(("acme", "room"), peers=3),), ()):
            self.reports(self.one, A, *named)
            if not named:
                self.connect(self.one, server=A)
            self.wait(7)
            self.reports(self.two, B)
            self.wait(1)
            self.assertEqual([True, False], [v.disabled for v in sorted_servers(self.two)])
            self.reports(self.one, A, *named)
            self.assertEqual(A, self.connect(self.two, user="bob"), named)
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
