"""Gradients of weights: inputs read where they are, from boxes or packed; steps, blocks, chunks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import pyconv

from . import calls

MODES = {
    "zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap",
    "symmetric": "symmetric",
}  # fmt: skip

# Shapes of images and weights, and parameters, per axis.
CASES = {
    "in place": ((2, 6, 13, 17), (9, 6, 3, 2), {}),
    "in place, strided": ((2, 6, 13, 18), (9, 6, 3, 2), {"stride": (2, 3)}),
    "1x1": ((2, 70, 9, 31), (37, 70, 1, 1), {}),
    "1x1, strided": ((2, 30, 19, 31), (37, 30, 1, 1), {"stride": (2, 2)}),
    "1x1, many rows": ((2, 30, 9, 31), (67, 30, 1, 1), {}),
    "1x1, many rows of groups": ((3, 20, 45), (96, 5, 1), {}),
    "1x1, one row": ((2, 40, 23, 37), (1, 40, 1, 1), {}),
    "1x1, rows of groups": ((1, 21, 5, 9, 29), (6, 7, 1, 1, 1), {}),
    "1x1, two channels": ((2, 2, 9001), (25, 2, 1), {}),
    "1x1, small sum": ((1, 700, 7, 8), (600, 700, 1, 1), {}),
    "ways apart": ((1, 5, 32, 32), (7, 5, 1, 1), {}),
    "padded": ((2, 5, 23, 37), (19, 5, 3, 3), {"padding": (1, 1)}),
    "stem": ((1, 3, 41, 47), (24, 3, 7, 7), {"padding": (3, 3), "stride": (2, 2)}),
    "stride above kernel": ((2, 5, 29, 31), (6, 5, 2, 3), {"padding": (1, 1), "stride": (3, 5)}),
    "far taps": ((1, 4, 50, 61), (8, 4, 3, 2), {"padding": (20, 9), "dilation": (20, 17)}),
    "far taps, long": ((2, 3, 900), (5, 3, 3), {"padding": (300,), "dilation": (300,)}),
    "small maps": ((11, 20, 7, 5), (40, 20, 3, 3), {"padding": (1, 1)}),
    "one pixel": ((5, 9, 3, 3), (18, 9, 3, 3), {}),
    "many rows": ((1, 9, 9, 11), (300, 9, 3, 3), {"padding": (1, 1)}),
    "many channels": ((1, 210, 6, 7), (24, 210, 3, 3), {"padding": (1, 1)}),
    "one row": ((1, 9, 20, 50), (1, 9, 3, 5), {"padding": (1, 2)}),
    "groups": ((2, 24, 14, 13), (36, 4, 3, 3), {"padding": (1, 1)}),
    "wide groups": ((2, 36, 15, 15), (50, 18, 3, 3), {"padding": (1, 1), "stride": (2, 2)}),
    "few results": ((3, 2, 61, 83), (5, 2, 3, 3), {"padding": (1, 1)}),
    "deep": ((1, 2, 230, 250), (2, 2, 3, 2), {"padding": (1, 1)}),
    "long": ((1, 4, 9001), (6, 4, 5), {"padding": (2,)}),
    "3-D": ((2, 4, 7, 9, 11), (7, 4, 3, 2, 3), {"padding": (1, 1, 1), "stride": (1, 2, 1)}),
    "reflect": ((2, 5, 20, 30), (9, 5, 5, 4), {"padding": (4, 3), "mode": "reflect"}),
    "replicate": ((1, 5, 20, 30), (9, 5, 3, 3), {"padding": (7, 1), "mode": "replicate"}),
    "circular": ((2, 3, 20, 30), (9, 3, 3, 3), {"padding": (3, 3), "mode": "circular"}),
    "symmetric": (
        (1, 3, 20, 30), (9, 3, 3, 3), {"padding": (2, 9), "stride": (4, 5), "mode": "symmetric"},
    ),
}  # fmt: skip


def windows(x, kernel, out, padding, stride, dilation, mode):
    """The inputs that each tap meets, in float64."""
    pads = [(0, 0), (0, 0), *((p, p) for p in padding)]
    x = np.pad(x.astype(np.float64), pads, MODES[mode])
    for tap in itertools.product(*map(range, kernel)):
        at = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, dilation, out, stride, strict=True)
        )
        yield tap, x[(slice(None), slice(None), *at)]


def by_definition(x, grad, weight_shape, groups, **params):
    """The gradient of the weights tap by tap, in float64."""
    rows, channels, *kernel = weight_shape
    result = np.zeros(weight_shape)
    per_group = result.reshape(groups, rows // groups, channels, *kernel)
    flat = grad.astype(np.float64).reshape(len(x), groups, rows // groups, -1)
    for tap, met in windows(x, kernel, grad.shape[2:], **params):
        met = met.reshape(len(x), groups, channels, -1)
        per_group[(..., *tap)] = np.matmul(flat, met.swapaxes(2, 3)).sum(axis=0)
    return result


class Case:
    """Arrays and parameters of one case."""

    def __init__(self, key, dtype):
        shape, self.kernel, params = CASES[key]
        rank = len(shape) - 2
        self.params = {"padding": (0,) * rank, "stride": (1,) * rank, "dilation": (1,) * rank}
        self.params |= {"mode": "zeros", **params}
        self.groups = shape[1] // self.kernel[1]
        self.op = pyconv.get("dilated")
        self.given = {**self.params, "padding_mode": self.params["mode"], "groups": self.groups}
        del self.given["mode"]
        rng = np.random.default_rng(3)
        self.x = rng.standard_normal(shape).astype(dtype)
        self.weight = np.zeros(self.kernel, dtype)
        out = self.op.output_shape(shape, self.kernel, **self.given)
        self.grad = rng.standard_normal(out).astype(dtype)

    def gradient(self, x=None, grad=None, **more):
        x = self.x if x is None else x
        grad = self.grad if grad is None else grad
        result = self.op.backward(grad, x, self.weight, needs="weight", **self.given, **more)
        return result["weight"]

    def exact(self, absolute=False):
        x, grad = (self.x, self.grad) if not absolute else (np.abs(self.x), np.abs(self.grad))
        return by_definition(x, grad, self.kernel, self.groups, **self.params)


@pytest.mark.parametrize("dtype", calls.DTYPES)
@pytest.mark.parametrize("key", CASES)
def test_definition(key, dtype):
    case = Case(key, calls.DTYPES[dtype])
    calls.assert_promise(
        case.gradient(threads=1), case.exact(), case.exact(absolute=True), (1,), elementwise=False
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("key", CASES)
def test_bits(key, dtype):
    """Neither threads nor workspace nor strides show, nor where the inputs are read."""
    case = Case(key, dtype)
    wanted = case.gradient(threads=1)
    for threads in (2, 3, 8):
        assert calls.same_bits(case.gradient(threads=threads), wanted)
    for workspace in (2**18, 2**20):
        assert calls.same_bits(case.gradient(threads=2, max_workspace=workspace), wanted)
    # channels inside, every second element, and the other end first
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(case.x, 1, -1)), -1, 1)
    spread = np.repeat(case.x, 2, axis=-1)[..., ::2]
    backwards = np.ascontiguousarray(case.x[..., ::-1])[..., ::-1]
    grad = np.moveaxis(np.ascontiguousarray(np.moveaxis(case.grad, 1, -1)), -1, 1)
    for x in (last, spread, backwards):
        assert calls.same_bits(case.gradient(x, threads=2), wanted)
    assert calls.same_bits(case.gradient(grad=grad, threads=2), wanted)


def test_long_sums_of_one_sign():
    """A million terms of about one size: chains of about a hundred lose next to nothing."""
    rng = np.random.default_rng(4)
    x = rng.uniform(1, 2, (1, 2, 1000, 1000)).astype(np.float32)
    grad = rng.uniform(1, 2, (1, 3, 1000, 1000)).astype(np.float32)
    weight = np.zeros((3, 2, 1, 1), np.float32)
    got = pyconv.get("standard").backward(grad, x, weight, needs="weight")["weight"]
    exact = np.einsum("mp,cp->mc", *(a.reshape(len(a[0]), -1).astype(float) for a in (grad, x)))
    assert np.max(np.abs(got[..., 0, 0] - exact)) < 4 * 2.0**-24 * np.max(exact)
