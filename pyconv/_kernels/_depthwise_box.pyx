"""Boxes of a convolution with few channels per group: what all ways of it have in common.

A box is some planes, some rows and some columns of the output.  A task takes one, for a block of
groups, with whatever the taps read there in scratch of its own, or found by pointers::

    for each sample, block of groups, box of output
        for each group of the block
            load the lines of the input that the box reads
            for each plane and multiplier
                result = sum over taps of weight * (lines from where the tap starts) + bias

Where they are copies, the lines are split by the strides' residues so that every tap reads
consecutive elements.  Those of a box, for one channel and plane of the input, which several planes
of results may meet (residues r1, r2 of axes 1 and 2)::

    [r1][r2][line][pitch]       output (row, column) meets tap (t1, t2) at
                                [r1(t1)][r2(t2)][row + q1(t1)][column + q2(t2)]

Taps of one residue and one t2 form a column: they read lines that are `row_step` apart, as do
outputs that are `row_step` rows apart, so a leaf keeps a line in registers for all the rows and
taps that it serves.  The columns in order, and the taps within each, are the order of every sum,
wherever the lines are and whatever the vectors: so all ways give the same bits.
"""

from pyconv import checks
from pyconv._kernels._cpu cimport LEAF_CHAIN, LEAF_COLUMN_TAPS, LEAF_LANE_BYTES
from pyconv._kernels._grid cimport fill_grid, inside
from pyconv._kernels._integers cimport ceil_div, gcd, round_up
from pyconv._kernels._parallel cimport aligned
from pyconv._kernels._tensor cimport describe

cdef enum:
    SCRATCH_LIMIT = 4 * 1024 * 1024     # of a box of one row


cdef box carve(const direct_job* job, char* scratch) noexcept nogil:
    cdef box b
    b.lines = scratch
    b.totals = b.lines + job.line_bytes
    b.weight = b.totals + job.total_bytes
    b.bias = b.weight + job.weight_bytes
    b.result = b.bias + job.bias_bytes
    b.pieces = <piece*>(b.result + job.result_bytes)
    b.tiles = <tile*>(<char*>b.pieces + job.piece_bytes)
    b.spot = b.tile_spot = b.held = -1
    b.tile_count = b.tile_met = b.tile_lanes = 0
    b.tile_padded = False
    b.piece_count = 0
    return b


