"""Rounds over the processes that are compared: the same arrays, one process running at a time.

Every implementation has a process for the length of a run. In each round each of them times the
layer once, in turn, so that what slows the machine down for a while slows all of them down. The
others wait at a pipe meanwhile; threads that their libraries keep spinning after a call are given
the time to fall asleep.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import pyconv
from pyconv.bench import gradients
from pyconv.bench.exact import LENIENCE, Exact, exact
from pyconv.bench.layers import Layer, description
from pyconv.bench.machine import Limits
from pyconv.bench.peers import worker
from pyconv.bench.processes import PROGRAM, Process, WorkerError
from pyconv.bench.results import OURS, LayerResult, Timing
from pyconv.cli.operators import arguments

SETTLE = 0.05
"""Seconds between turns on several threads. Threads that wait for more work spin for a while: under
GNU OpenMP 10 ms, in ONNX Runtime 40 ms."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes
    ----------
    rounds : int
        How often each implementation has its turn.
    seconds : float
        How long a turn lasts, or one call if that takes longer.
    """

    rounds: int = 5
    seconds: float = 0.1


class Runner:
    """The processes of one thread count; a context manager, which ends them.

    Parameters
    ----------
    names : sequence of str
        The implementations, out of `worker.NAMES`.
    threads : int
        Threads for each of them.
    settings : Settings
        How to measure.
    python : str, optional
        The interpreter that runs other libraries, by default this one.
    program : str, optional
        The program of every process.

    Attributes
    ----------
    versions : dict of str to str
        What runs, by implementation.
    absent : dict of str to str
        Why the other ones do not.
    """

    def __init__(
        self,
        names: Sequence[str],
        threads: int,
        settings: Settings,
        python: str = sys.executable,
        program: str = PROGRAM,
    ) -> None:
        self.threads, self.settings = threads, settings
        self._temporary = tempfile.TemporaryDirectory(prefix="pyconv-bench-")
        self._folder = Path(self._temporary.name)
        self._processes = [
            Process(
                name, threads, sys.executable if name in OURS else python, self._folder, program
            )
            for name in names
        ]
        self.versions: dict[str, str] = {}
        self.absent: dict[str, str] = {}

    def __enter__(self) -> Runner:
        try:
            for process in self._processes:
                self._start(process)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._processes = [p for p in self._processes if p.name in self.versions]
        return self

    def _start(self, process: Process) -> None:
        try:
            hello = process.start()
        except (WorkerError, OSError) as error:
            self.absent[process.name] = str(error)
            return
        if hello["status"] == "ok":
            self.versions[process.name] = process.version
        else:
            process.stop()
            self.absent[process.name] = hello["note"]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.stop()
        self._temporary.cleanup()

    def run(
        self, layers: Iterable[Layer], limits: dict[str, Limits], step: Callable[[str], None]
    ) -> Iterator[LayerResult]:
        """Measure layers, one after the other.

        Parameters
        ----------
        layers : iterable of Layer
            What to measure.
        limits : dict of str to Limits
            What the machine can do, by dtype.
        step : callable
            Called with the name of each layer as it starts.
        """
        for layer in layers:
            step(f"{layer.name}, {self.threads} thread{'s' * (self.threads > 1)}")
            yield self._measure(layer, limits[layer.dtype])

    def _measure(self, layer: Layer, limits: Limits) -> LayerResult:
        macs, nbytes = _cost(layer)
        least, binds = limits.least_seconds(macs, nbytes)
        files = self._save(layer)
        order = description(layer)
        timings = {p.name: self._prepare(p, order, files) for p in self._processes}
        _compare(exact(layer), {n: t for n, t in timings.items() if t.status == "ok"}, self._result)
        time.sleep(SETTLE)  # the exact result was computed on threads too
        running = [p for p in self._processes if timings[p.name].status == "ok"]
        for number in range(self.settings.rounds):
            first = number % max(len(running), 1)
            for process in running[first:] + running[:first]:  # nobody always follows the same
                self._turn(process, timings[process.name])
        return LayerResult(layer, self.threads, macs, nbytes, least, binds, timings)

    def _save(self, layer: Layer) -> dict[str, Any]:
        def save(name: str, value: Any) -> Any:
            if value is None:
                return None
            if isinstance(value, tuple):
                return [save(f"{name}{i}", each) for i, each in enumerate(value)]
            np.save(self._folder / f"{name}.npy", value)
            return str(self._folder / f"{name}.npy")

        return {name: save(name, value) for name, value in layer.arrays().items()}

    def _result(self, name: str) -> Path:
        return self._folder / f"result-{name}.npz"

    def _prepare(self, process: Process, layer: dict[str, Any], files: dict[str, Any]) -> Timing:
        out = self._result(process.name)
        try:
            answer = process.ask("prepare", layer=layer, files=files, out=str(out))
        except WorkerError as error:
            return Timing("crashed", f"while it prepared the layer: {error}")
        status = answer["status"] if answer["status"] != "missing" else "failed"
        return Timing(status, answer.get("note", ""))

    def _turn(self, process: Process, timing: Timing) -> None:
        if timing.status != "ok":
            return
        if self.threads > 1:
            time.sleep(SETTLE)
        try:
            answer = process.ask("measure", seconds=self.settings.seconds)
        except WorkerError as error:
            timing.fail("crashed", str(error))
            return
        if answer["status"] == "ok":
            timing.rounds.append(answer["median"])
            timing.fastest = min(timing.fastest, answer["fastest"])
        else:
            timing.fail("failed", answer["note"])


def _cost(layer: Layer) -> tuple[int, int]:
    """Return the multiply-adds of the definition, and the bytes of what is read and written."""
    op = pyconv.get(layer.operator)
    positional, keyword = arguments(op, layer.shapes)
    cost = op.cost(*positional, **keyword, **layer.params)
    macs, elements = cost.macs, cost.bytes_moved // 4
    if layer.needs:
        macs, elements = gradients.passes(layer) * macs, gradients.elements(layer)
    return macs, elements * np.dtype(layer.dtype).itemsize


def _load(file: Path) -> dict[str, Any]:
    with np.load(file) as arrays:
        return dict(arrays)


def _compare(right: Exact, timings: dict[str, Timing], file: Callable[[str], Path]) -> None:
    """Mark what is wrong, and say what it differs from."""
    results = {name: _load(file(name)) for name in timings}
    judge = "the definition" if right.by_definition else "pyconv in float64"
    if not right.by_definition:
        # Two other libraries that agree with each other overrule pyconv, its own judge here.
        others = [n for n in timings if n not in OURS and right.error(results[n]) > LENIENCE]
        for a, b in itertools.combinations(others, 2):
            agreed = replace(right, values=results[a])
            if worker.NAMES[a][0] != worker.NAMES[b][0] and agreed.error(results[b]) <= 1:
                right, judge = agreed, f"{a} and {b}, which agree,"
                break
    for name, timing in timings.items():
        timing.error = right.error(results[name])
        allowed = 1 if name in OURS else LENIENCE
        if timing.error > allowed:
            times = f"{timing.error / allowed:.3g} times"
            timing.fail("wrong", f"differs from {judge} by {times} what is allowed")
