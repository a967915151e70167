"""Checks of what the contract promises: the same bits, bounded memory, no side effects."""

from __future__ import annotations

import os
import pickle
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

import pyconv
from pyconv.testing._call import Call
from pyconv.testing._check import check
from pyconv.testing._compare import (
    CheckFailure,
    all_same_bits,
    described,
    fail,
    named,
    refused,
    require,
    same_bits,
)
from pyconv.testing._memory import OVERHEAD, allocated
from pyconv.testing._suite import Suite

if TYPE_CHECKING:
    from pyconv.operator import Operator

THREADS = (1, 2, 3, 8)

# Elements of images and result that give 8 threads something to do each.
_LARGE = 2**18

# Enough that a buffer in proportion to it does not fit the workspace below.
_HUGE = 2**20
_WORKSPACE = 2**20

# Elements that two threads share, and seconds that a forked process may take for them.
_PARALLEL = 2**16
_PATIENCE = 60

# Seconds of a call that are long enough to see who else runs meanwhile; elements that may take so
# long; how often other threads look at the clock, and how many attempts a busy machine gets.
_LONG = 0.03
_SIZES = (2**18, 2**20, 2**22, 2**24)
_TICK = 0.0005
_ATTEMPTS = 20

# Elements that fit 64 bits in bytes, but no machine.
_TOO_MUCH = 2**58


