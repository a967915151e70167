"""Operators and plans: what every operator of the registry does, ours and other packages'.

`Operator` turns a call into a `Problem` (shapes and parameters, checked; remembered, so that it
is worked out once), takes the arrays in, and hands both to the few methods that an operator
implements:

===============  ===================================================================
``problem``      check shapes and parameters; say what the result looks like
``compute``      fill the result
``gradients``    the gradients that were asked for
``define``       the same result by definition: slow, obvious, any dtype
``cases``        example calls
===============  ===================================================================

The signature, names and defaults of the arguments, and the documentation, are those of the plain
function that `Operator.function` names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn

import numpy as np

from pyconv import _threads, checks, dtypes
from pyconv._plugins import API_VERSION
from pyconv.arrays import as_array, check_out
from pyconv.checks import Verbatim, shown
from pyconv.engine import Run
from pyconv.errors import PluginError
from pyconv.geometry import Axis

__all__ = ["Case", "Cost", "Operator", "Plan", "Problem"]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

#: Workspace of a call, in bytes, unless ``max_workspace=`` says otherwise.
DEFAULT_WORKSPACE = 32 * 2**20

# How a call runs, as opposed to what it computes.
_RUNTIME = ("out", "threads", "max_workspace")
_REMEMBERED = 256  # problems per operator
_remembered_run = lru_cache(256)(Run)
# What definitions are evaluated in, and have to keep.
_EXACT = {np.dtype(t) for t in (np.float32, np.float64, np.longdouble)}
_MOST_ITEMS = 64  # in a shape, or among the names of gradients


@dataclass(frozen=True)
class Cost:
    """What a call costs, whatever the algorithm.

    Attributes
    ----------
    macs : int
        Multiply-adds of the definition, those on padding included.
    macs_valid : int
        Multiply-adds whose input lies inside the array.
    parameters : int
        Elements of the weights and the bias.
    bytes_moved : int
        Size of all arguments and the result, in float32.
    """

    macs: int
    macs_valid: int
    parameters: int
    bytes_moved: int


@dataclass(frozen=True)
class Case:
    """An example call: shapes of the arrays in call order, and parameters."""

    name: str
    shapes: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A call without its arrays: checked shapes and parameters, and what follows from them.

    Operators extend it with whatever their ``compute`` needs.
    """

    output_shape: Shape
    algorithm: str  # what "auto" came to
    reason: str  # why
    cost: Cost
    axes: tuple[Axis, ...] = ()
    transposed: bool = False  # axes are those of the convolution whose adjoint this is


