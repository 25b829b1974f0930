"""No key is committed, and one that were would be found."""

import json
import os
import subprocess
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from odingw.state.journal_file import JournalFile
from odingw.tokens import AccessKey, server_key
from tests.secret_scan import ALLOWED, ROOT, digest, files, main, scan
from tests.sim_stub import temporary_folder


def random_key() -> str:
    """Return a master key."""
    return b64encode(os.urandom(32)).decode()


class SecretTests(SynchronousTestCase):
    def test_no_key_is_committed(self) -> None:
        """What may stand there is in the list, and nothing is in the list that does not."""
        self.assertEqual([], list(scan(ROOT)))
        there = {digest(found.text) for found in scan(ROOT, frozenset())}
        self.assertEqual(frozenset().union(*ALLOWED.values()), there)

    def test_everything_is_looked_at(self) -> None:
        names = {str(path.relative_to(ROOT)) for path in files(ROOT)}
        self.assertLessEqual({"README.rst", "etc/odingw.toml", "tests/secret_scan.py"}, names)
        self.assertGreater(len(names), 300)
        self.assertFalse([name for name in names if name.startswith((".git/", ".venv/"))])

    def test_the_files_that_a_start_leaves_are_ignored(self) -> None:
        lines = (ROOT / ".gitignore").read_text("utf-8").splitlines()
        self.assertLessEqual({"/odingw.masterkey", "/odingw.sqlite*"}, set(lines))


class FindingTests(SynchronousTestCase):
    """Keys of all kinds, each made anew, in a folder with and without git."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def found(self, name: str, content: str | bytes) -> bool:
        """Tell whether a file with this content is found, and leave nothing."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        try:
            return bool(main([str(self.folder)]))
        finally:
            path.unlink()

    def test_a_master_key(self) -> None:
        """The file that was there once: one line, in base64, and named so."""
        for name in ("odingw.masterkey", "voice/odingw.masterkey", "master_key", "notes", "a.txt"):
            self.assertTrue(self.found(name, random_key() + "\n"), name)
        self.assertFalse(self.found("README.rst", "nothing here\n" + "-" * 43 + "\n"))

    def test_with_git(self) -> None:
        """What is added counts, and what is not ignored; what is ignored does not."""
        subprocess.run(["git", "init", "-q", self.folder], check=True, capture_output=True)
        key = self.folder / "odingw.masterkey"
        key.write_text(random_key())
        self.assertEqual(1, main([str(self.folder)]))
        (self.folder / ".gitignore").write_text("/odingw.masterkey\n")
        self.assertEqual(0, main([str(self.folder)]))
        subprocess.run(["git", "add", "-f", key], cwd=self.folder, check=True)
        self.assertEqual(1, main([str(self.folder)]))

    def test_keys_of_other_kinds(self) -> None:
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        jwk = server_key(os.urandom(32), "a.test:4433").private_jwk()
        access = AccessKey.generate(os.urandom).text
        octets = urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
        for name, content in (
            ("a.py", f'KEY = """{pem}"""'),
            ("a.json", json.dumps({"key": pem})),
            ("acme.key", access + "\n"),
            ("a.py", f'generator = TokenGenerator("{access}")'),
            ("a.json", json.dumps({"kid": jwk.kid, "d": jwk.d})),
            ("a.toml", f'key = {{ kty = "OKP", d = "{jwk.d}" }}'),
            ("a.json", json.dumps({"kty": "oct", "k": octets})),
            ("a.toml", f'master_key = "{random_key()}"'),
            ("a.toml", f'master_keys = ["{random_key()}"]'),
            ("a.json", json.dumps({"masterKey": random_key()})),
            ("a.py", f'MASTER_KEY: Final = "{random_key()}"'),
            ("a.sh", f"export ODINGW_ACCESS_KEY={access}"),
            ("a.toml", f'secret_keys = ["{os.urandom(24).hex()}"]'),
            ("a.env", "AWS_ACCESS_KEY_ID=AKIA" + "ABCDEFGHIJKLMNOP"),
            ("a.txt", "ghp_" + "a1" * 18),
        ):
            self.assertTrue(self.found(name, content), f"{name}: {content}")

    def test_a_journal(self) -> None:
        path = Path(temporary_folder(self)) / "journal"
        JournalFile(path, "normal").close()
        self.assertTrue(self.found("data", path.read_bytes()))
        self.assertTrue(self.found("odingw.sqlite", b""))
        self.assertTrue(self.found("odingw.sqlite-wal", b""))
