"""Counts by labels, and times by one label, at the price of a dictionary.

They are on the path of every call, where those of ``prometheus_client``, which threads share, cost
five times as much; it still writes the page.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Tally(Collector):
    """A counter; for one thread.

    Args:
        name: of the metric, without ``_total``.
        text: what it counts.
        labels: their names.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._counts: defaultdict[tuple[str, ...], int] = defaultdict(int)

    def add(self, *values: str, count: int = 1) -> None:
        """Count; a count of 0 makes the series appear."""
        self._counts[values] += count

    def counts(self) -> Iterator[tuple[dict[str, str], int]]:
        """Yield labels and count of each series."""
        for values, count in self._counts.items():
            yield dict(zip(self._labels, values, strict=True)), count

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as it is now."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in self._counts.items():
            family.add_metric(values, count)
        yield family


class Times(Collector):
    """A histogram of seconds by one label; for one thread.

    Args:
        name: of the metric.
        text: what takes so long.
        label: its name.
        buckets: their upper bounds, ascending; one without a bound is added.
    """

    def __init__(self, name: str, text: str, label: str, buckets: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._label = label
        self._bounds = tuple(buckets)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, value: str, seconds: float) -> None:
        """Take in how long something took."""
        counts = self._counts.get(value)
        if counts is None:
            counts = self._counts[value] = [0] * (len(self._bounds) + 1)
            self._sums[value] = 0.0
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[value] += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as it is now."""
        family = HistogramMetricFamily(self._name, self._text, labels=(self._label,))
        names = (*map(str, self._bounds), "+Inf")
        for value, counts in self._counts.items():
            total = 0
            buckets: list[tuple[str, float]] = []
            for name, count in zip(names, counts, strict=True):
                total += count
                buckets.append((name, total))
            family.add_metric((value,), buckets, self._sums[value])
        yield family
