# Strips of tiles, and their inputs with channels as vectors: for convolution and for gradients.

from pyconv._kernels._cpu cimport leaf_table, leaf_winograd
from pyconv._kernels._grid cimport grid
from pyconv._kernels._parallel cimport aligned
from pyconv._kernels._tensor cimport tensor

cdef enum:
    NEAR_BYTES = 192 * 1024     # V and M of a block: some of L2
    LINE_BYTES = 12 * 1024      # of a strip's inputs: they stay in L1 beside their transform
    MOST_TILES = 32             # of a strip
    MOST_INPUTS = 10            # of a tile along an axis
    SLACK = 64                  # elements that leaves may touch beyond the last


cdef struct lanes_job:
    const leaf_table* leaf
    const leaf_winograd* axis[2]
    const grid* q
    const tensor* out           # (N, G*M, O0, O1, O2)
    const char* bias            # or NULL
    const char* u               # of groups group ..
    Py_ssize_t m[2], n[2]       # outputs and inputs of a tile
    Py_ssize_t step[2]          # inputs from one tile to the next
    Py_ssize_t across[2]        # tiles along the last two axes
    Py_ssize_t places
    Py_ssize_t group, groups    # those at hand
    Py_ssize_t rows, held       # of a group; with those that fill vectors up
    Py_ssize_t together         # groups of a block
    Py_ssize_t lanes            # their channels, and what fills vectors up,
    Py_ssize_t chunk            # ... so many of which are transformed at a time
    Py_ssize_t parts            # strips of a line of tiles,
    Py_ssize_t width            # ... of so many tiles at most
    Py_ssize_t strips           # of all samples
    Py_ssize_t block            # of them together
    Py_ssize_t capacity         # tiles of a block
    Py_ssize_t line             # elements of a strip's line of inputs
    bint far                    # what is read and written next is asked for
    Py_ssize_t u_place, v_place, m_place    # from one place to the next
    size_t line_bytes, column_bytes, partial_bytes, y_bytes, v_bytes, m_bytes
    size_t bias_bytes


# Tiles next to each other in a line of results.
cdef struct strip:
    Py_ssize_t n, o0
    Py_ssize_t o1, o2           # first output
    Py_ssize_t tiles
    Py_ssize_t slot             # of its first line
    bint below                  # the strip before it in the block


cdef inline Py_ssize_t needed(size_t scratch, int threads) noexcept nogil:
    """Bytes of workspace."""
    return threads * (aligned(scratch) + 128)


cdef void describe_tiles(lanes_job* job) noexcept nogil
cdef Py_ssize_t strip_tiles(const lanes_job* job) noexcept nogil
cdef void find_strips(
    const lanes_job* job, Py_ssize_t first, Py_ssize_t last, strip* s) noexcept nogil
cdef char* line_of(
    const lanes_job* job, const strip* s, char* lines, Py_ssize_t i) noexcept nogil
cdef void load_lines(
    const lanes_job* job, const strip* s, Py_ssize_t channel, Py_ssize_t count, Py_ssize_t first,
    char* lines) noexcept nogil
cdef Py_ssize_t transform_strips(
    const lanes_job* job, const strip* strips, Py_ssize_t count, Py_ssize_t channel,
    Py_ssize_t channels, char* lines, char* columns, char* v) noexcept nogil
