"""What strangers send adds little to the log, and no query; our own tracebacks are whole."""

import io
import json
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, globalLogPublisher
from twisted.python import log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odingw.ops import logs

LONGEST = 2048


def deep(count: int, text: str) -> None:
    if count:
        deep(count - 1, text)
    raise ValueError(text)


class BoundTests(SynchronousTestCase):
    def lines(self, form: str, tell: Callable[[], object]) -> str:
        file = io.StringIO()
        observer: Any = logs.observer(file, "info", form)
        globalLogPublisher.addObserver(observer)
        try:
            tell()
        finally:
            globalLogPublisher.removeObserver(observer)
        self.flushLoggedErrors(ValueError)
        return file.getvalue()

    def test_a_line_has_an_end(self) -> None:
        for text in ("x", '"', "\\", "\0", "é", "\u202e", "😀", "\ud800", "?a", "\n"):
            said = text * 20_000
            for tell in (
                lambda said=said: log.msg(f"a {said}"),
                lambda said=said: Logger("twisted.web").info("a {said}", said=said),
                lambda said=said: Logger("odingw").warn("a {odingw_room}", odingw_room=said),
            ):
                for form in ("pretty", "json"):
                    line = self.lines(form, tell)
                    self.assertIn("a ", line)
                    self.assertLessEqual(len(line.encode()), LONGEST, (text, form))
                    if form == "json":
                        json.loads(line)

    def test_what_is_short_is_whole(self) -> None:
        line = self.lines("pretty", lambda: Logger("odingw").info("is it {a}?yes", a="x" * 700))
        self.assertIn("x" * 700 + "?yes", line)

    def test_no_query(self) -> None:
        for text in ("GET /turn?jwt=secret HTTP/1.1", "<Request uri=//turn?a&secret x=y>"):
            for tell in (
                lambda text=text: log.msg(text),
                lambda text=text: Logger("twisted.web").warn("{a}", a=text),
                lambda text=text: log.err(Failure(ValueError(text)), text),
                lambda text=text: Logger("odingw").failure("x", Failure(ValueError(text))),
            ):
                for form in ("pretty", "json"):
                    line = self.lines(form, tell)
                    self.assertIn("turn?…", line)
                    self.assertNotIn("secret", line)

    def test_tracebacks_are_whole(self) -> None:
        def ours() -> None:
            try:
                deep(50, "x" * 10_000)
            except ValueError:
                Logger("odingw").failure("a request failed")

        def twisteds() -> None:
            try:
                deep(50, "x" * 10_000)
            except ValueError:
                log.err(None, "Unhandled Error")

        for tell in (ours, twisteds):
            for form in ("pretty", "json"):
                text = self.lines(form, tell)
                self.assertEqual(51, text.count("in deep"))
                self.assertIn("builtins.ValueError: xxx", text)
                self.assertNotIn("x" * 1000, text)
