"""Bounds on what one caller can make the gateway do or keep: each test is an attack that worked."""

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from odingw.customers.directory import combined, directory
from odingw.errors import Reason, Refused, RpcError, TokenError, TokenFault
from odingw.grid import changes
from odingw.grid.bans import Bans
from odingw.grid.store import PAGE
from odingw.grid.tasks import (
    DELIVERY_BYTES,
    MAX_BYTES,
    Delivery,
    RoomUpdate,
    Task,
    TaskBody,
    byte_list,
)
from odingw.ops.events import EventLog
from odingw.ops.metrics import Metrics
from odingw.rpc import jsonrpc
from odingw.rpc.client_api import CLIENT_API
from odingw.rpc.jsonrpc import Engine, Method, Reply, Turns
from odingw.rpc.openrpc import NoParams
from odingw.rpc.server_api import ServerApi, ServerCall, ServerRules
from odingw.rpc.server_keys import ServerKeys
from odingw.tokens import Claims, KeyType, Policy, SecretKey, check_claims, server_key
from tests.customer_documents import access_key, document
from tests.grids import Room, admission, report, store, update
from tests.local_file import FaultCase
from tests.redis_fleet import A, TwoGatewaysCase, grid, numbers

MASTER: Final = b"m" * 32


class ServerApiCase(SynchronousTestCase):
    """The server API on a grid in memory."""

    def setUp(self) -> None:
        self.grid = store().pool("")
        self.pauses: list[Deferred[None]] = []

    def api(self, *servers: str) -> ServerApi:
        return ServerApi(
            self.grid,
            ServerKeys(MASTER),
            ServerRules(settings={}, servers=servers),
            lambda work: succeed(work()),
            lambda _: None,
            lambda: (),
            self.pause,
        )

    def pause(self) -> Deferred[None]:
        self.pauses.append(Deferred())
        return self.pauses[-1]

    def run_call(self, api: ServerApi, name: str, params: dict[str, object]) -> Any:
        method = api.methods[name]
        return method.run(
            ServerCall(None, None, 1.0), method.read(Raw(msgspec.json.encode(params))), True
        )

    def report_as(self, address: str, *servers: str) -> Any:
        params = {"public_endpoint": address, "version": "1", "load": 0, "clients": 0, "rooms": []}
        return self.run_call(self.api(*servers), "sfu.Report", params)


class AddressTests(ServerApiCase):
    def test_what_other_programs_read_otherwise(self) -> None:
        """A pattern must not be met by what follows the host that clients would connect to."""
        for address in (
            "evil.example:4433?.fra:4433",
            "evil.example:4433#.fra:4433",
            "evil.example:4433/.fra:4433",
            "user@x.fra:4433",
            "x .fra:4433",
            "x.fra",
            "x.fra:",
            "x.fra:443300",
            "x.fra:0",
            "x.fra:65536",
            "x.fra:04433",
            "x..:4433",
            ".:4433",
            ".fra:4433",
            "-x.fra:4433",
            "ü.fra:4433",
            "x.fra:\uff14433",
            "x.fra:4433\n",
            "[::1:4433",
            "::1:4433",
            *("[:]:1", "[.]:1", "[]:1", "[1.2.3.4]:1", "[fe80::1%1]:1", "[::1]x:1", "[1:2:3]:1"),
            *("a..b:1", "a-.b:1", "a.-b:1", f"{'a' * 64}.b:1", f"{'.'.join(['a' * 50] * 5)}:1"),
            *("999.9.9.9:1", "1.2.3:1", "1.2.3.4.5:1", "01.2.3.4:1", "a.1:1", "4433:1", "0x7f.1:1"),
            *("1.2.3.4.:1", "a b:1", "a/b:1", "u@a:1", "a%41:1", " a:1", "a :1", "a:+1", "a: 1"),
        ):
            error = self.assertRaises(RpcError, self.report_as, address)
            detail = "public_endpoint: expected a host and a port from 1 to 65535, as host:port"
            self.assertEqual({"detail": detail}, error.data, address)

    def test_good_ones(self) -> None:
        for address in (
            "x.fra:4433",
            "x.fra.:4433",
            "localhost:1",
            "a_b.c-d:65535",
            "[2001:db8::1]:4433",
            "[::ffff:192.0.2.1]:1",
            "192.0.2.1:4433",
            "_voice.fra:1",
            "1and1.fra:1",
            "sfu_1:1",
            f"{'a' * 63}.fra:1",
        ):
            self.report_as(address)
        self.report_as("x.fra.:4433", "*.fra:4433")
        self.report_as("x.fra.:4433", "*.fra.:4433")
        self.report_as("x.fra:4433", "*.fra:4433")
        self.assertRaises(RpcError, self.report_as, "x.ams:4433", "*.fra:4433")


