"""What every operator has to pass, ours and other packages': `OperatorSuite`.

The suite knows an operator only by its public face: its own `cases` say what to call it with, its
own `reference` what should come out. It needs neither pytest nor SciPy; with pytest, subclass it;
without, call `check_operator`.
"""

from __future__ import annotations

import functools
import inspect
import pickle
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np

from pyconv import dtypes
from pyconv._plugins import API_VERSION
from pyconv.operator import DEFAULT_WORKSPACE, Case

__all__ = ["CAPABILITIES", "CheckResult", "OperatorSuite", "check_operator", "requires"]

Array = np.ndarray[Any, Any]
# Arrays, gradients or shapes by label, in call order. A variadic argument has one label for each
# of its arrays, such as "weights[0]".
Flat = dict[str, Any]
_Function = TypeVar("_Function", bound=Callable[..., None])

#: What an operator may be able to do; `OperatorSuite.capabilities` says what one can.
CAPABILITIES: Mapping[str, str] = {
    "backward": "has gradients of every array argument",
    "batch": "takes any number of images, each independent of the others",
    "half": "takes float16 and bfloat16, computed in float32",
    "pickle": "can be pickled, which takes an operator that the registry finds by its name",
    "plan": "can be planned",
}

_THREADS = (1, 2, 3, 8)
_ENOUGH_MACS, _MOST_IMAGES = 2_000_000, 96  # for a call to be spread over several threads
_GUARD, _PATTERN = 256, 0xA5  # bytes beside out=, and what they are


@dataclass(frozen=True)
class CheckResult:
    """How one check of an operator ended.

    Attributes
    ----------
    check : str
        Name of the check, a method of the suite.
    status : {"passed", "failed", "skipped", "expected"}
        Skipped is what takes a capability that the operator lacks; expected, a failure that the
        suite announces.
    reason : str
        What the check is for.
    message : str
        What failed or why it was not run; empty if it passed.
    """

    check: str
    status: str
    reason: str
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing unexpected happened."""
        return self.status != "failed"


def requires(*capabilities: str) -> Callable[[_Function], _Function]:
    """Mark a check that is only for operators with all these `CAPABILITIES`."""

    def mark(function: _Function) -> _Function:
        function.__dict__["requires"] = capabilities
        return function

    return mark


def check_operator(
    op: Any, suite: type[OperatorSuite] | None = None, checks: list[str] | None = None
) -> list[CheckResult]:
    """Run the checks of a suite on an operator, without pytest.

    Parameters
    ----------
    op : Operator
        What to check; it need not be registered.
    suite : type, optional
        `OperatorSuite`, or a subclass with capabilities, expected failures or checks of its own.
    checks : list of str, optional
        Names of the checks to run; all by default.

    Returns
    -------
    list of CheckResult
        In the order of the suite. Nothing is raised for a check that fails.

    Raises
    ------
    ValueError
        If a name in `checks` is not that of a check.

    Examples
    --------
    >>> import pyconv
    >>> op = pyconv.get(pyconv.operators.builtin_names()[0])
    >>> for result in pyconv.testing.check_operator(op, checks=["test_out", "test_pickle"]):
    ...     print(result.check, result.status)
    test_out passed
    test_pickle passed
    """
    cls = suite or OperatorSuite
    names = dict.fromkeys(n for c in reversed(cls.__mro__) for n in vars(c) if n[:5] == "test_")
    if unknown := [name for name in checks or () if name not in names]:
        raise ValueError(f"checks must be out of {', '.join(names)}; got {unknown}")
    wanted = names if checks is None else checks
    return [_outcome(cls(), inspect.unwrap(getattr(cls, name)), op)[0] for name in wanted]


def _outcome(
    suite: Any, function: Callable[..., None], *args: Any, **kwargs: Any
) -> tuple[CheckResult, Exception | None]:
    name, reason = function.__name__, (inspect.getdoc(function) or "").partition("\n")[0]
    lacking = sorted(set(getattr(function, "requires", ())) - suite.capabilities)
    if lacking:
        return CheckResult(name, "skipped", reason, f"no capability {', '.join(lacking)}"), None
    expected = suite.expected_failures.get(name)
    try:
        function(suite, *args, **kwargs)
    except Exception as error:
        if expected is not None:
            return CheckResult(name, "expected", reason, expected), error
        text = str(error) if type(error) is AssertionError else f"{type(error).__name__}: {error}"
        return CheckResult(name, "failed", reason, text), error
    if expected is not None:
        return CheckResult(name, "failed", reason, f"passes, against: {expected}"), None
    return CheckResult(name, "passed", reason), None


def _for_pytest(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)  # it has the same fixtures
    def check(self: Any, *args: Any, **kwargs: Any) -> None:
        result, error = _outcome(self, function, *args, **kwargs)
        if result.status == "failed":
            raise error or AssertionError(result.message)
        if result.status != "passed":
            import pytest

            (pytest.skip if result.status == "skipped" else pytest.xfail)(result.message)

    return check


class _Checks:
    """Sees to it that a suite's checks respect its capabilities and expected failures."""

    capabilities: ClassVar[frozenset[str]] = frozenset(CAPABILITIES)
    expected_failures: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, function in list(vars(cls).items()):
            if name.startswith("test_"):
                setattr(cls, name, _for_pytest(function))
        if unknown := sorted(cls.capabilities - set(CAPABILITIES)):
            raise TypeError(f"capabilities must be out of {', '.join(CAPABILITIES)}; got {unknown}")
        if unknown := [name for name in cls.expected_failures if not hasattr(cls, name)]:
            raise TypeError(f"expected_failures must name checks; got {unknown}")


