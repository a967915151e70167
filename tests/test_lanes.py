"""Rows of the weights as vectors, instead of pixels: the same bits, whatever the shape."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import pyconv
from pyconv import algorithms, dtypes, engine, geometry
from pyconv._kernels import _conv

from . import calls

# (N, groups, channels, rows), spatial extents, kernel, and stride, dilation, padding.
CASES = {
    "7x7": ((1, 3, 8, 32), (1, 7, 7), (1, 3, 3), (1, 1, 1), (1, 1, 1), (0, 1, 1)),
    "batch": ((3, 2, 5, 16), (1, 5, 7), (1, 3, 3), (1, 1, 1), (1, 1, 1), (0, 1, 1)),
    "one pixel": ((7, 1, 40, 24), (1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
    "pointwise": ((2, 2, 130, 20), (1, 9, 9), (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
    "tiles": ((2, 1, 6, 16), (1, 20, 23), (1, 3, 3), (1, 1, 1), (1, 1, 1), (0, 1, 1)),
    "strides": ((2, 2, 6, 17), (1, 13, 16), (1, 3, 3), (1, 2, 3), (1, 2, 1), (0, 2, 1)),
    "no padding": ((2, 1, 6, 17), (1, 9, 12), (1, 3, 2), (1, 1, 2), (1, 1, 2), (0, 0, 0)),
    "stride above kernel": ((1, 1, 7, 9), (1, 12, 17), (1, 1, 1), (1, 3, 4), (1, 1, 1), (0, 1, 1)),
    "deep": ((1, 1, 200, 17), (1, 4, 5), (1, 3, 3), (1, 1, 1), (1, 1, 1), (0, 1, 1)),
    "1-D": ((2, 1, 9, 30), (1, 1, 21), (1, 1, 5), (1, 1, 2), (1, 1, 1), (0, 0, 2)),
    "3-D": ((2, 1, 4, 21), (3, 4, 5), (3, 3, 3), (2, 1, 1), (1, 1, 1), (1, 1, 1)),
    "border": ((3, 2, 5, 66), (1, 5, 6), (1, 5, 5), (1, 1, 1), (1, 1, 1), (0, 2, 2)),
    "border, 3-D": ((2, 1, 5, 66), (3, 4, 7), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "border, dilated": ((2, 1, 30, 65), (1, 9, 8), (1, 3, 3), (1, 1, 1), (1, 3, 2), (0, 3, 2)),
    "border, strided": ((2, 2, 9, 80), (1, 14, 11), (1, 3, 5), (1, 2, 2), (1, 1, 1), (0, 1, 2)),
    "many borders": ((1, 1, 5, 40), (1, 12, 12), (1, 7, 7), (1, 1, 1), (1, 1, 1), (0, 3, 3)),
    "too many": ((1, 1, 5, 16), (1, 12, 13), (1, 9, 11), (1, 1, 1), (1, 1, 1), (0, 4, 5)),
    "nothing but border": ((4, 1, 5, 200), (1, 3, 2), (1, 5, 7), (1, 1, 1), (1, 1, 1), (0, 2, 3)),
    "outside": ((1, 1, 25, 48), (1, 5, 4), (1, 3, 3), (1, 1, 1), (1, 1, 1), (0, 4, 5)),
    "far, strided": ((1, 1, 9, 20), (40, 52, 60), (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    "patches": ((2, 2, 20, 9), (1, 80, 84), (1, 4, 4), (1, 4, 4), (1, 1, 1), (0, 0, 0)),
    "patches, 3-D": ((2, 1, 11, 10), (16, 32, 50), (2, 2, 2), (2, 2, 3), (1, 1, 1), (0, 0, 0)),
    "patches, large": ((1, 1, 11, 25), (1, 305, 321), (1, 7, 3), (1, 8, 7), (1, 1, 2), (0, 0, 0)),
    "far apart": ((1, 1, 100, 16), (1, 32, 32), (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
}
BUDGETS = (2**28, 2**19, 2**16)


def run(x, weight, bias, out, numbers, mode, lanes, threads=1, budget=2**28):
    compute = dtypes.compute_code(x.dtype)
    packed = _conv.pack_weights(weight, compute, threads, lanes)
    args = ("x", x, weight, bias, out, *numbers, mode, compute, threads, budget, packed)
    used = _conv.correlate(*args)
    assert used <= _conv.correlate(*args, measure=True) <= budget
    return out


def arrays(case, dtype, rows=None):
    (n, groups, channels, m), size, kernel, stride, dilation, padding = CASES[case]
    rng = np.random.default_rng(5)
    m = rows or m
    x = rng.standard_normal((n, groups * channels, *size)).astype(dtype)
    weight = rng.standard_normal((groups, m, channels, *kernel)).astype(dtype)
    bias = rng.standard_normal(groups * m).astype(dtype)
    extents = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, d, p in zip(size, kernel, stride, dilation, padding, strict=True)
    ]
    numbers = (stride, dilation, [-p for p in padding])
    return x, weight, bias, np.empty((n, groups * m, *extents), dtype), numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f4"])
@pytest.mark.parametrize("case", CASES)
def test_same_bits(case, dtype):
    x, weight, bias, out, numbers = arrays(case, dtype)
    expected = run(x, weight, bias, out, numbers, "zeros", False).copy()
    for threads, budget in product((1, 2, 3, 5), BUDGETS):
        out[...] = 7
        run(x, weight, bias, out, numbers, "zeros", True, threads, budget)
        assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [*range(1, 26), 39, 40, 41, 100])
def test_any_number_of_rows(rows, dtype):
    x, weight, bias, out, numbers = arrays("7x7", dtype, rows)
    expected = run(x, weight, bias, out, numbers, "zeros", False).copy()
    for threads in (1, 3):
        out[...] = 7
        run(x, weight, bias, out, numbers, "zeros", True, threads)
        assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("pixels", range(1, 27))
def test_any_number_of_pixels(pixels):
    x, weight, bias, out, numbers = arrays("1-D", np.float32)
    x, out = x[..., : 2 * pixels], np.empty((*out.shape[:4], pixels), np.float32)
    for rows in (8, 16, 24):
        args = (weight[:, :rows], bias[:rows], out[:, :rows], numbers, "zeros")
        expected = run(x, *args, False).copy()
        assert run(x, *args, True).tobytes() == expected.tobytes()


def test_padding_is_left_out():
    """Of small maps, what a weight is multiplied with in the padding does not show."""
    x, weight, bias, out, numbers = arrays("7x7", np.float32)
    expected = run(x, weight, bias, out, numbers, "zeros", True).copy()
    weight[:, :, :, 0, 0, :] = np.inf  # the first row meets padding with them
    y = run(x, weight, bias, out, numbers, "zeros", True)
    assert np.array_equal(y[..., 0, :], expected[..., 0, :])
    assert not np.isfinite(y[..., 1:, :]).any()


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_padding_modes(mode):
    x, weight, bias, out, numbers = arrays("7x7", np.float32)
    expected = run(x, weight, bias, out, numbers, mode, False).copy()
    assert run(x, weight, bias, out, numbers, mode, True).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "case",
    ["7x7", "batch", "pointwise", "strides", "no padding", "3-D", "border, 3-D", "patches, 3-D"],
)
def test_layouts(case):
    """Channels last, reversed and with gaps, of inputs and of results."""
    x, weight, bias, out, numbers = arrays(case, np.float32)
    expected = run(x, weight, bias, out, numbers, "zeros", False).copy()

    def last(array):
        return np.ascontiguousarray(np.moveaxis(array, 1, -1)).transpose(0, 4, 1, 2, 3)

    def backwards(array):
        return array[:, ::-1, :, ::-1, ::-1].copy()[:, ::-1, :, ::-1, ::-1]

    def gaps(array):
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 3, array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]

    def rows_apart(array):
        wide = np.full((*array.shape[:-1], array.shape[-1] + 3), 3, array.dtype)
        wide[..., :-3] = array
        return wide[..., :-3]

    for turn_x, turn_out in product((np.copy, last, backwards, gaps, rows_apart), repeat=2):
        result = turn_out(np.zeros_like(out))
        run(turn_x(x), weight, bias, result, numbers, "zeros", True)
        assert np.array_equal(result, expected)
        if turn_out in (gaps, rows_apart):
            assert np.all(result.base[..., 1::2] == 3) or np.all(result.base[..., -3:] == 3)


PLANS = {
    "grouped": ((2, 24, 7, 7), (24, 12, 3, 3), {"padding": 1, "groups": 2}),
    "standard": ((1, 40, 5, 6), (16, 40, 3, 3), {"padding": 1, "stride": 2}),
    "pointwise": ((3, 40, 7, 7), (32, 40, 1, 1), {}),
    "dilated": ((1, 16, 9, 9), (16, 16, 3, 3), {"padding": 2, "dilation": 2}),
}


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_has_the_bits_of_a_call(name, layout):
    shape, kernel, params = PLANS[name]
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape, np.float32)
    if layout == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    weight = rng.standard_normal(kernel, np.float32)
    bias = rng.standard_normal(kernel[0], np.float32)
    op = pyconv.get(name)
    if name != "pointwise":
        params = {**params, "algorithm": "direct"}
    params = {**params, "layout": layout}
    plan = op.plan(x.shape, weight, bias, **params)
    assert plan(x).tobytes() == op(x, weight, bias, **params).tobytes()
    calls.assert_near_reference(op, plan(x), (x, weight, bias), params)


def test_plans_of_other_operators():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 40, 7, 7), np.float32)
    kernel = rng.standard_normal((40, 1, 3, 3), np.float32)
    mix = rng.standard_normal((32, 40), np.float32)
    op = pyconv.get("depthwise_separable")
    plan = op.plan(x.shape, kernel, mix, padding=1)
    assert plan(x).tobytes() == op(x, kernel, mix, padding=1).tobytes()
    offset = rng.standard_normal((2, 18, 7, 7), np.float32)
    weight = rng.standard_normal((16, 40, 3, 3), np.float32)
    op = pyconv.get("deformable")
    plan = op.plan(x.shape, weight, padding=1)
    assert plan(x, offset).tobytes() == op(x, offset, weight, padding=1).tobytes()


def test_where_rows_are_in_lanes():
    def lanes(size, rows, kernel=3, stride=1, channels=64):
        axes = geometry.conv_axes(
            "x", (size, size), (kernel, kernel), (stride, stride),
            ((kernel // 2,) * 2,) * 2, (1, 1), "zeros",
        )  # fmt: skip
        return algorithms.in_lanes(engine.three(axes), rows, channels=channels)

    assert lanes(7, 32)
    assert lanes(7, 512, kernel=1)
    assert lanes(1, 64, kernel=1)
    assert lanes(14, 16)
    assert lanes(28, 16, stride=2)
    assert not lanes(14, 16, channels=1)  # turning results round would take longer than the sums
    assert not lanes(56, 4)
    assert not lanes(12, 6)
