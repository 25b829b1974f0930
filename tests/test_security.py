"""Who is let in where, and that secrets stay where they are."""

import hmac
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final

from msgspec import Raw
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from odingw.config import InternalUser, Networks
from odingw.errors import FORBIDDEN, UNAUTHORIZED, RpcError, TokenError, TokenFault
from odingw.grid.rooms import room_hash
from odingw.grid.values import GridSettings
from odingw.master_key import is_published
from odingw.rpc.callers import AccessRules, Authenticator, DemoLimits
from odingw.rpc.client_api import ClientApi, ClientCall, ClientHooks
from odingw.rpc.jsonrpc import Engine, Method, Reply
from odingw.rpc.server_keys import ServerKeys
from odingw.state.memory import MemoryStore
from odingw.tokens import AccessKey, TokenGenerator, decode_master_key, parse, server_key
from odingw.web.guard import BasicUsers, InternalGuard
from tests.grids import report
from tests.process import ACCESS_KEY, MASTER_KEY

SERVER: Final = "sfu.test:4433"
NOW: Final = 1_700_000_000


class Socket:
    """A transport, as far as guards look at it."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer

    def getPeer(self) -> Any:  # noqa: N802  -- Twisted's name
        """Return who is at the other end."""
        return self._peer


class Asked:
    """A request, as far as guards look at it."""

    def __init__(self, peer: Any, **headers: str) -> None:
        self.transport = Socket(peer)
        self.clientproto = b"HTTP/1.1"
        self.requestHeaders = Headers({"host": ["127.0.0.1:7000"]})
        for name, value in headers.items():
            self.requestHeaders.setRawHeaders(name, [value])


def from_address(text: str, **headers: str) -> Any:
    """Return a request from an address; empty: from a unix socket."""
    kind = IPv6Address if ":" in text else IPv4Address
    return Asked(kind("TCP", text, 1) if text else UNIXAddress(b""), **headers)


def basic(user: str, password: str) -> str:
    """Return credentials."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


class GuardTests(SynchronousTestCase):
    """``/internal``, by address."""

    def guard(self, **users: str) -> InternalGuard:
        """Return the default guard, with these users."""
        allow = Networks.parse(("127.0.0.0/8", "::1/128"))
        known = {name: InternalUser(password=password) for name, password in users.items()}
        return InternalGuard(known, allow, (), lambda _: None)

    def test_without_users_it_is_this_hosts_alone(self) -> None:
        guard = self.guard()
        for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", ""):
            self.assertIsNone(guard.check(from_address(address), proxied=False), address)
        for address in ("192.0.2.1", "10.0.0.1", "::ffff:192.0.2.1", "2001:db8::1", "fe80::1"):
            error = self.assertRaises(RpcError, guard.check, from_address(address), proxied=False)
            self.assertEqual(FORBIDDEN, error.code, address)

    def test_with_users_address_and_credentials_must_fit(self) -> None:
        guard = self.guard(ann="secret")
        for address, authorization, code in (
            ("127.0.0.1", basic("ann", "secret"), None),
            ("127.0.0.1", basic("ann", "other"), UNAUTHORIZED),
            ("127.0.0.1", "Bearer secret", UNAUTHORIZED),
            ("192.0.2.1", basic("ann", "secret"), FORBIDDEN),
        ):
            request = from_address(address, authorization=authorization)
            try:
                guard.check(request, proxied=False)
                found = None
            except RpcError as error:
                found = error.code
            self.assertEqual(code, found, (address, authorization))


class ConstantTimeTests(SynchronousTestCase):
    """What is compared with a secret takes as long whatever it is."""

    def compared(self, call: Callable[[], object]) -> list[tuple[int, int]]:
        """Return the lengths of what ``hmac.compare_digest`` is given during a call."""
        pairs: list[tuple[int, int]] = []
        original = hmac.compare_digest

        def watched(one: Any, other: Any) -> bool:
            pairs.append((len(one), len(other)))
            return original(one, other)

        self.patch(hmac, "compare_digest", watched)
        try:
            call()
        except RpcError:
            pass
        finally:
            self.patch(hmac, "compare_digest", original)
        return pairs

    def test_passwords(self) -> None:
        """Each user's is looked at in full, as a digest, whoever asks and whichever fits."""
        users = BasicUsers({"ann": "a", "bob": "a much longer password", "eve": "c"}, "realm")
        for user, password in (
            ("ann", "a"),
            ("eve", "c"),
            ("bob", "a much longer passwore"),
            ("nobody", ""),
            ("ann", "x" * 3000),
        ):
            request = from_address("127.0.0.1", authorization=basic(user, password))
            pairs = self.compared(lambda: users.check(request))  # noqa: B023  -- called at once
            self.assertEqual([(32, 32)] * 3, pairs, user)

    def test_keys(self) -> None:
        key, other = AccessKey.generate(lambda n: b"k" * n), AccessKey.generate(lambda n: b"o" * n)
        for one, two, same in ((key, AccessKey(key.text), True), (key, other, False)):
            pairs = self.compared(lambda: one == two)  # noqa: B023  -- called at once
            self.assertEqual([(32, 32)], pairs)
            self.assertEqual(same, one == two)


