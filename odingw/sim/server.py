"""A simulated ODIN server: takes its settings from the gateway, carries rooms, reports them."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from odingw.errors import OdingwError
from odingw.sim.clock import Clock, sleep
from odingw.sim.rooms import Peer, RoomReport, Rooms
from odingw.sim.roomtokens import JoinFault, JoinRefused, check_room_token
from odingw.sim.settings import Settings, read_settings
from odingw.sim.tasks import Task, read_tasks
from odingw.sim.wire import INTERNAL, Gateway, GatewayError, Misbehaviour, Unreachable

CONFIG: Final = '[log]\nverbosity = 2\n\n[network]\nbinding = "0.0.0.0:4433"\n'
"""Settings that a server starts with unless it is given others."""

GIVE_UP_AFTER: Final = 300.0
"""Seconds without an answered report after which a server shuts itself down."""

ROOM_LINGER: Final = 2.0
"""Seconds for which an empty room stays open."""

_FIRST_RETRY: Final = 0.5
_LONGEST_RETRY: Final = 5.0

_T = TypeVar("_T")


class GaveUp(OdingwError):  # noqa: N818  -- it reads as what happened
    """A server got no answer for so long that it shut itself down."""


class ServerState(StrEnum):
    """Where a server is in its life."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"


class _ReportParams(msgspec.Struct, frozen=True):
    public_endpoint: str
    version: str
    load: float
    clients: int
    rooms: list[RoomReport]


