"""What a run found: a table, and the promises that were broken."""

import sys
from collections.abc import Callable, Sequence
from typing import Final

_SHOWN: Final = 5


class Findings:
    """Rows of a table that is printed as it grows, and broken promises.

    Args:
        title: of the table.
        columns: their names; none where there are only promises.
        write: takes text; None: standard output.

    Attributes:
        broken: one line for each broken promise.
        rows: what was printed.
        promises: promise, figure and verdict of each one that was put so.
    """

    def __init__(
        self, title: str, columns: Sequence[str] = (), write: Callable[[str], object] | None = None
    ) -> None:
        self.title = title
        self.promises: list[tuple[str, str, str]] = []
        self.broken: list[str] = []
        self.rows: list[tuple[object, ...]] = []
        self._write = write or sys.stdout.write
        self._widths = [max(len(name), 7) + 2 for name in columns]
        self._say(f"\n{title}")
        if columns:
            self._line(columns)

    def row(self, *cells: object) -> None:
        """Add a row."""
        self.rows.append(cells)
        self._line(cells)

    def expect(self, promise: str, broken: Sequence[object] | int) -> None:
        """Take note of how often a promise was broken.

        Args:
            promise: what should be so.
            broken: the cases in which it was not, or how many there are.
        """
        count = broken if isinstance(broken, int) else len(broken)
        if count:
            shown = "" if isinstance(broken, int) else f", such as {list(broken[:_SHOWN])}"
            line = f"BROKEN: {promise}: {count} times{shown}"
            self.broken.append(line)
            self._say(line)

    def note(self, text: str) -> None:
        """Print a line below the rows."""
        self._say(text)

    def promise(self, promise: str, kept: bool, figure: object) -> None:
        """Say whether a promise was kept, and by what figure one sees that.

        Args:
            promise: what should be so.
            kept: whether it is.
            figure: what was counted or measured.
        """
        verdict = "kept" if kept else "NOT kept"
        self.promises.append((promise, _text(figure), verdict))
        self._say(f"  {verdict:<8}  {promise}: {_text(figure)}")
        if not kept:
            self.broken.append(f"NOT kept: {promise}: {_text(figure)}")

    def _line(self, cells: Sequence[object]) -> None:
        self._say("".join(f"{_text(cell):>{width}}" for cell, width in self._widths_of(cells)))

    def _widths_of(self, cells: Sequence[object]) -> list[tuple[object, int]]:
        return list(zip(cells, self._widths, strict=True))

    def _say(self, text: str) -> None:
        self._write(f"{text}\n")


def _text(cell: object) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
