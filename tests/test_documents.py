"""Documents from elsewhere: every place of ``document_places`` keeps the rules."""

import json
import re
import tracemalloc
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import Config, Turn, load
from odingw.customers import directory
from odingw.customers.sources import decoded
from odingw.documents import MARK, is_absent, is_absent_json, lone_surrogate, whole
from odingw.errors import NOT_JSON, PARSE_ERROR, ConfigError, KeyMaterialError, TokenError
from odingw.rpc import jsonrpc
from odingw.rpc.client_api import CLIENT_API
from odingw.rpc.jsonrpc import Engine, Method, Reply
from odingw.rpc.server_methods import SERVER_API
from odingw.tokens import Claims, load_public_jwk, parse, verify
from odingw.tokens.claims import Policy, decode_claims
from odingw.turn.auth import TurnAuthenticator
from odingw.turn.keys import jwk_set
from odingw.turn.settings import from_config, from_turnrest_json
from tests.document_places import (
    ABSENT,
    BASE64,
    ENTRIES,
    ITEMS,
    NUMBERS,
    SECRET,
    SECRET_LINES,
    TEXTS,
    TURN,
    VALUES,
    ask,
    customer,
    in_file,
)
from tests.jwk_server import document, public_jwk, sign
from tests.jwk_shapes import SHAPES
from tests.turn_auth_case import CLAIMS, NOW, SETTINGS, AuthTestCase, Keys, raw_token, settings

PACKAGE = Path(__file__).parent.parent / "odingw"
EMPTY: Final[tuple[Any, ...]] = (None, "", [])
HALF = "half of a surrogate pair, which is no Unicode text"


class MarkTests(SynchronousTestCase):
    def test_it_is_skipped_everywhere(self) -> None:
        for place in TEXTS:
            self.assertEqual(place.read(MARK + place.text), place.read(place.text), place.name)

    def test_it_is_part_of_no_secret(self) -> None:
        """Not in the middle either, where two files were put together."""
        places = [place for place in TEXTS if place.name in SECRET_LINES]
        self.assertEqual(len(places), len(SECRET_LINES))
        for place in places:
            other = b64encode(bytes(32))
            good = place.read(place.text + b"\n" + other)
            marked = MARK + place.text + b"\r\n" + MARK + other + b"\r\n" + MARK
            self.assertEqual(place.read(marked), good, place.name)
        text = json.dumps(TURN | {"secretKey": f"\ufeff{TURN['secretKey']}"}).encode()
        found, _ = from_turnrest_json(text, "")
        self.assertEqual(found.secret_keys, (TURN["secretKey"],))

    def test_it_is_part_of_no_name_or_value(self) -> None:
        def marked(value: Any, mark: str) -> Any:
            if isinstance(value, str):
                return f"{mark}{value[:1]}{mark}{value[1:]}{mark}"
            if isinstance(value, list):
                return [marked(item, mark) for item in value]
            if isinstance(value, dict):
                return {f"{mark}{name}": marked(inner, mark) for name, inner in value.items()}
            return value

        for place in VALUES:
            good = place.read(json.dumps(place.value))
            for ascii_only in (True, False):
                text = json.dumps(marked(place.value, "\ufeff"), ensure_ascii=ascii_only)
                self.assertEqual(place.read(text), good, place.name)

    def test_it_is_no_part_of_toml_that_was_put_together(self) -> None:
        config = in_file(load)(b"[turn]\nttl = 5\n" + MARK + b"[admin]\nhosts = []\n")
        assert isinstance(config, Config)
        self.assertEqual(5, config.turn and config.turn.ttl)

    def test_others_that_nobody_sees(self) -> None:
        """They are no part of names; a password may be meant so."""
        for char in ("\u200b", "\u200e", "\u202a", "\u2066", "\u00ad", "\u2060"):
            code = f"U+{ord(char):04X}"
            for member in ("userClaim", "requiredJWTScope", "secretKey", "forcedPassword"):
                value: Any = f"{char}sub"
                members = {member: [value] if member == "requiredJWTScope" else value}
                _, warnings = from_turnrest_json(json.dumps(TURN | members).encode(), "")
                told = [text for text in warnings if f"it holds {code}, which nobody" in text]
                self.assertEqual(1, len(told), warnings)
                self.assertTrue(told[0].startswith(member), told)
            turn = Turn(secret_keys=(SECRET,), turn_uris=("turn:a",))
            for wrong in (
                replace(turn, user_claim=f"s{char}"),
                replace(turn, scope_claims=("scp", f"{char}scp")),
            ):
                error = self.assertRaises(ConfigError, from_config, wrong)
                self.assertIn(f"it holds {code}", str(error))
            from_config(replace(turn, forced_password=f"{char}password"))

    def test_many_marks_are_no_json(self) -> None:
        for count in (2, 5000):
            answer = self.assertRaises(ValueError, ask, count * MARK + b"{}").args[0]
            self.assertEqual(PARSE_ERROR, answer["error"]["code"])

    def test_a_mark_alone_is_no_secret(self) -> None:
        for place in TEXTS:
            if place.name in SECRET_LINES:
                self.assertRaises(ConfigError, place.read, MARK)
        text = json.dumps(TURN | {"secretKey": "\ufeff"}).encode()
        self.assertRaises(ConfigError, from_turnrest_json, text, "")


