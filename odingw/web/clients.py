"""``/clients/``: the browser clients of the TURN service, and a page that lists them."""

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256, sha384
from html import escape
from importlib.resources import files
from typing import Final

from klein import Klein
from msgspec import Struct
from msgspec.json import encode

from odingw.rpc.jsonrpc import Reply
from odingw.web.channel import GatewayRequest
from odingw.web.replies import prepare

VERSIONS: Final = (
    "turnRestClient-1.1.0.js",
    "turnRestClient-1.2.0.js",
    "turnRestClient-1.3.0.js",
    "turnRestClient-2.0.0.js",
    "turnRestClient-2.0.0.d.ts",
    "turnRestClient-2.1.0.js",
    "turnRestClient-2.1.0.d.ts",
)
"""The published files. What they hold never changes: browsers keep them for a year unasked."""

NEWEST_SCRIPT: Final = "turnRestClient-1.3.0.js"
"""The newest of them that a plain script tag can load."""

LATEST: Final = "turnRestClient-latest.js"
"""Another name for the newest script, whichever that is."""

INDEX: Final = "index"
"""The name under which requests for the list are counted."""

_PATH: Final = "/clients/"
_FOREVER: Final = "public, max-age=31536000, immutable"
_SHORT: Final = "public, max-age=300"
_JAVASCRIPT: Final = "text/javascript; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"
_OPEN: Final = {
    "Access-Control-Allow-Origin": "*",
    # A page under Cross-Origin-Embedder-Policy loads only what says this.
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_ENTITY_TAG: Final = re.compile(r'\*|"[\x21\x23-\x7e\x80-\xff]*"')

_EXAMPLE: Final = """\
<script src="{latest}"></script>
<script>
  TurnService.getTurnServiceInfo("https://…/turn", jwt)
    .then(function (info) {{ … info.iceServers … }});
</script>"""


class _Document(Struct, frozen=True):
    """Something to hand out as it is.

    Attributes:
        body: its bytes.
        content_type: what they are.
        cache_control: for how long they may be kept.
        etag: the entity tag (RFC 9110, section 8.8.3).
    """

    body: bytes
    content_type: str
    cache_control: str
    etag: str


class _Listed(Struct, frozen=True):
    """A published file, in the list that programs read."""

    name: str
    bytes: int
    integrity: str


class _List(Struct, frozen=True):
    """The list that programs read."""

    latest: str
    files: list[_Listed]


class ClientFiles:
    """Serves the browser clients from memory: no request touches the file system.

    Args:
        on_request: told the name of each file that is asked for, or :data:`INDEX`.

    Raises:
        OSError: a file is not where the package has it.
    """

    def __init__(self, on_request: Callable[[str], None]) -> None:
        self._on_request = on_request
        folder = files("odingw.turn") / "clients"
        self._files = {
            name: _document((folder / name).read_bytes(), _content_type(name), _FOREVER)
            for name in VERSIONS
        }
        page = _document(_page(self._files), _HTML, _SHORT)
        data = _document(_data(self._files), _JSON, _SHORT)
        self._index = {_HTML: page, _JSON: data}

    def add_to(self, app: Klein) -> None:
        """Add the routes: ``/clients/``, and one for each file."""
        newest = self._files[NEWEST_SCRIPT]
        latest = _document(newest.body, newest.content_type, _SHORT)
        for name, document in {**self._files, LATEST: latest}.items():
            self._add_file(app, name, document)

        @app.route(_PATH, methods=["GET"], endpoint=f"GET {_PATH}", strict_slashes=True)
        def index(request: GatewayRequest) -> bytes:
            self._on_request(INDEX)
            accept = (request.getHeader("accept") or "").lower()
            kind = _JSON if _JSON in accept and "text/html" not in accept else _HTML
            body = _answer(request, self._index[kind])
            request.setHeader("vary", "Accept")
            request.setHeader("content-security-policy", "default-src 'none'")
            return body

    def _add_file(self, app: Klein, name: str, document: _Document) -> None:
        path = f"{_PATH}{name}"

        @app.route(path, methods=["GET"], endpoint=f"GET {path}", strict_slashes=True)
        def show(request: GatewayRequest) -> bytes:
            self._on_request(name)
            return _answer(request, document)


def _document(body: bytes, content_type: str, cache_control: str) -> _Document:
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    return _Document(body, content_type, cache_control, etag)


def _integrity(document: _Document) -> str:
    """Return what a ``script`` element's ``integrity`` attribute holds."""
    return f"sha384-{b64encode(sha384(document.body).digest()).decode()}"


def _answer(request: GatewayRequest, document: _Document) -> bytes:
    """Hand out a document, or tell the caller that it has it."""
    headers = {**_OPEN, "Cache-Control": document.cache_control, "ETag": document.etag}
    if _is_known(request, document.etag):
        body = prepare(request, Reply(304, None, headers), internal=True)
        # It would be that of the body left out (RFC 9110, section 8.6).
        request.responseHeaders.removeHeader("content-length")
        return body
    body = prepare(request, Reply(200, document.body, headers), internal=True)
    request.setHeader("content-type", document.content_type)
    return body


def _is_known(request: GatewayRequest, etag: str) -> bool:
    """Compare weakly, since proxies that compress make tags weak (RFC 9110, section 13.1.2)."""
    values = request.requestHeaders.getRawHeaders(b"if-none-match") or []
    tags = _ENTITY_TAG.findall(", ".join(value.decode("latin-1") for value in values))
    return "*" in tags or etag in tags


def _content_type(name: str) -> str:
    # Nobody has registered a type for TypeScript; as text, browsers show it and Deno reads it.
    return _JAVASCRIPT if name.endswith(".js") else _TEXT


def _data(documents: dict[str, _Document]) -> bytes:
    listed = [
        _Listed(name, len(document.body), _integrity(document))
        for name, document in documents.items()
    ]
    return encode(_List(NEWEST_SCRIPT, listed))


def _page(documents: dict[str, _Document]) -> bytes:
    rows = "".join(
        f'<tr><td><a href="{name}">{name}</a><td>{len(document.body)}'
        f"<td><code>{_integrity(document)}</code>"
        for name, document in documents.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>TURN REST clients</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<h1>TURN REST clients</h1>"
        f"<pre>{escape(_EXAMPLE.format(latest=LATEST))}</pre>"
        "<p>A published version never changes. "
        f'<a href="{LATEST}">{LATEST}</a> is {NEWEST_SCRIPT}, '
        "the newest that a script tag can load; from 2.0.0 on they are modules.</p>"
        f"<table><tr><th>file<th>bytes<th>integrity{rows}</table></html>"
    ).encode()
