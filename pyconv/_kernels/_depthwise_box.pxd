# What all ways of convolving with few channels per group share: the job, its boxes, its scratch.

from pyconv._kernels._cpu cimport leaf_ahead, leaf_column, leaf_table
from pyconv._kernels._grid cimport grid, source_index
from pyconv._kernels._integers cimport magnitude
from pyconv._kernels._parallel cimport Workspace
from pyconv._kernels._tensor cimport tensor

cdef enum:
    CHAIN_COLUMNS = 19          # of taps, 5 at most in each: the longest chain of roundings
    FETCH_BYTES = 1024 * 1024   # of arrays that are asked for before they are used: not in L2
    MOVED_WORTH = 25            # operations of a product that take as long as an element's way
    BOX_BYTES = 24 * 1024       # lines of one group in a box: they stay in L1
    BLOCK_BYTES = 256 * 1024    # lines of all groups of a box: they stay in L2
    MOST_COLUMNS = 2048         # of a box
    SHORT_ROW = 64              # up to here rows may be better taken tap by tap


cdef inline double work_of(double products, double moved) noexcept nogil:
    """As `useful_threads` counts: where products are few, it is the elements that take time."""
    return 2 * products + MOVED_WORTH * moved


cdef inline void load_row(
    const leaf_table* table, const tensor* w, Py_ssize_t g, Py_ssize_t m, char* dst
) noexcept nogil:
    """Row m of group g of the weights, [channel][tap] in order."""
    cdef Py_ssize_t c, t0, t1
    cdef const char* row = w.data + g * w.stride[0] + m * w.stride[1]
    for c in range(w.shape[2]):
        for t0 in range(w.shape[3]):
            for t1 in range(w.shape[4]):
                table.load[w.storage](
                    dst, 0,
                    row + c * w.stride[2] + t0 * w.stride[3] + t1 * w.stride[4],
                    0, w.stride[5], 1, w.shape[5])
                dst += w.shape[5] * table.esize


# How one axis of the lines is laid out.
cdef struct split:
    Py_ssize_t low              # most negative tap displacement
    Py_ssize_t residues         # distinct residues of tap positions modulo the stride
    Py_ssize_t shift            # largest distance, in strides, between taps of one residue
    Py_ssize_t* residue         # [residues] position within a stride
    Py_ssize_t* of_tap          # [taps] which residue
    Py_ssize_t* start           # [taps] how many strides in


cdef struct direct_job:
    grid q
    tensor weight               # (G, M, C, T0, T1, T2); for the gradient, where it goes
    tensor out                  # (N, G*M, O0, O1, O2); for the gradient, grad of the result
    tensor bias                 # (G*M,)
    bint has_bias
    bint weights_in_order       # forward: adjacent, as `box.weight` has them
    Py_ssize_t groups, multiplier, taps     # taps: all axes, one channel
    Py_ssize_t together         # groups whose lines are loaded at once
    Py_ssize_t block            # groups that share a task
    Py_ssize_t rows, columns    # of a box
    Py_ssize_t row_boxes, column_boxes
    Py_ssize_t depth            # planes of results of a box, and boxes that they are in
    Py_ssize_t plane_boxes
    Py_ssize_t slots            # planes of the input that a channel has in a box, ...
    Py_ssize_t slot_planes      # ... so far apart;
    Py_ssize_t slot_out         # from one plane of results to the next, in slots;
    Py_ssize_t slot_tap         # from one tap of axis 0 to the next;
    Py_ssize_t slot_low         # of tap 0 of the first plane
    leaf_column* single_taps    # the taps of those columns, one in each; NULL: not wanted
    leaf_column* tap_columns    # forward; `src`, `lines` and `pixel` are the plane, the line and
    #                             the pixel of a box where channels are the vectors; `lines` and
    #                             `src` the line and the pixel where lines are read where they are
    Py_ssize_t tap_column_count
    Py_ssize_t row_step         # lines between the taps of a column
    Py_ssize_t tap_step         # how many taps apart they are
    Py_ssize_t weight_step      # elements between their weights
    split s1, s2
    bint halves                 # the two residues of axis 2 are read at once
    Py_ssize_t lines            # of one residue pair
    Py_ssize_t pitch
    Py_ssize_t plane            # elements of one channel and slot: all residue pairs
    Py_ssize_t lanes            # groups of a block whose channels are vectors; 0: pixels are
    Py_ssize_t kind             # LEAF_ROWS where lines are read where they are; 0: elsewhere
    Py_ssize_t apart            # lines between taps of a column, vectors masked; 0: elsewhere
    bint fetch
    bint far                    # gradient: images are read in order, and asked for before
    Py_ssize_t chunks           # gradient: fixed ranges of the reduction
    char* partial               # gradient: [chunk][G][M][C][taps], compute type
    Py_ssize_t neighbours       # gradient: pixels next to each other that have sums of their own
    bint along                  # gradient: the walk goes along a line, not from line to line
    Py_ssize_t part_columns     # gradient, channels as vectors: of a box at a time
    Py_ssize_t units_together   # gradient: whose sums are added before those of others
    size_t line_bytes, total_bytes, weight_bytes, bias_bytes, result_bytes, piece_bytes
    size_t tile_bytes, pointer_bytes


