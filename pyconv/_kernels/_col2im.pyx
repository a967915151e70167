"""col2im by gathering: columns of a transposed convolution to its output; and two other sums,
of padded positions into the elements they copy, and of planes.

::

    out[m, i] = bias[m] + sum over t, q with q*stride + t*dilation - before = i of columns[m, t, q]

Every output row is one task's: it collects what belongs to it, taps in order, so there are no
atomics and the order of the additions is fixed.
"""

from libc.string cimport memset

from pyconv._kernels._cpu cimport LEAF_LANE_BYTES, leaf, leaf_table
from pyconv._kernels._integers cimport ceil_div
from pyconv._kernels._parallel cimport Workspace, run, useful_threads
from pyconv._kernels._tensor cimport describe, source_index, tensor

from pyconv._kernels._tensor import PADDING_MODES

cdef enum:
    SUM_BLOCK = 1024


# The columns of a tap of the last axis that land inside a row, and where the first one does.
cdef struct tap_run:
    Py_ssize_t first, count
    Py_ssize_t place            # with elements that are the stride apart next to each other


cdef struct fold_job:
    const leaf_table* leaf
    const char* columns         # [N][M][T0][T1][T2][Q0][Q1][Q2], compute type
    tensor out                  # (N, M, I0, I1, I2)
    tensor bias
    bint has_bias
    Py_ssize_t taps[3]
    Py_ssize_t box[3]           # Q: extents of the columns
    Py_ssize_t stride[3]
    Py_ssize_t dilation[3]      # may be negative
    Py_ssize_t shift[3]         # output i gets column q with q*stride + t*dilation + shift = i
    Py_ssize_t pitch            # elements of a row that are the stride apart, at most
    const tap_run* run          # of each tap of the last axis


