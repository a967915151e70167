"""Convolution with small kernels by Winograd's algorithm.

The outputs are taken in tiles of m0 x m1, each from n0 x n1 inputs, with as many products, instead
of r0 * r1 for each output; n = stride * (m - 1) + r.  With the matrices of leaf.inc.c, one for each
axis::

    out tile = At0 [ sum over k of (G0 w[m, k] G1t) * (Bt0 x[k] B1) ] A1     (* by elements)

with depth k = (t0, c): taps of the first axis, on which nothing is transformed, and channels.  An
axis without taps is not transformed either: tiles are one output high, or wide.  The sums over k
are n0 * n1 matrix products, one for each place f in a transformed tile: 4 products for each output
and pair of channels with tiles of 2x2 and kernels of 3x3, 2.25 with tiles of 4x4, instead of 9.

    for each block of T tiles, of all samples
        V[f][k][tile] = Bt0 x B1            threads share out the depths k
        for each block of rows m
            M[f][m][tile] = sum over k of U[f][m][k] * V[f][k][tile]      the places f, and rows
            out = At0 M A1 + bias                                         the rows

Where U of a group and a block of V and M stay in L2, a thread does all of this for blocks of its
own: V and M need not go from one core to another then.

Tiles are numbered along the lines of the result.  A dilated convolution is one for each residue
class of its outputs modulo the dilations, of inputs as far apart.  Neighbouring tiles are then of
neighbouring classes, and so are neighbouring inputs; of few classes, each one's are brought
together for the lanes of a vector to be full.
"""

from cpython.pyport cimport PY_SSIZE_T_MAX
from libc.string cimport memset

from pyconv import checks
from pyconv._kernels._cpu cimport leaf, leaf_table, leaf_winograd
from pyconv._kernels._gemm cimport depth_block, load_bias
from pyconv._kernels._grid cimport fill_grid, grid, inside, load_run
from pyconv._kernels._integers cimport ceil_div, magnitude, odd_lines, round_up
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport PAD_ZEROS, describe, source_index, tensor
from pyconv._kernels._winograd_weights cimport (
    DEPTH_BLOCK,
    TransformedWeights,
    distinct_places,
    find_axes,
    transform_weights,
    weight_bytes,
    weight_place,
    weights_of,
)

cdef enum:
    CACHE_BYTES = 6144 * 1024   # V and M of a block of tiles: some of the last level's cache
    NEAR_BYTES = 384 * 1024     # the same of L2, where U is no larger
    UNIT_BYTES = 448 * 1024     # U as it is kept: every thread may read all of it
    MOST_TILES = 256            # in a block
    LEAST_TILES = 64            # for which U is worth being read, whatever the cache
    STRIP = 128                 # tiles whose rows of M stay in L2 for all blocks of KC
    MOST_ROWS = 384             # of U: those of a block of KC stay in L2 for all tiles
    LEAST_ROWS = 96
    CHANNELS = 16               # loaded together where they lie next to each other: a cache line
    SLACK = 64                  # elements that leaves may touch beyond the last
    STRETCH = 64                # tiles of outputs, transformed together
    MOST_INPUTS = 10            # of a tile along an axis
    FEW_UNITS = 4               # for each thread: they are to have equal numbers


# Where a line that is padding lies.
cdef Py_ssize_t NOWHERE = PY_SSIZE_T_MAX

# Tiles in one line of the result: `classes` next to each other, and that in `steps` steps.
cdef struct piece:
    Py_ssize_t n
    Py_ssize_t o[3]             # first output
    Py_ssize_t first            # tile of the block
    Py_ssize_t classes, steps   # more than one step: with all classes
    Py_ssize_t length           # inputs of a class
    Py_ssize_t column           # where its inputs are in a line of `columns`,
    Py_ssize_t inputs           # ... how many,
    Py_ssize_t together         # ... and of these next to each other in the array
    Py_ssize_t rows             # of outputs: of tiles at the end, not all are in the result
    bint lies                   # its lines may be read where they are: from the first,
    Py_ssize_t lo, hi           # columns lo .. hi-1 of inputs, the rest is padding,
    Py_ssize_t line[MOST_INPUTS]    # where a plane has column lo of each, in bytes; or NOWHERE


