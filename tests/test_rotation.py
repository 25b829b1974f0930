"""Several master keys: how they are configured, and which of the keys derived from them counts."""

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec import Raw
from twisted.internet.defer import Deferred, ensureDeferred, execute
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import Config, Options
from odingw.errors import ConfigError, KeyMaterialError, RpcError
from odingw.grid.grid import Grid
from odingw.grid.values import GridSettings
from odingw.master_key import FILE_NAME, find, make
from odingw.rpc import server_keys
from odingw.rpc.server_api import ServerApi, ServerCall, ServerRules
from odingw.rpc.server_keys import ServerKeys
from odingw.state.memory import MemoryStore
from odingw.tokens import decode_master_keys, server_key
from tests.config_case import SECRET, ConfigCase
from tests.grids import report

OLD, NEW, OTHER = b"the old master key", b"the new master key", b"another master key"
A: Final = "a.test:4433"
B: Final = "b.test:4433"


def text(key: bytes) -> str:
    """Return a master key as it is configured."""
    return b64encode(key).decode()


class ConfigTests(ConfigCase):
    def test_every_form(self) -> None:
        """The keys are the same wherever they are given, and the option replaces them all."""
        both = (NEW, OLD)
        (self.folder / "keys").write_text(f"{text(NEW)}\n\n  {text(OLD)} \n")
        for toml, keys in (
            (f'gateway.master_keys = ["{text(NEW)}", "{text(OLD)}"]', both),
            ('gateway.master_key_file = "keys"', both),
            (f'gateway.master_key = "{text(OLD)}"', (OLD,)),
            (f'gateway.master_key = ""\ngateway.master_keys = ["{text(OLD)}"]', (OLD,)),
            ("", ()),
        ):
            with self.subTest(toml):
                gateway = self.load_text(toml).gateway
                self.assertEqual(keys, gateway.decoded_master_keys())
                self.assertNotIn(text(OLD), repr(gateway))
                replaced = self.load_text(toml, Options(masterkey=text(OTHER))).gateway
                self.assertEqual((OTHER,), replaced.decoded_master_keys())

    def test_wrong_lists(self) -> None:
        one, two = text(OLD), f"!{SECRET}"
        for toml, key, wanted in (
            (f'gateway.master_keys = ["{one}", "{two}"]', "master_keys", "master key 2: not base"),
            (f'gateway.master_keys = ["{one}", ""]', "master_keys", "master key 2: empty"),
            (f'gateway.master_keys = ["{one}", "{one}"]', "master_keys", "2: the same as number 1"),
            (f'gateway.master_keys = "{one}"', "master_keys", "a list of keys in base64"),
            (
                f'gateway.master_key = "{one}"\ngateway.master_keys = ["{one}"]',
                "master_keys",
                "gateway.master_key is given too",
            ),
            (
                f'gateway.master_keys = ["{one}"]\ngateway.master_key_file = "x"',
                "master_key_file",
                "gateway.master_keys is given too",
            ),
        ):
            with self.subTest(toml):
                self.path.write_text(toml)
                refusal = self.refusal(self.path)
                self.assertIn(f"gateway.{key}", refusal)
                self.assertIn(wanted, refusal)
                self.assertNotIn(one, refusal)

    def test_wrong_files(self) -> None:
        self.path.write_text('gateway.master_key_file = "keys"')
        for content, wanted in (
            (f"{text(OLD)}\n!{SECRET}\n", "master key 2: not base64; put each key there once"),
            (f"{text(OLD)}\n{text(OLD)}", "the same as number 1"),
            (f"{text(OLD)} {text(NEW)}", "holds no base64"),
        ):
            (self.folder / "keys").write_text(content)
            refusal = self.refusal(self.path)
            self.assertIn(wanted, refusal)
            self.assertNotIn(text(OLD), refusal)

    def test_the_file_that_the_gateway_made(self) -> None:
        """A new key can be put in front of the one that was made on the first start."""
        (made,) = make(self.folder)
        path = self.folder / FILE_NAME
        path.write_text(f"{text(NEW)}\n{path.read_text()}")
        for keys in (self.found(), make(self.folder)):
            self.assertEqual((NEW, made), keys)
        for content in ("", "\n", f"{text(NEW)}\n!"):
            path.write_text(content)
            self.assertRaises(ConfigError, self.found)

    def found(self) -> tuple[bytes, ...]:
        return find(Config(), "", self.folder, option=False).keys

    def test_messages_tell_the_position_alone(self) -> None:
        error = self.assertRaises(KeyMaterialError, decode_master_keys, [text(OLD), SECRET + "!"])
        self.assertEqual("master key 2: not base64", str(error))


class Attached:
    """Servers that have been given keys."""

    def __init__(self, **servers: str) -> None:
        self.servers = {f"{name}.test:4433": kid for name, kid in servers.items()}

    def address_of_key(self, kid: str) -> str | None:
        """Return whose key it is."""
        return next((a for a, given in self.servers.items() if given == kid), None)

    def addresses(self) -> Any:
        """Return who is there."""
        return self.servers.keys()


