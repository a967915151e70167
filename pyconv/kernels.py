"""The engine for samplers of your own: write only what fills a panel, and get the rest.

A convolution is a product of weights with a matrix of inputs that never exists as a whole: the
engine asks for panels of it, some depths of some pixels at a time. A *kernel* holds the function
that fills such a panel, and may hold one that does the reverse, for the gradient of the image, and
one that changes results before they are stored. Tiles, threads, the micro-kernel for the CPU at
hand, bounded workspace and the same bits on any number of threads are the engine's.

Kernels are compiled: by Cython, which cimports ``pyconv.kernels``, by anything that SciPy's
`LowLevelCallable` takes, or by Numba (`kernel`). See :doc:`/kernels`.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from pyconv import checks, dtypes, engine
from pyconv._kernels import _plugin
from pyconv.arrays import as_array, check_out
from pyconv.checks import Verbatim
from pyconv.engine import Run
from pyconv.geometry import untouched
from pyconv.operator import run_of

__all__ = [
    "ABI_VERSION",
    "convolve",
    "get_include",
    "input_gradient",
    "kernel",
    "pack_weights",
    "weight_gradient",
]

Array = np.ndarray[Any, Any]

#: Version of the compiled interface, that of ``pyconv/kernels.pxd``.
ABI_VERSION: int = _plugin.VERSION

#: For `import_kernels` in ``pyconv/kernels.pxd``.
C_API = _plugin.C_API

_ROLES = ("pack", "unpack", "finish")
_DTYPES = ("float32", "float64")

# Where pixels and depths are summed over; columns that stay in cache.
_COLUMN_BYTES = 2 * 2**20

# What each function takes: "n" an integer as wide as an address, "c" the context, "v" values.
_ARGUMENTS = {
    "pack": "c v s n n n n n n v n",
    "unpack": "c v s n n n n n n v n",
    "finish": "c n n n n n v n n",
}
_SPELLED = {
    "n": ("Py_ssize_t", "ssize_t", "ptrdiff_t", "npy_intp", "intptr_t", "long", "int64_t"),
    "c": ("void *",),
    "s": ("Py_ssize_t *", "ssize_t *", "ptrdiff_t *", "npy_intp *", "intptr_t *", "long *",
          "int64_t *", "void *"),
}  # fmt: skip
_VALUES = {"float32": ("float *", "void *"), "float64": ("double *", "void *")}


def get_include() -> str:
    """Return the folder whose ``pyconv/kernels.pxd`` Cython should read, for unusual builds.

    Cython finds an installed pyconv by itself.

    Examples
    --------
    >>> import os, pyconv.kernels
    >>> os.path.exists(os.path.join(pyconv.kernels.get_include(), "pyconv", "kernels.pxd"))
    True
    """
    from pathlib import Path

    return str(Path(__file__).parent.parent)


def kernel(
    *,
    pack: Mapping[str, Any],
    unpack: Mapping[str, Any] | None = None,
    finish: Mapping[str, Any] | None = None,
    context: Any = None,
    pixels_outer: bool = False,
    any_strides: bool = False,
) -> Any:
    """Make a kernel of compiled functions, without Cython.

    Parameters
    ----------
    pack, unpack, finish : mapping of str to function
        Functions by dtype, ``"float32"`` or ``"float64"``, with the arguments of ``pack_fn``,
        ``unpack_fn`` and ``finish_fn`` in ``pyconv/kernels.pxd``. A function is a SciPy
        `LowLevelCallable`, whose signature is checked; a Numba ``cfunc``, or anything else with
        the address of a function as ``address``; or a `ctypes` function, which is checked if its
        argument types are set.
    context : int, ctypes pointer or ndarray, optional
        What the functions get as their first argument: an address, or the memory of an array. The
        user data of a `LowLevelCallable` by default.
    pixels_outer : bool
        Panels are ``[pixel][depth]``: neighbouring depths (channels, usually) lie next to each
        other, instead of neighbouring pixels.
    any_strides : bool
        Give images to `pack` as they lie in memory. By default those whose channels are not next
        to each other are brought into that order, where the workspace has room.

    Returns
    -------
    kernel
        What `convolve` and the gradients take. It keeps functions and context alive.

    Raises
    ------
    TypeError
        If something is not such a function, or has another signature.
    ValueError
        If functions have different user data.

    Examples
    --------
    The address of a C function, from a library or compiled at run time:

    >>> import ctypes, pyconv.kernels
    >>> from pyconv.kernels import kernel
    >>> n, p = ctypes.c_ssize_t, ctypes.c_void_p
    >>> @ctypes.CFUNCTYPE(None, p, p, ctypes.POINTER(n), n, n, n, n, n, n, p, n)
    ... def pack(context, image, stride, n, group, pixel, count, depth, depths, panel, step):
    ...     "In Python for the sake of an example: far too slow."
    >>> made = kernel(pack={"float32": pack})
    """
    name = "kernels.kernel"
    addresses = {(role, dtype): 0 for role in _ROLES for dtype in _DTYPES}
    owners: list[Any] = [context]
    data: set[int] = set()
    for role, given in zip(_ROLES, (pack, unpack, finish), strict=True):
        if given is None and role != "pack":
            continue
        if not isinstance(given, Mapping) or not given:
            checks.fail_type(name, role, "be a mapping of dtype names to functions", given)
        for dtype, function in given.items():
            checks.choice(name, f"dtype of {role}", dtype, _DTYPES)
            address, own = _function(name, f"{role}[{dtype!r}]", function, role, dtype)
            addresses[role, dtype] = address
            owners.append(function)
            if own:
                data.add(own)
    if context is not None:
        where = _address(name, context)
    else:
        if len(data) > 1:
            rule = "be given where the functions have different user data"
            checks.fail(name, "context", rule, Verbatim(f"{len(data)} addresses"))
        where = data.pop() if data else 0
    flags = 1 * checks.flag(name, "pixels_outer", pixels_outer)
    flags += 2 * checks.flag(name, "any_strides", any_strides)
    return _plugin.Functions(addresses, where, flags, owners)


def pack_weights(run: Run, weight: Array, extent: Sequence[int]) -> Any:
    """Weights in the order of the micro-kernel, for a plan: what `convolve` takes as ``packed``.

    Parameters
    ----------
    run : Run
        What `Operator.prepare` was given.
    weight : ndarray, shape (G, M, ...)
        See `convolve`.
    extent : sequence of int
        Spatial axes of the result.
    """
    axes = engine.three([untouched(size) for size in extent])
    return engine.pack_rows(run, _six(weight), axes)


def convolve(
    kernel: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    out: Array,
    run: Run | None = None,
    packed: Any = None,
    threads: int | None = None,
    max_workspace: int | None = None,
) -> int:
    """Fill `out` with the product of the weights and the panels that `kernel` packs.

    ``out[n, g*M + m, p] = finish(bias[g*M + m] + sum over k of weight[g, m, k] * panel[k, p])``,
    with the panel of sample ``n`` and group ``g``.

    Parameters
    ----------
    kernel : kernel
        From `kernel`, or ``kernel_capsule(&k)`` of ``pyconv/kernels.pxd``.
    x : array, shape (N, C, *S)
        Images with 1 to 3 spatial axes, of any strides; channels divide into groups as `weight`
        has them. Views with the channels elsewhere are welcome: channels next to each other in
        memory need no copy.
    weight : array, shape (G, M, ...)
        Groups, rows of each, and 1 to 4 axes of depths, which are numbered in C order.
    bias : array, shape (G*M,), optional
        Added to each channel of the result.
    out : ndarray, shape (N, G*M, *S_out)
        Where the result goes: of the dtype of the other arrays.
    run : Run, optional
        What `Operator.compute` was given: checked arrays, threads and workspace. Without it the
        arguments are checked here.
    packed : optional
        From `pack_weights`, for the same weights.
    threads, max_workspace : int, optional
        Without `run`: as for an operator.

    Returns
    -------
    int
        Bytes of workspace. Only they are worked out where ``run.measure``.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, the workspace is too small, or the kernel is for another
        version of the interface or has no function for the dtype. Images of 16 bits, byte-swapped
        or unaligned ones need room for one image in half of the workspace.
    """
    name = "kernels.convolve"
    if run is None:
        arrays = _taken(name, {"x": x, "weight": weight, "bias": bias, "out": out})
        x, weight, bias = arrays["x"], arrays["weight"], arrays["bias"]
        check_out(name, out, out.shape, out.dtype, {"x": x, "weight": weight, "bias": bias})
        _check_shapes(name, x, weight, "out", out, bias)
        run = run_of(name, out.dtype, threads, max_workspace)
    if out.size == 0:
        return 0
    return int(
        _plugin.convolve(
            run.operator, kernel, _five(x), _six(weight), bias, _five(out), run.compute,
            run.threads, run.budget, packed, run.measure,
        )
    )  # fmt: skip


def weight_gradient(
    kernel: Any,
    x: Any,
    grad: Any,
    *,
    out: Array,
    run: Run | None = None,
    threads: int | None = None,
    max_workspace: int | None = None,
) -> None:
    """Fill `out`, of the weights' shape ``(G, M, ...)``, with the gradient of the weights.

    `grad`, ``(N, G*M, *S_out)``, is the gradient of what `convolve` computed before ``finish``. The
    other arguments are those of `convolve`. The images' contributions are added in order.
    """
    name = "kernels.weight_gradient"
    if run is None:
        arrays = _taken(name, {"x": x, "grad": grad, "out": out})
        x, grad = arrays["x"], arrays["grad"]
        check_out(name, out, out.shape, out.dtype, {"x": x, "grad": grad})
        _check_shapes(name, x, out, "grad", grad, None)
        run = run_of(name, out.dtype, threads, max_workspace)
    if out.size == 0:
        return
    result, x, grad = _six(out), _five(x), _five(grad)
    if grad.size == 0:
        out[...] = 0
        return
    plain = out.dtype == run.dtype
    taken = result.size * run.dtype.itemsize * ((len(x) > 1) + (not plain))
    if taken > run.budget // 2:
        raise checks.WorkspaceError(run.operator, 2 * taken, run.budget)
    rest = run.less(taken)
    total = result if plain else np.empty(result.shape, run.dtype)
    each = total if len(x) == 1 else np.empty(result.shape, run.dtype)
    for n in range(len(x)):
        into = each if n else total
        _plugin.weight_gradient(
            run.operator, kernel, x[n : n + 1], grad[n : n + 1], into, run.compute, run.threads,
            rest.budget,
        )  # fmt: skip
        if n:
            total += each
    if not plain:
        with engine.rounding():
            result[...] = total


def input_gradient(
    kernel: Any,
    weight: Any,
    grad: Any,
    *,
    out: Array,
    run: Run | None = None,
    threads: int | None = None,
    max_workspace: int | None = None,
) -> None:
    """Fill `out`, of the images' shape ``(N, C, *S)``, with the gradient of the images.

    ``unpack`` of the kernel is given ``columns[k, p] = sum over m of weight[g, m, k] * grad[p]``,
    for all depths of some pixels at a time, pixels in order. The arguments are those of
    `weight_gradient` and `convolve`.
    """
    name = "kernels.input_gradient"
    if run is None:
        arrays = _taken(name, {"weight": weight, "grad": grad, "out": out})
        weight, grad = arrays["weight"], arrays["grad"]
        check_out(name, out, out.shape, out.dtype, {"weight": weight, "grad": grad})
        _check_shapes(name, out, weight, "grad", grad, None)
        run = run_of(name, out.dtype, threads, max_workspace)
    _plugin.needs_unpack(run.operator, kernel, run.compute)
    weight, grad, dx = _six(weight), _five(grad), _five(out)
    if dx.size == 0 or grad.size == 0 or weight.size == 0:
        out[...] = 0
        return
    groups, rows = weight.shape[:2]
    depth, channels = prod(weight.shape[2:]), dx.shape[1] // groups
    matrix = engine.matrix(np.moveaxis(weight.reshape(groups, rows, depth), 1, 2))
    whole = dx.dtype == run.dtype and all(s % dx.itemsize == 0 for s in dx.strides)
    plane = prod(dx.shape[2:]) * run.dtype.itemsize * groups
    width = channels if whole else min(channels, run.budget // 4 // plane)
    if width == 0:
        raise checks.WorkspaceError(run.operator, 4 * plane, run.budget)
    grouped = dx.reshape((len(dx), groups, channels, *dx.shape[2:]))
    pixels = prod(grad.shape[2:])
    column = groups * depth * run.dtype.itemsize
    tile = max(1, min(pixels, run.budget // 4 // column, max(64, _COLUMN_BYTES // column)))
    store = np.empty(groups * depth * tile, run.dtype)
    half = run.share(2)
    for n, first in product(range(len(dx)), range(0, channels, width)):
        place = grouped[n, :, first : first + width]
        image = place if whole else np.empty(place.shape, run.dtype)
        image[...] = 0
        for p in range(0, pixels, tile):
            count = min(tile, pixels - p)
            columns = store[: groups * depth * count].reshape(groups, depth, count)
            engine.product_with(
                half, matrix, engine.pixels(grad[n], p, count),
                columns.reshape(1, groups * depth, 1, 1, count),
            )  # fmt: skip
            _plugin.unpack(
                run.operator, kernel, columns, image, run.compute, run.threads, n, p, first
            )
        if not whole:
            with engine.rounding():
                place[...] = image


# ---- small helpers -------------------------------------------------------------------------------


def _five(image: Array) -> Array:
    """An image as ``(N, C, S0, S1, S2)``."""
    return image[(slice(None),) * 2 + (np.newaxis,) * (5 - image.ndim)]


def _six(weight: Array) -> Array:
    """Weights with four axes of depths."""
    return weight[(slice(None),) * 2 + (np.newaxis,) * (6 - weight.ndim)]


def _taken(name: str, given: dict[str, Any]) -> dict[str, Any]:
    arrays = {n: None if v is None else as_array(name, n, v) for n, v in given.items()}
    for argument in set(arrays) - {"bias"}:
        if arrays[argument] is None:
            checks.fail_type(name, argument, "be given", None)
    dtypes.common_dtype(name, arrays)
    return arrays


def _check_shapes(
    name: str, x: Array, weight: Array, where: str, result: Array, bias: Array | None
) -> None:
    for argument, array, low, high in (
        ("x", x, 3, 5),
        (where, result, 3, 5),
        ("weight", weight, 3, 6),
    ):
        if not low <= array.ndim <= high:
            checks.fail(
                name, argument, f"have {low} to {high} axes", Verbatim(f"shape {array.shape}")
            )
    groups, rows = weight.shape[:2]
    if groups == 0 or x.shape[1] % groups:
        checks.fail(
            name, "weight", f"have groups that divide the {x.shape[1]} channels of x",
            Verbatim(f"shape {weight.shape}"),
        )  # fmt: skip
    if result.shape[:2] != (len(x), groups * rows):
        checks.fail(
            name, where, f"have shape ({len(x)}, {groups * rows}, ...)",
            Verbatim(f"shape {result.shape}"),
        )  # fmt: skip
    if bias is not None and bias.shape != (groups * rows,):
        checks.fail(name, "bias", f"have shape ({groups * rows},)", Verbatim(f"shape {bias.shape}"))


def _address(name: str, context: Any) -> int:
    if isinstance(context, np.ndarray):
        return int(context.ctypes.data)
    if isinstance(context, int) and not isinstance(context, bool) and 0 <= context < 2**63:
        return context
    try:
        return ctypes.cast(context, ctypes.c_void_p).value or 0
    except (TypeError, ctypes.ArgumentError) as error:
        rule = "be an address, a ctypes pointer or an array"
        checks.fail_type(name, "context", rule, context, error)


def _function(name: str, argument: str, given: Any, role: str, dtype: str) -> tuple[int, int]:
    """Address of a function, and its user data."""
    if type(given).__name__ == "LowLevelCallable" and isinstance(given, tuple):
        address, signature, data = _plugin.low_level(tuple.__getitem__(given, 0))
        _check_signature(name, argument, signature, role, dtype)
        return address, data
    if isinstance(given, ctypes._CFuncPtr):  # type: ignore[attr-defined]
        if given.argtypes is not None:
            types = ", ".join(map(_c_name, given.argtypes))
            signature = f"{_c_name(given.restype)} ({types})"
            _check_signature(name, argument, signature, role, dtype)
        return ctypes.cast(given, ctypes.c_void_p).value or 0, 0
    own: Any = getattr(given, "address", None)
    if not isinstance(own, int) or isinstance(given, type) or own <= 0:
        rule = "be a LowLevelCallable, a ctypes function, or have an address (a Numba cfunc)"
        checks.fail_type(name, argument, rule, given)
    return own, 0


def _c_name(kind: Any) -> str:
    """Name of a ctypes type as C has it."""
    if kind is None:
        return "void"
    if kind is ctypes.c_void_p:
        return "void *"
    pointed = getattr(kind, "_type_", None)
    if isinstance(pointed, type):
        return f"{_c_name(pointed)} *"
    return str(kind.__name__).removeprefix("c_")


def _check_signature(name: str, argument: str, signature: str, role: str, dtype: str) -> None:
    wanted = _ARGUMENTS[role].split()
    match = re.fullmatch(r"\s*void\s*\((.*)\)\s*", signature, re.S)
    got = [_plain_type(part) for part in match[1].split(",")] if match else []
    spelled = {**_SPELLED, "v": _VALUES[dtype]}
    fits = len(got) == len(wanted) and all(
        given in spelled[kind] for kind, given in zip(wanted, got, strict=True)
    )
    if not fits:
        rule = "have the signature void (" + ", ".join(spelled[kind][0] for kind in wanted) + ")"
        checks.fail_type(name, argument, rule, Verbatim(repr(signature)))


def _plain_type(text: str) -> str:
    """A C type without const and with one space before each ``*``."""
    words = re.sub(r"\bconst\b", " ", text).replace("*", " * ").split()
    return " ".join(words)
