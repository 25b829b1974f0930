"""Certificates on real loopback connections: who is shown which, and what a bad file does."""

import os
import struct
import tempfile
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.documents import MARK
from odingw.errors import ConfigError
from odingw.web.tls import CertificateFiles, ReloadingContextFactory

NAME: Final = "gateway.test"
_DONE: Final = Failure(ConnectionDone())

FFDHE2048: Final = b"""-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""RFC 7919, appendix A.1."""


class Talker(Protocol):
    """A client that says something and waits for what comes back."""

    transport: Any

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()
        self._received = b""
        self._wanted = 0
        self._waiting: Deferred[bytes] | None = None

    def ask(self, question: bytes, length: int | None = None) -> Deferred[bytes]:
        """Say it and wait for that many bytes, by default as many as were said."""
        self.transport.write(question)
        self._wanted = len(question) if length is None else length
        self._waiting = Deferred()
        return self._waiting

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  -- Twisted's name
        self._received += data
        if self._waiting is not None and len(self._received) >= self._wanted:
            waiting, self._waiting = self._waiting, None
            answer, self._received = self._received, b""
            waiting.callback(answer)

    def connectionLost(self, reason: Failure = _DONE) -> None:  # noqa: N802  -- likewise
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.errback(reason)
        self.lost.callback(None)

    def serial(self) -> int:
        """The serial number of the server's certificate, once an answer is there."""
        number: int = Certificate.peerFromTransport(self.transport).serialNumber()
        return number


class Answers(Factory):
    """Echoes, and knows when its connections have ended."""

    noisy = False

    def __init__(self, protocol: Callable[[], Protocol] = Echo) -> None:
        self.make = protocol
        self.made: list[Protocol] = []
        self.ended: list[Deferred[None]] = []

    def buildProtocol(self, addr: object) -> Protocol:  # noqa: N802  -- likewise
        protocol = self.make()
        ended: Deferred[None] = Deferred()
        inherited = protocol.connectionLost

        def connection_lost(reason: Failure = _DONE) -> None:
            inherited(reason)
            ended.callback(None)

        protocol.connectionLost = connection_lost  # type: ignore[method-assign]  # to see the end
        self.made.append(protocol)
        self.ended.append(ended)
        return protocol


class LoopbackCase(TestCase):
    """Servers and clients in this process; at a test's end all connections have ended."""

    def setUp(self) -> None:
        self.ca = trustme.CA()
        self.folder = temporary_folder(self)

    async def serve(self, endpoint: Any, answers: Answers | None = None) -> Any:
        """Listen; returns the port's address."""
        answers = answers or Answers()
        port = await endpoint.listen(answers)
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: gatherResults(answers.ended))
        return port.getHost()

    async def dial(self, endpoint: Any) -> Talker:
        """Connect, with a cleanup that hangs up."""
        talker = Talker()
        await connectProtocol(endpoint, talker)

        def hang_up() -> Deferred[None]:
            if not talker.lost.called:
                talker.transport.abortConnection()
            return talker.lost

        self.addCleanup(hang_up)
        return talker

    def trusting(self, port: int, ca: trustme.CA | None = None, name: str = NAME) -> Any:
        """An endpoint that verifies the server's certificate and name."""
        root = Certificate.loadPEM((ca or self.ca).cert_pem.bytes())
        options = optionsForClientTLS(name, trustRootFromCertificates([root]))
        plain: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        return wrapClientTLS(options, plain)

    def write(self, name: str, *parts: bytes) -> Path:
        """Put a file in place as one that renews does: atomically."""
        path, new = self.folder / name, self.folder / f"{name}.new"
        new.write_bytes(b"".join(parts))
        return new.rename(path)

    def issue(self, **options: Any) -> trustme.LeafCert:
        """Make a certificate without touching the files."""
        return self.ca.issue_cert(NAME, **options)

    def store(self, leaf: trustme.LeafCert) -> CertificateFiles:
        """Put a certificate with its chain, and its key, in place."""
        chain = (pem.bytes() for pem in leaf.cert_chain_pems)
        certificate = self.write("fullchain.pem", *chain)
        return CertificateFiles(
            private_key=self.write("privkey.pem", leaf.private_key_pem.bytes()),
            certificate=certificate,
        )


