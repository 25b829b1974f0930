"""The configuration: what loads, what beats what, and the sample file."""

import re
import shutil
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final

import msgspec
import tomlkit
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock

from odingw.config import (
    AccessKeyConfig,
    Config,
    CustomerConfig,
    DemoLimits,
    FunctionReference,
    InternalUser,
    Options,
    StateAddress,
    load,
    state_folder,
)
from tests.config_case import SECRET, ConfigCase, fields

SAMPLE: Final = Path(__file__).parent.parent / "etc" / "odingw.toml"
STATE_FILES: Final = ("ca_file", "certificate", "private_key")
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
unheard_timeout = 1.75
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


class GoodFileTests(ConfigCase):
    """What is written is what is loaded."""

    def test_defaults(self) -> None:
        """Without a file, and with an empty one, every key has its default."""
        default = Config()
        here, there = load(None), self.load_text("")
        self.assertEqual(here.tls.certificate, Path.cwd() / "fullchain.pem")
        self.assertEqual(there.tls.private_key, self.folder / "privkey.pem")
        for config in (here, there):
            self.assertEqual(config.state.address.path, state_folder() / "odingw.sqlite")
            kept: dict[str, Any] = {"tls": default.tls, "state": default.state}
            self.assertEqual(msgspec.structs.replace(config, **kept), default)
        self.assertEqual((), default.gateway.decoded_master_keys())
        self.assertEqual(
            default.state.address, StateAddress(scheme="sqlite", path=Path("odingw.sqlite"))
        )

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
        self.assertEqual(gateway.decoded_master_keys(), (b"hello hello hello hello",))
        self.assertEqual((gateway.token_lifetime, gateway.leeway), (60, 0))
        self.assertEqual((gateway.require_subject, gateway.require_expiry), (False, False))
        self.assertEqual(gateway.room_match, "prefix")
        self.assertEqual(
            (gateway.report_interval, gateway.disable_timeout, gateway.remove_timeout),
            (1.0, 1.5, 2.0),
        )
        self.assertEqual(gateway.unheard_timeout, 1.75)
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

    def test_files_for_redis(self) -> None:
        """They are relative to the file, and refused where they would not be used."""
        text = "".join(f'{name} = "{name}.pem"\n' for name in STATE_FILES)
        text += '[gateway]\nmaster_key = "aGVsbG8="\n'
        for url in ("rediss://h", "rediss+sentinel://h/m", "rediss+cluster://h,i"):
            state = self.load_text(f'[state]\nurl = "{url}"\n{text}').state
            for name in STATE_FILES:
                self.assertEqual(getattr(state, name), self.folder / f"{name}.pem")
        for name in STATE_FILES[:2]:
            self.path.write_text(f'[state]\nurl = "redis+cluster://h"\n{name} = "x.pem"\n')
            error = self.refusal(self.path)
            self.assertIn(f"state.{name}: without TLS it is not used", error)
            self.assertIn('"rediss+cluster:"', error)
        self.path.write_text('[state]\nurl = "rediss://h"\nprivate_key = "x.pem"\n')
        error = self.refusal(self.path)
        self.assertIn("state.private_key: there is no certificate", error)

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
        self.assertEqual(gateway.decoded_master_keys(), (b"hello",))
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
            [turn]
            secret_keys = ["{SECRET}"]
            forced_password = "{SECRET}"
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
            self.assertEqual(gateway.decoded_master_keys(), (b"bar",))
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
            (Options(turn_config=""), "--turn-config", "not the path of a file; give one"),
            (Options(masterkey=""), "--masterkey", "give the key in base64"),
            (Options(masterkey=f"!{SECRET}"), "--masterkey", "give the key in base64"),
            (Options(state=f"redis://:{SECRET}@h"), "gateway.master_key", "need the same one"),
            (Options(state=f"pg://:{SECRET}@h"), "--state", "unknown kind of state URL; write"),
        ):
            text = self.refusal(None, options)
            self.assertTrue(text.startswith(f"{option}: "), text)
            self.assertIn(remedy, text)


class SampleTests(ConfigCase):
    """The sample file says what the code does."""

    def test_holds_the_defaults(self) -> None:
        """Loading it is the same as loading an empty file in its place."""
        empty = self.load_text("")
        shutil.copyfile(SAMPLE, self.path)
        sample = load(self.path)
        self.assertEqual(sample, empty)

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
        optional = (
            "gateway.customers.",
            "gateway.customer_source.",
            "gateway.master_key_file",
            "state.ca_file",
            "state.certificate",
            "state.private_key",
            "state.url",
            "turn.",
        )
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
