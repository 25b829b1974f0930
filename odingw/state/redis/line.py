"""The connection to the Redis that has some pools' keys: made, lost, and made again."""

import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final, Protocol

from msgspec import Struct
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from odingw.errors import ConfigError
from odingw.state.redis import words
from odingw.state.redis.errors import RedisAwayError, RedisRefusedError
from odingw.state.redis.layout3 import TakeOver
from odingw.state.redis.pool import RedisGrid
from odingw.state.redis.restore import restore
from odingw.state.redis.rows import LAYOUT
from odingw.state.redis.scripts import SCRIPTS, decode, decode_look, encode
from odingw.state.slices import Timer

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 3.0

CHECK: Final = 10.0
"""Seconds from one look at what Redis does when its memory is full to the next."""

MOST_HEALS: int = 20
"""How often in a minute all is written again because a script failed."""

_LONGEST_REASON: Final = 300

_PASSING: Final = frozenset({"other", "busy", "oom", "noperm", "noreplicas"})
"""Kinds of refusals for which another connection is of no use."""

_GLOB: Final = re.compile(r"[*?\[\]\\^]")

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


class Terms(Struct, frozen=True, kw_only=True):
    """What a gateway works with; the attributes are described in ``RedisStore``.

    Attributes:
        numbers: the settings, as scripts take them.
        prints: fingerprints of the master keys; the first signs.
        skip: told of a row that cannot be read.
    """

    gateway: str
    prefix: str
    numbers: bytes
    prints: tuple[str, ...]
    lease: float
    follow: bool
    spread: bool
    connect: Callable[[str], Awaitable[Connection]]
    timer: Timer
    clock: Callable[[], float]
    fatal: Callable[[str], None]
    meter: Meter
    skip: Callable[[str], None]


class Line:
    """The connection to the Redis that has some pools' keys.

    Args:
        terms: what this gateway works with.
        key: of one of them.
    """

    def __init__(self, terms: Terms, key: str) -> None:
        self.trouble = "not connected to Redis yet"
        self.pools: list[RedisGrid] = []
        self._terms = terms
        self._key = key
        self._link: Connection | None = None
        self._stopping = False
        self._words = words.Words(terms.meter)
        self._checked = 0.0
        self._heals: list[float] = []
        self._policy = ""
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
                link = await self._terms.connect(self._key)
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
                self._terms.fatal(str(failure))
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

    async def check(self) -> None:
        """Look every now and then whether Redis has begun to throw keys away."""
        now = time.monotonic()
        if self._link is None or self.trouble or now < self._checked + CHECK:
            return
        self._checked = now
        try:
            await self._check_policy(self._link)
        except RedisAwayError:
            return
        except ConfigError as error:
            self._policy = self._words.failed(error)
        else:
            if self._policy:
                self._words.well()
            self._policy = ""

    @property
    def all_trouble(self) -> str:
        """Why Redis does not do all it should; empty: all is well."""
        return self.trouble or self._policy

    async def _check_policy(self, link: Connection) -> None:
        try:
            info = await link.execute("INFO", "memory")
        except RedisRefusedError:
            # Not everybody may ask.
            return
        words.check_policy(info)

    async def _join(self, pool: RedisGrid, link: Connection, run: str) -> None:
        terms, is_new = self._terms, not pool.epoch
        mine = f"{pool.epoch} {pool.run_id}"
        now = "" if terms.follow else repr(pool.now)
        before = TakeOver(
            link.execute,
            terms.prefix,
            pool.key,
            (terms.gateway, now, repr(terms.lease)),
            terms.prints,
            terms.skip,
        )
        takes_over = not terms.spread and await before.begin()
        answer = await SCRIPTS["enter"](
            link.execute,
            (pool.key,),
            terms.gateway,
            now,
            repr(terms.lease),
            str(LAYOUT),
            sha256(terms.numbers).hexdigest()[:16],
            f"{random.getrandbits(32):08x}",
            pool.epoch if pool.lost else "",
            "" if is_new else mine,
            run,
            str(len(terms.prints)),
            *terms.prints,
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
        if pool.epoch not in ("", found):
            Deferred.fromCoroutine(self._clean(pool.key, pool.epoch))
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

    async def _clean(self, key: str, epoch: str) -> None:
        """Delete what is left of an epoch."""
        start = _GLOB.sub(r"\\\g<0>", f"{key.removesuffix('main')}{epoch}:")
        cursor = b"0"
        try:
            while True:
                asked = ("SCAN", cursor, "MATCH", f"{start}*", "COUNT", "1000")
                cursor, keys = await self.execute(*asked)
                if keys:
                    await self.execute("UNLINK", *keys)
                if cursor == b"0":
                    return
        except (RedisAwayError, RedisRefusedError) as error:
            _log.warn("keys of epoch {epoch} are left: {reason}", epoch=epoch, reason=str(error))

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
        terms = self._terms
        now = False if terms.follow else pool.now
        request = encode((pool.epoch, now, terms.gateway, *asked))
        keys = [pool.key]
        if script == "connect":
            keys += [other.key for other in self.pools if other is not pool]
        began = time.perf_counter()
        try:
            answer = await SCRIPTS[script](self.execute, keys, request, terms.numbers)
        except RedisRefusedError as error:
            self._refused(pool, error)
            raise RedisAwayError(str(error)) from None
        taken = time.perf_counter() - began
        terms.meter.stored(taken)
        answers: Any
        if script == "look":
            answers = decode_look(answer)
            if terms.follow:
                pool.ahead = answers.now + taken / 2 - terms.clock()
                self._words.clock(answers.now, time.time() - taken / 2)
            skipped = answers.skipped
        else:
            skipped, *answers = decode(answer)
        for what in skipped:
            terms.skip(what)
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
        terms, text = self._terms, str(error)
        lost = text.partition("LOST ")[2].partition("\n")[0].partition(" script:")[0].strip()
        if not lost and ("WRONGTYPE" in text or error.kind == "script") and self._may_heal():
            # Nobody knows what the script has done until then.
            lost = text
        if lost:
            name, _, row = lost.partition(" ")
            if row:
                terms.skip(f"{name} {row}")
            self._begin_anew(pool, lost)
            return
        self._words.failed(error)
        if error.kind not in _PASSING and self._link is not None:
            self._link.close()

    def _may_heal(self) -> bool:
        """Tell whether scripts have not failed too often; a new epoch is no help then."""
        now = time.monotonic()
        self._heals = [*(heal for heal in self._heals if heal > now - 60), now]
        return len(self._heals) <= MOST_HEALS

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

        self._pause = (self._terms.timer.callLater(seconds, wake), slept)
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
