"""The status page in a real browser, against a real gateway."""

import http.server
import json
import signal
import threading
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.browser import Page, shared_browser
from tests.process import GatewayProcess, customer
from tests.redis_server import RedisServer, require_redis
from tests.test_http import ProcessCase
from tests.test_monitor import LASTING, LISTEN, SERVER, SIGNED_IN, USERS, get

OTHER = "other.test:4433"

EVIL = (
    '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>',
    "\u202eevil \u05e9\u05dc\u05d5\u05dd",
    "w" * 3000,
)
"""Names that rooms may have."""

_ROWS = """
[...document.querySelectorAll("#%s tbody tr")].map((row) => Object.fromEntries(
  [...row.children].map((cell) => [cell.dataset.column, cell.innerText.trim()])))
"""


class PageCase(SynchronousTestCase):
    """A tab that shows the status page, from which nothing may go wrong or elsewhere."""

    gateway: GatewayProcess
    page: Page
    allowed: tuple[str, ...] = ()
    faultless = True

    def open(self, *, stopped: bool = False) -> None:
        """Open the page and wait until it shows something."""
        self.origin = f"http://127.0.0.1:{self.gateway.admin}"
        self.page = shared_browser().new_page()
        self.addCleanup(self.page.close)
        self.page.sign_in("ops", "secret")
        self.page.resize(1440)
        if stopped:
            self.page.stop_clock()
        self.page.navigate(f"{self.origin}/monitor")
        self.page.wait_until("document.querySelector('#live').textContent === 'live'")
        self.addCleanup(self.check_requests)

    def check_requests(self) -> None:
        """No request has left the origin; the icon is in the page itself."""
        urls = {sent.partition(" ")[2] for sent in self.page.sent}
        self.assertIn(f"{self.origin}/monitor/summary", urls)
        foreign = [
            url for url in urls if not url.startswith((f"{self.origin}/", "data:", *self.allowed))
        ]
        self.assertEqual([], foreign)

    def rows(self, table: str) -> list[dict[str, str]]:
        """Return what a table shows, by column."""
        found: list[dict[str, str]] = self.page.evaluate(_ROWS % table)
        return found

    def column(self, table: str, column: str) -> list[str]:
        return [row[column] for row in self.rows(table)]

    def wait_for_text(self, selector: str, *texts: str) -> None:
        """Wait until an element is visible and shows all these texts."""
        self.page.wait_until(
            f"((shown) => shown?.checkVisibility() && {json.dumps(texts)}.every("
            "(text) => shown.innerText.includes(text)))"
            f"(document.querySelector({json.dumps(selector)}))"
        )

    def tab_to(self, selector: str) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(100):
            if self.page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                return
            self.page.press("Tab")
        self.fail(f"the keyboard does not lead to {selector}")


