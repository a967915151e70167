"""Element types: the one place that says which exist, how they are stored and computed in."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from pyconv import checks
from pyconv.checks import Verbatim

#: Storage code of each supported dtype, by `numpy.dtype.name`. ``bfloat16`` is that of ml_dtypes:
#: an array has this dtype only if ml_dtypes is installed, so nothing here needs to import it.
KINDS = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}

#: Added to the storage code of an array whose bytes are swapped.
SWAPPED = 4

SUPPORTED = "float32, float64, float16 or bfloat16"

_ITEMSIZE = (4, 8, 2, 2)
_ROUNDOFF = (2.0**-24, 2.0**-53, 2.0**-11, 2.0**-8)
#: The compute type of each storage kind; only its first two are compute types themselves.
COMPUTE = (np.dtype("f4"), np.dtype("f8"), np.dtype("f4"), np.dtype("f4"))

_COMPUTE_CODES = tuple(KINDS[dtype.name] for dtype in COMPUTE)

# NumPy derives a dtype's name anew each time it is asked: remember the code of the dtypes met.
_codes: dict[np.dtype[Any], int] = {}


def storage_code(dtype: np.dtype[Any]) -> int:
    """Return the code by which the kernels know `dtype`: `KINDS`, plus `SWAPPED`.

    Raises
    ------
    TypeError
        If there are no kernels for `dtype`.
    """
    code = _find_code(dtype)
    if code is None:
        raise TypeError(f"dtype must be {SUPPORTED}; got {_name(dtype)}")
    return code


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the native dtype that values of `dtype` are computed in: float32 for 16 bits."""
    return COMPUTE[storage_code(dtype) % SWAPPED]


def compute_code(dtype: np.dtype[Any]) -> int:
    """Return the storage code of `compute_dtype`."""
    return _COMPUTE_CODES[storage_code(dtype) % SWAPPED]


def unit_roundoff(dtype: np.dtype[Any]) -> float:
    """Return the largest relative error of rounding to `dtype`, half of its epsilon."""
    return _ROUNDOFF[storage_code(dtype) % SWAPPED]


def common_dtype(operator: str, arrays: dict[str, np.ndarray | None]) -> np.dtype[Any]:
    """Return the one dtype, in native byte order, of the array arguments of a call.

    Parameters
    ----------
    operator : str
        Name for error messages.
    arrays : dict of str to ndarray or None
        The arguments by name; those that are None are left out.

    Raises
    ------
    TypeError
        If a dtype is not supported, or if there are several. Byte order makes no difference.
    """
    last = None
    kinds = set()
    for array in arrays.values():
        # NumPy has one object for each native dtype: most calls look at one.
        if array is not None and array.dtype is not last:
            last = array.dtype
            code = _find_code(last)
            kinds.add(None if code is None else code % SWAPPED)
    if last is None or len(kinds) != 1 or None in kinds:
        _fail_dtypes(operator, {n: a.dtype for n, a in arrays.items() if a is not None})
    return last if last.isnative else last.newbyteorder("=")


def _find_code(dtype: np.dtype[Any]) -> int | None:
    code = _codes.get(dtype)
    if code is None:
        kind = KINDS.get(dtype.name)
        # The item size tells the real types from others that have the same name.
        if kind is None or dtype.itemsize != _ITEMSIZE[kind]:
            return None
        code = kind if dtype.isnative else kind + SWAPPED
        _codes[dtype] = code
    return code


def _name(dtype: np.dtype[Any]) -> str:
    return "a structured dtype" if dtype.names is not None else dtype.name


def _fail_dtypes(operator: str, given: dict[str, np.dtype[Any]]) -> NoReturn:
    wrong = [name for name, dtype in given.items() if _find_code(dtype) is None]
    got = Verbatim(", ".join(f"{name}: {_name(dtype)}" for name, dtype in given.items()))
    if wrong:
        rule = f"have dtype {SUPPORTED} (nothing is converted silently)"
    else:
        rule = "have the same dtype"
    checks.fail_type(operator, _listed(wrong or list(given)), rule, got)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
