from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

class TransformedWeights:
    @property
    def nbytes(self) -> int: ...

def pack_weights(
    outputs: Sequence[int],
    stride: Sequence[int],
    weight: Array,
    compute: int,
    threads: int,
    lanes: bool = False,
) -> TransformedWeights: ...
