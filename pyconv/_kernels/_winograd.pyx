"""Convolution with 3x3 kernels at stride 1 by Winograd's F(4x4, 3x3): a quarter of the products.

The outputs are taken in tiles of 4x4, each from 6x6 inputs d.  With the matrices of leaf.inc.c::

    out tile = At [ sum over k of (G w[m, k] Gt) * (Bt d[k] B) ] A       (* by elements)

with depth k = (t0, c): taps of the first axis, on which nothing is transformed, and channels.  The
sums over k are 36 matrix products, one for each place f in a transformed tile.

    for each block of T tiles                  (threads share out the blocks, or the rows)
        V[f][k][tile] = Bt d B                 every input tile, transformed once
        for each block of rows m
            for each f
                M[f][m][tile] = sum over k of U[f][m][k] * V[f][k][tile]      the micro-kernel
            out = At M A + bias

A dilated convolution is one for each residue class of its outputs, modulo the dilations, of inputs
as far apart: the classes are numbered along with the tiles.
"""

from libc.string cimport memcpy, memset

from pyconv import checks
from pyconv._kernels._cpu cimport leaf, leaf_table
from pyconv._kernels._gemm cimport depth_block, load_bias
from pyconv._kernels._grid cimport fill_grid, grid, load_run
from pyconv._kernels._integers cimport ceil_div, round_up
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport describe, source_index, tensor

cdef enum:
    PLACES = 36                 # in a transformed tile
    CACHE_BYTES = 4096 * 1024   # V and M of a block of tiles
    MOST_TILES = 96             # in a block
    ROW_BLOCK = 96              # rows of M at a time
    CHANNELS = 16               # loaded together
    SLACK = 64                  # elements that leaves may touch beyond the last
    TAP_LINE = 16               # room for one tap of mr kernels
    DEPTHS = 16                 # of weights, transformed together


cdef struct weight_job:
    const leaf_table* leaf
    const tensor* weight        # (G, M, C, T0, 3, 3)
    char* u                     # [g][f][row block][k][mr]
    Py_ssize_t row, rows        # which of the M


cdef struct winograd_job:
    const leaf_table* leaf
    const grid* q
    const tensor* out           # (N, G*M, O0, O1, O2)
    const char* bias            # or NULL
    const char* u               # [g][f][row block][k][mr] of rows row .. row+rows-1
    Py_ssize_t row, rows
    Py_ssize_t all_rows, groups, depth
    Py_ssize_t classes[2]       # residue classes of the outputs along the last two axes
    Py_ssize_t across[2]        # tiles of one class along them
    Py_ssize_t tiles            # of a sample and group
    Py_ssize_t panels           # of nr tiles
    Py_ssize_t blocks           # of a sample and group
    Py_ssize_t row_splits
    Py_ssize_t capacity         # most tiles of a block
    Py_ssize_t row_block
    Py_ssize_t pitch            # elements from one row of V to the next,
    Py_ssize_t v_place, m_place  # ... and from one place to the next, in V and in M
    Py_ssize_t line             # of a row of inputs, elements
    size_t v_bytes, m_bytes, line_bytes, y_bytes, own_bytes


# A run of tiles that lie side by side: where its first output is, and how many there are of them.
cdef struct tile_run:
    Py_ssize_t tiles
    Py_ssize_t o[3]             # first output
    Py_ssize_t rows, columns    # outputs, in steps of the dilations


cdef void find_run(
    const winograd_job* job, Py_ssize_t tile, Py_ssize_t last, tile_run* r
) noexcept nogil:
    cdef const grid* q = job.q
    cdef Py_ssize_t along = tile % job.across[1], rest = tile // job.across[1]
    cdef Py_ssize_t down = rest % job.across[0], left
    r.tiles = min(job.across[1] - along, last - tile)
    rest //= job.across[0]
    r.o[2] = rest % job.classes[1] + 4 * along * q.dilation[2]
    rest //= job.classes[1]
    r.o[1] = rest % job.classes[0] + 4 * down * q.dilation[1]
    r.o[0] = rest // job.classes[0]
    left = ceil_div(q.out[1] - r.o[1], q.dilation[1]) if r.o[1] < q.out[1] else 0
    r.rows = min(<Py_ssize_t>4, left)
    left = ceil_div(q.out[2] - r.o[2], q.dilation[2]) if r.o[2] < q.out[2] else 0
    r.columns = min(4 * r.tiles, left)


