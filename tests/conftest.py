"""What a run of pytest does beyond the tests: what may be skipped, and what ``--quick`` leaves out.

With ``CI=true``, a skipped test fails the run: there, every part must be present.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Generator
from typing import Any, Final
from unittest import SkipTest

import pytest

import tests.examples  # noqa: F401  -- it sets how much hypothesis tries

_OUTSIDE: Final = frozenset(
    {
        *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"),
        *("socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg"),
    }
)
"""Python's names for going outside (PEP 578)."""

_CLEAN: Final = r"""
read -r _
grep -lzsx "$1" /proc/[0-9]*/environ | sed 's,/proc/\(.*\)/environ,\1,' | xargs -r kill -KILL 2>&-
"""
_CLEANER: Final = pytest.StashKey["subprocess.Popen[bytes]"]()

_LEFT_OUT: Final = "it starts a process or uses a socket"


class Inside:
    """Keeps tests inside this process: one that starts another, or uses a socket, is skipped.

    So nobody has to say which ones these are. What a test makes of being refused is not looked at.
    """

    def __init__(self) -> None:
        self._watching = False
        self._went_outside = False
        sys.addaudithook(self._audit)

    def _audit(self, event: str, _args: object) -> None:
        if self._watching and event in _OUTSIDE:
            self._went_outside = True
            raise SkipTest(_LEFT_OUT)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        """Watch a test."""
        self._watching, self._went_outside = True, False
        try:
            return (yield)
        finally:
            self._watching = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Skip a test that has tried to go outside, whatever came of it."""
        report = yield
        if self._went_outside:
            # Of one test, one phase is skipped.
            ending = report.when == "teardown"
            report.outcome = "passed" if ending else "skipped"
            line = item.location[1] or 0
            report.longrepr = None if ending else (str(item.path), line, _LEFT_OUT)
        return report


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--quick``."""
    parser.addoption("--quick", action="store_true", help="leave out what uses processes, sockets")


def pytest_configure(config: pytest.Config) -> None:
    """Keep a quick run inside; let nothing that another one starts live on after it."""
    if config.getoption("quick"):
        config.pluginmanager.register(Inside())
    else:
        run = uuid.uuid4().hex
        # It reads until this process has ended, however that came; none is another one's to end.
        config.stash[_CLEANER] = subprocess.Popen(
            ["/bin/sh", "-c", _CLEAN, "clean", f"TESTS_OF={run}"],
            env={"PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        os.environ["TESTS_OF"] = run


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn a run with skipped tests into a failed one."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.getoption("quick"):
        return
    skipped = len(reporter.stats.get("skipped", ()))
    if skipped and os.environ.get("CI") == "true" and session.exitstatus == 0:
        reporter.write_line(f"CI: {skipped} tests were skipped, which fails the run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
