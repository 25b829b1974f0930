"""What closes which weakness, as data: those of the two existing systems, and others.

Each row names what closes the weakness, how to take that out of the source, and a test that then
fails: ``python -m tests.weaknesses.mutate`` does so. ``python -m tests.weaknesses.table`` prints
the two tables for ``docs/security.rst``.
"""

import sys
import textwrap
from collections.abc import Sequence
from typing import Final

from tests.weaknesses.bounds import BOUNDS
from tests.weaknesses.connections import CONNECTIONS
from tests.weaknesses.gateway import OF_THE_GATEWAY
from tests.weaknesses.internal import INTERNAL
from tests.weaknesses.keys import KEYS
from tests.weaknesses.rows import Weakness
from tests.weaknesses.smuggling import SMUGGLING
from tests.weaknesses.turnrest import OF_TURNREST

EXISTING: Final[tuple[Weakness, ...]] = OF_THE_GATEWAY + OF_TURNREST
OTHERS: Final[tuple[Weakness, ...]] = KEYS + INTERNAL + CONNECTIONS + SMUGGLING + BOUNDS
TABLE: Final[tuple[Weakness, ...]] = EXISTING + OTHERS


def rst(rows: Sequence[Weakness], *, systems: bool) -> str:
    """Return a table in reStructuredText.

    Args:
        rows: what stands in it.
        systems: whether it says which existing system has each weakness.
    """
    cells = [("existing system", "weakness", "here", "test")]
    cells += [
        (row.system, row.weakness, row.defence, f"``{row.test.rpartition('::')[2]}``")
        for row in rows
    ]
    widths = (12, 38, 30, 20)
    first = 0 if systems else 1
    lines = [".. list-table::", "   :header-rows: 1"]
    lines += [f"   :widths: {' '.join(map(str, widths[first:]))}", ""]
    for row in cells:
        for number, cell in enumerate(row[first:]):
            start = "   * - " if number == 0 else "     - "
            lines += textwrap.wrap(
                cell,
                98,
                initial_indent=start,
                subsequent_indent=" " * 7,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(rst(EXISTING, systems=True) + "\n" + rst(OTHERS, systems=False))
