from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

def suits(weight_shape: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> bool: ...
def correlate(
    operator: str,
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    stride: Sequence[int],
    dilation: Sequence[int],
    offset: Sequence[int],
    mode: str,
    compute: int,
    threads: int,
    budget: int,
    packed: None = None,
    measure: bool = False,
) -> int: ...
