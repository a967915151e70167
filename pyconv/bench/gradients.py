"""Layers whose gradients are timed, by class, and what they cost.

Each layer is timed for the gradient of its input and, apart from that, for that of each of its
weights: training asks for all of them but in the first layer, and what is fast for one says nothing
about another. Of a deformable layer all gradients are computed together, as they share the samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyconv
from pyconv.bench.layers import CLASSES, GRADIENTS, Layer
from pyconv.cli.operators import arguments
from pyconv.operator import Operator

_DENSE = {"3x3": "3x3-input", "1x1": "dense-input", "strided": "dense-input"}
_DENSE["dilated"] = "dense-input"

SOURCES = {
    "3x3-input": ("3x3",),
    "dense-input": ("1x1", "strided", "dilated"),
    "dense-weight": tuple(_DENSE),
    **{key: (key,) for key in CLASSES if key != "direct" and key not in _DENSE},
}
"""The classes that gradients have, and those of the layers that they are the gradients of."""

assert GRADIENTS.keys() <= SOURCES.keys()


def of(layers: Iterable[Layer]) -> list[Layer]:
    """Return a layer for each gradient to be timed, class after class.

    Those of the class ``direct`` are left out: they are the layers of ``3x3`` once more. So are
    the operators of other packages that have no gradients.
    """
    found = [
        replace(
            layer,
            name=f"{layer.name}.{'all' if len(needs) > 1 else needs[0]}",
            group=_group(layer, needs),
            shapes={"grad": _output_shape(layer), **layer.shapes},
            needs=needs,
        )
        for layer in layers
        if layer.group != "direct" and _differentiable(layer)
        for needs in _needs(layer)
    ]
    keys = list(SOURCES)
    return sorted(found, key=lambda layer: keys.index(layer.group))  # stable


def _differentiable(layer: Layer) -> bool:
    return type(pyconv.get(layer.operator)).gradients is not Operator.gradients


def _needs(layer: Layer) -> list[tuple[str, ...]]:
    present = [name for name, shape in layer.shapes.items() if shape is not None]
    if "offset" in present:
        return [tuple(present)]
    return [(name,) for name in present if name != "bias"]


def _group(layer: Layer, needs: tuple[str, ...]) -> str:
    if layer.group not in _DENSE:
        return layer.group
    return _DENSE[layer.group] if needs == ("x",) else "dense-weight"


def _output_shape(layer: Layer) -> tuple[int, ...]:
    op = pyconv.get(layer.operator)
    positional, keyword = arguments(op, layer.shapes)
    return tuple(op.output_shape(*positional, **keyword, **layer.params))


def passes(layer: Layer) -> int:
    """Return how many times the layer's own multiply-adds its gradients take.

    Once for what is known of the input (samples, offsets and mask), from the gradients of the
    samples; once for weights, which are sums over all positions.
    """
    inputs = {"x", "offset", "mask"}
    return bool(inputs & set(layer.needs)) + bool(set(layer.needs) - inputs - {"bias"})


def elements(layer: Layer) -> int:
    """Return how many numbers are read or written at least.

    Each gradient depends on ``grad`` and, as the operators are linear in each array, on all other
    arrays but the bias.
    """
    needs, given = set(layer.needs), layer.shapes
    read = {n for n in given if n != "bias" and needs - {n, "bias"}} | {"grad"}
    return sum(_size(given[name]) for name in read) + sum(_size(given[name]) for name in needs)


def _size(shape: Any) -> int:
    if shape is None:
        return 0
    if shape and not isinstance(shape[0], int):
        return sum(map(_size, shape))
    return math.prod(shape)