cdef void fold_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are output rows, (n, m, i0, i1) flattened.

    Elements of a row that are the stride apart are summed next to each other, and woven then.
    """
    cdef const fold_job* job = <const fold_job*>ctx
    cdef const leaf_table* table = job.leaf
    cdef const tensor* out = &job.out
    cdef Py_ssize_t es = table.esize, size = out.shape[4], stride = job.stride[2]
    cdef Py_ssize_t _task, image, m, i0, i1, t0, t1, t2, d0, d1
    cdef Py_ssize_t plane = job.box[0] * job.box[1] * job.box[2], held = -1
    cdef double bias = 0        # room for either compute type
    cdef const tap_run* part
    cdef const char* src
    cdef char* row
    cdef bint met
    i1 = first % out.shape[3]
    i0 = first // out.shape[3] % out.shape[2]
    image = first // out.shape[3] // out.shape[2]
    m = image % out.shape[1]
    for _task in range(first, last):
        met = False
        memset(scratch, 0, stride * job.pitch * es)
        for t0 in range(job.taps[0]):
            d0 = i0 - t0 * job.dilation[0] - job.shift[0]
            if d0 < 0 or d0 % job.stride[0] or d0 // job.stride[0] >= job.box[0]:
                continue
            for t1 in range(job.taps[1]):
                d1 = i1 - t1 * job.dilation[1] - job.shift[1]
                if d1 < 0 or d1 % job.stride[1] or d1 // job.stride[1] >= job.box[1]:
                    continue
                met = True
                src = job.columns + (
                    ((image * job.taps[0] + t0) * job.taps[1] + t1) * job.taps[2] * plane
                    + (d0 // job.stride[0] * job.box[1] + d1 // job.stride[1]) * job.box[2]) * es
                for t2 in range(job.taps[2]):
                    part = &job.run[t2]
                    if part.count > 0:
                        table.add_strided(
                            part.count, src + (t2 * plane + part.first) * es,
                            scratch + part.place * es, 1)
        if job.has_bias:
            if m != held:
                table.load[job.bias.storage](
                    &bias, 0, job.bias.data + m * job.bias.stride[0], 0, 0, 1, 1)
                held = m
            add_bias(table, &bias, stride * job.pitch, scratch)
        row = scratch
        if met and stride > 1:      # else all elements are the same
            row += stride * job.pitch * es
            table.interleave(1, job.pitch, stride, 0, scratch, 0, job.pitch, row, 0)
        table.store[out.storage](
            out.data + image // out.shape[1] * out.stride[0] + m * out.stride[1]
            + i0 * out.stride[2] + i1 * out.stride[3], 0, out.stride[4], row, 0, 1, size)
        i1 += 1     # rows are short where there are many: divisions would show
        if i1 == out.shape[3]:
            i1 = 0
            i0 += 1
            if i0 == out.shape[2]:
                i0 = 0
                image += 1
                m = image % out.shape[1]


cdef void place_tap(const fold_job* job, Py_ssize_t t, tap_run* to) noexcept nogil:
    cdef Py_ssize_t start = t * job.dilation[2] + job.shift[2], stride = job.stride[2]
    to.first = (-start + stride - 1) // stride if start < 0 else 0
    to.count = 0
    if start < job.out.shape[4]:
        to.count = min(job.box[2], (job.out.shape[4] - 1 - start) // stride + 1) - to.first
    start += to.first * stride
    to.place = start % stride * job.pitch + start // stride


cdef void add_bias(
    const leaf_table* table, const double* bias, Py_ssize_t count, char* sums
) noexcept nogil:
    cdef Py_ssize_t j
    if table.esize == 4:
        for j in range(count):
            (<float*>sums)[j] += (<const float*>bias)[0]
    else:
        for j in range(count):
            (<double*>sums)[j] += bias[0]


def fold(columns, bias, out, taps, stride, dilation, shift, int compute, int threads):
    """columns (N, M, T0*T1*T2, Q0, Q1, Q2), contiguous, into `out` (N, M, I0, I1, I2)."""
    cdef fold_job job
    cdef tensor c
    cdef Workspace runs
    cdef Py_ssize_t t
    cdef int axis
    describe(columns, 6, compute, &c)
    describe(out, 5, compute, &job.out)
    job.leaf = leaf(compute)
    job.columns = c.data
    job.has_bias = bias is not None
    if job.has_bias:
        describe(bias, 1, compute, &job.bias)
    for axis in range(3):
        job.taps[axis] = taps[axis]
        job.box[axis] = c.shape[3 + axis]
        job.stride[axis] = stride[axis]
        job.dilation[axis] = dilation[axis]
        job.shift[axis] = shift[axis]
    job.pitch = ceil_div(job.out.shape[4], job.stride[2])
    runs = Workspace(job.taps[2] * sizeof(tap_run))
    job.run = <const tap_run*>runs.data
    for t in range(job.taps[2]):
        place_tap(&job, t, <tap_run*>runs.data + t)
    # Two rows, one before and one after weaving, which reads a vector too far.
    run(fold_task, &job,
        job.out.shape[0] * job.out.shape[1] * job.out.shape[2] * job.out.shape[3],
        useful_threads(threads, 32.0 * columns.size),
        2 * job.stride[2] * job.pitch * job.leaf.esize + LEAF_LANE_BYTES)


# ---- padded positions to the elements that they are copies of ----------------------------------

# An axis of padded positions: the element that each of them copies, and runs of positions, whose
# copies are added one run after another.
cdef struct padded_axis:
    const Py_ssize_t* element   # -1: not of the total
    const Py_ssize_t* stop      # of each run; they begin at `start`
    const Py_ssize_t* start
    const Py_ssize_t* along     # whether the elements of the run follow each other
    Py_ssize_t runs


cdef struct padding_job:
    const leaf_table* leaf
    tensor part                 # (N, C, P0, P1, P2), compute type, the last axis contiguous
    tensor total                # (N, C, I0, I1, I2), likewise
    padded_axis axis[3]


cdef void add_row(const padding_job* job, const char* src, char* dst) noexcept nogil:
    cdef const padded_axis* axis = &job.axis[2]
    cdef const Py_ssize_t* element = axis.element
    cdef Py_ssize_t r, p, es = job.leaf.esize
    for r in range(axis.runs):
        if axis.along[r]:
            p = axis.start[r]
            job.leaf.add_strided(axis.stop[r] - p, src + p * es, dst + element[p] * es, 1)
        elif es == 4:
            for p in range(axis.start[r], axis.stop[r]):
                if element[p] >= 0:
                    (<float*>dst)[element[p]] += (<const float*>src)[p]
        else:
            for p in range(axis.start[r], axis.stop[r]):
                if element[p] >= 0:
                    (<double*>dst)[element[p]] += (<const double*>src)[p]


cdef void padding_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are images, (n, c) flattened: copies in ascending order, run by run."""
    cdef const padding_job* job = <const padding_job*>ctx
    cdef const tensor* part = &job.part
    cdef const tensor* total = &job.total
    cdef Py_ssize_t task, r0, r1, p0, p1, i0, i1, n, c
    cdef const char* src
    cdef char* dst
    for task in range(first, last):
        n, c = task // part.shape[1], task % part.shape[1]
        src = part.data + n * part.stride[0] + c * part.stride[1]
        dst = total.data + n * total.stride[0] + c * total.stride[1]
        for r0 in range(job.axis[0].runs):
            for r1 in range(job.axis[1].runs):
                for p0 in range(job.axis[0].start[r0], job.axis[0].stop[r0]):
                    i0 = job.axis[0].element[p0]
                    if i0 < 0:
                        continue
                    for p1 in range(job.axis[1].start[r1], job.axis[1].stop[r1]):
                        i1 = job.axis[1].element[p1]
                        if i1 < 0:
                            continue
                        add_row(job, src + p0 * part.stride[2] + p1 * part.stride[3],
                                dst + i0 * total.stride[2] + i1 * total.stride[3])