cdef void load_weights(
    const direct_job* job, char* dst, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    """Rows first .. of the weights, flat over (group, row), each [channel][tap] in order."""
    cdef const tensor* w = &job.weight
    cdef Py_ssize_t es = job.q.leaf.esize, row, depth = w.shape[2] * job.taps
    if job.weights_in_order:
        job.q.leaf.load[w.storage](
            dst, 0, w.data + first // job.multiplier * w.stride[0], 0, es, 1, rows * depth)
        return
    for row in range(first, first + rows):
        load_row(job.q.leaf, w, row // job.multiplier, row % job.multiplier, dst)
        dst += depth * es


cdef const char* weights_of(
    const direct_job* job, Py_ssize_t channel, char* room
) noexcept nogil:
    """The weights of a channel, [channel][tap] in order: where they are, or brought to `room`."""
    if job.weights_in_order:
        return job.weight.data + channel * job.q.channels * job.taps * job.q.leaf.esize
    load_weights(job, room, channel, 1)
    return room


cdef void load_bias(
    const direct_job* job, char* dst, Py_ssize_t first, Py_ssize_t count
) noexcept nogil:
    """The bias of channels first .., if there is one."""
    cdef const tensor* bias = &job.bias
    if job.has_bias:
        job.q.leaf.load[bias.storage](
            dst, 0, bias.data + first * bias.stride[0], 0, bias.stride[0], 1, count)


cdef leaf_ahead look_ahead(const direct_job* job, const place* at) noexcept nogil:
    """How much of a channel a box reads and writes, where it is to be asked for."""
    cdef const grid* q = &job.q
    cdef leaf_ahead ahead
    cdef Py_ssize_t lo, hi
    ahead.read = ahead.write = NULL
    ahead.read_bytes = ahead.write_bytes = 0
    if job.fetch:
        inside(at.row * q.stride[1] + job.s1.low + q.offset[1], 1, span(q, 1, at.rows),
               q.x.shape[3], &lo, &hi)
        ahead.read_bytes = (hi - lo) * q.x.stride[3]
        ahead.write_bytes = at.rows * job.out.stride[3]
    return ahead


cdef bint inputs_far(const direct_job* job) noexcept nogil:
    """Whether a group's lines follow each other and are not in L2."""
    cdef const tensor* x = &job.q.x
    return (x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3] * x.shape[4]
            > FETCH_BYTES // job.q.leaf.esize
            and job.q.channels * job.q.taps[0] == 1
            and x.in_place and x.stride[3] == x.shape[4] * job.q.leaf.esize)


cdef bint worth_fetching(const direct_job* job, Py_ssize_t near) noexcept nogil:
    """The same of its results, too, where both are more than is `near`."""
    cdef const tensor* out = &job.out
    cdef Py_ssize_t results = out.shape[0] * out.shape[1] * out.shape[2] * out.shape[3]
    cdef Py_ssize_t inputs = job.q.x.shape[0] * job.q.x.shape[1] * job.q.x.shape[2]
    inputs = inputs * job.q.x.shape[3] * job.q.x.shape[4] + results * out.shape[4]
    return (inputs > near // job.q.leaf.esize and inputs_far(job) and out.in_place
            and out.stride[3] == job.q.out[2] * job.q.leaf.esize)


cdef Py_ssize_t* split_axis(
    const grid* q, int axis, Py_ssize_t* table, split* s
) noexcept nogil:
    """Residues of the taps of an axis modulo its stride; returns what is left of `table`."""
    cdef Py_ssize_t taps = q.taps[axis], stride = q.stride[axis], t, r, at
    s.low = min(<Py_ssize_t>0, (taps - 1) * q.dilation[axis])
    s.residue, s.of_tap, s.start = table, table + taps, table + 2 * taps
    s.residues = s.shift = 0
    for t in range(taps):
        at = t * q.dilation[axis] - s.low
        for r in range(s.residues):
            if s.residue[r] == at % stride:
                break
        else:
            r = s.residues
            s.residue[r] = at % stride
            s.residues += 1
        s.of_tap[t] = r
        s.start[t] = at // stride
        s.shift = max(s.shift, s.start[t])
    return table + 3 * taps


cdef size_t box_scratch(
    direct_job* job, Py_ssize_t together, bint gradient
) noexcept nogil:
    """Bytes of scratch for boxes of the present rows and columns."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, depth = q.channels * job.taps
    job.lines = job.rows + job.s1.shift
    job.pitch = job.columns + job.s2.shift
    job.plane = job.s1.residues * job.s2.residues * job.lines * job.pitch
    # whole vectors are read past the end: room for them
    job.line_bytes = aligned(together * q.channels * job.slots * job.plane * es) + 64
    job.result_bytes = aligned(together * job.multiplier * job.rows * job.pitch * es) + 64
    if gradient:
        job.weight_bytes = together * job.multiplier * depth * LEAF_LANE_BYTES
        job.total_bytes = job.weight_bytes if job.units_together > 0 else 0
        job.bias_bytes = 0
        job.result_bytes = aligned(
            (together if together > 1 else 1) * (job.multiplier if together > 1 else 1)
            * job.rows * round_up(job.columns, LEAF_LANE_BYTES // es) * es) + 64
    else:
        job.total_bytes = 0
        job.weight_bytes = aligned(job.block * job.multiplier * depth * es)
        job.bias_bytes = aligned(job.block * job.multiplier * es)
    job.piece_bytes = job.slots * job.s1.residues * job.s2.residues * sizeof(piece)
    job.tile_bytes = 0
    return (job.line_bytes + job.total_bytes + job.weight_bytes + job.bias_bytes
            + job.result_bytes + job.piece_bytes)


cdef void set_depth(direct_job* job, Py_ssize_t depth) noexcept nogil:
    """How many planes of results a box has, and which ones of the input it holds for them."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t common = gcd(q.stride[0], magnitude(q.dilation[0]))
    job.depth = depth
    job.plane_boxes = ceil_div(q.out[0], depth)
    if depth == 1:      # a slot for each tap
        job.slot_planes, job.slot_tap = q.dilation[0], 1
        job.slot_out = job.slot_low = 0
        job.slots = q.taps[0]
        return
    job.slot_planes, job.slot_tap = common, q.dilation[0] // common
    job.slot_out = q.stride[0] // common
    job.slots = (q.taps[0] - 1) * magnitude(job.slot_tap) + 1
    job.slot_low = job.slots - 1 if job.slot_tap < 0 else 0
    job.slots += (depth - 1) * job.slot_out


cdef Py_ssize_t next_depth(const direct_job* job, Py_ssize_t depth, Py_ssize_t most) noexcept nogil:
    """Twice as many planes, or all; 0 if those are too many."""
    cdef Py_ssize_t more
    if depth == most or job.q.taps[0] == 1:
        return 0
    more = ceil_div(job.q.out[0], ceil_div(job.q.out[0], min(2 * depth, most)))
    return more if more > depth else 0


cdef double depth_cost(const direct_job* job) noexcept nogil:
    """How often a plane of the input is read; 1 at best."""
    cdef Py_ssize_t common = gcd(job.q.stride[0], magnitude(job.q.dilation[0]))
    return job.slots / <double>(job.depth * min(job.q.taps[0], job.q.stride[0] // common))


cdef void choose_sides(direct_job* job, bint gradient, Py_ssize_t deepest) noexcept nogil:
    """Sides of a box: the least reading of lines twice, in L1 rather than L2."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t rows, columns, depth, best_rows = 1, best_columns = 1, best_depth = 1, limit
    cdef Py_ssize_t size
    cdef double cost, best = -1
    for limit in range(2):
        columns = min(q.out[2], <Py_ssize_t>MOST_COLUMNS)
        while True:
            depth = 1
            while depth > 0:
                if job.depth != depth:
                    set_depth(job, depth)
                job.rows, job.columns = 1, columns
                box_scratch(job, 1, gradient)
                size = q.channels * job.slots * q.leaf.esize * (
                    job.s1.residues * job.s2.residues * job.pitch)
                rows = (BOX_BYTES if limit == 0 else BLOCK_BYTES) // size - job.s1.shift
                if rows < 1 < depth:
                    break
                rows = max(<Py_ssize_t>1, min(rows, q.out[1]))
                if gradient:
                    rows = min(rows, LEAF_CHAIN * job.row_step)
                rows = ceil_div(q.out[1], ceil_div(q.out[1], rows))
                cost = (1.0 + job.s1.shift / <double>rows) * (1.0 + job.s2.shift / <double>columns)
                if job.q.taps[0] > 1:
                    cost *= depth_cost(job)
                cost += 0.5 * limit     # about what L2 costs, in copies of the lines
                if best < 0 or cost < best:
                    best, best_rows, best_columns, best_depth = cost, rows, columns, depth
                depth = next_depth(job, depth, deepest)
            if columns <= 128:
                break
            columns = (columns + 1) // 2
    set_depth(job, best_depth)
    job.rows, job.columns = best_rows, best_columns
    box_scratch(job, 1, gradient)


cdef size_t choose_box(direct_job* job, bint gradient, Py_ssize_t deepest) noexcept nogil:
    """Box and groups loaded together; returns the scratch of a task.

    The box of the gradient follows from the shapes alone, for it orders the reduction.
    """
    cdef const grid* q = &job.q
    # Channels side by side in memory are read together, a cache line at a time.
    cdef bint channels_last = (q.x.shape[4] > 1
                               and magnitude(q.x.stride[1]) < magnitude(q.x.stride[4]))
    job.block = 1
    choose_sides(job, gradient, deepest)
    job.together = 1
    while channels_last and job.together < min(<Py_ssize_t>16, job.groups):
        if box_scratch(job, job.together + 1, gradient) > BLOCK_BYTES:
            break
        job.together += 1
    job.row_boxes = ceil_div(q.out[1], job.rows)
    job.column_boxes = ceil_div(q.out[2], job.columns)
    return box_scratch(job, job.together, gradient)


cdef Py_ssize_t deepest_box(const direct_job* job, Py_ssize_t blocks, int threads) noexcept nogil:
    """Planes of results that a box may have, for some tasks to be left for each thread."""
    cdef Py_ssize_t planes = job.q.out[0]
    if threads == 1:
        return planes
    return max(<Py_ssize_t>1, min(planes, job.out.shape[0] * blocks * planes // (4 * threads)))


cdef void count_columns(direct_job* job) noexcept nogil:
    """Columns of taps: how far they reach, and how many there are."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t taps = q.taps[1], dilation = magnitude(q.dilation[1]), first
    cdef Py_ssize_t common = gcd(q.stride[1], dilation), step = q.stride[1] // common
    # taps `step` apart have one residue
    job.row_step = dilation // common if step < taps else 1
    job.tap_step = step
    job.weight_step = (step if q.dilation[1] > 0 else -step) * q.taps[2]
    job.tap_column_count = 0
    for first in range(min(step, taps)):
        job.tap_column_count += ceil_div(ceil_div(taps - first, step), LEAF_COLUMN_TAPS)
    job.tap_column_count *= q.channels * q.taps[0] * q.taps[2]


cdef void point_columns(direct_job* job) noexcept nogil:
    """Gather the taps of axis 1 into columns, as many in each as a leaf takes."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t taps = q.taps[1], step = job.tap_step
    cdef Py_ssize_t plane, size, first, count, pieces, most, k, t1, t2, line
    cdef leaf_column* column = job.tap_columns
    for size in range(LEAF_COLUMN_TAPS, 0, -1):     # longest first, as the leaf takes them
        for plane in range(q.channels * q.taps[0]):
            for first in range(min(step, taps)):
                count = ceil_div(taps - first, step)
                pieces = ceil_div(count, LEAF_COLUMN_TAPS)
                most = ceil_div(count, pieces)
                for k in range(pieces):
                    if min(most, count - k * most) != size:
                        continue
                    t1 = first + k * most * step
                    if q.dilation[1] < 0:           # lines go the other way
                        t1 = taps - 1 - t1
                    for t2 in range(q.taps[2]):
                        line = job.s1.of_tap[t1] * job.s2.residues + job.s2.of_tap[t2]
                        line = line * job.lines + job.s1.start[t1]
                        column.src = (
                            (plane // q.taps[0] * job.slots
                             + slot_of(job, plane % q.taps[0], 0)) * job.plane
                            + line * job.pitch + job.s2.start[t2])
                        column.weight = (plane * taps + t1) * q.taps[2] + t2
                        column.taps = size
                        column.chain = (column - job.tap_columns) // CHAIN_COLUMNS
                        if job.lanes > 0:
                            column.src = plane
                            column.lines = t1 * q.dilation[1] - job.s1.low
                            column.pixel = t2 * q.dilation[2] - job.s2.low
                        if job.kind > 0:
                            column.src = t2 * q.dilation[2] - job.s2.low
                            column.lines = plane * job.lines + t1 * q.dilation[1] - job.s1.low
                        if job.apart > 0:
                            line = t1 * q.dilation[1] - job.s1.low
                            column.src = t2 * q.dilation[2] - job.s2.low
                            column.lines = (plane * job.lines + line % job.apart * job.pitch
                                            + line // job.apart)
                        column += 1
    if job.single_taps != NULL:
        part_columns(job)


cdef void part_columns(direct_job* job) noexcept nogil:
    """The taps of the columns, in the same order and chains."""
    cdef const leaf_column* column = job.tap_columns
    cdef leaf_column* single = job.single_taps
    cdef Py_ssize_t _i, k
    for _i in range(job.tap_column_count):
        for k in range(column.taps):
            single.src = column.src + k * job.row_step * job.pitch
            single.weight = column.weight + k * job.weight_step
            single.taps, single.chain = 1, column.chain
            single += 1
        column += 1


cdef bint small_box(weight_shape, stride, dilation) except -1:
    """Whether a box of one row and 128 columns, with all the lines it reads, is a small thing."""
    cdef Py_ssize_t rows = weight_shape[1], channels = weight_shape[2]
    cdef double size = 1, taps      # shapes alone may be of any size: no overflow
    cdef int axis
    for axis in range(2):
        taps = weight_shape[4 + axis]
        size *= min(<double>stride[1 + axis], taps)
        size *= (128 if axis else 1) + (
            (taps - 1) * magnitude(dilation[1 + axis]) // <double>stride[1 + axis])
    size *= <double>weight_shape[3]
    taps = weight_shape[3] * weight_shape[4] * weight_shape[5]
    return channels * size * 8 + rows * channels * taps * LEAF_LANE_BYTES <= SCRATCH_LIMIT


cdef int fit_threads(
    str operator, size_t scratch, Py_ssize_t fixed, int threads, Py_ssize_t budget
) except -1:
    cdef Py_ssize_t each = <Py_ssize_t>(scratch + 128)
    if each + fixed > budget:
        raise checks.WorkspaceError(operator, each + fixed, budget)
    return <int>min(<Py_ssize_t>threads, (budget - fixed) // each)


cdef Workspace set_up(
    direct_job* job, x, weight, out, stride, dilation, offset, str mode, int compute,
    bint gradient, size_t* scratch
):
    """Fill the job; returns the tables that it points to."""
    cdef Workspace tables
    cdef Py_ssize_t taps
    cdef bint singles
    job.units_together = 0
    describe(weight, 6, compute, &job.weight)
    describe(out, 5, compute, &job.out)
    job.groups, job.multiplier = job.weight.shape[0], job.weight.shape[1]
    job.taps = job.weight.shape[3] * job.weight.shape[4] * job.weight.shape[5]
    job.has_bias = False
    job.lanes = job.kind = job.apart = 0
    job.fetch = job.far = False
    job.depth = 0
    job.weights_in_order = not gradient and weight.flags.c_contiguous and job.weight.in_place
    fill_grid(
        x, job.groups, &job.weight.shape[3], &job.out.shape[2], stride, dilation, offset, mode,
        compute, &job.q)
    count_columns(job)
    taps = job.q.channels * job.taps
    singles = not gradient and (job.row_step > 1 or job.q.out[2] <= SHORT_ROW)
    tables = Workspace(
        3 * (job.q.taps[1] + job.q.taps[2]) * sizeof(Py_ssize_t)
        + taps * sizeof(leaf_column) * (2 if singles else 1))
    job.tap_columns = <leaf_column*>split_axis(
        &job.q, 2, split_axis(&job.q, 1, <Py_ssize_t*>tables.data, &job.s1), &job.s2)
    job.single_taps = job.tap_columns + taps if singles else NULL
    job.halves = (job.s2.residues == 2 and job.q.stride[2] == 2 and job.q.x.in_place
                  and job.q.x.stride[4] == job.q.leaf.esize)
    scratch[0] = choose_box(job, gradient, 1)
    return tables
