"""The same random history for every store: what callers can see of them is the same.

Histories hold reports, Connects, tasks and what becomes of them, bans, drains, time that goes by,
and restarts. The rules themselves are held against a model in :mod:`tests.test_grid_machine`.
"""

from collections.abc import Callable, Iterable, Sequence
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
from msgspec.json import encode
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Refused
from odingw.grid.rooms import RoomId
from odingw.grid.store import GridStore
from odingw.grid.tasks import Delivery, RoomBanClient, RoomUpdate
from odingw.grid.values import Command, Reported, RoomView, ServerView, TasksDropped
from tests.examples import examples
from tests.grid_histories import (
    POOLS,
    SERVERS,
    SETTINGS,
    admissions,
    bans,
    bodies,
    customers,
    loads,
    pools,
    reported,
    room_ids,
    servers,
)
from tests.grids import Room, report
from tests.redis_server import RedisServer, require_redis
from tests.stores import LocalWorld, MemoryWorld, RedisWorld, World

Seen = Any
"""What a caller sees of a call, in a form that can be compared."""


def seen(result: Any) -> Seen:
    """Return what a caller sees of a result."""
    match result:
        case Refused():
            data = dict(result.data or {})
            return "refused", result.reason, round(data.get("retry_after", 0.0), 6)
        case Reported(closes, events):
            return sorted(map(repr, closes)), sorted(map(repr, map(_event, events)))
        case Delivery():
            return [encode(task.body) for task in result.tasks]
        case tuple():
            return sorted(map(repr, map(_event, result)))
    return result


def _event(event: Any) -> Any:
    if isinstance(event, TasksDropped):
        return event.address, [encode(task.body) for task in event.tasks]
    return event


