"""Deformable convolution: a sampler that fills the panels of the implicit GEMM, and its gradients.

::

    out[n, g, m, o] = bias[g, m] + sum over c, t of
                      weight[g, m, c, t] * mask[n, og, t, o] * S(x[n, g, c], v)
    v = o*stride - padding + t*dilation + offset[n, og, t, :, o]        (og: c's offset group)

`S` is n-linear between the 2**rank elements around v; elements outside the array count as zero,
and so does the whole sample unless -1 < v < size on every axis.  A NaN is on no side of anything,
so NaN and infinite coordinates sample zero by the same comparison.  On an axis that wraps, finite
coordinates are first brought into 0 <= v < size, and the element after the last is the first.

With strides, dilations and padding of 0, v is what `offset` says: exact coordinates of any size.

Positions are computed in double precision, once per (tap, pixel), and shared by all channels of
the offset group: an offset in bytes and a coefficient for each of the surrounding elements.

The depths are k = (tap, channel), channels innermost: where the channels of an element lie next to
each other, a pixel's are sampled as vectors, into [pixel][depth].  There they stay if rows of the
weights are in lanes; else they are transposed into the panel, a tile at a time.
Other images are brought into that order, and the compute type, before, so much at a time as the
workspace allows; if it does not, one channel is sampled at a time.  All ways give the same bits.
"""

from cpython.pyport cimport PY_SSIZE_T_MAX
from libc.math cimport fmod, isfinite
from libc.string cimport memset

from pyconv import checks
from pyconv._kernels._cpu cimport LEAF_OUTSIDE, leaf, leaf_plane, leaf_table
from pyconv._kernels._gemm cimport (
    PackedWeights,
    describe_operand,
    evenly_spaced,
    implicit_gemm,
    operand,
    pack_operand,
    packer,
    packing_bytes,
    start_packer,
)
from pyconv._kernels._integers cimport ceil_div
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport describe, tensor
from pyconv._kernels._turn cimport turn
from pyconv._kernels._weights cimport weight_gemm

cdef enum:
    MOST_CORNERS = 8
    GRADIENT_TILE = 64          # pixels whose coordinate gradients are summed together
    TILE_PIXELS = 16            # sampled together, ...
    TILE_CHANNELS = 128         # ... a tile that stays in L1
    LINE = 64                   # bytes: no vector is longer
    REACH_PIXELS = 512          # whose offsets are looked at together
    LEAST_ROWS = 16             # of x that are turned round at a time
    TURNING = 4                 # elements of x turned round in the time of a sample that is not


# Cycles, about, for each channel of a sample, and for each position.
cdef double SAMPLING = 0.5, LOCATING = 20


# Positions of one tap for `ld` pixels.
cdef struct positions:
    Py_ssize_t ld
    double* v                   # [3][ld] coordinates
    double* m                   # [ld] mask
    double* grid                # [2][ld] where windows begin along the last two axes
    Py_ssize_t* where           # [corners][ld] bytes from the channel's first element
    char* coef                  # [sets][corners][ld], compute type


cdef Py_ssize_t positions_bytes(const sampler* s, int sets) noexcept nogil:
    """Bytes per pixel, each of the tables rounded up generously."""
    return 6 * sizeof(double) + s.corners * (sizeof(Py_ssize_t) + sets * s.leaf.esize)


cdef positions carve(const sampler* s, char* scratch, Py_ssize_t ld) noexcept nogil:
    cdef positions at
    at.ld = ld
    at.v = <double*>scratch
    at.m = at.v + 3 * ld
    at.grid = at.m + ld
    at.where = <Py_ssize_t*>(at.grid + 2 * ld)
    at.coef = <char*>(at.where + s.corners * ld)
    return at


cdef void load_pixels(
    const leaf_table* table, const tensor* t, const char* plane, Py_ssize_t p, Py_ssize_t count,
    char* dst
) noexcept nogil:
    """Elements p .. p+count-1 of one plane of a (.., .., O0, O1, O2) array."""
    cdef Py_ssize_t o0, o1, o2, length
    while count > 0:
        o2 = p % t.shape[4]
        o1 = p // t.shape[4] % t.shape[3]
        o0 = p // t.shape[4] // t.shape[3]
        length = min(count, t.shape[4] - o2)
        table.load[t.storage](
            dst, 0, plane + o0 * t.stride[2] + o1 * t.stride[3] + o2 * t.stride[4], 0,
            t.stride[4], 1, length)
        dst += length * table.esize
        p += length
        count -= length


cdef void fill_windows(
    const sampler* s, const positions* at, Py_ssize_t p, Py_ssize_t count
) noexcept nogil:
    """For pixels p .. p+count-1 what `locate_plane` counts from."""
    cdef Py_ssize_t o[3]
    cdef Py_ssize_t j
    start_pixel(s, p, o)
    for j in range(count):
        at.grid[j] = <double>(o[1] * s.stride[1])
        at.grid[at.ld + j] = <double>(o[2] * s.stride[2])
        next_pixel(s, o)


