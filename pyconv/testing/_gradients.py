"""Checks of gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv.dtypes import unit_roundoff
from pyconv.testing._call import Array, Call, widened
from pyconv.testing._check import check
from pyconv.testing._compare import (
    CheckSkipped,
    all_same_bits,
    fail,
    named,
    plain_array,
    refused,
    require,
    within,
)
from pyconv.testing._suite import ROUNDOFFS, Suite

if TYPE_CHECKING:
    from pyconv.operator import Operator

# Steps of the numerical derivative. Where the result has a kink, one of them may straddle it, and
# the finer one then hardly ever does.
_STEPS = (1e-5, 1e-6)
_NUMERICAL = 1e-7  # error of such a derivative, relative to the operands


class Gradients(Suite):
    """``backward`` of every array argument."""

    @check("backward")
    def test_gradient_shapes(self, op: Operator) -> None:
        """Each gradient has the shape and dtype of its argument, under its name."""

        def examine(call: Call) -> None:
            gradients = call.backward()
            given = [n for n in op.array_names if call.arrays[n] is not None]
            missing = [n for n in given if n not in gradients and not self.constant(op, n)]
            require(not missing, f"backward gives no gradient of {', '.join(missing)}")
            more = [n for n in gradients if n not in given]
            require(not more, f"backward gives a gradient of {', '.join(more)}, which is not there")
            more = [n for n in gradients if self.constant(op, n)]
            require(not more, f"backward gives a gradient of {', '.join(more)}, a constant")
            arrays = call.flat()
            for label, gradient in call.flat(gradients).items():
                require(label in arrays, f"backward gives a gradient {label}, for {list(arrays)}")
                plain_array(gradient, f"the gradient of {label}")
                require(
                    gradient.shape == arrays[label].shape,
                    f"the gradient of {label} has shape {gradient.shape}, not "
                    f"{arrays[label].shape}",
                )
                require(
                    gradient.dtype == call.dtype,
                    f"the gradient of {label} has dtype {gradient.dtype}, not {call.dtype}",
                )

        for dtype in self.dtypes(op):
            self.each(self.calls(op, dtype), examine)

    @check("backward")
    def test_gradients(self, op: Operator) -> None:
        """Gradients are the derivatives of the result, along random directions, in float64."""

        def examine(call: Call) -> None:
            gradients = call.flat(call.backward())
            for label in self._differentiable(call):
                for seed in range(2):
                    _compare_derivative(call, label, gradients[label], seed)

        self.each(self.calls(op), examine)

    @check("backward")
    def test_adjoint(self, op: Operator) -> None:
        """Where the operator is linear, <A x, y> = <x, A' y>, up to rounding."""

        def examine(call: Call) -> None:
            linear = self.linear_arrays(call)
            gradients = call.flat(call.backward())
            magnitude = np.abs(call.reference(arrays=call.changed(np.abs, linear)))
            grad = widened(call.grad, np.longdouble)
            result = widened(call.forward(), np.longdouble)
            scale = float(np.sum(np.abs(grad) * magnitude))
            for label in self._differentiable(call):
                if label not in linear:
                    continue
                # The definition without this array is what is constant, such as the bias.
                zeroed = call.reference(arrays=call.changed(np.zeros_like, [label]))
                left = float(np.sum(grad * (result - zeroed)))
                product = widened(call.flat()[label], np.longdouble) * widened(
                    gradients[label], np.longdouble
                )
                right = float(np.sum(product))
                allowed = 2 * ROUNDOFFS * unit_roundoff(call.dtype) * scale
                require(
                    abs(left - right) <= allowed,
                    f"<A v, grad> = {left:.12g} but <v, gradient> = {right:.12g} for v = {label}, "
                    f"in {call.dtype.name}: they differ by {abs(left - right):.3g}, at most "
                    f"{allowed:.3g} is allowed",
                )

        for dtype in self.dtypes(op):
            self.each(self.calls(op, dtype), examine)

    @check("backward")
    def test_gradient_precision(self, op: Operator) -> None:
        """Gradients of every dtype are as close to those in float64 as its rounding allows."""

        def examine(call: Call) -> None:
            grad = widened(call.grad, np.float64)
            exact = call.flat(call.backward(call.changed(_wide), grad))
            linear = self.linear_arrays(call)
            positive = call.with_arrays(call.changed(np.abs, linear)).changed(_wide)
            magnitudes = call.flat(call.backward(positive, np.abs(grad)))
            for label, gradient in call.flat(call.backward()).items():
                peak = max(
                    np.abs(magnitudes[label]).max(initial=0), np.abs(exact[label]).max(initial=0)
                )
                bound = self.bound(call, np.full(exact[label].shape, peak), exact[label])
                within(
                    gradient, exact[label], bound,
                    f"the {call.dtype.name} gradient of {label}", "rounding of that in float64",
                )  # fmt: skip

        for dtype in self.dtypes(op, "float32", "float16", "bfloat16"):
            self.each(self.calls(op, dtype), examine)

    @check("backward")
    def test_needs(self, op: Operator) -> None:
        """needs= picks gradients, which are the same as without it; the others are left out."""

        def examine(call: Call) -> None:
            every = call.backward()
            names = list(every)
            choices: list[Any] = [(name,) for name in names]
            choices += [*names, tuple(names[::-1]), ()]
            for needs in choices:
                wanted = {needs} if isinstance(needs, str) else set(needs)
                got = call.backward(needs=needs)
                require(set(got) == wanted, f"needs={needs!r} gives gradients of {list(got)}")
                expected = call.flat({name: every[name] for name in got})
                all_same_bits(call.flat(got), expected, f"with needs={needs!r}")
            constants = [n for n in op.array_names if self.constant(op, n)]
            for wrong in ("nonsense", ("x", "nonsense"), 3, (3,), *constants):
                kinds = (TypeError, ValueError)
                refused(f"needs={wrong!r}", kinds, op.name, "needs", call.backward, needs=wrong)

        self.each(self.calls(op, "float32"), examine)

    @check("backward")
    def test_wrong_grad(self, op: Operator) -> None:
        """A grad that is not the result's is refused by name."""

        def examine(call: Call) -> None:
            def refuse(kinds: type[Exception], grad: Any, what: str) -> None:
                refused(what, kinds, op.name, "grad", call.backward, grad=grad)

            grad = call.grad
            refuse(ValueError, np.concatenate([grad, grad]), f"a grad of shape {grad.shape} twice")
            refuse(ValueError, grad[..., None], "a grad with one more axis")
            refuse(ValueError, grad[..., :1] if grad.shape[-1] > 1 else grad[0], "a short grad")
            refuse(TypeError, grad.astype(np.float64), "a float64 grad for float32 arrays")
            refuse(TypeError, grad.tolist(), "a list as grad")

        self.each(self.calls(op, "float32"), examine)

    @check()
    def test_jvp(self, op: Operator) -> None:
        """Directional derivatives are those of the result, along each array and along all."""
        if not any(self._directional(call) for call in self.calls(op)):
            raise CheckSkipped(
                f"the operator has no directional derivatives: it is declared linear in nothing "
                f"(linear = {op.linear!r}), and jvp refuses every array"
            )

        def examine(call: Call) -> None:
            directions = {label: _direction(call, label) for label in self._directional(call)}
            total = np.zeros(call.output_shape())
            for label, direction in directions.items():
                derivative = call.jvp({label: direction})
                _compare_tangent(call, label, direction, derivative)
                total += derivative
            at_once = call.jvp(directions)
            gap = float(np.abs(at_once - total).max(initial=0))
            require(
                gap <= _NUMERICAL * (1 + float(np.abs(total).max(initial=0))),
                f"jvp along all of {', '.join(directions)} is not the sum of those along each: "
                f"they differ by {gap:.3g}",
            )

        self.each(self.calls(op), examine)
        for dtype in self.dtypes(op):
            self.each(self.calls(op, dtype), self._examine_jvp)

    def _examine_jvp(self, call: Call) -> None:
        """Shape and dtype of directional derivatives."""
        for label in self._directional(call):
            derivative = call.jvp({label: _direction(call, label)})
            plain_array(derivative, f"jvp along {label}")
            require(
                (derivative.shape, derivative.dtype) == (call.grad.shape, call.dtype),
                f"jvp along {label} has shape {derivative.shape} and dtype "
                f"{derivative.dtype.name}, not {call.grad.shape} and {call.dtype.name}",
            )

    def _directional(self, call: Call) -> list[str]:
        """Labels of the arrays that ``jvp`` has derivatives along; it refuses others by name."""
        return [label for label in self._differentiable(call) if self._has_jvp(call, label)]

    def _has_jvp(self, call: Call, label: str) -> bool:
        op = call.op
        if label.partition("[")[0] in op.linear:
            return True
        try:
            call.jvp({label: _direction(call, label)})
        except ValueError as error:
            if named("tangents", str(error)) and named(op.name, str(error)):
                return False
            raise
        return True

    def _differentiable(self, call: Call) -> list[str]:
        """Labels of the arrays that have a gradient."""
        return [label for label in call.flat() if not self.constant(call.op, label)]


