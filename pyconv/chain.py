"""Convolutions one after another, with intermediate images that stay within the workspace.

A `Chain` applies stages to an image, each a convolution as `pyconv.engine.correlate` takes it. The
image between two stages is never whole (unless it is small): the result is computed in boxes, and a
box asks the stage before it for the region that it reads, and so on back to the input. Gradients go
the other way: a box of an input's gradient asks the stage after it for the outputs that read it.

Every element is computed by the same sum whatever the boxes, so results do not depend on them; the
gradients of the weights are summed box by box, and the boxes follow from shapes and workspace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from pyconv import engine
from pyconv._kernels._tensor import padding_sources
from pyconv.engine import Array, Axes, Box, Run
from pyconv.geometry import Axis

# Intermediate images of a box: they stay in cache from one stage to the next.
BOX_BYTES = 2**20


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

    def _source(self, axis: Axis, lo: int, hi: int) -> tuple[int, int]:
        """The elements that outputs ``lo .. hi-1`` read, as one range."""
        first, last = engine.reads(axis, lo, hi)
        if self.mode != "zeros" and (first < 0 or last > axis.size):
            sources = padding_sources(first, last, axis.size, self.mode)
            return int(sources.min()), int(sources.max()) + 1
        first, last = max(first, 0), min(last, axis.size)
        return (first, last) if first < last else (0, 0)

    def _regions(self, level: int, box: Box) -> Iterator[tuple[int, Box]]:
        """Levels whose images are held to compute `box` of `level`, and the parts of them."""
        while level > 0:
            yield level, box
            level -= 1
            box = tuple(
                self._source(a, lo, hi)
                for a, (lo, hi) in zip(self.stages[level].axes, box, strict=True)
            )

    def _forward_bytes(self, level: int, box: Box, n: int) -> int:
        elements = sum(
            self.channels[at] * prod(hi - lo for lo, hi in part)
            for at, part in self._regions(level, box)
        )
        return n * elements * self.run.dtype.itemsize * (1 if self.mode == "zeros" else 2)

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
        count = max(1, min(self.x.shape[0], self.limit // max(1, each)))
        for first in range(0, self.x.shape[0], count):
            yield slice(first, min(first + count, self.x.shape[0]))

    # ---- forward -----------------------------------------------------------------------------

    def forward(self, bias: Array | None, out: Array) -> int:
        """Write the last stage's image plus `bias` into `out`; return the bytes of workspace."""
        last = len(self.stages)
        whole = tuple((0, e) for e in self.extents[last])
        pieces = []
        for samples in self._batches(self._forward_bytes(last - 1, self._before(last, whole), 1)):
            n = samples.stop - samples.start
            fits = lambda box, n=n: self._held(last, box, n) <= self.limit  # noqa: E731
            pieces += [(samples, box) for box in engine.boxes(self.extents[last], fits)]
        # A workspace too small is found out before anything is written. Where it is ample, the
        # first box tells; where it is not, boxes of slightly different sizes may differ.
        measuring = Chain(replace(self.run, measure=True), self.x, self.stages, self.mode)
        for samples, box in pieces if self.run.budget < engine.AMPLE else pieces[:1]:
            measuring._stage(last - 1, box, samples, bias, out[engine.region(box, samples)])
        held = max(self._held(last, box, s.stop - s.start) for s, box in pieces)
        if not self.run.measure:
            for samples, box in pieces:
                self._stage(last - 1, box, samples, bias, out[engine.region(box, samples)])
        return held + measuring.used

    def _before(self, level: int, box: Box) -> Box:
        axes = self.stages[level - 1].axes
        return tuple(self._source(a, *side) for a, side in zip(axes, box, strict=True))

    def _held(self, level: int, box: Box, n: int) -> int:
        """Bytes of intermediate images for a box of the last level, which is not one of them."""
        return self._forward_bytes(level - 1, self._before(level, box), n)

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
        stage = self.stages[level]
        region = self._before(level + 1, box)
        source = self.value(level, region, samples)
        axes = []
        for i, (axis, (lo, hi), (start, stop)) in enumerate(
            zip(stage.axes, box, region, strict=True)
        ):
            before = axis.before - lo * axis.stride + start
            first, last = engine.reads(axis, lo, hi)
            if self.mode != "zeros" and (first < 0 or last > axis.size):
                rows = padding_sources(first, last, axis.size, self.mode) - start
                source = np.take(source, rows, axis=2 + i)
                before, start, stop = 0, first, last
            axes.append(replace(axis, size=stop - start, before=before, out=hi - lo))
        return source, axes

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
        return engine.fold(stage.axes, box, self.mode, adjoint, shape, self.run.dtype)

    def input_gradient(self, grad: Array, out: Array) -> None:
        """Gradient of the input into `out`."""
        whole = tuple((0, e) for e in self.extents[0])
        for samples in self._batches(self._backward_bytes(0, whole, 1)):
            n = samples.stop - samples.start
            fits = lambda box, n=n: self._backward_bytes(0, box, n) <= self.limit  # noqa: E731
            for box in engine.boxes(self.extents[0], fits):
                part = self.gradient(0, box, samples, grad)
                with engine.rounding():
                    out[engine.region(box, samples)] = part

    def weight_gradient(self, level: int, grad: Array, out: Array) -> None:
        """Gradient of the weight of stage `level` into `out` (G, M, C, T0, T1, T2)."""
        stage = self.stages[level]
        total = np.zeros(out.shape, self.run.dtype)
        part = np.empty(out.shape, self.run.dtype)

        def each(box: Box, n: int) -> int:
            return self._backward_bytes(level + 1, box, n) + self._held(level + 1, box, n)

        whole = tuple((0, e) for e in self.extents[level + 1])
        for samples in self._batches(each(whole, 1)):
            n = samples.stop - samples.start
            fits = lambda box, n=n: each(box, n) <= self.limit  # noqa: E731
            for box in engine.boxes(self.extents[level + 1], fits):
                dy = self.gradient(level + 1, box, samples, grad)
                if level == 0:
                    axes = [
                        engine.shifted(a, *side) for a, side in zip(stage.axes, box, strict=True)
                    ]
                    source, mode = self.x[samples], self.mode
                else:
                    source, axes = self._input(level, box, samples)
                    mode = "zeros"
                engine.weight_gradient(self.half, source, dy, part, engine.three(axes), mode)
                total += part
        with engine.rounding():
            out[...] = total
