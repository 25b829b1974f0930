"""What every policy meets alike in one run: servers, rooms, and who comes when for how long.

A world is drawn from a scenario, a fleet and a seed alone, so that policies can be compared in
pairs.
"""

import random
from collections.abc import Iterator
from itertools import accumulate, islice
from typing import Final

from msgspec import Struct

from benchmarks.placement.scenarios import END, EVENT, MEAN_STAY, Fleet, Scenario

REPORT_INTERVAL: Final = 5.0
"""Seconds between two reports of a server."""

_SIZES: Final = (1, 2, 4)
_SMALLEST_ROOM: Final = 2
_LARGEST_ROOM: Final = 200
_TAIL: Final = 1.3
_BLOCK: Final = 100
_FILL_TIME: Final = (40.0, 90.0)
_START_TIME: Final = 100.0
_BUSY_END: Final = (200.0, 300.0)
_CONNECT_TIME: Final = (0.1, 1.5)


class World(Struct, kw_only=True):
    """One draw of a scenario.

    Attributes:
        scenario: the scenario.
        seed: the seed.
        capacity: by server, clients that it carries at load 1.
        phase: by server, when it reports first after it has come.
        joining: the servers that come at the event.
        dying: the servers that die at the event.
        drained: the servers that are drained at the event.
        rooms: how many rooms there are.
        joins: every client's time of ``Connect`` and number, in order of time.
        room_of: by client, its room.
        travel: by client, seconds from ``Connect`` until it is on the server.
        leaves: by client, when it leaves.
    """

    scenario: Scenario
    seed: int
    capacity: list[float]
    phase: list[float]
    joining: frozenset[int]
    dying: frozenset[int]
    drained: frozenset[int]
    rooms: int = 0
    joins: list[tuple[float, int]] = []
    room_of: list[int] = []
    travel: list[float] = []
    leaves: list[float] = []


def generator(*key: object) -> random.Random:
    """Return a random generator that always gives the same for the same key."""
    return random.Random(repr(key))  # noqa: S311  # simulated load needs no cryptography


def make_world(scenario: Scenario, fleet: Fleet, seed: int) -> World:
    """Draw a world."""
    rng = generator(scenario.name, fleet.servers, seed)
    sizes = [_SIZES[index % len(_SIZES)] for index in range(fleet.servers)]
    rng.shuffle(sizes)
    unit = fleet.capacity / sum(sizes)
    capacity = [size * unit for size in sizes]
    world = World(
        scenario=scenario,
        seed=seed,
        capacity=capacity,
        phase=[rng.uniform(0, REPORT_INTERVAL) for _ in sizes],
        joining=_some(rng, fleet, scenario.joining),
        dying=_some(rng, fleet, scenario.dying),
        drained=_some(rng, fleet, scenario.drained),
    )
    present = sum(size for index, size in enumerate(capacity) if index not in world.joining)
    _arrive(world, rng, scenario.level * present - scenario.crowd)
    if scenario.busy:
        _be_busy(world, rng, scenario.busy * present)
    if scenario.crowd:
        _crowd(world, rng)
    world.joins.sort()
    return world


def _some(rng: random.Random, fleet: Fleet, fraction: float) -> frozenset[int]:
    count = round(fraction * fleet.servers)
    return frozenset(rng.sample(range(fleet.servers), count))


def _room_size(quantile: float) -> int:
    """Return a quantile of a Pareto distribution that is cut off at the largest room."""
    cut = 1 - (_SMALLEST_ROOM / (_LARGEST_ROOM + 1)) ** _TAIL
    return int(_SMALLEST_ROOM / (1 - quantile * cut) ** (1 / _TAIL))


def _room_sizes(rng: random.Random) -> Iterator[int]:
    """Yield sizes of rooms without end; each block of them holds the whole distribution."""
    while True:
        block = [_room_size((step + rng.random()) / _BLOCK) for step in range(_BLOCK)]
        rng.shuffle(block)
        yield from block


MEAN_ROOM_SIZE: Final = sum(_room_size((step + 0.5) / 100_000) for step in range(100_000)) / 100_000
"""Mean number of clients that come to a room."""


def _join(world: World, rng: random.Random, room: int, time: float, stay: float) -> None:
    travel = rng.uniform(*_CONNECT_TIME)
    world.joins.append((time, len(world.room_of)))
    world.room_of.append(room)
    world.travel.append(travel)
    world.leaves.append(time + travel + stay)


def _fill_room(world: World, rng: random.Random, size: int, opens: float) -> None:
    room = world.rooms
    world.rooms += 1
    fill = rng.uniform(*_FILL_TIME)
    _join(world, rng, room, opens, rng.expovariate(1 / MEAN_STAY))
    for _ in range(size - 1):
        _join(world, rng, room, opens + rng.uniform(0, fill), rng.expovariate(1 / MEAN_STAY))


def _arrive(world: World, rng: random.Random, clients: float) -> None:
    """Let so many clients come at the start, and then as many as leave."""
    sizes = _room_sizes(rng)
    start = REPORT_INTERVAL
    for size in islice(sizes, round(clients / MEAN_ROOM_SIZE)):
        _fill_room(world, rng, size, rng.uniform(start, start + _START_TIME))
    rate = clients / MEAN_ROOM_SIZE / MEAN_STAY
    # The clients of the start leave from about this time on.
    time = start + _START_TIME / 2 + rng.expovariate(rate)
    while time < END:
        _fill_room(world, rng, next(sizes), time)
        time += rng.expovariate(rate)


def _be_busy(world: World, rng: random.Random, clients: float) -> None:
    """Let so many clients come at the start, who all leave well before the event."""
    before = len(world.room_of)
    for size in islice(_room_sizes(rng), round(clients / MEAN_ROOM_SIZE)):
        opens = rng.uniform(REPORT_INTERVAL, REPORT_INTERVAL + _START_TIME)
        _fill_room(world, rng, size, opens)
    for client in range(before, len(world.room_of)):
        world.leaves[client] = rng.uniform(*_BUSY_END)


def _crowd(world: World, rng: random.Random) -> None:
    """Let a crowd come to new rooms, each of which gets one client at least."""
    scenario = world.scenario
    rooms = range(world.rooms, world.rooms + scenario.crowd_rooms)
    world.rooms += scenario.crowd_rooms
    sizes = islice(_room_sizes(rng), scenario.crowd_rooms)
    shares = list(accumulate(size - 1 for size in sizes))
    more = rng.choices(rooms, cum_weights=shares, k=scenario.crowd - scenario.crowd_rooms)
    for room in [*rooms, *more]:
        time = EVENT + rng.uniform(0, scenario.crowd_time)
        _join(world, rng, room, time, rng.expovariate(1 / MEAN_STAY))
