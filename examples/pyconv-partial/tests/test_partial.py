"""Partial convolution keeps pyconv's contract, and means what Liu et al. say."""

import numpy as np
import pytest
from pyconv_partial import OPERATOR, partial_conv

import pyconv
from pyconv.testing import CAPABILITIES, OperatorSuite


class TestPartial(OperatorSuite):
    capabilities = set(CAPABILITIES) - {"max_workspace"}  # it makes copies of images

    @pytest.fixture
    def op(self):
        return OPERATOR

    def array(self, name, shape, rng):
        if name == "mask":
            return (rng.random(shape) < 0.7).astype(float)
        return super().array(name, shape, rng)


def test_it_is_found():
    info = pyconv.available()["partial"]
    assert (info.status, info.distribution) == ("ok", "pyconv-partial")


def test_values_are_those_of_loops():
    rng = np.random.default_rng(0)
    x, weight, bias = (
        rng.normal(size=(2, 3, 5, 7)),
        rng.normal(size=(4, 3, 2, 3)),
        rng.normal(size=4),
    )
    mask = (rng.random((2, 1, 5, 7)) < 0.4).astype(float)
    expected = np.zeros((2, 4, 4, 5))
    for n, o, i, j in np.ndindex(*expected.shape):
        window = np.s_[n, :, i : i + 2, j : j + 3]
        known = mask[n, 0, i : i + 2, j : j + 3]
        if known.any():
            total = (x[window] * known * weight[o]).sum()
            expected[n, o, i, j] = total * 6 / known.sum() + bias[o]
    np.testing.assert_allclose(partial_conv(x, mask, weight, bias), expected, atol=1e-12)


def test_holes_do_not_matter():
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(1, 2, 6, 6)), rng.normal(size=(3, 2, 3, 3))
    mask = (rng.random((1, 1, 6, 6)) < 0.5).astype(float)
    other = np.where(mask == 0, 1e6, x)
    y, z = (partial_conv(v, mask, weight, padding=1) for v in (x, other))
    np.testing.assert_array_equal(y, z)


def test_without_holes_it_is_a_convolution():
    rng = np.random.default_rng(2)
    x, weight = rng.normal(size=(2, 3, 6, 5)), rng.normal(size=(4, 3, 3, 3))
    y = partial_conv(x, np.ones((2, 1, 6, 5)), weight)
    np.testing.assert_allclose(y, pyconv.conv(x, weight), atol=1e-12)


def test_the_mask_has_no_gradient():
    x, weight = np.ones((1, 1, 4)), np.ones((1, 1, 3))
    arrays = np.ones((1, 1, 2)), x, np.ones((1, 1, 4)), weight
    assert list(OPERATOR.backward(*arrays)) == ["x", "weight"]
    with pytest.raises(ValueError, match="needs"):
        OPERATOR.backward(*arrays, needs="mask")