cdef struct winograd_job:
    const leaf_table* leaf
    const leaf_winograd* axis[2]
    const grid* q
    const tensor* out           # (N, G*M, O0, O1, O2)
    const char* bias            # or NULL
    const char* u               # [g][f][block of KC][row block][k][mr] of rows row .. row+rows-1
    char* v                     # [g][f][k][tile]
    char* result                # [g][f][row][tile]: M
    int compute
    Py_ssize_t m[2], n[2]       # outputs and inputs of a tile
    Py_ssize_t step[2]          # inputs from one tile to the next
    Py_ssize_t places
    Py_ssize_t row, rows
    Py_ssize_t all_rows, groups, depth
    Py_ssize_t classes[2]       # residue classes of the outputs along the last two axes
    Py_ssize_t across[2]        # tiles of one class along them
    bint dilated                # along the last axis,
    bint by_class               # ... with so few classes that each one's inputs are put together
    bint by_line                # its lines are whole vectors as they are: of classes, or of tiles
    bint in_place               # whether the inputs may be read where they are
    Py_ssize_t channels_at_once
    Py_ssize_t tiles, panels    # of all samples; panels of nr tiles
    Py_ssize_t blocks           # of tiles
    Py_ssize_t capacity         # tiles of a block, at most
    Py_ssize_t row_block, group_block
    bint by_unit                # a thread does all of a block of tiles and of groups by itself
    Py_ssize_t pitch            # elements from one row of V to the next,
    Py_ssize_t m_pitch          # ... of M,
    Py_ssize_t slack            # columns of V that leaves may touch beyond a block's
    Py_ssize_t u_place, v_place, m_place    # ... from one place to the next
    Py_ssize_t width            # of a line of `columns`,
    Py_ssize_t y_pitch          # of a line of outputs
    size_t v_bytes, m_bytes, table_bytes    # of a block, shared or a thread's
    size_t phase_bytes          # of scratch for inputs, or outputs
    size_t line_bytes, column_bytes, partial_bytes, y_bytes
    # the block at hand
    Py_ssize_t first, last      # tiles
    Py_ssize_t group, some_groups
    Py_ssize_t some_row, some_rows
    piece* pieces
    Py_ssize_t count
    Py_ssize_t* at              # first column of each tile, in a line of `columns`


# ---- inputs -----------------------------------------------------------------------------------

cdef void find_lines(const winograd_job* job, piece* p) noexcept nogil:
    """Where the inputs of a piece are in a plane, if they may be read there."""
    cdef const grid* q = job.q
    cdef Py_ssize_t start = p.o[2] * q.stride[2] + q.offset[2], i1, i
    inside(start, 1, p.inputs, q.x.shape[4], &p.lo, &p.hi)
    p.lies = (job.in_place and p.hi > p.lo and p.together == p.inputs
              and (q.mode == PAD_ZEROS or p.hi - p.lo == p.inputs))
    if not p.lies:
        return
    for i in range(job.n[0]):
        i1 = source_index(
            p.o[1] * q.stride[1] + i * q.dilation[1] + q.offset[1], q.x.shape[3], q.mode)
        p.line[i] = NOWHERE
        if i1 >= 0:
            p.line[i] = (
                p.n * q.x.stride[0] + i1 * q.x.stride[3] + (start + p.lo) * q.leaf.esize)


cdef void find_pieces(winograd_job* job) noexcept nogil:
    """Those of tiles first .. last-1."""
    cdef const grid* q = job.q
    cdef Py_ssize_t line = job.across[1] * job.classes[1], dilation = q.dilation[2]
    cdef Py_ssize_t tile = job.first, along, rest, left, residue, step, column = 0, i
    cdef piece* p
    job.count = 0
    while tile < job.last:
        p = &job.pieces[job.count]
        along, rest = tile % line, tile // line
        residue, step = along % job.classes[1], along // job.classes[1]
        left = min(line - along, job.last - tile)
        p.classes, p.steps = min(job.classes[1] - residue, left), 1
        if p.classes == dilation:
            p.steps = left // dilation
        p.length = job.step[1] * (p.steps - 1) + job.n[1]
        p.inputs = p.length * p.classes
        p.together = p.inputs if p.classes == dilation else p.classes
        p.o[2] = step * job.m[1] * dilation + residue
        p.o[1] = rest % job.across[0] * job.m[0] * q.dilation[1]
        rest //= job.across[0]
        p.o[1] += rest % job.classes[0]
        rest //= job.classes[0]
        p.o[0], p.n = rest % q.out[0], rest // q.out[0]
        p.rows = ceil_div(q.out[1] - p.o[1], q.dilation[1]) if p.o[1] < q.out[1] else 0
        p.rows = min(p.rows, job.m[0])
        p.first, p.column = tile - job.first, column
        find_lines(job, p)
        for step in range(p.steps):
            for residue in range(p.classes):
                job.at[tile - job.first] = column + residue * p.length + step * job.step[1]
                tile += 1
        column += p.inputs
        job.count += 1
    # tiles that fill a panel up: all zeros
    for i in range(job.last - job.first, round_up(job.last - job.first, job.leaf.nr)):
        job.at[i] = job.width - SLACK // 2


