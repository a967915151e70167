"""Convolution by fast Fourier transforms, for few channels and kernels of hundreds of taps.

The same sum as in ``_conv.pyx``, by overlap-save: the outputs are computed in blocks. A block
transforms the inputs that it reads, multiplies them by the kernel's transform, and transforms the
sums over the channels back; what has wrapped around is dropped. Strides leave out outputs of the
one at stride 1, dilations put zeros between the taps.

`numpy.fft` transforms each line by itself, so bits depend on neither batch nor place, and blocks
follow from the shapes alone; threads share them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product
from math import log2, prod
from typing import Any, NamedTuple

import numpy as np

from pyconv import dtypes
from pyconv._kernels._tensor import padding_sources
from pyconv.checks import WorkspaceError
from pyconv.geometry import Axis, ceil_div

Array = np.ndarray[Any, Any]

# Elements of a block, unless the kernel is larger: its transforms stay in cache; and of all that a
# block takes, for its workspace to be 16 MiB at most, in float64.
MOST_POINTS, MOST_HELD = 2**18, 2**21

# What a block takes besides, in steps of a transform.
EACH = 5e4

# Elements of blocks that are worth a thread.
THREAD = 2**17

# Transformed weights that a plan keeps; others are transformed at each call.
MOST_KEPT = 2**23


class Blocks(NamedTuple):
    """How the outputs are cut into blocks, along each of three axes."""

    lengths: tuple[int, ...]  # inputs of a block: what is transformed
    outputs: tuple[int, ...]  # of a block
    counts: tuple[int, ...]  # blocks
    # taps that read something other than the zeros of the padding; empty: all
    alive: tuple[tuple[bool, ...], ...] = ()

    @property
    def points(self) -> int:
        """Inputs of a block."""
        return prod(self.lengths)


@lru_cache(1024)
def good_length(least: int) -> int:
    """The smallest length from `least` on that is a product of powers of 2, 3 and 5, and even."""
    best = 2 ** max(1, (least - 1).bit_length())
    for fives in range(14):
        for threes in range(20):
            odd = 5**fives * 3**threes
            if 2 * odd > best:
                break
            best = min(best, odd * 2 ** max(1, (ceil_div(least, odd) - 1).bit_length()))
    return best


def _ways(out: int, reach: int, stride: int, most: int) -> list[tuple[int, int, int]]:
    """Ways to cut an axis: the length, outputs and number of blocks."""
    ways: list[tuple[int, int, int]] = []
    count = 1
    while True:
        each = wanted = ceil_div(out, count)
        length = (each - 1) * stride + reach
        if reach > 1:  # other axes are not transformed
            length = good_length(length)
            each = min(out, (length - reach) // stride + 1)
        if not ways or length < ways[-1][0]:
            ways.append((length, each, ceil_div(out, each)))
        if wanted == 1 or 4 * wanted * stride < reach:  # too little is kept of smaller ones
            break
        count = max(count + 1, count * 3 // 2)
    return [way for way in ways if way[0] <= most] or ways[-1:]


@lru_cache(1024)
def _choose(
    out: tuple[int, ...], reach: tuple[int, ...], stride: tuple[int, ...], most: int
) -> Blocks:
    """The blocks that take the least, of at most `most` elements if there are any."""
    ways = [_ways(*axis, most) for axis in zip(out, reach, stride, strict=True)]
    best, least = None, 0.0
    for way in product(*ways):
        lengths, outputs, counts = zip(*way, strict=True)
        found = Blocks(lengths, outputs, counts)
        cost = prod(counts) * (found.points * (4 + log2(found.points)) + EACH)
        if found.points > most:  # rather the smallest than the cheapest
            cost = 2.0**200 * found.points
        if best is None or cost < least:
            best, least = found, cost
    assert best is not None
    return best


def choose_blocks(axes: Sequence[Axis], rows: int, channels: int, mode: str = "zeros") -> Blocks:
    """The blocks for groups of so many outputs and inputs; the missing leading axes are of 1."""
    missing = (1,) * (3 - len(axes))
    out = missing + tuple(max(1, a.out) for a in axes)
    reach = missing + tuple(a.reach for a in axes)
    stride = missing + tuple(a.stride for a in axes)
    most = most_points(rows, channels)
    blocks = _choose(out, reach, stride, most)
    if mode != "zeros" or blocks.points > most:  # of that many taps nobody asks which are alive
        return blocks
    alive = ((True,),) * (3 - len(axes)) + tuple(
        tuple(_is_alive(a, t) for t in range(a.kernel)) for a in axes
    )
    return blocks if all(map(all, alive)) else blocks._replace(alive=alive)


def _is_alive(axis: Axis, tap: int) -> bool:
    """Whether a tap reads anything inside the array."""
    first = tap * axis.dilation - axis.before
    output = max(0, ceil_div(-first, axis.stride))
    return output < axis.out and first + output * axis.stride < axis.size


def most_points(rows: int, channels: int) -> int:
    """Elements of a block, of groups of so many outputs and inputs."""
    return min(MOST_POINTS, MOST_HELD // (_images(channels) + _kernels(rows, channels)))


def _images(channels: int) -> int:
    """Blocks, or their transforms, that a thread holds at once.

    A group's transforms, sums of products, and what one transform takes.
    """
    return channels + channels.bit_length() + 8


def _kernels(rows: int, channels: int) -> int:
    """Transforms that all threads share."""
    return rows * channels


def pack_weights(
    blocks: Blocks, dilation: Sequence[int], weight: Array, compute: int, threads: int
) -> Any:
    """Transform weights ``(G, M, C, T0, T1, T2)`` for a plan, if they take little memory."""
    groups, rows, channels = weight.shape[:3]
    itemsize = dtypes.COMPUTE[compute].itemsize
    if groups * rows * channels * blocks.points * itemsize > MOST_KEPT:
        return None
    return [_transform(blocks, dilation, weight[g], compute) for g in range(groups)]


def _spectrum(blocks: Blocks) -> int:
    """Numbers in the transform of a block: of half of the last axis, and complex."""
    return blocks.points + 2 * prod(blocks.lengths[:-1])


def _axes(weight_shape: Sequence[int]) -> tuple[int, ...]:
    """The axes to transform, from the last: those with several taps."""
    return tuple(axis - 3 for axis in range(3) if weight_shape[axis - 3] > 1)


def _forward(block: Array, axes: tuple[int, ...]) -> Array:
    """The transform of one block, or the block where no axis has several taps."""
    return np.fft.rfftn(block, axes=axes) if axes else block


def _empty(blocks: Blocks, leading: tuple[int, ...], axes: tuple[int, ...], compute: int) -> Array:
    """Room for transforms."""
    lengths = list(blocks.lengths)
    if not axes:
        return np.empty((*leading, *lengths), dtypes.COMPUTE[compute])
    lengths[axes[-1]] = lengths[axes[-1]] // 2 + 1
    return np.empty((*leading, *lengths), np.result_type(dtypes.COMPUTE[compute], np.complex64))


def _transform(blocks: Blocks, dilation: Sequence[int], weight: Array, compute: int) -> Array:
    """Conjugate transforms of the kernels ``(M, C, T0, T1, T2)`` of a group."""
    axes = _axes(weight.shape)
    # the same all along the other axes
    flat = blocks._replace(lengths=tuple(
        length if a - 3 in axes else 1 for a, length in enumerate(blocks.lengths)
    ))  # fmt: skip
    where = tuple(
        slice(0, (t - 1) * d + 1, d) for t, d in zip(weight.shape[2:], dilation, strict=True)
    )
    kernels = _empty(flat, weight.shape[:2], axes, compute)
    for m, c in np.ndindex(*weight.shape[:2]):
        spread = np.zeros(flat.lengths, dtypes.COMPUTE[compute])
        spread[where] = weight[m, c]
        for axis, alive in enumerate(blocks.alive):  # others would make these less exact
            dead = [t * dilation[axis] for t, meets in enumerate(alive) if not meets]
            spread[(slice(None),) * axis + (dead,)] = 0
        np.conjugate(_forward(spread, axes), out=kernels[m, c], casting="same_kind")
    return kernels


def _read(
    x: Array, first: Sequence[int], used: Sequence[slice | Array], block: Array, mode: str
) -> None:
    """Fill a block with the padded channel `x` from `first` on, where that is `used`."""
    spans = [_extent(u) for u in used]
    if mode == "zeros":
        inside = [
            (max(f, 0), min(f + length, size))
            for f, length, size in zip(first, spans, x.shape, strict=True)
        ]
        block.fill(0)
        if all(lo < hi for lo, hi in inside):
            to = tuple(slice(lo - f, hi - f) for f, (lo, hi) in zip(first, inside, strict=True))
            block[to] = x[tuple(slice(lo, hi) for lo, hi in inside)]
    else:
        sources = (
            padding_sources(f, f + length, size, mode)
            for f, length, size in zip(first, spans, x.shape, strict=True)
        )
        block.fill(0)
        block[tuple(map(slice, spans))] = x[np.ix_(*sources)]
    for axis, u in enumerate(used):
        if not isinstance(u, slice):  # between taps or outputs: nobody's rounding either
            gaps = np.setdiff1d(np.arange(spans[axis]), u)
            block[(slice(None),) * axis + (gaps,)] = 0


def _used(outputs: int, taps: int, stride: int, dilation: int) -> slice | Array:
    """What outputs read along an axis: all from 0 on, or some positions."""
    if dilation == 1 and (stride <= taps or outputs == 1):
        return slice(0, (outputs - 1) * stride + taps)
    return np.unique(np.add.outer(np.arange(outputs) * stride, np.arange(taps) * dilation))


def _extent(used: slice | Array) -> int:
    return int(used.stop if isinstance(used, slice) else used[-1] + 1)


def _mix(spectra: Array, kernels: Array) -> Array:
    """Sum of the products, added pairwise: chains of additions stay short."""
    if len(spectra) == 1:
        return spectra[0] * kernels[0]
    half = len(spectra) // 2
    total: Array = _mix(spectra[:half], kernels[:half])
    total += _mix(spectra[half:], kernels[half:])
    return total


def correlate(
    blocks: Blocks, operator: str, x: Array, weight: Array, bias: Array | None, out: Array,
    stride: Sequence[int], dilation: Sequence[int], offset: Sequence[int], mode: str,
    compute: int, threads: int, budget: int, packed: Any = None, measure: bool = False,
) -> int:  # fmt: skip
    """Forward, with the arguments of ``_conv.correlate``; returns the bytes of workspace."""
    missing = 3 - (x.ndim - 2)
    x = x[(slice(None),) * 2 + (np.newaxis,) * missing]
    out = out[(slice(None),) * 2 + (np.newaxis,) * missing]
    groups, rows, channels = weight.shape[:3]
    dtype = dtypes.COMPUTE[compute]
    # a task is a block of a sample
    tasks = x.shape[0] * prod(blocks.counts)
    each = _spectrum(blocks) * dtype.itemsize
    fixed = 0 if packed is not None else _kernels(rows, channels) * each
    each *= _images(channels)
    if fixed + each > budget:
        raise WorkspaceError(operator, fixed + each, budget)
    threads = min(threads, tasks, (budget - fixed) // each, 1 + tasks * blocks.points // THREAD)
    if measure or out.size == 0:
        return fixed + threads * each
    for g in range(groups):
        kernels = _transform(blocks, dilation, weight[g], compute) if packed is None else packed[g]
        starts = [0] * rows if bias is None else bias[g * rows : (g + 1) * rows].astype(dtype)
        images = x[:, g * channels : (g + 1) * channels]
        results = out[:, g * rows : (g + 1) * rows]
        work = partial(
            _convolve_blocks, blocks, images, kernels, starts, results, stride, offset, mode,
            weight.shape[3:], dilation, compute,
        )  # fmt: skip
        if threads == 1:
            work(range(tasks))
            continue
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            shares = [range(i, tasks, threads) for i in range(threads)]
            list(pool.map(work, shares))  # raises what they raised
    return fixed + threads * each


def _convolve_blocks(
    blocks: Blocks, x: Array, kernels: Array, starts: Any, out: Array,
    stride: Sequence[int], offset: Sequence[int], mode: str, taps: Sequence[int],
    dilation: Sequence[int], compute: int, tasks: Sequence[int],
) -> None:  # fmt: skip
    """Some blocks of the samples, for one group whose channels `x` and `out` are."""
    axes = _axes(taps)
    lengths = [blocks.lengths[a] for a in axes]
    spots = prod(blocks.counts)
    block = np.empty(blocks.lengths, dtypes.COMPUTE[compute])
    spectra = _empty(blocks, x.shape[1:2], axes, compute)
    with np.errstate(all="ignore"):  # infinities and overflows spread, as documented
        for task in tasks:
            n = task // spots
            at = np.unravel_index(task % spots, blocks.counts)
            lo = [int(i) * each for i, each in zip(at, blocks.outputs, strict=True)]
            first = [o * s + f for o, s, f in zip(lo, stride, offset, strict=True)]
            box = (slice(o, o + each) for o, each in zip(lo, blocks.outputs, strict=True))
            index: tuple[Any, ...] = (n, slice(None), *box)
            results = out[index]
            along = zip(results.shape[1:], taps, stride, dilation, strict=True)
            used = [_used(*axis) for axis in along]
            for c in range(x.shape[1]):
                _read(x[n, c], first, used, block, mode)
                spectra[c] = _forward(block, axes)
            kept = tuple(
                slice(0, (size - 1) * s + 1, s)
                for size, s in zip(results.shape[1:], stride, strict=True)
            )
            for m in range(out.shape[1]):
                total = _mix(spectra, kernels[m])
                if axes:
                    total = np.fft.irfftn(total, lengths, axes)
                results[m] = total[kept] + starts[m]
