from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

def gradients(
    operator: str,
    x: Array,
    offset: Array,
    mask: Array | None,
    weight: Array,
    grad: Array,
    dx: Array | None,
    doffset: Array | None,
    dmask: Array | None,
    dw: Array | None,
    flipped: bool,
    rank: int,
    stride: Sequence[int],
    dilation: Sequence[int],
    origin: Sequence[int],
    compute: int,
    threads: int,
    budget: int,
    measure: bool = False,
) -> int: ...
