"""All pools of a fleet, and the connections to their Redis."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from odingw.grid import registry
from odingw.grid.values import (
    Event,
    GridSettings,
    Paused,
    ServerDisabled,
    ServerRemoved,
    UsageView,
)
from odingw.state.known_key import fingerprint
from odingw.state.redis.errors import RedisAwayError
from odingw.state.redis.line import Connection, Line, Meter, Terms
from odingw.state.redis.pool import RedisGrid
from odingw.state.redis.scripts import encode
from odingw.state.slices import Timer
from odingw.state.steps import Steps

LEASE: Final = 5.0
"""Seconds after a gateway's last sign of life in which it counts as there."""

_log = Logger("odingw.state")


class RedisStore:
    """All pools; an :class:`odingw.grid.store.Store`.

    Args:
        settings: the numbers that the rules depend on; all gateways should have the same.
        pick: given n, a random number from 0 to n - 1.
        prefix: how the names of keys begin.
        master_keys: the first signs; the fleet's must be among them.
        gateway: this gateway's id, which no other process ever has.
        connect: given a key, connects to the Redis that has it; raises ``RedisAwayError``.
        timer: for delays.
        clock: this gateway's steady clock.
        fatal: called with one line if this gateway cannot be one of the fleet.
        meter: told how many seconds each call took, what failed, and of Redis's clock.
        spread: whether pools are in several slots of a Redis Cluster.
        follow: whether the fleet's time is Redis's; if not, it is this gateway's own.
        lease: seconds after its last sign of life in which this gateway counts as there.
    """

    def __init__(
        self,
        settings: GridSettings,
        pick: Callable[[int], int],
        prefix: str,
        master_keys: Sequence[bytes],
        gateway: str,
        connect: Callable[[str], Awaitable[Connection]],
        timer: Timer,
        clock: Callable[[], float],
        fatal: Callable[[str], None],
        meter: Meter,
        *,
        spread: bool = False,
        follow: bool = True,
        lease: float = LEASE,
    ) -> None:
        self.skipped = 0
        self._settings = settings
        self._pick = pick
        self._terms = Terms(
            gateway=gateway,
            prefix=prefix,
            numbers=encode(
                (
                    settings.reservation_lifetime,
                    settings.queued_tasks,
                    settings.bans_per_customer,
                    settings.disable_timeout,
                    settings.remove_timeout,
                    settings.unheard_timeout,
                    settings.tick,
                    lease,
                    registry.KEYS_OF_OTHERS,
                )
            ),
            prints=tuple(map(fingerprint, master_keys)),
            lease=lease,
            follow=follow,
            spread=spread,
            connect=connect,
            timer=timer,
            clock=clock,
            fatal=fatal,
            meter=meter,
            skip=self._skip,
        )
        self._steps = Steps()
        self._lines: dict[str, Line] = {}
        self._pools: dict[str, RedisGrid] = {}
        self._ticked: float | None = None
        self._events: list[Event] = []
        self._skips: set[str] = set()

    def start(self, now: float) -> None:
        """Begin to connect."""
        for pool in self._pools.values():
            pool.now = now
        for line in self._lines.values():
            line.start()

    def stop(self) -> Deferred[None]:
        """Say goodbye, and cut the connections."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for line in self._lines.values():
            await line.stop()

    def ready(self) -> Deferred[None]:
        """Wait until all pools have been in line with Redis once."""
        return Deferred.fromCoroutine(self._ready())

    async def _ready(self) -> None:
        for line in self._lines.values():
            await line.ready()

    @property
    def longest_step(self) -> float:
        """The longest time for which the store held the reactor up, in seconds."""
        return self._steps.longest

    @property
    def trouble(self) -> str:
        """Why the store does not do all it should at present; empty: all is well."""
        return next((line.all_trouble for line in self._lines.values() if line.all_trouble), "")

    def pool(self, name: str) -> RedisGrid:
        """Return the grid of a pool, always the same one."""
        pool = self._pools.get(name)
        if pool is None:
            terms = self._terms
            key = f"{{{terms.prefix}:{name}}}:main"
            slot = key if terms.spread else ""
            line = self._lines.get(slot)
            if line is None:
                line = self._lines[slot] = Line(terms, key)
            pool = self._pools[name] = RedisGrid(
                key,
                self._settings,
                self._pick,
                terms.gateway,
                line,
                terms.timer,
                self._pools,
                self._skip,
                self._steps,
                spread=terms.spread,
            )
            line.pools.append(pool)
        return pool

    def pools(self) -> Iterable[tuple[str, RedisGrid]]:
        """Yield the pools that are in use, by name."""
        return self._pools.items()

    def usage(self) -> Iterable[UsageView]:
        """Yield every customer that used anything a second ago, demo users as one."""
        total: dict[str, list[int]] = {}
        for pool in self._pools.values():
            for view in pool.copies.usage():
                counts = total.setdefault(view.customer, [0, 0, 0])
                counts[0] += view.peers
                counts[1] += view.reservations
                counts[2] += view.rooms
        for customer, (peers, reservations, rooms) in total.items():
            yield UsageView(customer=customer, peers=peers, reservations=reservations, rooms=rooms)

    def _skip(self, what: str) -> None:
        """Count a row that cannot be read, and name it once."""
        self.skipped += 1
        if what not in self._skips and len(self._skips) < 1000:
            self._skips.add(what)
            _log.error("a row in Redis cannot be read and is skipped: {what}", what=what[:500])

    def tick(self, now: float) -> tuple[Event, ...]:
        """Do the periodic work; what it leads to may be told at the next call."""
        gap = now - self._ticked if self._ticked is not None else 0.0
        self._ticked = now
        stood_still = gap > 2.5 * self._settings.tick
        if stood_still:
            self._events.append(Paused(gap))
        for line in self._lines.values():
            Deferred.fromCoroutine(line.check())
        for pool in self._pools.values():
            pool.sweep(now)
            Deferred.fromCoroutine(self._tick(pool, stood_still))
        events, self._events = self._events, []
        return tuple(events)

    async def _tick(self, pool: RedisGrid, stood_still: bool) -> None:
        if not pool.up or pool.ticking:
            return
        pool.ticking = True
        try:
            (events,) = await pool.run("tick", stood_still)
            for kind, address, value in events:
                self._events.append(
                    ServerRemoved(address, value)
                    if kind == "removed"
                    else ServerDisabled(address, float(value))
                )
            await pool.look()
        except RedisAwayError:
            # The connection's end is told elsewhere.
            return
        finally:
            pool.ticking = False
