"""Few channels per group, from the lines of the input where they are, to their very ends.

Where vectors are read and written in part at no cost (`taps_masked`), and neighbours in a row are
wanted, nothing is copied at all: taps read the lines where they are, each found by a pointer, which
is that of zeros where a line is outside the array, and of a vector what is inside.  Rows may be of
any length.  The pointers of a plane are in the order of the lines that rows and taps meet::

    [lines modulo their distance][line], so far apart as the taps of a column are

The order of the sums is that of _depthwise_box.pyx.
"""

from libc.string cimport memset

from pyconv._kernels._cpu cimport LEAF_COLUMN_TAPS, LEAF_MASKED_SPAN, LEAF_MASKED_TALL, leaf_ahead
from pyconv._kernels._depthwise_box cimport (
    BOX_BYTES,
    CHAIN_COLUMNS,
    MOST_COLUMNS,
    load_bias,
    look_ahead,
    place,
    place_of,
    plane_index,
    set_depth,
    span,
    weights_of,
)
from pyconv._kernels._grid cimport PAD_ZEROS, grid, inside
from pyconv._kernels._integers cimport ceil_div, gcd, magnitude, round_up
from pyconv._kernels._parallel cimport aligned
from pyconv._kernels._tensor cimport tensor

cdef enum:
    FEW_TAPS = 9                # that low tiles are worth having for
    SETS = 4096                 # bytes of L1 that have sets of their own, ...
    WAYS = 8                    # ... and how many of a set there are


cdef bint is_halved(const direct_job* job) noexcept nogil:
    """Whether it is 3 x 3 taps at a stride of 2, of long rows; else halves are better copied."""
    cdef const grid* q = &job.q
    return (q.out[2] >= q.leaf.vl and q.channels * q.taps[0] == 1
            and q.taps[1] == q.taps[2] == 3
            and q.stride[1] == q.stride[2] == 2 and q.dilation[1] == q.dilation[2] == 1)


cdef bint crowded(const direct_job* job) noexcept nogil:
    """Whether what a tile reads and writes has more lines in a set of L1 than that has ways."""
    cdef Py_ssize_t apart = job.row_step * job.q.stride[1] * magnitude(job.q.x.stride[3])
    return (2 * LEAF_MASKED_TALL + LEAF_COLUMN_TAPS) * gcd(max(apart, 1), SETS) > WAYS * SETS


cdef size_t choose_masked(direct_job* job) noexcept nogil:
    """Box where vectors are masked; returns the scratch of a task, 0 if they are not."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, planes = q.channels * q.taps[0], most
    cdef Py_ssize_t tall = LEAF_MASKED_TALL * job.row_step
    # of low tiles, multiply-adds wait for those before, all the more the more taps there are
    cdef Py_ssize_t least = 2 if q.channels * job.taps <= FEW_TAPS else 4
    if not (q.leaf.taps_masked != NULL and q.mode == PAD_ZEROS and q.x.in_place
            and q.x.stride[4] == es and (q.stride[2] == 1 or is_halved(job))
            and 0 < job.tap_column_count <= CHAIN_COLUMNS and q.out[1] >= least * job.row_step
            and not crowded(job) and span(q, 2, q.leaf.vl) <= LEAF_MASKED_SPAN
            and min(job.row_step, job.tap_step) == 1):
        return 0
    set_depth(job, 1)
    job.apart = job.row_step * q.stride[1]
    job.column_boxes = ceil_div(q.out[2], MOST_COLUMNS)
    job.columns = ceil_div(q.out[2], job.column_boxes)
    most = (BOX_BYTES // (planes * es * span(q, 2, job.columns)) - span(q, 1, 1)) // q.stride[1] + 1
    job.rows = ceil_div(q.out[1], ceil_div(q.out[1], max(most, tall)))
    job.rows = min(round_up(job.rows, tall), q.out[1])
    job.row_boxes = ceil_div(q.out[1], job.rows)
    job.pitch = ceil_div(span(q, 1, job.rows), job.apart)
    job.lines = job.apart * job.pitch
    job.line_bytes = aligned(span(q, 2, job.columns) * es)      # of zeros
    job.pointer_bytes = aligned(planes * job.lines * sizeof(void*))
    job.weight_bytes = aligned(q.channels * job.taps * es)
    job.bias_bytes = aligned(es)
    return job.line_bytes + job.pointer_bytes + job.weight_bytes + job.bias_bytes


cdef void start_masked(const direct_job* job, char* scratch) noexcept nogil:
    """Clear what stays clear of the scratch of a task."""
    memset(scratch, 0, job.line_bytes)
    memset(scratch + job.line_bytes + job.pointer_bytes + job.weight_bytes, 0, job.bias_bytes)


cdef void point_lines(
    const direct_job* job, const place* at, const char* src, const char* zeros, const void** line
) noexcept nogil:
    """Find the lines of a box.  `src` is the group's element that its first output meets first."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t apart = job.apart, first, lo, hi, some, last, c, t0, i0, r, k, i
    cdef const char* plane
    first = at.row * q.stride[1] + job.s1.low + q.offset[1]
    inside(first, 1, span(q, 1, at.rows), q.x.shape[3], &lo, &hi)
    for c in range(q.channels):
        for t0 in range(q.taps[0]):
            i0 = plane_index(job, at, t0, PAD_ZEROS)
            plane = src + c * q.x.stride[1] + i0 * q.x.stride[2] + first * q.x.stride[3]
            some, last = lo, hi if i0 >= 0 else lo
            for r in range(apart):
                i = r
                for k in range(job.pitch):
                    line[k] = plane + i * q.x.stride[3] if some <= i < last else zeros
                    i += apart
                line += job.pitch


