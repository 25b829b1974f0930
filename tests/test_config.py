"""The configuration: what loads, what beats what, and one line for everything that is wrong."""

import re
import shutil
import tempfile
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import (
    AccessKeyConfig,
    Config,
    CustomerConfig,
    DemoLimits,
    FunctionReference,
    InternalUser,
    Networks,
    Options,
    StateAddress,
    load,
)
from odingw.errors import ConfigError

SAMPLE: Final = Path(__file__).parent.parent / "etc" / "odingw.toml"
SECRET: Final = "hunter2hunter2"
RESERVED: Final = [
    "clients",
    "healthz",
    "internal",
    "metrics",
    "monitor",
    "openapi.json",
    "openrpc.json",
    "ping",
    "readyz",
    "rpc.discover",
    "turn",
]


class Wrong(NamedTuple):
    """A wrong configuration: its text, the key at fault, and words of the remedy."""

    toml: str
    key: str
    remedy: str


WRONG: Final = [
    # Types.
    Wrong('gateway.leeway = "5"', "gateway.leeway", "got a string; write a whole number of sec"),
    Wrong("gateway.token_lifetime = 1.5", "gateway.token_lifetime", "got a float; write a whole"),
    Wrong("gateway.leeway = true", "gateway.leeway", "expected an integer, got a boolean"),
    Wrong("limits.idle_timeout = 1979-05-27", "limits.idle_timeout", "got a date; write a number"),
    Wrong("listen = 7000", "listen", "expected a table, got an integer; write a [listen] table"),
    Wrong('listen.public = "tcp:7000"', "listen.public", "got a string; write a list of endpoint"),
    Wrong("listen.public = [7000]", "listen.public[0]", 'such as ["tcp:7000"]'),
    Wrong('listen.reuse_port = "yes"', "listen.reuse_port", "write true or false"),
    Wrong("tls.certificate = 1", "tls.certificate", "got an integer; write the path of a file"),
    Wrong("gateway.compatibility = 0.18", "gateway.compatibility", '"strict" or "0.18", in quotes'),
    Wrong('gateway.customers = { id = "a" }', "gateway.customers", "[[gateway.customers]] tables"),
    Wrong("gateway.grid_config = []", "gateway.grid_config", "a [gateway.grid_config] table"),
    Wrong("gateway.internal.allow = 1", "gateway.internal.allow", "a list of networks such as"),
    Wrong("gateway.unknown_customers = 1", "gateway.unknown_customers", '"forbidden" or { max_pe'),
    Wrong("gateway.customer_source.file = 1", "gateway.customer_source.file", "the path of a JSON"),
    Wrong(
        "gateway.customer_source.function = { module = 'a', name = 'b' }",
        "gateway.customer_source.function",
        'got a table; write "package.module:name"',
    ),
    # Unknown and missing keys.
    Wrong("gateway.masterKey = ''", "gateway.masterKey", "did you mean master_key?"),
    Wrong("limit = {}", "limit", "did you mean limits?"),
    Wrong("[turn]\nttl = 1", "turn", "known here: listen, tls, log, state, gateway, admin, limits"),
    Wrong('log."a\\nb" = 1', r'log."a\nb"', "known here: level, format"),
    Wrong("[[gateway.customers]]", "gateway.customers[0].id", "missing; write a text"),
    Wrong(
        "[[gateway.customers]]\nid = 'a'\naccess_keys = [{}]",
        "gateway.customers[0].access_keys[0].public_key",
        "missing; write a JWK",
    ),
    Wrong(
        "[[gateway.customers]]\nid = 'a'\n[[gateway.customers]]\nid = 'b'\n"
        "access_keys = [{ public_key = {} }, { publicKey = {} }]",
        "gateway.customers[1].access_keys[1].publicKey",
        "did you mean public_key?",
    ),
    Wrong(
        "gateway.unknown_customers = { max_peers = 1, max_rooms = 1 }",
        "gateway.unknown_customers.total_peers",
        "missing; write a whole number",
    ),
    Wrong("gateway.customer_source.interval = 1", "gateway.customer_source.url", "write one of"),
    # Numbers.
    Wrong("gateway.leeway = -1", "gateway.leeway", "-1 is out of range; write"),
    Wrong("gateway.token_lifetime = 0", "gateway.token_lifetime", "0 is out of range; write"),
    Wrong("gateway.report_interval = 0", "gateway.report_interval", "seconds above 0"),
    Wrong("gateway.reservation_lifetime = -0.5", "gateway.reservation_lifetime", "-0.5 is out of"),
    Wrong("gateway.remove_timeout = nan", "gateway.remove_timeout", "nan is out of range; write"),
    Wrong("gateway.remove_timeout = inf", "gateway.remove_timeout", "at most ten years"),
    Wrong(f"limits.idle_timeout = 1{'0' * 400}", "limits.idle_timeout", "out of range; write"),
    Wrong("gateway.bans_per_customer = 0", "gateway.bans_per_customer", "at least 1"),
    Wrong("listen.shutdown_delay = -1", "listen.shutdown_delay", "from 0 to 3600"),
    Wrong("limits.body = 0", "limits.body", "a whole number, at least 1"),
    Wrong("limits.connections_per_address = -1", "limits.connections_per_address", "0 for no lim"),
    Wrong("limits.requests_per_second = -1", "limits.requests_per_second", "0 for no limit"),
    Wrong(
        "gateway.customers = [{ id = 'a', max_peers = -1 }]",
        "gateway.customers[0].max_peers",
        "a whole number, 0 or more",
    ),
    Wrong(
        "gateway.customer_source = { file = 'x', interval = 0 }",
        "gateway.customer_source.interval",
        "seconds above 0",
    ),
    # Texts.
    Wrong('log.level = "warning"', "log.level", 'write "debug", "info", "warn" or "error"'),
    Wrong('log.format = "xml"', "log.format", 'write "pretty" or "json"'),
    Wrong('gateway.room_match = "any"', "gateway.room_match", 'write "exact" or "prefix"'),
    Wrong('gateway.compatibility = "0.17"', "gateway.compatibility", 'write "strict" or "0.18"'),
    Wrong('gateway.unknown_customers = "ok"', "gateway.unknown_customers", 'write "forbidden" or'),
    Wrong(f'gateway.master_key = "!{SECRET}"', "gateway.master_key", "write the key in base64"),
    Wrong(
        f'gateway.master_key = "{SECRET}"\ngateway.master_key_file = "key"',
        "gateway.master_key_file",
        "keep one of them",
    ),
    Wrong('gateway.master_key_file = "none"', "gateway.master_key_file", "No such file"),
    Wrong('gateway.master_key_file = ""', "gateway.master_key_file", "not the path of a file"),
    Wrong('gateway.metrics_allowed = "all"', "gateway.metrics_allowed", "an address or a network"),
    Wrong('tls.private_key = "a\\u0000"', "tls.private_key", "not the path of a file; write one"),
    # Endpoints and networks.
    Wrong("listen.public = []", "listen.public", "write at least one"),
    Wrong('listen.public = ["7000"]', "listen.public[0]", 'write an endpoint such as "tcp:7000"'),
    Wrong('listen.internal = ["unix:x", ""]', "listen.internal[1]", "write an endpoint such as"),
    Wrong('listen.admin = ["tcp:70000"]', "listen.admin[0]", "write 0 to 65535"),
    Wrong('listen.public = ["haproxy:ssl:port=x:y=z"]', "listen.public[0]", "write 0 to 65535"),
    Wrong('listen.trusted_proxies = ["lb"]', "listen.trusted_proxies[0]", "write an address or a"),
    Wrong('gateway.internal.allow = ["::1", "10.0.0.0/33"]', "gateway.internal.allow[1]", "write"),
    Wrong("gateway.internal.allow = [1]", "gateway.internal.allow[0]", "1 is not a network; write"),
    Wrong('gateway.internal.servers = [""]', "gateway.internal.servers[0]", "*.voice.example:4433"),
    # State.
    Wrong('state.url = "sqlite:odingw.sqlite"', "state.url", 'memory only; write "memory:"'),
    Wrong(f'state.url = "redis://u:{SECRET}@h/0"', "state.url", 'memory only; write "memory:"'),
    Wrong('state.url = "rediss://h"', "state.url", 'memory only; write "memory:"'),
    Wrong(f'state.url = "mysql://u:{SECRET}@h"', "state.url", "unknown kind of state URL; write"),
    Wrong(f'state.url = "redis://u:{SECRET}@h:{SECRET}"', "state.url", "malformed host or port"),
    # What does not go together.
    Wrong(
        "gateway.disable_timeout = 5", "gateway.disable_timeout", "not above report_interval (5)"
    ),
    Wrong("gateway.remove_timeout = 7", "gateway.remove_timeout", "disable_timeout (7.5); write"),
    Wrong(
        "gateway.customers = [{ id = 'a' }, { id = 'b' }, { id = 'a' }]",
        "gateway.customers[2].id",
        "customers[0] has the same id; give each",
    ),
    # Pools.
    Wrong('gateway.pools.available = ["a/b"]', "gateway.pools.available[0]", "write letters, dig"),
    Wrong('gateway.pools.available = ["a", ""]', "gateway.pools.available[1]", "write letters"),
    Wrong('gateway.pools.available = [".."]', "gateway.pools.available[0]", "write letters"),
    Wrong('gateway.pools.available = ["a", "a"]', "gateway.pools.available[1]", "remove one"),
    Wrong('gateway.pools.default = "a"', "gateway.pools.default", "name one of pools.available"),
    *(
        Wrong(f'gateway.pools.available = ["{name}"]', "gateway.pools.available[0]", "choose anoth")
        for name in RESERVED
    ),
    # Customer sources.
    Wrong(
        f'gateway.customer_source = {{ url = "https://u:{SECRET}@h/", file = "x" }}',
        "gateway.customer_source.file",
        "keep one of url, file and function",
    ),
    Wrong(
        f'gateway.customer_source.url = "ftp://u:{SECRET}@h/"',
        "gateway.customer_source.url",
        "neither http nor https; write a URL",
    ),
    Wrong(
        f'gateway.customer_source.url = "https://h:{SECRET}/"',
        "gateway.customer_source.url",
        "malformed host or port; write a URL",
    ),
    Wrong('gateway.customer_source.url = "http:///x"', "gateway.customer_source.url", "no host"),
    Wrong('gateway.customer_source.url = "http://a b/"', "gateway.customer_source.url", "encoded"),
    Wrong(
        'gateway.customer_source.function = "module"',
        "gateway.customer_source.function",
        'write "package.module:name" or "file.py:name"',
    ),
    Wrong(
        'gateway.customer_source.function = "a b:c"',
        "gateway.customer_source.function",
        'write "package.module:name" or "file.py:name"',
    ),
    # Users.
    Wrong("gateway.internal.users.bob = 1", "gateway.internal.users.bob", "write a password in qu"),
    Wrong('gateway.internal.users.bob = ""', "gateway.internal.users.bob.password", "empty; write"),
    Wrong("gateway.internal.users.bob = {}", "gateway.internal.users.bob.password", "missing; wr"),
    Wrong(
        f'gateway.internal.users."b b" = {{ password = "{SECRET}", server = [] }}',
        'gateway.internal.users."b b".server',
        "did you mean servers?",
    ),
    Wrong(
        f'gateway.internal.users.b = {{ password = "{SECRET}", servers = [" x"] }}',
        "gateway.internal.users.b.servers[0]",
        "write a pattern such as",
    ),
    Wrong(
        f'gateway.internal.users."a:b" = "{SECRET}"',
        'gateway.internal.users."a:b"',
        "not a user name; write one",
    ),
    Wrong(
        f'gateway.internal.users = ["{SECRET}"]',
        "gateway.internal.users",
        'write name = "password"',
    ),
    Wrong("admin.users.bob = 1", "admin.users.bob", "got an integer; write a password in quotes"),
    Wrong('admin.users.bob = ""', "admin.users.bob", "the password is empty; write one"),
    Wrong(f'admin.users."" = "{SECRET}"', 'admin.users.""', "not a user name; write one"),
    # TOML.
    Wrong("[log]\nlevel = ", "line 2, column 9", "invalid TOML: Invalid value"),
    Wrong("[log]\nlevel = info\n", "line 2, column 9", "invalid TOML: Invalid value"),
    Wrong("[log]\nlevel = 'info'\nlevel = 'warn'\n", "line 3, column 15", "Cannot overwrite"),
    Wrong(f"[gateway]\nleeway = 1{'0' * 5000}", "invalid TOML", "digits"),
    Wrong("x = " + "[" * 5000, "tables and lists are nested too deeply", "use at most 64 levels"),
    Wrong(
        "gateway.grid_config." + ".".join("a" * 100) + " = 1",
        "tables and lists are nested too deeply",
        "use at most 64 levels",
    ),
]

