"""Grouped convolution: blocks of channels that do not see each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyconv.operator import Array, Case
from pyconv.operators._convolution import Convolution, conv_case
from pyconv.operators._docs import shared


@shared
def grouped_conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    groups: int,
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
    """Convolve each of several blocks of channels with kernels of its own.

    Output channels ``g*M .. g*M + M-1`` (``M = O/groups``) see input channels ``g*C/groups ..``
    only: `pyconv.conv` with the groups spelled out.

    Parameters
    ----------
    %(x)s
    weight : array, shape (O, C/groups, *k)
        A kernel for each output channel and each input channel of its group.
    %(bias)s
    %(groups)s
    %(stride)s
    %(padding)s
    %(dilation)s
    %(padding_mode)s
    %(layout)s
    %(flip)s
    %(winograd)s
    %(run)s

    Returns
    -------
    ndarray
        ``(N, O, *S_out)`` with ``S_out = floor((S + before + after - dilation*(k-1) - 1) / stride)
        + 1``; without the first axis if `x` has none.


    Raises
    ------
    %(raises)s

    References
    ----------
    .. [1] A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional
       neural networks", NeurIPS 2012.
    .. [2] S. Xie et al., "Aggregated residual transformations for deep neural networks", CVPR
       2017, arXiv:1611.05431.


    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.array([[[1, 2, 3], [10, 20, 30]]], np.float32)
    >>> weight = np.array([[[1, 1]], [[1, -1]]], np.float32)    # a sum for one, a difference
    >>> pyconv.grouped_conv(x, weight, groups=2)
    array([[[  3.,   5.],
            [-10., -10.]]], dtype=float32)
    """
    return OPERATOR(
        x, weight, bias, groups=groups, stride=stride, padding=padding, dilation=dilation,
        padding_mode=padding_mode, layout=layout, flip=flip, algorithm=algorithm,
        max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


class Grouped(Convolution):
    name = "grouped"
    summary = "Blocks of channels that do not see each other"
    url = "https://arxiv.org/abs/1611.05431"
    algorithms = ("auto", "direct", "winograd")
    function = staticmethod(grouped_conv)

    def cases(self) -> Iterator[Case]:
        yield conv_case("2-D", (2, 6, 9, 7), (8, 3, 3, 2), groups=2, padding=1)
        yield conv_case("1-D strided", (1, 8, 23), (12, 2, 5), groups=4, stride=3, padding="same")
        yield conv_case("3-D", (1, 6, 4, 5, 6), (3, 2, 2, 2, 3), groups=3, dilation=(1, 2, 1))
        yield conv_case(
            "winograd", (2, 16, 9, 14), (18, 8, 3, 3), groups=2, padding=1, algorithm="winograd"
        )
        yield conv_case("channels last", (6, 9, 4), (4, 2, 3, 3), groups=2, layout="channels_last")


OPERATOR = Grouped()
