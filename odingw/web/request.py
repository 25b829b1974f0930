"""An HTTP request, and how it is answered: by a short cut, or by the routes."""

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import parse_qs
from twisted.web.server import NOT_DONE_YET, Request

from odingw.errors import INTERNAL_ERROR, RpcError
from odingw.rpc.jsonrpc import Reply, error_reply
from odingw.web.replies import whole
from odingw.web.twisted_private import send

if TYPE_CHECKING:
    from odingw.web.channel import GatewayChannel
    from odingw.web.site import GatewaySite

_log = Logger()

_LARGE: Final = 8192
"""Bytes: with larger bodies a request takes its turn, so that small ones need not wait for many."""


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
            send(
                channel.transport,
                whole(reply, internal=internal, close=close, head=self.method == b"HEAD"),
            )
            # What finish() does beyond this is about answers that are written bit by bit.
            self.finished = 1
            self._cleanup()

    def render(self, resource: Any) -> None:
        """Answer by the resource; Twisted would log the whole of a HEAD request with an error."""
        body = resource.render(self)
        if body is not NOT_DONE_YET:
            self.write(body)
            self.finish()

    def processingFailed(self, reason: Failure) -> None:  # noqa: N802  -- Twisted's name
        """Answer an exception that nobody foresaw; it is logged, and not shown."""
        _log.failure("a request failed", reason)
        if not self.startedWriting:
            error = RpcError(INTERNAL_ERROR, "Internal error")
            self._answer(error_reply(error), self.site.is_internal(self.path))
