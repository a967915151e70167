"""Gradients of few channels per group have several ways through memory; all give the same bits."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import pyconv

# Shape of images, shape of weights, groups, parameters.
CASES = {
    "plain": ((2, 17, 20, 37), (17, 1, 3, 3), 17, {"padding": 1}),
    "whole vectors": ((1, 20, 19, 48), (20, 1, 5, 3), 20, {"padding": (2, 1)}),
    "few pixels": ((3, 37, 9, 7), (37, 1, 5, 3), 37, {"padding": (2, 1)}),
    "few pixels, stride": ((2, 40, 14, 13), (40, 1, 5, 4), 40, {"padding": 2, "stride": (2, 3)}),
    "few lines": ((1, 16, 2, 3), (16, 1, 3, 2), 16, {"padding": 1}),
    "several boxes": ((1, 3, 150, 90), (3, 1, 3, 7), 3, {"padding": 1}),
    "many samples": ((150, 2, 20, 17), (2, 1, 2, 3), 2, {}),
    "stride": ((1, 20, 31, 45), (20, 1, 3, 3), 20, {"padding": 1, "stride": 2}),
    "stride above kernel": ((1, 8, 55, 50), (8, 1, 2, 1), 8, {"stride": (3, 2)}),
    "dilated": ((1, 16, 33, 35), (16, 1, 3, 3), 16, {"padding": 12, "dilation": 12}),
    "dilated, shared lines": ((1, 18, 40, 35), (18, 1, 7, 3), 18, {"dilation": 2, "stride": 3}),
    "multiplier": ((2, 17, 18, 22), (51, 1, 3, 4), 17, {"padding": 1}),
    "multiplier, few pixels": ((2, 18, 8, 11), (36, 1, 3, 4), 18, {"padding": 1}),
    "flipped": ((1, 24, 30, 40), (24, 1, 3, 4), 24, {"padding": 2, "flip": True}),
    "reflect": ((1, 16, 12, 30), (16, 1, 5, 3), 16, {"padding": 2, "padding_mode": "reflect"}),
    "1-D": ((2, 24, 3000), (24, 1, 31), 24, {"padding": 15}),
    "1-D dilated": ((1, 20, 300), (20, 1, 9), 20, {"stride": 2, "dilation": 8}),
    "1-D, few pixels": ((1, 40, 70), (40, 1, 9), 40, {"padding": 3, "stride": 3, "dilation": 3}),
    "3-D": ((1, 16, 6, 14, 23), (16, 1, 3, 2, 3), 16, {"padding": 1}),
    "3-D, few pixels": ((1, 32, 5, 6, 7), (32, 1, 3, 2, 3), 32, {"stride": (2, 1, 2)}),
    "groups of 4": ((1, 68, 12, 25), (68, 4, 3, 2), 17, {"padding": 1}),
    "groups of 8, few pixels": ((2, 144, 9, 8), (144, 8, 3, 2), 18, {"padding": 1}),
    "groups of 9 and 4": ((2, 18, 13, 21), (8, 9, 3, 2), 2, {"padding": 1}),
    "groups of 32 and 1": ((1, 64, 9, 30), (2, 32, 2, 3), 2, {"padding": 1, "dilation": 2}),
    "groups of 6 and 6": ((1, 12, 5, 7), (12, 6, 3, 3), 2, {"padding": 1}),
    "groups of 4 and 2": ((1, 20, 21, 13), (10, 4, 3, 3), 5, {"stride": 2}),
}  # fmt: skip


def arrays(case, dtype, seed=1):
    """An image, a weight, the gradient of a result, and what goes with them."""
    shape, kernel, groups, params = CASES[case]
    rng = np.random.default_rng(seed)
    op, params = pyconv.get("grouped"), params | {"groups": groups}
    x, weight = (rng.standard_normal(s).astype(dtype) for s in (shape, kernel))
    grad = rng.standard_normal(op.output_shape(shape, kernel, **params)).astype(dtype)
    return op, x, weight, grad, params


def both(op, x, weight, grad, params):
    return op.backward(grad, x, weight, None, needs=("x", "weight"), **params)


def last(array):
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def taps_of(x, weight, grad, params):
    """Each tap and the part of a zero-padded image that it meets, in float64."""
    rank = x.ndim - 2
    stride, dilation, pad = (
        np.broadcast_to(params.get(key, default), rank)
        for key, default in (("stride", 1), ("dilation", 1), ("padding", 0))
    )
    padded = np.pad(x.astype(float), [(0, 0), (0, 0), *((p, p) for p in pad)])
    for tap in product(*map(range, weight.shape[2:])):
        at = tap
        if params.get("flip"):
            at = tuple(k - 1 - t for k, t in zip(weight.shape[2:], tap, strict=True))
        start = [t * d for t, d in zip(at, dilation, strict=True)]
        place = tuple(
            slice(a, a + (o - 1) * s + 1, s)
            for a, o, s in zip(start, grad.shape[2:], stride, strict=True)
        )
        yield (..., *tap), padded, (slice(None), slice(None), *place)


def loops(x, weight, grad, params):
    """Both gradients, tap by tap."""
    n, groups = len(x), params["groups"]
    dy = grad.astype(float).reshape(n, groups, -1, np.prod(grad.shape[2:], dtype=int))
    w = weight.astype(float).reshape(groups, -1, *weight.shape[1:])
    dw, dx = np.zeros(w.shape), None
    for tap, padded, place in taps_of(x, weight, grad, params):
        dx = np.zeros(padded.shape) if dx is None else dx
        met = padded[place]
        dw[tap] = np.einsum("ngmp,ngcp->gmc", dy, met.reshape(n, groups, -1, dy.shape[-1]))
        dx[place] += np.einsum("gmc,ngmp->ngcp", w[tap], dy).reshape(met.shape)
    inner = tuple(
        slice((long - size) // 2, (long + size) // 2)
        for long, size in zip(dx.shape[2:], x.shape[2:], strict=True)
    )
    return dx[(..., *inner)], dw.reshape(weight.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [case for case in CASES if case != "reflect"])
def test_against_loops(case, dtype):
    op, x, weight, grad, params = arrays(case, dtype)
    got = both(op, x, weight, grad, params)
    expected = loops(x, weight, grad, params)
    bounds = loops(*(np.abs(a) for a in (x, weight, grad)), params)
    for key, value, bound in zip(("x", "weight"), expected, bounds, strict=True):
        assert np.abs(got[key] - value).max() <= 8 * np.finfo(dtype).eps * bound.max(), key


@pytest.mark.parametrize("case", CASES)
def test_same_bits(case):
    """On any number of threads, in any layout, from any memory."""
    op, x, weight, grad, params = arrays(case, np.float32)
    got = both(op, x, weight, grad, params)
    for threads in (1, 2, 3, 8):
        again = both(op, x, weight, grad, params | {"threads": threads})
        assert all(again[key].tobytes() == got[key].tobytes() for key in got), threads
    there = both(op, last(x), weight, last(grad), params | {"layout": "channels_last"})
    assert there["weight"].tobytes() == got["weight"].tobytes()
    np.testing.assert_array_equal(np.moveaxis(there["x"], -1, 1), got["x"])
    for name, other in (
        ("reversed", lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1]),
        ("spread", lambda a: np.repeat(a, 2, axis=-1)[..., ::2]),
        ("swapped", lambda a: a.astype(a.dtype.newbyteorder())),
    ):
        again = both(op, other(x), weight, grad, params)
        assert again["weight"].tobytes() == got["weight"].tobytes(), name
        if name != "swapped":
            again = both(op, x, weight, other(grad), params)
            assert all(again[key].tobytes() == got[key].tobytes() for key in got), name


@pytest.mark.parametrize("case", [case for case in CASES if case != "reflect"])
def test_what_is_not_finite_stays_in_its_taps(case):
    """Elements that a tap does not meet do not show in its gradient, NaN or not."""
    op, x, weight, grad, params = arrays(case, np.float32, seed=2)
    x[(0, slice(None)) + (-1,) * (x.ndim - 2)] = np.nan
    x[(0, 0) + (0,) * (x.ndim - 2)] = np.inf
    needs = {"needs": ("weight",)} | params
    got = op.backward(grad, x, weight, None, **needs)["weight"]
    with np.errstate(invalid="ignore"):
        _, expected = loops(x, weight, grad, params)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
    there = op.backward(last(grad), last(x), weight, None, layout="channels_last", **needs)
    np.testing.assert_array_equal(there["weight"], got)


@pytest.mark.parametrize("case", CASES)
def test_derivatives(case):
    """Adjoint identities, and differences of the call itself along a direction."""
    op, x, weight, grad, params = arrays(case, np.float64, seed=3)
    got = both(op, x, weight, grad, params)
    value = float((op(x, weight, **params) * grad).sum())
    scale = float((np.abs(op(np.abs(x), np.abs(weight), **params)) * np.abs(grad)).sum())
    assert abs(float((got["x"] * x).sum()) - value) <= 1e-12 * scale
    assert abs(float((got["weight"] * weight).sum()) - value) <= 1e-12 * scale
    rng = np.random.default_rng(4)
    for key, eps in (("x", 1e-4), ("weight", 1e-4)):
        step = eps * rng.standard_normal(got[key].shape)
        moved = [
            op(x + sign * step, weight, **params)
            if key == "x"
            else op(x, weight + sign * step, **params)
            for sign in (1, -1)
        ]
        numerical = float(((moved[0] - moved[1]) * grad).sum()) / (2 * eps)
        assert abs(numerical - float((got[key] * step).sum()) / eps) <= 1e-7 * scale, key


@pytest.mark.parametrize("case", ["plain", "1-D", "few pixels", "groups of 8, few pixels"])
def test_little_workspace(case):
    """It is refused, before anything is written, or changes no bit."""
    op, x, weight, grad, params = arrays(case, np.float32)
    got = both(op, x, weight, grad, params)
    for budget in (2**12, 2**16, 2**18, 2**20):
        try:
            again = both(op, x, weight, grad, params | {"max_workspace": budget, "threads": 2})
        except ValueError as error:
            assert "max_workspace" in str(error)
            assert budget < 2**20
        else:
            assert all(again[key].tobytes() == got[key].tobytes() for key in got), budget


# Gradients of the input of strided layers, whose residue classes are woven. `rows_apart` are the
# rows of a class that share inputs: with fewer of them in a box, each has to find its own.
STRIDED = {
    "fewer rows than the dilation": (
        (2, 3, 7, 21), (3, 1, 3, 2), 3, {"stride": 2, "dilation": 5, "padding": 4},
    ),
    "fewer rows, in the last box": (
        (1, 2, 163, 90), (2, 1, 3, 3), 2, {"stride": (2, 3), "dilation": (13, 2), "padding": 13},
    ),
    "rows that no tap meets": ((1, 3, 14, 26), (3, 1, 2, 1), 3, {"stride": (5, 3)}),
    "a dilation that the stride divides": (
        (1, 3, 23, 30), (3, 1, 3, 3), 3, {"stride": 2, "dilation": (4, 2), "padding": 3},
    ),
    "stride along one axis": ((2, 5, 9, 40), (5, 1, 3, 5), 5, {"stride": (1, 2), "padding": 2}),
    "stride along the other": ((2, 5, 19, 18), (5, 1, 3, 5), 5, {"stride": (2, 1), "padding": 1}),
    "many taps, multiplier": ((1, 3, 29, 33), (9, 1, 7, 6), 3, {"stride": 2, "padding": 3}),
    "many rows": ((2, 21, 15, 18), (3, 7, 5, 4), 3, {"stride": 2, "padding": 2}),
    "many rows of some channels": ((2, 24, 11, 19), (8, 12, 2, 3), 2, {"stride": 2, "padding": 1}),
    "many channels of one tap": ((1, 18, 20, 13), (14, 9, 1, 1), 2, {"stride": (3, 2)}),
    "3-D, many rows": (
        (1, 16, 5, 6, 21), (2, 8, 3, 2, 3), 2, {"stride": (2, 1, 2), "padding": (1, 0, 1)},
    ),
    "more taps than a pair has": ((1, 2, 31, 40), (2, 1, 9, 8), 2, {"stride": 2, "padding": 4}),
    "a pair of each width": ((2, 2, 9, 70), (2, 1, 2, 3), 2, {"stride": 2, "padding": (0, 1)}),
    "groups of 2 and 3": ((1, 4, 25, 31), (6, 2, 3, 3), 2, {"stride": 2, "padding": 1}),
    "flipped": ((1, 3, 17, 22), (3, 1, 4, 3), 3, {"stride": 2, "flip": True, "padding": 1}),
    "1-D": ((2, 3, 401), (3, 1, 9), 3, {"stride": 3, "dilation": 7, "padding": 20}),
    "3-D": (
        (1, 2, 7, 11, 20), (2, 1, 3, 3, 2), 2,
        {"stride": (2, 3, 2), "dilation": (2, 4, 1), "padding": (1, 4, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", STRIDED)
def test_strided_input_gradient(case, dtype):
    """Against loops; the same bits on two threads, and into memory with channels last."""
    shape, kernel, groups, params = STRIDED[case]
    rng = np.random.default_rng(4)
    op, params = pyconv.get("grouped"), params | {"groups": groups}
    x, weight = (rng.standard_normal(s).astype(dtype) for s in (shape, kernel))
    grad = rng.standard_normal(op.output_shape(shape, kernel, **params)).astype(dtype)
    needs = params | {"needs": ("x",)}
    got = op.backward(grad, x, weight, **needs)["x"]
    expected, _ = loops(x, weight, grad, params)
    bound, _ = loops(*(np.abs(a) for a in (x, weight, grad)), params)
    assert np.abs(got - expected).max() <= 8 * np.finfo(dtype).eps * bound.max()
    assert np.array_equal(got == 0, expected == 0)
    again = op.backward(grad, x, weight, **needs, threads=2)["x"]
    assert again.tobytes() == got.tobytes()
    there = op.backward(last(grad), last(x), weight, **needs, layout="channels_last")["x"]
    np.testing.assert_array_equal(np.moveaxis(there, -1, 1), got)


@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("rows", [2, 5, 9])
def test_strided_input_gradient_of_few_rows(rows, stride, dilation):
    rng = np.random.default_rng(rows)
    params = {"stride": stride, "dilation": dilation, "padding": dilation, "groups": 3}
    x, weight = rng.standard_normal((2, 3, rows, 17)), rng.standard_normal((6, 1, 3, 3))
    op = pyconv.get("grouped")
    grad = rng.standard_normal(op.output_shape(x.shape, weight.shape, **params))
    got = op.backward(grad, x, weight, needs="x", **params)["x"]
    expected, _ = loops(x, weight, grad, params)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("channels", [7, 8, 19, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_strided_input_gradient_of_small_maps(channels, dtype):
    """Channels as vectors, a part of one at the end; beside each channel by itself."""
    rng = np.random.default_rng(channels)
    params = {"stride": (2, 3), "dilation": (1, 2), "padding": (2, 3)}
    shape, kernel = (2, channels, 13, 16), (channels, 1, 5, 3)
    op = pyconv.get("depthwise")
    x, weight = (rng.standard_normal(s).astype(dtype) for s in (shape, kernel))
    grad = rng.standard_normal(op.output_shape(shape, kernel, **params)).astype(dtype)
    weight[-1, 0, 2, 1] = np.inf
    with np.errstate(invalid="ignore"):
        got = op.backward(grad, x, weight, needs="x", **params)["x"]
        there = op.backward(
            last(grad), last(x), weight, needs="x", layout="channels_last", threads=3, **params
        )["x"]
        one = [
            op.backward(grad[:, c : c + 1], x[:, c : c + 1], weight[c : c + 1], needs="x", **params)
            for c in range(channels)
        ]
    np.testing.assert_array_equal(np.moveaxis(there, -1, 1), got)
    np.testing.assert_array_equal(np.concatenate([g["x"] for g in one], axis=1), got)


@pytest.mark.parametrize("stride", [1, 2])
def test_weights_from_images_far_away(stride):
    """Large images are copied in order and asked for before: that shows in no bit."""
    rng = np.random.default_rng(7)
    op, params = pyconv.get("depthwise"), {"stride": stride, "padding": 1}
    x = rng.standard_normal((3, 26, 211, 136 * stride), np.float32)
    kernel = (26, 1, 3, 3)
    grad = rng.standard_normal(op.output_shape(x.shape, kernel, **params), np.float32)
    assert x.nbytes + grad.nbytes > 10 * 2**20
    call = {"needs": "weight", "threads": 1, **params}
    got = op.backward(grad, x, np.zeros(kernel, np.float32), **call)["weight"]
    spread = np.empty((*x.shape[:3], 2 * x.shape[3]), np.float32)[..., ::2]
    spread[...] = x
    for image, threads in ((spread, 1), (x, 2)):
        again = op.backward(
            grad, image, np.zeros(kernel, np.float32), **call | {"threads": threads}
        )["weight"]
        assert again.tobytes() == got.tobytes()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = (slice(0, stride * (e - 1) + 1, stride) for e in grad.shape[2:])
    for t1, t2 in product(range(3), range(3)):
        part = padded[:, :, t1:, t2:][:, :, rows, columns]
        expected = np.einsum("nchw,nchw->c", grad.astype(float), part.astype(float))
        bound = np.einsum("nchw,nchw->c", np.abs(grad), np.abs(part))
        assert np.all(np.abs(got[:, 0, t1, t2] - expected) <= 32 * 2.0**-24 * bound)