cdef inline void start_pixel(const sampler* s, Py_ssize_t p, Py_ssize_t* o) noexcept nogil:
    o[2] = p % s.out[2]
    o[1] = p // s.out[2] % s.out[1]
    o[0] = p // s.out[2] // s.out[1]


cdef inline bint surround_round(
    double v, Py_ssize_t size, Py_ssize_t stride, pair* at
) noexcept nogil:
    """`surround` on an axis whose ends meet."""
    cdef Py_ssize_t low
    if not isfinite(v):
        return False
    v = fmod(v, <double>size)
    if v < 0:
        v += size
    if v >= size:               # what is less than a rounding below 0
        v = 0
    low = <Py_ssize_t>v
    at.place[0] = low * stride
    at.place[1] = (low + 1) * stride if low + 1 < size else 0
    at.weight[0], at.weight[1] = 1 - (v - low), v - low
    at.inside[0] = at.inside[1] = True
    return True


cdef inline void combine(
    const sampler* s, const pair* around, positions* at, Py_ssize_t j, double m, int kind
) noexcept nogil:
    """Offsets and coefficients of the corners of pixel j, the first axis outermost."""
    cdef Py_ssize_t b0, b1, b2, q = 0, ld = at.ld
    cdef bint single = s.leaf.esize == 4
    cdef const pair* p0 = around
    cdef const pair* p1 = around + 1
    cdef const pair* p2 = around + 2
    cdef double w0, w1, w2
    for b0 in range(p0.count):
        w0 = p0.weight[b0]
        for b1 in range(p1.count):
            w1 = p1.weight[b1]
            for b2 in range(2):
                w2 = p2.weight[b2]
                if not (p0.inside[b0] and p1.inside[b1] and p2.inside[b2]):
                    drop_corner(s, at, j, q, m, kind)
                elif kind == SAMPLE:
                    at.where[q * ld + j] = p0.place[b0] + p1.place[b1] + p2.place[b2]
                    put(at.coef, q * ld + j, m * w0 * w1 * w2, single)
                else:
                    at.where[q * ld + j] = p0.place[b0] + p1.place[b1] + p2.place[b2]
                    put(at.coef, q * ld + j, w0 * w1 * w2, single)
                    # slopes: the factor of an axis becomes +1 or -1; the last axis is the last set
                    put(at.coef, (s.rank * s.corners + q) * ld + j,
                        m * w0 * w1 * (1 if b2 else -1), single)
                    if s.rank > 1:
                        put(at.coef, ((s.rank - 1) * s.corners + q) * ld + j,
                            m * w0 * (1 if b1 else -1) * w2, single)
                    if s.rank > 2:
                        put(at.coef, (s.corners + q) * ld + j,
                            m * (1 if b0 else -1) * w1 * w2, single)
                q += 1


cdef inline bint combine_plane(
    const sampler* s, const tensor* target, positions* at, Py_ssize_t j, double v1, double v2,
    double m
) noexcept nogil:
    """What `surround` and `combine` do for most samples in 2-D where ends meet, if pixel j is one.

    Its four corners are inside; places and coefficients are the same to the bit.
    """
    cdef Py_ssize_t low1, low2, place, ld = at.ld
    cdef Py_ssize_t step1 = target.stride[3], step2 = target.stride[4]
    cdef bint single = s.leaf.esize == 4
    cdef double above, below
    if not (v1 >= 0 and v2 >= 0 and v1 < target.shape[3] - 1 and v2 < target.shape[4] - 1):
        return False
    low1, low2 = <Py_ssize_t>v1, <Py_ssize_t>v2
    v1, v2 = v1 - low1, v2 - low2
    above, below = m * (1 - v1), m * v1
    place = low1 * step1 + low2 * step2
    at.where[j] = place
    at.where[ld + j] = place + step2
    at.where[2 * ld + j] = place + step1
    at.where[3 * ld + j] = place + step1 + step2
    put(at.coef, j, above * (1 - v2), single)
    put(at.coef, ld + j, above * v2, single)
    put(at.coef, 2 * ld + j, below * (1 - v2), single)
    put(at.coef, 3 * ld + j, below * v2, single)
    return True


cdef inline void drop_corner(
    const sampler* s, positions* at, Py_ssize_t j, Py_ssize_t q, double m, int kind
) noexcept nogil:
    """Corner q of pixel j counts zero, times the mask: a NaN there is not lost."""
    cdef int i
    cdef double nothing = 0 * m if kind == SAMPLE else 0
    at.where[q * at.ld + j] = LEAF_OUTSIDE
    for i in range(1 if kind == SAMPLE else 1 + s.rank):
        put(at.coef, (i * s.corners + q) * at.ld + j, nothing, s.leaf.esize == 4)


