"""Depthwise convolution has several ways through memory; all give the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import pyconv

from . import calls

# Shapes of images and weights.
CASES = {
    "plain": ((2, 17, 20, 37), (17, 1, 3, 3), {"padding": 1}),
    "few pixels": ((2, 37, 7, 7), (37, 1, 5, 5), {"padding": 2}),
    "pixels below a vector": ((1, 33, 3, 2), (33, 1, 3, 3), {"padding": 2}),
    "all padding": ((1, 16, 2, 2), (16, 1, 7, 7), {"padding": ((9, 3), (4, 11))}),
    "power of two": ((1, 16, 9, 64), (16, 1, 3, 3), {"padding": 1}),
    "lines of a page": ((1, 2, 20, 1024), (2, 1, 3, 3), {"padding": 1}),
    "two rows": ((1, 4, 2, 90), (4, 1, 3, 3), {"padding": 1}),
    "stride 2": ((1, 20, 31, 45), (20, 1, 3, 3), {"padding": 1, "stride": 2}),
    "stride 2, even": ((1, 9, 30, 34), (9, 1, 4, 5), {"padding": (1, 2), "stride": 2}),
    "stride 2, few pixels": ((2, 40, 14, 14), (40, 1, 5, 5), {"padding": 2, "stride": 2}),
    "stride 2, 5x5": ((1, 9, 30, 57), (9, 1, 5, 5), {"padding": 2, "stride": 2}),
    "stride 2, 7x7": ((1, 5, 60, 41), (5, 1, 7, 7), {"padding": ((0, 4), (1, 2)), "stride": 2}),
    "stride 2, by two": ((2, 9, 33, 80), (9, 1, 2, 2), {"stride": 2}),
    "stride 2, by two, padded": ((1, 9, 30, 95), (9, 1, 2, 2), {"stride": 2, "padding": (2, 1)}),
    "stride 2, by two, apart": ((1, 5, 30, 64), (5, 1, 2, 2), {"stride": 2, "dilation": (3, 1)}),
    "stride 2, two of a line": ((1, 5, 30, 64), (10, 1, 1, 2), {"stride": 2}),
    "stride 2, three of a line": ((1, 5, 30, 150), (5, 1, 1, 3), {"stride": 2, "padding": (0, 1)}),
    "3-D, by two": ((1, 6, 8, 17, 48), (6, 1, 2, 2, 2), {"stride": 2}),
    "stride 2, wide": ((1, 3, 20, 4200), (3, 1, 3, 3), {"padding": 1, "stride": 2}),
    "stride 2, dilated": ((1, 6, 45, 70), (6, 1, 3, 3), {"stride": 2, "dilation": (1, 3)}),
    "stride 2, replicate": (
        (1, 4, 33, 60),
        (4, 1, 3, 3),
        {"padding": 5, "stride": 2, "padding_mode": "replicate"},
    ),
    "strides": ((1, 18, 25, 40), (18, 1, 7, 4), {"padding": 3, "stride": (2, 3)}),
    "stride above kernel": ((1, 8, 25, 40), (8, 1, 2, 1), {"stride": (3, 2)}),
    "dilated": ((1, 16, 33, 33), (16, 1, 3, 3), {"padding": 12, "dilation": 12}),
    "dilated by 2": ((1, 7, 35, 33), (7, 1, 3, 3), {"padding": 2, "dilation": 2}),
    "dilated, wide padding": ((1, 7, 40, 70), (7, 1, 5, 5), {"padding": 20, "dilation": (2, 5)}),
    "dilated, stride": ((1, 8, 30, 33), (8, 1, 3, 5), {"dilation": (3, 2), "stride": 2}),
    "cropped": ((1, 16, 20, 30), (16, 1, 3, 3), {"padding": ((-2, 3), (1, -4))}),
    "7x7": ((1, 4, 50, 60), (4, 1, 7, 7), {"padding": (3, 9)}),
    "many rows": ((1, 2, 500, 24), (2, 1, 3, 3), {"padding": 1}),
    "large kernel": ((1, 10, 40, 50), (10, 1, 11, 9), {"padding": (5, 4)}),
    "multiplier": ((1, 17, 13, 11), (51, 1, 3, 3), {"padding": 1}),
    "multiplier, wide": ((1, 5, 13, 60), (10, 1, 3, 3), {"padding": 1}),
    "flipped": ((1, 24, 30, 40), (24, 1, 3, 4), {"padding": 2, "flip": True}),
    "reflect": ((1, 16, 12, 13), (16, 1, 5, 5), {"padding": 4, "padding_mode": "reflect"}),
    "circular": ((1, 8, 30, 40), (8, 1, 3, 3), {"padding": 3, "padding_mode": "circular"}),
    "1-D": ((2, 24, 300), (24, 1, 31), {"padding": 15}),
    "1-D stride": ((2, 24, 300), (24, 1, 5), {"padding": 3, "stride": 2, "dilation": 3}),
    "1-D, few pixels": ((1, 40, 50), (40, 1, 9), {"padding": 4}),
    "3-D": ((1, 16, 6, 14, 22), (16, 1, 3, 3, 3), {"padding": 1}),
    "3-D, stride 2": (
        (1, 3, 7, 20, 40),
        (6, 1, 3, 3, 3),
        {"padding": (2, 1, 1), "stride": (1, 2, 2)},
    ),
    "3-D, few pixels": ((1, 32, 5, 6, 7), (32, 1, 3, 3, 3), {"padding": 2, "stride": (2, 1, 2)}),
    "3-D, several planes": ((2, 20, 11, 7, 9), (20, 1, 3, 3, 3), {"padding": 1, "stride": 2}),
    "3-D, dilated": (
        (1, 18, 12, 9, 10),
        (18, 1, 3, 3, 3),
        {"padding": 2, "dilation": (2, 1, 2), "stride": (4, 2, 1)},
    ),
    "3-D, flipped": ((1, 4, 9, 10, 11), (4, 1, 3, 2, 3), {"padding": 1, "flip": True}),
    "3-D, flipped, few pixels": ((1, 19, 9, 4, 5), (19, 1, 3, 2, 3), {"padding": 1, "flip": True}),
    "3-D, strides": ((1, 5, 13, 8, 9), (5, 1, 2, 3, 3), {"stride": (3, 2, 2)}),
    "3-D, circular": (
        (1, 5, 9, 8, 12),
        (10, 1, 3, 3, 3),
        {"padding": 1, "stride": (2, 1, 1), "padding_mode": "circular"},
    ),
    "3-D, reflect, few pixels": (
        (1, 17, 9, 8, 5),
        (17, 1, 3, 3, 3),
        {"padding": 1, "padding_mode": "reflect"},
    ),
    "3-D, short rows": ((2, 3, 9, 12, 11), (6, 1, 3, 3, 3), {"padding": 1}),
    "3-D, large kernel": ((1, 3, 9, 9, 10), (3, 1, 5, 5, 5), {"padding": 2}),
    "short rows": ((1, 20, 90, 3), (20, 1, 3, 3), {"padding": 1}),
    "few channels a group": ((1, 36, 9, 10), (12, 3, 3, 3), {"padding": 1, "groups": 12}),
    "few rows a group": ((1, 40, 9, 30), (80, 1, 3, 3), {"padding": 1, "groups": 40}),
}


def memories(x):
    """The same values elsewhere in memory, in other orders and byte orders."""
    yield "channels last", np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    yield "reversed columns", np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    yield "reversed rows", np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1]
    yield "every second column", np.repeat(x, 2, axis=-1)[..., ::2]
    yield "part of a larger one", np.pad(x, 1, constant_values=np.nan)[(slice(1, -1),) * x.ndim]
    yield "swapped bytes", x.astype(x.dtype.newbyteorder())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("case", CASES)
def test_same_bits_from_any_memory(case, dtype):
    shape, kernel, params = CASES[case]
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape).astype(dtype)
    weight = rng.standard_normal(kernel).astype(dtype)
    bias = rng.standard_normal(kernel[0]).astype(dtype)
    op = pyconv.get("grouped" if "groups" in params else "depthwise")
    y = op(x, weight, bias, **params)
    calls.assert_near_reference(op, y, (x, weight, bias), params)
    for name, same in memories(x):
        assert op(same, weight, bias, **params).tobytes() == y.tobytes(), name
        out = np.moveaxis(np.empty(np.moveaxis(y, 1, -1).shape, dtype), -1, 1)
        op(same, weight, bias, **params, out=out)
        assert out.tobytes() == y.tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [3, 9, 16, 21, 40])
def test_rows_and_columns_of_any_number(columns, dtype):
    """Tiles of all heights, the last of them overlapping, give what small groups in lanes give."""
    rng = np.random.default_rng(3)
    for taps, dilation in (((3, 3), 1), ((3, 5), (2, 1)), ((6, 2), 1)):
        weight = rng.standard_normal((20, 1, *taps)).astype(dtype)
        for rows in range(1, 21):
            x = rng.standard_normal((1, 20, rows, columns)).astype(dtype)
            args = {"padding": "same", "dilation": dilation}
            y = pyconv.depthwise_conv(x, weight, **args)
            last = np.moveaxis(x, 1, -1).copy()
            lanes = pyconv.depthwise_conv(last, weight, layout="channels_last", **args)
            assert np.moveaxis(lanes, -1, 1).tobytes() == y.tobytes(), (taps, rows)
            few = pyconv.depthwise_conv(x[:, :3], weight[:3], **args)
            assert few.tobytes() == y[:, :3].tobytes(), (taps, rows)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_written_beside_the_results(dtype, stride):
    """Vectors that are wider than rows end where the last row does, and rows may lie apart."""
    rng = np.random.default_rng(8)
    for columns in range(1, 2 * 36, 2 * stride - 1):
        rows, taps = rng.integers(3, 20), (3, 3) if rng.random() < 0.7 else (5, 2)
        x = rng.standard_normal((2, 3, stride * rows, columns)).astype(dtype)
        weight = rng.standard_normal((3, 1, *taps)).astype(dtype)
        args = {"padding": 1, "stride": stride}
        y = pyconv.depthwise_conv(x, weight, **args)
        n, channels, height, width = y.shape
        for shape in ((n, channels, height + 3, width), (n, channels, height, width + 19)):
            around = np.full(shape, 7, dtype)
            out = around[:, :, :height, :width]
            pyconv.depthwise_conv(x, weight, **args, out=out)
            assert out.tobytes() == y.tobytes(), (columns, shape)
            out[...] = 7
            assert (around == 7).all(), (columns, shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_second_of_any_number_of_columns(dtype):
    """Lines are parted by vectors, by fours, and one by one, into those of each residue."""
    rng = np.random.default_rng(6)
    weight = rng.standard_normal((20, 1, 3, 4)).astype(dtype)
    for columns in range(2, 50):
        x = rng.standard_normal((1, 20, 9, columns)).astype(dtype)
        y = pyconv.depthwise_conv(x[:, :3], weight[:3], stride=2, padding=1)
        last = np.moveaxis(x, 1, -1).copy()
        lanes = pyconv.depthwise_conv(last, weight, stride=2, padding=1, layout="channels_last")
        assert np.moveaxis(lanes, -1, 1)[:, :3].tobytes() == y.tobytes(), columns


@pytest.mark.parametrize("case", [case for case in CASES if "3-D" in case])
def test_planes_alone_and_together(case):
    """Several planes of results share what is copied, unless there are too few for all threads."""
    shape, kernel, params = CASES[case]
    rng = np.random.default_rng(7)
    x = rng.standard_normal(shape).astype(np.float32)
    weight = rng.standard_normal(kernel).astype(np.float32)
    y = pyconv.depthwise_conv(x, weight, **params, threads=1)
    for threads in (2, 7, 64):
        assert pyconv.depthwise_conv(x, weight, **params, threads=threads).tobytes() == y.tobytes()


@pytest.mark.parametrize("case", ["few pixels", "stride 2, few pixels", "3-D, few pixels"])
def test_samples_one_by_one(case):
    """Few pixels: a block of channels has its weights once for all samples."""
    shape, kernel, params = CASES[case]
    rng = np.random.default_rng(4)
    x = rng.standard_normal((5, *shape[1:])).astype(np.float32)
    weight = rng.standard_normal(kernel).astype(np.float32)
    weight[1, 0, 0] = np.inf  # one block is padded
    with np.errstate(invalid="ignore"):
        y = pyconv.depthwise_conv(x, weight, **params, threads=2)
        for i in range(5):
            one = pyconv.depthwise_conv(x[i], weight, **params, threads=1)
            assert one.tobytes() == y[i].tobytes()


@pytest.mark.parametrize(
    ("shape", "kernel", "params"),
    [
        ((1, 20, 6, 36), (20, 1, 7, 7), {"padding": 36, "dilation": 12}),
        ((2, 9, 42, 6), (9, 1, 9, 9), {"padding": 48, "dilation": 12, "stride": 2}),
        ((2, 9, 5, 6), (9, 1, 3, 3), {"padding": ((20, 0), (3, 3)), "dilation": 3}),
    ],
)
def test_taps_that_read_padding_alone_are_left_out(shape, kernel, params):
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape).astype(np.float32)
    weight = rng.standard_normal(kernel).astype(np.float32)
    op = pyconv.get("depthwise")
    y = op(x, weight, **params)
    calls.assert_near_reference(op, y, (x, weight), params)
    assert op.plan(x.shape, weight, **params)(x).tobytes() == y.tobytes()
    assert op(x, weight, **params, threads=2).tobytes() == y.tobytes()
    weight[:, :, 0] = np.inf  # rows of taps that no output needs
    assert op(x, weight, **params).tobytes() == y.tobytes()


@pytest.mark.parametrize("case", CASES)
def test_same_bits_beside_weights_that_are_not_finite(case):
    """Taps outside the image count zero times their weight: left out where that is zero."""
    shape, kernel, params = CASES[case]
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape).astype(np.float32)
    weight = rng.standard_normal(kernel).astype(np.float32)
    op = pyconv.get("grouped" if "groups" in params else "depthwise")
    finite = op(x, weight, **params)
    weight[0] = np.inf
    weight[-1, ..., 0] = np.nan
    y = op(x, weight, **params)
    assert y[:, 1:-1].tobytes() == finite[:, 1:-1].tobytes()
    with np.errstate(invalid="ignore"):
        expected = op.reference(x.astype(np.float64), weight.astype(np.float64), **params)
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected))
