"""What choosing costs: the plan that pyconv makes by itself, beside the best of all algorithms."""

from __future__ import annotations

import numpy as np

from ._base import Call, fastest, layer_of, seconds

HOPELESS = 3
"""An algorithm that takes so many times as long as another in a call is not timed further."""


class Choice:
    """The regret is 1 where the choice is right."""

    params = [
        "standard/r50_3x3_28",
        "standard/speech_1d",
        "standard/video_3d",
        "grouped/alex_g2_27",
        "depthwise/convnext_7x7_56",
        "dilated/aspp_r12_33",
        "transposed/dcgan_4x4s2_8",
        "transposed/unet_2x2s2_28",
    ]
    param_names = ("layer",)

    def setup(self, layer: str) -> None:
        self.call = Call(*layer_of(layer))

    def track_regret(self, layer: str) -> float:
        chosen = self.call.plan()
        plans = {chosen.algorithm: chosen}
        for algorithm in self.call.op.algorithms:
            try:
                plan = self.call.plan(algorithm=algorithm)
            except ValueError:  # it is not for these shapes
                continue
            plans.setdefault(plan.algorithm, plan)
        out = np.empty(chosen.output_shape, np.float32)
        runs = [lambda plan=plan: plan(*self.call.given, out=out) for plan in plans.values()]
        for run in runs:
            run()
        first = [seconds(run) for run in runs]
        hopeful = [run for run, t in zip(runs, first, strict=True) if t <= HOPELESS * min(first)]
        times = fastest(hopeful if runs[0] in hopeful else [runs[0], *hopeful], rounds=9)
        return times[0] / min(times)

    track_regret.unit = "times the best algorithm's time"
