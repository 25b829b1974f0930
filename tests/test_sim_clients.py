"""Simulated clients: one at a time, and a crowd with its statistics."""

import json
import random
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from odingw.sim.client import Crowd, SimulatedClient
from odingw.sim.roomtokens import JoinFault, JoinRefused
from odingw.sim.server import SimulatedServer
from odingw.sim.statistics import Statistics, percentile
from odingw.sim.wire import GatewayError, Misbehaviour
from odingw.tokens import check_signature, parse
from tests.sim_stub import ACCESS_KEY, ADDRESS, NOW, RpcFault, World

LOBBY: Final = ("acme", "lobby")
OTHER: Final = "sfu-2.test:4433"


def chance(seed: int = 1) -> random.Random:
    """Chance that happens again."""
    return random.Random(seed)  # noqa: S311  -- nothing secret about it


class ClientCase(SynchronousTestCase):
    """A running server, and the gateway that sends clients to it."""

    def setUp(self) -> None:
        self.world = World()
        self.stub = self.world.stub
        self.servers: dict[str, SimulatedServer] = {}
        self.server = self.add_server(ADDRESS)

    def add_server(self, address: str) -> SimulatedServer:
        server = self.world.server(address, capacity=1000)
        self.successResultOf(server.start())
        self.servers[address] = server
        return server


class ClientTests(ClientCase):
    """One client."""

    def client(self, room: str = "lobby", user: str = "alice") -> SimulatedClient:
        return SimulatedClient(
            self.world.gateway, self.servers, ACCESS_KEY, room, user, self.world.clock
        )

    def test_visit(self) -> None:
        """A client is in its room for as long as it wants, and then it is not."""
        visit = self.client().visit(5)
        room = self.server.rooms.get(LOBBY)
        assert room is not None
        self.assertEqual([peer.user for peer in room.peers], ["alice"])
        self.world.clock.advance(4.9)
        self.assertEqual(len(room.peers), 1)
        self.world.clock.advance(0.2)
        self.assertTrue(self.successResultOf(visit))
        self.assertEqual(len(room.peers), 0)

    def test_own_token(self) -> None:
        """The token is made with the access key, for that room and user, to connect."""
        self.client().visit(5)
        token = parse(self.stub.authorization[-1].removeprefix("Bearer "))
        self.assertTrue(check_signature(ACCESS_KEY.secret_key.public_key, token))
        self.assertEqual(
            json.loads(token.payload),
            {
                "rid": "lobby",
                "uid": "alice",
                "sub": "connect",
                "nbf": int(NOW),
                "exp": int(NOW) + 300,
            },
        )

    def test_thrown_out(self) -> None:
        visit = self.client().visit(5)
        self.stub.tasks[ADDRESS] = [
            {"task": "RoomClose", "id": LOBBY, "ban_time": {"secs": 0, "nanos": 0}}
        ]
        self.world.advance(6)
        self.assertFalse(self.successResultOf(visit))

    def test_goes_when_cancelled(self) -> None:
        client = self.client()
        visit = client.visit(5)
        visit.cancel()
        self.failureResultOf(visit, CancelledError)
        assert client.peer is not None
        self.assertTrue(client.peer.gone)

    def test_refused(self) -> None:
        self.stub.overrides["Connect"] = RpcFault(
            -32600, "peer limit exceeded", reason="peer_limit_exceeded"
        )
        error = self.failureResultOf(self.client().visit(5), GatewayError).value
        self.assertEqual(error.reason, "peer_limit_exceeded")

    def test_server_that_is_not_simulated(self) -> None:
        self.stub.address = OTHER
        error = self.failureResultOf(self.client().visit(5), JoinRefused).value
        self.assertEqual(error.reason, JoinFault.UNKNOWN_SERVER)

    def test_wrong_grants(self) -> None:
        """A room token must be for the room and user that asked, and for the server named."""
        for spoilt in (
            {"uid": "mallory"},
            {"rid": "elsewhere"},
            {"rid": ["lobby"]},
            {"adr": OTHER},
            {"sub": "RoomClose"},
            {"nsp": None},
        ):
            self.stub.spoilt = spoilt
            self.failureResultOf(self.client().connect(), Misbehaviour)
        for result in (None, {}, {"address": ADDRESS}, {"address": ADDRESS, "token": "x"}):
            self.stub.overrides["Connect"] = result
            if result is None:
                self.stub.raw = b'{"jsonrpc":"2.0","result":null,"id":%d}' % (
                    len(self.stub.calls) + 1
                )
            self.failureResultOf(self.client().connect(), Misbehaviour)
            self.stub.raw = None


