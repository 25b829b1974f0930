"""Runs the policies in pairs over many seeds, and sums up how the product's compares."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import sqrt
from multiprocessing import Pool
from typing import Final

from msgspec import Struct

from benchmarks.placement.policies import Existing, Ideal, Policy, Server, TwoChoices
from benchmarks.placement.product import Product
from benchmarks.placement.scenarios import Fleet, Scenario
from benchmarks.placement.simulation import Outcome, Simulation
from benchmarks.placement.world import generator, make_world

POLICIES: Final = ("product", "existing", "two choices", "ideal")
"""The names of the policies."""

Run = dict[str, Outcome]
"""What the policies did with one world, by name."""

_SHARING: Final = 0.03
_SHARING_NOISY: Final = 0.06


class Task(Struct, frozen=True):
    """One world to run all policies on.

    Attributes:
        gateways: how many gateways of the product share the work.
        keep_loads: whether the outcomes are to hold all loads over time.
    """

    scenario: Scenario
    fleet: Fleet
    seed: int
    gateways: int = 1
    policies: tuple[str, ...] = POLICIES
    keep_loads: bool = False


class Ratio(Struct, frozen=True):
    """A mean over the seeds by another one.

    Attributes:
        value: the ratio.
        error: its standard error.
    """

    value: float
    error: float


class Summary(Struct, frozen=True, kw_only=True):
    """How the product's rule did in one scenario with one fleet, over all seeds.

    Attributes:
        hottest: the load of its hottest server over the ideal's.
        peak: its peak over the ideal's.
        excess: its excess over the existing rule's.
        existing: the load of the existing rule's hottest server over the ideal's.
        two: the same of two choices.
        of_existing: the load of its hottest server over the existing rule's.
        overloaded: the fraction of joins that found their server full, by policy.
        most_hottest: the target for ``hottest``, None: there is none.
        most_excess: the target for ``excess``, None: there is none.
    """

    scenario: Scenario
    fleet: Fleet
    hottest: Ratio
    peak: Ratio
    excess: Ratio
    existing: Ratio
    two: Ratio
    of_existing: Ratio
    overloaded: dict[str, float]
    most_hottest: float | None
    most_excess: float | None

    def missed(self) -> list[str]:
        """Return what is missed, each in a few words."""
        missed = []
        if self.most_hottest is not None and self.hottest.value > self.most_hottest:
            missed.append(f"hottest {self.hottest.value:.3f} > {self.most_hottest:.2f}")
        if self.most_excess is not None and self.excess.value > self.most_excess:
            missed.append(f"excess {self.excess.value:.2f} > {self.most_excess:.2f}")
        full, existing = self.overloaded["product"], self.overloaded["existing"]
        if self.scenario.halves_overload and full > existing / 2:
            missed.append(f"joins above 100 % {full:.1%} > half of {existing:.1%}")
        most = self.scenario.of_existing
        if most is not None and self.of_existing.value > most:
            missed.append(f"of existing {self.of_existing.value:.2f} > {most:.1f}")
        return missed


def run_task(task: Task) -> Run:
    """Run the policies on one world."""
    world = make_world(task.scenario, task.fleet, task.seed)
    makers: dict[str, Callable[..., Policy]] = {
        "product": partial(Product, gateways=task.gateways),
        "existing": Existing,
        "two choices": TwoChoices,
        "ideal": Ideal,
    }
    run: Run = {}
    for name in task.policies:
        rng = generator("policy", name, task.scenario.name, task.fleet.servers, task.seed)

        def make(servers: Sequence[Server], name: str = name, rng: object = rng) -> Policy:
            return makers[name](servers, rng)

        run[name] = Simulation(world, make, keep_loads=task.keep_loads).run()
    return run


def compare(
    scenarios: Sequence[Scenario],
    fleets: Sequence[Fleet],
    *,
    seeds: int,
    gateways: int = 1,
    workers: int = 2,
) -> Iterator[Summary]:
    """Yield a summary for each scenario and fleet, each as soon as it is there."""
    pairs = [(scenario, fleet) for scenario in scenarios for fleet in fleets]
    tasks = [
        Task(scenario, fleet, seed, gateways) for scenario, fleet in pairs for seed in range(seeds)
    ]
    with Pool(workers, os.nice, (10,)) as pool:
        runs = pool.imap(run_task, tasks)
        for scenario, fleet in pairs:
            yield summarise(scenario, fleet, [next(runs) for _ in range(seeds)], gateways)


def summarise(scenario: Scenario, fleet: Fleet, runs: Sequence[Run], gateways: int = 1) -> Summary:
    """Sum up the runs of one scenario with one fleet, one run per seed."""

    def ratio(upper: str, lower: str, attribute: str = "hottest") -> Ratio:
        return ratio_of_means(
            [getattr(run[upper], attribute) for run in runs],
            [getattr(run[lower], attribute) for run in runs],
        )

    target = scenario.targets.get(fleet.servers)
    sharing = 0.0
    if gateways > 1:
        sharing = _SHARING_NOISY if scenario.noise else _SHARING
    return Summary(
        scenario=scenario,
        fleet=fleet,
        hottest=ratio("product", "ideal"),
        peak=ratio("product", "ideal", "peak"),
        excess=ratio("product", "existing", "excess"),
        existing=ratio("existing", "ideal"),
        two=ratio("two choices", "ideal"),
        of_existing=ratio("product", "existing"),
        overloaded={
            name: sum(run[name].overloaded for run in runs)
            / max(1, sum(run[name].joins for run in runs))
            for name in POLICIES
        },
        most_hottest=1 + target.peak + sharing if target else None,
        most_excess=target.excess if target else None,
    )


def ratio_of_means(upper: Sequence[float], lower: Sequence[float]) -> Ratio:
    """Return the ratio of the means of paired figures, with its standard error."""
    count = len(upper)
    value = sum(upper) / sum(lower)
    if count < 2:
        return Ratio(value, 0.0)
    squares = sum((up - value * low) ** 2 for up, low in zip(upper, lower, strict=True))
    return Ratio(value, sqrt(squares / (count - 1) / count) / (sum(lower) / count))
