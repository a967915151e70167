"""The conformance suite itself: every check catches what it is for, and nothing else.

`BROKEN` has an operator for each check, with one thing wrong with it. Each is run through the whole
suite, and has to fail the checks that it names and no others.
"""

import ast
import ctypes
import inspect
import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pyconv
import pyconv.testing
from pyconv.operator import Case, Plan
from pyconv.operators import builtin_names
from pyconv.operators.standard import Standard, conv
from pyconv.testing import (
    CAPABILITIES,
    CheckResult,
    OperatorSuite,
    check,
    check_operator,
    iter_checks,
)


class Sound(Standard):
    """Nothing is wrong with this one."""

    name = "sound"
    aliases = ()
    algorithms = ("auto", "direct")
    plan_class = Plan

    def cases(self):
        yield self._case("2-D", (2, 3, 6, 5), (4, 3, 3, 2), padding=1, stride=(2, 1))
        yield self._case("1-D", (2, 4, 9), (4, 2, 3), groups=2, padding=(1,))

    def _case(self, name, x, weight, **params):
        return Case(name, {"x": x, "weight": weight, "bias": weight[:1]}, params)

    def plan(self, x_shape, *args, **kwargs):
        return self.plan_class(self, x_shape, args, kwargs)


def nudge(array):
    """Change every element by a unit in its last place."""
    array.view(f"u{array.dtype.itemsize}")[...] += 1


def nudge_if(condition):
    """Nudge float32 results of problems, arrays and runs for which a condition holds."""

    class Nudged(Sound):
        def compute(self, problem, arrays, out, run, prepared=None):
            used = super().compute(problem, arrays, out, run, prepared)
            if not run.measure and out.dtype == np.float32 and condition(problem, arrays, run):
                nudge(out)
            return used

    return Nudged


def called(around):
    """An operator whose call is ``around(operator.__call__, *args, **kwargs)``."""

    class Called(Sound):
        def __call__(self, *args, **kwargs):
            return around(super().__call__, *args, **kwargs)

    Called.__name__ = around.__name__
    return Called


def planned(plan_class):
    """An operator that makes plans of this class."""
    return type(plan_class.__name__, (Sound,), {"plan_class": plan_class})


BROKEN = []


def broken(*caught, capabilities=None):
    """Mark an operator class; it has to fail the checks `caught`."""

    def mark(cls):
        BROKEN.append(pytest.param(cls, set(caught), capabilities, id=cls.__name__))
        return cls

    return mark


# What an operator says about itself


@broken("metadata")
class NoSummary(Sound):
    summary = ""


def with_odd_default(*args, **kwargs):
    raise AssertionError("an operator runs, not its function")


with_odd_default.__doc__ = conv.__doc__
with_odd_default.__signature__ = inspect.signature(conv).replace(
    parameters=[
        p.replace(default="direct") if p.name == "algorithm" else p
        for p in inspect.signature(conv).parameters.values()
    ]
)


@broken("signature")
class OddDefault(Sound):
    function = staticmethod(with_odd_default)


@broken("documentation")
class Undocumented(Sound):
    def __init__(self):
        super().__init__()
        self.__doc__ = "Convolves x, and more."


@broken("cases")
class TwoCasesOfOneName(Sound):
    def cases(self):
        for case in super().cases():
            yield replace(case, name="same")


@broken("capabilities", capabilities=set(CAPABILITIES) - {"layout"})
class HasLayoutAfterAll(Sound):
    pass


@broken("capabilities", capabilities=set(CAPABILITIES) - {"backward"})
class HasGradientsAfterAll(Sound):
    pass


# Values


@broken("reference")
class WideReference(Sound):
    def define(self, problem, arrays):
        result = super().define(problem, arrays)
        return result.astype(np.float64) if result.dtype == np.float32 else result


@broken("output_shape")
class NumpyShape(Sound):
    def output_shape(self, *shapes, **params):
        return tuple(np.int64(extent) for extent in super().output_shape(*shapes, **params))


@broken("cost")
class Miscounted(Sound):
    def problem(self, shapes, params):
        problem = super().problem(shapes, params)
        return replace(problem, cost=replace(problem.cost, parameters=7))


@broken("result_dtype")
class FrozenResult(Sound):
    def __call__(self, *args, out=None, **kwargs):
        result = super().__call__(*args, out=out, **kwargs)
        result.flags.writeable = out is not None
        return result


