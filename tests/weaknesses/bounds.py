"""What strangers may fill, and rooms that they may take."""

from typing import Final

from tests.weaknesses.rows import Weakness

BOUNDS: Final[tuple[Weakness, ...]] = ()
