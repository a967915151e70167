"""The engine for samplers that other packages bring: kernels.pxd says what they look like.

A plugin's functions are called through the packer and the finish of the implicit GEMM.  Nothing
internal reaches them: images and panels as addresses and steps in elements, and a struct that says
its own size and version.
"""

from cpython.pycapsule cimport (
    PyCapsule_GetContext,
    PyCapsule_GetName,
    PyCapsule_GetPointer,
    PyCapsule_IsValid,
    PyCapsule_New,
)
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy

from pyconv import checks
from pyconv._kernels._cpu cimport LEAF_OUTSIDE, leaf, leaf_table
from pyconv._kernels._gemm cimport (
    PackedWeights,
    describe_operand,
    finish_fn,
    implicit_gemm,
    operand,
    packer,
    start_packer,
)
from pyconv._kernels._parallel cimport Workspace, run, useful_threads
from pyconv._kernels._tensor cimport describe, tensor
from pyconv._kernels._turn cimport turn
from pyconv._kernels._weights cimport weight_gemm
from pyconv.kernels cimport (
    ABI_VERSION,
    ANY_STRIDES,
    PANEL_PIXELS,
    PIXELS_OUTER,
    init_kernel,
    kernel,
    pack_fn,
    tools,
    unpack_fn,
)
from pyconv.kernels cimport finish_fn as plugin_finish_fn

cdef enum:
    TILE_DEPTHS = 128           # of a panel [pixel][depth], which is turned round from L1
    SAMPLES_BYTES = 2 * 1024 * 1024     # images brought into order at a time, per thread


# ---- what plugins are given ---------------------------------------------------------------------

cdef void sample_f32(
    Py_ssize_t n, Py_ssize_t channels, Py_ssize_t corners, Py_ssize_t ld, const Py_ssize_t* offset,
    const float* coef, const float* src, float* dst, Py_ssize_t step
) noexcept nogil:
    leaf(0).sample_channels(
        n, channels, corners, ld, offset, coef, <const char*>src, dst, step, False)


cdef void sample_f64(
    Py_ssize_t n, Py_ssize_t channels, Py_ssize_t corners, Py_ssize_t ld, const Py_ssize_t* offset,
    const double* coef, const double* src, double* dst, Py_ssize_t step
) noexcept nogil:
    leaf(1).sample_channels(
        n, channels, corners, ld, offset, coef, <const char*>src, dst, step, False)


cdef tools offered
offered.size, offered.version = sizeof(tools), ABI_VERSION
offered.sample_f32, offered.sample_f64 = sample_f32, sample_f64
offered.outside = LEAF_OUTSIDE

C_API = PyCapsule_New(&offered, "pyconv.kernels.C_API", NULL)
VERSION = ABI_VERSION


# ---- what plugins hand over ---------------------------------------------------------------------

cdef class Functions:
    """A kernel made of functions from anywhere: the addresses, and what keeps them alive."""

    cdef kernel it
    cdef object owners

    def __init__(self, dict addresses, size_t context, int flags, owners):
        init_kernel(&self.it, <void*>context)
        self.it.flags = flags
        self.it.pack_f32 = <pack_fn><uintptr_t><size_t>addresses["pack", "float32"]
        self.it.pack_f64 = <pack_fn><uintptr_t><size_t>addresses["pack", "float64"]
        self.it.unpack_f32 = <unpack_fn><uintptr_t><size_t>addresses["unpack", "float32"]
        self.it.unpack_f64 = <unpack_fn><uintptr_t><size_t>addresses["unpack", "float64"]
        self.it.finish_f32 = <plugin_finish_fn><uintptr_t><size_t>addresses["finish", "float32"]
        self.it.finish_f64 = <plugin_finish_fn><uintptr_t><size_t>addresses["finish", "float64"]
        self.owners = owners


def low_level(capsule):
    """Address, signature and user data of the capsule in a SciPy `LowLevelCallable`."""
    cdef const char* name = PyCapsule_GetName(capsule)
    cdef size_t address = <size_t><uintptr_t>PyCapsule_GetPointer(capsule, name)
    cdef size_t data = <size_t><uintptr_t>PyCapsule_GetContext(capsule)
    return address, "" if name == NULL else name.decode(), data


cdef int take(str operator, given, kernel* k) except -1:
    """The kernel that was handed over; later versions may have added fields, older ones none."""
    cdef const kernel* found = NULL
    cdef int version
    if isinstance(given, Functions):
        k[0] = (<Functions>given).it
        return 0
    if not PyCapsule_IsValid(given, "pyconv.kernel"):
        checks.fail_type(
            operator, "kernel", "be a kernel: kernel_capsule(&k), or pyconv.kernels.kernel(...)",
            given)
    found = <const kernel*>PyCapsule_GetPointer(given, "pyconv.kernel")
    version = found.version
    if version != ABI_VERSION:
        checks.fail(
            operator, "kernel", f"be for version {ABI_VERSION} of the interface", version)
    if found.size < <Py_ssize_t>sizeof(kernel):
        checks.fail(
            operator, "kernel", f"have at least {sizeof(kernel)} bytes (see init_kernel)",
            found.size)
    memcpy(k, found, sizeof(kernel))
    return 0