def authenticator(**rules: Any) -> Authenticator:
    """Return one that knows no customer's key, and one customer."""
    methods = ("Connect", "RoomClose", "RoomUpdate")
    return Authenticator(
        methods, AccessRules(**rules), lambda _: None, lambda _: None, {"acme"}.__contains__
    )


class StrangerTests(SynchronousTestCase):
    """Tokens of keys that nobody has configured."""

    def token(self, key: AccessKey = ACCESS_KEY, **claims: Any) -> str:
        return TokenGenerator(key).create_token("room", "user", now=NOW, **claims)

    def refused(self, judge: Authenticator, text: str) -> TokenFault:
        with self.assertRaises(TokenError) as caught:
            judge.authenticate(text, NOW)
        refusal: TokenError = caught.exception
        self.assertEqual("not authorized", refusal.message)
        return refusal.fault

    def test_nobody_is_let_in_while_no_key_is_known(self) -> None:
        """As when the customers could not be loaded."""
        judge = authenticator()
        for text in (self.token(), self.token(subject="RoomClose")):
            self.assertEqual(TokenFault.UNKNOWN_KEY, self.refused(judge, text))

    def test_demo_users_may_connect_and_nothing_else(self) -> None:
        judge = authenticator(unknown_customers=DemoLimits(25, 5, 100))
        caller = judge.authenticate(self.token(subject=["Connect", "RoomClose"]), NOW)
        self.assertEqual({"Connect"}, set(caller.methods))
        self.assertEqual(f"demo_{ACCESS_KEY.kid}", caller.namespace)
        error = self.assertRaises(
            RpcError, judge.authenticate, self.token(subject="RoomClose"), NOW
        )
        self.assertEqual(FORBIDDEN, error.code)

    def test_a_demo_user_is_never_a_configured_customer(self) -> None:
        """Signatures are not checked, so a key id may be made up to name one."""
        name = f"demo_{ACCESS_KEY.kid}"
        judge = Authenticator(
            ("Connect",),
            AccessRules(unknown_customers=DemoLimits(25, 5, 100)),
            lambda _: None,
            lambda _: None,
            {name}.__contains__,
        )
        self.refused(judge, self.token())


class SigningTests(SynchronousTestCase):
    def test_a_room_token_is_signed_with_the_key_that_its_server_has(self) -> None:
        """Though the master key was replaced since the server asked for it."""
        new, old = b"the new one", b"the old one"
        store = MemoryStore(GridSettings(), lambda _: 0)
        grid = store.pool("")
        keys = ServerKeys(new, old)
        hooks = ClientHooks(*[lambda *_: None] * 4)
        api = ClientApi(grid, keys, 300, "exact", hooks)
        judge = Authenticator(
            api.methods,
            AccessRules(unknown_customers=DemoLimits(25, 5, 100)),
            lambda _: None,
            lambda _: None,
            lambda _: False,
        )
        caller = judge.authenticate(
            TokenGenerator(ACCESS_KEY).create_token("room", "user", now=NOW), NOW
        )
        method = api.methods["Connect"]
        grid.report(report(SERVER), 1)
        for master_key in (old, new):
            grid.give_key(SERVER, server_key(master_key, SERVER).kid, 2)
            placed = method.run(ClientCall(caller, 3, NOW), method.read(Raw(b"{}")), True)
            kid = parse(placed.token).header.kid
            self.assertEqual(server_key(master_key, SERVER).kid, kid)


class BatchTests(SynchronousTestCase):
    def test_a_batch_is_bounded(self) -> None:
        """Nothing of one that is too long is carried out."""
        done: list[int] = []
        method: Method[None] = Method(dict, lambda context, params, answered: done.append(1))
        engine: Engine[None] = Engine({"work": method}, 3, lambda *_: None, lambda *_: None)
        call = {"jsonrpc": "2.0", "method": "work", "id": 1}
        for count, status, worked in ((3, 200, 3), (4, 413, 0)):
            done.clear()
            answer = engine.handle(json.dumps([call] * count).encode(), None)
            reply = answer if isinstance(answer, Reply) else self.successResultOf(_wait(answer))
            self.assertEqual((status, worked), (reply.status, len(done)))


def _wait(answer: Any) -> Deferred[Reply]:
    return Deferred.fromCoroutine(answer)


class HashTests(SynchronousTestCase):
    def test_long_names_of_two_namespaces_differ(self) -> None:
        """One byte for each length, which wraps at 256, would make these two the same."""
        one, other = ("a\4" + "x" * 255, "room"), ("a", "x" * 255 + "\4room")
        for namespace, name in (one, other):
            self.assertEqual((1, 4), (len(namespace) % 256, len(name) % 256))
        self.assertNotEqual(room_hash(*one), room_hash(*other))


class SampleKeyTests(SynchronousTestCase):
    def test_the_published_key_is_known(self) -> None:
        """The existing gateway's documentation shows it, so everybody has it."""
        self.assertTrue(is_published(decode_master_key(MASTER_KEY)))
        self.assertFalse(is_published(b"some other key"))
