"""What a grid counts along must equal a recount of its own records."""

from collections import Counter

from odingw.grid.grid import Grid
from odingw.grid.placement import PRIOR_COST
from odingw.grid.usage import ALL_DEMO, DEMO_PREFIX
from odingw.state.memory import Grids


def check_books(grid: Grid) -> None:
    """Recount the records of one pool, and the indexes that lead to them."""
    registry = grid._registry
    tasks = [task for server in registry.servers.values() for task in server.tasks.tasks()]
    assert registry._tasks_of == Counter(task.base for task in tasks)
    order = list(registry._reservations)
    assert [r.ends for r in order] == sorted(r.ends for r in order)
    rooms = [room for base in registry.bases.values() for room in base.rooms.values()]
    assert {r for room in rooms for r in room.reserved.values()} == set(order)
    for room in rooms:
        assert room.peers >= 0
        assert room.growth is None or room.growth.load is room.base.server.load
    for reservation in order:
        assert reservation.room.reserved[reservation.key] is reservation
        assert reservation.room.base.server in registry.servers.values()
    open_servers = [s for _, s in sorted(registry.servers.items()) if s.open]
    assert registry.open_servers == open_servers
    for server in registry.servers.values():
        growths = [g for g in registry.growth._running if g.load is server.load]
        assert all(growth.left >= 0 for growth in growths)
        foreseen = sum(growth.left for growth in growths)
        assert server.load.pending == server.reservations + foreseen
        assert 0 < server.load.cost <= PRIOR_COST * 50


def check_usage(grids: Grids) -> None:
    """Recount what customers use; nobody uses less than nothing."""
    peers: Counter[str] = Counter()
    reservations: Counter[str] = Counter()
    rooms: Counter[str] = Counter()
    for _, grid in grids.pools():
        for base in grid._registry.bases.values():
            for room in base.rooms.values():
                if not (room.round and base.server.disabled):
                    peers[room.customer] += room.peers
                    rooms[room.customer] += 1
                reservations.update(held.customer for held in room.reserved.values())
    views = list(grids.usage())
    for view in views:
        assert min(view.peers, view.reservations, view.rooms) >= 0, f"{view} is negative"
    customers = peers.keys() | reservations.keys() | rooms.keys()
    counted = {c: (peers[c], reservations[c], rooms[c]) for c in customers}
    assert {v.customer: (v.peers, v.reservations, v.rooms) for v in views} == demo_as_one(counted)
    demo = sum(sum(counts[:2]) for c, counts in counted.items() if c.startswith("demo_"))
    assert grids._usage._demo_peers == demo


def demo_as_one(usage: dict[str, tuple[int, int, int]]) -> dict[str, tuple[int, int, int]]:
    """Return usage with all demo users as one."""
    found = {c: counts for c, counts in usage.items() if not c.startswith(DEMO_PREFIX)}
    demo = [counts for c, counts in usage.items() if c.startswith(DEMO_PREFIX)]
    if demo:
        peers, reservations, rooms = (sum(counts) for counts in zip(*demo, strict=True))
        found[ALL_DEMO] = (peers, reservations, rooms)
    return found
