"""Python functions as sources of customers."""

import sys
import threading
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from odingw.customers import FunctionSource, SourceError
from odingw.errors import ConfigError
from tests.customer_sources import SourceTestCase, Threads, at_once, new_folder

reactor: Any = global_reactor

FUNCTIONS = """
import dataclasses, os, sys, threading
from twisted.internet.defer import Deferred, succeed

waits = []
called = 0

def plain():
    return [1]

def as_object():
    return {"customers": ({"id": "a"},)}

def nothing():
    pass

def raises():
    raise ValueError("secret")

def leaves():
    sys.exit("secret")

def deferred():
    return succeed([2])

def counts():
    global called
    called += 1
    return [called]

def thread():
    return [threading.get_ident()]

async def awaits():
    first = await succeed(3)
    wait = Deferred()
    waits.append(wait)
    return [first, await wait]

async def async_raises():
    await succeed(None)
    raise KeyError("secret")

def coroutine():
    return awaits()

async def async_thread():
    return [threading.get_ident()]

@dataclasses.dataclass
class Callable:
    answer: "list[int]" = dataclasses.field(default_factory=lambda: [4])

    async def __call__(self):
        return self.answer

instance = Callable()
data = 5
"""


class FunctionTests(SourceTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.path = new_folder(self) / "customers_of_test.py"
        self.path.write_text(FUNCTIONS)

    @property
    def module(self) -> Any:
        return sys.modules["odingw_customers_customers_of_test"]

    def source(self, name: str, threads: Any = at_once) -> FunctionSource:
        return FunctionSource(f"{self.path}:{name}", self.clock, defer_to_thread=threads)

    def test_what_may_be_returned(self) -> None:
        for name, want in (
            ("plain", [1]),
            ("as_object", [{"id": "a"}]),
            ("deferred", [2]),
            ("instance", [4]),
        ):
            self.assertEqual(self.fetched(self.source(name)), want, name)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_coroutine_is_awaited(self) -> None:
        for name in ("awaits", "coroutine"):
            fetch = self.source(name).fetch()
            self.assertNoResult(fetch)
            self.module.waits.pop().callback(4)
            self.assertEqual(self.successResultOf(fetch), [3, 4])

    def test_only_what_is_not_async_gets_a_thread(self) -> None:
        threads = Threads()
        self.source("awaits", threads).fetch()
        self.assertEqual(threads.waiting, [])
        fetch = self.source("plain", threads).fetch()
        self.assertEqual(len(threads.waiting), 1)
        threads.run()
        self.assertEqual(self.successResultOf(fetch), [1])

    def test_an_exception_is_located_and_not_quoted(self) -> None:
        lines = FUNCTIONS.splitlines()
        for name, kind in (
            ("raises", "ValueError"),
            ("leaves", "SystemExit"),
            ("async_raises", "KeyError"),
        ):
            [line] = [n for n, text in enumerate(lines, 1) if f"def {name}" in text]
            offset = 2 if name == "async_raises" else 1
            self.assertEqual(
                self.cause(self.source(name).fetch()),
                f"it raised {kind} (customers_of_test.py, line {line + offset})",
            )

    def test_what_is_no_list(self) -> None:
        self.assertEqual(
            self.cause(self.source("nothing").fetch()),
            'neither a list of customers nor an object with one as "customers"',
        )

    def test_a_function_that_hangs_costs_one_thread(self) -> None:
        threads = Threads()
        source = self.source("counts", threads)
        fetch = source.fetch()
        self.clock.advance(30)
        self.assertEqual(self.cause(fetch), "no answer within 30 s")
        self.assertEqual(self.cause(source.fetch()), "an earlier call has not ended yet")
        threads.run()
        fetch = source.fetch()
        threads.run()
        self.assertEqual(self.successResultOf(fetch), [2])

    def test_a_coroutine_that_hangs_is_cancelled(self) -> None:
        fetch = self.source("awaits").fetch()
        wait = self.module.waits.pop()
        self.clock.advance(30)
        self.assertEqual(self.cause(fetch), "no answer within 30 s")
        self.assertTrue(wait.called)

    def test_a_fetch_may_be_cancelled(self) -> None:
        fetch = self.source("awaits").fetch()
        fetch.cancel()
        self.failureResultOf(fetch, CancelledError)
        self.assertTrue(self.module.waits.pop().called)

    def test_a_function_in_a_module(self) -> None:
        sys.path.insert(0, str(self.path.parent))
        self.addCleanup(sys.path.remove, str(self.path.parent))
        self.addCleanup(sys.modules.pop, "customers_of_test", None)
        source = FunctionSource("customers_of_test:plain", self.clock, defer_to_thread=at_once)
        self.assertEqual(self.fetched(source), [1])
        self.assertEqual(source.name, "customers_of_test:plain")

    def test_the_name_of_a_function_in_a_file(self) -> None:
        self.assertEqual(self.source("plain").name, f"{self.path}:plain")

    def test_what_cannot_be_loaded(self) -> None:
        broken = self.path.with_name("broken.py")
        broken.write_text("import os\nraise RuntimeError('secret')\n")
        wrong = self.path.with_name("wrong.py")
        wrong.write_text("def:\n")
        absent = self.path.with_name("absent.py")
        for reference, cause in (
            (f"{self.path}:absent", f"{self.path} has no function absent"),
            (f"{self.path}:data", f"{self.path} has no function data"),
            (f"{absent}:f", f"{absent} cannot be loaded: [Errno 2] No such file"),
            (
                f"{broken}:f",
                f"{broken} cannot be loaded: it raised RuntimeError (broken.py, line 2)",
            ),
            (f"{wrong}:f", f"{wrong} cannot be loaded: invalid syntax (wrong.py, line 1)"),
            ("odingw.no_such_module:f", "odingw.no_such_module cannot be loaded: No module named"),
            ("odingw", "'odingw' names no function"),
        ):
            error = self.assertRaises(ConfigError, FunctionSource, reference, self.clock)
            text = str(error)
            self.assertTrue(text.startswith(f"gateway.customer_source.function: {cause}"), text)
            self.assertEqual(text.splitlines(), [text])
        self.assertNotIn("odingw_customers_broken", sys.modules)


class ThreadTests(TestCase):
    """Functions in real threads."""

    def setUp(self) -> None:
        self.path = new_folder(self) / "customers_of_thread_test.py"
        self.path.write_text(FUNCTIONS)

    def source(self, name: str) -> FunctionSource:
        return FunctionSource(f"{self.path}:{name}", reactor)

    async def test_where_functions_run(self) -> None:
        [plain] = await self.source("thread").fetch()
        self.assertNotEqual(plain, threading.get_ident())
        self.assertEqual(await self.source("async_thread").fetch(), [threading.get_ident()])

    async def test_a_deferred_from_a_thread(self) -> None:
        self.assertEqual(await self.source("deferred").fetch(), [2])

    async def test_exceptions_of_threads(self) -> None:
        for name, kind in (("raises", "ValueError"), ("leaves", "SystemExit")):
            error = await self.assertFailure(self.source(name).fetch(), SourceError)
            self.assertRegex(str(error), rf"^it raised {kind} \(customers_of_thread_test.py, line")
