"""Transposed convolution: the adjoint of a strided one, by phases or by col2im."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any

from pyconv import algorithms, checks, engine, geometry, reference
from pyconv.checks import Verbatim
from pyconv.engine import Axes, Run
from pyconv.operator import Array, Case, Cost, Operator, Shape
from pyconv.operators._convolution import (
    ConvProblem,
    check_bias,
    check_winograd,
    conv_case,
    count_macs,
    image_shape,
    kernel_rank,
    moved_bytes,
    phases,
    pick_algorithm,
)
from pyconv.operators._docs import shared


@shared
def transposed_conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    output_size: Any = None,
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
    """Apply the adjoint of a strided convolution: upsample with a learnable kernel.

    ``y[n, o, i*stride + t*dilation - before] += weight[c, o, t] * x[n, c, i]`` for all ``c``,
    ``i``, ``t``; then the bias is added.

    Parameters
    ----------
    %(x)s
    weight : array, shape (C, O/groups, *k)
        The weight of the convolution whose adjoint this is.
    %(bias)s
    stride : int or sequence of int
        Step, in elements of the result, between neighbouring elements of `x`.
    padding : int, sequence, or str
        Elements cropped from the ends of the result: an integer, one per axis, one
        ``(before, after)`` pair per axis (negative: extend); or ``"valid"``, whose result has
        ``S*stride + max(reach - stride, 0)`` elements, ``"same"`` (``S*stride``; an odd one is
        cropped at the end) or ``"same_lower"``, with ``reach = dilation*(k-1) + 1``.
    output_padding : int or sequence of int
        Extra elements at the end of the result, less than ``max(stride, dilation)``.
    output_size : int or sequence of int, optional
        Spatial extents of the result, instead of `output_padding`: any that the forward
        convolution maps back to those of `x`.
    %(dilation)s
    %(groups)s
    padding_mode : {"zeros"}
        Only zeros: what is cropped is gone.
    %(layout)s
    flip : bool
        Flip the kernel.
    algorithm : {"auto", "direct", "phase", "col2im", "winograd"}
        ``"phase"`` (and ``"direct"``): one dense convolution for each residue of the result
        modulo the stride, of `x` with zeros around it: an infinite or NaN weight makes NaNs of
        these zeros. ``"col2im"``: a matrix product, whose columns are then gathered, a box of the
        result at a time; each weight reaches only the outputs that `x` reaches by it.
        ``"winograd"``: Winograd's, for each residue that has 2 to 5 taps on the last two axes, or 1
        on one of them. ``"auto"`` takes what is expected to be fastest, see :doc:`/algorithms`.
    %(run)s

    Returns
    -------
    ndarray
        ``(N, O, *S_out)`` with ``S_out = (S-1)*stride - before - after + dilation*(k-1) + 1 +
        output_padding``; without the first axis if `x` has none.

    Raises
    ------
    %(raises)s

    References
    ----------
    .. [1] M. Zeiler et al., "Deconvolutional networks", CVPR 2010.
    .. [2] A. Odena, V. Dumoulin, C. Olah, "Deconvolution and checkerboard artifacts", Distill,
       2016, doi:10.23915/distill.00003.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.array([[[1, 2, 3]]], np.float32)
    >>> weight = np.array([[[1, 1, 1]]], np.float32)
    >>> pyconv.transposed_conv(x, weight, stride=2)      # the overlaps are the checkerboard
    array([[[1., 1., 3., 2., 5., 3., 3.]]], dtype=float32)
    """
    return OPERATOR(
        x, weight, bias, stride=stride, padding=padding, output_padding=output_padding,
        output_size=output_size, dilation=dilation, groups=groups, padding_mode=padding_mode,
        layout=layout, flip=flip, algorithm=algorithm, max_workspace=max_workspace,
        threads=threads, out=out,
    )  # fmt: skip


class Transposed(Operator):
    name = "transposed"
    aliases = ("fractionally_strided",)
    summary = "The adjoint of a strided convolution: upsampling with a learnable kernel"
    url = "https://doi.org/10.23915/distill.00003"
    algorithms = ("auto", "direct", "phase", "col2im", "winograd")
    linear = ("x", "weight")
    function = staticmethod(transposed_conv)

    def problem(self, shapes: dict[str, Any], params: dict[str, Any]) -> ConvProblem:
        name, weight = self.name, shapes["weight"]
        rank = kernel_rank(name, "weight", weight)
        image = image_shape(name, "x", shapes["x"], rank, params["layout"])
        stride = checks.integers(name, "stride", params["stride"], rank, minimum=1)
        dilation = checks.integers(name, "dilation", params["dilation"], rank, minimum=1)
        groups = checks.integer(name, "groups", params["groups"], minimum=1)
        checks.choice(name, "padding_mode", params["padding_mode"], ("zeros",))
        flip = checks.flag(name, "flip", params["flip"])
        if image.channels != weight[0]:
            checks.fail(
                name, "x", f"have {weight[0]} channels, as the first axis of weight",
                Verbatim(f"{image.channels} channels (shape {shapes['x']})"),
            )  # fmt: skip
        if weight[0] % groups:
            checks.fail(name, "groups", f"divide the {weight[0]} input channels of weight", groups)
        outputs = weight[1] * groups
        check_bias(name, shapes["bias"], outputs)
        axes = geometry.transposed_axes(
            name, image.spatial, weight[2:], stride, checks.padding(name, params["padding"], rank),
            dilation, params["output_padding"], params["output_size"],
        )  # fmt: skip
        on = engine.three(axes)
        chosen = _choose(on, weight[1], weight[0] // groups)
        algorithm, reason = pick_algorithm(self, params["algorithm"], *chosen)
        takes = any(map(algorithms.winograd_takes, phases(on)))
        check_winograd(name, algorithm, axes, takes, "2 to 5 taps in a residue of the result")
        shape = engine.grouped_shape(weight, groups)
        output = image.like(outputs, [a.size for a in axes])
        macs, valid = count_macs(axes, image.n, weight[0], weight[1])
        cost = Cost(
            macs, valid, prod(weight) + prod(shapes["bias"] or (0,)),
            moved_bytes(shapes["x"], weight, shapes["bias"], output),
        )  # fmt: skip
        return ConvProblem(
            output, algorithm, reason, cost, axes, True, image=image, groups=groups, flip=flip,
            adjoint=engine.describe_adjoint(on, shape, algorithm),
            describe_toward_x=partial(_describe_gradient, on, shape, params["algorithm"]),
        )  # fmt: skip

    def compute(
        self, problem: Any, arrays: dict[str, Any], out: Array, run: Run, prepared: Any = None
    ) -> int:
        image, bias, what = problem.image, arrays["bias"], problem.adjoint
        canonical = image.view if what.pieces or what.columns else image.plain
        x, y = canonical(arrays["x"]), canonical(out)
        if problem.algorithm == "col2im":  # gathers the columns the other way round instead
            weight = engine.grouped_weight(arrays["weight"], problem.groups)
            axes = engine.three(problem.axes)
            return engine.adjoint_by_columns(run, x, weight, bias, y, axes, problem.flip, prepared)
        if prepared is not None:
            weight, packed = prepared
            return engine.apply_adjoint(run, x, weight, bias, y, what, packed)
        # as it lies in memory
        weight = engine.grouped_weight(arrays["weight"], problem.groups)
        if problem.flip:
            weight = engine.flipped(weight)
        return engine.apply_adjoint(run, x, weight, bias, y, what)

    def prepare(self, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        if problem.algorithm == "col2im":
            weight = engine.grouped_weight(arrays["weight"], problem.groups)
            return engine.pack_columns(weight, run.compute, run.threads)
        weight = engine.grouped_weight(arrays["weight"], problem.groups, problem.flip)
        return weight, engine.pack_for_adjoint(run, weight, problem.adjoint)

    def prepare_gradient(self, name: str, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        if name != "x":
            return None
        weight = engine.grouped_weight(arrays["weight"], problem.groups, problem.flip)
        return engine.pack_for(run, weight, problem.toward_x)

    def gradients(
        self, problem: Any, grad: Array, arrays: dict[str, Any], out: dict[str, Any], run: Run,
        prepared: Any = None,
    ) -> None:  # fmt: skip
        # The gradient of an adjoint is the convolution itself.
        dy, axes = problem.image.view(grad), engine.three(problem.axes)
        if "x" in out and out["x"].size:
            weight = engine.grouped_weight(arrays["weight"], problem.groups, problem.flip)
            dx, packed = problem.image.view(out["x"]), (prepared or {}).get("x")
            engine.convolve(run, dy, weight, None, dx, problem.toward_x, packed)
        if "weight" in out:
            dw = engine.grouped_weight(out["weight"], problem.groups, problem.flip)
            engine.weight_gradient(run, dy, problem.image.view(arrays["x"]), dw, axes)
        if "bias" in out:
            engine.bias_gradient(run, dy, out["bias"])

    def define(self, problem: Any, arrays: dict[str, Any]) -> Array:
        y = reference.correlate_transposed(
            problem.image.plain(arrays["x"]), arrays["weight"], arrays["bias"], problem.axes,
            problem.groups, problem.flip,
        )  # fmt: skip
        return problem.image.from_plain(y)

    def cases(self) -> Iterator[Case]:
        yield conv_case("2-D", (2, 3, 5, 6), (3, 4, 3, 2), outputs=4, stride=2, padding=1)
        yield conv_case("1-D same", (2, 4, 9), (4, 3, 2), outputs=3, stride=3, padding="same")
        yield conv_case(
            "grouped", (1, 6, 5, 4), (6, 2, 3, 3), outputs=4, groups=2, stride=(2, 3),
            output_padding=(1, 2), dilation=(1, 2),
        )  # fmt: skip
        yield conv_case(
            "3-D", (1, 3, 3, 4, 2), (3, 2, 2, 3, 4), outputs=2, stride=(1, 2, 3), padding=(0, 1, 2)
        )
        yield conv_case(
            "channels last", (2, 5, 6, 3), (3, 4, 4, 4), outputs=4, stride=2, padding=1,
            layout="channels_last", output_size=(11, 12),
        )  # fmt: skip
        yield conv_case(
            "col2im", (2, 4, 5, 6), (4, 3, 5, 3), outputs=6, stride=(3, 2), padding=1, groups=2,
            algorithm="col2im",
        )  # fmt: skip
        yield conv_case(
            "winograd", (1, 4, 6, 7), (4, 3, 3, 3), outputs=3, padding=1, algorithm="winograd"
        )
        yield conv_case(
            "winograd strided", (2, 5, 6, 7), (5, 4, 5, 4), outputs=4, stride=2, padding=1,
            algorithm="winograd",
        )  # fmt: skip


OPERATOR = Transposed()


def _choose(axes: Axes, rows: int, channels: int) -> tuple[str, str]:
    gain = algorithms.phases_gain(phases(axes), rows, channels, 1)
    if gain >= algorithms.WORTH_IT:
        return "winograd", f"expected to take 1/{gain:.1f} of the time of phases"
    gain = algorithms.col2im_gain(axes, rows, channels)
    if gain >= algorithms.COLUMNS_WORTH:
        return "col2im", f"few outputs: expected to take 1/{gain:.1f} of the time of phases"
    return "phase", "a dense convolution for each residue of the result"


def _describe_gradient(axes: Axes, weight_shape: Shape, wanted: str) -> Any:
    """The gradient of the input: the convolution that this is the adjoint of."""
    groups, rows, channels = weight_shape[:3]
    if wanted == "auto":
        gain = algorithms.winograd_gain(axes, rows, channels, groups)
        takes = gain >= algorithms.WORTH_IT
    else:
        takes = wanted == "winograd" and algorithms.winograd_takes(axes)
    return engine.describe(axes, weight_shape, algorithm="winograd" if takes else "direct")
