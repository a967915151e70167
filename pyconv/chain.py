"""Convolutions one after another, with intermediate images that stay within the workspace.

A `Chain` applies stages to an image, each a convolution as `pyconv.engine.convolve` takes it. The
image between two stages is never whole (unless it is small): the result is computed in boxes, and a
box asks the stage before it for the region that it reads, and so on back to the input. Gradients go
the other way: a box of an input's gradient asks the stage after it for the outputs that read it.

What the shapes decide is settled once: a `Chain` belongs to a problem, and remembers the boxes and
their `Image`s for each workspace that it has met. A `Pass` is a chain with the arrays of a call.

Every element is computed by the same sum whatever the boxes, so results do not depend on them; the
gradients of the weights are summed box by box, and the boxes follow from shapes and workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from pyconv import engine
from pyconv._kernels._tensor import padding_sources
from pyconv.checks import WorkspaceError
from pyconv.engine import Array, Axes, Box, Descriptor, Run
from pyconv.geometry import Axis

# Intermediate images of a box: they stay in cache from one stage to the next.
BOX_BYTES = 2**20

# The same for gradients of weights, whose sums each box takes up again.
SUM_BYTES = 2**22

# What a chain remembers: workspaces, and boxes for each. More boxes take long anyway.
REMEMBERED_RUNS, REMEMBERED_BOXES = 8, 64

# How much of the gradient after the first stage the boxes of all channels may compute, over what
# there is of it, before they have fewer channels instead; and the least of these, with which the
# kernels, and so the bits, are those of all.
OVERLAP = 1.25
LEAST_CHANNELS = 16

Span = tuple[int, int, int, int]  # padded positions, and the elements they are copies of
Piece = tuple[slice, Box]  # samples, and a box of them
InputPieces = tuple[list[tuple[int, int]], list[Piece]]  # ranges of groups, and pieces for each


def _is_box(spans: Sequence[Sequence[Span]]) -> bool:
    """Whether spans along the axes are a box of the image itself, nothing to be put together."""
    return all(len(along) == 1 and along[0][:2] == along[0][2:] for along in spans)


class Stage(NamedTuple):
    """One convolution of a chain, its arrays aside."""

    weight_shape: tuple[int, ...]  # (G, M, C, T0, T1, T2)
    axes: Axes

    @property
    def outputs(self) -> int:
        """Number of channels of the result."""
        return self.weight_shape[0] * self.weight_shape[1]


class Image(NamedTuple):
    """A stage's result on a box: how it is computed, and from what."""

    stage: int
    sides: tuple[int, ...]
    how: Descriptor
    source: Source | None  # None: all of the input, around which the kernel fills in what stands


class Source(NamedTuple):
    """What a stage reads of the image before it."""

    sides: tuple[int, ...]
    parts: tuple[Part, ...]


class Part(NamedTuple):
    """A part of a source: an image, or copies of its elements along some axes."""

    image: Image
    place: tuple[slice, ...] | None  # None: it is all of the source
    # axis, first and past the last position, the axis' extent, the image's first element
    copies: tuple[tuple[int, int, int, int, int], ...]


class Settled(NamedTuple):
    """What a chain remembers of a way to run."""

    half: Run  # for the kernels: the other half of the workspace is for images between stages
    held: int  # bytes of those, at most
    pieces: Sequence[Piece]  # of the result
    images: Sequence[Image]  # of all pieces, or of none where there are many


class Term(NamedTuple):
    """What a box adds to the gradient of a stage's weight."""

    samples: slice
    box: Box  # of the stage's result
    source: Source | None  # what the stage reads; None: all of the input
    axes: Axes  # of the stage, there
    mode: str


class Reverse(NamedTuple):
    """How the gradient before a stage is computed on a box."""

    box: Box  # of the stage's result, whose gradient it is computed from
    axes: Axes  # the stage's, there
    classes: engine.Classes