class CrowdTests(ClientCase):
    """Many clients, and what is counted of them."""

    def crowd(self, seed: int = 1, **options: Any) -> Crowd:
        crowd = Crowd(
            self.world.gateway,
            self.servers,
            ACCESS_KEY,
            **{
                "rate": 10.0,
                "rooms": ["lobby", "bar"],
                "mean_stay": 3.0,
                "clock": self.world.clock,
                "rng": chance(seed),
                **options,
            },
        )
        crowd.start()
        return crowd

    def test_statistics(self) -> None:
        """The same seed tells the same story, and the numbers of it fit together."""
        stories = []
        for seed in (1, 1, 2):
            self.setUp()
            seen = self.crowd(seed).statistics
            self.world.advance(60, step=0.01)
            stories.append((seen.summary(), list(seen.latencies)))
            self.assertEqual(seen.granted, seen.asked)
            self.assertEqual(seen.joined, seen.asked)
            self.assertEqual(seen.present, seen.joined - seen.left)
            self.assertEqual(seen.present, self.server.rooms.peers)
            self.assertEqual(len(seen.latencies), seen.granted)
            self.assertLessEqual(max(seen.latencies), 0.011)
            self.assertEqual((seen.refused, seen.misbehaviours, seen.split), ({}, 0, 0))
            # 600 and 30 are expected; these are more than five standard deviations.
            self.assertTrue(470 < seen.asked < 730, seen.asked)
            self.assertTrue(3 < seen.present < 60, seen.present)
            self.assertEqual({room.id[1] for room in self.server.rooms}, {"lobby", "bar"})
        self.assertEqual(stories[0], stories[1])
        self.assertNotEqual(stories[0], stories[2])

    def test_faster_than_they_can_be_sent(self) -> None:
        """Others have their turn meanwhile: whoever wants to stop it among them."""
        request = self.world.agent.request
        slow = [0.25] * 40

        def slowly(*args: Any) -> Any:
            self.world.clock.rightNow += slow.pop() if slow else 0
            return request(*args)

        self.patch(self.world.agent, "request", slowly)
        crowd = self.crowd(rate=100.0)
        asked: list[int] = []
        self.world.clock.callLater(0.5, lambda: asked.append(crowd.statistics.asked))
        self.world.advance(1, step=1)
        self.assertLess(asked[0], 100)
        self.assertGreater(crowd.statistics.asked, 500, "those of the time that it took")
        crowd.stop()

    def test_open_loop(self) -> None:
        """Clients keep coming while nobody is answered, and then count as unreachable."""
        self.world.agent.silent = True
        seen = self.crowd().statistics
        self.world.advance(20)
        self.assertGreater(seen.asked, 100)
        self.assertEqual((seen.granted, seen.unreachable), (0, 0))
        asked = seen.asked
        self.world.advance(30.5)
        self.assertGreaterEqual(seen.unreachable, asked)

    def test_latency_counts_from_when_it_was_due(self) -> None:
        """A process that stood still does not hide how long its clients waited."""
        seen = self.crowd().statistics
        self.world.clock.advance(2)
        self.assertGreater(seen.granted, 5)
        self.assertGreater(max(seen.latencies), 1.0)

    def test_refused(self) -> None:
        """Counted by reason; by code where there is none."""
        seen = self.crowd().statistics
        for fault, key in (
            (RpcFault(-32600, "no", reason="room_banned"), "room_banned"),
            (RpcFault(-32600, "no", reason="room_banned"), "room_banned"),
            (RpcFault(-32601, "Method not found"), "-32601"),
        ):
            before = seen.asked - seen.refused[key]
            self.stub.overrides["Connect"] = fault
            self.world.advance(3)
            self.assertEqual(seen.asked - seen.refused[key], before, key)
            self.assertGreater(seen.refused[key], 0)
            seen.refused.clear()
            seen.asked = 0
        self.assertEqual(seen.granted, 0)

    def test_not_let_in(self) -> None:
        """A banned room is nobody's fault."""
        self.stub.tasks[ADDRESS] = [
            {"task": "RoomClose", "id": LOBBY, "ban_time": {"secs": 600, "nanos": 0}}
        ]
        self.world.advance(2)
        seen = self.crowd(rooms=["lobby"]).statistics
        self.world.advance(3)
        self.assertGreater(seen.asked, 10)
        self.assertEqual(seen.join_failures, {"room_banned": seen.asked})
        self.assertEqual((seen.granted, seen.joined, seen.misbehaviours), (seen.asked, 0, 0))

    def test_misbehaviour(self) -> None:
        """A token that no server takes, or that is somebody else's, is complained of loudly."""
        for spoilt in ({"aud": "gateway"}, {"exp": int(NOW) - 5}, {"uid": "mallory"}):
            self.setUp()
            self.stub.spoilt = spoilt
            seen = self.crowd().statistics
            self.world.advance(2)
            self.assertGreater(seen.asked, 5)
            self.assertEqual(seen.misbehaviours, seen.asked, spoilt)
            self.assertEqual(
                len(self.flushLoggedErrors(Misbehaviour, JoinRefused)), seen.asked, spoilt
            )

    def test_split(self) -> None:
        """A room whose peers are on one server must not be given to another."""
        self.add_server(OTHER)
        seen = self.crowd(rooms=["lobby"]).statistics
        self.world.advance(5)
        self.assertEqual(seen.split, 0)
        self.stub.address = OTHER
        self.world.advance(1)
        self.assertEqual(seen.split, 1)

    def test_move_from_a_dead_server(self) -> None:
        """That is what a gateway is for."""
        self.add_server(OTHER)
        seen = self.crowd(rooms=["lobby"]).statistics
        self.world.advance(5)
        self.server.stop()
        self.stub.address = OTHER
        self.world.advance(5)
        self.assertEqual(seen.split, 0)
        self.assertGreater(seen.thrown_out, 0)

    def test_stop(self) -> None:
        """Everybody goes home, those who wait for an answer too."""
        crowd = self.crowd()
        self.world.advance(5)
        self.world.agent.silent = True
        self.world.advance(1)
        self.assertGreater(self.server.rooms.peers, 0)
        self.successResultOf(crowd.stop())
        seen = crowd.statistics
        self.assertEqual((self.server.rooms.peers, seen.present, seen.unreachable), (0, 0, 0))
        asked = seen.asked
        self.world.advance(5)
        self.assertEqual(seen.asked, asked)
        self.successResultOf(self.server.stop())
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_stop_before_start(self) -> None:
        self.successResultOf(
            Crowd(
                self.world.gateway,
                {},
                ACCESS_KEY,
                rate=1,
                rooms=["lobby"],
                mean_stay=1,
                clock=self.world.clock,
                rng=chance(),
            ).stop()
        )

    def test_wrong_numbers(self) -> None:
        wrongs: tuple[dict[str, Any], ...] = (
            {"rate": 0.0},
            {"rate": -1.0},
            {"mean_stay": 0.0},
            {"rooms": []},
        )
        for wrong in wrongs:
            with self.assertRaises(ValueError, msg=str(wrong)):
                self.crowd(**wrong)


