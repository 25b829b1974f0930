"""Connections to real Redis servers, with the reactor."""

from pathlib import Path
from typing import Any, Final

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from odingw.config import State
from odingw.state.redis.connector import Connector
from odingw.state.redis.errors import RedisAwayError, RedisRefusedError
from odingw.state.redis.link import REPLY_TIMEOUT, Link
from tests.redis_server import RedisServer
from tests.tcp_proxy import TcpProxy

reactor: Any = the_reactor

PATIENCE: Final = 4 * REPLY_TIMEOUT


class LinkCase(TestCase):
    timeout = 30

    def server(self, **options: Any) -> RedisServer:
        """Return a server that runs until the test's end."""
        server = RedisServer(persistent=False, **options)
        self.addCleanup(server.close)
        return server.start()

    def connector(
        self, server: RedisServer, *, database: int = 0, port: int | None = None
    ) -> Connector:
        """Return a connector as the configuration makes it."""
        url = server.url(database, port)
        return self.connector_of(url, server.ca_path if url.startswith("rediss") else None)

    def connector_of(self, url: str, ca_file: Path | None = None, **files: Any) -> Connector:
        """Return a connector to a URL."""
        return Connector(State(url=url, ca_file=ca_file, **files), reactor)

    async def link(self, connector: Connector, key: str = "") -> Link:
        """Return a link that is closed at the test's end."""
        link = await connector(key)
        self.addCleanup(self.close, link)
        return link

    async def close(self, link: Link) -> None:
        """Close both connections, and wait until they are."""
        link.close()
        if not link.lost.called:
            await within_patience(link.lost)

    async def refusal(self, connector: Connector, kind: str = "away", key: str = "") -> str:
        """Return why no connection is made; check the kind of the reason."""
        try:
            link = await connector(key)
        except (RedisAwayError, RedisRefusedError) as error:
            self.assertEqual(kind, getattr(error, "kind", "away"), str(error))
            return str(error)
        await self.close(link)
        return self.fail("let in")

    async def refused(self, kind: str, answer: Deferred[Any]) -> str:
        """Return why a command is refused; check the kind of the reason."""
        try:
            result = await within_patience(answer)
        except RedisRefusedError as error:
            self.assertEqual(kind, error.kind, str(error))
            return str(error)
        return self.fail(f"answered: {result!r}")

    async def failure(self, answer: Deferred[Any]) -> RedisAwayError:
        """Return what a command fails with, which is that Redis is away."""
        try:
            result = await within_patience(answer)
        except RedisAwayError as error:
            return error
        return self.fail(f"answered: {result!r}")

    def proxy(self, server: RedisServer) -> TcpProxy:
        """Return a proxy that runs until the test's end."""
        proxy = TcpProxy(server.address).start()
        self.addCleanup(proxy.close)
        return proxy

    async def until(self, condition: Any) -> None:
        """Wait for something that other threads do."""
        end = reactor.seconds() + PATIENCE
        while not condition():
            self.assertLess(reactor.seconds(), end, "in vain")
            await pause(0.01)


def within_patience(answer: Deferred[Any]) -> Deferred[Any]:
    """Let something fail that does not come."""
    return answer.addTimeout(PATIENCE, reactor)


async def pause(seconds: float) -> None:
    """Let the reactor go on for a moment."""
    over: Deferred[None] = Deferred()
    reactor.callLater(seconds, over.callback, None)
    await over
