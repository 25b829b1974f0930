"""Connections to a real Redis: who is let in, what is verified, what happens when it is away."""

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import trustme
import txredisapi  # type: ignore[import-untyped]  # it has no types
from twisted.internet import reactor as the_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.config import StateAddress
from odingw.errors import ConfigError
from odingw.state.redis.exchange import RedisAwayError
from odingw.state.redis.link import REPLY_TIMEOUT, Connector, Link, check_txredisapi
from tests.process import free_port
from tests.redis_server import HOST, RedisServer
from tests.tcp_proxy import TcpProxy

reactor: Any = the_reactor

NAME: Final = "redis.test"
PASSWORD: Final = "s3cret:/@%"
PATIENCE: Final = 4 * REPLY_TIMEOUT


@implementer(IHostnameResolver)
class Names:
    """Resolves one name to no address, or to one, and counts how often it is asked."""

    def __init__(self) -> None:
        self.known = True
        self.asked: list[str] = []

    def resolveHostName(  # noqa: N802  -- Twisted's name
        self,
        receiver: Any,
        name: str,
        portNumber: int = 0,  # noqa: N803  -- likewise
        *_: Any,
        **__: Any,
    ) -> Any:
        """Answer at once."""
        self.asked.append(name)
        receiver.resolutionBegan(self)
        if self.known:
            receiver.addressResolved(IPv4Address("TCP", HOST, portNumber))
        receiver.resolutionComplete()
        return receiver


class PrivateNameTests(SynchronousTestCase):
    """What odingw relies on in txredisapi is there, and a start without it fails."""

    def test_it_is_there(self) -> None:
        check_txredisapi()

    def test_it_is_gone_or_no_longer_used(self) -> None:
        class Renamed:
            def execute_command(self) -> None:
                self.call_later()

            def call_later(self) -> None: ...

        class Unused:
            def execute_command(self) -> None:
                reactor.call_later()

            def callLater(self) -> None: ...  # noqa: N802  -- txredisapi's name

        for protocol in (Renamed, Unused, object):
            with self.assertRaises(ConfigError) as caught:
                check_txredisapi(protocol)
            self.assertIn("RedisProtocol.callLater", str(caught.exception))

    def test_a_start_looks_for_it(self) -> None:
        self.patch(txredisapi.RedisProtocol, "execute_command", lambda *_: None)
        address = StateAddress.parse("redis://127.0.0.1/0")
        self.assertRaises(ConfigError, Connector, address, None, reactor)


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
        return self.connector_of(server.url(database, port), server.ca_path)

    def connector_of(self, url: str, ca_file: Path | None = None) -> Connector:
        """Return a connector to a URL."""
        return Connector(StateAddress.parse(url, Path()), ca_file, reactor)

    async def link(self, connector: Connector) -> Link:
        """Return a link that is closed at the test's end."""
        link = await connector()
        self.addCleanup(self.close, link)
        return link

    async def close(self, link: Link) -> None:
        """Close both connections, and wait until they are."""
        link.close()
        if not link.lost.called:
            await within_patience(link.lost)

    async def refusal(self, connector: Connector) -> str:
        """Return why no connection is made."""
        try:
            link = await connector()
        except RedisAwayError as error:
            return str(error)
        await self.close(link)
        return self.fail("let in")

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


