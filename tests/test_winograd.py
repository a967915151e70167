"""Winograd's algorithm, with all its tiles: next to the definition, accuracy, the choice."""

import functools
from itertools import product

import numpy as np
import pytest

import pyconv
from pyconv import algorithms

from . import calls
from .calls import fixed

#: Tiles that are cut off, panels that are not full, channels that are no multiple of a row block,
#: lines of tiles longer than a block of them.
SHAPES = {
    "one tile": ((1, 3, 4, 4), (5, 3, 3, 3), {"padding": 1}),
    "part of a tile": ((2, 9, 3, 5), (8, 9, 3, 3), {}),
    "17 tiles in a line": ((1, 8, 3, 66), (7, 8, 3, 3), {"padding": (1, 2)}),
    "a long line": ((1, 2, 5, 1301), (3, 2, 3, 3), {"padding": 1, "padding_mode": "circular"}),
    "a high image": ((1, 2, 1301, 3), (3, 2, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
    "many channels": ((1, 515, 9, 8), (101, 515, 3, 3), {"padding": 2}),
    "many rows": ((1, 5, 11, 9), (301, 5, 3, 3), {"padding": -1}),
    # a thread does several groups by itself, or, of three, each a third of the tiles of every group
    "small groups": ((2, 48, 26, 22), (48, 12, 3, 3), {"groups": 4, "padding": 1}),
    "groups": ((3, 21, 13, 10), (33, 7, 3, 3), {"groups": 3, "padding": "full"}),
    # more groups than are brought together for their channels to be whole vectors
    "many groups": ((2, 95, 10, 9), (57, 5, 3, 3), {"groups": 19, "padding": 1}),
    "3-D": ((2, 4, 7, 9, 10), (6, 4, 3, 3, 3), {"padding": "same", "stride": (2, 1, 1)}),
    "3-D, dilated": ((1, 4, 9, 11, 10), (6, 4, 2, 3, 3), {"padding": 2, "dilation": (2, 3, 2)}),
    "dilations beyond the result": ((1, 3, 9, 40), (4, 3, 3, 3), {"dilation": (4, 19)}),
    "many classes, two steps": ((2, 3, 13, 41), (7, 3, 3, 3), {"dilation": (3, 9), "padding": 9}),
    "two classes": ((2, 3, 9, 37), (4, 3, 3, 3), {"dilation": 2, "padding": 2}),
    "four classes": ((1, 3, 11, 50), (5, 3, 3, 3), {"dilation": (1, 4), "padding": (1, 4)}),
    "classes cut by blocks": ((1, 2, 9, 1250), (3, 2, 3, 3), {"dilation": (1, 300)}),
    "small maps of a batch": ((9, 5, 6, 7), (13, 5, 3, 3), {"padding": 1}),
}


#: Kernels of one axis, in taps and strides, with the outputs of their tiles.
AXES = {axis: tiles for axis, tiles in algorithms.TILES.items() if axis != (1, 1)}
#: The same of two axes: all kernels of an axis with themselves and with 1 and 3 taps.
FORMS = [
    (down, along)
    for down, along in product(algorithms.TILES, repeat=2)
    if down != along or down != (1, 1)
    if down == along or {down, along} & {(1, 1), (1, 3)}
]


def axes_of(size, kernel, stride):
    """The axes of a convolution without padding."""
    ones, none = (1,) * len(size), ((0, 0),) * len(size)
    return pyconv.geometry.conv_axes("standard", size, kernel, stride, none, ones, "zeros")


def forget():
    """Have the next call choose its tiles anew."""
    for name in ("standard", "dilated", "grouped"):
        pyconv.get(name)._problems.clear()


@pytest.fixture
def pinned(monkeypatch):
    """Have tiles of these outputs, whatever the shape."""

    def pin(tile):
        monkeypatch.setattr(algorithms, "winograd_tile", lambda *_: tile)
        forget()

    yield pin
    forget()


@pytest.fixture(params=["tiles", "channels"])
def vectors(request, monkeypatch):
    """Have vectors run along the tiles, or along the channels where they can."""
    along_channels = request.param == "channels"

    def in_lanes(axes, rows, channels, groups, tile):
        return along_channels and algorithms.winograd_takes_lanes(axes)

    monkeypatch.setattr(algorithms, "winograd_in_lanes", in_lanes)
    forget()
    yield request.param
    forget()


@pytest.fixture(params=AXES[1, 3])
def tile(request, pinned):
    """Outputs a side of a tile for 3x3 taps."""
    pinned((request.param, request.param))
    return request.param


def shaped(key, dtype, layout="channels_first"):
    """The call of these shapes: the same values in either layout."""
    x, weight, params = SHAPES[key]
    return fixed("standard", x, weight, dtype=dtype, layout=layout, flip=True, **params)


@functools.cache
def known(key, dtype):
    """Its result, channels first, and what the error is measured in, worked out once."""
    call = shaped(key, dtype)
    return call.expected("scipy"), call.magnitude()


def assert_near_scipy(call, y):
    calls.assert_promise(y, call.expected("scipy"), call.magnitude(), call.terms, elementwise=False)


def assert_same_or_refused(call, y, exponents):
    """In every workspace the same bits, or a refusal that writes nothing; how many of each."""
    done = refused = 0
    for budget in (2**exponent for exponent in exponents):
        out = np.full_like(y, 7)
        try:
            call.run(max_workspace=budget, threads=2, out=out)
        except ValueError as error:
            assert "max_workspace must be larger" in str(error)
            assert (out == 7).all()
            refused += 1
        else:
            assert calls.same_bits(out, y)
            done += 1
    return done, refused


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("layout", calls.LAYOUTS)
@pytest.mark.parametrize("dtype", calls.DTYPES)
@pytest.mark.parametrize("key", SHAPES)
def test_next_to_scipy(key, dtype, layout):
    call = shaped(key, dtype, layout)
    y = call.run(algorithm="winograd")
    first = y if layout == "channels_first" else np.moveaxis(y, -1, 1)
    calls.assert_promise(first, *known(key, dtype), call.terms, elementwise=False)
    assert calls.same_bits(call.run_plan(algorithm="winograd"), y)
    assert calls.same_bits(call.run(algorithm="winograd", threads=3), y)
    assert calls.same_bits(call.run(algorithm="winograd", max_workspace=2**24, threads=2), y)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("key", SHAPES)
def test_either_tile(key, dtype, tile):
    call = shaped(key, dtype)
    y = call.run(algorithm="winograd")
    calls.assert_promise(y, *known(key, dtype), call.terms, elementwise=False)
    assert calls.same_bits(call.run_plan(algorithm="winograd", threads=2), y)


#: What changes how the inputs of a tile are brought together, and its outputs apart.
WAYS = {
    "plain": ((1, 5, 14, 37), {}),
    "padded": ((2, 3, 9, 19), {"padding": (3, 4), "padding_mode": "reflect"}),
    "cropped": ((1, 3, 15, 16), {"padding": ((-1, 2), (3, -2))}),
    "few classes": ((1, 3, 13, 31), {"padding": 2, "dilation": (2, 3)}),
    "many classes": ((1, 3, 10, 83), {"padding": (1, 6), "dilation": (1, 13)}),
}


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("down", "along"), FORMS)
def test_every_form(down, along, way, pinned):
    shape, params = WAYS[way]
    stride = (down[0], along[0])
    if "dilation" in params and max(stride) > 1:
        pytest.skip("dilated at stride 1 alone")
    weight = (7, shape[1], down[1], along[1])
    tiles = algorithms.winograd_tiles(axes_of(shape[2:], weight[2:], stride))
    for number, tile in enumerate(tiles):
        pinned(tile)
        for dtype in ("float32", "float64"):
            layout = calls.LAYOUTS[number % 2]
            call = fixed(
                "standard", shape, weight, dtype=dtype, layout=layout, stride=stride,
                algorithm="winograd", **params,
            )  # fmt: skip
            y = call.run()
            assert_near_scipy(call, y)
            assert calls.same_bits(call.run_plan(threads=2), y)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("layout", calls.LAYOUTS)
@pytest.mark.parametrize("axis", AXES)
def test_one_axis(axis, layout, pinned):
    """Signals, grouped and dilated ones too; and images, along one of their axes."""
    stride, taps = axis
    for outputs in AXES[axis]:
        for shape, weight, tile, params in (
            ((3, 5, 61), (8, 5, taps), (1, outputs), {"padding": 2}),
            ((1, 6, 700), (4, 3, taps), (1, outputs), {"groups": 2, "padding_mode": "circular"}),
            ((2, 3, 90), (4, 3, taps), (1, outputs), {"dilation": 3, "padding": 4}),
            ((1, 3, 900), (4, 3, taps), (1, outputs), {"dilation": 17, "padding": ((40, 0),)}),
            ((1, 3, 19, 23), (4, 3, taps, 1), (outputs, 1), {"padding": (2, 1)}),
            ((1, 3, 9, 8, 13), (4, 3, 2, 1, taps), (1, outputs), {"padding": 1}),
        ):
            if "dilation" in params and stride > 1:
                continue
            pinned(tile)
            steps = tuple(stride if k == taps else 1 for k in weight[2:])
            call = fixed(
                "standard", shape, weight, dtype="float32", layout=layout, stride=steps,
                algorithm="winograd", **params,
            )  # fmt: skip
            y = call.run()
            assert_near_scipy(call, y)
            assert calls.same_bits(call.run(threads=2), y)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(
    ("shape", "weight", "tile", "stride"),
    [
        ((2, 150, 37), (40, 150, 3), (1, 4), 1),
        ((1, 70, 11, 12), (40, 70, 5, 5), (2, 2), 1),
        ((1, 70, 11, 12), (40, 70, 2, 2), (3, 5), 1),
        ((1, 70, 13, 12), (40, 70, 3, 1), (3, 1), 1),
    ],
)
def test_little_workspace_of_other_forms(shape, weight, tile, stride, pinned):
    pinned(tile)
    call = fixed("standard", shape, weight, stride=stride, padding=1, algorithm="winograd")
    done, _ = assert_same_or_refused(call, call.run(), range(14, 24))
    assert done > 3


@pytest.mark.usefixtures("vectors")
def test_bits_of_a_sample_in_a_batch(tile):
    """Tiles of several samples share panels."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((7, 9, 7, 6), dtype=np.float32)
    weight = rng.standard_normal((14, 9, 3, 3), dtype=np.float32)
    y = pyconv.conv(x, weight, padding=1, algorithm="winograd")
    for n in range(7):
        alone = pyconv.conv(x[n], weight, padding=1, algorithm="winograd")
        assert calls.same_bits(alone, y[n])


@pytest.mark.usefixtures("vectors")
def test_little_workspace(tile):
    """The weights are transformed in parts, with the same bits; too little is refused unwritten."""
    x, weight, params = SHAPES["many channels"]
    call = fixed("standard", x, weight, algorithm="winograd", **params)
    # With 16 lanes, 101 rows are held as 112: a group's transformed weights are more than 8 MB.
    done, refused = assert_same_or_refused(call, call.run(), range(12, 27))
    assert refused > 0
    assert done > 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dilation", [2, 3, 4, 5, 6, 8, 13])
def test_nothing_beside_rows_of_runs_is_written(tile, dilation, dtype):
    """Runs of the classes are written as whole vectors, but for those at the end of a row."""
    rng = np.random.default_rng(dilation)
    x, weight = rng.standard_normal((2, 3, 9, 43)), rng.standard_normal((4, 3, 3, 3))
    x, weight = x.astype(dtype), weight.astype(dtype)
    op, params = pyconv.get("dilated"), {"dilation": dilation, "padding": dilation}
    around = np.full((2, 4, 13, 61), 7, dtype)
    out = around[:, :, 2:11, 9:52]
    plan = op.plan(x.shape, weight, algorithm="winograd", **params)
    plan(x, out=out)
    exact = op(x.astype(float), weight.astype(float), algorithm="direct", **params)
    np.testing.assert_allclose(out, exact, atol=1e-4 if dtype is np.float32 else 1e-12)
    out[...] = 7
    assert (around == 7).all()


# --- accuracy -------------------------------------------------------------------------------------


def roundoffs(x, weight, algorithm):
    """The largest error in roundoffs of the largest sum of magnitudes: at most 32 are promised."""
    wide = [array.astype(np.float64) for array in (x, weight)]
    exact = pyconv.conv(*wide, padding=1, algorithm="direct")
    magnitude = pyconv.conv(*map(np.abs, wide), padding=1, algorithm="direct").max()
    y = pyconv.conv(x, weight, padding=1, algorithm=algorithm)
    return np.abs(y - exact).max() / magnitude / calls.ROUNDOFF["float32"]


@pytest.mark.usefixtures("vectors")
def test_error_of_random_values(tile):
    rng = np.random.default_rng(0)
    for channels in (8, 64, 300):
        x = rng.standard_normal((1, channels, 25, 30), dtype=np.float32)
        weight = rng.standard_normal((9, channels, 3, 3), dtype=np.float32)
        assert roundoffs(x, weight, "winograd") < 8


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("channels", [8, 64, 1000])
@pytest.mark.parametrize(
    "values", ["flat", "offset", "mixed", "one large", "alternating", "smooth"]
)
def test_error_of_adverse_values(values, channels):
    """Large offsets, mixed magnitudes, cancellation: within the promise for every output."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, channels, 17, 18))
    weight = rng.standard_normal((5, channels, 3, 3))
    if values == "flat":
        x, weight = np.full_like(x, 1.1), np.full_like(weight, 0.7)
    elif values == "offset":
        x, weight = x + 1e4, weight + 30
    elif values == "mixed":
        x *= 10.0 ** rng.integers(-6, 7, x.shape)
        weight *= 10.0 ** rng.integers(-3, 4, weight.shape)
    elif values == "one large":
        x[0, 0, 8, 8] = 1e8
    elif values == "alternating":
        signs = (-1.0) ** np.add.outer(np.arange(17), np.arange(18))
        x = np.abs(x) * signs
    else:
        x = x.cumsum(2).cumsum(3)
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    assert roundoffs(x, weight, "winograd") <= 32


@pytest.mark.usefixtures("vectors")
def test_a_nan_stays_within_its_tiles():
    x = np.zeros((1, 8, 16, 16), np.float32)
    weight = np.ones((8, 8, 3, 3), np.float32)
    x[0, 0, 9, 9] = np.nan
    lost = np.isnan(pyconv.conv(x, weight, padding=1, algorithm="winograd"))
    assert lost[:, :, 8:11, 8:11].all()
    assert not lost[:, :, :8].any()
    assert not lost[:, :, 12:].any()
    assert np.isnan(pyconv.conv(x, weight, padding=1, algorithm="direct")).sum() == 8 * 9


# --- gradients of the weights ---------------------------------------------------------------------


@pytest.fixture
def transformed(monkeypatch):
    """Have gradients of weights transformed wherever they can be, not where it pays."""

    def tile(axes, rows, channels, groups, samples):
        takes = algorithms.winograd_takes_lanes(axes) and all(a.stride == 1 for a in axes[-2:])
        return algorithms.winograd_tile(axes, rows, channels, groups) if takes else None

    monkeypatch.setattr(algorithms, "winograd_grad", tile)
    forget()
    yield
    forget()


def weights_gradient(grad, x, weight, **params):
    return pyconv.get("grouped").backward(grad, x, weight, needs="weight", **params)["weight"]


def assert_gradient(x, weight, dtype, **params):
    """Within the promise of the exact one, and the same bits however it is computed."""
    rng = np.random.default_rng(11)
    x, weight = rng.standard_normal(x).astype(dtype), rng.standard_normal(weight).astype(dtype)
    grad = pyconv.get("grouped")(x, weight, **params)
    grad = rng.standard_normal(grad.shape).astype(dtype)
    wide = [array.astype(np.float64) for array in (grad, x, weight)]
    exact = weights_gradient(*wide, algorithm="direct", **params)
    size = weights_gradient(*map(np.abs, wide), algorithm="direct", **params).max()
    params["algorithm"] = "winograd"
    y = weights_gradient(grad, x, weight, **params)
    assert y.shape == exact.shape
    assert np.abs(y - exact).max() <= 32 * calls.ROUNDOFF[dtype] * size
    assert calls.same_bits(weights_gradient(grad, x, weight, threads=3, **params), y)
    assert calls.same_bits(weights_gradient(grad, x, weight, max_workspace=2**20, **params), y)
    plan = pyconv.get("grouped").plan(x.shape, weight, **params)
    assert calls.same_bits(plan.backward(grad, x, needs="weight")["weight"], y)


@pytest.mark.usefixtures("transformed")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("x", "weight", "params"),
    [
        ((2, 32, 14, 15), (32, 8, 3, 3), {"groups": 4, "padding": 1}),
        ((1, 95, 10, 9), (57, 5, 3, 3), {"groups": 19, "padding": 1}),
        ((3, 21, 13, 10), (99, 7, 3, 3), {"groups": 3, "padding": "full"}),
        ((1, 12, 7, 90), (28, 3, 3, 3), {"groups": 4, "padding": 2, "padding_mode": "reflect"}),
        ((2, 5, 40, 33), (6, 5, 3, 3), {"groups": 1, "padding": (-1, 2)}),
        ((1, 8, 3, 9, 11), (12, 2, 1, 3, 3), {"groups": 4, "padding": 1, "stride": (2, 1, 1)}),
        ((5, 24, 50), (36, 4, 3), {"groups": 6, "padding": 1}),
        ((2, 24, 9, 13), (40, 6, 3, 3), {"groups": 4, "flip": True}),
    ],
)
def test_gradient_of_weights(x, weight, params, dtype):
    assert_gradient(x, weight, dtype, **params)


