"""Arguments of any value end in a ValueError or TypeError that names operator and argument."""

from __future__ import annotations

import contextlib
import functools

import ml_dtypes
import numpy as np
import pytest

import pyconv

from . import calls

SENTINEL = -77.25

# The arrays' shapes and the parameters of one valid call of each operator, none of them trivial.
VALID = {
    "standard": ({"x": (2, 4, 7, 6), "weight": (6, 2, 3, 2), "bias": (6,)}, {"groups": 2}),
    "pointwise": ({"x": (2, 4, 7, 6), "weight": (6, 2, 1, 1), "bias": (6,)}, {"groups": 2}),
    "grouped": ({"x": (2, 4, 7, 6), "weight": (6, 2, 3, 2), "bias": (6,)}, {"groups": 2}),
    "depthwise": ({"x": (2, 3, 7, 6), "weight": (6, 1, 3, 2), "bias": (6,)}, {}),
    "depthwise_separable": (
        {"x": (2, 3, 7, 6), "depthwise": (6, 1, 3, 2), "pointwise": (5, 6), "bias": (5,)},
        {},
    ),
    "spatially_separable": (
        {"x": (2, 4, 7, 6), "axis_weights": ((6, 2, 3, 1), (4, 3, 1, 2)), "bias": (4,)},
        {"groups": 2},
    ),
    "dilated": ({"x": (2, 4, 7, 6), "weight": (6, 4, 3, 2), "bias": (6,)}, {"dilation": 2}),
    "transposed": (
        {"x": (2, 4, 7, 6), "weight": (4, 3, 3, 2), "bias": (6,)},
        {"groups": 2, "stride": 2},
    ),
    "deformable": (
        {
            "x": (2, 4, 7, 6),
            "offset": (2, 24, 5, 5),
            "weight": (5, 4, 3, 2),
            "bias": (5,),
            "mask": (2, 12, 5, 5),
        },
        {},
    ),
}
OPERATORS = pytest.mark.parametrize("name", calls.OPERATORS)


class Raises:
    """An object whose every use fails."""

    def __index__(self):
        raise RuntimeError("no index")

    def __len__(self):
        raise RuntimeError("no length")

    def __iter__(self):
        raise RuntimeError("no items")

    def __repr__(self):
        raise RuntimeError("no repr")


class RaisesFromHash(Raises):
    """The same, as a key of a dict too."""

    def __hash__(self):
        raise RuntimeError("no hash")


class RaisesFromEq(Raises):
    """The same, where a dict compares it with another key."""

    def __hash__(self):
        return 1

    def __eq__(self, other):
        raise RuntimeError("no comparison")


class Endless:
    """An iterable that would take for ever, and all of the memory."""

    def __iter__(self):
        yield from (1 for _ in range(10**5))
        raise KeyboardInterrupt("was going to iterate for ever")


def make(shape, dtype=np.float32):
    return np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype(dtype)


def valid(name):
    """The operator, and its arrays and parameters as a dict each."""
    shapes, params = VALID[name]
    arrays = {
        key: tuple(map(make, shape)) if key == "axis_weights" else make(shape)
        for key, shape in shapes.items()
    }
    return pyconv.get(name), arrays, dict(params)


def split(arrays):
    """Positional and keyword arguments for arrays by name."""
    args, kwargs = [], {}
    for key, value in arrays.items():
        if key == "axis_weights":
            args += value
        elif key == "bias" and "axis_weights" in arrays:
            kwargs[key] = value
        else:
            args.append(value)
    return args, kwargs


def forward(op, arrays, params):
    args, kwargs = split(arrays)
    return op(*args, **kwargs, **params)


def result_shape(name):
    op, arrays, params = valid(name)
    args, kwargs = split({k: _shapes(v) for k, v in arrays.items()})
    return op.output_shape(*args, **kwargs, **params)


def _shapes(value):
    return tuple(v.shape for v in value) if isinstance(value, tuple) else value.shape


def refused(function, name, *words, kinds=(TypeError, ValueError)):
    """``function()`` raises one of ``kinds``, naming the operator and one of the words."""
    try:
        result = function()
    except kinds as error:
        text = str(error)
        assert type(error) in (TypeError, ValueError), repr(error)
        assert text.startswith(f"{name}: "), text
        assert any(word in text for word in words), f"{words} not in: {text}"
        assert len(text) < 700, text
        assert "\n" not in text
        return error
    raise AssertionError(f"accepted, and gave {type(result).__name__}")


