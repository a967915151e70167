"""Gradients of deformable convolution, all from one sweep over bands of output pixels.

With the columns of a pixel,  column[c, t, p] = sum over m of weight[g, m, c, t] * grad[n, g, m, p],

    x       at each element around the spot of (t, p): its coefficient times the column, added up
    offset  the column times the slopes there, summed over the channels of the offset group
    mask    the column times the sample there, summed likewise
    weight  [g, m, c, t]: grad[n, g, m, p] times the sample of (c, t, p), summed over all pixels

Everything has channels innermost, as vectors: x as [pixel][channel], and so what is added up for
its gradient; columns and samples of a band as [tap][pixel][channel].  For each band

1. threads take tiles of its pixels: columns by the micro-kernel, spots, dot products of a column
   with each of the elements around its spot, of which the gradients of offset and mask are made,
   and samples;
2. they take ranges of channels: each adds the columns of all pixels, in order, to its own;
3. they take blocks of the weights: the micro-kernel adds the products of the band.

A spot is found once and serves all three.  Nothing is summed in an order that depends on the
threads; and but for the weights' gradient, which adds band to band, on the bands.
"""

from libc.string cimport memset

from pyconv import checks
from pyconv._kernels._cpu cimport leaf_table
from pyconv._kernels._deform cimport (
    SLOPES,
    begin_tap,
    fill_sampler,
    next_pixel,
    pair,
    put,
    sampler,
    store_pixels,
    surround,
    turn_samples,
)
from pyconv._kernels._gemm cimport depth_block, evenly_spaced
from pyconv._kernels._integers cimport ceil_div, odd_lines, round_up
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport describe, tensor

cdef enum:
    OUTSIDE = -1
    BAND_BYTES = 2 * 1024 * 1024    # of columns and samples: they stay in the caches
    BAND = 192                      # pixels, about: the weights' gradient adds halves of a band
    TILE = 48                       # pixels that meet the weights together, about,
    MOST_TILE = 72                  # ... and at most
    LINE = 64                       # bytes: channels of a line belong to one thread
    TURN_PIXELS = 64                # pixels and ...
    TURN_CHANNELS = 32              # ... channels that change places together: as `turn_samples`


cdef struct sweep:
    sampler s
    const leaf_table* leaf
    Py_ssize_t es
    tensor weight               # (G, M, C, T0, T1, T2)
    tensor grad                 # (N, G * M, O0, O1, O2)
    tensor dx, doffset, dmask   # data is NULL where it is not asked for
    tensor dw                   # as the weight
    bint flipped                # taps of weight and dw in reverse order
    bint columns_wanted         # for any of dx, doffset, dmask
    Py_ssize_t groups, rows     # of the weights; rows M per group
    Py_ssize_t channels         # per group
    Py_ssize_t all_channels
    Py_ssize_t offset_groups
    Py_ssize_t panels           # channels of a group in whole panels of nr
    Py_ssize_t tap_ld           # elements from tap to tap of the weights, and of their gradient,
    Py_ssize_t ld               # ... from pixel to pixel of columns and samples,
    Py_ssize_t grad_ld          # ... from row to row of grad_band
    Py_ssize_t pixels           # of a sample
    Py_ssize_t plane            # elements of a channel of x
    Py_ssize_t most             # pixels of a band
    # the band
    Py_ssize_t n, p, count
    Py_ssize_t tile
    bint flat                   # pixels of grad are evenly spaced, by
    Py_ssize_t grad_step        # this many bytes
    # workspace, in the compute type
    char* image                 # x of sample n [pixel][channel]
    Py_ssize_t image_pitch      # elements
    char* sums                  # for dx, likewise
    Py_ssize_t sums_pitch
    char* packed                # weights [group][tap][block of KC][panel of nr channels][m][nr]
    char* dw_sums               # [group][tap][m][channel], rows `panels` elements apart
    char* columns               # [tap][pixel of the band][channel]
    char* samples
    char* grad_band             # [group][m][pixel]
    Py_ssize_t* at              # [offset group][pixel][tap][corner]: pixel of x, or OUTSIDE
    char* coef                  # likewise: n-linear weight times mask


