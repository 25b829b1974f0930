"""What documents from elsewhere mean, whoever wrote them; each rule has its one place here.

Null is absent, and so are an empty list and an empty text where they cannot mean anything; 5.0 is
5; a byte order mark is skipped; half of a surrogate pair is named with its member. Base64 with or
without padding is in ``odingw.tokens.base64url``.
"""

import json
import re
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import DecodeError, Raw, ValidationError
from msgspec.json import Decoder

MARK: Final = b"\xef\xbb\xbf"
"""The byte order mark in UTF-8, with which editors on Windows begin a file."""

_MARK: Final = MARK.decode()
_ABSENT: Final = re.compile(rb'\s*(?:null|""|\[\s*\])\s*')
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LONGEST_PATH: Final = 80
_MOST_DIGITS: Final = 400
"""Digits of an integer that is read as it is; those of the largest double are 309."""


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


def unmarked(data: bytes) -> bytes:
    """Return what a file or body holds, without a byte order mark in front."""
    return data.removeprefix(MARK)


def unmarked_text(text: str) -> str:
    """Return a text without a byte order mark in front."""
    return text.removeprefix(_MARK)


def without_marks(text: str) -> str:
    """Return a text without byte order marks: none is ever part of a name or secret."""
    return text.replace(_MARK, "")


def lines(text: str) -> tuple[str, ...]:
    """Return the lines of a file that has a secret on each.

    White space around them, empty lines, and byte order marks do not count: files that were put
    together have a mark in the middle.
    """
    found = (without_marks(line).strip() for line in text.splitlines())
    return tuple(line for line in found if line)


def is_absent(value: object) -> bool:
    """Tell whether a member says nothing: null, an empty list, an empty text."""
    return value is None or (isinstance(value, str | list | tuple) and not value)


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
    except DecodeError as error:
        # No types are asked for, so what is of a wrong one is a number.
        if not isinstance(error, ValidationError):
            raise
    try:
        document = json.loads(
            text, parse_int=_integer, parse_float=_number, parse_constant=_refuse_constant
        )
        # Half of a surrogate pair is no text, which json.loads does not mind.
        msgspec.json.encode(document)
    except ValueError as error:
        raise DecodeError(f"JSON is malformed: {error}") from None
    return document


def lone_surrogate(data: bytes) -> LoneSurrogate | None:
    """Return what JSON has that is no Unicode; None: nothing, or it is no JSON for other reasons.

    Args:
        data: what could not be read; the time that this takes grows with it.
    """
    if not _SURROGATE.search(data):
        return None
    try:
        document = json.loads(unmarked(data).decode(), parse_int=_integer)
        member = _member_with_half(document)
    except (ValueError, RecursionError):
        return None
    return None if member is None else LoneSurrogate(member[:_LONGEST_PATH], document)


def _member_with_half(document: object) -> str | None:
    stack: list[tuple[str, object]] = [("", document)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, str) and not is_unicode(value):
            return path
        if isinstance(value, dict):
            if not all(map(is_unicode, value)):
                return path
            dot = "." if path else ""
            stack += [
                (f"{path}{dot}{name}", inner) for name, inner in reversed(list(value.items()))
            ]
        elif isinstance(value, list):
            stack += [(f"{path}[{index}]", value[index]) for index in reversed(range(len(value)))]
    return None


def is_unicode(text: str) -> bool:
    """Tell whether a text has no half of a surrogate pair, and can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(text: str) -> object:
    return whole(float(text))


def _integer(text: str) -> object:
    return int(text) if len(text) <= _MOST_DIGITS else float(text)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


_read: Final = Decoder(Any, float_hook=_number).decode
