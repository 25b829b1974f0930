"""The HTTP connection: bounds what a peer may send, and how long it may take."""

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, parse_qs
from twisted.web.server import Request
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.errors import INTERNAL_ERROR, PARSE_ERROR, TOO_LARGE, RpcError
from odingw.rpc.jsonrpc import Reply, error_reply
from odingw.web.delivery import Outbox
from odingw.web.replies import raw_error, whole

if TYPE_CHECKING:
    from odingw.web.site import GatewaySite


_log = Logger()

_LARGE: Final = 8192
"""Bytes: with larger bodies a request takes its turn, so that small ones need not wait for many."""

_IN_A_ROW: Final = 16
"""How many requests of one connection are answered before others get a turn."""

_ROW_TIME: Final = 0.005
"""Seconds after which others get one all the same."""

_LINE_END: Final = b"\r\n"
_END: Final = 2 * _LINE_END
"""Ends a request's headers."""

_HERE: Final = IPv4Address("TCP", "127.0.0.1", 80)


class GatewayRequest(Request):
    """A request whose body stays in memory, bounded by the channel."""

    channel: "GatewayChannel | None"  # type: ignore[assignment]  # None once it is gone
    site: "GatewaySite"
    content: BytesIO
    large = False

    def getRequestHostname(self) -> bytes:  # noqa: N802  -- Twisted's name
        """Return a name for Klein, whose routes do not depend on it and which trips over some."""
        return b"localhost"

    def parseCookies(self) -> None:  # noqa: N802  -- Twisted's name
        """Read no cookies: nothing here depends on any."""

    def gotLength(self, length: int | None) -> None:  # noqa: N802  -- Twisted's name
        """Get ready for the body. Bodies are bounded, so none needs Twisted's temporary file."""
        self.content = BytesIO()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802  -- Twisted's name
        """Have the whole request answered. No body here is a form, so none is read as one."""
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, 1) if query else {}
        self.content.seek(0)
        self.process()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  -- Twisted's name
        """Take in a part of the body; its length may have been unknown until now."""
        if self.channel is None or self.channel.refused:
            return
        size = self.content.tell() + len(data)
        if size > self.channel.body_limit:
            self.channel.refuse_body()
        else:
            self.content.write(data)
            self.large = size > _LARGE

    def process(self) -> None:
        """Have the request answered at once, or one after the other if it may take long."""
        channel = self.channel
        if self.large and channel is not None:
            channel.site.in_turn(self._process_late)
        else:
            self._process()

    def _process_late(self) -> None:
        if self.channel is not None:
            self._process()

    def _process(self) -> None:
        """Have the request answered: by a short cut where there is one, else by the resource."""
        channel = self.channel
        short_cut = channel and channel.site.short_cuts.get((self.method, self.path))
        if not channel or not short_cut:
            super().process()
            return
        self.site = channel.site
        handle, internal = short_cut
        try:
            answer = handle(self)
        except Exception:
            self.processingFailed(Failure())
            return
        if isinstance(answer, Reply):
            self._answer(answer, internal)
        else:
            answer.addCallback(self._answer, internal).addErrback(self.processingFailed)

    def _answer(self, reply: Reply, internal: bool) -> None:
        """Send a whole reply, if somebody still waits for it."""
        channel = self.channel
        if channel is not None:
            self.startedWriting = 1
            close = self.site.closing or not channel.persistent
            channel.send(whole(reply, internal=internal, close=close))
            # What finish() does beyond this is about answers that are written bit by bit.
            self.finished = 1
            self._cleanup()

    def processingFailed(self, reason: Failure) -> None:  # noqa: N802  -- Twisted's name
        """Answer an exception that nobody foresaw; it is logged, and not shown."""
        _log.failure("a request failed", reason)
        if not self.startedWriting:
            error = RpcError(INTERNAL_ERROR, "Internal error")
            self._answer(error_reply(error), self.site.is_internal(self.path))


