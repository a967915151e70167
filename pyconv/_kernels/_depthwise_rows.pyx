"""Few channels per group, long rows: from the lines of the input where they are.

Where rows are long, and their pixels next to each other or every second one wanted, nothing is
copied but the ends of the lines: taps read them where they are, each found by a pointer, which is
that of zeros, or of another line, where a line is outside the array.  A box is cut into its left
end, its right end, and the middle between them; all three are lists of pointers for the same leaf.

The order of the sums is that of _depthwise_box.pyx.
"""

from libc.string cimport memset

from pyconv._kernels._cpu cimport LEAF_ROWS, LEAF_ROWS_LEAST, leaf_column, leaf_has_rows, leaf_table
from pyconv._kernels._depthwise_box cimport (
    BOX_BYTES,
    MOST_COLUMNS,
    load_bias,
    plane_index,
    point_columns,
    set_depth,
    span,
    weights_of,
)
from pyconv._kernels._grid cimport PAD_ZEROS, grid, inside, load_run, source_index
from pyconv._kernels._integers cimport ceil_div, round_up
from pyconv._kernels._parallel cimport aligned
from pyconv._kernels._tensor cimport tensor


cdef inline Py_ssize_t row_of(const direct_job* job, Py_ssize_t row_box) noexcept nogil:
    return job.q.out[1] if row_box == job.row_boxes else row_box * job.rows


