"""Pointwise (1x1) convolution: mixes the channels of each pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyconv import checks
from pyconv.checks import Verbatim
from pyconv.operator import Array, Case, Shape
from pyconv.operators._convolution import Convolution, conv_case
from pyconv.operators._docs import shared


@shared
def pointwise_conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    groups: int = 1,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    flip: bool = False,
    algorithm: str = "auto",
    max_workspace: int | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Mix the channels of each pixel: a convolution whose kernel has one tap.

    ``y[n, o, i] = bias[o] + sum over c of weight[o, c] * x[n, c, i*stride - before]``

    Parameters
    ----------
    %(x)s
    weight : array, shape (O, C/groups) or (O, C/groups, 1, ...)
        The mixing matrix. With kernel axes, their number is that of the spatial axes of `x`.
        Without, `x` is read as batched wherever its second axis (the last, for channels_last)
        can be the channels, else as a single image.
    %(bias)s
    %(stride)s
    %(padding)s
    %(groups)s
    %(padding_mode)s
    %(layout)s
    %(flip)s
    %(algorithm)s
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
    .. [1] M. Lin, Q. Chen, S. Yan, "Network in network", ICLR 2014, arXiv:1312.4400.


    Examples
    --------
    >>> import numpy as np, pyconv
    >>> rgb = np.array([[0.2], [0.5], [0.1]], np.float32)       # one pixel, three channels
    >>> luma = np.array([[0.299, 0.587, 0.114]], np.float32)
    >>> pyconv.pointwise_conv(rgb, luma).round(3)
    array([[0.365]], dtype=float32)
    """
    return OPERATOR(
        x, weight, bias, stride=stride, padding=padding, groups=groups,
        padding_mode=padding_mode, layout=layout, flip=flip, algorithm=algorithm,
        max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


class Pointwise(Convolution):
    name = "pointwise"
    aliases = ("1x1",)
    summary = "Mixes the channels of each pixel: a kernel of one tap"
    url = "https://arxiv.org/abs/1312.4400"
    function = staticmethod(pointwise_conv)

    def problem(self, shapes: dict[str, Any], params: dict[str, Any]) -> Any:
        # The weight alone does not say how many axes x has.
        weight = shapes["weight"]
        if len(weight) == 2:
            rank = self._rank(shapes["x"], weight, params)
            weight = weight + (1,) * rank
        elif any(extent != 1 for extent in weight[2:]):
            checks.fail(
                self.name, "weight", "have kernel axes of extent 1", Verbatim(f"shape {weight}")
            )
        return super().problem({**shapes, "weight": weight}, params)

    def _rank(self, x: Shape, weight: Shape, params: dict[str, Any]) -> int:
        """Spatial axes of x for a weight (O, C): batched if it can be."""
        if not 2 <= len(x) <= 5:
            checks.fail(
                self.name, "x", "have 1 to 3 spatial axes, a channel axis and maybe a batch axis",
                Verbatim(f"shape {x}"),
            )  # fmt: skip
        groups = checks.integer(self.name, "groups", params["groups"], minimum=1)
        channels = weight[1] * groups
        last = params["layout"] == "channels_last"
        as_batch = len(x) > 2 and x[-1 if last else 1] == channels
        as_image = len(x) < 5 and x[-1 if last else 0] == channels
        # In channels_last both readings have the channels at the end; the batch reading wins.
        single = len(x) == 2 or (as_image and not as_batch)
        return len(x) - 1 if single else len(x) - 2

    def cases(self) -> Iterator[Case]:
        yield conv_case("matrix", (2, 5, 7, 6), (4, 5))
        yield conv_case("1-D", (2, 3, 17), (6, 3, 1), stride=2)
        yield conv_case("3-D grouped", (1, 4, 3, 5, 4), (6, 2, 1, 1, 1), groups=2, padding=1)
        yield conv_case("channels last", (2, 7, 6, 5), (3, 5, 1, 1), layout="channels_last")


OPERATOR = Pointwise()
