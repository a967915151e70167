"""pyconv itself: the plan with its result in place, or the stateless call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def version() -> str:
    """Return the name and version."""
    import pyconv

    return f"pyconv {pyconv.__version__}"


def prepare(
    layer: dict[str, Any], arrays: dict[str, Any], threads: int, form: str
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a function that runs the layer, and one that returns the result."""
    import numpy as np

    import pyconv
    from pyconv.cli.operators import Call, arguments

    pyconv.set_num_threads(threads)
    op = pyconv.get(layer["operator"])
    params = {name: _tuples(value) for name, value in layer["params"].items()}
    call = Call(op, arrays, params)
    if form == "call":
        positional, keyword = arguments(op, arrays)
        return lambda: op(*positional, **keyword, **params), call
    plan, given = call.plan()
    out = np.empty(call.output_shape(), plan.dtype)
    return lambda: plan(*given, out=out), lambda: plan(*given, out=out)


def _tuples(value: Any) -> Any:
    """Undo what JSON does to tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
