from typing import Any

import numpy as np

def padding_sources(
    lo: int, hi: int, size: int, mode: str
) -> np.ndarray[Any, np.dtype[np.int64]]: ...
