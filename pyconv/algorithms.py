"""What an algorithm takes for a shape: the one place that ranks them.

Costs are in multiply-adds at the full rate of the vector units, so that an algorithm's efficiency
is part of its cost. The constants were fitted to measurements of float32 layers on AVX2 and are
frozen: the choice depends on the shapes alone, never on the machine, the batch or the threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import inf, prod

from pyconv import fft
from pyconv.geometry import UNIT, Axis, ceil_div, tap_ranges, valid_taps

# A direct convolution reaches three quarters of the full rate, less where few rows use what has
# been loaded: GEMM + FEW_ROWS / rows for each multiply-add.
GEMM, FEW_ROWS = 1.3, 3.5
PACKING = 5.0  # of an input, in multiply-adds
PANEL = 16  # pixels or tiles of a panel, full or not
ROWS = 6  # of a block, full or not, if more than half

# Outputs of the tiles of Winograd's algorithm along an axis, by its stride and taps.
TILES = {
    (1, 1): (1,), (1, 2): (5, 4, 3), (1, 3): (4, 3, 2), (1, 4): (3,), (1, 5): (2,),
    (2, 3): (4, 3), (2, 4): (4, 3),
}  # fmt: skip

# Its products, in vectors of 8 tiles; for each place of a tile and each channel the transform, of
# inputs and of outputs, and on either side SPREAD for bringing apart or together what a dilation
# does to a line; per line of tiles and channel its inputs, its outputs; per transformed weight, its
# way from memory, which is NARROW where a single vector of tiles is all that waits for it.  A few
# rows take the time of LEAST_ROWS.  At stride 2 a tile has up to 100 places, and their products
# little to do each: STRIDED times all that.
PRODUCTS, INPUT, OUTPUT, SPREAD, STRIDED = 0.95, 24.0, 12.0, 14.0, 1.6
LINE_IN, LINE_OUT, WEIGHT, NARROW = 2000.0, 400.0, 5.0, 30.0
VECTOR, LEAST_ROWS = 8, 4

# The same where vectors run along the channels, and no tile or line costs more than others: for
# each place of a tile the products, and each channel's inputs and outputs. It takes weights of up
# to LANES_MOST pairs of channels in a group: these are read once for fewer tiles.
LANES_PRODUCTS, LANES_INPUT, LANES_OUTPUT, LANES_MOST = 1.38, 19.0, 17.5, 128 * 128

# What Winograd's takes more for each element of the images of groups, inputs and results, where
# there are so many that they come from far away: a group has little to do with each.
FAR_GROUPS, NEAR_GROUPS = 20.0, 600_000

# Gradients of weights, both ways: the products; for each input and result, bringing it there; for
# each sum, what is done with it at the end. Those of more than GRAD_MOST pairs are too far away.
GRAD_PRODUCTS, GRAD_DIRECT, GRAD_INPUT, GRAD_SUM = 1.43, 1.09, 16.0, 15.0
GRAD_MOST = 256 * 256

# With vectors of rows of the weights ("lanes") a pixel may be anywhere: nothing is computed between
# output rows, and no panel has to be filled.  ONE_HALF of a panel of rows is short of loads, a few
# pixels take the time of LEAST_LANES.  With vectors of pixels, up to three rows beside whole blocks
# take the time of more, and inputs are copied into planes or packed, which output rows that begin
# SHORT of each other slow down.  Turning a weight round for the lanes costs TURNING, turning a
# result round RESULTS.  Where no input meets two taps they may as well be packed, which makes the
# products of vectors of pixels PATCHES, or POINTWISE, times as fast beside those of lanes.
ONE_HALF, LEAST_LANES, RESULTS, PATCHES, POINTWISE = 1.15, 4, 5.5, 1.06, 1.04
# Where padding is LEAST_CUT of the products or more, these are left out (_cuts.pyx); no more than
# MOST_CUT of all are counted on, for corners keep theirs.
LEAST_CUT, MOST_CUT = 0.04, 0.5
# Turning a result round that was sampled for costs as much as turning so many samples round.
RESULTS_TURNED = 6
BESIDE, COPYING, EACH_PIXEL, SHORT, TURNING = 1.33, 5.0, 9.0, 5.0, 16.0

# What a part of the result takes that is computed by itself; and, to be worth it, what leaving out
# taps in it has to save, GEMM + FEW_SKIPPED / rows for each multiply-add: more in a gradient, where
# the part of the weights is turned round as well.
PART, FEW_SKIPPED = 1.5e5, 12.0
PART_WORTH, MIRRORED_WORTH = 3.5e5, 8e5

# A transposed convolution by col2im: a GEMM with a row for each tap of each output channel; the way
# of its values to the results that they are part of, for each value and for each line of them; and
# what it takes besides.  Phases take GEMM + FEW_TOGETHER / rows, of all classes that are a product,
# and something besides too.
COLUMNS, GATHER, GATHER_LINE, CALL = 1.1, 45.0, 400.0, 1.5e6
FEW_TOGETHER, PHASES_CALL = 4.0, 8e5

# The same for a convolution at stride 1, or the gradient of its input, with FEW_GATHERED rows at
# most: a direct one takes GEMM + FEW_DIRECT / rows for each multiply-add, of up to ROWS rows. Where
# it reads inputs in place, with FEW_IN_PLACE at most, it goes without that.
FEW_GATHERED, FEW_DIRECT, FEW_IN_PLACE = 8, 2.5, 3

# Of large images, of more than LARGE_INPUT elements, that are computed in regions, to leave out
# taps, up to MOST_GATHERED rows: they are lanes, IN_REGIONS for each, an input takes BY_REGION more
# for each tap that meets it, being packed again for every region, and a line of them SHORT_LINE.
MOST_GATHERED, LARGE_INPUT = 24, 2**20
IN_REGIONS, BY_REGION, SHORT_LINE = 1.1, 17.0, 100.0

# What all classes of a transposed convolution take in one call, of their time one by one; and what
# Winograd's takes more for each element of arrays that every class goes through, where those are so
# large that they come from far away: of inputs for each class, and of the result.
TOGETHER = 0.76
FAR_INPUT, NEAR_INPUTS = 35.0, 2**17
FAR_OUTPUT, NEAR_OUTPUTS = 50.0, 2**19

# FFTs: of an input or an output of a block; a product of spectra.  And what the direct kernel for
# few channels takes for each tap.
TRANSFORM, SPECTRUM, SHIFTED = 370.0, 20.0, 1.2

#: How much faster than "direct" another algorithm has to be before "auto" takes it: it rounds more
#: coarsely, and a plan of Winograd's keeps up to six times the weights.
WORTH_IT = 1.15

#: The same for col2im before phases: it rounds no more coarsely, but wants a larger workspace.
COLUMNS_WORTH = 1.04

#: Taps with which transforms may begin to pay.
LEAST_FFT_TAPS = 100

#: Inputs a single output has to have: with fewer, the direct kernel for few channels is the best.
LEAST_INPUTS = 5

#: Part of the multiply-adds that leaving out taps has to save to be worth the smaller pieces.
WORTH_SKIPPING = 0.1
MOST_TAPS = 64

#: An adjoint at stride 1 is faster as the convolution that it is where each input is that of one
#: output, and enough outputs share the weights, which have to be turned round for each call, or
#: their rows are few; where inputs are packed anew for many taps, too, for so many rows, or for a
#: large image.
MIRRORED_PIXELS, MIRRORED_FEW, MIRRORED_TAPS, MIRRORED_ROWS = 100, 8, 49, 16
MIRRORED_IMAGE, MIRRORED_IMAGE_TAPS = 20_000, 25

#: A depthwise convolution is better not made into the operand of the product that follows, if rows
#: of its results are shorter than SHORT_ROW and all channels have SHORT_ROWS; or, at larger strides
#: than 2, with FAR_CHANNELS.
SHORT_ROW, SHORT_ROWS, FAR_CHANNELS = 8, 512, 48

#: Rows up to which, for one channel and for some, and depths of a class, with which an adjoint at
#: stride 2 is woven; and the mean depth of all classes, if there are more than 4 channels.
WOVEN_ROWS, WOVEN_TAPS = 64, 9
WOVEN_TOGETHER, WOVEN_DEPTH, MOST_MEAN = 16, 16, 4

Region = tuple[tuple[int, int, int, int], ...]
Tile = tuple[int, int]


def skipping(
    axes: Sequence[Axis], rows: int, depth: int, mirrored: bool = False
) -> tuple[Region, ...]:
    """Regions of the output of a zero-padded convolution, each with the taps it needs.

    A region has a range of outputs and a range of taps ``(lo, hi, first, last)`` for each axis; the
    taps beyond read nothing but padding. None at all where the whole may as well be one, given how
    many `rows` a group has, and channels there are, of all groups; and whether it is the adjoint
    that is computed, with `mirrored` weights.
    """
    # At once for the many that have little padding next to their size.
    if all(4 * (max(a.before, 0) + max(a.after, 0)) * (a.kernel > 1) <= a.size for a in axes):
        return ()
    worth = MIRRORED_WORTH if mirrored else PART_WORTH
    return _skipping(tuple(axes), rows, depth, worth, mirrored)


@lru_cache(1024)
def _skipping(
    axes: tuple[Axis, ...], rows: int, depth: int, worth: float, mirrored: bool
) -> tuple[Region, ...]:
    whole = _round_up(prod(a.out for a in axes), PANEL) * prod(a.kernel for a in axes)
    if whole == 0:
        return ()
    ranges = [tap_ranges(a) for a in axes]
    # As one part, without the taps that no output needs.
    choices: list[tuple[Region, ...]] = [(tuple(map(_reached, ranges)),)]
    if prod(a.kernel for a in axes) <= MOST_TAPS:
        choices.append(tuple(product(*ranges)))
        if mirrored:  # along one axis alone, too: kernels as large as their results are wide
            undivided = [((0, a.out, 0, a.kernel),) for a in axes]
            choices += [
                tuple(product(*undivided[:i], ranges[i], *undivided[i + 1 :]))
                for i in reversed(range(len(axes)))
                if len(ranges[i]) > 1
            ]
    best: tuple[Region, ...] = ()
    most = WORTH_SKIPPING * whole
    for regions in choices:
        saved = whole - _work(regions)
        time = saved * depth * (GEMM * rows + FEW_SKIPPED)
        parts = len(regions) if len(regions) > 1 else 0
        if saved >= most and time >= worth * parts:
            best, most = regions, saved
    return best


def _reached(ranges: Sequence[tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
    """All outputs of an axis as one range, with the taps between the first and last in use."""
    used = [(first, last) for _, _, first, last in ranges if first < last] or [(0, 0)]
    return ranges[0][0], ranges[-1][1], min(u[0] for u in used), max(u[1] for u in used)


def reached(axes: Sequence[Axis]) -> Region:
    """All of the output as one region, without the taps that read nothing but padding."""
    return tuple(_reached(tap_ranges(a)) for a in axes)


def _work(regions: Sequence[Region]) -> int:
    """Multiply-adds per pair of channels, in whole panels."""
    return sum(
        _round_up(prod(hi - lo for lo, hi, _, _ in region), PANEL)
        * prod(last - first for _, _, first, last in region)
        for region in regions
    )


def winograd_tiles(axes: Sequence[Axis]) -> tuple[Tile, ...]:
    """Outputs of a tile along the last two axes, in all ways that there are for them."""
    down, along = _last_two(axes)
    if down.kernel == 1:  # lines are taken as they come
        return tuple((1, m) for m in _tiles(along)) if along.kernel > 1 else ()
    return tuple(
        tile
        for tile in product(_tiles(down), _tiles(along))
        if not (_coarse(down, along, *tile) or _coarse(along, down, *tile[::-1]))
    )


def _last_two(axes: Sequence[Axis]) -> tuple[Axis, Axis]:
    return axes[-2] if len(axes) > 1 else UNIT, axes[-1]


def _tiles(axis: Axis) -> tuple[int, ...]:
    if axis.dilation > 1 and axis.stride > 1:
        return ()
    return TILES.get((axis.stride, axis.kernel), ())


def _coarse(axis: Axis, other: Axis, outputs: int, others: int) -> bool:
    """Whether roundings are magnified too much: more than 3 outputs of 2 taps, and much besides."""
    return axis.kernel == 2 and outputs > 3 and (other.kernel > 2 or others > 3)


def winograd_takes(axes: Sequence[Axis]) -> bool:
    """Whether Winograd's algorithm is for these axes."""
    return bool(winograd_tiles(axes))


