from collections.abc import Mapping
from typing import Any

import numpy as np

from pyconv._kernels._gemm import PackedWeights

Array = np.ndarray[Any, Any]

C_API: Any
VERSION: int

class Functions:
    def __init__(
        self, addresses: Mapping[tuple[str, str], int], context: int, flags: int, owners: Any
    ) -> None: ...

def low_level(capsule: Any) -> tuple[int, str, int]: ...
def convolve(
    operator: str,
    given: Any,
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    compute: int,
    threads: int,
    budget: int,
    packed: PackedWeights | None = None,
    measure: bool = False,
) -> int: ...
def weight_gradient(
    operator: str,
    given: Any,
    x: Array,
    grad: Array,
    out: Array,
    compute: int,
    threads: int,
    budget: int,
) -> int: ...
def needs_unpack(operator: str, given: Any, compute: int) -> None: ...
def unpack(
    operator: str,
    given: Any,
    columns: Array,
    image: Array,
    compute: int,
    threads: int,
    n: int,
    p: int,
    first: int,
) -> None: ...
