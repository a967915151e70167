"""Convolution with few channels per group (depthwise and its kin), directly: forward and the
gradient of the weights.

The same sum as in _conv.pyx, ::

    out[n, g, m, o] = bias[g, m] + sum over c, t of
                      weight[g, m, c, t] * x[n, g, c, o*stride + t*dilation + offset]

but a group has too few rows for a GEMM, so the vectors run along an output row instead: each tap
adds a shifted input row, times one weight.  A task copies the rows it needs into workspace, with
whatever stands outside the array filled in, and split by the stride's residues so that every tap
reads consecutive elements::

    for each sample, block of groups, box of output (one plane, some rows, some columns)
        load the block's weights
        for each output row of the box
            load the input rows not met before              all channels of the block at once
            for each channel, multiplier
                out row = sum over taps of weight * input row + bias
"""

from libc.string cimport memset

from pyconv import checks
from pyconv._kernels._cpu cimport LEAF_LANE_BYTES, leaf, leaf_table
from pyconv._kernels._grid cimport fill_grid, grid, load_run, source_index
from pyconv._kernels._integers cimport ceil_div, magnitude
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport describe, tensor

cdef enum:
    BOX_BYTES = 96 * 1024       # of input rows in a box: well inside L2
    MOST_COLUMNS = 2048
    SCRATCH_LIMIT = 4 * 1024 * 1024
    MOST_CHUNKS = 8


cdef struct direct_job:
    grid q
    tensor weight               # (G, M, C, T0, T1, T2); for the gradient, where it goes
    tensor out                  # (N, G*M, O0, O1, O2); for the gradient, grad of the result
    tensor bias                 # (G*M,)
    bint has_bias
    Py_ssize_t groups, multiplier, taps     # taps: all axes, one channel
    Py_ssize_t block            # groups that share a task
    Py_ssize_t rows, columns    # of a box
    Py_ssize_t row_boxes, column_boxes
    Py_ssize_t span             # input rows between the first and the last of a box, inclusive
    Py_ssize_t low1, low2       # most negative tap displacement along axes 1 and 2
    Py_ssize_t residues         # distinct residues of tap positions modulo the stride, axis 2
    Py_ssize_t pitch            # elements of one residue of one row
    const Py_ssize_t* residue   # [residues] position within a stride
    const Py_ssize_t* tap_at    # [T2] where tap t2 starts within a row: residue line + shift
    Py_ssize_t chunks           # gradient: fixed ranges of the reduction
    char* partial               # gradient: [chunk][G][M][C][taps], compute type
    size_t line_bytes, flag_bytes, pointer_bytes, weight_bytes, result_bytes


# What a task keeps in its scratch.
cdef struct box:
    char* lines                 # [block*channels][T0][span] rows of residues * pitch elements
    char* loaded                # [T0][span] row already there?
    const void** src            # [channels * taps] tap pointers of one output row
    char* weight                # [block][M][C][taps]
    char* result                # [block*M][columns]


cdef box carve(const direct_job* job, char* scratch) noexcept nogil:
    cdef box b
    b.lines = scratch
    b.loaded = b.lines + job.line_bytes
    b.src = <const void**>(b.loaded + job.flag_bytes)
    b.weight = <char*>b.src + job.pointer_bytes
    b.result = b.weight + job.weight_bytes
    return b


