"""Which master keys may sign, and over which state; with ``check`` and with a real start."""

import os
import shutil
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from odingw import master_key
from odingw.config.parts import is_within_reach
from odingw.errors import ConfigError
from odingw.master_key import FILE_NAME, MasterKeys
from odingw.options import Options
from odingw.state.journal_file import MIGRATIONS, JournalFile
from odingw.state.known_key import KnownKey, fingerprint, known_key
from odingw.state.rows import encode
from odingw.tap import check
from odingw.tokens import decode_master_key, server_key
from tests import forks
from tests.process import MASTER_KEY, GatewayProcess, free_port
from tests.sim_stub import temporary_folder
from tests.terminal import odingw

SAMPLE: Final = decode_master_key(MASTER_KEY)
NEW, OLD = os.urandom(32), os.urandom(32)
A, B = "a.test:4433", "b.test:4433"
LOCAL: Final = '["tcp:0:interface=127.0.0.1"]'


def text(key: bytes) -> str:
    """Return a key as it is configured."""
    return b64encode(key).decode()


class KeyCase(SynchronousTestCase):
    """A folder for configuration and state."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self).resolve()
        self.config = self.folder / "odingw.toml"
        self.kept = self.folder / FILE_NAME
        self.journal = self.folder / "odingw.sqlite"
        before = os.environ.get("STATE_DIRECTORY")
        os.environ["STATE_DIRECTORY"] = str(self.folder)
        self.addCleanup(self.restore, before)

    def restore(self, before: str | None) -> None:
        del os.environ["STATE_DIRECTORY"]
        if before is not None:
            os.environ["STATE_DIRECTORY"] = before

    def configure(self, gateway: str = "", listen: str = LOCAL, state: str = "") -> None:
        self.config.write_text(
            f"[listen]\npublic = {listen}\nadmin = {LOCAL}\n"
            f"[state]\n{state}\n[gateway]\n{gateway}\n"
        )

    def check(self, *options: str) -> MasterKeys:
        """Return what a check of the configuration finds, as a start would."""
        given = Options()
        given.parseOptions(["--config", str(self.config), *options])
        return check(given)[1]

    def refusal(self, *options: str) -> str:
        """Return the one line with which it is refused; nothing may have been made."""
        before = self.contents()
        line = str(self.assertRaises(ConfigError, self.check, *options))
        self.assertTrue(line.isprintable(), line)
        self.assertEqual(before, self.contents())
        for key in (NEW, OLD, SAMPLE):
            self.assertNotIn(text(key), line)
        return line

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def remember(
        self, key: bytes, *addresses: str, migrations: Sequence[str] = MIGRATIONS
    ) -> JournalFile:
        """Make the journal of a gateway that signed with a key, and gave servers theirs."""
        newest = len(migrations) == len(MIGRATIONS)
        file = JournalFile(
            self.journal, "normal", tuple(migrations), fingerprint(key) if newest else ""
        )
        rows = []
        for address in addresses:
            kid = server_key(key, address).kid
            rows.append(["key", "", [address], [kid, 1.0]])
            server = [kid, "1.5.0", 0.0, 0.0, 0.0, 0.0, 0, 1.0, 1.0]
            rows.append(["server", "", [address], server])
        file.write(encode(rows), b"[]")
        return file


class PublishedTests(KeyCase):
    """A key that everybody can have."""

    def ways(self, *keys: bytes) -> list[tuple[str, str, tuple[str, ...]]]:
        """Return each way to configure keys: what it is called, its TOML, its options."""
        lines = "\n".join(map(text, keys))
        (self.folder / "keys").write_text(f"{lines}\n")
        listed = ", ".join(f'"{text(key)}"' for key in keys)
        ways: list[tuple[str, str, tuple[str, ...]]] = [
            ("gateway.master_keys", f"master_keys = [{listed}]", ()),
            ("/keys", 'master_key_file = "keys"', ()),
            (FILE_NAME, "", ()),
        ]
        if len(keys) == 1:
            ways.append(("gateway.master_key", f'master_key = "{text(keys[0])}"', ()))
            ways.append(("--masterkey", "", ("--masterkey", text(keys[0]))))
        self.kept.write_text(f"{lines}\n")
        return ways

    def test_it_does_not_sign_where_others_reach_an_endpoint(self) -> None:
        for keys in ((SAMPLE,), (SAMPLE, OLD)):
            for where, toml, options in self.ways(*keys):
                for listen in ('["tcp:0"]', '["tcp:0:interface=127.0.0.1", "tcp6:0"]'):
                    self.configure(toml, listen)
                    line = self.refusal(*options)
                    for word in (where, "published", "/dev/urandom", "one by one", "tcp"):
                        self.assertIn(word, line)

    def test_any_endpoint_counts(self) -> None:
        for key in ("internal", "admin"):
            self.config.write_text(
                f'listen.public = {LOCAL}\nlisten.{key} = ["tcp:0"]\n'
                f'gateway.master_key = "{MASTER_KEY}"\n'
            )
            self.assertIn("published", self.refusal())

    def test_on_this_host_alone_it_is_warned_of(self) -> None:
        for _, toml, options in self.ways(SAMPLE):
            for listen in (LOCAL, f'["unix:{self.folder}/s", "tcp6:0:interface=\\\\:\\\\:1"]'):
                self.configure(toml, listen)
                found = self.check(*options)
                self.assertEqual((SAMPLE,), found.keys)
                self.assertIn("THE MASTER KEY IS PUBLISHED", found.warnings[0])

    def test_as_an_older_one_it_counts(self) -> None:
        """So that servers change over one by one."""
        for _, toml, options in self.ways(NEW, SAMPLE):
            self.configure(toml, '["tcp:0"]')
            found = self.check(*options)
            self.assertEqual((NEW, SAMPLE), found.keys)
            self.assertIn("AN OLDER MASTER KEY IS PUBLISHED", found.warnings[0])

    def test_a_key_of_ones_own_is_not(self) -> None:
        for _, toml, options in self.ways(NEW):
            self.configure(toml, '["tcp:0"]')
            self.assertEqual(((NEW,), ()), (self.check(*options).keys, self.check().warnings))

    def test_those_that_are_known(self) -> None:
        self.assertTrue(master_key.is_published(SAMPLE))
        self.assertFalse(master_key.is_published(NEW))
        known = "dc241b2bf45b55be6041a2ac62f0fe0262a6d53ab1737f16"
        self.assertIn(known, master_key._PUBLISHED, "the one that was in this repository")
        self.patch(master_key, "_PUBLISHED", frozenset({sha256(NEW).hexdigest()[:48]}))
        self.configure(f'master_key = "{text(NEW)}"', '["tcp:0"]')
        self.assertIn("published", self.refusal())

    def test_the_command_says_the_same(self) -> None:
        self.configure(f'master_key = "{MASTER_KEY}"', '["tcp:0"]')
        ended = odingw("check", str(self.config), "--json")
        self.assertEqual((1, False), (ended.status, ended.document["good"]))
        self.assertIn("published", ended.document["error"])
        self.configure(f'master_key = "{MASTER_KEY}"')
        ended = odingw("check", str(self.config), "--json")
        self.assertEqual(0, ended.status, ended)
        self.assertIn("THE MASTER KEY IS PUBLISHED", ended.document["warnings"][0])

    def test_reach(self) -> None:
        for endpoint, reached in (
            ("tcp:1", True),
            ("tcp:1:interface=127.0.0.1", False),
            ("tcp:1:127.0.0.1", False),
            ("tcp:1:interface=127.8.9.10", False),
            ("tcp:port=1:interface=localhost", False),
            ("tcp:1:interface=", True),
            ("tcp:1:interface=0.0.0.0", True),
            ("tcp:1:interface=10.0.0.1", True),
            ("tcp:1:interface=\\:\\:", True),
            ("tcp6:1", True),
            ("tcp6:1:interface=\\:\\:1", False),
            ("tcp6:1:50:\\:\\:1", False),
            ("ssl:1:privateKey=key.localhost", True),
            ("ssl:1:privateKey=127.0.0.1", True),
            ("ssl:1:privateKey=a\\:interface=127.0.0.1", True),
            ("SSL:1:interface=127.0.0.1", False),
            ("unix:/run/x", False),
            ("UNIX:/run/x", False),
            ("systemd:domain=INET:name=localhost", True),
            ("haproxy:tcp:1", True),
            ("haproxy:tcp:1:interface=127.0.0.1", False),
            ("HAProxy:unix:/run/x", False),
            ("onion:localhost", True),
            ("txtorcon:1:interface=127.0.0.1", True),
        ):
            self.assertEqual(reached, is_within_reach(endpoint), endpoint)


class KnownKeyTests(KeyCase):
    """The journal knows which master key its servers' keys come from."""

    def test_what_it_keeps(self) -> None:
        self.assertEqual(KnownKey(), known_key(self.journal))
        self.remember(OLD, A).close()
        kids = {A: server_key(OLD, A).kid}
        self.assertEqual(KnownKey(fingerprint(OLD), kids, frozenset((A,))), known_key(self.journal))
        JournalFile(self.journal, "normal", fingerprint=fingerprint(NEW), internal="a").close()
        self.assertEqual("a", known_key(self.journal).internal)
        self.assertEqual(fingerprint(NEW), known_key(self.journal).fingerprint)
        JournalFile(self.journal, "normal").close()
        self.assertEqual(fingerprint(NEW), known_key(self.journal).fingerprint)

    def test_of_a_file_in_use_or_left_by_a_crash(self) -> None:
        """What is in the write-ahead log counts."""
        file = self.remember(OLD, A, B)
        self.addCleanup(file.close)
        before = self.contents()
        self.assertEqual({A, B}, set(known_key(self.journal).given))
        self.assertEqual(before, self.contents())
        copy = temporary_folder(self) / "copy"
        for end in ("", "-wal"):
            shutil.copy(f"{self.journal}{end}", f"{copy}{end}")
        self.assertEqual(known_key(self.journal), known_key(copy))

    def test_a_damaged_file_that_is_replaced_keeps_it(self) -> None:
        file = self.remember(OLD, A)
        file.start_anew()
        file.close()
        self.assertEqual(KnownKey(fingerprint(OLD), {}), known_key(self.journal))

    def test_a_missing_file_is_not_replaced(self) -> None:
        """A pull that removed it, say; with servers, without, and with an older version's state."""
        for addresses, migrations in (
            ((A, B), MIGRATIONS),
            ((), MIGRATIONS),
            ((A,), MIGRATIONS[:3]),
            ((A,), MIGRATIONS[:1]),
        ):
            self.journal.unlink(missing_ok=True)
            self.remember(OLD, *addresses, migrations=migrations).close()
            self.configure()
            line = self.refusal()
            for word in (FILE_NAME, str(self.journal), "restore", "--new-masterkey"):
                self.assertIn(word, line)
            self.assertEqual((), self.check("--new-masterkey").keys)
            self.kept.write_text(text(OLD))
            self.kept.chmod(0o600)
            self.assertEqual((OLD,), self.check().keys)
            self.kept.unlink()

    def test_nor_is_it_over_a_state_that_cannot_be_read(self) -> None:
        self.configure()
        self.journal.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
        self.assertIn("cannot tell", self.refusal())
        self.configure(f'master_key = "{text(NEW)}"')
        self.assertEqual((NEW,), self.check().keys)

    def test_nothing_known_is_nothing_to_lose(self) -> None:
        self.configure()
        self.assertEqual((), self.check().keys)
        self.journal.touch()
        self.assertEqual((), self.check().keys)
        self.remember(OLD, A).close()
        self.configure(state='url = "memory:"')
        self.assertEqual((), self.check().keys)

    def test_another_key_over_known_servers_is_refused(self) -> None:
        """As with gateways that share a Redis: the one before must be in the list."""
        for migrations in (MIGRATIONS, MIGRATIONS[:3]):
            self.journal.unlink(missing_ok=True)
            self.remember(OLD, A, B, migrations=migrations).close()
            for toml, good in (
                (f'master_key = "{text(NEW)}"', False),
                (f'master_keys = ["{text(NEW)}", "{MASTER_KEY}"]', False),
                (f'master_keys = ["{text(NEW)}", "{text(OLD)}"]', True),
                (f'master_keys = ["{text(OLD)}", "{text(NEW)}"]', True),
                (f'master_key = "{text(OLD)}"', True),
            ):
                self.configure(toml)
                if good:
                    self.check()
                else:
                    self.assertIn("2 servers", self.refusal())
                self.check("--new-masterkey")

    def test_servers_whose_key_is_known_no_more_are_named(self) -> None:
        """The old one is taken out before all servers have restarted."""
        self.remember(OLD, A, B).close()
        JournalFile(self.journal, "normal", fingerprint=fingerprint(NEW)).close()
        self.configure(f'master_keys = ["{text(NEW)}", "{text(OLD)}"]')
        self.assertEqual([], self.named())
        self.configure(f'master_key = "{text(NEW)}"')
        (line,) = self.named()
        self.assertTrue(line.startswith(f"{A}, {B}: given a key"), line)

    def named(self) -> list[str]:
        """Return the warnings of a check that tell of servers' keys."""
        ended = odingw("check", str(self.config))
        self.assertEqual(0, ended.status, ended)
        lines = (line.partition("warning: ")[2] for line in ended.err.splitlines())
        return [line for line in lines if "given a key" in line]

    def test_without_servers_another_key_may_be_configured(self) -> None:
        self.remember(OLD).close()
        self.configure(f'master_key = "{text(NEW)}"')
        self.assertEqual((NEW,), self.check().keys)


