"""The gradient of the weights of small groups by Winograd's algorithm, channels as vectors.

The adjoint of _winograd_lanes.pyx in its weights: with At, Bt and G of leaf.inc.c, a kernel's
gradient is, by elements of the transformed tiles (*),

    dw[m, k] = G0t [ sum over tiles of (A0 g[m] A1t) * (Bt0 x[k] B1) ] G1

where g is a tile of the result's gradient, zeros beyond its end.  The sums are products of a
matrix with tiles for depths, one for each place of a tile, through the kernel with rows in lanes::

    for each block of groups
        for each block of strips, of all samples
            V[f][tile][channel] = Bt0 x B1
            for each group g of the block, panel of its rows
                H[f][tile][row] = A0 g A1t
                S[g][f][panel][channel][row] += sum over tiles of
                                                H[f][tile][row] * V[f][tile][channel]
        dw = G0t S G1

A task has all tiles of its groups, in blocks that follow from the shapes alone: sums have the same
order whatever the threads and the workspace are.  Strides are 1, see `algorithms.winograd_grad`.
"""

from libc.string cimport memset

from pyconv import checks
from pyconv._kernels._cpu cimport LEAF_LANE_BYTES, leaf_of_lanes, leaf_table
from pyconv._kernels._gemm cimport lane_panels, lanes_from
from pyconv._kernels._grid cimport fill_grid, grid
from pyconv._kernels._integers cimport ceil_div, gcd, odd_lines, round_up
from pyconv._kernels._parallel cimport aligned, run, useful_threads
from pyconv._kernels._tensor cimport PAD_ZEROS, describe, tensor
from pyconv._kernels._winograd_lanes cimport (
    MOST_INPUTS,
    NEAR_BYTES,
    SLACK,
    describe_tiles,
    find_strips,
    lanes_job,
    line_of,
    load_lines,
    needed,
    strip,
    strip_tiles,
    transform_strips,
)
from pyconv._kernels._winograd_weights cimport find_axes, held_rows

cdef enum:
    MOST_TILES = 128            # of a block: summed before they are added to those before
    FAR_BYTES = 768 * 1024      # V and H of a block where S is not in L2, and seldom read therefore


cdef struct grad_job:
    lanes_job x                 # the inputs,
    lanes_job dy                # ... and the result's gradient, in tiles without an overlap
    tensor out                  # (G, M, C, 1, r0, r1)
    Py_ssize_t most             # rows of a panel
    Py_ssize_t row_splits       # of a block of groups: a task has s_rows rows of a group at most
    Py_ssize_t s_rows
    Py_ssize_t h_place, s_place     # from one place to the next
    size_t h_bytes, s_bytes, part_bytes, w_bytes, index_bytes


cdef void lift_strip(
    const grad_job* job, const strip* s, Py_ssize_t lanes, char* lines, char* columns, char* h
) noexcept nogil:
    """H of a strip, whose lines of the gradient are [line][pixel][`chunk` rows]."""
    cdef const lanes_job* dy = &job.dy
    cdef Py_ssize_t es = dy.leaf.esize, i, t
    cdef const void* row[MOST_INPUTS]
    for i in range(dy.n[0]):
        row[i] = line_of(dy, s, lines, i)
    dy.axis[0].lift_rows(s.tiles * dy.m[1] * dy.chunk, row, columns, dy.line)
    for t in range(s.tiles):
        dy.axis[1].lift_columns(
            lanes, job.x.n[0], columns + t * dy.m[1] * dy.chunk * es, dy.line, dy.chunk,
            h + t * lanes * es, job.h_place)


cdef void store_gradient(
    const grad_job* job, Py_ssize_t g, Py_ssize_t m, Py_ssize_t lanes, const char* s, char* part,
    char* w
) noexcept nogil:
    """dw of a panel's rows, m .. of group g, from S."""
    cdef const tensor* out = &job.out
    cdef const lanes_job* x = &job.x
    cdef Py_ssize_t es = x.leaf.esize, r0 = x.axis[0].taps, r1 = x.axis[1].taps, i, c
    cdef Py_ssize_t channels = x.q.channels, count = channels * lanes, together = r1, at = 0
    # taps and channels that are evenly spaced in the result
    if out.stride[4] == r1 * out.stride[5]:
        together *= r0
        if out.stride[2] == together * out.stride[5]:
            together *= channels
    x.axis[0].fold(count, x.n[1], s, job.s_place, part, count)
    for c in range(channels):
        for i in range(r0):
            x.axis[1].fold(
                lanes, 1, part + (i * x.n[1] * count + c * lanes) * es, count,
                w + (c * r0 + i) * r1 * lanes * es, lanes)
    while at < channels * r0 * r1:
        c, i = at // (r0 * r1), at % (r0 * r1) // r1
        x.leaf.store[out.storage](
            out.data + g * out.stride[0] + m * out.stride[1] + c * out.stride[2]
            + i * out.stride[4], out.stride[5], out.stride[1], w + at * lanes * es, lanes,
            together, min(lanes, x.rows - m))
        at += together


