"""What a run is asked for, and what makes a part of it impossible."""

from pathlib import Path
from typing import Final

import attrs

STATES: Final = ("memory:", "sqlite:", "redis:")


class BenchmarkError(Exception):
    """Something that was measured is wrong, or cannot be measured; the text is for people."""


class NotAvailable(BenchmarkError):  # noqa: N818  -- no failure: a row of the table says so
    """The gateway, or the machine, does not have what is to be measured."""


@attrs.frozen
class Options:
    """What a run is asked for.

    Attributes:
        quick: measure for a short time; the figures are less steady.
        states: state URLs; ``sqlite:`` and ``redis:`` alone stand for ones of the run's own.
        plot: a folder for plots, where there are any.
    """

    quick: bool = False
    states: tuple[str, ...] = STATES
    plot: Path | None = None

    @property
    def seconds(self) -> int:
        """How long to measure under load."""
        return 3 if self.quick else 10

    def count(self, full: int) -> int:
        """How often to repeat what is repeated ``full`` times in a full run."""
        return max(3, full // 5) if self.quick else full
