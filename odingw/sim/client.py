"""Simulated clients: one that wants into a room, and a crowd of them."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from odingw.errors import TokenError
from odingw.sim.clock import Clock, sleep
from odingw.sim.rooms import Peer
from odingw.sim.roomtokens import JoinFault, JoinRefused, RoomClaims, read_claims
from odingw.sim.server import SimulatedServer
from odingw.sim.statistics import Statistics
from odingw.sim.wire import Gateway, GatewayError, Misbehaviour, Unreachable
from odingw.tokens import AccessKey, TokenGenerator, parse

_AT_ONCE: Final = 50
"""Clients that are sent in one turn of the reactor."""


class Grant(msgspec.Struct, frozen=True):
    """Where a client may go.

    Attributes:
        address: of the server.
        token: the room token for it.
        claims: what the token says; its signature is the server's business.
    """

    address: str
    token: str
    claims: RoomClaims

    def __repr__(self) -> str:
        return f"Grant(address={self.address!r}, claims={self.claims!r})"


class _ConnectResult(msgspec.Struct, frozen=True):
    address: str
    token: str


class SimulatedClient:
    """One user who wants into one room.

    Args:
        gateway: the gateway.
        servers: all simulated servers by address.
        access_key: the customer's key, with which the client makes its own token.
        room: name of the room.
        user: the user's id.
        clock: what the time is.

    Attributes:
        room: as given.
        user: as given.
        peer: the client on its server, once it has joined.
    """

    __slots__ = ("_clock", "_gateway", "_server", "_servers", "_tokens", "peer", "room", "user")

    def __init__(
        self,
        gateway: Gateway,
        servers: Mapping[str, SimulatedServer],
        access_key: AccessKey,
        room: str,
        user: str,
        clock: Clock,
    ) -> None:
        self.room: Final = room
        self.user: Final = user
        self.peer: Peer | None = None
        self._gateway = gateway
        self._servers = servers
        self._server: SimulatedServer | None = None
        self._tokens = TokenGenerator(access_key)
        self._clock = clock

    def connect(self) -> Deferred[Grant]:
        """Ask the gateway for a server.

        Returns:
            A Deferred that fails with ``GatewayError``, ``Unreachable`` or ``Misbehaviour``.
        """
        return Deferred.fromCoroutine(self._connect())

    async def _connect(self) -> Grant:
        token = self._tokens.create_token(self.room, self.user, now=self._clock.seconds())
        return self._read(await self._gateway.call("Connect", {}, token=token))

    def _read(self, result: Any) -> Grant:
        try:
            found = msgspec.convert(result, _ConnectResult)
            claims = read_claims(parse(found.token).payload)
        except (msgspec.ValidationError, TokenError, JoinRefused) as wrong:
            raise Misbehaviour(f"result of Connect: {wrong}") from None
        for name, value, wanted in (
            ("rid", claims.rid, self.room),
            ("uid", claims.uid, self.user),
            ("adr", claims.adr, found.address),
        ):
            if value != wanted:
                raise Misbehaviour(f"room token: {name} is {value!r}, not {wanted!r}")
        return Grant(found.address, found.token, claims)

    def join(self, grant: Grant) -> Peer:
        """Join the server that the gateway named.

        Raises:
            JoinRefused: the server does not let the client in, or is not a simulated one.
        """
        server = self._servers.get(grant.address)
        if server is None:
            raise JoinRefused(JoinFault.UNKNOWN_SERVER, f"no simulated server is {grant.address}")
        self.peer = server.join(grant.token, self._clock.seconds())
        self._server = server
        return self.peer

    def stay(self, seconds: float) -> Deferred[bool]:
        """Stay in the room for a time, then leave it; cancelled, leave it at once.

        Returns:
            A Deferred with whether the client was still in the room at the end.
        """
        return Deferred.fromCoroutine(self._stay(seconds))

    async def _stay(self, seconds: float) -> bool:
        try:
            await sleep(self._clock, seconds)
            return self.peer is not None and not self.peer.gone
        finally:
            self.leave()

    def leave(self) -> None:
        """Leave the room; nothing happens if the client is in none."""
        if self._server is not None and self.peer is not None:
            self._server.leave(self.peer)

    def visit(self, seconds: float) -> Deferred[bool]:
        """Connect, join, stay for a time, leave.

        Returns:
            A Deferred as of ``stay``, which fails as ``connect`` and ``join`` do.
        """
        return Deferred.fromCoroutine(self._visit(seconds))

    async def _visit(self, seconds: float) -> bool:
        self.join(await self.connect())
        return await self.stay(seconds)


class Crowd:
    """Clients that come at a rate, whatever becomes of those before them (an open loop).

    Args:
        gateway: the gateway.
        servers: all simulated servers by address.
        access_key: the customer's key.
        rate: clients per second, on average (a Poisson process).
        rooms: names of the rooms; each client wants into one of them.
        mean_stay: seconds that a client stays, on average (exponentially distributed).
        clock: what the time is, and when the next one comes.
        rng: where all chance comes from.
        name: how user ids begin, so that several crowds can be told apart.

    Attributes:
        statistics: what happened so far.
    """

    log: Final = Logger()

    def __init__(
        self,
        gateway: Gateway,
        servers: Mapping[str, SimulatedServer],
        access_key: AccessKey,
        *,
        rate: float,
        rooms: Sequence[str],
        mean_stay: float,
        clock: Clock,
        rng: random.Random,
        name: str = "user",
    ) -> None:
        if rate <= 0 or mean_stay <= 0 or not rooms:
            raise ValueError("a crowd needs a rate and a stay above 0, and a room at least")
        self.statistics: Final = Statistics()
        self._gateway = gateway
        self._servers = servers
        self._access_key = access_key
        self._rate = rate
        self._rooms = rooms
        self._mean_stay = mean_stay
        self._clock = clock
        self._rng = rng
        self._name = name
        self._arrivals: Deferred[None] | None = None
        self._visits: set[Deferred[None]] = set()
        self._last_server: dict[str, str] = {}
        self._stopped = False

    def start(self) -> None:
        """Let clients come."""
        self._arrivals = Deferred.fromCoroutine(self._arrive())
        self._arrivals.addErrback(self._arrivals_failed)

    def stop(self) -> Deferred[None]:
        """Let nobody come any more, and send everybody home.

        Returns:
            A Deferred that fires when nothing is under way any more.
        """
        self._stopped = True
        waiting = [*self._visits]
        if self._arrivals is not None:
            waiting.append(self._arrivals)
        done = DeferredList(waiting).addCallback(lambda _: None)
        for deferred in waiting:
            deferred.cancel()
        return done

    async def _arrive(self) -> None:
        due = self._clock.seconds() + self._rng.expovariate(self._rate)
        while not self._stopped:
            await sleep(self._clock, due - self._clock.seconds())
            # Those that are due go together, so that a late timer does not lower the rate. Where
            # sending them takes longer than they take to come, others have their turn too.
            for _ in range(_AT_ONCE):
                if due > self._clock.seconds():
                    break
                self._send(due)
                due += self._rng.expovariate(self._rate)

    def _send(self, due: float) -> None:
        """Send one client; whatever becomes of it ends up in the statistics or in the log."""
        self.statistics.asked += 1
        client = SimulatedClient(
            self._gateway,
            self._servers,
            self._access_key,
            self._rng.choice(self._rooms),
            f"{self._name}-{self.statistics.asked}",
            self._clock,
        )
        stay = self._rng.expovariate(1 / self._mean_stay)
        visit = Deferred.fromCoroutine(self._visit(client, due, stay))
        self._visits.add(visit)
        visit.addBoth(self._visited, visit)

    def _visited(self, outcome: object, visit: Deferred[None]) -> None:
        self._visits.discard(visit)
        if isinstance(outcome, Failure) and not self._stopped:
            self.log.failure("a simulated client failed", outcome)

    def _arrivals_failed(self, failure: Failure) -> None:
        if not self._stopped:
            self.log.failure("no more clients come", failure)

    async def _visit(self, client: SimulatedClient, due: float, stay: float) -> None:
        seen = self.statistics
        grant = await self._connect(client)
        if grant is None:
            return
        seen.granted += 1
        seen.latencies.append(self._clock.seconds() - due)
        self._check_split(client.room, grant)
        try:
            client.join(grant)
        except JoinRefused as refused:
            seen.join_failures[refused.reason] += 1
            if not refused.reason.is_expected:
                self._complain()
            return
        seen.joined += 1
        seen.present += 1
        try:
            if await client.stay(stay):
                seen.left += 1
            else:
                seen.thrown_out += 1
        finally:
            seen.present -= 1

    async def _connect(self, client: SimulatedClient) -> Grant | None:
        """Connect a client; None if it did not succeed, which then is counted."""
        try:
            return await client.connect()
        except GatewayError as refused:
            self.statistics.refused[refused.reason or str(refused.code)] += 1
        except Unreachable as failure:
            if not self._stopped:
                self.statistics.unreachable += 1
                self.log.debug("a simulated client got no reply: {failure}", failure=str(failure))
        except Misbehaviour:
            self._complain()
        return None

    def _complain(self) -> None:
        self.statistics.misbehaviours += 1
        # With the failure, so that a test fails in which nobody expected it.
        self.log.failure("the gateway misbehaved towards a simulated client")

    def _check_split(self, room: str, grant: Grant) -> None:
        """Count a grant that sends a client away from where others of its room are."""
        before = self._last_server.get(room, grant.address)
        self._last_server[room] = grant.address
        if before != grant.address and before in self._servers:
            # A server that is not running has no rooms.
            left_behind = self._servers[before].rooms.get((grant.claims.nsp, room))
            if left_behind is not None and left_behind.peers:
                self.statistics.split += 1
