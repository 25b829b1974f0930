"""One line for everything that is wrong with a configuration."""

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from odingw.config import (
    Networks,
    StateAddress,
    load,
)
from tests.config_case import SECRET, ConfigCase

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
    Wrong("[voice]\nttl = 1", "voice", "here: listen, tls, log, state, gateway, admin, limits, tu"),
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
    Wrong(
        f"limits.idle_timeout = 1{'0' * 400}", "limits.idle_timeout", "the value is out of range"
    ),
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
    Wrong('listen.trusted_proxies = ["unix", "Unix"]', "listen.trusted_proxies[1]", 'or "unix"'),
    Wrong('gateway.internal.allow = ["unix"]', "gateway.internal.allow[0]", "is not a network"),
    Wrong('gateway.internal.allow = ["::1", "10.0.0.0/33"]', "gateway.internal.allow[1]", "write"),
    Wrong("gateway.internal.allow = [1]", "gateway.internal.allow[0]", "1 is not a network; write"),
    Wrong('gateway.internal.servers = [""]', "gateway.internal.servers[0]", "*.voice.example:4433"),
    # State.
    Wrong(f'state.url = "redis://u:{SECRET}@h/0"', "gateway.master_key", "need the same one"),
    Wrong('state.prefix = "a:b"', "state.prefix", "letters, digits"),
    Wrong('state.synchronous = "off"', "state.synchronous", '"normal" or "full"'),
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
    # TURN.
    Wrong("turn = true", "turn", "expected a table, got a boolean; write a [turn] table"),
    Wrong("turn.turnUris = []", "turn.turnUris", "did you mean turn_uris?"),
    Wrong("turn.config = 1", "turn.config", "got an integer; write the path of a JSON file"),
    Wrong('turn = { config = "t.json", ttl = 43200 }', "turn.ttl", "write it into that file"),
    Wrong(
        'turn = { config = "t.json", leeway = 1, secret_keys_file = "s" }',
        "turn.secret_keys_file",
        "turn.config is given too; write it into that file",
    ),
    Wrong(
        f'turn.secret_keys = "{SECRET}"', "turn.secret_keys", "got a string; write a list of sec"
    ),
    Wrong(
        f'turn.secret_keys = ["{SECRET}", ""]', "turn.secret_keys[1]", "empty; write a text that"
    ),
    Wrong(
        f'turn = {{ secret_keys = ["{SECRET}"], secret_keys_file = "s" }}',
        "turn.secret_keys_file",
        "turn.secret_keys is given too; keep one of them",
    ),
    Wrong('turn.secret_keys_file = "none"', "turn.secret_keys_file", "No such file"),
    Wrong("turn.ttl = 0", "turn.ttl", "0 is out of range; write a whole number of seconds, at lea"),
    Wrong("turn.ttl = 315360001", "turn.ttl", "at most ten years"),
    Wrong("turn.turn_uris = [1]", "turn.turn_uris[0]", "got an integer; write a list of TURN URIs"),
    Wrong('turn.ignore_jwt = "no"', "turn.ignore_jwt", "write true or false"),
    Wrong('turn.user_claim = ""', "turn.user_claim", "empty; write a text that is not empty"),
    Wrong("turn.watch_interval = 0", "turn.watch_interval", "seconds above 0"),
    Wrong("turn.leeway = -1", "turn.leeway", "-1 is out of range; write a whole number of seconds"),
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
    Wrong('admin.hosts = "odingw"', "admin.hosts", "write a list of host names such as"),
    *(
        Wrong(f'admin.hosts = ["odingw", "{name}"]', "admin.hosts[1]", "is no host name; write one")
        for name in ("", " ", "odingw:7001", "http://odingw", "a..b", ".local", "a b", "ö.example")
    ),
    Wrong("admin.users.bob = 1", "admin.users.bob", "got an integer; write a password in quotes"),
    Wrong('admin.users.bob = ""', "admin.users.bob", "the password is empty; write one"),
    Wrong(f'admin.users."" = "{SECRET}"', 'admin.users.""', "not a user name; write one"),
    # TOML.
    Wrong("[log]\nlevel = ", "line 2, column 9", "invalid TOML: Invalid value"),
    Wrong("[log]\nlevel = warn\n", "line 2, column 9", "invalid TOML: Invalid value"),
    Wrong("[log]\nlevel = 'info'\nlevel = 'warn'\n", "line 3, column 15", "Cannot overwrite"),
    Wrong(
        f"[gateway]\nleeway = 1{'0' * 5000}", "invalid TOML", "leeway in line 2 has too many digits"
    ),
    Wrong("x = " + "[" * 5000, "tables and lists are nested too deeply", "use at most 64 levels"),
    Wrong(
        "gateway.grid_config." + ".".join("a" * 100) + " = 1",
        "tables and lists are nested too deeply",
        "use at most 64 levels",
    ),
]


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


