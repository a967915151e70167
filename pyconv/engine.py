"""From NumPy views to the compiled kernels: what every operator is made of.

All functions take *canonical* views and write into the result they are given:

- images ``(N, C, S0, S1, S2)``, whatever their memory layout (`canonical` makes such a view);
- weights ``(G, M, C, T0, T1, T2)``: group, row, channel of the group, taps (`grouped_weight`);
- three `pyconv.geometry.Axis`, the missing leading ones of extent 1.

Nothing is checked here but the workspace, and nothing is computed here: an array of any strides,
byte order or storage type goes to the kernels as it is. What depends on the shapes alone is a
`Descriptor`, or a `Piece` for each part of the result: made once, for any number of calls. A
convolution, its gradient with respect to the input, and a transposed convolution are one kernel
with different numbers: the adjoint of a strided convolution is an ordinary one for each residue
class of its result, and all classes are one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise, product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from pyconv import algorithms, checks, dtypes, fft, geometry
from pyconv._kernels import (
    _col2im,
    _conv,
    _depthwise,
    _depthwise_adjoint,
    _depthwise_mixed,
    _depthwise_weights,
    _transposed,
    _winograd,
    _winograd_grad,
    _winograd_lanes,
    _winograd_weights,
)
from pyconv._kernels._tensor import padding_sources
from pyconv.geometry import UNIT, Axis, untouched

Array = np.ndarray[Any, Any]
Axes = tuple[Axis, Axis, Axis]
Box = tuple[tuple[int, int], ...]  # (first, past the last) along each spatial axis


# Workspace with which no step of a call fails that comes after a first one has succeeded.
AMPLE = 8 * 2**20

# What the gradient of a padded input folds at a time, per sample, if a box is smaller than that;
# and the longest run along one axis.
FOLD_BYTES = 2**20
LONGEST_RUN = 2**16

# How much more than the padded positions that are wanted may be computed to have them all at once.
WHOLE = 1.25

# Residue classes along an axis that the kernel for all of them takes, and the splits into classes
# that are remembered.
MOST_CLASSES = 512
MOST_WOVEN = 1024  # by the kernel of few channels
_MOST_SPLITS = 256
_FEW_SPLITS = 32  # of those that may be long

# Strides, dilations and offset of a product with each pixel alone, and what stands around.
_ALONE = ((1, 1, 1), (1, 1, 1), (0, 0, 0), "zeros")

# Bytes of columns that are made together, of several samples and groups.
COLUMN_BYTES = 2**19

# Bytes of samples that are computed together, at most, where pieces read them one after another.
NEAR_BYTES = 2**22

# A row of the result that one thread gathers from columns at a time.
ROW_BYTES = 2**16

# Rows of a single group that the kernel for few channels makes one by one, in gradients of weights;
# half as many at a stride.  And how many multiply-adds a row has to have before a second one is
# worth it; four times as many before a third, and so on.
FEW_ROWS, PASS_WORTH = 4, 125_000

# Pixels that a box should have room for, before its channels are split.
LEAST_PIXELS = 256


def unmoved(axes: Sequence[Axis]) -> Axes:
    """Axes of a product with each of the outputs along `axes`."""
    return three([untouched(a.out) for a in axes])


@dataclass(frozen=True, slots=True)
class Run:
    """How a call runs: for whom, on how many threads, with how much workspace.

    With ``measure`` the kernels only report the workspace they would take.
    """

    operator: str
    compute: int  # code of the compute type, see pyconv.dtypes
    threads: int
    budget: int
    measure: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """The compute type."""
        return dtypes.COMPUTE[self.compute]

    @property
    def tight(self) -> bool:
        """Whether a later step of a call may fail for want of workspace, unlike the first.

        Then all are measured before anything is written.
        """
        return self.budget < AMPLE and not self.measure

    def measuring(self) -> Run:
        """The same, to report the workspace alone."""
        return replace(self, measure=True)

    def on(self, threads: int) -> Run:
        """The same on so many threads."""
        return self if threads == self.threads else replace(self, threads=threads)

    def share(self, part: int) -> Run:
        """The same with ``1 / part`` of the workspace."""
        return replace(self, budget=max(1, self.budget // part))

    def less(self, taken: int) -> Run:
        """The same with `taken` bytes of workspace used up."""
        return replace(self, budget=max(1, self.budget - taken))


# ---- canonical views -----------------------------------------------------------------------------


def plain(array: Array, *, batched: bool, channels_last: bool) -> Array:
    """View an image of any number of spatial axes as ``(N, C, *S)``."""
    if not batched:
        array = array[np.newaxis]
    if channels_last:
        array = array.transpose(0, -1, *range(1, array.ndim - 1))
    return array


def canonical(array: Array, *, batched: bool, channels_last: bool) -> Array:
    """View an image of 1 to 3 spatial axes as ``(N, C, S0, S1, S2)``."""
    if batched and not channels_last and array.ndim == 4:  # at once, being the most usual
        return array[:, :, np.newaxis]
    return _with_axes(plain(array, batched=batched, channels_last=channels_last))


def _with_axes(image: Array) -> Array:
    """View an image ``(N, C, *S)`` with the missing leading spatial axes filled in."""
    missing = 5 - image.ndim
    return image[(slice(None),) * 2 + (np.newaxis,) * missing] if missing else image


def grouped_weight(weight: Array, groups: int, flip: bool = False) -> Array:
    """View weights ``(groups * M, C, *k)`` as ``(groups, M, C, T0, T1, T2)``."""
    weight = weight[(slice(None),) * 2 + (np.newaxis,) * (5 - weight.ndim)]
    rows = weight.shape[0] // groups if groups else 0
    weight = weight.reshape((groups, rows, *weight.shape[1:]))
    return flipped(weight) if flip else weight


def flipped(weight: Array) -> Array:
    """Weights ``(G, M, C, T0, T1, T2)`` with their taps in the opposite order."""
    return weight[..., ::-1, ::-1, ::-1]


def grouped_shape(shape: Sequence[int], groups: int) -> tuple[int, ...]:
    """Shape of `grouped_weight` of a weight of this shape."""
    rows = shape[0] // groups if groups else 0
    return (groups, rows, shape[1], *extents(shape[2:]))


def extents(spatial: Sequence[int]) -> tuple[int, ...]:
    """Spatial extents with the missing leading ones filled in."""
    return (1,) * (3 - len(spatial)) + tuple(spatial)


def region(box: Sequence[tuple[int, int]], samples: slice = slice(None)) -> tuple[slice, ...]:
    """Index of a box of a canonical view, all channels."""
    return samples, slice(None), *(slice(lo, hi) for lo, hi in box)


def every(steps: Sequence[tuple[int, int | None, int]]) -> tuple[slice, ...]:
    """Index of strided parts of a canonical view, all samples and channels."""
    return slice(None), slice(None), *(slice(*step) for step in steps)


def rounding() -> np.errstate:
    """Context for rounding sums to a 16-bit result: too large becomes infinite, as in a kernel."""
    return np.errstate(over="ignore", invalid="ignore")


def three(axes: Sequence[Axis]) -> Axes:
    """Axes with the missing leading ones filled in."""
    padded = (UNIT,) * (3 - len(axes)) + tuple(axes)
    return padded[0], padded[1], padded[2]


def pixels(image: Array, p: int, count: int) -> Array:
    """Pixels ``p .. p+count-1`` of ``(C, S0, S1, S2)`` as ``(1, C, 1, 1, count)``."""
    channels, *extent = image.shape
    steps = [(e, s) for e, s in zip(extent, image.strides[1:], strict=True) if e > 1]
    if all(outer[1] == inner[0] * inner[1] for outer, inner in pairwise(steps)):
        flat = image.reshape(channels, -1)[:, p : p + count]  # evenly spaced: a view
    else:
        at: Any = (slice(None), *np.unravel_index(np.arange(p, p + count), extent))
        flat = image[at]
    return flat[np.newaxis, :, np.newaxis, np.newaxis]


# ---- convolution and its adjoint -----------------------------------------------------------------


class Descriptor(NamedTuple):
    """A convolution without its arrays: the kernel that does it and the numbers that it takes."""

    kernel: Callable[..., int]  # correlate of _depthwise, _conv (a GEMM), _winograd or fft
    pack: Callable[..., Any] | None  # puts weights into its order; None: takes them as they are
    stride: Sequence[int]
    dilation: Sequence[int]
    offset: Sequence[int]  # of the first tap
    mode: str


class Piece(NamedTuple):
    """A part of a result that is a convolution by itself, with some of the taps."""

    place: tuple[slice, ...]  # in the result, canonical
    taps: tuple[slice, ...]  # of the weights
    how: Descriptor | None  # None: no tap, there is nothing but the bias


def _packer(axes: Axes, rows: int, channels: int) -> Callable[..., Any]:
    """What puts weights into the order of the micro-kernel that is the best for the shape."""
    lanes = algorithms.in_lanes(axes, rows, channels=channels)
    return partial(_conv.pack_weights, lanes=lanes)


def _descriptor(axes: Axes, weight_shape: Sequence[int], mode: str = "zeros") -> Descriptor:
    stride, dilation, offset = numbers(axes)
    if _depthwise.suits(weight_shape, stride, dilation):
        return Descriptor(_depthwise.correlate, None, stride, dilation, offset, mode)
    if _by_columns(axes, weight_shape) and mode == "zeros":
        columns = partial(_correlate_by_columns, mirrored(axes))
        return Descriptor(columns, _pack_columns, stride, dilation, offset, mode)
    # Weights of a plan are in the order of the best micro-kernel; others are as they are, unless
    # it is worth packing them at each call.
    per_call = algorithms.in_lanes(axes, weight_shape[1], False, weight_shape[2])
    kernel = partial(_conv.correlate, lanes=True) if per_call else _conv.correlate
    pack = _packer(axes, weight_shape[1], weight_shape[2])
    return Descriptor(kernel, pack, stride, dilation, offset, mode)


def describe(
    axes: Axes, weight_shape: Sequence[int], mode: str = "zeros", algorithm: str = "direct"
) -> Descriptor:
    """Describe the convolution along `axes` with weights ``(G, M, C, T0, T1, T2)``.

    `algorithm` is ``"winograd"``, on axes that `algorithms.winograd_takes`, or ``"fft"``, or else
    the taps are read as they are.
    """
    groups, rows, channels = weight_shape[:3]
    stride, dilation, offset = numbers(axes)
    # Without weights there is nothing to transform: the result is the bias.
    if algorithm == "winograd" and 0 not in weight_shape:
        tile = algorithms.winograd_tile(axes, rows, channels, groups)
        lanes = algorithms.winograd_in_lanes(axes, rows, channels, groups, tile)
        kernel = partial((_winograd_lanes if lanes else _winograd).correlate, tile)
        pack = partial(_winograd_weights.pack_weights, tile, stride, lanes=lanes)
        return Descriptor(kernel, pack, stride, dilation, offset, mode)
    if algorithm == "fft" and 0 not in weight_shape:
        blocks = fft.choose_blocks(axes, rows, channels, mode)
        pack = partial(fft.pack_weights, blocks, dilation)
        return Descriptor(partial(fft.correlate, blocks), pack, stride, dilation, offset, mode)
    return _descriptor(axes, weight_shape, mode)


def describe_mixed(
    axes: Axes, weight_shape: Sequence[int], rows: int, mode: str = "zeros"
) -> Descriptor | None:
    """Describe a convolution along `axes` whose channels are mixed next, for `convolve_mixed`.

    They are mixed into `rows`. None where the channels between have to be in memory for a while,
    or are better kept there: see `pyconv.chain`.
    """
    stride, dilation, offset = numbers(axes)
    apart = algorithms.mixing_apart(axes, weight_shape[0])
    if apart or not _depthwise_mixed.packs(weight_shape, stride, dilation):
        return None
    pack = _packer(unmoved(axes), rows, weight_shape[0])
    return Descriptor(_depthwise_mixed.correlate_mixed, pack, stride, dilation, offset, mode)


def pack_for(run: Run, weight: Array, how: Descriptor) -> Any:
    """Weights in the order of the kernel, or None where it takes them as they are."""
    if how.pack is None or weight.size == 0:
        return None
    return how.pack(weight, run.compute, run.threads)


def convolve(
    run: Run,
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    how: Descriptor,
    packed: Any = None,
) -> int:
    """Convolve `x` into `out` as described; returns the bytes of workspace.

    `packed` is of `pack_for`. Missing leading spatial axes may be left out.
    """
    kernel, _, stride, dilation, offset, mode = how
    return kernel(
        run.operator, x, weight, bias, out, stride, dilation, offset, mode, run.compute,
        run.threads, run.budget, packed, run.measure,
    )  # fmt: skip


def convolve_mixed(
    run: Run,
    x: Array,
    weight: Array,
    mix: Array,
    bias: Array | None,
    out: Array,
    how: Descriptor,
    packed: Any = None,
) -> int:
    """Convolve `x` as described and multiply each pixel by `mix`; returns the bytes of workspace.

    `packed` is of `pack_for`, for `mix`: a `matrix`, with one group.
    """
    kernel, _, stride, dilation, offset, mode = how
    return kernel(
        run.operator, x, weight, mix, bias, out, stride, dilation, offset, mode, run.compute,
        run.threads, run.budget, packed, run.measure,
    )  # fmt: skip


def correlate(
    run: Run,
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    axes: Axes,
    mode: str = "zeros",
    packed: Any = None,
) -> int:
    """Convolve `x` into `out`; returns the bytes of workspace.

    ``out[n, g, m, o] = bias[g, m] + sum over c, t of
    weight[g, m, c, t] * x[n, g, c, o*stride + t*dilation - before]``
    """
    return convolve(run, x, weight, bias, out, describe(axes, weight.shape, mode), packed)


def split_by_taps(
    axes: Axes, weight_shape: Sequence[int], mirrored: bool = False
) -> tuple[Piece, ...]:
    """The regions of `algorithms.skipping`, each with the taps it needs.

    None at all where the whole may as well be one, as it always may by columns, which multiply no
    padding, and for the depthwise kernel, unless there are taps that no output needs.
    """
    groups, rows, channels = weight_shape[:3]
    regions = algorithms.skipping(axes, rows, groups * channels, mirrored)
    # An adjoint of more rows is faster in regions than as a whole that is not made by columns.
    whole_pays = not mirrored or rows <= algorithms.FEW_GATHERED
    if regions and whole_pays and _by_columns(axes, weight_shape):
        return ()
    if regions and _depthwise.suits(weight_shape, *numbers(axes)[:2]):
        whole = algorithms.reached(axes)
        if all(last - first == a.kernel for a, (*_, first, last) in zip(axes, whole, strict=True)):
            return ()
        regions = (whole,)
    return tuple(_region_piece(axes, weight_shape[:3], part) for part in regions)


def _region_piece(axes: Axes, kernels: Sequence[int], part: algorithms.Region) -> Piece:
    place = region([(lo, hi) for lo, hi, _, _ in part])
    taps = (slice(None),) * 3 + tuple(slice(first, last) for _, _, first, last in part)
    shape = (*kernels, *(last - first for _, _, first, last in part))
    if 0 in shape:
        return Piece(place, taps, None)
    on = three([
        replace(
            a, kernel=last - first, out=hi - lo,
            before=a.before - lo * a.stride - first * a.dilation,
        )
        for a, (lo, hi, first, last) in zip(axes, part, strict=True)
    ])  # fmt: skip
    return Piece(place, taps, _descriptor(on, shape))


def pack_pieces(run: Run, weight: Array, pieces: Sequence[Piece]) -> list[Any]:
    """`pack_for` of each piece, for `convolve_pieces`."""
    packs: dict[Any, Any] = {}
    keys = [tuple((t.start, t.stop, t.step) for t in piece.taps) for piece in pieces]
    for key, piece in zip(keys, pieces, strict=True):
        # Pieces that differ in their outputs alone share the weights.
        if piece.how is not None and key not in packs:
            packs[key] = pack_for(run, weight[piece.taps], piece.how)
    return [packs.get(key) for key in keys]


def convolve_pieces(
    run: Run,
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    pieces: Sequence[Piece],
    packed: Sequence[Any] | None = None,
) -> int:
    """`convolve` piece by piece; returns the bytes of workspace."""
    # A workspace too small is found out before anything is written.
    if run.tight or (pieces and pieces[0].how is None and not run.measure):
        convolve_pieces(run.measuring(), x, weight, bias, out, pieces, packed)
    if len(pieces) == 1:
        place, taps, how = pieces[0]
        if how is not None:
            hold = packed[0] if packed is not None else None
            return convolve(run, x, weight[taps], bias, out[place], how, hold)
    # All pieces of some samples come before the next: they read the same, so far from a cache.
    together = max(1, NEAR_BYTES * len(x) // max(1, x.nbytes))
    if len(pieces) > 1 and together < len(x) and not run.measure:
        return max(
            convolve_pieces(
                run, x[i : i + together], weight, bias, out[i : i + together], pieces, packed
            )
            for i in range(0, len(x), together)
        )
    most = 0
    for i, (place, taps, how) in enumerate(pieces):
        if how is not None:
            hold = packed[i] if packed is not None else None
            used = convolve(run, x, weight[taps], bias, out[place], how, hold)
            most = max(most, used)
        elif not run.measure:
            out[place] = 0 if bias is None else bias.reshape(-1, 1, 1, 1)
    return most


def numbers(axes: Axes) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and the offset of the first tap, as the kernels take them."""
    return [a.stride for a in axes], [a.dilation for a in axes], [-a.before for a in axes]


