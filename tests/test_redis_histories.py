"""Random calls at three gateways over one Redis: no task is lost, and all books are right."""

from random import Random
from typing import Any, Final

import pytest

from odingw.errors import Refused
from odingw.grid.tasks import Delivery
from odingw.grid.values import GridSettings
from tests.examples import THOROUGH
from tests.grids import Room, admission, ban, close, report, update
from tests.redis_fleet import A, B, C, FleetCase, first, grid, hear, last, numbers
from tests.redis_link import DirectStore

HISTORIES: Final = 300 if THOROUGH else 12
STEPS: Final = 80


class History:
    """Random calls at several gateways."""

    def __init__(self, case: FleetCase, seed: int) -> None:
        self.case = case
        self.random = Random(seed)  # noqa: S311  -- it has to be the same each time
        self.rooms = [("acme", name) for name in ("r1", "r2", "{x}1", "{x}2", "r3")]
        self.said: dict[str, tuple[Room, ...]] = {A: (), B: (), C: ()}
        self.flights: list[tuple[DirectStore, Delivery]] = []
        self.sent: list[int] = []
        self.accepted: set[int] = set()
        self.dropped: set[int] = set()
        self.number = 0

    @property
    def gateway(self) -> DirectStore:
        """One of the gateways."""
        return self.random.choice(self.case.gateways)

    def step(self) -> None:
        """Do something."""
        steps = (self.report, self.report, self.connect, self.connect, self.command, self.take)
        rare = (self.land, self.land, self.drain, self.settle, self.time, self.time)
        self.random.choice(steps + rare)()
        for gateway in self.case.gateways:
            gateway.clock.advance(0)

    def answer(self, gateway: DirectStore, call: Any) -> Any:
        """Return what a call comes to; None if it is refused."""
        try:
            return gateway.answer(call())
        except Refused:
            return None

    def report(self) -> None:
        """A server that carries what it was sent, and more or less of it, reports."""
        address = self.random.choice((A, B, C))
        chosen = self.random.sample(self.rooms, self.random.randint(0, 3))
        self.said[address] = tuple(Room(room, self.random.randint(0, 3)) for room in chosen)
        grid(self.gateway).report(report(address, *self.said[address]), self.case.now)

    def connect(self) -> None:
        """A client connects."""
        gateway, user = self.gateway, self.random.choice(("ann", "bob", "eve", ""))
        wanted = admission(self.random.choice(self.rooms)[1], user=user)
        self.answer(gateway, lambda: grid(gateway).connect(wanted, self.case.now))

    def command(self) -> None:
        """A backend calls."""
        gateway, room = self.gateway, self.random.choice(self.rooms)[1]
        self.number += 1
        number = self.number
        for command in (update(room, number), ban(room, "eve", 3), ban(room, "eve", 0)):
            if self.random.random() < 0.5:
                done = self.answer(gateway, lambda c=command: _done(gateway, c, self.case.now))
                if done and command.ban is None:
                    self.accepted.add(number)
        if self.random.random() < 0.2:
            self.answer(gateway, lambda: _done(gateway, close(room, 2), self.case.now))

    def take(self) -> None:
        """A reply takes tasks along."""
        gateway, address = self.gateway, self.random.choice((A, B, C))
        delivery = gateway.answer(grid(gateway).take(address))
        if delivery is not None:
            self.flights.append((gateway, delivery))

    def land(self) -> None:
        """A reply arrives, or not."""
        if self.flights:
            flight = self.flights.pop(self.random.randrange(len(self.flights)))
            self.end(*flight, arrived=self.random.random() < 0.6)

    def end(self, gateway: DirectStore, delivery: Delivery, *, arrived: bool) -> None:
        """End a flight."""
        if arrived:
            self.sent += numbers(delivery)
            grid(gateway).acknowledge(delivery)
        else:
            for event in gateway.answer(grid(gateway).give_back(delivery)):
                self.dropped.update(numbers(event))

    def drain(self) -> None:
        """An operator drains a server, or undoes it."""
        gateway, drained = self.gateway, self.random.random() < 0.3
        address = self.random.choice((A, B, C))
        self.answer(gateway, lambda: grid(gateway).drain(address, drained))

    def settle(self) -> None:
        """All hear of all."""
        self.case.settle()

    def time(self) -> None:
        """Some time goes by."""
        for _ in range(self.random.choice((1, 1, 2, 4))):
            self.case.now += 1
            for gateway in self.case.gateways:
                gateway.now = self.case.now
                gateway.store.tick(self.case.now)
                gateway.clock.advance(1)
                if self.random.random() < 0.8:
                    hear(gateway)

    def finish(self) -> None:
        """Let all servers come back, rooms end and tasks arrive."""
        for gateway, delivery in self.flights:
            self.end(gateway, delivery, arrived=True)
        for address in (A, B, C):
            # A room that the report ends may have belonged to another server until then.
            self.case.reports(self.gateway, address)
        self.case.wait(11)
        for address in (A, B, C):
            self.case.reports(self.gateway, address)
            gateway = self.gateway
            while delivery := gateway.answer(grid(gateway).take(address)):
                self.end(gateway, delivery, arrived=True)
                self.case.settle()
        self.case.wait(1)


async def _done(gateway: DirectStore, command: Any, now: float) -> bool:
    result = grid(gateway).command(command, now)
    assert result is not None
    await result
    return True


@pytest.mark.thorough
class HistoryTests(FleetCase):
    def history(self, seed: int, settings: GridSettings) -> History:
        """Play one history to its end."""
        for gateway in self.gateways:
            gateway.kill()
        self.gateways.clear()
        self.server.command("FLUSHALL")
        for pick in (first, last, first):
            self.gateway(pick, settings=settings)
        history = History(self, seed)
        for step in range(STEPS):
            history.step()
            if step % 10 == 9:
                self.meet(f"seed {seed}, step {step}")
        history.finish()
        self.meet(f"seed {seed}, at the end")
        self.assertEqual(set(), self.left(), f"seed {seed}")
        return history

    def meet(self, when: str) -> None:
        """Check that all show the same, and that the books are right."""
        for gateway in self.gateways:
            self.tick(gateway)
        try:
            self.assert_agreed()
        except AssertionError as error:
            raise AssertionError(f"{when}: {error}") from error

    def test_no_task_is_lost(self) -> None:
        """Every task that was accepted arrives, once, unless it came back too often."""
        for seed in range(HISTORIES):
            history = self.history(seed, GridSettings())
            self.assertEqual(sorted(set(history.sent)), sorted(history.sent), f"seed {seed}")
            self.assertEqual(history.accepted, set(history.sent) | history.dropped, f"seed {seed}")

    def test_servers_that_are_removed(self) -> None:
        """What goes with a server goes everywhere."""
        for seed in range(HISTORIES):
            self.history(1000 + seed, GridSettings(remove_timeout=12.0))

    def test_keys(self) -> None:
        """Commits touch no key that is not of the pool, so of one slot."""
        self.history(1, GridSettings())
        found = {key.decode() for key in self.server.command("KEYS", "*")}
        others = {key for key in found if not key.startswith("{test:}:")}
        self.assertEqual({"{test}:fleet"}, others)
