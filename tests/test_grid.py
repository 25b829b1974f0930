"""The rules of the grid, each with values alone: no clock, no reactor."""

from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Reason, Refused
from odingw.grid.bans import Bans
from odingw.grid.grid import Grid
from odingw.grid.tasks import Delivery, Duration, RoomClose, RoomUpdate
from odingw.grid.values import (
    Paused,
    RoomContested,
    ServerAttached,
    ServerDisabled,
    ServerRemoved,
    TasksDropped,
)
from tests.grids import Room, admission, ban, close, data_of, report, store, update

A, B, C = "a.test:4433", "b.test:4433", "c.test:4433"


class GridCase(SynchronousTestCase):
    """A grid at time 0."""

    def setUp(self) -> None:
        self.store = store()
        self.grid: Grid = self.store.pool("")

    def refused(self, reason: Reason, call: object, *args: object) -> Refused:
        error: Refused = self.assertRaises(Refused, call, *args)
        self.assertEqual(reason, error.reason)
        return error

    def server_of(self, room: str) -> str | None:
        return {view.id[1]: view.server for view in self.grid.rooms()}.get(room)


class PlacementTests(GridCase):
    def test_no_server(self) -> None:
        error = self.refused(Reason.NO_SERVER, self.grid.connect, admission("room"), 0)
        self.assertEqual("no server to assign room too", error.message)
        self.assertEqual([], list(self.grid.rooms()))

    def test_a_room_stays(self) -> None:
        self.grid.report(report(A), 0)
        self.assertEqual("new", self.grid.connect(admission("room"), 0).how)
        self.grid.report(report(B), 1)
        again = self.grid.connect(admission("room", user="other"), 1)
        self.assertEqual((A, "existing"), (again.address, again.how))

    def test_rooms_of_one_base_share_a_server(self) -> None:
        for address in (A, B, C):
            self.grid.report(report(address), 0)
        addresses = {self.grid.connect(admission(f"{{lobby}}{n}"), 0).address for n in range(9)}
        self.assertEqual(1, len(addresses))

    def test_coming_load_counts(self) -> None:
        self.grid.report(report(A), 0)
        self.grid.report(report(B), 0)
        placed = [self.grid.connect(admission(f"room-{n}"), 0).address for n in range(10)]
        self.assertEqual(5, placed.count(A))
        self.assertEqual(5, placed.count(B))

    def test_the_less_loaded_server_wins(self) -> None:
        self.grid.report(report(A, load=0.9, clients=90), 0)
        self.grid.report(report(B, load=0.2, clients=20), 0)
        placed = {self.grid.connect(admission(f"room-{n}"), 0).address for n in range(20)}
        self.assertEqual({B}, placed)

    def test_all_full_is_even(self) -> None:
        self.grid.report(report(A, load=1.0, clients=100), 0)
        self.grid.report(report(B, load=1.0, clients=100), 0)
        placed = [self.grid.connect(admission(f"room-{n}"), 0).address for n in range(10)]
        self.assertEqual(5, placed.count(A))

    def test_a_new_server_takes_rooms_at_once(self) -> None:
        self.grid.report(report(A, load=0.5, clients=100), 0)
        self.grid.report(report(B), 0.1)
        self.assertEqual(B, self.grid.connect(admission("room"), 0.1).address)

    def test_forced_server(self) -> None:
        self.grid.report(report(A), 0)
        self.grid.report(report(B), 0)
        self.assertEqual(B, self.grid.connect(admission("room", server=B), 0).address)
        self.assertEqual(
            B,
            self.grid.connect(admission("room", server="nowhere:1"), 0).address,
            "an existing room does not ask for a server",
        )
        self.refused(Reason.NO_SERVER, self.grid.connect, admission("r2", server="nowhere:1"), 0)
        self.grid.drain(A, True)
        self.refused(Reason.NO_SERVER, self.grid.connect, admission("r2", server=A), 0)

    def test_rid_faults(self) -> None:
        self.grid.report(report(A), 0)
        error = self.refused(Reason.RID_BASE_MISMATCH, self.grid.connect, admission("a", "b"), 0)
        self.assertEqual(400, error.code)
        error = self.refused(Reason.RID_EMPTY, self.grid.connect, admission(), 0)
        self.assertEqual(400, error.code)

    def test_of_several_names_the_last_is_placed(self) -> None:
        self.grid.report(report(A), 0)
        self.grid.connect(admission("{x}1", "{x}2"), 0)
        self.assertEqual([("acme", "{x}2")], [view.id for view in self.grid.rooms()])

    def test_pools_are_separate(self) -> None:
        self.grid.report(report(A), 0)
        self.refused(Reason.NO_SERVER, self.store.pool("eu").connect, admission("room"), 0)


