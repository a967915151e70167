"""col2im by gathering: columns of a transposed convolution to its output; and two other sums,
of padded positions into the elements they copy, and of planes.

::

    out[m, i] = bias[m] + sum over t, q with q*stride + t*dilation - before = i of columns[m, t, q]

Every output row is one task's: it collects what belongs to it, taps in order, so there are no
atomics and the order of the additions is fixed.
"""

from libc.string cimport memset

from pyconv._kernels._cpu cimport leaf, leaf_table
from pyconv._kernels._parallel cimport run, useful_threads
from pyconv._kernels._tensor cimport describe, source_index, tensor

from pyconv._kernels._tensor import PADDING_MODES

cdef enum:
    SUM_BLOCK = 1024


cdef struct fold_job:
    const leaf_table* leaf
    const char* columns         # [M][T0][T1][T2][Q0][Q1][Q2], compute type
    tensor out                  # (M, I0, I1, I2)
    tensor bias
    bint has_bias
    Py_ssize_t taps[3]
    Py_ssize_t box[3]           # Q: extents of the columns
    Py_ssize_t stride[3]
    Py_ssize_t dilation[3]      # may be negative
    Py_ssize_t shift[3]         # output i gets column q with q*stride + t*dilation + shift = i


cdef void fold_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are output rows, (m, i0, i1) flattened."""
    cdef const fold_job* job = <const fold_job*>ctx
    cdef const leaf_table* table = job.leaf
    cdef const tensor* out = &job.out
    cdef Py_ssize_t es = table.esize, size = out.shape[3]
    cdef Py_ssize_t task, m, i0, i1, t0, t1, t2, d0, d1, start, q_lo, q_hi
    cdef Py_ssize_t plane = job.box[0] * job.box[1] * job.box[2]
    cdef const char* src
    cdef double bias = 0        # room for either compute type
    for task in range(first, last):
        i1 = task % out.shape[2]
        i0 = task // out.shape[2] % out.shape[1]
        m = task // out.shape[2] // out.shape[1]
        memset(scratch, 0, size * es)
        for t0 in range(job.taps[0]):
            d0 = i0 - t0 * job.dilation[0] - job.shift[0]
            if d0 < 0 or d0 % job.stride[0] or d0 // job.stride[0] >= job.box[0]:
                continue
            for t1 in range(job.taps[1]):
                d1 = i1 - t1 * job.dilation[1] - job.shift[1]
                if d1 < 0 or d1 % job.stride[1] or d1 // job.stride[1] >= job.box[1]:
                    continue
                for t2 in range(job.taps[2]):
                    start = t2 * job.dilation[2] + job.shift[2]
                    # columns q_lo .. q_hi-1 land inside the row
                    q_lo = (-start + job.stride[2] - 1) // job.stride[2] if start < 0 else 0
                    if start >= size:
                        continue
                    q_hi = min(job.box[2], (size - 1 - start) // job.stride[2] + 1)
                    if q_hi <= q_lo:
                        continue
                    src = job.columns + (
                        (((m * job.taps[0] + t0) * job.taps[1] + t1) * job.taps[2] + t2) * plane
                        + (d0 // job.stride[0] * job.box[1] + d1 // job.stride[1]) * job.box[2]
                        + q_lo) * es
                    table.add_strided(
                        q_hi - q_lo, src, scratch + (start + q_lo * job.stride[2]) * es,
                        job.stride[2])
        if job.has_bias:
            table.load[job.bias.storage](
                &bias, 0, job.bias.data + m * job.bias.stride[0], 0, 0, 1, 1)
            add_scalar(scratch, size, &bias, es)
        table.store[out.storage](
            out.data + m * out.stride[0] + i0 * out.stride[1] + i1 * out.stride[2], 0,
            out.stride[3], scratch, 0, 1, size)


cdef inline void add_scalar(
    char* row, Py_ssize_t size, const void* value, Py_ssize_t es
) noexcept nogil:
    cdef Py_ssize_t j
    if es == 4:
        for j in range(size):
            (<float*>row)[j] += (<const float*>value)[0]
    else:
        for j in range(size):
            (<double*>row)[j] += (<const double*>value)[0]


def fold(columns, bias, out, taps, stride, dilation, shift, int compute, int threads):
    """columns (M, T0*T1*T2, Q0, Q1, Q2), contiguous, into `out` (M, I0, I1, I2)."""
    cdef fold_job job
    cdef tensor c
    cdef int axis
    describe(columns, 5, compute, &c)
    describe(out, 4, compute, &job.out)
    job.leaf = leaf(compute)
    job.columns = c.data
    job.has_bias = bias is not None
    if job.has_bias:
        describe(bias, 1, compute, &job.bias)
    for axis in range(3):
        job.taps[axis] = taps[axis]
        job.box[axis] = c.shape[2 + axis]
        job.stride[axis] = stride[axis]
        job.dilation[axis] = dilation[axis]
        job.shift[axis] = shift[axis]
    run(fold_task, &job, job.out.shape[0] * job.out.shape[1] * job.out.shape[2],
        useful_threads(threads, 2.0 * columns.size), job.out.shape[3] * job.leaf.esize)


# ---- padded positions to the elements that they are copies of ----------------------------------

cdef struct padding_job:
    tensor part                 # (N, C, P0, P1, P2), contiguous, compute type
    tensor total                # (N, C, I0, I1, I2), likewise
    Py_ssize_t first[3]         # padded position of the part's first element
    Py_ssize_t size[3]          # of the whole axis
    Py_ssize_t lo[3]            # element of the axis that the total begins with
    int mode
    bint single


cdef void padding_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are images, (n, c) flattened: every element gets its copies in ascending order."""
    cdef const padding_job* job = <const padding_job*>ctx
    cdef const tensor* part = &job.part
    cdef const tensor* total = &job.total
    cdef Py_ssize_t plane = part.shape[2] * part.shape[3] * part.shape[4]
    cdef Py_ssize_t sums = total.shape[2] * total.shape[3] * total.shape[4]
    cdef Py_ssize_t task, p0, p1, p2, i0, i1, i2, src, dst
    for task in range(first, last):
        for p0 in range(part.shape[2]):
            i0 = source_index(job.first[0] + p0, job.size[0], job.mode) - job.lo[0]
            if not 0 <= i0 < total.shape[2]:
                continue
            for p1 in range(part.shape[3]):
                i1 = source_index(job.first[1] + p1, job.size[1], job.mode) - job.lo[1]
                if not 0 <= i1 < total.shape[3]:
                    continue
                src = task * plane + (p0 * part.shape[3] + p1) * part.shape[4]
                dst = task * sums + (i0 * total.shape[3] + i1) * total.shape[4]
                for p2 in range(part.shape[4]):
                    i2 = source_index(job.first[2] + p2, job.size[2], job.mode) - job.lo[2]
                    if not 0 <= i2 < total.shape[4]:
                        continue
                    if job.single:
                        (<float*>total.data)[dst + i2] += (<const float*>part.data)[src + p2]
                    else:
                        (<double*>total.data)[dst + i2] += (<const double*>part.data)[src + p2]


