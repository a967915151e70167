"""What a call costs before it computes anything: 8x8 pixels, beside a call of NumPy.

The unit is an addition of the same images by `numpy.add`, timed in the same rounds: some 0.4 us on
a machine of 2022.
"""

from __future__ import annotations

import numpy as np

from ._base import Call, fastest
from ._shapes import SMALL


class Overhead:
    params = [
        "standard", "pointwise", "grouped", "depthwise", "depthwise_separable",
        "spatially_separable", "dilated", "transposed", "deformable", "sampled",
    ]  # fmt: skip
    param_names = ("operator",)

    def setup(self, operator: str) -> None:
        self.call = Call(operator, SMALL[operator])
        self.plan = self.call.plan()
        self.result = self.plan(*self.call.given)
        x = self.call.arrays["x"]
        self.sum = np.empty_like(x)
        self.add = lambda: np.add(x, x, out=self.sum)

    def track_call(self, operator: str) -> float:
        op, arrays, keywords = self.call.op, tuple(self.call.arrays.values()), self.call.keywords
        call, add = fastest([lambda: op(*arrays, **keywords), self.add])
        return call / add

    def track_plan(self, operator: str) -> float:
        plan, given, result = self.plan, self.call.given, self.result
        call, add = fastest([lambda: plan(*given, out=result), self.add])
        return call / add

    track_call.unit = track_plan.unit = "calls of numpy.add"
