"""Convolution on a regular grid by implicit GEMM: forward, and the gradient of the weights.

::

    out[n, g, m, o] = bias[g, m] + sum over c, t of
                      weight[g, m, c, t] * x[n, g, c, o*stride + t*dilation + offset]

with depth k = (c, t): channels outermost.  Standard, pointwise, grouped and dilated convolutions
are this; so is each phase of a transposed one, and the gradient of the input, with other numbers
(see pyconv.engine).
"""

from libc.string cimport memset

from pyconv import checks
from pyconv._kernels._cpu cimport (
    LEAF_OUTSIDE,
    LEAF_WIDE,
    leaf,
    leaf_of_lanes,
    leaf_soon,
    leaf_table,
)
from pyconv._kernels._cuts cimport cut_bytes, list_cuts
from pyconv._kernels._gemm cimport (
    PackedWeights,
    cuts,
    depth_block,
    describe_operand,
    evenly_spaced,
    implicit_gemm,
    operand,
    pack_operand,
    packer,
    packing_bytes,
    planes,
    start_packer,
)
from pyconv._kernels._grid cimport fill_grid, grid, inside, load_run, source_index
from pyconv._kernels._integers cimport ceil_div, magnitude, odd_lines
from pyconv._kernels._parallel cimport Workspace, run
from pyconv._kernels._tensor cimport PAD_ZEROS, describe, tensor
from pyconv._kernels._weights cimport few_gradient, weight_gemm


cdef enum:
    LINE_BYTES = 64
    PANELS_AT_ONCE = 4      # read by rows: more would evict each other, being a power of 2 apart
    FEW_LANES = 4           # of a vector, in gradients of weights
    FEW_ROWS = 2            # ... of a single tap, and pixels of a sample, for lanes to be pixels
    FEW_ROWS_WORTH = 512
    TURN = 8192             # elements to transpose less for rows and channels to change places
    LIST_DEPTHS = 128       # of a block, at most, that are listed at once
    LISTS = 8               # kept, of runs that alternate along a row
    FAR_BYTES = 1 << 19     # of an image: more does not stay in L2 beside all else
    CHANNELS_AHEAD = 8      # asked for while one is packed: the hardware does not see so far


cdef void pack_segment(
    const grid* q, const char* src, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t o2,
    Py_ssize_t count, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width, char* dst
) noexcept nogil:
    """`count` neighbouring pixels of one output row: a column run of the panel, all depths.

    Which inputs are inside the array is settled once per tap; the channels go in one call.
    """
    cdef Py_ssize_t taps = q.taps[0] * q.taps[1] * q.taps[2], es = q.leaf.esize
    cdef Py_ssize_t t0, t1, t2, t = -1, i0, i1, c, rows
    # Depth k counts (channel, tap): the first and the last channel that a tap has in k0 .. k1-1.
    cdef Py_ssize_t c0 = k0 // taps, r0 = k0 % taps, c1 = k1 // taps, r1 = k1 % taps
    cdef char* at
    for t0 in range(q.taps[0]):
        i0 = source_index(
            o0 * q.stride[0] + t0 * q.dilation[0] + q.offset[0], q.x.shape[2], q.mode)
        for t1 in range(q.taps[1]):
            i1 = source_index(
                o1 * q.stride[1] + t1 * q.dilation[1] + q.offset[1], q.x.shape[3], q.mode)
            for t2 in range(q.taps[2]):
                t += 1
                c = c0 + (t < r0)
                rows = c1 + (t < r1) - c
                if rows <= 0:
                    continue
                at = dst + (c * taps + t - k0) * width * es
                if i0 < 0 or i1 < 0:
                    q.leaf.clear(at, taps * width, rows, count)
                    continue
                load_run(
                    q, at, taps * width,
                    src + c * q.x.stride[1] + i0 * q.x.stride[2] + i1 * q.x.stride[3], rows,
                    o2 * q.stride[2] + t2 * q.dilation[2] + q.offset[2], q.stride[2], count)


cdef void pack_panels(
    const grid* q, const char* src, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t o2, Py_ssize_t panels,
    Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width, char* dst
) noexcept nogil:
    """`pack_segment` for whole panels, all of whose taps are inside: the input is read by rows."""
    cdef Py_ssize_t taps = q.taps[0] * q.taps[1] * q.taps[2], es = q.leaf.esize, k, c, t, i0, i1, i2
    cdef Py_ssize_t step = q.stride[2] * q.x.stride[4]
    cdef Py_ssize_t length = panels * width * step if step <= 2 * es else 0
    cdef const char* row
    for k in range(k0, k1):
        c, t = k // taps, k % taps
        i0 = o0 * q.stride[0] + t // q.taps[2] // q.taps[1] * q.dilation[0] + q.offset[0]
        i1 = o1 * q.stride[1] + t // q.taps[2] % q.taps[1] * q.dilation[1] + q.offset[1]
        i2 = o2 * q.stride[2] + t % q.taps[2] * q.dilation[2] + q.offset[2]
        row = (src + c * q.x.stride[1] + i0 * q.x.stride[2] + i1 * q.x.stride[3]
               + i2 * q.x.stride[4])
        q.leaf.fetch(row + CHANNELS_AHEAD * q.x.stride[1], length, False)
        q.leaf.load[q.x.storage](
            dst + (k - k0) * width * es, (k1 - k0) * width, row, width * step, step, panels, width)


