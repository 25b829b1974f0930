"""Several gateways over one real Redis, each driven step by step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from msgspec.json import decode
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Reason, Refused
from odingw.grid.tasks import RoomUpdate
from odingw.grid.values import Admission, Event, GridSettings, Placed
from odingw.state.redis.layout import LAYOUT, Keys
from odingw.state.redis.pool import RedisGrid
from tests.grids import Room, admission, data_of, report
from tests.redis_link import DirectStore
from tests.redis_server import RedisServer

A: Final = "a.test:4433"
B: Final = "b.test:4433"
C: Final = "c.test:4433"

KEPT: Final = frozenset(
    {"keys", "meta", "members", "servers", "heard", "disabled", "drained", "bans"}
)
"""Names of the keys that outlive rooms, places and tasks."""


def first(_: int) -> int:
    """Break ties in favour of the first server."""
    return 0


def last(count: int) -> int:
    """Break ties in favour of the last server."""
    return count - 1


class FleetCase(SynchronousTestCase):
    """A test with gateways that share a Redis, and one time for all."""

    pools: tuple[str, ...] = ("",)

    def setUp(self) -> None:
        self.server = RedisServer(persistent=False)
        self.addCleanup(self.server.close)
        self.server.start()
        self.now = 1_000_000.0
        self.gateways: list[DirectStore] = []

    def gateway(
        self,
        pick: Callable[[int], int] = first,
        *,
        layout: int = LAYOUT,
        master_key: bytes = b"key",
        older: Sequence[bytes] = (),
        settings: GridSettings | None = None,
    ) -> DirectStore:
        """Start a gateway, and let all hear of it."""
        gateway = DirectStore(
            self.server,
            self.pools,
            self.now,
            settings=settings or GridSettings(),
            pick=pick,
            name=f"gateway-{len(self.gateways) + 1}",
            layout=layout,
            master_key=master_key,
            older=older,
        )
        self.gateways.append(gateway)
        self.addCleanup(gateway.kill)
        self.settle()
        return gateway

    def settle(self) -> None:
        """Let everything be committed, told and heard."""
        for _ in range(3):
            for gateway in self.gateways:
                if not gateway.refused:
                    hear(gateway)

    def reports(self, gateway: DirectStore, address: str, *rooms: Room, pool: str = "") -> Any:
        """Let a server report to a gateway, and all hear of it."""
        result = gateway.answer(gateway.store.pool(pool).report(report(address, *rooms), self.now))
        self.settle()
        return result

    def wait(self, seconds: float, *gateways: DirectStore) -> list[Event]:
        """Let time go by with periodic work at gateways, by default at all."""
        events: list[Event] = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 1, end)
            for gateway in gateways or self.gateways:
                events += self.tick(gateway)
        return events

    def tick(self, gateway: DirectStore) -> tuple[Event, ...]:
        """Let a gateway do its periodic work, and all hear of it."""
        gateway.now = self.now
        events = gateway.store.tick(self.now)
        self.settle()
        return events

    def refused(self, reason: Reason, gateway: DirectStore, call: Callable[[], Any]) -> Refused:
        """Check that a call is refused, and why."""
        try:
            result = gateway.answer(call())
        except Refused as error:
            self.assertEqual(reason, error.reason)
            return error
        return self.fail(f"not refused: {result!r}")

    def taken(self, gateway: DirectStore, address: str) -> list[int]:
        """Take the tasks for a server, let them arrive, and return their numbers."""
        delivery = gateway.answer(grid(gateway).take(address))
        self.settle()
        if delivery is None:
            return []
        grid(gateway).acknowledge(delivery)
        self.settle()
        return numbers(delivery)

    def assert_agreed(self, *, in_flight: bool = False) -> None:
        """Check that all gateways have the same picture.

        Args:
            in_flight: some tasks are, which stay where they are until that is over, while their
                room may be elsewhere; so they are not counted.
        """
        every = [picture(gateway, self.pools, tasks=not in_flight) for gateway in self.gateways]
        for other in every[1:]:
            self.assertEqual(every[0], other)

    def assert_tasks_wait_together(self) -> None:
        """Check that the waiting tasks of each base are at its server or, if it is gone, at one."""
        bases, at, flying, rows = (self.fields(name) for name in ("bases", "at", "flying", "tasks"))
        homes: dict[str, set[str]] = {}
        for number in at.keys() - flying.keys():
            homes.setdefault(decode(rows[number])[0], set()).add(at[number])
        for base, servers in homes.items():
            wanted = {bases[base][2:]} if base in bases else servers
            self.assertEqual(wanted, servers, base)
            self.assertEqual(1, len(servers), base)

    def fields(self, name: str) -> dict[str, str]:
        """Return a hash of the first pool."""
        found = [value.decode() for value in self.server.command("HGETALL", self.mine(name))]
        return dict(zip(found[::2], found[1::2], strict=True))

    def left(self, pool: str = "") -> set[str]:
        """Return the names of a pool's keys that should be gone with rooms, places and tasks."""
        tag = Keys("test", pool)["meta"].removesuffix("meta")
        found = {key.decode() for key in self.server.command("KEYS", "*")}
        return {key.removeprefix(tag) for key in found if key.startswith(tag)} - KEPT

    def mine(self, name: str) -> str:
        """Return the key of a name in the first pool."""
        return Keys("test", self.pools[0])[name]


