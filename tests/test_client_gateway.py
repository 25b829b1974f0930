"""``odingw.client`` against a real gateway, with simulated servers that carry out what is asked."""

import itertools
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from odingw.client import (
    AccessKeyTokens,
    AsyncGatewayClient,
    AsyncInternalClient,
    Forbidden,
    GatewayClient,
    GatewayError,
    Info,
    InternalClient,
    InvalidParams,
    MethodNotAllowed,
    MethodNotFound,
    NoServer,
    NotFound,
    PeerLimitExceeded,
    RidBaseMismatch,
    RidEmpty,
    RoomBanned,
    RoomLimitExceeded,
    RoomMismatch,
    RoomNotFound,
    ServerNotFound,
    Unauthorized,
    UserBanned,
)
from odingw.sim.fleet import Fleet
from odingw.tokens import AccessKey
from tests.jwk_server import reactor
from tests.process import ACCESS_KEY, customer, token
from tests.test_http import ProcessCase

SMALL_KEY = AccessKey.generate(lambda count: b"s" * count)
NARROW_KEY = AccessKey.generate(lambda count: b"n" * count)
PATIENCE = 15.0

_numbers = itertools.count(1)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not in time: {what}")
        await deferLater(reactor, 0.02)


def drained(info: Info) -> list[str]:
    """Return the addresses of drained servers."""
    return [server.address for server in info.servers if server.drained]


