"""JSON that others write, read so that one number spoils nothing but itself."""

import json
from typing import Any, Final

import msgspec

_MOST_DIGITS: Final = 400
"""Digits of an integer that is read as it is; those of the largest double are 309."""


def decode(data: bytes) -> Any:
    """Read a document; a number that no double holds becomes an infinite one.

    So whoever reads that very number refuses it by its name, and all others read the rest.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
        msgspec.DecodeError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    text = data.decode()
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        # No types are asked for, so what is of a wrong one is a number.
        if not isinstance(error, msgspec.ValidationError):
            raise
    try:
        document = json.loads(text, parse_int=_integer, parse_constant=_refuse)
        # Half of a surrogate pair is no text, which json.loads does not mind.
        msgspec.json.encode(document)
    except ValueError as error:
        raise msgspec.DecodeError(f"JSON is malformed: {error}") from None
    return document


def _integer(text: str) -> float:
    return int(text) if len(text) <= _MOST_DIGITS else float(text)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number")
