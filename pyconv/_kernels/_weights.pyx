"""Gradient of the weights: the loop nest around the micro-kernel with rows in lanes.

For every group g, with depth k = (channel, taps)::

    out[g, m, k] = sum over samples n and pixels p of grad[n, g, m, p] * B[n, g][k, p]

Here the pixels are what is summed over.  They are taken in steps: some rows of the result, part of
a long one, or some small samples.  For a block of rows and depths

    for each step
        bring the inputs of the depths near, once               L2
        transpose grad into panels [pixel][lanes of rows]       L2
        for some depths                                         L1
            for each panel of rows
                for each chain of pixels                        L1
                    all those depths                            registers: gemm_lanes

The micro-kernel broadcasts inputs from wherever they are: depth k of pixel p at element
`depth[k] + pixel[p]`.  So the inputs of a regular grid need no packing.  They are read where they
lie if no tap meets the padding, else from a box: the part of the padded channels that a step looks
at.  An axis whose taps are far apart has, in a box, for each tap the positions that it meets.

Results of a single step are stored as soon as they are complete, while they are in L1; others are
kept in L2 from one step to the next.

Each result is, for each step, one chain of multiply-adds for each `chain` pixels; the chains are
added in order, and of many every CHAINS_SUMMED first.  Few results are summed in `chunks` ranges of
steps, which are added in order.  All this follows from the shape alone; where the inputs are read,
blocks and threads do not show in the bits.
"""

from libc.string cimport memset

from pyconv import checks
from pyconv._kernels._cpu cimport LEAF_LANE_BYTES, leaf as select_leaf, leaf_column
from pyconv._kernels._gemm cimport (
    depth_at,
    depth_block,
    describe_operand,
    evenly_spaced,
    operand,
)
from pyconv._kernels._grid cimport inside, load_run
from pyconv._kernels._integers cimport ceil_div, magnitude, odd_lines, round_up
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport PAD_ZEROS, source_index

cdef enum:
    STEP_PIXELS = 256           # of a step, at most;
    LONG_STEP = 1024            # ... with so few rows that it fits the caches all the same
    FEW_ROWS = 32
    CHAIN = 112                 # pixels of a chain, about: the longest chain of roundings
    CHAINS_SUMMED = 16          # and so many chains are added up one after another
    MOST_CHUNKS = 8
    FEW_RESULTS = 32768         # are summed in chunks, of so many results twice,
    FEW_PIXELS = 512            # of a step of few rows, and channels at once: they stay in L1
    FEW_CHANNELS = 9
    MANY_CHANNELS = 64          # ... where channels are the lanes
    ENOUGH_GROUPS = 16          # ... unless there are groups to share out
    MOST_ROWS = 128             # of a block
    SUM_BYTES = 160 * 1024      # of a block: stays in L2 beside the inputs
    INPUT_BYTES = 128 * 1024
    NEAR_BYTES = 16 * 1024      # inputs that stay in L1 for all panels of rows
    DEPTHS_AT_ONCE = 24         # of a single tap: no rest for any number the micro-kernel takes
    MOST_AT_ONCE = 144          # of a single step
    FEWEST_DEPTHS = 6           # of a block where workspace is scarce, on any machine
    PANEL_BYTES = 192 * 1024    # of the gradient of a single step: stays in L2
    PIXEL_BYTES = 64            # of input between neighbouring pixels, where it is read in place,
    WAY_BYTES = 4096            # ... and between channels, which would evict each other

# Where the inputs of a block are read.
cdef enum:
    IN_PLACE
    BOX
    PACKED

cdef enum:
    NOWHERE = -2    # a position of the box that no output of a step looks at


# An axis of the box.
cdef struct box_axis:
    bint apart                  # each tap has positions of its own
    Py_ssize_t low              # else input position of the first output's first tap
    Py_ssize_t extent
    Py_ssize_t output, tap      # positions from one output, or tap, to the next


cdef struct weight_job:
    const leaf_table* leaf
    const packer* pk
    const grid* q               # or NULL
    const tensor* grad          # (N, groups * rows, O0, O1, O2)
    const operand* out
    Py_ssize_t groups, rows, depth, taps
    Py_ssize_t size[4]          # samples and outputs,
    Py_ssize_t extent[4]        # ... those of a step, at most,
    Py_ssize_t pixels           # ... and all of them
    Py_ssize_t steps, chunks
    bint deep                   # more than CHAINS_SUMMED chains
    Py_ssize_t mb, kb, m_blocks, k_blocks
    int way
    box_axis axis[3]
    Py_ssize_t channel          # elements from one channel to the next, of a box or the input;
    Py_ssize_t place[4]         # from one sample or output,
    Py_ssize_t tap[3]           # from one tap to the next,
    Py_ssize_t origin           # ... and to tap 0
    char* partial               # [chunk][block] as a block's sums; only if chunks > 1
    Py_ssize_t b_bytes, g_bytes, c_bytes, depth_bytes, pixel_bytes


cdef struct step:
    Py_ssize_t first[4]
    Py_ssize_t count[4]
    Py_ssize_t pixels


# ---- steps ------------------------------------------------------------------------------------

cdef inline Py_ssize_t even(Py_ssize_t total, Py_ssize_t most) noexcept nogil:
    """Parts of at most that many, about equal."""
    return ceil_div(total, ceil_div(total, max(<Py_ssize_t>1, most)))