# What a thread keeps of the spots of one tap.
cdef struct notes:
    double* v                   # [3][tile] offsets, then parts: how far from the element below
    double* m                   # [tile] mask, 0 where the sample is 0 as a whole
    char* found                 # [tile]
    char* dots                  # [tile][corners], compute type
    char* line                  # [tile], compute type


cdef enum:
    NOWHERE = 0
    FOUND = 1
    SLOPE_ALONE = 2             # at exactly -1: the sample is zero, its right-hand slope is not


cdef inline double get(const char* src, Py_ssize_t at, bint single) noexcept nogil:
    return (<const float*>src)[at] if single else (<const double*>src)[at]


cdef void find_spots(
    const sweep* w, notes* own, Py_ssize_t og, Py_ssize_t t, Py_ssize_t first, Py_ssize_t count
) noexcept nogil:
    """Spots of tap t of pixels first .. first+count-1 of the band."""
    cdef const sampler* s = &w.s
    cdef Py_ssize_t j, q, axis, p = w.p + first, step = s.all_taps * s.corners, b0, b1, b2
    cdef Py_ssize_t o[3]
    cdef Py_ssize_t base[3]
    cdef Py_ssize_t pitch[3]
    cdef pair around[3]
    cdef double v, m = 1, w0, w1, nothing
    cdef int real = 3 - s.rank, found
    cdef bint single = w.es == 4
    cdef Py_ssize_t start = ((og * w.most + first) * s.all_taps + t) * s.corners
    cdef Py_ssize_t* at = w.at + start
    cdef char* coef = w.coef + start * w.es
    begin_tap(s, w.n, og, t, p, count, o, base, around, own.v, w.tile, own.m)
    pitch[2], pitch[1] = 1, s.x.shape[4]
    pitch[0] = s.x.shape[3] * s.x.shape[4]
    for j in range(count):
        if s.has_mask:
            m = own.m[j]
        found = FOUND
        for axis in range(real, 3):
            v = (o[axis] * s.stride[axis] + base[axis]) + own.v[axis * w.tile + j]
            if not surround(v, s.x.shape[2 + axis], pitch[axis], SLOPES, around + axis):
                found = NOWHERE
                break
            if v == -1:
                found = SLOPE_ALONE
            own.v[axis * w.tile + j] = around[axis].weight[1]
        own.found[j] = found
        own.m[j] = m
        nothing = 0 * m     # a NaN is not lost
        q = 0
        if found == NOWHERE:
            own.m[j] = 0
            for axis in range(real, 3):
                own.v[axis * w.tile + j] = 0
            for q in range(s.corners):
                at[q] = OUTSIDE
                put(coef, q, nothing, single)
        else:
            for b0 in range(around[0].count):
                w0 = m * around[0].weight[b0]
                for b1 in range(around[1].count):
                    w1 = w0 * around[1].weight[b1]
                    for b2 in range(2):
                        if around[0].inside[b0] and around[1].inside[b1] and around[2].inside[b2]:
                            at[q] = (around[0].place[b0] + around[1].place[b1]
                                     + around[2].place[b2])
                            put(coef, q, w1 * around[2].weight[b2], single)
                        else:
                            at[q] = OUTSIDE
                            put(coef, q, nothing, single)
                        q += 1
        at += step
        coef += step * w.es
        next_pixel(s, o)


cdef inline double contract(
    const sweep* w, const notes* own, Py_ssize_t j, int slope
) noexcept nogil:
    """Pixel j's dot products, summed with the n-linear weights; along axis `slope` +1 and -1."""
    cdef double value[8]
    cdef double low, high
    cdef Py_ssize_t i, half = w.s.corners
    cdef int axis
    for i in range(half):
        value[i] = get(own.dots, j * w.s.corners + i, w.es == 4)
    for axis in range(2, 2 - w.s.rank, -1):     # the last axis is innermost
        half //= 2
        if axis == slope:
            low, high = -1, 1
        else:
            high = own.v[axis * w.tile + j]
            low = 1 - high
        for i in range(half):
            value[i] = low * value[2 * i] + high * value[2 * i + 1]
    return value[0]


