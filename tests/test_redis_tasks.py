"""Tasks over two gateways and one Redis: in order, through whichever, and none lost."""

from typing import Any

from odingw.errors import Reason
from odingw.grid.values import GridSettings
from odingw.state.redis.store import LEASE
from tests.grids import Room, report, update
from tests.redis_fleet import A, B, TwoGatewaysCase, grid, numbers

ROOMS = {"bases", "tallies", f"rooms:{A}", f"uses:{A}", f"rooms:{B}", f"uses:{B}", "usage"}
"""Names of the keys that a reported room leaves."""


class TaskTests(TwoGatewaysCase):
    def setUp(self) -> None:
        super().setUp()
        self.reports(self.one, A, Room(("acme", "room")))

    def test_order(self) -> None:
        """Tasks go out in the order in which they were accepted, wherever that was."""
        for number in range(1, 7):
            self.command(self.one if number % 2 else self.two, update("room", number))
        self.assertEqual([1, 2, 3, 4, 5, 6], self.taken(self.two, A))
        self.assertEqual([], self.taken(self.one, A))
        self.assertEqual(set(), self.left() - ROOMS)

    def test_one_flight_at_a_time(self) -> None:
        """What is in flight through one gateway is not sent through the other."""
        self.command(self.one, update("room", 1))
        self.settle()
        delivery = self.one.answer(grid(self.one).take(A))
        self.assertEqual([1], numbers(delivery))
        self.command(self.two, update("room", 2))
        self.assertEqual([], self.taken(self.two, A))
        self.assertEqual((), self.one.answer(grid(self.one).give_back(delivery)))
        self.settle()
        self.assertEqual([1, 2], self.taken(self.two, A))

    def test_given_back_too_often(self) -> None:
        """Returns are counted over all gateways, and the task that is dropped is gone at both."""
        self.command(self.one, update("room", 1))
        self.settle()
        events: tuple[Any, ...] = ()
        for turn in range(4):
            self.assertEqual((), events)
            gateway = self.gateways[turn % 2]
            delivery = gateway.answer(grid(gateway).take(A))
            self.assertEqual([1], numbers(delivery))
            events = gateway.answer(grid(gateway).give_back(delivery))
            self.settle()
        self.assertEqual([[1]], [numbers(event) for event in events])
        self.assert_agreed()
        self.assertEqual([0, 0], [view.tasks for view in grid(self.one).servers()])

    def test_too_many(self) -> None:
        two = self.gateway(settings=GridSettings(queued_tasks=2))
        for number in (1, 2):
            self.command(self.one, update("room", number))
        self.settle()
        self.refused(
            Reason.TOO_MANY_TASKS, two, lambda: grid(two).command(update("room", 3), self.now)
        )

    def test_room_that_has_just_gone(self) -> None:
        """A task for a room that Redis has no more is refused by who has not heard of that."""
        grid(self.one).report(report(A), self.now)
        self.one.clock.advance(0)
        self.refused(
            Reason.ROOM_NOT_FOUND,
            self.two,
            lambda: grid(self.two).command(update("room", 1), self.now),
        )

    def test_moved_room(self) -> None:
        """The tasks of a room go with it."""
        for number in (1, 2):
            self.command(self.one, update("room", number))
        self.settle()
        self.reports(self.two, B)
        while not any(view.disabled for view in grid(self.two).servers()):
            self.wait(1)
            self.reports(self.one, B)
        self.assertEqual(B, self.connect(self.two))
        self.command(self.two, update("room", 3))
        self.settle()
        self.assertEqual([], self.taken(self.one, A))
        self.assertEqual([1, 2, 3], self.taken(self.one, B))
        self.assert_agreed()

    def test_task_for_a_room_that_moves_meanwhile(self) -> None:
        """Redis decides where it goes, and all hear of it."""
        self.wait(8)
        self.reports(self.two, B)
        eventual = grid(self.one).command(update("room", 1), self.now)
        self.assertEqual(B, self.connect(self.two))
        self.one.answer(eventual)
        self.settle()
        self.assertEqual([1], self.taken(self.one, B))


class LeaseTests(TwoGatewaysCase):
    def setUp(self) -> None:
        super().setUp()
        self.reports(self.one, A, Room(("acme", "room")))
        for number in (1, 2):
            self.command(self.one, update("room", number))
        self.settle()
        self.flight = self.one.answer(grid(self.one).take(A))
        self.assertEqual([1, 2], numbers(self.flight))
        self.settle()

    def test_killed(self) -> None:
        """What a gateway took along goes out through another one once it is surely gone."""
        self.one.kill()
        self.assertEqual([], self.taken(self.two, A))
        self.wait(LEASE + 1, self.two)
        delivery = self.two.answer(grid(self.two).take(A))
        self.assertEqual([1, 2], numbers(delivery))
        self.assertEqual([0, 0], [task.returned for task in delivery.tasks])

    def test_alive(self) -> None:
        """As long as it gives signs of life, it may take its time."""
        self.wait(3 * LEASE)
        self.assertEqual([], self.taken(self.two, A))
        grid(self.one).acknowledge(self.flight)
        self.settle()
        self.assertEqual(set(), self.left() - ROOMS)

    def test_late_word(self) -> None:
        """What a gateway says of a flight that is no longer its own ends no other's."""
        for arrived in (True, False):
            self.one.cut()
            self.wait(LEASE + 1, self.two)
            delivery = self.two.answer(grid(self.two).take(A))
            self.assertEqual([1, 2], numbers(delivery))
            if arrived:
                grid(self.one).acknowledge(self.flight)
            else:
                self.assertEqual((), self.one.answer(grid(self.one).give_back(self.flight)))
            self.one.now = self.now
            self.one.back()
            self.settle()
            self.assertEqual([], self.taken(self.one, A))
            self.assertEqual((), self.two.answer(grid(self.two).give_back(delivery)))
            self.settle()
            self.flight = self.one.answer(grid(self.one).take(A))
            self.assertEqual([1, 2], numbers(self.flight))
            self.settle()
            self.assert_agreed()

    def test_goodbye(self) -> None:
        """A gateway that ends leaves its flights to the others at once."""
        ended = self.one.store.stop()
        self.one.cut()
        self.assertIsNone(self.successResultOf(ended))
        self.assertEqual([1, 2], self.taken(self.two, A))
