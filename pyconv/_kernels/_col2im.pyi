from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

def fold(
    columns: Array,
    bias: Array | None,
    out: Array,
    taps: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    shift: Sequence[int],
    compute: int,
    threads: int,
) -> None: ...
def add_padded(
    part: Array,
    total: Array,
    first: Sequence[int],
    runs: Sequence[Sequence[tuple[int, int]]],
    size: Sequence[int],
    lo: Sequence[int],
    mode: str,
    compute: int,
    threads: int,
) -> None: ...
def sum_channels(x: Array, out: Array, compute: int, threads: int) -> None: ...
