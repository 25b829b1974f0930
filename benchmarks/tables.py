"""Tables that people can read, and that are reStructuredText as well."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import attrs

from odingw import __version__

Cell = str | float | None

_GAP: Final = "  "


@attrs.define
class Table:
    """What a benchmark found.

    Attributes:
        title: what was measured.
        columns: their names, with units; the first one names the rows.
        rows: texts, numbers, and None where nothing was measured.
        notes: sentences that stand below the table.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)

    def add(self, *cells: Cell) -> None:
        """Add a row; columns that are not given stay empty."""
        missing = len(self.columns) - len(cells)
        self.rows.append((*cells, *[None] * missing))

    def not_available(self, name: str, reason: str) -> None:
        """Add a row for something that could not be measured."""
        self.add(name, "not available")
        self.notes.append(f"{name} is not available: {reason}")

    def lines(self) -> Iterator[str]:
        """Yield the table as a simple table of reStructuredText, with title and notes."""
        texts = [[_text(cell) for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        border = _GAP.join("=" * width for width in widths)
        yield from (self.title, "-" * len(self.title), "", border)
        for number, row in enumerate(texts):
            cells = [row[0].ljust(widths[0])]
            cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
            yield _GAP.join(cells)
            if number == 0:
                yield border
        yield from (border, "")
        for note in self.notes:
            yield from (note, "")


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 1_000:
        return f"{cell:,.0f}"
    # Three figures: more would pretend to a precision that no such measurement has.
    return f"{cell:,.3g}" if abs(cell) < 100 else f"{cell:.0f}"


def heading(title: str) -> Iterator[str]:
    """Yield a title, and a line each on when and on what it is measured."""
    versions = f"odingw {__version__}, Twisted {version('twisted')}"
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    yield from (title, "=" * len(title), "")
    yield f":Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    yield f":Machine: {_cpu_model()}, {os.cpu_count()} cores, {platform.system()}"
    yield f":Software: Python {platform.python_version()}, {versions}"
    yield f":Load average before: {load}"
    yield ""


class Disturbance:
    """Finds out what others used of the machine from now on, the host included."""

    def __init__(self) -> None:
        self._before = self._times()

    def share(self) -> float:
        """Return the share of all cores that was not left to this process and its children.

        Children count once they have ended and been waited for.
        """
        wall, all_used, own = (
            after - before for before, after in zip(self._before, self._times(), strict=True)
        )
        return max(0.0, all_used - own) / (wall * (os.cpu_count() or 1))

    def _times(self) -> tuple[float, float, float]:
        with Path("/proc/stat").open(encoding="ascii") as file:
            ticks = [int(text) for text in file.readline().split()[1:9]]
        # user, nice, system, idle, iowait, irq, softirq, steal
        used = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        return time.monotonic(), used, mine


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
