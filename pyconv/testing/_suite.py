"""How a suite runs: its checks, capabilities, expected failures, and the calls it makes.

The checks themselves are mixed in from the other modules of this package.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from inspect import getdoc
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from pyconv.dtypes import compute_dtype, unit_roundoff
from pyconv.testing._call import Array, Call, widened
from pyconv.testing._check import CAPABILITIES, CheckResult, check_names, short
from pyconv.testing._compare import CheckFailure, CheckSkipped, described, fail

if TYPE_CHECKING:
    from pyconv.operator import Case, Operator

#: The promise: errors are at most so many unit roundoffs of the magnitude of the sums.
ROUNDOFFS = 32


class Suite:
    """What `pyconv.testing.OperatorSuite` is without its checks."""

    capabilities: Collection[str] | None = None
    expected_failures: Mapping[str, str] = MappingProxyType({})
    images: tuple[str, ...] | None = None
    constants: tuple[str, ...] | None = None

    #: The checks by name, in the order in which they run.
    checks: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A method that a subclass replaces by one that is no check, or by None, is none any more.
        table = {
            short(name): getattr(getattr(cls, name), "check", None)
            for base in cls.__mro__
            for name in vars(base)
            if name.startswith("test_")
        }
        cls.checks = MappingProxyType(
            {n: (getdoc(m) or "").partition("\n")[0] for n, m in table.items() if m is not None}
        )
        check_names(cls.__name__, cls.checks, cls.expected_failures, cls.capabilities)

    # ---- to override -----------------------------------------------------------------------------

    def cases(self, op: Operator) -> Iterable[Case]:
        """Return the cases to check, ``op.cases()`` by default."""
        return op.cases()

    def array(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Return the values of an array in float64, by default normal deviates.

        Override it where an operator wants special ones, such as a mask of zeros and ones.

        Parameters
        ----------
        name : str
            The argument; ``"axis_weights[0]"`` for one of several, ``"grad"`` for the gradient of
            a result.
        shape : tuple of int
            Its shape.
        rng : numpy.random.Generator
            Where to take them from.
        """
        return rng.standard_normal(shape)

    def magnitude(self, call: Call) -> Array:
        """Return how large the terms of each element's sum are, all counted as positive.

        By default the definition, for the absolute values of every array that it is linear in.
        Override it for a definition that subtracts.
        """
        linear = self.linear_arrays(call)
        return np.abs(call.reference(arrays=call.changed(np.abs, linear)))

    # ---- for the checks --------------------------------------------------------------------------

    def has(self, op: Operator, capability: str) -> bool:
        """Whether the operator has a capability."""
        return capability in self._capabilities(op)

    def constant(self, op: Operator, label: str) -> bool:
        """Whether an array is one without gradient."""
        declared = self.constants
        if declared is None:
            declared = getattr(op, "constants", ())
        return label.partition("[")[0] in declared

    def dtypes(self, op: Operator, *among: str) -> list[np.dtype[Any]]:
        """Return the element types the operator has, out of those named, or of all."""
        names = among or ("float32", "float64", "float16", "bfloat16")
        found = [np.dtype(n) for n in names if n in ("float32", "float64")]
        if "float16" in names and self.has(op, "float16"):
            found.append(np.dtype("float16"))
        if "bfloat16" in names and self.has(op, "bfloat16") and bfloat16() is not None:
            found.append(cast("np.dtype[Any]", bfloat16()))
        return found

    def calls(self, op: Operator, dtype: Any = "float64") -> list[Call]:
        """Return the cases as calls, smallest first."""
        return _calls(_Maker(self), _Same(op), np.dtype(dtype))

    def _make_calls(self, op: Operator, dtype: np.dtype[Any]) -> list[Call]:
        calls = []
        for case in self.cases(op):
            seed = zlib.crc32(case.name.encode())

            def generate(label: str, shape: tuple[int, ...], seed: int = seed) -> Array:
                rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
                return self.array(label, shape, rng)

            images = op.per_call if self.images is None else self.images
            calls.append(
                Call(op, case.name, dict(case.shapes), case.params, generate, images, dtype)
            )
        return sorted(calls, key=lambda call: sum(a.size for a in call.flat().values()))

    def batched_calls(self, op: Operator, dtype: Any = "float64") -> list[Call]:
        """Return the cases with a batch axis."""
        return [call for call in self.calls(op, dtype) if call.batched]

    def linear_arrays(self, call: Call) -> list[str]:
        """Labels of the arrays that the definition is linear in, apart from a constant."""
        if call.linear is None:
            # The same for every dtype: asked once, of the case in float64.
            same = (c for c in self.calls(call.op) if c.name == call.name and c.alike(call))
            twin = next(same, call)
            if twin.linear is None:
                twin.linear = [label for label in twin.flat() if _is_linear(twin, label)]
            call.linear = twin.linear
        return call.linear

    def bound(self, call: Call, magnitude: Array, exact: Array) -> Array:
        """Largest error of each element, given the magnitude of its sum."""
        compute = unit_roundoff(compute_dtype(call.dtype))
        own = float(np.finfo(exact.dtype).eps) / 2
        bound = ROUNDOFFS * (compute + own) * magnitude
        if call.dtype.itemsize == 2:
            # Rounded once from float32: half a unit in the last place, or a small subnormal.
            bound = bound + (unit_roundoff(call.dtype) * (np.abs(exact) + bound) + 2.0**-25)
        return bound

    def each(
        self, calls: Iterable[Call], examine: Callable[[Call], None], lacking: str = ""
    ) -> None:
        """Examine calls, smallest first; fail with the smallest that fails.

        Parameters
        ----------
        calls : iterable of Call
            The calls.
        examine : callable
            Raises for a call that is wrong.
        lacking : str
            What no call has if there are none, and the capability that would then be wrong; a
            check that looked at nothing has not passed.
        """
        __tracebackhide__ = True
        failed: list[tuple[Call, Exception]] = []
        calls = list(calls)
        if not calls:
            fail(f"none of the operator's cases has {lacking}: there is nothing to check")
        for call in calls:
            try:
                examine(call)
            except Exception as error:
                failed.append((call, error))
        if failed:
            call, first = failed[0]
            text = str(first) if isinstance(first, CheckFailure) else f"raised {described(first)}"
            others = f" ({len(failed)} of {len(calls)} cases)" if len(failed) > 1 else ""
            fail(f"{text}\n  case {call.name!r}{others}: {call}", first)

    # ---- running ---------------------------------------------------------------------------------

    def _capabilities(self, op: Operator) -> frozenset[str]:
        declared = self.capabilities
        if declared is None:
            declared = getattr(op, "capabilities", None)
        if declared is None:
            declared = CAPABILITIES
        return frozenset(declared)

    def run(self, name: str, op: Operator) -> CheckResult:
        """Run the check called `name`; whatever is wrong is in what it returns."""
        test = getattr(type(self), f"test_{name}")
        reason = self.checks[name]
        capabilities = self._capabilities(op)
        lacks = sorted(test.needs - capabilities)
        if lacks:
            return CheckResult(name, reason, "skipped", f"the operator lacks {', '.join(lacks)}")
        if "bfloat16" in test.needs and bfloat16() is None:
            return CheckResult(name, reason, "skipped", "ml_dtypes is not installed")
        started = perf_counter()
        error = _raised_by(test.check, self, op)
        seconds = perf_counter() - started
        if isinstance(error, CheckSkipped):
            return CheckResult(name, reason, "skipped", str(error), seconds)
        expected = self.expected_failures.get(name)
        if expected is not None:
            if error is not None:
                return CheckResult(name, reason, "expected", expected, seconds, error)
            error = CheckFailure(
                f"passes, but was expected to fail ({expected}): take it out of expected_failures"
            )
        if error is None:
            return CheckResult(name, reason, "passed", "", seconds)
        known = isinstance(error, CheckFailure)
        detail = str(error) if known else f"raised {described(error)}"
        message = f"{op.name}: {name}: {detail}\n  {reason}"
        if known:
            error.args = (message,)
        return CheckResult(name, reason, "failed", message, seconds, error)


