"""How much memory a call allocates, as far as Python and NumPy do it."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

#: Allocations that do not count as workspace: Python objects, tables in proportion to one axis.
OVERHEAD = 2**17

_alone = threading.Lock()  # the peak is one number for the whole process


def allocated(make: Callable[..., object], /, *args: Any, **kwargs: Any) -> int:
    """Return the largest number of bytes that a call held at once, the arrays it returns aside.

    Memory that compiled code gets from ``malloc`` itself is not seen.
    """
    with _alone:
        ours = not tracemalloc.is_tracing()
        if ours:
            tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            result = make(*args, **kwargs)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            if ours:
                tracemalloc.stop()
    return peak - before - sum(array.nbytes for array in _arrays(result))


def _arrays(result: object) -> Iterable[np.ndarray[Any, Any]]:
    if isinstance(result, np.ndarray):
        yield result
    elif isinstance(result, (dict, tuple)):
        for value in result.values() if isinstance(result, dict) else result:
            yield from _arrays(value)
