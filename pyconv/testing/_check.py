"""What a check is: a method with a name and a reason, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from pyconv.operator import Operator
    from pyconv.testing._suite import Suite

Method = TypeVar("Method", bound=Callable[..., None])

#: What an operator may lack, and what that means.
CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "backward": "gradients of its arrays, by backward()",
        "plan": "plans, by plan()",
        "batch": "images with a batch axis, which do not see each other",
        "unbatched": "an image without a batch axis",
        "layout": "the parameter layout, for images with the channels last",
        "algorithm": "the parameter algorithm",
        "out": "the parameter out, for where the result goes",
        "threads": "the parameter threads",
        "max_workspace": "the parameter max_workspace",
        "float16": "arrays of float16, computed in float32 and rounded once",
        "bfloat16": "arrays of bfloat16 (ml_dtypes), computed in float32 and rounded once",
        "pickle": "pickling, by its name in the registry",
    }
)


@dataclass(frozen=True)
class CheckResult:
    """What came of one check.

    Attributes
    ----------
    name : str
        The check: the name of its method, without ``test_``.
    reason : str
        What it asks for, and so why it is there.
    status : {"passed", "failed", "skipped", "expected"}
        ``"expected"`` is a failure that was expected; an expected one that did not happen is
        ``"failed"``.
    message : str
        What is wrong, or why it was skipped; empty if it passed.
    seconds : float
        How long it took.
    error : Exception or None
        What was raised.
    """

    name: str
    reason: str
    status: str
    message: str = ""
    seconds: float = 0.0
    error: BaseException | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, for JSON; the exception is left out."""
        return {
            "name": self.name,
            "reason": self.reason,
            "status": self.status,
            "message": self.message,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        text = f"{self.status}: {self.name}"
        return f"{text}: {self.message}" if self.message else text


def check(*needs: str) -> Callable[[Method], Method]:
    """Make a method of a suite a check.

    Under pytest it is a test like any other, save that it is skipped if the operator lacks a
    capability it needs, and that it may be expected to fail. `pyconv.testing.check_operator` runs
    it as well.

    Parameters
    ----------
    *needs : str
        Names from `pyconv.testing.CAPABILITIES`.

    Returns
    -------
    callable
        A decorator for a method ``test_...(self, op)``, whose docstring says in its first line
        what it asks for.

    Examples
    --------
    >>> from pyconv.testing import OperatorSuite, check, check_operator
    >>> class Ours(OperatorSuite):
    ...     @check("backward")
    ...     def test_reference(self, op):
    ...         '''We cite where the operator comes from.'''
    ...         assert op.url
    >>> print(*check_operator("dilated", suite=Ours, checks=["reference"]))
    passed: reference
    """
    unknown = set(needs) - set(CAPABILITIES)
    if unknown:
        raise ValueError(f"check: needs must be out of {', '.join(CAPABILITIES)}; got {unknown}")

    def mark(method: Method) -> Method:
        @wraps(method)
        def test(self: Suite, op: Operator) -> None:
            __tracebackhide__ = True
            import pytest

            result = self.run(name, op)
            if result.status == "skipped":
                pytest.skip(result.message)
            if result.status == "expected":
                pytest.xfail(result.message)
            if result.error is not None:
                raise result.error

        name = short(method.__name__)
        test.check = method  # type: ignore[attr-defined]
        test.needs = frozenset(needs)  # type: ignore[attr-defined]
        return cast("Method", test)

    return mark


def check_names(
    who: str, checks: Iterable[str], named: Iterable[str], capabilities: Collection[str] | None
) -> None:
    """Raise `ValueError` for a check or a capability that does not exist."""
    for kind, names, known in (
        ("check", named, list(checks)),
        ("capability", capabilities or (), list(CAPABILITIES)),
    ):
        for name in names:
            if name not in known:
                close = get_close_matches(short(name), known, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(
                    f"{who}: no {kind} is called {name!r}{hint}; there are {', '.join(known)}"
                )


def short(name: str) -> str:
    """Return the name of a check, given that of its method."""
    return name.removeprefix("test_")
