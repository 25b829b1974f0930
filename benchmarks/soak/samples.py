"""What a gateway process holds, looked at again and again, and whether that grows."""

import csv
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from msgspec import Struct

from benchmarks.faults.gateways import Gateway

MEASURES: Final = ("rss_kib", "descriptors", "delayed", "deferreds", "threads")
_IN_FLIGHT: Final = frozenset(("delayed", "deferreds"))
"""What goes up and down with the requests under way, and up when the machine is busy: what leaks
is there at the quietest moments too."""

_WARM_UP: Final = 0.2
"""The part of a process's life that is not judged: caches fill, and the allocator's arenas."""


class Sample(Struct, frozen=True):
    """A look at a process.

    Attributes:
        at: seconds since the soak began.
        gateway: its name.
        pid: the process.
        rss_kib: memory (``VmRSS``), KiB.
        descriptors: open file descriptors.
        delayed: calls that the reactor will make.
        deferreds: Deferreds that have not fired.
        threads: of the process.
        cpu: seconds of processor time since its start.
    """

    at: float
    gateway: str
    pid: int
    rss_kib: int
    descriptors: int
    delayed: int
    deferreds: int
    threads: int
    cpu: float


async def look(gateway: Gateway, at: float) -> Sample | None:
    """Look at a gateway's process; None if it does not answer."""
    process = gateway.process
    if process is None or process.poll() is not None:
        return None
    page = (await gateway.admin_page("/monitor/threads")).body.decode(errors="replace")
    delayed = re.search(r"^(\d+) delayed calls$", page, re.MULTILINE)
    deferreds = re.search(r"^(\d+) open Deferreds$", page, re.MULTILINE)
    if delayed is None or deferreds is None:
        return None
    folder = Path(f"/proc/{process.pid}")
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Sample(
        at,
        gateway.name,
        process.pid,
        int(status["VmRSS"].split()[0]),
        len(list((folder / "fd").iterdir())),
        int(delayed[1]),
        int(deferreds[1]),
        int(status["Threads"]),
        ticks / os.sysconf("SC_CLK_TCK"),
    )


class Trend(Struct, frozen=True):
    """How a measure went while a process lived.

    Attributes:
        measure: its name.
        middle: the median.
        growth: what it gained from the end of the warm-up to the end, by a robust slope.
        allowed: how much of that still counts as flat.
    """

    measure: str
    middle: float
    growth: float
    allowed: float

    @property
    def flat(self) -> bool:
        """Whether it did not grow."""
        return self.growth <= self.allowed


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between all pairs of points (Theil and Sen).

    Up to a quarter of the points may be anywhere without changing much.
    """
    rises = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(points)
        for later in points[index + 1 :]
        if later[0] > earlier[0]
    ]
    return median(rises) if rises else 0.0


def _lows(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the lowest of each tenth of the points."""
    size = max(1, len(points) // 10)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [min(group, key=lambda point: point[1]) for group in groups]


def longest_lives(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Return the samples of the process of each gateway that was looked at most often."""
    lives: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        lives.setdefault((sample.gateway, sample.pid), []).append(sample)
    longest: dict[str, list[Sample]] = {}
    for (name, _), life in lives.items():
        if len(life) > len(longest.get(name, [])):
            longest[name] = life
    return longest


def trends(life: Sequence[Sample], memory_slack_kib: int) -> list[Trend]:
    """Tell how the measures went after the warm-up.

    Args:
        life: samples of one process.
        memory_slack_kib: growth of memory that still counts as flat.
    """
    judged = life[int(len(life) * _WARM_UP) :]
    # Some hundred points say as much as thousands, whose pairs are millions.
    judged = judged[:: max(1, len(judged) // 300)]
    allowed = {
        "rss_kib": float(memory_slack_kib),
        "descriptors": 3.0,
        "delayed": 5.0,
        "deferreds": 10.0,
        "threads": 1.0,
    }
    found = []
    for measure in MEASURES:
        points = [(one.at, float(getattr(one, measure))) for one in judged]
        if measure in _IN_FLIGHT:
            points = _lows(points)
        growth = slope(points) * (points[-1][0] - points[0][0]) if points else 0.0
        middle = median(value for _, value in points) if points else 0.0
        found.append(Trend(measure, middle, growth, allowed[measure]))
    return found


def write_csv(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples to a file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Sample.__struct_fields__)
        for sample in samples:
            writer.writerow([getattr(sample, name) for name in Sample.__struct_fields__])


def plot(path: Path, samples: Sequence[Sample]) -> bool:
    """Draw the measures over time; False where matplotlib is not installed."""
    try:
        import matplotlib as mpl  # type: ignore[import-not-found]  # optional
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(MEASURES), 1, sharex=True, figsize=(9, 11))
    lives: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        lives.setdefault((sample.gateway, sample.pid), []).append(sample)
    names = sorted({name for name, _ in lives})
    for axis, measure in zip(axes, MEASURES, strict=True):
        for (name, _), life in lives.items():
            axis.plot(
                [one.at / 60 for one in life],
                [getattr(one, measure) for one in life],
                color=f"C{names.index(name)}",
                label=name if life[0].at <= lives_begin(samples, name) else None,
            )
        axis.set_ylabel(measure)
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend(loc="lower right")
    axes[-1].set_xlabel("minutes (a line ends where its process does)")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return True


def lives_begin(samples: Sequence[Sample], name: str) -> float:
    """Return when a gateway was first looked at."""
    return next(sample.at for sample in samples if sample.gateway == name)
