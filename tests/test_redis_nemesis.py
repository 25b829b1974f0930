"""Random calls at three gateways while one thing after the other breaks; see what is promised then.

Between two faults there is time for everybody to know what happened: no single fault may lose an
accepted task or a ban, bring a delivered task or a lifted ban back, or split a room.
"""

from typing import Any, Final

import pytest

from odingw.errors import Reason, Refused
from odingw.grid.tasks import Delivery
from odingw.grid.values import GridSettings, ServerReport
from tests.examples import THOROUGH
from tests.grids import Room, admission, ban, report, update
from tests.redis_fleet import A, B, C, FleetCase, first, grid, last, numbers, rooms
from tests.redis_link import DirectStore
from tests.test_redis_histories import History

HISTORIES: Final = 1000 if THOROUGH else 8
FAULTS: Final = 6
STEPS: Final = 12


class Nemesis(History):
    """A history in which servers report to one gateway each, and something breaks now and then."""

    def __init__(self, case: FleetCase, seed: int) -> None:
        super().__init__(case, seed)
        self.home = {A: 0, B: 1, C: 2}
        self.bans: set[tuple[str, str]] = set()
        self.lifted: set[tuple[str, str]] = set()
        self.doubtful: set[Any] = set()
        self.final: set[int] = set()
        self.saved: dict[bytes, bytes] = {}
        self.killed = 0

    def of(self, address: str) -> DirectStore:
        """Return the gateway that a server reports to."""
        return self.case.gateways[self.home[address] % len(self.case.gateways)]

    def says(self, address: str) -> ServerReport:
        """Return what a server reports."""
        return report(address, *self.said[address])

    def report(self) -> None:
        """A server reports the rooms that it carries, with other peers."""
        address = self.random.choice((A, B, C))
        where = self.where()
        self.said[address] = tuple(
            Room(room, self.random.randint(1, 3))
            for room in self.rooms
            if where.get(room) == address
        )
        gateway = self.of(address)
        told = gateway.answer(grid(gateway).report(self.says(address), self.case.now))
        assert told is not None

    def where(self) -> dict[tuple[str, str], str]:
        """Return where rooms are, as far as a gateway that is there sees it."""
        there = [gateway for gateway in self.case.gateways if not gateway.store.trouble]
        return {view.id: view.server for view in rooms(there[0])} if there else {}

    def command(self) -> None:
        """A backend asks for a task, or bans somebody, or lifts that."""
        gateway, (_, room) = self.gateway, self.random.choice(self.rooms)
        self.number += 1
        call = self.random.choice(
            (update(room, self.number), ban(room, "eve", 5000), ban(room, "eve", 0))
        )
        key = (room, "eve")
        try:
            gateway.answer(grid(gateway).command(call, self.case.now))
        except Refused as error:
            if error.reason == Reason.STORE_UNAVAILABLE:
                # Nobody knows whether it was carried out.
                self.doubtful.add(self.number if call.ban is None else key)
            return
        if call.ban is None:
            self.accepted.add(self.number)
        elif call.ban:
            self.bans.add(key)
            self.lifted.discard(key)
            self.doubtful.discard(key)
        else:
            self.bans.discard(key)
            self.lifted.add(key)
            self.doubtful.discard(key)

    def take(self) -> None:
        """A server is sent its tasks with the reply to its report."""
        address = self.random.choice((A, B, C))
        gateway = self.of(address)
        delivery = gateway.answer(grid(gateway).take(address))
        if delivery is not None:
            self.flights.append((gateway, delivery))

    def end(self, gateway: DirectStore, delivery: Delivery, *, arrived: bool) -> None:
        """End a flight; nothing that was over comes again."""
        if arrived:
            again = self.final & set(numbers(delivery))
            assert not again, f"{again} had been delivered"
        super().end(gateway, delivery, arrived=arrived)

    def drain(self) -> None:
        """Nobody drains."""

    def step(self) -> None:
        """Do something."""
        self.random.choice(
            (self.report, self.connect, self.connect, self.command, self.take, self.land)
        )()

    # What breaks

    def cut(self) -> None:
        """A gateway loses Redis for a while."""
        self.gateway.cut()

    def cut_all(self) -> None:
        """Redis is away."""
        for gateway in self.case.gateways:
            gateway.cut()

    def lose_an_answer(self) -> None:
        """A connection ends before or after Redis has carried out a call."""
        gateway = self.gateway
        gateway.link.ends = self.random.choice(("before", "after"))

    def kill(self) -> None:
        """A gateway is killed, and another one started in its place."""
        index = self.random.randrange(len(self.case.gateways))
        gone = self.case.gateways[index]
        gone.kill()
        self.flights = [flight for flight in self.flights if flight[0] is not gone]
        self.killed += 1
        self.case.gateways[index] = DirectStore(
            self.case.server, self.case.pools, self.case.now, pick=first, name=f"new-{self.killed}"
        )

    def flush(self) -> None:
        """Somebody empties Redis."""
        self.case.server.command("FLUSHALL")

    def delete(self) -> None:
        """Somebody deletes a key; those of one room's reservations are of no more use in 10 s."""
        keys = sorted(self.case.server.command("KEYS", "*"))
        keys = [key for key in keys if b":places:" not in key]
        self.case.server.command("DEL", self.random.choice(keys))

    def save(self) -> None:
        """A replica has what Redis has, and nothing of what comes."""
        self.saved = {
            key: self.case.server.command("DUMP", key)
            for key in self.case.server.command("KEYS", "*")
        }

    def fail_over(self) -> None:
        """The replica takes over."""
        for gateway in self.case.gateways:
            gateway.cut()
        self.case.server.kill()
        self.case.server.start()
        for key, value in self.saved.items():
            self.case.server.command("RESTORE", key, "0", value)

    def stand_still(self) -> None:
        """A gateway gets no processor, or one whose clock is wrong."""
        self.gateway.store._ticked = self.case.now - 100

    def round(self) -> None:
        """Some calls, a fault amid them, and calm."""
        fault = self.random.choice(
            (
                self.cut,
                self.cut_all,
                self.lose_an_answer,
                self.kill,
                self.flush,
                self.delete,
                self.fail_over,
                self.stand_still,
            )
        )
        self.name = fault.__name__
        if fault == self.fail_over:
            self.save()
        for number in range(STEPS):
            if number == STEPS // 2 and fault != self.fail_over:
                fault()
            self.step()
        if fault == self.fail_over:
            fault()
        self.calm()

    def calm(self) -> None:
        """Let all find Redis again, and all that is under way end."""
        for gateway in self.case.gateways:
            gateway.away = False
        for _ in range(6):
            self.case.now += 1
            for gateway in self.case.gateways:
                gateway.now = self.case.now
                for _, pool in gateway.store.pools():
                    pool.now = self.case.now
                if gateway.store.trouble:
                    gateway.clock.pump([3.5] * 3)
                self.case.tick(gateway)
            for address in (A, B, C):
                gateway = self.of(address)
                gateway.answer(grid(gateway).report(self.says(address), self.case.now))
        for flight in self.flights:
            self.end(*flight, arrived=True)
        self.flights = []
        for address in (A, B, C):
            gateway = self.of(address)
            while delivery := gateway.answer(grid(gateway).take(address)):
                self.end(gateway, delivery, arrived=True)
        self.final |= set(self.sent)