class LivePageTests(ProcessCase, PageCase):
    before: ClassVar[str] = (
        USERS + '[turn]\nsecret_keys = ["0123456789abcdef0123"]\nignore_jwt = true\n'
        'turn_uris = ["turn:127.0.0.1:9"]\nwatch_interval = 3600\n'
    )
    configuration = (
        LASTING + customer(max_peers=40) + '[[gateway.customers]]\nid = "idle"\nmax_rooms = 3\n'
    )

    def setUp(self) -> None:
        super().setUp()
        self.gateway.report(SERVER, ("lobby", 3), ("raid", 9))
        self.gateway.report(OTHER, ("far", 20))
        self.drain(SERVER, "Undrain")
        self.open()

    def drain(self, server: str, method: str = "Drain") -> None:
        self.gateway.call(method, {"server": server}, path="/internal")

    def tearDown(self) -> None:
        if self.faultless:
            self.assertEqual([], self.page.errors)

    def state(self) -> Any:
        return get(self.gateway, "/monitor/state", SIGNED_IN)

    def server(self, address: str) -> dict[str, str]:
        """Return the row of a server."""
        (row,) = (row for row in self.rows("servers-table") if row["server"] == address)
        return row

    def test_the_numbers_are_those_of_the_state(self) -> None:
        self.gateway.connect("lobby", "alice")
        self.gateway.request("GET", "/turn")
        self.page.wait_until(
            "document.querySelector('#turn-note').innerText.startsWith("
            f"'{self.state()['turn']['credentials']} ')"
        )
        state = self.state()
        servers = state["pools"][""]["servers"]
        self.assertEqual({SERVER, OTHER}, {server["address"] for server in servers})
        for server in servers:
            row = self.server(server["address"])
            for name in ("clients", "rooms", "tasks", "reservations"):
                self.assertEqual(str(server[name]), row[name], name)
            self.assertEqual("live", row["state"])
            self.assertEqual(server["version"], row["version"])
            self.assertRegex(row["age"], r"^\d+ s ago$")
        rooms = {
            (room["id"][1], room["server"], str(room["peers"]))
            for room in state["pools"][""]["rooms"]
        }
        self.assertEqual(
            rooms, {(row["room"], row["server"], row["peers"]) for row in self.rows("rooms-table")}
        )
        acme, idle = sorted(self.rows("customers-table"), key=lambda row: row["customer"])
        self.assertIn("32 of 40", acme["peers"])
        self.assertIn("1 expected", acme["peers"])
        self.assertEqual("near its limit", acme["state"])
        self.assertIn("0 of 3", idle["rooms"])
        self.assertIn("no limit", idle["peers"])
        names = {"client": "Clients", "server": "Servers", "turn": "TURN", "admin": "This page"}
        counts = {
            (names[row["api"]], row["method"], outcome): 0
            for row in state["requests"]
            for outcome in ("success", "rejected", "failure")
        }
        for row in state["requests"]:
            counts[names[row["api"]], row["method"], row["outcome"]] += row["count"]
        self.assertEqual(
            counts,
            {
                (row["api"], row["method"], outcome): int(row[outcome])
                for row in self.rows("requests-table")
                for outcome in ("success", "rejected", "failure")
            },
        )
        self.assertEqual(["turn:127.0.0.1:9"], self.column("turn-table", "uri"))
        self.assertEqual(
            {"customers", "shutdown", "state"}, set(self.column("checks-table", "check"))
        )
        for tile, value in (("servers", "2"), ("clients", "32"), ("rooms", "3")):
            self.assertEqual(
                value, self.page.evaluate(f"document.querySelector('#tile-{tile}').innerText")
            )

    def test_changes_appear_without_a_reload(self) -> None:
        self.page.evaluate("window.marker = 1; 0")
        self.gateway.report(OTHER, ("far", 21), ("new", 4))
        self.drain(SERVER)
        self.wait_for_text("#servers-table", "drained", "25")
        self.assertEqual(("25", "2"), (self.server(OTHER)["clients"], self.server(OTHER)["rooms"]))
        self.wait_for_text("#news", f"Server {SERVER} is drained")
        self.wait_for_text("#rooms-table", "new")
        self.assertEqual(1, self.page.evaluate("window.marker"))

    def test_draining_by_keyboard(self) -> None:
        button = f"[aria-label='Drain {SERVER}']"
        self.tab_to(button)
        self.page.press("Enter")
        self.wait_for_text("#confirm", f"Drain {SERVER}?", "keeps its 2 rooms and 12 clients")
        self.page.press("Escape")
        self.page.wait_until("!document.querySelector('#confirm').open")
        self.assertTrue(self.page.evaluate(f'document.activeElement.matches("{button}")'))
        self.page.press("Enter")
        self.tab_to("#confirm-yes")
        self.page.press("Enter")
        self.wait_for_text("#servers-table", "drained")
        drained = {one["address"]: one["drained"] for one in self.state()["pools"][""]["servers"]}
        self.assertTrue(drained[SERVER])
        self.assertFalse(drained[OTHER])
        self.tab_to(f"[aria-label='Undrain {SERVER}']")
        self.page.press("Enter")
        self.tab_to("#confirm-yes")
        self.page.press("Enter")
        self.page.wait_until(f'document.querySelector("{button}") !== null')
        self.gateway.wait_for(f"Undrain of server '{SERVER}' by admin user 'ops': accepted")

    def test_sorting_by_keyboard(self) -> None:
        header = "#servers-table th[data-column=clients]"
        self.tab_to(f"{header} button")
        for order, expected in (("descending", ["20", "12"]), ("ascending", ["12", "20"])):
            self.page.press("Enter")
            self.assertEqual(
                order, self.page.evaluate(f"document.querySelector('{header}').ariaSort")
            )
            self.assertEqual(expected, self.column("servers-table", "clients"))
        self.assertEqual(
            1, self.page.evaluate("document.querySelectorAll('#servers [aria-sort]').length")
        )
        self.tab_to("#rooms-table th[data-column=room] button")
        self.page.press("Enter")
        self.page.wait_until(
            "document.querySelector('#rooms-table tbody th').innerText.trim() === 'far'"
        )

    def test_searching_by_keyboard(self) -> None:
        self.tab_to("#rooms-search")
        self.page.write("RAI")
        self.wait_for_text("#rooms-note", "1 of ")
        self.assertEqual(["raid"], self.column("rooms-table", "room"))
        self.page.write("nothing like it")
        self.wait_for_text("#rooms-empty", "No room matches")
        self.tab_to("#rooms-clear")
        self.page.press("Enter")
        self.wait_for_text("#rooms-table", "lobby", "raid", "far")

    def test_the_rooms_of_one_server(self) -> None:
        self.tab_to(f"[aria-label='1 room of {OTHER}: show']")
        self.page.press("Enter")
        self.page.wait_until("document.querySelectorAll('#rooms-table tbody tr').length === 1")
        self.assertEqual(["far"], self.column("rooms-table", "room"))

    def test_the_first_tab_leads_past_the_menu(self) -> None:
        self.page.press("Tab")
        self.assertTrue(self.page.evaluate("document.activeElement.matches('.skip')"))
        self.page.press("Enter")
        self.page.wait_until("document.activeElement.matches('main')")

    def test_names_are_text_whatever_they_say(self) -> None:
        self.gateway.report(SERVER, *((name, 100) for name in EVIL))
        self.wait_for_text("#rooms-table", "<img src=x", "evil")
        self.assertIn(EVIL[0], self.column("rooms-table", "room"))
        self.assertEqual(
            [None, 0],
            self.page.evaluate(
                "[window.hacked ?? null, document.querySelectorAll('main img, main script').length]"
            ),
        )
        for width in (390, 800, 1100, 1440):
            for dark in (False, True):
                self.page.resize(width, dark=dark)
                self.page.wait_until(f"innerWidth === {width}")
                beyond = (
                    "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                )
                self.assertEqual(0, self.page.evaluate(beyond), width)

    def test_plots_say_what_they_show(self) -> None:
        titles = self.page.evaluate(
            "[...document.querySelectorAll('.chart h3')].map((h) => h.innerText)"
        )
        labels = self.page.evaluate(
            "[...document.querySelectorAll('.chart svg.plot')].map((plot) => plot.ariaLabel)"
        )
        self.assertEqual(6, len(titles))
        for title, label in zip(titles, labels, strict=True):
            self.assertTrue(label.startswith(f"{title}, last 15 minutes. Now: "), label)
        self.tab_to(".chart summary")
        self.page.press("Enter")
        self.page.wait_until("document.querySelectorAll('.chart .numbers tbody tr').length > 0")

    def test_scripts_and_styles_in_the_page_are_refused(self) -> None:
        self.assertEqual([], self.page.errors)
        self.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'),"
            " { textContent: 'window.hacked = 1' }));"
            "document.body.setAttribute('style', 'color: red'); 0"
        )
        self.page.wait_until("true")
        self.assertIsNone(self.page.evaluate("window.hacked ?? null"))
        self.assertEqual(2, len(self.page.errors), self.page.errors)
        for error in self.page.errors:
            self.assertIn("Content Security Policy", error)
        self.faultless = False

    def test_another_page_cannot_drain(self) -> None:
        """Its visitor has signed in to the status page; the browser gives the credentials."""
        elsewhere = _Elsewhere()
        self.addCleanup(elsewhere.close)
        self.allowed = (elsewhere.url,)
        # The browser complains of each refusal.
        self.faultless = False
        self.page.navigate(elsewhere.url)
        body = json.dumps({"pool": "", "server": SERVER})
        for mode, kind in (
            ("no-cors", "text/plain"),
            ("cors", "text/plain"),
            ("cors", "application/json"),
        ):
            self.page.evaluate(
                f"fetch('{self.origin}/monitor/drain', {{ method: 'POST', mode: '{mode}',"
                f" credentials: 'include', headers: {{ 'Content-Type': '{kind}' }},"
                f" body: {json.dumps(body)} }}).then(() => 0, () => 0)"
            )
        # A form whose one field reads as JSON: name and value with "=" in between.
        name, value = body[:-2], '"}'
        self.page.evaluate(
            "(() => { const form = document.createElement('form');"
            " form.method = 'post'; form.enctype = 'text/plain';"
            f" form.action = '{self.origin}/monitor/drain';"
            " const field = document.createElement('input');"
            f" field.name = {json.dumps(name)}; field.value = {json.dumps(value)};"
            " form.append(field); document.body.append(form); form.submit(); })()"
        )
        self.page.wait_until(
            "location.pathname === '/monitor/drain' && document.readyState === 'complete'"
        )
        self.assertIn("are not accepted", self.page.evaluate("document.documentElement.innerText"))
        posts = [sent for sent in self.page.sent if sent == f"POST {self.origin}/monitor/drain"]
        self.assertGreaterEqual(len(posts), 3)
        self.assertEqual({False}, {one["drained"] for one in self.state()["pools"][""]["servers"]})

    def test_nothing_is_asked_while_nobody_looks(self) -> None:
        self.open(stopped=True)
        asked = f"GET {self.origin}/monitor/summary"
        self.page.wait_for("testClock.timers > 0")
        self.page.sent.clear()
        self.page.advance(2)
        self.page.wait_for("testClock.timers > 0")
        self.assertEqual(1, self.page.sent.count(asked))
        self.look(hidden=True)
        self.page.sent.clear()
        self.page.advance(600)
        self.assertEqual([], self.page.sent)
        self.look(hidden=False)
        self.page.wait_for("testClock.timers > 0")
        self.assertEqual(1, self.page.sent.count(asked))

    def look(self, *, hidden: bool) -> None:
        self.page.evaluate(
            "Object.defineProperty(document, 'hidden',"
            f" {{ value: {json.dumps(hidden)}, configurable: true }});"
            "document.dispatchEvent(new Event('visibilitychange')); 0"
        )


