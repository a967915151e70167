"""Winograd's algorithm for groups of few channels: vectors run along the channels.

The same products as in _winograd.pyx, for which vectors there run along the tiles::

    out tile = At0 [ sum over k of (G0 w[m, k] G1t) * (Bt0 x[k] B1) ] A1     (* by elements)

With few channels most of the time goes into the transforms, and of small images a line is no whole
vector of tiles.  Here a pixel's channels are brought next to each other, those of several groups if
one has too few to be a vector; both transforms then go lane by lane, whatever the width of an image
and of its padding, and the products have inputs broadcast and rows of weights as lanes.

    for each block of groups, and of strips: some tiles of a line of results, of all samples
        for each strip
            lines = n0 lines of the input, [line][pixel][channel], with the padding
            V[f][tile][channel] = Bt0 lines B1
        for each group g of the block, place f of a tile
            M[f][panel][tile][row] = sum over k of U[g][f][panel][k][row] * V[f][tile][k of g]
        for each panel of rows of g, and strip
            out = At0 M A1 + bias, turned round as it is stored

A thread has V and M of a block in L2.  Each sum goes over the depths in order, so that results do
not depend on how strips and groups are put together.  There are no taps along the first axis, and
no dilation: see `algorithms.winograd_takes_lanes`.
"""

from libc.string cimport memcpy, memset

from pyconv import checks
from pyconv._kernels._cpu cimport LEAF_LANE_BYTES, leaf_of_lanes, leaf_table
from pyconv._kernels._gemm cimport depth_block, lanes_from, load_bias
from pyconv._kernels._grid cimport fill_grid, grid, inside
from pyconv._kernels._integers cimport ceil_div, gcd, odd_lines, round_up
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport PAD_ZEROS, describe, source_index, tensor
from pyconv._kernels._winograd_weights cimport (
    DEPTH_BLOCK,
    TransformedWeights,
    distinct_places,
    find_axes,
    held_rows,
    transform_weights,
    weight_bytes,
    weight_place,
    weights_of,
)

cdef enum:
    FEW_BLOCKS = 4              # for each thread: they are to have equal numbers
    FAR_BYTES = 3 << 20         # of images: more is read from beyond L2, and written there;
    PAGE_BYTES = 4096           # ... of one with larger planes the hardware sees what comes


cdef void describe_tiles(lanes_job* job) noexcept nogil:
    """What follows from the axes and the grid."""
    cdef int axis
    for axis in range(2):
        job.m[axis], job.n[axis] = job.axis[axis].outputs, job.axis[axis].inputs
        job.step[axis] = job.m[axis] * job.q.stride[1 + axis]
        job.across[axis] = ceil_div(job.q.out[1 + axis], job.m[axis])
    job.places = job.n[0] * job.n[1]


