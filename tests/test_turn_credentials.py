"""Credentials: their arithmetic, whose they are, and what a TURN server takes as a user name."""

import re
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import UNAVAILABLE, RpcError
from odingw.turn.credentials import (
    LAST_EXPIRY,
    LAST_SIGNED_EXPIRY,
    Credentials,
    clean_user,
    issue,
    reply_body,
)
from odingw.turn.settings import MAX_USERNAME, TurnSettings
from tests.examples import examples

NOW: Final = 1_700_000_000
RANDOM: Final = "abcdefgh01234567"
SETTINGS: Final = TurnSettings(secret_keys=("sekrit", "older"), turn_uris=("turn:example.org",))

# What coturn 4.6 was seen to answer 400 or 401 to, and controls.
REFUSED: Final = re.compile(r"[\x00-\x20\"'\\\x7f-\x9f\ud800-\udfff]")
# Texts that have what must be encoded, what the encoding yields, and what is put together of these.
USERS: Final = (
    st.text(min_size=1)
    | st.text(" \t\"'\\%025aé\x00\x85\ud800", min_size=1, max_size=8)
    | st.lists(
        st.sampled_from(["union", "UNION", "select", "%75nion", "%", "%25", "%sha256.", "x" * 125]),
        min_size=1,
        max_size=8,
    ).map("".join)
)


def random_name() -> str:
    return RANDOM


def issued(
    user: str | None = "alice", ttl: int | None = None, now: int = NOW, **changes: Any
) -> Credentials:
    settings = msgspec.structs.replace(SETTINGS, **changes)
    return issue(settings, user, now, ttl, random_name)


class KnownAnswerTests(SynchronousTestCase):
    def test_openssl(self) -> None:
        """``printf %s USERNAME | openssl dgst -sha1 -hmac SECRET -binary | base64``."""
        for secret, now, ttl, user, username, password in (
            (
                "north",
                1433895618,
                300,
                "georg",
                "1433895918:georg",
                "Gqb2V59vj150oLNk8JIVzJtJ++s=",
            ),
            (
                "sekrit",
                1795491959,
                43200,
                "alice@example.com",
                "1795535159:alice@example.com",
                "xyOHLyB0nmduoD42UUZjK+844PY=",
            ),
            ("ключ", 0, 1, "a b", "1:a%20b", "KhFmsObZjhEgrakquIyXqXR7K0I="),
        ):
            made = issued(user, ttl, now, secret_keys=(secret,))
            self.assertEqual(made, Credentials(username, password, ttl))

    def test_first_secret_signs(self) -> None:
        """The others are there for the operator's rotation."""
        alone = issued(secret_keys=("sekrit",))
        self.assertEqual(issued(secret_keys=("sekrit", "older")), alone)
        self.assertNotEqual(issued(secret_keys=("older", "sekrit")), alone)


class TtlTests(SynchronousTestCase):
    def test_configured(self) -> None:
        """What nobody asks to be shorter is as long as is configured."""
        made = issued()
        self.assertEqual((made.ttl, made.username), (43200, f"{NOW + 43200}:alice"))

    def test_asked_for(self) -> None:
        """From one second up to what is configured."""
        for ttl in (1, 300, 43200):
            made = issued(ttl=ttl)
            self.assertEqual((made.ttl, made.username), (ttl, f"{NOW + ttl}:alice"))

    def test_wrong(self) -> None:
        """Anything else is the caller's mistake, with and without a static password."""
        for ttl in (0, -1, 43201, 2**70):
            for password in (None, "static"):
                error = self.assertRaises(ValueError, issued, ttl=ttl, forced_password=password)
                self.assertEqual(
                    str(error), f"ttl: {ttl} is not a number of seconds from 1 to 43200"
                )

    def test_last_expiries(self) -> None:
        """The ttl is cut where the expiry would be refused, and says so."""
        for now, expiry in (
            (LAST_SIGNED_EXPIRY - 43200, LAST_SIGNED_EXPIRY),
            (LAST_SIGNED_EXPIRY - 43199, LAST_SIGNED_EXPIRY),
            (LAST_SIGNED_EXPIRY - 1, LAST_SIGNED_EXPIRY),
            (LAST_SIGNED_EXPIRY, LAST_SIGNED_EXPIRY + 43200),
            (LAST_EXPIRY - 43200, LAST_EXPIRY),
            (LAST_EXPIRY - 1, LAST_EXPIRY),
        ):
            made = issued(now=now)
            self.assertEqual((made.username, made.ttl), (f"{expiry}:alice", expiry - now))

    def test_clock_beyond(self) -> None:
        """A clock with which nothing can be issued is no fault of the caller's."""
        for now in (LAST_EXPIRY, 2**40):
            error = self.assertRaises(RpcError, issued, now=now)
            self.assertEqual(error.code, UNAVAILABLE)