class Chain:
    """Stages for images of a shape (N, C, S0, S1, S2); level i is the image before stage i."""

    def __init__(
        self, samples: int, channels: int, spatial: Sequence[int], stages: Sequence[Stage],
        mode: str,
    ) -> None:  # fmt: skip
        self.samples = samples
        self.stages = stages
        self.mode = mode
        self.channels = [channels, *(s.outputs for s in stages)]
        self.extents = [tuple(spatial), *(tuple(a.out for a in s.axes) for s in stages)]
        self._remembered: dict[Run, Settled] = {}
        self._input_remembered: dict[Run, InputPieces] = {}
        self._reverse_remembered: dict[tuple[int, Box], Reverse] = {}
        self._weight_remembered: dict[tuple[Run, int], list[Term]] = {}

    # ---- regions -----------------------------------------------------------------------------

    def _spans(self, axis: Axis, lo: int, hi: int) -> list[Span]:
        """Where what outputs ``lo .. hi-1`` read comes from.

        With zeros it is the one range inside the array; otherwise what stands before the array and
        after it comes from somewhere else, which may be far away.
        """
        first, last = engine.reads(axis, lo, hi)
        inside = max(first, 0), min(last, axis.size)
        if self.mode == "zeros" or (first >= 0 and last <= axis.size):
            if inside[0] >= inside[1]:
                inside = 0, 0
            return [(*inside, *inside)]
        spans = [(*inside, *inside)] if inside[0] < inside[1] else []
        for start, stop in ((first, min(last, 0)), (max(first, axis.size), last)):
            if start < stop:
                # a period has all elements there are
                sources = padding_sources(
                    start, min(stop, start + 2 * axis.size), axis.size, self.mode
                )
                spans.append((start, stop, int(sources.min()), int(sources.max()) + 1))
        return spans

    def _sources(self, level: int, box: Box) -> list[list[Span]]:
        """`_spans` along each axis, for a box of `level`."""
        axes = self.stages[level - 1].axes
        return [self._spans(a, *side) for a, side in zip(axes, box, strict=True)]

    def _held(self, level: int, box: Box) -> int:
        """Elements, per sample, of images that are held to compute `box` of a level."""
        if level <= 1:
            return 0
        below, spans = level - 1, self._sources(level, box)
        elements = 0
        for choice in product(*spans):
            region = tuple((lo, hi) for _, _, lo, hi in choice)
            each = self.channels[below] * prod(hi - lo for lo, hi in region)
            elements = max(elements, each + self._held(below, region))
        if not _is_box(spans):
            # they are put together, by way of an index that copies
            reach = [max(p[1] for p in along) - min(p[0] for p in along) for along in spans]
            elements = 2 * elements + self.channels[below] * prod(reach)
        return elements

    def forward_bytes(self, run: Run, level: int, box: Box, n: int) -> int:
        """Bytes of images that are held to compute `box` of a level, the box itself aside."""
        return n * self._held(level, box) * run.dtype.itemsize

    def backward_bytes(
        self, run: Run, level: int, box: Box, n: int, channels: Sequence[int] = ()
    ) -> int:
        """Bytes of the gradients that are held to compute that of an image on `box`, that too.

        `channels` are those of each level, if not all.
        """
        elements, channels = 0, channels or self.channels
        for at in range(level, len(self.stages)):
            elements += channels[at] * prod(hi - lo for lo, hi in box)
            box = self._read_by(at, box)
        return n * elements * run.dtype.itemsize * (1 if self.mode == "zeros" else 3)

    def _read_by(self, stage: int, box: Box) -> Box:
        """The outputs of a stage that may read a box."""
        axes = self.stages[stage].axes
        return tuple(engine.read_by(a, *side) for a, side in zip(axes, box, strict=True))

    def _batches(self, run: Run, each: int, limit: int) -> Iterator[slice]:
        """Ranges of samples that fit together, given the bytes that one and that all may take."""
        if self.mode != "zeros":
            each = max(each, 3 * engine.fold_bytes(run))
        count = max(1, min(self.samples, limit // max(1, each)))
        for first in range(0, self.samples, count):
            yield slice(first, min(first + count, self.samples))

    def pieces(
        self, run: Run, level: int, each: Callable[[Box, int], int], most: int = 0,
        strips: bool = True,
    ) -> tuple[list[Piece], int]:  # fmt: skip
        """Samples and boxes of a level for which no more is held than there is room for; the bytes.

        `each` says what is held for a box of so many samples, `most` how much that may be, if not
        BOX_BYTES and if the workspace has it; see `engine.boxes` for `strips`.
        """
        extent, pieces = self.extents[level], list[Piece]()
        limit = min(run.budget, most or BOX_BYTES)
        for samples in self._batches(run, each(tuple((0, e) for e in extent), 1), limit):
            n = samples.stop - samples.start
            fits = lambda box, n=n: each(box, n) <= limit  # noqa: E731
            pieces += [(samples, box) for box in engine.boxes(extent, fits, strips)]
        held = max((each(box, s.stop - s.start) for s, box in pieces), default=0)
        if held > run.budget:
            raise WorkspaceError(run.operator, 2 * held, 2 * run.budget)
        return pieces, held

    # ---- images ------------------------------------------------------------------------------

    def image(self, level: int, box: Box) -> Image:
        """How the image of a level, from 1, is computed on a box."""
        stage, at = self.stages[level - 1], level - 1
        if at == 0:
            axes = [engine.shifted(a, *side) for a, side in zip(stage.axes, box, strict=True)]
            source, mode = None, self.mode
        else:
            (source, axes), mode = self.source(at, box), "zeros"
        how = engine.describe(engine.three(axes), stage.weight_shape, mode)
        return Image(at, tuple(hi - lo for lo, hi in box), how, source)

    def source(self, level: int, box: Box) -> tuple[Source, list[Axis]]:
        """What the stage after a level, from 1, reads for a box, and its axes there.

        Padding is part of it.
        """
        stage, spans = self.stages[level], self._sources(level + 1, box)
        starts = [min(span[0] for span in along) for along in spans]
        stops = [max(span[1] for span in along) for along in spans]
        axes = [
            replace(a, size=stop - start, before=a.before - lo * a.stride + start, out=hi - lo)
            for a, (lo, hi), start, stop in zip(stage.axes, box, starts, stops, strict=True)
        ]
        sides = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
        if _is_box(spans):
            image = self.image(level, tuple(zip(starts, stops, strict=True)))
            return Source(sides, (Part(image, None, ()),)), axes
        parts = []
        for choice in product(*spans):
            place, copies = [], []
            for i, (axis, start, (first, stop, lo, hi)) in enumerate(
                zip(stage.axes, starts, choice, strict=True)
            ):
                place.append((first - start, stop - start))
                if (first, stop) != (lo, hi):
                    copies.append((2 + i, first, stop, axis.size, lo))
            image = self.image(level, tuple((lo, hi) for _, _, lo, hi in choice))
            parts.append(Part(image, engine.region(place), tuple(copies)))
        return Source(sides, tuple(parts)), axes

    def _settle(self, run: Run) -> Settled:
        """What a call needs besides its arrays."""
        found = self._remembered.get(run)
        if found is None:
            half, level = run.share(2), len(self.stages)

            def each(box: Box, n: int) -> int:
                return self.forward_bytes(half, level, box, n)

            pieces, held = self.pieces(half, level, each)
            if len(pieces) > REMEMBERED_BOXES:
                return Settled(half, held, pieces, ())
            found = Settled(half, held, pieces, [self.image(level, box) for _, box in pieces])
            if len(self._remembered) >= REMEMBERED_RUNS:
                self._remembered.clear()
            self._remembered[run] = found
        return found

    # ---- forward -----------------------------------------------------------------------------

    def pack(self, run: Run, weights: Sequence[Array]) -> list[Any]:
        """Weights in the order of the kernels, for `forward`."""
        stages = zip(self.stages, weights, strict=True)
        return [engine.pack(run, weight, stage.axes) for stage, weight in stages]

    def forward(
        self, run: Run, x: Array, weights: Sequence[Array], packs: Sequence[Any],
        bias: Array | None, out: Array,
    ) -> int:  # fmt: skip
        """Write the last stage's image plus `bias` into `out`; return the bytes of workspace."""
        half, held, pieces, images = self._settle(run)
        one = Pass(self, half, x, weights, packs)

        def each(count: int | None) -> None:
            for i, (samples, box) in enumerate(pieces[:count]):
                image = images[i] if images else self.image(len(self.stages), box)
                one.compute(image, samples, bias, out[engine.region(box, samples)])

        # A workspace too small is found out before anything is written. Where it is ample, the
        # first box tells; where it is not, boxes of slightly different sizes may differ.
        ample = half.budget >= engine.AMPLE
        if run.measure or not ample:
            one.run = half.measuring()
            each(1 if ample else None)
            one.run = half
        if not run.measure:
            each(None)
        return held + one.used

    # ---- gradients ---------------------------------------------------------------------------

    def pack_back(self, run: Run, weights: Sequence[Array]) -> list[Any]:
        """Weights in the order of the kernels, for gradients of what is before a stage.

        Of stages without taps, whose order is that of any box.
        """
        return [
            engine.pack_adjoint(run, weight, stage.axes)
            if engine.single_taps(stage.axes) else None
            for stage, weight in zip(self.stages, weights, strict=True)
        ]  # fmt: skip

    def reverse(self, level: int, box: Box) -> Reverse:
        """How the gradient before stage `level` is computed on a box."""
        found = self._reverse_remembered.get((level, box))
        if found is None:
            stage = self.stages[level]
            on = [engine.adjoint_on(a, *side) for a, side in zip(stage.axes, box, strict=True)]
            axes = engine.three([axis for axis, _, _ in on])
            groups, rows, channels, *taps = stage.weight_shape
            classes = engine.classes_along(axes, (groups, channels, rows, *taps))
            found = Reverse(tuple((first, last) for _, first, last in on), axes, classes)
            if len(self._reverse_remembered) >= REMEMBERED_BOXES * len(self.stages):
                self._reverse_remembered.clear()
            self._reverse_remembered[level, box] = found
        return found

    def weight_gradient(
        self, run: Run, x: Array, weights: Sequence[Array], level: int, grad: Array, out: Array,
        packs: Sequence[Any] | None = None, back: Sequence[Any] | None = None,
    ) -> None:  # fmt: skip
        """Gradient of the weight of a stage into `out` (G, M, C, T0, T1, T2).

        `packs` are of `pack`, `back` of `pack_back`.
        """
        half = run.share(2)
        one = Pass(self, half, x, weights, packs, back)
        groups, rows = out.shape[:2]
        row = prod(out.shape[2:]) * run.dtype.itemsize  # bytes, in the compute type
        most = max(1, half.budget // 8 // max(1, row))
        parts = [(g, m, out[g, m]) for g, m in engine.blocks(groups, rows, most)]
        if out.dtype == run.dtype:
            one.sum_weight(level, grad, parts)
            return
        # A 16-bit gradient is summed in the compute type, as many rows at a time as there is room.
        for g, m, part in parts:
            total = np.empty(part.shape, run.dtype)
            one.sum_weight(level, grad, [(g, m, total)])
            with engine.rounding():
                part[...] = total

    def terms(self, run: Run, level: int) -> Iterable[Term]:
        """What the gradient of a stage's weight is the sum of."""
        found = self._weight_remembered.get((run, level))
        if found is not None:
            return found

        def each(box: Box, n: int) -> int:
            held = self.forward_bytes(run, level + 1, box, n)
            return held + self.backward_bytes(run, level + 1, box, n)

        pieces, _ = self.pieces(run, level + 1, each, SUM_BYTES)
        terms = (self._term(level, samples, box) for samples, box in pieces)
        if len(pieces) > REMEMBERED_BOXES:
            return terms
        if len(self._weight_remembered) >= REMEMBERED_RUNS:
            self._weight_remembered.clear()
        found = self._weight_remembered[run, level] = list(terms)
        return found

    def _term(self, level: int, samples: slice, box: Box) -> Term:
        if level > 0:
            source, axes = self.source(level, box)
            return Term(samples, box, source, engine.three(axes), "zeros")
        on = zip(self.stages[0].axes, box, strict=True)
        axes = [engine.shifted(a, *side) for a, side in on]  # the input is there as a whole
        return Term(samples, box, None, engine.three(axes), self.mode)

    def input_gradient(
        self, run: Run, x: Array, weights: Sequence[Array], grad: Array, out: Array,
        back: Sequence[Any] | None = None,
    ) -> None:  # fmt: skip
        """Gradient of the input into `out`; `back` is of `pack_back`."""
        half = run.share(2)
        blocks, pieces = self._input_pieces(half)
        for first, last in blocks:
            channels = self.stages[0].weight_shape[2]
            there = out[:, first * channels : last * channels]
            part, after = self._part(weights, first, last)
            one = Pass(self, half, x, part, None, back if len(blocks) == 1 else None)
            for samples, box in pieces:
                place = there[engine.region(box, samples)]
                gradient = one.gradient(0, box, samples, grad[:, after], place)
                if gradient is not place:
                    with engine.rounding():
                        place[...] = gradient

    def _part(self, weights: Sequence[Array], first: int, last: int) -> tuple[list[Array], slice]:
        """What some groups of the first stage reach: weights of all stages, channels of the result.

        A stage of one group, which takes what it needs of all, is the end of it.
        """
        part = list(weights)
        part[0] = weights[0][first:last]
        for at, stage in enumerate(self.stages):
            rows = stage.weight_shape[1]
            first, last = first * rows, last * rows
            if at + 1 == len(self.stages):
                return part, slice(first, last)
            groups, _, channels = self.stages[at + 1].weight_shape[:3]
            if groups == 1:
                part[at + 1] = weights[at + 1][:, :, first:last]
                break
            first, last = first // channels, last // channels
            part[at + 1] = weights[at + 1][first:last]
        return part, slice(None)

    def _divisible(self) -> bool:
        """Whether `_part` is for any groups: none shares a group of a later stage with another."""
        made = 1
        for stage, after in pairwise(self.stages):
            made *= stage.weight_shape[1]
            groups, _, channels = after.weight_shape[:3]
            if groups == 1:
                return True
            if channels == 0 or made % channels:
                return False
            made //= channels
        return len(self.stages) > 1

    def _some_channels(self, count: int) -> list[int]:
        """Channels of each level that `_part` has for so many groups."""
        groups, found = self.stages[0].weight_shape[0], list(self.channels)
        for at, stage in enumerate(self.stages):
            found[at] = found[at] * count // groups
            if at > 0 and stage.weight_shape[0] == 1:
                break
        return found

    def _input_pieces(self, run: Run) -> InputPieces:
        """`_find_input_pieces`, remembered."""
        found = self._input_remembered.get(run)
        if found is None:
            found = self._find_input_pieces(run)
            if len(self._input_remembered) >= REMEMBERED_RUNS:
                self._input_remembered.clear()
            if len(found[0]) + len(found[1]) <= REMEMBERED_BOXES:
                self._input_remembered[run] = found
        return found

    def _find_input_pieces(self, run: Run) -> InputPieces:
        """Ranges of the first stage's groups, and the pieces of the input for each of them.

        All groups together, unless the boxes are so small then that they compute what is after the
        first stage again and again, as those of large dilations do.
        """
        groups, rows, channels = self.stages[0].weight_shape[:3]

        def pieces_of(count: int) -> list[Piece]:
            some = self._some_channels(count) if count < groups else ()

            def each(box: Box, n: int) -> int:
                if self.mode != "zeros":
                    return self.backward_bytes(run, 0, box, n, some)
                # What is not folded is computed where it goes to.
                return self.backward_bytes(run, 1, self._read_by(0, box), n, some)

            # What is folded comes from far away: the nearer to a cube a box is, the better.
            return self.pieces(run, 0, each, strips=self.mode == "zeros")[0]

        count, pieces = groups, pieces_of(groups)
        if self._divisible():
            least = 2 * LEAST_CHANNELS / max(1, min(rows, channels))
            while count > 1 and count >= least and self._overlap(pieces) > OVERLAP:
                count = -(-count // 2)
                pieces = pieces_of(count)
        parts = -(-groups // max(1, count))
        return [(i * groups // parts, (i + 1) * groups // parts) for i in range(parts)], pieces

    def _overlap(self, pieces: Sequence[Piece]) -> float:
        """What pieces of the input compute of the gradient after the first stage, over it all."""
        computed = 0
        for samples, box in pieces:
            sides = self._read_by(0, box)
            computed += (samples.stop - samples.start) * prod(hi - lo for lo, hi in sides)
        return computed / max(1, self.samples * prod(self.extents[1]))


class Pass:
    """A chain with the arrays of a call: one pass over its boxes."""

    def __init__(
        self, chain: Chain, run: Run, x: Array, weights: Sequence[Array],
        packs: Sequence[Any] | None, back: Sequence[Any] | None = None,
    ) -> None:  # fmt: skip
        none = [None] * len(weights)
        self.chain = chain
        self.run = run
        self.x = x
        self.weights = weights
        self.packs = packs or none
        self.back = back or none
        self.used = 0

    # ---- forward -----------------------------------------------------------------------------

    def compute(self, image: Image, samples: slice, bias: Array | None, out: Array) -> None:
        """Write an image plus `bias` into `out`."""
        source = self.x[samples] if image.source is None else self._read(image.source, samples)
        at = image.stage
        used = engine.convolve(
            self.run, source, self.weights[at], bias, out, image.how, self.packs[at]
        )
        self.used = max(self.used, used)

    def _value(self, image: Image, samples: slice) -> Array:
        channels = self.chain.channels[image.stage + 1]
        shape = (samples.stop - samples.start, channels, *image.sides)
        result = np.empty(shape, self.run.dtype)
        if result.size:
            self.compute(image, samples, None, result)
        return result

    def _read(self, source: Source, samples: slice) -> Array:
        """What a stage reads of the image before it, padding filled in."""
        first = source.parts[0]
        if first.place is None:
            return self._value(first.image, samples)
        channels = self.chain.channels[first.image.stage + 1]
        shape = (samples.stop - samples.start, channels, *source.sides)
        whole = np.empty(shape, self.run.dtype)
        for image, place, copies in source.parts:
            value = self._value(image, samples)
            for axis, start, stop, size, lo in copies:
                rows = padding_sources(start, stop, size, self.chain.mode) - lo
                value = np.take(value, rows, axis=axis)
            whole[place] = value
        return whole

    # ---- backward ----------------------------------------------------------------------------

    def gradient(
        self, level: int, box: Box, samples: slice, grad: Array, out: Array | None = None
    ) -> Array:
        """Gradient with respect to the image of a level on a box; `grad` is that of the last.

        It may be in `out`, if that is given.
        """
        chain = self.chain
        if level == len(chain.stages):
            return grad[engine.region(box, samples)]
        axes, weight = chain.stages[level].axes, self.weights[level]
        shape = (samples.stop - samples.start, weight.shape[0] * weight.shape[2])

        def adjoint(part: Box, result: Array | None = None) -> Array:
            how = chain.reverse(level, part)
            after = self.gradient(level + 1, how.box, samples, grad)
            if result is None:
                result = np.empty(shape + tuple(hi - lo for lo, hi in part), self.run.dtype)
            # Of some groups alone the classes are others.
            same = weight.shape == chain.stages[level].weight_shape
            engine.adjoint(
                self.run, after, weight, None, result, how.axes, self.back[level],
                how.classes if same else None,
            )  # fmt: skip
            return result

        if chain.mode == "zeros":
            return adjoint(box, out)
        return engine.fold(self.run, axes, box, chain.mode, adjoint, shape)

    def sum_weight(
        self, level: int, grad: Array, sums: Sequence[tuple[slice, slice, Array]]
    ) -> None:
        """Sum what every box contributes to a weight's gradient.

        `sums` are ranges of groups and of their rows, and where the sums for these go.
        """
        run = self.run
        rows, channels = self.chain.stages[level].weight_shape[1:3]
        begun = False
        for samples, box, source, axes, mode in self.chain.terms(run, level):
            dy = self.gradient(level + 1, box, samples, grad)
            x = self.x[samples] if source is None else self._read(source, samples)
            for g, m, total in sums:
                part = np.empty(total.shape, run.dtype) if begun else total
                engine.weight_gradient(
                    run, x[:, engine.channel_range(g, slice(0, channels), channels)],
                    dy[:, engine.channel_range(g, m, rows)], part, axes, mode,
                )  # fmt: skip
                if begun:
                    total += part
            begun = True
        for _, _, total in sums if not begun else ():
            total[...] = 0