cdef void load_piece(
    const winograd_job* job, const piece* p, const char* plane, Py_ssize_t t0, Py_ssize_t channels,
    char* lines, Py_ssize_t pitch
) noexcept nogil:
    """The n0 lines of inputs of `channels` channels, `pitch` elements from one to the next."""
    cdef const grid* q = job.q
    cdef Py_ssize_t es = q.leaf.esize, i0, i1, i, j
    plane += p.n * q.x.stride[0]
    i0 = source_index(p.o[0] * q.stride[0] + t0 * q.dilation[0] + q.offset[0], q.x.shape[2], q.mode)
    for i in range(job.n[0]):
        i1 = source_index(
            p.o[1] * q.stride[1] + i * q.dilation[1] + q.offset[1], q.x.shape[3], q.mode)
        if i0 < 0 or i1 < 0:
            q.leaf.clear(lines, pitch, channels, p.inputs)
        else:
            for j in range(p.inputs // p.together):
                load_run(
                    q, lines + j * p.together * es, pitch,
                    plane + i0 * q.x.stride[2] + i1 * q.x.stride[3], channels,
                    p.o[2] * q.stride[2] + j * q.dilation[2] + q.offset[2], 1, p.together)
        lines += job.width * es


cdef void transform_in_place(
    const winograd_job* job, const piece* p, const char* plane, Py_ssize_t t0, const char* zeros,
    char* lines, char* columns, bint clear
) noexcept nogil:
    """Bt x of one channel's piece: lines are read where they are if they may be.

    `clear`: the padding beside them is not in `columns` yet.  Less than a vector is followed by
    zeros, in padding or where the next piece will be.
    """
    cdef const grid* q = job.q
    cdef Py_ssize_t es = q.leaf.esize, i0, i
    cdef const void* rows[MOST_INPUTS]
    columns += p.column * es
    if not p.lies:
        load_piece(job, p, plane, t0, 1, lines, 0)
        for i in range(job.n[0]):
            rows[i] = lines + i * job.width * es
        job.axis[0].rows(p.inputs, rows, columns, job.width)
        return
    i0 = source_index(p.o[0] * q.stride[0] + t0 * q.dilation[0] + q.offset[0], q.x.shape[2], q.mode)
    plane += i0 * q.x.stride[2]
    for i in range(job.n[0]):
        rows[i] = zeros if i0 < 0 or p.line[i] == NOWHERE else plane + p.line[i]
    job.axis[0].rows(p.hi - p.lo, rows, columns + p.lo * es, job.width)
    if p.lo > 0 and clear:
        q.leaf.clear(columns, job.width, job.n[0], p.lo)
    if p.hi < p.inputs and clear:
        q.leaf.clear(columns + p.hi * es, job.width, job.n[0], p.inputs - p.hi)


cdef void sort_columns(const winograd_job* job, const char* src, char* dst) noexcept nogil:
    """Inputs by classes, from the order in which they lie in the array."""
    cdef Py_ssize_t es = job.leaf.esize, i, j
    cdef const piece* p
    for j in range(job.count):
        p = &job.pieces[j]
        for i in range(job.n[0]):
            # elements of the compute type: their storage has its code
            job.leaf.load[job.compute](
                dst + (i * job.width + p.column) * es, p.length,
                src + (i * job.width + p.column) * es, es, p.classes * es, p.classes, p.length)


cdef void transform_line(
    const winograd_job* job, const piece* p, const char* columns, char* v
) noexcept nogil:
    """V of a piece whose neighbouring tiles have neighbouring inputs, at each step."""
    cdef Py_ssize_t es = job.leaf.esize, steps = p.steps, classes = p.classes, step
    columns += p.column * es
    v += p.first * es
    if job.n[1] == 1:       # all steps are neighbours
        classes, steps = classes * steps, 1
    for step in range(steps):
        job.axis[1].columns(
            classes, job.n[0], columns + step * job.step[1] * classes * es, job.width, NULL,
            classes, v + step * classes * es, job.v_place)


cdef void input_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """V of depth `task` (of all groups at hand), all tiles of the block."""
    cdef const winograd_job* job = <const winograd_job*>ctx
    cdef const grid* q = job.q
    cdef Py_ssize_t es = q.leaf.esize, task = first, g, t0, c, count, i, j
    cdef Py_ssize_t tiles = job.last - job.first
    cdef Py_ssize_t panels = max(in_panels(q.leaf, tiles), round_up(tiles, q.leaf.vl))
    cdef const piece* end = &job.pieces[job.count - 1]
    cdef Py_ssize_t inputs = end.column + end.inputs
    cdef char* lines = scratch
    cdef char* columns = lines + job.line_bytes
    cdef char* sorted = columns + job.column_bytes if job.by_class else columns
    cdef char* zeros = sorted + job.column_bytes
    cdef char* v
    cdef const char* plane
    cdef const piece* p
    cdef const void* rows[MOST_INPUTS]
    memset(sorted, 0, job.column_bytes)
    memset(zeros, 0, job.width * es)
    while task < last:
        g = task // job.depth
        t0, c = task % job.depth // q.channels, task % q.channels
        count = min(min(job.channels_at_once, q.channels - c), last - task)
        plane = q.x.data + ((job.group + g) * q.channels + c) * q.x.stride[1]
        v = job.v + (g * job.places * job.v_place + task % job.depth * job.pitch) * es
        if not job.in_place:
            for i in range(job.count):
                p = &job.pieces[i]
                load_piece(
                    job, p, plane, t0, count, lines + p.column * es, job.n[0] * job.width)
        for j in range(count):
            if job.in_place:
                for i in range(job.count):
                    transform_in_place(
                        job, &job.pieces[i], plane + j * q.x.stride[1], t0, zeros, lines, columns,
                        task == first and j == 0)
            else:
                for i in range(job.n[0]):
                    rows[i] = lines + (j * job.n[0] + i) * job.width * es
                job.axis[0].rows(inputs, rows, columns, job.width)
            if job.by_line:
                for i in range(job.count):
                    transform_line(job, &job.pieces[i], columns, v)
                if tiles < panels:
                    q.leaf.clear(v + tiles * es, job.v_place, job.places, panels - tiles)
            else:
                if job.by_class:
                    sort_columns(job, columns, sorted)
                job.axis[1].columns(
                    panels, job.n[0], sorted, job.width, job.at, 1, v, job.v_place)
            v += job.pitch * es
        task += count


cdef inline Py_ssize_t in_panels(const leaf_table* table, Py_ssize_t tiles) noexcept nogil:
    """How many of them are computed in panels: all but a few vectors that would not fill one."""
    cdef Py_ssize_t rest = tiles % table.nr
    return tiles - rest if rest <= 2 * table.vl - table.least else round_up(tiles, table.nr)


cdef void multiply(
    const winograd_job* job, Py_ssize_t g, Py_ssize_t f, Py_ssize_t m, Py_ssize_t rows
) noexcept nogil:
    """M of one place and rows m .. m+rows-1 of those at hand; m is a multiple of mr."""
    cdef const leaf_table* table = job.leaf
    cdef Py_ssize_t es = table.esize, mr = table.mr, nr = table.nr
    cdef Py_ssize_t kc = depth_block(job.depth, DEPTH_BLOCK)
    cdef Py_ssize_t k, depth, t, i, whole, all_rows = round_up(job.rows, mr)
    cdef Py_ssize_t tiles = job.last - job.first, first = 0, last
    cdef const char* u = job.u + (
        (job.group + g) * distinct_places(job.axis) + weights_of(job.axis, f)) * job.u_place * es
    cdef const char* v = job.v + (g * job.places + f) * job.v_place * es
    cdef char* result = job.result + ((g * job.places + f) * job.m_place + m * job.m_pitch) * es
    cdef const char* a
    while first < tiles:
        last = min(first + STRIP, tiles)
        k = 0
        while k < job.depth:
            depth = min(kc, job.depth - k)
            a = u + (k * all_rows + (job.some_row + m) * depth) * es
            whole = in_panels(table, last - first)
            if whole > 0:
                table.gemm(
                    rows, whole, depth, a, 0, v + (k * job.pitch + first) * es, job.pitch, nr,
                    result + first * es, job.m_pitch, NULL, k > 0, NULL)
            i = 0
            while first + whole < last and i < rows:    # the same weights for all that is left
                t = first + whole
                while t < last:
                    table.gemm_narrow(
                        min(2 * mr, rows - i), min(table.vl, last - t), depth, a + i * depth * es,
                        depth * mr, v + (k * job.pitch + t) * es, job.pitch,
                        result + (i * job.m_pitch + t) * es, job.m_pitch, k > 0)
                    t += table.vl
                i += 2 * mr
            k += depth
        first = last


cdef void product_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are blocks of mr rows of a place of a group."""
    cdef const winograd_job* job = <const winograd_job*>ctx
    cdef Py_ssize_t mr = job.leaf.mr, blocks = ceil_div(job.some_rows, mr), task = first
    cdef Py_ssize_t place, m, count
    while task < last:
        place, m = task // blocks, task % blocks * mr
        count = min(min(<Py_ssize_t>(MOST_ROWS // mr), blocks - task % blocks), last - task)
        multiply(
            job, place // job.places, place % job.places, m,
            min(count * mr, job.some_rows - m))
        task += count


cdef void store_columns(
    const winograd_job* job, char* dst, Py_ssize_t dst_rs, const char* src, Py_ssize_t src_rs,
    Py_ssize_t rows, Py_ssize_t count, Py_ssize_t channels
) noexcept nogil:
    """rows x count outputs, of one channel or of more that lie next to each other."""
    cdef const tensor* out = job.out
    cdef Py_ssize_t i
    if channels == 1:
        job.leaf.store[out.storage](dst, dst_rs, out.stride[4], src, src_rs, rows, count)
        return
    for i in range(rows):
        job.leaf.store[out.storage](
            dst + i * dst_rs, out.stride[1], out.stride[4], src + i * src_rs * job.leaf.esize,
            job.m[0] * job.y_pitch, channels, count)


cdef void store_piece(
    const winograd_job* job, const piece* p, char* dst, const char* y, Py_ssize_t channels
) noexcept nogil:
    """Outputs of `channels` channels to their places."""
    cdef const tensor* out = job.out
    cdef Py_ssize_t es = job.leaf.esize, pitch = job.y_pitch, i, j, o2, whole, left
    cdef Py_ssize_t step = job.m[1] * job.q.dilation[2], to_row = job.q.dilation[1] * out.stride[3]
    dst += p.n * out.stride[0] + p.o[0] * out.stride[2] + p.o[1] * out.stride[3]
    if not job.dilated:
        store_columns(
            job, dst + p.o[2] * out.stride[4], to_row, y + job.m[1] * p.first * es, pitch, p.rows,
            min(job.m[1] * p.steps, out.shape[4] - p.o[2]), channels)
        return
    # All classes of a line: their outputs follow each other, run by run.
    if p.classes == job.q.dilation[2] and channels == 1 and out.in_place and out.stride[4] == es:
        job.leaf.interleave_runs(
            p.rows, min(step * p.steps, out.shape[4] - p.o[2]), job.m[1], p.classes,
            y + p.first * es, pitch, job.capacity, dst + p.o[2] * es, to_row // es)
        return
    for j in range(job.m[1]):
        o2 = p.o[2] + j * job.q.dilation[2]
        # steps with all their classes in the result; of one more there may be some
        whole = 0
        if o2 + p.classes <= out.shape[4]:
            whole = min(p.steps, (out.shape[4] - p.classes - o2) // step + 1)
        left = out.shape[4] - o2 - whole * step if whole < p.steps else 0
        if p.steps <= p.rows:
            for i in range(p.steps):
                left = min(p.classes, out.shape[4] - o2 - i * step)
                if left > 0:
                    store_columns(
                        job, dst + (o2 + i * step) * out.stride[4], to_row,
                        y + (j * job.capacity + p.first + i * p.classes) * es, pitch, p.rows, left,
                        channels)
            continue
        for i in range(p.rows):
            store_columns(
                job, dst + i * to_row + o2 * out.stride[4], step * out.stride[4],
                y + (i * pitch + j * job.capacity + p.first) * es, p.classes, whole, p.classes,
                channels)
            if left > 0:
                store_columns(
                    job, dst + i * to_row + (o2 + whole * step) * out.stride[4], 0,
                    y + (i * pitch + j * job.capacity + p.first + whole * p.classes) * es, 0, 1,
                    left, channels)


cdef void transform_outputs(
    const winograd_job* job, const char* m, const char* bias, char* partial, char* y
) noexcept nogil:
    """Lines of outputs of all tiles, from those of a row of M."""
    cdef Py_ssize_t es = job.leaf.esize, tiles = job.last - job.first, t = 0, count
    cdef Py_ssize_t apart = job.capacity if job.dilated else 1
    while t < tiles:
        count = min(<Py_ssize_t>STRETCH, tiles - t)
        if job.n[0] > 1:
            job.axis[0].down(count, job.n[1], m + t * es, job.m_place, partial, STRETCH)
            job.axis[1].along(
                count, job.m[0], partial, STRETCH, bias, False,
                y + (t if job.dilated else job.m[1] * t) * es, job.y_pitch, apart)
        else:
            job.axis[1].along(
                count, 1, m + t * es, job.m_place, bias, False,
                y + (t if job.dilated else job.m[1] * t) * es, job.y_pitch, apart)
        t += count


cdef void output_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Outputs of row `task` (of all groups at hand), from M."""
    cdef const winograd_job* job = <const winograd_job*>ctx
    cdef Py_ssize_t es = job.leaf.esize, task = first, g, i, j, count, channel, at_once
    cdef char* y = scratch + job.partial_bytes
    cdef double zero = 0        # in either type
    cdef const char* bias
    at_once = job.channels_at_once if magnitude(job.out.stride[1]) < magnitude(
        job.out.stride[4]) else 1
    while task < last:
        g, i = task // job.some_rows, task % job.some_rows
        count = min(min(at_once, job.some_rows - i), last - task)
        channel = (job.group + g) * job.all_rows + job.row + job.some_row + i
        for j in range(count):
            bias = <const char*>&zero if job.bias == NULL else job.bias + (channel + j) * es
            transform_outputs(
                job, job.result + (g * job.places * job.m_place + (i + j) * job.m_pitch) * es,
                bias, scratch, y + j * job.m[0] * job.y_pitch * es)
        for j in range(job.count):
            store_piece(
                job, &job.pieces[j], job.out.data + channel * job.out.stride[1], y, count)
        task += count


# ---- the whole --------------------------------------------------------------------------------

cdef size_t scratch_of(winograd_job* job) noexcept nogil:
    """Sizes that follow from those of the blocks; returns bytes of scratch a thread."""
    cdef Py_ssize_t es = job.leaf.esize
    cdef size_t inputs
    job.pitch = odd_lines(job.capacity + job.slack, es)
    job.v_place = odd_lines(job.depth * job.pitch + job.leaf.nr, es)
    job.m_pitch = odd_lines(job.capacity, es)
    job.m_place = odd_lines(job.row_block * job.m_pitch, es)
    job.width = job.n[1] * job.capacity + SLACK
    job.y_pitch = job.m[1] * job.capacity + job.leaf.nr
    job.v_bytes = aligned((job.group_block * job.places * job.v_place + SLACK) * es)
    job.m_bytes = aligned((job.group_block * job.places * job.m_place + SLACK) * es)
    job.table_bytes = aligned(job.capacity * (sizeof(piece) + sizeof(Py_ssize_t)) + 64)
    job.line_bytes = aligned((job.channels_at_once * job.n[0] * job.width + SLACK) * es)
    job.column_bytes = aligned((job.n[0] * job.width + SLACK) * es)
    job.partial_bytes = aligned((job.m[0] * job.n[1] * STRETCH + SLACK) * es)
    job.y_bytes = aligned((job.channels_at_once * job.m[0] * job.y_pitch + SLACK) * es)
    inputs = job.line_bytes + 2 * job.column_bytes + aligned((job.width + SLACK) * es)
    job.phase_bytes = aligned(max(inputs, job.partial_bytes + job.y_bytes))
    return job.phase_bytes + (block_bytes(job) if job.by_unit else 0)


cdef inline size_t block_bytes(const winograd_job* job) noexcept nogil:
    return job.v_bytes + job.m_bytes + job.table_bytes


cdef inline Py_ssize_t units(const winograd_job* job) noexcept nogil:
    return ceil_div(job.groups, job.group_block) * job.blocks


cdef Py_ssize_t needed(const winograd_job* job, size_t scratch, int threads) noexcept nogil:
    """Bytes of workspace."""
    return (0 if job.by_unit else block_bytes(job) + 64) + threads * (aligned(scratch) + 128)


cdef size_t fit_blocks(winograd_job* job, int* threads, Py_ssize_t budget) noexcept nogil:
    """Choose block sizes within the cache and the workspace; returns bytes of scratch a thread."""
    cdef Py_ssize_t nr = job.leaf.nr, mr = job.leaf.mr, each, most, cache
    cdef Py_ssize_t least_rows = LEAST_ROWS // mr * mr
    cdef size_t scratch
    job.row_block, job.group_block, job.slack = round_up(job.rows, mr), 1, nr
    each = job.places * (job.depth + job.row_block) * job.leaf.esize * nr
    cache, most = CACHE_BYTES, LEAST_TILES // nr
    if job.places * job.depth * job.row_block * job.leaf.esize <= NEAR_BYTES:
        cache, most = NEAR_BYTES, 1
    most = min(<Py_ssize_t>MOST_TILES // nr, max(most, cache // each))
    job.blocks = ceil_div(job.panels, most)
    # Rows in several goes, as there is room for U, keep one block's inputs.
    job.by_unit = job.rows == job.all_rows and (threads[0] == 1 or (
        distinct_places(job.axis) * job.depth * job.row_block * job.leaf.esize <= UNIT_BYTES))
    # as many for each thread
    while (job.by_unit and job.blocks < job.panels and units(job) % threads[0] > 0
            and units(job) < FEW_UNITS * threads[0]):
        job.blocks += 1
    job.by_unit = job.by_unit and units(job) >= threads[0]
    job.capacity = ceil_div(job.panels, job.blocks) * nr
    if job.blocks == 1:
        job.group_block = max(<Py_ssize_t>1, min(
            job.groups // threads[0] if job.by_unit else job.groups,
            (cache if job.by_unit else CACHE_BYTES) // (job.panels * each)))
        if job.by_unit:     # as many units for each thread here too
            job.group_block = ceil_div(
                job.groups, min(job.groups, round_up(units(job), threads[0])))
    scratch = scratch_of(job)
    while needed(job, scratch, threads[0]) > budget:
        if job.by_unit and threads[0] > 1:
            job.by_unit = False
        elif job.group_block > 1:
            job.group_block = ceil_div(job.group_block, 2)
        elif job.row_block > least_rows:
            job.row_block = max(least_rows, round_up(job.row_block // 2, mr))
        elif job.blocks < job.panels:
            job.blocks = min(job.panels, 2 * job.blocks)
            job.capacity = ceil_div(job.panels, job.blocks) * nr
        elif job.row_block > mr:
            job.row_block = round_up(job.row_block // 2, mr)
        elif threads[0] > 1:
            threads[0] -= 1
        elif job.channels_at_once > 1:
            job.channels_at_once = 1
        elif job.slack > 0:     # one thread writes a depth after what the one before it may touch
            job.slack = 0
        else:
            break
        scratch = scratch_of(job)
    return scratch


cdef void place_block(winograd_job* job, char* at) noexcept nogil:
    """V, M and the tables of a block in memory of `block_bytes`."""
    job.v = at
    job.result = job.v + job.v_bytes
    job.pieces = <piece*>(job.result + job.m_bytes)
    job.at = <Py_ssize_t*>(job.pieces + job.capacity)


cdef void choose_tiles(winograd_job* job, Py_ssize_t block) noexcept nogil:
    cdef Py_ssize_t nr = job.leaf.nr
    job.first = job.panels * block // job.blocks * nr
    job.last = min(job.tiles, job.panels * (block + 1) // job.blocks * nr)
    find_pieces(job)


cdef void unit_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """All of block `task` of tiles and of groups."""
    cdef winograd_job job = (<const winograd_job*>ctx)[0]
    cdef Py_ssize_t mr = job.leaf.mr, task
    place_block(&job, scratch + job.phase_bytes)
    for task in range(first, last):
        if task == first or job.blocks > 1:
            choose_tiles(&job, task % job.blocks)
        job.group = task // job.blocks * job.group_block
        job.some_groups = min(job.group_block, job.groups - job.group)
        input_task(&job, scratch, 0, job.some_groups * job.depth)
        job.some_row = 0
        while job.some_row < job.rows:
            job.some_rows = min(job.row_block, job.rows - job.some_row)
            product_task(
                &job, scratch, 0, job.some_groups * job.places * ceil_div(job.some_rows, mr))
            output_task(&job, scratch, 0, job.some_groups * job.some_rows)
            job.some_row += job.some_rows


cdef int convolve_rows(winograd_job* job, int threads, size_t scratch) except -1:
    """Outputs of rows row .. row+rows-1 of every group."""
    cdef Py_ssize_t block, mr = job.leaf.mr
    # One block's inputs are there still from the rows before.
    cdef bint kept = job.row > 0 and job.blocks == 1 and job.group_block == job.groups
    if job.by_unit:
        run(unit_task, job, units(job), threads, scratch)
        return 0
    job.group = 0
    while job.group < job.groups:
        job.some_groups = min(job.group_block, job.groups - job.group)
        for block in range(job.blocks):
            if not kept:
                choose_tiles(job, block)
                run(input_task, job, job.some_groups * job.depth, threads, scratch)
            job.some_row = 0
            while job.some_row < job.rows:
                job.some_rows = min(job.row_block, job.rows - job.some_row)
                run(product_task, job,
                    job.some_groups * job.places * ceil_div(job.some_rows, mr), threads, 0)
                run(output_task, job, job.some_groups * job.some_rows, threads, scratch)
                job.some_row += job.some_rows
        job.group += job.some_groups
    return 0


def correlate(
    outputs, str operator, x, weight, bias, out, stride, dilation, offset, str mode, int compute,
    int threads, Py_ssize_t budget, TransformedWeights packed=None, bint measure=False
):
    """Forward, into `out` (N, G*M, O0, O1, O2), none of them empty.  Returns bytes of workspace.

    `outputs`: of a tile along the last two axes, as in the table of leaf.inc.c for their taps and
    strides.  x: (N, G*C, S0, S1, S2); weight: (G, M, C, T0, r0, r1), any strides; bias:
    (G*M,) or None.  `packed` holds the same weights transformed and takes their place.
    """
    cdef grid q
    cdef tensor w, result
    cdef winograd_job job
    cdef Workspace held_bias = None, held
    cdef size_t u_bytes = 0
    cdef const leaf_table* table = leaf(compute) if packed is None else packed.leaf
    cdef Py_ssize_t fixed = 0, shortfall, each, axis
    cdef size_t scratch
    describe(weight, 6, compute, &w)
    describe(out, 5, compute, &result)
    fill_grid(
        x, w.shape[0], &w.shape[3], &result.shape[2], stride, dilation, offset, mode, compute, &q)
    q.leaf = table
    job.leaf, job.q, job.out, job.bias = table, &q, &result, NULL
    job.compute = compute
    find_axes(table, &w, stride, outputs, job.axis)
    job.groups, job.all_rows, job.depth = w.shape[0], w.shape[1], w.shape[2] * w.shape[3]
    for axis in range(2):
        job.m[axis], job.n[axis] = job.axis[axis].outputs, job.axis[axis].inputs
        if job.n[axis] == 1:
            q.dilation[1 + axis] = 1
        job.step[axis] = job.m[axis] * q.stride[1 + axis]
        job.classes[axis] = min(q.dilation[1 + axis], q.out[1 + axis])
        job.across[axis] = ceil_div(ceil_div(q.out[1 + axis], q.dilation[1 + axis]), job.m[axis])
    job.places = job.n[0] * job.n[1]
    job.dilated = q.dilation[2] > 1
    job.by_class = job.dilated and job.classes[1] < table.vl
    job.by_line = job.n[1] == 1 or job.dilated and not job.by_class
    job.in_place = q.x.in_place and q.x.stride[4] == table.esize
    job.channels_at_once = 1
    if (magnitude(q.x.stride[1]) < magnitude(q.x.stride[4])
            or magnitude(result.stride[1]) < magnitude(result.stride[4])):
        job.channels_at_once = CHANNELS
    job.tiles = result.shape[0] * q.out[0] * (
        job.classes[0] * job.classes[1] * job.across[0] * job.across[1])
    job.panels = ceil_div(job.tiles, table.nr)
    threads = useful_threads(
        threads, 2.0 * job.places * job.groups * job.panels * table.nr * job.all_rows * job.depth)
    if bias is not None:
        fixed = job.groups * job.all_rows * table.esize + 64
    job.row, job.rows = 0, job.all_rows
    if packed is None:
        # as many rows at a time as a quarter of the workspace has room for
        each = weight_bytes(&w, job.axis, table.mr, table)
        job.rows = min(job.all_rows, max(<Py_ssize_t>1, budget // 4 // each) * table.mr)
        u_bytes = aligned(weight_bytes(&w, job.axis, job.rows, table))
        fixed += u_bytes
    scratch = fit_blocks(&job, &threads, budget - fixed)
    shortfall = fixed + needed(&job, scratch, threads) - budget
    if shortfall > 0:
        raise checks.WorkspaceError(operator, budget + shortfall, budget)
    if measure:
        return budget + shortfall
    if bias is not None:
        held_bias = load_bias(bias, table, compute)
        job.bias = held_bias.data
    # One block, which the C library keeps from call to call as it does not several.
    held = Workspace(u_bytes + (0 if job.by_unit else block_bytes(&job)))
    job.u = packed.store.data if packed is not None else held.data
    place_block(&job, held.data + u_bytes)
    while job.row < job.all_rows:
        job.rows = min(job.rows, job.all_rows - job.row)
        job.u_place = weight_place(&w, job.rows, table)
        if packed is None:
            transform_weights(&w, job.axis, job.row, job.rows, table, threads, held.data)
        convolve_rows(&job, threads, scratch)
        job.row += job.rows
    return budget + shortfall
