"""Short forms of ``benchmarks.faults`` for what the host does, against real processes."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.faults import clock, descriptors, disk, dns, oom
from benchmarks.faults.findings import Findings

Run = Coroutine[Any, Any, Findings]


class HostTests(SynchronousTestCase):
    def check(self, run: Run, promises: int) -> None:
        # What the host does not have or allow skips the test, with the reason.
        findings = asyncio.run(run)
        self.assertEqual([], findings.broken)
        self.assertEqual(promises, len(findings.promises), findings.promises)

    def quiet(self, _text: str) -> None:
        """Take what is printed."""

    def test_the_clock_is_set(self) -> None:
        """No server is written off, bans last as long as they should."""
        plan = clock.Plan(steps=(3600, -3600), seconds=0.7)
        self.check(clock.run(plan, self.quiet), 6)

    def test_the_disk_is_full(self) -> None:
        """What is known is served, what cannot be stored is refused, and it recovers."""
        self.check(disk.run(disk.Plan(seconds=0.7, rooms=30), self.quiet), 8)

    def test_no_descriptors_are_left(self) -> None:
        """Who is connected is served, and others are as soon as there are some."""
        self.check(descriptors.run(descriptors.Plan(connections=120, seconds=0.7), self.quiet), 7)

    def test_out_of_memory(self) -> None:
        """What was promised is there after the start."""
        self.check(oom.run(oom.Plan(rooms=60), self.quiet), 4)

    def test_the_customer_source_has_no_address(self) -> None:
        """The last good list stays, and nothing waits for names."""
        self.check(dns.run(dns.Plan(seconds=1.3), self.quiet), 8)
