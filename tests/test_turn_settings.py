"""TURN settings: both files that they come from, what is refused, and a file that changes."""

import base64
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import Turn
from odingw.errors import ConfigError
from odingw.turn.settings import TurnSettings, from_config, from_turnrest_json
from odingw.turn.turnrest_file import TurnFile

SAMPLE: Final = Path(__file__).parent.parent / "etc" / "turnrest.json"
SECRET: Final = "hunter2hunter2hunter2"
KEY: Final = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
"""RFC 8410, section 10.1."""

ENOUGH: Final[dict[str, Any]] = {
    "secretKey": SECRET,
    "turnURIS": ["turn.example.com"],
    "jwtPublicKeys": [KEY],
}
LEAST: Final = TurnSettings(
    secret_keys=(SECRET,), turn_uris=("turn:turn.example.com",), public_keys=(KEY,)
)


def public_key(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


NOBODY: Final = "no page is let in by it:"


class SettingsCase(SynchronousTestCase):
    def read(
        self, members: dict[str, Any], beside: Turn | None = None
    ) -> tuple[TurnSettings, list[str]]:
        return from_turnrest_json(json.dumps(ENOUGH | members).encode(), "t.json", beside)

    def accepted(self, members: dict[str, Any], beside: Turn | None = None) -> dict[str, Any]:
        """The settings that differ from those without the members."""
        found, warnings = self.read(members, beside)
        self.assertEqual(warnings, [])
        return {
            name: getattr(found, name)
            for name in TurnSettings.__struct_fields__
            if getattr(found, name) != getattr(LEAST, name)
        }

    def line(self, text: str) -> str:
        self.assertTrue(text.isprintable(), f"not one clean line: {text!r}")
        self.assertNotIn(SECRET, text)
        return text

    def refusal(self, text: bytes) -> str:
        error = self.assertRaises(ConfigError, from_turnrest_json, text, "t.json")
        self.assertIsNone(error.__cause__)
        return self.line(str(error))


class TurnRestFileTests(SettingsCase):
    """A TurnRest file loads as it is."""

    def test_least(self) -> None:
        """What is not there has the default of the wire reference."""
        self.assertEqual(self.read({}), (LEAST, []))
        self.assertEqual((LEAST.ttl, LEAST.allowed_origins), (43200, ("*",)))
        self.assertIs(LEAST.ignore_jwt, False)

    def test_every_member(self) -> None:
        """Each sets what it says."""
        other = public_key(ec.generate_private_key(ec.SECP384R1()))
        for members, expected in (
            ({"secretKey": SECRET * 2}, {"secret_keys": (SECRET * 2,)}),
            ({"secretKeys": [SECRET, SECRET * 2]}, {"secret_keys": (SECRET, SECRET * 2)}),
            (
                {"secretKeys": [SECRET * 3, SECRET * 2], "secretKey": ""},
                {"secret_keys": (SECRET * 3, SECRET * 2)},
            ),
            (
                {"allowedOrigin": "https://a.example:8443"},
                {"allowed_origins": ("https://a.example:8443",)},
            ),
            (
                {"allowedOrigin": ["https://a", "capacitor://localhost", "https://a"]},
                {"allowed_origins": ("https://a", "capacitor://localhost")},
            ),
            ({"allowedOrigin": ["*"]}, {}),
            ({"allowedOrigin": "null"}, {"allowed_origins": ("null",)}),
            ({"ttl": 60}, {"ttl": 60}),
            ({"forcedUser": "guest"}, {"forced_user": "guest"}),
            ({"forceUser": "guest"}, {"forced_user": "guest"}),
            ({"forceUser": "guest", "forcedUser": "guest"}, {"forced_user": "guest"}),
            ({"forcedPassword": "pw"}, {"forced_password": "pw"}),
            (
                {"forcedPassword": "pw", "secretKey": None},
                {"forced_password": "pw", "secret_keys": ()},
            ),
            ({"ignoreJWT": False}, {}),
            ({"userClaim": "sub"}, {"user_claim": "sub"}),
            ({"requiredJWTScope": ["a", "b"]}, {"required_scopes": ("a", "b")}),
            ({"jwkURIS": ["https://a/k?x=%20"]}, {"jwk_urls": ("https://a/k?x=%20",)}),
            ({"jwkURLs": ["https://a/"]}, {"jwk_urls": ("https://a/",)}),
            (
                {"jwkURLs": ["https://b/", "https://a/"], "jwkURIS": ["https://a/"]},
                {"jwk_urls": ("https://a/", "https://b/")},
            ),
            ({"jwtPublicKeys": [KEY, other]}, {"public_keys": (KEY, other)}),
            (
                {"turnURIS": ["b.example:80", "turns:a.example", "turn:b.example:80"]},
                {"turn_uris": ("turn:b.example:80", "turns:a.example")},
            ),
            ({"stunURIS": ["a.example", "stuns:b"]}, {"stun_uris": ("stun:a.example", "stuns:b")}),
        ):
            self.assertEqual(self.accepted(members), expected)

    def test_origin_as_browsers_send_it(self) -> None:
        """In lower case, since it is compared byte by byte."""
        self.assertEqual(
            self.accepted({"allowedOrigin": "HTTPS://A.example"}),
            {"allowed_origins": ("https://a.example",)},
        )

    def test_null_and_empty(self) -> None:
        """Null is as good as absent everywhere, an empty text for what a template leaves open."""
        nothing = dict.fromkeys(
            (
                "secretKeys",
                "allowedOrigin",
                "ttl",
                "forcedUser",
                "forceUser",
                "forcedPassword",
                "ignoreJWT",
                "userClaim",
                "requiredJWTScope",
                "jwkURIS",
                "jwkURLs",
                "stunURIS",
            )
        )
        self.assertEqual(self.accepted(nothing), {})
        empty = dict.fromkeys(
            ("allowedOrigin", "forcedUser", "forceUser", "forcedPassword", "userClaim"), ""
        )
        self.assertEqual(self.accepted(empty), {})
        self.assertEqual(self.accepted({"allowedOrigin": [], "userClaim": []}), {})

    def test_loopback_over_http(self) -> None:
        """Nobody sits between this host and itself."""
        urls = (
            "http://localhost/k",
            "http://jwk.localhost:8080/k",
            "http://127.1.2.3/k",
            "http://[::1]:80/k",
        )
        self.assertEqual(self.accepted({"jwkURIS": urls}), {"jwk_urls": urls})

    def test_beside(self) -> None:
        """What the file cannot say comes from ``[turn]``; what it can say does not."""
        beside = Turn(
            issuer="i",
            audience="a",
            scope_claims=("roles",),
            access_keys=True,
            watch_servers=False,
            watch_interval=1.5,
            leeway=0,
            ttl=1,
            ignore_jwt=True,
        )
        self.assertEqual(
            self.accepted({}, beside),
            {
                "issuer": "i",
                "audience": "a",
                "scope_claims": ("roles",),
                "access_keys": True,
                "watch_servers": False,
                "watch_interval": 1.5,
                "leeway": 0,
            },
        )

    def test_byte_order_mark(self) -> None:
        """As some editors write it."""
        text = json.dumps(ENOUGH).encode("utf-8-sig")
        self.assertEqual(from_turnrest_json(text, "t.json"), (LEAST, []))

    def test_sample(self) -> None:
        """It has every member, and lacks nothing but the secret."""
        document = json.loads(SAMPLE.read_bytes())
        self.assertEqual(
            set(document),
            {
                "secretKey",
                "secretKeys",
                "allowedOrigin",
                "ttl",
                "forcedUser",
                "forcedPassword",
                "ignoreJWT",
                "userClaim",
                "requiredJWTScope",
                "jwkURIS",
                "jwtPublicKeys",
                "turnURIS",
                "stunURIS",
            },
        )
        self.assertIn("t.json: secretKey: missing; write", self.refusal(SAMPLE.read_bytes()))
        document["secretKey"] = SECRET
        found, warnings = from_turnrest_json(json.dumps(document).encode(), "t.json")
        self.assertEqual(warnings, [])
        self.assertEqual(found.user_claim, "sub")


class WarningTests(SettingsCase):
    """What works, but hardly as it is meant."""

    def test_unknown_members(self) -> None:
        """Each is named, with the one that may have been meant."""
        found, warnings = self.read({"turnUris": ["x"], "comment": SECRET, "a\nb": 1})
        self.assertEqual(found, LEAST)
        self.assertEqual(
            [self.line(warning) for warning in warnings],
            [
                "t.json: turnUris: unknown, and thus ignored; did you mean turnURIS?",
                "t.json: comment: unknown, and thus ignored",
                r't.json: "a\nb": unknown, and thus ignored',
            ],
        )

    def test_ignore_jwt(self) -> None:
        """Loud: everybody can use the TURN servers."""
        found, (warning,) = self.read({"ignoreJWT": True, "jwtPublicKeys": []})
        self.assertIs(found.ignore_jwt, True)
        self.assertTrue(
            self.line(warning).startswith("t.json: ignoreJWT: TURN CREDENTIALS ARE HANDED OUT TO E")
        )

    def test_nobody(self) -> None:
        """There is nothing that could verify a token."""
        _, (warning,) = self.read({"jwtPublicKeys": [], "jwkURLs": []})
        self.assertEqual(
            self.line(warning),
            "t.json: jwkURIS: there is no key to check tokens with, so nobody is let in; "
            "set jwkURIS, jwtPublicKeys or turn.access_keys",
        )
        self.assertEqual(self.read({"jwtPublicKeys": []}, Turn(access_keys=True))[1], [])
        self.assertEqual(self.read({"jwtPublicKeys": [], "jwkURIS": ["https://a/"]})[1], [])

    def test_short_secret(self) -> None:
        """Whoever has credentials can try secrets until one fits."""
        _, warnings = self.read({"secretKey": SECRET[:15], "secretKeys": [SECRET[:16], "ä"]})
        self.assertEqual(
            [self.line(warning).partition("; ")[0] for warning in warnings],
            [
                "t.json: secretKey: short enough to be guessed",
                "t.json: secretKeys[1]: short enough to be guessed",
            ],
        )

    def test_a_forced_user_and_a_user_claim(self) -> None:
        """One of them has no effect; an empty one is none."""
        for members in ({"forcedUser": "guest"}, {"forceUser": "guest"}):
            _, (warning,) = self.read({**members, "userClaim": "sub"})
            self.assertEqual(
                self.line(warning),
                "t.json: userClaim: without effect, as forcedUser is everybody's user; remove one",
            )
        self.assertEqual(self.read({"forcedUser": "", "userClaim": "sub"})[1], [])
        turn = Turn(secret_keys=(SECRET,), turn_uris=("a",), public_keys=(KEY,), user_claim="sub")
        self.assertEqual(from_config(msgspec.structs.replace(turn, forced_user=""))[1], [])
        found, (warning,) = from_config(msgspec.structs.replace(turn, forced_user="guest"), "o")
        self.assertEqual((found.forced_user, found.user_claim), ("guest", "sub"))
        self.assertTrue(warning.startswith("o: turn.user_claim: without effect, as turn.forced_u"))

    def test_origins_that_no_browser_sends(self) -> None:
        """The existing server starts with them, and lets in nobody's page; so does this one."""
        for written, origins, starts in (
            ("https://a/", (), ["allowedOrigin: "]),
            ("a.example", (), ["allowedOrigin: "]),
            ("https://a, https://b", (), ["allowedOrigin: "]),
            ("https://a\r\nX: y", (), ["allowedOrigin: "]),
            ("https://*.example.com", (), ["allowedOrigin: "]),
            (["https://a", "https://*.a"], ("https://a",), ["allowedOrigin[1]: "]),
            (["b", "https://a"], ("https://a",), ["allowedOrigin[0]: "]),
            (["https://a", "", "b"], ("https://a",), ["allowedOrigin[2]: "]),
            ("http://0x7f000001", (), ["allowedOrigin: "]),
            ("https://.", (), ["allowedOrigin: "]),
            ("https://a\u200b", (), ["allowedOrigin: "]),
            (["https://a", "\ud83d"], ("https://a",), ["allowedOrigin[1]: "]),
            (["https://a:443", "b"], (), ["allowedOrigin[0]: ", "allowedOrigin[1]: "]),
        ):
            found, warnings = self.read({"allowedOrigin": written})
            self.assertEqual(found.allowed_origins, origins, written)
            self.assertEqual(len(warnings), len(starts), written)
            for warning, start in zip(warnings, starts, strict=True):
                self.assertTrue(self.line(warning).startswith(f"t.json: {start}{NOBODY} "), warning)
        found, (warning,) = self.read({"allowedOrigin": ["https://a", "*"]})
        self.assertEqual(found.allowed_origins, ("*",))
        self.assertIn('allowedOrigin: "*" is all origins', self.line(warning))

    def test_a_forced_user_that_no_browser_takes(self) -> None:
        """With a secret it becomes its hash; beside a forced password it must stay what it is."""
        longest = {"forcedUser": "x" * 508, "forcedPassword": "p"}
        self.assertEqual(self.read(longest)[1], [])
        self.assertEqual(self.read({"forcedUser": "x" * 509})[1], [])
        found, (warning,) = self.read({**longest, "forcedUser": "x" * 509})
        self.assertEqual(found.forced_user, "x" * 509)
        self.assertIn("forcedUser: longer than the 508 bytes", self.line(warning))


class WrongTests(SettingsCase):
    """One line that names the file, the member and the remedy."""

    def test_members(self) -> None:
        """Every kind of wrong value and combination."""
        p521 = public_key(ec.generate_private_key(ec.SECP521R1()))
        broken = KEY[:-8]
        for members, start in (
            ({"secretKey": None}, "secretKey: missing; write the secret that your TURN servers"),
            ({"secretKey": "", "secretKeys": []}, "secretKey: missing; write"),
            ({"secretKey": [SECRET]}, "secretKey: expected a string, got a list; write"),
            ({"secretKeys": SECRET}, "secretKeys: expected a list, got a string; write a list of"),
            ({"secretKey": None, "secretKeys": [""]}, "secretKey: missing; write"),
            (
                {"allowedOrigin": 1},
                "allowedOrigin: expected a string or a list, got an integer; wr",
            ),
            ({"allowedOrigin": [1]}, "allowedOrigin[0]: expected a string, got an integer; write"),
            ({"ttl": "60"}, "ttl: expected an integer, got a string; write a whole number"),
            ({"ttl": True}, "ttl: expected an integer, got a boolean; write"),
            ({"ttl": 0}, "ttl: 0 is out of range; write a whole number of seconds, at least 1"),
            ({"ttl": 315360001}, "ttl: 315360001 is out of range; write"),
            ({"ttl": 10**30}, "ttl: the value is out of range; write"),
            ({"forcedUser": 1}, "forcedUser: expected a string, got an integer"),
            (
                {"forcedUser": "a", "forceUser": "b"},
                "forceUser: forcedUser says otherwise; keep one of them",
            ),
            ({"forcedPassword": {"a": SECRET}}, "forcedPassword: expected a string, got a table"),
            ({"ignoreJWT": "true"}, "ignoreJWT: expected a boolean, got a string; write true or"),
            ({"userClaim": ["sub"]}, "userClaim: expected a string, got a list"),
            ({"requiredJWTScope": "a"}, "requiredJWTScope: expected a list, got a string; write"),
            ({"requiredJWTScope": ["", 1]}, "requiredJWTScope[1]: expected a string, got an in"),
            ({"jwkURIS": ["https://a/", 1]}, "jwkURIS[1]: expected a string, got an integer"),
            (
                {"jwkURIS": ["https://a/"], "jwkURLs": ["https://b/", "http://b/"]},
                "jwkURLs[1]: keys that come over http can be forged",
            ),
            ({"jwkURIS": ["http://10.0.0.1/"]}, "jwkURIS[0]: keys that come over http"),
            ({"jwkURIS": ["http://localhost.example/"]}, "jwkURIS[0]: keys that come over http"),
            ({"jwkURIS": ["http://notlocalhost/"]}, "jwkURIS[0]: keys that come over http"),
            ({"jwkURIS": ["ftp://localhost/"]}, "jwkURIS[0]: not an absolute https URL; write"),
            ({"jwkURIS": ["login.example.com"]}, "jwkURIS[0]: not an absolute https URL; write"),
            (
                {"jwkURIS": ["file:///etc/jwks.json"]},
                "jwkURIS[0]: a JWK set cannot be read from a file; ",
            ),
            ({"jwkURIS": ["jwks.json"]}, "jwkURIS[0]: a JWK set cannot be read from a file; "),
            ({"jwkURIS": ["/etc/keys"]}, "jwkURIS[0]: a JWK set cannot be read from a file; "),
            ({"jwkURIS": ["./a b"]}, "jwkURIS[0]: a JWK set cannot be read from a file; "),
            ({"jwkURIS": ["~/x.jwks"]}, "jwkURIS[0]: a JWK set cannot be read from a file; "),
            ({"jwkURIS": ["https:///jwks"]}, "jwkURIS[0]: not an absolute https URL; write"),
            ({"jwkURIS": ["https://a b/"]}, "jwkURIS[0]: it holds a character that must be"),
            ({"jwkURIS": [f"https://a:{SECRET}/"]}, "jwkURIS[0]: malformed host or port; write"),
            ({"jwkURIS": [f"https://u:{SECRET}@a/"]}, "jwkURIS[0]: a user cannot be given here"),
            ({"jwtPublicKeys": [KEY, "!" + SECRET]}, "jwtPublicKeys[1]: base64 expected"),
            ({"jwtPublicKeys": [broken]}, "jwtPublicKeys[0]: base64 of a public key in DER"),
            ({"jwtPublicKeys": [p521]}, "jwtPublicKeys[0]: it must be an RSA, EC (P-256, P-384)"),
            ({"turnURIS": None}, "turnURIS: no URI is given; write at least one"),
            ({"turnURIS": []}, "turnURIS: no URI is given; write at least one"),
            ({"turnURIS": "turn:a"}, "turnURIS: expected a list, got a string; write a list of"),
            ({"turnURIS": ["turn:a", "turn://b"]}, "turnURIS[1]: 'turn://b' cannot be handed out"),
            ({"turnURIS": [f"turn:u:{SECRET}@b"]}, "turnURIS[0]: a user has no place in a URI"),
            ({"turnURIS": ["stun:a"]}, "turnURIS[0]: 'stun:a' is of another kind; move it to stun"),
            ({"stunURIS": ["turns:a"]}, "stunURIS[0]: 'turns:a' is of another kind; move it to tu"),
            ({"stunURIS": ["stun:a?transport=udp"]}, "stunURIS[0]: 'stun:a?transport=udp' cannot"),
        ):
            line = self.refusal(json.dumps(ENOUGH | members).encode())
            self.assertTrue(line.startswith(f"t.json: {start}"), f"{line} for {members}")

    def test_documents(self) -> None:
        """What is no JSON object is refused with the line, where there is one."""
        for text, expected in (
            (b"", "t.json: invalid JSON: it ends too early"),
            (b'{"ttl": 1', "t.json: invalid JSON: it ends too early"),
            (b'{"ttl": 1,\n "ttl"}', "t.json: line 2, column 7: invalid JSON: Expecting ':'"),
            (b"{\n\n// no\n}", "t.json: line 3, column 1: invalid JSON: Expecting"),
            (b'{"ttl":\n"\xff"}', "t.json: line 2: invalid JSON: not UTF-8"),
            (b"[" * 100_000, "t.json: invalid JSON: nested too deeply"),
            (b"[]", "t.json: not a JSON object; write one"),
            (b"null", "t.json: not a JSON object; write one"),
            (
                f'{{"secretKey": "{SECRET}\n"}}'.encode(),
                "t.json: line 1, column 37: invalid JSON: Invalid control",
            ),
            # Half of a surrogate pair, of which nothing is said before all else is right.
            (b'{"a":"\\ud83d",}', "t.json: line 1, column 1"),
            (b'{"a":"\\ud83d"', "t.json: invalid JSON: it ends too early"),
            (b'{"a":"\\ud83d"} x', "t.json: line 1, column 16: invalid JSON: Extra data"),
            (b'{"a": 1e999,\n"b" 1}', "t.json: line 2, column 5: invalid JSON: Expecting ':'"),
            (b'{"a": NaN}', "t.json: invalid JSON: NaN is no number"),
        ):
            line = self.refusal(text)
            self.assertTrue(line.startswith(expected), f"{line} for {text[:20]!r}")

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from([*ENOUGH, "jwkURIS", "jwkURLs", "stunURIS", "ttl", "allowedOrigin"])
            | st.text(max_size=5),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text(max_size=10),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=5), inner, max_size=3)
                ),
                max_leaves=6,
            ),
        )
    )
    def test_anything(self, members: dict[str, Any]) -> None:
        """Whatever the file holds, it loads or one line comes out."""
        text = json.dumps(ENOUGH | members, ensure_ascii=False).encode("utf-8", "surrogatepass")
        try:
            found, warnings = from_turnrest_json(text, "t.json")
        except ConfigError as error:
            self.assertTrue(str(error).isprintable(), f"not one clean line: {error!s}")
        else:
            self.assertTrue(found.turn_uris)
            self.assertTrue(all(warning.isprintable() for warning in warnings))


