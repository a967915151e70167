"""Timing a call, and checking it against the operator's definition."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyconv.cli.operators import AnyArray, Call

PROMISE = 32
"""Every algorithm keeps ``max|y - exact| <= PROMISE * u * max(conv(|x|, |w|))``."""

_ENOUGH = 0.15  # seconds spent on repeating a call
_REPEATS = 20


@dataclass(frozen=True)
class Measurement:
    """What is known about a call after running it.

    Attributes
    ----------
    output_shape : tuple of int
        The result's shape.
    algorithm : str
        What the plan has chosen.
    seconds : float
        The best of several runs with the plan made and warm.
    gflops : float
        Multiply-adds of the dense definition (padding included) as two operations each, in 10^9
        a second.
    error : float
        The largest error on the checked call, as a share of what is promised: below 1 is right.
    """

    output_shape: tuple[int, ...]
    algorithm: str
    seconds: float
    gflops: float
    error: float

    @property
    def right(self) -> bool:
        """Whether the promise is kept."""
        return self.error <= 1


def measure(call: Call, checked: Call) -> tuple[AnyArray, Measurement]:
    """Run one call for its time, and check another one.

    Parameters
    ----------
    call : Call
        What to run and time.
    checked : Call
        What to compare with the definition, which is slow: a smaller call.

    Returns
    -------
    y : ndarray
        The first call's result.
    measurement : Measurement
    """
    plan, given = call.plan()
    y = plan(*given)
    seconds = _best(lambda: plan(*given))
    flops = 2 * call.cost().macs
    return y, Measurement(y.shape, plan.algorithm, seconds, flops / seconds / 1e9, error(checked))


def _best(function: Callable[[], Any]) -> float:
    best, start = float("inf"), time.perf_counter()
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        function()
        end = time.perf_counter()
        best = min(best, end - begin)
        if end - start > _ENOUGH:
            break
    return best


def error(call: Call) -> float:
    """Return a call's largest error as a share of the promised bound; NaN counts as infinite."""
    y = call()
    exact = call.reference()
    if y.shape != exact.shape:
        return float("inf")
    if not y.size:
        return 0.0
    bound = PROMISE * float(np.finfo(y.dtype).eps) / 2 * float(call.magnitude().max())
    largest = float(np.abs(y - exact).max())
    if largest == 0:
        return 0.0
    share = largest / bound if bound else float("inf")
    return share if share == share else float("inf")
