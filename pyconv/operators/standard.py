"""Standard convolution: every output channel looks at every input channel of its group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyconv.operator import Array, Case
from pyconv.operators._convolution import Convolution, conv_case
from pyconv.operators._docs import shared


@shared
def conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    flip: bool = False,
    algorithm: str = "auto",
    max_workspace: int | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Convolve images with a bank of kernels, in 1, 2 or 3 dimensions.

    ``y[n, o, i] = bias[o] + sum over c, t of
    weight[o, c, t] * x[n, c, i*stride + t*dilation - before]``: correlation, as in every
    deep-learning library; ``flip=True`` flips the kernel.

    Parameters
    ----------
    %(x)s
    weight : array, shape (O, C/groups, *k)
        A kernel for each output channel and each input channel of its group.
    %(bias)s
    %(stride)s
    %(padding)s
    %(dilation)s
    %(groups)s
    %(padding_mode)s
    %(layout)s
    %(flip)s
    %(winograd, fft)s
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
    .. [1] V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016,
       arXiv:1603.07285.


    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> weight = np.ones((1, 1, 3, 3), np.float32)
    >>> pyconv.conv(x, weight)
    array([[[[45., 54.],
             [81., 90.]]]], dtype=float32)
    """
    return OPERATOR(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
        padding_mode=padding_mode, layout=layout, flip=flip, algorithm=algorithm,
        max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


class Standard(Convolution):
    name = "standard"
    aliases = ("conv",)
    summary = "Every output channel looks at every input channel of its group"
    url = "https://arxiv.org/abs/1603.07285"
    algorithms = ("auto", "direct", "winograd", "fft")
    function = staticmethod(conv)

    def cases(self) -> Iterator[Case]:
        yield conv_case("1-D strided", (2, 3, 17), (4, 3, 5), stride=2, padding=2)
        yield conv_case("2-D same", (2, 3, 9, 11), (5, 3, 3, 2), padding="same")
        yield conv_case("3-D", (1, 2, 5, 6, 7), (3, 2, 2, 3, 1), padding=1, stride=(1, 2, 1))
        pads = ((1, 0), (2, -1))
        yield conv_case("groups", (1, 6, 8, 7), (4, 3, 3, 3), groups=2, stride=(2, 1), padding=pads)
        yield conv_case(
            "winograd", (2, 17, 14, 19), (20, 17, 3, 3), padding=1, algorithm="winograd"
        )
        yield conv_case(
            "winograd 3-D", (1, 9, 6, 9, 11), (8, 9, 2, 3, 3), stride=(2, 1, 1), padding=1,
            algorithm="winograd",
        )  # fmt: skip
        last: dict[str, Any] = {"layout": "channels_last", "padding_mode": "reflect"}
        yield conv_case("channels last", (2, 9, 8, 3), (4, 3, 3, 3), padding=1, **last)


OPERATOR = Standard()
