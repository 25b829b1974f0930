"""The ``[turn]`` section: what loads, what a TurnRest file replaces, and the examples."""

import re
from pathlib import Path

from odingw.config import Options, Turn
from odingw.turn.settings import from_config
from tests.config_case import ConfigCase, fields
from tests.test_config import SAMPLE


class TurnTests(ConfigCase):
    """What is written is what is loaded."""

    def test_every_key(self) -> None:
        """Every key of ``[turn]``; without the table TURN is not configured."""
        self.assertIsNone(self.load_text("").turn)
        self.assertEqual(self.load_text("[turn]").turn, Turn())
        turn = self.load_text(
            """
            [turn]
            secret_keys = ["new", "old"]
            ttl = 60
            turn_uris = ["turn:a", "b"]
            stun_uris = ["a"]
            allowed_origin = "https://a"
            forced_user = "u"
            forced_password = "p"
            ignore_jwt = true
            user_claim = "sub"
            required_scopes = ["x", "y"]
            scope_claims = ["a.b"]
            jwk_urls = ["https://a/"]
            public_keys = ["k"]
            issuer = "i"
            audience = "a"
            access_keys = true
            watch_servers = false
            watch_interval = 1
            leeway = 0
            """
        ).turn
        expected = Turn(
            secret_keys=("new", "old"),
            ttl=60,
            turn_uris=("turn:a", "b"),
            stun_uris=("a",),
            allowed_origin="https://a",
            forced_user="u",
            forced_password="p",
            ignore_jwt=True,
            user_claim="sub",
            required_scopes=("x", "y"),
            scope_claims=("a.b",),
            jwk_urls=("https://a/",),
            public_keys=("k",),
            issuer="i",
            audience="a",
            access_keys=True,
            watch_servers=False,
            watch_interval=1.0,
            leeway=0,
        )
        self.assertEqual(turn, expected)

    def test_file(self) -> None:
        """Its path is relative to the file's folder; what it cannot say may stand beside it."""
        turn = self.load_text(
            """
            [turn]
            config = "lib/t.json"
            issuer = "i"
            audience = "a"
            scope_claims = ["a.b"]
            access_keys = true
            watch_servers = false
            watch_interval = 1
            leeway = 0
            """
        ).turn
        expected = Turn(
            config=self.folder / "lib" / "t.json",
            issuer="i",
            audience="a",
            scope_claims=("a.b",),
            access_keys=True,
            watch_servers=False,
            watch_interval=1.0,
            leeway=0,
        )
        self.assertEqual(turn, expected)

    def test_origins_and_no_forced_user(self) -> None:
        """Several origins are a list; an empty forced user is none."""
        turn = self.load_text(
            'turn = { allowed_origin = ["https://a", "https://b"], forced_user = "" }'
        ).turn
        self.assertEqual(turn, Turn(allowed_origin=("https://a", "https://b"), forced_user=""))

    def test_secrets_file(self) -> None:
        """A secret per line; the first signs. Empty lines and white space do not matter."""
        text = 'turn.secret_keys_file = "secrets"'
        (self.folder / "secrets").write_bytes("\n né w \r\n\nold".encode())
        turn = self.load_text(text).turn
        self.assertEqual(
            turn, Turn(secret_keys=("né w", "old"), secret_keys_file=self.folder / "secrets")
        )
        for content, remedy in (
            (b"\n \n", "holds no secret; write one per line"),
            (b"\xff", "is not UTF-8; write a secret per line"),
        ):
            (self.folder / "secrets").write_bytes(content)
            line = self.refusal(self.path)
            self.assertTrue(line.startswith(f"{self.path}: turn.secret_keys_file: "), line)
            self.assertIn(remedy, line)

    def test_option(self) -> None:
        """It replaces all that such a file can say, also a file with secrets, which is not read."""
        for text, expected in (
            ("", Turn(config=Path("/t.json"))),
            (
                "turn = { config = 'other.json', leeway = 5 }",
                Turn(config=Path("/t.json"), leeway=5),
            ),
            ("turn = { ttl = 1, issuer = 'i' }", Turn(config=Path("/t.json"), issuer="i")),
            ("turn.secret_keys_file = 'absent'", Turn(config=Path("/t.json"))),
        ):
            self.assertEqual(self.load_text(text, Options(turn_config="/t.json")).turn, expected)
        turn = self.load_text("", Options(turn_config="t.json")).turn
        self.assertEqual(turn, Turn(config=Path.cwd() / "t.json"))

    def test_examples_work(self) -> None:
        """With a TurnRest file, and in place; what has a default is written with that."""
        text = SAMPLE.read_text(encoding="utf-8")
        text = text[text.index("# [turn]") :]
        example = re.sub(r"(?m)^# (?=\[|config = )", "", text)
        self.assertEqual(self.load_text(example).turn, Turn(config=self.folder / "turnrest.json"))
        other = "config|secret_keys_file|public_keys"
        turn = self.load_text(re.sub(rf"(?m)^# (?!{other})(?=\[|[a-z_]+ = )", "", text)).turn
        assert turn is not None
        for key, default in fields(Turn, "").items():
            if default not in (None, ()):
                self.assertEqual(getattr(turn, key), default, key)
        self.assertEqual(from_config(turn)[0].turn_uris, turn.turn_uris)
