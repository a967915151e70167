"""Convolution with few channels per group (depthwise and its kin), directly.

The same sum as in _conv.pyx, ::

    out[n, g, m, o] = bias[g, m] + sum over c, t of
                      weight[g, m, c, t] * x[n, g, c, o*stride + t*dilation + offset]

but a group has too few rows for a GEMM, so the vectors run along the pixels instead, or along the
channels of several groups: each tap adds the input, shifted, times one weight, or one a channel.
What is here chooses between four ways of that::

    _depthwise_lanes.pyx    channels are the vectors: they lie next to each other, or a plane of
                            results has few pixels, or neighbours in a row are far apart
    _depthwise_masked.pyx   pixels are, lines are read where they are, and vectors in part where
                            lines end: where that costs nothing, and neighbours in a row are wanted
    _depthwise_rows.pyx     pixels are, lines are read where they are, and their ends from copies:
                            rows are long, and a stride along them is at most 2
    _depthwise_copies.pyx   pixels are, in copies of the lines: everything else

_depthwise_box.pyx has what they share, the order of every sum above all: they give the same bits,
so the choice may look at memory, threads and workspace.  The gradient of the weights is in
_depthwise_weights.pyx; that of the input is a layer again, or, of strided ones, in
_depthwise_adjoint.pyx; layers whose channels are mixed next are in _depthwise_mixed.pyx.
"""

from pyconv._kernels._cpu cimport leaf_table, narrower_leaf
from pyconv._kernels._depthwise_box cimport (
    choose_box,
    deepest_box,
    direct_job,
    fit_threads,
    point_columns,
    set_up,
    small_box,
    work_of,
    worth_fetching,
)
from pyconv._kernels._depthwise_copies cimport choose_block, copies_task
from pyconv._kernels._depthwise_lanes cimport choose_lanes, lane_task, prefers_lanes
from pyconv._kernels._depthwise_masked cimport MANY_TAPS, choose_masked, masked_task
from pyconv._kernels._depthwise_rows cimport choose_rows, rows_task
from pyconv._kernels._integers cimport ceil_div
from pyconv._kernels._parallel cimport Workspace, run, task_fn, useful_threads
from pyconv._kernels._tensor cimport describe

cdef enum:
    COPIED_NEAR = 7 * 1024 * 1024   # of both images: up to here the hardware asks for copies ...
    READ_NEAR = 16 * 1024 * 1024    # ... and for lines that are read where they are, early enough
    LANES_LIMIT = 1024 * 1024       # of scratch, but for copies: those take any shape


def suits(weight_shape, stride, dilation):
    """Whether these kernels are meant for weights (G, M, C, T0, T1, T2): few rows or channels.

    Of the shapes alone, as everything that decides which bits come out.
    """
    cdef Py_ssize_t rows = weight_shape[1], channels = weight_shape[2]
    if min(rows, channels) != 1 or max(rows, channels) > 4:
        return False
    return small_box(weight_shape, stride, dilation)


cdef task_fn choose_way(
    direct_job* job, int threads, size_t room, size_t* scratch, Py_ssize_t* tasks
) noexcept nogil:
    """Lay out boxes and columns of taps; returns what does a task of them.

    It takes `room` bytes of scratch at most, where any way does.
    """
    cdef size_t most = min(<size_t>LANES_LIMIT, room)
    cdef const leaf_table* wide = job.q.leaf
    cdef const leaf_table* narrower = narrower_leaf(wide)
    cdef task_fn task = NULL
    cdef Py_ssize_t blocks = job.groups
    cdef bint in_place = job.out.in_place and job.out.stride[4] == wide.esize
    if prefers_lanes(job):
        scratch[0] = choose_lanes(job, threads)
        if scratch[0] <= most:
            task = lane_task
            blocks = job.groups // job.lanes
        else:
            job.lanes = 0
    if task == NULL and in_place and not (
            job.taps >= MANY_TAPS and worth_fetching(job, COPIED_NEAR)):
        scratch[0] = choose_masked(job)
        if 0 < scratch[0] <= most:
            task = masked_task
            # lines in order the hardware asks for itself
            job.fetch = job.row_step > 1 and worth_fetching(job, READ_NEAR)
        else:
            job.apart = 0
    if task == NULL and in_place:
        scratch[0] = choose_rows(job)
        if scratch[0] == 0 and narrower != NULL and job.q.stride[2] == 2:
            # whose lines' ends are shorter; at stride 1 copies cost no more
            job.q.leaf = narrower
            scratch[0] = choose_rows(job)
        if 0 < scratch[0] <= most:
            task = rows_task
            job.fetch = worth_fetching(job, READ_NEAR)
        else:
            job.kind, job.q.leaf = 0, wide
    if task == NULL:
        choose_box(job, False, deepest_box(job, job.groups, threads))
        job.fetch = job.together == 1 and worth_fetching(job, COPIED_NEAR)
        scratch[0] = choose_block(job, threads)
        if scratch[0] + 128 > room:
            choose_box(job, False, 1)
            scratch[0] = choose_block(job, threads)
        task = copies_task
        blocks = ceil_div(job.groups, job.block)
    point_columns(job)
    tasks[0] = job.out.shape[0] * blocks * job.plane_boxes * job.row_boxes * job.column_boxes
    return task


def correlate(
    str operator, x, weight, bias, out, stride, dilation, offset, str mode, int compute,
    int threads, Py_ssize_t budget, packed=None, bint measure=False
):
    """Forward, with the arguments of `_conv.correlate`.  Returns the bytes of workspace.

    `packed` is None: the weights are read as they are.
    """
    cdef direct_job job
    cdef Workspace tables
    cdef task_fn task
    cdef Py_ssize_t tasks = 0, fixed, size = out.size
    cdef size_t scratch = 0
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
    task = choose_way(
        &job, threads, <size_t>max(budget - fixed, 0) // threads, &scratch, &tasks)
    threads = fit_threads(operator, scratch, fixed, threads, budget)
    threads = <int>min(<Py_ssize_t>threads, tasks)
    if not measure:
        run(task, &job, tasks, threads, scratch)
    return fixed + threads * <Py_ssize_t>(scratch + 128)