def direct_cost(axes: Sequence[Axis], rows: int, channels: int, groups: int = 1) -> float:
    """Cost of a sample where the taps are read as they are."""
    regions = skipping(axes, rows, groups * channels)
    work: float = _work(regions) or (
        _round_up(prod(a.out for a in axes), PANEL) * prod(a.kernel for a in axes)
    )
    if not regions and axes[-1].out > 0:
        # what is computed between short output rows, or the packing that avoids it
        between = (axes[-1].reach - 1) / (axes[-1].stride * axes[-1].out)
        work *= 1 + min(between, PACKING / max(rows, 1))
    work *= rows
    if not regions:
        work = min(work, _lanes_work(axes, rows) * prod(a.kernel for a in axes))
    arithmetic = work * channels * (GEMM + FEW_ROWS / max(rows, 1))
    return groups * arithmetic + PART * max(1, len(regions))


def in_lanes(axes: Sequence[Axis], rows: int, packed: bool = True, channels: int = 1) -> bool:
    """Whether a direct convolution is faster with vectors of rows than with vectors of pixels.

    Unless the weights are `packed` so before, they have to be turned round for it.
    """
    turning = 0.0 if packed else TURNING * rows
    lanes = _lanes_work(axes, rows)
    if 2 * rows > ROWS:  # of fewer most of a vector is empty, which is no faster for leaving out
        lanes *= 1 - _cut(axes)
    taps = prod(a.kernel for a in axes)
    if taps > 1:
        lanes *= 1 + RESULTS / max(channels * taps, 1)
    if all(a.kernel <= a.stride for a in axes):  # no input meets two taps
        lanes *= PATCHES if taps > 1 else POINTWISE
    return turning + lanes < _pixels_work(axes, rows)


