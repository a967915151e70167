"""What the operators with one weight on a regular grid have in common.

`Convolution` is complete: `standard`, `pointwise`, `grouped`, `depthwise` and `dilated` differ in
the weights they take and in nothing else. The helpers read shapes for the other operators too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod
from typing import Any, ClassVar

import numpy as np

from pyconv import algorithms, checks, engine, geometry, reference
from pyconv.checks import Verbatim
from pyconv.engine import Array, Run
from pyconv.geometry import Axis
from pyconv.operator import Case, Cost, Operator, Problem, Shape

LAYOUTS = ("channels_first", "channels_last")

# Residue classes whose gain by Winograd's algorithm is estimated, and that it may take.
MOST_CLASSES = 64


@dataclass(frozen=True)
class ImageShape:
    """The shape of `x`, read according to the layout and the number of spatial axes."""

    batched: bool
    channels_last: bool
    n: int
    channels: int
    spatial: Shape

    def like(self, channels: int, spatial: Iterable[int]) -> Shape:
        """Shape of another image of this layout and batch."""
        inner = (*spatial, channels) if self.channels_last else (channels, *spatial)
        return (self.n, *inner) if self.batched else inner

    def view(self, array: Array) -> Array:
        """`array`, an image of this layout, as ``(N, C, S0, S1, S2)``."""
        return engine.canonical(array, batched=self.batched, channels_last=self.channels_last)

    def plain(self, array: Array) -> Array:
        """`array` as ``(N, C, *S)``."""
        if self.batched and not self.channels_last:
            return array
        return engine.plain(array, batched=self.batched, channels_last=self.channels_last)

    def from_plain(self, array: Array) -> Array:
        """The inverse of `plain`."""
        array = np.moveaxis(array, 1, -1) if self.channels_last else array
        return array if self.batched else array[0]


def image_shape(operator: str, argument: str, shape: Shape, rank: int, layout: Any) -> ImageShape:
    """Read the shape of an image with `rank` spatial axes, with or without the batch axis."""
    layout = checks.choice(operator, "layout", layout, LAYOUTS)
    last = layout == "channels_last"
    if len(shape) not in (rank + 1, rank + 2):
        axes = "(N, *S, C) or (*S, C)" if last else "(N, C, *S) or (C, *S)"
        checks.fail(
            operator, argument, f"be {axes} with {rank} spatial axes, as the weight has",
            Verbatim(f"shape {shape}"),
        )  # fmt: skip
    batched = len(shape) == rank + 2
    inner = shape[1:] if batched else shape
    channels, spatial = (inner[-1], inner[:-1]) if last else (inner[0], inner[1:])
    return ImageShape(batched, last, shape[0] if batched else 1, channels, spatial)


def kernel_rank(operator: str, argument: str, shape: Shape) -> int:
    """Number of spatial axes of a weight ``(O, C, *k)``."""
    if not 3 <= len(shape) <= 5:
        checks.fail(
            operator, argument, "have 1, 2 or 3 kernel axes after its two channel axes",
            Verbatim(f"shape {shape}"),
        )  # fmt: skip
    return len(shape) - 2


def check_bias(operator: str, shape: Shape | None, outputs: int) -> None:
    """A bias has one element per output channel."""
    if shape is not None and shape != (outputs,):
        checks.fail(
            operator, "bias", f"have shape ({outputs},), one element per output channel",
            Verbatim(f"shape {shape}"),
        )  # fmt: skip


def check_groups(
    operator: str, argument: str, weight: Shape, channels: int, groups: int, x: Shape
) -> None:
    """`groups` divides the output channels, and weight and x agree on the input channels."""
    if weight[0] % groups:
        checks.fail(
            operator, "groups", f"divide the {weight[0]} output channels of {argument}", groups
        )
    if channels != weight[1] * groups:
        checks.fail(
            operator, "x",
            f"have {weight[1] * groups} channels ({weight[1]} per group of {argument}, "
            f"times {groups} groups)",
            Verbatim(f"{channels} channels (shape {x})"),
        )  # fmt: skip


def pick_algorithm(operator: Operator, wanted: Any, auto: str, why: str) -> tuple[str, str]:
    """The algorithm to use and the reason, given what ``algorithm=`` says."""
    name = checks.choice(operator.name, "algorithm", wanted, operator.algorithms)
    return (auto, why) if name == "auto" else (name, "asked for")


def choose_winograd(
    axes: Sequence[Axis], rows: int, channels: int, groups: int, time: str
) -> tuple[str, str] | None:
    """Winograd's algorithm, and why, where it is expected to take a small enough part of `time`."""
    gain = algorithms.winograd_gain(axes, rows, channels, groups)
    if gain < algorithms.WORTH_IT:
        return None
    outputs = algorithms.winograd_tile(axes, rows, channels, groups)
    tile = "x".join(map(str, outputs[-len(axes) :]))
    kernel = "x".join(str(a.kernel) for a in axes[-2:])
    return "winograd", f"F({tile}, {kernel}), expected to take 1/{gain:.1f} of {time}"


