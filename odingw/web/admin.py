"""The admin endpoint: metrics, health, state."""

from collections.abc import Callable
from html import escape
from typing import Any, Final

from klein import Klein
from msgspec.json import encode

from odingw.errors import FORBIDDEN, RpcError
from odingw.grid.store import Store
from odingw.ops.health import Health
from odingw.ops.metrics import Metrics
from odingw.rpc.jsonrpc import Reply, error_reply
from odingw.web.channel import GatewayRequest
from odingw.web.guard import BasicUsers, is_foreign, is_local_name
from odingw.web.replies import prepare

_MENU: Final = (
    ("/monitor/state", "servers, customers and rooms as JSON"),
    ("/monitor/metrics", "metrics for Prometheus"),
    ("/monitor/healthcheck", "health checks"),
    ("/monitor/threads", "stacks of all threads, and delayed calls"),
    ("/monitor/ping", "ping"),
)


class AdminPages:
    """The routes of the admin endpoint.

    Args:
        users: who may look; if there are none, everybody who can reach the endpoint.
        dump_threads: returns what every thread is doing.
        shared: whether the port is public too, where without users little is shown.
    """

    def __init__(
        self,
        metrics: Metrics,
        health: Health,
        store: Store,
        users: BasicUsers,
        dump_threads: Callable[[], str],
        *,
        shared: bool,
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._store = store
        self._users = users
        self._dump_threads = dump_threads
        self._shared = shared

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        pages: dict[str, Callable[[GatewayRequest], bytes]] = {
            "/metrics": self._show_metrics,
            "/monitor/metrics": self._show_metrics,
            "/monitor/ping": _pong,
            "/monitor/healthcheck": self._show_health,
            "/healthz": _alive,
            "/readyz": self._show_readiness,
        }
        if self._users or not self._shared:
            pages["/monitor"] = self._show_menu
            pages["/monitor/state"] = self._show_state
            pages["/monitor/threads"] = self._show_threads
        for path, page in pages.items():
            _add_page(app, path, self._guarded(page))

    def _guarded(
        self, page: Callable[[GatewayRequest], bytes]
    ) -> Callable[[GatewayRequest], bytes]:
        def guarded(request: GatewayRequest) -> bytes:
            try:
                if is_foreign(request) or not (
                    self._users or self._shared or is_local_name(request)
                ):
                    raise RpcError(
                        FORBIDDEN,
                        "requests from web pages, or by a name while admin.users is empty, "
                        "are not accepted",
                    )
                if self._users and request.path not in (b"/healthz", b"/readyz"):
                    self._users.check(request)
            except RpcError as error:
                return prepare(request, error_reply(error), internal=True)
            return page(request)

        return guarded

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
        body = encode({"ready": ready, "checks": self._health.results()})
        return prepare(request, Reply(200 if ready else 503, body), internal=True)

    def _show_state(self, request: GatewayRequest) -> bytes:
        pools = {
            name: {"servers": list(grid.servers()), "rooms": list(grid.rooms())}
            for name, grid in self._store.pools()
        }
        state: dict[str, Any] = {"pools": pools, "usage": list(self._store.usage())}
        return prepare(request, Reply(200, encode(state)), internal=True)

    def _show_threads(self, request: GatewayRequest) -> bytes:
        return _page(request, "text/plain; charset=utf-8", self._dump_threads().encode())

    def _show_menu(self, request: GatewayRequest) -> bytes:
        items = "".join(
            f'<li><a href="{escape(path)}">{escape(path)}</a> {escape(text)}</li>'
            for path, text in _MENU
        )
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>odingw</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<h1>odingw</h1><ul>{items}</ul></html>"
        )
        request.setHeader(b"content-security-policy", b"default-src 'none'")
        return _page(request, "text/html; charset=utf-8", page.encode())


def _add_page(app: Klein, path: str, page: Callable[[GatewayRequest], bytes]) -> None:
    @app.route(path, methods=["GET"], endpoint=f"GET {path}", strict_slashes=True)
    def show(request: GatewayRequest) -> bytes:
        return page(request)


def _page(request: GatewayRequest, content_type: str, body: bytes) -> bytes:
    prepare(request, Reply(200, body), internal=True)
    request.setHeader("content-type", content_type)
    return body


def _pong(request: GatewayRequest) -> bytes:
    return _page(request, "text/plain; charset=utf-8", b"pong")


def _alive(request: GatewayRequest) -> bytes:
    return prepare(request, Reply(200, encode({"alive": True})), internal=True)
