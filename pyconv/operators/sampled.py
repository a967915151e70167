"""Convolution on any sampling grid: coordinates say where every tap looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from pyconv import checks, engine, geometry, reference
from pyconv._kernels import _deform
from pyconv.checks import Verbatim
from pyconv.engine import Axes, Run
from pyconv.operator import Array, Case, Cost, Operator, Shape
from pyconv.operators._convolution import (
    ConvProblem,
    check_bias,
    check_groups,
    image_shape,
    kernel_rank,
    moved_bytes,
    pick_algorithm,
)
from pyconv.operators._docs import shared
from pyconv.operators.deformable import _add_slopes, _channels_last, _input_gradients
from pyconv.tangents import Sum

MODES = ("zeros", "circular")


@shared
def sampled_conv(
    x: Any,
    coordinates: Any,
    weight: Any,
    bias: Any = None,
    *,
    padding_mode: Any = "zeros",
    layout: str = "channels_first",
    flip: bool = False,
    algorithm: str = "auto",
    max_workspace: int | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Convolve on a sampling grid: spherical, hexagonal, log-polar, of a fisheye lens, any.

    ``y[n, o, i] = bias[o] + sum over c, t of weight[o, c, t] * S(x[n, c], coordinates[t, :, i])``.
    ``S`` interpolates linearly along each axis between the elements around a coordinate, those
    outside the array counting as 0; it is 0 where a coordinate is ``<= -1`` or ``>= size``, or NaN
    or infinite. On an axis that is ``"circular"`` the first element follows the last.

    Parameters
    ----------
    %(x)s
    coordinates : array, shape (*k, n, *S_out) or (N, *k, n, *S_out)
        Where each tap of each output looks, in elements of `x`, for ``n`` spatial axes in the
        order of the array: in 2-D ``(kh, kw, 2, H_out, W_out)`` with y before x. All images share
        it, or each has its own. It has the dtype of `x`: whole elements are exact up to 2**24 in
        float32, up to 2048 in float16. The layout does not matter here.
    weight : array, shape (O, C/groups, *k)
        A kernel for each output channel and each input channel of its group; their number follows
        from the shapes.
    %(bias)s
    padding_mode : {"zeros", "circular"} or sequence of them
        What is beyond the ends of all axes, or of each.
    %(layout)s
    flip : bool
        Flip the weight (the coordinates keep their order): tap ``t`` of the kernel meets
        coordinates ``k - 1 - t``.
    %(algorithm)s
    %(run)s

    Returns
    -------
    ndarray
        ``(N, O, *S_out)``; without the first axis if `x` has none.

    Raises
    ------
    %(raises)s

    See Also
    --------
    deformable_conv : Coordinates relative to a regular grid, and a factor for each sample.

    Notes
    -----
    A plan fixes the coordinates with the weights. The gradient with respect to a coordinate is the
    right-hand one where the two sides differ (at integers), and 0 for a NaN or infinite coordinate.
    Coordinates whose first axes are not evenly spaced in memory are copied.

    Examples
    --------
    Samples between the elements of a ring:

    >>> import numpy as np, pyconv
    >>> x = np.array([[[0, 10, 20, 30]]], np.float32)
    >>> weight = np.ones((1, 1, 1), np.float32)
    >>> coordinates = np.array([[[0.5, 3.5, -1, 9]]], np.float32)
    >>> pyconv.sampled_conv(x, coordinates, weight, padding_mode="circular")
    array([[[ 5., 15., 30., 10.]]], dtype=float32)
    >>> pyconv.sampled_conv(x, coordinates, weight)
    array([[[ 5., 15.,  0.,  0.]]], dtype=float32)
    """
    return OPERATOR(
        x, coordinates, weight, bias, padding_mode=padding_mode, layout=layout, flip=flip,
        algorithm=algorithm, max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


@dataclass(frozen=True)
class SampledProblem(ConvProblem):
    """A convolution on a sampling grid."""

    #: Steps of 0 and no padding: coordinates are what the kernel is given.
    grid: Axes = (geometry.UNIT, geometry.UNIT, geometry.UNIT)
    rank: int = 0
    wrap: tuple[bool, ...] = (False, False, False)
    taps: Shape = ()
    extent: Shape = ()
    static: bool = True  # one set of coordinates for all images

    def points(self, coordinates: Array) -> Array:
        """Coordinates as the engine takes offsets: ``(N, rank * K, O0, O1, O2)``."""
        one = coordinates[np.newaxis] if self.static else coordinates
        flat = one.reshape((len(one), prod(self.taps) * self.rank, *self.extent))
        flat = flat[(slice(None),) * 2 + (np.newaxis,) * (3 - self.rank)]
        return np.broadcast_to(flat, (self.image.n, *flat.shape[1:])) if self.static else flat


class Sampled(Operator):
    name = "sampled"
    aliases = ("grid_sampled",)
    summary = "Every tap looks where given coordinates say, on any grid"
    url = "https://arxiv.org/abs/1811.08196"
    function = staticmethod(sampled_conv)
    linear = ("x", "weight")

    def problem(self, shapes: dict[str, Any], params: dict[str, Any]) -> SampledProblem:
        name, weight, points = self.name, shapes["weight"], shapes["coordinates"]
        rank = kernel_rank(name, "weight", weight)
        taps = weight[2:]
        image = image_shape(name, "x", shapes["x"], rank, params["layout"])
        modes = checks.choices(name, "padding_mode", params["padding_mode"], rank, MODES)
        flip = checks.flag(name, "flip", params["flip"])
        channels = image.channels
        groups = channels // weight[1] if weight[1] and channels % weight[1] == 0 else 1
        check_groups(name, "weight", weight, channels, max(groups, 1), shapes["x"])
        check_bias(name, shapes["bias"], weight[0])
        static = len(points) == 2 * rank + 1
        extent = points[-rank:]
        own = (image.n,) if image.batched and not static else ()
        if points != (*own, *taps, rank, *extent):
            each = f", or {(image.n, *taps, rank)} before them" if image.batched else ""
            checks.fail(
                name, "coordinates",
                f"have axes {(*taps, rank)} (kernel, and {rank} spatial) before the {rank} of the "
                f"result{each}",
                Verbatim(f"shape {points}"),
            )  # fmt: skip
        for i in range(rank):
            if taps[i] < 1:
                checks.fail(name, f"kernel axis {i}", "have at least one tap", taps[i])
            if extent[i] < 1:
                checks.fail(
                    name, f"output axis {i}", "be positive, as the last axes of coordinates",
                    Verbatim(f"shape {points}"),
                )  # fmt: skip
        grid = engine.three([
            geometry.Axis(size=s, kernel=k, stride=0, dilation=0, before=0, after=0, out=o)
            for s, k, o in zip(image.spatial, taps, extent, strict=True)
        ])  # fmt: skip
        algorithm, reason = pick_algorithm(
            self, params["algorithm"], "direct", "implicit GEMM, its panels filled by sampling"
        )
        output = image.like(weight[0], extent)
        macs = image.n * prod(weight) * prod(extent)
        cost = Cost(
            macs, macs, prod(points) + prod(weight) + prod(shapes["bias"] or (0,)),
            moved_bytes(shapes["x"], points, weight, shapes["bias"], output),
        )  # fmt: skip
        wrap = (False,) * (3 - rank) + tuple(mode == "circular" for mode in modes)
        return SampledProblem(
            output, algorithm, reason, cost, image=image, groups=max(groups, 1), flip=flip,
            grid=grid, rank=rank, wrap=wrap, taps=taps, extent=extent, static=static,
        )  # fmt: skip

    def compute(
        self, problem: Any, arrays: dict[str, Any], out: Array, run: Run, prepared: Any = None
    ) -> int:
        y = problem.image.view(out)
        if arrays["x"].size == 0:  # nothing to sample, and maybe no channel to find a group of
            if run.measure:
                return 0
            y[...] = 0 if arrays["bias"] is None else arrays["bias"].reshape(-1, 1, 1, 1)
            return 0
        weight = _channels_last(problem, arrays["weight"])
        return int(
            _deform.correlate(
                run.operator, problem.image.view(arrays["x"]),
                problem.points(arrays["coordinates"]), None, weight, arrays["bias"], y,
                problem.rank, *engine.numbers(problem.grid), run.compute, run.threads, run.budget,
                packed=prepared, measure=run.measure, wrap=problem.wrap,
                lanes=prepared is None and engine.sampled_in_lanes(weight, problem.grid),
            )
        )  # fmt: skip

    def prepare(self, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        return engine.pack_sampled(run, _channels_last(problem, arrays["weight"]), problem.grid)

    def gradients(
        self, problem: Any, grad: Array, arrays: dict[str, Any], out: dict[str, Any], run: Run,
        prepared: Any = None,
    ) -> None:  # fmt: skip
        view = problem.image.view
        x, dy = view(arrays["x"]), view(grad)
        points = problem.points(arrays["coordinates"])
        if "bias" in out:
            engine.bias_gradient(run, dy, out["bias"])
        if arrays["x"].size == 0 or grad.size == 0:
            for name in set(out) - {"bias"}:
                out[name][...] = 0
            return
        if "weight" in out:
            _deform.weight_gradient(
                run.operator, x, points, None, dy, _channels_last(problem, out["weight"]),
                problem.rank, *engine.numbers(problem.grid), run.compute, run.threads, run.budget,
                wrap=problem.wrap,
            )  # fmt: skip
        results = {"x": view(out["x"])} if "x" in out else {}
        # as it lies in memory: the columns' taps are turned round instead
        weight = engine.grouped_weight(arrays["weight"], problem.groups)
        views = (x, points)
        if problem.static:
            run = run.share(2)  # whatever is asked for: the tile orders the sums
            if "coordinates" in out:
                self._sum_over_images(problem, run, views, weight, dy, out["coordinates"], results)
                return
        elif "coordinates" in out:
            results["offset"] = problem.points(out["coordinates"])
        if results:
            self._input_gradients(problem, run, views, weight, dy, results)

    def _input_gradients(
        self, problem: Any, run: Run, views: tuple[Array, Array], weight: Array, grad: Array,
        results: dict[str, Array],
    ) -> None:  # fmt: skip
        _input_gradients(
            run, (*views, None), weight, grad, results, problem.grid, problem.rank, problem.flip,
            problem.wrap,
        )  # fmt: skip

    def _sum_over_images(
        self, problem: Any, run: Run, views: tuple[Array, Array], weight: Array, grad: Array,
        result: Array, others: dict[str, Array],
    ) -> None:  # fmt: skip
        """Gradient of coordinates that all images share, a part of the outputs at a time.

        `others` are filled as well.
        """
        x, points = views
        one = result.reshape((1, *points.shape[1:]))  # a new array, so this is a view of it
        pixel = points.shape[1] * run.dtype.itemsize
        places = list(_boxes(points.shape[2:], max(1, run.budget // 2 // pixel)))
        if len(places) > 1 and others:
            self._input_gradients(problem, run, views, weight, grad, others)
            others = {}
        for place in places:
            at = (slice(None), slice(None), *place)
            total = np.zeros(one[at].shape, run.dtype)
            each = np.empty_like(total)
            for n in range(len(x)):
                given = x[n : n + 1], points[at][n : n + 1]
                results = {name: array[n : n + 1] for name, array in others.items()}
                self._input_gradients(
                    problem, run, given, weight, grad[at][n : n + 1], {**results, "offset": each}
                )
                total += each
            with engine.rounding():
                one[at] = total

    def directional(
        self, problem: Any, arrays: dict[str, Any], tangents: dict[str, Any], total: Sum, run: Run
    ) -> None:
        if arrays["x"].size == 0:
            return
        view = problem.image.view
        views = view(arrays["x"]), problem.points(arrays["coordinates"]), None
        _add_slopes(
            run, views, problem.points(tangents["coordinates"]),
            _channels_last(problem, arrays["weight"]), view(total.start()), problem.grid,
            problem.rank, problem.wrap,
        )  # fmt: skip

    def define(self, problem: Any, arrays: dict[str, Any]) -> Array:
        weight, image = arrays["weight"], problem.image
        if problem.flip:
            weight = np.flip(weight, tuple(range(2, weight.ndim)))
        points = problem.points(arrays["coordinates"])
        points = points.reshape((*points.shape[:2], *problem.extent))
        y = reference.sampled(
            image.plain(arrays["x"]), points, weight, arrays["bias"], None,
            problem.wrap[3 - problem.rank :],
        )  # fmt: skip
        return image.from_plain(y)

    def cases(self) -> Iterator[Case]:
        yield _case("2-D", (2, 4, 9, 11), (5, 4, 3, 2), (8, 7))
        ring = ("zeros", "circular")
        yield _case("a ring", (1, 4, 9, 6), (2, 2, 3, 3), (4, 7), padding_mode=ring)
        yield _case("1-D", (2, 3, 42), (7, 3, 5), (39,), padding_mode="circular")
        yield _case("3-D", (1, 2, 4, 5, 6), (3, 2, 2, 3, 1), (3, 7, 5))
        yield _case("unbatched", (6, 5, 6), (4, 3, 2, 3), (7, 4))
        yield _case(
            "channels last", (2, 7, 6, 4), (3, 4, 3, 3), (5, 4), layout="channels_last",
            padding_mode=("circular", "zeros"),
        )  # fmt: skip


def _case(name: str, x: Shape, weight: Shape, extent: Shape, **params: Any) -> Case:
    coordinates = (*weight[2:], len(extent), *extent)
    shapes = {"x": x, "coordinates": coordinates, "weight": weight, "bias": weight[:1]}
    return Case(name, shapes, params)


def _boxes(extent: Shape, most: int) -> Iterator[tuple[slice, ...]]:
    """Boxes of at most `most` elements that make up `extent`."""
    block = list(extent)
    for axis in range(len(block)):  # the last axes stay whole as long as they can
        inner = prod(block[axis + 1 :])
        block[axis] = max(1, min(block[axis], most // inner))
    starts = [range(0, size, step) for size, step in zip(extent, block, strict=True)]
    for first in product(*starts):
        yield tuple(slice(lo, lo + step) for lo, step in zip(first, block, strict=True))


OPERATOR = Sampled()
