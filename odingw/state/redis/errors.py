"""What can go wrong with Redis."""

import re
from typing import Final

from odingw.errors import OdingwError

_FIRST_WORD = re.compile(r"-?([A-Z]+)")
_IN_SCRIPT = re.compile(r"(?:user_script|f_[0-9a-f]{40}).*: -([A-Z]+) ", re.DOTALL)
"""How Redis before 7 wraps the refusal of a command within a script."""

_KINDS: Final = {
    "READONLY": "readonly",
    "MASTERDOWN": "readonly",
    "LOADING": "loading",
    "OOM": "oom",
    "NOPERM": "noperm",
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "DENIED": "auth",
    "MOVED": "moved",
    "ASK": "moved",
    "TRYAGAIN": "moved",
    "CLUSTERDOWN": "moved",
    "NOREPLICAS": "noreplicas",
    "NOSCRIPT": "noscript",
    "BUSY": "busy",
    "UNKILLABLE": "busy",
}

KINDS: Final = (*dict.fromkeys(_KINDS.values()), "script", "other")
"""Kinds of refusals."""


class RedisAwayError(OdingwError):
    """Redis cannot be reached, or does not answer."""


class RedisRefusedError(OdingwError):
    """Redis answers with an error.

    Args:
        text: what Redis said.
        kind: one of :data:`KINDS`.
    """

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


def refusal(text: str) -> RedisRefusedError:
    """Make the error for what Redis said."""
    return RedisRefusedError(text, _kind_of(text))


def _kind_of(text: str) -> str:
    word = _FIRST_WORD.match(text)
    if word is None or word[1] != "ERR":
        return _KINDS.get(word[1], "other") if word else "other"
    if "ACL failure in script" in text or "can't run this command" in text:
        return "noperm"
    within = _IN_SCRIPT.search(text)
    if within:
        return _KINDS.get(within[1], "script")
    return "script" if "script" in text and "unknown" not in text else "other"
