"""Axes of extent zero, with nothing to write and nothing to read."""

import numpy as np
import pytest

import pyconv


@pytest.mark.parametrize("shape", [(2, 0, 64, 50), (2, 3, 0, 60)])
def test_a_plan_of_a_deformable_convolution_of_nothing(shape):
    weight, bias = np.ones((3, shape[1], 3, 3), np.float32), np.ones(3, np.float32)
    plan = pyconv.get("deformable").plan(shape, weight, bias, padding=2)
    assert plan.workspace_bytes == 0
    offset = np.zeros((2, 18, *plan.output_shape[2:]), np.float32)
    assert (plan(np.ones(shape, np.float32), offset) == 1).all()


@pytest.mark.parametrize("groups", [1, 2])
def test_a_weight_gradient_of_nothing(groups):
    op = pyconv.get("transposed")
    x, weight = np.ones((1, groups, 0)), np.ones((groups, 1, 3))
    grad = np.ones(op.output_shape(x.shape, weight.shape, padding=-2, groups=groups))
    found = op.backward(grad, x, weight, padding=-2, groups=groups)
    assert (found["weight"] == 0).all()
    assert found["x"].shape == x.shape


def test_a_mask_that_is_not_a_number_where_the_sample_is_outside():
    x, weight = np.ones((1, 1, 4)), np.ones((1, 1, 1))
    offset, mask = np.full((1, 1, 4), 9.0), np.array([[[np.nan, np.inf, 1.0, 0.0]]])
    y = pyconv.deformable_conv(x, offset, weight, None, mask)
    with np.errstate(invalid="ignore"):
        expected = pyconv.get("deformable").reference(x, offset, weight, None, mask)
    np.testing.assert_array_equal(y, expected)
    assert np.isnan(y[0, 0, :2]).all()
