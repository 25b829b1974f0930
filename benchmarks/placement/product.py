"""The product's own gateways, as the simulation drives them."""

import random
from collections.abc import Callable, Sequence

from benchmarks.placement.policies import Server
from odingw.errors import Refused
from odingw.grid.values import Admission, GridSettings, ServerReport
from odingw.state.memory import MemoryStore


class Product:
    """One gateway of the product, or several that share what they know.

    Each has a store of its own. All get every report. A room that one of them places is made known
    to the others at once, since placement is atomic in a fleet; clients that are sent to rooms
    which have their place are made known to the others once a second.

    Args:
        servers: all servers.
        rng: decides which gateway a client connects to, and breaks ties.
        gateways: how many gateways there are.
    """

    def __init__(self, servers: Sequence[Server], rng: random.Random, gateways: int = 1) -> None:
        self._rng = rng
        self._index = {server.address: server.index for server in servers}
        self._stores = [MemoryStore(GridSettings(), _pick(rng)) for _ in range(gateways)]
        self._grids = [store.pool("") for store in self._stores]
        self._unshared: list[tuple[int, Admission]] = []

    def connect(self, client: int, room: int, now: float) -> int | None:
        """Return the number of the server that the client is sent to; None if it is refused."""
        own = self._rng.randrange(len(self._grids)) if len(self._grids) > 1 else 0
        admission = _admission(client, room, None)
        try:
            placed = self._grids[own].connect(admission, now)
        except Refused:
            return None
        if len(self._grids) > 1:
            shared = _admission(client, room, placed.address)
            if placed.how == "existing":
                self._unshared.append((own, shared))
            else:
                self._share(own, shared, now)
        return self._index[placed.address]

    def report(self, server: Server, load: float, now: float) -> None:
        """Take in a report: the load, 0 to 1, and the clients and rooms that the server has."""
        rooms = list(server.rooms.values())
        report = ServerReport(
            server.address, server.address, "simulated", load, server.clients, [rooms]
        )
        for grid in self._grids:
            grid.report(report, now)

    def drain(self, server: Server) -> None:
        """Let a server take no new rooms."""
        for grid in self._grids:
            grid.drain(server.address, True)

    def tick(self, now: float) -> None:
        """Share what is to be shared, and do the stores' periodic work."""
        for own, admission in self._unshared:
            self._share(own, admission, now)
        self._unshared.clear()
        for store in self._stores:
            store.tick(now)

    def _share(self, own: int, admission: Admission, now: float) -> None:
        for number, grid in enumerate(self._grids):
            if number == own:
                continue
            try:
                grid.connect(admission, now)
            except Refused:
                # This gateway forgot the room, and its server takes no new ones: it will learn of
                # the room from the next report.
                continue


def _pick(rng: random.Random) -> Callable[[int], int]:
    return lambda n: int(rng.random() * n)


def _admission(client: int, room: int, server: str | None) -> Admission:
    return Admission(
        "simulated", "simulated", (str(room),), str(client), "", None, None, None, server
    )
