"""Gradients of deformable convolution: by plain loops, at odd coordinates, in any pieces."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pyconv._kernels import _deform_grad

from . import calls, oracles
from .calls import same_bits

#: Coordinates, from the first element of an axis of so many, at which something changes.
ODD = (-np.inf, -3.0, -1.0, -0.5, 0.0, 1.0, np.nan, 1e30, np.inf)

SHAPES = {
    "1-D": {"x": (2, 5, 17), "weight": (3, 5, 4), "stride": 2, "padding": 3, "dilation": 2},
    "2-D": {"x": (2, 6, 5, 7), "weight": (4, 6, 3, 2), "stride": (1, 2), "padding": 2},
    "3-D": {"x": (1, 4, 3, 5, 4), "weight": (3, 4, 2, 1, 2), "padding": 1},
    "groups": {"x": (1, 6, 7, 5), "weight": (9, 2, 2, 3), "padding": 1, "dilation": (2, 1)},
    "offset groups": {
        "x": (1, 12, 4, 7),
        "weight": (2, 12, 2, 2),
        "offset_groups": 3,
        "padding": 1,
    },
    "both": {
        "x": (2, 12, 6, 5),
        "weight": (8, 6, 1, 3),
        "offset_groups": 4,
        "stride": 2,
        "padding": 1,
    },
    "vectors": {"x": (1, 21, 4, 3), "weight": (19, 21, 2, 2), "padding": 1},
    "no mask": {"x": (1, 18, 5, 6), "weight": (8, 9, 2, 1), "offset_groups": 2, "mask": False},
}
#: More pixels than a band has, and than a tile.
LONG = {
    "2-D": {"x": (2, 40, 19, 17), "weight": (14, 20, 3, 3), "offset_groups": 2, "padding": 1},
    "1-D": {"x": (1, 11, 430), "weight": (17, 11, 3), "padding": "same", "mask": False},
    "few channels": {"x": (2, 3, 21, 16), "weight": (6, 1, 3, 2), "padding": 1},
}


def make(x, weight, dtype="float64", **params):
    return calls.fixed("deformable", x, weight, dtype=dtype, **params)


def gradient_like(call, dtype=None):
    shape = call.run().shape
    return np.random.default_rng(1).standard_normal(shape).astype(dtype or call.dtype)


def with_odd_coordinates(call):
    """Some samples at whole numbers, some at the borders, some nowhere."""
    rng = np.random.default_rng(2)
    offset = call.arrays["offset"]
    whole = np.where(rng.random(offset.shape) < 0.3, np.round(offset), offset)
    odd = np.where(rng.random(offset.shape) < 0.2, rng.choice(ODD, offset.shape), whole)
    return call.put("offset", odd.astype(call.dtype))


def axes_of(call):
    """Stride, dilation and padding before, by axis."""
    rank = call.arrays["weight"].ndim - 2
    steps = (np.broadcast_to(call.explicit.get(k, 1), rank) for k in ("stride", "dilation"))
    return (*steps, [before for before, _ in call.explicit["padding"]])


def by_loops(call, grad):
    """The gradients as the documentation has them, sample by sample, channels first."""
    x, offset, weight, _, mask = call.arrays.values()
    stride, dilation, before = axes_of(call)
    rank, size, kernel = weight.ndim - 2, x.shape[2:], weight.shape[2:]
    taps = list(np.ndindex(kernel))
    groups = x.shape[1] // weight.shape[1]
    offset_groups = offset.shape[1] // (rank * len(taps))
    found = {"x": np.zeros_like(x), "offset": np.zeros_like(offset),
             "weight": np.zeros_like(weight)}  # fmt: skip
    if mask is not None:
        found["mask"] = np.zeros_like(mask)
    per_group, shared = weight.shape[0] // groups, x.shape[1] // offset_groups
    for n, t, og, out in itertools.product(
        range(x.shape[0]), range(len(taps)), range(offset_groups), np.ndindex(grad.shape[2:])
    ):
        channel = (og * len(taps) + t) * rank
        v = [out[a] * stride[a] + taps[t][a] * dilation[a] - before[a]
             + offset[(n, channel + a, *out)] for a in range(rank)]  # fmt: skip
        if not all(-1 <= v[a] < size[a] for a in range(rank)):
            continue
        sampled = all(v[a] > -1 for a in range(rank))
        m = 1.0 if mask is None else mask[(n, og * len(taps) + t, *out)]
        low = [math.floor(c) for c in v]
        for c in range(og * shared, (og + 1) * shared):
            g, inner = divmod(c, weight.shape[1])
            rows = slice(g * per_group, (g + 1) * per_group)
            upstream = grad[(n, rows, *out)]
            column = float(weight[(rows, inner, *taps[t])] @ upstream)
            for corner in itertools.product((0, 1), repeat=rank):
                at = tuple(lo + b for lo, b in zip(low, corner, strict=True))
                if not all(0 <= at[a] < size[a] for a in range(rank)):
                    continue
                parts = [v[a] - low[a] if corner[a] else 1 - (v[a] - low[a]) for a in range(rank)]
                value = x[(n, c, *at)]
                if sampled:
                    found["x"][(n, c, *at)] += m * math.prod(parts) * column
                    found["weight"][(rows, inner, *taps[t])] += (
                        m * math.prod(parts) * value * upstream
                    )
                    if mask is not None:
                        found["mask"][(n, og * len(taps) + t, *out)] += (
                            math.prod(parts) * value * column
                        )
                for a in range(rank):
                    slope = math.prod(parts[:a] + parts[a + 1 :]) * (1 if corner[a] else -1)
                    found["offset"][(n, channel + a, *out)] += m * slope * value * column
    return found


@pytest.mark.parametrize("key", SHAPES)
def test_by_loops(key):
    """In both layouts, flipped or not, in all dtypes, at every kind of coordinate."""
    with np.errstate(over="ignore"):  # 1e30 becomes infinite: as far away
        half = with_odd_coordinates(make(**SHAPES[key])).astype(np.float16)
    call = half.astype(np.float64)  # the same numbers in each dtype
    grad = gradient_like(half).astype(np.float64)
    expected = by_loops(call, grad)
    every = call.backward(grad)
    assert set(every) == {*expected, "bias"}
    for name, array in expected.items():
        np.testing.assert_allclose(every[name], array, rtol=1e-11, atol=1e-12, err_msg=name)
    images = calls.IMAGES
    last = call.map(lambda a: calls.placed(a, "channels_last", True), images)
    moved = last.backward(calls.placed(grad, "channels_last", True), layout="channels_last")
    rank = call.arrays["weight"].ndim - 2
    turned = call.put("weight", np.flip(call.arrays["weight"], tuple(range(2, 2 + rank))))
    flipped = turned.backward(grad, flip=True)
    for name, array in every.items():
        like = calls.placed(array, "channels_last", True) if name in images else array
        assert same_bits(moved[name], like), name
        back = np.flip(array, tuple(range(2, 2 + rank))) if name == "weight" else array
        assert same_bits(flipped[name], back), name
    for dtype, close in (("float32", 1e-5), ("float16", 2e-3)):
        for name, array in call.astype(dtype).backward(grad.astype(dtype)).items():
            atol = close * float(np.abs(every[name]).max())
            np.testing.assert_allclose(array, every[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("key", [*SHAPES, *(f"long {key}" for key in LONG)])
def test_central_differences(key):
    """The result is linear in each array, offsets between two integers too, but for rounding."""
    call = make(**(SHAPES | {f"long {key}": shape for key, shape in LONG.items()})[key])
    offset = call.arrays["offset"]
    inner = np.floor(offset) + 0.1 + 0.8 * np.random.default_rng(3).random(offset.shape)
    call = call.put("offset", inner)
    grad = gradient_like(call)
    gradients = call.backward(grad)
    rng, eps = np.random.default_rng(4), 1e-3
    for name, gradient in gradients.items():
        direction = rng.uniform(-1, 1, gradient.shape)
        if name == "offset":  # along one axis at a time, in which it is linear
            rank = call.arrays["weight"].ndim - 2
            direction[:, np.arange(gradient.shape[1]) % rank != 0] = 0
        ahead, behind = (
            call.put(name, call.arrays[name] + side * eps * direction).run() for side in (1, -1)
        )
        wanted = float(np.sum(grad * (ahead - behind))) / (2 * eps)
        size = float(np.sum(np.abs(gradient * direction)))
        assert abs(float(np.sum(gradient * direction)) - wanted) <= 1e-7 * size, name


@pytest.mark.parametrize("name", ["x", "weight", "mask"])
@pytest.mark.parametrize("key", LONG)
def test_adjoint_over_bands(key, name):
    call = with_odd_coordinates(make(**LONG[key])).put("bias", None)
    if call.arrays[name] is None:
        pytest.skip("no mask")
    y = gradient_like(call)
    gap = oracles.adjoint_gap(
        lambda array: call.put(name, array).run(),
        lambda y: call.backward(y, needs=name)[name],
        call.arrays[name],
        y,
    )
    assert gap < 1e-13


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("key", LONG)
def test_same_bits_any_way(key, dtype):
    """On any number of threads, whatever else is asked for, in any memory order."""
    with np.errstate(over="ignore"):
        call = with_odd_coordinates(make(dtype=dtype, **LONG[key]))
    grad = gradient_like(call)
    every = call.backward(grad, threads=1)
    for threads in (2, 3, 8):
        for name, array in call.backward(grad, threads=threads).items():
            assert same_bits(array, every[name]), (name, threads)
    for count in range(1, len(every)):
        for needs in itertools.combinations(every, count):
            some = call.backward(grad, needs=needs, threads=1 + count % 2)
            assert set(some) == set(needs)
            for name, array in some.items():
                assert same_bits(array, every[name]), (name, needs)
    swapped = call.map(lambda a: a.astype(a.dtype.newbyteorder()))
    spread = call.map(lambda a: np.asfortranarray(a)[..., ::-1].copy()[..., ::-1])
    for way in (swapped, spread):
        for name, array in way.backward(np.asfortranarray(grad)).items():
            assert same_bits(array.astype(array.dtype.newbyteorder("=")), every[name]), name
    for n in range(len(grad)):
        alone = call.map(lambda a, n=n: a[n : n + 1], calls.IMAGES)
        for name, array in alone.backward(grad[n : n + 1]).items():
            if name in calls.IMAGES:
                assert same_bits(array, every[name][n : n + 1]), name


@pytest.mark.parametrize("key", LONG)
def test_in_pieces(key, monkeypatch):
    """Less workspace: smaller bands, a sweep for each, or none; the same on any threads."""
    call = make(dtype="float32", **LONG[key])
    grad = gradient_like(call)
    sweeps, sizes, real = [0], [], _deform_grad.gradients

    def noted(*args):
        if args[-1]:
            sizes.append(real(*args))
            return sizes[-1]
        sweeps[-1] += 1
        return real(*args)

    monkeypatch.setattr(_deform_grad, "gradients", noted)
    every = call.backward(grad)
    # From twice what a sweep of everything takes, to where none fits.
    budget, done = 2 * max(sizes), set()
    while True:
        runs = []
        for threads in (1, 3):
            sweeps.append(0)
            try:
                runs.append(call.backward(grad, max_workspace=budget, threads=threads))
            except ValueError as error:
                assert "max_workspace" in str(error), error
        assert len(runs) in (0, 2)
        if not runs and not any(sweeps[-2:]):
            break
        done.update(sweeps[-2:] if runs else ())
        for name in runs[0] if runs else ():
            assert same_bits(runs[0][name], runs[1][name]), (name, budget)
            atol = 1e-5 * float(np.abs(every[name]).max())
            np.testing.assert_allclose(runs[0][name], every[name], rtol=0, atol=atol)
            alone = call.backward(grad, needs=name, max_workspace=budget)
            if name in calls.IMAGES:
                assert same_bits(alone[name], runs[0][name]), (name, budget)
        budget = int(budget / 2**0.25)
    assert 1 in done
    assert max(done) > 1


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_samples_that_are_zero_take_no_part(rank, dtype):
    """What is infinite there, in `x` or in the upstream gradient, leaves no NaN."""
    size, channels = (5, 4, 3)[:rank], 9
    call = make((1, channels, *size), (3, channels, *[1] * rank), dtype)
    offset = np.zeros_like(call.arrays["offset"])
    first = (0, slice(None), *[0] * rank)
    grad = gradient_like(call)
    grad[first] = np.inf  # of the output at the origin, whose sample is zero
    x = call.arrays["x"].copy()
    for away in (-1.0, np.nan, np.inf, float(size[-1])):
        moved, corner = offset.copy(), x.copy()
        moved[(0, rank - 1, *[0] * rank)] = away
        if away == -1:  # right next to it, with weight 0
            corner[first] = np.inf
            moved[(slice(None), rank - 1, ...)] += 1  # nobody else looks there
            moved[(0, rank - 1, *[0] * rank)] = -1
        here = call.put("offset", moved).put("x", corner)
        with np.errstate(invalid="ignore"):
            found = here.backward(grad, needs=["x"])
            assert np.isfinite(found["x"]).all(), away
            found = here.backward(np.where(np.isinf(grad), 1, grad), needs=["weight"])
            assert np.isfinite(found["weight"]).all(), away
            if away != -1:
                found = here.backward(grad, needs=["offset", "mask"])
                assert not found["offset"][first].any()
                assert not found["mask"][first].any()