class StateAddressTests(SynchronousTestCase):
    """State URLs of every kind, those without a store in this version included."""

    def test_parse(self) -> None:
        """Each part of a URL ends up where it belongs."""
        redis = {"scheme": "redis", "nodes": (("h", 6379),)}
        sentinel = {
            "scheme": "redis+sentinel",
            "nodes": (("h", 26379), ("::1", 2), ("i", 26379)),
            "master": "m",
        }
        cluster = {"scheme": "redis+cluster", "nodes": (("h", 6379), ("i", 2))}
        for url, expected in (
            ("memory:", {"scheme": "memory"}),
            ("sqlite:a b.db", {"scheme": "sqlite", "path": Path("/srv/a b.db")}),
            ("sqlite:/a.db", {"scheme": "sqlite", "path": Path("/a.db")}),
            ("redis://h", redis),
            ("redis://h/", redis),
            ("redis://h:1/12", {**redis, "nodes": (("h", 1),), "database": 12}),
            ("redis://:p%40%3A@h", {**redis, "password": "p@:"}),
            (
                "rediss://u:p@[::1]",
                {"scheme": "rediss", "nodes": (("::1", 6379),), "username": "u", "password": "p"},
            ),
            ("redis+sentinel://h,[::1]:2,i?master=m", sentinel),
            ("redis+sentinel://h,[::1]:2,i/3?master=m", {**sentinel, "database": 3}),
            ("redis+sentinel://h,[::1]:2,i/m", sentinel),
            ("redis+sentinel://h,[::1]:2,i/m/3", {**sentinel, "database": 3}),
            ("redis+sentinel://h,[::1]:2,i/3?master=7", {**sentinel, "database": 3, "master": "7"}),
            (
                "redis+sentinel://:p@h,[::1]:2,i/m?sentinel_username=a&sentinel_password=+%26",
                {
                    **sentinel,
                    "password": "p",
                    "sentinel_username": "a",
                    "sentinel_password": "+&",
                },
            ),
            ("redis+cluster://h,i:2", cluster),
            ("redis+cluster://h,i:2/0", cluster),
            (
                "rediss+cluster://u:p@h,i:2",
                {**cluster, "scheme": "rediss+cluster", "username": "u", "password": "p"},
            ),
        ):
            parsed = StateAddress.parse(url, Path("/srv"))
            self.assertEqual(parsed, StateAddress(**expected), url)
            self.assertEqual("rediss" in url, parsed.tls)
        self.assertEqual(StateAddress.parse("sqlite:a.db").path, Path("a.db"))

    def test_place(self) -> None:
        """What is shown of a URL has no users and passwords, and every host."""
        for url, place in (
            (f"redis://{SECRET}:{SECRET}@h", "redis://h:6379/0"),
            (
                f"rediss+sentinel://{SECRET}:{SECRET}@h,[::1]/m/2?sentinel_password={SECRET}",
                "rediss+sentinel://h:26379,[::1]:26379/2?master=m",
            ),
            (f"redis+cluster://:{SECRET}@h,i:1", "redis+cluster://h:6379,i:1/0"),
        ):
            address = StateAddress.parse(url)
            self.assertEqual(place, address.place)
            self.assertNotIn(SECRET, repr(address))

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
            f"redis://u:{SECRET}@h,i",
            f"redis://{SECRET}@h",
            f"redis://u:{SECRET}@h/1/2",
            f"redis+sentinel://u:{SECRET}@h/0",
            f"redis+sentinel://u:{SECRET}@h/{SECRET}%20",
            f"redis+sentinel://u:{SECRET}@h/m?master=m",
            f"redis+sentinel://u:{SECRET}@h/m/x",
            f"redis+sentinel://u:{SECRET}@h/?master=",
            f"redis+sentinel://u:{SECRET}@h/?master=m&master=m",
            f"redis+sentinel://u:{SECRET}@h/m?{SECRET}=1",
            f"redis+sentinel://u:{SECRET}@h/m?sentinel_username={SECRET}",
            f"redis+sentinel://u:{SECRET}@h/m?sentinel_password={SECRET}\n",
            f"redis+sentinel://u:{SECRET}@h,/m",
            f"redis+sentinel://u:{SECRET}@h:x,i/m",
            "redis+sentinel:",
            f"redis+cluster://u:{SECRET}@h/1",
            f"redis+cluster://u:{SECRET}@h?master=m",
            f"redis+other://u:{SECRET}@h",
            f"redis+sentinel:u:{SECRET}@h/m",
        ):
            error = self.assertRaises(ValueError, StateAddress.parse, url)
            self.assertIn("; write ", str(error), url)
            self.assertNotIn(SECRET, str(error))


class NetworksTests(SynchronousTestCase):
    def test_order_and_equality(self) -> None:
        """They are a plain tuple of networks."""
        networks = Networks.parse(["::1", "10.1.2.3/8"])
        self.assertEqual(networks, (IPv6Network("::1/128"), IPv4Network("10.0.0.0/8")))