cdef void load_rows(
    const direct_job* job, const box* b, Py_ssize_t n, Py_ssize_t g, Py_ssize_t count,
    Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t first_row, Py_ssize_t first_column,
    Py_ssize_t columns
) noexcept nogil:
    """Bring in the input rows that output row (o0, o1) meets and that are not there yet."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, channels = count * q.channels
    cdef Py_ssize_t row_bytes = job.residues * job.pitch * es
    cdef Py_ssize_t channel_pitch = q.taps[0] * job.span * job.residues * job.pitch
    cdef Py_ssize_t t0, t1, i0, i1, slot, r
    cdef Py_ssize_t start1 = first_row * q.stride[1] + job.low1
    cdef Py_ssize_t start2 = first_column * q.stride[2] + job.low2 + q.offset[2]
    cdef char* line
    cdef const char* src = q.x.data + n * q.x.stride[0] + g * q.channels * q.x.stride[1]
    for t0 in range(q.taps[0]):
        i0 = source_index(
            o0 * q.stride[0] + t0 * q.dilation[0] + q.offset[0], q.x.shape[2], q.mode)
        for t1 in range(q.taps[1]):
            i1 = o1 * q.stride[1] + t1 * q.dilation[1]
            slot = t0 * job.span + i1 - start1
            if b.loaded[slot]:
                continue
            b.loaded[slot] = 1
            i1 = source_index(i1 + q.offset[1], q.x.shape[3], q.mode)
            line = b.lines + slot * row_bytes
            for r in range(job.residues):
                if i0 < 0 or i1 < 0:
                    zero_lines(line, channel_pitch * es, channels, job.pitch * es)
                else:
                    load_run(
                        q, line, channel_pitch, src + i0 * q.x.stride[2] + i1 * q.x.stride[3],
                        channels, start2 + job.residue[r], q.stride[2], job.pitch)
                line += job.pitch * es


cdef inline void zero_lines(
    char* dst, Py_ssize_t step, Py_ssize_t rows, Py_ssize_t nbytes
) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(rows):
        memset(dst + r * step, 0, nbytes)


cdef void point_taps(
    const direct_job* job, const box* b, Py_ssize_t group, Py_ssize_t o1, Py_ssize_t first_row
) noexcept nogil:
    """Addresses of the rows that the taps of one output row start at, for one group."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, c, t0, t1, t2, at = 0, slot
    cdef Py_ssize_t row_bytes = job.residues * job.pitch * es
    cdef Py_ssize_t start1 = first_row * q.stride[1] + job.low1
    cdef const char* line
    for c in range(group * q.channels, (group + 1) * q.channels):
        for t0 in range(q.taps[0]):
            for t1 in range(q.taps[1]):
                slot = ((c * q.taps[0] + t0) * job.span
                        + o1 * q.stride[1] + t1 * q.dilation[1] - start1)
                line = b.lines + slot * row_bytes
                for t2 in range(q.taps[2]):
                    b.src[at] = line + job.tap_at[t2] * es
                    at += 1