class KeyTests(SynchronousTestCase):
    """Which key signs, and which one verifies."""

    def setUp(self) -> None:
        self.missing: list[str] = []
        self.keys = ServerKeys(NEW, OLD, on_missing=self.missing.append)
        self.new, self.old = server_key(NEW, A), server_key(OLD, A)

    def test_the_first_is_handed_out(self) -> None:
        self.assertEqual(self.new, self.keys[A])

    def test_what_was_given_signs(self) -> None:
        for key in (self.new, self.old):
            self.assertEqual(key, self.keys.signing(A, key.kid))
        self.assertEqual([], self.missing)

    def test_a_key_of_no_master_key_is_told_of(self) -> None:
        """The first one has to do then."""
        gone = server_key(OTHER, A)
        for _ in range(2):
            self.assertEqual(self.new, self.keys.signing(A, gone.kid))
        self.assertEqual([A], self.missing)
        self.assertIsNone(self.keys.verifying(gone.kid, Attached(a=gone.kid)))

    def test_which_keys_are_known(self) -> None:
        for master_key, known in ((NEW, True), (OLD, True), (OTHER, False)):
            kid = server_key(master_key, A).kid
            self.assertEqual(known, self.keys.knows(A, kid))

    def test_every_listed_key_verifies(self) -> None:
        """Whichever of them the server is known to have: tokens outlive its restart."""
        for given in (self.new, self.old, server_key(OTHER, A)):
            attached = Attached(a=given.kid, b=server_key(OLD, B).kid)
            for key in (self.new, self.old):
                self.assertEqual(key, self.keys.verifying(key.kid, attached))

    def test_only_of_servers_that_are_there(self) -> None:
        attached = Attached(b=server_key(OLD, B).kid)
        self.keys.signing(A, self.old.kid)
        self.assertIsNone(self.keys.verifying(self.old.kid, attached))
        self.assertIsNone(self.keys.verifying(self.new.kid, attached))
        self.assertIsNone(self.keys.verifying("AQ7aVmK+pI1l", attached))
        self.assertIsNone(self.keys.verifying("", attached))

    def test_keys_are_bounded(self) -> None:
        """Ten thousand addresses later the first one is derived anew, and is the same."""
        self.patch(server_keys, "_KEPT", 3)
        addresses = [f"{number}.test:4433" for number in range(8)]
        for address in addresses:
            self.keys.signing(address, server_key(OLD, address).kid)
        self.assertEqual(3, len(self.keys._keys))
        self.assertEqual(6, len(self.keys._address_of))
        self.assertEqual(3, len(self.keys._signing))
        first = server_key(OLD, addresses[0])
        self.assertEqual(first, self.keys.signing(addresses[0], first.kid))


class Stubborn(Grid):
    """A grid whose store remembers nothing new; later, if asked so."""

    pending: Deferred[str] | None = None
    before: str | None = None

    def give_key(self, address: str, kid: str, now: float) -> Any:
        """Say which key is given."""
        if self.pending is not None:
            return self.pending
        return self.before or super().give_key(address, kid, now)


class GridConfigTests(SynchronousTestCase):
    """What a server is given is remembered before it has it."""

    def setUp(self) -> None:
        self.keys = ServerKeys(NEW, OLD)
        memory = MemoryStore(GridSettings(), lambda _: 0)
        self.grid = Stubborn(GridSettings(), memory._usage, lambda _: 0)
        self.api = ServerApi(
            self.grid, self.keys, ServerRules(settings={}), in_thread, lambda _: None, lambda: ()
        )

    def ask(self, config: str = "", *, answered: bool = True) -> Deferred[Any]:
        """Ask for the settings of a server."""
        method = self.api.methods["sfu.GridConfig"]
        raw = b'{"public_endpoint": "%s", "version": "1", "config": "%s"}' % (
            A.encode(),
            config.encode(),
        )
        return ensureDeferred(
            method.run(ServerCall("::1", None, 5.0), method.read(Raw(raw)), answered)
        )

    def given(self, asked: Deferred[Any]) -> str:
        """Return the id of the key in an answer."""
        found = re.search(r'kid = "([^"]+)"', self.successResultOf(asked).config)
        assert found is not None
        return found[1]

    def test_it_is_remembered(self) -> None:
        self.grid.note_key(A, server_key(OLD, A).kid, 1.0)
        self.assertEqual(self.keys[A].kid, self.given(self.ask()))
        self.assertEqual(self.keys[A].kid, self.grid.key_of(A))

    def test_not_what_nobody_hears(self) -> None:
        """A notification has no reply, and what is refused brings no key."""
        old = server_key(OLD, A).kid
        self.grid.note_key(A, old, 1.0)
        self.successResultOf(self.ask(answered=False))
        self.failureResultOf(self.ask("not TOML"), RpcError)
        self.assertEqual(old, self.grid.key_of(A))

    def test_it_waits_for_the_store(self) -> None:
        self.grid.pending = Deferred()
        asked = self.ask()
        self.assertNoResult(asked)
        self.grid.pending.callback(self.keys[A].kid)
        self.assertEqual(self.keys[A].kid, self.given(asked))

    def test_the_key_before_is_given_while_nothing_can_be_remembered(self) -> None:
        self.grid.before = server_key(OLD, A).kid
        self.assertEqual(self.grid.before, self.given(self.ask()))

    def test_a_key_that_is_known_no_more_is_not_given(self) -> None:
        self.grid.before = server_key(OTHER, A).kid
        self.assertEqual(self.keys[A].kid, self.given(self.ask()))

    def test_info_tells_which_key_was_given(self) -> None:
        """Also one that comes from no configured master key."""
        for master_key in (NEW, OLD, OTHER):
            self.grid.note_key(A, server_key(master_key, A).kid, 1.0)
            self.grid.report(report(A), 2.0)
            method = self.api.methods["Info"]
            told = method.run(ServerCall("::1", None, 5.0), method.read(Raw(b"{}")), True)
            info = self.successResultOf(Deferred.fromCoroutine(told))
            self.assertEqual([server_key(master_key, A).kid], [one.key_id for one in info.servers])


def in_thread(work: Callable[[], str]) -> Awaitable[str]:
    """Work in this thread, and fail as one would there."""
    return execute(work)
