"""Results to compare an implementation with, and how far from them it may be.

pyconv's results have to keep what it promises of every algorithm,
``max|y - exact| <= 32 u max(conv(|x|, |w|))``, and each gradient the same with what it is a sum of:
``|grad|`` times ``|w|`` over taps and channels, or times ``|x|`` over images and pixels. Other
libraries promise nothing, and a Winograd algorithm on large tiles exceeds this a little: they are
allowed `LENIENCE` times as much, still far less than any mistake, or arithmetic in 16 bits, makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import pyconv
from pyconv.bench import definition, gradients
from pyconv.bench.layers import Layer, description
from pyconv.cli.demo.measure import PROMISE
from pyconv.cli.operators import Call, arguments

Array = np.ndarray[Any, Any]

LENIENCE = 8

REFERENCE_MACS = 2e7
"""Up to here the definition is evaluated, which takes about a second; beyond, pyconv in float64."""

GRADIENT_MACS = 3e8
"""The same for gradients, whose definition leaves the sums to NumPy's matrix products."""


@dataclass(frozen=True)
class Exact:
    """What a layer should give.

    Attributes
    ----------
    values : mapping of str to ndarray
        In float64, the result as ``y``, or the gradients by the names of their arrays.
    bounds : mapping of str to float
        The largest error allowed in each.
    by_definition : bool
        Whether it is the definition, or what pyconv computes in float64.
    """

    values: Mapping[str, Array]
    bounds: Mapping[str, float]
    by_definition: bool

    def error(self, found: Mapping[str, Array]) -> float:
        """Return the largest error of a result as a share of the bounds: up to 1 is right."""
        if found.keys() != self.values.keys():
            return float("inf")
        return max(
            distance(found[name], value) / (self.bounds[name] or 1)
            for name, value in self.values.items()
        )


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
    if layer.needs:
        return _exact_gradients(layer)
    op, params = pyconv.get(layer.operator), _direct(layer)
    arrays = _doubles(layer)
    call = Call(op, arrays, params)
    largest = Call(op, _positive(arrays), params)()
    by_definition = call.cost().macs <= REFERENCE_MACS
    y = call.reference() if by_definition else call()
    return Exact({"y": y}, {"y": _bound(layer, largest)}, by_definition)


def _exact_gradients(layer: Layer) -> Exact:
    arrays, order = _doubles(layer), description(layer)
    macs = (
        gradients.passes(layer) * Call(pyconv.get(layer.operator), arrays, layer.params).cost().macs
    )
    by_definition = order["kind"] is not None and macs <= GRADIENT_MACS
    if by_definition:
        values = definition.gradients(order, arrays)
        largest = definition.gradients(order, arrays, magnitudes=True)
    else:
        values = _by_pyconv(layer, arrays)
        largest = _by_pyconv(layer, _positive(arrays))
        if "offset" in largest:  # a difference of samples, which says nothing of their size
            largest["offset"] = _of_the_mask(layer, _positive(arrays))
    bounds = {name: _bound(layer, value) for name, value in largest.items()}
    return Exact(values, bounds, by_definition)


def _by_pyconv(layer: Layer, arrays: dict[str, Any]) -> dict[str, Array]:
    op = pyconv.get(layer.operator)
    positional, keyword = arguments(op, arrays)
    keyword |= _direct(layer)
    return flat(op.backward(arrays["grad"], *positional, needs=layer.needs, **keyword))


def _of_the_mask(layer: Layer, arrays: dict[str, Any]) -> Array:
    """Return the gradient of the mask, or of one of ones: the samples times what comes back."""
    weight = arrays["weight"]
    shape = list(arrays["offset"].shape)
    shape[1] //= weight.ndim - 2
    masked = {**arrays, "mask": np.ones(shape)}
    return _by_pyconv(replace(layer, needs=("mask",)), masked)["mask"]


def _direct(layer: Layer) -> dict[str, Any]:
    """Return the parameters with the algorithm that makes the least errors."""
    has = "direct" in pyconv.get(layer.operator).algorithms
    return {**layer.params, "algorithm": "direct"} if has else dict(layer.params)


def flat(found: Mapping[str, Any]) -> dict[str, Array]:
    """Return gradients with each array of a tuple by itself."""
    result: dict[str, Array] = {}
    for name, value in found.items():
        several = isinstance(value, tuple)
        result |= {f"{name}[{i}]": v for i, v in enumerate(value)} if several else {name: value}
    return result


def _bound(layer: Layer, magnitudes: Array) -> float:
    unit = float(np.finfo(layer.dtype).eps) / 2
    return PROMISE * unit * float(magnitudes.max(initial=0))


def _doubles(layer: Layer) -> dict[str, Any]:
    return {name: _each(_double, value) for name, value in layer.arrays().items()}


def _positive(arrays: dict[str, Any]) -> dict[str, Any]:
    return {n: a if n == "offset" else _each(np.abs, a) for n, a in arrays.items()}


def _each(function: Any, value: Any) -> Any:
    """Apply a function to an array, to each of several, or not at all."""
    if value is None:
        return None
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def _double(array: Array) -> Array:
    return array.astype(np.float64)
