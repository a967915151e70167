"""Two threads: the time of a plan, and how much faster than one thread it is."""

from __future__ import annotations

import os

import numpy as np

from ._base import Call, fastest, layer_of


def cpus() -> int:
    """Return how many CPUs this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class TwoThreads:
    params = [
        "standard/r50_3x3_28",
        "pointwise/r50_1x1_56",
        "grouped/alex_g2_27",
        "depthwise/mobilenet_3x3_112",
        "depthwise_separable/mobilenet_56",
        "spatially_separable/inception_7x7_17",
        "dilated/ctx_r2_128",
        "transposed/dcgan_4x4s2_8",
        "deformable/dcn_v1_56",
        "sampled/sphere_3x3_64x128",
    ]
    param_names = ("layer",)
    rounds = 3
    warmup_time = 0.05

    def setup(self, layer: str) -> None:
        if cpus() < 2:
            raise NotImplementedError("there is one CPU only")
        self.call = Call(*layer_of(layer), threads=2)
        self.plan = self.call.plan()
        self.result = np.zeros(self.plan.output_shape, np.float32)
        self.time_plan(layer)

    def time_plan(self, layer: str) -> None:
        self.plan(*self.call.given, out=self.result)

    def track_speedup(self, layer: str) -> float:
        alone = self.call.plan(threads=1)
        one, two = fastest(
            [lambda: alone(*self.call.given, out=self.result), lambda: self.time_plan(layer)]
        )
        return one / two

    track_speedup.unit = "times as fast as one thread"
