from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

def packs(weight_shape: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> bool: ...
def correlate_mixed(
    operator: str,
    x: Array,
    weight: Array,
    mix: Array,
    bias: Array | None,
    out: Array,
    stride: Sequence[int],
    dilation: Sequence[int],
    offset: Sequence[int],
    mode: str,
    compute: int,
    threads: int,
    budget: int,
    packed: Any = None,
    measure: bool = False,
) -> int: ...
