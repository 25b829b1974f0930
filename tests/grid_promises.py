"""What a grid promises, said outright and checked after every step of a history.

The model of :mod:`tests.grid_model` works out what must happen. This says what must never happen,
and knows nothing but what was said to the grid and what it answered, so that a wrong rule that the
model shares is found too. Each message begins with the promise that is broken.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from msgspec.json import Encoder

from odingw.grid.bans import TEN_YEARS, BanKey
from odingw.grid.grid import Grid
from odingw.grid.rooms import BaseId, RoomId
from odingw.grid.tasks import MAX_RETURNS, Delivery, TaskBody
from odingw.grid.values import Admission, Command, Event, GridSettings, Placed, ServerRemoved
from odingw.state.memory import Grids
from tests.grid_model import base_id

Text: TypeAlias = bytes
"""A task as it goes over the wire, by which it can be told from all others."""

_text: Final = Encoder().encode

ONE_SERVER: Final = "a base is on one server"
OPEN_SERVER: Final = "no placement on a dead, drained or foreign server"
LIMIT: Final = "a limit is never passed"
BAN: Final = "a ban is never lifted early"
ORDER: Final = "tasks are in order"
NONE_LOST: Final = "no task is lost"
RIGHT_SERVER: Final = "no task is for the wrong server"


class PoolPromises:
    """The promises of one pool."""

    def __init__(self, grid: Grid, settings: GridSettings) -> None:
        self.grid = grid
        self._settings = settings
        self._heard: dict[str, float] = {}
        self._dead: set[str] = set()
        self._drained: set[str] = set()
        self._bans: dict[BanKey, float] = {}
        # In the order in which they were accepted.
        self._tasks: dict[Text, BaseId] = {}
        self._returned: dict[Text, int] = {}
        self._flights: dict[str, Delivery] = {}

    def owners(self) -> dict[BaseId, str]:
        """Return where each base is, checking that it is nowhere else."""
        owners: dict[BaseId, str] = {}
        for view in self.grid.rooms():
            owner = owners.setdefault(base_id(view.id), view.server)
            assert owner == view.server, f"{ONE_SERVER}: {view.id} is on {owner} and {view.server}"
        return owners

    def queues(self) -> dict[str, list[Text]]:
        """Return what waits or is in flight for each server."""
        servers = self.grid._registry.servers
        return {a: [_text(task.body) for task in s.tasks.tasks()] for a, s in servers.items()}

    def reported(self, address: str, now: float) -> None:
        """A server was heard of."""
        self._heard[address] = now
        self._dead.discard(address)

    def drained(self, address: str, drained: bool) -> None:
        """A server was drained, or is to be used again."""
        (self._drained.add if drained else self._drained.discard)(address)

    def granted(self, admission: Admission, placed: Placed, now: float) -> None:
        """A client was let in."""
        address = placed.address
        assert address in self._heard, f"{OPEN_SERVER}: {address} has never reported here"
        assert address not in self._dead, f"{OPEN_SERVER}: {address} is dead"
        if placed.how != "existing":
            assert address not in self._drained, f"{OPEN_SERVER}: {address} is drained"
            assert admission.server in (None, address), (
                f"{OPEN_SERVER}: {address} was not asked for"
            )
        for name in admission.rooms:
            for user in (None, admission.user):
                until = self._bans.get(((admission.namespace, name), user), 0.0)
                assert until <= now, f"{BAN}: {user} is let into {name}"

    def commanded(self, command: Command, now: float, *, known: bool) -> None:
        """A management call was accepted; without ``known``, for a room that is gone."""
        key = (command.room, command.user)
        if command.ban:
            self._bans[key] = now + min(command.ban, TEN_YEARS)
        elif command.ban is not None:
            self._bans.pop(key, None)
        if known:
            self._tasks[_text(command.body)] = command.base

    def taken(self, address: str, delivery: Delivery) -> None:
        """Tasks were sent to a server."""
        assert address not in self._flights, f"{ORDER}: two deliveries at a time"
        owners, order = self.owners(), list(self._tasks)
        flying = {_text(task.body) for flight in self._flights.values() for task in flight.tasks}
        for task in delivery.tasks:
            base, text = task.base, _text(task.body)
            owner = owners.get(base, address)
            assert owner == address, f"{RIGHT_SERVER}: {base} is on {owner}, not {address}"
            assert text in self._tasks, f"{NONE_LOST}: {text!r} was never asked for, or done"
            assert text not in flying, f"{ORDER}: {text!r} is sent twice at a time"
            for earlier in order[: order.index(text)]:
                ahead = self._tasks[earlier] != base or earlier in flying
                assert ahead, f"{ORDER}: {text!r} overtakes {earlier!r}"
            flying.add(text)
        self._flights[address] = delivery

    def settled(self, delivery: Delivery, dropped: Iterable[TaskBody], *, arrived: bool) -> None:
        """A delivery has ended."""
        if self._flights.get(delivery.address) is not delivery:
            return
        del self._flights[delivery.address]
        for task in delivery.tasks:
            text = _text(task.body)
            if arrived:
                del self._tasks[text]
            else:
                self._returned[text] = self._returned.get(text, 0) + 1
        for text in map(_text, dropped):
            often = self._returned[text]
            assert often > MAX_RETURNS, f"{NONE_LOST}: given up after {often} tries"
            del self._tasks[text]

    def excused(self, now: float) -> None:
        """Nobody was there to hear servers."""
        self._heard = dict.fromkeys(self._heard, now)

    def ticked(self, events: Iterable[Event], queues: Mapping[str, list[Text]], now: float) -> None:
        """The periodic work was done; ``queues`` are those of before."""
        removed = {(e.address, e.tasks) for e in events if isinstance(e, ServerRemoved)}
        attached = {view.address for view in self.grid.servers()}
        for address, heard in list(self._heard.items()):
            if now - heard > self._settings.disable_timeout:
                self._dead.add(address)
            if address not in attached:
                silent = now - heard
                assert silent > self._settings.remove_timeout, f"{address} is forgotten too early"
                told = (address, len(queues[address])) in removed
                assert told, f"{NONE_LOST}: nobody was told of the tasks of {address}"
                for text in queues[address]:
                    del self._tasks[text]
                for known in (self._heard, self._flights):
                    known.pop(address, None)
                self._dead.discard(address)
                self._drained.discard(address)

    def resumed(self, grid: Grid, now: float) -> None:
        """Another process has taken over; what was in flight may never have arrived."""
        self.grid = grid
        self._flights.clear()
        self.excused(now)

    def check(self, now: float) -> None:
        """Check what must hold at any time."""
        owners, queues = self.owners(), self.queues()
        for room, servers in self._carriers().items():
            assert servers == {owners[base_id(room)]}, f"{ONE_SERVER}: {room} counts at {servers}"
        for key, until in self._bans.items():
            kept = self.grid.ledger.ban(key)
            assert until <= now or (kept and kept.until >= until), f"{BAN}: {key} is gone"
        # What has ended once does not begin again where a clock is set back.
        self._bans = {key: until for key, until in self._bans.items() if until > now}
        queued = sorted(text for queue in queues.values() for text in queue)
        assert queued == sorted(self._tasks), f"{NONE_LOST}: queues hold {queued}"
        self._check_queues(owners)

    def _carriers(self) -> dict[RoomId, set[str]]:
        """Return which servers count a room as theirs."""
        carriers: dict[RoomId, set[str]] = {}
        for server in self.grid._registry.servers.values():
            for room in server.rooms:
                carriers.setdefault(room, set()).add(server.address)
        return carriers

    def _check_queues(self, owners: Mapping[BaseId, str]) -> None:
        """What waits, waits for the server of its base, in the order of all."""
        order = {text: number for number, text in enumerate(self._tasks)}
        for server in self.grid._registry.servers.values():
            waiting = list(server.tasks._waiting)
            numbers = [order[_text(task.body)] for task in waiting]
            assert numbers == sorted(numbers), f"{ORDER}: {server.address} has {numbers}"
            for task in waiting:
                owner = owners.get(task.base, server.address)
                assert owner == server.address, f"{RIGHT_SERVER}: {task.body} is for {owner}"


class Promises:
    """The promises of all pools."""

    def __init__(self, grids: Grids, settings: GridSettings) -> None:
        self._settings = settings
        self._grids = grids
        self.pools = {name: PoolPromises(grid, settings) for name, grid in grids.pools()}
        self._ticked: float | None = None

    def granted(self, name: str, admission: Admission, placed: Placed, now: float) -> None:
        """A client was let in."""
        self.pools[name].granted(admission, placed, now)
        usage = {view.customer: view for view in self._grids.usage()}
        # Who has a place on another customer's account does not show in their own usage.
        # Demo users are shown together.
        own = usage.get(admission.customer)
        if admission.max_peers is not None and own is not None:
            peers = own.peers + own.reservations
            assert peers <= admission.max_peers, f"{LIMIT}: {peers} peers"
        if admission.demo_peers is not None:
            demo = [view for view in usage.values() if view.customer.startswith("demo_")]
            peers = sum(view.peers + view.reservations for view in demo)
            assert peers <= admission.demo_peers, f"{LIMIT}: {peers} peers of demo users"
        if admission.max_rooms is not None and placed.how == "new" and own is not None:
            assert own.rooms <= admission.max_rooms, f"{LIMIT}: {own.rooms} rooms"

    def queues(self) -> Iterator[tuple[str, dict[str, list[Text]]]]:
        """Yield what waits or is in flight in each pool."""
        for name, pool in self.pools.items():
            yield name, pool.queues()

    def ticked(
        self,
        events: Iterable[Event],
        queues: Mapping[str, Mapping[str, list[Text]]],
        now: float,
    ) -> None:
        """The periodic work was done; ``queues`` are those of before."""
        if self._ticked is not None and now - self._ticked > 2.5 * self._settings.tick:
            for pool in self.pools.values():
                pool.excused(now)
        self._ticked = now
        for name, pool in self.pools.items():
            pool.ticked(events, queues[name], now)

    def resumed(self, grids: Grids, now: float) -> None:
        """Another process has taken over."""
        self._grids, self._ticked = grids, None
        for name, grid in grids.pools():
            self.pools[name].resumed(grid, now)

    def check(self, now: float) -> None:
        """Check what must hold at any time."""
        for pool in self.pools.values():
            pool.check(now)