class InfoTests(ServerApiCase):
    def test_many_rooms_are_described_in_slices(self) -> None:
        count = 2 * PAGE + 7
        rooms = [Room(("acme", f"room{number}")) for number in range(count)]
        self.grid.report(report(A, *rooms), 0)
        self.grid.connect(admission("placed"), 0)
        waiting = Deferred.fromCoroutine(self.run_call(self.api(), "Info", {}))
        for number in range(2):
            self.assertNoResult(waiting)
            self.assertEqual(number + 1, len(self.pauses))
            self.pauses[number].callback(None)
        info = msgspec.json.decode(msgspec.json.encode(self.successResultOf(waiting)))
        self.assertEqual({A}, {room["server"] for room in info["rooms"]})
        names = {name for _, name in (room["id"] for room in info["rooms"])}
        self.assertEqual({f"room{number}" for number in range(count)} | {"placed"}, names)
        (server,) = info["servers"]
        self.assertEqual(count, len(server["report"]["rooms"]))
        self.assertEqual({"id", "customer", "peers"}, set(server["report"]["rooms"][0]))

    def test_none(self) -> None:
        told = Deferred.fromCoroutine(self.run_call(self.api(), "Info", {}))
        info = msgspec.json.decode(msgspec.json.encode(self.successResultOf(told)))
        self.assertEqual(([], []), (info["servers"], info["rooms"]))


class BatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.worked = 0.0
        self.done: list[int] = []
        self.pauses: list[Deferred[None]] = []

    def engine(self, run: Callable[..., object], batch: int = 3) -> Engine[None]:
        turns = Turns(lambda: self.worked, self._pause)
        return Engine(
            {"work": Method(NoParams, run)}, batch, lambda *_: None, lambda *_: None, turns
        )

    def _pause(self) -> Deferred[None]:
        self.pauses.append(Deferred())
        return self.pauses[-1]

    def ask(self, engine: Engine[None], body: object) -> Deferred[Reply]:
        reply = engine.handle(msgspec.json.encode(body), None)
        return succeed(reply) if isinstance(reply, Reply) else Deferred.fromCoroutine(reply)  # type: ignore[arg-type]  # it is one

    def test_others_get_their_turn(self) -> None:
        def work(context: None, params: object, answered: bool) -> int:
            self.done.append(len(self.done))
            self.worked += 0.003
            return self.done[-1]

        waiting = self.ask(self.engine(work), [call(number) for number in range(3)])
        self.assertNoResult(waiting)
        self.assertEqual([0, 1], self.done)
        self.pauses[0].callback(None)
        reply = self.successResultOf(waiting)
        self.assertEqual([0, 1, 2], [each["result"] for each in json.loads(reply.body or b"")])

    def test_replies_are_bounded(self) -> None:
        """The answers that there are go out, for they may hold tasks; nothing more is done."""
        self.patch(jsonrpc, "MAX_REPLY", 100)

        def work(context: None, params: object, answered: bool) -> str:
            self.done.append(1)
            return "x" * 60

        calls = [call(1), call(2), call(3), {"jsonrpc": "2.0", "method": "work"}]
        reply = self.successResultOf(self.ask(self.engine(work, 4), calls))
        answers = json.loads(reply.body or b"")
        self.assertEqual(2, len(self.done))
        self.assertEqual([1, 2, 3], [each["id"] for each in answers])
        self.assertEqual(-32013, answers[2]["error"]["code"])

    def test_a_long_batch_is_not_built(self) -> None:
        engine = self.engine(lambda *_: None)
        self.assertEqual(
            4, len(engine._read_batch(b"[" + b"1," * 10_000 + b"1]").__struct_fields__)
        )
        for count, status in ((3, 200), (4, 413), (10_000, 413)):
            reply = self.successResultOf(self.ask(engine, [1] * count))
            self.assertEqual(status, reply.status)
        self.assertEqual(400, self.successResultOf(self.ask(engine, Raw(b"[1,1,1,1,x]"))).status)

    def test_a_batch_that_may_be_very_long(self) -> None:
        engine = self.engine(lambda *_: None, 2000)
        for count, status in ((2000, 200), (2001, 413)):
            self.assertEqual(status, self.successResultOf(self.ask(engine, [1] * count)).status)


