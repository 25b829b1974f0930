"""Simulated servers: reports, tasks, and the end."""

from typing import Final

from twisted.internet.defer import CancelledError

from odingw.sim.roomtokens import JoinFault
from odingw.sim.server import GaveUp, ServerState
from odingw.sim.tasks import Duration, RoomBanClient, RoomSendMessage, RoomUpdate
from odingw.sim.wire import GatewayError, Misbehaviour
from tests.sim_stub import ADDRESS, NOW, RpcFault, ServerCase, World, room_token

LOBBY: Final = ("acme", "lobby")


def ban_time(seconds: float) -> dict[str, int]:
    """A duration as it stands on the wire."""
    return {"secs": int(seconds), "nanos": round(seconds % 1 * 1_000_000_000)}


class ReportTests(ServerCase):
    """What a server says of itself, and when."""

    def test_content(self) -> None:
        server = self.started(capacity=8, version="1.5.2")
        alice = server.join(room_token(), NOW)
        server.join(room_token(uid="bob"), NOW)
        server.join(room_token(rid="bar", nsp="other", cid="foo"), NOW)
        self.world.advance(2)
        self.assertEqual(
            self.stub.reports[-1],
            {
                "public_endpoint": ADDRESS,
                "version": "1.5.2",
                "load": 0.375,
                "clients": 3,
                "rooms": [
                    {
                        "id": ["acme", "lobby"],
                        "customer": "acme",
                        "age": {"secs": 2, "nanos": 0},
                        "peers": 2,
                    },
                    {
                        "id": ["other", "bar"],
                        "customer": "foo",
                        "age": {"secs": 2, "nanos": 0},
                        "peers": 1,
                    },
                ],
            },
        )
        server.leave(alice)
        server.leave(alice)
        self.world.advance(2)
        report = self.stub.reports[-1]
        self.assertEqual((report["clients"], report["load"]), (2, 0.25))
        self.assertEqual([room["peers"] for room in report["rooms"]], [1, 1])

    def test_load_is_bounded(self) -> None:
        server = self.started(capacity=2)
        for user in ("a", "b", "c"):
            server.join(room_token(uid=user), NOW)
        self.world.advance(2)
        self.assertEqual(self.stub.reports[-1]["load"], 1.0)

    def test_interval_of_settings(self) -> None:
        """The gateway says how often."""
        for interval, count in ((1000, 11), (2000, 6), (2500, 5)):
            self.world = World()
            self.world.stub.report_interval = interval
            self.successResultOf(self.world.server().start())
            self.world.advance(10)
            self.assertEqual(len(self.world.stub.reports), count, interval)

    def test_empty_room_closes(self) -> None:
        """A room that nobody comes back to is gone after a short time; one that is used stays."""
        server = self.started(linger=3.0)
        server.leave(server.join(room_token(), NOW))
        server.leave(server.join(room_token(rid="used"), NOW))
        self.world.advance(2)
        self.assertEqual(len(self.stub.reports[-1]["rooms"]), 2)
        server.join(room_token(rid="used"), NOW + 2)
        self.world.advance(2)
        self.assertEqual([r["id"] for r in self.stub.reports[-1]["rooms"]], [["acme", "used"]])

    def test_grid_config(self) -> None:
        """A server asks once, with its own settings."""
        self.started(config="[log]\nverbosity = 7\n")
        self.world.advance(10)
        self.assertEqual(
            self.stub.of("sfu.GridConfig"),
            [
                {
                    "public_endpoint": ADDRESS,
                    "version": "1.5.0",
                    "config": "[log]\nverbosity = 7\n",
                }
            ],
        )

    def test_starts_once(self) -> None:
        server = self.started()
        with self.assertRaises(RuntimeError):
            server.start()


