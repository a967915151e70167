"""Few channels per group, channels of several groups as vectors.

Where channels lie next to each other, or a plane has few pixels, the vectors run along the channels
of `lanes` groups at a time, brought together as [line][pixel][lane] unless they lie so.  Nothing is
filled in around the array then: what a tap meets there is left out, which is the same where its
weight is finite, and a block of groups with other weights gets its padding.  The plane of a box is
cut into tiles, and of each is found what its taps meet (`point_tiles`), once for boxes that meet
the same.

The sums have the order of _depthwise_box.pyx, so the bits are those of vectors of pixels.
"""

from pyconv._kernels._cpu cimport LEAF_LANE_BYTES, LEAF_LANE_ROWS, leaf_column, leaf_table
from pyconv._kernels._depthwise_box cimport (
    BLOCK_BYTES,
    BOX_BYTES,
    MOST_COLUMNS,
    carve,
    deepest_box,
    depth_cost,
    finite,
    next_depth,
    place_of,
    plane_index,
    set_depth,
    slot_of,
    slots_of,
    tile,
)
from pyconv._kernels._grid cimport PAD_ZEROS, grid, inside, source_index
from pyconv._kernels._integers cimport ceil_div, magnitude, round_up
from pyconv._kernels._parallel cimport aligned
from pyconv._kernels._tensor cimport tensor

cdef enum:
    MOST_MET = 62               # taps of axis 0 that are bits of a word
    FEW_FIXED = 100             # rows that are too short to be vectors cost so much a channel,
    FEW_ROW = 7                 # ... row
    FEW_VECTOR = 8              # ... and vector


cdef window look(const direct_job* job, const place* at) noexcept nogil:
    cdef const grid* q = &job.q
    cdef window w
    w.data = NULL
    w.channel = w.plane = w.line = w.pixel = 0
    w.first1 = at.row * q.stride[1] + job.s1.low + q.offset[1]
    w.first2 = at.column * q.stride[2] + job.s2.low + q.offset[2]
    w.lines = (at.rows - 1) * q.stride[1] + (q.taps[1] - 1) * magnitude(q.dilation[1]) + 1
    w.pixels = (at.columns - 1) * q.stride[2] + (q.taps[2] - 1) * magnitude(q.dilation[2]) + 1
    inside(w.first1, 1, w.lines, q.x.shape[3], &w.lo1, &w.hi1)
    inside(w.first2, 1, w.pixels, q.x.shape[4], &w.lo2, &w.hi2)
    return w


cdef void look_in_place(const direct_job* job, const place* at, window* w) noexcept nogil:
    """The window is the array itself: sample 0, group 0."""
    cdef const tensor* x = &job.q.x
    cdef Py_ssize_t es = job.q.leaf.esize
    w.channel, w.plane = x.stride[1] // es, job.q.dilation[0] * x.stride[2] // es
    w.line, w.pixel = x.stride[3] // es, x.stride[4] // es
    w.data = (x.data + (at.o0 * job.q.stride[0] + job.q.offset[0]) * x.stride[2]
              + (w.first1 + w.lo1) * x.stride[3] + (w.first2 + w.lo2) * x.stride[4])


cdef Py_ssize_t planes_met(
    const direct_job* job, const place* at, Py_ssize_t o, bint padded
) noexcept nogil:
    """Which taps of axis 0 meet a plane, for plane o of the box, as bits; -1: any of many.

    Where the window is padded, all planes are there.
    """
    cdef Py_ssize_t taps = job.q.taps[0], t0, met = 0
    if taps >= MOST_MET:
        return -1
    for t0 in range(taps):
        if padded or plane_index(job, at, slot_of(job, t0, o), PAD_ZEROS) >= 0:
            met |= <Py_ssize_t>1 << t0
    return met


cdef Py_ssize_t most_tiles(const direct_job* job) noexcept nogil:
    return min(job.row_step, job.rows) + job.rows // LEAF_LANE_ROWS