@pytest.mark.usefixtures("transformed")
@pytest.mark.parametrize(("down", "along"), [f for f in FORMS if f[0][0] == f[1][0] == 1])
def test_gradient_of_weights_of_every_form(down, along, pinned):
    weight = (12, 3, down[1], along[1])
    for tile in algorithms.winograd_tiles(axes_of((23, 21), weight[2:], (1, 1))):
        pinned(tile)
        for dtype in ("float32", "float64"):
            assert_gradient((2, 12, 23, 21), weight, dtype, groups=4, padding=2)


@pytest.mark.usefixtures("transformed")
def test_gradient_of_weights_in_little_workspace():
    """Panels of rows one by one, and blocks of groups; or a refusal."""
    rng = np.random.default_rng(5)
    for x, weight, groups in (
        ((1, 40, 22, 21), (100, 40, 3, 3), 1),
        ((1, 84, 9, 9), (84, 7, 3, 3), 12),
    ):
        x, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in (x, weight))
        params = {"groups": groups, "padding": 1, "algorithm": "winograd"}
        grad = rng.standard_normal((1, len(weight), *x.shape[2:]), dtype=np.float32)
        y = weights_gradient(grad, x, weight, **params)
        done = 0
        for budget in (2**exponent for exponent in range(14, 25)):
            try:
                found = weights_gradient(grad, x, weight, max_workspace=budget, **params)
            except ValueError as error:
                assert "max_workspace must be larger" in str(error)
            else:
                assert calls.same_bits(found, y)
                done += 1
        assert 3 <= done < 11