cdef void begin_tap(
    const sampler* s, Py_ssize_t n, Py_ssize_t og, Py_ssize_t t, Py_ssize_t p, Py_ssize_t count,
    Py_ssize_t* o, Py_ssize_t* base, pair* around, double* v, Py_ssize_t ld, double* m
) noexcept nogil:
    """Tap t of pixels p .. p+count-1: the first pixel, where offsets count from, and those.

    On the axes that are not there, a sample is `around` one element.  Offsets are v[axis][pixel],
    `ld` apart; masks m[pixel], if there are any.
    """
    cdef Py_ssize_t axis
    cdef int first = 3 - s.rank
    cdef const char* src = s.offset.data + n * s.offset.stride[0] + (
        (og * s.all_taps + t) * s.rank * s.offset.stride[1])
    start_pixel(s, p, o)
    base[2] = s.origin[2] + t % s.taps[2] * s.dilation[2]
    base[1] = s.origin[1] + t // s.taps[2] % s.taps[1] * s.dilation[1]
    base[0] = s.origin[0] + t // s.taps[2] // s.taps[1] * s.dilation[0]
    for axis in range(3):
        around[axis].count = 2 if axis >= first else 1
        around[axis].place[0] = 0
        around[axis].weight[0] = 1
        around[axis].inside[0] = True
    if s.offset_flat:
        s.wide.load[s.offset.storage](
            v + first * ld, ld, src + p * s.offset_step, s.offset.stride[1], s.offset_step,
            s.rank, count)
    else:
        for axis in range(first, 3):
            load_pixels(
                s.wide, &s.offset, src + (axis - first) * s.offset.stride[1], p, count,
                <char*>(v + axis * ld))
    if not s.has_mask:
        return
    src = s.mask.data + n * s.mask.stride[0] + (og * s.all_taps + t) * s.mask.stride[1]
    if s.mask_flat:
        s.wide.load[s.mask.storage](
            m, 0, src + p * s.mask_step, 0, s.mask_step, 1, count)
    else:
        load_pixels(s.wide, &s.mask, src, p, count, <char*>m)


cdef void locate_plane(
    const sampler* s, const tensor* target, positions* at, const Py_ssize_t* base,
    Py_ssize_t count
) noexcept nogil:
    """`locate` in 2-D where no ends meet, by vectors: the same to the bit."""
    cdef leaf_plane plane
    cdef Py_ssize_t j
    for j in range(2):
        plane.size[j], plane.stride[j] = target.shape[3 + j], target.stride[3 + j]
        plane.base[j] = <double>base[1 + j]
    s.wide.locate(
        count, at.grid, at.v + at.ld, at.m if s.has_mask else NULL, &plane, at.ld, at.where,
        at.coef, s.leaf.esize)


cdef void locate(
    const sampler* s, const tensor* target, positions* at, Py_ssize_t n, Py_ssize_t og,
    Py_ssize_t t, Py_ssize_t p, Py_ssize_t count, int kind
) noexcept nogil:
    """Where tap t of pixels p .. p+count-1 reads `target` (x, or its gradient), and how much.

    For SAMPLE, `fill_windows` has to have been there.
    """
    cdef Py_ssize_t j, q, axis, ld = at.ld
    cdef Py_ssize_t o[3]
    cdef Py_ssize_t base[3]
    cdef pair around[3]
    cdef double m = 1, v
    cdef int first = 3 - s.rank
    cdef bint found
    begin_tap(s, n, og, t, p, count, o, base, around, at.v, ld, at.m)
    if kind == SAMPLE and s.rank == 2 and not (s.wrap[1] or s.wrap[2]):
        locate_plane(s, target, at, base, count)
        return
    for j in range(count):
        if s.has_mask:
            m = at.m[j]
        if not (kind == SAMPLE and s.rank == 2 and combine_plane(
            s, target, at, j, o[1] * s.stride[1] + base[1] + at.v[ld + j],
            o[2] * s.stride[2] + base[2] + at.v[2 * ld + j], m)
        ):
            found = True
            for axis in range(first, 3):
                v = (o[axis] * s.stride[axis] + base[axis]) + at.v[axis * ld + j]
                found = found and (
                    surround_round(
                        v, target.shape[2 + axis], target.stride[2 + axis], around + axis)
                    if s.wrap[axis] else
                    surround(
                        v, target.shape[2 + axis], target.stride[2 + axis], kind, around + axis))
            if found:
                combine(s, around, at, j, m, kind)
            else:
                for q in range(s.corners):
                    drop_corner(s, at, j, q, m, kind)
        next_pixel(s, o)


# What a tile's scratch begins with: whose positions follow, so that they are found once.
cdef struct located:
    Py_ssize_t og, t


cdef void begin_samples(
    const void* ctx, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p, Py_ssize_t count
) noexcept nogil:
    cdef const sampler* s = <const sampler*>ctx
    cdef positions at = carve(s, scratch + LINE + tile_bytes(s), count)
    (<located*>scratch).t = -1
    fill_windows(s, &at, p, count)


# Channels of one tap that are sampled at the same positions.
cdef struct piece:
    Py_ssize_t k, length        # depths
    Py_ssize_t channel


