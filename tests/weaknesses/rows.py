"""What a row of the table of weaknesses is."""

from typing import Final, NamedTuple

GATEWAY: Final = "gateway"
TURN: Final = "TurnRest"
NEITHER: Final = ""
"""Of a row that is about odingw alone."""


class Edit(NamedTuple):
    """A replacement in one file, of a text that is there exactly once."""

    file: str
    old: str
    new: str


class Weakness(NamedTuple):
    """One row.

    Attributes:
        id: its name.
        system: which existing system has it, if any.
        weakness: what it is.
        defence: what closes it here.
        test: file, class and name of the test, as pytest writes them.
        edits: what takes the defence out.
    """

    id: str
    system: str
    weakness: str
    defence: str
    test: str
    edits: tuple[Edit, ...]