class NumberTests(AuthTestCase):
    def test_each_spelling(self) -> None:
        for place in NUMBERS:
            for text in ("5.0", "5.00", "5e0", "0.5e1", "50E-1"):
                self.assertEqual(place.read(text), place.read("5"), f"{place.name} {text}")

    def test_one_that_nobody_holds_is_the_affair_of_who_reads_it(self) -> None:
        authenticator = TurnAuthenticator(settings("Ed25519"))
        for text in ("1e999", "9" * 5000):
            claims = json.dumps(CLAIMS)[:-1].encode() + b', "x": %b}' % text.encode()
            token = raw_token({"alg": "EdDSA", "kid": "a"}, claims)
            self.assertEqual(CLAIMS["exp"], self.accepted(authenticator, token)["exp"])

    def test_what_is_not_whole(self) -> None:
        for place in NUMBERS:
            for text in ("5.5", "true"):
                try:
                    found = place.read(text)
                except (ConfigError, KeyError, StopIteration, ValueError):
                    continue
                self.fail(f"{place.name} takes {text} for {found}")

    def test_no_parameter_of_a_method_is_an_integer_alone(self) -> None:
        """So that every one of them takes 5.0."""
        for interface in (CLIENT_API, SERVER_API):
            for name, signature in interface.signatures.items():
                text = json.dumps(msgspec.json.schema(signature.params))
                # A union of both is fine; of the bytes of a message, for one.
                alone = re.sub(r'"anyOf": \[\{"type": "integer"[^]]*"number"[^]]*\]', "", text)
                self.assertNotIn('"integer"', alone, name)

    def test_times_of_tokens(self) -> None:
        for name in ("exp", "nbf"):
            claims = decode_claims(b'{"%b": 5.0}' % name.encode())
            self.assertEqual(getattr(claims, name), 5)

    @given(st.integers() | st.floats() | st.text() | st.booleans() | st.none())
    def test_whole(self, value: object) -> None:
        """It never changes what a value is equal to."""
        if value == value:  # not NaN
            self.assertEqual(whole(value), value)


