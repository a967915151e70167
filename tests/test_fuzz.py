"""Calls with anything drawn about them: arrays anywhere in memory, and arguments of any value.

Other tests go through what is known to be delicate, one thing at a time; here several things are
odd at once, as `hypothesis` draws them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from . import calls

OPERATORS = pytest.mark.parametrize("name", calls.OPERATORS)
SENTINEL = -77  # exact in every dtype
MANY = 10**6  # elements in a call that takes a moment
TOO_MANY = 2**50  # elements that no memory can be asked for, whatever the system grants


def bits(array):
    """What two arrays with the same values have in common, a NaN's sign and payload too."""
    return np.ascontiguousarray(array).tobytes()


# --- arrays anywhere in memory ------------------------------------------------------------------


@st.composite
def places(draw, shape, dtype):
    """An array with any order of axes, gaps between its elements, directions, and odd addresses."""
    order = draw(st.permutations(range(len(shape))))
    steps = draw(st.tuples(*[st.sampled_from([1, 1, 2, -1, -3])] * len(shape)))
    shift = draw(st.sampled_from([0, 0, 1, 3]))
    extents = [abs(steps[axis]) * shape[axis] for axis in order]
    buffer = np.full(math.prod(extents) * dtype.itemsize + shift, 0x7F, np.uint8)
    whole = buffer[shift:].view(dtype).reshape(extents).transpose(np.argsort(order))
    return whole[tuple(slice(None, None, step) for step in steps)]


@st.composite
def anywhere(draw, array):
    """A copy at any place and in any byte order, repeated values by a stride of 0, read-only."""
    dtype = array.dtype.newbyteorder() if draw(st.booleans()) else array.dtype
    moved = draw(places(array.shape, dtype))
    moved[...] = array
    for axis in range(array.ndim):
        first = moved[(slice(None),) * axis + (slice(0, 1),)]
        if moved.shape[axis] > 1 and bits(np.broadcast_to(first, moved.shape)) == bits(moved):
            moved = np.broadcast_to(first, moved.shape)
    if draw(st.booleans()):
        moved.flags.writeable = False
    return moved


@OPERATORS
@given(data=st.data())
@calls.examples(60)
def test_memory_makes_no_difference(name, data):
    """Neither to a call, its gradients or its plan, in one bit; and the arguments stay as given."""
    call = data.draw(calls.calls(name))
    repeated = data.draw(st.sampled_from([key for key, a in call.arrays.items() if a is not None]))
    call = call.map(lambda a: np.full_like(a, a.flat[0]) if a.size else a, [repeated])
    op, (args, keywords) = call.operator, call.arguments()
    expected = op(*args, **keywords)
    grad = np.random.default_rng(0).integers(-3, 4, expected.shape).astype(expected.dtype)
    gradients = op.backward(grad, *args, **keywords)

    moved = call.map(lambda a: data.draw(anywhere(a)))
    before = [bits(a) for a in moved.arguments()[0] if a is not None]
    odd_args, odd_keywords = moved.arguments()
    out = data.draw(places(expected.shape, expected.dtype))
    assert op(*odd_args, **odd_keywords, out=out) is out
    assert bits(out) == bits(expected)
    found = op.backward(data.draw(anywhere(grad)), *odd_args, **odd_keywords)
    assert found.keys() == gradients.keys()
    for key, gradient in found.items():
        pairs = [(gradient, gradients[key])]
        if isinstance(gradient, tuple):
            pairs = zip(gradient, gradients[key], strict=True)
        assert all(bits(got) == bits(wanted) for got, wanted in pairs), key
    fixed, keywords = moved.arguments(skip=op.per_call)
    plan = op.plan(call.arrays["x"].shape, *fixed, **keywords)
    assert bits(plan(*[moved.arrays[key] for key in op.per_call])) == bits(expected)
    assert [bits(a) for a in odd_args if a is not None] == before


# --- arguments of any value ---------------------------------------------------------------------

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([2**20, 2**31 - 1, 2**31, -(2**31), 2**63, 10**30, -(10**30)]),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(["same", "valid", "same_lower", "full", "causal", "reflect", "channels_last"]),
    st.sampled_from(["auto", "direct", "winograd", "fft", "col2im", "subsample"]),
    st.sampled_from(["phase", "zero_insertion"]),
    st.sampled_from([np.int8(1), np.uint64(2), np.float32(1), np.ones(2, int), np.ones(())]),
)
ARGUMENTS = st.recursive(
    ANYTHING, lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner), max_leaves=6
)
PARAMETERS = (
    "stride", "padding", "dilation", "groups", "padding_mode", "layout", "flip", "algorithm",
    "max_workspace", "threads", "output_padding", "output_size", "bias", "x", "kernel_size",
)  # fmt: skip


