"""NumPy arrays described for the drivers, and the index rule of the padding modes."""

cimport numpy as cnp

import numpy as np

from pyconv.dtypes import COMPUTE, storage_code

cnp.import_array()

PADDING_MODES = {
    "zeros": PAD_ZEROS,
    "reflect": PAD_REFLECT,
    "replicate": PAD_REPLICATE,
    "circular": PAD_CIRCULAR,
    "symmetric": PAD_SYMMETRIC,
}


# The compute types' dtypes, by code.
cdef tuple _compute = COMPUTE


cdef int describe(object array, int ndim, int compute, tensor* out) except -1:
    """Fill `out` from an array; `compute` is the type's code.

    The array has exactly `ndim` axes, except that of the three spatial ones at the end of an image
    (`ndim` 5) or of weights (6) the first or the first two may be missing.
    """
    cdef cnp.ndarray a = array
    cdef int axis, i = 0, missing = ndim - a.ndim, spatial = ndim - 3
    cdef Py_ssize_t esize
    if not 0 <= missing <= (2 if ndim >= 5 else 0):
        raise AssertionError(f"kernel expects {ndim} axes, got {a.ndim}")
    out.data = <char*>cnp.PyArray_DATA(a)
    # NumPy has one object for each native dtype: the usual one need not be looked up.
    out.storage = compute if a.dtype is _compute[compute] else storage_code(a.dtype)
    esize = cnp.PyArray_ITEMSIZE(a)
    out.in_place = out.storage == compute and cnp.PyArray_ISALIGNED(a)
    for axis in range(ndim):
        if spatial <= axis < spatial + missing:
            out.shape[axis] = 1
            out.stride[axis] = 0
            continue
        out.shape[axis] = a.shape[i]
        out.stride[axis] = a.strides[i]
        # in place means addressed in whole elements as well
        if a.shape[i] > 1 and a.strides[i] % esize != 0:
            out.in_place = False
        i += 1
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
