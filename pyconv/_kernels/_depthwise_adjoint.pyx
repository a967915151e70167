"""The adjoint of a strided convolution with few channels per group: all residue classes at once.

Output i of an axis with stride s is position q of class r: i = q*s + r.  A class is a convolution
with some of the taps, and no stride (`pyconv.geometry.Phase`)::

    out[n, g, m, q*s + r] = bias[g, m] + sum over c, j of
      weight[g, m, c, first[r] + j*tap_step] * x[n, g, c, q + j*dilation + offset[r]]

The classes read the same lines, which are copied once, with zeros around them.  Those along the
last axis are computed next to each other and woven into whole rows of the result::

    for each sample, group, plane of the result, box of positions
        copy the lines that the box reads                   L1
        for each row m of the weights, class along axis 1
            for each class along axis 2
                taps on the lines                           [class][row][position], L1
            interleave them into rows of the result

Of two classes along the last axis, as at stride 2, the taps are taken one by one where they are
few, and the results are woven in registers; where rows cannot be written as they are, with channels
last for one, those of all rows m of the weights before they are stored, turned.

Where planes have few pixels, and rows are short or not woven in registers, the vectors run along
the channels instead, as many groups at a time as a vector has lanes, and the classes need no
weaving::

    for each sample, block of groups, box of positions
        bring the lines that the box reads together         [line][pixel][lane]
        for each class
            taps on the lines                               [row][column][lane], each at its place
        store the box, turned                               rows of pixels, or of channels if last

The columns of taps, and so the sums, are in the order that _depthwise_box.pyx has for one class:
all give the same bits.
"""

from libc.string cimport memset

from pyconv._kernels._cpu cimport (
    LEAF_COLUMN_TAPS,
    LEAF_LANE_BYTES,
    LEAF_LANE_ROWS,
    LEAF_PAIR_ROWS,
    leaf,
    leaf_ahead,
    leaf_column,
    leaf_table,
)
from pyconv._kernels._depthwise_box cimport CHAIN_COLUMNS, FETCH_BYTES, load_row, work_of
from pyconv._kernels._grid cimport inside
from pyconv._kernels._integers cimport ceil_div, magnitude, round_up
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport describe, tensor

cdef enum:
    BOX_BYTES = 24 * 1024       # lines of a box, and results of one class of rows: they stay in L1
    SCRATCH_LIMIT = 1024 * 1024
    MOST_CLASSES = 1024
    PAIR_TAPS = 16              # of a class, and a chain; more, and columns
    PAIR_COLUMN = 3             # of more than that, are better taken as columns
    FEW_PIXELS = 1024           # of a plane of the result: its channels are the vectors
    MANY_BLOCKS = 4             # of channels: lanes of the last may stay empty,
    WIDE_PIXELS = 400           # ... of planes of up to so many pixels
    LANES_BYTES = 64 * 1024     # of their box, and what it reads


# A residue class of one axis.
cdef struct residue:
    Py_ssize_t count, taps, first, tap_step, dilation, offset


# All classes of an axis; position q of any of them reads inputs q + low .. q + high.
cdef struct split:
    Py_ssize_t residues, stride, positions, taps, low, high
    residue* at


# A class along all axes.
cdef struct kind:
    leaf_column* column
    Py_ssize_t columns
    Py_ssize_t row_step, weight_step


cdef struct adjoint_job:
    tensor x                    # (N, G*C, S0, S1, S2)
    tensor weight               # (G, M, C, T0, T1, T2)
    tensor out                  # (N, G*M, I0, I1, I2)
    tensor bias                 # (G*M,)
    bint has_bias, weights_in_order, fetch
    const leaf_table* leaf
    Py_ssize_t groups, multiplier, channels, depth      # depth: of a row of the weights
    split axis[3]
    const kind* kinds           # [class of axis 0][of axis 1][of axis 2]
    Py_ssize_t rows, boxes      # positions of a box along axis 1, and how many boxes
    Py_ssize_t lines, pitch     # of the copies
    Py_ssize_t result_pitch
    bint pair                   # two classes are woven in registers,
    bint turned                 # ... for all rows of the weights, and then stored
    Py_ssize_t lanes            # groups in a vector; 0: pixels are
    size_t line_bytes, weight_bytes, result_bytes


