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


cdef bint _plainly(object array, object dtype, tuple shape) except -1:
    """Whether it is exactly an array, of this shape and that very dtype."""
    cdef cnp.ndarray a
    cdef int axis
    if type(array) is not cnp.ndarray:
        return False
    a = array
    if <object>cnp.PyArray_DESCR(a) is not dtype or a.ndim != len(shape):
        return False
    for axis in range(a.ndim):
        if a.shape[axis] != <Py_ssize_t>shape[axis]:
            return False
    return True


cpdef bint takes_results(object out, object dtype, tuple shape) except -1:
    """Whether results of this dtype and shape may be written to `out`, so plainly that it shows.

    False where it takes more to tell: what is not exactly an array of that very dtype, or has other
    strides than a whole one in C or Fortran order.
    """
    return _plainly(out, dtype, shape) and cnp.PyArray_ISWRITEABLE(out) and (
        cnp.PyArray_IS_C_CONTIGUOUS(out) or cnp.PyArray_IS_F_CONTIGUOUS(out))


def usual_result(object x, tuple x_shape, object out, tuple shape, object dtype):
    """The array for a call's result: `out`, or a new one where that is None.

    None where it takes more to tell whether `x` is of this shape and dtype and `out` takes the
    result; or where there is no memory.
    """
    cdef cnp.npy_intp extent[32]
    cdef int axis, ndim = <int>len(shape)
    if not _plainly(x, dtype, x_shape):
        return None
    if out is not None:
        return out if takes_results(out, dtype, shape) and _apart(out, x) else None
    if ndim > 32:
        return None
    for axis in range(ndim):
        extent[axis] = shape[axis]
    try:
        return cnp.PyArray_EMPTY(ndim, extent, (<cnp.dtype>dtype).num, False)
    except (MemoryError, ValueError):
        return None


cdef bint _extent(cnp.ndarray a, char** first, char** end) noexcept:
    """Where its elements begin and end; returns whether there are any."""
    cdef int axis
    first[0] = <char*>cnp.PyArray_DATA(a)
    end[0] = first[0] + cnp.PyArray_ITEMSIZE(a)
    for axis in range(a.ndim):
        if a.shape[axis] == 0:
            return False
        if a.strides[axis] < 0:
            first[0] += (a.shape[axis] - 1) * a.strides[axis]
        else:
            end[0] += (a.shape[axis] - 1) * a.strides[axis]
    return True


cdef bint _apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """`apart` of what is not None."""
    cdef char* a_first
    cdef char* a_end
    cdef char* b_first
    cdef char* b_end
    if not (_extent(a, &a_first, &a_end) and _extent(b, &b_first, &b_end)):
        return True
    return a_end <= b_first or b_end <= a_first


def apart(cnp.ndarray a not None, cnp.ndarray b not None):
    """Whether one array ends before the other begins, as most do."""
    return _apart(a, b)


def padding_sources(Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t size, str mode):
    """Input index read by each padded position lo..hi-1 of an axis, -1 where it is a zero."""
    cdef int code = PADDING_MODES[mode]
    cdef Py_ssize_t i
    sources = np.empty(hi - lo, dtype=np.intp)
    cdef cnp.intp_t[::1] view = sources
    for i in range(hi - lo):
        view[i] = source_index(lo + i, size, code)
    return sources