def temporary_folder(case: SynchronousTestCase) -> Path:
    """A folder that goes with the test; its path is short enough for sockets."""
    folder = tempfile.TemporaryDirectory()
    case.addCleanup(folder.cleanup)
    return Path(folder.name)


def serial(leaf: trustme.LeafCert) -> int:
    """The serial number of a certificate."""
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number


def client_hello(version: int, *offered: int) -> bytes:
    """A ClientHello that offers no version above this one (RFC 5246, 7.4.1.2)."""
    suites = b"".join(struct.pack("!H", suite) for suite in offered)
    groups = struct.pack("!HHHH", 10, 4, 2, 23)
    signatures = struct.pack("!HHHHH", 13, 6, 4, 0x0403, 0x0401)
    extensions = groups + signatures
    body = struct.pack("!H32sB", version, os.urandom(32), 0)
    body += struct.pack("!H", len(suites)) + suites + b"\x01\x00"
    body += struct.pack("!H", len(extensions)) + extensions
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return struct.pack("!BHH", 22, 0x0301, len(handshake)) + handshake


class RenewalTests(LoopbackCase):
    def setUp(self) -> None:
        super().setUp()
        self.old = self.issue()
        self.new = self.issue()
        self.contexts = ReloadingContextFactory(self.store(self.old))

    async def shown(self, port: int) -> int:
        """The serial number that a new client is shown."""
        talker = await self.dial(self.trusting(port))
        self.assertEqual(await talker.ask(b"hello"), b"hello")
        return talker.serial()

    async def start(self) -> int:
        host = await self.serve(SSL4ServerEndpoint(reactor, 0, self.contexts))
        port: int = host.port
        return port

    async def test_renewed(self) -> None:
        """An open connection goes on; the next one is shown the new certificate."""
        port = await self.start()
        before = await self.dial(self.trusting(port))
        self.assertEqual(await before.ask(b"one"), b"one")
        self.store(self.new)
        self.assertEqual(await self.shown(port), serial(self.old))
        self.assertTrue(self.contexts.poll())
        self.assertEqual(await self.shown(port), serial(self.new))
        self.assertEqual(await before.ask(b"two"), b"two")
        self.assertEqual(before.serial(), serial(self.old))

    async def test_key_comes_late(self) -> None:
        """A certificate whose key is not there yet waits for it, with the old one in force."""
        port = await self.start()
        self.write("fullchain.pem", self.new.cert_chain_pems[0].bytes())
        for _ in range(2):
            error = self.assertRaises(ConfigError, self.contexts.poll)
            self.assertIn("does not fit", str(error))
        self.assertEqual(await self.shown(port), serial(self.old))
        self.write("privkey.pem", self.new.private_key_pem.bytes())
        self.assertTrue(self.contexts.poll())
        self.assertEqual(await self.shown(port), serial(self.new))

    async def test_older_interface(self) -> None:
        """Who asks for a context instead of a connection is served as well."""

        @implementer(IOpenSSLContextFactory)
        class OldStyle:
            getContext = self.contexts.getContext  # noqa: N815  -- the interface's name

        host = await self.serve(SSL4ServerEndpoint(reactor, 0, OldStyle()))
        self.store(self.new)
        self.assertTrue(self.contexts.reload())
        self.assertEqual(await self.shown(host.port), serial(self.new))

    def test_quiet(self) -> None:
        """Nothing happens while nothing changes, nor for a file that is written as it was."""
        self.assertFalse(self.contexts.poll())
        self.assertFalse(self.contexts.reload())
        context = self.contexts.getContext()
        self.store(self.old)
        self.assertFalse(self.contexts.poll())
        self.assertIs(self.contexts.getContext(), context)

    def test_symbolic_link(self) -> None:
        """Renewal by pointing links elsewhere is seen, and so is one of what they point to."""
        for name in ("fullchain.pem", "privkey.pem"):
            (self.folder / name).rename(self.folder / f"1-{name}")
            (self.folder / name).symlink_to(f"1-{name}")
        self.assertFalse(self.contexts.poll())
        self.write("2-fullchain.pem", self.new.cert_chain_pems[0].bytes())
        self.write("2-privkey.pem", self.new.private_key_pem.bytes())
        for name in ("fullchain.pem", "privkey.pem"):
            (self.folder / f"{name}.link").symlink_to(f"2-{name}")
            (self.folder / f"{name}.link").rename(self.folder / name)
        self.assertTrue(self.contexts.poll())
        self.write("2-privkey.pem", self.old.private_key_pem.bytes())
        self.write("2-fullchain.pem", self.old.cert_chain_pems[0].bytes())
        self.assertTrue(self.contexts.poll())

    def test_removed_and_back(self) -> None:
        """A file that is away keeps the old certificate, and may come back unchanged."""
        path = self.contexts.files.certificate
        path.rename(self.folder / "away")
        self.assertRaises(ConfigError, self.contexts.poll)
        self.assertRaises(ConfigError, self.contexts.reload)
        (self.folder / "away").rename(path)
        self.assertFalse(self.contexts.poll())

    def test_expired(self) -> None:
        """An expired certificate is served, and says so."""
        until = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
        self.store(self.issue(not_before=until - timedelta(days=9), not_after=until))
        self.assertGreater(self.contexts.not_after, until)
        self.assertTrue(self.contexts.poll())
        self.assertEqual(self.contexts.not_after, until)


