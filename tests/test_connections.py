"""What a connection may make the gateway hold and do, whatever is sent over it and never read."""

import json
from itertools import product
from typing import Any, ClassVar, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import Limits
from odingw.rpc.jsonrpc import Reply
from odingw.web.app import gateway_root
from odingw.web.clients import ClientFiles
from odingw.web.endpoints import _ProxyFactory
from odingw.web.site import GatewaySite

FILE: Final = b"GET /clients/turnRestClient-2.0.0.js HTTP/1.1\r\nHost: x\r\n\r\n"
PING: Final = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
POST: Final = b"POST / HTTP/1.1\r\nHost: x\r\n"
CALL: Final = POST + b"Content-Length: 2\r\n\r\n{}"
LARGE: Final = Reply(200, b'"' + b"x" * 5_000_000 + b'"')
READ: Final = 65536
"""Bytes that one read of a socket brings at most."""


class Wire(FileDescriptor):
    """Twisted's own buffers of a connection, in front of a kernel that takes as much as it is told.

    Attributes:
        taken: what the kernel has.
        room: how many bytes more it takes.
    """

    connected = 1
    reactor: Any

    def __init__(self, room: int = 0) -> None:
        reactor: Any = MemoryReactorClock()
        super().__init__(reactor)
        self.reactor: Any = reactor
        self.taken = b""
        self.room = room
        self.gone = False

    def writeSomeData(self, data: bytes) -> int:  # noqa: N802  -- Twisted's name
        count = min(self.room, len(data))
        self.room -= count
        self.taken += bytes(data[:count])
        return count

    def read(self, count: int) -> None:
        """Have the kernel take so many bytes."""
        self.room += count
        while self.room and self in self.reactor.getWriters():
            self.doWrite()

    def abortConnection(self) -> None:  # noqa: N802  -- Twisted's name
        self.gone = True

    def loseWriteConnection(self) -> None:  # noqa: N802  -- Twisted's name
        self.gone = True

    def getPeer(self) -> Any:  # noqa: N802  -- Twisted's name
        return None

    @property
    def reads(self) -> bool:
        """Whether the peer's bytes are read."""
        return self in self.reactor.getReaders()

    @property
    def unsent(self) -> int:
        return len(self.dataBuffer) - self.offset + self._tempDataLen


