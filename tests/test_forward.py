"""Values of every operator against two independent oracles, plain loops and SciPy."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given

import pyconv

from . import calls, oracles
from .calls import fixed

#: Algorithms that promise their error element by element.
ELEMENTWISE = ("direct", "zero_insertion", "subsample", "phase")


def check(call):
    """The result is that of both oracles, as exactly as promised."""
    y = call.run()
    loops, scipy = call.expected("loops"), call.expected("scipy")
    assert y.dtype == call.dtype
    assert y.flags.c_contiguous
    if call.integral:
        np.testing.assert_array_equal(y, loops.astype(y.dtype))
        np.testing.assert_array_equal(y, scipy.astype(y.dtype))
        return
    magnitude = call.magnitude()
    elementwise = call.params["algorithm"] in ELEMENTWISE
    for expected in (loops, scipy):
        calls.assert_promise(y, expected, magnitude, call.terms, elementwise=elementwise)


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_values(name):
    @calls.examples(150)
    @given(calls.calls(name))
    def test(call):
        check(call)

    test()


#: Shapes across the edges of the blocks that kernels work in: depths (channels x taps) beyond 384,
#: pixels beyond 1024 and rows beyond 200, none a multiple of the micro-kernels' 6, 14, 16 or 32.
LARGE = {
    "deep": fixed("standard", (1, 47, 11, 9), (5, 47, 3, 3), padding=1),
    "many rows": fixed("standard", (2, 3, 7, 5), (205, 3, 3, 2), padding="same"),
    "many pixels": fixed("standard", (1, 3, 41, 57), (5, 3, 3, 3), stride=(1, 2), padding=2),
    "pointwise": fixed("pointwise", (1, 401, 13, 11), (15, 401), padding=1, stride=2),
    "pointwise, many pixels": fixed("pointwise", (1, 7, 43, 31), (5, 7, 1, 1)),
    "grouped": fixed("grouped", (1, 86, 37, 31), (14, 43, 3, 3), groups=2, padding=1),
    "long": fixed("standard", (1, 3, 100_003), (4, 3, 5), padding="causal", dilation=3),
    "long, strided": fixed("standard", (1, 2, 100_003), (3, 2, 7), padding="full", stride=3),
    "long, reflected": fixed(
        "standard", (2, 2, 50_001), (3, 2, 9), padding="same", padding_mode="reflect"
    ),
    "3-D": fixed("standard", (1, 17, 9, 13, 11), (7, 17, 3, 3, 3), padding="same", dilation=2),
    "wide depthwise": fixed("depthwise", (1, 3, 5, 4133), (6, 1, 3, 3), padding="same"),
    "wide depthwise, strided": fixed(
        "depthwise", (1, 3, 6, 4133), (3, 1, 3, 5), padding=2, stride=2, padding_mode="circular"
    ),
    "long depthwise": fixed("depthwise", (1, 2, 100_003), (4, 1, 5), padding="same", dilation=2),
    "dilated": fixed("dilated", (1, 45, 37, 33), (7, 45, 3, 3), dilation=(3, 2), padding="same"),
    "dilated beyond the image": fixed(
        "dilated", (1, 17, 17, 23), (7, 17, 3, 3), dilation=(12, 30), padding=(20, 30)
    ),
    "dilated, strided": fixed(
        "dilated", (2, 5, 9, 17, 13), (6, 5, 3, 3, 2), dilation=(3, 6, 11), stride=(1, 2, 3),
        padding=(3, 7, 12),
    ),
    "long dilated": fixed("dilated", (1, 2, 100_003), (3, 2, 3), dilation=64, padding="same"),
    "transposed": fixed("transposed", (1, 97, 19, 21), (97, 7, 4, 3), stride=2, padding=1),
    "long transposed": fixed("transposed", (1, 3, 50_001), (3, 4, 5), stride=2, padding="same"),
    "transposed, many rows": fixed("transposed", (1, 5, 7, 9), (5, 205, 3, 3), stride=(3, 2)),
    # Intermediates of more than a mebibyte, so that they are made a box at a time.
    "separable": fixed(
        "depthwise_separable", (1, 12, 163, 171), (12, 1, 3, 3), (5, 12), padding="same"
    ),
    "separable, strided": fixed(
        "depthwise_separable", (2, 9, 261, 137), (18, 1, 3, 5), (4, 18, 1, 1),
        stride=(2, 1), padding=3, dilation=(1, 2), padding_mode="symmetric",
    ),
    "spatially separable": fixed(
        "spatially_separable", (1, 3, 257, 263), (5, 3, 5, 1), (4, 5, 1, 3), padding="same"
    ),
    "spatially separable, strided": fixed(
        "spatially_separable", (2, 2, 301, 173), (4, 2, 3, 1), (3, 4, 1, 5),
        stride=(1, 2), padding=(4, 2), dilation=(2, 1), padding_mode="reflect",
    ),
    "spatially separable, 3-D": fixed(
        "spatially_separable", (1, 2, 41, 37, 43), (4, 2, 3, 1, 1), (5, 4, 1, 3, 1),
        (2, 5, 1, 1, 3), padding="same",
    ),
    "deformable": fixed(
        "deformable", (1, 44, 37, 31), (7, 44, 3, 3), padding=1, offset_groups=2
    ),
    "deformable, many rows": fixed("deformable", (1, 3, 9, 11), (205, 3, 2, 3), mask=False),
    "long deformable": fixed("deformable", (1, 2, 20_003), (3, 2, 3), padding="same"),
}  # fmt: skip


@functools.cache
def expected(key):
    return LARGE[key].expected("scipy"), LARGE[key].magnitude()


@pytest.mark.parametrize("key", LARGE)
def test_large(key):
    """All algorithms, both layouts, float32 and float64, and little workspace."""
    call = LARGE[key]
    values, magnitude = expected(key)
    for algorithm in call.algorithms:
        y = call.run(algorithm=algorithm)
        elementwise = algorithm in ELEMENTWISE
        calls.assert_promise(y, values, magnitude, call.terms, elementwise=elementwise)
        small = with_little_workspace(call, algorithm)
        calls.assert_promise(small, values, magnitude, call.terms, elementwise=elementwise)
    last = call.map(lambda array: np.ascontiguousarray(np.moveaxis(array, 1, -1)), calls.IMAGES)
    y = np.moveaxis(last.run(layout="channels_last"), -1, 1)
    calls.assert_promise(y, values, magnitude, call.terms, elementwise=False)
    double = call.astype(np.float64).run()
    calls.assert_promise(double, values, magnitude, call.terms, elementwise=False)


@pytest.mark.parametrize("workspace", [2**16, 2**18, 2**25])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", calls.LAYOUTS)
def test_everything_is_large(layout, dtype, workspace):
    """Depth, rows and pixels at once, in integers: a matrix product without rounding."""
    call = fixed(
        "pointwise", (1, 401, 37, 31), (205, 401), layout=layout, dtype=dtype, integral=True
    )
    x, weight, bias = call.arrays.values()
    x = x if layout == "channels_last" else np.moveaxis(x, 1, -1)
    y = x.astype(float) @ weight.T.astype(float) + bias
    y = y if layout == "channels_last" else np.moveaxis(y, -1, 1)
    np.testing.assert_array_equal(call.run(max_workspace=workspace), y)


def with_little_workspace(call, algorithm):
    """The result in as few bytes as the operator accepts; it says if they are too few.

    The blocks of Fourier transforms follow from the shapes alone and are larger than any others.
    """
    most = 2**22 if algorithm == "fft" else 2**21
    for workspace in (2**16, 2**18, 2**20):
        try:
            return call.run(algorithm=algorithm, max_workspace=workspace)
        except ValueError as error:
            if "max_workspace" not in str(error):
                raise
    return call.run(algorithm=algorithm, max_workspace=most)


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_workspace_is_what_the_plan_says(name):
    call = next(call for call in LARGE.values() if call.name == name)
    args, kwargs = call.arguments(skip=call.operator.per_call)
    for limit in (2**21, 2**25):
        plan = call.operator.plan(call.arrays["x"].shape, *args, **kwargs, max_workspace=limit)
        assert plan.workspace_bytes <= limit
        y = plan(*(call.arrays[key] for key in call.operator.per_call))
        assert calls.same_bits(y, call.run(max_workspace=limit))


# --- particular values --------------------------------------------------------------------------

#: Shapes of a small call: x, then the weights.
SMALL = {
    "standard": ((2, 4, 9, 21), (5, 4, 3, 2)),
    "pointwise": ((2, 4, 9, 21), (5, 4, 1, 1)),
    "grouped": ((2, 4, 9, 21), (5, 4, 3, 2)),
    "depthwise": ((2, 4, 9, 21), (8, 1, 3, 2)),
    "depthwise_separable": ((2, 4, 9, 21), (4, 1, 3, 2), (5, 4)),
    "spatially_separable": ((2, 4, 9, 21), (3, 4, 3, 1), (5, 3, 1, 2)),
    "dilated": ((2, 4, 9, 21), (5, 4, 3, 2)),
    "transposed": ((2, 4, 9, 21), (4, 5, 3, 2)),
    "deformable": ((2, 4, 9, 21), (5, 4, 3, 2)),
}

REQUIRED = {"grouped": {"groups": 1}, "dilated": {"dilation": 2}}


def small(name, **params):
    return fixed(name, *SMALL[name], **REQUIRED.get(name, {}), **params)


@pytest.mark.parametrize("layout", calls.LAYOUTS)
@pytest.mark.parametrize("name", calls.OPERATORS)
def test_a_nan_stays_where_it_is_read(name, layout):
    """Outputs are NaN if a tap of theirs reads the NaN, and the others are what they were."""
    call = small(name, layout=layout, padding=1, algorithm="direct")
    for value in (np.nan, np.inf):
        x = call.arrays["x"].copy()
        x[(0, *(extent // 2 for extent in x.shape[1:]))] = value
        with np.errstate(invalid="ignore"):
            reads = ~np.isfinite(call.put("x", x).expected("loops"))
        y, plain = call.put("x", x).run(), call.run()
        assert 0 < reads.sum() < reads.size
        np.testing.assert_array_equal(~np.isfinite(y), reads)
        np.testing.assert_array_equal(y[~reads], plain[~reads])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", calls.OPERATORS)
def test_sixteen_bits_are_computed_in_32(name, dtype):
    """The result is that of float32, rounded; what overflows 16 bits on the way does no harm."""
    call = small(name, padding=1, dtype=dtype)
    single = call.astype(np.float32)
    assert calls.same_bits(call.run(), single.run().astype(call.dtype))
    x = np.full((1, 3, 1), 60_000).astype(dtype)
    weight = np.array([[[1], [1], [-1]]]).astype(dtype)
    assert pyconv.conv(x, weight).item() == x[0, 0, 0]
    with np.errstate(over="ignore"):
        assert calls.same_bits(
            call.map(lambda array: array * array.dtype.type(300), ["x", "bias"]).run(),
            single.map(lambda array: (array.astype(dtype) * np.dtype(dtype).type(300))
                       .astype(np.float32), ["x", "bias"]).run().astype(dtype),
        )  # fmt: skip


@pytest.mark.parametrize("layout", calls.LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_sixteen_bit_number(dtype, layout):
    """All of them are read right, and products are rounded to nearest, ties to even."""
    dtype = calls.DTYPES[dtype]
    x = np.arange(2**16, dtype=np.uint16).view(dtype)
    with np.errstate(invalid="ignore"):  # signalling NaNs are among them
        x = x[np.isfinite(x)]
    weight = np.array([1, 1.5, -1.25, 0.5, 2.0**-10, 2.0**-14, 1.0 + dtype.type(2**-7)], dtype)
    with np.errstate(over="ignore", under="ignore"):
        exact = (weight.astype(np.float32)[:, None] * x.astype(np.float32)).astype(dtype)
    image = x[:, None] if layout == "channels_last" else x[None]
    y = pyconv.conv(image, weight.reshape(-1, 1, 1), layout=layout)
    np.testing.assert_array_equal(y.T if layout == "channels_last" else y, exact)


def test_results_beyond_the_range_of_float16_are_infinite():
    x = np.array([[[300.0, -300.0, 255.875]]], np.float16)
    weight = np.array([[[256.0]]], np.float16)
    y = pyconv.conv(x, weight)
    np.testing.assert_array_equal(y, np.array([[[np.inf, -np.inf, 65504.0]]], np.float16))


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_functions_are_the_operators(name):
    functions = {"standard": pyconv.conv}
    function = functions.get(name) or getattr(pyconv, f"{name}_conv")
    call = small(name, stride=2, padding=1, flip=True)
    args, kwargs = call.arguments()
    assert calls.same_bits(function(*args, **kwargs), call.run())
    assert call.run().shape == call.operator.output_shape(
        *[array.shape for array in args],
        **{k: v.shape if k == "bias" else v for k, v in kwargs.items()},
    )


def test_matrices_of_weights_are_pointwise():
    """A weight (O, C) says nothing about the axes of x: they are read as the rule has it."""
    weight = oracles.random((4, 3), 1)
    for x, layout, axis in [
        ((3, 7), "channels_first", 0),
        ((3, 7, 5), "channels_first", 0),
        ((2, 3, 7), "channels_first", 1),
        ((3, 3, 7), "channels_first", 1),  # batched, as it can be
        ((3, 5, 7, 6), "channels_first", 0),
        ((2, 3, 5, 7, 6), "channels_first", 1),
        ((7, 3), "channels_last", 1),
        ((2, 7, 3), "channels_last", 2),
        ((2, 6, 5, 7, 3), "channels_last", 4),
    ]:
        image = oracles.random(x)
        expected = np.moveaxis(np.tensordot(weight, image, (1, axis)), 0, axis)
        oracles.assert_close(pyconv.pointwise_conv(image, weight, layout=layout), expected)


# Shapes of the image and of the weights, and parameters.
WIDE_ROWS = {
    "packed": ((1, 30, 33, 41), (20, 30, 3, 3), {"padding": 12, "dilation": 12}),
    "parts": ((1, 100, 33, 33), (40, 100, 3, 3), {"padding": 12, "dilation": 12}),
    "wide parts": ((1, 100, 49, 52), (40, 100, 3, 3), {"padding": 17, "dilation": 17}),
    "lines": ((1, 3, 5, 32), (20, 3, 1, 1), {}),
    "parts in 3-D": (
        (1, 30, 9, 10, 49), (20, 30, 3, 3, 3), {"padding": (4, 4, 17), "dilation": (4, 4, 17)},
    ),
    "planes": ((2, 24, 19, 37), (50, 24, 3, 3), {"padding": 1}),
    "in place": ((1, 24, 19, 45), (20, 24, 3, 3), {}),
    "1x1": ((2, 130, 9, 50), (30, 130, 1, 1), {}),
    "strided": ((1, 40, 25, 71), (30, 40, 3, 3), {"padding": 1, "stride": 2}),
    "few rows": ((1, 40, 25, 71), (3, 40, 3, 3), {"padding": 1}),
    "1-D": ((2, 60, 301), (30, 60, 5), {"padding": 40, "dilation": 20}),
    "3-D": ((1, 20, 5, 7, 33), (20, 20, 3, 3, 3), {"padding": 1}),
}  # fmt: skip


@pytest.mark.parametrize("workspace", [2**25, 2**19])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", WIDE_ROWS)
def test_rows_of_an_output_that_lie_apart(case, dtype, workspace):
    """Panels within a row are stored where they belong, those across two rows are not."""
    shape, kernel, params = WIDE_ROWS[case]
    rng = np.random.default_rng(4)
    x, weight = (rng.standard_normal(s).astype(dtype) for s in (shape, kernel))
    params = {**params, "algorithm": "direct", "max_workspace": workspace}
    expected = pyconv.conv(x, weight, **params)
    rows = np.full((*expected.shape[:-1], expected.shape[-1] + 3), 7, dtype)
    pyconv.conv(x, weight, **params, out=rows[..., :-3])
    assert (rows[..., :-3] == expected).all()
    assert (rows[..., -3:] == 7).all()
    plan = pyconv.get("standard").plan(shape, weight, **params)
    assert (plan(x, out=rows[..., :-3]) == expected).all()
    right = pyconv.get("standard").reference(x, weight, **params)
    np.testing.assert_allclose(expected, right, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("reversed_rows", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 5, 9, 23), (1, 40, 3, 4)])
def test_weights_at_the_same_address(shape, dtype, reversed_rows):
    """Rows that are all one, and rows in another order: as their copies give."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape).astype(dtype)
    weight = rng.standard_normal((20, shape[1], 3, 3)).astype(dtype)
    weight = weight[::-1] if reversed_rows else np.broadcast_to(weight[:1], weight.shape)
    for algorithm in ("direct", "auto"):
        y = pyconv.conv(x, weight, padding=1, algorithm=algorithm)
        copied = pyconv.conv(x, weight.copy(), padding=1, algorithm=algorithm)
        assert (y == copied).all()
        np.testing.assert_allclose(
            y, pyconv.get("standard").reference(x, weight, padding=1), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("layout", calls.LAYOUTS)
@pytest.mark.parametrize("name", calls.OPERATORS)
def test_without_samples(name, layout):
    call = small(name, padding=3, layout=layout)
    empty = call.map(lambda array: array[:0], calls.IMAGES)
    assert empty.run().shape == (0, *call.run().shape[1:])
    assert empty.run().dtype == call.dtype
    assert calls.same_bits(empty.run_plan(), empty.run())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", calls.LAYOUTS)
@pytest.mark.parametrize("missing", ["channels", "rows"])
@pytest.mark.parametrize("name", calls.OPERATORS)
def test_without_inputs(name, missing, layout, dtype):
    """Inputs without channels, or without pixels, give the bias, and gradients of 0."""
    x, *weights = SMALL[name]
    if missing == "rows":
        x = (*x[:2], 0, *x[3:])
    else:
        x = (x[0], 0, *x[2:])
        axis = 0 if name in ("transposed", "depthwise", "depthwise_separable") else 1
        weights[0] = tuple(0 if a == axis else n for a, n in enumerate(weights[0]))
        if name == "depthwise_separable":
            weights[1] = (weights[1][0], 0)
    params = {"padding": 0 if name == "transposed" else 3, "layout": layout}
    call = fixed(name, x, *weights, **REQUIRED.get(name, {}), **params, dtype=dtype)
    for algorithm in call.algorithms:
        call = call.with_params(algorithm=algorithm)
        y, bias = call.run(), call.arrays["bias"]
        plain = np.moveaxis(y, -1, 1) if layout == "channels_last" else y
        np.testing.assert_array_equal(plain, np.broadcast_to(bias[:, None, None], plain.shape))
        assert calls.same_bits(call.run_plan(), y)
        for key, gradient in call.backward(np.ones_like(y)).items():
            for array in gradient if isinstance(gradient, tuple) else (gradient,):
                full = 0 if key != "bias" else plain[:, :1].size
                np.testing.assert_array_equal(array, np.full_like(array, full))


@pytest.mark.parametrize("depth", [64, 256, 384, 1000])
@pytest.mark.parametrize("name", ["pointwise", "standard", "dilated", "deformable", "transposed"])
def test_arrays_of_one_value(name, depth):
    """Flat images under flat kernels: every addition of a sum is rounded the same way."""
    values = np.linspace(1, 2, 500, dtype=np.float32)
    arrays = {
        "x": np.ones((1, depth, 1), np.float32),
        "weight": np.repeat(values[:, None, None], depth, 1),
    }
    if name == "transposed":
        arrays["weight"] = arrays["weight"].swapaxes(0, 1)
    params = {"dilation": 1} if name == "dilated" else {}
    y = pyconv.get(name)(
        arrays["x"], *([np.zeros((1, 1, 1), np.float32)] if name == "deformable" else []),
        arrays["weight"], **params,
    )  # fmt: skip
    exact = depth * values.astype(np.float64)
    error = np.abs(y[0, :, 0] - exact) / exact
    assert error.max() <= 32 * calls.ROUNDOFF["float32"]
