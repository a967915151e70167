"""All residue classes of a transposed convolution in one call: next to one at a time."""

from __future__ import annotations

import numpy as np
import pytest

import pyconv
from pyconv import algorithms, engine, geometry
from pyconv._kernels import _transposed

from . import calls

DTYPES = (np.float32, np.float64, np.float16)

# Shapes of images and of weights (C, O/groups, *k).
CASES = {
    "k = 2s": ((2, 7, 9, 11), (7, 13, 4, 4), {"stride": 2, "padding": 1}),
    "k = s": ((1, 9, 12, 20), (9, 5, 2, 2), {"stride": 2}),
    "k = s, samples": ((3, 9, 7, 5), (9, 1, 3, 3), {"stride": 3}),
    "k < s": ((1, 5, 6, 7), (5, 6, 2, 3), {"stride": (3, 5)}),
    "k no multiple of s": ((2, 5, 8, 9), (5, 6, 3, 5), {"stride": 2, "output_padding": 1}),
    "few rows": ((1, 30, 9, 17), (30, 1, 4, 4), {"stride": 2, "padding": 1}),
    "three rows, aligned": ((1, 120, 9, 17), (120, 3, 4, 4), {"stride": 2, "padding": 1}),
    "aligned, more cropped": ((1, 9, 9, 17), (9, 1, 8, 8), {"stride": 4, "padding": 7}),
    "wide kernel": ((1, 20, 31), (20, 2, 64), {"stride": 16, "padding": 9}),
    "wide kernel, many rows": ((1, 20, 31), (20, 30, 64), {"stride": 32}),
    "many channels": ((2, 300, 4, 4), (300, 70, 4, 4), {"stride": 2, "padding": 1}),
    # Sums of more blocks than are added one after another, along one class and along all.
    "deep": ((1, 800, 3, 14), (800, 5, 4, 4), {"stride": 2, "padding": 1}),
    "one class deep": ((1, 400, 5, 14), (400, 3, 3, 3), {"stride": 2, "padding": 1}),
    "3-D, deep": ((1, 100, 5, 8, 7), (100, 9, 3, 3, 3), {"stride": (1, 2, 1), "padding": 1}),
    "depthwise": ((2, 6, 9, 8), (6, 1, 4, 4), {"stride": 2, "padding": 1, "groups": 6}),
    "groups": ((2, 12, 9, 8), (12, 5, 3, 4), {"stride": (2, 3), "groups": 3}),
    "dilation": ((1, 4, 9, 8), (4, 5, 3, 4), {"stride": (2, 3), "dilation": (3, 2)}),
    "extended": ((1, 4, 6, 5), (4, 5, 3, 3), {"stride": 2, "padding": ((-3, -1), (-2, -5))}),
    "cropped to less than a stride": ((1, 4, 2, 2), (4, 5, 5, 5), {"stride": 7, "padding": 4}),
    "stride 1": ((2, 6, 9, 8), (6, 5, 3, 2), {"padding": 1}),
    "strides of two axes": ((1, 6, 9, 8), (6, 5, 3, 3), {"stride": (2, 1)}),
    "3-D": ((2, 5, 4, 3, 6), (5, 4, 2, 3, 4), {"stride": (1, 3, 2), "padding": (0, 1, 1)}),
    "3-D, k = s": ((1, 5, 4, 6, 8), (5, 4, 2, 2, 2), {"stride": 2}),
    "long rows": ((1, 3, 2, 1500), (3, 2, 3, 4), {"stride": 2, "padding": 1}),
}


def arrays(case, dtype, seed=0):
    shape, kernel, params = CASES[case]
    rng = np.random.default_rng(seed)
    outputs = kernel[1] * params.get("groups", 1)
    return [rng.standard_normal(s).astype(dtype) for s in (shape, kernel, (outputs,))], params