cdef void load_weights(
    const direct_job* job, char* dst, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    """Rows first .. of the weights, flat over (group, row), each [channel][tap] in order."""
    cdef const tensor* w = &job.weight
    cdef Py_ssize_t es = job.q.leaf.esize, row, c, t0, t1
    cdef const char* src
    for row in range(first, first + rows):
        for c in range(w.shape[2]):
            src = (w.data + row // job.multiplier * w.stride[0]
                   + row % job.multiplier * w.stride[1] + c * w.stride[2])
            for t0 in range(w.shape[3]):
                for t1 in range(w.shape[4]):
                    job.q.leaf.load[w.storage](
                        dst, 0, src + t0 * w.stride[3] + t1 * w.stride[4], 0, w.stride[5], 1,
                        w.shape[5])
                    dst += w.shape[5] * es


cdef void forward_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef const direct_job* job = <const direct_job*>ctx
    cdef const grid* q = &job.q
    cdef const leaf_table* table = q.leaf
    cdef const tensor* out = &job.out
    cdef Py_ssize_t es = table.esize, blocks = ceil_div(job.groups, job.block)
    cdef Py_ssize_t task, rest, row_box, column_box, o0, o1, block, count, g, m, n, o
    cdef Py_ssize_t row, row_end, column, columns, depth = q.channels * job.taps, held = -1
    cdef box b = carve(job, scratch)
    cdef double zero = 0, bias = 0      # room for either compute type
    cdef const char* weight
    cdef char* line
    cdef char* place
    cdef bint direct = out.in_place and (out.stride[4] == es or out.shape[4] == 1)
    for task in range(first, last):
        column_box = task % job.column_boxes
        rest = task // job.column_boxes
        row_box = rest % job.row_boxes
        rest //= job.row_boxes
        o0 = rest % q.out[0]
        rest //= q.out[0]
        block = rest % blocks
        n = rest // blocks
        count = min(job.block, job.groups - block * job.block)
        if block != held:
            load_weights(
                job, b.weight, block * job.block * job.multiplier, count * job.multiplier)
            held = block
        column = column_box * job.columns
        columns = min(job.columns, q.out[2] - column)
        row = row_box * job.rows
        row_end = min(row + job.rows, q.out[1])
        memset(b.loaded, 0, q.taps[0] * job.span)
        for o1 in range(row, row_end):
            load_rows(job, &b, n, block * job.block, count, o0, o1, row, column, columns)
            place = (out.data + n * out.stride[0] + o0 * out.stride[2] + o1 * out.stride[3]
                     + column * out.stride[4]
                     + block * job.block * job.multiplier * out.stride[1])
            for g in range(count):
                point_taps(job, &b, g, o1, row)
                for m in range(job.multiplier):
                    o = g * job.multiplier + m
                    weight = b.weight + o * depth * es
                    line = place + o * out.stride[1] if direct else (
                        b.result + o * job.columns * es)
                    if job.has_bias:
                        table.load[job.bias.storage](
                            &bias, 0, job.bias.data + (block * job.block * job.multiplier + o)
                            * job.bias.stride[0], 0, 0, 1, 1)
                    table.taps(
                        columns, depth, b.src, weight, &bias if job.has_bias else &zero, line)
            if not direct:
                table.store[out.storage](
                    place, out.stride[1], out.stride[4], b.result, job.columns,
                    count * job.multiplier, columns)


cdef void gradient_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Partial sums of one chunk of the reduction, for one block of groups.

    The reduction runs over (sample, plane, row box, column box) in order.
    """
    cdef const direct_job* job = <const direct_job*>ctx
    cdef const grid* q = &job.q
    cdef const leaf_table* table = q.leaf
    cdef const tensor* dy = &job.out
    cdef Py_ssize_t es = table.esize, blocks = ceil_div(job.groups, job.block)
    cdef Py_ssize_t lanes = LEAF_LANE_BYTES // es, depth = q.channels * job.taps
    cdef Py_ssize_t units = dy.shape[0] * q.out[0] * job.row_boxes * job.column_boxes
    cdef Py_ssize_t task, chunk, block, count, unit, rest, n, o0, o1, row, column, columns
    cdef Py_ssize_t g, m, o, t
    cdef box b = carve(job, scratch)
    cdef char* sums = b.weight          # [block * M][depth][lanes]
    cdef char* partial
    cdef double total
    for task in range(first, last):
        block = task % blocks
        chunk = task // blocks
        count = min(job.block, job.groups - block * job.block)
        memset(sums, 0, count * job.multiplier * depth * LEAF_LANE_BYTES)
        for unit in range(units * chunk // job.chunks, units * (chunk + 1) // job.chunks):
            column = unit % job.column_boxes * job.columns
            rest = unit // job.column_boxes
            row = rest % job.row_boxes * job.rows
            rest //= job.row_boxes
            o0 = rest % q.out[0]
            n = rest // q.out[0]
            columns = min(job.columns, q.out[2] - column)
            memset(b.loaded, 0, q.taps[0] * job.span)
            for o1 in range(row, min(row + job.rows, q.out[1])):
                load_rows(job, &b, n, block * job.block, count, o0, o1, row, column, columns)
                table.load[dy.storage](
                    b.result, job.columns,
                    dy.data + n * dy.stride[0] + o0 * dy.stride[2] + o1 * dy.stride[3]
                    + column * dy.stride[4] + block * job.block * job.multiplier * dy.stride[1],
                    dy.stride[1], dy.stride[4], count * job.multiplier, columns)
                for g in range(count):
                    point_taps(job, &b, g, o1, row)
                    for m in range(job.multiplier):
                        o = g * job.multiplier + m
                        table.dots(
                            columns, depth, b.src, b.result + o * job.columns * es,
                            sums + o * depth * LEAF_LANE_BYTES)
        partial = job.partial + ((chunk * job.groups + block * job.block) * job.multiplier
                                 * depth * es)
        for t in range(count * job.multiplier * depth):
            total = table.sum(lanes, sums + t * LEAF_LANE_BYTES)
            if es == 4:
                (<float*>partial)[t] = <float>total
            else:
                (<double*>partial)[t] = total


cdef void store_gradient(const direct_job* job) noexcept nogil:
    """Add the chunks in order and put the sums where they belong."""
    cdef const leaf_table* table = job.q.leaf
    cdef const tensor* w = &job.weight
    cdef Py_ssize_t es = table.esize, chunk, row, c, t0, t1
    cdef Py_ssize_t size = job.groups * job.multiplier * job.q.channels * job.taps
    cdef char* src = job.partial
    cdef char* dst
    for chunk in range(1, job.chunks):
        table.add_strided(size, job.partial + chunk * size * es, job.partial, 1)
    for row in range(job.groups * job.multiplier):
        for c in range(w.shape[2]):
            dst = (w.data + row // job.multiplier * w.stride[0]
                   + row % job.multiplier * w.stride[1] + c * w.stride[2])
            for t0 in range(w.shape[3]):
                for t1 in range(w.shape[4]):
                    table.store[w.storage](
                        dst + t0 * w.stride[3] + t1 * w.stride[4], 0, w.stride[5], src, 0, 1,
                        w.shape[5])
                    src += w.shape[5] * es


cdef size_t box_scratch(direct_job* job, bint gradient) noexcept nogil:
    """Bytes of scratch for the present box, and where things lie in it."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, channels = job.block * q.channels, shift = 0, t
    cdef Py_ssize_t depth = q.channels * job.taps
    for t in range(q.taps[2]):
        shift = max(shift, (t * q.dilation[2] - job.low2) // q.stride[2])
    job.pitch = job.columns + shift
    job.span = (job.rows - 1) * q.stride[1] + (q.taps[1] - 1) * magnitude(q.dilation[1]) + 1
    job.line_bytes = aligned(channels * q.taps[0] * job.span * job.residues * job.pitch * es)
    job.flag_bytes = aligned(q.taps[0] * job.span)
    job.pointer_bytes = aligned(depth * sizeof(void*))
    job.weight_bytes = aligned(
        job.block * job.multiplier * depth * (LEAF_LANE_BYTES if gradient else es))
    job.result_bytes = aligned(job.block * job.multiplier * job.columns * es)
    return (job.line_bytes + job.flag_bytes + job.pointer_bytes + job.weight_bytes
            + job.result_bytes)


cdef size_t choose_box(direct_job* job, bint gradient) noexcept nogil:
    """Box and block of groups; returns the scratch of a task."""
    cdef const grid* q = &job.q
    # Channels side by side in memory are read together, a cache line at a time.
    cdef bint channels_last = magnitude(q.x.stride[1]) < magnitude(q.x.stride[4]) and q.x.shape[4] > 1
    job.low1 = min(<Py_ssize_t>0, (q.taps[1] - 1) * q.dilation[1])
    job.low2 = min(<Py_ssize_t>0, (q.taps[2] - 1) * q.dilation[2])
    job.block = min(<Py_ssize_t>16, job.groups) if channels_last and not gradient else 1
    job.rows, job.columns = q.out[1], min(q.out[2], <Py_ssize_t>MOST_COLUMNS)
    while box_scratch(job, gradient) > BOX_BYTES and job.rows > 1:
        job.rows = (job.rows + 1) // 2
    while box_scratch(job, gradient) > 4 * BOX_BYTES:
        if job.block > 1:
            job.block = (job.block + 1) // 2
        elif job.columns > 128:
            job.columns = (job.columns + 1) // 2
        else:
            break
    if channels_last and gradient:
        # The box orders the reduction, so it may not depend on strides; how many groups share
        # the reading of it may.
        while job.block < 16 and job.block < job.groups:
            job.block += 1
            if box_scratch(job, gradient) > 4 * BOX_BYTES:
                job.block -= 1
                break
    job.row_boxes = ceil_div(q.out[1], job.rows)
    job.column_boxes = ceil_div(q.out[2], job.columns)
    return box_scratch(job, gradient)


cdef Workspace index_taps(direct_job* job):
    """Tables of the strided axis: residues that occur, and where each tap starts."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t taps = q.taps[2], t, r, at, residue
    cdef Workspace held = Workspace(2 * taps * sizeof(Py_ssize_t))
    cdef Py_ssize_t* residues = <Py_ssize_t*>held.data
    cdef Py_ssize_t* tap_residue = residues + taps
    job.residues = 0
    job.low2 = min(<Py_ssize_t>0, (taps - 1) * q.dilation[2])
    for t in range(taps):
        residue = (t * q.dilation[2] - job.low2) % q.stride[2]
        for r in range(job.residues):
            if residues[r] == residue:
                break
        else:
            r = job.residues
            residues[r] = residue
            job.residues += 1
        tap_residue[t] = r
    job.residue, job.tap_at = residues, tap_residue
    return held


cdef void place_taps(direct_job* job) noexcept nogil:
    """Turn the residue of each tap into its place within a row, once the pitch is known."""
    cdef Py_ssize_t* tap_at = <Py_ssize_t*>job.tap_at
    cdef Py_ssize_t t
    for t in range(job.q.taps[2]):
        tap_at[t] = (tap_at[t] * job.pitch
                     + (t * job.q.dilation[2] - job.low2) // job.q.stride[2])


def suits(weight_shape, stride, dilation):
    """Whether these kernels are meant for weights (G, M, C, T0, T1, T2): few rows or channels.

    Of the shapes alone, as everything that decides which bits come out.
    """
    cdef Py_ssize_t rows = weight_shape[1], channels = weight_shape[2], taps = 1, span = 1
    cdef int axis
    if min(rows, channels) != 1 or max(rows, channels) > 4:
        return False
    for axis in range(3):
        taps *= weight_shape[3 + axis]
    # One box of one row and 128 columns, all input rows it spans, must stay a small thing.
    span = (weight_shape[3] * ((weight_shape[4] - 1) * magnitude(dilation[1]) + 1)
            * (128 * min(<Py_ssize_t>stride[2], <Py_ssize_t>weight_shape[5])
               + weight_shape[5] * (magnitude(dilation[2]) + 1)))
    return channels * (span + 8 * taps) * 8 + rows * channels * taps * 64 <= SCRATCH_LIMIT


cdef int fit_threads(
    str operator, size_t scratch, Py_ssize_t fixed, int threads, Py_ssize_t budget
) except -1:
    cdef Py_ssize_t each = <Py_ssize_t>(scratch + 128)
    if each + fixed > budget:
        checks.fail(
            operator, "max_workspace", f"be at least {each + fixed} bytes for these shapes",
            budget)
    return <int>min(<Py_ssize_t>threads, (budget - fixed) // each)


def correlate(
    str operator, x, weight, bias, out, stride, dilation, offset, str mode, int compute,
    int threads, Py_ssize_t budget, bint measure=False
):
    """Forward, with the arguments of `_conv.correlate`.  Returns the bytes of workspace."""
    cdef direct_job job
    cdef Workspace tables
    cdef Py_ssize_t tasks
    cdef size_t scratch
    describe(weight, 6, compute, &job.weight)
    describe(out, 5, compute, &job.out)
    job.groups, job.multiplier = job.weight.shape[0], job.weight.shape[1]
    job.taps = job.weight.shape[3] * job.weight.shape[4] * job.weight.shape[5]
    fill_grid(
        x, job.groups, weight.shape[3:], out.shape[2:], stride, dilation, offset, mode, compute,
        &job.q)
    job.has_bias = bias is not None
    if job.has_bias:
        describe(bias, 1, compute, &job.bias)
    if out.size == 0:
        return 0
    tables = index_taps(&job)
    scratch = choose_box(&job, False)
    place_taps(&job)
    tasks = (job.out.shape[0] * ceil_div(job.groups, job.block) * job.q.out[0]
             * job.row_boxes * job.column_boxes)
    threads = useful_threads(threads, 2.0 * out.size * job.q.channels * job.taps)
    threads = fit_threads(operator, scratch, tables.nbytes + 64, threads, budget)
    threads = <int>min(<Py_ssize_t>threads, tasks)
    if not measure:
        run(forward_task, &job, tasks, threads, scratch)
    return tables.nbytes + 64 + threads * <Py_ssize_t>(scratch + 128)


def weight_gradient(
    str operator, x, grad, out, stride, dilation, offset, str mode, int compute, int threads,
    Py_ssize_t budget, bint measure=False
):
    """Gradient of the weights into `out` (G, M, C, T0, T1, T2).  Returns bytes of workspace."""
    cdef direct_job job
    cdef Workspace tables, partial
    cdef Py_ssize_t units, size, fixed
    cdef size_t scratch
    describe(out, 6, compute, &job.weight)
    describe(grad, 5, compute, &job.out)
    job.groups, job.multiplier = job.weight.shape[0], job.weight.shape[1]
    job.taps = job.weight.shape[3] * job.weight.shape[4] * job.weight.shape[5]
    job.has_bias = False
    fill_grid(
        x, job.groups, out.shape[3:], grad.shape[2:], stride, dilation, offset, mode, compute,
        &job.q)
    if out.size == 0:
        return 0
    tables = index_taps(&job)
    scratch = choose_box(&job, True)
    place_taps(&job)
    size = job.groups * job.multiplier * job.q.channels * job.taps
    units = job.out.shape[0] * job.q.out[0] * job.row_boxes * job.column_boxes
    job.chunks = 1
    if job.groups < 16:
        job.chunks = max(<Py_ssize_t>1, min(<Py_ssize_t>MOST_CHUNKS, units))
    fixed = tables.nbytes + 64 + job.chunks * size * job.q.leaf.esize + 64
    threads = useful_threads(threads, 2.0 * grad.size * job.q.channels * job.taps)
    threads = fit_threads(operator, scratch, fixed, threads, budget)
    threads = <int>min(<Py_ssize_t>threads, ceil_div(job.groups, job.block) * job.chunks)
    if not measure:
        partial = Workspace(job.chunks * size * job.q.leaf.esize)
        job.partial = partial.data
        run(gradient_task, &job, ceil_div(job.groups, job.block) * job.chunks, threads, scratch)
        store_gradient(&job)
    return fixed + threads * <Py_ssize_t>(scratch + 128)
