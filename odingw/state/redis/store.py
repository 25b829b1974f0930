"""All pools of a fleet, and the connections to their Redis."""

import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from odingw.errors import ConfigError
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
from odingw.state.redis import words
from odingw.state.redis.errors import RedisAwayError, RedisRefusedError
from odingw.state.redis.layout3 import TakeOver
from odingw.state.redis.pool import RedisGrid
from odingw.state.redis.restore import restore
from odingw.state.redis.rows import LAYOUT
from odingw.state.redis.scripts import SCRIPTS, decode, decode_look, encode
from odingw.state.slices import Timer

LEASE: Final = 5.0
"""Seconds after a gateway's last sign of life in which it counts as there."""

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 3.0

_CLOCK_DIFFERENCE: Final = 2.0
"""Seconds by which Redis's clock may differ from a gateway's without a word."""

_LONGEST_REASON: Final = 300

_PASSING: Final = frozenset({"other", "busy", "oom", "noperm", "noreplicas"})
"""Kinds of refusals for which another connection is of no use."""

_log = Logger("odingw.state")


class Connection(Protocol):
    """A connection to Redis (:class:`odingw.state.redis.link.Link`)."""

    lost: Deferred[str]

    def execute(self, *command: str | bytes) -> Deferred[Any]:
        """Carry out a command."""

    def close(self) -> None:
        """Cut it."""


class Meter(words.Meter, Protocol):
    """Where counts and times go."""

    def stored(self, seconds: float | None) -> None:
        """Take in how long a call took."""


