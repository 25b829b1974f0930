"""Simulated servers and a crowd over real connections: what the command line tools run."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, FirstError, gatherResults

from odingw.sim.client import Crowd
from odingw.sim.clock import sleep
from odingw.sim.server import SimulatedServer
from odingw.sim.wire import Gateway
from odingw.tokens import AccessKey


class Fleet:
    """Some simulated servers, each with its own connection, and perhaps a crowd of clients.

    Args:
        reactor: a Twisted reactor.
        url: the gateway's.
        addresses: of the servers.
        capacity: of each server, in peers.
        servers_url: to which servers add ``internal``; None: they use ``url``.
        verify: how certificates are judged, as :func:`odingw.client.http.policy` takes it.

    Attributes:
        servers: by address.
        crowd: the clients, once there are some.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        addresses: Sequence[str],
        capacity: int,
        servers_url: str | None = None,
        verify: bool | str = True,
    ) -> None:
        self._verify = verify
        self._reactor = reactor
        self._url = url
        self._gateways: list[Gateway] = []
        self.servers: Final = {
            address: SimulatedServer(
                self._gateway(servers_url or url), address, reactor, capacity=capacity
            )
            for address in addresses
        }
        self.crowd: Crowd | None = None

    def _gateway(self, url: str, *, persistent: bool = True) -> Gateway:
        gateway = Gateway.over(self._reactor, url, persistent=persistent, verify=self._verify)
        self._gateways.append(gateway)
        return gateway

    def start(self, spread: float) -> Deferred[None]:
        """Start the servers.

        Args:
            spread: seconds over which their starts, and so their reports, are spread.

        Returns:
            A Deferred that fires when each had its first report answered, and fails as
            ``SimulatedServer.start`` does.
        """
        return Deferred.fromCoroutine(self._start(spread))

    async def _start(self, spread: float) -> None:
        started = []
        for server in self.servers.values():
            started.append(server.start())
            await sleep(self._reactor, spread / len(self.servers))
        try:
            await gatherResults(started, consumeErrors=True)
        except FirstError as first:
            first.subFailure.raiseException()

    def bring_crowd(
        self,
        access_key: AccessKey,
        *,
        rate: float,
        rooms: Sequence[str],
        mean_stay: float,
        rng: random.Random,
        persistent: bool,
    ) -> Crowd:
        """Let clients come.

        Args:
            access_key: as ``Crowd`` takes it; so are the others.
            rate: as above.
            rooms: as above.
            mean_stay: as above.
            rng: as above.
            persistent: let clients share connections; real ones have one each.
        """
        self.crowd = Crowd(
            self._gateway(self._url, persistent=persistent),
            self.servers,
            access_key,
            rate=rate,
            rooms=rooms,
            mean_stay=mean_stay,
            clock=self._reactor,
            rng=rng,
        )
        self.crowd.start()
        return self.crowd

    @property
    def misbehaviours(self) -> int:
        """How often the gateway broke the wire reference."""
        seen = sum(len(server.misbehaviours) for server in self.servers.values())
        return seen + (self.crowd.statistics.misbehaviours if self.crowd else 0)

    def status(self, since: int = 0) -> str:
        """Return one line for people.

        Args:
            since: how many of the crowd's latencies, the oldest ones, to leave out.
        """
        servers = self.servers.values()
        running = sum(server.running for server in servers)
        rooms = sum(len(server.rooms) for server in servers)
        reports = sum(server.reports for server in servers)
        tasks = sum(len(server.tasks) for server in servers)
        loads = [server.load for server in servers if server.running] or [0.0]
        parts = [
            f"{running}/{len(servers)} servers, {rooms} rooms",
            f"load {min(loads):.0%} to {max(loads):.0%}",
            f"{reports} reports, {tasks} tasks",
        ]
        wrong = sum(len(server.misbehaviours) for server in servers)
        if wrong:
            parts.append(f"{wrong} MISBEHAVIOURS")
        if self.crowd is not None:
            parts.append(self.crowd.statistics.summary(since))
        return "; ".join(parts)

    async def watch(
        self, show: Callable[[str], None], interval: float, duration: float | None
    ) -> None:
        """Show the status now and then.

        Args:
            show: takes one line.
            interval: seconds between two of them; latencies are those of this time.
            duration: seconds after which to return; None: only when cancelled.
        """
        seen = 0
        end = math.inf if duration is None else self._reactor.seconds() + duration
        while (left := end - self._reactor.seconds()) > 0:
            await sleep(self._reactor, min(interval, left))
            show(self.status(since=seen))
            seen = len(self.crowd.statistics.latencies) if self.crowd else 0

    def stop(self) -> Deferred[None]:
        """Stop everything; fires when no connection is left."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self.crowd is not None:
            await self.crowd.stop()
        await gatherResults([server.stop() for server in self.servers.values()])
        await gatherResults([gateway.close() for gateway in self._gateways])
