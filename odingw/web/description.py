"""``/openrpc.json`` and ``/openapi.json``: what an endpoint serves, for programs to read.

The documents are made when they are first asked for, and kept.
"""

from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from typing import Final

from klein import Klein
from msgspec.json import encode
from twisted.web.http import CACHED

from odingw.errors import RpcError
from odingw.rpc.client_api import CLIENT_API
from odingw.rpc.jsonrpc import Reply, error_reply
from odingw.rpc.server_methods import SERVER_API
from odingw.web.app import not_allowed
from odingw.web.channel import GatewayRequest
from odingw.web.openapi_parts import REFUSES, Apis
from odingw.web.replies import prepare

Check = Callable[[GatewayRequest], object]
"""Raises ``RpcError`` if a request may not see something."""

_KEPT: Final = {
    "Cache-Control": "public, max-age=300",
    "Access-Control-Allow-Methods": "GET, OPTIONS",
}
_ASKED_FOR: Final = {"Cache-Control": "no-cache"}
_OTHERS: Final = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
_INTERNAL_PATH: Final = "/internal/openrpc.json"


class _Document:
    """A document, and its entity tag (RFC 9110, section 8.8.3)."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make

    @cached_property
    def body(self) -> bytes:
        return self._make()

    @cached_property
    def etag(self) -> bytes:
        return f'"{sha256(self.body).hexdigest()[:32]}"'.encode()


class ApiDescriptions:
    """The routes of the documents of one endpoint.

    Args:
        title: of the OpenAPI document.
        apis: where the endpoint serves the JSON-RPC APIs.
        check_server: decides who may see the server API's description.
        check_all: decides who may see what the endpoint serves; None: everybody, from any origin.
    """

    def __init__(
        self, title: str, apis: Apis, check_server: Check, check_all: Check | None
    ) -> None:
        self._title = title
        self._apis = apis
        self._check_server = check_server
        self._check_all = check_all

    def add_to(self, app: Klein) -> None:
        """Add the routes; the document knows all that are in the app when it is asked for."""

        def make() -> bytes:
            # Few starts see anybody ask, so none waits for this import.
            from odingw.web.openapi import document, routes_of

            return encode(document(self._title, routes_of(app.url_map), self._apis))

        _add(app, "/openapi.json", _Document(make), self._check_all)
        if self._apis.client:
            _add(app, "/openrpc.json", _Document(lambda: CLIENT_API.document), None)

            @app.route("/openrpc.json", methods=["OPTIONS"], endpoint="OPTIONS /openrpc.json")
            def options(request: GatewayRequest) -> bytes:
                return prepare(request, Reply(200, None, _KEPT), internal=False)

        if self._apis.server:
            server = _Document(lambda: SERVER_API.document)
            _add(app, _INTERNAL_PATH, server, self._check_server)

            # As for the server API itself, no error here has CORS headers.
            @app.route(_INTERNAL_PATH, methods=_OTHERS, endpoint=f"{REFUSES}{_INTERNAL_PATH}")
            def refuse(request: GatewayRequest) -> bytes:
                return prepare(request, error_reply(not_allowed(("GET",))), internal=True)


def _add(app: Klein, path: str, document: _Document, check: Check | None) -> None:
    @app.route(path, methods=["GET"], endpoint=f"GET {path}", strict_slashes=True)
    def show(request: GatewayRequest) -> bytes:
        if check is not None:
            try:
                check(request)
            except RpcError as error:
                return prepare(request, error_reply(error), internal=True)
        return _answer(request, document, internal=check is not None)


def _answer(request: GatewayRequest, document: _Document, *, internal: bool) -> bytes:
    headers = _ASKED_FOR if internal else _KEPT
    if request.setETag(document.etag) is CACHED:
        prepare(request, Reply(304, None, headers), internal=internal)
        # It would be that of the body left out (RFC 9110, section 8.6).
        request.responseHeaders.removeHeader("content-length")
        return b""
    return prepare(request, Reply(200, document.body, headers), internal=internal)
