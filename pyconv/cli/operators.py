"""What the commands share about operators: where they come from, and calls of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pyconv.operator import Cost, Operator, Plan
    from pyconv.registry import OperatorInfo

FIELDS = ("name", "summary", "aliases", "distribution", "version", "status", "error")
"""The fields of an `OperatorInfo`."""

AnyArray = np.ndarray[Any, Any]

# One array, or the arrays of a ``*name`` parameter, or an optional array that is absent.
Argument = AnyArray | tuple[AnyArray, ...] | None


def origin(info: OperatorInfo) -> str:
    """Return where an operator comes from: a distribution, or this process' `pyconv.register`."""
    if not info.distribution:
        return "several" if info.status == "ambiguous" else "this process"
    return f"{info.distribution} {info.version or ''}".rstrip()


def parameters(op: Operator) -> list[inspect.Parameter]:
    """Return the keyword parameters of an operator: what is no array."""
    return [
        parameter
        for name, parameter in op.signature.parameters.items()
        if name not in op.array_names and parameter.kind is not parameter.VAR_KEYWORD
    ]


def signature(op: Operator) -> str:
    """Return an operator's name and arguments, without annotations."""
    plain = [p.replace(annotation=p.empty) for p in op.signature.parameters.values()]
    return f"{op.name}{inspect.Signature(plain)}"


def documented(op: Operator) -> dict[str, tuple[str, str]]:
    """Return, from the "Parameters" of an operator's docstring, type and meaning by name."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    _, _, section = (inspect.getdoc(op) or "").partition("Parameters\n----------\n")
    for line in section.splitlines():
        if line.startswith("---"):
            for name in names:  # what looked like a parameter was the next section's title
                del found[name]
            break
        if line and not line.startswith(" "):
            heading, _, kind = line.partition(" : ")
            names = [name.strip(" *") for name in heading.split(",")]
            found |= {name: [kind] for name in names}
        else:
            for name in names:
                found[name].append(line.strip())
    return {
        name: (kind, " ".join(text).replace("`", "").strip())  # no markup
        for name, (kind, *text) in found.items()
    }


def variadic(op: Operator) -> str | None:
    """Return the name of the ``*name`` parameter, if the operator has one."""
    for parameter in op.signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return parameter.name
    return None


@dataclass(frozen=True)
class Call:
    """An operator with the arrays and parameters to call it with.

    Attributes
    ----------
    op : Operator
        The operator.
    arrays : dict of str to array, tuple of arrays, or None
        By argument name; a tuple for a ``*name`` argument. Those left out are absent.
    params : dict
        The keyword parameters.
    """

    op: Operator
    arrays: Mapping[str, Argument]
    params: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> AnyArray:
        """Return the operator's result."""
        y: AnyArray = self._apply(self.op, np.asarray)
        return y

    def reference(self) -> AnyArray:
        """Return the result by the operator's definition, computed in float64."""
        y: AnyArray = self._apply(self.op.reference, _double)
        return y

    def magnitude(self) -> AnyArray:
        """Return what the definition makes of absolute values: the scale of rounding errors."""
        arrays = {
            name: value if name == "offset" else _map(np.abs, value)
            for name, value in self.arrays.items()
        }
        return Call(self.op, arrays, self.params).reference()

    def plan(self) -> tuple[Plan, list[AnyArray | None]]:
        """Return a plan with the weights in it, and what remains to be given at each call."""
        op = self.op
        fixed = [name for name in op.array_names if name not in op.per_call]
        positional, keyword = arguments(op, self.arrays, fixed)
        x_shape = _map(_shape, self.arrays["x"])
        plan = op.plan(x_shape, *positional, **keyword, **self.params)
        given, _ = arguments(op, self.arrays, op.per_call)
        return plan, given

    def output_shape(self) -> tuple[int, ...]:
        """Return the shape of the result."""
        return tuple(self._apply(self.op.output_shape, _shape))

    def cost(self) -> Cost:
        """Return the operator's own account of what the call costs."""
        cost: Cost = self._apply(self.op.cost, _shape)
        return cost

    def _apply(self, function: Callable[..., Any], convert: Callable[[AnyArray], Any]) -> Any:
        values = {name: _map(convert, value) for name, value in self.arrays.items()}
        positional, keyword = arguments(self.op, values)
        return function(*positional, **keyword, **self.params)


def _shape(array: AnyArray) -> tuple[int, ...]:
    shape: tuple[int, ...] = array.shape
    return shape


def _double(array: AnyArray) -> AnyArray:
    return array.astype(np.float64)


def _map(function: Callable[[AnyArray], Any], value: Argument) -> Any:
    """Apply `function` to an array, to each of several, or not at all."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(map(function, value))
    return function(value)


def arguments(
    op: Operator, values: Mapping[str, Any], names: Sequence[str] | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """Return values by array name as the positional and keyword arguments of a call of `op`.

    Parameters
    ----------
    op : Operator
        Which says the order, and what goes by keyword: the arrays after a ``*name``.
    values : mapping of str to object
        Arrays or shapes; for a ``*name``, a sequence of them. What is missing is None.
    names : sequence of str, optional
        The arrays to pass, by default all of them.
    """
    positional: list[Any] = []
    keyword: dict[str, Any] = {}
    many = variadic(op)
    names = op.array_names if names is None else names
    for i, name in enumerate(names):
        if name == many:
            positional += values[name]
        elif many in names[:i]:
            keyword[name] = values.get(name)
        else:
            positional.append(values.get(name))
    return positional, keyword
