from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

class TransformedWeights:
    @property
    def nbytes(self) -> int: ...

def pack_weights(
    outputs: Sequence[int], stride: Sequence[int], weight: Array, compute: int, threads: int
) -> TransformedWeights: ...
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
