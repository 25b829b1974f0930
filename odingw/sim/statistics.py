"""What a crowd of simulated clients has seen."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


def percentile(values: Iterable[float], fraction: float) -> float:
    """Return the smallest value that at least a fraction of all values do not exceed.

    Args:
        values: in any order.
        fraction: 0 to 1.

    Returns:
        The value; 0 if there are none.
    """
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-fraction * len(ordered) // 1) - 1))]


@dataclass(slots=True)
class Statistics:
    """Counts of everything that happened to a crowd, and how long its calls took.

    Attributes:
        asked: clients that called ``Connect``.
        granted: those who were given a server.
        refused: those who were not, by reason (the code, where the error has none).
        unreachable: those who got no reply.
        misbehaviours: replies against the wire reference, and room tokens that no server should
            ever have been shown.
        joined: clients that their server let in.
        join_failures: those whom it did not, by reason.
        present: clients that are in a room now.
        left: clients that stayed for as long as they wanted.
        thrown_out: those who could not: kicked, or their room or server was closed.
        split: grants for a room that still had peers on another running server.
        latencies: seconds from the moment when a client meant to call to its grant, one per grant.
    """

    asked: int = 0
    granted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unreachable: int = 0
    misbehaviours: int = 0
    joined: int = 0
    join_failures: Counter[str] = field(default_factory=Counter)
    present: int = 0
    left: int = 0
    thrown_out: int = 0
    split: int = 0
    latencies: "array[float]" = field(default_factory=lambda: array("d"))

    def summary(self, since: int = 0) -> str:
        """Return one line for people.

        Args:
            since: how many of the latencies, the oldest ones, to leave out.
        """
        parts = [f"{self.asked} clients", f"{self.granted} granted", f"{self.present} present"]
        if self.refused:
            parts.append(f"refused: {_list(self.refused)}")
        if self.join_failures:
            parts.append(f"not let in: {_list(self.join_failures)}")
        for count, what in (
            (self.unreachable, "without reply"),
            (self.thrown_out, "thrown out"),
            (self.split, "grants that split a room"),
            (self.misbehaviours, "MISBEHAVIOURS"),
        ):
            if count:
                parts.append(f"{count} {what}")
        latencies = self.latencies[since:]
        if latencies:
            p50, p99 = (1000 * percentile(latencies, fraction) for fraction in (0.5, 0.99))
            parts.append(f"Connect p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        return ", ".join(parts)


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
