"""``odingw check`` and ``customers``."""

import http.server
import json
import os
import threading
from base64 import b64encode
from typing import Any

from msgspec import to_builtins
from twisted.trial.unittest import SynchronousTestCase

from tests.process import ACCESS_KEY, customer
from tests.sim_stub import temporary_folder
from tests.terminal import Ended, assert_one_line, odingw


class CheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.path = self.folder / "odingw.toml"

    def check(self, text: str, *options: str) -> Ended:
        self.path.write_text(text)
        return odingw("check", str(self.path), *options)

    def test_good(self) -> None:
        key = b64encode(os.urandom(32)).decode()
        text = f'[state]\nurl = "memory:"\n[gateway]\nmaster_key = "{key}"\n{customer()}'
        ended = self.check(text)
        self.assertEqual(0, ended.status, ended)
        self.assertRegex(ended.out, r"(?m)^configuration +good$")
        document = self.check(text, "--json").document
        self.assertIs(True, document["good"])
        self.assertEqual(["tcp:7000"], document["public"])
        self.assertEqual(
            (1, "memory", None, False),
            tuple(document[name] for name in ("customers", "state", "state_file", "turn")),
        )
        self.assertRegex(ended.out, r"(?m)^turn +no$")
        self.assertEqual([self.path], list(self.folder.iterdir()), "nothing is made")

    def test_state_file(self) -> None:
        text = f'[state]\nurl = "sqlite:{self.folder}/a.sqlite"\n{customer()}'
        ended = self.check(text)
        self.assertRegex(ended.out, rf"(?m)^state_file +{self.folder}/a\.sqlite$")
        self.assertEqual(
            f"{self.folder}/a.sqlite", self.check(text, "--json").document["state_file"]
        )

    def test_warnings(self) -> None:
        for text, said in (
            ('[state]\nurl = "memory:"\n', "no customer is configured"),
            (
                '[state]\nurl = "memory:"\n[gateway.unknown_customers]\n'
                "max_peers = 1\nmax_rooms = 1\ntotal_peers = 1\n",
                "DEMO MODE",
            ),
        ):
            ended = self.check(text)
            self.assertEqual(0, ended.status, ended)
            self.assertIn(f"odingw: warning: {said}", ended.err)
            ended = self.check(text, "--json")
            self.assertTrue(any(said in line for line in ended.document["warnings"]))

    def test_bad(self) -> None:
        for text, said in (
            ("[gateway]\nmaster_kye = 1\n", "gateway.master_kye"),
            ("\n=", "odingw.toml: line 2, column 1: "),
            ('\n{"customers": []}', "odingw.toml: this looks like JSON"),
            ("{", "docs/migrating-gateway.rst"),
            ('[listen]\npublic = ["tcp:seven"]\n', "listen.public[0]"),
            ('[listen]\npublic = ["ssl:443"]\n', "privkey.pem"),
            ('[state]\nurl = "sqlite:/no/such/folder/x"\n', "/no/such/folder"),
            ("[turn]\nturn_uris = []\n", "turn"),
        ):
            ended = self.check(text)
            self.assertEqual((1, ""), (ended.status, ended.out), text)
            assert_one_line(ended)
            self.assertIn(said, ended.err)
            ended = self.check(text, "--json")
            self.assertEqual(1, ended.status)
            self.assertIs(False, ended.document["good"])
            self.assertIn(said, ended.document["error"])

    def test_turn_alone(self) -> None:
        """Nobody is to be let into a room, and no server reports."""
        ended = self.check(
            '[turn]\nsecret_keys = ["a secret of some length"]\nturn_uris = ["turn:t.example"]\n'
            "access_keys = true\n"
        )
        self.assertNotIn("nobody is let in", ended.err)
        self.assertRegex(ended.out, r"(?m)^internal +nowhere$")

    def test_no_file(self) -> None:
        ended = odingw("check", str(self.path))
        self.assertEqual(1, ended.status)
        assert_one_line(ended)
        self.assertIn("odingw.toml", ended.err)


class CustomersTests(SynchronousTestCase):
    def setUp(self) -> None:
        jwk = to_builtins(ACCESS_KEY.public_jwk())
        self.acme = {
            "id": "acme",
            "maxPeers": 100,
            "maxRooms": None,
            "accessKeys": [{"publicKey": jwk}],
        }

    def customers(self, document: object, *options: str) -> Ended:
        return odingw("customers", "-", *options, stdin=json.dumps(document))

    def test_good(self) -> None:
        for document in ([self.acme], {"customers": [self.acme]}):
            ended = self.customers(document)
            self.assertEqual((0, ""), (ended.status, ended.err))
            self.assertRegex(ended.out, r"(?m)^acme +100 +no limit +AQ7aVmK\+pI1l +acme$")
        self.assertEqual(
            {
                "good": True,
                "problems": [],
                "customers": [
                    {
                        "id": "acme",
                        "max_peers": 100,
                        "max_rooms": None,
                        "access_keys": [{"kid": "AQ7aVmK+pI1l", "namespace": "acme"}],
                    }
                ],
            },
            self.customers([self.acme], "--json").document,
        )

    def test_problems(self) -> None:
        """What can be used is shown, and what cannot be is said."""
        broken: dict[str, Any] = {**self.acme, "id": "broken", "accessKeys": [{"publicKey": 1}]}
        ended = self.customers([self.acme, {"id": "half"}, broken])
        self.assertEqual(1, ended.status)
        self.assertRegex(ended.out, r"(?m)^broken .* none +-$")
        first, second = ended.err.splitlines()
        self.assertIn("customer 'half' is refused: maxPeers is absent", first)
        self.assertIn("access key 1 of customer 'broken' is skipped", second)
        ended = self.customers([self.acme, {"id": "half"}], "--json")
        self.assertEqual(1, ended.status)
        self.assertFalse(ended.document["good"])
        self.assertEqual(1, len(ended.document["problems"]))

    def test_no_list(self) -> None:
        for text, said in (
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("7", "neither a list of customers nor"),
            ("{}", "neither a list of customers nor"),
        ):
            ended = odingw("customers", "-", stdin=text)
            self.assertEqual((1, ""), (ended.status, ended.out))
            assert_one_line(ended)
            self.assertIn(said, ended.err)
        ended = odingw("customers", "/no/such/file")
        self.assertEqual(1, ended.status)
        assert_one_line(ended)

    def test_url(self) -> None:
        test = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/customers?key=secret" else 404)
                self.end_headers()
                self.wfile.write(json.dumps([test.acme, {}]).encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  -- likewise
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        url = f"http://127.0.0.1:{server.server_port}"
        ended = odingw("customers", f"{url}/customers?key=secret")
        self.assertIn("acme", ended.out)
        self.assertIn(f"odingw: {url}/customers: customer 2", ended.err)
        self.assertNotIn("secret", ended.err)
        ended = odingw("customers", f"{url}/nothing")
        self.assertEqual(1, ended.status)
        self.assertIn("HTTP status 404", ended.err)
