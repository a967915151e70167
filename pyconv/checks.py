"""Argument checks: the one place that decides what is accepted and how a refusal reads.

Every message has the form ``"{operator}: {argument} must {rule}; got {value}"``. A value of the
wrong type is a `TypeError`, a wrong value of the right type a `ValueError`. Nothing is converted
silently: ``2.0`` is not an integer and ``1`` is not a flag.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from operator import index
from typing import Any, NoReturn

import numpy as np

#: Largest accepted parameter (stride, padding, ...). Two of them can be multiplied in 64 bits.
MAX_PARAMETER = 2**31 - 1

#: What ``padding=`` accepts by name, and what ``padding_mode=`` accepts.
PADDINGS = ("valid", "same", "same_lower", "full", "causal")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")

_MAX_SHOWN = 80


class Verbatim(str):
    """Text that `fail` and `fail_type` print as it is, instead of its shortened repr."""

    __slots__ = ()


class _ShortRepr(reprlib.Repr):
    """A repr that stays short, and cheap for long built-in containers and arrays."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxtuple = self.maxlist = self.maxarray = 12
        self.maxset = self.maxfrozenset = self.maxdeque = self.maxdict = 8
        self.maxstring = self.maxother = self.maxlong = _MAX_SHOWN

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print very long integers, and takes quadratic time for long ones.
        return repr(x) if x.bit_length() <= 256 else f"an integer of {x.bit_length()} bits"

    def repr_instance(self, x: Any, level: int) -> str:
        try:
            plain = isinstance(x, (np.generic, type))
            if not plain and hasattr(x, "shape") and hasattr(x, "dtype"):
                kind = "array" if isinstance(x, np.ndarray) else type(x).__name__
                shape = reprlib.Repr.repr1(self, tuple(x.shape), level)
                return f"{kind} of shape {shape} and dtype {x.dtype}"
            return repr(x)
        except Exception:
            return f"<{type(x).__name__} object>"

    # reprlib looks methods up by type name: "ndarray" must not be taken for a sequence.
    repr_ndarray = repr_instance


_short = _ShortRepr()


def shown(value: object) -> str:
    """Return how a message shows `value`: a repr of at most 80 characters."""
    if isinstance(value, Verbatim):
        return str(value)
    try:
        text = _short.repr(value)
    except Exception:
        text = f"<{type(value).__name__} object>"
    text = " ".join(text.split())
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def fail(
    operator: str,
    argument: str,
    rule: str,
    got: object,
    cause: BaseException | None = None,
) -> NoReturn:
    """Raise the `ValueError` that says `argument` must follow `rule`."""
    raise ValueError(f"{operator}: {argument} must {rule}; got {shown(got)}") from cause


def fail_type(
    operator: str,
    argument: str,
    rule: str,
    got: object,
    cause: BaseException | None = None,
) -> NoReturn:
    """Raise the `TypeError` that says `argument` must follow `rule`."""
    raise TypeError(f"{operator}: {argument} must {rule}; got {shown(got)}") from cause


class WorkspaceError(ValueError):
    """A kernel's refusal; `pyconv.operator` says it again with what the caller gave."""

    def __init__(self, operator: str, need: int, budget: int) -> None:
        super().__init__(f"{operator}: max_workspace must be at least {need} bytes; got {budget}")
        self.need = need


def integer(
    operator: str, argument: str, value: object, *, minimum: int, maximum: int = MAX_PARAMETER
) -> int:
    """Return `value` as a plain `int` within ``[minimum, maximum]``."""
    number = _as_int(value)
    if number is None:
        fail_type(operator, argument, f"be {_range(minimum, None)}", value)
    if number < minimum or number > maximum:
        top = maximum if number > maximum else None
        fail(operator, argument, f"be {_range(minimum, top)}", value)
    return number


def integers(
    operator: str,
    argument: str,
    value: object,
    rank: int,
    *,
    minimum: int,
    maximum: int = MAX_PARAMETER,
) -> tuple[int, ...]:
    """Return `value`, an integer or one per spatial axis, as a tuple of `rank` plain ints."""
    number = _as_int(value)
    if number is not None:
        numbers: tuple[int | None, ...] = (number,) * rank
    else:
        items = _as_items(value)
        if items is not None and len(items) != rank:
            fail(operator, argument, f"be {_per_axis(minimum, None, rank)}", value)
        numbers = (None,) if items is None else tuple(_as_int(item) for item in items)
    checked = []
    for number in numbers:
        if number is None:
            fail_type(operator, argument, f"be {_per_axis(minimum, None, rank)}", value)
        if number < minimum or number > maximum:
            top = maximum if number > maximum else None
            fail(operator, argument, f"be {_per_axis(minimum, top, rank)}", value)
        checked.append(number)
    return tuple(checked)