def everywhere(name, arrays, params, *words):
    """A call, a plan, a gradient and the reference refuse it alike; ``out`` stays as it was."""
    op = pyconv.get(name)
    shape = result_shape(name)
    out = np.full(shape, SENTINEL, np.float32)
    problems = []
    args, kwargs = split(arrays)
    later = [key for key in arrays if key in op.per_call]
    fixed, fixed_kw = split({k: v for k, v in arrays.items() if k not in later})
    x_shape = getattr(arrays["x"], "shape", VALID[name][0]["x"])
    ways = {
        "call": lambda: op(*args, **kwargs, **{"out": out, **params}),
        "backward": lambda: op.backward(make(shape), *args, **kwargs, **params),
        "plan": lambda: op.plan(x_shape, *fixed, **fixed_kw, **params)(
            *[arrays[key] for key in later]
        ),
    }
    for way, function in ways.items():
        try:
            refused(function, name, *words)
        except Exception as error:
            problems.append(f"{way}: {type(error).__name__}: {error}")
    if not (out == SENTINEL).all():
        problems.append("call: out was written to")
    return problems


def test_valid_calls_are_valid():
    for name in calls.OPERATORS:
        op, arrays, params = valid(name)
        y = forward(op, arrays, params)
        assert y.shape == result_shape(name)


# --- parameters ---------------------------------------------------------------------------------

JUNK = (None, "1", b"1", 1.0, np.float64(1), True, np.bool_(True), float("nan"), 1j, object, {})
NESTED = ([[1]], (1, (1, 1)), (1, None), (1, 1.0), (1, True), ("1", "1"), [], (1, 1, 1), {1, 2})
HUGE = (10**30, -(10**30), 2**31, 2**63, 2**64, (1, 10**30), 10**5000)
ARRAYS = (np.ones(2), np.ones((2, 2, 2), int), np.array([True, True]), np.array(1.0))
# Too deep to be compared, hashed or shown by a recursive function.
DEEP = functools.reduce(lambda inner, _: (inner,), range(100_000), 1)
POSITIVE = (
    JUNK + NESTED + HUGE + ARRAYS + (0, -1, (1, 0), (1, -1), np.array([1, 0]), DEEP, Raises())
)
#: What is no name.
NAMELESS = (None, 1, True, b"zeros", ["zeros"], ("auto", "direct"), np.array(["zeros", "auto"]))
NAMELESS += (np.zeros(2), np.array("same"), DEEP, Raises(), str)

PARAMETERS = {
    "stride": POSITIVE,
    "dilation": POSITIVE,
    "groups": (*JUNK, *HUGE, 0, -1, 3, 5, 100, (2,), [2], np.ones(2, int), Raises()),
    "padding": (
        *(value for value in JUNK if not isinstance(value, bytes)),
        b"same",
        *NESTED,
        *HUGE,
        *ARRAYS,
        "SAME",
        "",
        "causal",
        "valid ",
        ((1, 1),),
        ((1, 1), (1, 1), (1, 1)),
        (1, 1, 1, 1),
        ((1, 1), (1, 1.0)),
        ((1, 1), (1, 10**30)),
        ((1, 1), "same"),
        DEEP,
        (DEEP, DEEP),
        -(2**31),
        Raises(),
    ),
    "padding_mode": (*NAMELESS, "constant", "", "Zeros", "zeros\0", "\ud800", "z" * 10**6),
    "layout": (*NAMELESS, "NCHW", "", "channels first"),
    "flip": (None, 0, 1, 1.0, "yes", [True], np.array([True]), np.array(True), DEEP, Raises()),
    "algorithm": (*NAMELESS, "fast", "", "Direct"),
    "max_workspace": (*(v for v in JUNK if v is not None), *HUGE[:2], 0, -1, [1], (1,), Raises()),
    "threads": (*(v for v in JUNK if v is not None), *HUGE, 0, -1, [1], (1,), DEEP, Raises()),
    "output_padding": (*JUNK, *NESTED, *HUGE, *ARRAYS, -1, 2, (0, 2), (2, 0), (0, -1), Raises()),
    "output_size": (
        *(value for value in POSITIVE if value is not None),
        1,
        14,
        17,
        (15, 16),
        (15, 14, 1),
    ),
}


