"""Plans: calls with everything settled but the images."""

from __future__ import annotations

from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv import _threads, checks, dtypes
from pyconv._kernels._tensor import usual_result
from pyconv.arrays import as_array, check_out
from pyconv.checks import Verbatim, shown
from pyconv.engine import Run
from pyconv.shapes import Array, Shape, checked_shape, each, new, pretended, shapes_of

if TYPE_CHECKING:
    from pyconv.operator import Operator, Problem

__all__ = ["Plan"]

# Problems that a plan remembers, where they depend on what it is given at each call.
MOST_MET = 8


class Plan:
    """A call with its shapes, parameters and weights fixed, to be run on many images.

    Frozen, and safe to call from several threads at once. Made by `Operator.plan`; called with the
    arrays that the plan does not fix, and optionally ``out=``. `backward` gives the gradients.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> weight = np.ones((8, 3, 3, 3), np.float32)
    >>> plan = pyconv.get("standard").plan((1, 3, 32, 32), weight, padding="same")
    >>> plan(np.ones((1, 3, 32, 32), np.float32)).shape
    (1, 8, 32, 32)
    """

    __slots__ = (
        "_dtype", "_fixed", "_kept", "_lock", "_met", "_operator", "_params", "_prepared",
        "_problem", "_run", "_threads", "_x_shape", "workspace_bytes",
    )  # fmt: skip

    #: Bytes of workspace that a call takes, beyond its arguments, its result and the plan itself.
    workspace_bytes: int
    _dtype: np.dtype[Any]
    _fixed: MappingProxyType[str, Any]
    _kept: dict[str, Any]  # by argument: what `Operator.prepare_gradient` made
    _lock: Lock  # held while it does
    _met: dict[tuple[Any, ...], Problem]  # by the shapes of what is given at a call
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

        shape = checked_shape(operator.name, "x_shape", x_shape)
        if kwargs.get("out") is not None:
            operator._usage("a plan takes out at each call, not when it is made")
        given, params, runtime = operator._bind(args, kwargs, later=operator.per_call)
        arrays = operator._arrays(given)
        if all(array is None for array in operator._flat(arrays).values()):
            rule = "have an array to fix, whose dtype it takes"
            checks.fail_type(operator.name, "a plan", rule, Verbatim("none"))
        dtype = dtypes.common_dtype(operator.name, operator._flat(arrays))
        # Copies: what happens to the caller's arrays afterwards is no business of the plan.
        arrays = {n: each(a, lambda v: np.array(v, dtype)) for n, a in arrays.items()}
        problem = operator._problem({**shapes_of(arrays), "x": shape}, params)
        run = operator._run(dtype, runtime)
        put("_operator", operator)
        put("_kept", {})
        put("_lock", Lock())
        put("_met", {})
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
        out = pretended(operator.name, problem.output_shape, self._dtype)
        if out.size == 0:
            return 0
        later = operator.expected(problem, self._x_shape)
        arrays = {**self._fixed, **{n: each(s, lambda v: pretended(operator.name, v, self._dtype))
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
        result = None
        if len(args) == 1 == len(operator.per_call) and not later:  # the most usual, at once
            result = usual_result(args[0], self._x_shape, out, problem.output_shape, dtype)
        if result is not None:
            arrays = self._fixed.copy()
            arrays["x"] = args[0]
        else:
            problem, arrays = self._complete(args, later)
            if out is None:
                result = new(operator.name, problem.output_shape, dtype)
            else:
                # What the plan has fixed are copies of its own, which no one else's array shares.
                given = {name: arrays[name] for name in operator.per_call}
                result = check_out(operator.name, out, problem.output_shape, dtype, given)
        if result.size:
            run = self._run.on(_threads.resolve(self._threads, operator.name))
            try:
                operator.compute(problem, arrays, result, run, self._prepared)
            except checks.WorkspaceError as error:
                operator._more_workspace(error, run)
        return result

    def backward(self, grad: Any, *args: Any, needs: Any = None, **later: Any) -> dict[str, Any]:
        """Gradients of ``sum(grad * plan(*args, **later))``, with the bits of `Operator.backward`.

        What the shapes and the fixed arrays settle is not done again; packed weights for a gradient
        are made when it is first asked for, and kept.

        Parameters
        ----------
        grad : array
            Gradient of the result, of its shape and dtype.
        *args, **later
            The arrays that the plan does not fix, in the operator's order.
        needs : str or sequence of str, optional
            The arguments whose gradients to compute, those that the plan fixes among them; by
            default all that it fixes or that are given.

        Returns
        -------
        dict
            The gradients by argument name, as those of `Operator.backward`.

        Examples
        --------
        >>> import numpy as np, pyconv
        >>> weight = np.ones((1, 1, 2), np.float32)
        >>> plan = pyconv.get("standard").plan((1, 4), weight)
        >>> x = np.array([[1, 2, 3, 4]], np.float32)
        >>> grads = plan.backward(np.ones((1, 3), np.float32), x)
        >>> grads["x"], grads["weight"]
        (array([[1., 2., 2., 1.]], dtype=float32), array([[[6., 9.]]], dtype=float32))
        """
        operator = self._operator
        if grad is None:
            checks.fail_type(operator.name, "grad", "be an array", None)
        problem, arrays = self._complete(args, later)
        if type(grad) is not np.ndarray:
            grad = as_array(operator.name, "grad", grad)
        if grad.dtype != self._dtype:
            self._check_dtype("grad", grad)
        run = self._run.on(_threads.resolve(self._threads, operator.name))
        return operator._backward(problem, grad, arrays, needs, self._dtype, run, self._keep)

    def _keep(self, name: str) -> Any:
        """What the operator prepares for the gradient of an argument, made once."""
        if name not in self._kept:
            with self._lock:
                if name not in self._kept:
                    self._kept[name] = self._operator.prepare_gradient(
                        name, self._problem, dict(self._fixed), self._run
                    )
        return self._kept[name]

    def _complete(
        self, args: tuple[Any, ...], later: dict[str, Any]
    ) -> tuple[Problem, dict[str, Any]]:
        """The problem and all arrays of a call, checked."""
        operator, problem, dtype = self._operator, self._problem, self._dtype
        names = operator.per_call
        arrays = self._fixed.copy()
        if later or len(args) > len(names):
            args = self._in_order(args, later)
        elif len(args) < len(names):
            args = (*args, *(None,) * (len(names) - len(args)))
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
            key = tuple([None if arrays[n] is None else arrays[n].shape for n in names])
            found = self._met.get(key)
            if found is None:
                found = operator._problem(shapes_of(arrays), self._params)
                if len(self._met) < MOST_MET:
                    self._met[key] = found
            problem = found
        return problem, arrays

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