cdef bint next_piece(
    const sampler* s, located* held, positions* at, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p,
    Py_ssize_t count, Py_ssize_t k1, piece* found
) noexcept nogil:
    """What follows a piece, before depth k1, and its positions; False at the end."""
    cdef Py_ssize_t k = found.k + found.length, t, c, og
    if k >= k1:
        return False
    t, c = k // s.channels, k % s.channels
    found.k, found.channel = k, g * s.channels + c
    og = found.channel // s.shared
    found.length = min(
        min(s.channels, (og + 1) * s.shared - g * s.channels) - c, k1 - k)
    if held.t != t or held.og != og:
        locate(s, &s.x if s.last.data == NULL else &s.last, at, n, og, t, p, count, SAMPLE)
        held.t, held.og = t, og
    return True


cdef inline const char* source_of(
    const sampler* s, Py_ssize_t n, Py_ssize_t channel
) noexcept nogil:
    """The image that is sampled, from a channel on: the one with channels last, if there is one."""
    if s.last.data == NULL:
        return s.x.data + n * s.x.stride[0] + channel * s.x.stride[1]
    return s.last.data + (n - s.first) * s.last.stride[0] + channel * s.leaf.esize


cdef void sample_panel(
    const sampler* s, const positions* at, Py_ssize_t p, Py_ssize_t count, const char* src,
    Py_ssize_t channels, char* tile, char* dst, Py_ssize_t width
) noexcept nogil:
    """Channels of pixels p .. p+count-1 of the positions as [channel][width]."""
    cdef Py_ssize_t es = s.leaf.esize, pitch = tile_channels(s), c = 0, j, rows, cols
    while c < channels:
        cols = min(pitch, channels - c)
        j = 0
        while j < count:
            rows = min(<Py_ssize_t>TILE_PIXELS, count - j)
            s.leaf.sample_channels(
                rows, cols, s.corners, at.ld, at.where + p + j, at.coef + (p + j) * es,
                src + c * es, tile, pitch, s.room)
            s.leaf.transpose(rows, cols, tile, pitch, dst + (c * width + j) * es, width)
            j += TILE_PIXELS
        c += pitch


cdef void pack_samples(
    const void* ctx, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p,
    Py_ssize_t count, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width, char* panel
) noexcept nogil:
    cdef const sampler* s = <const sampler*>ctx
    cdef Py_ssize_t es = s.leaf.esize, j, i, cols
    cdef char* tile = scratch + LINE
    cdef positions at = carve(s, tile + tile_bytes(s), count)
    cdef const char* src
    cdef char* dst
    cdef piece it
    it.k, it.length = k0, 0
    while next_piece(s, <located*>scratch, &at, n, g, p, count, k1, &it):
        src = source_of(s, n, it.channel)
        j = 0
        while j < count:        # a panel
            dst = panel + (j * (k1 - k0) + (it.k - k0) * width) * es
            cols = min(width, count - j)
            if s.last.data != NULL:
                sample_panel(s, &at, j, cols, src, it.length, tile, dst, width)
            else:
                for i in range(it.length):
                    s.leaf.sample[s.x.storage](
                        cols, s.corners, at.ld, at.where + j, at.coef + j * es,
                        src + i * s.x.stride[1], dst + i * width * es)
            j += width


cdef void pack_pixels(
    const void* ctx, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p,
    Py_ssize_t count, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width, char* panel
) noexcept nogil:
    """The same as [pixel][k - k0]: what is written past a piece is written again by the next."""
    cdef const sampler* s = <const sampler*>ctx
    cdef Py_ssize_t es = s.leaf.esize, j, i, first, rows, cols
    cdef char* tile = scratch + LINE
    cdef positions at = carve(s, tile + tile_bytes(s), count)
    cdef const char* src
    cdef char* dst
    cdef piece it
    it.k, it.length = k0, 0
    while next_piece(s, <located*>scratch, &at, n, g, p, count, k1, &it):
        src, dst = source_of(s, n, it.channel), panel + (it.k - k0) * es
        if s.last.data != NULL:
            s.leaf.sample_channels(
                count, it.length, s.corners, at.ld, at.where, at.coef, src, dst, width, s.room)
            continue
        first = 0
        while first < it.length:
            rows = min(tile_channels(s), it.length - first)
            j = 0
            while j < count:
                cols = min(<Py_ssize_t>TILE_PIXELS, count - j)
                for i in range(rows):
                    s.leaf.sample[s.x.storage](
                        cols, s.corners, at.ld, at.where + j, at.coef + j * es,
                        src + (first + i) * s.x.stride[1], tile + i * TILE_PIXELS * es)
                s.leaf.transpose(
                    rows, cols, tile, TILE_PIXELS, dst + (j * width + first) * es, width)
                j += cols
            first += rows