class Base64Tests(SynchronousTestCase):
    def test_padding_may_be_there_or_not(self) -> None:
        padded = 0
        for place in BASE64:
            bare = place.text.rstrip(b"=")
            good = bare + b"=" * (-len(bare) % 4)
            self.assertEqual(place.read(good), place.read(bare), place.name)
            padded += good != bare
        self.assertGreater(padded, 10)

    def test_lines_may_end_in_it(self) -> None:
        for place in BASE64:
            if "master" not in place.name:
                cut = place.text[:7] + b"\r\n" + place.text[7:] + b"\n"
                self.assertEqual(place.read(cut), place.read(place.text), place.name)

    def test_more_of_it_is_refused(self) -> None:
        for place in BASE64:
            bare = place.text.rstrip(b"=")
            self.assertRaises(
                (ConfigError, KeyError, ValueError),
                place.read,
                bare + b"=" * (-len(bare) % 4 + 1),
            )

    def test_what_a_token_and_an_access_key_have_not(self) -> None:
        token = raw_token({"alg": "EdDSA", "kid": "a"}, CLAIMS)
        self.assertRaises(TokenError, parse, f"{token}==")


class AbsentTests(AuthTestCase):
    def test_what_says_nothing(self) -> None:
        for place in ABSENT:
            good = place.read({})
            for name in place.names:
                for value in EMPTY:
                    self.assertEqual(place.read({name: value}), good, f"{place.name} {name}")

    def test_items_that_say_nothing(self) -> None:
        def outcome(read: Callable[[object], object], value: object) -> object:
            try:
                return read(value)
            except (ConfigError, ValueError) as error:
                return str(error)

        for place in ITEMS:
            absent, good = outcome(place.read, None), outcome(place.read, [place.item])
            self.assertNotIsInstance(good, str)
            nothings: tuple[list[Any], ...] = ([""], [None], [[]], ["", None, []])
            for nothing in nothings:
                self.assertEqual(outcome(place.read, nothing), absent, place.name)
                self.assertEqual(outcome(place.read, [*nothing, place.item]), good, place.name)

    def test_errors_count_items_that_say_nothing(self) -> None:
        text = json.dumps(TURN | {"jwkURIS": ["", "https://a/", None, "x"]}).encode()
        error = self.assertRaises(ConfigError, from_turnrest_json, text, "t.json")
        self.assertIn("t.json: jwkURIS[3]: ", str(error))
        text = json.dumps(TURN | {"jwkURIS": [None, 5]}).encode()
        error = self.assertRaises(ConfigError, from_turnrest_json, text, "t.json")
        self.assertIn("t.json: jwkURIS[1]: ", str(error))

    def test_what_says_something(self) -> None:
        """The exceptions: an absent limit, no access keys, an empty list."""
        for member in ("maxPeers", "maxRooms"):
            self.assertEqual(len(directory([customer(**{member: None})]).customers), 1)
            for value in EMPTY[1:]:
                [problem] = directory([customer(**{member: value})]).problems
                self.assertIn(f"{member} is absent", problem)
        found = directory([customer(accessKeys=[])])
        self.assertEqual((list(found.customers), found.problems), (["acme"], ()))
        for value in EMPTY[:2]:
            self.assertEqual(directory([customer(accessKeys=value)]).customers, {})
        self.assertEqual(decoded(b"[]"), [])
        self.assertEqual(jwk_set(b'{"keys": []}', "").keys, ())
        self.assertRaises(KeyMaterialError, jwk_set, b'{"keys": null}', "")

    def test_white_space_in_it(self) -> None:
        for text in (b"[ \n]", b"null", b'""', b"[null]", b'[ "" , null,[ ] ]'):
            self.assertTrue(is_absent_json(msgspec.Raw(text)))
            self.assertTrue(is_absent(json.loads(text)))
        for text in (b'" "', b"{}", b"0", b"false", b"[[[]]]", b"[0]", b'["", "x"]'):
            self.assertFalse(is_absent_json(msgspec.Raw(text)))
            self.assertFalse(is_absent(json.loads(text)))

    def test_a_private_key_is_one(self) -> None:
        values: tuple[Any, ...] = ("AQAB", 5, {}, ["x"])
        for value in values:
            for more in ({}, {"use": "enc"}, {"n": 5}):
                found = jwk_set(document([public_jwk("RSA", d=value, **more)]), "a set")
                self.assertIn("it holds a private key", found.problems[0])

    def test_headers_of_tokens(self) -> None:
        authenticator = TurnAuthenticator(settings("Ed25519"))
        for value in EMPTY:
            for name in ("kid", "b64", "typ", "jku"):
                token = raw_token({"alg": "EdDSA", name: value}, CLAIMS)
                self.assertEqual(self.accepted(authenticator, token), CLAIMS)
            crit = raw_token({"alg": "EdDSA", "kid": "a", "crit": value}, CLAIMS)
            self.assertRaises(TokenError, authenticator.authenticate, crit, NOW)
            self.assertRaises(TokenError, parse, crit)
            # Tokens of access keys, whose key id is needed, are judged as recorded.
            crv = raw_token({"alg": "EdDSA", "kid": "a", "crv": value}, CLAIMS)
            self.assertRaises(TokenError, parse, crv)

    def test_claims_and_parameters_stay_strict(self) -> None:
        for field in msgspec.structs.fields(Claims):
            self.assertRaises(TokenError, decode_claims, b'{"%b": null}' % field.name.encode())
        method: Method[None] = Method(
            CLIENT_API.signatures["RoomClose"].params, lambda *_: "closed"
        )
        engine: Engine[None] = Engine({"close": method}, 1, lambda *_: None, lambda *_: None)
        params = {"room_id": "room", "ban_time": None}
        call = {"jsonrpc": "2.0", "id": 1, "method": "close", "params": params}
        reply = engine.handle(json.dumps(call).encode(), None)
        assert isinstance(reply, Reply)
        self.assertIn(b"Invalid params", reply.body or b"")


