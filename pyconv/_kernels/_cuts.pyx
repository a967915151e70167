"""Which products with padding may be left out, of convolutions whose rows are lanes.

Near the border of an image some taps meet nothing but zeros: on a map of 7x7, with 3x3 taps, they
are a fifth of all products.  With rows in lanes a pixel may be anywhere, so that those which need
the same depths can be taken together::

    class 0: all depths
    class i: pixels of some outputs along one axis, whose taps first .. last-1 are inside

A pixel is of one class alone, by the first axis along which it is near the border; in a corner,
taps beyond the other border are multiplied with zeros after all.  The classes follow from shapes
alone, so that what becomes of weights that are not finite does too.
"""

from libc.stdint cimport int32_t
from libc.string cimport memset

from pyconv._kernels._gemm cimport MOST_CLASSES, cuts, depth_block
from pyconv._kernels._grid cimport PAD_ZEROS, grid, inside
from pyconv._kernels._integers cimport ceil_div
from pyconv._kernels._parallel cimport aligned
from pyconv._kernels._tensor cimport tensor

cdef enum:
    LEAST_SAVED = 40    # thousandths of the products, for pixels to be worth sorting,
    LEAST_WORK = 128    # ... and for each entry of the tables


cdef struct tap_range:
    int axis
    Py_ssize_t first, last


cdef void taps_of(
    const grid* q, int axis, Py_ssize_t o, Py_ssize_t* first, Py_ssize_t* last
) noexcept nogil:
    """Taps first .. last-1 of an output are inside the array along an axis."""
    cdef Py_ssize_t taps = q.taps[axis], step = q.dilation[axis], t
    cdef Py_ssize_t at = o * q.stride[axis] + q.offset[axis]
    if step > 0:
        inside(at, step, taps, q.x.shape[2 + axis], first, last)
    else:                   # from the last tap on
        inside(at + (taps - 1) * step, -step, taps, q.x.shape[2 + axis], first, last)
        t = first[0]
        first[0], last[0] = taps - last[0], taps - t
    if first[0] == last[0]:
        first[0] = last[0] = 0


cdef Py_ssize_t find_classes(
    const grid* q, const Py_ssize_t* out, unsigned char* along, tap_range* of, double* saved
) noexcept nogil:
    """Classes, 0 among them, of so many outputs; what each is, and that of each output.

    `along` may be NULL.  `saved` is the part of the products that is left out, axis by axis.  The
    time taken does not grow with the outputs whose taps are all inside.
    """
    cdef Py_ssize_t classes = 1, first, last, o, whole, until, at, reach
    cdef int axis
    of[0].axis, of[0].first, of[0].last = 2, 0, q.taps[2]
    saved[0] = 0
    for axis in range(3):
        if along != NULL:
            memset(along, 0, out[axis])
        # outputs whole .. until-1 have all of their taps inside
        reach = (q.taps[axis] - 1) * q.dilation[axis]
        at = q.offset[axis]
        inside(at + min(reach, 0), q.stride[axis], out[axis], q.x.shape[2 + axis], &whole, &until)
        inside(at + max(reach, 0), q.stride[axis], out[axis], q.x.shape[2 + axis], &first, &last)
        whole, until = max(whole, first), min(until, last)
        o = -1
        while q.taps[axis] > 1 and o + 1 < out[axis]:
            o += 1
            if whole <= o < until:
                o = until - 1
                continue
            taps_of(q, axis, o, &first, &last)
            saved[0] += (1 - <double>(last - first) / q.taps[axis]) / out[axis]
            if classes == 1 or not (of[classes - 1].axis == axis and of[classes - 1].first == first
                                    and of[classes - 1].last == last):
                if classes == MOST_CLASSES:
                    return MOST_CLASSES + 1
                of[classes].axis, of[classes].first, of[classes].last = axis, first, last
                classes += 1
            if along != NULL:
                along[o] = <unsigned char>(classes - 1)
        if along != NULL:
            along += out[axis]
    return classes


cdef size_t cut_bytes(
    const grid* q, const tensor* out, Py_ssize_t rows, Py_ssize_t depth
) noexcept nogil:
    """Size of the tables, for any part of such a result; 0 where they would not save enough.

    `rows`: of all groups.  One sample alone has to be worth it, so that the batch does not decide.
    """
    cdef tap_range of[MOST_CLASSES]
    cdef Py_ssize_t classes, pixels = out.shape[2] + out.shape[3] + out.shape[4]
    cdef Py_ssize_t taps = q.taps[0] * q.taps[1] * q.taps[2]
    cdef double saved
    if q.mode != PAD_ZEROS:
        return 0
    classes = find_classes(q, &out.shape[2], NULL, of, &saved)
    if classes > MOST_CLASSES or 1000 * saved < LEAST_SAVED:
        return 0
    if saved * out.shape[2] * out.shape[3] * out.shape[4] * rows < LEAST_WORK * classes:
        return 0
    return (aligned(pixels) + aligned(
        classes * (ceil_div(depth, depth_block(depth)) + 1) * sizeof(Py_ssize_t))
        + classes * (depth + 1) * sizeof(int32_t) + taps)


cdef void list_cuts(const grid* q, Py_ssize_t depth, char* store, cuts* cut) noexcept nogil:
    """Fill the tables, of `cut_bytes`, for the outputs of a grid."""
    cdef tap_range of[MOST_CLASSES]
    cdef Py_ssize_t taps = q.taps[0] * q.taps[1] * q.taps[2], kc = depth_block(depth)
    cdef Py_ssize_t kind, _k, k, t, number, block, axis
    cdef int32_t in_block
    cdef Py_ssize_t* start
    cdef int32_t* which
    cdef unsigned char* wanted
    cdef double saved
    cut.classes = find_classes(q, q.out, <unsigned char*>store, of, &saved)
    cut.along[0] = <unsigned char*>store
    cut.along[1] = cut.along[0] + q.out[0]
    cut.along[2] = cut.along[1] + q.out[1]
    store += aligned(q.out[0] + q.out[1] + q.out[2])
    cut.depth, cut.blocks = depth + 1, ceil_div(depth, kc) + 1
    cut.start = start = <Py_ssize_t*>store
    cut.which = which = <int32_t*>(store + aligned(
        cut.classes * cut.blocks * sizeof(Py_ssize_t)))
    wanted = <unsigned char*>(which + cut.classes * cut.depth)
    for kind in range(cut.classes):
        number = t = in_block = block = 0
        start[0] = 0
        while t < taps:         # whether each is needed
            k = t
            for axis in range(2, of[kind].axis, -1):
                k //= q.taps[axis]
            k %= q.taps[of[kind].axis]
            wanted[t] = of[kind].first <= k < of[kind].last
            t += 1
        t = 0
        for _k in range(depth):     # no branch that is hard to foretell
            which[number] = in_block
            number += wanted[t]
            in_block += 1
            if in_block == kc:
                block += 1
                start[block] = number
                in_block = 0
            t = t + 1 if t + 1 < taps else 0
        start[cut.blocks - 1] = number
        start += cut.blocks
        which += depth + 1      # one may be written past the last