cdef void coordinate_gradients(
    const sweep* w, const notes* own, Py_ssize_t og, Py_ssize_t t, Py_ssize_t first,
    Py_ssize_t count
) noexcept nogil:
    cdef const sampler* s = &w.s
    cdef Py_ssize_t j
    cdef int axis
    cdef bint single = w.es == 4
    if w.dmask.data != NULL:
        for j in range(count):
            put(own.line, j, contract(w, own, j, -1), single)
        store_pixels(
            w.leaf, &w.dmask, w.dmask.data + w.n * w.dmask.stride[0]
            + (og * s.all_taps + t) * w.dmask.stride[1], w.p + first, count, own.line)
    if w.doffset.data != NULL:
        for axis in range(3 - s.rank, 3):
            for j in range(count):
                put(own.line, j, own.m[j] * contract(w, own, j, axis), single)
            store_pixels(
                w.leaf, &w.doffset, w.doffset.data + w.n * w.doffset.stride[0]
                + ((og * s.all_taps + t) * s.rank + axis - 3 + s.rank) * w.doffset.stride[1],
                w.p + first, count, own.line)


cdef void drop_slopes(
    const sweep* w, const notes* own, Py_ssize_t og, Py_ssize_t t, Py_ssize_t first,
    Py_ssize_t count
) noexcept nogil:
    """Spots that are there for their slopes alone become samples that are zero."""
    cdef const sampler* s = &w.s
    cdef Py_ssize_t j, q, i
    for j in range(count):
        if own.found[j] == SLOPE_ALONE:
            i = (((og * w.most + first + j) * s.all_taps) + t) * s.corners
            for q in range(s.corners):
                w.at[i + q] = OUTSIDE
                put(w.coef, i + q, 0 * own.m[j], w.es == 4)