class TaskTests(ServerCase):
    """What a server does when it is told."""

    def test_in_order(self) -> None:
        """Tasks are done in the order of the reply, and all of them are kept for inspection."""
        server = self.started()
        alice = server.join(room_token(), NOW)
        self.order(
            {"task": "RoomUpdate", "id": LOBBY, "user_data": [1, 2]},
            {"task": "RoomUpdate", "id": LOBBY, "user_data": [0, 255]},
            {"task": "RoomSendMessage", "id": LOBBY, "user_id": "alice", "message": [104, 105]},
            {"task": "RoomSendMessage", "id": LOBBY, "user_id": "bob", "message": [0]},
            {
                "task": "RoomBanClient",
                "id": LOBBY,
                "user_id": "alice",
                "ban_time": ban_time(1.5),
            },
            {"task": "RoomSendMessage", "id": LOBBY, "user_id": "alice", "message": [0]},
        )
        self.world.advance(2)
        self.assertEqual(
            server.tasks,
            [
                RoomUpdate(LOBBY, (1, 2)),
                RoomUpdate(LOBBY, (0, 255)),
                RoomSendMessage(LOBBY, "alice", (104, 105)),
                RoomSendMessage(LOBBY, "bob", (0,)),
                RoomBanClient(LOBBY, "alice", Duration(1, 500_000_000)),
                RoomSendMessage(LOBBY, "alice", (0,)),
            ],
        )
        self.assertEqual(alice.room.user_data, b"\x00\xff")
        self.assertEqual(alice.messages, [b"hi"])
        self.assertTrue(alice.gone)

    def test_user_ban(self) -> None:
        """A banned user stays out of that room for that time; others do not."""
        server = self.started()
        server.join(room_token(uid="bob"), NOW)
        self.order(
            {"task": "RoomBanClient", "id": LOBBY, "user_id": "alice", "ban_time": ban_time(60)}
        )
        self.world.advance(2)
        self.assertEqual(self.refusal(server, room_token(), NOW + 61), JoinFault.USER_BANNED)
        server.join(room_token(uid="carol"), NOW + 61)
        server.join(room_token(rid="elsewhere"), NOW + 61)
        server.join(room_token(), NOW + 62)

    def test_kick_without_ban(self) -> None:
        server = self.started()
        alice = server.join(room_token(), NOW)
        self.order(
            {"task": "RoomBanClient", "id": LOBBY, "user_id": "alice", "ban_time": ban_time(0)}
        )
        self.world.advance(2)
        self.assertTrue(alice.gone)
        server.join(room_token(), NOW + 2)

    def test_room_close(self) -> None:
        """A closed room throws everybody out and is not reported; the ban holds for its time."""
        server = self.started()
        alice = server.join(room_token(), NOW)
        self.order({"task": "RoomClose", "id": LOBBY, "ban_time": ban_time(30)})
        self.world.advance(2)
        self.assertTrue(alice.gone)
        self.world.advance(2)
        self.assertEqual(self.stub.reports[-1]["rooms"], [])
        self.assertEqual(self.stub.reports[-1]["clients"], 0)
        self.assertEqual(self.refusal(server, room_token(), NOW + 31), JoinFault.ROOM_BANNED)
        server.join(room_token(), NOW + 32)

    def test_close_forgets_user_bans(self) -> None:
        """What is in a room ends with it."""
        server = self.started()
        server.join(room_token(uid="bob"), NOW)
        self.order(
            {"task": "RoomBanClient", "id": LOBBY, "user_id": "alice", "ban_time": ban_time(60)},
            {"task": "RoomClose", "id": LOBBY, "ban_time": ban_time(0)},
        )
        self.world.advance(2)
        server.join(room_token(), NOW + 2)

    def test_for_rooms_that_are_not_there(self) -> None:
        """Such tasks have no effect, but a room can be banned before anybody comes."""
        server = self.started()
        self.order(
            {"task": "RoomUpdate", "id": LOBBY, "user_data": [1]},
            {"task": "RoomBanClient", "id": LOBBY, "user_id": "x", "ban_time": ban_time(9)},
            {"task": "RoomSendMessage", "id": LOBBY, "user_id": "x", "message": []},
            {"task": "RoomClose", "id": LOBBY, "ban_time": ban_time(9)},
        )
        self.world.advance(2)
        self.assertEqual(len(server.tasks), 4)
        self.assertEqual(self.refusal(server, room_token(), NOW + 3), JoinFault.ROOM_BANNED)

    def test_bad_tasks(self) -> None:
        """A reply with a task that is none is not carried out at all, and loudly complained of."""
        server = self.started()
        good = {"task": "RoomUpdate", "id": LOBBY, "user_data": [1]}
        for bad in (
            {"task": "RoomExplode", "id": LOBBY},
            {"id": LOBBY, "user_data": [1]},
            {"task": "RoomUpdate", "id": LOBBY},
            {"task": "RoomUpdate", "id": ["acme"], "user_data": [1]},
            {"task": "RoomUpdate", "id": LOBBY, "user_data": [256]},
            {"task": "RoomUpdate", "id": LOBBY, "user_data": "AQ=="},
            {"task": "RoomUpdate", "id": LOBBY, "user_data": [1], "more": 1},
            {"task": "RoomClose", "id": LOBBY},
            {"task": "RoomClose", "id": LOBBY, "ban_time": 5},
            {"task": "RoomClose", "id": LOBBY, "ban_time": {"secs": -1, "nanos": 0}},
            {"task": "RoomClose", "id": LOBBY, "ban_time": {"secs": 0, "nanos": 10**9}},
            {"task": "RoomBanClient", "id": LOBBY, "user_id": 1, "ban_time": ban_time(1)},
        ):
            before = server.reports
            self.order(good, bad)
            self.world.advance(2)
            self.assertEqual(server.tasks, [], bad)
            self.assertEqual(len(self.flushLoggedErrors(Misbehaviour)), 1, bad)
            self.world.advance(2)
            self.assertGreater(server.reports, before)
        self.assertEqual(len(server.misbehaviours), 12)


