"""Endpoint strings: what they open on the loopback interface, and what is refused."""

import os
import socket
import stat
import subprocess
import sys
from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    quoteStringArgument,
)
from twisted.internet.error import CannotListenError, ConnectionClosed
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import ConfigError
from odingw.web.endpoints import Listener, listener
from odingw.web.tls import CertificateFiles
from tests.test_tls import NAME, Answers, LoopbackCase, Talker, serial, temporary_folder

LOCAL: Final = "interface=127.0.0.1"
PROXY_LINE: Final = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"


def listen(entry: Listener, factory: Factory | None = None) -> Any:
    """Listen; the type checker does not see through zope's interfaces."""
    endpoint: Any = entry.endpoint
    return endpoint.listen(factory or Answers())


class WhoAmI(Protocol):
    """Tells the client its address, and whether the connection is a secure one."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  -- Twisted's name
        peer = self.transport.getPeer()
        kind = "secure" if ISSLTransport.providedBy(self.transport) else "plain"
        self.transport.write(f"{peer.host} {peer.port} {kind}".encode())


class TcpTests(LoopbackCase):
    def parse(self, description: str, **options: Any) -> Listener:
        return listener(reactor, description, tls=None, **options)

    async def test_tcp(self) -> None:
        entry = self.parse(f"tcp:0:{LOCAL}")
        self.assertEqual((entry.description, entry.tls), (f"tcp:0:{LOCAL}", None))
        self.assertFalse(entry.proxied)
        host = await self.serve(entry.endpoint)
        self.assertEqual(host.host, "127.0.0.1")
        talker = await self.dial(TCP4ClientEndpoint(reactor, "127.0.0.1", host.port))
        self.assertEqual(await talker.ask(b"hello"), b"hello")

    async def test_version_6(self) -> None:
        """IPv6 is there through ``tcp6:``, and through an address in ``tcp:``."""
        for description in (r"tcp6:0:interface=\:\:1", r"tcp:0:interface=\:\:1", r"tcp:0:\:\:1"):
            for reuse_port in (False, True):
                entry = self.parse(description, reuse_port=reuse_port)
                host = await self.serve(entry.endpoint)
                self.assertEqual(host.host, "::1")
                talker = await self.dial(TCP6ClientEndpoint(reactor, "::1", host.port))
                self.assertEqual(await talker.ask(b"hello"), b"hello")

    async def test_proxied(self) -> None:
        """The peer is the one that the PROXY line names."""
        entry = self.parse(f"haproxy:tcp:0:{LOCAL}")
        self.assertTrue(entry.proxied)
        host = await self.serve(entry.endpoint, Answers(WhoAmI))
        talker = await self.dial(TCP4ClientEndpoint(reactor, "127.0.0.1", host.port))
        expected = b"192.0.2.7 56324 plain"
        self.assertEqual(await talker.ask(PROXY_LINE + b"who?", len(expected)), expected)

    async def test_proxy_line_missing(self) -> None:
        """Who comes without a PROXY line is not served."""
        host = await self.serve(self.parse(f"haproxy:tcp:0:{LOCAL}").endpoint)
        talker = await self.dial(TCP4ClientEndpoint(reactor, "127.0.0.1", host.port))
        await self.assertFailure(talker.ask(b"GET / HTTP/1.1\r\n\r\n"), ConnectionClosed)

    async def test_shared_port(self) -> None:
        """Two listen on one port; when the first goes, the second is reached."""
        first, second = Answers(), Answers()
        port = await listen(self.parse(f"tcp:0:{LOCAL}", reuse_port=True), first)
        number = port.getHost().port
        again = f"tcp:{number}:{LOCAL}"
        await self.serve(self.parse(again, reuse_port=True).endpoint, second)
        await self.assertFailure(listen(self.parse(again)), CannotListenError)
        await port.stopListening()
        talker = await self.dial(TCP4ClientEndpoint(reactor, "127.0.0.1", number))
        self.assertEqual(await talker.ask(b"hello"), b"hello")
        self.assertEqual((len(first.made), len(second.made)), (0, 1))

    async def test_in_use(self) -> None:
        host = await self.serve(self.parse(f"tcp:0:{LOCAL}").endpoint)
        again = self.parse(f"tcp:{host.port}:{LOCAL}")
        await self.assertFailure(listen(again), CannotListenError)


class SslTests(LoopbackCase):
    def setUp(self) -> None:
        super().setUp()
        self.leaf = self.issue()
        self.files = self.store(self.leaf)

    def parse(self, description: str, **options: Any) -> Listener:
        return listener(reactor, description, tls=self.files, **options)

    async def shown(self, entry: Listener) -> int:
        """Listen, connect, and tell the serial number of the certificate."""
        host = await self.serve(entry.endpoint)
        talker = await self.dial(self.trusting(host.port))
        self.assertEqual(await talker.ask(b"hello"), b"hello")
        return talker.serial()

    async def test_configured_certificate(self) -> None:
        entry = self.parse(f"ssl:0:{LOCAL}")
        self.assertEqual(await self.shown(entry), serial(self.leaf))
        self.assertFalse(entry.proxied)

    async def test_own_certificate(self) -> None:
        """Paths of the string come before the configured ones; odd ones are quoted."""
        own = self.issue()
        key, certificate = own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
        odd = quoteStringArgument(str(self.write("a:b=c\\d", key, certificate)))
        both = odd.replace("=", r"\=")
        alone = quoteStringArgument(str(self.write("key.pem", key)))
        other = quoteStringArgument(str(self.write("cert.pem", certificate)))
        for arguments in (
            f"0:{LOCAL}:privateKey={odd}",
            f"port=0:{LOCAL}:privateKey={alone}:certKey={other}",
            f"0:{alone}:{other}:{LOCAL}",
            f"0:{both}:{LOCAL}",
        ):
            self.assertEqual(await self.shown(self.parse(f"ssl:{arguments}")), serial(own))

    async def test_chain(self) -> None:
        """A chain in the string completes the configured certificate."""
        leaf = self.ca.create_child_ca().issue_cert(NAME)
        own, between = (pem.bytes() for pem in leaf.cert_chain_pems)
        self.write("privkey.pem", leaf.private_key_pem.bytes())
        self.write("fullchain.pem", own)
        chain = quoteStringArgument(str(self.write("chain.pem", between)))
        entry = self.parse(f"ssl:0:{LOCAL}:extraCertChain={chain}")
        self.assertEqual(await self.shown(entry), serial(leaf))

    async def test_renewal(self) -> None:
        """The same port shows a renewed certificate after a poll."""
        entry = self.parse(f"ssl:0:{LOCAL}")
        host = await self.serve(entry.endpoint)
        renewed = self.issue()
        self.store(renewed)
        if entry.tls is None:
            self.fail("an ssl: endpoint has a certificate")
        self.assertTrue(entry.tls.poll())
        talker = await self.dial(self.trusting(host.port))
        self.assertEqual(await talker.ask(b"hello"), b"hello")
        self.assertEqual(talker.serial(), serial(renewed))

    async def test_proxied(self) -> None:
        """The PROXY line comes in clear, before the handshake, as proxies send it."""
        entry = self.parse(f"haproxy:ssl:0:{LOCAL}")
        self.assertTrue(entry.proxied)
        self.assertIsNotNone(entry.tls)
        host = await self.serve(entry.endpoint, Answers(WhoAmI))
        talker = await self.dial(TCP4ClientEndpoint(reactor, "127.0.0.1", host.port))
        talker.transport.write(PROXY_LINE)
        root = Certificate.loadPEM(self.ca.cert_pem.bytes())
        talker.transport.startTLS(optionsForClientTLS(NAME, trustRootFromCertificates([root])))
        expected = b"192.0.2.7 56324 secure"
        self.assertEqual(await talker.ask(b"who?", len(expected)), expected)
        self.assertEqual(talker.serial(), serial(self.leaf))

    async def test_shared_port(self) -> None:
        host = await self.serve(self.parse(f"ssl:0:{LOCAL}", reuse_port=True).endpoint)
        again = self.parse(f"ssl:{host.port}:{LOCAL}", reuse_port=True)
        self.assertEqual(await self.shown(again), serial(self.leaf))


class UnixTests(LoopbackCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "web.sock"
        self.lock = self.folder / "web.sock.lock"

    def parse(self, more: str = "", prefix: str = "") -> Listener:
        description = f"{prefix}unix:{quoteStringArgument(str(self.path))}{more}"
        return listener(reactor, description, tls=None, reuse_port=True)

    async def dial_path(self) -> Talker:
        return await self.dial(UNIXClientEndpoint(reactor, str(self.path)))

    async def assert_served(self, more: str = "") -> None:
        await self.serve(self.parse(more).endpoint)
        talker = await self.dial_path()
        self.assertEqual(await talker.ask(b"hello"), b"hello")

    def left_behind(self) -> None:
        """Leave a socket as a process does that is killed."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))
            dead.listen()

    async def test_comes_and_goes(self) -> None:
        for more, mode, locked in (("", 0o666, True), (":mode=660:lockfile=0", 0o660, False)):
            port = await listen(self.parse(more))
            found = self.path.stat().st_mode
            self.assertTrue(stat.S_ISSOCK(found))
            self.assertEqual((stat.S_IMODE(found), self.lock.is_symlink()), (mode, locked))
            await port.stopListening()
            self.assertEqual(list(self.folder.iterdir()), [])

    async def test_proxied(self) -> None:
        await self.serve(self.parse(prefix="haproxy:").endpoint, Answers(WhoAmI))
        talker = await self.dial_path()
        expected = b"192.0.2.7 56324 plain"
        self.assertEqual(await talker.ask(PROXY_LINE + b"who?", len(expected)), expected)

    async def test_left_behind(self) -> None:
        """A socket that nobody listens on is replaced, with or without lock files."""
        for more in ("", ":lockfile=0"):
            self.left_behind()
            port = await listen(self.parse(more))
            await port.stopListening()
        self.left_behind()
        await self.assert_served()

    async def test_killed(self) -> None:
        """What a process leaves that is killed while it listens."""
        program = (
            "import os, sys, signal\n"
            "from twisted.internet import reactor\n"
            "from twisted.internet.protocol import Factory\n"
            "reactor.listenUNIX(sys.argv[1], Factory(), wantPID=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        subprocess.run([sys.executable, "-c", program, str(self.path)], check=False)
        self.assertTrue(self.path.is_socket() and self.lock.is_symlink())
        await self.assert_served()

    async def test_lock_of_our_number(self) -> None:
        """In a container the process after a crash may have the number of the one before."""
        self.lock.symlink_to(str(os.getpid()))
        self.left_behind()
        await self.assert_served()

    async def test_lock_alone(self) -> None:
        """A lock beside which there is no socket locks nothing."""
        self.lock.symlink_to(str(os.getpid()))
        await self.assert_served()

    async def test_in_use(self) -> None:
        """A socket that somebody listens on is left alone."""
        await self.assert_served()
        for more in ("", ":lockfile=0"):
            error = await self.assertFailure(listen(self.parse(more)), CannotListenError)
            self.assertIn("another process listens", str(error))
        talker = await self.dial_path()
        self.assertEqual(await talker.ask(b"still"), b"still")

    async def test_no_socket(self) -> None:
        """Files, and sockets of other kinds, are left alone."""
        self.path.write_bytes(b"precious")
        error = await self.assertFailure(listen(self.parse()), CannotListenError)
        self.assertIn("no socket", str(error))
        self.assertEqual(self.path.read_bytes(), b"precious")
        self.path.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(str(self.path))
            await self.assertFailure(listen(self.parse()), CannotListenError)
            self.assertTrue(self.path.is_socket())

    async def test_no_folder(self) -> None:
        self.path = self.folder / "missing" / "web.sock"
        for more in ("", ":lockfile=0"):
            error = await self.assertFailure(listen(self.parse(more)), CannotListenError)
            self.assertIn("No such file or directory", str(error))
            self.assertEqual(len(str(error).splitlines()), 1)


class StringTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.reactor = MemoryReactorClock()

    def parse(self, description: str, tls: CertificateFiles | None = None) -> Listener:
        return listener(self.reactor, description, tls=tls)

    def test_arguments(self) -> None:
        """Arguments go by name, or in Twisted's order."""
        table = [
            ("tcp:80", (80, 1024, "")),
            ("tcp:port=80:backlog=7", (80, 7, "")),
            ("tcp:80:127.0.0.1:7", (80, 7, "127.0.0.1")),
            ("tcp:interface=localhost:80", (80, 1024, "localhost")),
            (r"tcp:80:interface=fe80\:\:1%eth0", (80, 1024, "fe80::1%eth0")),
            ("tcp6:80", (80, 1024, "::")),
            (r"tcp6:80:7:\:\:1", (80, 7, "::1")),
        ]
        for description, (port, backlog, interface) in table:
            listen(self.parse(description))
            served = self.reactor.tcpServers.pop()
            found = (served[0], served[2], served[3])
            self.assertEqual(found, (port, backlog, interface), description)

    def test_systemd(self) -> None:
        """The string is fine without systemd; that there is no socket shows when it is wanted."""
        for prefix in ("", "haproxy:"):
            for which in ("name=web", "index=0"):
                entry = self.parse(f"{prefix}systemd:domain=INET:{which}")
                self.assertEqual(entry.proxied, bool(prefix))
                failure = self.failureResultOf(listen(entry), CannotListenError)
                self.assertIn(f"systemd:{which}: systemd handed over no such", str(failure.value))

    def test_plugins(self) -> None:
        """Types that are not read here are Twisted's affair."""
        self.assertTrue(self.parse("stdio:").endpoint)
        self.assertTrue(self.parse(f"tls:{self.folder}").endpoint)

    def test_refused(self) -> None:
        """Each gives one line that says what is wrong and what is wanted."""
        (self.folder / "text").write_text("not PEM")
        text, missing = self.folder / "text", self.folder / "missing"
        table = [
            ("", "no endpoint type ''; known are "),
            (":80", "no endpoint type ''; known are "),
            ("7000", "no endpoint type '7000'; known are "),
            ("udp:80", "no endpoint type 'udp'; known are "),
            ("haproxy:", "no endpoint type ''"),
            ("haproxy:udp:80", "no endpoint type 'udp'"),
            ("haproxy:haproxy:tcp:80", "write it once"),
            ("tcp", "tcp: no port is given; write a number from 0 to 65535"),
            ("tcp:", "tcp: no port is given"),
            ("tcp:interface=127.0.0.1", "tcp: no port is given"),
            ("tcp:http", "tcp: port is 'http'; write a number from 0 to 65535"),
            ("tcp:-1", "port is '-1'"),
            ("tcp:65536", "port is '65536'"),
            ("tcp:1" + "0" * 5000, "port is '1000"),
            ("tcp:٨٠", "port is '٨٠'"),
            ("tcp:80\n", r"port is '80\n'"),
            ("tcp: 80", "port is ' 80'"),
            ("tcp:80:port=81", "port is given twice"),
            ("tcp:80:backlog=many", "backlog is 'many'; write a number"),
            (
                "tcp:80:interfaces=::",
                "no argument 'interfaces'; known are port, interface, backlog",
            ),
            ("tcp:80:interface=::1", r"a ':' within a value"),
            ("tcp:80:interface=[::1]", r"a ':' within a value"),
            (r"tcp:80:interface=[\:\:1]", "without brackets"),
            ("tcp:80:interface=a b", "interface 'a b' is no address"),
            ("tcp:80:interface=" + "a" * 64, "is no address"),
            ("tcp:80:127.0.0.1:50:more", "'more' is one argument too many"),
            ("tcp:80\\", "lone backslash"),
            ("ssl:443", "no certificate is configured; write privateKey="),
            ("ssl:443:certKey=cert.pem", "certKey stands without privateKey"),
            ("ssl:443:privateKey=", "privateKey is empty; write the path"),
            ("ssl:443:privateKey=k:sslmethod=TLSv1_METHOD", "TLS 1.2+ is always used"),
            (f"ssl:443:privateKey={missing}", f"ssl: '{missing}': No such file"),
            (f"ssl:443:privateKey={text}", f"ssl: '{text}': no usable private key"),
            (
                "ssl:443:cert=c",
                "known are port, privateKey, certKey, interface, backlog, extraCert",
            ),
            (f"haproxy:ssl:x:privateKey={text}", "port is 'x'"),
            ("unix:", "no path is given"),
            ("unix:mode=660", "no path is given"),
            ("unix:a\0b", "no path is given"),
            ("unix:/" + "a" * 200, "too long for a socket; at most 107 bytes"),
            ("unix:/s:mode=rw", "mode is 'rw'; write it in octal"),
            ("unix:/s:mode=999", "mode is '999'"),
            ("unix:/s:lockfile=yes", "lockfile is 'yes'; write a number from 0 to 1"),
            ("systemd:", "domain is ''; write INET, INET6 or UNIX"),
            ("systemd:domain=inet:name=web", "domain is 'inet'"),
            ("systemd:domain=INET", "write either name="),
            ("systemd:domain=INET:name=web:index=0", "write either name="),
            ("systemd:domain=INET:index=-1", "index is '-1'"),
            (f"tls:{self.folder}:port=x", "tls: invalid literal for int()"),
            ("tls:x:colour=red", "tls: got an unexpected keyword argument 'colour'"),
            ("tls", "tls: missing 1 required positional argument: 'path'"),
        ]
        for description, words in table:
            line = str(self.assertRaises(ConfigError, self.parse, description))
            self.assertIn(words, line, description)
            self.assertEqual(len(line.splitlines()), 1, line)
            self.assertLess(len(line), 300, line)

    def test_known_types(self) -> None:
        line = str(self.assertRaises(ConfigError, self.parse, "udp:80"))
        known = line.partition("known are ")[2].split(", ")
        for kind in ("haproxy", "ssl", "stdio", "systemd", "tcp", "tcp6", "tls", "unix"):
            self.assertIn(kind, known)