class WireCase(SynchronousTestCase):
    """A site whose ``POST /`` has a large answer, and connections to it."""

    limits: ClassVar[Limits] = Limits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: list[Any] = []
        root = gateway_root({}, {}, "", (ClientFiles(lambda _: None).add_to,))
        root.short_cuts = {(b"POST", b"/"): (self.answer, False)}
        clock: Any = self.clock
        self.site = GatewaySite(root, self.limits, clock)
        self.site.startFactory()
        self.addCleanup(self.site.stopFactory)
        self.reply: Any = LARGE

    def answer(self, request: Any) -> Any:
        self.answers.append(request.content.getvalue())
        return self.reply

    def connect(self, room: int = 0) -> tuple[Any, Wire]:
        wire = Wire(room)
        channel: Any = self.site.buildProtocol(None)
        channel.makeConnection(wire)
        wire.startReading()
        return channel, wire

    def flood(self, channel: Any, wire: Wire, data: bytes, most: int = 3_000_000) -> int:
        """Send for as long as it is read, a socket's read at a time; return how much was."""
        stream = data * (READ // len(data) + 2)
        sent = 0
        while wire.reads and sent < most and not channel.refused:
            start = sent % len(data)
            channel.dataReceived(stream[start : start + READ])
            sent += READ
            self.clock.advance(0)
        return sent


class BackPressureTests(WireCase):
    """Of a peer that reads nothing, one read waits, and one reply is unsent."""

    def test_pipelines_of_every_kind(self) -> None:
        self.reply = Reply(200, b"{}")
        for data in (
            FILE,
            PING,
            CALL,
            FILE.replace(b"GET", b"HEAD"),
            PING.replace(b"GET", b"OPTIONS"),
            POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
            POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\nX: y\r\n\r\n",
            b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\r\n" + PING,
        ):
            channel, wire = self.connect()
            self.assertLessEqual(self.flood(channel, wire, data), 2 * READ, data)
            self.assertLess(wire.unsent, 30_000, data)
            self.assertLessEqual(channel.held, READ)
            # When it begins to read, all goes on.
            wire.read(100_000)
            self.clock.advance(0)
            self.assertGreater(wire.taken.count(b"HTTP/1.1 "), 3, data)
            self.assertLess(wire.unsent, 30_000, data)
            channel.connectionLost(Failure(ConnectionDone()))

    def test_a_large_reply_is_one(self) -> None:
        channel, wire = self.connect()
        self.flood(channel, wire, CALL)
        self.assertEqual(1, len(self.answers))
        self.assertLess(wire.unsent, len(LARGE.body or b"") + 1000)
        for _ in range(40):
            wire.read(500_000)
            self.clock.advance(0)
            self.assertLessEqual(len(self.answers), 1 + wire.taken.count(b'x"'))
            self.assertLess(wire.unsent, len(LARGE.body or b"") + 1000)
        self.assertGreater(len(self.answers), 3)

    def test_every_request_is_answered_in_order_however_slowly_it_is_read(self) -> None:
        self.reply = Reply(200, b"{}")
        requests = [
            POST + b"Content-Length: 4\r\n\r\n%4d" % number if number % 3 else PING
            for number in range(200)
        ]
        channel, wire = self.connect()
        channel.dataReceived(b"".join(requests))
        for _ in range(100_000):
            if not (channel.held or wire.unsent):
                break
            wire.read(7)
            self.clock.advance(0)
        wanted = [b"%4d" % number for number in range(200) if number % 3]
        self.assertEqual(wanted, self.answers)
        self.assertEqual(200, wire.taken.count(b"HTTP/1.1 200 OK"))
        self.assertTrue(wire.reads)

    def test_one_request_at_a_time_is_in_work(self) -> None:
        later: list[Deferred[Reply]] = []

        def answer(_: object) -> Deferred[Reply]:
            later.append(Deferred())
            return later[-1]

        self.site.short_cuts = {(b"POST", b"/"): (answer, False)}
        channel, wire = self.connect(room=10_000_000)
        self.assertLessEqual(self.flood(channel, wire, CALL), 2 * READ)
        for number in range(20):
            self.assertEqual(number + 1, len(later))
            self.assertFalse(wire.reads)
            later[-1].callback(Reply(200, b"{}"))
            wire.read(0)
            self.clock.advance(0)

    def test_a_peer_that_takes_its_reply_is_not_silent(self) -> None:
        channel, wire = self.connect()
        channel.dataReceived(PING * 2)
        self.clock.pump([1.0] * 50)
        wire.read(1000)
        self.clock.pump([1.0] * 50)
        self.assertFalse(wire.disconnecting)
        channel.dataReceived(PING)
        self.clock.pump([1.0] * int(Limits().idle_timeout + 10))
        self.assertTrue(wire.gone or wire.disconnecting)

    def test_a_request_that_waits_is_not_late(self) -> None:
        channel, wire = self.connect()
        channel.dataReceived(PING + PING[:10])
        self.clock.pump([1.0] * 5)
        channel.dataReceived(PING[10:])
        self.clock.pump([1.0] * 20)
        self.assertFalse(wire.gone)
        wire.read(10_000)
        self.clock.advance(0)
        self.assertEqual(2, wire.taken.count(b"pong"))

    def test_an_empty_line_between_requests_begins_none(self) -> None:
        channel, wire = self.connect(10_000)
        for piece in (PING, b"\r", b"\n"):
            channel.dataReceived(piece)
            wire.read(0)
        self.clock.pump([1.0] * 20)
        self.assertFalse(wire.gone)

    def test_behind_a_proxy_line(self) -> None:
        wire = Wire()
        site: Any = self.site
        factory: Any = _ProxyFactory(site, self.clock, 10.0)
        proxied: Any = factory.buildProtocol(None)
        proxied.makeConnection(wire)
        wire.startReading()
        proxied.dataReceived(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + CALL * 100)
        self.clock.advance(0)
        self.assertEqual((1, False), (len(self.answers), wire.reads))
        wire.read(10_000_000)
        self.clock.advance(0)
        self.assertEqual(2, len(self.answers))


class HeldTests(WireCase):
    """What is not complete costs about what it has, and all of it together is bounded."""

    limits = Limits(unfinished_bytes=1_000_000)

    def total(self) -> int:
        return sum(channel.held for channel in self.site.channels)

    def test_the_oldest_goes_first(self) -> None:
        half = POST + b"Content-Length: 65536\r\n\r\n" + b"x" * 65000
        begun = [self.connect(room=10_000) for _ in range(40)]
        for number, (channel, _) in enumerate(begun):
            channel.dataReceived(half[:1000])
            channel.dataReceived(half[1000:])
            self.assertLessEqual(self.total(), 1_000_000, number)
        for _, wire in begun:
            wire.read(0)
        refused = [channel.refused for channel, _ in begun]
        self.assertEqual(sorted(refused, reverse=True), refused)
        self.assertEqual(40 - 15, refused.count(True))
        wire = begun[0][1]
        self.assertIn(b"503 Service Unavailable", wire.taken)
        self.assertIn(b"Retry-After: 1", wire.taken)
        self.assertEqual(-32053, json.loads(wire.taken.partition(b"\r\n\r\n")[2])["error"]["code"])
        # Who sends the rest is answered.
        channel, wire = begun[-1]
        channel.dataReceived(b"x" * 536)
        self.clock.advance(0)
        self.assertEqual(1, len(self.answers))
        for channel, _ in begun:
            channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(0, self.site._held)
        self.assertEqual({}, self.site._holders)

    def test_everything_that_waits_counts(self) -> None:
        for data in (
            b"GET / HTTP/1.1\r\nX: " + b"y" * 16000,
            POST + b"Transfer-Encoding: chunked\r\n\r\n8000\r\n" + b"x" * 30_000,
            POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"a: b\r\n" * 2000,
            CALL * 500,
        ):
            for _ in range(100):
                channel, _ = self.connect()
                channel.dataReceived(data)
                self.assertLessEqual(self.total(), 1_000_000, data[:50])
                self.assertEqual(self.total(), self.site._held)
            for channel in list(self.site.channels):
                channel.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(0, self.site._held)

    def test_short_headers_count_for_what_they_take(self) -> None:
        headers = b"".join(b"h%d:\r\n" % number for number in range(490))
        for _ in range(40):
            channel, _ = self.connect()
            channel.dataReceived(POST + b"Content-Length: 65000\r\n" + headers + b"\r\n")
        refused = [channel.refused for channel in self.site.channels]
        self.assertIn(refused.count(False), range(10, 16))

    def test_trailers_are_bounded_as_headers_are(self) -> None:
        start = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
        for trailers in (b"a: b\r\n" * 3000, b"a: " + b"b" * 17000):
            for size in (1, 1000, len(trailers)):
                channel, wire = self.connect(room=10_000)
                channel.dataReceived(start)
                for begin in range(0, len(trailers), size):
                    channel.dataReceived(trailers[begin : begin + size])
                wire.read(0)
                self.assertIn(b" 400 ", wire.taken)

    def test_nothing_is_made_of_headers_before_all_are_here(self) -> None:
        channel, _ = self.connect()
        channel.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 400)
        self.assertEqual([], channel.requests)

    def test_small_chunks_are_taken_in_turns(self) -> None:
        """Others wait for no more than a piece of them."""
        self.clock.rightNow = 1.0

        def seconds() -> float:
            self.clock.rightNow += 0.003
            return self.clock.rightNow

        self.site.timer.seconds = seconds  # type: ignore[method-assign]
        channel, wire = self.connect(room=10_000)
        channel.dataReceived(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000)
        self.assertFalse(wire.reads)
        self.assertGreater(channel.held, 10_000)