GOOD: Final = """
[listen]
public = ["ssl:443", "unix:/run/odingw.sock", "haproxy:tcp:port=7002", "systemd:domain=INET"]
internal = ["tcp:0"]
admin = ["tcp:443"]
reuse_port = true
trusted_proxies = ["10.0.0.1/8", "fd00::/8"]
shutdown_delay = 2.5

[tls]
certificate = "tls/cert.pem"
private_key = "/etc/key.pem"

[log]
level = "debug"
format = "json"

[state]
url = "memory:"

[gateway]
compatibility = "strict"
master_key = "aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8="
token_lifetime = 60
leeway = 0
require_subject = false
require_expiry = false
room_match = "prefix"
report_interval = 1
disable_timeout = 1.5
remove_timeout = 2
metrics_allowed = "127.0.0.1/8"
unknown_customers = { max_peers = 25, max_rooms = 5, total_peers = 100 }
reservation_lifetime = 0.5
bans_per_customer = 1
pools = { available = ["eu", "us-1.x_y"], default = "eu" }

[[gateway.customers]]
id = "acme"
max_peers = 100
max_rooms = 0
access_keys = [{ namespace = "ns", public_key = { kid = 1, x = "broken" } }, { public_key = {} }]

[[gateway.customers]]
id = "other"

[gateway.customer_source]
function = "lib/customers.py:fetch"
interval = 30

[gateway.internal]
users = { a = "x:y", b = { password = "z", servers = ["*.voice.example:4433"] } }
allow = ["127.0.0.1/8", "::1"]
servers = ["sfu-?.example:4433"]
server_tokens = false

[gateway.grid_config]
quic = { idle_timeout = 60000, since = 2024-01-01 }

[admin]
users = { root = "secret" }

[limits]
body = 1
requests_per_second = 0.5
"""


