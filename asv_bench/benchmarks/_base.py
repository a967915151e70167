"""What the forward and the backward benchmarks share."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyconv

from ._shapes import LAYERS


class Layers:
    """One operator on its layers: float32, one thread.

    A subclass names its `operator` and repeats the layers' names in `params`: asv identifies
    results by them, so they are literals that no version of pyconv can change.
    """

    operator: str
    params: list[str]
    param_names = ("layer",)

    def setup(self, layer: str) -> None:
        """Make the arrays; random values also touch every page, which zeros would not."""
        try:
            self.op = pyconv.get(self.operator)
        except LookupError:
            raise NotImplementedError(f"this pyconv has no {self.operator}") from None
        shapes, params = LAYERS[self.operator][layer]
        rng = np.random.default_rng(0)
        self.arrays: dict[str, Any] = {
            name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
        }
        self.keywords = {**params, "threads": 1}
        self.result = self.op(*self.arrays.values(), **self.keywords)
