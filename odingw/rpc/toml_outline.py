"""Where the keys and brackets of a TOML text are.

This is a scanner, not a parser: it accepts all that TOML 1.0 (https://toml.io/en/v1.0.0) does and
much that it does not, converts no value, and leaves it to ``tomllib`` to say what is valid. Its
time is in proportion to the text, so it is also the guard in front of parsers where it is not.
"""

import re
from typing import Final, TypeAlias

from msgspec import Struct, field

from odingw.errors import OdingwError, invalid_params

MAX_DEPTH: Final = 64
"""How deep tables and arrays may nest. Brackets exhaust a parser's stack, and its time grows with
the square of the number of dots in a key."""

MOST_TOKENS: Final = 5000
"""How many names, values and brackets there may be: each costs parsers about 20 µs together."""

Key: TypeAlias = tuple[str, ...]
"""A dotted key."""

_BLANK: Final = re.compile(r"[ \t]*+")
_GAP: Final = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_LINE_END: Final = re.compile(r"[ \t]*+(?:#[^\n]*+)?+\r?(?:\n|\Z)")
_KEY_PART: Final = re.compile(
    r"""[A-Za-z0-9_-]++ | "(?:[^"\\\n]++|\\.)*+" | '[^'\n]*+'""", re.VERBOSE
)
_DOT: Final = re.compile(r"[ \t]*+\.[ \t]*+")
_EQUALS: Final = re.compile(r"[ \t]*+=[ \t]*+")
_STRING: Final = r'''
    """(?: [^"\\]++ | \\. | "{1,2}(?!") )*+"{3,5}
    | \'\'\'(?: [^']++ | '{1,2}(?!') )*+'{3,5}
    | "(?: [^"\\\n]++ | \\. )*+"
    | '[^'\n]*+'
'''
_SCALAR: Final = re.compile(
    _STRING
    + r"""
    | \d{4}-\d\d-\d\d[ ]\d\d:[-+.:\w]++
    | [-+.:\w]++
    """,
    re.DOTALL | re.VERBOSE,
)
_TOKEN: Final = re.compile(
    rf"""\#[^\n]*+ | (?P<counted> {_STRING} | [-+:\w]++ | [\[{{] ) | (?P<broken> ["'] )""",
    re.DOTALL | re.VERBOSE,
)


class Brackets(Struct, eq=False):
    """An array or an inline table.

    Attributes:
        table: it is an inline table.
        tail: offset behind the last item and its comma, or behind the opening bracket.
        close: offset of the closing bracket.
        empty: there is nothing in it.
        comma: a comma follows the last item.
        pairs: the pairs of an inline table.
    """

    table: bool
    tail: int
    close: int = 0
    empty: bool = True
    comma: bool = False
    pairs: "list[Pair]" = field(default_factory=list)


class Pair(Struct):
    """A key, its parts as written, and the brackets of its value (None: the value has none)."""

    key: Key
    value: Brackets | None


class Section(Struct, eq=False):
    """A header and the pairs below it, or the pairs in front of all headers.

    Attributes:
        header: the header's key, its parts as written; empty for the root table.
        array: the header is that of an array of tables, ``[[…]]``.
        end: offset of the line behind the header and the last pair.
        indent: white space in front of the last pair, or of the header.
        pairs: the pairs.
    """

    header: Key
    array: bool
    end: int
    indent: str = ""
    pairs: list[Pair] = field(default_factory=list)


class _NotTomlError(OdingwError):
    """The text is not TOML from here on."""


def outline(text: str) -> list[Section] | None:
    """Find the keys and brackets of a TOML text.

    Returns:
        The root table's section and those of the headers, in the order of the text; None if this is
        not TOML.

    Raises:
        RpcError: -32602, it nests deeper than `MAX_DEPTH`, or has more than `MOST_TOKENS`.
    """
    too_many = _too_many(text)
    sections = _sections(text[:too_many])
    if too_many is not None:
        raise invalid_params(
            f"config: more than {MOST_TOKENS} names, values and brackets {where(text, too_many)}"
        )
    return sections


def _sections(text: str) -> list[Section] | None:
    section = Section((), array=False, end=0)
    sections = [section]
    try:
        position = _skip(_GAP, text, 0)
        while position < len(text):
            indent = text[text.rfind("\n", 0, position) + 1 : position]
            if text[position] == "[":
                section, position = _header(text, position)
                sections.append(section)
            else:
                pair, position = _pair(text, position, len(section.header))
                section.pairs.append(pair)
            section.indent = indent
            section.end = _skip(_LINE_END, text, position)
            position = _skip(_GAP, text, section.end)
    except _NotTomlError:
        return None
    return sections


def _too_many(text: str) -> int | None:
    """Return the offset of the first token that is one too many; None: there is none."""
    count = 0
    for token in _TOKEN.finditer(text):
        if token["broken"]:
            # No parser comes further than this.
            return None
        count += token["counted"] is not None
        if count > MOST_TOKENS:
            return token.start()
    return None


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Go behind what must stand here."""
    match = pattern.match(text, position)
    if match is None:
        raise _NotTomlError
    return match.end()


def _header(text: str, position: int) -> tuple[Section, int]:
    brackets = 2 if text.startswith("[[", position) else 1
    position = _skip(_BLANK, text, position + brackets)
    key, position = _key(text, position, 0)
    position = _skip(_BLANK, text, position)
    if not text.startswith("]" * brackets, position):
        raise _NotTomlError
    position += brackets
    return Section(key, array=brackets == 2, end=position), position


def _pair(text: str, position: int, depth: int) -> tuple[Pair, int]:
    key, position = _key(text, position, depth)
    position = _skip(_EQUALS, text, position)
    value, position = _value(text, position, depth + len(key))
    return Pair(key, value), position


def _key(text: str, position: int, depth: int) -> tuple[Key, int]:
    parts: list[str] = []
    while True:
        start, position = position, _skip(_KEY_PART, text, position)
        parts.append(text[start:position])
        _check_depth(text, start, depth + len(parts))
        dot = _DOT.match(text, position)
        if dot is None:
            return tuple(parts), position
        position = dot.end()


def _value(text: str, position: int, depth: int) -> tuple[Brackets | None, int]:
    opening = text[position : position + 1]
    if opening not in ("[", "{"):
        return None, _skip(_SCALAR, text, position)
    _check_depth(text, position, depth + 1)
    closing = "]" if opening == "[" else "}"
    found = Brackets(table=opening == "{", tail=position + 1)
    while True:
        position = _skip(_GAP, text, found.tail)
        if text.startswith(closing, position):
            found.close = position
            return found, position + 1
        if not (found.empty or found.comma):
            raise _NotTomlError
        if found.table:
            pair, found.tail = _pair(text, position, depth)
            found.pairs.append(pair)
        else:
            _, found.tail = _value(text, position, depth + 1)
        position = _skip(_GAP, text, found.tail)
        found.empty, found.comma = False, text.startswith(",", position)
        if found.comma:
            found.tail = position + 1


def _check_depth(text: str, position: int, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise invalid_params(
            f"config: nested deeper than {MAX_DEPTH} levels {where(text, position)}"
        )


def where(text: str, position: int) -> str:
    """Line and column of an offset, both from 1, as ``tomllib`` says it."""
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return f"(at line {line}, column {column})"
