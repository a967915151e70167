# Implicit GEMM: the loop nest around the micro-kernel, for any operator that can fill a panel.

from libc.stdint cimport int32_t
from libc.string cimport memset

from pyconv._kernels._cpu cimport leaf_soon, leaf_table
from pyconv._kernels._integers cimport ceil_div, round_up
from pyconv._kernels._parallel cimport Workspace
from pyconv._kernels._tensor cimport tensor

# Look at pixels p .. p+count-1 of sample n, group g, before they are packed (coordinates, say).
ctypedef void (*begin_fn)(
    const void* ctx, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p,
    Py_ssize_t count) noexcept nogil

# Fill panels of `width` columns with the inputs of those pixels, for depths k0 .. k1-1:
# panel q holds [k - k0][column] for pixels p + q*width ...; columns past `count` stay untouched.
ctypedef void (*pack_fn)(
    const void* ctx, char* scratch, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p,
    Py_ssize_t count, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t width,
    char* panel) noexcept nogil

# Where what `pack` reads of those pixels lies, if it is in rows; else `soon` is left alone.
ctypedef void (*soon_fn)(
    const void* ctx, Py_ssize_t n, Py_ssize_t g, Py_ssize_t p, Py_ssize_t count,
    Py_ssize_t k0, Py_ssize_t k1, leaf_soon* soon) noexcept nogil

# Put `count` samples, from n, into a form that `pack` is faster with, or that needs no packing, in
# `store`.
ctypedef int (*prepare_fn)(
    void* ctx, char* store, Py_ssize_t n, Py_ssize_t count, int threads) except -1

# The same with group g of them alone, by whoever computes with it; `group_bytes` each.
ctypedef void (*fill_fn)(
    const void* ctx, char* store, Py_ssize_t n, Py_ssize_t count, Py_ssize_t g) noexcept nogil

# Depths that pixels have no use for, there being nothing but padding: with rows of A in lanes they
# are left out.  A pixel is of the class of its output along the first axis where that is not 0;
# class 0 needs all depths.
cdef struct cuts:
    Py_ssize_t classes
    const unsigned char* along[3]   # class of each output of an axis
    # numbers in its block of KC of each depth that is needed: [class][depth]; and where those of
    # each block begin, and end: [class][block]
    const int32_t* which
    const Py_ssize_t* start
    Py_ssize_t depth, blocks        # of a class, with the end

# Prepared samples in which the micro-kernel finds its inputs where they are: depth k of pixel p of
# a line at element  sample + group*group_stride + line*line_stride + p + offset[k].  Output rows
# begin `pitch` pixels apart; what is computed between them is dropped.
cdef struct planes:
    const Py_ssize_t* offset
    Py_ssize_t group_stride
    Py_ssize_t lines            # per sample and group: as many as the result has along axis 0
    Py_ssize_t line_stride
    Py_ssize_t length           # pixels of a line, the dropped ones between two rows too
    Py_ssize_t pitch
    # Samples that need no preparing, for they are the input itself; else NULL.
    const char* data
    Py_ssize_t sample_bytes     # from one to the next
    const char* end             # of what may be read,
    Py_ssize_t reach            # ... and the largest offset
    # With rows of A in lanes no pixel is dropped: they are so far apart, along the last three axes.
    Py_ssize_t pixel_stride[3]
    Py_ssize_t taps, width      # of a channel, of a row of them
    bint patches                # each input is met once, and comes from far away
    const cuts* cut             # or NULL

# Change results of sample n before they are stored, the bias is in them already: channels m ..
# m+rows-1, pixels p .. p+count-1, at elements i*row_step + j*pixel_step of a tile.
ctypedef void (*finish_fn)(
    const void* ctx, Py_ssize_t n, Py_ssize_t m, Py_ssize_t rows, Py_ssize_t p,
    Py_ssize_t count, char* tile, Py_ssize_t row_step, Py_ssize_t pixel_step) noexcept nogil

