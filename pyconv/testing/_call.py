"""A call of an operator with everything given: what the checks run, vary and print."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from inspect import Parameter
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pyconv.operator import Cost, Operator, Plan

Array = np.ndarray[Any, Any]
Arrays = dict[str, Any]  # an array by argument name; None if absent, a tuple for a variadic one
Shapes = dict[str, Any]
Generate = Callable[[str, tuple[int, ...]], Array]

# Element types that NumPy computes in too coarsely, or not at all.
_NARROW = 2


class Call:
    """Arguments of one call, and the ways to make it.

    The arrays belong to the call: whatever runs gets copies, unless it brings its own.

    Parameters
    ----------
    op : Operator
        The operator.
    name : str
        The case, for messages.
    shapes : dict
        Shapes by argument name, None for an absent one; a tuple of shapes for a variadic one.
    params : dict
        Keyword parameters.
    generate : callable
        Makes the float64 values of an array, given its label and shape.
    images : tuple of str
        The arrays that have the batch axis.
    dtype : dtype
        That of all arrays.
    """

    def __init__(
        self,
        op: Operator,
        name: str,
        shapes: Shapes,
        params: Mapping[str, Any],
        generate: Generate,
        images: tuple[str, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self.op = op
        self.name = name
        self.shapes: Shapes = {argument: shapes.get(argument) for argument in op.array_names}
        self.params = dict(params)
        self.images = images
        self.dtype = dtype
        # What a suite has found out about the call, to find it out once.
        self.linear: list[str] | None = None
        self.magnitude: Array | None = None
        self._generate = generate
        self.arrays: Arrays = {
            argument: None
            if shape is None
            else tuple(self._make(f"{argument}[{i}]", s) for i, s in enumerate(shape))
            if argument == variadic(op)
            else self._make(argument, shape)
            for argument, shape in self.shapes.items()
        }

    def _make(self, label: str, shape: Iterable[int]) -> Array:
        return np.asarray(self._generate(label, tuple(shape))).astype(self.dtype)

    def __str__(self) -> str:
        given = [
            f"{label}: {self.dtype.name} {array.shape}" for label, array in self.flat().items()
        ]
        given += [f"{name}={value!r}" for name, value in self.params.items()]
        return f"{self.op.name}({', '.join(given)})"

    # ---- its arrays ------------------------------------------------------------------------------

    def flat(self, arrays: Arrays | None = None) -> dict[str, Array]:
        """Return the arrays that are there, by label: ``"axis_weights[0]"`` for a variadic one."""
        flat = {}
        for name, value in (self.arrays if arrays is None else arrays).items():
            if isinstance(value, tuple):
                flat.update({f"{name}[{i}]": array for i, array in enumerate(value)})
            elif value is not None:
                flat[name] = value
        return flat

    def copies(self) -> Arrays:
        """Return copies of all arrays."""
        return self.changed(lambda array: array.copy())

    def changed(
        self, change: Callable[[Array], Any], labels: Iterable[str] | None = None
    ) -> Arrays:
        """Return the arrays with `change` applied to those in `labels`, all by default.

        The others are copies. The name of a variadic argument stands for all of its arrays.
        """
        wanted = None if labels is None else set(labels)

        def new(label: str, array: Array) -> Any:
            chosen = wanted is None or label in wanted or label.partition("[")[0] in wanted
            return change(array) if chosen else array.copy()

        return {
            name: None
            if value is None
            else tuple(new(f"{name}[{i}]", array) for i, array in enumerate(value))
            if isinstance(value, tuple)
            else new(name, value)
            for name, value in self.arrays.items()
        }

    def scaled(self, factor: float) -> Arrays:
        """Return the arrays, those that a plan does not fix times a factor."""
        return self.changed(lambda array: (array * factor).astype(array.dtype), self.op.per_call)

    def replaced(self, label: str, array: Any) -> Arrays:
        """Return copies of the arrays, but `array` itself as the one called `label`."""
        return self.changed(lambda _: array, [label])

    def cast(self, dtype: Any, labels: Iterable[str] | None = None) -> Arrays:
        """Return the arrays, those in `labels` or all, in another dtype."""
        return self.changed(lambda array: array.astype(dtype), labels)

    @cached_property
    def grad(self) -> Array:
        """A gradient of the result."""
        return self._make("grad", self.output_shape())

    # ---- running it ------------------------------------------------------------------------------

    def forward(self, arrays: Arrays | None = None, **params: Any) -> Any:
        """Return what the operator returns."""
        args, keywords = self._arguments(self.copies() if arrays is None else arrays)
        return self.op(*args, **{**self.params, **keywords, **params})

    def backward(
        self, arrays: Arrays | None = None, grad: Any = None, **params: Any
    ) -> dict[str, Any]:
        """Return what the operator's ``backward`` returns."""
        args, keywords = self._arguments(self.copies() if arrays is None else arrays)
        grad = self.grad.copy() if grad is None else grad
        return self.op.backward(grad, *args, **{**self.params, **keywords, **params})

    def jvp(self, directions: Mapping[str, Array], **params: Any) -> Any:
        """Return what the operator's ``jvp`` returns, for directions by label."""
        directions = {label: direction.copy() for label, direction in directions.items()}
        tangents = {
            name: tuple(directions.get(f"{name}[{i}]") for i in range(len(value)))
            if isinstance(value, tuple)
            else directions.get(name)
            for name, value in self.arrays.items()
            if value is not None
        }
        args, keywords = self._arguments(self.copies())
        return self.op.jvp(tangents, *args, **{**self.params, **keywords, **params})

    def outcome(
        self, arrays: Arrays | None = None, *, backward: bool, grad: Any = None, **params: Any
    ) -> dict[str, Array]:
        """Return the result and the gradients, by what they are."""
        found = {"the result": self.forward(arrays, **params)}
        if backward:
            gradients = self.flat(self.backward(arrays, grad, **params))
            found.update((f"the gradient of {name}", g) for name, g in gradients.items())
        return found

    def reference(self, dtype: Any = np.longdouble, arrays: Arrays | None = None) -> Array:
        """Return the operator's own definition, in `dtype`, by default the most exact there is."""
        given = self.changed(lambda a: a) if arrays is None else arrays
        given = {
            name: None
            if value is None
            else tuple(widened(v, dtype) for v in value)
            if isinstance(value, tuple)
            else widened(value, dtype)
            for name, value in given.items()
        }
        args, keywords = self._arguments(given)
        return np.asarray(self.op.reference(*args, **{**self.params, **keywords}))

    @cached_property
    def exact(self) -> Array:
        """The result by definition, in the widest dtype there is."""
        return self.reference()

    def plan(self, arrays: Arrays | None = None, x_shape: Any = None, **params: Any) -> Plan:
        """Make a plan, which takes the arrays of ``per_call`` when it is called."""
        given = self.copies() if arrays is None else arrays
        args, keywords = self._arguments(given, without=self.op.per_call)
        shape = self.shapes["x"] if x_shape is None else x_shape
        return self.op.plan(shape, *args, **{**self.params, **keywords, **params})

    def run_backward(self, plan: Plan, arrays: Arrays | None = None, **params: Any) -> Any:
        """Call a plan's ``backward``."""
        given = self.copies() if arrays is None else arrays
        images = (given[name] for name in self.op.per_call)
        return plan.backward(self.grad.copy(), *images, **params)

    def run(self, plan: Plan, arrays: Arrays | None = None, **params: Any) -> Any:
        """Call a plan."""
        given = self.copies() if arrays is None else arrays
        return plan(*(given[name] for name in self.op.per_call), **params)

    def output_shape(self, **params: Any) -> tuple[int, ...]:
        """Return what the operator's ``output_shape`` returns."""
        args, keywords = self._arguments(self.shapes)
        return self.op.output_shape(*args, **{**self.params, **keywords, **params})

    def cost(self, **params: Any) -> Cost:
        """Return what the operator's ``cost`` returns."""
        args, keywords = self._arguments(self.shapes)
        return self.op.cost(*args, **{**self.params, **keywords, **params})

    def _arguments(
        self, values: Mapping[str, Any], without: Iterable[str] = ()
    ) -> tuple[list[Any], dict[str, Any]]:
        """Arrays or shapes as positional and keyword arguments."""
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for name in self.op.array_names:
            kind = self.op.signature.parameters[name].kind
            if name in without:
                continue
            if kind is Parameter.VAR_POSITIONAL:
                positional += values[name] or ()
            elif kind is Parameter.KEYWORD_ONLY:
                keywords[name] = values[name]
            else:
                positional.append(values[name])
        return positional, keywords

    def alike(self, other: Call) -> bool:
        """Whether another call has the same shapes and parameters."""
        return self.shapes == other.shapes and self.params == other.params

    # ---- other calls made from it ----------------------------------------------------------------

    def reshaped(self, shapes: Shapes, **params: Any) -> Call:
        """Return a call with new arrays of other shapes, and other parameters."""
        return Call(
            self.op, self.name, {**self.shapes, **shapes}, {**self.params, **params},
            self._generate, self.images, self.dtype,
        )  # fmt: skip

    def with_arrays(self, arrays: Arrays, **params: Any) -> Call:
        """Return a call with these arrays, and other parameters."""
        flat = self.flat(arrays)
        shapes = {
            name: None
            if value is None
            else tuple(v.shape for v in value)
            if isinstance(value, tuple)
            else value.shape
            for name, value in arrays.items()
        }
        return Call(
            self.op, self.name, shapes, {**self.params, **params},
            lambda label, shape: flat[label] if label in flat else self._generate(label, shape),
            self.images, self.dtype,
        )  # fmt: skip

    @property
    def present_images(self) -> list[str]:
        """The arrays with a batch axis that are there."""
        return [name for name in self.images if self.shapes[name] is not None]

    def resized(self, batch: int) -> Call:
        """Return the call for another number of images, which are new."""
        images = {name: (batch, *self.shapes[name][1:]) for name in self.present_images}
        return self.reshaped(images)

    def sliced(self, samples: Any) -> Call:
        """Return the call for some of its images; for one, without batch axis, if an int."""
        arrays = {
            name: array[samples] if name in self.images and array is not None else array
            for name, array in self.arrays.items()
        }
        return self.with_arrays(arrays)

    @cached_property
    def batched(self) -> bool:
        """Whether the first axis of the images is a batch: as many results as images."""
        many = self.shapes["x"][0] + 7
        try:
            longer = self.resized(many).output_shape()
            shape = self.output_shape()
        except Exception:
            return False
        return longer == (many, *shape[1:]) and shape[0] == self.shapes["x"][0]

    @property
    def channels_last(self) -> bool:
        """Whether the channels are the last axis."""
        return bool(self.params.get("layout") == "channels_last")

    def move_channels(self, array: Array) -> Array:
        """Return an image with its channel axis where the other layout has it."""
        first = 1 if self.batched else 0
        axes = (-1, first) if self.channels_last else (first, -1)
        return np.ascontiguousarray(np.moveaxis(array, *axes))

    def in_other_layout(self) -> Call:
        """Return the same call in the other layout."""
        arrays = {
            name: self.move_channels(array) if name in self.images and array is not None else array
            for name, array in self.arrays.items()
        }
        layout = "channels_first" if self.channels_last else "channels_last"
        return self.with_arrays(arrays, layout=layout)

    def enlarged(self, elements: int) -> Call:
        """Return a call with about so many elements of images and results, if that can be.

        Larger images if ``x`` is the only one, more images otherwise, as the shapes of other
        images may follow from that of the result.
        """
        call = self
        if self.present_images == ["x"]:
            call = self._with_larger_images(elements)
        if self.batched and call._elements() < elements:
            each = max(1, call._elements() // max(1, call.shapes["x"][0]))
            call = call.resized(-(-elements // each))
        return call

    def _with_larger_images(self, elements: int) -> Call:
        shape = list(self.shapes["x"])
        spatial = list(range(len(shape)))[1:] if self.batched else list(range(len(shape)))
        del spatial[-1 if self.channels_last else 0]
        call = self
        for turn in count() if spatial else ():
            if call._elements() >= elements:
                break
            shape[spatial[turn % len(spatial)]] *= 2
            shape[spatial[turn % len(spatial)]] += 1
            larger = call.reshaped({"x": tuple(shape)})
            try:
                grown = prod(larger.output_shape()) > prod(call.output_shape())
            except (TypeError, ValueError):
                grown = False
            if not grown and turn >= len(spatial):
                break
            call = larger if grown else call
        return call

    def _elements(self) -> int:
        images = sum(prod(self.shapes[name]) for name in self.present_images)
        return images + prod(self.output_shape())


def variadic(op: Operator) -> str | None:
    """Return the name of the argument that takes any number of arrays, if there is one."""
    for name, parameter in op.signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return name
    return None


def widened(array: Array, dtype: Any) -> Array:
    """Return `array` in a wider dtype, exactly."""
    if array.dtype.itemsize == _NARROW:  # there may be no direct conversion of foreign types
        array = array.astype(np.float32)
    return array.astype(dtype)