def add_padded(part, total, first, size, lo, str mode, int compute, int threads):
    """Add `part` (N, C, P0, P1, P2), at padded positions, to the elements that they copy.

    `total` (N, C, I0, I1, I2) are the elements from `lo` of axes of extents `size`; both arrays are
    contiguous and of the compute type.  Copies of other elements are left out.
    """
    cdef padding_job job
    cdef int axis
    describe(part, 5, compute, &job.part)
    describe(total, 5, compute, &job.total)
    job.mode = PADDING_MODES[mode]
    job.single = leaf(compute).esize == 4
    for axis in range(3):
        job.first[axis], job.size[axis], job.lo[axis] = first[axis], size[axis], lo[axis]
    run(padding_task, &job, job.part.shape[0] * job.part.shape[1],
        useful_threads(threads, 8.0 * part.size), 0)


# ---- sums over everything but the channel: the gradient of a bias ------------------------------

cdef struct sum_job:
    const leaf_table* leaf
    tensor x                    # (N, C, S0, S1, S2)
    tensor out                  # (C,)


cdef void sum_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are channels: blocks of a row are summed in the compute type, blocks in double."""
    cdef const sum_job* job = <const sum_job*>ctx
    cdef const tensor* x = &job.x
    cdef Py_ssize_t c, n, i0, i1, i2, count
    cdef double total
    cdef float single
    for c in range(first, last):
        total = 0
        for n in range(x.shape[0]):
            for i0 in range(x.shape[2]):
                for i1 in range(x.shape[3]):
                    i2 = 0
                    while i2 < x.shape[4]:
                        count = min(<Py_ssize_t>SUM_BLOCK, x.shape[4] - i2)
                        job.leaf.load[x.storage](
                            scratch, 0,
                            x.data + n * x.stride[0] + c * x.stride[1] + i0 * x.stride[2]
                            + i1 * x.stride[3] + i2 * x.stride[4], 0, x.stride[4], 1, count)
                        total += job.leaf.sum(count, scratch)
                        i2 += count
        single = <float>total
        job.leaf.store[job.out.storage](
            job.out.data + c * job.out.stride[0], 0, 0,
            <const void*>&single if job.leaf.esize == 4 else <const void*>&total, 0, 1, 1)


def sum_channels(x, out, int compute, int threads):
    """out[c] = sum of x[:, c]; x: (N, C, S0, S1, S2)."""
    cdef sum_job job
    describe(x, 5, compute, &job.x)
    describe(out, 1, compute, &job.out)
    job.leaf = leaf(compute)
    run(sum_task, &job, job.x.shape[1], useful_threads(threads, x.size), SUM_BLOCK * 8)
