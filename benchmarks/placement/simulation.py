"""Runs one world with one policy, and measures how evenly the servers are loaded."""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Final

from msgspec import Struct

from benchmarks.placement.policies import Policy, Presence, Server
from benchmarks.placement.scenarios import END, EVENT
from benchmarks.placement.world import REPORT_INTERVAL, World, generator

_RETRY: Final = 2.0

MakePolicy = Callable[[Sequence[Server]], Policy]
"""Makes a policy for these servers."""


class Outcome(Struct, frozen=True):
    """What a run showed, from the event on.

    Drained servers count in none of the loads.

    Attributes:
        hottest: the load of the hottest server, the mean over time.
        excess: the same, less the load of the whole fleet.
        peak: the highest load that any server had at any moment.
        joins: how many clients came to a server.
        overloaded: how many of them found it at load 1 or above.
        refused: how many calls of ``Connect`` were refused.
        loads: by second of the whole run, the loads of all servers; empty unless asked for.
    """

    hottest: float
    excess: float
    peak: float
    joins: int
    overloaded: int
    refused: int
    loads: list[list[float]] = []


class Simulation:
    """One world under one policy.

    Args:
        world: what happens.
        make_policy: makes the policy.
        keep_loads: whether the outcome is to hold all loads over time.
    """

    def __init__(self, world: World, make_policy: MakePolicy, *, keep_loads: bool = False) -> None:
        self._world = world
        self._servers = [Server(index, size) for index, size in enumerate(world.capacity)]
        self._policy = make_policy(self._servers)
        self._noise = generator("noise", world.scenario.name, len(self._servers), world.seed)
        self._where: list[Server | None] = [None] * len(world.room_of)
        self._events: list[tuple[float, int, int, int]] = []
        self._handlers = (
            self._tick,
            self._event,
            self._report,
            self._connect,
            self._land,
            self._leave,
        )
        self._keep_loads = keep_loads
        self._loads: list[list[float]] = []
        self._measuring = False
        self._peak = 0.0
        self._hottest = 0.0
        self._average = 0.0
        self._samples = 0
        self._joins = 0
        self._overloaded = 0
        self._refused = 0

    def run(self) -> Outcome:
        """Run it."""
        for server in self._servers:
            if server.index not in self._world.joining:
                self._start(server, 0.0)
        heappush(self._events, (0.0, _TICK, 0, 0))
        heappush(self._events, (EVENT, _EVENT, 0, 0))
        events, handlers = self._events, self._handlers
        for time, client in [*self._world.joins, (END, -1)]:
            while events and events[0][0] <= time:
                now, kind, first, second = heappop(events)
                handlers[kind](now, first, second)
            if time >= END:
                break
            self._connect(time, client, 0)
        return Outcome(
            self._hottest / self._samples,
            (self._hottest - self._average) / self._samples,
            self._peak,
            self._joins,
            self._overloaded,
            self._refused,
            self._loads,
        )

    def _start(self, server: Server, now: float) -> None:
        server.there = True
        heappush(self._events, (now + self._world.phase[server.index], _REPORT, server.index, 0))

    def _tick(self, now: float, _first: int, _second: int) -> None:
        self._policy.tick(now)
        if self._measuring:
            self._sample()
        if self._keep_loads:
            self._loads.append([self._load(server) for server in self._servers])
        heappush(self._events, (now + 1, _TICK, 0, 0))

    def _event(self, now: float, _first: int, _second: int) -> None:
        for index in sorted(self._world.joining):
            self._start(self._servers[index], now)
        for index in sorted(self._world.drained):
            self._servers[index].drained = True
            self._policy.drain(self._servers[index])
        for index in sorted(self._world.dying):
            self._die(self._servers[index], now)
        self._measuring = True

    def _die(self, server: Server, now: float) -> None:
        server.there = False
        server.clients = 0
        server.rooms.clear()
        for client, where in enumerate(self._where):
            if where is server:
                self._where[client] = None
                self._try_again(client, now)

    def _try_again(self, client: int, now: float) -> None:
        later = now + _RETRY * (0.5 + self._world.travel[client])
        if later < self._world.leaves[client]:
            heappush(self._events, (later, _CONNECT, client, 0))

    def _report(self, now: float, index: int, _second: int) -> None:
        server, scenario = self._servers[index], self._world.scenario
        if not server.there:
            return
        load = self._load(server)
        if scenario.noise:
            load *= 1 + self._noise.gauss(0, scenario.noise)
        if scenario.idle_load:
            load += scenario.idle_load * self._noise.uniform(0.5, 1.5)
        self._policy.report(server, min(1.0, max(0.0, load)), now)
        server.unseen = 0
        heappush(self._events, (now + REPORT_INTERVAL, _REPORT, index, 0))

    def _connect(self, now: float, client: int, _second: int) -> None:
        index = self._policy.connect(client, self._world.room_of[client], now)
        if index is None:
            self._refused += self._measuring
            self._try_again(client, now)
            return
        self._servers[index].under_way += 1
        heappush(self._events, (now + self._world.travel[client], _LAND, client, index))

    def _land(self, now: float, client: int, index: int) -> None:
        server = self._servers[index]
        server.under_way -= 1
        if not server.there:
            self._try_again(client, now)
            return
        if self._world.leaves[client] <= now:
            return
        if self._measuring:
            self._joins += 1
            self._overloaded += server.clients >= server.capacity
        self._where[client] = server
        server.clients += 1
        server.unseen += 1
        room = self._world.room_of[client]
        presence = server.rooms.get(room)
        if presence is None:
            presence = server.rooms[room] = Presence(room)
        presence.peers += 1
        heappush(self._events, (self._world.leaves[client], _LEAVE, client, index))
        if self._measuring and not server.drained:
            self._peak = max(self._peak, self._load(server))

    def _leave(self, _now: float, client: int, index: int) -> None:
        server = self._servers[index]
        if self._where[client] is not server:
            # The server died in the meantime.
            return
        self._where[client] = None
        server.clients -= 1
        room = self._world.room_of[client]
        presence = server.rooms[room]
        presence.peers -= 1
        if not presence.peers:
            del server.rooms[room]

    def _load(self, server: Server) -> float:
        return self._world.scenario.load(server.fill)

    def _sample(self) -> None:
        servers = [server for server in self._servers if server.there and not server.drained]
        loads = [self._load(server) for server in servers]
        hottest = max(loads)
        self._peak = max(self._peak, hottest)
        self._hottest += hottest
        clients = zip(servers, loads, strict=True)
        capacity = sum(server.capacity for server in servers)
        self._average += sum(server.capacity * load for server, load in clients) / capacity
        self._samples += 1


_TICK, _EVENT, _REPORT, _CONNECT, _LAND, _LEAVE = range(6)
