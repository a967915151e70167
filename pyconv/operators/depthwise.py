"""Depthwise convolution: every channel has kernels of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyconv.operator import Array, Case
from pyconv.operators._convolution import Convolution, conv_case
from pyconv.operators._docs import shared


@shared
def depthwise_conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    flip: bool = False,
    algorithm: str = "auto",
    max_workspace: int | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Convolve every channel with kernels of its own.

    ``y[n, c*m + q, i] = bias[c*m + q] + sum over t of
    weight[c*m + q, 0, t] * x[n, c, i*stride + t*dilation - before]``

    Parameters
    ----------
    %(x)s
    weight : array, shape (C*m, 1, *k)
        ``m`` kernels per channel; output channel ``c*m + q`` is kernel ``q`` of channel ``c``.
    %(bias)s
    %(stride)s
    %(padding)s
    %(dilation)s
    %(padding_mode)s
    %(layout)s
    %(flip)s
    %(fft)s
    %(run)s

    Returns
    -------
    ndarray
        ``(N, C*m, *S_out)`` with ``S_out = floor((S + before + after - dilation*(k-1) - 1) /
        stride) + 1``; without the first axis if `x` has none.


    Raises
    ------
    %(raises)s

    References
    ----------
    .. [1] A. Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision
       applications", 2017, arXiv:1704.04861.


    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.array([[[1, 2, 3], [10, 20, 30]]], np.float32)
    >>> weight = np.array([[[1, 1]], [[-1, 1]]], np.float32)
    >>> pyconv.depthwise_conv(x, weight)
    array([[[ 3.,  5.],
            [10., 10.]]], dtype=float32)
    """
    return OPERATOR(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation,
        padding_mode=padding_mode, layout=layout, flip=flip, algorithm=algorithm,
        max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


class Depthwise(Convolution):
    name = "depthwise"
    summary = "Every channel has kernels of its own"
    url = "https://arxiv.org/abs/1704.04861"
    function = staticmethod(depthwise_conv)
    depthwise = True
    algorithms = ("auto", "direct", "fft")

    def cases(self) -> Iterator[Case]:
        yield conv_case("3x3", (2, 5, 9, 12), (5, 1, 3, 3), padding="same")
        yield conv_case("multiplier", (1, 3, 11, 8), (6, 1, 5, 4), stride=(2, 3), padding=2)
        yield conv_case("1-D dilated", (2, 4, 31), (4, 1, 7), dilation=3, padding="causal")
        yield conv_case("3-D", (1, 3, 5, 6, 7), (3, 1, 3, 2, 3), padding=1)
        last: dict[str, Any] = {"layout": "channels_last", "padding_mode": "circular"}
        yield conv_case("channels last", (2, 9, 8, 6), (6, 1, 3, 3), padding=1, **last)


OPERATOR = Depthwise()