def matrix(rows: Array) -> Array:
    """Matrices ``(G, M, C)`` as weights without taps."""
    return rows[(slice(None),) * 3 + (np.newaxis,) * 3]


def product_with(run: Run, rows: Array, x: Array, out: Array, packed: Any = None) -> int:
    """Multiply every pixel of `x` by `rows`, a `matrix`; returns the bytes of workspace."""
    args = (run.operator, x, rows, None, out, *_ALONE)
    return int(_conv.correlate(*args, run.compute, run.threads, run.budget, packed, run.measure))


def pack_rows(run: Run, weight: Array, axes: Axes) -> Any:
    """Weights in the order of a micro-kernel, for outputs along `axes`, their inputs packed."""
    if weight.size == 0:
        return None
    packer = _packer(unmoved(axes), weight.shape[1], weight.shape[2])
    return packer(weight, run.compute, run.threads)


def sampled_in_lanes(weight: Array, axes: Axes) -> bool:
    """Whether rows of a canonical weight meet inputs that are sampled as vectors."""
    rows, depth = weight.shape[1], prod(weight.shape[2:])
    return algorithms.samples_in_lanes(unmoved(axes), rows, depth)


def pack_sampled(run: Run, weight: Array, axes: Axes) -> Any:
    """`pack_rows` for inputs that are sampled."""
    if weight.size == 0:
        return None
    lanes = sampled_in_lanes(weight, axes)
    return _conv.pack_weights(weight, run.compute, run.threads, lanes=lanes)


