"""Files with secrets that others can write, own, read or replace."""

import grp
import os
import secrets
import stat
from base64 import b64encode
from pathlib import Path
from typing import Final

import trustme
from twisted.trial.unittest import SynchronousTestCase

from odingw import secret_files
from odingw.config.load import load
from odingw.errors import ConfigError
from odingw.options import Options
from odingw.secret_files import UnsafeFileError, check_writers, read_secret, warnings
from odingw.tap import check
from odingw.tokens import AccessKey
from odingw.turn.turnrest_file import TurnFile
from odingw.web.tls import CertificateFiles, ReloadingContextFactory
from tests.process import ACCESS_KEY
from tests.sim_stub import temporary_folder
from tests.terminal import assert_one_line, odingw

ME: Final = os.geteuid()
OTHER: Final = 54321
"""A user and group that nobody here is."""

KEY: Final = b64encode(os.urandom(32)).decode()


def status(mode: int, uid: int = ME, gid: int = 0) -> os.stat_result:
    """Return what ``stat`` says of a file."""
    kind = 0 if stat.S_IFMT(mode) else stat.S_IFREG
    return os.stat_result((kind | mode, 1, 1, 1, uid, gid, 10, 0, 0, 0))


class RuleTests(SynchronousTestCase):
    def refusal(self, found: os.stat_result, *, any_owner: bool = False) -> str:
        try:
            check_writers(found, any_owner=any_owner)
        except UnsafeFileError as error:
            return str(error)
        return ""

    def test_modes(self) -> None:
        for mode, gid, said in (
            (0o600, 0, ""),
            (0o400, 0, ""),
            (0o644, 0, ""),
            (0o440, OTHER, ""),
            (0o640, OTHER, ""),
            (0o660, 0, ""),
            (0o602, 0, "everybody on this host can write it (mode 0602)"),
            (0o622, OTHER, "everybody"),
            (0o666, 0, "everybody"),
            (0o777, 0, "everybody"),
            (0o1666, 0, "everybody"),
            (0o660, OTHER, f"the group {OTHER} can write it (mode 0660)"),
            (0o420, OTHER, f"the group {OTHER}"),
        ):
            for any_owner in (False, True):
                text = self.refusal(status(mode, gid=gid), any_owner=any_owner)
                self.assertEqual(bool(said), bool(text), f"{mode:o}")
                self.assertIn(said, text)
                self.assertEqual(bool(said), "chmod go-w" in text)

    def test_owners(self) -> None:
        for uid in (0, ME):
            self.assertEqual("", self.refusal(status(0o600, uid)))
        text = self.refusal(status(0o600, OTHER))
        self.assertIn(f"it belongs to user {OTHER}", text)
        self.assertIn("chown it to", text)
        self.assertEqual("", self.refusal(status(0o600, OTHER), any_owner=True))

    def test_groups(self) -> None:
        """One's own group may write if nobody else is in it; another one may not."""
        me = secret_files._user(ME)

        def group(name: str, *members: str) -> None:
            entry = grp.struct_group((name, "x", OTHER, list(members)))
            self.patch(grp, "getgrgid", lambda _: entry)

        for name, members, good in (
            (me, (), True),
            (me, (me, "root"), True),
            (me, (me, "eve"), False),
            ("staff", (), False),
            ("staff", (me,), False),
        ):
            group(name, *members)
            text = self.refusal(status(0o660, gid=OTHER))
            self.assertEqual(good, not text, f"{name} {members}")

    def test_a_volume_of_a_container(self) -> None:
        """Its group has no name, and the process is in it."""
        self.patch(os, "getgroups", lambda: [OTHER])
        self.assertEqual("", self.refusal(status(0o660, 0, OTHER)))
        self.assertEqual("", self.refusal(status(0o440, 0, OTHER)))

    def test_owners_whom_a_container_does_not_know(self) -> None:
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
        whole = ["0 0 4294967295", "0 100000 65536"]
        real = Path.read_text
        for mapped in whole:
            self.patch(
                Path,
                "read_text",
                lambda path, *args, mapped=mapped: (
                    mapped if "uid_map" in str(path) else real(path, *args)
                ),
            )
            refused = bool(self.refusal(status(0o600, overflow)))
            self.assertEqual(mapped == whole[0], refused)

    def test_pipes_and_devices(self) -> None:
        self.assertEqual("", self.refusal(status(stat.S_IFCHR | 0o666, OTHER)))
        self.assertEqual("", self.refusal(status(stat.S_IFIFO | 0o600, OTHER)))
        self.assertIn("everybody", self.refusal(status(stat.S_IFIFO | 0o666)))


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Folders of tests are closed to others, and the way to them is open.
        self.folder = temporary_folder(self).resolve()
        self.folder.chmod(0o755)
        self.path = self.folder / "key"
        self.path.write_text(f"{KEY}\n")
        self.path.chmod(0o600)

    def said(self, path: Path | None = None) -> str:
        return "\n".join(warnings(path or self.path))

    def test_read(self) -> None:
        self.assertEqual(f"{KEY}\n".encode(), read_secret(self.path))
        self.path.chmod(0o646)
        self.assertRaises(UnsafeFileError, read_secret, self.path)
        self.assertRaises(FileNotFoundError, read_secret, self.folder / "absent")
        self.assertRaises(ValueError, read_secret, Path("a\0b"))

    def test_links_are_followed(self) -> None:
        """As in volumes of Kubernetes: a link to a link to a folder that changes."""
        (self.folder / "..2024").mkdir()
        (self.folder / "..data").symlink_to("..2024")
        self.path.rename(self.folder / "..2024" / "key")
        self.path.symlink_to("..data/key")
        self.folder.chmod(0o1777)
        self.assertEqual(f"{KEY}\n".encode(), read_secret(self.path))
        self.assertEqual("", self.said())
        self.path.resolve().chmod(0o606)
        self.assertRaises(UnsafeFileError, read_secret, self.path)

    def test_readers(self) -> None:
        self.assertEqual("", self.said())
        self.path.chmod(0o640)
        self.assertEqual("", self.said())
        self.path.chmod(0o644)
        self.assertIn("everybody on this host can read it (mode 0644)", self.said())
        self.folder.chmod(0o700)
        self.assertEqual("", self.said(), "nobody gets there")

    def test_folders(self) -> None:
        inner = self.folder / "inner"
        inner.mkdir()
        path = inner / "key"
        path.write_text(KEY)
        path.chmod(0o600)
        self.assertEqual("", self.said(path))
        for folder in (inner, self.folder):
            folder.chmod(0o777)
            self.assertIn(f"can replace it, by way of the folder {folder}", self.said(path))
            folder.chmod(0o1777)
            self.assertEqual("", self.said(path), "sticky: only owners rename there")
            folder.chmod(0o755)

    def test_what_is_not_there_is_for_others_to_tell(self) -> None:
        for path in (self.folder / "absent", Path("a\0b"), Path("/dev/null"), self.folder):
            self.assertEqual("", self.said(path))


