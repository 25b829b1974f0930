"""Getting credentials with the browser clients, in a real browser."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred

from odingw.web.clients import LATEST, NEWEST_SCRIPT, VERSIONS
from tests.process import free_port
from tests.turn_page import EMPTY_PAGE, HELPERS, MODULE, PageCase, in_thread

LATER_THAN_ES5: Final = """
for (const name of ["fetch", "AbortController", "Map", "Set", "URL", "queueMicrotask"]) {
  delete window[name];
}
for (const name of ["assign", "entries", "values"]) delete Object[name];
for (const name of ["includes", "find"]) delete Array.prototype[name];
for (const name of ["includes", "startsWith"]) delete String.prototype[name];
delete Promise.prototype.finally;
"""


class ScriptTests(PageCase):
    """What all clients do alike; here, the one for a script tag."""

    load = 'loadScript({ src: origin + "/clients/turnRestClient-1.1.0.js" })'
    no_urls: ClassVar[Sequence[str]] = ("/turn", "//turn.test/turn", " https://a")

    def get(self, *args: object) -> Any:
        """Call ``getTurnServiceInfo``; returns the user name, or what the error says."""
        return self.page.evaluate(f"get(...{json.dumps(args)})")

    @in_thread
    def test_the_jwt_is_sent_after_a_preflight(self) -> None:
        self.assertEqual("user 1", self.get(self.url, "a.b.c"))
        self.assertEqual(["Bearer a.b.c"], self.service.asked)
        self.assertEqual([("GET", "authorization")], self.service.preflights)
        self.assertEqual([f"GET {self.url}"], self.page.sent)
        self.assertEqual([], self.page.errors)

    @in_thread
    def test_without_a_jwt_there_is_no_preflight(self) -> None:
        for args in ((), (None,), (None, False)):
            self.assertEqual("user 1", self.get(self.url, *args))
        self.assertEqual([None], self.service.asked)
        self.assertEqual([], self.service.preflights)

    @in_thread
    def test_the_answer_is_given_as_it_is(self) -> None:
        info = self.page.evaluate("client.getTurnServiceInfo(url, 'jwt')")
        server = {"urls": ["turn:turn.test"], "username": "user 1", "credential": "secret"}
        self.assertEqual(
            {"username": "user 1", "password": "secret", "ttl": 600, "iceServers": [server]}, info
        )
        self.assertTrue(self.page.evaluate("client.getTurnInfo === client.getTurnServiceInfo"))

    @in_thread
    def test_calls_at_once_share_a_request(self) -> None:
        users = self.page.evaluate("Promise.all([get(url, 'a'), get(url, 'a'), get(url, 'a')])")
        self.assertEqual(["user 1"] * 3, users)
        self.assertEqual(["Bearer a"], self.service.asked)
        self.assertEqual(0, self.page.evaluate("testClock.timers"))

    @in_thread
    def test_every_caller_has_an_object_of_its_own(self) -> None:
        change = """(async () => {
          const infos = await Promise.all([1, 2].map(() => client.getTurnServiceInfo(url)));
          infos[0].iceServers.length = 0;
          infos.push(await client.getTurnServiceInfo(url));
          return infos.map((info) => info.iceServers.length);
        })()"""
        self.assertEqual([0, 1, 1], self.page.evaluate(change))
        self.assertEqual(1, len(self.service.asked))

    @in_thread
    def test_an_answer_is_kept_until_shortly_before_its_end(self) -> None:
        for ttl, kept in ((600, 540), (43200, 43140), (601, 541), (599, 539.1), (20, 18)):
            self.service.ttl = ttl
            jwt = f"for {ttl}"
            user = self.get(self.url, jwt)
            self.page.advance(kept - 0.001)
            self.assertEqual(user, self.get(self.url, jwt), ttl)
            self.page.advance(0.001)
            self.assertNotEqual(user, self.get(self.url, jwt), ttl)
            self.assertEqual([f"Bearer {jwt}"] * 2, self.service.asked[-2:])
        self.assertEqual(10, len(self.service.asked))

    @in_thread
    def test_its_time_runs_from_the_question(self) -> None:
        self.service.hold()
        self.page.evaluate("window.slow = get(url); 0")
        self.service.wait_until_asked()
        self.page.advance(25)
        self.service.release()
        self.assertEqual("user 1", self.page.evaluate("slow"))
        self.page.advance(540 - 25)
        self.assertEqual("user 2", self.get(self.url))

    @in_thread
    def test_an_answer_is_not_kept_if_the_clock_was_set_back(self) -> None:
        self.get(self.url)
        self.page.evaluate("testClock.sleep(-1000)")
        self.assertEqual("user 2", self.get(self.url))

    @in_thread
    def test_an_answer_without_a_usable_ttl_is_not_kept(self) -> None:
        for ttl in (None, 0, -5):
            self.service.ttl = ttl
            self.assertNotEqual(self.get(self.url), self.get(self.url), ttl)

    @in_thread
    def test_answers_are_kept_by_url_and_jwt(self) -> None:
        calls = ((self.url, "a"), (self.url, "b"), (self.url,), (f"{self.url}?x=1", "a"))
        for _ in range(2):
            users = [self.get(*call) for call in calls]
            self.assertEqual(["user 1", "user 2", "user 3", "user 4"], users)
        self.assertEqual(["Bearer a", "Bearer b", None, "Bearer a"], self.service.asked)

    @in_thread
    def test_force_asks_anew(self) -> None:
        users = [self.get(self.url, "a", force) for force in (False, True, False, True)]
        self.assertEqual(["user 1", "user 2", "user 2", "user 3"], users)

    @in_thread
    def test_force_shares_a_request_that_is_on_its_way(self) -> None:
        users = self.page.evaluate("Promise.all([get(url), get(url, null, true), get(url)])")
        self.assertEqual(["user 1"] * 3, users)

    @in_thread
    def test_a_refusal_is_an_error_with_the_status(self) -> None:
        for status in (401, 403, 503):
            self.service.status = status
            self.service.asked.clear()
            both = self.page.evaluate("Promise.all([get(url, 'bad'), get(url, 'bad')])")
            message = f"TURN service: HTTP {status}"
            self.assertEqual([{"name": "Error", "message": message, "status": status}] * 2, both)
            self.assertEqual(["Bearer bad"], self.service.asked)
        self.service.status = 200
        self.assertEqual("user 2", self.get(self.url, "bad"))

    @in_thread
    def test_a_refusal_does_not_spoil_what_is_kept(self) -> None:
        self.get(self.url)
        self.service.status = 503
        self.assertEqual(503, self.get(self.url, None, True)["status"])
        self.assertEqual("user 1", self.get(self.url))

    @in_thread
    def test_a_url_that_is_not_http_is_refused(self) -> None:
        for url in ("ftp://turn.test/turn", "javascript:0", "", None, *self.no_urls):
            error = self.get(url)
            self.assertEqual("TypeError", error["name"], url)
            self.assertIn("must begin with https:// or http://", error["message"])
        promise = "client.getTurnServiceInfo('ftp:x').catch(() => 'it is a promise')"
        self.assertEqual("it is a promise", self.page.evaluate(promise))
        self.assertEqual([], self.page.sent)
        self.assertEqual("user 1", self.get(self.url.replace("http", "HTTP")))

    @in_thread
    def test_nonsense_is_an_error(self) -> None:
        for body in ("", "no JSON", "null", '"text"', "17"):
            self.service.body = body
            error = self.get(self.url)
            message = "TURN service: the answer is not a JSON object"
            self.assertEqual({"name": "Error", "message": message}, error, body)
        self.assertEqual(5, len(self.service.asked))

    @in_thread
    def test_a_jwt_that_is_no_header_is_an_error(self) -> None:
        error = self.page.evaluate("client.getTurnServiceInfo(url, 'a\\nb').catch(() => 'error')")
        self.assertEqual("error", error)
        self.assertEqual(0, self.page.evaluate("testClock.timers"))

    @in_thread
    def test_a_service_that_cannot_be_reached_is_an_error_without_status(self) -> None:
        error = self.get(f"http://127.0.0.1:{free_port()}/turn", "jwt")
        self.assertEqual({"name", "message"}, error.keys())

    @in_thread
    def test_a_request_without_an_answer_ends(self) -> None:
        self.service.hold()
        self.page.evaluate("window.slow = get(url); 0")
        self.service.wait_until_asked()
        self.service.holds = False
        self.page.advance(29.999)
        pending = "Promise.race([slow, Promise.resolve('pending')])"
        self.assertEqual("pending", self.page.evaluate(pending))
        self.page.advance(0.001)
        error = {"name": "Error", "message": "TURN service: no answer in time"}
        self.assertEqual(error, self.page.evaluate("slow"))
        self.assertEqual("user 2", self.get(self.url))


class OldScriptTests(ScriptTests):
    """The script for old browsers, without what they do not have."""

    load = f"""(() => {{
      {LATER_THAN_ES5}
      return loadScript({{ src: origin + "/clients/{NEWEST_SCRIPT}" }});
    }})()"""
    no_urls = ("https://", "mailto:a")

    @in_thread
    def test_a_relative_url(self) -> None:
        """It is seen from the page, not from where the client comes from."""
        here = f"{self.page_url}turn"
        for url in ("/turn", "turn", "./turn", "x/../turn", here.removeprefix("http:"), here):
            self.assertEqual("user 1", self.get(url, "a"), url)
        self.assertEqual([f"GET {here}"], self.page.sent)
        self.page.evaluate(f"document.head.innerHTML = '<base href=\"{self.origin}\">'")
        self.assertEqual("user 2", self.get("turn", "a"))
        self.assertEqual(f"GET {self.url}", self.page.sent[-1])

    @in_thread
    def test_the_reason_of_a_refusal(self) -> None:
        self.service.status = 400
        for body, reason in (
            ({"error": {"code": -32001, "message": "token has expired"}}, "token has expired"),
            (
                {"error": {"message": "Invalid params", "data": {"detail": "ttl: too much"}}},
                "Invalid params: ttl: too much",
            ),
            ({"error": {"message": "", "data": {"detail": "ttl"}}}, "ttl"),
            ({"error": {"message": "x" * 1000}}, "x" * 300),
            ({"error": {"message": 5, "data": 5}}, None),
            ({"error": {"message": {}, "data": {"detail": []}}}, None),
            ({"error": "invalid_token"}, None),
            ({"error": None}, None),
            ([], None),
            (None, None),
        ):
            self.service.body = json.dumps(body)
            message = "TURN service: HTTP 400" + (f", {reason}" if reason else "")
            expected = {"name": "Error", "message": message, "status": 400}
            if reason:
                expected["reason"] = reason
            self.assertEqual(expected, self.get(self.url, "bad"), body)
        self.service.body = "<h1>Bad Gateway</h1>"
        self.assertEqual("TURN service: HTTP 400", self.get(self.url, "bad")["message"])


class ModuleTests(OldScriptTests):
    """The module."""

    load = MODULE

    @in_thread
    def test_names(self) -> None:
        names = ["getTurnInfo", "getTurnServiceInfo", "watchTurnServiceInfo"]
        self.assertEqual(names, self.page.evaluate("Object.keys(client)"))


class EmbeddingTests(PageCase):
    """Ways to load a script from another origin."""

    @in_thread
    def test_the_latest(self) -> None:
        self.page.evaluate(f"loadScript({{ src: origin + '/clients/{LATEST}' }})")
        names = self.page.evaluate("Object.keys(window.TurnService)")
        self.assertEqual(["getTurnServiceInfo", "getTurnInfo"], names)

    @in_thread
    def test_with_its_integrity_checked(self) -> None:
        load = """(async () => {
          const options = { headers: { Accept: "application/json" } };
          const { files } = await (await fetch(origin + "/clients/", options)).json();
          for (const { name, integrity } of files.filter(({ name }) => name.endsWith(".js"))) {
            const type = name.includes("-2.") ? "module" : "text/javascript";
            const src = `${origin}/clients/${name}`;
            await loadScript({ src, type, integrity, crossOrigin: "anonymous" });
          }
          return files.length;
        })()"""
        self.assertEqual(len(VERSIONS), self.page.evaluate(load))
        self.assertEqual([], self.page.errors)

    @in_thread
    def test_from_a_page_that_isolates_itself(self) -> None:
        self.pages.headers["Cross-Origin-Embedder-Policy"] = "require-corp"
        self.page.navigate(self.page_url)
        self.page.evaluate(HELPERS)
        self.page.evaluate(f"loadScript({{ src: '{self.origin}/clients/{LATEST}' }})")
        self.assertEqual([], self.page.errors)


class ExampleTests(PageCase):
    """What the documentation shows works as it is shown."""

    def setUp(self) -> Deferred[None]:  # type: ignore[override]  # trial waits for it
        text = (Path(__file__).parent.parent / "docs" / "turn-clients.rst").read_text("utf-8")
        found = re.findall(r"\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", text)
        self.examples = [
            code if language == "html" else f'<script type="module">{code}</script>'
            for language, code in found
        ]
        return super().setUp()

    def show(self, number: int) -> None:
        """Open a page with an example, and with what it leaves to the reader."""
        example = self.examples[number].replace("https://gateway.example", self.origin)
        self.pages.html = f"""{EMPTY_PAGE}<script>
          const jwt = "from the backend";
          const getJwt = async () => jwt;
          const startCall = (connection) => {{ window.started = connection; }};
        </script>{example}"""
        self.page.navigate(self.page_url)
        self.page.wait_for("window.started")

    def check_user(self, user: str) -> None:
        configuration = self.page.evaluate("started.getConfiguration()")
        self.assertEqual([user], [server["username"] for server in configuration["iceServers"]])
        self.assertEqual({"Bearer from the backend"}, set(self.service.asked))

    @in_thread
    def test_getting(self) -> None:
        self.assertEqual(3, len(self.examples))
        for number in (0, 1):
            self.show(number)
            self.check_user(f"user {number + 1}")
        self.assertEqual([], self.page.errors)

    @in_thread
    def test_watching(self) -> None:
        self.show(2)
        self.check_user("user 1")
        self.page.advance(480)
        self.page.wait_for("started.getConfiguration().iceServers[0].username === 'user 2'")
        self.check_user("user 2")
        self.assertEqual([], self.page.errors)
