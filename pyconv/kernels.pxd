# The engine for plugins that are compiled: what a sampler of your own hands over, and gets.
#
#   from pyconv.kernels cimport init_kernel, kernel, kernel_capsule
#   kernels.convolve(kernel_capsule(&k), x, weight, bias, out=y, run=run)    # in pyconv/kernels.py
#
# docs/kernels.rst explains it.  A plugin is compiled against this file alone.  It goes on working
# with later versions of pyconv as long as ABI_VERSION is the same: structs only grow at their end,
# and say by `size` how far they go.  `import_kernels` refuses another version with an ImportError.

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New
from libc.string cimport memset


cdef enum:
    ABI_VERSION = 1

    PANEL_PIXELS = 16   # at most so many at a time with PIXELS_OUTER

    # Flags of a kernel.
    PIXELS_OUTER = 1    # panels are [pixel][depth], not [depth][pixel]: for channels as vectors
    ANY_STRIDES = 2     # do not bring images into channels-last order for me


# Fill a panel with the inputs of pixels pixel .. pixel+count-1 of the result (its spatial axes
# flattened), for depths depth .. depth+depths-1 of the weights: element (k, j) of the panel is
#     panel[k * step + j]   or, with PIXELS_OUTER,   panel[j * step + k].
# `image` is the first channel of the group in sample n, of the type that is computed in; an
# element is at  image[c * stride[0] + i0 * stride[1] + i1 * stride[2] + i2 * stride[3]]  (images
# of fewer axes have leading axes of size 1).  Mostly stride[0] is 1, but that is not certain:
# where there is no room for a copy in that order, the image is as the caller has it.
ctypedef void (*pack_fn)(
    void* context, const void* image, const Py_ssize_t* stride, Py_ssize_t n, Py_ssize_t group,
    Py_ssize_t pixel, Py_ssize_t count, Py_ssize_t depth, Py_ssize_t depths, void* panel,
    Py_ssize_t step) noexcept nogil

# The adjoint, for the gradient of the image: add columns[k * step + j], the gradients of what
# `pack` would have put at (k, j), all depths k, to where it came from; in channels channel ..
# channel+channels-1 of the group only, as other threads do the others.  Pixels in order.
ctypedef void (*unpack_fn)(
    void* context, void* image, const Py_ssize_t* stride, Py_ssize_t n, Py_ssize_t group,
    Py_ssize_t pixel, Py_ssize_t count, Py_ssize_t channel, Py_ssize_t channels,
    const void* columns, Py_ssize_t step) noexcept nogil

# Change results before they are stored (the bias is in them): channels channel ..
# channel+channels-1 of the result, element (i, j) at tile[i * channel_step + j * pixel_step].
# A tile has some channels and some pixels; which, is not for an epilogue to depend on.
ctypedef void (*finish_fn)(
    void* context, Py_ssize_t n, Py_ssize_t channel, Py_ssize_t channels, Py_ssize_t pixel,
    Py_ssize_t count, void* tile, Py_ssize_t channel_step, Py_ssize_t pixel_step) noexcept nogil


# What a plugin hands over.  Functions that are not there are NULL; they are called by several
# threads at once, without the GIL, and write nothing but what they are asked for.
cdef struct kernel:
    Py_ssize_t size
    int version
    int flags
    void* context
    pack_fn pack_f32
    pack_fn pack_f64
    unpack_fn unpack_f32
    unpack_fn unpack_f64
    finish_fn finish_f32
    finish_fn finish_f64


# What a plugin may call: routines for the CPU at hand.
cdef struct tools:
    Py_ssize_t size
    int version
    # dst[j * step + c] = sum over q of coef[q * ld + j] * (src + offset[q * ld + j])[c]
    # for j < n, c < channels; corners is 2, 4 or 8; offsets in bytes, or `outside`: counts zero.
    # Corners in order, each a fused multiply-add.
    void (*sample_f32)(
        Py_ssize_t n, Py_ssize_t channels, Py_ssize_t corners, Py_ssize_t ld,
        const Py_ssize_t* offset, const float* coef, const float* src, float* dst,
        Py_ssize_t step) noexcept nogil
    void (*sample_f64)(
        Py_ssize_t n, Py_ssize_t channels, Py_ssize_t corners, Py_ssize_t ld,
        const Py_ssize_t* offset, const double* coef, const double* src, double* dst,
        Py_ssize_t step) noexcept nogil
    Py_ssize_t outside


cdef inline void init_kernel(kernel* k, void* context) noexcept nogil:
    """A kernel without functions yet."""
    memset(k, 0, sizeof(kernel))
    k.size = sizeof(kernel)
    k.version = ABI_VERSION
    k.context = context


cdef inline object kernel_capsule(kernel* k):
    """What the functions of pyconv.kernels take; for as long as `k` is where it is."""
    return PyCapsule_New(k, "pyconv.kernel", NULL)


cdef inline const tools* import_kernels() except NULL:
    """Call it when your module is imported: an ImportError unless pyconv has this interface."""
    cdef const tools* found = NULL
    kernels = __import__("pyconv.kernels", fromlist=["C_API"])
    capsule = getattr(kernels, "C_API", None)
    if PyCapsule_IsValid(capsule, "pyconv.kernels.C_API"):
        found = <const tools*>PyCapsule_GetPointer(capsule, "pyconv.kernels.C_API")
    if found == NULL or found.version != ABI_VERSION or found.size < <Py_ssize_t>sizeof(tools):
        raise ImportError(
            "this module was compiled for version %d of pyconv's kernel interface (%d bytes), which"
            " the installed pyconv does not have (%s): build it again, or install another pyconv"
            % (ABI_VERSION, sizeof(tools),
               "it has none" if found == NULL else
               "it has version %d, %d bytes" % (found.version, found.size)))
    return found