cdef Py_ssize_t strip_tiles(const lanes_job* job) noexcept nogil:
    """Tiles of a strip whose lines stay in L1: of shapes alone."""
    cdef Py_ssize_t chunk = LEAF_LANE_BYTES // job.leaf.esize, tiles
    chunk = min(chunk, round_up(job.q.channels, job.leaf.vl))
    tiles = (LINE_BYTES // (job.n[0] * chunk * job.leaf.esize) - job.n[1]) // job.step[1] + 1
    return max(<Py_ssize_t>1, min(<Py_ssize_t>MOST_TILES, tiles))


cdef void find_strips(
    const lanes_job* job, Py_ssize_t first, Py_ssize_t last, strip* s
) noexcept nogil:
    """Strips first .. last-1 of all: those below each other follow each other."""
    cdef Py_ssize_t index, rest, row, part, tile
    for index in range(first, last):
        row, rest = index % job.across[0], index // job.across[0]
        part, rest = rest % job.parts, rest // job.parts
        tile = job.across[1] * part // job.parts
        s.tiles = job.across[1] * (part + 1) // job.parts - tile
        s.o1, s.o2 = row * job.m[0], tile * job.m[1]
        s.o0, s.n = rest % job.q.out[0], rest // job.q.out[0]
        s.below = index > first and row > 0
        s.slot = row * job.step[0] % job.n[0]
        s += 1


cdef char* line_of(
    const lanes_job* job, const strip* s, char* lines, Py_ssize_t i
) noexcept nogil:
    """Where line i of a strip is: it keeps its place when the next strip below wants it too."""
    cdef Py_ssize_t place = s.slot + i
    return lines + (place if place < job.n[0] else place - job.n[0]) * job.line * job.leaf.esize


cdef void load_lines(
    const lanes_job* job, const strip* s, Py_ssize_t channel, Py_ssize_t count, Py_ssize_t first,
    char* lines
) noexcept nogil:
    """A strip's lines from `first` on as [pixel][channel], `count` channels of them."""
    cdef const grid* q = job.q
    cdef const leaf_table* table = job.leaf
    cdef Py_ssize_t es = table.esize, pixel = job.chunk * es, i, i0, i1, i2, at, lo, hi, j
    cdef Py_ssize_t pixels = (s.tiles - 1) * job.step[1] + job.n[1]
    cdef const char* plane
    cdef const char* src
    cdef char* dst
    i0 = source_index(s.o0 * q.stride[0] + q.offset[0], q.x.shape[2], q.mode)
    i2 = s.o2 * q.stride[2] + q.offset[2]
    inside(i2, 1, pixels, q.x.shape[4], &lo, &hi)
    plane = (q.x.data + s.n * q.x.stride[0] + channel * q.x.stride[1]
             + i0 * q.x.stride[2])
    for i in range(first, job.n[0]):
        dst = line_of(job, s, lines, i)
        i1 = source_index(s.o1 * q.stride[1] + i + q.offset[1], q.x.shape[3], q.mode)
        if i0 < 0 or i1 < 0:
            memset(dst, 0, pixels * pixel)
            continue
        src = plane + i1 * q.x.stride[3]
        if hi > lo:
            table.load[q.x.storage](
                dst + lo * pixel, job.chunk, src + (i2 + lo) * q.x.stride[4], q.x.stride[4],
                q.x.stride[1], hi - lo, count)
        if q.mode == PAD_ZEROS:
            memset(dst, 0, lo * pixel)
            memset(dst + hi * pixel, 0, (pixels - hi) * pixel)
            continue
        for j in range(pixels):
            if lo <= j < hi:
                continue
            at = source_index(i2 + j, q.x.shape[4], q.mode)
            table.load[q.x.storage](
                dst + j * pixel, job.chunk, src + at * q.x.stride[4], q.x.stride[4],
                q.x.stride[1], 1, count)


cdef void transform_inputs(
    const lanes_job* job, const strip* s, char* lines, char* columns, Py_ssize_t lanes, char* v
) noexcept nogil:
    """V of a strip, `lanes` channels of it."""
    cdef Py_ssize_t es = job.leaf.esize, i, t
    cdef const void* row[MOST_INPUTS]
    for i in range(job.n[0]):
        row[i] = line_of(job, s, lines, i)
    job.axis[0].rows(
        ((s.tiles - 1) * job.step[1] + job.n[1]) * job.chunk, row, columns, job.line)
    for t in range(s.tiles):
        job.axis[1].columns(
            lanes, job.n[0], columns + t * job.step[1] * job.chunk * es, job.line, NULL,
            job.chunk, v + t * job.lanes * es, job.v_place)


cdef Py_ssize_t transform_strips(
    const lanes_job* job, const strip* strips, Py_ssize_t count, Py_ssize_t channel,
    Py_ssize_t channels, char* lines, char* columns, char* v
) noexcept nogil:
    """V of a block of strips, `channels` of them; returns how many tiles it has.

    Lines are [slot][pixel][`chunk` channels]; of the strip above there are some already.
    """
    cdef Py_ssize_t shared = max(<Py_ssize_t>0, job.n[0] - job.step[0]), c = 0, some, tiles = 0, i
    while c < channels:
        some = min(job.chunk, channels - c)
        tiles = 0
        for i in range(count):
            load_lines(
                job, &strips[i], channel + c, some, shared if strips[i].below else 0, lines)
            transform_inputs(
                job, &strips[i], lines, columns, round_up(some, job.leaf.vl),
                v + (tiles * job.lanes + c) * job.leaf.esize)
            tiles += strips[i].tiles
        c += job.chunk
    return tiles


# ---- what is asked for ahead: of small images the hardware sees nothing coming -----------------

cdef struct coming:
    const strip* outputs        # written after the products, of a group,
    Py_ssize_t output_count
    const strip* inputs         # ... and read, so many channels of them
    Py_ssize_t input_count, channel, channels


cdef inline char* output_of(
    const lanes_job* job, const strip* s, Py_ssize_t channel
) noexcept nogil:
    """Where the first output of a strip's channel is."""
    cdef const tensor* out = job.out
    return (out.data + s.n * out.stride[0] + channel * out.stride[1] + s.o0 * out.stride[2]
            + s.o1 * out.stride[3] + s.o2 * out.stride[4])


cdef void ask_for_outputs(
    const lanes_job* job, const strip* s, Py_ssize_t channel, Py_ssize_t rows
) noexcept nogil:
    """Where `rows` channels of a strip's outputs go."""
    cdef const tensor* out = job.out
    cdef const grid* q = job.q
    cdef Py_ssize_t lines = min(job.m[0], q.out[1] - s.o1), i
    cdef Py_ssize_t bytes = (
        (lines - 1) * out.stride[3] + min(s.tiles * job.m[1], q.out[2] - s.o2) * out.stride[4])
    for i in range(rows):
        job.leaf.fetch(output_of(job, s, channel + i), bytes, True)


cdef void ask_for_inputs(
    const lanes_job* job, const strip* s, Py_ssize_t channel, Py_ssize_t channels
) noexcept nogil:
    """The lines of a strip that the one above it does not have."""
    cdef const grid* q = job.q
    cdef Py_ssize_t i0 = s.o0 * q.stride[0] + q.offset[0], first, last, left, right, i
    cdef Py_ssize_t i1 = s.o1 * q.stride[1] + q.offset[1], i2 = s.o2 * q.stride[2] + q.offset[2]
    cdef const char* at
    inside(i1, 1, job.n[0], q.x.shape[3], &first, &last)
    inside(i2, 1, (s.tiles - 1) * job.step[1] + job.n[1], q.x.shape[4], &left, &right)
    if s.below:
        first = max(first, job.n[0] - job.step[0])
    if not 0 <= i0 < q.x.shape[2] or first >= last or left >= right:
        return
    at = (q.x.data + s.n * q.x.stride[0] + channel * q.x.stride[1] + i0 * q.x.stride[2]
          + (i1 + first) * q.x.stride[3] + (i2 + left) * q.x.stride[4])
    for i in range(channels):
        job.leaf.fetch(
            at + i * q.x.stride[1],
            (last - first - 1) * q.x.stride[3] + (right - left) * q.x.stride[4], False)


cdef void ask_for(
    const lanes_job* job, const coming* soon, Py_ssize_t channel, Py_ssize_t f
) noexcept nogil:
    """The part that is to be asked for at place f, of results from a channel on."""
    cdef Py_ssize_t i
    for i in range(soon.output_count * f // job.places, soon.output_count * (f + 1) // job.places):
        ask_for_outputs(job, &soon.outputs[i], channel, job.rows)
    for i in range(soon.input_count * f // job.places, soon.input_count * (f + 1) // job.places):
        ask_for_inputs(job, &soon.inputs[i], soon.channel, soon.channels)


cdef void multiply(
    const lanes_job* job, Py_ssize_t g, Py_ssize_t index, Py_ssize_t tiles, const char* v,
    char* result, const coming* soon
) noexcept nogil:
    """M of group g, whose inputs are V's channels from number `index` * C."""
    cdef const leaf_table* table = job.leaf
    cdef Py_ssize_t es = table.esize, channels = job.q.channels
    cdef Py_ssize_t kc = depth_block(channels, DEPTH_BLOCK), f, k, some, m, lanes
    cdef const char* u
    for f in range(job.places):
        if job.far:
            ask_for(job, soon, g * job.rows, f)
        u = job.u + ((g - job.group) * distinct_places(job.axis)
                     + weights_of(job.axis, f)) * job.u_place * es
        k = 0
        while k < channels:
            some = min(kc, channels - k)
            m = 0
            while m < job.held:
                lanes = lanes_from(job.held - m, table)
                table.gemm_even(
                    lanes, tiles, some, u + (k * job.held + m * some) * es,
                    v + (f * job.v_place + index * channels + k) * es, job.lanes,
                    result + (f * job.m_place + m * job.capacity) * es, k > 0)
                m += lanes
            k += some


cdef void transform_outputs(
    const lanes_job* job, const strip* s, Py_ssize_t channel, Py_ssize_t rows, Py_ssize_t lanes,
    const char* result, const char* bias, char* partial, char* y
) noexcept nogil:
    """Outputs of a strip, `rows` channels of them, from M; `result` is the first tile's."""
    cdef const tensor* out = job.out
    cdef const grid* q = job.q
    cdef Py_ssize_t es = job.leaf.esize, count = s.tiles * lanes, t, r
    cdef Py_ssize_t pitch = count * job.m[1]
    job.axis[0].down(count, job.n[1], result, job.m_place, partial, count)
    for t in range(s.tiles):
        job.axis[1].along(
            lanes, job.m[0], partial + t * lanes * es, count, bias, True,
            y + t * job.m[1] * lanes * es, pitch, lanes)
    for r in range(min(job.m[0], q.out[1] - s.o1)):
        job.leaf.store[out.storage](
            output_of(job, s, channel) + r * out.stride[3], out.stride[4], out.stride[1],
            y + r * pitch * es, lanes, min(s.tiles * job.m[1], q.out[2] - s.o2), rows)


cdef Py_ssize_t find_block(
    const lanes_job* job, Py_ssize_t task, Py_ssize_t* start, Py_ssize_t* end, strip* strips
) noexcept nogil:
    """The groups and strips of a task; returns how many of the latter there are."""
    cdef Py_ssize_t blocks = ceil_div(job.strips, job.block), low = task % blocks * job.block
    cdef Py_ssize_t count = min(job.block, job.strips - low)
    start[0] = job.group + task // blocks * job.together
    end[0] = min(start[0] + job.together, job.group + job.groups)
    find_strips(job, low, low + count, strips)
    return count


cdef void lanes_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are blocks of strips, for each block of groups."""
    cdef const lanes_job* job = <const lanes_job*>ctx
    cdef const leaf_table* table = job.leaf
    cdef Py_ssize_t es = table.esize, task, g, start, end, i, count, m, lanes, rows, tiles
    cdef char* columns = scratch + job.line_bytes
    cdef char* partial = columns + job.column_bytes
    cdef char* y = partial + job.partial_bytes
    cdef char* v = y + job.y_bytes
    cdef char* result = v + job.v_bytes
    cdef char* bias = result + job.m_bytes
    cdef strip* strips = <strip*>(bias + job.bias_bytes)
    cdef strip* next = strips + job.block
    cdef coming soon
    memset(scratch, 0, job.line_bytes)      # lanes without a channel
    memset(bias, 0, job.bias_bytes)
    for task in range(first, last):
        count = find_block(job, task, &start, &end, strips)
        if job.far:
            soon.outputs, soon.output_count, soon.inputs, soon.input_count = strips, count, next, 0
            if task + 1 < last:
                soon.input_count = find_block(job, task + 1, &g, &i, next)
                soon.channel, soon.channels = g * job.q.channels, (i - g) * job.q.channels
        tiles = transform_strips(
            job, strips, count, start * job.q.channels, (end - start) * job.q.channels, scratch,
            columns, v)
        for g in range(start, end):
            multiply(job, g, g - start, tiles, v, result, &soon)
            soon.input_count = 0
            m = 0
            while m < job.rows:
                lanes = lanes_from(job.held - m, table)
                rows = min(lanes, job.rows - m)
                if job.bias != NULL:
                    memcpy(bias, job.bias + (g * job.rows + m) * es, rows * es)
                tiles = 0
                for i in range(count):
                    transform_outputs(
                        job, &strips[i], g * job.rows + m, rows, lanes,
                        result + (m * job.capacity + tiles * lanes) * es, bias, partial, y)
                    tiles += strips[i].tiles
                m += lanes


# ---- the whole --------------------------------------------------------------------------------

cdef size_t scratch_of(lanes_job* job) noexcept nogil:
    """Sizes that follow from those of strips and blocks; returns bytes of scratch a thread."""
    cdef Py_ssize_t es = job.leaf.esize, most = min(job.held, 3 * job.leaf.nr // 2)
    job.lanes = round_up(job.together * job.q.channels, job.leaf.vl)
    job.chunk = min(job.lanes, LEAF_LANE_BYTES // es)
    job.width = ceil_div(job.across[1], job.parts)
    job.capacity = job.block * job.width
    job.line = ((job.width - 1) * job.step[1] + job.n[1]) * job.chunk
    job.v_place = odd_lines(job.capacity * job.lanes, es)
    job.m_place = odd_lines(job.capacity * job.held, es)
    job.line_bytes = aligned((job.n[0] * job.line + SLACK) * es)
    job.column_bytes = aligned((job.n[0] * job.line + SLACK) * es)
    job.partial_bytes = aligned((job.m[0] * job.n[1] * job.width * most + SLACK) * es)
    job.y_bytes = aligned((job.m[0] * job.m[1] * job.width * most + SLACK) * es)
    job.v_bytes = aligned((job.places * job.v_place + SLACK) * es)
    job.m_bytes = aligned((job.places * job.m_place + SLACK) * es)
    job.bias_bytes = aligned((most + SLACK) * es)
    return (job.line_bytes + job.column_bytes + job.partial_bytes + job.y_bytes + job.v_bytes
            + job.m_bytes + job.bias_bytes + aligned(2 * job.block * sizeof(strip)))


cdef size_t fit_blocks(
    lanes_job* job, Py_ssize_t groups, int* threads, Py_ssize_t budget
) noexcept nogil:
    """Choose strips and blocks within the caches and the workspace; returns a thread's scratch."""
    cdef Py_ssize_t es = job.leaf.esize, vl = job.leaf.vl, tiles, lines, blocks
    cdef Py_ssize_t samples = job.out.shape[0] * job.q.out[0]
    cdef size_t scratch
    job.together = min(groups, vl // gcd(job.q.channels, vl))
    job.lanes = round_up(job.together * job.q.channels, vl)
    job.parts = ceil_div(job.across[1], strip_tiles(job))
    tiles = NEAR_BYTES // (job.places * (job.lanes + job.held) * es)
    lines = samples * job.across[0]
    job.block = max(<Py_ssize_t>1, tiles // ceil_div(job.across[1], job.parts))
    blocks = ceil_div(lines * job.parts, job.block)
    # as many for each thread
    while (blocks < lines * job.parts and blocks * ceil_div(groups, job.together) % threads[0] > 0
            and blocks * ceil_div(groups, job.together) < FEW_BLOCKS * threads[0]):
        blocks += 1
    job.block = ceil_div(lines * job.parts, blocks)
    scratch = scratch_of(job)
    while needed(scratch, threads[0]) > budget:
        if job.block > 1:
            job.block = ceil_div(job.block, 2)
        elif job.parts < job.across[1]:
            job.parts = min(job.across[1], 2 * job.parts)
        elif threads[0] > 1:
            threads[0] -= 1
        elif job.together > 1:
            job.together = ceil_div(job.together, 2)
        else:
            break
        scratch = scratch_of(job)
    job.strips = lines * job.parts
    return scratch


cdef bint is_far(const lanes_job* job) noexcept nogil:
    """Whether images are asked for: many small ones, whose elements follow each other."""
    cdef const tensor* x = &job.q.x
    cdef const tensor* out = job.out
    cdef Py_ssize_t es = job.leaf.esize
    if not (x.in_place and out.in_place and x.stride[4] == out.stride[4] == es
            and x.stride[3] == x.shape[4] * es and out.stride[3] == out.shape[4] * es
            and x.shape[3] * x.stride[3] <= PAGE_BYTES):
        return False
    return es * x.shape[0] * (
        x.shape[1] * x.shape[2] * x.shape[3] * x.shape[4]
        + out.shape[1] * out.shape[2] * out.shape[3] * out.shape[4]) >= FAR_BYTES


def correlate(
    outputs, str operator, x, weight, bias, out, stride, dilation, offset, str mode, int compute,
    int threads, Py_ssize_t budget, TransformedWeights packed=None, bint measure=False
):
    """Forward, into `out` (N, G*M, O0, O1, O2), none of them empty.  Returns bytes of workspace.

    As `_winograd.correlate`, with weights (G, M, C, 1, r0, r1) and no dilation; `packed` are those
    whose rows are lanes.
    """
    cdef grid q
    cdef tensor w, some, result
    cdef lanes_job job
    cdef Workspace held_bias = None, held = None
    cdef const leaf_table* table = (
        leaf_of_lanes(compute, weight.shape[1]) if packed is None else packed.leaf)
    cdef Py_ssize_t fixed = 0, shortfall, group, groups, at_once, each
    cdef size_t scratch
    describe(weight, 6, compute, &w)
    describe(out, 5, compute, &result)
    fill_grid(
        x, w.shape[0], &w.shape[3], &result.shape[2], stride, dilation, offset, mode, compute, &q)
    q.leaf = table
    job.leaf, job.q, job.out, job.bias, job.u = table, &q, &result, NULL, NULL
    find_axes(table, &w, stride, outputs, job.axis)
    groups = at_once = w.shape[0]
    job.rows, job.held = w.shape[1], held_rows(w.shape[1], table, True)
    describe_tiles(&job)
    job.u_place = weight_place(&w, job.rows, table, True)
    threads = useful_threads(
        threads, 2.0 * job.places * groups * job.held * q.channels * result.shape[0] * q.out[0]
        * job.across[0] * job.across[1])
    if bias is not None:
        fixed = groups * job.rows * table.esize + 64
    job.far = is_far(&job)
    if packed is None:      # of as many groups at a time as a quarter of the workspace has room for
        each = weight_bytes(&w, job.axis, job.rows, table, True) // groups
        at_once = max(<Py_ssize_t>1, min(groups, budget // 4 // each))
        fixed += aligned(at_once * each) + 64
    scratch = fit_blocks(&job, at_once, &threads, budget - fixed)
    shortfall = fixed + needed(scratch, threads) - budget
    if shortfall > 0:
        raise checks.WorkspaceError(operator, budget + shortfall, budget)
    if measure:
        return budget + shortfall
    if bias is not None:
        held_bias = load_bias(bias, table, compute)
        job.bias = held_bias.data
    if packed is None:
        held = Workspace(at_once * each)
        job.u = held.data
    else:
        job.u = packed.store.data
    some = w
    for group in range(0, groups, at_once):
        job.group, job.groups = group, min(at_once, groups - group)
        if packed is None:
            some.data = w.data + group * w.stride[0]
            some.shape[0] = job.groups
            transform_weights(
                &some, job.axis, 0, job.rows, table, threads, held.data, True)
        run(lanes_task, &job,
            ceil_div(job.groups, job.together) * ceil_div(job.strips, job.block), threads, scratch)
    return budget + shortfall
