"""Simulated servers: settings, room tokens, rooms, reports, tasks, and the end."""

from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from odingw.sim.roomtokens import JoinFault, JoinRefused
from odingw.sim.server import GaveUp, ServerState, SimulatedServer
from odingw.sim.settings import read_settings
from odingw.sim.tasks import Duration, RoomBanClient, RoomSendMessage, RoomUpdate
from odingw.sim.wire import GatewayError, Misbehaviour
from odingw.tokens import KeyType, SecretKey, server_key
from tests.sim_stub import ADDRESS, MASTER_KEY, NOW, RpcFault, World, room_token

LOBBY: Final = ("acme", "lobby")


def ban_time(seconds: float) -> dict[str, int]:
    """A duration as it stands on the wire."""
    return {"secs": int(seconds), "nanos": round(seconds % 1 * 1_000_000_000)}


class SettingsTests(SynchronousTestCase):
    """What ``sfu.GridConfig`` must and must not do to a server's settings."""

    def jwk(self, **changes: str) -> str:
        jwk = SecretKey(bytes(32), KeyType.DERIVED).private_jwk()
        members = {name: getattr(jwk, name) for name in ("kid", "kty", "crv", "x", "d")} | changes
        return "{" + ", ".join(f'{name} = "{value}"' for name, value in members.items()) + "}"

    def test_last_new_private_key(self) -> None:
        """The key is the last private one that the server did not have itself."""
        own_key = '{kid = "own", kty = "OKP", crv = "Ed25519", x = "x", d = "d"}'
        own = f"[authorization]\nkeys = [{own_key}]\n"
        public = '{kid = "public"}'
        merged = (
            f"[authorization]\nkeys = [{own_key}, {self.jwk()}, {public}]\n"
            "[supervisor]\nreport_interval = 2500\n"
        )
        settings = read_settings(own, {"config": merged})
        self.assertEqual(settings.key, SecretKey(bytes(32), KeyType.DERIVED))
        self.assertEqual(settings.report_interval, 2.5)

    def test_own_settings_kept(self) -> None:
        """A change of a value, of its type or of an array's order is noticed, and named."""
        own = "[a]\nb = 1\nc = [1, 2]\n[a.d]\ne = 1.5\nf = nan\ng = 1979-05-27\n"
        good = own.replace("c = [1, 2]", "c = [1, 2, 3]")
        added = f"[supervisor]\nreport_interval = 1\n[authorization]\nkeys = [{self.jwk()}]\n"
        read_settings(own, {"config": good + added})
        for before, after, named in (
            ("b = 1", "b = 2", "a.b"),
            ("b = 1", "b = 1.0", "a.b"),
            ("b = 1", "b = true", "a.b"),
            ("b = 1", "", "a.b"),
            ("[1, 2, 3]", "[3, 1, 2]", "a.c[0]"),
            ("[1, 2, 3]", "[1]", "a.c"),
            ("[1, 2, 3]", "{}", "a.c"),
            ("e = 1.5", "e = 1", "a.d.e"),
            ("f = nan", "f = 0.0", "a.d.f"),
            ("g = 1979-05-27", 'g = "1979-05-27"', "a.d.g"),
            ("[a.d]", "[a.x]", "a.d"),
        ):
            with self.assertRaises(Misbehaviour, msg=after) as caught:
                read_settings(own, {"config": good.replace(before, after) + added})
            self.assertIn(f"setting {named} was", str(caught.exception))

    def test_unusable(self) -> None:
        """Without an interval and a proper key a server cannot work."""
        interval = "[supervisor]\nreport_interval = 5000\n"
        other = SecretKey(bytes(range(32)), KeyType.DERIVED).private_jwk()
        for result in (
            None,
            {},
            {"config": 1},
            {"config": "="},
            {"config": f"[authorization]\nkeys = [{self.jwk()}]"},
            {"config": f"supervisor.report_interval = '5'\nauthorization.keys = [{self.jwk()}]"},
            {"config": f"supervisor.report_interval = 0\nauthorization.keys = [{self.jwk()}]"},
            {"config": interval},
            {"config": f"{interval}[authorization]\nkeys = {{}}"},
            {"config": f"{interval}[authorization]\nkeys = []"},
            {"config": f"{interval}[authorization]\nkeys = [{{kid = 'x'}}]"},
            {"config": f"{interval}[authorization]\nkeys = [{self.jwk(d='AA')}]"},
            {"config": f"{interval}[authorization]\nkeys = [{self.jwk(kty='EC')}]"},
            {"config": f"{interval}[authorization]\nkeys = [{self.jwk(x=other.x)}]"},
            {"config": f"{interval}[authorization]\nkeys = [{self.jwk(kid=other.kid)}]"},
        ):
            with self.assertRaises(Misbehaviour, msg=str(result)) as caught:
                read_settings("", result)
            self.assertNotIn(other.d, str(caught.exception))


