# Images with channels last.

from pyconv._kernels._cpu cimport leaf_table
from pyconv._kernels._tensor cimport tensor

cdef int turn(
    const tensor* x, const leaf_table* leaf, Py_ssize_t n, Py_ssize_t count, char* store,
    int threads, tensor* last) except -1