def one_at_a_time(x, weight, bias, params, budget=2**26):
    """The same by a call for each residue class."""
    rank = weight.ndim - 2
    several = {
        name: params.get(name, default) for name, default in (("stride", 1), ("dilation", 1))
    }
    steps, rates = (v if isinstance(v, tuple) else (v,) * rank for v in several.values())
    padding = pyconv.checks.padding("transposed", params.get("padding", 0), rank)
    axes = geometry.transposed_axes(
        "transposed", x.shape[2:], weight.shape[2:], steps, padding, rates,
        params.get("output_padding", 0),
    )  # fmt: skip
    groups = params.get("groups", 1)
    out = np.empty((x.shape[0], weight.shape[1] * groups, *(a.size for a in axes)), x.dtype)
    run = engine.Run("transposed", int(x.dtype == np.float64), 1, budget)
    swapped = engine.grouped_weight(weight, groups).swapaxes(1, 2)
    pieces = engine.split_by_phases(engine.three(axes), swapped.shape)
    image, result = (engine.canonical(a, batched=True, channels_last=False) for a in (x, out))
    engine.convolve_pieces(run, image, swapped, bias, result, pieces)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_same_bits_as_one_class_at_a_time(case, dtype):
    given, params = arrays(case, dtype)
    op = pyconv.get("transposed")
    expected = one_at_a_time(*given, params)
    params = {**params, "algorithm": "phase"}
    y = op(*given, **params)
    assert y.tobytes() == expected.tobytes()
    assert op(*given, **params, threads=3).tobytes() == expected.tobytes()
    assert op.plan(given[0].shape, *given[1:], **params)(given[0]).tobytes() == expected.tobytes()
    for budget in (2**16, 2**18, 2**20):  # smaller boxes, or one class at a time
        try:
            little = op(*given, **params, max_workspace=budget)
        except ValueError as error:
            assert "max_workspace must be larger" in str(error)
        else:
            assert little.tobytes() == expected.tobytes()
    calls.assert_near_reference(op, y, given, params, slack=60)


@pytest.mark.parametrize("case", CASES)
def test_strided_arrays(case):
    """Channels last, every second element, reversed, not where an element may be."""
    (x, weight, bias), params = arrays(case, np.float32)
    op = pyconv.get("transposed")
    params = {**params, "algorithm": "phase"}
    expected = op(x, weight, bias, **params)
    last = np.moveaxis(x, 1, -1)
    y = op(np.ascontiguousarray(last), weight, bias, layout="channels_last", **params)
    assert np.moveaxis(y, -1, 1).tobytes() == expected.tobytes()
    twice = np.repeat(x, 2, axis=-1)[..., ::2]
    assert op(twice, weight, bias, **params).tobytes() == expected.tobytes()
    backwards = np.ascontiguousarray(weight[..., ::-1])[..., ::-1]
    assert op(x, backwards, bias, **params).tobytes() == expected.tobytes()
    odd = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    assert op(odd, weight, bias, **params).tobytes() == expected.tobytes()
    out = np.zeros((*expected.shape[:-1], expected.shape[-1] * 3), np.float32)[..., ::3]
    assert op(x, weight, bias, **params, out=out).tobytes() == expected.tobytes()
    swapped = op(*(a.astype(">f4") for a in (x, weight, bias)), **params)
    assert swapped.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stride", [2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 19])
def test_interleaving(stride, dtype):
    """Every number of classes, rows of every length, nothing written beyond."""
    weight = np.arange(1, 2 * stride + 1, dtype=dtype).reshape(1, 2, stride)
    op = pyconv.get("transposed")
    for size in (*range(1, 20), 33):
        x = np.arange(1, size + 1, dtype=dtype).reshape(1, 1, size)
        guarded = np.full((1, 2, size * stride + 2), -7, dtype)
        op(x, weight, stride=stride, algorithm="phase", out=guarded[..., 1:-1])
        expected = x[..., np.newaxis] * weight[0][:, np.newaxis]
        np.testing.assert_array_equal(guarded[..., 1:-1], expected.reshape(1, 2, -1))
        assert (guarded[..., [0, -1]] == -7).all()


def test_inputs_in_place_at_the_end_of_memory():
    """Whole panels of the last channel would reach past it: NaNs, or nothing at all."""
    op = pyconv.get("transposed")
    rng = np.random.default_rng(0)
    for size in ((40, 57), (7, 9), (3, 5), (1, 16)):
        image = rng.integers(-3, 4, (1, 32, *size)).astype(np.float32)
        guarded = np.full(image.size + 64, np.nan, np.float32)
        guarded[: image.size] = image.ravel()
        x = guarded[: image.size].reshape(image.shape)
        y = op(x, np.ones((32, 2, 2, 2), np.float32), stride=2)
        expected = np.repeat(np.repeat(image.sum(1, keepdims=True), 2, -1), 2, -2)
        np.testing.assert_array_equal(y, np.broadcast_to(expected, y.shape))


def test_classes_are_aligned_where_rows_are_few():
    axis = geometry.transposed_axes("transposed", (33,), (4,), (2,), ((1, 1),), (1,))[0]
    assert algorithms.cropped_to_align(axis, 3) == 1
    assert algorithms.cropped_to_align(axis, 60) == 0


