"""The configuration reference: keys and defaults from the types, words from the sample file.

``.. config-reference::`` writes all of it. A key that the sample file does not explain, or a type
without a description, is a warning, which fails the build.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from odingw.config import Config
from odingw.config.types import Section

SAMPLE: Final = Path(__file__).parents[2] / "etc" / "odingw.toml"

_HEADER: Final = re.compile(r"\[+([a-z_.]+)\]+$")
_KEY: Final = re.compile(r"([a-z_]+) = ")
_LITERAL: Final = re.compile(
    r'\["[^\]]+"\]|\w+ = (?:"[^"]*"|\{[^}]*\}|[0-9]+|true|false)|\{ [^}]*\}'
    r'|"[^"]+"(?=[\s.,:;)]|$)|(?<![\w/])/[a-zA-Z]+(?:/[a-z]+)?/?|\b[a-z]+(?:_[a-z]+)+\b|\[[a-z.]+\]'
    r"|\b(?:haproxy|redis|rediss|ssl|stun|systemd|tcp|turn|unix):(?=[ ,.])"
)
"""What stands in comments and is code: quoted texts, paths, keys, tables, kinds of endpoints."""


_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


class Entry(msgspec.Struct, frozen=True):
    """A key of the configuration.

    Attributes:
        path: as it is written with dots.
        type: what its value must be, in words.
        default: as TOML; None: it has none.
        required: whether its table must have it.
        text: what the type's docstring says of it; may be empty.
    """

    path: str
    type: str
    default: str | None
    required: bool
    text: str


class Table(msgspec.Struct, frozen=True):
    """A table of the configuration, and the keys that are explained with it.

    Attributes:
        path: as it is written in brackets.
        array: whether there can be several.
        text: what it is.
    """

    path: str
    array: bool
    text: str
    entries: list[Entry]


class Sample(msgspec.Struct, frozen=True):
    """What the sample file's comments say.

    Attributes:
        tables: text by the path of a table.
        keys: text by the path of a key.
        examples: commented-out lines, by the path of the key or table that they are examples of.
    """

    tables: dict[str, str]
    keys: dict[str, str]
    examples: dict[str, list[str]]


def read_sample(text: str, known: set[str]) -> Sample:
    """Take the comments of the sample file apart.

    A comment belongs to the keys right below it; a blank line ends it. Commented-out lines are keys
    where they are TOML and no such key is set, else examples.

    Args:
        text: of the file.
        known: the paths of all keys; others in it are examples.
    """
    sample = Sample({}, {}, {})
    set_keys = set(_leaves(tomllib.loads(text)))
    table, comment, used = "", list[str](), True
    for line in [*text.splitlines(), ""]:
        bare = line.removeprefix("# ")
        header = _HEADER.match(bare)
        key = None if header else _key(bare)
        path = f"{table}.{key}"
        if header:
            table = header[1]
        if header or not line or line == "#":
            if comment and not used:
                # One of its own right below a header speaks of the table too.
                sample.tables.setdefault(table, " ".join(comment))
            comment, used = [], True
        elif key is None:
            comment = [*([] if used else comment), bare]
            used = False
        elif path not in known:
            if not used:
                sample.tables.setdefault(table, " ".join(comment))
            sample.examples.setdefault(table, []).append(bare)
            used = True
        else:
            if bare != line and path in set_keys:
                sample.examples.setdefault(path, []).append(bare)
            sample.keys.setdefault(path, " ".join(comment))
            used = True
    return sample


def _key(line: str) -> str | None:
    """The key that a line of TOML sets; None: it is none."""
    found = _KEY.match(line)
    try:
        return found[1] if found and tomllib.loads(line) else None
    except tomllib.TOMLDecodeError:
        return None


def _leaves(table: dict[str, Any], at: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{at}{name}.")
        yield f"{at}{name}"


def tables(kind: type[Section] = Config, path: str = "", *, array: bool = False) -> Iterator[Table]:
    """Yield the tables of the configuration, outer ones before inner ones."""
    entries: list[Entry] = []
    inner: list[Table] = []
    hints = get_type_hints(kind, include_extras=True)
    attributes = dict(_ATTRIBUTE.findall(cleandoc(kind.__doc__ or "").partition("Attributes:")[2]))
    for field in msgspec.structs.fields(kind):
        at = f"{path}.{field.name}" if path else field.name
        hint = hints[field.name]
        structs = list(_structs(hint))
        words = _words(hint)
        if structs and (words is None or get_origin(_bare(hint)) is tuple):
            inner += tables(structs[0], at, array=get_origin(_bare(hint)) is tuple)
            continue
        if words is None:
            raise ValueError(f"{at}: its type has no description")
        text = attributes.get(field.name, "")
        entries.append(Entry(at, words, _default(field), field.required, text))
        for struct in structs:
            place = f"{at}.NAME" if get_origin(_bare(hint)) is dict else at
            for table in tables(struct, place):
                entries += table.entries
    if path:
        yield Table(path, array, cleandoc(kind.__doc__ or "").partition("\n")[0], entries)
    yield from inner


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _structs(hint: Any) -> Iterator[type[Section]]:
    """Yield the sections that a type mentions."""
    if isinstance(hint, type) and issubclass(hint, Section):
        yield hint
    for part in get_args(hint):
        yield from _structs(part)


def _words(hint: Any) -> str | None:
    """What the values of a type are, in words."""
    if get_origin(hint) is Annotated:
        for part in get_args(hint)[1:]:
            if isinstance(part, msgspec.Meta) and part.description:
                return part.description
        return None
    if get_origin(hint) in (Union, UnionType):
        return next(filter(None, map(_words, get_args(hint))), None)
    return None


def _default(field: msgspec.structs.FieldInfo) -> str | None:
    if field.default_factory is not msgspec.NODEFAULT:
        return to_toml(field.default_factory())
    return None if field.default in (msgspec.NODEFAULT, None) else to_toml(field.default)


def to_toml(value: Any) -> str:
    """A default as it is written in TOML."""
    match value:
        case bool() | str():
            return json.dumps(value)
        case float():
            return f"{value:g}"
        case int():
            return str(value)
        case Mapping():
            return "{}"
        case tuple():
            return "[" + ", ".join(json.dumps(str(item)) for item in value) + "]"
        case _:
            return json.dumps(str(value))


def marked_up(text: str) -> str:
    """A comment of the sample file as reStructuredText."""
    done, end = "", 0
    for found in _LITERAL.finditer(text):
        done += _escaped(text[end : found.start()]) + f"``{found[0]}``"
        end = found.end()
    return done + _escaped(text[end:])


def _escaped(text: str) -> str:
    return re.sub(r"([*`|_\\])", r"\\\1", text)


class ConfigReference(SphinxDirective):
    """Writes the reference of all tables and keys."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        self.env.note_dependency(str(SAMPLE))
        found = list(tables())
        known = {entry.path for table in found for entry in table.entries}
        sample = read_sample(SAMPLE.read_text("utf-8"), known)
        lines: list[str] = []
        for table in found:
            lines += self._table(table, sample)
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)

    def _table(self, table: Table, sample: Sample) -> list[str]:
        name = f"[[{table.path}]]" if table.array else f"[{table.path}]"
        lines = ["", f".. _config-{table.path.replace('.', '-')}:", "", name, "-" * len(name), ""]
        comment = sample.tables.get(table.path)
        lines += [marked_up(comment) if comment else table.text, ""]
        lines += self._example(sample.examples.get(table.path, ()), "")
        for entry in table.entries:
            lines += self._entry(entry, sample)
        return lines

    def _entry(self, entry: Entry, sample: Sample) -> list[str]:
        lines = [f".. confval:: {entry.path}", f"   :type: {marked_up(entry.type)}"]
        if entry.default is not None:
            lines.append(f"   :default: ``{entry.default}``")
        elif entry.required:
            lines.append("   :default: none, it must be given")
        lines.append("")
        comment = sample.keys.get(entry.path) or sample.tables.get(entry.path)
        text = marked_up(comment) if comment else " ".join(entry.text.split())
        # Inline tables are explained where they are the value.
        if not text and entry.path.rpartition(".")[0] not in sample.keys:
            self._warn(f"{entry.path}: {SAMPLE.name} says nothing about it")
        lines += [f"   {text}", ""]
        return lines + self._example(sample.examples.get(entry.path, ()), "   ")

    def _example(self, example: Any, indent: str) -> list[str]:
        if not example:
            return []
        lines = [f"{indent}.. code-block:: toml", ""]
        return [*lines, *(f"{indent}   {line}" for line in example), ""]

    def _warn(self, text: str) -> None:
        self.state_machine.reporter.warning(text, line=self.lineno)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("config-reference", ConfigReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
