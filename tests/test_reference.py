"""pyconv.reference and pyconv.geometry agree with the oracles; exact dtypes are exact."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

import pyconv
from pyconv import geometry, reference

from . import oracles

SEEDS = range(40)


def conv_axes(x, w, params):
    return geometry.conv_axes(
        "test",
        x.shape[2:],
        w.shape[2:],
        params["stride"],
        params["padding"],
        params["dilation"],
        params.get("padding_mode", "zeros"),
    )


def transposed_axes(x, w, params):
    return geometry.transposed_axes(
        "test",
        x.shape[2:],
        w.shape[2:],
        params["stride"],
        params["padding"],
        params["dilation"],
        params["output_padding"],
        None,
    )


def reference_correlate(x, w, b, params):
    return reference.correlate(
        x, w, b, conv_axes(x, w, params), params["groups"], params["padding_mode"], params["flip"]
    )


def reference_transposed(x, w, b, params):
    axes = transposed_axes(x, w, params)
    return reference.correlate_transposed(x, w, b, axes, params["groups"], params["flip"])


def read_only(arrays):
    for array in arrays:
        if array is not None:
            array.flags.writeable = False
    return arrays


@pytest.mark.parametrize("seed", SEEDS)
def test_reference_correlate(seed):
    arrays, params = oracles.conv_problem(seed, bias=seed % 4 > 0)
    oracles.assert_close(
        reference_correlate(*read_only(arrays), params), oracles.conv(*arrays, **params)
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_reference_transposed(seed):
    arrays, params = oracles.transposed_problem(seed, bias=seed % 4 > 0)
    oracles.assert_close(
        reference_transposed(*read_only(arrays), params), oracles.transposed(*arrays, **params)
    )


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_reference_deform(seed, integer):
    arrays, params = oracles.deformable_problem(
        seed, bias=seed % 4 > 0, mask=seed % 3 > 0, integer=integer
    )
    x, offset, w, b, mask = read_only(arrays)
    oracles.assert_close(
        reference.deform(x, offset, w, b, mask, conv_axes(x, w, params)),
        oracles.deformable(*arrays, **params),
    )


def test_reference_deform_far_away_and_nowhere():
    (x, offset, w, b, mask), params = oracles.deformable_problem(2, rank=2)
    for value in (np.nan, np.inf, -np.inf, 1e300, -1e10):
        offset.flat[:: offset.size // 20 + 1] = value
        oracles.assert_close(
            reference.deform(x, offset, w, b, mask, conv_axes(x, w, params)),
            oracles.deformable(x, offset, w, b, mask, **params),
        )


def test_samples_outside_are_zero_whatever_the_border_holds():
    x, w, offset = np.full((1, 1, 3), np.nan), np.ones((1, 1, 1)), np.zeros((1, 1, 5))
    axes = geometry.conv_axes("test", (3,), (1,), (1,), ((1, 1),), (1,), "zeros")
    expected = np.array([[[0.0, np.nan, np.nan, np.nan, 0.0]]])  # at -1, 0, 1, 2 and 3
    y = reference.deform(x, offset, w, None, None, axes)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(oracles.deformable(x, offset, w, padding=1), expected)


def integers(shape, seed):
    return np.random.default_rng(seed).integers(-9, 10, shape)


def fractions(array):
    """Object array of the Fractions with the values of ``array``."""
    result = np.empty(array.shape, dtype=object)
    result.ravel()[:] = [Fraction(value) for value in array.ravel().tolist()]
    return result


@pytest.mark.parametrize("make", [lambda a: a, lambda a: a.astype(object), fractions])
@pytest.mark.parametrize("seed", range(6))
def test_reference_is_exact_for_integers_and_fractions(seed, make):
    call = oracles.conv_problem(seed, rank=1 + seed % 2)
    arrays = [integers(array.shape, i) for i, array in enumerate(call.arrays.values())]
    y = reference_correlate(*map(make, arrays), call.params)
    assert y.dtype == make(arrays[0]).dtype
    np.testing.assert_array_equal(y, oracles.conv(*arrays, **call.params).astype(int))

    call = oracles.transposed_problem(seed, rank=1 + seed % 2)
    arrays = [integers(array.shape, i) for i, array in enumerate(call.arrays.values())]
    y = reference_transposed(*map(make, arrays), call.params)
    assert y.dtype == make(arrays[0]).dtype
    np.testing.assert_array_equal(y, oracles.transposed(*arrays, **call.params).astype(int))

    call = oracles.deformable_problem(seed, rank=1 + seed % 2)
    arrays = [integers(array.shape, i) for i, array in enumerate(call.arrays.values())]
    x, offset, w, b, mask = map(make, arrays)
    y = reference.deform(x, offset, w, b, mask, conv_axes(x, w, call.params))
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, oracles.deformable(*arrays, **call.params).astype(int))


def test_reference_deform_interpolates_fractions_exactly():
    x, w = fractions(np.array([[[1, 3, 7]]])), fractions(np.array([[[1]]]))
    offset = np.array([[[Fraction(-1, 3), Fraction(1, 7), Fraction(2, 3)]]], dtype=object)
    axes = geometry.conv_axes("test", (3,), (1,), (1,), ((0, 0),), (1,), "zeros")
    y = reference.deform(x, offset, w, None, None, axes)
    assert y.tolist() == [[[Fraction(2, 3), Fraction(25, 7), Fraction(7, 3)]]]


@pytest.mark.parametrize("dtype", [np.complex128, np.longdouble, np.float32, np.float16])
def test_reference_keeps_the_dtype(dtype):
    call = oracles.conv_problem(1, rank=2)
    arrays = [integers(array.shape, i) for i, array in enumerate(call.arrays.values())]
    y = reference_correlate(*(array.astype(dtype) for array in arrays), call.params)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, oracles.conv(*arrays, **call.params))


def test_reference_is_linear_over_the_complex_numbers():
    (x, w, _), params = oracles.conv_problem(4, rank=2, bias=False)
    imaginary = oracles.random(x.shape, 9)
    oracles.assert_close(
        reference_correlate(x + 1j * imaginary, w, None, params),
        oracles.conv(x, w, **params) + 1j * oracles.conv(imaginary, w, **params),
    )
    (x, offset, w, _, mask), params = oracles.deformable_problem(4, rank=2, bias=False)
    imaginary = oracles.random(x.shape, 9)
    oracles.assert_close(
        reference.deform(x + 1j * imaginary, offset, w, None, mask, conv_axes(x, w, params)),
        oracles.deformable(x, offset, w, None, mask, **params)
        + 1j * oracles.deformable(imaginary, offset, w, None, mask, **params),
    )


@pytest.mark.parametrize(("batch", "channels"), [(0, 2), (3, 0), (0, 0)])
@pytest.mark.parametrize("padding_mode", oracles.PADDING_MODES)
def test_reference_of_empty_arrays(batch, channels, padding_mode):
    x, b = np.zeros((batch, channels, 5, 4)), oracles.random(6)
    expected = np.broadcast_to(b[:, None, None], (batch, 6, 6, 5))
    geometric = {"stride": (1, 1), "padding": ((1, 2), (1, 1)), "dilation": (1, 1)}
    w = oracles.random((6, channels, 3, 2))
    params = {**geometric, "groups": 1, "padding_mode": padding_mode, "flip": False}
    np.testing.assert_array_equal(reference_correlate(x, w, b, params), expected)

    axes = conv_axes(x, w, geometric)
    offset, mask = np.zeros((batch, 12, 6, 5)), np.ones((batch, 6, 6, 5))
    np.testing.assert_array_equal(reference.deform(x, offset, w, b, mask, axes), expected)

    w = oracles.random((channels, 6, 3, 2))
    params = {**geometric, "output_padding": (0, 0), "groups": 1, "flip": True}
    expected = np.broadcast_to(b[:, None, None], (batch, 6, 4, 3))
    np.testing.assert_array_equal(reference_transposed(x, w, b, params), expected)


def test_reference_deform_of_an_empty_image_is_the_bias():
    x, w, b = np.zeros((2, 1, 0)), np.ones((3, 1, 1)), oracles.random(3)
    axes = geometry.conv_axes("test", (0,), (1,), (1,), ((1, 1),), (1,), "zeros")
    y = reference.deform(x, np.full((2, 1, 2), 0.5), w, b, None, axes)
    np.testing.assert_array_equal(y, np.broadcast_to(b[:, None], (2, 3, 2)))


@pytest.mark.parametrize("rule", ["valid", "full", "same", "same_lower"])
def test_geometry_has_the_same_rules(rule):
    for h, k, s, d in itertools.product(range(5, 9), range(1, 4), range(1, 4), range(1, 3)):
        (axis,) = geometry.conv_axes("test", (h,), (k,), (s,), rule, (d,), "zeros")
        padding = oracles.pads(rule, (h,), (k,), s, d)
        assert ((axis.before, axis.after),) == padding
        assert (axis.out,) == oracles.out_size((h,), (k,), s, padding, d)


@pytest.mark.parametrize("rule", ["valid", "same", "same_lower"])
def test_geometry_has_the_same_transposed_rules(rule):
    for h, k, s, d in itertools.product(range(1, 6), range(1, 5), range(1, 4), range(1, 3)):
        (axis,) = geometry.transposed_axes("test", (h,), (k,), (s,), rule, (d,), (0,), None)
        padding, extra = oracles.transposed_pads(rule, (h,), (k,), s, d)
        x, w = oracles.random((1, 1, h), 1), oracles.random((1, 1, k), 2)
        oracles.assert_close(
            reference.correlate_transposed(x, w, None, [axis]),
            oracles.transposed(x, w, stride=s, padding=padding, output_padding=extra, dilation=d),
        )


def test_padding_beyond_any_array():
    """The library's own word for it, not NumPy's `ValueError` about an array too big."""
    x, w = np.ones((1, 1, 1, 1, 1)), np.ones((1, 1, 1, 1, 1))
    with pytest.raises(MemoryError, match=r"pointwise: a padded input of shape \(1, 1, 2097153"):
        pyconv.get("pointwise").reference(x, w, padding=2**20, stride=2**21)
