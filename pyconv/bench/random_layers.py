"""Random legal layers of every class, to find shapes at which an implementation is slow.

The same count and seed give the same layers. Sizes are drawn on a logarithmic scale and are not
multiples of anything, as the sizes of networks would be; a layer that pyconv refuses, or that is
too small or too large to time, is drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyconv
from pyconv.bench.layers import (
    Layer,
    Shape,
    conv,
    deformable,
    depthwise,
    pointwise,
    separable,
    transposed,
)

MACS = 1e5, 5e8
ELEMENTS = 2**25


def random_layers(count: int, seed: int, groups: Sequence[str] = ()) -> list[Layer]:
    """Return `count` layers, the classes in turn.

    Parameters
    ----------
    count : int
        How many.
    seed : int
        What they follow from.
    groups : sequence of str, optional
        The classes to draw from, out of `RANDOM`; all by default.
    """
    rng = random.Random(seed)
    keys = list(groups or RANDOM)
    layers: list[Layer] = []
    while len(layers) < count:
        key = keys[len(layers) % len(keys)]
        layer = RANDOM[key](rng, f"random_{seed}_{len(layers)}_{key}")
        if _suits(layer):
            layers.append(layer)
    return layers


def _suits(layer: Layer) -> bool:
    """Whether the layer is legal, and of a size that can be timed."""
    op = pyconv.get(layer.operator)
    try:
        cost = op.cost(*layer.shapes.values(), **layer.params)
    except ValueError:  # no output position, say
        return False
    least, most = MACS
    return least <= cost.macs <= most and cost.bytes_moved <= 4 * ELEMENTS


def _between(rng: random.Random, low: int, high: int) -> int:
    """Draw an integer on a logarithmic scale."""
    return min(high, int(low * (high / low) ** rng.random() + 0.5))


def _x(rng: random.Random, rank: int = 2, channels: int = 0) -> Shape:
    side = {1: 4096, 2: 160, 3: 40}[rank]
    extents = (_between(rng, 4, side) for _ in range(rank))
    return (rng.choice((1, 1, 1, 2, 8)), channels or _between(rng, 1, 768), *extents)


def _same(kernel: int, dilation: int = 1) -> int:
    return dilation * (kernel - 1) // 2


def _3x3(rng: random.Random, name: str) -> Layer:
    return conv("3x3", name, _x(rng), _between(rng, 1, 768), 3, padding=rng.choice((0, 1)))


def _direct(rng: random.Random, name: str) -> Layer:
    layer = _3x3(rng, name)
    return replace(layer, group="direct", params={**layer.params, "algorithm": "direct"})


def _1x1(rng: random.Random, name: str) -> Layer:
    return pointwise("1x1", name, _x(rng), _between(rng, 1, 1024))


def _strided(rng: random.Random, name: str) -> Layer:
    kernel, stride = rng.choice(((3, 2), (2, 2), (4, 4), (5, 1), (5, 2), (7, 1), (7, 2), (11, 4)))
    x = _x(rng, channels=rng.choice((0, 0, 3)))
    padding = rng.choice((0, _same(kernel)))
    return conv("strided", name, x, _between(rng, 1, 512), kernel, stride=stride, padding=padding)


def _dilated(rng: random.Random, name: str) -> Layer:
    kernel, rate = rng.choice((2, 3, 3, 3, 5)), _between(rng, 2, 36)
    padding = rng.choice((0, _same(kernel, rate)))
    params = {"dilation": rate, "padding": padding}
    return conv("dilated", name, _x(rng), _between(rng, 1, 512), kernel, "dilated", **params)


def _grouped(rng: random.Random, name: str) -> Layer:
    count, each, kernel = _between(rng, 2, 64), rng.randint(4, 32), rng.choice((1, 3, 3, 5))
    x = _x(rng, channels=count * each)
    out = count * rng.choice((each, each, _between(rng, 1, 32)))
    params = {"groups": count, "stride": rng.choice((1, 1, 2)), "padding": _same(kernel)}
    return conv("grouped", name, x, out, kernel, "grouped", **params)


def _depthwise(rng: random.Random, name: str) -> Layer:
    kernel, rate = rng.choice((3, 3, 5, 7, 2, 9)), rng.choice((1, 1, 1, 2, 3, 12))
    params = {"stride": rng.choice((1, 1, 2)), "dilation": rate, "padding": _same(kernel, rate)}
    return depthwise("depthwise", name, _x(rng), kernel, rng.choice((1, 1, 1, 2, 3)), **params)


def _separable(rng: random.Random, name: str) -> Layer:
    kernel = rng.choice((3, 3, 5, 7))
    params = {"stride": rng.choice((1, 1, 2)), "padding": _same(kernel)}
    return separable("separable", name, _x(rng), _between(rng, 1, 512), kernel, **params)


def _transposed(rng: random.Random, name: str) -> Layer:
    kernel, stride = rng.choice(((2, 2), (3, 2), (4, 2), (4, 4), (5, 3), (3, 1), (16, 8), (2, 3)))
    padding = rng.randint(0, (kernel - 1) // 2)
    x = _x(rng)
    return transposed(
        "transposed", name, x, _between(rng, 1, 384), kernel, stride=stride, padding=padding
    )


def _deformable(rng: random.Random, name: str) -> Layer:
    masked, offset_groups, x = rng.random() < 0.7, rng.choice((1, 1, 2, 4)), _x(rng)
    x = (x[0], -(-x[1] // offset_groups) * offset_groups, *x[2:])
    params = {"stride": rng.choice((1, 1, 2)), "dilation": rng.choice((1, 1, 2))}
    return deformable(
        "deformable", name, x, _between(rng, 1, 384), masked=masked, offset_groups=offset_groups,
        **params,
    )  # fmt: skip


def _1d_3d(rng: random.Random, name: str) -> Layer:
    rank, kernel, stride = rng.choice((1, 3)), rng.choice((1, 2, 3, 3, 5)), rng.choice((1, 1, 2))
    params: dict[str, Any] = {"stride": stride, "padding": _same(kernel)}
    kind, x = rng.choice(("dense", "dense", "depthwise", "transposed")), _x(rng, rank)
    if kind == "depthwise":
        return depthwise("1d-3d", name, x, kernel, **params)
    make = conv if kind == "dense" else transposed
    return make("1d-3d", name, x, _between(rng, 1, 256), kernel, **params)


def _float64(rng: random.Random, name: str) -> Layer:
    others = [key for key in RANDOM if key != "float64"]
    layer = RANDOM[rng.choice(others)](rng, name)
    return replace(layer, group="float64", dtype="float64")


RANDOM: dict[str, Callable[[random.Random, str], Layer]] = {
    "3x3": _3x3,
    "direct": _direct,
    "1x1": _1x1,
    "strided": _strided,
    "dilated": _dilated,
    "grouped": _grouped,
    "depthwise": _depthwise,
    "separable": _separable,
    "transposed": _transposed,
    "deformable": _deformable,
    "float64": _float64,
    "1d-3d": _1d_3d,
}
"""Draws a layer, by class."""
