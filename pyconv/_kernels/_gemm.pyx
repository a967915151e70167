"""Implicit GEMM: the loop nest around the micro-kernel, for any operator that can fill a panel.

Forward, for every sample n and group g, with K = channels * taps::

    out[n, g, m, p] = bias[g, m] + sum_k A[g, m, k] * B[n, g][k, p]

`A` is the weights, read where they are or packed into [block of KC][row block][k][mr].  `B` never
exists as a whole: a packer fills one tile of it at a time, KC depths of NC pixels.

    for each tile of NC pixels                  (threads share out the tiles, or the rows)
        for each KC depths
            pack B                              L2
            for each MC rows of A               L1
                for each panel of nr pixels     L1
                    for each mr rows            registers: the micro-kernel

Where a sample has few pixels, panels of them would be mostly empty: rows of `A` are the lanes then,
packed as such, and a pixel is wherever it is (`lanes_tile`).  The sums are the same.

Inputs of a regular grid need no packing where copies of the samples with their padding fit the
workspace: the micro-kernel then reads B where it lies in those `planes`, by a table of offsets.
Without padding the input itself may serve, but for a panel that would read past its end.

Each output is a sum over blocks of KC depths, each block one chain of multiply-adds; of many blocks
every CHAIN_BLOCKS are summed first.  KC depends on K alone, so the bits of an output depend on
nothing but its inputs.
"""

from libc.string cimport memcpy, memset

from pyconv import checks
from pyconv._kernels._cpu cimport LEAF_LONG, LEAF_WIDE, __builtin_prefetch, leaf_soon
from pyconv._kernels._integers cimport ceil_div, gcd, least_multiple, magnitude, odd_lines, round_up
from pyconv._kernels._parallel cimport Workspace, aligned, run, useful_threads
from pyconv._kernels._tensor cimport describe

# Cache budgets of the blocking.
cdef enum:
    TILE_BYTES = 192 * 1024         # B tile: stays in L2 beside the A block
    BLOCK_BYTES = 192 * 1024        # A block
    RESULT_BYTES = 512 * 1024       # C tile, where results do not go straight to the output
    PREPARED_BYTES = 2 * 1024 * 1024    # prepared samples per thread: no more than are needed
    GROUP_BYTES = 256 * 1024        # a prepared group of samples: stays in L2
    DEPTH_BLOCK = 96                # KC, at most: the longest chain of roundings
    MOST_PIXELS = 1024
    FAR_BYTES = 1 << 20     # of prepared samples: more is read from beyond L2
    MOST_LANE_PIXELS = 192  # with rows in lanes: results of a panel stay in L1,
    LEAST_LANE_PIXELS = 56  # ... and weights on their way from L2 are used often enough
    PACKED_LANE_PIXELS = 112    # ... where those are all that is read from L2
    LANE_STEP = 4           # pixels that are not parted
    LANE_PIXELS = 8         # at a time, about
    SHARED = 170            # cycles for a cache line to go to another thread, and back,
    FEW_PANELS = 4          # ... which they are busy with if they have no more than these
    MACS = 16               # multiply-adds in a cycle
    LINE = 64               # bytes
    LEAST_PIXELS = 384      # of a tile that is made to fit L1
    CACHE_SETS_BYTES = 1024         # rows that far apart, or a multiple, evict each other
    SHALLOW_BYTES = 20 * 1024       # B tile: stays in L1 beside the results, rows of them
    SPARSE = 4                      # of so many weights one is taken: they are still read in order
    MOST_SPAN = 40 * 1024           # of weights of a row: row blocks of them stay in the caches


cdef Py_ssize_t depth_block(Py_ssize_t depth, Py_ssize_t most=DEPTH_BLOCK) noexcept nogil:
    """KC: of K alone, about equal blocks of `most` depths, about."""
    if depth <= most + most // 3:
        return depth if depth > 0 else 1
    return round_up(ceil_div(depth, ceil_div(depth, most)), 8)


cdef bint is_deep(Py_ssize_t depth) noexcept nogil:
    """Whether a sum has more blocks of KC than are added up one after another."""
    return depth > CHAIN_BLOCKS * depth_block(depth)


# ---- operand A --------------------------------------------------------------------------------

cdef int describe_operand(object weight, int compute, operand* a) except -1:
    cdef int axis
    cdef tensor* t = &a.t
    describe(weight, 6, compute, t)
    a.groups, a.rows = t.shape[0], t.shape[1]
    a.depth = t.shape[2] * t.shape[3] * t.shape[4] * t.shape[5]
    a.packed, a.lanes = NULL, False
    a.run, a.run_stride = t.shape[5], t.stride[5]
    axis = 4
    while axis >= 2:
        if t.shape[axis] != 1:
            if a.run == 1:
                a.run, a.run_stride = t.shape[axis], t.stride[axis]
            elif t.stride[axis] == a.run * a.run_stride:
                a.run *= t.shape[axis]
            else:
                break
        axis -= 1
    a.outer = axis - 1      # depth axes 2 .. axis stay outside the run
    find_span(a, 8 if compute == 1 else 4)
    return 0


