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

# The layer that each algorithm is timed on; every one that a user can ask for has one.
ALGORITHMS: dict[str, dict[str, Layer]] = {
    "standard": {
        "direct": LAYERS["standard"]["r50_3x3_28"],
        "winograd": LAYERS["standard"]["r50_3x3_28"],
        "fft": (
            {"x": (1, 8, 96, 96), "weight": (8, 8, 31, 31), "bias": (8,)},
            {"padding": 15},
        ),
    },
    "pointwise": {"direct": LAYERS["pointwise"]["r50_1x1_14"]},
    "grouped": {
        "direct": LAYERS["grouped"]["alex_g2_27"],
        "winograd": LAYERS["grouped"]["alex_g2_27"],
    },
    "depthwise": {
        "direct": LAYERS["depthwise"]["convnext_7x7_56"],
        "fft": ({"x": (1, 16, 96, 96), "weight": (16, 1, 31, 31), "bias": (16,)}, {"padding": 15}),
    },
    "depthwise_separable": {"direct": LAYERS["depthwise_separable"]["mobilenet_14"]},
    "spatially_separable": {"direct": LAYERS["spatially_separable"]["inception_7x7_17"]},
    "dilated": {
        "direct": LAYERS["dilated"]["ctx_r2_128"],
        "winograd": LAYERS["dilated"]["ctx_r2_128"],
        "zero_insertion": LAYERS["dilated"]["ctx_r2_128"],
        "subsample": LAYERS["dilated"]["ctx_r2_128"],
    },
    "transposed": {
        "direct": LAYERS["transposed"]["dcgan_4x4s2_8"],
        "phase": LAYERS["transposed"]["dcgan_4x4s2_8"],
        "col2im": LAYERS["transposed"]["dcgan_4x4s2_8"],
        "winograd": LAYERS["transposed"]["dcgan_4x4s2_8"],
    },
    "deformable": {"direct": LAYERS["deformable"]["dcn_v2_28"]},
    "sampled": {"direct": LAYERS["sampled"]["sphere_3x3_64x128"]},
}

# Large images, whose copies with padding or patches would take a multiple of `max_workspace`.
MEMORY_BUDGET = 4 * 2**20
MEMORY: dict[str, Layer] = {
    "standard": ({"x": (1, 32, 320, 256), "weight": (32, 32, 3, 3)}, {"padding": 1}),
    "pointwise": ({"x": (1, 64, 320, 256), "weight": (32, 64)}, {}),
    "grouped": ({"x": (1, 64, 320, 256), "weight": (64, 8, 3, 3)}, {"padding": 1, "groups": 8}),
    "depthwise": ({"x": (1, 64, 320, 256), "weight": (64, 1, 5, 5)}, {"padding": 2}),
    "depthwise_separable": (
        {"x": (1, 64, 320, 256), "depthwise": (64, 1, 3, 3), "pointwise": (32, 64)},
        {"padding": 1},
    ),
    "spatially_separable": (
        {"x": (1, 16, 320, 256), "rows": (16, 16, 7, 1), "columns": (16, 16, 1, 7)},
        {"padding": 3},
    ),
    "dilated": (
        {"x": (1, 32, 320, 256), "weight": (32, 32, 3, 3)},
        {"padding": 4, "dilation": 4},
    ),
    "transposed": (
        {"x": (1, 32, 160, 128), "weight": (32, 32, 4, 4)},
        {"stride": 2, "padding": 1},
    ),
    "deformable": (
        {"x": (1, 32, 160, 128), "offset": (1, 18, 160, 128), "weight": (32, 32, 3, 3)},
        {"padding": 1},
    ),
    "sampled": (
        {"x": (1, 32, 160, 128), "coordinates": (3, 3, 2, 160, 128), "weight": (32, 32, 3, 3)},
        {},
    ),
}

# So small that nothing but the overhead of a call is left.
SMALL: dict[str, Layer] = {
    "standard": ({"x": (1, 8, 8, 8), "weight": (8, 8, 3, 3)}, {"padding": 1}),
    "pointwise": ({"x": (1, 8, 8, 8), "weight": (8, 8)}, {}),
    "grouped": ({"x": (1, 8, 8, 8), "weight": (8, 4, 3, 3)}, {"padding": 1, "groups": 2}),
    "depthwise": ({"x": (1, 8, 8, 8), "weight": (8, 1, 3, 3)}, {"padding": 1}),
    "depthwise_separable": (
        {"x": (1, 8, 8, 8), "depthwise": (8, 1, 3, 3), "pointwise": (8, 8)},
        {"padding": 1},
    ),
    "spatially_separable": (
        {"x": (1, 8, 8, 8), "rows": (8, 8, 3, 1), "columns": (8, 8, 1, 3)},
        {"padding": 1},
    ),
    "dilated": ({"x": (1, 8, 8, 8), "weight": (8, 8, 3, 3)}, {"padding": 2, "dilation": 2}),
    "transposed": ({"x": (1, 8, 8, 8), "weight": (8, 8, 2, 2)}, {"stride": 2}),
    "deformable": (
        {"x": (1, 8, 8, 8), "offset": (1, 18, 8, 8), "weight": (8, 8, 3, 3)},
        {"padding": 1},
    ),
    "sampled": (
        {"x": (1, 8, 8, 8), "coordinates": (3, 3, 2, 8, 8), "weight": (8, 8, 3, 3)},
        {},
    ),
}

# Small layers whose instructions are counted, which takes fifty times as long as the call.
COUNTED: dict[str, Layer] = {
    "standard": ({"x": (1, 32, 28, 28), "weight": (48, 32, 3, 3), "bias": (48,)}, {"padding": 1}),
    "pointwise": ({"x": (1, 128, 20, 20), "weight": (96, 128), "bias": (96,)}, {}),
    "grouped": (
        {"x": (1, 64, 28, 28), "weight": (64, 8, 3, 3), "bias": (64,)},
        {"padding": 1, "groups": 8},
    ),
    "depthwise": (
        {"x": (1, 32, 56, 56), "weight": (32, 1, 3, 3), "bias": (32,)},
        {"padding": 1, "stride": 2},
    ),
    "depthwise_separable": (
        {"x": (1, 64, 28, 28), "depthwise": (64, 1, 3, 3), "pointwise": (64, 64), "bias": (64,)},
        {"padding": 1},
    ),
    "spatially_separable": (
        {"x": (1, 32, 17, 17), "rows": (32, 32, 7, 1), "columns": (32, 32, 1, 7)},
        {"padding": 3},
    ),
    "dilated": (
        {"x": (1, 48, 33, 33), "weight": (48, 48, 3, 3), "bias": (48,)},
        {"padding": 6, "dilation": 6},
    ),
    "transposed": (
        {"x": (1, 64, 10, 10), "weight": (64, 32, 4, 4), "bias": (32,)},
        {"stride": 2, "padding": 1},
    ),
    "deformable": (
        {
            "x": (1, 32, 20, 20),
            "offset": (1, 18, 20, 20),
            "weight": (32, 32, 3, 3),
            "bias": (32,),
            "mask": (1, 9, 20, 20),
        },
        {"padding": 1},
    ),
    "sampled": (
        {"x": (1, 32, 16, 32), "coordinates": (3, 3, 2, 16, 32), "weight": (32, 32, 3, 3)},
        {"padding_mode": "circular"},
    ),
}
