"""``--check`` refuses what the start refuses, and warns of what it warns of."""

import os
from base64 import b64encode

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import ConfigError
from odingw.options import Options
from odingw.tap import GatewayService, check
from tests.customer_sources import new_folder


class CheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)

    def options(self, text: str) -> Options:
        path = self.folder / "odingw.toml"
        key = b64encode(os.urandom(32)).decode()
        state = "" if "state.url" in text else 'state.url = "sqlite:state.sqlite"\n'
        path.write_text(f'gateway.master_key = "{key}"\n{state}{text}')
        options = Options()
        options.parseOptions(["--config", str(path)])
        return options

    def test_what_the_start_refuses(self) -> None:
        for text, said in (
            ('gateway.customer_source.function = "nowhere_at_all:load"\n', "cannot be loaded"),
            ('gateway.customer_source.function = "json:load_nothing"\n', "has no function"),
            ('listen.public = ["tcp:7000:interface=nowhere.invalid"]\n', "nowhere.invalid"),
            ('listen.admin = ["haproxy:tcp:7000:interface=nowhere.invalid"]\n', "nowhere.invalid"),
            ('turn.config = "nowhere.json"\n', "nowhere.json"),
            ('turn.secret_keys = ["x"]\n', "turn"),
            ('state.url = "rediss://h"\nstate.ca_file = "nowhere.pem"\n', "nowhere.pem"),
            ('state.url = "rediss://h"\nstate.certificate = "nowhere.pem"\n', "nowhere.pem"),
        ):
            options = self.options(text)
            checked = self.assertRaises(ConfigError, check, options)
            started = self.assertRaises(
                ConfigError, GatewayService, options, options.load(), None, reactor
            )
            self.assertIn(said, str(checked), text)
            self.assertEqual(str(checked), str(started), text)

    def test_what_the_start_warns_of(self) -> None:
        warnings = check(
            self.options(
                'listen.public = ["unix:x"]\nlimits.requests_per_second = 1\n'
                'gateway.customer_source.url = "http://a.test/"\n'
            )
        ).warnings
        self.assertEqual(len(set(warnings)), len(warnings))
        for said in ("COME OVER PLAIN HTTP", "has no address"):
            self.assertIn(said, str(warnings))

    def test_a_proxy_that_is_none(self) -> None:
        customers = 'gateway.customer_source.url = "https://u:p@a.test/"\n'
        keys = (
            'turn.jwk_urls = ["https://a.test/", "http://127.0.0.1/"]\n'
            'turn.turn_uris = ["turn:t.example"]\nturn.secret_keys = ["a secret"]\n'
        )
        said = "HTTPS_PROXY names no proxy; write http://host:port; until then nothing is fetched"
        for variables, text, warned in (
            ({"HTTPS_PROXY": "http://[::1"}, customers, True),
            ({"HTTPS_PROXY": "socks5://h:1"}, keys, True),
            ({"HTTPS_PROXY": "h:99999", "NO_PROXY": "a.test"}, customers + keys, False),
            ({"HTTPS_PROXY": "x y"}, "", False),
            ({"HTTPS_PROXY": "http://h:1", "HTTP_PROXY": "x y"}, customers + keys, False),
        ):
            self.patch(os, "environ", variables)
            warnings = check(self.options(text)).warnings
            self.assertEqual(warned, said in str(warnings), (variables, warnings))

    def test_nothing_is_made(self) -> None:
        options = self.options("")
        before = sorted(self.folder.iterdir())
        check(options)
        self.assertEqual(before, sorted(self.folder.iterdir()))
