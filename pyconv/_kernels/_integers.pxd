# Whole-number arithmetic that the drivers share.


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline Py_ssize_t round_up(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return ceil_div(a, b) * b


cdef inline Py_ssize_t magnitude(Py_ssize_t a) noexcept nogil:
    return -a if a < 0 else a
