"""A real coturn takes the credentials that are issued and no others, and is seen to come and go."""

import json
import os
import time
from base64 import b64encode
from hmac import digest
from typing import Any, Final, Literal

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import DeferredQueue
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from odingw.turn.credentials import LAST_EXPIRY, Credentials, issue
from odingw.turn.settings import TurnSettings
from odingw.turn.watch import ServerWatch
from tests.coturn import HOST, Coturn
from tests.process import GatewayProcess, customer
from tests.test_turn_http import RSA_KEY, rs256, spki
from tests.turn_client import TurnClient, TurnError
from tests.turn_net import Log, uris

reactor: Any = global_reactor

SECRET: Final = "the secret that coturn knows"
TRANSPORTS: Final[tuple[Literal["udp", "tcp"], ...]] = ("udp", "tcp")
TTL: Final = 600


def issued(
    user: str | None = "alice", *, secret: str = SECRET, age: int = 0, ttl: int = TTL
) -> Credentials:
    """Return credentials that were issued so many seconds ago."""
    settings = TurnSettings(secret_keys=(secret, "another"), ttl=ttl, turn_uris=("turn:localhost",))
    return issue(settings, user, int(time.time()) - age, None, lambda: "0123456789abcdef")


def signed(username: str) -> Credentials:
    """Return credentials for a user name as it is."""
    return Credentials(username, password(username), TTL)


def password(username: str) -> str:
    """Return what a TURN server computes for a user name."""
    return b64encode(digest(SECRET.encode(), username.encode(), "sha1")).decode()


class CoturnCase(SynchronousTestCase):
    def started(self, *secrets: str) -> Coturn:
        coturn = Coturn(*secrets)
        self.addCleanup(coturn.remove)
        return coturn.start()

    def code(self, coturn: Coturn, credentials: Credentials) -> int:
        """Return the error code that an allocation gets; 0: it is granted."""
        client = TurnClient(coturn.address, credentials.username, credentials.password)
        # Not before: the next client could get the same port, which coturn would not like.
        self.addCleanup(client.close)
        try:
            client.allocate()
        except TurnError as error:
            return error.code
        return 0


class CredentialTests(CoturnCase):
    def setUp(self) -> None:
        self.coturn = self.started(SECRET)

    def test_two_clients_exchange_data(self) -> None:
        alice, bob = issued("alice"), issued("bob")
        for transport in TRANSPORTS:
            with (
                TurnClient(
                    self.coturn.address, alice.username, alice.password, transport=transport
                ) as one,
                TurnClient(self.coturn.address, bob.username, bob.password) as two,
            ):
                relayed_one, relayed_two = one.allocate(), two.allocate()
                one.permit(relayed_two)
                two.bind_channel(0x4001, relayed_one)
                one.send(relayed_two, b"hello")
                self.assertEqual(two.receive(), (0x4001, b"hello"), transport)
                two.send_channel(0x4001, b"hello yourself")
                self.assertEqual(one.receive(), (relayed_two, b"hello yourself"), transport)
                self.assertEqual([one.refresh(0), two.refresh(0)], [0, 0])

    def test_the_last_expiry_that_coturn_takes(self) -> None:
        self.assertEqual(self.code(self.coturn, issued(ttl=2**33)), 0)
        self.assertEqual(self.code(self.coturn, signed(f"{LAST_EXPIRY + 1}:alice")), 401)

    def test_what_is_not_as_it_was_issued_is_refused(self) -> None:
        good = issued()
        expiry, _, user = good.username.partition(":")
        later = f"{int(expiry) + 1}:{user}"
        cases = {
            "expired": issued(age=TTL + 60),
            "another user": Credentials(f"{expiry}:bob", good.password, TTL),
            "another expiry": Credentials(later, good.password, TTL),
            "no expiry": Credentials(user, good.password, TTL),
            "wrong password": Credentials(good.username, password(later), TTL),
            "no password": Credentials(good.username, "", TTL),
            "wrong secret": issued(secret="a secret that coturn does not know"),
        }
        for name, credentials in cases.items():
            self.assertEqual(self.code(self.coturn, credentials), 401, name)
        self.assertEqual(self.code(self.coturn, good), 0)

    def test_odd_user_names_are_accepted_once_they_are_cleaned(self) -> None:
        for user in (
            None,
            "with space",
            " ",
            "it's",
            '"quoted"',
            "back\\slash",
            "tab\tline\nreturn\r",
            "100%",
            "%41",
            "a:b:c",
            "nul\0",
            "control\x01\x1f\x7f\x85\xa0\u2028",
            "Zoë マトリックス 😀",
            "union select",
            "UNION/SELECT",
            "lone \ud800 surrogate",
            "mary@example.org",
            "<&>;|$`{}[]()*?!#~^+=,",
            "x" * 600,
            "é" * 600,
            " " * 600,
        ):
            self.assertEqual(self.code(self.coturn, issued(user)), 0, ascii(user))

    def test_without_cleaning_they_are_refused(self) -> None:
        """Were it otherwise, the cleaning would be for nothing."""
        expiry = int(time.time()) + TTL
        for user, code in (
            ("with space", 400),
            ("it's", 400),
            ('"quoted"', 400),
            ("back\\slash", 400),
            ("tab\t", 400),
            ("line\n", 400),
            ("return\r", 400),
            ("x" * 600, 401),
        ):
            self.assertEqual(self.code(self.coturn, signed(f"{expiry}:{user}")), code, user)


