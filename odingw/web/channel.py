"""The HTTP connection: bounds what a peer may send, and how long it may take."""

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.errors import (
    HEADERS_TOO_LARGE,
    PARSE_ERROR,
    TOO_LARGE,
    UNAVAILABLE,
    URI_TOO_LONG,
    RpcError,
)
from odingw.web.delivery import Outbox
from odingw.web.host import check_host, split_target
from odingw.web.replies import raw_error
from odingw.web.request import GatewayRequest
from odingw.web.twisted_private import is_sent, pause_until_sent

if TYPE_CHECKING:
    from odingw.web.deadlines import Deadlines
    from odingw.web.site import GatewaySite


__all__ = ["GatewayChannel", "GatewayRequest"]

_IN_A_ROW: Final = 16
"""How many requests of one connection are answered before others get a turn."""

_ROW_TIME: Final = 0.005
"""Seconds after which others get one all the same."""

_PIECE: Final = 16384
"""Bytes of a chunked body that are decoded in one step."""

_HEADER_SIZE: Final = 140
"""Bytes of memory that a header has beside its own, once it has been read."""

_LINE_END: Final = b"\r\n"
_END: Final = 2 * _LINE_END
"""Ends a request's headers."""

_HERE: Final = IPv4Address("TCP", "127.0.0.1", 80)