cdef int turn_samples(
    void* ctx, char* store, Py_ssize_t n, Py_ssize_t count, int threads
) except -1:
    """Samples n .. n+count-1 of x with channels last, in the compute type."""
    cdef sampler* s = <sampler*>ctx
    cdef tensor part = s.x
    cdef int axis = 5 - s.rank
    s.first = n
    s.room = True
    part.data += s.lo * part.stride[axis]
    part.shape[axis] = s.hi - s.lo
    turn(&part, s.leaf, n, count, store, threads, &s.last)
    s.last.shape = s.x.shape
    s.last.data -= s.lo * s.last.stride[axis]
    return 0


cdef int fill_sampler(
    x, offset, mask, Py_ssize_t groups, int rank, taps, out, stride, dilation, origin, wrap,
    int compute, sampler* s
) except -1:
    cdef int axis
    describe(x, 5, compute, &s.x)
    describe(offset, 5, compute, &s.offset)
    s.has_mask = mask is not None
    if s.has_mask:
        describe(mask, 5, compute, &s.mask)
    s.rank = rank
    s.corners = 1 << rank
    s.all_taps = 1
    for axis in range(3):
        s.taps[axis] = taps[axis]
        s.all_taps *= s.taps[axis]
        s.out[axis] = out[axis]
        s.stride[axis] = stride[axis]
        s.dilation[axis] = dilation[axis]
        s.origin[axis] = origin[axis]
        s.wrap[axis] = wrap[axis]
    s.channels = s.x.shape[1] // groups
    s.shared = s.x.shape[1] // max(<Py_ssize_t>1, s.offset.shape[1] // (rank * s.all_taps))
    s.offset_flat = evenly_spaced(&s.offset, &s.offset_step)
    s.mask_flat = s.has_mask and evenly_spaced(&s.mask, &s.mask_step)
    s.leaf = leaf(compute)
    s.wide = leaf(1)
    s.first = 0
    s.lo, s.hi = 0, s.x.shape[5 - rank]
    s.room = False
    s.last = s.x
    if not (s.x.in_place and s.x.stride[1] == s.leaf.esize):
        s.last.data = NULL
    return 0


cdef inline Py_ssize_t together(const sampler* s) noexcept nogil:
    """Channels that are sampled at the same positions, and follow each other."""
    return max(<Py_ssize_t>1, min(s.channels, s.shared))


cdef inline Py_ssize_t tile_channels(const sampler* s) noexcept nogil:
    return min(<Py_ssize_t>TILE_CHANNELS, together(s))


cdef inline Py_ssize_t tile_bytes(const sampler* s) noexcept nogil:
    """Of a tile of samples, and a vector past it."""
    return aligned(TILE_PIXELS * tile_channels(s) * s.leaf.esize) + LINE


cdef void use_sampler(packer* pk, sampler* s) noexcept nogil:
    cdef Py_ssize_t plane = s.x.shape[2] * s.x.shape[3] * s.x.shape[4]
    cdef Py_ssize_t samples = s.out[0] * s.out[1] * s.out[2] * s.all_taps
    start_packer(pk, s, pack_samples)
    pk.begin = begin_samples
    pk.scratch = 2 * LINE + tile_bytes(s)
    pk.scratch_per_pixel = positions_bytes(s, 1)
    pk.by_pixel, pk.effort = pack_pixels, SAMPLING + LOCATING / together(s)
    # Few channels are vectors only where there is room past them.
    if (s.last.data == NULL or together(s) < s.leaf.vl) and plane <= TURNING * samples:
        pk.prepare = turn_samples
        pk.sample_bytes = s.x.shape[1] * plane * s.leaf.esize + LINE


# ---- bands of a sample that is too large to be turned round as a whole --------------------------

# Elements of x along the first axis that outputs there sample: from, and up to.
cdef struct reach:
    Py_ssize_t lo, hi


cdef struct reach_job:
    const sampler* s
    Py_ssize_t n
    reach* found


