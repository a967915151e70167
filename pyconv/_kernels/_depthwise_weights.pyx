"""Few channels per group: the gradient of the weights.

A sum over the pixels for each tap, ::

    dw[g, m, c, t] = sum over n, o of grad[n, g, m, o] * x[n, g, c, o*stride + t*dilation + offset]

along lines that are `row_step` apart, as far down as the box goes: taps below each other share what
is loaded of a line.  LEAF_LANE_BYTES of neighbours have a sum each, and these are added at the end;
or, for planes of few pixels, all pixels have one.  In both cases the vectors may run along the
channels of several groups as well, with the same bits: of few pixels they always do.  Lines are
copied as in _depthwise_copies.pyx, or brought together as in _depthwise_lanes.pyx.

The units, boxes of a sample, are added in order within a chunk, and the chunks in order.  Boxes,
chunks and chains follow from the shapes alone, for they order the sums.
"""

from libc.string cimport memcpy, memset

from pyconv._kernels._cpu cimport (
    LEAF_CHAIN,
    LEAF_DOTS_TAPS,
    LEAF_LANE_BYTES,
    leaf_column,
    leaf_dots,
    leaf_table,
    narrower_leaf,
)
from pyconv._kernels._depthwise_box cimport (
    BLOCK_BYTES,
    box,
    box_scratch,
    carve,
    direct_job,
    finite,
    fit_threads,
    place,
    place_of,
    plane_index,
    set_up,
    small_box,
    work_of,
    worth_fetching,
)
from pyconv._kernels._depthwise_copies cimport load_lines, load_plane
from pyconv._kernels._depthwise_lanes cimport FEW_PIXELS, load_padded, look, window
from pyconv._kernels._grid cimport PAD_ZEROS, grid
from pyconv._kernels._integers cimport ceil_div, round_up
from pyconv._kernels._parallel cimport Workspace, run, useful_threads
from pyconv._kernels._tensor cimport tensor

from pyconv._kernels._depthwise import suits

cdef enum:
    FAR_BYTES = 10 * 1024 * 1024    # more of both images is far away, and not in L3
    MOST_CHUNKS = 8
    SUM_BYTES = 192 * 1024      # channels as vectors: of a window, and of its sums
    MOST_PAIRS = 16             # of rows and channels of a group; the product is faster with more,
    #                             and with one group;
    FEW_ROWS = 6                # ... later with so few rows, at stride 1: its lanes are empty
    FEW_ROWS_PAIRS = 36
    FEWEST_ROWS = 2
    FEWEST_ROWS_PAIRS = 64


cdef bint vector_of_channels(const direct_job* job) noexcept nogil:
    """Whether the planes are so small that no sum is split among neighbours: of shapes alone."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t lines, pixels
    if job.groups < LEAF_LANE_BYTES // q.leaf.esize or q.out[1] * q.out[2] > FEW_PIXELS:
        return False
    lines = (job.rows - 1) * q.stride[1] + (q.taps[1] - 1) * q.dilation[1] + 1
    pixels = (job.columns - 1) * q.stride[2] + (q.taps[2] - 1) * q.dilation[2] + 1
    return (q.channels * q.taps[0] * (<double>lines) * pixels * LEAF_LANE_BYTES <= SUM_BYTES
            and job.multiplier * q.channels * job.taps * LEAF_LANE_BYTES <= SUM_BYTES)


cdef void choose_walk(direct_job* job) noexcept nogil:
    """Which taps share lines, of the shapes alone: `tap_step` apart, on the axis of the walk."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t step
    job.along = q.out[1] == 1
    if job.along:       # a single line: down its strips, which are `neighbours` wide
        job.row_step = 1
        step = job.neighbours * q.stride[2]
        job.tap_step = step // q.dilation[2] if step % q.dilation[2] == 0 else q.taps[2]
        job.weight_step = job.tap_step
        return
    if job.row_step > 1 and job.rows < 4 * job.row_step:
        job.row_step, job.tap_step = 1, q.taps[1]       # too few lines to share
    job.weight_step = job.tap_step * q.taps[2]


