"""Gradients of every operator: against derivatives of the oracles, and against one another."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given

from . import calls, oracles
from .calls import Call

LINEAR = [name for name in calls.OPERATORS if name != "deformable"]


def grad_for(call, dtype=None):
    """A gradient of the result; integers if the call has integers."""
    shape = call.run().shape
    return calls.values(np.random.default_rng(1), shape, call.integral).astype(dtype or call.dtype)


def entries(call):
    """Keys, and indices into tuples, of the arrays that were given."""
    for key, value in call.arrays.items():
        if isinstance(value, tuple):
            yield from ((key, i) for i in range(len(value)))
        elif value is not None:
            yield key, None


def array_at(arrays, entry):
    key, i = entry
    return arrays[key] if i is None else arrays[key][i]


def replaced(call, entry, array):
    key, i = entry
    if i is None:
        return call.put(key, array)
    value = call.arrays[key]
    return call.put(key, (*value[:i], array, *value[i + 1 :]))


def derivative(call, entry, grad, direction, eps, sides=(1, -1)):
    """Derivative of ``sum(grad * result)`` along ``direction``, by the oracle."""
    here = array_at(call.arrays, entry)
    low, high = (
        replaced(call, entry, here + eps * side * direction).expected("scipy")
        for side in (sides[1], sides[0])
    )
    return float(np.sum(grad * (high - low))) / (eps * (sides[0] - sides[1]))


def axis_of_offsets(call, axis):
    """1 where an offset moves along a spatial axis, 0 elsewhere."""
    rank = call.arrays["weight"].ndim - 2
    offset = call.arrays["offset"]
    channel = offset.ndim - 1 if call.channels_last else offset.ndim - 1 - rank
    index = np.arange(offset.shape[channel]) % rank == axis
    return index.reshape([-1 if a == channel else 1 for a in range(offset.ndim)])


def check_gradients(call, sides=(1, -1)):
    """Every gradient along a random direction, in float64.

    Offsets move along one axis at a time: along that the operator is linear between integers. With
    ``sides=(1, 0)`` derivatives are right-hand ones, and directions have no negative element.
    """
    rng = np.random.default_rng(2)
    grad = grad_for(call)
    gradients = call.backward(grad)
    assert list(gradients) == [key for key, value in call.arrays.items() if value is not None]
    scale = 1 + float(np.sum(np.abs(grad) * call.magnitude()))
    for entry in entries(call):
        array, gradient = array_at(call.arrays, entry), array_at(gradients, entry)
        assert gradient.shape == array.shape
        assert gradient.dtype == array.dtype
        assert gradient.flags.c_contiguous
        assert np.isfinite(gradient).all()
        direction = rng.uniform(-1, 1, array.shape)
        if entry[0] == "offset":
            rank = call.arrays["weight"].ndim - 2
            direction = np.abs(direction) if sides == (1, 0) else direction
            directions = [direction * axis_of_offsets(call, a) for a in range(rank)]
            eps, tolerance = 2.0**-5, 1e-10
        else:
            directions, eps, tolerance = [direction], 1.0, 1e-12
        for direction in directions:
            wanted = derivative(call, entry, grad, direction, eps, sides)
            got = float(np.sum(gradient * direction))
            size = scale + float(np.sum(np.abs(gradient * direction)))
            assert abs(got - wanted) <= tolerance * size, (entry, got, wanted)


@pytest.mark.parametrize("name", LINEAR)
def test_derivatives(name):
    @calls.examples(120)
    @given(calls.calls(name, ("float64",)))
    def test(call):
        check_gradients(call)

    test()


@pytest.mark.parametrize("kind", calls.OFFSETS)
def test_derivatives_of_deformable(kind):
    """Central differences between integers, right-hand ones at integers (-1 and H among them)."""

    @calls.examples(60)
    @given(calls.deformable_calls(("float64",), (kind,)))
    def test(call):
        check_gradients(call, (1, 0) if kind == "integer" else (1, -1))

    test()


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_adjoint(name):
    """``<A x, y> = <x, Aᵀ y>``, for every array in which the operator is linear."""

    @calls.examples(40)
    @given(calls.calls(name, ("float64",)))
    def test(call):
        call = call.put("bias", None)
        y = grad_for(call)
        for entry in entries(call):
            if entry[0] != "offset":
                gap = oracles.adjoint_gap(
                    lambda array, e=entry: replaced(call, e, array).run(),
                    lambda y, e=entry: array_at(call.backward(y, needs=e[0]), e),
                    array_at(call.arrays, entry),
                    y,
                )
                assert gap < 1e-13

    test()


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_needs(name):
    """Only what is asked for, with the same bits."""

    @calls.examples(15)
    @given(calls.calls(name))
    def test(call):
        grad = grad_for(call)
        every = call.backward(grad)
        for count in range(len(every) + 1):
            for needs in itertools.combinations(every, count):
                some = call.backward(grad, needs=needs)
                assert set(some) == set(needs)
                for entry in entries(call):
                    if entry[0] in needs:
                        assert calls.same_bits(array_at(some, entry), array_at(every, entry)), entry

    test()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", calls.OPERATORS)
def test_precision(name, dtype):
    """Gradients are those of the same numbers in float64, within the promised error."""

    @calls.examples(40)
    @given(calls.calls(name, (dtype,)))
    def test(call):
        grad = grad_for(call)
        gradients = call.backward(grad)
        double, wide = call.astype(np.float64), grad.astype(np.float64)
        exact = double.backward(wide)
        keys = [key for key in call.arrays if key != "offset"]
        largest = double.map(np.abs, keys).backward(np.abs(wide))
        for entry in entries(call):
            size = np.abs(array_at(largest, entry))
            if entry[0] == "offset":  # not monotonous: bounded by the largest column and element
                size = 2 * size + bound_of_offsets(double, wide)
            gradient = array_at(gradients, entry)
            assert gradient.dtype == call.dtype
            calls.assert_promise(gradient, array_at(exact, entry), size, (1,), elementwise=False)

    test()


def bound_of_offsets(call, grad):
    """More than any gradient of an offset."""
    x, weight, mask = (call.arrays[key] for key in ("x", "weight", "mask"))
    columns = np.abs(weight).sum() * np.abs(grad).max(initial=0)
    return 2 * columns * np.abs(x).max(initial=0) * (1 if mask is None else np.abs(mask).max())


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_byte_order(name):
    """Byte-swapped arrays give the same gradients, in native order."""

    @calls.examples(15)
    @given(calls.calls(name, ("float32", "float64", "float16")))
    def test(call):
        grad = grad_for(call)
        swapped = call.dtype.newbyteorder()
        plain, odd = call.backward(grad), call.astype(swapped).backward(grad.astype(swapped))
        for entry in entries(call):
            assert array_at(odd, entry).dtype.isnative
            assert calls.same_bits(array_at(odd, entry), array_at(plain, entry)), entry

    test()


def batched(call):
    """Whether the call has a batch axis."""
    weights = call.arrays.get("axis_weights")
    if weights is None:
        key = "depthwise" if "depthwise" in call.arrays else "weight"
        weights = (call.arrays[key],)
    return weights[0].ndim == 2 or call.arrays["x"].ndim == weights[0].ndim


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_empty_batch(name):
    """Without samples, gradients of weights are 0 and those of images are empty."""

    @calls.examples(15)
    @given(calls.calls(name).filter(batched))
    def test(call):
        call = call.map(lambda array: array[:0], calls.IMAGES)
        y = call.run()
        assert y.shape[0] == 0
        gradients = call.backward(np.zeros(y.shape, y.dtype))
        for entry in entries(call):
            array, gradient = array_at(call.arrays, entry), array_at(gradients, entry)
            assert gradient.shape == array.shape
            assert gradient.dtype == call.dtype
            assert not gradient.any()

    test()


# --- coordinates of deformable calls ------------------------------------------------------------

SIZE = 5
COORDINATES = (
    -np.inf, -1e30, -2.0, -1.0 - 2.0**-20, -1.0, -0.75, -0.0, 0.0, 0.25, 1.0, 1.5, SIZE - 2.0,
    SIZE - 1.0, SIZE - 0.25, SIZE, SIZE + 0.5, SIZE + 7.0, 1e30, np.inf, np.nan,
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_kind_of_coordinate(dtype):
    """One axis, worked out by hand: right-hand derivatives, at -1 too, and 0 from H on."""
    x = np.array([[[3.0, -1.0, 4.0, 7.0, -5.0]]], dtype)
    around = np.concatenate([[0.0], x[0, 0], [0.0, 0.0]])  # from -1 on
    n = len(COORDINATES)
    # A stride of 1 and an output per coordinate: the offset is what is missing to it.
    at = np.array(COORDINATES, dtype)
    pads = ((0, n - SIZE),)
    with np.errstate(invalid="ignore"):
        offset = (at - np.arange(n, dtype=dtype)).astype(dtype)
        at = np.arange(n, dtype=dtype) + offset
    mask = np.linspace(1, 2, n).astype(dtype).reshape(1, 1, n)
    weight, grad = np.full((1, 1, 1), 2, dtype), np.linspace(-3, 3, n).astype(dtype)
    value, slope, dx = np.zeros(n), np.zeros(n), np.zeros(SIZE + 3)
    for i, v in enumerate(at.astype(float)):
        if -1 <= v < SIZE:
            low = math.floor(v)
            part, factor = v - low, 2 * float(grad[i]) * float(mask[0, 0, i])
            slope[i] = float(around[low + 2] - around[low + 1]) * factor
            value[i] = (1 - part) * around[low + 1] + part * around[low + 2]
            dx[low + 1] += (1 - part) * factor
            dx[low + 2] += part * factor
    arrays = {"x": x, "offset": offset.reshape(1, 1, n), "weight": weight, "bias": None}
    call = Call("deformable", {**arrays, "mask": mask}, {"padding": pads}, {})
    np.testing.assert_allclose(call.run()[0, 0], 2 * value * mask[0, 0], rtol=1e-5, atol=1e-6)
    gradients = call.backward(grad.reshape(1, 1, n))
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(gradients["offset"][0, 0], slope, **close)
    np.testing.assert_allclose(gradients["x"][0, 0], dx[1 : SIZE + 1], **close)
    np.testing.assert_allclose(gradients["mask"][0, 0], 2 * value * grad, **close)
    np.testing.assert_allclose(
        gradients["weight"][0, 0, 0], np.sum(value * mask[0, 0] * grad), **close
    )


@pytest.mark.parametrize("layout", calls.LAYOUTS)
@pytest.mark.parametrize("sizes", [(4, 3), (3, 2, 4)])
def test_pairs_of_coordinates(sizes, layout):
    """Two and three axes: every combination of integers from -2 to H+1."""
    rank = len(sizes)
    points = np.array(list(itertools.product(*(range(-2, n + 2) for n in sizes))), float)
    # As many outputs along the last axis as there are points, one along the others.
    pads = (*((0, 1 - n) for n in sizes[:-1]), (0, len(points) - sizes[-1]))
    offset = points.T.copy()
    offset[-1] -= np.arange(len(points))
    offset = offset.reshape(1, rank, *[1] * (rank - 1), len(points))
    rng = np.random.default_rng(3)
    arrays = {
        "x": calls.placed(rng.standard_normal((1, 2, *sizes)), layout, True),
        "offset": calls.placed(offset, layout, True),
        "weight": rng.standard_normal((3, 2, *[1] * rank)),
        "bias": None,
        "mask": None,
    }
    params = {"padding": pads, "layout": layout}
    call = Call("deformable", arrays, params, params | {"flip": False})
    np.testing.assert_allclose(call.run(), call.expected("loops"), atol=1e-13)
    check_gradients(call, (1, 0))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_coordinates_that_are_nowhere(rank, odd, dtype):
    """They sample 0; gradients there are 0, and those elsewhere do not change."""
    taps, size = 2**rank, (5, 4, 3)[:rank]
    call = calls.fixed(
        "deformable", (2, 4, *size), (6, 2, *[2] * rank), offset_groups=2, dtype=dtype
    )
    with np.errstate(over="ignore"):
        odd = np.asarray(odd, dtype)
    offset = call.arrays["offset"].copy()
    where = np.zeros((2, 2, taps, rank, *offset.shape[2:]), bool)
    where[0, 1, 1, rank - 1] = where[1, 0, 0, 0] = True
    lost = np.broadcast_to(where.any(axis=3, keepdims=True), where.shape).reshape(offset.shape)
    far, odd_offset = offset.copy(), offset.copy()
    far[where.reshape(offset.shape)] = -100
    odd_offset[where.reshape(offset.shape)] = odd
    call, other = call.put("offset", odd_offset), call.put("offset", far)
    assert calls.same_bits(call.run(), other.run())
    grad = grad_for(other)
    gradients, wanted = call.backward(grad), other.backward(grad)
    assert not gradients["offset"][lost].any()
    for key, gradient in gradients.items():
        assert calls.same_bits(gradient, wanted[key]), key
        assert np.isfinite(gradient).all()
