"""Convolution by Fourier transforms: any shape, the same bits however it is called."""

from __future__ import annotations

import tracemalloc
from math import prod

import numpy as np
import pytest

import pyconv
from pyconv import algorithms, fft, geometry

from . import calls

# Operator, shapes of images and weights.
CASES = {
    "2-D": ("standard", (2, 3, 40, 51), (4, 3, 9, 7), {"padding": "same"}),
    "1-D": ("standard", (2, 3, 400), (4, 3, 31), {"padding": 7, "stride": 3}),
    "3-D": ("standard", (1, 2, 12, 13, 14), (3, 2, 3, 2, 5), {"padding": 1, "stride": (1, 2, 1)}),
    "strides": ("standard", (1, 2, 60, 71), (3, 2, 8, 5), {"stride": (2, 3), "padding": (1, 4)}),
    "dilated": ("standard", (1, 2, 60, 71), (3, 2, 5, 4), {"dilation": (3, 2), "padding": 5}),
    "groups": ("standard", (1, 6, 30, 31), (4, 3, 5, 5), {"groups": 2}),
    "rows": ("standard", (1, 2, 33, 300), (3, 2, 1, 41), {"padding": (0, 20), "stride": (2, 1)}),
    "columns": ("standard", (1, 2, 300, 33), (3, 2, 41, 1), {"padding": (20, 0)}),
    "pointwise": ("standard", (1, 3, 20, 21), (4, 3, 1, 1), {"stride": 2}),
    "cropped": ("standard", (1, 1, 50, 60), (1, 1, 7, 7), {"padding": ((-3, 4), (2, -5))}),
    "padding alone": ("standard", (1, 1, 2, 3), (1, 1, 5, 5), {"padding": 9}),
    "reflect": (
        "standard", (1, 2, 30, 31), (2, 2, 9, 9), {"padding": 4, "padding_mode": "reflect"},
    ),
    "circular": (
        "depthwise", (1, 2, 30, 31), (4, 1, 9, 9), {"padding": 12, "padding_mode": "circular"},
    ),
    "depthwise": ("depthwise", (2, 5, 90, 84), (10, 1, 31, 33), {"padding": "same", "flip": True}),
}  # fmt: skip


def make(case, dtype=np.float32):
    name, shape, kernel, params = CASES[case]
    rng = np.random.default_rng(3)
    x, weight, bias = (rng.standard_normal(s) for s in (shape, kernel, kernel[:1]))
    return pyconv.get(name), [a.astype(dtype) for a in (x, weight, bias)], params


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("case", CASES)
def test_values_and_bits(case, dtype):
    op, (x, weight, bias), params = make(case, dtype)
    params = {**params, "algorithm": "fft"}
    y = op(x, weight, bias, **params)
    wide = [a.astype(np.float64) for a in (x, weight, bias)]
    plain = {key: value for key, value in params.items() if key != "algorithm"}
    size = op.reference(*[abs(a) for a in wide], **plain).max()
    assert abs(y - op.reference(*wide, **plain)).max() <= 40 * np.finfo(dtype).eps / 2 * size

    assert op.plan(x.shape, weight, bias, **params)(x).tobytes() == y.tobytes()
    assert op(x, weight, bias, **params, threads=2).tobytes() == y.tobytes()
    assert op(x[-1], weight, bias, **params).tobytes() == y[-1].tobytes()
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    swapped = x.astype(x.dtype.newbyteorder())
    for same in (last, swapped, x[..., ::-1].copy()[..., ::-1]):
        assert op(same, weight, bias, **params).tobytes() == y.tobytes()
    into = np.moveaxis(np.empty(np.moveaxis(y, 1, -1).shape, dtype), -1, 1)
    assert op(x, weight, bias, **params, out=into).tobytes() == y.tobytes()


@pytest.mark.parametrize("shape", [(0, 1, 9, 9), (2, 0, 9, 9)])
def test_empty(shape):
    weight, bias = np.ones((3, shape[1], 3, 3), np.float32), np.arange(3, dtype=np.float32)
    y = pyconv.conv(np.ones(shape, np.float32), weight, bias, algorithm="fft")
    assert y.shape == (shape[0], 3, 7, 7)
    assert not shape[0] or (y == bias[:, None, None]).all()


def test_gradients():
    """That of the input is a convolution and goes by transforms as well; sums stay sums."""
    op, arrays, params = make("2-D")
    grad = np.ones_like(op(*arrays, **params))
    one, other = (op.backward(grad, *arrays, **params, algorithm=a) for a in ("fft", "direct"))
    assert calls.same_bits(one["weight"], other["weight"])
    assert calls.same_bits(one["bias"], other["bias"])
    assert not calls.same_bits(one["x"], other["x"])
    wide, sizes = ([f(a.astype(np.float64)) for a in arrays] for f in (np.asarray, abs))
    exact = op.backward(grad.astype(np.float64), *wide, **params, algorithm="direct")["x"]
    size = op.backward(grad.astype(np.float64), *sizes, **params, algorithm="direct")["x"].max()
    assert abs(one["x"] - exact).max() <= 32 * np.finfo(np.float32).eps / 2 * size


