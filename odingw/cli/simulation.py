"""A run of ``odingw simulate``: the simulation, its progress and what came of it."""

import random
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from rich.progress import Progress
from twisted.internet.defer import CancelledError

from odingw.sim.clock import sleep
from odingw.sim.fleet import Fleet
from odingw.sim.statistics import percentile
from odingw.tokens import AccessKey

if TYPE_CHECKING:
    from odingw.sim.client import Crowd

_TICK: Final = 0.2
_RECENT: Final = 1000
"""How many latencies the progress shows the median of."""

_FRACTIONS: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be simulated.

    Attributes:
        servers: their addresses.
        capacity: of each, in peers.
        duration: seconds for which clients come.
        spread: seconds over which the servers start.
        rooms: that clients choose from.
        rate: clients per second.
        stay: seconds that a client stays, on average.
        persistent: whether clients share connections.
        seed: of all chance; None: another one each time.
    """

    servers: list[str]
    capacity: int
    duration: float
    spread: float
    rooms: list[str]
    rate: float
    stay: float
    persistent: bool
    seed: int | None


class Run:
    """A simulation.

    Args:
        url: of the gateway.
        servers_url: to which ``internal`` is added for its server API; with a user and password.
        plan: what is to be simulated.
        access_key: of the customer whose clients come; None: none do.
        progress: is shown how far it is.
        verify: how certificates are judged, as :func:`odingw.client.http.policy` takes it.

    Attributes:
        interrupted: whether it was cancelled before its time.
        misbehaviours: how often the gateway broke the wire reference.
    """

    def __init__(
        self,
        url: str,
        servers_url: str,
        plan: Plan,
        access_key: AccessKey | None,
        progress: Progress,
        verify: bool | str = True,
    ) -> None:
        self._verify = verify
        self.interrupted = False
        self.misbehaviours = 0
        self._url = url
        self._servers_url = servers_url
        self._plan = plan
        self._access_key = access_key
        self._progress = progress
        self._took = 0.0
        self._servers: dict[str, Any] = {}
        self._crowd: Crowd | None = None

    async def work(self, reactor: Any) -> None:
        """Simulate until the time is over or it is cancelled.

        Raises:
            OdingwError: the servers could not start.
        """
        plan = self._plan
        fleet = Fleet(
            reactor, self._url, plan.servers, plan.capacity, self._servers_url, self._verify
        )
        bar = self._progress.add_task("servers", total=plan.spread + plan.duration, seen="")
        try:
            starting = fleet.start(plan.spread)
            began = reactor.seconds()
            while not starting.called:
                self._progress.update(bar, completed=min(plan.spread, reactor.seconds() - began))
                self._progress.refresh()
                await sleep(reactor, _TICK)
            await starting
            if self._access_key is not None:
                fleet.bring_crowd(
                    self._access_key,
                    rate=plan.rate,
                    rooms=plan.rooms,
                    mean_stay=plan.stay,
                    rng=random.Random(plan.seed),  # noqa: S311  -- simulated load, no secrets
                    persistent=plan.persistent,
                )
            began = reactor.seconds()
            try:
                while (left := began + plan.duration - reactor.seconds()) > 0:
                    self._took = reactor.seconds() - began
                    self._progress.update(
                        bar,
                        completed=plan.spread + self._took,
                        description="clients" if fleet.crowd else "servers",
                        seen=_seen(fleet),
                    )
                    self._progress.refresh()
                    await sleep(reactor, min(_TICK, left))
            finally:
                self._took = reactor.seconds() - began
            self._progress.update(bar, completed=plan.spread + plan.duration, seen=_seen(fleet))
            self._progress.refresh()
        except CancelledError:
            self.interrupted = True
        finally:
            # Before everybody is sent home.
            self._servers = _servers(fleet)
            self._crowd = fleet.crowd
            await fleet.stop()
            self.misbehaviours = fleet.misbehaviours

    def summary(self) -> dict[str, Any]:
        """Return what came of it: times in seconds, loads from 0 to 1."""
        document: dict[str, Any] = {
            "duration": round(self._took, 3),
            "interrupted": self.interrupted,
            "misbehaviours": self.misbehaviours,
            "servers": self._servers,
            "clients": None,
            "latency": None,
        }
        if self._crowd is None:
            return document
        seen = self._crowd.statistics
        document["clients"] = {
            "calls": seen.asked,
            "granted": seen.granted,
            "refused": dict(seen.refused.most_common()),
            "unreachable": seen.unreachable,
            "joined": seen.joined,
            "join_failures": {str(key): n for key, n in seen.join_failures.most_common()},
            "left": seen.left,
            "thrown_out": seen.thrown_out,
            "split": seen.split,
        }
        if seen.latencies:
            document["latency"] = {
                name: percentile(seen.latencies, fraction) for name, fraction in _FRACTIONS.items()
            }
        return document


def _seen(fleet: Fleet) -> str:
    """A few words on what happened so far."""
    if fleet.crowd is None:
        return f"{sum(server.reports for server in fleet.servers.values())} reports"
    seen = fleet.crowd.statistics
    parts = [f"{seen.granted} granted"]
    failed = seen.asked - seen.granted
    if failed:
        parts.append(f"{failed} not")
    if seen.latencies:
        parts.append(f"p50 {1000 * percentile(seen.latencies[-_RECENT:], 0.5):.1f} ms")
    return ", ".join(parts)


def _servers(fleet: Fleet) -> dict[str, Any]:
    servers = fleet.servers.values()
    loads = [server.load for server in servers if server.running] or [0.0]
    return {
        "total": len(servers),
        "running": sum(server.running for server in servers),
        "rooms": sum(len(server.rooms) for server in servers),
        "reports": sum(server.reports for server in servers),
        "tasks": sum(len(server.tasks) for server in servers),
        "load_min": min(loads),
        "load_max": max(loads),
    }
