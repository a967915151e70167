from collections.abc import Sequence
from typing import Any

import numpy as np

from pyconv.geometry import Phase

Array = np.ndarray[Any, Any]

def correlate(
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    stride: Sequence[int],
    phases: Sequence[Sequence[Phase]],
    compute: int,
    threads: int,
    budget: int,
    measure: bool = False,
) -> int: ...
