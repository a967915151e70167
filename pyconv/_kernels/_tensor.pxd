# A NumPy array as the drivers see it: address, shape, byte strides, storage code.

from pyconv._kernels._cpu cimport leaf_table

cdef struct tensor:
    char* data
    Py_ssize_t shape[6]
    Py_ssize_t stride[6]    # bytes
    int storage             # leaf.h: kind, plus LEAF_SWAPPED
    bint in_place           # elements are the compute type, native and aligned

cdef int describe(object array, int ndim, int compute, tensor* out) except -1


# An input index for padded position i of an axis, or -1 for a zero.
cdef enum:
    PAD_ZEROS = 0
    PAD_REFLECT = 1
    PAD_REPLICATE = 2
    PAD_CIRCULAR = 3
    PAD_SYMMETRIC = 4


cdef inline Py_ssize_t source_index(Py_ssize_t i, Py_ssize_t size, int mode) noexcept nogil:
    cdef Py_ssize_t period
    if 0 <= i < size:
        return i
    if mode == PAD_ZEROS:
        return -1
    if mode == PAD_REPLICATE or size == 1:
        return 0 if i < 0 else size - 1
    if mode == PAD_CIRCULAR:
        i = i % size                        # C remainder: the sign of i
        return i + size if i < 0 else i
    # mirrored with (symmetric) or without (reflect) repeating the border
    period = 2 * size if mode == PAD_SYMMETRIC else 2 * size - 2
    i = i % period
    if i < 0:
        i += period
    if i < size:
        return i
    return period - 1 - i if mode == PAD_SYMMETRIC else period - i