class AloneTests(PageCase):
    """A gateway that nobody has set up yet."""

    def test_what_to_do_first(self) -> None:
        self.gateway = GatewayProcess(LASTING, LISTEN).start()
        self.addCleanup(self.gateway.stop)
        self.open()
        self.wait_for_text("#servers-empty", "No server has reported yet", "/internal")
        self.wait_for_text("#customers-empty", "nobody is let in", "[[gateway.customers]]")
        self.wait_for_text("#rooms-empty", "No room is open")
        self.wait_for_text("#turn-off", "TURN is not configured")
        self.wait_for_text("#requests-empty", "Nobody has called yet")
        self.gateway.report(SERVER)
        self.wait_for_text("#servers-table", SERVER, "live")
        self.wait_for_text("#news", f"Server {SERVER} has joined")
        self.wait_for_text("#servers-note", "admin.users")
        buttons = "[...document.querySelectorAll('#servers-table td.action button')]"
        self.assertEqual([0], self.page.evaluate(f"{buttons}.map((one) => one.offsetWidth)"))
        self.assertEqual([], self.page.errors)


class TroubleTests(PageCase):
    """What the page says when something is wrong."""

    def test_a_server_falls_silent_and_then_the_gateway(self) -> None:
        self.gateway = GatewayProcess("disable_timeout = 4\nreport_interval = 1\n", USERS).start()
        self.addCleanup(self.gateway.stop)
        self.open()
        self.gateway.report(SERVER)
        self.wait_for_text("#servers-table", "disabled")
        self.wait_for_text("#news", f"Server {SERVER} is disabled")
        assert self.gateway.process is not None
        self.gateway.process.send_signal(signal.SIGTERM)
        self.gateway.process.wait(30)
        self.wait_for_text("#banner", "No answer since", "Trying again in")
        self.wait_for_text("#news", "The gateway does not answer")
        self.gateway.start()
        self.page.evaluate("document.querySelector('#retry').click()")
        self.page.wait_until("document.querySelector('#banner').hidden")
        self.wait_for_text("#news", "The gateway answers again")

    def test_a_drain_that_cannot_be_stored(self) -> None:
        require_redis(self)
        redis = RedisServer(persistent=False).start()
        self.addCleanup(redis.close)
        before = f'{USERS}[state]\nurl = "{redis.url()}"\n'
        self.gateway = GatewayProcess(LASTING + customer(), before).start()
        self.addCleanup(self.gateway.stop)
        self.gateway.wait_for("the state is shared by Redis")
        self.gateway.report(SERVER)
        self.open()
        self.wait_for_text("#servers-table", SERVER)
        redis.stop()
        self.wait_for_text("#ready", "not ready")
        self.page.evaluate(f"document.querySelector(\"[aria-label='Drain {SERVER}']\").click()")
        self.page.evaluate("document.querySelector('#confirm-yes').click()")
        self.wait_for_text("#action-result", "was not drained: state store unavailable; try again")
        self.assertTrue(self.page.evaluate("document.querySelector('#banner').hidden"))
        self.gateway.wait_for("by admin user 'ops': store_unavailable")


class _Elsewhere:
    """A site of somebody else."""

    def __init__(self) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = b"<!doctype html><title>elsewhere</title><body>"
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://localhost:{self._server.server_address[1]}/"

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