cdef void sum_group(
    const direct_job* job, const place* at, char* scratch, Py_ssize_t n, Py_ssize_t g,
    Py_ssize_t first, Py_ssize_t last, char* dst, Py_ssize_t dst_ms, Py_ssize_t dst_rs,
    leaf_ahead ahead
) noexcept nogil:
    """Channels first .. last-1 of group g in a box; they, and their rows, are bytes apart."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, step = job.row_step, channel, r
    cdef Py_ssize_t column = at.column * q.stride[2] + job.s2.low + q.offset[2]
    cdef const char* src = q.x.data + n * q.x.stride[0] + g * q.channels * q.x.stride[1]
    cdef const void** line = <const void**>(scratch + job.line_bytes)
    cdef char* weights = scratch + job.line_bytes + job.pointer_bytes
    cdef char* start = weights + job.weight_bytes
    cdef const char* weight
    cdef Py_ssize_t calls = min(step, at.rows) * (last - first)
    ahead.read_bytes = ceil_div(ahead.read_bytes, calls)
    ahead.write_bytes = ceil_div(ahead.write_bytes, calls)
    point_lines(job, at, src + column * es, scratch, line)
    for channel in range(g * job.multiplier + first, g * job.multiplier + last):
        weight = weights_of(job, channel, weights)
        load_bias(job, start, channel, 1)
        for r in range(min(step, at.rows)):
            q.leaf.taps_masked(
                ceil_div(at.rows - r, step), at.columns, job.tap_column_count, job.tap_columns,
                q.stride[2], line + r * q.stride[1] * job.pitch, column, q.x.shape[4], weight,
                job.weight_step, start, dst + r * dst_rs, step * dst_rs // es, &ahead)
            ahead.read += ahead.read_bytes
            ahead.write += ahead.write_bytes
        dst += dst_ms


cdef void masked_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef const direct_job* job = <const direct_job*>ctx
    cdef const grid* q = &job.q
    cdef const tensor* out = &job.out
    cdef Py_ssize_t spots = job.plane_boxes * job.row_boxes * job.column_boxes, task, n, g
    cdef place at
    cdef char* dst
    cdef leaf_ahead ahead
    start_masked(job, scratch)
    for task in range(first, last):
        at = place_of(job, task % spots)
        g = task // spots % job.groups
        n = task // spots // job.groups
        dst = (out.data + n * out.stride[0] + g * job.multiplier * out.stride[1]
               + at.o0 * out.stride[2] + at.row * out.stride[3] + at.column * q.leaf.esize)
        ahead = look_ahead(job, &at)
        if job.fetch:       # what follows in memory: the next box, and where its results go
            ahead.read = q.x.data + n * q.x.stride[0] + g * q.x.stride[1] + (
                ((at.row + at.rows) * q.stride[1] + q.offset[1]) * q.x.stride[3])
            ahead.write = dst + at.rows * out.stride[3]
        sum_group(
            job, &at, scratch, n, g, 0, job.multiplier, dst, out.stride[1], out.stride[3], ahead)
