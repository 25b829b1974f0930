"""The browser clients in a real browser, with a service of another origin."""

import json
import threading
from typing import Any, ClassVar, Final

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.web.http import Request

from odingw.web.clients import LATEST, ClientFiles
from tests.browser import Browser, Page
from tests.test_turn_client_files import SiteCase, in_thread

PAGE: Final = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>page</title>'

ALLOW: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "authorization",
    "Cache-Control": "no-store",
}


class Service:
    """A TURN service that answers what a test wants.

    Attributes:
        status: HTTP status of its answers.
        ttl: in its answers; None: there is none.
        body: what to answer instead of credentials.
        held: None, or a Deferred for whose end it waits before it answers.
        asked: method and ``Authorization`` of each request.
        preflights: what each preflight asks for: the method, and the headers.
    """

    def __init__(self) -> None:
        self.status = 200
        self.ttl: float | None = 600
        self.body: str | None = None
        self.held: Deferred[None] | None = None
        self.asked: list[tuple[str, str | None]] = []
        self.preflights: list[tuple[str | None, str | None]] = []
        self.has_been_asked = threading.Event()

    def add_to(self, app: Klein) -> None:
        @app.route("/turn", methods=["GET", "POST"], endpoint="turn")
        def answer(request: Request) -> str | Deferred[str]:
            self.asked.append((request.method.decode(), request.getHeader("authorization")))
            self.has_been_asked.set()
            self._prepare(request)
            request.setResponseCode(self.status)
            body = self._body()
            if self.held is None:
                return body
            return self.held.addCallback(lambda _: body)

        @app.route("/turn", methods=["OPTIONS"], endpoint="OPTIONS turn")
        def preflight(request: Request) -> str:
            wanted = ("access-control-request-method", "access-control-request-headers")
            method, headers = map(request.getHeader, wanted)
            self.preflights.append((method, headers))
            self._prepare(request)
            return ""

    def _prepare(self, request: Request) -> None:
        for name, value in ALLOW.items():
            request.setHeader(name, value)

    def _body(self) -> str:
        if self.body is not None:
            return self.body
        number = len(self.asked)
        server = {"urls": ["turn:turn.test"], "username": f"user {number}", "credential": "secret"}
        info = {"username": f"user {number}", "password": "secret", "iceServers": [server]}
        return json.dumps(info if self.ttl is None else {**info, "ttl": self.ttl})


def add_page(app: Klein) -> None:
    """Serve an empty page, and one that embeds only what allows it."""

    @app.route("/", endpoint="page")
    def page(request: Request) -> str:
        request.setHeader("content-type", "text/html")
        return PAGE

    @app.route("/isolated", endpoint="isolated")
    def isolated(request: Request) -> str:
        request.setHeader("cross-origin-embedder-policy", "require-corp")
        return page(request)


class ClientCase(SiteCase):
    """A page that has a client loaded, and whose clock stands still.

    Attributes:
        load: a JavaScript expression that gives a promise of the client; ``origin`` is where the
            files are.
    """

    browser: ClassVar[Browser]
    load: ClassVar[str] = ""

    @classmethod
    def setUpClass(cls) -> None:
        cls.browser = Browser()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.browser.close()

    def setUp(self) -> Deferred[None]:
        self.service = Service()
        port = self.serve(self.service.add_to, ClientFiles(lambda _: None).add_to)
        self.origin = f"http://127.0.0.1:{port}"
        self.url = f"{self.origin}/turn"
        self.page_url = f"http://localhost:{self.serve(add_page)}/"
        return self.open_page()

    @in_thread
    def open_page(self) -> None:
        self.page: Page = self.browser.new_page()
        self.addCleanup(self.page.close)
        self.page.stop_clock()
        self.page.navigate(self.page_url)
        self.run_script(
            """
            window.loadScript = (attributes) => new Promise((resolve, reject) => {
              const script = document.createElement("script");
              Object.assign(script, attributes);
              script.onload = () => resolve(window.TurnService);
              script.onerror = () => reject(new Error("cannot be loaded"));
              document.head.append(script);
            });
            """,
            origin=self.origin,
            url=self.url,
        )
        self.run_script(f"{self.load}.then((client) => {{ window.client = client; }})")
        self.page.sent.clear()

    def run_script(self, script: str, **values: object) -> Any:
        """Set variables of the page and evaluate an expression, or statements."""
        for name, value in values.items():
            self.page.evaluate(f"window.{name} = {json.dumps(value)}; 0")
        return self.page.evaluate(script)


class GetTests:
    """What all clients do alike."""


class Get(ClientCase):
    pass