@OPERATORS
@pytest.mark.parametrize("parameter", PARAMETERS)
def test_parameters(name, parameter):
    op, arrays, params = valid(name)
    forward(op, arrays, params)  # a remembered call must not let equal values of other types pass
    if parameter not in op.signature.parameters:
        refused(lambda: forward(op, arrays, {**params, parameter: 1}), name, parameter)
        return
    for good in (1, 2):
        with contextlib.suppress(TypeError, ValueError):
            forward(op, arrays, {**params, parameter: good})
    problems = []
    for value in PARAMETERS[parameter]:
        words = {
            "groups": ("groups", "x must", "axis_weights", "weight"),
            "padding": ("padding", "output axis", "axis"),
            "stride": ("stride", "output axis"),
            "dilation": ("dilation", "output axis"),
            "output_padding": ("output_padding",),
            "output_size": ("output_size",),
        }.get(parameter, (parameter,))
        found = everywhere(name, arrays, {**params, parameter: value}, *words)
        shown = "Raises()" if isinstance(value, Raises) else pyconv.checks.shown(value)
        problems += [f"{parameter}={shown}: {problem}" for problem in found]
    assert not problems, "\n".join(problems)


@OPERATORS
@pytest.mark.parametrize("hostile", [RaisesFromHash, RaisesFromEq])
def test_objects_that_raise_even_as_a_key(name, hostile):
    op, arrays, params = valid(name)
    for parameter in sorted(set(PARAMETERS) & set(op.signature.parameters)):
        for _ in range(2):  # the second is compared with what is remembered of the first
            call = {**params, parameter: hostile()}
            refused(lambda call=call: forward(op, arrays, call), name, parameter, kinds=TypeError)


@OPERATORS
def test_message_shows_the_value(name):
    op, arrays, params = valid(name)
    for parameter in sorted(set(PARAMETERS) & set(op.signature.parameters)):
        for value in (1.5, "nothing of the kind", -(10**30), b"bytes", 1j):
            if parameter == "padding" and value == -(10**30):
                continue
            call = {**params, parameter: value}
            error = refused(lambda call=call: forward(op, arrays, call), name, parameter)
            assert repr(value) in str(error), error
            assert " must " in str(error), error
            assert "; got " in str(error), error


@OPERATORS
def test_shape_questions(name):
    """output_shape and cost refuse what a call refuses."""
    op, arrays, params = valid(name)
    args, kwargs = split({key: _shapes(value) for key, value in arrays.items()})
    problems = []
    for ask in (op.output_shape, op.cost):
        for parameter, values in PARAMETERS.items():
            if parameter not in op.signature.parameters or parameter in (
                "max_workspace",
                "threads",
            ):
                continue
            for value in values:
                try:
                    refused(lambda: ask(*args, **kwargs, **{**params, parameter: value}), name, "")
                except Exception as error:
                    problems.append(f"{ask.__name__} {parameter}: {type(error).__name__}: {error}")
        bad = (None, "abc", 3, 1.5, (1, -1, 3, 3), (1, "a"), (1.0,) * 4, (10**30,) * 4, (True,) * 4)
        long = (1,) * 10_000
        for value in (*bad, ((1, 2),) * 4, object(), [None] * 4, long, Endless(), Raises()):
            try:
                refused(lambda: ask(value, *args[1:], **kwargs, **params), name, "x")
            except Exception as error:
                shown = "Raises()" if isinstance(value, Raises) else repr(value)
                problems.append(f"{ask.__name__} x={shown}: {type(error).__name__}: {error}")
        try:
            refused(lambda: ask(*args, (1,), (1,), **kwargs, **params, wrong=1), name, "")
        except Exception as error:
            problems.append(f"{ask.__name__} too many: {type(error).__name__}: {error}")
    assert not problems, "\n".join(problems)


# --- arrays -------------------------------------------------------------------------------------


class Attributes:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Refuses:
    @property
    def __array_interface__(self):
        raise RuntimeError("no")