class SimulatedServer:
    """A server that knows the gateway by its public wire alone.

    Args:
        gateway: the gateway, best one per server: a real server has its own connection.
        address: the server's address, which is its identity.
        clock: what the time is, and when to report.
        capacity: peers at a load of 1.
        version: what it calls itself.
        config: its own settings, TOML text.
        give_up_after: seconds without an answered report after which it shuts itself down.
        linger: seconds for which an empty room stays open.

    Attributes:
        address: as given.
        state: where it is in its life.
        settings: what it got from the gateway, or None.
        rooms: the rooms that it carries.
        tasks: every task that it was given, in order.
        reports: how many reports were answered.
        misbehaviours: what the gateway did against the wire reference; each is logged as a
            failure, too.
        last_error: why the latest call did not succeed, or None if it did.
    """

    log: Final = Logger()

    def __init__(
        self,
        gateway: Gateway,
        address: str,
        clock: Clock,
        *,
        capacity: int,
        version: str = "1.5.0",
        config: str = CONFIG,
        give_up_after: float = GIVE_UP_AFTER,
        linger: float = ROOM_LINGER,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.address: Final = address
        self.state = ServerState.NEW
        self.settings: Settings | None = None
        self.rooms: Final = Rooms(linger)
        self.tasks: Final[list[Task]] = []
        self.reports = 0
        self.misbehaviours: Final[list[Misbehaviour]] = []
        self.last_error: OdingwError | None = None
        self._gateway = gateway
        self._clock = clock
        self._capacity = capacity
        self._version = version
        self._config = config
        self._give_up_after = give_up_after
        self._give_up_call: Any = None
        self._work: Deferred[None] | None = None
        self._started: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"SimulatedServer({self.address!r}, {self.state}, {len(self.rooms)} rooms)"

    @property
    def running(self) -> bool:
        """Whether clients can join: its settings have come, and it has not stopped."""
        return self.state is ServerState.RUNNING

    @property
    def load(self) -> float:
        """Fraction of the capacity in use; a full server says 1 however far above it is."""
        return min(1.0, self.rooms.peers / self._capacity)

    def start(self) -> Deferred[None]:
        """Ask for the settings, then report until stopped.

        A call that fails is tried again, ever more slowly.

        Returns:
            A Deferred that fires when the first report was answered. It fails with
            ``GatewayError`` if the gateway refuses the server for good, ``Misbehaviour`` if the
            settings are wrong, ``GaveUp`` after ``give_up_after`` seconds, ``CancelledError`` if
            the server is stopped first.

        Raises:
            RuntimeError: it was started before.
        """
        if self.state is not ServerState.NEW:
            raise RuntimeError("a simulated server starts once")
        self.state = ServerState.STARTING
        started = self._started = Deferred[None](self._start_cancelled)
        self._give_up_call = self._clock.callLater(self._give_up_after, self._give_up)
        self._work = Deferred.fromCoroutine(self._live())
        self._work.addErrback(self._failed)
        return started

    def stop(self) -> Deferred[None]:
        """Vanish, as a server that is killed does: rooms and peers are gone, nobody is told.

        Returns:
            A Deferred that fires when nothing is under way any more.
        """
        if self.state in (ServerState.STARTING, ServerState.RUNNING):
            self._end(ServerState.STOPPED, CancelledError())
        if self._work is None:
            return succeed(None)
        done = Deferred[None]()
        self._work.addBoth(lambda _: done.callback(None))
        return done

    def join(self, room_token: str, now: float, room: str | None = None) -> Peer:
        """Let a client in.

        Args:
            room_token: what the gateway gave the client.
            now: unix seconds.
            room: which of the token's rooms; by default the last, which is the one placed.

        Raises:
            JoinRefused: the client may not come in.
        """
        if not self.running or self.settings is None:
            raise JoinRefused(JoinFault.NOT_RUNNING, f"{self.address} is not running")
        claims = check_room_token(room_token, self.settings.key, self.address, now)
        if room is None:
            room = claims.rooms[-1]
        elif room not in claims.rooms:
            raise JoinRefused(JoinFault.CLAIMS, f"the token is not for room {room!r}")
        return self.rooms.enter(claims, room, now)

    def leave(self, peer: Peer) -> None:
        """Take a client out; nothing happens if it is gone already."""
        self.rooms.leave(peer, self._clock.seconds())

    async def _live(self) -> None:
        self.settings = await self._insist(self._fetch_settings, patient=False)
        self.state = ServerState.RUNNING
        interval = self.settings.report_interval
        due = self._clock.seconds()
        while self.running:
            await self._insist(self._report, patient=True)
            # Reports keep their phase; those that an outage made impossible are skipped.
            now = self._clock.seconds()
            due += max(1, -int((due - now) // interval)) * interval
            # A clock that is set back must not make the server fall silent.
            due = min(due, now + interval)
            await sleep(self._clock, due - now)

    async def _insist(self, attempt: Callable[[], Awaitable[_T]], *, patient: bool) -> _T:
        """Try until it succeeds.

        Args:
            attempt: one try.
            patient: go on whatever the gateway says; else only where it may change its mind.
        """
        delay = _FIRST_RETRY
        failures = 0
        while True:
            try:
                outcome = await attempt()
            except (GatewayError, Unreachable, Misbehaviour) as failure:
                # What a call that is cancelled ends with is no news.
                if self.state in (ServerState.STOPPED, ServerState.FAILED):
                    raise CancelledError from None
                final = not patient and _is_final(failure)
                self._note(failure, repeated=bool(failures) or final)
                if final:
                    raise
            else:
                self.last_error = None
                if failures:
                    self.log.info("{address}: the gateway answers again", address=self.address)
                return outcome
            failures += 1
            await sleep(self._clock, delay)
            delay = min(2 * delay, _LONGEST_RETRY)

    def _note(self, failure: OdingwError, *, repeated: bool) -> None:
        """Log a failed call; of several in a row, the first one, unless it is raised."""
        self.last_error = failure
        if isinstance(failure, Misbehaviour):
            self.misbehaviours.append(failure)
            # With the failure, so that a test fails in which nobody expected it.
            self.log.failure("the gateway misbehaved towards {address}", address=self.address)
        elif not repeated:
            self.log.warn(  # noqa: G010  -- Twisted's Logger has no warning()
                "{address}: {failure}; trying again",
                address=self.address,
                failure=str(failure),
            )

    async def _fetch_settings(self) -> Settings:
        result = await self._call(
            "sfu.GridConfig",
            {
                "public_endpoint": self.address,
                "version": self._version,
                "config": self._config,
            },
        )
        return read_settings(self._config, result)

    async def _report(self) -> None:
        now = self._clock.seconds()
        self.rooms.sweep(now)
        report = _ReportParams(
            self.address, self._version, self.load, self.rooms.peers, self.rooms.report(now)
        )
        tasks = read_tasks(await self._call("sfu.Report", report))
        if not self.running:
            return
        for task in tasks:
            self.tasks.append(task)
            self.rooms.perform(task, self._clock.seconds())
        self.reports += 1
        if self._give_up_call is not None:
            self._give_up_call.reset(self._give_up_after)
        if self._started is not None:
            started, self._started = self._started, None
            started.callback(None)

    def _call(self, method: str, params: object) -> Deferred[Any]:
        return self._gateway.call(method, params, path=INTERNAL)

    def _start_cancelled(self, _started: Deferred[None]) -> None:
        self.stop()

    def _give_up(self) -> None:
        text = f"{self.address}: no report answered for {self._give_up_after:g} s"
        if self.last_error is not None:
            text += f", the last time because of: {self.last_error}"
        self.log.error("{text}; shutting down", text=text)
        self._end(ServerState.FAILED, GaveUp(text))

    def _failed(self, failure: Failure) -> None:
        """Take note of the end of the server's work, by ``stop`` or by an error."""
        if self.state not in (ServerState.STOPPED, ServerState.FAILED):
            self._end(ServerState.FAILED, failure.value)
            if not isinstance(failure.value, GatewayError | Misbehaviour):
                self.log.failure("{address}: failed", failure, address=self.address)

    def _end(self, state: ServerState, reason: BaseException | None) -> None:
        self.state = state
        self.rooms.clear()
        if self._give_up_call is not None and self._give_up_call.active():
            self._give_up_call.cancel()
        if self._work is not None:
            self._work.cancel()
        if self._started is not None:
            started, self._started = self._started, None
            started.errback(reason)


def _is_final(failure: OdingwError) -> bool:
    """Whether a server need not ask for its settings again."""
    return isinstance(failure, Misbehaviour) or (
        isinstance(failure, GatewayError) and failure.permanent
    )
