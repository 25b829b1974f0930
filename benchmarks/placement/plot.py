"""Draws the loads of all servers over time, under the existing rule and under the product's."""

from importlib import import_module
from typing import Final

from benchmarks.placement.comparison import Task, run_task
from benchmarks.placement.scenarios import EVENT, Fleet, Scenario

_BEFORE: Final = 60.0
_AFTER: Final = 300.0


def plot(path: str, scenario: Scenario, fleet: Fleet) -> None:
    """Write a picture to a file, in the format that its name says; needs matplotlib.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # Only pictures need it, so it may be missing.
    figures = import_module("matplotlib.figure")
    policies = {"existing": "Existing rule", "product": "Lowest expected load"}
    run = run_task(Task(scenario, fleet, 0, policies=tuple(policies), keep_loads=True))
    figure = figures.Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (name, title) in zip(axes, policies.items(), strict=True):
        seconds = range(int(EVENT - _BEFORE), int(EVENT + _AFTER))
        since = [second - EVENT for second in seconds]
        loads = run[name].loads
        for server in range(fleet.servers):
            percent = [100 * loads[second][server] for second in seconds]
            axis.plot(since, percent, linewidth=0.7)
        axis.axhline(100, color="black", linestyle=":")
        axis.set_title(title)
        axis.set_xlabel("seconds after the first join of the crowd")
    axes[0].set_ylabel("load of each server, %")
    figure.savefig(path)