def junk_arrays(good):
    """Values that cannot stand for ``good``."""
    yield from ("array", b"array", 1, 1.5, True, {}, object(), type, np.ndarray, good.tolist())
    yield from (np.float32(1), np.ma.masked_array(good), Refuses(), range(3), [good], (good,))
    yield Attributes(__array_interface__={"shape": (1,)})
    yield Attributes(__array_interface__=None)
    yield Attributes(__dlpack__=1, __dlpack_device__=2)
    yield Attributes(__dlpack__=lambda **_: None, __dlpack_device__=lambda: (1, 0))
    yield Attributes(__dlpack__=lambda **_: None, __dlpack_device__=lambda: (2, 0))
    for dtype in ("i4", "u1", "?", "c8", "c16", "O", "S4", "U4", "M8[s]", "g", "f4,f4", "V4", "f8"):
        yield np.zeros(good.shape, dtype)
    yield good.astype(np.float16)
    yield good.astype(ml_dtypes.bfloat16)
    yield good.astype(ml_dtypes.float8_e4m3fn)


def junk_shapes(shape):
    """Shapes that differ from ``shape`` in a way no other argument makes up for."""
    yield ()
    yield (1,) * 7
    yield (*shape, 2, 1)
    yield (0,) * len(shape)
    yield tuple(n + 1 for n in shape)
    for axis, size in enumerate(shape):
        yield (*shape[:axis], size + 13, *shape[axis + 1 :])


#: Axes of arrays that may have any extent.
FREE_AXES = {
    ("x", 0), ("x", 2), ("x", 3), ("weight", 2), ("weight", 3), ("depthwise", 2), ("depthwise", 3),
    ("pointwise", 0),
}  # fmt: skip


@OPERATORS
def test_arrays(name):
    op, arrays, params = valid(name)
    problems = []
    for key, value in arrays.items():
        parts = value if isinstance(value, tuple) else (value,)
        for i, part in enumerate(parts):
            for junk in (None, *junk_arrays(part)):
                if junk is None and key in op.optional:
                    continue
                new = (*parts[:i], junk, *parts[i + 1 :]) if isinstance(value, tuple) else junk
                found = everywhere(name, {**arrays, key: new}, params, key)
                shown = pyconv.checks.shown(junk)
                problems += [f"{key}={shown}: {problem}" for problem in found]
    assert not problems, "\n".join(problems)


@OPERATORS
def test_array_shapes(name):
    """Shapes that fit no call. The message may name another array: either may be the wrong one."""
    _, arrays, params = valid(name)
    problems = []
    for key, value in arrays.items():
        parts = value if isinstance(value, tuple) else (value,)
        for i, part in enumerate(parts):
            for shape in junk_shapes(part.shape):
                changed = [a for a, n in enumerate(part.shape) if shape[a : a + 1] != (n,)]
                if len(shape) == part.ndim and len(changed) == 1:
                    free = (key, changed[0]) in FREE_AXES and name != "deformable"
                    if free or (key == "axis_weights"):
                        continue
                junk = np.zeros(shape, np.float32)
                new = (*parts[:i], junk, *parts[i + 1 :]) if isinstance(value, tuple) else junk
                words = [*arrays, "out", "groups", "axis"]
                found = everywhere(name, {**arrays, key: new}, params, *words)
                problems += [f"{key}={shape}: {problem}" for problem in found]
    assert not problems, "\n".join(problems)


@OPERATORS
def test_missing_and_surplus_arguments(name):
    op, arrays, params = valid(name)
    args, kwargs = split(arrays)
    required = [key for key in arrays if key not in op.optional]
    for key in required:
        if key == "axis_weights":
            continue
        rest = {k: v for k, v in arrays.items() if k != key}
        if "axis_weights" not in arrays:
            refused(lambda: op(**rest, **params), name, key, kinds=TypeError)
            refused(lambda: op.backward(make((1,)), **rest, **params), name, key, kinds=TypeError)
            refused(lambda: op.reference(**rest, **params), name, key, kinds=TypeError)
    refused(lambda: op(), name, "x", kinds=TypeError)
    refused(lambda: op(args[0]), name, required[1], kinds=TypeError)
    refused(lambda: op(*args, x=args[0], **kwargs, **params), name, "x", kinds=TypeError)
    refused(lambda: op(*args, **kwargs, **params, strides=2), name, "strides", kinds=TypeError)
    refused(lambda: op(*args, **kwargs, **params, axis_weights=1), name, "axis_weights")
    if "axis_weights" in arrays:
        refused(lambda: op(args[0], bias=kwargs["bias"]), name, "axis_weights")
        refused(lambda: op(*args, args[-1], **kwargs, **params), name, "axis_weights")
    else:
        refused(lambda: op(*args, args[0], **params), name, "arrays", kinds=TypeError)
    for required_parameter in ("groups", "dilation"):
        if {"groups": "grouped", "dilation": "dilated"}[required_parameter] == name:
            refused(lambda: op(*args), name, required_parameter, kinds=TypeError)


