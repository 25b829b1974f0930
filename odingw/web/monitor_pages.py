"""``/monitor``: the status page over HTTP, what it asks for, and what it may change."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.resources import files
from inspect import isawaitable
from typing import Any, Final, TypeAlias

from msgspec import Struct, ValidationError
from msgspec.json import Decoder, encode
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.web.http import CACHED

from odingw.documents import unmarked
from odingw.errors import (
    FORBIDDEN,
    INVALID_PARAMS,
    INVALID_REQUEST,
    NOT_JSON,
    PARSE_ERROR,
    Reason,
    Refused,
    RpcError,
    invalid_params,
)
from odingw.grid.store import Store
from odingw.ops.history import History
from odingw.ops.metrics import Metrics
from odingw.rpc.details import readable
from odingw.rpc.jsonrpc import Reply, error_reply
from odingw.web.channel import GatewayRequest
from odingw.web.monitor import Monitor
from odingw.web.monitor_rooms import RoomSearch, RoomsPage, read_query
from odingw.web.replies import prepare

Answer: TypeAlias = bytes | Deferred[bytes]
Page: TypeAlias = Callable[[GatewayRequest], Answer]
Action: TypeAlias = Callable[[GatewayRequest, str], Answer]
"""Does something for a user, who is named."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILE_HEADERS: Final = {
    # Kept, and asked for anew each time: a page never meets the script of another version.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FILES: Final = {
    "/monitor": ("index.html", "text/html; charset=utf-8"),
    "/monitor/monitor.css": ("monitor.css", "text/css; charset=utf-8"),
    "/monitor/monitor.js": ("monitor.js", "text/javascript; charset=utf-8"),
}
_STATUS: Final = {Reason.SERVER_NOT_FOUND: 404, Reason.STORE_UNAVAILABLE: 503}
_NO_USERS: Final = "draining from here needs admin.users; without them anybody could"

_audit = Logger("odingw.audit")


class _DrainBody(Struct, frozen=True):
    pool: str
    server: str