class ServerCase(SynchronousTestCase):
    """A server and its stub gateway."""

    def setUp(self) -> None:
        self.world = World()
        self.stub = self.world.stub
        self.clock = self.world.clock

    def started(self, **options: Any) -> SimulatedServer:
        server = self.world.server(**options)
        self.successResultOf(server.start())
        return server

    def order(self, *tasks: dict[str, Any]) -> None:
        """Have tasks in the reply to the next report."""
        self.stub.tasks[ADDRESS] = list(tasks)

    def refusal(self, server: SimulatedServer, token: str, now: float = NOW) -> JoinFault:
        with self.assertRaises(JoinRefused) as caught:
            server.join(token, now)
        reason: JoinFault = caught.exception.reason
        return reason


class JoinTests(ServerCase):
    """Who gets in."""

    def test_join(self) -> None:
        server = self.started()
        peer = server.join(room_token(), NOW)
        self.assertEqual((peer.user, peer.room.id, peer.room.customer), ("alice", LOBBY, "acme"))

    def test_several_rooms(self) -> None:
        """A client that does not choose goes to the last of the token's rooms."""
        server = self.started()
        token = room_token(rid=["{b}1", "{b}2"])
        self.assertEqual(server.join(token, NOW).room.id, ("acme", "{b}2"))
        self.assertEqual(server.join(token, NOW, room="{b}1").room.id, ("acme", "{b}1"))
        with self.assertRaises(JoinRefused) as caught:
            server.join(token, NOW, room="{b}3")
        self.assertEqual(caught.exception.reason, JoinFault.CLAIMS)

    def test_refused_tokens(self) -> None:
        server = self.started()
        key = server_key(MASTER_KEY, ADDRESS)
        good = room_token()
        other = room_token(uid="mallory")
        forged = good.rpartition(".")[0] + "." + other.rpartition(".")[2]
        for token, now, reason in (
            ("", NOW, JoinFault.MALFORMED),
            ("a.b.c", NOW, JoinFault.MALFORMED),
            (room_token(key=SecretKey(bytes(32))), NOW, JoinFault.UNKNOWN_KEY),
            (room_token("sfu-2.test:4433"), NOW, JoinFault.UNKNOWN_KEY),
            (forged, NOW, JoinFault.SIGNATURE),
            (room_token(adr="sfu-2.test:4433"), NOW, JoinFault.ADDRESS),
            (room_token(aud="gateway"), NOW, JoinFault.AUDIENCE),
            (good, NOW + 301, JoinFault.EXPIRED),
            (good, NOW - 2, JoinFault.NOT_YET_VALID),
            (room_token(sub="RoomClose"), NOW, JoinFault.CLAIMS),
            (room_token(rid=[]), NOW, JoinFault.CLAIMS),
            (room_token(exp="tomorrow"), NOW, JoinFault.CLAIMS),
            (room_token(exp=None), NOW, JoinFault.CLAIMS),
            (room_token(nsp=None), NOW, JoinFault.CLAIMS),
            (room_token(uid=None), NOW, JoinFault.CLAIMS),
            (key.sign_jwt(b"[]"), NOW, JoinFault.CLAIMS),
        ):
            self.assertEqual(self.refusal(server, token, now), reason, token)
        self.assertEqual(len(server.rooms), 0)
        server.join(good, NOW + 299)

    def test_not_running(self) -> None:
        server = self.world.server()
        self.assertEqual(self.refusal(server, room_token()), JoinFault.NOT_RUNNING)
        self.successResultOf(server.start())
        peer = server.join(room_token(), NOW)
        self.successResultOf(server.stop())
        self.assertEqual(self.refusal(server, room_token()), JoinFault.NOT_RUNNING)
        self.assertTrue(peer.gone)

    def test_other_customer(self) -> None:
        """A room counts for one customer."""
        server = self.started()
        server.join(room_token(), NOW)
        self.assertEqual(self.refusal(server, room_token(cid="foo")), JoinFault.CUSTOMER)


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