class ProxyHeaderTests(WireCase):
    """A header of the PROXY protocol is as long as proxies make them, and no longer."""

    VERSION_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    ADDRESSES = b"\xc0\0\2\1\xc0\0\2\2\0\1\0\2"

    def taken(self, *pieces: bytes) -> bytes:
        wire = Wire(100_000)
        site: Any = self.site
        factory: Any = _ProxyFactory(site, self.clock, 10.0)
        proxied: Any = factory.buildProtocol(None)
        proxied.makeConnection(wire)
        for piece in pieces:
            if not wire.disconnecting:
                proxied.dataReceived(piece)
        wire.read(0)
        return wire.taken

    def test_version_2(self) -> None:
        for more, answered in ((0, True), (3000, True), (5000, False), (65_000, False)):
            header = self.VERSION_2 + (12 + more).to_bytes(2, "big") + self.ADDRESSES + b"x" * more
            for pieces in ((header + PING,), (header[:20], header[20:30], header[30:] + PING)):
                self.assertEqual(answered, b"pong" in self.taken(*pieces), more)

    def test_version_1(self) -> None:
        for more, answered in ((0, True), (80, True), (100, False), (60_000, False)):
            header = b"PROXY UNKNOWN " + b"x" * more + b"\r\n"
            for pieces in ((header + PING,), (header[:10], header[10:] + PING)):
                self.assertEqual(answered, b"pong" in self.taken(*pieces), more)


