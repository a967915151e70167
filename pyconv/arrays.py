"""Arrays in and out: array-likes to NumPy views without a copy, and the checks of ``out=``."""

from __future__ import annotations

import ctypes
from typing import Any, NoReturn

import numpy as np

from pyconv import checks
from pyconv._kernels._tensor import apart, takes_results
from pyconv.checks import Verbatim

_INTERFACE, _DLPACK = "__array_interface__", "__dlpack__"
_ARRAY_RULE = (
    f"be an array: a numpy.ndarray, or an object with {_DLPACK} or {_INTERFACE} "
    "(nothing is converted silently; numpy.asarray may help)"
)

# DLPack device types whose memory the CPU reads: CPU, and host memory pinned for CUDA or ROCm.
_HOST_DEVICES = (1, 3, 11)

# Bound on the search for common bytes; only contrived strides get anywhere near it.
_MAX_OVERLAP_WORK = 10**6


def as_array(operator: str, argument: str, obj: object) -> np.ndarray:
    """Return `obj` as a plain `numpy.ndarray` on the same memory.

    Parameters
    ----------
    operator, argument : str
        Names for error messages.
    obj : object
        An ndarray, or an object with ``__array_interface__`` or, in CPU memory, ``__dlpack__``.

    Returns
    -------
    ndarray
        `obj` itself if it is exactly an ndarray, else a view. Its dtype may be any: see
        `pyconv.dtypes.common_dtype`.

    Raises
    ------
    TypeError
        If `obj` is something else, is masked, is on another device, or refuses to be exported.
    """
    if type(obj) is np.ndarray:
        return obj
    if isinstance(obj, np.ndarray):
        if isinstance(obj, np.ma.MaskedArray):
            rule = "be an array without a mask, which would be lost (use its .data or .filled())"
            checks.fail_type(operator, argument, rule, Verbatim(f"masked {checks.shown(obj)}"))
        return np.asarray(obj)
    # A class has the attributes of its instances, but not their memory.
    if isinstance(obj, type) or not (_has(obj, _INTERFACE) or _has(obj, _DLPACK)):
        checks.fail_type(operator, argument, _ARRAY_RULE, obj)
    read = _from_interface if _has(obj, _INTERFACE) else _from_dlpack
    return read(operator, argument, obj)


def check_out(
    operator: str,
    out: object,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    inputs: dict[str, np.ndarray | None],
) -> np.ndarray:
    """Return `out` if the result of a call can be written to it.

    Parameters
    ----------
    operator : str
        Name for error messages.
    out : object
        What the caller gave as ``out=``.
    shape, dtype
        Shape and dtype of the result, in native byte order.
    inputs : dict of str to ndarray or None
        The arrays that are read while `out` is written.

    Raises
    ------
    TypeError
        If `out` is not exactly a `numpy.ndarray`, or has another dtype.
    ValueError
        If `out` has another shape, is read-only, or shares memory with an input or itself.
    """
    plain = takes_results(out, dtype, shape)
    if not plain:
        out = _taking_results(operator, out, shape, dtype)
    assert type(out) is np.ndarray
    for name, array in inputs.items():
        if array is not None and _share_memory(out, array):
            got = Verbatim(f"arrays of shape {out.shape} and {array.shape} on the same memory")
            checks.fail(operator, "out", f"not share memory with {name}", got)
    if not plain and _overlaps_itself(out):
        got = Verbatim(f"shape {out.shape} with strides {out.strides}")
        checks.fail(operator, "out", "have each element at an address of its own", got)
    return out