cdef void divide_steps(weight_job* job) noexcept nogil:
    """Whole rows, planes and samples where more than one fits."""
    cdef Py_ssize_t chains, results = job.groups * job.rows * job.depth
    cdef Py_ssize_t left = LONG_STEP if job.rows <= FEW_ROWS else STEP_PIXELS
    cdef int axis
    cdef bint whole = True
    job.steps = job.pixels = 1
    for axis in range(3, -1, -1):
        job.extent[axis] = even(job.size[axis], left) if whole and job.size[axis] > 0 else 1
        whole = job.extent[axis] == job.size[axis]
        left //= job.extent[axis]
        job.pixels *= job.extent[axis]
        job.steps *= ceil_div(job.size[axis], job.extent[axis])
    job.chunks = 1
    if results <= FEW_RESULTS:
        job.chunks = min(<Py_ssize_t>MOST_CHUNKS, 2 * FEW_RESULTS // results)
        job.chunks = min(job.chunks, ceil_div(<Py_ssize_t>ENOUGH_GROUPS, job.groups))
        job.chunks = max(<Py_ssize_t>1, min(job.chunks, job.steps))
    chains = ceil_div(job.pixels, depth_block(job.pixels, CHAIN))
    job.deep = ceil_div(job.steps, job.chunks) * chains > CHAINS_SUMMED


cdef step find_step(const weight_job* job, Py_ssize_t index) noexcept nogil:
    cdef step s
    cdef Py_ssize_t steps
    cdef int axis
    s.pixels = 1
    for axis in range(3, -1, -1):
        steps = ceil_div(job.size[axis], job.extent[axis])
        s.first[axis] = index % steps * job.extent[axis]
        s.count[axis] = min(job.extent[axis], job.size[axis] - s.first[axis])
        s.pixels *= s.count[axis]
        index //= steps
    return s


# ---- inputs -----------------------------------------------------------------------------------

cdef bint readable(const weight_job* job) noexcept nogil:
    """Whether inputs are as well read where they are as from a box."""
    cdef const grid* q = job.q
    cdef Py_ssize_t reach, first, last
    cdef int i
    if not q.x.in_place:
        return False
    # In a box pixels are nearer, unless it is but a copy.
    if magnitude(q.stride[2] * q.x.stride[4]) > PIXEL_BYTES and (
            job.axis[2].apart or q.x.stride[4] != job.leaf.esize):
        return False
    for i in range(3):
        reach = (q.taps[i] - 1) * q.dilation[i]
        first = q.offset[i] + min(reach, 0)
        last = (q.out[i] - 1) * q.stride[i] + q.offset[i] + max(reach, 0)
        if first < 0 or last >= q.x.shape[2 + i]:
            return False
    return q.channels == 1 or job.taps >= job.kb or q.x.stride[1] % WAY_BYTES != 0


cdef void use_input(weight_job* job) noexcept nogil:
    """Have inputs read where they are."""
    cdef const grid* q = job.q
    cdef Py_ssize_t es = job.leaf.esize
    cdef int i
    job.way = IN_PLACE
    job.channel = q.x.stride[1] // es
    job.place[0] = q.x.stride[0] // es
    job.origin = 0
    for i in range(3):
        job.place[1 + i] = q.stride[i] * q.x.stride[2 + i] // es
        job.tap[i] = q.dilation[i] * q.x.stride[2 + i] // es


cdef bint use_box(weight_job* job) noexcept nogil:
    """Have inputs read from a box; False if it is larger than any memory."""
    cdef const grid* q = job.q
    cdef Py_ssize_t reach, extent
    cdef double cells = job.extent[0]
    cdef box_axis* axis
    cdef int i
    for i in range(3):
        axis = &job.axis[i]
        extent = job.extent[1 + i]
        reach = (q.taps[i] - 1) * q.dilation[i]
        axis.low = q.offset[i] + min(reach, 0)
        axis.extent = (extent - 1) * q.stride[i] + magnitude(reach) + 1
        axis.output, axis.tap = q.stride[i], q.dilation[i]
        axis.apart = q.taps[i] * extent < axis.extent
        if axis.apart:
            axis.extent = q.taps[i] * extent
            axis.output, axis.tap = 1, extent
        cells *= axis.extent
    if cells > <double>(1 << 40):
        return False
    job.way = BOX
    extent = 1
    job.origin = 0
    for i in range(2, -1, -1):
        axis = &job.axis[i]
        job.place[1 + i], job.tap[i] = axis.output * extent, axis.tap * extent
        job.origin -= min((q.taps[i] - 1) * job.tap[i], 0)
        extent *= axis.extent
    job.place[0] = extent
    job.channel = odd_lines(job.extent[0] * extent, job.leaf.esize)
    return True


cdef void fill_box(
    const weight_job* job, const step* s, Py_ssize_t channel, Py_ssize_t count, char* box
) noexcept nogil:
    """The inputs of a step, of `count` channels from `channel` on."""
    cdef const grid* q = job.q
    cdef const tensor* x = &q.x
    cdef const box_axis* axis = &job.axis[0]
    cdef Py_ssize_t es = job.leaf.esize, row = axis[2].extent, plane = axis[1].extent * row
    cdef Py_ssize_t first[3]
    cdef Py_ssize_t last[3]
    cdef Py_ssize_t n, e0, e1, i0, i1, t, top, bottom, left, right, before
    cdef const char* src
    cdef const char* line
    cdef char* dst
    cdef int i
    # Rows that follow each other in the input do so in the box.
    cdef bint whole = (q.mode == PAD_ZEROS and x.in_place and not axis[1].apart
                       and not axis[2].apart and (x.stride[4] == es or x.shape[4] == 1))
    for i in range(3):
        first[i] = s.first[1 + i] * q.stride[i] + axis[i].low
        last[i] = axis[i].extent
        if not axis[i].apart:   # of the last step, fewer
            last[i] -= (job.extent[1 + i] - s.count[1 + i]) * q.stride[i]
    top = bottom = left = right = 0
    if whole:
        inside(first[1], 1, last[1], x.shape[3], &top, &bottom)
        inside(first[2], 1, last[2], x.shape[4], &left, &right)
    before = top * row + left
    for n in range(s.count[0]):
        src = x.data + (s.first[0] + n) * x.stride[0] + channel * x.stride[1]
        for e0 in range(last[0]):
            i0 = position(job, s, 0, first[0], e0)
            if i0 == NOWHERE:
                continue
            dst = box + (n * job.place[0] + e0 * plane) * es
            if i0 < 0 or (whole and (top == bottom or left == right)):
                job.leaf.clear(dst, job.channel, count, plane)
                continue
            if whole:
                job.leaf.pad(
                    count, bottom - top, right - left,
                    src + i0 * x.stride[2] + (first[1] + top) * x.stride[3]
                    + (first[2] + left) * es, x.stride[1] // es, x.stride[3] // es, dst,
                    job.channel, row, before,
                    plane - before - (bottom - top - 1) * row - (right - left))
                continue
            for e1 in range(last[1]):
                i1 = position(job, s, 1, first[1], e1)
                if i1 == NOWHERE:
                    continue
                dst = box + (n * job.place[0] + e0 * plane + e1 * row) * es
                line = src + i0 * x.stride[2] + i1 * x.stride[3]
                if i1 < 0:
                    job.leaf.clear(dst, job.channel, count, row)
                elif not axis[2].apart:
                    load_run(q, dst, job.channel, line, count, first[2], 1, last[2])
                else:
                    for t in range(q.taps[2]):
                        load_run(
                            q, dst + t * axis[2].tap * es, job.channel, line, count,
                            s.first[3] * q.stride[2] + t * q.dilation[2] + q.offset[2],
                            q.stride[2], s.count[3])


cdef inline Py_ssize_t position(
    const weight_job* job, const step* s, int i, Py_ssize_t first, Py_ssize_t e
) noexcept nogil:
    """Input index at position e of an axis of the box, -1 for a zero."""
    cdef const grid* q = job.q
    cdef Py_ssize_t o, at = first + e
    if job.axis[i].apart:
        o = e % job.extent[1 + i]
        if o >= s.count[1 + i]:
            return NOWHERE
        at = ((s.first[1 + i] + o) * q.stride[i] + e // job.extent[1 + i] * q.dilation[i]
              + q.offset[i])
    return source_index(at, q.x.shape[2 + i], q.mode)


cdef const char* bring_inputs(
    const weight_job* job, const step* s, Py_ssize_t g, Py_ssize_t k0, Py_ssize_t k1, char* b,
    char* own
) noexcept nogil:
    """Depths k0 .. k1-1 of a step; where its first pixel is."""
    cdef const grid* q = job.q
    cdef const packer* pk = job.pk
    cdef Py_ssize_t es = job.leaf.esize, width, n, p, count, channel
    cdef const char* at
    cdef int i
    if job.way == PACKED:
        width = odd_lines(job.pixels, es)
        count = s.count[1] * s.count[2] * s.count[3]
        p = (s.first[1] * job.size[2] + s.first[2]) * job.size[3] + s.first[3]
        for n in range(s.count[0]):
            if pk.begin != NULL:
                pk.begin(pk.ctx, own, s.first[0] + n, g, p, count)
            pk.pack(
                pk.ctx, own, s.first[0] + n, g, p, count, k0, k1, width, b + n * count * es)
        return b
    channel = k0 // job.taps
    if job.way == BOX:
        fill_box(
            job, s, g * q.channels + channel, ceil_div(k1, job.taps) - channel, b)
        return b
    at = q.x.data + s.first[0] * q.x.stride[0] + (g * q.channels + channel) * q.x.stride[1]
    for i in range(3):
        at += (s.first[1 + i] * q.stride[i] + q.offset[i]) * q.x.stride[2 + i]
    return at


cdef void find_depths(
    const weight_job* job, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t* depth
) noexcept nogil:
    """Elements from where a block's inputs are to each of its depths."""
    cdef Py_ssize_t k, channel, rest, width
    cdef Py_ssize_t tap[3]
    cdef int i
    if job.way == PACKED:
        width = odd_lines(job.pixels, job.leaf.esize)
        for k in range(k1 - k0):
            depth[k] = k * width
        return
    # One tap after another, from that of the first depth: divisions take long.
    rest = k0 % job.taps
    for i in range(2, -1, -1):
        tap[i] = rest % job.q.taps[i]
        rest //= job.q.taps[i]
    channel = job.origin
    for k in range(k1 - k0):
        depth[k] = channel + tap[0] * job.tap[0] + tap[1] * job.tap[1] + tap[2] * job.tap[2]
        i = 2
        while i >= 0 and tap[i] + 1 == job.q.taps[i]:
            tap[i] = 0
            i -= 1
        if i >= 0:
            tap[i] += 1
        else:
            channel += job.channel


cdef void find_pixels(const weight_job* job, const step* s, Py_ssize_t* pixel) noexcept nogil:
    """Elements from a step's first pixel to each of its pixels."""
    cdef Py_ssize_t n, o0, o1, o2, at, p = 0
    if job.way == PACKED:
        for p in range(s.pixels):
            pixel[p] = p
        return
    for n in range(s.count[0]):
        for o0 in range(s.count[1]):
            for o1 in range(s.count[2]):
                at = n * job.place[0] + o0 * job.place[1] + o1 * job.place[2]
                for o2 in range(s.count[3]):
                    pixel[p] = at + o2 * job.place[3]
                    p += 1


# ---- the product ------------------------------------------------------------------------------

cdef inline Py_ssize_t lanes_of(const leaf_table* leaf, Py_ssize_t rows) noexcept nogil:
    """Lanes of the first panel of so many rows: half a panel at the end is part of the last."""
    cdef Py_ssize_t rest = round_up(rows, leaf.nr // 2)
    return rest if 2 * rest <= 3 * leaf.nr else leaf.nr


cdef inline Py_ssize_t held_rows(const leaf_table* leaf, Py_ssize_t rows) noexcept nogil:
    return round_up(rows, leaf.nr // 2)


cdef void load_gradient(
    const weight_job* job, const step* s, Py_ssize_t row, Py_ssize_t rows, char* panel
) noexcept nogil:
    """Rows of a step, from channel `row` on, as [panel][pixel][lane]."""
    cdef const tensor* t = job.grad
    cdef const leaf_table* leaf = job.leaf
    cdef Py_ssize_t es = leaf.esize, m = 0, lanes, width, n, o0, o1
    cdef Py_ssize_t count[3]
    cdef const char* src
    cdef int i
    # Rows that follow each other are one.
    for i in range(3):
        count[i] = s.count[1 + i]
    for i in range(1, -1, -1):
        if count[i + 1] == 1 and count[i] > 1:
            break
        if count[i] > 1 and t.stride[2 + i] != count[2] * t.stride[4]:
            break
        count[2] *= count[i]
        count[i] = 1
    while m < rows:
        lanes = lanes_of(leaf, rows - m)
        width = min(lanes, rows - m)
        if width < lanes:
            memset(panel, 0, s.pixels * lanes * es)
        for n in range(s.count[0]):
            for o0 in range(count[0]):
                for o1 in range(count[1]):
                    src = (t.data + (s.first[0] + n) * t.stride[0] + (row + m) * t.stride[1]
                           + (s.first[1] + o0) * t.stride[2] + (s.first[2] + o1) * t.stride[3]
                           + s.first[3] * t.stride[4])
                    leaf.load[t.storage](
                        panel, lanes, src, t.stride[4], t.stride[1], count[2], width)
                    panel += count[2] * lanes * es
        m += lanes


cdef void weight_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are the blocks of results, of each chunk."""
    cdef const weight_job* job = <const weight_job*>ctx
    cdef Py_ssize_t task, rest, chunk, g, m, k
    cdef Py_ssize_t blocks = job.groups * job.m_blocks * job.k_blocks
    cdef char* sums = scratch
    for task in range(first, last):
        chunk, rest = task // blocks, task % blocks
        m = rest % job.m_blocks * job.mb
        rest //= job.m_blocks
        k = rest % job.k_blocks * job.kb
        g = rest // job.k_blocks
        if job.steps == 1:
            sum_at_once(job, g, m, k, scratch)
            continue
        if job.chunks > 1:
            sums = job.partial + task * job.c_bytes
        sum_block(job, chunk, g, m, k, sums, scratch + job.c_bytes)
        if job.chunks == 1:
            store_block(job, g, m, k, sums)


cdef void sum_at_once(
    const weight_job* job, Py_ssize_t g, Py_ssize_t m, Py_ssize_t k, char* scratch
) noexcept nogil:
    """A block of results of a single step: some depths of a panel are complete, and stored, before
    the next are begun."""
    cdef const leaf_table* leaf = job.leaf
    cdef Py_ssize_t es = leaf.esize, j = 0, row, lanes, some, p, count
    cdef Py_ssize_t rows = min(job.mb, job.rows - m), depths = min(job.kb, job.depth - k)
    cdef step s = find_step(job, 0)
    cdef char* panels = scratch + job.c_bytes
    cdef Py_ssize_t* depth = <Py_ssize_t*>(panels + job.g_bytes)
    cdef Py_ssize_t* pixel = <Py_ssize_t*>(<char*>depth + job.depth_bytes)
    cdef char* b = <char*>pixel + job.pixel_bytes
    cdef Py_ssize_t chain = depth_block(s.pixels, CHAIN), near = depths_at_once(job)
    cdef const char* x
    find_depths(job, k, k + depths, depth)
    find_pixels(job, &s, pixel)
    x = bring_inputs(job, &s, g, k, k + depths, b, b + job.b_bytes)
    load_gradient(job, &s, g * job.rows + m, rows, panels)
    while j < depths:
        some = min(near, depths - j)
        row = 0
        while row < rows:
            lanes = lanes_of(leaf, rows - row)
            p = 0
            while p < s.pixels:
                count = min(chain, s.pixels - p)
                leaf.gemm_lanes(
                    lanes, some, count, 1, panels + (row * s.pixels + p * lanes) * es, x, pixel + p,
                    depth + j, scratch, NULL, p > 0, NULL)
                p += count
            store_panel(job, g, m + row, min(lanes, rows - row), k + j, some, scratch, lanes)
            row += lanes
        j += near


cdef inline Py_ssize_t depths_at_once(const weight_job* job) noexcept nogil:
    """Depths that `sum_at_once` completes at a time."""
    return min(MOST_AT_ONCE, depths_near(job, depth_block(job.pixels, CHAIN)))


cdef void sum_block(
    const weight_job* job, Py_ssize_t chunk, Py_ssize_t g, Py_ssize_t m, Py_ssize_t k, char* sums,
    char* scratch
) noexcept nogil:
    """A chunk's sums for a block of results, as [panel][depth][lane]."""
    cdef const leaf_table* leaf = job.leaf
    cdef Py_ssize_t es = leaf.esize
    cdef Py_ssize_t rows = min(job.mb, job.rows - m), depths = min(job.kb, job.depth - k)
    cdef Py_ssize_t held = held_rows(leaf, rows), index, p, chain, near, j, lanes, row
    cdef Py_ssize_t chains = 0, stop, some, q
    cdef char* to
    cdef step s, before
    cdef char* part = scratch
    cdef char* panels = part + (job.c_bytes if job.deep else 0)
    cdef Py_ssize_t* depth = <Py_ssize_t*>(panels + job.g_bytes)
    cdef Py_ssize_t* pixel = <Py_ssize_t*>(<char*>depth + job.depth_bytes)
    cdef char* b = <char*>pixel + job.pixel_bytes
    cdef char* own = b + job.b_bytes
    cdef char* c = sums
    cdef const char* x
    before.pixels = -1
    find_depths(job, k, k + depths, depth)
    index = job.steps * chunk // job.chunks
    if index == job.steps * (chunk + 1) // job.chunks:
        memset(sums, 0, held * depths * es)
    while index < job.steps * (chunk + 1) // job.chunks:
        s = find_step(job, index)
        if before.pixels != s.pixels or (before.count[3] != s.count[3]
                                         or before.count[2] != s.count[2]
                                         or before.count[1] != s.count[1]):
            find_pixels(job, &s, pixel)
            before = s
        x = bring_inputs(job, &s, g, k, k + depths, b, own)
        load_gradient(job, &s, g * job.rows + m, rows, panels)
        chain = depth_block(s.pixels, CHAIN)
        p = 0
        near = depths_near(job, chain)
        while p < s.pixels:
            # As many chains as there are, or until they are to be added up.
            stop = s.pixels
            if job.deep:
                stop = min(stop, p + (CHAINS_SUMMED - chains) * chain)
            j = 0
            while j < depths:
                some = min(near, depths - j)
                row = 0
                while row < rows:
                    lanes = lanes_of(leaf, rows - row)
                    to = c + (row * depths + j * lanes) * es
                    q = p
                    while q < stop:
                        leaf.gemm_lanes(
                            lanes, some, min(chain, stop - q), 1,
                            panels + (row * s.pixels + q * lanes) * es, x, pixel + q, depth + j,
                            to, NULL, chains > 0 or q > p, NULL)
                        q += chain
                    row += lanes
                j += near
            chains += ceil_div(stop - p, chain)
            p = stop
            if job.deep and chains == CHAINS_SUMMED:
                if c == part:
                    leaf.add_strided(held * depths, part, sums, 1)
                c, chains = part, 0
        index += 1
    if c == part and chains > 0:
        leaf.add_strided(held * depths, part, sums, 1)


cdef inline Py_ssize_t depths_near(const weight_job* job, Py_ssize_t pixels) noexcept nogil:
    """Depths whose inputs for so many pixels stay in L1."""
    cdef Py_ssize_t channels = max(<Py_ssize_t>1, NEAR_BYTES // (pixels * job.leaf.esize))
    if job.taps == 1 or job.taps * channels < DEPTHS_AT_ONCE:
        return DEPTHS_AT_ONCE
    return channels * job.taps


cdef void store_block(
    const weight_job* job, Py_ssize_t g, Py_ssize_t m, Py_ssize_t k, const char* sums
) noexcept nogil:
    """A block of results to its place."""
    cdef Py_ssize_t rows = min(job.mb, job.rows - m), depths = min(job.kb, job.depth - k)
    cdef Py_ssize_t row = 0, lanes
    while row < rows:
        lanes = lanes_of(job.leaf, rows - row)
        store_panel(
            job, g, m + row, min(lanes, rows - row), k, depths,
            sums + row * depths * job.leaf.esize, lanes)
        row += lanes


cdef void store_panel(
    const weight_job* job, Py_ssize_t g, Py_ssize_t m, Py_ssize_t rows, Py_ssize_t k,
    Py_ssize_t depths, const char* sums, Py_ssize_t lanes
) noexcept nogil:
    """Results [depth][lane] of a panel to their place."""
    cdef const operand* out = job.out
    cdef char* dst = out.t.data + g * out.t.stride[0] + m * out.t.stride[1]
    cdef Py_ssize_t j = 0, length
    while j < depths:
        length = min(out.run - (k + j) % out.run, depths - j)
        job.leaf.store[out.t.storage](
            dst + depth_at(out, k + j), out.run_stride, out.t.stride[1],
            sums + j * lanes * job.leaf.esize, lanes, length, rows)
        j += length


cdef void add_chunks_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Sum the chunks of a block, in order, and store it."""
    cdef const weight_job* job = <const weight_job*>ctx
    cdef Py_ssize_t blocks = job.groups * job.m_blocks * job.k_blocks, task, chunk, rest, g, m, k
    cdef Py_ssize_t rows, depths
    cdef char* sums
    for task in range(first, last):
        m = task % job.m_blocks * job.mb
        rest = task // job.m_blocks
        k = rest % job.k_blocks * job.kb
        g = rest // job.k_blocks
        rows, depths = min(job.mb, job.rows - m), min(job.kb, job.depth - k)
        sums = job.partial + task * job.c_bytes
        for chunk in range(1, job.chunks):
            job.leaf.add_strided(
                held_rows(job.leaf, rows) * depths, sums + chunk * blocks * job.c_bytes, sums, 1)
        store_block(job, g, m, k, sums)


# ---- blocks -----------------------------------------------------------------------------------

cdef void set_rows(weight_job* job, Py_ssize_t mb) noexcept nogil:
    job.mb = round_up(even(job.rows, mb), job.leaf.nr)
    job.m_blocks = ceil_div(job.rows, job.mb)


cdef void set_depths(weight_job* job, Py_ssize_t kb) noexcept nogil:
    """Blocks of about so many depths, of whole channels if that is more than one."""
    job.kb = even(job.depth, kb)
    if job.taps > 1 and job.kb > job.taps:
        job.kb = round_up(job.kb, job.taps)
    elif job.kb > DEPTHS_AT_ONCE:
        job.kb = round_up(job.kb, DEPTHS_AT_ONCE)
    job.k_blocks = ceil_div(job.depth, job.kb)


cdef size_t block_scratch(weight_job* job) noexcept nogil:
    """Bytes that a thread takes.  Not fewer where the input is read in place: other strides may
    need a box."""
    cdef Py_ssize_t es = job.leaf.esize, sums = job.mb * job.kb * es, channels
    if job.way == PACKED:
        job.b_bytes = aligned(job.kb * odd_lines(job.pixels, es) * es)
    else:
        channels = ceil_div(job.kb, job.taps)
        if job.kb % job.taps and job.kb < job.depth:
            channels += 1
        job.b_bytes = aligned(min(channels, job.q.channels) * job.channel * es)
    job.g_bytes = aligned(job.mb * job.pixels * es)
    if job.steps == 1:
        sums = depths_at_once(job) * 3 * job.leaf.nr // 2 * es
    job.c_bytes = aligned(sums)
    job.depth_bytes = aligned(job.kb * sizeof(Py_ssize_t))
    job.pixel_bytes = aligned(job.pixels * sizeof(Py_ssize_t))
    return (job.c_bytes * (2 if job.deep else 1) + job.g_bytes + job.depth_bytes + job.pixel_bytes
            + job.b_bytes + aligned(job.pk.scratch)
            + aligned(job.pk.scratch_per_pixel * job.pixels))


cdef Py_ssize_t partial_bytes(const weight_job* job) noexcept nogil:
    if job.chunks == 1:
        return 0
    return job.chunks * job.groups * job.m_blocks * job.k_blocks * job.c_bytes + 64


cdef Py_ssize_t choose_blocks(
    weight_job* job, int* threads, Py_ssize_t budget
) noexcept nogil:
    """Blocks that fit the caches, go round and fit the budget; bytes of workspace."""
    cdef Py_ssize_t es = job.leaf.esize, least = DEPTHS_AT_ONCE, tasks, taken, input
    set_rows(job, MOST_ROWS if job.steps > 1 else max(
        <Py_ssize_t>MOST_ROWS, PANEL_BYTES // (job.pixels * es)))
    input = job.channel if job.way == BOX else odd_lines(job.pixels, es) * job.taps
    # A single tap's inputs are on their way through L2 once for every block of rows.
    input = INPUT_BYTES * (2 if job.taps == 1 else 1) // max(<Py_ssize_t>1, input * es)
    # A large channel is brought again for every block of its taps: those are to be few.
    input = max(input, <Py_ssize_t>1 if job.way == BOX else input) * job.taps
    if job.steps > 1:
        input = min(SUM_BYTES // (job.mb * es), input)
    set_depths(job, max(least, input))
    while True:     # enough blocks to go round
        tasks = job.groups * job.chunks * job.m_blocks * job.k_blocks
        if threads[0] == 1 or tasks >= 4 * threads[0] or tasks % threads[0] == 0:
            break
        if job.kb > least:
            set_depths(job, job.kb // 2)
        elif job.mb > 2 * job.leaf.nr:
            set_rows(job, job.mb // 2)
        else:
            break
    while True:
        taken = block_scratch(job) + 128
        taken = partial_bytes(job) + threads[0] * taken
        if taken <= budget:
            return taken
        if job.kb > FEWEST_DEPTHS:
            job.kb = max(<Py_ssize_t>FEWEST_DEPTHS, job.kb // 2)
            job.k_blocks = ceil_div(job.depth, job.kb)
        elif job.mb > job.leaf.nr:
            set_rows(job, job.mb // 2)
        elif job.mb == job.leaf.nr:
            job.mb //= 2        # half a panel
            job.m_blocks = ceil_div(job.rows, job.mb)
        elif threads[0] > 1:
            threads[0] -= 1
        else:
            return taken


# ---- few rows, and a single tap ----------------------------------------------------------------
# Pixels are the lanes, and nothing is transposed: each input is read once, beside those of a few
# other channels, for all rows.  A sample is taken in steps of FEW_PIXELS; each of LEAF_LANE_BYTES
# of neighbours in a step, and each in what is left of a sample, is one chain.
#
# Where channels lie next to each other they are the lanes, with the same bits: each of those
# neighbours has its sums, and its pixels are brought together.

cdef struct few_job:
    const leaf_table* leaf
    const tensor* few           # (N, groups * rows, S0, S1, S2)
    const tensor* many          # (N, groups * channels, S0, S1, S2)
    const tensor* out           # (groups, rows, channels, 1, 1, 1)
    Py_ssize_t rows, channels
    Py_ssize_t block            # channels of a task; where they are the lanes,
    Py_ssize_t wide             # ... so many
    Py_ssize_t lanes
    bint few_there, many_there  # read where they are
    bint spaced                 # pixels of a sample are all so far apart: or else those of a line
    Py_ssize_t pixel_stride


cdef void load_pixels(
    const leaf_table* leaf, const tensor* t, const char* src, Py_ssize_t channels, Py_ssize_t p,
    Py_ssize_t count, char* dst
) noexcept nogil:
    """Pixels p .. p+count-1 of some channels of a sample, as [channel][FEW_PIXELS]."""
    cdef Py_ssize_t row, line, o, some
    while count > 0:
        o, row = p % t.shape[4], p // t.shape[4]
        some = min(count, t.shape[4] - o)
        line = (row // t.shape[3] * t.stride[2] + row % t.shape[3] * t.stride[3] + o * t.stride[4])
        leaf.load[t.storage](dst, FEW_PIXELS, src + line, t.stride[1], t.stride[4], channels, some)
        dst += some * leaf.esize
        p += some
        count -= some


cdef inline const char* pixels_at(
    const leaf_table* leaf, const tensor* t, bint there, Py_ssize_t n, Py_ssize_t channel,
    Py_ssize_t channels, Py_ssize_t p, Py_ssize_t count, char* own
) noexcept nogil:
    """Where pixels p .. p+count-1 of some channels of sample n are, if not `there` in `own`."""
    cdef const char* src = t.data + n * t.stride[0] + channel * t.stride[1]
    if there:
        return src + p * leaf.esize
    load_pixels(leaf, t, src, channels, p, count, own)
    return own


cdef inline Py_ssize_t end_chain(
    const leaf_table* leaf, Py_ssize_t chains, Py_ssize_t size, char* sums, char* total
) noexcept nogil:
    """Count one chain more; of CHAINS_SUMMED add up the sums, which begin again."""
    if chains + 1 < CHAINS_SUMMED:
        return chains + 1
    leaf.add_strided(size, sums, total, 1)
    leaf.clear(sums, 0, 1, size)
    return 0


cdef size_t few_scratch(const few_job* job) noexcept nogil:
    """Bytes that a thread takes, wherever the channels are."""
    cdef Py_ssize_t es = job.leaf.esize, held = held_rows(job.leaf, job.wide)
    cdef size_t along = (2 * job.rows * job.block * LEAF_LANE_BYTES
                         + (job.rows + job.block) * (FEW_PIXELS * es + LEAF_LANE_BYTES)
                         + aligned(2 * job.block * sizeof(leaf_column)))
    cdef size_t across = (2 * job.rows * held * LEAF_LANE_BYTES + job.rows * FEW_PIXELS * es
                          + (FEW_PIXELS + 3 * job.lanes) * 3 * job.leaf.nr // 2 * es
                          + (FEW_PIXELS // job.lanes + job.rows) * sizeof(Py_ssize_t))
    return max(along, across)


cdef void few_across_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """`few_task` with channels as the lanes."""
    cdef const few_job* job = <const few_job*>ctx
    cdef const leaf_table* leaf = job.leaf
    cdef const tensor* x = job.many
    cdef const tensor* g = job.few
    cdef Py_ssize_t es = leaf.esize, lanes = job.lanes, blocks = ceil_div(job.channels, job.wide)
    cdef Py_ssize_t pixels = x.shape[2] * x.shape[3] * x.shape[4], pitch = FEW_PIXELS
    cdef Py_ssize_t each = job.rows * held_rows(leaf, job.wide), size = lanes * each
    cdef Py_ssize_t task, group, c, count, n, p, some, width, i, k, step, chains
    cdef char* sums = scratch
    cdef char* total = sums + size * es
    cdef char* g_own = total + size * es
    cdef char* panel = g_own + job.rows * FEW_PIXELS * es
    cdef Py_ssize_t* at = <Py_ssize_t*>(
        panel + (FEW_PIXELS + 3 * lanes) * 3 * leaf.nr // 2 * es)
    cdef Py_ssize_t* row = at + FEW_PIXELS // lanes
    cdef const char* x_at
    cdef const char* g_at
    if job.few_there:
        pitch = g.stride[1] // es
    for k in range(FEW_PIXELS // lanes):
        at[k] = k * lanes
    for i in range(job.rows):
        row[i] = i * pitch
    for task in range(first, last):
        group, c = task // blocks, task % blocks * job.wide
        count = min(job.wide, job.channels - c)
        leaf.clear(sums, 0, 1, 2 * size)
        chains = 0
        for n in range(x.shape[0]):
            p = 0
            while p < pixels:
                some = min(<Py_ssize_t>FEW_PIXELS, pixels - p)
                x_at = x.data + n * x.stride[0] + (group * job.channels + c) * x.stride[1]
                g_at = pixels_at(
                    leaf, g, job.few_there, n, group * job.rows, job.rows, p, some, g_own)
                i = 0
                while i < count:
                    width = lanes_of(leaf, count - i)
                    sum_neighbours(
                        job, x_at + i * x.stride[1], width, min(width, count - i), p, some, g_at,
                        at, row, panel, sums + i * job.rows * es, each)
                    i += width
                p += FEW_PIXELS
                chains = end_chain(leaf, chains, size, sums, total)
        leaf.add_strided(size, sums, total, 1)
        step = 1
        while step < lanes:     # as `fold`
            i = 0
            while i < lanes:
                leaf.add_strided(each, total + (i + step) * each * es, total + i * each * es, 1)
                i += 2 * step
            step *= 2
        i = 0
        while i < count:
            some = lanes_of(leaf, count - i)
            leaf.store[job.out.storage](
                job.out.data + group * job.out.stride[0] + (c + i) * job.out.stride[2],
                job.out.stride[1], job.out.stride[2], total + i * job.rows * es, some, job.rows,
                min(some, count - i))
            i += some


cdef void sum_neighbours(
    const few_job* job, const char* src, Py_ssize_t lanes, Py_ssize_t width, Py_ssize_t p,
    Py_ssize_t count, const char* g, const Py_ssize_t* at, const Py_ssize_t* row, char* panel,
    char* sums, Py_ssize_t apart
) noexcept nogil:
    """Add what a step of `count` pixels from p has for a panel of channels.

    Pixels are brought together as [neighbour][strip][lane], sums are `apart` from one neighbour to
    the next.
    """
    cdef const leaf_table* leaf = job.leaf
    cdef const tensor* x = job.many
    cdef Py_ssize_t es = leaf.esize, strips = count // job.lanes, rest = count % job.lanes
    cdef Py_ssize_t pitch = (ceil_div(count, job.lanes) | 1) * lanes, done = 0, some, o, line, i
    cdef const char* a
    if width < lanes:
        memset(panel, 0, job.lanes * pitch * es)
    while done < count:
        i = done % job.lanes
        some = min(job.lanes - i, count - done)
        o, line = (p + done) % x.shape[4], (p + done) // x.shape[4]
        if not job.spaced:
            some = min(some, x.shape[4] - o)
        leaf.load[x.storage](
            panel + (i * pitch + done // job.lanes * lanes) * es, pitch,
            src + line // x.shape[3] * x.stride[2] + line % x.shape[3] * x.stride[3]
            + o * x.stride[4], job.pixel_stride, x.stride[1], some, width)
        done += some
    for i in range(min(job.lanes, count)):
        a = panel + i * pitch * es
        if strips > 0:
            leaf.gemm_lanes(
                lanes, job.rows, strips, 1, a, g + i * es, at, row, sums + i * apart * es, NULL, 1,
                NULL)
        if i < rest:
            leaf.gemm_lanes(
                lanes, job.rows, 1, 1, a + strips * lanes * es, g + (strips * job.lanes + i) * es,
                at, row, sums + i * apart * es, NULL, 1, NULL)


cdef void few_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are the blocks of channels, of each group."""
    cdef const few_job* job = <const few_job*>ctx
    cdef const leaf_table* leaf = job.leaf
    cdef const tensor* x = job.many
    cdef const tensor* g = job.few
    cdef Py_ssize_t es = leaf.esize, lanes = job.lanes, blocks = ceil_div(job.channels, job.block)
    cdef Py_ssize_t pixels = x.shape[2] * x.shape[3] * x.shape[4]
    cdef Py_ssize_t size = job.rows * job.block * lanes
    cdef Py_ssize_t task, group, c, count, n, p, some, rest, m, i, chains
    cdef Py_ssize_t x_pitch = FEW_PIXELS, g_pitch = FEW_PIXELS
    cdef char* sums = scratch
    cdef char* total = sums + size * es
    cdef char* x_tail = total + size * es
    cdef char* g_tail = x_tail + job.block * LEAF_LANE_BYTES
    cdef char* x_own = g_tail + job.rows * LEAF_LANE_BYTES
    cdef char* g_own = x_own + job.block * FEW_PIXELS * es
    cdef leaf_column* column = <leaf_column*>(g_own + job.rows * FEW_PIXELS * es)
    cdef leaf_column* beside = column + job.block
    cdef const char* x_at
    cdef const char* g_at
    if job.many_there:
        x_pitch = x.stride[1] // es
    if job.few_there:
        g_pitch = g.stride[1] // es
    for i in range(job.block):
        column[i].src, beside[i].src = i * x_pitch, i * lanes
        column[i].weight = beside[i].weight = i
        column[i].taps = beside[i].taps = 1
    for task in range(first, last):
        group, c = task // blocks, task % blocks * job.block
        count = min(job.block, job.channels - c)
        leaf.clear(sums, 0, 1, 2 * size)
        chains = 0
        for n in range(x.shape[0]):
            p = 0
            while p < pixels:
                some = min(<Py_ssize_t>FEW_PIXELS, pixels - p)
                x_at = pixels_at(
                    leaf, x, job.many_there, n, group * job.channels + c, count, p, some, x_own)
                g_at = pixels_at(
                    leaf, g, job.few_there, n, group * job.rows, job.rows, p, some, g_own)
                rest = some % lanes
                some -= rest
                for m in range(job.rows if some > 0 else 0):
                    leaf.dots(
                        some // lanes, 1, lanes, lanes, count, column, x_at, lanes, 0,
                        g_at + m * g_pitch * es, lanes, 0, sums + m * job.block * lanes * es, lanes,
                        1)
                if rest > 0:    # with zeros beside it
                    leaf.pad(
                        count, 1, rest, x_at + some * es, x_pitch, 0, x_tail, lanes, 0, 0,
                        lanes - rest)
                    leaf.pad(
                        job.rows, 1, rest, g_at + some * es, g_pitch, 0, g_tail, lanes, 0, 0,
                        lanes - rest)
                    for m in range(job.rows):
                        leaf.dots(
                            1, 1, lanes, lanes, count, beside, x_tail, 0, lanes,
                            g_tail + m * LEAF_LANE_BYTES, 0, lanes,
                            sums + m * job.block * lanes * es, lanes, 1)
                p += FEW_PIXELS
                chains = end_chain(leaf, chains, size, sums, total)
        leaf.add_strided(size, sums, total, 1)
        leaf.fold(job.rows * job.block, total)
        leaf.store[job.out.storage](
            job.out.data + group * job.out.stride[0] + c * job.out.stride[2], job.out.stride[1],
            job.out.stride[2], total, job.block, job.rows, count)


cdef Py_ssize_t few_gradient(
    str operator, const tensor* few, const tensor* many, const tensor* out, int compute,
    int threads, Py_ssize_t budget, bint measure
) except -1:
    cdef few_job job
    cdef Py_ssize_t taken, each
    cdef double flops = 2.0 * few.shape[1] * many.shape[0]
    cdef int i
    for i in range(3):
        flops *= many.shape[2 + i]
    job.leaf, job.few, job.many, job.out = select_leaf(compute), few, many, out
    job.rows, job.channels = out.shape[1], out.shape[2]
    job.lanes = LEAF_LANE_BYTES // job.leaf.esize
    job.few_there = (few.in_place and evenly_spaced(few, &job.pixel_stride)
                     and job.pixel_stride == job.leaf.esize)
    job.pixel_stride = many.stride[4]
    job.spaced = evenly_spaced(many, &job.pixel_stride)
    job.many_there = many.in_place and job.spaced and job.pixel_stride == job.leaf.esize
    threads = useful_threads(threads, flops * job.channels)
    job.block = even(job.channels, FEW_CHANNELS)
    job.wide = min(job.channels, <Py_ssize_t>MANY_CHANNELS)
    if threads > 1:     # enough to go round
        each = ceil_div(job.channels * out.shape[0], threads)
        job.block = min(job.block, each)
        job.wide = min(job.wide, round_up(each, job.leaf.nr // 2))
    taken = threads * (<Py_ssize_t>few_scratch(&job) + 128)
    while taken > budget and (job.block > 1 or job.wide > 1 or threads > 1):
        if job.block > 1 or job.wide > 1:
            job.block, job.wide = ceil_div(job.block, 2), ceil_div(job.wide, 2)
        else:
            threads -= 1
        taken = threads * (<Py_ssize_t>few_scratch(&job) + 128)
    if taken > budget:
        raise checks.WorkspaceError(operator, taken, budget)
    if measure:
        return taken
    if magnitude(many.stride[1]) < magnitude(many.stride[4]) and job.channels > 1:
        run(few_across_task, &job, out.shape[0] * ceil_div(job.channels, job.wide), threads,
            few_scratch(&job))
    else:
        run(few_task, &job, out.shape[0] * ceil_div(job.channels, job.block), threads,
            few_scratch(&job))
    return taken


cdef Py_ssize_t weight_gemm(
    str operator, const packer* pk, const grid* q, const tensor* grad, object out, int compute,
    int threads, Py_ssize_t budget, bint measure
) except -1:
    cdef weight_job job
    cdef operand result
    cdef Workspace partial
    cdef size_t scratch
    cdef Py_ssize_t taken = 0, size, blocks
    cdef int i, used
    describe_operand(out, compute, &result)
    job.leaf = q.leaf if q != NULL else select_leaf(compute)
    job.pk, job.q, job.grad, job.out = pk, q, grad, &result
    job.groups, job.rows, job.depth = result.groups, result.rows, result.depth
    size = job.groups * job.rows * job.depth
    if size == 0:
        return 0
    job.size[0] = grad.shape[0]
    for i in range(3):
        job.size[1 + i] = grad.shape[2 + i]
    divide_steps(&job)
    job.taps = 1
    if q != NULL:
        job.taps = q.taps[0] * q.taps[1] * q.taps[2]
    threads = used = useful_threads(
        threads, 2.0 * size * job.size[0] * job.size[1] * job.size[2] * job.size[3])
    job.way = PACKED
    if q != NULL and use_box(&job):
        taken = choose_blocks(&job, &used, budget)
    if job.way == PACKED or taken > budget:
        job.way, used = PACKED, threads
        taken = choose_blocks(&job, &used, budget)
    if taken > budget:
        raise checks.WorkspaceError(operator, taken, budget)
    if measure:
        return taken
    scratch = block_scratch(&job)
    if job.way == BOX and readable(&job):
        use_input(&job)
    blocks = job.groups * job.m_blocks * job.k_blocks
    if job.chunks > 1:
        partial = Workspace(job.chunks * blocks * job.c_bytes)
        job.partial = partial.data
    run(weight_task, &job, blocks * job.chunks, used, scratch)
    if job.chunks > 1:
        run(add_chunks_task, &job, blocks, useful_threads(used, 8.0 * job.chunks * size), 0)
    return taken
