"""What a process takes up that another one has left."""

from twisted.trial.unittest import SynchronousTestCase

from odingw.state.memory import MemoryStore
from tests.grid_histories import SETTINGS, copy
from tests.grids import Room, admission, report, update


class RestartTests(SynchronousTestCase):
    def test_what_was_in_flight_follows_its_room(self) -> None:
        """The room moved while the task was under way, and then the gateway ended."""
        store = MemoryStore(SETTINGS, lambda _: 0)
        grid = store.pool("")
        grid.report(report("a.test:1", Room(("acme", "room"), 2)), 0.0)
        grid.report(report("b.test:1"), 0.0)
        grid.command(update("room", 7), 1.0)
        self.assertIsNotNone(grid.take("a.test:1"))
        for second in range(1, 10):
            grid.report(report("b.test:1"), second)
            store.tick(second)
        self.assertEqual("b.test:1", grid.connect(admission("room"), 9.0).address)
        later = MemoryStore(SETTINGS, lambda _: 0)
        copy(grid.ledger, later.pool("").ledger)
        later.resume(10.0)
        self.assertIsNone(later.pool("").take("a.test:1"))
        self.assertIsNotNone(later.pool("").take("b.test:1"))