cdef void point_tiles(
    const direct_job* job, box* b, const place* at, Py_ssize_t o, const window* w,
    Py_ssize_t lanes, bint padded
) noexcept nogil:
    """Cut plane o of the box into tiles, and find what of the window each of them meets."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t spot = at.spot % (job.row_boxes * job.column_boxes)
    cdef Py_ssize_t met = planes_met(job, at, o, padded), t0
    cdef Py_ssize_t r, k, i, line, lo, hi, count, each, step = job.row_step
    cdef Py_ssize_t line_step = q.stride[1] * step
    cdef leaf_column* column = <leaf_column*>(b.tiles + most_tiles(job))
    cdef const leaf_column* tap
    cdef tile* t = b.tiles
    if (b.tile_spot == spot and b.tile_met == met >= 0 and b.tile_lanes == lanes
            and b.tile_padded == padded):
        return
    for r in range(min(step, at.rows)):
        count = ceil_div(at.rows - r, step)
        each = ceil_div(count, ceil_div(count, LEAF_LANE_ROWS))
        for k in range(ceil_div(count, each)):
            t.row, t.rows = r + k * each * step, min(each, count - k * each)
            t.column = column
            for i in range(job.tap_column_count):
                tap = job.tap_columns + i
                t0 = tap.src % q.taps[0]
                if met >= 0 and not met >> t0 & 1:
                    continue
                if met < 0 and not padded and plane_index(
                        job, at, slot_of(job, t0, o), PAD_ZEROS) < 0:
                    continue
                line = t.row * q.stride[1] + tap.lines - w.lo1
                inside(line, line_step, t.rows + tap.taps - 1, w.hi1 - w.lo1, &lo, &hi)
                if hi <= lo:
                    continue
                column.lines = (1 << hi) - (1 << lo)
                column.pixel = tap.pixel - w.lo2
                column.src = (tap.src // q.taps[0] * w.channel + slot_of(job, t0, 0) * w.plane
                              + line * w.line + column.pixel * w.pixel)
                column.weight = tap.weight * lanes
                column.taps, column.chain = tap.taps, tap.chain
                column += 1
            t.columns = column - t.column
            t += 1
    b.tile_count = t - b.tiles
    b.tile_spot, b.tile_met, b.tile_lanes, b.tile_padded = spot, met, lanes, padded


cdef void load_inside(
    const direct_job* job, box* b, Py_ssize_t n, Py_ssize_t g, Py_ssize_t lanes,
    const place* at, window* w
) noexcept nogil:
    """Copy what is inside the array, channels of `lanes` groups from g next to each other."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, c, slot, i0, line, length, pieces
    cdef const char* src
    cdef char* dst
    length, pieces = w.hi2 - w.lo2, w.hi1 - w.lo1
    w.data, w.pixel = b.lines, lanes
    w.line = length * lanes
    if q.x.stride[3] == length * q.x.stride[4] and w.line * es % 1024 != 0:
        length, pieces = length * pieces, 1     # lines follow each other
    else:
        w.line += lanes         # lines a power of two apart would meet in the cache
    w.plane = (w.hi1 - w.lo1) * w.line
    w.channel = job.slots * w.plane
    for c in range(q.channels):
        for slot in range(slots_of(job, at.planes)):
            i0 = plane_index(job, at, slot, PAD_ZEROS)
            if i0 < 0 or length <= 0:
                continue
            src = (q.x.data + n * q.x.stride[0] + (g * q.channels + c) * q.x.stride[1]
                   + i0 * q.x.stride[2] + (w.first1 + w.lo1) * q.x.stride[3]
                   + (w.first2 + w.lo2) * q.x.stride[4])
            dst = b.lines + (c * job.slots + slot) * w.plane * es
            for line in range(pieces):
                q.leaf.load[q.x.storage](
                    dst + line * w.line * es, lanes, src + line * q.x.stride[3], q.x.stride[4],
                    q.channels * q.x.stride[1], length, lanes)