@st.composite
def bent(draw, array):
    """Something else in the place of an array: of another shape, dtype or kind."""
    if array is None:
        return draw(st.one_of(st.just(np.ones(2, np.float32)), ARGUMENTS))
    if isinstance(array, tuple):
        items = [draw(bent(item)) if draw(st.booleans()) else item for item in array]
        return tuple(draw(st.permutations(items))[: draw(st.integers(0, len(items)))])
    kind = draw(st.sampled_from(["axis", "extent", "dtype", "kind", "order"]))
    axis = draw(st.integers(0, max(array.ndim - 1, 0)))
    if kind == "axis":
        return array[np.newaxis] if draw(st.booleans()) or not array.ndim else array[0:1][0]
    if kind == "extent" and array.ndim:
        extent = draw(st.sampled_from([0, 1, 2, array.shape[axis] + 1, TOO_MANY]))
        first = array[(slice(None),) * axis + (slice(0, 1),)]
        shape = (*array.shape[:axis], extent, *array.shape[axis + 1 :])
        return np.broadcast_to(first, shape) if first.size else np.zeros(shape, array.dtype)
    if kind == "dtype":
        dtype = draw(st.sampled_from(["f8", "f4", "f2", "i4", "?", "c8", "O", ">f4"]))
        with np.errstate(invalid="ignore", over="ignore"):  # infinity as an integer
            return array.astype(dtype)
    if kind == "order":
        return array.transpose(draw(st.permutations(range(array.ndim))))
    return draw(st.one_of(st.just(array.tolist()), ARGUMENTS))


@OPERATORS
@given(data=st.data())
@calls.examples(250)
def test_any_arguments(name, data):
    """End in the result that the shapes promise, or in an error that says what is wrong."""
    call = data.draw(calls.calls(name))
    params = dict(call.params)
    changes = data.draw(st.sets(st.sampled_from(PARAMETERS), max_size=2))
    params.update({key: data.draw(ARGUMENTS) for key in sorted(changes)})
    arrays = dict(call.arrays)
    for key in sorted(data.draw(st.sets(st.sampled_from(list(arrays)), max_size=2))):
        arrays[key] = data.draw(bent(arrays[key]))
    op = call.operator
    args, keywords = replace(call, arrays=arrays).arguments()
    keywords = {**keywords, **params}

    shapes = [getattr(a, "shape", a) for a in args]
    asked = {k: getattr(v, "shape", v) if k == "bias" else v for k, v in keywords.items()}
    shape = outcome(name, lambda: op.output_shape(*shapes, **asked))
    if shape is not None and math.prod(shape) < TOO_MANY // 8:
        # Legal, but possibly work for days: a weight of 2**50 taps, all the same, is an array too.
        assume(max(math.prod(shape), *map(_size, args)) <= MANY)

    out = np.full(shape or (1,), SENTINEL, call.dtype) if _fits(shape) else None
    result = outcome(name, lambda: op(*args, **keywords, out=out))
    if result is None:
        assert out is None or (out == SENTINEL).all(), "written to, then refused"
    else:
        assert result is out
        assert result.shape == shape
        again = op(*args, **{**keywords, "threads": 3})
        assert bits(again) == bits(result)
        reference = outcome(name, lambda: op.reference(*args, **keywords))  # memory may not suffice
        assert reference is None or reference.shape == shape
    grad = np.ones(shape or (1,), call.dtype) if _fits(shape) else SENTINEL
    gradients = outcome(name, lambda: op.backward(grad, *args, **keywords))
    assert result is None or gradients is not None
    for key, gradient in (gradients or {}).items():
        shapes = [a.shape for a in gradient] if isinstance(gradient, tuple) else gradient.shape
        given = arrays[key]
        assert shapes == ([a.shape for a in given] if isinstance(given, tuple) else given.shape), (
            key
        )


def _fits(shape):
    return shape is not None and math.prod(shape) <= MANY


def _size(argument):
    """The elements of an array, of the largest of a tuple of arrays, of anything else none."""
    if isinstance(argument, (tuple, list)):
        return max(map(_size, argument), default=0)
    return getattr(argument, "size", 0)


def outcome(name, function):
    """The result of a call, or None if it is refused as it should be."""
    try:
        return function()
    except MemoryError as error:
        assert str(error).startswith(f"{name}: "), error
    except (ValueError, TypeError) as error:
        text = str(error)
        assert type(error) in (ValueError, TypeError)
        assert text.startswith(f"{name}: "), text
        assert len(text) < 700
        assert "\n" not in text
    return None
