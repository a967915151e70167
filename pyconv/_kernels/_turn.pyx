"""Images with channels last: for kernels that take the channels of a pixel as vectors."""

from pyconv._kernels._gemm cimport evenly_spaced
from pyconv._kernels._integers cimport ceil_div
from pyconv._kernels._parallel cimport run

cdef enum:
    TILE_PIXELS = 128           # turned round together, ...
    TILE_CHANNELS = 16          # ... a tile that stays in L1


cdef struct turn_job:
    const tensor* x
    const tensor* last
    const leaf_table* leaf
    Py_ssize_t n                # of the first sample
    Py_ssize_t length           # elements of a row, evenly spaced by ...
    Py_ssize_t step             # ... this many bytes
    Py_ssize_t rows, pieces     # rows of a sample, pieces of TILE_PIXELS elements of a row


cdef void turn_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are pieces of rows of samples; all channels of each."""
    cdef const turn_job* job = <const turn_job*>ctx
    cdef const tensor* x = job.x
    cdef Py_ssize_t es = job.leaf.esize, task, n, row, j, c, count, channels
    cdef const char* src
    cdef char* dst
    for task in range(first, last):
        j = task % job.pieces * TILE_PIXELS
        row = task // job.pieces % job.rows
        n = task // job.pieces // job.rows
        count = min(<Py_ssize_t>TILE_PIXELS, job.length - j)
        src = x.data + (job.n + n) * x.stride[0] + j * job.step
        if job.rows > 1:
            src += row // x.shape[3] * x.stride[2] + row % x.shape[3] * x.stride[3]
        dst = job.last.data + n * job.last.stride[0] + (row * job.length + j) * job.last.stride[4]
        c = 0
        while c < x.shape[1]:
            channels = min(<Py_ssize_t>TILE_CHANNELS, x.shape[1] - c)
            if x.in_place and job.step == es:
                job.leaf.transpose(
                    channels, count, src + c * x.stride[1], x.stride[1] // es, dst + c * es,
                    x.shape[1])
            else:
                job.leaf.load[x.storage](
                    scratch, TILE_PIXELS, src + c * x.stride[1], x.stride[1], job.step, channels,
                    count)
                job.leaf.transpose(
                    channels, count, scratch, TILE_PIXELS, dst + c * es, x.shape[1])
            c += TILE_CHANNELS


cdef int turn(
    const tensor* x, const leaf_table* leaf, Py_ssize_t n, Py_ssize_t count, char* store,
    int threads, tensor* last
) except -1:
    """Samples n .. n+count-1 of x (N, C, S0, S1, S2) as (count, S0, S1, S2, C) in `store`.

    In the compute type; `last` is set to what they are now, in the order of axes of x.
    """
    cdef turn_job job
    cdef int axis
    last[0] = x[0]
    last.data = store
    last.stride[1] = leaf.esize
    last.stride[4] = x.shape[1] * leaf.esize
    for axis in (3, 2):
        last.stride[axis] = last.shape[axis + 1] * last.stride[axis + 1]
    last.stride[0] = last.shape[2] * last.stride[2]
    job.x, job.last, job.leaf, job.n = x, last, leaf, n
    job.rows, job.length = 1, x.shape[2] * x.shape[3] * x.shape[4]
    if not evenly_spaced(x, &job.step):
        job.rows, job.length = x.shape[2] * x.shape[3], x.shape[4]
        job.step = x.stride[4]
    job.pieces = ceil_div(job.length, TILE_PIXELS)
    return run(turn_task, &job, count * job.rows * job.pieces, threads,
               TILE_PIXELS * TILE_CHANNELS * leaf.esize)
