"""Convolution with few channels per group (depthwise and its kin), directly.

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
from pyconv._kernels._depthwise_rows cimport choose_rows, rows_task
from pyconv._kernels._integers cimport ceil_div
from pyconv._kernels._parallel cimport Workspace, run, useful_threads
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
