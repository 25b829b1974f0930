"""What documents from elsewhere mean, whoever wrote them; each rule has its one place here.

Null is absent, and so are an empty text and a list without items where they cannot mean anything;
5.0 is 5; a byte order mark is skipped; half of a surrogate pair is named with its member, and
spoils no more than the entry of a list that holds it. Base64 with or without padding is in
``odingw.tokens.base64url``.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from json import JSONDecodeError
from typing import Any, AnyStr, Final, NamedTuple

import msgspec
from msgspec import DecodeError, Raw, ValidationError
from msgspec.json import Decoder

from odingw.errors import NOT_JSON

MARK: Final = b"\xef\xbb\xbf"
"""The byte order mark in UTF-8, with which editors on Windows begin a file."""

_MARK: Final = MARK.decode()
_MARK_ESCAPED: Final = re.compile(rb"\\u[fF][eE][fF][fF]")
_ABSENT: Final = re.compile(rb'\s*(?:null|""|\[(?:[\s,]|null|""|\[\s*\])*\])\s*')
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_NESTED: Final = (dict, list, tuple, Mapping)
_DEEPEST: Final = 10_000
"""More than JSON that can be read nests: a value that a function made may hold itself."""
_LONGEST_PATH: Final = 80
_TOO_DEEP: Final = "nested too deeply"
_MOST_DIGITS: Final = 400
"""Digits of an integer that is read as it is; those of the largest double are 309."""
_TOO_LARGE: Final = 10**_MOST_DIGITS


class LoneSurrogate(NamedTuple):
    """Half of a surrogate pair in JSON (RFC 8259, section 8.2).

    Attributes:
        member: the path of the member that holds it, such as ``params.message``; empty: the whole.
        document: the value, of which no text with such a half can be written as UTF-8.
    """

    member: str
    document: Any

    def __str__(self) -> str:
        """Say it in one line that begins with the member."""
        place = f"{self.member}: " if self.member else ""
        return f"{place}half of a surrogate pair, which is no Unicode text"


def unmarked(data: AnyStr) -> AnyStr:
    """Return what a file or body holds, without a byte order mark in front."""
    return data.removeprefix(MARK if isinstance(data, bytes) else _MARK)


def without_marks(text: str) -> str:
    """Return a name, secret, key or other value without byte order marks: none is a part of it."""
    return text.replace(_MARK, "")


def unseen(text: str) -> str:
    """Return the first character of a text that nobody sees, as "U+200B"; empty: there is none."""
    return next((f"U+{ord(char):04X}" for char in text if not char.isprintable()), "")


def unmarked_values(document: Any) -> Any:
    """Return what was read from JSON or TOML, without byte order marks in its names and texts."""
    if isinstance(document, str):
        return without_marks(document)
    if isinstance(document, dict):
        return {without_marks(name): unmarked_values(value) for name, value in document.items()}
    if isinstance(document, list):
        return [unmarked_values(value) for value in document]
    return document


def lines(text: str) -> tuple[str, ...]:
    """Return the lines of a file that has a secret on each.

    White space around them, empty lines, and byte order marks do not count: files that were put
    together have a mark in the middle.
    """
    found = (without_marks(line).strip() for line in text.splitlines())
    return tuple(line for line in found if line)


def is_nothing(value: object) -> bool:
    """Tell whether an item of a list says nothing: null, an empty text, an empty list."""
    return value is None or (isinstance(value, str | list | tuple) and not value)


def is_absent(value: object) -> bool:
    """Tell whether a member says nothing: as an item does, or by a list of such items."""
    return is_nothing(value) or (isinstance(value, list | tuple) and all(map(is_nothing, value)))


def is_absent_json(value: Raw) -> bool:
    """Tell the same of a member that has not been read."""
    return _ABSENT.fullmatch(value) is not None


def whole(value: object) -> object:
    """Return a number as an integer if it is one: JSON has one type of numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_json(data: bytes) -> Any:
    """Read JSON, where 5.0 is 5, and a number that no double holds is infinite.

    So whoever reads that very number refuses it by its name, and all others read the rest.

    Raises:
        odingw.errors.NOT_JSON: it is none; ``lone_surrogate`` may know more.
    """
    text = unmarked(data).decode()
    try:
        return _read(text)
    except ValidationError:
        # No types are asked for, so what is of a wrong one is a number.
        pass
    try:
        document = _loads(text)
    except ValueError as error:
        raise DecodeError(str(error)) from None
    if half_in(document):
        raise DecodeError("half of a surrogate pair")
    return document