class GatewayTests(ProcessCase, TestCase):
    """A gateway that the tests share, and a simulated server of each test's own."""

    configuration = (
        "report_interval = 0.2\ndisable_timeout = 5\n"
        + customer()
        + customer("small", SMALL_KEY, max_peers=1)
        + customer("narrow", NARROW_KEY, max_rooms=1)
    )

    async def begin(self) -> None:
        """Start the server, and in the end leave it without a room to others."""
        number = next(_numbers)
        self.room = f"lobby {number}"
        self.address = f"sfu-{number}.sim:4433"
        self.url = f"http://127.0.0.1:{self.gateway.port}"
        fleet = Fleet(reactor, self.url, [self.address], 100)
        self.server = fleet.servers[self.address]
        self.addCleanup(deferToThread, self.leave)
        self.addCleanup(fleet.stop)
        await fleet.start(0)

    def leave(self) -> None:
        with InternalClient(self.url) as client:
            client.drain(self.address)

    def join(self, connection: Any) -> Any:
        return self.server.join(connection.token, time.time())

    def do(self, act: Callable[[GatewayClient], Any], user: str = "") -> Any:
        """Call in a thread, as the simulated server must go on meanwhile."""

        def work() -> Any:
            tokens = AccessKeyTokens(ACCESS_KEY, self.room, user)
            with GatewayClient(self.url, tokens) as client:
                return act(client)

        return deferToThread(work)

    async def test_blocking_what_is_asked_happens(self) -> None:
        await self.begin()
        connection = await self.do(GatewayClient.connect, user="alice")
        self.assertEqual(connection.address, self.address)
        alice = self.join(connection)
        bob = self.join(await self.do(GatewayClient.connect, user="bob"))
        await self.do(lambda client: client.update_room(self.room, b"\x00\xff"))
        await self.do(lambda client: client.send_message(self.room, "alice", b"hello"))
        await self.do(lambda client: client.kick_client(self.room, "bob"))
        await until(lambda: bob.gone, "bob is out")
        self.assertFalse(alice.gone)
        self.assertEqual([bytes(message) for message in alice.messages], [b"hello"])
        self.join(await self.do(GatewayClient.connect, user="bob"))
        await self.do(lambda client: client.ban_client(self.room, "bob", 60))
        error = await self.assertFailure(self.do(GatewayClient.connect, user="bob"), UserBanned)
        self.assertTrue(0 < error.retry_after <= 60)
        await self.do(lambda client: client.close_room(self.room, ban_time=30.5))
        await until(lambda: alice.gone, "the room is closed")
        error = await self.assertFailure(self.do(GatewayClient.connect), RoomBanned)
        self.assertTrue(0 < error.retry_after <= 30.5)
        self.assertEqual(
            [type(task).__name__ for task in self.server.tasks],
            ["RoomUpdate", "RoomSendMessage", "RoomBanClient", "RoomBanClient", "RoomClose"],
        )
        self.assertEqual(self.server.misbehaviours, [])

    async def test_blocking_operators(self) -> None:
        await self.begin()
        self.join(await self.do(GatewayClient.connect))
        await until(lambda: self.server.reports > 2, "the room is reported")

        def work() -> None:
            with InternalClient(self.url) as client:
                client.drain(self.address)
                info = client.info()
                (server,) = (item for item in info.servers if item.address == self.address)
                (room,) = (item for item in info.rooms if item.server == self.address)
                self.assertEqual((server.address, server.drained), (self.address, True))
                self.assertEqual(server.report.rooms[0].peers, 1)
                self.assertEqual((room.id, room.server), (("acme", self.room), self.address))
                self.assertIn("Connect", {counts.name for counts in info.stats.api_calls})
                client.undrain(self.address)
                self.assertNotIn(self.address, drained(client.info()))
                self.assertRaises(ServerNotFound, client.drain, "nobody:1")
                self.assertEqual(client.call("Drain", {"server": self.address}), {})

        await deferToThread(work)

    def client(self, room: Any = None, user: str = "", key: AccessKey = ACCESS_KEY) -> Any:
        client = AsyncGatewayClient(
            reactor, self.url, AccessKeyTokens(key, self.room if room is None else room, user)
        )
        self.addCleanup(client.close)
        return client

    async def test_what_is_asked_happens(self) -> None:
        await self.begin()
        client = self.client(user="alice")
        alice = self.join(await client.connect())
        await client.update_room(self.room, b"data")
        await client.send_message(self.room, "alice", b"hello")
        await client.ban_client(self.room, "bob", 60)
        await self.assertFailure(self.client(user="bob").connect(), UserBanned)
        await client.ban_client(self.room, "bob", 0)
        bob = self.join(await self.client(user="bob").connect())
        await client.kick_client(self.room, "bob")
        await until(lambda: bob.gone, "bob is out")
        self.assertEqual([bytes(message) for message in alice.messages], [b"hello"])
        await client.close_room(self.room)
        await until(lambda: alice.gone, "the room is closed")
        await client.connect()

    async def test_operators(self) -> None:
        await self.begin()
        async with AsyncInternalClient(reactor, self.url) as client:
            await client.drain(self.address)
            await self.assertFailure(self.client().connect(), NoServer)
            self.assertIn(self.address, drained(await client.info()))
            await client.undrain(self.address)
            await self.assertFailure(client.drain("nobody:1"), ServerNotFound)
            found = await client.call("Info")
            self.assertIn(self.address, [server["address"] for server in found["servers"]])

    async def test_limits_of_a_licence(self) -> None:
        await self.begin()
        for key, kind in ((SMALL_KEY, PeerLimitExceeded), (NARROW_KEY, RoomLimitExceeded)):
            await self.client("one", "alice", key).connect()
            call = self.client("two", "bob", key).connect()
            error: Any = await self.assertFailure(call, kind)
            self.assertTrue(error.temporary)

    async def test_errors_by_reason(self) -> None:
        await self.begin()
        client = self.client()
        await self.assertFailure(client.close_room("nowhere"), RoomNotFound)
        await self.assertFailure(self.client(["a", "b"]).connect(), RidBaseMismatch)
        await self.assertFailure(self.client([]).connect(), RidEmpty)
        error: Any = await self.assertFailure(client.close_room(self.room, -1), InvalidParams)
        self.assertIn("ban_time", error.detail)
        error = await self.assertFailure(client.call("Nothing"), Forbidden)
        self.assertEqual((error.status, error.temporary), (403, False))

    def with_token(self, source: Any, path: str = "/") -> Any:
        client = AsyncGatewayClient(reactor, self.url + path, source)
        self.addCleanup(client.close)
        return client

    async def test_errors_by_kind(self) -> None:
        await self.begin()
        good = token(self.room, subject=["Connect", "RoomClose"])
        await self.assertFailure(self.with_token(good).close_room("other"), RoomMismatch)
        await self.assertFailure(self.with_token(good).update_room(self.room, b""), MethodNotFound)
        await self.assertFailure(self.with_token("a.b.c").connect(), Unauthorized)
        await self.assertFailure(self.with_token(good, "/nowhere/").connect(), NotFound)
        await self.assertFailure(self.with_token(good, "/ping").connect(), MethodNotAllowed)

    async def test_the_same_gateway_as_a_proxy_would_be(self) -> None:
        """What no gateway said is not taken for an answer."""
        await self.begin()
        error: Any = await self.assertFailure(
            self.with_token(token(self.room), "/turn").connect(), GatewayError
        )
        self.assertFalse(isinstance(error, Unauthorized | NotFound), error)
