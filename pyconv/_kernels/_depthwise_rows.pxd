# Boxes whose lines are read where they are: for the layers, and for the packer of a pointwise GEMM.

from pyconv._kernels._depthwise_box cimport direct_job, place


# Some columns of a box, and where the pixels that they meet are.
cdef struct stretch:
    Py_ssize_t column, columns  # of the box; 0 columns: there are none
    Py_ssize_t start            # of its copies in a line of them
    Py_ssize_t pixels, first    # in the array: how many, and the first one ...
    Py_ssize_t lo, hi           # ... and those that are inside
    const void** lines          # [channel][T0][line] where pixel 0 is


cdef size_t choose_rows(direct_job* job) noexcept nogil
cdef size_t rows_scratch(direct_job* job, Py_ssize_t rows) noexcept nogil
cdef void point_lines(
    const direct_job* job, const place* at, const stretch* s, char* copies, const char* zeros,
    const char* src) noexcept nogil
cdef void start_lines(
    const direct_job* job, const place* at, stretch* s, char* copies,
    const void** lines) noexcept nogil
cdef void sum_lines(
    const direct_job* job, const place* at, const stretch* s, const char* weight,
    const char* bias, char* dst, Py_ssize_t dst_rs) noexcept nogil
cdef void rows_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last) noexcept nogil
