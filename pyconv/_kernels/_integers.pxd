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
