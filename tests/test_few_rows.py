"""Convolutions of a few outputs, made as adjoints: by columns, which are gathered (col2im)."""

from __future__ import annotations

import numpy as np
import pytest

import pyconv
from pyconv import algorithms, engine

from . import calls

CASES = {
    "2-D": ((2, 40, 19, 23), (2, 40, 3, 5), {"padding": (1, 2)}),
    "one row": ((1, 33, 7, 40), (1, 33, 2, 3), {}),
    "dilated": ((2, 20, 15, 31), (7, 20, 3, 3), {"padding": (6, 3), "dilation": (6, 3)}),
    "1-D": ((3, 64, 70), (3, 64, 9), {"padding": ((3, 8),)}),
    "3-D": ((1, 21, 5, 9, 8), (4, 21, 3, 2, 3), {"padding": (1, 0, 2)}),
    "cropped": ((1, 30, 12, 17), (5, 30, 3, 3), {"padding": ((-2, 1), (0, -3))}),
    "flipped": ((2, 25, 9, 13), (2, 25, 4, 2), {"padding": 1, "flip": True}),
    "channels last": ((2, 9, 13, 31), (3, 31, 3, 3), {"layout": "channels_last"}),
    "no batch": ((26, 9, 13), (8, 26, 1, 3), {"padding": (0, 1)}),
    "in regions": ((2, 20, 30, 31), (19, 20, 3, 3), {"padding": 11, "dilation": 11}),
}


@pytest.fixture(autouse=True)
def by_columns(monkeypatch):
    """Have them made so whatever it costs."""

    def gain(axes, rows, channels):
        return 2.0 * (rows <= algorithms.MOST_GATHERED and all(a.stride == 1 for a in axes))

    monkeypatch.setattr(algorithms, "columns_gain", gain)
    engine.column_boxes.cache_clear()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_near_reference(case, dtype):
    """Near plain sums, with the same bits by a plan, on threads, and sample by sample."""
    shape, kernel, params = CASES[case]
    rng = np.random.default_rng(4)
    arrays = [rng.standard_normal(s).astype(dtype) for s in (shape, kernel, kernel[:1])]
    op = pyconv.get("dilated" if "dilation" in params else "standard")
    params = {**params, "algorithm": "direct"}
    got = op(*arrays, **params)
    calls.assert_near_reference(op, got, arrays, params)
    plan = op.plan(shape, *arrays[1:], **params)
    assert plan(arrays[0]).tobytes() == got.tobytes()
    assert op(*arrays, threads=3, **params).tobytes() == got.tobytes()
    if len(shape) == len(kernel):
        for n in range(shape[0]):
            alone = op(arrays[0][n : n + 1], *arrays[1:], **params)
            assert alone.tobytes() == got[n : n + 1].tobytes()


def test_small_workspaces():
    """Less workspace than columns take, or their boxes many: a result near the same, or none."""
    shape, kernel, params = CASES["2-D"]
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in (shape, kernel, kernel[:1])]
    op, made = pyconv.get("standard"), 0
    for bits in range(10, 22):
        try:
            got = op(*arrays, **params, max_workspace=2**bits)
        except ValueError as error:
            assert "max_workspace" in str(error)
            assert not made
            continue
        made += 1
        calls.assert_near_reference(op, got, arrays, params)
    assert made >= 6


def test_nothing_but_inputs_is_multiplied():
    """Padding is no factor: an infinite weight that only meets padding leaves no trace."""
    weight = np.ones((1, 30, 3, 3), np.float32)
    weight[..., 0, :] = np.inf
    y = pyconv.get("standard")(np.ones((1, 30, 1, 9), np.float32), weight, padding=1)
    np.testing.assert_array_equal(y[0, 0, 0, 1:-1], 90)


def test_whatever_pays(monkeypatch):
    """Left alone: two outputs of many channels are made by columns, many outputs are not."""
    monkeypatch.undo()
    op = pyconv.get("standard")
    for rows, columns in ((2, True), (64, False)):
        plan = op.plan((1, 347, 10, 15, 8), np.ones((rows, 347, 3, 3, 3), np.float32), padding=1)
        assert is_by_columns(plan) == columns


def is_by_columns(plan):
    return getattr(plan._problem.how.kernel, "func", None) is engine._correlate_by_columns


@pytest.mark.parametrize(
    ("rows", "rate", "padding", "columns"),
    [
        (10, 13, 13, True),
        (10, 13, 0, False),
        (10, 1, 1, False),
        (25, 13, 13, False),
    ],
)
def test_regions_or_columns(monkeypatch, rows, rate, padding, columns):
    """Where outputs would be made in regions, more of them than eight may be made by columns."""
    monkeypatch.undo()
    x = np.ones((1, 608, 157, 40), np.float32)
    weight = np.ones((rows, 608, 3, 3), np.float32)
    params = {"dilation": rate, "padding": padding, "algorithm": "direct"}
    plan = pyconv.get("dilated").plan(x.shape, weight, **params)
    assert is_by_columns(plan) == columns
    if columns:
        met = np.zeros(157 + 2 * rate), np.zeros(40 + 2 * rate)
        for axis, size in zip(met, (157, 40), strict=True):
            axis[rate : rate + size] = 1
        along = [
            sum(axis[t * rate :][:size] for t in range(3))
            for axis, size in zip(met, (157, 40), strict=True)
        ]
        expected = np.broadcast_to(608 * np.multiply.outer(*along), (1, rows, 157, 40))
        np.testing.assert_array_equal(plan(x), expected)