def describe_adjoint(
    operator: Operator, axes: engine.Axes, weight_shape: Shape, mode: str, wanted: str
) -> engine.Adjoint:
    """The gradient of the input of a convolution, given what ``algorithm=`` says."""
    groups, rows, channels = weight_shape[:3]
    folded = engine.is_folded(axes, mode)
    on = engine.covered(axes) if folded else axes
    algorithm = choose_adjoint(operator, on, rows, channels, groups, wanted)
    describe = engine.describe_folded if folded else engine.describe_adjoint
    return describe(axes, weight_shape, algorithm)


def choose_adjoint(
    operator: Operator, axes: engine.Axes, rows: int, channels: int, groups: int, wanted: str
) -> str:
    """The algorithm for the gradient of the input, given what ``algorithm=`` says.

    `rows` and `channels` are those of a group of the convolution.
    """
    single = all(a.stride == 1 for a in axes)
    classes = [engine.mirrored(axes)] if single else phases(axes)
    if wanted == "auto":
        known = operator.algorithms
        gain = algorithms.phases_gain(classes, channels, rows, groups)
        if "winograd" in known and gain >= algorithms.WORTH_IT:
            return "winograd"
        if "fft" in known and single:
            gain = algorithms.fft_gain(classes[0], channels, rows, groups)
            if gain >= algorithms.WORTH_IT:
                return "fft"
        if algorithms.by_columns(axes, channels, rows, groups):
            return "col2im"
        return "phase"
    if wanted == "winograd":
        return wanted if any(map(algorithms.winograd_takes, classes)) else "phase"
    return "fft" if wanted == "fft" and single else "phase"


def phases(axes: engine.Axes) -> list[engine.Axes]:
    """The residue classes of an adjoint as convolutions; none where they are many."""
    if prod(min(a.stride, a.kernel) for a in axes) > MOST_CLASSES:
        return []
    return engine.phases_of(axes)


def check_winograd(
    operator: str,
    algorithm: str,
    axes: Sequence[Axis],
    takes: bool,
    needed: str = "2 to 5 taps and stride 1, or 3 or 4 taps, not dilated, and stride 2",
) -> None:
    """Refuse Winograd's algorithm for axes that it is not for."""
    if algorithm == "winograd" and not takes:
        kernel, stride = tuple(a.kernel for a in axes), tuple(a.stride for a in axes)
        checks.fail(
            operator, "algorithm",
            f"not be 'winograd' for kernel {kernel} and stride {stride}: the last two axes must "
            f"have {needed}; or one of them 1 tap", "winograd",
        )  # fmt: skip


def count_macs(axes: Iterable[Axis], n: int, outputs: int, channels: int) -> tuple[int, int]:
    """Multiply-adds of a convolution: all, and those that read inside the input."""
    axes = tuple(axes)
    each = n * outputs * channels
    return (
        each * prod(a.out * a.kernel for a in axes),
        each * prod(geometry.valid_taps(a) for a in axes),
    )


def moved_bytes(*shapes: Shape | None) -> int:
    """Size in float32 of everything a call reads or writes."""
    return 4 * sum(prod(shape) for shape in shapes if shape is not None)