cdef struct packer:
    void* ctx
    begin_fn begin                  # or NULL
    pack_fn pack
    # The same for rows of A in lanes, or NULL: pixels `width` elements apart, [pixel][k - k0].  Up
    # to a cache line past a pixel's last depth is overwritten.
    pack_fn by_pixel
    soon_fn soon                    # or NULL
    double effort                   # cycles for an input, about, beyond those of a copy
    Py_ssize_t scratch              # bytes it wants for a tile ...
    Py_ssize_t scratch_per_pixel    # ... and per pixel of the tile
    prepare_fn prepare              # forward only; not called where the workspace is too small
    Py_ssize_t sample_bytes         # from one prepared sample to the next; 0: nothing to prepare
    fill_fn fill                    # for several groups, or NULL
    Py_ssize_t group_bytes
    const planes* direct            # of prepared samples, if they need no packing; or NULL
    # 0: panels of nr columns; else a tile is one panel, of whole output rows where it can be, each
    # of so many pixels, rather so many of them, or a multiple
    Py_ssize_t row, rows


cdef inline void start_packer(packer* pk, void* ctx, pack_fn pack) noexcept nogil:
    """One that packs, and has nothing else yet: NULL and 0."""
    memset(pk, 0, sizeof(packer))
    pk.ctx, pk.pack = ctx, pack


# The weights as rows of A: axes (group, row, channel, tap, tap, tap); depth k runs over the last
# four in order.
cdef struct operand:
    tensor t
    Py_ssize_t groups
    Py_ssize_t rows
    Py_ssize_t depth
    int outer               # leading depth axes that are not part of the run
    Py_ssize_t run          # trailing depth axes that are one arithmetic progression: length,
    Py_ssize_t run_stride   # bytes
    # Where a row lies together, but not in the order of its depths: elements from its first in
    # memory to its last, and from that first one to depth 0.  Else `span` is 0.
    Py_ssize_t span, origin
    # whole operand as [group][block of KC][row block][depth][mr], or NULL
    const char* packed
    bint lanes              # packed as [group][block of KC][panel][depth][lanes of the panel]


cdef class PackedWeights:
    cdef Workspace store
    cdef const leaf_table* leaf
    cdef operand shape
    cdef void take_place_of(self, operand* a) noexcept


cdef enum:
    MOST_CLASSES = 16               # of pixels that need the same depths
    CHAIN_BLOCKS = 16               # so many blocks of KC depths are added up one after another


# Rows in lanes lie in panels of nr; half a panel at the end is part of the one before, if there is
# one.

cdef inline Py_ssize_t lane_panels(Py_ssize_t rows, const leaf_table* leaf) noexcept nogil:
    return max(<Py_ssize_t>1, ceil_div(rows, leaf.nr // 2) // 2)


cdef inline Py_ssize_t lanes_from(Py_ssize_t rows, const leaf_table* leaf) noexcept nogil:
    """Lanes of the first panel of so many rows."""
    cdef Py_ssize_t rest = round_up(rows, leaf.nr // 2)
    return rest if 2 * rest <= 3 * leaf.nr else leaf.nr


cdef bint evenly_spaced(const tensor* t, Py_ssize_t* step) noexcept nogil
cdef Py_ssize_t depth_block(Py_ssize_t depth, Py_ssize_t most=*) noexcept nogil
cdef bint is_deep(Py_ssize_t depth) noexcept nogil
cdef Workspace load_bias(object bias, const leaf_table* leaf, int compute)
cdef int describe_operand(object weight, int compute, operand* a) except -1
cdef Py_ssize_t depth_at(const operand* a, Py_ssize_t k) noexcept nogil
cdef Py_ssize_t packing_bytes(
    const operand* a, const leaf_table* leaf, int threads) noexcept nogil
cdef PackedWeights pack_operand(const operand* a, const leaf_table* leaf, int threads)

cdef Py_ssize_t implicit_gemm(
    str operator, const packer* pk, const operand* a, const tensor* out, object bias,
    const leaf_table* leaf, int threads, Py_ssize_t budget, bint measure,
    finish_fn finish=*) except -1
