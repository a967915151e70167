"""Few channels per group, as the packer of a pointwise GEMM: depthwise-separable convolution.

Where the channels of the result are mixed next, they are the rows of the mix's operand B: taps
write them into the tile that the micro-kernel reads, and they are never anywhere else.  A tile is
so many pixels of the result in order, so it begins and ends in the middle of a row as it comes:

    anything        from the lines where they are (_depthwise_masked.pyx), where vectors have masks
    whole rows      from the lines where they are (_depthwise_rows.pyx), if there are enough
    what else       from copies of the lines (_depthwise_copies.pyx), some columns at a time

The channels have the bits that _depthwise.pyx gives them.
"""

from libc.string cimport memset

from pyconv._kernels._cpu cimport LEAF_ROWS_LEAST, leaf_ahead, leaf_column
from pyconv._kernels._depthwise_box cimport (
    box,
    carve,
    direct_job,
    inputs_far,
    place,
    point_columns,
    set_up,
    small_box,
    span,
    weights_of,
)
from pyconv._kernels._depthwise_copies cimport better_singly, load_lines, sum_taps
from pyconv._kernels._depthwise_masked cimport (
    MANY_TAPS,
    choose_masked,
    start_masked,
    sum_group,
)
from pyconv._kernels._depthwise_rows cimport (
    choose_rows,
    point_lines,
    rows_scratch,
    start_lines,
    stretch,
    sum_lines,
)
from pyconv._kernels._gemm cimport (
    PackedWeights,
    describe_operand,
    implicit_gemm,
    operand,
    packer,
    start_packer,
)
from pyconv._kernels._grid cimport grid, inside
from pyconv._kernels._integers cimport ceil_div
from pyconv._kernels._parallel cimport Workspace, aligned


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
    cdef Py_ssize_t es = q.leaf.esize, multiplier = job.multiplier
    cdef Py_ssize_t line_pitch = q.channels * job.slots * job.plane, g = k0 // multiplier
    cdef Py_ssize_t count, i, k
    cdef leaf_ahead none
    memset(&none, 0, sizeof(none))
    while g * multiplier < k1:
        count = min(job.together, ceil_div(k1, multiplier) - g)
        if fetch:
            fetch_lines(job, n, at, g + count)
        load_lines(job, b, n, g, count, at)
        for i in range(count):
            for k in range(max(k0, (g + i) * multiplier), min(k1, (g + i + 1) * multiplier)):
                sum_taps(
                    job, at, b.lines + i * line_pitch * es, weights_of(job, k, b.weight), b.bias,
                    dst + (k - k0) * width * es, q.out[2], none)
        g += count


cdef void pack_lines(
    const direct_job* job, char* scratch, Py_ssize_t n, const place* at, Py_ssize_t k0,
    Py_ssize_t k1, Py_ssize_t width, bint fetch, char* dst
) noexcept nogil:
    """The same of whole rows whose lines are read where they are."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, held = -1, g, k
    cdef char* zeros = scratch + job.line_bytes
    cdef const void** lines = <const void**>(zeros + job.result_bytes)
    cdef char* weights = <char*>lines + job.pointer_bytes
    cdef char* bias = weights + job.weight_bytes
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
        sum_lines(
            job, at, s, weights_of(job, k, weights), bias, dst, q.out[2] * es)
        dst += width * es


cdef void pack_masked(
    const void* ctx, char* scratch, Py_ssize_t n, Py_ssize_t group, Py_ssize_t p,
    Py_ssize_t count, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width, char* panel
) noexcept nogil:
    """A tile by masked vectors, in boxes: whole rows, and parts of one before and after."""
    cdef const mixed_job* mixed = <const mixed_job*>ctx
    cdef const direct_job* job = &mixed.lines
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, multiplier = job.multiplier, row, end = p + count
    cdef Py_ssize_t g, first, last
    cdef char* dst
    cdef place at
    cdef leaf_ahead none
    memset(&none, 0, sizeof(none))
    start_masked(job, scratch)
    while p < end:
        row, at.column = p // q.out[2], p % q.out[2]
        at.o0, at.row, at.rows = row // q.out[1], row % q.out[1], 1
        at.columns = min(min(q.out[2] - at.column, end - p), job.columns)
        if at.columns == q.out[2]:
            at.rows = min(min(q.out[1] - at.row, (end - p) // at.columns), job.rows)
        dst = panel
        for g in range(k0 // multiplier, ceil_div(k1, multiplier)):
            if mixed.fetch:
                fetch_lines(job, n, &at, g + 1)
            first, last = max(k0 - g * multiplier, 0), min(k1 - g * multiplier, multiplier)
            sum_group(
                job, &at, scratch, n, g, first, last, dst, width * es, at.columns * es, none)
            dst += (last - first) * width * es
        panel += at.rows * at.columns * es
        p += at.rows * at.columns


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
    if job.taps < MANY_TAPS:
        scratch = choose_masked(&mixed.lines)
    if scratch > 0:
        mixed.least = job.row_step * LEAF_ROWS_LEAST
        point_columns(&mixed.lines)
        return scratch
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
    if packed is not None and packed.leaf == job.copied.q.leaf:     # else few rows, soon packed
        packed.take_place_of(&a)
    start_packer(&pk, &job, pack_channels)
    pk.row = job.copied.q.out[2]
    pk.effort = job.copied.taps / 8.0       # multiply-adds of a vector a cycle
    pk.scratch = choose_mixed(&job, <leaf_column*>columns.data)
    if job.lines.apart > 0:
        pk.pack = pack_masked
    pk.rows = max(<Py_ssize_t>1, job.least)
    return fixed + implicit_gemm(
        operator, &pk, &a, &job.copied.out, bias, job.copied.q.leaf, threads, budget - fixed,
        measure)