def choice(operator: str, argument: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return the member of `allowed` that equals the string `value`."""
    if isinstance(value, str):
        for name in allowed:
            if name == value:
                return name
    rule = "be " + ("one of " if len(allowed) > 1 else "") + ", ".join(map(repr, allowed))
    if not isinstance(value, str):
        fail_type(operator, argument, rule, value)
    fail(operator, argument, rule, Verbatim(shown(value) + _did_you_mean(value, allowed)))


def choices(
    operator: str, argument: str, value: object, rank: int, allowed: tuple[str, ...]
) -> tuple[str, ...]:
    """Return `value`, a member of `allowed` or one per spatial axis, as `rank` of them."""
    if isinstance(value, str):
        return (choice(operator, argument, value, allowed),) * rank
    items = _as_items(value)
    rule = f"be {' or '.join(map(repr, allowed))}, or one of them per spatial axis ({rank})"
    if items is None or not all(isinstance(item, str) for item in items):
        fail_type(operator, argument, rule, value)
    if len(items) != rank:
        fail(operator, argument, rule, value)
    return tuple(choice(operator, argument, item, allowed) for item in items)


def flag(operator: str, argument: str, value: object) -> bool:
    """Return `value`, a Python or NumPy bool, as a `bool`."""
    if not isinstance(value, (bool, np.bool_)):
        fail_type(operator, argument, "be True or False", value)
    return bool(value)


def padding(operator: str, value: object, rank: int) -> str | tuple[tuple[int, int], ...]:
    """Normalise ``padding=`` to a name or to one ``(before, after)`` pair per spatial axis.

    Accepted are an integer, one integer per axis, one pair per axis and the names in `PADDINGS`.
    Negative amounts crop.
    """
    if isinstance(value, str):
        return choice(operator, "padding", value, PADDINGS)
    number = _as_int(value)
    if number is not None:
        pairs: list[Sequence[int | None]] = [(number, number)] * rank
    else:
        pairs = _padding_pairs(operator, value, rank)
    checked = []
    for before, after in pairs:
        if before is None or after is None:
            fail_type(operator, "padding", _padding_rule(rank), value)
        if max(abs(before), abs(after)) > MAX_PARAMETER:
            limit = f"stay within -{MAX_PARAMETER} to {MAX_PARAMETER}"
            fail(operator, "padding", limit, value)
        checked.append((before, after))
    return tuple(checked)


def _padding_pairs(operator: str, value: object, rank: int) -> list[Sequence[int | None]]:
    """Split a sequence given as padding into one pair per axis; None marks a non-integer."""
    items = _as_items(value)
    if items is None:
        fail_type(operator, "padding", _padding_rule(rank), value)
    if len(items) == rank:
        numbers = [_as_int(item) for item in items]
        if None not in numbers:
            return [(number, number) for number in numbers]
        nested = [_as_items(item) for item in items]
        for item, number in zip(nested, numbers, strict=True):
            if item is None and number is None:
                fail_type(operator, "padding", _padding_rule(rank), value)
        if all(item is not None and len(item) == 2 for item in nested):
            return [tuple(_as_int(end) for end in item) for item in nested if item is not None]
    hint = ""
    if len(items) == 2 * rank and None not in (flat := [_as_int(item) for item in items]):
        paired = tuple(zip(flat[::2], flat[1::2], strict=True))
        hint = f" (for one pair per axis write {paired})"
    fail(operator, "padding", _padding_rule(rank), Verbatim(shown(value) + hint))


def _as_int(value: object) -> int | None:
    """Return `value` as a plain int if it is one (bools are not), else None."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_, tuple, list)):
        return None
    try:
        if str(getattr(value, "dtype", "")).endswith("bool"):  # torch bools have an __index__
            return None
        return int(index(value))  # type: ignore[arg-type]
    except Exception:  # whatever a foreign object raises, it did not give an integer
        return None


def _as_items(value: object) -> Sequence[Any] | np.ndarray | None:
    """Return `value` if it is a sequence or an integer array with axes, else None."""
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, np.ndarray):
        return value if value.ndim and value.dtype.kind in "iu" else None
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return value
    return None


def _range(minimum: int, maximum: int | None) -> str:
    """Describe an integer range; the far-away upper bound is shown only when it matters."""
    if maximum is not None:
        return f"an integer from {minimum} to {maximum}"
    return f"an integer >= {minimum}" if minimum >= -MAX_PARAMETER else "an integer"


def _per_axis(minimum: int, maximum: int | None, rank: int) -> str:
    return f"{_range(minimum, maximum)}, or one per spatial axis ({rank})"


def _padding_rule(rank: int) -> str:
    names = ", ".join(map(repr, PADDINGS))
    return (
        f"be an integer, one integer or one (before, after) pair per spatial axis ({rank}), "
        f"or one of {names}"
    )


def _did_you_mean(value: str, allowed: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # only on the way to an error

    close = get_close_matches(value[:_MAX_SHOWN].lower(), allowed, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