@pytest.mark.thorough
class NemesisTests(FleetCase):
    def test_histories(self) -> None:
        for seed in range(HISTORIES):
            self.history(seed)

    def history(self, seed: int) -> None:
        """Play one history."""
        for gateway in self.gateways:
            gateway.kill()
        self.gateways.clear()
        self.server.command("FLUSHALL")
        for pick in (first, last, first):
            self.gateway(pick, settings=GridSettings())
        history = Nemesis(self, seed)
        history.calm()
        for number in range(FAULTS):
            try:
                history.round()
                self.check(history)
            except Exception as error:
                raise AssertionError(
                    f"seed {seed}, round {number}, {history.name}: {error!r}"
                ) from error

    def check(self, history: Nemesis) -> None:
        """Check what is promised after a fault."""
        for gateway in self.gateways:
            self.assertEqual("", gateway.store.trouble)
        self.assert_agreed()
        lost = history.accepted - set(history.sent) - history.dropped
        self.assertEqual(set(), lost, "an accepted task is lost")
        for namespace, room in history.rooms:
            placed = {
                gateway.answer(grid(gateway).connect(admission(room, user="all"), self.now)).address
                for gateway in self.gateways
            }
            self.assertEqual(1, len(placed), f"{namespace}/{room} is split")
            reported = {a for a, said in history.said.items() if any(r.id[1] == room for r in said)}
            if reported:
                self.assertEqual(reported, placed, f"{room} has moved")
            banned = (room, "eve")
            for gateway in self.gateways:
                wanted = admission(room, user="eve")
                try:
                    gateway.answer(grid(gateway).connect(wanted, self.now))
                except Refused as error:
                    self.assertEqual(Reason.USER_BANNED, error.reason)
                    self.assertIn(banned, history.bans | history.doubtful, "a lifted ban is back")
                else:
                    self.assertNotIn(banned, history.bans - history.doubtful, "a ban is lost")