class ForcedTests(CoturnCase):
    """``forcedUser`` as the existing server has it: whatever a token says."""

    def credentials(self, gateway: GatewayProcess, **claims: object) -> Credentials:
        bearer = {"Authorization": f"Bearer {rs256(**claims)}"}
        status, _, body = gateway.request("GET", "/turn", None, bearer)
        self.assertEqual(200, status, body)
        found = json.loads(body)
        return Credentials(found["username"], found["password"], found["ttl"])

    def started_gateway(self, **members: object) -> GatewayProcess:
        gateway = GatewayProcess(customer())
        file = gateway.folder / "turnrest.json"
        gateway.options = ("--turn-config", str(file))
        document = {"userClaim": "sub", "jwtPublicKeys": [spki(RSA_KEY)], "turnURIS": ["a"]}
        file.write_text(json.dumps(document | members))
        self.addCleanup(gateway.stop)
        return gateway.start()

    def test_a_coturn_that_has_one_user(self) -> None:
        coturn = Coturn(options=["--user=guest:open sesame"])
        self.addCleanup(coturn.remove)
        coturn.start()
        gateway = self.started_gateway(forcedUser="guest", forcedPassword="open sesame")
        for claims in ({"sub": "alice"}, {"sub": ""}, {"sub": ["alice"]}):
            found = self.credentials(gateway, **claims)
            self.assertEqual(("guest", 0), (found.username, self.code(coturn, found)), claims)

    def test_a_coturn_that_has_a_secret(self) -> None:
        coturn = self.started(SECRET)
        gateway = self.started_gateway(forceUser="guest", secretKey=SECRET)
        found = self.credentials(gateway, sub="alice")
        self.assertRegex(found.username, r"^\d+:guest$")
        self.assertEqual(0, self.code(coturn, found))


class RotationTests(CoturnCase):
    def test_a_new_secret(self) -> None:
        """During the overlap coturn takes what either secret has signed."""
        coturn = self.started("old secret", "new secret")
        old, new = issued(secret="old secret"), issued(secret="new secret")
        self.assertEqual([self.code(coturn, old), self.code(coturn, new)], [0, 0])
        coturn.stop()
        coturn.secrets = ("new secret",)
        coturn.start()
        self.assertEqual([self.code(coturn, old), self.code(coturn, new)], [401, 0])


class WatchTests(TestCase):
    timeout = 60

    async def test_a_server_without_stun(self) -> None:
        """It ignores Binding over UDP, TCP and TLS, and is there all the same."""
        coturn = Coturn(SECRET, tls=True, options=["--no-stun"])
        self.addCleanup(coturn.remove)
        coturn.start()
        changes: DeferredQueue[None] = DeferredQueue()
        watch = ServerWatch(
            uris(*coturn.uris, f"stun:{HOST}:{coturn.port}"),
            reactor,
            interval=0.05,
            timeout=0.25,
            random_bytes=os.urandom,
            log=Log().logger,
            on_change=lambda: changes.put(None),
        )
        watch.start()
        self.addCleanup(watch.stop)
        await changes.get()
        while any(one.rtt is None for one in watch.health()[:-1]):
            await deferLater(reactor, 0)
        self.assertEqual([one.up for one in watch.health()], [True] * 3 + [False])
        coturn.stop()
        while watch.usable((*coturn.uris, "turn:other")) != ("turn:other",):
            await changes.get()

    async def test_a_server_that_stops_and_comes_back(self) -> None:
        coturns = [Coturn(SECRET, tls=True), Coturn(SECRET)]
        for coturn in coturns:
            self.addCleanup(coturn.remove)
            coturn.start()
        comes_and_goes, stays = coturns[0].uris, coturns[1].uris
        texts = comes_and_goes + stays
        log = Log()
        changes: DeferredQueue[None] = DeferredQueue()
        watch = ServerWatch(
            uris(*texts),
            reactor,
            interval=0.05,
            timeout=0.25,
            random_bytes=os.urandom,
            log=log.logger,
            on_change=lambda: changes.put(None),
        )
        watch.start()
        self.addCleanup(watch.stop)
        while any(one.rtt is None for one in watch.health()):
            await deferLater(reactor, 0)
        coturns[0].stop()
        while watch.usable(texts) != stays:
            await changes.get()
        self.assertEqual(watch.usable(comes_and_goes), comes_and_goes)
        coturns[0].start()
        while watch.usable(texts) != texts:
            await changes.get()
        refused, *others = log.lines()
        self.assertRegex(refused, "^warn: turns:.*: browsers refuse its cert.* its issuer is not k")
        self.assertEqual(len(others), 2 * len(comes_and_goes))
