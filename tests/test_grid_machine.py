"""Random histories of a grid: whatever happens in whatever order, the rules hold.

Each step is done by the grid and by the model of :mod:`tests.grid_model`, and both must agree on
the outcome; after each step they must agree on the whole state, and the grid's own books must
equal a recount. ``HYPOTHESIS_PROFILE=thorough`` runs many more and longer histories.
"""

import os
from collections import Counter
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Reason, Refused
from odingw.grid.grid import Grid
from odingw.grid.placement import PRIOR_COST
from odingw.grid.tasks import Delivery, Duration, RoomBanClient, RoomClose, RoomUpdate
from odingw.grid.values import Admission, Command, GridSettings, RoomContested, TasksDropped
from odingw.state.memory import MemoryStore
from tests.grid_model import LIFTED, QUEUED, Model, ModelPool, attached, base_id
from tests.grids import Room, report

SETTINGS: Final = GridSettings(remove_timeout=20.0, queued_tasks=4, bans_per_customer=2)

POOLS: Final = ("", "eu")
SERVERS: Final = ("a.test:4433", "b.test:4433", "c.test:4433")
NAMES: Final = ("{b}1", "{b}2", "{b", "solo")
CUSTOMERS: Final = ("acme", "beta", "demo_1", "demo_2")

# The first is drawn more often, so that the steps of a history have to do with each other.
pools = st.sampled_from(("", *POOLS))
servers = st.sampled_from(SERVERS)
namespaces = st.sampled_from(("acme", "acme", "beta"))
customers = st.sampled_from(CUSTOMERS)
names = st.sampled_from(("{b}1", *NAMES))
users = st.sampled_from(("", "bob", "eve"))
tokens = st.sampled_from(("t1", "t2"))
reported = st.lists(
    st.builds(Room, st.tuples(namespaces, names), st.integers(0, 4), customers), max_size=5
)
loads = st.sampled_from((0.0, 0.3, 1.0))
rids = (
    st.tuples(names)
    | st.lists(st.sampled_from(("{b}1", "{b}2")), min_size=2, max_size=3).map(tuple)
    | st.lists(names, max_size=2).map(tuple)
)
limits = st.none() | st.integers(0, 6)
bans = st.sampled_from((None, 0.0, 0.25, 3.0, 1e15))
quarters = st.integers(1, 9).map(lambda n: n / 4)


@st.composite
def admissions(draw: st.DrawFn) -> Admission:
    """Connects of several customers, who may share a namespace."""
    customer = draw(customers)
    return Admission(
        customer,
        draw(namespaces),
        draw(rids),
        draw(users),
        draw(tokens),
        draw(limits),
        draw(limits),
        draw(limits) if customer.startswith("demo_") else None,
        draw(st.none() | servers | st.just("nowhere.test:1")),
    )


