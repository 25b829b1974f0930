"""What strangers may do with connections and HTTP."""

from typing import Final

from tests.weaknesses.rows import Weakness

CONNECTIONS: Final[tuple[Weakness, ...]] = ()