class StatisticsTests(SynchronousTestCase):
    """Numbers for people."""

    def test_percentile(self) -> None:
        """Nearest rank: always one of the values."""
        for values, fraction, wanted in (
            ([], 0.5, 0.0),
            ([7.0], 0.0, 7.0),
            ([7.0], 1.0, 7.0),
            ([3.0, 1.0, 2.0], 0.5, 2.0),
            ([4.0, 3.0, 1.0, 2.0], 0.5, 2.0),
            ([4.0, 3.0, 1.0, 2.0], 0.51, 3.0),
            ([float(value) for value in range(1, 101)], 0.99, 99.0),
            ([float(value) for value in range(1, 101)], 1.0, 100.0),
        ):
            self.assertEqual(percentile(values, fraction), wanted, (values, fraction))

    def test_summary(self) -> None:
        """What did not happen is not mentioned; what went wrong is."""
        seen = Statistics()
        self.assertEqual(seen.summary(), "0 clients, 0 granted, 0 present")
        seen.asked, seen.granted, seen.present = 5, 2, 1
        seen.refused.update(room_banned=2, peer_limit_exceeded=1)
        seen.join_failures.update(expired=1)
        seen.misbehaviours = 1
        seen.latencies.extend([9.0, 0.001, 0.003])
        self.assertEqual(
            seen.summary(since=1),
            "5 clients, 2 granted, 1 present, refused: peer_limit_exceeded 1, room_banned 2, "
            "not let in: expired 1, 1 MISBEHAVIOURS, Connect p50 1.0 ms, p99 3.0 ms",
        )
