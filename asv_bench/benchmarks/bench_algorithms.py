"""Every algorithm of every operator, whatever the planner would choose for the layer."""

from __future__ import annotations

import numpy as np

from ._base import Call
from ._shapes import ALGORITHMS


class _Algorithms:
    operator: str
    params: list[str]
    param_names = ("algorithm",)
    rounds = 3
    warmup_time = 0.05

    def setup(self, algorithm: str) -> None:
        self.call = Call(self.operator, ALGORITHMS[self.operator][algorithm], algorithm=algorithm)
        if algorithm not in self.call.op.algorithms:
            raise NotImplementedError(f"{self.operator} of this pyconv has no {algorithm}")
        self.plan = self.call.plan()
        self.result = np.zeros(self.plan.output_shape, np.float32)
        self.time_plan(algorithm)

    def time_plan(self, algorithm: str) -> None:
        self.plan(*self.call.given, out=self.result)


class StandardAlgorithms(_Algorithms):
    operator = "standard"
    params = ["direct", "winograd", "fft"]


class PointwiseAlgorithms(_Algorithms):
    operator = "pointwise"
    params = ["direct"]


class GroupedAlgorithms(_Algorithms):
    operator = "grouped"
    params = ["direct", "winograd"]


class DepthwiseAlgorithms(_Algorithms):
    operator = "depthwise"
    params = ["direct", "fft"]


class DepthwiseSeparableAlgorithms(_Algorithms):
    operator = "depthwise_separable"
    params = ["direct"]


class SpatiallySeparableAlgorithms(_Algorithms):
    operator = "spatially_separable"
    params = ["direct"]


class DilatedAlgorithms(_Algorithms):
    operator = "dilated"
    params = ["direct", "winograd", "zero_insertion", "subsample"]


class TransposedAlgorithms(_Algorithms):
    operator = "transposed"
    params = ["direct", "phase", "col2im", "winograd"]


class DeformableAlgorithms(_Algorithms):
    operator = "deformable"
    params = ["direct"]


class SampledAlgorithms(_Algorithms):
    operator = "sampled"
    params = ["direct"]
