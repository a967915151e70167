"""Arrays nobody would make on purpose: odd memory, odd sizes, odd numbers, objects of others."""

from __future__ import annotations

import importlib.util
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import oracles
import pyconv

from . import calls
from .calls import fixed

OPERATORS = pytest.mark.parametrize("name", calls.OPERATORS)
DTYPES = pytest.mark.parametrize("dtype", calls.DTYPES)

# x and weights; every kernel path: GEMM and depthwise, one row and several, strided, padded.
SHAPES = {
    "standard": ((2, 4, 9, 21), (5, 4, 3, 2)),
    "pointwise": ((2, 4, 9, 21), (5, 4, 1, 1)),
    "grouped": ((2, 4, 9, 21), (6, 2, 3, 2)),
    "depthwise": ((2, 4, 9, 21), (8, 1, 3, 2)),
    "depthwise_separable": ((2, 4, 9, 21), (4, 1, 3, 2), (5, 4)),
    "spatially_separable": ((2, 4, 9, 21), (3, 4, 3, 1), (5, 3, 1, 2)),
    "dilated": ((2, 4, 9, 21), (5, 4, 3, 2)),
    "transposed": ((2, 4, 9, 21), (4, 5, 3, 2)),
    "deformable": ((2, 4, 9, 21), (5, 4, 3, 2)),
}
PARAMS = {"grouped": {"groups": 2}, "dilated": {"dilation": 2}, "transposed": {"stride": 2}}


def small(name, **params):
    return fixed(name, *SHAPES[name], **{"padding": 1, **PARAMS.get(name, {}), **params})


def parts(value):
    return value if isinstance(value, tuple) else (value,)


def assert_same(found, wanted):
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            for a, b in zip(parts(found[key]), parts(value), strict=True):
                assert calls.same_bits(a, b), key
    else:
        assert calls.same_bits(found, wanted)


# --- odd memory ---------------------------------------------------------------------------------


class Guarded:
    """Views of arrays in the middle of larger memory, which must not change."""

    def __init__(self):
        self.memories = []

    def __call__(self, array, gap=3, step=2, offset=1):
        """``array`` as a strided view, odd bytes into memory that is full of NaN."""
        shape = [n * step + gap for n in array.shape]
        large = np.full(shape, np.nan, array.dtype)
        memory = np.frombuffer(b"\xff" * offset + large.tobytes() + b"\xff" * 64, np.uint8).copy()
        view = memory[offset : offset + large.nbytes].view(array.dtype).reshape(shape)
        view = view[tuple(slice(gap, gap + n * step, step) for n in array.shape)]
        view[...] = array
        self.memories.append((memory, memory.tobytes()))
        view.flags.writeable = False
        return view

    def intact(self):
        return all(memory.tobytes() == before for memory, before in self.memories)


@DTYPES
@OPERATORS
def test_inputs_are_read_where_they_are_and_nowhere_else(name, dtype):
    """Among NaN, at odd addresses and large strides; nothing there is written to."""
    call = small(name, dtype=dtype)
    y = call.run()
    gradients = call.backward(y)
    guarded = Guarded()
    other = call.map(guarded)
    assert_same(other.run(), y)
    assert_same(other.run_plan(), y)
    assert_same(other.backward(guarded(y)), gradients)
    assert guarded.intact()


def absurd_strides(array):
    """Strides of axes of extent 1 mean nothing, and may be anything."""
    odd = iter([-13, 2**40, 0, 7, -(2**50), 3, 1] * 2)
    strides = [s if n != 1 else next(odd) for n, s in zip(array.shape, array.strides, strict=True)]
    return as_strided(array, array.shape, strides)


@pytest.mark.parametrize("layout", calls.LAYOUTS)
@OPERATORS
def test_strides_of_axes_of_extent_1(name, layout):
    taps = {"pointwise": (1, 1), "spatially_separable": (1, 1)}.get(name, (1, 3))
    shapes = {
        "depthwise": [(1, 1, *taps)],
        "depthwise_separable": [(1, 1, *taps), (1, 1)],
        "spatially_separable": [(1, 1, 1, 1), (1, 1, 1, 3)],
    }.get(name, [(1, 1, *taps)])
    for x in ((1, 1, 1, 8), (1, 1, 8, 3), (1, 1, 1, 3)):
        call = fixed(name, x, *shapes, layout=layout, **PARAMS.get(name, {}) | {"groups": 1}
                     if name == "grouped" else {"dilation": 1} if name == "dilated" else {})  # fmt: skip
        y = call.run()
        gradients = call.backward(y)
        other = call.map(absurd_strides)
        assert_same(other.run(), y)
        assert_same(other.run_plan(), y)
        assert_same(other.backward(absurd_strides(y)), gradients)
        out = absurd_strides(np.zeros_like(y))
        other.run(out=out)
        assert_same(np.ascontiguousarray(out), y)


