"""With ``CI=true``, a skipped test fails the run: there, every part must be present."""

import os

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn a run with skipped tests into a failed one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", ())) if reporter else 0
    if reporter and skipped and os.environ.get("CI") == "true" and session.exitstatus == 0:
        reporter.write_line(f"CI: {skipped} tests were skipped, which fails the run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
