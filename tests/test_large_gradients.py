"""Gradients at dilations and strides as large as the image."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import pyconv
from pyconv import algorithms, chain
from pyconv._kernels import _cpu
from pyconv.operators.depthwise_separable import OPERATOR as SEPARABLE


def taps_of(weight, dilation, stride, padding, outputs):
    """Each tap and the part of the padded image that it meets."""
    rank = weight.ndim - 2
    for tap in product(*map(range, weight.shape[2:])):
        start = [tap[i] * dilation[i] for i in range(rank)]
        yield tap, (..., *(
            slice(a, a + (o - 1) * s + 1, s)
            for a, o, s in zip(start, outputs, stride, strict=True)
        ))  # fmt: skip


def input_gradient(grad, weight, size, dilation, padding):
    """At stride 1, tap by tap, in float64."""
    padded = np.zeros(
        (len(grad), weight.shape[1], *(n + 2 * p for n, p in zip(size, padding, strict=True)))
    )
    ones = (1,) * len(size)
    for tap, place in taps_of(weight, dilation, ones, padding, grad.shape[2:]):
        padded[place] += np.einsum("noyx,oc->ncyx", grad, weight[(..., *tap)])
    return padded[(..., *(slice(p, p + n) for n, p in zip(size, padding, strict=True)))]


# Extents, kernel, dilation, padding; channels in and out.
DILATED = {
    "all but one tap": ((9, 8), (3, 3), (10, 9), (10, 9), 7, 5),
    "some": ((13, 11), (3, 3), (5, 7), (5, 7), 9, 13),
    "along one axis": ((6, 21), (2, 3), (1, 15), (0, 15), 4, 6),
    "rows without a tap": ((15, 9), (2, 3), (11, 8), (0, 8), 5, 3),
    "five taps": ((14, 17), (5, 5), (4, 5), (8, 10), 6, 8),
}


@pytest.fixture
def small_pieces(monkeypatch):
    """Parts of a result however little they save."""
    monkeypatch.setattr(algorithms, "MIRRORED_WORTH", 0.0)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("case", DILATED)
def test_taps_in_the_padding_are_left_out(case, flip):
    size, kernel, dilation, padding, channels, rows = DILATED[case]
    rng = np.random.default_rng(3)
    op = pyconv.get("dilated")
    params = {"dilation": dilation, "padding": padding, "flip": flip}
    x = rng.standard_normal((2, channels, *size)).astype(np.float32)
    weight = rng.standard_normal((rows, channels, *kernel)).astype(np.float32)
    plan = op.plan(x.shape, weight, algorithm="direct", **params)
    assert plan._problem.toward_x.pieces
    grad = rng.standard_normal(plan.output_shape).astype(np.float32)
    got = op.backward(grad, x, weight, needs="x", algorithm="direct", **params)["x"]
    assert plan.backward(grad, x, needs="x")["x"].tobytes() == got.tobytes()
    small = {**params, "algorithm": "direct", "max_workspace": 2**16, "threads": 2}
    assert op.backward(grad, x, weight, needs="x", **small)["x"].tobytes() == got.tobytes()
    taps = weight[..., ::-1, ::-1] if flip else weight
    expected = input_gradient(grad.astype(float), taps.astype(float), size, dilation, padding)
    bound = input_gradient(np.abs(grad), np.abs(taps), size, dilation, padding).max()
    assert np.abs(got - expected).max() <= 8 * np.finfo(np.float32).eps * bound


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("case", DILATED)
def test_transposed_at_stride_one_leaves_them_out_too(case):
    """Its bias reaches what no tap does."""
    size, kernel, dilation, padding, channels, rows = DILATED[case]
    rng = np.random.default_rng(4)
    op = pyconv.get("transposed")
    outputs = [
        n + 2 * p - (k - 1) * d for n, p, k, d in zip(size, padding, kernel, dilation, strict=True)
    ]
    x = rng.standard_normal((2, rows, *outputs))
    weight = rng.standard_normal((rows, channels, *kernel))
    bias = rng.standard_normal(channels)
    params = {"dilation": dilation, "padding": padding}
    got = op(x, weight, bias, algorithm="phase", **params)
    expected = input_gradient(x, weight, size, dilation, padding) + bias.reshape(-1, 1, 1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    plan = op.plan(x.shape, weight, bias, algorithm="phase", **params)
    assert plan(x).tobytes() == got.tobytes()


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_channels_at_a_time_have_the_bits_of_all(monkeypatch, mode, dtype):
    rng = np.random.default_rng(5)
    params = {"dilation": 8, "padding": 8, "padding_mode": mode}
    x = rng.standard_normal((1, 37, 17, 11)).astype(dtype)
    kernel = rng.standard_normal((74, 1, 3, 3)).astype(dtype)
    mix = rng.standard_normal((5, 74)).astype(dtype)
    grad = rng.standard_normal(SEPARABLE.output_shape(x.shape, kernel.shape, mix.shape, **params))
    grad = grad.astype(dtype)

    def gradient():
        plan = SEPARABLE.plan(x.shape, kernel, mix, **params)
        plan._problem.chain._input_remembered.clear()
        result = plan.backward(grad, x, needs="x")["x"]
        ((blocks, _),) = plan._problem.chain._input_remembered.values()
        assert blocks[0][0] == 0
        assert blocks[-1][1] == 37
        return result, len(blocks)

    expected, blocks = gradient()
    assert blocks == 1
    monkeypatch.setattr(chain, "BOX_BYTES", 2**15)
    monkeypatch.setattr(chain, "REMEMBERED_BOXES", 2**14)
    got, blocks = gradient()
    assert blocks > 1
    assert got.tobytes() == expected.tobytes()


#: Layers whose padded gradients are folded: the padding is wide, wraps, or is strided across.
FOLDED = {
    "3x3": ("standard", [(2, 7, 19, 22), (6, 7, 3, 3)], {"padding": 1}),
    "strided": (
        "standard", [(3, 4, 13, 18), (5, 4, 4, 3)], {"padding": ((2, 3), (1, 4)), "stride": (3, 2)},
    ),
    "dilated": ("dilated", [(1, 8, 11, 14), (9, 8, 3, 3)], {"padding": 8, "dilation": 8}),
    "more padding than input": ("standard", [(1, 2, 4, 3), (3, 2, 2, 3)], {"padding": (9, 7)}),
    "cropped": ("standard", [(1, 3, 9, 12), (2, 3, 3, 3)], {"padding": ((-2, 1), (3, -1))}),
    "depthwise": ("depthwise", [(2, 20, 9, 11), (20, 1, 3, 3)], {"padding": 2}),
    "groups": ("grouped", [(1, 12, 10, 8), (6, 4, 3, 3)], {"padding": 1, "groups": 3}),
    "3-D": ("standard", [(1, 3, 4, 5, 6), (2, 3, 3, 2, 3)], {"padding": (2, 1, 2)}),
    "channels last": (
        "standard", [(2, 8, 9, 5), (4, 5, 3, 3)], {"padding": 1, "layout": "channels_last"},
    ),
}  # fmt: skip


def test_strided_kernels_of_thousands_of_taps():
    """A transposed layer's gradients: inputs 32 apart, in a plane larger than the caches."""
    rng = np.random.default_rng(6)
    op = pyconv.get("transposed")
    x = rng.standard_normal((1, 3, 5, 6)).astype(np.float32)
    weight = rng.standard_normal((3, 2, 64, 64)).astype(np.float32)
    grad = rng.standard_normal(op.output_shape(x.shape, weight.shape, stride=32))
    grad = grad.astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(grad.astype(float), (64, 64), (2, 3))
    windows = windows[:, :, ::32, ::32]
    plan = op.plan(x.shape, weight, stride=32)
    for got in (op.backward(grad, x, weight, stride=32), plan.backward(grad, x)):
        expected = np.einsum("noyxhw,cohw->ncyx", windows, weight)
        np.testing.assert_allclose(got["x"], expected, rtol=0, atol=2e-3)
        expected = np.einsum("noyxhw,ncyx->cohw", windows, x)
        np.testing.assert_allclose(got["weight"], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_stages_whose_groups_cannot_be_divided(monkeypatch, groups):
    """Boxes overlap, and there is nothing to be done about it."""
    monkeypatch.setattr(chain, "BOX_BYTES", 2**14)
    rng = np.random.default_rng(7)
    op = pyconv.get("spatially_separable")
    params = {"dilation": 5, "padding": 5, "groups": groups}
    x = rng.standard_normal((1, 40, 12, 11))
    weights = [rng.standard_normal((40, 40 // groups, *k)) for k in ((3, 1), (1, 3))]
    grad = rng.standard_normal(op.output_shape(x.shape, *(w.shape for w in weights), **params))
    got = op.backward(grad, x, *weights, needs="x", **params)["x"]
    along = {"padding": (0, 5), "dilation": (1, 5), "groups": groups}
    down = {"padding": (5, 0), "dilation": (5, 1), "groups": groups}
    grouped = pyconv.get("grouped")
    between = grouped(x, weights[0], **down)
    after = grouped.backward(grad, between, weights[1], needs="x", **along)["x"]
    expected = grouped.backward(after, x, weights[0], needs="x", **down)["x"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


def test_few_channels_made_of_many():
    """A pointwise layer's input of three channels, and a result of thousands, as a convolution."""
    rng = np.random.default_rng(8)
    op = pyconv.get("pointwise")
    x, weight = rng.standard_normal((2, 3, 9, 7)), rng.standard_normal((2100, 3))
    grad = rng.standard_normal((2, 2100, 9, 7))
    plan = op.plan(x.shape, weight)
    assert plan._problem.toward_x.how is not None
    got = op.backward(grad, x, weight, needs="x")["x"]
    np.testing.assert_allclose(got, np.einsum("noyx,oc->ncyx", grad, weight), atol=1e-11)
    assert plan.backward(grad, x, needs="x")["x"].tobytes() == got.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [1, 3])
def test_small_maps_of_a_single_tap(groups, dtype):
    """A plan packs weights as for a convolution, a call reads them in place: the same bits."""
    rng = np.random.default_rng(9)
    op = pyconv.get("grouped")
    x = rng.standard_normal((3, 20 * groups, 5, 7)).astype(dtype)
    weight = rng.standard_normal((230 * groups, 20, 1, 1)).astype(dtype)
    grad = rng.standard_normal((3, 230 * groups, 5, 7)).astype(dtype)
    plan = op.plan(x.shape, weight, groups=groups)
    assert plan._problem.toward_x.how is None
    got = op.backward(grad, x, weight, needs="x", groups=groups)["x"]
    wide = [array.astype(float) for array in (grad, weight[..., 0, 0])]
    wide = [
        array.reshape(*array.shape[:axis], groups, -1, *array.shape[axis + 1 :])
        for axis, array in zip((1, 0), wide, strict=True)
    ]
    expected = np.einsum("ngoyx,goc->ngcyx", *wide).reshape(x.shape)
    np.testing.assert_allclose(got, expected, atol=1e-11 if dtype is np.float64 else 2e-4)
    assert plan.backward(grad, x, needs="x")["x"].tobytes() == got.tobytes()


@pytest.mark.parametrize(
    ("shape", "rows", "taps"), [((1, 20, 12, 13), 3, 7), ((2, 1, 150, 151), 5, 5)]
)
def test_many_taps_as_a_convolution(shape, rows, taps):
    """Of many rows, or a large image: the gradient is that of the definition, and of a plan."""
    rng = np.random.default_rng(10)
    op = pyconv.get("standard")
    x, weight = rng.standard_normal(shape), rng.standard_normal((rows, shape[1], taps, taps))
    grad = rng.standard_normal(op.output_shape(shape, weight.shape, padding=2))
    plan = op.plan(shape, weight, padding=2)
    assert plan._problem.toward_x.how is not None
    got = op.backward(grad, x, weight, needs="x", padding=2)["x"]
    around = taps - 3
    padded = np.pad(grad, [(0, 0), (0, 0), (around, around), (around, around)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps), (2, 3))
    expected = np.einsum("noyxhw,ochw->ncyx", windows, weight[..., ::-1, ::-1], optimize=True)
    np.testing.assert_allclose(got, expected, atol=1e-10)
    assert plan.backward(grad, x, needs="x")["x"].tobytes() == got.tobytes()


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "symmetric"])
@pytest.mark.parametrize("case", FOLDED)
def test_folded_gradients_any_way(case, mode):
    """At once or box by box, and by Winograd's algorithm: the gradient that the definition has."""
    op, shapes, params = FOLDED[case]
    rng, op = np.random.default_rng(5), pyconv.get(op)
    x, weight = (rng.standard_normal(shape) for shape in shapes)
    params = {**params, "padding_mode": mode}
    grad = rng.standard_normal(op(x, weight, **params).shape)
    # <grad, J e> for unit directions e of some elements, from the definition alone
    found = op.backward(grad, x, weight, needs="x", **params)["x"]
    for at in rng.integers(0, x.size, 12):
        unit = np.zeros(x.size)
        unit[at] = 1
        expected = np.vdot(grad, op.reference(unit.reshape(x.shape), weight, **params))
        np.testing.assert_allclose(found.flat[at], expected, rtol=1e-10, atol=1e-10)
    little = 2**16 if _cpu.config()["picked"] == "avx512" else 2**15  # its panels are twice as wide
    for kind in ({"max_workspace": little}, {"algorithm": "direct"}, {"threads": 3}):
        other = op.backward(grad, x, weight, needs="x", **params, **kind)["x"]
        np.testing.assert_allclose(other, found, rtol=0, atol=1e-10)


def test_few_regions_of_small_layers():
    """Pieces have to save more than they cost."""
    op = pyconv.get("dilated")
    small = op.plan((1, 16, 17, 30), np.zeros((10, 16, 5, 5)), padding=10, dilation=5)
    assert not small._problem.toward_x.pieces
    # Along one axis alone, where two ranges would make more than they save.
    middle = op.plan((1, 33, 17, 30), np.zeros((20, 33, 5, 5)), padding=10, dilation=5)
    pieces = middle._problem.toward_x.pieces
    assert len({str(piece.place[3]) for piece in pieces}) == len(pieces) > 1
    large = op.plan(
        (1, 330, 17, 30), np.zeros((200, 330, 5, 5)), padding=10, dilation=5, algorithm="direct"
    )
    assert len(large._problem.toward_x.pieces) > 1


@pytest.mark.parametrize("case", DILATED)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_columns_of_few_channels(monkeypatch, case, dtype):
    """Gradients of few inputs by col2im: near to those without it, the same bits any way."""
    size, kernel, dilation, _, channels, rows = DILATED[case]
    rng = np.random.default_rng(6)
    op, params = pyconv.get("dilated"), {"dilation": dilation, "padding": dilation}
    x = rng.standard_normal((2, channels, *size)).astype(dtype)
    weight = rng.standard_normal((rows, channels, *kernel)).astype(dtype)
    monkeypatch.setattr(algorithms, "columns_gain", lambda *_: 2.0)
    monkeypatch.setattr(algorithms, "phases_gain", lambda *_: 0.0)
    plan = op.plan(x.shape, weight, threads=1, **params)
    assert plan._problem.toward_x.columns
    grad = rng.standard_normal(plan.output_shape).astype(dtype)
    got = plan.backward(grad, x, needs="x")["x"]
    taps, after = weight.astype(float), grad.astype(float)
    expected = input_gradient(after, taps, size, dilation, dilation)
    bound = input_gradient(np.abs(after), np.abs(taps), size, dilation, dilation).max()
    eps = max(float(np.finfo(dtype).eps), 1e-15)
    assert np.abs(got - expected).max() <= 8 * eps * bound
    for one in range(2):
        alone = op.backward(grad[one:][:1], x[one:][:1], weight, needs="x", threads=3, **params)
        assert alone["x"].tobytes() == got[one : one + 1].tobytes()
    for budget in (
        2**12,
        2**13,
        2**14,
        2**16,
        2**18,
    ):  # some too small for columns, or for anything
        small = {**params, "needs": "x", "max_workspace": budget}
        try:
            op.backward(grad, x, weight, algorithm="direct", **small)
        except ValueError:
            continue
        few = op.backward(grad, x, weight, **small)["x"]
        np.testing.assert_allclose(few, expected, rtol=0, atol=8 * eps * bound)


WIDE = {
    "rows": ((1, 40, 7, 60), (56, 40, 7, 3), {}),
    "columns": ((2, 40, 60, 7), (56, 40, 3, 7), {}),
    "both": ((1, 48, 7, 7), (64, 48, 7, 7), {}),
}


@pytest.mark.parametrize("case", WIDE)
def test_kernels_as_large_as_their_results_are_wide(case):
    """Divided along one axis; near to loops, the same bits on any number of threads."""
    shape, kernel, params = WIDE[case]
    rng = np.random.default_rng(8)
    op = pyconv.get("standard")
    weight = rng.standard_normal(kernel)
    plan = op.plan(shape, weight, algorithm="direct", **params)
    pieces = plan._problem.toward_x.pieces
    axis = 4 if case == "columns" else 3
    assert len({str(piece.place[axis]) for piece in pieces}) == len(pieces) > 1
    grad = rng.standard_normal(plan.output_shape)
    got = plan.backward(grad, np.zeros(shape), needs="x")["x"]
    expected = input_gradient(grad, weight, shape[2:], (1, 1), (0, 0))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)
    again = op.backward(
        grad, np.zeros(shape), weight, needs="x", threads=3, algorithm="direct", **params
    )["x"]
    assert again.tobytes() == got.tobytes()


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_weights_of_few_rows(rows, dtype):
    """Row by row as in depthwise layers: near to loops, any layout and thread count alike."""
    rng = np.random.default_rng(rows)
    op, params = pyconv.get("standard"), {"padding": (1, 2), "dilation": (1, 2)}
    x = rng.standard_normal((2, 21, 53, 60)).astype(dtype)
    kernel = (rows, 21, 3, 4)
    grad = rng.standard_normal(op.output_shape(x.shape, kernel, **params)).astype(dtype)
    zero = np.zeros(kernel, dtype)
    got = op.backward(grad, x, zero, needs="weight", **params)["weight"]
    padded = np.pad(x.astype(float), ((0, 0), (0, 0), (1, 1), (2, 2)))
    expected, bound = np.empty(kernel), np.empty(kernel)
    for t1, t2 in np.ndindex(3, 4):
        part = padded[:, :, t1:, 2 * t2 :][:, :, : grad.shape[2], : grad.shape[3]]
        for out, a, b in (
            (expected, grad.astype(float), part),
            (bound, np.abs(grad), np.abs(part)),
        ):
            out[:, :, t1, t2] = np.einsum("nmhw,nchw->mc", a.astype(float), b)
    eps = max(float(np.finfo(dtype).eps), 2.0**-52)
    single = eps if dtype != "float16" else 2.0**-23
    limit = 32 * single * bound + eps * np.abs(expected)
    assert np.all(np.abs(got - expected) <= limit)
    there = op.backward(
        np.moveaxis(grad, 1, -1), np.moveaxis(x, 1, -1), zero, needs="weight", threads=3,
        layout="channels_last", **params,
    )["weight"]  # fmt: skip
    assert there.tobytes() == got.tobytes()
