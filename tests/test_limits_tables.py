"""Tables that strangers can grow stay bounded, and as fast as before."""

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import Limits
from odingw.web import rate
from odingw.web.address import block_of
from odingw.web.app import Root, new_app
from odingw.web.rate import RateLimit
from odingw.web.site import GatewaySite


class RateTableTests(SynchronousTestCase):
    def test_it_forgets_those_seen_longest_ago(self) -> None:
        limit = RateLimit(1.0)
        self.assertEqual(0.0, limit.wait("steady", 0.0))
        for index in range(rate._KEPT + 5000):
            limit.wait(f"stranger-{index}", 0.0)
            if index % 1000 == 0:
                # Who is seen again and again is not pushed out by strangers.
                self.assertGreater(limit.wait("steady", 0.0), 0.0)
        self.assertLessEqual(len(limit._buckets), rate._KEPT)
        self.assertEqual(0.0, limit.wait("stranger-1", 0.0), "a full bucket is no loss")
        self.assertGreater(limit.wait("stranger-104000", 0.0), 0.0)

    def test_groups_share_a_bucket(self) -> None:
        limit = RateLimit(2.0, block_of)
        waits = [limit.wait(f"2001:db8::{index:x}", 0.0) for index in range(5)]
        self.assertEqual([True, True, False, False, False], [not wait for wait in waits])
        self.assertEqual(0.0, limit.wait("2001:db8:0:1::1", 0.0))


class BlockTests(SynchronousTestCase):
    def test_what_counts_as_one(self) -> None:
        for text, block in (
            ("203.0.113.9", "203.0.113.9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("None", "None"),
        ):
            self.assertEqual(block, block_of(text), text)


class TurnTests(SynchronousTestCase):
    def test_work_takes_turns_though_some_of_it_fails(self) -> None:
        clock: Any = Clock()
        site = GatewaySite(Root(new_app(), {}), Limits(), clock)
        done: list[int] = []
        site.in_turn(lambda: done.append(1))
        site.in_turn(lambda: done.append(1 // 0))
        site.in_turn(lambda: done.append(3))
        self.assertEqual([], done, "not in the turn in which it comes")
        self.assertRaises(ZeroDivisionError, clock.advance, 0)
        clock.advance(0)
        self.assertEqual([1, 3], done)
        site.in_turn(lambda: done.append(4))
        clock.advance(0)
        self.assertEqual([1, 3, 4], done)
