"""Directional derivatives: against the oracles' differences, and against ``backward``."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

import pyconv

from . import calls
from .test_backward import (
    COORDINATES,
    SIZE,
    array_at,
    axis_of_offsets,
    derivative,
    entries,
    grad_for,
)

LINEAR = [name for name in calls.OPERATORS if name != "deformable"]


def jvp(call, tangents, **extra):
    args, kwargs = call.arguments()
    return call.operator.jvp(tangents, *args, **{**kwargs, **extra})


def direction_of(call, entry, seed=0):
    rng = np.random.default_rng([5, seed])
    return rng.uniform(-1, 1, array_at(call.arrays, entry).shape).astype(call.dtype)


def along(call, entry, direction):
    """Tangents for one array alone."""
    key, i = entry
    if i is None:
        return {key: direction}
    return {key: tuple(direction if j == i else None for j in range(len(call.arrays[key])))}


def check_derivatives(call, right_hand=False):
    """The derivative along each array: that of the oracle, whose step may be long where the result
    is linear; offsets move along one axis at a time, where it is between integers."""
    grad = grad_for(call)
    scale = 1 + float(np.sum(np.abs(grad) * call.magnitude()))
    for entry in entries(call):
        direction = direction_of(call, entry)
        directions, eps, sides = [direction], 1.0, (1, -1)
        if entry[0] == "offset":
            rank, eps = call.arrays["weight"].ndim - 2, 2.0**-5
            if right_hand:
                direction, sides = np.abs(direction), (1, 0)
            directions = [direction * axis_of_offsets(call, a) for a in range(rank)]
        for direction in directions:
            result = jvp(call, along(call, entry, direction))
            assert result.shape == grad.shape
            assert result.dtype == call.dtype
            wanted = derivative(call, entry, grad, direction, eps, sides)
            got = float(np.sum(grad * result))
            size = scale + float(np.sum(np.abs(grad * result)))
            assert abs(got - wanted) <= 1e-10 * size, (entry, got, wanted)


@pytest.mark.parametrize("name", LINEAR)
def test_derivatives(name):
    @calls.examples(6)
    @given(calls.calls(name, ("float64",)))
    def test(call):
        check_derivatives(call)

    test()


@pytest.mark.parametrize("kind", calls.OFFSETS)
def test_derivatives_of_deformable(kind):
    """Central differences between integers, right-hand ones at integers."""

    @calls.examples(8)
    @given(calls.deformable_calls(("float64",), (kind,)))
    def test(call):
        check_derivatives(call, right_hand=kind == "integer")

    test()


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_identity(name):
    """``<jvp(t), grad> = <t, backward(grad)>`` for every argument, and for all at once."""

    @calls.examples(12)
    @given(calls.calls(name, ("float64",)))
    def test(call):
        grad = grad_for(call)
        gradients = call.backward(grad)
        whole, right, size = {}, 0.0, 1.0
        for seed, entry in enumerate(entries(call)):
            direction = direction_of(call, entry, seed)
            product = direction * array_at(gradients, entry)
            result = jvp(call, along(call, entry, direction))
            bound = 1 + np.abs(product).sum() + np.abs(grad * result).sum()
            assert abs(np.sum(grad * result) - product.sum()) <= 1e-10 * bound, entry
            key, i = entry
            whole[key] = direction if i is None else (*whole.get(key, ()), direction)
            right += product.sum()
            size += bound
        assert abs(np.sum(grad * jvp(call, whole)) - right) <= 1e-10 * size

    test()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", calls.OPERATORS)
def test_precision(name, dtype):
    """Those of the same numbers in float64: computed in float32 and rounded once."""

    @calls.examples(5)
    @given(calls.calls(name, (dtype,)))
    def test(call):
        some = list(entries(call))
        tangents = {}
        for seed, entry in enumerate(some):
            direction = direction_of(call, entry, seed)
            key, i = entry
            tangents[key] = direction if i is None else (*tangents.get(key, ()), direction)
        double = call.astype(np.float64)
        wide = {
            k: tuple(t.astype(np.float64) for t in v)
            if isinstance(v, tuple)
            else v.astype(np.float64)
            for k, v in tangents.items()
        }
        result = jvp(call, tangents)
        assert result.dtype == call.dtype
        # of tangents that are at most 1: no more than so many results of arrays that are larger
        keys = [key for key in call.arrays if key != "offset"]
        larger = double.map(lambda a: np.abs(a) + 1, keys)
        magnitude = (len(some) + 2) * larger.magnitude()
        calls.assert_promise(result, jvp(double, wide), magnitude, (1,), elementwise=False)

    test()


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_threads_workspace_and_bytes(name):
    """Bits depend neither on threads nor on byte order; a workspace may be small."""

    @calls.examples(5)
    @given(calls.calls(name, ("float32", "float16")))
    def test(call):
        swapped = call.dtype.newbyteorder()
        for entry in entries(call):
            tangents = along(call, entry, direction_of(call, entry))
            wanted = jvp(call, tangents, threads=1)
            assert calls.same_bits(wanted, jvp(call, tangents, threads=2))
            odd = along(call, entry, direction_of(call, entry).astype(swapped))
            assert calls.same_bits(wanted, jvp(call.astype(swapped), odd))
            if call.params.get("algorithm") in (None, "auto", "direct"):
                small = jvp(call, tangents, max_workspace=2**17).astype(np.float64)
                np.testing.assert_allclose(small, wanted.astype(np.float64), rtol=2e-3, atol=1e-2)

    test()


def test_offsets_box_by_box():
    """A workspace that has room for a few outputs gives the same bits."""
    call = calls.fixed("deformable", (2, 6, 19, 17), (5, 6, 3, 2), offset_groups=2, padding=1)
    tangents = {"offset": direction_of(call, ("offset", None))}
    wanted = jvp(call, tangents)
    assert calls.same_bits(wanted, jvp(call, tangents, max_workspace=2**18))
    one = call.sample(1)
    alone = jvp(one, {"offset": tangents["offset"][1:]})
    assert calls.same_bits(wanted[1:], alone)


def test_every_kind_of_coordinate():
    """One axis, by hand: the slope to the right, from -1 on and up to the end, and 0 elsewhere."""
    x = np.array([[[3.0, -1.0, 4.0, 7.0, -5.0]]])
    around = np.concatenate([[0.0], x[0, 0], [0.0, 0.0]])
    n = len(COORDINATES)
    with np.errstate(invalid="ignore"):
        offset = np.array(COORDINATES) - np.arange(n)
        at = np.arange(n) + offset
    direction = np.linspace(-2, 3, n)
    slopes = [
        around[math.floor(v) + 2] - around[math.floor(v) + 1] if -1 <= v < SIZE else 0 for v in at
    ]
    result = pyconv.get("deformable").jvp(
        {"offset": direction.reshape(1, 1, n)}, x, offset.reshape(1, 1, n), np.full((1, 1, 1), 2.0),
        padding=((0, n - SIZE),),
    )  # fmt: skip
    np.testing.assert_allclose(result[0, 0], 2 * direction * slopes, atol=1e-14)


def test_work_that_is_not_asked_for(monkeypatch):
    """A forward call for each tangent; none for a bias that comes with another."""
    call = calls.fixed("standard", (2, 3, 7, 6), (4, 3, 3, 2), dtype="float64")
    calls_made = []
    compute = type(call.operator).compute
    monkeypatch.setattr(
        type(call.operator), "compute", lambda *a, **k: calls_made.append(1) or compute(*a, **k)
    )
    tangents = {k: np.ones(a.shape) for k, a in call.arrays.items()}
    for names in ((), ("x",), ("bias",), ("weight", "bias"), ("x", "weight", "bias")):
        calls_made.clear()
        result = jvp(call, {n: tangents[n] for n in names})
        assert len(calls_made) == max(len(set(names) - {"bias"}), len(names) > 0)
        assert result.any() == bool(names)
    np.testing.assert_array_equal(jvp(call, {"bias": np.arange(4.0)})[1, :, 2, 3], range(4))


@pytest.mark.parametrize(
    ("tangents", "error", "message"),
    [
        ([], TypeError, "tangents must be a dict of arrays by argument name; got"),
        ({"y": 1}, ValueError, r"tangents must name arrays that were given \(x, weight\); got 'y'"),
        ({"bias": np.ones(2)}, ValueError, r"given \(x, weight\); got 'bias'"),
        ({3: np.ones(2)}, TypeError, "tangents must have argument names as keys; got 3"),
        ({"x": [1.0]}, TypeError, r"tangents\['x'\] must be an array"),
        (
            {"x": np.ones((2, 5))},
            ValueError,
            r"tangents\['x'\] must have the shape \(1, 5\) of its",
        ),
        ({"x": np.ones((1, 5), "f4")}, TypeError, r"tangents\['x'\]: float32"),
    ],
)
def test_refusals(tangents, error, message):
    x, weight = np.ones((1, 5)), np.ones((2, 1, 3))
    with pytest.raises(error, match=f"^standard: .*{message}"):
        pyconv.get("standard").jvp(tangents, x, weight)


def test_refusals_of_several_weights():
    op, x = pyconv.get("spatially_separable"), np.ones((1, 5, 5))
    weights = np.ones((1, 1, 3, 1)), np.ones((1, 1, 1, 3))
    for wrong in (weights[0], weights[:1], 3):
        with pytest.raises(TypeError, match=r"tangents\['axis_weights'\] must be a tuple of 2"):
            op.jvp({"axis_weights": wrong}, x, *weights)
    with pytest.raises(ValueError, match=r"tangents\['axis_weights'\]\[1\] must have the shape"):
        op.jvp({"axis_weights": (None, weights[0])}, x, *weights)
    with pytest.raises(TypeError, match="out must be left out of jvp"):
        op.jvp({}, x, *weights, out=np.ones((1, 3, 3)))


def test_an_operator_that_says_nothing_of_itself_refuses():
    class Unknown(type(pyconv.get("standard"))):
        name, linear = "unknown", ()

    with pytest.raises(ValueError, match="unknown: tangents must be for arrays in which"):
        Unknown().jvp({"x": np.ones((1, 5))}, np.ones((1, 5)), np.ones((2, 1, 3)))