class ForgettingTests(GridCase):
    def test_an_unreported_room_ends_with_its_last_reservation(self) -> None:
        self.grid.report(report(A), 0)
        self.grid.connect(admission("room"), 0)
        self.grid.connect(admission("room"), 5)
        self.grid.tick(14.9)
        self.assertEqual(A, self.server_of("room"))
        self.grid.tick(15)
        self.assertEqual(None, self.server_of("room"))

    def test_the_last_room_of_a_base_frees_it(self) -> None:
        rooms = [Room(("acme", "{b}1")), Room(("acme", "{b}2"))]
        self.grid.report(report(A, *rooms), 0)
        self.grid.report(report(B, load=0), 0)
        self.grid.report(report(A, rooms[1], load=0.9, clients=50), 5)
        self.assertEqual(A, self.grid.connect(admission("{b}3"), 5).address)
        self.grid.report(report(A, load=0.9, clients=50), 10)
        self.grid.report(report(B), 10)
        self.grid.tick(16)
        self.assertEqual(B, self.grid.connect(admission("{b}3"), 16).address)

    def test_a_closed_room_stays_until_its_server_drops_it(self) -> None:
        self.grid.report(report(A, Room(("acme", "room"))), 0)
        self.grid.command(close("room"), 1)
        self.assertEqual(A, self.server_of("room"))
        self.grid.report(report(A), 5)
        self.assertEqual(None, self.server_of("room"))


