"""Backward passes: the gradients of every argument, and the input's alone."""

from __future__ import annotations

import numpy as np

import pyconv

from ._base import Layers


def _skip_without_gradients(layer: str) -> None:
    if not hasattr(pyconv.plan.Plan, "backward"):
        raise NotImplementedError("plans of this pyconv have no gradients")


class _Backward(Layers):
    """`time_all` is a training step's work, `time_x` that of an attack or a saliency map.

    `time_plan_all` has all gradients from a plan, which keeps its packed weights.
    """

    def setup(self, layer: str) -> None:
        super().setup(layer)
        self.grad = np.random.default_rng(1).standard_normal(self.result.shape, dtype=np.float32)
        self.plan = self.call.plan()

    def time_all(self, layer: str) -> None:
        self.op.backward(self.grad, *self.arrays.values(), **self.keywords)

    def time_x(self, layer: str) -> None:
        self.op.backward(self.grad, *self.arrays.values(), needs=("x",), **self.keywords)

    def time_plan_all(self, layer: str) -> None:
        self.plan.backward(self.grad, *self.call.given)

    time_plan_all.setup = _skip_without_gradients


class StandardBackward(_Backward):
    operator = "standard"
    params = ["r50_3x3_28", "r50_7x7s2_224", "speech_1d", "video_3d"]


class PointwiseBackward(_Backward):
    operator = "pointwise"
    params = ["r50_1x1_56", "r50_1x1_14"]


class GroupedBackward(_Backward):
    operator = "grouped"
    params = ["resnext_g32_56", "alex_g2_27"]


class DepthwiseBackward(_Backward):
    operator = "depthwise"
    params = ["mobilenet_3x3_112", "mobilenet_3x3s2_112", "convnext_7x7_56"]


class DepthwiseSeparableBackward(_Backward):
    operator = "depthwise_separable"
    params = ["mobilenet_14", "mobilenet_56"]


class SpatiallySeparableBackward(_Backward):
    operator = "spatially_separable"
    params = ["inception_7x7_17", "blur_31x31_512"]


class DilatedBackward(_Backward):
    operator = "dilated"
    params = ["aspp_r12_33", "ctx_r2_128"]


class TransposedBackward(_Backward):
    operator = "transposed"
    params = ["dcgan_4x4s2_8", "unet_2x2s2_28"]


class DeformableBackward(_Backward):
    operator = "deformable"
    params = ["dcn_v2_28", "dcn_v1_56"]


class SampledBackward(_Backward):
    operator = "sampled"
    params = ["sphere_3x3_64x128"]