def test_threads_share_blocks():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 1, 900, 1000), dtype=np.float32)
    weight = rng.standard_normal((2, 1, 45, 45), dtype=np.float32)
    params = {"algorithm": "fft", "padding": 22}
    one = pyconv.get("standard").plan(x.shape, weight, **params, threads=1)
    three = pyconv.get("standard").plan(x.shape, weight, **params, threads=3)
    assert three.workspace_bytes > one.workspace_bytes
    assert three(x).tobytes() == one(x).tobytes()
    alone = pyconv.conv(x[1], weight, **params, threads=2)
    assert alone.tobytes() == one(x)[1].tobytes()


@pytest.mark.parametrize("packed", [True, False])
def test_memory(packed):
    """A call takes the workspace that its plan tells, besides the result."""
    x = np.ones((1, 2, 500, 600), np.float32)
    weight = np.ones((2, 2, 40, 40), np.float32)
    op, params = pyconv.get("standard"), {"algorithm": "fft"}
    plan = op.plan(x.shape, weight, **params)
    call = (lambda: plan(x)) if packed else (lambda: op(x, weight, **params))
    call()
    tracemalloc.start()
    try:
        y = call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    most = plan.workspace_bytes if packed else 2**25
    assert peak - y.nbytes <= most
    with pytest.raises(ValueError, match="max_workspace"):
        op(x, weight, **params, max_workspace=2**16)


def test_auto_takes_it_for_large_kernels():
    def chosen(name, shape, kernel, **params):
        weight = np.ones(kernel, np.float32)
        return pyconv.get(name).plan(shape, weight, **params).algorithm

    assert chosen("standard", (1, 1, 1024, 1024), (1, 1, 63, 63), padding=31) == "fft"
    assert chosen("depthwise", (1, 3, 640, 480), (3, 1, 101, 101), padding=50) == "fft"
    assert chosen("standard", (1, 1, 1024, 1024), (1, 1, 15, 15), padding=7) == "direct"
    assert chosen("standard", (1, 1, 1024, 1024), (1, 1, 63, 63), stride=16) == "direct"
    assert chosen("depthwise", (1, 96, 56, 56), (96, 1, 7, 7), padding=3) == "direct"
    assert chosen("standard", (1, 64, 56, 56), (64, 64, 11, 11), padding=5) == "direct"


@pytest.mark.parametrize("extent", [1, 7, 100, 1024, 5000, 2**40])
@pytest.mark.parametrize("kernel", [1, 2, 63, 1000])
@pytest.mark.parametrize("stride", [1, 3, 70])
def test_blocks_cover_the_outputs(extent, kernel, stride):
    axes = geometry.conv_axes(
        "standard", (extent, extent), (kernel, kernel), (stride,) * 2,
        ((kernel, kernel),) * 2, (1, 1), "zeros",
    )  # fmt: skip
    blocks = fft.choose_blocks(axes, 1, 1)
    parts = (part[1:] for part in (blocks.lengths, blocks.outputs, blocks.counts))
    for axis, length, outputs, count in zip(axes, *parts, strict=True):
        assert (outputs - 1) * axis.stride + axis.reach <= length
        assert (count - 1) * outputs < axis.out <= count * outputs
    assert blocks.points == prod(blocks.lengths)
    if kernel < 100:
        assert blocks.points <= fft.most_points(1, 1)


def test_what_nobody_reads_leaves_no_trace():
    """Taps that meet the padding alone, and inputs that no tap meets."""
    x = np.array([[[3.0, 0, 0, 1e9, 0, 0, 2]]])
    weight = np.array([[[1e9, 5]]])
    params = {"padding": ((2, -3),), "dilation": 2, "stride": 10}
    one, other = (
        pyconv.depthwise_conv(x, weight, **params, algorithm=a) for a in ("fft", "direct")
    )
    np.testing.assert_allclose(one, other, rtol=1e-14)


def test_good_lengths():
    for least in range(1, 3000):
        length = fft.good_length(least)
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1
        assert length % 2 == 0
        assert least <= length <= max(least + 1, 1.25 * least)


def test_gain_is_none_without_outputs():
    axes = geometry.conv_axes("standard", (20,), (200,), (1,), ((90, 90),), (1,), "zeros")
    assert algorithms.fft_gain(axes, 0, 1) == 0
