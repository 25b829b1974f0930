"""Pages in a real browser, and a TURN service of another origin."""

import functools
import json
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Concatenate, Final, ParamSpec, TypeVar

from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.http import Request

from odingw.config import Limits
from odingw.web.app import Root, new_app
from odingw.web.clients import ClientFiles
from odingw.web.site import GatewaySite
from tests.browser import PATIENCE, shared_browser

EMPTY_PAGE: Final = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">'

ALLOW: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "authorization",
    "Cache-Control": "no-store",
}

MODULE: Final = 'import(origin + "/clients/turnRestClient-2.1.0.js")'

HELPERS: Final = """
window.loadScript = (attributes) => new Promise((resolve, reject) => {
  const script = document.createElement("script");
  for (const name in attributes) script[name] = attributes[name];
  script.onload = () => resolve(window.TurnService);
  script.onerror = () => reject(new Error("cannot be loaded"));
  document.head.append(script);
});
window.get = async (...args) => {
  try {
    return (await client.getTurnServiceInfo(...args)).username;
  } catch (error) {
    const { name, message, status, reason } = error;
    return { name, message, status, reason: reason || undefined };
  }
};
0;
"""


Case = TypeVar("Case", bound=TestCase)
P = ParamSpec("P")


def in_thread(
    test: Callable[Concatenate[Case, P], None],
) -> Callable[Concatenate[Case, P], Deferred[None]]:
    """Let a test block, while the sites that it talks to run in the reactor's thread."""

    @functools.wraps(test)
    def run(self: Case, /, *args: P.args, **kwargs: P.kwargs) -> Deferred[None]:
        return deferToThread(test, self, *args, **kwargs)

    return run


class SiteCase(TestCase):
    """Real sites in this process."""

    def serve(self, *parts: Callable[[Klein], None]) -> int:
        """Serve routes on a port of the loopback interface, and return its number."""
        app = new_app()
        for add_to in parts:
            add_to(app)
        loop: Any = reactor
        site = GatewaySite(Root(app, {}), Limits(), loop)
        port = loop.listenTCP(0, site, interface="127.0.0.1")

        def stop() -> Deferred[None]:
            site.abort()
            return site.finish()

        self.addCleanup(stop)
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number


class Service:
    """A TURN service that answers what a test wants.

    Attributes:
        status: HTTP status of its answers.
        ttl: in its answers; None: there is none.
        body: what to answer instead of credentials.
        holds: whether it keeps answers back.
        asked: the ``Authorization`` of each request.
        preflights: method and headers that each preflight asks for.
    """

    def __init__(self) -> None:
        self.status = 200
        self.ttl: float | None = 600
        self.body: str | None = None
        self.holds = False
        self.asked: list[str | None] = []
        self.preflights: list[tuple[str | None, str | None]] = []
        self._held: list[tuple[Deferred[str], str]] = []
        self._is_asked = threading.Event()

    def add_to(self, app: Klein) -> None:
        """Add the route."""

        @app.route("/turn", methods=["GET"], endpoint="turn")
        def answer(request: Request) -> str | Deferred[str]:
            self.asked.append(request.getHeader("authorization"))
            _set_headers(request, ALLOW)
            request.setResponseCode(self.status)
            body = self._body()
            self._is_asked.set()
            if not self.holds:
                return body
            held: Deferred[str] = Deferred()
            self._held.append((held, body))
            return held

        @app.route("/turn", methods=["OPTIONS"], endpoint="OPTIONS turn")
        def preflight(request: Request) -> str:
            method = request.getHeader("access-control-request-method")
            self.preflights.append((method, request.getHeader("access-control-request-headers")))
            _set_headers(request, ALLOW)
            return ""

    def hold(self) -> None:
        """Keep answers back from now on."""
        self.holds = True
        self._is_asked.clear()

    def wait_until_asked(self) -> None:
        """Wait until there is an answer that is kept back."""
        assert self._is_asked.wait(PATIENCE)

    def release(self) -> None:
        """Give the answers that were kept back."""
        self.holds = False
        loop: Any = reactor
        loop.callFromThread(self._answer)

    def _answer(self) -> None:
        for held, body in self._held:
            held.callback(body)
        self._held.clear()

    def _body(self) -> str:
        if self.body is not None:
            return self.body
        user = f"user {len(self.asked)}"
        server = {"urls": ["turn:turn.test"], "username": user, "credential": "secret"}
        info = {"username": user, "password": "secret", "iceServers": [server]}
        return json.dumps(info if self.ttl is None else {**info, "ttl": self.ttl})


def _set_headers(request: Request, headers: dict[str, str]) -> None:
    for name, value in headers.items():
        request.setHeader(name, value)


class Pages:
    """The site of a web developer.

    Attributes:
        html: the page.
        headers: what it is served with.
    """

    def __init__(self) -> None:
        self.html = EMPTY_PAGE
        self.headers = {"Content-Type": "text/html"}

    def add_to(self, app: Klein) -> None:
        """Add the route."""

        @app.route("/", endpoint="page")
        def page(request: Request) -> str:
            _set_headers(request, self.headers)
            return self.html


class PageCase(SiteCase):
    """An empty page whose clock stands still; in it, ``origin`` is where clients and service are.

    Attributes:
        load: JavaScript that gives a promise of the client.
    """

    load: ClassVar[str] = "Promise.resolve()"

    def setUp(self) -> Deferred[None]:  # type: ignore[override]  # trial waits for it
        self.page = shared_browser().new_page()
        self.addCleanup(self.page.close)
        self.service = Service()
        port = self.serve(self.service.add_to, ClientFiles(lambda _: None).add_to)
        self.origin = f"http://127.0.0.1:{port}"
        self.url = f"{self.origin}/turn"
        self.pages = Pages()
        port = self.serve(self.pages.add_to, self.service.add_to)
        self.page_url = f"http://localhost:{port}/"
        self.page.stop_clock()
        return self.open(self.page_url)

    @in_thread
    def open(self, url: str) -> None:
        """Open a page and load the client."""
        self.page.navigate(url)
        self.page.evaluate(HELPERS)
        self.page.evaluate(f"window.origin = {self.origin!r}; window.url = {self.url!r}; 0")
        self.page.evaluate(f"{self.load}.then((client) => {{ window.client = client; }})")
        self.page.sent.clear()