def samples_in_lanes(axes: Sequence[Axis], rows: int, depth: int) -> bool:
    """The same of a product whose inputs are sampled, channels next to each other.

    With pixels as vectors these have to be turned round, the results otherwise.
    """
    return rows * RESULTS_TURNED <= depth or in_lanes(axes, rows)


def mixing_apart(axes: Sequence[Axis], channels: int) -> bool:
    """Whether a depthwise convolution and the mix of its channels are faster one after the other.

    By itself the former may have channels as vectors, where rows of its results are too short to
    be some, or pixels too far from each other.
    """
    down, along = _last_two(axes)
    if along.stride > 2:
        return channels >= FAR_CHANNELS
    return along.out < SHORT_ROW and channels * down.out >= SHORT_ROWS


def mirroring_pays(axes: Sequence[Axis], rows: int) -> bool:
    """Whether an adjoint at stride 1 is faster as the convolution that it is, with these rows."""
    taps, pixels = prod(a.kernel for a in axes), prod(a.size for a in axes)
    if taps == 1:
        return pixels >= MIRRORED_PIXELS or rows <= MIRRORED_FEW
    if pixels >= MIRRORED_IMAGE:
        return taps >= MIRRORED_IMAGE_TAPS
    return pixels >= MIRRORED_PIXELS and taps >= MIRRORED_TAPS and rows >= MIRRORED_ROWS


