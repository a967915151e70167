"""Operators: what every one of the registry does, ours and other packages'.

`Operator` turns a call into a `Problem` (shapes and parameters, checked; remembered, so that it
is worked out once), takes the arrays in, and hands both to the few methods that an operator
implements:

===============  ===================================================================
``problem``      check shapes and parameters; say what the result looks like
``compute``      fill the result
``gradients``    the gradients that were asked for
``directional``  the derivative of the result along given directions, where it is not linear
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
from functools import lru_cache, partial
from typing import Any, ClassVar, NoReturn

import numpy as np

from pyconv import _threads, checks, dtypes
from pyconv._plugins import API_VERSION
from pyconv.arrays import as_array, check_out
from pyconv.checks import Verbatim, shown
from pyconv.engine import Run
from pyconv.errors import PluginError
from pyconv.geometry import Axis
from pyconv.plan import Plan
from pyconv.shapes import Array, Shape, checked_items, checked_shape, each, hashable, new, shapes_of
from pyconv.tangents import Sum, any_given, varied_by

__all__ = ["Array", "Case", "Cost", "Operator", "Plan", "Problem", "Shape"]

#: Workspace of a call, in bytes, unless ``max_workspace=`` says otherwise.
DEFAULT_WORKSPACE = 32 * 2**20

# How a call runs, as opposed to what it computes.
_RUNTIME = ("out", "threads", "max_workspace")
_REMEMBERED = 256  # problems per operator
_remembered_run = lru_cache(256)(Run)
# What definitions are evaluated in, and have to keep.
_EXACT = {np.dtype(t) for t in (np.float32, np.float64, np.longdouble)}


def run_of(operator: str, dtype: np.dtype[Any], threads: Any, max_workspace: Any) -> Run:
    """How a call with these runtime parameters, None for the usual, is to run."""
    budget = DEFAULT_WORKSPACE
    if max_workspace is not None:
        budget = checks.integer(operator, "max_workspace", max_workspace, minimum=1, maximum=2**62)
    threads = _threads.resolve(threads, operator)
    return _remembered_run(operator, dtypes.compute_code(dtype), threads, budget)


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
    linear : tuple of str
        Arrays in each of which the result is linear, given the others, and that without ``bias``,
        which is added: `directional` needs to be told nothing else about them.
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
    linear: tuple[str, ...] = ()

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
        self,
        problem: Any,
        grad: Array,
        arrays: dict[str, Any],
        out: dict[str, Any],
        run: Run,
        prepared: Any = None,
    ) -> None:
        """Write the gradient of each argument named in `out` into the array there.

        `prepared` has, by argument, what a plan kept of `prepare_gradient`. An operator without
        that may leave the parameter out.
        """
        raise NotImplementedError(f"{self.name}: has no gradients")

    def directional(
        self, problem: Any, arrays: dict[str, Any], tangents: dict[str, Any], total: Sum, run: Run
    ) -> None:
        """Add to `total` the derivatives along the tangents of arrays that are not `linear`.

        `tangents` has those arrays alone, see `jvp`.
        """
        checks.fail(
            self.name, "tangents", "be for arrays in which the result is linear "
            f"({', '.join(self.linear) or 'none is known'}) or the bias", next(iter(tangents)),
        )  # fmt: skip

    def define(self, problem: Any, arrays: dict[str, Any]) -> Array:
        """Return the result by definition, see `pyconv.reference`."""
        raise NotImplementedError

    def expected(self, problem: Any, x_shape: Shape) -> dict[str, Any]:
        """Shapes that a plan's calls will bring, so that it can tell the workspace they take."""
        return {"x": x_shape}

    def prepare(self, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        """Return what a plan should keep of its fixed arrays (packed weights, say)."""
        return None

    def prepare_gradient(self, name: str, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        """Return what a plan should keep of its fixed arrays for the gradient of an argument.

        It is asked for once, when that gradient first is.
        """
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
        self._keeps = "prepared" in inspect.signature(self.gradients).parameters

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
        problem = self._problem(shapes_of(arrays), params)
        out = runtime.get("out")
        if out is None:
            out = new(self.name, problem.output_shape, dtype)
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
        problem = self._problem(shapes_of(arrays), params)
        run = self._run(dtype, runtime)
        return self._backward(problem, grad_array, arrays, needs, dtype, run)

    def _backward(
        self,
        problem: Problem,
        grad: Array,
        arrays: dict[str, Any],
        needs: Any,
        dtype: np.dtype[Any],
        run: Run,
        keep: Callable[[str], Any] | None = None,
    ) -> dict[str, Any]:
        """`backward` of a call that is taken apart; `keep` makes what `gradients` gets prepared."""
        if grad.shape != problem.output_shape:
            checks.fail(
                self.name, "grad", f"have the result's shape {problem.output_shape}",
                Verbatim(str(grad.shape)),
            )  # fmt: skip
        names = self._needed(needs, arrays)
        out = {
            name: new(self.name, a.shape, dtype) if type(a := arrays[name]) is np.ndarray
            else each(a, lambda a: new(self.name, a.shape, dtype))
            for name in names
        }  # fmt: skip
        filled = out.copy()
        more: dict[str, Any] = {}
        if keep is not None and self._keeps:
            kept = {name: keep(name) for name in names}
            more["prepared"] = {name: value for name, value in kept.items() if value is not None}
        try:
            self.gradients(problem, grad, arrays, filled, run, **more)
        except checks.WorkspaceError as error:
            self._more_workspace(error, run)
        for name, array in out.items():
            if filled.get(name) is not array:
                self._broken(f"gradients must fill the arrays in out; it replaced that of {name}")
        return out

    def jvp(self, tangents: Any, *args: Any, **kwargs: Any) -> Array:
        """Directional derivative of ``operator(*args, **kwargs)``: forward-mode differentiation.

        Parameters
        ----------
        tangents : dict
            The direction, by argument name: arrays of the shape and dtype of the arguments.
            Arguments that are not in it, or None there, stay as they are. (A variadic argument such
            as ``axis_weights`` has a tuple, with None for those that stay.)
        *args, **kwargs
            What the forward call takes, ``out`` aside.

        Returns
        -------
        ndarray
            The derivative at ``t = 0`` of the result for ``argument + t * tangent``; it has the
            result's shape and dtype. Right-hand where the two sides differ, as in ``backward``: for
            every ``grad``, ``sum(grad * jvp)`` is the sum of all ``tangent * gradient``.

        Notes
        -----
        Its cost is that of a forward call for each tangent, and twice as many as there are spatial
        axes for the offsets of a deformable convolution. Where there are several, they are summed
        in an array of the result's size, in float32 or float64: that is not part of the workspace.

        Examples
        --------
        >>> import numpy as np, pyconv
        >>> x = np.array([[1.0, 2.0, 4.0]])
        >>> weight = np.array([[[1.0, -1.0]]])
        >>> pyconv.get("standard").jvp({"weight": np.ones((1, 1, 2))}, x, weight)
        array([[3., 6.]])
        """
        given, params, runtime = self._bind(args, kwargs)
        if runtime.pop("out", None) is not None:
            checks.fail_type(self.name, "out", "be left out of jvp", Verbatim("an array"))
        arrays = self._arrays(given)
        directions = self._directions(tangents, arrays)
        flat = {f"tangents[{name!r}]": a for name, a in self._flat(directions).items()}
        dtype = dtypes.common_dtype(self.name, {**self._flat(arrays), **flat})
        problem = self._problem(shapes_of(arrays), params)
        run = self._run(dtype, runtime)
        out = new(self.name, problem.output_shape, dtype)
        if out.size:
            try:
                self._jvp(problem, arrays, directions, out, run)
            except checks.WorkspaceError as error:
                self._more_workspace(error, run)
        return out

    def _jvp(
        self,
        problem: Problem,
        arrays: dict[str, Any],
        tangents: dict[str, Any],
        out: Array,
        run: Run,
    ) -> None:
        unbiased = {"bias": None} if "bias" in arrays else {}
        linear = [
            {**arrays, **unbiased, name: varied}
            for name in self.linear
            for varied in varied_by(arrays[name], tangents[name])
        ]
        known = self.linear
        if known and tangents.get("bias") is not None:
            if not linear:  # added to the result of zeros
                linear.append({name: each(a, _zeros) for name, a in arrays.items()})
            linear[0]["bias"] = tangents["bias"]
            known = (*known, "bias")
        others = {n: t for n, t in tangents.items() if n not in known and any_given(t)}
        total = Sum(self.name, out, run, len(linear) + 2 * len(others))
        for term in linear:
            total.add(partial(self.compute, problem, term, run=run))
        if others:
            self.directional(problem, arrays, others, total, run)
        total.finish()

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
        problem = self._problem(shapes_of(arrays), params)
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
            key = (tuple(shapes.values()), tuple([(n, hashable(v)) for n, v in given.items()]))
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
            name: tuple(checked_shape(self.name, f"{name}[{i}]", s) for i, s in enumerate(value))
            if name == self._variadic
            else None if value is None else checked_shape(self.name, name, value)
            for name, value in given.items()
        }  # fmt: skip
        return self._problem(checked, params)

    def _checked_out(
        self, out: Any, problem: Problem, dtype: np.dtype[Any], arrays: dict[str, Any]
    ) -> Array:
        return check_out(self.name, out, problem.output_shape, dtype, self._flat(arrays))

    def _run(self, dtype: np.dtype[Any], runtime: dict[str, Any]) -> Run:
        return run_of(self.name, dtype, runtime.get("threads"), runtime.get("max_workspace"))

    def _directions(self, tangents: Any, arrays: dict[str, Any]) -> dict[str, Any]:
        """The tangents of all arrays, None for those that stay as they are."""
        if not isinstance(tangents, Mapping):
            checks.fail_type(
                self.name, "tangents", "be a dict of arrays by argument name", tangents
            )
        directions = self._no_arrays.copy()
        if self._variadic is not None:
            directions[self._variadic] = ()
        given = self._given(arrays)
        for name, value in tangents.items():
            if not isinstance(name, str):
                checks.fail_type(self.name, "tangents", "have argument names as keys", name)
            if value is None and name in directions:
                continue
            if name not in given:
                rule = f"name arrays that were given ({', '.join(given)})"
                checks.fail(self.name, "tangents", rule, name)
            directions[name] = self._direction(f"tangents[{name!r}]", value, arrays[name])
        return directions

    def _direction(self, label: str, value: Any, array: Any) -> Any:
        if isinstance(array, tuple):
            if not isinstance(value, (tuple, list)) or len(value) != len(array):
                rule = f"be a tuple of {len(array)} arrays or None"
                checks.fail_type(self.name, label, rule, value)
            return tuple(
                None if v is None else self._direction(f"{label}[{i}]", v, a)
                for i, (v, a) in enumerate(zip(value, array, strict=True))
            )
        tangent = as_array(self.name, label, value)
        if tangent.shape != array.shape:
            rule = f"have the shape {array.shape} of its argument"
            checks.fail(self.name, label, rule, Verbatim(str(tangent.shape)))
        return tangent

    def _given(self, arrays: dict[str, Any]) -> list[str]:
        """Names of the arrays that are there and have a gradient."""
        return [
            name
            for name in self.array_names
            if arrays[name] is not None and name not in self.constants
        ]

    def _needed(self, needs: Any, arrays: dict[str, Any]) -> list[str]:
        lone = needs[0] if type(needs) is tuple and len(needs) == 1 else needs
        if type(lone) is str and arrays.get(lone) is not None and lone not in self.constants:
            return [lone]
        given = self._given(arrays)
        if needs is None:
            return given
        wanted = checked_items(self.name, "needs", "be argument names", needs)
        for name in wanted:
            if not isinstance(name, str):
                checks.fail_type(self.name, "needs", "be argument names", needs)
            if name not in given:
                rule = "name arrays that were given" + " and have a gradient" * bool(self.constants)
                checks.fail(self.name, "needs", f"{rule} ({', '.join(given)})", name)
        return list(dict.fromkeys(wanted))


def _zeros(array: Array) -> Array:
    """Zeros of the shape and dtype of `array`, in the memory of one."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)
