"""The arrays of a call and their shapes: one under a name, or several, or none."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, NoReturn

import numpy as np

from pyconv import checks

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

_MOST_ITEMS = 64  # in a shape, or among the names of gradients


def each(value: Any, apply: Callable[[Any], Any]) -> Any:
    """Apply to one array or shape, or to every one of a variadic argument."""
    if value is None:
        return None
    nested = isinstance(value, tuple) and (not value or not isinstance(value[0], int))
    return tuple(apply(v) for v in value) if nested else apply(value)


def shapes_of(arrays: dict[str, Any]) -> dict[str, Any]:
    """The shapes of arrays by name."""
    return {
        name: None if a is None
        else tuple([b.shape for b in a]) if type(a) is tuple
        else a.shape
        for name, a in arrays.items()
    }  # fmt: skip


def checked_shape(operator: str, argument: str, value: Any) -> Shape:
    """Return a shape that a caller gave as a tuple of plain ints."""
    if isinstance(value, str):
        checks.fail_type(operator, argument, "be a shape", value)
    return tuple(
        checks.integer(operator, argument, extent, minimum=0, maximum=2**62)
        for extent in checked_items(operator, argument, "be a shape", value)
    )


def checked_items(operator: str, argument: str, rule: str, value: Any) -> list[Any]:
    """Items of a sequence, or a lone string; whatever cannot be iterated is refused."""
    if isinstance(value, str):
        return [value]
    try:
        items = list(islice(value, _MOST_ITEMS + 1))
    except Exception as error:  # a foreign object may raise anything
        checks.fail_type(operator, argument, rule, value, error)
    if len(items) > _MOST_ITEMS:  # maybe without end
        checks.fail(operator, argument, rule, value)
    return items


def hashable(value: Any) -> Any:
    """Hashable, and different for 1, 1.0 and True, which are equal but not equally right."""
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value
    if kind is tuple:
        return tuple([hashable(v) for v in value])
    return kind, value


# The last two are NumPy's, where the size does not even fit an integer.
_NO_MEMORY = (MemoryError, ValueError, OverflowError)


def pretended(operator: str, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """An array with the strides of a real one but no memory: for measuring, never read."""
    strides, step = [], dtype.itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    try:
        one = np.zeros(1, dtype)
        return np.lib.stride_tricks.as_strided(one, shape, tuple(reversed(strides)))
    except _NO_MEMORY:
        _no_memory(operator, shape, dtype)


def new(operator: str, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """An array for a result or a gradient."""
    try:
        return np.empty(shape, dtype)
    except _NO_MEMORY:
        _no_memory(operator, shape, dtype)


def _no_memory(operator: str, shape: Shape, dtype: np.dtype[Any]) -> NoReturn:
    raise MemoryError(
        f"{operator}: no memory for an array of shape {shape} and dtype {dtype}"
    ) from None
