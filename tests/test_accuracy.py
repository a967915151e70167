"""Errors stay within the promise, of every algorithm, for easy and adversarial values."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import pyconv
from pyconv import algorithms

from . import accuracy

ALL = [(name, algorithm) for name in accuracy.CALLS for algorithm in accuracy.algorithms(name)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", accuracy.VALUES)
@pytest.mark.parametrize(("name", "algorithm"), ALL)
def test_promise(name, algorithm, kind, dtype):
    assert accuracy.error(name, algorithm, kind, dtype) <= accuracy.PROMISE


def winograd_forms():
    """Tiles for every kernel of up to two axes, with a name for each."""
    for stride in {stride for stride, _ in algorithms.TILES}:
        taps = [1, *(taps for s, taps in algorithms.TILES if s == stride and taps > 1)]
        for kernel in ((down, along) for down in taps for along in taps):
            steps = [stride if k > 1 else 1 for k in kernel]
            axes = pyconv.geometry.conv_axes(
                "standard", (40, 41), kernel, steps, ((2, 2),) * 2, (1, 1), "zeros"
            )
            for tile in algorithms.winograd_tiles(axes):
                yield pytest.param(kernel, stride, tile, id=f"{kernel} / {stride}, {tile}")


@pytest.mark.parametrize(("kernel", "stride", "tile"), list(winograd_forms()))
def test_promise_of_every_form(kernel, stride, tile, monkeypatch):
    monkeypatch.setattr(algorithms, "winograd_tile", lambda *_: tile)
    op = pyconv.get("standard")
    op._problems.clear()
    params = {"padding": 2, "stride": [stride if k > 1 else 1 for k in kernel]}
    constants = np.random.default_rng(5).uniform(0.5, 1, 6)
    equal = {f"all {v:.3f}": lambda _, shape, v=v: np.full(shape, v) for v in constants}
    for channels, (kind, make) in product((3, 24, 42, 64, 200), (accuracy.VALUES | equal).items()):
        rng = np.random.default_rng(7)
        x = make(rng, (1, channels, 18, 19)).astype(np.float32)
        weight = make(rng, (8, channels, *kernel)).astype(np.float32)
        wide = [array.astype(np.float64) for array in (x, weight)]
        exact = op(*wide, **params, algorithm="direct")
        size = op(*map(np.abs, wide), **params, algorithm="direct").max()
        y = op(x, weight, **params, algorithm="winograd")
        assert np.abs(y - exact).max() / size * 2**24 <= accuracy.PROMISE, kind
    op._problems.clear()


def test_every_algorithm_is_measured():
    """Of the operators in the table, those with algorithms of their own among them."""
    measured = {(accuracy.CALLS[name][0], algorithm) for name, algorithm in ALL}
    for name in set(pyconv.available()) & {call[0] for call in accuracy.CALLS.values()}:
        for algorithm in getattr(pyconv.get(name), "algorithms", ()):
            assert algorithm == "auto" or (name, algorithm) in measured


def equal_values(channels, kernel, algorithm, size):
    """The largest error of a convolution of constants, whose exact result is known."""
    x = np.full((1, channels, size, size), 0.7, np.float32)
    weight = np.full((8, channels, kernel, kernel), 0.3, np.float32)
    y = pyconv.get("standard")(x, weight, algorithm=algorithm).astype(np.float64)
    exact = channels * kernel**2 * float(x[0, 0, 0, 0]) * float(weight[0, 0, 0, 0])
    return np.abs(y / exact - 1).max() * 2**24


@pytest.mark.parametrize(
    ("channels", "kernel", "algorithm", "size"),
    [
        (2048, 3, "direct", 7),
        (2048, 3, "winograd", 14),
        (512, 3, "winograd", 14),
        (2048, 5, "winograd", 14),
        (2048, 2, "winograd", 14),
        (16384, 1, "direct", 5),
        (1, 63, "direct", 80),
        (1, 101, "direct", 120),
    ],
)
def test_long_sums_of_equal_values(channels, kernel, algorithm, size):
    """All roundings go the same way: the longest chain of additions shows."""
    assert equal_values(channels, kernel, algorithm, size) <= accuracy.PROMISE