cdef void load_padded(
    const direct_job* job, box* b, Py_ssize_t n, Py_ssize_t g, Py_ssize_t lanes,
    const place* at, window* w
) noexcept nogil:
    """Copy all that the box reads, with what stands around the array."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, c, slot, i0, i1, i2, line, pixel
    cdef const char* src
    cdef char* dst = b.lines
    w.data, w.pixel, w.line = b.lines, lanes, w.pixels * lanes
    w.plane = w.lines * w.line
    w.channel = job.slots * w.plane
    for c in range(q.channels):
        for slot in range(job.slots):
            i0 = -1
            if slot < slots_of(job, at.planes):
                i0 = plane_index(job, at, slot, q.mode)
            for line in range(w.lines):
                i1 = source_index(w.first1 + line, q.x.shape[3], q.mode)
                if i0 < 0 or i1 < 0:
                    q.leaf.clear(dst, 0, 1, w.line)
                    dst += w.line * es
                    continue
                src = (q.x.data + n * q.x.stride[0] + (g * q.channels + c) * q.x.stride[1]
                       + i0 * q.x.stride[2] + i1 * q.x.stride[3])
                if w.hi2 > w.lo2:
                    q.leaf.load[q.x.storage](
                        dst + w.lo2 * lanes * es, lanes,
                        src + (w.first2 + w.lo2) * q.x.stride[4], q.x.stride[4],
                        q.channels * q.x.stride[1], w.hi2 - w.lo2, lanes)
                for pixel in range(w.pixels):
                    if w.lo2 <= pixel < w.hi2:
                        continue
                    i2 = source_index(w.first2 + pixel, q.x.shape[4], q.mode)
                    if i2 < 0:
                        q.leaf.clear(dst + pixel * lanes * es, 0, 1, lanes)
                    else:
                        q.leaf.load[q.x.storage](
                            dst + pixel * lanes * es, lanes, src + i2 * q.x.stride[4],
                            q.x.stride[4], q.channels * q.x.stride[1], 1, lanes)
                dst += w.line * es
    w.lo1, w.hi1, w.lo2, w.hi2 = 0, w.lines, 0, w.pixels


cdef bint load_lane_weights(
    const direct_job* job, box* b, Py_ssize_t g, Py_ssize_t lanes
) noexcept nogil:
    """Weights of `lanes` groups from g as [M][C][taps][lane], biases as [M][lane].

    Returns whether they are finite: then taps that meet zeros may as well be left out.
    """
    cdef const tensor* w = &job.weight
    cdef const leaf_table* table = job.q.leaf
    cdef Py_ssize_t es = table.esize, m, c, t0, t1
    cdef const char* src
    cdef char* dst = b.weight
    for m in range(job.multiplier):
        for c in range(w.shape[2]):
            src = w.data + g * w.stride[0] + m * w.stride[1] + c * w.stride[2]
            if job.weights_in_order:
                table.load[w.storage](dst, lanes, src, es, w.stride[0], job.taps, lanes)
                dst += job.taps * lanes * es
                continue
            for t0 in range(w.shape[3]):
                for t1 in range(w.shape[4]):
                    table.load[w.storage](
                        dst, lanes, src + t0 * w.stride[3] + t1 * w.stride[4], w.stride[5],
                        w.stride[0], w.shape[5], lanes)
                    dst += w.shape[5] * lanes * es
        if job.has_bias:
            table.load[job.bias.storage](
                b.bias + m * lanes * es, 0,
                job.bias.data + (g * job.multiplier + m) * job.bias.stride[0], 0,
                job.multiplier * job.bias.stride[0], 1, lanes)
        else:
            table.clear(b.bias + m * lanes * es, 0, 1, lanes)
    return finite(table, (dst - b.weight) // es, b.weight)


cdef void lane_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef const direct_job* job = <const direct_job*>ctx
    cdef const grid* q = &job.q
    cdef const leaf_table* table = q.leaf
    cdef const tensor* out = &job.out
    cdef Py_ssize_t es = table.esize, held = -1, blocks = job.groups // job.lanes
    cdef Py_ssize_t spots = job.plane_boxes * job.row_boxes * job.column_boxes
    cdef Py_ssize_t task, n, block, g, lanes = 0, m, k, o, row, rows, count
    cdef Py_ssize_t depth = q.channels * job.taps, dst_ms, dst_rs, dst_cs
    cdef bint is_finite = False, padded
    cdef bint read_in_place = q.x.in_place and q.channels == 1 and q.x.stride[1] == es
    cdef bint in_place = out.in_place and job.multiplier == 1 and out.stride[1] == es
    # Weights are brought together once for all samples, unless groups share cache lines of them.
    cdef bint by_groups = magnitude(q.x.stride[1]) > magnitude(q.x.stride[4])
    cdef box b = carve(job, scratch)
    cdef place at
    cdef window w
    cdef tile t
    cdef char* dst
    cdef char* to
    for task in range(first, last):
        at = place_of(job, task % spots)
        block = task // spots % blocks
        n = task // spots // blocks
        if by_groups:
            n = task // spots % out.shape[0]
            block = task // spots // out.shape[0]
        g = block * job.lanes
        if block != held:
            lanes = job.groups - g if block == blocks - 1 else job.lanes
            is_finite = load_lane_weights(job, &b, g, lanes)
            held = block
        padded = q.mode != PAD_ZEROS or not is_finite
        w = look(job, &at)
        if padded:
            load_padded(job, &b, n, g, lanes, &at, &w)
        elif read_in_place:
            look_in_place(job, &at, &w)
            w.data += n * q.x.stride[0] + g * es
        else:
            load_inside(job, &b, n, g, lanes, &at, &w)
        dst = (out.data + n * out.stride[0] + g * job.multiplier * out.stride[1]
               + at.o0 * out.stride[2] + at.row * out.stride[3] + at.column * out.stride[4])
        if in_place:
            to, dst_ms, dst_rs, dst_cs = dst, 0, out.stride[3] // es, out.stride[4] // es
        else:
            to, dst_cs, dst_rs = b.result, lanes, lanes * at.columns
            dst_ms = at.rows * dst_rs
        rows, count = at.rows, at.columns
        if out.stride[3] == count * out.stride[4]:
            rows, count = 1, rows * count       # rows follow each other
        for o in range(at.planes):
            point_tiles(job, &b, &at, o, &w, lanes, padded)
            for k in range(b.tile_count):
                t = b.tiles[k]
                for m in range(job.multiplier):
                    table.taps_lanes(
                        t.rows, at.columns, lanes, t.columns, t.column, q.stride[2],
                        w.hi2 - w.lo2, w.data, job.row_step * q.stride[1] * w.line,
                        q.stride[2] * w.pixel, b.weight + m * depth * lanes * es,
                        job.weight_step * lanes, b.bias + m * lanes * es,
                        to + (m * dst_ms + t.row * dst_rs) * es, job.row_step * dst_rs, dst_cs)
            w.data += job.slot_out * w.plane * es
            if in_place:
                to += out.stride[2]
                continue
            for m in range(job.multiplier):
                for row in range(rows):
                    table.store[out.storage](
                        dst + m * out.stride[1] + row * out.stride[3], out.stride[4],
                        job.multiplier * out.stride[1],
                        to + (m * dst_ms + row * dst_rs) * es, lanes, count, lanes)
            dst += out.stride[2]


cdef size_t tile_bytes(const direct_job* job) noexcept nogil:
    return most_tiles(job) * (sizeof(tile) + job.tap_column_count * sizeof(leaf_column))


cdef size_t lane_scratch(direct_job* job, Py_ssize_t lanes) noexcept nogil:
    """Bytes of scratch for boxes of the present rows and columns, channels as vectors."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, depth = q.channels * job.taps
    job.lines = (job.rows - 1) * q.stride[1] + (q.taps[1] - 1) * magnitude(q.dilation[1]) + 1
    job.pitch = (job.columns - 1) * q.stride[2] + (q.taps[2] - 1) * magnitude(q.dilation[2]) + 1
    job.plane = job.lines * (job.pitch + 1)
    job.line_bytes = aligned(q.channels * job.slots * job.plane * lanes * es)
    job.total_bytes = 0
    job.weight_bytes = aligned(job.multiplier * depth * lanes * es)
    job.bias_bytes = aligned(job.multiplier * lanes * es)
    job.result_bytes = aligned(job.multiplier * job.rows * job.columns * lanes * es)
    job.piece_bytes = 0
    job.tile_bytes = tile_bytes(job)
    return (job.line_bytes + job.weight_bytes + job.bias_bytes + job.result_bytes
            + job.tile_bytes)