class ShapeTests(AuthTestCase):
    """Sets as issuers write them."""

    def test_each_is_taken_without_a_word(self) -> None:
        for name, shape in SHAPES.items():
            for mark in (b"", MARK):
                found = jwk_set(mark + document(shape()), name)
                self.assertEqual(found.problems, (), name)
                self.assertEqual([key.kid for key in found.keys][:2], ["rsa", "ec"], name)
            authenticator = TurnAuthenticator(SETTINGS, [Keys(*shape())])
            self.accepted(authenticator, sign(CLAIMS, "RS256", kid="rsa"))
            self.accepted(authenticator, sign(CLAIMS, "ES256", kid="ec"))

    def test_both_names_of_an_algorithm(self) -> None:
        """RFC 9864 has a name of its own for EdDSA with Ed25519."""
        names = ("EdDSA", "Ed25519")
        for of_key in (*names, None):
            keys = Keys(public_jwk("Ed25519", kid="a", alg=of_key))
            authenticator = TurnAuthenticator(SETTINGS, [keys])
            for of_token in names:
                self.accepted(authenticator, raw_token({"alg": of_token, "kid": "a"}, CLAIMS))
        claims = {"rid": "room", "uid": "alice", "exp": NOW + 60}
        key = load_public_jwk({**public_jwk("Ed25519"), "kid": "a"})
        for of_token in names:
            token = raw_token({"alg": of_token, "kid": "a"}, claims)
            verify(token, {"a": key}.get, now=NOW, policy=Policy())

    def test_keys_for_something_else(self) -> None:
        for members in (
            {"use": "enc"},
            {"key_ops": ["encrypt", "wrapKey"]},
            {"alg": "RSA-OAEP-256"},
            {"alg": "RSA1_5"},
            {"alg": "ECDH-ES+A256KW"},
            {"alg": "A256GCMKW"},
        ):
            others: tuple[Any, ...] = ({}, {"n": 5}, {"e": None}, {"kty": "oct"}, {"kid": [1]})
            # Whatever else is wrong with it.
            for wrong in others:
                found = jwk_set(document([public_jwk("RSA", **members, **wrong)]), "a set")
                self.assertEqual((found.keys, found.problems), ((), ()), (members, wrong))

    def test_curves_without_signatures(self) -> None:
        for curve in ("X25519", "X448"):
            found = jwk_set(document([public_jwk("Ed25519", crv=curve)]), "a set")
            self.assertEqual((found.keys, found.problems), ((), ()), curve)

    def test_a_key_for_signatures_that_nobody_can_verify_with(self) -> None:
        for members, why in (
            ({"key_ops": ["sign"]}, 'its key_ops must be ["verify"]'),
            ({"key_ops": [["verify"]]}, "a JSON object expected"),
            ({"use": "SIG"}, 'its use must be "sig"'),
            ({"use": "signature"}, 'its use must be "sig"'),
        ):
            found = jwk_set(document([public_jwk("RSA", **members)]), "a set")
            self.assertIn(why, found.problems[0])


