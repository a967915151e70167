"""The adjoint of a strided convolution, all residue classes of its result in one call.

Output i of an axis with stride s is position q of class r: i = q*s + r.  A class is a dense
convolution with some of the taps (pyconv.geometry.Phase)::

    out[n, g, m, q*s + r] = bias[g, m] + sum over c, j of
        weight[g, m, c, first[r] + j*tap_step] * x[n, g, c, q + j*dilation + offset[r]]

The classes are products with the same inputs: a tile is a box of positions q, whose inputs are
copied once, with their padding, for all classes to read through tables of offsets.  The classes
along the last axis are computed next to each other, and stored as whole rows of the output::

    for each box of positions                       (threads share out the boxes and the units)
        copy its inputs                             L2, L3
        for each unit: a block of rows, a class along axes 0 and 1
            for each stretch of classes along axis 2 that share offset and number of taps
                for each KC depths                  their rows are rows of one product
                    for each panel of nr positions  L1
                        for each mr rows            registers: the micro-kernel
            interleave the classes                  C tile: [class][row][position]

A call without packed weights that has few positions would put them in order for hardly any use.
It is `turned`: the rows of the result are the vectors' lanes, and the inputs of each position, in
blocks of mr, are what is broadcast.  Weights then need no more than a transposition, block by block
of KC depths beside its use, which is shared by all classes with as many taps.

Sums are made as _gemm.pyx makes them, turned or not: a chain for each KC depths, over depths
(channel, tap), and of many blocks every CHAIN_BLOCKS are summed first.
"""

from libc.string cimport memset

from pyconv._kernels._cpu cimport LEAF_WIDE, __builtin_prefetch, leaf, leaf_table
from pyconv._kernels._gemm cimport CHAIN_BLOCKS, depth_block, is_deep, load_bias
from pyconv._kernels._grid cimport inside
from pyconv._kernels._integers cimport ceil_div, odd_lines, round_up
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport describe, tensor

cdef enum:
    UNIT_ROWS = 192                 # of all classes of a unit, about
    RESULT_BYTES = 128 * 1024       # C tile: a quarter of L2
    INPUT_BYTES = 4 * 1024 * 1024   # inputs of a box: they are read from L3, at a row block's pace
    MOST_PIXELS = 512
    MOST_SHIFTS = 64                # of the inputs in panels, see `lay_out`
    FEW_ROWS = 48                   # of all classes: each input is read a few times only
    LINE = 100                      # cost of copying a line, in multiply-adds ...
    ELEMENT = 2                     # ... and each of its elements
    SHORT_LINE = 160                # bytes of a line of the output
    CACHE_SETS_BYTES = 1024         # lines that far apart, or a multiple, would evict each other
    TILE_BYTES = 128 * 1024         # turned: weights, transposed, of some channels and rows ...
    TURNED_BYTES = 512 * 1024       # ... and their results
    MOST_PRODUCTS = 64              # turned: classes
    ROW_BLOCKS = 8                  # turned: of inputs, in a panel
    PACK = 60                       # cost of putting a weight in order, in multiply-adds, ...
    TRANSPOSE = 12                  # ... of transposing it, for each box, ...
    TURN = 12                       # ... and of bringing an input into a row block, for each tap


# ---- classes ------------------------------------------------------------------------------------

cdef struct residue:
    Py_ssize_t taps
    Py_ssize_t first            # tap
    Py_ssize_t offset
    Py_ssize_t before           # taps of the classes before this one


cdef struct split_axis:
    Py_ssize_t size             # of the result
    Py_ssize_t stride
    Py_ssize_t count            # positions, of the class with most
    Py_ssize_t residues         # classes: min(stride, size)
    Py_ssize_t tap_step, dilation
    Py_ssize_t low, span        # position q reads inputs q + low .. q + low + span
    Py_ssize_t least            # taps of a class that has any: so many, or one more
    Py_ssize_t taps             # of all classes
    const residue* at


cdef struct stretch:            # classes along axis 2
    Py_ssize_t first, count
    Py_ssize_t taps, offset
    bint consecutive            # first taps of the classes


cdef class Split:
    """The classes of three axes, from `pyconv.geometry.adjoint_phases` with the empty ones.

    Along the last axis the first `cropped` elements are left out of the result.
    """
    cdef Py_ssize_t cropped
    cdef Workspace store
    cdef split_axis axis[3]
    cdef stretch* stretches
    cdef Py_ssize_t stretch_count

    def __init__(self, sizes, phases, Py_ssize_t cropped):
        cdef Py_ssize_t total = sum([len(each) for each in phases])
        cdef residue* at
        cdef int i
        self.cropped = cropped
        self.store = Workspace(total * sizeof(residue) + len(phases[2]) * sizeof(stretch))
        at = <residue*>self.store.data
        self.stretches = <stretch*>(at + total)
        for i in range(3):
            self._describe_axis(&self.axis[i], at, sizes[i], phases[i])
            at += self.axis[i].residues
        self._join_classes()

    cdef int _describe_axis(
        self, split_axis* axis, residue* at, Py_ssize_t size, phases
    ) except -1:
        cdef Py_ssize_t high = 0, reach, least = 0
        cdef bint found = False
        axis.size, axis.at, axis.residues = size, at, len(phases)
        axis.stride = axis.count = axis.tap_step = axis.dilation = 1
        axis.low = axis.taps = 0
        for phase in phases:
            axis.stride, axis.tap_step, axis.dilation = phase.step, phase.tap_step, phase.dilation
            axis.count = max(axis.count, <Py_ssize_t>phase.count)
            at.taps, at.first, at.offset = phase.taps, phase.tap_start, phase.offset
            at.before = axis.taps
            if at.taps > 0:
                reach = (at.taps - 1) * axis.dilation
                if not found or at.offset + min(reach, 0) < axis.low:
                    axis.low = at.offset + min(reach, 0)
                if not found or at.offset + max(reach, 0) > high:
                    high = at.offset + max(reach, 0)
                least = min(least, at.taps) if found else at.taps
                found = True
            axis.taps += at.taps
            at += 1
        axis.span, axis.least = high - axis.low if found else 0, least
        return 0

    cdef void _join_classes(self) noexcept:
        cdef const split_axis* axis = &self.axis[2]
        cdef stretch* last = self.stretches
        cdef Py_ssize_t r
        for r in range(axis.residues):
            if r > 0 and last.taps == axis.at[r].taps and last.offset == axis.at[r].offset:
                last.consecutive &= axis.at[r].first == axis.at[r - 1].first + 1
                last.count += 1
                continue
            if r > 0:
                last += 1
            last.first, last.count, last.consecutive = r, 1, True
            last.taps, last.offset = axis.at[r].taps, axis.at[r].offset
        self.stretch_count = last + 1 - self.stretches if axis.residues > 0 else 0


cdef struct class_product:      # of a class along all axes, turned
    Py_ssize_t r[3]
    Py_ssize_t taps
    Py_ssize_t inputs           # where its inputs begin, in elements
    Py_ssize_t* weight          # table: from the first channel of a tile, by depth


# ---- the work -----------------------------------------------------------------------------------

cdef struct box:
    Py_ssize_t first[4]         # sample, then position along each axis
    Py_ssize_t length[4]


