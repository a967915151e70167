"""Comparisons, and how a difference reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from pyconv.checks import shown

Array = np.ndarray[Any, Any]


class CheckFailure(AssertionError):  # noqa: N818 - it is the check that fails
    """An operator does not do what a check asks for; the message says where."""


class CheckSkipped(Exception):  # noqa: N818 - nothing is wrong
    """There is nothing to check; the message says why."""


def fail(message: str, cause: BaseException | None = None) -> NoReturn:
    """Raise `CheckFailure`."""
    __tracebackhide__ = True
    raise CheckFailure(message) from cause


def require(condition: object, message: str) -> None:
    """Raise `CheckFailure` unless `condition` holds."""
    __tracebackhide__ = True
    if not condition:
        fail(message)


def plain_array(value: object, what: str) -> None:
    """Fail unless `value` is exactly a `numpy.ndarray`."""
    __tracebackhide__ = True
    if type(value) is not np.ndarray:
        fail(f"{what} is not a numpy.ndarray but {shown(value)}")


def same_bits(got: Any, expected: Any, what: str, where: str) -> None:
    """Fail unless two arrays have the same shape, dtype and bits.

    Parameters
    ----------
    got, expected : ndarray
        The arrays.
    what : str
        What they are, for the message: "the result".
    where : str
        How `got` was made: "with threads=2".
    """
    __tracebackhide__ = True
    plain_array(got, f"{what} {where}")
    require(
        got.shape == expected.shape, f"{what} {where} has shape {got.shape}, not {expected.shape}"
    )
    require(
        got.dtype == expected.dtype,
        f"{what} {where} has dtype {got.dtype.name}, not {expected.dtype.name}",
    )
    bits = f"u{got.dtype.itemsize}"
    different = np.ascontiguousarray(got).view(bits) != np.ascontiguousarray(expected).view(bits)
    if different.any():
        fail(f"{what} {where} has other bits: {_elements(different, got, expected)}")


def all_same_bits(got: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Fail unless two outcomes (`pyconv.testing._call.Call.outcome`) have the same bits."""
    __tracebackhide__ = True
    require(
        list(got) == list(expected), f"{where}, there are {_names(got)}, not {_names(expected)}"
    )
    for what in expected:
        same_bits(got[what], expected[what], what, where)


def within(got: Any, expected: Array, bound: Any, what: str, rule: str) -> None:
    """Fail unless each element of `got` is within `bound` of `expected`.

    Parameters
    ----------
    got, expected : ndarray
        The arrays; compared in the dtype of `expected`.
    bound : float or ndarray
        Largest accepted difference, for all elements or for each.
    what, rule : str
        What they are, and where `bound` comes from, for the message.
    """
    __tracebackhide__ = True
    plain_array(got, what)
    require(got.shape == expected.shape, f"{what} has shape {got.shape}, not {expected.shape}")
    wide = got.astype(np.float32) if got.dtype.itemsize == 2 else got
    error = np.abs(wide.astype(expected.dtype) - expected)
    bound = np.broadcast_to(bound, error.shape)
    wrong = ~(error <= bound)  # NaN is wrong
    if wrong.any():
        ratio = np.where(wrong, error / np.maximum(bound, np.finfo(bound.dtype).tiny), -1)
        worst = np.unravel_index(np.argmax(np.where(np.isnan(ratio), np.inf, ratio)), ratio.shape)
        fail(
            f"{what} is not within {rule}: {_elements(wrong, got, expected, worst)}; "
            f"the error is {float(error[worst]):.3g}, at most {float(bound[worst]):.3g} is allowed"
        )


def refused(
    what: str,
    kinds: type[Exception] | tuple[type[Exception], ...],
    operator: str,
    arguments: str | Iterable[str],
    make: Callable[..., object],
    /,
    *args: Any,
    **kwargs: Any,
) -> str:
    """Fail unless a call raises an error that names the operator and an argument.

    Parameters
    ----------
    what : str
        What is wrong with the call, for the message: "layout='nonsense'".
    kinds : exception type or tuple of them
        What it may raise.
    operator : str
        The operator's name, which the error has to contain.
    arguments : str or iterable of str
        Names, one of which the error has to contain; an empty one if it may be any.
    make, *args, **kwargs
        The call.

    Returns
    -------
    str
        The text of the error.
    """
    __tracebackhide__ = True
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    wanted = " or ".join(kind.__name__ for kind in kinds)
    try:
        make(*args, **kwargs)
    except kinds as error:
        text = str(error)
    except Exception as error:
        fail(f"{what} raises {described(error)}, not a {wanted}", error)
    else:
        fail(f"{what} is accepted; it has to be a {wanted}")
    require(named(operator, text), f"{what}: the error does not name the operator: {text!r}")
    names = [arguments] if isinstance(arguments, str) else list(arguments)
    require(
        any(named(name, text) for name in names if name) or names == [""],
        f"{what}: the error does not name {' or '.join(names)}: {text!r}",
    )
    return text


def named(name: str, text: str) -> bool:
    """Whether `name` is a word of `text`."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def described(error: BaseException) -> str:
    """Return an exception as one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else text[:297] + "..."


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _elements(wrong: Array, got: Array, expected: Array, at: tuple[Any, ...] | None = None) -> str:
    """Say how many elements are wrong, and what one of them is."""
    if at is None:
        at = np.unravel_index(np.argmax(wrong), wrong.shape)
    index = tuple(int(i) for i in at)
    count = np.count_nonzero(wrong)
    return (
        f"{count} of {wrong.size} elements; at {index} it is {_number(got[at])} instead of "
        f"{_number(expected[at])}"
    )


def _number(value: Any) -> str:
    return f"{float(value):.10g}"
