"""Gateways without their Redis, and with one that is not what it was."""

from typing import Any

from twisted.internet.defer import Deferred

from odingw.errors import Reason, Refused
from odingw.grid.values import ServerReport
from tests.grids import Room, admission, ban, close, report, update
from tests.redis_fleet import A, B, C, TwoGatewaysCase, grid, numbers, rooms
from tests.redis_link import DirectStore
from tests.test_redis_tasks import ROOMS

ROOM = Room(("acme", "room"), peers=2)


def begin(eventual: Any) -> Deferred[Any]:
    """Wait for what a call comes to, without a step of anything."""
    return eventual if isinstance(eventual, Deferred) else Deferred.fromCoroutine(eventual)


class OutageCase(TwoGatewaysCase):
    def setUp(self) -> None:
        super().setUp()
        self.reports(self.one, A, ROOM)
        self.settle()

    def fill(self) -> None:
        """Put one of everything into Redis."""
        self.connect(self.two, "placed", user="ann")
        for number in (1, 2):
            self.command(self.one, update("room", number))
        self.command(self.two, update("placed", 3))
        self.command(self.two, ban("room", "eve", 600))
        self.command(self.one, close("placed", 600))
        self.one.answer(grid(self.one).drain(B, True))
        self.settle()

    def cut(self, *gateways: DirectStore) -> None:
        """Let gateways, by default all, lose Redis."""
        for gateway in gateways or self.gateways:
            gateway.cut()

    def back(self, *gateways: DirectStore) -> None:
        """Let gateways, by default all, find Redis again."""
        for gateway in gateways or self.gateways:
            gateway.now = self.now
            gateway.back()
        self.settle()

    def take_in(self, gateway: DirectStore, said: ServerReport) -> Any:
        """Let a server report."""
        return gateway.answer(grid(gateway).report(said, self.now))

    def check_filled(self) -> None:
        """Check that all that was filled in is there, once."""
        self.assert_agreed()
        for gateway in self.gateways:
            for reason, room, user in (
                (Reason.USER_BANNED, "room", "eve"),
                (Reason.ROOM_BANNED, "placed", "ann"),
            ):
                self.refused_entry(reason, gateway, admission(room, user=user))
            views = {view.id[1]: view for view in rooms(gateway)}
            self.assertEqual((A, 2), (views["room"].server, views["room"].peers))
            self.assertEqual(1, views["placed"].reservations)
            drained = {view.address for view in grid(gateway).servers() if view.drained}
            self.assertEqual({B}, drained)
        bans = [key for key in self.books().rows("facts") if key[0] == "b"]
        self.assertEqual(2, len(bans))
        found = self.sent(self.two, views["placed"].server, A)
        self.assertEqual([1, 2, 3], sorted(found))
        self.assertEqual([], self.sent(self.one, A, B))

    def sent(self, gateway: DirectStore, *addresses: str) -> list[int]:
        """Take all updates for servers."""
        found: list[int] = []
        for address in sorted(set(addresses)):
            while delivery := gateway.answer(grid(gateway).take(address)):
                found += numbers(delivery)
                grid(gateway).acknowledge(delivery)
                self.settle()
        return found