@broken("values")
class CoarseByDefault(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        if problem.reason != "asked for" and out.dtype == np.float32 and not run.measure:
            out *= np.float32(1 + 1e-5)
        return used


@broken("direct")
class CoarseNearZero(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        if problem.reason == "asked for" and out.dtype == np.float32 and not run.measure:
            out += 2**-20 * np.max(np.abs(out), initial=0, where=np.isfinite(out))
        return used


@broken("algorithms")
class WrongAlgorithm(Sound):
    algorithms = ("auto", "direct", "fast")

    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        if problem.algorithm == "fast" and not run.measure:
            out[...] = 0
        return used


class RoundedTwice(Sound):
    """Off by a unit in the last place, as if 16-bit numbers had been added up."""

    rounded = None

    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        if out.dtype.name == self.rounded and not run.measure:
            nudge(out)
        return used


@broken("float16")
class Float16RoundedTwice(RoundedTwice):
    rounded = "float16"


@broken("bfloat16")
class Bfloat16RoundedTwice(RoundedTwice):
    rounded = "bfloat16"


@broken("odd_sizes")
class WrongAtOneSize(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        if arrays["x"].shape[-1] == 10 and not run.measure:  # one more than a case has
            out[...] = 0
        return used


@broken("special_values")
class NansAreZeros(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        if not run.measure and np.isnan(arrays["x"].min(initial=0)):
            arrays = {**arrays, "x": np.nan_to_num(arrays["x"])}
        return super().compute(problem, arrays, out, run, prepared)


# Gradients


@broken("gradient_shapes", "plan_gradients")
class WideGradients(Sound):
    def backward(self, *args, **kwargs):
        gradients = super().backward(*args, **kwargs)
        return {
            name: g.astype(np.float32) if g.dtype == np.float16 else g
            for name, g in gradients.items()
        }


class Positive(Sound):
    """Takes the absolute value of its weights, so it is not linear in them."""

    linear = ("x",)

    def compute(self, problem, arrays, out, run, prepared=None):
        return super().compute(problem, self.positive(arrays), out, run, prepared)

    def prepare(self, problem, arrays, run):
        return super().prepare(problem, self.positive(arrays), run)

    def define(self, problem, arrays):
        return super().define(problem, self.positive(arrays))

    def gradients(self, problem, grad, arrays, out, run):
        super().gradients(problem, grad, self.positive(arrays), out, run)
        if "weight" in out:
            out["weight"] *= np.sign(arrays["weight"])

    @staticmethod
    def positive(arrays):
        return {**arrays, "weight": np.abs(arrays["weight"])}


@broken("gradients")
class ForgottenFactor(Positive):
    def gradients(self, problem, grad, arrays, out, run):
        Sound.gradients(self, problem, grad, self.positive(arrays), out, run)


@broken("gradients", "adjoint")
class DoubledGradient(Sound):
    def gradients(self, problem, grad, arrays, out, run):
        super().gradients(problem, grad, arrays, out, run)
        if "x" in out:
            out["x"] *= 2


@broken("adjoint")
class HardlyAdjoint(Sound):
    def gradients(self, problem, grad, arrays, out, run):
        super().gradients(problem, grad, arrays, out, run)
        if "x" in out and grad.dtype.name == "float64":
            out["x"] *= 1 + 1e-10


@broken("gradient_precision")
class GradientRoundedTwice(Sound):
    def gradients(self, problem, grad, arrays, out, run):
        super().gradients(problem, grad, arrays, out, run)
        if "weight" in out and grad.dtype.name == "float16":
            nudge(out["weight"])


@broken("needs")
class AllGradients(Sound):
    def backward(self, *args, needs=None, **kwargs):
        return super().backward(*args, **kwargs)


@broken("wrong_grad")
class GradFromList(Sound):
    def backward(self, grad, x, *args, **kwargs):
        if isinstance(grad, list):
            grad = np.array(grad, x.dtype)
        return super().backward(grad, x, *args, **kwargs)


@broken("jvp")
class DeclaredLinear(Positive):
    linear = ("x", "weight")


# Promises


@broken("runs", "plan_gradients")
class StaleGradient(Sound):
    """The second of two equal calls is wrong."""

    last = None

    def gradients(self, problem, grad, arrays, out, run):
        super().gradients(problem, grad, arrays, out, run)
        if grad.dtype.name == "bfloat16":
            now = grad.tobytes()
            if now == self.last:
                nudge(out["bias"])
            self.last = now


@broken("threads")
class ThreadDependent(nudge_if(lambda problem, arrays, run: run.threads == 3)):
    pass


@broken("batch")
class BatchDependent(nudge_if(lambda problem, arrays, run: problem.image.n == 3)):
    pass


@broken("empty_batch")
class OneForNone(Sound):
    def __call__(self, *args, **kwargs):
        result = super().__call__(*args, **kwargs)
        return np.zeros((1, *result.shape[1:]), result.dtype) if len(result) == 0 else result


@broken("memory", "workspace")
class Columns(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        np.empty((arrays["x"].size, 9), out.dtype)
        return super().compute(problem, arrays, out, run, prepared)


@broken("memory")
class WideGradientSums(Sound):
    def gradients(self, problem, grad, arrays, out, run):
        np.empty((grad.size, 3), np.float64)
        super().gradients(problem, grad, arrays, out, run)


@broken("inputs_unchanged")
class InPlace(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        x = arrays["x"]
        if x.dtype == np.float64 and x.flags.carray and prepared is None:
            x[...] = 0
        return used


@broken("concurrent")
class SharedResult(Sound):
    def __call__(self, *args, **kwargs):
        self.last = super().__call__(*args, **kwargs)
        time.sleep(1e-4)
        return self.last


@broken("gil")
class HoldsTheInterpreter(Sound):
    """A C function that is called without letting other threads go on."""

    def compute(self, problem, arrays, out, run, prepared=None):
        if out.size > 2**16 and not run.measure:
            ctypes.PyDLL(None).usleep(50_000)
        return super().compute(problem, arrays, out, run, prepared)


@broken("fork")
class OfOneProcess(Sound):
    def __init__(self):
        super().__init__()
        self.process = os.getpid()

    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        if os.getpid() != self.process:
            nudge(out)
        return used


@broken("out_of_memory")
@called
def overflows(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except MemoryError:
        raise OverflowError("sound: too large") from None


@broken("pickle")
class PickledAsAnother(Sound):
    def __reduce__(self):
        return pyconv.get, ("standard",)


# Inputs


@broken("strided")
class NoNegativeStrides(
    nudge_if(lambda problem, arrays, run: min(arrays["x"].strides, default=0) < 0)
):
    pass


@broken("broadcast")
class NoZeroStrides(
    nudge_if(
        lambda problem, arrays, run: arrays["bias"] is not None and 0 in arrays["bias"].strides
    )
):
    pass


@broken("read_only")
class WritesOnly(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        x = arrays["x"]
        if x.flags.owndata and not x.flags.writeable:
            raise ValueError("assignment destination is read-only")
        return super().compute(problem, arrays, out, run, prepared)


@broken("byte_swapped")
class IgnoresByteOrder(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        x = arrays["x"]
        arrays = {**arrays, "x": x.view(x.dtype.newbyteorder("="))}
        return super().compute(problem, arrays, out, run, prepared)


@broken("unaligned")
class AlignedOnly(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        if not arrays["weight"].flags.aligned:
            raise BufferError("unaligned")
        return super().compute(problem, arrays, out, run, prepared)


@broken("array_likes")
class TakesLists(Sound):
    def __call__(self, x, *args, **kwargs):
        x = np.array(x, np.float32) if isinstance(x, list) else x
        return super().__call__(x, *args, **kwargs)


@broken("unbatched")
class BatchOnly(nudge_if(lambda problem, arrays, run: not problem.image.batched)):
    pass


@broken("layout")
class FlipsChannels(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        if problem.image.channels_last and not run.measure:
            out[...] = out[..., ::-1].copy()
        return used


# out=, and errors


@broken("out")
@called
def returns_a_copy(call, *args, out=None, **kwargs):
    result = call(*args, out=out, **kwargs)
    return result if out is None else out.copy()


@broken("out_refused")
@called
def ignores_a_read_only_out(call, *args, out=None, **kwargs):
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        out = None
    return call(*args, out=out, **kwargs)


@broken("nothing_written")
@called
def clears_out_first(call, x, *args, out=None, **kwargs):
    if isinstance(x, list) and out is not None:
        out[...] = 0
    return call(x, *args, out=out, **kwargs)


@broken("mixed_dtypes")
@called
def converts_the_bias(call, x, weight, bias=None, **kwargs):
    if isinstance(bias, np.ndarray) and isinstance(x, np.ndarray) and bias.dtype != x.dtype:
        bias = bias.astype(x.dtype)
    return call(x, weight, bias, **kwargs)


@broken("other_dtypes")
@called
def converts_integers(call, *args, **kwargs):
    if all(getattr(a, "dtype", None) == np.int32 for a in args):
        args = [a.astype(np.float64) for a in args]
    return call(*args, **kwargs)


@broken("wrong_rank")
@called
def trips_over_scalars(call, x, *args, **kwargs):
    if isinstance(x, np.ndarray) and x.ndim == 0:
        raise IndexError("tuple index out of range")
    return call(x, *args, **kwargs)


@broken("same_message")
class OtherWords(Sound):
    def output_shape(self, x, *shapes, **params):
        if len(x) > 5:
            raise ValueError("sound: x must be smaller")
        return super().output_shape(x, *shapes, **params)


@broken("missing")
@called
def trips_over_none(call, x, weight, *args, **kwargs):
    if weight is None:
        raise AttributeError("'NoneType' object has no attribute 'shape'")
    return call(x, weight, *args, **kwargs)


@broken("unknown_keyword")
@called
def takes_any_keyword(call, *args, nonsense_keyword=None, **kwargs):
    return call(*args, **kwargs)


@broken("bad_layout")
@called
def guesses_the_layout(call, *args, layout="channels_first", **kwargs):
    if isinstance(layout, str) and layout == "nonsense":
        layout = "channels_first"
    return call(*args, layout=layout, **kwargs)


@broken("bad_algorithm")
@called
def guesses_the_algorithm(call, *args, algorithm="auto", **kwargs):
    if isinstance(algorithm, str) and algorithm == "nonsense":
        algorithm = "auto"
    return call(*args, algorithm=algorithm, **kwargs)


@broken("nonsense")
@called
def trips_over_floats(call, *args, stride=1, **kwargs):
    if isinstance(stride, float):
        raise AttributeError("'float' object has no attribute 'shape'")
    return call(*args, stride=stride, **kwargs)


# Plans


@broken("plan")
class PreparedIsWrong(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        if prepared is not None and out.dtype.name == "bfloat16" and not run.measure:
            nudge(out)
        return used


@broken("plan_out")
@planned
class IgnoresOut(Plan):
    def __call__(self, *args, out=None, **kwargs):
        return super().__call__(*args, **kwargs)


@broken("plan_gradients")
@planned
class AllGradientsOfAPlan(Plan):
    def backward(self, grad, *args, needs=None):
        return super().backward(grad, *args)


@broken("plan_keeps")
@planned
class KeepsTheCallersArrays(Plan):
    def __init__(self, operator, x_shape, args, kwargs):
        super().__init__(operator, x_shape, args, kwargs)
        object.__setattr__(self, "given", (args, kwargs))

    def __call__(self, x, out=None):
        super().__call__(x)
        args, kwargs = self.given
        return self.operator(x, *args, out=out, **kwargs)


@broken("plan_facts")
@planned
class NotFrozen(Plan):
    __setattr__ = object.__setattr__


@broken("workspace")
class TooMuchWorkspace(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        return super().compute(problem, arrays, out, run, prepared) + run.measure * 2**30


@broken("choice")
class ChoosesByBatch(Sound):
    algorithms = ("auto", "direct", "wide")

    def problem(self, shapes, params):
        problem = super().problem(shapes, params)
        wide = params["algorithm"] == "auto" and problem.image.n > 2
        return replace(problem, algorithm="wide") if wide else problem


@broken("explain")
@planned
class Silent(Plan):
    def explain(self):
        return f"{self.operator.name}: many threads"


@broken("plan_concurrent")
@planned
class SharesItsResult(Plan):
    def __call__(self, *args, **kwargs):
        object.__setattr__(self, "last", super().__call__(*args, **kwargs))
        time.sleep(1e-4)
        return self.last


@broken("plan_refuses")
@planned
class ConvertsImages(Plan):
    def __call__(self, x, **kwargs):
        if isinstance(x, np.ndarray) and x.dtype.name != self.dtype.name:
            x = x.astype(self.dtype)
        return super().__call__(x, **kwargs)


# More ways to fail a check, which fail others as well

ALSO = []


def also(name, **options):
    """Mark an operator class that has to fail one check at least."""

    def mark(cls):
        ALSO.append(pytest.param(cls, name, options, id=f"{name}-{cls.__name__}"))
        return cls

    return mark


@also("workspace")
class UnreportedWorkspace(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        np.empty(2**21, np.uint8)  # twice the smaller budget: no report can cover it
        return super().compute(problem, arrays, out, run, prepared)


@also("output_shape")
class OneMore(Sound):
    def output_shape(self, *shapes, **params):
        first, *others = super().output_shape(*shapes, **params)
        return (first, others[0] + 1, *others[1:])


@also("result_dtype")
@called
def widens(call, *args, **kwargs):
    result = call(*args, **kwargs)
    return result.astype(np.float64) if result.dtype == np.float16 else result


@also("gradient_shapes")
class NoBiasGradient(Sound):
    def backward(self, *args, **kwargs):
        gradients = super().backward(*args, **kwargs)
        return {name: gradients[name] for name in gradients if name != "bias"}


@also("gradients")
class OneElementOff(Sound):
    def gradients(self, problem, grad, arrays, out, run):
        super().gradients(problem, grad, arrays, out, run)
        if "weight" in out:
            out["weight"][-1, -1, -1] += 1e-3


@also("plan_gradients")
class PreparedGradientIsWrong(Sound):
    def gradients(self, problem, grad, arrays, out, run, prepared=None):
        super().gradients(problem, grad, arrays, out, run, prepared)
        if "x" in out and prepared:
            nudge(out["x"])


@also("jvp")
class TangentRoundedTwice(Sound):
    def jvp(self, *args, **kwargs):
        result = super().jvp(*args, **kwargs)
        return result.astype(np.float32) if result.dtype == np.float64 else result


@also("jvp")
class ForgetsOneOfTwoTangents(Sound):
    def jvp(self, tangents, *args, **kwargs):
        if tangents.get("x") is not None:
            tangents = {"x": tangents["x"]}
        return super().jvp(tangents, *args, **kwargs)


@also("jvp")
class RefusesWhatIsLinear(Sound):
    def jvp(self, tangents, *args, **kwargs):
        raise ValueError("sound: tangents must not be there")


@also("threads")
class ThreadDependentGradient(Sound):
    def gradients(self, problem, grad, arrays, out, run):
        super().gradients(problem, grad, arrays, out, run)
        if "weight" in out and run.threads == 3:
            nudge(out["weight"])


@also("fork")
class CrashesInAnotherProcess(OfOneProcess):
    def compute(self, problem, arrays, out, run, prepared=None):
        if os.getpid() != self.process:
            os._exit(3)
        return Sound.compute(self, problem, arrays, out, run, prepared)


@also("odd_sizes")
@called
def trips_over_nothing(call, x, *args, **kwargs):
    if isinstance(x, np.ndarray) and x.size == 0:
        raise IndexError("sound: index 0 is out of bounds")
    return call(x, *args, **kwargs)


@also("out_of_memory")
class HasNoRoomForGradients(Sound):
    def backward(self, *args, **kwargs):
        try:
            return super().backward(*args, **kwargs)
        except MemoryError:
            raise ValueError("sound: x must be smaller") from None


@also("out")
class LeavesOneElement(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        before = out.flat[-1]
        used = super().compute(problem, arrays, out, run, prepared)
        out.flat[-1] = before
        return used


@also("out")
class WritesAround(Sound):
    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        if out.base is not None and not run.measure:
            out.base.flat[0] = 3
        return used


@also("out_refused")
@called
def takes_overlapping_outs(call, *args, out=None, **kwargs):
    result = call(*args, **kwargs)
    if out is None:
        return result
    out[...] = result
    return out


@also("mixed_dtypes")
@called
def does_not_name_itself(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except TypeError:
        raise TypeError("x, weight and bias must have the same dtype") from None


@also("bad_algorithm")
@called
def lists_no_algorithm(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except ValueError:
        raise ValueError("sound: algorithm is not known") from None


@also("cases")
class NoCases(Sound):
    def cases(self):
        return ()


@also("batch")
@also("unbatched")
class OnlyUnbatchedCases(Sound):
    def cases(self):
        yield self._case("1-D", (4, 9), (4, 2, 3), groups=2)


@also("capabilities", capabilities={*CAPABILITIES, "flight"})
@also("capabilities", capabilities=set(CAPABILITIES) - {"plan"})
@also("capabilities", capabilities=set(CAPABILITIES) - {"batch"})
@also("capabilities", capabilities=set(CAPABILITIES) - {"unbatched"})
@also("capabilities", capabilities=set(CAPABILITIES) - {"float16"})
@also("capabilities", capabilities=set(CAPABILITIES) - {"bfloat16"})
@also("capabilities", capabilities=set(CAPABILITIES) - {"out"})
class CanDoMore(Sound):
    def __init__(self, capabilities):
        super().__init__()
        self.capabilities = capabilities


# An array without gradient


def masked_conv(x, weight, keep, bias=None, **params):
    raise AssertionError("an operator runs, not its function")


_CONV = inspect.signature(conv).parameters
masked_conv.__doc__ = f"{conv.__doc__}\nkeep : array"
masked_conv.__signature__ = inspect.Signature(
    [_CONV["x"], _CONV["weight"], _CONV["x"].replace(name="keep"), *list(_CONV.values())[2:]]
)


class Masked(Sound):
    """Some of the weights count, the others do not."""

    constants = ("keep",)
    function = staticmethod(masked_conv)

    def problem(self, shapes, params):
        shapes = dict(shapes)
        if shapes.pop("keep") != shapes["weight"]:
            raise ValueError("sound: keep must have the shape of weight")
        problem = super().problem(shapes, params)
        more, cost = np.prod(shapes["weight"]).item(), problem.cost
        cost = replace(
            cost, parameters=cost.parameters + more, bytes_moved=cost.bytes_moved + 4 * more
        )
        return replace(problem, cost=cost)

    def cases(self):
        for case in super().cases():
            yield replace(case, shapes={**case.shapes, "keep": case.shapes["weight"]})

    def kept(self, arrays, dtype):
        arrays = dict(arrays)
        keep = arrays.pop("keep").astype(dtype)
        return {**arrays, "weight": arrays["weight"].astype(dtype) * keep}

    def prepare(self, problem, arrays, run):
        return super().prepare(problem, self.kept(arrays, run.dtype), run)

    def compute(self, problem, arrays, out, run, prepared=None):
        return super().compute(problem, self.kept(arrays, run.dtype), out, run, prepared)

    def gradients(self, problem, grad, arrays, out, run):
        super().gradients(problem, grad, self.kept(arrays, run.dtype), out, run)
        if "weight" in out:
            out["weight"] *= arrays["keep"]

    def define(self, problem, arrays):
        return super().define(problem, self.kept(arrays, arrays["weight"].dtype))


@also("gradient_shapes")
class GivesAConstantGradient(Masked):
    def backward(self, *args, **kwargs):
        gradients = super().backward(*args, **kwargs)
        return {**gradients, "keep": np.zeros_like(gradients["weight"])}


@also("needs")
class IgnoresWhatHasNoGradient(Masked):
    def backward(self, *args, needs=None, **kwargs):
        return super().backward(*args, needs=() if needs == "keep" else needs, **kwargs)


@also("signature")
class UnknownConstant(Sound):
    constants = ("keep",)


class MaskedSuite(OperatorSuite):
    def array(self, name, shape, rng):
        return rng.integers(0, 2, shape) if name == "keep" else super().array(name, shape, rng)


def test_an_array_without_gradient():
    op = Masked()
    x, weight, keep = np.ones((1, 2, 5)), np.ones((3, 2, 2)), np.zeros((3, 2, 2))
    y = op(x, weight, keep)
    assert not y.any()
    assert list(op.backward(y, x, weight, keep)) == ["x", "weight"]
    assert list(op.backward(y, x, weight, keep, needs=("weight",))) == ["weight"]
    with pytest.raises(ValueError, match=r"^sound: needs must name .* have a gradient \(x, weight"):
        op.backward(y, x, weight, keep, needs="keep")
    _, failures = run(op, suite=MaskedSuite)
    assert failures == {}


class NotByAttribute(Masked):
    constants = ()  # it leaves to the suite what it does not say itself

    def backward(self, *args, needs=None, **kwargs):
        if needs == "keep":
            raise ValueError("sound: needs must not be keep")
        gradients = super().backward(*args, needs=needs, **kwargs)
        return {name: g for name, g in gradients.items() if name != "keep"}


def test_a_suite_may_say_what_has_no_gradient():
    class Ours(MaskedSuite):
        constants = ("keep",)

    names = ["gradient_shapes", "gradients", "adjoint", "needs", "empty_batch"]
    _, failures = run(NotByAttribute(), suite=Ours, checks=names)
    assert failures == {}


def run(op, **options):
    """Statuses by check, and messages of the failures."""
    results = check_operator(op, **options)
    failures = {r.name: r.message for r in results if r.status == "failed"}
    return {r.name: r.status for r in results}, failures


@pytest.mark.parametrize("cls", [Sound, Positive])
def test_nothing_is_wrong_with_a_sound_operator(cls):
    statuses, failures = run(cls())
    assert failures == {}
    assert set(statuses.values()) <= {"passed", "skipped"}


@pytest.mark.parametrize(("cls", "caught", "capabilities"), BROKEN)
def test_broken(cls, caught, capabilities):
    _, failures = run(cls(), capabilities=capabilities)
    assert set(failures) == caught, "\n".join(failures.values())
    for name, message in failures.items():
        assert message.startswith(f"sound: {name}: ")
        assert OperatorSuite.checks[name] in message


@pytest.mark.parametrize(("cls", "name", "options"), ALSO)
def test_also_broken(cls, name, options):
    (result,) = check_operator(cls(**options), checks=[name])
    assert result.status == "failed"
    assert result.message.startswith(f"sound: {name}: ")


def test_every_check_catches_something():
    caught = [name for case in BROKEN for name in case.values[1]]
    assert set(caught) == set(OperatorSuite.checks)


# How a suite runs


def test_every_check_has_a_reason():
    for name, reason in OperatorSuite.checks.items():
        assert callable(getattr(OperatorSuite, f"test_{name}"))
        assert reason.endswith("."), name


def test_a_failure_names_the_smallest_case():
    (result,) = check_operator(CoarseByDefault(), checks=["values"])
    assert result.status == "failed"
    assert result.message.splitlines()[1:] == [
        "  case '1-D' (2 of 2 cases): sound(x: float32 (2, 4, 9), weight: float32 (4, 2, 3), "
        "bias: float32 (4,), groups=2, padding=(1,))",
        "  The result is the definition's, as close as the contract promises.",
    ]
    assert str(result) == f"failed: values: {result.message}"


def test_an_unexpected_error_is_a_failure_and_is_kept():
    class Raises(Sound):
        def compute(self, *args, **kwargs):
            raise ZeroDivisionError("of zero")

    (result,) = check_operator(Raises(), checks=["values"])
    assert "raised ZeroDivisionError: of zero\n  case '1-D' (2 of 2 cases)" in result.message
    assert isinstance(result.error.__cause__, ZeroDivisionError)


def test_expected_failures_are_strict():
    options = {"expected_failures": {"values": "known", "direct": "supposed"}}
    values, direct = check_operator(CoarseByDefault(), checks=["values", "direct"], **options)
    assert (values.status, values.message) == ("expected", "known")
    assert direct.status == "failed"
    assert "passes, but was expected to fail (supposed)" in direct.message


class NoGradients(Sound):
    def backward(self, *args, **kwargs):
        raise NotImplementedError("sound: it has no gradients")


class SaysSo(NoGradients):
    capabilities = frozenset(CAPABILITIES) - {"backward"}


@pytest.mark.parametrize(
    ("op", "options"),
    [(SaysSo(), {}), (NoGradients(), {"capabilities": SaysSo.capabilities})],
    ids=["operator", "argument"],
)
def test_a_check_that_needs_something_else_is_skipped(op, options):
    statuses, failures = run(op, **options)
    assert failures == {}
    needs = {name: getattr(OperatorSuite, f"test_{name}").needs for name in OperatorSuite.checks}
    skipped = {name for name, status in statuses.items() if status == "skipped"}
    assert skipped == {name for name in needs if "backward" in needs[name]}
    (result,) = check_operator(op, checks=["needs"], **options)
    assert result.message == "the operator lacks backward"


def test_directional_derivatives_are_skipped_where_there_are_none():
    class OfNothing(Sound):
        linear = ()

    (result,) = check_operator(OfNothing(), checks=["jvp"])
    assert result.status == "skipped"
    assert "jvp refuses every array" in result.message


def test_names_that_do_not_exist():
    for options, message in (
        ({"checks": ["test_values"]}, r"no check is called 'test_values' \(did you mean 'values'"),
        ({"expected_failures": {"value": ""}}, r"no check is called 'value' \(did you mean"),
        ({"capabilities": {"backwards"}}, r"no capability is called 'backwards' \(did you mean"),
    ):
        with pytest.raises(ValueError, match=message):
            check_operator("standard", **options)
    with pytest.raises(ValueError, match=r"^Typo: no check is called 'plans'"):
        type("Typo", (OperatorSuite,), {"expected_failures": {"plans": "slow"}})
    with pytest.raises(ValueError, match=r"^check: needs must be out of backward"):
        check("backwards")
    with pytest.raises(pyconv.UnknownOperatorError):
        check_operator("no_such_operator")


def test_results_are_for_programs_too():
    results = iter_checks("standard", checks=["metadata", "signature"])
    first = next(results)
    assert isinstance(first, CheckResult)
    assert [first.name, *(result.name for result in results)] == ["metadata", "signature"]
    (failure,) = check_operator(NoSummary(), checks=["metadata"])
    for result in (first, failure):
        assert json.loads(json.dumps(result.to_dict()))["status"] == result.status


def test_a_suite_may_have_other_checks_and_arrays():
    class Ours(OperatorSuite):
        test_metadata = None  # taken out

        @check("backward")
        def test_ours(self, op):
            """We look at the operator ourselves."""
            (call,) = self.calls(op)
            assert set(call.arrays["weight"].flat) == {1.0}
            raise AssertionError("seen")

        def cases(self, op):
            yield next(iter(op.cases()))

        def array(self, name, shape, rng):
            return np.ones(shape) if name == "weight" else super().array(name, shape, rng)

    assert "metadata" not in Ours.checks
    assert Ours.checks["ours"] == "We look at the operator ourselves."
    (result,) = check_operator(Sound(), suite=Ours, checks=["ours"])
    assert result.status == "failed"
    assert "raised AssertionError: seen" in result.message


def test_pytest_is_not_needed():
    code = """
    import sys
    sys.modules["pytest"] = None
    from pyconv.testing import check_operator
    results = check_operator("pointwise", checks=["values", "gradients", "threads"])
    print(*results, sep="; ")
    """
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stderr == ""
    assert result.stdout == "passed: values; passed: gradients; passed: threads\n"


PLUGIN_TESTS = """
import pytest
from pyconv.operators.standard import Standard
from pyconv.testing import CAPABILITIES, OperatorSuite

class Ours(Standard):
    name = "ours"
    aliases = ()
    summary = ""

    def compute(self, problem, arrays, out, run, prepared=None):
        used = super().compute(problem, arrays, out, run, prepared)
        asked = problem.reason == "asked for" and problem.algorithm == "direct"
        if out.dtype == "f4" and asked:
            out[...] = 7
        return used

class TestOurs(OperatorSuite):
    capabilities = set(CAPABILITIES) - {"bfloat16"}
    expected_failures = {"metadata": "no summary yet", "values": "we thought so"}

    @pytest.fixture
    def op(self):
        return Ours()
"""


def test_under_pytest(tmp_path):
    (tmp_path / "test_ours.py").write_text(PLUGIN_TESTS)
    names = ("metadata", "values", "direct", "bfloat16", "cost")
    tests = [f"test_ours.py::TestOurs::test_{name}" for name in names]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *tests],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    text = result.stdout
    assert "2 failed, 1 passed, 1 skipped, 1 xfailed" in text
    assert "PASSED test_ours.py::TestOurs::test_cost" in text
    assert "XFAIL test_ours.py::TestOurs::test_metadata - no summary yet" in text
    assert "the operator lacks bfloat16" in text
    assert "ours: values: passes, but was expected to fail (we thought so)" in text
    assert "case '1-D strided' (7 of 7 cases): ours(x: float32 (2, 3, 17)" in text
    assert "_compare.py" not in text  # pytest shows nothing of how the suite works


def test_the_suite_knows_no_operator():
    """Built-ins have no privileges: no code of the suite has the name of one."""
    for path in Path(pyconv.testing.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        docs = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node not in docs:
                assert node.value not in builtin_names(), f"{path.name}:{node.lineno}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert "pyconv.operators" not in ast.unparse(node), path.name
