"""Ways to a key, or into the log."""

from typing import Final

from tests.weaknesses.rows import Weakness

KEYS: Final[tuple[Weakness, ...]] = ()
