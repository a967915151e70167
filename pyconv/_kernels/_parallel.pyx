"""The one place with OpenMP and workspace memory.

A kernel states its work as numbered tasks; `run` deals them out in consecutive ranges, one range
and one scratch block per thread.  Which thread does a task never shows in its result: tasks write
disjoint outputs and reduce in an order of their own.
"""

cimport cython
from cython.parallel cimport prange
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc

from pyconv._threads import note_parallel_region

cdef extern from *:
    """
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    /* Ask for huge pages: transformed weights, read once in a call, otherwise wait for the page
       table as long as for memory.  A wish, and a system that knows none is as right. */
    static void pyconv_wish_huge_pages(void *start, size_t nbytes) {
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        (void)madvise(start, nbytes, MADV_HUGEPAGE);
    #else
        (void)start, (void)nbytes;
    #endif
    }
    """
    void pyconv_wish_huge_pages(void* start, size_t nbytes) nogil

cdef enum:
    LINE = 64
    HUGE_PAGE = 2 * 1024 * 1024

cdef bint _noted = False

# A thread pays for itself from about this much work; below it, waking it costs more.
cdef double FLOPS_PER_THREAD = 1e6


cdef int useful_threads(int threads, double flops) noexcept nogil:
    """At most `threads`, and no more than the work is worth."""
    cdef double worth = 1.0 + flops / FLOPS_PER_THREAD
    if flops < 2 * FLOPS_PER_THREAD or threads < 1:
        return 1
    return threads if worth >= threads else <int>worth


cdef size_t aligned(size_t nbytes) noexcept nogil:
    """Rounded up to whole cache lines."""
    return (nbytes + 63) & ~<size_t>63


@cython.freelist(8)
cdef class Workspace:
    """`nbytes` of memory that lives as long as this object."""

    def __cinit__(self, size_t nbytes):
        # Large blocks begin with a huge page; what is beyond the last whole one is in small ones.
        cdef size_t unit = HUGE_PAGE if nbytes >= HUGE_PAGE else LINE
        cdef uintptr_t start
        self._block = NULL
        self.nbytes = nbytes
        if nbytes <= <size_t>-1 - unit:
            self._block = malloc(nbytes + unit)
        if self._block == NULL:
            raise MemoryError(f"pyconv could not allocate {nbytes} bytes of workspace")
        start = (<uintptr_t>self._block + unit - 1) & ~<uintptr_t>(unit - 1)
        self.data = <char*>start
        if unit == HUGE_PAGE:
            pyconv_wish_huge_pages(self.data, nbytes & ~<size_t>(HUGE_PAGE - 1))

    def __dealloc__(self):
        free(self._block)


cdef int run(
    task_fn task, const void* ctx, Py_ssize_t tasks, int threads, size_t scratch_bytes
) except -1:
    """Do `tasks` tasks on up to `threads` threads, without the GIL."""
    global _noted
    cdef Workspace scratch
    cdef char* base
    cdef Py_ssize_t i
    # An odd number of lines apart, so that threads' blocks do not share cache sets.
    cdef size_t pitch = aligned(scratch_bytes) + 64
    cdef int nt = threads
    if tasks <= 0:
        return 0
    if nt > tasks:
        nt = <int>tasks
    if nt < 1:
        nt = 1
    scratch = Workspace(pitch * <size_t>nt)
    base = scratch.data
    if nt == 1:
        with nogil:
            task(ctx, base, 0, tasks)
        return 0
    if not _noted:
        note_parallel_region()
        _noted = True
    for i in prange(nt, nogil=True, num_threads=nt, schedule="static", chunksize=1):
        task(ctx, base + <size_t>i * pitch, tasks * i // nt, tasks * (i + 1) // nt)
    return 0
