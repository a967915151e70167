"""Deformable convolution forward: every way of sampling, by any workspace and any threads."""

import numpy as np
import pytest

import pyconv
from pyconv import engine, geometry

from . import calls

OP = pyconv.get("deformable")

# x, weight, offset groups, spread of the offsets, parameters
CASES = {
    "one channel": ((2, 1, 19, 23), (5, 1, 3, 3), 1, 1.0, {"padding": 1}),
    "two per offset group": ((2, 4, 11, 13), (3, 4, 3, 3), 2, 1.0, {"padding": 2, "dilation": 2}),
    "one per offset group": ((1, 5, 12, 9), (7, 5, 2, 3), 5, 1.0, {}),
    "a vector and a bit": ((1, 13, 15, 14), (6, 13, 3, 3), 1, 1.0, {"padding": 1}),
    "groups across offset groups": ((1, 24, 13, 11), (8, 6, 3, 3), 3, 1.0, {"padding": 1}),
    "rows in lanes": ((1, 64, 17, 16), (20, 64, 3, 3), 2, 1.0, {"padding": 1}),
    "pixels in lanes": ((1, 3, 40, 33), (50, 3, 3, 3), 1, 1.0, {"padding": 1}),
    "channels beyond a tile": ((1, 300, 9, 8), (6, 300, 1, 2), 1, 1.0, {}),
    "blocks of depths": ((1, 200, 9, 8), (30, 200, 3, 3), 1, 1.0, {"padding": 1}),
    "channels last": ((1, 17, 16, 24), (9, 24, 3, 3), 2, 1.0, {"layout": "channels_last"}),
    "few channels last": ((2, 17, 16, 3), (9, 3, 3, 3), 1, 1.0, {"layout": "channels_last"}),
    "few of the pixels": ((1, 6, 90, 80), (4, 6, 3, 3), 1, 1.0, {"stride": 11}),
    "bands": ((2, 40, 90, 60), (6, 40, 3, 3), 2, 1.0, {"padding": 1, "stride": 2}),
    "strewn": ((1, 40, 90, 60), (6, 40, 3, 3), 1, 60.0, {"padding": 1, "stride": 2}),
    "most outside": ((1, 40, 90, 60), (6, 40, 3, 3), 1, 1e3, {"padding": 1}),
    "1-D": ((2, 30, 4000), (6, 30, 5), 1, 3.0, {"padding": 2}),
    "3-D": ((1, 30, 40, 12, 13), (6, 30, 3, 1, 2), 1, 1.0, {"padding": (1, 0, 0)}),
}


def arrays(x_shape, weight_shape, groups, spread, params, dtype):
    rng = np.random.default_rng(0)
    last, rank = params.get("layout") == "channels_last", len(weight_shape) - 2
    taps = int(np.prod(weight_shape[2:]))
    wanted = OP.plan(x_shape, np.zeros(weight_shape), **params).output_shape
    out = wanted[1:-1] if last else wanted[2:]

    def image(channels):
        return (x_shape[0], *out, channels) if last else (x_shape[0], channels, *out)

    x, weight = rng.standard_normal(x_shape), rng.standard_normal(weight_shape)
    weight /= np.sqrt(np.prod(weight_shape[1:]))
    offset = spread * rng.standard_normal(image(groups * rank * taps))
    mask = rng.random(image(groups * taps))
    bias = rng.standard_normal(weight_shape[0])
    return [a.astype(dtype) for a in (x, offset, weight, bias, mask)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("key", CASES)
def test_same_bits_any_way(key, dtype):
    params = CASES[key][-1]
    given = arrays(*CASES[key], dtype)
    x, offset, weight, bias, mask = given
    y = OP(*given, **params, threads=1)
    calls.assert_near_reference(OP, y, given, params)
    plan = OP.plan(x.shape, weight, bias, **params)
    assert plan(x, offset, mask=mask).tobytes() == y.tobytes()
    for budget in (60_000, 300_000, 700_000, 3_000_000):
        for threads in (1, 2):
            try:
                z = OP(*given, **params, threads=threads, max_workspace=budget)
            except pyconv.WorkspaceError:
                continue
            assert z.tobytes() == y.tobytes(), (budget, threads)
    apart = [np.repeat(a, 2, axis=-1)[..., ::2] for a in (x, offset, mask)]
    assert OP(apart[0], apart[1], weight, bias, apart[2], **params).tobytes() == y.tobytes()


@pytest.mark.parametrize("channels", [2, 3, 8, 12])
def test_neighbours_take_no_part(channels):
    """What is read of other channels and pixels beside one's own does not show."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, channels, 9, 10), np.float32)
    offset = rng.uniform(-1, 1, (1, channels * 18, 9, 10)).astype(np.float32)
    weight = rng.standard_normal((channels, 1, 3, 3), np.float32)
    y = OP(x, offset, weight, padding=1)
    for c in range(channels):
        spoilt = np.full_like(x, np.nan)
        spoilt[:, c] = x[:, c]
        assert OP(spoilt, offset, weight, padding=1)[:, c].tobytes() == y[:, c].tobytes()


@pytest.mark.parametrize("channels", [1, 2, 20])
@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_masks_of_samples_that_are_outside(channels, factor):
    """A NaN is not lost where there is nothing to sample, nor what infinity makes of a zero."""
    x = np.ones((1, channels, 6, 5), np.float32)
    offset = np.full((1, 2, 6, 5), 100, np.float32)
    weight = np.ones((4, channels, 1, 1), np.float32)
    mask = np.full((1, 1, 6, 5), factor, np.float32)
    assert np.isnan(OP(x, offset, weight, mask=mask)).all()
    assert not OP(x, offset, weight, mask=np.ones_like(mask)).any()


def test_where_rows_are_in_lanes():
    def lanes(size, rows, depth):
        axes = geometry.conv_axes("x", (size, size), (1, 1), (1, 1), ((0, 0),) * 2, (1, 1), "zeros")
        return engine.sampled_in_lanes(np.empty((1, rows, 1, 1, 1, depth)), engine.three(axes))

    assert lanes(56, 64, 576)
    assert lanes(7, 512, 64)
    assert not lanes(56, 334, 36)
