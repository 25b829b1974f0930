"""All pools of a fleet, and the connection to their Redis."""

import random
import time
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from odingw.grid.changes import Changes
from odingw.grid.grid import Grid
from odingw.grid.usage import Usage
from odingw.grid.values import Event, GridSettings, Paused, UsageView
from odingw.state.memory import Grids
from odingw.state.redis.exchange import LEASE, Exchange, Loss, RedisAwayError
from odingw.state.redis.fleet import Fleet, FleetError
from odingw.state.redis.layout import COMMIT, Keys
from odingw.state.redis.pool import RedisGrid
from odingw.state.redis.replica import Replica
from odingw.state.redis.snapshot import load
from odingw.state.slices import Slices, Timer
from odingw.state.steps import Steps

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 3.0

_JUMP: Final = 1.0
"""Seconds by which Redis's clock may drift against this gateway's between two looks."""

_PAUSE: Final = 30.0
"""Seconds from one time that all is read anew because a commit was not heard of to the next."""

_QUICK: Final = 0.01
"""Seconds within which an answer tells the time well."""

_log = Logger("odingw.state")


class Connection(Protocol):
    """Both connections to Redis."""

    lost: Deferred[str]

    def execute(self, *command: str | bytes) -> Deferred[Any]:
        """Carry out a command."""

    def subscribe(
        self, channels: Iterable[str], on_message: Callable[[str, bytes], None]
    ) -> Deferred[Any]:
        """Hear what is published."""

    def close(self) -> None:
        """Cut the connections."""


