"""Convolution on a regular grid by implicit GEMM: forward, and the gradient of the weights.

::

    out[n, g, m, o] = bias[g, m] + sum over c, t of
                      weight[g, m, c, t] * x[n, g, c, o*stride + t*dilation + offset]

with depth k = (c, t): channels outermost.  Standard, pointwise, grouped and dilated convolutions
are this; so is each phase of a transposed one, and the gradient of the input, with other numbers
(see pyconv.engine).
"""

from pyconv._kernels._cpu cimport leaf, leaf_table
from pyconv._kernels._gemm cimport (
    PackedWeights,
    describe_operand,
    implicit_gemm,
    operand,
    pack_operand,
    packer,
    weight_gemm,
)
from pyconv._kernels._grid cimport fill_grid, grid, load_run, source_index
from pyconv._kernels._tensor cimport describe, tensor


cdef void pack_segment(
    const grid* q, const char* src, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t o2,
    Py_ssize_t count, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width, char* dst
) noexcept nogil:
    """`count` neighbouring pixels of one output row: a column run of the panel, all depths.

    Which inputs are inside the array is settled once per tap; the channels go in one call.
    """
    cdef Py_ssize_t taps = q.taps[0] * q.taps[1] * q.taps[2], es = q.leaf.esize
    cdef Py_ssize_t t0, t1, t2, t = -1, i0, i1, c, rows
    # Depth k counts (channel, tap): the first and the last channel that a tap has in k0 .. k1-1.
    cdef Py_ssize_t c0 = k0 // taps, r0 = k0 % taps, c1 = k1 // taps, r1 = k1 % taps
    cdef char* at
    for t0 in range(q.taps[0]):
        i0 = source_index(
            o0 * q.stride[0] + t0 * q.dilation[0] + q.offset[0], q.x.shape[2], q.mode)
        for t1 in range(q.taps[1]):
            i1 = source_index(
                o1 * q.stride[1] + t1 * q.dilation[1] + q.offset[1], q.x.shape[3], q.mode)
            for t2 in range(q.taps[2]):
                t += 1
                c = c0 + (t < r0)
                rows = c1 + (t < r1) - c
                if rows <= 0:
                    continue
                at = dst + (c * taps + t - k0) * width * es
                if i0 < 0 or i1 < 0:
                    q.leaf.clear(at, taps * width, rows, count)
                    continue
                load_run(
                    q, at, taps * width,
                    src + c * q.x.stride[1] + i0 * q.x.stride[2] + i1 * q.x.stride[3], rows,
                    o2 * q.stride[2] + t2 * q.dilation[2] + q.offset[2], q.stride[2], count)


cdef void pack_grid(
    const void* ctx, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p,
    Py_ssize_t count, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width, char* panel
) noexcept nogil:
    cdef const grid* q = <const grid*>ctx
    cdef Py_ssize_t es = q.leaf.esize, column = 0, length, o2, row
    cdef const char* src = q.x.data + n * q.x.stride[0] + g * q.channels * q.x.stride[1]
    o2 = p % q.out[2]
    row = p // q.out[2]
    while count > 0:
        length = min(min(count, width - column), q.out[2] - o2)
        pack_segment(
            q, src, row // q.out[1], row % q.out[1], o2, length, k0, k1, width,
            panel + column * es)
        count -= length
        o2 += length
        if o2 == q.out[2]:
            o2 = 0
            row += 1
        column += length
        if column == width:
            column = 0
            panel += (k1 - k0) * width * es


cdef void merge_axes(grid* q, tensor* out) noexcept nogil:
    """Fold axes that no tap looks along (1x1, say) into one long row, where addresses allow."""
    cdef int axis, i
    for axis in range(1, 3):
        for i in range(axis - 1, axis + 1):
            if not (q.taps[i] == 1 and q.stride[i] == 1 and q.offset[i] == 0
                    and q.out[i] == q.x.shape[2 + i]):
                break
        else:
            i = axis + 2
            if q.out[axis - 1] != 1 and (
                q.x.stride[i - 1] != q.x.shape[i] * q.x.stride[i]
                or out.stride[i - 1] != out.shape[i] * out.stride[i]
            ):
                continue
            q.out[axis] *= q.out[axis - 1]
            q.out[axis - 1] = 1
            q.x.shape[i] *= q.x.shape[i - 1]
            q.x.shape[i - 1] = 1
            out.shape[i] *= out.shape[i - 1]
            out.shape[i - 1] = 1


cdef void use_grid(packer* pk, grid* q) noexcept nogil:
    pk.ctx = q
    pk.begin = NULL
    pk.prepare, pk.sample_bytes = NULL, 0
    pk.pack = pack_grid
    pk.scratch = 0
    pk.scratch_per_pixel = 0


def pack_weights(weight, int compute, int threads):
    """Weights (G, M, C, T0, T1, T2) in the order the micro-kernel reads them."""
    cdef operand a
    describe_operand(weight, compute, &a)
    return pack_operand(&a, leaf(compute), threads)


def correlate(
    str operator, x, weight, bias, out, stride, dilation, offset, str mode, int compute,
    int threads, Py_ssize_t budget, PackedWeights packed=None, bint measure=False
):
    """Forward, into `out` (N, G*M, O0, O1, O2).  Returns the bytes of workspace.

    x: (N, G*C, S0, S1, S2); weight: (G, M, C, T0, T1, T2), any strides; bias: (G*M,) or None.
    `packed` holds the same weights in kernel order and takes their place.
    """
    cdef grid q
    cdef packer pk
    cdef operand a
    cdef tensor result
    cdef const leaf_table* table = leaf(compute)
    describe_operand(weight, compute, &a)
    if packed is not None:
        a.packed = packed.shape.packed
        table = packed.leaf
    describe(out, 5, compute, &result)
    fill_grid(
        x, a.groups, &a.t.shape[3], &result.shape[2], stride, dilation, offset, mode, compute, &q)
    q.leaf = table
    merge_axes(&q, &result)
    use_grid(&pk, &q)
    return implicit_gemm(
        operator, &pk, &a, &result, bias, table, threads, budget, measure)


def weight_gradient(
    str operator, x, grad, out, stride, dilation, offset, str mode, int compute, int threads,
    Py_ssize_t budget, bint measure=False
):
    """Gradient of the weights into `out` (G, M, C, T0, T1, T2).  Returns bytes of workspace.

    x: (N, G*C, S0, S1, S2); grad: (N, G*M, O0, O1, O2), the gradient of `correlate`'s result.
    """
    cdef grid q
    cdef packer pk
    cdef tensor result, dy
    describe(out, 6, compute, &result)
    describe(grad, 5, compute, &dy)
    fill_grid(
        x, result.shape[0], &result.shape[3], &dy.shape[2], stride, dilation, offset, mode,
        compute, &q)
    merge_axes(&q, &dy)
    use_grid(&pk, &q)
    return weight_gemm(operator, &pk, &dy, &result, q.leaf, threads, budget, measure)
