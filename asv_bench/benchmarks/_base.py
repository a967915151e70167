"""What the benchmarks share: an operator with arrays, and clocks beside a calibration kernel."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import pyconv

from ._shapes import LAYERS, PER_CALL, Layer


def operator(name: str) -> Any:
    """Return an operator of this pyconv; the benchmark is skipped where there is none."""
    try:
        return pyconv.get(name)
    except LookupError:
        raise NotImplementedError(f"this pyconv has no {name}") from None


def layer_of(path: str) -> tuple[str, Layer]:
    """Return the operator and the layer of "operator/layer"."""
    name, _, key = path.partition("/")
    return name, LAYERS[name][key]


class Call:
    """An operator with arrays of a layer: float32, random, so that every page has been touched."""

    def __init__(self, name: str, layer: Layer, **keywords: Any) -> None:
        shapes, params = layer
        rng = np.random.default_rng(0)
        self.op = operator(name)
        self.arrays: dict[str, Any] = {
            name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
        }
        self.keywords = {"threads": 1, **params, **keywords}
        self.fixed = [a for name, a in self.arrays.items() if name not in PER_CALL]
        self.given = [a for name, a in self.arrays.items() if name in PER_CALL]

    def __call__(self, **more: Any) -> Any:
        return self.op(*self.arrays.values(), **self.keywords, **more)

    def plan(self, **more: Any) -> Any:
        """Return the plan that fixes what does not differ from call to call."""
        return self.op.plan(self.arrays["x"].shape, *self.fixed, **{**self.keywords, **more})


class Layers:
    """One operator on its layers: float32, one thread.

    A subclass names its `operator` and repeats the layers' names in `params`: asv identifies
    results by them, so they are literals that no version of pyconv can change.
    """

    operator: str
    params: list[str]
    param_names = ("layer",)
    # A time is the median of many: a neighbour's load lasts longer than a few calls.
    rounds = 3
    warmup_time = 0.05

    def setup(self, layer: str) -> None:
        """Make the arrays, call once."""
        self.call = Call(self.operator, LAYERS[self.operator][layer])
        self.op, self.arrays = self.call.op, self.call.arrays
        self.keywords = self.call.keywords
        self.result = self.call()


# ---- clocks --------------------------------------------------------------------------------------

QUICK = os.environ.get("PYCONV_ASV_QUICK", "") not in ("", "0")
"""Every clock makes one turn of one call: to look for errors, as `asv run --quick` does for times.

Of its own, asv runs what is tracked in full, however quick the run.
"""


def seconds(run: Callable[[], object], calls: int = 1) -> float:
    """Return what each of a few calls takes."""
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def fastest(runs: list[Callable[[], object]], rounds: int = 15, turn: float = 2e-3) -> list[float]:
    """Return the fastest turn of each function, all having their turns in every round.

    What slows the machine down for a while slows all of them down, and the fastest of many short
    turns is the one that nothing has disturbed. A turn is a call, or several that take `turn`.
    """
    if QUICK:
        rounds, turn = 1, 1e-9
    calls = [max(1, math.ceil(turn / max(seconds(run), 1e-7))) for run in runs]
    calls = [
        min(n, math.ceil(turn / seconds(run, n) * n)) for run, n in zip(runs, calls, strict=True)
    ]
    best = [math.inf] * len(runs)
    for _ in range(rounds):
        for i, run in enumerate(runs):
            best[i] = min(best[i], seconds(run, calls[i]))
    return best


def multiply_adds(threads: int = 1) -> tuple[Callable[[], object], float]:
    """Return a loop of multiply-adds on registers, and how many operations a call of it does.

    The best that this machine can do, in the instruction set of the kernels: the calibration.
    """
    try:
        from pyconv._kernels import _machine
    except ImportError:
        raise NotImplementedError("this pyconv does not measure its peak") from None
    flops = _machine.multiply_add(4000, 0, threads)
    return lambda: _machine.multiply_add(4000, 0, threads), flops


def macs(call: Call) -> int:
    """Return the multiply-adds of the definition, whatever the algorithm does."""
    shapes = [array.shape for array in call.arrays.values()]
    params = {k: v for k, v in call.keywords.items() if k not in ("threads", "max_workspace")}
    return call.op.cost(*shapes, **params).macs
