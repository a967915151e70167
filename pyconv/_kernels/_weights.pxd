# The gradient of the weights, for any operator that can fill a panel or reads a regular grid.

from pyconv._kernels._cpu cimport leaf_table
from pyconv._kernels._gemm cimport packer
from pyconv._kernels._grid cimport grid
from pyconv._kernels._tensor cimport tensor

# `out` has six axes, as the weights (see `operand`).  With a grid the packer is asked only where
# the workspace has no room for anything else.
cdef Py_ssize_t weight_gemm(
    str operator, const packer* pk, const grid* q, const tensor* grad, object out, int compute,
    int threads, Py_ssize_t budget, bint measure) except -1

# The same for a single tap, without padding, where each pixel meets its own inputs: `out` has few
# rows, `few` their gradient; or these are the channels.
cdef Py_ssize_t few_gradient(
    str operator, const tensor* few, const tensor* many, const tensor* out, int compute,
    int threads, Py_ssize_t budget, bint measure) except -1
