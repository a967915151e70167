"""The one place with OpenMP and workspace memory.

A kernel states its work as numbered tasks; `run` deals them out in consecutive ranges, one range
and one scratch block per thread.  A thread that is done takes over some of another's range, whose
core may be busy with something else.  Which thread does a task never shows in its result: tasks
write disjoint outputs and reduce in an order of their own.
"""

cimport cython
from cython.parallel cimport prange
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc

from pyconv._kernels._integers cimport round_up
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
    /* Numbers from 0 on, each to one thread.  Relaxed: what tasks write is ordered by the end of
       the parallel region alone. */
    static Py_ssize_t pyconv_next(Py_ssize_t *count) {
        return __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    }
    """
    Py_ssize_t pyconv_next(Py_ssize_t* count) nogil
    void pyconv_wish_huge_pages(void* start, size_t nbytes) nogil

cdef enum:
    LINE = 64
    HUGE_PAGE = 2 * 1024 * 1024
    PIECES = 5      # of a thread's range: a half of it, a quarter, ..., and twice the last

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


# The work of a parallel region, and who does it.
cdef struct team:
    task_fn task
    const void* ctx
    Py_ssize_t tasks
    Py_ssize_t grain    # tasks that stay together
    int threads
    char* base          # each thread's scratch,
    size_t pitch        # ... so many bytes apart, with how many pieces are taken in its last line


cdef inline Py_ssize_t piece_start(
    const team* t, Py_ssize_t count, Py_ssize_t piece
) noexcept nogil:
    """The first task of a piece of `count`."""
    return min(count, round_up(count - (count >> piece), t.grain))


cdef void work(const team* t, int thread) noexcept nogil:
    """A thread's own range, piece by piece, and then what others have not begun of theirs."""
    cdef char* scratch = t.base + <size_t>thread * t.pitch
    cdef Py_ssize_t first, count, piece, lo, hi
    cdef int i, owner
    for i in range(t.threads):
        owner = (thread + i) % t.threads
        first = t.tasks * owner // t.threads
        count = t.tasks * (owner + 1) // t.threads - first
        while True:
            piece = pyconv_next(<Py_ssize_t*>(t.base + <size_t>(owner + 1) * t.pitch - LINE))
            if piece >= PIECES:
                break
            lo = piece_start(t, count, piece)
            hi = count if piece == PIECES - 1 else piece_start(t, count, piece + 1)
            if lo < hi:
                t.task(t.ctx, scratch, first + lo, first + hi)


cdef int run(
    task_fn task, const void* ctx, Py_ssize_t tasks, int threads, size_t scratch_bytes,
    Py_ssize_t grain=1
) except -1:
    """Do `tasks` tasks on up to `threads` threads, without the GIL.

    Threads take over from each other what is left of so many tasks, `grain`, or more.
    """
    global _noted
    cdef Workspace scratch
    cdef team t
    cdef Py_ssize_t i
    cdef int nt = threads
    if tasks <= 0:
        return 0
    if nt > tasks:
        nt = <int>tasks
    if nt < 1:
        nt = 1
    t.task, t.ctx, t.tasks, t.grain, t.threads = task, ctx, tasks, grain, nt
    # A line between threads' blocks: they do not all begin in the same cache sets.
    t.pitch = aligned(scratch_bytes) + LINE
    scratch = Workspace(t.pitch * <size_t>nt)
    t.base = scratch.data
    if nt == 1:
        with nogil:
            task(ctx, t.base, 0, tasks)
        return 0
    for i in range(nt):
        (<Py_ssize_t*>(t.base + <size_t>(i + 1) * t.pitch - LINE))[0] = 0
    if not _noted:
        note_parallel_region()
        _noted = True
    for i in prange(nt, nogil=True, num_threads=nt, schedule="static", chunksize=1):
        work(&t, <int>i)
    return 0