class HandshakeTests(LoopbackCase):
    async def start(self, files: CertificateFiles) -> int:
        contexts = ReloadingContextFactory(files)
        host = await self.serve(SSL4ServerEndpoint(reactor, 0, contexts))
        port: int = host.port
        return port

    async def test_intermediate(self) -> None:
        """A client that knows the root alone is sent the certificates in between, each once.

        Files that editors on Windows wrote, and were put together, have byte order marks.
        """
        leaf = self.ca.create_child_ca().issue_cert(NAME)
        own, between = (pem.bytes() for pem in leaf.cert_chain_pems)
        key = self.write("key.pem", leaf.private_key_pem.bytes())
        alone, full = self.write("cert.pem", own), self.write("full.pem", own, between)
        chain = self.write("chain.pem", between)
        marked = self.write("marked.pem", MARK, own, MARK, between, MARK)
        for certificate, more in ((full, None), (alone, chain), (full, full), (marked, None)):
            port = await self.start(CertificateFiles(key, certificate, more))
            talker = await self.dial(self.trusting(port))
            self.assertEqual(await talker.ask(b"hello"), b"hello", (certificate, more))
            sent = talker.transport.getHandle().get_peer_cert_chain()
            self.assertEqual(len(sent), 2, (certificate, more))
        port = await self.start(CertificateFiles(key, alone))
        talker = await self.dial(self.trusting(port))
        await self.assertFailure(talker.ask(b"hello"), SSL.Error)

    async def test_name(self) -> None:
        """The clients of these tests do look at the name and at the authority."""
        port = await self.start(self.store(self.issue()))
        for client, error in (
            (self.trusting(port, name="other.test"), VerificationError),
            (self.trusting(port, ca=trustme.CA()), SSL.Error),
        ):
            talker = await self.dial(client)
            await self.assertFailure(talker.ask(b"hello"), error)

    async def test_one_file(self) -> None:
        """Key and certificate may share a file, in either order."""
        leaf = self.issue()
        key, own = leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
        for parts in ((key, own), (own, key)):
            path = self.write("server.pem", *parts)
            port = await self.start(CertificateFiles(path, path))
            talker = await self.dial(self.trusting(port))
            self.assertEqual(await talker.ask(b"hello"), b"hello")

    async def test_old_versions(self) -> None:
        """Below TLS 1.2 there is only the alert "protocol version" (RFC 5246, 7.2)."""
        port = await self.start(self.store(self.issue()))
        plain = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        for version, expected in ((0x0301, 21), (0x0302, 21), (0x0303, 22)):
            talker = await self.dial(plain)
            answer = await talker.ask(client_hello(version, 0xC02B, 0xC009), 7)
            self.assertEqual(answer[0], expected, (version, answer))
            if expected == 21:
                self.assertEqual(answer[5:], b"\x02\x46")

    def test_finite_field(self) -> None:
        """The parameters that are given are those of the ServerKeyExchange (RFC 5246, 7.4.3)."""
        files = self.store(self.issue(key_type=trustme.KeyType.RSA))
        parameters = self.write("dh.pem", FFDHE2048)
        prime = b64decode(b"".join(FFDHE2048.splitlines()[1:-1]))[9:-3]
        self.assertEqual(len(prime), 256)
        files = CertificateFiles(files.private_key, files.certificate, None, parameters)
        server = SSL.Connection(ReloadingContextFactory(files).getContext())
        server.set_accept_state()
        server.bio_write(client_hello(0x0303, 0x009E))
        self.assertRaises(SSL.WantReadError, server.do_handshake)
        self.assertIn(prime, server.bio_read(1 << 16))


