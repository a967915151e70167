# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The sampler: fills a panel with samples of an equirectangular image, and does the reverse.

Where a tap looks depends on the row of the result alone, up to a shift along the row: for each row
and tap there are two rows of the image, a column, and four weights.
"""

from pyconv import kernels
from pyconv.kernels cimport (
    PANEL_PIXELS,
    PIXELS_OUTER,
    import_kernels,
    init_kernel,
    kernel,
    kernel_capsule,
    tools,
)

# Refuses a pyconv with another interface than that of its kernels.pxd at build time.
cdef const tools* engine = import_kernels()

ctypedef fused real:
    float
    double


cdef struct sphere:
    Py_ssize_t channels         # per group
    Py_ssize_t width            # of the image
    Py_ssize_t columns          # of the result
    Py_ssize_t step             # columns of the image from one of the result to the next
    Py_ssize_t taps
    const Py_ssize_t* rows      # [row of the result][tap][2]
    const Py_ssize_t* first     # [row of the result][tap] column of the image, for column 0
    const double* weights       # [row of the result][tap][4]


cdef inline void look(
    const sphere* s, const Py_ssize_t* stride, Py_ssize_t pixel, Py_ssize_t tap,
    Py_ssize_t* corner
) noexcept nogil:
    """The four elements around the sample, from the first of the image."""
    cdef Py_ssize_t row = pixel // s.columns * s.taps + tap
    cdef Py_ssize_t left = (s.first[row] + pixel % s.columns * s.step) % s.width
    cdef Py_ssize_t right = left + 1 if left + 1 < s.width else 0
    cdef Py_ssize_t upper = s.rows[2 * row] * stride[2], lower = s.rows[2 * row + 1] * stride[2]
    corner[0], corner[1] = upper + left * stride[3], upper + right * stride[3]
    corner[2], corner[3] = lower + left * stride[3], lower + right * stride[3]


cdef void pack(
    void* context, const void* image, const Py_ssize_t* stride, Py_ssize_t n, Py_ssize_t group,
    Py_ssize_t pixel, Py_ssize_t count, Py_ssize_t depth, Py_ssize_t depths, real* panel,
    Py_ssize_t step
) noexcept nogil:
    """panel[pixel][depth], depths being (tap, channel)."""
    cdef const sphere* s = <const sphere*>context
    cdef const real* x = <const real*>image
    cdef const double* weight
    cdef Py_ssize_t end = depth + depths, tap, channel, length, j, q, c
    cdef Py_ssize_t corner[4]
    cdef Py_ssize_t offset[4 * PANEL_PIXELS]
    cdef real w[4 * PANEL_PIXELS]
    while depth < end:
        tap, channel = depth // s.channels, depth % s.channels
        length = min(s.channels - channel, end - depth)
        for j in range(count):
            look(s, stride, pixel + j, tap, corner)
            weight = s.weights + 4 * ((pixel + j) // s.columns * s.taps + tap)
            for q in range(4):
                offset[q * PANEL_PIXELS + j] = corner[q] * <Py_ssize_t>sizeof(real)
                w[q * PANEL_PIXELS + j] = <real>weight[q]
            if stride[0] != 1:          # channels are elsewhere: one by one
                for c in range(length):
                    panel[j * step + c] = (
                        w[j] * x[corner[0] + (channel + c) * stride[0]]
                        + w[PANEL_PIXELS + j] * x[corner[1] + (channel + c) * stride[0]]
                        + w[2 * PANEL_PIXELS + j] * x[corner[2] + (channel + c) * stride[0]]
                        + w[3 * PANEL_PIXELS + j] * x[corner[3] + (channel + c) * stride[0]])
        if stride[0] == 1:              # as vectors
            if real is float:
                engine.sample_f32(
                    count, length, 4, PANEL_PIXELS, offset, w, x + channel, panel, step)
            else:
                engine.sample_f64(
                    count, length, 4, PANEL_PIXELS, offset, w, x + channel, panel, step)
        panel += length
        depth += length


cdef void pack_f32(
    void* context, const void* image, const Py_ssize_t* stride, Py_ssize_t n, Py_ssize_t group,
    Py_ssize_t pixel, Py_ssize_t count, Py_ssize_t depth, Py_ssize_t depths, void* panel,
    Py_ssize_t step
) noexcept nogil:
    pack[float](context, image, stride, n, group, pixel, count, depth, depths, <float*>panel, step)


cdef void pack_f64(
    void* context, const void* image, const Py_ssize_t* stride, Py_ssize_t n, Py_ssize_t group,
    Py_ssize_t pixel, Py_ssize_t count, Py_ssize_t depth, Py_ssize_t depths, void* panel,
    Py_ssize_t step
) noexcept nogil:
    pack[double](
        context, image, stride, n, group, pixel, count, depth, depths, <double*>panel, step)


cdef void unpack(
    void* context, real* image, const Py_ssize_t* stride, Py_ssize_t pixel, Py_ssize_t count,
    Py_ssize_t channel, Py_ssize_t channels, const real* columns, Py_ssize_t step
) noexcept nogil:
    """Add the gradient of every sample to the elements it was made of."""
    cdef const sphere* s = <const sphere*>context
    cdef const double* weight
    cdef const real* g
    cdef real* x
    cdef Py_ssize_t tap, j, c
    cdef Py_ssize_t corner[4]
    cdef real w[4]
    for tap in range(s.taps):
        for j in range(count):
            look(s, stride, pixel + j, tap, corner)
            weight = s.weights + 4 * ((pixel + j) // s.columns * s.taps + tap)
            w[0], w[1] = <real>weight[0], <real>weight[1]
            w[2], w[3] = <real>weight[2], <real>weight[3]
            for c in range(channel, channel + channels):
                g = columns + (tap * s.channels + c) * step + j
                x = image + c * stride[0]
                x[corner[0]] += w[0] * g[0]
                x[corner[1]] += w[1] * g[0]
                x[corner[2]] += w[2] * g[0]
                x[corner[3]] += w[3] * g[0]


cdef void unpack_f32(
    void* context, void* image, const Py_ssize_t* stride, Py_ssize_t n, Py_ssize_t group,
    Py_ssize_t pixel, Py_ssize_t count, Py_ssize_t channel, Py_ssize_t channels,
    const void* columns, Py_ssize_t step
) noexcept nogil:
    unpack[float](
        context, <float*>image, stride, pixel, count, channel, channels, <const float*>columns,
        step)


cdef void unpack_f64(
    void* context, void* image, const Py_ssize_t* stride, Py_ssize_t n, Py_ssize_t group,
    Py_ssize_t pixel, Py_ssize_t count, Py_ssize_t channel, Py_ssize_t channels,
    const void* columns, Py_ssize_t step
) noexcept nogil:
    unpack[double](
        context, <double*>image, stride, pixel, count, channel, channels, <const double*>columns,
        step)


cdef class Sampler:
    """A kernel for one grid: what `pyconv.kernels.convolve` and the gradients take.

    Parameters
    ----------
    rows : ndarray of intp, shape (H_out, taps, 2)
        The two rows of the image between which a tap looks.
    first : ndarray of intp, shape (H_out, taps)
        The column to the left of where it looks, for the first column of the result.
    weights : ndarray of float64, shape (H_out, taps, 4)
        Of the elements above left, above right, below left and below right.
    channels, width, columns, step : int
        Channels of a group; columns of the image and of the result, and the step between those.
    """

    cdef kernel k
    cdef sphere s
    cdef object tables
    cdef readonly object capsule

    def __init__(
        self, const Py_ssize_t[:, :, ::1] rows, const Py_ssize_t[:, ::1] first,
        const double[:, :, ::1] weights, Py_ssize_t channels, Py_ssize_t width,
        Py_ssize_t columns, Py_ssize_t step
    ):
        self.tables = rows, first, weights      # to be kept
        self.s.rows, self.s.first, self.s.weights = &rows[0, 0, 0], &first[0, 0], &weights[0, 0, 0]
        self.s.taps = first.shape[1]
        self.s.channels, self.s.width = channels, width
        self.s.columns, self.s.step = columns, step
        init_kernel(&self.k, &self.s)
        self.k.flags = PIXELS_OUTER
        self.k.pack_f32, self.k.pack_f64 = pack_f32, pack_f64
        self.k.unpack_f32, self.k.unpack_f64 = unpack_f32, unpack_f64
        self.capsule = kernel_capsule(&self.k)

    def convolve(self, x, weight, bias, out, run, packed=None):
        """Fill `out`; see `pyconv.kernels.convolve`."""
        return kernels.convolve(
            self.capsule, x, weight, bias, out=out, run=run, packed=packed)

    def weight_gradient(self, x, grad, out, run):
        """Fill `out`; see `pyconv.kernels.weight_gradient`."""
        kernels.weight_gradient(self.capsule, x, grad, out=out, run=run)

    def input_gradient(self, weight, grad, out, run):
        """Fill `out`; see `pyconv.kernels.input_gradient`."""
        kernels.input_gradient(self.capsule, weight, grad, out=out, run=run)