@pytest.mark.usefixtures("transformed")
@pytest.mark.parametrize("values", ["flat", "offset", "mixed", "smooth"])
def test_error_of_adverse_gradients(values):
    rng = np.random.default_rng(1)
    x, grad = rng.standard_normal((6, 32, 56, 57)), rng.standard_normal((6, 32, 56, 57))
    if values == "flat":
        x, grad = np.full_like(x, 1.1), np.full_like(grad, 0.7)
    elif values == "offset":
        x, grad = x + 1e4, grad + 30
    elif values == "mixed":
        x *= 10.0 ** rng.integers(-6, 7, x.shape)
    else:
        x, grad = x.cumsum(2).cumsum(3), grad.cumsum(2).cumsum(3)
    x, grad = x.astype(np.float32), grad.astype(np.float32)
    weight, params = np.ones((32, 8, 3, 3), np.float32), {"groups": 4, "padding": 1}
    wide = [array.astype(np.float64) for array in (grad, x, weight)]
    exact = weights_gradient(*wide, algorithm="direct", **params)
    size = weights_gradient(*map(np.abs, wide), algorithm="direct", **params).max()
    y = weights_gradient(grad, x, weight, algorithm="winograd", **params)
    assert np.abs(y - exact).max() <= 32 * calls.ROUNDOFF["float32"] * size


