"""Who is waited for too long, and that a connection's deadlines outlive its listening port."""

import gc
import weakref
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import Limits
from odingw.rpc.jsonrpc import Reply
from odingw.web.app import Root
from odingw.web.deadlines import Deadlines
from odingw.web.site import GatewaySite


class DeadlinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines: Deadlines[str] = Deadlines(self.clock.seconds)

    def test_each_is_late_after_its_own_period(self) -> None:
        self.deadlines.begin("slow", 60)
        self.deadlines.begin("quick", 2)
        self.clock.advance(2)
        self.assertEqual(["quick"], list(self.deadlines.overdue()))
        self.assertEqual([], list(self.deadlines.overdue()))
        self.clock.advance(58)
        self.assertEqual(["slow"], list(self.deadlines.overdue()))

    def test_who_begins_again_has_time_again_and_who_ends_is_forgotten(self) -> None:
        for name in ("again", "ended", "late"):
            self.deadlines.begin(name, 10)
        self.clock.advance(9)
        self.deadlines.begin("again", 10)
        self.deadlines.end("ended", 10)
        self.clock.advance(1)
        self.assertEqual(["late"], list(self.deadlines.overdue()))
        self.clock.advance(9)
        self.assertEqual(["again"], list(self.deadlines.overdue()))


class Transport(StringTransport):
    """A connection that remembers being cut."""

    protocol: Any

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802  -- Twisted's name
        """Twisted's channel asks for it."""

    def abortConnection(self) -> None:  # noqa: N802  -- Twisted's name
        super().abortConnection()
        self.protocol.connectionLost()


class ChannelCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        answer = Reply(200, b"{}")
        root = Root(Klein(), {(b"POST", b"/"): (lambda _: answer, True)})
        self.site = GatewaySite(root, Limits(), self.timer())
        self.site.startFactory()
        self.transport = Transport()
        self.channel = self.site.buildProtocol(None)
        self.transport.protocol = self.channel
        self.channel.makeConnection(self.transport)

    def timer(self) -> Any:
        """Return the clock; Twisted and the site name its parameters differently."""
        return self.clock


class SilenceTests(ChannelCase):
    def test_half_a_request_ends_though_nothing_listens_any_more(self) -> None:
        self.channel.dataReceived(b"POST / HTTP/1.1\r\n")
        self.site.stopFactory()
        finished = self.site.finish()
        self.assertNoResult(finished)
        self.clock.pump([1.0] * int(Limits().header_timeout + 1))
        self.assertTrue(self.transport.disconnected)
        self.successResultOf(finished)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_silence_counts_from_the_last_word_or_reply(self) -> None:
        period = Limits().idle_timeout
        self.channel.dataReceived(RowTests.REQUEST)
        self.clock.pump([1.0] * int(period - 5))
        self.channel.dataReceived(RowTests.REQUEST)
        self.clock.pump([1.0] * int(period - 5))
        self.assertFalse(self.transport.disconnecting)
        self.clock.pump([1.0] * 10)
        self.assertTrue(self.transport.disconnecting)

    def test_a_connection_is_not_silent_while_its_request_is_answered(self) -> None:
        answer: Deferred[Reply] = Deferred()
        self.site.short_cuts = {(b"POST", b"/"): (lambda _: answer, True)}
        self.channel.dataReceived(RowTests.REQUEST)
        self.clock.pump([1.0] * int(Limits().idle_timeout * 2))
        self.assertFalse(self.transport.disconnecting)
        answer.callback(Reply(200, b"{}"))
        self.assertIn(b"200 OK", self.transport.value())
        self.clock.pump([1.0] * int(Limits().idle_timeout + 2))
        self.assertTrue(self.transport.disconnecting)

    def test_nothing_is_kept_of_a_connection_that_is_gone(self) -> None:
        gone = weakref.ref(self.channel)
        self.channel.dataReceived(RowTests.REQUEST)
        self.channel.abort()
        del self.channel, self.transport
        gc.collect()
        self.assertIsNone(gone())

    def test_a_site_without_connections_leaves_no_timer(self) -> None:
        self.channel.abort()
        self.assertNotEqual([], self.clock.getDelayedCalls())
        self.site.stopFactory()
        self.assertEqual([], self.clock.getDelayedCalls())


class RowTests(ChannelCase):
    """Requests that come in all at once are answered some at a time, for others want a turn."""

    REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    COUNT = 100

    def answered(self) -> int:
        count: int = self.transport.value().count(b"200 OK")
        return count

    def test_a_row_ends_after_some_and_goes_on_in_another_turn(self) -> None:
        self.channel.dataReceived(self.REQUEST * self.COUNT)
        self.assertEqual(16, self.answered())
        self.clock.advance(0)
        self.assertEqual(self.COUNT, self.answered())

    def test_a_peer_that_does_not_read_is_not_answered_for_ever(self) -> None:
        self.channel.dataReceived(self.REQUEST * self.COUNT)
        self.channel.pauseProducing()
        self.clock.advance(0)
        self.assertEqual(16, self.answered())
        self.channel.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.COUNT, self.answered())

    def test_each_read_begins_a_new_row(self) -> None:
        for _ in range(self.COUNT):
            self.channel.dataReceived(self.REQUEST)
        self.assertEqual(self.COUNT, self.answered())