class ConfigCase(SynchronousTestCase):
    """Gives each test a folder of its own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        # The working directory need not be spelled as the system spells it.
        self.folder = Path(folder.name).resolve()
        self.path = self.folder / "odingw.toml"

    def load_text(self, text: str, options: Options | None = None) -> Config:
        self.path.write_text(text, encoding="utf-8")
        return load(self.path, options)

    def refusal(self, path: Path | None, options: Options | None = None) -> str:
        """The one line with which a configuration is refused."""
        error = self.assertRaises(ConfigError, load, path, options)
        text = str(error)
        self.assertTrue(text.isprintable(), f"not one clean line: {text!r}")
        self.assertNotIn(SECRET, text)
        # A debugger or a log with tracebacks shows the chain too.
        self.assertTrue(error.__cause__ is None and error.__suppress_context__, text)
        return text


class WrongFileTests(ConfigCase):
    """One line that names the file, the key and the remedy."""

    def test_table(self) -> None:
        """Every kind of wrong value, key and combination."""
        for wrong in WRONG:
            self.path.write_text(wrong.toml, encoding="utf-8")
            text = self.refusal(self.path)
            start = f"{self.path}: {wrong.key}"
            self.assertTrue(re.match(re.escape(start) + "[:;]", text), f"{wrong.toml!r}: {text}")
            self.assertIn(wrong.remedy, text.removeprefix(start), wrong.toml)

    def test_missing_file(self) -> None:
        """A file that is not there is named, with the reason."""
        text = self.refusal(self.path)
        self.assertEqual(
            text,
            f"{self.path}: cannot read it: No such file or directory; "
            "name a file that odingw may read",
        )

    def test_folder(self) -> None:
        """A folder is no file."""
        text = self.refusal(self.folder)
        self.assertTrue(text.startswith(f"{self.folder}: cannot read it: Is a directory;"), text)

    def test_unusable_name(self) -> None:
        """A path that no system call takes, or one with a line break, still makes one line."""
        self.assertIn(r"a\x00b: cannot read it: ", self.refusal(Path("a\0b")))
        self.assertIn(r"a\nb: cannot read it: ", self.refusal(self.folder / "a\nb"))

    def test_not_utf8(self) -> None:
        """The line with the wrong byte is named."""
        self.path.write_bytes(b"[log]\n# caf\xe9\n")
        text = self.refusal(self.path)
        self.assertEqual(text, f"{self.path}: line 2: not valid UTF-8; save the file as UTF-8")

    def test_byte_order_mark(self) -> None:
        """Some editors write one; it is not part of the text."""
        self.path.write_bytes(b'\xef\xbb\xbflog.level = "warn"\n')
        self.assertEqual(load(self.path).log.level, "warn")

    def test_master_key_file_with_something_else(self) -> None:
        """What is no base64 is refused, without showing any of it."""
        self.path.write_text('gateway.master_key_file = "key"', encoding="utf-8")
        for content in (f"!{SECRET}".encode(), b"", b"\xff" + SECRET.encode()):
            (self.folder / "key").write_bytes(content)
            text = self.refusal(self.path)
            start = f"{self.path}: gateway.master_key_file: {self.folder / 'key'} holds no base64;"
            self.assertTrue(text.startswith(start), text)


class GoodFileTests(ConfigCase):
    """What is written is what is loaded."""

    def test_defaults(self) -> None:
        """Without a file, and with an empty one, every key has its default."""
        default = Config()
        here, there = load(None), self.load_text("")
        self.assertEqual(here.tls.certificate, Path.cwd() / "fullchain.pem")
        self.assertEqual(there.tls.private_key, self.folder / "privkey.pem")
        for config in (here, there):
            self.assertEqual(msgspec.structs.replace(config, tls=default.tls), default)
        self.assertIsNone(default.gateway.master_key_bytes())
        self.assertEqual(default.state.address, StateAddress(scheme="memory"))

    def test_every_value(self) -> None:
        """A file that sets nearly every key to something else."""
        config = self.load_text(GOOD)
        listen, gateway = config.listen, config.gateway
        self.assertEqual(listen.public[2], "haproxy:tcp:port=7002")
        self.assertEqual((listen.internal, listen.admin), (("tcp:0",), ("tcp:443",)))
        self.assertEqual((listen.reuse_port, listen.shutdown_delay), (True, 2.5))
        self.assertEqual(
            listen.trusted_proxies, (IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8"))
        )
        self.assertEqual(config.tls.certificate, self.folder / "tls" / "cert.pem")
        self.assertEqual(config.tls.private_key, Path("/etc/key.pem"))
        self.assertEqual((config.log.level, config.log.format), ("debug", "json"))
        self.assertEqual(gateway.master_key_bytes(), b"hello hello hello hello")
        self.assertEqual((gateway.token_lifetime, gateway.leeway), (60, 0))
        self.assertEqual((gateway.require_subject, gateway.require_expiry), (False, False))
        self.assertEqual(gateway.room_match, "prefix")
        self.assertEqual(
            (gateway.report_interval, gateway.disable_timeout, gateway.remove_timeout),
            (1.0, 1.5, 2.0),
        )
        self.assertEqual(gateway.metrics_allowed, "127.0.0.1/8")
        self.assertEqual(
            gateway.unknown_customers, DemoLimits(max_peers=25, max_rooms=5, total_peers=100)
        )
        self.assertEqual((gateway.reservation_lifetime, gateway.bans_per_customer), (0.5, 1))
        self.assertEqual(gateway.pools.available, ("eu", "us-1.x_y"))
        self.assertEqual(gateway.pools.default, "eu")
        self.assertEqual(
            gateway.customers,
            (
                CustomerConfig(
                    id="acme",
                    max_peers=100,
                    max_rooms=0,
                    access_keys=(
                        AccessKeyConfig(namespace="ns", public_key={"kid": 1, "x": "broken"}),
                        AccessKeyConfig(public_key={}),
                    ),
                ),
                CustomerConfig(id="other", max_peers=None, max_rooms=None),
            ),
        )
        internal = gateway.internal
        self.assertEqual(
            internal.users,
            {
                "a": InternalUser(password="x:y"),
                "b": InternalUser(password="z", servers=("*.voice.example:4433",)),
            },
        )
        self.assertEqual(internal.allow, (ip_network("127.0.0.0/8"), ip_network("::1/128")))
        self.assertEqual(internal.servers, ("sfu-?.example:4433",))
        self.assertIs(internal.server_tokens, False)
        written = tomllib.loads(GOOD)
        self.assertEqual(gateway.grid_config, written["gateway"]["grid_config"])
        self.assertEqual(config.admin.users, {"root": "secret"})
        self.assertEqual((config.limits.body, config.limits.requests_per_second), (1, 0.5))

    def test_customer_sources(self) -> None:
        """Each kind of source, with paths relative to the file."""
        for key, text, expected in (
            ("url", "HTTPS://user:pw@[::1]:8443/c?x=1", "HTTPS://user:pw@[::1]:8443/c?x=1"),
            ("file", "lib/c.json", self.folder / "lib" / "c.json"),
            ("file", "/srv/c.json", Path("/srv/c.json")),
            ("function", "a.b:c", FunctionReference(module="a.b", name="c")),
            ("function", "c.py:f", FunctionReference(path=self.folder / "c.py", name="f")),
            ("function", "/x y/c.py:f", FunctionReference(path=Path("/x y/c.py"), name="f")),
        ):
            source = self.load_text(f'gateway.customer_source.{key} = "{text}"').gateway
            self.assertIsNotNone(source.customer_source)
            self.assertEqual(getattr(source.customer_source, key), expected)

    def test_compatibility(self) -> None:
        """The preset changes four keys; one that is written beats it, also with its default."""
        names = ("leeway", "require_subject", "require_expiry", "room_match")
        for written, expected in (
            ({}, (300, False, False, "prefix")),
            ({"leeway": 60}, (60, False, False, "prefix")),
            ({"require_subject": True}, (300, True, False, "prefix")),
            ({"require_expiry": True}, (300, False, True, "prefix")),
            ({"room_match": "exact"}, (300, False, False, "exact")),
        ):
            text = tomlkit.dumps({"gateway": {"compatibility": "0.18", **written}})
            gateway = self.load_text(text).gateway
            self.assertEqual(tuple(getattr(gateway, name) for name in names), expected)
            kept = msgspec.structs.replace(
                gateway,
                compatibility="strict",
                leeway=60,
                require_subject=True,
                require_expiry=True,
                room_match="exact",
            )
            self.assertEqual(kept, Config().gateway)

    def test_master_key_file(self) -> None:
        """It is read from the file's folder; white space around the key does not matter."""
        (self.folder / "key").write_text("aGVsbG8=\n", encoding="ascii")
        gateway = self.load_text('gateway.master_key_file = "key"').gateway
        self.assertEqual(gateway.master_key_bytes(), b"hello")
        self.assertEqual(gateway.master_key_file, self.folder / "key")

    def test_no_secret_in_repr(self) -> None:
        """Whatever logs a configuration, or a part of it, shows no key and no password."""
        key = "aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8="
        config = self.load_text(
            f"""
            [gateway]
            master_key = "{key}"
            internal.users = {{ a = "{SECRET}", b = {{ password = "{SECRET}" }} }}
            customer_source.url = "https://u:{SECRET}@h/"
            [[gateway.customers]]
            id = "a"
            access_keys = [{{ public_key = {{ d = "{SECRET}" }} }}]
            [gateway.grid_config]
            authorization.keys = ["{SECRET}"]
            [admin.users]
            a = "{SECRET}"
            """
        )
        shown = repr(config)
        self.assertIn("token_lifetime=300", shown)
        self.assertIn("password=…", shown)
        shown += repr(Options(masterkey=key, state=f"redis://u:{SECRET}@h"))
        shown += repr(StateAddress.parse(f"redis://{SECRET}:{SECRET}@h"))
        self.assertNotIn(SECRET, shown)
        self.assertNotIn(key, shown)

    def test_frozen(self) -> None:
        """A loaded configuration stays as it is."""
        config = load(None)
        with self.assertRaises(AttributeError):
            config.gateway.leeway = 0  # type: ignore[misc]  # that is the point


