"""The options of ``twistd odingw``, and TurnRest's environment variables."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trustme
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import ConfigError
from odingw.listeners import listeners
from odingw.options import Options

TURNREST = {
    "TURNREST_CONFIG_FILE": "turnrest.json",
    "TURNREST_PUBLIC_ADDRESS": "127.0.0.1:8080",
    "TURNREST_ADMIN_ADDRESS": "[::1]:8081",
}
TURN_FILE = '{"secretKey": "s", "turnURIS": ["turn:turn.example"], "ignoreJWT": true}'


class OptionsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def options(self, *words: str, **environment: str) -> Options:
        """Read a command line, in an environment with these variables of TurnRest's."""
        self.environment = patch.dict(os.environ, environment)
        self.environment.start()
        self.addCleanup(self.environment.stop)
        options = Options()
        options.parseOptions(list(words))
        return options


class TurnRestTests(OptionsCase):
    def variables(self, **others: str) -> dict[str, str]:
        path = self.folder / "turnrest.json"
        path.write_text(TURN_FILE)
        return {**TURNREST, "TURNREST_CONFIG_FILE": str(path), **others}

    def test_they_configure_turn_and_endpoints(self) -> None:
        config = self.options(**self.variables()).load()
        assert config.turn is not None
        self.assertEqual(self.folder / "turnrest.json", config.turn.config)
        self.assertEqual(("tcp:8080:interface=127.0.0.1",), config.listen.public)
        self.assertEqual((r"tcp:8081:interface=\:\:1",), config.listen.admin)

    def test_one_address_is_one_endpoint(self) -> None:
        options = self.options(**self.variables(TURNREST_ADMIN_ADDRESS="127.0.0.1:8080"))
        config = options.load()
        entries = listeners(config, MemoryReactorClock(), options.origin())
        self.assertLessEqual({"public", "admin"}, entries["tcp:8080:interface=127.0.0.1"].roles)

    def test_options_beat_them(self) -> None:
        other = self.folder / "other.json"
        other.write_text(TURN_FILE)
        for words, public in (
            (("--port", "1"), "tcp:1:interface=0.0.0.0"),
            (("--listen", "tcp:2"), "tcp:2"),
            (("--host", "127.0.0.2"), "tcp:7000:interface=127.0.0.2"),
        ):
            options = self.options(
                *words, "--turn-config", str(other), "--admin", "tcp:3", **self.variables()
            )
            config = options.load()
            assert config.turn is not None
            self.assertEqual((public,), config.listen.public)
            self.assertEqual((("tcp:3",), other), (config.listen.admin, config.turn.config))

    def test_they_beat_the_file(self) -> None:
        file = self.folder / "odingw.toml"
        file.write_text('[listen]\npublic = ["tcp:1"]\nadmin = ["tcp:2"]\n')
        config = self.options("--config", str(file), **self.variables()).load()
        self.assertEqual(("tcp:8080:interface=127.0.0.1",), config.listen.public)
        self.assertEqual((r"tcp:8081:interface=\:\:1",), config.listen.admin)

    def test_an_empty_one_is_absent(self) -> None:
        config = self.options(**dict.fromkeys(TURNREST, "")).load()
        self.assertIsNone(config.turn)
        self.assertEqual(("tcp:7000",), config.listen.public)

    def test_what_is_no_address_is_named(self) -> None:
        for name in ("TURNREST_PUBLIC_ADDRESS", "TURNREST_ADMIN_ADDRESS"):
            for text in ("8080", ":8080", "localhost", "http://x:1", "::1:8080", "a b:1"):
                options = self.options(**self.variables(**{name: text}))
                error = self.assertRaises(ConfigError, options.load)
                self.assertIn(name, str(error))
                self.assertIn("0.0.0.0:8080", str(error))


class CertificateTests(OptionsCase):
    def setUp(self) -> None:
        super().setUp()
        issued = trustme.CA().issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(self.folder / "fullchain.pem")
        issued.private_key_pem.write_to_path(self.folder / "privkey.pem")
        self.files = (
            "--certificate",
            str(self.folder / "fullchain.pem"),
            "--privatekey",
            str(self.folder / "privkey.pem"),
        )

    def listen(self, *words: str) -> dict[str, Any]:
        options = self.options(*words)
        return listeners(options.load(), MemoryReactorClock(), options.origin())

    def test_one_that_no_endpoint_uses_is_refused(self) -> None:
        """Or all would be served without TLS, in silence."""
        own = f"ssl:1:privateKey={self.folder}/own.pem:certKey={self.folder}/fullchain.pem"
        shutil.copy(self.folder / "privkey.pem", self.folder / "own.pem")
        for words in ((), ("--port", "1"), ("--listen", "tcp:1"), ("--listen", own)):
            for files in (self.files, self.files[:2], self.files[2:]):
                error = self.assertRaises(ConfigError, self.listen, *words, *files)
                self.assertTrue(str(error).startswith(f"{files[0]}: no endpoint uses it"))
                self.assertIn("--ssl", str(error))

    def test_one_endpoint_suffices(self) -> None:
        for words in (
            ("--ssl",),
            ("--listen", "tcp:1", "--listen", "ssl:2"),
            ("--listen", "haproxy:ssl:1"),
            ("--internal", "ssl:1"),
            ("--admin", "ssl:1"),
        ):
            self.assertTrue(self.listen(*words, *self.files))