cdef void load_grad(
    const sweep* w, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t p, Py_ssize_t count, char* dst,
    Py_ssize_t dst_rs
) noexcept nogil:
    """Pixels p .. p+count-1 of some rows of grad as dst[row][pixel]."""
    cdef const tensor* t = &w.grad
    cdef const char* src = t.data + w.n * t.stride[0] + row * t.stride[1]
    cdef const char* at
    cdef Py_ssize_t length, step, o2
    while count > 0:
        if w.flat:
            length, step, at = count, w.grad_step, src + p * w.grad_step
        else:
            o2 = p % t.shape[4]
            length, step = min(count, t.shape[4] - o2), t.stride[4]
            at = (src + o2 * step + p // t.shape[4] % t.shape[3] * t.stride[3]
                  + p // t.shape[4] // t.shape[3] * t.stride[2])
        w.leaf.load[t.storage](dst, dst_rs, at, t.stride[1], step, rows, length)
        dst += length * w.es
        p += length
        count -= length


cdef void pack_tile(
    const sweep* w, Py_ssize_t first, Py_ssize_t count, char* dst
) noexcept nogil:
    """grad of pixels of the band as [group][block of KC][block of mr pixels][m][mr]."""
    cdef Py_ssize_t mr = w.leaf.mr, kc = depth_block(w.rows), g, k, depth, i, j
    for g in range(w.groups):
        k = 0
        while k < w.rows:
            depth = min(kc, w.rows - k)
            for i in range(ceil_div(count, mr)):
                j = i * mr
                load_grad(w, g * w.rows + k, depth, w.p + first + j, min(mr, count - j), dst, mr)
                dst += depth * mr * w.es
            k += depth


cdef void make_columns(
    const sweep* w, const char* grad, Py_ssize_t t, Py_ssize_t first, Py_ssize_t count
) noexcept nogil:
    """Columns of tap t: grad, as packed, times the weights."""
    cdef const leaf_table* leaf = w.leaf
    cdef Py_ssize_t nr = leaf.nr, es = w.es, kc = depth_block(w.rows), g, k, depth
    cdef Py_ssize_t padded = round_up(count, leaf.mr)
    cdef char* dst = w.columns + (t * w.most + first) * w.ld * es
    cdef const char* panel
    for g in range(w.groups):
        panel = w.packed + (g * w.s.all_taps + t) * w.tap_ld * es
        k = 0
        while k < w.rows:
            depth = min(kc, w.rows - k)
            leaf.gemm(
                count, w.channels, depth, grad, 0, panel, nr, depth * nr,
                dst + g * w.channels * es, w.ld, NULL, k > 0, NULL)
            panel += w.panels * depth * es
            grad += padded * depth * es
            k += depth


cdef inline Py_ssize_t tile_pixels(const sweep* w) noexcept nogil:
    return round_up(w.tile, w.leaf.mr)


cdef size_t tile_scratch(const sweep* w) noexcept nogil:
    cdef Py_ssize_t pixels = tile_pixels(w)
    cdef size_t grad = aligned(w.groups * w.rows * pixels * w.es) if w.columns_wanted else 0
    return grad + aligned(4 * w.tile * sizeof(double)) + aligned(w.tile) + aligned(
        (w.s.corners + 1) * w.tile * w.es)


cdef void tile_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are tiles of pixels of the band."""
    cdef const sweep* w = <const sweep*>ctx
    cdef const sampler* s = &w.s
    cdef const leaf_table* leaf = w.leaf
    cdef Py_ssize_t es = w.es, task, p, count, og, t, i, step = s.all_taps * s.corners, from_
    cdef bint slopes = w.doffset.data != NULL or w.dmask.data != NULL
    cdef char* grad = scratch
    cdef notes own
    if w.columns_wanted:
        scratch += aligned(w.groups * w.rows * tile_pixels(w) * es)
    own.v = <double*>scratch
    own.m = own.v + 3 * w.tile
    own.found = scratch + aligned(4 * w.tile * sizeof(double))
    own.dots = own.found + aligned(w.tile)
    own.line = own.dots + s.corners * w.tile * es
    for task in range(first, last):
        p = task * w.tile
        count = min(w.tile, w.count - p)
        if w.columns_wanted:
            pack_tile(w, p, count, grad)
        if w.dw.data != NULL:
            load_grad(
                w, 0, w.groups * w.rows, w.p + p, count, w.grad_band + p * es, w.grad_ld)
        for t in range(s.all_taps):
            if w.columns_wanted:
                make_columns(w, grad, t, p, count)
            for og in range(w.offset_groups):
                find_spots(w, &own, og, t, p, count)
                i = ((og * w.most + p) * s.all_taps + t) * s.corners
                from_ = (t * w.most + p) * w.ld + og * s.shared
                if slopes:
                    leaf.deform_dots(
                        count, s.shared, s.corners, step, w.at + i,
                        w.image + og * s.shared * es, w.image_pitch, w.columns + from_ * es, w.ld,
                        own.dots)
                    coordinate_gradients(w, &own, og, t, p, count)
                drop_slopes(w, &own, og, t, p, count)
                if w.dw.data != NULL:
                    leaf.deform_samples(
                        count, s.shared, s.corners, step, w.at + i, w.coef + i * es,
                        w.image + og * s.shared * es, w.image_pitch, w.samples + from_ * es, w.ld)


cdef void scatter_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are lines of channels, which nobody else adds to."""
    cdef const sweep* w = <const sweep*>ctx
    cdef const sampler* s = &w.s
    cdef Py_ssize_t es = w.es, og, lo, hi, c, i
    lo, hi = first * LINE // es, min(w.all_channels, last * LINE // es)
    c = lo
    while c < hi:
        og = c // s.shared
        i = og * w.most * s.all_taps * s.corners
        w.leaf.deform_scatter(
            w.count, s.all_taps, min(hi, (og + 1) * s.shared) - c, s.corners, w.at + i,
            w.coef + i * es, w.columns + c * es, w.ld, w.most * w.ld, w.sums + c * es,
            w.sums_pitch)
        c = (og + 1) * s.shared


cdef inline Py_ssize_t row_blocks(const sweep* w) noexcept nogil:
    return ceil_div(w.rows, 8 * w.leaf.mr)


cdef void weight_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are blocks of rows of a tap of a group."""
    cdef const sweep* w = <const sweep*>ctx
    cdef const leaf_table* leaf = w.leaf
    cdef Py_ssize_t nr = leaf.nr, es = w.es, task, g, t, m, rows, k, depth
    cdef Py_ssize_t blocks = row_blocks(w), kc = depth_block(w.count)
    cdef const char* samples
    cdef char* dst
    for task in range(first, last):
        m = task % blocks * 8 * leaf.mr
        rows = min(8 * leaf.mr, w.rows - m)
        t = task // blocks % w.s.all_taps
        g = task // blocks // w.s.all_taps
        dst = w.dw_sums + ((g * w.s.all_taps + t) * w.tap_ld + m * w.panels) * es
        samples = w.samples + (t * w.most * w.ld + g * w.channels) * es
        k = 0
        while k < w.count:
            depth = min(kc, w.count - k)
            leaf.gemm(
                rows, w.channels, depth, w.grad_band + ((g * w.rows + m) * w.grad_ld + k) * es,
                w.grad_ld, samples + k * w.ld * es, w.ld, nr, dst, w.panels, NULL, 1, NULL)
            k += depth


# ---- weights and images in the order of the sweep ----------------------------------------------

cdef inline bint in_one_run(const tensor* t, Py_ssize_t* step) noexcept nogil:
    """Whether [channel][tap] of a row of weights are so many bytes apart, one after another."""
    cdef Py_ssize_t count = 1
    cdef int axis
    step[0] = t.stride[5]
    for axis in range(5, 1, -1):
        if t.shape[axis] == 1:
            continue
        if count == 1:
            step[0] = t.stride[axis]
        elif t.stride[axis] != count * step[0]:
            return False
        count *= t.shape[axis]
    return True


cdef size_t weight_scratch(const sweep* w) noexcept nogil:
    return aligned(w.channels * w.s.all_taps * w.es)


cdef void pack_weights_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are rows (group, m) of the weights."""
    cdef const sweep* w = <const sweep*>ctx
    cdef const leaf_table* leaf = w.leaf
    cdef const tensor* t = &w.weight
    cdef Py_ssize_t nr = leaf.nr, es = w.es, kc = depth_block(w.rows), taps = w.s.all_taps
    cdef Py_ssize_t task, g, m, k, depth, c, i, j, step, tap = w.tap_ld
    cdef bint together = in_one_run(t, &step)
    cdef const char* src
    cdef char* dst
    for task in range(first, last):
        g, m = task // w.rows, task % w.rows
        src = t.data + g * t.stride[0] + m * t.stride[1]
        if together:
            leaf.load[t.storage](scratch, 0, src, 0, step, 1, w.channels * taps)
        else:
            for i in range(t.shape[3]):
                for j in range(t.shape[4]):
                    leaf.load[t.storage](
                        scratch + (i * t.shape[4] + j) * t.shape[5] * es, taps,
                        src + i * t.stride[3] + j * t.stride[4], t.stride[2], t.stride[5],
                        w.channels, t.shape[5])
        k = m // kc * kc
        depth = min(kc, w.rows - k)
        dst = w.packed + (g * taps * tap + k * w.panels + (m - k) * nr) * es
        for i in range(w.panels // nr):
            c = i * nr
            if not w.flipped:
                leaf.transpose(
                    min(nr, w.channels - c), taps, scratch + c * taps * es, taps, dst, tap)
            else:
                leaf.transpose(
                    min(nr, w.channels - c), taps, scratch + c * taps * es, taps,
                    dst + (taps - 1) * tap * es, -tap)
            dst += depth * nr * es


cdef void store_weights_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are rows (group, m) of the weights' gradient."""
    cdef const sweep* w = <const sweep*>ctx
    cdef const leaf_table* leaf = w.leaf
    cdef const tensor* t = &w.dw
    cdef Py_ssize_t es = w.es, taps = w.s.all_taps, tap = w.tap_ld, task, g, m, i, j, step
    cdef bint together = in_one_run(t, &step)
    cdef const char* src
    cdef char* dst
    for task in range(first, last):
        g, m = task // w.rows, task % w.rows
        src = w.dw_sums + (g * taps * tap + m * w.panels) * es
        if not w.flipped:
            leaf.transpose(taps, w.channels, src, tap, scratch, taps)
        else:
            leaf.transpose(
                taps, w.channels, src + (taps - 1) * tap * es, -tap, scratch, taps)
        dst = t.data + g * t.stride[0] + m * t.stride[1]
        if together:
            leaf.store[t.storage](dst, 0, step, scratch, 0, 1, w.channels * taps)
        else:
            for i in range(t.shape[3]):
                for j in range(t.shape[4]):
                    leaf.store[t.storage](
                        dst + i * t.stride[3] + j * t.stride[4], t.stride[2], t.stride[5],
                        scratch + (i * t.shape[4] + j) * t.shape[5] * es, taps, w.channels,
                        t.shape[5])


cdef void turn_back_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are pieces of rows of the gradient of x; all channels of each."""
    cdef const sweep* w = <const sweep*>ctx
    cdef const leaf_table* leaf = w.leaf
    cdef const tensor* t = &w.dx
    cdef Py_ssize_t es = w.es, length = t.shape[4], pieces = ceil_div(length, TURN_PIXELS)
    cdef Py_ssize_t task, row, j, c, i, count, channels
    cdef const char* src
    cdef char* dst
    for task in range(first, last):
        row, j = task // pieces, task % pieces * TURN_PIXELS
        count = min(<Py_ssize_t>TURN_PIXELS, length - j)
        src = w.sums + (row * length + j) * w.sums_pitch * es
        dst = (t.data + w.n * t.stride[0] + row // t.shape[3] * t.stride[2]
               + row % t.shape[3] * t.stride[3] + j * t.stride[4])
        for i in range(ceil_div(w.all_channels, TURN_CHANNELS)):
            c = i * TURN_CHANNELS
            channels = min(<Py_ssize_t>TURN_CHANNELS, w.all_channels - c)
            if t.in_place and t.stride[4] == es:
                leaf.transpose(
                    count, channels, src + c * es, w.sums_pitch, dst + c * t.stride[1],
                    t.stride[1] // es)
            else:
                leaf.transpose(count, channels, src + c * es, w.sums_pitch, scratch, TURN_PIXELS)
                leaf.store[t.storage](
                    dst + c * t.stride[1], t.stride[1], t.stride[4], scratch, TURN_PIXELS,
                    channels, count)


# ---- the sweep ---------------------------------------------------------------------------------

cdef inline char* part(char* store, Py_ssize_t* taken, Py_ssize_t nbytes) noexcept nogil:
    """Take so many bytes of the workspace, which need not be there yet."""
    cdef Py_ssize_t at = taken[0]
    taken[0] += aligned(nbytes)
    return store + at if store != NULL else NULL


cdef Py_ssize_t lay_out(sweep* w, char* store, bint slopes) noexcept nogil:
    """Where things are from `store` on; returns how many bytes that takes.

    As if x and its gradient had to be copied: what fits does not depend on how they lie.
    """
    cdef const sampler* s = &w.s
    cdef bint samples = w.dw.data != NULL
    cdef Py_ssize_t es = w.es, taken = 0, band = (s.all_taps * w.most * w.ld + w.leaf.nr) * es
    cdef Py_ssize_t spots = w.offset_groups * w.most * s.all_taps * s.corners
    cdef Py_ssize_t weights = w.groups * s.all_taps * w.tap_ld * es
    cdef Py_ssize_t image = w.plane * w.all_channels * es
    cdef Py_ssize_t grad = w.groups * w.rows * w.grad_ld * es
    w.at = <Py_ssize_t*>part(store, &taken, spots * sizeof(Py_ssize_t))
    w.coef = part(store, &taken, spots * es)
    w.image = part(store, &taken, image if samples or slopes else 0)
    w.sums = part(store, &taken, image if w.dx.data != NULL else 0)
    w.packed = part(store, &taken, weights if w.columns_wanted else 0)
    w.columns = part(store, &taken, band if w.columns_wanted else 0)
    w.dw_sums = part(store, &taken, weights if samples else 0)
    w.samples = part(store, &taken, band if samples else 0)
    w.grad_band = part(store, &taken, grad if samples else 0)
    return taken


cdef size_t most_scratch(const sweep* w) noexcept nogil:
    return max(
        max(tile_scratch(w), weight_scratch(w)), <size_t>(TURN_PIXELS * TURN_CHANNELS * w.es))


cdef inline Py_ssize_t even_part(Py_ssize_t count, Py_ssize_t about) noexcept nogil:
    """Of equal parts of so many, none very small: half as large again, or two thirds, at most."""
    return ceil_div(count, max(<Py_ssize_t>1, (count + about // 2) // about))


cdef inline void set_band(sweep* w, Py_ssize_t most) noexcept nogil:
    w.most, w.tile = most, min(<Py_ssize_t>MOST_TILE, most)
    w.grad_ld = odd_lines(most, w.es)


def gradients(
    str operator, x, offset, mask, weight, grad, dx, doffset, dmask, dw, bint flipped, int rank,
    stride, dilation, origin, int compute, int threads, Py_ssize_t budget, bint measure=False
):
    """Gradients of x, offset, mask and weight into those of the last four that are not None.

    x, dx: (N, G*C, S0, S1, S2); offset: (N, OG*rank*T, O0, O1, O2); mask: (N, OG*T, O0, O1, O2)
    or None; grad: (N, G*M, O0, O1, O2); weight, dw: (G, M, C, T0, T1, T2), the taps in reverse
    order if `flipped`.  `origin` is minus the padding.  Returns the bytes of workspace; measured,
    those of one thread, which do not depend on how arrays lie in memory.
    """
    cdef sweep w
    cdef sampler* s = &w.s
    cdef Workspace store
    cdef Py_ssize_t need, n, p, tiles, pixel, blocks
    cdef size_t scratch
    cdef int nt
    cdef bint slopes = doffset is not None or dmask is not None, copied, turned
    cdef double work
    memset(&w, 0, sizeof(sweep))
    describe(weight, 6, compute, &w.weight)
    describe(grad, 5, compute, &w.grad)
    fill_sampler(
        x, offset, mask, w.weight.shape[0], rank, (<object>weight).shape[3:],
        (<object>grad).shape[2:], stride, dilation, origin, (False, False, False), compute, s)
    w.leaf, w.es, w.flipped = s.leaf, s.leaf.esize, flipped
    if dx is not None:
        describe(dx, 5, compute, &w.dx)
    if doffset is not None:
        describe(doffset, 5, compute, &w.doffset)
    if dmask is not None:
        describe(dmask, 5, compute, &w.dmask)
    if dw is not None:
        describe(dw, 6, compute, &w.dw)
    w.columns_wanted = slopes or dx is not None
    w.groups, w.rows, w.channels = w.weight.shape[0], w.weight.shape[1], w.weight.shape[2]
    w.all_channels = s.x.shape[1]
    w.offset_groups = w.all_channels // s.shared
    w.panels = round_up(w.channels, w.leaf.nr)
    w.tap_ld = odd_lines(w.rows * w.panels, w.es)
    w.ld = odd_lines(w.all_channels, w.es)
    w.pixels = w.grad.shape[2] * w.grad.shape[3] * w.grad.shape[4]
    w.plane = s.x.shape[2] * s.x.shape[3] * s.x.shape[4]
    w.flat = evenly_spaced(&w.grad, &w.grad_step)
    if w.pixels * w.grad.shape[0] * w.groups * w.rows * w.all_channels == 0:
        return 0
    # The band follows from the shape, whatever is asked for; less than that where it does not fit.
    pixel = s.all_taps * (2 * w.ld * w.es + w.offset_groups * s.corners * (8 + w.es))
    set_band(&w, even_part(w.pixels, max(<Py_ssize_t>TILE, min(
        <Py_ssize_t>BAND, BAND_BYTES // pixel))))
    while True:
        need = lay_out(&w, NULL, slopes) + 64
        scratch = most_scratch(&w)
        scratch = aligned(scratch) + 128
        if need + <Py_ssize_t>scratch <= budget or w.most <= w.leaf.mr:
            break
        set_band(&w, ceil_div(w.most, 2))
    if measure:
        return need + <Py_ssize_t>scratch
    if need + <Py_ssize_t>scratch > budget:
        raise checks.WorkspaceError(operator, need + <Py_ssize_t>scratch, budget)
    work = 4.0 * w.grad.shape[0] * w.pixels * w.groups * w.rows * w.channels * s.all_taps
    nt = useful_threads(threads, work)
    nt = <int>min(<Py_ssize_t>nt, (budget - need) // <Py_ssize_t>scratch)
    tiles = round_up(ceil_div(w.most, even_part(w.most, TILE)), nt)     # as many for each thread
    w.tile = min(<Py_ssize_t>MOST_TILE, round_up(ceil_div(w.most, tiles), w.leaf.mr))
    store = Workspace(need - 64)
    lay_out(&w, store.data, slopes)
    w.image_pitch = w.sums_pitch = w.all_channels
    copied = not lies_by_channels(&s.x, w.es, &pixel)
    if not copied:
        w.image_pitch = pixel
    turned = dx is not None and not lies_by_channels(&w.dx, w.es, &pixel)
    if dx is not None and not turned:
        w.sums_pitch = pixel
    if w.columns_wanted:
        if w.channels % w.leaf.nr:
            memset(w.packed, 0, w.groups * s.all_taps * w.tap_ld * w.es)
        run(pack_weights_task, &w, w.groups * w.rows, nt, weight_scratch(&w))
    if dw is not None:
        memset(w.dw_sums, 0, w.groups * s.all_taps * w.tap_ld * w.es)
    blocks = w.groups * s.all_taps * row_blocks(&w)
    for n in range(w.grad.shape[0]):
        w.n = n
        if slopes or dw is not None:
            if copied:
                turn_samples(s, w.image, n, 1, nt)
            else:
                w.image = s.x.data + n * s.x.stride[0]
        if dx is not None:
            if not turned:
                w.sums = w.dx.data + n * w.dx.stride[0]
            clear_sums(&w)
        p = 0
        while p < w.pixels:
            w.p, w.count = p, min(w.most, w.pixels - p)
            run(tile_task, &w, ceil_div(w.count, w.tile), nt, tile_scratch(&w))
            if dx is not None:
                run(scatter_task, &w, ceil_div(w.all_channels * w.es, LINE), nt, 0)
            if dw is not None:
                run(weight_task, &w, blocks, nt, 0)
            p += w.count
        if turned:
            run(turn_back_task, &w,
                w.dx.shape[2] * w.dx.shape[3] * ceil_div(w.dx.shape[4], TURN_PIXELS), nt,
                TURN_PIXELS * TURN_CHANNELS * w.es)
    if dw is not None:
        run(store_weights_task, &w, w.groups * w.rows, nt, weight_scratch(&w))
    return need + nt * <Py_ssize_t>scratch


cdef void clear_sums(const sweep* w) noexcept nogil:
    cdef Py_ssize_t i
    if w.sums_pitch == w.all_channels:
        memset(w.sums, 0, w.plane * w.all_channels * w.es)
        return
    for i in range(w.plane):
        memset(w.sums + i * w.sums_pitch * w.es, 0, w.all_channels * w.es)


cdef inline bint lies_by_channels(const tensor* t, Py_ssize_t es, Py_ssize_t* pitch) noexcept nogil:
    """Whether an image is [pixel][channel] in the compute type; elements from pixel to pixel."""
    cdef Py_ssize_t step = t.shape[1] * es
    if not (t.in_place and (t.stride[1] == es or t.shape[1] == 1) and evenly_spaced(t, &step)):
        return False
    pitch[0] = step // es
    return True
