# Reading the input on a regular grid: where an axis is inside the array, and what stands outside.

from pyconv._kernels._cpu cimport leaf_table
from pyconv._kernels._tensor cimport PAD_ZEROS, source_index, tensor

# A convolution as the kernels see it.  Output o meets tap t at input o*stride + t*dilation + offset
# on each of the three axes; a convolution with fewer axes has extents of 1 in front.
cdef struct grid:
    tensor x                    # (N, groups * channels, S0, S1, S2)
    Py_ssize_t channels         # per group
    Py_ssize_t out[3]
    Py_ssize_t taps[3]
    Py_ssize_t stride[3]
    Py_ssize_t dilation[3]      # may be negative
    Py_ssize_t offset[3]
    int mode                    # PAD_*
    const leaf_table* leaf


cdef inline void inside(
    Py_ssize_t i, Py_ssize_t step, Py_ssize_t count, Py_ssize_t size,
    Py_ssize_t* lo, Py_ssize_t* hi
) noexcept nogil:
    """The j in lo .. hi-1 out of 0 .. count-1 for which 0 <= i + j*step < size; step > 0."""
    lo[0] = 0
    if i < 0:
        lo[0] = min(count, (-i + step - 1) // step)
    hi[0] = lo[0]
    if i + lo[0] * step < size:
        hi[0] = min(count, (size - 1 - i) // step + 1)


cdef inline void load_run(
    const grid* q, char* dst, Py_ssize_t dst_rs, const char* src, Py_ssize_t rows,
    Py_ssize_t i, Py_ssize_t step, Py_ssize_t count
) noexcept nogil:
    """dst[r][j] = channel r of src at position i + j*step of the last axis, for j < count.

    `src` is position 0 of the first channel's line; `dst_rs` counts elements.  `step` > 0.
    """
    cdef Py_ssize_t es = q.leaf.esize, size = q.x.shape[4], pitch = q.x.stride[4]
    cdef Py_ssize_t lo, hi, j, at
    inside(i, step, count, size, &lo, &hi)
    if hi > lo:
        q.leaf.load[q.x.storage](
            dst + lo * es, dst_rs, src + (i + lo * step) * pitch, q.x.stride[1], pitch * step,
            rows, hi - lo)
    if q.mode == PAD_ZEROS:
        if lo > 0:
            q.leaf.clear(dst, dst_rs, rows, lo)
        if hi < count:
            q.leaf.clear(dst + hi * es, dst_rs, rows, count - hi)
        return
    for j in range(lo):
        at = source_index(i + j * step, size, q.mode)
        q.leaf.load[q.x.storage](
            dst + j * es, dst_rs, src + at * pitch, q.x.stride[1], pitch, rows, 1)
    for j in range(hi, count):
        at = source_index(i + j * step, size, q.mode)
        q.leaf.load[q.x.storage](
            dst + j * es, dst_rs, src + at * pitch, q.x.stride[1], pitch, rows, 1)


cdef int fill_grid(
    object x, Py_ssize_t groups, const Py_ssize_t* taps, const Py_ssize_t* out, object stride,
    object dilation, object offset, str mode, int compute, grid* q) except -1
