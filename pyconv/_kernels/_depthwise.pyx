"""Convolution with few channels per group (depthwise and its kin), directly: forward, and with
a mix of the channels.

The same sum as in _conv.pyx, ::

    out[n, g, m, o] = bias[g, m] + sum over c, t of
                      weight[g, m, c, t] * x[n, g, c, o*stride + t*dilation + offset]

but a group has too few rows for a GEMM, so the vectors run along the pixels instead: each tap adds
the input, shifted, times one weight.  A task copies what it needs of the input into workspace, with
whatever stands outside the array filled in, and split by the strides' residues so that every tap
reads consecutive elements (_depthwise_copies.pyx)::

    for each sample, block of groups, box of output (some planes, some rows, some columns)
        for each group of the block
            load the lines of the input that the box reads
            for each plane and multiplier
                result = sum over taps of weight * (lines from where the tap starts) + bias

_depthwise_box.pyx has how they lie there, and in which order taps are added.

Where channels lie next to each other, or a plane has few pixels, the vectors run along the channels
instead (_depthwise_lanes.pyx).  The sums have the same order, so both ways give the same bits.

Where rows are long, and their pixels next to each other or every second one wanted, nothing is
copied but the ends of the lines (_depthwise_rows.pyx).  The order is the same again.
"""

from libc.string cimport memset

from pyconv._kernels._cpu cimport LEAF_ROWS_LEAST, leaf_ahead, leaf_column
from pyconv._kernels._depthwise_box cimport (
    box,
    carve,
    choose_box,
    deepest_box,
    direct_job,
    fit_threads,
    inputs_far,
    load_weights,
    place,
    point_columns,
    set_up,
    small_box,
    span,
    work_of,
    worth_fetching,
)
from pyconv._kernels._depthwise_copies cimport (
    better_singly,
    choose_block,
    copies_task,
    load_lines,
    sum_taps,
)
from pyconv._kernels._depthwise_lanes cimport choose_lanes, lane_task, prefers_lanes
from pyconv._kernels._depthwise_rows cimport (
    choose_rows,
    point_lines,
    rows_scratch,
    rows_task,
    start_lines,
    stretch,
    sum_lines,
)
from pyconv._kernels._gemm cimport PackedWeights, describe_operand, implicit_gemm, operand, packer
from pyconv._kernels._grid cimport grid, inside
from pyconv._kernels._integers cimport ceil_div
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport describe

cdef enum:
    COPIED_NEAR = 7 * 1024 * 1024   # of both images: up to here the hardware asks for copies ...
    READ_NEAR = 16 * 1024 * 1024    # ... and for lines that are read where they are, early enough
    LANES_LIMIT = 1024 * 1024
    #                             with more, and with one group;


def suits(weight_shape, stride, dilation):
    """Whether these kernels are meant for weights (G, M, C, T0, T1, T2): few rows or channels.

    Of the shapes alone, as everything that decides which bits come out.
    """
    cdef Py_ssize_t rows = weight_shape[1], channels = weight_shape[2]
    if min(rows, channels) != 1 or max(rows, channels) > 4:
        return False
    return small_box(weight_shape, stride, dilation)