def _taking_results(
    operator: str, out: object, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray:
    """`out`, of which it does not show at once that it takes results of this shape and dtype."""
    if type(out) is not np.ndarray:
        checks.fail_type(operator, "out", "be a numpy.ndarray (and no subclass of it)", out)
    if out.dtype != dtype:
        got = out.dtype.name if out.dtype.isnative else f"byte-swapped {out.dtype.name}"
        checks.fail_type(operator, "out", f"have the result's dtype {dtype.name}", Verbatim(got))
    if out.shape != shape:
        checks.fail(operator, "out", f"have the result's shape {shape}", out.shape)
    if not out.flags.writeable:
        checks.fail(operator, "out", "be writeable", Verbatim("a read-only array"))
    return out


def _has(obj: object, attribute: str) -> bool:
    try:
        return hasattr(obj, attribute)
    except Exception:  # a property may raise anything; then it has nothing to offer
        return False


def _from_interface(operator: str, argument: str, obj: object) -> np.ndarray:
    try:
        array = np.asarray(obj)
    except Exception as error:
        _fail_export(operator, argument, _INTERFACE, obj, error)
    return array


def _from_dlpack(operator: str, argument: str, obj: Any) -> np.ndarray:
    try:
        device = int(obj.__dlpack_device__()[0])
    except Exception as error:
        _fail_export(operator, argument, "__dlpack_device__", obj, error)
    if device not in _HOST_DEVICES:
        got = Verbatim(f"{checks.shown(obj)} on DLPack device type {device}")
        checks.fail_type(operator, argument, "be in CPU memory", got)
    try:
        return np.from_dlpack(obj)
    except Exception as error:
        array = _bfloat16_from_dlpack(obj)
        if array is None:
            _fail_export(operator, argument, _DLPACK, obj, error)
        return array


def _fail_export(
    operator: str, argument: str, protocol: str, obj: object, error: Exception
) -> NoReturn:
    reason = " ".join(str(error).split())[:200]
    got = Verbatim(f"{checks.shown(obj)}, which raised {type(error).__name__}: {reason}")
    checks.fail_type(operator, argument, f"be readable through {protocol}", got, error)


class _DLTensor(ctypes.Structure):
    """The head of a DLPack capsule's content, unchanged since DLPack 0.2."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    )


_DL_UINT, _DL_BFLOAT = 1, 4


class _Capsule:
    """A capsule made already, in the form that `numpy.from_dlpack` asks for."""

    def __init__(self, capsule: object) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: object) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def _bfloat16_from_dlpack(obj: Any) -> np.ndarray | None:
    """Return a bfloat16 exporter as an array, or None if `obj` is anything else.

    NumPy does not know the type and refuses the capsule. Relabel its 16 bits as an integer, import
    that, and view the result as what it is.
    """
    try:
        from ml_dtypes import bfloat16

        capsule = obj.__dlpack__()
        prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
        get_pointer = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))
        tensor = _DLTensor.from_address(get_pointer(capsule, b"dltensor"))
        if (tensor.code, tensor.bits, tensor.lanes) != (_DL_BFLOAT, 16, 1):
            return None
        tensor.code = _DL_UINT
        array: np.ndarray = np.from_dlpack(_Capsule(capsule)).view(bfloat16)
    except Exception:  # the caller reports why NumPy refused
        return None
    return array


def _share_memory(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have a byte in common; True if that is too hard to tell."""
    if apart(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=_MAX_OVERLAP_WORK)  # type: ignore[arg-type]
    except (np.exceptions.TooHardError, OverflowError):
        return True


def _overlaps_itself(array: np.ndarray) -> bool:
    """Whether two elements of `array` have a byte in common; True if that is too hard to tell."""
    if array.flags.forc or array.size < 2:
        return False
    span = array.itemsize
    axes = zip(array.strides, array.shape, strict=True)
    for stride, extent in sorted((abs(stride), extent) for stride, extent in axes if extent > 1):
        if stride < span:
            break
        span += stride * (extent - 1)
    else:
        return False  # each axis steps over everything that the finer ones cover
    # Two elements that differ by k along an axis lie at the same distance from each other wherever
    # the first one is. So either one of them is in the first half and the other in the second, or
    # such a pair is in the first half: halve until nothing is left of any axis.
    for axis in range(array.ndim):
        array = array.swapaxes(0, axis)
        while len(array) > 1:
            half = (len(array) + 1) // 2
            if _share_memory(array[:half], array[half:]):
                return True
            array = array[:half]
    return False
