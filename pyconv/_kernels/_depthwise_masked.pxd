# Boxes whose lines are read to their ends: for the layers, and for the packer of a pointwise GEMM.

from pyconv._kernels._cpu cimport leaf_ahead
from pyconv._kernels._depthwise_box cimport direct_job, place

cdef enum:
    MANY_TAPS = 49              # from so many on copies are faster: of far images, of few rows


cdef size_t choose_masked(direct_job* job) noexcept nogil
cdef void start_masked(const direct_job* job, char* scratch) noexcept nogil
cdef void sum_group(
    const direct_job* job, const place* at, char* scratch, Py_ssize_t n, Py_ssize_t g,
    Py_ssize_t first, Py_ssize_t last, char* dst, Py_ssize_t dst_ms,
    Py_ssize_t dst_rs, leaf_ahead ahead) noexcept nogil
cdef void masked_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last) noexcept nogil