class OutageTests(OutageCase):
    def test_what_is_known_goes_on(self) -> None:
        """Known rooms are served, new ones refused, reports answered."""
        placed = self.connect(self.one, "placed")
        self.settle()
        self.cut(self.one)
        self.assertNotEqual("", self.one.store.trouble)
        for room, address in (("room", A), ("placed", placed)):
            self.assertEqual(address, self.connect(self.one, room, user="bob"))
        for call in (
            lambda: grid(self.one).connect(admission("new"), self.now),
            lambda: grid(self.one).command(update("room", 1), self.now),
            lambda: grid(self.one).command(ban("room", "eve", 60), self.now),
            lambda: grid(self.one).drain(A, True),
        ):
            error = self.refused(Reason.STORE_UNAVAILABLE, self.one, call)
            assert error.data is not None
            self.assertGreater(error.data["retry_after"], 0)
        self.take_in(self.one, report(A, ROOM, Room(("acme", "other"))))
        self.assertEqual(A, self.connect(self.one, "other"))
        self.back(self.one)
        self.assertEqual("", self.one.store.trouble)
        self.assert_agreed()
        self.assertEqual(A, self.connect(self.two, "other"))
        self.assertEqual(self.connect(self.one, "new"), self.connect(self.two, "new"))

    def test_refused_room_leaves_nothing(self) -> None:
        """A room that could not be placed is not found later."""
        asked = begin(grid(self.one).connect(admission("new"), self.now))
        self.cut(self.one)
        error = self.failureResultOf(asked, Refused).value
        self.assertEqual(Reason.STORE_UNAVAILABLE, error.reason)
        self.back(self.one)
        self.assertEqual({"room"}, {view.id[1] for view in rooms(self.two)})
        self.assert_agreed()

    def test_bans_that_are_known_hold(self) -> None:
        self.command(self.two, ban("room", "eve", 60))
        self.settle()
        self.cut(self.one)
        self.refused(
            Reason.USER_BANNED,
            self.one,
            lambda: grid(self.one).connect(admission("room", user="eve"), self.now),
        )

    def test_both_go_on_apart(self) -> None:
        """What happened meanwhile at each of them is known to both afterwards."""
        self.connect(self.two, user="bob")
        self.cut()
        self.take_in(self.one, report(A, ROOM, Room(("acme", "of a"))))
        self.take_in(self.two, report(B, Room(("acme", "of b"))))
        self.take_in(self.two, report(C, Room(("acme", "of c"))))
        self.connect(self.one, user="ann")
        self.connect(self.two, user="bob")
        self.back()
        self.assert_agreed()
        places = {view.id[1]: view.server for view in rooms(self.one)}
        self.assertEqual({"room": A, "of a": A, "of b": B, "of c": C}, places)
        self.assertEqual(
            [(5, 2, 4)],
            [(u.peers, u.reservations, u.rooms) for u in self.two.store.usage()],
        )

    def test_contested_while_apart(self) -> None:
        """A room that two servers reported to one gateway each is at one of them."""
        self.cut()
        room = Room(("acme", "new"), peers=3)
        self.take_in(self.one, report(A, ROOM, room))
        self.take_in(self.two, report(B, room))
        self.back()
        self.assert_agreed()
        owner = next(v.server for v in rooms(self.one) if v.id == room.id)
        loser = B if owner == A else A
        said = report(loser, *([ROOM] if loser == A else []), room)
        for gateway in self.gateways:
            closes = self.take_in(gateway, said).closes
            self.settle()
            self.assertEqual([room.id], [each.id for each in closes])

    def test_room_gone_meanwhile(self) -> None:
        """What ended while a gateway was away is gone there too."""
        self.fill()
        self.cut(self.one)
        self.reports(self.two, A)
        self.sent(self.two, A, B)
        self.command_lift(self.two)
        self.wait(11, self.two)
        self.back(self.one)
        self.assert_agreed()
        self.assertEqual([], rooms(self.one))
        self.assertEqual({}, self.books().rows("tasks"))
        self.assertEqual(set(), self.left())

    def command_lift(self, gateway: DirectStore) -> None:
        """Lift the bans of :meth:`fill`."""
        self.command(gateway, ban("room", "eve", 0))
        self.command(gateway, close("placed", 0))
        self.sent(gateway, A, B)

    def test_room_ended_while_away(self) -> None:
        """A room that ended for the gateway that was away ends for all."""
        self.cut(self.one)
        self.take_in(self.one, report(A))
        self.back(self.one)
        self.assertEqual([], rooms(self.two))
        self.assertEqual(set(), self.left())

    def test_arrived_while_away(self) -> None:
        """Tasks that arrived are not sent again by anybody."""
        self.command(self.one, update("room", 1))
        self.settle()
        delivery = self.one.answer(grid(self.one).take(A))
        self.cut(self.one)
        grid(self.one).acknowledge(delivery)
        self.back(self.one)
        self.assertEqual([], self.sent(self.two, A))
        self.assertEqual(set(), self.left() - ROOMS)

    def test_nobody_is_written_off(self) -> None:
        """The time of an outage is held against no server."""
        self.cut()
        self.assertEqual([], self.wait(60))
        self.back()
        self.assertEqual([], [v for v in grid(self.one).servers() if v.disabled])
        self.wait(5)
        self.assertEqual([], [v for v in grid(self.two).servers() if v.disabled])

    def test_unanswered_connect(self) -> None:
        """Who has been placed on the ground of what is known keeps that."""
        asked = begin(grid(self.one).connect(admission("room"), self.now))
        self.cut(self.one)
        self.assertEqual(A, self.successResultOf(asked).address)


