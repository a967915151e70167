from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

def weight_gradient(
    outputs: Sequence[int],
    operator: str,
    x: Array,
    grad: Array,
    out: Array,
    stride: Sequence[int],
    dilation: Sequence[int],
    offset: Sequence[int],
    mode: str,
    compute: int,
    threads: int,
    budget: int,
    measure: bool = False,
) -> int: ...