cdef struct plugin_job:
    kernel k
    pack_fn pack
    unpack_fn unpack
    plugin_finish_fn finish
    const leaf_table* leaf
    tensor x                    # (N, C, S0, S1, S2): as given, or with channels last
    Py_ssize_t first            # sample it begins with
    Py_ssize_t channels         # per group
    Py_ssize_t stride[4]        # elements


cdef void see(plugin_job* job, Py_ssize_t first) noexcept nogil:
    """Steps of the image as it is now; its first sample is `first` of the call."""
    cdef int axis
    job.first = first
    for axis in range(4):
        job.stride[axis] = job.x.stride[1 + axis] // job.leaf.esize


cdef void pack_plugin(
    const void* ctx, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p,
    Py_ssize_t count, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width, char* panel
) noexcept nogil:
    cdef const plugin_job* job = <const plugin_job*>ctx
    cdef Py_ssize_t es = job.leaf.esize, j = 0, i, k, cols, rows, depths
    cdef const char* image = (
        job.x.data + n * job.x.stride[0] + g * job.channels * job.x.stride[1])
    cdef char* dst
    while j < count:
        cols = min(width, count - j)
        dst = panel + j * (k1 - k0) * es
        if not job.k.flags & PIXELS_OUTER:
            job.pack(
                job.k.context, image, job.stride, job.first + n, g, p + j, cols, k0, k1 - k0, dst,
                width)
        else:
            k = k0
            while k < k1:
                depths = min(<Py_ssize_t>TILE_DEPTHS, k1 - k)
                i = 0
                while i < cols:
                    rows = min(<Py_ssize_t>PANEL_PIXELS, cols - i)
                    job.pack(
                        job.k.context, image, job.stride, job.first + n, g, p + j + i, rows, k,
                        depths, scratch, TILE_DEPTHS)
                    job.leaf.transpose(
                        rows, depths, scratch, TILE_DEPTHS, dst + ((k - k0) * width + i) * es,
                        width)
                    i += PANEL_PIXELS
                k += TILE_DEPTHS
        j += width


cdef void finish_plugin(
    const void* ctx, Py_ssize_t n, Py_ssize_t m, Py_ssize_t rows, Py_ssize_t p, Py_ssize_t count,
    char* tile, Py_ssize_t row_step, Py_ssize_t pixel_step
) noexcept nogil:
    cdef const plugin_job* job = <const plugin_job*>ctx
    job.finish(job.k.context, job.first + n, m, rows, p, count, tile, row_step, pixel_step)


cdef int start(
    str operator, given, int compute, plugin_job* job, packer* pk
) except -1:
    """What the compute type needs of the kernel that was handed over."""
    take(operator, given, &job.k)
    job.leaf = leaf(compute)
    job.pack = job.k.pack_f64 if compute == 1 else job.k.pack_f32
    job.unpack = job.k.unpack_f64 if compute == 1 else job.k.unpack_f32
    job.finish = job.k.finish_f64 if compute == 1 else job.k.finish_f32
    if pk != NULL:
        if job.pack == NULL:
            checks.fail_type(
                operator, "kernel", f"pack {'float64' if compute == 1 else 'float32'}",
                checks.Verbatim("none that does"))
        start_packer(pk, job, pack_plugin)
        pk.scratch = (
            PANEL_PIXELS * TILE_DEPTHS * job.leaf.esize if job.k.flags & PIXELS_OUTER else 0)
    return 0


cdef inline bint as_it_is(const plugin_job* job, const tensor* x) noexcept nogil:
    """Whether a kernel is best given the image that way."""
    return x.in_place and (job.k.flags & ANY_STRIDES or x.stride[1] == job.leaf.esize)


cdef inline Py_ssize_t sample_bytes(const plugin_job* job, const tensor* x) noexcept nogil:
    return x.shape[1] * x.shape[2] * x.shape[3] * x.shape[4] * job.leaf.esize