# --- the choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1,), 1), ((6,), 1), ((2,), 2), ((5,), 2), ((3,), 3), ((1, 1), 1), ((3, 6), 1), ((3, 3), 3),
     ((3, 2), (1, 2)), ((3, 1), (1, 2)), ((3, 1, 1), 1)],
)  # fmt: skip
def test_refused_where_it_does_not_apply(kernel, stride):
    x = np.ones((1, 8) + (9,) * len(kernel), np.float32)
    weight = np.ones((8, 8, *kernel), np.float32)
    with pytest.raises(ValueError, match=r"^standard: algorithm must not be 'winograd' for kernel"):
        pyconv.conv(x, weight, stride=stride, algorithm="winograd")


def test_small_tiles_of_small_maps():
    def tile(size, channels):
        axes = pyconv.geometry.conv_axes(
            "standard", (size, size), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), "zeros"
        )
        return algorithms.winograd_tile(axes, channels, channels)

    assert tile(7, 512) == (2, 2)
    assert tile(56, 64) == (4, 4)
    assert tile(14, 256) == (4, 4)


def test_vectors_of_channels_where_groups_are_small():
    def along_channels(shape, rows, groups):
        axes = axes_of((1, *shape[2:]), (1, 3, 3), (1, 1, 1))
        channels = shape[1] // groups
        tile = algorithms.winograd_tile(axes, rows, channels, groups)
        return algorithms.winograd_in_lanes(axes, rows, channels, groups, tile)

    assert along_channels((1, 256, 30, 30), 8, 32)
    assert along_channels((1, 512, 16, 16), 16, 32)
    assert along_channels((1, 64, 9, 9), 64, 1)
    assert not along_channels((1, 64, 58, 58), 64, 1)
    assert not along_channels((1, 512, 16, 16), 512, 1)