class StartTests(KeyCase):
    """What a start does and says."""

    def run_gateway(self, *options: str) -> forks.Done:
        """Run a gateway to its end."""
        command: forks.Command = ["-n", "--pidfile=", "odingw", "--config", self.config, *options]
        return forks.run(command, self.folder)

    def test_refused(self) -> None:
        self.remember(OLD, A).close()
        for toml, listen, said in (
            ("", LOCAL, "missing"),
            (f'master_key = "{text(NEW)}"', LOCAL, "a master key that is not configured"),
            (f'master_key = "{MASTER_KEY}"', '["tcp:0"]', "published"),
        ):
            self.configure(toml, listen)
            before = self.contents()
            done = self.run_gateway()
            self.assertEqual((1, ""), (done.returncode, done.stdout), said)
            self.assertEqual(1, len(done.stderr.splitlines()))
            self.assertIn(said, done.stderr)
            self.assertEqual(before, self.contents())

    def test_where_key_and_state_are_is_said_each_time(self) -> None:
        listen = (
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
        )
        for first in (True, False):
            gateway = GatewayProcess("", listen)
            gateway.config.write_text(gateway.config.read_text().replace(MASTER_KEY, ""))
            log = gateway.start().log
            self.assertEqual(0, gateway.stop())
            self.assertIn(f"{self.folder}/{FILE_NAME}", log)
            self.assertIn(f"the state is kept in {self.journal}", log)
            self.assertEqual(first, "made a master key" in log)
            self.assertNotIn(self.kept.read_text().strip(), log)
        key = decode_master_key(self.kept.read_text().strip())
        self.assertEqual(fingerprint(key), known_key(self.journal).fingerprint)

    def test_to_begin_anew(self) -> None:
        """With the option, a new key is made, and the state knows that one from then on."""
        self.remember(OLD, A).close()
        gateway = GatewayProcess("", "", "--new-masterkey")
        gateway.config.write_text(
            f'[listen]\npublic = ["tcp:{free_port()}:interface=127.0.0.1"]\nadmin = {LOCAL}\n'
        )
        gateway.start()
        self.assertEqual(0, gateway.stop())
        key = decode_master_key(self.kept.read_text().strip())
        self.assertEqual(fingerprint(key), known_key(self.journal).fingerprint)
        self.assertEqual(0o600, Path(self.kept).stat().st_mode & 0o777)