def call(number: int) -> dict[str, object]:
    return {"jsonrpc": "2.0", "method": "work", "id": number}


def body_of(size: int) -> RoomUpdate:
    """Return a task whose data are about so many bytes in a reply."""
    return RoomUpdate(("acme", "room"), byte_list([1] * (size // 2)))


class TaskBytesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.grid = store().pool("")
        self.grid.report(report(A, Room(("acme", "room"))), 0)

    def test_bytes_are_bounded(self) -> None:
        body = body_of(60_000)
        command = msgspec.structs.replace(update("room"), body=body)
        accepted = 0
        with self.assertRaises(Refused) as caught:
            while True:
                self.grid.command(command, 0)
                accepted += 1
        self.assertEqual(Reason.TOO_MANY_TASKS, caught.exception.reason)
        self.assertEqual(MAX_BYTES // len(msgspec.json.encode(body)), accepted)
        # Another customer's queue is not full, and this one's is not when some are delivered.
        self.grid.command(msgspec.structs.replace(command, customer="else"), 0)
        self.grid.acknowledge(taken(self.grid.take(A)))
        self.grid.command(command, 0)

    def test_a_delivery_is_bounded_and_in_order(self) -> None:
        sizes = (600_000, 400_000, 100_000, 2 * DELIVERY_BYTES, 10, 10)
        for size in sizes:
            self.grid.command(msgspec.structs.replace(update("room"), body=body_of(size)), 0)
        counts = []
        found: list[Task] = []
        while (delivery := self.grid.take(A)) is not None:
            counts.append(len(delivery.tasks))
            found += delivery.tasks
            self.grid.acknowledge(delivery)
        self.assertEqual([2, 1, 1, 2], counts)
        self.assertEqual([body_of(size) for size in sizes], [task.body for task in found])

    def test_stored_rows_are_as_before(self) -> None:
        row = b'{"task":"RoomUpdate","id":["acme","room"],"user_data":[1,2,255]}'
        body = RoomUpdate(("acme", "room"), byte_list((1, 2, 255)))
        self.assertEqual(row, msgspec.json.encode(body))
        self.assertEqual(body, msgspec.json.decode(row, type=TaskBody))


def taken(delivery: Delivery | None) -> Delivery:
    assert delivery is not None
    return delivery


class RedisTests(TwoGatewaysCase):
    def test_a_delivery_is_bounded(self) -> None:
        self.reports(self.one, A, Room(("acme", "room")))
        for number in (1, 2, 3):
            data = (number, *(255 for _ in range(100_000)))
            self.command(self.one, update("room", *data))
        self.settle()
        found = []
        while delivery := self.one.answer(grid(self.one).take(A)):
            found.append(numbers(delivery))
            grid(self.one).acknowledge(delivery)
            self.settle()
        self.assertEqual([[1, 2], [3]], found)

    def test_places_that_came_and_went_are_forgotten(self) -> None:
        self.reports(self.one, A, Room(("acme", "room")))
        self.connect(self.one, "room", user="stored")
        self.one.cut()
        one = grid(self.one)
        for number in range(200):
            self.now += 1
            one.connect(admission("room", user=f"user{number}"), self.now)
            one.sweep(self.now)
        self.assertLess(len(one.copies.grants), 40)
        one.connect(admission("room", user="last"), self.now)
        self.one.back()
        self.tick(self.one)
        places = [place[1] for place in self.books().rows("places").values()]
        self.assertIn("ulast", places)
        self.assertNotIn("ustored", places)


class JournalTests(FaultCase):
    def test_places_that_came_and_went_are_forgotten(self) -> None:
        self.patch(changes, "_PLACES", 10)
        store = self.open()
        grid = store.pool("")
        grid.report(report(A), 0)
        self.answer(grid.connect(admission("room", user="stored"), 0))
        self.file.limit()
        grid._grid._changes._many_places = 10
        for number in range(1, 200):
            grid.report(report(A, Room(("acme", "room"))), number)
            for part in range(5):
                user = f"user{number}.{part}" + "u" * 3000
                grid.connect(admission("room", user=user), number)
            store.tick(number)
            self.clock.advance(1)
        self.assertIn("full", store.trouble)
        self.assertLess(len(grid._grid._changes.places), 200)
        self.file.limit(2**30)
        self.clock.advance(2)
        self.assertEqual("", store.trouble)


class NameTests(SynchronousTestCase):
    def test_a_banned_user_has_a_name_of_some_length(self) -> None:
        params = CLIENT_API.signatures["RoomBanClient"].params
        read = Method(params, lambda *_: None).read
        good = {"room_id": "room", "user_id": "u" * 1024}
        self.assertEqual("u" * 1024, read(Raw(msgspec.json.encode(good))).user_id)
        with self.assertRaises(RpcError) as caught:
            read(Raw(msgspec.json.encode({**good, "user_id": "u" * 1025})))
        assert caught.exception.data is not None
        self.assertTrue(caught.exception.data["detail"].startswith("user_id: "))

    def test_the_ends_of_bans_share_the_text(self) -> None:
        bans = Bans(10, lambda _: None)
        user = "u" * 1000
        bans.set(("acme", "room"), user, 60, "acme", 0)
        bans.set(("acme", "room"), None, 60, "acme", 0)
        bans.set(("acme", "room"), "", 60, "acme", 0)
        self.assertTrue(any(user is part for end in bans._ends for part in end))
        bans.sweep(61, 10)
        self.assertEqual(0, len(bans))

    def test_names_in_the_audit_log_are_cut(self) -> None:
        class Who:
            kid = "kid"
            customer = "acme"

        log = EventLog(Metrics(lambda: 0.0))
        with capturedLogs() as events:
            log.managed(Who(), "RoomBanClient", "r" * 5000, "u" * 5000, None)  # type: ignore[arg-type]  # all that is read of a caller
        (event,) = [each for each in events if each.get("odingw_method") == "RoomBanClient"]
        self.assertEqual("r" * 200 + "…", event["odingw_room"])
        self.assertEqual("u" * 200 + "…", event["odingw_user"])
        self.assertNotIn("u" * 201, event["whom"])


class ClaimsTests(SynchronousTestCase):
    def test_rid_names_so_many_rooms(self) -> None:
        for rid in ("x" * 100, ("x",) * 64):
            check_claims(Claims(rid=rid, uid="u", exp=10), now=0, policy=Policy())
        claims = Claims(rid=("x",) * 65, uid="u", exp=10)
        with self.assertRaises(TokenError) as caught:
            check_claims(claims, now=0, policy=Policy())
        self.assertEqual(TokenFault.CLAIMS, caught.exception.fault)
        self.assertEqual("rid names more than 64 rooms", caught.exception.message)


class Attached:
    """Servers whose keys nobody has told of, but for the last one's."""

    def __init__(self, count: int) -> None:
        self.all = {f"{number}.test:4433" for number in range(count)}
        self.known = "last.test:4433"
        self.all.add(self.known)

    def address_of_key(self, kid: str) -> str | None:
        return self.known if kid == server_key(MASTER, self.known).kid else None

    def addresses(self) -> set[str]:
        return self.all


class KeyTests(SynchronousTestCase):
    def test_a_made_up_key_id_costs_little(self) -> None:
        keys, attached = ServerKeys(MASTER), Attached(100)
        made_up = SecretKey(b"s" * 32, KeyType.DERIVED).kid
        self.assertIsNone(keys.verifying(made_up, attached))
        self.assertEqual(20, len(keys._keys))
        known = server_key(MASTER, attached.known)
        self.assertEqual(known, keys.verifying(known.kid, attached))
        for _ in range(5):
            keys.verifying(made_up, attached)
        self.assertEqual(attached.all, set(keys._keys))
        other = server_key(MASTER, "7.test:4433")
        self.assertEqual(other, keys.verifying(other.kid, attached))


class DirectoryTests(SynchronousTestCase):
    def test_namespaces(self) -> None:
        one = directory([document("acme", access_key("k1", namespace="space"))])
        two = directory([document("else", access_key("k2"))])
        self.assertEqual({"space"}, one.namespaces)
        self.assertEqual({"space", "else"}, combined(one, two).namespaces)

    def test_the_key_id_of_a_server_is_no_customers(self) -> None:
        kid = server_key(MASTER, A).kid
        found = directory([document("acme", access_key(kid), access_key("k2"))])
        self.assertEqual(["k2"], list(found.keys))
        (problem,) = found.problems
        self.assertIn("its kid has the form of a server's key", problem)
