"""The layers that are timed: shapes from published networks, written out, by class.

A layer is a call of a pyconv operator without its values. Names say where a layer comes from,
then kernel and input side: ``r50`` ResNet-50, ``vgg`` VGG-16, ``mbv2`` and ``mbv3`` MobileNet,
``effnet`` EfficientNet-B0, ``resnext`` ResNeXt-50 32x4d, ``regnet`` RegNetX, ``shuffle``
ShuffleNet, ``convnext`` ConvNeXt-T, ``alex`` AlexNet, ``aspp`` DeepLabV3 (with its rate), ``ctx``
the context module of Yu and Koltun, ``unet`` U-Net, ``dcgan`` DCGAN, ``fcn`` FCN, ``srcnn`` SRCNN,
``sep`` MobileNet v1, ``dcn`` ResNet-50 with deformable layers; ``n8`` is a batch of eight.
"""

from __future__ import annotations

import fnmatch
import math
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pyconv.operator import Operator

Shape = tuple[int, ...]
Arrays = dict[str, Any]

CLASSES = {
    "3x3": "3x3, stride 1",
    "direct": "3x3, stride 1, without Winograd",
    "1x1": "1x1",
    "strided": "3x3 stride 2, stems, 5x5, 7x7",
    "dilated": "Dilated",
    "grouped": "Grouped, 4 to 32 channels a group",
    "depthwise": "Depthwise",
    "separable": "Depthwise-separable, fused",
    "transposed": "Transposed",
    "deformable": "Deformable",
    "float64": "float64, of every kind",
    "1d-3d": "1-D and 3-D",
    "image": "One-channel images",
    "overhead": "Call overhead",
    "cases": "Example cases",
}
"""Titles by key; the last is for operators without layers, such as those of other packages."""

GRADIENTS = {
    "3x3-input": "3x3, stride 1: gradients of the input",
    "dense-input": "Other dense layers: gradients of the input",
    "dense-weight": "Dense layers: gradients of the weights",
}
"""Titles of the classes that only gradients have, see `pyconv.bench.gradients`."""

TITLES = {**GRADIENTS, **CLASSES}

APART = ("image", "overhead", "cases")
"""Classes that do not count in the mean over all layers: no network has them."""