def convolve(
    str operator, given, x, weight, bias, out, int compute, int threads, Py_ssize_t budget,
    PackedWeights packed=None, bint measure=False
):
    """Forward, into `out` (N, G*M, O0, O1, O2).  Returns the bytes of workspace.

    x: (N, G*C, S0, S1, S2); weight: (G, M, ...) of six axes; bias: (G*M,) or None.
    """
    cdef plugin_job job
    cdef packer pk
    cdef operand a
    cdef tensor image, result, part
    cdef Workspace store
    cdef finish_fn finish = NULL
    cdef Py_ssize_t size, held, count, n = 0, used
    start(operator, given, compute, &job, &pk)
    describe(x, 5, compute, &image)
    describe(out, 5, compute, &result)
    describe_operand(weight, compute, &a)
    if packed is not None:
        packed.take_place_of(&a)
        job.leaf = packed.leaf
    job.channels = image.shape[1] // a.groups if a.groups else 0
    if job.finish != NULL:
        finish = finish_plugin
    if not as_it_is(&job, &image):
        size = sample_bytes(&job, &image)
        count = max(<Py_ssize_t>1, min(
            image.shape[0],
            min(budget // 2, <Py_ssize_t>threads * SAMPLES_BYTES) // max(size, <Py_ssize_t>1)))
        held = count * size + 64
        try:
            if held > budget // 2:
                raise checks.WorkspaceError(operator, 2 * held, budget)
            job.x = image
            see(&job, 0)
            part = result
            part.shape[0] = count
            used = held + implicit_gemm(
                operator, &pk, &a, &part, bias, job.leaf, threads, budget - held, True, finish)
        except checks.WorkspaceError:
            if not image.in_place:      # another type, or elements that cannot be addressed
                raise
        else:
            if measure:
                return used
            store = Workspace(count * size)
            while n < image.shape[0]:
                part.shape[0] = min(count, image.shape[0] - n)
                part.data = result.data + n * result.stride[0]
                turn(&image, job.leaf, n, part.shape[0], store.data,
                     useful_threads(threads, <double>size * part.shape[0]), &job.x)
                see(&job, n)
                implicit_gemm(
                    operator, &pk, &a, &part, bias, job.leaf, threads, budget - held, False,
                    finish)
                n += count
            return used
    job.x = image
    see(&job, 0)
    return implicit_gemm(
        operator, &pk, &a, &result, bias, job.leaf, threads, budget, measure, finish)


def weight_gradient(
    str operator, given, x, grad, out, int compute, int threads, Py_ssize_t budget
):
    """Gradient of the weights of one sample into `out`, of six axes, for x and grad of that one.

    One at a time, so that the sums have one order whatever strides the images have.
    """
    cdef plugin_job job
    cdef packer pk
    cdef tensor image, dy, result
    cdef Workspace store
    cdef Py_ssize_t held = 0, size
    start(operator, given, compute, &job, &pk)
    describe(x, 5, compute, &image)
    describe(grad, 5, compute, &dy)
    describe(out, 6, compute, &result)
    job.x = image
    job.channels = image.shape[1] // result.shape[0] if result.shape[0] else 0
    if not as_it_is(&job, &image):
        size = sample_bytes(&job, &image)
        if size + 64 <= budget // 2:
            held = size + 64
            store = Workspace(size)
            turn(&image, job.leaf, 0, 1, store.data, useful_threads(threads, size), &job.x)
        elif not image.in_place:
            raise checks.WorkspaceError(operator, 2 * (size + 64), budget)
    see(&job, 0)
    return weight_gemm(
        operator, &pk, NULL, &dy, out, compute, threads, budget - held, False)


# ---- gradient of the image ----------------------------------------------------------------------

cdef struct unpack_job:
    const plugin_job* plugin
    char* image                 # where channel 0 of group 0 would be
    const char* columns         # [group][depth][pixel], compute type
    Py_ssize_t group_bytes      # of the columns
    Py_ssize_t group_pitch      # of the image, bytes
    Py_ssize_t n, p, count
    Py_ssize_t first, width     # channels of each group to do
    Py_ssize_t pieces           # of them


cdef void unpack_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are (group, piece of its channels)."""
    cdef const unpack_job* job = <const unpack_job*>ctx
    cdef Py_ssize_t task, g, piece, lo, hi
    for task in range(first, last):
        g, piece = task // job.pieces, task % job.pieces
        lo = job.first + job.width * piece // job.pieces
        hi = job.first + job.width * (piece + 1) // job.pieces
        if hi > lo:
            job.plugin.unpack(
                job.plugin.k.context, job.image + g * job.group_pitch, job.plugin.stride, job.n, g,
                job.p, job.count, lo, hi - lo, job.columns + g * job.group_bytes, job.count)


def needs_unpack(str operator, given, int compute):
    """Refuse a kernel that has no adjoint for the compute type."""
    cdef plugin_job job
    start(operator, given, compute, &job, NULL)
    if job.unpack == NULL:
        checks.fail_type(
            operator, "kernel", f"unpack {'float64' if compute == 1 else 'float32'}",
            checks.Verbatim("none that does"))


def unpack(
    str operator, given, columns, image, int compute, int threads, Py_ssize_t n, Py_ssize_t p,
    Py_ssize_t first
):
    """Add columns (G, K, count), contiguous, to `image` (G, width, S0, S1, S2).

    Both have the compute type; pixels p .. of sample n, channels first .. of each group.
    """
    cdef plugin_job job
    cdef unpack_job task
    cdef tensor t, c
    start(operator, given, compute, &job, NULL)
    describe(image, 5, compute, &t)
    describe(columns, 3, compute, &c)
    job.x = t
    see(&job, 0)
    task.plugin = &job
    task.image = t.data - first * t.stride[1]
    task.group_pitch = t.stride[0]
    task.columns = c.data
    task.group_bytes = c.shape[1] * c.shape[2] * job.leaf.esize
    task.n, task.p, task.count = n, p, c.shape[2]
    task.first, task.width = first, t.shape[1]
    threads = useful_threads(threads, 16.0 * c.shape[0] * c.shape[1] * c.shape[2])
    task.pieces = min(<Py_ssize_t>threads, t.shape[1])
    run(unpack_task, &task, t.shape[0] * task.pieces, threads, 0)
