"""What the judge of ``benchmarks.faults`` must see, and what it must not mistake for a fault."""

import asyncio
import time

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.faults.book import (
    Ban,
    Call,
    Delivered,
    Deliveries,
    ban_holds,
    compare,
    judge,
    number_of,
)
from benchmarks.faults.client import Outcome, Pool, RoomInfo, TaskBody, get


def calls(*times: tuple[float, float]) -> dict[int, Call]:
    """Make calls for one server, numbered from 1, given as when each was sent and acknowledged."""
    return {
        number: Call(number, "RoomUpdate", "a", sent, acked)
        for number, (sent, acked) in enumerate(times, 1)
    }


def received(*numbers: int, server: str = "a") -> list[Delivered]:
    return [Delivered(server, number, 0) for number in numbers]


class DeliveryTests(SynchronousTestCase):
    def judge(self, made: dict[int, Call], arrived: list[Delivered]) -> Deliveries:
        return judge(made, arrived)

    def test_all_in_order(self) -> None:
        self.assertTrue(self.judge(calls((1, 2), (3, 4)), received(1, 2)).kept)

    def test_repeats_are_allowed_wherever_they_come(self) -> None:
        outcome = self.judge(calls((1, 2), (3, 4)), received(1, 2, 1, 2))
        self.assertEqual((True, 2), (outcome.kept, outcome.repeated))

    def test_one_that_was_acknowledged_first_must_come_first(self) -> None:
        outcome = self.judge(calls((1, 2), (3, 4)), received(2, 1))
        self.assertEqual([1], [call.number for call in outcome.disordered])

    def test_calls_under_way_together_have_no_order(self) -> None:
        self.assertTrue(self.judge(calls((1, 4), (3, 5)), received(2, 1)).kept)

    def test_one_without_an_answer_may_come_or_not(self) -> None:
        made = calls((1, 2), (3, 0))
        self.assertTrue(self.judge(made, received(1)).kept)
        self.assertTrue(self.judge(made, received(1, 2)).kept)

    def test_lost_strayed_and_unknown(self) -> None:
        made = calls((1, 2), (3, 4))
        outcome = self.judge(made, [*received(1, server="b"), *received(9)])
        self.assertEqual([2], [call.number for call in outcome.lost])
        self.assertEqual([1], [call.number for call in outcome.strayed])
        self.assertEqual(1, outcome.unknown)
        self.assertFalse(outcome.kept)

    def test_the_number_of_a_task(self) -> None:
        room = ("acme", "room")
        for task, number in (
            (TaskBody("RoomUpdate", room, user_data=(0, 0, 1, 2)), 258),
            (TaskBody("RoomSendMessage", room, message=(0, 0, 0, 7)), 7),
            (TaskBody("RoomBanClient", room, user_id="banned-3"), 3),
            (TaskBody("RoomClose", ("acme", "closing-4")), 4),
            (TaskBody("RoomClose", room), None),
        ):
            self.assertEqual(number, number_of(task))


class RoomTests(SynchronousTestCase):
    def test_found_lost_and_misplaced(self) -> None:
        known = [RoomInfo(("acme", "x"), "a"), RoomInfo(("acme", "y"), "b")]
        outcome = compare({"x": "a", "y": "a", "z": "a"}, known)
        self.assertEqual((1, ["z"], ["y"]), (outcome.found, outcome.lost, outcome.misplaced))


class BanTests(SynchronousTestCase):
    def test_reason_and_time_that_is_left_count(self) -> None:
        ban = Ban(time.monotonic() - 100, 1000)
        for reason, user, left, holds in (
            ("user_banned", "u", 900.0, True),
            ("room_banned", None, 900.0, True),
            ("room_banned", "u", 900.0, False),
            ("user_banned", "u", 1000.0, False),
            ("user_banned", "u", None, False),
            ("let in", "u", None, False),
        ):
            self.assertIs(holds, ban_holds(ban, reason, ("room", user), left), (reason, left))


class ClientTests(SynchronousTestCase):
    def test_replies_in_pieces_and_announced_ends(self) -> None:
        """A connection that is announced to close is replaced, and no request is sent on it."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for piece in (b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 4\r\n", b"Connection: close"):
                writer.write(piece)
                await writer.drain()
            writer.write(b"\r\n\r\npo")
            await writer.drain()
            writer.write(b"ng")
            # A client that does not end here itself waits in vain for the next reply.
            await reader.read()
            writer.close()

        async def ask() -> list[Outcome]:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            async with server, Pool(port, 1, timeout=5.0) as pool:
                return [await pool.call(get("/ping")) for _ in range(3)]

        outcomes = asyncio.run(ask())
        self.assertEqual([(200, b"pong", "")] * 3, [(o.status, o.body, o.fault) for o in outcomes])

    def test_a_connection_that_ends_without_a_reply_is_a_fault(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

        async def ask() -> Outcome:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            async with server, Pool(port, 1, timeout=5.0) as pool:
                return await pool.call(get("/ping"))

        outcome = asyncio.run(ask())
        self.assertEqual(0, outcome.status)
        self.assertIn("connection lost", outcome.fault)