def test_many_classes_one_at_a_time():
    op = pyconv.get("transposed")
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 3, 4)), rng.standard_normal((3, 2, 1500))
    params = {"stride": engine.MOST_CLASSES + 1, "algorithm": "phase"}
    expected = op.reference(x, weight, **params)
    np.testing.assert_allclose(op(x, weight, **params), expected, rtol=1e-12, atol=1e-12)


def test_too_little_workspace_is_left_alone():
    (x, weight, bias), _ = arrays("many channels", np.float32)
    axes = engine.three(
        geometry.transposed_axes("t", (4, 4), (4, 4), (2, 2), ((1, 1),) * 2, (1, 1))
    )
    swapped = engine.grouped_weight(weight, 1).swapaxes(1, 2)
    out = np.full((2, 70, 1, 8, 8), 7, np.float32)
    classes = engine.split(engine.three(axes), 70)
    args = (x[:, :, np.newaxis], swapped, bias, out, classes, 0, 1)
    assert _transposed.correlate(*args, 2**12) == -1
    assert (out == 7).all()
    need = _transposed.correlate(*args, 2**25, None, True)
    assert (out == 7).all()
    assert _transposed.correlate(*args, 2**25) == need <= 2**25
    assert not (out == 7).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("flip", [False, True])
def test_winograd(dtype, flip):
    rng = np.random.default_rng(0)
    op = pyconv.get("transposed")
    for shape, kernel, params in (
        ((2, 9, 8, 11), (9, 7, 3, 3), {"padding": 1}),
        ((1, 6, 8, 11), (6, 4, 3, 3), {"groups": 2, "dilation": (1, 2)}),
        ((1, 6, 4, 8, 11), (6, 4, 2, 3, 3), {"padding": (1, 0, 2)}),
    ):
        x, weight = (rng.standard_normal(s).astype(dtype) for s in (shape, kernel))
        params = {**params, "flip": flip}
        y = op(x, weight, **params, algorithm="winograd")
        expected = op(x.astype(np.float64), weight.astype(np.float64), **params)
        tolerance = 1e-12 if dtype is np.float64 else 2e-5
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * 10)
        plan = op.plan(shape, weight, **params, algorithm="winograd")
        assert plan(x).tobytes() == y.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_winograd_of_residues(dtype):
    rng = np.random.default_rng(0)
    op = pyconv.get("transposed")
    for shape, kernel, params in (
        ((2, 9, 8, 11), (9, 7, 4, 4), {"stride": 2, "padding": 1}),
        ((1, 6, 8, 11), (6, 4, 3, 5), {"stride": 2, "groups": 2, "flip": True}),
        ((1, 6, 8, 11), (6, 4, 5, 2), {"stride": (2, 3), "output_padding": (0, 2)}),
        ((1, 6, 4, 8, 11), (6, 4, 3, 4, 5), {"stride": 2, "dilation": (1, 3, 1), "padding": 2}),
        ((2, 12, 40), (12, 8, 16), {"stride": 8, "padding": 4}),
        ((2, 5, 6, 9), (8, 4, 4, 4), {"stride": 2, "padding": "same", "layout": "channels_last"}),
    ):
        if "layout" in params:
            shape = (*shape[:1], *shape[2:], kernel[0])
        x, weight = (rng.standard_normal(s).astype(dtype) for s in (shape, kernel))
        bias = rng.standard_normal(kernel[1] * params.get("groups", 1)).astype(dtype)
        y = op(x, weight, bias, **params, algorithm="winograd")
        wide = (a.astype(np.float64) for a in (x, weight, bias))
        expected = op(*wide, **params, algorithm="phase")
        tolerance = 1e-12 if dtype is np.float64 else 2e-5
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * 10)
        plan = op.plan(shape, weight, bias, **params, algorithm="winograd")
        assert plan(x).tobytes() == y.tobytes()
        alone = op(x[:1], weight, bias, **params, algorithm="winograd")
        assert alone.tobytes() == y[:1].tobytes()


def test_winograd_needs_residues_of_two_taps():
    op = pyconv.get("transposed")
    for kernel, stride in (((2, 2), 2), ((1, 1), 1), ((3, 3), 3), ((7, 7), 1)):
        with pytest.raises(ValueError, match="not be 'winograd'"):
            op.output_shape((1, 64, 30, 30), (64, 64, *kernel), stride=stride, algorithm="winograd")
    weight = np.ones((64, 64, 3, 3), np.float32)
    assert op.plan((1, 64, 56, 56), weight, padding=1).algorithm == "winograd"
    weight = np.ones((64, 64, 2, 2), np.float32)
    assert op.plan((1, 64, 56, 56), weight, stride=2).algorithm == "phase"


