"""Forward passes: one call after another, and a plan that packed its weights beforehand."""

from __future__ import annotations

from ._base import Layers, fastest, macs, multiply_adds


class _Forward(Layers):
    """`time_call` allocates its result, as a user's call does; `time_plan` writes to `out`.

    `track_percent_of_peak` is what a plan reaches of the multiply-adds that the machine did in the
    same rounds: of the definition's, so that an algorithm that saves some can exceed 100.
    """

    def setup(self, layer: str) -> None:
        super().setup(layer)
        self.given = self.call.given
        self.plan = self.call.plan()
        self.plan(*self.given, out=self.result)

    def time_call(self, layer: str) -> None:
        self.op(*self.arrays.values(), **self.keywords)

    def time_plan(self, layer: str) -> None:
        self.plan(*self.given, out=self.result)

    def track_percent_of_peak(self, layer: str) -> float:
        run, flops = multiply_adds()
        plan, peak = fastest([lambda: self.time_plan(layer), run])
        return 100 * (2 * macs(self.call) / plan) / (flops / peak)

    track_percent_of_peak.unit = "% of the multiply-add peak"


class StandardForward(_Forward):
    operator = "standard"
    params = ["r50_3x3_28", "r50_7x7s2_224", "speech_1d", "video_3d"]


class PointwiseForward(_Forward):
    operator = "pointwise"
    params = ["r50_1x1_56", "r50_1x1_14"]


class GroupedForward(_Forward):
    operator = "grouped"
    params = ["resnext_g32_56", "alex_g2_27"]


class DepthwiseForward(_Forward):
    operator = "depthwise"
    params = ["mobilenet_3x3_112", "mobilenet_3x3s2_112", "convnext_7x7_56"]


class DepthwiseSeparableForward(_Forward):
    operator = "depthwise_separable"
    params = ["mobilenet_14", "mobilenet_56"]


class SpatiallySeparableForward(_Forward):
    operator = "spatially_separable"
    params = ["inception_7x7_17", "blur_31x31_512"]


class DilatedForward(_Forward):
    operator = "dilated"
    params = ["aspp_r12_33", "ctx_r2_128"]


class TransposedForward(_Forward):
    operator = "transposed"
    params = ["dcgan_4x4s2_8", "unet_2x2s2_28"]


class DeformableForward(_Forward):
    operator = "deformable"
    params = ["dcn_v2_28", "dcn_v1_56"]


class SampledForward(_Forward):
    operator = "sampled"
    params = ["sphere_3x3_64x128"]
