# Boxes whose lines are copied: for whoever else takes taps of such lines, or copies them.

from pyconv._kernels._cpu cimport leaf_ahead
from pyconv._kernels._depthwise_box cimport box, direct_job, place
from pyconv._kernels._tensor cimport tensor

cdef bint better_singly(const direct_job* job, Py_ssize_t rows, Py_ssize_t length) noexcept nogil
cdef void load_plane(
    const direct_job* job, const tensor* t, const char* src, Py_ssize_t src_rs, Py_ssize_t src_cs,
    char* dst, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t columns) noexcept nogil
cdef void load_lines(
    const direct_job* job, box* b, Py_ssize_t n, Py_ssize_t g, Py_ssize_t count,
    const place* at) noexcept nogil
cdef void sum_taps(
    const direct_job* job, const place* at, const char* lines, const char* weight,
    const char* bias, char* dst, Py_ssize_t dst_rs, leaf_ahead ahead) noexcept nogil
cdef void copies_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last) noexcept nogil
cdef size_t choose_block(direct_job* job, int threads) noexcept nogil