cdef void find_span(operand* a, Py_ssize_t es) noexcept nogil:
    """Whether rows are better read as they lie in memory than in the order of their depths."""
    cdef const tensor* t = &a.t
    cdef Py_ssize_t reach, axis
    a.span, a.origin = 1, 0
    for axis in range(2, 6):
        reach = (t.shape[axis] - 1) * (t.stride[axis] // es)
        a.span += magnitude(reach)
        a.origin -= min(reach, 0)
    if (not t.in_place or a.depth == 0 or (a.run == a.depth and a.run_stride == es)
            or a.span > SPARSE * a.depth or a.span > MOST_SPAN):
        a.span = 0


cdef inline bint readable_in_place(const operand* a, const leaf_table* leaf) noexcept nogil:
    return (a.t.in_place and a.t.stride[1] != 0 and a.run == a.depth
            and (a.run_stride == leaf.esize or a.depth <= 1))


cdef Py_ssize_t depth_at(const operand* a, Py_ssize_t k) noexcept nogil:
    """Where a row has depth k, in bytes from depth 0."""
    cdef Py_ssize_t at = (k % a.run) * a.run_stride, rest = k // a.run, axis
    for axis in range(a.outer + 1, 1, -1):
        at += (rest % a.t.shape[axis]) * a.t.stride[axis]
        rest //= a.t.shape[axis]
    return at


cdef void pack_rows(
    const operand* a, const leaf_table* leaf, Py_ssize_t g, Py_ssize_t m, Py_ssize_t count,
    Py_ssize_t k0, Py_ssize_t k1, char* panel
) noexcept nogil:
    """Rows m .. m+count-1, depths k0 .. k1-1, as [row block][k - k0][mr]."""
    cdef Py_ssize_t block, mr = leaf.mr
    for block in range(ceil_div(count, mr)):
        pack_block(
            a, leaf, g, m + block * mr, min(mr, count - block * mr), mr, k0, k1,
            panel + block * mr * (k1 - k0) * leaf.esize)


cdef void pack_block(
    const operand* a, const leaf_table* leaf, Py_ssize_t g, Py_ssize_t m, Py_ssize_t rows,
    Py_ssize_t width, Py_ssize_t k0, Py_ssize_t k1, char* panel
) noexcept nogil:
    """Rows m .. m+rows-1, depths k0 .. k1-1, as [k - k0][width]; zeros past the last row."""
    cdef Py_ssize_t k = k0, length, es = leaf.esize, row_stride = a.t.stride[1]
    cdef const char* base = a.t.data + g * a.t.stride[0] + m * row_stride
    if rows < width:
        memset(panel, 0, (k1 - k0) * width * es)
    while k < k1:
        length = min(a.run - k % a.run, k1 - k)
        leaf.load[a.t.storage](
            panel + (k - k0) * width * es, width, base + depth_at(a, k), a.run_stride, row_stride,
            length, rows)
        k += length


cdef inline Py_ssize_t held_rows(const operand* a, const leaf_table* leaf) noexcept nogil:
    """Rows of the packed operand, the zeros that fill it up among them."""
    return round_up(a.rows, leaf.nr // 2 if a.lanes else leaf.mr)


cdef void pick_depths(
    const operand* a, const leaf_table* leaf, const char* rows, Py_ssize_t width, Py_ssize_t k0,
    Py_ssize_t k1, char* panel
) noexcept nogil:
    """Depths k0 .. k1-1 of a row block that lies as memory does, [element of the span][width]."""
    cdef Py_ssize_t es = leaf.esize, inner = a.depth // a.t.shape[2]
    cdef Py_ssize_t k = k0, length, t, c0, r0, c1, r1, c
    if a.run >= a.t.shape[2]:       # the longest ways that go by equal steps
        while k < k1:
            length = min(a.run - k % a.run, k1 - k)
            leaf.load[a.t.storage](
                panel + (k - k0) * width * es, width, rows + depth_at(a, k) * width,
                a.run_stride * width, es, length, width)
            k += length
        return
    c0, r0, c1, r1 = k0 // inner, k0 % inner, k1 // inner, k1 % inner
    for t in range(inner):
        c = c0 + (t < r0)
        length = c1 + (t < r1) - c
        if length > 0:
            k = c * inner + t
            leaf.load[a.t.storage](
                panel + (k - k0) * width * es, inner * width, rows + depth_at(a, k) * width,
                a.t.stride[2] * width, es, length, width)


cdef struct pack_job:
    const operand* a
    const leaf_table* leaf
    char* dst


cdef inline Py_ssize_t packed_at(
    const operand* a, const leaf_table* leaf, Py_ssize_t g, Py_ssize_t m, Py_ssize_t k,
    Py_ssize_t depth
) noexcept nogil:
    """Where the packed operand has group g, rows from m, depths k .. k+depth-1: a block of KC.

    What follows in a tile's loops follows in memory.
    """
    return ((g * a.depth + k) * held_rows(a, leaf) + m * depth) * leaf.esize


cdef void pack_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef const pack_job* job = <const pack_job*>ctx
    cdef const operand* a = job.a
    cdef Py_ssize_t kc = depth_block(a.depth), task, g, m, k, depth, rows, es = job.leaf.esize
    cdef Py_ssize_t step = job.leaf.nr if a.lanes else job.leaf.mr, width = step
    cdef Py_ssize_t blocks = lane_panels(a.rows, job.leaf) if a.lanes else ceil_div(a.rows, step)
    cdef char* dst
    for task in range(first, last):
        g, m = task // blocks, task % blocks * step
        if a.lanes:
            width = lanes_from(a.rows - m, job.leaf)
        rows = min(width, a.rows - m)
        if a.span > 0:
            if rows < width:
                memset(scratch, 0, a.span * width * es)
            job.leaf.load[a.t.storage](
                scratch, width, a.t.data + g * a.t.stride[0] + m * a.t.stride[1] - a.origin * es,
                es, a.t.stride[1], a.span, rows)
        k = 0
        while k < a.depth:
            depth = min(kc, a.depth - k)
            dst = job.dst + packed_at(a, job.leaf, g, m, k, depth)
            if a.span > 0:
                pick_depths(
                    a, job.leaf, scratch + a.origin * width * es, width, k, k + depth, dst)
            else:
                pack_block(a, job.leaf, g, m, rows, width, k, k + depth, dst)
            k += depth


cdef Py_ssize_t packed_bytes(const operand* a, const leaf_table* leaf) noexcept nogil:
    return a.groups * held_rows(a, leaf) * a.depth * leaf.esize


cdef size_t span_bytes(const operand* a, const leaf_table* leaf) noexcept nogil:
    """What a thread needs to pack."""
    return aligned(a.span * (3 * leaf.nr // 2 if a.lanes else leaf.mr) * leaf.esize)


cdef Py_ssize_t packing_bytes(
    const operand* a, const leaf_table* leaf, int threads
) noexcept nogil:
    """What packing the whole operand takes of a workspace."""
    return packed_bytes(a, leaf) + 64 + threads * <Py_ssize_t>(span_bytes(a, leaf) + 128)


cdef PackedWeights pack_operand(const operand* a, const leaf_table* leaf, int threads):
    """The whole operand in micro-kernel order, for as long as the object lives."""
    cdef pack_job job
    cdef PackedWeights result = PackedWeights()
    result.store = Workspace(packed_bytes(a, leaf))
    result.leaf = leaf
    result.shape = a[0]
    job.a, job.leaf, job.dst = a, leaf, result.store.data
    run(pack_task, &job,
        a.groups * (lane_panels(a.rows, leaf) if a.lanes else ceil_div(a.rows, leaf.mr)),
        useful_threads(threads, 16.0 * a.groups * a.rows * a.depth), span_bytes(a, leaf))
    result.shape.packed = result.store.data
    return result


cdef class PackedWeights:
    """Weights in micro-kernel order; made by a plan, used by every call of it."""

    cdef void take_place_of(self, operand* a) noexcept:
        """Have the same weights read here."""
        a.packed, a.lanes = self.shape.packed, self.shape.lanes

    @property
    def nbytes(self):
        return self.store.nbytes


# ---- forward ----------------------------------------------------------------------------------

cdef struct gemm_job:
    const leaf_table* leaf
    const packer* pk
    const operand* a
    const tensor* out           # (N, groups * rows, O0, O1, O2)
    const char* bias
    const planes* direct        # B is read there, not packed; or NULL
    const char* prepared        # samples from `first`
    Py_ssize_t sample_bytes
    bint by_group               # tasks prepare the group they are at, of so many samples
    Py_ssize_t together
    Py_ssize_t groups, rows, depth
    Py_ssize_t lines            # per sample and group: 1, or those of the planes
    Py_ssize_t unit             # pixels that are not parted: of a panel, or of an output row
    Py_ssize_t pixels, panels   # of a line; as panels count what is not parted
    Py_ssize_t pitch            # pixels from one output row to the next
    Py_ssize_t first            # sample of the first panel
    Py_ssize_t all_panels
    Py_ssize_t kc, nc, mc, tile_rows
    Py_ssize_t row_splits
    bint flat                   # the pixels of an output plane are evenly spaced, by
    Py_ssize_t pixel_stride     # this many bytes
    bint to_output              # the micro-kernel may write results where they belong
    bint rows_to_output         # panels that lie in one output row, at least
    finish_fn finish            # or NULL
    bint deep                   # more than CHAIN_BLOCKS blocks
    Py_ssize_t tile_width       # elements from one row of a C tile to the next
    bint in_place               # A is read where it is
    Py_ssize_t width            # columns of a panel of packed B: nr, or a whole tile's
    bint by_pixel               # B is packed by pixels, so many elements apart,
    Py_ssize_t depths           # ... so many depths at a time: whole blocks
    bint lanes                  # rows of A are in lanes
    bint across                 # and pixels of all samples follow each other
    Py_ssize_t plane            # pixels of a sample
    size_t lane_bytes
    size_t a_bytes, b_bytes, c_bytes, offset_bytes, group_bytes


cdef inline Py_ssize_t row_step(const gemm_job* job) noexcept nogil:
    """Rows of a block, or of a panel of lanes."""
    return job.leaf.nr if job.lanes else job.leaf.mr


cdef inline Py_ssize_t pixel_step(const gemm_job* job) noexcept nogil:
    """Pixels that stay together."""
    return job.unit


cdef inline Py_ssize_t row_blocks(const gemm_job* job) noexcept nogil:
    return lane_panels(job.rows, job.leaf) if job.lanes else ceil_div(job.rows, job.leaf.mr)


cdef int split_threads(gemm_job* job, int threads) noexcept nogil:
    """Split pixels and rows for the least work of the busiest thread; returns how many there are.

    In units of a multiply-add row, or cycles: arithmetic, plus packing B (per pixel) and streaming
    A (per row), each about a third of a unit, or more as the packer says.  Where threads have few
    panels each of the same planes, they write to the same cache lines, again for each block of KC.
    """
    cdef Py_ssize_t i, splits, rows, pixels, share, blocks = row_blocks(job)
    cdef bint again = job.to_output and job.depth > job.kc
    cdef double cost, best = -1
    cdef int used = 1
    job.row_splits = 1
    for i in range(1, threads + 1):
        if i > job.all_panels:
            break
        splits = min(threads // i, blocks)
        share = ceil_div(job.all_panels, i)
        pixels = share * pixel_step(job)
        if not job.lanes:   # as many as are computed
            pixels = round_up(pixels, job.leaf.nr // 2)
        rows = min(job.rows, ceil_div(blocks, splits) * row_step(job))
        cost = <double>pixels * rows / MACS + (pixels + rows) / 3.0 + pixels * job.pk.effort
        if again and share % job.panels > 0 and pixels <= FEW_PANELS * job.leaf.nr:
            cost += <double>SHARED * rows / job.kc
        if best < 0 or cost < best:
            best = cost
            job.row_splits, used = splits, <int>(i * splits)
    return used


cdef size_t scratch_of(gemm_job* job) noexcept nogil:
    cdef Py_ssize_t es = job.leaf.esize, columns = round_up(job.nc, job.leaf.nr)
    job.b_bytes = job.offset_bytes = job.lane_bytes = job.group_bytes = 0
    if job.by_group:
        job.group_bytes = aligned(job.together * job.pk.group_bytes)
    if job.direct == NULL:
        # Panels of nr columns: nr * kc elements next to each other.  Few rows take more columns at
        # once, and do not read B often enough for that to matter: all columns next to each other.
        # So they are where packing is a computation, by rows.
        job.width = job.leaf.nr
        if LEAF_WIDE(job.rows, job.leaf.mr) > 1 or job.pk.row or job.lanes:
            job.width = odd_lines(columns, es)
        job.b_bytes = aligned(job.kc * max(columns, job.width) * es)
        if job.by_pixel:
            job.width = odd_lines(job.depths + LINE // es, es)
            job.b_bytes = aligned(job.nc * job.width * es)
        job.offset_bytes = aligned(job.depths * sizeof(Py_ssize_t))
    elif job.direct.end != NULL:
        job.b_bytes = aligned(job.kc * job.leaf.nr * es) + aligned(job.kc * sizeof(Py_ssize_t))
    job.a_bytes = 0 if job.in_place or job.a.packed else aligned(
        round_up(job.mc, job.leaf.mr) * job.kc * es)
    job.tile_width = odd_lines(columns, es)
    job.c_bytes = 0 if job.to_output else aligned(job.tile_rows * job.tile_width * es)
    if job.lanes:
        job.c_bytes = aligned((job.tile_rows + job.leaf.nr // 2) * job.nc * es)
        job.lane_bytes = aligned(2 * job.nc * sizeof(Py_ssize_t)) + aligned(
            2 * job.leaf.nr * (job.tile_width + 1) * es)
    return (job.group_bytes + job.a_bytes + job.b_bytes + job.offset_bytes + job.lane_bytes
            + job.c_bytes * (2 if job.deep else 1)
            + aligned(job.pk.scratch) + aligned(job.pk.scratch_per_pixel * job.nc))


cdef void take_unit(gemm_job* job, Py_ssize_t unit) noexcept nogil:
    """Have so many pixels not be parted."""
    cdef Py_ssize_t lines = job.all_panels // job.panels
    job.unit = unit
    job.panels = ceil_div(job.pixels, unit)
    job.all_panels = lines * job.panels


cdef bint take_rows(gemm_job* job, Py_ssize_t most, int threads) noexcept nogil:
    """Have tiles be of whole output rows, evenly many, if the packer wants them; whether it is so.

    Such a tile has `most` pixels at most, and its last panel may be a short one.
    """
    cdef Py_ssize_t row = job.pk.row, rows, even, count
    if row == 0 or row > most or job.panels == 0:
        return False
    rows = job.pixels // row
    if job.all_panels // job.panels * rows < 2 * threads:
        return False
    even = least_multiple(job.unit, row) // row     # so many rows are whole panels
    most //= row
    count = ceil_div(rows, ceil_div(rows, most))
    if count < rows:
        if round_up(count, job.pk.rows) <= most:
            count = round_up(count, job.pk.rows)
        elif count > job.pk.rows:
            count -= count % job.pk.rows
        if round_up(count, even) <= most:
            count = round_up(count, even)
    take_unit(job, row)
    job.nc = count * row
    return True


cdef size_t fit_blocks(gemm_job* job, int* threads, Py_ssize_t budget) noexcept nogil:
    """Choose tile sizes within the workspace; returns bytes of scratch per thread."""
    cdef Py_ssize_t nr = pixel_step(job), mr = job.leaf.mr, es = job.leaf.esize, tiles, most
    cdef Py_ssize_t step = row_step(job), unit = nr
    cdef size_t scratch
    job.nc = min(MOST_PIXELS, max(nr, TILE_BYTES // (job.kc * es) // nr * nr))
    if SHALLOW_BYTES >= LEAST_PIXELS * job.kc * es:
        job.nc = min(job.nc, SHALLOW_BYTES // (job.kc * es) // nr * nr)
    if (job.direct != NULL or job.pk.row) and not job.to_output:
        # planes: the C tile takes the place of B in L2; rows are not packed again for more of it
        job.nc = min(job.nc, max(4 * nr, TILE_BYTES // (job.rows * es) // nr * nr))
    if job.direct != NULL and LEAF_WIDE(job.rows, mr) > 1:
        # inputs are read once, as many on end as the micro-kernel takes: they need not stay near
        job.nc = max(nr, LEAF_LONG // (job.rows * es) // nr * nr)
    job.depths = job.kc
    if job.lanes:
        # inputs of KC depths stay in L1; neighbours share them where there are taps
        job.nc = SHALLOW_BYTES // (job.kc * es) * (
            job.direct.taps if job.direct != NULL else 1)
        job.nc = min(MOST_LANE_PIXELS, max(
            PACKED_LANE_PIXELS if job.by_pixel else LEAST_LANE_PIXELS, job.nc // nr * nr))
    most = job.nc
    if take_rows(job, min(most + most // 2, MOST_PIXELS), threads[0]):
        nr = job.unit
    elif job.panels * nr < job.nc:
        job.nc = job.panels * nr
    elif job.panels > 0:        # even tiles: no small one at the end of a plane
        tiles = ceil_div(job.panels * nr, job.nc)
        job.nc = ceil_div(job.panels, tiles) * nr
    job.nc = max(job.nc, nr)
    job.mc = min(round_up(max(job.rows, 1), mr), max(mr, BLOCK_BYTES // (job.kc * es) // mr * mr))
    if job.kc * job.nc * es <= SHALLOW_BYTES + SHALLOW_BYTES // 2:
        job.mc = mr             # B is in L1 as a whole: results are written row by row
    job.tile_rows = min(round_up(max(job.rows, 1), step),
                        max(step, RESULT_BYTES // (job.nc * es) // step * step))
    if job.by_pixel:
        job.depths = job.kc * max(<Py_ssize_t>1, min(
            ceil_div(job.depth, job.kc), TILE_BYTES // (job.nc * es * job.kc)))
    scratch = scratch_of(job)
    while <Py_ssize_t>(scratch + 128) * threads[0] > budget:
        if job.depths > job.kc:
            job.depths = round_up(job.depths // 2, job.kc)
        elif job.nc > nr:
            job.nc = round_up(job.nc // 2, nr)
        elif nr != unit:
            nr = unit
            take_unit(job, nr)
            job.nc = round_up(job.nc // 2, nr)
        elif job.tile_rows > step and not job.to_output:
            job.tile_rows = round_up(job.tile_rows // 2, step)
        elif job.mc > mr and job.a_bytes:
            job.mc = round_up(job.mc // 2, mr)
        elif threads[0] > 1:
            threads[0] -= 1
        else:
            break
        scratch = scratch_of(job)
    return scratch


cdef void store_tile(
    const gemm_job* job, char* dst, const char* tile, Py_ssize_t rows, Py_ssize_t line,
    Py_ssize_t p, Py_ssize_t count
) noexcept nogil:
    """Rows of a C tile to their places in the output, pixel p of a line at column 0."""
    cdef const tensor* out = job.out
    cdef Py_ssize_t length, o0, o1, o2, es = job.leaf.esize
    if job.flat:
        job.leaf.store[out.storage](
            dst + (line * job.pixels + p) * job.pixel_stride, out.stride[1], job.pixel_stride,
            tile, job.tile_width, rows, count)
        return
    while count > 0:
        o2 = p % job.pitch
        o1 = p // job.pitch % out.shape[3]
        o0 = p // job.pitch // out.shape[3] + line
        if o2 < out.shape[4]:
            job.leaf.store[out.storage](
                dst + o0 * out.stride[2] + o1 * out.stride[3] + o2 * out.stride[4],
                out.stride[1], out.stride[4], tile, job.tile_width, rows,
                min(count, out.shape[4] - o2))
        length = min(count, job.pitch - o2)
        tile += length * es
        p += length
        count -= length


cdef inline Py_ssize_t in_one_row(const gemm_job* job, Py_ssize_t p) noexcept nogil:
    """Pixels of the panels from pixel p of a line on that lie in one output row."""
    return (job.out.shape[4] - p % job.pitch) // job.leaf.nr * job.leaf.nr


cdef inline char* place_in_row(
    const gemm_job* job, char* plane, Py_ssize_t line, Py_ssize_t p
) noexcept nogil:
    """Where the results of such panels go."""
    cdef const tensor* out = job.out
    cdef Py_ssize_t row = p // job.pitch
    return (plane + (line + row // out.shape[3]) * out.stride[2]
            + row % out.shape[3] * out.stride[3] + p % job.pitch * out.stride[4])


cdef inline Py_ssize_t before_the_end(const gemm_job* job, const char* b) noexcept nogil:
    """Pixels of the panels from b on whose inputs, at any depth, may all be read."""
    cdef Py_ssize_t room = (job.direct.end - b) // job.leaf.esize - job.direct.reach
    return max(room, <Py_ssize_t>0) // job.leaf.nr * job.leaf.nr


cdef const Py_ssize_t* offsets_at_end(
    const gemm_job* job, const char* b, const Py_ssize_t* offset, Py_ssize_t depth, Py_ssize_t n,
    char* room
) noexcept nogil:
    """Offsets from b of a panel of n pixels, by copies of what lies too near to the end."""
    cdef Py_ssize_t nr = job.leaf.nr, es = job.leaf.esize, k
    cdef Py_ssize_t furthest = (job.direct.end - b) // es - nr
    cdef Py_ssize_t* result = <Py_ssize_t*>room
    room += aligned(job.kc * sizeof(Py_ssize_t))
    for k in range(depth):
        result[k] = offset[k]
        if offset[k] > furthest:
            memcpy(room, b + offset[k] * es, n * es)
            memset(room + n * es, 0, (nr - n) * es)
            result[k] = (room - b) // es
            room += nr * es
    return result


cdef void gemm_block(
    const gemm_job* job, const char* a, Py_ssize_t a_rs, const char* b, const Py_ssize_t* offset,
    bint add, Py_ssize_t depth, char* c, Py_ssize_t c_rs,
    Py_ssize_t rows, Py_ssize_t count, const char* bias, char* plane, Py_ssize_t line,
    Py_ssize_t p, char* room, leaf_soon* soon
) noexcept nogil:
    """c[rows, count] (+)= A block * B tile: panels of nr pixels, mr rows at a time.

    Depth k of pixel j of B is at element j + offset[k]; without offsets the panels follow each
    other.  Panels within an output row go where they belong, not to c.  `room` is for a panel and
    its offsets.
    """
    cdef const leaf_table* leaf = job.leaf
    cdef Py_ssize_t nr = leaf.nr, es = leaf.esize, j = 0, n, rs
    cdef char* dst
    cdef const Py_ssize_t* at
    cdef bint packed = job.direct == NULL and job.width == nr
    while j < count:
        n, dst, rs, at = count - j, c + j * es, c_rs, offset
        if job.rows_to_output:
            n = min(n, in_one_row(job, p + j))
            if n > 0:
                dst, rs = place_in_row(job, plane, line, p + j), job.out.stride[1] // es
            else:
                n = min(nr, count - j)
        if job.direct != NULL and job.direct.end != NULL:
            n = min(n, before_the_end(job, b + j * es))
            if n <= 0:
                n = min(nr, count - j)
                at = offsets_at_end(job, b + j * es, offset, depth, n, room)
        if packed:
            leaf.gemm(
                rows, n, depth, a, a_rs, b + j * depth * es, nr, depth * nr, dst, rs, bias, add,
                soon)
        else:
            leaf.gemm_at(rows, n, depth, a, a_rs, b + j * es, at, dst, rs, bias, add)
        j += n


cdef void store_rest(
    const gemm_job* job, char* plane, const char* tile, Py_ssize_t rows, Py_ssize_t line,
    Py_ssize_t p, Py_ssize_t count
) noexcept nogil:
    """`store_tile` of what is not in the output yet: the panels that lie across two rows."""
    cdef Py_ssize_t j = 0, done = 0, inside, nr = job.leaf.nr, es = job.leaf.esize
    if job.rows_to_output:
        while j < count:
            inside = in_one_row(job, p + j)
            if inside > 0:
                if j > done:
                    store_tile(job, plane, tile + done * es, rows, line, p + done, j - done)
                done = j + inside
            j += max(inside, nr)
    if count > done:
        store_tile(job, plane, tile + done * es, rows, line, p + done, count - done)


cdef void inputs_soon(
    const gemm_job* job, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p, Py_ssize_t count,
    Py_ssize_t k, Py_ssize_t rows, leaf_soon* soon
) noexcept nogil:
    """What is packed once depths before k of `count` pixels, from p on, have met so many rows."""
    cdef Py_ssize_t tiles = ceil_div(rows, job.leaf.mr) * ceil_div(count, job.leaf.nr)
    if k >= job.depth:
        k = 0
        p += count
        count = min(job.nc, job.pixels - p)
    soon.rows = soon.done = 0
    if job.pk.soon != NULL and count > 0:
        job.pk.soon(job.pk.ctx, n, g, p, count, k, min(k + job.kc, job.depth), soon)
        soon.each = ceil_div(soon.rows * ceil_div(soon.bytes, LINE), tiles)


cdef void gemm_tile(
    const gemm_job* job, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t line, Py_ssize_t p,
    Py_ssize_t count, Py_ssize_t m_lo, Py_ssize_t m_hi
) noexcept nogil:
    """One tile of pixels of a line, output rows m_lo .. m_hi-1 of group g."""
    cdef const leaf_table* leaf = job.leaf
    cdef const operand* a = job.a
    cdef const tensor* out = job.out
    cdef Py_ssize_t es = leaf.esize, nr = leaf.nr
    cdef char* b = scratch
    cdef char* a_block = b + job.b_bytes
    cdef char* tile = a_block + job.a_bytes
    cdef char* part = tile + job.c_bytes    # of a deep sum
    cdef Py_ssize_t* step = <Py_ssize_t*>(part + job.c_bytes if job.deep else part)
    cdef char* own = <char*>step + job.offset_bytes
    cdef char* plane
    cdef char* c
    cdef const char* rows_at
    cdef const char* bias
    cdef const Py_ssize_t* offset = NULL
    cdef Py_ssize_t m, i, j, k, depth, tile_rows, rows, columns, c_rs, a_rs, block
    cdef leaf_soon soon
    soon.rows = 0
    tile_rows = m_hi - m_lo if job.to_output else job.tile_rows
    if job.direct != NULL:
        b = <char*>job.prepared + (n - job.first) * job.sample_bytes + es * (
            g * job.direct.group_stride + line * job.direct.line_stride + p)
    else:
        if job.width > nr:
            offset = step
            for k in range(job.kc):
                step[k] = k * job.width
        if job.pk.begin != NULL:
            job.pk.begin(job.pk.ctx, own, n, g, p, count)
    m = m_lo
    while m < m_hi:
        plane = out.data + n * out.stride[0] + (g * job.rows + m) * out.stride[1]
        bias = job.bias + (g * job.rows + m) * es if job.bias != NULL else NULL
        if job.to_output:
            c, c_rs = plane + (line * job.pixels + p) * es, out.stride[1] // es
        else:
            c, c_rs = tile, job.tile_width
        k = block = 0
        while True:             # at least once: without inputs the result is the bias
            depth = min(job.kc, job.depth - k)
            if job.direct == NULL and depth > 0 and (m == m_lo or job.depth > job.kc):
                if count % nr:      # columns that are computed and dropped
                    j = count // job.width * job.width
                    leaf.clear(
                        b + (j * depth + count - j) * es, job.width, depth, nr - count % nr)
                job.pk.pack(job.pk.ctx, own, n, g, p, count, k, k + depth, job.width, b)
                inputs_soon(job, n, g, p, count, k + depth, min(tile_rows, m_hi - m), &soon)
            i = 0
            while i < min(tile_rows, m_hi - m):
                rows = min(job.mc, min(tile_rows, m_hi - m) - i)
                if a.packed != NULL:
                    rows_at = a.packed + packed_at(a, leaf, g, m + i, k, depth)
                    a_rs = 0
                elif job.in_place:
                    rows_at = (a.t.data + g * a.t.stride[0] + (m + i) * a.t.stride[1] + k * es)
                    a_rs = a.t.stride[1] // es
                else:
                    pack_rows(a, leaf, g, m + i, rows, k, k + depth, a_block)
                    rows_at = a_block
                    a_rs = 0
                columns = count if job.to_output else round_up(count, nr // 2)
                if job.direct != NULL:
                    offset = job.direct.offset + k
                gemm_block(
                    job, rows_at, a_rs, b, offset, block > 0, depth, c + i * c_rs * es,
                    c_rs, rows, columns, bias + i * es if bias != NULL and k == 0 else NULL,
                    plane + i * out.stride[1], line, p, scratch, &soon)
                i += rows
            k += job.kc
            block += 1
            if job.deep and (block == CHAIN_BLOCKS or k >= job.depth):
                if c == part:
                    leaf.add_strided(
                        min(tile_rows, m_hi - m) * job.tile_width, part, tile, 1)
                c, block = part, 0
            if k >= job.depth:
                break
        if job.finish != NULL:
            job.finish(
                job.pk.ctx, n, g * job.rows + m, min(tile_rows, m_hi - m), line * job.pixels + p,
                count, tile, job.tile_width, 1)
        if not job.to_output:
            store_rest(job, plane, tile, min(tile_rows, m_hi - m), line, p, count)
        m += tile_rows


# ---- rows in lanes ----------------------------------------------------------------------------

cdef inline Py_ssize_t pixel_at(
    const gemm_job* job, Py_ssize_t row, Py_ssize_t o2
) noexcept nogil:
    """Where output o2 of a row of all samples' is, in elements from the first sample."""
    cdef const planes* at = job.direct
    cdef const Py_ssize_t* out = job.out.shape
    return (row // (out[2] * out[3]) * (job.sample_bytes // job.leaf.esize)
            + row // out[3] % out[2] * at.pixel_stride[0]
            + row % out[3] * at.pixel_stride[1] + o2 * at.pixel_stride[2])


cdef void find_pixels(
    const gemm_job* job, Py_ssize_t p, Py_ssize_t count, Py_ssize_t* pixel
) noexcept nogil:
    """Where pixels p .. p+count-1 of all samples are, in elements from the first sample."""
    cdef const planes* at = job.direct
    cdef const Py_ssize_t* out = job.out.shape
    cdef Py_ssize_t j = 0, o2 = p % out[4], row = p // out[4], first, length, i
    while j < count:
        first = pixel_at(job, row, o2)
        length = min(count - j, out[4] - o2)
        for i in range(length):
            pixel[j + i] = first + i * at.pixel_stride[2]
        j += length
        o2 = 0
        row += 1


cdef void sort_pixels(
    const gemm_job* job, Py_ssize_t p, Py_ssize_t count, Py_ssize_t* pixel, Py_ssize_t* place,
    Py_ssize_t* begin
) noexcept nogil:
    """`find_pixels` class by class: where each pixel is, and its place in the tile."""
    cdef const planes* at = job.direct
    cdef const cuts* cut = at.cut
    cdef const Py_ssize_t* out = job.out.shape
    cdef const unsigned char* along
    cdef Py_ssize_t next[MOST_CLASSES]
    cdef Py_ssize_t j, o2, row, first, length, i, kind, row_kind
    cdef int time
    for kind in range(cut.classes + 1):
        begin[kind] = 0
    for time in range(2):       # counted, then sorted
        j, o2, row = 0, p % out[4], p // out[4]
        while j < count:
            length = min(count - j, out[4] - o2)
            kind = cut.along[0][row // out[3] % out[2]]
            if kind == 0:
                kind = cut.along[1][row % out[3]]
            along = cut.along[2] + o2
            if time == 0 and kind > 0:
                begin[kind + 1] += length
            elif time == 0:
                for i in range(length):
                    begin[along[i] + 1] += 1
            else:
                first = pixel_at(job, row, o2)
                for i in range(length):
                    row_kind = kind if kind > 0 else along[i]
                    pixel[next[row_kind]] = first + i * at.pixel_stride[2]
                    place[next[row_kind]] = j + i
                    next[row_kind] += 1
            j += length
            o2 = 0
            row += 1
        if time == 0:
            for kind in range(cut.classes):
                begin[kind + 1] += begin[kind]
                next[kind] = begin[kind]


cdef inline bint in_rows(const gemm_job* job) noexcept nogil:
    """Whether pixels follow each other in the output."""
    return job.flat and job.out.in_place and job.pixel_stride == job.leaf.esize


cdef inline bint channels_last(const gemm_job* job) noexcept nogil:
    return 0 < job.out.stride[1] < job.out.stride[4]


cdef void store_lanes(
    const gemm_job* job, Py_ssize_t n, Py_ssize_t g, Py_ssize_t m, Py_ssize_t rows, Py_ssize_t p,
    Py_ssize_t count, const char* c, Py_ssize_t lanes, char* turned
) noexcept nogil:
    """c[pixel][lane], rows from m of group g and pixels from p of sample n, to the output."""
    cdef const leaf_table* leaf = job.leaf
    cdef const tensor* out = job.out
    cdef Py_ssize_t length, row
    cdef char* dst
    while count > 0:
        n += p // job.plane
        p %= job.plane
        length = min(count, job.plane - p)
        dst = out.data + n * out.stride[0] + (g * job.rows + m) * out.stride[1]
        if channels_last(job):
            if not job.flat:
                length = min(length, out.shape[4] - p % out.shape[4])
            row = p // out.shape[4]
            leaf.store[out.storage](
                dst + row // out.shape[3] * out.stride[2] + row % out.shape[3] * out.stride[3]
                + p % out.shape[4] * out.stride[4],
                job.pixel_stride if job.flat else out.stride[4], out.stride[1], c, lanes, length,
                rows)
        elif in_rows(job):
            leaf.transpose(
                length, rows, c, lanes, dst + p * leaf.esize, out.stride[1] // leaf.esize)
        else:
            leaf.transpose(length, rows, c, lanes, turned, job.tile_width)
            store_tile(job, dst, turned, rows, 0, p, length)
        c += length * lanes * leaf.esize
        p += length
        count -= length


cdef void multiply_classes(
    const gemm_job* job, Py_ssize_t block, Py_ssize_t lanes, const char* a, const char* b,
    const Py_ssize_t* offset, const Py_ssize_t* begin, const Py_ssize_t* pixel,
    const Py_ssize_t* place, char* c, const char* bias, bint add, leaf_soon* soon
) noexcept nogil:
    """A panel of rows by sorted pixels, of a block of KC each with the depths it needs."""
    cdef const cuts* cut = job.direct.cut
    cdef const Py_ssize_t* start
    cdef Py_ssize_t kind
    for kind in range(cut.classes):
        if begin[kind + 1] > begin[kind]:
            start = cut.start + kind * cut.blocks + block
            job.leaf.gemm_some(
                lanes, begin[kind + 1] - begin[kind], start[1] - start[0], a,
                cut.which + kind * cut.depth + start[0], b, offset, pixel + begin[kind],
                place + begin[kind], c, bias, add, soon)


cdef Py_ssize_t run_of(const gemm_job* job) noexcept nogil:
    """Depths of a block next to each other, from each multiple of so many on; 0 if all are."""
    cdef const planes* at = job.direct
    if at == NULL:
        return 0 if job.by_pixel else 1
    if at.width == 1 or at.offset[1] != at.offset[0] + 1:
        return 1
    return at.width if job.depth <= job.kc else gcd(at.width, job.kc)


cdef void results_soon(
    const gemm_job* job, Py_ssize_t n, Py_ssize_t m, Py_ssize_t rows, Py_ssize_t p,
    Py_ssize_t count, leaf_soon* soon
) noexcept nogil:
    """Where the rows of a tile are stored, if in rows of pixels: those of its first sample."""
    cdef Py_ssize_t pixels = min(count, job.plane - p % job.plane)
    cdef Py_ssize_t tiles = (
        max(<Py_ssize_t>1, ceil_div(job.depth, job.kc)) * ceil_div(rows, job.leaf.nr)
        * ceil_div(count, LANE_PIXELS))
    soon.rows = soon.done = 0
    if in_rows(job) and not channels_last(job):
        soon.at = (job.out.data + (n + p // job.plane) * job.out.stride[0]
                   + m * job.out.stride[1] + p % job.plane * job.leaf.esize)
        soon.step, soon.rows, soon.bytes = job.out.stride[1], rows, pixels * job.leaf.esize
        soon.each = ceil_div(rows * ceil_div(soon.bytes, LINE), tiles)


cdef void next_inputs(
    const gemm_job* job, const char* b, Py_ssize_t p, Py_ssize_t count, Py_ssize_t products,
    leaf_soon* soon
) noexcept nogil:
    """What the tile after `count` pixels from p meets with its last row of taps, of each channel.

    With the rows above it meets what tiles before have met.  `products` of panels are left to ask
    for it; of planes that stay in the cache, `soon` is left alone.
    """
    cdef const planes* at = job.direct
    cdef Py_ssize_t es = job.leaf.esize, width = job.out.shape[4], first, last
    p += count
    count = min(min(count, job.pixels - p), job.plane - p % job.plane)   # of a sample
    if at.data != NULL or job.sample_bytes < FAR_BYTES or at.taps >= job.depth or count <= 0:
        return
    first = pixel_at(job, p // width, p % width) + at.offset[at.taps - at.width]
    last = pixel_at(job, (p + count - 1) // width, (p + count - 1) % width) + at.offset[at.taps - 1]
    soon.at = b + first * es
    soon.step, soon.bytes = (at.offset[at.taps] - at.offset[0]) * es, (last - first + 1) * es
    soon.rows = job.depth // at.taps
    soon.each = ceil_div(soon.rows, products)


cdef void next_depths(
    const gemm_job* job, const char* b, Py_ssize_t p, Py_ssize_t count, Py_ssize_t k,
    Py_ssize_t products, leaf_soon* soon
) noexcept nogil:
    """What the products after those of the depths before k meet: the next depths of `count` pixels
    from p, or the first ones of the next tile."""
    cdef const planes* at = job.direct
    cdef Py_ssize_t es = job.leaf.esize, width = job.out.shape[4], channel, first, last, tap
    if k >= job.depth:
        k = 0
        p += count
        count = min(count, job.pixels - p)
    count = min(count, job.plane - p % job.plane)   # of a sample
    if count <= 0:
        return
    channel = k // at.taps
    first, last = at.offset[channel * at.taps], at.offset[(channel + 1) * at.taps - 1]
    tap = min(first, last)
    last = (max(first, last)
            + pixel_at(job, (p + count - 1) // width, (p + count - 1) % width))
    first = tap + pixel_at(job, p // width, p % width)
    soon.at, soon.bytes = b + first * es, (last - first + 1) * es
    soon.step = (at.offset[at.taps] - at.offset[0]) * es if at.taps < job.depth else 0
    soon.rows = ceil_div(min(k + job.kc, job.depth), at.taps) - channel
    soon.each = ceil_div(soon.rows, products)


cdef inline void ask_for_rows(leaf_soon* soon) noexcept nogil:
    """`each` rows of what is read soon, into L2."""
    cdef Py_ssize_t _row, line
    for _row in range(min(soon.each, soon.rows)):
        for line in range(ceil_div(soon.bytes, LINE)):
            __builtin_prefetch(soon.at + line * LINE, 0, 2)
        soon.at += soon.step
        soon.rows -= 1


cdef void lanes_tile(
    const gemm_job* job, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p,
    Py_ssize_t count, Py_ssize_t m_lo, Py_ssize_t m_hi
) noexcept nogil:
    """One tile of pixels, from pixel p of sample n, output rows m_lo .. m_hi-1 of group g.

    All panels of rows meet the same KC depths before the next ones, so that weights stream once and
    inputs stay in L1.
    """
    cdef const leaf_table* leaf = job.leaf
    cdef const operand* a = job.a
    cdef Py_ssize_t es = leaf.esize, k, m, depth, lanes, block, tile_hi
    cdef char* b = scratch
    cdef char* tile = b + job.b_bytes
    cdef char* part = tile + job.c_bytes    # of a deep sum
    cdef Py_ssize_t* step = <Py_ssize_t*>(part + job.c_bytes if job.deep else part)
    cdef Py_ssize_t* pixel = <Py_ssize_t*>(<char*>step + job.offset_bytes)
    cdef Py_ssize_t* place = pixel + job.nc
    cdef char* last_bias = <char*>pixel + aligned(2 * job.nc * sizeof(Py_ssize_t))
    cdef char* turned = last_bias + 2 * leaf.nr * es
    cdef char* own = <char*>pixel + job.lane_bytes
    cdef char* c
    cdef const char* bias
    cdef const char* weights
    cdef const Py_ssize_t* offset = step
    cdef Py_ssize_t depth_step = 1 if job.by_pixel else job.width
    cdef Py_ssize_t pixel_step = job.width if job.by_pixel else 1
    cdef Py_ssize_t run_length = run_of(job)
    cdef const cuts* cut = job.direct.cut if job.direct != NULL else NULL
    cdef Py_ssize_t begin[MOST_CLASSES + 1]
    cdef leaf_soon soon, inputs
    inputs.rows = inputs.each = 0
    if job.direct != NULL:
        b = <char*>job.prepared + es * g * job.direct.group_stride
        next_inputs(
            job, b, p, count, ceil_div(job.depth, job.kc) * ceil_div(m_hi - m_lo, leaf.nr), &inputs)
        if cut != NULL:
            sort_pixels(job, p, count, pixel, place, begin)
        else:
            find_pixels(job, p, count, pixel)
    else:
        for k in range(job.depths):
            step[k] = k * depth_step
        for k in range(count):
            pixel[k] = k * pixel_step
        if job.pk.begin != NULL:
            job.pk.begin(job.pk.ctx, own, n, g, p, count)
    while m_lo < m_hi:
        results_soon(
            job, n, g * job.rows + m_lo, min(job.tile_rows, m_hi - m_lo), p, count, &soon)
        c = tile
        k = block = 0
        while True:             # at least once: without inputs the result is the bias
            depth = min(job.kc, job.depth - k)
            if job.direct != NULL:
                offset = job.direct.offset + k
            elif job.by_pixel:
                if depth > 0 and k % job.depths == 0:
                    job.pk.by_pixel(
                        job.pk.ctx, own, n, g, p, count, k, min(k + job.depths, job.depth),
                        job.width, b)
                offset = step + k % job.depths
            elif depth > 0:
                job.pk.pack(job.pk.ctx, own, n, g, p, count, k, k + depth, job.width, b)
            if job.direct != NULL and job.direct.patches:
                next_depths(
                    job, b, p, count, k + job.kc,
                    ceil_div(min(job.tile_rows, m_hi - m_lo), leaf.nr), &inputs)
            m = m_lo
            while m < m_hi and m - m_lo < job.tile_rows:
                lanes = lanes_from(a.rows - m, leaf)
                bias = NULL
                if k == 0 and job.bias != NULL:
                    bias = job.bias + (g * job.rows + m) * es
                    if lanes > job.rows - m:
                        memcpy(last_bias, bias, (job.rows - m) * es)
                        bias = last_bias
                weights = a.packed + packed_at(a, leaf, g, m, k, depth)
                ask_for_rows(&inputs)
                if cut == NULL:
                    leaf.gemm_lanes(
                        lanes, count, depth, run_length, weights, b, offset, pixel,
                        c + (m - m_lo) * count * es, bias, block > 0, &soon)
                else:
                    multiply_classes(
                        job, k // job.kc, lanes, weights, b, offset, begin, pixel, place,
                        c + (m - m_lo) * count * es, bias, block > 0, &soon)
                m += lanes
            tile_hi = m
            k += job.kc
            block += 1
            if job.deep and (block == CHAIN_BLOCKS or k >= job.depth):
                if c == part:
                    leaf.add_strided((tile_hi - m_lo) * count, part, tile, 1)
                c, block = part, 0
            if k >= job.depth:
                break
        c = tile
        while m_lo < tile_hi:
            lanes = lanes_from(a.rows - m_lo, leaf)
            if job.finish != NULL:
                job.finish(
                    job.pk.ctx, n, g * job.rows + m_lo, min(lanes, job.rows - m_lo), p, count, c,
                    1, lanes)
            store_lanes(
                job, n, g, m_lo, min(lanes, job.rows - m_lo), p, count, c, lanes, turned)
            c += lanes * count * es
            m_lo += lanes


cdef void gemm_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Tasks are the panels of pixels, for each of row_splits ranges of rows."""
    cdef const gemm_job* job = <const gemm_job*>ctx
    cdef Py_ssize_t at, end, line, plane, panel, count, row, m_lo, m_hi, n, g, held = -1
    cdef Py_ssize_t nr = pixel_step(job), step = row_step(job), blocks = row_blocks(job)
    cdef gemm_job own
    cdef planes layout
    cdef Py_ssize_t begin = job.first
    cdef char* store = scratch
    if job.by_group:        # the planes in `store` are those of a single group
        layout, own = job.direct[0], job[0]
        layout.group_stride = 0
        own.direct, own.prepared, own.sample_bytes = &layout, store, job.pk.group_bytes
        scratch += job.group_bytes
        job = &own
    while first < last:
        row, at = first // job.all_panels, first % job.all_panels
        end = min(job.all_panels, at + last - first)
        first += end - at
        m_lo = blocks * row // job.row_splits * step
        m_hi = blocks * (row + 1) // job.row_splits * step
        if row == job.row_splits - 1:
            m_hi = job.rows
        while at < end:
            line = at // job.panels
            panel = at % job.panels
            plane = line // job.lines
            n, g = begin + plane // job.groups, plane % job.groups
            if job.by_group and plane != held:
                job.pk.fill(job.pk.ctx, store, n, job.together, g)
                held = plane
                own.first = n
            count = min(job.nc // nr, min(job.panels - panel, end - at))
            at += count
            count = min(count * nr, job.pixels - panel * nr)
            if job.lanes:
                lanes_tile(job, scratch, n, g, panel * nr, count, m_lo, m_hi)
            else:
                gemm_tile(job, scratch, n, g, line % job.lines, panel * nr, count, m_lo, m_hi)


cdef bint evenly_spaced(const tensor* t, Py_ssize_t* step) noexcept nogil:
    """Whether the last three axes, flattened, are one arithmetic progression of addresses."""
    cdef Py_ssize_t count = t.shape[4], stride = t.stride[4]
    cdef int axis
    for axis in range(3, 1, -1):
        if t.shape[axis] == 1:
            continue
        if count == 1:
            count, stride = t.shape[axis], t.stride[axis]
        elif t.stride[axis] == count * stride:
            count *= t.shape[axis]
        else:
            return False
    step[0] = stride
    return True


cdef Workspace load_bias(object bias, const leaf_table* leaf, int compute):
    """A bias vector in the compute type."""
    cdef tensor t
    cdef Workspace held
    describe(bias, 1, compute, &t)
    held = Workspace(t.shape[0] * leaf.esize)
    leaf.load[t.storage](held.data, 0, t.data, 0, t.stride[0], 1, t.shape[0])
    return held


cdef void divide_pixels(gemm_job* job, const planes* direct) noexcept nogil:
    """Into lines and panels, whether B is read from planes or (NULL) packed."""
    cdef const tensor* out = job.out
    job.direct = direct
    job.by_pixel = job.lanes and direct == NULL and job.pk.by_pixel != NULL
    job.unit = LANE_STEP if job.lanes else job.leaf.nr
    job.lines, job.pitch = 1, out.shape[4]
    job.pixels = out.shape[2] * out.shape[3] * out.shape[4]
    if direct != NULL and not job.lanes:
        job.lines, job.pixels, job.pitch = direct.lines, direct.length, direct.pitch
    job.plane = job.pixels
    job.across = job.lanes and direct != NULL
    job.pixel_stride = job.leaf.esize
    job.flat = job.pitch == out.shape[4] and evenly_spaced(out, &job.pixel_stride)
    # The output is where sums are made, unless there are to be several or its rows would be kept
    # out of the cache by each other.
    if (job.lanes or job.deep or job.finish != NULL
            or (job.depth > job.kc and out.stride[1] % CACHE_SETS_BYTES == 0)):
        job.to_output = job.rows_to_output = False
        return
    job.to_output = (out.in_place and job.flat
                     and (job.pixel_stride == job.leaf.esize or job.pixels * job.lines == 1))
    job.rows_to_output = (out.in_place and not job.to_output
                          and out.stride[4] == job.leaf.esize
                          and LEAF_WIDE(job.rows, job.leaf.mr) == 1)


cdef void count_panels(gemm_job* job, Py_ssize_t samples) noexcept nogil:
    """Those of so many samples, from the first one."""
    job.pixels = job.plane * samples if job.across else job.plane
    job.panels = ceil_div(job.pixels, pixel_step(job))
    job.all_panels = job.groups * job.lines * job.panels * (1 if job.across else samples)


cdef Py_ssize_t implicit_gemm(
    str operator, const packer* pk, const operand* a, const tensor* out, object bias,
    const leaf_table* leaf, int threads, Py_ssize_t budget, bint measure,
    finish_fn finish=NULL
) except -1:
    """Run it (or only `measure`); returns the bytes of workspace.

    `finish` is for packers without planes.
    """
    cdef gemm_job job
    cdef operand repacked
    cdef PackedWeights held_weights
    cdef Workspace held_bias = None
    cdef Workspace prepared = None
    cdef Py_ssize_t fixed = 0, held = 0, in_order = 0, samples = out.shape[0], shortfall, room
    cdef size_t scratch
    cdef int nt, compute = 1 if leaf.esize == 8 else 0
    job.leaf, job.pk, job.a, job.out, job.bias = leaf, pk, a, out, NULL
    job.groups, job.rows, job.depth = a.groups, a.rows, a.depth
    job.first, job.prepared, job.sample_bytes = 0, NULL, pk.sample_bytes
    job.kc = depth_block(a.depth)
    job.deep = is_deep(a.depth)
    job.finish = finish
    job.lanes = a.packed != NULL and a.lanes
    divide_pixels(&job, NULL)
    if samples * a.groups * job.plane == 0 or a.rows == 0:
        return 0
    job.in_place = a.packed == NULL and readable_in_place(a, leaf)
    threads = useful_threads(threads, 2.0 * samples * job.plane * a.groups * a.depth * (
        a.rows + MACS * pk.effort))
    if bias is not None:
        fixed = a.groups * a.rows * leaf.esize + 64
    if a.packed == NULL and not job.in_place and packed_bytes(a, leaf) <= budget // 3:
        # every tile reads all of A: put it in order once, where the workspace allows
        in_order = packing_bytes(a, leaf, threads)
        fixed += in_order
        repacked = a[0]
        if not measure:
            held_weights = pack_operand(a, leaf, threads)
            repacked = held_weights.shape
        else:
            repacked.packed = a.t.data      # any address: sizes are all that is asked for
        job.a = &repacked
    job.by_group, job.together = False, 1
    room = min(<Py_ssize_t>GROUP_BYTES, budget // (2 * threads))
    if pk.fill != NULL and a.groups > 1 and pk.group_bytes <= room:
        job.by_group = True
        divide_pixels(&job, pk.direct)
        if job.across:
            samples = min(samples, room // pk.group_bytes)
            samples = ceil_div(out.shape[0], ceil_div(out.shape[0], samples))   # as many each time
            job.together = samples
    elif pk.sample_bytes > 0 and pk.sample_bytes <= budget // 2:
        held = min(budget // 2, <Py_ssize_t>threads * PREPARED_BYTES)
        samples = min(samples, max(<Py_ssize_t>1, held // pk.sample_bytes))
        samples = ceil_div(out.shape[0], ceil_div(out.shape[0], samples))   # as many each time
        held = samples * pk.sample_bytes + 64
        divide_pixels(&job, pk.direct)
    elif pk.direct != NULL and pk.direct.data != NULL:
        job.prepared, job.sample_bytes = pk.direct.data, pk.direct.sample_bytes
        divide_pixels(&job, pk.direct)
    while True:
        nt = threads
        count_panels(&job, samples)
        scratch = fit_blocks(&job, &nt, budget - fixed - held)
        nt = split_threads(&job, nt)
        shortfall = fixed + held + nt * (aligned(scratch) + 128) - budget
        if shortfall <= 0 or (held == in_order == 0 and not job.by_group):
            break
        if held > 0 or job.by_group:
            job.by_group = False
            held, samples = 0, out.shape[0]     # no room for prepared samples
            divide_pixels(&job, NULL)
        else:
            job.a = a                           # nor for all of A in order
            fixed -= in_order
            in_order = 0
    if shortfall > 0:
        raise checks.WorkspaceError(operator, budget + shortfall, budget)
    if measure:
        return budget + shortfall
    if bias is not None:
        held_bias = load_bias(bias, leaf, compute)
        job.bias = held_bias.data
    if held > 0:
        prepared = Workspace(held - 64)
        job.prepared = prepared.data
    while job.first < out.shape[0]:
        samples = min(samples, out.shape[0] - job.first)
        if job.across:
            job.together = samples
        count_panels(&job, samples)
        nt = split_threads(&job, nt)
        if held > 0:
            pk.prepare(pk.ctx, prepared.data, job.first, samples, nt)
        run(gemm_task, &job, job.row_splits * job.all_panels, nt, scratch,
            max(job.nc // pixel_step(&job), job.panels * job.lines if job.by_group else 0))
        job.first += samples
    return budget + shortfall
