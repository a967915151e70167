from collections.abc import Sequence
from typing import Any

import numpy as np

from pyconv.geometry import Phase

Array = np.ndarray[Any, Any]

class Split:
    def __init__(
        self, sizes: Sequence[int], phases: Sequence[Sequence[Phase]], cropped: int
    ) -> None: ...

class PackedPhases:
    @property
    def nbytes(self) -> int: ...

def pack_weights(weight: Array, split: Split, compute: int, threads: int) -> PackedPhases: ...
def correlate(
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    split: Split,
    compute: int,
    threads: int,
    budget: int,
    packed: PackedPhases | None = None,
    measure: bool = False,
) -> int: ...
