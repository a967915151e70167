# cython: language_level=3, cdivision=True
"""Pointwise convolution that looks at the pixels of a row in reverse."""

import numpy as np

from pyconv import kernels
from pyconv.kernels cimport import_kernels, init_kernel, kernel, kernel_capsule

import_kernels()  # refuses a pyconv with another interface than this was compiled for


cdef struct grid:
    Py_ssize_t width


cdef void pack(
    void* context, const void* image, const Py_ssize_t* stride, Py_ssize_t n, Py_ssize_t group,
    Py_ssize_t pixel, Py_ssize_t count, Py_ssize_t depth, Py_ssize_t depths, void* panel,
    Py_ssize_t step
) noexcept nogil:
    """A depth is a channel: panel[channel][pixel]."""
    cdef const float* x = <const float*>image
    cdef float* to = <float*>panel
    cdef Py_ssize_t width = (<const grid*>context).width, j, k, row, column
    for j in range(count):
        row, column = (pixel + j) // width, width - 1 - (pixel + j) % width
        for k in range(depths):
            to[k * step + j] = x[(depth + k) * stride[0] + row * stride[2] + column * stride[3]]


def convolve(x, weight):
    """Convolve images (N, C, H, W) of float32 with weights (O, C)."""
    cdef grid g
    cdef kernel k
    g.width = x.shape[3]
    init_kernel(&k, &g)
    k.pack_f32 = pack
    out = np.empty((x.shape[0], weight.shape[0], x.shape[2], x.shape[3]), np.float32)
    kernels.convolve(kernel_capsule(&k), x, weight[np.newaxis], out=out)
    return out