def test_chosen_where_it_pays():
    def chosen(x, weight, **params):
        return pyconv.get("standard").plan(x, np.ones(weight, np.float32), **params).algorithm

    assert chosen((1, 64, 56, 56), (64, 64, 3, 3), padding=1) == "winograd"
    assert chosen((1, 256, 14, 14), (256, 256, 3, 3), padding=1) == "winograd"
    assert chosen((1, 3, 224, 224), (64, 3, 3, 3), padding=1) == "direct"
    assert chosen((1, 512, 7, 7), (512, 512, 3, 3), padding=1) == "winograd"
    assert chosen((1, 512, 4, 4), (512, 512, 3, 3), padding=1) == "direct"
    assert chosen((1, 128, 56, 56), (128, 128, 3, 3), padding=1, stride=2) == "direct"
    assert chosen((1, 128, 56, 56), (128, 128, 3, 3), padding=1, stride=(2, 1)) == "winograd"
    assert chosen((1, 256, 32, 32), (512, 256, 4, 4), padding=1, stride=2) == "winograd"
    assert chosen((1, 512, 14, 14), (512, 512, 3, 3), padding=1, stride=2) == "direct"
    assert chosen((1, 64, 56, 56), (64, 64, 5, 5), padding=2) == "winograd"
    assert chosen((1, 256, 4000), (256, 256, 3), padding=1) == "winograd"
    assert chosen((1, 128, 56, 56), (128, 4, 3, 3), padding=1, groups=32) == "direct"
    assert chosen((1, 128, 56, 56), (128, 32, 3, 3), padding=1, groups=4) == "winograd"
    assert chosen((1, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64) == "direct"