# --- out ----------------------------------------------------------------------------------------


def bad_outs(shape, arrays):
    """Pairs of an ``out`` and the word that the message has."""
    yield "out", "shape"
    yield 1, "out"
    yield [0.0], "out"
    yield True, "out"
    good = np.full(shape, SENTINEL, np.float32)
    yield good.tolist(), "out"
    yield np.ma.masked_array(good), "out"
    yield good.view(type("Sub", (np.ndarray,), {})), "out"
    yield memoryview(good), "out"
    for dtype in (np.float64, np.float16, np.int32, object, ">f4", ml_dtypes.bfloat16):
        yield good.astype(dtype), "dtype"
    for wrong in ((), (1,), shape[1:], (1, *shape), tuple(n + 1 for n in shape), shape[::-1]):
        yield np.full(wrong, SENTINEL, np.float32), "shape"
    frozen = good.copy()
    frozen.flags.writeable = False
    yield frozen, "writeable"
    yield np.broadcast_to(np.float32(SENTINEL), shape), "writeable"
    overlap = np.full(good.size, SENTINEL, np.float32)
    yield np.lib.stride_tricks.as_strided(overlap, shape, (4,) * len(shape)), "address"
    yield np.lib.stride_tricks.as_strided(overlap, shape, (0, *good.strides[1:])), "address"
    strides = (good.strides[0] - 4, *good.strides[1:])
    yield np.lib.stride_tricks.as_strided(overlap, shape, strides), "address"


@OPERATORS
def test_out(name):
    op, arrays, params = valid(name)
    shape = result_shape(name)
    plan_args, plan_kw = split({k: v for k, v in arrays.items() if k not in op.per_call})
    plan = op.plan(arrays["x"].shape, *plan_args, **plan_kw, **params)
    problems = []
    for out, word in bad_outs(shape, arrays):
        before = out.tobytes() if isinstance(out, np.ndarray) else None
        for way, function in {
            "call": lambda: forward(op, arrays, {**params, "out": out}),
            "plan": lambda: plan(*[arrays[key] for key in op.per_call], out=out),
            "reference": lambda: split_reference(op, arrays, {**params, "out": out}),
        }.items():
            try:
                error = refused(function, name, "out")
                assert word in str(error) or word == "shape"
            except Exception as error:
                problems.append(
                    f"{way} {pyconv.checks.shown(out)}: {type(error).__name__}: {error}"
                )
        if before is not None and out.dtype != object:
            assert out.tobytes() == before
    assert not problems, "\n".join(problems)
    args, kwargs = split(arrays)
    out = np.full(shape, SENTINEL, np.float32)
    refused(lambda: op.backward(make(shape), *args, **kwargs, **params, out=out), name, "out")
    refused(lambda: op.plan(arrays["x"].shape, *plan_args, **plan_kw, **params, out=out), name,
            "out")  # fmt: skip
    assert (out == SENTINEL).all()


def split_reference(op, arrays, params):
    args, kwargs = split(arrays)
    return op.reference(*args, **kwargs, **params)


@OPERATORS
def test_out_on_the_memory_of_an_input(name):
    """Whatever the input and wherever it lies: the first byte, the last, or in between."""
    op, arrays, params = valid(name)
    shape = result_shape(name)
    size = int(np.prod(shape))
    for key, value in arrays.items():
        parts = value if isinstance(value, tuple) else (value,)
        for i, part in enumerate(parts):
            for start in (0, part.size - 1, size - 1):
                memory = np.full(size + 2 * part.size + start, 0.5, np.float32)
                inside = memory[start : start + part.size].reshape(part.shape)
                if start == part.size - 1:
                    inside = memory[: part.size].reshape(part.shape)
                    out = memory[start : start + size].reshape(shape)
                else:
                    out = memory[:size].reshape(shape)
                inside[...] = part
                kept = memory.copy()
                new = (*parts[:i], inside, *parts[i + 1 :]) if isinstance(value, tuple) else inside
                call = {**arrays, key: new}
                refused(lambda: forward(op, call, {**params, "out": out}), name, key)
                np.testing.assert_array_equal(memory, kept)
    # Interleaved, so without a byte in common: fine.
    x = arrays["x"]
    memory = np.full((2 * max(size, x.size),), SENTINEL, np.float32)
    x2, out = memory[1::2][: x.size].reshape(x.shape), memory[::2][:size].reshape(shape)
    x2[...] = x
    assert forward(op, {**arrays, "x": x2}, {**params, "out": out}) is out
    np.testing.assert_array_equal(out, forward(op, arrays, params))
    np.testing.assert_array_equal(x2, x)