def origin_form(method: bytes, target: bytes) -> bytes:
    """Return a request target as path and query (RFC 9112, section 3.2)."""
    if target.startswith(b"/"):
        return target
    if target == b"*":
        return b"/" if method == b"OPTIONS" else b"/*"
    if target[:7].lower() == b"http://" or target[:8].lower() == b"https://":
        return b"/" + target.partition(b"://")[2].partition(b"/")[2]
    return target


@implementer(IHalfCloseableProtocol)
class GatewayChannel(HTTPChannel):
    """One connection to a :class:`odingw.web.site.GatewaySite`.

    Attributes:
        outbox: what must arrive with the replies of this connection.
        busy: whether a request is being answered.
        host: the peer's address, as far as connections are counted by it.
        refused: whether anything that still comes in is ignored.
        body_limit: how many bytes the body of the request at hand may have.
    """

    # A dictionary of more than thirty attributes, or one that loses some (Twisted deletes _command,
    # _path and _version), does not share its keys with others: 1.5 kB more for each.
    __slots__ = (
        "_closing",
        "_command",
        "_headers_awaited",
        "_in_a_row",
        "_in_body",
        "_in_headers",
        "_path",
        "_peer",
        "_replaying",
        "_row_began",
        "_silence_period",
        "_version",
        "body_limit",
        "busy",
        "host",
        "outbox",
        "refused",
    )

    site: "GatewaySite"
    requestFactory = GatewayRequest  # noqa: N815  -- Twisted's name

    outbox: Outbox
    transport: Any
    _command: Any
    _path: Any
    _networkProducer: Any  # noqa: N815  -- Twisted's name

    def __init__(self) -> None:
        super().__init__()
        self.body_limit = 0
        self.busy = False
        self.host = ""
        self.refused = False
        self._peer: Any = None
        self._replaying = False
        self._in_a_row = 0
        self._row_began = 0.0
        self._silence_period: float | None = None
        self._headers_awaited = False
        self._in_headers = False
        self._in_body = False
        self._closing = False

    @property
    def idle(self) -> bool:
        """Whether no request is being received or answered."""
        return not (self.busy or self._in_headers or self._transferDecoder)

    def getHost(self) -> IPv4Address:  # noqa: N802  -- Twisted's name
        """Return an address for Twisted, which asks for one at each request: a system call."""
        return _HERE

    def getPeer(self) -> Any:  # noqa: N802  -- Twisted's name
        """Return the peer's address, which Twisted asks for at each request too."""
        if self._peer is None:
            self._peer = self.transport.getPeer()
        return self._peer

    def send(self, data: bytes) -> None:
        """Write a reply: at once if nothing is ahead of it, which spares a turn of the reactor."""
        transport = self.transport
        # Twisted has no public way to ask what waits.
        if type(transport) is Server and not (transport.dataBuffer or transport._tempDataBuffer):
            sent = transport.writeSomeData(data)
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            transport.write(data)

    def setTimeout(self, period: float | None) -> float | None:  # noqa: N802  -- Twisted's name
        """Change after how many seconds of silence the connection ends; None: never.

        While a request is answered, which is when Twisted sets None, the old deadline stays noted.
        """
        before, self.timeOut = self.timeOut, period  # type: ignore[assignment]  # Twisted takes fractions too
        if period is not None:
            if self._silence_period != period:
                self._forget_silence()
                self._silence_period = period
            self.site.silence.begin(self, period)
        return before

    def resetTimeout(self) -> None:  # noqa: N802  -- Twisted's name
        """Leave it to ``dataReceived`` to take note that the peer is not silent."""

    def connectionMade(self) -> None:  # noqa: N802  -- Twisted's name
        """Begin."""
        self.outbox = Outbox(self.transport, self.site.timer)
        self.totalHeadersSize = self.site.limits.header_bytes
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  -- Twisted's name
        """Take in bytes; a request's headers must be complete in time from its first one."""
        if self.refused:
            return
        if not self._replaying:
            self._in_a_row = 0
            self._row_began = self.site.timer.seconds()
        begins = self.idle and data != b"\r\n"
        if begins:
            self._in_headers = True
            if self.site.counts_late and not self.host:
                self.site.count_late(self)
                if self.refused:
                    return
            if not self._replaying:
                self.outbox.next_request()
        try:
            super().dataReceived(self._take_headers(data) if begins else data)
        except ValueError:
            # Python reads no Content-Length of thousands of digits.
            if not self._in_headers:
                raise
            self._respondToBadRequestAndDisconnect()
        if begins and self._in_headers:
            self._headers_awaited = True
            self.site.headers_begin(self)
        if not self._in_a_row and self.timeOut is not None:
            self.site.silence.begin(self, self.timeOut)
        # A body that has come with its headers is not waited for: nearly all have.
        if self._transferDecoder is not None and not self._in_body:
            self._in_body = True
            self.site.body_begins(self)

    def _take_headers(self, data: bytes) -> bytes:
        """Take in a request's headers if all are here, as nearly always.

        Twisted takes one line after the other off what is left; this cuts them all at once. It
        returns the bytes that Twisted is still to be given: all of them, or none.
        """
        if self._buffer or self._busyReceiving or self.paused:
            return data
        head, end, rest = data.partition(_END)
        if not end:
            return data
        self._busyReceiving = True
        try:
            for line in head.split(_LINE_END):
                if len(line) > self.MAX_LENGTH:
                    self.lineLengthExceeded(line)
                else:
                    self.lineReceived(line)
                if self.refused or self.transport.disconnecting:
                    return b""
            self._buffer = rest
            self.lineReceived(b"")
        finally:
            self._busyReceiving = False
        return b""

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802  -- Twisted's name
        """Refuse a header that does not end."""
        self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802  -- Twisted's name
        """Answer what is no HTTP, or breaks a limit of headers, and close."""
        error = RpcError(PARSE_ERROR, "bad HTTP request")
        self.transport.write(raw_error(error, internal=self.site.is_internal(b"/")))
        self.loseConnection()

    def rawDataReceived(self, data: bytes) -> None:  # noqa: N802  -- Twisted's name
        """Take in a part of the body, unless it is not wanted any more."""
        if not self.refused:
            super().rawDataReceived(data)

    def allHeadersReceived(self) -> None:  # noqa: N802  -- Twisted's name
        """Judge the request by its headers, before its body is read or asked for."""
        self._headers_end()
        codings = self.requests[-1].requestHeaders.getRawHeaders(b"transfer-encoding")
        if codings and [coding.lower() for coding in codings] != [b"chunked"]:
            # Twisted takes "identity", which HTTP knows no more (RFC 9112, 7), for no coding.
            self._respondToBadRequestAndDisconnect()
            return
        self._path = origin_form(self._command, self._path)
        self.body_limit = self.site.body_limit(self.requests[-1], self._path, self.length)
        if self.length is not None and self.length > self.body_limit:
            self.refuse_body()
            return
        super().allHeadersReceived()

    def checkPersistence(self, request: Any, version: bytes) -> bool:  # noqa: N802  -- Twisted's
        """Tell whether the connection may stay open after the reply."""
        lines = request.requestHeaders.getRawHeaders(b"connection", ())
        options = lines and {option.strip() for option in b",".join(lines).lower().split(b",")}
        if version == b"HTTP/1.1" and b"close" not in options and not self.site.closing:
            return True
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def allContentReceived(self) -> None:  # noqa: N802  -- Twisted's name
        """Hand the request over, unless it has been refused while its body came in."""
        if self.refused:
            return
        self._body_ends()
        self.busy = True
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:  # noqa: N802  -- Twisted's name
        """Go on to the next request; one that is here already says nothing of the reply."""
        self.busy = False
        if self.site.closing:
            self.persistent = False
        self._replaying = True
        try:
            super().requestDone(request)
        finally:
            self._replaying = False
        # So many requests fit into what is read at once that others would wait for long.
        self._in_a_row += 1
        if not self._buffer or self.paused or self.refused:
            return
        if self._in_a_row >= _IN_A_ROW or self.site.timer.seconds() > self._row_began + _ROW_TIME:
            self.paused = True
            self._networkProducer.pauseProducing()
            self.site.in_turn(self._go_on)

    def _go_on(self) -> None:
        """Take in the next of many requests that are here already, if their answers are read."""
        if self.refused or self not in self.site.channels or self._waitingForTransport:
            return
        self.paused = False
        self._networkProducer.resumeProducing()
        self.dataReceived(b"")

    def resumeProducing(self) -> None:  # noqa: N802  -- Twisted's name
        """Go on: what has been written is on its way to the peer."""
        super().resumeProducing()
        if self.paused and not self.refused:
            self.site.in_turn(self._go_on)

    def refuse_body(self) -> None:
        """Answer at once that the body is too large, and close without reading it."""
        self._refuse()
        path = self._path.partition(b"?")[0]
        error = RpcError(TOO_LARGE, f"a request here holds at most {self.body_limit} bytes")
        self.transport.write(raw_error(error, internal=self.site.is_internal(path)))
        self._linger()

    def loseConnection(self) -> None:  # noqa: N802  -- Twisted's name
        """Close, but stay to hear whether what must arrive did, or what is still coming in."""
        self._refuse()
        if self.outbox:
            self.outbox.on_settled = self._close
            self._linger()
        elif not (self.idle or self.busy):
            self._linger()
        else:
            self._close()

    def readConnectionLost(self) -> None:  # noqa: N802  -- Twisted's name
        """The peer sends no more; it may still wait for the reply to what it has sent."""
        self.outbox.peer_finished()
        if self.busy:
            self.persistent = False
        else:
            self.loseConnection()

    def writeConnectionLost(self) -> None:  # noqa: N802  -- Twisted's name
        """Take note that the last byte has been sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  -- Twisted's name
        """End."""
        self._headers_end()
        self._body_ends()
        self.busy = False
        self.outbox.connection_lost(reason)
        super().connectionLost(reason)
        self._forget_silence()
        self.site.connection_ended(self)

    def abort(self) -> None:
        """Cut the connection."""
        self.transport.abortConnection()

    def timeoutConnection(self) -> None:  # noqa: N802  -- Twisted's name
        """Give up on a peer that is silent, at once where nothing more is to be said."""
        if self._closing:
            self.abort()
        else:
            self._closing = True
            self.setTimeout(self.site.linger)
            self._close()

    def _refuse(self) -> None:
        """Ignore what has come in and is not worked on yet, and what still comes."""
        self.refused = True
        self.clearLineBuffer()

    def _linger(self) -> None:
        """Say that nothing more will come and wait for the peer to close, but not for long.

        Closing a socket that holds unread bytes resets the connection, and the peer may then
        never see the reply.
        """
        if self._closing:
            return
        self._closing = True
        self.setTimeout(self.site.linger)
        if not ISSLTransport.providedBy(self.transport):
            self._networkProducer.unregisterProducer()
            self.transport.loseWriteConnection()
        elif not self.outbox:
            # TLS says goodbye itself, and waits for the answer. While something must arrive it
            # keeps quiet: a peer that has its reply would close on a goodbye that it did not read,
            # and that is a reset.
            self._close()

    def _close(self) -> None:
        super().loseConnection()

    def _headers_end(self) -> None:
        self._in_headers = False
        if self._headers_awaited:
            self._headers_awaited = False
            self.site.headers_end(self)

    def _body_ends(self) -> None:
        if self._in_body:
            self._in_body = False
            self.site.body_ends(self)

    def _forget_silence(self) -> None:
        if self._silence_period is not None:
            self.site.silence.end(self, self._silence_period)