def pack(run: Run, weight: Array, axes: Axes) -> Any:
    """Weights in kernel order for `correlate`, or None where the kernel takes them as they are."""
    return pack_for(run, weight, describe(axes, weight.shape))


class Classes(NamedTuple):
    """How the residue classes of an adjoint are made, all in one call."""

    split: _transposed.Split | None  # None where there are too many, or few channels
    # Strides and classes for the kernel of few channels; None where it is not for them.
    woven: tuple[list[int], tuple[tuple[geometry.Phase, ...], ...]] | None
    # Offset of the convolution that it is where `single_taps`.
    offset: list[int] | None = None


class Adjoint(NamedTuple):
    """The adjoint of a convolution without its arrays, for `apply_adjoint`."""

    axes: Axes
    how: Descriptor | None  # stride 1: the convolution with flipped weights
    # Strides, transformed: one for each residue class of the result. Stride 1, large dilations: one
    # for each region of it that needs the same taps.
    pieces: tuple[Piece, ...]
    # Where that is to be folded, `axes` are those of the padded input; these the input's own.
    inner: Axes | None = None
    columns: bool = False  # by `adjoint_by_columns`
    classes: Classes | None = None  # what `adjoint` settles first, if it is to be applied


def describe_folded(axes: Axes, weight_shape: Sequence[int], algorithm: str = "phase") -> Adjoint:
    """`describe_adjoint` on the padded input, which `input_gradient` folds."""
    return describe_adjoint(covered(axes), weight_shape, algorithm)._replace(inner=axes)


