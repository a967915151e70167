"""Loops that show what this machine can do at best: multiply-adds a second, bytes a second.

They run what the other kernels run, the leaf table of this CPU, on the same threads; the caller
looks at the clock. Nothing else in the package depends on them.
"""

from pyconv._kernels._cpu cimport leaf, leaf_table
from pyconv._kernels._parallel cimport run

cdef enum:
    SLICE = 4096                # elements of the triad that a task does


cdef struct peak_job:
    const leaf_table* leaf
    Py_ssize_t rounds
    double* flops               # of each task


cdef struct triad_job:
    const leaf_table* leaf
    const double* a
    const double* b
    double* out
    Py_ssize_t size


cdef void peak_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are threads: each does all rounds."""
    cdef const peak_job* job = <const peak_job*>ctx
    cdef Py_ssize_t task
    for task in range(first, last):
        job.flops[task] = job.leaf.peak(job.rounds, scratch)


cdef void triad_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are slices of the arrays."""
    cdef const triad_job* job = <const triad_job*>ctx
    cdef Py_ssize_t begin = first * SLICE
    cdef Py_ssize_t end = min(last * SLICE, job.size)
    job.leaf.triad(end - begin, 3.0, job.a + begin, job.b + begin, job.out + begin)


def multiply_add(Py_ssize_t rounds, int compute, int threads):
    """Multiply and add in registers on every one of `threads` threads.

    `compute` is 0 for float32, 1 for float64. Returns the operations done.
    """
    cdef peak_job job
    cdef double[::1] flops = memoryview(bytearray(8 * threads)).cast("d")
    job.leaf = leaf(compute)
    job.rounds = rounds
    job.flops = &flops[0]
    run(peak_task, &job, threads, threads, 64)
    return sum(flops)


def triad(const double[::1] a, const double[::1] b, double[::1] out, int threads):
    """``out = a + 3 * b``, as in the STREAM benchmark; the arrays are equally long."""
    cdef triad_job job
    job.leaf = leaf(1)
    job.size = out.shape[0]
    if job.size == 0:
        return
    job.a = &a[0]
    job.b = &b[0]
    job.out = &out[0]
    run(triad_task, &job, (job.size + SLICE - 1) // SLICE, threads, 0)