class EntryTests(LinkCase):
    async def test_plain(self) -> None:
        """Texts come back as the bytes that they are."""
        server = self.server()
        link = await self.link(self.connector(server))
        await link.execute("SET", "key", b"\r\n\0\xff")
        self.assertEqual(b"\r\n\0\xff", await link.execute("GET", "key"))
        self.assertEqual(b"17", await link.execute("ECHO", "17"))
        self.assertFalse(link.lost.called)

    async def test_an_error_of_redis_is_not_its_absence(self) -> None:
        link = await self.link(self.connector(self.server()))
        try:
            await link.execute("GET")
        except txredisapi.ResponseError as error:
            self.assertIn("wrong number of arguments", str(error))
        else:
            self.fail("no error")
        self.assertFalse(link.lost.called)

    async def test_password(self) -> None:
        server = self.server(password=PASSWORD)
        link = await self.link(self.connector(server))
        self.assertEqual(b"default", await link.execute("ACL", "WHOAMI"))

    async def test_user_and_password(self) -> None:
        server = self.server(username="gateway", password=PASSWORD)
        link = await self.link(self.connector(server))
        self.assertEqual(b"gateway", await link.execute("ACL", "WHOAMI"))

    async def test_wrong_password(self) -> None:
        """It is said that the password is wrong, and not what was tried."""
        server = self.server(password=PASSWORD)
        reason = await self.refusal(self.connector_of(f"redis://:hunter2@{HOST}:{server.port}"))
        self.assertIn("WRONGPASS", reason)
        self.assertNotIn("hunter2", reason)
        self.assertNotIn(PASSWORD, reason)

    async def test_no_password(self) -> None:
        server = self.server(password=PASSWORD)
        reason = await self.refusal(self.connector_of(f"redis://{HOST}:{server.port}"))
        self.assertIn("NOAUTH", reason)

    async def test_database(self) -> None:
        server = self.server()
        link = await self.link(self.connector(server, database=3))
        await link.execute("SET", "key", "value")
        self.assertEqual(0, server.command("EXISTS", "key"))
        self.assertEqual(1, server.command("EXISTS", "key", database=3))

    async def test_a_database_that_there_is_not(self) -> None:
        reason = await self.refusal(self.connector(self.server(), database=99))
        self.assertIn("DB index is out of range", reason)

    async def test_nothing_listens(self) -> None:
        reason = await self.refusal(self.connector_of(f"redis://{HOST}:{free_port()}"))
        self.assertIn("refused", reason)

    async def test_refused_connections_are_closed(self) -> None:
        """Who is not let in leaves nothing behind."""
        server = self.server(password=PASSWORD)
        proxy = self.proxy(server)
        await self.refusal(self.connector_of(f"redis://:wrong@{HOST}:{proxy.port}"))
        await self.until(lambda: not proxy.connections)


class NameTests(LinkCase):
    def setUp(self) -> None:
        self.names = Names()
        before = reactor.installNameResolver(self.names)
        self.addCleanup(reactor.installNameResolver, before)

    async def test_looked_up_for_every_connection(self) -> None:
        """Redis may have moved by the time of the next connection."""
        connector = self.connector_of(f"redis://{NAME}:{self.server().port}")
        await self.close(await self.link(connector))
        first = len(self.names.asked)
        self.assertEqual([NAME] * first, self.names.asked)
        await self.link(connector)
        self.assertEqual(2 * first, len(self.names.asked))
        self.names.known = False
        self.assertIn(NAME, await self.refusal(connector))

    async def test_another_name_than_the_certificate_has(self) -> None:
        server = self.server(tls=True)
        url = f"rediss://{NAME}:{server.port}"
        await self.refusal(self.connector_of(url, server.ca_path))
        self.assertEqual({NAME}, set(self.names.asked))


