"""TOML documents for hypothesis: random values, written in the many styles that the grammar allows.

Values are TOML text already, or dicts and lists of them. Some documents are not valid (a key twice,
say in two spellings); tests ask ``tomllib``.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

Value: TypeAlias = Any
Tree: TypeAlias = Mapping[str, Value]

SCALARS = (
    *("0", "-7", "0xff", "0o17", "1_000", "99999999999999999999", "true", "false"),
    *("1e3", "6.0", "-0.0", "nan", "-nan", "inf"),
    *("2020-01-02T03:04:05.123Z", "2020-01-02 03:04:05+01:30", "2020-01-02", "03:04:05"),
    *('""', "''", '"s"', "'li#t'", '"] } # \\" ="', r'"\u00fc\\"', r"'\'"),
    *('"""ml\n# no\n"""', "'''\n[x]\ny = 1\n'''", '""""q"""""', "''''q'''''", '"""\\\n  x"""'),
)
NAMES = (
    *("quic", "http", "metrics", "limit", "peer", "incoming_messages", "authorization", "keys"),
    *("allowed", "global_labels", "supervisor", "report_interval", "rate", "migration", "x"),
    *('"a b"', "'c.d'", r'"\u0071uic"', '""', '"limit"', "'metrics'", "1979-05-27", '"ü"'),
)
COMMENTS = ("", "", "", " # c", "\t", "  #")
GAPS = ("", "", "", "\n", "# note\n", "  # [x] = {\n\n", "\n\n")

_scalars = st.sampled_from(SCALARS)
_names = st.sampled_from(NAMES)


def _nest(inner: SearchStrategy[Value]) -> SearchStrategy[Value]:
    table = st.dictionaries(_names, inner, max_size=3)
    return st.lists(inner, max_size=3) | table | st.lists(table, min_size=1, max_size=3)


def _some(**members: SearchStrategy[Value]) -> SearchStrategy[Value]:
    return st.fixed_dictionaries({}, optional=members)


values: SearchStrategy[Value] = st.recursive(_scalars, _nest, max_leaves=6)
_keys = st.lists(st.dictionaries(_names, values, max_size=2), max_size=3)
_messages = _some(limit=values, peer=_some(incoming_messages=values, x=values) | values)
_settings = _some(
    quic=st.dictionaries(st.sampled_from(("migration", "x", "sub")), values) | _scalars,
    metrics=_some(allowed=st.lists(_scalars, max_size=3) | values, global_labels=values, x=values),
    limit=_some(peer=_messages | values, x=values),
    authorization=_some(keys=_keys | values, x=values),
    http=values,
)
"""Tables in the shape of the gateway's settings, so that there is much to merge."""

trees: SearchStrategy[Tree] = st.builds(
    lambda near, far: {**far, **near}, _settings, st.dictionaries(_names, values, max_size=4)
)


class _Writer:
    """Writes a tree, drawing the style of everything."""

    def __init__(self, draw: DrawFn) -> None:
        self.draw = draw

    def pick(self, *options: str) -> str:
        return self.draw(st.sampled_from(options))

    def document(self, tree: Tree) -> str:
        sections = self.sections((), tree, "")
        text = self.pick(*GAPS) + "".join(section + self.pick(*GAPS) for section in sections)
        if self.pick("lf", "lf", "crlf") == "crlf":
            text = text.replace("\n", "\r\n")
        return text.rstrip() if self.pick("line", "line", "none") == "none" else text

    def sections(
        self, path: tuple[str, ...], tree: Tree, indent: str, header: str = "[%s]"
    ) -> list[str]:
        """The text below a header, and that of its sub-tables, which may precede it."""
        lines: list[str] = []
        below: list[list[str]] = []
        self.pairs(path, (), tree, indent, lines, below)
        # A header may be left out where sub-tables imply it.
        if path and (lines or not below or header != "[%s]" or self.pick("yes", "no") == "yes"):
            lines.insert(0, indent + header % self.key(path) + self.pick(*COMMENTS) + "\n")
        own = ["".join(lines)]
        if path and header == "[%s]":
            groups = self.draw(st.permutations([own, *below]))
        else:
            groups = [own, *self.draw(st.permutations(below))]
        return [section for group in groups for section in group if section]

    def pairs(
        self,
        path: tuple[str, ...],
        prefix: tuple[str, ...],
        tree: Tree,
        indent: str,
        lines: list[str],
        below: list[list[str]],
    ) -> None:
        for name, value in tree.items():
            key = (*prefix, name)
            if isinstance(value, dict):
                style = self.pick("inline", "dotted", "header", "header")
                if style == "dotted" and value:
                    self.pairs(path, key, value, indent, lines, below)
                    continue
                if style == "header":
                    inner = indent + self.pick("", "  ")
                    below.append(self.sections((*path, *key), value, inner))
                    continue
            elif self.can_be_headers(value) and self.pick("headers", "inline") == "headers":
                items = [self.sections((*path, *key), item, indent, "[[%s]]") for item in value]
                below.append([section for item in items for section in item])
                continue
            pair = self.key(key) + self.pick("=", " = ") + self.inline(value)
            lines.append(indent + pair + self.pick(*COMMENTS) + "\n" + self.pick(*GAPS))

    def can_be_headers(self, value: Value) -> bool:
        return isinstance(value, list) and bool(value) and all(isinstance(i, dict) for i in value)

    def key(self, parts: tuple[str, ...]) -> str:
        return self.pick(".", ".", " . ").join(parts)

    def inline(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, dict):
            pairs = [k + self.pick("=", " = ") + self.inline(v) for k, v in self.flat(value)]
            pad = self.pick("", " ")
            return "{" + pad + self.pick(",", ", ", " , ").join(pairs) + pad + "}"
        items = [self.inline(item) for item in value]
        comma = self.pick("", ",") if items else ""
        style = self.pick("line", "line", "lines", "messy")
        if style == "line":
            return "[" + self.pick("", " ") + ", ".join(items) + comma + self.pick("", " ") + "]"
        gap = self.pick("\n", "\n  ", " # c\n\t")
        if style == "lines":
            last = self.pick("", " # last")
            return "[" + gap + ("," + gap).join(items) + comma + last + "\n]"
        return "[" + gap + (gap + "," + gap).join(items) + gap + comma + self.pick("", gap) + "]"

    def flat(self, tree: Tree) -> Iterator[tuple[str, Value]]:
        """The pairs of a table, some sub-tables as dotted keys."""
        for name, value in tree.items():
            if isinstance(value, dict) and value and self.pick("dotted", "table") == "dotted":
                for key, inner in self.flat(value):
                    yield self.key((name, key)), inner
            else:
                yield name, value


@st.composite
def documents(draw: DrawFn) -> str:
    """TOML texts, most of them valid."""
    return _Writer(draw).document(draw(trees))
