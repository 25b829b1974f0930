"""What every store promises, held against each of them: memory, SQLite, and a real Redis."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Reason, Refused
from odingw.grid.store import GridStore
from odingw.grid.tasks import Delivery, RoomUpdate
from odingw.grid.values import (
    GridSettings,
    Paused,
    Placed,
    RoomContested,
    ServerAttached,
    ServerDisabled,
    ServerRemoved,
    TasksDropped,
    UsageView,
)
from tests.grids import Room, admission, ban, close, data_of, report, update
from tests.redis_server import RedisServer, require_redis
from tests.stores import LocalWorld, MemoryWorld, RedisWorld, World

A, B = "a.test:4433", "b.test:4433"
SETTINGS = GridSettings(queued_tasks=3, bans_per_customer=2)
POOLS = ("", "eu")


class StoreContract:
    """The promises; a subclass says of which store."""

    world: World

    @property
    def grid(self) -> GridStore:
        """The default pool's grid."""
        return self.world.pool()

    def do(self, method: str, *args: Any, pool: str = "") -> Any:
        """Make a call and return what it is answered with."""
        return self.world.answer(getattr(self.world.pool(pool), method)(*args))

    def refused(self, reason: Reason, method: str, *args: Any, pool: str = "") -> Refused:
        """Make a call that must be refused for this reason."""
        result: Any = None
        try:
            result = self.do(method, *args, pool=pool)
        except Refused as error:
            result = error
        assert isinstance(result, Refused), f"{method} is not refused: {result}"
        assert result.reason == reason
        return result

    def place(self, name: str, now: float, **claims: Any) -> Placed:
        """Connect a client."""
        placed: Placed = self.do("connect", admission(name, **claims), now)
        return placed

    def tick(self, now: float) -> list[Any]:
        """Let the periodic work be done."""
        events = list(self.world.store.tick(now))
        self.world.settle()
        return events

    def usage(self) -> list[UsageView]:
        """Return who uses what."""
        return sorted(self.world.store.usage(), key=lambda view: view.customer)

    def bodies(self, delivery: Delivery | None) -> list[tuple[int, ...]]:
        """Return the data of the updates in a delivery."""
        tasks = delivery.tasks if delivery else ()
        return [data_of(task.body) for task in tasks if isinstance(task.body, RoomUpdate)]

    def test_no_server(self) -> None:
        self.refused(Reason.NO_SERVER, "connect", admission("room"), 1)
        assert not self.world.rooms()

    def test_a_room_stays_and_a_base_is_on_one_server(self) -> None:
        self.do("report", report(A), 1)
        self.do("report", report(B), 1)
        first = self.place("{x}1", 1)
        assert first.how == "new"
        for number in range(2, 6):
            found = self.place(f"{{x}}{number}", 1, user=f"u{number}")
            assert (found.address, found.how) == (first.address, "existing")

    def test_coming_load_counts(self) -> None:
        self.do("report", report(A), 1)
        self.do("report", report(B), 1)
        placed = [self.place(f"room-{number}", 1).address for number in range(8)]
        assert placed.count(A) == 4, placed

    def test_a_forced_server(self) -> None:
        self.do("report", report(A), 1)
        self.do("report", report(B), 1)
        assert self.place("room", 1, server=B).address == B
        self.refused(Reason.NO_SERVER, "connect", admission("other", server="nowhere:1"), 1)

    def test_the_events_of_a_server(self) -> None:
        assert self.do("report", report(A), 1).events == (ServerAttached(A, "1.5.0", False),)
        assert self.do("report", report(A), 2).events == ()
        self.tick(9)
        assert self.tick(10) == [ServerDisabled(A, 8.0)]
        assert self.do("report", report(A), 11).events == (ServerAttached(A, "1.5.0", True),)

    def test_a_silent_server_loses_its_rooms(self) -> None:
        self.do("report", report(A, Room(("acme", "room"))), 1)
        self.do("report", report(B), 8)
        self.tick(8.5)
        self.tick(9)
        placed = self.place("room", 9)
        assert (placed.address, placed.how) == (B, "moved")

    def test_a_silent_server_is_forgotten(self) -> None:
        self.do("report", report(A, Room(("acme", "room"))), 1)
        self.do("command", update("room", 1), 1)
        for second in range(1, 602):
            events = self.tick(second)
        assert self.tick(602) + events == [ServerRemoved(A, 1)]
        assert (list(self.grid.servers()), self.world.rooms(), self.usage()) == ([], [], [])

    def test_standing_still_blames_nobody(self) -> None:
        self.do("report", report(A), 1)
        self.tick(1)
        assert self.tick(100) == [Paused(99.0)]
        assert self.place("room", 100).address == A

    def test_drain(self) -> None:
        self.do("report", report(A), 1)
        self.place("old", 1)
        self.do("report", report(B, load=0.9, clients=90), 1)
        self.do("drain", A, True)
        assert self.place("old", 1).address == A
        assert self.place("new", 1).address == B
        self.do("drain", A, False)
        assert self.place("newer", 1).address == A
        self.refused(Reason.SERVER_NOT_FOUND, "drain", "nowhere:1", True)

    def test_limits(self) -> None:
        self.do("report", report(A), 1)
        self.do("report", report(B), 1, pool="eu")
        self.place("one", 1, user="a", max_peers=2, max_rooms=1)
        self.do("connect", admission("one", user="b", max_peers=2), 1, pool="eu")
        self.place("one", 1, user="a", max_peers=2)
        self.refused(Reason.PEER_LIMIT_EXCEEDED, "connect", admission("one", max_peers=2), 1)
        self.refused(Reason.ROOM_LIMIT_EXCEEDED, "connect", admission("two", max_rooms=1), 1)
        assert self.usage() == [UsageView(customer="acme", peers=0, reservations=2, rooms=2)]

    def test_reported_peers_take_the_reserved_places(self) -> None:
        self.do("report", report(A), 1)
        self.place("room", 1, user="a")
        self.place("room", 1, user="b")
        self.do("report", report(A, Room(("acme", "room"), peers=1)), 2)
        assert self.usage() == [UsageView(customer="acme", peers=1, reservations=1, rooms=1)]
        self.do("report", report(A, Room(("acme", "room"), peers=1)), 11)
        self.tick(12)
        assert self.usage() == [UsageView(customer="acme", peers=1, reservations=0, rooms=1)]
        self.do("report", report(A), 13)
        assert (self.usage(), self.world.rooms()) == ([], [])

    def test_a_repeated_connect_renews(self) -> None:
        self.do("report", report(A), 1)
        self.place("room", 1)
        self.place("room", 9)
        self.do("report", report(A), 6)
        self.tick(12)
        assert len(self.world.rooms()) == 1
        self.tick(19)
        assert not self.world.rooms()

    def test_bans(self) -> None:
        self.do("report", report(A, Room(("acme", "room"))), 1)
        self.do("command", ban("room", "eve", 60), 1)
        error = self.refused(Reason.USER_BANNED, "connect", admission("room", user="eve"), 2)
        assert (error.data or {})["retry_after"] == 59
        self.do("command", close("room", 30), 1)
        self.refused(Reason.ROOM_BANNED, "connect", admission("room", user="bob"), 2)
        self.refused(Reason.TOO_MANY_BANS, "command", ban("room", "x", 9), 2)
        self.place("room", 31, user="bob")
        self.do("report", report(A), 32)
        self.do("report", report(A), 40)
        self.tick(42)
        self.refused(Reason.ROOM_NOT_FOUND, "command", close("room"), 42)
        self.do("command", ban("room", "eve", 0), 42)
        self.place("room", 42, user="eve")

    def test_tasks_arrive_in_order_and_once(self) -> None:
        self.do("report", report(A, Room(("acme", "room"))), 1)
        for number in (1, 2, 3):
            self.do("command", update("room", number), 1)
        error = self.refused(Reason.TOO_MANY_TASKS, "command", update("room", 4), 1)
        assert (error.data or {})["retry_after"] == 5
        delivery = self.do("take", A)
        assert self.bodies(delivery) == [(1,), (2,), (3,)]
        assert self.do("take", A) is None
        self.do("acknowledge", delivery)
        assert self.do("take", A) is None
        assert [view.tasks for view in self.grid.servers()] == [0]

    def test_a_task_that_comes_back_goes_again_then_alone_then_not(self) -> None:
        self.do("report", report(A, Room(("acme", "room"))), 1)
        self.do("command", update("room", 1), 1)
        for _ in range(3):
            assert self.do("give_back", self.do("take", A)) == ()
        self.do("command", update("room", 2), 1)
        alone = self.do("take", A)
        assert self.bodies(alone) == [(1,)]
        (dropped,) = self.do("give_back", alone)
        assert isinstance(dropped, TasksDropped)
        assert [task.returned for task in dropped.tasks] == [4]
        assert self.bodies(self.do("take", A)) == [(2,)]

    def test_tasks_follow_their_room(self) -> None:
        self.do("report", report(A, Room(("acme", "room"))), 1)
        self.do("command", update("room", 1), 1)
        self.do("command", update("room", 2), 1)
        self.do("report", report(B), 8)
        self.tick(8.5)
        self.tick(9)
        self.place("room", 9)
        assert self.do("take", A) is None
        assert self.bodies(self.do("take", B)) == [(1,), (2,)]

    def test_tasks_follow_whatever_their_room_is_called(self) -> None:
        names = ("room", '"]', "\\", '\\"', "\n[é")
        self.do("report", report(A, *(Room(("acme", name)) for name in names)), 1)
        for number, name in enumerate(names[:3]):
            self.do("command", update(name, number), 1)
        for number, name in enumerate(names[3:], 3):
            self.do("command", update(name, number, customer="other"), 1)
        self.do("report", report(B), 8)
        self.tick(8.5)
        self.tick(9)
        for name in names:
            self.place(name, 9)
        assert self.do("take", A) is None
        assert self.bodies(self.do("take", B)) == [(0,), (1,), (2,), (3,), (4,)]

    def test_tasks_in_flight_follow_when_they_come_back(self) -> None:
        self.do("report", report(A, Room(("acme", "room"))), 1)
        self.do("command", update("room", 1), 1)
        flight = self.do("take", A)
        self.do("report", report(B), 8)
        self.tick(8.5)
        self.tick(9)
        self.place("room", 9)
        assert self.do("take", B) is None
        self.do("give_back", flight)
        assert self.bodies(self.do("take", B)) == [(1,)]

    def leave_tasks_of_a_room_that_moved_and_is_gone(self) -> Delivery:
        """Leave one task in flight to A, and one of the same room waiting at B."""
        self.do("report", report(A, Room(("acme", "room"))), 1)
        self.do("command", update("room", 1), 1)
        flight: Delivery = self.do("take", A)
        self.do("report", report(B), 8)
        self.tick(8.5)
        self.tick(9)
        self.place("room", 9)
        self.do("command", update("room", 2), 9)
        for now in (10, 15, 20):
            self.do("report", report(A), now)
            self.do("report", report(B), now)
            self.tick(now)
        assert not self.world.rooms()
        return flight

    def test_tasks_of_a_room_that_is_gone_stay_in_order(self) -> None:
        flight = self.leave_tasks_of_a_room_that_moved_and_is_gone()
        self.do("give_back", flight)
        assert self.do("take", A) is None
        assert self.bodies(self.do("take", B)) == [(1,), (2,)]

    def test_tasks_of_a_room_that_is_gone_stay_in_order_after_a_restart(self) -> None:
        self.leave_tasks_of_a_room_that_moved_and_is_gone()
        self.world.restart(21)
        assert self.do("take", A) is None
        assert self.bodies(self.do("take", B)) == [(1,), (2,)]

    def test_contested_rooms(self) -> None:
        room = Room(("acme", "room"))
        self.do("report", report(A, room), 1)
        told = self.do("report", report(B, room), 2)
        assert [task.id for task in told.closes] == [room.id]
        assert RoomContested(room.id, A, B) in told.events
        assert self.do("report", report(A, room), 3).closes == ()
        assert len(self.do("report", report(B, room), 4).closes) == 1

    def take_over(self, name: str, now: float, peers: int = 1) -> bool:
        """Let B report a room with clients; tell whether it has it then, or is to close it."""
        room = ("acme", name)
        told = self.do("report", report(B, Room(room, peers)), now)
        kept = self.place(name, now, user="late").address == B
        assert kept == (not told.closes), told
        return kept

    def test_a_running_reservation_keeps_a_room(self) -> None:
        self.do("report", report(A), 1)
        self.do("report", report(B), 2)
        self.place("room", 3, server=A)
        told = self.do("report", report(B, Room(("acme", "room"))), 4)
        assert [task.id for task in told.closes] == [("acme", "room")]
        assert told.events == (RoomContested(("acme", "room"), A, B),)
        assert not self.take_over("room", 9, peers=50)
        self.do("report", report(A), 9)
        self.tick(20)
        assert self.take_over("room", 20), "nobody is on the way there any more"

    def test_a_running_reservation_keeps_all_rooms_of_its_base(self) -> None:
        self.do("report", report(A), 1)
        self.do("report", report(B), 2)
        self.place("{b}1", 3, server=A)
        assert not self.take_over("{b}2", 4)

    def test_a_reservation_that_was_made_after_others_keeps_a_room(self) -> None:
        self.do("report", report(A), 1)
        self.place("room", 2, user="first", server=A)
        self.do("report", report(B), 3)
        self.place("room", 4, user="second")
        assert not self.take_over("room", 5)

    def test_a_room_that_is_named_without_clients_first_is_not_taken_either(self) -> None:
        self.do("report", report(A), 1)
        self.do("report", report(B), 2)
        self.place("room", 3, server=A)
        for now in (4, 5, 6):
            assert self.do("report", report(B, Room(("acme", "room"), peers=0)), now).closes
        self.place("room", 7)
        assert not self.take_over("room", 8)

    def test_a_room_that_was_named_before_it_was_reserved_goes_to_its_clients(self) -> None:
        self.do("report", report(A), 1)
        self.do("report", report(B), 2)
        self.place("room", 3, server=A, user="first")
        assert self.do("report", report(B, Room(("acme", "room"), peers=0)), 4).closes
        self.place("room", 5, user="second")
        self.do("report", report(A), 9)
        assert self.do("report", report(B, Room(("acme", "room"), peers=0)), 9).closes
        assert self.take_over("room", 14), "the reservation before that has ended"

    def test_the_first_report_of_a_new_server_takes_a_room(self) -> None:
        self.do("report", report(A), 1)
        self.place("room", 2)
        assert self.take_over("room", 3)

    def test_a_new_server_that_did_not_name_a_room_at_first(self) -> None:
        self.do("report", report(A), 1)
        self.place("room", 2)
        self.do("report", report(B), 3)
        assert self.take_over("room", 4), "it may have had it before it was placed"
        self.place("other", 5, server=A)
        assert not self.take_over("other", 6)

    def test_the_first_report_of_a_server_that_is_back_takes_a_room(self) -> None:
        self.do("report", report(B), 1)
        for now in range(2, 10):
            self.do("report", report(A), now)
            self.tick(now)
        self.place("room", 10)
        assert self.take_over("room", 11)

    def test_the_first_report_after_the_gateway_stood_still_takes_a_room(self) -> None:
        for now in (1, 2):
            self.do("report", report(A), now)
            self.do("report", report(B), now)
            self.tick(now)
        self.tick(60)
        self.place("room", 61, server=A)
        assert self.take_over("room", 62)
        self.place("other", 63, server=A)
        assert not self.take_over("other", 64)

    def test_the_first_report_after_a_restart_takes_a_room(self) -> None:
        self.do("report", report(A), 1)
        self.do("report", report(B), 2)
        self.place("room", 3, server=A)
        self.place("other", 3, server=A)
        self.world.restart(4)
        assert self.take_over("room", 5)
        self.place("new", 6, server=A)
        assert not self.take_over("new", 7)
        assert self.take_over("other", 8), "it was reserved before the start"

    def test_pools_are_separate(self) -> None:
        self.do("report", report(A), 1)
        self.refused(Reason.NO_SERVER, "connect", admission("room"), 1, pool="eu")

    def test_a_restart_forgets_nothing(self) -> None:
        self.do("report", report(A, Room(("acme", "old"), peers=2)), 1)
        self.do("report", report(B), 1)
        self.do("report", report(B, Room(("acme", "eu"))), 1, pool="eu")
        placed = {f"r{n}": self.place(f"r{n}", 1, user=f"u{n}").address for n in range(6)}
        self.do("command", update("old", 1), 1)
        self.do("command", update("old", 2), 1)
        self.do("command", ban("old", "eve", 60), 1)
        self.do("drain", B, True)
        flight = self.do("take", A)
        assert flight is not None
        before = self.usage()
        self.world.restart(2)
        assert self.usage() == before
        for name, address in placed.items():
            found = self.place(name, 2, user="late")
            assert (found.address, found.how) == (address, "existing")
        self.refused(Reason.USER_BANNED, "connect", admission("old", user="eve"), 3)
        assert sorted((v.address, v.drained) for v in self.grid.servers()) == [
            (A, False),
            (B, True),
        ]
        assert self.bodies(self.do("take", A)) == [(1,), (2,)]
        assert self.grid.address_of_key(f"kid-{B}") == B
        self.tick(9)
        assert [v.disabled for v in self.grid.servers()] == [False, False], "nobody is blamed"

    def test_who_was_sent_first_is_there_first_also_after_a_restart(self) -> None:
        self.do("report", report(A, Room(("acme", "room"), 0)), 1)
        self.place("room", 1, user="late", customer="one")
        self.place("room", 2, user="early", customer="two")
        self.world.restart(3)
        self.do("report", report(A, Room(("acme", "room"), 1)), 4)
        assert {view.customer: view.reservations for view in self.usage() if view.reservations} == {
            "two": 1
        }

    def test_all_is_well(self) -> None:
        assert self.world.store.trouble == ""


class MemoryContractTests(StoreContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.world = MemoryWorld(SETTINGS, POOLS)


class LocalContractTests(StoreContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.world = LocalWorld(SETTINGS, POOLS)
        self.addCleanup(self.world.close)


class RedisContractTests(StoreContract, SynchronousTestCase):
    server: RedisServer

    def setUp(self) -> None:
        require_redis(self)
        self.server = RedisServer(persistent=False).start()
        self.addCleanup(self.server.close)
        self.world = RedisWorld(self.server, SETTINGS, POOLS)
        self.addCleanup(self.world.close)
