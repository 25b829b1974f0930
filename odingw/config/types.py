"""What the sections of the configuration are built from: their base and the types of their values.

Types and plain bounds are declared, with what is wanted as the description that error messages
quote. The checks raise ``ValueError`` with a text that begins with the key.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from odingw.config.parts import Networks, Proxies

TEN_YEARS: Final = 315_360_000
_MANY: Final = 2**31 - 1
_HOST_PATTERN: Final = re.compile(r"[A-Za-z0-9_*-]+(\.[A-Za-z0-9_*-]+)*\.?")

LONGEST_NAME: Final = 256
"""Characters of a customer's id, a namespace and a key id: they are kept, shown and written."""

Seconds = Annotated[
    float,
    Meta(
        ge=0.001,
        le=TEN_YEARS,
        description="a number of seconds above 0 (0.001 or more), at most ten years",
    ),
]
WholeSeconds = Annotated[
    int, Meta(ge=1, le=TEN_YEARS, description="a whole number of seconds, at least 1")
]
Count = Annotated[int, Meta(ge=1, le=_MANY, description="a whole number, at least 1")]
CountOrNone = Annotated[int, Meta(ge=0, le=_MANY, description="a whole number, 0 or more")]
CountOrOff = Annotated[int, Meta(ge=0, le=_MANY, description="a whole number, or 0 for no limit")]
RateOrOff = Annotated[
    float, Meta(ge=0, le=_MANY, description="a number of requests per second, or 0 for no limit")
]
Switch = Annotated[bool, Meta(description="true or false, without quotes")]
Text = Annotated[str, Meta(min_length=1, description="a text that is not empty, in quotes")]
Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=LONGEST_NAME,
        description=f"a text of 1 to {LONGEST_NAME} characters, in quotes",
    ),
]
FilePath = Annotated[Path, Meta(description="the path of a file, in quotes")]
EndpointList = Annotated[
    tuple[str, ...], Meta(description='a list of endpoint strings such as ["tcp:7000"]')
]
NetworkList = Annotated[
    Networks, Meta(description='a list of networks such as ["127.0.0.0/8", "::1/128"]')
]
ProxyList = Annotated[
    Proxies, Meta(description='a list of networks such as ["127.0.0.0/8"], or of "unix"')
]
PatternList = Annotated[
    tuple[str, ...],
    Meta(description='a list of address patterns such as ["*.voice.example:4433"]'),
]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file.

    Attributes:
        hidden_keys: keys whose values ``repr`` does not show.
    """

    hidden_keys: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        """Show every field but the secret ones."""
        shown = (
            f"{name}={'…' if name in self.hidden_keys else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def key_text(name: str) -> str:
    """A key as it is written in TOML: bare where it can be, else quoted; long ones are cut."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name):
        return name
    shown = name if len(name) <= 60 else f"{name[:57]}…"
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'


def check_users(users: Mapping[str, object]) -> None:
    """Refuse user names that HTTP Basic cannot carry.

    Raises:
        ValueError: the text begins with the user's key.
    """
    for name in users:
        # RFC 7617, section 2: the first colon ends the user name; control characters are invalid.
        if not name or ":" in name or not name.isprintable():
            raise ValueError(
                f"users.{key_text(name)}: not a user name; "
                "write one that is not empty and has no colon or control character"
            )


def check_patterns(key: str, patterns: Iterable[str]) -> None:
    """Refuse address patterns that no address can match.

    Raises:
        ValueError: the text begins with the item's key.
    """
    for index, pattern in enumerate(patterns):
        if not pattern or pattern != pattern.strip():
            raise ValueError(
                f"{key}[{index}]: {pattern!r} matches no address; "
                'write a pattern such as "*.voice.example:4433"'
            )


def check_hosts(key: str, names: Iterable[str]) -> None:
    """Refuse patterns of host names that no ``Host`` can match.

    Raises:
        ValueError: the text begins with the item's key.
    """
    for index, name in enumerate(names):
        if not _HOST_PATTERN.fullmatch(name):
            shown = name if len(name) <= 60 else f"{name[:57]}…"
            raise ValueError(
                f"{key}[{index}]: {shown!r} is no host name; write one without scheme and port, "
                'such as "odingw" or "*.svc.cluster.local"'
            )
