"""Short forms of ``benchmarks.faults crash`` and of its restart by SIGTERM, with real processes."""

import asyncio

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.faults import crash


class CrashTests(SynchronousTestCase):
    def run_plan(self, rounds: int, *, graceful: bool) -> None:
        text: list[str] = []
        plan = crash.Plan(
            rounds=rounds,
            servers=3,
            connects=400,
            calls=150,
            load=(0.3, 1.0),
            keep=300,
            graceful=graceful,
        )
        findings = asyncio.run(crash.run(plan, text.append))
        self.assertEqual([], findings.broken, "".join(text))
        self.assertEqual(rounds, len(findings.rows))
        for row in findings.rows:
            found = dict(zip(crash.COLUMNS, row, strict=True))
            # Nothing can be lost of a load that never was.
            for column in ("connects", "acked", "bans", "found"):
                self.assertGreater(int(str(found[column])), 0, "".join(text))

    def test_what_was_promised_survives_kill_9(self) -> None:
        """Rooms, bans and tasks that were acknowledged are there again, tasks in order."""
        self.run_plan(2, graceful=False)

    def test_what_was_promised_survives_a_restart(self) -> None:
        """SIGTERM and start lose nothing."""
        self.run_plan(1, graceful=True)