class TlsTests(LinkCase):
    def authority(self) -> Path:
        """Return the file of an authority that nobody has a certificate from."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "other.pem"
        trustme.CA().cert_pem.write_to_path(path)
        return path

    async def test_verified(self) -> None:
        server = self.server(tls=True, password=PASSWORD)
        link = await self.link(self.connector(server))
        self.assertEqual(b"PONG", await link.execute("PING"))

    async def test_verified_by_address(self) -> None:
        server = self.server(tls=True)
        url = f"rediss://{HOST}:{server.port}"
        link = await self.link(self.connector_of(url, server.ca_path))
        self.assertEqual(b"PONG", await link.execute("PING"))

    async def test_one_of_several_authorities(self) -> None:
        server = self.server(tls=True)
        both = self.authority()
        both.write_bytes(b"# theirs\n" + both.read_bytes() + server.ca_path.read_bytes())
        link = await self.link(self.connector_of(server.url(), both))
        self.assertEqual(b"PONG", await link.execute("PING"))

    async def test_another_authority(self) -> None:
        """No word goes to a server that is not trusted."""
        server = self.server(tls=True, password=PASSWORD)
        before = self.pings(server)
        await self.refusal(self.connector_of(server.url(), self.authority()))
        self.assertEqual(before, self.pings(server))
        await self.link(self.connector(server))
        self.assertNotEqual(before, self.pings(server))

    def pings(self, server: RedisServer) -> bytes:
        """Return a line that tells how many pings there were."""
        lines: list[bytes] = server.command("INFO", "commandstats").splitlines()
        return next(line for line in lines if line.startswith(b"cmdstat_ping:"))

    async def test_another_authority_is_said_to_be_the_reason(self) -> None:
        server = self.server(tls=True)
        reason = await self.refusal(self.connector_of(server.url(), self.authority()))
        self.assertIn("certificate", reason.lower())

    async def test_authorities_of_the_system(self) -> None:
        """Without a file, not just any authority is good."""
        server = self.server(tls=True)
        await self.refusal(self.connector_of(server.url()))

    async def test_plain_server(self) -> None:
        server = self.server()
        await self.refusal(self.connector_of(f"rediss://localhost:{server.port}"))

    async def test_unusable_file(self) -> None:
        empty = self.authority()
        empty.write_text("no certificate")
        for path in (empty, empty.parent / "absent.pem", empty.parent):
            with self.assertRaisesRegex(ConfigError, r"state\.ca_file: .*" + path.name):
                self.connector_of("rediss://localhost", path)


class LossTests(LinkCase):
    async def test_messages_are_heard(self) -> None:
        """Those of all channels, in order, as bytes."""
        server = self.server()
        link = await self.link(self.connector(server))
        heard: list[tuple[str, bytes]] = []
        last: Deferred[None] = Deferred()

        def on_message(channel: str, message: bytes) -> None:
            heard.append((channel, message))
            if message == b"last":
                last.callback(None)

        await link.subscribe(["one", "two", "three"], on_message)
        for channel, message in (("two", b"\xff\0"), ("four", b"no"), ("one", b"1")):
            await link.execute("PUBLISH", channel, message)
        await link.execute("PUBLISH", "three", "last")
        await within_patience(last)
        self.assertEqual([("two", b"\xff\0"), ("one", b"1"), ("three", b"last")], heard)

    async def test_redis_that_hangs(self) -> None:
        """Who does not answer in time counts as away, for all that was asked."""
        server = self.server()
        link = await self.link(self.connector(server))
        server.pause()
        answers = [link.execute("PING") for _ in range(3)]
        for answer in answers:
            self.assertIn("response", str(await self.failure(answer)))
        await within_patience(link.lost)
        await self.failure(link.execute("PING"))

    async def test_time_in_which_this_process_stands_still(self) -> None:
        """Redis has answered, but nobody has looked yet."""
        server = self.server()
        link = await self.link(self.connector(server))
        answers = [link.execute("PING"), link.subscribe(["channel"], lambda *_: None)]
        time.sleep(REPLY_TIMEOUT + 0.1)
        for answer in answers:
            await within_patience(answer)
        self.assertFalse(link.lost.called)

    async def test_redis_that_hangs_while_it_is_entered(self) -> None:
        server = self.server()
        connector = self.connector(server)
        server.pause()
        self.assertIn("response", await self.refusal(connector))

    async def test_redis_that_hangs_at_subscribe(self) -> None:
        """Nothing else is asked meanwhile that would find out."""
        server = self.server()
        link = await self.link(self.connector(server))
        server.pause()
        await self.failure(link.subscribe(["channel"], lambda *_: None))

    async def test_connections_lost(self) -> None:
        """It is told once, and what was asked fails."""
        server = self.server()
        proxy = self.proxy(server)
        link = await self.link(self.connector(server, port=proxy.port))
        told: list[str] = []
        link.lost.addCallback(told.append)
        proxy.stall = True
        answers = [link.execute("INCR", "number") for _ in range(3)]
        proxy.cut()
        for answer in answers:
            await self.failure(answer)
        await self.failure(link.execute("PING"))
        await pause(0)
        self.assertEqual(1, len(told))
        self.assertTrue(told[0])

    async def test_one_connection_lost_is_both_lost(self) -> None:
        for kind in ("pubsub", "normal"):
            server = self.server()
            proxy = self.proxy(server)
            link = await self.link(self.connector(server, port=proxy.port))
            await link.subscribe(["channel"], lambda *_: None)
            with server.client() as client:
                client.call("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await within_patience(link.lost)
            await self.failure(link.execute("PING"))
            await self.until(lambda proxy=proxy: not proxy.connections)

    async def test_closed(self) -> None:
        """Who closes it is told that it is lost, and may close it again."""
        link = await self.link(self.connector(self.server()))
        answer = link.execute("PING")
        link.close()
        await self.failure(answer)
        await within_patience(link.lost)
        link.close()
