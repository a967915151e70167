"""Depthwise-separable convolution as one kernel: the image between its stages is never anywhere."""

from __future__ import annotations

import numpy as np
import pytest

import pyconv

from . import calls

#: Shapes of the image and of both weights, and parameters.
CASES = {
    "ordinary": ((2, 20, 23, 37), (20, 1, 3, 3), (17, 20), {"padding": 1}),
    "stride 2": ((1, 130, 29, 30), (130, 1, 3, 3), (9, 130), {"padding": 1, "stride": 2}),
    "strides": (
        (1, 6, 41, 61), (6, 1, 4, 5), (8, 6), {"padding": 2, "stride": (3, 2), "dilation": (1, 2)},
    ),
    "many tiles": ((1, 40, 61, 53), (40, 1, 5, 5), (7, 40), {"padding": "same"}),
    "multiplier": ((2, 33, 14, 15), (99, 1, 3, 3), (12, 99), {"padding": 1}),
    "large dilation": ((1, 9, 33, 33), (9, 1, 3, 3), (6, 9), {"padding": 12, "dilation": 12}),
    "longer than a box": ((1, 3, 2, 5000), (3, 1, 2, 3), (4, 3), {"padding": (1, 1)}),
    "cropped": ((1, 8, 30, 40), (8, 1, 3, 3), (6, 8), {"padding": ((-2, -3), (1, -4))}),
    "padding alone": ((1, 3, 2, 2), (3, 1, 1, 1), (4, 3), {"padding": 9, "stride": 3}),
    "reflect": (
        (1, 8, 30, 40), (8, 1, 5, 5), (6, 8), {"padding": 4, "padding_mode": "reflect"},
    ),
    "circular": (
        (1, 8, 30, 40), (8, 1, 3, 3), (6, 8), {"padding": 3, "padding_mode": "circular"},
    ),
    "flipped": ((1, 8, 30, 40), (16, 1, 3, 3), (6, 16, 1, 1), {"padding": 1, "flip": True}),
    "one output": ((1, 50, 20, 21), (50, 1, 3, 3), (1, 50), {}),
    "long rows": ((2, 20, 37, 90), (20, 1, 3, 3), (7, 20), {"padding": 1}),
    "long rows, reflect": (
        (1, 20, 40, 97), (40, 1, 4, 3), (7, 40), {"padding": (3, 2), "padding_mode": "reflect"},
    ),
    "long rows, stride 2": ((1, 9, 67, 207), (9, 1, 3, 3), (6, 9), {"padding": 1, "stride": 2}),
    "long rows, dilated": (
        (1, 9, 41, 161), (9, 1, 5, 3), (6, 9), {"padding": 2, "dilation": (2, 3)},
    ),
    "short rows": ((2, 70, 17, 13), (70, 1, 5, 3), (9, 70), {"padding": (2, 1), "stride": 2}),
    "short rows, reflect": (
        (1, 90, 8, 6), (90, 1, 3, 3), (4, 90), {"padding": 1, "padding_mode": "reflect"},
    ),
    "stride 3": ((2, 50, 23, 40), (50, 1, 3, 5), (7, 50), {"padding": (1, 2), "stride": 3}),
    "1-D": ((2, 16, 3000), (16, 1, 7), (6, 16), {"padding": 3}),
    "1-D stride": ((2, 16, 500), (16, 1, 7), (6, 16), {"padding": 3, "stride": 3}),
    "3-D": ((1, 6, 9, 14, 22), (6, 1, 3, 3, 3), (5, 6), {"padding": 1, "stride": (2, 1, 1)}),
    "channels last": (
        (2, 30, 40, 19), (38, 1, 3, 3), (6, 38), {"padding": 1, "layout": "channels_last"},
    ),
}  # fmt: skip


def make(case, dtype=np.float32):
    shape, kernel, mix, params = CASES[case]
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(s).astype(dtype) for s in (shape, kernel, mix, mix[:1])]
    return arrays, params


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("case", CASES)
def test_values(case, dtype):
    arrays, params = make(case, dtype)
    op = pyconv.get("depthwise_separable")
    y = op(*arrays, **params)
    calls.assert_near_reference(op, y, arrays, params)
    plan = op.plan(arrays[0].shape, *arrays[1:], **params)
    assert plan(arrays[0]).tobytes() == y.tobytes()