class TwoGatewaysCase(FleetCase):
    """Two gateways that would each place a new room elsewhere, and two servers."""

    settings = GridSettings()

    def setUp(self) -> None:
        super().setUp()
        self.one = self.gateway(first, settings=self.settings)
        self.two = self.gateway(last, settings=self.settings)
        self.reports(self.one, A)
        self.reports(self.two, B)

    def connect(self, gateway: DirectStore, room: str = "room", **options: Any) -> str:
        """Let a client connect, and return the server."""
        pool = options.pop("pool", "")
        eventual = grid(gateway, pool).connect(admission(room, **options), self.now)
        return address_of(gateway.answer(eventual))

    def refused_entry(self, reason: Reason, gateway: DirectStore, wanted: Admission) -> Refused:
        """Check that a client is not let in."""
        return self.refused(reason, gateway, lambda: grid(gateway).connect(wanted, self.now))

    def command(self, gateway: DirectStore, command: Any, pool: str = "") -> None:
        """Make a management call."""
        gateway.answer(grid(gateway, pool).command(command, self.now))


def hear(gateway: DirectStore) -> None:
    """Let a gateway commit and hear; one that has closed its connection makes another."""
    try:
        gateway.settle()
    except OSError:
        gateway.cut()
        gateway.away = False
    if gateway.store.trouble and not gateway.away:
        gateway.back()


def grid(gateway: DirectStore, pool: str = "") -> RedisGrid:
    """Return a gateway's grid of a pool."""
    return gateway.store.pool(pool)


def numbers(delivery: Any) -> list[int]:
    """Return what tells one RoomUpdate from another."""
    return [data_of(task.body)[0] for task in delivery.tasks if isinstance(task.body, RoomUpdate)]


def address_of(placed: Placed) -> str:
    """Return where a client is sent."""
    return placed.address


def picture(
    gateway: DirectStore, pools: Iterable[str] = ("",), *, tasks: bool = True
) -> dict[str, list[str]]:
    """Return what a gateway shows, but for what it foresees by itself."""
    shown = {"usage": sorted(map(repr, gateway.store.usage()))}
    for pool in pools:
        of_pool = grid(gateway, pool)
        rooms = [repr(replace(view, updated=0.0)) for view in of_pool.rooms()]
        views = [replace(view, expected_load=0.0) for view in of_pool.servers()]
        servers = [repr(view if tasks else replace(view, tasks=0)) for view in views]
        shown |= {f"rooms {pool}": sorted(rooms), f"servers {pool}": sorted(servers)}
    return shown