cdef void grad_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are blocks of groups, or, of one block, of panels of its rows."""
    cdef const grad_job* job = <const grad_job*>ctx
    cdef const lanes_job* x = &job.x
    cdef const leaf_table* table = x.leaf
    cdef Py_ssize_t es = table.esize, channels = x.q.channels, task, g, start, end, low, count
    cdef Py_ssize_t m, m_lo, m_hi, lanes, tiles, i, f, done, part
    cdef Py_ssize_t panels = lane_panels(x.rows, table)
    cdef char* columns = scratch + x.line_bytes
    cdef char* v = columns + x.column_bytes
    cdef char* h = v + x.v_bytes
    cdef char* s = h + job.h_bytes
    cdef char* folded = s + job.s_bytes
    cdef char* w = folded + job.part_bytes
    cdef Py_ssize_t* depth = <Py_ssize_t*>(w + job.w_bytes)
    cdef Py_ssize_t* pixel = depth + x.capacity
    cdef strip* strips = <strip*>(<char*>depth + job.index_bytes)
    cdef char* of_group
    memset(scratch, 0, x.line_bytes)        # lanes without a channel
    for i in range(x.capacity):
        depth[i] = i * x.lanes
    for i in range(channels):
        pixel[i] = i
    for task in range(first, last):
        start = task // job.row_splits * x.together
        end = min(start + x.together, x.groups)
        part = task % job.row_splits
        m_lo = panels * part // job.row_splits * table.nr
        m_hi = panels * (part + 1) // job.row_splits * table.nr
        if part == job.row_splits - 1:
            m_hi = x.rows
        low = 0
        while low < x.strips:
            count = min(x.block, x.strips - low)
            find_strips(x, low, low + count, strips)
            tiles = transform_strips(
                x, strips, count, start * channels, (end - start) * channels, scratch, columns, v)
            # a strip of the gradient has no line of the one above
            for i in range(count):
                strips[i].slot = 0
            for g in range(start, end):
                of_group = s + (g - start) * x.places * job.s_place * es
                m = m_lo
                while m < m_hi:
                    lanes = lanes_from(x.held - m, table)
                    done = 0
                    for i in range(count):
                        load_lines(
                            &job.dy, &strips[i], g * x.rows + m, min(lanes, x.rows - m), 0,
                            scratch)
                        lift_strip(job, &strips[i], lanes, scratch, columns, h + done * lanes * es)
                        done += strips[i].tiles
                    for f in range(x.places):
                        table.gemm_lanes(
                            lanes, channels, tiles, 1, h + f * job.h_place * es,
                            v + (f * x.v_place + (g - start) * channels) * es, depth, pixel,
                            of_group + (f * job.s_place + (m - m_lo) * channels) * es, NULL,
                            low > 0, NULL)
                    m += lanes
            low += count
        for g in range(start, end):
            m = m_lo
            while m < m_hi:
                lanes = lanes_from(x.held - m, table)
                store_gradient(
                    job, g, m, lanes,
                    s + ((g - start) * x.places * job.s_place + (m - m_lo) * channels) * es,
                    folded, w)
                m += lanes


cdef size_t scratch_of(grad_job* job) noexcept nogil:
    """Sizes that follow from those of blocks; returns bytes of scratch a thread."""
    cdef lanes_job* x = &job.x
    cdef lanes_job* dy = &job.dy
    cdef Py_ssize_t es = x.leaf.esize, channels = x.q.channels
    cdef Py_ssize_t panels = ceil_div(lane_panels(x.rows, x.leaf), job.row_splits)
    job.s_rows = min(x.held, panels * x.leaf.nr + x.leaf.nr // 2)
    x.lanes = round_up(x.together * channels, x.leaf.vl)
    x.chunk = min(x.lanes, LEAF_LANE_BYTES // es)
    x.line = ((x.width - 1) * x.step[1] + x.n[1]) * x.chunk
    dy.chunk = job.most
    dy.line = x.width * dy.m[1] * dy.chunk
    x.v_place = odd_lines(x.capacity * x.lanes, es)
    job.h_place = odd_lines(x.capacity * job.most, es)
    job.s_place = odd_lines(job.s_rows * channels, es)
    x.line_bytes = aligned((max(x.n[0] * x.line, dy.n[0] * dy.line) + SLACK) * es)
    x.column_bytes = aligned((x.n[0] * max(x.line, dy.line) + SLACK) * es)
    x.v_bytes = aligned((x.places * x.v_place + SLACK) * es)
    job.h_bytes = aligned((x.places * job.h_place + SLACK) * es)
    job.s_bytes = aligned((x.together * x.places * job.s_place + SLACK) * es)
    job.part_bytes = aligned((x.axis[0].taps * x.n[1] * channels * job.most + SLACK) * es)
    job.w_bytes = aligned((x.axis[0].taps * x.axis[1].taps * channels * job.most + SLACK) * es)
    job.index_bytes = aligned((x.capacity + channels) * sizeof(Py_ssize_t))
    return (x.line_bytes + x.column_bytes + x.v_bytes + job.h_bytes + job.s_bytes
            + job.part_bytes + job.w_bytes + job.index_bytes + aligned(x.block * sizeof(strip)))


def weight_gradient(
    outputs, str operator, x, grad, out, stride, dilation, offset, str mode, int compute,
    int threads, Py_ssize_t budget, bint measure=False
):
    """Gradient of the weights into `out` (G, M, C, 1, r0, r1).  Returns bytes of workspace.

    x: (N, G*C, S0, S1, S2); grad: (N, G*M, O0, O1, O2), the gradient of `correlate`'s result; none
    of them empty.  `outputs` as in `_winograd_lanes.correlate`.
    """
    cdef grid q, own
    cdef tensor dy
    cdef grad_job job
    cdef const leaf_table* table = leaf_of_lanes(compute, out.shape[1])
    cdef Py_ssize_t tiles, each, panels, shortfall, axis, vl = table.vl
    cdef size_t scratch
    describe(out, 6, compute, &job.out)
    describe(grad, 5, compute, &dy)
    fill_grid(
        x, job.out.shape[0], &job.out.shape[3], &dy.shape[2], stride, dilation, offset, mode,
        compute, &q)
    q.leaf = table
    own = q             # the result's gradient as an image that is read where it is
    own.x, own.mode = dy, PAD_ZEROS
    for axis in range(3):
        own.stride[axis], own.offset[axis] = 1, 0
    job.x.leaf, job.x.q, job.x.groups = table, &q, job.out.shape[0]
    job.x.rows, job.x.held = job.out.shape[1], held_rows(job.out.shape[1], table, True)
    find_axes(table, &job.out, stride, outputs, job.x.axis)
    describe_tiles(&job.x)
    job.dy = job.x
    job.dy.q = &own
    for axis in range(2):
        job.dy.n[axis] = job.dy.step[axis] = job.dy.m[axis]
    job.most = min(job.x.held, 3 * table.nr // 2)
    # blocks of shapes alone
    job.x.parts = ceil_div(job.x.across[1], strip_tiles(&job.x))
    job.x.width = ceil_div(job.x.across[1], job.x.parts)
    each = job.x.places * job.x.held * q.channels * table.esize
    tiles = min(<Py_ssize_t>FAR_BYTES, max(<Py_ssize_t>NEAR_BYTES, each)) // (
        job.x.places * (round_up(q.channels, vl) + job.most) * table.esize)
    tiles = min(tiles, <Py_ssize_t>MOST_TILES)
    job.x.strips = dy.shape[0] * q.out[0] * job.x.across[0] * job.x.parts
    job.x.block = min(job.x.strips, max(<Py_ssize_t>1, tiles // job.x.width))
    job.x.capacity = job.x.block * job.x.width
    job.x.together = min(job.x.groups, vl // gcd(q.channels, vl))
    threads = useful_threads(
        threads, 2.0 * job.x.places * job.x.groups * job.x.held * q.channels * job.x.strips
        * job.x.width)
    panels = lane_panels(job.x.rows, table)
    job.row_splits = 1
    if ceil_div(job.x.groups, job.x.together) < threads:
        job.row_splits = min(<Py_ssize_t>threads, panels)
    scratch = scratch_of(&job)
    while needed(scratch, threads) > budget:
        if threads > 1:
            threads -= 1
        elif job.row_splits < panels:   # their inputs are transformed again
            job.row_splits = min(panels, 2 * job.row_splits)
        elif job.x.together > 1:
            job.x.together = ceil_div(job.x.together, 2)
        else:
            break
        scratch = scratch_of(&job)
    shortfall = needed(scratch, threads) - budget
    if shortfall > 0:
        raise checks.WorkspaceError(operator, budget + shortfall, budget)
    if not measure:
        run(grad_task, &job, ceil_div(job.x.groups, job.x.together) * job.row_splits,
            threads, scratch)
    return budget + shortfall