class StoreMachine(RuleBasedStateMachine):
    """Every store, side by side."""

    redis: RedisServer
    deliveries = Bundle("deliveries")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.numbers = 0
        self.restarts = 0
        self.turns = 0
        self.said: dict[tuple[str, str], tuple[list[Room], float]] = {}
        self.worlds: list[World] = [
            MemoryWorld(SETTINGS, POOLS),
            LocalWorld(SETTINGS, POOLS),
            RedisWorld(self.redis, SETTINGS, POOLS),
        ]
        for address in SERVERS[:2]:
            self.reports("", address, [], 0.0)

    def teardown(self) -> None:
        """Let go of files and connections."""
        for world in self.worlds:
            world.close()

    def all_do(self, pool: str, call: Callable[[GridStore], Any]) -> list[Any]:
        """Let every store do the same, and check that it comes to the same."""
        results = []
        self.turns += 1
        for world in self.worlds:
            world.pick.picks = self.turns
            try:
                results.append(world.answer(call(world.pool(pool))))
            except Refused as error:
                world.settle()
                results.append(error)
        views = [seen(result) for result in results]
        assert views[1:] == views[:-1], views
        return results

    @rule(name=pools, address=servers, rooms=reported, load=loads)
    def reports(self, name: str, address: str, rooms: list[Room], load: float) -> None:
        """A server reports."""
        self.said[name, address] = (rooms, load)
        said = report(address, *rooms, load=load)
        self.all_do(name, lambda grid: grid.report(said, self.now))

    @rule(name=pools, address=servers)
    def reports_again(self, name: str, address: str) -> None:
        """A server, which may have been away, reports what it reported last."""
        self.reports(name, address, *self.said.get((name, address), ([], 0.0)))

    @rule(name=pools, data=st.data())
    def connect(self, name: str, data: st.DataObject) -> None:
        """A client wants in."""
        admission = data.draw(admissions(self.some_room(name, data)))
        self.all_do(name, lambda grid: grid.connect(admission, self.now))

    def some_room(self, name: str, data: st.DataObject) -> RoomId:
        """Draw a room, rather one that there is than another."""
        known = sorted(view.id for view in self.worlds[0].rooms(name))
        return data.draw(st.sampled_from(known) | room_ids if known else room_ids)

    @rule(name=pools, customer=customers, data=st.data(), times=st.integers(1, 5))
    def commands(self, name: str, customer: str, data: st.DataObject, times: int) -> None:
        """Management calls for a room."""
        room = self.some_room(name, data)
        for _ in range(times):
            self.numbers += 1
            body = data.draw(bodies(room, self.numbers))
            ban = None if isinstance(body, RoomUpdate) else data.draw(bans)
            user = body.user_id if isinstance(body, RoomBanClient) else None
            self.command(name, Command(customer, body, ban, user))

    def command(self, name: str, command: Command) -> None:
        """A management call."""
        self.all_do(name, lambda grid: grid.command(command, self.now))

    @rule(name=pools, address=servers, drained=st.booleans())
    def drain(self, name: str, address: str, drained: bool) -> None:
        """An operator drains a server, or lets it be used again."""
        self.all_do(name, lambda grid: grid.drain(address, drained))

    @rule(target=deliveries, name=pools, address=servers)
    def take(self, name: str, address: str) -> Any:
        """A reply takes tasks with it."""
        found = self.all_do(name, lambda grid: grid.take(address))
        return multiple() if found[0] is None else (self.restarts, name, found)

    @rule(sent=deliveries, arrived=st.booleans())
    def settle(self, sent: tuple[int, str, list[Delivery]], arrived: bool) -> None:
        """A reply arrived or got lost; this may be long ago, or be said twice."""
        restarts, name, found = sent
        if restarts != self.restarts:
            # Who sent it is no more.
            return
        given = iter(found)
        if arrived:
            self.all_do(name, lambda grid: grid.acknowledge(next(given)))
        else:
            self.all_do(name, lambda grid: grid.give_back(next(given)))

    @rule(name=pools, address=servers, times=st.integers(1, 4))
    def lose(self, name: str, address: str, times: int) -> None:
        """Replies to one server get lost, one after the other."""
        for _ in range(times):
            sent = self.take(name, address)
            if isinstance(sent, tuple):
                self.settle(sent, False)

    @rule(seconds=st.sampled_from((0.25, 1.0, 2.5, 30.0)))
    def wait(self, seconds: float) -> None:
        """Time goes by before the next periodic work; much, if the gateway stands still."""
        self.now += seconds

    @rule()
    def tick(self) -> None:
        """The periodic work."""
        views = []
        for world in self.worlds:
            views.append(seen(world.store.tick(self.now)))
            world.settle()
        assert views[1:] == views[:-1]

    @rule(seconds=st.sampled_from((1, 9, 24)), silent=st.sets(servers, max_size=2))
    def live(self, seconds: int, silent: set[str]) -> None:
        """Some time as it should be, but for servers that are silent."""
        for second in range(seconds):
            self.now += 1
            self.tick()
            if second % 5 == 4:
                for name, address in list(self.said):
                    if address not in silent:
                        self.reports_again(name, address)

    @rule()
    def restart(self) -> None:
        """The gateway crashes, and is started again."""
        self.restarts += 1
        for world in self.worlds:
            world.restart(self.now)

    @invariant()
    def callers_see_the_same(self) -> None:
        """Usage, rooms and servers agree."""
        self.compare("usage", [map(repr, world.store.usage()) for world in self.worlds])
        for name in POOLS:
            self.compare("rooms", [map(_room, world.rooms(name)) for world in self.worlds])
            found = [map(_server, world.pool(name).servers()) for world in self.worlds]
            self.compare("servers", found)

    def compare(self, what: str, views: Sequence[Iterable[str]]) -> None:
        """Compare what the stores show, and tell where they differ."""
        first, *others = map(set, views)
        for world, other in zip(self.worlds[1:], others, strict=True):
            assert first == other, (what, type(world).__name__, first - other, other - first)


# A report that says nothing new is not written down, so its time does not outlive a restart.


def _room(view: RoomView) -> str:
    return repr(replace(view, updated=0.0))


def _server(view: ServerView) -> str:
    return repr(replace(view, last_seen=0.0))


@pytest.mark.hypothesis
class StoreMachineTests(SynchronousTestCase):
    def test_histories(self) -> None:
        require_redis(self)
        server = RedisServer(persistent=False).start()
        self.addCleanup(server.close)
        machine = type("Machine", (StoreMachine,), {"redis": server})
        run_state_machine_as_test(
            machine, settings=settings(max_examples=examples(40), report_multiple_bugs=False)
        )