# --- backward and plan --------------------------------------------------------------------------


@OPERATORS
def test_backward(name):
    op, arrays, params = valid(name)
    args, kwargs = split(arrays)
    shape = result_shape(name)
    problems = []
    grads = [None, *junk_arrays(make(shape))]
    grads += [np.zeros(s, np.float32) for s in ((), (1,), shape[1:], (1, *shape), shape[::-1])]
    for grad in grads:
        try:
            refused(lambda: op.backward(grad, *args, **kwargs, **params), name, "grad")
        except Exception as error:
            problems.append(f"grad={pyconv.checks.shown(grad)}: {type(error).__name__}: {error}")
    for needs in (1, 1.5, "nothing", ["x", "nothing"], ["x", 1], [None], "grad", b"x", [["x"]],
                  object(), True, {"x": 1, 2: 3}, Endless(), Raises(), ["out"]):  # fmt: skip
        try:
            refused(
                lambda: op.backward(make(shape), *args, **kwargs, **params, needs=needs),
                name, "needs",
            )  # fmt: skip
        except Exception as error:
            problems.append(f"needs={type(needs).__name__}: {type(error).__name__}: {error}")
    without = {**arrays, "bias": None}
    args, kwargs = split(without)
    try:
        refused(lambda: op.backward(make(shape), *args, **kwargs, **params, needs="bias"), name,
                "needs")  # fmt: skip
    except Exception as error:
        problems.append(f"needs an absent bias: {type(error).__name__}: {error}")
    assert not problems, "\n".join(problems)
    assert op.backward(make(shape), *args, **kwargs, **params, needs=[]) == {}


@OPERATORS
def test_plan(name):
    op, arrays, params = valid(name)
    fixed = {k: v for k, v in arrays.items() if k not in op.per_call}
    later = [arrays[key] for key in op.per_call]
    args, kwargs = split(fixed)
    x_shape = arrays["x"].shape
    problems = []
    for bad in (None, 1, "abc", (), (1, 2), (1.0,) * 4, (-1, 4, 7, 6), (10**30, 4, 7, 6),
                [None] * 4,
                (True, 4, 7, 6), (2, 5, 7, 6), object(), ((2, 4), 7, 6), (1,) * 10_000, Endless(),
                Raises()):  # fmt: skip
        try:
            refused(lambda: op.plan(bad, *args, **kwargs, **params), name, "x")
        except Exception as error:
            shown = "Raises()" if isinstance(bad, Raises) else repr(bad)
            problems.append(f"x_shape={shown}: {type(error).__name__}: {error}")
    plan = op.plan(x_shape, *args, **kwargs, **params)
    out = np.full(plan.output_shape, SENTINEL, np.float32)
    for i, key in enumerate(op.per_call):
        for junk in (None, *junk_arrays(later[i]), make((1, 1, 1)), later[i][:1], later[i][0]):
            if junk is None and key in op.optional:
                continue
            given = [*later[:i], junk, *later[i + 1 :]]
            try:
                refused(lambda: plan(*given, out=out), name, key)
            except Exception as error:
                shown = pyconv.checks.shown(junk)
                problems.append(f"p({key}={shown}): {type(error).__name__}: {error}")
    assert not problems, "\n".join(problems)
    refused(lambda: plan(*later, later[0]), name, "takes", kinds=TypeError)
    refused(lambda: plan(), name, "x", kinds=TypeError)
    refused(lambda: plan(*later, x=later[0]), name, "x", kinds=TypeError)
    refused(lambda: plan(*later, stride=1), name, "stride", kinds=TypeError)
    refused(lambda: op.plan(x_shape, *args, **kwargs, **params, x=later[0]), name, "x")
    refused(lambda: op.plan(x_shape, **params), name, "given", "fix", kinds=TypeError)
    assert (out == SENTINEL).all()
    with pytest.raises(AttributeError):
        plan.workspace_bytes = 1
    with pytest.raises(AttributeError):
        plan.anything = 1