class GridMachine(RuleBasedStateMachine):
    """A store of two pools, and the model beside it."""

    deliveries = Bundle("deliveries")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.numbers = 0
        self.picks = 0
        self.store = MemoryStore(SETTINGS, self.pick)
        self.model = Model(SETTINGS, POOLS)
        self.said: dict[tuple[str, str], tuple[list[Room], float]] = {}
        for name in POOLS:
            self.store.pool(name)
        for address in SERVERS[:2]:
            self.reports("", address, [], 0.0)

    def pick(self, count: int) -> int:
        """Break ties in turn."""
        self.picks += 1
        return self.picks % count

    def both(self, name: str) -> tuple[Grid, ModelPool]:
        """Return a pool and its model."""
        return self.store.pool(name), self.model.pools[name]

    @rule(name=pools, address=servers, rooms=reported, load=loads)
    def reports(self, name: str, address: str, rooms: list[Room], load: float) -> None:
        """A server reports."""
        self.said[name, address] = (rooms, load)
        grid, model = self.both(name)
        said = report(address, *rooms, load=load)
        done = grid.report(said, self.now)
        closes, contests, returned = model.report(address, rooms, self.now)
        model.servers[address].load = load
        model.servers[address].clients = said.clients
        wanted = {RoomClose(room, Duration.of(SETTINGS.report_interval)) for room in closes}
        assert set(done.closes) == wanted
        assert len(done.closes) == len(wanted), "told twice to close one room"
        contested = [event for event in done.events if isinstance(event, RoomContested)]
        assert {(base_id(e.room), e.keeper, e.loser) for e in contested} == contests
        others = [event for event in done.events if not isinstance(event, RoomContested)]
        assert others == attached(address, said.version, returned)

    @rule(name=pools, address=servers)
    def reports_again(self, name: str, address: str) -> None:
        """A server, which may have been away, reports what it reported last."""
        self.reports(name, address, *self.said.get((name, address), ([], 0.0)))

    @rule(name=pools, admission=admissions())
    def connect(self, name: str, admission: Admission) -> None:
        """A client wants in."""
        grid, model = self.both(name)
        expected, lasts = self.model.judge(name, admission, self.now)
        try:
            placed = grid.connect(admission, self.now)
        except Refused as error:
            assert error.reason == expected, f"{error.reason} instead of {expected}"
            if error.reason in (Reason.ROOM_BANNED, Reason.USER_BANNED):
                assert (error.data or {})["retry_after"] == lasts
        else:
            assert placed.how == expected, f"{placed.how} instead of {expected}"
            model.connected(admission, placed.address, self.now)

    @rule(name=pools, room=st.tuples(namespaces, names), customer=customers, data=st.data())
    def command(self, name: str, room: tuple[str, str], customer: str, data: st.DataObject) -> None:
        """A management call; its number stands in the task, so that each can be told apart."""
        self.numbers += 1
        kind = data.draw(st.sampled_from((RoomUpdate, RoomClose, RoomBanClient)))
        ban = data.draw(bans) if kind is not RoomUpdate else None
        user = data.draw(users) if kind is RoomBanClient else None
        if kind is RoomUpdate:
            call = Command(customer, RoomUpdate(room, (self.numbers,)))
        elif user is None:
            call = Command(customer, RoomClose(room, Duration(0, self.numbers)), ban)
        else:
            call = Command(
                customer, RoomBanClient(room, user, Duration(0, self.numbers)), ban, user
            )
        grid, model = self.both(name)
        expected = model.command(call, self.now)
        try:
            grid.command(call, self.now)
        except Refused as error:
            assert error.reason == expected, f"{error.reason} instead of {expected}"
        else:
            assert expected in (QUEUED, LIFTED), f"{call} is accepted, not {expected}"

    @rule(name=pools, address=servers, drained=st.booleans())
    def drain(self, name: str, address: str, drained: bool) -> None:
        """An operator drains a server, or lets it be used again."""
        grid, model = self.both(name)
        try:
            grid.drain(address, drained)
        except Refused as error:
            assert error.reason == Reason.SERVER_NOT_FOUND
            assert address not in model.servers
        else:
            model.servers[address].drained = drained

    @rule(target=deliveries, name=pools, address=servers)
    def take(self, name: str, address: str) -> Any:
        """A reply takes tasks with it."""
        grid, model = self.both(name)
        delivery = grid.take(address)
        model.taken(address, delivery)
        return multiple() if delivery is None else (name, delivery)

    @rule(sent=deliveries, arrived=st.booleans())
    def settle(self, sent: tuple[str, Delivery], arrived: bool) -> None:
        """A reply arrived or got lost; this may be long ago, or be said twice."""
        name, delivery = sent
        grid, model = self.both(name)
        dropped = model.settled(delivery, arrived=arrived)
        if arrived:
            grid.acknowledge(delivery)
            return
        events = grid.give_back(delivery)
        assert len(events) == bool(dropped)
        for event in events:
            assert isinstance(event, TasksDropped)
            assert event.address == delivery.address
            assert [task.body for task in event.tasks] == dropped

    @rule(name=pools, address=servers, times=st.integers(1, 4))
    def lose(self, name: str, address: str, times: int) -> None:
        """Replies to one server get lost, one after the other."""
        for _ in range(times):
            delivery = self.take(name, address)
            if isinstance(delivery, tuple):
                self.settle(delivery, False)

    @rule(seconds=quarters)
    def wait(self, seconds: float) -> None:
        """Time goes by before the next periodic work."""
        self.now += seconds

    @rule()
    def tick(self) -> None:
        """The periodic work."""
        assert list(self.store.tick(self.now)) == self.model.tick(self.now)
        for name in POOLS:
            self.model.pools[name].expire(self.now)

    @rule(seconds=st.integers(1, 24), silent=st.sets(servers, max_size=2))
    def live(self, seconds: int, silent: set[str]) -> None:
        """Some time as it should be, but for servers that are silent."""
        for second in range(seconds):
            self.now += 1
            self.tick()
            if second % 5 == 4:
                for name, address in list(self.said):
                    if address not in silent:
                        self.reports_again(name, address)

    @rule(seconds=st.integers(3, 100))
    def pause(self, seconds: int) -> None:
        """The gateway stands still."""
        self.now += seconds
        self.tick()

    @invariant()
    def usage_agrees(self) -> None:
        """Usage is what live servers report, plus what is reserved; the idle are not in it."""
        views = {v.customer: (v.peers, v.reservations, v.rooms) for v in self.store.usage()}
        assert views == self.model.usage()

    @invariant()
    def rooms_agree(self) -> None:
        """Exactly the rooms that are reported or reserved are on record, each base on one server."""
        for name in POOLS:
            grid, model = self.both(name)
            views = list(grid.rooms())
            assert {view.id for view in views} == model.rooms()
            assert len(views) == len(model.rooms()), "a room is listed twice"
            places = Counter(room for room, _ in model.reservations)
            for view in views:
                server = model.servers[view.server]
                item = server.rooms.get(view.id)
                assert view.server == model.owner[base_id(view.id)]
                assert view.customer == model.customers[view.id]
                assert view.peers == (item.peers if item else 0)
                assert view.reservations == places[view.id]
                assert view.updated == (server.last_seen if item else model.made[view.id])

    @invariant()
    def servers_agree(self) -> None:
        """What is said of servers equals what they said, and a recount."""
        for name in POOLS:
            grid, model = self.both(name)
            assert [view.address for view in grid.servers()] == list(model.servers)
            for view in grid.servers():
                server = model.servers[view.address]
                assert grid.address_of_key(view.kid) == view.address
                assert (view.disabled, view.drained) == (server.disabled, server.drained)
                assert (view.first_seen, view.last_seen) == (server.first_seen, server.last_seen)
                assert (view.load, view.clients) == (server.load, server.clients)
                assert view.rooms == len(server.rooms)
                assert view.peers == sum(item.peers for item in server.rooms.values())
                places = [model.owner[base_id(room)] for room, _ in model.reservations]
                assert view.reservations == places.count(view.address)
                assert view.tasks == [task.server for task in model.tasks].count(view.address)
                assert view.expected_load > 0

    @invariant()
    def books_are_right(self) -> None:
        """What the grid counts along equals a recount of its own records."""
        for name in POOLS:
            registry = self.store.pool(name)._registry
            order = list(registry._reservations)
            assert [r.ends for r in order] == sorted(r.ends for r in order)
            rooms = [room for base in registry.bases.values() for room in base.rooms.values()]
            assert {r for room in rooms for r in room.reserved.values()} == set(order)
            for reservation in order:
                assert reservation.room.reserved[reservation.key] is reservation
                assert reservation.room.base.server in registry.servers.values()
            assert registry.open_servers == [s for s in registry.servers.values() if s.open]
            for server in registry.servers.values():
                growths = [g for g in registry.growth._running if g.load is server.load]
                assert all(growth.left >= 0 for growth in growths)
                foreseen = sum(growth.left for growth in growths)
                assert server.load.pending == server.reservations + foreseen
                assert 0 < server.load.cost <= PRIOR_COST * 50


PROFILES: Final = {
    "": settings(max_examples=60, stateful_step_count=50),
    "thorough": settings(max_examples=2000, stateful_step_count=100),
}


class GridMachineTests(SynchronousTestCase):
    def test_histories(self) -> None:
        profile = PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "")]
        run_state_machine_as_test(  # type: ignore[no-untyped-call]  # hypothesis has no types here
            GridMachine,
            settings=settings(profile, deadline=None, suppress_health_check=[HealthCheck.too_slow]),
        )