class FleetError(Exception):
    """This gateway cannot be one of the fleet; the text says why."""


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
        self.longest_step = 0.0
        self.clock_ahead = 0.0
        self.settings = settings
        self.gateway = gateway
        self.timer = timer
        self.clock = clock
        self.follow = follow
        self.spread = spread
        self.lease = lease
        self.fatal = fatal
        self.meter = meter
        self.connect = connect
        self.prints = tuple(map(fingerprint, master_keys))
        self.numbers = encode(
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
        )
        self.prefix = prefix
        self._pick = pick
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
    def trouble(self) -> str:
        """Why the store does not do all it should at present; empty: all is well."""
        return next((line.trouble for line in self._lines.values() if line.trouble), "")

    def pool(self, name: str) -> RedisGrid:
        """Return the grid of a pool, always the same one."""
        pool = self._pools.get(name)
        if pool is None:
            key = f"{{{self.prefix}:{name}}}:main"
            slot = key if self.spread else ""
            line = self._lines.get(slot)
            if line is None:
                line = self._lines[slot] = Line(self, key)
            pool = self._pools[name] = RedisGrid(
                name,
                key,
                self.settings,
                self._pick,
                self.gateway,
                line,
                self.timer,
                self._pools,
                self.skip,
                spread=self.spread,
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

    def skip(self, what: str) -> None:
        """Count a row that cannot be read, and name it once."""
        self.skipped += 1
        if what not in self._skips and len(self._skips) < 1000:
            self._skips.add(what)
            _log.error("a row in Redis cannot be read and is skipped: {what}", what=what[:500])

    def tick(self, now: float) -> tuple[Event, ...]:
        """Do the periodic work; what it leads to may be told at the next call."""
        gap = now - self._ticked if self._ticked is not None else 0.0
        self._ticked = now
        stood_still = gap > 2.5 * self.settings.tick
        if stood_still:
            self._events.append(Paused(gap))
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


class Line:
    """The connection to the Redis that has some pools' keys.

    Args:
        store: whose pools these are.
        key: of one of them.
    """

    def __init__(self, store: RedisStore, key: str) -> None:
        self.trouble = "not connected to Redis yet"
        self.pools: list[RedisGrid] = []
        self._store = store
        self._key = key
        self._link: Connection | None = None
        self._stopping = False
        self._words = words.Words(store.meter)
        self._looked = 0.0
        self._pause: tuple[Any, Deferred[None]] | None = None
        self._running: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._began = False

    def start(self) -> None:
        """Begin to connect."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(lambda failure: _log.failure("the store failed", failure))

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while not self._stopping:
            try:
                link = await self._store.connect(self._key)
                if self._stopping:
                    link.close()
                    return
                self._link = link
                await self._enter(link, self.pools)
                delay = _FIRST_DELAY
                reason = await link.lost
                error: Exception = RedisAwayError(reason)
            except (RedisAwayError, RedisRefusedError) as failure:
                error = failure
            except (FleetError, ConfigError) as failure:
                self._down(failure)
                self._store.fatal(str(failure))
                return
            except Exception as failure:
                # It holds what no gateway has written.
                _log.failure("Redis cannot be used")
                error = RedisAwayError(str(failure) or type(failure).__name__)
            self._down(error)
            if self._stopping:
                return
            await self._sleep(delay * random.uniform(0.75, 1.25))  # noqa: S311  -- spreads load
            delay = min(_LONGEST_DELAY, 2 * delay)

    async def _enter(self, link: Connection, pools: Sequence[RedisGrid]) -> None:
        """Bring pools in line with Redis."""
        run = await _run_of(link)
        await self._check_policy(link)
        for pool in pools:
            await self._join(pool, link, run)
        for pool in pools:
            pool.up = True
        self._began = True
        waiting, self._waiting = self._waiting, []
        for ready in waiting:
            ready.callback(None)
        if self.trouble and all(pool.up for pool in self.pools):
            self.trouble = ""
            self._words.well()
            _log.info("the state is shared by Redis")

    async def _check_policy(self, link: Connection) -> None:
        try:
            info = await link.execute("INFO", "memory")
        except RedisRefusedError:
            # Not everybody may ask.
            return
        words.check_policy(info)

    async def _join(self, pool: RedisGrid, link: Connection, run: str) -> None:
        store, is_new = self._store, not pool.epoch
        mine = f"{pool.epoch} {pool.run_id}"
        now = "" if store.follow else repr(pool.now)
        before = TakeOver(
            link.execute,
            store.prefix,
            pool.key,
            (store.gateway, now, repr(store.lease)),
            store.prints,
            store.skip,
        )
        takes_over = not store.spread and await before.begin()
        answer = await SCRIPTS["enter"](
            link.execute,
            (pool.key,),
            store.gateway,
            now,
            repr(store.lease),
            str(LAYOUT),
            sha256(store.numbers).hexdigest()[:16],
            f"{random.getrandbits(32):08x}",
            pool.epoch if pool.lost else "",
            "" if is_new else mine,
            run,
            str(len(store.prints)),
            *store.prints,
            *pool.copies.gateways,
        )
        what, found = answer[0].decode(), answer[1].decode()
        if what:
            raise FleetError(_WHY[what].format(found=found, layout=LAYOUT))
        if answer[4]:
            _log.warn(
                "another gateway of this fleet has other numbers in [gateway] or [limits]: what "
                "holds for a room depends on which of them is asked"
            )
        pool.epoch, pool.run_id, pool.lost = found, run, False
        lost = bool(answer[2])
        if lost:
            _log.warn("Redis may have lost what it knew; it is told again")
        if takes_over:
            _log.info("the state of the version before is taken over")
            await before.run(partial(pool.run, "restore"))
        if not answer[3]:
            number = 0
            while True:
                (number,) = await pool.run("resume", number, is_new)
                if not number:
                    break
        await restore(pool, lost=lost)
        await pool.look()

    async def stop(self) -> None:
        """End."""
        self._stopping = True
        link = self._link
        if link is not None:
            if not self.trouble:
                for pool in self.pools:
                    await pool.leave()
            link.close()
        if self._pause is not None:
            call, waiting = self._pause
            call.cancel()
            waiting.callback(None)
        if self._running is not None:
            await self._running

    async def ready(self) -> None:
        """Wait until all pools have been in line with Redis once."""
        if not self._began:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

    async def run(self, pool: RedisGrid, script: str, asked: Sequence[Any]) -> Any:
        """Carry out a script for a pool, and return what it answers.

        Raises:
            RedisAwayError: Redis is away, or does not do it.
        """
        store = self._store
        now = False if store.follow else pool.now
        request = encode((pool.epoch, now, store.gateway, *asked))
        keys = [pool.key]
        if script == "connect":
            keys += [other.key for other in self.pools if other is not pool]
        began = time.perf_counter()
        try:
            answer = await SCRIPTS[script](self.execute, keys, request, store.numbers)
        except RedisRefusedError as error:
            self._refused(pool, error)
            raise RedisAwayError(str(error)) from None
        taken = time.perf_counter() - began
        store.meter.stored(taken)
        if script == "look":
            look = decode_look(answer)
            if store.follow:
                pool.ahead = look.now + taken / 2 - store.clock()
                self._words.clock(look.now, time.time() - taken / 2)
            skipped, answers = look.skipped, look
        else:
            skipped, *answers = decode(answer)
        for what in skipped:
            store.skip(what)
        if skipped:
            # What was counted for these rows is wrong now.
            self._begin_anew(pool, skipped[0])
        return answers

    def execute(self, *command: str | bytes) -> Deferred[Any]:
        """Carry out a command."""
        if self._link is None:
            return fail(RedisAwayError("no connection"))
        return self._link.execute(*command)

    async def read(self, pool: RedisGrid, *command: str | bytes) -> Any:
        """Carry out a command on a pool's keys.

        Raises:
            RedisAwayError: Redis is away, or does not do it.
        """
        try:
            return await self.execute(*command)
        except RedisRefusedError as error:
            self._refused(pool, error)
            raise RedisAwayError(str(error)) from None

    def _refused(self, pool: RedisGrid, error: RedisRefusedError) -> None:
        """Decide what a refusal means: begin a new epoch, connect again, or go on."""
        store, text = self._store, str(error)
        lost = text.partition("LOST ")[2].partition("\n")[0].partition(" script:")[0].strip()
        if not lost and ("WRONGTYPE" in text or error.kind == "script"):
            # Nobody knows what the script has done until then.
            lost = text
        if lost:
            name, _, row = lost.partition(" ")
            if row:
                store.skip(f"{name} {row}")
            self._begin_anew(pool, lost)
            return
        self._words.failed(error)
        if error.kind not in _PASSING and self._link is not None:
            self._link.close()

    def _begin_anew(self, pool: RedisGrid, lost: str) -> None:
        """Have everything written again that gateways know."""
        if lost != "epoch":
            pool.lost = True
        if pool.up and self._link is not None:
            pool.up = False
            self.trouble = f"Redis has lost {lost}"[:_LONGEST_REASON]
            _log.warn("{trouble}; all gateways write it again", trouble=self.trouble)
            again = Deferred.fromCoroutine(self._enter(self._link, [pool]))
            again.addErrback(self._not_again, self._link)

    def _not_again(self, failure: Any, link: Connection) -> None:
        if failure.check(RedisAwayError, RedisRefusedError) is None:
            _log.failure("Redis cannot be used", failure)
        link.close()

    def _down(self, error: Any) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        for pool in self.pools:
            pool.up = False
        if self._stopping:
            return
        if isinstance(error, FleetError):
            self.trouble = str(error)
        else:
            self.trouble = self._words.failed(error)

    def _sleep(self, seconds: float) -> Deferred[None]:
        slept: Deferred[None] = Deferred()

        def wake() -> None:
            self._pause = None
            slept.callback(None)

        self._pause = (self._store.timer.callLater(seconds, wake), slept)
        return slept


_WHY: Final = {
    "key": "the gateways that share this Redis have another master key; configure the same "
    "gateway.master_key (or name both in gateway.master_keys to replace one by the other), or "
    "another state.prefix or database",
    "layout": "the state in Redis has layout {found}, and this version works with {layout}; see "
    "the upgrade in the operations guide",
}


async def _run_of(link: Connection) -> str:
    """Return what a Redis that takes the place of another one does not have in common with it."""
    for line in (await link.execute("INFO", "replication")).decode().splitlines():
        name, _, value = line.partition(":")
        if name == "master_replid":
            return str(value)
    return ""