def swapped(array):
    return array.astype(array.dtype.newbyteorder())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@OPERATORS
def test_byte_orders_may_differ(name, dtype):
    """Each argument in the other byte order by itself, and all of them."""
    call = small(name, dtype=dtype)
    y = call.run()
    gradients = call.backward(y)
    for keys in (*((key,) for key in call.arrays), None):
        other = call.map(swapped, keys)
        assert_same(other.run(), y)
        assert_same(other.run_plan(), y)
        assert_same(other.backward(y), gradients)
        assert_same(other.backward(swapped(y)), gradients)


@OPERATORS
def test_everything_broadcast(name):
    """Every array is one number, repeated by strides of 0."""
    call = small(name)
    one = call.map(lambda array: np.broadcast_to(np.asarray(0.75, array.dtype), array.shape))
    whole = one.map(np.ascontiguousarray)
    y = whole.run()
    assert_same(one.run(), y)
    assert_same(one.run_plan(), y)
    grad = np.broadcast_to(np.asarray(-0.5, y.dtype), y.shape)
    assert_same(one.backward(grad), whole.backward(np.ascontiguousarray(grad)))


@OPERATORS
def test_one_array_for_several_arguments(name):
    """Inputs may overlap one another."""
    call = small(name)
    sizes = [part.size for value in call.arrays.values() for part in parts(value)]
    pool = np.random.default_rng(5).standard_normal(max(sizes)).astype(np.float32)
    other = call.map(lambda array: pool[: array.size].reshape(array.shape))
    apart = other.map(np.copy)
    y = apart.run()
    assert_same(other.run(), y)
    assert_same(other.backward(y), apart.backward(y))


# --- out ----------------------------------------------------------------------------------------


def out_views(shape, dtype):
    """Views of the shape of a result, each with the memory that it lies in."""
    item = dtype.itemsize
    pad = 64 * item

    def inside(extents, axes=None, index=..., offset=0):
        size = math.prod(extents)
        memory = np.full(size * item + 2 * pad + offset, 0xA5, np.uint8)
        view = memory[pad + offset : pad + offset + size * item].view(dtype).reshape(extents)
        return memory, (view if axes is None else view.transpose(axes))[index]

    rank = len(shape)
    order = np.roll(np.arange(rank), -1)
    last = [0, *range(2, rank), 1]
    backwards = (slice(None, None, -1),) * rank
    yield "plain", *inside(shape)
    yield "unaligned", *inside(shape, offset=1)
    yield "Fortran", *inside(shape[::-1], tuple(range(rank))[::-1])
    yield "rotated", *inside([shape[a] for a in order], np.argsort(order))
    yield "channels inside", *inside([shape[a] for a in last], np.argsort(last))
    yield "backwards", *inside(shape, index=backwards)
    yield "channels backwards", *inside(shape, index=(slice(None), slice(None, None, -1)))
    yield "columns backwards", *inside(shape, index=(..., slice(None, None, -1)))
    spread = (slice(1, None, 2),) * rank
    yield "spread", *inside([2 * n for n in shape], index=spread)
    yield "columns spread", *inside([*shape[:-1], 3 * shape[-1]], index=(..., slice(2, None, 3)))
    rows = [*shape[:-1], shape[-1] + 5]
    yield "rows apart", *inside(rows, index=(..., slice(2, shape[-1] + 2)))
    yield "spread, unaligned", *inside([2 * n for n in shape], index=spread, offset=1)


def check_out_views(call, algorithm="auto", **extra):
    y = call.run(algorithm=algorithm, **extra)
    for label, memory, out in out_views(y.shape, y.dtype):
        assert out.shape == y.shape
        assert call.run(algorithm=algorithm, out=out, **extra) is out
        assert calls.same_bits(np.ascontiguousarray(out), y), label
        # Nothing else was written: putting the pattern back leaves nothing but the pattern.
        out[...] = np.frombuffer(b"\xa5" * y.dtype.itemsize, y.dtype)[0]
        assert (memory == 0xA5).all(), label


