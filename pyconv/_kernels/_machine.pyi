from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

def multiply_add(rounds: int, compute: int, threads: int) -> float: ...
def triad(a: Array, b: Array, out: Array, threads: int) -> None: ...