def bfloat16() -> np.dtype[Any] | None:
    """Return the dtype bfloat16, if ml_dtypes is installed."""
    try:
        from ml_dtypes import bfloat16 as scalar
    except ImportError:
        return None
    return np.dtype(scalar)


# ---- small helpers -------------------------------------------------------------------------------


class _Same:
    """An object as a key: equal to itself alone."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


class _Maker:
    """A suite as a key: all instances of a class make the same calls."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite

    def __hash__(self) -> int:
        return hash(type(self.suite))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Maker) and type(other.suite) is type(self.suite)


@lru_cache(maxsize=64)
def _calls(maker: _Maker, op: _Same, dtype: np.dtype[Any]) -> list[Call]:
    return maker.suite._make_calls(op.value, dtype)


def _is_linear(call: Call, label: str) -> bool:
    """Whether the definition is linear, apart from a constant, in one array."""
    first = widened(call.flat()[label], np.float64)
    rng = np.random.default_rng(7)
    second = (1 + np.abs(first)) * rng.uniform(-1, 1, first.shape)
    a, b, both, neither = (
        call.reference(arrays=call.replaced(label, v))
        for v in (first, second, first + second, 0 * first)
    )
    scale = max(np.abs(v).max(initial=0) for v in (a, b, both, neither))
    return bool(np.abs(a + b - both - neither).max(initial=0) <= 1e-9 * scale)


def _raised_by(make: Callable[..., object], *args: Any) -> Exception | None:
    try:
        make(*args)
    except Exception as error:
        return error
    return None