class Promises(Suite):
    """Section 5 of the contract."""

    @check()
    def test_runs(self, op: Operator) -> None:
        """A repeated call gives the same bits, whatever was in memory before."""

        def examine(call: Call) -> None:
            backward = self.has(op, "backward")
            first = call.outcome(backward=backward)
            for value in (np.nan, 1e4):
                # Freed memory of the right sizes: what the next call gets, if it does not clear it.
                litter = [np.full_like(array, value) for array in first.values() for _ in range(3)]
                del litter
                all_same_bits(call.outcome(backward=backward), first, "in another run")

        for dtype in self.dtypes(op):
            self.each(self.calls(op, dtype), examine)

    @check("threads")
    def test_threads(self, op: Operator) -> None:
        """The number of threads changes no bit of results and gradients."""

        def examine(call: Call) -> None:
            large = call.enlarged(_LARGE)
            backward = self.has(op, "backward")
            first = large.outcome(backward=backward, threads=1)
            for n in THREADS[1:]:
                all_same_bits(
                    large.outcome(backward=backward, threads=n), first, f"with threads={n}"
                )
            with pyconv.threads(2):
                all_same_bits(large.outcome(backward=backward), first, "in pyconv.threads(2)")

        self.each(self.calls(op, "float32"), examine)
        for dtype in self.dtypes(op, "float64", "float16"):
            self.each(self.calls(op, dtype)[:2], examine)

    @check("batch")
    def test_batch(self, op: Operator) -> None:
        """An image gives the same bits alone, in part of a batch, and in the whole batch."""

        def examine(call: Call) -> None:
            n = 5
            call = call.resized(n)
            images = [f"the gradient of {name}" for name in call.present_images]
            whole = call.outcome(backward=self.has(op, "backward"))
            shared = {w: a for w, a in whole.items() if w == "the result" or w in images}
            for part in (slice(0, 1), slice(3, 4), slice(0, 2), slice(2, 5)):
                some = call.sliced(part)
                grad = call.grad[part]
                got = some.outcome(backward=self.has(op, "backward"), grad=grad)
                for what, array in shared.items():
                    where = f"for images {part.start} to {part.stop - 1} of {n} alone"
                    same_bits(got[what], array[part], what, where)

        for dtype in self.dtypes(op, "float32", "float64"):
            self.each(self.batched_calls(op, dtype), examine, "a batch axis")

    @check("batch")
    def test_empty_batch(self, op: Operator) -> None:
        """No image gives no result, and gradients of zero."""

        def examine(call: Call) -> None:
            none = call.resized(0)
            expected = (0, *call.output_shape()[1:])
            require(
                none.output_shape() == expected,
                f"output_shape is {none.output_shape()} for no image, not {expected}",
            )
            result = none.forward()
            require(
                result.shape == expected and result.dtype == call.dtype,
                f"the result for no image has shape {result.shape} and dtype {result.dtype}",
            )
            if self.has(op, "backward"):
                gradients = none.flat(none.backward())
                for label, array in none.flat().items():
                    if self.constant(op, label):
                        continue
                    gradient = gradients[label]
                    require(
                        gradient.shape == array.shape and not gradient.any(),
                        f"the gradient of {label} is not all zero for no image",
                    )

        self.each(self.batched_calls(op, "float32"), examine, "a batch axis")

    @check("max_workspace")
    def test_memory(self, op: Operator) -> None:
        """A call allocates no more than max_workspace besides arguments and results."""

        def examine(call: Call) -> None:
            large = call.enlarged(_HUGE)
            self._examine_memory(large, "the call", large.forward)
            if self.has(op, "backward"):
                self._examine_memory(large, "backward", large.backward)

        self.each(self.calls(op, "float32"), examine)

    def _examine_memory(self, call: Call, what: str, make: Callable[..., Any]) -> None:
        given = {"grad": call.grad} if what == "backward" else {}
        try:
            taken = allocated(make, call.copies(), max_workspace=_WORKSPACE, **given)
        except ValueError as error:
            if named("max_workspace", str(error)):
                return  # it says so
            raise
        require(
            taken <= _WORKSPACE + OVERHEAD,
            f"{what} with max_workspace={_WORKSPACE} allocates {taken} bytes besides the results "
            f"(for {call})",
        )

    @check()
    def test_inputs_unchanged(self, op: Operator) -> None:
        """Arguments are read only: neither a call nor backward writes to them."""

        def examine(call: Call) -> None:
            given = call.copies()
            call.forward(given)
            self._compare_inputs(call, given, "the call")
            if self.has(op, "backward"):
                grad = call.grad.copy()
                call.backward(given, grad)
                self._compare_inputs(call, given, "backward")
                require(np.array_equal(grad, call.grad), "backward changes grad")
            if self.has(op, "plan"):
                call.run(call.plan(given), given)
                self._compare_inputs(call, given, "a plan")

        for dtype in self.dtypes(op, "float32", "float64", "float16"):
            self.each(self.calls(op, dtype), examine)

    def _compare_inputs(self, call: Call, given: dict[str, Any], who: str) -> None:
        original = call.flat()
        for label, array in call.flat(given).items():
            if array.tobytes() != original[label].tobytes():
                fail(f"{who} changes the array {label} that it is given")

    @check()
    def test_concurrent(self, op: Operator) -> None:
        """Calls from several Python threads at once do not disturb one another."""
        backward = self.has(op, "backward")

        def examine(call: Call) -> None:
            # Different images, so that nobody can do with the result of another.
            given = [call.scaled(1 + i / 8) for i in range(8)]
            expected = [call.outcome(arrays, backward=backward) for arrays in given]
            with ThreadPoolExecutor(4) as pool:
                runs = [pool.submit(call.outcome, a, backward=backward) for a in given * 3]
                for i, run in enumerate(runs):
                    found, wanted = run.result(), expected[i % len(given)]
                    all_same_bits(found, wanted, "next to calls in other threads")

        self.each(self.calls(op, "float32"), examine)

    @check()
    def test_gil(self, op: Operator) -> None:
        """Other Python threads go on while a call computes."""

        def examine(call: Call) -> None:
            threads: dict[str, Any] = {"threads": 1} if self.has(op, "threads") else {}
            for size in _SIZES:
                run = partial(call.enlarged(size).forward, **threads)
                if _seconds(run) >= _LONG:
                    break
            else:
                return  # a call that is always over at once stops nobody
            shares: list[float] = []
            while len(shares) < _ATTEMPTS and min(shares, default=1.0) > 0.5:
                shares.append(_longest_wait(run))
            require(
                min(shares) <= 0.5,
                f"another thread does not run for {min(shares):.0%} of the time of a call "
                f"(for {call.enlarged(size)})",
            )

        self.each(self.calls(op, "float32")[:1], examine)

    @check()
    def test_fork(self, op: Operator) -> None:
        """A process forked from one that has run the operator can run it as well."""
        if not hasattr(os, "fork"):
            return
        backward = self.has(op, "backward")

        def examine(call: Call) -> None:
            large = call.enlarged(_PARALLEL)
            threads: dict[str, Any] = {"threads": 2} if self.has(op, "threads") else {}
            expected = large.outcome(backward=backward, **threads)

            def again() -> None:
                got = large.outcome(backward=backward, **threads)
                all_same_bits(got, expected, "in a forked process")

            trouble = _failure_in_fork(again)
            require(not trouble, trouble)

        self.each(self.calls(op, "float32")[:1], examine)

    @check("batch")
    def test_out_of_memory(self, op: Operator) -> None:
        """A result that no memory can hold is a MemoryError, before anything is computed."""

        def examine(call: Call) -> None:
            n = call.shapes["x"][0]
            shape = call.output_shape()[1:]
            images = [prod(call.shapes[name]) // n for name in call.present_images]
            batch = _TOO_MUCH // max(prod(shape), *images)
            many = call.changed(
                lambda a: np.broadcast_to(a[:1], (batch, *a.shape[1:])), call.present_images
            )
            names = {"the call": call.forward}
            if self.has(op, "backward"):
                grad = np.broadcast_to(call.grad[:1], (batch, *shape))
                names["backward"] = partial(call.backward, grad=grad)
            for who, make in names.items():
                refused(f"{who} for {batch} images", MemoryError, op.name, "", make, many)

        self.each(self.batched_calls(op, "float32")[:2], examine, "a batch axis")

    @check("pickle")
    def test_pickle(self, op: Operator) -> None:
        """Processes pass operators on by name: a pickled one is the registered one."""
        known = _is_registered(op)
        if not known:
            pyconv.register(op, replace=True)
        try:
            copy = pickle.loads(pickle.dumps(op))
            require(
                getattr(copy, "name", None) == op.name, f"unpickling gives {copy!r}, not {op!r}"
            )
            self.each(self.calls(op, "float32"), lambda call: _compare_copy(call, copy))
        finally:
            if not known:
                pyconv.unregister(op.name)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _longest_wait(run: Callable[[], object]) -> float:
    """The longest that another thread has to wait for its turn, as a share of the time of `run`."""
    longest, started, over = 0.0, threading.Event(), threading.Event()

    def watch() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not over.is_set():
            started.set()
            time.sleep(_TICK)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    watching = threading.Thread(target=watch)
    watching.start()
    started.wait()
    try:
        seconds = _seconds(run)
    finally:
        over.set()
        watching.join()
    return longest / seconds


def _failure_in_fork(examine: Callable[[], None]) -> str:
    """Run `examine` in a forked process; return what is wrong, or nothing."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns of forks in a process with threads: just what is tried here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        text = ""
        try:
            examine()
        except BaseException as error:  # pytest's own, and SystemExit, are for the parent
            text = str(error) if isinstance(error, CheckFailure) else f"raised {described(error)}"
        finally:
            # No cleaning up: what there is belongs to the parent.
            os.write(writing, b"." + text.encode()[:4000])
            os._exit(0)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], _PATIENCE)
        if not ready:
            os.kill(child, signal.SIGKILL)
            return f"a forked process has no result after {_PATIENCE} seconds"
        answer = os.read(reading, 5000).decode(errors="replace")
    finally:
        os.close(reading)
        _, status = os.waitpid(child, 0)
    return answer[1:] if answer else f"a forked process ends with status {status}"


def _is_registered(op: Operator) -> bool:
    try:
        return pyconv.get(op.name) is op
    except (LookupError, pyconv.PluginError):
        return False


def _compare_copy(call: Call, copy: Operator) -> None:
    other = Call(
        copy, call.name, call.shapes, call.params, lambda label, _: call.flat()[label],
        call.images, call.dtype,
    )  # fmt: skip
    same_bits(other.forward(), call.forward(), "the result", "of the unpickled operator")
