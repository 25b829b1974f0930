"""A connection to a real Redis that answers at once, so that tests need no reactor."""

import queue
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from odingw.grid.values import GridSettings
from odingw.state.redis.exchange import RedisAwayError
from odingw.state.redis.fleet import Fleet
from odingw.state.redis.layout import LAYOUT
from odingw.state.redis.store import RedisStore
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
    """Commands by one connection; what is published is taken in by :meth:`listen`."""

    def __init__(self, server: RedisServer) -> None:
        self.lost: Deferred[str] = Deferred()
        self._commands = server.client()
        self._told = server.client()
        self._on_message: Callable[[str, bytes], None] = lambda *_: None
        self._kept: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._markers = 0

    def execute(self, *command: str | bytes) -> Deferred[Any]:
        """Carry out a command."""
        if self.lost.called:
            return fail(RedisAwayError("cut"))
        try:
            answer = self._commands.call(*command)
        except RuntimeError as error:
            return fail(error)
        except OSError as error:
            self.cut()
            return fail(RedisAwayError(str(error)))
        return succeed(answer.encode() if isinstance(answer, str) else answer)

    def subscribe(
        self, channels: Iterable[str], on_message: Callable[[str, bytes], None]
    ) -> Deferred[Any]:
        """Hear what is published."""
        self._on_message = on_message
        for channel in ("marker", *channels):
            self._told.send("SUBSCRIBE", channel)
            self._told.receive()
        return succeed(None)

    def listen(self) -> None:
        """Take in all that has been published until now."""
        if self.lost.called:
            return
        self._markers += 1
        mark = f"{id(self)}-{self._markers}".encode()
        self._commands.call("PUBLISH", "marker", mark)
        while True:
            _, channel, message = self._told.receive()
            if channel == b"marker":
                if message == mark:
                    return
            else:
                self._on_message(channel.decode(), message)

    def cut(self) -> None:
        """Lose the connection."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._commands.close()
        self._told.close()
        if not self.lost.called:
            self.lost.callback("closed")


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
        layout: int = LAYOUT,
        master_key: bytes = b"key",
        older: Sequence[bytes] = (),
    ) -> None:
        self.now = now
        self.clock = Clock()
        self.server = server
        self.refused = ""
        self.away = False
        self.link: DirectLink | None = None
        self.store = RedisStore(
            settings or GridSettings(),
            pick,
            Fleet("test", master_key, layout, older),
            name,
            self._connect,
            self.clock,
            lambda: self.now,
            self._fatal,
            follow=False,
        )
        for pool in pools:
            self.store.pool(pool)
        self.store.start(now)

    async def _connect(self) -> DirectLink:
        if self.away:
            raise RedisAwayError("away")
        self.link = DirectLink(self.server)
        return self.link

    def _fatal(self, reason: str) -> None:
        self.refused = reason

    def settle(self) -> None:
        """Let everything happen that happens by itself."""
        for _ in range(3):
            self.clock.advance(0)
            if self.link is not None:
                self.link.listen()

    def answer(self, eventual: Any) -> Any:
        """Return what a call comes to; raise what it fails with."""
        return answer(eventual, self.settle)

    def cut(self) -> None:
        """Lose the connection, and find no other until :meth:`back`."""
        self.away = True
        if self.link is not None:
            self.link.cut()
            self.link = None
        self.clock.advance(0)

    def back(self) -> None:
        """Find the way to Redis again."""
        self.away = False
        self.clock.pump([5.0] * 3)
        self.settle()

    def kill(self) -> None:
        """End without a word."""
        self.away = True
        self.store._stopping = True
        self.cut()
