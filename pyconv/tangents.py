"""Directional derivatives: sums of results, one for each array that varies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pyconv import engine
from pyconv.engine import Run
from pyconv.shapes import Array, new


def any_given(tangent: Any) -> bool:
    """Whether there is a tangent, or one among those of a variadic argument."""
    if isinstance(tangent, tuple):
        return any(t is not None for t in tangent)
    return tangent is not None


def varied_by(array: Any, tangent: Any) -> Iterator[Any]:
    """The tangent in place of the array; of a variadic argument, each one by itself."""
    if not isinstance(tangent, tuple):
        if tangent is not None:
            yield tangent
        return
    for i, one in enumerate(tangent):
        if one is not None:
            yield (*array[:i], one, *array[i + 1 :])


class Sum:
    """A sum of at most `terms` results into `out`, in the compute type, rounded once."""

    def __init__(self, operator: str, out: Array, run: Run, terms: int) -> None:
        self.out = out
        self._empty = True
        self._operator = operator
        self._dtype = run.dtype
        # A lone result is written where it goes to, whatever its type.
        wide = out.dtype == run.dtype or terms <= 1
        self._sum = out if wide else new(operator, out.shape, run.dtype)

    def add(self, compute: Callable[[Array], Any]) -> None:
        """Add what `compute` writes into the array that it is given, of the result's shape."""
        if self._empty:
            compute(self._sum)
            self._empty = False
            return
        term = new(self._operator, self.out.shape, self._dtype)
        compute(term)
        self._sum += term

    def start(self) -> Array:
        """The sum so far, for results to be added to."""
        if self._empty:
            self._sum[...] = 0
            self._empty = False
        return self._sum

    def finish(self) -> None:
        """Round the sum to the type of the result."""
        total = self.start()
        if total is not self.out:
            with engine.rounding():
                self.out[...] = total
