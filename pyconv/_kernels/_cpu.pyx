"""Picks the leaf kernels for this machine, once, at import.

The best instruction set that was compiled in, that the CPU and the operating system support and
that ``PYCONV_DISABLE_CPU`` does not name is used for everything.
"""

import os

cdef extern from *:
    """
    #ifdef _OPENMP
    #define PYCONV_OPENMP_VERSION _OPENMP
    #else
    #define PYCONV_OPENMP_VERSION 0
    #endif
    #if defined(__clang__)
    #define PYCONV_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define PYCONV_COMPILER "gcc " __VERSION__
    #else
    #define PYCONV_COMPILER "unknown"
    #endif
    """
    const char* PYCONV_COMPILER
    int PYCONV_OPENMP_VERSION

cdef const leaf_isa* _picked = NULL
cdef const leaf_isa* _narrower = NULL   # its narrower one, if that may be used
_disabled = ()


cdef const leaf_table* leaf(int compute) noexcept nogil:
    return _picked.f64 if compute == 1 else _picked.f32


cdef const leaf_table* narrower_leaf(const leaf_table* table) noexcept nogil:
    if _narrower == NULL:
        return NULL
    if table == _picked.f64:
        return _narrower.f64
    return _narrower.f32 if table == _picked.f32 else NULL


cdef const leaf_table* leaf_of_lanes(int compute, Py_ssize_t rows) noexcept nogil:
    cdef const leaf_table* table = leaf(compute)
    cdef const leaf_table* narrower = narrower_leaf(table)
    # they would leave half of a vector empty
    return narrower if narrower != NULL and 2 * rows <= table.vl else table


def built():
    """Names of the instruction sets in this build, best first."""
    names = []
    cdef const leaf_isa* isa = leaf_built
    while isa.name != NULL:
        names.append(isa.name.decode())
        isa += 1
    return tuple(names)


def supported():
    """Those of `built` that this machine can run."""
    names = []
    cdef const leaf_isa* isa = leaf_built
    while isa.name != NULL:
        if isa.supported():
            names.append(isa.name.decode())
        isa += 1
    return tuple(names)


def use(name):
    """Switch to another supported instruction set; returns the name of the one before.

    For tests that compare instruction sets.  Not for use while kernels run in other threads.
    """
    global _picked, _narrower
    if name not in supported():
        raise ValueError(f"instruction set {name!r} is not one of {', '.join(supported())}")
    before = _picked.name.decode() if _picked != NULL else None
    cdef const leaf_isa* isa = leaf_built
    while isa.name.decode() != name:
        isa += 1
    _picked, _narrower = isa, isa.narrower
    if _narrower != NULL and (not _narrower.supported() or _narrower.name.decode() in _disabled):
        _narrower = NULL
    return before


def config():
    """What the compiled side was built with and what it picked."""
    return {
        "compiler": PYCONV_COMPILER.decode(),
        "openmp": PYCONV_OPENMP_VERSION,
        "built": built(),
        "supported": supported(),
        "picked": _picked.name.decode(),
        "disabled": _disabled,
    }


def _pick():
    global _disabled
    known = ("avx512", "avx2", "neon")  # on any architecture: one setting serves them all
    names = [n.strip().lower() for n in os.environ.get("PYCONV_DISABLE_CPU", "").split(",")]
    names = [n for n in names if n]
    for name in names:
        if name not in known:
            raise ValueError(
                f"PYCONV_DISABLE_CPU must name instruction sets out of {', '.join(known)}, "
                f"separated by commas; got {name!r}"
            )
    _disabled = tuple(names)
    for name in supported():
        if name not in names:
            use(name)
            return


_pick()
