"""Simulated servers: the settings they accept, and the clients they let in."""

from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from odingw.sim.roomtokens import JoinFault, JoinRefused
from odingw.sim.settings import read_settings
from odingw.sim.wire import Misbehaviour
from odingw.tokens import KeyType, SecretKey, server_key
from tests.sim_stub import ADDRESS, MASTER_KEY, NOW, ServerCase, room_token

LOBBY: Final = ("acme", "lobby")


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