# Where a box lies in the output.
cdef struct place:
    Py_ssize_t spot             # its number: column boxes vary fastest, then row boxes, planes
    Py_ssize_t o0, row, column
    Py_ssize_t planes, rows, columns        # how many of them
    bint singly                 # taps are not taken by columns
    bint running                # nor rows by themselves


# Elements of the input that lie side by side in the lines, and inside the array.
cdef struct piece:
    Py_ssize_t dst, src         # bytes from the channel's lines, from its first element
    Py_ssize_t second           # where every second element goes; -1: where the others go
    Py_ssize_t rows, columns


# Rows of results, `row_step` apart, and the columns of taps that meet something.
cdef struct tile:
    Py_ssize_t row, rows, columns
    leaf_column* column


# What a task keeps in its scratch.
cdef struct box:
    char* lines                 # [together*channels][slot] planes
    char* totals                # gradient: of `weight`, of several units
    char* weight                # [block][M][C][taps]; gradient: sums of LEAF_LANE_BYTES each
    char* bias                  # [block*M]
    char* result                # [together*M][rows][pitch]
    piece* pieces               # of a channel
    Py_ssize_t piece_count
    Py_ssize_t spot             # of the box that pieces, and zeros among the lines, are for
    Py_ssize_t held             # gradient: columns that zeros come after
    tile* tiles
    Py_ssize_t tile_count
    Py_ssize_t tile_spot, tile_met, tile_lanes      # what they are for
    bint tile_padded


cdef inline place place_of(const direct_job* job, Py_ssize_t spot) noexcept nogil:
    cdef place at
    at.spot = spot
    at.column = spot % job.column_boxes * job.columns
    spot //= job.column_boxes
    at.row = spot % job.row_boxes * job.rows
    at.o0 = spot // job.row_boxes * job.depth
    at.planes = min(job.depth, job.q.out[0] - at.o0)
    at.rows = min(job.rows, job.q.out[1] - at.row)
    at.columns = min(job.columns, job.q.out[2] - at.column)
    at.singly = at.running = False
    return at


cdef inline Py_ssize_t slots_of(const direct_job* job, Py_ssize_t planes) noexcept nogil:
    """How many slots so many planes of results have."""
    return job.slots - (job.depth - planes) * job.slot_out


cdef inline Py_ssize_t slot_of(
    const direct_job* job, Py_ssize_t t0, Py_ssize_t o
) noexcept nogil:
    """Which slot tap t0 of axis 0 meets for plane o of a box."""
    return job.slot_low + t0 * job.slot_tap + o * job.slot_out


cdef inline Py_ssize_t plane_index(
    const direct_job* job, const place* at, Py_ssize_t slot, int mode
) noexcept nogil:
    """Which plane of the input is in a slot."""
    cdef const grid* q = &job.q
    return source_index(
        at.o0 * q.stride[0] + (slot - job.slot_low) * job.slot_planes + q.offset[0],
        q.x.shape[2], mode)


cdef inline Py_ssize_t span(const grid* q, int axis, Py_ssize_t count) noexcept nogil:
    """How far what `count` outputs read extends along an axis."""
    return (count - 1) * q.stride[axis] + (q.taps[axis] - 1) * magnitude(q.dilation[axis]) + 1


cdef inline bint finite(
    const leaf_table* table, Py_ssize_t count, const char* values
) noexcept nogil:
    """Whether all are: then a product with zero may as well be left out."""
    cdef double total = table.sum(count, values)
    return total - total == 0


cdef box carve(const direct_job* job, char* scratch) noexcept nogil
cdef void load_weights(
    const direct_job* job, char* dst, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
cdef const char* weights_of(
    const direct_job* job, Py_ssize_t channel, char* room) noexcept nogil
cdef void load_bias(
    const direct_job* job, char* dst, Py_ssize_t first, Py_ssize_t count) noexcept nogil
cdef leaf_ahead look_ahead(const direct_job* job, const place* at) noexcept nogil
cdef bint inputs_far(const direct_job* job) noexcept nogil
cdef bint worth_fetching(const direct_job* job, Py_ssize_t near) noexcept nogil
cdef size_t box_scratch(direct_job* job, Py_ssize_t together, bint gradient) noexcept nogil
cdef void set_depth(direct_job* job, Py_ssize_t depth) noexcept nogil
cdef Py_ssize_t next_depth(const direct_job* job, Py_ssize_t depth, Py_ssize_t most) noexcept nogil
cdef double depth_cost(const direct_job* job) noexcept nogil
cdef size_t choose_box(direct_job* job, bint gradient, Py_ssize_t deepest) noexcept nogil
cdef Py_ssize_t deepest_box(const direct_job* job, Py_ssize_t blocks, int threads) noexcept nogil
cdef void point_columns(direct_job* job) noexcept nogil
cdef bint small_box(weight_shape, stride, dilation) except -1
cdef int fit_threads(
    str operator, size_t scratch, Py_ssize_t fixed, int threads, Py_ssize_t budget) except -1
cdef Workspace set_up(
    direct_job* job, x, weight, out, stride, dilation, offset, str mode, int compute,
    bint gradient, size_t* scratch)
