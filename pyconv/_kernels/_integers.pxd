# Whole-number arithmetic that the drivers share.


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline Py_ssize_t round_up(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return ceil_div(a, b) * b


cdef inline Py_ssize_t magnitude(Py_ssize_t a) noexcept nogil:
    return -a if a < 0 else a


cdef inline Py_ssize_t gcd(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    while b:
        a, b = b, a % b
    return a


cdef inline Py_ssize_t least_multiple(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    """The least common one; 0 if either is."""
    return a // gcd(a, b) * b if a and b else 0


cdef inline Py_ssize_t odd_lines(Py_ssize_t elements, Py_ssize_t es) noexcept nogil:
    """At least so many, an odd number of cache lines: rows so far apart share no cache sets."""
    return (ceil_div(elements * es, 64) | 1) * 64 // es
