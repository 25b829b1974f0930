"""Random histories of a grid: whatever happens in whatever order, the rules hold.

Each step is done by the grid and by the model of :mod:`tests.grid_model`, and both must agree on
the outcome; after each step they must agree on the whole state, and the grid's own books must
equal a recount. Beside the model, :mod:`tests.grid_promises` says outright what must never happen.
``HYPOTHESIS_PROFILE=thorough`` runs many more histories.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Reason, Refused
from odingw.grid.grid import Grid
from odingw.grid.rooms import RoomId, base_of
from odingw.grid.tasks import (
    Delivery,
    Duration,
    RoomBanClient,
    RoomClose,
    RoomUpdate,
)
from odingw.grid.values import Admission, Command, RoomContested, TasksDropped
from odingw.state.memory import MemoryStore
from tests.examples import examples
from tests.grid_books import check_books, check_usage, demo_as_one
from tests.grid_histories import (
    POOLS,
    SERVERS,
    SETTINGS,
    admissions,
    at_home,
    bans,
    bodies,
    copy,
    customers,
    jumps,
    loads,
    pools,
    reported,
    room_ids,
    servers,
    users,
)
from tests.grid_model import LIFTED, QUEUED, Model, ModelPool, attached, base_id
from tests.grid_promises import Promises
from tests.grids import Room, report


class GridMachine(RuleBasedStateMachine):
    """A store of two pools, and the model beside it."""

    deliveries = Bundle("deliveries")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.numbers = 0
        self.picks = 0
        self.store = self.new_store()
        self.model = Model(SETTINGS, POOLS)
        self.promises = Promises(self.store, SETTINGS)
        self.said: dict[tuple[str, str], tuple[list[Room], float]] = {}
        for address in SERVERS[:2]:
            self.reports("", address, [], 0.0)

    def new_store(self) -> MemoryStore:
        """Return an empty store with all pools."""
        store = MemoryStore(SETTINGS, self.pick)
        for name in POOLS:
            store.pool(name)
        return store

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
        address = at_home(name, address)
        self.report(name, address, rooms, load)

    def report(self, name: str, address: str, rooms: list[Room], load: float) -> None:
        """The server with this very address reports."""
        self.said[name, address] = (rooms, load)
        grid, model = self.both(name)
        said = report(address, *rooms, load=load)
        done = grid.report(said, self.now)
        self.promises.pools[name].reported(address, self.now)
        closes, contests, returned = model.report(address, rooms, self.now)
        model.servers[address].load = load
        model.servers[address].clients = said.clients
        wanted = {RoomClose(room, Duration.of(SETTINGS.report_interval)) for room in closes}
        assert set(done.closes) == wanted
        assert len(done.closes) == len(wanted), "told twice to close one room"
        contested = [event for event in done.events if isinstance(event, RoomContested)]
        assert {(base_id(e.room), e.keeper, e.loser) for e in contested} == contests
        assert len(set(contested)) == len(contested), "an event comes twice"
        others = [event for event in done.events if not isinstance(event, RoomContested)]
        assert others == attached(address, said.version, returned)

    @rule(name=pools, address=servers)
    def reports_again(self, name: str, address: str) -> None:
        """A server, which may have been away, reports what it reported last."""
        address = at_home(name, address)
        self.report(name, address, *self.said.get((name, address), ([], 0.0)))

    @rule(name=pools, data=st.data())
    def connect(self, name: str, data: st.DataObject) -> None:
        """A client wants in."""
        self.connects_to(name, data.draw(admissions(self.some_room(name, data))))

    @rule(name=pools, data=st.data())
    def crowd(self, name: str, data: st.DataObject) -> None:
        """Several clients want into one room."""
        first = data.draw(admissions(self.some_room(name, data)))
        for user, token_id in (("bob", "t1"), ("", "t1"), ("eve", "t1"), ("", "t2")):
            self.connects_to(name, replace(first, user=user, token_id=token_id))

    @rule(name=pools, data=st.data())
    def fail_over(self, name: str, data: st.DataObject) -> None:
        """The server of a room falls silent amid a reply, and a client comes."""
        room = self.some_room(name, data)
        owner = self.model.pools[name].owner.get(base_id(room), "")
        sent = self.send(name, owner)
        self.live(8, {owner})
        self.connects_to(name, data.draw(admissions(room)))
        if isinstance(sent, tuple):
            self.settle(sent, data.draw(st.booleans()))

    def some_room(self, name: str, data: st.DataObject) -> RoomId:
        """Draw a room, rather one that there is than another."""
        known = sorted(self.model.pools[name].rooms())
        return data.draw(st.sampled_from(known) | room_ids if known else room_ids)

    def connects_to(self, name: str, admission: Admission) -> None:
        """A client wants in, as described."""
        grid, model = self.both(name)
        expected, lasts = self.model.judge(name, admission, self.now)
        done = attempt(grid.connect, admission, self.now)
        if isinstance(done, Refused):
            assert done.reason == expected, f"{done.reason} instead of {expected}"
            if done.reason in (Reason.ROOM_BANNED, Reason.USER_BANNED):
                assert (done.data or {})["retry_after"] == lasts
        else:
            self.promises.granted(name, admission, done, self.now)
            assert done.how == expected, f"{done.how} instead of {expected}"
            model.connected(admission, done.address, self.now)

    @rule(name=pools, customer=customers, data=st.data(), times=st.integers(1, 5))
    def commands(self, name: str, customer: str, data: st.DataObject, times: int) -> None:
        """Management calls for a room."""
        room = self.some_room(name, data)
        for _ in range(times):
            self.command(name, room, customer, data)

    def command(self, name: str, room: RoomId, customer: str, data: st.DataObject) -> None:
        """A management call."""
        self.numbers += 1
        body = data.draw(bodies(room, self.numbers))
        ban = None if isinstance(body, RoomUpdate) else data.draw(bans)
        user = body.user_id if isinstance(body, RoomBanClient) else None
        self.say(name, Command(customer, body, ban, user))

    @rule(name=pools, first=bans, second=bans, user=users, data=st.data())
    def ban_again(
        self, name: str, first: float, second: float, user: str, data: st.DataObject
    ) -> None:
        """A ban is replaced, and the time of the first is over."""
        room = self.some_room(name, data)
        for ban in (first, second):
            self.numbers += 1
            body = RoomBanClient(room, user, Duration(0, self.numbers))
            self.say(name, Command("acme", body, ban, user))
        self.now += min(first or 0, 5)
        self.tick()

    def say(self, name: str, call: Command) -> None:
        """A management call, as described."""
        grid, model = self.both(name)
        expected = model.command(call, self.now)
        done = attempt(grid.command, call, self.now)
        if isinstance(done, Refused):
            assert done.reason == expected, f"{done.reason} instead of {expected}"
        else:
            assert expected in (QUEUED, LIFTED), f"{call} is accepted, not {expected}"
            known = expected == QUEUED
            self.promises.pools[name].commanded(call, self.now, known=known)

    @rule(name=pools, data=st.data())
    def knock(self, name: str, data: st.DataObject) -> None:
        """Somebody who is kept out, or was a moment ago, wants in; also through another room."""
        running = sorted(self.model.pools[name].bans, key=str)
        if running:
            (namespace, room), user = data.draw(st.sampled_from(running))
            base = [each for each in ("{b}1", "{b}2", "solo") if base_of(each) == base_of(room)]
            others = st.sampled_from(base)
            rooms = data.draw(st.tuples(others, others) | st.just((room,)))
            admission = data.draw(admissions((namespace, room)))
            user = data.draw(users) if user is None else user
            limits = {"max_peers": None, "max_rooms": None, "demo_peers": None, "server": None}
            self.connects_to(name, replace(admission, rooms=rooms, user=user, **limits))

    @rule(target=deliveries, name=pools, data=st.data())
    def ask_again(self, name: str, data: st.DataObject) -> Any:
        """Tasks come in while others are under way, and their server asks again."""
        room = self.some_room(name, data)
        owner = self.model.pools[name].owner.get(base_id(room))
        sent = []
        for _ in range(2):
            self.command(name, room, "beta", data)
            sent.append(self.send(name, owner or ""))
        return multiple(*(each for each in sent if isinstance(each, tuple)))

    @rule(name=pools, address=servers, drained=st.booleans())
    def drain(self, name: str, address: str, drained: bool) -> None:
        """An operator drains a server, or lets it be used again."""
        grid, model = self.both(name)
        address = at_home(name, address)
        done = attempt(grid.drain, address, drained)
        if isinstance(done, Refused):
            assert done.reason == Reason.SERVER_NOT_FOUND
            assert address not in model.servers
        else:
            model.servers[address].drained = drained
            self.promises.pools[name].drained(address, drained)

    @rule(target=deliveries, name=pools, address=servers)
    def take(self, name: str, address: str) -> Any:
        """A reply takes tasks with it."""
        return self.send(name, at_home(name, address))

    def send(self, name: str, address: str) -> Any:
        """A reply to the server with this very address takes tasks with it."""
        grid, model = self.both(name)
        delivery = grid.take(address)
        if delivery is not None:
            self.promises.pools[name].taken(address, delivery)
        model.taken(address, delivery)
        return multiple() if delivery is None else (name, delivery)

    @rule(sent=deliveries, arrived=st.booleans())
    def settle(self, sent: tuple[str, Delivery], arrived: bool) -> None:
        """A reply arrived or got lost; this may be long ago, or be said twice."""
        name, delivery = sent
        grid, model = self.both(name)
        dropped = model.settled(delivery, arrived=arrived)
        promises = self.promises.pools[name]
        if arrived:
            grid.acknowledge(delivery)
            promises.settled(delivery, (), arrived=True)
            return
        events = grid.give_back(delivery)
        told = [task.body for event in events for task in getattr(event, "tasks", ())]
        promises.settled(delivery, told, arrived=False)
        assert len(events) == bool(dropped)
        for event in events:
            assert isinstance(event, TasksDropped)
            assert event.address == delivery.address
            assert [task.body for task in event.tasks] == dropped

    @rule(name=pools, address=servers, times=st.integers(1, 4))
    def lose(self, name: str, address: str, times: int) -> None:
        """Replies to one server get lost, one after the other."""
        for _ in range(times):
            delivery = self.send(name, at_home(name, address))
            if isinstance(delivery, tuple):
                self.settle(delivery, False)

    @rule(seconds=st.sampled_from((0.25, 1.0, 2.5, 30.0)))
    def wait(self, seconds: float) -> None:
        """Time goes by before the next periodic work; much, if the gateway stands still."""
        self.now += seconds

    @rule(data=st.data(), early=st.booleans())
    def wait_for_an_end(self, data: st.DataObject, early: bool) -> None:
        """Time goes by until a reservation or a ban ends, or until just before."""
        ends = {
            time
            for pool in self.model.pools.values()
            for time in (
                *(held.ends for held in pool.reservations.values()),
                *(until for until, _ in pool.bans.values()),
            )
            if self.now < time < self.now + 60
        }
        if ends:
            end = data.draw(st.sampled_from(sorted(ends)))
            self.now = max(self.now, end - early / 8)

    @rule()
    def tick(self) -> None:
        """The periodic work."""
        queues = dict(self.promises.queues())
        events = list(self.store.tick(self.now))
        self.promises.ticked(events, queues, self.now)
        assert events == self.model.tick(self.now)
        for name in POOLS:
            self.model.pools[name].expire(self.now)

    @rule(seconds=st.sampled_from((1, 9, 24)), silent=st.sets(servers, max_size=2))
    def live(self, seconds: int, silent: set[str]) -> None:
        """Some time as it should be, but for servers that are silent."""
        for second in range(seconds):
            self.now += 1
            self.tick()
            if second % 5 == 4:
                for (name, address), said in list(self.said.items()):
                    if address not in silent:
                        self.report(name, address, *said)

    @rule(jump=jumps)
    def restart(self, jump: float) -> None:
        """Another process takes up what is stored; its clock may be ahead of ours, or behind."""
        for name in POOLS:
            grid, model = self.both(name)
            # One that is over may be forgotten by now, or begin again where the clock is set back.
            model.bans = {
                key: ban
                for key, ban in model.bans.items()
                if ban[0] > self.now or grid.ledger.ban(key) is not None
            }
        self.now += jump
        store = self.new_store()
        for name in POOLS:
            copy(self.store.pool(name).ledger, store.pool(name).ledger)
        store.resume(self.now)
        self.store = store
        self.model.resume(self.now)
        self.promises.resumed(store, self.now)

    @invariant()
    def promises_are_kept(self) -> None:
        """What must never happen has not."""
        self.promises.check(self.now)

    @invariant()
    def usage_agrees(self) -> None:
        """Usage is what live servers report, plus what is reserved; the idle are not in it."""
        views = {v.customer: (v.peers, v.reservations, v.rooms) for v in self.store.usage()}
        assert views == demo_as_one(self.model.usage())

    @invariant()
    def rooms_agree(self) -> None:
        """On record is what is reported or reserved, and each base is on one server."""
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
                assert view.reported == (item is not None)
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
        check_usage(self.store)
        for name in POOLS:
            check_books(self.store.pool(name))


def attempt(call: Callable[..., Any], *args: Any) -> Any:
    """Return what a call returns, or why it is refused."""
    try:
        return call(*args)
    except Refused as error:
        return error


@pytest.mark.hypothesis
class GridMachineTests(SynchronousTestCase):
    def test_histories(self) -> None:
        run_state_machine_as_test(
            GridMachine,
            settings=settings(max_examples=examples(150), report_multiple_bugs=False),
        )
