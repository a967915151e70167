"""Convolution on a sampling grid, next to deformable convolution and to plain loops."""

import itertools
import math

import numpy as np
import pytest

import pyconv

OP = pyconv.get("sampled")


def grid(x_shape, weight_shape, seed=0, spread=1.0):
    """Coordinates around and beyond the image."""
    rng = np.random.default_rng(seed)
    size, taps = x_shape[2:], weight_shape[2:]
    out = [extent + 2 - i for i, extent in enumerate(size)]
    shape = (*taps, *out)
    axes = [rng.uniform(-1 - spread, n + spread, shape) for n in size]
    return np.stack(axes, axis=len(taps))


def problem(seed=0, rank=2, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x_shape = (2, 4, *(7, 5, 4)[:rank])
    weight_shape = (6, 2, *(3, 2, 1)[:rank])
    x = rng.standard_normal(x_shape).astype(dtype)
    weight = rng.standard_normal(weight_shape).astype(dtype)
    bias = rng.standard_normal(6).astype(dtype)
    return x, grid(x_shape, weight_shape, seed).astype(dtype), weight, bias


def sample(image, point, wrap):
    """One sample of one channel, corner by corner."""
    if not all(map(math.isfinite, point)):
        return 0.0
    point = [v % n if w else v for v, n, w in zip(point, image.shape, wrap, strict=True)]
    if not all(w or -1 < v < n for v, n, w in zip(point, image.shape, wrap, strict=True)):
        return 0.0
    total = 0.0
    for corner in itertools.product((0, 1), repeat=len(point)):
        at = [math.floor(v) + step for v, step in zip(point, corner, strict=True)]
        factor = math.prod(1 - abs(v - i) for v, i in zip(point, at, strict=True))
        at = [i % n if w else i for i, n, w in zip(at, image.shape, wrap, strict=True)]
        if all(0 <= i < n for i, n in zip(at, image.shape, strict=True)):
            total += factor * float(image[tuple(at)])
    return total


def loops(x, points, weight, bias, wrap):
    n, rank = len(x), x.ndim - 2
    out, groups = points.shape[-rank:], x.shape[1] // weight.shape[1]
    y = np.zeros((n, len(weight), *out))
    for i, p, t in itertools.product(range(n), np.ndindex(*out), np.ndindex(*weight.shape[2:])):
        point = [float(points[(*t, a, *p)]) for a in range(rank)]
        values = [sample(channel, point, wrap) for channel in x[i]]
        for o in range(len(weight)):
            first = o // (len(weight) // groups) * weight.shape[1]
            for c in range(weight.shape[1]):
                y[(i, o, *p)] += values[first + c] * weight[(o, c, *t)]
    return y + bias.reshape(-1, *([1] * rank))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("circular", [False, True])
def test_values_are_those_of_loops(rank, circular):
    x, points, weight, bias = problem(rank, rank)
    points.reshape(-1)[:3] = np.nan, np.inf, -np.inf
    wrap = [circular and axis != 1 for axis in range(rank)]
    mode = ["circular" if w else "zeros" for w in wrap]
    got = pyconv.sampled_conv(x, points, weight, bias, padding_mode=mode)
    np.testing.assert_allclose(got, loops(x, points, weight, bias, wrap), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_deformable_convolution_with_absolute_offsets(dtype):
    """Offsets of eighths make the same coordinates, exactly: then the results are the same bits."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 4, 9, 7)).astype(dtype)
    weight = rng.standard_normal((3, 4, 3, 2)).astype(dtype)
    out = (7, 6)
    offset = rng.integers(-20, 20, (2, 3, 2, 2, *out)) / 8
    tap = np.stack(np.meshgrid(range(3), range(2), indexing="ij"), axis=2)
    at = np.indices(out)[np.newaxis, np.newaxis] + tap[..., np.newaxis, np.newaxis] + offset
    expected = pyconv.deformable_conv(x, offset.reshape(2, 12, *out).astype(dtype), weight)
    got = pyconv.sampled_conv(x, at.astype(dtype), weight)
    np.testing.assert_array_equal(got, expected)
    grad = rng.standard_normal(got.shape).astype(dtype)
    mine = OP.backward(grad, x, at.astype(dtype), weight)
    theirs = pyconv.get("deformable").backward(
        grad, x, offset.reshape(2, 12, *out).astype(dtype), weight
    )
    mine["offset"] = mine.pop("coordinates").reshape(theirs["offset"].shape)
    for name, other in theirs.items():  # whose sums are of another order
        bound = 32 * np.finfo(dtype).eps * np.abs(other).max()
        np.testing.assert_allclose(mine[name], other, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("mode", ["zeros", ("circular", "zeros"), "circular"])
def test_one_grid_for_all_images_is_the_sum_of_their_own(mode):
    x, points, weight, bias = problem(3)
    each = np.stack([points] * 2)
    y = OP(x, points, weight, bias, padding_mode=mode)
    np.testing.assert_array_equal(OP(x, each, weight, bias, padding_mode=mode), y)
    grad = np.random.default_rng(4).standard_normal(y.shape)
    static = OP.backward(grad, x, points, weight, bias, padding_mode=mode)
    own = OP.backward(grad, x, each, weight, bias, padding_mode=mode)
    np.testing.assert_allclose(static["coordinates"], own["coordinates"].sum(0), atol=1e-12)
    for name in ("x", "weight", "bias"):
        np.testing.assert_array_equal(static[name], own[name])


def test_gradients_on_a_ring_are_those_of_differences():
    x, points, weight, bias = problem(5)
    points = points % 1 * 0.9 + 0.05 + np.floor(points)  # away from the integers
    grad = np.random.default_rng(6).standard_normal((2, 6, *points.shape[-2:]))
    got = OP.backward(grad, x, points, weight, bias, padding_mode="circular")
    for name, array in (("x", x), ("coordinates", points)):
        rng = np.random.default_rng(7)
        step = rng.standard_normal(array.shape) * 1e-6
        arrays = {"x": x, "coordinates": points, "weight": weight, "bias": bias}
        ends = [
            (OP(**{**arrays, name: array + s}, padding_mode="circular") * grad).sum()
            for s in (step, -step)
        ]
        expected = (got[name] * step).sum() * 2
        assert abs(ends[0] - ends[1] - expected) <= 1e-6 * abs(expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("own", [False, True])
def test_directional_derivatives_are_the_adjoint_of_the_gradients(rank, mode, own):
    """At integers, where both are right-hand, beyond the border and of no number, too."""
    x, points, weight, bias = problem(10 + rank, rank)
    points.reshape(-1)[::3] = np.floor(points.reshape(-1)[::3])
    points.reshape(-1)[:2] = np.nan, np.inf
    if own:
        points = np.stack([points, points[..., ::-1]])
    arrays = {"x": x, "coordinates": points, "weight": weight, "bias": bias}
    rng = np.random.default_rng(rank)
    grad = rng.standard_normal(OP(**arrays, padding_mode=mode).shape)
    gradients = OP.backward(grad, **arrays, padding_mode=mode)
    directions = {name: rng.standard_normal(a.shape) for name, a in arrays.items()}
    total = 0.0
    for name, direction in directions.items():
        product = direction * gradients[name]
        result = OP.jvp({name: direction}, **arrays, padding_mode=mode)
        assert abs((grad * result).sum() - product.sum()) <= 1e-10 * (1 + np.abs(product).sum())
        total = total + result
    at_once = OP.jvp(directions, **arrays, padding_mode=mode)
    np.testing.assert_allclose(at_once, total, rtol=0, atol=1e-10)


def test_directional_derivatives_on_a_ring_are_those_of_loops():
    """Between integers a sample is linear in a coordinate: differences are exact, however far."""
    x, points, weight, bias = problem(20)
    points = np.floor(points) + 0.5
    for axis in range(2):
        direction = np.zeros_like(points)
        direction[:, :, axis] = np.random.default_rng(axis).uniform(-0.25, 0.25, points.shape[3:])
        got = OP.jvp({"coordinates": direction}, x, points, weight, padding_mode="circular")
        ends = [loops(x, points + s * direction, weight, bias, (True, True)) for s in (1, -1)]
        np.testing.assert_allclose(got, (ends[0] - ends[1]) / 2, rtol=0, atol=1e-12)


def test_static_gradient_in_little_workspace():
    x, points, weight, _ = problem(8, dtype=np.float32)
    grad = np.ones((2, 6, *points.shape[-2:]), np.float32)
    expected = OP.backward(grad, x, points, weight, needs="coordinates")["coordinates"]
    got = OP.backward(grad, x, points, weight, needs="coordinates", max_workspace=12_000)
    np.testing.assert_allclose(got["coordinates"], expected, rtol=1e-5, atol=1e-5)


def test_coordinates_of_large_images_are_exact():
    """A float32 coordinate of a hundred million elements is what it says, not a rounded offset."""
    size = 2**24 - 2
    x = np.broadcast_to(np.float32(0), (1, 1, size)).copy()
    x[0, 0, size - 2 :] = 1, 3
    points = np.array([[[size - 2, size - 1]]], np.float32)
    y = pyconv.sampled_conv(x, points, np.ones((1, 1, 1), np.float32))
    np.testing.assert_array_equal(y, [[[1, 3]]])


def test_a_ring_meets_its_start():
    x = np.array([[[0.0, 10, 20, 30]]])
    points = np.array([[[-1e-30, 3.75, 4, -4.5, 1e18, 7.5]]])
    y = pyconv.sampled_conv(x, points, np.ones((1, 1, 1)), padding_mode="circular")
    np.testing.assert_array_equal(y, [[[0, 7.5, 0, 15, 0, 15]]])


def test_a_plan_fixes_the_coordinates():
    x, points, weight, bias = problem(9)
    plan = OP.plan(x.shape, points, weight, bias, padding_mode="circular")
    expected = OP(x, points, weight, bias, padding_mode="circular")
    np.testing.assert_array_equal(plan(x), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coordinates": np.zeros((3, 2, 3, 9, 6))}, r"axes \(3, 2, 2\)"),
        ({"coordinates": np.zeros((3, 3, 2, 2, 9, 6))}, r"or \(2, 3, 2, 2\) before them"),
        ({"coordinates": np.zeros((3, 2, 2, 0, 6))}, "output axis 0 must be positive"),
        ({"padding_mode": "reflect"}, "'zeros', 'circular'"),
        ({"padding_mode": ("zeros",)}, r"one of them per spatial axis \(2\)"),
        ({"bias": np.zeros(5)}, "bias must have shape"),
    ],
)
def test_refusals(change, message):
    x, points, weight, bias = problem()
    arrays = {"x": x, "coordinates": points, "weight": weight, "bias": bias}
    with pytest.raises(ValueError, match=message):
        OP(**{**arrays, **change})


@pytest.mark.parametrize("mode", [1, ("zeros", 1), None, b"zeros"])
def test_modes_of_the_wrong_type(mode):
    x, points, weight, bias = problem()
    with pytest.raises(TypeError, match="padding_mode must be"):
        OP(x, points, weight, bias, padding_mode=mode)
