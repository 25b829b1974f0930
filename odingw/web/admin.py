"""The admin endpoint: metrics, health, the status page; and who may see which."""

from collections.abc import Callable, Sequence
from typing import Final

from klein import Klein
from msgspec.json import encode

from odingw.errors import FORBIDDEN, RpcError
from odingw.ops.health import Health
from odingw.ops.metrics import Metrics
from odingw.rpc.jsonrpc import Reply, error_reply
from odingw.web.channel import GatewayRequest
from odingw.web.guard import BasicUsers, is_foreign, is_local_name
from odingw.web.monitor_pages import Action, Answer, MonitorPages, Page
from odingw.web.replies import prepare

_READINESS: Final = (b"/healthz", b"/readyz")
_HEALTH: Final = (*_READINESS, b"/monitor/ping", b"/monitor/healthcheck")


class AdminPages:
    """The routes of the admin endpoint.

    Args:
        users: who may look; if there are none, everybody who can reach the endpoint.
        monitor: the status page.
        dump_threads: returns what every thread is doing.
        hosts: names, and patterns of them, that ``Host`` may have where there are no users, beside
            an IP address and ``localhost``; ping and health answer to any.
        shared: whether the port is public too, where without users little is shown, and readiness,
            which needs none, without its reasons.
    """

    def __init__(
        self,
        metrics: Metrics,
        health: Health,
        users: BasicUsers,
        monitor: MonitorPages,
        dump_threads: Callable[[], str],
        *,
        hosts: Sequence[str] = (),
        shared: bool,
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._users = users
        self._monitor = monitor
        self._dump_threads = dump_threads
        self._hosts = tuple(name.lower().removesuffix(".") for name in hosts)
        self._shared = shared

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        pages: dict[str, Page] = {
            "/metrics": self._show_metrics,
            "/monitor/metrics": self._show_metrics,
            "/monitor/ping": _pong,
            "/monitor/healthcheck": self._show_health,
            "/healthz": _alive,
            "/readyz": self._show_readiness,
        }
        if self._users or not self._shared:
            pages |= self._monitor.pages
            pages["/monitor/threads"] = self._show_threads
            for path, action in self._monitor.actions.items():
                self._add_action(app, path, action)
        for path, page in pages.items():
            self._add_page(app, path, page)

    def _add_page(self, app: Klein, path: str, page: Page) -> None:
        @app.route(path, methods=["GET"], endpoint=f"GET {path}", strict_slashes=True)
        def show(request: GatewayRequest) -> Answer:
            try:
                self.check(request)
            except RpcError as error:
                return prepare(request, error_reply(error), internal=True)
            return page(request)

    def _add_action(self, app: Klein, path: str, action: Action) -> None:
        @app.route(path, methods=["POST"], endpoint=f"POST {path}", strict_slashes=True)
        def act(request: GatewayRequest) -> Answer:
            try:
                user = self.check(request)
            except RpcError as error:
                return prepare(request, error_reply(error), internal=True)
            return action(request, user)

    def check(self, request: GatewayRequest) -> str:
        """Return the user who asks; empty where nobody has to say who they are.

        Raises:
            RpcError: the request is not accepted (401, 403, 429).
        """
        if is_foreign(request):
            raise RpcError(FORBIDDEN, "requests from web pages are not accepted")
        if self._users:
            return "" if request.path in _READINESS else self._users.check(request)
        if not (self._shared or request.path in _HEALTH or is_local_name(request, self._hosts)):
            raise RpcError(
                FORBIDDEN,
                "while admin.users is empty, Host must be an IP address, localhost or a name in "
                "admin.hosts",
            )
        return ""

    def _show_metrics(self, request: GatewayRequest) -> bytes:
        accept = request.getHeader("accept") or ""
        body, content_type = self._metrics.page(accept)
        return _page(request, content_type, body)

    def _show_health(self, request: GatewayRequest) -> bytes:
        results = self._health.results()
        status = 200 if all(check.healthy for check in results.values()) else 500
        return prepare(request, Reply(status, encode(results)), internal=True)

    def _show_readiness(self, request: GatewayRequest) -> bytes:
        ready = self._health.ready
        told: dict[str, object] = {"ready": ready}
        if not self._shared:
            told["checks"] = self._health.results()
        return prepare(request, Reply(200 if ready else 503, encode(told)), internal=True)

    def _show_threads(self, request: GatewayRequest) -> bytes:
        return _page(request, "text/plain; charset=utf-8", self._dump_threads().encode())


def _page(request: GatewayRequest, content_type: str, body: bytes) -> bytes:
    prepare(request, Reply(200, body), internal=True)
    request.setHeader("content-type", content_type)
    return body


def _pong(request: GatewayRequest) -> bytes:
    return _page(request, "text/plain; charset=utf-8", b"pong")


def _alive(request: GatewayRequest) -> bytes:
    return prepare(request, Reply(200, encode({"alive": True})), internal=True)