def woven(axes: Sequence[Axis], groups: int, rows: int, channels: int) -> bool:
    """Whether the classes of an adjoint at stride 2 are too shallow to be products.

    The kernel for few channels takes their taps one by one, and weaves two classes into a row.
    """
    if axes[-1].stride != 2 or channels < 1:
        return False
    deepest = channels * prod(ceil_div(a.kernel, a.stride) for a in axes)
    mean = channels * prod(a.kernel for a in axes) / prod(a.stride for a in axes)
    if channels == 1:
        return rows <= WOVEN_ROWS and deepest <= WOVEN_TAPS
    few = groups > 1 and (channels <= 4 or mean <= MOST_MEAN)
    return few and rows <= WOVEN_TOGETHER and deepest <= WOVEN_DEPTH


def _lanes_work(axes: Sequence[Axis], rows: int) -> float:
    """Multiply-adds for each depth, with rows as vectors."""
    half = PANEL // 2
    lanes = ONE_HALF * half if rows <= half else _round_up(rows, half)
    return lanes * max(prod(a.out for a in axes), LEAST_LANES)


def _cut(axes: Sequence[Axis]) -> float:
    """Part of the products that is left out near borders, with rows as vectors."""
    cut = sum(1 - valid_taps(a) / (a.kernel * a.out) for a in axes if a.kernel > 1 and a.out > 0)
    return min(cut, MOST_CUT) if cut >= LEAST_CUT else 0.0


