"""Deformable convolution: every output looks where its offsets say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from pyconv import checks, engine, geometry, reference
from pyconv._kernels import _deform, _deform_grad
from pyconv.checks import Verbatim
from pyconv.engine import Axes, Box, Run
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
from pyconv.tangents import Sum

# Elements of a 16-bit gradient that are rounded at a time.
MOST_INDICES = 2**16

# Columns of the gradients that are made at a time: they stay in cache.
COLUMN_BYTES = 2 * 2**20

Views = tuple[Array, Array, Array | None]  # x, offset and mask as (N, C, S0, S1, S2)
Numbers = tuple[list[int], list[int], list[int]]  # of `engine.numbers`


@shared
def deformable_conv(
    x: Any,
    offset: Any,
    weight: Any,
    bias: Any = None,
    mask: Any = None,
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
    """Convolve at positions of the input that differ from output to output.

    ``y[n, o, i] = bias[o] + sum over c, t of weight[o, c, t] * mask[n, g, t, i] * S(x[n, c], v)``
    at ``v = i*stride + t*dilation - before + offset[n, g, t, :, i]``. ``S`` interpolates linearly
    along each axis between the elements around ``v``, those outside the array counting as 0; it
    is 0 where ``v <= -1`` or ``v >= size`` on any axis, and where a coordinate is NaN or infinite.
    Each of the ``G`` offset groups, ``g``, serves ``C / G`` consecutive channels.

    Parameters
    ----------
    %(x)s
    offset : array, shape (N, G*n*K, *S_out)
        Displacements in elements of `x`, for ``n`` spatial axes and ``K`` taps: channel
        ``g*n*K + n*tap + axis``, in the order of the array's axes. In 2-D that is
        ``(N, G, kh, kw, 2, *S_out)`` with y before x, as elsewhere. Unbatched with `x`.
    weight : array, shape (O, C/groups, *k)
        A kernel for each output channel and each input channel of its group; their number and
        that of the offset groups follow from the shapes.
    %(bias)s
    mask : array, shape (N, G*K, *S_out), optional
        Factor of each sample, channel ``g*K + tap``.
    %(stride)s
    %(padding)s
    %(dilation)s
    padding_mode : {"zeros"}
        Only zeros: samples outside the array are 0.
    %(layout)s
        It holds for `offset` and `mask` too.
    flip : bool
        Flip the weight (offsets and mask keep their order): tap ``t`` of the kernel meets
        position ``k - 1 - t``.
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

    Notes
    -----
    The gradient with respect to a coordinate is the right-hand one where the two sides differ (at
    integers), and 0 for a NaN or infinite coordinate.

    References
    ----------
    .. [1] J. Dai et al., "Deformable convolutional networks", ICCV 2017, arXiv:1703.06211.
    .. [2] X. Zhu et al., "Deformable ConvNets v2: more deformable, better results", CVPR 2019,
       arXiv:1811.11168.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.array([[[0, 10, 20, 30]]], np.float32)
    >>> weight = np.ones((1, 1, 1), np.float32)
    >>> offset = np.array([[[0.5, -0.5, 0.25, np.nan]]], np.float32)
    >>> pyconv.deformable_conv(x, offset, weight)
    array([[[ 5. ,  5. , 22.5,  0. ]]], dtype=float32)
    """
    return OPERATOR(
        x, offset, weight, bias, mask, stride=stride, padding=padding, dilation=dilation,
        padding_mode=padding_mode, layout=layout, flip=flip, algorithm=algorithm,
        max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


@dataclass(frozen=True)
class DeformProblem(ConvProblem):
    """A deformable convolution."""

    offset_shape: Shape = ()
    mask_shape: Shape = ()


class Deformable(Operator):
    name = "deformable"
    aliases = ("dcn",)
    summary = "Every output looks where its offsets say"
    url = "https://arxiv.org/abs/1811.11168"
    function = staticmethod(deformable_conv)
    optional = ("bias", "mask")
    per_call = ("x", "offset", "mask")
    linear = ("x", "weight", "mask")

    def problem(self, shapes: dict[str, Any], params: dict[str, Any]) -> DeformProblem:
        name, weight = self.name, shapes["weight"]
        rank = kernel_rank(name, "weight", weight)
        image = image_shape(name, "x", shapes["x"], rank, params["layout"])
        stride = checks.integers(name, "stride", params["stride"], rank, minimum=1)
        dilation = checks.integers(name, "dilation", params["dilation"], rank, minimum=1)
        checks.choice(name, "padding_mode", params["padding_mode"], ("zeros",))
        flip = checks.flag(name, "flip", params["flip"])
        channels = image.channels
        groups = channels // weight[1] if weight[1] and channels % weight[1] == 0 else 1
        check_groups(name, "weight", weight, channels, max(groups, 1), shapes["x"])
        check_bias(name, shapes["bias"], weight[0])
        axes = geometry.conv_axes(
            name, image.spatial, weight[2:], stride, checks.padding(name, params["padding"], rank),
            dilation,
        )  # fmt: skip
        spatial = [a.out for a in axes]
        taps = prod(weight[2:])
        offset_groups = 1
        if shapes["offset"] is not None:
            offset_groups = self._offset_groups(
                image_shape(name, "offset", shapes["offset"], rank, params["layout"]).channels,
                rank * taps, channels,
            )  # fmt: skip
        wanted = {
            "offset": image.like(offset_groups * rank * taps, spatial),
            "mask": image.like(offset_groups * taps, spatial),
        }
        for argument, shape in wanted.items():
            if shapes[argument] is not None and shapes[argument] != shape:
                checks.fail(
                    name, argument,
                    f"have shape {shape} ({offset_groups} offset groups, {taps} taps, {rank} axes)",
                    Verbatim(f"shape {shapes[argument]}"),
                )  # fmt: skip
        algorithm, reason = pick_algorithm(
            self, params["algorithm"], "direct", "implicit GEMM, its panels filled by sampling"
        )
        output = image.like(weight[0], spatial)
        macs, _ = count_macs(axes, image.n, weight[0], weight[1])
        cost = Cost(
            macs, macs, prod(weight) + prod(shapes["bias"] or (0,)),
            moved_bytes(
                shapes["x"], wanted["offset"], weight, shapes["bias"], shapes["mask"], output
            ),
        )  # fmt: skip
        return DeformProblem(
            output, algorithm, reason, cost, axes, image=image, groups=max(groups, 1), flip=flip,
            offset_shape=wanted["offset"], mask_shape=wanted["mask"],
        )  # fmt: skip

    def _offset_groups(self, offset_channels: int, per_group: int, channels: int) -> int:
        groups, rest = divmod(offset_channels, per_group)
        if rest or groups == 0 or (channels and channels % groups):
            checks.fail(
                self.name, "offset",
                f"have {per_group} channels (axes times taps) for each offset group, the number "
                f"of groups dividing the {channels} channels of x",
                Verbatim(f"{offset_channels} channels"),
            )  # fmt: skip
        return groups

    def expected(self, problem: Any, x_shape: Shape) -> dict[str, Any]:
        return {"x": x_shape, "offset": problem.offset_shape, "mask": problem.mask_shape}

    def _views(self, problem: Any, arrays: dict[str, Any]) -> Views:
        """x, offset and mask as the engine takes them."""
        view = problem.image.view
        mask = arrays["mask"]
        return view(arrays["x"]), view(arrays["offset"]), None if mask is None else view(mask)

    def compute(
        self, problem: Any, arrays: dict[str, Any], out: Array, run: Run, prepared: Any = None
    ) -> int:
        weight, numbers, packed = prepared or (*self._ready(problem, arrays), None)
        stride, dilation, first = numbers
        y = problem.image.view(out)
        if arrays["x"].size == 0:  # nothing to sample, and maybe no channel to find a group of
            if run.measure:
                return 0
            y[...] = 0 if arrays["bias"] is None else arrays["bias"].reshape(-1, 1, 1, 1)
            return 0
        x, offset, mask = self._views(problem, arrays)
        return int(
            _deform.correlate(
                run.operator, x, offset, mask, weight, arrays["bias"], y,
                len(problem.axes), stride, dilation, first, run.compute, run.threads, run.budget,
                packed=packed, measure=run.measure,
                lanes=packed is None and engine.sampled_in_lanes(
                    weight, engine.three(problem.axes)
                ),
            )
        )  # fmt: skip

    def _ready(self, problem: Any, arrays: dict[str, Any]) -> tuple[Array, Numbers]:
        """The weights and the numbers of the axes, as the engine takes them."""
        weight = _channels_last(problem, arrays["weight"])
        return weight, engine.numbers(engine.three(problem.axes))

    def prepare(self, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        weight, numbers = self._ready(problem, arrays)
        return weight, numbers, engine.pack_sampled(run, weight, engine.three(problem.axes))

    def gradients(
        self, problem: Any, grad: Array, arrays: dict[str, Any], out: dict[str, Any], run: Run,
        prepared: Any = None,
    ) -> None:  # fmt: skip
        view, axes, rank = problem.image.view, engine.three(problem.axes), len(problem.axes)
        views, dy = self._views(problem, arrays), view(grad)
        results: dict[str, Array] = {n: view(out[n]) for n in ("x", "offset", "mask") if n in out}
        if "bias" in out:
            engine.bias_gradient(run, dy, out["bias"])
        if arrays["x"].size == 0 or grad.size == 0:
            for result in (*results.values(), *(out[n] for n in ("weight",) if n in out)):
                result[...] = 0
            return
        # as it lies in memory: taps are turned round on their way
        weight = engine.grouped_weight(arrays["weight"], problem.groups)
        if "weight" in out:
            results["weight"] = engine.grouped_weight(out["weight"], problem.groups)
        left = _sweep_once(run, views, weight, dy, results, axes, rank, problem.flip)
        if "weight" in left:
            dw = _channels_last(problem, out["weight"])
            _deform.weight_gradient(
                run.operator, *views, dy, dw, rank, *engine.numbers(axes),
                run.compute, run.threads, run.budget,
            )  # fmt: skip
            del left["weight"]
        if left:
            _input_gradients(run, views, weight, dy, left, axes, rank, problem.flip)

    def directional(
        self, problem: Any, arrays: dict[str, Any], tangents: dict[str, Any], total: Sum, run: Run
    ) -> None:
        if arrays["x"].size == 0:
            return
        views, rank = self._views(problem, arrays), len(problem.axes)
        weight = _channels_last(problem, arrays["weight"])
        direction = problem.image.view(tangents["offset"])
        result = problem.image.view(total.start())
        _add_slopes(run, views, direction, weight, result, engine.three(problem.axes), rank)

    def define(self, problem: Any, arrays: dict[str, Any]) -> Array:
        plain = problem.image.plain
        weight, mask = arrays["weight"], arrays["mask"]
        if problem.flip:
            weight = np.flip(weight, tuple(range(2, weight.ndim)))
        y = reference.deform(
            plain(arrays["x"]), plain(arrays["offset"]), weight, arrays["bias"],
            None if mask is None else plain(mask), problem.axes,
        )  # fmt: skip
        return problem.image.from_plain(y)

    def cases(self) -> Iterator[Case]:
        yield _case("2-D", (2, 4, 7, 8), (5, 4, 3, 2), padding=1)
        yield _case("no mask", (1, 4, 9, 6), (2, 2, 3, 3), offset_groups=2, mask=False, stride=2)
        yield _case("1-D", (2, 3, 15), (4, 3, 5), padding="same", dilation=2)
        yield _case("3-D", (1, 2, 4, 5, 3), (3, 2, 2, 3, 1), padding=(0, 1, 0))
        yield _case("unbatched", (6, 5, 6), (4, 3, 2, 3), offset_groups=3, padding="same")
        yield _case("channels last", (2, 7, 6, 4), (3, 4, 3, 3), layout="channels_last", padding=1)


def _case(
    name: str, x: Shape, weight: Shape, offset_groups: int = 1, mask: bool = True, **params: Any
) -> Case:
    """A case with offset and mask shapes that fit."""
    parameters = OPERATOR._defaults | params
    bare = {"x": x, "offset": None, "weight": weight, "bias": (weight[0],), "mask": None}
    problem = OPERATOR.problem(bare, parameters)
    image, spatial = problem.image, [a.out for a in problem.axes]
    taps = prod(weight[2:])
    offset = image.like(offset_groups * len(spatial) * taps, spatial)
    masks = image.like(offset_groups * taps, spatial) if mask else None
    return Case(name, {**bare, "offset": offset, "mask": masks}, params)


OPERATOR = Deformable()


def _channels_last(problem: Any, weight: Array) -> Array:
    """View weights as ``(groups, M, T0, T1, T2, C)``: channels are sampled together."""
    weight = engine.grouped_weight(weight, problem.groups, problem.flip)
    return weight.transpose(0, 1, 3, 4, 5, 2)


def _sweep_once(
    run: Run,
    views: Views,
    weight: Array,
    grad: Array,
    results: dict[str, Array],
    axes: Axes,
    rank: int,
    flip: bool,
) -> dict[str, Array]:
    """Make the gradients for which images with channels last fit the workspace.

    Returns the others. Which they are does not depend on what else is asked for.
    """
    x, offset, mask = views
    largest = {"x": x, "offset": offset, "mask": mask, "weight": weight}

    def sweep(parts: dict[str, Array | None], measure: bool) -> int:
        return _deform_grad.gradients(
            run.operator, x, offset, mask, weight, grad,
            parts.get("x"), parts.get("offset"), parts.get("mask"), parts.get("weight"), flip,
            rank, *engine.numbers(axes), run.compute, run.threads, run.budget, measure,
        )  # fmt: skip

    def fits(*names: str) -> bool:
        return sweep({name: largest[name] for name in names}, measure=True) <= run.budget

    together: list[set[str]] = [
        set(names) & results.keys()
        for names in (("x",), ("offset", "mask"), ("weight",))
        if results.keys() & names and fits(*names)
    ]
    wanted = set[str]().union(*together)
    if fits(*wanted):
        together = [wanted]
    for names in filter(None, together):
        sweep({name: results[name] for name in names}, measure=False)
    return {name: result for name, result in results.items() if name not in wanted}


def _add_slopes(
    run: Run,
    views: Views,
    direction: Array,
    weight: Array,
    result: Array,
    axes: Axes,
    rank: int,
    wrap: Sequence[bool] = (False, False, False),
) -> None:
    """Add the derivative with respect to the offsets, along `direction`, to `result`.

    Along each axis the samples are linear between integers: the slope to the right is the sample at
    the next integer minus that at the one before it. Both are convolutions with these positions and
    with the direction as a factor; that is done box by box, as room is needed for those.
    """
    x, offset, mask = views
    groups, taps = offset.shape[1] // (rank * prod(weight.shape[2:5])), weight.shape[2:5]
    each = groups * (rank + 3) * prod(taps) * 8 + result.shape[1] * run.dtype.itemsize
    half = run.share(2)

    def fits(box: Box) -> bool:
        return each * prod(hi - lo for lo, hi in box) <= half.budget

    for n, box in product(range(result.shape[0]), engine.boxes(result.shape[2:], fits)):
        one, place = slice(n, n + 1), engine.region(box, slice(n, n + 1))
        on = engine.three([engine.shifted(a, *side) for a, side in zip(axes, box, strict=True)])
        shape = (groups, prod(taps), rank, *(hi - lo for lo, hi in box))
        moved = offset[place].astype(np.float64).reshape(shape)
        along = direction[place].reshape(shape)
        factor = 1.0 if mask is None else mask[place].reshape(shape[:2] + shape[3:])
        part = np.empty((1, result.shape[1], *shape[3:]), run.dtype)
        for i, start in enumerate(_starts(on[3 - rank :], taps[3 - rank :])):
            kept = moved[:, :, i].copy()
            with np.errstate(all="ignore"):  # a coordinate may be anything
                scale = np.multiply(along[:, :, i], factor, dtype=np.float64)
                low = np.floor(kept + start) - start
            for step, sign in ((1, 1), (0, -1)):
                moved[:, :, i] = low + step
                _deform.correlate(
                    run.operator, x[one], moved.reshape(1, -1, *shape[3:]),
                    (sign * scale).reshape(1, -1, *shape[3:]), weight, None, part, rank,
                    *engine.numbers(on), run.compute, run.threads, half.budget, wrap=wrap,
                )  # fmt: skip
                result[place] += part
            moved[:, :, i] = kept


def _starts(axes: Sequence[Axis], taps: Sequence[int]) -> Iterator[Array]:
    """Where offsets count from along each of the axes, for every tap and output."""
    rank = len(axes)
    for i, axis in enumerate(axes):
        steps = np.arange(axis.kernel).reshape([-1 if j == i else 1 for j in range(rank)])
        tap = np.broadcast_to(steps, taps).reshape(-1, 1, 1, 1)
        out = np.arange(axis.out).reshape([-1 if j == 3 - rank + i else 1 for j in range(3)])
        yield (out * axis.stride + tap * axis.dilation - axis.before).astype(np.float64)


def _input_gradients(
    run: Run,
    views: Views,
    weight: Array,
    grad: Array,
    results: dict[str, Array],
    axes: Axes,
    rank: int,
    flip: bool,
    wrap: Sequence[bool] = (False, False, False),
) -> None:
    """Gradients of x, offset and mask, those that are in `results`.

    All need ``columns = weightᵀ grad``, made for a tile of pixels at a time; then every thread
    scatters into channels of its own, and sums coordinates for pixels of its own.
    """
    dx = results.get("x")
    direct = dx if dx is not None and dx.dtype == run.dtype else None
    if direct is not None or len(results) > (dx is not None):
        if direct is not None:
            direct[...] = 0
        _sweep(run, views, weight, grad, axes, rank, flip, direct, results, wrap)
    if dx is None or direct is not None:
        return
    # A 16-bit gradient is summed in the compute type and rounded once: some channels at a time,
    # and where even one channel is too large, some of its elements at a time.
    half = run.share(2)
    x, offset, mask = views
    groups, channels = weight.shape[0], weight.shape[2]
    plane, per_element = prod(x.shape[2:]), groups * run.dtype.itemsize
    block = max(1, min(channels, half.budget // (plane * per_element)))
    elements = max(1, min(plane, half.budget // per_element))
    for n in range(x.shape[0]):
        one = x[n : n + 1], offset[n : n + 1], mask if mask is None else mask[n : n + 1]
        for first, lo in product(range(0, channels, block), range(0, plane, elements)):
            width, hi = min(block, channels - first), min(lo + elements, plane)
            window = np.zeros((groups, width, hi - lo), run.dtype)
            _sweep(half, one, weight, grad[n : n + 1], axes, rank, flip, None, {}, wrap,
                   first=first, window=window, lo=lo)  # fmt: skip
            for start in range(lo, hi, MOST_INDICES):
                stop = min(start + MOST_INDICES, hi)
                at = np.unravel_index(np.arange(start, stop), x.shape[2:])
                with engine.rounding():
                    for g, c in product(range(groups), range(width)):
                        dx[n, g * channels + first + c][at] = window[g, c, start - lo : stop - lo]


def _sweep(
    run: Run,
    views: Views,
    weight: Array,
    grad: Array,
    axes: Axes,
    rank: int,
    flip: bool,
    dx: Array | None,
    results: dict[str, Array],
    wrap: Sequence[bool],
    *,
    first: int = 0,
    window: Array | None = None,
    lo: int = 0,
) -> None:
    """All pixels once, a tile at a time; see `_deform.input_gradients` for the arguments."""
    groups, rows, channels = weight.shape[:3]
    taps, extent = weight.shape[3:], grad.shape[2:]
    depth, width = prod(taps), channels if window is None else window.shape[1]
    pixels, column = prod(extent), groups * width * depth * run.dtype.itemsize
    # The tile orders the sums, so it may depend on the workspace but not on the threads: where
    # their scratch does not fit, there are fewer of them.
    most = run.budget // 4 // max(column, _deform.gradient_bytes(rank, run.compute, 1))
    pixel = max(column, groups * rows * run.dtype.itemsize)  # `pixels` may have to copy
    tile = max(1, min(pixels, most, max(64, COLUMN_BYTES // pixel)))
    scratch = _deform.gradient_bytes(rank, run.compute, tile)
    threads = max(1, min(run.threads, run.budget // 4 // scratch))
    half = run.share(2)
    part = weight[:, :, first : first + width]
    widest = groups * width  # channels whose weights make one matrix as they lie in memory, or
    if not part[0, 0].flags.c_contiguous:  # by a copy of an eighth of the workspace at most
        widest = max(1, run.budget // 8 // (rows * depth * part.itemsize))
    store = np.empty(groups * width * depth * tile, run.dtype)
    for n, p in product(range(grad.shape[0]), range(0, pixels, tile)):
        count = min(tile, pixels - p)
        columns = store[: groups * width * depth * count].reshape(groups, width, depth, count)
        source = engine.pixels(grad[n], p, count)
        for g, c in engine.blocks(groups, width, widest):
            kernel = part[g, :, c].reshape(g.stop - g.start, rows, -1).swapaxes(1, 2)
            made = columns[g, c].reshape(1, -1, 1, 1, count)
            given = source[:, g.start * rows : g.stop * rows]
            engine.product_with(half, engine.matrix(kernel), given, made)
        _deform.input_gradients(
            columns, *views, dx, window, results.get("offset"), results.get("mask"), groups, rank,
            taps, extent, *engine.numbers(axes), run.compute, threads, n, p, first, lo, flip,
            wrap,
        )  # fmt: skip
