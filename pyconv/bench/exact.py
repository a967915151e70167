"""Results to compare an implementation with, and how far from them it may be.

pyconv's results have to keep what it promises of every algorithm,
``max|y - exact| <= 32 u max(conv(|x|, |w|))``. Other libraries promise nothing, and a Winograd
algorithm on large tiles exceeds this a little: they are allowed `LENIENCE` times as much, still far
less than any mistake, or arithmetic in 16 bits, makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import pyconv
from pyconv.bench.layers import Layer
from pyconv.cli.demo.measure import PROMISE
from pyconv.cli.operators import Call

Array = np.ndarray[Any, Any]

LENIENCE = 8

REFERENCE_MACS = 2e7
"""Up to here the definition is evaluated, which takes about a second; beyond, pyconv in float64."""


@dataclass(frozen=True)
class Exact:
    """What a layer should give.

    Attributes
    ----------
    y : ndarray
        The result, in float64.
    bound : float
        The largest error allowed.
    by_definition : bool
        Whether it is the operator's definition, or what its plan computes in float64.
    """

    y: Array
    bound: float
    by_definition: bool

    def error(self, y: Array) -> float:
        """Return the largest error of a result as a share of the bound: up to 1 is right."""
        return distance(y, self.y) / self.bound if self.bound else distance(y, self.y)


def distance(y: Array, other: Array) -> float:
    """Return the largest difference; infinite where shapes differ or a NaN is found."""
    if y.shape != other.shape:
        return float("inf")
    if not y.size:
        return 0.0
    largest = float(np.abs(y - other).max())
    return largest if largest == largest else float("inf")


def exact(layer: Layer) -> Exact:
    """Return what a layer gives on its own arrays."""
    op = pyconv.get(layer.operator)
    params = dict(layer.params)
    if "direct" in op.algorithms:
        params["algorithm"] = "direct"
    arrays = {name: _each(_double, value) for name, value in layer.arrays().items()}
    call = Call(op, arrays, params)
    positive = {n: a if n == "offset" else _each(np.abs, a) for n, a in arrays.items()}
    largest = float(Call(op, positive, params)().max(initial=0))
    by_definition = call.cost().macs <= REFERENCE_MACS
    y = call.reference() if by_definition else call()
    unit = float(np.finfo(layer.dtype).eps) / 2
    return Exact(y, PROMISE * unit * largest, by_definition)


def _each(function: Any, value: Any) -> Any:
    """Apply a function to an array, to each of several, or not at all."""
    if value is None:
        return None
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def _double(array: Array) -> Array:
    return array.astype(np.float64)