@dataclass(frozen=True)
class ConvProblem(Problem):
    """A convolution with one weight."""

    image: ImageShape = ImageShape(True, False, 0, 0, ())
    groups: int = 1
    padding_mode: str = "zeros"
    flip: bool = False
    weight_shape: Shape = ()  # (G, M, C, T0, T1, T2)
    how: engine.Descriptor | None = None  # where the engine does it in one piece
    pieces: tuple[engine.Piece, ...] = ()  # where it does it in several
    adjoint: engine.Adjoint | None = None  # what a transposed one is
    describe_toward_x: Callable[[], Any] | None = field(default=None, compare=False)

    @cached_property
    def toward_x(self) -> Any:
        """The gradient of the input, as the engine takes it; worked out for who asks for it."""
        assert self.describe_toward_x is not None
        return self.describe_toward_x()

    @cached_property
    def tile_toward_weight(self) -> algorithms.Tile | None:
        """Tiles for the gradient of the weight, if that is better transformed; likewise."""
        if self.algorithm != "winograd":
            return None
        groups, rows, channels = self.weight_shape[:3]
        axes = engine.three(self.axes)
        return algorithms.winograd_grad(axes, rows, channels, groups, self.image.n)


class Convolution(Operator):
    """An operator with arrays ``x``, ``weight`` and ``bias``, and the usual parameters."""

    linear = ("x", "weight")

    #: How many groups there are, where the shapes decide it; None where ``groups=`` does.
    depthwise: ClassVar[bool] = False

    def weight_shape(self, weight: Shape, x: Shape) -> Shape:
        """The weight's shape as ``(O, C/groups, *k)``."""
        return weight

    def problem(self, shapes: dict[str, Any], params: dict[str, Any]) -> ConvProblem:
        name = self.name
        weight = self.weight_shape(shapes["weight"], shapes["x"])
        rank = kernel_rank(name, "weight", weight)
        image = image_shape(name, "x", shapes["x"], rank, params["layout"])
        stride = checks.integers(name, "stride", params["stride"], rank, minimum=1)
        dilation = checks.integers(name, "dilation", params.get("dilation", 1), rank, minimum=1)
        padding = checks.padding(name, params["padding"], rank)
        mode = checks.choice(name, "padding_mode", params["padding_mode"], checks.PADDING_MODES)
        flip = checks.flag(name, "flip", params["flip"])
        if self.depthwise:
            groups = self._depthwise_groups(weight, image.channels)
        else:
            groups = checks.integer(name, "groups", params.get("groups", 1), minimum=1)
            check_groups(name, "weight", weight, image.channels, groups, shapes["x"])
        check_bias(name, shapes["bias"], weight[0])
        axes = geometry.conv_axes(name, image.spatial, weight[2:], stride, padding, dilation, mode)
        rows = weight[0] // groups if groups else 0
        chosen = self.choose(axes, rows, weight[1], groups)
        algorithm, reason = pick_algorithm(self, params["algorithm"], *chosen)
        check_winograd(name, algorithm, axes, algorithms.winograd_takes(axes))
        on = engine.three(axes)
        grouped = engine.grouped_shape(weight, groups)
        how = engine.describe(on, grouped, mode, algorithm)
        pieces: tuple[engine.Piece, ...] = ()
        if algorithm == "direct" and mode == "zeros":
            pieces = engine.split_by_taps(on, grouped)
        toward_x = partial(describe_adjoint, self, on, grouped, mode, params["algorithm"])
        output = image.like(weight[0], [a.out for a in axes])
        macs, valid = count_macs(axes, image.n, weight[0], weight[1])
        if mode != "zeros":
            valid = macs
        cost = Cost(
            macs, valid, prod(weight) + prod(shapes["bias"] or (0,)),
            moved_bytes(shapes["x"], weight, shapes["bias"], output),
        )  # fmt: skip
        problem = ConvProblem(
            output, algorithm, reason, cost, axes,
            image=image, groups=groups, padding_mode=mode, flip=flip, weight_shape=grouped,
            how=how, pieces=pieces, describe_toward_x=toward_x,
        )  # fmt: skip
        self.check_algorithm(problem)
        return problem

    def _depthwise_groups(self, weight: Shape, channels: int) -> int:
        if weight[1] != 1:
            checks.fail(
                self.name, "weight", "have shape (C*m, 1, *k), one input channel per output",
                Verbatim(f"shape {weight}"),
            )  # fmt: skip
        if (channels and weight[0] % channels) or (not channels and weight[0]):
            checks.fail(
                self.name, "weight",
                f"have a multiple of the {channels} channels of x as its first axis",
                Verbatim(f"shape {weight}"),
            )  # fmt: skip
        return channels

    #: Why ``algorithm="auto"`` is ``"direct"`` where that is the best.
    direct: ClassVar[str] = "implicit GEMM, or shifted rows where a group is small"

    def choose(
        self, axes: tuple[Axis, ...], rows: int, channels: int, groups: int
    ) -> tuple[str, str]:
        """What ``algorithm="auto"`` means for groups of so many outputs and inputs, and why."""
        if "winograd" in self.algorithms:
            winograd = choose_winograd(axes, rows, channels, groups, "direct's time")
            if winograd is not None:
                return winograd
        if "fft" in self.algorithms:
            gain = algorithms.fft_gain(axes, rows, channels, groups)
            if gain >= algorithms.WORTH_IT:
                return "fft", f"expected to take 1/{gain:.1f} of direct's time"
        return "direct", self.direct

    def check_algorithm(self, problem: ConvProblem) -> None:
        """Refuse an algorithm that is not for this padding."""

    def weight_view(self, problem: ConvProblem, weight: Array) -> Array:
        """The weight as the engine takes it."""
        weight = weight.reshape(problem.weight_shape)
        return weight[..., ::-1, ::-1, ::-1] if problem.flip else weight

    def compute(
        self, problem: Any, arrays: dict[str, Any], out: Array, run: Run, prepared: Any = None
    ) -> int:
        image, x, bias = problem.image, arrays["x"], arrays["bias"]
        # A plan keeps the weight as the engine takes it.
        weight, packed = prepared or (self.weight_view(problem, arrays["weight"]), None)
        if problem.pieces:
            x, y = image.view(x), image.view(out)
            return engine.convolve_pieces(run, x, weight, bias, y, problem.pieces, packed)
        x, y = image.plain(x), image.plain(out)
        return engine.convolve(run, x, weight, bias, y, problem.how, packed)

    def prepare(self, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        weight = self.weight_view(problem, arrays["weight"])
        if problem.pieces:
            return weight, engine.pack_pieces(run, weight, problem.pieces)
        return weight, engine.pack_for(run, weight, problem.how)

    def prepare_gradient(self, name: str, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        if name != "x":
            return None
        weight = self.weight_view(problem, arrays["weight"])
        return engine.pack_for_adjoint(run, weight, problem.toward_x)

    def gradients(
        self, problem: Any, grad: Array, arrays: dict[str, Any], out: dict[str, Any], run: Run,
        prepared: Any = None,
    ) -> None:  # fmt: skip
        dy, axes = problem.image.view(grad), engine.three(problem.axes)
        if "x" in out:
            weight = self.weight_view(problem, arrays["weight"])
            dx, packed = problem.image.view(out["x"]), (prepared or {}).get("x")
            mode = problem.padding_mode
            engine.input_gradient(run, dy, weight, dx, problem.toward_x, mode, packed)
        if "weight" in out:
            dw = self.weight_view(problem, out["weight"])
            x = problem.image.view(arrays["x"])
            tile = problem.tile_toward_weight
            engine.weight_gradient(run, x, dy, dw, axes, problem.padding_mode, tile)
        if "bias" in out:
            engine.bias_gradient(run, dy, out["bias"])

    def define(self, problem: Any, arrays: dict[str, Any]) -> Array:
        weight = arrays["weight"]
        if weight.ndim == 2:
            weight = weight[(...,) + (np.newaxis,) * len(problem.axes)]
        y = reference.correlate(
            problem.image.plain(arrays["x"]), weight, arrays["bias"], problem.axes,
            problem.groups, problem.padding_mode, problem.flip,
        )  # fmt: skip
        return problem.image.from_plain(y)


def conv_case(
    name: str, x: Shape, weight: Shape, bias: bool = True, outputs: int | None = None, **params: Any
) -> Case:
    """A case for an operator with arrays x, weight and bias."""
    shapes = {"x": x, "weight": weight, "bias": (outputs or weight[0],) if bias else None}
    return Case(name, shapes, params)