class BadFilesTests(SynchronousTestCase):
    """What cannot be used is refused with one line: which file, what is wrong, what is wanted."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        leaf = trustme.CA().issue_cert(NAME)
        self.key = leaf.private_key_pem.bytes()
        self.own = leaf.cert_chain_pems[0].bytes()

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def weak(self) -> tuple[bytes, bytes]:
        """A key that is too short for OpenSSL, and its certificate."""
        key = rsa.generate_private_key(65537, 1024)  # noqa: S505  -- it is to be refused
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private, certificate.public_bytes(Encoding.PEM)

    def test_refused(self) -> None:
        good_key, good = self.file("good.key", self.key), self.file("good.pem", self.own)
        encrypted = load_pem_private_key(self.key, None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
        )
        other = trustme.CA().issue_cert(NAME)
        text = self.file("text", b"not PEM at all")
        weak_key, weak = self.weak()
        missing = self.folder / "missing"
        not_key = self.file("not.key", self.own)
        not_cert = self.file("not.pem", self.key)
        secret = self.file("secret.key", encrypted)
        other_cert = self.file("other.pem", other.cert_chain_pems[0].bytes())
        cut = self.file("cut.pem", self.own + self.own[:-40])
        short = self.file("short.pem", weak)
        short_key = self.file("short.key", weak_key)
        odd = self.folder / "a\nb"
        own_key = load_pem_private_key(self.key, None)
        own = x509.load_pem_x509_certificate(self.own)
        der_key = self.file(
            "der.key",
            own_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        )
        der = self.file("der.pem", own.public_bytes(Encoding.DER))
        table: list[tuple[CertificateFiles, Path, str]] = [
            (CertificateFiles(missing, good), missing, "No such file"),
            (CertificateFiles(good_key, missing), missing, "No such file"),
            (CertificateFiles(good_key, good, missing), missing, "No such file"),
            (CertificateFiles(good_key, good, None, missing), missing, "No such file"),
            (CertificateFiles(self.folder, good), self.folder, "Is a directory"),
            (CertificateFiles(Path("a\0b"), good), Path("a\0b"), "cannot be a file's name"),
            (CertificateFiles(odd, good), odd, "No such file"),
            (CertificateFiles(text, good), text, "no usable private key"),
            (CertificateFiles(not_key, good), not_key, "no usable private key"),
            (CertificateFiles(secret, good), secret, "without a passphrase"),
            (CertificateFiles(good_key, text), text, "no usable certificate"),
            (CertificateFiles(der_key, good), der_key, "with: openssl pkey -inform DER -in FILE"),
            (CertificateFiles(good_key, der), der, "with: openssl x509 -inform DER -in FILE"),
            (CertificateFiles(good_key, not_cert), not_cert, "no usable certificate"),
            (CertificateFiles(good_key, cut), cut, "cut off"),
            (CertificateFiles(good_key, good, text), text, "no usable certificate"),
            (CertificateFiles(good_key, good, None, text), text, "openssl dhparam"),
            (CertificateFiles(good_key, other_cert), good_key, "does not fit"),
            (CertificateFiles(short_key, short), short, "key too small"),
        ]
        for files, culprit, words in table:
            line = str(self.assertRaises(ConfigError, ReloadingContextFactory, files))
            self.assertTrue(line.startswith(f"{str(culprit)!r}: "), line)
            self.assertIn(words, line)
            self.assertEqual(len(line.splitlines()), 1, line)
            for block in (self.key, encrypted, weak_key):
                self.assertNotIn(block.splitlines()[1].decode(), line)