def _moved(to: list[object], entries: list[object]) -> list[object]:
    to.extend(entries)
    return []


def _told(answer: dict[str, Any]) -> tuple[int, str]:
    error = answer["error"]
    return error["code"], error["data"]["detail"]


class SurrogateTests(SynchronousTestCase):
    def wrong(self, body: bytes) -> tuple[Any, Any]:
        error: Any = self.assertRaises(ValueError, ask, body)
        [found] = error.args
        return found["id"], found["error"]["data"]["detail"]

    def test_requests(self) -> None:
        for half in ("\\ud83d", "\\udc00", "x\\ud83dx", "\\ud83d\\ud83d"):
            body = '{"jsonrpc":"2.0","id":%s,"method":"hello","params":{"a":[1,{"message":"%s"}]}}'
            for call_id, expected in ((7, 7), ('"seven"', "seven"), ("7.0", 7)):
                got = self.wrong((body % (call_id, half)).encode())
                self.assertEqual(got, (expected, f"a[1].message: {HALF}"))
            method = f'{{"jsonrpc":"2.0","id":7,"method":"{half}"}}'
            self.assertEqual(self.wrong(method.encode()), (7, f"method: {HALF}"))
            call_id = f'{{"jsonrpc":"2.0","id":"{half}","method":"hello"}}'
            self.assertEqual(self.wrong(call_id.encode()), (None, f"id: {HALF}"))
            batch = f'[{{"jsonrpc":"2.0","id":7,"method":"hello","params":{{"a":"{half}"}}}}]'
            [answer] = ask(batch.encode())
            self.assertEqual((7, (-32602, f"a: {HALF}")), (answer["id"], _told(answer)))

    def test_whole_pairs(self) -> None:
        body = b'{"jsonrpc":"2.0","id":7,"method":"hello","params":{"a":"\\ud83d\\ude00"}}'
        self.assertEqual(ask(body)["result"], "hi")
        self.assertIsNone(lone_surrogate(body))
        self.assertIsNone(lone_surrogate(b'{"a": "\\\\ud83d"}'))
        self.assertIsNone(lone_surrogate(b'{"a": "\\ud83d"'))

    def test_documents(self) -> None:
        text = json.dumps(TURN | {"forcedUser": "\ud83d"}).encode()
        error = self.assertRaises(ConfigError, from_turnrest_json, text, "t.json")
        self.assertEqual(str(error), f"t.json: forcedUser: {HALF}; write the whole character")

    def test_one_entry_of_a_list(self) -> None:
        """It is left out, and the others count."""
        for member, value, path in (
            ("alg", "\ud83d", "alg"),
            ("use", "a\udc00b", "use"),
            ("name", {"a": ["\ud83d"]}, "name.a[0]"),
        ):
            for place in ENTRIES[::2]:
                found, [problem] = place.read({member: value})
                self.assertEqual(found, ["good"], place.name)
                where = f"publicKey.{path}" if place.name == "access keys" else path
                self.assertEqual(problem, f"{place.bad} is skipped: {where}: {HALF}")
        found, [problem] = ENTRIES[0].read({"kid": "\ud83d"})
        self.assertEqual(found, ["good"])
        self.assertEqual(problem, f"key 1 ('\\ud83d') of a set is skipped: kid: {HALF}")

    def test_one_customer_of_a_list(self) -> None:
        data = json.dumps([customer(), customer(id="\udc00")]).encode()
        found = directory(decoded(data))
        self.assertEqual(list(found.customers), ["acme"])
        self.assertEqual(found.problems, (f"customer '\\udc00' is refused: id: {HALF}",))
        found = directory(decoded(json.dumps([customer(maxPeers="\udc00"), customer()]).encode()))
        self.assertEqual(list(found.customers), ["acme"])
        self.assertIn("maxPeers must be a whole number", found.problems[0])

    def test_a_customer_that_holds_itself(self) -> None:
        """A function that makes customers may return what no document can be."""
        odd = customer(object=object(), numbers=(1, float("nan")), name="x")
        odd["self"] = [odd]
        self.assertEqual(list(directory([odd]).customers), ["acme"])
        [problem] = directory([{**odd, "name": ("\ud83d",)}]).problems
        self.assertEqual(problem, f"customer 'acme' is taken without its name[0]: {HALF}")

    def test_what_is_ignored_costs_nobody_anything(self) -> None:
        """A name that was cut in the middle of a character, for one."""
        found, problems = ENTRIES[1].read({"name": "Bad \ud83d"})
        self.assertEqual(found, ["bad", "good"])
        self.assertEqual(problems, (f"customer 'bad' is taken without its name: {HALF}",))
        data = json.dumps({"keys": [public_jwk("RSA")], "name": "\ud83d"}).encode()
        self.assertEqual(len(jwk_set(data, "a set").keys), 1)
        found, warnings = from_turnrest_json(json.dumps(TURN | {"x": "\ud83d"}).encode(), "")
        self.assertEqual(found.turn_uris, ("turn:turn.test",))
        self.assertIn("x: unknown, and thus ignored", warnings[0])

    def test_beside_a_number_that_nobody_holds(self) -> None:
        for number in (b"9" * 5000, b"1e999"):
            body = b'{"jsonrpc":"2.0","id":7,"x":%b,"method":"\\ud83d"}' % number
            answer = self.assertRaises(ValueError, ask, body).args[0]
            self.assertEqual(7, answer["id"])
            self.assertEqual({"detail": f"method: {HALF}"}, answer["error"]["data"])

    def test_one_call_of_a_batch(self) -> None:
        answers = ask(
            b'[{"jsonrpc":"2.0","id":7,"method":"hello","params":{"a":"\\ud83d"}},'
            b'{"jsonrpc":"2.0","id":8,"method":"hello"},'
            b'{"jsonrpc":"2.0","id":"\\ud83d","method":"hello"}]'
        )
        self.assertEqual([7, 8, None], [answer["id"] for answer in answers])
        self.assertEqual((-32602, f"a: {HALF}"), _told(answers[0]))
        self.assertEqual("hi", answers[1]["result"])
        self.assertEqual((-32600, f"id: {HALF}"), _told(answers[2]))

    def test_a_batch_beside_a_number_that_nobody_holds(self) -> None:
        answers = ask(
            b'[{"jsonrpc":"2.0","id":7,"method":"hello","params":{"a":-1e400}},'
            b'{"jsonrpc":"2.0","id":8,"method":"hello","params":"\\ud83d"}]'
        )
        self.assertEqual([7, 8], [answer["id"] for answer in answers])

    def test_a_batch_is_bounded_before_it_is_written_anew(self) -> None:
        written: list[object] = []
        self.patch(jsonrpc, "in_ascii", partial(_moved, written))
        self.assertRaises(ValueError, ask, b"[" + b"1," * 20_000 + b'"\\ud83d"]')
        self.assertIn(len(written), range(1, 100))

    def test_the_way_to_it_is_bounded(self) -> None:
        """Whoever is hostile chooses long names above long lists."""
        data = b'{"' + b"k" * 30_000 + b'":[' + b"0," * 30_000 + b'"\\ud800"]}'
        tracemalloc.start()
        found = lone_surrogate(data)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found is not None
        self.assertEqual("k" * 80, found.member)
        self.assertLess(most, 20 * len(data))

    def test_a_member_that_begins_alike(self) -> None:
        body = b'{"jsonrpc":"2.0","id":7,"method":"hello","paramsx":"\\ud83d"}'
        answer = self.assertRaises(ValueError, ask, body).args[0]
        self.assertEqual((7, -32600), (answer["id"], answer["error"]["code"]))

    def test_tokens(self) -> None:
        for header, claims, member in (
            ({"alg": "EdDSA", "kid": "\ud83d"}, CLAIMS, "kid"),
            ({"alg": "EdDSA", "kid": "a"}, {**CLAIMS, "uid": "\ud83d"}, "uid"),
        ):
            token = raw_token(header, claims)
            authenticator = TurnAuthenticator(settings("Ed25519"))
            error = self.assertRaises(TokenError, authenticator.authenticate, token, NOW)
            self.assertEqual(error.detail, f"{member}: {HALF}")
        error = self.assertRaises(TokenError, decode_claims, b'{"uid": "\\ud83d"}')
        self.assertEqual(error.detail, f"uid: {HALF}")

    @given(
        st.recursive(
            st.text(st.characters()) | st.none(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
        )
    )
    def test_any_text(self, value: object) -> None:
        """It is named where msgspec cannot read it, and only there."""
        data = json.dumps(value).encode()
        try:
            msgspec.json.decode(data)
            good = True
        except NOT_JSON:
            good = False
        self.assertEqual(lone_surrogate(data) is None, good)


class ReaderTests(SynchronousTestCase):
    """The tables name every place; whoever adds a reader adds it there."""

    READING: Final = re.compile(
        r"json\.loads\(|json\.decode\(|tomllib\.loads?\(|b64decode\(|\.read_text\(|\.read_bytes\("
        r"|base64url\.decode\w*\(|json import .*Decoder|json\.Decoder\("
    )
    OWN: Final = ("state/", "sim/", "grid/")
    """What odingw or its simulator has written itself."""
    KNOWN: Final = {
        "cli/calls.py": "parameters of a call, and the file that has them",
        "cli/keys.py": "claims, which are shown as they are",
        "cli/state.py": "the state of a gateway",
        "cli/turn_test.py": "credentials of a gateway",
        "client/http.py": "certificates, which OpenSSL finds behind a mark",
        "client/wire.py": "TEXTS",
        "config/load.py": "TEXTS, by read_secret",
        "documents.py": "the rules themselves",
        "rpc/grid_config.py": "TEXTS",
        "rpc/jsonrpc.py": "TEXTS",
        "rpc/report_rooms.py": "a part of a request",
        "rpc/toml_edit.py": "a part of GridConfig's text",
        "secret_files.py": "the kernel's files",
        "tokens/base64url.py": "the rule itself",
        "tokens/claims.py": "claims, which stay strict",
        "tokens/jws.py": "headers, see AbsentTests",
        "tokens/keys.py": "ids and access keys, which have no padding; BASE64",
        "tokens/derived.py": "BASE64",
        "tokens/other_forms.py": "what is refused",
        "turn/auth.py": "headers, see AbsentTests; claims, which stay strict",
        "turn/keys.py": "TEXTS, BASE64, ABSENT",
        "web/clients.py": "files of the package",
        "web/guard.py": "a password, which is no document",
        "web/monitor_pages.py": "what the status page sends; files of the package",
    }

    def test_no_reader_is_missing(self) -> None:
        found = {
            name
            for path in PACKAGE.rglob("*.py")
            if not (name := path.relative_to(PACKAGE).as_posix()).startswith(self.OWN)
            and self.READING.search(path.read_text("utf-8"))
        }
        self.assertEqual(found, self.KNOWN.keys())
