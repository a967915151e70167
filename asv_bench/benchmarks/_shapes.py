"""The layers that are timed, written out.

These literals are frozen: a changed shape would look like a changed speed. They come from no
module of pyconv, so that old commits can be timed with today's benchmarks. Add layers under new
names instead of editing one.

Every layer is (shapes in call order, keyword parameters). Where the shapes come from:
``r50`` ResNet-50, ``vgg`` VGG-16, ``alex`` AlexNet, ``resnext`` ResNeXt-50 32x4d, ``mobilenet``
MobileNet v1, ``convnext`` ConvNeXt-T, ``inception`` Inception v3, ``aspp`` DeepLab v3, ``ctx`` the
context module of Yu and Koltun, ``dcgan`` DCGAN, ``unet`` U-Net, ``dcn`` ResNet-50 with deformable
3x3 layers (v2 with a mask, v1 without).
"""

from __future__ import annotations

from typing import Any

Layer = tuple[dict[str, tuple[int, ...]], dict[str, Any]]

LAYERS: dict[str, dict[str, Layer]] = {
    "standard": {
        "r50_3x3_28": (
            {"x": (1, 128, 28, 28), "weight": (128, 128, 3, 3), "bias": (128,)},
            {"padding": 1},
        ),
        "r50_7x7s2_224": (
            {"x": (1, 3, 224, 224), "weight": (64, 3, 7, 7), "bias": (64,)},
            {"padding": 3, "stride": 2},
        ),
        "speech_1d": (
            {"x": (1, 80, 1500), "weight": (256, 80, 5), "bias": (256,)},
            {"padding": 2},
        ),
        "video_3d": (
            {"x": (1, 32, 8, 28, 28), "weight": (32, 32, 3, 3, 3), "bias": (32,)},
            {"padding": 1},
        ),
    },
    "pointwise": {
        "r50_1x1_56": ({"x": (1, 256, 56, 56), "weight": (64, 256), "bias": (64,)}, {}),
        "r50_1x1_14": ({"x": (1, 256, 14, 14), "weight": (1024, 256), "bias": (1024,)}, {}),
    },
    "grouped": {
        "resnext_g32_56": (
            {"x": (1, 128, 56, 56), "weight": (128, 4, 3, 3), "bias": (128,)},
            {"groups": 32, "padding": 1},
        ),
        "alex_g2_27": (
            {"x": (1, 96, 27, 27), "weight": (256, 48, 5, 5), "bias": (256,)},
            {"groups": 2, "padding": 2},
        ),
    },
    "depthwise": {
        "mobilenet_3x3_112": (
            {"x": (1, 32, 112, 112), "weight": (32, 1, 3, 3), "bias": (32,)},
            {"padding": 1},
        ),
        "mobilenet_3x3s2_112": (
            {"x": (1, 64, 112, 112), "weight": (64, 1, 3, 3), "bias": (64,)},
            {"padding": 1, "stride": 2},
        ),
        "convnext_7x7_56": (
            {"x": (1, 96, 56, 56), "weight": (96, 1, 7, 7), "bias": (96,)},
            {"padding": 3},
        ),
    },
    "depthwise_separable": {
        "mobilenet_14": (
            {
                "x": (1, 512, 14, 14),
                "depthwise": (512, 1, 3, 3),
                "pointwise": (512, 512),
                "bias": (512,),
            },
            {"padding": 1},
        ),
        "mobilenet_56": (
            {
                "x": (1, 128, 56, 56),
                "depthwise": (128, 1, 3, 3),
                "pointwise": (128, 128),
                "bias": (128,),
            },
            {"padding": 1},
        ),
    },
    "spatially_separable": {
        "inception_7x7_17": (
            {"x": (1, 192, 17, 17), "rows": (192, 192, 7, 1), "columns": (192, 192, 1, 7)},
            {"padding": 3},
        ),
        "blur_31x31_512": (
            {"x": (1, 1, 512, 512), "rows": (1, 1, 31, 1), "columns": (1, 1, 1, 31)},
            {"padding": 15},
        ),
    },
    "dilated": {
        "aspp_r12_33": (
            {"x": (1, 256, 33, 33), "weight": (256, 256, 3, 3), "bias": (256,)},
            {"dilation": 12, "padding": 12},
        ),
        "ctx_r2_128": (
            {"x": (1, 64, 128, 128), "weight": (64, 64, 3, 3), "bias": (64,)},
            {"dilation": 2, "padding": 2},
        ),
    },
    "transposed": {
        "dcgan_4x4s2_8": (
            {"x": (1, 512, 8, 8), "weight": (512, 256, 4, 4), "bias": (256,)},
            {"stride": 2, "padding": 1},
        ),
        "unet_2x2s2_28": (
            {"x": (1, 512, 28, 28), "weight": (512, 256, 2, 2), "bias": (256,)},
            {"stride": 2},
        ),
    },
    "deformable": {
        "dcn_v2_28": (
            {
                "x": (1, 128, 28, 28),
                "offset": (1, 18, 28, 28),
                "weight": (128, 128, 3, 3),
                "bias": (128,),
                "mask": (1, 9, 28, 28),
            },
            {"padding": 1},
        ),
        "dcn_v1_56": (
            {"x": (1, 64, 56, 56), "offset": (1, 18, 56, 56), "weight": (64, 64, 3, 3)},
            {"padding": 1},
        ),
    },
    "sampled": {
        "sphere_3x3_64x128": (
            {
                "x": (1, 64, 64, 128),
                "coordinates": (3, 3, 2, 64, 128),
                "weight": (64, 64, 3, 3),
            },
            {"padding_mode": "circular"},
        ),
    },
}

# The arrays that differ from call to call; a plan is made from the others.
PER_CALL = ("x", "offset", "mask")
