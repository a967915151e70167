"""Weights as Winograd's algorithm multiplies with them: U = G0 w G1t, place by place of a tile.

Transformed in double whatever the compute type, and rounded once.  They are in the order of the
product: in row blocks of mr, or, where rows are lanes, in panels, as in _gemm.pyx::

    U[group][place][block of KC][row block or panel][depth][row]

Places whose weights are equal, see leaf.inc.c, share them.
"""

from pyconv._kernels._cpu cimport LEAF_KERNELS, leaf, leaf_of_lanes
from pyconv._kernels._gemm cimport depth_block, lane_panels, lanes_from
from pyconv._kernels._integers cimport ceil_div, odd_lines
from pyconv._kernels._parallel cimport aligned, run, useful_threads
from pyconv._kernels._tensor cimport describe

cdef enum:
    DEPTHS = 16                 # transformed together


cdef struct weight_job:
    const leaf_table* leaf
    const leaf_winograd* axis[2]
    const tensor* weight        # (G, M, C, T0, r0, r1)
    char* u
    Py_ssize_t u_place
    Py_ssize_t row, rows        # which of the M
    bint lanes
    Py_ssize_t blocks           # row blocks, or panels


cdef void weight_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """U of row block `task`."""
    cdef const weight_job* job = <const weight_job*>ctx
    cdef const leaf_table* table = job.leaf
    cdef const tensor* w = job.weight
    cdef Py_ssize_t es = table.esize, held = held_rows(job.rows, table, job.lanes)
    cdef Py_ssize_t step = table.nr if job.lanes else table.mr, width = step
    cdef Py_ssize_t depths = w.shape[2] * w.shape[3], kc = depth_block(depths, DEPTH_BLOCK)
    cdef Py_ssize_t r0 = w.shape[4], r1 = w.shape[5], taps = r0 * r1
    cdef Py_ssize_t task, g, m, k, k0, depth, t0, c, count, rows, i, j
    # whether the taps of neighbouring channels are evenly spaced
    cdef bint even = w.stride[4] == r1 * w.stride[5] and w.stride[2] == taps * w.stride[5]
    cdef const char* src
    cdef char* u
    for task in range(first, last):
        g, m = task // job.blocks, task % job.blocks * step
        if job.lanes:
            width = lanes_from(job.rows - m, table)
        rows = min(width, job.rows - m)
        k = 0
        while k < depths:
            k0 = k // kc * kc
            depth = min(kc, depths - k0)
            t0, c = k // w.shape[2], k % w.shape[2]
            count = min(min(<Py_ssize_t>DEPTHS, w.shape[2] - c), k0 + depth - k)
            u = job.u + (g * distinct_places(job.axis) * job.u_place + k0 * held + m * depth
                         + (k - k0) * width) * es
            src = (w.data + g * w.stride[0] + (job.row + m) * w.stride[1] + c * w.stride[2]
                   + t0 * w.stride[3])
            k += count
            if even and w.in_place and w.stride[5] == es:
                transform_kernels(job, rows, width, count, src, w.stride[1] // es, scratch, u)
                continue
            for i in range(rows):
                if even:
                    table.load[w.storage](
                        scratch + i * taps * DEPTHS * es, 0, src + i * w.stride[1], 0, w.stride[5],
                        1, taps * count)
                    continue
                for j in range(count):
                    table.load[w.storage](
                        scratch + taps * (i * DEPTHS + j) * es, r1,
                        src + i * w.stride[1] + j * w.stride[2], w.stride[4], w.stride[5], r0, r1)
            transform_kernels(job, rows, width, count, scratch, DEPTHS * taps, scratch, u)


cdef void transform_kernels(
    const weight_job* job, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t depths, const char* src,
    Py_ssize_t apart, char* scratch, char* u
) noexcept nogil:
    """G0 w G1t of `rows` rows of kernels, so many elements apart, and zeros.

    They may lie at the start of the scratch.
    """
    cdef const leaf_table* table = job.leaf
    cdef const leaf_winograd* down = job.axis[0]
    cdef const leaf_winograd* along = job.axis[1]
    cdef Py_ssize_t n = depths * width, most = kernels_at_once(table, job.lanes), i, j
    cdef Py_ssize_t count = round_up(n, LEAF_KERNELS)
    cdef Py_ssize_t line = along.taps * most, taps = down.taps * along.taps
    cdef double* w = <double*>(scratch + aligned(taps * most * table.esize))
    cdef double* part = w + taps * most
    table.spread(rows, width, depths, taps, src, apart, w, most)
    for j in range(along.taps):
        down.weights(count, w + j * most, line, part + j * most, line)
    for i in range(down.distinct):
        along.last_weights(n, part + i * line, most, u, job.u_place)
        u += along.distinct * job.u_place * table.esize


cdef inline Py_ssize_t kernels_at_once(const leaf_table* table, bint lanes) noexcept nogil:
    return round_up(DEPTHS * (3 * table.nr // 2 if lanes else table.mr), LEAF_KERNELS)


cdef Py_ssize_t weight_place(
    const tensor* w, Py_ssize_t rows, const leaf_table* table, bint lanes=False
) noexcept nogil:
    """Elements of U from one place to the next."""
    return odd_lines(held_rows(rows, table, lanes) * w.shape[2] * w.shape[3], table.esize)


cdef Py_ssize_t weight_bytes(
    const tensor* w, const leaf_winograd* const* axis, Py_ssize_t rows, const leaf_table* table,
    bint lanes=False
) noexcept nogil:
    """Size of U for `rows` rows of every group."""
    return (w.shape[0] * distinct_places(axis) * weight_place(w, rows, table, lanes)
            * table.esize)


cdef int transform_weights(
    const tensor* w, const leaf_winograd* const* axis, Py_ssize_t row, Py_ssize_t rows,
    const leaf_table* table, int threads, char* u, bint lanes=False
) except -1:
    """U of rows row .. row+rows-1 of every group."""
    cdef weight_job job
    cdef Py_ssize_t taps = w.shape[4] * w.shape[5]
    job.leaf, job.weight, job.u, job.row, job.rows = table, w, u, row, rows
    job.axis[0], job.axis[1] = axis[0], axis[1]
    job.lanes = lanes
    job.blocks = lane_panels(rows, table) if lanes else ceil_div(rows, table.mr)
    job.u_place = weight_place(w, rows, table, lanes)
    run(weight_task, &job, w.shape[0] * job.blocks,
        useful_threads(threads, 20.0 * taps * w.shape[0] * rows * w.shape[2] * w.shape[3]),
        kernels_at_once(table, lanes) * (
            taps * (table.esize + 8) + 8 * axis[0].distinct * w.shape[5]) + 64)
    return 0


cdef class TransformedWeights:
    """U of all weights; made by a plan, used by every call of it."""

    @property
    def nbytes(self):
        return self.store.nbytes


cdef int find_axes(
    const leaf_table* table, const tensor* w, object stride, object outputs,
    const leaf_winograd** axis
) except -1:
    """What there is for the taps of the last two axes and tiles of so many outputs."""
    cdef Py_ssize_t i, m
    for i in range(2):
        m = outputs[i]
        axis[i] = table.winograd
        while axis[i].outputs and not (
                axis[i].outputs == m and axis[i].taps == w.shape[4 + i]
                and (axis[i].stride == stride[1 + i] or i == 0 and m == w.shape[4] == 1)):
            axis[i] += 1
        if not axis[i].outputs:
            raise ValueError(f"no tiles of {m} outputs")
    return 0


def pack_weights(outputs, stride, weight, int compute, int threads, bint lanes=False):
    """Weights (G, M, C, T0, r0, r1) for tiles of `outputs`, as the kernel reads them."""
    cdef TransformedWeights result = TransformedWeights()
    cdef tensor w
    cdef const leaf_winograd* axis[2]
    describe(weight, 6, compute, &w)
    result.leaf = leaf_of_lanes(compute, w.shape[1]) if lanes else leaf(compute)
    find_axes(result.leaf, &w, stride, outputs, axis)
    result.store = Workspace(weight_bytes(&w, axis, w.shape[1], result.leaf, lanes))
    transform_weights(
        &w, axis, 0, w.shape[1], result.leaf, threads, result.store.data, lanes)
    return result
