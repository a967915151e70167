"""NumPy arrays described for the drivers, and the index rule of the padding modes."""

cimport numpy as cnp

import numpy as np

from pyconv.dtypes import storage_code

cnp.import_array()

PADDING_MODES = {
    "zeros": PAD_ZEROS,
    "reflect": PAD_REFLECT,
    "replicate": PAD_REPLICATE,
    "circular": PAD_CIRCULAR,
    "symmetric": PAD_SYMMETRIC,
}


cdef int describe(object array, int ndim, int compute, tensor* out) except -1:
    """Fill `out` from an array of exactly `ndim` axes; `compute` is the type's code."""
    cdef cnp.ndarray a = array
    cdef int i
    cdef Py_ssize_t esize
    if a.ndim != ndim:
        raise AssertionError(f"kernel expects {ndim} axes, got {a.ndim}")
    out.data = <char*>cnp.PyArray_DATA(a)
    out.storage = storage_code(a.dtype)
    esize = cnp.PyArray_ITEMSIZE(a)
    out.in_place = out.storage == compute and cnp.PyArray_ISALIGNED(a)
    for i in range(ndim):
        out.shape[i] = a.shape[i]
        out.stride[i] = a.strides[i]
        # in place means addressed in whole elements as well
        if a.shape[i] > 1 and a.strides[i] % esize != 0:
            out.in_place = False
    return 0


def padding_sources(Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t size, str mode):
    """Input index read by each padded position lo..hi-1 of an axis, -1 where it is a zero."""
    cdef int code = PADDING_MODES[mode]
    cdef Py_ssize_t i
    sources = np.empty(hi - lo, dtype=np.intp)
    cdef cnp.intp_t[::1] view = sources
    for i in range(hi - lo):
        view[i] = source_index(lo + i, size, code)
    return sources