cdef size_t choose_rows(direct_job* job) noexcept nogil:
    """Box where lines are read where they are; returns the scratch of a task, 0 if they are not.

    The last box has the rows that are left as well.
    """
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, step = job.row_step * LEAF_ROWS_LEAST, planes, most
    cdef Py_ssize_t kind, i, more, fewer = 0, length
    cdef const leaf_column* column = job.tap_columns
    cdef stretch s[3]
    set_depth(job, 1)
    if not (q.x.in_place and q.x.stride[4] == es
            and (q.stride[2] == 1 or q.stride[2] == 2 and q.taps[2] > 1)
            and job.tap_column_count > 0 and q.out[1] >= step and q.out[2] >= q.leaf.vl):
        return 0
    point_columns(job)
    more = column.taps
    for i in range(job.tap_column_count):
        if column[i].taps != more:
            if fewer > 0 and column[i].taps != fewer:
                return 0
            fewer = column[i].taps
    kind = LEAF_ROWS(q.stride[2], more, fewer)
    if column[job.tap_column_count - 1].chain > 0 or not leaf_has_rows(kind):
        return 0
    job.column_boxes = ceil_div(q.out[2], MOST_COLUMNS)
    job.columns = ceil_div(q.out[2], job.column_boxes)
    if q.out[2] - (job.column_boxes - 1) * job.columns < q.leaf.vl:
        return 0
    cut_columns(job, 0, job.columns, s)
    if 5 * (s[0].columns + s[1].columns) > job.columns:     # short lines cost less than their ends,
        return 0
    if q.stride[2] == 2 and 4 * round_up(job.columns, q.leaf.vl) > 5 * job.columns:
        return 0                                            # ... or than what vectors waste,
    if more == 1 and not (q.taps[2] == 2 and q.dilation[2] == 1):
        return 0                                            # ... or than lines read tap by tap
    planes = q.channels * q.taps[0]
    # a line, and copies of two ends: a vector's results each, or the whole of it
    length = span(q, 2, job.columns) + 2 * span(q, 2, q.leaf.vl)
    most = (BOX_BYTES // (planes * es * length) - span(q, 1, 1)) // q.stride[1] + 1
    job.rows = max(most // step * step, step)
    job.row_boxes = q.out[1] // job.rows
    if job.row_boxes > 0:
        job.rows = q.out[1] // job.row_boxes // step * step
    else:
        job.row_boxes, job.rows = 1, q.out[1]
    # where both ends are wide, the copies are no longer than a line and two vectors' pixels
    job.pitch = length
    job.kind = kind
    return rows_scratch(job, q.out[1] - row_of(job, job.row_boxes - 1))


cdef size_t rows_scratch(direct_job* job, Py_ssize_t rows) noexcept nogil:
    """Bytes of scratch for boxes of so many rows, at most, whose lines are where they are."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, planes = q.channels * q.taps[0]
    job.lines = span(q, 1, rows)
    job.line_bytes = aligned(planes * job.lines * job.pitch * es)
    job.result_bytes = aligned(span(q, 2, job.columns) * es)    # the line of zeros
    job.pointer_bytes = aligned(3 * planes * job.lines * sizeof(void*))
    job.weight_bytes = aligned(q.channels * job.taps * es)
    job.bias_bytes = aligned(es)
    return (job.line_bytes + job.result_bytes + job.pointer_bytes + job.weight_bytes
            + job.bias_bytes)


cdef void cut_columns(
    const direct_job* job, Py_ssize_t column, Py_ssize_t columns, stretch* s
) noexcept nogil:
    """Cut the columns of a box into a left end, a right end, and, read in place, the middle."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t vl = q.leaf.vl, first, start, a, b, left, right, ignored, i
    first = column * q.stride[2] + job.s2.low + q.offset[2]
    # vectors of outputs a .. b-1 are inside
    inside(first, q.stride[2], columns, q.x.shape[4], &a, &ignored)
    inside(first + span(q, 2, 1) - 1, q.stride[2], columns, q.x.shape[4], &ignored, &b)
    left, right = ceil_div(a, vl) * vl, ceil_div(columns - b, vl) * vl
    if b - a < vl or left + right >= columns:
        left, right = columns, 0
        a = b = columns
    s[0].column, s[0].columns = 0, left
    s[1].column, s[1].columns = columns - right, right
    s[2].column = min(left, max(a, columns - right - vl))
    s[2].columns = max(vl, columns - right - s[2].column) if b > a else 0
    start = 0
    for i in range(3):
        s[i].start = start
        s[i].pixels = span(q, 2, s[i].columns) if s[i].columns > 0 else 0
        s[i].first = first + s[i].column * q.stride[2]
        inside(s[i].first, 1, s[i].pixels, q.x.shape[4], &s[i].lo, &s[i].hi)
        start += s[i].pixels


cdef void point_lines(
    const direct_job* job, const place* at, const stretch* s, char* copies, const char* zeros,
    const char* src
) noexcept nogil:
    """Find the lines of a box, and copy their ends.  `src` is the group's first element."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, c, t0, i0, i1, line, first, lines, lo, hi, i, k = 0, apart
    cdef const char* plane
    cdef const char* line_of
    cdef char* dst
    first = at.row * q.stride[1] + job.s1.low + q.offset[1]
    lines = span(q, 1, at.rows)
    for c in range(q.channels):
        for t0 in range(q.taps[0]):
            i0 = plane_index(job, at, t0, q.mode)
            plane = src + c * q.x.stride[1] + i0 * q.x.stride[2]
            dst = copies + k * job.pitch * es
            inside(first, 1, lines, q.x.shape[3], &lo, &hi)
            if i0 < 0:
                lo = hi = 0
            if q.mode == PAD_ZEROS:
                for i in range(2):
                    if s[i].hi > s[i].lo and hi > lo:
                        q.leaf.load[q.x.storage](
                            dst + (lo * job.pitch + s[i].start + s[i].lo) * es, job.pitch,
                            plane + (first + lo) * q.x.stride[3] + (s[i].first + s[i].lo) * es,
                            q.x.stride[3], es, hi - lo, s[i].hi - s[i].lo)
                for i in range(3):
                    for line in range(lo):
                        s[i].lines[k + line] = zeros
                    line_of = dst + s[i].start * es
                    apart = job.pitch * es
                    if i == 2:
                        apart = q.x.stride[3]
                        line_of = plane + first * apart + s[2].first * es
                    for line in range(lo, hi):
                        s[i].lines[k + line] = line_of + line * apart
                    for line in range(hi, lines):
                        s[i].lines[k + line] = zeros
                k += job.lines
                continue
            for line in range(lines):
                i1 = source_index(first + line, q.x.shape[3], q.mode)
                s[2].lines[k + line] = plane + i1 * q.x.stride[3] + s[2].first * es
                for i in range(2):
                    if s[i].columns > 0:
                        load_run(
                            q, dst + (line * job.pitch + s[i].start) * es, 0,
                            plane + i1 * q.x.stride[3], 1, s[i].first, 1, s[i].pixels)
            k += job.lines


cdef void start_lines(
    const direct_job* job, const place* at, stretch* s, char* copies, const void** lines
) noexcept nogil:
    """Before the lines of boxes of these columns are pointed at."""
    cdef Py_ssize_t count = job.q.channels * job.q.taps[0] * job.lines, i, r
    cut_columns(job, at.column, at.columns, s)
    memset(copies, 0, job.line_bytes)
    for i in range(3):
        s[i].lines = lines + i * count
        for r in range(count):
            s[i].lines[r] = copies + (r * job.pitch + s[i].start) * job.q.leaf.esize


cdef void sum_lines(
    const direct_job* job, const place* at, const stretch* s, const char* weight,
    const char* bias, char* dst, Py_ssize_t dst_rs
) noexcept nogil:
    """One channel of results, rows `dst_rs` bytes apart, from lines that are pointed at."""
    cdef const grid* q = &job.q
    cdef Py_ssize_t es = q.leaf.esize, step = job.row_step, r, i
    for r in range(min(step, at.rows)):
        for i in range(3):
            if s[i].columns == 0:
                continue
            q.leaf.taps_rows(
                ceil_div(at.rows - r, step), s[i].columns, job.kind, job.tap_column_count,
                job.tap_columns, s[i].lines + r * q.stride[1], step * q.stride[1], weight,
                job.weight_step, bias, dst + r * dst_rs + s[i].column * es, step * dst_rs // es)


cdef void rows_task(
    const void* ctx, char* scratch, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef const direct_job* job = <const direct_job*>ctx
    cdef const grid* q = &job.q
    cdef const leaf_table* table = q.leaf
    cdef const tensor* out = &job.out
    cdef Py_ssize_t es = table.esize, held = -1
    cdef Py_ssize_t task, spot, row_box, n, g, m, i, channel
    cdef char* copies = scratch
    cdef char* zeros = copies + job.line_bytes
    cdef const void** lines = <const void**>(zeros + job.result_bytes)
    cdef char* weights = <char*>lines + job.pointer_bytes
    cdef char* bias = weights + job.weight_bytes
    cdef const char* src
    cdef char* dst
    cdef stretch s[3]
    cdef place at
    memset(zeros, 0, job.result_bytes)
    memset(bias, 0, es)
    for task in range(first, last):
        spot = task
        i = spot % job.column_boxes
        spot //= job.column_boxes
        row_box = spot % job.row_boxes
        spot //= job.row_boxes
        at.o0 = spot % q.out[0]
        spot //= q.out[0]
        g = spot % job.groups
        n = spot // job.groups
        at.row = row_of(job, row_box)
        at.rows = row_of(job, row_box + 1) - at.row
        at.column = i * job.columns
        at.columns = min(job.columns, q.out[2] - at.column)
        if i != held:
            held = i
            start_lines(job, &at, s, copies, lines)
        src = q.x.data + n * q.x.stride[0] + g * q.channels * q.x.stride[1]
        channel = g * job.multiplier
        dst = (out.data + n * out.stride[0] + channel * out.stride[1] + at.o0 * out.stride[2]
               + at.row * out.stride[3] + at.column * es)
        if job.fetch:       # the next box, and where the results of this one go
            table.fetch(
                src + ((at.row + at.rows) * q.stride[1] + q.offset[1]) * q.x.stride[3],
                at.rows * q.stride[1] * q.x.stride[3], False)
            table.fetch(dst, at.rows * out.stride[3], True)
        point_lines(job, &at, s, copies, zeros, src)
        for m in range(job.multiplier):
            load_bias(job, bias, channel + m, 1)
            sum_lines(
                job, &at, s, weights_of(job, channel + m, weights), bias, dst, out.stride[3])
            dst += out.stride[1]
