# What deformable convolution and its gradients share: the arrays, and what surrounds a coordinate.

from pyconv._kernels._cpu cimport leaf_table
from pyconv._kernels._tensor cimport tensor


cdef struct sampler:
    tensor x                    # (N, C, S0, S1, S2)
    tensor offset               # (N, OG * rank * T, O0, O1, O2), channel (og, tap, axis)
    tensor mask                 # (N, OG * T, O0, O1, O2)
    bint has_mask
    int rank                    # the last `rank` of the three axes are real
    Py_ssize_t corners
    Py_ssize_t channels         # per group of the weights
    Py_ssize_t shared           # channels per offset group
    Py_ssize_t taps[3]
    Py_ssize_t all_taps
    Py_ssize_t stride[3]
    Py_ssize_t dilation[3]
    Py_ssize_t origin[3]        # minus the padding
    bint wrap[3]                # axes whose ends meet
    Py_ssize_t out[3]
    bint offset_flat            # pixels of a channel of the offsets are evenly spaced, by
    Py_ssize_t offset_step      # this many bytes
    bint mask_flat              # those of the masks likewise
    Py_ssize_t mask_step
    tensor last                 # x with channels next to each other in the compute type ...
    Py_ssize_t first            # ... from this sample; data is NULL where there is no such image
    Py_ssize_t lo, hi           # of these elements along the first axis
    bint room                   # up to a vector past its last element may be read
    const leaf_table* leaf
    const leaf_table* wide      # the double table: coordinates are read through it


cdef enum:
    SAMPLE = 0      # one set of coefficients: n-linear weight times mask
    SLOPES = 1      # 1 + rank sets: the n-linear weight alone, then its slope along each axis
    #                 times mask; what the gradients of mask and coordinates need


# The two elements around a coordinate, along one axis.
cdef struct pair:
    Py_ssize_t place[2]         # bytes from the start of the axis
    double weight[2]
    bint inside[2]
    Py_ssize_t count            # 1 on an axis that is not there: one element, of weight 1


cdef inline bint surround(
    double v, Py_ssize_t size, Py_ssize_t stride, int kind, pair* at
) noexcept nogil:
    """Find them; False where the sample is zero as a whole.

    At exactly -1 the sample is zero, but its right-hand slope is not.
    """
    cdef Py_ssize_t low
    if not ((v > -1 or (kind == SLOPES and v == -1)) and v < size):
        return False
    low = <Py_ssize_t>v         # floor: the conversion rounds towards zero
    if low > v:
        low -= 1
    at.place[0], at.place[1] = low * stride, (low + 1) * stride
    at.weight[0], at.weight[1] = 1 - (v - low), v - low
    at.inside[0], at.inside[1] = low >= 0, low + 1 < size
    return True


cdef inline void put(char* dst, Py_ssize_t at, double value, bint single) noexcept nogil:
    if single:
        (<float*>dst)[at] = <float>value
    else:
        (<double*>dst)[at] = value


cdef inline void next_pixel(const sampler* s, Py_ssize_t* o) noexcept nogil:
    o[2] += 1
    if o[2] == s.out[2]:
        o[2] = 0
        o[1] += 1
        if o[1] == s.out[1]:
            o[1] = 0
            o[0] += 1


cdef void begin_tap(
    const sampler* s, Py_ssize_t n, Py_ssize_t og, Py_ssize_t t, Py_ssize_t p, Py_ssize_t count,
    Py_ssize_t* o, Py_ssize_t* base, pair* around, double* v, Py_ssize_t ld,
    double* m) noexcept nogil
cdef void store_pixels(
    const leaf_table* table, const tensor* t, char* plane, Py_ssize_t p, Py_ssize_t count,
    const char* src) noexcept nogil
cdef int turn_samples(
    void* ctx, char* store, Py_ssize_t n, Py_ssize_t count, int threads) except -1
cdef int fill_sampler(
    object x, object offset, object mask, Py_ssize_t groups, int rank, object taps, object out,
    object stride, object dilation, object origin, object wrap, int compute,
    sampler* s) except -1