class StateAddressTests(SynchronousTestCase):
    """State URLs of every kind, those without a store in this version included."""

    def test_parse(self) -> None:
        """Each part of a URL ends up where it belongs."""
        redis = {"scheme": "redis", "host": "h", "port": 6379}
        for url, expected in (
            ("memory:", {"scheme": "memory"}),
            ("sqlite:a b.db", {"scheme": "sqlite", "path": Path("/srv/a b.db")}),
            ("sqlite:/a.db", {"scheme": "sqlite", "path": Path("/a.db")}),
            ("redis://h", redis),
            ("redis://h/", redis),
            ("redis://h:1/12", {**redis, "port": 1, "database": 12}),
            ("redis://:p%40%3A@h", {**redis, "password": "p@:"}),
            (
                "rediss://u:p@[::1]",
                {**redis, "scheme": "rediss", "host": "::1", "username": "u", "password": "p"},
            ),
        ):
            parsed = StateAddress.parse(url, Path("/srv"))
            self.assertEqual(parsed, StateAddress(**expected), url)
        self.assertEqual(StateAddress.parse("sqlite:a.db").path, Path("a.db"))

    def test_refused(self) -> None:
        """Malformed URLs are refused, and never shown."""
        for url in (
            "",
            "memory",
            "memory:x",
            "MEMORY:",
            "sqlite:",
            "sqlite:a\0b",
            "redis:",
            "redis://",
            "redis:///1",
            f"redis://u:{SECRET}@h:99999",
            f"redis://u:{SECRET}@h/x",
            f"redis://u:{SECRET}@h/1?a=b",
            f"redis://u:{SECRET}@h/1#a",
            f"redis://u:{SECRET}\n@h/1",
            f"redis://u:{SECRET}@h/-1",
            f"redis://u:{SECRET}@h/{'1' * 5000}",
        ):
            error = self.assertRaises(ValueError, StateAddress.parse, url)
            self.assertIn("; write ", str(error), url)
            self.assertNotIn(SECRET, str(error))


