"""Errors stay within the promise, of every algorithm, for easy and adversarial values."""

from __future__ import annotations

import numpy as np
import pytest

import pyconv

from . import accuracy

ALL = [(name, algorithm) for name in accuracy.CALLS for algorithm in accuracy.algorithms(name)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", accuracy.VALUES)
@pytest.mark.parametrize(("name", "algorithm"), ALL)
def test_promise(name, algorithm, kind, dtype):
    assert accuracy.error(name, algorithm, kind, dtype) <= accuracy.PROMISE


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
        (16384, 1, "direct", 5),
        (1, 63, "direct", 80),
        (1, 101, "direct", 120),
    ],
)
def test_long_sums_of_equal_values(channels, kernel, algorithm, size):
    """All roundings go the same way: the longest chain of additions shows."""
    assert equal_values(channels, kernel, algorithm, size) <= accuracy.PROMISE