class RedisStore:
    """All pools; an :class:`odingw.grid.store.Store`.

    Args:
        settings: the numbers that the rules depend on.
        pick: given n, a random number from 0 to n - 1.
        fleet: what all gateways agree on.
        gateway: this gateway's id, which no other process ever has.
        connect: makes connections; it raises ``RedisAwayError``.
        timer: for delays.
        clock: this gateway's steady clock.
        fatal: called with one line if this gateway cannot be one of the fleet.
        measured: told how many seconds each commit took, or of None if it failed.
        follow: whether the fleet's time is Redis's; if not, it is this gateway's own.
    """

    def __init__(
        self,
        settings: GridSettings,
        pick: Callable[[int], int],
        fleet: Fleet,
        gateway: str,
        connect: Callable[[], Awaitable[Connection]],
        timer: Timer,
        clock: Callable[[], float],
        fatal: Callable[[str], None],
        measured: Callable[[float | None], None] = lambda _: None,
        *,
        follow: bool = True,
    ) -> None:
        self.trouble = "not connected to Redis yet"
        self._settings = settings
        self._pick = pick
        self._fleet = fleet
        self._gateway = gateway
        self._connect = connect
        self._timer = timer
        self._clock = clock
        self._fatal = fatal
        self._measured = measured
        self._follow = follow
        self._changes: dict[str, tuple[Grid, Changes]] = {}
        self._grids = Grids(settings, self._new_grid)
        self._pools: dict[str, RedisGrid] = {}
        self._exchanges: dict[str, Exchange] = {}
        self._link: Connection | None = None
        self._script = ""
        self._steps = Steps()
        self._ticked: float | None = None
        self._ahead = 0.0
        self._missed = -inf
        self._beating = False
        self._stopping = False
        self._pause: tuple[Any, Deferred[None]] | None = None
        self._running: Deferred[None] | None = None
        self._started = False
        self._waiting: list[Deferred[None]] = []

    def start(self, now: float) -> None:
        """Begin to connect."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(lambda failure: _log.failure("the store failed", failure))

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while not self._stopping:
            try:
                link = await self._connect()
                if self._stopping:
                    link.close()
                    return
                self._link = link
                await self._enter(link)
                delay = _FIRST_DELAY
                reason = await link.lost
            except RedisAwayError as error:
                reason = str(error)
            except FleetError as error:
                self._down(str(error))
                self._fatal(str(error))
                return
            except Exception as error:
                # It refuses what every Redis does, or holds what no gateway has written.
                _log.failure("Redis cannot be used")
                reason = str(error) or type(error).__name__
            self._down(reason)
            if self._stopping:
                return
            await self._sleep(delay * random.uniform(0.75, 1.25))  # noqa: S311  -- spreads load
            delay = min(_LONGEST_DELAY, 2 * delay)

    async def _enter(self, link: Connection) -> None:
        """Bring all pools in line with Redis, and begin to commit."""
        await self._fleet.join(link.execute)
        self._script = (await link.execute("SCRIPT", "LOAD", COMMIT)).decode()
        await self._set_clock(link)
        run = await _run_of(link)
        for exchange in self._exchanges.values():
            exchange.set_time(self._clock())
            exchange.hold()
        await link.subscribe(self._exchanges, self._heard)
        for pool in self._pools.values():
            await self._sync(pool, link, run)
        self._started = True
        for exchange in self._exchanges.values():
            exchange.went_up()
        if self.trouble:
            self.trouble = ""
            _log.info("the state is shared by Redis")
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    async def _sync(self, pool: RedisGrid, link: Connection, run: str) -> None:
        exchange = pool.exchange
        epoch, seq, others = await self._greet(exchange)
        if exchange.epoch:
            if epoch != exchange.epoch or seq < exchange.seq:
                exchange.lost = Loss.CERTAIN
            elif run != exchange.run and exchange.lost is Loss.NONE:
                exchange.lost = Loss.POSSIBLE
        if exchange.lost is not Loss.NONE:
            _log.warn("Redis may have lost what it knew; it is told again")
        exchange.epoch, exchange.run = epoch, run
        await exchange.catch_up()
        await load(exchange.keys, pool.replica, link.execute, Slices(self._timer).pause)
        exchange.seq, exchange.expected = seq, 0
        await exchange.release()
        await exchange.resume(first=not self._started, others=bool(others))

    async def _greet(self, exchange: Exchange) -> tuple[str, int, int]:
        """Give a sign of life; return epoch, number of the last commit, and other gateways."""
        fresh = f"{random.getrandbits(64):016x}"
        results, _ = await exchange.commit([(("H", fresh, str(LEASE)),)])
        epoch, seq, others = results[0]
        return epoch, seq, others

    def ready(self) -> Deferred[None]:
        """Wait for the first synchronisation."""
        waiter: Deferred[None] = Deferred()
        if self._started:
            waiter.callback(None)
        else:
            self._waiting.append(waiter)
        return waiter

    def stop(self) -> Deferred[None]:
        """Commit what is left, say goodbye, and cut the connections."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        link = self._link
        if link is not None and not self.trouble:
            try:
                for exchange in self._exchanges.values():
                    await exchange.catch_up()
                    await exchange.commit([(("L",),)])
            except RedisAwayError as error:
                _log.warn("the last changes are lost: {reason}", reason=str(error))
        if link is not None:
            link.close()
        if self._pause is not None:
            call, waiting = self._pause
            call.cancel()
            waiting.callback(None)
        if self._running is not None:
            await self._running

    @property
    def longest_step(self) -> float:
        """The longest time for which the store held the reactor up, in seconds."""
        return self._steps.longest

    @property
    def skipped(self) -> int:
        """How many messages of other gateways could not be read."""
        return sum(exchange.skipped for exchange in self._exchanges.values())

    def pool(self, name: str) -> RedisGrid:
        """Return the grid of a pool, always the same one."""
        pool = self._pools.get(name)
        if pool is None:
            self._grids.pool(name)
            grid, changes = self._changes[name]
            keys = Keys(self._fleet.prefix, name)
            replica = Replica(grid, changes, self._fleet.layout)
            exchange = Exchange(
                grid,
                changes,
                replica,
                keys,
                self._gateway,
                self._commit,
                self._timer,
                self._read_anew,
                self._steps,
            )
            pool = RedisGrid(
                grid,
                replica,
                exchange,
                self._gateway,
                Slices(self._timer),
                self._settings.report_interval,
            )
            self._pools[name] = pool
            self._exchanges[keys.channel] = exchange
        return pool

    def pools(self) -> Iterable[tuple[str, RedisGrid]]:
        """Yield the pools that are in use, by name."""
        return self._pools.items()

    def usage(self) -> Iterable[UsageView]:
        """Yield every customer that uses anything."""
        return self._grids.usage()

    def tick(self, now: float) -> tuple[Event, ...]:
        """Do the periodic work."""
        events: list[Event] = []
        gap = now - self._ticked if self._ticked is not None else 0.0
        self._ticked = now
        if gap > 2.5 * self._settings.tick:
            events.append(Paused(gap))
            for pool in self._pools.values():
                pool.excuse(now)
        for pool in self._pools.values():
            events.extend(pool.tick(now))
        if not self.trouble and not self._beating and self._link is not None:
            self._beating = True
            Deferred.fromCoroutine(self._beat(self._link)).addErrback(_failed)
        return tuple(events)

    async def _beat(self, link: Connection) -> None:
        """Give a sign of life, and look whether everything that was committed was heard of."""
        try:
            for exchange in self._exchanges.values():
                heard = exchange.seq
                epoch, seq, _ = await self._greet(exchange)
                if heard > seq:
                    # Somebody has told of what nobody committed.
                    exchange.seq = seq
                # What had been committed a beat ago should be there, and have been told by now.
                missed = min(seq, exchange.seq) < exchange.expected
                if epoch != exchange.epoch or (missed and self._may_read_anew()):
                    self._read_anew()
                exchange.expected = seq
            await self._set_clock(link)
        except RedisAwayError:
            link.close()
        finally:
            self._beating = False

    def _may_read_anew(self) -> bool:
        """Tell whether it is time again to read all anew for a commit that was not heard of."""
        now = self._clock()
        # A clock that is set back must not make the pause longer.
        if 0 <= now - self._missed < _PAUSE:
            return False
        self._missed = now
        return True

    def _read_anew(self) -> None:
        """Begin again with what Redis holds."""
        _log.warn("the state differs from what Redis holds; it is read anew")
        if self._link is not None:
            self._link.close()

    async def _set_clock(self, link: Connection) -> None:
        began = time.monotonic()
        seconds, micros = await link.execute("TIME")
        if not self._follow:
            return
        taken = time.monotonic() - began
        ahead = int(seconds) + int(micros) / 1e6 - self._clock() - taken / 2
        jumped = abs(ahead - self._ahead) > _JUMP
        if jumped or taken < _QUICK:
            self._ahead = ahead
            for exchange in self._exchanges.values():
                exchange.ahead = ahead
        if jumped and not self.trouble:
            _log.warn("the clock of Redis has jumped; every server counts as just heard")
            for pool in self._pools.values():
                pool.excuse(self._clock())

    def _commit(self, keys: Keys, arguments: Any) -> Deferred[Any]:
        link = self._link
        if link is None:
            return _fail("no connection")
        began = time.perf_counter()
        command = ("EVALSHA", self._script, str(len(keys.all)), *keys.all, *arguments)
        return link.execute(*command).addBoth(self._committed, link, began)

    def _committed(self, answer: Any, link: Connection, began: float) -> Any:
        if isinstance(answer, list):
            self._measured(time.perf_counter() - began)
            return _text(answer)
        self._measured(None)
        error = answer.value
        if not isinstance(error, RedisAwayError):
            # Redis is there but cannot do it: out of memory, read-only, or its scripts are gone.
            _log.error("Redis refuses a commit: {reason}", reason=str(error))
            link.close()
            raise RedisAwayError(str(error)) from None
        return answer

    def _heard(self, channel: str, message: bytes) -> None:
        exchange = self._exchanges.get(channel)
        if exchange is not None:
            exchange.hear(message)

    def _down(self, reason: str) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        for exchange in self._exchanges.values():
            exchange.went_down()
        if not self._stopping and self.trouble != reason:
            self.trouble = reason
            _log.error(
                "Redis is away: {reason}; known rooms are served on and reports answered, but no "
                "rooms are placed and no tasks accepted until it is back",
                reason=reason,
            )

    def _sleep(self, seconds: float) -> Deferred[None]:
        slept: Deferred[None] = Deferred()

        def wake() -> None:
            self._pause = None
            slept.callback(None)

        self._pause = (self._timer.callLater(seconds, wake), slept)
        return slept

    def _new_grid(self, name: str, usage: Usage) -> Grid:
        changes = Changes()
        grid = Grid(self._settings, usage, self._pick, changes)
        self._changes[name] = (grid, changes)
        return grid


async def _run_of(link: Connection) -> str:
    """Return what a Redis that takes the place of another one does not have in common with it."""
    for line in (await link.execute("INFO", "replication")).decode().splitlines():
        name, _, value = line.partition(":")
        if name == "master_replid":
            return str(value)
    return ""


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value


def _fail(reason: str) -> Deferred[Any]:
    failed: Deferred[Any] = Deferred()
    failed.errback(RedisAwayError(reason))
    return failed


def _failed(failure: Any) -> None:
    _log.failure("work with Redis failed", failure)