cdef void point_dots(direct_job* job) noexcept nogil:
    """Gather the taps into columns, those with more taps first.

    Where channels are the vectors, `src` counts lines and pixels of the window.
    """
    cdef const grid* q = &job.q
    cdef Py_ssize_t taps1 = q.taps[1], taps2 = q.taps[2], step = job.tap_step
    cdef Py_ssize_t taps = taps2 if job.along else taps1, others = taps1 if job.along else taps2
    cdef Py_ssize_t size, plane, first, other, count, pieces, k, done, some, t1, t2, line
    cdef leaf_column* column = job.tap_columns
    for size in range(LEAF_DOTS_TAPS, 0, -1):
        for plane in range(q.channels * q.taps[0]):
            for first in range(min(step, taps)):
                count = ceil_div(taps - first, step)
                pieces = ceil_div(count, LEAF_DOTS_TAPS)
                done = 0
                for k in range(pieces):
                    some = ceil_div(count - done, pieces - k)
                    if some == size:
                        for other in range(others):
                            t1 = first + done * step
                            t2 = other
                            if job.along:
                                t1, t2 = t2, t1
                            line = job.s1.of_tap[t1] * job.s2.residues + job.s2.of_tap[t2]
                            line = line * job.lines + job.s1.start[t1]
                            column.src = plane * job.plane + line * job.pitch + job.s2.start[t2]
                            column.weight = (plane * taps1 + t1) * taps2 + t2
                            column.taps = size
                            column.chain, column.lines, column.pixel = plane, t1, t2
                            column += 1
                    done += some
    job.tap_column_count = column - job.tap_columns


cdef void point_lane_dots(
    const direct_job* job, leaf_column* column, const window* w
) noexcept nogil:
    """The columns where channels are the vectors: sources in the window."""
    cdef Py_ssize_t i
    for i in range(job.tap_column_count):
        column[i] = job.tap_columns[i]
        column[i].src = (column[i].chain * w.plane + column[i].lines * job.q.dilation[1] * w.line
                         + column[i].pixel * job.q.dilation[2] * w.pixel)


cdef void load_grad(
    const direct_job* job, box* b, const char* src, const place* at, Py_ssize_t channels,
    Py_ssize_t pitch
) noexcept nogil:
    """Copy a box of the result's gradient; zeros after each line are there already."""
    cdef const tensor* dy = &job.out
    cdef Py_ssize_t r, es = job.q.leaf.esize
    if channels == 1:
        load_plane(
            job, dy, src, dy.stride[3], dy.stride[4], b.result, pitch, at.rows, at.columns)
        return
    for r in range(at.rows):
        job.q.leaf.load[dy.storage](
            b.result + r * pitch * es, job.rows * pitch, src + r * dy.stride[3], dy.stride[1],
            dy.stride[4], channels, at.columns)


cdef void sum_box(
    const direct_job* job, const place* at, const char* lines, const char* grad,
    Py_ssize_t pitch, char* sums, leaf_dots dots
) noexcept nogil:
    """Add a box of one pair of channels to its sums: [tap][neighbour]."""
    cdef Py_ssize_t es = job.q.leaf.esize, lanes = LEAF_LANE_BYTES // es, step = job.row_step
    cdef Py_ssize_t strips = ceil_div(at.columns, lanes), last = at.columns - (strips - 1) * lanes
    cdef Py_ssize_t r, some, done = 0
    if job.along:
        strips = at.columns // lanes
        while done < at.columns:        # whole strips, then what is left
            some = min(strips, <Py_ssize_t>LEAF_CHAIN) if strips > 0 else 1
            dots(
                some, 1, lanes, lanes if strips > 0 else last, job.tap_column_count,
                job.tap_columns, lines + done * es, lanes, 0, grad + done * es, lanes, 0, sums,
                lanes, job.weight_step)
            done += some * lanes
            strips -= some
        return
    for r in range(min(step, at.rows)):
        dots(
            ceil_div(at.rows - r, step), strips, lanes, last, job.tap_column_count,
            job.tap_columns, lines + r * job.pitch * es, step * job.pitch, lanes,
            grad + r * pitch * es, step * pitch, lanes, sums, lanes, job.weight_step)