cdef size_t choose_lanes(direct_job* job, int threads) noexcept nogil:
    """Box and lanes where channels are vectors; returns the scratch of a task."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t block = LEAF_LANE_BYTES // q.leaf.esize, each, limit, rows, columns, depth
    cdef Py_ssize_t best_rows = 1, best_columns = 1, best_depth = 1, deepest
    cdef double cost, best = -1
    job.lanes = min(block, job.groups)
    deepest = deepest_box(job, job.groups // job.lanes, threads)
    if q.x.in_place and q.x.stride[1] == q.leaf.esize:
        deepest = 1         # they are read where they are
    for limit in range(2):
        columns = min(q.out[2], <Py_ssize_t>MOST_COLUMNS)
        while True:
            depth = 1
            while depth > 0:
                if job.depth != depth:
                    set_depth(job, depth)
                job.rows, job.columns = 1, columns
                lane_scratch(job, block)
                each = q.channels * job.slots * (job.pitch + 1) * LEAF_LANE_BYTES
                rows = (BOX_BYTES if limit == 0 else BLOCK_BYTES) // each - job.lines
                if rows < 0 and depth > 1:
                    break
                rows = max(<Py_ssize_t>1, min(rows // q.stride[1] + 1, q.out[1]))
                rows = ceil_div(q.out[1], ceil_div(q.out[1], rows))
                job.rows = rows
                lane_scratch(job, block)
                cost = job.lines / <double>(rows * q.stride[1])
                cost *= job.pitch / <double>(columns * q.stride[2])
                if job.q.taps[0] > 1:
                    cost *= depth_cost(job)
                cost += 0.25 * limit
                if best < 0 or cost < best:
                    best, best_rows, best_columns, best_depth = cost, rows, columns, depth
                depth = next_depth(job, depth, deepest)
            if columns <= 16:
                break
            columns = (columns + 1) // 2
    set_depth(job, best_depth)
    job.rows, job.columns = best_rows, best_columns
    job.row_boxes = ceil_div(q.out[1], job.rows)
    job.column_boxes = ceil_div(q.out[2], job.columns)
    # the last block takes the groups that are left
    return lane_scratch(job, job.lanes + job.groups % job.lanes)


cdef bint prefers_lanes(const direct_job* job) noexcept nogil:
    """Whether channels are to be the vectors.

    They lie so, or a plane has few pixels, or neighbours in a row are too far from each other.
    What few pixels are was measured, in units of half a pixel of eight channels.
    """
    cdef const grid* q = &job.q
    cdef Py_ssize_t vl = q.leaf.vl, pixels = q.out[1] * q.out[2], vecs, taps, lanes
    if job.groups < q.leaf.vl:
        return False
    if q.x.shape[4] > 1 and magnitude(q.x.stride[1]) < magnitude(q.x.stride[4]):
        return True
    if q.stride[2] > 2:
        return True
    if pixels > FEW_PIXELS and q.out[2] >= vl:
        return False
    lanes = job.groups          # those of one block alone may be whole vectors and a part
    if lanes < LEAF_LANE_BYTES // q.leaf.esize:
        lanes = round_up(lanes, vl)
    vecs = min(q.out[1] * ceil_div(q.out[2], vl),
               ceil_div(q.out[1] * (q.out[2] + job.s2.shift), vl))
    taps = q.taps[1] * q.taps[2]
    return (pixels * 16 * lanes // (vl * job.groups)
            <= FEW_FIXED + FEW_ROW * q.out[1] + (FEW_VECTOR + taps // 8) * vecs)
