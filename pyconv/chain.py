"""Convolutions one after another, with intermediate images that stay within the workspace.

A `Chain` applies stages to an image, each a convolution as `pyconv.engine.correlate` takes it. The
image between two stages is never whole (unless it is small): the result is computed in boxes, and a
box asks the stage before it for the region that it reads, and so on back to the input. Gradients go
the other way: a box of an input's gradient asks the stage after it for the outputs that read it.

Every element is computed by the same sum whatever the boxes, so results do not depend on them; the
gradients of the weights are summed box by box, and the boxes follow from shapes and workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np

from pyconv import engine
from pyconv._kernels._tensor import padding_sources
from pyconv.checks import WorkspaceError
from pyconv.engine import Array, Axes, Box, Run
from pyconv.geometry import Axis

# Intermediate images of a box: they stay in cache from one stage to the next.
BOX_BYTES = 2**20

Part = tuple[int, int, int, int]  # padded positions, and the elements they are copies of


def _is_box(parts: Sequence[Sequence[Part]]) -> bool:
    """Whether parts along the axes are a box of the image itself, nothing to be put together."""
    return all(len(along) == 1 and along[0][:2] == along[0][2:] for along in parts)


@dataclass(frozen=True)
class Stage:
    """One convolution of a chain."""

    weight: Array  # (G, M, C, T0, T1, T2)
    axes: Axes
    packed: Any = None

    @property
    def outputs(self) -> int:
        """Number of channels of the result."""
        return int(self.weight.shape[0] * self.weight.shape[1])


class Chain:
    """Stages applied to `x` (N, C, S0, S1, S2); level i is the image before stage i."""

    def __init__(self, run: Run, x: Array, stages: Sequence[Stage], mode: str) -> None:
        self.run = run
        self.half = run.share(2)  # for the kernels; the other half for intermediate images
        self.limit = min(self.half.budget, BOX_BYTES)
        self.x = x
        self.stages = stages
        self.mode = mode
        self.channels = [x.shape[1], *(s.outputs for s in stages)]
        self.extents = [x.shape[2:], *(tuple(a.out for a in s.axes) for s in stages)]
        self.used = 0

    # ---- regions -----------------------------------------------------------------------------

    def _source(self, axis: Axis, lo: int, hi: int) -> list[Part]:
        """The parts of what outputs ``lo .. hi-1`` read: padded positions, elements (as a range).

        With zeros it is the one range inside the array; otherwise what stands before the array and
        after it comes from somewhere else, which may be far away.
        """
        first, last = engine.reads(axis, lo, hi)
        inside = max(first, 0), min(last, axis.size)
        if self.mode == "zeros" or (first >= 0 and last <= axis.size):
            if inside[0] >= inside[1]:
                inside = 0, 0
            return [(*inside, *inside)]
        parts = [(*inside, *inside)] if inside[0] < inside[1] else []
        for start, stop in ((first, min(last, 0)), (max(first, axis.size), last)):
            if start < stop:
                # a period has all elements there are
                sources = padding_sources(
                    start, min(stop, start + 2 * axis.size), axis.size, self.mode
                )
                parts.append((start, stop, int(sources.min()), int(sources.max()) + 1))
        return parts

    def _sources(self, level: int, box: Box) -> list[list[Part]]:
        """`_source` along each axis, for a box of `level`."""
        axes = self.stages[level - 1].axes
        return [self._source(a, *side) for a, side in zip(axes, box, strict=True)]

    def _held(self, level: int, box: Box) -> int:
        """Elements, per sample, of images that are held to compute `box` of a level."""
        if level <= 1:
            return 0
        below, parts = level - 1, self._sources(level, box)
        elements = 0
        for choice in product(*parts):
            region = tuple((lo, hi) for _, _, lo, hi in choice)
            each = self.channels[below] * prod(hi - lo for lo, hi in region)
            elements = max(elements, each + self._held(below, region))
        if not _is_box(parts):
            # the parts are put together, by way of an index that copies
            reach = [max(p[1] for p in part) - min(p[0] for p in part) for part in parts]
            elements = 2 * elements + self.channels[below] * prod(reach)
        return elements

    def _forward_bytes(self, level: int, box: Box, n: int) -> int:
        """Bytes of images that are held to compute `box` of a level, the box itself aside."""
        return n * self._held(level, box) * self.run.dtype.itemsize

    def _backward_bytes(self, level: int, box: Box, n: int) -> int:
        elements = 0
        for at in range(level, len(self.stages)):
            elements += self.channels[at] * prod(hi - lo for lo, hi in box)
            box = tuple(
                engine.read_by(a, lo, hi)
                for a, (lo, hi) in zip(self.stages[at].axes, box, strict=True)
            )
        return n * elements * self.run.dtype.itemsize * (1 if self.mode == "zeros" else 3)

    def _batches(self, each: int) -> Iterator[slice]:
        """Ranges of samples that fit together, given the bytes that one takes."""
        if self.mode != "zeros":
            each = max(each, 3 * engine.fold_bytes(self.half))
        count = max(1, min(self.x.shape[0], self.limit // max(1, each)))
        for first in range(0, self.x.shape[0], count):
            yield slice(first, min(first + count, self.x.shape[0]))

    # ---- forward -----------------------------------------------------------------------------

    def forward(self, bias: Array | None, out: Array) -> int:
        """Write the last stage's image plus `bias` into `out`; return the bytes of workspace."""
        last = len(self.stages)

        def each(box: Box, n: int) -> int:
            return self._forward_bytes(last, box, n)

        pieces, held = self._pieces(self.extents[last], each)
        # A workspace too small is found out before anything is written. Where it is ample, the
        # first box tells; where it is not, boxes of slightly different sizes may differ.
        measuring = Chain(self.run.measuring(), self.x, self.stages, self.mode)
        for samples, box in pieces if self.run.budget < engine.AMPLE else pieces[:1]:
            measuring._stage(last - 1, box, samples, bias, out[engine.region(box, samples)])
        if not self.run.measure:
            for samples, box in pieces:
                self._stage(last - 1, box, samples, bias, out[engine.region(box, samples)])
        return held + measuring.used

    def value(self, level: int, box: Box, samples: slice) -> Array:
        """The image of a level on a box."""
        if level == 0:
            return self.x[engine.region(box, samples)]
        n = len(range(*samples.indices(self.x.shape[0])))
        shape = (n, self.channels[level], *(hi - lo for lo, hi in box))
        result = np.empty(shape, self.run.dtype)
        if result.size:
            self._stage(level - 1, box, samples, None, result)
        return result

    def _stage(self, level: int, box: Box, samples: slice, bias: Array | None, out: Array) -> None:
        """Apply stage `level` on a box of its result."""
        stage = self.stages[level]
        axes = [engine.shifted(a, *side) for a, side in zip(stage.axes, box, strict=True)]
        if level == 0:  # the input is there as a whole: the kernel fills in what stands around it
            source, mode = self.x[samples], self.mode
        else:
            source, axes = self._input(level, box, samples)
            mode = "zeros"
        used = engine.correlate(
            self.half, source, stage.weight, bias, out, engine.three(axes), mode, stage.packed
        )
        self.used = max(self.used, used)

    def _input(self, level: int, box: Box, samples: slice) -> tuple[Array, list[Axis]]:
        """What stage `level` reads for a box, padding filled in, and its axes there."""
        stage, parts = self.stages[level], self._sources(level + 1, box)
        starts = [min(part[0] for part in along) for along in parts]
        stops = [max(part[1] for part in along) for along in parts]
        axes = [
            replace(a, size=stop - start, before=a.before - lo * a.stride + start, out=hi - lo)
            for a, (lo, hi), start, stop in zip(stage.axes, box, starts, stops, strict=True)
        ]
        if _is_box(parts):
            return self.value(level, tuple(zip(starts, stops, strict=True)), samples), axes
        n = len(range(*samples.indices(self.x.shape[0])))
        sides = [stop - start for start, stop in zip(starts, stops, strict=True)]
        whole = np.empty((n, self.channels[level], *sides), self.run.dtype)
        for choice in product(*parts):
            value = self.value(level, tuple((lo, hi) for _, _, lo, hi in choice), samples)
            place = []
            for i, (axis, start, (first, stop, lo, hi)) in enumerate(
                zip(stage.axes, starts, choice, strict=True)
            ):
                place.append(slice(first - start, stop - start))
                if (first, stop) != (lo, hi):
                    rows = padding_sources(first, stop, axis.size, self.mode) - lo
                    value = np.take(value, rows, axis=2 + i)
            whole[slice(None), slice(None), place[0], place[1], place[2]] = value
        return whole, axes

    # ---- backward ----------------------------------------------------------------------------

    def gradient(self, level: int, box: Box, samples: slice, grad: Array) -> Array:
        """Gradient with respect to the image of a level on a box; `grad` is that of the last."""
        if level == len(self.stages):
            return grad[engine.region(box, samples)]
        stage = self.stages[level]
        n = len(range(*samples.indices(self.x.shape[0])))
        shape = (n, self.channels[level])

        def adjoint(part: Box) -> Array:
            on = [engine.adjoint_on(a, *side) for a, side in zip(stage.axes, part, strict=True)]
            after = self.gradient(
                level + 1, tuple((first, last) for _, first, last in on), samples, grad
            )
            result = np.empty(shape + tuple(hi - lo for lo, hi in part), self.run.dtype)
            axes = engine.three([axis for axis, _, _ in on])
            engine.adjoint(self.half, after, stage.weight, None, result, axes)
            return result

        if self.mode == "zeros":
            return adjoint(box)
        return engine.fold(self.half, stage.axes, box, self.mode, adjoint, shape)

    def input_gradient(self, grad: Array, out: Array) -> None:
        """Gradient of the input into `out`."""
        pieces, _ = self._pieces(self.extents[0], lambda b, n: self._backward_bytes(0, b, n))
        for samples, box in pieces:
            part = self.gradient(0, box, samples, grad)
            with engine.rounding():
                out[engine.region(box, samples)] = part

    def _pieces(
        self, extent: tuple[int, ...], each: Callable[[Box, int], int]
    ) -> tuple[list[tuple[slice, Box]], int]:
        """Samples and boxes for which no more is held than there is room for; bytes held."""
        pieces: list[tuple[slice, Box]] = []
        for samples in self._batches(each(tuple((0, e) for e in extent), 1)):
            n = samples.stop - samples.start
            fits = lambda box, n=n: each(box, n) <= self.limit  # noqa: E731
            pieces += [(samples, box) for box in engine.boxes(extent, fits)]
        held = max((each(box, s.stop - s.start) for s, box in pieces), default=0)
        if held > self.half.budget:
            raise WorkspaceError(self.run.operator, 2 * held, self.run.budget)
        return pieces, held

    def weight_gradient(self, level: int, grad: Array, out: Array) -> None:
        """Gradient of the weight of stage `level` into `out` (G, M, C, T0, T1, T2)."""
        groups, rows = out.shape[:2]
        row = prod(out.shape[2:]) * self.run.dtype.itemsize  # bytes, in the compute type
        most = max(1, self.half.budget // 8 // max(1, row))
        parts = [(g, m, out[g, m]) for g, m in engine.blocks(groups, rows, most)]
        if out.dtype == self.run.dtype:
            out[...] = 0
            self._sum_weight(level, grad, parts)
            return
        # A 16-bit gradient is summed in the compute type, as many rows at a time as there is room.
        for g, m, part in parts:
            total = np.zeros(part.shape, self.run.dtype)
            self._sum_weight(level, grad, [(g, m, total)])
            with engine.rounding():
                part[...] = total

    def _sum_weight(
        self, level: int, grad: Array, sums: Sequence[tuple[slice, slice, Array]]
    ) -> None:
        """Add what every box contributes to a weight's gradient.

        `sums` are ranges of groups and of their rows, and the sums for these.
        """
        stage = self.stages[level]
        _, rows, channels = stage.weight.shape[:3]

        def each(box: Box, n: int) -> int:
            held = self._forward_bytes(level + 1, box, n)
            return held + self._backward_bytes(level + 1, box, n)

        pieces, _ = self._pieces(self.extents[level + 1], each)
        for samples, box in pieces:
            dy = self.gradient(level + 1, box, samples, grad)
            if level == 0:  # the input is there as a whole
                source, mode = self.x[samples], self.mode
                axes = [engine.shifted(a, *side) for a, side in zip(stage.axes, box, strict=True)]
            else:
                (source, axes), mode = self._input(level, box, samples), "zeros"
            for g, m, total in sums:
                part = np.empty(total.shape, self.run.dtype)
                engine.weight_gradient(
                    self.half, source[:, engine.channel_range(g, slice(0, channels), channels)],
                    dy[:, engine.channel_range(g, m, rows)], part, engine.three(axes), mode,
                )  # fmt: skip
                total += part
