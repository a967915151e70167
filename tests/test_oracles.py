"""The oracles agree among themselves, and with values worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from . import oracles

SEEDS = range(40)
LAYOUTS = ("channels_first", "channels_last")


def in_layout(array, layout):
    return np.moveaxis(array, 1, -1) if layout == "channels_last" and array is not None else array


# --- shapes and padding -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", oracles.PADDING_MODES)
@pytest.mark.parametrize("extent", [1, 2, 3, 5])
def test_source_index_is_numpy_pad(mode, extent):
    x = np.arange(1, extent + 1)
    numpy_mode = {"zeros": "constant", "replicate": "edge", "circular": "wrap"}.get(mode, mode)
    for before, after in [(0, 0), (1, 2), (4, 1), (13, 17)]:
        sources = [oracles.source_index(i, extent, mode) for i in range(-before, extent + after)]
        shown = [0 if source < 0 else x[source] for source in sources]
        np.testing.assert_array_equal(shown, np.pad(x, (before, after), mode=numpy_mode))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("valid", ((0, 0), (0, 0))),
        ("full", ((2, 2), (4, 4))),
        ("same", ((0, 1), (1, 2))),
        ("same_lower", ((1, 0), (2, 1))),
        (2, ((2, 2), (2, 2))),
        ((1, -3), ((1, 1), (-3, -3))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
    ],
)
def test_pads(rule, expected):
    # The "same" pads of TensorFlow: 6 to 3 with 3 taps at stride 2 needs 1; 8 to 4 with a reach of
    # 5 at stride 2 needs 3.
    assert oracles.pads(rule, (6, 8), (3, 3), (2, 2), (1, 2)) == expected


def test_pads_causal():
    assert oracles.pads("causal", (9,), (3,), 1, 2) == ((4, 0),)


@pytest.mark.parametrize("rule", ["same", "same_lower"])
def test_same_keeps_the_extent(rule):
    for h, k, s, d in itertools.product(range(1, 9), range(1, 5), range(1, 5), range(1, 4)):
        padding = oracles.pads(rule, (h,), (k,), s, d)
        assert oracles.out_size((h,), (k,), s, padding, d) == (-(-h // s),)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("valid", lambda h, s, reach: h * s + max(reach - s, 0)),
        ("same", lambda h, s, reach: h * s),
        ("same_lower", lambda h, s, reach: h * s),
    ],
)
def test_transposed_rules_give_their_extent(rule, expected):
    for h, k, s, d in itertools.product(range(1, 6), range(1, 5), range(1, 4), range(1, 3)):
        padding, extra = oracles.transposed_pads(rule, (h,), (k,), s, d)
        y = oracles.transposed(
            np.ones((1, h)),
            np.ones((1, 1, k)),
            stride=s,
            padding=padding,
            output_padding=extra,
            dilation=d,
        )
        assert y.shape == (1, expected(h, s, d * (k - 1) + 1))


@pytest.mark.parametrize("rule", ["valid", "same", "same_lower", 1])
def test_transposed_output_size_is_the_forward_convolution_backwards(rule):
    for n, k, s, d in itertools.product(range(5, 12), range(2, 4), range(1, 4), range(1, 3)):
        forward = oracles.pads(rule, (n,), (k,), s, d)
        h = oracles.out_size((n,), (k,), s, forward, d)
        padding, extra = oracles.transposed_pads(rule, h, (k,), s, d, output_size=n)
        assert padding == forward
        bare = (h[0] - 1) * s + d * (k - 1) + 1 - sum(padding[0])
        assert bare + extra[0] == n


def test_out_size_refuses_an_empty_output():
    with pytest.raises(ValueError, match="output of size"):
        oracles.out_size((3,), (5,))


# --- loops and SciPy ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_conv(seed):
    arrays, params = oracles.conv_problem(seed)
    oracles.assert_close(oracles.scipy_conv(*arrays, **params), oracles.conv(*arrays, **params))


@pytest.mark.parametrize("padding_mode", oracles.PADDING_MODES)
@pytest.mark.parametrize("seed", range(9))
def test_conv_by_ndimage(seed, padding_mode):
    arrays, params = oracles.conv_problem(seed, rank=1 + seed % 3, padding_mode=padding_mode)
    rule = ("same", "same_lower", "valid")[seed // 3]
    size, kernel = arrays[0].shape[2:], arrays[1].shape[2:]
    params["padding"] = oracles.pads(rule, size, kernel, params["stride"], params["dilation"])
    if rule == "valid":  # all the padding at one end
        params["padding"] = [
            (d * (k - 1), 0) for d, k in zip(params["dilation"], kernel, strict=True)
        ]
    oracles.assert_close(oracles.ndimage_conv(*arrays, **params), oracles.conv(*arrays, **params))


@pytest.mark.parametrize("padding", [((-1, 0),), ((2, 1),), ((0, 3),)])
def test_ndimage_says_what_it_cannot_pad(padding):
    with pytest.raises(ValueError, match="cannot pad"):
        oracles.ndimage_conv(np.ones((1, 9)), np.ones((1, 1, 3)), padding=padding)


@pytest.mark.parametrize("seed", SEEDS)
def test_transposed(seed):
    arrays, params = oracles.transposed_problem(seed)
    oracles.assert_close(
        oracles.scipy_transposed(*arrays, **params), oracles.transposed(*arrays, **params)
    )


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_deformable(seed, mask, integer):
    arrays, params = oracles.deformable_problem(seed, mask=mask, integer=integer)
    oracles.assert_close(
        oracles.scipy_deformable(*arrays, **params), oracles.deformable(*arrays, **params)
    )


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (-1.0, 0.0),
        (-0.75, 0.25),
        (0.0, 1.0),
        (0.5, 2.0),
        (2.0, 7.0),
        (2.25, 5.25),
        (3.0, 0.0),
        (-np.inf, 0.0),
        (np.inf, 0.0),
        (np.nan, 0.0),
        (1e300, 0.0),
        (-1e10, 0.0),
    ],
)
@pytest.mark.parametrize("oracle", [oracles.deformable, oracles.scipy_deformable])
def test_samples_at_and_beyond_the_border(oracle, point, expected):
    x, w = np.array([[1.0, 3.0, 7.0]]), np.ones((1, 1, 1))
    offset = point - np.array([[0.0, 1.0, 2.0]])
    np.testing.assert_allclose(oracle(x, offset, w), np.full((1, 3), expected), atol=1e-15)


def test_deformable_without_offsets_is_a_convolution():
    arrays, params = oracles.deformable_problem(5, rank=2, mask=False)
    x, offset, w, b, _ = arrays
    expected = oracles.conv(x, w, b, groups=x.shape[1] // w.shape[1], **params)
    oracles.assert_close(oracles.deformable(x, np.zeros_like(offset), w, b, **params), expected)


@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("functions", "problem", "moving"),
    [
        ((oracles.conv, oracles.scipy_conv), oracles.conv_problem, "x"),
        ((oracles.transposed, oracles.scipy_transposed), oracles.transposed_problem, "x"),
        (
            (oracles.deformable, oracles.scipy_deformable),
            oracles.deformable_problem,
            ("x", "offset", "mask"),
        ),
    ],
    ids=["conv", "transposed", "deformable"],
)
def test_layout_and_batch(functions, problem, moving, layout, unbatched):
    call = problem(3, rank=2)
    for function in functions:
        expected = in_layout(function(*call.arrays.values(), **call.params), layout)
        arrays = {
            name: in_layout(array, layout) if name in moving else array
            for name, array in call.arrays.items()
        }
        if unbatched:
            expected = expected[-1]
            arrays = {
                name: array[-1] if name in moving else array for name, array in arrays.items()
            }
        oracles.assert_close(function(*arrays.values(), **call.params, layout=layout), expected)


@pytest.mark.parametrize("convolve", [oracles.conv, oracles.scipy_conv])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compositions(convolve, layout):
    x = oracles.random((2, 3, 7, 5), seed=1)
    depthwise, pointwise = oracles.random((6, 1, 3, 2), 2), oracles.random((4, 6), 3)
    b = oracles.random(4, 4)
    merged = np.zeros((4, 3, 3, 2))
    for o, c, q in np.ndindex(4, 3, 2):
        merged[o, c] += pointwise[o, 2 * c + q] * depthwise[2 * c + q, 0]
    params = {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "dilation": (1, 2), "layout": layout}
    oracles.assert_close(
        oracles.separable(
            in_layout(x, layout), depthwise, pointwise, b, convolve=convolve, **params
        ),
        oracles.conv(in_layout(x, layout), merged, b, **params),
    )

    rows, columns = oracles.random((5, 3, 3, 1), 5), oracles.random((4, 5, 1, 2), 6)
    merged = np.einsum("mcr,omk->ocrk", rows[..., 0], columns[:, :, 0])
    oracles.assert_close(
        oracles.spatially_separable(
            in_layout(x, layout), rows, columns, b=b, convolve=convolve, **params
        ),
        oracles.conv(in_layout(x, layout), merged, b, **params),
    )


def test_problems_are_reproducible_and_have_unequal_extents():
    for problem in (oracles.conv_problem, oracles.transposed_problem, oracles.deformable_problem):
        for seed in range(10):
            first, second = problem(seed, rank=3), problem(seed, rank=3)
            assert first.params == second.params
            np.testing.assert_array_equal(first.arrays["x"], second.arrays["x"])
            assert len(set(first.arrays["x"].shape[2:])) == 3


# --- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_transposed_is_the_adjoint_of_conv(seed):
    (x, w, _), params = oracles.conv_problem(seed, bias=False, padding_mode="zeros")
    del params["padding_mode"]
    shape = oracles.conv(x, w, **params).shape
    _, extra = oracles.transposed_pads(
        params["padding"],
        shape[2:],
        w.shape[2:],
        params["stride"],
        params["dilation"],
        output_size=x.shape[2:],
    )
    y = oracles.random(shape, seed)

    def forward(array):
        return oracles.conv(array, w, **params)

    def backward(array):
        return oracles.transposed(array, w, output_padding=extra, **params)

    assert oracles.adjoint_gap(forward, backward, x, y) < 1e-13
    if x.size < 200:
        gradient = oracles.numerical_gradient(forward, [x], y, 0)
        np.testing.assert_allclose(gradient, backward(y), atol=1e-10)
    along = oracles.random(x.shape, seed + 1)
    slope = oracles.directional_derivative(forward, [x], y, 0, along)
    assert slope == pytest.approx(np.sum(backward(y) * along), rel=1e-9, abs=1e-9)


def test_adjoint_gap_sees_a_wrong_adjoint():
    matrix = oracles.random((3, 5))
    x = oracles.random(5, 1)
    y = matrix @ x
    assert oracles.adjoint_gap(lambda v: matrix @ v, lambda v: matrix.T @ v, x, y) < 1e-15
    assert oracles.adjoint_gap(lambda v: matrix @ v, lambda v: 1.01 * matrix.T @ v, x, y) > 1e-3
    with pytest.raises(ValueError, match="shapes"):
        oracles.adjoint_gap(lambda v: matrix @ v, lambda v: v, x, y)


def test_numerical_gradient_of_a_known_function():
    a, b, grad_y = oracles.random((2, 3), 1), oracles.random((3, 4), 2), oracles.random((2, 4), 3)
    np.testing.assert_allclose(
        oracles.numerical_gradient(lambda a, b, c: a @ b, [a, b, None], grad_y, 1),
        a.T @ grad_y,
        atol=1e-12,
    )


def test_one_sided_gradients_at_integer_coordinates():
    x, w = np.array([[1.0, 3.0, 7.0]]), np.ones((1, 1, 1))
    # Coordinates -1, 0, 1, 2 and 3, by way of padding 1 and no offset.
    offset = np.zeros((1, 5))

    def f(offset):
        return oracles.deformable(x, offset, w, padding=1)

    right = oracles.one_sided_gradient(f, [offset], np.ones((1, 5)), 0)
    left = oracles.one_sided_gradient(f, [offset], np.ones((1, 5)), 0, eps=-(2.0**-6))
    np.testing.assert_allclose(right, [[1, 2, 4, -7, 0]], atol=1e-12)
    np.testing.assert_allclose(left, [[0, 1, 2, 4, -7]], atol=1e-12)
    along = np.array([[1.0, 2.0, 0.5, 3.0, 1.0]])
    slope = oracles.one_sided_directional_derivative(f, [offset], np.ones((1, 5)), 0, along)
    assert slope == pytest.approx(np.sum(right * along))
