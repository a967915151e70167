# Weights of Winograd's algorithm, and how one axis of a tile is looked up.

from pyconv._kernels._cpu cimport leaf_table, leaf_winograd
from pyconv._kernels._integers cimport round_up
from pyconv._kernels._parallel cimport Workspace
from pyconv._kernels._tensor cimport tensor

cdef enum:
    DEPTH_BLOCK = 32            # KC, about: a third of a direct sum's, as transforms magnify errors


cdef class TransformedWeights:
    cdef Workspace store
    cdef const leaf_table* leaf


cdef inline Py_ssize_t distinct_places(const leaf_winograd* const* axis) noexcept nogil:
    """Places with transformed weights of their own."""
    return axis[0].distinct * axis[1].distinct


cdef inline Py_ssize_t weights_of(
    const leaf_winograd* const* axis, Py_ssize_t place
) noexcept nogil:
    """Which of the transformed weights belong to a place of a tile."""
    cdef Py_ssize_t n = axis[1].inputs
    return (min(place // n, axis[0].distinct - 1) * axis[1].distinct
            + min(place % n, axis[1].distinct - 1))


cdef inline Py_ssize_t held_rows(
    Py_ssize_t rows, const leaf_table* table, bint lanes
) noexcept nogil:
    """Rows of U, with those that fill it up."""
    return round_up(rows, table.nr // 2 if lanes else table.mr)


cdef int find_axes(
    const leaf_table* table, const tensor* w, object stride, object outputs,
    const leaf_winograd** axis
) except -1
cdef Py_ssize_t weight_place(
    const tensor* w, Py_ssize_t rows, const leaf_table* table, bint lanes=*) noexcept nogil
cdef Py_ssize_t weight_bytes(
    const tensor* w, const leaf_winograd* const* axis, Py_ssize_t rows, const leaf_table* table,
    bint lanes=*) noexcept nogil
cdef int transform_weights(
    const tensor* w, const leaf_winograd* const* axis, Py_ssize_t row, Py_ssize_t rows,
    const leaf_table* table, int threads, char* u, bint lanes=*) except -1