@dataclass(frozen=True)
class Layer:
    """A call to time.

    Attributes
    ----------
    name, group : str
        Its name and the key of its class.
    operator : str
        pyconv's name of the operator.
    shapes : mapping of str to shape
        Shapes by array name, in call order.
    params : mapping
        Keyword parameters of the call.
    dtype : {"float32", "float64"}
        The dtype of all arrays.
    needs : tuple of str
        The arrays whose gradients are computed, from the ``grad`` among the shapes; none if it is
        the call itself that is timed.
    """

    name: str
    group: str
    operator: str
    shapes: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    needs: tuple[str, ...] = ()

    @property
    def kernel(self) -> Shape:
        """The extents of the kernel."""
        weight = self.shapes["depthwise" if "depthwise" in self.shapes else "weight"]
        return tuple(weight[2:])

    def __str__(self) -> str:
        shapes = ", ".join(
            f"{name} {_times(shape)}" for name, shape in self.shapes.items() if shape is not None
        )
        params = "".join(f", {name}={value}" for name, value in self.params.items())
        needs = f", gradients of {' '.join(self.needs)}" if self.needs else ""
        return f"{self.operator}: {shapes}{params}, {self.dtype}{needs}"

    def arrays(self) -> Arrays:
        """Return the same arrays at each call: normal, weights scaled as networks have them."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))

        def values(name: str, shape: Any) -> Any:
            if shape is None:
                return None
            if shape and not isinstance(shape[0], int):
                return tuple(values(name, each) for each in shape)
            if name == "mask":
                return rng.random(shape).astype(self.dtype)
            array = rng.standard_normal(shape)
            if name == "offset" and self.needs:
                # No coordinate is an integer, where the derivative jumps, or is one once rounded.
                array = (np.floor(array * 256) + 0.5) / 256
            if name in self.shapes and name not in ("x", "offset", "bias", "grad"):
                array /= np.sqrt(np.prod(shape[1:]))
            return array.astype(self.dtype)

        return {name: values(name, shape) for name, shape in self.shapes.items()}


def _times(shape: Any) -> str:
    if shape and not isinstance(shape[0], int):
        return " and ".join(map(_times, shape))
    return "x".join(map(str, shape))


# ---- a layer of each operator ------------------------------------------------------------------


def conv(
    group: str,
    name: str,
    x: Shape,
    out: int,
    kernel: Any,
    operator: str = "standard",
    **params: Any,
) -> Layer:
    """Return a convolution with `out` channels; `kernel` is one extent, or one per axis."""
    taps = (kernel,) * (len(x) - 2) if isinstance(kernel, int) else tuple(kernel)
    weight = (out, x[1] // params.get("groups", 1), *taps)
    return Layer(name, group, operator, {"x": x, "weight": weight, "bias": (out,)}, params)


def pointwise(group: str, name: str, x: Shape, out: int) -> Layer:
    """Return a 1x1 convolution."""
    return conv(group, name, x, out, 1, "pointwise")


def depthwise(group: str, name: str, x: Shape, kernel: int, times: int = 1, **params: Any) -> Layer:
    """Return a depthwise convolution with `times` kernels per channel."""
    out = x[1] * times
    weight = (out, 1, *(kernel,) * (len(x) - 2))
    return Layer(name, group, "depthwise", {"x": x, "weight": weight, "bias": (out,)}, params)


def separable(group: str, name: str, x: Shape, out: int, kernel: int = 3, **params: Any) -> Layer:
    """Return a depthwise convolution and a 1x1 convolution after it."""
    first = (x[1], 1, *(kernel,) * (len(x) - 2))
    shapes = {
        "x": x,
        "depthwise": first,
        "pointwise": (out, x[1], *(1,) * (len(x) - 2)),
        "bias": (out,),
    }
    return Layer(name, group, "depthwise_separable", shapes, params)


def transposed(group: str, name: str, x: Shape, out: int, kernel: int, **params: Any) -> Layer:
    """Return a transposed convolution."""
    weight = (x[1], out // params.get("groups", 1), *(kernel,) * (len(x) - 2))
    return Layer(name, group, "transposed", {"x": x, "weight": weight, "bias": (out,)}, params)


def deformable(
    group: str, name: str, x: Shape, out: int, *, masked: bool = True, offset_groups: int = 1,
    kernel: int = 3, **params: Any,
) -> Layer:  # fmt: skip
    """Return a deformable convolution, its padding that of a kernel that keeps the size."""
    rank, stride, dilation = len(x) - 2, params.get("stride", 1), params.get("dilation", 1)
    params["padding"] = before = dilation * (kernel - 1) // 2
    reach = dilation * (kernel - 1) + 1
    size = tuple((extent + 2 * before - reach) // stride + 1 for extent in x[2:])
    taps = offset_groups * kernel**rank
    shapes: dict[str, Shape] = {
        "x": x,
        "offset": (x[0], rank * taps, *size),
        "weight": (out, x[1], *(kernel,) * rank),
        "bias": (out,),
    }
    if masked:
        shapes["mask"] = (x[0], taps, *size)
    return Layer(name, group, "deformable", shapes, params)


# ---- the sets ----------------------------------------------------------------------------------

_3X3 = [
    conv("3x3", "r50_3x3_56", (1, 64, 56, 56), 64, 3, padding=1),
    conv("3x3", "r50_3x3_28", (1, 128, 28, 28), 128, 3, padding=1),
    conv("3x3", "r50_3x3_14", (1, 256, 14, 14), 256, 3, padding=1),
    conv("3x3", "r50_3x3_7", (1, 512, 7, 7), 512, 3, padding=1),
    conv("3x3", "r50_3x3_28_n8", (8, 128, 28, 28), 128, 3, padding=1),
    conv("3x3", "r50_3x3_7_n8", (8, 512, 7, 7), 512, 3, padding=1),
    conv("3x3", "vgg_3x3_224", (1, 64, 224, 224), 64, 3, padding=1),
    conv("3x3", "vgg_3x3_112", (1, 128, 112, 112), 128, 3, padding=1),
    conv("3x3", "vgg_3x3_56", (1, 256, 56, 56), 256, 3, padding=1),
    conv("3x3", "vgg_3x3_28", (1, 512, 28, 28), 512, 3, padding=1),
    conv("3x3", "vgg_3x3_14", (1, 512, 14, 14), 512, 3, padding=1),
    conv("3x3", "unet_3x3_280", (1, 64, 282, 282), 128, 3),
    conv("3x3", "unet_3x3_54", (1, 1024, 56, 56), 512, 3),
]

_DIRECT = [
    replace(
        layer,
        name=f"{layer.name}_direct",
        group="direct",
        params={**layer.params, "algorithm": "direct"},
    )
    for layer in _3X3
]

_1X1 = [
    pointwise("1x1", "r50_1x1_56", (1, 256, 56, 56), 64),
    pointwise("1x1", "r50_1x1_56_up", (1, 64, 56, 56), 256),
    pointwise("1x1", "r50_1x1_28", (1, 512, 28, 28), 128),
    pointwise("1x1", "r50_1x1_14", (1, 256, 14, 14), 1024),
    pointwise("1x1", "r50_1x1_7", (1, 2048, 7, 7), 512),
    pointwise("1x1", "r50_1x1_14_n8", (8, 1024, 14, 14), 256),
    conv("1x1", "r50_1x1s2_56", (1, 256, 56, 56), 512, 1, stride=2),
    pointwise("1x1", "mbv2_1x1_112", (1, 32, 112, 112), 16),
    pointwise("1x1", "mbv2_1x1_56", (1, 24, 56, 56), 144),
    pointwise("1x1", "mbv2_1x1_14", (1, 384, 14, 14), 64),
    pointwise("1x1", "mbv2_1x1_7", (1, 320, 7, 7), 1280),
    pointwise("1x1", "mbv3_1x1_14", (1, 112, 14, 14), 672),
    pointwise("1x1", "effnet_1x1_28", (1, 40, 28, 28), 240),
    pointwise("1x1", "convnext_1x1_56", (1, 96, 56, 56), 384),
    pointwise("1x1", "unet_1x1_388", (1, 64, 388, 388), 2),
]

_STRIDED = [
    conv("strided", "first7x7s2", (1, 3, 224, 224), 64, 7, stride=2, padding=3),
    conv("strided", "first7x7s2_n8", (8, 3, 224, 224), 64, 7, stride=2, padding=3),
    conv("strided", "r50_3x3s2_56", (1, 128, 56, 56), 128, 3, stride=2, padding=1),
    conv("strided", "r50_3x3s2_28", (1, 256, 28, 28), 256, 3, stride=2, padding=1),
    conv("strided", "r50_3x3s2_14", (1, 512, 14, 14), 512, 3, stride=2, padding=1),
    conv("strided", "mbv2_3x3s2_224", (1, 3, 224, 224), 32, 3, stride=2, padding=1),
    conv("strided", "alex_11x11s4", (1, 3, 224, 224), 64, 11, stride=4, padding=2),
    conv("strided", "alex_5x5_27", (1, 64, 27, 27), 192, 5, padding=2),
    conv("strided", "alex_g2", (1, 96, 27, 27), 256, 5, "grouped", groups=2, padding=2),
    conv("strided", "googlenet_5x5_28", (1, 32, 28, 28), 96, 5, padding=2),
    conv("strided", "srcnn_9x9", (1, 1, 256, 256), 64, 9, padding=4),
    conv("strided", "srcnn_5x5", (1, 64, 256, 256), 32, 5, padding=2),
    conv("strided", "srcnn_5x5_out", (1, 32, 256, 256), 1, 5, padding=2),
    conv("strided", "dcgan_d_4x4s2_32", (1, 64, 32, 32), 128, 4, stride=2, padding=1),
    conv("strided", "convnext_4x4s4", (1, 3, 224, 224), 96, 4, stride=4),
    conv("strided", "convnext_2x2s2", (1, 96, 56, 56), 192, 2, stride=2),
    conv("strided", "cyclegan_7x7_128", (1, 64, 134, 134), 3, 7),
]

_DILATED = [
    *[
        conv("dilated", f"aspp_r{r}", (1, 256, 33, 33), 256, 3, "dilated", dilation=r, padding=r)
        for r in (6, 12, 18, 24, 36)
    ],
    conv("dilated", "aspp_r12_2048", (1, 2048, 33, 33), 256, 3, "dilated", dilation=12, padding=12),
    conv("dilated", "aspp_r12_65", (1, 256, 65, 65), 256, 3, "dilated", dilation=12, padding=12),
    conv("dilated", "aspp_r6_n8", (8, 256, 33, 33), 256, 3, "dilated", dilation=6, padding=6),
    conv("dilated", "r50_3x3_33_r2", (1, 512, 33, 33), 512, 3, "dilated", dilation=2, padding=2),
    conv("dilated", "ctx_r2_64", (1, 64, 128, 128), 64, 3, "dilated", dilation=2, padding=2),
    conv("dilated", "ctx_r4_64", (1, 64, 128, 128), 64, 3, "dilated", dilation=4, padding=4),
    conv("dilated", "ctx_r16_64", (1, 64, 128, 128), 64, 3, "dilated", dilation=16, padding=16),
]

_GROUPED = [
    conv("grouped", f"resnext_g32_{side}", (1, width, side, side), width, 3, "grouped",
         groups=32, padding=1)
    for side, width in ((56, 128), (28, 256), (14, 512), (7, 1024))
] + [
    conv("grouped", "resnext_g32_14_n8", (8, 512, 14, 14), 512, 3, "grouped",
         groups=32, padding=1),
    conv("grouped", "resnext_g32s2_56", (1, 256, 56, 56), 256, 3, "grouped",
         groups=32, padding=1, stride=2),
    conv("grouped", "resnext_g32s2_28", (1, 512, 28, 28), 512, 3, "grouped",
         groups=32, padding=1, stride=2),
    conv("grouped", "regnet_g8_28", (1, 128, 28, 28), 128, 3, "grouped", groups=16, padding=1),
    conv("grouped", "regnet_g16_14", (1, 400, 14, 14), 400, 3, "grouped", groups=25, padding=1),
    conv("grouped", "regnet_g24_28", (1, 168, 28, 28), 168, 3, "grouped", groups=7, padding=1),
    conv("grouped", "shuffle_1x1g3_28", (1, 240, 28, 28), 60, 1, "grouped", groups=3),
]  # fmt: skip

_DEPTHWISE = [
    depthwise("depthwise", "dw3_112", (1, 32, 112, 112), 3, padding=1),
    depthwise("depthwise", "dw3s2_112", (1, 96, 112, 112), 3, padding=1, stride=2),
    depthwise("depthwise", "dw3_56", (1, 144, 56, 56), 3, padding=1),
    depthwise("depthwise", "dw3_56_n8", (8, 144, 56, 56), 3, padding=1),
    depthwise("depthwise", "dw3_14", (1, 384, 14, 14), 3, padding=1),
    depthwise("depthwise", "dw3s2_14", (1, 576, 14, 14), 3, padding=1, stride=2),
    depthwise("depthwise", "dw3_7", (1, 960, 7, 7), 3, padding=1),
    depthwise("depthwise", "dw5s2_56", (1, 72, 56, 56), 5, padding=2, stride=2),
    depthwise("depthwise", "dw5_28", (1, 120, 28, 28), 5, padding=2),
    depthwise("depthwise", "dw5_14", (1, 672, 14, 14), 5, padding=2),
    depthwise("depthwise", "dw5_7", (1, 1152, 7, 7), 5, padding=2),
    depthwise("depthwise", "dw7_56", (1, 96, 56, 56), 7, padding=3),
    depthwise("depthwise", "dw7_28", (1, 192, 28, 28), 7, padding=3),
    depthwise("depthwise", "dw7_14", (1, 384, 14, 14), 7, padding=3),
    depthwise("depthwise", "dw7_7_n8", (8, 768, 7, 7), 7, padding=3),
    depthwise("depthwise", "dw3_r2_33", (1, 960, 33, 33), 3, padding=2, dilation=2),
    depthwise("depthwise", "dw3_r12_33", (1, 256, 33, 33), 3, padding=12, dilation=12),
    depthwise("depthwise", "dw3x2_56", (1, 32, 56, 56), 3, 2, padding=1),
]

_SEPARABLE = [
    separable("separable", "sep_112", (1, 32, 112, 112), 64, padding=1),
    separable("separable", "seps2_112", (1, 64, 112, 112), 128, padding=1, stride=2),
    separable("separable", "sep_56", (1, 128, 56, 56), 128, padding=1),
    separable("separable", "sep_28", (1, 256, 28, 28), 256, padding=1),
    separable("separable", "sep_14", (1, 512, 14, 14), 512, padding=1),
    separable("separable", "sep_14_n8", (8, 512, 14, 14), 512, padding=1),
    separable("separable", "sep_7", (1, 1024, 7, 7), 1024, padding=1),
    separable("separable", "xception_19", (1, 728, 19, 19), 728, padding=1),
    separable("separable", "aspp_sep_r12", (1, 256, 33, 33), 256, padding=12, dilation=12),
]

_TRANSPOSED = [
    transposed("transposed", "dcgan_4x4s2_4", (1, 1024, 4, 4), 512, 4, stride=2, padding=1),
    transposed("transposed", "dcgan_4x4s2_8", (1, 512, 8, 8), 256, 4, stride=2, padding=1),
    transposed("transposed", "dcgan_4x4s2_16", (1, 256, 16, 16), 128, 4, stride=2, padding=1),
    transposed("transposed", "dcgan_4x4s2_32", (1, 128, 32, 32), 3, 4, stride=2, padding=1),
    transposed("transposed", "dcgan_4x4s2_8_n8", (8, 512, 8, 8), 256, 4, stride=2, padding=1),
    transposed("transposed", "unet_2x2s2_28", (1, 1024, 28, 28), 512, 2, stride=2),
    transposed("transposed", "unet_2x2s2_112", (1, 128, 112, 112), 64, 2, stride=2),
    transposed("transposed", "up3x3s2_56", (1, 64, 56, 56), 64, 3, stride=2, padding=1,
               output_padding=1),
    transposed("transposed", "fcn_4x4s2_16", (1, 21, 16, 16), 21, 4, stride=2),
    transposed("transposed", "fcn_64x64s32", (1, 21, 16, 16), 21, 64, stride=32),
    transposed("transposed", "fcn_dw16x16s8", (1, 21, 70, 70), 21, 16, stride=8, groups=21),
    transposed("transposed", "hifigan_k16s8", (1, 512, 64), 256, 16, stride=8, padding=4),
    transposed("transposed", "istft_k1024s256", (1, 1026, 100), 1, 1024, stride=256),
]  # fmt: skip

_DEFORMABLE = [
    deformable("deformable", "dcn_r50_28", (1, 128, 28, 28), 128),
    deformable("deformable", "dcn_r50_14", (1, 256, 14, 14), 256),
    deformable("deformable", "dcn_r50_7", (1, 512, 7, 7), 512),
    deformable("deformable", "dcn_r50_100x168", (1, 128, 100, 168), 128),
    deformable("deformable", "dcn_r50_50x84", (1, 256, 50, 84), 256),
    deformable("deformable", "dcn_r50s2_50x84", (1, 512, 50, 84), 512, stride=2),
    deformable("deformable", "dcn_r50_25x42", (1, 512, 25, 42), 512),
    deformable("deformable", "dcn_r50_14_n8", (8, 256, 14, 14), 256),
    deformable("deformable", "dcn_v1_56", (1, 64, 56, 56), 64, masked=False),
    deformable("deformable", "dcn_og4_28", (1, 128, 28, 28), 128, offset_groups=4),
]

_1D_3D = [
    conv("1d-3d", "wavenet_r1", (1, 32, 16000), 64, 2, "dilated", dilation=1),
    conv("1d-3d", "wavenet_r16", (1, 32, 16000), 64, 2, "dilated", dilation=16),
    conv("1d-3d", "wavenet_r512", (1, 32, 16000), 64, 2, "dilated", dilation=512),
    conv("1d-3d", "wavenet_256_r8", (1, 256, 4000), 512, 2, "dilated", dilation=8),
    conv("1d-3d", "speech_k5", (1, 80, 1500), 256, 5, padding=2),
    conv("1d-3d", "wav2vec_k3s2", (1, 512, 3199), 512, 3, stride=2),
    conv("1d-3d", "wav2vec_k10s5", (1, 1, 16000), 512, 10, stride=5),
    depthwise("1d-3d", "conformer_dw31", (1, 256, 1000), 31, padding=15),
    conv("1d-3d", "unet3d_3x3x3_32", (1, 32, 32, 32, 32), 32, 3, padding=1),
    conv("1d-3d", "unet3d_3x3x3_16", (1, 128, 16, 16, 16), 128, 3, padding=1),
    transposed("1d-3d", "unet3d_2x2x2s2", (1, 128, 16, 16, 16), 64, 2, stride=2),
    conv("1d-3d", "r3d_stem", (1, 3, 16, 112, 112), 64, (3, 7, 7), stride=(1, 2, 2),
         padding=(1, 3, 3)),
    conv("1d-3d", "r3d_3x3x3s2", (1, 64, 16, 28, 28), 128, 3, stride=2, padding=1),
    depthwise("1d-3d", "x3d_dw3", (1, 108, 16, 28, 28), 3, padding=1),
    pointwise("1d-3d", "x3d_1x1x1", (1, 108, 16, 28, 28), 48),
]  # fmt: skip

_IMAGE = [
    conv("image", "image_15x15", (1, 1, 1024, 1024), 1, 15, padding=7),
    conv("image", "image_31x31", (1, 1, 1024, 1024), 1, 31, padding=15),
]

_OVERHEAD = [conv("overhead", "call_3x3_8", (1, 1, 8, 8), 1, 3, padding=1)]

_IN_DOUBLE = (
    "r50_3x3_56", "r50_3x3_14", "vgg_3x3_28", "r50_1x1_56", "r50_1x1_14", "first7x7s2",
    "r50_3x3s2_28", "alex_5x5_27", "aspp_r12", "ctx_r2_64", "resnext_g32_28", "regnet_g16_14",
    "dw3_56", "dw5_28", "dw7_28", "sep_28", "dcgan_4x4s2_8", "unet_2x2s2_112", "up3x3s2_56",
    "dcn_r50_28", "wavenet_r16", "conformer_dw31", "unet3d_3x3x3_32",
)  # fmt: skip


def _all() -> list[Layer]:
    single = [
        *_3X3, *_DIRECT, *_1X1, *_STRIDED, *_DILATED, *_GROUPED, *_DEPTHWISE, *_SEPARABLE,
        *_TRANSPOSED, *_DEFORMABLE,
    ]  # fmt: skip
    known = {layer.name: layer for layer in [*single, *_1D_3D]}
    double = [
        replace(known[name], name=f"{name}_f64", group="float64", dtype="float64")
        for name in _IN_DOUBLE
    ]
    return [*single, *double, *_1D_3D, *_IMAGE, *_OVERHEAD]


LAYERS: tuple[Layer, ...] = tuple(_all())
"""Every layer, class after class."""


@cache
def operators() -> frozenset[str]:
    """Return the names of the operators that have layers."""
    return frozenset(layer.operator for layer in LAYERS)


def cases(op: Operator) -> list[Layer]:
    """Return an operator's own examples, for one that has no layers here."""
    return [
        Layer(f"{op.name}: {case.name}", "cases", op.name, case.shapes, case.params)
        for case in op.cases()
    ]