@pytest.mark.parametrize("layout", calls.LAYOUTS)
@DTYPES
@OPERATORS
def test_out_views(name, dtype, layout):
    """Whatever the strides of ``out``, it gets the same bits and its surroundings none."""
    for algorithm in pyconv.get(name).algorithms:
        check_out_views(small(name, dtype=dtype, layout=layout), algorithm)


@OPERATORS
def test_out_views_of_any_call(name):
    @calls.examples(25)
    @given(calls.calls(name), st.sampled_from([1, 2, 3]))
    def test(call, threads):
        check_out_views(call, call.params["algorithm"], threads=threads)

    test()


@OPERATORS
def test_out_between_the_elements_of_an_input(name):
    """No byte in common, so it is allowed; and neither disturbs the other."""
    call = small(name)
    y = call.run()
    for key in [key for key in call.arrays if key != "axis_weights"]:
        array = call.arrays[key]
        memory = np.full((max(array.size, y.size), 2), np.nan, np.float32)
        inside = memory[: array.size, 1].reshape(array.shape)
        out = memory[: y.size, 0].reshape(y.shape)
        inside[...] = array
        call.put(key, inside).run(out=out)
        np.testing.assert_array_equal(out, y)
        np.testing.assert_array_equal(inside, array)


# --- objects of others --------------------------------------------------------------------------


class Interface:
    def __init__(self, array):
        self.array = array

    @property
    def __array_interface__(self):
        return self.array.__array_interface__