def add_padded(part, total, first, runs, size, lo, str mode, int compute, int threads):
    """Add `part` (N, C, P0, P1, P2), at padded positions, to the elements that they copy.

    `part` begins at the positions `first`, of which it has, for each axis, the `runs`.  `total`
    (N, C, I0, I1, I2) are the elements from `lo` of axes of extents `size`; both arrays are of the
    compute type, and contiguous along their last axis.  Copies of other elements are left out.
    """
    cdef padding_job job
    cdef Workspace table
    cdef Py_ssize_t* place
    cdef Py_ssize_t* element
    cdef Py_ssize_t p, i, count, start, stop
    cdef int axis, code = PADDING_MODES[mode]
    describe(part, 5, compute, &job.part)
    describe(total, 5, compute, &job.total)
    job.leaf = leaf(compute)
    table = Workspace(
        sum([job.part.shape[2 + axis] + 3 * len(runs[axis]) for axis in range(3)]) * sizeof(p))
    place = <Py_ssize_t*>table.data
    for axis in range(3):
        element, place = place, place + job.part.shape[2 + axis]
        count = len(runs[axis])
        job.axis[axis].runs, job.axis[axis].element = count, element
        job.axis[axis].start, job.axis[axis].stop = place, place + count
        job.axis[axis].along = place + 2 * count
        for i in range(count):
            start, stop = runs[axis][i]
            start, stop = start - <Py_ssize_t>first[axis], stop - <Py_ssize_t>first[axis]
            place[i], place[count + i] = start, stop
            fill_elements(
                element, start, stop, <Py_ssize_t>first[axis], size[axis], lo[axis],
                job.total.shape[2 + axis], code)
            place[2 * count + i] = ascending(element, start, stop)
        place += 3 * count
    run(padding_task, &job, job.part.shape[0] * job.part.shape[1],
        useful_threads(threads, 8.0 * part.size), 0)


cdef void fill_elements(
    Py_ssize_t* element, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t first, Py_ssize_t size,
    Py_ssize_t lo, Py_ssize_t count, int mode
) noexcept nogil:
    """Which of `count` elements from `lo` the positions start .. stop-1 from `first` copy."""
    cdef Py_ssize_t p, i
    for p in range(start, stop):
        i = source_index(first + p, size, mode) - lo
        element[p] = i if 0 <= i < count else -1


cdef bint ascending(const Py_ssize_t* element, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Whether the elements follow each other."""
    cdef Py_ssize_t p
    for p in range(start, stop):
        if element[p] < 0 or element[p] != element[start] + p - start:
            return False
    return stop > start


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
    run(sum_task, &job, job.x.shape[1], useful_threads(threads, 8.0 * x.size), SUM_BLOCK * 8)
