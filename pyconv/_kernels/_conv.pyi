from collections.abc import Sequence
from typing import Any

import numpy as np

from pyconv._kernels._gemm import PackedWeights

Array = np.ndarray[Any, Any]

def pack_weights(
    weight: Array, compute: int, threads: int, lanes: bool = False
) -> PackedWeights: ...
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
    packed: PackedWeights | None = None,
    measure: bool = False,
    lanes: bool = False,
) -> int: ...
def weight_gradient(
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
