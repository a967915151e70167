from collections.abc import Sequence
from typing import Any

import numpy as np

from pyconv._kernels._gemm import PackedWeights

Array = np.ndarray[Any, Any]

def correlate(
    operator: str,
    x: Array,
    offset: Array,
    mask: Array | None,
    weight: Array,
    bias: Array | None,
    out: Array,
    rank: int,
    stride: Sequence[int],
    dilation: Sequence[int],
    origin: Sequence[int],
    compute: int,
    threads: int,
    budget: int,
    packed: PackedWeights | None = None,
    measure: bool = False,
    wrap: Sequence[bool] = ...,
    lanes: bool = False,
) -> int: ...
def weight_gradient(
    operator: str,
    x: Array,
    offset: Array,
    mask: Array | None,
    grad: Array,
    out: Array,
    rank: int,
    stride: Sequence[int],
    dilation: Sequence[int],
    origin: Sequence[int],
    compute: int,
    threads: int,
    budget: int,
    measure: bool = False,
    wrap: Sequence[bool] = ...,
) -> int: ...
def input_gradients(
    columns: Array,
    x: Array,
    offset: Array,
    mask: Array | None,
    dx: Array | None,
    window: Array | None,
    doffset: Array | None,
    dmask: Array | None,
    groups: int,
    rank: int,
    taps: Sequence[int],
    out: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    origin: Sequence[int],
    compute: int,
    threads: int,
    n: int,
    p: int,
    first: int,
    lo: int,
    flipped: bool,
    wrap: Sequence[bool] = ...,
) -> None: ...
def gradient_bytes(rank: int, compute: int, count: int) -> int: ...