def correlate(
    str operator, x, weight, bias, out, stride, dilation, offset, str mode, int compute,
    int threads, Py_ssize_t budget, packed=None, bint measure=False
):
    """Forward, with the arguments of `_conv.correlate`.  Returns the bytes of workspace.

    `packed` is None: the weights are read as they are.
    """
    cdef direct_job job
    cdef Workspace tables
    cdef Py_ssize_t tasks, fixed, size = out.size
    cdef size_t scratch = 0, lanes_scratch, line_scratch
    if size == 0:
        return 0
    tables = set_up(
        &job, x, weight, out, stride, dilation, offset, mode, compute, False, &scratch)
    job.has_bias = bias is not None
    if job.has_bias:
        describe(bias, 1, compute, &job.bias)
    fixed = tables.nbytes + 64
    threads = useful_threads(
        threads, work_of(<double>size * job.q.channels * job.taps, <double>x.size + size))
    job.lanes = 0
    lanes_scratch = choose_lanes(&job, threads) if prefers_lanes(&job) else 0
    if 0 < lanes_scratch <= min(<size_t>LANES_LIMIT, <size_t>max(budget - fixed, 0) // threads):
        scratch = lanes_scratch
        point_columns(&job)
        tasks = (job.out.shape[0] * (job.groups // job.lanes) * job.plane_boxes
                 * job.row_boxes * job.column_boxes)
        threads = fit_threads(operator, scratch, fixed, threads, budget)
        threads = <int>min(<Py_ssize_t>threads, tasks)
        if not measure:
            run(lane_task, &job, tasks, threads, scratch)
        return fixed + threads * <Py_ssize_t>(scratch + 128)
    job.lanes = 0
    line_scratch = 0
    if job.out.in_place and job.out.stride[4] == job.q.leaf.esize:
        line_scratch = choose_rows(&job)
    job.fetch = worth_fetching(&job, READ_NEAR)
    if 0 < line_scratch <= min(<size_t>LANES_LIMIT, <size_t>max(budget - fixed, 0) // threads):
        scratch = line_scratch
        point_columns(&job)
        tasks = (job.out.shape[0] * job.groups * job.q.out[0] * job.row_boxes
                 * job.column_boxes)
        threads = fit_threads(operator, scratch, fixed, threads, budget)
        threads = <int>min(<Py_ssize_t>threads, tasks)
        if not measure:
            run(rows_task, &job, tasks, threads, scratch)
        return fixed + threads * <Py_ssize_t>(scratch + 128)
    job.kind = 0
    choose_box(&job, False, deepest_box(&job, job.groups, threads))
    job.fetch = job.together == 1 and worth_fetching(&job, COPIED_NEAR)
    scratch = choose_block(&job, threads)
    if scratch + 128 > <size_t>max(budget - fixed, 0) // threads:
        choose_box(&job, False, 1)
        scratch = choose_block(&job, threads)
    point_columns(&job)
    tasks = (job.out.shape[0] * ceil_div(job.groups, job.block) * job.plane_boxes
             * job.row_boxes * job.column_boxes)
    threads = fit_threads(operator, scratch, fixed, threads, budget)
    threads = <int>min(<Py_ssize_t>threads, tasks)
    if not measure:
        run(copies_task, &job, tasks, threads, scratch)
    return fixed + threads * <Py_ssize_t>(scratch + 128)


# ---- the packer of a pointwise GEMM -----------------------------------------------------------
#
# Where the channels of the result are mixed next, they are the rows of the mix's operand B: taps
# write them into the tile that the micro-kernel reads, and they are never anywhere else.

cdef struct mixed_job:
    direct_job copied           # any box, by copies of its lines
    direct_job lines            # boxes of so many rows, or a few more, by lines where they are,
    Py_ssize_t least            # ... and at least so many; 0: there are none
    bint fetch                  # lines of the next channel are asked for


cdef void fetch_lines(
    const direct_job* job, Py_ssize_t n, const place* at, Py_ssize_t g
) noexcept nogil:
    """Ask for what a box reads of group g, if there is one."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t lo, hi, first = at.row * q.stride[1] + job.s1.low + q.offset[1]
    inside(first, 1, span(q, 1, at.rows), q.x.shape[3], &lo, &hi)
    if g < job.groups and hi > lo:
        q.leaf.fetch(
            q.x.data + n * q.x.stride[0] + g * q.x.stride[1] + (first + lo) * q.x.stride[3],
            (hi - lo) * q.x.stride[3], False)


cdef void pack_box(
    const direct_job* job, box* b, Py_ssize_t n, const place* at, Py_ssize_t k0, Py_ssize_t k1,
    Py_ssize_t width, bint fetch, char* dst
) noexcept nogil:
    """Channels k0 .. k1-1 of a box: depth k at row k - k0, output rows next to each other."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, multiplier = job.multiplier, depth = q.channels * job.taps
    cdef Py_ssize_t line_pitch = q.channels * job.slots * job.plane, g = k0 // multiplier
    cdef Py_ssize_t count, i, k
    cdef const char* weight
    cdef leaf_ahead none
    memset(&none, 0, sizeof(none))
    while g * multiplier < k1:
        count = min(job.together, ceil_div(k1, multiplier) - g)
        if fetch:
            fetch_lines(job, n, at, g + count)
        load_lines(job, b, n, g, count, at)
        for i in range(count):
            for k in range(max(k0, (g + i) * multiplier), min(k1, (g + i + 1) * multiplier)):
                weight = b.weight
                if job.weights_in_order:
                    weight = job.weight.data + k * depth * es
                else:
                    load_weights(job, b.weight, k, 1)
                sum_taps(
                    job, at, b.lines + i * line_pitch * es, weight, b.bias,
                    dst + (k - k0) * width * es, q.out[2], none)
        g += count


cdef void pack_lines(
    const direct_job* job, char* scratch, Py_ssize_t n, const place* at, Py_ssize_t k0,
    Py_ssize_t k1, Py_ssize_t width, bint fetch, char* dst
) noexcept nogil:
    """The same of whole rows whose lines are read where they are."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, depth = q.channels * job.taps, held = -1, g, k
    cdef char* zeros = scratch + job.line_bytes
    cdef const void** lines = <const void**>(zeros + job.result_bytes)
    cdef char* weights = <char*>lines + job.pointer_bytes
    cdef char* bias = weights + job.weight_bytes
    cdef const char* weight
    cdef stretch s[3]
    memset(zeros, 0, job.result_bytes)
    memset(bias, 0, es)
    start_lines(job, at, s, scratch, lines)
    for k in range(k0, k1):
        g = k // job.multiplier
        if g != held:
            if fetch:
                fetch_lines(job, n, at, g + 1)
            point_lines(
                job, at, s, scratch, zeros,
                q.x.data + n * q.x.stride[0] + g * q.channels * q.x.stride[1])
            held = g
        weight = weights
        if job.weights_in_order:
            weight = job.weight.data + k * depth * es
        else:
            load_weights(job, weights, k, 1)
        sum_lines(job, at, s, weight, bias, dst, q.out[2] * es)
        dst += width * es


cdef void pack_channels(
    const void* ctx, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p, Py_ssize_t count,
    Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width, char* panel
) noexcept nogil:
    """A tile in boxes: whole rows where there are some, and parts of one before and after."""
    cdef const mixed_job* mixed = <const mixed_job*>ctx
    cdef const direct_job* job = &mixed.copied
    cdef const grid* q = &job.q
    cdef Py_ssize_t row, column, length, done, rows, end = p + count
    cdef box b = carve(job, scratch)
    cdef place at
    memset(b.bias, 0, q.leaf.esize)
    at.spot = 0
    while p < end:
        row, column = p // q.out[2], p % q.out[2]
        length = min(q.out[2] - column, end - p)
        at.o0, at.row, at.rows = row // q.out[1], row % q.out[1], 1
        at.planes, at.running = 1, False
        rows = 0
        if length == q.out[2]:
            rows = min(q.out[1] - at.row, (end - p) // length)
        if rows >= mixed.least > 0:
            at.column, at.columns = 0, length
            at.rows = mixed.lines.rows if rows >= mixed.lines.rows + mixed.least else rows
            pack_lines(
                &mixed.lines, scratch + mixed_scratch(job), n, &at, k0, k1, width, mixed.fetch,
                panel)
        else:
            at.rows = max(<Py_ssize_t>1, min(job.rows, rows))
            done = 0
            while done < length:
                at.column, at.columns = column + done, min(job.columns, length - done)
                at.singly = better_singly(job, at.rows, at.columns)
                pack_box(
                    job, &b, n, &at, k0, k1, width, mixed.fetch, panel + done * q.leaf.esize)
                at.spot += 1
                done += at.columns
        panel += at.rows * length * q.leaf.esize
        p += at.rows * length


cdef inline size_t mixed_scratch(const direct_job* job) noexcept nogil:
    return aligned(job.line_bytes + job.total_bytes + job.weight_bytes + job.bias_bytes
                   + job.piece_bytes)


cdef size_t choose_mixed(mixed_job* mixed, leaf_column* columns) noexcept nogil:
    """How tiles are packed; returns the scratch.  `columns` is a second table of taps."""
    cdef direct_job* job = &mixed.copied
    cdef size_t scratch = 0
    job.result_bytes = 0            # results go to the tile
    mixed.fetch = inputs_far(job)
    mixed.lines = job[0]
    mixed.lines.tap_columns, mixed.lines.single_taps = columns, NULL
    mixed.least = 0
    scratch = choose_rows(&mixed.lines)
    if scratch > 0 and mixed.lines.column_boxes == 1:
        mixed.least = job.row_step * LEAF_ROWS_LEAST
        scratch = rows_scratch(
            &mixed.lines, min(job.q.out[1], mixed.lines.rows + mixed.least - 1))
        point_columns(&mixed.lines)
    else:
        scratch = 0
    point_columns(job)
    return mixed_scratch(job) + scratch


def packs(weight_shape, stride, dilation):
    """Whether `correlate_mixed` is for weights (G, M, C, T0, T1, T2): of the shapes alone."""
    return 0 not in weight_shape and small_box(weight_shape, stride, dilation)


def correlate_mixed(
    str operator, x, weight, mix, bias, out, stride, dilation, offset, str mode, int compute,
    int threads, Py_ssize_t budget, PackedWeights packed=None, bint measure=False
):
    """`correlate` with `weight`, its channels then mixed by `mix` (1, O, G*M, 1, 1, 1), plus bias.

    `packed` holds `mix` in kernel order.  Returns the bytes of workspace.
    """
    cdef mixed_job job
    cdef packer pk
    cdef operand a
    cdef Workspace tables, columns
    cdef size_t scratch = 0
    cdef Py_ssize_t fixed
    if out.size == 0:
        return 0
    tables = set_up(
        &job.copied, x, weight, out, stride, dilation, offset, mode, compute, False, &scratch)
    columns = Workspace(job.copied.q.channels * job.copied.taps * sizeof(leaf_column))
    fixed = tables.nbytes + columns.nbytes + 128
    describe_operand(mix, compute, &a)
    if packed is not None:
        packed.take_place_of(&a)
    pk.ctx, pk.begin, pk.pack, pk.row = &job, NULL, pack_channels, job.copied.q.out[2]
    pk.prepare, pk.sample_bytes, pk.direct = NULL, 0, NULL
    pk.by_pixel, pk.effort = NULL, job.copied.taps / 8.0    # multiply-adds of a vector a cycle
    pk.scratch = choose_mixed(&job, <leaf_column*>columns.data)
    pk.rows = max(<Py_ssize_t>1, job.least)
    pk.scratch_per_pixel = 0
    return fixed + implicit_gemm(
        operator, &pk, &a, &job.copied.out, bias, job.copied.q.leaf, threads, budget - fixed,
        measure)
