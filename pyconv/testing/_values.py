"""Checks of shapes, element types and values."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv.testing._call import Call
from pyconv.testing._check import check
from pyconv.testing._compare import CheckFailure, fail, plain_array, refused, require, within
from pyconv.testing._suite import ROUNDOFFS, Suite, bfloat16

if TYPE_CHECKING:
    from pyconv.operator import Operator

_EVERYWHERE = f"{ROUNDOFFS} unit roundoffs of the largest sum of magnitudes"
_EACH = f"{ROUNDOFFS} unit roundoffs of its own sum of magnitudes"
_HALF = f"one rounding, after {ROUNDOFFS} float32 roundoffs of the sum of magnitudes"

_ODD_CASES = 2  # the smallest ones: each is made many times

# What is not the definition's result at all; how near it is, other checks ask.
_GROSS = 1e-3
_GROSSLY = "a thousandth of the largest sum of magnitudes"


class Values(Suite):
    """Shapes, costs, dtypes, and results next to the definition."""

    @check()
    def test_reference(self, op: Operator) -> None:
        """The definition is what all else is compared with: it has to take any float dtype."""

        def examine(call: Call) -> None:
            for dtype in (np.float32, np.float64, np.longdouble):
                result = call.reference(dtype)
                require(
                    result.dtype == dtype,
                    f"reference returns {result.dtype.name} for arrays of {np.dtype(dtype).name}",
                )
            require(np.isfinite(call.exact).all(), "reference returns NaN or infinity")
            coarse = call.reference(np.float32)
            bound = 1e-3 * self.magnitude(call).max(initial=1e-30)
            within(
                coarse, call.exact, bound, "reference in float32", "rounding of that in longdouble"
            )

        self.each(self.calls(op), examine)

    @check()
    def test_output_shape(self, op: Operator) -> None:
        """Callers allocate by output_shape, so it has to agree with the definition and the call."""

        def examine(call: Call) -> None:
            shape: Any = call.output_shape()
            require(
                isinstance(shape, tuple) and all(type(extent) is int for extent in shape),
                f"output_shape returns {shape!r}, not a tuple of int",
            )
            require(
                shape == call.exact.shape,
                f"output_shape says {shape}, reference returns {call.exact.shape}",
            )

        self.each(self.calls(op), examine)

    @check()
    def test_cost(self, op: Operator) -> None:
        """Benchmarks divide by what cost says."""

        def examine(call: Call) -> None:
            cost = call.cost()
            numbers = {
                name: getattr(cost, name)
                for name in ("macs", "macs_valid", "parameters", "bytes_moved")
            }
            require(all(type(n) is int for n in numbers.values()), f"not all are int: {numbers}")
            require(
                0 <= cost.macs_valid <= cost.macs,
                f"macs_valid {cost.macs_valid} is not between 0 and macs {cost.macs}",
            )
            later = call.flat({name: call.arrays[name] for name in op.per_call})
            fixed = sum(array.size for label, array in call.flat().items() if label not in later)
            require(
                cost.parameters == fixed,
                f"parameters is {cost.parameters}; the fixed arrays have {fixed} elements",
            )
            moved = 4 * (sum(a.size for a in call.flat().values()) + prod(call.output_shape()))
            require(
                cost.bytes_moved == moved,
                f"bytes_moved is {cost.bytes_moved}; arrays and result have {moved} in float32",
            )
            if call.batched:
                n = call.shapes["x"][0]
                double = call.resized(2 * n).cost()
                require(
                    (double.macs, double.macs_valid) == (2 * cost.macs, 2 * cost.macs_valid),
                    f"macs do not double with the batch: {cost}, then {double}",
                )

        self.each(self.calls(op), examine)

    @check()
    def test_result_dtype(self, op: Operator) -> None:
        """The result has the arguments' dtype and is a plain array: nothing is converted."""
        for dtype in self.dtypes(op):
            self.each(self.calls(op, dtype), _examine_type)

    @check()
    def test_values(self, op: Operator) -> None:
        """The result is the definition's, as close as the contract promises."""
        for dtype in self.dtypes(op, "float32", "float64"):
            self.each(self.calls(op, dtype), lambda call: self._compare(call, {}, _EVERYWHERE))

    @check("algorithm")
    def test_direct(self, op: Operator) -> None:
        """algorithm="direct" takes every shape, and keeps the promise for each element."""
        params = {"algorithm": "direct"}
        for dtype in self.dtypes(op, "float32", "float64"):
            self.each(self.calls(op, dtype), lambda call: self._compare(call, params, _EACH))

    @check("algorithm")
    def test_algorithms(self, op: Operator) -> None:
        """Every other algorithm gives the same result, or refuses a shape by name."""
        for algorithm in op.algorithms:
            if algorithm in ("auto", "direct"):
                continue  # what values and direct check
            taken: list[Call] = []

            def examine(call: Call, algorithm: str = algorithm, taken: list[Call] = taken) -> None:
                try:
                    call.forward(algorithm=algorithm)
                except ValueError:
                    refused(
                        f"algorithm={algorithm!r}", ValueError, op.name, algorithm,
                        call.forward, algorithm=algorithm,
                    )  # fmt: skip
                    return
                taken.append(call)
                self._compare(call, {"algorithm": algorithm}, _EVERYWHERE)

            for dtype in self.dtypes(op, "float32", "float64"):
                self.each(self.calls(op, dtype), examine)
            require(taken, f"algorithm={algorithm!r} refuses every case: add one that it takes")

    @check("float16")
    def test_float16(self, op: Operator) -> None:
        """float16 is computed in float32 and rounded once."""
        calls = self.calls(op, "float16")
        self.each(calls, lambda call: self._compare(call, {}, _HALF))

    @check("bfloat16")
    def test_bfloat16(self, op: Operator) -> None:
        """bfloat16 is computed in float32 and rounded once."""
        calls = self.calls(op, bfloat16())
        self.each(calls, lambda call: self._compare(call, {}, _HALF))

    @check()
    def test_special_values(self, op: Operator) -> None:
        """A NaN or an infinity reaches those results that read it, and no others."""
        params = {"algorithm": "direct"} if self.has(op, "algorithm") else {}

        def examine(call: Call) -> None:
            for value in (np.nan, np.inf):
                x = call.arrays["x"].copy()
                x[tuple(extent // 2 for extent in x.shape)] = value
                arrays = {**call.copies(), "x": x}
                with np.errstate(all="ignore"):
                    expected = call.reference(np.float64, arrays)
                    got = np.asarray(call.forward(arrays, **params))
                for kind in (np.isnan, np.isposinf, np.isneginf):
                    wrong = kind(got) != kind(expected)
                    require(
                        not wrong.any(),
                        f"with {value} in x, {wrong.sum()} results are {kind.__name__[2:]} that "
                        "should not be, or the other way round",
                    )

        for dtype in self.dtypes(op, "float32", "float64"):
            self.each(self.calls(op, dtype), examine)

    @check()
    def test_odd_sizes(self, op: Operator) -> None:
        """Axes of no, one or one more element give the definition's result, or a ValueError."""

        def examine(call: Call) -> None:
            linear = self.linear_arrays(call)
            for shapes in _odd_shapes(call):
                arrays = call.copies()
                for label, shape in shapes.items():
                    arrays = call.with_arrays(arrays).replaced(
                        label, np.resize(call.flat()[label], shape)
                    )
                odd = call.with_arrays(arrays)
                odd.linear = linear
                try:
                    self._compare_odd(odd)
                except CheckFailure as error:
                    what = ", ".join(f"{label} of shape {s}" for label, s in shapes.items())
                    fail(f"with {what}, {error}", error)

        self.each(self.calls(op, "float32")[:_ODD_CASES], examine)

    def _compare_odd(self, call: Call) -> None:
        try:
            shape = call.output_shape()
        except ValueError:
            # Of several things that are wrong, each may find another one first.
            refused("the call, unlike output_shape,", ValueError, call.op.name, "", call.forward)
            return
        result = call.forward()
        with np.errstate(all="ignore"):
            call.exact = call.reference(np.float64)
            peak = self.magnitude(call).max(initial=0)
        require(result.shape == shape, f"the result has shape {result.shape}, not {shape}")
        within(result, call.exact, _GROSS * peak, "the result", _GROSSLY)
        if self.has(call.op, "backward"):
            arrays = call.flat()
            for label, gradient in call.flat(call.backward()).items():
                wanted = arrays[label].shape
                require(
                    gradient.shape == wanted,
                    f"the gradient of {label} has shape {gradient.shape}, not {wanted}",
                )

    def _compare(self, call: Call, params: dict[str, Any], rule: str) -> None:
        if call.magnitude is None:
            call.magnitude = np.asarray(self.magnitude(call))
        magnitude = call.magnitude
        if rule != _EACH:
            magnitude = np.full_like(magnitude, magnitude.max(initial=0))
        bound = self.bound(call, magnitude, call.exact)
        what = f"the {call.dtype.name} result"
        if params:
            what += " with " + ", ".join(f"{k}={v!r}" for k, v in params.items())
        within(call.forward(**params), call.exact, bound, what, rule)


def _odd_shapes(call: Call) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes for the call, of which those of one or two arrays have an odd axis."""

    def resized(label: str, axis: int, extent: int) -> tuple[int, ...]:
        shape = list(arrays[label].shape)
        shape[axis] = extent
        return tuple(shape)

    arrays = call.flat()
    # The number of images is what other checks vary.
    first = {label: int(call.batched and label in call.present_images) for label in arrays}
    axes = [(n, axis) for n, array in arrays.items() for axis in range(first[n], array.ndim)]
    for label, axis in axes:
        for extent in {0, 1, arrays[label].shape[axis] + 1}:
            yield {label: resized(label, axis, extent)}
    # What two arrays have in common, such as their channels, they may lack together.
    for label, axis in axes:
        for other, another in axes if label == "x" else ():
            if other != "x":
                yield {label: resized(label, axis, 0), other: resized(other, another, 0)}


def _examine_type(call: Call) -> None:
    result = call.forward()
    plain_array(result, "the result")
    require(
        result.dtype == call.dtype and result.dtype.isnative,
        f"the result has dtype {result.dtype}, the arguments {call.dtype}",
    )
    require(result.flags.writeable, "the result is read-only")
    require(
        result.shape == call.output_shape(),
        f"the result has shape {result.shape}, output_shape says {call.output_shape()}",
    )