class NetworksTests(SynchronousTestCase):
    def test_order_and_equality(self) -> None:
        """They are a plain tuple of networks."""
        networks = Networks.parse(["::1", "10.1.2.3/8"])
        self.assertEqual(networks, (IPv6Network("::1/128"), IPv4Network("10.0.0.0/8")))


class OptionTests(ConfigCase):
    """An option beats the file, and is named when it is wrong."""

    def bound(self, endpoint: str) -> tuple[int, str]:
        """The port and the interface that Twisted makes of an endpoint string."""
        reactor = MemoryReactorClock()
        serverFromString(reactor, endpoint).listen(Factory())
        ((port, _, _, interface),) = reactor.tcpServers
        return port, interface

    def test_host_and_port(self) -> None:
        """They replace the public endpoints, each with the other's default."""
        for options, expected in (
            (Options(host="127.0.0.1"), (7000, "127.0.0.1")),
            (Options(port="80"), (80, "0.0.0.0")),  # noqa: S104 - the default of the wire reference
            (Options(port=0), (0, "0.0.0.0")),  # noqa: S104 - likewise
            (Options(host="::1", port=7443), (7443, "::1")),
        ):
            config = self.load_text('listen.public = ["tcp:1", "tcp:2"]', options)
            (endpoint,) = config.listen.public
            self.assertEqual(self.bound(endpoint), expected)
            self.assertEqual(config.listen.admin, Config().listen.admin)

    def test_ssl(self) -> None:
        """A TLS endpoint that leaves the key to [tls]."""
        for options, expected in (
            (Options(ssl=True), "ssl:7000:interface=0.0.0.0"),
            (Options(ssl=True, host="::1", port="443"), r"ssl:443:interface=\:\:1"),
        ):
            self.assertEqual(load(None, options).listen.public, (expected,))

    def test_endpoints(self) -> None:
        """Each replaces the list of the file."""
        text = 'listen = { public = ["tcp:1"], internal = ["tcp:2"], admin = ["tcp:3"] }'
        options = Options(listen=("tcp:4", "unix:x"), internal=("tcp:5",), admin=("tcp:6",))
        listen = self.load_text(text, options).listen
        self.assertEqual(listen.public, ("tcp:4", "unix:x"))
        self.assertEqual((listen.internal, listen.admin), (("tcp:5",), ("tcp:6",)))
        untouched = self.load_text(text, Options()).listen
        self.assertEqual(
            (untouched.public, untouched.internal, untouched.admin),
            (("tcp:1",), ("tcp:2",), ("tcp:3",)),
        )

    def test_paths(self) -> None:
        """Those of options are relative to the working directory, not to the file."""
        text = 'tls = { certificate = "a.pem", private_key = "b.pem" }'
        tls = self.load_text(text, Options(certificate="c.pem")).tls
        self.assertEqual(tls.certificate, Path.cwd() / "c.pem")
        self.assertEqual(tls.private_key, self.folder / "b.pem")
        tls = self.load_text(text, Options(privatekey="/d.pem")).tls
        self.assertEqual(tls.certificate, self.folder / "a.pem")
        self.assertEqual(tls.private_key, Path("/d.pem"))

    def test_master_key(self) -> None:
        """It beats the key and the key file, which is not even read."""
        for text in ('gateway.master_key = "Zm9v"', 'gateway.master_key_file = "absent"'):
            gateway = self.load_text(text, Options(masterkey="YmFy")).gateway
            self.assertEqual(gateway.master_key_bytes(), b"bar")
            self.assertIsNone(gateway.master_key_file)

    def test_state(self) -> None:
        """``memory:`` is the one there is."""
        self.assertEqual(load(None, Options(state="memory:")).state.url, "memory:")

    def test_wrong(self) -> None:
        """The line begins with the option and says what to give."""
        for options, option, remedy in (
            (Options(port="http"), "--port", "give a number from 0 to 65535"),
            (Options(port=65536), "--port", "give a number from 0 to 65535"),
            (Options(port=-1), "--port", "give a number from 0 to 65535"),
            (Options(port="²"), "--port", "give a number from 0 to 65535"),
            (Options(port=""), "--port", "give a number from 0 to 65535"),
            (Options(host=""), "--host", "give an IP address or a host name"),
            (Options(host="a b"), "--host", "give an IP address or a host name"),
            (Options(listen=("tcp:1",), host="::1"), "--listen", "either it or them"),
            (Options(listen=("tcp:1",), port=1), "--listen", "either it or them"),
            (Options(listen=("tcp:1",), ssl=True), "--listen", "either it or them"),
            (Options(listen=("tcp:1", "x")), "--listen", "write an endpoint"),
            (Options(internal=("tcp:x",)), "--internal", "write 0 to 65535"),
            (Options(admin=("",)), "--admin", "write an endpoint"),
            (Options(certificate=""), "--certificate", "not the path of a file; give one"),
            (Options(privatekey="\0"), "--privatekey", "not the path of a file; give one"),
            (Options(masterkey=""), "--masterkey", "give the key in base64"),
            (Options(masterkey=f"!{SECRET}"), "--masterkey", "give the key in base64"),
            (Options(state=f"redis://:{SECRET}@h"), "--state", 'memory only; write "memory:"'),
            (Options(state=f"pg://:{SECRET}@h"), "--state", "unknown kind of state URL; write"),
        ):
            text = self.refusal(None, options)
            self.assertTrue(text.startswith(f"{option}: "), text)
            self.assertIn(remedy, text)