class OperatorSuite(_Checks):
    """The checks that an operator has to pass.

    Subclass it in a test module, with a fixture called ``op``, and pytest runs every check. What an
    operator cannot do is said in `capabilities`, what it should do but does not in
    `expected_failures`.

    Attributes
    ----------
    capabilities : frozenset of str
        What the operator can do, out of `CAPABILITIES`; everything by default.
    expected_failures : mapping of str to str
        Checks that fail, and why. It is strict: one of them that passes is a failure.

    Examples
    --------
    In ``test_mine.py``, ``my_package.OPERATOR`` being an operator without gradients:

    >>> import pytest
    >>> class TestMine(OperatorSuite):
    ...     capabilities = OperatorSuite.capabilities - {"backward"}
    ...     @pytest.fixture
    ...     def op(self):
    ...         return my_package.OPERATOR
    """

    def make(self, argument: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Return float64 values for an argument; override it for one that takes special values."""
        return rng.standard_normal(shape)

    # ---- what it says of itself ------------------------------------------------------------------

    def test_metadata(self, op: Any) -> None:
        """The registry, the command line and the documentation show what an operator says."""
        for name in ("name", "summary"):
            value = getattr(op, name)
            good = isinstance(value, str) and value.strip() == value != "" and "\n" not in value
            _require(good, op.name, f"{name} must be one line of text; got {value!r}")
        others, ways = op.aliases, op.algorithms
        good = isinstance(others, tuple) and all(isinstance(a, str) and a for a in others)
        good = good and len({op.name, *others}) == 1 + len(others)
        _require(good, op.name, f"aliases must be a tuple of different other names; got {others!r}")
        _require(isinstance(op.url, str), op.name, f"url must be a str; got {op.url!r}")
        _require(op.api_version == API_VERSION, op.name, f"api_version must be {API_VERSION}")
        good = len(set(ways)) == len(ways) and {"auto", "direct"} <= set(ways)
        _require(good, op.name, f"algorithms must have auto and direct once; got {ways}")
        _require(op.name in repr(op), op.name, f"repr must show the name; got {op!r}")
        _require(bool(op.__doc__), op.name, "there must be a docstring")

    def test_signature(self, op: Any) -> None:
        """A call reads alike for all operators: arrays first, then keywords with defaults."""
        parameters = op.signature.parameters
        _require(inspect.signature(op) == op.signature, op.name, "inspect.signature must agree")
        missing = {*op.array_names, *op.optional, *op.per_call} - set(parameters)
        _require(not missing, op.name, f"signature must have the arrays {missing}")
        good = op.array_names[0] == op.per_call[0] == "x" and set(op.optional) < {*op.array_names}
        _require(good, op.name, "the first array must be x, and not optional")
        loose = [n for n, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
        good = set(loose) <= set(op.array_names)
        _require(good, op.name, f"only arrays may be positional; got {', '.join(loose)}")
        defaults = {"algorithm": "auto", "max_workspace": None, "threads": None, "out": None}
        for name, default in {**defaults, **dict.fromkeys(op.optional)}.items():
            good = name in parameters and parameters[name].default == default
            _require(good, op.name, f"signature must have {name}={default!r}")

    def test_shapes(self, op: Any) -> None:
        """Cases name every array, and `output_shape`, `cost` and plans foretell what calls do."""
        names = [case.name for case in op.cases()]
        _require(
            len({*names, ""}) == len(names) + 1 > 1, op.name, f"cases must differ; got {names}"
        )
        for t in self._trials(op):
            t.require(tuple(t.case.shapes) == op.array_names, f"shapes must be of {op.array_names}")
            y, shape, cost = t(), t.about("output_shape"), t.about("cost")
            t.require(shape == y.shape, f"output_shape is {shape}, but a call gives {y.shape}")
            numbers = (cost.macs, cost.macs_valid, cost.parameters, cost.bytes_moved)
            good = all(type(n) is int for n in numbers) and 0 <= cost.macs_valid <= cost.macs
            t.require(good, f"costs must be ints, macs_valid at most macs; got {cost}")
            fixed = sum(t.arrays[n].size for n in t.given if _name(n) not in op.per_call)
            moved = 4 * (sum(t.arrays[n].size for n in t.given) + y.size)
            t.require(cost.parameters == fixed, f"cost.parameters {cost.parameters}, not {fixed}")
            t.require(
                cost.bytes_moved == moved, f"cost.bytes_moved {cost.bytes_moved}, not {moved}"
            )
            if "plan" in self.capabilities:
                plan = t.plan()
                t.require(plan.output_shape == shape, f"output_shape of {plan} is not {shape}")
                t.require(plan.macs == cost.macs, f"macs {plan.macs} of {plan}, not {cost.macs}")

    # ---- values and gradients --------------------------------------------------------------------

    def test_values(self, op: Any) -> None:
        """Results are those of the definition, within the promised error, by every algorithm."""
        for t in self._of_all_dtypes(op):
            exact, magnitude = t.exact(), t.absolute().exact()
            average = sqrt(t.about("cost").macs / max(exact.size, 1))
            most = np.full(exact.shape, 32 * np.max(magnitude, initial=0))
            for way in (
                [t.case.params["algorithm"]] if "algorithm" in t.case.params else op.algorithms
            ):
                try:
                    y = t(algorithm=way)
                except ValueError as error:
                    good = way not in ("direct", "auto") and way in str(error)
                    t.require(good, f"algorithm={way!r} may not be refused like this: {error}")
                    continue
                t.require(y.dtype == t.dtype, f"result of {t.dtype} is {y.dtype}")
                size = np.minimum(most, 4 * (1 + average) * magnitude) if way == "direct" else most
                t.close(y, exact, size, f"algorithm={way!r}, {y.dtype.name}")

    @requires("backward")
    def test_numerical_gradients(self, op: Any) -> None:
        """The gradient of every array argument is that of the definition along a direction."""
        for t in self._of_all_dtypes(op, ["f8"]):
            grad, rng = t.grad(), np.random.default_rng(7)
            for name, found in t.backward(grad).items():
                t.require(found.shape == t.arrays[name].shape, f"gradient of {name}: {found.shape}")
                direction = rng.uniform(0.5, 1, found.shape) * rng.choice([-1, 1], found.shape)
                # Any step is exact where the definition is a straight line.
                step, error = (1.0, 1e-12) if name in t.straight else (2.0**-16, 1e-8)
                ends = [
                    t.put({name: t.arrays[name] + s * direction}).exact() for s in (step, -step)
                ]
                terms = (ends[0] - ends[1]) * grad / (2 * step)
                wanted, got = float(np.sum(terms)), float(np.vdot(found, direction))
                size = np.sum(abs(terms)) + np.vdot(abs(found), abs(direction))
                good = abs(got - wanted) <= error * size
                t.require(good, f"gradient of {name} along a direction: {got}, not {wanted}")

    @requires("backward")
    def test_gradients_of_all_dtypes(self, op: Any) -> None:
        """Gradients of less precise arrays are those in float64, rounded as promised."""
        for t in self._of_all_dtypes(op):
            grad, wide = t.grad(), t.cast("f8")
            exact = wide.backward(grad.astype("f8"))
            sizes = wide.absolute().backward(abs(grad.astype("f8")))
            for name, found in t.backward(grad).items():
                t.require(found.dtype == t.dtype, f"gradient of {name}: {found.dtype}")
                size = 32 * np.max(abs(sizes[name]), initial=0)
                if name not in t.straight:  # larger arguments do not make for larger terms
                    size += 1024 * np.max(abs(exact[name]), initial=0)
                what = f"gradient of {name}, {t.dtype.name}"
                t.close(found, exact[name], np.full(found.shape, size), what)

    @requires("backward")
    def test_adjoint(self, op: Any) -> None:
        """``<A x, y> = <x, Aᵀ y>``, in each argument that the operator is linear in."""
        for t in self._of_all_dtypes(op, ["f8"]):
            grad = t.grad()
            gradients, size = t.backward(grad), np.sum(t.absolute().exact() * abs(grad))
            for name in t.straight:
                a = t.arrays[name]
                left = np.vdot(t() - t.put({name: np.zeros_like(a)})(), grad)
                right = np.vdot(a, gradients[name])
                good = bool(abs(left - right) <= 1e-13 * size)
                t.require(good, f"<A {name}, y> = {left}, but <{name}, Aᵀ y> = {right}")

    @requires("backward")
    def test_needs(self, op: Any) -> None:
        """``needs=`` decides which gradients there are, and never what they are."""
        for t in self._trials(op, without=True):
            grad = t.grad()
            full = t.backward(grad)
            names = [*dict.fromkeys(map(_name, t.given))]
            t.require({*map(_name, full)} == {*names}, f"there must be gradients of {names}")
            for needs in (*names, names[::-1], names[:2], []):
                found = t.backward(grad, needs=needs)
                good = {*map(_name, found)} == ({needs} if isinstance(needs, str) else {*needs})
                t.require(good, f"needs={needs!r} gives {[*found]}")
                for name, value in found.items():
                    t.same(value, full[name], f"gradient of {name}, needs={needs!r}")
            t.raises("needs='zigzag'", ValueError, ["needs"], t.backward, grad, needs="zigzag")
            t.raises("grad of no shape", ValueError, ["grad"], t.backward, grad[..., :0])

    # ---- out=, and the same bits -----------------------------------------------------------------

    def test_out(self, op: Any) -> None:
        """``out=`` is filled and returned, and not a byte beside it is touched."""
        for t in self._trials(op):
            y = t()
            for what, step in (("contiguous", 1), ("with gaps", 2)):
                store = np.full(y.nbytes * step + 2 * _GUARD, _PATTERN, np.uint8)
                inner = store[_GUARD:-_GUARD]
                out = inner.view(y.dtype).reshape(*y.shape[:-1], -1)[..., ::step]
                t.require(t(out=out) is out, "the result must be out")
                t.same(out, y, f"the result in an out {what}")
                inner.reshape(-1, step, y.itemsize)[:, 0] = _PATTERN
                t.require(
                    bool((store == _PATTERN).all()), f"bytes beside an out {what} were written"
                )

    def test_same_bits_for_threads(self, op: Any) -> None:
        """A result does not depend on the number of threads."""
        for t in self._large(op):
            one = self._everything(t, threads=_THREADS[0])
            for count in _THREADS[1:]:
                more = self._everything(t, threads=count)
                t.all_same(more, one, f"with {count} threads and with one")

    def test_same_bits_again(self, op: Any) -> None:
        """A result does not depend on the run."""
        for t in self._large(op):
            first = self._everything(t)
            for _ in range(3):
                t.all_same(self._everything(t), first, "when run again")

    @requires("batch")
    def test_same_bits_for_batch(self, op: Any) -> None:
        """A result does not depend on the batch that an image was part of."""
        trials = list(self._batched(op, 5))
        _require(bool(trials), op.name, "there must be a batched case, or no capability 'batch'")
        for t in trials:
            images, grad = [n for n in t.given if _name(n) in op.per_call], t.grad()
            whole = self._everything(t.put({"grad": grad}))
            for part in (slice(0, 1), slice(1, 3), slice(3, 5), 2):
                some = {n: t.arrays[n][part] for n in images}
                found = self._everything(t.put({**some, "grad": grad[part]}))
                for name in ("result", *images):
                    if name in whole:  # the others are sums over the images
                        t.same(found[name], whole[name][part], f"{name}, images {part} of 5")

    def test_same_bits_for_strides(self, op: Any) -> None:
        """A result does not depend on how its arguments lie in memory."""
        self._placed(op, "in Fortran order", lambda a: np.array(a, order="F"))
        self._placed(op, "with negative strides", lambda a: np.flip(np.flip(a).copy()))
        self._placed(op, "with gaps", lambda a: np.repeat(a, 3, axis=-1)[..., 1::3])

    # ---- plans -----------------------------------------------------------------------------------

    @requires("plan")
    def test_plan(self, op: Any) -> None:
        """A plan gives the bits of a call, whatever becomes of the arrays it was made with."""
        for t in self._trials(op, without=True):
            y, mine = t(), t.each(np.copy)
            plan = mine.plan()
            for name in mine.given:
                if _name(name) not in op.per_call:
                    mine.arrays[name][...] = np.nan
            t.same(plan(*t.images), y, "the result of a plan")
            out = np.empty_like(y)
            t.require(plan(*t.images, out=out) is out, "the result of a plan must be out")
            t.same(out, y, "the result of a plan in out")

    @requires("plan")
    def test_plan_attributes(self, op: Any) -> None:
        """A plan, which threads may share, cannot be changed, and explains itself."""
        for t in self._trials(op):
            plan = t.plan()
            for name in ("output_shape", "algorithm", "workspace_bytes", "macs", "anything"):
                try:
                    setattr(plan, name, getattr(plan, name, None))
                except AttributeError:
                    continue
                t.fail(f"{name} of a plan can be set")
            words = [op.name, "threads", plan.algorithm]
            words += map(str, [plan.output_shape, plan.workspace_bytes, plan.macs])
            text = plan.explain()
            missing = [word for word in words if word not in text]
            t.require(not missing, f"explain() must tell {missing}; got\n{text}")
            good = plan.algorithm in set(op.algorithms) - {"auto"}
            t.require(good, f"algorithm of a plan must be a real one; got {plan.algorithm!r}")

    @requires("plan")
    def test_workspace(self, op: Any) -> None:
        """Beyond arguments and result, a call takes at most ``max_workspace``, and says so."""
        for t in self._large(op):
            for limit in (None, 2**20, 2**18):
                took = t.plan(max_workspace=limit).workspace_bytes
                good = type(took) is int and 0 <= took <= (limit or DEFAULT_WORKSPACE)
                t.require(good, f"workspace_bytes {took}, max_workspace={limit}")

    @requires("plan")
    def test_concurrent_calls(self, op: Any) -> None:
        """A plan, and an operator, may be called from many threads at once."""
        for t in self._trials(op):
            trials = [t.put({"x": t.arrays["x"] * (k + 1)}) for k in range(4)]
            plan, wanted = t.plan(), [trial() for trial in trials]
            calls = [c for s in trials for c in (s, functools.partial(plan, *s.images))]
            with ThreadPoolExecutor(8) as pool:
                for i, y in enumerate(pool.map(lambda call: call(), calls * 6)):
                    t.same(y, wanted[i % 8 // 2], "a result among concurrent calls")

    # ---- odd inputs ------------------------------------------------------------------------------

    def test_odd_inputs(self, op: Any) -> None:
        """Read-only, byte-swapped, unaligned and 0-strided arrays are taken, none is written to."""
        self._placed(op, "read-only", _read_only)
        self._placed(op, "byte-swapped", lambda a: a.astype(a.dtype.newbyteorder()))
        self._placed(op, "unaligned", _unaligned)
        self._placed(op, "0-strided", lambda a: np.broadcast_to(a[..., :1], a.shape))

    @requires("batch")
    def test_empty_batch(self, op: Any) -> None:
        """No images: an empty result, and gradients of zero."""
        for t, one in zip(self._batched(op, 0), self._batched(op, 1), strict=True):
            y, shape = t(), (0, *one.about("output_shape")[1:])
            good = y.shape == shape and y.dtype == t.dtype
            t.require(good, f"the result is {y.shape}, {y.dtype}; not {shape}, {t.dtype}")
            for name, found in (t.backward(y) if "backward" in self.capabilities else {}).items():
                good = found.shape == t.arrays[name].shape and not found.any()
                t.require(good, f"gradient of {name}: not zeros of its shape")

    # ---- errors ----------------------------------------------------------------------------------

    def test_wrong_dtypes(self, op: Any) -> None:
        """Nothing is converted silently: a mix of dtypes, or integers, is an error."""
        for t in self._trials(op):
            out = np.full(t.about("output_shape"), 7, np.float32)
            for name in t.given:
                for what, dtype in (("a float64 among float32", "f8"), ("an integer", "i4")):
                    wrong = t.put({name: t.arrays[name].astype(dtype)})
                    t.raises(f"{what}, {name}", TypeError, [name], wrong, out=out)
                    t.require(bool((out == 7).all()), f"out was written on error: {what}, {name}")

    def test_wrong_arguments(self, op: Any) -> None:
        """An unknown keyword or algorithm, or an array left out, is named by the error."""
        for t in self._trials(op):
            t.raises("an unknown keyword", TypeError, ["zigzag"], t, zigzag=1)
            words = ["algorithm", "zigzag"]
            t.raises("an unknown algorithm", ValueError, words, t, algorithm="zigzag")
            for name in set(op.array_names) - set(op.optional):
                variadic = {n for n in t.arrays if n.startswith(f"{name}[")}
                rest = {n: a for n, a in t.arrays.items() if n not in variadic}
                less = replace(t, arrays=rest if variadic else {**rest, name: None})
                t.raises(f"a call without {name}", TypeError, [name], less)

    def test_wrong_out(self, op: Any) -> None:
        """An ``out=`` that cannot take the result is refused before anything is written."""
        for t in self._trials(op):
            y = t()
            t.raises("a read-only out", ValueError, ["out"], t, out=_read_only(y))
            t.raises("an out of another shape", ValueError, ["out"], t, out=y[None].copy())
            t.raises("an out of another dtype", TypeError, ["out"], t, out=y.astype("f8"))
            t.raises("an out that is a list", TypeError, ["out"], t, out=y.tolist())
            for name in t.given:
                a = t.arrays[name]
                # The last element of the argument is the first one of the result.
                store = np.concatenate([a.ravel(), np.zeros(y.size - 1, y.dtype)])
                before, out = store.copy(), store[a.size - 1 :].reshape(y.shape)
                mine, what = t.put({name: store[: a.size].reshape(a.shape)}), f"an out over {name}"
                t.raises(what, ValueError, ["out"], mine, out=out)
                t.same(store, before, f"{what}, after the error")

    @requires("pickle")
    def test_pickle(self, op: Any) -> None:
        """Operators travel to worker processes."""
        copy = pickle.loads(pickle.dumps(op))
        good = type(copy) is type(op) and copy.name == op.name
        _require(good, op.name, f"pickling gives {copy!r}, a {type(copy).__name__}")
        for t in self._trials(op):
            t.same(replace(t, op=copy)(), t(), "the result after pickling")

    # ---- what to try -----------------------------------------------------------------------------

    def _trial(
        self, op: Any, case: Case, dtype: Any = "f4", straight: tuple[str, ...] | None = None
    ) -> _Trial:
        """Return the case with arrays, each with values of its own, the same at every call."""
        arrays = dict.fromkeys(shapes := _flat(case.shapes))
        for name, shape in shapes.items():
            if shape is not None:
                rng = np.random.default_rng(zlib.crc32(f"{case.name}/{name}".encode()))
                values = self.make(_name(name), tuple(shape), rng)
                if straight is not None and name not in straight:
                    # Positions, say: no sum with an integer is rounded, and none is an integer,
                    # where there might be no derivative.
                    values = np.floor(values * 32) / 32 + 1 / 64
                arrays[name] = values.astype(dtype)
        return _Trial(op, case, arrays, straight or ())

    def _trials(self, op: Any, without: bool = False, dtype: Any = "f4") -> Iterator[_Trial]:
        """All cases; on request also without the arrays that may be left out."""
        for case in op.cases():
            yield self._trial(op, case, dtype)
            given = [name for name in op.optional if case.shapes[name] is not None]
            if without and given:
                shapes = {**case.shapes, **dict.fromkeys(given)}
                name = f"{case.name}, no {' or '.join(given)}"
                yield self._trial(op, replace(case, name=name, shapes=shapes), dtype)

    def _of_all_dtypes(
        self, op: Any, names: Any = ("f4", "f8", "f2", "bfloat16")
    ) -> Iterator[_Trial]:
        kinds = [np.dtype(name) for name in names if name != "bfloat16"]
        if "half" not in self.capabilities:
            kinds = [dtype for dtype in kinds if dtype.itemsize > 2]
        elif "bfloat16" in names:
            try:
                import ml_dtypes
            except ImportError:
                pass
            else:
                kinds.append(np.dtype(ml_dtypes.bfloat16))
        for t in self._trials(op, without=True, dtype="f8"):
            straight = t.affine()
            yield from (self._trial(op, t.case, dtype, straight) for dtype in kinds)

    def _batched(self, op: Any, count: int) -> Iterator[_Trial]:
        """Cases with that many images, where arrays have an axis for them."""
        for t in self._trials(op):
            images = {n: t.arrays[n].shape for n in t.given if _name(n) in op.per_call}
            try:
                t.put({n: np.empty((1, *shape)) for n, shape in images.items()}).about(
                    "output_shape"
                )
            except (TypeError, ValueError):  # one axis too many: the first is for images already
                shapes = {n: (count, *shape[1:]) for n, shape in images.items()}
                yield self._trial(op, replace(t.case, shapes={**_flat(t.case.shapes), **shapes}))

    def _large(self, op: Any) -> Iterator[_Trial]:
        """Cases with enough images for several threads, where they take images."""
        many = {}
        if "batch" in self.capabilities:
            for one in self._batched(op, 1):
                count = min(_MOST_IMAGES, _ENOUGH_MACS // max(one.about("cost").macs, 1) + 1)
                many.update({t.case.name: t for t in self._batched(op, count)
                             if t.case.name == one.case.name})  # fmt: skip
        yield from (many.get(t.case.name, t) for t in self._trials(op))

    def _everything(self, t: _Trial, **params: Any) -> Flat:
        """Result, and gradients by argument; there may be a "grad" among the arrays."""
        arrays = dict(t.arrays)
        grad = arrays.pop("grad", None)
        t = replace(t, arrays=arrays)
        found = {"result": t(**params)}
        if "backward" in self.capabilities:
            found.update(t.backward(t.grad() if grad is None else grad, **params))
        return found

    def _placed(self, op: Any, what: str, place: Callable[[Array], Array]) -> None:
        """Check that arguments may be placed like this, one at a time and all together."""
        for t in self._trials(op):
            t = t.put({"grad": t.grad()})
            for chosen in (*([name] for name in t.given), t.given):
                odd = t.put({name: place(t.arrays[name]) for name in chosen})
                plain = odd.each(lambda a: np.array(a, a.dtype.newbyteorder("="), order="C"))
                text = f"with {', '.join(chosen)} {what}"
                t.all_same(self._everything(odd), self._everything(plain), text)
                for name in t.given:
                    after = np.array(odd.arrays[name], t.dtype)
                    t.same(after, plain.arrays[name], f"{name}, an argument, afterwards, {text}")


@dataclass(frozen=True)
class _Trial:
    """An operator, a case and arrays for it: what a check calls, and what it finds."""

    op: Any
    case: Case
    arrays: Flat
    straight: tuple[str, ...] = ()  # arguments that the definition is known to be affine in

    @property
    def given(self) -> list[str]:
        return [name for name, array in self.arrays.items() if array is not None]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.arrays["x"].dtype

    @property
    def images(self) -> list[Array | None]:
        return [array for n, array in self.arrays.items() if _name(n) in self.op.per_call]

    def put(self, arrays: Flat) -> _Trial:
        return replace(self, arrays={**self.arrays, **arrays})

    def each(self, function: Callable[[Array], Any]) -> _Trial:
        return self.put({name: function(self.arrays[name]) for name in self.given})

    def cast(self, dtype: Any) -> _Trial:
        return self.each(lambda a: a.astype(dtype))

    def absolute(self) -> _Trial:
        return self.put({name: abs(self.arrays[name]) for name in self.straight})

    def grad(self) -> Array:
        shape = self.about("output_shape")
        return np.random.default_rng(3).standard_normal(shape).astype(self.dtype)

    def _arguments(self, skip: tuple[str, ...] = (), **params: Any) -> tuple[list[Any], Flat]:
        args, kwargs = [], {}
        for label, value in self.arrays.items():
            parameter = self.op.signature.parameters[_name(label)]
            if parameter.kind is parameter.KEYWORD_ONLY and value is not None:
                kwargs[label] = value
            elif parameter.kind is not parameter.KEYWORD_ONLY and parameter.name not in skip:
                args.append(value)
        return args, {**kwargs, **self.case.params, **params}

    def __call__(self, **params: Any) -> Array:
        args, kwargs = self._arguments(**params)
        return self.op(*args, **kwargs)

    def backward(self, grad: Array, **params: Any) -> Flat:
        args, kwargs = self._arguments(**params)
        return _flat(self.op.backward(grad, *args, **kwargs))

    def plan(self, **params: Any) -> Any:
        args, kwargs = self._arguments(self.op.per_call, **params)
        return self.op.plan(self.arrays["x"].shape, *args, **kwargs)

    def about(self, method: str) -> Any:
        """Return what the operator says of such shapes."""
        args, kwargs = self.each(np.shape)._arguments()
        return getattr(self.op, method)(*args, **kwargs)

    def exact(self) -> Array:
        """Return the definition's result, in a wider dtype than the arrays' if there is one."""
        args, kwargs = self.cast("g" if self.dtype.itemsize == 8 else "f8")._arguments()
        return self.op.reference(*args, **kwargs)

    def affine(self) -> tuple[str, ...]:
        """Names of the arguments that, the others fixed, the definition is affine in."""
        y, found = self.exact(), []
        for name in self.given:
            twice, none = (self.put({name: self.arrays[name] * k}).exact() for k in (2.0, 0.0))
            if np.max(abs(twice - 2 * y + none)) <= 1e-9 * np.max(abs(twice) + abs(none)):
                found.append(name)
        return tuple(found)

    def fail(self, message: str) -> NoReturn:
        where = f"{self.op.name}, case {self.case.name!r} {dict(self.case.params)}"
        raise AssertionError(f"{where}: {message}")

    def require(self, good: bool, message: str) -> None:
        if not good:
            self.fail(message)

    def same(self, got: Array, wanted: Array, what: str) -> None:
        kinds = [f"{a.shape} {a.dtype}" for a in (got, wanted)]
        self.require(kinds[0] == kinds[1], f"{what}: {kinds[0]} instead of {kinds[1]}")
        if got.tobytes() != wanted.tobytes():
            off = np.sum(got != wanted)
            self.fail(f"{what}: {off} of {got.size} elements have other values than they should")

    def all_same(self, got: Flat, wanted: Flat, what: str) -> None:
        for name, value in wanted.items():
            title = name if name == "result" else f"gradient of {name}"
            self.same(got[name], value, f"{title}, {what}")

    def close(self, y: Array, exact: Array, size: Array, what: str) -> None:
        """Check that `y` is off by at most ``size`` roundoffs of the type it is computed in."""
        self.require(y.shape == exact.shape, f"{what}: shape {y.shape}, not {exact.shape}")
        bound = size * dtypes.unit_roundoff(dtypes.compute_dtype(y.dtype))
        if y.dtype.itemsize == 2:  # rounded once more, perhaps to a subnormal number
            bound = bound + dtypes.unit_roundoff(y.dtype) * (abs(exact) + bound) + 2.0**-25
        off = abs(y.astype(exact.dtype) - exact)
        if not np.all(off <= bound):
            i = np.unravel_index(np.argmax(np.where(off <= bound, -1, off)), off.shape)
            values = f"at {tuple(map(int, i))} {y[i]} instead of {exact[i]}"
            self.fail(f"{what}: {values}, off by {off[i]:.3g}; {bound[i]:.3g} is allowed")

    def raises(
        self, what: str, kind: type[Exception], words: list[str],
        call: Callable[..., Any], *args: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Check that a call raises `kind`, naming the operator and everything in `words`."""
        try:
            call(*args, **kwargs)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self.require(isinstance(error, kind), f"{what} must raise {kind.__name__}; got {text}")
            missing = [word for word in (self.op.name, *words) if word not in str(error)]
            self.require(not missing, f"{what}: the message must name {missing}; got {text}")
        else:
            self.fail(f"{what} must raise {kind.__name__}")


# ---- small helpers -------------------------------------------------------------------------------


def _name(label: str) -> str:
    return label.partition("[")[0]


def _flat(values: Mapping[str, Any]) -> Flat:
    """Give each array, or shape, of a variadic argument a label."""
    flat: Flat = {}
    for name, value in values.items():
        if isinstance(value, tuple) and value and not isinstance(value[0], int):
            flat.update({f"{name}[{i}]": v for i, v in enumerate(value)})
        else:
            flat[name] = value
    return flat


def _require(good: bool, where: str, message: str) -> None:
    if not good:
        raise AssertionError(f"{where}: {message}")


def _read_only(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


def _unaligned(array: Array) -> Array:
    store = np.zeros(array.nbytes + 1, np.uint8)
    moved = store[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved
