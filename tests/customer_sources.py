"""What the tests of sources of customers share."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odingw.customers import Source, SourceError


def at_once(function: Callable[[], object]) -> Deferred[Any]:
    """A thread that has ended before anyone looks."""
    try:
        return succeed(function())
    except BaseException:
        return fail(Failure())


class Threads:
    """Threads that run when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], object], Deferred[Any]]] = []

    def __call__(self, function: Callable[[], object]) -> Deferred[Any]:
        ended: Deferred[Any] = Deferred()
        self.waiting.append((function, ended))
        return ended

    def run(self) -> None:
        function, ended = self.waiting.pop(0)
        at_once(function).chainDeferred(ended)


def new_folder(test: SynchronousTestCase) -> Path:
    """A folder that is gone after the test."""
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return Path(folder.name)


class SourceTestCase(SynchronousTestCase):
    def cause(self, fetch: Deferred[list[object]]) -> str:
        """Why a fetch has failed."""
        text = str(self.failureResultOf(fetch, SourceError).value)
        self.assertEqual(text.splitlines(), [text])
        return text

    def fetched(self, source: Source) -> list[object]:
        fetched: list[object] = self.successResultOf(source.fetch())
        return fetched
