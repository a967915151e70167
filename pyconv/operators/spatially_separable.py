"""Spatially separable convolution: one 1-D convolution along each axis, one after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

from pyconv import checks, engine, geometry, reference
from pyconv.chain import Chain, Stage
from pyconv.checks import Verbatim
from pyconv.engine import Run
from pyconv.geometry import Axis
from pyconv.operator import Array, Case, Cost, Operator, Shape
from pyconv.operators._convolution import (
    ConvProblem,
    check_bias,
    check_groups,
    count_macs,
    image_shape,
    kernel_rank,
    moved_bytes,
    pick_algorithm,
)
from pyconv.operators._docs import shared


@shared
def spatially_separable_conv(
    x: Any,
    *axis_weights: Any,
    bias: Any = None,
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
    """Convolve along one spatial axis after another, each with a weight of its own.

    A k x k kernel of rank 1 as a column and a row: ``2*k`` multiply-adds instead of ``k*k``. The
    weights are ordinary ones, so channels may be mixed at every step.

    Parameters
    ----------
    %(x)s
    *axis_weights : arrays, shape (O_i, C_i/groups, *k_i)
        One weight per spatial axis, in axis order and applied in that order; weight ``i`` has a
        kernel of 1 on every other axis, and ``C_i = O_(i-1)``.
    %(bias)s
        It is added last.
    stride, padding, dilation
        As for `pyconv.conv`; weight ``i`` takes what they say for axis ``i``.
    groups : int
        Number of blocks of channels that do not see each other, in every step.
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
    .. [1] C. Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR
       2016, arXiv:1512.00567.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.zeros((1, 1, 3, 3), np.float32)
    >>> x[0, 0, 1, 1] = 1
    >>> column = np.array([1, 2, 1], np.float32).reshape(1, 1, 3, 1)
    >>> row = np.array([1, 0, -1], np.float32).reshape(1, 1, 1, 3)
    >>> pyconv.spatially_separable_conv(x, column, row, padding=1, flip=True)    # Sobel's kernel
    array([[[[ 1.,  0., -1.],
             [ 2.,  0., -2.],
             [ 1.,  0., -1.]]]], dtype=float32)
    """
    return OPERATOR(
        x, *axis_weights, bias=bias, stride=stride, padding=padding, dilation=dilation,
        groups=groups, padding_mode=padding_mode, layout=layout, flip=flip, algorithm=algorithm,
        max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


@dataclass(frozen=True)
class SeparableProblem(ConvProblem):
    """A chain of convolutions, one per axis."""

    stages: tuple[tuple[Axis, ...], ...] = ()
    chain: Chain = field(kw_only=True)


class SpatiallySeparable(Operator):
    name = "spatially_separable"
    summary = "One convolution along each axis, one after another"
    url = "https://arxiv.org/abs/1512.00567"
    function = staticmethod(spatially_separable_conv)
    linear = ("x", "axis_weights")

    def problem(self, shapes: dict[str, Any], params: dict[str, Any]) -> SeparableProblem:
        name, weights = self.name, shapes["axis_weights"]
        if not weights:
            checks.fail_type(name, "axis_weights", "be given, one per spatial axis", weights)
        rank = kernel_rank(name, "axis_weights[0]", weights[0])
        image = image_shape(name, "x", shapes["x"], rank, params["layout"])
        groups = checks.integer(name, "groups", params["groups"], minimum=1)
        kernel = self._check_weights(weights, rank, image.channels, groups, shapes["x"])
        check_bias(name, shapes["bias"], weights[-1][0])
        mode = checks.choice(name, "padding_mode", params["padding_mode"], checks.PADDING_MODES)
        axes = geometry.conv_axes(
            name, image.spatial, kernel,
            checks.integers(name, "stride", params["stride"], rank, minimum=1),
            checks.padding(name, params["padding"], rank),
            checks.integers(name, "dilation", params["dilation"], rank, minimum=1), mode,
        )  # fmt: skip
        stages = tuple(
            tuple(
                axis if j == i else geometry.untouched(axis.out if j < i else axis.size)
                for j, axis in enumerate(axes)
            )
            for i in range(rank)
        )
        algorithm, reason = pick_algorithm(
            self, params["algorithm"], "direct", "one convolution per axis, by boxes"
        )
        chain = Chain(
            image.n, image.channels, engine.extents(image.spatial),
            [Stage(engine.grouped_shape(w, groups), engine.three(along))
             for w, along in zip(weights, stages, strict=True)], mode,
        )  # fmt: skip
        output = image.like(weights[-1][0], [a.out for a in axes])
        counts = [count_macs(s, image.n, w[0], w[1]) for s, w in zip(stages, weights, strict=True)]
        macs = sum(all_taps for all_taps, _ in counts)
        cost = Cost(
            macs, sum(valid for _, valid in counts) if mode == "zeros" else macs,
            sum(prod(w) for w in weights) + prod(shapes["bias"] or (0,)),
            moved_bytes(shapes["x"], *weights, shapes["bias"], output),
        )  # fmt: skip
        return SeparableProblem(
            output, algorithm, reason, cost, axes, image=image, groups=groups, padding_mode=mode,
            flip=checks.flag(name, "flip", params["flip"]), stages=stages,
            chain=chain,
        )  # fmt: skip

    def _check_weights(
        self, weights: tuple[Shape, ...], rank: int, channels: int, groups: int, x: Shape
    ) -> list[int]:
        """Kernel extents along each axis, every weight having one along its own only."""
        if len(weights) != rank:
            checks.fail(
                self.name, "axis_weights", f"be {rank}, one per spatial axis of the first",
                Verbatim(f"{len(weights)} weights"),
            )  # fmt: skip
        kernel = []
        for i, weight in enumerate(weights):
            others = weight[2 : 2 + i] + weight[3 + i :]
            if len(weight) != rank + 2 or any(extent != 1 for extent in others):
                checks.fail(
                    self.name, f"axis_weights[{i}]",
                    f"have {rank} kernel axes, of extent 1 on all but axis {i}",
                    Verbatim(f"shape {weight}"),
                )  # fmt: skip
            if i == 0:
                check_groups(self.name, "axis_weights[0]", weight, channels, groups, x)
            elif weight[1] * groups != weights[i - 1][0] or weight[0] % groups:
                checks.fail(
                    self.name, f"axis_weights[{i}]",
                    f"take the {weights[i - 1][0]} channels of the weight before it, in "
                    f"{groups} groups", Verbatim(f"shape {weight}"),
                )  # fmt: skip
            kernel.append(weight[2 + i])
        return kernel

    def _weights(self, problem: Any, weights: Any) -> list[Array]:
        """The weights as the engine takes them."""
        return [engine.grouped_weight(w, problem.groups, problem.flip) for w in weights]

    def compute(
        self, problem: Any, arrays: dict[str, Any], out: Array, run: Run, prepared: Any = None
    ) -> int:
        if prepared is None:
            weights = self._weights(problem, arrays["axis_weights"])
            prepared = weights, (None,) * len(weights)
        x, y = problem.image.view(arrays["x"]), problem.image.view(out)
        return problem.chain.forward(run, x, *prepared, arrays["bias"], y)

    def prepare(self, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        weights = self._weights(problem, arrays["axis_weights"])
        return weights, problem.chain.pack(run, weights)

    def prepare_gradient(self, name: str, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        if name != "axis_weights":
            return None
        return problem.chain.pack(run, self._weights(problem, arrays["axis_weights"]))

    def gradients(
        self, problem: Any, grad: Array, arrays: dict[str, Any], out: dict[str, Any], run: Run,
        prepared: Any = None,
    ) -> None:  # fmt: skip
        view, chain = problem.image.view, problem.chain
        x, dy = view(arrays["x"]), view(grad)
        weights = self._weights(problem, arrays["axis_weights"])
        if "axis_weights" in out:
            packs = (prepared or {}).get("axis_weights")
            for level, result in enumerate(self._weights(problem, out["axis_weights"])):
                chain.weight_gradient(run, x, weights, level, dy, result, packs)
        if "x" in out:
            chain.input_gradient(run, x, weights, dy, view(out["x"]))
        if "bias" in out:
            engine.bias_gradient(run, dy, out["bias"])

    def define(self, problem: Any, arrays: dict[str, Any]) -> Array:
        weights = arrays["axis_weights"]
        y = problem.image.plain(arrays["x"])
        for i, (weight, axes) in enumerate(zip(weights, problem.stages, strict=True)):
            bias = arrays["bias"] if i == len(weights) - 1 else None
            y = reference.correlate(
                y, weight, bias, axes, problem.groups, problem.padding_mode, problem.flip
            )
        return problem.image.from_plain(y)

    def cases(self) -> Iterator[Case]:
        yield _case("2-D", (2, 3, 9, 8), (4, 3, 5, 1), (5, 4, 1, 3), padding="same")
        yield _case("1-D", (2, 3, 19), (4, 3, 5), stride=2, padding=1)
        yield _case(
            "grouped", (1, 4, 10, 9), (6, 2, 3, 1), (4, 3, 1, 4), groups=2, stride=(2, 1),
            dilation=(1, 2), padding=((1, 2), (0, 3)),
        )  # fmt: skip
        yield _case(
            "3-D", (1, 2, 5, 6, 4), (3, 2, 3, 1, 1), (2, 3, 1, 2, 1), (4, 2, 1, 1, 3), padding=1
        )
        yield _case(
            "channels last", (2, 7, 9, 3), (3, 1, 3, 1), (3, 1, 1, 5), groups=3, padding=(1, 2),
            layout="channels_last", padding_mode="reflect",
        )  # fmt: skip


def _case(name: str, x: Shape, *weights: Shape, **params: Any) -> Case:
    return Case(name, {"x": x, "axis_weights": weights, "bias": weights[-1][:1]}, params)


OPERATOR = SpatiallySeparable()
