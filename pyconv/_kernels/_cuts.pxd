# Taps that some outputs have no use for: which they are, for rows in lanes.

from pyconv._kernels._gemm cimport cuts
from pyconv._kernels._grid cimport grid
from pyconv._kernels._tensor cimport tensor

cdef size_t cut_bytes(
    const grid* q, const tensor* out, Py_ssize_t rows, Py_ssize_t depth) noexcept nogil
cdef void list_cuts(const grid* q, Py_ssize_t depth, char* store, cuts* cut) noexcept nogil
