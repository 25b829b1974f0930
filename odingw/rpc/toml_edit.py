"""Additions to TOML text that leave every character of it in place; TOML from plain values."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from json import dumps
from typing import Any, Final, TypeAlias

from msgspec import Struct, field

from odingw.errors import OdingwError
from odingw.rpc.toml_outline import Brackets, Key, Section

Place: TypeAlias = Section | Brackets
Block: TypeAlias = list[str]
"""Lines that belong together; the first is a header."""

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_LARGEST: Final = 2**63 - 1


class ImpossibleError(OdingwError):
    """TOML's grammar has no place for an addition: an array of tables takes nothing but tables."""


class _ArrayOfTables:
    """What ``[[header]]`` lines define: it grows by more such lines, at any later place."""


class _Table(Struct):
    """A table that the text has.

    Attributes:
        place: what holds its pairs; None: it has none, only headers of its sub-tables imply it.
        prefix: what stands in front of its keys there, if they are dotted.
        children: its tables and arrays by key; scalars are left out, nothing is added to them.
    """

    place: Place | None = None
    prefix: Key = ()
    children: "dict[str, _Table | Brackets | _ArrayOfTables]" = field(default_factory=dict)


def insert(text: str, sections: Sequence[Section], additions: Mapping[str, object]) -> str:
    """Write additions into a TOML text.

    Args:
        text: valid TOML.
        sections: its outline.
        additions: pairs that the text does not have; or, where it has a table, pairs for that; or,
            where it has an array, items for its end.

    Returns:
        The text with insertions and nothing else.

    Raises:
        ImpossibleError: the grammar has no place for an addition.
    """
    newline = "\r\n" if re.match(r"[^\n]*\r\n", text) else "\n"
    plan = _Plan()
    plan.extend(_tables(sections), (), additions)
    edits: list[tuple[int, str]] = []
    for place, pieces in plan.pieces.items():
        if isinstance(place, Section):
            edits.append(_as_lines(text, place, pieces, newline))
        else:
            edits.extend(_as_items(text, place, pieces, newline))
    edits.sort(key=lambda edit: edit[0])

    parts: list[str] = []
    done = 0
    for offset, piece in edits:
        parts += text[done:offset], piece
        done = offset
    parts.append(text[done:])
    body = "".join(parts)
    if plan.blocks and body and not body.endswith("\n"):
        body += newline
    for block in plan.blocks:
        body += (newline if body else "") + "".join(line + newline for line in block)
    return body


def render(values: Mapping[str, object]) -> str:
    """A TOML document with these values."""
    return "\n".join("".join(line + "\n" for line in block) for block in _blocks((), values))


class _Plan:
    """What goes where.

    Attributes:
        pieces: pairs and items for places that the text has.
        blocks: new tables, and new items of arrays of tables, for the end of the text.
    """

    def __init__(self) -> None:
        self.pieces: dict[Place, list[str]] = {}
        self.blocks: list[Block] = []

    def extend(self, table: _Table, path: Key, additions: Mapping[str, Any]) -> None:
        """Plan the additions to a table and to all below it."""
        missing: dict[str, object] = {}
        for key, value in additions.items():
            child = table.children.get(key)
            inner = (*path, key)
            if child is None:
                missing[key] = value
            elif isinstance(child, _Table):
                self.extend(child, inner, value)
            elif isinstance(child, Brackets):
                self._give(child, map(_inline, value))
            else:
                self.blocks.extend(_more_tables(inner, value))
        if not path:
            self.blocks.extend(_blocks((), {k: v for k, v in missing.items() if _is_table(v)}))
            missing = {k: v for k, v in missing.items() if not _is_table(v)}
        if not missing:
            return
        if table.place is None:
            self.blocks.append([f"[{_dotted(path)}]", *_pairs((), missing)])
        else:
            self._give(table.place, _pairs(table.prefix, missing))

    def _give(self, place: Place, pieces: Iterable[str]) -> None:
        self.pieces.setdefault(place, []).extend(pieces)


def _tables(sections: Sequence[Section]) -> _Table:
    """The root table of a valid text."""
    root = _Table()
    for section in sections:
        table = _opened(root, _decoded(section.header), array=section.array)
        if table is not None:
            table.place = section
            _fill(table, section)
    return root


