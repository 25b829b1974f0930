"""Watching credentials with the browser client, in a real browser."""

import json
from itertools import pairwise, product
from typing import Final

from tests.turn_page import MODULE, PageCase, in_thread

SHOWN: Final = "document.dispatchEvent(new Event('visibilitychange'))"


class WatchTests(PageCase):
    """``watchTurnServiceInfo``; without throttling, credentials of 600 s are renewed after 480."""

    load = MODULE

    def watch(self, options: str = "jwt: 'jwt'") -> None:
        """Begin to watch; random numbers are 0 unless a test says otherwise."""
        self.page.evaluate(f"""
          Math.random = () => 0;
          window.updates = [];
          window.failures = [];
          window.stop = client.watchTurnServiceInfo(url, {{
            onUpdate: (info) => updates.push(info.username),
            onError: (error) => failures.push(error.status ?? error.message),
            {options}
          }});
          0;
        """)

    def check_next(self, seconds: float, kind: str = "updates") -> None:
        """Check that the next request comes after so many seconds, and wait for its outcome."""
        count = self.page.evaluate(f"{kind}.length")
        self.page.sent.clear()
        self.page.advance(seconds - 0.001)
        self.assertEqual([], self.page.sent, f"before {seconds} s")
        self.page.advance(0.001)
        self.assertEqual([f"GET {self.url}"], self.page.sent, f"after {seconds} s")
        self.page.wait_for(f"{kind}.length > {count}")

    @in_thread
    def test_credentials_are_renewed_shortly_before_their_end(self) -> None:
        self.watch()
        self.page.wait_for("updates.length")
        for seconds in (480, 480):
            self.check_next(seconds)
        self.service.ttl = 20
        self.check_next(480)
        self.service.ttl = 3600
        self.check_next(5)
        self.check_next(3480)
        self.assertEqual([f"user {n}" for n in range(1, 7)], self.page.evaluate("updates"))
        self.assertEqual(["Bearer jwt"] * 6, self.service.asked)
        self.assertEqual([], self.page.errors)

    @in_thread
    def test_every_request_has_a_fresh_jwt(self) -> None:
        self.watch("jwt: async () => `jwt ${updates.length}`")
        self.page.wait_for("updates.length")
        self.check_next(480)
        self.check_next(480)
        self.assertEqual(["Bearer jwt 0", "Bearer jwt 1", "Bearer jwt 2"], self.service.asked)

    @in_thread
    def test_a_jwt_is_optional(self) -> None:
        for options in ("", "jwt: null", "jwt: () => null"):
            self.watch(options)
            self.page.wait_for("updates.length")
            self.page.evaluate("stop()")
        self.assertEqual([None], self.service.asked)

    @in_thread
    def test_it_shares_what_is_kept(self) -> None:
        self.page.evaluate("get(url, 'jwt')")
        self.page.advance(100)
        self.watch()
        self.page.wait_for("updates.length")
        self.assertEqual(1, len(self.service.asked))
        self.check_next(380)
        self.assertEqual("user 2", self.page.evaluate("get(url, 'jwt')"))

    @in_thread
    def test_it_does_not_hurry_however_short_the_ttl(self) -> None:
        self.service.ttl = 1
        self.watch()
        self.page.wait_for("updates.length")
        self.check_next(5)
        self.service.ttl = None
        self.check_next(5)
        self.check_next(5)

    @in_thread
    def test_a_ttl_that_no_timer_can_hold(self) -> None:
        self.service.ttl = 40 * 86400
        self.watch()
        self.page.wait_for("updates.length")
        self.page.advance(3600)
        self.assertEqual(["user 1"], self.page.evaluate("updates"))
        self.assertEqual(1, len(self.service.asked))

    @in_thread
    def test_errors_are_told_and_it_tries_again_more_and_more_slowly(self) -> None:
        self.service.status = 503
        self.watch()
        self.page.wait_for("failures.length")
        for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
            self.check_next(seconds, "failures")
        self.assertEqual([503] * 9, self.page.evaluate("failures"))
        self.service.status = 200
        self.check_next(60)
        self.service.status = 401
        self.check_next(480, "failures")
        self.service.status = 200
        self.check_next(1)
        self.assertEqual([503] * 9 + [401], self.page.evaluate("failures"))

    @in_thread
    def test_tries_are_spread_over_the_second_half_of_the_pause(self) -> None:
        self.service.status = 503
        self.watch("jwt: (Math.random = () => 0.75, null)")
        self.page.wait_for("failures.length")
        self.check_next(0.625, "failures")
        self.check_next(1.25, "failures")

    @in_thread
    def test_errors_of_the_jwt_function_are_told(self) -> None:
        for function in ("() => { throw new Error('no') }", "() => Promise.reject(Error('no'))"):
            self.service.asked.clear()
            self.watch(f"jwt: () => failures.length < 2 ? ({function})() : 'jwt'")
            self.page.wait_for("failures.length")
            self.page.advance(1)
            self.page.wait_for("failures.length > 1")
            self.check_next(2)
            self.assertEqual(["no", "no"], self.page.evaluate("failures"))
            self.page.evaluate("stop()")
            self.page.advance(600)

    @in_thread
    def test_errors_need_no_listener(self) -> None:
        self.service.status = 503
        self.watch("jwt: 'jwt', onError: undefined")
        self.page.evaluate("get(url, 'jwt', true)")  # fails when the watch does
        self.service.status = 200
        self.check_next(1)

    @in_thread
    def test_a_callback_that_throws_does_not_end_it(self) -> None:
        self.watch("onUpdate: () => { updates.push(0); throw new Error('in onUpdate'); }")
        self.page.wait_for("updates.length")
        self.check_next(480)
        self.assertEqual([], self.page.evaluate("failures"))
        self.assertEqual(2, len(self.page.errors))
        for error in self.page.errors:
            self.assertIn("in onUpdate", error)

    @in_thread
    def test_credentials_are_always_good_where_timers_run_once_a_minute(self) -> None:
        """A tab that nobody looks at; wherever in such a minute they were got."""
        self.page.evaluate("testClock.throttle(60_000)")
        for ttl, begin in product((80, 120, 600, 3600), (0, 31, 59)):
            self.service.ttl = ttl
            self.to_next_minute()
            self.page.advance(begin)
            self.watch(f"jwt: '{ttl} {begin}', onUpdate: () => updates.push(Date.now() / 1000)")
            for count in range(3):
                self.page.wait_for(f"updates.length > {count}")
                self.page.sent.clear()
                while count < 2 and not self.page.sent:
                    self.to_next_minute()
            got = self.page.evaluate("stop(), updates")
            self.assertLess(max(later - earlier for earlier, later in pairwise(got)), ttl, begin)

    def to_next_minute(self) -> None:
        self.page.advance(60 - self.page.evaluate("Date.now() / 1000 % 60"))

    @in_thread
    def test_it_looks_at_the_clock_when_something_happens_to_the_page(self) -> None:
        """Whether or not its timers run: the machine has slept, or the tab was frozen."""
        for event in ("window.dispatchEvent(new Event('online'))", SHOWN):
            self.watch(f"jwt: {json.dumps(event)}")
            self.page.wait_for("updates.length")
            self.page.sent.clear()
            self.page.evaluate(f"testClock.sleep(479_999); {event}")
            self.assertEqual([], self.page.sent, event)
            self.page.evaluate(f"testClock.sleep(1); {event}; {event}")
            self.page.wait_for("updates.length > 1")
            self.assertEqual([f"GET {self.url}"], self.page.sent, event)
            self.assertEqual(1, self.page.evaluate("testClock.timers"))
            self.page.evaluate(f"stop(); testClock.sleep(3_600_000); {event}")
            self.assertEqual([f"GET {self.url}"], self.page.sent, event)

    @in_thread
    def test_it_tries_again_at_once_when_something_happens_to_the_page(self) -> None:
        self.service.status = 503
        for event in ("window.dispatchEvent(new Event('online'))", SHOWN):
            self.watch()
            self.page.wait_for("failures.length")
            self.check_next(1, "failures")
            self.page.evaluate(event)
            self.page.wait_for("failures.length > 2")
            self.check_next(4, "failures")
            self.page.evaluate("stop()")

    @in_thread
    def test_a_network_that_goes_and_comes(self) -> None:
        """As the browser itself tells it."""
        conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.page.call("Network.emulateNetworkConditions", {"offline": True, **conditions})
        self.watch()
        self.page.wait_for("failures.length")
        self.page.call("Network.emulateNetworkConditions", {"offline": False, **conditions})
        self.page.wait_for("updates.length")

    @in_thread
    def test_a_relative_url(self) -> None:
        self.page.evaluate("window.url = '/turn'; 0")
        self.watch()
        self.page.wait_for("updates.length")
        self.assertEqual([f"GET {self.page_url}turn"], self.page.sent)

    @in_thread
    def test_it_notices_that_the_machine_has_slept(self) -> None:
        self.watch()
        self.page.wait_for("updates.length")
        self.page.evaluate("testClock.sleep(8 * 3600 * 1000)")
        self.check_next(30)

    @in_thread
    def test_it_notices_that_the_clock_was_set_back(self) -> None:
        self.watch()
        self.page.wait_for("updates.length")
        self.page.evaluate("testClock.sleep(-8 * 3600 * 1000)")
        self.check_next(30)

    @in_thread
    def test_it_stops(self) -> None:
        self.watch()
        self.page.wait_for("updates.length")
        self.page.evaluate("stop()")
        self.assertEqual(0, self.page.evaluate("testClock.timers"))
        self.page.evaluate("stop()")

    @in_thread
    def test_it_stops_while_it_waits_to_try_again(self) -> None:
        self.service.status = 503
        self.watch()
        self.page.wait_for("failures.length")
        self.page.evaluate("stop()")
        self.assertEqual(0, self.page.evaluate("testClock.timers"))

    @in_thread
    def test_it_stops_while_the_jwt_is_awaited(self) -> None:
        self.watch("jwt: () => new Promise((resolve) => { window.giveJwt = resolve; })")
        self.page.evaluate("stop(); giveJwt('jwt');")
        self.page.advance(3600)
        self.assertEqual([], self.page.sent)
        self.assertEqual(0, self.page.evaluate("testClock.timers"))

    @in_thread
    def test_it_stops_while_an_answer_is_awaited(self) -> None:
        for status in (200, 503):
            self.service.status = status
            self.service.hold()
            self.watch()
            # Shares the request, so that its outcome is known to be here.
            self.page.evaluate("window.same = get(url, 'jwt', true); 0")
            self.service.wait_until_asked()
            self.page.evaluate("stop()")
            self.service.release()
            self.page.evaluate("same")
            self.assertEqual([[], []], self.page.evaluate("[updates, failures]"))
            self.assertEqual(0, self.page.evaluate("testClock.timers"))
            self.page.advance(3600)
        self.assertEqual(2, len(self.service.asked))

    @in_thread
    def test_it_stops_when_a_callback_says_so(self) -> None:
        for kind, status in (("onUpdate", 200), ("onError", 503)):
            self.service.status = status
            self.watch(f"{kind}: () => {{ updates.push(0); stop(); }}, jwt: '{kind}'")
            self.page.wait_for("updates.length")
            self.assertEqual(0, self.page.evaluate("testClock.timers"), kind)
            self.page.advance(3600)
            self.assertEqual([0], self.page.evaluate("updates"), kind)
        self.assertEqual(["Bearer onUpdate", "Bearer onError"], self.service.asked)

    @in_thread
    def test_wrong_arguments_throw_at_once(self) -> None:
        watch = "client.watchTurnServiceInfo"
        for arguments in ("'ftp://a', { onUpdate() {} }", "'', { onUpdate() {} }", "url, {}"):
            call = f"try {{ {watch}({arguments}); }} catch (error) {{ error.name }}"
            self.assertEqual("TypeError", self.page.evaluate(call), arguments)
        self.assertEqual([], self.page.sent)