class UserTests(SynchronousTestCase):
    def test_whose(self) -> None:
        """The forced user, else the claim's, else a random one."""
        for user, forced, expected in (
            ("alice", None, "alice"),
            ("alice", "guest", "guest"),
            (None, "guest", "guest"),
            ("", "guest", "guest"),
            (None, "a guest", "a%20guest"),
            (None, None, f"user-{RANDOM}"),
            ("", None, f"user-{RANDOM}"),
        ):
            made = issued(user, forced_user=forced)
            self.assertEqual(made.username, f"{NOW + 43200}:{expected}")

    def test_static(self) -> None:
        """A forced password: as it is, with a user that has no expiry before it."""
        for user, forced, expected in (
            ("alice", None, "alice"),
            ("al ice", None, "al%20ice"),
            ("alice", "a guest", "a guest"),
            (None, "100% guest", "100% guest"),
            (None, None, f"user-{RANDOM}"),
        ):
            for secrets in ((), ("sekrit",)):
                made = issued(
                    user,
                    ttl=60,
                    now=2**40,
                    forced_user=forced,
                    forced_password="p:%",
                    secret_keys=secrets,
                )
                self.assertEqual(made, Credentials(expected, "p:%", 60))

    def test_encoded(self) -> None:
        """What coturn refuses is percent-encoded; what it takes stays."""
        for user, expected in (
            ("alice@example.com", "alice@example.com"),
            ("a:b,c;d=e&f/g?h#i", "a:b,c;d=e&f/g?h#i"),
            ("José 日本", "José%20日本"),
            (" \t\r\n\"'\\%", "%20%09%0D%0A%22%27%5C%25"),
            ("\x00\x1f\x7f", "%00%1F%7F"),
            ("\x85\xa0\u2028", "%C2%85%C2%A0%E2%80%A8"),
            ("\ud800", "%ED%A0%80"),
            ("%20", "%2520"),
            ("union", "union"),
            ("selection", "selection"),
            ("reunion-selector", "re%75nion-selector"),
            ("SELECT*UNION/Union", "SELECT*%55NION/%55nion"),
            ("un\u0131on-select", "un\u0131on-select"),
        ):
            self.assertEqual(clean_user(user), expected)

    def test_too_long(self) -> None:
        """Over 508 bytes with the expiry, there is the hash of the user instead."""
        for user in ("x" * 497, "x" + "é" * 248, " " * 165 + "xx", "x" * 495 + "é"):
            self.assertLessEqual(len(f"{LAST_EXPIRY}:{clean_user(user)}".encode()), MAX_USERNAME)
            self.assertNotIn("%sha256.", clean_user(user))
            self.assertRegex(clean_user(user + "x"), r"\A%sha256\.[0-9a-f]{64}\Z", user)
        # printf %498s | tr ' ' x | sha256sum
        self.assertEqual(
            clean_user("x" * 498),
            "%sha256.ba21f3b2395e63e260286cc4b657c97d4bc9737443c0e7230a42e78a94f43bf7",
        )

    def test_nobody_gets_the_hash_of_another(self) -> None:
        """A user who is called like the hash of a long one is not taken for that one."""
        name = clean_user("x" * 498)
        self.assertEqual(clean_user(name), name.replace("%", "%25"))

    @hypothesis_settings(deadline=None)
    @given(USERS)
    def test_accepted(self, user: str) -> None:
        """Whatever a token says, the user name is one that coturn takes."""
        username = issued(user, now=LAST_EXPIRY - 43200).username
        self.assertIsNone(REFUSED.search(username), username)
        self.assertLessEqual(len(username.encode()), MAX_USERNAME)
        lower = username.lower()
        self.assertFalse("union" in lower and "select" in lower, username)

    @hypothesis_settings(deadline=None)
    @given(USERS)
    def test_round_trip(self, user: str) -> None:
        """Percent-decoding gives back the user, unless the name is a hash."""
        cleaned = clean_user(user)
        assume(not cleaned.startswith("%sha256."))
        self.assertEqual(unquote_to_bytes(cleaned), user.encode("utf-8", "surrogatepass"))

    @hypothesis_settings(max_examples=examples(300))
    @given(USERS, USERS)
    def test_two_users_are_two(self, one: str, other: str) -> None:
        """Nobody gets the user name of somebody else."""
        assume(one != other)
        self.assertNotEqual(issued(one).username, issued(other).username)


class ReplyTests(SynchronousTestCase):
    def test_everything(self) -> None:
        """The draft's members, and ``iceServers`` as ``RTCPeerConnection`` takes it."""
        settings = msgspec.structs.replace(
            SETTINGS,
            turn_uris=("turn:a", "turns:a:443?transport=tcp"),
            stun_uris=("stun:a",),
        )
        body = reply_body(
            settings, Credentials("1:é", "c2Vj/+0=", 60), settings.turn_uris, settings.stun_uris
        )
        self.assertEqual(
            body.decode(),
            '{"username":"1:é","password":"c2Vj/+0=","ttl":60,'
            '"uris":["turn:a","turns:a:443?transport=tcp"],'
            '"iceServers":[{"urls":["turn:a","turns:a:443?transport=tcp"],'
            '"username":"1:é","credential":"c2Vj/+0="},{"urls":["stun:a"]}]}',
        )

    def test_without_stun(self) -> None:
        """No entry without STUN URIs: an empty one would be an error to browsers."""
        settings = msgspec.structs.replace(SETTINGS, stun_uris=("stun:a",))
        reply = msgspec.json.decode(reply_body(settings, issued(), ("turn:b",), ()))
        self.assertEqual([server["urls"] for server in reply["iceServers"]], [["turn:b"]])
        self.assertEqual(reply["uris"], ["turn:b"])

    def test_no_server_seems_up(self) -> None:
        """All are handed out then; credentials alone help nobody."""
        reply = msgspec.json.decode(reply_body(SETTINGS, issued(), (), ()))
        self.assertEqual(reply["uris"], ["turn:example.org"])
        self.assertEqual(reply["iceServers"][0]["urls"], ["turn:example.org"])

    def test_repr(self) -> None:
        """The password does not reach a log."""
        made = issued()
        self.assertIn("alice", repr(made))
        self.assertNotIn(made.password, repr(made))