class ConfigTests(SettingsCase):
    """``[turn]`` is judged like a TurnRest file, under its own names."""

    def test_every_key(self) -> None:
        """What both files can say comes out the same, the rest as written."""
        turn = Turn(
            secret_keys=(SECRET, SECRET * 2, SECRET),
            ttl=60,
            turn_uris=("turn.example.com", "turns:b"),
            stun_uris=("a",),
            allowed_origin="https://A",
            forced_user="u",
            forced_password="p",
            required_scopes=("a",),
            scope_claims=("b",),
            jwk_urls=("https://a/",),
            public_keys=(KEY,),
            issuer="i",
            audience="a",
            access_keys=True,
            watch_servers=False,
            watch_interval=1.5,
            leeway=0,
        )
        expected = TurnSettings(
            secret_keys=(SECRET, SECRET * 2),
            ttl=60,
            turn_uris=("turn:turn.example.com", "turns:b"),
            stun_uris=("stun:a",),
            allowed_origins=("https://a",),
            forced_user="u",
            forced_password="p",
            required_scopes=("a",),
            scope_claims=("b",),
            jwk_urls=("https://a/",),
            public_keys=(KEY,),
            issuer="i",
            audience="a",
            access_keys=True,
            watch_servers=False,
            watch_interval=1.5,
            leeway=0,
        )
        self.assertEqual(from_config(turn, "odingw.toml"), (expected, []))
        found, (warning,) = from_config(msgspec.structs.replace(turn, ignore_jwt=True), "o.toml")
        self.assertIs(found.ignore_jwt, True)
        self.assertTrue(warning.startswith("o.toml: turn.ignore_jwt: TURN CREDENTIALS"), warning)

    def test_defaults_are_one(self) -> None:
        """Those of ``[turn]`` and of the settings."""
        turn = Turn(secret_keys=(SECRET,), turn_uris=("turn.example.com",), public_keys=(KEY,))
        self.assertEqual(from_config(turn), (LEAST, []))

    def test_wrong(self) -> None:
        """Keys are named as they are written."""
        for changes, start in (
            ({"secret_keys": ()}, "turn.secret_keys: missing; write"),
            ({"turn_uris": ()}, "turn.turn_uris: no URI is given; write at least one"),
            ({"turn_uris": ("a", "b/")}, "turn.turn_uris[1]: 'b/' cannot be handed out"),
            ({"stun_uris": ("turn:a",)}, "turn.stun_uris[0]: 'turn:a' is of another kind; move it"),
            ({"allowed_origin": "x"}, f"turn.allowed_origin: {NOBODY} not a scheme, a host in"),
            (
                {"allowed_origin": ("https://a", "https://*.b")},
                f"turn.allowed_origin[1]: {NOBODY} browsers know no patterns, only whole origins;",
            ),
            ({"allowed_origin": ""}, f"turn.allowed_origin: {NOBODY} not a scheme, a host in"),
            ({"allowed_origin": ("*", "https://a")}, 'turn.allowed_origin: "*" is all origins; r'),
            (
                {"forced_user": "é" * 255, "forced_password": "p"},
                "turn.forced_user: longer than the 508 bytes that browsers take; write a shorter",
            ),
            ({"jwk_urls": ("http://a/",)}, "turn.jwk_urls[0]: keys that come over http"),
            ({"public_keys": ("x",)}, "turn.public_keys[0]: base64"),
        ):
            turn = Turn(**{"secret_keys": (SECRET,), "turn_uris": ("a",)} | changes)
            error = self.assertRaises(ConfigError, from_config, turn, "odingw.toml")
            line = self.line(str(error))
            self.assertTrue(line.startswith(f"odingw.toml: {start}"), line)

    def test_repr(self) -> None:
        """Neither secrets nor the static password reach a log."""
        turn = Turn(secret_keys=(SECRET,), forced_password=SECRET, turn_uris=("a",), issuer="me")
        for shown in (repr(turn), repr(from_config(turn)[0])):
            self.assertIn("issuer='me'", self.line(shown))
            self.assertIn("secret_keys=…", shown)


