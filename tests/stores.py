"""The stores there are, each in a form that a test can drive step by step, without a reactor.

A *world* is a store with all that belongs to it. Its calls are answered when everything that has to
happen first has happened, and ``restart`` ends it as a crash would and starts it again on what it
has stored.
"""

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from odingw.grid.store import GridStore, Store
from odingw.grid.values import GridSettings, RoomView
from odingw.state.journal_file import JournalFile
from odingw.state.local import LocalStore
from odingw.state.memory import MemoryStore
from odingw.state.places import PlaceLog, PlacesRow
from odingw.state.rows import KINDS, changed, put
from tests.redis_link import DirectStore, answer
from tests.redis_server import RedisServer


class InTurn:
    """Breaks ties in turn; all in one call are broken alike."""

    def __init__(self) -> None:
        self.picks = 0

    def __call__(self, count: int) -> int:
        """Return a number below ``count``."""
        return self.picks % count


def at_once(call: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Run a function in this thread."""
    return maybeDeferred(call, *args)


class World(ABC):
    """A store, and all that belongs to it."""

    store: Store

    def __init__(self, settings: GridSettings, pools: Iterable[str]) -> None:
        self.settings = settings
        self.pools = tuple(pools)
        self.pick = InTurn()

    def pool(self, name: str = "") -> GridStore:
        """Return the grid of a pool."""
        return self.store.pool(name)

    @abstractmethod
    def settle(self) -> None:
        """Let everything happen that happens by itself."""

    @abstractmethod
    def restart(self, now: float) -> None:
        """End as in a crash, and start again."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""

    def answer(self, eventual: Any) -> Any:
        """Return what a call comes to; raise what it fails with."""
        try:
            return answer(eventual, self.settle)
        finally:
            self.pick.picks += 1

    def rooms(self, pool: str = "") -> list[RoomView]:
        """Return all rooms of a pool."""
        return list(chain.from_iterable(answer(_all(self.pool(pool).pages()), self.settle)))


class MemoryWorld(World):
    """State in memory; as if it did not forget, it takes its rows along over a restart."""

    def __init__(self, settings: GridSettings, pools: Iterable[str] = ("",)) -> None:
        super().__init__(settings, pools)
        self._begin()

    def _begin(self) -> MemoryStore:
        self.memory = self.store = MemoryStore(self.settings, self.pick)
        for pool in self.pools:
            self.memory.pool(pool)
        return self.memory

    def settle(self) -> None:
        """Nothing happens by itself."""

    def close(self) -> None:
        """There is nothing to let go of."""

    def restart(self, now: float) -> None:
        """Build the grids anew from their rows."""
        before, after = self.memory, self._begin()
        for pool in self.pools:
            grid = before.pool(pool)
            ledger, order = grid.ledger, list(grid._registry._reservations)
            rows = list(changed(ledger, ledger.everything(), PlaceLog()))
            rows.sort(key=lambda item: (KINDS.index(item[0]), repr(item[1])))
            for kind, key, row in rows:
                if not isinstance(row, PlacesRow):
                    put(after.pool(pool).ledger, kind, key, row)
            for held in order:
                place = (held.room.id, held.key)
                row_of_place = ledger.place(place)
                assert row_of_place is not None
                after.pool(pool).ledger.put_place(place, row_of_place)
        after.resume(now)
        after.tick(now)


class LocalWorld(World):
    """A journal in a file."""

    def __init__(self, settings: GridSettings, pools: Iterable[str] = ("",)) -> None:
        super().__init__(settings, pools)
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.path = self.folder / "odingw.sqlite"
        self.clock = Clock()
        self.files: list[JournalFile] = []
        self._begin(0.0)

    def _open(self) -> JournalFile:
        self.files.append(JournalFile(self.path, "normal"))
        return self.files[-1]

    def _begin(self, now: float) -> None:
        store = LocalStore(self.settings, self.pick, self._open, at_once, self.clock)
        self.store = store
        for pool in self.pools:
            store.pool(pool)
        store.start(now)
        self.settle()

    def settle(self) -> None:
        """Let the journal be written."""
        self.clock.advance(1)

    def restart(self, now: float) -> None:
        """Let go of the file without a word, and open it again."""
        self.files[-1].close()
        self.clock = Clock()
        self._begin(now)
        self.store.tick(now)

    def close(self) -> None:
        """Delete the file."""
        self.files[-1].close()
        shutil.rmtree(self.folder)


LEASE = 1e9
"""Seconds: tests let time go by without a sign of life."""


class RedisWorld(World):
    """One gateway over a real Redis, whose database is emptied first."""

    def __init__(
        self, server: RedisServer, settings: GridSettings, pools: Iterable[str] = ("",)
    ) -> None:
        super().__init__(settings, pools)
        server.command("FLUSHALL")
        self.server = server
        self.number = 1
        self._begin(0.0)

    def _begin(self, now: float) -> None:
        # A server is tied to a gateway, so that is the same one, and there as long as it runs.
        self.direct = DirectStore(
            self.server,
            self.pools,
            now,
            settings=self.settings,
            pick=self.pick,
            name=f"gateway-{self.number}",
            lease=LEASE,
        )
        self.store = self.direct.store
        self.settle()

    def settle(self) -> None:
        """Let the copies be brought up to date."""
        self.direct.settle()

    def restart(self, now: float) -> None:
        """End without a word; its lease is over, and what is learnt of growth, as elsewhere."""
        self.direct.kill()
        for pool in self.pools:
            self.server.command("DEL", f"{{test:{pool}}}:gateways")
            self.server.command("HDEL", f"{{test:{pool}}}:main", "mean")
        self._begin(now)
        self.store.tick(now)
        self.settle()

    def close(self) -> None:
        """Close the connections."""
        self.direct.kill()


async def _all(pages: Any) -> list[Any]:
    return [page async for page in pages]
