"""Tests for `odingw.rpc.grid_config` and the TOML text that it extends."""

import json
import math
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import INVALID_PARAMS, RpcError
from odingw.rpc.grid_config import extend, recommended
from odingw.rpc.toml_edit import render
from odingw.rpc.toml_outline import MAX_DEPTH, MOST_TOKENS
from tests.examples import examples
from tests.toml_documents import documents

DATA = Path(__file__).parent / "data"
JWK = {"kid": "Ag7k", "kty": "OKP", "crv": "Ed25519", "x": "eHg", "d": "ZGQ"}
JWK_TOML = '{kid = "Ag7k", kty = "OKP", crv = "Ed25519", x = "eHg", d = "ZGQ"}'
SETTINGS = recommended(5, "0.0.0.0/0", {})


def merged(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Wire reference, section 7, in a few lines of its own."""
    result = dict(theirs)
    for key, value in ours.items():
        if key not in theirs:
            result[key] = value
        elif isinstance(value, dict) and isinstance(theirs[key], dict):
            result[key] = merged(theirs[key], value)
        elif isinstance(value, list) and isinstance(theirs[key], list):
            result[key] = [*theirs[key], *value]
    return result


def typed(value: object) -> object:
    """A form in which only values of the same type and value are equal, NaN with itself too."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return f"{type(value).__name__} {hex(value) if isinstance(value, int) else value!r}"


def from_toml(value: object) -> object:
    """As in the recordings: what JSON lacks is written {"$toml": text}."""
    if isinstance(value, dict):
        return {key: from_toml(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_toml(item) for item in value]
    if isinstance(value, float):
        return {"$toml": repr(value)}
    if isinstance(value, str | int | bool):
        return value
    return {"$toml": value.isoformat()}  # type: ignore[attr-defined]  # a date or a time is left


def is_kept(text: str, result: str) -> bool:
    """Nothing of the text was lost, changed or moved: things were only put between."""
    rest = iter(result)
    return all(character in rest for character in text)


class RecommendedTests(SynchronousTestCase):
    def test_is_the_table_of_the_wire_reference(self) -> None:
        self.assertEqual(
            recommended(5, "10.0.0.0/8", {}),
            {
                "supervisor": {"report_interval": 5000},
                "quic": {
                    "keep_alive_interval": 5000,
                    "idle_timeout": 30000,
                    "pre_send_timeout": 500,
                    "migration": True,
                },
                "http": {"timeout": 10000, "ping_interval": 5000},
                "metrics": {
                    "binding": "0.0.0.0:9000",
                    "idle_timeout": 3600000,
                    "global_labels": {"deployment": "public"},
                    "allowed": ["10.0.0.0/8", "127.0.0.1/8", "::1/128"],
                },
                "limit": {
                    "peer": {"incoming_messages": {"rate": 10, "capacity": 50, "overflow": 20}}
                },
            },
        )

    def test_the_interval_is_whole_milliseconds(self) -> None:
        for seconds, milliseconds in ((5, 5000), (0.5, 500), (1.001, 1001), (2.3, 2300)):
            supervisor: Any = recommended(seconds, "", {})["supervisor"]
            self.assertEqual(supervisor, {"report_interval": milliseconds})
            self.assertIs(type(supervisor["report_interval"]), int)

    def test_overrides_win_merge_and_replace(self) -> None:
        overrides = {
            "metrics": {"allowed": ["::/0"], "global_labels": {"region": "eu"}},
            "http": "off",
            "log": {"verbosity": 2},
        }
        before = deepcopy(overrides)
        result: Any = recommended(5, "0.0.0.0/0", overrides)
        self.assertEqual(result["metrics"]["allowed"], ["::/0"])
        self.assertEqual(
            result["metrics"]["global_labels"], {"deployment": "public", "region": "eu"}
        )
        self.assertEqual(result["metrics"]["binding"], "0.0.0.0:9000")
        self.assertEqual(result["http"], "off")
        self.assertEqual(result["log"], {"verbosity": 2})
        self.assertEqual(overrides, before)


class RecordedTests(SynchronousTestCase):
    """The recorded exchanges that get as far as the TOML."""

    def test_recordings(self) -> None:
        derived = json.loads((DATA / "derived_keys.json").read_text("utf-8"))["keys"]
        keys = {key["identifier"]: key["jwk"] for key in derived}
        compared = refused = 0
        for line in (DATA / "grid_config.jsonl").read_text("utf-8").splitlines():
            scenario = json.loads(line)
            [step] = scenario["steps"]
            params = json.loads(step["send"]["body"])["params"]
            answer = step["expect"]["answer"]
            if "toml" in answer:
                address = params["public_endpoint"]
                want = answer["toml"]
                key = keys.get(address) or want["authorization"]["keys"][-1]
                got = from_toml(tomllib.loads(extend(params["config"], SETTINGS, key)))
                self.assertEqual(got, want, scenario["name"])
                compared += 1
            elif "invalid_toml" in scenario["name"]:
                error = self.assertRaises(RpcError, extend, params["config"], SETTINGS, JWK)
                self.assertEqual(error.code, answer["error"]["code"], scenario["name"])
                refused += 1
        self.assertEqual((compared, refused), (31, 2))


class StyleTests(SynchronousTestCase):
    """Every way to write a table or an array is extended in that way."""

    def check(self, text: str, expected: str, **ours: object) -> None:
        ours = ours or {
            "quic": {"migration": True},
            "metrics": {"allowed": ["::1"], "labels": {"a": 1}},
        }
        got = extend(text, ours, JWK)
        self.assertEqual(got, expected)
        ours = {**ours, "authorization": {"keys": [JWK]}}
        self.assertEqual(tomllib.loads(got), merged(tomllib.loads(text), ours))

    def test_nothing_there(self) -> None:
        added = (
            '[quic]\nmigration = true\n\n[metrics]\nallowed = ["::1"]\n\n[metrics.labels]\na = 1\n'
            f"\n[authorization]\nkeys = [{JWK_TOML}]\n"
        )
        self.check("", added)
        self.check("# c\n", f"# c\n\n{added}")
        self.check("# c", f"# c\n\n{added}")
        self.check("x = 1", f"x = 1\n\n{added}")
        self.check("\n\n  \n", f"\n\n  \n\n{added}")
        self.check("[a] # c", f"[a] # c\n\n{added}")

    def test_headers(self) -> None:
        self.check(
            "# top\n[quic]\n  binding = 1 # b\n\n# next\n[authorization]\nkeys = [] # none\n",
            "# top\n[quic]\n  binding = 1 # b\n  migration = true\n\n# next\n"
            f"[authorization]\nkeys = [{JWK_TOML}] # none\n",
            quic={"migration": True},
        )

    def test_an_empty_table(self) -> None:
        self.check(
            "[quic]\n[authorization] # none",
            f"[quic]\nmigration = true\n[authorization] # none\nkeys = [{JWK_TOML}]\n",
            quic={"migration": True},
        )

    def test_a_table_that_only_its_sub_table_implies(self) -> None:
        self.check(
            "[quic.sub]\nx = 1\n[authorization.sub]\n",
            "[quic.sub]\nx = 1\n[authorization.sub]\n\n"
            f"[quic]\nmigration = true\n\n[authorization]\nkeys = [{JWK_TOML}]\n",
            quic={"migration": True},
        )

    def test_a_table_below_its_sub_table(self) -> None:
        self.check(
            "[quic.sub]\nx = 1\n[quic]\n[authorization]\nkeys = 1",
            "[quic.sub]\nx = 1\n[quic]\nmigration = true\n[authorization]\nkeys = 1",
            quic={"migration": True},
        )

    def test_dotted_keys(self) -> None:
        self.check(
            'quic.binding = 1\n"authorization" . x = 2\n[end]\n',
            'quic.binding = 1\n"authorization" . x = 2\n'
            f"quic.migration = true\nauthorization.keys = [{JWK_TOML}]\n[end]\n",
            quic={"migration": True},
        )

    def test_dotted_keys_below_a_header(self) -> None:
        self.check(
            "authorization = 1\n[limit]\npeer.medias = 3\n",
            "authorization = 1\n[limit]\npeer.medias = 3\n"
            'peer.messages = {rate = 10, "a.b" = []}\n',
            limit={"peer": {"messages": {"rate": 10, "a.b": []}}},
        )

    def test_a_dotted_key_opens_what_a_header_implied(self) -> None:
        self.check(
            "[a.b.c]\n[a]\nb.x = 1\n[authorization]\nkeys = 1\n",
            "[a.b.c]\n[a]\nb.x = 1\nb.y = 2\n[authorization]\nkeys = 1\n",
            a={"b": {"y": 2}},
        )

    def test_inline_tables(self) -> None:
        self.check(
            "quic = {a = 1}\nmetrics = { labels.b = 2, allowed = [ ] }\nauthorization = { }",
            "quic = {a = 1, migration = true}\n"
            'metrics = { labels.b = 2, allowed = [ "::1" ], labels.a = 1 }\n'
            f"authorization = {{ keys = [{JWK_TOML}] }}",
        )

    def test_arrays_on_one_line(self) -> None:
        for before, after in (
            ("[]", '["::1"]'),
            ("[ ]", '[ "::1" ]'),
            ("[1]", '[1, "::1"]'),
            ("[ 1 ]", '[ 1, "::1" ]'),
            ("[1,]", '[1, "::1",]'),
            ("[1, ] # c", '[1, "::1", ] # c'),
            ('[[], ["]"]]', '[[], ["]"], "::1"]'),
            ('["""\n]"""]', '["""\n]""", "::1"]'),
        ):
            text = "authorization = 1\nmetrics.allowed = "
            self.check(text + before, text + after, metrics={"allowed": ["::1"]})

    def test_nothing_to_add(self) -> None:
        text = "authorization = 1\nmetrics.allowed = [1]\n[quic]\n[log.sub]\n"
        self.check(text, text, metrics={"allowed": []}, quic={}, log={})

    def test_arrays_on_many_lines(self) -> None:
        for before, after in (
            ("[\n]", '[\n  "a",\n  "b"\n]'),
            ("[ # none\n]", '[ # none\n  "a",\n  "b"\n]'),
            ("[\n    1\n]", '[\n    1,\n    "a",\n    "b"\n]'),
            ("[\n\t1 # c\n\t# d\n]", '[\n\t1, # c\n\t# d\n\t"a",\n\t"b"\n]'),
            ("[\n  1, # c\n  ]", '[\n  1, # c\n  "a",\n  "b",\n  ]'),
            ("[\n  1\n  , # c\n]", '[\n  1\n  , # c\n  "a",\n  "b",\n]'),
            ("[\n  1\n  ,]", '[\n  1\n  , "a", "b",]'),
            ("[1, # c\n 2]", '[1, # c\n 2, "a", "b"]'),
        ):
            text = "authorization = 1\nmetrics.allowed = "
            self.check(text + before, text + after, metrics={"allowed": ["a", "b"]})

    def test_arrays_of_tables(self) -> None:
        self.check(
            '[[authorization.keys]]\nkid = "a"\n[authorization.keys.more]\n[[authorization.keys]]\n'
            "[quic]\n",
            '[[authorization.keys]]\nkid = "a"\n[authorization.keys.more]\n[[authorization.keys]]\n'
            "[quic]\nmigration = true\n\n"
            '[[authorization.keys]]\nkid = "Ag7k"\nkty = "OKP"\ncrv = "Ed25519"\nx = "eHg"\n'
            'd = "ZGQ"\n',
            quic={"migration": True},
        )

    def test_a_table_in_an_array_of_tables_is_not_the_one_of_that_name(self) -> None:
        text = "[[a]]\n[a.quic]\nx = 1\n[[a.quic.y]]\n"
        got = tomllib.loads(extend(text, {"a": {"quic": {"z": 1}}}, JWK))
        self.assertEqual(got["a"], [{"quic": {"x": 1, "y": [{}]}}])

    def test_keys_in_other_spellings(self) -> None:
        self.check(
            'authorization = 1\n"qu\\u0069c" = {}\n[\'metrics\']\n"allowed" = []\n',
            'authorization = 1\n"qu\\u0069c" = {migration = true}\n'
            '[\'metrics\']\n"allowed" = ["::1"]\nlabels = {a = 1}\n',
        )

    def test_values_at_the_root(self) -> None:
        self.check(
            "# c\n[authorization]\nkeys = 1",
            "level = 3\n# c\n[authorization]\nkeys = 1",
            level=3,
        )
        self.check(
            "authorization = 1 # c\n\n# d\n[x]\n",
            "authorization = 1 # c\nlevel = 3\n\n# d\n[x]\n",
            level=3,
        )

    def test_line_ends(self) -> None:
        self.check(
            "x = 1\r\n[authorization]\r\nkeys = [\r\n  # none\r\n]",
            "x = 1\r\n[authorization]\r\nkeys = [\r\n  # none\r\n"
            f"  {JWK_TOML}\r\n]\r\n\r\n[quic]\r\nmigration = true\r\n",
            quic={"migration": True},
        )

    def test_what_has_no_place_is_written_anew(self) -> None:
        text = "# lost\nx = 0x10\n[[metrics.allowed]]\ny = 1\n[authorization]\nkeys = 1\n"
        self.check(
            text,
            'x = 16\n\n[metrics]\nallowed = [{y = 1}, "::1"]\n\n[authorization]\nkeys = 1\n',
            metrics={"allowed": ["::1"]},
        )


class ValueTests(SynchronousTestCase):
    def test_no_value_of_the_caller_changes(self) -> None:
        text = (
            "hex = 0xDEAD_BEEF\noct = 0o755\nbin = 0b1\nbig = 123456789012345678901234567890\n"
            "exp = 1E+3\nzero = -0.0\nnan = -nan\ninf = +inf\nwhole = 2.0\n"
            "at = 1979-05-27 07:32:00.5-07:00\nday = 1979-05-27\ntime = 07:32:00\n"
            's = "\\u00fc\\"#"\nraw = \'C:\\x\'\nlines = """\\\n  a\n  # b\n"""\n'
        )
        got = extend(text, SETTINGS, JWK)
        self.assertTrue(got.startswith(text), got)
        self.assertTrue(math.isnan(tomllib.loads(got)["nan"]))

    def test_the_settings_and_the_key_are_not_changed(self) -> None:
        ours, key = deepcopy(SETTINGS), dict(JWK)
        text = "metrics.allowed = [1]\nauthorization.keys = [{}]\n"
        self.assertEqual(extend(text, ours, key), extend(text, ours, key))
        self.assertEqual((ours, key), (SETTINGS, JWK))

    def test_the_key_follows_keys_of_the_settings(self) -> None:
        ours = {"authorization": {"keys": [{"kid": "b"}]}}
        got = tomllib.loads(extend('authorization.keys = [{kid = "a"}]', ours, JWK))
        self.assertEqual(got["authorization"]["keys"], [{"kid": "a"}, {"kid": "b"}, JWK])

    def test_a_value_in_the_way_of_the_key_stays(self) -> None:
        for text in ("authorization = 1\n", "authorization = []\n", "authorization.keys = {}\n"):
            self.assertEqual(extend(text, {}, JWK), text)

    def test_rendered_values_come_back(self) -> None:
        values = {
            "text": 'a"b\\c\n\t\x00\x1f\x7f\x80\u2028é😀',
            "": {"a b": {}, "'\"\n": [[], {}, {"x": [True, 1.5]}]},
            "huge": int("9" * 4000),
            "long": 16**5000,
            "small": -(2**63),
            "floats": [1e300, 1e-07, math.inf, -math.inf, -0.0, math.nan],
            **tomllib.loads("a = 1979-05-27T07:32:00.000001Z\nb = 0001-01-01\nc = 23:59:59"),
        }
        self.assertEqual(typed(tomllib.loads(render(values))), typed(values))

    def test_what_toml_lacks_is_refused(self) -> None:
        self.assertRaises(TypeError, render, {"x": None})


class RefusedTests(SynchronousTestCase):
    def detail(self, text: str) -> str:
        error = self.assertRaises(RpcError, extend, text, SETTINGS, JWK)
        self.assertEqual((error.code, error.message), (INVALID_PARAMS, "Invalid params"))
        assert error.data is not None
        detail = error.data["detail"]
        assert isinstance(detail, str)
        self.assertTrue(detail.startswith("config: "), detail)
        self.assertLess(len(detail), 300)
        self.assertEqual(detail.splitlines(), [detail])
        return detail

    def test_invalid_toml_is_located(self) -> None:
        for text, position in (
            ("x = = 1", "(at line 1, column 5)"),
            ("x = 1\r\nx = 2\r\n", "(at line 2, column 6)"),
            ("[a\nb", "(at line 1, column 3)"),
            ("[a]\n[a]\n", "(at line 2, column 3)"),
            ("a = {b = 1}\na.c = 2\n", "(at line 2, column 8)"),
            ("a = []\n[[a]]\n", "(at line 2, column 4)"),
            ('x = """\n', "(at end of document)"),
            ("x = [", "(at end of document)"),
            ("\ufeffx = 1 1", "(at line 1, column 7)"),
            ("x = 1\rx = 2", "(at line 1, column 6)"),
            ("x = 2020-02-30\n", "(at line 1, column 5)"),
            ('x = "\\ud800"', "(at line 1, column"),
            ("ok = 1\nx = '\ud800'", "(at line 2, column 6)"),
            (f"{'k' * 5000} = 1\n[{'k' * 5000}]\n", "(at line 2, column 5002)"),
            (f"[{'k' * 5000}]\n[{'k' * 5000}]\n", "(at line 2, column 5002)"),
        ):
            detail = self.detail(text)
            self.assertIn(position, detail, repr(text[:50]))

    def test_an_integer_of_many_digits(self) -> None:
        self.assertEqual(self.detail("x = " + "1" * 5000), "config: an integer has too many digits")

    def test_deep_nesting(self) -> None:
        bombs = {
            "arrays": "x = " + "[" * 10_000,
            "closed arrays": "x = " + "[" * 10_000 + "]" * 10_000,
            "inline tables": "x = " + "{a=" * 10_000,
            "mixed": "x = " + "[{a = " * 10_000,
            "dots": "a" + ".a" * 32_000 + " = 1",
            "header": "[a" + ".a" * 32_000 + "]",
            "array of tables": "[[a" + ".a" * 32_000 + "]]",
            "header and key": "[a" + ".a" * 40 + "]\nb" + ".b" * 40 + " = 1",
            "dots in tables": "x = " + ("{a" + ".a" * 20 + " = ") * 10,
        }
        for name, text in bombs.items():
            detail = self.detail(text)
            self.assertIn(f"nested deeper than {MAX_DEPTH} levels (at line", detail, name)
        self.assertEqual(
            self.detail("\nx = " + "[" * 65),
            "config: nested deeper than 64 levels (at line 2, column 68)",
        )

    def test_many_short_keys(self) -> None:
        half = MOST_TOKENS // 2
        for name, good, more in (
            ("pairs", "".join(f"k{n}=1\n" for n in range(half)), "k=1\n"),
            ("dots", "".join(f"k{n} . '' . a=1\n" for n in range(half // 2)), "k=1\n"),
            ("headers", "".join(f"[k{n}]\n" for n in range(half)), "[k]\n"),
            ("tables", "[[a]]\n" * (MOST_TOKENS // 3), "[[a]]\n"),
            ("items", "x=[" + "1," * (MOST_TOKENS - 4) + "]\n", "x1=1 \n"),
            ("brackets", "x=[" + "{}," * (MOST_TOKENS - 4) + "]\n", "y=2\n"),
            ("texts", "x=[" + '\'a#[b\',"c\\"[[",' * (half - 2) + "]\n", "y=2\nz=3\n"),
        ):
            self.assertTrue(extend(good, SETTINGS, JWK).startswith(good[:2]), name)
            detail = self.detail(good + more + more)
            self.assertIn(f"more than {MOST_TOKENS} names, values and brackets", detail, name)
        for free in ("# a = [1, 2]\n" * 9000, 'x = """' + "[a.b] = 1\n" * 9000 + '"""\n'):
            self.assertTrue(extend(free, SETTINGS, JWK).startswith(free))
        self.assertIn("Unterminated", self.detail('x = "' + '\\"' * 40_000))

    def test_nesting_within_the_bound(self) -> None:
        for text in (
            "x = " + "[" * 63 + "]" * 63,
            "x = " + "{a = " * 62 + "{}" + "}" * 62,
            "a" + ".a" * 63 + " = 1",
            "[a" + ".a" * 63 + "]",
        ):
            self.assertTrue(extend(text, SETTINGS, JWK).startswith(text), text)

    @settings(max_examples=examples(300))
    @given(st.text() | st.text(alphabet="ab.=[]{}\"'#,\\\r\n 1-:T_+eé\x00"))
    def test_arbitrary_text_is_extended_or_refused(self, text: str) -> None:
        try:
            got = extend(text, SETTINGS, JWK)
        except RpcError as error:
            self.assertEqual(error.code, INVALID_PARAMS)
            self.assertRaises(ValueError, tomllib.loads, text)
        else:
            self.assertTrue(is_kept(text, got), got)


class DocumentTests(SynchronousTestCase):
    """Any document of any style."""

    @settings(max_examples=examples(300))
    @given(documents())
    def test_the_answer_is_the_merge_in_the_text_of_the_caller(self, text: str) -> None:
        try:
            theirs = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            assume(False)
        ours = {**SETTINGS, "authorization": {"keys": [JWK]}}
        got = extend(text, SETTINGS, JWK)
        self.assertEqual(typed(tomllib.loads(got)), typed(merged(theirs, ours)))
        if not self.gets_strings_among_tables(theirs):
            self.assertTrue(is_kept(text, got), got)

    def gets_strings_among_tables(self, theirs: dict[str, Any]) -> bool:
        metrics = theirs.get("metrics")
        allowed = metrics.get("allowed") if isinstance(metrics, dict) else None
        return bool(allowed) and isinstance(allowed, list) and isinstance(allowed[0], dict)
