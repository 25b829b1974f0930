"""Several gateways over one real Redis, each driven step by step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Reason, Refused
from odingw.grid.tasks import RoomUpdate
from odingw.grid.values import Admission, Event, GridSettings, Placed, RoomView
from odingw.state.redis.pool import RedisGrid
from tests.grids import Room, admission, data_of, report
from tests.redis_books import Books
from tests.redis_link import DirectStore
from tests.redis_server import RedisServer

A: Final = "a.test:4433"
B: Final = "b.test:4433"
C: Final = "c.test:4433"


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
        master_keys: Sequence[bytes] = (b"key",),
        settings: GridSettings | None = None,
    ) -> DirectStore:
        """Start a gateway."""
        gateway = DirectStore(
            self.server,
            self.pools,
            self.now,
            settings=settings or GridSettings(),
            pick=pick,
            name=f"gateway-{len(self.gateways) + 1}",
            master_keys=master_keys,
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

    def assert_agreed(self) -> None:
        """Check that all gateways show the same, and that Redis's books are right."""
        self.settle()
        every = [picture(gateway, self.pools) for gateway in self.gateways]
        for other in every[1:]:
            self.assertEqual(every[0], other)
        for pool in self.pools:
            self.books(pool).check()

    def books(self, pool: str | None = None) -> Books:
        """Return what Redis has of a pool, by default the first one."""
        return Books(self.server, f"{{test:{self.pools[0] if pool is None else pool}}}")

    def left(self) -> set[str]:
        """Return the names of keys that should be empty without rooms, places and tasks."""
        return self.books().left()


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
    """Let a gateway do what is due; one that has closed its connection makes another."""
    gateway.settle()
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


def rooms(gateway: DirectStore, pool: str = "") -> list[RoomView]:
    """Return all rooms, as a gateway shows them."""

    async def read() -> list[RoomView]:
        return [view async for page in grid(gateway, pool).pages() for view in page]

    found: list[RoomView] = gateway.answer(read())
    return found


def picture(gateway: DirectStore, pools: Iterable[str] = ("",)) -> dict[str, list[str]]:
    """Return what a gateway shows."""
    shown = {"usage": sorted(map(repr, gateway.store.usage()))}
    for pool in pools:
        shown |= {
            f"rooms {pool}": sorted(map(repr, rooms(gateway, pool))),
            f"servers {pool}": sorted(map(repr, grid(gateway, pool).servers())),
        }
    return shown