def _opened(root: _Table, path: Key, *, array: bool) -> _Table | None:
    """The table that a header opens; None in arrays of tables, to whose items nothing is added."""
    table = _descend(root, path[:-1] if array else path)
    if table is not None and array:
        table.children[path[-1]] = _ArrayOfTables()
        return None
    return table


def _fill(table: _Table, place: Place) -> None:
    """Put into a table what the pairs of its place define."""
    for pair in place.pairs:
        *parents, last = _decoded(pair.key)
        inner = _descend(table, tuple(parents), place)
        if inner is None or pair.value is None:
            continue
        if pair.value.table:
            inner.children[last] = child = _Table(pair.value)
            _fill(child, pair.value)
        else:
            inner.children[last] = pair.value


def _descend(table: _Table, path: Key, place: Place | None = None) -> _Table | None:
    """The table at that path, made if there is none yet; None if an array is in the way.

    With a place, dotted keys there define the tables on the path.
    """
    for depth, key in enumerate(path, 1):
        child = table.children.setdefault(key, _Table())
        if not isinstance(child, _Table):
            return None
        if place is not None:
            child.place, child.prefix = place, path[:depth]
        table = child
    return table


def _decoded(key: Key) -> Key:
    return tuple(_name(part) for part in key)


def _name(part: str) -> str:
    """The name that a key's part means."""
    if part[0] not in "\"'":
        return part
    if "\\" in part:
        return str(tomllib.loads(f"name = {part}")["name"])
    return part[1:-1]


def _as_lines(text: str, section: Section, pairs: list[str], newline: str) -> tuple[int, str]:
    """The edit that adds pairs to a section."""
    start = newline if section.end and text[section.end - 1] != "\n" else ""
    return section.end, start + "".join(section.indent + pair + newline for pair in pairs)


def _as_items(
    text: str, brackets: Brackets, items: list[str], newline: str
) -> Iterator[tuple[int, str]]:
    """The edits that add items to an array, or pairs to an inline table, in the style it has."""
    tail, comma = brackets.tail, brackets.comma
    gap = text[tail : brackets.close]
    if "\n" not in gap:
        before = ("" if brackets.empty or comma else ",") + (
            " " if gap or not brackets.empty else ""
        )
        yield tail, before + ", ".join(items) + ("," if comma else "")
        return
    # A comment may follow the last item: only the comma goes in front of it.
    if not (brackets.empty or comma):
        yield tail, ","
    end_of_line = text.rindex("\n", tail, brackets.close)
    if text[end_of_line - 1] == "\r":
        end_of_line -= 1
    line = text.rfind("\n", 0, tail) + 1
    code = text[line:tail].lstrip(" \t")
    start = newline + text[line : tail - len(code)] + ("  " if brackets.empty else "")
    yield end_of_line, start + f",{start}".join(items) + ("," if comma else "")


def _blocks(path: Key, table: Mapping[str, Any]) -> Iterator[Block]:
    """A new table, its sub-tables under headers of their own."""
    pairs = _pairs((), {key: value for key, value in table.items() if not _is_table(value)})
    below = {key: value for key, value in table.items() if _is_table(value)}
    if path and (pairs or not below):
        yield [f"[{_dotted(path)}]", *pairs]
    elif pairs:
        yield pairs
    for key, value in below.items():
        yield from _blocks((*path, key), value)


def _more_tables(path: Key, items: Sequence[Any]) -> Iterator[Block]:
    """More items of an array of tables."""
    for item in items:
        if not _is_table(item):
            raise ImpossibleError
        yield [f"[[{_dotted(path)}]]", *_pairs((), item)]


def _pairs(prefix: Key, table: Mapping[str, object]) -> list[str]:
    return [f"{_dotted((*prefix, key))} = {_inline(value)}" for key, value in table.items()]


def _dotted(key: Key) -> str:
    return ".".join(part if _BARE_KEY.fullmatch(part) else _string(part) for part in key)


def _inline(value: object) -> str:
    """A value as it stands behind the equals sign."""
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # Python reads a number of any length in hexadecimal, but in decimal up to 4300 digits.
        return str(value) if value <= _LARGEST else hex(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return f"{{{', '.join(_pairs((), value))}}}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_inline, value))}]"
    raise TypeError(f"TOML has no {type(value).__name__}")


def _string(value: str) -> str:
    # JSON's escapes are all TOML's too, but JSON lets the DEL character stand.
    return dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)
