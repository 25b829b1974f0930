"""Which path is served by what: the routes of the public, internal and admin endpoints."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from odingw.errors import METHOD_NOT_ALLOWED, NOT_FOUND, RpcError
from odingw.rpc.jsonrpc import Reply, error_reply
from odingw.web.api import Answer, ClientHttp, ServerHttp
from odingw.web.channel import GatewayRequest
from odingw.web.replies import prepare

_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT")
)

_PLAIN: Final = re.compile(rb"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?")
"""A path (RFC 3986, section 3.3) without empty segments, and without ``%``.

Klein decodes what stands behind a ``%`` and takes ``//`` for ``/``. A proxy's rules for paths may
not know such other names of a path, so there are none.
"""

ShortCut: TypeAlias = tuple[Callable[[GatewayRequest], Answer], bool]
"""What answers, and whether its replies have no need of CORS headers."""

ShortCuts: TypeAlias = Mapping[tuple[bytes, bytes], ShortCut]
"""By method and exact path."""


class Root(Resource):
    """Everything that one kind of endpoint serves.

    The routes are Klein's. Its URL matching costs more than a whole ``Connect`` otherwise does, so
    what is asked for most takes a short cut to the very handler that Klein's route names.

    Args:
        app: the routes.
        short_cuts: those that there are.
    """

    isLeaf = True  # noqa: N815  -- Twisted's name

    def __init__(self, app: Klein, short_cuts: ShortCuts) -> None:
        super().__init__()
        self._klein = app.resource()
        self.short_cuts = short_cuts

    def render(self, request: Any) -> Any:
        """Answer a request that took no short cut."""
        if not _PLAIN.fullmatch(request.path):
            return _tell(request, RpcError(NOT_FOUND, "not found"))
        if request.method not in _METHODS:
            return _tell(request, not_allowed(("POST", "OPTIONS")))
        return self._klein.render(request)


def _is_internal(request: GatewayRequest) -> bool:
    return request.site.is_internal(request.path)


def _tell(request: GatewayRequest, error: RpcError) -> bytes:
    return prepare(request, error_reply(error), internal=_is_internal(request))


def not_allowed(methods: Iterable[str]) -> RpcError:
    """Return the error for a method that a path does not know; ``methods`` are those it knows."""
    allow = ", ".join(sorted(set(methods) - {"HEAD"}))
    return RpcError(METHOD_NOT_ALLOWED, "method not allowed", headers={"Allow": allow})


def new_app() -> Klein:
    """Return an app without routes, in which errors have JSON bodies."""
    app = Klein()

    @app.handle_errors(MethodNotAllowed)
    def method_not_allowed(request: GatewayRequest, failure: Failure) -> bytes:
        valid = failure.value.valid_methods if isinstance(failure.value, MethodNotAllowed) else ()
        return _tell(request, not_allowed(valid or ()))

    @app.handle_errors(HTTPException)
    def not_found(request: GatewayRequest, failure: Failure) -> bytes:
        return _tell(request, RpcError(NOT_FOUND, "not found"))

    return app


def add_api(app: Klein, path: str, api: ClientHttp | ServerHttp) -> None:
    """Serve a JSON-RPC API at a path."""

    @app.route(path, methods=["POST"], endpoint=f"POST {path}", strict_slashes=True)
    def post(request: GatewayRequest) -> bytes | Deferred[bytes]:
        answer = api.handle(request)
        if isinstance(answer, Reply):
            return prepare(request, answer, internal=api.internal)
        return answer.addCallback(lambda reply: prepare(request, reply, internal=api.internal))

    @app.route(path, methods=["OPTIONS"], endpoint=f"OPTIONS {path}", strict_slashes=True)
    def options(request: GatewayRequest) -> bytes:
        return prepare(request, Reply(200, None), internal=api.internal)


def add_ping(app: Klein, path: str) -> None:
    """Serve the word ``pong``."""

    @app.route(path, methods=["GET"], endpoint=f"GET {path}", strict_slashes=True)
    def ping(request: GatewayRequest) -> bytes:
        body = prepare(request, Reply(200, b"pong"), internal=False)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return body


def gateway_root(
    clients: Mapping[str, ClientHttp],
    servers: Mapping[str, ServerHttp],
    default: str,
    add_more: Sequence[Callable[[Klein], None]] = (),
    short_cuts: ShortCuts = MappingProxyType({}),
) -> Root:
    """Return the root of a public or internal endpoint.

    Args:
        clients: the client API of each pool; empty where only servers are served.
        servers: the server API of each pool; empty where only clients are served.
        default: the pool that is served without its name in the path.
        add_more: add further routes: TURN, its clients, an admin endpoint that shares the port.
        short_cuts: to some of these.
    """
    app = new_app()
    for name, client in clients.items():
        if name:
            add_api(app, f"/{name}/", client)
        if name == default:
            add_api(app, "/", client)
    for name, server in servers.items():
        if name:
            add_api(app, f"/{name}/internal", server)
        if name == default:
            add_api(app, "/internal", server)
    add_ping(app, "/ping")
    for add in add_more:
        add(app)
    connect: ShortCuts = {(b"POST", b"/"): (clients[default].handle, False)} if clients else {}
    return Root(app, {**connect, **short_cuts})
