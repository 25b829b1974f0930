"""Who hears a server: what becomes of it when the gateway that it reports to is gone."""

from odingw.errors import Reason
from odingw.grid.values import GridSettings, ServerDisabled
from odingw.state.redis.store import LEASE
from tests.grids import Room, admission, report
from tests.redis_fleet import A, B, TwoGatewaysCase, grid, rooms

ROOM = Room(("acme", "room"), peers=2)


class SilenceCase(TwoGatewaysCase):
    settings = GridSettings(unheard_timeout=60.0, remove_timeout=120.0)

    def setUp(self) -> None:
        super().setUp()
        self.reports(self.one, A, ROOM)

    def state(self) -> tuple[bool, bool]:
        """Return whether A is unheard, and disabled."""
        view = next(view for view in grid(self.two).servers() if view.address == A)
        return view.unheard, view.disabled

    def live(self, seconds: int) -> list[ServerDisabled]:
        """Let time go by at the second gateway, to which B reports; return who is disabled."""
        events = []
        for _ in range(seconds):
            events += self.wait(1, self.two)
            self.reports(self.two, B)
        return [event for event in events if isinstance(event, ServerDisabled)]


class GatewayGoneTests(SilenceCase):
    def setUp(self) -> None:
        super().setUp()
        self.one.kill()
        self.gateways.remove(self.one)

    def test_rooms_stay(self) -> None:
        """A server whose gateway was killed keeps its rooms, and gets no new ones."""
        self.assertEqual([], self.live(int(LEASE) + 1))
        self.assertEqual((True, False), self.state())
        for second in range(50):
            self.assertEqual([], self.live(1))
            self.assertEqual(A, self.connect(self.two, user=f"u{second}"))
            self.assertEqual(B, self.connect(self.two, f"new{second}"))
        self.refused_entry(Reason.NO_SERVER, self.two, admission("forced", server=A))
        self.assert_agreed()

    def test_it_is_written_off_in_the_end(self) -> None:
        (event,) = self.live(65)
        self.assertEqual(A, event.address)
        self.assertGreater(event.silent, 60)
        self.assertEqual(B, self.connect(self.two))
        self.assert_agreed()

    def test_it_is_back_when_another_one_hears_it(self) -> None:
        """At once, with all that it has."""
        self.live(20)
        told = self.reports(self.two, A, ROOM)
        self.assertEqual(((), ()), (told.closes, told.events))
        self.assertEqual((False, False), self.state())
        self.assertEqual([2], [view.peers for view in rooms(self.two) if view.id == ROOM.id])
        self.two.answer(grid(self.two).drain(B, True))
        self.assertEqual(A, self.connect(self.two, "new"))
        self.assertEqual([A], [event.address for event in self.live(9)])

    def test_an_operator_ends_the_wait(self) -> None:
        """For a gateway that dies together with the servers beside it."""
        self.live(10)
        self.two.answer(grid(self.two).disable(A))
        self.assertEqual(B, self.connect(self.two))
        self.assert_agreed()
        self.refused(Reason.SERVER_NOT_FOUND, self.two, lambda: grid(self.two).disable("no:1"))

    def test_its_tasks_wait(self) -> None:
        self.live(10)
        self.assertEqual([], self.taken(self.two, A))
        self.assertEqual(A, self.connect(self.two))


class GatewayCutTests(SilenceCase):
    def test_cut_off(self) -> None:
        """A gateway that has lost Redis answers its servers, and nobody writes them off."""
        self.one.cut()
        for _ in range(30):
            self.assertEqual([], self.live(1))
            self.one.answer(grid(self.one).report(report(A, ROOM), self.now))
        self.assertEqual((True, False), self.state())
        self.one.now = self.now
        self.one.back()
        self.assertEqual([], [e for e in self.wait(5) if isinstance(e, ServerDisabled)])
        self.reports(self.one, A, ROOM)
        self.assertEqual((False, False), self.state())
        self.assert_agreed()

    def test_back_after_a_pause_without_a_report(self) -> None:
        """The time in which it was away is held against no server of its own."""
        self.one.cut()
        self.live(20)
        self.one.now = self.now
        self.one.back()
        self.tick(self.one)
        self.assertEqual([], self.live(2))
        self.assertEqual((True, False), self.state(), "nobody has heard it yet")

    def test_one_that_stutters_excuses_its_own_alone(self) -> None:
        """A gateway that stands still again and again keeps no servers of others alive."""
        disabled = []
        for _ in range(6):
            for _ in range(3):
                events = self.wait(1, self.two)
                disabled += [e.address for e in events if isinstance(e, ServerDisabled)]
            self.reports(self.one, A, ROOM)
            disabled += [e.address for e in self.tick(self.one) if isinstance(e, ServerDisabled)]
        self.assertEqual([B], disabled)

    def test_a_silent_server_of_a_gateway_that_is_there(self) -> None:
        events = []
        for _ in range(8):
            events += self.wait(1)
            self.reports(self.two, B)
        self.assertEqual([A], [e.address for e in events if isinstance(e, ServerDisabled)])