_KINDS = {
    "standard": "convolution",
    "pointwise": "convolution",
    "grouped": "convolution",
    "depthwise": "convolution",
    "dilated": "convolution",
    "transposed": "transposed",
    "depthwise_separable": "separable",
    "deformable": "deformable",
}


def description(layer: Layer) -> dict[str, Any]:
    """Return a layer as the processes take it, see `pyconv.bench.peers`."""
    own = {
        "operator": layer.operator,
        "params": dict(layer.params),
        "dtype": layer.dtype,
        "needs": list(layer.needs),
    }
    kind = _KINDS.get(layer.operator)
    if kind is None or layer.group == "cases":  # parameters that other libraries do not have
        return {**own, "kind": None}
    params, rank = layer.params, len(layer.kernel)
    groups, offset_groups = params.get("groups", 1), 1
    if layer.operator in ("depthwise", "depthwise_separable"):
        groups = layer.shapes["x"][1]
    if kind == "deformable":
        offset_groups = layer.shapes["offset"][1] // (rank * math.prod(layer.kernel))
    return {
        **own,
        "kind": kind,
        "kernel": list(layer.kernel),
        "stride": _per_axis(params.get("stride", 1), rank),
        "padding": _per_axis(params.get("padding", 0), rank),
        "dilation": _per_axis(params.get("dilation", 1), rank),
        "output_padding": _per_axis(params.get("output_padding", 0), rank),
        "groups": groups,
        "offset_groups": offset_groups,
        "winograd": params.get("algorithm") != "direct",
    }


def _per_axis(value: Any, rank: int) -> list[int]:
    return [value] * rank if isinstance(value, int) else list(value)


def in_dtype(layers: Iterable[Layer], dtype: str) -> list[Layer]:
    """Return the layers in one dtype, without those that exist only to be in another."""
    return [replace(layer, dtype=dtype) for layer in layers if layer.group != "float64"]


def select(
    layers: Iterable[Layer],
    operators: Collection[str] = (),
    groups: Collection[str] = (),
    pattern: str = "",
) -> list[Layer]:
    """Return those of the operators, the classes and the name; what is empty selects all.

    `pattern` is a glob for the whole name where it has one of ``*?[``, otherwise a part of it.
    """
    glob = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    return [
        layer
        for layer in layers
        if (not operators or layer.operator in operators)
        and (not groups or layer.group in groups)
        and fnmatch.fnmatchcase(layer.name, glob)
    ]