cdef bint taps_inside(
    const grid* q, int axis, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Whether all taps of outputs first .. last on an axis are inside the array."""
    cdef Py_ssize_t reach = (q.taps[axis] - 1) * q.dilation[axis]
    first = first * q.stride[axis] + q.offset[axis] + min(reach, 0)
    last = last * q.stride[axis] + q.offset[axis] + max(reach, 0)
    return first >= 0 and last < q.x.shape[2 + axis]


cdef struct tap_list:
    Py_ssize_t lo, hi                   # taps of the last axis that are inside
    Py_ssize_t offset[LIST_DEPTHS]      # elements from where the first tap of channel 0 would be


cdef inline void taps_within(
    const grid* q, int axis, Py_ssize_t o, Py_ssize_t* lo, Py_ssize_t* hi
) noexcept nogil:
    """Taps lo .. hi-1 of output o are inside the array on an axis."""
    cdef Py_ssize_t step = q.dilation[axis], taps = q.taps[axis], first
    cdef Py_ssize_t at = o * q.stride[axis] + q.offset[axis]
    if step > 0:
        inside(at, step, taps, q.x.shape[2 + axis], lo, hi)
        return
    inside(at + (taps - 1) * step, -step, taps, q.x.shape[2 + axis], &first, lo)
    hi[0] = taps - first
    lo[0] = taps - lo[0]


cdef Py_ssize_t same_taps_until(
    const grid* q, Py_ssize_t lo, Py_ssize_t hi
) noexcept nogil:
    """The next output along the last axis with other taps inside than lo .. hi-1."""
    cdef Py_ssize_t step = q.dilation[2], stride = q.stride[2], until = q.out[2]
    cdef Py_ssize_t leaves = hi - 1, enters = lo - 1, at
    if step < 0:
        leaves, enters = lo, hi
    if lo < hi:
        at = q.x.shape[4] - q.offset[2] - leaves * step
        until = min(until, (at + stride - 1) // stride)
    if 0 <= enters < q.taps[2]:
        at = -q.offset[2] - enters * step
        until = min(until, (at + stride - 1) // stride)
    return until


cdef void list_taps(
    const grid* q, const Py_ssize_t* lo, const Py_ssize_t* hi, Py_ssize_t k0, Py_ssize_t k1,
    tap_list* result
) noexcept nogil:
    """Where depths k0 .. k1-1 are, for outputs with taps lo .. hi-1 of each axis inside."""
    cdef Py_ssize_t es = q.leaf.esize, k, c, t0, t1, t2
    result.lo, result.hi = lo[2], hi[2]
    t2 = k0 % q.taps[2]
    t1 = k0 // q.taps[2] % q.taps[1]
    t0 = k0 // q.taps[2] // q.taps[1] % q.taps[0]
    c = k0 // q.taps[2] // q.taps[1] // q.taps[0]
    for k in range(k1 - k0):
        result.offset[k] = LEAF_OUTSIDE
        if lo[2] <= t2 < hi[2] and lo[1] <= t1 < hi[1] and lo[0] <= t0 < hi[0]:
            result.offset[k] = (
                c * q.x.stride[1] + t0 * q.dilation[0] * q.x.stride[2]
                + t1 * q.dilation[1] * q.x.stride[3] + t2 * q.dilation[2] * es) // es
        t2 += 1
        if t2 == q.taps[2]:
            t2 = 0
            t1 += 1
            if t1 == q.taps[1]:
                t1 = 0
                t0 += 1
                if t0 == q.taps[0]:
                    t0 = 0
                    c += 1


cdef inline bint listed(const grid* q) noexcept nogil:
    """Whether neighbouring outputs have neighbouring inputs, to be copied, or zeros."""
    return (q.x.in_place and q.stride[2] == 1 and q.x.stride[4] == q.leaf.esize
            and q.mode == PAD_ZEROS)


cdef void pack_listed(
    const grid* q, const char* src, Py_ssize_t p, Py_ssize_t count, Py_ssize_t k0, Py_ssize_t k1,
    Py_ssize_t width, Py_ssize_t panel_size, char* panel
) noexcept nogil:
    """`pack_grid` of a `listed` input, k1 - k0 <= LIST_DEPTHS; panels are `panel_size` apart.

    Pixels of one panel and row with the same taps inside go together.  Where their depths are is
    listed once for all such runs, until rows with other taps inside follow.
    """
    cdef Py_ssize_t es = q.leaf.esize, column = 0, length, until = 0, o0, o1, o2, row
    cdef Py_ssize_t lo[3]
    cdef Py_ssize_t hi[3]
    cdef Py_ssize_t first[2]
    cdef Py_ssize_t end[2]
    cdef Py_ssize_t lists = 0, oldest = 0, at = 0
    cdef tap_list held[LISTS]
    cdef const char* line = NULL
    first[0] = first[1] = -1    # of taps that are not those of any row
    end[0] = end[1] = -1
    o2 = p % q.out[2]
    row = p // q.out[2]
    while count > 0:
        if line == NULL:
            o0, o1 = row // q.out[1], row % q.out[1]
            taps_within(q, 0, o0, &lo[0], &hi[0])
            taps_within(q, 1, o1, &lo[1], &hi[1])
            if lo[0] != first[0] or hi[0] != end[0] or lo[1] != first[1] or hi[1] != end[1]:
                first[0], end[0], first[1], end[1] = lo[0], hi[0], lo[1], hi[1]
                lists = oldest = 0
            line = (src + (o0 * q.stride[0] + q.offset[0]) * q.x.stride[2]
                    + (o1 * q.stride[1] + q.offset[1]) * q.x.stride[3] + q.offset[2] * es)
            until = o2
        if o2 == until:
            taps_within(q, 2, o2, &lo[2], &hi[2])
            until = same_taps_until(q, lo[2], hi[2])
            at = 0
            while at < lists and not (held[at].lo == lo[2] and held[at].hi == hi[2]):
                at += 1
            if at == lists:
                at, oldest = oldest, (oldest + 1) % LISTS
                lists = max(lists, at + 1)
                list_taps(q, lo, hi, k0, k1, &held[at])
        length = min(min(count, width - column), until - o2)
        q.leaf.pack(
            k1 - k0, length, line + o2 * es, held[at].offset, panel + column * es, width)
        column += length
        if column == width:
            column = 0
            panel += panel_size
        count -= length
        o2 += length
        if o2 == q.out[2]:
            o2, line = 0, NULL
            row += 1


cdef void pack_grid(
    const void* ctx, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p,
    Py_ssize_t count, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width, char* panel
) noexcept nogil:
    cdef const grid* q = <const grid*>ctx
    cdef Py_ssize_t es = q.leaf.esize, column = 0, length, o0, o1, o2, row
    cdef Py_ssize_t first = k0
    cdef const char* src = q.x.data + n * q.x.stride[0] + g * q.channels * q.x.stride[1]
    if listed(q):
        while k0 < k1:
            length = min(<Py_ssize_t>LIST_DEPTHS, k1 - k0)
            pack_listed(
                q, src, p, count, k0, k0 + length, width, (k1 - first) * width * es, panel)
            panel += length * width * es
            k0 += length
        return
    o2 = p % q.out[2]
    row = p // q.out[2]
    while count > 0:
        o0, o1 = row // q.out[1], row % q.out[1]
        length = PANELS_AT_ONCE * width
        if (column == 0 and length <= min(count, q.out[2] - o2) and taps_inside(q, 0, o0, o0)
                and taps_inside(q, 1, o1, o1) and taps_inside(q, 2, o2, o2 + length - 1)):
            pack_panels(q, src, o0, o1, o2, PANELS_AT_ONCE, k0, k1, width, panel)
            panel += (k1 - k0) * length * es
        else:
            length = min(min(count, width - column), q.out[2] - o2)
            pack_segment(q, src, o0, o1, o2, length, k0, k1, width, panel + column * es)
            column += length
            if column == width:
                column = 0
                panel += (k1 - k0) * width * es
        count -= length
        o2 += length
        if o2 == q.out[2]:
            o2 = 0
            row += 1


cdef void soon_grid(
    const void* ctx, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p, Py_ssize_t count,
    Py_ssize_t k0, Py_ssize_t k1, leaf_soon* soon
) noexcept nogil:
    """Channels of a pointwise convolution, a row each, unless the image is small and near."""
    cdef const grid* q = <const grid*>ctx
    cdef Py_ssize_t axis, step
    if q.channels * q.x.stride[1] < FAR_BYTES:
        return
    for axis in range(3):
        if q.taps[axis] != 1 or q.stride[axis] != 1 or q.out[axis] != q.x.shape[2 + axis]:
            return
    if q.x.in_place and evenly_spaced(&q.x, &step) and step == q.leaf.esize:
        soon.at = (q.x.data + n * q.x.stride[0] + (g * q.channels + k0) * q.x.stride[1]
                   + p * q.leaf.esize)
        soon.step, soon.rows, soon.bytes = q.x.stride[1], k1 - k0, count * q.leaf.esize
        if soon.bytes == soon.step:
            soon.rows, soon.bytes = 1, soon.rows * soon.bytes


# ---- planes: inputs where the micro-kernel finds them -----------------------------------------
#
# Of each channel, the part of the padded input that the outputs look at, in phases: along the last
# two axes the positions of each residue modulo the stride that some tap meets, next to each other,
#
#     [channel][position on axis 0][phase of axis 1][phase of axis 2][row][column]
#
# so that neighbouring outputs have neighbouring inputs, equally far away for every tap.  After an
# output row come as many positions as the taps reach past it, but for the zeros that one row ends
# and the next begins with: those are there once.  Where channels are in lanes, and pixels wherever
# they are, positions follow each other as in the input.

cdef enum:
    MOST_DEPTHS = 1 << 17       # in a table of offsets
    WAY_BYTES = 4096            # of L1: lines that far apart are in the same set
    CACHE_SETS = 64             # of L1,
    CACHE_LINES = 6             # of each, of 8, for inputs
    NEAR_BYTES = 48 * 4096      # pages that the first table of addresses has room for
    FEW_CHANNELS = 12           # of a block: their lines are asked for in time
    LEAST_WORKSPACE = 1 << 18   # with less there may be none left for tiles
    BAND_BYTES = 1 << 22        # of a sample that has to be prepared at once
    LARGE_BAND_BYTES = 1 << 24  # ... for rows in lanes
    OFTEN = 4                   # taps that an input meets
    PAGE_BYTES = 4096           # of so many a processor knows at once where they are
    MOST_PAGES = 40
    PLANE_BYTES = 1 << 16       # of a channel: larger ones are read far from each other
    CHANNELS_AT_ONCE = 16       # of an image with channels last: a cache line
    MOST_BOUNDS = 8             # phases along an axis whose bounds are settled for all channels
    NEVER = 2                   # for planes that cannot be: more than packing costs


cdef struct plane_axis:
    Py_ssize_t low              # input position of output 0's first tap
    Py_ssize_t step             # of the input, from one position of a phase to the next
    Py_ssize_t phases
    Py_ssize_t extent           # positions of a phase


cdef struct plane_grid:
    grid q                      # comes first: what reads a grid reads this
    planes layout
    bint lanes                  # no phases
    plane_axis axis[3]
    Py_ssize_t pitch            # elements from one row of a phase to the next,
    Py_ssize_t phase_size, channel_size, size   # of a phase, a channel, a sample


cdef Py_ssize_t tap_position(const plane_grid* s, int axis, Py_ssize_t tap) noexcept nogil:
    """Input positions from the first tap of output 0, whatever the sign of the dilation."""
    return s.q.offset[axis] + tap * s.q.dilation[axis] - s.axis[axis].low


cdef Py_ssize_t shared_zeros(const plane_grid* s) noexcept nogil:
    """Positions on the last axis where each row may begin before the one above it ends."""
    cdef const plane_axis* x = &s.axis[2]
    cdef Py_ssize_t r, left, right, shared = x.extent - s.q.out[2]
    if s.q.mode != PAD_ZEROS:
        return 0
    for r in range(x.phases):
        inside(x.low + r, x.step, x.extent, s.q.x.shape[4], &left, &right)
        if left < right:
            shared = min(shared, min(left, x.extent - right))
    return shared


cdef bint describe_planes(plane_grid* s) noexcept nogil:
    """Everything but the table of offsets; False if that is more than any memory holds."""
    cdef Py_ssize_t reach
    cdef double cells = s.q.x.shape[1]
    cdef int i
    cdef plane_axis* axis
    for i in range(3):
        axis = &s.axis[i]
        reach = (s.q.taps[i] - 1) * s.q.dilation[i]
        axis.low = s.q.offset[i] + min(reach, 0)
        reach = max(reach, -reach)
        if i == 0 or s.lanes:   # not in phases: each output has a line of its own
            axis.step, axis.phases = 1, 1
            axis.extent = (s.q.out[i] - 1) * s.q.stride[i] + reach + 1
        else:
            axis.step = s.q.stride[i]
            axis.phases = min(axis.step, reach + 1)
            axis.extent = s.q.out[i] + reach // axis.step
        cells *= <double>axis.phases * axis.extent
    if cells > <double>(1 << 40):
        return False
    s.pitch = s.axis[2].extent - shared_zeros(s)
    s.phase_size = s.axis[1].extent * s.pitch + s.axis[2].extent - s.pitch
    s.channel_size = odd_lines(
        s.axis[0].extent * s.axis[1].phases * s.axis[2].phases * s.phase_size, s.q.leaf.esize)
    s.size = s.q.x.shape[1] * s.channel_size + s.q.leaf.nr
    s.layout.group_stride = s.q.channels * s.channel_size
    s.layout.lines = s.q.out[0]
    s.layout.line_stride = s.q.stride[0] * s.axis[1].phases * s.axis[2].phases * s.phase_size
    s.layout.pitch = s.pitch
    s.layout.pixel_stride[0] = s.q.stride[0] * s.phase_size
    s.layout.pixel_stride[1] = s.q.stride[1] * s.pitch
    s.layout.pixel_stride[2] = s.q.stride[2]
    s.layout.length = (s.q.out[1] - 1) * s.layout.pitch + s.q.out[2]
    s.layout.data = s.layout.end = NULL
    return True


cdef void lay_out(tensor* x, Py_ssize_t step) noexcept nogil:
    """Strides of an array that lies in order, for one that is only to be measured."""
    cdef int axis
    for axis in range(4, -1, -1):
        x.stride[axis] = step
        step *= x.shape[axis]


cdef Py_ssize_t channels_together(const grid* q) noexcept nogil:
    """Channels that a block of depths reaches into."""
    cdef Py_ssize_t taps = q.taps[0] * q.taps[1] * q.taps[2]
    return min(q.channels, depth_block(q.channels * taps) // max(<Py_ssize_t>1, taps) + 1)


cdef bint crowded(Py_ssize_t apart, Py_ssize_t channels) noexcept nogil:
    """Whether channels so many bytes apart evict each other from L1, where they are read in turn.

    At 4096 bytes or a little more or less, say, where all of them are in a few sets.
    """
    cdef Py_ssize_t lines[CACHE_SETS]
    cdef Py_ssize_t c, at
    if channels <= CACHE_LINES:
        return False
    memset(lines, 0, sizeof(lines))
    for c in range(channels):
        at = c * (apart & (WAY_BYTES - 1)) // LINE_BYTES % CACHE_SETS
        lines[at] += 1
        if lines[at] > CACHE_LINES:
            return True
    return False


cdef bint take_input(plane_grid* s) noexcept nogil:
    """Have the input itself be the planes; False if it needs conversion or padding."""
    cdef const tensor* x = &s.q.x
    cdef int i
    for i in range(3):
        if not taps_inside(&s.q, i, 0, s.q.out[i] - 1):
            return False
    s.layout.group_stride = s.q.channels * x.stride[1] // s.q.leaf.esize
    s.layout.data, s.layout.sample_bytes, s.layout.end = x.data, x.stride[0], NULL
    return x.in_place


cdef bint describe_input(plane_grid* s, Py_ssize_t rows) noexcept nogil:
    """The input itself as planes for vectors of pixels: neighbours are next to each other.

    Channels far from each other, or in each other's cache sets, are read in turn for few rows
    alone, for which the micro-kernel takes some channels at a time.
    """
    cdef const grid* q = &s.q
    cdef Py_ssize_t es = q.leaf.esize, last = 0
    cdef int i
    if q.stride[2] != 1 or (q.out[2] > 1 and q.x.stride[4] != es) or not take_input(s):
        return False
    for i in range(1, 5):
        last += max(<Py_ssize_t>0, (q.x.shape[i] - 1) * q.x.stride[i])
    s.layout.lines = q.out[0]
    s.layout.line_stride = q.stride[0] * q.x.stride[2] // es
    s.layout.pitch = q.out[2]
    if q.out[1] > 1:
        s.layout.pitch = q.stride[1] * q.x.stride[3] // es
        if s.layout.pitch < q.out[2]:
            return False
    if LEAF_WIDE(rows, q.leaf.mr) == 1:
        if last > BAND_BYTES and magnitude(q.x.stride[1]) > PLANE_BYTES:
            return False
        if crowded(q.x.stride[1], channels_together(q)):
            return False
    s.layout.length = (q.out[1] - 1) * s.layout.pitch + q.out[2]
    last += max(<Py_ssize_t>0, (q.x.shape[0] - 1) * q.x.stride[0])
    s.layout.end = q.x.data + last + es
    return True


cdef double in_panels(const plane_grid* s, Py_ssize_t pixels) noexcept nogil:
    """Pixels that are computed for so many: whole panels, and half of one takes 2/3 of its time."""
    cdef Py_ssize_t nr = s.q.leaf.nr, rest = pixels % nr
    return pixels - rest + nr * (0 if rest == 0 else 2 / 3.0 if 2 * rest <= nr else 1)


cdef double planes_cost(const plane_grid* s, Py_ssize_t rows, Py_ssize_t depth) noexcept nogil:
    """What reading samples as planes takes, of what packing each depth of each pixel would.

    In multiply-adds.  The micro-kernel is 5 % slower where inputs lie apart, 10 % or 12 % where
    vectors lie in two lines or channels in more than MOST_PAGES; an element moved in long rows is
    worth 5, every second one 10; one that is packed 3 for a single tap, 5 for several, and more
    where a tap has few channels in a block of depths, or a panel several output rows; and twice
    that if not `listed`.
    """
    cdef Py_ssize_t pixels = s.q.out[0] * s.q.out[1] * s.q.out[2]
    cdef Py_ssize_t taps = s.q.taps[0] * s.q.taps[1] * s.q.taps[2]
    cdef double computed = s.layout.lines * in_panels(s, s.layout.length)
    # Results of panels that lie across the end of a row are copied once more.
    cdef double across = <double>(
        s.layout.pitch - max(<Py_ssize_t>0, s.q.out[2] - s.q.leaf.nr + 1)) / s.layout.pitch
    cdef double copied = across * pixels * rows, apart = 1.05
    cdef double packed = 5 + 15.0 * taps / max(taps, depth_block(depth)) if taps > 1 else 3.0
    if pixels == 0 or rows == 0 or depth == 0 or depth > MOST_DEPTHS:
        return NEVER
    packed *= 1 + <double>s.q.leaf.nr / s.q.out[2]
    if not listed(&s.q):
        packed *= 2
    if s.layout.data == NULL:
        copied += <double>s.channel_size * s.q.channels
    elif min(
            channels_together(&s.q), depth * magnitude(s.q.x.stride[1]) // PAGE_BYTES) > MOST_PAGES:
        apart = 1.12
    elif s.q.x.stride[1] % LINE_BYTES:
        apart = 1.1     # a vector is in two lines of the cache
    if s.q.stride[2] != 1:
        copied *= 2
    return (apart * computed * rows * depth + 5 * copied) / (
        depth * (in_panels(s, pixels) * rows + pixels * packed))


cdef bint fit_band(plane_grid* s, Py_ssize_t limit) noexcept nogil:
    """Halve the outputs until the planes they need fit; False if they never do."""
    cdef int axis = 0
    while describe_planes(s):
        if s.size * s.q.leaf.esize <= limit:
            return True
        while axis < 2 and s.q.out[axis] <= 1:
            axis += 1
        if s.q.out[axis] <= 1:
            break
        s.q.out[axis] = (s.q.out[axis] + 1) // 2
    return False


cdef Py_ssize_t bands_of(const plane_grid* whole, const tensor* out) noexcept nogil:
    """How many bands, with as many outputs as `fit_band` has left in `whole`, the result has."""
    cdef Py_ssize_t bands = 1
    cdef int i
    for i in range(3):
        bands *= ceil_div(out.shape[2 + i], whole.q.out[i])
    return bands


cdef void take_band(
    plane_grid* s, const plane_grid* whole, const tensor* out, Py_ssize_t band, tensor* part
) noexcept nogil:
    """The planes of a band, and its part of the result."""
    cdef Py_ssize_t first, bands
    cdef int i
    part.data = out.data
    for i in range(2, -1, -1):
        bands = ceil_div(out.shape[2 + i], whole.q.out[i])
        first = band % bands * whole.q.out[i]
        band //= bands
        s.q.offset[i] = whole.q.offset[i] + first * s.q.stride[i]
        s.q.out[i] = part.shape[2 + i] = min(whole.q.out[i], out.shape[2 + i] - first)
        part.data += first * out.stride[2 + i]
    describe_planes(s)


cdef void repeat_offsets(
    plane_grid* s, Py_ssize_t taps, Py_ssize_t depth, Py_ssize_t apart, Py_ssize_t* offset
) noexcept nogil:
    """Those of the first channel's taps, for each further channel: so many elements apart."""
    cdef Py_ssize_t k
    for k in range(taps, depth):
        offset[k] = offset[k - taps] + apart
    s.layout.offset = offset


cdef void input_offsets(plane_grid* s, Py_ssize_t depth, Py_ssize_t* offset) noexcept nogil:
    """Where taps and channels are in the input itself, from the first output on."""
    cdef const grid* q = &s.q
    cdef Py_ssize_t es = q.leaf.esize, k = 0, apart = q.x.stride[1] // es, t0, t1, t2
    cdef Py_ssize_t step[3]
    cdef Py_ssize_t first = 0
    cdef int i
    for i in range(3):
        step[i] = q.dilation[i] * (q.x.stride[2 + i] // es)
        first += q.offset[i] * (q.x.stride[2 + i] // es)
    for t0 in range(q.taps[0]):
        for t1 in range(q.taps[1]):
            for t2 in range(q.taps[2]):
                offset[k] = first + t0 * step[0] + t1 * step[1] + t2 * step[2]
                s.layout.reach = max(s.layout.reach, offset[k]) if k > 0 else offset[k]
                k += 1
    s.layout.reach += max(<Py_ssize_t>0, (q.channels - 1) * apart)
    repeat_offsets(s, k, depth, apart, offset)


cdef void fill_offsets(plane_grid* s, Py_ssize_t depth, Py_ssize_t* offset) noexcept nogil:
    """Those of the taps, then the same for each further channel."""
    cdef Py_ssize_t t0, t1, t2, at, k = 0, taps = s.q.taps[0] * s.q.taps[1] * s.q.taps[2]
    cdef const plane_axis* y = &s.axis[1]
    cdef const plane_axis* x = &s.axis[2]
    for t0 in range(s.q.taps[0]):
        for t1 in range(s.q.taps[1]):
            for t2 in range(s.q.taps[2]):
                at = tap_position(s, 0, t0)
                at = at * y.phases + tap_position(s, 1, t1) % y.step
                at = at * x.phases + tap_position(s, 2, t2) % x.step
                offset[k] = (at * s.phase_size + tap_position(s, 1, t1) // y.step * s.pitch
                             + tap_position(s, 2, t2) // x.step)
                k += 1
    repeat_offsets(s, taps, depth, s.channel_size, offset)


cdef bint in_patches(const grid* q) noexcept nogil:
    """Whether no input meets two taps, and there is more than one."""
    cdef int i
    for i in range(3):
        if (q.taps[i] - 1) * magnitude(q.dilation[i]) >= q.stride[i]:
            return False
    return q.taps[0] * q.taps[1] * q.taps[2] > 1


cdef bint near(const plane_grid* s, Py_ssize_t apart) noexcept nogil:
    """Whether a block of depths stays in L1 and its page table, channels so many bytes apart.

    If an input is met but once, it need not stay: then few channels, or small images, may as well
    be read where they are.
    """
    cdef Py_ssize_t channels = channels_together(&s.q)
    if channels == 1:       # of a kernel with as many taps
        return True
    if crowded(apart, channels):
        return False
    return channels * magnitude(apart) <= NEAR_BYTES or (in_patches(&s.q) and (
        channels <= FEW_CHANNELS or s.q.channels * magnitude(apart) <= BAND_BYTES))


cdef bint read_input(plane_grid* s, bint measure) noexcept nogil:
    """Have the input itself read as planes, for rows in lanes; False if it cannot be.

    To be measured, wherever some strides of it could be.
    """
    cdef const tensor* x = &s.q.x
    cdef Py_ssize_t es = s.q.leaf.esize
    cdef int i
    if not (take_input(s) and (measure or near(s, x.stride[1]))):
        return False
    # One channel or two of a block come near by themselves, unless from memory.
    s.layout.patches = in_patches(&s.q) and s.q.channels * magnitude(x.stride[1]) >= (
        FAR_BYTES if channels_together(&s.q) > 2 else 2 * BAND_BYTES)
    for i in range(3):
        s.layout.pixel_stride[i] = s.q.stride[i] * x.stride[2 + i] // es
    return True


cdef struct fill_job:
    const plane_grid* s
    char* store
    Py_ssize_t first            # sample


cdef void fill_channels(
    const plane_grid* s, const char* src, Py_ssize_t count, char* dst
) noexcept nogil:
    """Planes of `count` channels, from `src` on, by rows."""
    cdef const grid* q = &s.q
    cdef const plane_axis* y = &s.axis[1]
    cdef const plane_axis* x = &s.axis[2]
    cdef Py_ssize_t e0, r1, r2, row, i0, i1
    for e0 in range(s.axis[0].extent):
        i0 = source_index(s.axis[0].low + e0, q.x.shape[2], q.mode)
        for r1 in range(y.phases):
            for r2 in range(x.phases):
                for row in range(y.extent):
                    i1 = source_index(y.low + r1 + row * y.step, q.x.shape[3], q.mode)
                    if i0 >= 0 and i1 >= 0:
                        load_run(
                            q, dst, s.channel_size,
                            src + i0 * q.x.stride[2] + i1 * q.x.stride[3], count,
                            x.low + r2, x.step, x.extent)
                    dst += s.pitch * q.leaf.esize
                dst += (x.extent - s.pitch) * q.leaf.esize


cdef struct phase_bounds:
    Py_ssize_t left[MOST_BOUNDS]    # columns of each phase that are inside the array
    Py_ssize_t right[MOST_BOUNDS]


cdef void find_bounds(const plane_grid* s, Py_ssize_t first, phase_bounds* b) noexcept nogil:
    """Those of MOST_BOUNDS phases along the last axis, from one on."""
    cdef const plane_axis* x = &s.axis[2]
    cdef Py_ssize_t r
    for r in range(min(<Py_ssize_t>MOST_BOUNDS, x.phases - first)):
        inside(x.low + first + r, x.step, x.extent, s.q.x.shape[4], &b.left[r], &b.right[r])


cdef void fill_channel(
    const plane_grid* s, const char* src, char* dst, phase_bounds* bounds
) noexcept nogil:
    """The same with zeros for padding, already there, and one channel: whole phases at a time.

    `bounds` are those of the first phases; others take their place.
    """
    cdef const grid* q = &s.q
    cdef const plane_axis* y = &s.axis[1]
    cdef const plane_axis* x = &s.axis[2]
    cdef Py_ssize_t es = q.leaf.esize, i0, r1, r2, top, bottom, left, right, count, row
    cdef const char* line
    cdef char* at
    for i0 in range(s.axis[0].low, s.axis[0].low + s.axis[0].extent):
        for r1 in range(y.phases):
            inside(y.low + r1, y.step, y.extent, q.x.shape[3], &top, &bottom)
            r2 = 0
            while r2 < x.phases:
                if x.phases > MOST_BOUNDS and r2 % MOST_BOUNDS == 0:
                    find_bounds(s, r2, bounds)
                left, right = bounds.left[r2 % MOST_BOUNDS], bounds.right[r2 % MOST_BOUNDS]
                count = 1
                while (x.step > 2 and r2 + count < x.phases and (r2 + count) % MOST_BOUNDS > 0
                       and left == bounds.left[(r2 + count) % MOST_BOUNDS]
                       and right == bounds.right[(r2 + count) % MOST_BOUNDS]):
                    count += 1
                if 0 <= i0 < q.x.shape[2] and top < bottom and left < right:
                    at = dst + (top * s.pitch + left) * es
                    line = (src + i0 * q.x.stride[2] + (y.low + r1 + top * y.step) * q.x.stride[3]
                            + (x.low + r2 + left * x.step) * q.x.stride[4])
                    if count == 1:
                        q.leaf.load[q.x.storage](
                            at, s.pitch, line, y.step * q.x.stride[3], x.step * q.x.stride[4],
                            bottom - top, right - left)
                    else:       # a line is transposed, which takes vectors
                        for row in range(bottom - top):
                            q.leaf.load[q.x.storage](
                                at + row * s.pitch * es, s.phase_size,
                                line + row * y.step * q.x.stride[3], q.x.stride[4],
                                x.step * q.x.stride[4], count, right - left)
                dst += count * s.phase_size * es
                r2 += count


cdef inline bint whole_rows(const plane_grid* s) noexcept nogil:
    """Whether positions follow each other as in the input, whose elements need no conversion."""
    cdef const tensor* x = &s.q.x
    return (s.q.mode == PAD_ZEROS and x.in_place
            and s.axis[1].step == 1 and s.axis[2].step == 1
            and (x.stride[4] == s.q.leaf.esize or x.shape[4] == 1))


cdef void fill_whole(
    const plane_grid* s, const char* src, Py_ssize_t count, char* dst
) noexcept nogil:
    """Planes of `count` channels, from `src` on, where `whole_rows`."""
    cdef const tensor* x = &s.q.x
    cdef Py_ssize_t es = s.q.leaf.esize, e0, i0, top, bottom, left, right, before
    inside(s.axis[1].low, 1, s.axis[1].extent, x.shape[3], &top, &bottom)
    inside(s.axis[2].low, 1, s.axis[2].extent, x.shape[4], &left, &right)
    before = top * s.pitch + left
    for e0 in range(s.axis[0].extent):
        i0 = s.axis[0].low + e0
        if 0 <= i0 < x.shape[2] and top < bottom and left < right:
            s.q.leaf.pad(
                count, bottom - top, right - left,
                src + i0 * x.stride[2] + (s.axis[1].low + top) * x.stride[3]
                + (s.axis[2].low + left) * es,
                x.stride[1] // es, x.stride[3] // es, dst, s.channel_size, s.pitch, before,
                s.phase_size - before - (bottom - top - 1) * s.pitch - (right - left))
        else:
            s.q.leaf.clear(dst, s.channel_size, count, s.phase_size)
        dst += s.phase_size * es


cdef void fill_sample(
    const plane_grid* s, Py_ssize_t n, Py_ssize_t c, Py_ssize_t end, Py_ssize_t last, char* dst
) noexcept nogil:
    """Planes of channels c .. end-1 of sample n; `last` is the end of what lies together."""
    cdef const tensor* x = &s.q.x
    cdef Py_ssize_t es = s.q.leaf.esize, together = 1, count
    cdef const char* src
    cdef bint whole = whole_rows(s)
    cdef phase_bounds bounds
    find_bounds(s, 0, &bounds)
    if whole:
        together = end - c
    elif 0 < x.stride[1] < x.stride[4]:
        together = CHANNELS_AT_ONCE
    while c < end:
        count = min(together, end - c)
        src = x.data + n * x.stride[0] + c * x.stride[1]
        if not whole:
            memset(dst, 0, count * s.channel_size * es)
        if c + count == last:       # read past the last pixel, and dropped
            memset(dst + count * s.channel_size * es, 0, s.q.leaf.nr * es)
        if whole:
            fill_whole(s, src, count, dst)
        elif together == 1 and s.q.mode == PAD_ZEROS:
            fill_channel(s, src, dst, &bounds)
        else:
            fill_channels(s, src, count, dst)
        c += count
        dst += count * s.channel_size * es


cdef void fill_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are the channels of all samples."""
    cdef const fill_job* job = <const fill_job*>ctx
    cdef const plane_grid* s = job.s
    cdef Py_ssize_t channels = s.q.x.shape[1], n, c, count
    while first < last:
        n, c = first // channels, first % channels
        count = min(last - first, channels - c)
        fill_sample(
            s, job.first + n, c, c + count, channels,
            job.store + (n * s.size + c * s.channel_size) * s.q.leaf.esize)
        first += count


cdef int fill_planes(
    void* ctx, char* store, Py_ssize_t n, Py_ssize_t count, int threads
) except -1:
    cdef fill_job job
    job.s, job.store, job.first = <const plane_grid*>ctx, store, n
    run(fill_task, &job, count * job.s.q.x.shape[1], threads, 0)
    return 0


cdef void fill_group(
    const void* ctx, char* store, Py_ssize_t n, Py_ssize_t count, Py_ssize_t g
) noexcept nogil:
    cdef const plane_grid* s = <const plane_grid*>ctx
    cdef Py_ssize_t i, c = g * s.q.channels, end = c + s.q.channels
    for i in range(n, n + count):
        fill_sample(s, i, c, end, end, store)
        store += group_size(s) * s.q.leaf.esize


cdef inline Py_ssize_t group_size(const plane_grid* s) noexcept nogil:
    return s.q.channels * s.channel_size + s.q.leaf.nr


cdef void merge_axes(grid* q, tensor* out) noexcept nogil:
    """Fold axes that no tap looks along (1x1, say) into one long row, where addresses allow."""
    cdef int axis, i
    for axis in range(1, 3):
        for i in range(axis - 1, axis + 1):
            if not (q.taps[i] == 1 and q.stride[i] == 1 and q.offset[i] == 0
                    and q.out[i] == q.x.shape[2 + i]):
                break
        else:
            i = axis + 2
            if q.out[axis - 1] != 1 and (
                q.x.stride[i - 1] != q.x.shape[i] * q.x.stride[i]
                or out.stride[i - 1] != out.shape[i] * out.stride[i]
            ):
                continue
            q.out[axis] *= q.out[axis - 1]
            q.out[axis - 1] = 1
            q.x.shape[i] *= q.x.shape[i - 1]
            q.x.shape[i - 1] = 1
            out.shape[i] *= out.shape[i - 1]
            out.shape[i - 1] = 1


cdef void part_rows(grid* q, tensor* out) noexcept nogil:
    """Have the rows of an image in 2-D be lines by themselves, none of which a panel leaves."""
    if q.out[0] != 1 or q.taps[0] != 1 or q.x.shape[2] != 1 or q.offset[0] != 0:
        return
    q.out[0], q.out[1] = q.out[1], 1
    q.taps[0], q.taps[1] = q.taps[1], 1
    q.stride[0], q.stride[1] = q.stride[1], 1
    q.dilation[0], q.dilation[1] = q.dilation[1], 1
    q.offset[0], q.offset[1] = q.offset[1], 0
    q.x.shape[2], q.x.shape[3] = q.x.shape[3], 1
    q.x.stride[2], q.x.stride[3] = q.x.stride[3], q.x.stride[2]
    out.shape[2], out.shape[3] = out.shape[3], 1
    out.stride[2], out.stride[3] = out.stride[3], out.stride[2]


cdef void use_grid(packer* pk, grid* q) noexcept nogil:
    start_packer(pk, q, pack_grid)
    pk.soon = soon_grid


cdef bint fit_lanes(plane_grid* s, Py_ssize_t budget) noexcept nogil:
    """`fit_band` for rows in lanes, where copying inputs takes less than packing them for each tap.

    That is in any number of bands where each is met OFTEN; or as a whole, the smaller the less
    often and the faster they are packed.  A single tap's inputs may as well be packed.
    """
    cdef const grid* q = &s.q
    cdef Py_ssize_t taps = 1, strides = 1, most = LARGE_BAND_BYTES
    cdef double met = 1, cells = 1
    cdef int i
    if not describe_planes(s):
        return False
    for i in range(3):
        taps *= q.taps[i]
        strides *= min(q.stride[i], q.taps[i])
        met *= q.taps[i] * q.out[i]
        cells *= s.axis[i].extent
    if met >= OFTEN * cells:
        return fit_band(s, min(budget // 2, most))
    if listed(q) or taps < 2 * strides:
        most = BAND_BYTES
    return taps > 1 and s.size * q.leaf.esize <= min(budget // 2, most)


cdef Py_ssize_t correlate_bands(
    str operator, plane_grid* s, packer* pk, const operand* a, const tensor* out, object bias,
    int threads, Py_ssize_t budget, bint measure
) except -1:
    """`correlate` by planes of bands, with as many outputs as `fit_band` has left."""
    cdef plane_grid whole = s[0]
    cdef tensor part = out[0]
    cdef Py_ssize_t taken = a.depth * sizeof(Py_ssize_t), used = 0, band, size = 0
    cdef Workspace offsets = Workspace(taken)
    cdef Workspace tables = None
    cdef cuts cut
    pk.ctx, pk.prepare, pk.fill, pk.direct = &s.q, fill_planes, fill_group, &s.layout
    if s.lanes:
        size = cut_bytes(&s.q, out, a.rows * a.groups, a.depth)
    if 0 < size <= budget // 8:
        tables = Workspace(size)
        taken += size
    for band in range(bands_of(&whole, out)):
        take_band(s, &whole, out, band, &part)
        fill_offsets(s, a.depth, <Py_ssize_t*>offsets.data)
        if tables is not None:
            list_cuts(&s.q, a.depth, tables.data, &cut)
            s.layout.cut = &cut
        pk.sample_bytes = s.size * s.q.leaf.esize
        pk.group_bytes = group_size(s) * s.q.leaf.esize
        used = max(used, taken + implicit_gemm(
            operator, pk, a, &part, bias, s.q.leaf, threads, budget - taken, measure))
        if measure:
            break       # the first is the largest
    return used


cdef Py_ssize_t correlate_lanes(
    str operator, plane_grid* s, packer* pk, const operand* a, const tensor* out, object bias,
    int threads, Py_ssize_t budget, bint measure
) except -1:
    """`correlate` with packed weights whose rows are in lanes."""
    cdef Workspace offsets
    cdef plane_grid bands
    cdef Py_ssize_t taken = a.depth * sizeof(Py_ssize_t), used = 0
    cdef const leaf_table* table = s.q.leaf
    s.lanes = True
    s.layout.patches = False
    s.layout.taps, s.layout.width = s.q.taps[0] * s.q.taps[1] * s.q.taps[2], s.q.taps[2]
    if (0 < a.depth <= MOST_DEPTHS and budget >= LEAST_WORKSPACE
            and taken <= budget // 2):
        offsets = Workspace(taken)
        pk.direct = &s.layout
        if read_input(s, measure):
            input_offsets(s, a.depth, <Py_ssize_t*>offsets.data)
            used = taken + implicit_gemm(
                operator, pk, a, out, bias, table, threads, budget - taken, measure)
            if not measure:
                return used
        bands = s[0]
        if fit_lanes(&bands, budget):
            return max(used, correlate_bands(
                operator, &bands, pk, a, out, bias, threads, budget, measure))
    pk.direct = NULL
    return max(used, implicit_gemm(
        operator, pk, a, out, bias, table, threads, budget, measure))


def pack_weights(weight, int compute, int threads, bint lanes=False):
    """Weights (G, M, C, T0, T1, T2) in the order of a micro-kernel, with rows in lanes or not."""
    cdef operand a
    describe_operand(weight, compute, &a)
    a.lanes = lanes
    return pack_operand(
        &a, leaf_of_lanes(compute, a.rows) if lanes else leaf(compute), threads)


def correlate(
    str operator, x, weight, bias, out, stride, dilation, offset, str mode, int compute,
    int threads, Py_ssize_t budget, PackedWeights packed=None, bint measure=False, bint lanes=False
):
    """Forward, into `out` (N, G*M, O0, O1, O2).  Returns the bytes of workspace.

    x: (N, G*C, S0, S1, S2); weight: (G, M, C, T0, T1, T2), any strides; bias: (G*M,) or None.
    `packed` holds the same weights in kernel order and takes their place.  Others are packed with
    their rows in lanes if `lanes`, where there is room.
    """
    cdef plane_grid s
    cdef grid* q = &s.q
    cdef packer pk
    cdef operand a
    cdef tensor result
    cdef Workspace offsets
    cdef plane_grid bands
    cdef Py_ssize_t taken, used
    cdef double in_place = NEVER, copied = NEVER
    cdef const leaf_table* table = leaf(compute)
    describe_operand(weight, compute, &a)
    if packed is not None:
        packed.take_place_of(&a)
        table = packed.leaf
    describe(out, 5, compute, &result)
    fill_grid(
        x, a.groups, &a.t.shape[3], &result.shape[2], stride, dilation, offset, mode, compute, q)
    q.leaf = table
    merge_axes(q, &result)
    use_grid(&pk, q)
    s.layout.cut = NULL
    if measure:
        lay_out(&q.x, table.esize)
    if packed is None and lanes and a.rows * a.depth > 0 and budget >= LEAST_WORKSPACE:
        a.lanes = True
        q.leaf = leaf_of_lanes(compute, a.rows)
        taken = packing_bytes(&a, q.leaf, threads)
        if taken <= budget // 4:
            a.packed = a.t.data     # any address: sizes are all that is asked for
            if not measure:
                packed = pack_operand(&a, q.leaf, threads)
                packed.take_place_of(&a)
            return taken + correlate_lanes(
                operator, &s, &pk, &a, &result, bias, threads, budget - taken, measure)
        a.lanes = False
        q.leaf = table
    if a.lanes:
        try:
            return correlate_lanes(
                operator, &s, &pk, &a, &result, bias, threads, budget, measure)
        except checks.WorkspaceError:   # nothing is written yet; weights as they are take less
            describe_operand(weight, compute, &a)
            use_grid(&pk, q)
    s.lanes = False
    if q.out[2] % table.nr == 0 and a.depth <= depth_block(a.depth):
        part_rows(q, &result)   # the weights are read once for each line
    taken, used = a.depth * sizeof(Py_ssize_t), 0
    if budget >= LEAST_WORKSPACE and taken <= budget // 2:
        bands = s
        if fit_band(&bands, min(budget // 2, <Py_ssize_t>BAND_BYTES)):
            copied = planes_cost(&bands, a.rows, a.depth)
        if describe_input(&s, a.rows):
            in_place = planes_cost(&s, a.rows, a.depth)
    if in_place < 1 and in_place <= copied:
        offsets = Workspace(taken)
        input_offsets(&s, a.depth, <Py_ssize_t*>offsets.data)
        pk.direct = &s.layout
        used = taken + implicit_gemm(
            operator, &pk, &a, &result, bias, table, threads, budget - taken, measure)
        if not measure:
            return used
        pk.direct = NULL        # an input with other strides is copied
    if copied >= 1:
        return max(used, implicit_gemm(
            operator, &pk, &a, &result, bias, table, threads, budget, measure))
    return max(used, correlate_bands(
        operator, &bands, &pk, &a, &result, bias, threads, budget, measure))


cdef bint single_tap(const tensor* weight, stride, offset, x_shape, out_shape) except -1:
    """Whether each output is made of the inputs of one pixel, its own."""
    cdef int i
    for i in range(3):
        if weight.shape[3 + i] != 1 or stride[i] != 1 or offset[i] != 0:
            return False
    return tuple(x_shape)[2:] == tuple(out_shape)[2:]


def weight_gradient(
    str operator, x, grad, out, stride, dilation, offset, str mode, int compute, int threads,
    Py_ssize_t budget, bint measure=False
):
    """Gradient of the weights into `out` (G, M, C, T0, T1, T2).  Returns bytes of workspace.

    x: (N, G*C, S0, S1, S2); grad: (N, G*M, O0, O1, O2), the gradient of `correlate`'s result.
    """
    cdef grid q
    cdef packer pk
    cdef tensor result, dy, few
    cdef bint turned
    cdef Py_ssize_t pixels
    describe(out, 6, compute, &result)
    describe(grad, 5, compute, &dy)
    # Where each pixel meets its own inputs alone, rows and channels may change places.
    if single_tap(&result, stride, offset, x.shape, grad.shape):
        pixels = dy.shape[2] * dy.shape[3] * dy.shape[4]
        turned = result.shape[1] > result.shape[2]
        if 0 < min(result.shape[1], result.shape[2]) <= FEW_ROWS and pixels >= FEW_ROWS_WORTH:
            describe(x, 5, compute, &few)
            if turned:
                describe(out.swapaxes(1, 2), 6, compute, &result)
                return few_gradient(
                    operator, &few, &dy, &result, compute, threads, budget, measure)
            return few_gradient(operator, &dy, &few, &result, compute, threads, budget, measure)
        # The inputs are transposed then, instead of the gradient and the results; but there are
        # not to be so few that they leave the lanes empty.
        if min(result.shape[1], result.shape[2]) <= FEW_LANES:
            turned = not turned
        else:
            pixels *= dy.shape[0]
            turned = (result.shape[2] * pixels + TURN
                      < result.shape[1] * (pixels + result.shape[2]))
        if turned:
            x, grad, out = grad, x, out.swapaxes(1, 2)
            describe(out, 6, compute, &result)
            describe(grad, 5, compute, &dy)
    fill_grid(
        x, result.shape[0], &result.shape[3], &dy.shape[2], stride, dilation, offset, mode,
        compute, &q)
    q.leaf = leaf_of_lanes(compute, result.shape[1])
    use_grid(&pk, &q)
    return weight_gemm(operator, &pk, &q, &dy, out, compute, threads, budget, measure)