@pytest.mark.parametrize("case", CASES)
def test_bits_of_two_calls(case):
    (x, depthwise, pointwise, bias), params = make(case)
    mixed = {"layout": params["layout"]} if "layout" in params else {}
    pointwise = pointwise.reshape(pointwise.shape[:2] + (1,) * (x.ndim - 2))
    between = pyconv.depthwise_conv(x, depthwise, **params)
    expected = pyconv.pointwise_conv(between, pointwise, bias, **mixed)
    y = pyconv.depthwise_separable_conv(x, depthwise, pointwise, bias, **params)
    assert y.tobytes() == expected.tobytes()


@pytest.mark.parametrize("case", CASES)
def test_bits_of_any_tiling(case):
    arrays, params = make(case)
    op = pyconv.get("depthwise_separable")
    y = op(*arrays, **params, threads=1)
    for threads in (2, 3):
        assert op(*arrays, **params, threads=threads).tobytes() == y.tobytes()
    # Not at every size is there room for a box.
    small = [2**k for k in range(12, 20) if _fits(op, arrays, params, 2**k)]
    assert small
    for budget in small:
        assert op(*arrays, **params, max_workspace=budget).tobytes() == y.tobytes()


def _fits(op, arrays, params, budget):
    try:
        plan = op.plan(arrays[0].shape, *arrays[1:], **params, max_workspace=budget)
    except ValueError:
        return False
    assert plan.workspace_bytes <= budget
    return True


@pytest.mark.parametrize("multiplier", [1, 5])
def test_strange_weights(multiplier):
    """Of another byte order and any strides, and more outputs of a channel than boxes are for."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 12, 20, 21))
    depthwise = rng.standard_normal((3, 3, 1, 12 * multiplier)).T[:, :, ::-1]
    pointwise = rng.standard_normal((12 * multiplier, 14)).T[::2]
    expected = pyconv.depthwise_separable_conv(x, depthwise.copy(), pointwise.copy(), padding=1)
    swapped = [a.astype(">f8") for a in (x, depthwise, pointwise)]
    for arrays in ((x, depthwise, pointwise), swapped):
        y = pyconv.depthwise_separable_conv(*arrays, padding=1)
        assert y.tobytes() == expected.tobytes()
    op = pyconv.get("depthwise_separable")
    definition = op.reference(x, depthwise, pointwise, padding=1)
    np.testing.assert_allclose(expected, definition, 1e-12, 1e-12)


def test_the_image_between_is_nowhere():
    x = np.ones((1, 64, 200, 200), np.float32)
    depthwise, pointwise = np.ones((256, 1, 3, 3), np.float32), np.ones((8, 256), np.float32)
    plan = pyconv.get("depthwise_separable").plan(x.shape, depthwise, pointwise, threads=1)
    assert plan.workspace_bytes < 2**20  # it has 38 MB
    assert np.array_equal(np.unique(plan(x)), [256 * 9])


def test_boxes_where_taps_are_too_far_apart():
    """Then the stages come one after another, for boxes of the result."""
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(s) for s in ((2, 5, 20, 21), (10, 1, 3, 3), (7, 10), (7,))]
    op = pyconv.get("depthwise_separable")
    params = {"padding": 700, "dilation": 700}
    y = op(*arrays, **params)
    np.testing.assert_allclose(y, op.reference(*arrays, **params), 1e-12, 1e-12)
    plan = op.plan(arrays[0].shape, *arrays[1:], **params)
    assert "boxes" in plan.explain()
    assert plan(arrays[0]).tobytes() == y.tobytes()


@pytest.mark.parametrize(
    ("x", "depthwise", "pointwise", "stride", "padding", "budget"),
    [
        ((1, 46, 40, 5), (46, 1, 1, 1), (3, 46), 3, 2, 20_000),
        ((1, 46, 11, 11, 5), (138, 1, 3, 3, 1), (3, 138), (1, 1, 3), ((3, 3), (4, 2), (2, 2)),
         100_000),
    ],
)  # fmt: skip
def test_boxes_of_which_nothing_is_read(x, depthwise, pointwise, stride, padding, budget):
    """With little workspace there are some between the elements that a stride takes."""
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal(s, dtype=np.float32) for s in (x, depthwise, pointwise)]
    op = pyconv.get("depthwise_separable")
    params = {"stride": stride, "padding": padding, "padding_mode": "reflect"}
    grad = np.ones_like(op(*arrays, **params))
    wanted = op.backward(grad, *arrays, **params)
    found = op.backward(grad, *arrays, max_workspace=budget, **params)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)