def fields(section: type[msgspec.Struct], at: str) -> dict[str, Any]:
    """Every key of a section and of those inside it, by path, with its default."""
    found = {}
    hints = get_type_hints(section)
    for field in msgspec.structs.fields(section):
        path = f"{at}.{field.name}" if at else field.name
        inner = inner_section(hints[field.name])
        if inner is None:
            found[path] = field.default
        else:
            found |= fields(inner, path)
    return found


def inner_section(hint: Any) -> type[msgspec.Struct] | None:
    """The section that a key of this type holds as a table, or as an array of tables."""
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    for arm in (hint, *get_args(hint)):
        if isinstance(arm, type) and issubclass(arm, msgspec.Struct):
            # A value that is written as text, or as an inline table, is a key like any other.
            return None if arm in (FunctionReference, DemoLimits, InternalUser) else arm
    return None


class SampleTests(ConfigCase):
    """The sample file says what the code does."""

    def test_holds_the_defaults(self) -> None:
        """Loading it is the same as loading an empty file in its place."""
        empty = self.load_text("")
        shutil.copyfile(SAMPLE, self.path)
        self.assertEqual(load(self.path), empty)

    def test_names_every_key(self) -> None:
        """Every key is there, commented out at most, and no other."""
        keys, section = set(), ""
        for line in SAMPLE.read_text(encoding="utf-8").splitlines():
            if header := re.match(r"(?:# )?\[+([a-z_.]+)\]+$", line):
                section = header[1]
            elif key := re.match(r"(?:# )?([a-z_]+) = ", line):
                keys.add(f"{section}.{key[1]}")
        examples = {
            "gateway.internal.users.name",
            "admin.users.name",
            "gateway.grid_config.quic",
        }
        tables = {"gateway.internal.users", "admin.users", "gateway.grid_config"}
        self.assertEqual(keys - examples, set(fields(Config, "")) - tables)
        self.assertLessEqual(examples, keys)

    def test_sets_every_key_that_has_a_value(self) -> None:
        """What is commented out has no default that could be written."""
        document = tomllib.loads(SAMPLE.read_text(encoding="utf-8"))
        optional = ("gateway.customers.", "gateway.customer_source.", "gateway.master_key_file")
        for path in fields(Config, ""):
            if path.startswith(optional):
                continue
            value: Any = document
            for name in path.split("."):
                self.assertIn(name, value, path)
                value = value[name]

    def test_examples_work(self) -> None:
        """The commented-out examples load once their comment signs are gone."""
        text = SAMPLE.read_text(encoding="utf-8")
        customers = text[text.index("# [[gateway.customers]]") : text.index("# More customers")]
        example = re.sub(r"(?m)^# (?=\[|[a-z_]+ = )", "", customers)
        (customer,) = self.load_text(example).gateway.customers
        self.assertEqual((customer.id, customer.max_peers, customer.max_rooms), ("acme", 100, 10))
        self.assertEqual(customer.access_keys[0].namespace, "acme")
        source = text[text.index("# [gateway.customer_source]") : text.index("[gateway.internal]")]
        for key in ("url", "file", "function"):
            example = re.sub(rf"(?m)^# (?=\[|{key} = |interval = )", "", source)
            found = self.load_text(example).gateway.customer_source
            self.assertIsNotNone(found)
            self.assertIsNotNone(getattr(found, key))