@OPERATORS
def test_reference(name):
    op, arrays, params = valid(name)
    args, kwargs = split(arrays)
    problems = []
    for parameter, values in PARAMETERS.items():
        if parameter not in op.signature.parameters or parameter in ("max_workspace", "threads"):
            continue
        for value in values:
            try:
                refused(lambda: split_reference(op, arrays, {**params, parameter: value}), name, "")
            except Exception as error:
                problems.append(f"{parameter}: {type(error).__name__}: {error}")
    for i, junk in enumerate(("abc", object(), [[1, 2], [3]], 5, {}, Raises())):
        try:
            refused(lambda: op.reference(junk, *args[1:], **kwargs, **params), name, "x")
        except Exception as error:
            problems.append(f"x=junk {i}: {type(error).__name__}: {error}")
    for dtype in ("S1", "U1", "O", "M8[s]", "f4,f4", "V4"):  # the reference takes any numbers
        junk = np.zeros(VALID[name][0]["x"], dtype)
        if dtype == "O":
            junk[...] = object()
        try:
            refused(lambda: op.reference(junk, *args[1:], **kwargs, **params), name, "x")
        except Exception as error:
            problems.append(f"x of dtype {dtype}: {type(error).__name__}: {error}")
    assert not problems, "\n".join(problems)


# --- sizes --------------------------------------------------------------------------------------


@OPERATORS
def test_an_empty_output_axis_shows_the_formula(name):
    if name == "pointwise":
        return
    op, arrays, params = valid(name)
    small = {"x": make((2, arrays["x"].shape[1], 1, 1))}
    if name == "transposed":
        params = {**params, "padding": 9}
        small = {}
    error = refused(lambda: forward(op, {**arrays, **small}, params), name, "output axis",
                    kinds=ValueError)  # fmt: skip
    assert "floor" in str(error) or name == "transposed"
    assert "= -" in str(error) or "= 0" in str(error)


@OPERATORS
def test_results_too_large_for_an_index(name):
    """Extents are legal one by one, but not their product."""
    op, arrays, params = valid(name)
    args, kwargs = split({k: v for k, v in arrays.items() if k not in op.per_call})
    if name == "transposed":
        call = {**params, "stride": 2**31 - 1}
    else:
        call = {**params, "padding": 2**31 - 1}
    large = (2**31 - 1) // 2
    huge = {
        "plan": lambda: op.plan(arrays["x"].shape, *args, **kwargs, **call),
        "plan of a large x": lambda: op.plan(
            (2, arrays["x"].shape[1], 2**40, 2**40), *args, **kwargs, **params
        ),
        "plan of a large batch": lambda: op.plan(
            (2**61, *arrays["x"].shape[1:]), *args, **kwargs, **params
        ),
    }
    if name == "deformable":  # its offset has the extents of the result
        x = np.broadcast_to(np.float32(0), (1, 1, large, large))
        offset = np.broadcast_to(np.float32(0), (1, 2, large, large))
        weight = np.broadcast_to(np.float32(0), (8, 1, 1, 1))
        huge["call"] = lambda: op(x, offset, weight)
    else:
        huge["call"] = lambda: forward(op, arrays, call)
    problems = []
    for way, function in huge.items():
        try:
            function()
        except (MemoryError, ValueError) as error:
            if not str(error).startswith(f"{name}: "):
                problems.append(f"{way}: {error}")
        else:
            problems.append(f"{way}: accepted")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", ["standard", "depthwise", "dilated"])
def test_shapes_alone_may_be_of_any_size(name):
    """They take neither the memory nor the time of a call, and overflow nothing."""
    params = {"dilation": 1} if name == "dilated" else {}
    sides = (2**40, 2**40)
    found = pyconv.get(name).output_shape((1, 1, *sides), (1, 1, 2**39, 2**39), **params)
    assert found == (1, 1, 2**39 + 1, 2**39 + 1)


def test_phases_of_shapes_alone_are_not_listed():
    """A transposed convolution may have as many as its kernel has taps."""
    transposed = pyconv.get("transposed")
    shapes = (1, 1, 10, 10), (1, 1, 10**6, 10**6)
    assert transposed.output_shape(*shapes, stride=10**6) == (1, 1, 10**7, 10**7)