def _direction(call: Call, label: str) -> Array:
    """Return a random direction of an array."""
    rng = np.random.default_rng([17, len(label)])
    return np.asarray(rng.standard_normal(call.flat()[label].shape)).astype(call.dtype)


def _compare_tangent(call: Call, label: str, direction: Array, derivative: Array) -> None:
    """Compare what ``jvp`` returns with the numerical derivative."""
    right = float(np.sum(call.grad * derivative))
    message = _contradiction(call, label, direction, right, "sum(grad * jvp)")
    if message:
        fail(message)


def _compare_derivative(call: Call, label: str, gradient: Array, seed: int) -> None:
    """Compare a gradient with the numerical derivative along a random direction."""
    rng = np.random.default_rng([11, seed])
    direction = np.asarray(rng.standard_normal(gradient.shape))
    right = float(np.sum(gradient * direction))
    message = _contradiction(call, label, direction, right, "sum(gradient * direction)")
    if message:
        fail(f"{message}; {_worst(call, label, gradient)}")


def _contradiction(call: Call, label: str, direction: Array, right: float, what: str) -> str:
    """Say how `right`, which is `what`, differs from the numerical derivative, if it does."""
    tried = []
    for step in _STEPS:
        left, scale = _derivative(call, label, direction, step)
        allowed = _NUMERICAL * (scale + abs(right))
        if abs(left - right) <= allowed:
            return ""
        tried.append((left, allowed))
    left, allowed = tried[0]
    return (
        f"the derivative of sum(grad * result) along a random direction of {label} is "
        f"{left:.10g}, but {what} is {right:.10g}: they differ by {abs(left - right):.3g}, at most "
        f"{allowed:.3g} is allowed"
    )


