"""What somebody else may publish on the channels of a fleet, and messages that are missed."""

from collections.abc import Callable
from typing import Any, Final

from msgspec import msgpack
from twisted.logger import capturedLogs, formatEvent

from odingw.state.redis.layout import Keys
from tests.grids import Room, update
from tests.redis_fleet import A, B, TwoGatewaysCase, grid
from tests.redis_link import DirectStore

ROOM: Final = Room(("acme", "room"), peers=2)
CHANNEL: Final = Keys("test", "").channel
PLACE: Final = '[["acme","room"],["ann",""]]'

UNREADABLE: Final = (
    b"",
    b"junk",
    b"\xc1",
    b"\xff" * 1000,
    b"{}",
    b"\x91" * 100_000,
    msgpack.encode(1),
    msgpack.encode([]),
    msgpack.encode({"seq": 1}),
    msgpack.encode(["1", "other", "1", []]),
    msgpack.encode([1, "other", "1", [b"\xff"]]),
    *(
        msgpack.encode([10**6, "other", "1", parts])
        for parts in (
            ["p"],
            ["p", PLACE],
            ["p", PLACE, "junk"],
            ["p", "junk", '5.0 [5.0,"acme"]'],
            ["p", "[" * 100_000, '5.0 [5.0,"acme"]'],
            ["-p", "[]"],
            ["B", "{}", "1 a.test:4433"],
            ["r", '["acme","room"]', A, '["acme",-1,0]'],
            ["r", '["acme","room"]', A, f'["acme",{10**400},0]'],
            ["r", '["acme","room"]', A],
            ["S", A, "[]", "1"],
            ["S", A, "junk", "nan"],
            ["E", "nan"],
            ["E", "inf"],
            ["E", "1e999"],
            ["E", "soon"],
            ["T", "1" * 5000, A, "0", "[]"],
            ["T", "one", A, "0", "[]"],
            ["T", "1", A, "0", '["[]","acme",{"task":"Nothing"}]'],
            ["-T", ""],
            ["t", "x", A],
            ["V", "1", "1.5"],
            ["k", A, "0"],
            ["b", "[]", "0 []"],
        )
    ),
)


class MessageCase(TwoGatewaysCase):
    def setUp(self) -> None:
        super().setUp()
        self.reports(self.one, A, ROOM)
        self.made = [0, 0]
        for index, gateway in enumerate(self.gateways):
            self.count_links(index, gateway)

    def count_links(self, index: int, gateway: DirectStore) -> None:
        connect = gateway.store._connect

        async def counted() -> Any:
            self.made[index] += 1
            return await connect()

        gateway.store._connect = counted

    def publish(self, message: bytes) -> None:
        self.server.command("PUBLISH", CHANNEL, message)
        self.settle()

    def garble(self, gateway: DirectStore, how_many: int, message: bytes = b"junk") -> None:
        """Let a gateway hear something else instead of the next messages."""
        assert gateway.link is not None
        hear, left = gateway.link._on_message, how_many

        def heard(channel: str, told: bytes) -> None:
            nonlocal left
            left -= 1
            hear(channel, told if left < 0 else message)

        gateway.link._on_message = heard

    def pass_time(self, seconds: int, each: Callable[[], object] = lambda: None) -> None:
        for _ in range(seconds):
            self.wait(1)
            each()


class UnreadableTests(MessageCase):
    def test_they_are_skipped(self) -> None:
        """The link stays, nothing changes, and what others commit is heard as before."""
        before = [view.peers for view in grid(self.one).rooms()]
        with capturedLogs() as events:
            for number, message in enumerate(UNREADABLE, 1):
                self.publish(message)
                self.assertEqual([number] * 2, [one.store.skipped for one in self.gateways])
        self.assertEqual(before, [view.peers for view in grid(self.one).rooms()])
        lines = [text for event in events if (text := formatEvent(event))]
        self.assertEqual(len(self.gateways), len(lines), lines)
        self.assertIn(CHANNEL, lines[0])
        self.assertLess(max(map(len, lines)), 500)
        self.command(self.one, update("room", 1))
        self.pass_time(3)
        self.assert_agreed()
        self.assertEqual([0, 0], self.made)

    def test_they_make_nothing_be_read_anew(self) -> None:
        self.pass_time(120, lambda: self.publish(UNREADABLE[0]))
        self.assertEqual([0, 0], self.made)
        self.assertEqual([120, 120], [gateway.store.skipped for gateway in self.gateways])

    def test_while_all_is_read_anew(self) -> None:
        """What is told meanwhile is kept, junk too."""
        self.two.cut()
        self.two.away = False
        original = self.two.store._connect

        async def connect() -> Any:
            link: Any = await original()
            subscribe = link.subscribe

            def subscribed(*args: Any) -> Any:
                answer = subscribe(*args)
                for message in UNREADABLE[:5]:
                    self.server.command("PUBLISH", CHANNEL, message)
                link.listen()
                return answer

            link.subscribe = subscribed
            return link

        self.two.store._connect = connect
        self.two.back()
        self.settle()
        self.assertEqual("", self.two.store.trouble)
        self.assertEqual(5, self.two.store.skipped)
        self.assert_agreed()


class MissedTests(MessageCase):
    def test_a_commit_that_was_not_heard_of(self) -> None:
        """It is noticed by its number at the next looks, though others were heard of since."""
        self.garble(self.two, 1)
        self.reports(self.one, A, Room(ROOM.id, peers=7))
        self.reports(self.one, B)
        self.assertEqual([2], [view.peers for view in grid(self.two).rooms()])
        self.pass_time(3)
        self.assertEqual([0, 1], self.made)
        self.assert_agreed()
        self.assertEqual([7], [view.peers for view in grid(self.two).rooms()])

    def test_all_is_not_read_anew_more_often_than_that(self) -> None:
        """However many commits a gateway cannot read."""

        def commit() -> None:
            self.garble(self.two, 1)
            self.reports(self.one, A, ROOM)

        self.pass_time(90, commit)
        self.assertEqual(0, self.made[0])
        self.assertIn(self.made[1], range(2, 5))
        self.pass_time(40)
        self.assert_agreed()

    def test_numbers_that_nobody_gave_hide_nothing(self) -> None:
        """Whoever says that there are a million commits more is not believed."""
        for seq in (10**6, 2**63 - 1, 0, -1):
            self.publish(msgpack.encode([seq, "other", "1", []]))
        self.pass_time(3)
        self.assertEqual([0, 0], self.made)
        self.garble(self.two, 1)
        self.reports(self.one, A, Room(ROOM.id, peers=7))
        self.pass_time(3)
        self.assertEqual([0, 1], self.made)
        self.assert_agreed()

    def test_the_next_numbers_hide_nothing_for_long(self) -> None:
        for _ in range(5):
            seq = self.two.store.pool("").exchange.seq + 1
            self.publish(msgpack.encode([seq, "other", "1", []]))
        self.pass_time(2)
        self.garble(self.two, 1)
        self.reports(self.one, A, Room(ROOM.id, peers=7))
        self.pass_time(3)
        self.assertEqual(1, self.made[1])
        self.assert_agreed()
