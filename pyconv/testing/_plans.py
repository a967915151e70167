"""Checks of plans."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv.operator import DEFAULT_WORKSPACE
from pyconv.testing._call import Call
from pyconv.testing._check import check
from pyconv.testing._compare import all_same_bits, fail, named, refused, require, same_bits
from pyconv.testing._memory import OVERHEAD, allocated
from pyconv.testing._suite import Suite

if TYPE_CHECKING:
    from pyconv.operator import Operator

_FACTS = ("output_shape", "algorithm", "workspace_bytes", "macs")
_BUDGETS = (None, 2**20, 2**16, 2**12, 2**8, 1)
_LARGE = 2**20  # elements: buffers of that size do not fit the smaller workspace
_SMALL = 2**20  # bytes


class Plans(Suite):
    """``plan``: what it says, and that it computes the same."""

    @check("plan")
    def test_plan(self, op: Operator) -> None:
        """A plan gives the bits of the call, for any image, again and again."""

        def examine(call: Call) -> None:
            plan = call.plan()
            expected = call.forward()
            for _ in range(2):
                same_bits(call.run(plan), expected, "the result", "of a plan")
            other = call.changed(lambda a: a[::-1].copy(), op.per_call)
            same_bits(
                call.run(plan, other), call.forward(other), "the result", "of a plan used again"
            )

        for dtype in self.dtypes(op):
            self.each(self.calls(op, dtype), examine)

    @check("plan", "out")
    def test_plan_out(self, op: Operator) -> None:
        """A plan takes out= when it is called."""

        def examine(call: Call) -> None:
            plan, expected = call.plan(), call.forward()
            out = np.full_like(expected, np.nan)
            require(call.run(plan, out=out) is out, "a plan does not return out")
            same_bits(out, expected, "out", "of a plan")

        self.each(self.calls(op, "float32"), examine)

    @check("plan", "backward")
    def test_plan_gradients(self, op: Operator) -> None:
        """A plan's backward gives the bits of the operator's, and those that needs= picks."""

        def examine(call: Call) -> None:
            plan = call.plan()
            expected = call.backward()
            names = tuple(expected)
            choices: list[Any] = [None, *((name,) for name in names), *names, names[::-1], (), None]
            for needs in choices:
                what = f"with needs={needs!r} of a plan"
                wanted = names if needs is None else {needs} if isinstance(needs, str) else needs
                got = call.run_backward(plan, needs=needs)
                require(set(got) == set(wanted), f"{what}, there are gradients of {list(got)}")
                picked = call.flat({name: expected[name] for name in got})
                all_same_bits(call.flat(got), picked, what)
            other = call.changed(lambda a: a[::-1].copy(), op.per_call)
            all_same_bits(
                call.flat(call.run_backward(plan, other)), call.flat(call.backward(other)),
                "of a plan used again",
            )  # fmt: skip

        for dtype in self.dtypes(op):
            self.each(self.calls(op, dtype), examine)

    @check("plan")
    def test_plan_keeps(self, op: Operator) -> None:
        """A plan keeps its weights: what becomes of the caller's does not matter."""

        def examine(call: Call) -> None:
            given = call.copies()
            plan = call.plan(given)
            for name in op.array_names:
                if name not in op.per_call:
                    for array in call.flat({name: given[name]}).values():
                        array[...] = np.nan
            same_bits(
                call.run(plan), call.forward(), "the result", "of a plan whose weights changed"
            )

        self.each(self.calls(op, "float32"), examine)

    @check("plan")
    def test_plan_facts(self, op: Operator) -> None:
        """A plan is frozen, and says what output_shape and cost say."""

        def examine(call: Call) -> None:
            plan = call.plan()
            for name in (*_FACTS, "anything"):
                try:
                    setattr(plan, name, 1)
                except (AttributeError, TypeError):
                    continue
                fail(f"a plan is not frozen: {name} can be set")
            shape = call.output_shape()
            require(
                plan.output_shape == shape,
                f"the plan's output_shape is {plan.output_shape}, the operator's {shape}",
            )
            macs = call.cost().macs
            require(plan.macs == macs, f"the plan's macs are {plan.macs}, the operator's {macs}")
            require(
                plan.algorithm in set(op.algorithms) - {"auto"},
                f"the plan's algorithm is {plan.algorithm!r}, out of {op.algorithms}",
            )
            workspace: Any = plan.workspace_bytes
            require(
                isinstance(workspace, int) and workspace >= 0,
                f"the plan's workspace_bytes is {workspace!r}",
            )

        self.each(self.calls(op, "float32"), examine)

    @check("plan", "max_workspace")
    def test_workspace(self, op: Operator) -> None:
        """workspace_bytes is within max_workspace, and a call allocates no more than it says."""

        def examine(call: Call) -> None:
            for budget in _BUDGETS:
                params: dict[str, Any] = {} if budget is None else {"max_workspace": budget}
                limit = DEFAULT_WORKSPACE if budget is None else budget
                try:
                    used = call.plan(**params).workspace_bytes
                except ValueError as error:
                    text = str(error)
                    require(
                        budget is not None and named("max_workspace", text),
                        f"max_workspace={budget} is refused without its name: {text!r}",
                    )
                    require(named(op.name, text), f"the error does not name {op.name}: {text!r}")
                else:
                    require(used <= limit, f"max_workspace={limit}, but workspace_bytes is {used}")
            large = call.enlarged(_LARGE)
            for budget in (DEFAULT_WORKSPACE, _SMALL):
                plan = large.plan(max_workspace=budget)
                used, taken = plan.workspace_bytes, allocated(large.run, plan, large.copies())
                require(
                    taken <= used + OVERHEAD,
                    f"with max_workspace={budget}, workspace_bytes is {used}, but a call allocates "
                    f"{taken} bytes besides the result (for {large})",
                )

        self.each(self.calls(op, "float32"), examine)

    @check("plan", "algorithm")
    def test_choice(self, op: Operator) -> None:
        """What "auto" picks depends neither on the batch size nor on the number of threads."""

        def examine(call: Call) -> None:
            first = call.plan().algorithm
            if self.has(op, "threads"):
                for threads in (1, 2, 8):
                    picked = call.plan(threads=threads).algorithm
                    require(
                        picked == first, f"with threads={threads} it picks {picked}, else {first}"
                    )
            for batch in (1, 3, 64) if call.batched else ():
                picked = call.resized(batch).plan().algorithm
                n = call.shapes["x"][0]
                require(picked == first, f"for {batch} images it picks {picked}, for {n} {first}")

        self.each(self.calls(op, "float32"), examine)

    @check("plan")
    def test_explain(self, op: Operator) -> None:
        """explain() tells a person the shapes, the algorithm, threads, workspace and cost."""

        def examine(call: Call) -> None:
            plan = call.plan()
            text = plan.explain()
            require(isinstance(text, str), f"explain() returns {text!r}")
            for what in (
                op.name,
                str(tuple(call.shapes["x"])),
                str(plan.output_shape),
                plan.algorithm,
                str(plan.workspace_bytes),
                str(plan.macs),
            ):
                require(named(what, text), f"explain() does not say {what}:\n{text}")
            require("thread" in text, f"explain() does not speak of threads:\n{text}")

        self.each(self.calls(op, "float32"), examine)

    @check("plan")
    def test_plan_concurrent(self, op: Operator) -> None:
        """Several threads may call one plan at once, with different images."""

        def examine(call: Call) -> None:
            plan = call.plan()
            given = [call.scaled(1 + i / 8) for i in range(8)]
            expected = [call.forward(arrays) for arrays in given]
            with ThreadPoolExecutor(4) as pool:
                runs = [pool.submit(call.run, plan, arrays) for arrays in given * 3]
                for i, run in enumerate(runs):
                    where = "of a plan that other threads call too"
                    same_bits(run.result(), expected[i % len(given)], "the result", where)

        self.each(self.calls(op, "float32"), examine)

    @check("plan")
    def test_plan_refuses(self, op: Operator) -> None:
        """A plan refuses images of another shape, dtype or number."""

        def examine(call: Call) -> None:
            plan = call.plan()
            double = call.cast(np.float64, ["x"])
            longer = call.changed(lambda a: np.concatenate([a, a]), ["x"])
            fewer = {**call.copies(), "x": None}
            for what, arrays, kind in (
                ("a float64 x for a float32 plan", double, TypeError),
                ("an x of another shape", longer, ValueError),
                ("a plan called without x", fewer, TypeError),
            ):
                refused(what, kind, op.name, "x", call.run, plan, arrays)
            what, kinds = "a plan with x_shape='nonsense'", (TypeError, ValueError)
            refused(what, kinds, op.name, "x_shape", call.plan, x_shape="nonsense")

        self.each(self.calls(op, "float32"), examine)