class EmptiedTests(OutageCase):
    def test_one_gateway_puts_it_back(self) -> None:
        self.fill()
        self.cut()
        self.server.command("FLUSHALL")
        self.back(self.one)
        self.assertEqual(3, len(self.books().rows("tasks")), "that it has accepted itself")
        self.back(self.two)
        self.check_filled()

    def test_two_gateways_put_it_back(self) -> None:
        """They do so at the same time, step by step, and nothing is there twice."""
        self.fill()
        self.cut()
        self.server.command("FLUSHALL")
        for gateway in self.gateways:
            gateway.away = False
        for _ in range(3):
            for gateway in self.gateways:
                gateway.clock.advance(5.0)
        self.settle()
        self.check_filled()

    def test_numbers_of_tasks_go_on(self) -> None:
        """A task that is accepted afterwards is later than all that were put back."""
        self.fill()
        self.cut()
        self.server.command("FLUSHALL")
        self.back()
        self.command(self.two, update("room", 9))
        self.assertEqual([1, 2, 9], self.sent(self.one, A)[-3:])

    def test_new_tasks_of_an_emptied_redis(self) -> None:
        """Tasks that a newcomer accepted are not taken for older ones that had their numbers."""
        self.fill()
        self.cut()
        self.server.command("FLUSHALL")
        newcomer = self.gateway()
        self.reports(newcomer, A, ROOM)
        for number in (7, 8):
            self.command(newcomer, update("room", number))
        self.back()
        self.assertEqual({1, 2, 3, 7, 8}, set(self.sent(self.two, A, B)))
        self.assert_agreed()

    def test_outage_ends_with_an_empty_redis_and_news(self) -> None:
        """What changed while Redis was away counts, as soon as it is said again."""
        self.fill()
        self.cut()
        self.server.command("FLUSHALL")
        news = Room(ROOM.id, peers=5)
        self.take_in(self.one, report(A, news))
        self.back()
        self.assert_agreed()
        self.reports(self.one, A, news)
        self.assert_agreed()
        self.assertIn(5, [view.peers for view in rooms(self.two)])

    def test_emptied_under_way(self) -> None:
        """It is noticed without a break of the connection, and everything is put back."""
        self.fill()
        self.server.command("FLUSHALL")
        for _ in range(3):
            self.wait(2)
            self.reports(self.one, A, ROOM)
            self.reports(self.two, B)
        self.check_filled()

    def test_no_new_room_before_all_have_written(self) -> None:
        """It could be a room of a gateway that is not back yet; that one's lease ends in time."""
        self.fill()
        self.cut()
        self.server.command("FLUSHALL")
        self.back(self.one)
        self.refused_entry(Reason.STORE_UNAVAILABLE, self.one, admission("new"))
        self.assertEqual(A, self.connect(self.one, user="known"))
        for _ in range(6):
            self.wait(1, self.one)
            self.reports(self.one, A, ROOM)
        self.assertEqual(A, self.connect(self.one, "new"))
        self.back(self.two)
        self.assert_agreed()


class RolledBackTests(OutageCase):
    def copy(self) -> dict[bytes, bytes]:
        """Return what Redis holds."""
        keys: list[bytes] = self.server.command("KEYS", "*")
        return {key: self.server.command("DUMP", key) for key in keys}

    def roll_back(self, copy: dict[bytes, bytes]) -> None:
        """Let Redis end, and come back with what it held then."""
        self.server.kill()
        self.server.start()
        for key, value in copy.items():
            self.server.command("RESTORE", key, "0", value)

    def test_all_away(self) -> None:
        """What Redis has forgotten is told again."""
        before = self.copy()
        self.fill()
        self.cut()
        self.roll_back(before)
        self.back()
        self.check_filled()

    def test_newcomer_is_first(self) -> None:
        """A gateway that knows nothing of what Redis has forgotten does not hide that it has."""
        self.connect(self.two, "placed", user="ann")
        self.settle()
        before = self.copy()
        self.command(self.one, update("room", 1))
        self.settle()
        self.cut()
        self.roll_back(before)
        newcomer = self.gateway()
        for _ in range(5):
            self.reports(newcomer, A, ROOM)
        self.back()
        self.assert_agreed()
        self.assertEqual([1], self.sent(self.two, A))

    def test_one_did_not_hear_the_end(self) -> None:
        """Nor does one that has missed it."""
        self.cut(self.two)
        before = self.copy()
        self.command(self.one, update("room", 1))
        self.settle()
        self.cut()
        self.roll_back(before)
        self.back(self.two)
        self.reports(self.two, A, ROOM)
        self.back(self.one)
        self.assert_agreed()
        self.assertEqual([1], self.sent(self.one, A))
