"""``/internal`` on public endpoints that do not serve it: refused, with the ways out."""

from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from klein import Klein

from odingw.config import Trusted
from odingw.errors import FORBIDDEN, RpcError
from odingw.ops.logs import seldom
from odingw.rpc.jsonrpc import error_reply
from odingw.web.address import socket_peer
from odingw.web.channel import GatewayRequest
from odingw.web.guard import shows_proxy
from odingw.web.openapi_parts import REFUSES
from odingw.web.replies import prepare

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")


class Elsewhere:
    """Refuses the server API.

    Args:
        paths: where it would be, one for each pool and ``/internal``.
        message: told to callers.
        trusted: proxies that are believed about addresses.
        now: seconds by any steady clock.
        on_local: told of the path when a program on this host is refused, once a minute.
        on_refused: told why, whenever any other caller is.
    """

    def __init__(
        self,
        paths: Sequence[str],
        message: str,
        trusted: Sequence[Trusted],
        now: Callable[[], float],
        on_local: Callable[[str], None],
        on_refused: Callable[[str], None],
    ) -> None:
        self._paths = paths
        self._message = message
        self._trusted = trusted
        self._on_local = seldom(on_local, now)
        self._on_refused = on_refused

    def check(self, request: GatewayRequest, proxied: bool) -> NoReturn:
        """Refuse a request.

        Args:
            request: the request.
            proxied: whether its connection came through a PROXY line.

        Raises:
            RpcError: always (403).
        """
        peer = socket_peer(request)
        if peer is None or not peer.is_loopback or proxied or shows_proxy(request, self._trusted):
            self._on_refused(self._message)
        else:
            self._on_local(self._path_of(request))
        raise RpcError(FORBIDDEN, self._message)

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        for path in self._paths:
            self._add(app, path)

    def _add(self, app: Klein, path: str) -> None:
        @app.route(path, methods=_METHODS, endpoint=f"{REFUSES}{path}", strict_slashes=True)
        def refuse(request: GatewayRequest) -> bytes:
            try:
                self.check(request, request.site.proxied)
            except RpcError as error:
                return prepare(request, error_reply(error), internal=True)

    def _path_of(self, request: GatewayRequest) -> str:
        """Return the path that was asked for; while the body comes, it is not known yet."""
        path = (request.path or b"").decode("latin-1")
        return path if path in self._paths else self._paths[0]