def _pixels_work(axes: Sequence[Axis], rows: int) -> float:
    """Multiply-adds for each depth, with pixels as vectors."""
    last = axes[-1]
    pixels, rest = prod(a.out for a in axes), rows % ROWS
    if pixels == 0:
        return 0.0
    each = rows - rest + (BESIDE * rest if 2 * rest <= ROWS else rest)
    packing = pixels * EACH_PIXEL * (1 + SHORT / last.out)
    read = prod((a.out - 1) * a.stride + a.reach for a in axes)
    copying = COPYING * min(last.stride, 2) * read / prod(a.kernel for a in axes)
    lines = pixels // last.out  # whose ends are computed and dropped, where there are several
    between = (lines > 1) * lines * (last.reach - 1) / last.stride
    work = _in_panels(pixels) * each + packing
    work = min(work, _in_panels(pixels + between) * each + copying)
    if last.stride == 1 and all(map(_inside, axes)):  # read where they are, with all between
        between = (lines > 1) * lines * (last.size - last.out)
        work = min(work, _in_panels(pixels + between) * each)
    return work


def _inside(axis: Axis) -> bool:
    """Whether all taps read the input, and no padding."""
    first = -axis.before
    return first >= 0 and first + (axis.out - 1) * axis.stride + axis.reach <= axis.size


def _in_panels(pixels: float) -> float:
    """Pixels of whole panels, half of one taking two thirds of its time."""
    whole, rest = divmod(pixels, PANEL)
    return PANEL * (whole + (0 if rest == 0 else 2 / 3 if 2 * rest <= PANEL else 1))


def winograd_cost(axes: Sequence[Axis], rows: int, channels: int, groups: int, tile: Tile) -> float:
    """Cost of a sample by tiles of so many outputs, with weights transformed before."""
    by_tiles = _cost_by_tiles(axes, rows, channels, groups, tile)
    return min(by_tiles, _cost_in_lanes(axes, rows, channels, groups, tile))


def winograd_takes_lanes(axes: Sequence[Axis]) -> bool:
    """Whether its vectors may be those of channels."""
    down, along = _last_two(axes)
    return down.dilation == along.dilation == 1 and all(a.kernel == 1 for a in axes[:-2])


def winograd_in_lanes(
    axes: Sequence[Axis], rows: int, channels: int, groups: int, tile: Tile
) -> bool:
    """Whether its vectors are better those of channels than those of tiles."""
    by_tiles = _cost_by_tiles(axes, rows, channels, groups, tile)
    return _cost_in_lanes(axes, rows, channels, groups, tile) < by_tiles


def _cost_by_tiles(
    axes: Sequence[Axis], rows: int, channels: int, groups: int, tile: Tile
) -> float:
    down, along = _last_two(axes)
    leading = axes[:-2]
    depth = channels * prod(a.kernel for a in leading)
    lines, tiles, places = _tiling(axes, tile)
    products = PRODUCTS * _round_up(tiles, VECTOR) * depth * max(rows, LEAST_ROWS)
    transforms = _round_up(tiles, VECTOR) * (INPUT * depth + OUTPUT * rows)
    if along.dilation > 1:
        transforms += SPREAD * tiles * (depth + rows)
    weights = depth * rows * _kept(down, tile[0]) * _kept(along, tile[1])
    streams = (WEIGHT if tiles > VECTOR else NARROW) * weights
    per_line = lines * (LINE_IN * depth + LINE_OUT * rows)
    each = places * (products + transforms) + streams + per_line
    cost = groups * each * (STRIDED if 2 in (down.stride, along.stride) else 1) + PART
    if groups > 1:
        inputs, outputs = prod(a.size for a in axes), prod(a.out for a in axes)
        elements = groups * (channels * inputs + rows * outputs)
        if elements > NEAR_GROUPS:
            cost += FAR_GROUPS * elements
    return cost


def _cost_in_lanes(
    axes: Sequence[Axis], rows: int, channels: int, groups: int, tile: Tile
) -> float:
    if not winograd_takes_lanes(axes) or channels * rows > LANES_MOST:
        return inf
    down, along = _last_two(axes)
    _, tiles, places = _tiling(axes, tile)
    products = LANES_PRODUCTS * channels * _round_up(rows, VECTOR)
    each = products + LANES_INPUT * channels + LANES_OUTPUT * rows
    strided = STRIDED if 2 in (down.stride, along.stride) else 1
    return groups * places * tiles * each * strided + PART


def _tiling(axes: Sequence[Axis], tile: Tile) -> tuple[int, int, int]:
    """Lines of tiles of a sample, its tiles, and the places of a tile.

    A tile has outputs of one residue class modulo the dilations.
    """
    down, along = _last_two(axes)
    lines = prod(a.out for a in axes[:-2]) * _across(down, tile[0])
    places = _inputs(down, tile[0]) * _inputs(along, tile[1])
    return lines, lines * _across(along, tile[1]), places


