"""Depthwise-separable convolution: kernels per channel, then a mix of the channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from pyconv import checks, engine, geometry, reference
from pyconv.chain import Chain, Stage
from pyconv.checks import Verbatim
from pyconv.engine import Run
from pyconv.operator import Array, Case, Cost, Operator, Shape
from pyconv.operators._convolution import (
    ConvProblem,
    check_bias,
    count_macs,
    image_shape,
    kernel_rank,
    moved_bytes,
    pick_algorithm,
)
from pyconv.operators._docs import shared


@shared
def depthwise_separable_conv(
    x: Any,
    depthwise: Any,
    pointwise: Any,
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
    """Convolve every channel with kernels of its own, then mix the channels of each pixel.

    `pyconv.depthwise_conv` followed by `pyconv.pointwise_conv`, without the image in between.
    Stride, padding and dilation are those of the depthwise stage.

    Parameters
    ----------
    %(x)s
    depthwise : array, shape (C*m, 1, *k)
        ``m`` kernels per channel.
    pointwise : array, shape (O, C*m) or (O, C*m, 1, ...)
        The mixing matrix.
    %(bias)s
    %(stride)s
    %(padding)s
    %(dilation)s
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
    .. [1] F. Chollet, "Xception: deep learning with depthwise separable convolutions", CVPR 2017,
       arXiv:1610.02357.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.array([[[1, 2, 3], [10, 20, 30]]], np.float32)
    >>> depthwise = np.array([[[1, 1]], [[-1, 1]]], np.float32)
    >>> pointwise = np.array([[1, 0], [1, 1]], np.float32)
    >>> pyconv.depthwise_separable_conv(x, depthwise, pointwise)
    array([[[ 3.,  5.],
            [13., 15.]]], dtype=float32)
    """
    return OPERATOR(
        x, depthwise, pointwise, bias, stride=stride, padding=padding, dilation=dilation,
        padding_mode=padding_mode, layout=layout, flip=flip, algorithm=algorithm,
        max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


@dataclass(frozen=True)
class SeparableProblem(ConvProblem):
    """A convolution of each channel (`weight_shape`) and a mix of the channels.

    Together as `how` says, or, where that is None, one after the other as a chain. So are the
    gradients.
    """

    chain: Chain = field(kw_only=True)


class DepthwiseSeparable(Operator):
    name = "depthwise_separable"
    aliases = ("separable",)
    summary = "Kernels per channel, then a mix of the channels"
    url = "https://arxiv.org/abs/1610.02357"
    function = staticmethod(depthwise_separable_conv)
    linear = ("x", "depthwise", "pointwise")

    def problem(self, shapes: dict[str, Any], params: dict[str, Any]) -> ConvProblem:
        name, kernel, mix = self.name, shapes["depthwise"], shapes["pointwise"]
        rank = kernel_rank(name, "depthwise", kernel)
        image = image_shape(name, "x", shapes["x"], rank, params["layout"])
        self._check_stages(kernel, mix, image.channels, rank)
        check_bias(name, shapes["bias"], mix[0])
        mode = checks.choice(name, "padding_mode", params["padding_mode"], checks.PADDING_MODES)
        axes = geometry.conv_axes(
            name, image.spatial, kernel[2:],
            checks.integers(name, "stride", params["stride"], rank, minimum=1),
            checks.padding(name, params["padding"], rank),
            checks.integers(name, "dilation", params["dilation"], rank, minimum=1), mode,
        )  # fmt: skip
        on = engine.three(axes)
        grouped = (
            image.channels, kernel[0] // max(image.channels, 1), 1, *(a.kernel for a in on)
        )  # fmt: skip
        how = engine.describe_mixed(on, grouped, mix[0], mode)
        why = "a depthwise convolution, tile by tile the operand of a matrix product"
        if how is None:
            why = "a depthwise and a pointwise convolution, by boxes"
        algorithm, reason = pick_algorithm(self, params["algorithm"], "direct", why)
        unit = engine.unmoved(axes)
        stages = Stage(grouped, on), Stage((1, *mix[:2], 1, 1, 1), unit)
        output = image.like(mix[0], [a.out for a in axes])
        macs, valid = count_macs(axes, image.n, kernel[0], 1)
        mixing = prod(output) * mix[1]
        cost = Cost(
            macs + mixing, (valid if mode == "zeros" else macs) + mixing,
            prod(kernel) + prod(mix) + prod(shapes["bias"] or (0,)),
            moved_bytes(shapes["x"], kernel, mix, shapes["bias"], output),
        )  # fmt: skip
        return SeparableProblem(
            output, algorithm, reason, cost, axes, image=image, padding_mode=mode,
            flip=checks.flag(name, "flip", params["flip"]), weight_shape=grouped, how=how,
            chain=Chain(image.n, image.channels, engine.extents(image.spatial), stages, mode),
        )  # fmt: skip

    def _check_stages(self, kernel: Shape, mix: Shape, channels: int, rank: int) -> None:
        bad = kernel[0] % channels if channels else kernel[0]
        if kernel[1] != 1 or bad:
            checks.fail(
                self.name, "depthwise",
                f"have shape (C*m, 1, *k) for the {channels} channels of x",
                Verbatim(f"shape {kernel}"),
            )  # fmt: skip
        if mix not in ((mix[:1] + kernel[:1]), (mix[:1] + kernel[:1] + (1,) * rank)):
            checks.fail(
                self.name, "pointwise",
                f"have shape (O, {kernel[0]}), maybe with {rank} axes of extent 1",
                Verbatim(f"shape {mix}"),
            )  # fmt: skip

    def _weights(self, problem: Any, arrays: dict[str, Any]) -> tuple[Array, Array]:
        """Both weights as the engine takes them."""
        kernel = arrays["depthwise"].reshape(problem.weight_shape)
        if problem.flip:
            kernel = kernel[..., ::-1, ::-1, ::-1]
        mix = arrays["pointwise"]
        return kernel, engine.matrix(mix.reshape(1, *mix.shape[:2]))

    def compute(
        self, problem: Any, arrays: dict[str, Any], out: Array, run: Run, prepared: Any = None
    ) -> int:
        image, x, bias = problem.image, arrays["x"], arrays["bias"]
        kernel, mix, packs = prepared or (*self._weights(problem, arrays), (None, None))
        if problem.how is None:
            x, y = image.view(x), image.view(out)
            return problem.chain.forward(run, x, (kernel, mix), packs, bias, y)
        x, y = image.plain(x), image.plain(out)
        return engine.convolve_mixed(run, x, kernel, mix, bias, y, problem.how, packs[1])

    def prepare(self, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        kernel, mix = self._weights(problem, arrays)
        if problem.how is None:
            packs = problem.chain.pack(run, (kernel, mix))
        else:  # the taps as they are read: in order, in the compute type
            kernel = np.ascontiguousarray(kernel, run.dtype)
            packs = None, engine.pack_for(run, mix, problem.how)
        return kernel, mix, packs

    def prepare_gradient(self, name: str, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        if name == "x" or name == "depthwise":  # both go back through the mix
            return problem.chain.pack_back(run, self._weights(problem, arrays))
        return None

    def gradients(
        self, problem: Any, grad: Array, arrays: dict[str, Any], out: dict[str, Any], run: Run,
        prepared: Any = None,
    ) -> None:  # fmt: skip
        view, chain = problem.image.view, problem.chain
        x, dy = view(arrays["x"]), view(grad)
        weights, kept = self._weights(problem, arrays), prepared or {}
        results = self._weights(problem, {**arrays, **out})
        for level, name in enumerate(("depthwise", "pointwise")):
            if name in out:
                back = kept.get("x", kept.get(name))
                chain.weight_gradient(run, x, weights, level, dy, results[level], back=back)
        if "x" in out:
            chain.input_gradient(run, x, weights, dy, view(out["x"]), kept.get("x"))
        if "bias" in out:
            engine.bias_gradient(run, dy, out["bias"])

    def define(self, problem: Any, arrays: dict[str, Any]) -> Array:
        axes, image = problem.axes, problem.image
        between = reference.correlate(
            image.plain(arrays["x"]), arrays["depthwise"], None, axes, image.channels,
            problem.padding_mode, problem.flip,
        )  # fmt: skip
        mix = arrays["pointwise"]
        mix = mix.reshape(mix.shape[:2] + (1,) * len(axes))
        unit = [geometry.untouched(a.out) for a in axes]
        return image.from_plain(reference.correlate(between, mix, arrays["bias"], unit))

    def cases(self) -> Iterator[Case]:
        yield _case("2-D", (2, 4, 9, 11), (4, 1, 3, 3), (5, 4), padding="same")
        yield _case("multiplier", (1, 3, 10, 7), (6, 1, 3, 4), (4, 6), stride=(2, 1), padding=1)
        yield _case("1-D dilated", (2, 5, 29), (5, 1, 5), (3, 5, 1), dilation=2, padding="causal")
        yield _case("3-D", (1, 3, 4, 6, 5), (3, 1, 2, 3, 3), (4, 3), padding=1)
        last = {"layout": "channels_last", "padding_mode": "symmetric"}
        yield _case("channels last", (2, 8, 7, 3), (3, 1, 3, 3), (4, 3, 1, 1), padding=1, **last)


def _case(name: str, x: Shape, depthwise: Shape, pointwise: Shape, **params: Any) -> Case:
    shapes = {"x": x, "depthwise": depthwise, "pointwise": pointwise, "bias": pointwise[:1]}
    return Case(name, shapes, params)


OPERATOR = DepthwiseSeparable()