class HostTests(WireCase):
    """RFC 9112, section 3.2: a request says once, and well, whom it is for."""

    GOOD = (
        b"x",
        b"",
        b"example.com",
        b"EXAMPLE.com:443",
        b"a_b:7000",
        b"my-service.default.svc.",
        b"a..b",
        b"x" * 64,
        b"127.0.0.1:80",
        b"[::1]",
        b"[2001:DB8::1]:7000",
        b"[::ffff:127.0.0.1]:",
        b"x:",
        b"a%41",
        b"a,b;c=d!$&'()*+~",
    )
    BAD = (
        b"a b",
        b"a,\tb",
        b"evil@127.0.0.1",
        b"u:p@127.0.0.1",
        b"@x",
        b"x/",
        b"http://x",
        b"x?y",
        b"x#y",
        b"x\\y",
        b"::1",
        b"x:80:80",
        b"x:8a",
        b"x:-1",
        b":80",
        b"[::1",
        b"::1]",
        b"[]",
        b"[x]",
        b"[127.0.0.1]",
        b"[::1]x",
        b"[::1%25lo]",
        b"[1:2]",
        b"x%",
        b"x%4",
        b"x%zz",
        b"\xc3\xa9",
        b'"x"',
        b"<x>",
        b"x|y",
        b"x\x7fy",
        b"{x}",
    )

    def status(self, head: bytes) -> tuple[int, bool]:
        """Send a request without body; return the status, and whether the connection ends."""
        channel, wire = self.connect(room=100_000)
        channel.dataReceived(head + b"\r\n\r\n")
        wire.read(0)
        reply = wire.taken
        channel.connectionLost(Failure(ConnectionDone()))
        if b" 400 " in reply:
            self.assertEqual(-32700, json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["code"])
            self.assertIn(b"Access-Control-Allow-Origin: *", reply)
        return int(reply[9:12]), bool(wire.disconnecting)

    def test_its_value(self) -> None:
        for host in self.GOOD:
            self.assertEqual(
                (200, False), self.status(b"GET /ping HTTP/1.1\r\nHost: " + host), host
            )
            self.assertEqual((200, True), self.status(b"GET /ping HTTP/1.0\r\nHost: " + host), host)
        for host, version in product(self.BAD, (b"HTTP/1.1", b"HTTP/1.0")):
            self.assertEqual(
                (400, True), self.status(b"GET /ping %s\r\nHost: %s" % (version, host)), host
            )

    def test_there_is_one(self) -> None:
        self.assertEqual((400, True), self.status(b"GET /ping HTTP/1.1"))
        self.assertEqual((400, True), self.status(b"GET /ping HTTP/1.1\r\nHosts: x"))
        self.assertEqual((200, True), self.status(b"GET /ping HTTP/1.0"))
        for version in (b"1.0", b"1.1"):
            for names in ((b"Host", b"Host"), (b"Host", b"hOST")):
                lines = b"".join(b"\r\n%s: x" % name for name in names)
                self.assertEqual((400, True), self.status(b"GET /ping HTTP/" + version + lines))

    def test_nothing_is_carried_out_and_nothing_follows(self) -> None:
        channel, wire = self.connect(room=100_000)
        channel.dataReceived(CALL.replace(b"Host: x\r\n", b"") + CALL)
        wire.read(0)
        self.assertEqual([], self.answers)
        self.assertEqual(1, wire.taken.count(b"HTTP/1.1 "))