class EveryFileTests(SynchronousTestCase):
    """Each file with a secret that is read goes through the same rule."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self).resolve()
        self.config = self.write("odingw.toml", "")
        before = os.environ.get("STATE_DIRECTORY")
        os.environ["STATE_DIRECTORY"] = str(self.folder)
        self.addCleanup(self.restore, before)

    def restore(self, before: str | None) -> None:
        del os.environ["STATE_DIRECTORY"]
        if before is not None:
            os.environ["STATE_DIRECTORY"] = before

    def write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        path.chmod(0o600)
        return path

    def check(self, toml: str) -> tuple[str, ...]:
        state = "" if "state.url" in toml else 'state.url = "memory:"\n'
        self.config.write_text(state + toml)
        options = Options()
        options.parseOptions(["--config", str(self.config)])
        return check(options)[1].warnings

    def examine(self, path: Path, toml: str) -> None:
        """A file that others can write is refused, and one that they can read is warned of."""
        self.folder.chmod(0o755)
        self.assertEqual((), self.check(toml))
        path.chmod(0o646)
        line = str(self.assertRaises(ConfigError, self.check, toml))
        self.assertIn(str(path), line)
        self.assertIn("everybody on this host can write it (mode 0646)", line)
        path.chmod(0o644)
        (warning,) = self.check(toml)
        self.assertIn(str(path), warning)
        self.assertIn("can read it", warning)
        path.chmod(0o600)

    def test_master_keys(self) -> None:
        self.examine(self.write("a", KEY), 'gateway.master_key_file = "a"')
        self.examine(self.write("odingw.masterkey", KEY), "")

    def test_turn_secrets(self) -> None:
        turn = 'turn.turn_uris = ["turn:h"]\nturn.access_keys = true\n'
        self.examine(self.write("a", "a secret"), f'{turn}turn.secret_keys_file = "a"')

    def test_turnrest(self) -> None:
        text = '{"secretKey": "s", "turnURIS": ["turn:h"], "ignoreJWT": true}'
        path = self.write("turnrest.json", text)
        TurnFile(path).load()
        self.examine(path, 'turn.config = "turnrest.json"')

    def test_the_configuration(self) -> None:
        for secret in (
            f'gateway.master_key = "{KEY}"',
            'gateway.internal.users.odin = "correct horse battery"',
            'admin.users.ops = "correct horse battery"',
            'turn = { turn_uris = ["turn:h"], secret_keys = ["s"], access_keys = true }',
        ):
            self.examine(self.config, secret)
        self.folder.chmod(0o755)
        self.config.chmod(0o644)
        self.assertEqual((), self.check("log.level = 'info'"), "no secret is in it")
        self.config.chmod(0o666)
        self.assertRaises(ConfigError, load, self.config)

    def test_tls_keys(self) -> None:
        issued = trustme.CA().issue_cert("localhost")
        key, certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        issued.private_key_pem.write_to_path(str(key))
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        key.chmod(0o600)
        files = CertificateFiles(key, certificate)
        loaded = ReloadingContextFactory(files)
        self.examine(key, f'listen.admin = ["ssl:0:privateKey={key}:certKey={certificate}"]')
        key.chmod(0o666)
        self.assertRaises(ConfigError, loaded.reload)

    def test_key_of_the_certificate_for_redis(self) -> None:
        """In a file of its own, or in that of the certificate."""
        self.write("master", KEY)
        issued = trustme.CA().issue_cert("gateway")
        own = self.write("own.pem", issued.private_key_pem.bytes().decode())
        both = self.write("both.pem", issued.private_key_and_cert_chain_pem.bytes().decode())
        toml = 'gateway.master_key_file = "master"\nstate.url = "rediss://redis.invalid"\n'
        toml += 'state.certificate = "both.pem"\n'
        self.examine(both, toml)
        self.examine(own, f'{toml}state.private_key = "own.pem"\n')

    def test_customers(self) -> None:
        """They are no secret, but whoever writes them lets people in."""
        path = self.write("customers.json", "[]")
        toml = 'gateway.customer_source.file = "customers.json"'
        path.chmod(0o644)
        self.assertEqual((), self.check(toml))
        path.chmod(0o646)
        self.assertIn("can write it", self.check(toml)[0])

    def test_access_keys(self) -> None:
        path = self.write("acme.key", ACCESS_KEY.text)
        self.folder.chmod(0o755)
        call = ("access-key", "show", "--access-key-file", str(path))
        self.assertEqual((0, ""), (odingw(*call).status, odingw(*call).err))
        path.chmod(0o644)
        ended = odingw(*call)
        self.assertEqual(0, ended.status)
        self.assertIn("odingw: warning: ", ended.err)
        path.chmod(0o646)
        ended = odingw(*call)
        self.assertEqual((1, ""), (ended.status, ended.out))
        assert_one_line(ended)
        self.assertIn("can write it", ended.err)

    def test_placeholders(self) -> None:
        """What examples have in the place of a secret is not taken for one."""
        turn = 'turn = { turn_uris = ["turn:h"], access_keys = true, '
        redis = f'gateway.master_key = "{KEY}"\nstate.url = "redis+sentinel://:'
        for toml, key in (
            ('admin.users.ops = "…"', "admin.users.ops"),
            ('gateway.internal.users.odin = "change me"', "gateway.internal.users.odin"),
            ('gateway.internal.users = { odin = { password = "Change-Me" } }', "users.odin"),
            ('admin.users.ops = "a long random password"', "admin.users.ops"),
            (f'{redis}change-me@h/m"', "state.url"),
            (f'{redis}good@h/m?sentinel_password=Change_Me"', "state.url (sentinel_password)"),
            (f'{turn}secret_keys = ["good", "…"] }}', "turn.secret_keys[1]"),
            (f'{turn}secret_keys = ["good"], forced_password = "…" }}', "turn.forced_password"),
        ):
            line = str(self.assertRaises(ConfigError, self.check, toml))
            self.assertIn(f"{self.config}: ", line)
            self.assertIn(f"{key}: this is what examples have", line)

    def test_short_passwords(self) -> None:
        for toml, key in (
            ('admin.users.ops = "fifteen letters"', "admin.users.ops"),
            ('gateway.internal.users.odin = "hunter2"', "gateway.internal.users.odin"),
        ):
            (warning,) = self.check(toml)
            self.assertIn(f"{key}: short enough to be guessed", warning)
            self.assertNotIn("hunter2", warning)
        self.assertEqual((), self.check('admin.users.ops = "sixteen letters!"'))

    def test_short_master_keys(self) -> None:
        long = "A" * 43 + "="
        for keys, numbers in (('"YWJj"', [1]), (f'"{long}", "YWJj"', [2]), (f'"{long}"', [])):
            found = self.check(f"gateway.master_keys = [{keys}]")
            self.assertEqual(len(numbers), len(found))
            for number, warning in zip(numbers, found, strict=True):
                self.assertIn(f"master key {number} has 3 bytes", warning)
                self.assertIn("head -c 32 /dev/urandom | base64", warning)
                self.assertNotIn("YWJj", warning)

    def test_a_mistyped_key_id(self) -> None:
        key, other = (AccessKey.generate(secrets.token_bytes).public_jwk() for _ in range(2))
        for kid, wrong in ((key.kid, False), (other.kid, True), ("a name of ours", False)):
            warnings = self.check(
                'gateway.customers = [{ id = "acme", access_keys = [{ public_key = '
                f'{{ kid = "{kid}", kty = "OKP", crv = "Ed25519", x = "{key.x}" }} }}] }}]'
            )
            self.assertEqual(wrong, bool(warnings), kid)
            if wrong:
                self.assertIn(key.kid, warnings[0])
                self.assertIn("customer acme", warnings[0])

    def test_a_published_access_key(self) -> None:
        jwk = ACCESS_KEY.public_jwk()
        (warning,) = self.check(
            'gateway.customers = [{ id = "acme", access_keys = [{ public_key = '
            f'{{ kid = "{jwk.kid}", kty = "OKP", crv = "Ed25519", x = "{jwk.x}" }} }}] }}]'
        )
        self.assertIn("CUSTOMER acme IS PUBLISHED", warning)
