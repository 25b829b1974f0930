"""Connections to a real Redis: who is let in, what is verified, what happens when it is away."""

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import trustme
import txredisapi  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.config import State
from odingw.errors import ConfigError
from odingw.state.redis.connector import Connector
from odingw.state.redis.errors import RedisRefusedError
from odingw.state.redis.link import REPLY_TIMEOUT, check_txredisapi
from odingw.state.redis.patience import Patience
from tests.link_case import LinkCase, pause, reactor, within_patience
from tests.process import free_port
from tests.redis_server import HOST, RedisServer

NAME: Final = "redis.test"
PASSWORD: Final = "s3cret:/@%"
SECRET: Final = "hunter2"


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
                self.build_command()

            def build_command(self) -> None: ...

        class Unused:
            def execute_command(self) -> None: ...

            def _build_command(self) -> None: ...

        for protocol in (Renamed, Unused, object):
            with self.assertRaises(ConfigError) as caught:
                check_txredisapi(protocol)
            self.assertIn("RedisProtocol._build_command", str(caught.exception))

    def test_a_start_looks_for_it(self) -> None:
        self.patch(txredisapi.RedisProtocol, "execute_command", lambda *_: None)
        self.assertRaises(ConfigError, Connector, State(url="redis://127.0.0.1/0"), reactor)


class PatienceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.overdue = 0
        self.patience = Patience(self.clock, 8.0, self.late)

    def late(self) -> None:
        self.overdue += 1

    def test_each_answer_has_its_time(self) -> None:
        """However many wait, and although others are answered meanwhile."""
        for second in range(40):
            self.patience.asked()
            if second >= 7:
                self.patience.answered()
            self.clock.advance(1)
        self.assertEqual(0, self.overdue)
        for second in range(9):
            self.patience.asked()
            if second % 3:
                self.patience.answered()
            self.clock.advance(1)
        self.assertTrue(self.overdue)

    def test_nothing_waits_when_all_is_answered(self) -> None:
        for _ in range(3):
            self.patience.asked()
            self.patience.answered()
        self.clock.pump([1] * 9)
        self.assertEqual((0, []), (self.overdue, self.clock.getDelayedCalls()))

    def test_time_that_stood_still(self) -> None:
        """It counts as one look, after which what has come in is read."""
        self.patience.asked()
        self.clock.advance(100)
        self.assertEqual(0, self.overdue)
        self.patience.answered()
        self.clock.advance(100)
        self.assertEqual(0, self.overdue)


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
        except RedisRefusedError as error:
            self.assertIn("wrong number of arguments", str(error))
            self.assertEqual("other", error.kind)
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
        connector = self.connector_of(f"redis://:{SECRET}@{HOST}:{server.port}")
        reason = await self.refusal(connector, "auth")
        self.assertIn("WRONGPASS", reason)
        self.assertNotIn(SECRET, reason)
        self.assertNotIn(PASSWORD, reason)

    async def test_no_password(self) -> None:
        server = self.server(password=PASSWORD)
        connector = self.connector_of(f"redis://{HOST}:{server.port}")
        self.assertIn("NOAUTH", await self.refusal(connector, "auth"))

    async def test_a_password_that_is_not_wanted(self) -> None:
        connector = self.connector_of(f"redis://:{SECRET}@{HOST}:{self.server().port}")
        self.assertNotIn(SECRET, await self.refusal(connector, "auth"))

    async def test_database(self) -> None:
        server = self.server()
        link = await self.link(self.connector(server, database=3))
        await link.execute("SET", "key", "value")
        self.assertEqual(0, server.command("EXISTS", "key"))
        self.assertEqual(1, server.command("EXISTS", "key", database=3))

    async def test_a_database_that_there_is_not(self) -> None:
        reason = await self.refusal(self.connector(self.server(), database=99), "other")
        self.assertIn("DB index is out of range", reason)

    async def test_nothing_listens(self) -> None:
        reason = await self.refusal(self.connector_of(f"redis://{HOST}:{free_port()}"))
        self.assertIn("refused", reason)

    async def test_refused_connections_are_closed(self) -> None:
        """Who is not let in leaves nothing behind."""
        server = self.server(password=PASSWORD)
        proxy = self.proxy(server)
        await self.refusal(self.connector_of(f"redis://:wrong@{HOST}:{proxy.port}"), "auth")
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

    async def test_a_certificate_of_this_gateway(self) -> None:
        """Redis that wants one gets it, with its key in the same file or in another one."""
        server = self.server(tls=True, client_certificate=True)
        pem = server.client_pem
        apart = pem.with_name("apart.pem")
        begin = pem.read_text().index("-----BEGIN CERTIFICATE-----")
        apart.write_text(pem.read_text()[begin:])
        for files in ({"certificate": pem}, {"certificate": apart, "private_key": pem}):
            connector = self.connector_of(server.url(), server.ca_path, **files)
            link = await self.link(connector)
            self.assertEqual(b"PONG", await link.execute("PING"))
        reason = await self.refusal(self.connector_of(server.url(), server.ca_path))
        self.assertIn("certificate required", reason)

    async def test_a_renewed_certificate_is_shown_from_the_next_connection_on(self) -> None:
        server = self.server(tls=True, client_certificate=True)
        old = trustme.CA().issue_cert("gateway").private_key_and_cert_chain_pem.bytes()
        new = server.client_pem.read_bytes()
        server.client_pem.write_bytes(old)
        connector = self.connector_of(server.url(), server.ca_path, certificate=server.client_pem)
        await self.refusal(connector)
        server.client_pem.write_text("gone")
        self.assertIn("state.certificate", await self.refusal(connector))
        server.client_pem.write_bytes(new)
        await self.link(connector)

    async def test_plain_server(self) -> None:
        server = self.server()
        await self.refusal(self.connector_of(f"rediss://localhost:{server.port}"))

    async def test_unusable_file(self) -> None:
        empty = self.authority()
        empty.write_text("no certificate")
        for path in (empty, empty.parent / "absent.pem", empty.parent):
            with self.assertRaisesRegex(ConfigError, r"state\.ca_file: .*" + path.name):
                self.connector_of("rediss://localhost", path)
            with self.assertRaisesRegex(ConfigError, r"state\.certificate: .*" + path.name):
                self.connector_of("rediss://localhost", certificate=path)

    async def test_unusable_key(self) -> None:
        """One that is none, that is encrypted, that others can write, or of another certificate."""
        folder = self.authority().parent
        ours, other = (trustme.CA().issue_cert("gateway") for _ in range(2))
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        ours.cert_chain_pems[0].write_to_path(certificate)
        plain = load_pem_private_key(ours.private_key_pem.bytes(), None)
        encrypted = plain.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
        )
        for content, reason in (
            (b"", "no private key"),
            (encrypted, "encrypted"),
            (other.private_key_pem.bytes(), "does not fit"),
        ):
            key.write_bytes(content)
            with self.assertRaisesRegex(ConfigError, reason):
                self.connector_of("rediss://localhost", certificate=certificate, private_key=key)
        key.write_bytes(ours.private_key_pem.bytes())
        self.connector_of("rediss://localhost", certificate=certificate, private_key=key)
        key.chmod(0o666)
        with self.assertRaisesRegex(ConfigError, "everybody on this host can write it"):
            self.connector_of("rediss://localhost", certificate=certificate, private_key=key)


class LossTests(LinkCase):
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
        answers = [link.execute("PING"), link.execute("TIME")]
        time.sleep(REPLY_TIMEOUT + 0.1)
        for answer in answers:
            await within_patience(answer)
        self.assertFalse(link.lost.called)

    async def test_redis_that_hangs_while_it_is_entered(self) -> None:
        server = self.server()
        connector = self.connector(server)
        server.pause()
        self.assertIn("response", await self.refusal(connector))

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

    async def test_closed(self) -> None:
        """Who closes it is told that it is lost, and may close it again."""
        link = await self.link(self.connector(self.server()))
        answer = link.execute("PING")
        link.close()
        await self.failure(answer)
        await within_patience(link.lost)
        link.close()
