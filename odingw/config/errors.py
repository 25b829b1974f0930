"""Turns what msgspec says about a wrong document into one line for the operator."""

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from odingw.config.parts import Networks, Proxies
from odingw.config.types import key_text
from odingw.errors import ConfigError
from odingw.escapes import in_text

T = TypeVar("T")

_KINDS: Final = {
    "array": "a list",
    "bool": "a boolean",
    "date": "a date",
    "datetime": "a date and time",
    "dict": "a table",
    "float": "a float",
    "int": "an integer",
    "list": "a list",
    "object": "a table",
    "str": "a string",
    "time": "a time",
}
"""What msgspec or Python calls a type, and what TOML calls it."""

_WITH_PATH = re.compile(r"(?P<text>.*) - at `\$(?P<path>[^`]*)`", re.DOTALL)
_STEP = re.compile(r"\.([A-Za-z0-9_]+)|\[([0-9]+|\.\.\.)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_WRONG_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_OUT_OF_RANGE = re.compile(r"Expected `(?:int|float)` [<>]=? |Number out of range")
_TOO_SHORT = re.compile(r"Expected `\w+` of length >= 1\b")
_UNKNOWN_CHOICE = re.compile(r"Invalid enum value ")


def config_error(source: str, key: str, text: str) -> ConfigError:
    """Build the error for a key; whatever would break or garble the line is escaped.

    Args:
        source: name of the file, or of the option.
        key: path of the key; empty: the text is about the whole.
        text: what is wrong and what is wanted.
    """
    line = ": ".join(part for part in (source, key, text) if part)
    return ConfigError(in_text(line))


def convert(
    document: object, wanted: type[T], source: str, at: str = "", description: str = ""
) -> T:
    """Make a section of plain values.

    Args:
        document: what the TOML parser returned.
        wanted: the section's type.
        source: name of the file.
        at: path of the key that holds the section.
        description: what is wanted there, where the type does not say.

    Raises:
        ConfigError: it does not fit.
    """
    try:
        return msgspec.convert(document, wanted, dec_hook=_from_text)
    except msgspec.ValidationError as error:
        key, text = _explain(
            error, document, Annotated[wanted, msgspec.Meta(description=description)]
        )
        raise config_error(source, _join(at, key), text) from None


def _from_text(wanted: type, value: object) -> Any:
    if (wanted is Networks or wanted is Proxies) and isinstance(value, list):
        return wanted.parse(value)
    if wanted is Path and isinstance(value, str):
        if not value or "\0" in value:
            raise ValueError(": not the path of a file; write one")
        return Path(value)
    kind = "list" if wanted in (Networks, Proxies) else "string"
    got = type(value).__name__
    raise ValueError(f": expected a {kind}, got {_KINDS.get(got, got)}")


def _explain(error: msgspec.ValidationError, document: object, wanted: object) -> tuple[str, str]:
    """The path of the key at fault and what is wrong with it."""
    message = str(error)
    found = _WITH_PATH.fullmatch(message)
    path, text = (found["path"], found["text"]) if found else ("", message)
    steps = [name or index for name, index in _STEP.findall(path)]
    hint, description = _follow(wanted, steps)
    advice = f"; write {description}" if description else ""
    key = path.removeprefix(".")

    if error.__cause__ is not None:
        inner, _, text = text.partition(": ")
        return _join(key, inner), text if "; " in text else text + advice
    if unknown := _UNKNOWN.fullmatch(text):
        return _join(key, key_text(unknown[1])), f"unknown key; {_nearest(unknown[1], hint)}"
    if missing := _MISSING.fullmatch(text):
        _, description = _follow(wanted, [*steps, missing[1]])
        return _join(key, missing[1]), f"missing; write {description or 'it'}"
    if types_ := _WRONG_TYPE.match(text):
        if types_[1] in {"object", "object | null"} and not advice:
            advice = f"; write a [{key}] table"
        names = [name for name in types_[1].split(" | ") if name != "null"]
        # A whole number passes for a float.
        expected = " or ".join("a number" if n == "float" else _KINDS.get(n, n) for n in names)
        return key, f"expected {expected}, got {_KINDS.get(types_[2], types_[2])}{advice}"
    if _OUT_OF_RANGE.match(text):
        return key, f"{_value_at(document, steps)} is out of range{advice}"
    if _TOO_SHORT.match(text):
        return key, f"empty{advice}"
    if _UNKNOWN_CHOICE.match(text):
        return key, f"unknown value{advice}"
    return key, text.replace("`", "") + advice


def _follow(wanted: object, steps: Sequence[str]) -> tuple[object, str]:
    """The type that a path leads to, and its description; an item of a list has the list's."""
    hint, description = _undress(wanted)
    for step in steps:
        inner: object = None
        for arm in _arms(hint):
            if isinstance(arm, type) and issubclass(arm, msgspec.Struct):
                inner = get_type_hints(arm, include_extras=True).get(step, inner)
                description = ""
            elif get_origin(arm) is tuple:
                inner = get_args(arm)[0]
        hint, own = _undress(inner)
        description = own or description
    return hint, description


def _undress(hint: object) -> tuple[object, str]:
    """A type without its annotation, and the annotation's description or that of an arm."""
    description = ""
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        described = (note.description for note in notes if isinstance(note, msgspec.Meta))
        description = next(filter(None, described), "")
    if not description and _is_union(hint):
        description = next(filter(None, (_undress(arm)[1] for arm in get_args(hint))), "")
    return hint, description


def _is_union(hint: object) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _arms(hint: object) -> list[object]:
    return [_undress(arm)[0] for arm in get_args(hint)] if _is_union(hint) else [hint]


def _nearest(name: str, hint: object) -> str:
    """Which known key may have been meant, else all of them."""
    known = [
        field
        for arm in _arms(hint)
        if isinstance(arm, type) and issubclass(arm, msgspec.Struct)
        for field in arm.__struct_fields__
    ]
    near = difflib.get_close_matches(name[:60], known, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


def _value_at(document: object, steps: Sequence[str]) -> str:
    for step in steps:
        if isinstance(document, Mapping):
            document = document.get(step)
        elif isinstance(document, Sequence) and step.isdigit():
            document = document[int(step)]
    # Nothing but numbers, which are no secrets, and none so long that str() refuses it.
    if isinstance(document, float) or (isinstance(document, int) and abs(document) < 10**30):
        return str(document)
    return "the value"


def _join(outer: str, inner: str) -> str:
    return outer + ("" if not (outer and inner) or inner.startswith("[") else ".") + inner