class MonitorPages:
    """The status page and its data.

    Args:
        monitor: reads what is shown.
        rooms: finds rooms.
        history: the last 15 minutes.
        store: where servers are drained.
        metrics: counts.
        changes: whether there are users, who may change something.

    Raises:
        OSError: a file is not where the package has it.
    """

    def __init__(
        self,
        monitor: Monitor,
        rooms: RoomSearch,
        history: History,
        store: Store,
        metrics: Metrics,
        *,
        changes: bool,
    ) -> None:
        self._monitor = monitor
        self._rooms = rooms
        self._history = history
        self._store = store
        self._metrics = metrics
        self._changes = changes
        self._body = Decoder(_DrainBody)

    @property
    def pages(self) -> Mapping[str, Page]:
        """What can be looked at, by path."""
        folder = files("odingw.ops") / "page"
        return {
            **{
                path: _file((folder / name).read_bytes(), content_type)
                for path, (name, content_type) in _FILES.items()
            },
            "/monitor/": _to_page,
            "/monitor/state": self._show_state,
            "/monitor/summary": self._show_summary,
            "/monitor/history": lambda request: _json(request, self._history.view()),
            "/monitor/rooms": self._show_rooms,
        }

    @property
    def actions(self) -> Mapping[str, Action]:
        """What can be done by POST, by path."""
        return {
            "/monitor/drain": lambda request, user: self._drain(request, user, True),
            "/monitor/undrain": lambda request, user: self._drain(request, user, False),
        }

    def _show_state(self, request: GatewayRequest) -> Answer:
        state = Deferred.fromCoroutine(self._monitor.state())
        return state.addCallback(lambda found: _json(request, found))

    def _show_summary(self, request: GatewayRequest) -> bytes:
        return _json(request, {**self._monitor.summary(), "can_drain": self._changes})

    def _show_rooms(self, request: GatewayRequest) -> Answer:
        try:
            query = read_query(request.args)
        except RpcError as error:
            return _refuse(request, error)

        def show(page: RoomsPage) -> bytes:
            return _json(request, page)

        return Deferred.fromCoroutine(self._rooms.find(query)).addCallback(show)

    def _drain(self, request: GatewayRequest, user: str, drained: bool) -> Answer:
        try:
            self._check(request)
            wanted = self._read(request)
        except RpcError as error:
            return _refuse(request, error)
        return Deferred.fromCoroutine(self._set_drained(request, user, wanted, drained))

    def _check(self, request: GatewayRequest) -> None:
        """Raise ``RpcError`` if anything but the page itself may have sent the request."""
        if not self._changes:
            raise RpcError(FORBIDDEN, _NO_USERS)
        # That a given Origin is this one has been checked. Browsers always give it with a POST.
        site = request.getHeader("sec-fetch-site")
        if request.getHeader("origin") is None or site not in (None, "same-origin"):
            raise RpcError(FORBIDDEN, "only the status page itself may ask for this")
        kind = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RpcError(INVALID_REQUEST, "Content-Type must be application/json")

    def _read(self, request: GatewayRequest) -> _DrainBody:
        try:
            body = self._body.decode(unmarked(request.content.getvalue()))
        except ValidationError as error:
            raise invalid_params(readable(error, "body")) from None
        except NOT_JSON:
            raise RpcError(PARSE_ERROR, "Parse error") from None
        if body.pool not in (name for name, _ in self._store.pools()):
            raise invalid_params("pool: there is no such pool")
        return body

    async def _set_drained(
        self, request: GatewayRequest, user: str, wanted: _DrainBody, drained: bool
    ) -> bytes:
        method, outcome = "Drain" if drained else "Undrain", "failed"
        try:
            done = self._store.pool(wanted.pool).drain(wanted.server, drained)
            if isawaitable(done):
                await done
            outcome = "accepted"
        except Refused as error:
            outcome = str(error.reason)
            return _refuse(request, error)
        finally:
            counted = {"accepted": "success", "failed": "failure"}.get(outcome, "rejected")
            self._metrics.call("admin", method, counted)
            _audit.emit(
                LogLevel.info,
                "{odingw_method} of server {odingw_server!r}{where} by admin user "
                "{odingw_user!r}: {odingw_outcome}",
                odingw_method=method,
                odingw_server=wanted.server,
                odingw_pool=wanted.pool,
                odingw_user=user,
                odingw_outcome=outcome,
                where=f" of pool {wanted.pool!r}" if wanted.pool else "",
            )
        return _json(request, {"server": wanted.server, "drained": drained})


def _file(body: bytes, content_type: str) -> Page:
    etag = f'"{sha256(body).hexdigest()[:32]}"'.encode()

    def show(request: GatewayRequest) -> bytes:
        prepare(request, Reply(200, body, _FILE_HEADERS), internal=True)
        if request.setETag(etag) is CACHED:
            # They would be those of the body left out (RFC 9110, section 8.6).
            request.responseHeaders.removeHeader("content-length")
            request.responseHeaders.removeHeader("content-type")
            return b""
        request.setHeader("content-type", content_type)
        return body

    return show


def _to_page(request: GatewayRequest) -> bytes:
    # Relative, since a proxy may show all this under a path of its own.
    return prepare(request, Reply(308, None, {"Location": "../monitor"}), internal=True)


def _json(request: GatewayRequest, value: Any) -> bytes:
    return prepare(request, Reply(200, encode(value)), internal=True)


def _refuse(request: GatewayRequest, error: RpcError) -> bytes:
    """Tell a page, or a person, what is wrong; by status too, where JSON-RPC would say 200."""
    reply = error_reply(error)
    status, headers = reply.status, reply.headers
    if isinstance(error, Refused):
        status = _STATUS.get(error.reason, 409)
        retry_after = (error.data or {}).get("retry_after")
        if retry_after is not None:
            headers = {**headers, "Retry-After": str(max(1, round(retry_after)))}
    elif error.code == INVALID_PARAMS:
        status = 400
    elif error.code == INVALID_REQUEST:
        status = 415
    return prepare(request, Reply(status, reply.body, headers), internal=True)
