"""Ways to ``/internal`` for those who may not use it."""

from typing import Final

from tests.weaknesses.rows import Weakness

INTERNAL: Final[tuple[Weakness, ...]] = ()