cdef struct job:
    const leaf_table* leaf
    const split_axis* axis
    const stretch* stretches
    Py_ssize_t stretch_count, cropped
    int compute
    tensor x                    # (N, G*C, S0, S1, S2)
    tensor out                  # (N, G*M, I0, I1, I2)
    tensor weight               # (G, M, C, T0, T1, T2)
    const char* bias            # compute type, or NULL
    Py_ssize_t groups, rows, channels
    Py_ssize_t block            # rows of a unit
    Py_ssize_t blocks           # units of a group: blocks of rows times classes
    const char* packed          # all: [group][block][class 0][class 1][stretch] ...; or NULL
    # boxes
    Py_ssize_t extent[4]        # samples and positions of axes, as all boxes but the last have
    Py_ssize_t tiles[4]
    bint panels                 # how inputs lie, see `lay_out`
    Py_ssize_t pitch[4]         # columns of C between neighbours along each
    Py_ssize_t columns          # of C
    Py_ssize_t ld               # elements between its rows
    Py_ssize_t step[3]          # elements from one input to the next along each axis
    Py_ssize_t channel_step
    Py_ssize_t width            # of a panel, ...
    Py_ssize_t panel_step       # ... and elements from one to the next; planes: one position
    const Py_ssize_t* offset[8]     # tables of depths, by number of taps
    bint in_place               # inputs are read where they are, see `readable_in_place`, ...
    const Py_ssize_t* channel   # ... channels so far apart
    bint turned                 # weights in vectors, see `fit_turned`; units are blocks of rows
    class_product* products     # by number of taps
    Py_ssize_t product_count
    Py_ssize_t tile_ld, tile_channel    # of a tile of weights: [channel][tap][row]
    size_t turned_bytes, tile_bytes, sums_bytes
    size_t part_bytes           # of the next sums where not all blocks are added one after another
    size_t b_bytes, c_bytes, a_bytes, own_bytes, bias_bytes, line_bytes


cdef inline Py_ssize_t rows_of(const job* w, Py_ssize_t block) noexcept nogil:
    return min(w.block, w.rows - block * w.block)


cdef Py_ssize_t row_sets(const job* w, Py_ssize_t rows) noexcept nogil:
    """Elements of packed weights of a unit with `rows` rows, for one tap along axes 0 and 1."""
    cdef Py_ssize_t i, total = 0
    for i in range(w.stretch_count):
        total += round_up(w.stretches[i].count * rows, w.leaf.mr) * w.stretches[i].taps
    return total * w.channels


cdef Py_ssize_t group_elements(const job* w) noexcept nogil:
    cdef Py_ssize_t full = w.rows // w.block, rest = w.rows % w.block
    return (full * row_sets(w, w.block) + row_sets(w, rest)) * w.axis[0].taps * w.axis[1].taps


cdef Py_ssize_t unit_at(
    const job* w, Py_ssize_t g, Py_ssize_t block, Py_ssize_t r0, Py_ssize_t r1
) noexcept nogil:
    """Where the packed weights of a unit begin, in elements."""
    cdef Py_ssize_t taps = w.axis[1].taps
    return (g * group_elements(w) + block * row_sets(w, w.block) * w.axis[0].taps * taps
            + row_sets(w, rows_of(w, block)) * (
                w.axis[0].at[r0].before * taps + w.axis[0].at[r0].taps * w.axis[1].at[r1].before))


cdef Py_ssize_t least_rows(const job* w) noexcept nogil:
    """Rows of the smallest product."""
    cdef Py_ssize_t i, least = w.axis[2].residues * w.block
    for i in range(w.stretch_count):
        least = min(least, w.stretches[i].count * w.block)
    return least


cdef Py_ssize_t most_taps(const split_axis* axis) noexcept nogil:
    cdef Py_ssize_t r, most = 0
    for r in range(axis.residues):
        most = max(most, axis.at[r].taps)
    return most


cdef Py_ssize_t most_depth(const job* w) noexcept nogil:
    """Depths of the largest class."""
    return w.channels * most_taps(&w.axis[0]) * most_taps(&w.axis[1]) * most_taps(&w.axis[2])


# ---- weights ------------------------------------------------------------------------------------