cdef void transform_inputs(
    const winograd_job* job, Py_ssize_t n, Py_ssize_t g, Py_ssize_t first, Py_ssize_t last,
    char* v, char* lines, char* own
) noexcept nogil:
    """V of tiles first .. last-1; the columns up to a whole panel are zero."""
    cdef const grid* q = job.q
    cdef const leaf_table* table = job.leaf
    cdef Py_ssize_t es = table.esize, tile = first, wide
    cdef Py_ssize_t t0, c, count, i, j, i0, i1, k, f
    cdef const char* src = q.x.data + n * q.x.stride[0] + g * q.channels * q.x.stride[1]
    cdef const char* plane
    cdef char* line
    cdef tile_run r
    while tile < last:
        find_run(job, tile, last, &r)
        wide = 4 * r.tiles + 2
        for t0 in range(q.taps[0]):
            i0 = source_index(
                r.o[0] * q.stride[0] + t0 * q.dilation[0] + q.offset[0], q.x.shape[2], q.mode)
            c = 0
            while c < q.channels:
                count = min(<Py_ssize_t>CHANNELS, q.channels - c)
                plane = src + c * q.x.stride[1] + i0 * q.x.stride[2]
                for i in range(6):
                    i1 = source_index(
                        r.o[1] + i * q.dilation[1] + q.offset[1], q.x.shape[3], q.mode)
                    line = lines + i * job.line * es
                    if i0 < 0 or i1 < 0:
                        table.clear(line, 6 * job.line, count, wide)
                    else:
                        load_run(
                            q, line, 6 * job.line, plane + i1 * q.x.stride[3], count,
                            r.o[2] + q.offset[2], q.dilation[2], wide)
                for j in range(count):
                    table.winograd_input(
                        r.tiles, lines + j * 6 * job.line * es, job.line,
                        v + ((t0 * q.channels + c + j) * job.pitch + tile - first) * es,
                        job.v_place, own)
                c += count
        tile += r.tiles
    count = last - first
    wide = round_up(count, table.nr) - count
    if wide > 0:
        for f in range(PLACES):
            for k in range(job.depth):
                memset(v + (f * job.v_place + k * job.pitch + count) * es, 0, wide * es)