def read_document(data: bytes) -> Any:
    """Read a document as ``read_json`` does; its texts have no byte order marks.

    They may have half of a surrogate pair: who takes it apart leaves out what ``half_in`` finds.

    Raises:
        NotJsonError: it is no JSON.
    """
    try:
        document = read_json(data)
    except NOT_JSON:
        half = lone_surrogate(data)
        if half is None:
            raise _why_not(data) from None
        document = half.document
    if MARK not in data and not _MARK_ESCAPED.search(data):
        return document
    try:
        return unmarked_values(document)
    except RecursionError:
        raise NotJsonError("", _TOO_DEEP) from None


class NotJsonError(ValueError):
    """Something is no JSON; the text says why, and where that is known.

    Attributes:
        place: such as ``line 3``, or empty.
        cause: what is wrong there.
    """

    def __init__(self, place: str, cause: str) -> None:
        super().__init__(": ".join(filter(None, (place, cause))))
        self.place = place
        self.cause = cause


def _why_not(data: bytes) -> NotJsonError:
    text = unmarked(data)
    try:
        _loads(text.decode())
    except UnicodeDecodeError as error:
        number = text.count(b"\n", 0, error.start) + 1
        return NotJsonError(f"line {number}", "not UTF-8")
    except JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()):
            return NotJsonError("", "it ends too early")
        return NotJsonError(f"line {error.lineno}, column {error.colno}", error.msg)
    except ValueError as error:
        return NotJsonError("", str(error))
    except RecursionError:
        pass
    return NotJsonError("", _TOO_DEEP)


def lone_surrogate(data: bytes) -> LoneSurrogate | None:
    """Return what JSON has that is no Unicode; None: nothing, or it is no JSON for other reasons.

    Args:
        data: what could not be read; the time that this takes grows with it.
    """
    if not _SURROGATE.search(data):
        return None
    try:
        return half_in(_loads(unmarked(data).decode()))
    except (ValueError, RecursionError):
        return None


def half_in(document: object) -> LoneSurrogate | None:
    """Return the first text in a value that has half of a surrogate pair; None: there is none."""
    with suppress(TypeError, ValueError, RecursionError):
        msgspec.json.encode(document)
        return None
    # Member by member: who is hostile writes millions, and a list of them would take seconds.
    path: list[str] = []
    levels = [iter([("", document)])]
    while levels:
        for step, value in levels[-1]:
            if isinstance(value, str):
                if value.isascii() or is_unicode(value):
                    continue
                return _half(document, path, step)
            if isinstance(value, _NESTED) and value:
                if len(levels) > _DEEPEST:
                    return None
                if isinstance(value, Mapping) and not _has_good_names(value):
                    return _half(document, path, step)
                levels.append(_members(value))
                path.append(step)
                break
        else:
            levels.pop()
            del path[-1:]
    return None


def _half(document: object, path: list[str], step: str) -> LoneSurrogate:
    return LoneSurrogate("".join((*path, step)).removeprefix(".")[:_LONGEST_PATH], document)


def _has_good_names(value: Mapping[Any, object]) -> bool:
    return all(is_unicode(name) for name in value if isinstance(name, str))


def _members(value: Mapping[Any, object] | Sequence[object]) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        return ((f".{name}", inner) for name, inner in value.items())
    return ((f"[{index}]", inner) for index, inner in enumerate(value))


def in_ascii(entries: Iterable[object]) -> list[Raw]:
    """Return entries of a list as JSON, for what cannot be written as UTF-8."""
    return [Raw(_written(entry).encode()) for entry in entries]


def _written(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        # JSON cannot write an infinite number, but one that is read as such.
        return json.dumps(json.loads(json.dumps(value), parse_constant=_infinite))


def _infinite(name: str) -> int:
    return -_TOO_LARGE if name.startswith("-") else _TOO_LARGE


def is_unicode(text: str) -> bool:
    """Tell whether a text has no half of a surrogate pair, and can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _loads(text: str) -> Any:
    """Read JSON with any numbers, and halves of surrogate pairs.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deeply.
    """
    return json.loads(
        text, parse_int=_integer, parse_float=_number, parse_constant=_refuse_constant
    )


def _number(text: str) -> object:
    return whole(float(text))


def _integer(text: str) -> object:
    return int(text) if len(text) <= _MOST_DIGITS else float(text)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


_read: Final = Decoder(Any, float_hook=_number).decode
