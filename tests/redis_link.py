"""A connection to a real Redis that answers at once, so that tests need no reactor."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from odingw.grid.values import GridSettings
from odingw.state.redis.errors import RedisAwayError, refusal
from odingw.state.redis.store import LEASE, RedisStore
from tests.redis_server import RedisServer


def answer(eventual: Any, settle: Callable[[], None]) -> Any:
    """Return what a call comes to; raise what it fails with.

    Args:
        eventual: what the call returned.
        settle: lets everything happen that happens by itself.
    """
    result: list[Any] = []
    if not hasattr(eventual, "__await__"):
        result.append(eventual)
    else:

        async def wait() -> Any:
            return await eventual

        Deferred.fromCoroutine(wait()).addBoth(result.append)
    settle()
    if not result:
        raise AssertionError("no answer")
    if isinstance(result[0], Failure):
        result[0].raiseException()
    return result[0]


class DirectLink:
    """Commands by one connection.

    Attributes:
        ends: it is lost ``before`` or ``after`` Redis has carried out the next command.
    """

    def __init__(self, server: RedisServer) -> None:
        self.lost: Deferred[str] = Deferred()
        self.ends = ""
        self._commands = server.client()

    def execute(self, *command: str | bytes) -> Deferred[Any]:
        """Carry out a command."""
        if self.lost.called:
            return fail(RedisAwayError("cut"))
        if self.ends == "before":
            self.close()
            return fail(RedisAwayError("cut"))
        try:
            answer = self._commands.call(*command)
        except RuntimeError as error:
            return fail(refusal(str(error)))
        except OSError as error:
            self.close()
            return fail(RedisAwayError(str(error)))
        if self.ends == "after":
            self.close()
            return fail(RedisAwayError("cut"))
        return succeed(answer.encode() if isinstance(answer, str) else answer)

    def close(self) -> None:
        """Lose the connection."""
        self._commands.close()
        if not self.lost.called:
            self.lost.callback("closed")


class Meter:
    """Counts nothing."""

    def stored(self, seconds: float | None) -> None:
        """Take in a time."""

    def store_failed(self, kind: str, count: int = 1) -> None:
        """Take in a failure."""

    def store_clock(self, difference: float) -> None:
        """Take in a difference."""


class DirectStore:
    """A gateway's store over a real Redis, in step with it at every call."""

    def __init__(
        self,
        server: RedisServer,
        pools: Iterable[str],
        now: float,
        *,
        settings: GridSettings | None = None,
        pick: Callable[[int], int] = lambda _: 0,
        name: str = "gateway-1",
        master_keys: Sequence[bytes] = (b"key",),
        lease: float = LEASE,
    ) -> None:
        self.now = now
        self.clock = Clock()
        self.server = server
        self.refused = ""
        self.away = False
        self.links: list[DirectLink] = []
        self.store = RedisStore(
            settings or GridSettings(),
            pick,
            "test",
            master_keys,
            name,
            lambda key: self._connect(key),
            self.clock,
            lambda: self.now,
            self._fatal,
            Meter(),
            follow=False,
            lease=lease,
        )
        for pool in pools:
            self.store.pool(pool)
        self.store.start(now)

    @property
    def link(self) -> DirectLink:
        """The connection that was made last."""
        return self.links[-1]

    async def _connect(self, key: str) -> DirectLink:
        if self.away:
            raise RedisAwayError("away")
        self.links.append(DirectLink(self.server))
        return self.link

    def _fatal(self, reason: str) -> None:
        self.refused = reason

    def settle(self) -> None:
        """Let everything happen that happens by itself."""
        for _ in range(3):
            self.clock.advance(0)
        for _, pool in self.store.pools():
            if pool.up:
                pool.look()

    def answer(self, eventual: Any) -> Any:
        """Return what a call comes to; raise what it fails with."""
        return answer(eventual, self.settle)

    def cut(self) -> None:
        """Lose the connection, and find no other until :meth:`back`."""
        self.away = True
        for link in self.links:
            link.close()
        self.clock.advance(0)

    def back(self) -> None:
        """Find the way to Redis again."""
        self.away = False
        self.clock.pump([5.0] * 3)
        self.settle()

    def kill(self) -> None:
        """End without a word."""
        for line in self.store._lines.values():
            line._stopping = True
        self.cut()