cdef void sum_units(
    const direct_job* job, box* b, Py_ssize_t block, Py_ssize_t first, Py_ssize_t last,
    leaf_dots dots
) noexcept nogil:
    """Sums of a block of groups over units first .. last-1, in `b.weight`."""
    cdef const grid* q = &job.q
    cdef const leaf_table* table = q.leaf
    cdef const tensor* dy = &job.out
    cdef Py_ssize_t es = table.esize, depth = q.channels * job.taps
    cdef Py_ssize_t spots = q.out[0] * job.row_boxes * job.column_boxes
    cdef Py_ssize_t g0 = block * job.together, count = min(job.together, job.groups - g0)
    cdef Py_ssize_t size = count * job.multiplier * depth * (LEAF_LANE_BYTES // es)
    cdef Py_ssize_t unit, n, g, m, o, pitch, grad_pitch, grad_plane
    cdef Py_ssize_t line_pitch = q.channels * q.taps[0] * job.plane
    # What is far away is copied in order: a walk down the lines of a box would wait for each.
    cdef bint in_place = (dy.in_place and (q.out[2] == 1 or dy.stride[4] == es)
                          and not job.far)
    cdef place at
    cdef const char* src
    cdef const char* grad
    pitch = round_up(job.columns, LEAF_LANE_BYTES // es)
    start_sums(job, b, size)
    for unit in range(first, last):
        at = place_of(job, unit % spots)
        n = unit // spots
        load_lines(job, b, n, g0, count, &at)
        src = (dy.data + n * dy.stride[0] + g0 * job.multiplier * dy.stride[1]
               + at.o0 * dy.stride[2] + at.row * dy.stride[3] + at.column * dy.stride[4])
        grad, grad_pitch, grad_plane = src, dy.stride[3] // es, dy.stride[1]
        if not (in_place and at.columns % table.vl == 0):
            if at.columns != b.held:    # zeros up to the next whole vector
                memset(b.result, 0, job.result_bytes)
                b.held = at.columns
            grad, grad_pitch, grad_plane = b.result, pitch, job.rows * pitch * es
            if job.together > 1:
                load_grad(job, b, src, &at, count * job.multiplier, pitch)
        for g in range(count):
            for m in range(job.multiplier):
                o = g * job.multiplier + m
                if grad == b.result and job.together == 1:
                    load_grad(job, b, src + o * dy.stride[1], &at, 1, pitch)
                sum_box(
                    job, &at, b.lines + g * line_pitch * es,
                    grad if grad == b.result and job.together == 1 else grad + o * grad_plane,
                    grad_pitch, b.weight + o * depth * LEAF_LANE_BYTES, dots)
        next_sums(job, b, size, unit + 1 - first)
    end_sums(job, b, size)


# Chains of about LEAF_CHAIN sums: of those of some units first.

cdef void start_sums(const direct_job* job, box* b, Py_ssize_t size) noexcept nogil:
    memset(b.weight, 0, size * job.q.leaf.esize)
    if job.total_bytes > 0:
        memset(b.totals, 0, size * job.q.leaf.esize)


cdef void next_sums(
    const direct_job* job, box* b, Py_ssize_t size, Py_ssize_t done
) noexcept nogil:
    if job.total_bytes > 0 and done % job.units_together == 0:
        job.q.leaf.add_strided(size, b.weight, b.totals, 1)
        memset(b.weight, 0, size * job.q.leaf.esize)


cdef void end_sums(const direct_job* job, box* b, Py_ssize_t size) noexcept nogil:
    if job.total_bytes > 0:
        job.q.leaf.add_strided(size, b.totals, b.weight, 1)


cdef void gradient_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Sums of one chunk of the units, for one block of groups; pixels are the vectors.

    Units are (sample, plane, row box, column box), in order.
    """
    cdef const direct_job* job = <const direct_job*>ctx
    cdef const leaf_table* table = job.q.leaf
    cdef Py_ssize_t es = table.esize, blocks = ceil_div(job.groups, job.together)
    cdef Py_ssize_t units = job.out.shape[0] * job.q.out[0] * job.row_boxes * job.column_boxes
    cdef Py_ssize_t kernel = job.multiplier * job.q.channels * job.taps
    cdef Py_ssize_t task, chunk, block, size, start, end
    cdef box b = carve(job, scratch)
    memset(b.lines, 0, job.line_bytes)      # what is past the last line is read as well
    for task in range(first, last):
        block = task % blocks
        chunk = task // blocks
        start, end = units * chunk // job.chunks, units * (chunk + 1) // job.chunks
        size = min(job.together, job.groups - block * job.together) * kernel
        sum_units(job, &b, block, start, end, table.dots)
        table.fold(size, b.weight)
        if not finite(table, size, b.weight):
            # Zeros may have met what is not finite: nothing but pixels this time.
            sum_units(job, &b, block, start, end, table.dots_exact)
            table.fold(size, b.weight)
        memcpy(
            job.partial + (chunk * job.groups + block * job.together) * kernel * es, b.weight,
            size * es)


cdef void lane_sums(
    const direct_job* job, Py_ssize_t used, const place* at, const window* w,
    const leaf_column* column,
    const char* grad, Py_ssize_t grad_line, Py_ssize_t grad_pixel, char* sums
) noexcept nogil:
    """Add a part of a box, of one row of the groups' weights: [tap][neighbour][lane]."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, lanes = LEAF_LANE_BYTES // es, apart = job.neighbours
    cdef Py_ssize_t step = job.row_step, r, v, strips
    cdef Py_ssize_t line = q.stride[1] * w.line, pixel = q.stride[2] * w.pixel
    for v in range(min(apart, at.columns)):
        strips = ceil_div(at.columns - v, apart)
        if job.along:
            q.leaf.dots(
                strips, 1, used, used, job.tap_column_count, column, w.data + v * pixel * es,
                apart * pixel, 0, grad + v * grad_pixel * es, apart * grad_pixel, 0,
                sums + v * LEAF_LANE_BYTES, apart * lanes, job.weight_step)
            continue
        for r in range(min(step, at.rows)):
            q.leaf.dots(
                ceil_div(at.rows - r, step), strips, used, used, job.tap_column_count, column,
                w.data + (r * line + v * pixel) * es, step * line, apart * pixel,
                grad + (r * grad_line + v * grad_pixel) * es, step * grad_line,
                apart * grad_pixel, sums + v * LEAF_LANE_BYTES, apart * lanes, job.weight_step)


cdef void load_window(
    const direct_job* job, box* b, Py_ssize_t n, Py_ssize_t g, Py_ssize_t lanes,
    const place* at, window* w
) noexcept nogil:
    """`load_padded`; zeros around the array are there already if the last one was alike."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, c, t0, i0, line, spot = at.spot * q.out[2] + at.column
    cdef const char* src
    if q.mode != PAD_ZEROS:
        load_padded(job, b, n, g, lanes, at, w)
        return
    w.data, w.pixel, w.line = b.lines, lanes, w.pixels * lanes
    w.plane = w.lines * w.line
    w.channel = job.slots * w.plane
    if b.spot != spot or b.tile_lanes != lanes:
        memset(b.lines, 0, q.channels * w.channel * es)
        b.spot, b.tile_lanes = spot, lanes
    if w.hi2 <= w.lo2:
        return
    for c in range(q.channels):
        for t0 in range(q.taps[0]):
            i0 = plane_index(job, at, t0, PAD_ZEROS)
            if i0 < 0:
                continue
            src = (q.x.data + n * q.x.stride[0] + (g * q.channels + c) * q.x.stride[1]
                   + i0 * q.x.stride[2] + w.first1 * q.x.stride[3]
                   + (w.first2 + w.lo2) * q.x.stride[4])
            for line in range(w.lo1, w.hi1):
                q.leaf.load[q.x.storage](
                    b.lines + (c * w.channel + t0 * w.plane + line * w.line + w.lo2 * lanes) * es,
                    lanes, src + line * q.x.stride[3], q.x.stride[4],
                    q.channels * q.x.stride[1], w.hi2 - w.lo2, lanes)


cdef void lane_unit(
    const direct_job* job, box* b, Py_ssize_t n, Py_ssize_t g, Py_ssize_t lanes, const place* whole
) noexcept nogil:
    """Add a unit to the sums of `lanes` groups from g, some columns at a time."""
    cdef const grid* q = &job.q
    cdef const leaf_table* table = q.leaf
    cdef const tensor* dy = &job.out
    cdef Py_ssize_t es = table.esize, kernel = q.channels * job.taps, m, r, rows, columns
    cdef Py_ssize_t sums = kernel * job.neighbours * LEAF_LANE_BYTES, line, pixel, end
    cdef bint in_place = (dy.in_place and job.multiplier == 1 and dy.stride[1] == es
                          and lanes * es == LEAF_LANE_BYTES)
    cdef leaf_column* column = <leaf_column*>b.tiles
    cdef place at = whole[0]
    cdef window w
    cdef const char* src
    cdef const char* grad
    end = at.column + at.columns
    while at.column < end:
        at.columns = min(job.part_columns, end - at.column)
        w = look(job, &at)
        load_window(job, b, n, g, lanes, &at, &w)
        point_lane_dots(job, column, &w)
        for m in range(job.multiplier):
            src = (dy.data + n * dy.stride[0] + (g * job.multiplier + m) * dy.stride[1]
                   + at.o0 * dy.stride[2] + at.row * dy.stride[3] + at.column * dy.stride[4])
            grad, line, pixel = src, dy.stride[3] // es, dy.stride[4] // es
            if not in_place:
                grad, line, pixel = b.result, at.columns * lanes, lanes
                rows, columns = at.rows, at.columns
                if dy.stride[3] == columns * dy.stride[4]:
                    rows, columns = 1, rows * columns       # lines follow each other
                for r in range(rows):
                    table.load[dy.storage](
                        b.result + r * line * es, lanes, src + r * dy.stride[3], dy.stride[4],
                        job.multiplier * dy.stride[1], columns, lanes)
            lane_sums(
                job, round_up(lanes, table.vl), &at, &w, column, grad, line, pixel,
                b.weight + m * sums)
        at.column += at.columns


cdef void lane_gradient_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """The same where channels are the vectors."""
    cdef const direct_job* job = <const direct_job*>ctx
    cdef const leaf_table* table = job.q.leaf
    cdef Py_ssize_t es = table.esize, lanes = LEAF_LANE_BYTES // es, apart = job.neighbours
    cdef Py_ssize_t blocks = ceil_div(job.groups, lanes)
    cdef Py_ssize_t spots = job.q.out[0] * job.row_boxes * job.column_boxes
    cdef Py_ssize_t units = job.out.shape[0] * spots, size, start, end, t, step, v
    cdef Py_ssize_t kernel = job.multiplier * job.q.channels * job.taps
    cdef Py_ssize_t task, chunk, block, unit, count
    cdef box b = carve(job, scratch)
    cdef place at
    cdef char* row
    size = kernel * apart * lanes
    for task in range(first, last):
        block = task % blocks
        chunk = task // blocks
        count = min(lanes, job.groups - block * lanes)
        start, end = units * chunk // job.chunks, units * (chunk + 1) // job.chunks
        start_sums(job, &b, size)
        for unit in range(start, end):
            at = place_of(job, unit % spots)
            lane_unit(job, &b, unit // spots, block * lanes, count, &at)
            next_sums(job, &b, size, unit + 1 - start)
        end_sums(job, &b, size)
        for t in range(kernel):     # neighbours are added as `fold` adds them
            row = b.weight + t * apart * LEAF_LANE_BYTES
            step = 1
            while step < apart:
                for v in range(apart // (2 * step)):
                    table.add_strided(
                        lanes, row + (2 * v + 1) * step * LEAF_LANE_BYTES,
                        row + 2 * v * step * LEAF_LANE_BYTES, 1)
                step *= 2
        table.transpose(
            kernel, count, b.weight, apart * lanes,
            job.partial + (chunk * job.groups + block * lanes) * kernel * es, kernel)


cdef void store_gradient(const direct_job* job) noexcept nogil:
    """Add the chunks in order and put the sums where they belong."""
    cdef const leaf_table* table = job.q.leaf
    cdef const tensor* w = &job.weight
    cdef Py_ssize_t es = table.esize, chunk, row, c, t0, t1
    cdef Py_ssize_t size = job.groups * job.multiplier * job.q.channels * job.taps
    cdef char* src = job.partial
    cdef char* dst
    cdef bint in_order = w.in_place and w.stride[5] == es
    for chunk in range(1, job.chunks):
        table.add_strided(size, job.partial + chunk * size * es, job.partial, 1)
    in_order = in_order and w.stride[4] == w.shape[5] * w.stride[5]
    in_order = in_order and w.stride[3] == w.shape[4] * w.stride[4]
    in_order = in_order and w.stride[2] == w.shape[3] * w.stride[3]
    in_order = in_order and w.stride[1] == w.shape[2] * w.stride[2]
    if in_order and w.stride[0] == w.shape[1] * w.stride[1]:
        memcpy(w.data, src, size * es)
        return
    for row in range(job.groups * job.multiplier):
        for c in range(w.shape[2]):
            dst = (w.data + row // job.multiplier * w.stride[0]
                   + row % job.multiplier * w.stride[1] + c * w.stride[2])
            for t0 in range(w.shape[3]):
                for t1 in range(w.shape[4]):
                    table.store[w.storage](
                        dst + t0 * w.stride[3] + t1 * w.stride[4], 0, w.stride[5], src, 0, 1,
                        w.shape[5])
                    src += w.shape[5] * es


cdef void choose_sums(direct_job* job, Py_ssize_t units) noexcept nogil:
    """How the sums are split, of the shapes alone."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t lanes = LEAF_LANE_BYTES // q.leaf.esize, rows, chains
    job.neighbours = 1 if vector_of_channels(job) else lanes
    choose_walk(job)
    job.chunks = 1
    if job.groups < MOST_CHUNKS * lanes:
        job.chunks = max(<Py_ssize_t>1, min(<Py_ssize_t>MOST_CHUNKS, units))
    rows = ceil_div(job.rows, job.row_step)
    chains = ceil_div(ceil_div(job.columns, job.neighbours), max(1, LEAF_CHAIN // rows))
    if job.along:
        chains = 2
    chains = max(<Py_ssize_t>1, LEAF_CHAIN // (chains * job.row_step))
    job.units_together = chains if ceil_div(units, job.chunks) > chains else 0
    # what channels as vectors take at a time is whole chains
    job.part_columns = job.columns
    if job.neighbours > 1:
        job.part_columns = min(job.columns, max(1, LEAF_CHAIN // rows) * job.neighbours)


cdef size_t lane_gradient_scratch(direct_job* job) noexcept nogil:
    """Bytes of scratch where channels are the vectors; lines are laid out by `load_padded`."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t lines, pixels, columns = job.part_columns
    lines = (job.rows - 1) * q.stride[1] + (q.taps[1] - 1) * q.dilation[1] + 1
    pixels = (columns - 1) * q.stride[2] + (q.taps[2] - 1) * q.dilation[2] + 1
    job.line_bytes = q.channels * q.taps[0] * lines * pixels * LEAF_LANE_BYTES + 64
    job.weight_bytes = (job.multiplier * q.channels * job.taps * job.neighbours
                        * LEAF_LANE_BYTES)
    job.total_bytes = job.weight_bytes if job.units_together > 0 else 0
    job.bias_bytes = job.piece_bytes = 0
    job.result_bytes = job.rows * columns * LEAF_LANE_BYTES + 64
    job.tile_bytes = q.channels * job.taps * sizeof(leaf_column)
    return (job.line_bytes + job.total_bytes + job.weight_bytes + job.result_bytes
            + job.tile_bytes)


cdef bint sums_in_lanes(const direct_job* job) noexcept nogil:
    """Whether channels are to be the vectors of large planes: they lie so."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t lanes = LEAF_LANE_BYTES // q.leaf.esize
    if job.groups < lanes or job.along or q.x.stride[1] != q.leaf.esize or not q.x.in_place:
        return False
    return (job.multiplier * q.channels * job.taps * job.neighbours * LEAF_LANE_BYTES
            <= BLOCK_BYTES)


def gradient_suits(weight_shape, stride, dilation):
    """Whether `weight_gradient` is meant for weights (G, M, C, T0, T1, T2): of shapes alone."""
    cdef Py_ssize_t rows = weight_shape[1], channels = weight_shape[2], most = MOST_PAIRS
    if suits(weight_shape, stride, dilation):
        return True
    if stride[2] == 1 and rows <= FEW_ROWS:
        most = FEW_ROWS_PAIRS if rows > FEWEST_ROWS else FEWEST_ROWS_PAIRS
    if weight_shape[0] == 1 or not 0 < rows * channels <= most:
        return False
    return small_box(weight_shape, stride, dilation)


def weight_gradient(
    str operator, x, grad, out, stride, dilation, offset, str mode, int compute, int threads,
    Py_ssize_t budget, bint measure=False
):
    """Gradient of the weights into `out` (G, M, C, T0, T1, T2).  Returns bytes of workspace."""
    cdef direct_job job
    cdef Workspace tables, partial
    cdef Py_ssize_t units, size, fixed, blocks, rest
    cdef const leaf_table* narrower
    cdef size_t scratch = 0, lanes_scratch
    cdef bint in_lanes
    if out.size == 0:
        return 0
    if grad.size == 0:
        if not measure:
            out[...] = 0
        return 0
    tables = set_up(
        &job, x, out, grad, stride, dilation, offset, mode, compute, True, &scratch)
    size = job.groups * job.multiplier * job.q.channels * job.taps
    units = job.out.shape[0] * job.q.out[0] * job.row_boxes * job.column_boxes
    choose_sums(&job, units)
    point_dots(&job)
    job.far = worth_fetching(&job, 0) and x.size + grad.size > FAR_BYTES // job.q.leaf.esize
    fixed = tables.nbytes + job.chunks * size * job.q.leaf.esize + 128
    threads = useful_threads(threads, work_of(
        <double>grad.size * job.q.channels * job.taps, <double>x.size + grad.size))
    in_lanes = job.neighbours == 1
    if not in_lanes and sums_in_lanes(&job):
        lanes_scratch = lane_gradient_scratch(&job)
        in_lanes = lanes_scratch <= <size_t>max(budget - fixed, 0) // threads
    if in_lanes:
        scratch = lane_gradient_scratch(&job)
        blocks = ceil_div(job.groups, LEAF_LANE_BYTES // job.q.leaf.esize)
    else:
        rest = job.columns % (LEAF_LANE_BYTES // job.q.leaf.esize)
        narrower = narrower_leaf(job.q.leaf)
        if narrower != NULL and 0 < rest <= narrower.vl < job.columns:
            job.q.leaf = narrower       # the last of its vectors would be half empty
        scratch = box_scratch(&job, job.together, True)
        blocks = ceil_div(job.groups, job.together)
    threads = fit_threads(operator, scratch, fixed, threads, budget)
    threads = <int>min(<Py_ssize_t>threads, blocks * job.chunks)
    if not measure:
        partial = Workspace(job.chunks * size * job.q.leaf.esize)
        job.partial = partial.data
        run(lane_gradient_task if in_lanes else gradient_task, &job, blocks * job.chunks,
            threads, scratch)
        store_gradient(&job)
    return fixed + threads * <Py_ssize_t>(scratch + 128)