class Exporter:
    """DLPack and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Tagged(np.ndarray):
    """A subclass that does other things than its base."""

    def __getitem__(self, key):
        raise AssertionError("not to be called")

    def reshape(self, *shape):
        raise AssertionError("not to be called")


@pytest.mark.parametrize("wrap", [Interface, Exporter, lambda array: array.view(Tagged)])
@OPERATORS
def test_objects_of_others(name, wrap):
    """In the place of every array, in calls, gradients and plans; results are plain arrays."""
    call = small(name)
    y = call.run()
    gradients = call.backward(y)
    other = call.map(lambda array: wrap(array.copy()))
    assert type(other.run()) is np.ndarray
    assert_same(other.run(), y)
    found = other.backward(wrap(y))
    assert_same(found, gradients)
    assert all(type(part) is np.ndarray for value in found.values() for part in parts(value))
    args, kwargs = other.arguments(skip=call.operator.per_call)
    plan = call.operator.plan(call.arrays["x"].shape, *args, **kwargs)
    assert_same(plan(*(other.arrays[key] for key in call.operator.per_call)), y)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@OPERATORS
def test_torch_tensors(name, dtype):
    """Taken where they lie, whatever their strides; bfloat16 too."""
    torch = pytest.importorskip("torch")

    def tensor(array):
        made = torch.from_numpy(array.astype(np.float32)).to(getattr(torch, dtype))
        return made.transpose(0, -1).contiguous().transpose(0, -1)

    call = small(name, dtype=dtype)
    y = call.run()
    assert_same(call.map(tensor).run(), y)
    assert_same(call.map(tensor).backward(y), call.backward(y))


# --- odd sizes ----------------------------------------------------------------------------------


def plain(call):
    """The result is what the loops say, in every algorithm and from a plan."""
    expected = call.expected("loops")
    for algorithm in call.operator.algorithms:
        other = call.with_params(algorithm=algorithm)
        y = other.run()
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4, err_msg=algorithm)
        assert_same(other.run_plan(), y)
    grad = np.ones_like(y)
    for key, gradient in call.backward(grad).items():
        for a, b in zip(parts(gradient), parts(call.arrays[key]), strict=True):
            assert a.shape == b.shape


ODD_SIZES = {
    "kernel 1": fixed("standard", (2, 3, 5, 4), (4, 3, 1, 1)),
    "kernel 1, padded": fixed("standard", (2, 3, 5, 4), (4, 3, 1, 1), padding=2),
    "kernel of the size of the input": fixed("standard", (2, 3, 5, 4), (4, 3, 5, 4)),
    "kernel larger than the input": fixed("standard", (2, 3, 2, 3), (4, 3, 5, 7), padding=3),
    "depthwise kernel larger than the input": fixed(
        "depthwise", (2, 3, 2, 3), (3, 1, 9, 7), padding=5
    ),
    "reflected many times": fixed(
        "standard", (2, 3, 2, 3), (4, 3, 5, 7), padding=(11, 13), padding_mode="reflect"
    ),
    "one pixel, reflected": fixed(
        "depthwise", (2, 3, 1, 1), (3, 1, 3, 3), padding=4, padding_mode="reflect"
    ),
    "one pixel, symmetric": fixed(
        "standard", (1, 3, 1), (2, 3, 3), padding=40, padding_mode="symmetric"
    ),
    "stride larger than the input": fixed("standard", (2, 3, 5, 4), (4, 3, 3, 2), stride=100),
    "stride larger than the kernel": fixed("depthwise", (2, 3, 19, 23), (3, 1, 2, 3), stride=(7, 5)),
    "nothing but padding": fixed("standard", (2, 3, 4, 4), (4, 3, 2, 2), padding=9, stride=11),
    "cropped": fixed("standard", (2, 3, 9, 9), (4, 3, 2, 2), padding=((-3, -2), (-8, 1))),
    "cropped to nothing, then padded": fixed(
        "standard", (1, 2, 3), (2, 2, 2), padding=((-9, 12),)
    ),
    "wide dilation": fixed("dilated", (2, 3, 9, 9), (4, 3, 3, 3), dilation=8, padding=8),
    "dilation beyond the input": fixed("dilated", (2, 3, 9), (4, 3, 3), dilation=50, padding=50),
    "depthwise dilation beyond the input": fixed(
        "depthwise", (2, 3, 9, 4), (3, 1, 3, 3), dilation=50, padding=50
    ),
    "transposed kernel 1": fixed("transposed", (2, 3, 5, 4), (3, 4, 1, 1)),
    "transposed, gaps": fixed("transposed", (2, 3, 5, 4), (3, 4, 2, 1), stride=(5, 3)),
    "transposed, gaps and dilation": fixed(
        "transposed", (2, 3, 5, 4), (3, 4, 2, 3), stride=(5, 4), dilation=(2, 6)
    ),
    "transposed, one pixel": fixed("transposed", (1, 3, 1, 1), (3, 4, 7, 7), stride=3),
    "transposed, cropped to the middle": fixed(
        "transposed", (1, 3, 3, 3), (3, 4, 5, 5), stride=2, padding=4
    ),
    "transposed, extended": fixed("transposed", (1, 3, 3, 3), (3, 4, 2, 2), padding=-3),
    "transposed, output padding": fixed(
        "transposed", (1, 3, 3), (3, 4, 2), stride=9, output_padding=8
    ),
    "separable, kernel larger than the input": fixed(
        "depthwise_separable", (1, 3, 2, 3), (3, 1, 5, 7), (4, 3), padding=4
    ),
    "spatially separable, large kernels": fixed(
        "spatially_separable", (1, 3, 2, 3), (3, 3, 9, 1), (4, 3, 1, 7), padding=6
    ),
    "deformable kernel larger than the input": fixed(
        "deformable", (1, 3, 2, 3), (4, 3, 5, 3), padding=3
    ),
    "deformable, one pixel": fixed("deformable", (1, 3, 1, 1), (4, 3, 1, 1)),
    "one of everything": fixed("standard", (1, 1, 1, 1, 1), (1, 1, 1, 1, 1)),
    "one of everything, depthwise": fixed("depthwise", (1, 1, 1), (1, 1, 1)),
    "many groups": fixed("grouped", (1, 70, 3, 3), (70, 1, 2, 2), groups=70),
    "many outputs of a channel": fixed("depthwise", (1, 2, 5, 5), (130, 1, 2, 2)),
}


@pytest.mark.parametrize("key", ODD_SIZES)
def test_odd_sizes(key):
    plain(ODD_SIZES[key])
    layout = {"layout": "channels_last"}
    call = ODD_SIZES[key]
    last = call.map(lambda array: np.moveaxis(array, 1, -1), calls.IMAGES).with_params(**layout)
    assert_same(np.ascontiguousarray(np.moveaxis(last.run(), -1, 1)), call.run())


#: Extents that may be 0, by operator: shapes of the arrays, parameters, and what comes out.
ZEROS = {
    "standard N": ("standard", [(0, 3, 5, 4), (6, 3, 3, 2), (6,)], {}),
    "standard C": ("standard", [(2, 0, 5, 4), (6, 0, 3, 2), (6,)], {}),
    "standard C, groups": ("standard", [(2, 0, 5, 4), (6, 0, 3, 2), (6,)], {"groups": 2}),
    "standard O": ("standard", [(2, 3, 5, 4), (0, 3, 3, 2), (0,)], {}),
    "standard S": ("standard", [(2, 3, 0, 4), (6, 3, 3, 2), (6,)], {"padding": 2}),
    "standard all": ("standard", [(0, 0, 0, 0), (0, 0, 3, 2), (0,)], {"padding": 2}),
    "pointwise C": ("pointwise", [(2, 0, 5, 4), (6, 0, 1, 1), (6,)], {}),
    "pointwise S": ("pointwise", [(2, 3, 0, 4), (6, 3, 1, 1), (6,)], {"padding": 1}),
    "grouped C": ("grouped", [(2, 0, 5, 4), (6, 0, 3, 2), (6,)], {"groups": 3}),
    "grouped O": ("grouped", [(2, 6, 5, 4), (0, 2, 3, 2), (0,)], {"groups": 3}),
    "depthwise N": ("depthwise", [(0, 3, 5, 4), (6, 1, 3, 2), (6,)], {}),
    "depthwise C": ("depthwise", [(2, 0, 5, 4), (0, 1, 3, 2), (0,)], {}),
    "depthwise O": ("depthwise", [(2, 3, 5, 4), (0, 1, 3, 2), (0,)], {}),
    "depthwise S": ("depthwise", [(2, 3, 5, 0), (6, 1, 3, 2), (6,)], {"padding": 2}),
    "separable N": ("depthwise_separable", [(0, 3, 5, 4), (3, 1, 3, 2), (6, 3), (6,)], {}),
    "separable C": ("depthwise_separable", [(2, 0, 5, 4), (0, 1, 3, 2), (6, 0), (6,)], {}),
    "separable no middle": ("depthwise_separable", [(2, 3, 5, 4), (0, 1, 3, 2), (6, 0), (6,)], {}),
    "separable O": ("depthwise_separable", [(2, 3, 5, 4), (3, 1, 3, 2), (0, 3), (0,)], {}),
    "separable S": (
        "depthwise_separable", [(2, 3, 0, 4), (3, 1, 3, 2), (6, 3), (6,)], {"padding": 2},
    ),
    "spatial N": ("spatially_separable", [(0, 3, 5, 4), (2, 3, 3, 1), (6, 2, 1, 2), (6,)], {}),
    "spatial C": ("spatially_separable", [(2, 0, 5, 4), (2, 0, 3, 1), (6, 2, 1, 2), (6,)], {}),
    "spatial no middle": (
        "spatially_separable", [(2, 3, 5, 4), (0, 3, 3, 1), (6, 0, 1, 2), (6,)], {},
    ),
    "spatial O": ("spatially_separable", [(2, 3, 5, 4), (2, 3, 3, 1), (0, 2, 1, 2), (0,)], {}),
    "spatial S": (
        "spatially_separable", [(2, 3, 0, 0), (2, 3, 3, 1), (6, 2, 1, 2), (6,)], {"padding": 2},
    ),
    "dilated C": ("dilated", [(2, 0, 5, 4), (6, 0, 2, 2), (6,)], {"dilation": 2}),
    "dilated S": ("dilated", [(2, 3, 0, 4), (6, 3, 2, 2), (6,)], {"dilation": 2, "padding": 2}),
    "transposed N": ("transposed", [(0, 3, 5, 4), (3, 6, 3, 2), (6,)], {"stride": 2}),
    "transposed C": ("transposed", [(2, 0, 5, 4), (0, 6, 3, 2), (6,)], {"stride": 2}),
    "transposed C, groups": (
        "transposed", [(2, 0, 5, 4), (0, 3, 3, 2), (6,)], {"stride": 2, "groups": 2},
    ),
    "transposed O": ("transposed", [(2, 3, 5, 4), (3, 0, 3, 2), (0,)], {"stride": 2}),
    "transposed S": ("transposed", [(2, 3, 0, 4), (3, 6, 5, 2), (6,)], {"stride": 2, "padding": -1}),
    "deformable N": ("deformable", [(0, 4, 5, 4), (0, 12, 3, 3), (6, 4, 3, 2), (6,), (0, 6, 3, 3)],
                     {}),
    "deformable C": ("deformable", [(2, 0, 5, 4), (2, 12, 3, 3), (6, 0, 3, 2), (6,), (2, 6, 3, 3)],
                     {}),
    "deformable O": ("deformable", [(2, 4, 5, 4), (2, 12, 3, 3), (0, 4, 3, 2), (0,), (2, 6, 3, 3)],
                     {}),
    "deformable S": ("deformable", [(2, 4, 0, 4), (2, 12, 2, 7), (6, 4, 3, 2), (6,), (2, 6, 2, 7)],
                     {"padding": 2}),
}  # fmt: skip


@pytest.mark.parametrize("layout", calls.LAYOUTS)
@pytest.mark.parametrize("key", ZEROS)
def test_sizes_of_zero(key, layout):
    """Nothing to sum gives the bias; gradients have the arrays' shapes and nothing in them."""
    name, shapes, params = ZEROS[key]
    op = pyconv.get(name)
    images = {0} | ({1, 4} if name == "deformable" else set())
    arrays = [np.full(shape, 0.5, np.float32) for shape in shapes]
    rank = len(shapes[0]) - 2
    if layout == "channels_last":
        arrays = [np.moveaxis(a, 1, -1) if i in images else a for i, a in enumerate(arrays)]
    kwargs = {**params, "layout": layout}
    if name == "spatially_separable":
        kwargs["bias"] = arrays.pop()
        shapes = shapes[:-1]
    bias = kwargs.get("bias", arrays[3 if name in ("depthwise_separable", "deformable") else 2])
    bias[...] = np.arange(bias.size)
    for algorithm in op.algorithms:
        out = np.full(op.output_shape(
            *(a.shape for a in arrays),
            **{k: v.shape if k == "bias" else v for k, v in kwargs.items()},
        ), np.nan, np.float32)  # fmt: skip
        y = op(*arrays, **kwargs, algorithm=algorithm, out=out)
        y = np.moveaxis(y, -1, 1) if layout == "channels_last" else y
        expected = bias.reshape(-1, *[1] * rank)
        if not any(0 in shape for shape in shapes):
            raise AssertionError("nothing is empty")
        np.testing.assert_array_equal(y, np.broadcast_to(expected, y.shape), err_msg=algorithm)
    gradients = op.backward(np.ones_like(out), *arrays, **kwargs)
    named = dict(zip([n for n in op.array_names if n != "axis_weights"], arrays, strict=False))
    if name == "spatially_separable":
        named = {"x": arrays[0], "axis_weights": tuple(arrays[1:]), "bias": bias}
    for key_, gradient in gradients.items():
        for a, b in zip(parts(gradient), parts(named[key_]), strict=True):
            assert a.shape == b.shape
            if key_ == "bias":
                np.testing.assert_array_equal(a, np.full(a.shape, out.size / max(1, a.size)))
            else:
                assert not a.any(), key_
    later = [named[key_] for key_ in op.per_call]
    rest = [a for key_, a in named.items() if key_ not in op.per_call and key_ != "axis_weights"]
    if name == "spatially_separable":
        rest = arrays[1:]
    plan = op.plan(arrays[0].shape, *rest, **kwargs)
    assert plan.output_shape == out.shape
    assert plan.workspace_bytes >= 0
    assert plan.explain()
    assert_same(plan(*later), out)


