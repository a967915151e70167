"""The regular grid of an ordinary convolution, taken from Python's description of it."""

from pyconv._kernels._cpu cimport leaf
from pyconv._kernels._tensor cimport describe

from pyconv._kernels._tensor import PADDING_MODES


cdef int fill_grid(
    object x, Py_ssize_t groups, const Py_ssize_t* taps, const Py_ssize_t* out, object stride,
    object dilation, object offset, str mode, int compute, grid* q
) except -1:
    cdef int axis
    describe(x, 5, compute, &q.x)
    q.channels = q.x.shape[1] // groups if groups else 0
    for axis in range(3):
        q.taps[axis] = taps[axis]
        q.out[axis] = out[axis]
        q.stride[axis] = stride[axis]
        q.dilation[axis] = dilation[axis]
        q.offset[axis] = offset[axis]
    q.mode = PADDING_MODES[mode]
    q.leaf = leaf(compute)
    return 0
