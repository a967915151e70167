from collections.abc import Sequence
from typing import Any

import numpy as np

from pyconv._kernels._winograd_weights import TransformedWeights

Array = np.ndarray[Any, Any]

def correlate(
    outputs: Sequence[int],
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
    packed: TransformedWeights | None = None,
    measure: bool = False,
) -> int: ...