@OPERATORS
def test_zero_kernels_are_refused(name):
    call = small(name)
    key = {"depthwise_separable": "depthwise", "spatially_separable": "axis_weights"}.get(
        name, "weight"
    )
    weight = call.arrays[key]
    empty = (
        (weight[0][:, :, :0], *weight[1:]) if isinstance(weight, tuple) else weight[:, :, :0]
    )
    with pytest.raises(ValueError, match=f"^{name}: "):
        call.put(key, empty).run()


LONGEST = 2**31 - 1


@pytest.mark.parametrize("layout", calls.LAYOUTS)
@pytest.mark.parametrize("extreme", [LONGEST, 2**30, 2**30 + 1, 2**20, 65_537])
def test_enormous_steps(extreme, layout):
    """Taps far outside the input see zeros, or what stands there; only the middle one is left."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 2, 5, 4))
    weight, each = rng.standard_normal((3, 2, 3, 3)), rng.standard_normal((2, 1, 3, 3))
    mix = rng.standard_normal((3, 2))
    rows, columns = rng.standard_normal((2, 2, 3, 1)), rng.standard_normal((3, 2, 1, 3))
    given = np.moveaxis(x, 1, -1) if layout == "channels_last" else x

    def near(y, expected):
        y = np.moveaxis(y, -1, 1) if layout == "channels_last" else y
        np.testing.assert_allclose(y, expected, atol=1e-12)

    wide = {"dilation": extreme, "padding": "same", "layout": layout}
    middle = oracles.conv(x, weight[..., 1:2, 1:2])
    near(pyconv.conv(given, weight, **wide), middle)
    near(pyconv.dilated_conv(given, weight, **wide), middle)
    near(pyconv.dilated_conv(given, weight, **wide, algorithm="subsample"), middle)
    depthwise = oracles.conv(x, each[..., 1:2, 1:2], groups=2)
    near(pyconv.depthwise_conv(given, each, **wide), depthwise)
    mixed = oracles.conv(depthwise, mix[..., None, None])
    near(pyconv.depthwise_separable_conv(given, each, mix, **wide), mixed)
    line = oracles.conv(oracles.conv(x, rows[..., 1:2, :]), columns[..., 1:2])
    near(pyconv.spatially_separable_conv(given, rows, columns, **wide), line)
    offset = np.zeros((1, 5, 4, 18) if layout == "channels_last" else (1, 18, 5, 4))
    near(pyconv.deformable_conv(given, offset, weight, **wide), middle)
    cropped = {"dilation": extreme, "padding": extreme, "layout": layout}
    transposed = np.moveaxis(weight, 0, 1)
    for algorithm in ("phase", "col2im"):
        near(pyconv.transposed_conv(given, transposed, **cropped, algorithm=algorithm), middle)
    for mode in ("reflect", "replicate", "circular", "symmetric"):
        y = pyconv.conv(given, weight, **wide, padding_mode=mode)
        near(y, oracles.conv(x, weight, **{**wide, "layout": "channels_first"},
                             padding_mode=mode) if False else wrapped(x, weight, extreme, mode))  # fmt: skip
    op = pyconv.get("standard")
    grad = np.ones((1, 5, 4, 3) if layout == "channels_last" else (1, 3, 5, 4))
    found = op.backward(grad, given, weight, **wide)
    far = found["weight"].copy()
    far[..., 1, 1] = 0
    assert not far.any()
    near(found["x"], oracles.transposed(np.ones((1, 3, 5, 4)), weight[..., 1:2, 1:2]))
    near_each = pyconv.get("depthwise").backward(
        np.ones_like(given), given, each, **wide, needs="weight"
    )["weight"]
    np.testing.assert_allclose(near_each[:, 0, 1, 1], x.sum((0, 2, 3)))
    assert pyconv.conv(given, weight[..., :1, :1], stride=extreme, layout=layout).size == 3


def wrapped(x, weight, dilation, mode):
    """A convolution dilated this far, by looking up which element stands where."""
    y = np.zeros((1, len(weight), *x.shape[2:]))
    for i, j in np.ndindex(*x.shape[2:]):
        for s, t in np.ndindex(3, 3):
            at = (
                oracles.source_index(i + (s - 1) * dilation, x.shape[2], mode),
                oracles.source_index(j + (t - 1) * dilation, x.shape[3], mode),
            )
            y[0, :, i, j] += weight[:, :, s, t] @ x[(0, slice(None), *at)]
    return y


# --- odd numbers --------------------------------------------------------------------------------


def footprint(call, key, index, value):
    """Where the result changes to something that is not finite."""
    array = call.arrays[key].copy()
    array[index] = value
    return ~np.isfinite(call.put(key, array).run())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nan_reaches_what_its_taps_reach(value):
    """Of a transposed convolution: the outputs that the kernel stamps, and no other."""
    for params in ({}, {"stride": 2}, {"stride": (3, 2), "padding": 1}, {"dilation": 2, "stride": 3}):
        for algorithm in ("direct", "phase", "col2im"):
            call = fixed("transposed", (1, 2, 4, 5), (2, 3, 3, 2), algorithm=algorithm, **params)
            ones = call.map(np.ones_like)
            for index in ((0, 0, 0, 0), (0, 1, 2, 3), (0, 0, 3, 4)):
                x = np.zeros_like(call.arrays["x"], np.float64)
                x[index] = 1
                stamped = ones.put("x", x).put("bias", None).expected("loops") != 0
                np.testing.assert_array_equal(footprint(call, "x", index, value), stamped)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite(value):
    """It multiplies what its tap meets, and a transposed convolution meets the input alone."""
    for params in ({}, {"stride": 2}, {"stride": (3, 2), "padding": 1}):
        for algorithm in ("direct", "phase", "col2im"):
            call = fixed("transposed", (1, 2, 4, 5), (2, 3, 3, 2), algorithm=algorithm, **params)
            weight = call.arrays["weight"].copy()
            weight[0, 1, 2, 0] = value
            other = call.put("weight", weight)
            with np.errstate(invalid="ignore"):
                expected = other.operator.reference(*other.arguments()[0], **params)
            np.testing.assert_array_equal(np.isfinite(other.run()), np.isfinite(expected))


@pytest.mark.parametrize("name", ["standard", "depthwise", "dilated", "depthwise_separable"])
def test_gradients_of_a_nan(name):
    """A NaN in the gradient of one output reaches the inputs that this output reads."""
    call = small(name, algorithm="direct")
    y = call.run()
    grad = np.ones_like(y)
    grad[0, 0, 3, 4] = np.nan
    spread = ~np.isfinite(call.backward(grad, needs="x")["x"])
    grad = np.zeros_like(y)
    grad[0, 0, 3, 4] = 1
    reads = call.map(np.ones_like, [k for k in call.arrays if k not in ("x", "bias")])
    np.testing.assert_array_equal(spread, reads.backward(grad, needs="x")["x"] != 0)
    bias = call.backward(np.where(grad == 1, np.nan, 1).astype(np.float32), needs="bias")["bias"]
    np.testing.assert_array_equal(np.isnan(bias), np.arange(len(bias)) == 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@OPERATORS
def test_subnormal_numbers_are_numbers(name, dtype):
    """They are neither flushed to zero on the way in nor on the way out."""
    call = small(name, dtype=dtype, bias=False, integral=True, padding=0)
    tiny = np.finfo(dtype).smallest_subnormal
    keys = [key for key in call.arrays if key not in ("offset", "mask")]
    if name == "deformable":
        call = call.put("offset", np.zeros_like(call.arrays["offset"]))
    y = call.run()
    small_x = call.map(lambda array: array * tiny, keys[:1])
    assert np.abs(y).max() < 2**20
    np.testing.assert_array_equal(small_x.run(), y * tiny)
    assert (small_x.run() != 0).any()
    found = call.backward(y * tiny, needs="x")["x"]
    np.testing.assert_array_equal(found, call.backward(y, needs="x")["x"] * tiny)


def test_subnormal_numbers_of_16_bits():
    x = np.arange(1, 1024, dtype=np.uint16).view(np.float16).reshape(1, 1, -1)
    y = pyconv.conv(x, np.ones((1, 1, 1), np.float16))
    assert calls.same_bits(y, x)
    every = np.arange(2**16, dtype=np.uint16)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        x = every.view(dtype).reshape(1, 1, -1)
        one = np.ones((1, 1, 1), dtype)
        for y in (pyconv.conv(x, one), pyconv.conv(np.repeat(x, 9, 1), np.ones((9, 9, 1), dtype)
                                                  * np.eye(9, dtype=dtype)[..., None])[:, 4:5]):
            finite = np.isfinite(x.astype(np.float32))
            np.testing.assert_array_equal(
                y.astype(np.float32)[finite], x.astype(np.float32)[finite]
            )
            if y.shape[1] == 1 and y is not None:
                nan = np.isnan(x.astype(np.float32))
                assert np.isnan(y.astype(np.float32)[nan]).all()


def test_zeros_have_no_effect_on_zeros():
    """A sum starts at +0, so that -0 needs every term to be -0 and is never a surprise."""
    x = np.full((1, 1, 5), -0.0)
    y = pyconv.conv(x, np.ones((1, 1, 3)), padding=1)
    np.testing.assert_array_equal(y, np.zeros((1, 1, 5)))


@OPERATORS
def test_the_largest_numbers(name):
    """No overflow that the definition does not have, and infinities where it has."""
    top = float(np.finfo(np.float32).max)
    call = small(name, padding=0, bias=False)
    zero = call.map(np.zeros_like)
    x = np.zeros_like(call.arrays["x"])
    x[0, 0, 4, 7] = top
    first = [key for key in call.arrays if key not in ("x", "bias", "offset", "mask")]
    one = zero.put("x", x).map(np.ones_like, [*first, "mask"])
    y = one.run()
    assert y.max() == top
    assert set(np.unique(y)) == {0.0, np.float32(top)}
    double = one.put("x", np.full_like(x, top))
    if name != "pointwise" or x.shape[1] > 1:
        assert np.isinf(double.run()).any()
