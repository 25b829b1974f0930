"""Files and URLs as sources of customers."""

import os
from base64 import b64encode
from collections.abc import Callable
from typing import Any, TypeAlias

from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, ResponseFailed
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from odingw.customers import FileSource, SourceError, UrlSource
from odingw.customers.sources import within
from odingw.errors import ConfigError
from tests.customer_sources import SourceTestCase, Threads, at_once, new_folder

Render: TypeAlias = Callable[[Request], bytes | int]

reactor: Any = global_reactor


class WithinTests(SourceTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def test_in_time(self) -> None:
        deferred: Deferred[list[object]] = Deferred()
        outcome = within(5, self.clock, deferred)
        self.clock.advance(4)
        deferred.callback([1])
        self.assertEqual(self.successResultOf(outcome), [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_late(self) -> None:
        deferred: Deferred[list[object]] = Deferred()
        outcome = within(0.5, self.clock, deferred)
        self.clock.advance(0.5)
        self.assertEqual(self.cause(outcome), "no answer within 0.5 s")
        self.assertTrue(deferred.called)

    def test_cancelling_does_not_wait_for_what_ignores_it(self) -> None:
        async def stubborn() -> list[object]:
            try:
                await Deferred()
            except CancelledError:
                await last
            return [1]

        last: Deferred[None] = Deferred()
        outcome = within(5, self.clock, Deferred.fromCoroutine(stubborn()))
        outcome.cancel()
        self.failureResultOf(outcome, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        last.callback(None)


class FileTests(SourceTestCase):
    def setUp(self) -> None:
        self.path = new_folder(self) / "customers.json"
        self.source = FileSource(self.path, defer_to_thread=at_once, max_bytes=100)

    def test_json(self) -> None:
        for text, want in (
            ('[{"id": "a"}, 5]', [{"id": "a"}, 5]),
            ('{"customers": [1], "more": 2}', [1]),
            (" []\n", []),
        ):
            self.path.write_text(text)
            self.assertEqual(self.fetched(self.source), want)
        self.assertEqual(self.source.name, str(self.path))

    def test_it_is_read_anew_each_time(self) -> None:
        self.path.write_text("[1]")
        self.fetched(self.source)
        self.path.write_text("[2]")
        self.assertEqual(self.fetched(self.source), [2])

    def test_what_is_no_list(self) -> None:
        for data, cause in (
            (b"", "it is not JSON: it ends too early"),
            (b"[1", "it is not JSON: it ends too early"),
            (b"[secret]", "it is not JSON: line 1, column 2: Expecting value"),
            (b'["\xff"]', "it is not JSON: "),
            (b"[" * 100, "it is not JSON: "),
            (b"{}", "neither a list of customers nor an object with one"),
            (b'{"customers": {}}', "neither a list of customers nor an object with one"),
            (b'"secret"', "neither a list of customers nor an object with one"),
            (b"[" + b" " * 99 + b"]", "it is larger than 100 bytes"),
        ):
            self.path.write_bytes(data)
            got = self.cause(self.source.fetch())
            self.assertTrue(got.startswith(cause), got)
            self.assertNotIn("secret", got)

    def test_nesting_that_exhausts_the_stack(self) -> None:
        self.path.write_bytes(b"[" * 100_000)
        source = FileSource(self.path, defer_to_thread=at_once)
        self.assertIn("it is not JSON: ", self.cause(source.fetch()))

    def test_no_such_file(self) -> None:
        self.assertEqual(self.cause(self.source.fetch()), "No such file or directory")

    def test_a_file_system_that_hangs_costs_one_thread(self) -> None:
        self.path.write_text("[1]")
        threads = Threads()
        source = FileSource(self.path, defer_to_thread=threads)
        hanging = source.fetch()
        hanging.cancel()
        self.failureResultOf(hanging, CancelledError)
        self.assertEqual(self.cause(source.fetch()), "an earlier call has not ended yet")
        threads.run()
        next_one = source.fetch()
        threads.run()
        self.assertEqual(self.successResultOf(next_one), [1])


class RealFileTests(TestCase):
    async def test_a_named_pipe_costs_no_thread(self) -> None:
        pipe = new_folder(self) / "pipe.json"
        os.mkfifo(pipe)
        source = FileSource(pipe)
        for _ in range(2):
            error = await self.assertFailure(source.fetch(), SourceError)
            self.assertIn("it is a pipe", str(error))


class Web(Resource):
    """One resource for all paths; the test says what it does."""

    isLeaf = True  # noqa: N815  # Twisted's name

    def __init__(self, render: Render) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self._render = render

    def render(self, request: Request) -> bytes | int:
        self.requests.append(request)
        return self._render(request)


class UrlTests(SourceTestCase):
    """The URL source against an in-memory server."""

    url = "https://api.test/customers?token=secret#top"

    def setUp(self) -> None:
        self.clock = Clock()

    def source(self, render: Render, url: str | None = None, **options: Any) -> UrlSource:
        self.web = Web(render)
        self.treq = StubTreq(self.web)
        client: Any = self.treq
        return UrlSource(url or self.url, client, self.clock, **options)

    def redirect(self, *locations: str) -> Render:
        """Redirect that many times, then answer."""
        todo = list(locations)

        def render(request: Request) -> bytes:
            if not todo:
                return b"[1]"
            request.setResponseCode(307)
            request.setHeader("location", todo.pop(0))
            return b"elsewhere"

        return render

    def test_json(self) -> None:
        for body, want in ((b"[1]", [1]), (b'{"customers": [2]}', [2])):
            source = self.source(lambda _, body=body: body)  # type: ignore[misc]  # a default
            self.assertEqual(self.fetched(source), want)
            [request] = self.web.requests
            self.assertEqual((request.method, request.uri), (b"GET", b"/customers?token=secret"))
            self.assertEqual(request.getHeader("accept"), "application/json")
            self.assertIsNone(request.getHeader("authorization"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_credentials_are_sent_and_not_shown(self) -> None:
        source = self.source(lambda _: b"[]", "https://us%40er:p%3Aw@api.test:444/a?key=secret")
        self.fetched(source)
        want = "Basic " + b64encode(b"us@er:p:w").decode()
        self.assertEqual(self.web.requests[0].getHeader("authorization"), want)
        self.assertEqual(self.web.requests[0].getHeader("host"), "api.test:444")
        self.assertEqual(source.name, "https://api.test:444/a")
        self.assertEqual(self.source(lambda _: b"", "https://h/a#secret").name, "https://h/a")

    def test_a_user_without_a_password(self) -> None:
        self.fetched(self.source(lambda _: b"[]", "http://token@api.test/"))
        want = "Basic " + b64encode(b"token:").decode()
        self.assertEqual(self.web.requests[0].getHeader("authorization"), want)

    def test_what_is_no_list(self) -> None:
        for body, cause in (
            (b"<html>", "it is not JSON: line 1, column 1: Expecting value"),
            (b"", "it is not JSON: it ends too early"),
            (b"{}", 'neither a list of customers nor an object with one as "customers"'),
        ):
            source = self.source(lambda _, body=body: body)  # type: ignore[misc]  # a default
            self.assertEqual(self.cause(source.fetch()), cause)

    def test_other_statuses_are_failures(self) -> None:
        for status in (201, 204, 206, 304, 401, 404, 500):

            def render(request: Request, status: int = status) -> bytes:
                request.setResponseCode(status)
                return b"" if status in (204, 304) else b"[1]"

            self.assertEqual(self.cause(self.source(render).fetch()), f"HTTP status {status}")

    def test_a_long_body(self) -> None:
        body = b"[" + b" " * 98 + b"]"
        self.assertEqual(self.fetched(self.source(lambda _: body, max_bytes=100)), [])
        source = self.source(lambda _: body, max_bytes=99)
        self.assertEqual(self.cause(source.fetch()), "it is larger than 99 bytes")

    def test_redirects_within_the_server(self) -> None:
        for location, uri in (
            ("/b?c=1", b"/b?c=1"),
            ("b", b"/b"),
            ("https://api.test/b", b"/b"),
            ("https://API.test:443/b#c", b"/b"),
            ("https://other:user@api.test/b", b"/b"),
        ):
            url = "https://u:p@api.test/customers"
            source = self.source(self.redirect(location), url)
            self.assertEqual(self.fetched(source), [1], location)
            first, second = self.web.requests
            self.assertEqual(second.uri, uri)
            self.assertEqual(second.getHeader("host"), "api.test")
            self.assertEqual(second.getHeader("authorization"), first.getHeader("authorization"))

    def test_redirects_off_the_server_are_not_followed(self) -> None:
        for location in (
            "https://evil.test/customers",
            "//evil.test/",
            "http://api.test/customers",
            "https://api.test:8443/customers",
            "https://api.test@evil.test/",
            "https://api.test.evil.test/",
            "file:///etc/passwd",
            "https://[",
            "https://api.test:port/",
        ):
            source = self.source(self.redirect(location))
            self.assertEqual(self.cause(source.fetch()), "it redirects to another server", location)
            self.assertEqual(len(self.web.requests), 1)

    def test_redirects_without_end(self) -> None:
        source = self.source(self.redirect(*["/x"] * 3))
        self.assertEqual(self.fetched(source), [1])
        source = self.source(self.redirect(*["/x"] * 4))
        self.assertEqual(self.cause(source.fetch()), "too many redirects")

    def test_no_answer_in_time(self) -> None:
        source = self.source(lambda _: NOT_DONE_YET, timeout=10)
        fetch = source.fetch()
        self.clock.advance(9)
        self.assertNoResult(fetch)
        self.clock.advance(1)
        self.assertEqual(self.cause(fetch), "no answer within 10 s")

    def test_a_body_that_does_not_end_in_time(self) -> None:
        def render(request: Request) -> int:
            request.write(b"[1, ")
            return NOT_DONE_YET

        source = self.source(render, timeout=10)
        fetch = source.fetch()
        self.treq.flush()
        lost = self.web.requests[0].notifyFinish()
        self.assertNoResult(lost)
        self.clock.advance(10)
        self.assertEqual(self.cause(fetch), "no answer within 10 s")
        self.treq.flush()
        self.failureResultOf(lost)

    def test_cancelling_closes_the_connection(self) -> None:
        def render(request: Request) -> int:
            request.write(b"[1, ")
            return NOT_DONE_YET

        fetch = self.source(render).fetch()
        self.treq.flush()
        lost = self.web.requests[0].notifyFinish()
        fetch.cancel()
        self.failureResultOf(fetch, CancelledError)
        self.treq.flush()
        self.failureResultOf(lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failures_of_the_network(self) -> None:
        class Unreachable:
            def __init__(self, error: Exception) -> None:
                self.error = error

            def get(self, *_: object, **__: object) -> Deferred[Any]:
                return fail(self.error)

        for error, cause in (
            (DNSLookupError("no results for api.test"), "DNSLookupError: DNS lookup failed: no"),
            (ConnectError(string="refused"), "ConnectError: An error occurred while connecting"),
            (ResponseFailed([Failure(OSError("a\nb"))]), "OSError: a b"),
            (ResponseFailed([]), "ResponseFailed"),
            (ResponseFailed([Failure(OSError())]), "OSError"),
            (ValueError("what was received"), "ValueError"),
            (OSError("x" * 1000), f"OSError: {'x' * 191}…"),
        ):
            client: Any = Unreachable(error)
            got = self.cause(UrlSource(self.url, client, self.clock).fetch())
            self.assertTrue(got.startswith(cause), got)
            self.assertNotIn("received", got)

    def test_a_url_that_is_none(self) -> None:
        for url in ("http://[secret", "http://host:secret/"):
            error = self.assertRaises(ConfigError, UrlSource, url, None, self.clock)
            self.assertEqual(str(error), "gateway.customer_source.url: not a URL")


class RealUrlTests(TestCase):
    """The URL source against a server on the loopback interface."""

    def serve(self, render: Render) -> int:
        self.web = Web(render)
        port = reactor.listenTCP(0, Site(self.web), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def source(self, port: int, **options: Any) -> UrlSource:
        agent: Any = Agent(reactor)
        url = f"http://u:p@127.0.0.1:{port}/customers?key=secret"
        return UrlSource(url, HTTPClient(agent), reactor, **options)

    async def test_a_list(self) -> None:
        port = self.serve(lambda _: b'[{"id": "acme"}]')
        self.assertEqual(await self.source(port).fetch(), [{"id": "acme"}])

    async def test_a_body_without_end(self) -> None:
        """It is given up at the limit, and the server sees the connection close."""
        lost: Deferred[None] = Deferred()

        def render(request: Request) -> int:
            request.notifyFinish().addErrback(lambda _: lost.callback(None))

            class Endless:
                def resumeProducing(self) -> None:  # noqa: N802  # Twisted's name
                    request.write(b" " * 1000)

                def stopProducing(self) -> None:  # noqa: N802  # likewise
                    pass

            request.registerProducer(Endless(), streaming=False)
            return NOT_DONE_YET

        port = self.serve(render)
        error = await self.assertFailure(self.source(port, max_bytes=10_000).fetch(), SourceError)
        self.assertEqual(str(error), "it is larger than 10000 bytes")
        await lost

    async def test_an_error_status_closes_the_connection(self) -> None:
        lost: Deferred[None] = Deferred()

        def render(request: Request) -> int:
            request.notifyFinish().addErrback(lambda _: lost.callback(None))
            request.setResponseCode(500)
            request.write(b"wait")
            return NOT_DONE_YET

        port = self.serve(render)
        error = await self.assertFailure(self.source(port).fetch(), SourceError)
        self.assertEqual(str(error), "HTTP status 500")
        await lost

    async def test_a_connection_that_breaks(self) -> None:
        def render(request: Request) -> int:
            request.setHeader("content-length", "100")
            request.write(b"[1]")
            request.loseConnection()
            return NOT_DONE_YET

        error = await self.assertFailure(self.source(self.serve(render)).fetch(), SourceError)
        self.assertIn("Connection was closed cleanly", str(error))

    async def test_nobody_listens(self) -> None:
        port = reactor.listenTCP(0, Site(Resource()), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        error = await self.assertFailure(self.source(number).fetch(), SourceError)
        self.assertIn("ConnectionRefusedError: ", str(error))
        self.assertNotIn("secret", str(error))
