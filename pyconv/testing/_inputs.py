"""Checks of arrays that come in unusual ways, and of layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv.testing._call import Array, Call
from pyconv.testing._check import check
from pyconv.testing._compare import all_same_bits, refused, require, same_bits, within
from pyconv.testing._suite import ROUNDOFFS, Suite

if TYPE_CHECKING:
    from pyconv.operator import Operator


class Inputs(Suite):
    """Strides, byte order, alignment, array-likes, layouts, with and without batch."""

    @check()
    def test_strided(self, op: Operator) -> None:
        """Steps, reversed axes and Fortran order change no bit of results and gradients."""
        self._same_as_plain(op, "with steps between its elements", _spread)
        self._same_as_plain(op, "with reversed axes", _reversed)
        self._same_as_plain(op, "in Fortran order", np.asfortranarray)

    @check()
    def test_broadcast(self, op: Operator) -> None:
        """Arrays repeated by a stride of 0 are as good as copies."""

        def examine(call: Call) -> None:
            for label, array in call.flat().items():
                for axis in range(array.ndim):
                    first = array[(slice(None),) * axis + (slice(0, 1),)]
                    repeated = np.broadcast_to(first, array.shape)
                    self._compare_input(call, label, repeated, f"repeated along axis {axis}")

        self.each(self.calls(op, "float32"), examine)

    @check()
    def test_read_only(self, op: Operator) -> None:
        """Read-only arrays, such as those of a mapped file, are taken."""
        self._same_as_plain(op, "read-only", _read_only)

    @check()
    def test_byte_swapped(self, op: Operator) -> None:
        """Arrays of the other byte order, such as those of a foreign file, are taken."""
        self._same_as_plain(op, "byte-swapped", _byte_swapped)

    @check()
    def test_unaligned(self, op: Operator) -> None:
        """Arrays at odd addresses, such as fields of records, are taken."""
        self._same_as_plain(op, "unaligned", _unaligned)

    @check()
    def test_array_likes(self, op: Operator) -> None:
        """Objects with __array_interface__ or __dlpack__ are arrays; lists and None are not."""

        def examine(call: Call) -> None:
            expected = call.forward()
            for kind in (_WithInterface, _WithDLPack):
                for label in call.flat():
                    arrays = call.changed(kind, [label])
                    where = f"for {label} as an object with {kind.protocol}"
                    same_bits(call.forward(arrays), expected, "the result", where)
            for label in call.flat():
                for what, change in _NOT_ARRAYS.items():
                    arrays = call.changed(change, [label])
                    what_as = f"{what} as {label}"
                    refused(what_as, TypeError, op.name, label, call.forward, arrays)

        self.each(self.calls(op, "float32"), examine)

    @check("unbatched")
    def test_unbatched(self, op: Operator) -> None:
        """An image without batch axis gives the same bits as in a batch of its own."""
        if self.has(op, "batch"):
            for dtype in self.dtypes(op, "float32", "float64"):
                self.each(self.batched_calls(op, dtype), self._examine_unbatched, "a batch axis")
        else:
            self.each(self.calls(op), lambda call: require(not call.batched, "it has a batch"))

    def _examine_unbatched(self, call: Call) -> None:
        backward = self.has(call.op, "backward")
        many, one = call.sliced(slice(0, 1)), call.sliced(0)
        shape = many.output_shape()[1:]
        require(
            one.output_shape() == shape,
            f"output_shape is {one.output_shape()} without the batch axis, not {shape}",
        )
        expected = many.outcome(backward=backward, grad=call.grad[:1])
        for label in call.present_images:
            what = f"the gradient of {label}"
            if what in expected:
                expected[what] = expected[what][0]
        expected["the result"] = expected["the result"][0]
        got = one.outcome(backward=backward, grad=call.grad[0])
        all_same_bits(got, expected, "without the batch axis")

    @check("layout")
    def test_layout(self, op: Operator) -> None:
        """In the other layout, results and gradients are the same, with their axes moved."""

        def examine(call: Call) -> None:
            other = call.in_other_layout()
            moved = call.move_channels
            bound = ROUNDOFFS * np.finfo(call.dtype).eps
            expected = {"the result": call.forward()}
            got = {"the result": other.forward()}
            if self.has(op, "backward"):
                for name, gradient in call.flat(call.backward()).items():
                    expected[f"the gradient of {name}"] = gradient
                there = other.backward(grad=moved(call.grad))
                got.update((f"the gradient of {n}", g) for n, g in other.flat(there).items())
            images = ["the result", *(f"the gradient of {name}" for name in call.images)]
            magnitude = float(self.magnitude(call).max(initial=0))
            for what, array in expected.items():
                wanted = moved(array) if what in images else array
                scale = magnitude + np.abs(array).max(initial=0)
                layout = f"{what} in {other.params['layout']}"
                within(got[what], wanted, bound * scale, layout, "rounding of the other layout")

        for dtype in self.dtypes(op, "float32", "float64"):
            self.each(self.calls(op, dtype), examine)

    def _same_as_plain(self, op: Operator, what: str, change: Callable[[Array], Array]) -> None:
        """Compare results for arrays that are `change`-d, one and all, with those as they are."""

        def examine(call: Call) -> None:
            backward = self.has(op, "backward")
            expected = call.outcome(backward=backward)
            for label in call.flat() if call.dtype == np.float32 else ():
                got = call.outcome(call.changed(change, [label]), backward=backward)
                all_same_bits(got, expected, f"for {label} {what}")
            grad = change(call.grad)
            got = call.outcome(call.changed(change), backward=backward, grad=grad)
            all_same_bits(got, expected, f"for all arrays {what}")
            if self.has(op, "plan"):
                arrays = call.changed(change)
                got = {"the result": call.run(call.plan(arrays), arrays)}
                all_same_bits(got, {"the result": expected["the result"]},
                              f"of a plan for all arrays {what}")  # fmt: skip

        for dtype in self.dtypes(op, "float32", "float64", "float16"):
            self.each(self.calls(op, dtype), examine)

    def _compare_input(self, call: Call, label: str, array: Array, what: str) -> None:
        """Compare the outcome for `array` in the place of one argument with that for its copy."""
        backward = self.has(call.op, "backward")
        plain, odd = (
            call.outcome(call.replaced(label, a), backward=backward) for a in (array.copy(), array)
        )
        all_same_bits(odd, plain, f"for {label} {what}")


# ---- the same values, elsewhere in memory --------------------------------------------------------


def _spread(array: Array) -> Array:
    """Every second element of an array whose other elements are NaN."""
    wide = np.full([2 * extent + 1 for extent in array.shape], np.nan, array.dtype)
    view = wide[(slice(1, None, 2),) * array.ndim]
    view[...] = array
    return view


def _reversed(array: Array) -> Array:
    backwards = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[backwards])[backwards]


def _read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _byte_swapped(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder())


def _unaligned(array: Array) -> Array:
    memory = np.empty(array.nbytes + array.itemsize, np.uint8)
    start = 1 if memory.ctypes.data % 2 == 0 else 2
    view = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


# ---- other objects -------------------------------------------------------------------------------


class _WithInterface:
    protocol = "__array_interface__"

    def __init__(self, array: Array) -> None:
        self._array = array
        self.__array_interface__ = array.__array_interface__


class _WithDLPack:
    protocol = "__dlpack__"

    def __init__(self, array: Array) -> None:
        self._array = array.copy()

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


_NOT_ARRAYS: dict[str, Callable[[Array], Any]] = {
    "a list": lambda array: array.tolist(),
    "a str": lambda array: "nonsense",
    "a number": lambda array: 1.5,
}