class LifeTests(ServerCase):
    """Starting late, going on through outages, and giving up."""

    def test_waits_for_the_gateway(self) -> None:
        server = self.world.server()
        self.world.agent.down = True
        started = server.start()
        self.world.advance(60)
        self.assertNoResult(started)
        self.assertEqual(server.state, ServerState.STARTING)
        self.world.agent.down = False
        self.world.advance(5)
        self.successResultOf(started)
        self.assertTrue(server.running)

    def test_refused_for_good(self) -> None:
        """Wrong credentials are nothing that waiting mends."""
        self.stub.headers = {"WWW-Authenticate": "Basic"}
        self.stub.overrides["sfu.GridConfig"] = RpcFault(-32001, "invalid credentials", 401)
        server = self.world.server()
        self.failureResultOf(server.start(), GatewayError)
        self.assertEqual(server.state, ServerState.FAILED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wrong_settings(self) -> None:
        self.stub.overrides["sfu.GridConfig"] = {"config": ""}
        server = self.world.server()
        self.failureResultOf(server.start(), Misbehaviour)
        self.assertEqual(len(self.flushLoggedErrors(Misbehaviour)), 1)
        self.assertEqual(server.state, ServerState.FAILED)

    def test_goes_on_after_an_outage(self) -> None:
        """Rooms and peers are still there, and reports are in step again."""
        server = self.started()
        peer = server.join(room_token(), NOW)
        self.world.agent.down = True
        self.world.advance(290)
        self.assertTrue(server.running)
        self.world.agent.down = False
        self.world.advance(10)
        self.assertIsNone(server.last_error)
        self.assertFalse(peer.gone)
        before = len(self.stub.reports)
        self.world.advance(10)
        self.assertEqual(len(self.stub.reports) - before, 5)

    def test_gives_up(self) -> None:
        """300 s after the last answer, and not a moment earlier."""
        for outage in ("down", "silent", "refusing"):
            self.world = World()
            server = self.world.server()
            self.successResultOf(server.start())
            peer = server.join(room_token(), NOW)
            self.world.advance(4)
            if outage == "refusing":
                self.world.stub.overrides["sfu.Report"] = RpcFault(-32603, "Internal error", 500)
            else:
                setattr(self.world.agent, outage, True)
            self.world.advance(299)
            self.assertTrue(server.running, outage)
            self.world.advance(1)
            self.assertEqual(server.state, ServerState.FAILED, outage)
            self.assertTrue(peer.gone, outage)
            self.assertEqual(self.world.clock.getDelayedCalls(), [], outage)

    def test_never_started(self) -> None:
        """The same holds for a server that never got an answer."""
        server = self.world.server(give_up_after=20.0)
        self.world.agent.down = True
        started = server.start()
        self.world.advance(20)
        self.assertIn("20 s", str(self.failureResultOf(started, GaveUp).value))

    def test_stop(self) -> None:
        """A server that is stopped leaves nothing behind, whatever it was about to do."""
        for when in ("new", "starting", "idle", "reporting"):
            world = World()
            server = world.server()
            if when == "starting":
                world.agent.down = True
            if when != "new":
                started = server.start()
            if when == "reporting":
                world.agent.silent = True
                world.advance(2)
            self.successResultOf(server.stop())
            self.successResultOf(server.stop())
            if when == "starting":
                self.failureResultOf(started, CancelledError)
            calls = len(world.stub.calls)
            world.advance(600, step=5)
            self.assertEqual(len(world.stub.calls), calls, when)
            self.assertEqual(world.clock.getDelayedCalls(), [], when)
            self.assertEqual(world.agent.cancelled, int(when == "reporting"), when)

    def test_stop_on_first_answer(self) -> None:
        server = self.world.server()
        started = server.start().addCallback(lambda _: server.stop())
        self.successResultOf(started)
        self.assertEqual(server.state, ServerState.STOPPED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_start(self) -> None:
        self.world.agent.silent = True
        server = self.world.server()
        started = server.start()
        started.cancel()
        self.failureResultOf(started, CancelledError)
        self.assertEqual(server.state, ServerState.STOPPED)
        self.assertEqual(self.clock.getDelayedCalls(), [])
