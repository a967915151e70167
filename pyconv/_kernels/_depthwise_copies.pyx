"""Few channels per group, from copies of the lines: the way that takes every shape and layout.

A task copies what it needs of the input into workspace, with whatever stands outside the array
filled in, and split by the strides' residues (_depthwise_box.pyx has the layout).  The vectors run
along the pixels of a row; the leaf takes rows that share lines together, a column of taps at a
time.

Where so few rows of a box share lines that columns have hardly a row to serve, all rows are taken
together, tap by tap, in the same order (`better_singly`).  Where rows are so short that the
last vector of each is mostly wasted, they are summed tap by tap as if they were one, with what is
between them in the lines, which is then left out (`better_running`).
"""

from libc.string cimport memset

from pyconv._kernels._cpu cimport leaf_table
from pyconv._kernels._depthwise_box cimport (
    SHORT_ROW,
    box_scratch,
    carve,
    load_bias,
    load_weights,
    look_ahead,
    piece,
    place_of,
    plane_index,
    slots_of,
)
from pyconv._kernels._grid cimport PAD_ZEROS, grid, inside, load_run, source_index
from pyconv._kernels._integers cimport ceil_div, round_up

cdef enum:
    FETCH_STEP = 512            # of a plane that is far away, so much is copied at a time,
    FETCH_AHEAD = 2048          # ... and asked for so far ahead
    MOST_GROUPS = 32            # of a task
    MOST_TILE_ROWS = 9          # of `taps`, and instructions besides those of its vectors:
    COLUMN_COST = 4             # ... for a column of taps
    TILE_COST = 20              # ... for a tile
    MOST_RUN = 8                # vectors of a run, and instructions
    ROW_COST = 8                # ... for a row of it that is copied


cdef Py_ssize_t tile_cost(
    Py_ssize_t rows, Py_ssize_t vecs, Py_ssize_t columns, Py_ssize_t taps
) noexcept nogil:
    """Instructions for so many columns of taps: multiply-adds, lines and weights that are read."""
    return (columns * (rows * vecs * taps + (rows + taps - 1) * vecs + taps + COLUMN_COST)
            + TILE_COST)


cdef Py_ssize_t box_cost(
    const direct_job* job, Py_ssize_t rows, Py_ssize_t length, Py_ssize_t columns
) noexcept nogil:
    """Of rows that share lines, where the taps are in so many columns."""
    cdef Py_ssize_t taps = ceil_div(job.q.channels * job.taps, columns), vl = job.q.leaf.vl
    cdef Py_ssize_t pieces = ceil_div(rows, MOST_TILE_ROWS), vecs = 1, tiles
    if rows == 0:
        return 0
    rows = ceil_div(rows, pieces)
    if rows <= 4:
        vecs = 3 if rows == 3 else 8 // rows
    tiles = length // (vecs * vl)
    return pieces * (
        tiles * tile_cost(rows, vecs, columns, taps)
        + ceil_div(length - tiles * vecs * vl, vl) * tile_cost(rows, 1, columns, taps))