def covered(axes: Axes) -> Axes:
    """Axes of the same outputs on the padded input, as far as they read it."""
    return three([
        replace(a, size=(a.out - 1) * a.stride + a.reach, before=0, after=0) for a in axes
    ])  # fmt: skip


def describe_adjoint(axes: Axes, weight_shape: Sequence[int], algorithm: str = "phase") -> Adjoint:
    """Describe the adjoint of `correlate` (zeros mode) with weights ``(G, M, C, T0, T1, T2)``.

    `algorithm` is ``"winograd"``, where a residue class has axes that it takes, or ``"fft"``, at
    stride 1, or ``"col2im"``, or else the taps are read as they are.
    """
    groups, rows, channels = weight_shape[:3]
    if algorithm == "col2im":
        return Adjoint(axes, None, (), columns=True)
    shape = (groups, channels, rows, *weight_shape[3:])
    if algorithm in ("winograd", "fft") and all(a.stride == 1 for a in axes):
        return Adjoint(axes, describe(mirrored(axes), shape, algorithm=algorithm), ())
    if algorithm == "winograd":
        return Adjoint(axes, None, split_by_phases(axes, shape, algorithm))
    if all(a.stride == 1 for a in axes):
        if _shifts(axes, shape):
            return Adjoint(axes, None, split_by_phases(axes, shape))
        pieces = _split_mirrored(axes, shape)
        if pieces:
            return Adjoint(axes, None, pieces)
        if algorithms.mirroring_pays(axes, channels):
            return Adjoint(axes, describe(mirrored(axes), shape), ())
    return Adjoint(axes, None, (), classes=classes_along(axes, shape))


def _split_mirrored(axes: Axes, weight_shape: Sequence[int]) -> tuple[Piece, ...]:
    """`split_by_taps` of the adjoint at stride 1, for weights whose taps are not flipped."""
    return tuple(
        piece._replace(taps=piece.taps[:3] + tuple(
            _from_the_end(t, a.kernel) for t, a in zip(piece.taps[3:], axes, strict=True)
        ))
        for piece in split_by_taps(mirrored(axes), weight_shape, mirrored=True)
    )  # fmt: skip


def _from_the_end(taps: slice, count: int) -> slice:
    """The last taps, backwards, for the first ones of flipped weights."""
    stop = count - 1 - taps.stop
    return slice(count - 1 - taps.start, stop if stop >= 0 else None, -1)


def pack_for_adjoint(run: Run, weight: Array, what: Adjoint) -> Any:
    """Weights in kernel order for `apply_adjoint`; None where it takes them as they are."""
    if what.columns:
        return pack_columns(weight, run.compute, run.threads)
    if what.how is not None:
        return pack_for(run, flipped(weight).swapaxes(1, 2), what.how)
    if what.pieces:
        return pack_pieces(run, weight.swapaxes(1, 2), what.pieces)
    return pack_adjoint(run, weight, what.axes)


def apply_adjoint(
    run: Run,
    grad: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    what: Adjoint,
    packed: Any = None,
) -> int:
    """`adjoint` as described; returns the bytes of workspace. `packed` is of `pack_for_adjoint`."""
    if out.size == 0:
        return 0
    if what.columns:
        used = _columns_if_room(run, grad, weight, bias, out, what.axes, packed=packed)
        return adjoint(run, grad, weight, bias, out, what.axes) if used is None else used
    # To transform or pack weights in order takes less time, by more than their copy does, but for
    # matrices.
    first = what.pieces[0].how if what.pieces else what.how
    copied = packed is None and (first is None or first.pack is not None)
    copied = copied and weight.nbytes <= run.budget // 3 and run.budget >= AMPLE
    copied = copied and prod(weight.shape[3:]) > 1
    taken = weight.nbytes if copied else 0
    if what.how is not None:
        weight = flipped(weight).swapaxes(1, 2)
        if copied:
            weight = np.ascontiguousarray(weight)
        return convolve(run.less(taken), grad, weight, bias, out, what.how, packed) + taken
    if what.pieces:
        weight = _swapped(weight) if copied else weight.swapaxes(1, 2)
        return convolve_pieces(
            run.less(taken), grad, weight, bias, out, what.pieces, packed
        ) + taken  # fmt: skip
    return adjoint(run, grad, weight, bias, out, what.axes, packed, what.classes)


def _swapped(weight: Array) -> Array:
    """A copy of weights with their rows and channels swapped."""
    if not weight.flags.c_contiguous:
        return np.ascontiguousarray(weight.swapaxes(1, 2))
    groups, rows, channels, *taps = weight.shape
    # the taps of a kernel as one element
    kernels = weight.reshape(groups, rows, channels, -1).view(f"V{prod(taps) * weight.itemsize}")
    swapped = np.ascontiguousarray(kernels[..., 0].swapaxes(1, 2))
    return swapped.view(weight.dtype).reshape(groups, channels, rows, *taps)


def single_taps(axes: Axes) -> bool:
    """Whether each input along `axes` is that of one output, and each output that of one input."""
    return all(a.kernel == a.stride == 1 for a in axes)


def mirrored(axes: Axes) -> Axes:
    """Axes of the convolution that the adjoint at stride 1 is, with flipped weights."""
    return three([a.mirrored for a in axes])


@lru_cache(_MOST_SPLITS)
def split(axes: Axes, rows: int) -> _transposed.Split | None:
    """The residue classes of the adjoint along `axes`, for the kernel that does all in one call.

    None where there are too many. `rows` are those of a group of the weights, swapped.
    """
    if any(min(a.stride, a.size) > MOST_CLASSES for a in axes):
        return None
    # With a little more in front, all classes along the last axis read the same inputs.
    last = axes[2]
    cropped = algorithms.cropped_to_align(last, rows)
    axes = (*axes[:2], replace(last, size=last.size + cropped, before=last.before - cropped))
    phases = [geometry.adjoint_phases(axis) for axis in axes]
    return _transposed.Split([a.size for a in axes], phases, cropped)


