"""pyconv itself: the plan with its result in place, or the stateless call.

Gradients are a plan's where it has them.
"""

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
    from pyconv.bench.exact import flat
    from pyconv.cli.operators import Call, arguments

    pyconv.set_num_threads(threads)
    op = pyconv.get(layer["operator"])
    params = {name: _tuples(value) for name, value in layer["params"].items()}
    call = Call(op, arrays, params)
    if layer["needs"]:
        run = _gradients(call, tuple(layer["needs"]), form)
        return run, lambda: flat(run())
    if form == "call":
        positional, keyword = arguments(op, arrays)
        return lambda: op(*positional, **keyword, **params), call
    plan, given = call.plan()
    out = np.empty(call.output_shape(), plan.dtype)
    return lambda: plan(*given, out=out), lambda: plan(*given, out=out)


def _gradients(call: Any, needs: tuple[str, ...], form: str) -> Callable[[], Any]:
    """Return a function that computes gradients of a call."""
    from pyconv.cli.operators import arguments

    op, grad = call.op, call.arrays["grad"]
    if form == "plan":
        plan, given = call.plan()
        if hasattr(plan, "backward"):
            backward = plan.backward
            return lambda: backward(grad, *given, needs=needs)
    positional, keyword = arguments(op, call.arrays)
    keyword |= call.params
    return lambda: op.backward(grad, *positional, needs=needs, **keyword)


def _tuples(value: Any) -> Any:
    """Undo what JSON does to tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