class TargetTests(WireCase):
    """Forms of request targets (RFC 9112, section 3.2), and what they are taken for."""

    def reply(self, target: bytes, method: bytes = b"GET", host: bytes = b"x") -> bytes:
        channel, wire = self.connect(room=100_000)
        channel.dataReceived(
            b"%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n" % (method, target, host)
        )
        wire.read(0)
        channel.connectionLost(Failure(ConnectionDone()))
        return wire.taken

    def setUp(self) -> None:
        super().setUp()
        del self.__dict__["reply"]

    def test_absolute_form(self) -> None:
        for target in (
            b"http://h/ping",
            b"HTTPS://[::1]:7000/ping?x#",
            b"http://a_b:/ping?http://x",
        ):
            self.assertIn(b"pong", self.reply(target.removesuffix(b"#")), target)
        for target in (b"http://h", b"http://h?/ping", b"http://h?x=/clients/", b"https://h/?"):
            self.assertIn(b" 404 ", self.reply(target), target)
        for target in (
            b"http:///ping",
            b"http://:80/ping",
            b"http://u@h/ping",
            b"http://u:p@127.0.0.1/ping",
            b"http://h\\@i/ping",
            b"http://h:x/ping",
            b"http://[::1/ping",
            b"http://h/ping#x",
            b"http://h#/ping",
            b"http://%/ping",
            b"http://",
        ):
            self.assertIn(b" 400 ", self.reply(target), target)

    def test_other_spellings_are_other_paths(self) -> None:
        for path in (
            b"/%70ing",
            b"/ping%20",
            b"/%2Fping",
            b"/%2fping",
            b"/x/%2e%2e/ping",
            b"/ping%00",
            b"/ping%",
            b"/%",
            b"/%zz",
            b"/%25",
            b"//ping",
            b"/ping//",
            b"/ping/",
            b"/./ping",
            b"/x/../ping",
            b"/ping/.",
            b"/ping;x=y",
            b"/;/ping",
            b"\\ping",
            b"/\\ping",
            b"/ping\\",
            b"/PING",
            b"/ping.",
            b"/ping#x",
            b"/#/ping",
            b"/ping\x97",
            b"/\x97",
            b"/\xa9ping",
            b"ping",
            b"?/ping",
            b"*",
            b"h:80",
            b"ftp://h/ping",
            b"http:/ping",
            b"http:ping",
            b"javascript:/ping",
        ):
            for target in (path, path + b"?jwt=x", b"http://h" + path):
                if not path.startswith(b"/") and target.startswith(b"http://h"):
                    continue
                if b"#" in path and target.startswith(b"http:"):
                    continue
                reply = self.reply(target)
                self.assertIn(b" 404 ", reply.partition(b"\r\n")[0], target)
                self.assertIn(b"Access-Control-Allow-Origin: *", reply, target)
                self.assertIn("error", json.loads(reply.partition(b"\r\n\r\n")[2]), target)

    def test_the_authority_is_the_host(self) -> None:
        seen: list[Any] = []

        def answer(request: Any) -> Reply:
            seen.append(request.requestHeaders.getRawHeaders(b"host"))
            return Reply(200, b"{}")

        self.site.short_cuts = {(b"POST", b"/"): (answer, False)}
        self.reply(b"http://other:80/", b"POST")
        self.reply(b"/", b"POST")
        self.assertEqual([[b"other:80"], [b"x"]], seen)

    def test_a_query_may_hold_anything(self) -> None:
        for query in (b"?", b"?a=%2f%00%", b"?//..\\#", b"?/internal"):
            self.assertIn(b"pong", self.reply(b"/ping" + query), query)


class HeadTests(WireCase):
    """HEAD has the headers that GET has, and never a body; and nothing of it is logged."""

    def test_every_path_and_error(self) -> None:
        events: list[Any] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        headers = b"Host: x\r\n"
        for target, lines in (
            (b"/ping", headers),
            (b"/clients/", headers),
            (b"/", headers),
            (b"/no", headers),
            (b"//turn?jwt=secret", headers),
            (b"/\x97?jwt=secret", headers),
            (b"/%2fturn?jwt=secret", headers),
            (b"*", headers),
            (b"x", headers),
            (b"/ping", b""),
            (b"/ping", headers + headers),
            (b"/ping", headers + b"Content-Length: 100000\r\n"),
            (b"/ping", headers + b"Content-Length: 1\r\nContent-Length: 1\r\n"),
            (b"/ping", headers + b"Transfer-Encoding: x\r\n"),
            (b"/ping", headers + b"Bad header\r\n"),
            (b"http://@/?jwt=secret", headers),
        ):
            channel, wire = self.connect(room=100_000)
            channel.dataReceived(b"HEAD %s HTTP/1.1\r\n%s\r\n" % (target, lines))
            wire.read(0)
            head, _, body = wire.taken.partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 "), target)
            self.assertEqual(b"", body, (target, lines))
            self.assertNotIn(b"Content-Length: 0", head)
            channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual([], events)

    def test_a_bug(self) -> None:
        def fail(request: object) -> Reply:
            raise ZeroDivisionError

        self.site.short_cuts = {(b"HEAD", b"/"): (fail, False)}
        channel, wire = self.connect(room=100_000)
        channel.dataReceived(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.read(0)
        self.assertTrue(wire.taken.startswith(b"HTTP/1.1 500 "))
        self.assertTrue(wire.taken.endswith(b"\r\n\r\n"))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