@implementer(IHalfCloseableProtocol)
class GatewayChannel(HTTPChannel):
    """One connection to a :class:`odingw.web.site.GatewaySite`.

    What has come in waits as it came. The next request is taken from it when none is in work and
    the kernel has the whole reply to the one before. Nothing more is read while something waits, so
    one read (64 kB) is the most that does, and one reply the most that is unsent.

    Attributes:
        outbox: what must arrive with the replies of this connection.
        busy: whether a request is being answered.
        fresh: whether nothing has come in yet.
        host: the peer's address, as far as connections are counted by it.
        refused: whether anything that still comes in is ignored.
        body_limit: how many bytes the body of the request at hand may have; negative while its
            headers are not known.
        held: how many bytes requests take that are not complete or not in work.
    """

    # A dictionary of more than thirty attributes, or one that loses some (Twisted deletes _command,
    # _path and _version), does not share its keys with others: 1.5 kB more for each.
    __slots__ = (
        "_at",
        "_awaited",
        "_blocked",
        "_closing",
        "_command",
        "_head_size",
        "_input",
        "_longest_head",
        "_path",
        "_peer",
        "_reading",
        "_resting",
        "_silence_period",
        "_surplus",
        "_taking",
        "_version",
        "body_limit",
        "busy",
        "fresh",
        "held",
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
        self.fresh = True
        self.held = 0
        self.host = ""
        self.refused = False
        self._input = b""
        self._head_size = 0
        self._longest_head = 0
        self._at = 0
        self._awaited: tuple[Deadlines[GatewayChannel], float] | None = None
        self._blocked = False
        self._closing = False
        self._peer: Any = None
        self._reading = True
        self._resting = False
        self._silence_period: float | None = None
        self._surplus = -1
        self._taking = False

    @property
    def idle(self) -> bool:
        """Whether no request is being received or answered."""
        return not (self.busy or self._transferDecoder or self._at < len(self._input))

    def getHost(self) -> IPv4Address:  # noqa: N802  -- Twisted's name
        """Return an address for Twisted, which asks for one at each request: a system call."""
        return _HERE

    def getPeer(self) -> Any:  # noqa: N802  -- Twisted's name
        """Return the peer's address, which Twisted asks for at each request too."""
        if self._peer is None:
            self._peer = self.transport.getPeer()
        return self._peer

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

    def connectionMade(self) -> None:  # noqa: N802  -- Twisted's name
        """Begin."""
        self.outbox = Outbox(self.transport, self.site.timer)
        self.totalHeadersSize = self.site.limits.header_bytes
        # As many headers as there may be, each with its end.
        self._longest_head = self.totalHeadersSize + len(_LINE_END) * (self.maxHeaders + 2)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  -- Twisted's name
        """Take in bytes."""
        if self.refused:
            return
        if self.idle and data != _LINE_END:
            if self.site.counts_late and not self.host:
                self.site.count_late(self)
                if self.refused:
                    return
            self.outbox.next_request()
            self.fresh = False
        self._input += data
        if (
            self._awaited is self.site.head
            and b"\n" not in data
            and len(self._input) < self._longest_head
        ):
            self.site.hold(self, len(self._input))
        else:
            self._go_on()
        if self._awaited is not None and self.timeOut is not None:
            self.site.silence.begin(self, self.timeOut)

    def pauseProducing(self) -> None:  # noqa: N802  -- Twisted's name
        """Begin with no other request: the kernel has not taken all of a reply."""
        self._blocked = True

    def resumeProducing(self) -> None:  # noqa: N802  -- Twisted's name
        """Go on: what has been written is on its way to the peer."""
        self._blocked = False
        if not self.refused:
            if self.timeOut is not None:
                self.site.silence.begin(self, self.timeOut)
            self._go_on()

    def _go_on(self) -> None:
        """Work on what is here, as far as that may be now."""
        if self._taking:
            return
        self._taking = True
        try:
            self._take_in()
        finally:
            self._taking = False
        if not self.refused:
            self._settle()

    def _take_in(self) -> None:
        """Take in requests, until others want a turn: very many fit into what is read at once."""
        heads, end = 0, 0.0
        while self._at < len(self._input) and not (self.busy or self._resting or self._blocked):
            now = self.site.timer.seconds()
            if not end:
                end = now + _ROW_TIME
            elif now > end or (heads == _IN_A_ROW and self.line_mode):
                self._resting = True
                self.site.in_turn(self._rested)
                return
            if not self.line_mode:
                self._take_body()
            elif self._take_head():
                heads += 1
            else:
                return

    def _rested(self) -> None:
        self._resting = False
        if not self.refused:
            self._go_on()

    def _take_head(self) -> bool:
        """Take in the next request's line and headers, if they are all here and it is time.

        Before they are, nothing is made of them, since that takes far more memory than they do.
        """
        data, start = self._input, self._at
        if data.startswith(_LINE_END, start):
            # Ahead of a request an empty line is ignored, but not a second (RFC 9112, 2.2).
            self._at += len(_LINE_END)
            self.lineReceived(b"")
            return True
        end = data.find(_END, start, start + self._longest_head)
        if end < 0:
            overlong = len(data) - start >= self._longest_head
            if overlong and not self._is_head_too_long(data[start:].split(_LINE_END)):
                self._respondToBadRequestAndDisconnect()
            return False
        if not is_sent(self.transport):
            pause_until_sent(self.transport)
            return False
        self._await(None)
        self._at = end + len(_END)
        self.body_limit = -1
        lines = data[start:end].split(_LINE_END)
        if self._is_head_too_long(lines):
            return False
        self._head_size = end - start + _HEADER_SIZE * len(lines)
        try:
            for line in lines:
                self.lineReceived(line)
                if self.refused:
                    return False
            self.lineReceived(b"")
        except ValueError:
            if self.body_limit >= 0:
                raise
            # Python reads no Content-Length of thousands of digits.
            self._respondToBadRequestAndDisconnect()
        return True

    def _is_head_too_long(self, lines: list[bytes]) -> bool:
        """Refuse a request whose line and headers are too long, ends of lines not counted."""
        most = self.totalHeadersSize
        if sum(map(len, lines)) <= most:
            return False
        if len(lines[0]) > most:
            code, what = URI_TOO_LONG, "request line"
        else:
            code, what = HEADERS_TOO_LARGE, "request line and the headers"
        message = f"the {what} may have at most {most} bytes (limits.header_bytes)"
        self._command, *rest = lines[0].split(b" ", 2)
        path = rest[0].partition(b"?")[0] if rest else b"/"
        self._refuse()
        self._write_error(RpcError(code, message), path)
        self._linger()
        return True

    def _take_body(self) -> None:
        """Take in a part of the body.

        Twisted's decoders copy what follows the body's end, so they are not given much of that.
        """
        decoder: Any = self._transferDecoder
        size = _PIECE if self.length is None else decoder.contentLength
        piece = self._input[self._at : self._at + size]
        self._at += len(piece)
        self.rawDataReceived(piece)
        if self.refused:
            return
        if self._surplus >= 0:
            self._at -= self._surplus
            self._surplus = -1
            self.allContentReceived()
        elif self.length is None:
            # Nobody asks for them, and each takes twenty times its size.
            decoder._trailerHeaders.clear()

    def _finishRequestBody(self, data: bytes) -> None:  # noqa: N802  -- Twisted's name
        """Take note that the body is complete, and what of the piece does not belong to it."""
        self._surplus = len(data)

    def _settle(self) -> None:
        """Look at what is left: read on or not, and for what is waited how long."""
        waiting = len(self._input) - self._at
        self._input = self._input[self._at :]
        self._at = 0
        decoder: Any = self._transferDecoder
        if not waiting and decoder is None and self._reading and not self.held:
            return
        stuck = self.busy or self._resting or self._blocked
        if (waiting > 0 and stuck) is self._reading:
            self._read(not self._reading)
        if decoder is not None:
            self._await(self.site.body)
            if self.body_limit <= self.site.limits.body:
                waiting += self._head_size + self.requests[-1].content.tell()
        else:
            self._await(self.site.head if waiting and not stuck else None)
        if waiting != self.held:
            self.site.hold(self, waiting)

    def _read(self, on: bool) -> None:
        self._reading = on
        if on:
            self._networkProducer.resumeProducing()
        else:
            self._networkProducer.pauseProducing()

    def _await(self, what: "tuple[Deadlines[GatewayChannel], float] | None") -> None:
        """Begin to wait for a head or a body to become complete, or end waiting."""
        if what is not self._awaited:
            if self._awaited is not None:
                deadlines, period = self._awaited
                deadlines.end(self, period)
            self._awaited = what
            if what is not None:
                deadlines, period = what
                deadlines.begin(self, period)

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802  -- Twisted's name
        """Answer what is no HTTP, or breaks a limit of headers, and close."""
        self._bad_request("bad HTTP request")

    def _bad_request(self, message: str) -> None:
        if not self.refused:
            self._write_error(RpcError(PARSE_ERROR, message), b"/")
            self.loseConnection()

    def _write_error(self, error: RpcError, path: bytes) -> None:
        """Answer a request that is not complete."""
        head = getattr(self, "_command", b"") == b"HEAD"
        self.transport.write(raw_error(error, internal=self.site.is_internal(path), head=head))

    def allHeadersReceived(self) -> None:  # noqa: N802  -- Twisted's name
        """Judge the request by its headers, before its body is read or asked for."""
        self.body_limit = 0
        request = self.requests[-1]
        headers = request.requestHeaders
        codings = headers.getRawHeaders(b"transfer-encoding")
        if codings and [coding.lower() for coding in codings] != [b"chunked"]:
            # Twisted takes "identity", which HTTP knows no more (RFC 9112, 7), for no coding.
            self._respondToBadRequestAndDisconnect()
            return
        try:
            self._path, authority = split_target(self._command, self._path)
            check_host(headers.getRawHeaders(b"host", ()), self._version)
        except ValueError as error:
            self._bad_request(str(error))
            return
        if authority is not None:
            headers.setRawHeaders(b"host", [authority])
        self.body_limit = self.site.body_limit(request, self._path, self.length)
        if self.length is None:
            decoder: Any = self._transferDecoder
            decoder._maxTrailerHeadersSize = self.totalHeadersSize
        elif self.length > self.body_limit:
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
        self._await(None)
        self.busy = True
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:  # noqa: N802  -- Twisted's name
        """Go on to the next request."""
        self.requests.remove(request)
        self.busy = self._handlingRequest = False
        if not self.persistent or self.site.closing:
            self.loseConnection()
            return
        self.line_mode = 1
        if self._savedTimeOut:
            self.setTimeout(self._savedTimeOut)
        self._go_on()

    def give_up(self) -> None:
        """End, since others want the memory; a request that is not complete is answered."""
        if self.busy or self._resting or self._blocked:
            self._refuse()
            self.abort()
            return
        error = RpcError(
            UNAVAILABLE,
            "too many requests are half received; try again",
            {"retry_after": 1},
            headers={"Retry-After": "1"},
        )
        path = getattr(self, "_path", b"/").partition(b"?")[0]
        self._refuse()
        self._write_error(error, path)
        self._linger()

    def refuse_body(self) -> None:
        """Answer at once that the body is too large, and close without reading it."""
        self._refuse()
        error = RpcError(TOO_LARGE, f"a request here holds at most {self.body_limit} bytes")
        self._write_error(error, self._path.partition(b"?")[0])
        self._linger()

    def loseConnection(self) -> None:  # noqa: N802  -- Twisted's name
        """Close, but stay to hear whether what must arrive did, or what is still coming in."""
        unread = not (self.idle or self.busy)
        self._refuse()
        if self.outbox:
            self.outbox.on_settled = self._close
            self._linger()
        elif unread:
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
        self._reading = self.refused = True
        self._refuse()
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
        self._input = b""
        self._at = 0
        self._await(None)
        if self.held:
            self.site.hold(self, 0)
        if not self._reading:
            self._read(True)

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

    def _forget_silence(self) -> None:
        if self._silence_period is not None:
            self.site.silence.end(self, self._silence_period)