def _derivative(call: Call, label: str, direction: Array, step: float) -> tuple[float, float]:
    """Central difference of ``sum(grad * result)``, and the size of its operands."""
    start = call.flat()[label]
    ahead, behind = (
        call.forward(call.replaced(label, start + s * direction)) for s in (step, -step)
    )
    change = (ahead - behind) / (2 * step)
    scale = float(np.linalg.norm(call.grad) * np.linalg.norm(change))
    return float(np.sum(call.grad * change)), scale


def _worst(call: Call, label: str, gradient: Array) -> str:
    """Name the element of the gradient that is farthest off; only a few are looked at."""
    rng = np.random.default_rng(13)
    chosen = rng.permutation(gradient.size)[:64]
    found = (-1.0, "")
    for flat in sorted(chosen.tolist()):
        index = tuple(int(i) for i in np.unravel_index(flat, gradient.shape))
        unit = np.zeros(gradient.shape)
        unit[index] = 1
        numerical, _ = _derivative(call, label, unit, _STEPS[0])
        gap = abs(numerical - float(gradient[index]))
        text = f"at {index} it is {numerical:.6g}, backward says {float(gradient[index]):.6g}"
        found = max(found, (gap, text))
    return f"of {len(chosen)} elements looked at, {found[1]}"


def _wide(array: Array) -> Array:
    return widened(array, np.float64)