cdef bint better_singly(
    const direct_job* job, Py_ssize_t rows, Py_ssize_t length
) noexcept nogil:
    """Whether so few rows of a box share lines that all are better taken together, tap by tap."""
    cdef Py_ssize_t step = job.row_step, longer = rows % step, columns = job.tap_column_count
    if job.single_taps == NULL or step == 1:
        return False
    return box_cost(job, rows, length, job.q.channels * job.taps) < (
        longer * box_cost(job, rows // step + 1, length, columns)
        + (step - longer) * box_cost(job, rows // step, length, columns))


cdef Py_ssize_t run_cost(const direct_job* job, Py_ssize_t rows, Py_ssize_t length) noexcept nogil:
    """Of rows that are summed as if they were one, with what is between them."""
    cdef Py_ssize_t taps = job.q.channels * job.taps, vecs, pieces
    vecs = ceil_div((rows - 1) * job.pitch + length, job.q.leaf.vl)
    pieces = ceil_div(vecs, MOST_RUN)
    # all is read for each tap, and every second vector from two lines of the cache
    return taps * (5 * vecs // 2 + 2 * pieces) + pieces * TILE_COST + rows * ROW_COST


cdef bint better_running(const direct_job* job, const place* at) noexcept nogil:
    """Whether the rows are so short that what is between them costs less than what they waste."""
    cdef Py_ssize_t step = job.row_step, longer = at.rows % step
    cdef Py_ssize_t taps = job.q.channels * job.taps, columns = job.tap_column_count
    if job.single_taps == NULL or at.columns > SHORT_ROW:
        return False
    return run_cost(job, at.rows, at.columns) < min(
        box_cost(job, at.rows, at.columns, taps),
        longer * box_cost(job, at.rows // step + 1, at.columns, columns)
        + (step - longer) * box_cost(job, at.rows // step, at.columns, columns))


cdef void find_pieces(const direct_job* job, box* b, const place* at) noexcept nogil:
    """What of a channel is inside the array; zeros around it, for all channels of a group."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, slot, r1, r2, i0, i1, i2, lo1, hi1, lo2, hi2, dst = 0
    cdef piece* p = b.pieces
    memset(b.lines, 0, q.channels * job.slots * job.plane * es)
    for slot in range(slots_of(job, at.planes)):
        i0 = plane_index(job, at, slot, PAD_ZEROS)
        for r1 in range(job.s1.residues):
            i1 = at.row * q.stride[1] + job.s1.low + q.offset[1] + job.s1.residue[r1]
            inside(i1, q.stride[1], at.rows + job.s1.shift, q.x.shape[3], &lo1, &hi1)
            if job.halves:      # both residues are read at once
                i2 = at.column * 2 + job.s2.low + q.offset[2]
                inside(i2, 1, 2 * (at.columns + job.s2.shift), q.x.shape[4], &lo2, &hi2)
                if i0 >= 0 and hi1 > lo1 and hi2 > lo2:
                    r2 = lo2 % 2 != job.s2.residue[0]       # where its first element goes
                    p.dst = (dst + r2 * job.lines * job.pitch + lo1 * job.pitch + lo2 // 2) * es
                    p.second = (dst + (1 - r2) * job.lines * job.pitch + lo1 * job.pitch
                                + (lo2 + 1) // 2) * es
                    p.src = (i0 * q.x.stride[2] + (i1 + lo1 * q.stride[1]) * q.x.stride[3]
                             + (i2 + lo2) * es)
                    p.rows = hi1 - lo1
                    p.columns = hi2 - lo2
                    p += 1
                dst += 2 * job.lines * job.pitch
                continue
            for r2 in range(job.s2.residues):
                i2 = at.column * q.stride[2] + job.s2.low + q.offset[2] + job.s2.residue[r2]
                inside(i2, q.stride[2], at.columns + job.s2.shift, q.x.shape[4], &lo2, &hi2)
                if i0 >= 0 and hi1 > lo1 and hi2 > lo2:
                    p.dst = (dst + lo1 * job.pitch + lo2) * es
                    p.src = (i0 * q.x.stride[2] + (i1 + lo1 * q.stride[1]) * q.x.stride[3]
                             + (i2 + lo2 * q.stride[2]) * q.x.stride[4])
                    p.second = -1
                    p.rows = hi1 - lo1
                    p.columns = hi2 - lo2
                    p += 1
                dst += job.lines * job.pitch
    b.piece_count = p - b.pieces
    b.spot = at.spot


cdef void load_plane(
    const direct_job* job, const tensor* t, const char* src, Py_ssize_t src_rs, Py_ssize_t src_cs,
    char* dst, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    """Rows of a plane; of one that is far away, some at a time, those to come being asked for.

    All of a plane at once would be too much to ask for, and parts of lines mislead the hardware.
    """
    cdef const leaf_table* table = job.q.leaf
    cdef Py_ssize_t es = table.esize, some
    if not (job.far and t.in_place and src_cs == es and columns >= table.vl
            and pitch - columns <= table.vl and 0 < src_rs <= 2 * columns * es):
        table.load[t.storage](dst, pitch, src, src_rs, src_cs, rows, columns)
        return
    while rows > 0:
        some = min(rows, ceil_div(FETCH_STEP, src_rs))
        table.fetch(src + FETCH_AHEAD, some * src_rs, False)
        table.pad(1, some, columns, src, 0, src_rs // es, dst, 0, pitch, 0, 0)
        src += some * src_rs
        dst += some * pitch * es
        rows -= some


cdef void load_halves(
    const direct_job* job, const char* src, Py_ssize_t src_rs, char* dst, char* second,
    Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    """`load_plane` for every second element, and for those between them."""
    cdef const leaf_table* table = job.q.leaf
    cdef Py_ssize_t es = table.esize, some
    if not job.far or src_rs <= 0:
        table.halves(rows, columns, src, src_rs // es, dst, second, job.pitch)
        return
    while rows > 0:
        some = min(rows, ceil_div(FETCH_STEP, src_rs))
        table.fetch(src + FETCH_AHEAD, some * src_rs, False)
        table.halves(some, columns, src, src_rs // es, dst, second, job.pitch)
        src += some * src_rs
        dst += some * job.pitch * es
        second += some * job.pitch * es
        rows -= some


cdef void load_lines(
    const direct_job* job, box* b, Py_ssize_t n, Py_ssize_t g, Py_ssize_t count, const place* at
) noexcept nogil:
    """The input lines that a box reads, for `count` groups from g."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, channels = count * q.channels
    cdef Py_ssize_t channel_pitch = job.slots * job.plane
    cdef Py_ssize_t slot, r1, r2, line, i0, i1, first1, first2, c, i
    cdef const piece* p
    cdef char* dst
    cdef const char* src = q.x.data + n * q.x.stride[0] + g * q.channels * q.x.stride[1]
    if q.mode == PAD_ZEROS and job.together == 1:
        if b.spot != at.spot:
            find_pieces(job, b, at)
        for c in range(channels):
            for i in range(b.piece_count):
                p = b.pieces + i
                if p.second >= 0:
                    dst = b.lines + c * channel_pitch * es
                    load_halves(
                        job, src + c * q.x.stride[1] + p.src, q.x.stride[3] * q.stride[1],
                        dst + p.dst, dst + p.second, p.rows, p.columns)
                    continue
                load_plane(
                    job, &q.x, src + c * q.x.stride[1] + p.src, q.x.stride[3] * q.stride[1],
                    q.x.stride[4] * q.stride[2], b.lines + c * channel_pitch * es + p.dst,
                    job.pitch, p.rows, p.columns)
        return
    first1 = at.row * q.stride[1] + job.s1.low + q.offset[1]
    first2 = at.column * q.stride[2] + job.s2.low + q.offset[2]
    for slot in range(slots_of(job, at.planes)):
        i0 = plane_index(job, at, slot, q.mode)
        for r1 in range(job.s1.residues):
            for line in range(at.rows + job.s1.shift):
                i1 = source_index(
                    first1 + job.s1.residue[r1] + line * q.stride[1], q.x.shape[3], q.mode)
                for r2 in range(job.s2.residues):
                    dst = b.lines + (slot * job.plane + (
                        (r1 * job.s2.residues + r2) * job.lines + line) * job.pitch) * es
                    if i0 < 0 or i1 < 0:
                        q.leaf.clear(dst, channel_pitch, channels, job.pitch)
                    else:
                        load_run(
                            q, dst, channel_pitch,
                            src + i0 * q.x.stride[2] + i1 * q.x.stride[3], channels,
                            first2 + job.s2.residue[r2], q.stride[2], job.pitch)


cdef void sum_taps(
    const direct_job* job, const place* at, const char* lines, const char* weight,
    const char* bias, char* dst, Py_ssize_t dst_rs, leaf_ahead ahead
) noexcept nogil:
    """One channel of results, rows `dst_rs` elements apart."""
    cdef Py_ssize_t es = job.q.leaf.esize, step = job.row_step, r
    cdef Py_ssize_t calls = min(step, at.rows)
    if at.running:      # to the end of a vector, for which there is room
        job.q.leaf.taps(
            1, round_up((at.rows - 1) * job.pitch + at.columns, job.q.leaf.vl),
            job.q.channels * job.taps, job.single_taps, lines, 0, weight, 0, bias, dst, 0, NULL)
        return
    if at.singly:
        job.q.leaf.taps(
            at.rows, at.columns, job.q.channels * job.taps, job.single_taps, lines, job.pitch,
            weight, 0, bias, dst, dst_rs, &ahead)
        return
    ahead.read_bytes = ceil_div(ahead.read_bytes, calls)
    ahead.write_bytes = ceil_div(ahead.write_bytes, calls)
    for r in range(calls):
        job.q.leaf.taps(
            ceil_div(at.rows - r, step), at.columns, job.tap_column_count, job.tap_columns,
            lines + r * job.pitch * es, step * job.pitch, weight, job.weight_step, bias,
            dst + r * dst_rs * es, step * dst_rs, &ahead)
        ahead.read += ahead.read_bytes
        ahead.write += ahead.write_bytes


cdef void store_box(
    const direct_job* job, const place* at, const box* b, char* dst, Py_ssize_t channels
) noexcept nogil:
    """Put a plane of results of so many channels where they belong."""
    cdef const tensor* out = &job.out
    cdef Py_ssize_t es = job.q.leaf.esize, results = job.rows * job.pitch, o, row
    if job.together > 1:
        for row in range(at.rows):
            job.q.leaf.store[out.storage](
                dst + row * out.stride[3], out.stride[1], out.stride[4],
                b.result + row * job.pitch * es, results, channels, at.columns)
        return
    for o in range(channels):
        job.q.leaf.store[out.storage](
            dst + o * out.stride[1], out.stride[3], out.stride[4],
            b.result + o * results * es, job.pitch, at.rows, at.columns)


cdef void copies_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef const direct_job* job = <const direct_job*>ctx
    cdef const grid* q = &job.q
    cdef const leaf_table* table = q.leaf
    cdef const tensor* out = &job.out
    cdef Py_ssize_t es = table.esize, blocks = ceil_div(job.groups, job.block), block, held = -1
    cdef Py_ssize_t spots = job.plane_boxes * job.row_boxes * job.column_boxes
    cdef Py_ssize_t task, n, part, g, start, end, count, channel, o, m, row, plane
    cdef Py_ssize_t depth = q.channels * job.taps, results = job.rows * job.pitch
    cdef Py_ssize_t line_pitch = q.channels * job.slots * job.plane
    cdef bint in_place = out.in_place and (q.out[2] == 1 or out.stride[4] == es), direct
    cdef box b = carve(job, scratch)
    cdef place at
    cdef char* dst
    cdef leaf_ahead ahead, none
    memset(b.bias, 0, job.bias_bytes)
    memset(&none, 0, sizeof(none))
    for task in range(first, last):
        at = place_of(job, task % spots)
        at.running = better_running(job, &at)
        at.singly = not at.running and better_singly(job, at.rows, at.columns)
        ahead = look_ahead(job, &at)
        block = task // spots % blocks
        n = task // spots // blocks
        start = block * job.block
        end = min(start + job.block, job.groups)
        channel = start * job.multiplier
        direct = in_place and not at.running
        if block != held:
            count = (end - start) * job.multiplier
            load_weights(job, b.weight, channel, count)
            load_bias(job, b.bias, channel, count)
            held = block
        for part in range(ceil_div(end - start, job.together)):
            g = start + part * job.together
            count = min(job.together, end - g)
            load_lines(job, &b, n, g, count, &at)
            channel = g * job.multiplier
            dst = (out.data + n * out.stride[0] + channel * out.stride[1] + at.o0 * out.stride[2]
                   + at.row * out.stride[3] + at.column * out.stride[4])
            if job.fetch:       # the lines of the next group, and where its results go
                ahead.read = q.x.data + n * q.x.stride[0] + (g + 1) * q.x.stride[1] + (
                    max(<Py_ssize_t>0, at.row * q.stride[1] + job.s1.low + q.offset[1])
                    * q.x.stride[3])
                ahead.write = dst + job.multiplier * out.stride[1]
            for plane in range(at.planes):
                for o in range(count * job.multiplier):
                    g, m = o // job.multiplier, o % job.multiplier
                    row = channel + o - start * job.multiplier
                    sum_taps(
                        job, &at,
                        b.lines + (g * line_pitch + plane * job.slot_out * job.plane) * es,
                        b.weight + row * depth * es, b.bias + row * es,
                        dst + o * out.stride[1] if direct else b.result + o * results * es,
                        out.stride[3] // es if direct else job.pitch,
                        ahead if m == 0 else none)
                if not direct:
                    store_box(job, &at, &b, dst, count * job.multiplier)
                dst += out.stride[2]


cdef size_t choose_block(direct_job* job, int threads) noexcept nogil:
    """Groups that share a task, some tasks for each thread; returns the scratch of a task."""
    cdef Py_ssize_t spots = job.plane_boxes * job.row_boxes * job.column_boxes
    cdef Py_ssize_t most = job.out.shape[0] * job.groups * spots // (4 * threads)
    job.block = job.together
    if job.together == 1:
        job.block = max(<Py_ssize_t>1, min(most, <Py_ssize_t>MOST_GROUPS, job.groups))
    return box_scratch(job, job.together, False)