def classes_along(axes: Axes, weight_shape: Sequence[int]) -> Classes:
    """How the residue classes are made, of the shapes alone; rows and channels are swapped."""
    offset = [a.before for a in axes] if single_taps(axes) else None
    if not _shifts(axes, weight_shape):
        return Classes(split(axes, weight_shape[1]), None, offset)
    strides = [a.stride for a in axes]
    if max(strides) == 1 or any(min(a.stride, a.size) > MOST_WOVEN for a in axes):
        return Classes(None, None, offset)
    return Classes(None, (strides, phases_along(axes)))


def pack_adjoint(run: Run, weight: Array, axes: Axes) -> Any:
    """Weights in kernel order for `adjoint`; None where it takes them as they are."""
    weight = weight.swapaxes(1, 2)
    if single_taps(axes):
        return pack_for(run, weight, describe(mirrored(axes), weight.shape))
    classes = classes_along(axes, weight.shape).split
    if classes is None:
        return None
    return _transposed.pack_weights(weight, classes, run.compute, run.threads)


def adjoint(
    run: Run,
    grad: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    axes: Axes,
    packed: Any = None,
    how: Classes | None = None,
) -> int:
    """Apply the adjoint of `correlate` (zeros mode) to `grad`; returns the bytes of workspace.

    `grad` is ``(N, G*M, *axis.out)``, `out` is ``(N, G*C, *axis.size)``, whose missing leading
    spatial axes may be left out; `packed` is of `pack_adjoint`, `how` of `classes_along`, if that
    is known already.
    """
    weight = weight.swapaxes(1, 2)
    classes, woven, offset = how or classes_along(axes, weight.shape)
    if packed is not None and offset is not None:
        # The convolution that it is has the same bits, and is faster if weights are in its order.
        args = (run.operator, grad, weight, bias, out, *_ALONE[:2], offset, "zeros")
        return int(
            _conv.correlate(*args, run.compute, run.threads, run.budget, packed, run.measure)
        )
    if classes is not None:
        used = _transposed.correlate(
            grad, weight, bias, out, classes, run.compute, run.threads, run.budget, packed,
            run.measure,
        )  # fmt: skip
        if used >= 0:
            return used
    if woven is not None:
        used = _depthwise_adjoint.correlate(
            grad, weight, bias, out, *woven, run.compute, run.threads, run.budget, run.measure
        )
        if used >= 0:
            return used
    # Channels last, too many classes, or too little workspace: one at a time.
    grad, out = _with_axes(grad), _with_axes(out)
    return convolve_pieces(run, grad, weight, bias, out, split_by_phases(axes, weight.shape))


@lru_cache(_FEW_SPLITS)
def column_boxes(
    axes: Axes, shape: tuple[int, ...], most: int, row: int
) -> tuple[tuple[Box, Box, int], ...]:
    """Boxes of a result of `shape`, the inputs that reach each, and how many: `most`, if possible.

    No box is longer than `row` along the last axis.
    """

    def sources(box: Box) -> Box:
        return tuple(read_by(a, lo, hi) for a, (lo, hi) in zip(axes, box, strict=True))

    def fits(box: Box) -> bool:
        lo, hi = box[2]
        return _volume(sources(box)) <= most and hi - lo <= max(1, row)

    return tuple((b, s, _volume(s)) for b in boxes(shape, fits) for s in [sources(b)])


class ColumnStep(NamedTuple):
    """A box of a result that is gathered from columns, and what of it is made at a time."""

    place: tuple[slice, ...] | None  # in the result, canonical; None: all of it
    source: tuple[slice, ...] | None  # the inputs that reach it
    extent: tuple[int, ...]  # of these
    shift: tuple[int, ...]
    samples: int
    groups: int  # several only with all of their rows
    rows: int