class TurnFileTests(SettingsCase):
    """A file that is read again when it changes; what breaks it changes nothing."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "turnrest.json"
        self.changes = 0

    def write(self, **members: Any) -> None:
        self.write_text(json.dumps(ENOUGH | members))

    def write_text(self, text: str) -> None:
        self.path.write_text(text)
        # However coarse the clock of the file system is.
        self.changes += 1
        os.utime(self.path, (self.changes, self.changes))

    def broken(self, file: TurnFile) -> str:
        text = self.line(str(self.assertRaises(ConfigError, file.poll)))
        self.assertTrue(text.startswith(f"{self.path}: "), text)
        return text

    def test_load(self) -> None:
        """Every call reads it."""
        self.write()
        file = TurnFile(self.path)
        self.assertEqual(file.load(), LEAST)
        self.assertEqual(file.load(), LEAST)

    def test_poll(self) -> None:
        """Other settings are returned once; the same are not."""
        self.write()
        file = TurnFile(self.path)
        self.assertEqual(file.poll(), LEAST)
        self.assertIsNone(file.poll())
        self.write(ttl=60)
        self.assertEqual(file.poll(), msgspec.structs.replace(LEAST, ttl=60))
        self.assertIsNone(file.poll())
        self.write(ttl=60, comment="?")
        self.assertIsNone(file.poll())
        self.assertIn("comment", file.warnings[0])

    def test_replaced(self) -> None:
        """A rename puts another file in its place, perhaps one of the same time and size."""
        self.write(ttl=60)
        file = TurnFile(self.path)
        file.load()
        before = self.path.stat()
        other = self.path.with_suffix(".new")
        other.write_text(json.dumps(ENOUGH | {"ttl": 61}))
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.rename(self.path)
        self.assertEqual(file.poll(), msgspec.structs.replace(LEAST, ttl=61))

    def test_breaks_and_is_mended(self) -> None:
        """Each poll says what is wrong until it is mended, also to what it was."""
        self.write()
        file = TurnFile(self.path)
        file.load()
        self.write_text("{")
        self.assertIn("invalid JSON", self.broken(file))
        self.assertIn("invalid JSON", self.broken(file))
        self.write(turnURIS=[])
        self.assertIn("turnURIS: no URI is given", self.broken(file))
        self.path.unlink()
        self.assertIn("cannot read it: No such file or directory", self.broken(file))
        self.assertIn("cannot read it: No such file or directory", self.broken(file))
        self.write()
        self.assertIsNone(file.poll())
        self.write(ttl=60)
        self.assertEqual(file.poll(), msgspec.structs.replace(LEAST, ttl=60))

    def test_failed_load(self) -> None:
        """What a load could not use is tried again, even where nothing seems to have changed."""
        self.write()
        file = TurnFile(self.path)
        file.load()
        size = self.path.stat().st_size
        self.path.write_text("{" * size)
        os.utime(self.path, (self.changes, self.changes))
        self.assertIsNone(file.poll())
        self.assertRaises(ConfigError, file.load)
        self.assertIn("invalid JSON", self.broken(file))

    def test_missing(self) -> None:
        """One that was never there, and one that cannot be."""
        self.assertIn(
            "cannot read it: No such file or directory; name a file that odingw may read",
            self.broken(TurnFile(self.path)),
        )
        error = self.assertRaises(ConfigError, TurnFile(Path("a\0b")).load)
        self.assertIn(r"a\x00b: cannot read it: ", self.line(str(error)))

    def test_beside(self) -> None:
        """What the file cannot say comes from ``[turn]``."""
        self.write()
        file = TurnFile(self.path, Turn(config=self.path, leeway=0))
        self.assertEqual(file.load(), msgspec.structs.replace(LEAST, leeway=0))
