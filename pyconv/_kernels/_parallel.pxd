# The one place with OpenMP and workspace memory.

# Does tasks first..last-1 with a scratch block of its own, 64-byte aligned.
ctypedef void (*task_fn)(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last) noexcept nogil

cdef int useful_threads(int threads, double flops) noexcept nogil
cdef size_t aligned(size_t nbytes) noexcept nogil
cdef int run(
    task_fn task, const void* ctx, Py_ssize_t tasks, int threads, size_t scratch_bytes,
    Py_ssize_t grain=*) except -1


# Memory for the length of a call, freed with the object; 64-byte aligned.
cdef class Workspace:
    cdef char* data
    cdef readonly size_t nbytes
    cdef void* _block