cdef void lay_out(adjoint_job* job) noexcept nogil:
    """Boxes: as many rows as L1 has room for, all alike."""
    cdef const split* rows = &job.axis[1]
    cdef const split* columns = &job.axis[2]
    cdef Py_ssize_t es = job.leaf.esize, planes = job.channels * job.axis[0].taps, each, most
    job.pitch = columns.positions + columns.high - columns.low
    job.result_pitch = 0 if job.pair else round_up(columns.positions, job.leaf.vl)
    each = (planes * job.pitch + columns.residues * job.result_pitch) * es
    most = max(<Py_ssize_t>1, (
        BOX_BYTES - planes * (rows.high - rows.low) * job.pitch * es) // max(each, <Py_ssize_t>1))
    job.boxes = ceil_div(rows.positions, most)
    job.rows = ceil_div(rows.positions, job.boxes)
    job.boxes = ceil_div(rows.positions, job.rows)
    job.lines = job.rows + rows.high - rows.low
    # whole vectors are read, past the end of the last line too
    job.line_bytes = aligned((planes * job.lines * job.pitch + job.leaf.vl) * es)
    job.weight_bytes = aligned((job.depth + 1) * es)
    job.result_bytes = aligned(
        (columns.residues * job.rows * job.result_pitch + job.leaf.vl) * es)
    if job.turned:
        job.weight_bytes = aligned((job.multiplier * job.depth + 1) * es)
        job.result_bytes = aligned(
            job.multiplier * LEAF_PAIR_ROWS * rows.stride * job.out.shape[4] * es)


cdef bint suit_pair(const adjoint_job* job) noexcept nogil:
    """Whether two classes of a row are computed together: the taps of each are few, and a chain."""
    cdef Py_ssize_t taps = job.channels * job.axis[0].taps * job.axis[1].taps * job.axis[2].taps
    return job.axis[2].residues == 2 and taps <= PAIR_TAPS and job.axis[1].taps <= PAIR_COLUMN


cdef leaf_column* point_columns(
    const adjoint_job* job, kind* k, leaf_column* column, const residue* r0, const residue* r1,
    const residue* r2
) noexcept nogil:
    """Gather the taps of a class into columns; returns where the next class's begin.

    For a pair of classes each tap is a column, in the order of those.
    """
    cdef const Py_ssize_t* taps = &job.weight.shape[3]
    cdef Py_ssize_t size, pieces, most, i, c, t0, t1, t2, line, pixel, tap
    k.column = column
    k.row_step = magnitude(r1.dilation) if r1.taps > 1 else 1
    k.weight_step = (r1.tap_step if r1.dilation > 0 else -r1.tap_step) * taps[2]
    pieces = ceil_div(r1.taps, LEAF_COLUMN_TAPS)
    most = ceil_div(r1.taps, pieces) if pieces > 0 else 0
    for size in range(LEAF_COLUMN_TAPS, 0, -1):
        for c in range(job.channels):
            for t0 in range(r0.taps):
                for i in range(pieces):
                    if min(most, r1.taps - i * most) != size:
                        continue
                    t1 = i * most
                    if r1.dilation < 0:
                        t1 = r1.taps - 1 - t1
                    line = r1.offset + t1 * r1.dilation - job.axis[1].low
                    line += (c * job.axis[0].taps + t0) * job.lines
                    for t2 in range(r2.taps):
                        pixel = r2.offset + t2 * r2.dilation - job.axis[2].low
                        column.src = line * job.pitch + pixel
                        column.weight = c * taps[0] + r0.first + t0 * r0.tap_step
                        column.weight = column.weight * taps[1] + r1.first + t1 * r1.tap_step
                        column.weight = column.weight * taps[2] + r2.first + t2 * r2.tap_step
                        column.taps = size
                        column.chain = (column - k.column) // CHAIN_COLUMNS
                        if not job.pair:
                            column += 1
                            continue
                        for tap in range(size):
                            column[tap].src = column.src + tap * k.row_step * job.pitch
                            column[tap].weight = column.weight + tap * k.weight_step
                        column += size
    k.columns = column - k.column
    return column


cdef void weave(
    const adjoint_job* job, Py_ssize_t rows, const char* results, char* dst, Py_ssize_t pitch
) noexcept nogil:
    """Interleave the classes along axis 2; those that have one position more end the row."""
    cdef const split* columns = &job.axis[2]
    cdef Py_ssize_t es = job.leaf.esize, apart = job.rows * job.result_pitch, r
    cdef Py_ssize_t least = columns.at[columns.residues - 1].count
    job.leaf.interleave(
        rows, least, columns.residues, 0, results, job.result_pitch, apart, dst, pitch)
    for r in range(columns.residues):
        if columns.at[r].count > least:
            job.leaf.store[job.out.storage](
                dst + (least * columns.residues + r) * es, pitch * es, es,
                results + (r * apart + least) * es, job.result_pitch, rows, 1)


cdef void weave_pairs(
    const adjoint_job* job, const kind* kinds, Py_ssize_t row, const char* lines,
    const char* weight, const char* bias, char* dst
) noexcept nogil:
    """The rows of a box, some of all classes along axis 1 at a time: they are neighbours."""
    cdef const split* down = &job.axis[1]
    cdef Py_ssize_t es = job.leaf.esize, pitch = job.out.stride[3] // es, i, r1, rows, ahead = 0
    cdef Py_ssize_t most = min(job.rows, down.positions - row)
    cdef const kind* k
    if job.fetch:
        ahead = LEAF_PAIR_ROWS * down.stride * pitch
    i = 0
    while i < most:
        for r1 in range(down.residues):
            rows = min(<Py_ssize_t>LEAF_PAIR_ROWS, min(most, down.at[r1].count - row) - i)
            if rows <= 0:
                continue
            k = kinds + 2 * r1
            job.leaf.taps_pair(
                rows, job.out.shape[4], k[0].columns, k[1].columns, k.column,
                lines + i * job.pitch * es, job.pitch, weight, bias,
                dst + (i * down.stride + r1) * pitch * es, down.stride * pitch, ahead)
        i += LEAF_PAIR_ROWS


cdef void weave_turned(
    const adjoint_job* job, const kind* kinds, Py_ssize_t g, Py_ssize_t row, const char* lines,
    char* weights, char* results, char* dst
) noexcept nogil:
    """The rows of a box, of all rows m of the weights: [m][line][position], stored line by line."""
    cdef const split* down = &job.axis[1]
    cdef const tensor* out = &job.out
    cdef const leaf_table* table = job.leaf
    cdef Py_ssize_t es = table.esize, pitch = out.shape[4], m, i = 0, r1, rows, line
    cdef Py_ssize_t most = min(job.rows, down.positions - row)
    cdef Py_ssize_t tile = LEAF_PAIR_ROWS * down.stride * pitch, end
    cdef char* bias = weights + job.multiplier * job.depth * es
    cdef const kind* k
    memset(bias, 0, es)
    for m in range(job.multiplier):
        load_row(table, &job.weight, g, m, weights + m * job.depth * es)
    while i < most:
        for m in range(job.multiplier):
            if job.has_bias:
                table.load[job.bias.storage](
                    bias, 0, job.bias.data + (g * job.multiplier + m) * job.bias.stride[0], 0, es,
                    1, 1)
            for r1 in range(down.residues):
                rows = min(<Py_ssize_t>LEAF_PAIR_ROWS, min(most, down.at[r1].count - row) - i)
                if rows <= 0:
                    continue
                k = kinds + 2 * r1
                table.taps_pair(
                    rows, pitch, k[0].columns, k[1].columns, k.column,
                    lines + i * job.pitch * es, job.pitch, weights + m * job.depth * es, bias,
                    results + (m * tile + r1 * pitch) * es, down.stride * pitch, 0)
        line = i * down.stride
        end = min(line + LEAF_PAIR_ROWS * down.stride, out.shape[3] - row * down.stride)
        end = min(end, most * down.stride)
        while line < end:
            table.store[out.storage](
                dst + line * out.stride[3], out.stride[1], out.stride[4],
                results + (line - i * down.stride) * pitch * es, tile, job.multiplier, pitch)
            line += 1
        i += LEAF_PAIR_ROWS


cdef void adjoint_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef const adjoint_job* job = <const adjoint_job*>ctx
    cdef const leaf_table* table = job.leaf
    cdef const tensor* x = &job.x
    cdef const tensor* out = &job.out
    cdef const split* axis = &job.axis[0]
    cdef Py_ssize_t es = table.esize, task, box, i0, n, g, m, q, r1, r2, r, i, c, t0, row, rows
    cdef Py_ssize_t lo0, hi0, lo1, hi1, lo2, hi2, pitch, cols, some, plane, above
    cdef Py_ssize_t held_lo0 = -1, held_hi0 = 0, held_lo1 = 0, held_hi1 = 0, held_r0 = 0
    cdef char* lines = scratch
    cdef char* weights = lines + job.line_bytes
    cdef char* bias
    cdef char* results = weights + job.weight_bytes
    cdef char* dst
    cdef char* to
    cdef const char* src
    cdef const char* weight
    cdef const residue* r0
    cdef const kind* k
    cdef leaf_ahead ahead
    bias = weights + job.depth * es
    memset(bias, 0, es)
    ahead.read = ahead.write = NULL
    ahead.read_bytes = ahead.write_bytes = 0
    inside(axis[2].low, 1, job.pitch, x.shape[4], &lo2, &hi2)
    for task in range(first, last):
        box = task % job.boxes
        i0 = task // job.boxes % out.shape[2]
        g = task // job.boxes // out.shape[2]
        n, g = g // job.groups, g % job.groups
        row = box * job.rows
        # what of the planes and lines is inside the array, and has been on the task before
        r0 = axis[0].at + i0 % axis[0].stride
        q = i0 // axis[0].stride + r0.offset
        lo0 = hi0 = 0
        for t0 in range(r0.taps):
            if 0 <= q + t0 * r0.dilation < x.shape[2]:
                if hi0 == 0:
                    lo0 = t0
                hi0 = t0 + 1
        above = row + axis[1].low
        inside(above, 1, job.lines, x.shape[3], &lo1, &hi1)
        if (held_lo0 != lo0 or held_hi0 != hi0 or held_lo1 != lo1 or held_hi1 != hi1
                or held_r0 != r0 - axis[0].at):
            memset(lines, 0, job.line_bytes)
            held_lo0, held_hi0, held_lo1, held_hi1 = lo0, hi0, lo1, hi1
            held_r0 = r0 - axis[0].at
        for c in range(job.channels):
            src = (x.data + n * x.stride[0] + (g * job.channels + c) * x.stride[1]
                   + (above + lo1) * x.stride[3] + (axis[2].low + lo2) * x.stride[4])
            for t0 in range(lo0, hi0):
                plane = c * axis[0].taps + t0
                if hi1 > lo1 and hi2 > lo2:
                    table.load[x.storage](
                        lines + ((plane * job.lines + lo1) * job.pitch + lo2) * es, job.pitch,
                        src + (q + t0 * r0.dilation) * x.stride[2], x.stride[3], x.stride[4],
                        hi1 - lo1, hi2 - lo2)
        if job.turned:
            weave_turned(
                job, job.kinds + (r0 - axis[0].at) * axis[1].residues * 2, g, row, lines, weights,
                results, out.data + n * out.stride[0] + g * job.multiplier * out.stride[1]
                + i0 * out.stride[2] + row * axis[1].stride * out.stride[3])
            continue
        for m in range(job.multiplier):
            i = g * job.multiplier + m
            if job.weights_in_order:
                weight = job.weight.data + i * job.depth * es
            else:
                load_row(table, &job.weight, g, m, weights)
                weight = weights
            if job.has_bias:
                table.load[job.bias.storage](
                    bias, 0, job.bias.data + i * job.bias.stride[0], 0, es, 1, 1)
            dst = (out.data + n * out.stride[0] + i * out.stride[1] + i0 * out.stride[2]
                   + row * axis[1].stride * out.stride[3])
            if job.fetch:   # the results of the next box: as large as this one, and behind it
                ahead.write_bytes = job.rows * axis[1].stride * out.stride[3]
                ahead.write = dst + ahead.write_bytes
                ahead.write_bytes = ceil_div(
                    ahead.write_bytes, axis[1].residues * axis[2].residues)
            if job.pair:
                weave_pairs(job, job.kinds + (r0 - axis[0].at) * axis[1].residues * 2, row, lines,
                            weight, bias, dst)
                continue
            for r1 in range(axis[1].residues):
                rows = min(job.rows, axis[1].at[r1].count - row)
                if rows <= 0:
                    continue
                to, pitch = dst + r1 * out.stride[3], axis[1].stride * out.stride[3] // es
                for r2 in range(axis[2].residues):
                    k = job.kinds + (
                        ((r0 - axis[0].at) * axis[1].residues + r1) * axis[2].residues + r2)
                    some = k.row_step
                    for r in range(min(some, rows)):
                        if axis[2].residues == 1:
                            table.taps(
                                ceil_div(rows - r, some), out.shape[4], k.columns, k.column,
                                lines + r * job.pitch * es, some * job.pitch, weight,
                                k.weight_step, bias, to + r * pitch * es, some * pitch, NULL)
                            continue
                        cols = round_up(axis[2].at[r2].count, table.vl)
                        table.taps(
                            ceil_div(rows - r, some), cols, k.columns, k.column,
                            lines + r * job.pitch * es, some * job.pitch, weight,
                            k.weight_step, bias,
                            results + (r2 * job.rows + r) * job.result_pitch * es,
                            some * job.result_pitch, &ahead if r == 0 else NULL)
                    ahead.write += ahead.write_bytes
                if axis[2].residues > 1:
                    weave(job, rows, results, to, pitch)


# ---- channels as vectors ------------------------------------------------------------------------

cdef bint suit_lanes(const adjoint_job* job) noexcept nogil:
    """Whether channels are better vectors than pixels: a channel a group, small planes."""
    return (job.channels == 1 and job.multiplier == 1 and job.groups >= job.leaf.vl
            and job.weight.shape[3] == 1 and job.x.shape[2] == 1 and job.out.shape[2] == 1
            and job.out.shape[3] * job.out.shape[4] <= FEW_PIXELS)


cdef void lay_out_lanes(adjoint_job* job) noexcept nogil:
    """Boxes of some rows of positions, all alike."""
    cdef const split* rows = &job.axis[1]
    cdef const split* columns = &job.axis[2]
    cdef Py_ssize_t es = job.leaf.esize, wide, vector, each, most
    # Whole cache lines where channels are next to each other, and else of planes whose vectors stay
    # in L1, where few lanes are empty.
    wide = LEAF_LANE_BYTES // es
    job.lanes = job.leaf.vl
    if job.groups >= wide and (
            magnitude(job.out.stride[1]) < magnitude(job.out.stride[4])
            or (job.out.shape[3] * job.out.shape[4] <= WIDE_PIXELS
                and (job.groups % wide == 0 or job.groups >= MANY_BLOCKS * wide))):
        job.lanes = wide
    vector = job.lanes * es
    job.pitch = columns.positions + columns.high - columns.low
    job.result_pitch = job.out.shape[4]
    each = (job.pitch + rows.stride * job.result_pitch) * vector
    most = max(<Py_ssize_t>1, (
        LANES_BYTES - (rows.high - rows.low) * job.pitch * vector) // max(each, <Py_ssize_t>1))
    job.boxes = ceil_div(rows.positions, most)
    job.rows = ceil_div(rows.positions, job.boxes)
    job.boxes = ceil_div(rows.positions, job.rows)
    job.lines = job.rows + rows.high - rows.low
    job.line_bytes = aligned(job.lines * job.pitch * vector)
    job.weight_bytes = aligned((job.depth + 1) * vector)
    job.result_bytes = aligned(job.rows * rows.stride * job.result_pitch * vector)


cdef void widen_columns(
    const adjoint_job* job, leaf_column* column, const leaf_column* end
) noexcept nogil:
    """The columns of all classes, for lines and weights whose elements are vectors."""
    while column < end:
        column.src *= job.lanes
        column.weight *= job.lanes
        column.lines, column.pixel = -1, 0      # there is padding
        column += 1


cdef void lanes_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef const adjoint_job* job = <const adjoint_job*>ctx
    cdef const leaf_table* table = job.leaf
    cdef const tensor* x = &job.x
    cdef const tensor* out = &job.out
    cdef const tensor* t = &job.weight
    cdef const split* down = &job.axis[1]
    cdef const split* along = &job.axis[2]
    cdef Py_ssize_t es = table.esize, lanes = job.lanes, blocks = ceil_div(job.groups, lanes)
    cdef Py_ssize_t task, box, n, g, count, row, rows, r1, r2, r, i, some, above, line, size
    cdef Py_ssize_t lo1, hi1, lo2, hi2, held_lo = -1, held_hi = -1, held_count = -1
    cdef Py_ssize_t vector = lanes * es, pitch = job.result_pitch
    cdef char* lines = scratch
    cdef char* weights = lines + job.line_bytes
    cdef char* bias = weights + job.depth * vector
    cdef char* results = weights + job.weight_bytes
    cdef char* dst
    cdef const char* src
    cdef const kind* k
    memset(bias, 0, vector)
    inside(along.low, 1, job.pitch, x.shape[4], &lo2, &hi2)
    for task in range(first, last):
        box = task % job.boxes
        g = task // job.boxes
        n, g = g // blocks, g % blocks * lanes
        count = min(lanes, job.groups - g)
        row = box * job.rows
        above = row + down.low
        inside(above, 1, job.lines, x.shape[3], &lo1, &hi1)
        if held_lo != lo1 or held_hi != hi1 or held_count != count:
            memset(lines, 0, job.line_bytes)
            if count < lanes:
                memset(weights, 0, job.weight_bytes)
            held_lo, held_hi, held_count = lo1, hi1, count
        src = (x.data + n * x.stride[0] + g * x.stride[1] + (above + lo1) * x.stride[3]
               + (along.low + lo2) * x.stride[4])
        if hi2 > lo2:
            for line in range(lo1, hi1):
                table.load[x.storage](
                    lines + (line * job.pitch + lo2) * vector, lanes,
                    src + (line - lo1) * x.stride[3], x.stride[4], x.stride[1], hi2 - lo2, count)
        src = t.data + g * t.stride[0]
        for i in range(t.shape[4]):
            table.load[t.storage](
                weights + i * t.shape[5] * vector, lanes, src + i * t.stride[4], t.stride[5],
                t.stride[0], t.shape[5], count)
        if job.has_bias:
            table.load[job.bias.storage](
                bias, 0, job.bias.data + g * job.bias.stride[0], 0, job.bias.stride[0], 1, count)
        for r1 in range(down.residues):
            rows = min(job.rows, down.at[r1].count - row)
            for r2 in range(along.residues):
                k = job.kinds + r1 * along.residues + r2
                some = k.row_step
                for r in range(min(some, rows)):
                    i = r
                    while i < rows:     # so many rows of them, `some` apart, at a time
                        size = min(<Py_ssize_t>LEAF_LANE_ROWS, ceil_div(rows - i, some))
                        table.taps_lanes(
                            size, along.at[r2].count, lanes, k.columns, k.column, 0, 1,
                            lines + i * job.pitch * vector, some * job.pitch * lanes, lanes,
                            weights, k.weight_step * lanes, bias,
                            results + ((i * down.stride + r1) * pitch + r2) * vector,
                            some * down.stride * pitch * lanes, along.stride * lanes)
                        i += size * some
        rows = min(job.rows * down.stride, out.shape[3] - row * down.stride)
        dst = (out.data + n * out.stride[0] + g * out.stride[1]
               + row * down.stride * out.stride[3])
        size = pitch
        if out.stride[3] == pitch * out.stride[4]:
            rows, size = 1, rows * pitch        # rows follow each other
        for i in range(rows):
            table.store[out.storage](
                dst + i * out.stride[3], out.stride[4], out.stride[1],
                results + i * pitch * vector, lanes, size, count)


cdef int fill_axis(split* axis, residue* at, phases, Py_ssize_t stride) except -1:
    cdef Py_ssize_t i
    cdef residue* r
    cdef bint found = False
    axis.residues, axis.stride, axis.at = len(phases), stride, at
    axis.positions = axis.taps = axis.low = axis.high = 0
    for i in range(axis.residues):
        r = at + i
        r.count, r.first, r.tap_step = phases[i].count, phases[i].tap_start, phases[i].tap_step
        r.taps, r.dilation, r.offset = phases[i].taps, phases[i].dilation, phases[i].offset
        axis.positions = max(axis.positions, r.count)
        axis.taps = max(axis.taps, r.taps)
        if r.taps == 0:
            continue
        low = min(r.offset, r.offset + (r.taps - 1) * r.dilation)
        high = max(r.offset, r.offset + (r.taps - 1) * r.dilation)
        axis.low = min(axis.low, <Py_ssize_t>low) if found else low
        axis.high = max(axis.high, <Py_ssize_t>high) if found else high
        found = True
    return 0


cdef bint in_rows(const adjoint_job* job) noexcept nogil:
    """Whether rows of the result can be written where they are, and lines be read so."""
    if not job.out.in_place or (job.out.shape[4] > 1 and job.out.stride[4] != job.leaf.esize):
        return False
    return job.x.shape[4] <= 1 or magnitude(job.x.stride[1]) >= magnitude(job.x.stride[4])


def correlate(
    x, weight, bias, out, stride, phases, int compute, int threads, Py_ssize_t budget,
    bint measure=False
):
    """The adjoint into `out` (N, G*M, I0, I1, I2); returns the bytes of workspace.

    x: (N, G*C, S0, S1, S2); weight: (G, M, C, T0, T1, T2), any strides; bias: (G*M,) or None.
    `phases` are, for each axis, those of `pyconv.geometry.adjoint_phases`, the empty ones too.
    -1, and nothing done, where it is not meant for such memory, or the workspace is too small.
    """
    cdef adjoint_job job
    cdef Workspace tables
    cdef Py_ssize_t classes, total, i, j, k, fixed, tasks, size
    cdef size_t scratch
    cdef residue* at
    cdef kind* kinds
    cdef leaf_column* column
    cdef bint in_lanes
    if out.size == 0:
        return 0
    describe(x, 5, compute, &job.x)
    describe(out, 5, compute, &job.out)
    describe(weight, 6, compute, &job.weight)
    job.leaf = leaf(compute)
    classes = len(phases[0]) * len(phases[1]) * len(phases[2])
    if classes > MOST_CLASSES or len(phases[0]) + len(phases[1]) + len(phases[2]) > MOST_CLASSES:
        return -1
    job.groups, job.multiplier, job.channels = (
        job.weight.shape[0], job.weight.shape[1], job.weight.shape[2])
    total = job.weight.shape[3] * job.weight.shape[4] * job.weight.shape[5]
    job.depth = job.channels * total
    job.lanes, job.pair, job.turned = 0, False, False
    job.weights_in_order = weight.flags.c_contiguous and job.weight.in_place
    job.has_bias = bias is not None
    if job.has_bias:
        describe(bias, 1, compute, &job.bias)
    tables = Workspace(
        (len(phases[0]) + len(phases[1]) + len(phases[2])) * sizeof(residue)
        + classes * sizeof(kind) + job.depth * sizeof(leaf_column))
    at = <residue*>tables.data
    for i in range(3):
        fill_axis(&job.axis[i], at, phases[i], stride[i])
        at += len(phases[i])
    # Two classes that are woven in registers, a vector or more, take less than channels turned.
    job.pair = suit_pair(&job)
    in_lanes = suit_lanes(&job) and not (
        job.pair and in_rows(&job) and job.out.shape[4] >= 2 * job.leaf.vl)
    if in_lanes:
        job.pair = False
        lay_out_lanes(&job)
    else:
        if not in_rows(&job):
            if not job.pair or (job.multiplier <= 4 and job.channels == 1):
                return -1       # channels next to each other: they are to be the vectors
            job.turned = True
        lay_out(&job)
    scratch = job.line_bytes + job.weight_bytes + job.result_bytes
    size = out.size
    threads = useful_threads(threads, work_of(
        <double>x.size / max(job.channels, 1) * job.depth, <double>x.size + size))
    fixed = <Py_ssize_t>tables.nbytes + 64
    tasks = job.out.shape[0] * job.groups * job.out.shape[2] * job.boxes
    if in_lanes:
        tasks = job.out.shape[0] * ceil_div(job.groups, job.lanes) * job.boxes
    threads = <int>min(<Py_ssize_t>threads, tasks)
    if scratch > SCRATCH_LIMIT or fixed + threads * <Py_ssize_t>(scratch + 128) > budget:
        return -1
    if not measure:
        kinds = <kind*>at
        job.kinds = kinds
        column = <leaf_column*>(kinds + classes)
        for i in range(job.axis[0].residues):
            for j in range(job.axis[1].residues):
                for k in range(job.axis[2].residues):
                    column = point_columns(
                        &job, kinds, column, job.axis[0].at + i, job.axis[1].at + j,
                        job.axis[2].at + k)
                    kinds += 1
        if in_lanes:
            widen_columns(&job, <leaf_column*>kinds, column)
            run(lanes_task, &job, tasks, threads, scratch)
            return fixed + threads * <Py_ssize_t>(scratch + 128)
        job.fetch = (size > FETCH_BYTES // job.leaf.esize
                     and job.out.stride[3] == job.out.shape[4] * job.leaf.esize)
        run(adjoint_task, &job, tasks, threads, scratch)
    return fixed + threads * <Py_ssize_t>(scratch + 128)