class Operator:
    """A convolution operator: call it, differentiate it, plan it, ask what it would do.

    To write one, subclass, set the attributes and implement the methods named in this module's
    first lines. Arrays arrive in ``compute`` and ``gradients`` by argument name, of one supported
    dtype but of any strides and byte order; `pyconv.engine` takes them as they are.

    Attributes
    ----------
    name, summary, url : str
    aliases : tuple of str
    api_version : int
    algorithms : tuple of str
        What ``algorithm=`` accepts.
    function : callable
        The plain function with this operator's signature: arrays first, then keyword parameters.
    optional : tuple of str
        Arrays that may be None.
    constants : tuple of str
        Arrays without a gradient, such as one of zeros and ones that says what counts: ``backward``
        leaves them out, and refuses to be asked for them.
    per_call : tuple of str
        Arrays that a plan takes at each call. It fixes the others, and has their dtype: there must
        be one.
    array_names : tuple of str
        Names of the arrays in call order, as `function` has them.
    signature : inspect.Signature
        That of `function`.
    """

    name: str = ""
    summary: str = ""
    url: str = ""
    aliases: tuple[str, ...] = ()
    api_version: int = API_VERSION
    algorithms: tuple[str, ...] = ("auto", "direct")
    function: ClassVar[Callable[..., Any]]
    optional: tuple[str, ...] = ("bias",)
    constants: tuple[str, ...] = ()
    per_call: tuple[str, ...] = ("x",)

    # ---- to implement ----------------------------------------------------------------------------

    def problem(self, shapes: dict[str, Any], params: dict[str, Any]) -> Problem:
        """Check shapes and parameters (`pyconv.checks`, `pyconv.geometry`) and describe the call.

        `shapes` has every array of the signature, None for an absent one. A plan is made before
        the other arrays of ``per_call`` are known: then their shapes are None as well.
        """
        raise NotImplementedError

    def compute(
        self, problem: Any, arrays: dict[str, Any], out: Array, run: Run, prepared: Any = None
    ) -> int:
        """Write the result into `out`; return the bytes of workspace (only that if measuring)."""
        raise NotImplementedError

    def gradients(
        self, problem: Any, grad: Array, arrays: dict[str, Any], out: dict[str, Any], run: Run
    ) -> None:
        """Write the gradient of each argument named in `out` into the array there."""
        raise NotImplementedError(f"{self.name}: has no gradients")

    def define(self, problem: Any, arrays: dict[str, Any]) -> Array:
        """Return the result by definition, see `pyconv.reference`."""
        raise NotImplementedError

    def expected(self, problem: Any, x_shape: Shape) -> dict[str, Any]:
        """Shapes that a plan's calls will bring, so that it can tell the workspace they take."""
        return {"x": x_shape}

    def prepare(self, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        """Return what a plan should keep of its fixed arrays (packed weights, say)."""
        return None

    def cases(self) -> Iterable[Case]:
        """Example calls, for tests, benchmarks and documentation."""
        raise NotImplementedError

    # ---- what follows ----------------------------------------------------------------------------

    def __init__(self) -> None:
        self.signature = inspect.signature(self.function)
        self.__doc__ = self.function.__doc__
        self._positional: list[str] = []
        self._variadic: str | None = None
        self._keyword_arrays: list[str] = []
        self._defaults: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                self._variadic = name
            elif parameter.kind is not parameter.KEYWORD_ONLY:
                self._positional.append(name)
            elif name in self.optional:
                self._keyword_arrays.append(name)
            elif name not in _RUNTIME:
                self._defaults[name] = parameter.default
        self._required = [name for name in self._positional if name not in self.optional]
        empty = inspect.Parameter.empty
        self._required_params = [name for name, v in self._defaults.items() if v is empty]
        names = [*self._positional]
        if self._variadic is not None:
            names.append(self._variadic)
        self.array_names: tuple[str, ...] = (*names, *self._keyword_arrays)
        self._no_arrays: dict[str, Any] = dict.fromkeys(self.array_names)
        self._problems: dict[Any, Problem] = {}

    def __repr__(self) -> str:
        return f"<pyconv operator {self.name!r}>"

    @property
    def __signature__(self) -> inspect.Signature:
        return self.signature

    def __reduce__(self) -> Any:
        from pyconv.registry import get

        return get, (self.name,)

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """Apply the operator; the arguments are those of `function`."""
        given, params, runtime = self._bind(args, kwargs)
        arrays, dtype = self._take(given)
        problem = self._problem(_shapes(arrays), params)
        out = runtime.get("out")
        if out is None:
            out = _new(self.name, problem.output_shape, dtype)
        else:
            out = self._checked_out(out, problem, dtype, arrays)
        run = self._run(dtype, runtime)
        if out.size:
            try:
                self.compute(problem, arrays, out, run)
            except checks.WorkspaceError as error:
                self._more_workspace(error, run)
        return out

    def _more_workspace(self, error: checks.WorkspaceError, run: Run) -> NoReturn:
        rule = f"be larger for these shapes, of which one step alone takes {error.need} bytes"
        checks.fail(self.name, "max_workspace", rule, run.budget)

    def backward(self, grad: Any, *args: Any, needs: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Gradients of ``sum(grad * operator(*args, **kwargs))``.

        Parameters
        ----------
        grad : array
            Gradient of the result, of its shape and dtype.
        *args, **kwargs
            What the forward call takes, ``out`` aside.
        needs : str or sequence of str, optional
            The arguments whose gradients to compute; by default all that were given and have one.

        Returns
        -------
        dict
            The gradients by argument name, each with the shape and layout of its argument. (A
            variadic argument such as ``axis_weights`` has a tuple.)
        """
        given, params, runtime = self._bind(args, kwargs)
        if grad is None:
            checks.fail_type(self.name, "grad", "be an array", None)
        if runtime.pop("out", None) is not None:
            checks.fail_type(self.name, "out", "be left out of backward", Verbatim("an array"))
        arrays, dtype = self._take({**given, "grad": grad})
        grad_array = arrays.pop("grad")
        problem = self._problem(_shapes(arrays), params)
        if grad_array.shape != problem.output_shape:
            checks.fail(
                self.name, "grad", f"have the result's shape {problem.output_shape}",
                Verbatim(str(grad_array.shape)),
            )  # fmt: skip
        out = {
            name: _each(arrays[name], lambda a: _new(self.name, a.shape, dtype))
            for name in self._needed(needs, arrays)
        }
        run = self._run(dtype, runtime)
        filled = out.copy()
        try:
            self.gradients(problem, grad_array, arrays, filled, run)
        except checks.WorkspaceError as error:
            self._more_workspace(error, run)
        for name, array in out.items():
            if filled.get(name) is not array:
                self._broken(f"gradients must fill the arrays in out; it replaced that of {name}")
        return out

    def plan(self, x_shape: Sequence[int], *args: Any, **kwargs: Any) -> Plan:
        """Fix everything but the arrays of ``per_call``; see `Plan`.

        Parameters
        ----------
        x_shape : sequence of int
            Shape of the images that the plan will be called with.
        *args, **kwargs
            The remaining arrays (``weight``, ``bias``, ...) in call order, and the parameters.
        """
        return Plan(self, x_shape, args, kwargs)

    def output_shape(self, *shapes: Any, **params: Any) -> Shape:
        """Return the shape of the result for arrays of these shapes, in call order."""
        return self._problem_of_shapes(shapes, params).output_shape

    def cost(self, *shapes: Any, **params: Any) -> Cost:
        """Return what a call with arrays of these shapes, in call order, costs."""
        return self._problem_of_shapes(shapes, params).cost

    def reference(self, *args: Any, **kwargs: Any) -> Array:
        """Return the result by definition: slow and obvious, in the dtype of the arguments."""
        given, params, runtime = self._bind(args, kwargs)
        arrays = self._arrays(given)
        out = runtime.get("out")
        problem = self._problem(_shapes(arrays), params)
        try:
            result = self.define(problem, arrays)
        except MemoryError as error:  # the definition holds all of the padded input
            raise MemoryError(f"{self.name}: {error}") from None
        except TypeError as error:  # strings, dates, ...: NumPy cannot multiply or add them
            given_dtypes = ((n, a.dtype) for n, a in self._flat(arrays).items() if a is not None)
            got = Verbatim(", ".join(f"{name}: {dtype}" for name, dtype in given_dtypes))
            checks.fail_type(self.name, "arrays", "have dtypes that multiply and add", got, error)
        self._check_defined(result, problem, arrays)
        if out is None:
            return result
        out = check_out(self.name, out, result.shape, result.dtype, self._flat(arrays))
        out[...] = result
        return out

    # ---- taking a call apart ---------------------------------------------------------------------

    def _bind(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], later: tuple[str, ...] = ()
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Split arguments into arrays by name, the parameters given, and how to run.

        The arrays named in `later` are not among the arguments yet.
        """
        names = self._positional
        if later:
            names = [name for name in names if name not in later]
        arrays = self._no_arrays.copy()
        if self._variadic is not None:
            arrays[self._variadic] = args[len(names) :]
        elif len(args) > len(names):
            self._usage(f"takes {len(names)} arrays ({', '.join(names)}); got {len(args)}")
        for i, value in enumerate(args[: len(names)]):
            arrays[names[i]] = value
        params: dict[str, Any] = {}
        runtime: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in self._defaults:
                params[name] = value
            elif name in _RUNTIME:
                runtime[name] = value
            elif name in later:
                self._usage(f"a plan takes {name} at each call, not when it is made")
            elif name in arrays and name != self._variadic:
                if name in names and names.index(name) < len(args):
                    self._usage(f"got {name} twice")
                arrays[name] = value
            else:
                self._unknown(name)
        for name in self._required:
            if arrays[name] is None and name not in later:
                checks.fail_type(self.name, name, "be given", None)
        for name in self._required_params:
            if name not in params:
                checks.fail_type(self.name, name, "be given", Verbatim("nothing"))
        return arrays, params, runtime

    def _usage(self, what: str) -> None:
        raise TypeError(f"{self.name}: {what}")

    def _unknown(self, name: str) -> None:
        from difflib import get_close_matches

        known = [*self.array_names, *self._defaults, *_RUNTIME]
        close = get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise TypeError(
            f"{self.name}: parameters must be out of {', '.join(known)}; got {name!r}{hint}"
        )

    def _take(self, given: dict[str, Any]) -> tuple[dict[str, Any], np.dtype[Any]]:
        """Arrays without a copy, and their common dtype."""
        arrays = self._arrays(given)
        return arrays, dtypes.common_dtype(self.name, self._flat(arrays))

    def _arrays(self, given: dict[str, Any]) -> dict[str, Any]:
        arrays = given.copy()
        for name, value in given.items():
            if value is None or type(value) is np.ndarray:
                continue
            if name == self._variadic:
                arrays[name] = tuple(
                    as_array(self.name, f"{name}[{i}]", a) for i, a in enumerate(value)
                )
            else:
                arrays[name] = as_array(self.name, name, value)
        return arrays

    def _flat(self, arrays: dict[str, Any]) -> dict[str, Array | None]:
        """The same with each array of a variadic argument by itself."""
        name = self._variadic
        if name is None:
            return arrays
        each = {f"{name}[{i}]": a for i, a in enumerate(arrays[name])}
        return {**{n: a for n, a in arrays.items() if n != name}, **each}

    def _problem(self, shapes: dict[str, Any], given: dict[str, Any]) -> Problem:
        """`problem` for the parameters given and the defaults of the others."""
        try:
            key = (tuple(shapes.values()), tuple([(n, _key(v)) for n, v in given.items()]))
            found = self._problems.get(key)
        except Exception:  # unhashable: a list, or something that does not belong here
            return self._new_problem(shapes, given)
        if found is None:
            found = self._new_problem(shapes, given)
            if len(self._problems) >= _REMEMBERED:
                self._problems.clear()
            self._problems[key] = found
        return found

    def _new_problem(self, shapes: dict[str, Any], given: dict[str, Any]) -> Problem:
        found: Any = self.problem(shapes, {**self._defaults, **given})
        if not isinstance(found, Problem):
            self._broken(f"problem must return a pyconv.operator.Problem; got {shown(found)}")
        shape: Any = found.output_shape
        if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
            self._broken(f"a Problem's output_shape must be a tuple of int; got {shown(shape)}")
        return found

    def _check_defined(self, result: Any, problem: Problem, arrays: dict[str, Any]) -> None:
        """Raise `PluginError` unless `define` has returned what it should."""
        if not isinstance(result, np.ndarray) or result.shape != problem.output_shape:
            rule = f"define must return an array of shape {problem.output_shape}"
            self._broken(f"{rule}; got {shown(result)}")
        given = {a.dtype.newbyteorder("=") for a in self._flat(arrays).values() if a is not None}
        if len(given) == 1 and given <= _EXACT and result.dtype not in given:
            self._broken(f"define must keep the dtype {given.pop()}; got {shown(result)}")

    def _broken(self, what: str) -> NoReturn:
        """Blame the operator, not its caller."""
        raise PluginError(f"the operator {self.name!r} is not as it should be: {what}")

    def _problem_of_shapes(self, shapes: tuple[Any, ...], kwargs: dict[str, Any]) -> Problem:
        given, params, _ = self._bind(shapes, kwargs)
        checked = {
            name: tuple(_shape(self.name, f"{name}[{i}]", s) for i, s in enumerate(value))
            if name == self._variadic
            else None if value is None else _shape(self.name, name, value)
            for name, value in given.items()
        }  # fmt: skip
        return self._problem(checked, params)

    def _checked_out(
        self, out: Any, problem: Problem, dtype: np.dtype[Any], arrays: dict[str, Any]
    ) -> Array:
        return check_out(self.name, out, problem.output_shape, dtype, self._flat(arrays))

    def _run(self, dtype: np.dtype[Any], runtime: dict[str, Any]) -> Run:
        budget = runtime.get("max_workspace")
        if budget is None:
            budget = DEFAULT_WORKSPACE
        else:
            budget = checks.integer(self.name, "max_workspace", budget, minimum=1, maximum=2**62)
        threads = _threads.resolve(runtime.get("threads"), self.name)
        return _remembered_run(self.name, dtypes.compute_code(dtype), threads, budget)

    def _needed(self, needs: Any, arrays: dict[str, Any]) -> list[str]:
        given = [
            name
            for name in self.array_names
            if arrays[name] is not None and name not in self.constants
        ]
        if needs is None:
            return given
        wanted = _items(self.name, "needs", "be argument names", needs)
        for name in wanted:
            if not isinstance(name, str):
                checks.fail_type(self.name, "needs", "be argument names", needs)
            if name not in given:
                rule = "name arrays that were given" + " and have a gradient" * bool(self.constants)
                checks.fail(self.name, "needs", f"{rule} ({', '.join(given)})", name)
        return list(dict.fromkeys(wanted))


class Plan:
    """A call with its shapes, parameters and weights fixed, to be run on many images.

    Frozen, and safe to call from several threads at once. Made by `Operator.plan`; called with the
    arrays that the plan does not fix, and optionally ``out=``.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> weight = np.ones((8, 3, 3, 3), np.float32)
    >>> plan = pyconv.get("standard").plan((1, 3, 32, 32), weight, padding="same")
    >>> plan(np.ones((1, 3, 32, 32), np.float32)).shape
    (1, 8, 32, 32)
    """

    __slots__ = (
        "_dtype", "_fixed", "_operator", "_params", "_prepared", "_problem", "_run", "_threads",
        "_x_shape", "workspace_bytes",
    )  # fmt: skip

    #: Bytes of workspace that a call takes, beyond its arguments, its result and the plan itself.
    workspace_bytes: int
    _dtype: np.dtype[Any]
    _fixed: MappingProxyType[str, Any]
    _operator: Operator
    _params: dict[str, Any]
    _prepared: Any
    _problem: Problem
    _run: Run
    _threads: int | None  # what the plan was made with; None: as many as a call finds allowed
    _x_shape: Shape

    def __init__(
        self, operator: Operator, x_shape: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        shape = _shape(operator.name, "x_shape", x_shape)
        if kwargs.get("out") is not None:
            operator._usage("a plan takes out at each call, not when it is made")
        given, params, runtime = operator._bind(args, kwargs, later=operator.per_call)
        arrays = operator._arrays(given)
        if all(array is None for array in operator._flat(arrays).values()):
            rule = "have an array to fix, whose dtype it takes"
            checks.fail_type(operator.name, "a plan", rule, Verbatim("none"))
        dtype = dtypes.common_dtype(operator.name, operator._flat(arrays))
        # Copies: what happens to the caller's arrays afterwards is no business of the plan.
        arrays = {n: _each(a, lambda v: np.array(v, dtype)) for n, a in arrays.items()}
        problem = operator._problem({**_shapes(arrays), "x": shape}, params)
        run = operator._run(dtype, runtime)
        put("_operator", operator)
        put("_params", params)
        put("_run", run)
        put("_threads", runtime.get("threads"))
        put("_fixed", MappingProxyType(arrays))
        put("_dtype", dtype)
        put("_x_shape", shape)
        put("_problem", problem)
        put("_prepared", operator.prepare(problem, arrays, run))
        put("workspace_bytes", self._measure(run))

    def _measure(self, run: Run) -> int:
        operator, problem = self._operator, self._problem
        out = _pretend(operator.name, problem.output_shape, self._dtype)
        if out.size == 0:
            return 0
        later = operator.expected(problem, self._x_shape)
        arrays = {**self._fixed, **{n: _each(s, lambda v: _pretend(operator.name, v, self._dtype))
                                    for n, s in later.items()}}  # fmt: skip
        try:
            used: Any = operator.compute(problem, arrays, out, run.measuring(), self._prepared)
        except checks.WorkspaceError as error:
            operator._more_workspace(error, run)
        if type(used) is not int or used < 0:
            operator._broken(f"compute must return the bytes of workspace; got {shown(used)}")
        return used

    def __call__(self, *args: Any, out: Any = None, **later: Any) -> Array:
        """Run the plan on the arrays it does not fix, in the operator's order."""
        operator, problem, dtype = self._operator, self._problem, self._dtype
        names = operator.per_call
        if later or len(args) != len(names):
            args = self._in_order(args, later)
        arrays = self._fixed.copy()
        for i, name in enumerate(names):
            array = args[i]
            if type(array) is not np.ndarray:
                array = self._as_array(name, array)
            if array is not None and array.dtype != dtype:
                self._check_dtype(name, array)
            arrays[name] = array
        if arrays["x"].shape != self._x_shape:
            checks.fail(
                operator.name, "x", f"have the plan's shape {self._x_shape}",
                Verbatim(str(arrays["x"].shape)),
            )  # fmt: skip
        if len(names) > 1:
            problem = operator._problem(_shapes(arrays), self._params)
        if out is None:
            result = _new(operator.name, problem.output_shape, dtype)
        else:
            result = operator._checked_out(out, problem, dtype, arrays)
        if result.size:
            run = self._run.on(_threads.resolve(self._threads, operator.name))
            try:
                operator.compute(problem, arrays, result, run, self._prepared)
            except checks.WorkspaceError as error:
                operator._more_workspace(error, run)
        return result

    def _in_order(self, args: tuple[Any, ...], later: dict[str, Any]) -> tuple[Any, ...]:
        """The arrays of a call, None for those left out."""
        operator = self._operator
        names = operator.per_call
        if len(args) > len(names):
            operator._usage(f"this plan takes {', '.join(names)}; got {len(args)} arrays")
        given: dict[str, Any] = {**dict.fromkeys(names), **dict(zip(names, args, strict=False))}
        for name, value in later.items():
            if name not in names or given[name] is not None:
                operator._usage(f"this plan takes {', '.join(names)} and out; got {name!r}")
            given[name] = value
        return tuple(given.values())

    def _as_array(self, name: str, value: Any) -> Array | None:
        if value is not None:
            return as_array(self._operator.name, name, value)
        if name not in self._operator.optional:
            checks.fail_type(self._operator.name, name, "be given", None)
        return None

    def _check_dtype(self, name: str, array: Array) -> None:
        if array.dtype.newbyteorder("=") != self._dtype:
            checks.fail_type(
                self._operator.name, name, f"have the plan's dtype {self._dtype.name}",
                Verbatim(array.dtype.name),
            )  # fmt: skip

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a plan is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a plan is frozen: {name} cannot be deleted")

    def __repr__(self) -> str:
        shape = self._problem.output_shape
        return f"<pyconv plan: {self._operator.name} {self._x_shape} -> {shape}>"

    @property
    def operator(self) -> Operator:
        """The operator that made the plan."""
        return self._operator

    @property
    def output_shape(self) -> Shape:
        """Shape of the result."""
        return self._problem.output_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the images and the result: that of the weights."""
        return self._dtype

    @property
    def algorithm(self) -> str:
        """The algorithm in use."""
        return self._problem.algorithm

    @property
    def macs(self) -> int:
        """Multiply-adds of the definition, those on padding included."""
        return self._problem.cost.macs

    def explain(self) -> str:
        """Return in words what a call does: shapes, padding, algorithm, threads, cost."""
        problem, cost = self._problem, self._problem.cost
        lines = [
            f"{self._operator.name}: {self._x_shape} -> {problem.output_shape}, {self._dtype.name}"
        ]
        for i, axis in enumerate(problem.axes):
            formula = axis.adjoint_formula if problem.transposed else axis.formula
            lines.append(
                f"  axis {i}: kernel {axis.kernel}, stride {axis.stride}, dilation "
                f"{axis.dilation}, padding {axis.before} before and {axis.after} after; "
                f"output {formula}"
            )
        run = self._run.on(_threads.resolve(self._threads, self._operator.name))
        lines += [
            f"  algorithm: {problem.algorithm} ({problem.reason})",
            f"  threads: up to {run.threads}",
            f"  workspace: {self.workspace_bytes} bytes of at most {run.budget}",
            f"  cost: {cost.macs} multiply-adds, {cost.macs_valid} of them inside the input; "
            f"{cost.parameters} parameters; {cost.bytes_moved} bytes moved as float32",
        ]
        return "\n".join(lines)


# ---- small helpers -------------------------------------------------------------------------------


def _each(value: Any, apply: Callable[[Any], Any]) -> Any:
    """Apply to one array or shape, or to every one of a variadic argument."""
    if value is None:
        return None
    nested = isinstance(value, tuple) and (not value or not isinstance(value[0], int))
    return tuple(apply(v) for v in value) if nested else apply(value)


def _shapes(arrays: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if a is None
        else tuple([b.shape for b in a]) if type(a) is tuple
        else a.shape
        for name, a in arrays.items()
    }  # fmt: skip


def _shape(operator: str, argument: str, value: Any) -> Shape:
    if isinstance(value, str):
        checks.fail_type(operator, argument, "be a shape", value)
    return tuple(
        checks.integer(operator, argument, extent, minimum=0, maximum=2**62)
        for extent in _items(operator, argument, "be a shape", value)
    )


def _items(operator: str, argument: str, rule: str, value: Any) -> list[Any]:
    """Items of a sequence, or a lone string; whatever cannot be iterated is refused."""
    if isinstance(value, str):
        return [value]
    try:
        items = list(islice(value, _MOST_ITEMS + 1))
    except Exception as error:  # a foreign object may raise anything
        checks.fail_type(operator, argument, rule, value, error)
    if len(items) > _MOST_ITEMS:  # maybe without end
        checks.fail(operator, argument, rule, value)
    return items


def _key(value: Any) -> Any:
    """Hashable, and different for 1, 1.0 and True, which are equal but not equally right."""
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value
    if kind is tuple:
        return tuple([_key(v) for v in value])
    return kind, value


# The last two are NumPy's, where the size does not even fit an integer.
_NO_MEMORY = (MemoryError, ValueError, OverflowError)


def _pretend(operator: str, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """An array with the strides of a real one but no memory: for measuring, never read."""
    strides, step = [], dtype.itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    try:
        one = np.zeros(1, dtype)
        return np.lib.stride_tricks.as_strided(one, shape, tuple(reversed(strides)))
    except _NO_MEMORY:
        _no_memory(operator, shape, dtype)


def _new(operator: str, shape: Shape, dtype: np.dtype[Any]) -> Array:
    try:
        return np.empty(shape, dtype)
    except _NO_MEMORY:
        _no_memory(operator, shape, dtype)


def _no_memory(operator: str, shape: Shape, dtype: np.dtype[Any]) -> NoReturn:
    raise MemoryError(
        f"{operator}: no memory for an array of shape {shape} and dtype {dtype}"
    ) from None