cdef void reach_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are outputs along the first axis."""
    cdef const reach_job* job = <const reach_job*>ctx
    cdef const sampler* s = job.s
    cdef int axis = 3 - s.rank
    cdef Py_ssize_t size = s.x.shape[2 + axis], groups = s.x.shape[1] // s.shared
    cdef Py_ssize_t inner = 1, rest = 1, o, t, og, j, p, count, start
    cdef double* v = <double*>scratch
    cdef double least, most, at
    cdef const char* plane
    for j in range(axis + 1, 3):
        inner *= s.taps[j]
        rest *= s.out[j]
    for o in range(first, last):
        least, most = <double>size, -1
        for og in range(groups):
            for t in range(s.all_taps):
                start = o * s.stride[axis] + s.origin[axis] + t // inner * s.dilation[axis]
                plane = s.offset.data + job.n * s.offset.stride[0] + (
                    (og * s.all_taps + t) * s.rank * s.offset.stride[1])
                p = 0
                while p < rest:
                    count = min(<Py_ssize_t>REACH_PIXELS, rest - p)
                    load_pixels(s.wide, &s.offset, plane, o * rest + p, count, scratch)
                    for j in range(count):
                        at = <double>start + v[j]
                        if at > -1 and at < size:
                            least, most = min(least, at), max(most, at)
                    p += count
        job.found[o].lo = max(<Py_ssize_t>0, <Py_ssize_t>least) if most > -1 else 0
        job.found[o].hi = min(size, <Py_ssize_t>(most + 2)) if most > -1 else 1


cdef Py_ssize_t correlate_bands(
    str operator, sampler* whole, packer* pk, const operand* a, const tensor* out, bias,
    int threads, Py_ssize_t budget, bint measure
) except -1:
    """`implicit_gemm`, of so much of a sample at a time as there is room for what it samples.

    Outputs whose samples are strewn over more than that sample x where it is.
    """
    cdef sampler s = whole[0]
    cdef tensor part
    cdef reach_job job
    cdef reach here
    cdef Workspace found
    cdef int axis = 5 - s.rank
    cdef Py_ssize_t n, o, end, rows = s.x.shape[axis], outputs = out.shape[axis]
    cdef Py_ssize_t used = 0, fixed = outputs * sizeof(reach) + 64
    cdef Py_ssize_t line = (pk.sample_bytes - LINE) // max(<Py_ssize_t>1, rows)
    cdef Py_ssize_t most = ((budget - fixed) // 2 - LINE) // max(<Py_ssize_t>1, line)
    if (pk.sample_bytes <= budget // 2 or most < LEAST_ROWS or s.wrap[axis - 2]
            or out.shape[0] * out.shape[2] * out.shape[3] * out.shape[4] == 0):
        return implicit_gemm(operator, pk, a, out, bias, s.leaf, threads, budget, measure)
    pk.ctx = &s
    if measure:
        pk.sample_bytes = most * line + LINE
        return fixed + implicit_gemm(
            operator, pk, a, out, bias, s.leaf, threads, budget - fixed, measure)
    found = Workspace(outputs * sizeof(reach))
    job.s, job.found = whole, <reach*>found.data
    for n in range(out.shape[0]):
        job.n = n
        run(reach_task, &job, outputs, useful_threads(
            threads, 8.0 * s.offset.shape[1] * s.out[0] * s.out[1] * s.out[2]),
            REACH_PIXELS * sizeof(double))
        o = 0
        while o < outputs:
            here = job.found[o]
            end = o + 1
            while end < outputs and (here.hi - here.lo <= most) == (
                max(here.hi, job.found[end].hi) - min(here.lo, job.found[end].lo) <= most
            ):
                here.lo, here.hi = min(here.lo, job.found[end].lo), max(here.hi, job.found[end].hi)
                end += 1
            s, part = whole[0], out[0]
            take_outputs(&s.x, axis, n, 0, rows)
            take_outputs(&s.offset, axis, n, o, end)
            if s.has_mask:
                take_outputs(&s.mask, axis, n, o, end)
            take_outputs(&part, axis, n, o, end)
            s.last.data += n * s.last.stride[0] if s.last.data != NULL else 0
            s.out[axis - 2] = end - o
            s.origin[axis - 2] += o * s.stride[axis - 2]
            s.lo, s.hi = here.lo, here.hi
            pk.sample_bytes = (s.hi - s.lo) * line + LINE
            used = max(used, implicit_gemm(
                operator, pk, a, &part, bias, s.leaf, threads, budget - fixed, measure))
            o = end
    return fixed + used


cdef void take_outputs(
    tensor* t, int axis, Py_ssize_t n, Py_ssize_t lo, Py_ssize_t hi
) noexcept nogil:
    """Sample n alone, and of it what is from lo up to hi along an axis."""
    t.data += n * t.stride[0] + lo * t.stride[axis]
    t.shape[0], t.shape[axis] = 1, hi - lo


def correlate(
    str operator, x, offset, mask, weight, bias, out, int rank, stride, dilation, origin,
    int compute, int threads, Py_ssize_t budget, PackedWeights packed=None, bint measure=False,
    wrap=(False, False, False), bint lanes=False
):
    """Forward, into `out` (N, G*M, O0, O1, O2).  Returns the bytes of workspace.

    x: (N, G*C, S0, S1, S2); offset: (N, OG*rank*T, O0, O1, O2); mask: (N, OG*T, O0, O1, O2) or
    None; weight: (G, M, T0, T1, T2, C); bias: (G*M,) or None.  `origin` is minus the padding;
    the ends of axes that `wrap` meet.  Without packed weights, their rows are in lanes if `lanes`
    and there is room.
    """
    cdef sampler s
    cdef packer pk
    cdef operand a
    cdef tensor result
    cdef Py_ssize_t taken = 0
    describe_operand(weight, compute, &a)
    describe(out, 5, compute, &result)
    fill_sampler(
        x, offset, mask, a.groups, rank, weight.shape[2:5], out.shape[2:], stride, dilation,
        origin, wrap, compute, &s)
    if packed is None and lanes and a.rows * a.depth > 0:
        a.lanes = True
        taken = packing_bytes(&a, s.leaf, threads)
        if taken > budget // 4:
            a.lanes, taken = False, 0
        elif measure:
            a.packed = a.t.data     # any address: sizes are all that is asked for
        else:
            packed = pack_operand(&a, s.leaf, threads)
    if packed is not None:
        packed.take_place_of(&a)
        s.leaf = packed.leaf
    use_sampler(&pk, &s)
    try:
        return taken + correlate_bands(
            operator, &s, &pk, &a, &result, bias, threads, budget - taken, measure)
    except checks.WorkspaceError:   # nothing is written yet; weights as they are take less
        use_sampler(&pk, &s)
        describe_operand(weight, compute, &a)
        return implicit_gemm(operator, &pk, &a, &result, bias, s.leaf, threads, budget, measure)


def weight_gradient(
    str operator, x, offset, mask, grad, out, int rank, stride, dilation, origin, int compute,
    int threads, Py_ssize_t budget, bint measure=False, wrap=(False, False, False)
):
    """Gradient of the weights into `out` (G, M, T0, T1, T2, C).  Returns bytes of workspace."""
    cdef sampler s
    cdef packer pk
    cdef tensor result, dy
    describe(out, 6, compute, &result)
    describe(grad, 5, compute, &dy)
    fill_sampler(
        x, offset, mask, result.shape[0], rank, out.shape[2:5], grad.shape[2:], stride, dilation,
        origin, wrap, compute, &s)
    use_sampler(&pk, &s)
    return weight_gemm(operator, &pk, NULL, &dy, out, compute, threads, budget, measure)


# ---- gradients of x, offset and mask -----------------------------------------------------------
#
# Both start from columns[g, c, t, p] = sum over m of weight[g, m, c, t] * grad[n, g, m, p], made
# tile by tile with the ordinary GEMM (pyconv.engine); then
#   x       every thread owns some channels and scatters into them, pixels in order;
#   offset, every thread owns some pixels and sums over channels in order.
#   mask

cdef struct gradient_job:
    const sampler* s
    const tensor* dx            # shape and strides of the sums for x, along its spatial axes
    char* sums                  # of the first channel that has columns; compute type
    Py_ssize_t group_pitch, channel_pitch
    const tensor* doffset       # (N, OG * rank * T, O0, O1, O2)
    const tensor* dmask         # (N, OG * T, O0, O1, O2)
    const char* columns         # [G][width][T][count], compute type
    bint flipped                # taps of the columns in reverse order
    Py_ssize_t n, p, count
    Py_ssize_t groups
    Py_ssize_t first, width     # channels first .. first+width-1 of each group have columns
    Py_ssize_t lo, hi           # bytes of a channel of sums to touch


cdef inline Py_ssize_t column_tap(const gradient_job* job, Py_ssize_t t) noexcept nogil:
    return job.s.all_taps - 1 - t if job.flipped else t


cdef void scatter_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are the channels that have columns, (group, channel) flattened."""
    cdef const gradient_job* job = <const gradient_job*>ctx
    cdef const sampler* s = job.s
    cdef Py_ssize_t es = s.leaf.esize, task, channel, og, held, t
    cdef positions at = carve(s, scratch, job.count)
    fill_windows(s, &at, job.p, job.count)
    for t in range(s.all_taps):
        held = -1
        for task in range(first, last):
            channel = task // job.width * s.channels + job.first + task % job.width
            og = channel // s.shared
            if og != held:
                locate(s, job.dx, &at, job.n, og, t, job.p, job.count, SAMPLE)
                held = og
            s.leaf.scatter(
                job.count, s.corners, at.ld, at.where, at.coef,
                job.columns + (task * s.all_taps + column_tap(job, t)) * job.count * es,
                job.sums + task // job.width * job.group_pitch
                + task % job.width * job.channel_pitch,
                job.lo, job.hi)


