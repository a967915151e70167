"""The operators that are two or more convolutions in a row."""

from __future__ import annotations

import numpy as np

from .arguments import pairs, per_axis
from .loops import conv


def separable(x, depthwise, pointwise, b=None, *, convolve=conv, **params):
    """Depthwise then pointwise; ``params`` are those of the depthwise stage."""
    pointwise = np.asarray(pointwise)
    rank = np.ndim(depthwise) - 2
    layout = params.get("layout", "channels_first")
    channels = np.shape(x)[-1 if layout == "channels_last" else -1 - rank]
    middle = convolve(x, depthwise, groups=channels, **params)
    full = pointwise.reshape(*pointwise.shape[:2], *[1] * rank)
    return convolve(middle, full, b, layout=layout)


def spatially_separable(
    x, *axis_weights, b=None, stride=1, padding=0, dilation=1, convolve=conv, **params
):
    """One convolution per axis, in axis order, each with its own axis' geometry; bias last."""
    rank = len(axis_weights)
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    padding = pairs(padding, rank)
    for a, w in enumerate(axis_weights):
        x = convolve(
            x,
            w,
            b if a == rank - 1 else None,
            stride=[stride[a] if a == other else 1 for other in range(rank)],
            dilation=[dilation[a] if a == other else 1 for other in range(rank)],
            padding=[padding[a] if a == other else (0, 0) for other in range(rank)],
            **params,
        )
    return x
