"""Is the gateway alive, and should it get traffic?"""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct


class Check(Struct, frozen=True):
    """The outcome of a health check."""

    healthy: bool
    message: str


CheckFunction: TypeAlias = Callable[[], Check]


class Health:
    """Named checks, and whether the gateway is on its way out.

    Attributes:
        stopping: set when the process is to end; not ready from then on.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._checks: dict[str, CheckFunction] = {}

    def add(self, name: str, check: CheckFunction) -> None:
        """Add a check that must hold for the gateway to be ready."""
        self._checks[name] = check

    def results(self) -> dict[str, Check]:
        """Carry out all checks."""
        results = {name: check() for name, check in self._checks.items()}
        results["shutdown"] = Check(
            not self.stopping, "shutting down" if self.stopping else "not shutting down"
        )
        return results

    @property
    def ready(self) -> bool:
        """Whether all checks hold."""
        return all(check.healthy for check in self.results().values())