cdef void store_pixels(
    const leaf_table* table, const tensor* t, char* plane, Py_ssize_t p, Py_ssize_t count,
    const char* src
) noexcept nogil:
    cdef Py_ssize_t o0, o1, o2, length
    while count > 0:
        o2 = p % t.shape[4]
        o1 = p // t.shape[4] % t.shape[3]
        o0 = p // t.shape[4] // t.shape[3]
        length = min(count, t.shape[4] - o2)
        table.store[t.storage](
            plane + o0 * t.stride[2] + o1 * t.stride[3] + o2 * t.stride[4], 0, t.stride[4], src,
            0, 1, length)
        src += length * table.esize
        p += length
        count -= length


cdef void slope_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are runs of GRADIENT_TILE pixels; every column of them must be there."""
    cdef const gradient_job* job = <const gradient_job*>ctx
    cdef const sampler* s = job.s
    cdef const leaf_table* table = s.leaf
    cdef Py_ssize_t es = table.esize, ld = GRADIENT_TILE, sets = 1 + s.rank
    cdef Py_ssize_t task, p, count, og, t, c, axis
    cdef Py_ssize_t offset_groups = s.x.shape[1] // s.shared
    cdef positions at = carve(s, scratch, ld)
    cdef char* sums = at.coef + sets * s.corners * ld * es     # [sets][ld]
    for task in range(first, last):
        p = task * GRADIENT_TILE
        count = min(ld, job.count - p)
        for og in range(offset_groups):
            for t in range(s.all_taps):
                locate(s, &s.x, &at, job.n, og, t, job.p + p, count, SLOPES)
                memset(sums, 0, sets * ld * es)
                for c in range(og * s.shared, (og + 1) * s.shared):
                    table.sample_dot[s.x.storage](
                        count, sets, s.corners, ld, at.where, at.coef,
                        s.x.data + job.n * s.x.stride[0] + c * s.x.stride[1],
                        job.columns
                        + ((c * s.all_taps + column_tap(job, t)) * job.count + p) * es, sums)
                if job.dmask != NULL:
                    store_pixels(
                        table, job.dmask, job.dmask.data + job.n * job.dmask.stride[0]
                        + (og * s.all_taps + t) * job.dmask.stride[1], job.p + p, count, sums)
                if job.doffset != NULL:
                    for axis in range(s.rank):
                        store_pixels(
                            table, job.doffset, job.doffset.data + job.n * job.doffset.stride[0]
                            + ((og * s.all_taps + t) * s.rank + axis) * job.doffset.stride[1],
                            job.p + p, count, sums + (1 + axis) * ld * es)


def input_gradients(
    columns, x, offset, mask, dx, window, doffset, dmask, Py_ssize_t groups, int rank, taps, out,
    stride, dilation, origin, int compute, int threads, Py_ssize_t n, Py_ssize_t p,
    Py_ssize_t first, Py_ssize_t lo, bint flipped, wrap=(False, False, False)
):
    """Add what the pixels of `columns` contribute to the gradients of sample n.

    columns: (groups, width, T, count), contiguous, compute type: channels first .. of each group,
    pixels p .. p+count-1, the taps in reverse order if `flipped`.  The gradient of x is added to
    `dx` (N, C, S0, S1, S2) in the compute type, or to `window` (groups, width, elements),
    contiguous: elements lo .. of those channels, spatial axes flattened.  `doffset` and `dmask`
    are overwritten, and need all channels.  Each may be None.
    """
    cdef sampler s
    cdef gradient_job job
    cdef tensor t_dx, t_window, t_doffset, t_dmask, t_columns
    cdef int sets = 1 + rank, nt
    cdef Py_ssize_t size, es
    fill_sampler(
        x, offset, mask, groups, rank, taps, out, stride, dilation, origin, wrap, compute, &s)
    es = s.leaf.esize
    describe(columns, 4, compute, &t_columns)
    job.s = &s
    job.columns = t_columns.data
    job.flipped = flipped
    job.n, job.p, job.count = n, p, t_columns.shape[3]
    job.groups, job.first, job.width = groups, first, t_columns.shape[1]
    job.dx, job.doffset, job.dmask = NULL, NULL, NULL
    size = t_columns.shape[0] * t_columns.shape[1] * t_columns.shape[2] * t_columns.shape[3]
    nt = useful_threads(threads, 16.0 * size)
    if dx is not None:
        describe(dx, 5, compute, &t_dx)
        job.sums = t_dx.data + n * t_dx.stride[0] + first * t_dx.stride[1]
        job.group_pitch, job.channel_pitch = s.channels * t_dx.stride[1], t_dx.stride[1]
        job.lo, job.hi = 0, PY_SSIZE_T_MAX
        job.dx = &t_dx
    elif window is not None:
        describe(window, 3, compute, &t_window)
        t_dx.shape = s.x.shape
        t_dx.stride[4] = es
        t_dx.stride[3] = t_dx.shape[4] * es
        t_dx.stride[2] = t_dx.shape[3] * t_dx.stride[3]
        job.lo, job.hi = lo * es, (lo + t_window.shape[2]) * es
        job.sums = t_window.data - job.lo
        job.channel_pitch = t_window.shape[2] * es
        job.group_pitch = job.width * job.channel_pitch
        job.dx = &t_dx
    if job.dx != NULL:
        run(scatter_task, &job, groups * job.width, nt,
            job.count * positions_bytes(&s, 1) + 64)
    if doffset is not None or dmask is not None:
        if doffset is not None:
            describe(doffset, 5, compute, &t_doffset)
            job.doffset = &t_doffset
        if dmask is not None:
            describe(dmask, 5, compute, &t_dmask)
            job.dmask = &t_dmask
        run(slope_task, &job, ceil_div(job.count, GRADIENT_TILE), nt,
            GRADIENT_TILE * (positions_bytes(&s, sets) + sets * s.leaf.esize) + 64)


def gradient_bytes(int rank, int compute, Py_ssize_t count):
    """Scratch that `input_gradients` takes per thread for tiles of `count` pixels."""
    cdef Py_ssize_t es = leaf(compute).esize, corners = 1 << rank, sets = 1 + rank
    return max(
        count * (48 + corners * (8 + es)),
        GRADIENT_TILE * (48 + corners * (8 + sets * es) + sets * es)) + 192
