"""What msgspec says about wrong parameters, and one readable line of it."""

import re
from typing import Final

from msgspec import ValidationError

_WHERE: Final = re.compile(r"^(?P<what>.*?)(?: - at `(?P<where>.*)`)?$", re.DOTALL)
_TYPES: Final = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`")
_NAMES: Final = {
    "str": "text",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
}


def _names(match: re.Match[str]) -> str:
    return " or ".join(_NAMES.get(name, name) for name in match[1].split(" | "))


def readable(error: ValidationError, root: str) -> str:
    """Return the error as ``field: what is wrong``, in one line.

    Args:
        error: what msgspec raised.
        root: how to call the value itself, where no field of it is to blame.
    """
    match = _WHERE.match(str(error))
    what, where = (match["what"], match["where"]) if match else (str(error), None)
    if what.startswith("Expected"):
        what = _TYPES.sub(_names, what)
    place = (where or "$").removeprefix("$").removeprefix(".") or root
    return " ".join(f"{place}: {what[:1].lower()}{what[1:]}".split())