def _across(axis: Axis, outputs: int) -> int:
    """Tiles along an axis: one has outputs of one residue class modulo the dilation."""
    dilation = axis.dilation if axis.kernel > 1 else 1
    return min(dilation, axis.out) * ceil_div(ceil_div(axis.out, dilation), outputs)


def _inputs(axis: Axis, outputs: int) -> int:
    """Inputs of a tile along an axis."""
    return axis.stride * (outputs - 1) + axis.kernel


def _kept(axis: Axis, outputs: int) -> int:
    """Transformed weights of an axis: at stride 2 the second of 3 taps is kept as it is."""
    return _inputs(axis, outputs) - (outputs - 1) * (axis.stride == 2 and axis.kernel == 3)


def winograd_tile(axes: Sequence[Axis], rows: int, channels: int, groups: int = 1) -> Tile:
    """Outputs of the tiles that are the fastest."""
    return min(
        winograd_tiles(axes), key=lambda tile: winograd_cost(axes, rows, channels, groups, tile)
    )


def winograd_grad(
    axes: Sequence[Axis], rows: int, channels: int, groups: int, samples: int
) -> Tile | None:
    """Outputs of a tile if the gradient of the weights is faster by Winograd's algorithm, too."""
    down, along = _last_two(axes)
    pairs = rows * channels
    if (
        not winograd_takes_lanes(axes) or max(down.stride, along.stride) > 1
        or not 0 < pairs <= GRAD_MOST or samples * prod(a.out for a in axes) == 0
    ):  # fmt: skip
        return None
    tile = winograd_tile(axes, rows, channels, groups)
    _, tiles, places = _tiling(axes, tile)
    held = _round_up(rows, VECTOR) * channels
    each = GRAD_PRODUCTS * held + GRAD_INPUT * (rows + channels)
    winograd = places * (samples * tiles * each + GRAD_SUM * held)
    taps, pixels = prod(a.kernel for a in axes), samples * prod(a.out for a in axes)
    direct = taps * pairs * (GRAD_DIRECT * pixels + GRAD_SUM)
    direct += GRAD_INPUT * pixels * (rows + channels)
    return tile if direct >= WORTH_IT * winograd else None


def winograd_gain(axes: Sequence[Axis], rows: int, channels: int, groups: int = 1) -> float:
    """How many times faster than ``"direct"`` Winograd's is; 0 where it is not for the shape."""
    if not winograd_takes(axes) or _few_channels(rows, channels):
        return 0.0
    tile = winograd_tile(axes, rows, channels, groups)
    cost = winograd_cost(axes, rows, channels, groups, tile)
    return direct_cost(axes, rows, channels, groups) / cost


def phases_gain(classes: Sequence[Sequence[Axis]], rows: int, channels: int, groups: int) -> float:
    """`winograd_gain` for the classes of a transposed convolution, those together that it takes."""
    if not any(map(winograd_takes, classes)) or _few_channels(rows, channels):
        return 0.0
    direct = winograd = 0.0
    for axes in classes:
        cost = direct_cost(axes, rows, channels, groups)
        direct += cost
        if winograd_takes(axes):
            tile = winograd_tile(axes, rows, channels, groups)
            cost = winograd_cost(axes, rows, channels, groups, tile)
        winograd += cost
    if len(classes) == 1:
        return direct / winograd
    inputs = groups * channels * prod(a.size for a in classes[0])
    outputs = groups * rows * sum(prod(a.out for a in axes) for axes in classes)
    if inputs > NEAR_INPUTS:
        winograd += FAR_INPUT * inputs * len(classes)
    if outputs > NEAR_OUTPUTS:
        winograd += FAR_OUTPUT * outputs
    return TOGETHER * direct / winograd


def fft_gain(axes: Sequence[Axis], rows: int, channels: int, groups: int = 1) -> float:
    """How many times faster than ``"direct"`` FFTs are, for a sample; 0 for what nobody would."""
    taps = prod(a.kernel for a in axes)
    outputs = prod(a.out for a in axes)
    if taps < LEAST_FFT_TAPS or min(rows, channels, outputs) < 1:
        return 0.0
    blocks = fft.choose_blocks(axes, rows, channels)
    if blocks.points > fft.most_points(rows, channels):
        return 0.0
    each = TRANSFORM * (rows + channels) + SPECTRUM * rows * channels
    cost = blocks.points * (prod(blocks.counts) * each + TRANSFORM * rows * channels)
    if _few_channels(rows, channels):
        return SHIFTED * taps * outputs * rows * channels / cost
    return direct_cost(axes, rows, channels) / cost