class LimitTests(GridCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid.report(report(A), 0)

    def connects(self, count: int, max_peers: int) -> int:
        granted = 0
        for number in range(count):
            try:
                self.grid.connect(admission("room", user=f"user-{number}", max_peers=max_peers), 0)
            except Refused as error:
                self.assertEqual(Reason.PEER_LIMIT_EXCEEDED, error.reason)
                self.assertIn("retry_after", error.data or {})
            else:
                granted += 1
        return granted

    def test_ten_connects_pass_a_limit_of_three_three_times(self) -> None:
        self.assertEqual(3, self.connects(10, max_peers=3))

    def test_limits_span_pools(self) -> None:
        other = self.store.pool("eu")
        other.report(report(B), 0)
        other.connect(admission("room", max_peers=2), 0)
        self.assertEqual(1, self.connects(5, max_peers=2))

    def test_a_running_reservation_is_not_counted_again(self) -> None:
        self.assertEqual(3, self.connects(3, max_peers=3))
        self.grid.connect(admission("room", user="user-1", max_peers=3), 1)

    def test_an_empty_user_counts_by_token(self) -> None:
        for number in (1, 1, 2, 2):
            self.grid.connect(admission("room", user="", token_id=f"t{number}", max_peers=2), 0)
        third = admission("room", user="", token_id="t3", max_peers=2)
        self.refused(Reason.PEER_LIMIT_EXCEEDED, self.grid.connect, third, 0)

    def test_a_reported_peer_replaces_the_oldest_reservation(self) -> None:
        self.assertEqual(2, self.connects(2, max_peers=3))
        self.grid.report(report(A, Room(("acme", "room"), peers=2)), 1)
        self.grid.connect(admission("room", user="third", max_peers=3), 1)
        usage = list(self.store.usage())
        self.assertEqual([(2, 1, 1)], [(u.peers, u.reservations, u.rooms) for u in usage])

    def test_reservations_end(self) -> None:
        self.assertEqual(3, self.connects(10, max_peers=3))
        self.grid.connect(admission("room", user="late", max_peers=3), 10.01)

    def test_the_room_limit_stops_only_new_rooms(self) -> None:
        self.grid.connect(admission("one", max_rooms=1), 0)
        self.refused(
            Reason.ROOM_LIMIT_EXCEEDED, self.grid.connect, admission("two", max_rooms=1), 0
        )
        self.grid.connect(admission("one", user="second", max_rooms=1), 0)

    def test_peers_of_disabled_servers_do_not_count(self) -> None:
        self.grid.report(report(A, Room(("acme", "room"), peers=5)), 0)
        self.grid.report(report(B), 8)
        self.refused(Reason.PEER_LIMIT_EXCEEDED, self.grid.connect, admission("x", max_peers=5), 8)
        self.grid.tick(8)
        self.grid.connect(admission("x", max_peers=5), 8)
        self.grid.report(report(A, Room(("acme", "room"), peers=5)), 9)
        self.assertEqual([5], [usage.peers for usage in self.store.usage()])

    def test_demo_users_are_limited_all_together(self) -> None:
        for name in ("demo_a", "demo_b"):
            self.grid.connect(admission("r", customer=name, namespace=name, demo_peers=2), 0)
        third = admission("r", customer="demo_c", namespace="demo_c", demo_peers=2)
        self.refused(Reason.PEER_LIMIT_EXCEEDED, self.grid.connect, third, 0)

    def test_limits_come_before_faults_of_rid(self) -> None:
        self.connects(1, max_peers=1)
        wrong = admission("a", "b", max_peers=1)
        self.refused(Reason.PEER_LIMIT_EXCEEDED, self.grid.connect, wrong, 0)

    def test_a_room_limit_comes_before_faults_of_rid(self) -> None:
        wrong = admission("a", "b", max_rooms=0)
        self.refused(Reason.ROOM_LIMIT_EXCEEDED, self.grid.connect, wrong, 0)

    def test_a_reservation_of_another_customer_frees_no_place(self) -> None:
        self.grid.connect(admission("mine", user="eve", customer="beta"), 0)
        self.grid.connect(admission("room", user="bob", customer="acme"), 0)
        same = admission("room", user="bob", customer="beta", max_peers=1)
        self.refused(Reason.PEER_LIMIT_EXCEEDED, self.grid.connect, same, 1)

    def test_a_peer_ends_a_running_reservation_not_one_that_ended(self) -> None:
        self.grid.connect(admission("room", user="early"), 0)
        self.grid.connect(admission("room", user="late"), 5)
        self.grid.report(report(A, Room(("acme", "room"), peers=1)), 10.5)
        self.assertEqual([(1, 0)], [(u.peers, u.reservations) for u in self.store.usage()])

    def test_a_room_named_twice_counts_once(self) -> None:
        self.grid.connect(admission("room", user="bob"), 0)
        twice = report(A, Room(("acme", "room"), peers=0), Room(("acme", "room"), peers=2))
        self.grid.report(twice, 1)
        self.grid.report(twice, 6)
        self.assertEqual(
            [(0, 1, 1)], [(u.peers, u.reservations, u.rooms) for u in self.store.usage()]
        )


class BanTests(GridCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid.report(report(A, Room(("acme", "room"))), 0)

    def test_a_banned_room_is_refused_until_its_time(self) -> None:
        self.grid.command(close("room", 60), 0)
        error = self.refused(Reason.ROOM_BANNED, self.grid.connect, admission("room"), 59)
        self.assertEqual(1, (error.data or {})["retry_after"])
        self.grid.connect(admission("room"), 60)

    def test_a_ban_outlives_its_room(self) -> None:
        self.grid.command(close("room", 60), 0)
        self.grid.report(report(A), 5)
        self.assertEqual(None, self.server_of("room"))
        self.refused(Reason.ROOM_BANNED, self.grid.connect, admission("room"), 6)

    def test_a_ban_is_of_the_exact_name_and_any_rid_counts(self) -> None:
        self.grid.report(report(A, Room(("acme", "{b}1"))), 0)
        self.grid.command(close("{b}1", 60), 0)
        self.grid.connect(admission("{b}2"), 0)
        both = admission("{b}1", "{b}2")
        self.refused(Reason.ROOM_BANNED, self.grid.connect, both, 0)

    def test_a_banned_user(self) -> None:
        self.grid.command(ban("room", "bob", 60), 0)
        bob = admission("room", user="bob")
        self.refused(Reason.USER_BANNED, self.grid.connect, bob, 1)
        self.grid.connect(admission("room", user="alice"), 1)
        self.grid.connect(bob, 60)

    def test_the_empty_user_can_be_banned_alone(self) -> None:
        self.grid.command(ban("room", "", 60), 0)
        self.refused(Reason.USER_BANNED, self.grid.connect, admission("room", user=""), 1)
        self.grid.connect(admission("room", user="alice"), 1)

    def test_the_latest_call_replaces_and_zero_lifts(self) -> None:
        self.grid.command(ban("room", "bob", 1000), 0)
        self.grid.command(ban("room", "bob", 10), 0)
        self.grid.connect(admission("room", user="bob"), 10)
        self.grid.command(ban("room", "bob", 1000), 10)
        self.grid.command(ban("room", "bob", 0), 10)
        self.grid.connect(admission("room", user="bob"), 10)

    def test_no_ban_time_leaves_a_ban_alone(self) -> None:
        self.grid.command(ban("room", "bob", 60), 0)
        self.grid.command(ban("room", "bob", None), 0)
        self.refused(Reason.USER_BANNED, self.grid.connect, admission("room", user="bob"), 1)

    def test_the_ban_of_a_room_that_is_gone_can_be_lifted(self) -> None:
        self.grid.command(close("room", 60), 0)
        self.grid.report(report(A), 5)
        self.grid.command(close("room", 0), 6)
        self.grid.connect(admission("room"), 6)
        self.grid.report(report(A), 20)
        self.grid.tick(20)
        self.refused(Reason.ROOM_NOT_FOUND, self.grid.command, close("room", 0), 20)

    def test_ten_years_at_most(self) -> None:
        self.grid.command(close("room", 1e15), 0)
        error = self.refused(Reason.ROOM_BANNED, self.grid.connect, admission("room"), 0)
        self.assertEqual(10 * 365.25 * 86400, (error.data or {})["retry_after"])

    def test_bounded_in_number(self) -> None:
        grid = store(bans_per_customer=2).pool("")
        grid.report(report(A, Room(("acme", "room"))), 0)
        grid.command(ban("room", "u1", 10), 0)
        grid.command(ban("room", "u2", 60), 0)
        self.refused(Reason.TOO_MANY_BANS, grid.command, ban("room", "u3", 60), 0)
        self.assertEqual(2, len(taken(grid, A)), "a refused ban queues no task")
        grid.command(ban("room", "u2", 30), 0)
        grid.tick(11)
        grid.report(report(A, Room(("acme", "room"))), 11)
        grid.command(ban("room", "u3", 60), 11)

    def test_a_ban_that_ended_makes_room_and_cannot_be_lifted(self) -> None:
        grid = store(bans_per_customer=1).pool("")
        grid.report(report(A, Room(("acme", "room"))), 0)
        grid.command(ban("room", "u1", 10), 0)
        grid.command(ban("room", "u2", 10), 10)
        grid.report(report(A), 15)
        self.refused(Reason.ROOM_NOT_FOUND, grid.command, ban("room", "u2", 0), 20)

    def test_taking_over_the_ban_of_another_customer_counts(self) -> None:
        grid = store(bans_per_customer=1).pool("")
        grid.report(report(A, Room(("acme", "room"))), 0)
        grid.command(ban("room", "u1", 10, customer="beta"), 0)
        grid.command(ban("room", "u2", 10), 0)
        self.refused(Reason.TOO_MANY_BANS, grid.command, ban("room", "u1", 10), 0)

    def test_setting_and_lifting_leaves_nothing_behind(self) -> None:
        bans = Bans(per_customer=1, changed=lambda _: None)
        for _ in range(1000):
            bans.set(("acme", "room"), None, 60, "acme", 0)
            bans.lift(("acme", "room"), None)
        self.assertLess(len(bans._ends), 200)


class ServerTests(GridCase):
    def test_a_silent_server_is_disabled_and_its_rooms_move(self) -> None:
        self.grid.report(report(A, Room(("acme", "room"), peers=3)), 0)
        self.grid.report(report(B), 7)
        self.assertEqual((), self.grid.tick(7.5))
        self.assertEqual((ServerDisabled(A, 8.0),), self.grid.tick(8.0))
        placed = self.grid.connect(admission("room"), 8)
        self.assertEqual((B, "moved"), (placed.address, placed.how))

    def test_a_report_enables_it_again(self) -> None:
        self.grid.report(report(A), 0)
        self.grid.tick(8)
        self.refused(Reason.NO_SERVER, self.grid.connect, admission("room"), 8)
        events = self.grid.report(report(A), 9).events
        self.assertEqual((ServerAttached(A, "1.5.0", returned=True),), events)
        self.assertEqual(A, self.grid.connect(admission("room"), 9).address)

    def test_it_is_forgotten_in_the_end(self) -> None:
        self.grid.report(report(A, Room(("acme", "room"))), 0)
        self.grid.connect(admission("other"), 599)
        self.grid.command(update("room", 1), 0)
        self.grid.tick(8)
        self.assertEqual((ServerRemoved(A, 1),), self.grid.tick(600.5))
        self.assertEqual(([], []), (list(self.grid.servers()), list(self.grid.rooms())))
        self.assertEqual([], list(self.store.usage()))
        self.refused(Reason.ROOM_NOT_FOUND, self.grid.command, close("room"), 601)
        self.assertEqual(None, self.grid.address_of_key(f"kid-{A}"))

    def test_a_drained_server_keeps_its_rooms_and_gets_no_new_ones(self) -> None:
        self.grid.report(report(A), 0)
        self.grid.connect(admission("old"), 0)
        self.grid.report(report(B, load=0.9, clients=90), 0)
        self.grid.drain(A, True)
        self.assertEqual(A, self.grid.connect(admission("old"), 1).address)
        self.assertEqual(B, self.grid.connect(admission("new"), 1).address)
        self.grid.drain(A, False)
        self.assertEqual(A, self.grid.connect(admission("newer"), 1).address)

    def test_draining_nobody(self) -> None:
        self.refused(Reason.SERVER_NOT_FOUND, self.grid.drain, "nowhere:1", True)

    def test_a_gateway_that_stood_still_blames_no_server(self) -> None:
        self.grid.report(report(A, Room(("acme", "room"))), 0)
        self.store.tick(0)
        self.store.tick(1)
        self.assertEqual((Paused(60.0),), self.store.tick(61))
        self.assertFalse(next(iter(self.grid.servers())).disabled)
        self.assertEqual(A, self.server_of("room"))
        for second in range(62, 68):
            self.assertEqual((), self.store.tick(second))
        self.store.tick(68)
        self.assertEqual((ServerDisabled(A, 8.0),), self.store.tick(69))


class ContestTests(GridCase):
    def test_the_first_keeps_the_room_and_the_second_is_told_each_time(self) -> None:
        room = Room(("acme", "room"))
        self.grid.report(report(A, room), 0)
        first = self.grid.report(report(B, room), 1)
        self.assertEqual([("acme", "room")], [task.id for task in first.closes])
        self.assertEqual([RoomClose(("acme", "room"), Duration(5, 0))], list(first.closes))
        self.assertIn(RoomContested(("acme", "room"), A, B), first.events)
        second = self.grid.report(report(B, room), 6)
        self.assertEqual(1, len(second.closes))
        self.assertEqual((), second.events, "told once in the log")
        self.assertEqual((), self.grid.report(report(A, room), 6).closes)
        self.assertEqual(A, self.server_of("room"))

    def test_a_disabled_server_loses_it(self) -> None:
        room = Room(("acme", "room"))
        self.grid.report(report(A, room), 0)
        self.grid.report(report(B), 7)
        self.grid.tick(8)
        self.assertEqual((), self.grid.report(report(B, room), 9).closes)
        self.assertEqual(B, self.server_of("room"))
        self.assertEqual(1, len(self.grid.report(report(A, room), 10).closes))

    def test_a_server_that_never_reported_it_loses_to_one_with_peers(self) -> None:
        self.grid.report(report(A), 0)
        self.grid.connect(admission("room"), 0)
        self.grid.report(report(B), 0)
        empty = self.grid.report(report(B, Room(("acme", "room"), peers=0)), 1)
        self.assertEqual(1, len(empty.closes))
        self.assertEqual((), self.grid.report(report(B, Room(("acme", "room"), peers=1)), 2).closes)
        self.assertEqual(B, self.server_of("room"))

    def test_a_running_reservation_keeps_a_room(self) -> None:
        """Against a server that has reported since before it was made."""
        self.grid.report(report(A), 0)
        self.grid.report(report(B), 0)
        self.grid.connect(admission("room", server=A), 1)
        told = self.grid.report(report(B, Room(("acme", "room"), peers=99)), 2)
        self.assertEqual([("acme", "room")], [task.id for task in told.closes])
        self.assertEqual(A, self.server_of("room"))

    def test_a_room_that_is_named_without_clients_first_is_not_taken_either(self) -> None:
        self.grid.report(report(A), 0)
        self.grid.report(report(B), 0)
        self.grid.connect(admission("room", server=A), 1)
        for peers in (0, 0, 99):
            told = self.grid.report(report(B, Room(("acme", "room"), peers)), 2 + peers / 99)
            self.assertEqual(1, len(told.closes))

    def test_the_winner_of_a_base_is_not_told_to_close_its_other_rooms(self) -> None:
        self.grid.report(report(A), 0)
        self.grid.connect(admission("{b}1"), 0)
        rooms = [Room(("acme", "{b}1"), peers=0), Room(("acme", "{b}2"), peers=2)]
        self.assertEqual((), self.grid.report(report(B, *rooms), 1).closes)
        self.assertEqual((B, B), (self.server_of("{b}1"), self.server_of("{b}2")))

    def test_a_room_that_changes_hands_later_is_news(self) -> None:
        self.grid.report(report(A), 0)
        self.grid.connect(admission("room"), 0)
        self.grid.report(report(B, Room(("acme", "room"), peers=0)), 1)
        events = self.grid.report(report(B, Room(("acme", "room"), peers=1)), 6).events
        self.assertEqual((RoomContested(("acme", "room"), B, A),), events)

    def test_a_room_named_twice_is_closed_once(self) -> None:
        room = Room(("acme", "room"))
        self.grid.report(report(A, room), 0)
        reported = self.grid.report(report(B, room, room), 1)
        self.assertEqual(1, len(reported.closes))
        self.assertEqual(1, len([e for e in reported.events if isinstance(e, RoomContested)]))


class TaskTests(GridCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid.report(report(A, Room(("acme", "room"))), 0)

    def queue(self, *numbers: int) -> None:
        for number in numbers:
            self.grid.command(update("room", number), 0)

    def test_in_order_and_gone_once_they_arrived(self) -> None:
        self.queue(1, 2, 3)
        delivery = self.grid.take(A)
        self.assertEqual([1, 2, 3], numbers(delivery))
        self.grid.acknowledge(existing(delivery))
        self.assertEqual(None, self.grid.take(A))
        self.assertEqual([0], [view.tasks for view in self.grid.servers()])

    def test_not_sent_again_while_in_flight(self) -> None:
        self.queue(1)
        delivery = self.grid.take(A)
        self.queue(2)
        self.assertEqual(None, self.grid.take(A), "2 must not overtake 1")
        self.grid.give_back(existing(delivery))
        self.assertEqual([1, 2], taken(self.grid, A))

    def test_a_poison_task_is_sent_alone_and_then_dropped(self) -> None:
        self.queue(1, 2)
        for _ in range(3):
            self.assertEqual([1, 2], numbers(delivery := self.grid.take(A)))
            self.assertEqual((), self.grid.give_back(existing(delivery)))
        self.assertEqual([1], numbers(delivery := self.grid.take(A)))
        (event,) = self.grid.give_back(existing(delivery))
        assert isinstance(event, TasksDropped)
        self.assertEqual([1], [data_of(task.body)[0] for task in event.tasks])  # type: ignore[arg-type]  # a RoomUpdate
        self.queue(3)
        self.assertEqual([2], numbers(delivery := self.grid.take(A)))
        self.grid.acknowledge(existing(delivery))
        self.assertEqual([3], taken(self.grid, A))

    def test_tasks_follow_their_room(self) -> None:
        self.queue(1)
        delivery = self.grid.take(A)
        self.queue(2)
        self.grid.report(report(B), 7)
        self.grid.tick(8)
        self.grid.connect(admission("room"), 8)
        self.assertEqual([2], numbers(other := self.grid.take(B)))
        self.grid.acknowledge(existing(other))
        self.grid.give_back(existing(delivery))
        self.assertEqual(None, self.grid.take(A))
        self.assertEqual([1], taken(self.grid, B))

    def test_tasks_that_come_back_from_several_servers_keep_their_order(self) -> None:
        self.queue(1)
        first = existing(self.grid.take(A))
        self.queue(2)
        self.grid.report(report(B), 7)
        self.grid.tick(8)
        self.grid.connect(admission("room"), 8)
        second = existing(self.grid.take(B))
        self.grid.report(report(C), 15)
        self.grid.tick(16)
        self.grid.connect(admission("room"), 16)
        self.grid.give_back(first)
        self.grid.give_back(second)
        self.assertEqual([1, 2], taken(self.grid, C))

    def test_tasks_follow_a_room_that_was_forgotten_between(self) -> None:
        self.queue(1)
        delivery = existing(self.grid.take(A))
        self.queue(2)
        self.grid.report(report(A, load=0.9), 5)
        self.grid.report(report(B), 5)
        self.assertEqual(B, self.grid.connect(admission("room"), 5).address)
        self.queue(3)
        self.grid.acknowledge(delivery)
        self.assertEqual(None, self.grid.take(A))
        self.assertEqual([2, 3], taken(self.grid, B))

    def test_bounded_by_customer(self) -> None:
        grid = store(queued_tasks=2).pool("")
        grid.report(report(A, Room(("acme", "room"))), 0)
        grid.command(update("room", 1), 0)
        grid.command(update("room", 2), 0)
        error = self.refused(Reason.TOO_MANY_TASKS, grid.command, update("room", 3), 0)
        self.assertIn("retry_after", error.data or {})
        grid.command(update("room", 4, customer="other"), 0)
        self.assertEqual([1, 2, 4], taken(grid, A))
        grid.command(update("room", 5), 0)

    def test_a_room_that_is_nowhere(self) -> None:
        error = self.refused(Reason.ROOM_NOT_FOUND, self.grid.command, close("nowhere"), 0)
        self.assertEqual("no server for room found", error.message)

    def test_a_sibling_of_the_base_finds_the_server(self) -> None:
        self.grid.report(report(A, Room(("acme", "{b}1"))), 0)
        self.grid.command(update("{b}99", 7), 0)
        self.assertEqual([7], taken(self.grid, A))


def existing(delivery: Delivery | None) -> Delivery:
    assert delivery is not None
    return delivery


def numbers(delivery: Delivery | None) -> list[object]:
    bodies = [task.body for task in delivery.tasks] if delivery else []
    return [data_of(body)[0] if isinstance(body, RoomUpdate) else body for body in bodies]


def taken(grid: Grid, address: str) -> list[object]:
    """Take tasks and acknowledge them."""
    delivery = grid.take(address)
    if delivery is not None:
        grid.acknowledge(delivery)
    return numbers(delivery)


class OddNumberTests(GridCase):
    def test_peers_that_are_no_count(self) -> None:
        for peers, count in ((2.0, 2), (1.5, 1), (-3, 0), (1e300, 2**31)):
            room = Room(("acme", "room"), peers=peers)  # type: ignore[arg-type]  # as servers may
            self.grid.report(report(A, room, clients=0), 0)
            self.assertEqual([count], [view.peers for view in self.grid.rooms()], peers)
