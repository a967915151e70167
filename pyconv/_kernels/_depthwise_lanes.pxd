# Boxes where channels are the vectors: for the layers, and for the gradient of the weights.

from pyconv._kernels._depthwise_box cimport box, direct_job, place

cdef enum:
    FEW_PIXELS = 256            # of a plane of results: rows may be too short to be vectors


# What a box reads of the input, as far as it is inside the array.
cdef struct window:
    const char* data            # the first line and pixel that are inside
    Py_ssize_t channel, plane, line, pixel  # elements from each to the next
    Py_ssize_t first1, first2   # in the array: line and pixel 0 of the box ...
    Py_ssize_t lines, pixels    # ... and how many there are
    Py_ssize_t lo1, hi1, lo2, hi2           # those that are inside


cdef window look(const direct_job* job, const place* at) noexcept nogil
cdef void load_padded(
    const direct_job* job, box* b, Py_ssize_t n, Py_ssize_t g, Py_ssize_t lanes,
    const place* at, window* w) noexcept nogil
cdef void lane_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last) noexcept nogil
cdef size_t choose_lanes(direct_job* job, int threads) noexcept nogil
cdef bint prefers_lanes(const direct_job* job) noexcept nogil