@lru_cache(_FEW_SPLITS)
def column_steps(
    axes: Axes,
    shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    run: Run,
    copied: int,
    flip: bool,
) -> tuple[tuple[ColumnStep, ...], int]:
    """The steps of `adjoint_by_columns` for a result of a shape, and elements of its columns.

    `copied` are the bytes of a weight, none if they are packed: all rows are made at once then.
    More elements than half of the workspace has: no steps.
    """
    groups, channels, rows = weight_shape[:3]
    depth, es = prod(weight_shape[3:]), run.dtype.itemsize
    most = run.budget // 2
    row = min(ROW_BYTES, run.budget // (8 * run.threads)) // es  # of the result, per thread
    at_once = 1 if copied else rows
    pieces = column_boxes(axes, shape[2:], most // max(1, at_once * depth * es), row)
    largest = depth * max(inputs for _, _, inputs in pieces)
    if at_once * largest * es > most:
        return (), largest
    widest = groups * rows
    if copied:
        widest = max(1, run.budget // 8 // max(1, channels * depth * copied))
    whole, steps, store = tuple((0, size) for size in shape[2:]), [], 0
    for box, source, inputs in pieces:
        each = depth * inputs  # elements of a row's columns
        block = max(1, min(rows, widest, most // max(1, es * each)))
        samples, near, every = 1, min(COLUMN_BYTES, most), es * groups * rows * each
        together = every <= near and groups * rows <= widest
        if together:
            block, samples = rows, max(1, min(shape[0], near // max(1, every)))
        steps.append(ColumnStep(
            None if box == whole else region(box),
            None if source == tuple((0, a.out) for a in axes) else region(source),
            tuple(last - first for first, last in source),
            tuple(
                first * a.stride - a.before - lo + (a.reach - 1 if flip else 0)
                for a, (first, _), (lo, _) in zip(axes, source, box, strict=True)
            ),
            samples, groups if together else 1, block,
        ))  # fmt: skip
        store = max(store, each * block * (samples * groups if together else 1))
    return tuple(steps), store


def adjoint_by_columns(
    run: Run,
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    axes: Axes,
    flip: bool = False,
    packed: Any = None,
) -> int:
    """The adjoint as a matrix product and a gather of its columns, box by box.

    Columns ``[m, t, i] = sum over c of weight[c, m, t] * x[c, i]`` are made for the inputs ``i``
    that reach a box of outputs; boxes, and blocks of rows ``m``, are small enough for the columns
    to take half of the workspace at most. A flipped kernel is one whose taps step backwards.
    `packed` is of `pack_columns`.
    """
    groups, channels, rows = weight.shape[:3]
    taps = weight.shape[3:]
    depth = prod(taps)
    steps: tuple[ColumnStep, ...] = ()
    if packed is not None:
        steps, size = column_steps(axes, out.shape, weight.shape, run, 0, flip)
    if not steps:
        packed = None
        steps, size = column_steps(axes, out.shape, weight.shape, run, weight.itemsize, flip)
    taken = size * run.dtype.itemsize
    if not steps:
        checks.fail(
            run.operator, "algorithm",
            f"not be 'col2im' for this shape: the columns of one output take "
            f"{taken} bytes, more than half of max_workspace ({run.budget})",
            "col2im",
        )  # fmt: skip
    store = np.empty(size, run.dtype)  # for every box in turn
    strides = [a.stride for a in axes]
    each = [-a.dilation if flip else a.dilation for a in axes]
    used = 0
    for step in steps:
        piece = x if step.source is None else x[step.source]
        place = out if step.place is None else out[step.place]
        for n, g, m in product(
            range(0, len(x), step.samples),
            range(0, groups, step.groups),
            range(0, rows, step.rows),
        ):
            samples, count = min(step.samples, len(x) - n), min(step.rows, rows - m)
            at = slice(g * rows + m, g * rows + m + step.groups * count)
            hold = None
            if packed is None:
                part = matrix(
                    weight[g : g + step.groups, :, m : m + count]
                    .reshape(step.groups, channels, count * depth).swapaxes(1, 2)
                )  # fmt: skip
            else:  # its shape is all that is asked for
                part, hold = packed
            columns = store[: samples * step.groups * count * prod(step.extent) * depth]
            need = _conv.correlate(
                run.operator,
                piece[n : n + samples, g * channels : (g + step.groups) * channels],
                part, None, columns.reshape(samples, part.shape[0] * part.shape[1], *step.extent),
                *_ALONE, run.compute, run.threads, max(1, run.budget - taken), hold, run.measure,
            )  # fmt: skip
            used = max(used, taken + need)
            if run.measure:
                break
            _col2im.fold(
                columns.reshape(samples, step.groups * count, depth, *step.extent),
                None if bias is None else bias[at], place[n : n + samples, at], taps, strides,
                each, step.shift, run.compute, run.threads,
            )  # fmt: skip
    return used


def _columns_if_room(
    run: Run,
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    axes: Axes,
    flip: bool = False,
    packed: Any = None,
) -> int | None:
    """`adjoint_by_columns`; None, and nothing is written, where the workspace is too small."""
    try:
        if run.tight:
            adjoint_by_columns(run.measuring(), x, weight, bias, out, axes, flip, packed)
        return adjoint_by_columns(run, x, weight, bias, out, axes, flip, packed)
    except ValueError:
        return None


def pack_columns(weight: Array, compute: int, threads: int) -> Any:
    """Weights in the order of a kernel for `adjoint_by_columns`, after an array of their shape.

    None for those of many groups.
    """
    if len(weight) != 1 or weight.size == 0:
        return None
    rows = matrix(weight.reshape(1, weight.shape[1], -1).swapaxes(1, 2))
    shape = np.broadcast_to(rows[0, 0, 0, 0, 0, 0], rows.shape)
    return shape, _conv.pack_weights(rows, compute, threads)


def _by_columns(axes: Axes, weight_shape: Sequence[int]) -> bool:
    """Whether a zero-padded convolution of few rows is made as the adjoint that it is."""
    groups, rows, channels = weight_shape[:3]
    if rows > algorithms.MOST_GATHERED:  # at once, for most
        return False
    return algorithms.by_columns(mirrored(axes), rows, channels, groups)


def _pack_columns(weight: Array, compute: int, threads: int) -> Any:
    return pack_columns(weight.swapaxes(1, 2), compute, threads)


def _correlate_by_columns(
    axes: Axes,
    operator: str,
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    stride: Sequence[int],
    dilation: Sequence[int],
    offset: Sequence[int],
    mode: str,
    compute: int,
    threads: int,
    budget: int,
    packed: Any = None,
    measure: bool = False,
) -> int:
    """`_conv.correlate` of few rows by the columns of an adjoint along `axes`, mirrored ones."""
    run = Run(operator, compute, threads, budget, measure)
    used = _columns_if_room(
        run, _with_axes(x), weight.swapaxes(1, 2), bias, _with_axes(out), axes, True, packed
    )
    if used is not None:
        return used
    return int(_conv.correlate(
        operator, x, weight, bias, out, stride, dilation, offset, mode, compute, threads, budget,
        None, measure,
    ))  # fmt: skip


def _shifts(axes: Axes, weight_shape: Sequence[int]) -> bool:
    """Whether the classes of the adjoint are for the kernel of few channels; of the shapes alone.

    The rows and channels of the weights are swapped already.
    """
    dilation, shape = [a.dilation for a in axes], tuple(weight_shape)
    if algorithms.woven(axes, *shape[:3]):
        shape = (shape[0], 1, 1, *shape[3:])  # as few as it takes, but for the taps
    return bool(_depthwise.suits(shape, (1, 1, 1), dilation))


@lru_cache(_MOST_SPLITS)
def phases_along(axes: Axes) -> tuple[tuple[geometry.Phase, ...], ...]:
    """The residue classes of the adjoint on each axis, with those that no tap reaches."""
    return tuple(geometry.adjoint_phases(axis) for axis in axes)


def phases_of(axes: Axes) -> list[Axes]:
    """The convolutions that the residue classes of the adjoint along `axes` are."""
    each = [
        [phase.correlated(axis.out) for phase in geometry.adjoint_phases(axis, empty=False)]
        for axis in axes
    ]
    return [three(on) for on in product(*each)]


@lru_cache(_MOST_SPLITS)
def split_by_phases(
    axes: Axes, weight_shape: tuple[int, ...], algorithm: str = "phase"
) -> tuple[Piece, ...]:
    """The adjoint of `correlate`, zero-padded, in pieces, with weights of this shape.

    Each residue class of the result modulo the strides is one dense convolution. The rows and
    channels of the weights are swapped already. The bits are those of `_transposed.correlate`, but
    for the classes that Winograd's algorithm takes, with that one, and for few channels in a group.
    """
    pieces = []
    kernel: Callable[..., int] = _conv.correlate
    pack: Callable[..., Any] | None = _conv.pack_weights
    if _shifts(axes, weight_shape):
        kernel, pack = _depthwise.correlate, None
    phases = list(product(*(geometry.adjoint_phases(axis, empty=False) for axis in axes)))
    if sum(prod(p.count for p in phase) for phase in phases) < prod(a.size for a in axes):
        # Not every element has a tap (the stride exceeds the kernel): those keep the bias.
        pieces.append(Piece(region([(0, a.size) for a in axes]), (), None))
    for phase in phases:
        place = every([(p.start, None, p.step) for p in phase])
        on = three([p.correlated(a.out) for p, a in zip(phase, axes, strict=True)])
        if algorithm == "winograd" and algorithms.winograd_takes(on):
            shape = (*weight_shape[:3], *(p.taps for p in phase))
            taps = (slice(None),) * 3 + tuple(_backwards(p) for p in phase)
            pieces.append(Piece(place, taps, describe(on, shape, algorithm=algorithm)))
            continue
        taps = (slice(None),) * 3 + tuple(slice(p.tap_start, None, p.tap_step) for p in phase)
        how = Descriptor(
            kernel, pack, (1, 1, 1), [p.dilation for p in phase], [p.offset for p in phase],
            "zeros",
        )  # fmt: skip
        pieces.append(Piece(place, taps, how))
    return tuple(pieces)


def _backwards(phase: geometry.Phase) -> slice:
    """The taps of a class, the last one first."""
    last = phase.tap_start + (phase.taps - 1) * phase.tap_step
    before = phase.tap_start - phase.tap_step
    return slice(last, before if before >= 0 else None, -phase.tap_step)


def weight_gradient(
    run: Run, x: Array, grad: Array, out: Array, axes: Axes, mode: str = "zeros",
    tile: algorithms.Tile | None = None,
) -> int:  # fmt: skip
    """Gradient of `correlate`'s weights into `out` (G, M, C, T0, T1, T2).

    By Winograd's algorithm if there is a `tile` of `algorithms.winograd_grad`.
    """
    stride, dilation, offset = numbers(axes)
    args = (stride, dilation, offset, mode, run.compute, run.threads, run.budget)
    if tile is not None:
        return int(
            _winograd_grad.weight_gradient(tile, run.operator, x, grad, out, *args, run.measure)
        )
    if _depthwise_weights.gradient_suits(out.shape, stride, dilation):
        return int(
            _depthwise_weights.weight_gradient(run.operator, x, grad, out, *args, run.measure)
        )
    if _one_by_one(out.shape, grad.size // max(1, grad.shape[1]), stride, dilation):
        return max(
            int(_depthwise_weights.weight_gradient(
                run.operator, x, same, part[:, np.newaxis, np.newaxis], *args, run.measure
            ))
            for part, row in zip(out[0], grad.swapaxes(0, 1), strict=True)
            for same in [np.broadcast_to(row[:, np.newaxis], (*x.shape[:2], *grad.shape[2:]))]
        )  # fmt: skip
    return int(_conv.weight_gradient(run.operator, x, grad, out, *args, run.measure))


def _one_by_one(
    shape: Sequence[int], pixels: int, stride: Sequence[int], dilation: Sequence[int]
) -> bool:
    """Whether the rows of a single group are better made one by one, in a gradient of weights.

    Each is that of a depthwise convolution then, whose channels share the gradient of a result:
    few rows would leave most of a product's vectors empty.
    """
    groups, rows, channels, *taps = shape
    passes = rows * (1 if max(stride) == 1 else 2)
    if groups != 1 or prod(taps) == 1 or not 0 < passes <= FEW_ROWS:
        return False
    worth = pixels * channels * prod(taps) >= PASS_WORTH * (passes - 1) ** 2
    return worth and bool(
        _depthwise_weights.gradient_suits((channels, 1, 1, *taps), stride, dilation)
    )


def bias_gradient(run: Run, grad: Array, out: Array) -> None:
    """Sum `grad` over everything but the channel."""
    _col2im.sum_channels(grad, out, run.compute, run.threads)


# ---- gradient of the input, any padding mode -----------------------------------------------------


def shifted(axis: Axis, lo: int, hi: int) -> Axis:
    """The axis that computes outputs ``lo .. hi-1`` of `axis` alone."""
    if lo == 0 and hi == axis.out:
        return axis
    return replace(axis, before=axis.before - lo * axis.stride, out=hi - lo)


def reads(axis: Axis, lo: int, hi: int) -> tuple[int, int]:
    """Input positions (maybe outside the array) that outputs ``lo .. hi-1`` read."""
    first = lo * axis.stride - axis.before
    return first, first + (hi - lo - 1) * axis.stride + axis.reach


def read_by(axis: Axis, lo: int, hi: int) -> tuple[int, int]:
    """Outputs that may read the positions ``lo .. hi-1``."""
    first = -((axis.reach - 1 - lo - axis.before) // axis.stride)
    last = (hi - 1 + axis.before) // axis.stride
    first = min(max(first, 0), axis.out)
    return first, min(max(last + 1, first), axis.out)


def adjoint_on(axis: Axis, lo: int, hi: int) -> tuple[Axis, int, int]:
    """The axis whose adjoint gives positions ``lo .. hi-1``, and the outputs it starts from."""
    first, last = read_by(axis, lo, hi)
    if (lo, hi, first, last) == (0, axis.size, 0, axis.out):
        return axis, first, last
    before = axis.before + lo - first * axis.stride
    return replace(axis, size=hi - lo, before=before, out=last - first), first, last


def boxes(
    extent: Sequence[int], fits: Callable[[Box], bool], strips: bool = False
) -> Iterator[Box]:
    """Split ``range(e) for e in extent`` into boxes that fit, halving the longest side.

    With `strips` the first side that can be halved, so that rows stay whole.
    """
    if any(e == 0 for e in extent):
        return
    stack: list[Box] = [tuple((0, e) for e in extent)]
    while stack:
        box = stack.pop()
        sides = [hi - lo for lo, hi in box]
        if max(sides) == 1 or fits(box):
            yield box
            continue
        i = sides.index(next(s for s in sides if s > 1) if strips else max(sides))
        lo, hi = box[i]
        middle = (lo + hi) // 2
        stack.append((*box[:i], (middle, hi), *box[i + 1 :]))
        stack.append((*box[:i], (lo, middle), *box[i + 1 :]))


def blocks(groups: int, rows: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Split ``groups`` times ``rows`` channels into ranges of at most `most`: of groups, of rows.

    Either all rows of some groups or some rows of one group: channels next to each other.
    """
    if rows <= most:
        step = max(1, most // max(1, rows))
        for g in range(0, groups, step):
            yield slice(g, min(g + step, groups)), slice(0, rows)
        return
    for g, m in product(range(groups), range(0, rows, most)):
        yield slice(g, g + 1), slice(m, min(m + most, rows))


def channel_range(groups: slice, rows: slice, each: int) -> slice:
    """Channels of an image that `blocks` means, of groups that have `each`."""
    return slice(groups.start * each + rows.start, (groups.stop - 1) * each + rows.stop)


def fold_bytes(run: Run) -> int:
    """`FOLD_BYTES`, or less where the workspace is small."""
    return min(FOLD_BYTES, run.budget // 6)


def fold(
    run: Run,
    axes: Axes,
    box: Box,
    mode: str,
    padded: Callable[[Box], Array],
    shape: tuple[int, int],
) -> Array:
    """Gradient at the input positions of `box`, given that at positions of the padded input.

    ``padded(box)`` returns the gradient for a box of padded positions, in the compute type; every
    padded position's share is added to the element it was a copy of, in an order that does not
    depend on the batch. `shape` is ``(N, C)``.
    """
    sides = [hi - lo for lo, hi in box]
    around = [a.before > 0 or a.after > 0 for a in axes]
    # How much longer than the box's sides a run of padded positions may be.
    room = max(1.0, fold_bytes(run) / max(1, shape[1] * run.dtype.itemsize * prod(sides)))
    room **= 1 / max(1, sum(around))
    runs = [
        list(_runs_into(a, lo, hi, mode, min(max(1, int((hi - lo) * room)), LONGEST_RUN)))
        for a, (lo, hi) in zip(axes, box, strict=True)
    ]
    if all(run == [side] for run, side in zip(runs, box, strict=True)):
        return padded(box)
    total = np.zeros(shape + tuple(sides), run.dtype)
    if not all(runs):  # an axis along which nothing is read from the box
        return total
    hull = tuple((min(lo for lo, _ in run), max(hi for _, hi in run)) for run in runs)
    image = shape[1] * run.dtype.itemsize
    most = max(fold_bytes(run), image * prod(sides))
    if image * _volume(hull) <= most and _volume(hull) <= WHOLE * prod(
        sum(hi - lo for lo, hi in along) for along in runs
    ):
        add_runs(run, padded(hull), hull, total, box, axes, runs, mode)
        return total
    for choice in product(*runs):
        add_runs(run, padded(choice), choice, total, box, axes, [[side] for side in choice], mode)
    return total


def _volume(box: Box) -> int:
    return prod(hi - lo for lo, hi in box)


def add_runs(
    run: Run,
    part: Array,
    hull: Box,
    total: Array,
    box: Box,
    axes: Axes,
    runs: Sequence[Sequence[tuple[int, int]]],
    mode: str,
) -> None:
    """Add `part`, at the padded positions `hull`, to the elements that they copy, run by run.

    `total` are the elements of `box`.
    """
    _col2im.add_padded(
        part, total, [lo for lo, _ in hull], runs, [a.size for a in axes],
        [lo for lo, _ in box], mode, run.compute, run.threads,
    )  # fmt: skip


def _runs_into(axis: Axis, lo: int, hi: int, mode: str, longest: int) -> Iterator[tuple[int, int]]:
    """Runs of padded positions among which are all copies of the elements ``lo .. hi-1``."""
    first, last = -axis.before, (axis.out - 1) * axis.stride + axis.reach - axis.before
    # the elements themselves, then what stands before and after the array
    inner = max(lo, first), min(hi, last)
    if inner[0] < inner[1]:
        yield inner
    for start, stop in ((first, min(0, last)), (max(axis.size, first), last)):
        for v in range(start, stop, longest):
            sources = padding_sources(v, min(v + longest, stop), axis.size, mode)
            inside = np.flatnonzero((sources >= lo) & (sources < hi))
            if inside.size:
                yield v + int(inside[0]), v + int(inside[-1]) + 1


def is_folded(axes: Axes, mode: str) -> bool:
    """Whether the gradient of the input has to be folded: copies of elements stand around it."""
    return mode != "zeros" and any(a.before > 0 or a.after > 0 for a in axes)


def input_gradient(
    run: Run,
    grad: Array,
    weight: Array,
    out: Array,
    what: Adjoint,
    mode: str = "zeros",
    packed: Any = None,
) -> None:
    """Gradient of `correlate`'s input into `out`; what is folded is read as it is.

    `packed` is of `pack_for_adjoint`, for what is not folded.
    """
    if what.inner is None:
        apply_adjoint(run, grad, weight, None, out, what, packed)
        return
    axes = what.inner
    half = run.share(2)  # for the kernels; the other half for sums and what is added to them
    samples = (
        half.budget
        // run.dtype.itemsize
        // max(1, 2 * prod(out.shape[1:2]) * _volume(tuple((0, a.size) for a in what.axes)))
    )
    if samples:
        _fold_whole(half, grad, weight, out, what, mode, packed, samples)
        return
    most = half.budget // (3 * run.dtype.itemsize)  # elements
    rows = weight.shape[1]
    for g, c in blocks(weight.shape[0], weight.shape[2], max(1, most // LEAST_PIXELS)):
        part = grad[:, channel_range(g, slice(0, rows), rows)]
        place = out[:, channel_range(g, c, weight.shape[2])]
        _folded_gradient(half, part, weight[g, :, c], place, axes, mode, most)


def _fold_whole(
    run: Run,
    grad: Array,
    weight: Array,
    out: Array,
    what: Adjoint,
    mode: str,
    packed: Any,
    together: int,
) -> None:
    """`input_gradient` from the gradient of all of the padded input, some samples at a time."""
    assert what.inner is not None
    axes = what.inner
    box = tuple((0, a.size) for a in axes)
    hull = tuple((-a.before, on.size - a.before) for a, on in zip(axes, what.axes, strict=True))
    runs = [list(_runs_into(a, 0, a.size, mode, LONGEST_RUN)) for a in axes]
    for first in range(0, len(out), together):
        chosen = slice(first, first + together)
        place = out[chosen]
        part = np.empty((*place.shape[:2], *(a.size for a in what.axes)), run.dtype)
        apply_adjoint(run, grad[chosen], weight, None, part, what, packed)
        total = place
        if out.dtype != run.dtype or (place.shape[4] > 1 and place.strides[4] != out.itemsize):
            total = np.empty(place.shape, run.dtype)
        total[...] = 0
        add_runs(run, part, hull, total, box, axes, runs, mode)
        if total is not place:
            with rounding():
                place[...] = total


def _folded_gradient(
    run: Run, grad: Array, weight: Array, out: Array, axes: Axes, mode: str, most: int
) -> None:
    """`input_gradient` by boxes of at most `most` elements, or of the least that can be."""
    samples, channels = out.shape[:2]
    least = fold_bytes(run) // run.dtype.itemsize

    def elements(box: Box) -> int:
        return max(least, channels * prod(hi - lo for lo, hi in box))

    # One sample settles the boxes; where it is but one, several samples may go together.
    pieces = list(boxes(out.shape[2:], lambda box: elements(box) <= most))
    count = max(1, most // elements(pieces[0])) if len(pieces) == 1 else 1
    for first, box in product(range(0, samples, count), pieces):
        chosen = slice(first, min(first + count, samples))
        shape = (chosen.stop - chosen.start, channels)

        def padded(part: Box, chosen: slice = chosen, shape: tuple[int, int] = shape) -> Array:
            on = [adjoint_on(a, lo, hi) for a, (lo, hi) in zip(axes, part, strict=True)]
            after = grad[region([(start, stop) for _, start, stop in on], chosen)]
            result = np.empty(shape + tuple(hi - lo for lo, hi in part), run.dtype)
            adjoint(run, after, weight, None, result, three([axis for axis, _, _ in on]))
            return result

        total = fold(run, axes, box, mode, padded, shape)
        with rounding():
            out[region(box, chosen)] = total
