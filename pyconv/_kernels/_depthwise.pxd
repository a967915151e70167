"""What _depthwise.pyx and _depthwise_adjoint.pyx share, for the same bits from both."""

from pyconv._kernels._cpu cimport leaf_table
from pyconv._kernels._tensor cimport tensor

cdef enum:
    CHAIN_COLUMNS = 19          # of taps, 5 at most in each: the longest chain of roundings
    FETCH_BYTES = 1024 * 1024   # of arrays that are asked for before they are used: not in L2
    MOVED_WORTH = 25            # operations of a product that take as long as an element's way


cdef inline double work_of(double products, double moved) noexcept nogil:
    """As `useful_threads` counts: where products are few, it is the elements that take time."""
    return 2 * products + MOVED_WORTH * moved


cdef inline void load_row(
    const leaf_table* table, const tensor* w, Py_ssize_t g, Py_ssize_t m, char* dst
) noexcept nogil:
    """Row m of group g of the weights, [channel][tap] in order."""
    cdef Py_ssize_t c, t0, t1
    cdef const char* row = w.data + g * w.stride[0] + m * w.stride[1]
    for c in range(w.shape[2]):
        for t0 in range(w.shape[3]):
            for t1 in range(w.shape[4]):
                table.load[w.storage](
                    dst, 0,
                    row + c * w.stride[2] + t0 * w.stride[3] + t1 * w.stride[4],
                    0, w.stride[5], 1, w.shape[5])
                dst += w.shape[5] * table.esize