cdef void pack_taps(
    const job* w, const char* src, Py_ssize_t rows, Py_ssize_t row, Py_ssize_t k,
    Py_ssize_t depth, Py_ssize_t padded, char* dst
) noexcept nogil:
    """`rows` weights of depth k to rows `row` ... of [block of KC][row block][depth][mr]."""
    cdef Py_ssize_t mr = w.leaf.mr, es = w.leaf.esize, kc = depth_block(depth)
    cdef Py_ssize_t start = k // kc * kc, lane, count, blocks
    cdef Py_ssize_t each = min(kc, depth - start) * mr      # elements of a row block
    dst += (start * padded + (k - start) * mr) * es
    while rows > 0:
        lane = row % mr
        count, blocks = min(mr - lane, rows), 1
        if count == mr:
            blocks = rows // mr
        w.leaf.load[w.compute](
            dst + (row // mr * each + lane) * es, each, src, mr * es, es, blocks, count)
        count *= blocks
        src += count * es
        row += count
        rows -= count


cdef void pack_unit(
    const job* w, char* own, Py_ssize_t g, Py_ssize_t block, Py_ssize_t r0, Py_ssize_t r1,
    char* dst
) noexcept nogil:
    """The weights of a unit in the order of the micro-kernel, stretch after stretch."""
    cdef const tensor* t = &w.weight
    cdef const residue* y0 = &w.axis[0].at[r0]
    cdef const residue* y1 = &w.axis[1].at[r1]
    cdef const residue* x
    cdef const stretch* s
    cdef Py_ssize_t es = w.leaf.esize, rows = rows_of(w, block), along = t.shape[5]
    cdef Py_ssize_t c, i, r, j, j0, j1, taps, together, depth, padded, line = along * rows * es
    cdef const char* src
    cdef char* at = dst
    if y0.taps * y1.taps == 0:
        return
    for i in range(w.stretch_count):    # rows that fill up a row block
        s = &w.stretches[i]
        padded = round_up(s.count * rows, w.leaf.mr) * w.channels * y0.taps * y1.taps * s.taps
        if s.count * rows % w.leaf.mr:
            memset(at, 0, padded * es)
        at += padded * es
    for c in range(w.channels):
        src = (t.data + g * t.stride[0] + block * w.block * t.stride[1] + c * t.stride[2]
               + y0.first * t.stride[3] + y1.first * t.stride[4])
        for j0 in range(y0.taps):
            for j1 in range(y1.taps):
                w.leaf.load[t.storage](     # [tap][row]
                    own + (j0 * y1.taps + j1) * line, rows,
                    src + j0 * w.axis[0].tap_step * t.stride[3]
                    + j1 * w.axis[1].tap_step * t.stride[4], t.stride[5], t.stride[1], along, rows)
        at = dst
        for i in range(w.stretch_count):
            s = &w.stretches[i]
            taps = y0.taps * y1.taps * s.taps
            depth, padded = w.channels * taps, round_up(s.count * rows, w.leaf.mr)
            together = s.count if s.consecutive else 1
            r = 0
            while r < s.count:
                x = &w.axis[2].at[s.first + r]
                for j in range(taps):
                    pack_taps(
                        w, own + j // s.taps * line
                        + (x.first + j % s.taps * w.axis[2].tap_step) * rows * es,
                        together * rows, r * rows, c * taps + j, depth, padded, at)
                r += together
            at += depth * padded * es


cdef struct pack_job:
    const job* work
    char* dst


cdef void pack_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are the units of all groups."""
    cdef const job* w = (<const pack_job*>ctx).work
    cdef Py_ssize_t task, g, block, r0, r1
    for task in range(first, last):
        r1 = task % w.axis[1].residues
        r0 = task // w.axis[1].residues % w.axis[0].residues
        block = task // w.axis[1].residues // w.axis[0].residues
        g, block = block // w.blocks, block % w.blocks
        pack_unit(w, scratch, g, block, r0, r1, (<const pack_job*>ctx).dst
                  + unit_at(w, g, block, r0, r1) * w.leaf.esize)


cdef size_t pack_scratch(const job* w) noexcept nogil:
    return aligned(most_taps(&w.axis[0]) * most_taps(&w.axis[1]) * w.weight.shape[5] * w.block
                   * w.leaf.esize)


cdef Workspace pack_all(const job* w, int threads):
    cdef pack_job pack
    cdef Workspace store = Workspace(w.groups * group_elements(w) * w.leaf.esize)
    pack.work, pack.dst = w, store.data
    run(pack_task, &pack, w.groups * w.blocks * w.axis[0].residues * w.axis[1].residues,
        useful_threads(threads, 16.0 * w.groups * group_elements(w)), pack_scratch(w))
    return store


cdef class PackedPhases:
    """Weights of all classes in micro-kernel order; made by a plan, used by every call of it."""
    cdef Workspace store
    cdef const leaf_table* leaf

    @property
    def nbytes(self):
        return self.store.nbytes


cdef int use_weights(job* w, weight, Split split, int compute, const leaf_table* table) except -1:
    """What depends on the weights and the split: the units."""
    cdef Py_ssize_t least
    describe(weight, 6, compute, &w.weight)
    w.leaf, w.compute = table, compute
    w.axis, w.stretches, w.stretch_count = split.axis, split.stretches, split.stretch_count
    w.cropped = split.cropped
    w.groups, w.rows, w.channels = w.weight.shape[0], w.weight.shape[1], w.weight.shape[2]
    w.packed, w.turned = NULL, False
    # Even blocks, of whole row blocks where they are that large.
    least = max(<Py_ssize_t>1, UNIT_ROWS // max(<Py_ssize_t>1, w.axis[2].residues))
    w.block = max(<Py_ssize_t>1, ceil_div(w.rows, max(<Py_ssize_t>1, ceil_div(w.rows, least))))
    if w.rows > least and w.block > table.mr:
        w.block = round_up(w.block, table.mr)
    w.blocks = ceil_div(w.rows, w.block)
    return 0


# ---- inputs -------------------------------------------------------------------------------------

cdef void fill_planes(const job* w, const box* b, Py_ssize_t g, char* dst) noexcept nogil:
    """[channel][sample][line][line][position], padding and all; positions run on over line ends."""
    cdef const tensor* x = &w.x
    cdef Py_ssize_t es = w.leaf.esize, n, e0, e1, c, top, bottom, left, right
    cdef Py_ssize_t first0 = b.first[1] + w.axis[0].low, first1 = b.first[2] + w.axis[1].low
    cdef Py_ssize_t first2 = b.first[3] + w.axis[2].low, front, back
    cdef bint by_lines
    cdef const char* src
    cdef char* at
    inside(first1, 1, b.length[2] + w.axis[1].span, x.shape[3], &top, &bottom)
    inside(first2, 1, b.length[3] + w.axis[2].span, x.shape[4], &left, &right)
    inside(first0, 1, b.length[1] + w.axis[0].span, x.shape[2], &front, &back)
    if not (front == 0 and back == w.extent[1] + w.axis[0].span
            and top == 0 and bottom == w.extent[2] + w.axis[1].span
            and left == 0 and right == w.extent[3] + w.axis[2].span):
        memset(dst, 0, w.b_bytes)
    else:       # read past the last position, and dropped
        memset(dst + w.channels * w.channel_step * es, 0,
               w.b_bytes - w.channels * w.channel_step * es)
    if bottom <= top or right <= left:
        return
    # All channels of a line at a time, where that is no walk through memory by large steps.
    by_lines = x.stride[1] < x.stride[4] or bottom - top == 1 or (
        x.stride[1] < CACHE_SETS_BYTES and bottom - top < w.channels)
    for n in range(b.length[0]):
        for e0 in range(front, back):
            src = (x.data + (b.first[0] + n) * x.stride[0] + g * w.channels * x.stride[1]
                   + (first0 + e0) * x.stride[2] + (first1 + top) * x.stride[3]
                   + (first2 + left) * x.stride[4])
            at = dst + (n * w.pitch[0] + e0 * w.step[0] + top * w.step[1] + left) * es
            if by_lines:
                for e1 in range(bottom - top):
                    w.leaf.load[x.storage](
                        at + e1 * w.step[1] * es, w.channel_step, src + e1 * x.stride[3],
                        x.stride[1], x.stride[4], w.channels, right - left)
            else:
                for c in range(w.channels):
                    w.leaf.load[x.storage](
                        at + c * w.channel_step * es, w.step[1], src + c * x.stride[1],
                        x.stride[3], x.stride[4], bottom - top, right - left)


cdef bint readable_in_place(const job* w) noexcept nogil:
    """Whether positions read one input each, which lie as boxes without padding would.

    And, where they are read again and again, not all in the same few cache sets.
    """
    cdef const tensor* x = &w.x
    cdef Py_ssize_t i, pitch = w.leaf.esize
    cdef Py_ssize_t rows = w.rows * w.axis[0].residues * w.axis[1].residues * w.axis[2].residues
    if w.panels or w.extent[0] > 1 or not x.in_place or w.channels == 0:
        return False
    for i in range(2, -1, -1):
        if (w.axis[i].span > 0 or w.axis[i].low != 0 or w.axis[i].taps == 0
                or w.axis[i].count != x.shape[2 + i]
                or (x.shape[2 + i] > 1 and x.stride[2 + i] != pitch)):
            return False
        pitch *= x.shape[2 + i]
    # Past the end of a plane there is another one, or what lies before it.
    if (pitch < w.leaf.nr * w.leaf.esize or (x.shape[1] > 1 and x.stride[1] < pitch)
            or (x.shape[0] > 1 and x.stride[0] < pitch)):
        return False
    return rows < FEW_ROWS or x.stride[1] % CACHE_SETS_BYTES != 0


cdef const char* inputs_in_place(const job* w, const box* b, Py_ssize_t g) noexcept nogil:
    """The first input of a box; NULL where whole panels would read past the end of the array."""
    cdef const tensor* x = &w.x
    cdef Py_ssize_t i, columns = 1, at = 0, size = x.shape[2] * x.shape[3] * x.shape[4]
    for i in range(1, 4):
        columns += (b.length[i] - 1) * w.pitch[i]
        at = at * x.shape[1 + i] + b.first[i]
    if (at + round_up(columns, w.leaf.nr) > size and b.first[0] == x.shape[0] - 1
            and g == w.groups - 1):
        return NULL
    return (x.data + b.first[0] * x.stride[0] + g * w.channels * x.stride[1]
            + at * w.leaf.esize)


cdef void fill_panels(const job* w, const box* b, Py_ssize_t g, char* dst) noexcept nogil:
    """[panel][shift][channel][position]: a copy for each input that a position looks at."""
    cdef const tensor* x = &w.x
    cdef Py_ssize_t es = w.leaf.esize, width = w.width, n, q0, q1, q2, d0, d1, d2, i0, i1
    cdef Py_ssize_t i2, count, column, lo, hi, at = 0
    cdef const char* src
    cdef char* to
    memset(dst, 0, w.b_bytes)
    for n in range(b.length[0]):
        for q0 in range(b.length[1]):
            for q1 in range(b.length[2]):
                q2 = 0
                while q2 < b.length[3]:
                    column = at % width
                    count = min(width - column, b.length[3] - q2)
                    for d0 in range(w.axis[0].span + 1):
                        i0 = b.first[1] + q0 + w.axis[0].low + d0
                        if not 0 <= i0 < x.shape[2]:
                            continue
                        for d1 in range(w.axis[1].span + 1):
                            i1 = b.first[2] + q1 + w.axis[1].low + d1
                            if not 0 <= i1 < x.shape[3]:
                                continue
                            src = (x.data + (b.first[0] + n) * x.stride[0]
                                   + g * w.channels * x.stride[1] + i0 * x.stride[2]
                                   + i1 * x.stride[3])
                            to = dst + (at // width * w.panel_step + d0 * w.step[0]
                                        + d1 * w.step[1] + column) * es
                            for d2 in range(w.axis[2].span + 1):
                                i2 = b.first[3] + q2 + w.axis[2].low + d2
                                inside(i2, 1, count, x.shape[4], &lo, &hi)
                                if hi > lo:
                                    w.leaf.load[x.storage](
                                        to + (d2 * w.step[2] + lo) * es, w.channel_step,
                                        src + (i2 + lo) * x.stride[4], x.stride[1], x.stride[4],
                                        w.channels, hi - lo)
                    at += count
                    q2 += count


cdef size_t fill_offsets(job* w, Py_ssize_t* store) noexcept nogil:
    """Tables of channels and of depths (channel, tap), for each number of taps; their bytes.

    With NULL for `store` only these.
    """
    cdef Py_ssize_t most[3]
    cdef Py_ssize_t step[3]
    cdef Py_ssize_t t0, t1, t2, c, j0, j1, j2, at = 0
    cdef int i, which
    if store != NULL:
        w.channel = store
        for c in range(w.channels):
            store[c] = c * (w.x.stride[1] // w.leaf.esize)
    at = w.channels
    for i in range(3):
        most[i] = most_taps(&w.axis[i])
        step[i] = w.axis[i].dilation * w.step[i]
    for which in range(8):
        t0 = w.axis[0].least + (which >> 2)
        t1 = w.axis[1].least + (which >> 1 & 1)
        t2 = w.axis[2].least + (which & 1)
        if t0 > most[0] or t1 > most[1] or t2 > most[2]:
            continue
        if store == NULL:
            at += w.channels * t0 * t1 * t2
            continue
        w.offset[which] = store + at
        for c in range(w.channels):
            for j0 in range(t0):
                for j1 in range(t1):
                    for j2 in range(t2):
                        store[at] = (c * w.channel_step + j0 * step[0] + j1 * step[1]
                                     + j2 * step[2])
                        at += 1
    return at * sizeof(Py_ssize_t)


# ---- boxes --------------------------------------------------------------------------------------

cdef void cut(job* w, Py_ssize_t most, bint panels) noexcept nogil:
    """Even boxes of at most so many positions, if more than one: whole lines before several."""
    cdef Py_ssize_t inner = 1, count, fit
    cdef int i
    for i in range(3, -1, -1):
        count = w.out.shape[0] if i == 0 else w.axis[i - 1].count
        fit = max(<Py_ssize_t>1, most // inner)
        w.extent[i] = ceil_div(count, ceil_div(count, fit))
        if i == 3 and count > fit:
            w.extent[i] = round_up(w.extent[i], w.leaf.nr)
        w.tiles[i] = ceil_div(count, w.extent[i])
        if w.tiles[i] > 1:
            most = 0
        inner *= w.extent[i] + (0 if panels or i == 0 else w.axis[i - 1].span)


cdef double lay_out(job* w, Py_ssize_t most, bint panels) noexcept nogil:
    """Choose boxes, how their inputs lie, and what follows; returns the cost of a group.

    Planes hold each input once, but positions after each line are computed and dropped; panels
    hold an input for each shift at which it is read.  The cost is in multiply-adds.
    """
    cdef Py_ssize_t nr = w.leaf.nr, es = w.leaf.esize, size = 1, copies, length, used
    cdef int i
    cut(w, most, panels)
    w.panels = panels
    if panels:
        for i in range(3, -1, -1):
            w.pitch[i] = size
            size *= w.extent[i]
        used = size
        w.columns = round_up(size, nr)
        w.width = LEAF_WIDE(least_rows(w), w.leaf.mr) * nr
        if w.turned:    # whole row blocks
            w.width = round_up(min(size, ROW_BLOCKS * w.leaf.mr), w.leaf.mr)
        w.channel_step = w.width
        w.step[2] = odd_lines(w.channels * w.width, es)
        w.step[1] = (w.axis[2].span + 1) * w.step[2]
        w.step[0] = (w.axis[1].span + 1) * w.step[1]
        w.panel_step = (w.axis[0].span + 1) * w.step[0]
        w.b_bytes = aligned(ceil_div(w.columns, w.width) * w.panel_step * es)
        length = min(w.width, w.extent[3])
        copies = ceil_div(size, length) * (w.panel_step // w.step[2])
    else:
        for i in range(3, 0, -1):
            w.pitch[i] = w.step[i - 1] = size
            size *= w.extent[i] + w.axis[i - 1].span
        w.pitch[0] = size
        w.columns = 1
        for i in range(4):
            w.columns += (w.extent[i] - 1) * w.pitch[i]
        used = w.columns
        w.columns = round_up(w.columns, nr)
        w.channel_step = odd_lines(w.extent[0] * size, es)
        w.width = w.panel_step = 1
        w.b_bytes = aligned((w.channels * w.channel_step + 2 * nr) * es)
        length = w.extent[3] + w.axis[2].span
        copies = w.extent[0] * size // length
    w.ld = odd_lines(w.columns, es)
    return (<double>w.tiles[0] * w.tiles[1] * w.tiles[2] * w.tiles[3]
            * (<double>round_up(used, nr // 2) * group_elements(w)
               + <double>w.channels * copies * (LINE + ELEMENT * length)))


cdef size_t line_scratch(job* w) noexcept nogil:
    if not w.out.in_place:
        w.line_bytes = aligned(w.axis[2].residues * w.block * w.extent[3] * w.leaf.esize)
    return w.line_bytes


cdef Py_ssize_t scratch_of(job* w) noexcept nogil:
    """Bytes that a thread needs."""
    cdef Py_ssize_t es = w.leaf.esize, rows = w.axis[2].residues * w.block
    w.c_bytes = aligned((rows * w.ld + w.leaf.nr) * es)
    w.bias_bytes = aligned(rows * es)
    w.own_bytes = w.a_bytes = w.line_bytes = w.part_bytes = 0
    if w.turned:
        return w.b_bytes + w.c_bytes + w.bias_bytes + turned_scratch(w) + line_scratch(w) + 128
    if is_deep(most_depth(w)):
        w.part_bytes = w.c_bytes
    if w.packed == NULL:
        w.own_bytes = pack_scratch(w)
        w.a_bytes = aligned(row_sets(w, w.block) * most_taps(&w.axis[0]) * most_taps(&w.axis[1])
                            * es)
    line_scratch(w)
    return (w.b_bytes + w.c_bytes + w.part_bytes + w.bias_bytes + w.own_bytes + w.a_bytes
            + w.line_bytes + 128)


cdef Py_ssize_t units_of(const job* w) noexcept nogil:
    if w.turned:
        return w.blocks
    return w.blocks * w.axis[0].residues * w.axis[1].residues


cdef Py_ssize_t boxes_of(const job* w) noexcept nogil:
    return w.tiles[0] * w.tiles[1] * w.tiles[2] * w.tiles[3]


cdef bint fit(job* w, int* threads, Py_ssize_t budget) noexcept nogil:
    """Choose boxes within the workspace, and fewer threads if need be; False if none fit."""
    cdef Py_ssize_t nr = w.leaf.nr, es = w.leaf.esize, most, shifts = 1
    cdef Py_ssize_t rows = max(<Py_ssize_t>1, w.axis[2].residues * w.block)
    cdef double planes
    cdef int i
    for i in range(3):
        shifts = min(shifts * (w.axis[i].span + 1), <Py_ssize_t>MOST_SHIFTS + 1)
    most = min(<Py_ssize_t>MOST_PIXELS, RESULT_BYTES // (rows * es))
    most = min(most, INPUT_BYTES // (max(<Py_ssize_t>1, w.channels) * es))
    most = max(most, 4 * nr)
    while True:
        planes = lay_out(w, most, False)
        if 1 < shifts <= MOST_SHIFTS and lay_out(w, most, True) >= planes:
            lay_out(w, most, False)
        # enough to go round
        if (most > 4 * nr and threads[0] > 1
                and w.groups * boxes_of(w) * units_of(w) < 4 * threads[0]):
            most = round_up(most // 2, nr)
            continue
        if scratch_of(w) * threads[0] <= budget:
            return True
        if most > nr:
            most = round_up(most // 2, nr)
        elif threads[0] > 1:
            threads[0] -= 1
        else:
            return False


# ---- a unit -------------------------------------------------------------------------------------

cdef void add_up(
    const job* w, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t ld, const char* part, char* sums
) noexcept nogil:
    """Add a part to the sums: rows of both are `ld` elements apart."""
    cdef Py_ssize_t i, step = ld * w.leaf.esize
    for i in range(rows):
        w.leaf.add_strided(columns, part + i * step, sums + i * step, 1)


cdef void multiply(
    const job* w, const char* a, const char* b, const Py_ssize_t* offset, Py_ssize_t depth,
    Py_ssize_t rows, Py_ssize_t columns, const char* bias, char* sums, char* part
) noexcept nogil:
    """C tile of a stretch: `rows` packed rows by the inputs of the box."""
    cdef Py_ssize_t es = w.leaf.esize, kc = depth_block(depth), padded = round_up(rows, w.leaf.mr)
    cdef Py_ssize_t count, j, n, k = 0, block = 0
    cdef bint deep = is_deep(depth)
    cdef const char* at
    cdef char* c = sums
    while True:             # at least once: without inputs the result is the bias
        count = min(kc, depth - k)
        j = 0
        while j < columns:
            n = min(w.width, columns - j) if w.panels else columns
            at = b + j // w.width * w.panel_step * es if w.panels else b
            w.leaf.gemm_at(
                rows, n, count, a + k * padded * es, 0, at, offset + k, c + j * es, w.ld,
                bias if k == 0 else NULL, block > 0)
            j += n
        k += kc
        block += 1
        if deep and (block == CHAIN_BLOCKS or k >= depth):
            if c == part:
                add_up(w, rows, columns, w.ld, part, sums)
            c, block = part, 0
        if k >= depth:
            return


cdef void store_lines(
    const job* w, char* dst, const char* src, Py_ssize_t lines, Py_ssize_t dst_rs,
    Py_ssize_t src_rs, Py_ssize_t step, Py_ssize_t q, Py_ssize_t count, char* line
) noexcept nogil:
    """Positions q .. q+count-1 of all classes along axis 2 to lines of the output, from `dst` on.

    Lines of the output are `dst_rs` bytes apart; those of a class `src_rs` elements, and classes
    `step`.
    """
    cdef const tensor* out = &w.out
    cdef const split_axis* axis = &w.axis[2]
    cdef Py_ssize_t es = w.leaf.esize, s = axis.stride, classes = axis.residues
    cdef Py_ssize_t whole, rest, skip, ld, at, r
    cdef char* to
    # The last position may be there for the first classes alone, ...
    whole = min(count, max(axis.size // s - q, <Py_ssize_t>0))
    rest = axis.size - (q + whole) * s if whole < count else 0
    # ... the first one for the last alone.
    skip = w.cropped if q == 0 else 0
    dst += (q * s - w.cropped) * out.stride[4]
    if s == 1 or (out.in_place and out.stride[4] != es) or (
            not out.in_place and not -8 <= out.stride[4] <= 8):
        for r in range(classes):
            at = 1 if r < skip else 0
            w.leaf.store[out.storage](
                dst + (at * s + r) * out.stride[4], dst_rs, s * out.stride[4],
                src + (r * step + at) * es, src_rs, lines, whole + (r < rest) - at)
        return
    to, ld = dst, dst_rs // es
    if not out.in_place:
        to, ld = line, whole * s + rest
    if skip > 0:
        w.leaf.interleave(
            lines, 1, s - skip, 0, src + skip * step * es, src_rs, step, to + skip * es, ld)
        src += es
        to += s * es
        whole -= 1
    w.leaf.interleave(lines, whole, s, rest, src, src_rs, step, to, ld)
    if not out.in_place:
        w.leaf.store[out.storage](
            dst + skip * out.stride[4], dst_rs, out.stride[4], line + skip * es, ld, lines,
            ld - skip)


cdef void store_unit(
    const job* w, const box* b, const char* c, Py_ssize_t m, Py_ssize_t rows, Py_ssize_t r0,
    Py_ssize_t r1, char* line
) noexcept nogil:
    """The C tile of a unit, channels m ..., to its place.

    Short lines channel by channel, in the order of the output; long ones as they were made.
    """
    cdef const split_axis* axis = w.axis
    cdef const tensor* out = &w.out
    cdef Py_ssize_t es = w.leaf.esize, step = rows * w.ld, n, q0, q1, i0, i1, i, lines
    cdef char* dst
    cdef const char* src
    i1 = b.first[2] * axis[1].stride + r1
    lines = min(b.length[2], ceil_div(axis[1].size - i1, axis[1].stride))
    for n in range(b.length[0]):
        for q0 in range(b.length[1]):
            i0 = (b.first[1] + q0) * axis[0].stride + r0
            if i0 >= axis[0].size:
                break
            dst = (out.data + (b.first[0] + n) * out.stride[0] + m * out.stride[1]
                   + i0 * out.stride[2] + i1 * out.stride[3])
            src = c + (n * w.pitch[0] + q0 * w.pitch[1]) * es
            if lines > 1 and out.in_place and out.shape[4] * es <= SHORT_LINE:
                for i in range(rows):
                    store_lines(
                        w, dst + i * out.stride[1], src + i * w.ld * es, lines,
                        axis[1].stride * out.stride[3], w.pitch[2], step, b.first[3], b.length[3],
                        line)
                continue
            for q1 in range(lines):     # there is room for one of each channel
                store_lines(
                    w, dst + q1 * axis[1].stride * out.stride[3], src + q1 * w.pitch[2] * es,
                    rows, out.stride[1], w.ld, step, b.first[3], b.length[3], line)


cdef Py_ssize_t columns_of(const job* w, const box* b) noexcept nogil:
    """From the first position of a box to its last."""
    cdef Py_ssize_t columns = 1
    cdef int i
    for i in range(4):
        columns += (b.length[i] - 1) * w.pitch[i]
    return columns


cdef void do_unit(
    const job* w, char* scratch, const box* b, const char* inputs, Py_ssize_t g,
    Py_ssize_t block, Py_ssize_t r0, Py_ssize_t r1
) noexcept nogil:
    """A block of rows and a class along axes 0 and 1, for a box of `inputs`, in scratch or not."""
    cdef const split_axis* axis = w.axis
    cdef const residue* y0 = &axis[0].at[r0]
    cdef const residue* y1 = &axis[1].at[r1]
    cdef const stretch* s
    cdef const Py_ssize_t* offset
    cdef Py_ssize_t es = w.leaf.esize, rows = rows_of(w, block), m = g * w.rows + block * w.block
    cdef Py_ssize_t i, depth, at, columns = columns_of(w, b), n
    cdef char* a = scratch + w.b_bytes
    cdef char* c = a + w.a_bytes
    cdef char* part = c + w.c_bytes
    cdef char* bias = part + w.part_bytes
    cdef char* own = bias + w.bias_bytes
    cdef char* line = own + w.own_bytes
    cdef const char* weights = a
    if w.packed != NULL:
        weights = w.packed + unit_at(w, g, block, r0, r1) * es
    else:
        pack_unit(w, own, g, block, r0, r1, a)
    if w.bias != NULL:
        w.leaf.load[w.compute](
            bias, rows, w.bias + m * es, 0, es, axis[2].residues, rows)
    at = 0
    for i in range(w.stretch_count):
        s = &w.stretches[i]
        depth = w.channels * y0.taps * y1.taps * s.taps
        n = 0               # where the first tap of position 0 reads
        offset = NULL
        if depth > 0:
            n = ((y0.offset - axis[0].low) * w.step[0] + (y1.offset - axis[1].low) * w.step[1]
                 + (s.offset - axis[2].low) * w.step[2])
            offset = w.offset[(y0.taps - axis[0].least) * 4 + (y1.taps - axis[1].least) * 2
                              + s.taps - axis[2].least]
            if inputs != scratch:
                n, offset = 0, w.channel
        multiply(
            w, weights, inputs + n * es, offset, depth, s.count * rows,
            round_up(columns, w.leaf.nr // 2), bias + at * es if w.bias != NULL else NULL,
            c + at * w.ld * es, part)
        weights += depth * round_up(s.count * rows, w.leaf.mr) * es
        at += s.count * rows
    store_unit(w, b, c, m, rows, r0, r1, line)


# ---- turned -------------------------------------------------------------------------------------

cdef Py_ssize_t list_products(job* w, class_product* at, Py_ssize_t* table) noexcept nogil:
    """The classes, those with fewer taps first, and tables of their weights in a tile.

    Returns the elements of all tables; with NULL for `at` only that.
    """
    cdef Py_ssize_t most = most_taps(&w.axis[0]) * most_taps(&w.axis[1]) * most_taps(&w.axis[2])
    cdef Py_ssize_t taps, r0, r1, r2, j, k, entries, t0, t1, t2, inputs = 0, total = 0
    cdef const residue* y0
    cdef const residue* y1
    cdef const residue* y2
    for taps in range(most + 1):
        for r0 in range(w.axis[0].residues):
            y0 = &w.axis[0].at[r0]
            for r1 in range(w.axis[1].residues):
                y1 = &w.axis[1].at[r1]
                for r2 in range(w.axis[2].residues):
                    y2 = &w.axis[2].at[r2]
                    if y0.taps * y1.taps * y2.taps != taps:
                        continue
                    # a block of KC begins at any tap
                    entries = depth_block(w.channels * taps) + taps if taps > 0 else 0
                    if at != NULL:
                        at.r[0], at.r[1], at.r[2] = r0, r1, r2
                        at.taps, at.inputs, at.weight = taps, inputs, table
                        for k in range(entries):
                            j = k % taps
                            t0 = y0.first + j // y2.taps // y1.taps * w.axis[0].tap_step
                            t1 = y1.first + j // y2.taps % y1.taps * w.axis[1].tap_step
                            t2 = y2.first + j % y2.taps * w.axis[2].tap_step
                            t0 = (t0 * w.weight.shape[4] + t1) * w.weight.shape[5] + t2
                            table[k] = k // taps * w.tile_channel + t0 * w.tile_ld
                        table += entries
                        inputs += w.channels * taps * turned_positions(w)
                        at += 1
                    total += entries
    return total


cdef inline Py_ssize_t turned_positions(const job* w) noexcept nogil:
    """Of a box, in whole row blocks."""
    return ceil_div(w.columns, w.width) * w.width


cdef Py_ssize_t tile_channels(const job* w) noexcept nogil:
    """Channels that a block of KC depths reaches into, at most."""
    cdef Py_ssize_t most = most_taps(&w.axis[0]) * most_taps(&w.axis[1]) * most_taps(&w.axis[2])
    cdef Py_ssize_t taps, channels = 1
    for taps in range(1, most + 1):     # more than there are, maybe
        channels = max(channels, ceil_div(depth_block(w.channels * taps), taps) + 1)
    return min(channels, w.channels)


cdef size_t turned_scratch(job* w) noexcept nogil:
    cdef Py_ssize_t es = w.leaf.esize
    w.turned_bytes = aligned(
        turned_positions(w) * w.channels * w.axis[0].taps * w.axis[1].taps * w.axis[2].taps * es)
    w.tile_bytes = aligned((tile_channels(w) * w.tile_channel + w.leaf.nr) * es)
    w.sums_bytes = aligned(w.product_count * w.columns * w.tile_ld * es)
    w.part_bytes = w.sums_bytes if is_deep(most_depth(w)) else 0
    return w.turned_bytes + w.tile_bytes + w.sums_bytes + w.part_bytes


cdef Py_ssize_t turned_tables(job* w) noexcept nogil:
    """Bytes of what `list_products` makes."""
    if w.axis[0].residues * w.axis[1].residues * w.axis[2].residues > MOST_PRODUCTS:
        return 0        # never made
    return (w.axis[0].residues * w.axis[1].residues * w.axis[2].residues * sizeof(class_product)
            + list_products(w, NULL, NULL) * sizeof(Py_ssize_t))


cdef bint fit_turned(job* w, int threads, Py_ssize_t budget) noexcept nogil:
    """Choose blocks of rows and boxes, where weights are not worth packing."""
    cdef Py_ssize_t nr = w.leaf.nr, es = w.leaf.esize, taps, channels, most
    cdef Py_ssize_t all_taps = w.weight.shape[3] * w.weight.shape[4] * w.weight.shape[5]
    cdef Py_ssize_t block = w.block, blocks = w.blocks
    cdef double positions = w.out.shape[0]
    cdef int i
    for i in range(3):
        positions *= w.axis[i].count
    w.product_count = w.axis[0].residues * w.axis[1].residues * w.axis[2].residues
    if (w.rows < nr or w.channels == 0 or w.product_count > MOST_PRODUCTS
            or TRANSPOSE * w.rows + TURN * positions >= PACK * w.rows):
        return False
    # even blocks of rows
    channels = tile_channels(w)
    most = TILE_BYTES // (channels * all_taps * es) // nr * nr
    if most == 0:
        return False
    w.blocks = max(ceil_div(w.rows, most), min(<Py_ssize_t>threads, w.rows // nr))
    w.block = round_up(ceil_div(w.rows, w.blocks), nr)
    w.blocks = ceil_div(w.rows, w.block)
    w.tile_ld = odd_lines(w.block, es)
    w.tile_channel = odd_lines(all_taps * w.tile_ld, es)
    w.turned = True
    most = min(<Py_ssize_t>MOST_PIXELS, TURNED_BYTES // (w.product_count * w.tile_ld * es))
    taps = max(<Py_ssize_t>1, w.axis[0].taps * w.axis[1].taps * w.axis[2].taps)
    most = min(most, INPUT_BYTES // (w.channels * taps * es))
    if most >= w.leaf.mr:
        lay_out(w, most, True)
        if (TRANSPOSE * w.rows * boxes_of(w) + TURN * positions < PACK * w.rows
                and scratch_of(w) * threads <= budget):
            return True
    w.turned, w.block, w.blocks = False, block, blocks
    return False


cdef void turn_inputs(const job* w, const box* b, const char* panels, char* dst) noexcept nogil:
    """Inputs of all classes, [class][block of KC][row block][depth][mr], from panels."""
    cdef Py_ssize_t mr = w.leaf.mr, es = w.leaf.esize, columns = columns_of(w, b), q, j, k0, k1
    cdef Py_ssize_t kc, depth, block, c, count, at
    cdef const class_product* p
    cdef const residue* y0
    cdef const residue* y1
    cdef const residue* y2
    cdef char* to
    for q in range(w.product_count):
        p = &w.products[q]
        y0, y1, y2 = &w.axis[0].at[p.r[0]], &w.axis[1].at[p.r[1]], &w.axis[2].at[p.r[2]]
        depth = w.channels * p.taps
        kc = depth_block(depth)
        for j in range(p.taps):
            at = ((y0.offset - w.axis[0].low + j // y2.taps // y1.taps * w.axis[0].dilation)
                  * w.step[0]
                  + (y1.offset - w.axis[1].low + j // y2.taps % y1.taps * w.axis[1].dilation)
                  * w.step[1]
                  + (y2.offset - w.axis[2].low + j % y2.taps * w.axis[2].dilation) * w.step[2])
            k0 = 0
            while k0 < depth:
                k1 = min(k0 + kc, depth)
                c = k0 // p.taps + (j < k0 % p.taps)
                count = k1 // p.taps + (j < k1 % p.taps) - c
                to = dst + (p.inputs + k0 * turned_positions(w)
                            + (c * p.taps + j - k0) * mr) * es
                block = 0
                while count > 0 and block < columns:
                    w.leaf.load[w.compute](
                        to + block * (k1 - k0) * es, p.taps * mr,
                        panels + (block // w.width * w.panel_step + block % w.width + at
                                  + c * w.channel_step) * es,
                        w.channel_step * es, es, count, min(mr, columns - block))
                    block += mr
                k0 = k1


cdef void transpose_weights(
    const job* w, Py_ssize_t g, Py_ssize_t m, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t last,
    char* tile
) noexcept nogil:
    """Channels first .. last-1 of rows m ... as [channel][tap][row]: each is read once."""
    cdef const tensor* t = &w.weight
    cdef Py_ssize_t es = w.leaf.esize, c, t0, t1, along = t.shape[5], lines = t.shape[4]
    cdef Py_ssize_t planes = t.shape[3]
    cdef const char* src
    if lines == 1 or t.stride[4] == along * t.stride[5]:
        along, lines = along * lines, 1
        if planes == 1 or t.stride[3] == along * t.stride[5]:
            along, planes = along * planes, 1
    for c in range(first, last):
        src = t.data + g * t.stride[0] + m * t.stride[1] + c * t.stride[2]
        for t0 in range(planes):
            for t1 in range(lines):
                w.leaf.load[t.storage](
                    tile + ((c - first) * w.tile_channel + (t0 * lines + t1) * along * w.tile_ld)
                    * es, w.tile_ld, src + t0 * t.stride[3] + t1 * t.stride[4], t.stride[5],
                    t.stride[1], along, rows)


cdef void fetch_weights(
    const job* w, Py_ssize_t g, Py_ssize_t m, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    """A part of what `transpose_weights` reads next, on its way from memory.

    A channel's rows are too short for the hardware to see what comes.
    """
    cdef const tensor* t = &w.weight
    cdef Py_ssize_t each = ceil_div(rows * t.stride[1], 64), i, end = (last - first) * each
    cdef const char* src = t.data + g * t.stride[0] + m * t.stride[1]
    if t.stride[1] <= 0 or t.stride[1] > t.shape[3] * t.shape[4] * t.shape[5] * w.leaf.esize:
        return      # not next to each other
    for i in range(end * part // parts, end * (part + 1) // parts):
        __builtin_prefetch(src + (first + i // each) * t.stride[2] + i % each * 64, 0, 2)


cdef void do_rows(
    const job* w, char* scratch, const box* b, Py_ssize_t g, Py_ssize_t block
) noexcept nogil:
    """A block of rows of all classes, for a box whose inputs are in scratch, turned."""
    cdef Py_ssize_t nr = w.leaf.nr, es = w.leaf.esize, rows = rows_of(w, block)
    cdef Py_ssize_t m = g * w.rows + block * w.block, columns = columns_of(w, b), ld = w.tile_ld
    cdef Py_ssize_t q, last, k, depth, kc, count, channel, next, i, j, done, blocks
    cdef const class_product* p
    cdef char* c = scratch + w.b_bytes
    cdef char* bias = c + w.c_bytes
    cdef char* inputs = bias + w.bias_bytes
    cdef char* tile = inputs + w.turned_bytes
    cdef char* sums = tile + w.tile_bytes
    cdef char* part = sums + w.sums_bytes
    cdef char* line = part + w.part_bytes
    cdef char* to
    cdef const char* a
    cdef bint deep
    # Sums start from the bias of their column.
    if w.bias != NULL:
        w.leaf.load[w.compute](
            sums, ld, w.bias + m * es, 0, es, w.product_count * columns, rows)
    else:
        memset(sums, 0, w.product_count * columns * ld * es)
    q = 0
    while q < w.product_count:
        p = &w.products[q]
        last = q
        while last < w.product_count and w.products[last].taps == p.taps:
            last += 1
        depth = w.channels * p.taps
        kc, deep = depth_block(depth), is_deep(depth)
        k = blocks = 0
        to = sums
        while k < depth:
            count = min(kc, depth - k)
            channel = k // p.taps
            next = ceil_div(k + count, p.taps)
            transpose_weights(w, g, block * w.block, rows, channel, next, tile)
            done = 0
            for i in range(q, last):
                a = inputs + (w.products[i].inputs + k * turned_positions(w)) * es
                j = 0
                while j < rows:
                    w.leaf.gemm_at(
                        columns, min(nr, rows - j), count, a, 0, tile + j * es,
                        w.products[i].weight + k - channel * p.taps,
                        to + (i * columns * ld + j) * es, ld, NULL, to == sums or blocks > 0)
                    j += nr
                    fetch_weights(
                        w, g, block * w.block, rows, next,
                        min(ceil_div(min(k + count + kc, depth), p.taps), w.channels),
                        done, (last - q) * ceil_div(rows, nr))
                    done += 1
            k += count
            blocks += 1
            if deep and (blocks == CHAIN_BLOCKS or k >= depth):
                if to == part:
                    add_up(w, (last - q) * columns, rows, ld, part + q * columns * ld * es,
                           sums + q * columns * ld * es)
                to, blocks = part, 0
        q = last
    for q in range(w.product_count):
        p = &w.products[q]
        if p.r[2] > 0:      # stored with the first one of their row
            continue
        for i in range(w.product_count):
            if w.products[i].r[0] == p.r[0] and w.products[i].r[1] == p.r[1]:
                w.leaf.transpose(
                    columns, rows, sums + i * columns * ld * es, ld,
                    c + w.products[i].r[2] * rows * w.ld * es, w.ld)
        store_unit(w, b, c, m, rows, p.r[0], p.r[1], line)


cdef void box_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are the units of all boxes of all groups."""
    cdef const job* w = <const job*>ctx
    cdef Py_ssize_t units = units_of(w), boxes = boxes_of(w), task, g, unit, rest, filled = -1
    cdef int i
    cdef box b
    cdef const char* inputs = scratch
    for task in range(first, last):
        unit, rest = task % units, task // units
        g = rest // boxes
        if rest != filled:
            filled = rest
            rest %= boxes
            for i in range(3, -1, -1):
                b.first[i] = rest % w.tiles[i] * w.extent[i]
                b.length[i] = min(
                    w.extent[i],
                    (w.out.shape[0] if i == 0 else w.axis[i - 1].count) - b.first[i])
                rest //= w.tiles[i]
            inputs = inputs_in_place(w, &b, g) if w.in_place else NULL
            if w.turned:
                fill_panels(w, &b, g, scratch)
                turn_inputs(
                    w, &b, scratch, scratch + w.b_bytes + w.c_bytes + w.bias_bytes)
            elif inputs == NULL:
                inputs = scratch
                if w.panels:
                    fill_panels(w, &b, g, scratch)
                else:
                    fill_planes(w, &b, g, scratch)
        if w.turned:
            do_rows(w, scratch, &b, g, unit)
            continue
        do_unit(
            w, scratch, &b, inputs, g, unit // w.axis[1].residues // w.axis[0].residues,
            unit // w.axis[1].residues % w.axis[0].residues, unit % w.axis[1].residues)


# ---- from Python --------------------------------------------------------------------------------

def pack_weights(weight, Split split, int compute, int threads):
    """Weights (G, M, C, T0, T1, T2) in the order in which `correlate` reads them."""
    cdef job w
    cdef PackedPhases result = PackedPhases()
    result.leaf = leaf(compute)
    use_weights(&w, weight, split, compute, result.leaf)
    result.store = pack_all(&w, threads)
    return result


def correlate(
    x, weight, bias, out, Split split, int compute, int threads, Py_ssize_t budget,
    PackedPhases packed=None, bint measure=False
):
    """The adjoint into `out` (N, G*M, I0, I1, I2); returns the bytes of workspace.

    x: (N, G*C, S0, S1, S2); weight: (G, M, C, T0, T1, T2), any strides; bias: (G*M,) or None.
    -1, and nothing done, where the workspace is too small for it.  `packed` holds the same weights
    in kernel order and takes their place.
    """
    cdef job w
    cdef Workspace offsets
    cdef Workspace held_weights = None
    cdef Workspace held_bias = None
    cdef Py_ssize_t fixed, all_weights, tables
    cdef const leaf_table* table = packed.leaf if packed is not None else leaf(compute)
    describe(x, 5, compute, &w.x)
    describe(out, 5, compute, &w.out)
    use_weights(&w, weight, split, compute, table)
    if w.out.shape[0] * w.groups * w.rows * w.out.shape[2] * w.out.shape[3] * w.out.shape[4] == 0:
        return 0
    w.bias = NULL
    threads = useful_threads(
        threads, 2.0 * w.groups * w.rows * w.channels * w.axis[0].taps * w.axis[1].taps
        * w.axis[2].taps * w.out.shape[0] * w.axis[0].count * w.axis[1].count * w.axis[2].count)
    fixed = fill_offsets(&w, NULL) + 64
    if bias is not None:
        fixed += w.groups * w.rows * table.esize + 64
    tables = turned_tables(&w) if packed is None else 0
    if packed is not None:
        w.packed = packed.store.data
    elif fit_turned(&w, threads, budget - fixed - tables):
        fixed += tables
    elif not fit(&w, &threads, budget - fixed):
        return -1
    else:
        all_weights = w.groups * group_elements(&w) * table.esize + 64
        if boxes_of(&w) > 1 and all_weights <= budget // 2:
            # every box reads all of the weights: put them in order once
            fixed += all_weights + threads * (<Py_ssize_t>pack_scratch(&w) + 128)
            w.packed = w.weight.data    # any address: sizes are all that is asked for yet
    if not w.turned and not fit(&w, &threads, budget - fixed):
        return -1
    fixed += threads * scratch_of(&w)
    if measure:
        return fixed
    if w.packed != NULL and packed is None:
        held_weights = pack_all(&w, threads)
        w.packed = held_weights.data
    if bias is not None:
        held_bias = load_bias(bias, table, compute)
        w.bias = held_bias.data
    w.in_place = readable_in_place(&w)
    if w.turned:
        offsets = Workspace(tables)
        w.products = <class_product*>offsets.data
        list_products(&w, w.products, <Py_ssize_t*>(w.products + w.product_count))
    else:
        offsets = Workspace(fill_offsets(&w, NULL))
        fill_offsets(&w, <Py_ssize_t*>offsets.data)
    run(box_task, &w, w.groups * boxes_of(&w) * units_of(&w), threads, scratch_of(&w))
    return fixed
