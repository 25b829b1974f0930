"""Whatever a configuration file holds, it loads or one line comes out."""

from typing import Any, Final

import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from odingw.config import (
    Config,
    load,
)
from odingw.errors import ConfigError
from tests.config_case import ConfigCase, fields
from tests.examples import examples

NAMES: Final = sorted({name for path in fields(Config, "") for name in path.split(".")})
SCALARS: Final = (
    st.text(max_size=20)
    | st.sampled_from(
        ["memory:", "tcp:7000", "::1/128", "0.18", "forbidden", "a:b", "x.py:y", "https://h/"]
    )
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.datetimes()
    | st.dates()
    | st.times()
)
KEYS: Final = st.sampled_from(NAMES) | st.text(max_size=10)
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


def tables(paths: dict[str, Any]) -> dict[str, Any]:
    """Nested tables out of dotted paths; a table in the way of a path gives way."""
    document: dict[str, Any] = {}
    for path, value in paths.items():
        *outer, last = path.split(".")
        table = document
        for name in outer:
            table = table.setdefault(name, {})
        table[last] = value
    return document


DOCUMENTS: Final = st.dictionaries(KEYS, VALUES, max_size=4) | st.dictionaries(
    st.sampled_from(sorted(fields(Config, ""))), VALUES, max_size=4
).map(tables)


class FuzzTests(ConfigCase):
    """Whatever the file holds, it loads or one line comes out."""

    def attempt(self, text: str) -> None:
        # Newlines as they are: a lone carriage return must reach the parser.
        self.path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            config = load(self.path)
        except ConfigError as error:
            line = str(error)
            self.assertTrue(line.isprintable(), f"not one clean line: {line!r}")
            self.assertTrue(line.startswith(f"{self.path}: "), line)
        else:
            self.assertIsInstance(config, Config)

    @settings(deadline=None)
    @given(st.text())
    def test_text(self, text: str) -> None:
        """Text of any kind."""
        self.attempt(text)

    @settings(deadline=None)
    @given(st.lists(st.sampled_from([*NAMES, *"=.,[]{}\"'\n# -1:_\\", "[[", "]]", "true", "5"])))
    def test_tokens(self, tokens: list[str]) -> None:
        """Text that looks like TOML."""
        self.attempt("".join(tokens))

    @settings(max_examples=examples(300))
    @given(DOCUMENTS)
    def test_documents(self, document: dict[str, Any]) -> None:
        """Tables of known and unknown keys with values of every type."""
        self.attempt(tomlkit.dumps(document))
