"""What choosing costs: the algorithm that ``auto`` picks, beside the others that the shapes allow.

The regret of a layer is the time of what was chosen over the time of the fastest: 1 where the
choice was right. All are run by plans in this process, in turn; results are not compared here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import pyconv
from pyconv.bench.layers import Layer
from pyconv.bench.peers import worker
from pyconv.bench.random_layers import RANDOM, random_layers
from pyconv.bench.runner import Settings
from pyconv.cli.operators import Call, arguments

HOPELESS = 3
"""An algorithm that takes so many times as long as another in a first call is not timed further."""

NOTICED = 1.1
"""Regrets above are counted."""

_MOST_DRAWN = 64  # layers for each one wanted


@dataclass(frozen=True)
class Regret:
    """The algorithms of a layer.

    Attributes
    ----------
    layer : Layer
        The layer.
    threads : int
        Threads of each.
    chosen : str
        What ``auto`` came to.
    seconds : dict of str to float
        The median time of each algorithm.
    """

    layer: Layer
    threads: int
    chosen: str
    seconds: dict[str, float]

    @property
    def best(self) -> str:
        """The fastest."""
        return min(self.seconds, key=self.seconds.__getitem__)

    @property
    def value(self) -> float:
        """The time of the chosen one over that of the fastest."""
        return self.seconds[self.chosen] / self.seconds[self.best]


def draw(
    count: int,
    seed: int,
    groups: Sequence[str] = (),
    suits: Callable[[Layer], bool] = lambda layer: True,
) -> list[Layer]:
    """Return random layers for which several algorithms can be chosen.

    Parameters
    ----------
    count : int
        How many; fewer are returned where hardly any are found.
    seed : int
        What they follow from.
    groups : sequence of str, optional
        The classes to draw from, all by default.
    suits : callable, optional
        Says of a layer whether it is wanted.
    """
    keys = groups or [key for key in RANDOM if key != "direct"]
    size, found = count, list[Layer]()
    while len(found) < count and size <= _MOST_DRAWN * count:
        drawn = random_layers(size, seed, keys)  # begins with those of the turn before
        found = [layer for layer in drawn if suits(layer) and len(allowed(layer)) > 1]
        size *= 2
    return found[:count]


def allowed(layer: Layer) -> list[str]:
    """Return the algorithms that do not refuse the layer's shapes."""
    if "algorithm" in layer.params:  # chosen already
        return []
    op = pyconv.get(layer.operator)
    positional, keyword = arguments(op, layer.shapes)
    names = []
    for name in op.algorithms:
        if name != "auto":
            try:
                op.cost(*positional, **keyword, **layer.params, algorithm=name)
            except ValueError:
                continue
            names.append(name)
    return names


def measure(layer: Layer, threads: int, settings: Settings) -> Regret:
    """Time every algorithm of a layer.

    Parameters
    ----------
    layer : Layer
        The layer.
    threads : int
        Threads of each.
    settings : Settings
        How to measure.
    """
    op, arrays = pyconv.get(layer.operator), layer.arrays()
    with pyconv.threads(threads):
        chosen, runs = "", dict[str, Callable[[], Any]]()
        for name in ["auto", *allowed(layer)]:
            call = Call(op, arrays, {**layer.params, "algorithm": name})
            try:
                plan, given = call.plan()
            except ValueError:  # it needs more workspace than there is
                if name == "auto":
                    raise
                continue
            chosen = chosen or plan.algorithm
            if name == "auto" or plan.algorithm not in runs:
                runs[plan.algorithm] = _run(plan, given)
        first = {name: worker.measure(run, 1e-9)["median"] for name, run in runs.items()}
        most = HOPELESS * min(first.values())
        names = [name for name in runs if first[name] <= most or name == chosen]
        rounds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(settings.rounds):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                rounds[name].append(worker.measure(runs[name], settings.seconds)["median"])
    return Regret(layer, threads, chosen, {n: statistics.median(r) for n, r in rounds.items()})


def _run(plan: Any, given: list[Any]) -> Callable[[], Any]:
    out = np.empty(plan.output_shape, plan.dtype)
    return lambda: plan(*given, out=out)


def as_json(regret: Regret) -> dict[str, Any]:
    """Return everything, of JSON types."""
    layer = regret.layer
    return {
        "layer": layer.name,
        "class": layer.group,
        "operator": layer.operator,
        "shapes": dict(layer.shapes),
        "params": dict(layer.params),
        "dtype": layer.dtype,
        "threads": regret.threads,
        "chosen": regret.chosen,
        "best": regret.best,
        "regret": regret.value,
        "seconds": regret.seconds,
    }