def col2im_gain(axes: Sequence[Axis], rows: int, channels: int) -> float:
    """How many times faster than ``"phase"`` col2im is, for so many outputs and inputs a group.

    Its products are those of the inputs alone, and have rows for all taps; phases multiply the
    padding as well, and use what they load for few rows where outputs are few.
    """
    last = axes[-1]
    together = rows * max(1, last.stride if last.kernel % last.stride == 0 else last.stride // 2)
    products = rows * channels * prod(a.kernel * ceil_div(a.size, a.stride) for a in axes)
    phases = products * (GEMM + FEW_TOGETHER / max(1, together)) + PHASES_CALL
    return phases / _columns_cost(axes, rows, channels)


def columns_gain(axes: Sequence[Axis], rows: int, channels: int) -> float:
    """How many times faster col2im is than an adjoint of few rows at stride 1; 0 if not for it.

    A convolution of few rows is one as well, of its `mirrored` axes. What is loaded for few rows is
    used little, and once for each tap; and large dilations compute much between output rows.
    """
    if (
        not 0 < rows <= MOST_GATHERED
        or channels == 0
        or any(a.stride > 1 for a in axes)
        or not 1 < prod(a.kernel for a in axes) <= MOST_TAPS
    ):
        return 0.0
    regions: tuple[Region, ...] = ()
    if channels * prod(a.out for a in axes) > LARGE_INPUT:
        regions = skipping([a.mirrored for a in axes], rows, channels)
    if regions:
        met = sum(prod((hi - lo) * (last - first) for lo, hi, first, last in r) for r in regions)
        lines = len({r[-1] for r in regions})  # in the place of one
        each = IN_REGIONS * _round_up(rows, VECTOR)
        each += BY_REGION + SHORT_LINE * lines / axes[-1].size
    elif rows > FEW_GATHERED:
        return 0.0
    else:
        met = prod(a.kernel * a.size for a in axes)
        each = GEMM * rows
        if rows > FEW_IN_PLACE or not all(_inside(a.mirrored) for a in axes):
            each += FEW_DIRECT * ceil_div(rows, ROWS)
    return met * channels * each / _columns_cost(axes, rows, channels)


def by_columns(axes: Sequence[Axis], rows: int, channels: int, groups: int) -> bool:
    """Whether an adjoint of few rows at stride 1 is made by its columns."""
    return groups == 1 and columns_gain(axes, rows, channels) > WORTH_IT


def _columns_cost(axes: Sequence[Axis], rows: int, channels: int) -> float:
    """What an adjoint takes by its columns."""
    lines = rows * prod(a.kernel for a in axes) * prod(a.out for a in axes[:-1])
    line = (COLUMNS * channels + GATHER) * _round_up(axes[-1].out, VECTOR) + GATHER_LINE
    return lines * line + CALL


def cropped_to_align(axis: Axis, rows: int) -> int:
    """How many elements to compute in front of a transposed axis, and drop.

    Positions then start where the padding does, and classes with as many taps read the same: they
    are one product with the rows of all, instead of two. Worth it where rows are few.
    """
    cropped, stride = axis.before % axis.stride, axis.stride
    if not cropped or axis.kernel % stride or axis.dilation > 1 or axis.size < stride:
        return 0
    apart = ceil_div(axis.size, stride) * (
        _row_cost(cropped * rows) + _row_cost((stride - cropped) * rows)
    )
    together = ceil_div(axis.size + cropped, stride) * _row_cost(stride * rows)
    return cropped if together < apart else 0


def _row_cost(rows: int) -> float:
    """What a product costs for each column: whole blocks of rows, or a few rows at less speed."""
    return 1.5 * rows if 2 * rows <= ROWS else float(_round_up(rows, ROWS))


def _few_channels(rows: int, channels: int) -> bool:
    """Whether a group has so few channels that nothing beats the direct kernel for them."""
    return channels < (2 if rows > 1 else LEAST_INPUTS)


def _round_up(a: int, b: int) -> int:
    return ceil_div(a, b) * b