cdef void multiply(
    const winograd_job* job, Py_ssize_t g, Py_ssize_t m, Py_ssize_t rows, Py_ssize_t tiles,
    const char* v, char* result
) noexcept nogil:
    """M of rows m .. m+rows-1 (m counts from `job.row`, in whole blocks of mr)."""
    cdef const leaf_table* table = job.leaf
    cdef Py_ssize_t es = table.esize, mr = table.mr, nr = table.nr, kc = depth_block(job.depth)
    cdef Py_ssize_t f, k, depth, panel, i, blocks = ceil_div(job.rows, mr)
    cdef const char* a
    for f in range(PLACES):
        a = job.u + ((g * PLACES + f) * blocks + m // mr) * job.depth * mr * es
        k = 0
        while k < job.depth:
            depth = min(kc, job.depth - k)
            for panel in range(ceil_div(tiles, nr)):
                i = 0
                while i < rows:
                    table.gemm(
                        min(mr, rows - i), nr, depth, a + (i * job.depth + k * mr) * es, 1, mr,
                        v + (f * job.v_place + k * job.pitch + panel * nr) * es, job.pitch,
                        result + (f * job.m_place + i * job.capacity + panel * nr) * es,
                        job.capacity, 1, NULL, k > 0)
                    i += mr
            k += depth


cdef void transform_outputs(
    const winograd_job* job, Py_ssize_t n, Py_ssize_t channel, Py_ssize_t rows, Py_ssize_t first,
    Py_ssize_t last, const char* result, char* y
) noexcept nogil:
    """Outputs of `rows` channels, from M."""
    cdef const grid* q = job.q
    cdef const leaf_table* table = job.leaf
    cdef const tensor* out = job.out
    cdef Py_ssize_t es = table.esize, i, tile, width = 4 * job.capacity
    cdef double zero = 0        # in either type
    cdef const char* bias = <const char*>&zero
    cdef char* dst
    cdef tile_run r
    for i in range(rows):
        if job.bias != NULL:
            bias = job.bias + (channel + i) * es
        table.winograd_output(
            last - first, result + i * job.capacity * es, job.m_place, bias, y, width)
        tile = first
        while tile < last:
            find_run(job, tile, last, &r)
            if r.rows > 0 and r.columns > 0:
                dst = (out.data + n * out.stride[0] + (channel + i) * out.stride[1]
                       + r.o[0] * out.stride[2] + r.o[1] * out.stride[3] + r.o[2] * out.stride[4])
                table.store[out.storage](
                    dst, q.dilation[1] * out.stride[3], q.dilation[2] * out.stride[4],
                    y + 4 * (tile - first) * es, width, r.rows, r.columns)
            tile += r.tiles


cdef void winograd_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are the cells of a grid: blocks of tiles by `row_splits` ranges of rows."""
    cdef const winograd_job* job = <const winograd_job*>ctx
    cdef Py_ssize_t mr = job.leaf.mr, nr = job.leaf.nr, row_blocks = ceil_div(job.rows, mr)
    cdef Py_ssize_t task, block, split, plane, n, g, lo, hi, m, end, rows
    cdef char* v = scratch
    cdef char* result = v + job.v_bytes
    cdef char* lines = result + job.m_bytes
    cdef char* y = lines + job.line_bytes
    cdef char* own = y + job.y_bytes
    for task in range(first, last):
        split = task % job.row_splits
        plane = task // job.row_splits // job.blocks
        block = task // job.row_splits % job.blocks
        n, g = plane // job.groups, plane % job.groups
        lo = job.panels * block // job.blocks * nr
        hi = min(job.tiles, job.panels * (block + 1) // job.blocks * nr)
        m = row_blocks * split // job.row_splits * mr
        end = min(job.rows, row_blocks * (split + 1) // job.row_splits * mr)
        transform_inputs(job, n, g, lo, hi, v, lines, own)
        while m < end:
            rows = min(job.row_block, end - m)
            multiply(job, g, m, rows, hi - lo, v, result)
            transform_outputs(
                job, n, g * job.all_rows + job.row + m, rows, lo, hi, result, y)
            m += rows


cdef void weight_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """U of row block `task`."""
    cdef const weight_job* job = <const weight_job*>ctx
    cdef const leaf_table* table = job.leaf
    cdef const tensor* w = job.weight
    cdef Py_ssize_t es = table.esize, mr = table.mr, blocks = ceil_div(job.rows, mr)
    cdef Py_ssize_t depth = w.shape[2] * w.shape[3], fs = blocks * depth * mr
    cdef Py_ssize_t task, block, t0, t1, c, f, j, count, rows
    cdef char* taps = scratch
    cdef char* transformed = scratch + 9 * TAP_LINE * es
    cdef const char* src
    cdef char* dst
    for task in range(first, last):
        block = task % blocks
        rows = min(mr, job.rows - block * mr)
        dst = job.u + (task // blocks * PLACES * fs + block * depth * mr) * es
        for t0 in range(w.shape[3]):
            src = (w.data + task // blocks * w.stride[0]
                   + (job.row + block * mr) * w.stride[1] + t0 * w.stride[3])
            c = 0
            while c < w.shape[2]:
                # The 36 places in U are far apart: several depths at a time go to each.
                count = min(<Py_ssize_t>DEPTHS, w.shape[2] - c)
                for j in range(count):
                    for t1 in range(3):
                        table.load[w.storage](
                            taps + 3 * t1 * TAP_LINE * es, TAP_LINE, src + t1 * w.stride[4],
                            w.stride[5], w.stride[1], 3, rows)
                    table.winograd_weights(
                        rows, taps, TAP_LINE, transformed + j * mr * es, DEPTHS * mr)
                    src += w.stride[2]
                for f in range(PLACES):
                    memcpy(dst + f * fs * es, transformed + f * DEPTHS * mr * es, count * mr * es)
                dst += count * mr * es
                c += count


cdef Py_ssize_t weight_bytes(
    const tensor* w, Py_ssize_t rows, const leaf_table* table
) noexcept nogil:
    """Size of U for `rows` rows of every group."""
    return (w.shape[0] * PLACES * round_up(rows, table.mr) * w.shape[2] * w.shape[3]) * table.esize


cdef int transform_weights(
    const tensor* w, Py_ssize_t row, Py_ssize_t rows, const leaf_table* table, int threads, char* u
) except -1:
    """U of rows row .. row+rows-1 of every group."""
    cdef weight_job job
    job.leaf, job.weight, job.u, job.row, job.rows = table, w, u, row, rows
    run(weight_task, &job, w.shape[0] * ceil_div(rows, table.mr),
        useful_threads(threads, 200.0 * w.shape[0] * rows * w.shape[2] * w.shape[3]),
        (9 * TAP_LINE + PLACES * DEPTHS * table.mr) * table.esize)
    return 0


cdef class TransformedWeights:
    """U of all weights; made by a plan, used by every call of it."""

    cdef Workspace store
    cdef const leaf_table* leaf

    @property
    def nbytes(self):
        return self.store.nbytes


def pack_weights(weight, int compute, int threads):
    """Weights (G, M, C, T0, 3, 3) transformed, in the order the micro-kernel reads them."""
    cdef TransformedWeights result = TransformedWeights()
    cdef tensor w
    describe(weight, 6, compute, &w)
    result.leaf = leaf(compute)
    result.store = Workspace(weight_bytes(&w, w.shape[1], result.leaf))
    transform_weights(&w, 0, w.shape[1], result.leaf, threads, result.store.data)
    return result


cdef Py_ssize_t odd_lines(Py_ssize_t elements, Py_ssize_t es) noexcept nogil:
    """Rounded up to an odd number of cache lines, so that equal places share no cache sets."""
    return (ceil_div(elements * es, 64) | 1) * 64 // es


cdef size_t scratch_of(winograd_job* job) noexcept nogil:
    cdef Py_ssize_t es = job.leaf.esize, most = min(job.capacity, job.across[1])
    job.pitch = odd_lines(job.capacity + job.leaf.nr, es)
    job.v_place = odd_lines(job.depth * job.pitch, es)
    job.m_place = odd_lines(job.row_block * job.capacity, es)
    job.line = 4 * most + SLACK
    job.v_bytes = aligned(PLACES * job.v_place * es)
    job.m_bytes = aligned((PLACES * job.m_place + SLACK) * es)
    job.line_bytes = aligned((CHANNELS * 6 * job.line + SLACK) * es)
    job.y_bytes = aligned(4 * 4 * job.capacity * es)
    job.own_bytes = aligned(32 * (most + 32) * es)
    return job.v_bytes + job.m_bytes + job.line_bytes + job.y_bytes + job.own_bytes


cdef size_t fit_blocks(winograd_job* job, int* threads, Py_ssize_t budget) noexcept nogil:
    """Choose block sizes within the cache and the workspace; returns bytes of scratch a thread."""
    cdef Py_ssize_t nr = job.leaf.nr, mr = job.leaf.mr, each, most
    cdef size_t scratch
    job.row_block = min(round_up(job.rows, mr), ROW_BLOCK // mr * mr)
    each = PLACES * (job.depth + job.row_block) * job.leaf.esize * nr
    most = max(<Py_ssize_t>1, min(CACHE_BYTES // each, MOST_TILES // nr))
    job.blocks = ceil_div(job.panels, most)
    job.capacity = ceil_div(job.panels, job.blocks) * nr
    scratch = scratch_of(job)
    while <Py_ssize_t>(scratch + 128) * threads[0] > budget:
        if job.blocks < job.panels:
            job.blocks = min(job.panels, 2 * job.blocks)
            job.capacity = ceil_div(job.panels, job.blocks) * nr
        elif job.row_block > mr:
            job.row_block = round_up(job.row_block // 2, mr)
        elif threads[0] > 1:
            threads[0] -= 1
        else:
            break
        scratch = scratch_of(job)
    return scratch


cdef void split_threads(winograd_job* job, Py_ssize_t samples, int threads) noexcept nogil:
    """Enough blocks for the threads; where there are too few tiles, ranges of rows as well."""
    cdef Py_ssize_t planes = samples * job.groups
    if planes * job.blocks < threads:
        job.blocks = min(job.panels, ceil_div(threads, planes))
    job.row_splits = min(
        ceil_div(job.rows, job.leaf.mr), max(<Py_ssize_t>1, threads // (planes * job.blocks)))


def correlate(
    str operator, x, weight, bias, out, stride, dilation, offset, str mode, int compute,
    int threads, Py_ssize_t budget, TransformedWeights packed=None, bint measure=False
):
    """Forward, into `out` (N, G*M, O0, O1, O2), none of them empty.  Returns bytes of workspace.

    x: (N, G*C, S0, S1, S2); weight: (G, M, C, T0, 3, 3), any strides; bias: (G*M,) or None; the
    last two strides are 1.  `packed` holds the same weights transformed and takes their place.
    """
    cdef grid q
    cdef tensor w, result
    cdef winograd_job job
    cdef Workspace held_bias = None, held_weights = None
    cdef const leaf_table* table = leaf(compute) if packed is None else packed.leaf
    cdef Py_ssize_t fixed = 0, shortfall, each, axis, planes
    cdef size_t scratch
    describe(weight, 6, compute, &w)
    describe(out, 5, compute, &result)
    fill_grid(
        x, w.shape[0], &w.shape[3], &result.shape[2], stride, dilation, offset, mode, compute, &q)
    q.leaf = table
    job.leaf, job.q, job.out, job.bias = table, &q, &result, NULL
    job.groups, job.all_rows, job.depth = w.shape[0], w.shape[1], w.shape[2] * w.shape[3]
    for axis in range(2):
        job.classes[axis] = min(q.dilation[1 + axis], q.out[1 + axis])
        job.across[axis] = ceil_div(ceil_div(q.out[1 + axis], q.dilation[1 + axis]), 4)
    job.tiles = q.out[0] * job.classes[0] * job.classes[1] * job.across[0] * job.across[1]
    job.panels = ceil_div(job.tiles, table.nr)
    planes = result.shape[0] * job.groups
    threads = useful_threads(
        threads, 2.0 * PLACES * planes * job.panels * table.nr * job.all_rows * job.depth)
    if bias is not None:
        fixed = job.groups * job.all_rows * table.esize + 64
    job.row, job.rows = 0, job.all_rows
    if packed is None:
        # as many rows at a time as a quarter of the workspace has room for
        each = weight_bytes(&w, table.mr, table)
        job.rows = min(job.all_rows, max(<Py_ssize_t>1, budget // 4 // each) * table.mr)
        fixed += weight_bytes(&w, job.rows, table) + 64
    scratch = fit_blocks(&job, &threads, budget - fixed)
    split_threads(&job, result.shape[0], threads)
    threads = <int>min(<Py_ssize_t>threads, planes * job.blocks * job.row_splits)
    shortfall = fixed + threads * <Py_ssize_t>(aligned(scratch) + 128) - budget
    if shortfall > 0:
        raise checks.WorkspaceError(operator, budget + shortfall, budget)
    if measure:
        return budget + shortfall
    if bias is not None:
        held_bias = load_bias(bias, table, compute)
        job.bias = held_bias.data
    if packed is None:
        held_weights = Workspace(weight_bytes(&w, job.rows, table))
        job.u = held_weights.data
    else:
        job.u = packed.store.data
    while job.row < job.all_rows:
        job.rows = min(job.rows, job.all_rows - job.row)
        if packed is None:
            transform_weights(&w, job.row, job.rows, table, threads, held_weights.data)
        run(winograd_task, &job, planes * job.blocks * job.row_splits, threads, scratch)
        job.row += job.rows
    return budget + shortfall