NAMES: Final = sorted({name for path in fields(Config, "") for name in path.split(".")})
SCALARS: Final = (
    st.text(max_size=20)
    | st.sampled_from(
        ["memory:", "tcp:7000", "::1/128", "0.18", "forbidden", "a:b", "x.py:y", "https://h/"]
    )
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.datetimes()
    | st.dates()
    | st.times()
)
KEYS: Final = st.sampled_from(NAMES) | st.text(max_size=10)
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


def tables(paths: dict[str, Any]) -> dict[str, Any]:
    """Nested tables out of dotted paths; a table in the way of a path gives way."""
    document: dict[str, Any] = {}
    for path, value in paths.items():
        *outer, last = path.split(".")
        table = document
        for name in outer:
            table = table.setdefault(name, {})
        table[last] = value
    return document


DOCUMENTS: Final = st.dictionaries(KEYS, VALUES, max_size=4) | st.dictionaries(
    st.sampled_from(sorted(fields(Config, ""))), VALUES, max_size=4
).map(tables)


class FuzzTests(ConfigCase):
    """Whatever the file holds, it loads or one line comes out."""

    def attempt(self, text: str) -> None:
        # Newlines as they are: a lone carriage return must reach the parser.
        self.path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            config = load(self.path)
        except ConfigError as error:
            line = str(error)
            self.assertTrue(line.isprintable(), f"not one clean line: {line!r}")
            self.assertTrue(line.startswith(f"{self.path}: "), line)
        else:
            self.assertIsInstance(config, Config)

    @settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(st.text())
    def test_text(self, text: str) -> None:
        """Text of any kind."""
        self.attempt(text)

    @settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(st.lists(st.sampled_from([*NAMES, *"=.,[]{}\"'\n# -1:_\\", "[[", "]]", "true", "5"])))
    def test_tokens(self, tokens: list[str]) -> None:
        """Text that looks like TOML."""
        self.attempt("".join(tokens))

    @settings(
        deadline=None,
        max_examples=300,
        suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
    )
    @given(DOCUMENTS)
    def test_documents(self, document: dict[str, Any]) -> None:
        """Tables of known and unknown keys with values of every type."""
        self.attempt(tomlkit.dumps(document))
