"""Checks of ``out=``, and of what is refused and how."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv.testing._call import Array, Call, variadic
from pyconv.testing._check import check
from pyconv.testing._compare import described, fail, named, refused, require, same_bits
from pyconv.testing._suite import Suite

if TYPE_CHECKING:
    from pyconv.operator import Operator

# Values that mean nothing, or next to nothing, as most parameters.
_NONSENSE: dict[str, Any] = {
    "'nonsense'": "nonsense",
    "1.5": 1.5,
    "nan": float("nan"),
    "-2**70": -(2**70),
    "[]": [],
    "{}": {},
    "an array": np.zeros(3),
    "[[1]]": [[1]],
}

_AXES = 12  # more than an image and a kernel have together
_GUARD = 64  # elements on each side of a guarded array


class Errors(Suite):
    """Section 5: any argument ends in a documented result or in an error that names it."""

    @check("out")
    def test_out(self, op: Operator) -> None:
        """out= takes the result, every element of it, and nothing around it is written to."""

        def examine(call: Call) -> None:
            expected = call.forward()
            for kind, (out, around) in _places(expected).items():
                guards = around()
                result = call.forward(out=out)
                require(result is out, f"the call does not return {kind} out")
                same_bits(out, expected, f"{kind} out", "after the call")
                require(around() == guards, f"the call writes outside {kind} out")

        for dtype in self.dtypes(op):
            self.each(self.calls(op, dtype), examine)

    @check("out")
    def test_out_refused(self, op: Operator) -> None:
        """An out that cannot take the result is refused, and nothing is written."""

        def examine(call: Call) -> None:
            result = call.forward()
            frozen = np.zeros_like(result)
            frozen.flags.writeable = False
            wrong: dict[str, tuple[Any, Any]] = {
                "an out of another shape": (ValueError, np.zeros((*result.shape, 1), result.dtype)),
                "a read-only out": (ValueError, frozen),
                "a float64 out for float32": (TypeError, np.zeros(result.shape)),
                "a list as out": (TypeError, result.tolist()),
            }
            if result.shape[-1] > 1:
                once = np.zeros((*result.shape[:-1], 1), result.dtype)
                same = np.lib.stride_tricks.as_strided(once, result.shape, (*once.strides[:-1], 0))
                wrong["an out that overlaps itself"] = (ValueError, same)
            for what, (kinds, out) in wrong.items():
                before = np.array(out).tobytes()
                refused(what, kinds, op.name, "out", call.forward, out=out)
                require(np.array(out).tobytes() == before, f"{what} is written to")
            for label, array in call.flat().items():
                arrays, out = _overlapping(call, label, array, result)
                before = out.tobytes()
                what = f"an out that overlaps {label}"
                refused(what, ValueError, op.name, "out", call.forward, arrays, out=out)
                require(out.tobytes() == before, f"{what} is written to")

        self.each(self.calls(op, "float32"), examine)

    @check("out")
    def test_nothing_written(self, op: Operator) -> None:
        """A call that ends in an error has not written to out."""

        def examine(call: Call) -> None:
            labels = list(call.flat())
            wrong: dict[str, Callable[[Array], Any]] = {
                "of dtype int32": lambda a: a.astype(np.int32),
                f"with {_AXES} axes": _with_axes,
                "that is a list": lambda a: a.tolist(),
            }
            for what, change in wrong.items():
                for label in labels:
                    out = np.full(call.output_shape(), np.nan, call.dtype)
                    before = out.tobytes()
                    try:
                        call.forward(call.changed(change, [label]), out=out)
                    except (TypeError, ValueError):
                        require(out.tobytes() == before, f"{label} {what} is refused too late")

        self.each(self.calls(op, "float32"), examine)

    @check()
    def test_mixed_dtypes(self, op: Operator) -> None:
        """Arrays of different dtypes are a TypeError: nothing is converted silently."""

        def examine(call: Call) -> None:
            labels = list(call.flat())
            for label in labels if len(labels) > 1 else ():
                for dtype in (np.float64, np.float16):
                    arrays = call.cast(dtype, [label])
                    what = f"{label} of {np.dtype(dtype).name} among float32 arrays"
                    _refuse(call, arrays, TypeError, label, what)

        self.each(self.calls(op, "float32"), examine)

    @check()
    def test_other_dtypes(self, op: Operator) -> None:
        """Integers, complex numbers and the rest are a TypeError."""

        def examine(call: Call) -> None:
            for dtype in ("int32", "bool", "complex64", "longdouble", "object", "U3"):
                if np.dtype(dtype) == np.float64:
                    continue
                arrays = call.cast(dtype)
                _refuse(call, arrays, TypeError, list(call.flat()), f"arrays of {dtype}")

        self.each(self.calls(op, "float32"), examine)

    @check()
    def test_wrong_rank(self, op: Operator) -> None:
        """An array with too many axes, or none, is refused, and the error names an array."""

        def examine(call: Call) -> None:
            names = [*call.flat(), *op.array_names]
            for label in call.flat():
                for what, change in ((f"{_AXES} axes", _with_axes), ("no axis", _without_axes)):
                    arrays = call.changed(change, [label])
                    _refuse(call, arrays, ValueError, names, f"{label} with {what}")

        self.each(self.calls(op, "float32"), examine)

    @check()
    def test_same_message(self, op: Operator) -> None:
        """What is wrong with a shape reads the same from the call and from output_shape."""

        def examine(call: Call) -> None:
            wrong = call.with_arrays(call.changed(_with_axes, ["x"]))
            attempts: dict[str, Callable[[], object]] = {
                "the call": wrong.forward,
                "output_shape": wrong.output_shape,
                "cost": wrong.cost,
            }
            if self.has(op, "backward"):
                attempts["backward"] = lambda: wrong.backward(grad=call.grad)
            names = [*call.flat(), *op.array_names]
            texts = {
                who: refused(f"{who} with {_AXES} axes of x", ValueError, op.name, names, attempt)
                for who, attempt in attempts.items()
            }
            first = texts["the call"]
            for who, text in texts.items():
                require(text == first, f"the call says {first!r}, {who} says {text!r}")

        self.each(self.calls(op, "float32"), examine)

    @check()
    def test_missing(self, op: Operator) -> None:
        """An array, or a parameter without default, that is not given is a TypeError by name."""

        def examine(call: Call) -> None:
            for name in op.array_names:
                if name in op.optional:
                    continue
                none: Any = () if name == variadic(op) else None
                arrays = {**call.copies(), name: none}
                _refuse(call, arrays, TypeError, name, f"a call without {name}")
            for name in call.params:
                if op.signature.parameters[name].default is Parameter.empty:
                    fewer = call.reshaped({})
                    del fewer.params[name]
                    refused(f"a call without {name}", TypeError, op.name, name, fewer.forward)

        self.each(self.calls(op, "float32"), examine)

    @check()
    def test_unknown_keyword(self, op: Operator) -> None:
        """A keyword that does not exist is a TypeError with its name, not ignored."""

        def examine(call: Call) -> None:
            for who, make in _who(self, call).items():
                what, name = f"{who} with nonsense_keyword=1", "nonsense_keyword"
                refused(what, TypeError, op.name, name, make, nonsense_keyword=1)

        self.each(self.calls(op, "float32")[:1], examine)

    @check("layout")
    def test_bad_layout(self, op: Operator) -> None:
        """A layout that does not exist is a ValueError."""
        self._refuse_choice(op, "layout")

    @check("algorithm")
    def test_bad_algorithm(self, op: Operator) -> None:
        """An algorithm that does not exist is a ValueError that lists those that do."""
        text = self._refuse_choice(op, "algorithm")
        missing = [name for name in op.algorithms if not named(name, text)]
        require(not missing, f"the error does not list {', '.join(missing)}: {text!r}")

    def _refuse_choice(self, op: Operator, name: str) -> str:
        texts = []

        def examine(call: Call) -> None:
            for who, make in _who(self, call).items():
                for value, kind in (("nonsense", ValueError), (3, TypeError)):
                    what = f"{who} with {name}={value!r}"
                    texts.append(refused(what, kind, op.name, name, make, **{name: value}))

        self.each(self.calls(op, "float32")[:1], examine)
        return texts[0]

    @check()
    def test_nonsense(self, op: Operator) -> None:
        """Any value of any parameter ends in a result, or in an error that names it."""

        def examine(call: Call) -> None:
            for name, parameter in op.signature.parameters.items():
                if name in op.array_names or parameter.kind is Parameter.VAR_KEYWORD:
                    continue
                refused(
                    f"an object() as {name}", (TypeError, ValueError), op.name, name,
                    call.forward, **{name: object()},
                )  # fmt: skip
                for what, value in _NONSENSE.items():
                    try:
                        call.forward(**{name: value})
                    except (TypeError, ValueError) as error:
                        text = str(error)
                        require(
                            named(op.name, text) and named(name, text),
                            f"{name}={what}: the error does not name both {op.name} and {name}: "
                            f"{text!r}",
                        )
                    except Exception as error:
                        fail(f"{name}={what} raises {described(error)}", error)

        self.each(self.calls(op, "float32")[:2], examine)


def _who(suite: Suite, call: Call) -> dict[str, Callable[..., object]]:
    """What takes the parameters of a call."""
    who: dict[str, Callable[..., object]] = {
        "the call": call.forward,
        "output_shape": call.output_shape,
        "cost": call.cost,
    }
    if suite.has(call.op, "backward"):
        who["backward"] = call.backward
    if suite.has(call.op, "plan"):
        who["plan"] = call.plan
    return who


def _refuse(call: Call, arrays: Any, kinds: Any, names: Any, what: str) -> None:
    __tracebackhide__ = True
    refused(what, kinds, call.op.name, names, call.forward, arrays)


def _with_axes(array: Array) -> Array:
    return array[(np.newaxis,) * (_AXES - array.ndim)]


def _without_axes(array: Array) -> Array:
    return np.zeros((), array.dtype)


def _places(result: Array) -> dict[str, tuple[Array, Callable[[], bytes]]]:
    """Arrays like the result and full of NaN, and what reads the bytes around each."""
    places: dict[str, tuple[Array, Callable[[], bytes]]] = {}
    guards = np.full(result.size + 2 * _GUARD, 7, result.dtype)
    inside = slice(_GUARD, _GUARD + result.size)

    outside = np.r_[0:_GUARD, _GUARD + result.size : guards.size]
    places["a contiguous"] = (
        guards[inside].reshape(result.shape),
        lambda: guards[outside].tobytes(),
    )
    wide = np.full([2 * extent + 1 for extent in result.shape], 7, result.dtype)
    gaps = np.ones(wide.shape, bool)
    every_second = (slice(1, None, 2),) * result.ndim
    gaps[every_second] = False
    places["a strided"] = (wide[every_second], lambda: wide[gaps].tobytes())
    memory = np.full(result.nbytes + 2, 7, np.uint8)
    odd = memory[1:-1].view(result.dtype).reshape(result.shape)
    places["an unaligned"] = (odd, lambda: memory[[0, -1]].tobytes())
    turned = guards.copy()
    places["a transposed"] = (
        turned[inside].reshape(result.shape[::-1]).T,
        lambda: turned[outside].tobytes(),
    )
    for out, _ in places.values():
        out[...] = np.nan
    return places


def _overlapping(
    call: Call, label: str, array: Array, result: Array
) -> tuple[dict[str, Any], Array]:
    """Arguments, and an out that begins within the array `label`."""
    memory = np.zeros(array.size + result.size, result.dtype)
    memory[: array.size] = array.ravel()
    out = memory[array.size - 1 : array.size - 1 + result.size].reshape(result.shape)
    shared = memory[: array.size].reshape(array.shape)
    return call.replaced(label, shared), out
