"""What is large is done step by step, and everybody else sees a consistent grid meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Reason, Refused
from odingw.grid.reports import READ, STEP
from odingw.grid.values import GridSettings, Reported
from odingw.state.memory import MemoryStore
from odingw.state.slices import Slices
from tests.grids import Room, admission, close, report

A, B = "a.test:4433", "b.test:4433"
ROOMS = 3 * STEP + 1


def rooms(count: int, prefix: str = "room", peers: int = 2) -> list[Room]:
    return [Room(("acme", f"{prefix}-{number}"), peers=peers) for number in range(count)]


class Turns:
    """A reactor of which only the turns count."""

    def __init__(self) -> None:
        self._calls: list[Callable[..., object]] = []

    def callLater(self, delay: float, callable: Callable[..., object]) -> None:  # noqa: A002, N802  -- Twisted's
        """Call in the next turn."""
        self._calls.append(callable)

    def turn(self) -> None:
        """Do what has been waiting for this turn."""
        calls, self._calls = self._calls, []
        for call in calls:
            call()


class Pieces:
    """Rooms of a report that is read a piece a step; what is no piece is raised."""

    def __init__(self, pieces: Sequence[list[Room] | Exception]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[list[Room]]:
        """Read."""
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece
            yield from [[]] * (READ - 1)


class SlicesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Turns()
        self.store = MemoryStore(GridSettings(), lambda _: 0, Slices(self.reactor))
        self.grid: Any = self.store.pool("")

    def begin(self, address: str, *found: Room, now: float = 0) -> Deferred[Reported]:
        """Hand in a report that takes several steps."""
        answer = self.grid.report(report(address, *found), now)
        self.assertNotIsInstance(answer, Reported)
        deferred: Deferred[Reported] = ensureDeferred(answer)
        self.assertNoResult(deferred)
        return deferred

    def finish(self, deferred: Deferred[Reported]) -> tuple[int, Reported]:
        """Let the reactor turn until a report is done; return how often it had to."""
        turns = 0
        while not deferred.called:
            turns += 1
            self.reactor.turn()
        return turns, self.successResultOf(deferred)

    def counts(self) -> tuple[int, int]:
        """Return rooms and peers of the only customer."""
        (usage,) = self.store.usage()
        return usage.rooms, usage.peers

    def test_a_small_report_and_one_without_news_are_answered_at_once(self) -> None:
        self.assertIsInstance(self.grid.report(report(A, *rooms(STEP)), 0), Reported)
        self.assertIsInstance(self.grid.report(report(A, *rooms(STEP)), 5), Reported)

    def test_a_large_report_takes_steps_and_nothing_is_missing(self) -> None:
        turns, _ = self.finish(self.begin(A, *rooms(ROOMS)))
        self.assertEqual(3, turns)
        self.assertEqual((ROOMS, 2 * ROOMS), self.counts())
        turns, _ = self.finish(self.begin(A, *rooms(ROOMS, peers=3)))
        self.assertEqual(3, turns)
        self.assertEqual((ROOMS, 3 * ROOMS), self.counts())
        turns, _ = self.finish(self.begin(A, *rooms(1, "other")))
        self.assertEqual(3, turns)
        self.assertEqual((1, 2), self.counts())

    def test_a_connect_in_between_finds_its_room_where_it_is(self) -> None:
        self.grid.report(report(B), 0)
        begun = self.begin(A, *rooms(ROOMS))
        placed = self.grid.connect(admission(f"room-{0}"), 0)
        self.assertEqual((A, "existing"), (placed.address, placed.how))
        early = self.grid.connect(admission(f"room-{ROOMS - 1}", server=B), 0)
        self.assertEqual((B, "new"), (early.address, early.how))
        _, reported = self.finish(begun)
        # B has it since before A's report was taken in that far, but A has peers there.
        where = {view.id[1]: view.server for view in self.grid.rooms()}
        self.assertEqual(A, where[f"room-{ROOMS - 1}"])
        self.assertEqual((), reported.closes)

    def test_the_latest_report_of_a_server_counts(self) -> None:
        first = self.begin(A, *rooms(ROOMS))
        self.reactor.turn()
        second = self.begin(A, *rooms(ROOMS, "later"), now=1)
        self.finish(first)
        self.finish(second)
        self.assertEqual((ROOMS, 2 * ROOMS), self.counts())
        self.assertEqual(
            {f"later-{number}" for number in range(ROOMS)},
            {view.id[1] for view in self.grid.rooms()},
        )

    def in_pieces(
        self, *pieces: list[Room] | Exception, server: str = A, now: float = 0
    ) -> Deferred[Reported]:
        """Hand in a report that is read in steps."""
        return ensureDeferred(self.grid.report(replace(report(server), rooms=Pieces(pieces)), now))

    def peers(self) -> dict[str, int]:
        """Return how many peers each room has."""
        return {view.id[1]: view.peers for view in self.grid.rooms()}

    def test_a_report_is_read_before_it_counts(self) -> None:
        self.finish(self.in_pieces(rooms(2), now=0))
        before = (self.counts(), self.peers(), list(self.grid.servers()))
        wrong = self.in_pieces(rooms(1, peers=9), rooms(1, "new"), ValueError("wrong"), now=5)
        while not wrong.called:
            self.assertEqual(before, (self.counts(), self.peers(), list(self.grid.servers())))
            self.reactor.turn()
        self.failureResultOf(wrong, ValueError)
        self.assertEqual(before, (self.counts(), self.peers(), list(self.grid.servers())))
        self.finish(self.in_pieces([rooms(2)[1]], now=10))
        self.assertEqual({"room-1": 2}, self.peers())

    def test_reports_of_a_server_count_in_the_order_in_which_they_came(self) -> None:
        for server in (A, B):
            # One is not known, the other is.
            if server == B:
                self.finish(self.in_pieces(rooms(3), server=B))
            for early, late in (([[]] * 5, []), ([], [[]] * 5)):
                begun = [
                    self.in_pieces(rooms(2, server, 5), *early, server=server),
                    self.in_pieces(rooms(1, server, 7), *late, server=server),
                    self.in_pieces(ValueError("wrong"), server=server),
                ]
                self.finish(begun[0])
                self.assertEqual(5, self.peers()[f"{server}-1"])
                self.finish(begun[1])
                self.assertEqual(7, self.peers()[f"{server}-0"])
                self.assertNotIn(f"{server}-1", self.peers())
                self.reactor.turn()
                self.failureResultOf(begun[2], ValueError)

    def test_a_server_that_is_forgotten_while_its_report_is_read(self) -> None:
        self.finish(self.in_pieces(rooms(2)))
        begun = self.in_pieces(rooms(2), [])
        for second in range(700):
            self.store.tick(second)
        self.assertEqual([], list(self.grid.servers()))
        self.finish(begun)
        self.assertEqual({"room-0": 2, "room-1": 2}, self.peers())

    def test_a_server_that_is_removed_meanwhile_stays_removed(self) -> None:
        begun = self.begin(A, *rooms(ROOMS))
        self.reactor.turn()
        self.store.tick(0)
        self.store.tick(1)
        for second in range(2, 700):
            self.store.tick(second)
        self.finish(begun)
        self.assertEqual([], list(self.grid.servers()))
        self.assertEqual([], list(self.grid.rooms()))
        self.assertEqual([], list(self.store.usage()))
        self.assertRaises(Refused, self.grid.connect, admission("room-0"), 700)

    def test_the_rooms_of_a_loser_are_closed_step_by_step_too(self) -> None:
        self.finish(self.begin(A, *rooms(ROOMS)))
        _, reported = self.finish(self.begin(B, *rooms(ROOMS)))
        self.assertEqual(ROOMS, len(reported.closes))
        self.assertEqual((ROOMS, 2 * ROOMS), self.counts())

    def test_a_large_server_is_forgotten_bit_by_bit(self) -> None:
        self.finish(self.begin(A, *rooms(5 * STEP)))
        for second in range(600):
            self.store.tick(second)
        self.assertEqual([A], [view.address for view in self.grid.servers()])
        self.store.tick(601)
        self.assertEqual([], list(self.grid.servers()))
        left = len(list(self.grid.rooms()))
        self.assertTrue(0 < left < 5 * STEP, left)
        refused = self.assertRaises(Refused, self.grid.command, close(f"room-{5 * STEP - 1}"), 601)
        self.assertEqual(Reason.ROOM_NOT_FOUND, refused.reason)
        self.grid.report(report(B), 601)
        last = admission(f"room-{5 * STEP - 1}")
        self.assertEqual(B, self.grid.connect(last, 601).address)
        for second in range(602, 606):
            self.store.tick(second)
        self.assertEqual([B], [view.server for view in self.grid.rooms()])
        (usage,) = self.store.usage()
        self.assertEqual((1, 0, 1), (usage.rooms, usage.peers, usage.reservations))

    def test_many_reservations_end_bit_by_bit(self) -> None:
        self.grid.report(report(A), 0)
        for number in range(5 * STEP):
            self.grid.connect(admission("room", user=f"user-{number}"), 0)
        self.store.tick(5)
        self.grid.report(report(A), 11)
        (usage,) = self.store.usage()
        self.assertTrue(0 < usage.reservations < 5 * STEP, usage)
        for second in range(12, 16):
            self.store.tick(second)
        self.assertEqual([], list(self.store.usage()))