# Few positions: a call without packed weights transposes them instead.
TURNED = [
    ((1, 40, 4, 4), (40, 48, 4, 4), {"stride": 2, "padding": 1}),
    ((2, 70, 3, 5), (70, 37, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((1, 60, 3, 5), (60, 40, 5, 3), {"stride": (3, 2), "groups": 2, "flip": True}),
    ((3, 33, 7), (33, 50, 16), {"stride": 8, "padding": 4}),
    ((1, 20, 2, 3, 3), (20, 34, 3, 4, 2), {"stride": 2, "padding": 1, "dilation": (1, 1, 3)}),
    ((1, 30, 3, 3), (30, 40, 1, 2), {"stride": 3}),
    ((1, 450, 3, 3), (450, 37, 3, 4), {"stride": (1, 2), "padding": 1}),  # deep
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("case", TURNED, ids=range(len(TURNED)))
def test_few_positions(case, dtype):
    shape, kernel, params = case
    rng = np.random.default_rng(0)
    op = pyconv.get("transposed")
    x, weight = (rng.standard_normal(s).astype(dtype) for s in (shape, kernel))
    bias = rng.standard_normal(kernel[1] * params.get("groups", 1)).astype(dtype)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    for b in (bias, None):
        for xs in (x, last, x[..., ::-1]):
            y = op(xs, weight, b, **params, algorithm="phase")
            plan = op.plan(shape, weight, b, **params, algorithm="phase")
            assert plan(xs).tobytes() == y.tobytes()
            for threads in (2, 3):
                again = op(xs, weight, b, **params, algorithm="phase", threads=threads)
                assert again.tobytes() == y.tobytes()
            apart = weight[..., ::-1].copy()[..., ::-1]
            assert op(xs, apart, b, **params, algorithm="phase").tobytes() == y.tobytes()
    small = op(x, weight, bias, **params, algorithm="phase", max_workspace=2**18)
    assert small.tobytes() == op(x, weight, bias, **params, algorithm="phase").tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stride", [2, 3, 4, 5, 7])
def test_interleaved_rows_of_any_length(stride, dtype):
    """Rows of few and of many positions, that end within a position, and begin within one."""
    rng = np.random.default_rng(6)
    for size, more, padding in [(1, 1, 0), (2, 0, 1), (3, 1, 0), (4, 0, 1), (9, 1, 1), (21, 1, 1)]:
        x = rng.standard_normal((2, 5, 3, size)).astype(dtype)
        weight = rng.standard_normal((5, 3, 2, stride + 1)).astype(dtype)
        for extra in {0, more, (stride - 1) * more}:
            params = {
                "stride": (1, stride), "padding": (0, padding), "output_padding": (0, extra),
                "algorithm": "phase",
            }  # fmt: skip
            got = pyconv.transposed_conv(x, weight, **params)
            calls.assert_near_reference(pyconv.get("transposed"), got, [x, weight], params)


@pytest.mark.parametrize("groups", [1, 3])
def test_columns_of_many_samples(groups):
    """Columns of several samples and groups at a time have the bits of one of them alone."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((9, 6 * groups, 11, 5)).astype(np.float32)
    weight = rng.standard_normal((6 * groups, 4, 3, 4)).astype(np.float32)
    bias = rng.standard_normal(4 * groups).astype(np.float32)
    op = pyconv.get("transposed")
    params = {"stride": (2, 3), "padding": 1, "groups": groups, "algorithm": "col2im"}
    got = op(x, weight, bias, **params)
    calls.assert_near_reference(op, got, [x, weight, bias], params)
    plan = op.plan(x.shape, weight, bias, **params)
    for same in (plan(x), op(x, weight, bias, threads=2, max_workspace=2**17, **params)):
        assert same.tobytes() == got.tobytes()
    for n in (0, 8):
        alone = op(x[n : n + 1], weight, bias, **params)
        assert alone.tobytes() == got[n : n + 1].tobytes()
    for g in range(groups):
        part = slice(g * 6, g * 6 + 6), slice(g * 4, g * 4 + 4)
        alone = op(x[:, part[0]], weight[part[0]], bias[part[1]], **{**params, "groups": 1})
        assert alone.tobytes() == np.ascontiguousarray(got[:, part[1]]).tobytes()
